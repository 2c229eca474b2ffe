//! Runs a task: one instruction after the other until the end, a suspension or the end of its fuel.
//!
//! ```text
//!            run ──────────────► Done(Return | Exit | Drop)
//!   Ready ──┤
//!     ▲      ├─ fuel used up ──► OutOfFuel          (run again)
//!     │      └─ call suspends ─► Suspended(op)
//!     └── Task::resume(rc) ◄──── InCall | InAsync | InAwait
//! ```

pub(crate) mod arith;
mod compare;
mod conditions;
mod flow;

use crate::ast::{AssignOp, Dialect};
use crate::host::{Called, Host, Lang, ParallelSite, RouteId};
use crate::ops::{AsyncId, FuncId, LaunchId, Op, ParallelId, Pc, VarId, WaitId};
use crate::program::Program;
use crate::task::TaskState;
use crate::value::Value;
use std::sync::Arc;

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Last statement or `return` of the outermost route, with its return code.
    Return(i64),
    /// `exit`
    Exit,
    /// `drop`
    Drop,
}

/// Why it stopped.
#[derive(Debug)]
pub enum Step<Op> {
    /// The script has ended.
    Done(End),
    /// It waits for this.
    Suspended(Op),
    /// It goes on with the next `run`.
    OutOfFuel,
}

/// Runs until the end, a suspension or `fuel` instructions. The task is `host.task()`. After `Done` a
/// task is used up.
pub fn run<H: Host>(host: &mut H, fuel: u32) -> Step<H::Op> {
    let task = host.task();
    if task.state == TaskState::Ended {
        return Step::Done(End::Exit);
    }
    let program = Arc::clone(&task.program);
    let (pc, acc) = (task.pc, task.acc);
    let mut run = Run { host, program: &program, pc, here: pc, acc };
    for _ in 0..fuel {
        if let Some(step) = run.step() {
            return step;
        }
    }
    run.save(TaskState::Ready);
    Step::OutOfFuel
}

/// A run in progress; `pc` and `acc` go back into the task when it pauses.
struct Run<'a, H: Host> {
    host: &'a mut H,
    program: &'a Program<H::Lang>,
    pc: Pc,
    here: Pc,
    acc: i32,
}

type Var<H> = <<H as Host>::Lang as Lang>::Var;

impl<'a, H: Host> Run<'a, H> {
    #[inline]
    fn step(&mut self) -> Option<Step<H::Op>> {
        let op = self.program.code[self.pc as usize];
        self.here = self.pc;
        self.pc += 1;
        match op {
            Op::Call(func) => return self.call(func),
            Op::CallAsync(site) => return self.call_async(site),
            Op::Launch(site) => self.launch(site),
            Op::Parallel(site) => return self.parallel(site),
            Op::Assign(target, op) => {
                let value = self.pop();
                self.assign(target, op, value);
            }
            Op::AssignInt(target, n) => self.assign(target, AssignOp::Set, Value::Int(i64::from(n))),
            Op::AssignVar(target, source) => {
                let value = self.get(source);
                self.assign(target, AssignOp::Set, value);
            }
            Op::Fail(height) => self.fail(height),
            Op::Acc(n) => self.acc = n,
            Op::Rc => self.set_rc(self.acc),
            Op::IfNot => {
                self.set_rc(self.acc);
                self.acc = 1;
            }

            Op::Await(site) => return self.wait_for(site),
            Op::Push(id) => self.push(self.program.constant(id).clone()),
            Op::PushInt(n) => self.push(Value::Int(i64::from(n))),
            Op::PushVar(var) => {
                let value = self.get(var);
                self.push(value);
            }
            Op::PushLazy(var) => self.push(Value::Int(i64::from(var.0))),
            Op::PushAcc => self.push(Value::Int(i64::from(self.acc))),
            Op::PushTruth(fail) => match self.acc {
                compare::NEITHER if self.program.dialect == Dialect::V4 => self.pc = fail,
                truth => self.push(Value::Int(i64::from(truth))),
            },
            Op::Binary(op, origin, fail) => {
                let (right, left) = (self.pop(), self.pop());
                self.push_result(arith::binary(op, left, &right, origin), fail);
            }
            Op::Modify(op, origin, fail) => {
                let (right, left) = (self.pop(), self.pop());
                self.push_result(arith::modified(op, left, &right, origin), fail);
            }
            Op::BinaryInt(op, right, fail) => {
                let left = self.pop();
                self.push_result(arith::binary_int(op, &left, right), fail);
            }
            Op::BitNot(fail) => {
                let value = self.pop();
                self.push_result(arith::bit_not(&value), fail);
            }
            Op::Join(n) => self.join(n),
            Op::Pop => drop(self.pop()),
            Op::PopReadable(to) => {
                if self.pop().has_failed() {
                    self.pc = to;
                }
            }

            Op::CmpInt(cmp, var, n) => self.acc = compare::with_int(cmp, &self.get(var), n),
            Op::CmpNull(cmp, var) => self.acc = compare::with_null_word(cmp, &self.get(var)),
            Op::Test(var) => self.acc = compare::truth(&self.get(var)),
            Op::TestTop => self.acc = compare::truth(&self.pop()),
            Op::Truth => self.acc = i32::from(self.acc > 0),
            Op::Not if self.acc != compare::NEITHER => self.acc = i32::from(self.acc == 0),
            Op::Not => {}
            Op::CmpText(..) | Op::CmpVar(..) | Op::CmpWord(..) | Op::Match(..) | Op::MatchVar(..) => {
                self.condition(op)
            }
            Op::Jump(to) => self.pc = to,
            Op::JumpUnless(to) if self.acc != compare::TRUE => self.pc = to,
            Op::JumpIf(to) if self.acc == compare::TRUE => self.pc = to,
            Op::JumpUnless(_) | Op::JumpIf(_) => {}

            Op::Loop => self.push(Value::Int(0)),
            Op::Round(out) => self.round(out),
            Op::Next(list, out) => self.next(list, out),
            Op::CaseInt(n, to) => self.case_int(n, to),
            Op::CaseText(text, to) => self.case_text(text, to),
            Op::CaseNull(to) => self.case_null(to),

            Op::Route { route, args, lazy } => self.enter(RouteId(route), args, lazy),
            Op::RouteNamed { args, lazy } => self.enter_named(args, lazy),
            Op::End => return self.leave(self.acc, None),
            Op::Return(n) => return self.leave(n, None),
            Op::ReturnTop(n) => return self.return_top(n),
            Op::Exit => return Some(Step::Done(End::Exit)),
            Op::Drop => return Some(Step::Done(End::Drop)),
            Op::Assert(text) => return self.assertion(text),
            Op::Probe => {
                self.mark();
                self.host.probe();
            }
        }
        None
    }

