//! Substitutions as sed and perl write them: `/re/replacement/flags` (OpenSIPS `subst`, `{re.subst}`).

use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::var::Var;
use bytes::Bytes;
use script::posix::{self, Case, Groups, Pattern};
use script::{Diagnostic, Loc, Value};
use std::ops::Range;

/// A prepared substitution.
#[derive(Debug)]
pub struct Subst {
    regex: Pattern,
    replacement: Replacement,
    count: Count,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Count {
    First,
    /// Flag `g`.
    All,
}

/// What stands in the place of a match: text, groups, variables.
#[derive(Debug)]
pub struct Replacement(Vec<Piece>);

/// The expression matches nothing somewhere, which is an error of the substitution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmptyMatch;

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    /// `\1`; `\0` is all that matched.
    Group(usize),
    /// `\u`: the R-URI as it is now.
    Uri,
    Var(Var),
}

/// One change: what part of the text becomes what.
pub type Change = (Range<usize>, Bytes);

/// Replacements in one text; the rest is left as it is.
const MAX_CHANGES: usize = 10_000;

impl Subst {
    /// Any character but a backslash separates. Flags: `i` any case, `g` all, `s` the text is one line.
    pub fn new(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Subst, Diagnostic> {
        let bad = |why: &str| {
            Diagnostic::error(loc, format!("this is no substitution: {why}"))
                .hint("write it as /expression/replacement/flags")
        };
        let Some((&separator, _)) = text.split_first() else { return Err(bad("it is empty")) };
        if separator == b'\\' {
            return Err(bad("a backslash cannot separate"));
        }
        let middle = (1..text.len()).find(|&i| text[i] == separator && (i == 1 || text[i - 1] != b'\\'));
        let middle = middle.ok_or_else(|| bad("the second separator is missing"))?;
        let mut reader = Reader { text, at: middle + 1, separator: Some(separator), loc };
        let replacement = reader.replacement(loader)?.ok_or_else(|| bad("the third separator is missing"))?;
        let (mut case, mut count, mut lines) = (Case::Sensitive, Count::First, true);
        for flag in &text[reader.at..] {
            match flag {
                b'i' => case = Case::Ignore,
                b'g' => count = Count::All,
                b's' => lines = false,
                other => return Err(bad(&format!("unknown flag `{}`", char::from(*other)))),
            }
        }
        let pattern = &text[1..middle];
        let regex = if lines { posix::compile_lines(pattern, case) } else { posix::compile(pattern, case) };
        let regex = regex.map_err(|e| Diagnostic::error(loc, format!("bad regular expression: {e}")))?;
        Ok(Subst { regex, replacement, count })
    }

    /// What changes in `input`; empty when nothing matches. A match of nothing is no match.
    pub fn changes(&self, ctx: &mut Ctx, input: &[u8]) -> Vec<Change> {
        self.try_changes(ctx, input).unwrap_or_default()
    }

    /// The same in the head of a message: values of variables bring no line ends along.
    pub fn changes_in_head(&self, ctx: &mut Ctx, input: &[u8]) -> Vec<Change> {
        self.changes_with(ctx, input, |value| value.head().unwrap_or_else(|| value.to_text()))
            .unwrap_or_default()
    }

    /// The same for who tells a failure from a text that does not match.
    pub fn try_changes(&self, ctx: &mut Ctx, input: &[u8]) -> Result<Vec<Change>, EmptyMatch> {
        self.changes_with(ctx, input, Value::to_text)
    }

    fn changes_with(
        &self,
        ctx: &mut Ctx,
        input: &[u8],
        text: fn(&Value) -> Bytes,
    ) -> Result<Vec<Change>, EmptyMatch> {
        let most = if self.count == Count::All { MAX_CHANGES } else { 1 };
        let mut changes: Vec<Change> = Vec::new();
        while changes.len() < most {
            let from = changes.last().map_or(0, |(range, _)| range.end);
            let Some(found) = self.regex.groups_at(input, from) else { break };
            let range = found.range();
            if range.is_empty() {
                return Err(EmptyMatch);
            }
            changes.push((range, self.replacement.filled(ctx, |n| found.text(input, n), text)));
        }
        Ok(changes)
    }

    /// `input` after the substitution; `None` when nothing matches.
    pub fn apply(&self, ctx: &mut Ctx, input: &[u8]) -> Option<Bytes> {
        let changes = self.changes(ctx, input);
        if changes.is_empty() { None } else { Some(changed(input, &changes)) }
    }
}

impl Replacement {
    /// All of `text`, without separators.
    pub fn new(text: &Bytes, loc: Loc, loader: &mut Loader) -> Result<Replacement, Diagnostic> {
        let mut reader = Reader { text, at: 0, separator: None, loc };
        let found = reader.replacement(loader)?;
        found.ok_or_else(|| Diagnostic::error(loc, "this replacement ends in a backslash"))
    }

