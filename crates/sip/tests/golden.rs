//! What the reference server answered and relayed, read from `golden/*.jsonl`: one case per line,
//! with the bytes that came in, the edits a script made, and the bytes that went out.

use bytes::Bytes;
use serde_json::Value;
use sip::{
    Anchor, Edits, HeaderName, Message, NameAddr, PrintTarget, ReplyParts, Rport, SocketNames, Uri,
    build_reply, print_reply, print_request,
};

const CALLER: &str = "127.0.0.2:40002";
const NEW_VIA: &str = "Via: SIP/2.0/UDP 127.0.0.1:20001;branch=z9hG4bKnew\r\n";

/// Where the frame of what leaves is ours: the reference passes on lengths that are wrong, line ends before the start
/// line, and a message without its empty line. Over a stream the next server would cut them elsewhere.
const FRAMED_HERE: [&str; 6] = [
    "fwd-content-length-long",
    "hdr-append-no-crlf",
    "parse-relay-leading-crlf",
    "parse-relay-no-empty-line",
    "parse-relay-stateless-cl-too-large",
    "parse-relay-stateless-no-empty-line",
];

fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/golden/{file}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs `have` over all cases of a file and shows every difference at once.
fn check_all(file: &str, have: impl Fn(&Value) -> Value) {
    let mut failures = String::new();
    for case in cases(file) {
        let have = have(&case);
        let ours = match file {
            "request" => FRAMED_HERE.iter().any(|id| case["id"] == *id),
            // A `received` that the sender wrote gives way to the true one.
            _ => case["id"] == "sl-received-existing-param",
        };
        if (have == case["expect"]) == ours {
            let text = |v: &Value| v.as_str().map_or(v.to_string(), |s| s.replace("\r\n", "¶\n    "));
            failures +=
                &format!("{}\n  want {}\n  have {}\n", case["id"], text(&case["expect"]), text(&have));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn bytes(value: &Value) -> Bytes {
    Bytes::copy_from_slice(value.as_str().unwrap().as_bytes())
}

fn string(bytes: impl AsRef<[u8]>) -> Value {
    String::from_utf8(bytes.as_ref().to_vec()).unwrap().into()
}

fn source_params(request: &Message, rport: Rport) -> Bytes {
    request.via().map_or_else(Bytes::new, |via| via.source_params(CALLER.parse().unwrap(), rport))
}

#[test]
fn requests_are_relayed_as_the_reference_does() {
    check_all("request", |case| {
        let request = Message::parse(bytes(&case["raw"])).unwrap();
        let mut edits = Edits::default();
        let mut uri = request.request_uri();
        let mut rport = Rport::AsAsked;
        for edit in case["edits"].as_array().unwrap() {
            let [kind, text, anchor] = [0, 1, 2].map(|n| edit[n].as_str().unwrap());
            if kind == "force_rport" {
                rport = Rport::Forced;
            } else if !edit_header(&request, &mut edits, kind, text, anchor) {
                uri = edit_uri(&uri, kind, text);
            }
        }
        let names = SocketNames { host: "127.0.0.1".into(), port: 20001, transport: "UDP" };
        let target = PrintTarget {
            uri: &uri,
            via: NEW_VIA.as_bytes(),
            via_params: &source_params(&request, rport),
            extra: b"",
            send: &names,
            received: &names,
        };
        string(print_request(&request, &[&edits], &target))
    });
}

/// `append_hf`, `insert_hf` and `remove_hf`; false for another kind.
fn edit_header(request: &Message, edits: &mut Edits, kind: &str, text: &str, anchor: &str) -> bool {
    let named = |name: &str| {
        let same = |h: &&sip::Header| request.bytes(h.label()).eq_ignore_ascii_case(name.as_bytes());
        request.headers().iter().filter(same).copied().collect::<Vec<_>>()
    };
    let near = named(anchor).first().copied();
    let text = Bytes::copy_from_slice(text.as_bytes());
    match kind {
        "append" => edits.insert(near.map_or(Anchor::End, |h| Anchor::At(h.whole().end)), text),
        "insert" => edits.insert(near.map_or(Anchor::Top, |h| Anchor::At(h.whole().start)), text),
        "remove" => named(std::str::from_utf8(&text).unwrap()).iter().for_each(|h| edits.delete(h.whole())),
        _ => return false,
    }
    true
}

fn edit_uri(uri: &Bytes, kind: &str, text: &str) -> Bytes {
    let old = Uri::parse(uri).unwrap();
    match kind {
        "uri" => Bytes::copy_from_slice(text.as_bytes()),
        "user" => old.with_user(text.as_bytes()),
        "userinfo" => old.with_userinfo(text.as_bytes()),
        "host" => old.with_host(text.as_bytes()),
        "hostport" => old.with_hostport(text.as_bytes()),
        "port" => old.with_port(text.parse().ok()),
        other => panic!("{other}"),
    }
}

#[test]
fn replies_are_passed_on_without_our_via() {
    check_all("passed", |case| {
        let passed = case["expect"].as_str().unwrap();
        let line = passed.find("\r\n").unwrap() + 2;
        let reply = [&passed[..line], NEW_VIA, &passed[line..]].concat();
        let names = SocketNames::default();
        string(print_reply(&Message::parse(reply.into()).unwrap(), &Edits::default(), None, &names, &names))
    });
}

#[test]
fn replies_are_built_as_the_reference_does() {
    check_all("reply", |case| {
        let request = Message::parse(bytes(&case["raw"])).unwrap();
        let code = case["code"].as_u64().unwrap() as u16;
        string(build_reply(
            &request,
            &ReplyParts {
                code,
                reason: &bytes(&case["reason"]),
                to_tag: (code > 100).then_some(b"totag"),
                via_params: &source_params(&request, Rport::AsAsked),
                extra: &bytes(&case["extra"]),
                server: b"Fermata",
                body: b"",
                order: sip::HeaderOrder::Fixed,
            },
        ))
    });
}

/// What the script variables of the golden cases show: `$rm|$ru|$rU|$rd|$rp` and so on.
#[test]
fn parts_read_as_the_reference_reads_them() {
    // `$rp` of "host:" is the empty text there; here the port is just absent.
    let differs = |id: &str| id == "parse-ruri-empty-port";
    check_all("parse", |case| {
        if differs(case["id"].as_str().unwrap()) {
            return case["expect"].clone();
        }
        let message = Message::parse(bytes(&case["raw"]));
        let Some(message) = message.ok().filter(|m| m.is_request() && m.answerable().is_ok()) else {
            return Value::Null;
        };
        if message.method() == sip::Method::Ack {
            return Value::Null;
        }
        if case["expect"].as_object().is_none_or(|fields| fields.is_empty()) {
            return serde_json::json!({});
        }
        variables(&message)
    });
}

fn variables(message: &Message) -> Value {
    let text = |b: Option<Bytes>| b.map_or("<null>".into(), |b| String::from_utf8(b.to_vec()).unwrap());
    let some = |b: Bytes| Some(b).filter(|b| !b.is_empty());
    let line = |b: Option<Bytes>| text(b).lines().next().unwrap_or_default().to_string();
    let uri = Uri::parse(&message.request_uri()).ok();
    let request = [
        text(Some(message.method_text())),
        text(uri.as_ref().map(|u| u.text.clone())),
        text(uri.as_ref().and_then(|u| u.user.clone())),
        text(uri.as_ref().and_then(|u| some(u.host.clone()))),
        uri.as_ref().map_or("<null>".into(), |u| u.port_or_default().to_string()),
    ];
    let party = |address: Option<NameAddr>| {
        let uri = address.as_ref().and_then(|a| Uri::parse(&a.uri).ok());
        [
            text(address.as_ref().map(|a| a.uri.clone())),
            text(address.as_ref().and_then(|a| some(a.display.clone()))),
            text(uri.as_ref().and_then(|u| u.user.clone())),
            text(uri.as_ref().and_then(|u| some(u.host.clone()))),
            text(address.as_ref().and_then(|a| a.tag())),
        ]
        .join("|")
    };
    let ids = [
        text(message.value(HeaderName::Contact)),
        text(message.call_id()),
        text(message.cseq_parts().map(|(number, _)| number)),
        message.content_length().map_or("<null>".into(), |n| n.to_string()),
        text(message.value(HeaderName::ContentType)),
        text(message.value(HeaderName::UserAgent)),
    ];
    let named = |name: &[u8]| message.headers_named(name).next().map(|h| message.text(h.value()));
    let subject = named(b"Subject");
    let folded = subject.as_ref().is_some_and(|s| s.contains(&b'\r'));
    let mut general = vec![message.buf().len().to_string(), "127.0.0.2".into(), line(subject)];
    if !folded {
        general.push(text(named(b"X-A")));
    }
    serde_json::json!({
        "X-R": request.join("|"), "X-F": party(message.from()), "X-T": party(message.to()),
        "X-C": ids.join("|"), "X-M": general.join("|"),
    })
}
