//! Class `uri`: parts of SIP and tel URIs.

use super::{Entry, Tran, Word, absent, list, or_absent, some, text};
use crate::context::uri::parse;
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};
use sip::Uri;

pub(super) const NAMES: super::Names = &[
    ("user", Entry::With(|_, loader| part(loader, |p| some(p.uri.user.clone().unwrap_or_default())))),
    ("passwd", Entry::With(|_, loader| part(loader, |p| some(p.uri.password.clone().unwrap_or_default())))),
    ("host", Entry::With(|_, loader| part(loader, |p| some(p.uri.host.clone())))),
    ("domain", Entry::With(|_, loader| part(loader, |p| some(p.uri.host.clone())))),
    (
        "port",
        Entry::With(|_, loader| part(loader, if loader.dialect == Dialect::V21 { port_21 } else { port })),
    ),
    ("params", Entry::With(|_, loader| part(loader, |p| some(p.params.clone())))),
    ("headers", Entry::With(|_, loader| part(loader, |p| some(p.uri.headers.clone())))),
    ("transport", Entry::With(|_, loader| part(loader, |p| known(p, b"transport")))),
    ("ttl", Entry::With(|_, loader| part(loader, |p| known(p, b"ttl")))),
    ("uparam", Entry::With(|_, loader| part(loader, |p| known(p, b"user")))),
    ("maddr", Entry::With(|_, loader| part(loader, |p| known(p, b"maddr")))),
    ("method", Entry::With(|_, loader| part(loader, |p| known(p, b"method")))),
    ("lr", Entry::With(|_, loader| part(loader, |p| known(p, b"lr")))),
    ("r2", Entry::With(|_, loader| part(loader, |p| known(p, b"r2")))),
    ("schema", Entry::With(|_, loader| part(loader, schema))),
    ("param", Entry::With(param)),
];

/// A URI with the parameters that `{uri.params}` and `{uri.param}` see.
struct Parsed {
    uri: Uri,
    params: Bytes,
}

/// A transformation that reads one part.
fn part(loader: &Loader, read: fn(&Parsed) -> Value) -> Result<Tran, Diagnostic> {
    let dialect = loader.dialect;
    Ok(Tran::new(move |ctx, value| match read_uri(&value, dialect) {
        Some(parsed) => or_absent(read(&parsed), dialect),
        None => {
            let text = text(&value);
            crate::complain!(ctx, "core", "{{uri.…}}: {} is no URI", String::from_utf8_lossy(&text));
            Value::Null
        }
    }))
}

fn read_uri(value: &Value, dialect: Dialect) -> Option<Parsed> {
    let text = text(value);
    let uri = match dialect {
        Dialect::V4 => parse(&text)?,
        Dialect::V21 => parse(&text).or_else(|| with_large_port(&text))?,
    };
    if uri.user.as_ref().is_some_and(Bytes::is_empty) {
        return None;
    }
    let params = uri.params.text.clone();
    Some(match dialect {
        Dialect::V4 => Parsed { uri, params },
        Dialect::V21 => of_phone(uri, params),
    })
}

/// 2.1 takes what follows a semicolon in the user of `;user=phone` for the parameters.
fn of_phone(mut uri: Uri, mut params: Bytes) -> Parsed {
    let phone = uri.params.value(b"user").is_some_and(|v| v.eq_ignore_ascii_case(b"phone"));
    if let Some(user) = uri.user.clone().filter(|_| phone)
        && let Some(semicolon) = memchr::memchr(b';', &user)
    {
        uri.user = Some(user.slice(..semicolon));
        params = user.slice(semicolon + 1..);
    }
    Parsed { uri, params }
}

/// 2.1 takes ports above 65535: the URI without its port, which still stands in the text.
fn with_large_port(text: &Bytes) -> Option<Uri> {
    let end = memchr::memchr2(b';', b'?', text).unwrap_or(text.len());
    let colon = memchr::memrchr(b':', &text[..end])?;
    let digits = &text[colon + 1..end];
    if digits.len() < 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // One with a port that fits has its parts in the same places.
    let masked: Vec<u8> =
        text.iter().enumerate().map(|(i, b)| if (colon + 1..end).contains(&i) { b'0' } else { *b }).collect();
    let mut uri = parse(&Bytes::from(masked))?;
    let back = |part: &Bytes| {
        if part.is_empty() {
            return Bytes::new();
        }
        let at = part.as_ptr() as usize - uri.text.as_ptr() as usize;
        text.slice(at..at + part.len())
    };
    let (user, password) = (uri.user.as_ref().map(back), uri.password.as_ref().map(back));
    let (host, params, headers) = (back(&uri.host), back(&uri.params.text), back(&uri.headers));
    (uri.user, uri.password, uri.host, uri.params.text, uri.headers) =
        (user, password, host, params, headers);
    uri.text = text.clone();
    Some(uri)
}

/// As it is written, and as a number.
fn port(parsed: &Parsed) -> Value {
    let uri = &parsed.uri;
    if uri.host.is_empty() {
        return Value::Nought;
    }
    let end = uri.host.as_ptr() as usize - uri.text.as_ptr() as usize + uri.host.len();
    let written = uri.text.get(end..).and_then(|rest| rest.strip_prefix(b":")).unwrap_or_default();
    match written.iter().take_while(|b| b.is_ascii_digit()).count() {
        0 => Value::Nought,
        len => Value::Num(uri.text.slice(end + 1..end + 1 + len), i64::from(uri.port)),
    }
}

/// 2.1: an absent port is an empty text that counts as 0.
fn port_21(parsed: &Parsed) -> Value {
    match port(parsed) {
        Value::Nought => Value::Num(Bytes::new(), 0),
        port => port,
    }
}

fn known(parsed: &Parsed, name: &[u8]) -> Value {
    some(parsed.uri.params.value(name).unwrap_or_default())
}

fn schema(parsed: &Parsed) -> Value {
    let text = &parsed.uri.text;
    some(text.slice(..memchr::memchr(b':', text).unwrap_or(0)))
}

fn param(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let (name, dialect) = (Word::new(spec, 0, loader)?, loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let Some(params) = read_uri(&value, dialect).map(|parsed| parsed.params) else { return Value::Null };
        if params.is_empty() {
            return absent(dialect);
        }
        match name.get(ctx).map(|name| list::find(&params, &name)) {
            Some(Ok(found)) => found.map_or_else(|| absent(dialect), Value::Str),
            _ => Value::Null,
        }
    }))
}
