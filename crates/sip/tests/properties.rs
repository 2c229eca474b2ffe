//! Properties over arbitrary and over nearly valid input.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use sip::digest::{Challenge, Credentials};
use sip::{
    Anchor, Edits, HeaderName, Message, NameAddr, Params, PrintTarget, ReplyParts, SocketNames, Span,
    StartLine, Uri, Via, build_ack, build_cancel, build_reply, print_reply, print_request,
};

/// Pieces of messages, whole lines and their parts, right and wrong.
const PIECES: &[&str] = &[
    "INVITE sip:bob@example.com SIP/2.0\r\n",
    "SIP/2.0 200 OK\r\n",
    "SIP/2.0 180 \r\n",
    "OPTIONS sip:[::1]:5060;transport=tcp?a=b SIP/3.0 \n",
    "Via: SIP/2.0/UDP h:5060;branch=z9hG4bKa;rport\r\n",
    "v : SIP / 2.0 / TLS [2001:db8::1] , SIP/2.0/UDP b;x=\",\" (c,d)\r\n",
    "From: \"A \\\" B\" <sip:a@b>;tag=1\r\n",
    "t: sip:b@c\r\n ;tag = 2\r\n",
    "Call-ID: abc@def\r\n",
    "i\t:\r\n folded\r\n",
    "CSeq: 1 INVITE\r\n",
    "Contact: *\r\n",
    "m: <sip:a@b;x>;q=0.1,\"<\"<sip:c@d>\r\n",
    "Content-Length: 5\r\n",
    "l: 99999999999\r\n",
    "Route: <sip:r;lr>\r\n",
    "Record-Route: <sip:r;lr>\r\n",
    "NoColonHere\r\n",
    ": empty\r\n",
    "Authorization: Digest username=\"a\", realm=r,nonce=\"\\\"\"\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "=",
    "\"",
    "<",
    ">",
    "(",
    ")",
    "@",
    "[",
    "]",
    "?",
    "%41",
    "\\",
    "\0",
    "é",
    "sip:",
    "tel:+1",
    "urn:service:sos",
    "hello",
    "70000",
];

fn nearly_sip() -> impl Strategy<Value = Bytes> {
    let pieces = vec(select(PIECES), 0..24).prop_map(|list| list.concat());
    let start = select(&PIECES[..4]);
    prop_oneof![
        3 => (start, pieces.clone()).prop_map(|(start, rest)| Bytes::from(format!("{start}{rest}"))),
        1 => pieces.prop_map(Bytes::from),
        1 => vec(any::<u8>(), 0..300).prop_map(Bytes::from),
    ]
}

fn socket() -> SocketNames {
    SocketNames { host: "us".into(), port: 5060, transport: "UDP" }
}

fn print(message: &Message, edits: &Edits, via: &[u8]) -> Bytes {
    let socket = socket();
    let target = PrintTarget { uri: b"", via, via_params: b"", extra: b"", send: &socket, received: &socket };
    print_request(message, &[edits], &target)
}

/// What printing without edits gives: the message up to the end of its body, without line ends before it and blanks
/// after the version, framed anew.
fn as_relayed(message: &Message) -> Vec<u8> {
    let mut head =
        message.buf()[message.start_line().start as usize..message.headers_end() as usize].to_vec();
    if let StartLine::Request { version, .. } = message.start() {
        let end = (version.end - message.start_line().start) as usize;
        let blanks = head[end..].iter().take_while(|&&b| b == b' ' || b == b'\t').count();
        head.drain(end..end + blanks);
    }
    framed(&head, message.bytes(message.body()))
}

