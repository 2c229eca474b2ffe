//! Rules of files like `permissions.allow`: `left : right`, each ALL or a list of regular expressions, with
//! EXCEPT.

use script::posix::{self, Case};
use std::path::Path;

/// One side of a rule.
#[derive(Debug)]
struct Side {
    /// Empty: ALL.
    any_of: Vec<posix::Pattern>,
    none_of: Vec<posix::Pattern>,
}

impl Side {
    fn matches(&self, text: &[u8]) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(|r| r.is_match(text)))
            && !self.none_of.iter().any(|r| r.is_match(text))
    }

    fn parse(text: &str) -> Result<Side, String> {
        let (any, none) = match text.split_once(" EXCEPT ") {
            Some((any, none)) => (any, list(none)?),
            None => (text, Vec::new()),
        };
        let any_of = if any.trim() == "ALL" { Vec::new() } else { list(any)? };
        Ok(Side { any_of, none_of: none })
    }
}

/// Regular expressions with commas between them, in quotes or not.
fn list(text: &str) -> Result<Vec<posix::Pattern>, String> {
    outside_quotes(text, ',')
        .into_iter()
        .map(|part| {
            let part = part.trim();
            let part = part.strip_prefix('"').unwrap_or(part);
            let part = part.strip_suffix('"').unwrap_or(part);
            if part.is_empty() {
                return Err("an expression is empty".to_string());
            }
            posix::compile(part.as_bytes(), Case::Ignore).map_err(|e| format!("\"{part}\": {e}"))
        })
        .collect()
}

/// Splits at a character that stands outside quotes.
fn outside_quotes(text: &str, at: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c| {
        if c == '"' {
            quoted = !quoted;
        }
        c == at && !quoted
    })
    .collect()
}

/// The rules of one file.
#[derive(Debug, Default)]
pub struct Rules(Vec<(Side, Side)>);

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn allow(&self, left: &[u8], right: &[u8]) -> bool {
        self.0.iter().any(|(l, r)| l.matches(left) && r.matches(right))
    }

    /// Reads a file; one that does not exist has no rules. Lines that cannot be read are left out and said.
    pub fn read(path: &Path) -> Rules {
        match std::fs::read_to_string(path) {
            Ok(text) => Rules::parse(&text, &path.display().to_string()),
            Err(error) => {
                host::info!("permissions", "{}: {error}: no rules", path.display());
                Rules::default()
            }
        }
    }

    fn parse(text: &str, file: &str) -> Rules {
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = outside_quotes(line, '#')[0];
            if line.trim().is_empty() {
                continue;
            }
            // The last colon outside quotes is the one that counts.
            let rule = match outside_quotes(line, ':')[..] {
                [.., right] if right.len() < line.len() => {
                    let left = &line[..line.len() - right.len() - 1];
                    Side::parse(left).and_then(|l| Ok((l, Side::parse(right)?)))
                }
                _ => Err("a rule is written left : right".to_string()),
            };
            match rule {
                Ok(rule) => rules.push(rule),
                Err(why) => host::error!("permissions", "{file}:{}: {why}", number + 1),
            }
        }
        Rules(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_pairs() {
        let text = "# comment\nALL : \"^sip:1.*\" , \"^sip:bob@.*\"\n\"^sip:alice@.*\" : ALL EXCEPT \"^sip:9.*\"\n\
                    \"^sip:a:b\" : \"#x\" # more\nbroken line\nALL : \"[\"\n^plain, other : @q,\"^sip:r\"\n";
        let rules = Rules::parse(text, "test");
        assert_eq!(rules.0.len(), 4);
        for (left, right, expected) in [
            ("sip:zed@x", "sip:123@y", true),
            ("sip:zed@x", "sip:bob@y", true),
            ("sip:zed@x", "sip:eve@y", false),
            ("sip:ALICE@x", "sip:eve@y", true),
            ("sip:alice@x", "sip:900@y", false),
            ("sip:a:b", "a#x", true),
            ("plain", "sip:x@q", true),
            ("other", "SIP:R", true),
            ("none", "sip:r", false),
        ] {
            assert_eq!(rules.allow(left.as_bytes(), right.as_bytes()), expected, "{left} {right}");
        }
    }
}
