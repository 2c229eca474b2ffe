//! What is expected of a text: the text itself, an expression between slashes, or that there is none.

use super::yaml::Problem;
use regex::Regex;
use std::fmt;

#[derive(Clone, Debug)]
pub enum Pattern {
    Text(String),
    Regex(Regex),
    /// `(none)`: it must not be there.
    Absent,
}

impl Pattern {
    /// `text`, `/expression/`, `/expression/i` or `(none)`.
    pub fn parse(text: &str, line: usize) -> Result<Pattern, Problem> {
        let text = text.trim();
        if text == "(none)" {
            return Ok(Pattern::Absent);
        }
        let (body, flags) = match text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/')) {
            Some((body, flags @ ("" | "i"))) => (body, flags),
            _ => return Ok(Pattern::Text(text.to_string())),
        };
        let whole = if flags == "i" { format!("(?i){body}") } else { body.to_string() };
        Regex::new(&whole)
            .map(Pattern::Regex)
            .map_err(|e| Problem::new(line, format!("this is no regular expression: {e}")))
    }

    pub fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Text(wanted) => wanted == text.trim(),
            Pattern::Regex(regex) => regex.is_match(text),
            Pattern::Absent => false,
        }
    }

    /// One of these fits; for `(none)`: there is none.
    pub fn matches_any<'a>(&self, mut texts: impl Iterator<Item = &'a str>) -> bool {
        match self {
            Pattern::Absent => texts.next().is_none(),
            pattern => texts.any(|text| pattern.matches(text)),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Text(text) => f.write_str(text),
            Pattern::Regex(regex) => write!(f, "/{regex}/"),
            Pattern::Absent => f.write_str("(none)"),
        }
    }
}

/// A scenario does not last longer; milliseconds.
const LONGEST: u64 = 31 * 24 * 3_600_000;

/// "200 ms", "5 s", "2 min", "1 h"; a number alone is seconds. Milliseconds.
pub fn duration(text: &str, line: usize) -> Result<u64, Problem> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "ms" => 1.0,
        "" | "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        _ => 0.0,
    };
    let number = text[..digits].parse::<f64>().ok().filter(|_| unit > 0.0);
    let wrong = || Problem::new(line, format!("`{text}` is no time: 200 ms, 5 s, 2 min, 1 h"));
    let ms = number.map(|n| (n * unit) as u64).ok_or_else(wrong)?;
    if ms > LONGEST {
        return Err(Problem::new(line, format!("`{text}` is too long: 31 days at most")));
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("abc", " abc ", true),
            ("abc", "abcd", false),
            ("/b./", "abcd", true),
            ("/B/i", "abcd", true),
            ("/a/b", "/a/b", true),
            ("(none)", "", false),
        ] {
            assert_eq!(Pattern::parse(pattern, 1).unwrap().matches(text), fits, "{pattern}");
        }
        assert!(Pattern::parse("(none)", 1).unwrap().matches_any([].into_iter()));
        assert!(Pattern::parse("/(/", 7).unwrap_err().line == 7);
    }

    #[test]
    fn times() {
        for (text, ms) in [("200 ms", 200), ("5s", 5000), ("1.5 s", 1500), ("2", 2000), ("2 min", 120_000)] {
            assert_eq!(duration(text, 1).unwrap(), ms, "{text}");
        }
        for wrong in ["soon", "", "99999999999999 s", "32 h 5", "745 h"] {
            assert!(duration(wrong, 1).is_err(), "{wrong}");
        }
        assert!(duration("744 h", 1).is_ok());
    }
}