/// Lines with CRLF, a right Content-Length in the place of the first one, an empty line: a model of `frame.rs`.
fn framed(head: &[u8], body: &[u8]) -> Vec<u8> {
    let line = |line: &[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text: Vec<u8> = line.iter().map(|&b| if b == b'\r' { b' ' } else { b }).collect();
        let end = line.iter().rposition(|&b| b != b'\r').map_or(0, |at| at + 1);
        let blank = matches!(text.first(), Some(b' ' | b'\t')) && text.trim_ascii().is_empty();
        if end == 0 || blank { Vec::new() } else { [&text[..end], b"\r\n"].concat() }
    };
    let mut headers: Vec<Vec<u8>> = Vec::new();
    for (n, text) in head.split_inclusive(|&b| b == b'\n').enumerate() {
        match (n, text.first()) {
            (2.., Some(b' ' | b'\t')) if headers.len() > 1 => {
                headers.last_mut().unwrap().extend_from_slice(text);
            }
            (1.., Some(b' ' | b'\t')) => {}
            _ => headers.push(text.to_vec()),
        }
    }
    let is_length = |text: &[u8]| {
        let name = text.split(|&b| b == b':' || b == b'\n').next().unwrap();
        text.get(name.len()) == Some(&b':')
            && HeaderName::parse(name.trim_ascii_end()) == HeaderName::ContentLength
    };
    let mut out = Vec::new();
    let lengths: Vec<_> = headers.iter().skip(1).filter(|text| is_length(text)).cloned().collect();
    let kept = matches!(&lengths[..], [one] if !one[..one.len() - 1].contains(&b'\n')
        && one.split(|&b| b == b':').nth(1).is_some_and(|n| n.trim_ascii() == body.len().to_string().as_bytes()));
    let mut written = false;
    for (n, text) in headers.iter().enumerate() {
        if n > 0 && is_length(text) && !kept {
            if !std::mem::replace(&mut written, true) {
                out.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
            }
        } else {
            text.split_inclusive(|&b| b == b'\n').for_each(|text| out.extend(line(text)));
        }
    }
    [&out[..], b"\r\n", body].concat()
}

