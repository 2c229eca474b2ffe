//! Digest credentials and challenges: `$au`, `$ar`, `$auth.nonce`, `$challenge.realm`.
//!
//! A request may carry credentials for several realms. Those that a function verified are the ones that every
//! variable and function sees afterwards; before that the variables show the first ones, as in the reference.

use super::text_or_null;
use crate::ctx::{Ctx, MsgState};
use crate::language::vartable::VarTable;
use crate::var::{At, Variable};
use bytes::{Bytes, BytesMut};
use script::Value;
use sip::digest::Credentials;
use sip::{Header, HeaderName, Method};
use std::rc::Rc;

/// Credentials stand in the first of these that is there.
const CREDENTIALS: &[HeaderName] = &[HeaderName::Authorization, HeaderName::ProxyAuthorization];
const CHALLENGES: &[HeaderName] = &[HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate];

/// (variable, headers, parameter)
const NAMES: [(&str, &[HeaderName], &str); 19] = [
    ("aU", CREDENTIALS, "username"),
    ("ar", CREDENTIALS, "realm"),
    ("adu", CREDENTIALS, "uri"),
    ("an", CREDENTIALS, "nonce"),
    ("auth.nonce", CREDENTIALS, "nonce"),
    ("auth.resp", CREDENTIALS, "response"),
    ("auth.cnonce", CREDENTIALS, "cnonce"),
    ("auth.opaque", CREDENTIALS, "opaque"),
    ("auth.alg", CREDENTIALS, "algorithm"),
    ("auth.qop", CREDENTIALS, "qop"),
    ("auth.nc", CREDENTIALS, "nc"),
    ("challenge.algorithm", CHALLENGES, "algorithm"),
    ("challenge.realm", CHALLENGES, "realm"),
    ("challenge.nonce", CHALLENGES, "nonce"),
    ("challenge.opaque", CHALLENGES, "opaque"),
    ("challenge.qop", CHALLENGES, "qop"),
    ("challenge.ik", CHALLENGES, "ik"),
    ("challenge.ck", CHALLENGES, "ck"),
    ("auth.uri", CREDENTIALS, "uri"),
];

/// The credentials that a function took up, kept with the message.
#[derive(Clone, Default)]
pub struct Offered {
    /// Those for the realm that was asked for last.
    last: Option<Shown>,
    /// Those that were right, of the last check that succeeded.
    verified: Option<Shown>,
}

#[derive(Clone)]
struct Shown {
    header: Header,
    credentials: Rc<Credentials>,
}

impl Offered {
    /// These are for the realm that the script asks for.
    pub fn offer(state: &mut MsgState, header: Header, credentials: &Credentials) {
        let shown = Shown { header, credentials: Rc::new(credentials.clone()) };
        state.ext.entry::<Offered>().last = Some(shown);
    }

    /// Those offered last are right.
    pub fn verified(state: &mut MsgState) {
        let offered = state.ext.entry::<Offered>();
        offered.verified = offered.last.clone();
    }

    /// The header that a function looked at, for `consume_credentials`.
    pub fn header(ctx: &Ctx) -> Option<Header> {
        Offered::shown(ctx).map(|shown| shown.header)
    }

    fn shown(ctx: &Ctx) -> Option<&Shown> {
        let offered = ctx.state.ext.find::<Offered>()?;
        offered.verified.as_ref().or(offered.last.as_ref())
    }
}

/// The credentials that were verified. `None`, and a line in the log, when the script has verified none: what a
/// request merely claims decides nothing.
pub fn verified(ctx: &Ctx, who: &str) -> Option<Rc<Credentials>> {
    let found = ctx.state.ext.find::<Offered>().and_then(|o| o.verified.as_ref());
    if found.is_none() {
        crate::error!(
            who,
            "no credentials were verified before: call www_authorize or proxy_authorize first"
        );
    }
    found.map(|shown| shown.credentials.clone())
}

pub fn register(table: &mut VarTable) {
    for (name, headers, param) in NAMES {
        table.simple(name, Digest { headers, param });
    }
    table.read("au", |ctx| username(ctx, 0));
    table.read("ad", |ctx| username(ctx, 1));
    table.read("Au", accounted);
}

#[derive(Clone, Copy)]
struct Digest {
    headers: &'static [HeaderName],
    param: &'static str,
}

