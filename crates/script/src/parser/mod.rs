//! Tokens to the syntax tree. Every problem is reported: after one, reading goes on at the next
//! statement, block or route.

mod call;
mod dialect;
mod expr;
mod stmt;
#[cfg(test)]
mod tests;
mod top;

use crate::ast::{Config, Dialect};
use crate::diagnostic::{Diagnostic, Loc, Sources, nearest};
use crate::lexer::{Tok, Token};
use crate::preprocess::{Loader, Missing, Reader};
use bytes::Bytes;
use std::io;

/// What the caller knows that the files do not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `None`: found out from the parameters that the files set.
    pub dialect: Option<Dialect>,
}

/// Reads a configuration and the files that it includes. `loader` gets a path as written and returns
/// the text (`std::fs::read`, or a map in tests). The tree holds what could be read; it must not be
/// run when any of the diagnostics is an error.
pub fn parse_file<T: Into<Bytes>>(
    path: &str,
    loader: &mut impl FnMut(&str) -> io::Result<T>,
    sources: &mut Sources,
    options: Options,
) -> (Config, Vec<Diagnostic>) {
    let mut load = |path: &str| loader(path).map(Into::into);
    let mut problems = Vec::new();
    let reader = Reader::open(path, sources, &mut load as &mut Loader<'_>, &mut problems);
    let mut parser = Parser::new(reader, problems);
    parser.configuration(options);
    parser.finish()
}

/// Like [`parse_file`] for a text at hand; includes are not found.
pub fn parse_text(
    name: &str,
    text: &str,
    sources: &mut Sources,
    options: Options,
) -> (Config, Vec<Diagnostic>) {
    let mut text = Some(Bytes::copy_from_slice(text.as_bytes()));
    let mut loader = |_: &str| text.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    parse_file(name, &mut loader, sources, options)
}

/// Tokens that make up a text, in order, for the formatter: what stands between them is blank or comment.
pub(crate) struct Recorded {
    pub config: Config,
    pub problems: Vec<Diagnostic>,
    pub tokens: Vec<Token>,
    /// Statements outside of any route, in a file that is included inside of one.
    pub fragment: Vec<crate::ast::Stmt>,
}

/// What a text holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Configuration,
    Statements,
}

/// Reads one text without the files that it includes, and keeps its tokens.
pub(crate) fn parse_recorded(name: &str, text: &str, holds: Holds) -> Recorded {
    let mut sources = Sources::default();
    let mut text = Some(Bytes::copy_from_slice(text.as_bytes()));
    let mut load = |_: &str| Ok(text.take().unwrap_or_default());
    let mut problems = Vec::new();
    let reader = Reader::open(name, &mut sources, &mut load as &mut Loader<'_>, &mut problems);
    let mut parser = Parser::new(reader, problems);
    parser.tokens = Some(Vec::new());
    let mut fragment = Vec::new();
    match holds {
        Holds::Configuration => parser.configuration(Options::default()),
        Holds::Statements => {
            parser.bump();
            fragment = parser.statements();
            if parser.tok != Tok::Eof {
                let _ = parser.fail::<()>(format!("expected a statement, found {}", parser.found()));
            }
        }
    }
    let tokens = parser.tokens.take().unwrap_or_default();
    let (config, problems) = parser.finish();
    Recorded { config, problems, tokens, fragment }
}

/// A problem was reported; the caller goes on where it can.
#[derive(Debug)]
pub(crate) struct Failed;
pub(crate) type Parsed<T> = Result<T, Failed>;

/// Problems shown before reading stops.
const MOST_PROBLEMS: usize = 100;
/// Blocks, brackets and calls inside each other; bounds recursion here and in the compiler.
const DEPTH: usize = 100;
/// Operators, `else if`s and parameters in a row.
const LENGTH: usize = 500;

/// What a `break` ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breakable {
    Loop,
    Case,
}

pub(crate) struct Parser<'a> {
    reader: Reader<'a>,
    /// The token being looked at, and where the one before it was.
    tok: Tok,
    loc: Loc,
    last: Loc,
    config: Config,
    problems: Vec<Diagnostic>,
    breakable: Vec<Breakable>,
    depth: usize,
    /// Strings in a row are one here.
    folds: bool,
    forced: Option<Dialect>,
    /// Tokens passed, when somebody wants them.
    tokens: Option<Vec<Token>>,
}

impl<'a> Parser<'a> {
    fn new(reader: Reader<'a>, problems: Vec<Diagnostic>) -> Self {
        Parser {
            reader,
            tok: Tok::Eof,
            loc: Loc::default(),
            last: Loc::default(),
            config: Config::default(),
            problems,
            breakable: Vec::new(),
            depth: 0,
            folds: false,
            forced: None,
            tokens: None,
        }
    }

    fn finish(self) -> (Config, Vec<Diagnostic>) {
        let Parser { config, mut problems, .. } = self;
        problems.truncate(MOST_PROBLEMS);
        (config, problems)
    }

    fn too_many(&self) -> bool {
        self.problems.len() >= MOST_PROBLEMS
    }

    // ---- tokens

    fn bump(&mut self) -> Token {
        let next = self.reader.next(&mut self.problems);
        self.last = self.loc;
        let tok = std::mem::replace(&mut self.tok, next.tok);
        let loc = std::mem::replace(&mut self.loc, next.loc);
        if let Some(tokens) = self.tokens.as_mut().filter(|_| tok != Tok::Eof) {
            tokens.push(Token { tok: tok.clone(), loc });
        }
        Token { tok, loc }
    }

