//! What module tm does besides relaying: failover, minor branches, requests of the server itself.

use sim::desk::{Desk, Sent};

const HEAD: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "sim.so"
modparam("tm", "fr_timeout", 10)
modparam("tm", "fr_inv_timeout", 20)
"#;

fn invite(desk: &mut Desk, uri: &str) {
    desk.receive(
        2,
        &format!(
            "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bKi\nMax-Forwards: 70\n\
             From: <sip:a@x>;tag=a\nTo: <sip:b@x>\nCall-ID: one\nCSeq: 1 INVITE\nContent-Length: 0\n\n"
        ),
    );
}

fn reply(desk: &mut Desk, to: &Sent, status: u16) {
    let msg = sip::Message::parse(to.bytes.clone()).unwrap();
    let parts = sip::ReplyParts { code: status, reason: b"R", to_tag: Some(b"b"), ..Default::default() };
    let bytes = sip::build_reply(&msg, &parts);
    let std::net::IpAddr::V4(ip) = to.to.ip() else { panic!("IPv4") };
    desk.receive_bytes(ip.octets()[3], bytes);
}

fn to(sent: &[Sent], host: u8) -> Option<&Sent> {
    sent.iter().find(|s| s.to.ip() == std::net::IpAddr::from([10, 0, 0, host]))
}

/// `flaky.sim` has two addresses; the second one is tried when the first is silent or says 503.
#[test]
fn the_next_address_of_a_name_is_tried() {
    for (how, tried) in [("", true), ("\"no-dns-failover\"", false)] {
        let mut desk = Desk::new(&format!("{HEAD} route {{ t_relay({how}); }}"));
        invite(&mut desk, "sip:a@flaky.sim");
        desk.advance(3_500);
        assert!(to(&desk.sent(), 99).is_some(), "{how}");
        desk.advance(10_000);
        let sent = desk.sent();
        assert_eq!(to(&sent, 3).is_some(), tried, "{how}");
        if let Some(second) = to(&sent, 3) {
            let text = String::from_utf8_lossy(&second.bytes).into_owned();
            assert_eq!(text.matches("Via:").count(), 2, "{text}");
            reply(&mut desk, second, 486);
            assert!(desk.summaries().contains(&"10.0.0.2 SIP/2.0 486 R".to_string()));
        } else {
            assert!(sent.iter().any(|s| s.summary() == "10.0.0.2 SIP/2.0 408 Request Timeout"));
        }
    }
}

/// Nobody waits for a minor branch: it is cancelled when all others have failed.
#[test]
fn a_minor_branch_is_not_waited_for() {
    let mut desk = Desk::new(&format!(
        "{HEAD} modparam(\"tm\", \"minor_branch_flag\", \"MINOR\")\n\
         route {{ t_on_branch(\"b\"); $msg.branch = \"sip:media@10.0.0.4\"; t_relay(); }}\n\
         branch_route[b] {{ if ($rU == \"media\") setbflag(\"MINOR\"); }}"
    ));
    invite(&mut desk, "sip:a@10.0.0.3");
    let sent = desk.sent();
    reply(&mut desk, to(&sent, 4).expect("the media server"), 183);
    desk.sent();
    reply(&mut desk, to(&sent, 3).expect("the callee"), 486);
    let got = desk.summaries();
    assert!(
        got.contains(&"10.0.0.4 CANCEL".into()) && got.contains(&"10.0.0.2 SIP/2.0 486 R".into()),
        "{got:?}"
    );
}

/// local_route may change a request of the server, `local_request_route` and `local_reply_route` look on.
#[test]
fn own_messages_pass_their_routes() {
    let mut desk = Desk::new(&format!(
        "{HEAD} modparam(\"tm\", \"local_request_route\", \"req\")\nmodparam(\"tm\", \"local_reply_route\", \"rep\")\n\
         route {{ t_reply(404, \"None\"); }}\n\
         local_route {{ append_hf(\"X-L: $avp(uac_ctx)\\r\\n\"); }}\n\
         route[req] {{ if ($hdr(X-L) == \"again\") exit; t_new_request(\"MESSAGE\", \"sip:seen@10.0.0.5\", \"sip:a@b\", \"sip:c@d\", \"text/plain $rm $hdr(X-L)\", \"again\"); }}\n\
         route[rep] {{ if ($rs == 404) t_new_request(\"MESSAGE\", \"sip:x@10.0.0.4\", \"sip:a@b\", \"sip:c@d\", \"text/plain $rs\", \"first\"); }}"
    ));
    invite(&mut desk, "sip:a@x");
    let sent = desk.sent();
    let body = |host| {
        let text = String::from_utf8_lossy(&to(&sent, host).expect("a request").bytes).into_owned();
        text.split_once("\r\n\r\n").expect("a body").1.to_string()
    };
    assert_eq!(body(4), "404");
    assert_eq!(body(5), "MESSAGE first");
}

