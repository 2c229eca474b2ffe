//! Scripts that wait: in every kind of route, cancelled, repeated, in order, to the end.

use host::tm::{Answer, NewRequest, send_new};
use sim::desk::Desk;
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

const HEAD: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
loadmodule "sim.so"
modparam("tm", "fr_timeout", 10)
modparam("tm", "fr_inv_timeout", 20)
modparam("tm", "onreply_avp_mode", 1)
"#;

fn desk(routes: &str) -> Desk {
    Desk::new(&format!("{HEAD}{routes}"))
}

fn request(method: &str, branch: &str, to_tag: &str) -> String {
    format!(
        "{method} sip:bob@10.0.0.3 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{branch}\n\
         Max-Forwards: 70\nFrom: <sip:a@x>;tag=a\nTo: <sip:b@x>{to_tag}\nCall-ID: one\nCSeq: 1 {method}\n\
         Contact: <sip:a@10.0.0.2>\nContent-Length: 0\n\n"
    )
}

/// A reply to a request that the worker sent.
fn reply(desk: &mut Desk, to: &sim::desk::Sent, status: u16) {
    let msg = sip::Message::parse(to.bytes.clone()).unwrap();
    let parts = sip::ReplyParts { code: status, reason: b"R", to_tag: Some(b"b"), ..Default::default() };
    let bytes = sip::build_reply(&msg, &parts);
    let std::net::IpAddr::V4(ip) = to.to.ip() else { panic!("IPv4") };
    desk.receive_bytes(ip.octets()[3], bytes);
}

/// The INVITE of the caller has gone to the callee, whose copy is returned.
fn relayed(desk: &mut Desk) -> sim::desk::Sent {
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(400);
    let sent = desk.sent();
    sent.into_iter().find(|s| s.summary() == "10.0.0.3 INVITE").expect("the INVITE is relayed")
}

fn check_idle(desk: &mut Desk) {
    desk.advance(120_000);
    assert!(desk.is_idle());
    assert_eq!(desk.worker().ctx().txn_ids().count(), 0);
    assert!(desk.worker().ctx().core.tasks_of.is_empty());
}

/// Where the script stood when it waited, it goes on: in conditions, loops and sub-routes.
#[test]
fn a_plain_call_goes_on_where_it_stood() {
    let mut desk = desk(
        r#"
route {
    $var(i) = 0;
    while ($var(i) < 3) { slow(100, 1); $var(i) = $var(i) + 1; }
    if (slow(100, -1) || slow(50, 1)) { route(sub, "x"); append_to_reply("X-R: $var(i) $var(s)\r\n"); }
    t_reply(404, "Done");
}
route[sub] { slow(10, 1); $var(s) = $param(1); }
"#,
    );
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(199);
    assert!(desk.sent().is_empty());
    desk.advance(1);
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 100 Giving it a try"]);
    desk.advance(249);
    assert!(desk.sent().is_empty());
    desk.advance(20);
    let sent = desk.sent();
    assert_eq!(sent[0].summary(), "10.0.0.2 SIP/2.0 404 Done");
    assert!(String::from_utf8_lossy(&sent[0].bytes).contains("X-R: 3 x\r\n"));
    check_idle(&mut desk);
}

/// 200 and 487 at once; the operation is dropped and what follows it does not run.
#[test]
fn a_cancel_ends_a_waiting_script() {
    for body in [
        "slow(3000, 1); t_relay();",
        "async(slow(3000, 1), go);",
        "sleep(3); t_relay();",
        "t_newtran(); slow(3000, 1); t_relay();",
    ] {
        let mut desk = desk(&format!("route {{ {body} }} route[go] {{ t_relay(); }}"));
        desk.receive(2, &request("INVITE", "i", ""));
        desk.advance(1000);
        desk.sent();
        desk.receive(2, &request("CANCEL", "i", ""));
        let at_once = desk.summaries();
        assert_eq!(
            at_once,
            ["10.0.0.2 SIP/2.0 200 canceling", "10.0.0.2 SIP/2.0 487 Request Terminated"],
            "{body}"
        );
        assert!(desk.has_no_operations(), "{body}");
        desk.receive(2, &request("ACK", "i", ";tag=x"));
        desk.advance(5000);
        assert!(desk.sent().is_empty(), "{body}");
        check_idle(&mut desk);
    }
}

