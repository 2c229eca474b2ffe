//! Damaged messages through every function and variable that reads headers and bodies: nothing panics. A panic would
//! cost its caller the answer. `MUTATIONS=200000 SEED=7 cargo test -p modules mutations` runs long.

#[path = "../../../fuzz/checks/mutate.rs"]
#[allow(dead_code, reason = "its seeds from files are for other tests")]
mod mutate;

use crate::testing::Server;
use bytes::Bytes;
use script::ast::Dialect;
use std::cell::RefCell;

const HEAD: &str = r#"
log_level=-3
xlog_level=-3
socket=udp:127.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "rr.so"
loadmodule "path.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
loadmodule "textops.so"
loadmodule "nathelper.so"
loadmodule "diversion.so"
loadmodule "uri.so"
loadmodule "options.so"
modparam("nathelper", "received_avp", "$avp(rcv)")
modparam("path", "use_received", 1)
"#;

/// Reads and changes all that a message has. A parameter reads all the variables in it.
const ROUTES: &str = r##"
route {
    is_present_hf("$ru $rU $rd $rp $rP $fu $fn $fU $fd $ft $tu $tn $tU $td $tt $ct $ci $cs $cl $cT $ua");
    is_present_hf("$(ct.fields(uri)[*]) $(ct.fields(expires)) $(ct.fields(q)) $pd $pU $pu $re $di $dir $dip $rr_params $oU $ou");
    is_present_hf("$hdr(Via) $(hdr(Contact)[-1]) $(hdr(Route)[*]) $(hdr_name[*]) $hdrcnt(Via) $au $ar $adu $an $auth.resp");
    is_present_hf("$rb $(rb(application/sdp)) $(rb(*)[1]) $(rb[-1]) $mb $ml");
    is_present_hf("$sdp $sdp.line(c=) $sdp.line(m=[1]/RTP) $sdp.session(o=/IP4) $sdp.stream(audio) $sdp.stream(audio[1]/a=fmtp:96/mode=) $sdp.stream(/c=/IP) $sdp.stream.idx(video)");
    is_present_hf("$(rb{sdp.line,m}) $(rb{sdp.line,c,1}) $(rb{sdp.stream,audio}) $(rb{sdp.stream,-1}) $(rb{sdp.stream-delete,audio}) $(rb{sdp.stream-delete,0})");
    is_present_hf("$(hdr(From){nameaddr.uri}) $(hdr(To){nameaddr.param,tag}) $(hdr(Contact){nameaddr.5.uri}) $(hdr(Via){via.host}) $(hdr(Via){via.branch}) $(hdr(Via){via.param,rport})");
    is_present_hf("$(ru{uri.user}) $(ru{uri.host}) $(ru{uri.port}) $(ru{uri.params}) $(ru{uri.param,transport}) $(ru{uri.headers}) $(hdr(Route){uri.host})");
    is_present_hf("$(hdr(Subject){param.value,a}) $(hdr(Subject){param.valueat,-1}) $(hdr(Subject){param.name,1}) $(hdr(Subject){csv.count}) $(hdr(Subject){csv.value,-2})");
    is_present_hf("$(hdr(Subject){s.len}) $(hdr(Subject){s.substr,-3,2}) $(hdr(Subject){s.select,-1,;}) $(hdr(Subject){s.decode.hexa}) $(hdr(Subject){s.b64decode}) $(hdr(Subject){s.unescape.user})");
    is_present_hf("$(hdr(Subject){s.unescape.param}) $(hdr(Subject){s.trim}) $(hdr(Subject){s.index,a,-2}) $(hdr(Subject){s.rindex,a}) $(hdr(Subject){s.fill.left,x,40}) $(hdr(Subject){ip.pton}{ip.ntop})");
    is_present_hf("$(hdr(Subject){re.subst,/(.)a/\\1b/g}) $(hdr(Subject){s.unescape.common}) $(hdr(Subject){s.date2unix}) $(hdr(Subject){ip.family}) $(hdr(Subject){s.int})");
    is_present_hf("Subject"); list_hdr_has_option("Supported", "path"); list_hdr_add_option("Supported", "x"); list_hdr_remove_option("Supported", "path");
    get_glob_headers_values("*", $avp(n), $avp(v));
    sip_to_json($var(j)); sipmsg_validate("shrud"); is_privacy("id"); ruri_has_param("a"); ruri_add_param("b=c"); ruri_del_param("lr"); ruri_tel2sip(); is_uri_user_e164("$fu");
    has_body_part("application/sdp"); is_audio_on_hold(); codec_exists("PCMU"); stream_exists("video");
    search("a(.)c"); search_body("IN IP4 (.*)"); has_totag(); nat_uac_test("private-contact,diff-ip-src-via,private-via,private-sdp,diff-port-src-via,diff-ip-src-contact,diff-port-src-contact,carrier-grade-nat");
    if ($var(n) == 0) {
        fix_nated_sdp("add-dir-active,rewrite-media-ip,rewrite-origin-ip,rewrite-null-ips", "10.9.9.9");
        codec_delete("PCMU"); codec_move_up("G729"); codec_delete_re("speex|PCMA"); codec_delete_except_re("PCMU"); stream_delete("video"); codec_move_down_re("9.*");
    } else {
        add_body_part("hello", "text/plain"); remove_body_part("application/isup"); remove_body_part("application/sdp", "revert"); get_updated_body_part("", $var(p));
        replace_body("IN", "OUT"); replace_body_all("1", "2"); subst_body("/([0-9]+) RTP/\1 SRTP/g"); search_append_body("m=", "x");
        $sdp.line(c=) = "c=IN IP4 1.1.1.1"; $sdp.stream(audio/m=) = NULL; $sdp.stream(video) = NULL;
    }
    $var(n) = 1 - $var(n);
    fix_nated_register(); fix_nated_contact(); add_rcv_param(); force_rport(); add_diversion("unconditional");
    append_hf("X-A: $hdr(From)\r\n", "Subject"); insert_hf("X-B: $hdr(Subject)\r\n", "Via"); remove_hf("Supported"); remove_hf_re("^X-"); remove_hf_glob("S*");
    replace("e", "E"); replace_all("11", "22"); subst("/^To: (.*)$/To: \1/"); subst_uri("/sip:(.*)@/sip:x\1@/"); subst_user("/a/b/"); search_append("Subject", "s");
    mf_process_maxfwd_header(10); record_route(";a=b"); add_path_received("u"); loose_route(); check_route_param("r2"); is_direction("upstream");
    if ($rU == "reply") { append_to_reply("X-C: $hdr(Subject)\r\n"); sl_send_reply(200, "OK $hdr(Subject)"); exit; }
    t_on_branch("b"); t_on_reply("r"); t_on_failure("f");
    $du = "sip:127.0.0.3:5070";
    t_relay();
}
branch_route[b] { append_hf("X-D: $T_branch_idx $(branch(uri)[*])\r\n"); fix_nated_sdp("rewrite-media-ip", "10.8.8.8"); }
onreply_route[r] { fix_nated_sdp("rewrite-media-ip,rewrite-origin-ip"); fix_nated_contact(); nat_uac_test("private-sdp"); codec_delete("PCMU"); change_reply_status(183, "$hdr(Subject)"); }
failure_route[f] { append_hf("X-E: $hdr(Subject)\r\n"); }
"##;

