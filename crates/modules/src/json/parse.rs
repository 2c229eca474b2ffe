//! From a text to a value. Read here because numbers keep their text, as they do in json-c.

use super::tree::{DEPTH, Json, node};
use bytes::Bytes;

/// One value with blanks around it; `None` when the text is none, or is nested too deeply.
pub fn parse(text: &[u8]) -> Option<Json> {
    let mut reader = Reader { rest: text, depth: 0 };
    let value = reader.value()?;
    reader.rest.trim_ascii().is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.trim_ascii_start().strip_prefix(&[byte])?;
        Some(())
    }

    fn value(&mut self) -> Option<Json> {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.first()? {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'"' => self.text().map(Json::Text),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    fn nested(&mut self, inside: fn(&mut Self) -> Option<Json>) -> Option<Json> {
        self.depth += 1;
        let value = if self.depth > DEPTH { None } else { inside(self) };
        self.depth -= 1;
        value
    }

    fn word(&mut self) -> Option<Json> {
        let words = [(&b"null"[..], Json::Null), (b"true", Json::Bool(true)), (b"false", Json::Bool(false))];
        // As json-c, in any case.
        let is = |word: &[u8]| self.rest.get(..word.len()).is_some_and(|r| r.eq_ignore_ascii_case(word));
        let (word, value) = words.into_iter().find(|(word, _)| is(word))?;
        self.rest = &self.rest[word.len()..];
        Some(value)
    }

    fn number(&mut self) -> Option<Json> {
        let len = self.rest.iter().take_while(|b| b.is_ascii_digit() || b"+-.eE".contains(b)).count();
        let (text, rest) = self.rest.split_at(len);
        let digits = std::str::from_utf8(text).ok()?;
        self.rest = rest;
        if text.iter().any(|b| b".eE".contains(b)) {
            digits.parse::<f64>().ok()?;
            return Some(Json::Float(Bytes::copy_from_slice(text)));
        }
        match digits.parse::<i64>() {
            Ok(n) => Some(Json::Int(n)),
            // Integers stop at the ends of their range.
            Err(_) if digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) && digits != "-" => {
                Some(Json::Int(if text[0] == b'-' { i64::MIN } else { i64::MAX }))
            }
            Err(_) => None,
        }
    }

    /// A string, escapes resolved by serde_json.
    fn text(&mut self) -> Option<Bytes> {
        let mut end = 1;
        while *self.rest.get(end)? != b'"' {
            end += if self.rest[end] == b'\\' { 2 } else { 1 };
        }
        let (quoted, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        let plain = !quoted.contains(&b'\\');
        if plain {
            return Some(Bytes::copy_from_slice(&quoted[1..end]));
        }
        serde_json::from_slice::<String>(quoted).ok().map(Bytes::from)
    }

    fn array(&mut self) -> Option<Json> {
        let mut items = Vec::new();
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(Json::Array(items));
        }
        loop {
            items.push(node(self.value()?));
            if self.take(b',').is_none() {
                return self.take(b']').map(|()| Json::Array(items));
            }
        }
    }

    fn object(&mut self) -> Option<Json> {
        let mut pairs: Vec<(Bytes, _)> = Vec::new();
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(Json::Object(pairs));
        }
        loop {
            self.rest = self.rest.trim_ascii_start();
            if self.rest.first() != Some(&b'"') {
                return None;
            }
            let key = self.text()?;
            self.take(b':')?;
            let value = node(self.value()?);
            match pairs.iter_mut().find(|(k, _)| *k == key) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
            if self.take(b',').is_none() {
                return self.take(b'}').map(|()| Json::Object(pairs));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::Style;
    use super::*;

    #[test]
    fn what_is_read_and_printed() {
        let check = |text: &str, want: Option<&str>| {
            let have = parse(text.as_bytes()).map(|json| json.print(Style::Spaced));
            assert_eq!(have.as_deref(), want.map(str::as_bytes), "{text}");
        };
        check(
            "{\"a\":1,\"b\":[1,{\"c\":true}],\"d\":null,\"g\":{}}",
            Some("{ \"a\": 1, \"b\": [ 1, { \"c\": true } ], \"d\": null, \"g\": { } }"),
        );
        check(" [ ] ", Some("[ ]"));
        check("1.50", Some("1.50"));
        check("\"\\u00e9/\"", Some("\"é\\/\""));
        check("{\"a\":1,\"a\":2}", Some("{ \"a\": 2 }"));
        check("99999999999999999999", Some("9223372036854775807"));
        check("TRUE", Some("true"));
        check("{\"a\":}", None);
        check("[1,]", None);
        check("{a:1}", None);
        check("-", None);
        check("1-2", None);
        check("\"open", None);
        check("\"\\x\"", None);
        check("1 2", None);
        check("", None);
        check(&"[".repeat(100_000), None);
    }

    #[test]
    fn pretty() {
        let json = parse(b"{\"a\":[1,2],\"b\":{},\"c\":[]}").unwrap();
        let want = "{\n  \"a\":[\n    1,\n    2\n  ],\n  \"b\":{},\n  \"c\":[]\n}";
        assert_eq!(json.print(Style::Pretty), want);
        assert_eq!(json.print(Style::Compact), "{\"a\":[1,2],\"b\":{},\"c\":[]}");
    }
}