/// Each branch keeps its own values, and reply routes see whose reply they have; the last code is that of the reply before.
#[test]
fn branches_have_their_own_variables() {
    let mut desk = Desk::new(&format!(
        "{HEAD} route {{ $(msg.branch.attr(kind)[0]) = \"main\"; t_on_branch(\"b\"); t_on_reply(\"r\"); $msg.branch = \"sip:two@10.0.0.4\"; t_relay(); }}\n\
         branch_route[b] {{ $bavp(x) = $rU; }}\n\
         onreply_route[r] {{ append_hf(\"X-V: $T_branch_idx $bavp(x) $tm.branch.uri $(tm.branch.uri[-1]) $T_branch_last_reply_code\\r\\n\"); }}"
    ));
    invite(&mut desk, "sip:one@10.0.0.3");
    let sent = desk.sent();
    reply(&mut desk, to(&sent, 4).expect("the second"), 180);
    let text = String::from_utf8_lossy(&desk.sent()[0].bytes).into_owned();
    assert!(text.contains("X-V: 1 two sip:two@10.0.0.4 sip:two@10.0.0.4 0\r\n"), "{text}");
    reply(&mut desk, to(&sent, 3).expect("the first"), 183);
    let text = String::from_utf8_lossy(&desk.sent()[0].bytes).into_owned();
    assert!(text.contains("X-V: 0 one sip:one@10.0.0.3 sip:two@10.0.0.4 0\r\n"), "{text}");
}

/// `$T_fr_inv_timeout` set while it rings takes effect at once.
#[test]
fn the_time_to_ring_can_be_changed_while_it_rings() {
    let mut desk = Desk::new(&format!(
        "{HEAD} route {{ t_on_reply(\"r\"); t_relay(); }} onreply_route[r] {{ if ($rs == 180) $T_fr_inv_timeout = 3; }}"
    ));
    invite(&mut desk, "sip:one@10.0.0.3");
    let sent = desk.sent();
    reply(&mut desk, to(&sent, 3).expect("the callee"), 180);
    desk.sent();
    desk.advance(2_900);
    assert!(desk.sent().is_empty());
    desk.advance(300);
    assert_eq!(desk.summaries()[..2], ["10.0.0.3 CANCEL", "10.0.0.2 SIP/2.0 408 Request Timeout"]);
}

/// The branch route that a request was given runs for the branches of its failure routes too; one that a failure
/// route sets holds from then on.
#[test]
fn branch_routes_run_for_every_branch() {
    let mut desk = Desk::new(&format!(
        "{HEAD} route {{ t_on_branch(\"b\"); t_on_failure(\"f\"); t_relay(); }}\n\
         branch_route[b] {{ append_hf(\"X-B: $T_branch_idx\\r\\n\"); }}\n\
         branch_route[c] {{ append_hf(\"X-C: $T_branch_idx\\r\\n\"); }}\n\
         failure_route[f] {{ $ru = \"sip:two@10.0.0.4\"; t_on_failure(\"g\"); t_relay(); }}\n\
         failure_route[g] {{ t_on_branch(\"c\"); $ru = \"sip:three@10.0.0.5\"; t_on_failure(\"h\"); t_relay(); }}\n\
         failure_route[h] {{ $ru = \"sip:four@10.0.0.6\"; t_relay(); }}"
    ));
    invite(&mut desk, "sip:one@10.0.0.3");
    for (host, header) in [(3, "X-B: 0"), (4, "X-B: 1"), (5, "X-C: 2"), (6, "X-C: 3")] {
        let sent = desk.sent();
        let request = to(&sent, host).unwrap_or_else(|| panic!("nothing for 10.0.0.{host}"));
        let text = String::from_utf8_lossy(&request.bytes).into_owned();
        assert!(text.contains(&format!("{header}\r\n")) && text.matches("\r\nX-").count() == 1, "{text}");
        reply(&mut desk, request, 486);
    }
}

/// With `fr_inv_timeout` a multiple of `fr_timeout` the guard of forgotten transactions is due at the moment a callee
/// is given up: the next one is not its business.
#[test]
fn the_next_callee_has_the_time_that_is_due_to_him() {
    let mut desk = Desk::new(&format!(
        "{HEAD} route {{ t_on_failure(\"f\"); t_relay(); }} failure_route[f] {{ $ru = \"sip:two@10.0.0.4\"; t_relay(); }}"
    ));
    invite(&mut desk, "sip:one@10.0.0.3");
    let sent = desk.sent();
    reply(&mut desk, to(&sent, 3).expect("the first"), 180);
    desk.advance(20_100);
    let sent = desk.sent();
    reply(&mut desk, to(&sent, 4).expect("the second"), 180);
    desk.advance(15_000);
    let heard: Vec<String> =
        desk.summaries().into_iter().filter(|line| line.starts_with("10.0.0.2 ")).collect();
    assert_eq!(heard, ["10.0.0.2 SIP/2.0 180 R"]);
}
