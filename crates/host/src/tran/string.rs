//! Class `s`: lengths, parts, searches, padding.

use super::param::leading_int;
use super::{Entry, MAX, Number, Tran, Word, absent, codec, digest, number, text, time, with_text};
use crate::ctx::Ctx;
use crate::language::loader::Loader;
use bytes::{Bytes, BytesMut};
use script::ast::{Dialect, TranSpec};
use script::{Diagnostic, Value};

pub(super) const NAMES: super::Names = &[
    ("len", Entry::Pure(len)),
    ("int", Entry::Dialects(int, int_strict)),
    ("substr", Entry::With(substr)),
    ("select", Entry::With(select)),
    ("tolower", Entry::Pure(|v| recased(&v, u8::is_ascii_uppercase, <[u8]>::make_ascii_lowercase))),
    ("toupper", Entry::Pure(|v| recased(&v, u8::is_ascii_lowercase, <[u8]>::make_ascii_uppercase))),
    ("index", Entry::With(|spec, loader| search(spec, loader, End::Front))),
    ("rindex", Entry::With(|spec, loader| search(spec, loader, End::Back))),
    ("trim", Entry::Pure(|v| trimmed(&v, true, true))),
    ("trimr", Entry::Pure(|v| trimmed(&v, false, true))),
    ("triml", Entry::Pure(|v| trimmed(&v, true, false))),
    ("fill.left", Entry::With(|spec, loader| fill(spec, loader, End::Front))),
    ("fill.right", Entry::With(|spec, loader| fill(spec, loader, End::Back))),
    ("width", Entry::With(width)),
    ("reverse", Entry::Pure(reverse)),
    ("eval", Entry::With(|_, _| Ok(Tran::new(eval)))),
    ("md5", Entry::Pure(digest::md5)),
    ("sha1", Entry::Pure(digest::sha1)),
    ("sha224", Entry::Pure(digest::sha224)),
    ("sha256", Entry::Pure(digest::sha256)),
    ("sha384", Entry::Pure(digest::sha384)),
    ("sha512", Entry::Pure(digest::sha512)),
    ("sha1_hmac", Entry::With(digest::sha1_hmac)),
    ("sha224_hmac", Entry::With(digest::sha224_hmac)),
    ("sha256_hmac", Entry::With(digest::sha256_hmac)),
    ("sha384_hmac", Entry::With(digest::sha384_hmac)),
    ("sha512_hmac", Entry::With(digest::sha512_hmac)),
    ("crc32", Entry::Pure(digest::crc32)),
    ("encode.hexa", Entry::Pure(codec::encode_hexa)),
    ("decode.hexa", Entry::Pure(codec::decode_hexa)),
    ("escape.common", Entry::Pure(codec::escape_common)),
    ("unescape.common", Entry::Pure(codec::unescape_common)),
    ("escape.user", Entry::Pure(codec::escape_user)),
    ("unescape.user", Entry::Pure(codec::unescape)),
    ("escape.param", Entry::Dialects(codec::escape_param, codec::escape_param_21)),
    ("unescape.param", Entry::Pure(codec::unescape)),
    ("dec2hex", Entry::Dialects(codec::dec2hex, codec::dec2hex_21)),
    ("hex2dec", Entry::Pure(codec::hex2dec)),
    ("b64encode", Entry::Pure(codec::b64encode)),
    ("b64decode", Entry::Pure(codec::b64decode)),
    ("xor", Entry::With(codec::xor)),
    ("date2unix", Entry::Pure(time::date2unix)),
];

/// Which end of a text is meant.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Front,
    Back,
}

fn len(value: Value) -> Value {
    number(value.text_in(&mut itoa::Buffer::new()).map_or(0, <[u8]>::len) as i64)
}

/// The number that the text begins with, 0 when there is none; it still prints as the text.
fn int(value: Value) -> Value {
    match value {
        Value::Int(n) => number(n),
        Value::Both(text, n) | Value::Num(text, n) => Value::Num(text, n),
        Value::Str(text) => {
            let n = leading_int(&text).0.unwrap_or(0);
            Value::Num(text, i64::from(n))
        }
        absent => absent,
    }
}

/// 2.1: NULL unless all of the text is the number, which has no plus.
fn int_strict(value: Value) -> Value {
    match &value {
        Value::Str(text) if text.starts_with(b"+") || !matches!(leading_int(text), (Some(_), [])) => {
            Value::Null
        }
        _ => int(value),
    }
}

fn recased(value: &Value, strange: fn(&u8) -> bool, change: fn(&mut [u8])) -> Value {
    let text = text(value);
    if text.len() > MAX {
        return Value::Null;
    }
    if !text.iter().any(strange) {
        return Value::Str(text);
    }
    let mut changed = BytesMut::from(&text[..]);
    change(&mut changed);
    Value::Str(changed.freeze())
}

