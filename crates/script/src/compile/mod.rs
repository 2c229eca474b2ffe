//! From the syntax tree to instructions. Names are resolved here, and all that is wrong is reported.

mod conditions;
mod routes;
pub(crate) use routes::shown as route_shown;
mod statements;
mod values;
mod waits;

use crate::ast::{Config, Dialect, GlobalValue, RouteKind, VarSpec};
use crate::diagnostic::{Diagnostic, Loc};
use crate::host::{Env, Lang, RouteId};
use crate::ops::{ConstId, FuncId, Op, Pc, VarId};
use crate::posix::Pattern;
use crate::program::{AsyncSite, LaunchSite, Parallel, Program, RouteInfo, default_while_loops, sorted};
use crate::value::Value;
use ahash::AHashMap;
use bytes::Bytes;

/// Statements and expressions in each other; the parser allows less.
const MAX_DEPTH: u32 = 400;

/// Compiles all routes; every problem is reported, not only the first (those that the parser reports are
/// not reported again). With an error among them the program is empty.
pub fn compile<L: Lang>(config: &Config, env: &mut dyn Env<L>) -> (Program<L>, Vec<Diagnostic>) {
    let mut compiler = Compiler::new(config, env);
    compiler.declare(config);
    for (i, route) in config.routes.iter().enumerate().take(compiler.routes.len()) {
        compiler.route(i, route);
    }
    compiler.finish()
}

struct Compiler<'a, L: Lang> {
    env: &'a mut dyn Env<L>,
    dialect: Dialect,
    max_while_loops: u32,
    asserts: Asserts,
    diagnostics: Vec<Diagnostic>,

    code: Vec<Op>,
    locs: Vec<(Pc, Loc)>,
    consts: Vec<Value>,
    texts: AHashMap<Bytes, ConstId>,
    vars: Vec<L::Var>,
    funcs: Vec<L::Func>,
    regexes: Vec<Pattern>,
    asyncs: Vec<AsyncSite>,
    launches: Vec<LaunchSite>,
    parallels: Vec<Parallel>,
    waits: Vec<Box<[VarId]>>,
    /// What variables and functions have to wait for; those that never do are not in them.
    var_waits: AHashMap<u32, Box<[VarId]>>,
    func_waits: AHashMap<u32, Box<[VarId]>>,
    routes: Vec<RouteInfo>,
    names: AHashMap<(RouteKind, Bytes), RouteId>,

    // Of the route being compiled.
    kind: RouteKind,
    /// Values on the stack above the route's parameters.
    height: u32,
    /// Loops and switches around this place.
    around: Vec<Around>,
    /// Instructions that leave for the next `Fail`.
    fails: Vec<usize>,
    depth: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asserts {
    Checked,
    Skipped,
}

/// A loop or switch that `break` and `continue` refer to.
struct Around {
    /// Where `continue` goes; `None`: a switch.
    again: Option<Pc>,
    /// The jumps of `break`, to be patched.
    breaks: Vec<usize>,
}

/// What a statement leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// `$rc` is the outcome of the statement.
    Rc,
    /// The outcome is in acc alone.
    Acc,
}

impl<'a, L: Lang> Compiler<'a, L> {
    fn new(config: &Config, env: &'a mut dyn Env<L>) -> Self {
        let dialect = env.dialect();
        let number = |name: &str| {
            let global = config.globals.iter().rev().find(|g| g.name == name.as_bytes())?;
            match &global.value {
                GlobalValue::Int(n) => Some(*n),
                GlobalValue::Bool(b) => Some(i64::from(*b)),
                GlobalValue::Text(_) | GlobalValue::Word(_) => None,
            }
        };
        let loops = number("max_while_loops").and_then(|n| u32::try_from(n).ok());
        let asserts = number("enable_asserts").is_some_and(|n| n != 0);
        Compiler {
            env,
            dialect,
            max_while_loops: loops.unwrap_or(default_while_loops(dialect)),
            asserts: if asserts { Asserts::Checked } else { Asserts::Skipped },
            diagnostics: Vec::new(),
            code: Vec::new(),
            locs: Vec::new(),
            consts: Vec::new(),
            texts: AHashMap::new(),
            vars: Vec::new(),
            funcs: Vec::new(),
            regexes: Vec::new(),
            asyncs: Vec::new(),
            launches: Vec::new(),
            parallels: Vec::new(),
            waits: Vec::new(),
            var_waits: AHashMap::new(),
            func_waits: AHashMap::new(),
            routes: Vec::new(),
            names: AHashMap::new(),
            kind: RouteKind::Request,
            height: 0,
            around: Vec::new(),
            fails: Vec::new(),
            depth: 0,
        }
    }