    /// The text for one match in `input`.
    pub fn expand(&self, ctx: &mut Ctx, input: &[u8], found: &Groups) -> Bytes {
        self.expand_with(ctx, |n| found.text(input, n))
    }

    /// The text for one match, whose groups `group` gives.
    pub fn expand_with<'t>(&self, ctx: &mut Ctx, group: impl Fn(usize) -> &'t [u8]) -> Bytes {
        self.filled(ctx, group, Value::to_text)
    }

    fn filled<'t>(
        &self,
        ctx: &mut Ctx,
        group: impl Fn(usize) -> &'t [u8],
        text: fn(&Value) -> Bytes,
    ) -> Bytes {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => out.extend_from_slice(literal),
                Piece::Group(n) => out.extend_from_slice(group(*n)),
                Piece::Uri => out.extend_from_slice(&ctx.state.current_uri()),
                // NULL is nothing here.
                Piece::Var(var) => match var.get(ctx) {
                    value if value.is_null() => {}
                    value => out.extend_from_slice(&text(&value)),
                },
            }
        }
        out.into()
    }

    /// The highest group that it uses, 0 when it uses none.
    pub fn highest_group(&self) -> usize {
        self.0.iter().map(|p| if let Piece::Group(n) = p { *n } else { 0 }).max().unwrap_or(0)
    }
}

/// `input` with changes made that are in order and do not overlap.
pub fn changed(input: &[u8], changes: &[Change]) -> Bytes {
    let mut out = Vec::with_capacity(input.len() + 64);
    let mut at = 0;
    for (range, text) in changes {
        out.extend_from_slice(&input[at..range.start]);
        out.extend_from_slice(text);
        at = range.end;
    }
    out.extend_from_slice(&input[at..]);
    out.into()
}

struct Reader<'a> {
    text: &'a Bytes,
    at: usize,
    /// `None`: up to the end.
    separator: Option<u8>,
    loc: Loc,
}

impl Reader<'_> {
    /// The replacement up to its separator, which is passed over; `None` when there is none.
    fn replacement(&mut self, loader: &mut Loader) -> Result<Option<Replacement>, Diagnostic> {
        let mut pieces = Vec::new();
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => {
                    let Some(&escaped) = self.text.get(self.at) else { return Ok(None) };
                    self.at += 1;
                    match escaped {
                        b'0'..=b'9' => pieces.push(Piece::Group(usize::from(escaped - b'0'))),
                        b'u' => pieces.push(Piece::Uri),
                        b'n' => push(&mut pieces, b'\n'),
                        b'r' => push(&mut pieces, b'\r'),
                        b't' => push(&mut pieces, b'\t'),
                        other => push(&mut pieces, other),
                    }
                }
                b'$' => {
                    let rest = self.text.slice(self.at - 1..);
                    let (spec, length) = script::parse_leading_variable(&rest, self.loc)?;
                    pieces.push(Piece::Var(loader.var(&spec)?));
                    self.at += length - 1;
                }
                byte if self.separator == Some(byte) => return Ok(Some(Replacement(pieces))),
                byte => push(&mut pieces, byte),
            }
        }
        Ok(self.separator.is_none().then_some(Replacement(pieces)))
    }
}

fn push(pieces: &mut Vec<Piece>, byte: u8) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push(byte),
        _ => pieces.push(Piece::Text(vec![byte])),
    }
}