/// The script runs once, whatever the caller repeats; an INVITE gets its 100 again, others nothing.
#[test]
fn retransmissions_are_absorbed() {
    let script = "route { xlog(\"x\"); async(slow(2000, 1), go); } route[go] { t_reply(200, \"OK\"); }";
    let mut desk = desk(script);
    for _ in 0..3 {
        desk.receive(2, &request("INVITE", "i", ""));
        assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 100 Giving it a try"]);
        desk.receive(2, &request("MESSAGE", "m", ""));
        assert!(desk.sent().is_empty());
        desk.advance(400);
    }
    desk.advance(1200);
    let mut sent = desk.summaries();
    sent.dedup();
    assert_eq!(sent, ["10.0.0.2 SIP/2.0 200 OK"]);
    desk.receive(2, &request("ACK", "ack", ";tag=x"));
    check_idle(&mut desk);
}

/// A transaction that was made while the script waited is the script's own: a failing relay is answered.
#[test]
fn a_relay_after_waiting_is_answered_when_it_fails() {
    let mut desk = desk("route { slow(100, 1); $ru = \"sip:x@none.sim\"; t_relay(); }");
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(4000);
    assert_eq!(desk.summaries()[1], "10.0.0.2 SIP/2.0 476 Unresolvable destination (476/TM)");
    check_idle(&mut desk);
}

/// Replies of one call keep their order while a reply route waits.
#[test]
fn a_180_is_not_overtaken() {
    for route in [
        "onreply_route { if ($rs == 180) slow(1000, 1); }",
        "onreply_route[r] { if ($rs == 180) async(slow(1000, 1), go); }",
    ] {
        let mut desk = desk(&format!(
            "route {{ t_on_reply(\"r\"); t_relay(); }} onreply_route[x] {{ exit; }} route[go] {{ exit; }} {route} {}",
            if route.contains("[r]") { "" } else { "onreply_route[r] { exit; }" }
        ));
        let invite = relayed(&mut desk);
        reply(&mut desk, &invite, 180);
        desk.advance(200);
        reply(&mut desk, &invite, 200);
        assert!(desk.sent().is_empty(), "{route}");
        desk.advance(1000);
        let got = desk.summaries();
        assert_eq!(got, ["10.0.0.2 SIP/2.0 180 R", "10.0.0.2 SIP/2.0 200 R"], "{route}");
        check_idle(&mut desk);
    }
}

/// The hop-by-hop ACK and the CANCEL of a branch do not wait for a reply route.
#[test]
fn a_negative_reply_is_acknowledged_at_once() {
    let mut desk = desk("route { t_on_reply(\"r\"); t_relay(); } onreply_route[r] { slow(1000, 1); }");
    let invite = relayed(&mut desk);
    reply(&mut desk, &invite, 486);
    assert_eq!(desk.summaries(), ["10.0.0.3 ACK"]);
    reply(&mut desk, &invite, 486);
    assert_eq!(desk.summaries(), ["10.0.0.3 ACK"]);
    desk.advance(1000);
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 486 R"]);
    desk.receive(2, &request("ACK", "i", ";tag=b"));
    check_idle(&mut desk);
}

/// A CANCEL while a reply route holds a 2xx does not lose the 2xx.
#[test]
fn a_cancel_spares_waiting_replies() {
    let mut desk = desk(
        "route { if (is_method(\"CANCEL\")) { t_relay(); exit; } t_on_reply(\"r\"); t_relay(); } onreply_route[r] { slow(1000, 1); }",
    );
    let invite = relayed(&mut desk);
    reply(&mut desk, &invite, 200);
    desk.receive(2, &request("CANCEL", "i", ""));
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 200 canceling"]);
    desk.advance(1000);
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 200 R"]);
    check_idle(&mut desk);
}