const SEEDS: &[&str] = &[
    "INVITE sip:bob@example.com:5060;transport=udp;lr?Subject=x SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;rport;branch=z9hG4bKa;received=10.0.0.9\r\n\
     Max-Forwards: 70\r\nFrom: \"Alice \\\" A\" <sip:alice@example.com>;tag=a1\r\nTo: Bob <sip:bob@example.com>\r\nCall-ID: call-1@x\r\nCSeq: 1 INVITE\r\n\
     Contact: <sip:alice@10.0.0.2:5060;ob>;q=0.5;expires=60\r\nRoute: <sip:127.0.0.1:5060;lr;r2=on;received=sip:1.2.3.4:5%3btransport%3dtcp>, <sip:127.0.0.1;lr>\r\n\
     Supported: path, 100rel\r\nk: timer\r\nSubject: a=1;b=\"2\";c, d\r\nP-Asserted-Identity: <sip:a@b>\r\nDiversion: <sip:d@e>;reason=unknown\r\n\
     Privacy: id\r\nAuthorization: Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"sip:u\", response=\"00\"\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\n\
     Content-Type: application/sdp\r\nContent-Length: 395\r\n\r\nv=0\r\no=alice 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
     m=audio 4000 RTP/AVP 0 8 18 96 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:96 speex/16000\r\na=fmtp:96 mode=1;vbr=on\r\na=rtpmap:101 telephone-event/8000\r\n\
     a=fmtp:101 0-15\r\na=sendonly\r\nm=video 4002/2 RTP/AVP 97 99\r\nc=IN IP6 2001:db8::1\r\na=rtpmap:97 H264/90000\r\na=rtpmap:99 rtx/90000\r\n\
     a=fmtp:99 apt=97\r\na=oldmediaip:1.2.3.4\r\n",
    "MESSAGE sip:reply@127.0.0.1 SIP/2.0\r\nv: SIP/2.0/TCP [2001:db8::1]:5061;branch=z9hG4bKb, SIP/2.0/UDP b;maddr=1.1.1.1;ttl=3\r\nf: sip:a@b;tag=1\r\n\
     t: <sip:reply@c>;tag=2\r\ni: call-2\r\nCSeq: 2 MESSAGE\r\nm: <sip:a@10.1.1.1>, <sip:b@10.1.1.2>;q=1\r\ns: 1.2.3.4\r\n\
     c: multipart/mixed;boundary=\"b1\"\r\nl: 254\r\n\r\n--b1\r\nContent-Type: application/sdp\r\nContent-Disposition: session\r\n\r\nv=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\n\
     c=IN IP4 1.1.1.1\r\nt=0 0\r\nm=audio 5 RTP/AVP 0\r\n\r\n--b1\r\nContent-Type: application/isup;version=x\r\nContent-Length: 3\r\n\r\nabc\r\n--b1\r\n\r\nplain\r\n--b1--\r\n",
    "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2\r\nFrom: <sip:a@b>;tag=1\r\nTo: <tel:+1234;phone-context=x>\r\nCall-ID: 3\r\n\
     CSeq: 3 REGISTER\r\nContact: *\r\nExpires: 0\r\nPath: <sip:p;lr>\r\nSubject: =?x;;,,\"\r\n\r\n",
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP 10.0.0.2\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@c>;tag=2\r\n\
     Call-ID: 3\r\nCSeq: 3 INVITE\r\nContact: <sip:b@10.0.0.3>\r\nContent-Type: application/sdp\r\n\r\nv=0\r\nc=IN IP\r\nm=audio\r\n",
];

