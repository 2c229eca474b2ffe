use crate::hep::{Packet, Version};
use crate::hep_in::{Received, Taker};
use crate::testing::Server;
use bytes::Bytes;
use script::ast::Dialect;
use serde_json::json;
use sip::Transport;

const HEAD: &str = "loadmodule \"sl.so\"\nloadmodule \"db_sqlite.so\"\nloadmodule \"sqlops.so\"\nloadmodule \"proto_hep.so\"\n\
    loadmodule \"sipcapture.so\"\nmodparam(\"sipcapture\", \"capture_on\", 1)\nmodparam(\"sipcapture\", \"hep_capture_on\", 1)\n";

const INVITE: &str = "INVITE sip:bob@b.example:5070 SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.1:5060;branch=z9hG4bKx\r\n\
    From: \"A\" <sip:alice@a.example>;tag=t1\r\nTo: <sip:bob@b.example>\r\nCall-ID: one@x\r\nCSeq: 7 INVITE\r\n\
    Contact: <sip:ali@10.1.0.9:5090>\r\nX-CID: other\r\nUser-Agent: Phone 1\r\nP-Asserted-Identity: <sip:pid@a.example>\r\n\
    Proxy-Authorization: Digest username=\"au@dom\", realm=\"r\"\r\nX-OIP: 9.9.9.9:99\r\nContent-Length: 0\r\n\r\n";

fn hep(version: Version, payload: &str) -> Bytes {
    let packet = Packet {
        from: "10.1.0.1:5060".parse().unwrap(),
        to: "10.1.0.2:5061".parse().unwrap(),
        transport: Transport::Udp,
        at_us: 1_700_000_000_000_123,
        kind: 1,
        correlation: "corr".into(),
        extra: Bytes::new(),
        payload: payload.to_string().into(),
    };
    packet.encode(version, 42).unwrap()
}

fn comes(server: &mut Server, bytes: Bytes) {
    let peer = "127.0.0.5:1111".parse().unwrap();
    let own = "127.0.0.1:6060".parse().unwrap();
    let packet = Received::read(bytes, peer, own, Transport::Udp).expect("a packet");
    server.run(move |ctx| {
        for Taker(taker) in ctx.shared().clone().hooks.listed::<Taker>() {
            taker(ctx, packet.clone());
        }
    });
}

fn said(server: &mut Server) -> Vec<String> {
    server.receive("10.0.0.9:5060", "OPTIONS sip:said@x SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKs\nFrom: <sip:a@x>;tag=1\nTo: <sip:a@x>\nCall-ID: s\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n")
        .iter()
        .flat_map(|sent| sent.text.lines().filter_map(|l| l.strip_prefix("X-Said: ")).map(str::to_string).collect::<Vec<_>>())
        .collect()
}

/// A script that answers OPTIONS to `said` with what was kept in a shared variable.
fn script(params: &str, main: &str, routes: &str) -> String {
    format!(
        "{HEAD}loadmodule \"cfgutils.so\"\nloadmodule \"sipmsgops.so\"\nmodparam(\"cfgutils\", \"shvset\", \"said=s:\")\n{params}\n\
         route {{ if ($rU == \"said\") {{ append_to_reply(\"X-Said: $shv(said)\\r\\n\"); sl_send_reply(200, \"OK\"); exit; }}\n{main}\n}}\n{routes}"
    )
}

#[test]
fn the_main_route_sees_the_payload() {
    let mut server = Server::new(
        &script(
            "",
            "$shv(said) = $rm + \" \" + $si + \":\" + $sp + \" \" + $ci + \" v\" + $HEPVERSION + \" \" + $hep_net(src_ip) + \":\" + $hep_net(src_port) + \" \" + $hep_net(proto_family);",
            "",
        ),
        Dialect::V4,
    );
    comes(&mut server, hep(Version::Three, INVITE));
    assert_eq!(said(&mut server), ["INVITE 10.1.0.1:5060 one@x v3 127.0.0.5:1111 AF_INET"]);
    comes(&mut server, hep(Version::Two, INVITE));
    assert!(said(&mut server)[0].contains(" v2 "));
}

