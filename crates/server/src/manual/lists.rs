//! Names for editors: what may stand where, with one line about each.

use super::words::About;
use super::{built, entry_line, functions, language, parameter, variables};
use host::registrar::ParamKind;
use std::sync::LazyLock;

/// A name that may be written.
#[derive(Clone, Debug)]
pub struct Named {
    pub module: &'static str,
    pub name: &'static str,
    /// As the manual prints it, Markdown.
    pub words: String,
}

/// Everything of all modules of this build.
#[derive(Default)]
pub struct Lists {
    pub modules: Vec<&'static str>,
    pub functions: Vec<Named>,
    pub params: Vec<Named>,
    pub variables: Vec<Named>,
}

pub static ALL: LazyLock<Lists> = LazyLock::new(|| {
    let mut all = Lists::default();
    for (def, module) in built() {
        let named = |name, words| Named { module: def.name, name, words };
        all.modules.push(def.name);
        let mut names: Vec<_> = module.functions().iter().map(|f| f.name).collect();
        names.sort_unstable();
        names.dedup();
        all.functions.extend(names.into_iter().zip(functions(def.name, &*module)).map(|(n, w)| named(n, w)));
        for (name, kind) in module.params() {
            if !matches!(kind, ParamKind::Ignored(_)) {
                all.params.push(named(name, parameter(&*module, def.name, name, kind)));
            }
        }
        let own = variables(&*module).into_iter();
        all.variables.extend(own.map(|name| named(name, entry_line(def.name, About::Variable, name))));
    }
    all.variables.extend(language::variables().map(|(name, words)| Named { module: "core", name, words }));
    all
});

/// Core parameters.
pub fn core_parameters() -> Vec<(&'static str, String)> {
    language::parameters().collect()
}
