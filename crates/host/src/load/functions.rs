//! Which function of which module a call means, and how the compiler asks for what a script names.

use super::modules::Here;
use crate::context::ctx::Sip;
use crate::context::func::Func;
use crate::context::var::Var;
use crate::language::arg::HowCalled;
use crate::language::loader::Loader;
use crate::load::registrar::{FunctionInfo, Module, Since};
use ahash::AHashMap;
use script::ast::{self, Dialect, VarSpec};
use script::{CallSite, Diagnostic, Env, Loc, Probes};

/// Functions by name: index of the module, index in it, and what is known of it.
pub(super) type FunctionTable = AHashMap<&'static str, Vec<(usize, usize, FunctionInfo)>>;

pub(super) type Modules = Vec<(&'static str, Box<dyn Module>)>;

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

impl Loader {
    fn find_function(&mut self, site: &CallSite<'_>) -> Result<Func, Diagnostic> {
        let name = &*String::from_utf8_lossy(site.name);
        let here = self.part::<Here>().clone();
        let modules = &here.modules;
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
        for (at, i, info) in here.functions.get(name).into_iter().flatten() {
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
        self.find_function(site)
    }
    fn word(&mut self, word: &[u8], loc: Loc) -> Result<Var, Diagnostic> {
        self.awaited.clear();
        crate::vars::word::prepare(word, loc, self)
    }
    fn dialect(&self) -> Dialect {
        self.dialect
    }
    fn probes(&self) -> Probes {
        self.probes
    }
}
