//! `$ru`, `$ou`, `$du` and their parts, and the changes that scripts make to them.

use super::{digits, text_or_null};
use crate::ctx::{Ctx, MsgState};
use crate::language::vartable::VarTable;
use crate::var::{At, Variable};
use bytes::Bytes;
use script::Value;
use script::ast::{AssignOp, Dialect};
use sip::{Scheme, Transport, Uri};

/// (name, URI, part) of all variables here.
const NAMES: [(&str, Which, Part); 19] = {
    use Part::*;
    use Which::*;
    [
        ("ru", Request, Whole),
        ("ruri", Request, Whole),
        ("rU", Request, User),
        ("ruri.user", Request, User),
        ("rd", Request, Host),
        ("ruri.domain", Request, Host),
        ("rp", Request, Port),
        ("rP", Request, Protocol),
        ("ou", Original, Whole),
        ("ouri", Original, Whole),
        ("oU", Original, User),
        ("od", Original, Host),
        ("op", Original, Port),
        ("oP", Original, Protocol),
        ("du", Destination, Whole),
        ("duri", Destination, Whole),
        ("dd", Destination, Host),
        ("dp", Destination, Port),
        ("dP", Destination, Protocol),
    ]
};

pub use crate::context::uri::parse;

pub fn register(table: &mut VarTable) {
    for (name, which, part) in NAMES {
        table.simple(name, UriVar { which, part });
    }
    table.simple("ru_q", RequestQ);
    table.read("path", |ctx| ctx.state.path.clone().map_or(Value::Null, Value::Str));
}

#[derive(Clone, Copy, PartialEq)]
enum Which {
    /// As it would be sent now.
    Request,
    /// As received.
    Original,
    /// Where to send instead of the R-URI.
    Destination,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Whole,
    User,
    Host,
    Port,
    Protocol,
}

#[derive(Clone, Copy)]
struct UriVar {
    which: Which,
    part: Part,
}

impl Variable for UriVar {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let state = &ctx.state;
        let text = match self.which {
            Which::Request => state.current_uri(),
            Which::Original => state.msg.request_uri(),
            Which::Destination => state.dst_uri.clone().unwrap_or_default(),
        };
        if text.is_empty() {
            return Value::Null;
        }
        if self.which == Which::Destination && self.part == Part::Whole {
            return Value::Str(text);
        }
        let Some(uri) = parse(&text) else { return Value::Null };
        match self.part {
            Part::Whole => Value::Str(text),
            Part::User => uri.user.map_or(Value::Null, text_or_null),
            Part::Host => text_or_null(uri.host),
            Part::Port if uri.has_empty_port() => Value::Str(Bytes::new()),
            Part::Port if uri.has_zero_port() => digits(0),
            Part::Port => digits(uri.port_or_default()),
            Part::Protocol => {
                let text = protocol(&uri);
                match Transport::parse(&text).map(super::socket::protocol) {
                    Some(Value::Both(_, number)) => Value::Both(text, number),
                    _ => Value::Str(text),
                }
            }
        }
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        match self.which {
            Which::Request => assign_request(ctx, self.part, value),
            Which::Original => false,
            Which::Destination => assign_destination(&mut ctx.state, self.part, value),
        }
    }

    fn writable(&self) -> bool {
        self.which != Which::Original && self.part != Part::Protocol
    }
}

/// `$ru_q`: q × 1000 of the R-URI, -1 when there is none; NULL in replies.
#[derive(Clone, Copy)]
struct RequestQ;

impl Variable for RequestQ {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        if !ctx.state.msg.is_request() {
            return Value::Null;
        }
        Value::Int(i64::from(ctx.state.ruri_q))
    }
    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let q = value.int().map(|q| q.clamp(-1, 1000));
        q.inspect(|q| ctx.state.ruri_q = *q as i32).is_some()
    }
    fn writable(&self) -> bool {
        true
    }
}

/// The protocol that a URI asks for, as it is written there ("udp" when it says nothing).
pub fn protocol(uri: &Uri) -> Bytes {
    match uri.params.value(b"transport").filter(|t| !t.is_empty()) {
        Some(transport) => transport,
        None if uri.scheme == Scheme::Sips => Bytes::from_static(b"tls"),
        None => Bytes::from_static(b"udp"),
    }
}

/// Text that may stand in a start line or header: nothing that would end it.
fn one_line(text: &[u8]) -> bool {
    !text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))
}

/// Longest R-URI that a script may make (`MAX_URI_SIZE` there).
const MAX_URI: usize = 1024;