const WORDS: &str = concat!(
    include_str!("../../../fuzz/sip.dict"),
    r#"
"c=IN IP"
"c=IN IP4 "
"o="
"m=audio "
"m="
"a=rtpmap:"
"a=fmtp:"
"apt="
"IN IP"
"--b1"
"--b1--"
"Content-Type: "
"multipart/mixed;boundary="
"\x0d"
"\x0a"
"\x00"
"#
);

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

fn check(data: &[u8]) {
    // After a panic there is no server any more.
    let server = SERVER.take();
    let mut server = server.unwrap_or_else(|| Server::new(&format!("{HEAD}{ROUTES}"), Dialect::V4));
    let mut answered = false;
    for sent in server.receive_bytes("127.0.0.2:5060", Bytes::copy_from_slice(data)) {
        // The called party answers with the body that it got.
        let Some((head, body)) = sent.text.split_once("\r\n\r\n") else { continue };
        if sent.to.port() == 5070 && !answered && !head.starts_with("ACK") {
            answered = true;
            let lines = head.split("\r\n").skip(1).collect::<Vec<_>>().join("\r\n");
            let reply = format!("SIP/2.0 183 Fine\r\n{lines}\r\n\r\n{body}");
            server.receive_bytes("127.0.0.3:5070", reply.into());
        }
    }
    server.advance(40_000);
    server.advance(200_000);
    SERVER.set(Some(server));
}

#[test]
fn damaged_messages() {
    let seeds: Vec<Vec<u8>> = SEEDS.iter().map(|text| text.as_bytes().to_vec()).collect();
    mutate::run(&seeds, WORDS, 1500, check);
}

/// Lines of a description cut short at every place.
#[test]
fn cut_descriptions() {
    for seed in [SEEDS[0], SEEDS[1]] {
        let body = seed.find("\r\n\r\n").expect("a body") + 4;
        for end in body..seed.len() {
            check(&seed.as_bytes()[..end]);
        }
        for (at, _) in seed[body..].match_indices("\r\n") {
            for cut in 1..12 {
                let at = body + at;
                if cut <= at - body {
                    check(format!("{}{}", &seed[..at - cut], &seed[at..]).as_bytes());
                }
            }
        }
    }
}
