//! The machine's view of a context.

use crate::call::{Outcome, Suspension};
use crate::context::observe::Seen;
use crate::ctx::{Ctx, Sip};
use crate::registrar::Func;
use crate::var::Var;
use script::ast::AssignOp;
use script::{Called, Host, Loc, ParallelSite, RouteId, Step, Task, Value};

/// Instructions before a script that never waits is stopped; loops have their own bound.
const FUEL: u32 = 50_000_000;

/// Runs the current script to its end or its next wait.
pub(super) fn machine_run(ctx: &mut Ctx) -> Step<Box<Suspension>> {
    script::run(ctx, FUEL)
}

/// One line of `script_trace`.
#[cold]
fn trace(ctx: &mut Ctx, class: &str, what: &str) {
    let Some(trace) = ctx.state.trace.take() else { return };
    let Some(how) = &trace.log else {
        ctx.state.trace = Some(trace);
        return;
    };
    let shared = ctx.core.shared.clone();
    let loc = ctx.state.task.loc();
    let sources = shared.sources();
    let (file, line) = (sources.name(loc), sources.line_col(loc).0);
    let info = how.info.as_ref().map_or(String::new(), |i| format!("[{}]", String::from_utf8_lossy(i)));
    let values = (how.values)(ctx);
    let values = String::from_utf8_lossy(&values);
    crate::log::write(
        how.level,
        "",
        format_args!("[Script Trace][{file}:{line}]{info}[{class} {what}] -> ({values})\n"),
    );
    ctx.state.trace = Some(trace);
}

/// A function of a script that somebody is told of.
#[cold]
fn call_told(ctx: &mut Ctx, func: &Func) -> Called<Box<Suspension>> {
    ctx.at_spot(Some(func.loc));
    trace(ctx, "function", func.name);
    let name = func.name;
    ctx.tell_script(&Seen::Calls { name });
    let outcome = func.call(ctx);
    ctx.at_spot(Some(ctx.state.task.loc()));
    let rc = match &outcome {
        Outcome::Done(rc) => Some(*rc),
        Outcome::Suspend(_) => None,
    };
    ctx.tell_script(&Seen::Called { name, rc });
    match outcome {
        Outcome::Done(rc) => Called::Done(rc),
        Outcome::Suspend(operation) => Called::Suspend(operation),
    }
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

    fn ask(&mut self, var: &Var) -> Option<Box<Suspension>> {
        match &var.kind {
            crate::var::VarKind::Awaited(awaited) => awaited.ask(self),
            _ => None,
        }
    }

    fn forget_answers(&mut self) {
        self.state.answers.clear();
    }

    fn set(&mut self, var: &Var, op: AssignOp, value: Value) -> bool {
        let assigned = self.state.trace.is_some().then(|| value.clone());
        let set = var.set(self, op, value);
        if !set {
            crate::complain!(self, "core", "{} cannot be set to this", String::from_utf8_lossy(&var.text));
        }
        if self.state.trace.is_some() {
            self.at_spot(Some(self.state.task.loc()));
            trace(self, "assign", &String::from_utf8_lossy(&var.text));
            if let Some(value) = assigned {
                self.tell_script(&Seen::Assigned { variable: &var.text, value: &value });
            }
        }
        set
    }

    fn call(&mut self, func: &Func) -> Called<Box<Suspension>> {
        if self.state.trace.is_some() {
            return call_told(self, func);
        }
        match func.call(self) {
            Outcome::Done(rc) => Called::Done(rc),
            Outcome::Suspend(operation) => Called::Suspend(operation),
        }
    }

    fn launch(&mut self, func: &Func, report: Option<RouteId>, param: Value) -> i32 {
        self.start_launch(func, report, param)
    }

    fn parallel(&mut self, site: ParallelSite<Sip>) -> Called<Box<Suspension>> {
        self.start_parallel(site)
    }

    fn limit(&mut self, operation: &mut Box<Suspension>, timeout_ms: u64) {
        operation.limit_ms = operation.limit_ms.min(timeout_ms);
    }

    fn compare_word(&mut self, left: &Value, word: &Var) -> Option<bool> {
        crate::vars::word::compare(self, left, word)
    }

    fn assertion_failed(&mut self, loc: Loc, text: &[u8]) {
        let said = format!("assertion failed: {}", String::from_utf8_lossy(text));
        self.complain(loc, &said);
        crate::vars::error::note(self, crate::vars::error::ErrorInfo::assertion());
        if self.core.shared.globals.core.abort_on_assert {
            self.core.outputs.push(crate::ctx::Output::Shutdown { code: 1 });
        }
    }

    fn probe(&mut self) {
        if let Some(outside) = self.core.shared.outside.get().cloned() {
            outside.statement(self);
        }
        if self.state.trace.is_some() {
            let loc = self.state.task.loc();
            self.tell_script(&Seen::Line(loc));
        }
    }

    fn complain(&mut self, loc: Loc, text: &str) {
        let shared = self.core.shared.clone();
        let sources = shared.sources();
        let ((line, _), file) = (sources.line_col(loc), sources.name(loc));
        crate::warn!("core", "{file}:{line}: {text}");
    }
}
