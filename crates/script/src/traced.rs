//! Texts of which it is known who wrote which part.
//!
//! What is literal is meant, what came in is not: a line end or a quote that stands in a literal of the script is
//! there on purpose, one in a value of a message, a JSON text or a row is not. Values remember their literal parts
//! only where those hold a byte that matters somewhere ([`matters`]); all other texts are plain `Value::Str`, count
//! as what came in, and cost nothing more than before.

use crate::value::Value;
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use std::sync::Arc;

/// Who wrote a part of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hand {
    /// The script, as a literal.
    Script,
    /// It came in, and the script escaped it with `{s.escape.common}`.
    Escaped,
    /// It came in, and the script doubled its single quotes with `{re.subst}`.
    Doubled,
    /// It came in, and the script made it fit for an LDAP filter (`ldap_filter_url_encode`).
    Filtered,
    /// It came in.
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    start: u32,
    end: u32,
    /// Never `Foreign`: that is what lies between the parts.
    hand: Hand,
}

/// The parts of a text that did not just come in, in order, without overlap.
#[derive(Clone, PartialEq, Debug)]
pub struct Parts(Arc<Vec<Part>>);

/// A byte that is read as more than itself by somebody: line ends (headers, logs), quotes and backslashes (SQL,
/// shells, JSON), parentheses and stars (LDAP), what ends a value in a URL, the escapes of terminals, the end of a C string.
pub fn matters(byte: u8) -> bool {
    matches!(
        byte,
        b'\r' | b'\n' | b'\'' | b'"' | b'\\' | b'`' | b'$' | b'(' | b')' | b'*' | b'&' | b'#' | 0x1b | 0
    )
}

/// A text with its parts.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Traced {
    /// All of it.
    pub text: Bytes,
    parts: SmallVec<[Part; 4]>,
}

impl Traced {
    /// A text that the script wrote.
    pub fn script(text: Bytes) -> Traced {
        Traced::whole(text, Hand::Script)
    }

    /// A text that came in.
    pub fn foreign(text: Bytes) -> Traced {
        Traced { text, parts: SmallVec::new() }
    }

    fn whole(text: Bytes, hand: Hand) -> Traced {
        let end = text.len() as u32;
        let parts = if end > 0 { smallvec::smallvec![Part { start: 0, end, hand }] } else { SmallVec::new() };
        Traced { text, parts }
    }

    /// `None` for NULL.
    pub fn of(value: &Value) -> Option<Traced> {
        match value {
            Value::Pieced(text, parts) => {
                Some(Traced { text: text.clone(), parts: parts.0.iter().copied().collect() })
            }
            value => value.text().map(Traced::foreign),
        }
    }

    /// The parts in order with who wrote them.
    pub fn pieces(&self) -> impl Iterator<Item = (Hand, &[u8])> {
        let mut at = 0;
        let ends = self.parts.iter().map(|p| (p.start as usize, p.end as usize, p.hand));
        ends.chain([(self.text.len(), self.text.len(), Hand::Script)]).flat_map(move |(start, end, hand)| {
            let between = (Hand::Foreign, &self.text[at..start]);
            at = end;
            [between, (hand, &self.text[start..end])].into_iter().filter(|(_, piece)| !piece.is_empty())
        })
    }

    /// The value that a variable keeps of it.
    pub fn into_value(self) -> Value {
        let marked = self.parts.iter().any(|part| part.hand == Hand::Filtered);
        if self.parts.is_empty() || !(marked || self.text.iter().any(|b| matters(*b))) {
            return Value::Str(self.text);
        }
        Value::Pieced(self.text, Parts(Arc::new(self.parts.into_vec())))
    }
}

/// Joins texts and remembers who wrote what.
#[derive(Default)]
pub struct Builder {
    text: BytesMut,
    parts: SmallVec<[Part; 4]>,
}

