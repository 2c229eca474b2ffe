//! Class `via`: parts of the first value of a Via header.

use super::{Entry, Tran, Word, absent, digits, or_absent, some, text};
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};
use sip::Via;

pub(super) const NAMES: super::Names = &[
    ("name", Entry::With(|_, loader| part(loader, |via| some(via.protocol())))),
    ("version", Entry::With(|_, loader| part(loader, |via| some(via.version())))),
    ("transport", Entry::With(|_, loader| part(loader, |via| some(via.transport_text())))),
    ("host", Entry::With(|_, loader| part(loader, |via| some(via.host_text())))),
    ("domain", Entry::With(|_, loader| part(loader, |via| some(via.host_text())))),
    ("port", Entry::With(|_, loader| part(loader, port))),
    ("comment", Entry::With(|_, loader| part(loader, |via| some(via.comment())))),
    ("params", Entry::With(params)),
    (
        "branch",
        Entry::With(|_, loader| part(loader, |via| some(via.params.value(b"branch").unwrap_or_default()))),
    ),
    (
        "received",
        Entry::With(|_, loader| part(loader, |via| some(via.params.value(b"received").unwrap_or_default()))),
    ),
    (
        "rport",
        Entry::With(|_, loader| part(loader, |via| some(via.params.value(b"rport").unwrap_or_default()))),
    ),
    ("param", Entry::With(param)),
];

/// The first value, and the text it stands in.
fn first(value: &Value) -> Option<(Via, Bytes)> {
    let text = text(value);
    let text = text.slice(..first_end(&text));
    Some((Via::parse(&text)?, text))
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

fn part(loader: &Loader, read: fn(Via) -> Value) -> Result<Tran, Diagnostic> {
    let dialect = loader.dialect;
    Ok(Tran::new(move |_, value| match first(&value) {
        // An absent port counts as 0; in 2.1 its text is empty.
        Some((via, _)) => match read(via) {
            Value::Nought if dialect == Dialect::V21 => Value::Num(Bytes::new(), 0),
            value => or_absent(value, dialect),
        },
        None => Value::Null,
    }))
}

/// All parameters with the blanks between them.
fn params(_: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let dialect = loader.dialect;
    Ok(Tran::new(move |_, value| {
        let Some((via, text)) = first(&value) else { return Value::Null };
        let rest = &text[via.sent_by_end as usize..];
        let params = rest.trim_ascii_start().strip_prefix(b";").unwrap_or_default();
        match via.comment().is_empty() {
            true => or_absent(some(text.slice_ref(params)), dialect),
            false => or_absent(some(via.params.text), dialect),
        }
    }))
}

fn port(via: Via) -> Value {
    match via.port {
        0 => Value::Nought,
        port => Value::Num(digits(i64::from(port)), i64::from(port)),
    }
}

/// A parameter without value is an empty text.
fn param(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let (name, dialect) = (Word::new(spec, 0, loader)?, loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let (Some((via, _)), Some(name)) = (first(&value), name.get(ctx)) else { return Value::Null };
        if !via.params.has(&name) {
            return absent(dialect);
        }
        Value::Str(via.params.value(&name).unwrap_or_else(Bytes::new))
    }))
}
