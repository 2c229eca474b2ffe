//! Lists of values and of profiles as one text: `name#1#text|number#2#42|`. `#`, `|` and `\` stand behind a `\`.

use crate::dialog::cell::{Text, Val};

const TEXT: u8 = b'1';
const NUMBER: u8 = b'2';

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for b in text {
        if matches!(b, b'#' | b'|' | b'\\') {
            out.push(b'\\');
        }
        out.push(*b);
    }
}

/// Adds one pair.
pub fn push(out: &mut Vec<u8>, name: &[u8], value: &Val) {
    escape(out, name);
    match value {
        Val::Str(text) => {
            out.extend([b'#', TEXT, b'#']);
            escape(out, text);
        }
        Val::Int(n) => {
            out.extend([b'#', NUMBER, b'#']);
            out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes());
        }
    }
    out.push(b'|');
}

/// The pairs of a text, up to where it is broken.
pub fn parse(text: &[u8]) -> Vec<(Text, Val)> {
    let mut left = text;
    let mut pairs = Vec::new();
    while let Some((name, rest)) = until(left, b'#') {
        let Some((kind, rest)) = until(rest, b'#') else { break };
        let Some((value, rest)) = until(rest, b'|') else { break };
        let value = match &kind[..] {
            [NUMBER] => match std::str::from_utf8(&value).ok().and_then(|v| v.parse().ok()) {
                Some(n) => Val::Int(n),
                None => break,
            },
            _ => Val::Str(value.into()),
        };
        pairs.push((name.into(), value));
        left = rest;
    }
    pairs
}

/// What stands before the next plain `mark`, and what follows it.
fn until(text: &[u8], mark: u8) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' if at + 1 < text.len() => {
                out.push(text[at + 1]);
                at += 2;
            }
            b if b == mark => return Some((out, &text[at + 1..])),
            b => {
                out.push(b);
                at += 1;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_lead_back() {
        let pairs: Vec<(Text, Val)> = vec![
            (b"a"[..].into(), Val::Str(b"x#y|z\\w"[..].into())),
            (b"n#"[..].into(), Val::Int(-42)),
            (b"empty"[..].into(), Val::Str(Box::default())),
        ];
        let mut text = Vec::new();
        pairs.iter().for_each(|(name, value)| push(&mut text, name, value));
        assert_eq!(String::from_utf8_lossy(&text), "a#1#x\\#y\\|z\\\\w|n\\##2#-42|empty#1#|");
        assert_eq!(parse(&text), pairs);
        // What is broken ends the list, nothing before it is lost.
        for broken in ["a#1#x|b", "a#1#x|b#2#no|", "a#1#x|b#1#"] {
            assert_eq!(parse(broken.as_bytes()).len(), 1, "{broken}");
        }
    }
}
