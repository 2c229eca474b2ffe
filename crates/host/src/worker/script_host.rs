//! The machine's view of a context.

use crate::call::{Outcome, Suspension};
use crate::ctx::{Ctx, Sip};
use crate::registrar::Func;
use crate::var::Var;
use script::ast::AssignOp;
use script::{Called, Host, Loc, RouteId, Step, Task, Value};

/// Instructions before a script that never waits is stopped; loops have their own bound.
const FUEL: u32 = 50_000_000;

/// Runs the current script to its end or its next wait.
pub(crate) fn machine_run(ctx: &mut Ctx) -> Step<Box<Suspension>> {
    script::run(ctx, FUEL)
}

impl Host for Ctx {
    type Lang = Sip;
    type Op = Box<Suspension>;

    fn task(&mut self) -> &mut Task<Sip> {
        &mut self.state.task
    }

    fn get(&mut self, var: &Var) -> Value {
        var.get(self)
    }

    fn get_at(&mut self, var: &Var, index: i32) -> Value {
        var.get_at(self, index)
    }

    fn set(&mut self, var: &Var, op: AssignOp, value: Value) -> bool {
        var.set(self, op, value)
    }

    fn call(&mut self, func: &Func) -> Called<Box<Suspension>> {
        match func.call(self) {
            Outcome::Done(rc) => Called::Done(rc),
            Outcome::Suspend(operation) => Called::Suspend(operation),
        }
    }

    fn launch(&mut self, func: &Func, report: Option<RouteId>, param: Value) -> i32 {
        self.start_launch(func, report, param)
    }

    fn limit(&mut self, operation: &mut Box<Suspension>, timeout_ms: u64) {
        operation.limit_ms = operation.limit_ms.min(timeout_ms);
    }

    fn compare_word(&mut self, left: &Value, word: &Var) -> Option<bool> {
        crate::vars::word::compare(self, left, word)
    }

    fn complain(&mut self, loc: Loc, text: &str) {
        let shared = self.core.shared.clone();
        let (line, _) = shared.sources.line_col(loc);
        let file = shared.sources.files.get(loc.file as usize).map_or("", |f| f.name.as_str());
        crate::warn!("core", "{file}:{line}: {text}");
    }
}
