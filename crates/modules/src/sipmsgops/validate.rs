//! sipmsg_validate(): does a message keep to RFC 3261?

use super::Sipmsgops;
use bytes::Bytes;
use host::{Call, MsgState, OutVar, Registrar, Routes, Text};
use sip::digest::{Challenge, Credentials};
use sip::{Header, HeaderName, Message, Method, NameAddr, Scheme, Transport, Uri, Via};

pub fn register(m: &mut Registrar<Sipmsgops>) {
    let any = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH);
    m.function("sipmsg_validate", any, sipmsg_validate);
}

/// What is checked besides the headers that must be there.
struct Checks<'a>(&'a [u8]);

impl Checks<'_> {
    /// `letter`: `s` SDP, `h` header values, `m` no Max-Forwards, `r` R-URI, `f` From, `t` To, `c` Contact.
    fn has(&self, letter: u8) -> bool {
        self.0.iter().any(|b| b.eq_ignore_ascii_case(&letter))
    }
}

/// What is wrong: the documented code, and a text, empty where the reference gives none.
#[derive(Debug, PartialEq)]
struct Fault(i32, String);

fn fault<T>(code: i32, text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(code, text.into()))
}

/// sipmsg_validate([flags], [variable]): 1, or the code of the first fault with a text in the variable.
fn sipmsg_validate(call: &mut Call<Sipmsgops>, flags: Option<Text>, why: Option<OutVar>) -> i32 {
    let flags = flags.map_or_else(Bytes::new, |flags| flags.0);
    match check(&call.ctx.state, &Checks(&flags)) {
        Ok(()) => 1,
        Err(Fault(code, text)) => {
            if let Some(why) = why {
                why.set(call.ctx, Bytes::from(text));
            }
            code
        }
    }
}

fn check(state: &MsgState, checks: &Checks<'_>) -> Result<(), Fault> {
    let msg = &state.msg;
    if msg.headers().iter().any(|header| header.label().is_empty()) {
        return fault(-2, "message parsing failed");
    }
    if msg.header(HeaderName::CallId).is_none() {
        return fault(-3, "message doesn't have callid");
    }
    if state.source.transport != Transport::Udp && msg.header(HeaderName::ContentLength).is_none() {
        return fault(-4, "message doesn't have Content Length header");
    }
    let method = msg.method();
    let with_body = !(msg.is_request() && method == Method::Cancel);
    if with_body {
        check_body(msg, checks)?;
    }
    for (name, code) in
        [(HeaderName::CSeq, -7), (HeaderName::From, -8), (HeaderName::To, -9), (HeaderName::Via, -10)]
    {
        need(msg, name, code)?;
    }
    if checks.has(b't') {
        check_address(msg, HeaderName::To, [-22, -23, -29])?;
    }
    if checks.has(b'f') {
        check_address(msg, HeaderName::From, [-24, -25, -28])?;
    }
    if msg.is_request() {
        check_request(state, method, checks)?
    } else {
        check_reply(msg, method, checks)?
    }
    if method != Method::Cancel && actual_body(msg) > 0 {
        need(msg, HeaderName::ContentType, -21)?;
    }
    if checks.has(b'h') && !msg.headers().iter().all(|header| is_well_formed(msg, header)) {
        return fault(-2, "failed to parse headers");
    }
    Ok(())
}

fn need(msg: &Message, name: HeaderName, code: i32) -> Result<(), Fault> {
    if msg.header(name).is_some() { Ok(()) } else { fault(code, "") }
}

/// Bytes after the empty line, whatever Content-Length says.
fn actual_body(msg: &Message) -> usize {
    msg.buf().len() - msg.body().start as usize
}

fn check_body(msg: &Message, checks: &Checks<'_>) -> Result<(), Fault> {
    let (stated, actual) = (msg.content_length().unwrap_or(0), actual_body(msg));
    if stated as usize != actual {
        let text = format!("invalid body - content length {stated} different than actual body {actual}");
        return fault(-5, text);
    }
    let own = msg.value(HeaderName::ContentType).unwrap_or_default();
    let is_sdp = host::vars::body::mime_of(&own).eq_ignore_ascii_case(b"application/sdp");
    if actual > 0 && checks.has(b's') && is_sdp && !is_description(msg.bytes(msg.body())) {
        return fault(-6, "failed to parse SDP message");
    }
    Ok(())
}

/// Enough of RFC 8866 §5 to be read: version, origin, every line `x=...`, media lines with port, transport and
/// formats.
fn is_description(body: &[u8]) -> bool {
    let lines: Vec<&[u8]> =
        body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end).filter(|l| !l.is_empty()).collect();
    let well_formed = |line: &&[u8]| match line {
        [b'm', b'=', rest @ ..] => {
            let words: Vec<&[u8]> = rest.split(|b| *b == b' ').filter(|word| !word.is_empty()).collect();
            words.len() >= 4 && words[1].iter().all(|b| b.is_ascii_digit() || *b == b'/')
        }
        [letter, b'=', ..] => letter.is_ascii_lowercase(),
        _ => false,
    };
    let has = |start: &[u8]| lines.iter().any(|line| line.starts_with(start));
    lines.first().is_some_and(|line| line.starts_with(b"v=")) && has(b"o=") && lines.iter().all(well_formed)
}

