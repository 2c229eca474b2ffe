//! Modules that join in at the moments of a request: what they see, what their edits reach, and what waits for them.

use sim::desk::{Desk, Sent};
use sim::watch::seen;

const HEAD: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "sim.so"
loadmodule "sim_watch.so"
modparam("tm", "fr_timeout", 10)
modparam("tm", "fr_inv_timeout", 20)
"#;

/// `wait`: "Moment milliseconds code"
fn desk(wait: &str, routes: &str) -> Desk {
    let wait = match wait {
        "" => String::new(),
        wait => format!("modparam(\"sim_watch\", \"wait\", \"{wait}\")\n"),
    };
    let desk = Desk::new(&format!("{HEAD}{wait}{routes}"));
    seen();
    desk
}

/// One with a Route is within a dialog.
fn request(method: &str, branch: &str, more: &str) -> String {
    let tag = if more.starts_with("Route:") { ";tag=b" } else { "" };
    format!(
        "{method} sip:bob@10.0.0.3 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{branch}\n\
         Max-Forwards: 70\nFrom: <sip:a@x>;tag=a\nTo: <sip:b@x>{tag}\nCall-ID: one\nCSeq: 1 {method}\n\
         {more}Content-Length: 0\n\n"
    )
}

fn reply(desk: &mut Desk, to: &Sent, status: u16) {
    let msg = sip::Message::parse(to.bytes.clone()).unwrap();
    let parts = sip::ReplyParts { code: status, reason: b"R", to_tag: Some(b"b"), ..Default::default() };
    let bytes = sip::build_reply(&msg, &parts);
    let std::net::IpAddr::V4(ip) = to.to.ip() else { panic!("IPv4") };
    desk.receive_bytes(ip.octets()[3], bytes);
}

fn text(sent: &Sent) -> String {
    String::from_utf8_lossy(&sent.bytes).into_owned()
}

fn one(sent: &[Sent], summary: &str) -> Sent {
    let found = sent.iter().find(|s| s.summary() == summary).cloned();
    found.unwrap_or_else(|| panic!("{summary} in {:?}", sent.iter().map(Sent::summary).collect::<Vec<_>>()))
}

fn check_idle(desk: &mut Desk) {
    desk.advance(120_000);
    assert!(desk.is_idle());
    assert_eq!(desk.worker().ctx().txn_ids().count(), 0);
    assert!(desk.worker().ctx().core.tasks_of.is_empty());
    assert!(desk.worker().ctx().core.tasks.iter().all(|task| !task.live));
}

const FORK: &str = "route { $msg.branch = \"sip:carol@10.0.0.4\"; t_relay(); }";

#[test]
fn a_call_passes_its_moments() {
    let mut desk = desk("", FORK);
    desk.receive(2, &request("INVITE", "i", ""));
    let expected = [
        "RequestIn INVITE",
        "Created INVITE",
        "RequestOut INVITE branch 0",
        "RequestOut INVITE branch 1",
        "RequestEnd INVITE",
    ];
    assert_eq!(seen(), expected);
    let sent = desk.sent();
    let (bob, carol) = (one(&sent, "10.0.0.3 INVITE"), one(&sent, "10.0.0.4 INVITE"));
    assert!(text(&bob).contains("X-RequestIn: -1 0\r\n") && text(&carol).contains("X-RequestIn: -1 0\r\n"));
    assert!(text(&bob).contains("X-RequestOut: 0 0\r\n") && !text(&bob).contains("X-RequestOut: 1 0"));
    assert!(text(&carol).contains("X-RequestOut: 1 0\r\n") && !text(&carol).contains("X-RequestOut: 0 0"));

    reply(&mut desk, &carol, 180);
    assert_eq!(
        seen(),
        ["ReplyIn 180 branch 1 180", "ReplyOut 180 branch 1 180", "Replied INVITE branch 1 180"]
    );
    let rings = one(&desk.sent(), "10.0.0.2 SIP/2.0 180 R");
    assert!(text(&rings).contains("X-ReplyIn: 1 180\r\nX-ReplyOut: 1 180\r\n"), "{}", text(&rings));

    // Each 2xx passes, also the second one of a fork.
    reply(&mut desk, &carol, 200);
    reply(&mut desk, &bob, 200);
    let expected = [
        "ReplyIn 200 branch 1 200",
        "ReplyOut 200 branch 1 200",
        "Replied INVITE branch 1 200",
        "ReplyIn 200 branch 0 200",
        "ReplyOut 200 branch 0 200",
        "Replied INVITE branch 0 200",
    ];
    assert_eq!(seen(), expected);
    desk.sent();
    desk.receive(2, &request("ACK", "ack", ""));
    assert_eq!(seen(), ["RequestIn ACK", "AckIn ACK", "ForwardOut ACK", "RequestEnd ACK"]);
    assert!(text(&one(&desk.sent(), "10.0.0.3 ACK")).contains("X-ForwardOut: -1 0\r\n"));
    check_idle(&mut desk);
    assert_eq!(seen(), ["Ended INVITE seen 15"]);
}

