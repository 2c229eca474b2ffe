//! Class `uri`: parts of SIP and tel URIs.

use super::{Entry, Tran, Word, list, some, text};
use crate::load::Loader;
use crate::vars::uri::parse;
use bytes::Bytes;
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};
use sip::Uri;

pub(super) const NAMES: super::Names = &[
    ("user", Entry::With(|_, loader| part(loader, |uri| some(uri.user.clone().unwrap_or_default())))),
    ("passwd", Entry::With(|_, loader| part(loader, |uri| some(uri.password.clone().unwrap_or_default())))),
    ("host", Entry::With(|_, loader| part(loader, |uri| some(uri.host.clone())))),
    ("domain", Entry::With(|_, loader| part(loader, |uri| some(uri.host.clone())))),
    ("port", Entry::With(|_, loader| part(loader, port))),
    ("params", Entry::With(|_, loader| part(loader, |uri| some(uri.params.text.clone())))),
    ("headers", Entry::With(|_, loader| part(loader, |uri| some(uri.headers.clone())))),
    ("transport", Entry::With(|_, loader| part(loader, |uri| known(uri, b"transport")))),
    ("ttl", Entry::With(|_, loader| part(loader, |uri| known(uri, b"ttl")))),
    ("uparam", Entry::With(|_, loader| part(loader, |uri| known(uri, b"user")))),
    ("maddr", Entry::With(|_, loader| part(loader, |uri| known(uri, b"maddr")))),
    ("method", Entry::With(|_, loader| part(loader, |uri| known(uri, b"method")))),
    ("lr", Entry::With(|_, loader| part(loader, |uri| known(uri, b"lr")))),
    ("r2", Entry::With(|_, loader| part(loader, |uri| known(uri, b"r2")))),
    ("schema", Entry::With(|_, loader| part(loader, schema))),
    ("param", Entry::With(param)),
];

/// A transformation that reads one part. In 2.1 the parts of a telephone user are other ones.
fn part(loader: &Loader, read: fn(&Uri) -> Value) -> Result<Tran, Diagnostic> {
    let dialect = loader.dialect;
    Ok(Tran::new(move |_, value| read_uri(&value, dialect).map_or(Value::Null, |uri| read(&uri))))
}

fn read_uri(value: &Value, dialect: Dialect) -> Option<Uri> {
    let text = text(value);
    let uri = parse(&text)?;
    if uri.user.as_ref().is_some_and(Bytes::is_empty) {
        return None;
    }
    match dialect {
        Dialect::V4 => Some(uri),
        Dialect::V21 => old(uri),
    }
}

/// 2.1 knows no `urn:`, and takes what follows a semicolon in the user of `;user=phone` for the parameters.
fn old(mut uri: Uri) -> Option<Uri> {
    if uri.scheme == sip::Scheme::Urn {
        return None;
    }
    let phone = uri.params.value(b"user").is_some_and(|v| v.eq_ignore_ascii_case(b"phone"));
    if let Some(user) = uri.user.clone().filter(|_| phone)
        && let Some(semicolon) = memchr::memchr(b';', &user)
    {
        uri.user = Some(user.slice(..semicolon));
        uri.params.text = user.slice(semicolon + 1..);
    }
    Some(uri)
}

/// As it is written, and as a number.
fn port(uri: &Uri) -> Value {
    let end = uri.host.as_ptr() as usize - uri.text.as_ptr() as usize + uri.host.len();
    let written = if uri.host.is_empty() { None } else { uri.text[end..].strip_prefix(b":") };
    let len = written.map_or(0, |w| w.iter().take_while(|b| b.is_ascii_digit()).count());
    match len {
        0 => Value::Null,
        _ => Value::Num(uri.text.slice(end + 1..end + 1 + len), i64::from(uri.port)),
    }
}

fn known(uri: &Uri, name: &[u8]) -> Value {
    some(uri.params.value(name).unwrap_or_default())
}

fn schema(uri: &Uri) -> Value {
    let colon = memchr::memchr(b':', &uri.text).unwrap_or(0);
    some(uri.text.slice(..colon))
}

fn param(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let (name, dialect) = (Word::new(spec, 0, loader)?, loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let Some(uri) = read_uri(&value, dialect).filter(|uri| !uri.params.text.is_empty()) else {
            return Value::Null;
        };
        let found = name.get(ctx).and_then(|name| list::find(&uri.params.text, &name));
        found.map_or(Value::Null, Value::Str)
    }))
}
