use crate::ast::{Config, RouteKind};
use crate::diagnostic::{Diagnostic, Loc};
use crate::host::{Env, Host, Lang, RouteId};
use crate::value::Value;
use bytes::Bytes;
use std::sync::Arc;

/// Compiled routes. Immutable; tasks keep theirs alive.
#[derive(Debug)]
pub struct Program<L: Lang> {
    _l: std::marker::PhantomData<L>,
}

#[allow(unused_variables)]
impl<L: Lang> Program<L> {
    pub fn empty() -> Self {
        Program { _l: std::marker::PhantomData }
    }
    pub fn route(&self, kind: RouteKind, name: Option<&[u8]>) -> Option<RouteId> {
        todo!()
    }
    pub fn route_kind(&self, id: RouteId) -> RouteKind {
        todo!()
    }
    pub fn route_name(&self, id: RouteId) -> Bytes {
        todo!()
    }
    /// (route, seconds) of timer routes.
    pub fn timers(&self) -> Vec<(RouteId, u32)> {
        todo!()
    }
    pub fn max_while_loops(&mut self, limit: u32) {}
}

/// One run of a script: where it stands and what it holds. A few hundred bytes.
#[derive(Debug)]
pub struct Task<L: Lang> {
    /// `$rc`, `$retcode`
    pub rc: i64,
    program: Arc<Program<L>>,
}

#[allow(unused_variables)]
impl<L: Lang> Task<L> {
    pub fn new(program: Arc<Program<L>>, route: RouteId) -> Self {
        Task { rc: 0, program }
    }
    /// With `$param(1..)` of its route.
    pub fn with_params(program: Arc<Program<L>>, route: RouteId, params: Vec<Value>) -> Self {
        Task { rc: 0, program }
    }
    pub fn program(&self) -> &Arc<Program<L>> {
        &self.program
    }
    /// `$param(n)`, n from 1; Null outside.
    pub fn param(&self, n: usize) -> Value {
        todo!()
    }
    /// Named route parameters are positional in the reference; `$return(n)`.
    pub fn returned(&self, n: usize) -> Value {
        todo!()
    }
    /// Where it stands now (statement), for `$cfg_line`, async_list and logs.
    pub fn loc(&self) -> Loc {
        todo!()
    }
    /// Innermost route being run; outermost first in `routes`.
    pub fn route(&self) -> RouteId {
        todo!()
    }
    pub fn routes(&self) -> Vec<RouteId> {
        todo!()
    }
    /// The task is at its end: a plain function returned 0, `exit` ... is pending.
    pub fn bytes(&self) -> usize {
        todo!()
    }
    /// Call before `run` after a suspension: the operation's return code.
    pub fn resume(&mut self, rc: i32) {
        todo!()
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Last statement or `return` of the outermost route, with its return code.
    Return(i64),
    Exit,
    Drop,
}

#[derive(Debug)]
pub enum Step<Op> {
    Done(End),
    Suspended(Op),
    OutOfFuel,
}

/// Runs until the end, a suspension or `fuel` instructions. The task is `host.task()`.
#[allow(unused_variables)]
pub fn run<H: Host>(host: &mut H, fuel: u32) -> Step<H::Op> {
    todo!()
}

/// Compiles all routes; every problem is reported, not only the first.
#[allow(unused_variables)]
pub fn compile<L: Lang>(config: &Config, env: &mut dyn Env<L>) -> (Program<L>, Vec<Diagnostic>) {
    todo!()
}
