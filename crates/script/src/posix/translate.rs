//! From a POSIX extended regular expression, as glibc reads it, to one of the `regex` crate.

use super::{BadPattern, bad};
use std::fmt::Write as _;

/// A pattern in the other syntax.
pub(super) struct Translated {
    pub text: String,
    /// It has `\1` to `\9`.
    pub refers_back: bool,
    /// Where matches begin is the same for both syntaxes; where they end may differ: it has alternatives, or repeats
    /// more than single characters.
    pub ambiguous: bool,
}

/// `lines`: `REG_NEWLINE`.
pub(super) fn translate(pattern: &[u8], lines: bool) -> Result<Translated, BadPattern> {
    Translator { pattern, lines, ..Translator::default() }.run()
}

/// Most repetitions of an interval (`RE_DUP_MAX`).
const MAX_REPEAT: u32 = 32_767;

#[derive(Default)]
struct Translator<'a> {
    pattern: &'a [u8],
    at: usize,
    out: String,
    lines: bool,
    /// Groups begun so far.
    groups: u8,
    /// Groups that a back-reference may name here, by bit.
    complete: u16,
    refers_back: bool,
    ambiguous: bool,
}

/// What may stand before a repetition operator.
#[derive(Clone, Copy)]
enum Before {
    /// Nothing to repeat: the start of the pattern, of a group or of an alternative, or an anchor.
    Nothing,
    /// One character, written from here on.
    Char(usize),
    /// A group or a back-reference.
    Whole(usize),
    /// An atom with its repetition.
    Repeated(usize),
}

/// A group that is open.
struct Open {
    start: usize,
    number: u8,
    /// What was complete before it, and in the alternatives of it that have ended.
    complete: u16,
    ended: u16,
}

