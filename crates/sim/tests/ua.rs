//! This server as a user agent: calls that it makes and calls that it takes.

use host::tm::ua::{self, NewRequest, Side};
use host::tm::{Parts, Timeouts};
use host::{Ctx, Input};
use sim::desk::{Desk, Sent};
use sim::ends::{ear, heard, held, replies};

const CONFIG: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "sim.so"
loadmodule "sim_ua.so"
modparam("tm", "fr_timeout", 10)
modparam("tm", "fr_inv_timeout", 20)
route { if (is_method("INVITE")) { hold_call(); exit; } sl_send_reply(405, "No"); }
"#;

fn desk() -> Desk {
    let desk = Desk::new(CONFIG);
    heard();
    replies();
    desk
}

fn run(desk: &mut Desk, job: impl FnOnce(&mut Ctx) + Send + 'static) {
    desk.input(Input::Run(Box::new(job)));
}

fn call(desk: &mut Desk) {
    run(desk, |ctx| {
        let invite = NewRequest::new("INVITE", "sip:bob@10.0.0.3".into(), "<sip:us@x>", "<sip:b@x>");
        let timeouts = Timeouts { fr: Some(8_000), fr_inv: Some(15_000) };
        assert!(ua::send_within(ctx, invite, timeouts, ear("call")).is_ok());
    });
}

/// The INVITE of the server itself.
fn own_invite(ctx: &mut Ctx) -> transaction::TxnId {
    ctx.txn_ids().find(|id| ctx.txn(*id).is_invite()).expect("an INVITE")
}

fn answer(desk: &mut Desk, to: &Sent, status: u16, tag: &str, more: &str) {
    let msg = sip::Message::parse(to.bytes.clone()).unwrap();
    let extra = format!("Contact: <sip:b@10.0.0.4>\r\nRecord-Route: <sip:10.0.0.5;lr>\r\n{more}");
    let parts = sip::ReplyParts {
        code: status,
        reason: b"R",
        to_tag: Some(tag.as_bytes()),
        extra: extra.as_bytes(),
        ..Default::default()
    };
    let std::net::IpAddr::V4(ip) = to.to.ip() else { panic!("IPv4") };
    desk.receive_bytes(ip.octets()[3], sip::build_reply(&msg, &parts));
}

fn text(sent: &Sent) -> String {
    String::from_utf8_lossy(&sent.bytes).into_owned()
}

fn check_idle(desk: &mut Desk) {
    desk.advance(120_000);
    assert!(desk.is_idle());
    assert_eq!(desk.worker().ctx().txn_ids().count(), 0);
    assert!(desk.worker().ctx().core.tasks_of.is_empty());
}

/// Every reply is told, each 2xx of a fork by its tag; its ACK goes the way of the dialog, and again when it was lost.
#[test]
fn a_call_is_made() {
    let mut desk = desk();
    call(&mut desk);
    let invite = desk.sent().remove(0);
    // The first one is lost.
    desk.advance(600);
    assert_eq!(desk.summaries(), ["10.0.0.3 INVITE"]);
    answer(&mut desk, &invite, 100, "", "");
    answer(&mut desk, &invite, 180, "b1", "");
    answer(&mut desk, &invite, 183, "b2", "");
    assert_eq!(heard(), ["call 180", "call 183"]);
    answer(&mut desk, &invite, 200, "b1", "");
    answer(&mut desk, &invite, 200, "b1", "");
    assert_eq!(heard(), ["call 200"]);
    let ok = replies().pop().expect("the 200");
    let acknowledge = ok.clone();
    run(&mut desk, move |ctx| {
        let id = own_invite(ctx);
        let body =
            Parts { headers: "Content-Type: text/plain\r\n".into(), body: "sdp".into(), ..Parts::default() };
        assert!(ua::ack(ctx, id, &acknowledge, body));
        assert!(!ua::ack(ctx, id, &acknowledge, Parts::default()));
    });
    let sent = desk.sent();
    assert_eq!(sent[0].summary(), "10.0.0.5 ACK");
    let ack = text(&sent[0]);
    assert!(ack.starts_with("ACK sip:b@10.0.0.4 SIP/2.0\r\n") && ack.ends_with("\r\n\r\nsdp"), "{ack}");
    assert!(ack.contains("Route: <sip:10.0.0.5;lr>\r\n") && ack.contains("CSeq: 10 ACK\r\n"), "{ack}");
    assert!(ack.contains("tag=b1\r\n"), "{ack}");
    for _ in 0..2 {
        desk.advance(9_000);
        answer(&mut desk, &invite, 200, "b1", "");
        assert_eq!(desk.sent().iter().map(text).collect::<Vec<_>>(), std::slice::from_ref(&ack));
    }
    assert!(heard().is_empty());
    answer(&mut desk, &invite, 200, "b2", "");
    assert_eq!(heard(), ["call 200"]);
    check_idle(&mut desk);
    assert_eq!(heard(), ["call over"]);
}

