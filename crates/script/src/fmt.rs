//! The canonical layout of a configuration: `fermata fmt`. Walks the syntax tree together with the
//! tokens it was read from, so that literals stay as written and no comment is lost.

use crate::ast::{Stmt, StmtKind};
use crate::diagnostic::{Diagnostic, Loc};
use crate::lexer::{Tok, Token};
use crate::parser::{Holds, Recorded, parse_recorded};

/// Lines are filled up to here, in characters.
const WIDTH: usize = 100;
const INDENT: usize = 4;
/// Words that a bracket or a sign behind them does not belong to.
const KEYWORDS: &[&str] =
    &["if", "while", "for", "switch", "case", "return", "in", "and", "or", "parallel", "any"];

/// Lays out a configuration, or a file of statements that is included in a route. Doing it twice
/// changes nothing more, and the text means what it meant. A text with errors is not touched.
pub fn format_source(text: &str, name: &str) -> Result<String, Vec<Diagnostic>> {
    let errors = |r: &Recorded| r.problems.iter().any(Diagnostic::is_error);
    let whole = parse_recorded(name, text, Holds::Configuration);
    if !errors(&whole) {
        return Ok(Printer::new(&whole, text).configuration());
    }
    let part = parse_recorded(name, text, Holds::Statements);
    if !errors(&part) {
        return Ok(Printer::new(&part, text).fragment());
    }
    Err(whole.problems)
}

struct Comment {
    start: usize,
    end: usize,
    /// Something stands before it on its line.
    trailing: bool,
}

struct Printer<'a> {
    source: &'a str,
    read: &'a Recorded,
    /// Tokens of this file; the next one to print.
    tokens: Vec<&'a Token>,
    next: usize,
    comments: Vec<Comment>,
    next_comment: usize,
    out: String,
    level: usize,
    /// Nothing may be put behind what the last line holds.
    closed: bool,
    /// A blank line is due before the next thing.
    gap: bool,
}

impl<'a> Printer<'a> {
    fn new(read: &'a Recorded, source: &'a str) -> Self {
        let tokens: Vec<&Token> = read.tokens.iter().filter(|t| t.loc.file == 0).collect();
        let comments = comments(source, &tokens);
        Printer {
            source,
            read,
            tokens,
            next: 0,
            comments,
            next_comment: 0,
            out: String::with_capacity(source.len() + source.len() / 8),
            level: 0,
            closed: true,
            gap: false,
        }
    }

    // ---- the top level

    fn configuration(mut self) -> String {
        let routes = &self.read.config.routes;
        while self.next < self.tokens.len() {
            let start = self.start();
            if self.word("loadmodule") || self.at_include() {
                self.statement_line(self.next + 2);
            } else if self.word("modparam") {
                let close =
                    (self.next..self.tokens.len()).find(|&i| matches!(self.tokens[i].tok, Tok::Op(")")));
                self.statement_line(close.map_or(self.tokens.len(), |i| i + 1));
            } else if self.op(";") {
                self.next += 1;
            } else if let Some(route) =
                routes.iter().find(|r| r.loc.file == 0 && r.loc.start as usize == start)
            {
                self.gap |= !self.out.is_empty() && !self.comment_waits(start);
                self.head(route.loc.end as usize);
                self.block(&route.body);
                self.end_line();
                self.gap = true;
            } else {
                self.global();
            }
        }
        self.finish()
    }

    fn fragment(mut self) -> String {
        let body = &self.read.fragment;
        self.statements(body);
        self.stray();
        self.finish()
    }

    fn finish(mut self) -> String {
        self.flush(self.source.len());
        self.out.truncate(self.out.trim_end().len());
        self.out.push('\n');
        self.out
    }

    /// `name = value`, the value as it is.
    fn global(&mut self) {
        let text = format!(
            "{} = {}",
            self.slice(self.next),
            self.tokens.get(self.next + 1).map_or("", |_| self.slice(self.next + 1))
        );
        self.line_start();
        for (i, line) in text.lines().enumerate() {
            if i > 0 {
                self.out.push('\n');
            }
            self.out.push_str(if i == 0 { line.trim() } else { line.trim_end() });
        }
        self.end_line();
        self.next = (self.next + 2).min(self.tokens.len());
    }

    // ---- tokens

