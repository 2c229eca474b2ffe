use super::*;

const REQUEST: &str = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=1, SIP/2.0/TCP i\r\nTo: <sip:b@x>\r\n\
                       Subject: s\r\nRoute: <sip:r;lr>\r\nl: 5\r\n\r\nhello";

fn names(host: &'static str, transport: &'static str) -> SocketNames {
    SocketNames { host: host.into(), port: 5060, transport }
}

fn parse(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

/// Prints `text` with `edit` applied over `send`, everything else as received, and compares with
/// `text` after the textual replacements.
fn check_over(
    send: &SocketNames,
    text: &str,
    edit: impl Fn(&Message, &mut Edits),
    replaced: &[(&str, &str)],
) {
    let msg = parse(text);
    let mut edits = Edits::default();
    edit(&msg, &mut edits);
    let received = names("10.0.0.1", "UDP");
    let target = PrintTarget { uri: b"", via: b"", via_params: b"", extra: b"", send, received: &received };
    let mut want = text.to_string();
    for (from, to) in replaced {
        assert!(want.contains(from), "{from}");
        want = want.replacen(from, to, 1);
    }
    let have = print_request(&msg, &[&edits], &target);
    assert_eq!(String::from_utf8_lossy(&have), want);
}

fn check(text: &str, edit: impl Fn(&Message, &mut Edits), replaced: &[(&str, &str)]) {
    check_over(&names("10.0.0.1", "UDP"), text, edit, replaced);
}

fn header(msg: &Message, label: &str) -> crate::Header {
    *msg.headers_named(label.as_bytes()).next().unwrap()
}

#[test]
fn inserts_keep_their_order() {
    check(
        REQUEST,
        |msg, edits| {
            let at = Anchor::At(header(msg, "Subject").whole().end);
            edits.insert(Anchor::End, "X-E1: 1\r\n");
            edits.insert(at, "X-M1: 1\r\n");
            edits.insert(Anchor::Top, "X-T1: 1\r\n");
            edits.insert(Anchor::Top, "X-T2: 2\r\n");
            edits.insert(at, "X-M2: 2\r\n");
            edits.insert_first(Anchor::Top, vec![Piece::Text("X-T0: 0\r\n".into())]);
            edits.insert(Anchor::End, "X-E2: 2\r\n");
        },
        &[
            ("Via", "X-T0: 0\r\nX-T1: 1\r\nX-T2: 2\r\nVia"),
            ("Route", "X-M1: 1\r\nX-M2: 2\r\nRoute"),
            ("\r\n\r\n", "\r\nX-E1: 1\r\nX-E2: 2\r\n\r\n"),
        ],
    );
}

#[test]
fn deletions_and_inserts_meet() {
    let line = "Subject: s\r\n";
    check(REQUEST, |m, e| e.delete(header(m, "Subject").whole()), &[(line, "")]);
    check(REQUEST, |m, e| e.replace(header(m, "s").value(), "new"), &[("Subject: s", "Subject: new")]);
    check(
        REQUEST,
        |m, e| {
            let subject = header(m, "s");
            e.delete(subject.value());
            e.delete(subject.whole());
            e.delete(header(m, "To").whole());
            e.delete(subject.whole());
            e.insert(Anchor::At(subject.value().start), "X: inside\r\n");
            e.insert(Anchor::At(subject.whole().start), "Z: before\r\n");
            e.insert(Anchor::At(subject.whole().end), "Y: after\r\n");
        },
        &[("To: <sip:b@x>\r\n", ""), (line, "Z: before\r\nY: after\r\n")],
    );
    check(
        REQUEST,
        |m, e| e.delete(Span { start: m.start_line().end, end: m.buf().len() as u32 + 9 }),
        &[(&REQUEST[REQUEST.find("Via").unwrap()..], "Content-Length: 0\r\n\r\n")],
    );
}

#[test]
fn a_change_inside_a_removed_header_is_gone() {
    check(
        REQUEST,
        |m, e| {
            e.replace(header(m, "s").value(), "new");
            e.delete(header(m, "s").whole());
        },
        &[("Subject: s\r\n", "")],
    );
    check(
        REQUEST,
        |m, e| {
            let subject = header(m, "s");
            e.delete(Span { start: subject.value().start, end: subject.whole().end + 3 });
            e.replace(Span { start: subject.whole().end + 1, end: subject.whole().end + 9 }, "gone");
        },
        &[("s\r\nRou", "")],
    );
}

#[test]
fn a_changed_length_line_gives_way() {
    check(
        REQUEST,
        |m, e| {
            e.insert(Anchor::At(header(m, "l").whole().start), "X: 1\r\n");
            e.replace(header(m, "l").value(), "999");
            e.set_body("abc".into());
        },
        &[("l: 5", "X: 1\r\nContent-Length: 3"), ("hello", "abc")],
    );
}

#[test]
fn the_body_alone() {
    let msg = parse(REQUEST);
    let mut edits = Edits::default();
    assert_eq!(edited_body(&msg, &edits), "hello");
    edits.replace(Span { start: msg.body().start, end: msg.body().start + 1 }, "J");
    assert_eq!(edited_body(&msg, &edits), "Jello");
    edits.set_body("all new".into());
    assert_eq!(edited_body(&msg, &edits), "all new");
}

#[test]
fn the_length_follows_the_body() {
    check(
        REQUEST,
        |_, e| e.set_body("other body".into()),
        &[("l: 5", "Content-Length: 10"), ("hello", "other body")],
    );
    check(REQUEST, |_, e| e.set_body(Bytes::new()), &[("l: 5", "Content-Length: 0"), ("hello", "")]);
    check(
        REQUEST,
        |m, e| e.replace(Span { start: m.body().start, end: m.body().start + 1 }, "J"),
        &[("hello", "Jello")],
    );
    check(
        REQUEST,
        |m, e| {
            e.delete(Span { start: m.body().start, end: m.body().start + 1 });
            e.insert(Anchor::At(m.body().end), "!?!");
        },
        &[("l: 5", "Content-Length: 7"), ("hello", "ello!?!")],
    );
    let without = REQUEST.replace("l: 5\r\n", "");
    check(&without, |_, e| e.set_body("ab".into()), &[("hello", "ab")]);
    let first = without.replace("hello", "");
    let added = ("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nab");
    check(&first, |_, e| e.set_body("ab".into()), &[added]);
    check(&without, |_, _| {}, &[]);
    check_over(
        &names("10.0.0.1", "TCP"),
        &without,
        |_, _| {},
        &[("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n")],
    );
    let twice = REQUEST.replace("l: 5", "l: 5\r\nContent-Length: 4");
    check(
        &twice,
        |_, e| e.set_body("abc".into()),
        &[("l: 5\r\nContent-Length: 4", "Content-Length: 3"), ("hello", "abc")],
    );
}

#[test]
fn a_wrong_length_is_mended() {
    let long = REQUEST.replace("l: 5", "l: 50");
    check(&long, |_, _| {}, &[("l: 50", "Content-Length: 5")]);
    check(&long, |_, e| e.set_body("abc".into()), &[("l: 50", "Content-Length: 3"), ("hello", "abc")]);
    let garbage = REQUEST.replace("l: 5", "l: x");
    check(&garbage, |_, e| e.set_body("abc".into()), &[("l: x", "Content-Length: 3"), ("hello", "abc")]);
    let short = REQUEST.replace("l: 5", "l: 2");
    check(&short, |_, _| {}, &[("hello", "he")]);
    let folded = REQUEST.replace("l: 5", "Content-Length:\r\n 5");
    check(&folded, |_, _| {}, &[("Content-Length:\r\n 5", "Content-Length: 5")]);
    let twice = REQUEST.replace("l: 5", "l: 5\r\nSubject: t\r\nContent-length : 77");
    check(&twice, |_, _| {}, &[("l: 5", "Content-Length: 5"), ("Content-length : 77\r\n", "")]);
}

/// What is no header for us, and would be one, or the end of the head, for who trims or joins lines first.
#[test]
fn what_others_would_read_otherwise_does_not_leave() {
    let hidden = REQUEST.replace("l: 5", "Content-Length\r\n : 0\r\nl: 5");
    check(&hidden, |_, _| {}, &[("Content-Length\r\n : 0\r\n", "")]);
    let blank = REQUEST.replace("l: 5", "X: 1\r\n \t\r\nl: 5");
    check(&blank, |_, _| {}, &[(" \t\r\n", "")]);
}

/// However a message was framed when it came, and whatever a script adds.
#[test]
fn what_leaves_is_framed() {
    for send in [names("10.0.0.1", "UDP"), names("10.0.0.1", "TCP"), names("10.0.0.1", "WS")] {
        let check = |text: &str, want: &str| {
            let msg = parse(text);
            let edits = Edits::default();
            let target =
                PrintTarget { uri: b"", via: b"", via_params: b"", extra: b"", send: &send, received: &send };
            let have = print_request(&msg, &[&edits], &target);
            assert_eq!(String::from_utf8_lossy(&have), want, "{text:?}");
        };
        check(&REQUEST.replace("\r\n", "\n"), REQUEST);
        check(
            &REQUEST.replace("x\r\n", "x\n").replace("hello", "hello\r\n\r\nINVITE"),
            &REQUEST.replace("x\n", "x\r\n"),
        );
        check(&format!("\r\n\n\r\n{REQUEST}"), REQUEST);
        check(&REQUEST.replace("x SIP/2.0\r\n", "x SIP/2.0 \r\r\t\r\n"), REQUEST);
        check("BYE sip:b@x SIP/2.0\nTo: x\nl: 0\n", "BYE sip:b@x SIP/2.0\r\nTo: x\r\nl: 0\r\n\r\n");
        check(
            "BYE sip:b@x SIP/2.0\nTo: x\r\ry\r\r\nl: 0\n\n",
            "BYE sip:b@x SIP/2.0\r\nTo: x  y\r\nl: 0\r\n\r\n",
        );
    }
    let framed = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=1, SIP/2.0/TCP i\r\n";
    for text in ["X: 1", "X: 1\n", "\r\nX: 1\r\n\r\n", "X: 1\r\nContent-Length: 99\r\n", " \r\n \nX: 1\r\r\n"]
    {
        let msg = parse(REQUEST);
        let mut edits = Edits::default();
        edits.insert(Anchor::Top, text);
        edits.insert(Anchor::End, text);
        let send = names("10.0.0.1", "UDP");
        let target =
            PrintTarget { uri: b"", via: b"", via_params: b"", extra: b"", send: &send, received: &send };
        let have = print_request(&msg, &[&edits], &target);
        let again = Message::parse(have.clone()).unwrap();
        assert!(
            have.starts_with(&framed.as_bytes()[..20]) && again.bytes(again.body()) == b"hello",
            "{have:?}"
        );
        assert_eq!(again.headers_of(HeaderName::ContentLength).count(), 1, "{have:?}");
        assert_eq!(again.content_length(), Some(5), "{have:?}");
    }
}

#[test]
fn headers_of_carriage_returns_are_refused() {
    for text in ["BYE sip:b@x SIP/2.0\r\n\rl: 5\r\n\r\n", "BYE sip:b\rx@x SIP/2.0\r\nTo: x\r\n\r\n"] {
        assert!(Message::parse(Bytes::copy_from_slice(text.as_bytes())).is_err(), "{text:?}");
    }
}

#[test]
fn removing_content_length_needs_a_replacement() {
    check(REQUEST, |m, e| e.delete(header(m, "l").whole()), &[]);
    check(
        REQUEST,
        |m, e| e.replace(header(m, "l").whole(), "Content-Length: 5\r\n"),
        &[("l: 5", "Content-Length: 5")],
    );
}

#[test]
fn pieces_name_the_sockets() {
    let double = |_: &Message, edits: &mut Edits| {
        let route = |host, transport| {
            vec![Piece::Text("Record-Route: <sip:".into()), host, transport, Piece::Text(";lr>\r\n".into())]
        };
        edits.insert_pieces(Anchor::Top, route(Piece::SendHostPort, Piece::SendTransport));
        let inner = route(Piece::ReceivedHostPort, Piece::ReceivedTransport);
        edits.insert_pieces(Anchor::Top, vec![Piece::IfSocketsDiffer(inner)]);
    };
    let via = |lines: &str| format!("{lines}Via");
    let one = via("Record-Route: <sip:10.0.0.1:5060;lr>\r\n");
    check(REQUEST, double, &[("Via", &one)]);
    let two =
        via("Record-Route: <sip:10.0.0.2:5060;transport=tls;lr>\r\nRecord-Route: <sip:10.0.0.1:5060;lr>\r\n");
    check_over(&names("10.0.0.2", "TLS"), REQUEST, double, &[("Via", &two)]);
}

fn print_with(text: &str, base: &Edits, branch: &Edits, via_params: &str) -> String {
    let socket = names("10.0.0.1", "UDP");
    let target = PrintTarget {
        uri: b"sip:new@y",
        via: b"Via: SIP/2.0/UDP us\r\n",
        via_params: via_params.as_bytes(),
        extra: b"Route: <sip:path;lr>\r\n",
        send: &socket,
        received: &socket,
    };
    String::from_utf8(print_request(&parse(text), &[base, branch], &target).to_vec()).unwrap()
}

#[test]
fn a_branch_adds_to_the_base() {
    let (mut base, mut branch) = (Edits::default(), Edits::default());
    branch.insert(Anchor::Top, "X-B: 1\r\n");
    base.insert(Anchor::Top, "X-A: 1\r\n");
    base.set_body("base".into());
    branch.set_body("branch".into());
    let want = "INVITE sip:new@y SIP/2.0\r\nX-A: 1\r\nX-B: 1\r\nVia: SIP/2.0/UDP us\r\n\
                Via: SIP/2.0/UDP h;received=1.2.3.4;branch=1, SIP/2.0/TCP i\r\nTo: <sip:b@x>\r\nSubject: s\r\n\
                Route: <sip:path;lr>\r\nRoute: <sip:r;lr>\r\nContent-Length: 6\r\n\r\nbranch";
    assert_eq!(print_with(REQUEST, &base, &branch, ";received=1.2.3.4"), want);
}

#[test]
fn path_goes_after_via_without_a_route() {
    let text =
        "BYE sip:b@x SIP/2.0\r\nMax-Forwards: 1\r\nVia: SIP/2.0/UDP h\r\nv: SIP/2.0/UDP i\r\nTo: x\r\n\r\n";
    let want = "BYE sip:new@y SIP/2.0\r\nMax-Forwards: 1\r\nVia: SIP/2.0/UDP us\r\nVia: SIP/2.0/UDP h\r\n\
                v: SIP/2.0/UDP i\r\nRoute: <sip:path;lr>\r\nTo: x\r\n\r\n";
    assert_eq!(print_with(text, &Edits::default(), &Edits::default(), ""), want);
    let bare = "BYE sip:b@x SIP/2.0\r\nTo: x\r\n\r\n";
    let want = "BYE sip:new@y SIP/2.0\r\nVia: SIP/2.0/UDP us\r\nRoute: <sip:path;lr>\r\nTo: x\r\n\r\n";
    assert_eq!(print_with(bare, &Edits::default(), &Edits::default(), ";rport=1"), want);
}

#[test]
fn via_parameters() {
    for (via, params, want) in [
        ("h", ";received=1.1.1.1;rport=7", "h;rport=7;received=1.1.1.1"),
        ("h:5062 ;branch=b", ";received=1.1.1.1", "h:5062;received=1.1.1.1 ;branch=b"),
        ("h;rport;branch=b", ";received=1.1.1.1;rport=7", "h;received=1.1.1.1;rport=7;branch=b"),
        ("h;branch=b;rport", ";rport=7", "h;branch=b;rport=7"),
        ("h;RPORT = 9 ;x", ";rport=7", "h;RPORT=7 ;x"),
        ("h;rport=;x", ";rport=7", "h;rport=7;x"),
        ("h;x=\";rport\"", ";rport=7", "h;rport=7;x=\";rport\""),
        ("h;rport (c)", ";rport=7", "h;rport=7 (c)"),
        ("[::1]:5060;rport, SIP/2.0/UDP i;rport", ";rport=7", "[::1]:5060;rport=7, SIP/2.0/UDP i;rport"),
        ("h;;", ";rport=7", "h;;"),
    ] {
        let text = format!("BYE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\n\r\n");
        let have = print_with(&text, &Edits::default(), &Edits::default(), params);
        assert!(have.contains(&format!("\r\nVia: SIP/2.0/UDP {want}\r\n")), "{via}: {have}");
    }
}

/// What the sender says of itself is not where it was seen.
#[test]
fn received_is_said_once() {
    for (via, want) in [
        ("h;received=9.9.9.9;branch=1", "h;received=1.1.1.1;branch=1"),
        ("h;branch=1;received = [::9] ;x", "h;branch=1;received=1.1.1.1 ;x"),
        ("h;received;branch=1", "h;received=1.1.1.1;branch=1"),
    ] {
        let text = format!("BYE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\nTo: x\r\n\r\n");
        let have = print_with(&text, &Edits::default(), &Edits::default(), ";received=1.1.1.1");
        assert!(have.contains(&format!("\r\nVia: SIP/2.0/UDP {want}\r\n")), "{via}: {have}");
    }
}

#[test]
fn a_deleted_via_gets_no_parameters() {
    let text = "BYE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;rport\r\nTo: x\r\n\r\n";
    let mut edits = Edits::default();
    edits.delete(header(&parse(text), "Via").whole());
    let have = print_with(text, &edits, &Edits::default(), ";received=1.1.1.1;rport=7");
    assert_eq!(have, "BYE sip:new@y SIP/2.0\r\nVia: SIP/2.0/UDP us\r\nRoute: <sip:path;lr>\r\nTo: x\r\n\r\n");
}

#[test]
fn cut_off_messages_are_completed() {
    for text in ["BYE sip:b@x SIP/2.0\r\nTo: x", "BYE sip:b@x SIP/2.0\r\nTo: x\r\n"] {
        let mut edits = Edits::default();
        edits.insert(Anchor::End, "X: 1\r\n");
        let have = print_with(text, &edits, &Edits::default(), "");
        assert!(have.ends_with("To: x\r\nX: 1\r\n\r\n"), "{have}");
    }
}

#[test]
fn a_cut_off_via_gets_its_parameters() {
    for (via, want) in [("h", "h;received=1.1.1.1"), ("h;rport", "h;received=1.1.1.1;rport=7")] {
        let text = format!("BYE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP {via}");
        let params = if via == "h" { ";received=1.1.1.1" } else { ";received=1.1.1.1;rport=7" };
        let have = print_with(&text, &Edits::default(), &Edits::default(), params);
        assert!(have.contains(&format!("UDP {want}\r\nRoute: ")), "{have}");
    }
}

#[test]
fn replies_lose_their_top_via() {
    let check = |vias: &str, status: Option<(u16, &str)>, want: &str| {
        let reply = parse(&format!("SIP/2.0 200 OK\r\n{vias}To: x\r\nl: 0\r\n\r\n"));
        let mut edits = Edits::default();
        edits.insert(Anchor::Top, "X: 1\r\n");
        let socket = names("h", "UDP");
        let status = status.map(|(code, reason)| (code, reason.as_bytes()));
        let have = print_reply(&reply, &edits, status, &socket, &socket);
        assert_eq!(String::from_utf8_lossy(&have), format!("{want}To: x\r\nl: 0\r\n\r\n"));
    };
    check(
        "Via: SIP/2.0/UDP a\r\nv: SIP/2.0/UDP b\r\n",
        None,
        "SIP/2.0 200 OK\r\nX: 1\r\nv: SIP/2.0/UDP b\r\n",
    );
    check(
        "Via: SIP/2.0/UDP a,\r\n SIP/2.0/UDP b\r\n",
        None,
        "SIP/2.0 200 OK\r\nX: 1\r\nVia: SIP/2.0/UDP b\r\n",
    );
    check("Via: SIP/2.0/UDP a\r\n", Some((500, "Gone wrong")), "SIP/2.0 500 Gone wrong\r\nX: 1\r\n");
    check("", None, "SIP/2.0 200 OK\r\nX: 1\r\n");
}

#[test]
fn edits_can_be_asked_and_taken_back() {
    let msg = parse(REQUEST);
    let mut edits = Edits::default();
    assert!(edits.is_empty());
    let subject = header(&msg, "Subject");
    edits.delete(subject.whole());
    assert!(edits.is_deleted(subject.value()) && !edits.is_deleted(header(&msg, "To").whole()));
    edits.insert(Anchor::End, "X: 1\r\n");
    edits.insert_pieces(Anchor::End, vec![Piece::Text("Y: ".into()), Piece::SendHostPort]);
    edits.retain_inserted(|text| !text.starts_with(b"X"));
    assert_eq!(edits.inserted().map(|(_, text)| text).collect::<Vec<_>>(), ["Y: "]);
    edits.undelete(subject.whole());
    assert!(!edits.is_deleted(subject.value()));
}