/// Branch and failure routes wait; so do those of events, timers and the start.
#[test]
fn other_routes_wait() {
    let mut desk = desk(
        r#"
route { t_on_branch("b"); t_on_failure("f"); t_relay(); }
branch_route[b] { slow(100, 1); append_hf("X-B: 1\r\n"); }
failure_route[f] { slow(100, 1); $du = "sip:10.0.0.4"; t_relay(); }
startup_route { slow(100, 1); $avp(x) = 1; }
timer_route[t, 30] { slow(100, 1); }
error_route { slow(100, 1); sl_send_reply(400, "Bad"); }
"#,
    );
    let invite = relayed(&mut desk);
    assert!(String::from_utf8_lossy(&invite.bytes).contains("X-B: 1\r\n"));
    reply(&mut desk, &invite, 486);
    assert_eq!(desk.summaries(), ["10.0.0.3 ACK"]);
    // The failure route waits, then the branch route.
    desk.advance(250);
    assert_eq!(desk.summaries(), ["10.0.0.4 INVITE"]);
}

/// Whoever is launched needs no transaction and is not cancelled with one.
#[test]
fn a_launched_operation_reports_beside_the_script() {
    let mut desk = desk(
        "route { launch(slow(500, 7), rep, \"p $rm\"); t_reply(404, \"x\"); } \
         route[rep] { slow(100, 1); t_new_request(\"MESSAGE\", \"sip:x@10.0.0.4\", \"sip:a@b\", \"sip:c@d\", \"text/plain $param(1)\"); }",
    );
    desk.receive(2, &request("INVITE", "i", ""));
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 100 Giving it a try", "10.0.0.2 SIP/2.0 404 x"]);
    desk.receive(2, &request("ACK", "i", ";tag=x"));
    desk.advance(700);
    let sent = desk.sent();
    let message = sent.iter().find(|s| s.summary() == "10.0.0.4 MESSAGE").expect("the report sent it");
    assert!(String::from_utf8_lossy(&message.bytes).ends_with("\r\n\r\np INVITE"));
    check_idle(&mut desk);
}

/// An ACK waits too, and goes on afterwards.
#[test]
fn an_ack_waits() {
    let mut desk = desk("route { if (is_method(\"ACK\")) slow(300, 1); t_relay(); }");
    let invite = relayed(&mut desk);
    reply(&mut desk, &invite, 200);
    desk.sent();
    desk.receive(2, &request("ACK", "ack", ";tag=b"));
    assert!(desk.sent().is_empty());
    desk.advance(300);
    assert_eq!(desk.summaries(), ["10.0.0.3 ACK"]);
    check_idle(&mut desk);
}

/// Deadlines: the script's own, the module's; the script goes on with a negative code.
#[test]
fn deadlines_end_operations() {
    for (body, ms) in [("async(slow(100000, 1), go, 2);", 2000), ("slow(100000, 1); route(go);", 5000)] {
        let mut desk = desk(&format!(
            "route {{ {body} }} route[go] {{ $var(r) = $rc; append_to_reply(\"X-Rc: $var(r)\\r\\n\"); t_reply(500, \"Late\"); }}"
        ));
        desk.receive(2, &request("INVITE", "i", ""));
        desk.advance(ms - 1);
        assert_eq!(desk.summaries().len(), 1, "{body}");
        desk.advance(2);
        let sent = desk.sent();
        assert_eq!(sent[0].summary(), "10.0.0.2 SIP/2.0 500 Late", "{body}");
        assert!(desk.has_no_operations());
        check_idle(&mut desk);
    }
}

/// A resume route that ends without a reply leaves the transaction to the final response timer.
#[test]
fn a_forgotten_transaction_ends() {
    let mut desk = desk("route { async(slow(100, 1), go); } route[go] { exit; }");
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(300);
    desk.sent();
    desk.receive(2, &request("INVITE", "i", ""));
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 100 Giving it a try"]);
    desk.advance(11_000);
    assert_eq!(desk.summaries()[0], "10.0.0.2 SIP/2.0 408 Request Timeout");
    check_idle(&mut desk);
    let mut desk = self::desk(
        "route { t_on_failure(\"f\"); async(slow(100, 1), go); } route[go] { exit; } \
         failure_route[f] { slow(100, 1); t_reply(480, \"Was $T_reply_code\"); }",
    );
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(11_000);
    assert_eq!(desk.summaries()[1], "10.0.0.2 SIP/2.0 480 Was 408");
    check_idle(&mut desk);
}

