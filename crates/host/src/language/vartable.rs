//! Names of variables and transformations, and how each is prepared.

use super::loader::Loader;
use crate::context::ctx::Ctx;
use crate::context::transform::Tran;
use crate::context::var::{ReadOnly, VarKind, Variable, WaitingVariable};
use ahash::AHashMap;
use script::ast::{self, VarSpec};
use script::{Diagnostic, Value};
use std::sync::Arc;

/// Builds the class of one use of a variable.
pub type ClassBuilder = Arc<dyn Fn(&VarSpec, &mut Loader) -> Result<VarKind, Diagnostic> + Send + Sync>;
/// Builds one use of a transformation.
pub type TranBuilder = fn(&ast::TranSpec, &mut Loader) -> Result<Tran, Diagnostic>;

/// Names of core variables and how each is prepared.
#[derive(Clone)]
pub struct VarTable {
    pub(super) classes: AHashMap<&'static str, ClassBuilder>,
    /// An index may stand behind a variable of this table.
    pub(super) takes_index: fn(&VarSpec) -> bool,
}

impl VarTable {
    /// An empty table; `takes_index` says behind which of its variables an index may stand.
    pub fn new(takes_index: fn(&VarSpec) -> bool) -> VarTable {
        VarTable { classes: AHashMap::new(), takes_index }
    }
    /// A class with a name inside or an index.
    pub fn class(
        &mut self,
        name: &'static str,
        build: impl Fn(&VarSpec, &mut Loader) -> Result<VarKind, Diagnostic> + Send + Sync + 'static,
    ) {
        self.classes.insert(name, Arc::new(build));
    }
    /// A plain read-only variable.
    pub fn read(&mut self, name: &'static str, read: fn(&mut Ctx) -> Value) {
        self.class(name, move |_, _| Ok(VarKind::Other(Box::new(ReadOnly(read)))));
    }
    /// A variable without name inside.
    pub fn simple<V: Variable + Clone + 'static>(&mut self, name: &'static str, variable: V) {
        self.class(name, move |_, _| Ok(VarKind::Other(Box::new(variable.clone()))));
    }
    /// A variable without name inside whose value may have to be waited for.
    pub fn waiting<V: WaitingVariable + Clone + 'static>(&mut self, name: &'static str, variable: V) {
        self.class(name, move |_, _| Ok(VarKind::Waiting(Box::new(variable.clone()))));
    }
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.classes.keys().copied()
    }
}

pub(super) fn no_index(spec: &VarSpec) -> Diagnostic {
    let inner = spec.inner.as_ref().map(|inner| format!("({})", String::from_utf8_lossy(inner)));
    let name = format!("${}{}", String::from_utf8_lossy(&spec.name), inner.unwrap_or_default());
    Diagnostic::error(spec.loc, format!("{name} has one value only, so it takes no index"))
        .hint(format!("write {name}, without the brackets"))
}