/// Replies made here, with a transaction and without, may be edited too.
#[test]
fn local_replies_leave_through_their_moments() {
    for (reply, expected) in [
        (
            "t_reply(404, \"None\")",
            ["RequestIn OPTIONS", "Created OPTIONS", "ReplyOut 404 404", "Replied OPTIONS 404"].as_slice(),
        ),
        ("sl_send_reply(404, \"None\")", &["RequestIn OPTIONS", "ReplyOut 404 404", "Replied OPTIONS 404"]),
    ] {
        let mut desk = desk("", &format!("route {{ {reply}; }}"));
        desk.receive(2, &request("OPTIONS", "o", ""));
        let told = seen();
        assert_eq!(told[..told.len() - 1], *expected, "{reply}");
        let sent = one(&desk.sent(), "10.0.0.2 SIP/2.0 404 None");
        assert!(text(&sent).contains("X-ReplyOut: -1 404\r\n"), "{reply}");
        assert!(text(&sent).contains("Via: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bKo"), "{reply}");
        check_idle(&mut desk);
    }
}

/// A request of the server itself, and a reply of nobody.
#[test]
fn own_requests_and_stray_replies_are_seen() {
    let mut desk = desk(
        "",
        "route { t_new_request(\"MESSAGE\", \"sip:x@10.0.0.5\", \"sip:a@b\", \"sip:c@d\", \"text/plain x\"); t_reply(200, \"OK\"); }",
    );
    desk.receive(2, &request("OPTIONS", "o", ""));
    let message = one(&desk.sent(), "10.0.0.5 MESSAGE");
    assert!(text(&message).contains("X-LocalOut: -1 0\r\n"));
    assert!(seen().contains(&"LocalOut MESSAGE".to_string()));
    reply(&mut desk, &message, 200);
    assert_eq!(seen(), ["ReplyIn 200 branch 0 200"]);
    let strange = text(&message).replace("branch=z9hG4bK", "branch=z9hG4bKs");
    reply(&mut desk, &Sent { to: message.to, bytes: strange.into() }, 200);
    assert_eq!(seen(), ["StrayReply 200 200"]);
    check_idle(&mut desk);
}

/// Bytes are seen, and changed, as they leave.
#[test]
fn a_tap_changes_what_leaves() {
    let mut desk = desk("", "route { t_relay(); }");
    desk.receive(2, &request("OPTIONS", "o", "X-Secret: 1\n"));
    assert!(text(&one(&desk.sent(), "10.0.0.3 OPTIONS")).contains("X-Hidden: 1\r\n"));
}

const SERIAL: &str = "route { if (is_method(\"CANCEL\")) { t_relay(); exit; } if (has_totag()) { loose_route(); t_relay(); exit; } \
     t_on_failure(\"f\"); t_relay(); } failure_route[f] { t_reply(480, \"Nobody\"); }";