#[test]
fn the_owner_ends_a_call_early() {
    let mut desk = desk();
    call(&mut desk);
    let invite = desk.sent().remove(0);
    answer(&mut desk, &invite, 200, "b", "");
    heard();
    run(&mut desk, |ctx| {
        let id = own_invite(ctx);
        ua::end(ctx, id);
    });
    assert_eq!(heard(), ["call over"]);
    answer(&mut desk, &invite, 200, "b", "");
    assert!(heard().is_empty());
    check_idle(&mut desk);
}

/// The CANCEL waits for the first provisional reply; the owner hears the refusal.
#[test]
fn a_call_is_given_up() {
    let mut desk = desk();
    call(&mut desk);
    let invite = desk.sent().remove(0);
    run(&mut desk, |ctx| {
        let id = own_invite(ctx);
        ua::cancel(ctx, id, "Reason: Q.850;cause=16\r\n".into());
    });
    assert!(desk.sent().is_empty());
    answer(&mut desk, &invite, 180, "b", "");
    let sent = desk.sent();
    assert_eq!(sent[0].summary(), "10.0.0.3 CANCEL");
    assert!(text(&sent[0]).contains("Reason: Q.850;cause=16\r\n"));
    answer(&mut desk, &invite, 487, "b", "");
    assert_eq!(desk.summaries(), ["10.0.0.3 ACK"]);
    assert_eq!(heard().last().map(String::as_str), Some("call 487"));
    check_idle(&mut desk);
}

/// Nobody answers: the request's own timeout, not that of module tm.
#[test]
fn nobody_answers() {
    let mut desk = desk();
    call(&mut desk);
    desk.advance(7_900);
    assert!(heard().is_empty());
    desk.advance(200);
    assert_eq!(heard(), ["call 408 made here"]);
    check_idle(&mut desk);
}

/// A challenge is told with its reply: the owner asks again in the same dialog.
#[test]
fn a_challenge_is_told() {
    let mut desk = desk();
    run(&mut desk, |ctx| {
        let first =
            NewRequest::new("OPTIONS", "sip:bob@10.0.0.3".into(), "<sip:us@x>", "<sip:b@x>").identified(ctx);
        let mut second = Some(NewRequest {
            cseq: first.cseq + 1,
            headers: "Authorization: Digest x\r\n".into(),
            ..first.clone()
        });
        let again: ua::Ear = Box::new(move |ctx, _, heard| {
            if let (ua::Heard::Reply(answer), Some(second)) = (heard, second.take()) {
                assert!(answer.status == 401 && answer.reply.is_some());
                assert!(ua::send(ctx, second, ear("again")).is_ok());
            }
        });
        assert!(ua::send(ctx, first, again).is_ok());
    });
    let first = desk.sent().remove(0);
    answer(&mut desk, &first, 401, "b", "");
    let second = desk.sent().remove(0);
    let line = |sent: &Sent, name: &str| text(sent).lines().find(|l| l.starts_with(name)).map(str::to_string);
    assert!(text(&second).contains("Authorization: Digest x\r\n"));
    assert_eq!(
        (line(&first, "Call-ID"), line(&first, "From")),
        (line(&second, "Call-ID"), line(&second, "From"))
    );
    assert_eq!(line(&second, "CSeq").as_deref(), Some("CSeq: 11 OPTIONS"));
    answer(&mut desk, &second, 200, "b", "");
    assert_eq!(heard(), ["again 200"]);
    check_idle(&mut desk);
}

