//! Statements.

use super::values::constant;
use super::{Around, Asserts, Compiler, Tail, int32};
use crate::ast::{
    Arg, ArgKind, Arm, AssignOp, Call, Dialect, Expr, ExprKind, IndexSpec, RouteRef, Stmt, StmtKind, Until,
    VarSpec,
};
use crate::diagnostic::{Diagnostic, Loc};
use crate::host::{CallSite, Lang, Probes, Waits};
use crate::ops::{Arith, AsyncId, FuncId, LaunchId, Op, ParallelId};
use crate::program::{AsyncSite, LaunchSite, Parallel};
use bytes::Bytes;

/// The return code of a loop or switch that ended with `break`.
const BROKEN: i32 = -5;

impl<L: Lang> Compiler<'_, L> {
    pub(super) fn block(&mut self, statements: &[Stmt]) -> Tail {
        let mut tail = Tail::Acc;
        for statement in statements {
            tail = self.statement(statement);
        }
        tail
    }

    pub(super) fn statement(&mut self, statement: &Stmt) -> Tail {
        self.mark(statement.loc);
        if self.env.probes() == Probes::Statements && !matches!(statement.kind, StmtKind::Block(_)) {
            self.emit(Op::Probe);
        }
        self.deeper(statement.loc, |this| this.statement_inner(statement)).unwrap_or(Tail::Acc)
    }

    /// What follows belongs to this place.
    fn mark(&mut self, loc: Loc) {
        let here = self.here();
        match self.locs.last_mut() {
            Some(last) if last.0 == here => last.1 = loc,
            _ => self.locs.push((here, loc)),
        }
    }

    /// Drops the instructions from here on.
    fn forget(&mut self, start: usize) {
        self.code.truncate(start);
        self.locs.retain(|(pc, _)| *pc as usize <= start);
    }

    fn statement_inner(&mut self, statement: &Stmt) -> Tail {
        match &statement.kind {
            StmtKind::Expr(expr) => return self.alone(expr),
            StmtKind::Assign { target, op, value } => self.assign(target, *op, value),
            StmtKind::If { test, then, otherwise } => {
                self.if_(test, then, otherwise.as_deref());
                return Tail::Acc;
            }
            StmtKind::While { test, body } => self.while_(statement.loc, test, body),
            StmtKind::For { var, list, body } => self.for_(statement.loc, var, list, body),
            StmtKind::Switch { on, arms, default } => {
                self.switch(statement.loc, on, arms, default.as_deref());
            }
            StmtKind::Break => self.break_(),
            StmtKind::Continue => self.continue_(),
            StmtKind::Return(values) => self.return_(values),
            StmtKind::Exit => {
                self.emit(Op::Exit);
            }
            StmtKind::Drop => {
                self.emit(Op::Drop);
            }
            StmtKind::Async { call, resume, timeout } => self.async_(call, resume, *timeout),
            StmtKind::Launch { call, report, param } => {
                self.launch(call, report.as_ref(), param.as_ref());
            }
            StmtKind::Parallel { until, timeout, body, .. } => {
                self.parallel(statement.loc, *until, *timeout, body);
            }
            StmtKind::Assert { test, text } => self.assert(test, text),
            StmtKind::Block(inner) => return self.block(inner),
        }
        Tail::Rc
    }

    /// An expression as a statement: only calls do something.
    fn alone(&mut self, expr: &Expr) -> Tail {
        match &expr.kind {
            ExprKind::Call(call) => {
                self.call(call);
                Tail::Rc
            }
            ExprKind::Route(route, args) => self.route_call(route, args),
            ExprKind::Async(statement) => self.statement(statement),
            ExprKind::Binary(crate::ast::BinOp::Eq, ..) => {
                self.report(
                    Diagnostic::error(expr.loc, "a comparison is no statement")
                        .hint("`=` assigns, `==` compares"),
                );
                Tail::Acc
            }
            _ => {
                self.error(expr.loc, "this is no statement");
                Tail::Acc
            }
        }
    }

    fn function(&mut self, call: &Call, waits: Waits, timeout_ms: Option<u64>) -> FuncId {
        let (name, args) = (&call.name, &call.args);
        let site = CallSite { name, args, loc: call.loc, route: self.kind, waits, timeout_ms };
        let func = self.env.function(&site);
        self.keep_func(func)
    }

    pub(super) fn call(&mut self, call: &Call) {
        let func = self.function(call, Waits::Plain, None);
        self.emit(Op::Call(func));
    }

    fn assign(&mut self, spec: &VarSpec, op: AssignOp, value: &Expr) {
        let target = self.target(spec);
        if matches!(op, AssignOp::ShiftLeft | AssignOp::ShiftRight) {
            return self.report(
                Diagnostic::error(spec.loc, "`<<=` and `>>=` do not exist").hint("write $x = $x << n"),
            );
        }
        // In 2.1 `+=` and its like are `=`.
        let arith = Arith::of_assign(op).filter(|_| self.dialect == Dialect::V4);
        let op = if op == AssignOp::SetOver { op } else { AssignOp::Set };
        if op == AssignOp::Set && arith.is_none() {
            if let Some(n) = constant(value) {
                self.emit(Op::AssignInt(target, n));
                return;
            }
            if let ExprKind::Var(source) = &value.kind {
                let source = self.var(source);
                self.emit(Op::AssignVar(target, source));
                return;
            }
        }
        let (mark, height) = (self.fails.len(), self.height);
        match arith {
            None => {
                self.value(value);
            }
            Some(_) if matches!(value.kind, ExprKind::Null) => {
                self.error(value.loc, "NULL cannot be computed with");
                return;
            }
            Some(arith) => {
                let old = self.var(spec);
                self.emit_push(Op::PushVar(old));
                let origin = self.value(value);
                self.height -= 1;
                let at = self.emit(Op::Modify(arith, origin, 0));
                self.fails.push(at);
            }
        }
        self.emit(Op::Assign(target, op));
        self.height = height;
        if self.fails.len() > mark {
            let end = self.emit(Op::Jump(0));
            self.land_fails(mark, height);
            self.emit(Op::Rc);
            self.land(end);
        }
    }

    /// `if` with its `else if`s, which the tree nests in each other.
    fn if_(&mut self, test: &Expr, then: &[Stmt], otherwise: Option<&[Stmt]>) {
        let mut ends = Vec::new();
        let (mut test, mut then, mut otherwise) = (test, then, otherwise);
        loop {
            self.condition(test);
            let skip = self.emit(Op::JumpUnless(0));
            self.branch(then);
            ends.push(self.emit(Op::Jump(0)));
            self.land(skip);
            let Some([Stmt { kind: StmtKind::If { test: t, then: b, otherwise: o }, loc }]) = otherwise
            else {
                break;
            };
            self.mark(*loc);
            (test, then, otherwise) = (t, b, o.as_deref());
        }
        match otherwise {
            Some(otherwise) => self.branch(otherwise),
            None => {
                self.emit(Op::IfNot);
                if ends.len() > 1 {
                    // The inner `if` was the outcome of the `else`, and a success.
                    self.emit(Op::Rc);
                }
            }
        }
        self.land_all(ends);
    }

    /// A branch of an `if`: `$rc` is its outcome.
    fn branch(&mut self, body: &[Stmt]) {
        if body.is_empty() {
            // The outcome of the condition stays.
            self.emit(Op::IfNot);
        } else if self.block(body) == Tail::Acc {
            self.emit(Op::Rc);
        }
    }

    fn loop_body(&mut self, again: u32, body: &[Stmt]) {
        self.around.push(Around { again: Some(again), breaks: Vec::new() });
        self.block(body);
        self.emit(Op::Jump(again));
    }

    /// Ends the innermost loop or switch: `break` leads here.
    fn land_breaks(&mut self) {
        let around = self.around.pop().expect("pushed by the statement that ends");
        self.land_all(around.breaks);
    }

    fn while_(&mut self, loc: Loc, test: &Expr, body: &[Stmt]) {
        self.emit_push(Op::Loop);
        self.emit(Op::Acc(1));
        let again = self.here();
        let spent = self.emit(Op::Round(0));
        self.condition(test);
        let done = self.emit(Op::JumpUnless(0));
        self.loop_body(again, body);
        self.mark(loc);
        self.land(done);
        self.emit(Op::Acc(1));
        self.land(spent);
        self.land_breaks();
        self.leave_loop();
    }

    fn leave_loop(&mut self) {
        self.emit(Op::Pop);
        self.emit(Op::Rc);
        self.height -= 1;
    }

    fn for_(&mut self, loc: Loc, var: &VarSpec, list: &VarSpec, body: &[Stmt]) {
        let target = self.target(var);
        let values = self.var(list);
        if list.index != Some(IndexSpec::All) {
            self.report(
                Diagnostic::warning(list.loc, "this list is not read: the body of the loop never runs")
                    .hint("write $(name[*])"),
            );
        }
        let start = self.code.len();
        self.emit_push(Op::Loop);
        self.emit(Op::Acc(1));
        let again = self.here();
        let done = self.emit(Op::Next(values, 0));
        self.emit(Op::Assign(target, AssignOp::Set));
        self.loop_body(again, body);
        self.mark(loc);
        self.land(done);
        self.land_breaks();
        self.leave_loop();
        if list.index != Some(IndexSpec::All) {
            // The body was compiled for what is wrong in it.
            self.forget(start);
            self.mark(loc);
            self.emit(Op::Acc(1));
            self.emit(Op::Rc);
        }
    }

    fn switch(&mut self, loc: Loc, on: &Expr, arms: &[Arm], default: Option<&[Stmt]>) {
        if arms.is_empty() && default.is_none() {
            return self.error(loc, "a switch without a case");
        }
        self.simple_value(on, "what a switch looks at");
        let mut cases: Vec<Vec<usize>> = Vec::with_capacity(arms.len());
        for arm in arms {
            cases.push(arm.values.iter().filter_map(|value| self.case(value)).collect());
        }
        let unreadable = match self.dialect {
            Dialect::V21 => Some(self.emit(Op::PopReadable(0))),
            Dialect::V4 => {
                self.emit(Op::Pop);
                None
            }
        };
        self.height -= 1;
        self.emit(Op::Acc(1));
        let none = self.emit(Op::Jump(0));
        self.around.push(Around { again: None, breaks: Vec::new() });
        for (arm, jumps) in arms.iter().zip(cases) {
            self.land_all(jumps);
            self.block(&arm.body);
        }
        // In 2.1 the last case does not fall through to the default.
        let end = (self.dialect == Dialect::V21).then(|| self.emit(Op::Jump(0)));
        self.land(none);
        if let Some(default) = default {
            self.block(default);
        }
        self.land_all(end.into_iter().chain(unreadable));
        self.land_breaks();
        self.mark(loc);
        self.emit(Op::Rc);
    }

    /// The test of one case; its jump.
    fn case(&mut self, value: &Expr) -> Option<usize> {
        if let Some(n) = constant(value) {
            return Some(self.emit(Op::CaseInt(n, 0)));
        }
        match &value.kind {
            ExprKind::Text(text) => {
                let text = self.text(text);
                Some(self.emit(Op::CaseText(text, 0)))
            }
            ExprKind::Null => Some(self.emit(Op::CaseNull(0))),
            _ => {
                self.error(value.loc, "a case must be a number or a text");
                None
            }
        }
    }

    /// The parser reports those that leave nothing.
    fn break_(&mut self) {
        // In 4.x the loop or switch that is left counts as failed.
        if self.dialect == Dialect::V4 && !self.around.is_empty() {
            self.emit(Op::Acc(BROKEN));
        }
        let jump = self.emit(Op::Jump(0));
        match self.around.last_mut() {
            Some(around) => around.breaks.push(jump),
            None => self.land(jump),
        }
    }

    fn continue_(&mut self) {
        if let Some(again) = self.around.iter().rev().find_map(|a| a.again) {
            self.emit(Op::Jump(again));
        }
    }

    fn return_(&mut self, values: &[Expr]) {
        let Some((code, rest)) = values.split_first() else {
            self.emit(Op::Return(1));
            return;
        };
        if let (Some(n), []) = (constant(code), rest) {
            self.emit(Op::Return(n));
            return;
        }
        let height = self.height;
        for value in values {
            self.simple_value(value, "what a route returns");
        }
        self.emit(Op::ReturnTop(rest.len() as u32));
        self.height = height;
    }

    fn async_(&mut self, call: &Call, resume: &RouteRef, timeout: Option<u32>) {
        let timeout_ms = timeout.filter(|s| *s > 0).map(|s| u64::from(s) * 1000);
        let func = self.function(call, Waits::Async, timeout_ms);
        let Some(resume) = self.fixed_route(resume) else { return };
        self.asyncs.push(AsyncSite { func, resume, timeout_ms });
        self.emit(Op::CallAsync(AsyncId(self.asyncs.len() as u32 - 1)));
    }

    fn launch(&mut self, call: &Call, report: Option<&RouteRef>, param: Option<&Arg>) {
        let func = self.function(call, Waits::Launch, None);
        let report = match report {
            Some(route) => match self.fixed_route(route) {
                Some(id) => Some(id),
                None => return,
            },
            None => None,
        };
        match param.map(|p| (&p.kind, p.loc)) {
            None | Some((ArgKind::Empty, _)) => self.push_null(),
            Some((ArgKind::Text(text), loc)) => self.format(text, loc),
            Some((ArgKind::Int(n), _)) => self.emit_push(Op::PushInt(int32(*n))),
            Some((ArgKind::Var(spec), _)) => {
                let var = self.var(spec);
                self.emit_push(Op::PushVar(var));
            }
            Some((ArgKind::Word(_) | ArgKind::Expr(_), loc)) => {
                self.error(loc, "the parameter of the report route is a text or a variable");
                self.height += 1;
            }
        }
        self.launches.push(LaunchSite { func, report });
        self.emit(Op::Launch(LaunchId(self.launches.len() as u32 - 1)));
        self.height -= 1;
    }

    fn parallel(&mut self, loc: Loc, until: Until, timeout: Option<u32>, body: &[Stmt]) {
        if self.parallels.is_empty() {
            let warning =
                Diagnostic::warning(loc, "`parallel` is Fermata's own: OpenSIPS refuses this script");
            self.report(warning.hint("docs/WAITING.md describes it"));
        }
        let mut calls = Vec::with_capacity(body.len());
        for statement in body {
            let (expr, target) = match &statement.kind {
                StmtKind::Expr(expr) => (expr, None),
                StmtKind::Assign { target, value, .. } => (value, Some(self.target(target))),
                _ => continue,
            };
            if let ExprKind::Call(call) = &expr.kind {
                calls.push((self.function(call, Waits::Plain, None), target));
            }
        }
        let timeout_ms = timeout.map(|s| u64::from(s) * 1000);
        self.parallels.push(Parallel { until, timeout_ms, calls: calls.into() });
        self.emit(Op::Parallel(ParallelId(self.parallels.len() as u32 - 1)));
    }

    fn assert(&mut self, test: &Expr, text: &Bytes) {
        let start = self.code.len();
        self.condition(test);
        let holds = self.emit(Op::JumpIf(0));
        let text = self.text(text);
        self.emit(Op::Assert(text));
        self.land(holds);
        if self.asserts == Asserts::Skipped {
            self.forget(start);
        }
        self.emit(Op::Acc(1));
        self.emit(Op::Rc);
    }
}
