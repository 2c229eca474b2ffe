//! How a module names what it offers: parameters, script functions, variables, management commands,
//! statistics, hooks. One `register` function a module; the lists feed the loader, the checks and
//! the reference manual.

use super::accepts::Accepts;
use super::command::{CommandDef, CommandWords, Run};
use super::fault::LoadError;
use crate::arg::Arg;
use crate::call::{Call, Outcome};
use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::mi::{MiAnswer, MiCommand, MiParams, MiResult, MiScope};
use crate::shared::{Hooks, Shared};
use crate::stats::Stats;
use crate::var::{At, VarKind, Variable};
use script::ast::{self, ParamValue, RouteKind, VarSpec};
use script::{Diagnostic, Loc, Value};
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::context::func::Func;

/// The kinds of routes a function may stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Routes(pub u16);

impl Routes {
    pub const ALL: Routes = Routes(u16::MAX);
    pub const REQUEST: Routes = Routes(1 << RouteKind::Request as u8);
    pub const BRANCH: Routes = Routes(1 << RouteKind::Branch as u8);
    pub const FAILURE: Routes = Routes(1 << RouteKind::Failure as u8);
    pub const ON_REPLY: Routes = Routes(1 << RouteKind::OnReply as u8);
    pub const LOCAL: Routes = Routes(1 << RouteKind::Local as u8);
    pub const ERROR: Routes = Routes(1 << RouteKind::Error as u8);
    pub const STARTUP: Routes = Routes(1 << RouteKind::Startup as u8);
    pub const TIMER: Routes = Routes(1 << RouteKind::Timer as u8);
    pub const EVENT: Routes = Routes(1 << RouteKind::Event as u8);

    pub const fn and(self, other: Routes) -> Routes {
        Routes(self.0 | other.0)
    }
    pub fn has(self, kind: RouteKind) -> bool {
        self.0 & kind.bit() != 0
    }
}

/// What a script function may return. The type says whether it can suspend the script.
pub trait Returns: Into<Outcome> {
    const MAY_WAIT: bool;
}

impl Returns for i32 {
    const MAY_WAIT: bool = false;
}

impl Returns for bool {
    const MAY_WAIT: bool = false;
}

impl Returns for Outcome {
    const MAY_WAIT: bool = true;
}