/// The same cases every time; the fuzz targets look for new ones.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(4475),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_accessor_takes_any_message(raw in nearly_sip()) {
        let Ok(message) = Message::parse(raw.clone()) else { return Ok(()) };
        let mut at = message.start_line().end;
        for header in message.headers() {
            prop_assert_eq!(header.whole().start, at);
            prop_assert!(header.whole().contains(header.label()) && header.whole().contains(header.value()));
            at = header.whole().end;
            let text = message.text(header.value());
            for address in NameAddr::parse_list(&text).unwrap_or_default() {
                prop_assert_eq!(text.slice(address.uri_span.range()), address.uri.clone());
                let _ = (address.display_text(), address.tag(), Uri::parse(&address.uri).is_ok());
            }
            let _ = (Credentials::parse(&text).is_ok(), Challenge::parse(&text).is_ok());
        }
        prop_assert_eq!(message.headers_end(), at);
        prop_assert!(message.body().start >= at && message.body().end as usize <= raw.len());
        for via in message.vias() {
            prop_assert!(via.whole.start <= via.sent_by_end && via.sent_by_end <= via.whole.end);
            let _ = (via.rport(), via.ip(), via.transport());
        }
        prop_assert_eq!(Message::owner(&raw).map(<[u8]>::to_vec), message.call_id().map(|id| id.to_vec()));
        prop_assert_eq!(Message::via_branch(&raw), message.via().and_then(|via| via.branch()));
        prop_assert_eq!(Message::looks_like_reply(&raw), !message.is_request());
        let _ = (message.method(), message.cseq(), message.mandatory(), message.answerable(), message.repeated());
        let _ = (message.addresses(HeaderName::Contact).is_ok(), message.list(HeaderName::Supported).count());
    }

    #[test]
    fn owner_takes_any_bytes(raw in vec(any::<u8>(), 0..200)) {
        let _ = Message::owner(&raw);
    }

    #[test]
    fn printing_changes_nothing_but_the_via(raw in nearly_sip()) {
        let Ok(message) = Message::parse(raw) else { return Ok(()) };
        prop_assert_eq!(print(&message, &Edits::default(), b""), as_relayed(&message));
        if message.is_request() {
            let via = b"Via: SIP/2.0/UDP us;branch=z9hG4bKnew\r\n";
            let printed = print(&message, &Edits::default(), via);
            let again = Message::parse(printed).unwrap();
            prop_assert_eq!(again.via().unwrap().host(), b"us");
            // Of several lengths one is left.
            let count = |m: &Message| m.headers().iter().filter(|h| h.name != HeaderName::ContentLength).count();
            prop_assert_eq!(count(&again), count(&message) + 1);
        }
    }

    /// Whatever comes in, and whatever a script adds, leaves as one message: the next hop, which may be strict, cuts it
    /// where it ends and finds the body that was read here.
    #[test]
    fn what_leaves_is_one_message(
        raw in nearly_sip(),
        added in vec((0u32..300, select(PIECES), any::<bool>()), 0..3),
        body in proptest::option::of("[a-z\r\n]{0,9}"),
        transport in select(&["UDP", "TCP", "TLS", "WS"][..]),
    ) {
        let Ok(message) = Message::parse(raw) else { return Ok(()) };
        let mut edits = Edits::default();
        for (place, text, at_end) in added {
            let mut lines = message.headers().iter().map(|header| header.whole().end);
            let place = lines.rfind(|end| *end <= place).unwrap_or(message.start_line().end);
            edits.insert(if at_end { Anchor::End } else { Anchor::At(place) }, text);
        }
        if let Some(body) = &body {
            edits.set_body(body.clone().into());
        }
        let send = SocketNames { transport, ..socket() };
        let printed = if message.is_request() {
            let via = b"Via: SIP/2.0/UDP us;branch=z9hG4bKnew\r\n";
            let target = PrintTarget { uri: b"", via, via_params: b"", extra: b"", send: &send, received: &send };
            print_request(&message, &[&edits], &target)
        } else {
            print_reply(&message, &edits, None, &send, &send)
        };
        let end = printed.windows(4).position(|w| w == b"\r\n\r\n").expect("an empty line") + 4;
        let (head, rest) = printed.split_at(end);
        let lines: Vec<&[u8]> = head.split(|&b| b == b'\n').collect();
        for line in &lines[..lines.len() - 1] {
            let cr = line.iter().position(|&b| b == b'\r');
            prop_assert_eq!(cr, Some(line.len() - 1), "a bare CR or LF in {:?}", printed);
        }
        let again = Message::parse(printed.clone()).unwrap();
        let want = body.map_or(message.text(message.body()), Bytes::from);
        prop_assert_eq!(again.text(again.body()), want.clone());
        prop_assert_eq!(rest, &want[..]);
        let lengths = again.headers_of(HeaderName::ContentLength).count();
        prop_assert!(lengths == 1 || lengths == 0 && transport == "UDP");
        prop_assert!(lengths == 0 || again.content_length() == Some(want.len() as u32));
    }

    #[test]
    fn a_via_put_on_a_reply_comes_off_again(raw in nearly_sip()) {
        let Ok(message) = Message::parse(raw) else { return Ok(()) };
        if message.is_request() || message.via().is_none() {
            return Ok(());
        }
        let with_via = Message::parse(print(&message, &Edits::default(), b"Via: SIP/2.0/UDP us\r\n")).unwrap();
        let without = print_reply(&with_via, &Edits::default(), None, &socket(), &socket());
        prop_assert_eq!(without, as_relayed(&Message::parse(print(&message, &Edits::default(), b"")).unwrap()));
    }

    #[test]
    fn built_messages_parse(raw in nearly_sip(), code in 100u16..700) {
        let Ok(message) = Message::parse(raw) else { return Ok(()) };
        let params = message.via().map_or_else(Bytes::new, |via| {
            via.source_params("10.0.0.1:5060".parse().unwrap(), sip::Rport::Forced)
        });
        let parts = ReplyParts { code, reason: b"Why", to_tag: Some(b"t"), via_params: &params, ..ReplyParts::default() };
        let reply = Message::parse(build_reply(&message, &parts)).unwrap();
        prop_assert_eq!(reply.status(), code);
        prop_assert_eq!(reply.call_id(), message.call_id());
        if message.is_request() {
            prop_assert!(Message::parse(build_ack(&message, &reply, b"")).is_ok());
            prop_assert!(Message::parse(build_cancel(&message, b"")).is_ok());
        }
    }

    /// Against a model: bytes marked as deleted, texts collected for each place; what begins inside an
    /// earlier deletion is gone.
    #[test]
    fn edits_do_what_they_say(
        deleted in vec((0usize..120, 0usize..30), 0..6),
        inserted in vec((0usize..140, "[a-z]{1,5}"), 0..6),
    ) {
        let raw = "BYE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP host.example.com;branch=1\r\n\
                   Subject: something or other\r\nX-Other: more of this\r\n\r\n";
        let message = Message::parse(raw.into()).unwrap();
        let end = message.headers_end() as usize;
        let mut edits = Edits::default();
        let mut kept = vec![true; raw.len()];
        let mut texts = vec![String::new(); end + 1];
        let mut hidden = vec![false; end + 1];
        let mut spans: Vec<_> = deleted.iter().map(|(at, n)| ((*at).min(end), (at + n).min(end))).collect();
        for (start, stop) in &spans {
            edits.delete(Span::new(*start, *stop));
        }
        spans.retain(|(start, stop)| start < stop);
        spans.sort();
        for (start, stop) in spans {
            if !hidden[start] {
                kept[start..stop].fill(false);
                hidden[start + 1..stop].fill(true);
            }
        }
        for (place, text) in inserted {
            let place = place.min(end);
            if !hidden[place] {
                texts[place] += &text;
            }
            edits.insert(Anchor::At(place as u32), text);
        }
        let mut want = String::new();
        for (n, letter) in raw.char_indices() {
            want += texts.get(n).map_or("", |text| text);
            if kept[n] {
                want.push(letter);
            }
        }
        let want = framed(want.as_bytes(), b"");
        let have = print(&message, &edits, b"");
        prop_assert_eq!(String::from_utf8_lossy(&have), String::from_utf8_lossy(&want));
    }

    #[test]
    fn any_text_parses_or_not(text in vec(select(PIECES), 0..8).prop_map(|list| list.concat())) {
        let text = Bytes::from(text);
        if let Ok(uri) = Uri::parse(&text) {
            prop_assert!(uri.equals(&uri));
            check_builders(&uri)?;
        }
        let _ = (NameAddr::parse(&text), Via::parse(&text), Params { text }.iter().count());
    }

    #[test]
    fn built_uris_parse(
        user in "[a-z;?/%]{0,6}", password in "(:[a-z]{0,4})?", host in "([a-z]{1,6}|10\\.0\\.0\\.1|\\[::1\\])",
        port in "(:[0-9]{1,4})?", params in "(;[a-z]{1,5}(=[a-z0-9]{0,3})?){0,3}", headers in "(\\?[a-z]=[a-z]{0,3})?",
    ) {
        let at = if user.is_empty() { "" } else { "@" };
        let userinfo = if user.is_empty() { String::new() } else { user + &password };
        let text = Bytes::from(format!("sip:{userinfo}{at}{host}{port}{params}{headers}"));
        let uri = Uri::parse(&text).unwrap();
        prop_assert!(uri.equals(&uri));
        check_builders(&uri)?;
    }
}

