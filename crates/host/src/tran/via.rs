//! Class `via`: parts of the first value of a Via header.

use super::{Entry, Tran, Word, digits, some, text};
use crate::load::Loader;
use bytes::Bytes;
use script::ast::TranSpec;
use script::{Diagnostic, Value};
use sip::Via;

pub(super) const NAMES: super::Names = &[
    ("name", Entry::Pure(|v| part(&v, |via| some(via.protocol)))),
    ("version", Entry::Pure(|v| part(&v, |via| some(via.version)))),
    ("transport", Entry::Pure(|v| part(&v, |via| some(via.transport)))),
    ("host", Entry::Pure(|v| part(&v, |via| some(via.host)))),
    ("domain", Entry::Pure(|v| part(&v, |via| some(via.host)))),
    ("port", Entry::Pure(|v| part(&v, port))),
    ("comment", Entry::Pure(|v| part(&v, |via| some(via.comment)))),
    ("params", Entry::Pure(|v| part(&v, |via| some(via.params.text)))),
    ("branch", Entry::Pure(|v| part(&v, |via| some(via.params.value(b"branch").unwrap_or_default())))),
    ("received", Entry::Pure(|v| part(&v, |via| some(via.params.value(b"received").unwrap_or_default())))),
    ("rport", Entry::Pure(|v| part(&v, |via| some(via.params.value(b"rport").unwrap_or_default())))),
    ("param", Entry::With(param)),
];

fn first(value: &Value) -> Option<Via> {
    let text = text(value);
    let end = first_end(&text);
    Via::parse(&text.slice(..end))
}

/// Where the first of several values ends: at a comma outside of quotes.
fn first_end(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    let comma = text.iter().position(|b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' => return !quoted,
            _ => {}
        }
        false
    });
    comma.unwrap_or(text.len())
}

fn part(value: &Value, read: fn(Via) -> Value) -> Value {
    first(value).map_or(Value::Null, read)
}

fn port(via: Via) -> Value {
    match via.port {
        0 => Value::Null,
        port => Value::Num(digits(i64::from(port)), i64::from(port)),
    }
}

/// A parameter without value is an empty text.
fn param(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let name = Word::new(spec, 0, loader)?;
    Ok(Tran::new(move |ctx, value| {
        let (Some(via), Some(name)) = (first(&value), name.get(ctx)) else { return Value::Null };
        if !via.params.has(&name) {
            return Value::Null;
        }
        Value::Str(via.params.value(&name).unwrap_or_else(Bytes::new))
    }))
}
