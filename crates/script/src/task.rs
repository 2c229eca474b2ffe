//! A running or suspended script.

use crate::diagnostic::Loc;
use crate::host::{Host, Lang, RouteId};
use crate::ops::Pc;
use crate::program::Program;
use crate::value::Value;
use smallvec::SmallVec;
use std::sync::Arc;

/// A route being run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Where the caller goes on.
    pub(crate) back: Pc,
    /// Where its parameters start on the stack; its own values lie above them.
    pub(crate) base: u32,
    /// Bit n: parameter n (from 0) is the number of a variable, read when it is asked for (2.1).
    pub(crate) lazy: u32,
    pub(crate) route: RouteId,
    pub(crate) params: u8,
}

/// What `run` does first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TaskState {
    Ready,
    /// Suspended in a plain call: return code 0 would end the script.
    InCall,
    /// Suspended in async(): the resume route starts, whatever the return code.
    InAsync,
    /// Suspended before the values of the next instruction were there: `$rc` stays as it is.
    InAwait,
    /// The call it was suspended in returned 0.
    Ended,
}

/// One run of a script: where it stands and what it holds. A few hundred bytes.
#[derive(Debug)]
pub struct Task<L: Lang> {
    /// `$rc`, `$retcode`
    pub rc: i64,
    pub(crate) program: Arc<Program<L>>,
    /// Innermost last. Never empty.
    pub(crate) frames: SmallVec<[Frame; 2]>,
    pub(crate) stack: SmallVec<[Value; 2]>,
    /// `$return(0..)`
    pub(crate) returned: Option<Box<[Value]>>,
    /// Next instruction.
    pub(crate) pc: Pc,
    /// The instruction being run, or the one that suspended.
    pub(crate) here: Pc,
    pub(crate) acc: i32,
    pub(crate) state: TaskState,
    raised: bool,
    /// The `Await` that comes next goes on with what it asked for before.
    again: bool,
}

/// A server holds one for every call that waits.
const _: () = {
    enum Any {}
    impl Lang for Any {
        type Var = ();
        type Func = ();
    }
    assert!(size_of::<Task<Any>>() <= 256);
};

impl<L: Lang> Task<L> {
    /// At the beginning of a route.
    pub fn new(program: Arc<Program<L>>, route: RouteId) -> Self {
        Task::with_params(program, route, Vec::new())
    }

    /// With `$param(1..)` of its route.
    pub fn with_params(program: Arc<Program<L>>, route: RouteId, mut params: Vec<Value>) -> Self {
        params.truncate(u8::MAX as usize);
        let frame = Frame { back: 0, base: 0, lazy: 0, route, params: params.len() as u8 };
        let pc = program.entry(route);
        Task {
            rc: 0,
            program,
            frames: SmallVec::from_iter([frame]),
            stack: SmallVec::from_vec(params),
            returned: None,
            pc,
            here: pc,
            acc: 1,
            state: TaskState::Ready,
            raised: false,
            again: false,
        }
    }

    /// The program that it runs, also after a reload.
    pub fn program(&self) -> &Arc<Program<L>> {
        &self.program
    }

    /// `$param(n)` of the innermost route, n from 1; Null outside. In 2.1 a parameter that is a variable
    /// is read when it is asked for, which needs the host: see `script::param`.
    pub fn param(&self, n: usize) -> Value {
        match self.slot(n) {
            Some(at) if !self.is_lazy(n) => self.stack[at].clone(),
            _ => Value::Null,
        }
    }

    fn frame(&self) -> &Frame {
        self.frames.last().expect("a task always has a route")
    }

    /// Place of parameter n (from 1) on the stack.
    fn slot(&self, n: usize) -> Option<usize> {
        let frame = self.frame();
        let inside = n >= 1 && n <= frame.params as usize;
        inside.then(|| frame.base as usize + n - 1).filter(|at| *at < self.stack.len())
    }

    fn is_lazy(&self, n: usize) -> bool {
        (1..=32).contains(&n) && self.frame().lazy & (1 << (n - 1)) != 0
    }

    /// `$return(n)` (n from 0): what the route that returned last gave back beside its return code.
    pub fn returned(&self, n: usize) -> Value {
        self.returned.as_ref().and_then(|values| values.get(n)).cloned().unwrap_or_default()
    }

    /// Where it stands now (statement), for `$cfg_line`, async_list and logs.
    pub fn loc(&self) -> Loc {
        self.program.loc(self.here)
    }

    /// Innermost route being run.
    pub fn route(&self) -> RouteId {
        self.frame().route
    }

    /// All routes being run, outermost first.
    pub fn routes(&self) -> Vec<RouteId> {
        self.frames.iter().map(|f| f.route).collect()
    }

    /// Memory it takes, its program and the texts of its values left out.
    pub fn bytes(&self) -> usize {
        let frames = if self.frames.spilled() { self.frames.capacity() * size_of::<Frame>() } else { 0 };
        let stack = if self.stack.spilled() { self.stack.capacity() * size_of::<Value>() } else { 0 };
        size_of::<Self>() + frames + stack + self.returned.as_deref().map_or(0, size_of_val)
    }

    /// It waits for the operand of an `async(...)`: another route goes on after it.
    pub fn in_async(&self) -> bool {
        self.state == TaskState::InAsync
    }

    /// Call before `run` after a suspension: the operation's return code. 0 ends the script, except at
    /// the start of a resume route.
    pub fn resume(&mut self, rc: i32) {
        if self.state == TaskState::InAwait {
            (self.state, self.again) = (TaskState::Ready, true);
            return;
        }
        self.rc = i64::from(rc);
        self.acc = rc;
        self.state =
            if self.state == TaskState::InCall && rc == 0 { TaskState::Ended } else { TaskState::Ready };
    }

    /// The host met a message that it cannot parse: at the end of the statement error_route runs in
    /// place of the script. Without error_route the script goes on.
    pub fn raise_error(&mut self) {
        self.raised = self.program.error_route.is_some();
    }

    pub(crate) fn take_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    pub(crate) fn take_raised(&mut self) -> bool {
        std::mem::take(&mut self.raised)
    }

    /// Drops everything that runs and starts this route in its place; returns its first instruction.
    pub(crate) fn replace(&mut self, route: RouteId) -> Pc {
        self.frames.clear();
        self.stack.clear();
        self.frames.push(Frame { back: 0, base: 0, lazy: 0, route, params: 0 });
        self.program.entry(route)
    }
}

/// `$param(n)` of the innermost route, n from 1; Null outside.
pub fn param<H: Host>(host: &mut H, n: usize) -> Value {
    let task = host.task();
    let Some(at) = task.slot(n) else { return Value::Null };
    if !task.is_lazy(n) {
        return task.stack[at].clone();
    }
    let Value::Int(number) = task.stack[at] else { return Value::Null };
    let program = task.program.clone();
    program.vars.get(number as usize).map_or(Value::Null, |var| host.get(var))
}
