//! Calls of functions and routes, and the statements that wait.

use super::{LENGTH, Parsed, Parser};
use crate::ast::{Arg, ArgKind, AssignOp, Call, Expr, ExprKind, RouteRef, Stmt, StmtKind, Until};
use crate::diagnostic::{Diagnostic, Loc};
use crate::lexer::Tok;
use bytes::Bytes;

/// Functions of the core that 2.x also takes without parentheses.
const BARE: &[&str] = &[
    "add_local_rport",
    "add_rport",
    "add_tcp_alias",
    "append_branch",
    "force_local_rport",
    "force_rport",
    "force_tcp_alias",
    "isdsturiset",
    "isduriset",
    "next_branches",
    "resetdsturi",
    "resetduri",
    "revert_uri",
];

/// Statements of the language; as calls they are misspelt.
const KEYWORDS: &[&str] = &[
    "if", "else", "while", "for", "switch", "case", "default", "return", "break", "exit", "drop", "elseif",
    "elsif",
];

impl Parser<'_> {
    /// `name(args)`; the token looked at is the name.
    pub(super) fn call(&mut self) -> Parsed<Call> {
        let (name, start) = (self.text(), self.loc);
        self.bump();
        if KEYWORDS.iter().any(|k| k.as_bytes().eq_ignore_ascii_case(&name)) {
            return self.not_a_call(&name, start);
        }
        if !self.is("(") {
            if BARE.iter().any(|b| b.as_bytes() == name) {
                return Ok(Call { name, args: Vec::new(), loc: start });
            }
            return self.not_a_call(&name, start);
        }
        self.nested(|p| {
            p.bump();
            let outer = std::mem::replace(&mut p.folds, matches!(&name[..], b"xlog" | b"xdbg"));
            let args = p.arguments();
            p.folds = outer;
            let args = args?;
            let end = p.expect(")", "after the parameters")?;
            Ok(Call { name, args, loc: start.to(end) })
        })
    }

    fn not_a_call<T>(&mut self, name: &[u8], loc: Loc) -> Parsed<T> {
        let shown = String::from_utf8_lossy(name);
        let lower = shown.to_ascii_lowercase();
        let bad = Diagnostic::error(loc, format!("`{shown}` is not a statement"));
        let bad = match lower.as_str() {
            "if" | "else" | "while" | "for" | "switch" | "case" | "default" | "return" | "break" | "exit"
            | "drop" => bad.hint(format!("keywords are written in small letters: `{lower}`")),
            "elseif" | "elsif" | "elif" => bad.hint("write `else if`"),
            _ if self.is("=") => {
                bad.hint(format!("a variable starts with `$`: `${shown}`, or `$var({shown})`"))
            }
            _ => bad.hint(format!("a function is called with parentheses: `{shown}()`")),
        };
        self.fail_with(bad)
    }

    /// Parameters up to the closing parenthesis.
    fn arguments(&mut self) -> Parsed<Vec<Arg>> {
        let mut args = Vec::new();
        if self.is(")") {
            return Ok(args);
        }
        loop {
            args.push(self.argument()?);
            if args.len() > LENGTH {
                return self.fail("too many parameters");
            }
            if !self.take(",") {
                return Ok(args);
            }
        }
    }

    pub(super) fn argument(&mut self) -> Parsed<Arg> {
        let loc = self.loc;
        let kind = match &mut self.tok {
            Tok::Op("," | ")") => {
                return Ok(Arg { kind: ArgKind::Empty, loc: Loc { end: loc.start, ..loc } });
            }
            Tok::Str(text) if self.folds => {
                let text = text.clone();
                self.bump();
                let text = self.folded(text);
                return self.argument_end(ArgKind::Text(text), loc.to(self.last));
            }
            Tok::Str(text) => ArgKind::Text(std::mem::take(text)),
            Tok::Var(var) => {
                let kind = ArgKind::Var((**var).clone());
                self.bump();
                return self.argument_end(kind, loc);
            }
            Tok::Op("-") => {
                self.bump();
                let Tok::Int(n) = self.tok else {
                    return self.fail(format!("expected a number after `-`, found {}", self.found()));
                };
                ArgKind::Int(wrap(-n))
            }
            Tok::Int(_) | Tok::Ident | Tok::Word | Tok::Op("[" | "*") => self.bare_argument(),
            _ => return self.fail(format!("expected a parameter, found {}", self.found())),
        };
        let end = self.bump().loc;
        self.argument_end(kind, loc.to(end))
    }

    /// The strings that follow `text`, all as one (`xlog`, `modparam`).
    pub(super) fn folded(&mut self, text: Bytes) -> Bytes {
        if !matches!(self.tok, Tok::Str(_)) {
            return text;
        }
        let mut all = text.to_vec();
        while let Tok::Str(more) = &self.tok {
            all.extend_from_slice(more);
            self.bump();
        }
        all.into()
    }

    fn argument_end(&mut self, kind: ArgKind, loc: Loc) -> Parsed<Arg> {
        match &self.tok {
            Tok::Op("," | ")") => Ok(Arg { kind, loc }),
            Tok::Op(
                "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>" | "==" | "!=" | "<" | ">",
            ) => {
                let bad = Diagnostic::error(self.loc, "a parameter cannot be computed in place");
                self.fail_with(bad.hint("assign the result to a variable first"))
            }
            Tok::Str(_) => {
                let bad = Diagnostic::error(self.loc, "expected `,` or `)`, found a string");
                self.fail_with(bad.hint("is a comma missing, or a quote before it?"))
            }
            _ => self.fail(format!("expected `,` or `)` after this parameter, found {}", self.found())),
        }
    }

    /// An unquoted word as 2.x takes it: `5060`, `FLAG`, `udp:10.0.0.1:5060`, `[::1]:5060`. The token
    /// looked at becomes the whole word.
    fn bare_argument(&mut self) -> ArgKind {
        let cursor = self.reader.cursor();
        let start = cursor.pos;
        let joins = |b: u8| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'_' | b'.' | b':' | b'/' | b'@' | b'*' | b'-' | b'[' | b']')
        };
        while joins(cursor.at(cursor.pos)) {
            cursor.pos += 1;
        }
        if let (Tok::Int(n), true) = (&self.tok, cursor.pos == start) {
            return ArgKind::Int(wrap(*n));
        }
        self.loc.end += (cursor.pos - start) as u32;
        self.tok = Tok::Word;
        ArgKind::Word(self.text())
    }

    /// `route(name, args)`; the token looked at is `route`.
    pub(super) fn route_call(&mut self) -> Parsed<Expr> {
        let start = self.bump().loc;
        self.expect("(", "after `route`")?;
        let target = self.route_ref()?;
        let more = self.take(",");
        if more && self.is(")") {
            return self.fail("a parameter is missing here");
        }
        let args = if more { self.nested(Self::arguments)? } else { Vec::new() };
        let end = self.expect(")", "after the route")?;
        Ok(Expr { kind: ExprKind::Route(target, args), loc: start.to(end) })
    }

    fn route_ref(&mut self) -> Parsed<RouteRef> {
        let loc = self.loc;
        match &self.tok {
            Tok::Var(var) => {
                let var = RouteRef::Var((**var).clone());
                self.bump();
                Ok(var)
            }
            Tok::Str(text) if memchr::memchr(b'$', text).is_some() => {
                let text = text.clone();
                self.bump();
                Ok(RouteRef::Format(text, loc))
            }
            _ => Ok(RouteRef::Name(self.route_name()?, loc)),
        }
    }

    /// `async(f(...), route[, seconds])`; the token looked at is `async`.
    pub(super) fn async_call(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        self.expect("(", "after `async`")?;
        let call = self.waiting_call()?;
        if !self.is(",") {
            let bad = Diagnostic::error(self.loc, "`async` needs the route to go on in");
            return self.fail_with(bad.hint("write `async(f(...), route_name);`"));
        }
        self.bump();
        let resume = self.route_ref()?;
        let mut timeout = None;
        if self.take(",") {
            match self.tok {
                Tok::Int(n) if n > 0 => timeout = Some(n.min(u32::MAX as i64) as u32),
                _ => return self.fail(format!("expected a timeout in seconds, found {}", self.found())),
            }
            self.bump();
        }
        let end = self.expect(")", "at the end of `async`")?;
        Ok(Stmt { kind: StmtKind::Async { call, resume, timeout }, loc: start.to(end) })
    }

    /// `launch(f(...)[, route[, text]])`; the token looked at is `launch`.
    pub(super) fn launch_call(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        self.expect("(", "after `launch`")?;
        let call = self.waiting_call()?;
        let mut report = None;
        let mut param = None;
        if self.take(",") {
            report = Some(self.route_ref()?);
            if self.take(",") {
                param = Some(self.argument()?);
            }
        }
        let end = self.expect(")", "at the end of `launch`")?;
        Ok(Stmt { kind: StmtKind::Launch { call, report, param }, loc: start.to(end) })
    }

    /// `parallel [any] [(seconds)] { f(...); $var(x) = g(...); }`; the token looked at is `parallel`.
    pub(super) fn parallel_statement(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        let until = match self.is_word("any") {
            true => {
                self.bump();
                Until::Any
            }
            false => Until::All,
        };
        let mut timeout = None;
        if self.take("(") {
            match self.tok {
                Tok::Int(n) if n > 0 => timeout = Some(n.min(u32::MAX as i64) as u32),
                _ => return self.fail(format!("expected a time limit in seconds, found {}", self.found())),
            }
            self.bump();
            self.expect(")", "after the time limit of `parallel`")?;
        }
        let open = self.loc;
        if !self.is("{") {
            let bad = Diagnostic::error(self.loc, format!("expected `{{`, found {}", self.found()));
            return self.fail_with(bad.hint("write `parallel { f(...); g(...); }`"));
        }
        let body = self.block()?;
        for stmt in &body {
            let call = match &stmt.kind {
                StmtKind::Expr(expr) | StmtKind::Assign { op: AssignOp::Set, value: expr, .. } => expr,
                _ => {
                    self.not_parallel(stmt.loc);
                    continue;
                }
            };
            if !matches!(call.kind, ExprKind::Call(_)) {
                self.not_parallel(stmt.loc);
            }
        }
        if body.is_empty() {
            self.report(Diagnostic::error(open, "nothing stands in this `parallel`"));
        }
        let loc = start.to(self.last);
        Ok(Stmt { kind: StmtKind::Parallel { until, timeout, body, open }, loc })
    }

    fn not_parallel(&mut self, loc: Loc) {
        let bad = Diagnostic::error(loc, "this cannot run beside others");
        self.report(bad.hint("in `parallel` stand calls of functions: `f(...);` or `$var(x) = f(...);`"));
    }

    fn waiting_call(&mut self) -> Parsed<Call> {
        if self.tok != Tok::Ident || self.is_word("route") {
            return self.fail(format!("expected the call of a function, found {}", self.found()));
        }
        self.call()
    }
}

/// Numbers of scripts have 32 bits; larger ones wrap, as in the reference.
pub(super) fn wrap(n: i64) -> i64 {
    i64::from(n as i32)
}
