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
        let core = known.iter().find(|m| m.name == "core");
        modules.extend(core.map(|core| (core.name, (core.make)())));
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
        for param in &config.params {
            let mut same = config.params.iter().filter(|p| p.loc == param.loc && p.module != param.module);
            let several = same.any(|p| self.loaded.iter().any(|name| name.as_bytes() == &p.module[..]));
            self.set_param(&mut modules, param, several);
        }
        in_order(&mut modules);
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

    /// `several`: it names other modules as well, and one of them is loaded.
    fn set_param(&mut self, modules: &mut Modules, param: &ast::ModParam, several: bool) {
        let module = String::from_utf8_lossy(&param.module).into_owned();
        let module = reference::renamed(&module).map_or_else(|| module.clone(), str::to_owned);
        let name = String::from_utf8_lossy(&param.name).into_owned();
        let Some((_, loaded)) = modules.iter_mut().find(|(n, _)| *n == module) else {
            // `modparam("auth_db|usrloc|uri", ...)` is for those of them that are loaded. What cannot be loaded was
            // reported at its loadmodule.
            if several || self.part::<Here>().missing.contains(&param.module) {
                return;
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