/// `codes`: for the address, its domain, its user.
fn check_address(msg: &Message, name: HeaderName, codes: [i32; 3]) -> Result<(), Fault> {
    let label = name.as_str();
    let uri = msg.value(name).and_then(|value| NameAddr::parse(&value)).map(|address| address.uri);
    let texts = [
        format!("failed to parse '{label}' header"),
        format!("invalid domain for '{label}' header"),
        format!("invalid username for '{label}' header"),
    ];
    check_uri(&uri.unwrap_or_default(), codes, texts)
}

/// `codes` and `texts`: for the URI, its domain, its user.
fn check_uri(text: &Bytes, codes: [i32; 3], texts: [String; 3]) -> Result<(), Fault> {
    let [bad, bad_domain, bad_user] = texts;
    let Ok(uri) = Uri::parse(text) else {
        // A domain that cannot be one is named as such.
        let host = memchr::memrchr(b'@', text).map(|at| &text[at + 1..]).unwrap_or_default();
        let end = host.iter().position(|b| b":;?>".contains(b)).unwrap_or(host.len());
        return match &host[..end] {
            host if host.is_empty() || is_hostname(host) => fault(codes[0], bad),
            _ => fault(codes[1], bad_domain),
        };
    };
    if matches!(uri.scheme, Scheme::Sip | Scheme::Sips) && !is_hostname(&uri.host) {
        return fault(codes[1], bad_domain);
    }
    if !uri.user.as_deref().is_none_or(is_username) {
        return fault(codes[2], bad_user);
    }
    Ok(())
}

/// RFC 3261 §25.1 `host`, loosely: letters, digits, single dots, hyphens inside; IPv6 in brackets.
fn is_hostname(host: &[u8]) -> bool {
    let (Some(first), Some(last)) = (host.first(), host.last()) else { return false };
    let starts = first.is_ascii_alphanumeric() || *first == b'[';
    let ends = last.is_ascii_alphanumeric() || matches!(last, b'.' | b']');
    let inner = host.get(1..host.len().saturating_sub(1)).unwrap_or_default();
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'.');
    starts && ends && inner.iter().all(allowed) && !inner.windows(2).any(|pair| pair == b"..")
}

/// RFC 3261 §25.1 `user`: unreserved, escaped, user-unreserved.
fn is_username(user: &[u8]) -> bool {
    let mut bytes = user.iter();
    while let Some(b) = bytes.next() {
        let fine = match b {
            b'%' => [bytes.next(), bytes.next()].iter().all(|d| d.is_some_and(u8::is_ascii_hexdigit)),
            b => b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(b),
        };
        if !fine {
            return false;
        }
    }
    true
}

fn check_request(state: &MsgState, method: Method, checks: &Checks<'_>) -> Result<(), Fault> {
    let msg = &state.msg;
    if checks.has(b'r') {
        let texts = ["failed to parse R-URI", "invalid domain for R-URI", "invalid username for R-URI"];
        check_uri(&state.current_uri(), [-11, -12, -27], texts.map(String::from))?;
    }
    if !checks.has(b'm') {
        need(msg, HeaderName::MaxForwards, -13)?;
    }
    if checks.has(b'c') {
        check_contacts(msg, method)?;
    }
    if method != Method::Register && msg.header(HeaderName::Path).is_some() {
        return fault(-15, "PATH header supported only for REGISTERs");
    }
    Ok(())
}

fn check_reply(msg: &Message, method: Method, checks: &Checks<'_>) -> Result<(), Fault> {
    if msg.cseq_parts().is_none() {
        return fault(-7, "cseq not parsed properly");
    }
    let status = msg.status();
    match status {
        _ if method == Method::Cancel => {}
        401 => need(msg, HeaderName::WwwAuthenticate, -20)?,
        405 => need(msg, HeaderName::Allow, -16)?,
        407 => need(msg, HeaderName::ProxyAuthenticate, -18)?,
        420 => need(msg, HeaderName::Unsupported, -19)?,
        423 if method == Method::Register => need(msg, HeaderName::MinExpires, -17)?,
        _ => {}
    }
    if checks.has(b'c') && (200..400).contains(&status) {
        check_contacts(msg, method)?;
    }
    Ok(())
}

fn check_contacts(msg: &Message, method: Method) -> Result<(), Fault> {
    use Method::{Invite, Refer, Register, Subscribe, Update};
    if !matches!(method, Invite | Register | Update | Subscribe | Refer) {
        return Ok(());
    }
    if msg.header(HeaderName::Contact).is_none() {
        return fault(-14, "SIP message doesn't have 'Contact' header");
    }
    let bad = || fault(-26, "failed to parse 'Contact' header");
    let Ok(contacts) = msg.addresses(HeaderName::Contact) else { return bad() };
    for contact in contacts {
        if contact.uri == "*" {
            check_star(msg, method)?;
        } else if !Uri::parse(&contact.uri).is_ok_and(|uri| !uri.host.is_empty() || uri.scheme != Scheme::Sip)
        {
            return bad();
        }
    }
    Ok(())
}