/// While the server ends, new calls are refused and waiting ones finish.
#[test]
fn a_drain_finishes_what_waits() {
    let mut desk = desk("route { slow(1000, 1); t_reply(486, \"Busy\"); }");
    desk.receive(2, &request("INVITE", "i", ""));
    desk.input(host::Input::Drain);
    assert!(!desk.is_idle());
    desk.sent();
    desk.receive(2, &request("OPTIONS", "o", "").replace("Call-ID: one", "Call-ID: two"));
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 503 Service Unavailable"]);
    desk.advance(1000);
    assert_eq!(desk.summaries()[1], "10.0.0.2 SIP/2.0 486 Busy");
    desk.receive(2, &request("ACK", "i", ";tag=x"));
    check_idle(&mut desk);
}

/// A plain wait says nothing for 200 ms; an explicit async() has its 100 at once.
#[test]
fn a_short_wait_is_silent() {
    for (body, heard) in [
        ("slow(150, 1); sl_send_reply(404, \"x\");", &["404 x"][..]),
        ("slow(100, 1); slow(90, 1); sl_send_reply(404, \"x\");", &["404 x"]),
        ("slow(100, 1); slow(200, 1); sl_send_reply(404, \"x\");", &["100 Giving it a try", "404 x"]),
        (
            "slow(100, 1); sl_send_reply(183, \"y\"); slow(300, 1); sl_send_reply(404, \"x\");",
            &["183 y", "404 x"],
        ),
        ("async(slow(50, 1), go);", &["100 Giving it a try", "404 x"]),
        ("slow(50, 1); async(slow(50, 1), go);", &["100 Giving it a try", "404 x"]),
    ] {
        let mut desk = desk(&format!("route {{ {body} }} route[go] {{ sl_send_reply(404, \"x\"); }}"));
        desk.receive(2, &request("INVITE", "i", ""));
        desk.advance(450);
        let expected: Vec<String> = heard.iter().map(|line| format!("10.0.0.2 SIP/2.0 {line}")).collect();
        assert_eq!(desk.summaries(), expected, "{body}");
        desk.receive(2, &request("ACK", "i", ";tag=x"));
        check_idle(&mut desk);
    }
}

/// What a report sets does not show in the script that launched it.
#[test]
fn a_report_has_avps_of_its_own() {
    let mut desk = desk(
        "route { $avp(a) = \"mine\"; launch(slow(50, 1), rep); launch(slow(0, 1), rep); slow(150, 1); \
         append_to_reply(\"X-A: $avp(a) $avp(b)\\r\\n\"); t_reply(404, \"x\"); } \
         route[rep] { $avp(a) = \"report\"; $avp(b) = \"report\"; slow(10, 1); $avp(b) = $avp(a); }",
    );
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(190);
    let sent = desk.sent();
    assert!(String::from_utf8_lossy(&sent[0].bytes).contains("X-A: mine <null>\r\n"));
    desk.receive(2, &request("ACK", "i", ";tag=x"));
    check_idle(&mut desk);
}

/// A pause that takes longer than it may is late, as any other operation.
#[test]
fn a_pause_has_a_deadline_too() {
    for (body, code, ms) in [
        ("async(sleep(4), go, 1);", "-1", 1000),
        ("async(usleep(4000000), go, 1);", "-1", 1000),
        ("async(sleep(1), go, 4);", "1", 1000),
        ("sleep(1); route(go);", "1", 1000),
        ("parallel (1) { sleep(4); usleep(1000); } route(go);", "-1", 1000),
    ] {
        let mut desk = desk(&format!(
            "route {{ {body} }} route[go] {{ $var(r) = $rc; append_to_reply(\"X-Rc: $var(r)\\r\\n\"); t_reply(404, \"x\"); }}"
        ));
        desk.receive(2, &request("INVITE", "i", ""));
        desk.advance(ms - 1);
        desk.sent();
        desk.advance(1);
        let sent = desk.sent();
        assert_eq!(sent.len(), 1, "{body}");
        assert!(String::from_utf8_lossy(&sent[0].bytes).contains(&format!("X-Rc: {code}\r\n")), "{body}");
        desk.receive(2, &request("ACK", "i", ";tag=x"));
        check_idle(&mut desk);
    }
}