impl Translator<'_> {
    fn run(mut self) -> Result<Translated, BadPattern> {
        let mut open: Vec<Open> = Vec::new();
        let mut before = Before::Nothing;
        while let Some(&byte) = self.pattern.get(self.at) {
            self.at += 1;
            let start = self.out.len();
            before = match byte {
                b'(' => {
                    self.groups = self.groups.saturating_add(1);
                    open.push(Open { start, number: self.groups, complete: self.complete, ended: 0 });
                    self.out.push('(');
                    Before::Nothing
                }
                b')' if !open.is_empty() => {
                    let group = open.pop().expect("just seen");
                    self.out.push(')');
                    self.complete |= group.ended | 1u16.checked_shl(group.number.into()).unwrap_or(0);
                    Before::Whole(group.start)
                }
                b'|' => {
                    self.out.push('|');
                    self.ambiguous = true;
                    self.complete = open.last_mut().map_or(0, |group| {
                        group.ended |= self.complete;
                        group.complete
                    });
                    Before::Nothing
                }
                b'^' | b'$' => {
                    self.out.push(char::from(byte));
                    Before::Nothing
                }
                b'*' | b'+' | b'?' => self.repeat(before, char::from(byte).to_string())?,
                b'{' => {
                    let interval = self.interval()?;
                    self.repeat(before, interval)?
                }
                b'[' => {
                    self.bracket()?;
                    Before::Char(start)
                }
                b'.' => {
                    self.out.push('.');
                    Before::Char(start)
                }
                b'\\' => self.escape(start)?,
                other => self.literal(other, start),
            };
        }
        if !open.is_empty() {
            return Err(bad("unmatched ( in the pattern"));
        }
        Ok(Translated { text: self.out, refers_back: self.refers_back, ambiguous: self.ambiguous })
    }

    fn literal(&mut self, byte: u8, start: usize) -> Before {
        push_literal(&mut self.out, byte);
        Before::Char(start)
    }

    fn repeat(&mut self, before: Before, operator: String) -> Result<Before, BadPattern> {
        let start = match before {
            Before::Nothing => return Err(bad(format!("nothing to repeat before {operator}"))),
            Before::Char(start) => start,
            Before::Whole(start) => {
                self.ambiguous = true;
                start
            }
            // `a+?` repeats the repetition; unwrapped it would mean a lazy one.
            Before::Repeated(start) => {
                self.ambiguous = true;
                self.out.insert_str(start, "(?:");
                self.out.push(')');
                start
            }
        };
        self.out.push_str(&operator);
        Ok(Before::Repeated(start))
    }

    /// `{2}`, `{2,}`, `{2,5}`, `{,5}`, `{,}` after its brace.
    fn interval(&mut self) -> Result<String, BadPattern> {
        let rest = &self.pattern[self.at..];
        let wrong = || bad("{ must begin an interval like {2}, {2,} or {2,5}; a brace itself is \\{");
        let end = memchr::memchr(b'}', rest).ok_or_else(wrong)?;
        let inside = &rest[..end];
        let (low, high) = match memchr::memchr(b',', inside) {
            Some(comma) => (&inside[..comma], Some(&inside[comma + 1..])),
            None => (inside, None),
        };
        let number = |digits: &[u8]| match digits {
            [] => Ok(None),
            digits if !digits.iter().all(u8::is_ascii_digit) => Err(wrong()),
            digits => {
                let n = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u32>().ok());
                let n = n.filter(|n| *n <= MAX_REPEAT);
                n.map(Some).ok_or_else(|| bad(format!("an interval above {MAX_REPEAT}")))
            }
        };
        let text = match (number(low)?, high.map(number).transpose()?) {
            (None, None) => return Err(wrong()),
            (low, None) => format!("{{{}}}", low.unwrap_or(0)),
            (low, Some(None)) => format!("{{{},}}", low.unwrap_or(0)),
            (low, Some(Some(high))) if low.unwrap_or(0) > high => {
                return Err(bad("an interval that ends before it begins"));
            }
            (low, Some(Some(high))) => format!("{{{},{high}}}", low.unwrap_or(0)),
        };
        self.at += end + 1;
        Ok(text)
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
            b'w' => return Ok(self.class_escape("[0-9A-Za-z_]", start)),
            b'W' => return Ok(self.class_escape("[^0-9A-Za-z_]", start)),
            b's' => return Ok(self.class_escape(r"[ \t\n\x0b\x0c\r]", start)),
            b'S' => return Ok(self.class_escape(r"[^ \t\n\x0b\x0c\r]", start)),
            b'1'..=b'9' => return self.back_reference(byte, start),
            other => return Ok(self.literal(other, start)),
        };
        self.out.push_str(anchor);
        Ok(Before::Nothing)
    }

    fn class_escape(&mut self, class: &str, start: usize) -> Before {
        self.out.push_str(class);
        Before::Char(start)
    }

    fn back_reference(&mut self, digit: u8, start: usize) -> Result<Before, BadPattern> {
        if self.complete & (1 << (digit - b'0')) == 0 {
            return Err(bad(format!(
                "\\{} refers to a group that is not complete before it",
                char::from(digit)
            )));
        }
        self.refers_back = true;
        // The digit that follows is no part of it.
        self.out.push_str("(?:\\");
        self.out.push(char::from(digit));
        self.out.push(')');
        Ok(Before::Whole(start))
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
                b'[' if self.pattern.get(self.at + 1) == Some(&b':') => {
                    self.class()?;
                    let next = self.pattern.get(self.at..).unwrap_or_default();
                    if let [b'-', b, ..] = next
                        && *b != b']'
                    {
                        return Err(bad("a range in [ ] that begins with a class"));
                    }
                }
                _ => self.member(self.at == first)?,
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

    /// One character or range. A hyphen stands first, last, or between the ends of a range.
    fn member(&mut self, first: bool) -> Result<(), BadPattern> {
        let after = |n: usize| self.pattern.get(self.at + n);
        if !first && after(0) == Some(&b'-') && after(1).is_some_and(|b| *b != b']') {
            return Err(bad("a hyphen within [ ] that is neither first nor last nor in a range"));
        }
        let (low, equivalence) = self.element()?;
        let dash = self.pattern.get(self.at) == Some(&b'-');
        let ranges = dash && self.pattern.get(self.at + 1).is_some_and(|b| *b != b']');
        push_in_class(&mut self.out, low);
        if ranges {
            self.at += 1;
            let (high, end_is_equivalence) = self.element()?;
            if high < low || equivalence || end_is_equivalence {
                return Err(bad("a range in [ ] ends before it begins, or not at characters"));
            }
            self.out.push('-');
            push_in_class(&mut self.out, high);
        }
        Ok(())
    }

    /// A character, or `[.x.]` and `[=x=]` for one; the last is an equivalence class.
    fn element(&mut self) -> Result<(u8, bool), BadPattern> {
        let rest = &self.pattern[self.at..];
        match rest {
            [b'[', kind @ (b'.' | b'='), x, close, b']', ..] if kind == close => {
                self.at += 5;
                Ok((*x, *kind == b'='))
            }
            [b'[', b'.' | b'=' | b':', ..] => {
                Err(bad("a class or element within [ ] that is unknown or not closed"))
            }
            [byte, ..] => {
                self.at += 1;
                Ok((*byte, false))
            }
            [] => Err(bad("unmatched [ in the pattern")),
        }
    }
}

/// A byte as itself. Beyond ASCII it is a character of its own (Latin-1): the expression knows no UTF-8.
fn push_literal(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || b" _@:;,/\"=%!'#&~`".contains(&byte) {
        out.push(char::from(byte));
    } else {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

fn push_in_class(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || byte == b' ' {
        out.push(char::from(byte));
    } else {
        let _ = write!(out, "\\x{byte:02x}");
    }
}
