//! Class `nameaddr`: `"Name" <uri>;params`, also one of a list.

use super::{Entry, Number, Tran, Word, number, or_absent, some, text};
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};
use sip::NameAddr;

pub(super) const NAMES: super::Names = &[
    ("name", Entry::With(|spec, loader| part(spec, loader, |found| some(found.address.display.clone())))),
    ("uri", Entry::With(|spec, loader| part(spec, loader, |found| some(found.address.uri.clone())))),
    ("len", Entry::With(|spec, loader| part(spec, loader, |found| number(found.len as i64)))),
    ("params", Entry::With(|spec, loader| part(spec, loader, params))),
    ("param", Entry::With(param)),
];

/// The entry of `0.name`, `-1.uri` or `$var(i).params`.
pub(super) fn indexed(name: &str, names: super::Names) -> Option<&'static Entry> {
    let (index, name) = name.rsplit_once('.')?;
    let is_index = index.starts_with('$') || index.parse::<i32>().is_ok();
    names.iter().find(|(n, _)| is_index && *n == name).map(|(_, entry)| entry)
}

/// The index in front of the name, 0 without one.
fn index(spec: &TranSpec, loader: &mut Loader) -> Result<Number, Diagnostic> {
    match memchr::memrchr(b'.', &spec.name) {
        Some(dot) => Number::parse(&spec.name.slice(..dot), spec, 0, loader),
        None => Ok(Number::Fixed(0)),
    }
}

struct Found {
    address: NameAddr,
    /// Bytes up to the parameters, as the reference counts them.
    len: usize,
}

fn find(text: &Bytes, index: i32, dialect: Dialect) -> Option<Found> {
    let list = match NameAddr::parse_list(text) {
        Some(list) if !list.is_empty() => list,
        _ => vec![bare(text)?],
    };
    if dialect == Dialect::V21 && list.len() > 1 || list.iter().any(is_bad) {
        return None;
    }
    let last = list.len() - 1;
    let at = if index < 0 { list.len() as i64 + i64::from(index) } else { i64::from(index) };
    let at = usize::try_from(at).ok()?;
    let address = list.into_iter().nth(at)?;
    let start = address.whole.range().start;
    let len = match () {
        () if !address.params.text.is_empty() => {
            let params = address.params.text.as_ptr() as usize - text.as_ptr() as usize;
            params - 1 - start
        }
        // The end of the line that it parses belongs to the last one, and the others have no length.
        () if at == last => text.len() + 2 - start,
        () => 0,
    };
    Some(Found { address, len })
}

/// Without a URI or with a tag that has no value it is no address, as in the reference.
fn is_bad(address: &NameAddr) -> bool {
    let no_tag = |(name, value): (&[u8], Option<&[u8]>)| {
        name.eq_ignore_ascii_case(b"tag") && value.is_none_or(<[u8]>::is_empty)
    };
    address.uri.trim_ascii().is_empty() || address.params.slices().any(no_tag)
}

/// One word that is no URI is taken for one.
fn bare(text: &Bytes) -> Option<NameAddr> {
    let word = text.trim_ascii();
    let strange = |b: &u8| b.is_ascii_whitespace() || b"<>\"\\;,".contains(b);
    if word.is_empty() || word.iter().any(strange) {
        return None;
    }
    // Read with a scheme in front, so that all places are those of the text.
    let uri = text.slice_ref(word);
    let mut address = NameAddr::parse(&Bytes::from_static(b"*"))?;
    let start = uri.as_ptr() as usize - text.as_ptr() as usize;
    address.whole = sip::Span::new(start, start + uri.len());
    address.uri_span = address.whole;
    address.uri = uri;
    Some(address)
}

fn part(spec: &TranSpec, loader: &mut Loader, read: fn(&Found) -> Value) -> Result<Tran, Diagnostic> {
    let (index, dialect) = (index(spec, loader)?, loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let Some(index) = index.get(ctx) else { return Value::Null };
        match find(&text(&value), index, dialect) {
            Some(found) => or_absent(read(&found), dialect),
            None => Value::Null,
        }
    }))
}

/// From the name of the first parameter to the value of the last.
fn params(found: &Found) -> Value {
    let text = &found.address.params.text;
    let mut slices = found.address.params.slices();
    let Some(first) = slices.next() else { return Value::Null };
    let (name, value) = slices.last().unwrap_or(first);
    let at = |part: &[u8]| part.as_ptr() as usize - text.as_ptr() as usize;
    let end = match value.filter(|v| !v.is_empty()) {
        Some(value) => at(value) + value.len(),
        None => at(name) + name.len(),
    };
    some(text.slice(at(first.0)..end))
}

/// The value of a parameter; here the case of its name matters.
fn param(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let (index, name, dialect) = (index(spec, loader)?, Word::new(spec, 0, loader)?, loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let (Some(index), Some(name)) = (index.get(ctx), name.get(ctx)) else { return Value::Null };
        let Some(found) = find(&text(&value), index, dialect) else { return Value::Null };
        let params = &found.address.params;
        let named = params.slices().find(|(n, _)| *n == &name[..]).and_then(|(_, value)| value);
        let plain = named.map(|v| v.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(v));
        or_absent(some(params.text.slice_ref(plain.unwrap_or_default())), dialect)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_lists() {
        for (text, index, want) in [
            ("<sip:x@y>", 0, Some(("", "sip:x@y", 11))),
            (
                "Bob Jones <sip:bob@x.org;user=phone>;q=0.5",
                0,
                Some(("Bob Jones", "sip:bob@x.org;user=phone", 36)),
            ),
            ("\"first\" <a>, \"second\" <b>;x=2", -1, Some(("\"second\"", "b", 12))),
            ("\"first\" <a>, \"second\" <b>;x=2", 0, Some(("\"first\"", "a", 0))),
            ("*", 0, Some(("", "*", 3))),
            (" abc", 0, Some(("", "abc", 5))),
            ("a b", 0, None),
            ("<a>", 1, None),
            ("<a>", i32::MIN, None),
            ("garbage <", 0, None),
            ("A <>;x=1", 0, None),
            ("<sip:a@b>;x;tag=", 0, None),
            ("<sip:a@b>;x;tag=t", 0, Some(("", "sip:a@b", 9))),
            ("", 0, None),
        ] {
            let found = find(&Bytes::from_static(text.as_bytes()), index, Dialect::V4);
            let have = found.as_ref().map(|f| (&f.address.display[..], &f.address.uri[..], f.len));
            let want = want.map(|(name, uri, len)| (name.as_bytes(), uri.as_bytes(), len));
            assert_eq!(have, want, "{text} {index}");
        }
    }
}
