//! Requests of a call of two dialogs that wait for their turn while the call ends: every one is answered.

use sim::desk::{Desk, Sent};

const CONFIG: &str = r#"
log_level=0
socket=udp:10.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "b2b_entities.so"
loadmodule "b2b_logic.so"
loadmodule "sim.so"
route { b2b_server_new("a"); b2b_client_new("b", $ru); b2b_init_request("two", , "req", "rep"); }
route[req] { if (is_method("MESSAGE")) exit; if (is_method("BYE|INFO")) slow(1000, 1); b2b_pass_request(); }
route[rep] { if ($rm == "BYE") slow(1000, 1); b2b_handle_reply(); }
"#;

fn text(sent: &Sent) -> String {
    String::from_utf8_lossy(&sent.bytes).into_owned()
}

/// The value of a header line.
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

fn uri(contact: &str) -> &str {
    contact.trim_start_matches('<').split('>').next().unwrap_or_default()
}

struct Call {
    desk: Desk,
    /// What the ends know of their dialogs: To of the caller's, and the INVITE of the callee's.
    ok: String,
    invite: String,
}

impl Call {
    fn new() -> Call {
        let mut desk = Desk::new(CONFIG);
        desk.receive(
            2,
            "INVITE sip:bob@10.0.0.3 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK-1\nFrom: <sip:a@x>;tag=a\n\
             To: <sip:bob@10.0.0.3>\nCall-ID: one@10.0.0.2\nCSeq: 1 INVITE\nMax-Forwards: 70\n\
             Contact: <sip:a@10.0.0.2>\nContent-Length: 0\n\n",
        );
        let invite = desk.sent().iter().map(text).find(|text| text.starts_with("INVITE")).expect("an INVITE");
        let mut call = Call { desk, ok: String::new(), invite };
        let invite = call.invite.clone();
        call.answer(3, &invite);
        let sent = call.desk.sent();
        call.ok = sent.iter().map(text).find(|text| text.starts_with("SIP/2.0 200")).expect("a 200");
        call.caller_asks("ACK", 1);
        assert_eq!(call.desk.summaries(), ["10.0.0.3 ACK"]);
        call
    }

    fn answer(&mut self, from: u8, request: &str) {
        let to = line(request, "To");
        let tag = if to.contains(";tag=") { "" } else { ";tag=b" };
        let [via, sender, id, cseq] = ["Via", "From", "Call-ID", "CSeq"].map(|name| line(request, name));
        let reply = format!(
            "SIP/2.0 200 OK\nVia: {via}\nFrom: {sender}\nTo: {to}{tag}\nCall-ID: {id}\nCSeq: {cseq}\n\
             Contact: <sip:b@10.0.0.{from}>\nContent-Length: 0\n\n"
        );
        self.desk.receive(from, &reply);
    }

    fn caller_asks(&mut self, method: &str, cseq: u32) {
        let (target, to) = (uri(line(&self.ok, "Contact")).to_owned(), line(&self.ok, "To").to_owned());
        self.desk.receive(
            2,
            &format!(
                "{method} {target} SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK-{method}-{cseq}\n\
                 From: <sip:a@x>;tag=a\nTo: {to}\nCall-ID: one@10.0.0.2\nCSeq: {cseq} {method}\n\
                 Max-Forwards: 70\nContact: <sip:a@10.0.0.2>\nContent-Length: 0\n\n"
            ),
        );
    }

    fn callee_asks(&mut self, method: &str, cseq: u32) {
        let [from, to, contact, id] =
            ["From", "To", "Contact", "Call-ID"].map(|name| line(&self.invite, name));
        let target = uri(contact);
        let request = format!(
            "{method} {target} SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.3;branch=z9hG4bK-{method}-{cseq}\n\
             From: {to};tag=b\nTo: {from}\nCall-ID: {id}\nCSeq: {cseq} {method}\n\
             Max-Forwards: 70\nContact: <sip:b@10.0.0.3>\nContent-Length: 0\n\n"
        );
        self.desk.receive(3, &request);
    }

    /// Final replies that an end got, by the CSeq, until everything is over; the ends answer every request.
    fn finals(&mut self, end: u8) -> Vec<String> {
        let mut finals = Vec::new();
        for _ in 0..60 {
            for sent in self.desk.sent() {
                let (text, to) = (text(&sent), sent.to.ip().to_string());
                let host: u8 = to.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or_default();
                match text.strip_prefix("SIP/2.0 ") {
                    None if !text.starts_with("ACK") => self.answer(host, &text),
                    Some(rest) if host == end && !rest.starts_with('1') => {
                        finals.push(format!("{} {}", &rest[..3], line(&text, "CSeq")));
                    }
                    _ => {}
                }
            }
            self.desk.advance(1000);
        }
        self.desk.advance(90_000);
        assert_eq!(self.desk.worker().ctx().txn_ids().count(), 0);
        finals.sort();
        finals.dedup();
        finals
    }
}

/// They come while the reply to the callee's BYE waits in its route, after which nothing is left of the call.
#[test]
fn requests_that_outlive_their_call_are_answered() {
    let mut call = Call::new();
    call.callee_asks("BYE", 7);
    call.desk.advance(1000);
    let bye = call.desk.sent().iter().map(text).find(|text| text.starts_with("BYE")).expect("a BYE");
    call.answer(2, &bye);
    call.caller_asks("INFO", 2);
    call.caller_asks("BYE", 3);
    assert_eq!(call.finals(2), ["200 3 BYE", "481 2 INFO"]);
}

#[test]
fn byes_that_cross_are_both_answered() {
    for first in [2, 3] {
        let mut call = Call::new();
        call.callee_asks("BYE", 7);
        call.caller_asks("BYE", 3);
        let expected = if first == 2 { "200 3 BYE" } else { "200 7 BYE" };
        assert_eq!(call.finals(first), [expected]);
    }
}

/// A script left a request of the callee alone: its BYE ends that, and the other end hears of it.
#[test]
fn a_bye_after_a_request_without_an_answer_ends_both() {
    let mut call = Call::new();
    call.callee_asks("MESSAGE", 7);
    call.callee_asks("BYE", 8);
    let sent = call.desk.summaries();
    assert!(sent.contains(&"10.0.0.2 BYE".to_owned()), "{sent:?}");
    assert_eq!(call.finals(3), Vec::<String>::new());
}