    fn finish(mut self) -> (Program<L>, Vec<Diagnostic>) {
        if self.diagnostics.iter().any(Diagnostic::is_error) {
            return (Program::empty(), self.diagnostics);
        }
        self.emit(Op::End);
        let program = Program {
            by_name: sorted(&self.routes),
            error_route: self.names.get(&(RouteKind::Error, Bytes::new())).copied(),
            code: self.code.into(),
            consts: self.consts.into(),
            vars: self.vars.into(),
            funcs: self.funcs.into(),
            regexes: self.regexes.into(),
            asyncs: self.asyncs.into(),
            launches: self.launches.into(),
            parallels: self.parallels.into(),
            waits: self.waits.into(),
            routes: self.routes.into(),
            locs: self.locs.into(),
            max_while_loops: self.max_while_loops,
            dialect: self.dialect,
        };
        (program, self.diagnostics)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn error(&mut self, loc: Loc, message: impl Into<String>) {
        self.report(Diagnostic::error(loc, message));
    }

    // Instructions.

    fn here(&self) -> Pc {
        self.code.len() as Pc
    }

    fn emit(&mut self, op: Op) -> usize {
        self.await_values(op);
        self.code.push(op);
        self.code.len() - 1
    }

    /// Emits an instruction that leaves one more value on the stack.
    fn emit_push(&mut self, op: Op) {
        self.emit(op);
        self.height += 1;
    }

    /// Lets the jump at `at` lead here.
    fn land(&mut self, at: usize) {
        let here = self.here();
        match &mut self.code[at] {
            Op::Jump(to)
            | Op::JumpUnless(to)
            | Op::JumpIf(to)
            | Op::Round(to)
            | Op::Next(_, to)
            | Op::CaseInt(_, to)
            | Op::CaseText(_, to)
            | Op::CaseNull(to)
            | Op::PushTruth(to)
            | Op::Binary(.., to)
            | Op::BinaryInt(.., to)
            | Op::Modify(.., to)
            | Op::PopReadable(to)
            | Op::BitNot(to) => *to = here,
            other => unreachable!("{other:?} does not jump"),
        }
    }

    fn land_all(&mut self, jumps: impl IntoIterator<Item = usize>) {
        for at in jumps {
            self.land(at);
        }
    }

    /// Where the instructions that failed since `mark` land: their values are dropped and acc is -1.
    /// The code before it must not run into it.
    fn land_fails(&mut self, mark: usize, height: u32) {
        for at in self.fails.split_off(mark) {
            self.land(at);
        }
        self.emit(Op::Fail(height));
    }

    // Operands.

    fn text(&mut self, text: &Bytes) -> ConstId {
        if let Some(id) = self.texts.get(text) {
            return *id;
        }
        let id = self.constant(Value::Str(text.clone()));
        self.texts.insert(text.clone(), id);
        id
    }

    /// A text of the script that becomes a value: what it holds is meant.
    fn literal(&mut self, text: &Bytes) -> ConstId {
        match Value::literal(text.clone()) {
            Value::Str(_) => self.text(text),
            pieced => self.constant(pieced),
        }
    }

    fn constant(&mut self, value: Value) -> ConstId {
        self.consts.push(value);
        ConstId(self.consts.len() as u32 - 1)
    }

    /// Keeps a prepared variable; an error is reported, and what is compiled never runs.
    fn keep_var(&mut self, var: Result<L::Var, Diagnostic>) -> VarId {
        match var {
            Ok(var) => {
                self.vars.push(var);
                let id = self.vars.len() as u32 - 1;
                self.note_waits(|this| &mut this.var_waits, id);
                VarId(id)
            }
            Err(diagnostic) => {
                self.report(diagnostic);
                VarId(u32::MAX)
            }
        }
    }

    fn var(&mut self, spec: &VarSpec) -> VarId {
        let var = self.env.variable(spec);
        self.keep_var(var)
    }

    fn target(&mut self, spec: &VarSpec) -> VarId {
        let var = self.env.target(spec);
        self.keep_var(var)
    }

    fn word(&mut self, word: &[u8], loc: Loc) -> VarId {
        let var = self.env.word(word, loc);
        self.keep_var(var)
    }

    fn keep_func(&mut self, func: Result<L::Func, Diagnostic>) -> FuncId {
        match func {
            Ok(func) => {
                self.funcs.push(func);
                let id = self.funcs.len() as u32 - 1;
                self.note_waits(|this| &mut this.func_waits, id);
                FuncId(id)
            }
            Err(diagnostic) => {
                self.report(diagnostic);
                FuncId(u32::MAX)
            }
        }
    }

    /// One level deeper into the tree; `None` (reported) when that is too deep.
    fn deeper<T>(&mut self, loc: Loc, then: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth >= MAX_DEPTH {
            self.error(loc, format!("nested deeper than {MAX_DEPTH}"));
            return None;
        }
        self.depth += 1;
        let result = then(self);
        self.depth -= 1;
        Some(result)
    }
}

/// Numbers are 32 bits wide.
fn int32(n: i64) -> i32 {
    n as i32
}

fn lossy(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}
