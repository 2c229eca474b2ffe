//! Conditions. Each leaves 1, 0 or -1 (cannot be compared) in acc.

use super::values::constant;
use super::{Compiler, lossy};
use crate::ast::{BinOp, Expr, ExprKind};
use crate::diagnostic::Diagnostic;
use crate::host::Lang;
use crate::ops::{Arith, Cmp, Op, RegexId, VarId, Want};
use crate::posix;
use bytes::Bytes;

impl<L: Lang> Compiler<'_, L> {
    pub(super) fn condition(&mut self, expr: &Expr) {
        self.deeper(expr.loc, |this| this.condition_inner(expr));
    }

    fn condition_inner(&mut self, expr: &Expr) {
        if let Some(n) = constant(expr) {
            self.emit(Op::Acc(i32::from(n != 0)));
            return;
        }
        match &expr.kind {
            ExprKind::Text(_) => self.error(expr.loc, "a text alone is no condition"),
            ExprKind::Null => {
                self.emit(Op::Acc(0));
            }
            ExprKind::Var(spec) => {
                let var = self.var(spec);
                self.emit(Op::Test(var));
            }
            ExprKind::Word(word) => {
                let message = format!("`{}` alone is no condition", lossy(word));
                self.error(expr.loc, message);
            }
            ExprKind::Call(call) => {
                self.call(call);
                self.emit(Op::Truth);
            }
            ExprKind::Route(route, args) => {
                self.route_call(route, args);
                self.emit(Op::Truth);
            }
            ExprKind::Async(statement) => {
                self.statement(statement);
                self.emit(Op::Truth);
            }
            ExprKind::Assign(statement) => {
                self.statement(statement);
                self.emit(Op::Truth);
            }
            ExprKind::Group(inner) => self.condition(inner),
            ExprKind::Bracket(inner) => self.bracket(inner),
            ExprKind::Not(inner) => {
                self.condition(inner);
                self.emit(Op::Not);
            }
            ExprKind::Binary(BinOp::And | BinOp::Or, ..) => self.chain(expr),
            ExprKind::Binary(op, left, right) => self.binary_condition(expr, *op, left, right),
            ExprKind::BitNot(_) | ExprKind::Neg(_) => self.arithmetic_here(expr),
            ExprKind::Int(_) => unreachable!("a constant"),
        }
    }

    /// `a && b || c`, read from left to right: long chains lean to the left.
    fn chain(&mut self, expr: &Expr) {
        let mut rest = Vec::new();
        let mut first = expr;
        while let ExprKind::Binary(op @ (BinOp::And | BinOp::Or), left, right) = &first.kind {
            rest.push((*op, right));
            first = left;
        }
        self.condition(first);
        for (op, right) in rest.into_iter().rev() {
            let decided = self.emit(if op == BinOp::And { Op::JumpUnless(0) } else { Op::JumpIf(0) });
            self.condition(right);
            self.land(decided);
        }
    }

    fn binary_condition(&mut self, expr: &Expr, op: BinOp, left: &Expr, right: &Expr) {
        match op {
            BinOp::Match => self.pattern(Want::Match, left, right),
            BinOp::NotMatch => self.pattern(Want::NoMatch, left, right),
            op if Arith::of(op).is_some() => self.arithmetic_here(expr),
            op => self.comparison(Cmp::of(op).expect("all others are done"), left, right),
        }
    }

    fn arithmetic_here(&mut self, expr: &Expr) {
        self.report(
            Diagnostic::error(expr.loc, "arithmetic in a condition stands in [ ]")
                .hint("compute it into a variable, or test for not zero with [ ... ]"),
        );
    }

    /// `[ expression ]`: true unless it is 0, empty or NULL, or cannot be computed. A lone variable has to be
    /// there, whatever its value.
    fn bracket(&mut self, inner: &Expr) {
        let mut alone = inner;
        while let ExprKind::Group(inner) = &alone.kind {
            alone = inner;
        }
        match &alone.kind {
            ExprKind::Var(spec) => {
                let var = self.var(spec);
                self.emit(Op::CmpNull(Cmp::Ne, var));
                return;
            }
            ExprKind::Call(_) | ExprKind::Route(..) => return self.condition(alone),
            ExprKind::Binary(op, ..) if Arith::of(*op).is_none() => {
                self.condition(alone);
                self.emit(Op::Truth);
                return;
            }
            ExprKind::Null => return self.error(alone.loc, "NULL is no condition"),
            _ => {}
        }
        let (mark, height) = (self.fails.len(), self.height);
        self.value(inner);
        self.emit(Op::TestTop);
        self.height = height;
        if self.fails.len() > mark {
            let end = self.emit(Op::Jump(0));
            self.land_fails(mark, height);
            self.emit(Op::Acc(0));
            self.land(end);
        }
    }

    /// The left side of a comparison: a variable or a word of the core.
    fn compared(&mut self, left: &Expr) -> VarId {
        match &left.kind {
            ExprKind::Var(spec) => self.var(spec),
            ExprKind::Word(word) => self.word(word, left.loc),
            _ => {
                self.report(
                    Diagnostic::error(left.loc, "the left side of a comparison must be a variable")
                        .hint("assign it to a variable first"),
                );
                VarId(u32::MAX)
            }
        }
    }

    fn comparison(&mut self, cmp: Cmp, left: &Expr, right: &Expr) {
        let var = self.compared(left);
        if let Some(n) = constant(right) {
            self.emit(Op::CmpInt(cmp, var, n));
            return;
        }
        let op = match &right.kind {
            ExprKind::Text(text) => Op::CmpText(cmp, var, self.text(text)),
            ExprKind::Null if matches!(cmp, Cmp::Eq | Cmp::Ne) => Op::CmpNull(cmp, var),
            ExprKind::Null => return self.error(right.loc, "NULL compares with == and != only"),
            ExprKind::Var(spec) => Op::CmpVar(cmp, var, self.var(spec)),
            ExprKind::Word(word) => Op::CmpWord(cmp, var, self.word(word, right.loc)),
            _ => return self.right_side(right),
        };
        self.emit(op);
    }

    fn right_side(&mut self, right: &Expr) {
        self.report(
            Diagnostic::error(right.loc, "the right side of a comparison must be a literal or a variable")
                .hint("assign it to a variable first"),
        );
    }

    fn pattern(&mut self, want: Want, left: &Expr, right: &Expr) {
        let var = self.compared(left);
        let op = match &right.kind {
            ExprKind::Text(text) => Op::Match(want, var, self.regex(text, right)),
            ExprKind::Var(spec) => Op::MatchVar(want, var, self.var(spec)),
            _ => return self.error(right.loc, "a regular expression is a text or a variable"),
        };
        self.emit(op);
    }

    fn regex(&mut self, text: &Bytes, at: &Expr) -> RegexId {
        match posix::compile(text, posix::Case::Ignore) {
            Ok(regex) => self.regexes.push(regex),
            Err(bad) => self.error(at.loc, format!("not a regular expression: {bad}")),
        }
        RegexId((self.regexes.len() as u32).wrapping_sub(1))
    }
}
