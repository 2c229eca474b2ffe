//! Class `csv`: fields between commas (RFC 4180).

use super::{Entry, Number, Tran, number, text};
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};

pub(super) const NAMES: super::Names = &[("count", Entry::With(count)), ("value", Entry::With(value))];

type Split = fn(&Bytes) -> Option<Vec<Bytes>>;

fn splitter(loader: &Loader) -> Split {
    match loader.dialect {
        Dialect::V4 => fields,
        Dialect::V21 => old_fields,
    }
}

/// Fields without their quotes; `None`: quotes that do not close or have something behind them, control
/// characters outside of quotes. Blanks belong to fields. An empty text has no fields.
pub(crate) fn fields(text: &Bytes) -> Option<Vec<Bytes>> {
    let end = text.strip_suffix(b"\r\n").map_or(text.len(), <[u8]>::len);
    let mut out = Vec::new();
    let mut at = 0;
    if text.is_empty() {
        return None;
    }
    loop {
        let next = if text[at..end].first() == Some(&b'"') {
            let (field, after) = quoted(text, at + 1, end)?;
            out.push(field);
            match text[after..end].first() {
                None => return Some(out),
                Some(b',') => after,
                Some(_) => return None,
            }
        } else {
            let comma = memchr::memchr(b',', &text[at..end]).map_or(end, |n| at + n);
            let field = text.slice(at..comma);
            if field.iter().any(|b| !(0x20..=0x7e).contains(b)) {
                return None;
            }
            out.push(field);
            comma
        };
        if next == end {
            return Some(out);
        }
        at = next + 1;
    }
}

/// A quoted field whose inside begins at `from`, and the place behind its closing quote.
fn quoted(text: &Bytes, from: usize, end: usize) -> Option<(Bytes, usize)> {
    let mut at = from;
    let mut doubled = false;
    loop {
        let quote = at + memchr::memchr(b'"', &text[at..end])?;
        if text[quote + 1..end].first() != Some(&b'"') {
            let inside = text.slice(from..quote);
            let field = if doubled { undouble(&inside) } else { inside };
            return Some((field, quote + 1));
        }
        doubled = true;
        at = quote + 2;
    }
}

fn undouble(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(b) = bytes.next() {
        out.push(*b);
        if *b == b'"' {
            bytes.next();
        }
    }
    out.into()
}

/// As 2.1 has it: quotes stay, an empty field at the end does not count.
fn old_fields(text: &Bytes) -> Option<Vec<Bytes>> {
    let (mut out, mut from, mut quotes) = (Vec::new(), 0, false);
    for (at, b) in text.iter().enumerate() {
        match b {
            b'"' => quotes = !quotes,
            b',' if !quotes => {
                out.push(text.slice(from..at));
                from = at + 1;
            }
            _ => {}
        }
    }
    if from < text.len() {
        out.push(text.slice(from..));
    }
    Some(out).filter(|fields| !fields.is_empty())
}

fn count(_: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let split = splitter(loader);
    Ok(Tran::new(move |_, value| {
        split(&text(&value)).map_or(Value::Null, |fields| number(fields.len() as i64))
    }))
}

fn value(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let (index, split) = (Number::new(spec, 0, loader)?, splitter(loader));
    Ok(Tran::new(move |ctx, value| {
        let Some(index) = index.get(ctx) else { return Value::Null };
        let Some(fields) = split(&text(&value)) else { return Value::Null };
        let at = if index < 0 { fields.len() as i64 + i64::from(index) } else { i64::from(index) };
        let found = usize::try_from(at).ok().and_then(|at| fields.into_iter().nth(at));
        found.map_or(Value::Null, Value::Str)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let check = |split: Split, text: &'static str, want: Option<&str>| {
            let have = split(&Bytes::from_static(text.as_bytes()));
            let have =
                have.map(|f| f.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect::<Vec<_>>());
            assert_eq!(have.map(|f| f.join("|")).as_deref(), want, "{text}");
        };
        check(fields, "a,b,c", Some("a|b|c"));
        check(fields, ",", Some("|"));
        check(fields, "a,,c\r\n", Some("a||c"));
        check(fields, " a , b ", Some(" a | b "));
        check(fields, "\"x,y\",z", Some("x,y|z"));
        check(fields, "\"it\"\"s\",b", Some("it\"s|b"));
        check(fields, "a\"b\",c", Some("a\"b\"|c"));
        check(fields, "\"a\",", Some("a|"));
        check(fields, "\"a\"b", None);
        check(fields, "\"a", None);
        check(fields, "a\tb", None);
        check(fields, "", None);
        check(old_fields, ",", Some(""));
        check(old_fields, "\"x,y\",z", Some("\"x,y\"|z"));
        check(old_fields, "a,", Some("a"));
        check(old_fields, "", None);
    }
}
