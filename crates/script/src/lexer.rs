//! Characters to tokens. Knows comments, strings, numbers, addresses and variables, and nothing else.

use crate::ast::VarSpec;
use crate::diagnostic::{Diagnostic, Loc};
use crate::variable::{Origin, scan};
use bytes::Bytes;
use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    /// A word: keyword, function, parameter or route name. Its text is the source at its place.
    Ident,
    Int(i64),
    /// An address, network or anything else that starts like a number and is none; also `uri:host`.
    Word,
    /// A quoted text, escapes resolved.
    Str(Bytes),
    Var(Box<VarSpec>),
    Op(&'static str),
    /// Already reported.
    Bad,
    Eof,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub tok: Tok,
    pub loc: Loc,
}

/// Longest first, so that the first that fits is the one meant.
const OPERATORS: &[&str] = &[
    "<<=", ">>=", ":=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", ".=", "==", "!=", "=~", "!~", "<=",
    ">=", "&&", "||", "<<", ">>", "(", ")", "{", "}", "[", "]", ";", ",", ":", "=", "<", ">", "!", "&", "|",
    "^", "~", "+", "-", "*", "/", "%", ".", "@",
];

/// Reads one text from front to back.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub text: Bytes,
    pub file: u16,
    pub pos: usize,
}