#[test]
fn chunks_in_a_hep_route() {
    let routes = "route[hep] {\n hep_get(\"0x0011\", \"utf8-string\", $var(c), $var(v));\n hep_get(\"proto_type\", , $var(t));\n\
        hep_set(\"proto_type\", \"H321\");\n hep_get(\"11\", , $var(u));\n hep_set(\"31\", \"132\", \"uint32\", \"3\");\n\
        hep_get(\"31\", \"uint32\", $var(n), $var(w));\n hep_set(\"src_ip\", \"2001:db8::1\");\n hep_get(\"src_ip\", , $var(ip));\n hep_get(\"proto_family\", , $var(f));\n\
        $var(d) = hep_del(\"31\");\n $var(e) = hep_del(\"31\");\n\
        $shv(said) = $var(c) + \" \" + $var(v) + \" \" + $var(t) + \" \" + $var(u) + \" \" + $var(n) + \" \" + $var(w) + \" \" + $var(ip) + \" \" + $var(f) + \" \" + $var(d) + \" \" + $var(e); hep_resume_sip(); $shv(said) = \"never\"; }";
    let main = "$shv(said) = $shv(said) + \" then \" + $rm;";
    let mut server =
        Server::new(&script("modparam(\"sipcapture\", \"hep_route\", \"hep\")", main, routes), Dialect::V4);
    comes(&mut server, hep(Version::Three, INVITE));
    assert_eq!(said(&mut server), ["corr 0 SIP H321 132 3 2001:db8::1 AF_INET6 1 -1 then INVITE"]);
}

#[test]
fn rows_as_the_reference_writes_them() {
    let folder = testing::Folder::new("sipcapture");
    let url = format!("sqlite://{}/c.db", folder.0.display());
    let params = format!(
        "modparam(\"sipcapture\", \"db_url\", \"{url}\")\nmodparam(\"sqlops\", \"db_url\", \"{url}\")\nmodparam(\"sipcapture\", \"capture_node\", \"node\")"
    );
    let main = "sip_capture(, \"one\", $rU);\n\
        sql_query(\"select method||','||ruri_user||','||ruri_domain||','||from_user||','||from_domain||','||from_tag||','||to_user||','||pid_user||','||contact_user||','||auth_user||','||callid||','||callid_aleg||','||via_1_branch||','||cseq from sip_capture\", $avp(a));\n\
        sql_query(\"select source_ip||':'||source_port||','||destination_ip||':'||destination_port||','||contact_ip||':'||contact_port||','||originator_ip||':'||originator_port||','||proto||','||family||','||type||','||node||','||correlation_id||','||micro_ts||','||custom_field1||custom_field2||custom_field3 from sip_capture\", $avp(b));\n\
        $shv(said) = $avp(a) + \" \" + $avp(b);";
    let create: String = host::db::schema::table("sip_capture")
        .map(|t| t.columns.iter().filter(|c| c.name != "id").map(|c| c.name).collect::<Vec<_>>().join(", "))
        .unwrap();
    let startup = format!("startup_route {{ sql_query(\"create table sip_capture ({create})\"); }}");
    let mut server = Server::new(&script(&params, main, &startup), Dialect::V4);
    comes(&mut server, hep(Version::Three, INVITE));
    let said = said(&mut server).join("");
    let (first, second) = said.split_once(" 10.1").expect("two rows");
    assert_eq!(first, "INVITE,bob,b.example,alice,a.example,t1,bob,pid,ali,au,one@x,other,z9hG4bKx,7 INVITE");
    assert_eq!(
        second,
        ".0.1:5060,10.1.0.2:5061,10.1.0.9:5090,9.9.9.9:99,17,2,1,node:42,corr,1700000000000123,onebob"
    );
    assert_eq!(server.statistic("sipcapture:captured_requests"), 1);
    assert_eq!(server.manage("sipcapture:capture", json!(["off"])).unwrap(), "OK");
    assert_eq!(server.manage("sipcapture:capture", json!([])).unwrap(), "off");
    assert!(server.manage("sipcapture:capture", json!(["maybe"])).is_err());
}
