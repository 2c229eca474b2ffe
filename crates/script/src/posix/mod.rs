//! POSIX extended regular expressions, as scripts write them and glibc reads them, on the `regex` crate.
//!
//! Bytes, no Unicode; `.` and `[^x]` match a newline, `^` and `$` only the ends, as `regcomp` without
//! `REG_NEWLINE` has it. The GNU escapes `\w \W \s \S \b \B \< \> \` \'` and `\1` to `\9` are known, any other
//! escaped character is itself.
//!
//! Of the matches that begin first the longest counts (POSIX), where the crate takes that of the first alternative:
//! [`Pattern::find`] asks an automaton of all alternatives how far the match goes, and groups are what leads there.

mod translate;

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::pool::Pool;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use translate::{Translated, translate};

/// Whether upper and lower case differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// They do.
    Sensitive,
    /// As `=~` and `!~` match.
    Ignore,
}

/// Why a pattern is refused, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadPattern {
    /// What is wrong with it.
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

/// A compiled program may take this much memory, in bytes.
const SIZE_LIMIT: usize = 4 << 20;
/// Steps that an expression with back-references may take in one text.
const BACKTRACK_LIMIT: usize = 100_000;

/// A compiled expression; clones share it.
#[derive(Clone)]
pub struct Pattern(Arc<Inner>);

struct Inner {
    /// As it was written.
    source: Vec<u8>,
    how: How,
}

enum How {
    /// What matches, and where it begins.
    Plain { regex: Regex, longest: Option<Box<Longest>> },
    /// Over the text as Latin-1, because it has back-references.
    Backtracking(Box<fancy_regex::Regex>),
}

/// Finds the end of the longest match of an expression that has several.
struct Longest {
    options: Options,
    text: String,
    /// `None`: it is too large for an automaton.
    automaton: OnceLock<Option<Automaton>>,
    /// The same expression up to the end of the text.
    whole: OnceLock<Option<Regex>>,
}

struct Automaton {
    dfa: DFA,
    caches: Pool<
        Cache,
        Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>,
    >,
}

#[derive(Clone, Copy)]
struct Options {
    case: Case,
    lines: bool,
}

/// Where a match and its groups are; 0 is all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Groups(Vec<Option<Range<usize>>>);

impl Groups {
    /// All that matched.
    pub fn range(&self) -> Range<usize> {
        self.get(0).unwrap_or_default()
    }

    /// `None`: there is no such group, or it took no part.
    pub fn get(&self, group: usize) -> Option<Range<usize>> {
        self.0.get(group).cloned().flatten()
    }

    /// What a group matched in `text`, empty when it took no part.
    pub fn text<'t>(&self, text: &'t [u8], group: usize) -> &'t [u8] {
        self.get(group).map_or(&b""[..], |range| &text[range])
    }
}

/// Compiles a pattern. Capture groups are numbered as written.
pub fn compile(pattern: &[u8], case: Case) -> Result<Pattern, BadPattern> {
    build(pattern, Options { case, lines: false })
}

/// The same with `REG_NEWLINE`: `.` and `[^x]` stop at newlines, `^` and `$` match at lines.
pub fn compile_lines(pattern: &[u8], case: Case) -> Result<Pattern, BadPattern> {
    build(pattern, Options { case, lines: true })
}

fn build(pattern: &[u8], options: Options) -> Result<Pattern, BadPattern> {
    let Translated { text, refers_back, ambiguous } = translate(pattern, options.lines)?;
    let how = if refers_back {
        How::Backtracking(Box::new(backtracking(&text, options)?))
    } else {
        let regex = plain(&text, options).map_err(reason)?;
        let longest =
            || Box::new(Longest { options, text, automaton: OnceLock::new(), whole: OnceLock::new() });
        How::Plain { regex, longest: ambiguous.then(longest) }
    };
    Ok(Pattern(Arc::new(Inner { source: pattern.to_vec(), how })))
}

fn plain(text: &str, Options { case, lines }: Options) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .case_insensitive(case == Case::Ignore)
        .dot_matches_new_line(!lines)
        .multi_line(lines)
        .size_limit(SIZE_LIMIT)
        .build()
}

