//! A defect of the server costs one message: its caller hears 500, and nothing of it stays behind.

use sim::desk::{Desk, Sent};

const HEAD: &str = r#"
log_level=-3
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "cfgutils.so"
loadmodule "sim.so"
loadmodule "sim_defect.so"
modparam("tm", "fr_timeout", 10)
modparam("tm", "fr_inv_timeout", 20)
"#;

fn desk(routes: &str) -> Desk {
    Desk::new(&format!("{HEAD}{routes}"))
}

fn request(method: &str, branch: &str, headers: &str) -> String {
    format!(
        "{method} sip:bob@10.0.0.3 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{branch}\n\
         Max-Forwards: 70\nFrom: <sip:a@x>;tag=a\nTo: <sip:b@x>\nCall-ID: one\nCSeq: 1 {method}\n\
         {headers}Content-Length: 0\n\n"
    )
}

fn reply(desk: &mut Desk, to: &Sent, status: u16, headers: &[u8]) {
    let msg = sip::Message::parse(to.bytes.clone()).unwrap();
    let parts = sip::ReplyParts {
        code: status,
        reason: b"R",
        to_tag: Some(b"b"),
        extra: headers,
        ..Default::default()
    };
    let bytes = sip::build_reply(&msg, &parts);
    let std::net::IpAddr::V4(ip) = to.to.ip() else { panic!("IPv4") };
    desk.receive_bytes(ip.octets()[3], bytes);
}

fn defects(desk: &mut Desk) -> i64 {
    desk.worker().ctx().core.traffic.defects.value()
}

/// No transaction, no waiting script, no operation, no timer but the script's own; the worker goes on.
fn check_nothing_is_left(desk: &mut Desk, what: &str) {
    desk.receive(2, &request("ACK", "i", ""));
    desk.advance(120_000);
    assert!(desk.is_idle(), "{what}");
    let core = &desk.worker().ctx().core;
    assert_eq!(core.txns.counts().0, 0, "{what}: transactions");
    assert_eq!(core.tasks.iter().filter(|task| task.live).count(), 0, "{what}: waiting scripts");
    assert!(core.tasks_of.is_empty(), "{what}: tasks of transactions");
    assert_eq!(core.timers.len(), 0, "{what}: timers");
    desk.sent();
    desk.receive(2, &request("OPTIONS", "again", ""));
    desk.advance(100);
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 200 Alive"], "{what}: the next message");
}

const ALIVE: &str = "route { if (is_method(\"OPTIONS\")) { sl_send_reply(200, \"Alive\"); exit; }";

/// Finals that the caller got.
fn finals(desk: &mut Desk) -> Vec<String> {
    let mut all = desk.summaries();
    all.retain(|line| line.starts_with("10.0.0.2 SIP/2.0 ") && !line.starts_with("10.0.0.2 SIP/2.0 1"));
    all.dedup();
    all
}

const BROKEN: &str = "10.0.0.2 SIP/2.0 500 Server Internal Error";

/// The script of a request, before and after it has waited.
#[test]
fn in_the_main_route() {
    for body in [
        "defect();",
        "route(sub);",
        "t_newtran(); defect();",
        "slow(100, 1); defect();",
        "async(slow(100, 1), sub);",
        "slow_defect(100);",
        "late_defect(100);",
        "defect_at_start();",
        "async(slow_defect(100), sub);",
        "parallel { slow(5000, 1); slow_defect(100); }",
        "parallel { slow(100, 1); late_defect(50); }",
        "t_newtran(); slow_defect(100);",
        "t_relay(); defect();",
        "t_relay(); slow_defect(100);",
    ] {
        let mut desk = desk(&format!("{ALIVE} {body} }} route[sub] {{ defect(); }}"));
        desk.receive(2, &request("INVITE", "i", ""));
        desk.advance(200);
        assert_eq!(finals(&mut desk), [BROKEN], "{body}");
        assert_eq!(defects(&mut desk), 1, "{body}");
        check_nothing_is_left(&mut desk, body);
    }
}

/// What waits in them is dropped too, branches are cancelled.
#[test]
fn in_the_other_routes_of_a_call() {
    for (routes, status) in [
        ("branch_route[x] { defect(); }", 0),
        ("branch_route[x] { slow(100, 1); defect(); }", 0),
        ("onreply_route { defect(); }", 180),
        ("onreply_route { if ($rs == 486) defect(); }", 486),
        ("onreply_route[x] { defect(); }", 180),
        ("onreply_route[x] { defect(); }", 200),
        ("onreply_route[x] { slow(100, 1); defect(); }", 180),
        ("onreply_route[x] { slow_defect(100); }", 486),
        ("failure_route[x] { defect(); }", 486),
        ("failure_route[x] { slow(100, 1); defect(); }", 486),
        ("failure_route[x] { $du = \"sip:10.0.0.4\"; t_relay(); defect(); }", 486),
        ("failure_route[x] { slow_defect(100); }", 486),
    ] {
        let arm = match routes.split_once("[x]") {
            Some(("branch_route", _)) => "t_on_branch(\"x\");",
            Some(("onreply_route", _)) => "t_on_reply(\"x\");",
            Some(("failure_route", _)) => "t_on_failure(\"x\");",
            _ => "",
        };
        let mut desk = desk(&format!("{ALIVE} {arm} t_relay(); }} {routes}"));
        desk.receive(2, &request("INVITE", "i", ""));
        desk.advance(10);
        let sent = desk.sent();
        let invite = sent.iter().find(|s| s.summary() == "10.0.0.3 INVITE");
        if status > 0 {
            reply(&mut desk, invite.expect("relayed"), status, b"");
        }
        desk.advance(300);
        let mut heard: Vec<String> = sent.iter().map(Sent::summary).filter(|line| line == BROKEN).collect();
        heard.extend(finals(&mut desk));
        assert_eq!(heard[0], BROKEN, "{routes} {status}");
        assert_eq!(defects(&mut desk), 1, "{routes} {status}");
        check_nothing_is_left(&mut desk, routes);
    }
}

