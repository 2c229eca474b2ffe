//! Statements.

use super::call::wrap;
use super::expr::truth;
use super::{Breakable, Failed, LENGTH, Parsed, Parser};
use crate::ast::{Arm, AssignOp, Expr, ExprKind, Stmt, StmtKind};
use crate::diagnostic::{Diagnostic, Loc};
use crate::lexer::Tok;
use bytes::Bytes;

const ASSIGNMENTS: &[(&str, AssignOp)] = &[
    ("=", AssignOp::Set),
    (":=", AssignOp::SetOver),
    ("+=", AssignOp::Add),
    ("-=", AssignOp::Sub),
    ("*=", AssignOp::Mul),
    ("/=", AssignOp::Div),
    ("%=", AssignOp::Mod),
    ("&=", AssignOp::And),
    ("|=", AssignOp::Or),
    ("^=", AssignOp::Xor),
    (".=", AssignOp::Concat),
];

impl Parser<'_> {
    /// Statements up to a `}`, a `case`, the end of the file or the start of another route.
    pub(super) fn statements(&mut self) -> Vec<Stmt> {
        let mut body = Vec::new();
        loop {
            if self.at_include() {
                self.include();
                continue;
            }
            if matches!(self.tok, Tok::Eof | Tok::Op("}")) || self.too_many() || self.at_top_level_word() {
                return body;
            }
            if (self.is_word("case") || self.is_word("default"))
                && self.breakable.last() == Some(&Breakable::Case)
            {
                return body;
            }
            if self.take(";") {
                continue;
            }
            match self.nested(Self::statement) {
                Ok(stmt) => body.push(stmt),
                Err(Failed) => self.skip_statement(),
            }
        }
    }

    fn statement(&mut self) -> Parsed<Stmt> {
        let start = self.loc;
        match &self.tok {
            Tok::Op("{") => self.bare_block(),
            Tok::Var(_) => self.assignment(),
            Tok::Ident => {
                let word = self.text();
                match &word[..] {
                    b"if" => self.if_statement(),
                    b"while" => self.while_statement(),
                    b"for" => self.for_statement(),
                    b"switch" => self.switch_statement(),
                    b"break" | b"continue" => self.leave_statement(&word),
                    b"return" => self.return_statement(),
                    b"exit" => self.ending(StmtKind::Exit),
                    b"drop" => self.ending(StmtKind::Drop),
                    b"async" => {
                        let stmt = self.async_call()?;
                        self.finished(stmt.kind, start)
                    }
                    b"launch" => {
                        let stmt = self.launch_call()?;
                        self.finished(stmt.kind, start)
                    }
                    b"parallel" => self.parallel_statement(),
                    b"assert" => self.assert_statement(),
                    b"else" => {
                        let bad = Diagnostic::error(start, "`else` without an `if` before it");
                        self.fail_with(bad.hint("no `;` may stand between `}` and `else`"))
                    }
                    b"case" | b"default" => self.misplaced_case(&word),
                    b"route" => {
                        let expr = self.route_call()?;
                        self.finished(StmtKind::Expr(expr), start)
                    }
                    _ => {
                        let call = self.call()?;
                        let loc = call.loc;
                        self.finished(StmtKind::Expr(Expr { kind: ExprKind::Call(call), loc }), start)
                    }
                }
            }
            Tok::Int(_) | Tok::Str(_) => {
                let bad = Diagnostic::error(start, format!("expected a statement, found {}", self.found()));
                self.fail_with(bad.hint("only a variable can be assigned to"))
            }
            _ => self.fail(format!("expected a statement, found {}", self.found())),
        }
    }

    /// The `;` behind a statement. Without it, reading goes on as if it were there.
    fn finished(&mut self, kind: StmtKind, start: Loc) -> Parsed<Stmt> {
        let stmt = Stmt { kind, loc: start.to(self.last) };
        if self.take(";") {
            return Ok(stmt);
        }
        let behind = Loc { start: self.last.end.saturating_sub(1).max(self.last.start), ..self.last };
        if self.tok == Tok::Bad {
            return Err(Failed);
        }
        let bad =
            Diagnostic::error(behind, format!("expected `;` after this statement, found {}", self.found()));
        let starts = matches!(self.tok, Tok::Ident | Tok::Var(_) | Tok::Op("}" | "{") | Tok::Eof);
        if matches!(&stmt.kind, StmtKind::Assign { .. }) && matches!(self.tok, Tok::Op("&&" | "||")) {
            let bad = Diagnostic::error(self.loc, "logic cannot stand in a value");
            return self.fail_with(bad.hint("use `if`; `&` and `|` are the bitwise operators"));
        }
        self.report(bad);
        if starts { Ok(stmt) } else { Err(Failed) }
    }

    fn bare_block(&mut self) -> Parsed<Stmt> {
        let start = self.loc;
        let bad = Diagnostic::error(start, "a block of its own is no statement");
        self.report(bad.hint("leave its braces out"));
        Ok(Stmt { kind: StmtKind::Block(self.block()?), loc: start.to(self.last) })
    }

    /// The assignment that stands here, if one does.
    pub(super) fn assignment_operator(&self) -> Option<AssignOp> {
        let Tok::Op(text) = self.tok else { return None };
        ASSIGNMENTS.iter().find(|(t, _)| *t == text).map(|(_, op)| *op)
    }

    fn assignment(&mut self) -> Parsed<Stmt> {
        let token = self.bump();
        let Tok::Var(target) = token.tok else { return Err(Failed) };
        let Tok::Op(text) = self.tok else {
            return self.fail(format!("expected `=` after the variable, found {}", self.found()));
        };
        let Some((_, op)) = ASSIGNMENTS.iter().find(|(t, _)| *t == text) else {
            let bad = Diagnostic::error(self.loc, format!("expected `=` after the variable, found `{text}`"));
            return self.fail_with(match text {
                "==" => bad.hint("a comparison is no statement; assign with `=`"),
                "<<=" | ">>=" => bad.hint(format!("write `$var(x) = $var(x) {} ...`", &text[..2])),
                _ => bad,
            });
        };
        self.bump();
        let value = self.value()?;
        self.finished(StmtKind::Assign { target: *target, op: *op, value }, token.loc)
    }

    // ---- branches and loops

    /// A test in parentheses, or (as the reference has it) one without; 3.x wants them around a variable. After
    /// a bad one the block is read all the same, so that its problems are reported too.
    fn guarded(&mut self, what: &str) -> Option<Expr> {
        if !self.is("(") && self.is_new() {
            let bad = Diagnostic::error(self.loc, format!("expected `(` after `{what}`"));
            self.report(bad.hint("put the test in parentheses"));
            self.skip_to_block();
            return None;
        }
        match self.test() {
            Ok(test) if self.is(")") => {
                self.report(Diagnostic::error(self.loc, "this `)` closes nothing"));
                self.skip_to_block();
                drop(test);
                None
            }
            // One pair of parentheses is around all of it.
            Ok(test) if self.is_new() && !matches!(test.kind, ExprKind::Group(_)) => {
                let bad = Diagnostic::error(test.loc, "the parentheses must be around the whole test");
                self.report(bad.hint(format!("write `{what} (...)` with all of it inside")));
                Some(test)
            }
            Ok(test) => Some(test),
            Err(Failed) => {
                self.skip_to_block();
                None
            }
        }
    }

    /// A block or a single statement.
    fn branch(&mut self) -> Parsed<Vec<Stmt>> {
        if self.is("{") {
            return self.nested(Self::block);
        }
        if self.take(";") {
            return Ok(Vec::new());
        }
        if matches!(self.tok, Tok::Op("}") | Tok::Eof) {
            return self.fail(format!("expected a statement, found {}", self.found()));
        }
        self.nested(|p| Ok(vec![p.statement()?]))
    }

    fn if_statement(&mut self) -> Parsed<Stmt> {
        let mut arms = Vec::new();
        let mut otherwise = None;
        let mut bad = false;
        loop {
            let start = self.bump().loc;
            let test = self.guarded("if");
            let then = self.branch()?;
            bad |= test.is_none();
            if arms.len() > LENGTH {
                return self.fail("too many `else if` in a row");
            }
            let nothing = Expr { kind: ExprKind::Null, loc: start };
            arms.push((start, test.unwrap_or(nothing), then));
            if !self.is_word("else") {
                break;
            }
            self.bump();
            if !self.is_word("if") {
                otherwise = Some(self.branch()?);
                break;
            }
        }
        let end = self.last;
        let mut stmt = None;
        for (start, test, then) in arms.into_iter().rev() {
            let otherwise = stmt.take().map(|s| vec![s]).or_else(|| otherwise.take());
            stmt = Some(Stmt { kind: StmtKind::If { test, then, otherwise }, loc: start.to(end) });
        }
        match stmt {
            Some(stmt) if !bad => Ok(stmt),
            // Reported, and read to its end: an empty block stands for it.
            _ => Ok(Stmt { kind: StmtKind::Block(Vec::new()), loc: end }),
        }
    }

    fn loop_body(&mut self) -> Parsed<Vec<Stmt>> {
        self.breakable.push(Breakable::Loop);
        let body = self.branch();
        self.breakable.pop();
        body
    }

    fn while_statement(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        let test = self.guarded("while");
        let body = self.loop_body()?;
        let kind = match test {
            Some(test) => StmtKind::While { test, body },
            None => StmtKind::Block(Vec::new()),
        };
        Ok(Stmt { kind, loc: start.to(self.last) })
    }

    fn for_statement(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        self.expect("(", "after `for`")?;
        let var = self.variable()?;
        if !self.is_word("in") {
            return self.fail(format!("expected `in`, found {}", self.found()));
        }
        self.bump();
        let list = self.variable()?;
        self.expect(")", "after the list")?;
        let body = self.loop_body()?;
        Ok(Stmt { kind: StmtKind::For { var, list, body }, loc: start.to(self.last) })
    }

    fn variable(&mut self) -> Parsed<crate::ast::VarSpec> {
        let Tok::Var(var) = &self.tok else {
            return self.fail(format!("expected a variable, found {}", self.found()));
        };
        let var = (**var).clone();
        self.bump();
        Ok(var)
    }

    // ---- switch

    fn switch_statement(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        self.expect("(", "after `switch`")?;
        let on = self.nested(Self::value)?;
        if !matches!(on.kind, ExprKind::Var(_)) {
            self.report(Diagnostic::error(on.loc, "`switch` looks at a variable"));
        }
        self.expect(")", "after the variable")?;
        let open = self.expect("{", "to start the cases")?;
        self.breakable.push(Breakable::Case);
        let cases = self.cases(open);
        self.breakable.pop();
        let (arms, default) = cases?;
        Ok(Stmt { kind: StmtKind::Switch { on, arms, default }, loc: start.to(self.last) })
    }

    fn cases(&mut self, open: Loc) -> Parsed<(Vec<Arm>, Option<Vec<Stmt>>)> {
        let mut arms: Vec<Arm> = Vec::new();
        let mut default = None;
        loop {
            if self.at_include() {
                self.include();
                continue;
            }
            let start = self.loc;
            if self.is_word("case") {
                if default.is_some() {
                    self.report(
                        Diagnostic::error(start, "a `case` after `default`").hint("`default` comes last"),
                    );
                }
                self.bump();
                let value = match self.case_value() {
                    Ok(value) => value,
                    Err(Failed) => {
                        while !matches!(self.tok, Tok::Eof | Tok::Op(":" | "}" | ";" | "{")) {
                            self.bump();
                        }
                        Expr { kind: ExprKind::Null, loc: start }
                    }
                };
                self.expect(":", "after the value")?;
                // `case 1: case 2:` share what follows.
                match arms.last_mut() {
                    Some(arm) if arm.body.is_empty() => arm.values.push(value),
                    _ => arms.push(Arm { values: vec![value], body: Vec::new(), loc: start.to(self.last) }),
                }
                let body = self.statements();
                if let Some(arm) = arms.last_mut() {
                    arm.body = body;
                }
            } else if self.is_word("default") {
                self.bump();
                self.expect(":", "after `default`")?;
                if default.is_some() {
                    self.report(Diagnostic::error(start, "a second `default`"));
                }
                default = Some(self.statements());
            } else if self.is("}") {
                if arms.is_empty() {
                    self.report(Diagnostic::error(open.to(self.loc), "this `switch` has no `case`"));
                }
                self.bump();
                return Ok((arms, default));
            } else if self.tok == Tok::Eof || self.too_many() || self.at_top_level_word() {
                return self.fail_with(
                    Diagnostic::error(open, "this block is never closed").hint("a `}` is missing"),
                );
            } else {
                self.report(Diagnostic::error(
                    start,
                    format!("expected `case`, `default` or `}}`, found {}", self.found()),
                ));
                self.statements();
                if self.loc == start {
                    self.bump();
                }
            }
        }
    }

    fn case_value(&mut self) -> Parsed<Expr> {
        let loc = self.loc;
        let kind = match &self.tok {
            Tok::Str(text) => ExprKind::Text(text.clone()),
            Tok::Int(n) => ExprKind::Int(wrap(*n)),
            Tok::Op("-") => {
                self.bump();
                match self.tok {
                    Tok::Int(n) => ExprKind::Int(wrap(-n)),
                    _ => return self.fail(format!("expected a number after `-`, found {}", self.found())),
                }
            }
            Tok::Var(_) => {
                let bad = Diagnostic::error(loc, "the value of a `case` must be fixed");
                return self.fail_with(bad.hint("compare with a variable in an `if`"));
            }
            _ => return self.fail(format!("expected a number or a quoted text, found {}", self.found())),
        };
        let loc = loc.to(self.bump().loc);
        Ok(Expr { kind, loc })
    }

    fn misplaced_case(&mut self, word: &Bytes) -> Parsed<Stmt> {
        let shown = String::from_utf8_lossy(word);
        let bad = Diagnostic::error(self.loc, format!("`{shown}` stands outside of a `switch`"));
        self.fail_with(bad)
    }

    // ---- ends

    fn leave_statement(&mut self, word: &Bytes) -> Parsed<Stmt> {
        let start = self.bump().loc;
        if self.take("(") {
            self.expect(")", "here")?;
        }
        if word == "continue" {
            if !self.breakable.contains(&Breakable::Loop) {
                self.report(Diagnostic::error(start, "`continue` outside of a loop"));
            }
            return self.finished(StmtKind::Continue, start);
        }
        match self.breakable.last() {
            Some(Breakable::Loop | Breakable::Case) => {}
            None => {
                let bad = Diagnostic::error(start, "`break` outside of a loop or `switch`");
                self.report(bad.hint("a route is left with `return`, the script with `exit`"));
            }
        }
        self.finished(StmtKind::Break, start)
    }

    /// `exit;` `exit();` `drop;` `drop();`
    fn ending(&mut self, kind: StmtKind) -> Parsed<Stmt> {
        let start = self.bump().loc;
        if self.take("(") {
            self.expect(")", "here")?;
        }
        self.finished(kind, start)
    }

    /// `return;` `return -1;` `return(1, $var(x), ...);`
    fn return_statement(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        let mut values = Vec::new();
        if self.take("(") {
            while !self.is(")") {
                values.push(self.return_value(values.is_empty())?);
                if !self.take(",") {
                    break;
                }
            }
            if !self.is(")") && matches!(self.tok, Tok::Op(_)) {
                let bad = Diagnostic::error(self.loc, "a return value cannot be computed in place");
                return self.fail_with(bad.hint("assign the result to a variable first"));
            }
            self.expect(")", "after the return value")?;
        } else if !self.is(";") {
            values.push(self.return_value(true)?);
        }
        self.finished(StmtKind::Return(values), start)
    }

    /// The code that comes first is a number; what follows may be a text too.
    fn return_value(&mut self, is_code: bool) -> Parsed<Expr> {
        let loc = self.loc;
        if let (Tok::Ident, Some(number)) = (&self.tok, truth(&self.text())) {
            self.bump();
            return Ok(Expr { kind: ExprKind::Int(number), loc });
        }
        let kind = match &self.tok {
            Tok::Str(_) if is_code => return self.fail("a return code is a number"),
            Tok::Ident if is_code => {
                return self.fail(format!("expected a return code, found {}", self.found()));
            }
            Tok::Str(text) => ExprKind::Text(text.clone()),
            Tok::Int(n) => ExprKind::Int(wrap(*n)),
            Tok::Var(var) => ExprKind::Var((**var).clone()),
            Tok::Ident if self.sourced("NULL") || self.sourced("null") => ExprKind::Null,
            Tok::Op("-") => {
                self.bump();
                match self.tok {
                    Tok::Int(n) => ExprKind::Int(wrap(-n)),
                    _ => return self.fail(format!("expected a number after `-`, found {}", self.found())),
                }
            }
            _ => return self.fail(format!("expected a return value, found {}", self.found())),
        };
        let loc = loc.to(self.bump().loc);
        Ok(Expr { kind, loc })
    }

    /// `assert(test, "text");`
    fn assert_statement(&mut self) -> Parsed<Stmt> {
        let start = self.bump().loc;
        self.expect("(", "after `assert`")?;
        let test = self.nested(Self::test)?;
        let mut text = Bytes::new();
        if self.take(",") {
            let Tok::Str(said) = &self.tok else {
                return self.fail(format!("expected a quoted text, found {}", self.found()));
            };
            text = said.clone();
            self.bump();
        }
        self.expect(")", "at the end of `assert`")?;
        self.finished(StmtKind::Assert { test, text }, start)
    }
}
