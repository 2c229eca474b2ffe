//! `ua-filtering`: which user agents a look-up takes, by a POSIX expression: a basic one, unless
//! `extended-regexp` is said.

use script::posix::{self, Case};

/// The expression while flags are read.
#[derive(Default)]
pub struct Filter {
    pattern: Option<String>,
    pub any_case: bool,
    pub extended: bool,
}

impl Filter {
    /// `/regexp/`, with letters behind it: `i` any case, `e` extended.
    pub fn read(&mut self, value: &str) -> Result<(), String> {
        let body = value.strip_prefix('/').and_then(|v| v.rsplit_once('/'));
        let (pattern, letters) = body.filter(|(p, _)| !p.is_empty()).ok_or("ua-filtering needs /regexp/")?;
        self.any_case |= letters.contains('i');
        self.extended |= letters.contains('e');
        self.pattern = Some(pattern.to_string());
        Ok(())
    }

    pub fn build(self) -> Result<Option<posix::Pattern>, String> {
        let Some(pattern) = self.pattern else { return Ok(None) };
        let case = if self.any_case { Case::Ignore } else { Case::Sensitive };
        let pattern = if self.extended { pattern.into_bytes() } else { extended(pattern.as_bytes()) };
        posix::compile(&pattern, case).map(Some).map_err(|e| format!("ua-filtering: {e}"))
    }
}

/// A basic regular expression as an extended one (POSIX.1-2017 §9.3, with the GNU escapes `\+ \? \|`):
/// what is special with a backslash in one is so without it in the other.
fn extended(basic: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(basic.len() + 8);
    let mut rest = basic;
    // A star that repeats nothing is a star.
    let mut start = true;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let was_start = std::mem::replace(&mut start, false);
        match byte {
            b'\\' => {
                let Some((&next, tail)) = rest.split_first() else {
                    out.push(byte);
                    break;
                };
                rest = tail;
                match next {
                    b'(' | b')' | b'{' | b'}' | b'|' | b'+' | b'?' => out.push(next),
                    _ => out.extend([b'\\', next]),
                }
                start = matches!(next, b'(' | b'|');
            }
            b'(' | b')' | b'{' | b'}' | b'|' | b'+' | b'?' => out.extend([b'\\', byte]),
            b'*' if was_start => out.extend(b"\\*"),
            b'^' if !was_start => out.extend(b"\\^"),
            b'$' if !(rest.is_empty() || rest.starts_with(b"\\)") || rest.starts_with(b"\\|")) => {
                out.extend(b"\\$")
            }
            b'[' => {
                let end = bracket_end(rest);
                out.push(b'[');
                out.extend(&rest[..end]);
                rest = &rest[end..];
            }
            _ => out.push(byte),
        }
        start |= byte == b'^' && was_start;
    }
    out
}

/// Where `]...` of a bracket expression ends, its closing bracket included.
fn bracket_end(inside: &[u8]) -> usize {
    let first = usize::from(inside.starts_with(b"^"));
    let mut at = first + usize::from(inside.get(first) == Some(&b']'));
    while at < inside.len() {
        if inside[at] == b'[' && matches!(inside.get(at + 1), Some(b':' | b'.' | b'=')) {
            let class = [inside[at + 1], b']'];
            at += inside[at + 2..].windows(2).position(|w| w == class).map_or(2, |found| found + 4);
        } else if inside[at] == b']' {
            return at + 1;
        } else {
            at += 1;
        }
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_expressions() {
        for (basic, same) in [
            ("Phone", "Phone"),
            ("(X|y)+", r"\(X\|y\)\+"),
            (r"\(X\|y\)\{2\}", "(X|y){2}"),
            ("*a*", r"\*a*"),
            (r"\(*a\)", r"(\*a)"),
            ("^a^b$c$", r"^a\^b\$c$"),
            ("[]()]x", "[]()]x"),
            ("[^[:alpha:]|]?", r"[^[:alpha:]|]\?"),
            (r"a\.b", r"a\.b"),
        ] {
            assert_eq!(String::from_utf8(extended(basic.as_bytes())).expect("text"), same, "{basic}");
        }
    }

    #[test]
    fn letters_behind_the_expression() {
        for (value, agent, fits) in [
            ("/phone/", "Phone X1", false),
            ("/phone/i", "Phone X1", true),
            ("/(X|y)1/", "Phone X1", false),
            ("/(X|y)1/e", "Phone X1", true),
        ] {
            let mut filter = Filter::default();
            filter.read(value).expect("an expression");
            let regex = filter.build().expect("a correct one").expect("one");
            assert_eq!(regex.is_match(agent.as_bytes()), fits, "{value}");
        }
    }
}
