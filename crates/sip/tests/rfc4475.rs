//! The 49 torture messages of RFC 4475, bit-exact from its appendix, with what this crate says of
//! each. Where the RFC leaves a choice, the comment says which one was taken.

use bytes::Bytes;
use sip::{
    Edits, HeaderName, Message, ParseError, PrintTarget, SocketNames, StartLine, Uri, UriError, print_reply,
    print_request,
};

/// What an element can tell from the message alone.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// To be processed like any other.
    Fine,
    /// Not to be indexed at all.
    Refused,
    /// 400: the header that is missing or unreadable, or what else is wrong.
    Bad(&'static str),
    /// 400: the header stands twice.
    Twice(HeaderName),
    /// 416
    UnknownScheme,
    /// 505
    Version,
}
use Verdict::{Bad, Fine, Refused, Twice, UnknownScheme, Version};

const VERDICTS: [(&str, Verdict); 49] = [
    // 3.1.1 valid messages
    ("wsinv", Fine),
    ("intmeth", Fine),
    ("esc01", Fine),
    ("escnull", Fine),
    ("esc02", Fine),
    ("lwsdisp", Fine),
    ("longreq", Fine),
    ("dblreq", Fine),
    ("semiuri", Fine),
    ("transports", Fine),
    ("mpart01", Fine),
    ("unreason", Fine),
    ("noreason", Fine),
    // 3.1.2 invalid messages
    ("badinv01", Bad("Via")),
    ("clerr", Bad("body shorter than Content-Length")),
    ("ncl", Bad("Content-Length")),
    ("scalar02", Bad("CSeq")),
    ("scalarlg", Bad("CSeq")),
    ("quotbal", Bad("To")),
    ("ltgtruri", Bad("Request-URI")),
    ("lwsruri", Refused),
    ("lwsstart", Refused),
    // Liberal: the blanks are dropped when the request is relayed.
    ("trws", Fine),
    // Liberal, as the reference; `Uri::without_headers` drops them.
    ("escruri", Fine),
    // Liberal: nobody looks at Date.
    ("baddate", Fine),
    // Liberal: the brackets are inferred.
    ("regbadct", Fine),
    ("badaspec", Bad("To URI")),
    // Liberal: the quotes are inferred.
    ("baddn", Fine),
    ("badvers", Version),
    ("mismatch01", Bad("CSeq method")),
    ("mismatch02", Bad("CSeq method")),
    ("bigcode", Refused),
    // 3.2 transaction layer: the branch is for that layer to judge
    ("badbranch", Fine),
    // 3.3 application layer
    ("insuf", Bad("From")),
    ("unkscm", UnknownScheme),
    ("novelsc", UnknownScheme),
    ("unksm2", Fine),
    ("bext01", Fine),
    ("invut", Fine),
    ("regaut01", Fine),
    ("multi01", Twice(HeaderName::CSeq)),
    ("mcl01", Twice(HeaderName::ContentLength)),
    ("bcast", Fine),
    ("zeromf", Fine),
    ("cparam01", Fine),
    ("cparam02", Fine),
    ("regescrt", Fine),
    ("sdp01", Fine),
    // 3.4 backward compatibility
    ("inv2543", Fine),
];

fn raw(name: &str) -> Bytes {
    std::fs::read(format!("{}/tests/rfc4475/{name}.dat", env!("CARGO_MANIFEST_DIR"))).unwrap().into()
}