    /// Before the host is asked: it may want to know the line.
    fn mark(&mut self) {
        self.host.task().here = self.here;
    }

    fn get(&mut self, var: VarId) -> Value {
        self.mark();
        self.host.get(self.program.var(var))
    }

    fn push(&mut self, value: Value) {
        self.host.task().stack.push(value);
    }

    fn pop(&mut self) -> Value {
        self.host.task().stack.pop().unwrap_or_default()
    }

    fn set_rc(&mut self, rc: i32) {
        self.acc = rc;
        self.host.task().rc = i64::from(rc);
    }

    fn assign(&mut self, target: VarId, op: AssignOp, value: Value) {
        if value.has_failed() {
            return self.set_rc(-1);
        }
        self.mark();
        let target: &Var<H> = self.program.var(target);
        let rc = if self.host.set(target, op, value) { 1 } else { -1 };
        self.set_rc(rc);
        self.check_raised();
    }

    fn push_result(&mut self, result: Result<Value, arith::Misfit>, fail: Pc) {
        match result {
            Ok(value) => self.push(value),
            Err(misfit) => {
                self.complain(match misfit {
                    arith::Misfit::Kinds => "the operands of this expression do not go together",
                    arith::Misfit::TooLong => "the text becomes too long (1 MiB)",
                });
                self.pc = fail;
            }
        }
    }

    fn fail(&mut self, height: u32) {
        let task = self.host.task();
        let base = task.frames.last().map_or(0, |f| f.base as usize + f.params as usize);
        task.stack.truncate(base + height as usize);
        self.acc = compare::NEITHER;
    }

    fn join(&mut self, n: u32) {
        let stack = &mut self.host.task().stack;
        let from = stack.len().saturating_sub(n as usize);
        let mut joined = crate::traced::Builder::default();
        stack[from..].iter().for_each(|value| joined.push_value(value));
        stack.truncate(from);
        stack.push(joined.finish_within(crate::MAX_TEXT).into_value());
    }

    fn complain(&mut self, text: &str) {
        let loc = self.program.loc(self.here);
        self.host.complain(loc, text);
    }

    fn save(&mut self, state: TaskState) {
        let (pc, acc) = (self.pc, self.acc);
        let task = self.host.task();
        (task.pc, task.acc, task.state) = (pc, acc, state);
    }

    /// Nothing has happened yet when this suspends: the instruction behind it runs once, with every value there.
    fn wait_for(&mut self, site: WaitId) -> Option<Step<H::Op>> {
        self.mark();
        if !self.host.task().take_again() {
            self.host.forget_answers();
        }
        for var in self.program.awaited(site) {
            if let Some(operation) = self.host.ask(self.program.var(*var)) {
                self.pc = self.here;
                self.save(TaskState::InAwait);
                return Some(Step::Suspended(operation));
            }
        }
        None
    }

    fn call(&mut self, func: FuncId) -> Option<Step<H::Op>> {
        self.mark();
        match self.host.call(self.program.func(func)) {
            Called::Done(0) => {
                self.set_rc(0);
                Some(Step::Done(End::Exit))
            }
            Called::Done(rc) => {
                self.set_rc(rc);
                self.check_raised();
                None
            }
            Called::Suspend(operation) => {
                self.save(TaskState::InCall);
                Some(Step::Suspended(operation))
            }
        }
    }

    fn call_async(&mut self, site: AsyncId) -> Option<Step<H::Op>> {
        self.mark();
        let site = self.program.async_site(site);
        let called = self.host.call(self.program.func(site.func));
        self.pc = self.host.task().replace(site.resume);
        match called {
            Called::Done(rc) => {
                self.set_rc(rc);
                None
            }
            Called::Suspend(mut operation) => {
                if let Some(limit) = site.timeout_ms {
                    self.host.limit(&mut operation, limit);
                }
                self.save(TaskState::InAsync);
                Some(Step::Suspended(operation))
            }
        }
    }

    fn parallel(&mut self, id: ParallelId) -> Option<Step<H::Op>> {
        self.mark();
        let program = Arc::clone(&self.host.task().program);
        match self.host.parallel(ParallelSite { program, id }) {
            Called::Done(rc) => {
                self.set_rc(rc);
                self.check_raised();
                None
            }
            Called::Suspend(operation) => {
                self.save(TaskState::InCall);
                Some(Step::Suspended(operation))
            }
        }
    }

    fn launch(&mut self, site: LaunchId) {
        self.mark();
        let param = self.pop();
        let site = self.program.launch_site(site);
        let rc = self.host.launch(self.program.func(site.func), site.report, param);
        self.set_rc(rc);
    }
}