fn word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl Cursor {
    /// `text` must be shorter than 4 GiB, which the reader of files makes sure of.
    pub fn new(text: Bytes, file: u16) -> Self {
        let pos = if text.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        Cursor { text, file, pos }
    }

    pub fn loc(&self, start: usize, end: usize) -> Loc {
        Loc { file: self.file, start: start as u32, end: end as u32 }
    }

    pub fn at(&self, pos: usize) -> u8 {
        self.text.get(pos).copied().unwrap_or(0)
    }

    /// Moves to the next thing that is neither blank nor a comment.
    pub fn skip_blank(&mut self, problems: &mut Vec<Diagnostic>) {
        loop {
            match self.at(self.pos) {
                b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => self.pos += 1,
                // A blank that word processors leave behind (U+00A0).
                0xc2 if self.text.get(self.pos + 1) == Some(&0xa0) => self.pos += 2,
                b'#' => self.pos = self.line_end(self.pos),
                b'/' if self.at(self.pos + 1) == b'*' => self.skip_block_comment(problems),
                b'/' if self.at(self.pos + 1) == b'/' => {
                    let loc = self.loc(self.pos, self.pos + 2);
                    problems.push(
                        Diagnostic::error(loc, "`//` does not start a comment")
                            .hint("comments start with `#`"),
                    );
                    self.pos = self.line_end(self.pos);
                }
                _ => return,
            }
        }
    }

    pub fn line_end(&self, from: usize) -> usize {
        memchr::memchr(b'\n', &self.text[from..]).map_or(self.text.len(), |i| from + i)
    }

    /// `/* */`, which nest.
    fn skip_block_comment(&mut self, problems: &mut Vec<Diagnostic>) {
        let start = self.pos;
        let (mut depth, mut deepest) = (0, 0);
        while self.pos < self.text.len() {
            match (self.at(self.pos), self.at(self.pos + 1)) {
                (b'/', b'*') => (depth, self.pos) = (depth + 1, self.pos + 2),
                (b'*', b'/') => (depth, self.pos) = (depth - 1, self.pos + 2),
                _ => self.pos += 1,
            }
            if depth == 0 {
                return;
            }
            deepest = deepest.max(depth);
        }
        self.pos = self.text.len();
        let bad = Diagnostic::error(self.loc(start, start + 2), "this comment is never closed");
        problems.push(if deepest > 1 { bad.hint("comments nest: each `/*` needs its `*/`") } else { bad });
    }

    /// The next token.
    pub fn next(&mut self, problems: &mut Vec<Diagnostic>) -> Token {
        self.skip_blank(problems);
        let start = self.pos;
        if start >= self.text.len() {
            return Token { tok: Tok::Eof, loc: self.loc(start, start) };
        }
        let tok = match self.at(start) {
            b'"' | b'\'' => self.string(problems),
            b'$' => self.variable(problems),
            b'0'..=b'9' => self.number(),
            b if b.is_ascii_alphabetic() || b == b'_' => self.ident(),
            _ => self.operator(problems),
        };
        Token { tok, loc: self.loc(start, self.pos) }
    }

    fn operator(&mut self, problems: &mut Vec<Diagnostic>) -> Tok {
        let rest = &self.text[self.pos..];
        if let Some(op) =
            OPERATORS.iter().find(|op| op.as_bytes()[0] == rest[0] && rest.starts_with(op.as_bytes()))
        {
            self.pos += op.len();
            return Tok::Op(op);
        }
        let shown = String::from_utf8_lossy(&rest[..rest.len().min(4)]).chars().next().unwrap_or(' ');
        let len =
            if (shown as u32) < 0x80 || shown == char::REPLACEMENT_CHARACTER { 1 } else { shown.len_utf8() };
        let loc = self.loc(self.pos, self.pos + len);
        let bad = Diagnostic::error(loc, format!("unexpected character `{}`", shown.escape_debug()));
        problems.push(match shown {
            '\u{201c}' | '\u{201d}' | '\u{201e}' => bad.hint("strings are quoted with plain `\"`"),
            _ => bad,
        });
        self.pos += len;
        Tok::Bad
    }

    fn ident(&mut self) -> Tok {
        let start = self.pos;
        while word_byte(self.at(self.pos)) {
            self.pos += 1;
        }
        // Two words of the core have a colon inside: `uri:host`, `msg:len`.
        let prefixed = matches!(&self.text[start..self.pos], b"uri" | b"msg");
        if prefixed && self.at(self.pos) == b':' && self.at(self.pos + 1).is_ascii_alphabetic() {
            self.pos += 1;
            while word_byte(self.at(self.pos)) {
                self.pos += 1;
            }
            return Tok::Word;
        }
        Tok::Ident
    }

    /// A number, decimal, octal (`010`) or hexadecimal (`0x10`); or an address.
    fn number(&mut self) -> Tok {
        let start = self.pos;
        let mut end = start;
        let mut colons = 0;
        while word_byte(self.at(end)) || matches!(self.at(end), b'.' | b':') {
            colons += usize::from(self.at(end) == b':');
            end += 1;
        }
        let v6 = colons > 1
            && self.text[start..end].iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
        if !v6 {
            end = start;
            while word_byte(self.at(end)) || (self.at(end) == b'.' && self.at(end + 1).is_ascii_digit()) {
                end += 1;
            }
        }
        let dotted = memchr::memchr(b'.', &self.text[start..end]).is_some();
        if (dotted || v6) && self.at(end) == b'/' && self.at(end + 1).is_ascii_digit() {
            end += 1;
            while self.at(end).is_ascii_digit() || self.at(end) == b'.' {
                end += 1;
            }
        }
        self.pos = end;
        number(&self.text[start..end]).map_or(Tok::Word, Tok::Int)
    }

    fn string(&mut self, problems: &mut Vec<Diagnostic>) -> Tok {
        let start = self.pos;
        let Some(end) = string_end(&self.text, start) else {
            let loc = self.loc(start, start + 1);
            problems.push(
                Diagnostic::error(loc, "this string is never closed")
                    .hint("a quote is missing in it or after it"),
            );
            self.pos = self.line_end(start);
            return Tok::Bad;
        };
        self.pos = end;
        let inside = self.text.slice(start + 1..end - 1);
        Tok::Str(if self.at(start) == b'"' { unescape(inside) } else { inside })
    }

    /// `$ru{s.len}`: the reference takes it for `$ru`.
    fn ignored_transformation(&mut self, problems: &mut Vec<Diagnostic>) {
        let rest = &self.text[self.pos..self.line_end(self.pos)];
        let class = rest.iter().skip(1).take_while(|b| b.is_ascii_lowercase()).count();
        if self.at(self.pos) != b'{' || class == 0 || self.at(self.pos + 1 + class) != b'.' {
            return;
        }
        let Some(close) = memchr::memchr(b'}', rest) else { return };
        let loc = self.loc(self.pos, self.pos + close + 1);
        problems
            .push(Diagnostic::warning(loc, "this transformation is ignored").hint("write `$(name{...})`"));
        self.pos += close + 1;
    }

    fn variable(&mut self, problems: &mut Vec<Diagnostic>) -> Tok {
        let origin = Origin::Exact { file: self.file, base: 0 };
        match scan(&self.text, self.pos, &origin) {
            Ok((var, end)) => {
                self.pos = end;
                self.ignored_transformation(problems);
                Tok::Var(Box::new(var))
            }
            Err(bad) => {
                problems.push(bad);
                // Go on behind the text that belongs to it: up to a blank or the end of the statement.
                self.pos += 1;
                let mut depth = 0i32;
                while self.pos < self.text.len() {
                    match self.at(self.pos) {
                        b'(' => depth += 1,
                        b')' if depth == 0 => break,
                        b')' => depth -= 1,
                        b' ' | b'\t' | b'\r' | b'\n' | b';' | b',' | b'"' | b'=' => break,
                        _ => {}
                    }
                    self.pos += 1;
                }
                Tok::Bad
            }
        }
    }
}

/// A number as written: `42`, `-5`, `0x2A`, `052`. `None` when it is none; too large is the largest.
pub(crate) fn number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (radix, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        [b'0', rest @ ..] if !rest.is_empty() && rest.iter().all(|b| (b'0'..=b'7').contains(b)) => (8, rest),
        _ => (10, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut n: i64 = 0;
    for b in digits {
        let d = (*b as char).to_digit(radix)?;
        n = n.saturating_mul(radix as i64).saturating_add(d as i64);
    }
    Some(if negative { -n } else { n })
}

/// Where the string that starts at `start` ends, behind its closing quote.
pub(crate) fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let quote = text[start];
    let mut pos = start + 1;
    if quote == b'\'' {
        return memchr::memchr(b'\'', &text[pos..]).map(|i| pos + i + 1);
    }
    loop {
        pos += memchr::memchr2(b'"', b'\\', text.get(pos..)?)?;
        if text[pos] == b'"' {
            return Some(pos + 1);
        }
        pos += 2;
    }
}

