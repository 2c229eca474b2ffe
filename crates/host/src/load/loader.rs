//! From a syntax tree to what workers run: core parameters, modules, prepared routes. Every problem
//! is reported, not only the first.

use crate::arg::HowCalled;
use crate::context::awaited::Awaited;
use crate::ctx::Sip;
use crate::events::{EventRoute, Events};
use crate::registrar::{Func, FunctionInfo, Module, ModuleDef, ParamSet, Since};
use crate::shared::{Hooks, Listen, Shared};
use crate::stats::Stats;
use crate::tran::Tran;
use crate::var::{Context, Index, Kind, ReadOnly, Var, Variable, WaitingVariable};
use ahash::AHashMap;
use bytes::Bytes;
use script::ast::{self, Config, Dialect, IndexSpec, RouteKind, VarSpec};
use script::{CallSite, Diagnostic, Env, Loc, RouteId, Sources, Value, nearest};
use std::any::{Any, TypeId};
use std::sync::Arc;

pub use crate::context::globals::{Alias, FlagNames, Globals};

/// Builds the class of one use of a variable.
pub type ClassBuilder = Arc<dyn Fn(&VarSpec, &mut Loader) -> Result<Kind, Diagnostic> + Send + Sync>;
/// Builds one use of a transformation.
pub type TranBuilder = fn(&ast::TranSpec, &mut Loader) -> Result<Tran, Diagnostic>;

/// Names of core variables and how each is prepared.
#[derive(Clone, Default)]
pub struct VarTable {
    classes: AHashMap<&'static str, ClassBuilder>,
}

impl VarTable {
    /// A class with a name inside or an index.
    pub fn class(
        &mut self,
        name: &'static str,
        build: impl Fn(&VarSpec, &mut Loader) -> Result<Kind, Diagnostic> + Send + Sync + 'static,
    ) {
        self.classes.insert(name, Arc::new(build));
    }
    /// A plain read-only variable.
    pub fn read(&mut self, name: &'static str, read: fn(&mut crate::ctx::Ctx) -> Value) {
        self.class(name, move |_, _| Ok(Kind::Other(Box::new(ReadOnly(read)))));
    }
    /// A variable without name inside.
    pub fn simple<V: Variable + Clone + 'static>(&mut self, name: &'static str, variable: V) {
        self.class(name, move |_, _| Ok(Kind::Other(Box::new(variable.clone()))));
    }
    /// A variable without name inside whose value may have to be waited for.
    pub fn waiting<V: WaitingVariable + Clone + 'static>(&mut self, name: &'static str, variable: V) {
        self.class(name, move |_, _| Ok(Kind::Waiting(Box::new(variable.clone()))));
    }
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.classes.keys().copied()
    }
}

fn no_index(spec: &VarSpec) -> Diagnostic {
    let inner = spec.inner.as_ref().map(|inner| format!("({})", String::from_utf8_lossy(inner)));
    let name = format!("${}{}", String::from_utf8_lossy(&spec.name), inner.unwrap_or_default());
    Diagnostic::error(spec.loc, format!("{name} has one value only, so it takes no index"))
        .hint(format!("write {name}, without the brackets"))
}

/// Functions by name: index of the module, index in it, and what is known of it.
type FunctionTable = AHashMap<&'static str, Vec<(usize, usize, FunctionInfo)>>;

type Modules = Vec<(&'static str, Box<dyn Module>)>;

/// Why a form of a function does not fit a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Number,
    Type,
}

/// An error in a call, with the form that the function has where no better advice is known.
fn explained(mut error: Diagnostic, info: &FunctionInfo) -> Diagnostic {
    let hint = || format!("{}; `fermata manual {}` explains it", info.form(), info.name);
    error.hint.get_or_insert_with(hint);
    error
}