/// `Contact: *` belongs to a REGISTER with Expires 0 (RFC 3261 §10.2.2).
fn check_star(msg: &Message, method: Method) -> Result<(), Fault> {
    let text = match (method, msg.is_request(), msg.expires()) {
        (Method::Register, false, _) => {
            "'Contact' header for REGISTER reply contains '*' only valid for REGISTER request"
        }
        (Method::Register, true, None) => "failed to parse 'Expires' header",
        (Method::Register, true, Some(0)) => return Ok(()),
        (Method::Register, true, Some(_)) => {
            "'Expires' header greater than 0 for REGISTER 'Contact' header with '*' value"
        }
        _ => "'Contact' header for SIP message contains '*' only valid for REGISTER request",
    };
    fault(-30, text)
}

/// Whether the value of a header reads as its definition wants it.
fn is_well_formed(msg: &Message, header: &Header) -> bool {
    use HeaderName as H;
    let value = msg.text(header.value());
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let before_params = |text: &Bytes| {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        text.slice_ref(text[..end].trim_ascii())
    };
    match header.name {
        H::ContentType => is_mime(&before_params(&value)),
        H::Via => Via::parse(&value).is_some(),
        H::ContentDisposition | H::Event => is_token(&before_params(&value)),
        H::From | H::To | H::RemotePartyId | H::ReferTo => NameAddr::parse(&value).is_some_and(has_uri),
        H::PPreferredIdentity | H::PAssertedIdentity => {
            NameAddr::parse_list(&value).is_some_and(are_identities)
        }
        H::Diversion | H::Path | H::Route | H::RecordRoute => {
            NameAddr::parse_list(&value).is_some_and(|list| !list.is_empty() && list.into_iter().all(has_uri))
        }
        H::Contact => {
            NameAddr::parse_list(&value).is_some_and(|list| !list.is_empty() && list.into_iter().all(has_uri))
        }
        H::MaxForwards => digits(&value) && value.len() <= 5,
        H::Expires => digits(&value),
        H::SessionExpires | H::MinSe | H::MinExpires => digits(&before_params(&value)),
        H::Authorization | H::ProxyAuthorization => Credentials::parse(&value).is_ok(),
        H::ProxyAuthenticate | H::WwwAuthenticate => Challenge::parse(&value).is_ok(),
        H::CallId
        | H::ProxyRequire
        | H::Unsupported
        | H::AcceptLanguage
        | H::Organization
        | H::Priority
        | H::Subject
        | H::UserAgent
        | H::RetryAfter => !value.is_empty(),
        _ => true,
    }
}

fn has_uri(address: NameAddr) -> bool {
    !address.uri.is_empty()
}

/// One identity, or a SIP and a tel one (RFC 3325 §9.1).
fn are_identities(list: Vec<NameAddr>) -> bool {
    let schemes: Vec<Option<Scheme>> =
        list.iter().map(|address| Uri::parse(&address.uri).ok().map(|uri| uri.scheme)).collect();
    let is_sip = |scheme: &Scheme| matches!(scheme, Scheme::Sip | Scheme::Sips);
    match schemes[..] {
        [Some(_)] => true,
        [Some(a), Some(b)] => is_sip(&a) != is_sip(&b),
        _ => false,
    }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b))
}

fn is_mime(text: &[u8]) -> bool {
    let mut halves = text.splitn(2, |b| *b == b'/').map(<[u8]>::trim_ascii);
    let (kind, subtype) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    [kind, subtype].iter().all(|half| is_token(half) && *half != b"*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_users() {
        for (host, fine) in [
            ("example.com", true),
            ("1.2.3.4", true),
            ("[::1]", true),
            ("a", true),
            ("a.", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a..b", false),
            ("exa_mple", false),
            ("b^c", false),
        ] {
            assert_eq!(is_hostname(host.as_bytes()), fine, "{host}");
        }
        for (user, fine) in
            [("", true), ("a.b;x=1", true), ("%41b", true), ("%4", false), ("a b", false), ("a#", false)]
        {
            assert_eq!(is_username(user.as_bytes()), fine, "{user}");
        }
    }

    #[test]
    fn descriptions_and_types() {
        assert!(is_description(b"v=0\r\no=a 1 1 IN IP4 h\r\ns=-\r\nm=audio 4000/2 RTP/AVP 0\r\n"));
        assert!(!is_description(b"v=0\r\no=a\r\nm=audio x RTP/AVP 0\r\n"));
        assert!(!is_description(b"v=0\r\no=a\r\ngarbage\r\n"));
        assert!(!is_description(b"hello"));
        assert!(is_mime(b"application/sdp") && !is_mime(b"application/*") && !is_mime(b"sdp"));
    }
}
