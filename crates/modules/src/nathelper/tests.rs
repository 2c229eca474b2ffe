//! Contacts and descriptions as they leave.

use crate::testing::run_with;
use script::ast::Dialect;
use sip::{Message, PrintTarget, SocketNames};
use std::rc::Rc;

const CONFIG: &str = "loadmodule \"nathelper.so\"\nmodparam(\"nathelper\", \"received_avp\", \"$avp(rcv)\")";

/// The line of the printed request that starts so, after a script; the test's sender is 127.0.0.2:5060.
fn line(request: &str, body: &str, start: &str) -> String {
    let message = Message::parse(request.replace('\n', "\r\n").into()).unwrap();
    let ran = run_with(CONFIG, body, Dialect::V4, |state| state.msg = Rc::new(message));
    let names = SocketNames { host: "us".into(), port: 5060, transport: "UDP" };
    let uri = ran.state.current_uri();
    let target =
        PrintTarget { uri: &uri, via: b"", via_params: b"", extra: b"", send: &names, received: &names };
    let printed = sip::print_request(&ran.state.msg, &[&ran.state.edits], &target);
    let text = String::from_utf8(printed.to_vec()).unwrap();
    text.split("\r\n").find(|line| line.starts_with(start)).unwrap_or_default().to_string()
}

fn contact(value: &str, body: &str) -> String {
    line(&format!("INVITE sip:b@x SIP/2.0\nTo: <sip:b@x>\nContact: {value}\n\n"), body, "Contact")
}

#[test]
fn contacts_get_the_source() {
    let fix = "fix_nated_contact();";
    for (value, body, want) in [
        ("<sip:a@10.0.0.1>", fix, "<sip:a@127.0.0.2:5060>"),
        ("sip:a@10.0.0.1:9;q=1", fix, "sip:a@127.0.0.2:5060;q=1"),
        ("sip:a@10.0.0.1", "fix_nated_contact(\";n\");", "<sip:a@127.0.0.2:5060;n>"),
        (
            "<sip:a@[::1]:5;x>, \"B\" <sip:b@h>;q=1",
            fix,
            "<sip:a@127.0.0.2:5060;x>, \"B\" <sip:b@127.0.0.2:5060>;q=1",
        ),
        ("<sip:a@10.0.0.1;maddr=1.1.1.1;b?h=1>", fix, "<sip:a@127.0.0.2:5060;b?h=1>"),
        ("*", fix, "*"),
        ("<sip:a@10.0.0.1>", "fix_nated_contact(); fix_nated_contact();", "<sip:a@127.0.0.2:5060>"),
        ("<sip:a@h>;q=1", "add_rcv_param();", "<sip:a@h>;q=1;received=\"sip:127.0.0.2:5060\""),
    ] {
        assert_eq!(contact(value, body), format!("Contact: {want}"), "{value}");
    }
}

#[test]
fn uris_are_restored() {
    let uri = |uri: &str| {
        line(&format!("INVITE {uri} SIP/2.0\nTo: <sip:b@x>\n\n"), "restore_nated_ruri();", "INVITE")
    };
    for (given, want) in [
        ("sip:a@us;org=MTAuMC4wLjU6NTA2MA==", "sip:a@10.0.0.5:5060"),
        ("sip:a@us;org=MTAuMC4wLjU6NTA2MA;x=1", "sip:a@10.0.0.5:5060;x=1"),
        ("sip:a@us;org=MTAuMC4wLjU6NTA2MDt0cmFuc3BvcnQ9dWRwO29i", "sip:a@10.0.0.5:5060;transport=udp;ob"),
        ("sip:a@us;org=DQo=", "sip:a@us;org=DQo="),
        ("sip:a@us;org=%%%", "sip:a@us;org=%%%"),
        ("sip:a@us", "sip:a@us"),
    ] {
        assert_eq!(uri(given), format!("INVITE {want} SIP/2.0"), "{given}");
    }
}

#[test]
fn descriptions_get_an_address() {
    let sdp = "INVITE sip:b@x SIP/2.0\nTo: <sip:b@x>\nContent-Type: application/sdp\n\nv=0\no=- 1 1 IN IP4 10.0.0.1\nc=IN IP4 0.0.0.0\n";
    for (body, start, want) in [
        ("fix_nated_sdp(8);", "o=", "o=- 1 1 IN IP4 127.0.0.2"),
        ("fix_nated_sdp(\"rewrite-origin-ip\");", "a=old", "a=oldoip:10.0.0.1"),
        ("fix_nated_sdp(\"rewrite-media-ip\");", "c=", "c=IN IP4 0.0.0.0"),
        ("fix_nated_sdp(\"18\");", "c=", "c=IN IP4 127.0.0.2"),
        ("fix_nated_sdp(\"rewrite-origin-ip\", \"2001:db8::1\");", "o=", "o=- 1 1 IN IP6 2001:db8::1"),
        ("fix_nated_sdp(1, , \"\\r\\na=x:1\");", "a=x", "a=x:1"),
    ] {
        assert_eq!(line(sdp, body, start), want, "{body}");
    }
}
