//! Expressions of PCRE, on the crate fancy-regex: look-around and back-references work, and an expression
//! that tries too many ways is a failure, not a stop.

use ahash::AHashMap;
use bytes::Bytes;
use fancy_regex::{Regex, RegexBuilder};
use host::Ctx;
use std::rc::Rc;

/// Ways that one match may try.
const BACKTRACK_LIMIT: usize = 100_000;
/// Expressions that one worker keeps compiled; past it the worker starts anew.
const MAX_KEPT: usize = 1000;

/// How an expression is read.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Options {
    pub caseless: bool,
    /// `^` and `$` match at lines.
    pub multiline: bool,
    /// `.` matches line ends.
    pub dotall: bool,
    /// Blanks do not count.
    pub extended: bool,
}

/// The error is what is wrong with the expression.
pub fn compile(pattern: &str, options: Options) -> Result<Regex, String> {
    RegexBuilder::new(&unquoted(pattern))
        .case_insensitive(options.caseless)
        .multi_line(options.multiline)
        .dot_matches_new_line(options.dotall)
        .ignore_whitespace(options.extended)
        .backtrack_limit(BACKTRACK_LIMIT)
        .build()
        .map_err(|error| error.to_string())
}

/// `\Q...\E` as escapes.
fn unquoted(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find("\\Q") {
        // A backslash before it is an escaped one when their number is odd.
        let slashes = rest[..at].bytes().rev().take_while(|b| *b == b'\\').count();
        if slashes % 2 == 1 {
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        let inside = &rest[at + 2..];
        let end = inside.find("\\E").unwrap_or(inside.len());
        out.push_str(&rest[..at]);
        out.push_str(&fancy_regex::escape(&inside[..end]));
        rest = inside.get(end + 2..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Expressions known only at run time.
#[derive(Default)]
struct Kept(AHashMap<(Bytes, Options), Option<Rc<Regex>>>);

/// The compiled expression; `None`: it is malformed, which is logged once.
pub fn compiled(ctx: &mut Ctx, pattern: &Bytes, options: Options) -> Option<Rc<Regex>> {
    let kept = &mut ctx.local::<Kept>().0;
    if let Some(found) = kept.get(&(pattern.clone(), options)) {
        return found.clone();
    }
    let compiled = compile(&String::from_utf8_lossy(pattern), options)
        .inspect_err(|error| host::warn!("regex", "{}: {error}", String::from_utf8_lossy(pattern)));
    let compiled = compiled.ok().map(Rc::new);
    if kept.len() >= MAX_KEPT {
        kept.clear();
    }
    kept.insert((Bytes::copy_from_slice(pattern), options), compiled.clone());
    compiled
}

/// `/pattern/replacement/flags` with any delimiter, in its parts.
pub fn split(text: &Bytes) -> Option<(Bytes, Bytes, Bytes)> {
    let delimiter = *text.first().filter(|d| **d != b'\\')?;
    let next = |from: usize| {
        let mut at = from;
        while at < text.len() && text[at] != delimiter {
            at += if text[at] == b'\\' { 2 } else { 1 };
        }
        (at < text.len()).then_some(at)
    };
    let middle = next(1)?;
    let end = next(middle + 1)?;
    Some((text.slice(1..middle), text.slice(middle + 1..end), text.slice(end + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_parts() {
        for (pattern, want) in
            [(r"\Q+1.2\E\d", r"\+1\.2\d"), (r"a\Qb*", r"ab\*"), (r"a\\Qb", r"a\\Qb"), (r"plain", "plain")]
        {
            assert_eq!(unquoted(pattern), want, "{pattern}");
        }
    }

    #[test]
    fn substitutions_in_parts() {
        let check = |text: &'static str, want: Option<(&str, &str, &str)>| {
            let have = split(&Bytes::from_static(text.as_bytes()));
            let have = have.as_ref().map(|(a, b, c)| (&a[..], &b[..], &c[..]));
            assert_eq!(have, want.map(|(a, b, c)| (a.as_bytes(), b.as_bytes(), c.as_bytes())), "{text}");
        };
        check("/a/b/g", Some(("a", "b", "g")));
        check(r"/a\/b/c/", Some((r"a\/b", "c", "")));
        check("#a#/#i", Some(("a", "/", "i")));
        check("/a/b", None);
        check("", None);
        check(r"\a\b\", None);
    }

    #[test]
    fn hostile_expressions_end() {
        let regex = compile(r"^(a+)+(?=b)$", Options::default()).unwrap();
        // It fails or gives up; what matters is that it comes back.
        assert!(!matches!(regex.is_match(&"a".repeat(40)), Ok(true)));
    }
}
