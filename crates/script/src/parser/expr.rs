//! Tests and values. `+ - * / %` have one precedence and go from left to right, as do `&&` and `||`;
//! the operators on bits bind less: `1 << 2 + 3` is 32, `2 + 3 * 4` is 20.

use super::call::wrap;
use super::{LENGTH, Parsed, Parser, meant};
use crate::ast::{AssignOp, BinOp, Expr, ExprKind, Stmt, StmtKind};
use crate::diagnostic::{Diagnostic, Loc};
use crate::lexer::Tok;

const COMPARISONS: &[(&str, BinOp)] = &[
    ("==", BinOp::Eq),
    ("!=", BinOp::Ne),
    ("<", BinOp::Lt),
    (">", BinOp::Gt),
    ("<=", BinOp::Le),
    (">=", BinOp::Ge),
    ("=~", BinOp::Match),
    ("!~", BinOp::NotMatch),
];
const ARITHMETIC: &[(&str, BinOp)] =
    &[("+", BinOp::Add), ("-", BinOp::Sub), ("*", BinOp::Mul), ("/", BinOp::Div), ("%", BinOp::Mod)];
const BITWISE: &[(&str, BinOp)] = &[
    ("&", BinOp::BitAnd),
    ("|", BinOp::BitOr),
    ("^", BinOp::BitXor),
    ("<<", BinOp::ShiftLeft),
    (">>", BinOp::ShiftRight),
];
/// Bare words of the core that a test may start with.
const WORDS: &[&str] = &[
    "method", "uri", "from_uri", "to_uri", "src_ip", "dst_ip", "src_port", "dst_port", "proto", "af",
    "msg:len", "status",
];

