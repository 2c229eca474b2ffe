//! What a REGISTER asks for: its contacts, checked and brought within the limits.

use super::answer::Problem;
use super::flags::{Path, SaveFlags};
use super::{Registration, push};
use crate::usrloc::contact::{ALL_METHODS, Binding, NO_SOCKET, bits, method_bit};
use crate::usrloc::now_s;
use crate::usrloc::sql::socket_index;
use bytes::Bytes;
use host::Ctx;
use sip::{HeaderName, Message, Method, NameAddr};

/// Longest Call-ID, User-Agent and received URI that are kept, as in the reference.
const MAX_CALL_ID: usize = 255;
const MAX_AGENT: usize = 255;
const MAX_RECEIVED: usize = 255;

/// The Contact headers of a REGISTER.
#[derive(Debug, PartialEq)]
pub enum Contacts {
    /// None: the client asks what is registered.
    Query,
    /// `*`: everything goes.
    Star,
    List(Vec<NameAddr>),
}

/// A contact of a request as it will be stored.
#[derive(Clone, Debug)]
pub struct Asked {
    pub binding: Binding,
    /// Seconds; 0 removes.
    pub expires: u32,
}

/// The Contact headers, checked as a whole (RFC 3261 §10.3).
pub fn contacts_of(msg: &Message, module: &Registration) -> Result<Contacts, Problem> {
    msg.to().ok_or(Problem::ToMissing)?;
    let call_id = msg.call_id().ok_or(Problem::CallIdMissing)?;
    msg.cseq_parts().ok_or(Problem::CSeqMissing)?;
    if call_id.len() > MAX_CALL_ID {
        return Err(Problem::CallIdTooLong);
    }
    if let Some(expires) = msg.value(HeaderName::Expires)
        && seconds(expires.trim_ascii()).is_none()
    {
        return Err(Problem::Expires);
    }
    let mut all: Vec<NameAddr> = Vec::new();
    let mut stars = 0;
    for (at, header) in msg.headers_of(HeaderName::Contact).enumerate() {
        let list = NameAddr::parse_list(&msg.text(header.value())).ok_or(Problem::Contacts)?;
        let here = list.iter().filter(|c| &c.uri[..] == b"*").count();
        let bare = |c: &NameAddr| {
            [&b"expires"[..], b"q"].iter().any(|n| c.params.find(n) == Some(Some(Bytes::new())))
        };
        if list.iter().any(bare) || (here > 0 && !list[0].params.text.is_empty()) {
            return Err(Problem::Contacts);
        }
        if here > 0 && list.len() > 1 {
            return Err(Problem::Contacts);
        }
        // The reference measures from the second header on; what it lets through is kept short enough
        // by the size of a datagram.
        if at > 0 && list.iter().any(|c| c.uri.len() > module.max_contact_len) {
            return Err(Problem::ContactTooLong);
        }
        stars += here;
        all.extend(list);
    }
    match (all.len(), stars) {
        (0, _) => Ok(Contacts::Query),
        (_, 0) => Ok(Contacts::List(all)),
        (_, _) if msg.expires() != Some(0) && &all[0].uri[..] == b"*" => Err(Problem::StarExpires),
        (1, _) => Ok(Contacts::Star),
        _ => Err(Problem::StarContact),
    }
}

/// The contacts as they will be stored.
pub fn asked_of(
    ctx: &mut Ctx,
    msg: &Message,
    contacts: &[NameAddr],
    module: &Registration,
    flags: &SaveFlags,
    push: &push::Action,
    tag: Bytes,
) -> Result<Vec<Asked>, Problem> {
    let base = common(ctx, msg, module, flags, tag)?;
    let now = now_s(ctx);
    let outbound = supports(msg, b"outbound");
    let methods = allowed(msg);
    let mut asked = Vec::with_capacity(contacts.len());
    for contact in contacts {
        let q = match contact.params.value(b"q").filter(|q| !q.is_empty()) {
            Some(text) => q_of(&text).ok_or(Problem::Q)?,
            None => module.default_q,
        };
        let expires = lifetime(ctx, msg, contact, module, flags);
        let reg_id = contact.params.value(b"reg-id").filter(|_| outbound);
        let mut binding = Binding {
            uri: contact.uri.clone(),
            q,
            expires: now.saturating_add(expires),
            methods: contact.params.value(b"methods").map_or(methods, |m| methods_in(&m)),
            instance: contact.params.value(b"+sip.instance").unwrap_or_default(),
            reg_id: reg_id.and_then(|r| std::str::from_utf8(&r).ok()?.parse().ok()).unwrap_or(0),
            ..base.clone()
        };
        if matches!(push, push::Action::On(_)) {
            binding.bits |= bits::PUSH;
        }
        if let Some(received) = contact.params.value(b"received")
            && base.received.is_empty()
        {
            binding.received = received;
        }
        if binding.received.len() > MAX_RECEIVED {
            return Err(Problem::ContactTooLong);
        }
        asked.push(Asked { binding, expires });
    }
    Ok(asked)
}

