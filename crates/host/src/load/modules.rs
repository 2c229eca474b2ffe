//! The modules of a configuration: made, given their parameters, put in order, begun.

use super::functions::{FunctionTable, Modules};
use super::reference;
use super::registrar::{Module, ModuleDef, ParamSet, Stage};
use super::unknown::{self, Unknown};
use crate::language::loader::Loader;
use crate::language::vartable::ClassBuilder;
use ahash::AHashMap;
use bytes::Bytes;
use script::ast::{self, Config};
use script::{Diagnostic, Loc, nearest};
use std::sync::Arc;

/// Modules that every server has, loaded or not.
const ALWAYS: [&str; 2] = ["core", "fermata"];

/// The modules of a configuration, for whoever prepares calls of their functions.
#[derive(Clone, Default)]
pub(super) struct Here {
    /// All there are, loaded or not.
    pub(super) known: &'static [ModuleDef],
    /// Complete once all parameters are set.
    pub(super) modules: Arc<Modules>,
    pub(super) functions: Arc<FunctionTable>,
    /// Names of modules that the configuration loads and that do not exist.
    pub(super) missing: Vec<Bytes>,
}

/// How each variable of a module is prepared; of two modules that have one of a name, the first counts.
fn variables(modules: &Arc<Modules>) -> AHashMap<&'static str, ClassBuilder> {
    let mut table: AHashMap<&'static str, ClassBuilder> = AHashMap::new();
    for (at, (_, module)) in modules.iter().enumerate() {
        for name in module.variable_names() {
            let modules = modules.clone();
            table.entry(name).or_insert_with(|| {
                Arc::new(move |spec, loader| modules[at].1.variable(spec, loader).expect("it has this one"))
            });
        }
    }
    table
}

/// What to say of a variable that no module and not the core has.
pub(super) fn unknown_variable(loader: &Loader, name: &str, loc: Loc) -> Diagnostic {
    let mut names: Vec<&str> = loader.vars.names().collect();
    names.sort_unstable();
    let modules = loader.find_part::<Here>().map(|here| here.modules.clone()).unwrap_or_default();
    loader.unknown().variable(&modules, name, &names, loc)
}