/// Load-time state; modules and arguments prepare themselves through it.
#[derive(Clone)]
pub struct Loader {
    pub dialect: Dialect,
    pub globals: Globals,
    pub diagnostics: Vec<Diagnostic>,
    pub stats: Stats,
    /// What module tm was told.
    pub tm: crate::tm::Settings,
    vars: VarTable,
    trans: AHashMap<&'static str, TranBuilder>,
    locals: AHashMap<Bytes, u16>,
    routes: Vec<(RouteKind, Option<Bytes>)>,
    /// Message flags and branch flags in the order of declaration.
    pub flags: FlagNames,
    pub branch_flags: FlagNames,
    /// Complete once all parameters are set.
    modules: Arc<Modules>,
    functions: Arc<FunctionTable>,
    /// Names of the modules that are loaded, also before that.
    loaded: Vec<&'static str>,
    /// Names of modules that the configuration loads and that do not exist.
    missing: Vec<Bytes>,
    states: AHashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    known: &'static [ModuleDef],
    seed: u64,
    pub databases: crate::db::Databases,
    /// Where the main configuration file stands; files that modules name are looked up from here.
    pub folder: std::path::PathBuf,
    /// What `$var`s hold when a script begins, by slot.
    pub initial_vars: Vec<Value>,
    pub aaa: crate::aaa::AaaTable,
    pub caches: crate::cachedb::Caches,
    /// A function that forwards without a transaction is used.
    pub forwards: bool,
    /// Variables prepared since the last look that may have to wait.
    awaited: Vec<Arc<Awaited>>,
    /// How the function that is prepared now is called.
    pub(crate) how_called: HowCalled,
    /// How many there are in all.
    all_awaited: u32,
}

impl Loader {
    /// Slot of a `$var`.
    pub fn local(&mut self, name: &Bytes) -> u16 {
        let next = self.locals.len() as u16;
        *self.locals.entry(name.clone()).or_insert(next)
    }

