//! Broken messages: whatever arrives, the worker goes on, and nothing is left of it in the end.
//! `GARBAGE_ROUNDS` takes more of them.

use bytes::Bytes;
use host::ctx::Rng;
use sim::desk::Desk;

/// A script that reads everything and does something with every message.
const SCRIPT: &str = r#"
log_level=-3
xlog_level=-3
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "textops.so"
loadmodule "sim.so"
route {
    $var(a) = $ru + $rU + $rd + $rp + $fu + $fn + $fU + $fd + $ft + $tu + $tn + $tU + $td + $tt + $ct + $ci + $cs + $cl + $cT + $ua;
    $var(b) = $hdr(Via) + $(hdr(Contact)[1]) + $rb + $si + $sp + $pr + $au + $ad + $ar + $di + $pd + $rr_params + $oU;
    $var(c) = $(ru{uri.params}) + $(hdr(From){nameaddr.uri}) + $(rb{sdp.line,m}) + $mb + $ml;
    append_hf("X-A: $var(a)\r\n");
    remove_hf("Subject");
    mf_process_maxfwd_header(10);
    if (loose_route()) { t_relay(); exit; }
    if (is_method("CANCEL")) { t_check_trans(); t_relay(); exit; }
    if (is_method("INVITE|SUBSCRIBE")) record_route(";x=y");
    if ($rU == "slow") slow(500, 1);
    t_on_branch("b"); t_on_reply("r"); t_on_failure("f");
    $du = "sip:10.0.0.3";
    if (!t_relay()) sl_reply_error();
}
branch_route[b] { append_hf("X-B: $T_branch_idx $ru\r\n"); }
onreply_route { $var(x) = $rs + $rr + $hdr(Contact) + $ct; append_hf("X-R: $rs\r\n"); }
onreply_route[r] { if ($rs == 180) slow(100, 1); }
failure_route[f] { $du = "sip:10.0.0.4"; t_relay(); }
"#;

/// Messages of the golden cases, their placeholders filled in.
fn corpus() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/messages.jsonl");
    let text = std::fs::read_to_string(path).expect("the golden cases");
    let mut messages = Vec::new();
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case");
        let steps = case["steps"].as_array().into_iter().flatten().filter_map(|step| step["send"].as_str());
        let requests = case["request"].as_str().into_iter().chain(steps);
        messages.extend(requests.filter(|text| text.len() > 40).map(|text| {
            text.replace("{SRV}", "10.0.0.1:5060")
                .replace("{UAS}", "10.0.0.3:5060")
                .replace("{UAC}", "10.0.0.2:5060")
                .replace("{BRANCH}", "z9hG4bKone")
                .replace("{CALLID}", "one@x")
                .replace("\r\n", "\n")
                .replace('\n', "\r\n")
        }));
    }
    messages
}

const PIECES: [&[u8]; 24] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff\xfe",
    b":",
    b";",
    b",",
    b"<",
    b">",
    b"\"",
    b"@",
    b"sip:",
    b"tel:",
    b"%",
    b"SIP/2.0 ",
    b"Via: SIP/2.0/UDP x;branch=z9hG4bK0.0.0.0\r\n",
    b"Content-Length: 99999999999\r\n",
    b"Route: <sip:10.0.0.1;lr>\r\n",
    b"Max-Forwards: 0\r\n",
    b"[",
    b"]",
    b" \t",
    b"=",
    b"CSeq: 4294967296 INVITE\r\n",
];

fn broken(rng: &mut Rng, message: &[u8], other: &[u8]) -> Bytes {
    let mut bytes = message.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let end = (at + rng.below(20) as usize).min(bytes.len());
        match rng.below(7) {
            0 => drop(bytes.splice(at..end, [])),
            1 => bytes.truncate(at.max(1)),
            2 => drop(bytes.splice(at..at, PIECES[rng.below(PIECES.len() as u64) as usize].iter().copied())),
            3 if at < bytes.len() => bytes[at] = rng.below(256) as u8,
            4 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            5 => {
                let from = rng.below(other.len() as u64) as usize;
                let to = (from + rng.below(200) as usize).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => {}
        }
    }
    bytes.into()
}

#[test]
fn nothing_that_arrives_does_harm() {
    let corpus = corpus();
    assert!(corpus.len() > 500, "{} messages", corpus.len());
    let rounds = std::env::var("GARBAGE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6000);
    let mut desk = Desk::new(SCRIPT);
    let mut rng = Rng(11);
    for round in 0..rounds {
        let pick = |rng: &mut Rng| corpus[rng.below(corpus.len() as u64) as usize].as_bytes();
        let (one, two) = (pick(&mut rng), pick(&mut rng));
        let mut message = broken(&mut rng, one, two);
        if rng.below(3) == 0 {
            // A transaction of its own.
            message =
                String::from_utf8_lossy(&message).replace("z9hG4bKone", &format!("z9hG4bK{round}")).into();
        }
        desk.receive_bytes(2, message);
        let sent = desk.sent();
        for sent in sent.iter().filter(|s| s.to.ip().to_string() != "10.0.0.2") {
            answer(&mut desk, &mut rng, &sent.bytes, two);
        }
        desk.advance(rng.below(50));
    }
    desk.advance(400_000);
    desk.sent();
    assert!(desk.is_idle(), "something is left");
    assert_eq!(desk.worker().ctx().txn_ids().count(), 0);
}

/// What a broken callee would say to a request.
fn answer(desk: &mut Desk, rng: &mut Rng, request: &Bytes, other: &[u8]) {
    let Ok(msg) = sip::Message::parse(request.clone()) else { return };
    for _ in 0..rng.below(3) {
        let code = [100, 180, 183, 200, 302, 404, 486, 503, 603, 199, 699][rng.below(11) as usize];
        let parts = sip::ReplyParts { code, reason: b"R", to_tag: Some(b"b"), ..Default::default() };
        let reply = sip::build_reply(&msg, &parts);
        let reply = if rng.below(2) == 0 { broken(rng, &reply, other) } else { reply };
        desk.receive_bytes(3, reply);
    }
}