/// What all contacts of a request share.
fn common(
    ctx: &mut Ctx,
    msg: &Message,
    module: &Registration,
    flags: &SaveFlags,
    tag: Bytes,
) -> Result<Binding, Problem> {
    let received = module.received_avp.value(ctx).unwrap_or_default();
    let attr = module.attr_avp.value(ctx).unwrap_or_default();
    let agent = msg.value(HeaderName::UserAgent).filter(|a| !a.is_empty() && a.len() < MAX_AGENT);
    let mut base = Binding {
        call_id: msg.call_id().unwrap_or_default(),
        cseq: msg.cseq().ok_or(Problem::CSeq)?.number,
        user_agent: agent.unwrap_or_else(|| Bytes::from_static(b"n/a")),
        received,
        attr,
        tag,
        flags: ctx.state.branch_flags,
        socket: socket_of(ctx, msg, module, flags),
        path: path_of(msg, flags)?,
        bits: if flags.memory_only { bits::MEMORY_ONLY } else { 0 },
        ..Binding::default()
    };
    if flags.path_received
        && let Some(first) = NameAddr::parse_list(&base.path).and_then(|p| p.into_iter().next())
        && let Ok(uri) = sip::Uri::parse(&first.uri)
        && let Some(received) = uri.params.value(b"received")
    {
        base.received = received;
        base.flags |= module.usrloc().nat_flag;
    }
    Ok(base)
}

/// The socket named in the header `sock_hdr_name` when the flags ask for it, else the one it came in by.
fn socket_of(ctx: &Ctx, msg: &Message, module: &Registration, flags: &SaveFlags) -> u16 {
    let named = || {
        let mut headers = msg.headers_named(module.sock_hdr_name.as_bytes());
        let text = headers.next().map(|h| msg.text(h.value()))?;
        socket_index(ctx.shared(), text.trim_ascii())
    };
    let named = if flags.socket_header && !module.sock_hdr_name.is_empty() { named() } else { None };
    let here = ctx.state.source.socket;
    let here = if usize::from(here) < ctx.shared().sockets.len() { here } else { NO_SOCKET };
    named.unwrap_or(here)
}

/// Seconds that a contact asks for, brought within the limits; 0 removes it.
pub fn lifetime(
    ctx: &mut Ctx,
    msg: &Message,
    contact: &NameAddr,
    module: &Registration,
    flags: &SaveFlags,
) -> u32 {
    let asked = match contact.params.value(b"expires") {
        Some(text) => seconds(&text),
        None => msg.value(HeaderName::Expires).and_then(|v| seconds(v.trim_ascii())),
    };
    let min = flags.min_expires.unwrap_or(module.min_expires);
    let max = flags.max_expires.unwrap_or(module.max_expires);
    let mut expires = match asked {
        Some(0) => return 0,
        // Beyond 32 bits: the shortest.
        Some(n) => u32::try_from(n).ok().filter(|n| *n < u32::MAX / 2).unwrap_or(min.max(1)),
        None => module.default_expires,
    };
    if module.deviation > 0 {
        let spread = ctx.core.rng.below(u64::from(module.deviation) * 2 + 1) as i64;
        expires = (i64::from(expires) + spread - i64::from(module.deviation)).max(1) as u32;
    }
    expires = expires.max(min);
    if max > 0 { expires.min(max) } else { expires }
}

/// Digits only; `None` for anything else.
pub fn seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