impl Loader {
    pub(super) fn unknown(&self) -> Unknown<'_> {
        let known = self.find_part::<Here>().map_or(&[][..], |here| here.known);
        Unknown { known, loaded: &self.loaded }
    }

    pub(super) fn load_modules(&mut self, config: &Config) {
        let mut modules: Modules = Vec::new();
        let known = self.part::<Here>().known;
        let mut missing = Vec::new();
        let always = known.iter().filter(|m| ALWAYS.contains(&m.name));
        modules.extend(always.map(|module| (module.name, (module.make)())));
        for load in &config.modules {
            let written = String::from_utf8_lossy(&load.name).into_owned();
            let name = reference::renamed(&written).map_or_else(|| written.clone(), str::to_owned);
            if name != written {
                let text = format!("module {written} is called {name} today");
                self.diagnostics.push(Diagnostic::warning(load.loc, text));
            }
            if modules.iter().any(|(n, _)| *n == name) {
                continue;
            }
            let def = known.iter().find(|m| m.name == name);
            let made = def.map(|def| (def.name, (def.make)()));
            let error = match made {
                Some((name, module)) => match module.left_out() {
                    Some(feature) => unknown::left_out(name, feature, load.loc),
                    None => {
                        modules.push((name, module));
                        continue;
                    }
                },
                None => unknown::module(known, &name, load.loc),
            };
            self.diagnostics.push(error);
            missing.push(load.name.clone());
        }
        self.part::<Here>().missing = missing.clone();
        self.loaded = modules.iter().map(|(name, _)| *name).collect();
        let mut refused: Vec<(&'static str, Loc)> = Vec::new();
        for param in &config.params {
            let mut same = config.params.iter().filter(|p| p.loc == param.loc && p.module != param.module);
            let several = same.any(|p| self.loaded.iter().any(|name| name.as_bytes() == &p.module[..]));
            refused.extend(self.set_param(&mut modules, param, several).map(|module| (module, param.loc)));
        }
        in_order(&mut modules);
        for (name, module) in &mut modules {
            let own = config.params.iter().filter(|param| current_name(&param.module) == *name);
            let set: Vec<&ast::ModParam> =
                own.filter(|param| !refused.contains(&(name, param.loc))).collect();
            for param in &set {
                if let Some(error) = self.unfit(&**module, param) {
                    self.diagnostics.push(error);
                    refused.push((name, param.loc));
                }
            }
            match module.init(self) {
                // What follows from a value that was refused is no news.
                Err(error) if error.param().is_some() || !refused.iter().any(|(of, _)| of == name) => {
                    let at =
                        set.iter().rfind(|set| error.param().is_some_and(|p| p.as_bytes() == &set.name[..]));
                    if at.is_none_or(|at| !refused.contains(&(name, at.loc))) {
                        let loc = at.map_or_else(|| loaded_at(config, name), |at| at.loc);
                        let problem = Diagnostic::error(loc, format!("module {name}: {error}"));
                        self.diagnostics.push(match error.is_of_this_machine() {
                            true => problem.of_this_machine(),
                            false => problem,
                        });
                    }
                }
                _ => {}
            }
            let (id, state) = module.seal();
            self.states.insert(id, state);
            self.trans.extend(module.transformations());
        }
        let names: Vec<&str> = modules.iter().map(|(n, _)| *n).collect();
        for (name, module) in &modules {
            let loc = loaded_at(config, name);
            for need in module.needs() {
                if !names.contains(need) && !missing.iter().any(|m| m == need.as_bytes()) {
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
        let modules = Arc::new(modules);
        self.module_vars = variables(&modules);
        let here = self.part::<Here>();
        (here.functions, here.modules) = (Arc::new(functions), modules);
    }

    /// What is wrong with a value that its type took.
    fn unfit(&mut self, module: &dyn Module, param: &ast::ModParam) -> Option<Diagnostic> {
        let name = String::from_utf8_lossy(&param.name);
        let why = module.accepts(&name)?.check(&param.value, self).err()?;
        let message = format!("{}: {name} {}", current_name(&param.module), why.message);
        Some(Diagnostic { loc: param.loc, message, ..why })
    }

    /// `several`: it names other modules as well, and one of them is loaded. Gives the module that refused the value.
    fn set_param(
        &mut self,
        modules: &mut Modules,
        param: &ast::ModParam,
        several: bool,
    ) -> Option<&'static str> {
        let module = current_name(&param.module);
        let name = String::from_utf8_lossy(&param.name).into_owned();
        let Some((own, loaded)) = modules.iter_mut().find(|(n, _)| *n == module) else {
            // `modparam("auth_db|usrloc|uri", ...)` is for those of them that are loaded. What cannot be loaded was
            // reported at its loadmodule.
            if several || self.part::<Here>().missing.contains(&param.module) {
                return None;
            }
            if self.part::<Here>().known.iter().any(|m| m.name == module) {
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
            return None;
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
                return Some(own);
            }
        }
        None
    }
}

/// The name that a module has today.
fn current_name(written: &[u8]) -> String {
    let written = String::from_utf8_lossy(written).into_owned();
    reference::renamed(&written).map_or_else(|| written.clone(), str::to_owned)
}

/// Where a module is loaded.
fn loaded_at(config: &Config, name: &str) -> Loc {
    config.modules.iter().find(|m| m.name == name.as_bytes()).map_or(Loc::default(), |m| m.loc)
}

/// By stage, and what a module needs before it; otherwise the order of the file stays.
fn in_order(modules: &mut Modules) {
    let mut stages: Vec<(&'static str, Stage)> = modules.iter().map(|(n, m)| (*n, m.stage())).collect();
    for (_, module) in modules.iter() {
        // What a module asks for comes at its own stage, if that is earlier.
        let (asked, stage) = (module.asks_for(), module.stage());
        for (_, own) in stages.iter_mut().filter(|(name, _)| asked.iter().any(|asked| asked == name)) {
            *own = stage.min(*own);
        }
    }
    let stage_of = |name: &str| stages.iter().find(|(n, _)| *n == name).map(|(_, stage)| *stage);
    modules.sort_by_key(|(name, _)| stage_of(name));
    let mut waiting = std::mem::take(modules);
    while !waiting.is_empty() {
        let open: Vec<&str> = waiting.iter().map(|(n, _)| *n).collect();
        let free = |module: &dyn Module| {
            let mut needs = module.needs().iter().copied().map(str::to_owned).chain(module.asks_for());
            !needs.any(|need| open.contains(&need.as_str()))
        };
        // A circle is broken at its first module.
        let next = waiting.iter().position(|(_, module)| free(&**module)).unwrap_or(0);
        modules.push(waiting.remove(next));
    }
}