fn reason(error: regex::Error) -> BadPattern {
    match error {
        regex::Error::CompiledTooBig(_) => bad("the pattern is too large"),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            bad(last.trim_start_matches("error: ").to_string())
        }
    }
}

fn backtracking(text: &str, Options { case, lines }: Options) -> Result<fancy_regex::Regex, BadPattern> {
    let flags = match (case, lines) {
        (Case::Ignore, true) => "(?im)",
        (Case::Ignore, false) => "(?is)",
        (Case::Sensitive, true) => "(?m)",
        (Case::Sensitive, false) => "(?s)",
    };
    let built = fancy_regex::RegexBuilder::new(&format!("{flags}{text}"))
        .backtrack_limit(BACKTRACK_LIMIT)
        .delegate_size_limit(SIZE_LIMIT)
        .build();
    built.map_err(|error| bad(error.to_string()))
}

impl Pattern {
    /// As it was written.
    pub fn source(&self) -> &[u8] {
        &self.0.source
    }

    /// Somewhere in the text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        match &self.0.how {
            How::Plain { regex, .. } => regex.is_match(text),
            // Too many steps are no match.
            How::Backtracking(regex) => regex.is_match(&latin1(text)).unwrap_or(false),
        }
    }

    /// The first match that begins at `from` or later; of those that begin there the longest.
    pub fn find_at(&self, text: &[u8], from: usize) -> Option<Range<usize>> {
        match &self.0.how {
            How::Plain { regex, longest } => {
                let found = regex.find_at(text, from)?.range();
                Some(match longest {
                    Some(longest) => found.start..longest.end(text, found),
                    None => found,
                })
            }
            How::Backtracking(_) => self.groups_at(text, from).map(|groups| groups.range()),
        }
    }

    /// The same from the beginning of the text.
    pub fn find(&self, text: &[u8]) -> Option<Range<usize>> {
        self.find_at(text, 0)
    }

    /// The same with its groups.
    pub fn groups_at(&self, text: &[u8], from: usize) -> Option<Groups> {
        let (regex, longest) = match &self.0.how {
            How::Plain { regex, longest } => (regex, longest),
            How::Backtracking(regex) => return backtracked(regex, text, from),
        };
        let found = regex.captures_at(text, from)?;
        let groups = |found: regex::bytes::Captures<'_>| {
            Groups(found.iter().map(|group| group.map(|m| m.range())).collect())
        };
        let Some(longest) = longest else { return Some(groups(found)) };
        let first = found.get_match().range();
        let end = longest.end(text, first.clone());
        if end == first.end {
            return Some(groups(found));
        }
        let whole = longest.whole().and_then(|whole| whole.captures_at(&text[..end], first.start));
        let mut found = whole.map_or_else(|| Groups(vec![None]), groups);
        found.0[0] = Some(first.start..end);
        Some(found)
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}/", String::from_utf8_lossy(self.source()))
    }
}

impl Longest {
    /// Where the longest match ends that begins where `found` does.
    fn end(&self, text: &[u8], found: Range<usize>) -> usize {
        let automaton = self.automaton.get_or_init(|| Automaton::new(&self.text, self.options));
        let Some(Automaton { dfa, caches }) = automaton else { return found.end };
        let input = Input::new(text).span(found.start..text.len()).anchored(Anchored::Yes);
        let end = dfa.try_search_fwd(&mut caches.get(), &input);
        end.ok().flatten().map_or(found.end, |end| end.offset())
    }

    fn whole(&self) -> Option<&Regex> {
        self.whole.get_or_init(|| plain(&format!("(?:{})\\z", self.text), self.options).ok()).as_ref()
    }
}

