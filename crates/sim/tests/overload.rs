//! What is refused while there is too much to do, and what goes on.

use bytes::Bytes;
use host::Input;
use host::tm::overload::Lateness;
use sim::desk::Desk;
use transaction::Path;

const SCRIPT: &str = r#"
log_level=-3
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "sim.so"
route {
    if (is_method("CANCEL")) { t_check_trans(); t_relay(); exit; }
    if (is_method("INVITE")) { slow(1000, 1); t_relay(); exit; }
    if (is_method("ACK")) { sl_send_reply(200, "no"); exit; }
    sl_send_reply(200, "OK");
}
"#;

fn message(method: &str, branch: &str, to_tag: &str) -> Bytes {
    format!(
        "{method} sip:bob@10.0.0.3 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK{branch};rport\r\n\
         Via: SIP/2.0/UDP 10.0.0.8:5060;branch=z9hG4bKinner\r\nRecord-Route: <sip:10.0.0.9;lr>\r\n\
         Max-Forwards: 70\r\nf: <sip:a@x>;tag=a\r\nt: <sip:b@x>{to_tag}\r\ni: one{branch}\r\n\
         CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
    .into()
}

fn receive(desk: &mut Desk, bytes: Bytes, lateness: Lateness) -> Vec<String> {
    let remote = ([10, 0, 0, 2], 5070).into();
    let source = Path { socket: 0, transport: sip::Transport::Udp, remote, local: 0, connection: 0 };
    desk.input(Input::Excess { source, bytes, lateness });
    desk.summaries()
}

const REFUSED: &str = "10.0.0.2 SIP/2.0 503 Service Unavailable";
const OK: &str = "10.0.0.2 SIP/2.0 200 OK";

#[test]
fn what_opens_something_is_refused_and_the_rest_goes_on() {
    let mut desk = Desk::new(SCRIPT);
    for (method, to_tag, lateness, expected) in [
        ("OPTIONS", "", Lateness::InTime, OK),
        ("OPTIONS", "", Lateness::Late, REFUSED),
        ("OPTIONS", ";tag=b", Lateness::VeryLate, OK),
        ("BYE", ";tag=b", Lateness::VeryLate, OK),
        ("INVITE", "", Lateness::Late, REFUSED),
        ("REGISTER", "", Lateness::Late, OK),
        ("REGISTER", "", Lateness::VeryLate, REFUSED),
    ] {
        let branch = format!("{method}{lateness:?}");
        let heard = receive(&mut desk, message(method, &branch, to_tag), lateness);
        assert_eq!(heard, [expected], "{method} {to_tag} {lateness:?}");
    }
    assert_eq!(desk.worker().ctx().core.shared.stats.value("net:overload_refused"), Some(3));
    assert_eq!(desk.worker().ctx().txn_ids().count(), 0);
}

/// A refusal says all that RFC 3261 §8.2.6 wants, goes where the request came from, and asks for a pause.
#[test]
fn a_refusal_is_a_whole_answer() {
    let mut desk = Desk::new(SCRIPT);
    let remote = ([10, 0, 0, 2], 5070).into();
    let source = Path { socket: 0, transport: sip::Transport::Udp, remote, local: 0, connection: 0 };
    let bytes = message("INVITE", "x", "");
    desk.input(Input::Excess { source, bytes, lateness: Lateness::Late });
    let sent = desk.sent();
    assert_eq!(sent[0].to, remote);
    let reply = sip::Message::parse(sent[0].bytes.clone()).unwrap();
    assert_eq!(reply.vias().len(), 2);
    assert_eq!(reply.via().unwrap().rport(), Some(Some(5070)));
    assert!(reply.to_tag().is_some() && reply.call_id().as_deref() == Some(b"onex"));
    let text = String::from_utf8_lossy(&sent[0].bytes).into_owned();
    let pause = text.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
    assert!((1..=4).contains(&pause.parse::<u32>().unwrap()), "{text}");
    assert!(!text.contains("Record-Route") && text.ends_with("Content-Length: 0\r\n\r\n"), "{text}");
    // Its ACK ends here, whatever the load is by then.
    let ack =
        text.lines().find(|line| line.starts_with("t: ")).unwrap().split(";tag=").nth(1).unwrap().to_owned();
    let ack = message("ACK", "x", &format!(";tag={ack}"));
    assert!(receive(&mut desk, ack.clone(), Lateness::InTime).is_empty());
    desk.input(Input::Message { source, bytes: ack });
    assert!(desk.summaries().is_empty());
}

/// One answer: what is being dealt with is not refused when it comes again, what was refused is not let in.
#[test]
fn requests_that_come_again() {
    let mut desk = Desk::new(SCRIPT);
    receive(&mut desk, message("INVITE", "in", ""), Lateness::InTime);
    assert!(
        receive(&mut desk, message("INVITE", "in", ""), Lateness::VeryLate).is_empty(),
        "its script waits"
    );
    desk.advance(1500);
    let sent = desk.summaries();
    assert!(sent.contains(&"10.0.0.3 INVITE".to_owned()), "{sent:?}");
    assert_eq!(receive(&mut desk, message("INVITE", "out", ""), Lateness::Late), [REFUSED]);
    assert_eq!(receive(&mut desk, message("INVITE", "out", ""), Lateness::InTime), [REFUSED]);
    desk.advance(33_000);
    desk.summaries();
    assert!(
        receive(&mut desk, message("INVITE", "out", ""), Lateness::InTime).is_empty(),
        "a new one by now"
    );
}
