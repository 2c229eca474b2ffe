//! What one relayed call costs inside the worker, without sockets: INVITE, 100, 180, 200, ACK, BYE, 200.
//! `cargo run --profile quick -p sim --example relay_cost [CALLS]`, also under perf or callgrind.

use bytes::Bytes;
use sim::desk::Desk;

const SCRIPT: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
route {
    if (!mf_process_maxfwd_header(10)) { sl_send_reply(483, "Too Many Hops"); exit; }
    if (has_totag()) {
        if (!loose_route()) { sl_send_reply(404, "Not here"); exit; }
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
    t_check_trans();
    if (is_method("INVITE")) record_route();
    $du = "sip:10.0.0.3:5060";
    if (!t_relay()) sl_reply_error();
}
"#;

const SDP: &str = "v=0\r\no=user1 53655765 2353687637 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

fn request(method: &str, n: usize, to_tag: &str, route: &str, body: &str) -> Bytes {
    let uri = if to_tag.is_empty() { "sip:service@10.0.0.1:5060" } else { "sip:10.0.0.3:5060" };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK-{n}-{method}\r\n{route}\
         From: sipp <sip:sipp@10.0.0.2:5060>;tag=1SIPpTag00{n}\r\nTo: service <sip:service@10.0.0.1:5060>{to_tag}\r\n\
         Call-ID: {n}-1@10.0.0.2\r\nCSeq: 1 {method}\r\nContact: sip:sipp@10.0.0.2:5060\r\nMax-Forwards: 70\r\n\
         Subject: Performance Test\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into()
}

fn answer(desk: &mut Desk, bytes: &Bytes, codes: &[u16]) {
    let msg = sip::Message::parse(bytes.clone()).expect("a request");
    for code in codes {
        let with_sdp = *code == 200 && msg.method() == sip::Method::Invite;
        let parts = sip::ReplyParts {
            code: *code,
            reason: b"OK",
            to_tag: Some(b"2SIPpTag01"),
            extra: if with_sdp {
                b"Contact: <sip:10.0.0.3:5060;transport=UDP>\r\nContent-Type: application/sdp\r\n"
            } else {
                b"Contact: <sip:10.0.0.3:5060;transport=UDP>\r\n"
            },
            body: if with_sdp { SDP.as_bytes() } else { b"" },
            ..Default::default()
        };
        desk.receive_bytes(3, sip::build_reply(&msg, &parts));
    }
}

fn main() {
    let calls = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let mut desk = Desk::new(SCRIPT);
    let mut datagrams = 0;
    for n in 0..calls {
        desk.receive_bytes(2, request("INVITE", n, "", "", SDP));
        let sent = desk.sent();
        datagrams += sent.len();
        let invite =
            sent.iter().find(|s| s.to.ip().to_string() == "10.0.0.3").expect("relayed").bytes.clone();
        answer(&mut desk, &invite, &[100, 180, 200]);
        let route = "Route: <sip:10.0.0.1:5060;lr>\r\n";
        desk.receive_bytes(2, request("ACK", n, ";tag=2SIPpTag01", route, ""));
        desk.receive_bytes(2, request("BYE", n, ";tag=2SIPpTag01", route, ""));
        let sent = desk.sent();
        datagrams += sent.len();
        let bye = sent.iter().find(|s| s.bytes.starts_with(b"BYE")).expect("relayed").bytes.clone();
        answer(&mut desk, &bye, &[200]);
        datagrams += desk.sent().len();
        desk.advance(2);
    }
    println!("{calls} calls, {datagrams} datagrams sent");
}
