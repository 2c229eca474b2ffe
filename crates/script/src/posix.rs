//! POSIX extended regular expressions, as scripts write them, on the `regex` crate.
//!
//! Bytes, no Unicode; `.` and `[^x]` match a newline, `^` and `$` only the ends, as `regcomp` without
//! `REG_NEWLINE` has it. The GNU escapes `\w \W \s \S \b \B \< \> \` \'` are known, any other escaped
//! character is itself. Back-references are refused. Where alternatives match at the same place POSIX
//! wants the longest and this takes the first: that shows in what is captured or replaced, not in whether
//! a text matches.

use regex::bytes::{Regex, RegexBuilder};
use std::fmt::Write as _;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    Sensitive,
    /// As `=~` and `!~` match.
    Ignore,
}

/// Why a pattern is refused, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadPattern {
    pub reason: String,
}

impl std::fmt::Display for BadPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for BadPattern {}

fn bad(reason: impl Into<String>) -> BadPattern {
    BadPattern { reason: reason.into() }
}

/// A compiled program may take this much memory.
const SIZE_LIMIT: usize = 4 << 20;

/// Compiles a pattern. Capture groups are numbered as written.
pub fn compile(pattern: &[u8], case: Case) -> Result<Regex, BadPattern> {
    build(pattern, case, false)
}

/// The same with `REG_NEWLINE`: `.` and `[^x]` stop at newlines, `^` and `$` match at lines.
pub fn compile_lines(pattern: &[u8], case: Case) -> Result<Regex, BadPattern> {
    build(pattern, case, true)
}

fn build(pattern: &[u8], case: Case, lines: bool) -> Result<Regex, BadPattern> {
    let translated =
        Translator { pattern, at: 0, out: String::with_capacity(pattern.len() + 16), lines }.run()?;
    RegexBuilder::new(&translated)
        .unicode(false)
        .case_insensitive(case == Case::Ignore)
        .dot_matches_new_line(!lines)
        .multi_line(lines)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => bad("the pattern is too large"),
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                bad(last.trim_start_matches("error: ").to_string())
            }
        })
}

struct Translator<'a> {
    pattern: &'a [u8],
    at: usize,
    out: String,
    lines: bool,
}

/// What may stand before a repetition operator.
#[derive(Clone, Copy)]
enum Before {
    /// Nothing to repeat: the start of the pattern, of a group or of an alternative, or an anchor.
    Nothing,
    /// An atom, written from here on.
    Atom(usize),
    /// An atom with its repetition.
    Repeated(usize),
}

