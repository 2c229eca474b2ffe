use super::*;

fn parse(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

#[test]
fn owner_is_not_fooled() {
    let check = |headers: &str, want: Option<&str>| {
        let raw = format!("INVITE sip:Call-ID:x@y SIP/2.0\r\n{headers}");
        assert_eq!(Message::owner(raw.as_bytes()), want.map(str::as_bytes), "{headers:?}");
        assert_eq!(parse(&raw).call_id().as_deref(), want.map(str::as_bytes), "{headers:?}");
    };
    check("Call-ID: a@b\r\n\r\n", Some("a@b"));
    check("i:a\r\n\r\n", Some("a"));
    check("I \t:  a  \r\n\r\n", Some("a"));
    check("cAlL-iD:\r\n a\r\n\r\n", Some("a"));
    check("CSeq: 1 X\nCALL-ID: a\n\n", Some("a"));
    check("Subject: Call-ID: fake\r\nX-Call-ID: fake\r\nCall-IDs: fake\r\nCall-ID: a\r\n\r\n", Some("a"));
    check("Subject: x\r\n Call-ID: fake\r\n\ti: fake\r\nCall-ID: a\r\n\r\n", Some("a"));
    check("Call-ID: a\r\nCall-ID: b\r\n\r\n", Some("a"));
    check("Call-ID:\r\n\r\n", Some(""));
    check("Call-ID: a", Some("a"));
    check("Subject: x\r\n\r\nCall-ID: body\r\n", None);
    check("\r\nCall-ID: body\r\n", None);
    check("Call-ID\r\n : a\r\n\r\n", None);
    check("Call-ID a\r\n\r\n", None);
    let led = b"\r\n\r\nBYE sip:b@x SIP/2.0\r\ni: a\r\n\r\n";
    assert_eq!(Message::owner(led), Some(&b"a"[..]));
    assert_eq!(Message::owner(b"\r\n\r\n"), None);
    assert_eq!(Message::owner(b""), None);
}

#[test]
fn what_is_no_message() {
    let check = |raw: &[u8], want: fn(&ParseError) -> bool| {
        let error = Message::parse(Bytes::copy_from_slice(raw)).unwrap_err();
        assert!(want(&error), "{error}: {:?}", String::from_utf8_lossy(&raw[..raw.len().min(80)]));
    };
    for raw in [&b""[..], b"\r\n\r\n", b"\0\0\0\0", b" \t\r\n"] {
        check(raw, |e| *e == ParseError::KeepAlive);
    }
    for raw in [
        "abcd",
        "hello world this is not sip at all\r\n\r\n",
        "OPTIONS sip:b@x\r\n\r\n",
        "OPTIONS  sip:b@x SIP/2.0\r\n\r\n",
        "OPTIONS sip:b@x SIP/2.0",
        "(x) sip:b@x SIP/2.0\r\n",
        "SIP/2.0 99 Low\r\n",
        "SIP/2.0 700 High\r\n",
        "SIP/2.0 2000 Long\r\n",
        "SIP/2.0 20x Odd\r\n",
        "SIP/2.0\r\n",
        "SIP/x 200 OK\r\n",
        "A b SIP/2\r\n",
    ] {
        check(raw.as_bytes(), |e| matches!(e, ParseError::StartLine(_)));
    }
    check(b"BYE sip:b@x SIP/2.0\r\n To: x\r\n\r\n", |e| matches!(e, ParseError::Header(_, 21)));
    check(&[b"BYE sip:b@x SIP/2.0\r\n".as_slice(), &b"X: y\r\n".repeat(MAX_HEADERS + 1)].concat(), |e| {
        *e == ParseError::TooLarge
    });
    check(&[b"BYE sip:b@x SIP/2.0\r\n\r\n".as_slice(), &[b'x'; MAX_MESSAGE]].concat(), |e| {
        *e == ParseError::TooLarge
    });
}

#[test]
fn start_lines() {
    let request = parse("\r\nFoo tel:1 SIP/3.0 \t\r\n\r\n");
    assert_eq!((request.method(), request.method_text()), (Method::Other, "Foo".into()));
    assert_eq!((request.request_uri(), request.version()), ("tel:1".into(), "SIP/3.0".into()));
    assert_eq!(request.start_line().start, 2);
    for (line, reason) in
        [("SIP/2.0 183 In  progress", "In  progress"), ("sip/2.0 183 ", ""), ("SIP/2.0 183", "")]
    {
        let reply = parse(&format!("{line}\r\nCSeq: 1 BYE\r\n\r\n"));
        assert_eq!((reply.status(), reply.reason()), (183, reason.into()), "{line}");
        assert_eq!((reply.method(), reply.method_text()), (Method::Bye, "BYE".into()));
        assert!(!reply.is_request() && reply.request_uri().is_empty());
    }
}

#[test]
fn headers_by_any_spelling() {
    let message = parse(
        "BYE sip:b@x SIP/2.0\r\nSupported: a, b\r\nX-Own: 1\r\nk:c\r\nx-OWN: 2\r\nSUBJECT : \r\nno colon\r\n: empty\r\n\r\n",
    );
    let values = |label: &str| -> Vec<Bytes> {
        message.headers_named(label.as_bytes()).map(|h| message.text(h.value())).collect()
    };
    assert_eq!(values("k"), ["a, b", "c"]);
    assert_eq!(values("sUPPORTED"), ["a, b", "c"]);
    assert_eq!(values("x-own"), ["1", "2"]);
    assert_eq!(values("s"), [""]);
    assert!(values("no colon").is_empty() && values("").is_empty() && values("X").is_empty());
    assert_eq!(message.list(HeaderName::Supported).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    assert_eq!(message.headers().len(), 7);
}

#[test]
fn bodies() {
    let check = |headers: &str, body: &str, want: &str, length: Option<u32>| {
        let message = parse(&format!("BYE sip:b@x SIP/2.0\r\n{headers}\r\n{body}"));
        assert_eq!(message.bytes(message.body()), want.as_bytes(), "{headers}");
        assert_eq!(message.content_length(), length, "{headers}");
    };
    check("l: 5\r\n", "hello", "hello", Some(5));
    check("l: 3\r\n", "hello", "hel", Some(3));
    check("l: 50\r\n", "hello", "hello", Some(50));
    check("", "hello", "hello", None);
    check("l: -1\r\n", "hello", "hello", None);
    check("l: +5\r\n", "hello", "hello", None);
    check("l: 99999999999\r\n", "hello", "hello", None);
    check("l: 4294967295\r\n", "hello", "hello", Some(u32::MAX));
    check("l: 3\r\nl: 5\r\n", "hello", "hel", Some(3));
    check("l: 4\r\n", "\r\n\r\n", "\r\n\r\n", Some(4));
    check("l: 5\r\n", "a\0\r\n\n", "a\0\r\n\n", Some(5));
}

#[test]
fn what_is_mandatory() {
    let lines = ["Via: SIP/2.0/UDP h", "From: <sip:a@b>", "To: <sip:a@b>", "Call-ID: c", "CSeq: 1 BYE"];
    let check = |without: usize, other: &str, want: Result<(), &str>| {
        let mut lines = lines.map(String::from);
        lines[without] = other.into();
        let message = parse(&format!("BYE sip:b@x SIP/2.0\r\n{}\r\n\r\n", lines.join("\r\n")));
        assert_eq!(message.mandatory(), want, "{other}");
    };
    check(0, lines[0], Ok(()));
    for (n, name) in ["Via", "From", "To", "Call-ID", "CSeq"].into_iter().enumerate() {
        check(n, "X: y", Err(name));
    }
    check(4, "CSeq: 1 INVITE", Err("CSeq method"));
    check(4, "CSeq: x BYE", Err("CSeq"));
    check(4, "CSeq: 4294967296 BYE", Err("CSeq"));
    check(3, "Call-ID:", Err("Call-ID"));
    check(2, "To: ><", Err("To"));
}

#[test]
fn tags_and_addresses() {
    let message = parse(
        "BYE sip:b@x SIP/2.0\r\nFrom: <sip:a@b>;TAG=\"q\"\r\nTo: <sip:a@b;tag=uri>;tag=\r\n\
         m: <sip:1@x>, sip:2@x;q=1\r\nContact: *\r\nRoute: <sip:r\r\n\r\n",
    );
    assert_eq!((message.from_tag(), message.to_tag()), (Some("q".into()), None));
    let contacts = message.addresses(HeaderName::Contact).unwrap();
    let texts: Vec<_> = contacts.iter().map(|c| (message.text(c.uri_span), message.text(c.whole))).collect();
    let want = [("sip:1@x", "<sip:1@x>"), ("sip:2@x", "sip:2@x;q=1"), ("*", "*")];
    assert_eq!(texts, want.map(|(uri, whole)| (uri.into(), whole.into())));
    assert!(matches!(message.addresses(HeaderName::Route), Err(ParseError::Header(..))));
    assert!(message.addresses(HeaderName::Path).unwrap().is_empty());
}

#[test]
fn repeated_headers() {
    let check = |headers: &str, want: Option<HeaderName>| {
        assert_eq!(parse(&format!("BYE sip:b@x SIP/2.0\r\n{headers}\r\n")).repeated(), want);
    };
    check("Via: a\r\nVia: b\r\nTo: a\r\nRoute: a\r\nRoute: b\r\n", None);
    check("To: a\r\nFrom: a\r\nt: a\r\n", Some(HeaderName::To));
    check("l: 0\r\nContent-Length: 0\r\n", Some(HeaderName::ContentLength));
}

#[test]
fn what_was_read_follows_when_bytes_change() {
    let text =
        "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa;rport\r\nMax-Forwards: 10\r\n\r\n";
    let mut message = Message::parse(Bytes::from_static(text.as_bytes())).unwrap();
    assert!(message.via().is_some());
    let value = message.header(HeaderName::MaxForwards).unwrap().value();
    assert!(message.overwrite(value, b" 9"));
    // The old bytes are not kept for it, and what else was made of the message stays.
    let via = message.via().unwrap();
    let within = message.buf().as_ptr_range();
    assert!(within.contains(&via.host().as_ptr()) && within.contains(&via.params.text.as_ptr()));
    assert_eq!(
        (via.branch_slice().unwrap(), &via.params.text[..]),
        (&b"z9hG4bKa"[..], &b"branch=z9hG4bKa;rport"[..])
    );
    assert_eq!(message.remembered(1, || Some(7)), Some(7));
    assert!(message.overwrite(value, b"8 "));
    assert_eq!(message.remembered(1, || Some(8)), Some(7));
    // But not when it is what changes.
    let host = message.header(HeaderName::Via).unwrap().value();
    let host = Span { start: host.start + 12, end: host.start + 13 };
    assert!(message.overwrite(host, b"g"));
    assert_eq!((message.via().unwrap().host(), message.remembered(1, || Some(8))), (&b"g"[..], Some(8)));
}