impl Automaton {
    fn new(text: &str, Options { case, lines }: Options) -> Option<Automaton> {
        let syntax = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .case_insensitive(case == Case::Ignore)
            .dot_matches_new_line(!lines)
            .multi_line(lines);
        let config = DFA::config().match_kind(MatchKind::All).skip_cache_capacity_check(true);
        let dfa = DFA::builder()
            .configure(config)
            .syntax(syntax)
            .thompson(
                regex_automata::nfa::thompson::Config::new().utf8(false).nfa_size_limit(Some(SIZE_LIMIT)),
            )
            .build(text)
            .ok()?;
        let made = dfa.clone();
        Some(Automaton { dfa, caches: Pool::new(Box::new(move || made.create_cache())) })
    }
}

/// Each byte as the character of its number.
fn latin1(text: &[u8]) -> String {
    text.iter().map(|byte| char::from(*byte)).collect()
}

fn backtracked(regex: &fancy_regex::Regex, text: &[u8], from: usize) -> Option<Groups> {
    let chars = latin1(text);
    // Characters from 128 on take two bytes there.
    let there = |at: usize| at + text[..at].iter().filter(|byte| !byte.is_ascii()).count();
    let here = |at: usize| chars[..at].chars().count();
    let found = regex.captures_from_pos(&chars, there(from)).ok().flatten()?;
    Some(Groups(found.iter().map(|group| group.map(|m| here(m.start())..here(m.end()))).collect()))
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
            ("a{x", "a{x", None),
            ("a{}", "a{}", None),
            ("a{1", "a{1", None),
            (r"a\{x", "a{x", Some(true)),
            ("^a{,}$", "aaa", Some(true)),
            ("a{2,1}", "aa", None),
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
            (r"(a)\1", "aa", Some(true)),
            (r"(a)\1", "ab", Some(false)),
            (r"^(a|b)*\1$", "abb", Some(true)),
            (r"(a|(b))\2", "bb", Some(true)),
            (r"(a)|b\1", "ba", None),
            (r"\1(a)", "aa", None),
            ("^<sip:.*>;", "<sip:a@b>;x", Some(true)),
            ("[a-z-9]", "-", None),
            ("[[=a=]-c]", "b", None),
            ("[a-[.c.]]", "b", Some(true)),
            ("[[..]]", "a", None),
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

    /// What glibc's regexec said: the longest of the matches that begin first, and groups that lead there.
    #[test]
    fn the_longest_match_counts() {
        let cases: &[(&str, &str, &[Option<(usize, usize)>])] = &[
            ("^(0|00)", "0044", &[Some((0, 2)), Some((0, 2))]),
            ("foo|foobar", "xfoobarbaz", &[Some((1, 7))]),
            ("(;ext|;ext=1)", "tel:+44;ext=1", &[Some((7, 13)), Some((7, 13))]),
            ("(a|ab)(c|bcd)(d*)", "abcd", &[Some((0, 4)), Some((0, 1)), Some((1, 4)), Some((4, 4))]),
            ("(a*)(ab)*(b*)", "abb", &[Some((0, 3)), Some((0, 1)), None, Some((1, 3))]),
            ("((a)|(b))*", "ab", &[Some((0, 2)), Some((1, 2)), Some((0, 1)), Some((1, 2))]),
            ("(|a)", "a", &[Some((0, 1)), Some((0, 1))]),
            (r"(.)\1+", "xaaab", &[Some((1, 4)), Some((1, 2))]),
            ("a?(ab)?", "ab", &[Some((0, 2)), Some((0, 2))]),
        ];
        for (pattern, text, want) in cases {
            let compiled = compile(pattern.as_bytes(), Case::Sensitive).expect(pattern);
            let found = compiled.groups_at(text.as_bytes(), 0).expect(pattern);
            for (n, want) in want.iter().enumerate() {
                assert_eq!(found.get(n).map(|r| (r.start, r.end)), *want, "{pattern} on {text}, group {n}");
            }
            assert_eq!(compiled.find(text.as_bytes()), Some(found.range()), "{pattern}");
        }
    }

    #[test]
    fn groups_of_bytes_beyond_ascii_are_where_they_are() {
        let compiled = compile(b"(\xe9)\\1", Case::Sensitive).unwrap();
        let found = compiled.groups_at(b"\xff\xe9\xe9", 0).unwrap();
        assert_eq!((found.range(), found.get(1)), (1..3, Some(1..2)));
    }
}