impl Builder {
    /// Adds a piece, and whose it is.
    pub fn push(&mut self, hand: Hand, text: &[u8]) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text);
        self.mark(Part { start, end: self.text.len() as u32, hand });
    }

    /// A value as it prints (`<null>` for NULL).
    pub fn push_value(&mut self, value: &Value) {
        let shift = self.text.len() as u32;
        match value.text_in(&mut itoa::Buffer::new()) {
            Some(text) => self.text.extend_from_slice(text),
            None => self.text.extend_from_slice(&value.to_text()),
        }
        if let Value::Pieced(_, parts) = value {
            for part in parts.0.iter() {
                self.mark(Part { start: part.start + shift, end: part.end + shift, hand: part.hand });
            }
        }
    }

    fn mark(&mut self, part: Part) {
        match self.parts.last_mut() {
            _ if part.start == part.end || part.hand == Hand::Foreign => {}
            Some(last) if last.end == part.start && last.hand == part.hand => last.end = part.end,
            _ => self.parts.push(part),
        }
    }

    /// A text of at most `max` bytes; of one that is longer nothing counts as the script's.
    pub fn finish_within(mut self, max: usize) -> Traced {
        if self.text.len() > max {
            self.text.truncate(max);
            self.parts.clear();
        }
        self.finish()
    }

    /// What was added.
    pub fn finish(self) -> Traced {
        Traced { text: self.text.freeze(), parts: self.parts }
    }
}

impl Value {
    /// A text that stands in the script.
    pub fn literal(text: Bytes) -> Value {
        match text.iter().any(|b| matters(*b)) {
            true => Traced::script(text).into_value(),
            false => Value::Str(text),
        }
    }

    /// A text that came in and that the script has made fit for quotes itself.
    pub fn written_by(text: Bytes, hand: Hand) -> Value {
        Traced::whole(text, hand).into_value()
    }

    /// What a function made of this value (a transformation): the parts go along where it cut out a part of the
    /// text, and where all of it was the script's, the result is the script's.
    pub fn hand_down(&self, made: Value) -> Value {
        let (Value::Pieced(from, parts), Value::Str(text)) = (self, &made) else { return made };
        let all_script =
            matches!(parts.0[..], [Part { start: 0, end, hand: Hand::Script }] if end as usize == from.len());
        if all_script {
            return Value::literal(text.clone());
        }
        let start = (text.as_ptr() as usize).wrapping_sub(from.as_ptr() as usize);
        if start > from.len() || start + text.len() > from.len() {
            return made;
        }
        let (start, end) = (start as u32, (start + text.len()) as u32);
        let cut = |part: &Part| Part {
            start: part.start.clamp(start, end) - start,
            end: part.end.clamp(start, end) - start,
            hand: part.hand,
        };
        let parts = parts.0.iter().map(cut).filter(|part| part.start < part.end).collect();
        Traced { text: text.clone(), parts }.into_value()
    }

    /// Appends the text as it may stand in the head of a message: line ends only where the script wrote them.
    pub fn push_head(&self, out: &mut BytesMut) {
        match self.text_in(&mut itoa::Buffer::new()) {
            None => out.extend_from_slice(&self.to_text()),
            Some(text) if !has_line_ends(text) => out.extend_from_slice(text),
            Some(_) => {
                for (hand, piece) in Traced::of(self).unwrap_or_default().pieces() {
                    match hand {
                        Hand::Script => out.extend_from_slice(piece),
                        _ => push_on_one_line(out, piece),
                    }
                }
            }
        }
    }

    /// The text as it may stand in the head of a message; `None` for NULL.
    pub fn head(&self) -> Option<Bytes> {
        let text = self.text()?;
        if !has_line_ends(&text) {
            return Some(text);
        }
        let mut out = BytesMut::with_capacity(text.len());
        self.push_head(&mut out);
        Some(out.freeze())
    }

    /// Appends the text as it may stand in a log line: what came in is printable.
    pub fn push_printable(&self, out: &mut BytesMut) {
        match self.text_in(&mut itoa::Buffer::new()) {
            None => out.extend_from_slice(&self.to_text()),
            Some(text) if !text.iter().any(|b| is_control(*b)) => out.extend_from_slice(text),
            Some(_) => {
                for (hand, piece) in Traced::of(self).unwrap_or_default().pieces() {
                    match hand {
                        Hand::Script => out.extend_from_slice(piece),
                        _ => push_printable(out, piece),
                    }
                }
            }
        }
    }
}

/// CR, LF or NUL: what ends a header or a message.
pub fn has_line_ends(text: &[u8]) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, text).is_some()
}