/// Routes without a message go on at their next turn.
#[test]
fn beside_calls() {
    let mut desk = desk(&format!(
        "{ALIVE} launch(slow_defect(10), rep); launch(slow(20, 1), rep); t_reply(404, \"x\"); }}\n\
        route[rep] {{ defect(); }}\n\
        timer_route[t, 10] {{ defect(); }}"
    ));
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(35_000);
    assert_eq!(finals(&mut desk), ["10.0.0.2 SIP/2.0 404 x"]);
    assert_eq!(defects(&mut desk), 5, "two launched, three turns");
    let ctx = desk.worker().ctx();
    ctx.after(5, |_| panic!("on purpose"));
    ctx.after(5, |ctx| ctx.core.traffic.defects.up());
    desk.advance(5);
    assert_eq!(defects(&mut desk), 7, "the second job runs all the same");
}

/// An event's route, and one within another script.
#[test]
fn in_the_route_of_an_event() {
    let mut desk = desk(&format!(
        "{ALIVE} raise_event(\"E_X\"); t_reply(404, \"x\"); }}\n\
        event_route[E_X] {{ defect(); }}"
    ));
    desk.receive(2, &request("INVITE", "i", ""));
    desk.advance(10);
    assert_eq!(finals(&mut desk), ["10.0.0.2 SIP/2.0 404 x"]);
    assert_eq!(defects(&mut desk), 1);
    check_nothing_is_left(&mut desk, "event_route");
}

/// A request of the server itself: whoever asked for it is told.
#[test]
fn in_a_request_of_our_own() {
    for routes in
        ["local_route { defect(); }", "local_route { slow_defect(10); }", "onreply_route { defect(); }"]
    {
        let mut desk = desk(&format!("{ALIVE} }} {routes}"));
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = told.clone();
        desk.input(host::Input::Run(Box::new(move |ctx| {
            let request =
                host::tm::NewRequest::new("MESSAGE", "sip:x@10.0.0.4".into(), "<sip:a@b>", "<sip:c@d>");
            let done = Box::new(move |_: &mut host::Ctx, answer: host::tm::Answer| {
                note.lock().unwrap().push(answer.status)
            });
            host::tm::send_new(ctx, request, Some(done));
        })));
        desk.advance(20);
        if let Some(sent) = desk.sent().first() {
            reply(&mut desk, sent, 200, b"");
        }
        let status = told.lock().unwrap().clone();
        assert!(status.len() == 1 && status[0] >= 400, "{routes}: {status:?}");
        check_nothing_is_left(&mut desk, routes);
    }
}

/// Hooks of modules.
#[test]
fn in_a_hook() {
    for hook in [
        "RequestIn",
        "RequestEnd",
        "RequestOut",
        "ReplyIn",
        "ReplyOut",
        "Failing",
        "Cancelled",
        "Created",
        "Replied",
        "Ended",
    ] {
        let mut desk =
            desk(&format!("{ALIVE} if (is_method(\"CANCEL\")) {{ t_relay(); exit; }} t_relay(); }}"));
        let header = format!("X-Defect: {hook}\n");
        desk.receive(2, &request("INVITE", "i", &header));
        desk.advance(10);
        let mut heard = Vec::new();
        let sent = desk.sent();
        heard.extend(sent.iter().map(Sent::summary).filter(|line| line == BROKEN));
        let invite = sent.iter().find(|s| s.summary() == "10.0.0.3 INVITE");
        if let Some(invite) = invite {
            let status = if hook == "Failing" { 486 } else { 180 };
            reply(&mut desk, invite, status, format!("X-Defect: {hook}\r\n").as_bytes());
        }
        if hook == "Cancelled" {
            desk.receive(2, &request("CANCEL", "i", ""));
        }
        desk.advance(100);
        heard.extend(finals(&mut desk).into_iter().filter(|line| line == BROKEN));
        if hook != "Ended" {
            assert_eq!(heard, [BROKEN], "{hook}");
        }
        check_nothing_is_left(&mut desk, hook);
        assert!(defects(&mut desk) >= 1, "{hook}");
    }
}