impl Parser<'_> {
    fn operator(&self, table: &[(&str, BinOp)]) -> Option<BinOp> {
        let Tok::Op(op) = self.tok else { return None };
        table.iter().find(|(text, _)| *text == op).map(|(_, op)| *op)
    }

    fn logic(&self) -> Option<BinOp> {
        match self.tok {
            Tok::Op("&&") => Some(BinOp::And),
            Tok::Op("||") => Some(BinOp::Or),
            Tok::Ident if self.sourced("and") => Some(BinOp::And),
            Tok::Ident if self.sourced("or") => Some(BinOp::Or),
            _ => None,
        }
    }

    /// A test: elements joined by `&&` and `||`.
    pub(super) fn test(&mut self) -> Parsed<Expr> {
        let mut left = self.test_element()?;
        let mut length = 0;
        while let Some(op) = self.logic() {
            self.bump();
            let right = self.test_element()?;
            left = binary(op, left, right);
            length += 1;
            if length > LENGTH {
                return self.fail("this test is too long");
            }
        }
        Ok(left)
    }

    fn test_element(&mut self) -> Parsed<Expr> {
        let start = self.loc;
        if self.is("!") || self.is_word("not") {
            self.bump();
            let inner = self.nested(Self::test_element)?;
            let loc = start.to(inner.loc);
            return Ok(Expr { kind: ExprKind::Not(Box::new(inner)), loc });
        }
        if self.take("(") {
            if self.is(")") {
                return self.fail_with(Diagnostic::error(start.to(self.loc), "the test is empty"));
            }
            let inner = self.nested(Self::test)?;
            self.closing(")", start)?;
            let expr = Expr { kind: ExprKind::Group(Box::new(inner)), loc: start.to(self.last) };
            return self.no_comparison(expr);
        }
        if self.is("[") {
            return self.bracket();
        }
        self.comparison()
    }

    /// `[ arithmetic ]`
    fn bracket(&mut self) -> Parsed<Expr> {
        let start = self.bump().loc;
        let inner = self.nested(|p| p.value())?;
        self.closing("]", start)?;
        Ok(Expr { kind: ExprKind::Bracket(Box::new(inner)), loc: start.to(self.last) })
    }

    /// The `)` or `]` of what was opened at `open`.
    fn closing(&mut self, close: &'static str, open: Loc) -> Parsed<()> {
        if self.take(close) {
            return Ok(());
        }
        if self.is("=") {
            let bad = Diagnostic::error(self.loc, "an assignment cannot stand in a test");
            return self.fail_with(bad.hint("equality is tested with `==`"));
        }
        if self.operator(ARITHMETIC).or(self.operator(BITWISE)).is_some() {
            let bad = Diagnostic::error(self.loc, "arithmetic in a test stands in brackets");
            return self
                .fail_with(bad.hint("write `[ ... ]` around it, or assign the result to a variable first"));
        }
        if matches!(self.tok, Tok::Op("{" | ";" | "}") | Tok::Eof) {
            let shown = if close == ")" { "(" } else { "[" };
            let bad = Diagnostic::error(open, format!("this `{shown}` is never closed"));
            return self.fail_with(bad);
        }
        if self.tok == Tok::Ident {
            let text = self.text();
            let bad = Diagnostic::error(
                self.loc,
                format!("expected an operator or `{close}`, found {}", self.found()),
            );
            let bad = match &text[..] {
                b"eq" => bad.hint("equality is tested with `==`"),
                b"ne" => bad.hint("inequality is tested with `!=`"),
                b"AND" | b"OR" => bad.hint("operators are written in small letters"),
                _ => meant(bad, &text, &["and", "or"]),
            };
            return self.fail_with(bad);
        }
        self.fail(format!("expected an operator or `{close}`, found {}", self.found()))
    }

    fn no_comparison(&mut self, expr: Expr) -> Parsed<Expr> {
        if self.operator(COMPARISONS).is_none() {
            return Ok(expr);
        }
        let bad = Diagnostic::error(expr.loc, "only a variable can be compared");
        self.fail_with(match expr.kind {
            ExprKind::Route(..) | ExprKind::Call(_) => bad.hint("call it first, then compare `$rc`"),
            ExprKind::Int(_) | ExprKind::Text(_) => {
                bad.hint("write the variable on the left: `$var(x) == ...`")
            }
            _ => bad,
        })
    }

    /// A variable, perhaps compared; or a call, a number, a text.
    fn comparison(&mut self) -> Parsed<Expr> {
        let start = self.loc;
        if let Tok::Var(var) = &self.tok {
            let left = Expr { kind: ExprKind::Var((**var).clone()), loc: start };
            self.bump();
            if let Some(op) = self.assignment_operator()
                && let ExprKind::Var(target) = left.kind
            {
                return self.assigned(target, start, op);
            }
            return self.compared(left);
        }
        if self.tok == Tok::Word || (self.tok == Tok::Ident && self.byte_behind() != b'(') {
            let text = self.text();
            if let Some(truth) = truth(&text) {
                self.bump();
                return self.no_comparison(Expr { kind: ExprKind::Int(truth), loc: start });
            }
            if !WORDS.iter().any(|w| w.as_bytes() == text) {
                return self.unknown_word(&text);
            }
            let left = Expr { kind: ExprKind::Word(text), loc: start };
            self.bump();
            if self.is("=") {
                // 2.x takes it here, and its own templates use it.
                let bad = Diagnostic::warning(self.loc, "`=` compares here");
                self.report(bad.hint("write `==`"));
                self.tok = Tok::Op("==");
            }
            if self.operator(COMPARISONS).is_none() {
                let bad = Diagnostic::error(start, "this word must be compared with something");
                return self.fail_with(bad);
            }
            return self.compared(left);
        }
        let expr = self.operand()?;
        self.no_comparison(expr)
    }

    fn unknown_word<T>(&mut self, text: &[u8]) -> Parsed<T> {
        let shown = String::from_utf8_lossy(text).into_owned();
        let bad = Diagnostic::error(self.loc, format!("`{shown}` is not something that can be tested"));
        let bad = match text {
            b"myself" => bad.hint("compare it: `uri == myself`"),
            b"retcode" | b"rc" => bad.hint(format!("the return code is `${shown}`")),
            _ => {
                let near = meant(bad, text, WORDS);
                if near.hint.is_some() {
                    near
                } else {
                    near.hint(format!("a variable starts with `$`, a call ends with `()`: `{shown}()`"))
                }
            }
        };
        self.fail_with(bad)
    }

    /// The rest of `$x = value` inside a test, which assigns.
    fn assigned(&mut self, target: crate::ast::VarSpec, start: Loc, op: AssignOp) -> Parsed<Expr> {
        let bad =
            Diagnostic::warning(self.loc, "this assigns, and is true when the variable takes the value");
        self.report(bad.hint("equality is tested with `==`"));
        self.bump();
        let value = self.value()?;
        let loc = start.to(value.loc);
        let assign = Stmt { kind: StmtKind::Assign { target, op, value }, loc };
        Ok(Expr { kind: ExprKind::Assign(Box::new(assign)), loc })
    }

    /// The rest of a comparison whose left side is read.
    fn compared(&mut self, left: Expr) -> Parsed<Expr> {
        let Some(op) = self.operator(COMPARISONS) else { return Ok(left) };
        self.bump();
        let right = self.right_side()?;
        Ok(binary(op, left, right))
    }

    /// What a variable is compared with.
    fn right_side(&mut self) -> Parsed<Expr> {
        let start = self.loc;
        match &self.tok {
            Tok::Op("(") => {
                let bad = Diagnostic::error(start, "no parentheses may stand around what is compared with");
                self.fail_with(bad.hint("write the value alone"))
            }
            Tok::Op("[") => {
                // An IPv6 address.
                let cursor = self.reader.cursor();
                let Some(len) = memchr::memchr2(b']', b'\n', &cursor.text[cursor.pos..]) else {
                    return self.fail("expected a value, found `[`");
                };
                cursor.pos += len + 1;
                self.loc.end += len as u32 + 1;
                self.tok = Tok::Word;
                let word = ExprKind::Word(self.text());
                let loc = self.loc;
                self.bump();
                Ok(Expr { kind: word, loc })
            }
            Tok::Ident if !self.sourced("NULL") && !self.sourced("null") && truth(&self.text()).is_none() => {
                // myself, UDP, INVITE, host.example.com
                let cursor = self.reader.cursor();
                let begin = cursor.pos;
                while cursor.at(cursor.pos).is_ascii_alphanumeric()
                    || matches!(cursor.at(cursor.pos), b'.' | b'_' | b'-' | b':' | b'@')
                {
                    cursor.pos += 1;
                }
                self.loc.end += (cursor.pos - begin) as u32;
                let word = ExprKind::Word(self.text());
                let loc = self.loc;
                self.bump();
                if self.is("(") {
                    let bad = Diagnostic::error(loc, "a variable cannot be compared with a call");
                    return self.fail_with(bad.hint("assign the result to a variable first"));
                }
                Ok(Expr { kind: word, loc })
            }
            Tok::Word => {
                let word = ExprKind::Word(self.text());
                self.bump();
                Ok(Expr { kind: word, loc: start })
            }
            _ => self.operand(),
        }
    }

    /// The value of an assignment or of `[ ]`: arithmetic, or one comparison.
    pub(super) fn value(&mut self) -> Parsed<Expr> {
        let left = self.arithmetic()?;
        if self.operator(COMPARISONS).is_some() {
            if !matches!(left.kind, ExprKind::Var(_)) {
                return self.no_comparison(left);
            }
            return self.compared(left);
        }
        Ok(left)
    }

    fn arithmetic(&mut self) -> Parsed<Expr> {
        self.joined(BITWISE, |p| p.joined(ARITHMETIC, Self::arithmetic_operand))
    }

    /// Operands with these operators between them, read from left to right.
    fn joined(
        &mut self,
        operators: &[(&str, BinOp)],
        operand: impl Fn(&mut Self) -> Parsed<Expr>,
    ) -> Parsed<Expr> {
        let mut left = operand(self)?;
        let mut length = 0;
        while let Some(op) = self.operator(operators) {
            self.bump();
            let right = operand(self)?;
            if let Some(null) = [&left, &right].into_iter().find(|side| matches!(side.kind, ExprKind::Null)) {
                return self.fail_with(Diagnostic::error(null.loc, "NULL cannot be computed with"));
            }
            left = binary(op, left, right);
            length += 1;
            if length > LENGTH {
                return self.fail("this expression is too long");
            }
        }
        Ok(left)
    }

    fn arithmetic_operand(&mut self) -> Parsed<Expr> {
        let start = self.loc;
        if self.take("~") {
            let inner = self.nested(Self::arithmetic_operand)?;
            let loc = start.to(inner.loc);
            return Ok(Expr { kind: ExprKind::BitNot(Box::new(inner)), loc });
        }
        if self.take("(") {
            let inner = self.nested(Self::value)?;
            if !self.is(")") {
                return self.fail(format!("expected an operator or `)`, found {}", self.found()));
            }
            self.bump();
            return Ok(Expr { kind: ExprKind::Group(Box::new(inner)), loc: start.to(self.last) });
        }
        if self.is("!") || self.is_word("not") {
            let bad = Diagnostic::error(start, "logic cannot stand in a value");
            return self.fail_with(bad.hint("use `if`; `~` is the bitwise not"));
        }
        self.operand()
    }

    /// A number, text, variable, call, or `NULL`.
    fn operand(&mut self) -> Parsed<Expr> {
        let start = self.loc;
        let kind = match &mut self.tok {
            Tok::Int(n) => ExprKind::Int(wrap(*n)),
            Tok::Str(text) => ExprKind::Text(std::mem::take(text)),
            Tok::Var(var) => ExprKind::Var((**var).clone()),
            Tok::Op("-") => {
                self.bump();
                match self.tok {
                    Tok::Int(n) => {
                        let loc = start.to(self.bump().loc);
                        return Ok(Expr { kind: ExprKind::Int(wrap(-n)), loc });
                    }
                    Tok::Var(_) => {
                        let bad = Diagnostic::error(start, "only a number can have a sign");
                        return self.fail_with(bad.hint("write `0 - $var(x)`"));
                    }
                    _ => return self.fail(format!("expected a number after `-`, found {}", self.found())),
                }
            }
            Tok::Ident => return self.word_operand(),
            Tok::Word => {
                let text = self.text();
                let bad =
                    Diagnostic::error(start, format!("`{}` is not a value", String::from_utf8_lossy(&text)));
                let fraction = text.iter().filter(|b| **b == b'.').count() == 1;
                return self.fail_with(if fraction {
                    bad.hint("numbers are whole; the mathops module works with fractions")
                } else {
                    bad.hint("quote it")
                });
            }
            _ => return self.fail(format!("expected a value, found {}", self.found())),
        };
        self.bump();
        if let (ExprKind::Text(_), Tok::Str(_)) = (&kind, &self.tok) {
            let bad = Diagnostic::error(self.loc, "two strings follow each other");
            return self.fail_with(bad.hint("join them with `+`; or is a quote missing?"));
        }
        Ok(Expr { kind, loc: start })
    }

    fn word_operand(&mut self) -> Parsed<Expr> {
        let start = self.loc;
        let text = self.text();
        match &text[..] {
            b"NULL" | b"null" => {
                self.bump();
                return Ok(Expr { kind: ExprKind::Null, loc: start });
            }
            b"route" => return self.route_call(),
            b"async" => {
                let stmt = self.async_call()?;
                let loc = stmt.loc;
                return Ok(Expr { kind: ExprKind::Async(Box::new(stmt)), loc });
            }
            b"launch" => {
                let stmt = self.launch_call()?;
                let loc = stmt.loc;
                return Ok(Expr { kind: ExprKind::Async(Box::new(stmt)), loc });
            }
            _ => {}
        }
        if let Some(truth) = truth(&text) {
            self.bump();
            return Ok(Expr { kind: ExprKind::Int(truth), loc: start });
        }
        if self.byte_behind() != b'(' {
            let shown = String::from_utf8_lossy(&text).into_owned();
            let bad = Diagnostic::error(start, format!("`{shown}` is not a value"));
            return self
                .fail_with(bad.hint(format!("quote a text: `\"{shown}\"`; a variable starts with `$`")));
        }
        let call = self.call()?;
        let loc = call.loc;
        Ok(Expr { kind: ExprKind::Call(call), loc })
    }
}

/// Yes and no, in all their spellings.
pub(super) fn truth(word: &[u8]) -> Option<i64> {
    match word {
        b"true" | b"yes" | b"on" | b"enable" => Some(1),
        b"false" | b"no" | b"off" | b"disable" => Some(0),
        _ => None,
    }
}

fn binary(op: BinOp, left: Expr, right: Expr) -> Expr {
    let loc = left.loc.to(right.loc);
    Expr { kind: ExprKind::Binary(op, Box::new(left), Box::new(right)), loc }
}
