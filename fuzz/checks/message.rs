//! Parses arbitrary bytes as a message, reads all of it, and checks that it is relayed unchanged.

use bytes::Bytes;
use sip::digest::{Challenge, Credentials};
use sip::{
    Edits, HeaderName, Message, NameAddr, PrintTarget, ReplyParts, Rport, SocketNames, StartLine, Uri,
    build_ack, build_cancel, build_reply, print_reply, print_request,
};

pub fn check(data: &[u8]) {
    let owner = Message::owner(data);
    let Ok(message) = Message::parse(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(owner, message.call_id().as_deref());
    read(&message);
    print(&message);
    build(&message);
}

fn read(message: &Message) {
    let mut at = message.start_line().end;
    for header in message.headers() {
        assert_eq!(header.whole().start, at);
        at = header.whole().end;
        let text = message.text(header.value());
        for address in NameAddr::parse_list(&text).unwrap_or_default() {
            assert_eq!(text.slice(address.uri_span.range()), address.uri);
            let _ = (address.display_text(), address.tag());
            if let Ok(uri) = Uri::parse(&address.uri) {
                assert!(uri.equals(&uri));
            }
        }
        let _ = (Credentials::parse(&text).is_ok(), Challenge::parse(&text).is_ok());
    }
    assert_eq!(message.headers_end(), at);
    for via in message.vias() {
        let _ = (via.rport(), via.ip(), via.transport(), via.branch());
    }
    let _ = (message.cseq(), message.mandatory(), message.answerable(), message.repeated());
    let _ = (message.addresses(HeaderName::Contact).is_ok(), message.list(HeaderName::Supported).count());
}

/// Apart from our Via, a message that is framed well comes out as it went in.
fn print(message: &Message) {
    let socket = SocketNames { host: "us".into(), port: 5060, transport: "UDP" };
    let source = "10.0.0.1:7".parse().unwrap();
    let params = message.via().map_or_else(Bytes::new, |via| via.source_params(source, Rport::AsAsked));
    let via = b"Via: SIP/2.0/UDP us\r\n";
    let target = |via, via_params| PrintTarget {
        uri: b"",
        via,
        via_params,
        extra: b"",
        send: &socket,
        received: &socket,
    };
    let StartLine::Request { version, .. } = *message.start() else {
        let printed = print_reply(message, &Edits::default(), None, &socket, &socket);
        Message::parse(printed).expect("a printed reply parses");
        return;
    };
    let relayed = print_request(message, &[], &target(via, &params));
    let relayed = Message::parse(relayed).expect("a relayed request parses");
    assert_eq!(relayed.via().expect("our Via is on top").host(), b"us");
    // Of several lengths one is left.
    let count = |m: &Message| m.headers().iter().filter(|h| h.name != HeaderName::ContentLength).count();
    assert_eq!(count(&relayed), count(message) + 1);
    let blanks = matches!(message.buf()[version.end as usize], b' ' | b'\t');
    let (head, body) = (message.headers_end() as usize, message.body());
    let lines = message.buf()[..head].split_inclusive(|&b| b == b'\n');
    let crlf = |line: &[u8]| {
        line.iter()
            .position(|&b| b == b'\r')
            .is_some_and(|at| at > 0 && at + 2 == line.len() && !line.trim_ascii().is_empty())
    };
    let lengths: Vec<_> = message.headers_of(HeaderName::ContentLength).collect();
    let one = match lengths[..] {
        [] => true,
        [one] => {
            message.content_length() == Some(body.len() as u32)
                && message.bytes(one.whole()).iter().filter(|&&b| b == b'\n').count() == 1
        }
        _ => false,
    };
    let framed = one && lines.clone().all(crlf) && message.buf()[head..].starts_with(b"\r\n");
    if !blanks && framed && message.start_line().start == 0 {
        assert_eq!(print_request(message, &[], &target(b"", b"")), message.buf()[..body.end as usize]);
    }
}

fn build(message: &Message) {
    let parts = ReplyParts { code: 200, reason: b"OK", to_tag: Some(b"t"), ..ReplyParts::default() };
    let reply = Message::parse(build_reply(message, &parts)).expect("a built reply parses");
    if message.is_request() {
        Message::parse(build_ack(message, &reply, b"")).expect("a built ACK parses");
        Message::parse(build_cancel(message, b"")).expect("a built CANCEL parses");
    }
}