impl Variable for Digest {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        param(ctx, self.headers, self.param).map_or(Value::Null, Value::Str)
    }
}

fn param(ctx: &Ctx, headers: &[HeaderName], name: &str) -> Option<Bytes> {
    let msg = &ctx.state.msg;
    if headers == CREDENTIALS {
        // These two are never checked.
        if matches!(msg.method(), Method::Ack | Method::Cancel) {
            return None;
        }
        if let Some(shown) = Offered::shown(ctx) {
            return credentials_param(&shown.credentials, name);
        }
    }
    let value = headers.iter().find_map(|header| msg.value(*header))?;
    digest_param(&value, name.as_bytes())
}

/// The same parameter as it was read to be checked: one reading of a header, not two that could differ.
fn credentials_param(of: &Credentials, name: &str) -> Option<Bytes> {
    Some(match name {
        "username" => of.username.clone(),
        "realm" => of.realm.clone(),
        "uri" => of.uri.clone(),
        "nonce" => of.nonce.clone(),
        "response" => of.response.clone(),
        "opaque" => of.opaque.clone()?,
        "algorithm" => Bytes::from_static(of.algorithm?.as_str().as_bytes()),
        "qop" => Bytes::from_static(of.qop?.as_str().as_bytes()),
        "nc" => text_of(&of.nc)?,
        "cnonce" => text_of(&of.cnonce)?,
        _ => return None,
    })
}

/// `None` for what did not come.
fn text_of(text: &Bytes) -> Option<Bytes> {
    (!text.is_empty()).then(|| text.clone())
}

/// Part 0 or 1 of `user@domain`.
fn username(ctx: &mut Ctx, part: usize) -> Value {
    let Some(name) = param(ctx, CREDENTIALS, "username") else { return Value::Null };
    let found = name.splitn(2, |b| *b == b'@').nth(part);
    found.map_or(Value::Null, |found| text_or_null(name.slice_ref(found)))
}

/// `$Au`: whom to charge. The reference gives user and domain of From, and so do we.
fn accounted(ctx: &mut Ctx) -> Value {
    let Some(from) = super::address::first(ctx, HeaderName::From) else { return Value::Null };
    let Some(uri) = super::uri::parse(&from.uri) else { return Value::Null };
    let Some(user) = uri.user else { return text_or_null(uri.host) };
    let mut out = BytesMut::from(&user[..]);
    out.extend_from_slice(b"@");
    out.extend_from_slice(&uri.host);
    Value::Str(out.freeze())
}

/// A parameter of `Digest a="x", b=y`; quotes are removed. `None` for other schemes.
fn digest_param(value: &Bytes, name: &[u8]) -> Option<Bytes> {
    let blank = value.iter().position(u8::is_ascii_whitespace)?;
    if !value[..blank].eq_ignore_ascii_case(b"Digest") {
        return None;
    }
    let mut rest = &value[blank..];
    while !rest.is_empty() {
        let (one, after) = split_at_comma(rest);
        rest = after;
        let Some(equals) = one.iter().position(|b| *b == b'=') else { continue };
        if one[..equals].trim_ascii().eq_ignore_ascii_case(name) {
            let text = one[equals + 1..].trim_ascii();
            let text = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text);
            return Some(value.slice_ref(text));
        }
    }
    None
}

/// Up to the next comma outside quotes, and what follows it.
fn split_at_comma(text: &[u8]) -> (&[u8], &[u8]) {
    let (mut quoted, mut escaped) = (false, false);
    for (i, b) in text.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return (&text[..i], &text[i + 1..]),
            _ => {}
        }
    }
    (text, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_digests() {
        let value = Bytes::from_static(
            b"Digest username=\"joe@dom.com\", realm=\"a, b\", qop=auth ,nc=00000001, opaque=\"\"",
        );
        let check = |name: &str, want: Option<&str>| {
            let found = digest_param(&value, name.as_bytes());
            assert_eq!(found.as_deref(), want.map(str::as_bytes), "{name}");
        };
        check("username", Some("joe@dom.com"));
        check("realm", Some("a, b"));
        check("QOP", Some("auth"));
        check("nc", Some("00000001"));
        check("opaque", Some(""));
        check("cnonce", None);
        assert_eq!(digest_param(&Bytes::from_static(b"Basic realm=x"), b"realm"), None);
    }
}
