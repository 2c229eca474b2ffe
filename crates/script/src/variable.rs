//! `$name(inner)` and `$(<context>name(inner)[index]{class.name,param})`: the text of a variable.

use crate::ast::{IndexSpec, TranSpec, VarSpec};
use crate::diagnostic::{Diagnostic, Loc};
use bytes::Bytes;
use std::ops::Range;

/// Variables inside variables: `$(avp(x)[$(var(i){s.len})])`.
const DEPTH: u32 = 8;

/// Where a text came from, to turn ranges of it into places of the configuration.
pub(crate) enum Origin {
    /// Byte `n` of the text is byte `base + n` of the file.
    Exact { file: u16, base: u32 },
    /// The inside of a quoted string whose escapes are resolved; `extra` is how many bytes of the
    /// source each such byte of the text took beyond one.
    Unescaped { loc: Loc, escaped: Vec<u32> },
    /// Only the whole is known.
    Whole(Loc),
}

impl Origin {
    /// The origin of a resolved string literal that stands, with its quotes, at `loc`.
    pub(crate) fn of_literal(text: &[u8], loc: Loc) -> Origin {
        let inside = (loc.end.saturating_sub(loc.start)).saturating_sub(2) as usize;
        if inside == text.len() {
            return Origin::Exact { file: loc.file, base: loc.start + 1 };
        }
        let escaped: Vec<u32> = memchr_escapes(text).map(|i| i as u32).collect();
        if text.len() + escaped.len() == inside {
            Origin::Unescaped { loc, escaped }
        } else {
            Origin::Whole(loc)
        }
    }

    pub(crate) fn loc(&self, range: Range<usize>) -> Loc {
        match self {
            Origin::Exact { file, base } => {
                Loc { file: *file, start: base + range.start as u32, end: base + range.end as u32 }
            }
            Origin::Unescaped { loc, escaped } => {
                let place = |at: usize| {
                    loc.start + 1 + at as u32 + escaped.partition_point(|&e| (e as usize) < at) as u32
                };
                Loc { file: loc.file, start: place(range.start), end: place(range.end) }
            }
            Origin::Whole(loc) => *loc,
        }
    }
}

/// Bytes of a resolved literal that were most likely written as an escape of two bytes.
fn memchr_escapes(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    text.iter()
        .enumerate()
        .filter(|(_, b)| matches!(b, b'\n' | b'\r' | b'\t' | 7 | b'\\' | b'"'))
        .map(|(i, _)| i)
}

fn name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'.'
}

/// Reads the variable whose `$` is at `start`; returns it and where it ends. The text around it does
/// not matter, except that a name reaches as far as name characters do (`_` and `.` are such).
pub(crate) fn scan(text: &Bytes, start: usize, origin: &Origin) -> Result<(VarSpec, usize), Diagnostic> {
    Scanner { text, origin, depth: 0 }.variable(start)
}

struct Scanner<'a> {
    text: &'a Bytes,
    origin: &'a Origin,
    depth: u32,
}

