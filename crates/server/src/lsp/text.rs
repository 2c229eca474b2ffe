//! A text and places in it: bytes here, lines and UTF-16 units in the protocol.

use serde_json::{Value as Json, json};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Text {
    text: Arc<str>,
    /// Where each line begins.
    lines: Arc<[usize]>,
}

impl Text {
    pub fn new(text: &str) -> Text {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Text { text: text.into(), lines: std::iter::once(0).chain(starts).collect() }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The byte of a position; what lies beyond is the end.
    pub fn offset(&self, position: &Json) -> usize {
        let number = |name: &str| position[name].as_u64().unwrap_or(0) as usize;
        let Some(start) = self.lines.get(number("line")).copied() else { return self.text.len() };
        let mut units = number("character");
        for (at, c) in self.text[start..].char_indices() {
            if units == 0 || c == '\n' {
                return start + at;
            }
            units = units.saturating_sub(c.len_utf16());
        }
        self.text.len()
    }

    /// The position of a byte.
    pub fn position(&self, offset: usize) -> Json {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|start| *start <= offset) - 1;
        let units: usize = self.text[self.lines[line]..offset].chars().map(char::len_utf16).sum();
        json!({"line": line, "character": units})
    }

    pub fn range(&self, start: usize, end: usize) -> Json {
        json!({"start": self.position(start), "end": self.position(end)})
    }

    /// The line that a byte stands in, up to that byte.
    pub fn before(&self, offset: usize) -> &str {
        let offset = offset.min(self.text.len());
        let start = self.text[..offset].rfind('\n').map_or(0, |i| i + 1);
        &self.text[start..offset]
    }

    /// The word around a byte, with where it begins: letters, digits, `_`, `.` and `:`.
    pub fn word(&self, offset: usize) -> (usize, &str) {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
        let offset = offset.min(self.text.len());
        let start = self.text[..offset]
            .rfind(|c| !is_word(c))
            .map_or(0, |i| i + self.text[i..].chars().next().map_or(1, char::len_utf8));
        let end = self.text[offset..].find(|c| !is_word(c)).map_or(self.text.len(), |i| offset + i);
        (start, &self.text[start..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_utf16() {
        let text = Text::new("ab\n# 😀 é $ru\n");
        let at = text.as_str().find("$ru").unwrap();
        assert_eq!(text.position(at), json!({"line": 1, "character": 7}));
        assert_eq!(text.offset(&json!({"line": 1, "character": 7})), at);
        assert_eq!(text.offset(&json!({"line": 9, "character": 0})), text.as_str().len());
        assert_eq!(text.offset(&json!({"line": 0, "character": 99})), 2);
        assert_eq!(text.word(at + 2), (at + 1, "ru"));
        assert_eq!(text.before(at), "# 😀 é ");
    }
}