/// Resolves the escapes of a double-quoted text: `\n` `\r` `\t` `\a` `\\` `\"`, `\x41`, octal `\101`,
/// and a backslash at the line end. Any other backslash stays, as regular expressions need it.
pub(crate) fn unescape(text: Bytes) -> Bytes {
    let Some(first) = memchr::memchr(b'\\', &text) else { return text };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    while let [b, tail @ ..] = rest {
        if *b != b'\\' {
            let run = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..run]);
            rest = &rest[run..];
            continue;
        }
        let (text, used) = escape(tail);
        out.extend_from_slice(&text);
        rest = &tail[used..];
    }
    Bytes::from(out)
}

/// What an escape stands for, and how many bytes behind the backslash it takes.
fn escape(tail: &[u8]) -> (Cow<'static, [u8]>, usize) {
    let digits = |from: &[u8], most: usize, radix: u32| -> (u8, usize) {
        let run = from.iter().take(most).take_while(|b| (**b as char).is_digit(radix)).count();
        let value =
            from[..run].iter().fold(0u32, |n, b| n * radix + (*b as char).to_digit(radix).unwrap_or(0));
        (value as u8, run)
    };
    match tail {
        [b'n', ..] => (b"\n".as_slice().into(), 1),
        [b'r', ..] => (b"\r".as_slice().into(), 1),
        [b't', ..] => (b"\t".as_slice().into(), 1),
        [b'a', ..] => (b"\x07".as_slice().into(), 1),
        [b'\\', ..] => (b"\\".as_slice().into(), 1),
        [b'"', ..] => (b"\"".as_slice().into(), 1),
        [b'\n', ..] => (b"".as_slice().into(), 1),
        [b'\r', b'\n', ..] => (b"".as_slice().into(), 2),
        [b'x', hex @ ..] => match digits(hex, 2, 16) {
            (_, 0) => (b"\\".as_slice().into(), 0),
            (byte, run) => (vec![byte].into(), run + 1),
        },
        _ => match digits(tail, 3, 8) {
            (byte, run) if run >= 2 => (vec![byte].into(), run),
            _ => (b"\\".as_slice().into(), 0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |text: &str, want: Option<i64>| assert_eq!(number(text.as_bytes()), want, "{text}");
        check("0", Some(0));
        check("42", Some(42));
        check("-5", Some(-5));
        check("0x10", Some(16));
        check("010", Some(8));
        check("089", Some(89));
        check("1.5", None);
        check("3abc", None);
        check("99999999999999999999", Some(i64::MAX));
    }

    #[test]
    fn escapes() {
        let check = |text: &str, want: &[u8]| {
            assert_eq!(&unescape(Bytes::copy_from_slice(text.as_bytes()))[..], want, "{text}")
        };
        check("plain", b"plain");
        check(r"a\qb\zc", br"a\qb\zc");
        check(r"\x41\x62\x7e", b"Ab~");
        check(r"\x4g", b"\x04g");
        check(r"\xg", br"\xg");
        check(r"\2\1", br"\2\1");
        check(r"\101", b"A");
        check("a\\\nb", b"ab");
        check(r#"\"\\\n\r\t"#, b"\"\\\n\r\t");
        check("end\\", b"end\\");
    }

    #[test]
    fn tokens() {
        let check = |text: &str, want: &[&str]| {
            let mut cursor = Cursor::new(Bytes::copy_from_slice(text.as_bytes()), 0);
            let mut got = Vec::new();
            loop {
                let token = cursor.next(&mut Vec::new());
                if token.tok == Tok::Eof {
                    break;
                }
                let source = &text[token.loc.start as usize..token.loc.end as usize];
                let kind = match token.tok {
                    Tok::Int(n) => format!("#{n}"),
                    Tok::Word => format!("w{source}"),
                    Tok::Str(s) => format!("s{}", String::from_utf8_lossy(&s)),
                    Tok::Bad => "!".to_string(),
                    _ => source.to_string(),
                };
                got.push(kind);
            }
            assert_eq!(got, want, "{text}");
        };
        check("\u{feff}if ($rU==\"a\")", &["if", "(", "$rU", "==", "sa", ")"]);
        check("a # c \" ;\r\nb /* x /* y */ z */ c", &["a", "b", "c"]);
        check(
            "127.0.0.1 127.0.0.0/8 10.0.0.0/255.0.0.0",
            &["w127.0.0.1", "w127.0.0.0/8", "w10.0.0.0/255.0.0.0"],
        );
        check("1.5 2001:db8::1 case 1:x", &["w1.5", "w2001:db8::1", "case", "#1", ":", "x"]);
        check("uri:host msg:len 'a\\n'", &["wuri:host", "wmsg:len", "sa\\n"]);
        check("$var(x):=5", &["$var(x)", ":=", "#5"]);
        check("$(ru=1; x", &["!", "=", "#1", ";", "x"]);
        check("\"open", &["!"]);
    }
}
