//! Class `s`: encodings.

use super::{MAX, Tran, Word, number, text, with_text};
use crate::language::loader::Loader;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use script::ast::TranSpec;
use script::traced::Hand;
use script::{Diagnostic, Value};

pub(super) fn encode_hexa(value: Value) -> Value {
    let text = text(&value);
    if text.len() > MAX / 2 { Value::Null } else { Value::Str(hex::encode(text).into()) }
}

/// A last half byte is left out; other characters make NULL.
pub(super) fn decode_hexa(value: Value) -> Value {
    let text = text(&value);
    match hex::decode(&text[..text.len() & !1]) {
        Ok(bytes) if bytes.len() <= MAX => Value::Str(bytes.into()),
        _ => Value::Null,
    }
}

pub(super) fn escape_common(value: Value) -> Value {
    let text = text(&value);
    if text.len() > MAX / 2 {
        return Value::Null;
    }
    if !text.iter().any(|b| matches!(b, b'\'' | b'"' | b'\\' | 0)) {
        return Value::Str(text);
    }
    let mut out = Vec::with_capacity(text.len() + 8);
    for &b in &text {
        match b {
            b'\'' | b'"' | b'\\' => out.extend([b'\\', b]),
            0 => out.extend(*b"\\0"),
            _ => out.push(b),
        }
    }
    Value::written_by(out.into(), Hand::Escaped)
}

pub(super) fn unescape_common(value: Value) -> Value {
    let text = text(&value);
    if !text.contains(&b'\\') {
        return Value::Str(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = &text[..];
    while let [first, after @ ..] = rest {
        rest = after;
        let known = match (first, after.first()) {
            (b'\\', Some(b @ (b'\'' | b'"' | b'\\'))) => Some(*b),
            (b'\\', Some(b'0')) => Some(0),
            _ => None,
        };
        if known.is_some() {
            rest = &after[1..];
        }
        out.push(known.unwrap_or(*first));
    }
    Value::Str(out.into())
}

/// unreserved of RFC 3261 §25.1, letters and digits included.
fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b)
}

/// NULL when the text holds something else than printable ASCII.
fn escape(value: &Value, keep: fn(u8) -> bool) -> Value {
    let text = text(value);
    if text.len() > MAX / 3 || text.iter().any(|b| !(32..=126).contains(b)) {
        return Value::Null;
    }
    if text.iter().all(|b| keep(*b)) {
        return Value::Str(text);
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    for &b in &text {
        if keep(b) {
            out.push(b);
        } else {
            let digit = |n: u8| b"0123456789abcdef"[usize::from(n & 15)];
            out.extend([b'%', digit(b >> 4), digit(b)]);
        }
    }
    Value::Str(out.into())
}

pub(super) fn escape_user(value: Value) -> Value {
    escape(&value, |b| unreserved(b) || b"&=+$,;?/".contains(&b))
}

pub(super) fn escape_param(value: Value) -> Value {
    escape(&value, |b| unreserved(b) || b"[]/:&+$".contains(&b))
}

/// 2.1 escapes letters and digits, too.
pub(super) fn escape_param_21(value: Value) -> Value {
    escape(&value, |b| !b.is_ascii_alphanumeric() && (unreserved(b) || b"[]/:&+$".contains(&b)))
}

/// NULL when an escape is broken or stands for something else than printable ASCII.
pub(super) fn unescape(value: Value) -> Value {
    let text = text(&value);
    if text.len() >= MAX {
        return Value::Null;
    }
    if !text.contains(&b'%') {
        return Value::Str(text);
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|n| n as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let (high, low) = (bytes.next().and_then(digit), bytes.next().and_then(digit));
        match high.zip(low).map(|(high, low)| high << 4 | low) {
            Some(b @ 32..=126) => out.push(b),
            _ => return Value::Null,
        }
    }
    Value::Str(out.into())
}

/// The 32 bits of the number; NULL when the text is none.
pub(super) fn dec2hex(value: Value) -> Value {
    let n = match &value {
        Value::Str(text) => match super::param::leading_int(text) {
            (Some(n), []) => i64::from(n),
            _ => return Value::Null,
        },
        value => value.int().unwrap_or(0),
    };
    Value::Str(format!("{:x}", n as u32).into())
}

/// 2.1 takes no plus.
pub(super) fn dec2hex_21(value: Value) -> Value {
    match &value {
        Value::Str(text) if text.starts_with(b"+") => Value::Null,
        _ => dec2hex(value),
    }
}

/// 32 bits, the highest one is a sign, and the text is that of 64 bits without sign.
pub(super) fn hex2dec(value: Value) -> Value {
    let Value::Str(text) = &value else { return value };
    let mut n = 0i32;
    for b in text {
        let Some(digit) = char::from(*b).to_digit(16) else { return Value::Null };
        n = n << 4 | digit as i32;
    }
    match u32::try_from(n) {
        Ok(n) => number(i64::from(n)),
        Err(_) => Value::Num((n as i64 as u64).to_string().into(), i64::from(n)),
    }
}

pub(super) fn b64encode(value: Value) -> Value {
    let text = text(&value);
    if text.len() > MAX / 4 * 3 { Value::Null } else { Value::Str(STANDARD.encode(text).into()) }
}

/// As many characters as possible.
pub(super) fn b64decode(value: Value) -> Value {
    let text = text(&value);
    if text.len() > MAX { Value::Null } else { Value::Str(decode_what_can_be(&text)) }
}

fn decode_what_can_be(text: &[u8]) -> Bytes {
    let sextet = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0u32, 0);
    for sextet in text.iter().take_while(|b| **b != b'=').filter_map(|b| sextet(*b)) {
        bits = bits << 6 | u32::from(sextet);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out.into()
}

pub(super) fn xor(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let secret = Word::new(spec, 0, loader)?;
    Ok(Tran::new(move |ctx, value| {
        let Some(secret) = secret.get(ctx).filter(|s| !s.is_empty()) else { return Value::Null };
        let text = text(&value);
        if text.len() > MAX {
            return Value::Null;
        }
        let mixed: Vec<u8> = text.iter().zip(secret.iter().cycle()).map(|(a, b)| a ^ b).collect();
        with_text(&value, mixed.into())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(run: fn(Value) -> Value, text: &'static str, want: Option<&str>) {
        let have = run(Value::from(text)).text();
        assert_eq!(have.as_deref(), want.map(str::as_bytes), "{text}");
    }

    #[test]
    fn encodings() {
        check(decode_hexa, "6162631", Some("abc"));
        check(decode_hexa, "zz", None);
        check(escape_common, "it's \"q\" \\", Some("it\\'s \\\"q\\\" \\\\"));
        check(unescape_common, "a\\\\b\\x\\'", Some("a\\b\\x'"));
        check(unescape_common, "a\\", Some("a\\"));
        check(escape_user, "a b#", Some("a%20b%23"));
        check(escape_user, "é", None);
        check(unescape, "%41%62", Some("Ab"));
        check(unescape, "a%", None);
        check(unescape, "%00", None);
        check(hex2dec, "80000000", Some("18446744071562067968"));
        check(hex2dec, "FF", Some("255"));
        check(dec2hex, "-1", Some("ffffffff"));
        check(dec2hex, "", None);
        check(b64decode, "YWJjZ", Some("abc"));
        check(b64decode, "YW\nJj!ZA==", Some("abcd"));
    }
}
