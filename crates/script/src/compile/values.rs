//! Expressions that have a value: the right side of assignments, `[ ]`, parameters.

use super::{Compiler, int32, lossy};
use crate::ast::{BinOp, Expr, ExprKind};
use crate::diagnostic::Diagnostic;
use crate::host::Lang;
use crate::ops::{Arith, Op, Right};

impl<L: Lang> Compiler<'_, L> {
    /// Leaves the value of the expression on the stack. Instructions that may fail are in `fails`.
    pub(super) fn value(&mut self, expr: &Expr) -> Right {
        let before = self.height;
        let right = self.deeper(expr.loc, |this| this.value_inner(expr));
        // What was wrong is reported; the heights of the code after it stay right.
        self.height = before + 1;
        right.unwrap_or(Right::Computed)
    }

    fn value_inner(&mut self, expr: &Expr) -> Right {
        if let Some(n) = constant(expr) {
            self.emit_push(Op::PushInt(n));
            return Right::Computed;
        }
        match &expr.kind {
            ExprKind::Text(text) => {
                let text = self.literal(text);
                self.emit_push(Op::Push(text));
            }
            ExprKind::Null => self.push_null(),
            ExprKind::Var(spec) => {
                let var = self.var(spec);
                self.emit_push(Op::PushVar(var));
                return Right::Variable;
            }
            ExprKind::Word(word) => {
                let var = self.word(word, expr.loc);
                self.emit_push(Op::PushVar(var));
                return Right::Variable;
            }
            ExprKind::Group(inner) | ExprKind::Bracket(inner) => {
                self.value(inner);
            }
            ExprKind::BitNot(inner) => {
                self.value(inner);
                let at = self.emit(Op::BitNot(0));
                self.fails.push(at);
            }
            ExprKind::Neg(inner) => self.report(
                Diagnostic::error(expr.loc, "only a number can have a minus sign")
                    .hint(format!("write 0 - {}", describe(inner))),
            ),
            ExprKind::Call(call) => {
                self.call(call);
                self.emit_push(Op::PushAcc);
            }
            ExprKind::Route(route, args) => {
                self.route_call(route, args);
                self.emit_push(Op::PushAcc);
            }
            ExprKind::Binary(op, ..) => self.binary(expr, *op),
            ExprKind::Not(_) => self.no_logic(expr),
            ExprKind::Async(_) => self.error(expr.loc, "async() has no value"),
            ExprKind::Assign(_) => self.error(expr.loc, "an assignment has no value"),
            ExprKind::Int(_) => unreachable!("a constant"),
        }
        Right::Computed
    }

    /// `a + b * c`: long expressions lean to the left.
    fn arithmetic(&mut self, expr: &Expr) {
        let mut rest = Vec::new();
        let mut first = expr;
        while let ExprKind::Binary(op, left, right) = &first.kind {
            let Some(op) = Arith::of(*op) else { break };
            rest.push((op, right));
            first = left;
        }
        self.value(first);
        for (op, right) in rest.into_iter().rev() {
            self.apply(op, right);
        }
    }

    fn binary(&mut self, expr: &Expr, op: BinOp) {
        if Arith::of(op).is_some() {
            self.arithmetic(expr);
        } else if matches!(op, BinOp::And | BinOp::Or) {
            self.no_logic(expr);
        } else {
            self.condition(expr);
            let at = self.emit(Op::PushTruth(0));
            self.fails.push(at);
            self.height += 1;
        }
    }

    /// top = top op right
    pub(super) fn apply(&mut self, op: Arith, right: &Expr) {
        let at = match constant(right) {
            Some(n) => self.emit(Op::BinaryInt(op, n, 0)),
            None => {
                let origin = self.value(right);
                self.height -= 1;
                self.emit(Op::Binary(op, origin, 0))
            }
        };
        self.fails.push(at);
    }

    fn no_logic(&mut self, expr: &Expr) {
        self.report(
            Diagnostic::error(expr.loc, "`!`, `&&` and `||` stand in conditions only")
                .hint("assign inside an `if`"),
        );
    }

    /// Pushes a number, text, variable or NULL; nothing is computed where `what` stands.
    pub(super) fn simple_value(&mut self, expr: &Expr, what: &str) {
        let simple = constant(expr).is_some()
            || matches!(expr.kind, ExprKind::Text(_) | ExprKind::Var(_) | ExprKind::Null);
        if !simple {
            self.report(
                Diagnostic::error(expr.loc, format!("{what} cannot be computed in place"))
                    .hint("assign it to a variable first"),
            );
        }
        self.value(expr);
    }
}

/// A number known now. `true` and its like are numbers.
pub(super) fn constant(expr: &Expr) -> Option<i32> {
    match &expr.kind {
        ExprKind::Int(n) => Some(int32(*n)),
        ExprKind::Neg(inner) => match inner.kind {
            ExprKind::Int(n) => Some(int32(n).wrapping_neg()),
            _ => None,
        },
        ExprKind::Word(word) => switch_word(word).map(i32::from),
        _ => None,
    }
}

pub(super) fn switch_word(word: &[u8]) -> Option<bool> {
    match word {
        b"true" | b"yes" | b"on" | b"TRUE" | b"YES" | b"ON" => Some(true),
        b"false" | b"no" | b"off" | b"FALSE" | b"NO" | b"OFF" => Some(false),
        _ => None,
    }
}

fn describe(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Var(spec) => match &spec.inner {
            Some(inner) => format!("${}({})", lossy(&spec.name), lossy(inner)),
            None => format!("${}", lossy(&spec.name)),
        },
        _ => "...".to_string(),
    }
}
