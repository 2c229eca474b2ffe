//! `[...]` in flags of rtpengine functions: lists and dictionaries, `codec=[transcode=[PCMA PCMU] strip=[EVS]]`.

use super::bencode::{Bencode, Dict};

/// Brackets inside one another, the outermost not counted.
const MAX_DEPTH: usize = 8;
/// Bytes between one pair of brackets.
const MAX_LENGTH: usize = 4096;

/// What stands between the outermost brackets. `None`: they do not match, or are too deep or too long.
pub fn parse(text: &[u8]) -> Option<Bencode> {
    inside(text, 0)
}

fn inside(text: &[u8], depth: usize) -> Option<Bencode> {
    if depth > MAX_DEPTH || text.len() > MAX_LENGTH {
        return None;
    }
    if is_dictionary(text)? { dictionary(text, depth).map(Bencode::Dict) } else { list(text, depth) }
}

/// An equals sign outside inner brackets makes it one. `None`: a bracket ends that did not begin.
fn is_dictionary(text: &[u8]) -> Option<bool> {
    let mut open = 0;
    for b in text {
        match b {
            b'[' => open += 1,
            b']' if open == 0 => return None,
            b']' => open -= 1,
            b'=' if open == 0 => return Some(true),
            _ => {}
        }
    }
    Some(false)
}

/// The text of the bracket that begins here, without its brackets, and what follows it.
pub fn bracket(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut open = 0;
    for (at, b) in text.iter().enumerate() {
        match b {
            b'[' => open += 1,
            b']' => {
                open -= 1;
                if open == 0 {
                    return Some((&text[1..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}

fn split(text: &[u8], end: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|b| end(*b)).unwrap_or(text.len()))
}

fn blanks(text: &[u8]) -> &[u8] {
    split(text, |b| b != b' ').1
}

fn dictionary(text: &[u8], depth: usize) -> Option<Dict> {
    let mut dict = Dict::default();
    let mut rest = blanks(text);
    while !rest.is_empty() {
        let (key, after) = split(rest, |b| b == b'=' || b == b' ');
        let value = after.strip_prefix(b"=");
        let Some(value) = value.filter(|_| !key.is_empty()) else {
            let word = split(rest, |b| b == b' ').0;
            host::warn!(
                "rtpengine",
                "`{}` stands in a dictionary without a value",
                String::from_utf8_lossy(word)
            );
            rest = blanks(&rest[word.len()..]);
            continue;
        };
        let (item, after) = if value.first() == Some(&b'[') {
            let (inner, after) = bracket(value)?;
            (Some(inside(inner, depth + 1)?), after)
        } else {
            let (word, after) = split(value, |b| b == b' ');
            ((!word.is_empty()).then(|| Bencode::Text(unescaped(word).into())), after)
        };
        if let Some(item) = item {
            dict.set(key.to_vec(), item);
        }
        rest = blanks(after);
    }
    Some(dict)
}

fn list(text: &[u8], depth: usize) -> Option<Bencode> {
    let mut list = Vec::new();
    let mut rest = blanks(text);
    while !rest.is_empty() {
        let after = if rest[0] == b'[' {
            let (inner, after) = bracket(rest)?;
            list.push(inside(inner, depth + 1)?);
            after
        } else {
            let (word, after) = split(rest, |b| b == b' ');
            list.push(Bencode::Text(unescaped(word).into()));
            after
        };
        rest = blanks(after);
    }
    Some(Bencode::List(list))
}

/// `..` is a blank, `--` an equals sign.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let pair = after.first() == Some(first);
        match first {
            b'.' if pair => out.push(b' '),
            b'-' if pair => out.push(b'='),
            _ => {
                out.push(*first);
                rest = after;
                continue;
            }
        }
        rest = &after[1..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Option<&str>) {
        let found = parse(text.as_bytes()).map(|value| value.to_json().to_string());
        assert_eq!(found.as_deref(), want, "{text}");
    }

    #[test]
    fn lists_and_dictionaries() {
        check("video message", Some(r#"["video","message"]"#));
        check("", Some("[]"));
        check(
            "transcode=[PCMA PCMU] strip=[EVS] x=1",
            Some(r#"{"transcode":["PCMA","PCMU"],"strip":["EVS"],"x":"1"}"#),
        );
        check("[a b] [c=d] e", Some(r#"[["a","b"],{"c":"d"},"e"]"#));
        check("a=1 bare b= c=2", Some(r#"{"a":"1","c":"2"}"#));
        check(
            "audio=[add=[fmtp:96..useinbandfec--1 a.b-c]]",
            Some(r#"{"audio":{"add":["fmtp:96 useinbandfec=1","a.b-c"]}}"#),
        );
        check("a...b ---", Some(r#"["a .b","=-"]"#));
        for bad in ["a]", "[a", "x=[a", "x=[[a]"] {
            check(bad, None);
        }
    }

    #[test]
    fn bounds() {
        let deep = |n: usize| format!("{}x{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(8).as_bytes()).is_some());
        assert!(parse(deep(9).as_bytes()).is_none());
        assert!(parse("x".repeat(4096).as_bytes()).is_some());
        assert!(parse("x".repeat(4097).as_bytes()).is_none());
    }
}