/// At each moment of a request the message is held as long as its watcher waits.
#[test]
fn a_request_is_held_at_each_moment() {
    for (moment, method, more, routes, out) in [
        ("RequestIn", "INVITE", "", SERIAL, "10.0.0.3 INVITE"),
        ("RequestIn", "OPTIONS", "", SERIAL, "10.0.0.3 OPTIONS"),
        ("RequestOut", "INVITE", "", SERIAL, "10.0.0.3 INVITE"),
        (
            "RequestOut",
            "OPTIONS",
            "",
            "route { t_on_branch(\"b\"); t_relay(); } branch_route[b] { append_hf(\"X: 1\\r\\n\"); }",
            "10.0.0.3 OPTIONS",
        ),
        ("AckIn", "ACK", "", "route { t_relay(); }", "10.0.0.3 ACK"),
        ("ForwardOut", "ACK", "", "route { t_relay(); }", "10.0.0.3 ACK"),
        ("ForwardOut", "OPTIONS", "", "route { forward(\"sip:10.0.0.3\"); }", "10.0.0.3 OPTIONS"),
        (
            "Routed",
            "OPTIONS",
            "Route: <sip:10.0.0.1;lr;x=1>\n",
            "route { loose_route(); t_relay(); }",
            "10.0.0.3 OPTIONS",
        ),
        (
            "LocalOut",
            "OPTIONS",
            "",
            "route { t_new_request(\"MESSAGE\", \"sip:x@10.0.0.3\", \"sip:a@b\", \"sip:c@d\"); t_reply(200, \"x\"); }",
            "10.0.0.3 MESSAGE",
        ),
    ] {
        let case = format!("{moment} {method} {routes}");
        let mut desk = desk(&format!("{moment} 700 1"), routes);
        desk.receive(2, &request(method, "i", more));
        desk.advance(699);
        let early = desk.summaries();
        assert!(!early.contains(&out.to_string()), "{case}: {early:?}");
        desk.advance(1);
        let sent = one(&desk.sent(), out);
        assert!(text(&sent).contains(&format!("X-{moment}: ")), "{case}: {}", text(&sent));
        check_idle(&mut desk);
        // It stops there when the watcher says so, and when that is all the answer there is.
        let mut desk = self::desk(&format!("{moment} 700 -1"), routes);
        desk.receive(2, &request(method, "i", more));
        desk.advance(701);
        let stopped = moment != "Routed";
        assert_ne!(desk.summaries().contains(&out.to_string()), stopped, "{case}");
        check_idle(&mut desk);
    }
}

/// Replies that are held keep their order, whoever made them.
#[test]
fn replies_are_held_in_order() {
    for moment in ["ReplyIn", "ReplyOut"] {
        let mut desk = desk(&format!("{moment} 700 1"), SERIAL);
        desk.receive(2, &request("INVITE", "i", ""));
        let invite = one(&desk.sent(), "10.0.0.3 INVITE");
        for status in [180, 183, 200] {
            reply(&mut desk, &invite, status);
        }
        desk.advance(600);
        assert!(desk.sent().is_empty(), "{moment}");
        let mut got = Vec::new();
        for _ in 0..3 {
            desk.advance(700);
            got.extend(desk.summaries());
        }
        let order = ["10.0.0.2 SIP/2.0 180 R", "10.0.0.2 SIP/2.0 183 R", "10.0.0.2 SIP/2.0 200 R"];
        assert_eq!(got, order, "{moment}");
        check_idle(&mut desk);
    }
    let mut desk = desk(
        "ReplyOut 700 1",
        "route { t_reply(180, \"A\"); t_reply(183, \"B\"); t_reply(200, \"C\"); t_reply(486, \"D\"); }",
    );
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(2200);
    let mut got = desk.summaries();
    // Nothing has left for 200 ms.
    assert_eq!(got.remove(0), "10.0.0.2 SIP/2.0 100 Giving it a try");
    assert_eq!(got, ["10.0.0.2 SIP/2.0 180 A", "10.0.0.2 SIP/2.0 183 B", "10.0.0.2 SIP/2.0 200 C"]);
    desk.receive(2, &request("ACK", "ack", ""));
    check_idle(&mut desk);
    // Without a transaction too.
    let mut desk = self::desk("ReplyOut 700 1", "route { sl_send_reply(404, \"None\"); }");
    desk.receive(2, &request("OPTIONS", "o", ""));
    assert!(desk.sent().is_empty());
    desk.advance(700);
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 404 None"]);
    check_idle(&mut desk);
}

/// The failure route waits for those who watch failures, the CANCELs for those who watch them.
#[test]
fn failures_and_cancels_are_held() {
    let mut desk = desk("Failing 700 1", SERIAL);
    desk.receive(2, &request("INVITE", "i", ""));
    let invite = one(&desk.sent(), "10.0.0.3 INVITE");
    reply(&mut desk, &invite, 486);
    assert_eq!(desk.summaries(), ["10.0.0.3 ACK"]);
    desk.advance(699);
    assert!(desk.sent().is_empty());
    desk.advance(1);
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 480 Nobody"]);
    assert!(seen().contains(&"Failing INVITE branch 0 486".to_string()));
    desk.receive(2, &request("ACK", "i", ""));
    check_idle(&mut desk);

    let mut desk = self::desk("Cancelled 700 1", SERIAL);
    desk.receive(2, &request("INVITE", "i", ""));
    let invite = one(&desk.sent(), "10.0.0.3 INVITE");
    reply(&mut desk, &invite, 180);
    desk.sent();
    desk.receive(2, &request("CANCEL", "i", ""));
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 200 canceling"]);
    desk.advance(700);
    assert_eq!(desk.summaries(), ["10.0.0.3 CANCEL"]);
    assert!(seen().contains(&"Cancelled INVITE".to_string()));
    reply(&mut desk, &invite, 487);
    desk.advance(700);
    desk.receive(2, &request("ACK", "i", ""));
    check_idle(&mut desk);
}