/// Builders change their part and no other.
fn check_builders(uri: &Uri) -> Result<(), TestCaseError> {
    if matches!(uri.scheme, sip::Scheme::Urn | sip::Scheme::Tel | sip::Scheme::Tels) {
        return Ok(());
    }
    let parse = |text: Bytes| Uri::parse(&text).map_err(|e| TestCaseError::fail(format!("{text:?}: {e}")));
    let user = parse(uri.with_user(b"new"))?;
    prop_assert_eq!(&user.user.as_deref(), &Some(&b"new"[..]));
    prop_assert_eq!(
        (&user.host, user.port, &user.params, &user.headers),
        (&uri.host, uri.port, &uri.params, &uri.headers)
    );
    let host = parse(uri.with_host(b"new"))?;
    prop_assert_eq!((&host.host[..], host.port, &host.user), (&b"new"[..], uri.port, &uri.user));
    let port = parse(uri.with_port(Some(7)))?;
    prop_assert_eq!((&port.host, port.port, &port.params), (&uri.host, 7, &uri.params));
    let param = parse(uri.with_param(b"new", Some(Some(b"1"))))?;
    prop_assert_eq!(param.params.value(b"new"), Some(Bytes::from_static(b"1")));
    prop_assert!(!parse(param.with_param(b"NEW", None))?.params.has(b"new"));
    let bare = parse(uri.without_headers())?;
    prop_assert!(bare.headers.is_empty());
    Ok(())
}
