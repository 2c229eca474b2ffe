//! `{rest.escape}`, `{rest.unescape}`: percent encoding (RFC 3986 §2.1), and what came in inside URLs.

use bytes::{BufMut, Bytes, BytesMut};
use host::tran::Tran;
use host::{Loader, Traced, Value};
use script::ast::TranSpec;
use script::traced::Hand;
use script::{Diagnostic, nearest};

pub fn prepare(spec: &TranSpec, _: &mut Loader) -> Result<Tran, Diagnostic> {
    let apply = |f: fn(&[u8]) -> Bytes| {
        Tran::new(move |_, value| match value.text() {
            Some(text) => Value::Str(f(&text)),
            None => Value::Null,
        })
    };
    match &spec.name[..] {
        b"escape" => Ok(apply(escape)),
        b"unescape" => Ok(apply(unescape)),
        other => {
            let name = String::from_utf8_lossy(other).into_owned();
            let error = Diagnostic::error(spec.loc, format!("unknown transformation {{rest.{name}}}"));
            Err(match nearest(&name, ["escape", "unescape"]) {
                Some(near) => error.hint(format!("did you mean {{rest.{near}}}?")),
                None => error,
            })
        }
    }
}

/// The URL with what came in kept inside the values of its query that the script began (`?user=`): no `&`, `#` or blank of
/// it ends them. Elsewhere, and where all of the URL came in, it stays as it is.
pub fn filled(url: &Traced) -> Bytes {
    let mut out = BytesMut::with_capacity(url.text.len() + 16);
    let (mut query, mut value) = (false, false);
    for (hand, piece) in url.pieces() {
        for &byte in piece {
            match byte {
                _ if hand == Hand::Script => {
                    query |= byte == b'?';
                    value = query && (byte == b'=' || (value && !matches!(byte, b'&' | b'#')));
                    out.put_u8(byte);
                }
                b'&' | b'#' | 0..=b' ' if value => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                byte => out.put_u8(byte),
            }
        }
    }
    out.freeze()
}

/// Everything but letters, digits, `-`, `.`, `_` and `~` becomes %XX.
fn escape(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + text.len() / 2);
    for b in text {
        if b.is_ascii_alphanumeric() || b"-._~".contains(b) {
            out.put_u8(*b);
        } else {
            out.extend_from_slice(format!("%{b:02X}").as_bytes());
        }
    }
    out.freeze()
}

/// A `%` that is not followed by two hexadecimal digits stays.
fn unescape(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let code = (text[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let digits = code.filter(|c| c.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|c| u8::from_str_radix(std::str::from_utf8(c).ok()?, 16).ok()) {
            Some(byte) => {
                out.put_u8(byte);
                at += 3;
            }
            None => {
                out.put_u8(text[at]);
                at += 1;
            }
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::traced::Builder;

    #[test]
    fn what_came_in_adds_no_parameter() {
        let check = |before: &str, value: Value, after: &str, expected: &str| {
            let mut url = Builder::default();
            url.push(Hand::Script, before.as_bytes());
            url.push_value(&value);
            url.push(Hand::Script, after.as_bytes());
            assert_eq!(filled(&url.finish()), expected);
        };
        let evil = || Value::from("a&admin=1#x y");
        check("http://h/q?user=", evil(), "&z=1", "http://h/q?user=a%26admin=1%23x%20y&z=1");
        check("http://h/q?user=", Value::from("a%26b+c/d"), "", "http://h/q?user=a%26b+c/d");
        // What the script wrote is meant, and so is a URL or a query that came in whole.
        check("http://h/q?user=", Value::literal("a&b=c".into()), "", "http://h/q?user=a&b=c");
        check("http://h/q?", evil(), "", "http://h/q?a&admin=1#x y");
        check("", Value::from("http://h/q?a=b&c=d"), "", "http://h/q?a=b&c=d");
    }

    #[test]
    fn both_ways() {
        for (plain, coded) in [
            ("call@example.com&safe=false", "call%40example.com%26safe%3Dfalse"),
            ("a b~c-d.e_f/\u{e9}", "a%20b~c-d.e_f%2F%C3%A9"),
            ("", ""),
        ] {
            assert_eq!(escape(plain.as_bytes()), coded);
            assert_eq!(unescape(coded.as_bytes()), plain);
        }
        assert_eq!(unescape(b"1%2B1%3d2%"), "1+1=2%");
        assert_eq!(unescape(b"%+1%zz"), "%+1%zz");
    }
}