/// At the end of the server whoever still waits hears 503, what rings is cancelled, and no route begins.
#[test]
fn the_end_leaves_nobody_without_an_answer() {
    let mut desk = desk(
        "route { if ($rU == \"bob\") slow(4000, 1); t_on_failure(\"f\"); t_relay(); } failure_route[f] { slow(4000, 1); } \
         timer_route[t, 5] { t_new_request(\"MESSAGE\", \"sip:x@10.0.0.4\", \"sip:a@b\", \"sip:c@d\"); }",
    );
    desk.receive(2, &request("INVITE", "waits", ""));
    desk.receive(2, &request("MESSAGE", "too", "").replace("Call-ID: one", "Call-ID: two"));
    let rings =
        request("INVITE", "rings", "").replace("Call-ID: one", "Call-ID: three").replace("sip:bob", "sip:al");
    desk.receive(2, &rings);
    let sent = desk.sent();
    let invite = sent.iter().find(|s| s.summary() == "10.0.0.3 INVITE").expect("relayed");
    reply(&mut desk, invite, 180);
    desk.advance(100);
    desk.sent();
    desk.input(host::Input::End);
    let mut heard = desk.summaries();
    heard.sort();
    let refused = "10.0.0.2 SIP/2.0 503 Service Unavailable";
    assert_eq!(heard, [refused, refused, refused, "10.0.0.3 CANCEL"]);
    assert!(desk.has_no_operations());
    desk.advance(20_000);
    assert!(!desk.summaries().iter().any(|line| line.ends_with("MESSAGE")), "no timer route");
}

/// What large messages hold while they wait is bounded; the rest is refused, small ones are not.
#[test]
fn large_messages_that_wait_are_bounded() {
    let mut desk = desk("route { slow(4000, 1); t_reply(404, \"x\"); }");
    let body = "x".repeat(60_000);
    let statistic = |desk: &mut Desk, name: &str| desk.worker().ctx().shared().stats.value(name);
    let large = |n: usize| {
        let head = request("MESSAGE", &format!("m{n}"), "").replace("Call-ID: one", &format!("Call-ID: {n}"));
        head.replace("Content-Length: 0\n\n", &format!("Content-Length: 60000\n\n{body}"))
    };
    let mut refused = 0;
    for n in 0..2400 {
        desk.receive(2, &large(n));
        refused += desk.summaries().iter().filter(|line| line.contains(" 503 ")).count();
    }
    assert!((100..400).contains(&refused), "{refused}");
    assert_eq!(statistic(&mut desk, "async:async_refused_large"), Some(refused as i64));
    desk.receive(2, &request("OPTIONS", "small", ""));
    assert!(desk.summaries().is_empty(), "it waits");
    desk.advance(4000);
    assert_eq!(statistic(&mut desk, "async:async_held_bytes"), Some(0));
    check_idle(&mut desk);
}

/// A request that ends takes the timers of its operations with it: nothing is left of many of them.
#[test]
fn ended_operations_leave_no_timers() {
    let mut desk = desk("route { parallel { usleep(1000); usleep(1000); } t_reply(200, \"OK\"); }");
    for round in 0..20 {
        for n in 0..100 {
            let call_id = format!("Call-ID: {round}-{n}");
            let branch = format!("o{round}-{n}");
            desk.receive(2, &request("OPTIONS", &branch, "").replace("Call-ID: one", &call_id));
        }
        assert_eq!(desk.worker().ctx().core.timers.len(), 300, "two pauses and the deadline of both");
        desk.advance(5);
        assert_eq!(desk.summaries().len(), 100);
        assert_eq!(desk.worker().ctx().core.timers.len(), 0);
    }
    check_idle(&mut desk);
    let core = &desk.worker().ctx().core;
    assert!(core.tasks.len() <= 300, "slots are used again: {}", core.tasks.len());
}

/// Thousands of scripts that go on in the same millisecond do so in portions: a message that comes then is
/// answered before most of them.
#[test]
fn a_crowd_of_timers_lets_messages_pass() {
    let mut desk = desk("route { if (is_method(\"MESSAGE\")) sleep(1); t_reply(200, \"OK\"); }");
    const CROWD: usize = 3000;
    for n in 0..CROWD {
        let (branch, call_id) = (format!("m{n}"), format!("Call-ID: {n}"));
        desk.receive(2, &request("MESSAGE", &branch, "").replace("Call-ID: one", &call_id));
    }
    desk.one_turn_after(1000);
    let first = desk.sent().len();
    assert!(first > 0 && first < 100, "{first}");
    desk.receive(2, &request("OPTIONS", "o", ""));
    assert_eq!(desk.sent().len(), 1, "the message is answered alone");
    desk.advance(0);
    assert_eq!(desk.sent().len(), CROWD - first);
    check_idle(&mut desk);
}

