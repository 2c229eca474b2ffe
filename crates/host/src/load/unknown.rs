//! Messages about names that are not here: which module of the reference has them, whether it exists here, what
//! was meant.

use crate::reference::{self, KnownKind};
use crate::registrar::{Module, ModuleDef};
use script::{Diagnostic, Loc, nearest};

/// `loadmodule` of a module that does not exist.
pub(crate) fn module(known: &[ModuleDef], name: &str, loc: Loc) -> Diagnostic {
    if let Some(instead) = reference::replaced(name) {
        return Diagnostic::error(loc, format!("module {name} does not exist in Fermata"))
            .hint(format!("use {instead}"));
    }
    let names: Vec<&str> = known.iter().map(|m| m.name).filter(|n| *n != "core").collect();
    let here = format!("modules here: {}", names.join(", "));
    if reference::is_module(name) {
        return Diagnostic::error(loc, format!("module {name} does not exist in Fermata yet")).hint(here);
    }
    let of_reference = reference::names().iter().filter(|n| n.kind == KnownKind::Module).map(|n| n.module);
    Diagnostic::error(loc, format!("there is no module {name}")).hint(
        match nearest(name, names.iter().copied().chain(of_reference)) {
            Some(near) => format!("did you mean {near}? Modules here: {}", names.join(", ")),
            None => here,
        },
    )
}

/// `loadmodule` of a module that this program was built without.
pub(crate) fn left_out(name: &str, feature: &str, loc: Loc) -> Diagnostic {
    Diagnostic::error(loc, format!("this program was built without module {name}")).hint(format!(
        "build it with the feature `{feature}`, as the default does: cargo build --release -p server --features {feature}"
    ))
}

/// What is known when a name is not found.
pub(crate) struct Unknown<'a> {
    pub known: &'static [ModuleDef],
    pub loaded: &'a [&'static str],
}

impl Unknown<'_> {
    pub(crate) fn function(
        &self,
        modules: &[(&'static str, Box<dyn Module>)],
        name: &str,
        loc: Loc,
    ) -> Diagnostic {
        let shown = format!("{name}()");
        for def in self.known.iter().filter(|def| !self.loaded.contains(&def.name)) {
            if (def.make)().functions().iter().any(|f| f.name == name) {
                return not_loaded(&shown, def.name, loc);
            }
        }
        if let Some(missing) = self.not_built(&shown, KnownKind::Function, name, loc) {
            return missing;
        }
        let names = modules.iter().flat_map(|(_, m)| m.functions()).map(|f| f.name);
        unknown(format!("unknown function {shown}"), nearest(name, names).map(|n| format!("{n}()")), loc)
    }

    /// `core`: the names of the core's variables.
    pub(crate) fn variable(
        &self,
        modules: &[(&'static str, Box<dyn Module>)],
        name: &str,
        core: &[&str],
        loc: Loc,
    ) -> Diagnostic {
        let shown = format!("${name}");
        for def in self.known.iter().filter(|def| !self.loaded.contains(&def.name)) {
            if (def.make)().variable_names().contains(&name) {
                return not_loaded(&shown, def.name, loc);
            }
        }
        if let Some(missing) = self.not_built(&shown, KnownKind::Variable, name, loc) {
            return missing;
        }
        let own = modules.iter().flat_map(|(_, m)| m.variable_names());
        let near = nearest(name, core.iter().copied().chain(own));
        unknown(format!("unknown variable {shown}"), near.map(|n| format!("${n}")), loc)
    }

    /// It is of a module of the reference that does not exist here.
    fn not_built(&self, shown: &str, kind: KnownKind, name: &str, loc: Loc) -> Option<Diagnostic> {
        let owners = reference::owners(kind, name);
        let mut left_out = self.known.iter().filter(|def| owners.contains(&def.name));
        if let Some(def) = left_out.find(|def| (def.make)().left_out().is_some()) {
            let text = format!("{shown} is of module {}, which this program was built without", def.name);
            return Some(Diagnostic::error(loc, text));
        }
        let here = |owner: &&str| self.known.iter().any(|def| def.name == *owner);
        let owner = owners.iter().find(|owner| !here(owner))?;
        // One that is here and has the name in another version only is the better guess.
        if owners.iter().any(here) {
            return None;
        }
        let text = format!("{shown} is of module {owner}, which does not exist in Fermata yet");
        Some(Diagnostic::error(loc, text))
    }
}

fn not_loaded(shown: &str, module: &str, loc: Loc) -> Diagnostic {
    let what = if shown.starts_with('$') { "variable" } else { "function" };
    Diagnostic::error(loc, format!("unknown {what} {shown}"))
        .hint(format!("module {module} has it: loadmodule \"{module}.so\""))
}

fn unknown(message: String, near: Option<String>, loc: Loc) -> Diagnostic {
    let error = Diagnostic::error(loc, message);
    match near {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}