    fn slice(&self, i: usize) -> &'a str {
        let loc = self.tokens[i].loc;
        self.source.get(loc.start as usize..loc.end as usize).unwrap_or("")
    }

    /// Where the next token starts.
    fn start(&self) -> usize {
        self.tokens.get(self.next).map_or(self.source.len(), |t| t.loc.start as usize)
    }

    fn op(&self, op: &str) -> bool {
        self.tokens.get(self.next).is_some_and(|t| matches!(t.tok, Tok::Op(o) if o == op))
    }

    fn word(&self, word: &str) -> bool {
        self.next < self.tokens.len() && self.slice(self.next) == word
    }

    fn at_include(&self) -> bool {
        self.word("include_file") || self.word("import_file")
    }

    // ---- lines

    /// Starts a line for the next token, with the comments and the blank line before it.
    fn line_start(&mut self) {
        let start = self.start();
        self.flush(start);
        self.blank(start);
        self.out.extend(std::iter::repeat_n(' ', self.level * INDENT));
    }

    fn end_line(&mut self) {
        self.out.push('\n');
        self.closed = false;
    }

    /// A blank line, when the source has one before `at`; never first in a block.
    fn blank(&mut self, at: usize) {
        let before = &self.source[..at];
        let lines = before[before.trim_end().len()..].matches('\n').count();
        let first = self.out.is_empty() || ["{\n", ":\n", "\n\n"].iter().any(|end| self.out.ends_with(end));
        if (lines > 1 || self.gap) && !first {
            self.out.push('\n');
        }
        self.gap = false;
    }

    /// Prints the comments before `until`.
    fn flush(&mut self, until: usize) {
        while let Some(comment) = self.comments.get(self.next_comment).filter(|c| c.start < until) {
            let (start, trailing) = (comment.start, comment.trailing);
            let text = self.source[start..comment.end].trim_end();
            self.next_comment += 1;
            let behind = trailing && !self.closed && self.out.ends_with('\n');
            if behind {
                self.out.pop();
                self.out.push_str("  ");
            } else {
                self.blank(start);
                self.out.extend(std::iter::repeat_n(' ', self.level * INDENT));
            }
            for (i, line) in text.lines().enumerate() {
                if i > 0 {
                    self.out.push('\n');
                }
                self.out.push_str(line.trim_end());
            }
            self.out.push('\n');
            self.closed = text.starts_with('#') || !behind;
        }
    }

    /// The next comment stands alone on its line, before `until`.
    fn comment_waits(&self, until: usize) -> bool {
        self.comments.get(self.next_comment).is_some_and(|c| c.start < until && !c.trailing)
    }

    /// Tokens up to `end` on a line of their own.
    fn statement_line(&mut self, end: usize) {
        self.line_start();
        let end = end.min(self.tokens.len());
        self.fill(end, ";");
        self.end_line();
    }

    /// What opens a block: tokens up to the place `end` and a brace.
    fn head(&mut self, end: usize) {
        self.line_start();
        self.fill(self.index_at(end), " {");
        self.out.push_str(" {");
        self.end_line();
    }

    /// Index of the first token at or behind a place.
    fn index_at(&self, place: usize) -> usize {
        self.next + self.tokens[self.next..].partition_point(|t| (t.loc.start as usize) < place)
    }

    // ---- statements

    /// `{ ... }` or one statement, always printed with braces; the head is printed.
    fn block(&mut self, body: &[Stmt]) {
        self.level += 1;
        let braced = self.op("{");
        if braced {
            self.next += 1;
        }
        self.statements(body);
        if !braced && body.is_empty() && self.op(";") {
            self.next += 1;
        }
        if braced {
            self.stray();
            self.flush(self.start());
            self.next += 1;
        }
        self.level -= 1;
        self.out.extend(std::iter::repeat_n(' ', self.level * INDENT));
        self.out.push('}');
    }

    fn statements(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.stray();
            self.statement(stmt);
        }
    }

    /// Includes and semicolons that stand alone.
    fn stray(&mut self) {
        loop {
            if self.op(";") {
                self.next += 1;
            } else if self.at_include() {
                self.line_start();
                self.fill(self.next + 2, "");
                self.end_line();
            } else {
                return;
            }
        }
    }

    fn statement(&mut self, stmt: &Stmt) {
        match &stmt.kind {
            StmtKind::If { test, then, otherwise } => {
                self.if_chain(test.loc, then, otherwise.as_deref());
            }
            StmtKind::While { test, body } => self.loop_over(self.index_at(test.loc.end as usize), body),
            StmtKind::For { list, body, .. } => {
                self.loop_over(self.index_at(list.loc.end as usize) + 1, body)
            }
            StmtKind::Parallel { open, body, .. } => self.loop_over(self.index_at(open.start as usize), body),
            StmtKind::Switch { .. } => self.switch(stmt),
            StmtKind::Block(body) => {
                self.line_start();
                self.out.push('{');
                self.end_line();
                self.block(body);
                self.end_line();
            }
            _ => {
                self.line_start();
                self.fill(self.index_at(stmt.loc.end as usize), ";");
                self.out.push(';');
                self.end_line();
                if self.op(";") {
                    self.next += 1;
                }
            }
        }
    }

    /// A loop whose head goes up to the token `end`.
    fn loop_over(&mut self, end: usize, body: &[Stmt]) {
        self.line_start();
        self.fill(end, " {");
        self.out.push_str(" {");
        self.end_line();
        self.block(body);
        self.end_line();
    }

    fn if_chain(&mut self, test: Loc, then: &[Stmt], otherwise: Option<&[Stmt]>) {
        self.line_start();
        let (mut test, mut then, mut otherwise) = (test, then, otherwise);
        loop {
            self.fill(self.index_at(test.end as usize), " {");
            self.out.push_str(" {");
            self.end_line();
            self.block(then);
            let Some(rest) = otherwise else { break };
            self.next += 1;
            self.out.push_str(" else ");
            match rest {
                [Stmt { kind: StmtKind::If { test: t, then: th, otherwise: o }, .. }] if self.word("if") => {
                    (test, then, otherwise) = (t.loc, th, o.as_deref());
                }
                _ => {
                    self.out.push('{');
                    self.end_line();
                    self.block(rest);
                    break;
                }
            }
        }
        self.end_line();
    }

    fn switch(&mut self, stmt: &Stmt) {
        let StmtKind::Switch { on, arms, default } = &stmt.kind else { return };
        self.line_start();
        self.fill(self.index_at(on.loc.end as usize) + 1, " {");
        self.out.push_str(" {");
        self.end_line();
        self.next += 1;
        self.level += 1;
        for arm in arms {
            for (i, _) in arm.values.iter().enumerate() {
                self.stray();
                self.line_start();
                let colon =
                    (self.next..self.tokens.len()).find(|&i| matches!(self.tokens[i].tok, Tok::Op(":")));
                self.fill(colon.unwrap_or(self.next), ":");
                self.out.push(':');
                self.next += 1;
                self.end_line();
                if i + 1 == arm.values.len() {
                    self.level += 1;
                    self.statements(&arm.body);
                    self.stray();
                    self.level -= 1;
                }
            }
        }
        if let Some(body) = default {
            self.line_start();
            self.out.push_str("default:");
            self.next += 2;
            self.end_line();
            self.level += 1;
            self.statements(body);
            self.stray();
            self.level -= 1;
        }
        self.flush(self.start());
        self.level -= 1;
        self.next += 1;
        self.out.extend(std::iter::repeat_n(' ', self.level * INDENT));
        self.out.push('}');
        self.end_line();
    }

    // ---- a line

    /// Prints the tokens before `end`, broken over lines where they are too long together with `tail`.
    fn fill(&mut self, end: usize, tail: &str) {
        let end = end.min(self.tokens.len());
        let mut pieces: Vec<Piece> = Vec::new();
        // Brackets that stand open: whether they are those of `route[name]`.
        let mut open: Vec<bool> = Vec::new();
        for i in self.next..end {
            let text = self.canonical(i);
            let spaced = i > self.next && self.spaced(i, open.last() == Some(&true));
            let comma = i > self.next && matches!(self.tokens[i - 1].tok, Tok::Op(","));
            let logic = matches!(text, "&&" | "||");
            if matches!(text, ")" | "]") {
                open.pop();
            }
            let joint = (spaced && (logic || comma || text == "+")).then_some((open.len(), logic));
            pieces.push(Piece { text, spaced, joint });
            if matches!(text, "(" | "[") {
                let named = i > self.next
                    && self.tokens[i - 1].tok == Tok::Ident
                    && self.slice(i - 1) != "not"
                    && !spaced;
                open.push(text == "[" && named);
            }
        }
        self.next = end.max(self.next);
        self.lay_out(&pieces, tail);
    }

    /// Whether a blank stands before the token `i`, which is not the first of its line.
    fn spaced(&self, i: usize, in_name: bool) -> bool {
        let (left, right) = (self.tokens[i - 1], self.tokens[i]);
        let keyword = left.tok == Tok::Ident && KEYWORDS.contains(&self.slice(i - 1));
        // A sign stands at the start, or behind an operator or a keyword.
        let sign = || {
            let Some(before) = i.checked_sub(2) else { return true };
            match self.tokens[before].tok {
                Tok::Op(op) => !matches!(op, ")" | "]"),
                Tok::Ident => KEYWORDS.contains(&self.slice(before)),
                _ => false,
            }
        };
        match (&left.tok, &right.tok) {
            (Tok::Op("!" | "~" | "("), _) => false,
            (Tok::Op("-"), _) if sign() => false,
            (Tok::Op(","), Tok::Op(",")) => true,
            (_, Tok::Op("," | ")" | ";")) => false,
            (Tok::Ident, _) if self.slice(i - 1) == "not" => false,
            (Tok::Ident, Tok::Op("(" | "[")) => keyword,
            (Tok::Op("["), _) | (_, Tok::Op("]")) => !in_name,
            _ => true,
        }
    }

    fn lay_out(&mut self, pieces: &[Piece<'_>], tail: &str) {
        let total: usize = pieces.iter().map(Piece::width).sum();
        let fits = self.column() + total + tail.len() <= WIDTH;
        // A long test is broken at its outermost `&&` and `||`; anything else where the line is full.
        let outermost = pieces.iter().filter_map(|p| p.joint).filter(|j| j.1).map(|j| j.0).min();
        for (i, piece) in pieces.iter().enumerate() {
            let run = pieces[i + 1..].iter().take_while(|p| p.joint.is_none()).count();
            let end = i + 1 + run;
            let room = WIDTH.saturating_sub(if end == pieces.len() { tail.len() } else { 0 });
            let full = || self.column() + pieces[i..end].iter().map(Piece::width).sum::<usize>() > room;
            let must = !fits
                && piece.joint.is_some_and(|(depth, logic)| (logic && Some(depth) == outermost) || full());
            if must {
                self.out.push('\n');
                self.out.extend(std::iter::repeat_n(' ', (self.level + 1) * INDENT));
            } else if piece.spaced {
                self.out.push(' ');
            }
            self.out.push_str(piece.text);
        }
    }

    fn column(&self) -> usize {
        self.out.rsplit('\n').next().map_or(0, |l| l.chars().count())
    }

    /// A token as it is printed.
    fn canonical(&self, i: usize) -> &'a str {
        match self.tokens[i].tok {
            Tok::Op(op) => op,
            Tok::Ident => match self.slice(i) {
                "and" => "&&",
                "or" => "||",
                "not" => "!",
                text => text,
            },
            _ => self.slice(i),
        }
    }
}