fn parse(name: &str) -> Message {
    Message::parse(raw(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn judge(message: &Message) -> Verdict {
    if let Err(what) = message.mandatory() {
        return Bad(what);
    }
    if let Some(name) = message.repeated() {
        return Twice(name);
    }
    if message.header(HeaderName::ContentLength).is_some() {
        match message.content_length() {
            None => return Bad("Content-Length"),
            Some(length) if length as usize > message.body().len() => {
                return Bad("body shorter than Content-Length");
            }
            Some(_) => {}
        }
    }
    if message.version() != "SIP/2.0" {
        return Version;
    }
    let malformed = |uri: &Bytes| Uri::parse(uri).is_err_and(|e| e != UriError::UNKNOWN_SCHEME);
    if malformed(&message.to().unwrap().uri) {
        return Bad("To URI");
    }
    match message.start() {
        StartLine::Reply { .. } => Fine,
        StartLine::Request { .. } => match Uri::parse(&message.request_uri()) {
            Ok(_) => Fine,
            Err(UriError::UNKNOWN_SCHEME) => UnknownScheme,
            Err(_) => Bad("Request-URI"),
        },
    }
}

#[test]
fn verdicts() {
    let mut failures = String::new();
    for (name, want) in &VERDICTS {
        let have = match Message::parse(raw(name)) {
            Ok(message) => judge(&message),
            Err(ParseError::StartLine(_)) => Refused,
            Err(other) => panic!("{name}: {other}"),
        };
        if have != *want {
            failures += &format!("{name}: want {want:?}, have {have:?}\n");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// A message without what frames it, which is ours: its lengths and the end of its headers.
fn unframed(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let is_length = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("l")
    };
    let lines = text.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !is_length(line));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Whatever is accepted is relayed byte for byte, apart from our Via, octets after the body, blanks
/// in the start line, and a missing empty line.
#[test]
fn relayed_unchanged() {
    let names = SocketNames { host: "h".into(), port: 5060, transport: "UDP" };
    let via = b"Via: SIP/2.0/UDP h;branch=z9hG4bKx\r\n";
    for (name, _) in &VERDICTS {
        let Ok(message) = Message::parse(raw(name)) else { continue };
        let end = message.body().end as usize;
        let mut want = raw(name)[..end].to_vec();
        let at = message.header(HeaderName::Via).unwrap().whole().start as usize;
        if *name == "trws" {
            let version = message.start_line().end as usize - 4;
            want.drain(version..version + 2);
        }
        let at = at - (end - want.len());
        if message.headers_end() == message.body().start {
            want.extend_from_slice(b"\r\n\r\n");
        }
        if message.is_request() {
            let target =
                PrintTarget { uri: b"", via, via_params: b"", extra: b"", send: &names, received: &names };
            want.splice(at..at, via.iter().copied());
            assert_eq!(unframed(&print_request(&message, &[], &target)), unframed(&want), "{name}");
        } else {
            let top = message.header(HeaderName::Via).unwrap().whole();
            want.drain(top.range());
            let printed = print_reply(&message, &Edits::default(), None, &names, &names);
            assert_eq!(unframed(&printed), unframed(&want), "{name}");
        }
    }
}

#[test]
fn owner_is_the_call_id() {
    for (name, _) in &VERDICTS {
        let raw = raw(name);
        let Ok(message) = Message::parse(raw.clone()) else { continue };
        assert_eq!(Message::owner(&raw), message.call_id().as_deref(), "{name}");
    }
}

#[test]
fn short_tortuous_invite() {
    let message = parse("wsinv");
    let to = message.to().unwrap();
    assert_eq!(to.uri, "sip:vivekg@chair-dnrc.example.com");
    assert_eq!(to.tag().unwrap(), "1918181833n");
    let from = message.from().unwrap();
    assert_eq!(from.display_text(), "J Rosenberg \\\"");
    assert_eq!(from.tag().unwrap(), "98asjd8");
    assert_eq!(message.max_forwards(), Some(68));
    let cseq = message.cseq().unwrap();
    assert_eq!((cseq.number, &cseq.method_text[..]), (9, &b"INVITE"[..]));
    let vias = message.vias();
    let hosts: Vec<_> = vias.iter().map(|via| via.host()).collect();
    assert_eq!(hosts, [&b"192.0.2.2"[..], b"spindle.example.com", b"192.168.255.111"]);
    assert_eq!(vias[1].branch().unwrap(), "z9hG4bK9ikj8");
    assert_eq!(vias[2].branch().unwrap(), "z9hG4bK30239");
    let contact = message.addresses(HeaderName::Contact).unwrap().remove(0);
    assert_eq!(contact.display_text(), "Quoted string \"\"");
    assert_eq!(contact.params.value(b"newparam").unwrap(), "newvalue");
    assert_eq!(contact.params.value(b"q").unwrap(), "0.33");
    assert!(contact.params.has(b"secondparam"));
    assert_eq!(message.value(HeaderName::Subject).unwrap(), "");
    let unknown = message.headers_named(b"unknownheaderwithunusualvalue").next().unwrap();
    assert_eq!(message.bytes(unknown.value()), b";;,,;;,;");
    assert_eq!(message.body().len(), 150);
}

#[test]
fn wide_range_of_characters() {
    let message = parse("intmeth");
    assert_eq!(message.method(), sip::Method::Other);
    assert_eq!(message.method_text(), "!interesting-Method0123456789_*+`.%indeed'~");
    let uri = Uri::parse(&message.request_uri()).unwrap();
    assert_eq!(uri.user.unwrap(), "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*");
    assert_eq!(uri.password.unwrap(), "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)");
    assert_eq!(message.to().unwrap().display_text(), "BEL:\x07 NUL:\0 DEL:\x7f");
    assert_eq!(message.from().unwrap().display, "token1~` token2'+_ token3*%!.-");
    assert_eq!(message.from_tag().unwrap(), "_token~1'+`*%!-.");
    assert_eq!(message.call_id().unwrap(), "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
    assert_eq!(message.via().unwrap().branch().unwrap(), "z9hG4bK-.!%66*_+`'~");
}

#[test]
fn escapes_are_left_alone() {
    let uri = |name: &str| Uri::parse(&parse(name).request_uri()).unwrap();
    assert_eq!(uri("esc01").user.unwrap(), "sips%3Auser%40example.com");
    assert_eq!(&*sip::unescape(&parse("escnull").to().unwrap().uri), b"sip:null-\0-null@example.com");
    assert_eq!(parse("esc02").method_text(), "RE%47IST%45R");
    let semicolons = uri("semiuri");
    assert_eq!(semicolons.user.unwrap(), "user;par=u%40example.net");
    assert_eq!(semicolons.host, "example.com");
}

#[test]
fn particular_points() {
    assert_eq!(parse("lwsdisp").from().unwrap().display, "caller");
    assert_eq!(parse("dblreq").body().len(), 0);
    assert_eq!(parse("transports").vias().len(), 5);
    assert_eq!(parse("transports").vias()[3].transport(), None);
    assert_eq!(parse("noreason").reason(), "");
    assert!(parse("unreason").reason().starts_with(b"= 2**3 * 5**2 "));
    assert_eq!(parse("unreason").status(), 200);
    assert_eq!(parse("longreq").vias().len(), 34);
    assert_eq!(parse("zeromf").max_forwards(), Some(0));
    assert_eq!(parse("scalar02").expires(), None);
    assert_eq!(parse("bcast").vias()[1].host(), b"255.255.255.255");
    let contact = |name: &str| parse(name).addresses(HeaderName::Contact).unwrap().remove(0);
    assert!(contact("cparam01").params.has(b"unknownparam"));
    assert!(!contact("cparam02").params.has(b"unknownparam"));
    assert!(Uri::parse(&contact("cparam02").uri).unwrap().params.has(b"unknownparam"));
    assert_eq!(Uri::parse(&contact("regescrt").uri).unwrap().headers, "Route=%3Csip:sip.example.com%3E");
    let authorization = parse("regaut01").value(HeaderName::Authorization).unwrap();
    let error = sip::digest::Credentials::parse(&authorization).unwrap_err();
    assert_eq!(error, sip::digest::DigestError::OtherScheme);
    let require: Vec<_> = parse("bext01").list(HeaderName::ProxyRequire).map(<[u8]>::to_vec).collect();
    assert_eq!(require, [b"noProxiesSupportThis".to_vec(), b"norDoAnyProxiesSupportThis".to_vec()]);
    assert!(parse("inv2543").via().unwrap().branch().is_none());
}