/// A reliable provisional reply gets its PRACK inside the dialog that it began.
#[test]
fn a_reliable_reply_is_acknowledged() {
    let mut desk = desk();
    call(&mut desk);
    let invite = desk.sent().remove(0);
    answer(&mut desk, &invite, 183, "b", "Require: 100rel\r\nRSeq: 77\r\n");
    let rings = replies().pop().expect("the 183");
    run(&mut desk, move |ctx| {
        let id = own_invite(ctx);
        let request = ctx.txn(id).data().expect("it lives").msg.clone();
        let mut side = Side::of_reply(&request, &rings).expect("a dialog");
        assert!(ua::prack(ctx, &mut side, &rings, Parts::default(), ear("prack")).is_some());
    });
    let prack = desk.sent().remove(0);
    assert_eq!(prack.summary(), "10.0.0.5 PRACK");
    assert!(text(&prack).contains("RAck: 77 10 INVITE\r\n") && text(&prack).contains("CSeq: 11 PRACK\r\n"));
    answer(&mut desk, &prack, 200, "b", "");
    answer(&mut desk, &invite, 486, "b", "");
    assert_eq!(heard(), ["call 183", "prack 200", "call 486"]);
    check_idle(&mut desk);
}

fn request(method: &str, branch: &str, more: &str) -> String {
    format!(
        "{method} sip:us@10.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{branch}\n\
         Max-Forwards: 70\nFrom: <sip:a@x>;tag=a\nTo: <sip:b@x>\nCall-ID: one\nCSeq: {} {method}\n\
         {more}Contact: <sip:a@10.0.0.2>\nContent-Length: 0\n\n",
        if method == "PRACK" { 2 } else { 1 }
    )
}

fn take(desk: &mut Desk) -> transaction::TxnId {
    desk.receive(2, &request("INVITE", "i", ""));
    desk.sent();
    held().expect("it was taken")
}

/// Ringing, reliably once, then taking the call: each reply is repeated until it is acknowledged.
#[test]
fn a_call_is_taken() {
    let mut desk = desk();
    let id = take(&mut desk);
    desk.advance(60_000);
    assert!(desk.sent().is_empty(), "it may take as long as its owner likes");
    run(&mut desk, move |ctx| {
        assert_eq!(ua::answer(ctx, id, 180, b"Ringing", Parts::default()), 1);
        assert!(ua::answer_reliably(ctx, id, 183, b"Progress", Parts::default()));
        assert!(!ua::answer_reliably(ctx, id, 183, b"Too soon", Parts::default()));
    });
    let sent = desk.sent();
    assert_eq!(sent[0].summary(), "10.0.0.2 SIP/2.0 180 Ringing");
    let progress = text(&sent[1]);
    assert!(progress.contains("Require: 100rel\r\n"), "{progress}");
    let rseq = progress.lines().find_map(|l| l.strip_prefix("RSeq: ")).expect("RSeq").to_string();
    for wait in [500, 1000, 2000] {
        desk.advance(wait);
        assert_eq!(desk.sent().iter().map(text).collect::<Vec<_>>(), std::slice::from_ref(&progress));
    }
    desk.receive(
        2,
        &request("PRACK", "p0", &format!("RAck: {} 1 INVITE\n", rseq.parse::<u32>().unwrap() + 1)),
    );
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 481 Call/Transaction Does Not Exist"]);
    desk.receive(2, &request("PRACK", "p", &format!("RAck: {rseq} 1 INVITE\n")));
    assert_eq!(desk.summaries(), ["10.0.0.2 SIP/2.0 200 OK"]);
    assert_eq!(heard(), ["held pracked"]);
    desk.advance(10_000);
    assert!(desk.sent().is_empty());

    run(&mut desk, move |ctx| {
        let parts = Parts {
            headers: "Contact: <sip:us@10.0.0.1>\r\n".into(),
            body: "sdp".into(),
            ..Parts::default()
        };
        assert_eq!(ua::answer(ctx, id, 200, b"OK", parts), 1);
        assert_eq!(ua::answer(ctx, id, 486, b"Late", Parts::default()), -1);
    });
    let ok = text(&desk.sent()[0]);
    // Timers of transactions share wakes: 16 ms more or less.
    desk.advance(520);
    desk.advance(1020);
    assert_eq!(desk.sent().iter().map(text).collect::<Vec<_>>(), [ok.clone(), ok]);
    desk.receive(2, &request("ACK", "a", ""));
    desk.receive(2, &request("ACK", "a", ""));
    assert_eq!(heard(), ["held acked"]);
    check_idle(&mut desk);
    assert_eq!(heard(), ["held over"]);
}