/// A caller who gives up is answered at once, and what is held of the request is dropped; a reply goes its way.
#[test]
fn a_cancel_drops_what_is_held() {
    for moment in ["RequestIn", "RequestOut", "RequestEnd", "Failing"] {
        let mut desk = desk(&format!("{moment} 3000 1"), SERIAL);
        desk.receive(2, &request("INVITE", "i", ""));
        let sent = desk.sent();
        match sent.iter().find(|s| s.summary() == "10.0.0.3 INVITE") {
            Some(invite) if moment == "Failing" => reply(&mut desk, invite, 486),
            Some(invite) => reply(&mut desk, invite, 180),
            None => {}
        }
        desk.advance(100);
        desk.sent();
        desk.receive(2, &request("CANCEL", "i", ""));
        let mut got = desk.summaries();
        if moment == "RequestEnd" {
            assert_eq!(got.pop().as_deref(), Some("10.0.0.3 CANCEL"));
            continue;
        }
        assert_eq!(got[0], "10.0.0.2 SIP/2.0 200 canceling", "{moment}");
        assert!(got.len() == 2 && got[1].starts_with("10.0.0.2 SIP/2.0 4"), "{moment}: {got:?}");
        assert!(desk.has_no_operations(), "{moment}");
        desk.receive(2, &request("ACK", "i", ""));
        desk.advance(4000);
        let late = desk.summaries();
        assert!(late.iter().all(|s| !s.contains("INVITE")), "{moment}: {late:?}");
        check_idle(&mut desk);
    }
    let mut desk =
        desk("ReplyOut 1000 1", "route { if (is_method(\"INVITE\")) t_reply(200, \"OK\"); else t_relay(); }");
    desk.receive(2, &request("INVITE", "i", ""));
    desk.receive(2, &request("CANCEL", "i", ""));
    desk.advance(2000);
    let mut got = desk.summaries();
    got.retain(|line| !line.contains(" 100 "));
    assert_eq!(got[..2], ["10.0.0.2 SIP/2.0 200 OK", "10.0.0.2 SIP/2.0 200 canceling"]);
    assert!(got.iter().all(|s| !s.contains("487")), "{got:?}");
    desk.receive(2, &request("ACK", "ack", ""));
    check_idle(&mut desk);
}

/// A watcher that gets no answer lets the message go on with what it said for that case.
#[test]
fn a_deadline_ends_the_wait() {
    for moment in ["RequestIn", "RequestOut", "ReplyIn", "ReplyOut", "Failing"] {
        let mut desk = desk(&format!("{moment} 1000000 1"), SERIAL);
        desk.receive(2, &request("OPTIONS", "o", ""));
        desk.advance(5000);
        let options = one(&desk.sent(), "10.0.0.3 OPTIONS");
        reply(&mut desk, &options, 486);
        desk.advance(5000);
        let got = desk.summaries();
        assert!(
            got.iter().any(|s| s == "10.0.0.2 SIP/2.0 480 Nobody" || s == "10.0.0.2 SIP/2.0 486 R"),
            "{moment}: {got:?}"
        );
        check_idle(&mut desk);
    }
}

/// What is held of a transaction that ends goes with it.
#[test]
fn the_end_of_a_transaction_drops_what_is_held() {
    let mut desk = desk("ReplyIn 4900 1", &format!("modparam(\"tm\", \"wt_timer\", 1)\n{SERIAL}"));
    desk.receive(2, &request("INVITE", "i", ""));
    let invite = one(&desk.sent(), "10.0.0.3 INVITE");
    reply(&mut desk, &invite, 180);
    desk.receive(2, &request("CANCEL", "i", ""));
    desk.advance(100);
    let id = desk.worker().ctx().txn_ids().next().expect("the INVITE");
    desk.worker().ctx().txn_mut(id).remove();
    desk.worker().ctx().drop_tasks_of(id);
    assert!(desk.has_no_operations());
    check_idle(&mut desk);
}