/// Work for later runs on its worker at its time, unless it is taken back.
#[test]
fn jobs_for_later_can_be_taken_back() {
    let mut desk = desk("route { exit; }");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let ctx = desk.worker().ctx();
    let keys = [30, 10, 20].map(|ms| {
        let seen = seen.clone();
        ctx.after(ms, move |ctx| seen.borrow_mut().push((ms, ctx.core.now.0)))
    });
    assert!(ctx.cancel(keys[2]) && !ctx.cancel(keys[2]));
    desk.advance(50);
    assert_eq!(*seen.borrow(), [(10, 10), (30, 30)]);
    let ctx = desk.worker().ctx();
    assert!(!ctx.cancel(keys[0]));
    assert!(ctx.core.timers.is_empty());
}

/// An answer comes to the worker that asked, whoever owns the Call-ID.
#[test]
fn answers_find_the_worker_that_asked() {
    let mut desk = Desk::with_workers(&format!("{HEAD}route {{ exit; }}"), 2);
    let answers = Rc::new(RefCell::new(Vec::new()));
    for n in 0..24 {
        let answers = answers.clone();
        let mut request = NewRequest::new("OPTIONS", "sip:x@10.0.0.4".into(), "<sip:a@b>", "<sip:c@d>");
        request.call_id = Some(format!("own-{n}").into());
        let ctx = desk.workers()[0].ctx();
        let done =
            Box::new(move |_: &mut host::Ctx, answer: Answer| answers.borrow_mut().push(answer.status));
        assert_eq!(send_new(ctx, request, Some(done)), 1);
    }
    desk.advance(0);
    for request in desk.sent() {
        reply(&mut desk, &request, 200);
    }
    assert_eq!(*answers.borrow(), [200; 24]);
    check_idle(&mut desk);
}

/// Work for the owner of a Call-ID runs there: at once when it is the worker that asks, else through its mailbox.
#[test]
fn work_finds_the_owner_of_a_call() {
    const WORKERS: u16 = 3;
    let mut desk = Desk::with_workers(&format!("{HEAD}route {{ exit; }}"), WORKERS);
    let seen = Arc::new(Mutex::new(Vec::new()));
    for n in 0..9 {
        let (seen, id) = (seen.clone(), format!("call-{n}"));
        let ctx = desk.workers()[1].ctx();
        let own = host::worker::owner(id.as_bytes(), WORKERS.into()) == 1;
        let before = seen.lock().unwrap().len();
        let note = seen.clone();
        let job_id = id.clone();
        assert!(ctx.on_owner(id.as_bytes(), move |ctx| note.lock().unwrap().push((job_id, ctx.core.worker))));
        assert_eq!(seen.lock().unwrap().len() > before, own, "{id}");
    }
    assert!(!desk.workers()[1].ctx().on_worker(WORKERS.into(), |_| {}), "there is no such worker");
    desk.advance(0);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 9);
    for (id, worker) in &*seen {
        assert_eq!(host::worker::owner(id.as_bytes(), WORKERS.into()), usize::from(*worker), "{id}");
    }
    let workers: HashSet<u16> = seen.iter().map(|(_, worker)| *worker).collect();
    assert_eq!(workers.len(), 3, "the Call-IDs are spread");
}

/// What a module could not do is said with the line of the script and the Call-ID, whether its function has waited or not.
#[test]
fn errors_of_modules_name_their_place() {
    use std::sync::Mutex;
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    host::log::set_sink(Box::new(|_, who, text| LINES.lock().unwrap().push(format!("{who}: {text}"))));
    host::log::set_level(1);
    let mut desk = desk(
        "route {\n $var(c) = 99;\n send_reply($var(c), \"x\");\n slow(100, 1);\n $var(c) = 98;\n send_reply($var(c), \"x\");\n}",
    );
    desk.receive(2, &request("OPTIONS", "o", ""));
    desk.advance(200);
    let lines = LINES.lock().unwrap().clone();
    for code in ["99", "98"] {
        let line =
            lines.iter().find(|line| line.contains(code)).unwrap_or_else(|| panic!("{code}: {lines:?}"));
        assert!(line.contains("; Call-ID one)") && line.contains(".cfg:"), "{line}");
    }
}
