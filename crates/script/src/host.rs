//! What the machine needs from the world around it.

use crate::ast::{Arg, AssignOp, Dialect, RouteKind, Until, VarSpec};
use crate::diagnostic::{Diagnostic, Loc};
use crate::ops::ParallelId;
use crate::program::Program;
use crate::task::Task;
use crate::value::Value;
use std::fmt::Debug;
use std::sync::Arc;

/// Types prepared when a script is loaded and used each time it runs.
pub trait Lang: Sized + 'static {
    /// A prepared variable.
    type Var: Debug + Send + Sync;
    /// A prepared call of a function.
    type Func: Debug + Send + Sync;
}

/// Index of a route in `Config::routes` and `Program`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct RouteId(pub u16);

/// A function call met at load time.
pub struct CallSite<'a> {
    /// The function, as it is written.
    pub name: &'a [u8],
    /// What stands between its parentheses.
    pub args: &'a [Arg],
    /// Where the call stands.
    pub loc: Loc,
    /// Kind of the route it stands in.
    pub route: RouteKind,
    /// It is the operand of async() or launch().
    pub waits: Waits,
    /// What `async(..., N)` allows, milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What becomes of the script while a function waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// `f()`: it is held here.
    Plain,
    /// `async(f(), route)`: it ends here and goes on there.
    Async,
    /// `launch(f(), route)`: it goes on at once.
    Launch,
}

/// Load time: names become prepared things, or a diagnostic.
pub trait Env<L: Lang> {
    /// A variable that is read.
    fn variable(&mut self, spec: &VarSpec) -> Result<L::Var, Diagnostic>;
    /// Like `variable`, and it must be assignable.
    fn target(&mut self, spec: &VarSpec) -> Result<L::Var, Diagnostic>;
    /// A call of a function of the core or a module.
    fn function(&mut self, site: &CallSite<'_>) -> Result<L::Func, Diagnostic>;
    /// A bare word of an expression ("src_ip", "myself", "UDP", "10.0.0.0/8" ...) as a variable-like
    /// operand: `Host::get` reads its value, `Host::compare_word` may decide comparisons with it.
    fn word(&mut self, word: &[u8], loc: Loc) -> Result<L::Var, Diagnostic>;
    /// How the script is written.
    fn dialect(&self) -> Dialect;
    /// Variables that may have to wait and that what was prepared last reads, those inside others first.
    fn waits(&mut self) -> Vec<L::Var> {
        Vec::new()
    }
    /// Whether the program tells its host of every statement (`Host::probe`). Costs an instruction for each.
    fn probes(&self) -> Probes {
        Probes::None
    }
}

/// What a program tells its host of its own course.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probes {
    /// Nothing.
    None,
    /// Each statement, before it runs.
    Statements,
}

/// A `parallel { ... }` of a program. Cheap to keep.
pub struct ParallelSite<L: Lang> {
    pub(crate) program: Arc<Program<L>>,
    pub(crate) id: ParallelId,
}

impl<L: Lang> ParallelSite<L> {
    /// When the script goes on.
    pub fn until(&self) -> Until {
        self.program.parallel(self.id).until
    }
    /// The script's own limit for the whole.
    pub fn timeout_ms(&self) -> Option<u64> {
        self.program.parallel(self.id).timeout_ms
    }
    /// How many functions run side by side.
    pub fn len(&self) -> usize {
        self.program.parallel(self.id).calls.len()
    }
    /// It has no functions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The i-th function.
    pub fn func(&self, i: usize) -> &L::Func {
        self.program.func(self.program.parallel(self.id).calls[i].0)
    }
    /// Where the return code of the i-th function goes.
    pub fn target(&self, i: usize) -> Option<&L::Var> {
        self.program.parallel(self.id).calls[i].1.map(|var| self.program.var(var))
    }
}

/// What a called function did.
#[derive(Debug)]
pub enum Called<Op> {
    /// Return code: positive true, negative false, 0 ends the script.
    Done(i32),
    /// Goes on when the operation is done, with its return code.
    Suspend(Op),
}

/// Run time. The host owns the task (`$var`, `$rc`, `$param` read it); the machine borrows it.
pub trait Host {
    /// What it was prepared as.
    type Lang: Lang;
    /// What a suspended script waits for.
    type Op;
    /// The script that runs.
    fn task(&mut self) -> &mut Task<Self::Lang>;
    /// Reads a variable.
    fn get(&mut self, var: &<Self::Lang as Lang>::Var) -> Value;
    /// The i-th value (0, 1, ...) of a multi-valued variable, Null past the end: `for`.
    fn get_at(&mut self, var: &<Self::Lang as Lang>::Var, index: i32) -> Value;
    /// Asks for the value of a variable that may have to wait, so that `get` finds it: `None` when it is there.
    /// After a suspension it is asked again and goes on; an operation that gave no answer is NULL.
    fn ask(&mut self, var: &<Self::Lang as Lang>::Var) -> Option<Self::Op> {
        let _ = var;
        None
    }
    /// Another instruction begins: what `ask` kept is out of date.
    fn forget_answers(&mut self) {}
    /// False when the value cannot be assigned (logged by the host). `op` is `Set` or `SetOver`: what
    /// `+=` and its like make is computed here and set with `Set` (so an AVP gets one more value).
    fn set(&mut self, var: &<Self::Lang as Lang>::Var, op: AssignOp, value: Value) -> bool;
    /// Calls a function.
    fn call(&mut self, func: &<Self::Lang as Lang>::Func) -> Called<Self::Op>;
    /// Starts `func` beside this script. `report`: route to run when it is done, `param` its $param(1).
    fn launch(&mut self, func: &<Self::Lang as Lang>::Func, report: Option<RouteId>, param: Value) -> i32;
    /// Starts several functions at once; its return code is that of the whole, never 0.
    fn parallel(&mut self, site: ParallelSite<Self::Lang>) -> Called<Self::Op>;
    /// Deadline that `async(f, r, N)` puts on an operation, in milliseconds.
    fn limit(&mut self, op: &mut Self::Op, timeout_ms: u64);
    /// `uri == myself`, `src_ip == 10.0.0.0/8` and their like: equality with a bare word that only the
    /// host can decide. `None`: compare as values.
    fn compare_word(&mut self, left: &Value, word: &<Self::Lang as Lang>::Var) -> Option<bool>;
    /// A statement begins, at `task().loc()`; only with `Env::probes`.
    fn probe(&mut self) {}
    /// Something the operator should read, once per place (loop limit, bad operand).
    fn complain(&mut self, loc: Loc, text: &str);
    /// An `assert` failed; asserts are on. Afterwards error_route runs, when there is one, and the
    /// script ends. The host fills `$err.*` here and stops the server if `abort_on_assert` is set.
    fn assertion_failed(&mut self, loc: Loc, text: &[u8]) {
        let text = format!("assertion failed: {}", String::from_utf8_lossy(text));
        self.complain(loc, &text);
    }
}