struct Piece<'a> {
    text: &'a str,
    spaced: bool,
    /// A line may break before it: how deep in brackets, and whether at `&&` or `||`.
    joint: Option<(usize, bool)>,
}

impl Piece<'_> {
    fn width(&self) -> usize {
        self.text.chars().count() + usize::from(self.spaced)
    }
}

/// Comments between tokens.
fn comments(source: &str, tokens: &[&Token]) -> Vec<Comment> {
    let mut found = Vec::new();
    let mut pos = 0;
    let bytes = source.as_bytes();
    for end in tokens
        .iter()
        .map(|t| (t.loc.start as usize, t.loc.end as usize))
        .chain([(source.len(), source.len())])
    {
        while pos < end.0 {
            let start = pos;
            pos = match &bytes[pos..] {
                [b'#', ..] => source[pos..].find('\n').map_or(source.len(), |i| pos + i),
                [b'/', b'*', ..] => block_end(bytes, pos),
                _ => {
                    pos += 1;
                    continue;
                }
            };
            let line = source[..start].rfind('\n').map_or(0, |i| i + 1);
            let trailing = !source[line..start].trim_start_matches('\u{feff}').trim().is_empty();
            found.push(Comment { start, end: pos, trailing });
        }
        pos = pos.max(end.1);
    }
    found
}

fn block_end(bytes: &[u8], start: usize) -> usize {
    let (mut pos, mut depth) = (start, 0);
    while pos < bytes.len() {
        match &bytes[pos..] {
            [b'/', b'*', ..] => (depth, pos) = (depth + 1, pos + 2),
            [b'*', b'/', ..] => (depth, pos) = (depth - 1, pos + 2),
            _ => pos += 1,
        }
        if depth == 0 {
            break;
        }
    }
    pos
}