    /// (kind, name) of all routes, by number.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (RouteKind, Option<&[u8]>)> {
        self.routes.iter().map(|(kind, name)| (*kind, name.as_deref()))
    }

    pub(crate) fn set_routes(&mut self, routes: &[ast::Route]) {
        self.routes = routes.iter().map(|r| (r.kind, r.name.clone())).collect();
    }

    /// What running code may have declared since a copy was made.
    pub(crate) fn declared(&self) -> (usize, usize, usize) {
        (self.locals.len(), self.flags.len(), self.branch_flags.len())
    }

    /// Bit of a message flag, declared by using it; a number is a name too (2.1). `Err` says what is wrong.
    pub fn flag(&mut self, name: &[u8], loc: Loc) -> Result<u32, Diagnostic> {
        flag_bit(&mut self.flags, name, loc)
    }

    /// Bit of a branch flag; they have names of their own.
    pub fn branch_flag(&mut self, name: &[u8], loc: Loc) -> Result<u32, Diagnostic> {
        flag_bit(&mut self.branch_flags, name, loc)
    }

    /// `disable_tcp`, `disable_tls`: sockets that are written all the same do not listen.
    fn without_disabled(&mut self) {
        let on = |name: &str| self.globals.flag(&[name]) == Some(true);
        let (tcp, tls) = (on("disable_tcp"), on("disable_tls"));
        self.globals.sockets.retain(|socket| match socket.transport {
            sip::Transport::Udp => true,
            sip::Transport::Tls => !tcp && !tls,
            _ => !tcp,
        });
    }

    /// A secret that nobody outside this process knows, different at each call.
    pub fn random_secret(&mut self) -> String {
        let mut rng = crate::ctx::Rng(self.seed);
        self.seed = rng.next_u64();
        format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
    }

    /// A module's state, when it is loaded and its parameters are final.
    pub fn module<M: Send + Sync + 'static>(&self) -> Option<Arc<M>> {
        self.states.get(&TypeId::of::<M>()).cloned().and_then(|m| m.downcast().ok())
    }

    pub fn is_loaded(&self, module: &str) -> bool {
        self.loaded.contains(&module)
    }

    /// A route of a kind (as u8 of `RouteKind`), by name.
    pub fn route_named(&self, kind: u8, name: &[u8], loc: Loc) -> Result<RouteId, Diagnostic> {
        let found = self.routes.iter().position(|(k, n)| *k as u8 == kind && n.as_deref() == Some(name));
        found.map(|i| RouteId(i as u16)).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let names =
                self.routes.iter().filter(|(k, _)| *k as u8 == kind).filter_map(|(_, n)| n.as_deref());
            let names: Vec<String> = names.map(|n| String::from_utf8_lossy(n).into_owned()).collect();
            let error = Diagnostic::error(loc, format!("there is no such route: {name}"));
            match nearest(&name, names.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    /// Prepares a variable for reading.
    pub fn var(&mut self, spec: &VarSpec) -> Result<Var, Diagnostic> {
        let kind = self.kind(spec)?;
        let index = match &spec.index {
            None => Index::None,
            Some(IndexSpec::Int(n)) => Index::Int(*n),
            Some(IndexSpec::All) => Index::All,
            Some(IndexSpec::Append) => Index::Append,
            Some(IndexSpec::Var(v)) => Index::Var(Box::new(self.var(v)?)),
        };
        let context = match spec.context.as_deref() {
            None => Context::Current,
            Some(b"request") => Context::Request,
            Some(b"reply") => Context::Reply,
            Some(other) => {
                let text = format!("unknown context <{}>", String::from_utf8_lossy(other));
                return Err(Diagnostic::error(spec.loc, text).hint("contexts are <request> and <reply>"));
            }
        };
        let mut trans = Vec::with_capacity(spec.transformations.len());
        for tran in &spec.transformations {
            trans.push(
                match self.trans.get(&*String::from_utf8_lossy(&tran.class).to_ascii_lowercase()).copied() {
                    Some(build) => build(tran, self)?,
                    None => crate::tran::prepare(tran, self)?,
                },
            );
        }
        let mut text = spec.name.to_vec();
        if let Some(inner) = &spec.inner {
            text.push(b'(');
            text.extend_from_slice(inner);
            text.push(b')');
        }
        text.insert(0, b'$');
        // In 2.1 a transformation that has nothing to give fails.
        let fails = self.dialect == Dialect::V21;
        let may_wait = matches!(kind, Kind::Waiting(_)) || trans.iter().any(Tran::may_wait);
        let var = Var { kind, index, context, trans: trans.into(), fails, text: text.into() };
        Ok(if may_wait { self.awaited(var) } else { var })
    }

    /// What was prepared last runs where nothing can wait.
    pub(crate) fn forget_awaited(&mut self) {
        self.awaited.clear();
    }

    /// A variable that may have to wait, known to what is being compiled.
    pub(crate) fn awaited(&mut self, var: Var) -> Var {
        self.all_awaited += 1;
        let awaited = Arc::new(Awaited { id: self.all_awaited, var });
        self.awaited.push(awaited.clone());
        Var::awaited(awaited)
    }

    /// Prepares a variable that will be assigned.
    pub fn target_var(&mut self, spec: &VarSpec) -> Result<Var, Diagnostic> {
        let var = self.var(spec)?;
        if var.writable() {
            return Ok(var);
        }
        Err(Diagnostic::error(spec.loc, format!("{} cannot be assigned", String::from_utf8_lossy(&var.text))))
    }

    fn kind(&mut self, spec: &VarSpec) -> Result<Kind, Diagnostic> {
        let name = String::from_utf8_lossy(&spec.name).into_owned();
        let modules = self.modules.clone();
        let found = modules.iter().find_map(|(_, m)| m.variable(spec, self));
        if let Some(found) = found {
            return found;
        }
        if let Some(build) = self.vars.classes.get(&*name).cloned() {
            if spec.index.is_some() && !crate::vars::takes_index(spec) {
                return Err(no_index(spec));
            }
            return build(spec, self);
        }
        let mut names: Vec<&str> = self.vars.names().collect();
        names.sort_unstable();
        Err(self.unknown().variable(&modules, &name, &names, spec.loc))
    }

    fn unknown(&self) -> crate::unknown::Unknown<'_> {
        crate::unknown::Unknown { known: self.known, loaded: &self.loaded }
    }

    fn function(&mut self, site: &CallSite<'_>) -> Result<Func, Diagnostic> {
        let name = String::from_utf8_lossy(site.name).into_owned();
        let modules = self.modules.clone();
        self.find_function(&modules, &name, site)
    }

    fn find_function(
        &mut self,
        modules: &[(&'static str, Box<dyn Module>)],
        name: &str,
        site: &CallSite<'_>,
    ) -> Result<Func, Diagnostic> {
        let mine = |since: Since| match since {
            Since::Both => 1,
            Since::V21 => {
                if self.dialect == Dialect::V21 {
                    0
                } else {
                    2
                }
            }
            Since::V4 => {
                if self.dialect == Dialect::V4 {
                    0
                } else {
                    2
                }
            }
        };
        let mut candidates = Vec::new();
        let mut of_core = false;
        for (at, i, info) in self.functions.clone().get(name).into_iter().flatten() {
            let (module_name, module) = &modules[*at];
            of_core |= *module_name == "core";
            candidates.push((mine(info.since), module, *i, *info));
        }
        candidates.sort_by_key(|c| c.0);
        let Some(first) = candidates.first() else {
            return Err(self.unknown().function(modules, name, site.loc));
        };
        if !candidates.iter().any(|c| c.3.routes.has(site.route)) {
            return Err(Diagnostic::error(
                site.loc,
                format!("{}() cannot be used in this kind of route", first.3.name),
            ));
        }
        if self.dialect == Dialect::V21 && !of_core {
            strings_only(name, site.args)?;
        }
        // An argument list of one empty argument is no argument.
        let args = match site.args {
            [one] if matches!(one.kind, ast::ArgKind::Empty) => &[],
            args => args,
        };
        let mut problem = None;
        let own = candidates.iter().filter(|c| c.0 < 2).count();
        for (n, (_, module, i, info)) in candidates.iter().enumerate() {
            // What the own dialect takes decides; the other's form helps where the number differs.
            if n >= own && own > 0 && problem.as_ref().is_some_and(|(kind, _)| *kind == Wrong::Type) {
                break;
            }
            let (fewest, most) = info.arity;
            if args.len() < fewest || args.len() > most {
                let takes = if fewest == most { format!("{fewest}") } else { format!("{fewest} to {most}") };
                problem.get_or_insert_with(|| {
                    let text = format!("{name}() takes {takes} parameters, here are {}", args.len());
                    (Wrong::Number, explained(Diagnostic::error(site.loc, text), info))
                });
                continue;
            }
            match module.prepare(*i, args, site.loc, self) {
                Ok(func) => return Ok(func),
                Err(error) => problem = Some((Wrong::Type, explained(error, info))),
            }
        }
        Err(problem.expect("a candidate failed").1)
    }

    fn load_modules(&mut self, config: &Config) {
        let mut modules: Modules = Vec::new();
        let core = self.known.iter().find(|m| m.name == "core");
        modules.extend(core.map(|core| (core.name, (core.make)())));
        for load in &config.modules {
            let written = String::from_utf8_lossy(&load.name).into_owned();
            let name = crate::reference::renamed(&written).map_or_else(|| written.clone(), str::to_owned);
            if name != written {
                let text = format!("module {written} is called {name} today");
                self.diagnostics.push(Diagnostic::warning(load.loc, text));
            }
            if modules.iter().any(|(n, _)| *n == name) {
                continue;
            }
            let def = self.known.iter().find(|m| m.name == name);
            let made = def.map(|def| (def.name, (def.make)()));
            let error = match made {
                Some((name, module)) => match module.left_out() {
                    Some(feature) => crate::unknown::left_out(name, feature, load.loc),
                    None => {
                        modules.push((name, module));
                        continue;
                    }
                },
                None => crate::unknown::module(self.known, &name, load.loc),
            };
            self.diagnostics.push(error);
            self.missing.push(load.name.clone());
        }
        self.loaded = modules.iter().map(|(name, _)| *name).collect();
        for param in &config.params {
            let mut same = config.params.iter().filter(|p| p.loc == param.loc && p.module != param.module);
            let several = same.any(|p| self.loaded.iter().any(|name| name.as_bytes() == &p.module[..]));
            self.set_param(&mut modules, param, several);
        }
        // Drivers first: the others ask them for their databases.
        let of_domains = driver_of_domains(config);
        let rank = |name: &str| match name {
            _ if of_domains.as_deref() == Some(name) => -2,
            // What drivers themselves need.
            "tls_mgm" => -1,
            // They ask the drivers, and others ask them.
            "db_virtual" | "clusterer" => 1,
            _ if ["db_", "cachedb_", "aaa_"].iter().any(|prefix| name.starts_with(prefix)) => 0,
            _ => 2,
        };
        modules.sort_by_key(|(name, _)| rank(name));
        by_needs(&mut modules);
        for (name, module) in &mut modules {
            let loc =
                config.modules.iter().find(|m| m.name == name.as_bytes()).map_or(Loc::default(), |m| m.loc);
            if let Err(error) = module.init(self) {
                let problem = Diagnostic::error(loc, format!("module {name}: {error}"));
                // What the file system says may differ where the server will run.
                self.diagnostics.push(match error.contains("(os error ") {
                    true => problem.of_this_machine(),
                    false => problem,
                });
            }
            let (id, state) = module.seal();
            self.states.insert(id, state);
            self.trans.extend(module.transformations());
        }
        let names: Vec<&str> = modules.iter().map(|(n, _)| *n).collect();
        for (name, module) in &modules {
            let loc =
                config.modules.iter().find(|m| m.name == name.as_bytes()).map_or(Loc::default(), |m| m.loc);
            for need in module.needs() {
                if !names.contains(need) && !self.missing.iter().any(|m| m == need.as_bytes()) {
                    let error = Diagnostic::error(loc, format!("module {name} needs module {need}"));
                    self.diagnostics.push(error.hint(format!("loadmodule \"{need}.so\"")));
                }
            }
        }
        let mut functions = FunctionTable::default();
        for (at, (_, module)) in modules.iter().enumerate() {
            for (i, info) in module.functions().into_iter().enumerate() {
                functions.entry(info.name).or_default().push((at, i, info));
            }
        }
        self.functions = Arc::new(functions);
        self.modules = Arc::new(modules);
    }

    /// `several`: it names other modules as well, and one of them is loaded.
    fn set_param(&mut self, modules: &mut Modules, param: &ast::ModParam, several: bool) {
        let module = String::from_utf8_lossy(&param.module).into_owned();
        let module = crate::reference::renamed(&module).map_or_else(|| module.clone(), str::to_owned);
        let name = String::from_utf8_lossy(&param.name).into_owned();
        let Some((_, loaded)) = modules.iter_mut().find(|(n, _)| *n == module) else {
            // `modparam("auth_db|usrloc|uri", ...)` is for those of them that are loaded. What cannot be loaded was
            // reported at its loadmodule.
            if several || self.missing.contains(&param.module) {
                return;
            }
            if self.known.iter().any(|m| m.name == module) {
                let error = Diagnostic::error(
                    param.loc,
                    format!("modparam for module {module}, which is not loaded"),
                );
                self.diagnostics.push(error.hint(format!("loadmodule \"{module}.so\" above it")));
            } else {
                self.diagnostics.push(Diagnostic::error(
                    param.loc,
                    format!("modparam for module {module}, which is not loaded"),
                ));
            }
            return;
        };
        match loaded.set_param(&name, &param.value) {
            Ok(ParamSet::Set) => {}
            Ok(ParamSet::Ignored(why)) => {
                self.diagnostics.push(Diagnostic::warning(
                    param.loc,
                    format!("{module}: {name} has no effect here: {why}"),
                ));
            }
            Err(error) => {
                let mut diagnostic = Diagnostic::error(param.loc, format!("{module}: {error}"));
                let names = loaded.param_names();
                if !names.contains(&name.as_str())
                    && let Some(near) = nearest(&name, names)
                {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                self.diagnostics.push(diagnostic);
            }
        }
    }
}

/// Functions of modules take strings only in 2.x.
fn strings_only(name: &str, args: &[ast::Arg]) -> Result<(), Diagnostic> {
    for arg in args {
        if let ast::ArgKind::Int(n) = arg.kind {
            let error = Diagnostic::error(arg.loc, format!("{name}() takes strings in 2.x"));
            return Err(error.hint(format!("in quotes: \"{n}\"")));
        }
    }
    Ok(())
}

/// The driver of the database that tls_mgm keeps its domains in: the one that cannot ask tls_mgm.
fn driver_of_domains(config: &Config) -> Option<String> {
    let url = config.params.iter().find(|p| &p.module[..] == b"tls_mgm" && &p.name[..] == b"db_url")?;
    let ast::ParamValue::Text(url) = &url.value else { return None };
    let (scheme, _) = std::str::from_utf8(url).ok()?.split_once("://")?;
    Some(format!("db_{scheme}"))
}

/// Puts what a module needs before it; otherwise the order of the file stays.
fn by_needs(modules: &mut Vec<(&'static str, Box<dyn Module>)>) {
    let mut waiting = std::mem::take(modules);
    while !waiting.is_empty() {
        let open: Vec<&str> = waiting.iter().map(|(n, _)| *n).collect();
        // A circle is broken at its first module.
        let next = waiting.iter().position(|(_, m)| !m.needs().iter().any(|n| open.contains(n))).unwrap_or(0);
        modules.push(waiting.remove(next));
    }
}

impl Env<Sip> for Loader {
    fn waits(&mut self) -> Vec<Var> {
        self.awaited.drain(..).map(Var::awaited).collect()
    }
    fn variable(&mut self, spec: &VarSpec) -> Result<Var, Diagnostic> {
        self.awaited.clear();
        self.var(spec)
    }
    fn target(&mut self, spec: &VarSpec) -> Result<Var, Diagnostic> {
        self.awaited.clear();
        self.target_var(spec)
    }
    fn function(&mut self, site: &CallSite<'_>) -> Result<Func, Diagnostic> {
        self.awaited.clear();
        self.how_called = HowCalled { waits: site.waits, timeout_ms: site.timeout_ms };
        Loader::function(self, site)
    }
    fn word(&mut self, word: &[u8], loc: Loc) -> Result<Var, Diagnostic> {
        self.awaited.clear();
        crate::vars::word::prepare(word, loc, self)
    }
    fn dialect(&self) -> Dialect {
        self.dialect
    }
}

/// The folder of the main file; that of the process when the name has none.
fn folder_of(sources: &Sources) -> std::path::PathBuf {
    let main = sources.files.first().map(|f| std::path::Path::new(&f.name));
    main.and_then(std::path::Path::parent).map(std::path::Path::to_path_buf).unwrap_or_default()
}

/// The bit of a flag's name in a list of at most 32.
fn flag_bit(names: &mut FlagNames, name: &[u8], loc: Loc) -> Result<u32, Diagnostic> {
    let at = match names.iter().position(|f| &f[..] == name) {
        Some(at) => at,
        None if names.len() < 32 => {
            names.push(Bytes::copy_from_slice(name));
            names.len() - 1
        }
        None => return Err(Diagnostic::error(loc, "more than 32 different flags")),
    };
    Ok(1 << at)
}

/// Checks and prepares a configuration. `core` is always loaded. Problems: the list holds at least
/// one error; `seed` makes tags and must not be guessable outside tests; warnings alone come with `Shared::warnings`.
pub fn load(
    config: &Config,
    sources: Sources,
    known: &'static [ModuleDef],
    wall_ms: u64,
    seed: u64,
) -> Result<Shared, (Sources, Vec<Diagnostic>)> {
    let mut vars = VarTable::default();
    crate::vars::register(&mut vars);
    let mut loader = Loader {
        dialect: config.dialect,
        globals: Globals::default(),
        diagnostics: Vec::new(),
        stats: Stats::default(),
        tm: Default::default(),
        vars,
        trans: AHashMap::new(),
        locals: AHashMap::new(),
        routes: config.routes.iter().map(|r| (r.kind, r.name.clone())).collect(),
        flags: Vec::new(),
        branch_flags: Vec::new(),
        modules: Arc::default(),
        functions: Arc::default(),
        loaded: Vec::new(),
        missing: Vec::new(),
        states: AHashMap::new(),
        known,
        seed,
        databases: Default::default(),
        folder: folder_of(&sources),
        initial_vars: Vec::new(),
        aaa: Default::default(),
        caches: Default::default(),
        forwards: false,
        awaited: Vec::new(),
        how_called: HowCalled { waits: script::Waits::Plain, timeout_ms: None },
        all_awaited: 0,
    };
    loader.globals = Globals::read(config, &mut loader.diagnostics);
    loader.without_disabled();
    let stream_rules = crate::streams::Rules::read(&mut loader);
    loader.load_modules(config);
    let (program, problems) = script::compile(config, &mut loader);
    loader.diagnostics.extend(problems);
    let sockets: Vec<Listen> = loader.globals.sockets.clone();
    if loader.diagnostics.iter().any(|d| d.severity == script::Severity::Error) {
        return Err((sources, loader.diagnostics));
    }
    let mut hooks = Hooks::default();
    let mut commands = Vec::new();
    for (name, module) in loader.modules.iter() {
        hooks.watch.module = name;
        module.hooks(&mut hooks, &loader.stats);
        commands.extend(module.commands(name));
    }
    crate::db::hooks(&loader.databases.open(), &loader.globals, &mut hooks);
    if let Err(contradiction) = hooks.watch.arrange() {
        loader.diagnostics.push(Diagnostic::error(script::Loc::default(), contradiction));
        return Err((sources, loader.diagnostics));
    }
    let event_routes = config.routes.iter().enumerate().filter(|(_, r)| r.kind == RouteKind::Event);
    let event_routes = event_routes
        .filter_map(|(i, r)| Some((r.name.clone()?, EventRoute { route: RouteId(i as u16), mode: r.mode })));
    let mut events = Events::default();
    events.routes = parking_lot::RwLock::new(event_routes.collect());
    events.names = std::mem::take(&mut hooks.event_names).into_iter().map(Bytes::from).collect();
    events.transports = std::mem::take(&mut hooks.event_transports);
    let signature = crate::reply::Signature::new(&loader.globals);
    let (forwards, reply_to_via) = (loader.forwards, loader.globals.flag(&["reply_to_via"]));
    let forwards = forwards || loader.globals.flag(&["disable_stateless_fwd"]) == Some(false);
    let shared = Shared {
        declared: Default::default(),
        program: parking_lot::RwLock::new(Arc::new(program)),
        sources: parking_lot::RwLock::new(Arc::new(sources)),
        sockets,
        globals: loader.globals.clone(),
        stats: loader.stats.clone(),
        commands,
        hooks,
        modules: loader.states.clone(),
        module_names: loader.loaded.clone(),
        flag_names: parking_lot::RwLock::new(loader.flags.clone()),
        branch_flag_names: parking_lot::RwLock::new(loader.branch_flags.clone()),
        status: Default::default(),
        started_ms: wall_ms,
        warnings: std::mem::take(&mut loader.diagnostics),
        dialect: config.dialect,
        events,
        signature,
        forwards,
        reply_to_via: reply_to_via == Some(true),
        keeps_503: loader.globals.flag(&["disable_503_translation"]) == Some(true),
        warns: loader.globals.flag(&["sip_warning"]) == Some(true),
        mhomed: loader.globals.flag(&["mhomed"]) == Some(true),
        stream_rules,
        connections: Default::default(),
        tm: parking_lot::Mutex::new(loader.tm.clone()),
        tag_secret: ahash::RandomState::with_seeds(seed, seed ^ 0x5bd1_e995, seed.rotate_left(17), !seed),
        tag_prefix: seed as u16,
        dispatch: Default::default(),
        late: Default::default(),
        first_vars: Default::default(),
        local_addresses: Default::default(),
        initial_vars: std::mem::take(&mut loader.initial_vars),
        arguments: Default::default(),
        reload: Default::default(),
        caches: loader.caches.named.clone(),
    };
    let _ = shared.late.set(crate::late::Late::new(loader));
    Ok(shared)
}