/// Without blanks and line ends at its front, its back or both.
fn trimmed(value: &Value, front: bool, back: bool) -> Value {
    let text = text(value);
    let solid = |b: &u8| !matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let from = if front { text.iter().position(solid).unwrap_or(text.len()) } else { 0 };
    let to = if back { text.iter().rposition(solid).map_or(from, |at| at + 1) } else { text.len() };
    with_text(value, text.slice(from..to.max(from)))
}

fn substr(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let (offset, length) = (Number::new(spec, 0, loader)?, Number::new(spec, 1, loader)?);
    // What follows a number is refused where the dialect does so.
    let strict = if loader.dialect == Dialect::V21 { 2 } else { 1 };
    if let Some(bad) = spec.params.iter().take(strict).find(|text| !Number::is_whole(text)) {
        let bad = String::from_utf8_lossy(bad);
        return Err(Diagnostic::error(spec.loc, format!("{{s.substr}} takes whole numbers, not {bad}")));
    }
    if loader.dialect == Dialect::V21 && length.fixed().is_some_and(|n| n < 0) {
        return Err(Diagnostic::error(spec.loc, "the length of {s.substr} cannot be negative in 2.1"));
    }
    Ok(Tran::new(move |ctx, value| {
        let (Some(offset), Some(length)) = (offset.get(ctx), length.get(ctx)) else { return Value::Null };
        part(text(&value), i64::from(offset), i64::from(length))
    }))
}

/// NULL when the part begins or ends outside of the text.
fn part(text: Bytes, offset: i64, length: i64) -> Value {
    let all = text.len() as i64;
    let from = if offset < 0 { all + offset } else { offset };
    if !(0..all).contains(&from) {
        return Value::Null;
    }
    let to = if length > 0 { (from + length).min(all) } else { all + length };
    if to < from { Value::Null } else { Value::Str(text.slice(from as usize..to as usize)) }
}

fn select(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let index = Number::new(spec, 0, loader)?;
    let separator = match spec.params.get(1).map(|p| p.first().copied()) {
        Some(Some(byte)) => byte,
        Some(None) if spec.params.len() > 2 => b',',
        // Between the bytes 0 of the text.
        Some(None) if loader.dialect == Dialect::V4 => 0,
        _ => {
            let error = Diagnostic::error(spec.loc, "{s.select} needs a separator");
            return Err(error.hint("{s.select,1,;} is the second field between semicolons"));
        }
    };
    let none = absent(loader.dialect);
    Ok(Tran::new(move |ctx, value| {
        let Some(index) = index.get(ctx) else { return Value::Null };
        field(&text(&value), index, separator).map_or_else(|| none.clone(), Value::Str)
    }))
}

fn field(text: &Bytes, index: i32, separator: u8) -> Option<Bytes> {
    let mut fields = text.split(|b| *b == separator);
    let found = match usize::try_from(index) {
        Ok(index) => fields.nth(index),
        Err(_) => fields.nth_back((-(i64::from(index) + 1)) as usize),
    };
    Some(text.slice_ref(found?))
}

fn search(spec: &TranSpec, loader: &mut Loader, end: End) -> Result<Tran, Diagnostic> {
    let (what, start) = (Word::new(spec, 0, loader)?, Number::optional(spec, 1, loader)?);
    Ok(Tran::new(move |ctx, value| {
        let Some(what) = what.get(ctx).filter(|w| !w.is_empty()) else { return Value::Null };
        let start = match &start {
            None => None,
            Some(start) => match start.get(ctx) {
                None => return Value::Null,
                start => start,
            },
        };
        let mut buffer = itoa::Buffer::new();
        let text = value.text_in(&mut buffer).unwrap_or_default();
        position(text, &what, start, end).map_or(Value::Null, |at| number(at as i64))
    }))
}

/// Negative starts count from the end and wrap around.
fn position(text: &[u8], what: &[u8], start: Option<i32>, end: End) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    let start = match start {
        None => {
            if end == End::Front {
                0
            } else {
                text.len() - 1
            }
        }
        Some(n) if n >= 0 => n as usize,
        Some(n) => (i64::from(n)).rem_euclid(text.len() as i64) as usize,
    };
    match end {
        End::Front => memchr::memmem::find(text.get(start..)?, what).map(|at| start + at),
        End::Back => {
            let until = start.saturating_add(what.len()).min(text.len());
            memchr::memmem::rfind(&text[..until], what)
        }
    }
}

