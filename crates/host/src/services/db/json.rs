//! JSON texts that scripts write (`sql_select`, raw queries of MongoDB): values that came in are escaped where they stand
//! between quotes.

use bytes::Bytes;
use script::Traced;
use script::traced::Hand;

/// The text with its values escaped.
pub fn filled_json(text: &Traced) -> Bytes {
    let (mut quoted, mut escaped) = (false, false);
    let mut out = Vec::with_capacity(text.text.len() + 16);
    for (hand, piece) in text.pieces() {
        let literal = hand == Hand::Script || !quoted;
        let mut common = false;
        for byte in piece {
            if literal {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    _ => {}
                }
                out.push(*byte);
                continue;
            }
            // What {s.escape.common} escaped is escaped once, as JSON wants it.
            if hand == Hand::Escaped && *byte == b'\\' && !common {
                common = true;
                continue;
            }
            match (byte, std::mem::take(&mut common)) {
                (b'0', true) => out.extend_from_slice(b"\\u0000"),
                (b'"' | b'\\', _) => out.extend_from_slice(&[b'\\', *byte]),
                (0..=0x1f, _) => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => out.push(*byte),
            }
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::Value;
    use script::traced::Builder;

    #[test]
    fn values_stay_in_their_quotes() {
        let check = |value: Value, want: &str| {
            let mut all = Builder::default();
            all.push(Hand::Script, b"[{\"name\": \"");
            all.push_value(&value);
            all.push(Hand::Script, b"\"}]");
            let json: serde_json::Value = serde_json::from_slice(&filled_json(&all.finish())).expect("JSON");
            assert_eq!(json, serde_json::json!([{"name": want}]));
        };
        check(Value::from("alice"), "alice");
        check(Value::from("a\"}, {\"b\": \"c"), "a\"}, {\"b\": \"c");
        check(Value::from("a\\\n"), "a\\\n");
        check(Value::written_by("it\\'s \\\"q\\\"".into(), Hand::Escaped), "it's \"q\"");
    }
}