/// What a script function's Rust signature may be: `fn(&mut Call<M>, A, B, ...) -> impl Returns`.
pub trait Function<M, Args>: Copy + Send + Sync + 'static {
    /// (fewest, most) arguments.
    fn arity() -> (usize, usize);
    /// What each argument is, and whether it may be left out.
    fn takes() -> Vec<(&'static str, bool)>;
    /// It may suspend the script.
    fn may_wait() -> bool;
    fn prepare(
        self,
        name: &'static str,
        args: &[ast::Arg],
        loc: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Func, Diagnostic>;
}

macro_rules! functions {
    ($($a:ident $p:ident $i:tt),*) => {
        impl<M: Send + Sync + 'static, R: Returns, F, $($a: Arg<M> + 'static),*> Function<M, (R, $($a,)*)> for F
        where F: Fn(&mut Call<'_, M>, $($a),*) -> R + Copy + Send + Sync + 'static {
            #[allow(unused_mut)]
            fn arity() -> (usize, usize) {
                let flags: &[bool] = &[$($a::OPTIONAL),*];
                let needed = flags.iter().rposition(|optional| !optional).map_or(0, |i| i + 1);
                let written: &[bool] = &[$($a::WRITTEN),*];
                (needed, written.iter().filter(|written| **written).count())
            }
            fn takes() -> Vec<(&'static str, bool)> {
                let all: &[(&'static str, bool, bool)] = &[$((<$a as Arg<M>>::WHAT, $a::OPTIONAL, $a::WRITTEN)),*];
                all.iter().filter(|(.., written)| *written).map(|(what, optional, _)| (*what, *optional)).collect()
            }
            fn may_wait() -> bool {
                R::MAY_WAIT
            }
            #[allow(unused_variables)]
            fn prepare(self, name: &'static str, args: &[ast::Arg], loc: Loc, loader: &mut Loader, module: &Arc<M>) -> Result<Func, Diagnostic> {
                $(let $p = <$a as Arg<M>>::prepare(args.get($i), loc, loader, module)?;)*
                let module = module.clone();
                Ok(Func::new(name, loc, move |ctx| {
                    #[allow(unused_mut)]
                    let mut call = Call { ctx, module: &module };
                    $(let $p = match <$a as Arg<M>>::eval(&$p, &mut call) { Ok(value) => value, Err(rc) => {
                        crate::complain!(call.ctx, "core", "{name}: parameter {} is not {}", $i + 1, <$a as Arg<M>>::WHAT);
                        return Outcome::Done(rc);
                    } };)*
                    let outcome: Outcome = self(&mut call, $($p),*).into();
                    if matches!(outcome, Outcome::Done(rc) if rc < 0) && crate::log::holds_any() {
                        ctx.place_held();
                    }
                    outcome
                }))
            }
        }
    };
}
functions!();
functions!(A a 0);
functions!(A a 0, B b 1);
functions!(A a 0, B b 1, C c 2);
functions!(A a 0, B b 1, C c 2, D d 3);
functions!(A a 0, B b 1, C c 2, D d 3, E e 4);
functions!(A a 0, B b 1, C c 2, D d 3, E e 4, G g 5);
functions!(A a 0, B b 1, C c 2, D d 3, E e 4, G g 5, H h 6);
functions!(A a 0, B b 1, C c 2, D d 3, E e 4, G g 5, H h 6, I i 7);
functions!(A a 0, B b 1, C c 2, D d 3, E e 4, G g 5, H h 6, I i 7, J j 8);
functions!(A a 0, B b 1, C c 2, D d 3, E e 4, G g 5, H h 6, I i 7, J j 8, K k 9);

type Prepare<M> =
    Box<dyn Fn(&[ast::Arg], Loc, &mut Loader, &Arc<M>) -> Result<Func, Diagnostic> + Send + Sync>;

/// Which dialects know a function (a file of one may use words of the other: the own one is tried first).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    Both,
    /// Only 2.1 wrote it so.
    V21,
    /// Only 3.x/4.x.
    V4,
}

struct FunctionDef<M> {
    name: &'static str,
    routes: Routes,
    since: Since,
    arity: (usize, usize),
    takes: fn() -> Vec<(&'static str, bool)>,
    may_wait: bool,
    prepare: Prepare<M>,
}

/// How `modparam` sets a parameter. The error is what follows "modparam: ".
pub enum ParamFn<M> {
    Int(fn(&mut M, i64) -> Result<(), String>),
    Text(fn(&mut M, &str) -> Result<(), String>),
    Any(fn(&mut M, &ParamValue) -> Result<(), String>),
    /// Accepted; has no effect here, for this reason. Named once when a configuration uses it.
    Ignored(&'static str),
}

/// When a module begins: those of an earlier stage come first, so what they offer is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Drivers ask it.
    Ground,
    /// Databases, stores, AAA servers: all others ask it.
    Driver,
    /// It asks drivers, and others ask it.
    OverDrivers,
    Module,
}

type BuildVar<M> = Box<dyn Fn(&VarSpec, &mut Loader, &Arc<M>) -> Result<VarKind, Diagnostic> + Send + Sync>;

type Init<M> = Box<dyn Fn(&mut M, &mut Loader) -> Result<(), LoadError> + Send + Sync>;

/// Collects what a module offers. `M` is its state: `Default` before parameters, shared by all workers after.
pub struct Registrar<M> {
    params: BTreeMap<&'static str, ParamFn<M>>,
    accepts: BTreeMap<&'static str, Accepts>,
    functions: Vec<FunctionDef<M>>,
    variables: Vec<(&'static str, BuildVar<M>)>,
    commands: Vec<CommandDef<M>>,
    transformations: Vec<(&'static str, crate::load::TranBuilder)>,
    needs: Vec<&'static str>,
    left_out: Option<&'static str>,
    stage: Stage,
    asks_for: Option<fn(&M) -> Option<String>>,
    init: Option<Init<M>>,
    ready: Option<fn(&Arc<M>, &mut Hooks, &Stats)>,
    start: Option<fn(&mut Call<'_, M>)>,
    stop: Option<fn(&mut Call<'_, M>)>,
    timers: Vec<(u64, fn(&mut Call<'_, M>))>,
    worker_timers: Vec<(u64, fn(&mut Call<'_, M>))>,
}

impl<M: Default + Send + Sync + 'static> Registrar<M> {
    pub fn param_int(&mut self, name: &'static str, set: fn(&mut M, i64) -> Result<(), String>) {
        self.params.insert(name, ParamFn::Int(set));
    }
    pub fn param_text(&mut self, name: &'static str, set: fn(&mut M, &str) -> Result<(), String>) {
        self.params.insert(name, ParamFn::Text(set));
    }
    pub fn param(&mut self, name: &'static str, set: ParamFn<M>) {
        self.params.insert(name, set);
    }
    /// What values of these parameters have to be, besides their type. A value that is not is an error at its `modparam`.
    pub fn accepts(&mut self, what: Accepts, names: &[&'static str]) {
        self.accepts.extend(names.iter().map(|name| (*name, what)));
    }
    /// Parameters that are named so are names in a database.
    fn name_columns(&mut self) {
        let of_a_table =
            |name: &&&str| ["_col", "_column", "_table", "table_name"].iter().any(|end| name.ends_with(end));
        for name in self.params.keys().filter(of_a_table) {
            self.accepts.entry(name).or_insert(Accepts::COLUMN);
        }
    }
    /// Parameters that are accepted without effect.
    pub fn ignored(&mut self, names: &[&'static str], why: &'static str) {
        for name in names {
            self.params.insert(name, ParamFn::Ignored(why));
        }
    }

    /// A script function. The Rust signature is the script signature.
    pub fn function<Args, F: Function<M, Args>>(&mut self, name: &'static str, routes: Routes, f: F) {
        self.function_of(Since::Both, name, routes, f);
    }

    /// The same name may have a form for each dialect.
    pub fn function_of<Args, F: Function<M, Args>>(
        &mut self,
        since: Since,
        name: &'static str,
        routes: Routes,
        f: F,
    ) {
        let prepare: Prepare<M> =
            Box::new(move |args, loc, loader, module| f.prepare(name, args, loc, loader, module));
        let (arity, may_wait) = (F::arity(), F::may_wait());
        self.functions.push(FunctionDef { name, routes, since, arity, takes: F::takes, may_wait, prepare });
    }

    /// A variable class with a name inside or an index: `build` prepares each use.
    pub fn variable_class(
        &mut self,
        name: &'static str,
        build: impl Fn(&VarSpec, &mut Loader, &Arc<M>) -> Result<VarKind, Diagnostic> + Send + Sync + 'static,
    ) {
        self.variables.push((name, Box::new(build)));
    }

    /// A read-only variable.
    pub fn variable(&mut self, name: &'static str, read: fn(&mut Call<'_, M>) -> Value) {
        struct Read<M>(fn(&mut Call<'_, M>) -> Value, Arc<M>);
        impl<M: Send + Sync + 'static> Variable for Read<M> {
            fn get(&self, ctx: &mut Ctx, _: At) -> Value {
                (self.0)(&mut Call { ctx, module: &self.1 })
            }
        }
        self.variable_class(name, move |_, _, module| {
            Ok(VarKind::Other(Box::new(Read(read, module.clone()))))
        });
    }

    /// A transformation class `{name.…}` of this module.
    pub fn transformation(&mut self, class: &'static str, build: crate::load::TranBuilder) {
        self.transformations.push((class, build));
    }

    /// A management command on what workers share. `name` may be several names, that of 4.x first
    /// ("usrloc:dump ul_dump"). What it returns declares the parameters: `.takes("aor [contact]")`.
    pub fn command(
        &mut self,
        name: &'static str,
        help: &'static str,
        run: fn(&mut Call<'_, M>, &MiParams) -> MiResult,
    ) -> &mut CommandWords {
        self.add_command(name, help, Run::Now(MiScope::One, run))
    }

    fn add_command(&mut self, name: &'static str, help: &'static str, run: Run<M>) -> &mut CommandWords {
        self.commands.push(CommandDef::new(name, help, run));
        &mut self.commands.last_mut().expect("pushed").words
    }

    /// A management command that waits for I/O: it keeps `MiAnswer` until it has the result.
    pub fn command_late(
        &mut self,
        name: &'static str,
        help: &'static str,
        run: fn(&mut Call<'_, M>, &MiParams, MiAnswer),
    ) -> &mut CommandWords {
        self.add_command(name, help, Run::Late(run))
    }

    /// A management command that asks every worker; `join` puts the answers together.
    pub fn command_each(
        &mut self,
        name: &'static str,
        help: &'static str,
        join: fn(Vec<serde_json::Value>) -> serde_json::Value,
        run: fn(&mut Call<'_, M>, &MiParams) -> MiResult,
    ) -> &mut CommandWords {
        self.add_command(name, help, Run::Now(MiScope::Each(join), run))
    }

    /// Modules that must be loaded too.
    pub fn needs(&mut self, modules: &[&'static str]) {
        self.needs.extend(modules);
    }
    /// The program was built without this module: it is in the cargo feature of that name.
    pub fn left_out(&mut self, feature: &'static str) {
        self.left_out = Some(feature);
    }
    /// When it begins; [`Stage::Module`] where a module does not say.
    pub fn stage(&mut self, stage: Stage) {
        self.stage = stage;
    }
    /// A module that must have begun before, when it is loaded: named by the parameters.
    pub fn asks_for(&mut self, name: fn(&M) -> Option<String>) {
        self.asks_for = Some(name);
    }
    /// After all parameters, before routes are compiled.
    pub fn init(&mut self, init: fn(&mut M, &mut Loader) -> Result<(), String>) {
        self.init_or(move |m, loader| init(m, loader).map_err(LoadError::from));
    }
    /// The same for one that reads files: its errors say whether this machine lacks them.
    pub fn init_with_files(&mut self, init: fn(&mut M, &mut Loader) -> Result<(), LoadError>) {
        self.init_or(init);
    }
    /// The same for one that says which parameter is wrong.
    pub fn init_or(
        &mut self,
        init: impl Fn(&mut M, &mut Loader) -> Result<(), LoadError> + Send + Sync + 'static,
    ) {
        self.init = Some(Box::new(init));
    }
    /// Once, when the state is final: hooks and computed statistics.
    pub fn ready(&mut self, ready: fn(&Arc<M>, &mut Hooks, &Stats)) {
        self.ready = Some(ready);
    }
    /// On every worker when it starts.
    pub fn start(&mut self, start: fn(&mut Call<'_, M>)) {
        self.start = Some(start);
    }
    /// On worker 0 when the server ends.
    pub fn stop(&mut self, stop: fn(&mut Call<'_, M>)) {
        self.stop = Some(stop);
    }
    /// Every `ms` milliseconds on worker 0.
    pub fn timer(&mut self, ms: u64, run: fn(&mut Call<'_, M>)) {
        self.timers.push((ms, run));
    }

    /// Every `ms` milliseconds on each worker.
    pub fn worker_timer(&mut self, ms: u64, run: fn(&mut Call<'_, M>)) {
        self.worker_timers.push((ms, run));
    }

    fn new() -> Registrar<M> {
        Registrar {
            params: BTreeMap::new(),
            accepts: BTreeMap::new(),
            functions: Vec::new(),
            variables: Vec::new(),
            commands: Vec::new(),
            transformations: Vec::new(),
            needs: Vec::new(),
            left_out: None,
            stage: Stage::Module,
            asks_for: None,
            init: None,
            ready: None,
            start: None,
            stop: None,
            timers: Vec::new(),
            worker_timers: Vec::new(),
        }
    }
}

/// One entry of `modules! { ... }`.
#[derive(Clone, Copy)]
pub struct ModuleDef {
    pub name: &'static str,
    pub make: fn() -> Box<dyn Module>,
}

/// Makes the loader's view of a module from its `register`.
pub fn module<M: Default + Send + Sync + 'static>(register: fn(&mut Registrar<M>)) -> Box<dyn Module> {
    let mut registrar = Registrar::<M>::new();
    register(&mut registrar);
    registrar.name_columns();
    let known = |name: &&&str| !registrar.params.contains_key(**name);
    assert_eq!(registrar.accepts.keys().find(known), None, "what it accepts is said of no parameter");
    Box::new(Loaded { registrar, state: Some(M::default()), shared: None })
}

/// The list `ALL` of a crate of modules: for the loader, the manual and completions.
#[macro_export]
macro_rules! modules {
    ($($name:ident $(if $feature:tt)?),* $(,)?) => {
        /// The modules of this crate. `if "x"`: only with the cargo feature `x`.
        pub static ALL: &[$crate::ModuleDef] = &[
            $(
                $(#[cfg(feature = $feature)])?
                $crate::ModuleDef {
                    name: $crate::registrar::plain(stringify!($name)),
                    make: || $crate::registrar::module($name::register),
                },
                $(
                    #[cfg(not(feature = $feature))]
                    $crate::ModuleDef {
                        name: $crate::registrar::plain(stringify!($name)),
                        make: || $crate::registrar::module::<()>(|m| m.left_out($feature)),
                    },
                )?
            )*
        ];
    };
}

/// `enum` is a word of Rust and a module of OpenSIPS.
pub const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// A parameter that is on or off: a number, or "yes", "true", "on".
pub fn truth(value: &ParamValue) -> bool {
    match value {
        ParamValue::Int(n) => *n != 0,
        ParamValue::Text(t) => {
            matches!(&t[..], b"yes" | b"true" | b"on") || crate::arg::parse_int(t).is_some_and(|n| n != 0)
        }
    }
}

/// What a `modparam` did.
pub enum ParamSet {
    Set,
    Ignored(&'static str),
}

/// A function as the loader, the manual and completions see it.
#[derive(Clone, Copy, Debug)]
pub struct FunctionInfo {
    pub name: &'static str,
    pub routes: Routes,
    pub since: Since,
    pub arity: (usize, usize),
    /// What each argument is ("a string"), and whether it may be left out.
    pub takes: fn() -> Vec<(&'static str, bool)>,
    /// It may suspend the script.
    pub may_wait: bool,
}

impl FunctionInfo {
    /// The form of a call by the types of its arguments: `sql_query(string, [variable])`.
    pub fn form(&self) -> String {
        let arg = |(what, optional): (&'static str, bool)| {
            let what =
                ["a ", "an ", "the "].iter().find_map(|article| what.strip_prefix(article)).unwrap_or(what);
            if optional { format!("[{what}]") } else { what.to_owned() }
        };
        format!("{}({})", self.name, (self.takes)().into_iter().map(arg).collect::<Vec<_>>().join(", "))
    }
}

/// How a parameter takes its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParamKind {
    Int,
    Text,
    /// A number or a text.
    Any,
    /// Accepted without effect, for this reason.
    Ignored(&'static str),
}

/// A loaded module with its type erased.
pub trait Module: Send + Sync {
    fn set_param(&mut self, name: &str, value: &ParamValue) -> Result<ParamSet, String>;
    fn param_names(&self) -> Vec<&'static str> {
        self.params().into_iter().map(|(name, _)| name).collect()
    }
    fn params(&self) -> Vec<(&'static str, ParamKind)>;
    /// What values of a parameter have to be, where that is declared.
    fn accepts(&self, param: &str) -> Option<Accepts>;
    fn needs(&self) -> &[&'static str];
    /// The cargo feature that this build left out, and the module with it.
    fn left_out(&self) -> Option<&'static str>;
    fn stage(&self) -> Stage;
    /// Modules that must have begun before, where they are loaded.
    fn asks_for(&self) -> Option<String>;
    fn init(&mut self, loader: &mut Loader) -> Result<(), LoadError>;
    /// Parameters are final from here on.
    fn seal(&mut self) -> (TypeId, Arc<dyn Any + Send + Sync>);
    fn functions(&self) -> Vec<FunctionInfo>;
    /// Prepares a call of the i-th function.
    fn prepare(
        &self,
        index: usize,
        args: &[ast::Arg],
        loc: Loc,
        loader: &mut Loader,
    ) -> Result<Func, Diagnostic>;
    fn variable_names(&self) -> Vec<&'static str>;
    fn variable(&self, spec: &VarSpec, loader: &mut Loader) -> Option<Result<VarKind, Diagnostic>>;
    fn transformations(&self) -> Vec<(&'static str, crate::load::TranBuilder)>;
    fn commands(&self, module: &'static str) -> Vec<MiCommand>;
    /// What is said of the commands, also before the module is sealed.
    fn command_words(&self) -> Vec<CommandWords>;
    fn hooks(&self, hooks: &mut Hooks, stats: &Stats);
}

struct Loaded<M> {
    registrar: Registrar<M>,
    state: Option<M>,
    shared: Option<Arc<M>>,
}

impl<M: Default + Send + Sync + 'static> Loaded<M> {
    fn sealed(&self) -> &Arc<M> {
        self.shared.as_ref().expect("sealed before routes are compiled")
    }
}

impl<M: Default + Send + Sync + 'static> Module for Loaded<M> {
    fn set_param(&mut self, name: &str, value: &ParamValue) -> Result<ParamSet, String> {
        let Some(set) = self.registrar.params.get(name) else { return Err(format!("no parameter `{name}`")) };
        let state = self.state.as_mut().ok_or("too late")?;
        match (set, value) {
            (ParamFn::Int(f), ParamValue::Int(n)) => f(state, *n)?,
            (ParamFn::Int(f), ParamValue::Text(t)) => {
                let n = crate::arg::parse_int(t).ok_or_else(|| format!("`{name}` takes an integer"))?;
                f(state, n)?;
            }
            (ParamFn::Text(f), ParamValue::Text(t)) => f(state, &String::from_utf8_lossy(t))?,
            (ParamFn::Text(_), ParamValue::Int(_)) => return Err(format!("`{name}` takes a string")),
            (ParamFn::Any(f), value) => f(state, value)?,
            (ParamFn::Ignored(why), _) => return Ok(ParamSet::Ignored(why)),
        }
        Ok(ParamSet::Set)
    }

    fn params(&self) -> Vec<(&'static str, ParamKind)> {
        let kind = |set: &ParamFn<M>| match set {
            ParamFn::Int(_) => ParamKind::Int,
            ParamFn::Text(_) => ParamKind::Text,
            ParamFn::Any(_) => ParamKind::Any,
            ParamFn::Ignored(why) => ParamKind::Ignored(why),
        };
        self.registrar.params.iter().map(|(name, set)| (*name, kind(set))).collect()
    }

    fn accepts(&self, param: &str) -> Option<Accepts> {
        self.registrar.accepts.get(param).copied()
    }

    fn needs(&self) -> &[&'static str] {
        &self.registrar.needs
    }

    fn left_out(&self) -> Option<&'static str> {
        self.registrar.left_out
    }

    fn stage(&self) -> Stage {
        self.registrar.stage
    }

    fn asks_for(&self) -> Option<String> {
        self.registrar.asks_for.zip(self.state.as_ref()).and_then(|(name, state)| name(state))
    }

    fn init(&mut self, loader: &mut Loader) -> Result<(), LoadError> {
        match (self.registrar.init.as_ref(), self.state.as_mut()) {
            (Some(init), Some(state)) => init(state, loader),
            _ => Ok(()),
        }
    }

    fn seal(&mut self) -> (TypeId, Arc<dyn Any + Send + Sync>) {
        let shared = Arc::new(self.state.take().unwrap_or_default());
        self.shared = Some(shared.clone());
        (TypeId::of::<M>(), shared)
    }

    fn functions(&self) -> Vec<FunctionInfo> {
        let info = |f: &FunctionDef<M>| FunctionInfo {
            name: f.name,
            routes: f.routes,
            since: f.since,
            arity: f.arity,
            takes: f.takes,
            may_wait: f.may_wait,
        };
        self.registrar.functions.iter().map(info).collect()
    }

    fn prepare(
        &self,
        index: usize,
        args: &[ast::Arg],
        loc: Loc,
        loader: &mut Loader,
    ) -> Result<Func, Diagnostic> {
        (self.registrar.functions[index].prepare)(args, loc, loader, self.sealed())
    }

    fn variable_names(&self) -> Vec<&'static str> {
        self.registrar.variables.iter().map(|(n, _)| *n).collect()
    }

    fn variable(&self, spec: &VarSpec, loader: &mut Loader) -> Option<Result<VarKind, Diagnostic>> {
        let (_, build) = self.registrar.variables.iter().find(|(n, _)| n.as_bytes() == &spec.name[..])?;
        Some(build(spec, loader, self.sealed()))
    }

    fn transformations(&self) -> Vec<(&'static str, crate::load::TranBuilder)> {
        self.registrar.transformations.clone()
    }

    fn command_words(&self) -> Vec<CommandWords> {
        self.registrar.commands.iter().map(|command| command.words).collect()
    }

    fn commands(&self, module: &'static str) -> Vec<MiCommand> {
        let state = self.sealed();
        self.registrar.commands.iter().map(|command| command.bind(module, state)).collect()
    }

    fn hooks(&self, hooks: &mut Hooks, stats: &Stats) {
        let state = self.sealed();
        let bind = |run: fn(&mut Call<'_, M>)| -> crate::shared::Hook {
            let state = state.clone();
            Arc::new(move |ctx: &mut Ctx| run(&mut Call { ctx, module: &state }))
        };
        if let Some(ready) = self.registrar.ready {
            ready(state, hooks, stats);
        }
        hooks.start.extend(self.registrar.start.map(bind));
        hooks.stop.extend(self.registrar.stop.map(bind));
        hooks.timers.extend(self.registrar.timers.iter().map(|(ms, run)| (*ms, bind(*run))));
        hooks.worker_timers.extend(self.registrar.worker_timers.iter().map(|(ms, run)| (*ms, bind(*run))));
    }
}

/// Shared state lookup by functions of other modules.
pub fn state_of<M: Send + Sync + 'static>(shared: &Shared) -> Option<Arc<M>> {
    shared.module::<M>()
}
