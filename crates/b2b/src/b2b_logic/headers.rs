//! What passes from one end to the other besides the body.

use super::B2bl;
use bytes::Bytes;
use host::Ctx;
use sip::{Header, HeaderName, Message, NameAddr, Uri};

/// Headers that always pass, in the order in which they are written.
const PASSED: [HeaderName; 10] = [
    HeaderName::ContentType,
    HeaderName::Supported,
    HeaderName::Allow,
    HeaderName::ProxyRequire,
    HeaderName::SessionExpires,
    HeaderName::MinSe,
    HeaderName::Event,
    HeaderName::Require,
    HeaderName::RSeq,
    HeaderName::SubscriptionState,
];

/// A header as a whole line.
pub fn line(msg: &Message, header: &Header) -> Bytes {
    let text = msg.text(header.whole());
    if text.ends_with(b"\r\n") {
        return text;
    }
    [text.trim_ascii_end(), b"\r\n"].concat().into()
}

/// The lines of a message that pass, `more` behind them.
pub fn passed(module: &B2bl, msg: &Message, more: &[u8]) -> Bytes {
    let mut taken: Vec<&Header> = PASSED.iter().filter_map(|name| msg.header(*name)).collect();
    taken.extend(module.custom_headers.iter().filter_map(|name| msg.headers_named(name).next()));
    if let Some(pattern) = &module.custom_pattern {
        for header in msg.headers() {
            let name = header.full_name(msg);
            let known = taken.iter().any(|own| own.full_name(msg) == name);
            if pattern.is_match(name) && !known {
                taken.push(header);
            }
        }
    }
    let mut out: Vec<u8> = taken.iter().flat_map(|header| line(msg, header)).collect();
    out.extend_from_slice(more);
    if let (Some(name), Some(call_id)) = (&module.init_callid_header, msg.call_id()) {
        out.extend_from_slice(&[name.as_bytes(), b": ", &call_id, b"\r\n"].concat());
    }
    out.into()
}

/// The parameters of a Contact that pass (`custom_contact_header_params`); `None`: there are none, what was heard of it
/// before stays.
pub fn contact_params(module: &B2bl, msg: &Message) -> Option<Bytes> {
    if module.contact_params.is_empty() {
        return None;
    }
    let header = msg.header(HeaderName::Contact)?;
    let contact = NameAddr::parse_list(&msg.text(header.value()))?.into_iter().next()?;
    let mut out = Vec::new();
    for (name, value) in contact.params.iter() {
        if module.contact_params.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(&name)) {
            out.push(b';');
            out.extend_from_slice(&name);
            if let Some(value) = value {
                out.push(b'=');
                out.extend_from_slice(&value);
            }
        }
    }
    (!out.is_empty()).then(|| out.into())
}

/// URI and display name that the call comes from: those of `b2bl_from_spec_param`, else of From.
pub fn from(ctx: &mut Ctx, module: &B2bl) -> Option<(Bytes, Bytes)> {
    let set = module.from_var.as_ref().and_then(|var| var.get(ctx).head());
    let set = set.map(|text| text.slice_ref(text.trim_ascii())).filter(|text| !text.is_empty());
    if let Some(addr) = set.as_ref().and_then(NameAddr::parse_party)
        && Uri::parse(&addr.uri).is_ok()
    {
        return Some((addr.uri.clone(), addr.display));
    }
    let addr = ctx.state.msg.from()?;
    Some((addr.uri.clone(), addr.display))
}

/// The URI that stands in To: that of the caller's To, else user and host of the Request-URI.
pub fn to(ctx: &Ctx, preserve: bool) -> Option<Bytes> {
    if preserve {
        return ctx.state.msg.to().map(|to| to.uri);
    }
    let uri = Uri::parse(&ctx.state.current_uri()).ok()?;
    let mut out = b"sip:".to_vec();
    if let Some(user) = &uri.user {
        out.extend_from_slice(user);
        out.push(b'@');
    }
    out.extend_from_slice(&uri.host);
    if uri.port != 0 {
        out.extend_from_slice(format!(":{}", uri.port).as_bytes());
    }
    Some(out.into())
}

/// The user of a URI.
pub fn user_of(uri: &Bytes) -> Bytes {
    Uri::parse(uri).ok().and_then(|uri| uri.user.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let text = "INVITE sip:b@x SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\nFrom: <sip:a@x>;tag=1\nTo: <sip:b@x>\n\
            Call-ID: c1\nCSeq: 1 INVITE\nX-One: 1\nx-two: 2\nRequire: y\nAllow: INVITE\nSubject: s\n\
            Contact: <sip:a@1.2.3.4>;audio;video=1;other=2\nContent-Length: 0\n\n";
        Message::parse(text.replace('\n', "\r\n").into()).unwrap()
    }

    #[test]
    fn what_passes() {
        let check = |module: B2bl, expected: &str| {
            let found = passed(&module, &message(), b"");
            assert_eq!(String::from_utf8_lossy(&found), expected.replace('\n', "\r\n"));
        };
        check(B2bl::default(), "Allow: INVITE\nRequire: y\n");
        let custom = vec![Bytes::from_static(b"Subject")];
        check(B2bl { custom_headers: custom, ..B2bl::default() }, "Allow: INVITE\nRequire: y\nSubject: s\n");
        let name = Some("X-Init".to_string());
        check(
            B2bl { init_callid_header: name, ..B2bl::default() },
            "Allow: INVITE\nRequire: y\nX-Init: c1\n",
        );
    }

    #[test]
    fn parameters_of_a_contact() {
        let module = B2bl { contact_params: vec!["audio".into(), "VIDEO".into()], ..B2bl::default() };
        assert_eq!(contact_params(&module, &message()).as_deref(), Some(&b";audio;video=1"[..]));
        assert_eq!(contact_params(&B2bl::default(), &message()), None);
    }
}
