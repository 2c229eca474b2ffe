//! Texts with variables that become known only while the server runs: `{s.eval}`, substitutions held in
//! variables, rules of a database. They are prepared once on each worker and kept, within a bound.

use crate::ctx::Ctx;
use crate::format::Format;
use crate::language::loader::Loader;
use crate::subst::{Replacement, Subst};
use crate::var::Var;
use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use script::Loc;
use std::rc::Rc;

/// Prepared texts that one worker keeps; past it the worker starts anew.
const MAX_KEPT: usize = 4096;

/// The loader after loading; only for preparing variables.
pub struct Late(Mutex<Loader>);

impl Late {
    pub fn new(loader: Loader) -> Late {
        Late(Mutex::new(loader))
    }

    /// A copy to prepare other routes with.
    pub(crate) fn copy(&self) -> Loader {
        self.0.lock().clone()
    }

    /// Takes a loader that was made from `copy`; false when something was declared here since.
    pub(crate) fn replace(&self, copy: &Loader, new: Loader) -> bool {
        let mut loader = self.0.lock();
        let unchanged = loader.declared() == copy.declared();
        if unchanged {
            *loader = new;
        }
        unchanged
    }

    pub(crate) fn with<T>(&self, prepare: impl FnOnce(&mut Loader) -> T) -> T {
        let mut loader = self.0.lock();
        let prepared = prepare(&mut loader);
        loader.diagnostics.clear();
        loader.forget_awaited();
        prepared
    }
}

/// What this worker prepared; `None` for texts that cannot be.
#[derive(Default)]
struct Kept {
    formats: AHashMap<Bytes, Option<Rc<Format>>>,
    substs: AHashMap<Bytes, Option<Rc<Subst>>>,
    replacements: AHashMap<Bytes, Option<Rc<Replacement>>>,
    vars: AHashMap<Bytes, Option<Rc<Var>>>,
}

macro_rules! kept {
    ($ctx:ident, $table:ident, $text:ident, $prepare:expr) => {{
        if let Some(found) = $ctx.local::<Kept>().$table.get($text) {
            return found.clone();
        }
        let shared = $ctx.shared().clone();
        let prepared = shared.part::<Late>().with($prepare).map(Rc::new);
        let table = &mut $ctx.local::<Kept>().$table;
        if table.len() >= MAX_KEPT {
            table.clear();
        }
        // The key must not hold on to the whole message it was cut from.
        table.insert(Bytes::copy_from_slice($text), prepared.clone());
        prepared
    }};
}

impl Ctx {
    /// A text with variables; `None` when one of them does not exist or is malformed.
    pub fn late_format(&mut self, text: &Bytes) -> Option<Rc<Format>> {
        kept!(self, formats, text, |loader| Format::new(text, Loc::default(), loader).ok())
    }

    /// `/expression/replacement/flags`
    pub fn late_subst(&mut self, text: &Bytes) -> Option<Rc<Subst>> {
        kept!(self, substs, text, |loader| Subst::new(text, Loc::default(), loader).ok())
    }

    /// What stands between the second and the third delimiter of a substitution.
    pub fn late_replacement(&mut self, text: &Bytes) -> Option<Rc<Replacement>> {
        kept!(self, replacements, text, |loader| Replacement::new(text, Loc::default(), loader).ok())
    }

    /// One variable, `$name(...)`.
    pub fn late_var(&mut self, text: &Bytes) -> Option<Rc<Var>> {
        kept!(self, vars, text, |loader| {
            loader.var(&script::parse_variable(text, Loc::default()).ok()?).ok()
        })
    }
}