/// A text that came in, on one line: each run of line ends becomes a blank.
pub fn on_one_line(text: &Bytes) -> Bytes {
    if !has_line_ends(text) {
        return text.clone();
    }
    let mut out = BytesMut::with_capacity(text.len());
    push_on_one_line(&mut out, text);
    out.freeze()
}

fn push_on_one_line(out: &mut BytesMut, text: &[u8]) {
    let mut before = false;
    for byte in text {
        let ends = matches!(byte, b'\r' | b'\n' | 0);
        if ends && !before {
            out.extend_from_slice(b" ");
        } else if !ends {
            out.extend_from_slice(&[*byte]);
        }
        before = ends;
    }
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// A text that came in, as log lines show it: control characters as `\r`, `\n`, `\x1b`.
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.bytes().any(is_control) {
        return text.into();
    }
    let mut out = BytesMut::with_capacity(text.len() + 8);
    push_printable(&mut out, text.as_bytes());
    String::from_utf8_lossy(&out).into_owned().into()
}

fn push_printable(out: &mut BytesMut, text: &[u8]) {
    for byte in text {
        match byte {
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte if is_control(*byte) => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            byte => out.extend_from_slice(&[*byte]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn str(text: &'static str) -> Value {
        Value::from(text)
    }

    fn joined(values: &[Value]) -> Value {
        let mut all = Builder::default();
        values.iter().for_each(|value| all.push_value(value));
        all.finish().into_value()
    }

    fn literal(text: &'static str) -> Value {
        Value::literal(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn line_ends_stay_where_the_script_wrote_them() {
        let check =
            |value: Value, head: &str| assert_eq!(value.head().unwrap_or_default(), head, "{value:?}");
        check(str("a\r\nX: y"), "a X: y");
        check(literal("A: b\r\nC: d\r\n"), "A: b\r\nC: d\r\n");
        check(
            joined(&[literal("A: b\r\nC: "), str("x\r\nEvil: y\0z"), literal("\r\n")]),
            "A: b\r\nC: x Evil: y z\r\n",
        );
        check(joined(&[str("plain "), Value::Int(7)]), "plain 7");
        assert_eq!(Value::Null.head(), None);
        assert!(matches!(literal("no quotes"), Value::Str(_)));
    }

    #[test]
    fn parts_go_along_with_what_is_cut_out() {
        let whole = joined(&[literal("A: \"b\"\r\n"), str("x\r\ny"), literal("\r\nend")]);
        let Value::Pieced(text, _) = &whole else { panic!("{whole:?}") };
        let cut = whole.hand_down(Value::Str(text.slice(3..12)));
        assert_eq!(cut.head().unwrap(), "\"b\"\r\nx y");
        assert_eq!(whole.hand_down(str("new\r\n")).head().unwrap(), "new ");
        assert_eq!(literal("a\r\n").hand_down(str("A\r\n")).head().unwrap(), "A\r\n");
    }

    #[test]
    fn logs_show_what_came_in_without_line_ends() {
        let mut out = BytesMut::new();
        joined(&[literal("first\n"), str("x\nERROR:core: \x1b[1mforged\ttab"), literal("\n")])
            .push_printable(&mut out);
        assert_eq!(out, "first\nx\\nERROR:core: \\x1b[1mforged\ttab\n");
        assert_eq!(printable("a\r\nb"), "a\\r\\nb");
        assert_eq!(printable("ä\tb"), "ä\tb");
    }

    #[test]
    fn pieces_cover_the_text() {
        let whole = joined(&[
            str("in'"),
            literal("'lit'"),
            Value::written_by("e\\'".into(), Hand::Escaped),
            str("z"),
        ]);
        let traced = Traced::of(&whole).unwrap();
        let pieces: Vec<_> =
            traced.pieces().map(|(hand, p)| (hand, String::from_utf8_lossy(p).into_owned())).collect();
        let want =
            [(Hand::Foreign, "in'"), (Hand::Script, "'lit'"), (Hand::Escaped, "e\\'"), (Hand::Foreign, "z")];
        assert_eq!(pieces, want.map(|(hand, p)| (hand, p.to_string())));
    }
}