fn fill(spec: &TranSpec, loader: &mut Loader, end: End) -> Result<Tran, Diagnostic> {
    let bad = |text: &str| Diagnostic::error(spec.loc, format!("{{s.fill}}: {text}"));
    let Some(pad) = spec.params.first() else { return Err(bad("needs what to fill with and a length")) };
    let mut pad = pad.slice_ref(pad.trim_ascii_start());
    if pad.len() > 1 {
        pad = pad.slice_ref(pad.trim_ascii_end());
        if let [quote @ (b'"' | b'\''), .., last] = &pad[..]
            && quote == last
        {
            pad = pad.slice(1..pad.len() - 1);
        }
    }
    let length = Number::new(spec, 1, loader)?;
    let Some(length) = length.fixed().filter(|_| !pad.starts_with(b"$")) else {
        return Err(bad("takes no variables"));
    };
    if pad.is_empty() {
        return Err(bad("nothing to fill with"));
    }
    let length = usize::try_from(length).unwrap_or(0);
    Ok(Tran::new(move |_, value| filled(value, &pad, length, end)))
}

fn filled(value: Value, pad: &[u8], length: usize, end: End) -> Value {
    let text = text(&value);
    if text.len() > length {
        return value;
    }
    if length > MAX {
        return Value::Null;
    }
    let missing = length - text.len();
    let mut out = BytesMut::with_capacity(length);
    match end {
        End::Front => {
            // The pad ends at the text: what does not fit is missing at its beginning.
            let skip = (pad.len() - missing % pad.len()) % pad.len();
            out.extend(pad.iter().cycle().skip(skip).take(missing));
            out.extend_from_slice(&text);
        }
        End::Back => {
            out.extend_from_slice(&text);
            out.extend(pad.iter().cycle().take(missing));
        }
    }
    Value::Str(out.freeze())
}

fn width(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let width = Number::new(spec, 0, loader)?;
    if spec.params.len() > 1 {
        return Err(Diagnostic::error(spec.loc, "{s.width} has one parameter"));
    }
    if width.fixed().is_some_and(|n| n < 0) {
        return Err(Diagnostic::error(spec.loc, "{s.width}: a width cannot be negative"));
    }
    Ok(Tran::new(move |ctx, value| {
        let width = width.get(ctx).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let Some(width) = width else { return Value::Null };
        let text = text(&value);
        if width <= text.len() {
            return with_text(&value, text.slice(..width));
        }
        if width > MAX {
            return Value::Null;
        }
        let mut out = BytesMut::with_capacity(width);
        out.extend_from_slice(&text);
        out.resize(width, b' ');
        Value::Str(out.freeze())
    }))
}

/// The text as a format, with the variables in it; NULL when one of them does not exist.
fn eval(ctx: &mut Ctx, value: Value) -> Value {
    match ctx.late_format(&text(&value)) {
        Some(format) => Value::Str(format.text(ctx)),
        None => Value::Null,
    }
}

fn reverse(value: Value) -> Value {
    let text = text(&value);
    if text.len() > MAX {
        return Value::Null;
    }
    Value::Str(text.iter().rev().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn parts() {
        for (offset, length, want) in [
            (1, 0, Some("bcd")),
            (0, 2, Some("ab")),
            (1, 99, Some("bcd")),
            (4, 1, None),
            (-4, 0, Some("abcd")),
            (-5, 0, None),
            (1, -1, Some("bc")),
            (0, -4, Some("")),
            (0, -5, None),
            (3, -2, None),
            (i64::from(i32::MIN), i64::from(i32::MAX), None),
        ] {
            let want = want.map_or(Value::Null, |w| Value::Str(bytes(w)));
            assert_eq!(part(bytes("abcd"), offset, length), want, "{offset},{length}");
        }
    }

    #[test]
    fn fields() {
        for (text, index, want) in [
            ("a,,c", 1, Some("")),
            ("a,,c", -1, Some("c")),
            ("a,,c", -4, None),
            ("", 0, Some("")),
            ("", 1, None),
            ("a", i32::MIN, None),
        ] {
            assert_eq!(
                field(&bytes(text), index, b',').as_deref(),
                want.map(str::as_bytes),
                "{text} {index}"
            );
        }
    }

    #[test]
    fn positions() {
        let text = b"onetwothreeone";
        for (what, start, end, want) in [
            ("one", None, End::Front, Some(0)),
            ("one", Some(-11), End::Front, Some(11)),
            ("one", Some(-15), End::Front, None),
            ("one", Some(99), End::Front, None),
            ("one", None, End::Back, Some(11)),
            ("one", Some(0), End::Back, Some(0)),
            ("one", Some(-15), End::Back, Some(11)),
            ("one", Some(i32::MAX), End::Back, Some(11)),
            ("two", Some(2), End::Back, None),
            ("one", Some(i32::MIN), End::Front, None),
        ] {
            assert_eq!(position(text, what.as_bytes(), start, end), want, "{what} {start:?}");
        }
    }
}