/// Sets the R-URI, sound or not; an unsound one reads as NULL. False: empty or too long, or this is no
/// request.
pub fn set_request(ctx: &mut Ctx, text: Bytes) -> bool {
    if !ctx.state.msg.is_request() || text.is_empty() || text.len() > MAX_URI || !one_line(&text) {
        return false;
    }
    ctx.state.ruri = Some(text);
    true
}

/// Longest R-URI that an edit of one of its parts may make, as in the reference.
const MAX_EDITED: usize = 1024;

/// Changes the R-URI as it is now. False when it does not parse, or becomes too long.
pub fn edit_request(ctx: &mut Ctx, edit: impl FnOnce(&Uri) -> Bytes) -> bool {
    let edited = parse(&ctx.state.current_uri()).map(|uri| edit(&uri));
    edited.is_some_and(|text| text.len() <= MAX_EDITED && set_request(ctx, text))
}

/// Sets `$du`; empty removes it. False: it could not stand in a message.
pub fn set_destination(state: &mut MsgState, text: Bytes) -> bool {
    if !one_line(&text) {
        return false;
    }
    state.dst_uri = Some(text).filter(|text| !text.is_empty());
    true
}

/// The URI with this port, whatever the text holds: `setport("abc")` makes a URI that does not parse.
pub fn with_port(uri: &Uri, port: &[u8]) -> Bytes {
    let port_of = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
    match (port.is_empty(), port_of(port)) {
        (true, _) => uri.with_port(None),
        (false, Some(port)) => uri.with_port(Some(port)),
        (false, None) => {
            let bare = uri.with_port(None);
            let host = parse(&bare).map(|uri| uri.host).filter(|host| !host.is_empty());
            let Some(host) = host else { return bare };
            let end = host.as_ptr() as usize - bare.as_ptr() as usize + host.len();
            [&bare[..end], b":", port, &bare[end..]].concat().into()
        }
    }
}

fn assign_request(ctx: &mut Ctx, part: Part, value: Value) -> bool {
    let removes = value.is_null();
    // In 2.1 NULL removes nothing but the port.
    if removes && part != Part::Port && ctx.core.shared.dialect == Dialect::V21 {
        return false;
    }
    let text = value.to_text();
    match (part, removes, &value) {
        (Part::User, true, _) => edit_request(ctx, |uri| uri.with_user(b"")),
        (Part::Port, true, _) => edit_request(ctx, |uri| uri.with_port(None)),
        (Part::Port, false, _) => edit_request(ctx, |uri| with_port(uri, &text)),
        // A number is no name.
        (_, false, Value::Int(_) | Value::Num(..)) | (_, true, _) => false,
        (Part::Whole, ..) if text.is_empty() && ctx.state.msg.is_request() => {
            ctx.state.ruri = None;
            true
        }
        (Part::Whole, ..) => set_request(ctx, text),
        (Part::User, ..) => edit_request(ctx, |uri| uri.with_user(&text)),
        (Part::Host, ..) => !text.is_empty() && edit_request(ctx, |uri| uri.with_host(&text)),
        (Part::Protocol, ..) => false,
    }
}

fn assign_destination(state: &mut MsgState, part: Part, value: Value) -> bool {
    let text = if value.is_null() { Bytes::new() } else { value.to_text() };
    if part == Part::Whole {
        return value.int().is_none() && set_destination(state, text);
    }
    // Without $du there is nothing to change.
    let Some(old) = state.dst_uri.clone() else { return false };
    let Some(uri) = parse(&old) else { return false };
    match part {
        Part::Host if text.is_empty() || matches!(value, Value::Int(_) | Value::Num(..)) => false,
        Part::Host => set_destination(state, uri.with_host(&text)),
        _ => set_destination(state, with_port(&uri, &text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn uris_of_scripts_may_hold_blanks() {
        for (text, user, host) in
            [("sip:a b@h:5", "a b", "h"), ("sip:a@b>", "a", "b>"), ("sip:\"x\"@$fd;p=\"q\"", "\"x\"", "$fd")]
        {
            let uri = parse(&bytes(text)).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((uri.user.unwrap(), uri.host, uri.text), (bytes(user), bytes(host), bytes(text)));
        }
        for text in ["garbage", "sip:a@b\r\nX: y", "sip:c@d@b", "sip:a@b:abc", ""] {
            assert!(parse(&bytes(text)).is_none(), "{text}");
        }
    }

    #[test]
    fn ports_as_scripts_write_them() {
        let uri = parse(&bytes("sip:u@h:7;a=b")).unwrap();
        for (port, want) in [
            ("8", "sip:u@h:8;a=b"),
            ("", "sip:u@h;a=b"),
            ("abc", "sip:u@h:abc;a=b"),
            ("70000", "sip:u@h:70000;a=b"),
        ] {
            assert_eq!(with_port(&uri, port.as_bytes()), want);
        }
    }
}
