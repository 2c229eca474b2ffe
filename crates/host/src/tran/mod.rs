//! Transformations `{class.name,params}`: pure functions of a value, prepared at load.

use crate::ctx::Ctx;
use crate::load::Loader;
use script::ast::TranSpec;
use script::{Diagnostic, Value};

type Run = Box<dyn Fn(&mut Ctx, Value) -> Value + Send + Sync>;

/// One prepared transformation.
pub struct Tran(Run);

impl Tran {
    pub fn new(run: impl Fn(&mut Ctx, Value) -> Value + Send + Sync + 'static) -> Tran {
        Tran(Box::new(run))
    }
    pub fn apply(&self, ctx: &mut Ctx, value: Value) -> Value {
        (self.0)(ctx, value)
    }
}

/// Prepares `{class.name,params}`; an unknown one is a diagnostic with the nearest name.
pub fn prepare(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let _ = loader;
    Err(Diagnostic::error(
        spec.loc,
        format!(
            "unknown transformation {{{}.{}}}",
            String::from_utf8_lossy(&spec.class),
            String::from_utf8_lossy(&spec.name)
        ),
    ))
}