    /// Makes what follows the reader's position the token looked at, after the text at `raw` was taken.
    fn refill(&mut self, raw: Loc) {
        if let Some(tokens) = &mut self.tokens {
            tokens.push(Token { tok: self.tok.clone(), loc: self.loc });
        }
        (self.tok, self.loc) = (Tok::Word, raw);
        self.bump();
    }

    /// The source of the token looked at.
    fn text(&self) -> Bytes {
        self.reader.text(self.loc)
    }

    fn is(&self, op: &str) -> bool {
        matches!(self.tok, Tok::Op(o) if o == op)
    }

    fn is_word(&self, word: &str) -> bool {
        self.tok == Tok::Ident && self.sourced(word)
    }

    fn sourced(&self, word: &str) -> bool {
        self.sources().text(self.loc) == word.as_bytes()
    }

    fn sources(&self) -> &Sources {
        self.reader.sources
    }

    fn take(&mut self, op: &str) -> bool {
        let there = self.is(op);
        if there {
            self.bump();
        }
        there
    }

    fn expect(&mut self, op: &str, after: &str) -> Parsed<Loc> {
        if self.is(op) {
            return Ok(self.bump().loc);
        }
        self.fail(format!("expected `{op}` {after}, found {}", self.found()))
    }

    /// The byte behind the token looked at, blanks and comments left out; 0 at the end of the file.
    fn byte_behind(&mut self) -> u8 {
        let cursor = self.reader.cursor();
        let pos = cursor.pos;
        cursor.skip_blank(&mut Vec::new());
        let byte = cursor.at(cursor.pos);
        cursor.pos = pos;
        byte
    }

    // ---- problems

    /// The token looked at, for messages.
    fn found(&self) -> String {
        match &self.tok {
            Tok::Eof => "the end of the file".into(),
            Tok::Str(_) => "a string".into(),
            _ => {
                let text = self.text();
                let shown: String = String::from_utf8_lossy(&text).chars().take(40).collect();
                format!("`{shown}`")
            }
        }
    }

    fn report(&mut self, problem: Diagnostic) {
        // One mistake often trips several rules at one place: the first says it best.
        let again = self.problems.last().is_some_and(|p| {
            p.is_error() && p.loc.file == problem.loc.file && p.loc.start == problem.loc.start
        });
        if !again && !self.too_many() {
            self.problems.push(problem);
        }
    }

    fn fail<T>(&mut self, message: impl Into<String>) -> Parsed<T> {
        self.fail_with(Diagnostic::error(self.loc, message))
    }

    fn fail_with<T>(&mut self, problem: Diagnostic) -> Parsed<T> {
        // A bad token was reported by the lexer, with its reason.
        if self.tok != Tok::Bad || problem.loc != self.loc {
            let problem = self.suspect_quote(problem);
            self.report(problem);
        }
        Err(Failed)
    }

    /// A missing quote shows only where the next string ought to start.
    fn suspect_quote(&self, problem: Diagnostic) -> Diagnostic {
        let before = self.sources().text(self.last);
        let long = matches!(before, [b'"' | b'\'', ..]) && memchr::memchr(b'\n', before).is_some();
        if !long || problem.loc.start < self.last.end {
            return problem;
        }
        let line = self.sources().line_col(self.last).0;
        problem.hint(format!(
            "the string that starts in line {line} goes on to here: is its closing quote missing?"
        ))
    }

    /// Runs `f` one level deeper, within bounds.
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH {
            return self.fail("too many levels inside each other");
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    // ---- recovery

    /// The token looked at starts a route or another thing of the top level, so a block before it
    /// was not closed.
    fn at_top_level_word(&mut self) -> bool {
        if self.tok != Tok::Ident {
            return false;
        }
        let text = self.text();
        match &text[..] {
            b"loadmodule" => true,
            word if top::route_kind(word).is_some() => matches!(self.byte_behind(), b'{' | b'['),
            _ => false,
        }
    }

    /// Skips the rest of a statement: behind its `;`, or to a `}` or a route.
    fn skip_statement(&mut self) {
        let mut open = 0usize;
        while !self.at_top_level_word() {
            match &self.tok {
                Tok::Eof => return,
                Tok::Op("{") => open += 1,
                Tok::Op("}") if open == 0 => return,
                Tok::Op("}") => {
                    open -= 1;
                    if open == 0 {
                        self.bump();
                        return;
                    }
                }
                Tok::Op(";") if open == 0 => {
                    self.bump();
                    return;
                }
                _ => {}
            }
            self.bump();
        }
    }

    /// After a bad test: to the block it guards, or the end of the statement.
    fn skip_to_block(&mut self) {
        while !matches!(self.tok, Tok::Eof | Tok::Op("{" | ";" | "}")) && !self.at_top_level_word() {
            self.bump();
        }
    }

    // ---- includes

    /// `include_file "x"` and `import_file "x"`; the token looked at is the keyword.
    fn include(&mut self) {
        let missing = if self.is_word("import_file") { Missing::Ignore } else { Missing::Error };
        // The file's tokens come right behind its name, so nothing may be looked at beyond the name.
        let name = self.reader.next(&mut self.problems);
        if let Tok::Str(path) = &name.tok {
            let path = String::from_utf8_lossy(path).into_owned();
            self.reader.include(&path, name.loc, missing, &mut self.problems);
        } else {
            self.report(Diagnostic::error(name.loc, "expected the quoted name of a file"));
        }
        self.refill(name.loc);
    }

    fn at_include(&self) -> bool {
        self.is_word("include_file") || self.is_word("import_file")
    }
}

/// "did you mean" for a word of the language.
fn meant(problem: Diagnostic, word: &[u8], candidates: &[&'static str]) -> Diagnostic {
    let word = String::from_utf8_lossy(word);
    match nearest(&word, candidates.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem,
    }
}
