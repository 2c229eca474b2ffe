//! What arguments, texts and variables of a script are prepared through while a configuration loads, and by what
//! becomes known later (`late.rs`).

use super::arg::HowCalled;
use super::vartable::{ClassBuilder, TranBuilder, VarTable, no_index};
use crate::context::awaited::Awaited;
use crate::context::ctx::Rng;
use crate::context::globals::{FlagNames, Globals};
use crate::context::parts::Parts;
use crate::context::stats::Stats;
use crate::context::transform::Tran;
use crate::context::var::{Context, Index, Var, VarKind};
use crate::language::format::Format;
use ahash::AHashMap;
use bytes::Bytes;
use script::ast::{self, Dialect, IndexSpec, RouteKind, VarSpec};
use script::{Diagnostic, Loc, RouteId, Value, nearest};
use std::any::{Any, TypeId};
use std::sync::Arc;

/// Load-time state; modules and arguments prepare themselves through it.
#[derive(Clone)]
pub struct Loader {
    pub dialect: Dialect,
    pub globals: Globals,
    pub diagnostics: Vec<Diagnostic>,
    pub stats: Stats,
    pub(crate) vars: VarTable,
    /// Variables of modules; they come before those of the core.
    pub(crate) module_vars: AHashMap<&'static str, ClassBuilder>,
    /// Classes of transformations that modules have; all others are the core's.
    pub(crate) trans: AHashMap<&'static str, TranBuilder>,
    pub(crate) core_trans: TranBuilder,
    /// What to say of a variable that does not exist.
    pub(crate) unknown_variable: fn(&Loader, &str, Loc) -> Diagnostic,
    pub(crate) locals: AHashMap<Bytes, u16>,
    pub(crate) routes: Vec<(RouteKind, Option<Bytes>)>,
    /// Message flags and branch flags in the order of declaration.
    pub flags: FlagNames,
    pub branch_flags: FlagNames,
    /// Names of the modules that are loaded.
    pub(crate) loaded: Vec<&'static str>,
    /// States of modules whose parameters are final, by type.
    pub(crate) states: AHashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub(crate) seed: u64,
    /// Where the main configuration file stands; files that modules name are looked up from here.
    pub folder: std::path::PathBuf,
    /// What `$var`s hold when a script begins, by slot.
    pub initial_vars: Vec<Value>,
    /// Whether routes tell `Outside` of every statement.
    pub probes: script::Probes,
    /// Variables prepared since the last look that may have to wait.
    pub(crate) awaited: Vec<Arc<Awaited>>,
    /// How the function that is prepared now is called.
    pub(crate) how_called: HowCalled,
    /// How many there are in all.
    pub(crate) all_awaited: u32,
    /// The class of the variable that is prepared now has read its index itself.
    pub(crate) index_taken: bool,
    pub(crate) parts: Parts,
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

    /// A secret that nobody outside this process knows, different at each call.
    pub fn random_secret(&mut self) -> String {
        let mut rng = Rng(self.seed);
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

    /// A `route[name]` that a parameter names.
    pub fn route(&self, name: &str) -> Result<RouteId, Diagnostic> {
        self.route_named(RouteKind::Request as u8, name.as_bytes(), Loc::default())
    }

    /// For a class whose index is a text (`$(rtpstat(MOS-max)[$ft])`): the class reads it itself.
    pub fn text_index(&mut self, spec: &VarSpec) -> Result<Option<Format>, Diagnostic> {
        let index = match &spec.index {
            None => None,
            Some(IndexSpec::Int(n)) => Some(Format::Constant(n.to_string().into())),
            Some(IndexSpec::All) => Some(Format::Constant("*".into())),
            Some(IndexSpec::Append) => Some(Format::Constant("append".into())),
            Some(IndexSpec::Text(text)) => Some(Format::Constant(text.clone())),
            Some(IndexSpec::Var(var)) => Some(Format::Var(Box::new(self.var(var)?))),
        };
        self.index_taken = true;
        Ok(index)
    }

    /// Prepares a variable for reading.
    pub fn var(&mut self, spec: &VarSpec) -> Result<Var, Diagnostic> {
        self.index_taken = false;
        let kind = self.kind(spec)?;
        let index = match &spec.index {
            _ if std::mem::take(&mut self.index_taken) => Index::None,
            None => Index::None,
            Some(IndexSpec::Text(_)) => {
                return Err(Diagnostic::error(spec.loc, "an index is a number, a variable or `*`"));
            }
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
                    None => (self.core_trans)(tran, self)?,
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
        let may_wait = matches!(kind, VarKind::Waiting(_)) || trans.iter().any(Tran::may_wait);
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

    fn kind(&mut self, spec: &VarSpec) -> Result<VarKind, Diagnostic> {
        let name = String::from_utf8_lossy(&spec.name).into_owned();
        if let Some(build) = self.module_vars.get(&*name).cloned() {
            return build(spec, self);
        }
        let Some(build) = self.vars.classes.get(&*name).cloned() else {
            return Err((self.unknown_variable)(self, &name, spec.loc));
        };
        if spec.index.is_some() && !(self.vars.takes_index)(spec) {
            return Err(no_index(spec));
        }
        build(spec, self)
    }

    /// What a floor above or a module keeps here while the configuration loads, made by `Default`.
    pub fn part<T: Any + Clone + Default + Send + Sync>(&mut self) -> &mut T {
        self.parts.entry()
    }

    /// The same to look at; `None` when nobody has made it.
    pub fn find_part<T: Any>(&self) -> Option<&T> {
        self.parts.find()
    }
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
