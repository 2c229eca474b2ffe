//! `{rest.escape}`, `{rest.unescape}`: percent encoding (RFC 3986 §2.1).

use bytes::{BufMut, Bytes, BytesMut};
use host::tran::Tran;
use host::{Loader, Value};
use script::ast::TranSpec;
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