impl Translator<'_> {
    fn run(mut self) -> Result<String, BadPattern> {
        let mut open: Vec<usize> = Vec::new();
        let mut before = Before::Nothing;
        while let Some(&byte) = self.pattern.get(self.at) {
            self.at += 1;
            let start = self.out.len();
            before = match byte {
                b'(' => {
                    open.push(start);
                    self.out.push('(');
                    Before::Nothing
                }
                b')' if !open.is_empty() => {
                    let group = open.pop().expect("just seen");
                    self.out.push(')');
                    Before::Atom(group)
                }
                b'|' => {
                    self.out.push('|');
                    Before::Nothing
                }
                b'^' | b'$' => {
                    self.out.push(char::from(byte));
                    Before::Nothing
                }
                b'*' | b'+' | b'?' => self.repeat(before, char::from(byte).to_string())?,
                b'{' => match self.interval()? {
                    Some(interval) => self.repeat(before, interval)?,
                    None => self.literal(b'{', start),
                },
                b'[' => {
                    self.bracket()?;
                    Before::Atom(start)
                }
                b'.' => {
                    self.out.push('.');
                    Before::Atom(start)
                }
                b'\\' => self.escape(start)?,
                other => self.literal(other, start),
            };
        }
        if !open.is_empty() {
            return Err(bad("unmatched ( in the pattern"));
        }
        Ok(self.out)
    }

    fn literal(&mut self, byte: u8, start: usize) -> Before {
        push_literal(&mut self.out, byte);
        Before::Atom(start)
    }

    fn repeat(&mut self, before: Before, operator: String) -> Result<Before, BadPattern> {
        let start = match before {
            Before::Nothing => return Err(bad(format!("nothing to repeat before {operator}"))),
            Before::Atom(start) => start,
            // `a+?` repeats the repetition; unwrapped it would mean a lazy one.
            Before::Repeated(start) => {
                self.out.insert_str(start, "(?:");
                self.out.push(')');
                start
            }
        };
        self.out.push_str(&operator);
        Ok(Before::Repeated(start))
    }

    /// `{2}`, `{2,}`, `{2,5}`, `{,5}` after its brace; anything else is a plain brace.
    fn interval(&mut self) -> Result<Option<String>, BadPattern> {
        let rest = &self.pattern[self.at..];
        let Some(end) = memchr::memchr(b'}', rest) else { return Ok(None) };
        let inside = &rest[..end];
        let (low, high) = match memchr::memchr(b',', inside) {
            Some(comma) => (&inside[..comma], Some(&inside[comma + 1..])),
            None => (inside, None),
        };
        let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        if !digits(low) || !high.is_none_or(digits) || (low.is_empty() && high.is_none_or(<[u8]>::is_empty)) {
            return Ok(None);
        }
        self.at += end + 1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let low = if low.is_empty() { "0".to_string() } else { text(low) };
        Ok(Some(match high {
            None => format!("{{{low}}}"),
            Some(high) => format!("{{{low},{}}}", text(high)),
        }))
    }

    fn escape(&mut self, start: usize) -> Result<Before, BadPattern> {
        let Some(&byte) = self.pattern.get(self.at) else {
            return Err(bad("the pattern ends in a backslash"));
        };
        self.at += 1;
        let anchor = match byte {
            b'b' => r"\b",
            b'B' => r"\B",
            b'<' => r"\b{start}",
            b'>' => r"\b{end}",
            b'`' => r"\A",
            b'\'' => r"\z",
            b'w' | b'W' | b's' | b'S' => {
                self.out.push('\\');
                self.out.push(char::from(byte));
                return Ok(Before::Atom(start));
            }
            b'1'..=b'9' => return Err(bad("back-references are not supported")),
            other => return Ok(self.literal(other, start)),
        };
        self.out.push_str(anchor);
        Ok(Before::Nothing)
    }

    /// A bracket expression after its `[`. A backslash in it is an ordinary character.
    fn bracket(&mut self) -> Result<(), BadPattern> {
        self.out.push('[');
        let negated = self.pattern.get(self.at) == Some(&b'^');
        if negated {
            self.out.push('^');
            if self.lines {
                self.out.push_str("\\n");
            }
            self.at += 1;
        }
        let first = self.at;
        loop {
            let Some(&byte) = self.pattern.get(self.at) else {
                return Err(bad("unmatched [ in the pattern"));
            };
            match byte {
                b']' if self.at > first => {
                    self.at += 1;
                    self.out.push(']');
                    return Ok(());
                }
                b'[' if self.pattern.get(self.at + 1) == Some(&b':') => self.class()?,
                _ => self.member()?,
            }
        }
    }

    /// `[:alpha:]` inside brackets.
    fn class(&mut self) -> Result<(), BadPattern> {
        let name = &self.pattern[self.at + 2..];
        let end = memchr::memmem::find(name, b":]").ok_or_else(|| bad("unmatched [: in the pattern"))?;
        let name = &name[..end];
        const NAMES: [&str; 12] = [
            "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
            "upper", "xdigit",
        ];
        let known = NAMES.into_iter().find(|n| n.as_bytes() == name);
        let name =
            known.ok_or_else(|| bad(format!("unknown class [:{}:]", String::from_utf8_lossy(name))))?;
        let _ = write!(self.out, "[:{name}:]");
        self.at += end + 4;
        Ok(())
    }

    /// One character or range.
    fn member(&mut self) -> Result<(), BadPattern> {
        let low = self.element()?;
        let dash = self.pattern.get(self.at) == Some(&b'-');
        let ranges = dash && self.pattern.get(self.at + 1).is_some_and(|b| *b != b']');
        push_in_class(&mut self.out, low);
        if ranges {
            self.at += 1;
            let high = self.element()?;
            if high < low {
                return Err(bad("a range in [ ] ends before it begins"));
            }
            self.out.push('-');
            push_in_class(&mut self.out, high);
        }
        Ok(())
    }

    /// A character, or `[.x.]` and `[=x=]` for one.
    fn element(&mut self) -> Result<u8, BadPattern> {
        let rest = &self.pattern[self.at..];
        if let [b'[', kind @ (b'.' | b'='), x, close, b']', ..] = rest
            && kind == close
        {
            self.at += 5;
            return Ok(*x);
        }
        self.at += 1;
        rest.first().copied().ok_or_else(|| bad("unmatched [ in the pattern"))
    }
}