impl Scanner<'_> {
    fn at(&self, pos: usize) -> u8 {
        self.text.get(pos).copied().unwrap_or(0)
    }

    fn fail<T>(&self, range: Range<usize>, message: impl Into<String>) -> Result<T, Diagnostic> {
        let end = range.end.min(self.text.len());
        Err(Diagnostic::error(self.origin.loc(range.start.min(end)..end), message))
    }

    fn variable(&mut self, start: usize) -> Result<(VarSpec, usize), Diagnostic> {
        if self.depth >= DEPTH {
            return self.fail(start..start + 1, "variables nested too deeply");
        }
        self.depth += 1;
        let found = if self.at(start + 1) == b'(' { self.bracketed(start) } else { self.simple(start) };
        self.depth -= 1;
        found
    }

    /// `$name` or `$name(inner)`
    fn simple(&mut self, start: usize) -> Result<(VarSpec, usize), Diagnostic> {
        let (name, mut pos) = self.name(start, start + 1)?;
        let mut inner = None;
        if self.at(pos) == b'(' {
            let close = self.closing(pos, start)?;
            inner = Some(self.text.slice(pos + 1..close));
            pos = close + 1;
        }
        let loc = self.origin.loc(start..pos);
        Ok((VarSpec { context: None, name, inner, index: None, transformations: Vec::new(), loc }, pos))
    }

    /// `$(<context>name(inner)[index]{...}{...})`
    fn bracketed(&mut self, start: usize) -> Result<(VarSpec, usize), Diagnostic> {
        let mut pos = self.space(start + 2);
        let mut context = None;
        if self.at(pos) == b'<' {
            let Some(len) = memchr::memchr(b'>', &self.text[pos..]) else {
                return self.fail(pos..pos + 1, "the context of this variable has no `>`");
            };
            context = Some(self.text.slice(pos + 1..pos + len));
            pos += len + 1;
        }
        let (name, mut pos) = self.name(start, pos)?;
        let mut inner = None;
        if self.at(pos) == b'(' {
            let close = self.closing(pos, start)?;
            inner = Some(self.text.slice(pos + 1..close));
            pos = close + 1;
        }
        let mut index = None;
        if self.at(pos) == b'[' {
            let (found, next) = self.index(pos)?;
            index = Some(found);
            pos = next;
        }
        let mut transformations = Vec::new();
        pos = self.space(pos);
        while self.at(pos) == b'{' {
            let (found, next) = self.transformation(pos)?;
            transformations.push(found);
            pos = self.space(next);
        }
        if self.at(pos) != b')' {
            if pos >= self.text.len() {
                return self.fail(start..start + 2, "this variable has no closing `)`");
            }
            let wrong = String::from_utf8_lossy(&self.text[pos..pos + 1]).into_owned();
            return self
                .fail(pos..pos + 1, format!("expected `)` at the end of the variable, found `{wrong}`"));
        }
        let loc = self.origin.loc(start..pos + 1);
        Ok((VarSpec { context, name, inner, index, transformations, loc }, pos + 1))
    }

    fn space(&self, mut pos: usize) -> usize {
        while matches!(self.at(pos), b' ' | b'\t') {
            pos += 1;
        }
        pos
    }

    fn name(&self, start: usize, from: usize) -> Result<(Bytes, usize), Diagnostic> {
        let mut end = from;
        while name_byte(self.at(end)) {
            end += 1;
        }
        if end == from {
            let bad = Diagnostic::error(
                self.origin.loc(start..from.min(self.text.len())),
                "`$` without the name of a variable",
            );
            return Err(bad.hint("a dollar sign itself is written `$$`"));
        }
        Ok((self.text.slice(from..end), end))
    }

    /// The `)` that belongs to the `(` at `open`; a name never goes over a line end.
    fn closing(&self, open: usize, start: usize) -> Result<usize, Diagnostic> {
        let mut depth = 0;
        for pos in open..self.text.len() {
            match self.text[pos] {
                b'(' => depth += 1,
                b')' if depth == 1 => return Ok(pos),
                b')' => depth -= 1,
                b'\n' => break,
                _ => {}
            }
        }
        self.fail(start..open + 1, "this variable has no closing `)`")
    }

    fn index(&mut self, open: usize) -> Result<(IndexSpec, usize), Diagnostic> {
        let pos = self.space(open + 1);
        let (index, pos) = if self.at(pos) == b'$' {
            let (var, next) = self.variable(pos)?;
            (IndexSpec::Var(Box::new(var)), next)
        } else {
            let mut end = pos;
            while !matches!(self.at(end), b']' | b')' | b'{' | 0 | b'\n' | b' ') {
                end += 1;
            }
            let text = std::str::from_utf8(&self.text[pos..end]).unwrap_or("");
            let index = match text {
                "*" => IndexSpec::All,
                "append" => IndexSpec::Append,
                _ => match text.parse() {
                    Ok(n) => IndexSpec::Int(n),
                    Err(_) if !text.is_empty() => IndexSpec::Text(self.text.slice(pos..end)),
                    Err(_) => {
                        let bad = Diagnostic::error(
                            self.origin.loc(open..end),
                            "an index is a number, a variable or `*`",
                        );
                        return Err(bad);
                    }
                },
            };
            (index, end)
        };
        let pos = self.space(pos);
        if self.at(pos) != b']' {
            return self.fail(open..pos, "the index of this variable has no `]`");
        }
        Ok((index, pos + 1))
    }

    /// `{class.name,param,...}`; `open` is at the brace.
    fn transformation(&mut self, open: usize) -> Result<(TranSpec, usize), Diagnostic> {
        let from = open + 1;
        let mut pos = from;
        loop {
            match self.at(pos) {
                b if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-') => pos += 1,
                // `{nameaddr.$var(i).uri}`
                b'$' if pos > from && self.at(pos - 1) == b'.' => pos = self.variable(pos)?.1,
                _ => break,
            }
        }
        let full = self.text.slice(from..pos);
        let Some(dot) = memchr::memchr(b'.', &full).filter(|&d| d > 0 && d + 1 < full.len()) else {
            let bad = Diagnostic::error(
                self.origin.loc(open..pos.max(open + 1)),
                "a transformation is written `{class.name}`",
            );
            return Err(bad.hint("for example `{s.len}` or `{uri.user}`"));
        };
        pos = self.space(pos);
        let mut params = Vec::new();
        if self.at(pos) == b',' {
            let end = if full.ends_with(b".subst") {
                self.substitution(open, pos + 1)?
            } else {
                self.parameters(open, pos + 1, &mut params)?
            };
            if full.ends_with(b".subst") {
                params.push(self.text.slice(pos + 1..end));
            }
            pos = end;
        }
        if self.at(pos) != b'}' {
            return self.fail(open..pos, "this transformation has no closing `}`");
        }
        let loc = self.origin.loc(open..pos + 1);
        Ok((TranSpec { class: full.slice(..dot), name: full.slice(dot + 1..), params, loc }, pos + 1))
    }

    /// Splits at commas up to the closing brace, which it returns.
    fn parameters(&mut self, open: usize, from: usize, params: &mut Vec<Bytes>) -> Result<usize, Diagnostic> {
        let (mut pos, mut first) = (from, from);
        loop {
            match self.at(pos) {
                b'$' if name_byte(self.at(pos + 1)) || self.at(pos + 1) == b'(' => {
                    pos = self.variable(pos)?.1
                }
                b',' if pos == first && self.at(pos + 1) == b'}' => pos += 1,
                b',' => {
                    params.push(self.text.slice(first..pos));
                    pos += 1;
                    first = pos;
                }
                b'}' => {
                    params.push(self.text.slice(first..pos));
                    return Ok(pos);
                }
                _ if pos >= self.text.len() => {
                    return self.fail(open..pos, "this transformation has no closing `}`");
                }
                _ => pos += 1,
            }
        }
    }

    /// `/expression/replacement/flags` with any delimiter, or a variable that holds it; up to its `}`.
    fn substitution(&mut self, open: usize, from: usize) -> Result<usize, Diagnostic> {
        let mut pos = self.space(from);
        if self.at(pos) == b'$' {
            let mut none = Vec::new();
            return self.parameters(open, from, &mut none);
        }
        let delimiter = self.at(pos);
        let mut seen = 0;
        while pos < self.text.len() && seen < 3 {
            match self.at(pos) {
                b'\\' => pos += 1,
                b if b == delimiter => seen += 1,
                _ => {}
            }
            pos += 1;
        }
        while pos < self.text.len() && self.at(pos) != b'}' {
            pos += 1;
        }
        if pos >= self.text.len() || seen < 3 {
            return self.fail(open..pos, "this transformation has no closing `}`");
        }
        Ok(pos)
    }
}