/// 0.123 → 123; `None` when it is no q value of 0 to 1.
fn q_of(text: &[u8]) -> Option<i16> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}")[..3].parse::<i16>().ok()?;
    match whole.trim_start_matches('0') {
        "" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Methods of the Allow headers; all when there is none.
fn allowed(msg: &Message) -> u32 {
    let mut methods = None;
    for header in msg.headers_of(HeaderName::Allow) {
        methods = Some(methods.unwrap_or(0) | methods_in(msg.bytes(header.value())));
    }
    methods.unwrap_or(ALL_METHODS)
}

fn methods_in(list: &[u8]) -> u32 {
    let names = list.split(|b| *b == b',').map(|m| m.trim_ascii()).filter(|m| !m.is_empty());
    names.fold(0, |all, name| all | method_bit(Method::parse(name)))
}

/// Path values to store (RFC 3327).
fn path_of(msg: &Message, flags: &SaveFlags) -> Result<Bytes, Problem> {
    if flags.path == Path::None {
        return Ok(Bytes::new());
    }
    let path = path_text(msg);
    if path.is_empty() {
        return Ok(path);
    }
    let hops = NameAddr::parse_list(&path).ok_or(Problem::Path)?;
    // RFC 3327 §5.2: Path URIs are those of loose routers.
    if hops.first().is_some_and(|hop| sip::Uri::parse(&hop.uri).is_ok_and(|uri| !uri.params.has(b"lr"))) {
        return Err(Problem::Path);
    }
    if flags.path == Path::Strict && !supports(msg, b"path") {
        return Err(Problem::NoPathSupport);
    }
    Ok(path)
}

/// The values of all Path headers, comma separated.
pub fn path_text(msg: &Message) -> Bytes {
    let values: Vec<&[u8]> = msg.headers_of(HeaderName::Path).map(|h| msg.bytes(h.value())).collect();
    values.join(&b","[..]).into()
}

/// Supported lists this option.
pub fn supports(msg: &Message, option: &[u8]) -> bool {
    msg.headers_of(HeaderName::Supported).any(|h| {
        msg.bytes(h.value()).split(|b| *b == b',').any(|o| o.trim_ascii().eq_ignore_ascii_case(option))
    })
}

/// The Path header of the reply.
pub fn path_header(msg: &Message, flags: &SaveFlags) -> Option<Bytes> {
    let shown = matches!(flags.path, Path::Lazy | Path::Strict) && supports(msg, b"path");
    let path = path_text(msg);
    if !shown || path.is_empty() {
        return None;
    }
    Some([b"Path: ", &path[..], b"\r\n"].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_values() {
        for (text, q) in [
            ("1", Some(1000)),
            ("1.0", Some(1000)),
            ("0.123", Some(123)),
            ("0", Some(0)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("2", None),
            ("1.5", None),
            ("x", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(q_of(text.as_bytes()), q, "{text}");
        }
    }

    #[test]
    fn lifetimes_are_digits() {
        for (text, n) in [
            ("60", Some(60)),
            ("abc", None),
            ("-5", None),
            ("", None),
            ("99999999999", Some(99_999_999_999)),
            ("999999999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(seconds(text.as_bytes()), n, "{text}");
        }
    }

    #[test]
    fn contact_headers_as_a_whole() {
        let check = |contacts: &str, expires: &str, expected: Result<&str, Problem>| {
            let text = format!(
                "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP 1.1.1.1;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                 To: <sip:a@h>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n{contacts}{expires}\r\n"
            );
            let msg = Message::parse(Bytes::from(text)).expect("a correct message");
            let found = contacts_of(&msg, &Registration::default()).map(|c| match c {
                Contacts::Query => "query".to_string(),
                Contacts::Star => "star".to_string(),
                Contacts::List(list) => list.len().to_string(),
            });
            assert_eq!(found, expected.map(str::to_string), "{contacts}");
        };
        check("", "", Ok("query"));
        check("Contact: <sip:a@1>, <sip:b@2>\r\nm: sip:c@3\r\n", "", Ok("3"));
        check("Contact: *\r\n", "Expires: 0\r\n", Ok("star"));
        check("Contact: *\r\n", "Expires: 5\r\n", Err(Problem::StarExpires));
        check("Contact: *\r\n", "", Err(Problem::StarExpires));
        check("Contact: *, <sip:a@1>\r\n", "Expires: 0\r\n", Err(Problem::Contacts));
        check("Contact: *\r\nContact: <sip:a@1>\r\n", "Expires: 0\r\n", Err(Problem::StarContact));
        check("Contact: <sip:a@1>\r\nContact: *\r\n", "", Err(Problem::StarContact));
        check("Contact: <<<\r\n", "", Err(Problem::Contacts));
    }
}