fn push_literal(out: &mut String, byte: u8) {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'_' | b'@' | b':' | b';' | b',' | b'/' | b'"' => {
            out.push(char::from(byte))
        }
        byte if byte.is_ascii_punctuation() => {
            out.push('\\');
            out.push(char::from(byte));
        }
        byte => {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

fn push_in_class(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || byte == b' ' {
        out.push(char::from(byte));
    } else {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, want: Option<bool>) {
        let got = compile(pattern.as_bytes(), Case::Ignore).ok().map(|r| r.is_match(text.as_bytes()));
        assert_eq!(got, want, "{pattern} on {text:?}");
    }

    /// Patterns, texts and results of golden area cmp.re, and what follows from the manual of regcomp.
    #[test]
    fn patterns() {
        let cases: &[(&str, &str, Option<bool>)] = &[
            ("b$", "bob", Some(true)),
            ("B", "bob", Some(true)),
            ("^[a-c]ob$", "bob", Some(true)),
            ("", "bob", Some(true)),
            ("x", "", Some(false)),
            ("^(bob|al)$", "bob", Some(true)),
            (r"^\+1", "+1555", Some(true)),
            (r"a\.b", "axb", Some(false)),
            ("^[0-9]{6}$", "12345", Some(false)),
            ("^1800*", "1802", Some(true)),
            ("a[[:space:]]b", "a b", Some(true)),
            (r"\d", "a1", Some(false)),
            ("a(?=b)", "ab", None),
            ("[ab", "ab", None),
            ("*", "abc", None),
            ("a(b", "ab", None),
            ("a.b", "a\nb", Some(true)),
            ("h.llo", "héllo", Some(false)),
            ("é", "É", Some(false)),
            ("a++", "abc", Some(true)),
            ("abc$$", "abc", Some(true)),
            (r"a\$", "a$$b", Some(true)),
            (r"^b\w", "bob", Some(true)),
            ("$var(p)", "bob", Some(false)),
            ("^b.b$", "^b.b$", Some(false)),
            ("^[0-9]$$", "5", Some(true)),
            ("^a+?$", "", Some(true)),
            ("a)", "a)", Some(true)),
            ("a{2}", "aa", Some(true)),
            ("^a{,2}$", "aaa", Some(false)),
            ("a{x", "a{x", Some(true)),
            ("a{}", "a{}", Some(true)),
            ("[]a]", "]", Some(true)),
            ("[^]a]", "]", Some(false)),
            (r"[\d]", "\\", Some(true)),
            ("[a-]", "-", Some(true)),
            ("[[.-.]]", "-", Some(true)),
            ("[[:foo:]]", "a", None),
            ("[z-a]", "a", None),
            ("[&&a]", "&", Some(true)),
            ("[a&&b]", "a", Some(true)),
            ("[a~~b--c]", "~", None),
            ("(a)(b)", "ab", Some(true)),
            (r"(a)\1", "aa", None),
            ("a|", "b", Some(true)),
            ("()", "b", Some(true)),
            ("a|*", "b", None),
            (r"\<bob\>", "a bob b", Some(true)),
            (r"\<bob\>", "abobb", Some(false)),
            ("sip:.*@(10\\.|192\\.168\\.)", "sip:a@192.168.1.1", Some(true)),
            ("#x", "#x", Some(true)),
            ("a\\", "a", None),
        ];
        for (pattern, text, want) in cases {
            check(pattern, text, *want);
        }
    }

    #[test]
    fn lines() {
        let r = compile_lines(b"^b.*c$", Case::Sensitive).unwrap();
        assert!(r.is_match(b"a\nbxc\nd"));
        assert!(!r.is_match(b"a\nbx\nc"));
    }
}