#[test]
fn a_caller_gives_up() {
    let mut desk = desk();
    take(&mut desk);
    desk.receive(2, &request("CANCEL", "i", ""));
    let got = desk.summaries();
    assert_eq!(got, ["10.0.0.2 SIP/2.0 200 canceling", "10.0.0.2 SIP/2.0 487 Request Terminated"]);
    assert_eq!(heard(), ["held cancelled"]);
    desk.receive(2, &request("ACK", "i", ""));
    check_idle(&mut desk);
    assert_eq!(heard(), ["held over"]);
}

/// An ACK or a PRACK that never comes is told.
#[test]
fn nobody_acknowledges() {
    let mut desk = desk();
    let id = take(&mut desk);
    run(&mut desk, move |ctx| {
        assert!(ua::answer_reliably(ctx, id, 183, b"Progress", Parts::default()));
    });
    desk.advance(31_000);
    assert!(heard().is_empty());
    desk.advance(1_100);
    assert_eq!(heard(), ["held unacknowledged"]);
    run(&mut desk, move |ctx| {
        assert_eq!(ua::answer(ctx, id, 200, b"OK", Parts::default()), 1);
    });
    check_idle(&mut desk);
    assert_eq!(heard(), ["held unacknowledged", "held over"]);
}

/// A probe that nobody answers does not hold the end of the server; an INVITE and a BYE do. Whoever sent the probe does
/// not hear a reply that nobody gave.
#[test]
fn the_end_waits_for_calls_only() {
    let probe = |ctx: &mut Ctx| {
        let options = NewRequest::new("OPTIONS", "sip:gw@10.0.0.3".into(), "<sip:us@x>", "<sip:gw@x>");
        assert!(ua::send(ctx, options, ear("probe")).is_ok());
        ctx.spawn_aside("reload", 60_000, std::future::pending());
    };
    let mut desk = desk();
    run(&mut desk, probe);
    desk.input(Input::Drain);
    assert!(desk.worker().idle());
    desk.input(Input::End);
    assert_eq!(heard(), Vec::<String>::new());

    let mut desk = self::desk();
    run(&mut desk, probe);
    run(&mut desk, |ctx| {
        let bye = NewRequest::new("BYE", "sip:b@10.0.0.3".into(), "<sip:us@x>", "<sip:b@x>;tag=1");
        assert!(ua::send(ctx, bye, ear("bye")).is_ok());
    });
    desk.input(Input::Drain);
    assert!(!desk.worker().idle());

    let mut desk = self::desk();
    run(&mut desk, |ctx| ctx.spawn("write", 60_000, std::future::pending()));
    desk.input(Input::Drain);
    assert!(!desk.worker().idle());
}
