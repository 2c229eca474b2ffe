//! `$avp(name)` and `$var(name)`.

use super::name::Name;
use crate::arg::Arg;
use crate::avp::AvpName;
use crate::call::Call;
pub use crate::context::avp::{assign, change, read};
use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use script::ast::{self, ArgKind, AssignOp, VarSpec};
use script::{Diagnostic, Loc, Value};
use std::sync::Arc;

pub fn register(table: &mut VarTable) {
    table.class("var", |spec, loader| {
        let Some(name) = spec.inner.as_ref().filter(|name| !name.is_empty()) else {
            return Err(Diagnostic::error(spec.loc, "$var needs a name: $var(name)"));
        };
        Ok(VarKind::Local(loader.local(name)))
    });
    table.class("avp", |spec, loader| {
        Ok(match Name::new(spec, loader, "$avp(name)")? {
            Name::Fixed(name) => VarKind::Avp(AvpName::new(&name)),
            dynamic => VarKind::Other(Box::new(Dynamic(dynamic))),
        })
    });
}

/// An AVP that a function is given by its name; an index behind it does not count.
#[derive(Debug)]
pub struct AvpRef(Name);

impl AvpRef {
    /// `None`: the variable is no AVP.
    pub fn new(spec: &VarSpec, loader: &mut Loader) -> Result<Option<AvpRef>, Diagnostic> {
        // A variable with transformations is a value, not an AVP.
        if &spec.name[..] != b"avp" || !spec.transformations.is_empty() {
            return Ok(None);
        }
        Name::new(spec, loader, "$avp(name)").map(|name| Some(AvpRef(name)))
    }

    /// The name now; `None` when it is a variable that is NULL.
    pub fn name(&self, ctx: &mut Ctx) -> Option<AvpName> {
        match &self.0 {
            Name::Fixed(name) => Some(AvpName::new(name)),
            dynamic => dynamic.text(ctx).map(|name| AvpName::new(&name)),
        }
    }
}

/// An argument that is one AVP: its name when the function is called. Written as a variable or as a text
/// ("$avp(x)").
impl<M> Arg<M> for AvpName {
    type Prepared = AvpRef;
    const WHAT: &'static str = "an AVP";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        _: &Arc<M>,
    ) -> Result<AvpRef, Diagnostic> {
        let arg = arg.ok_or_else(|| Diagnostic::error(site, "a parameter is missing here: an AVP"))?;
        let found = match &arg.kind {
            ArgKind::Var(spec) => AvpRef::new(spec, loader)?,
            ArgKind::Text(text) | ArgKind::Word(text) => {
                AvpRef::new(&script::parse_variable(text, arg.loc)?, loader)?
            }
            _ => None,
        };
        found.ok_or_else(|| Diagnostic::error(arg.loc, "this must be an AVP").hint("as in $avp(name)"))
    }

    fn eval(avp: &AvpRef, call: &mut Call<'_, M>) -> Result<AvpName, i32> {
        avp.name(call.ctx).ok_or(-1)
    }
}

/// `$avp($var(x))`: the name is the value of another variable.
struct Dynamic(Name);

impl Variable for Dynamic {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        match self.0.text(ctx) {
            Some(name) => read(ctx, AvpName::new(&name), at),
            None => Value::Null,
        }
    }
    fn set(&self, ctx: &mut Ctx, at: At, op: AssignOp, value: Value) -> bool {
        self.0.text(ctx).is_some_and(|name| assign(ctx, AvpName::new(&name), at, op, value))
    }
    fn writable(&self) -> bool {
        true
    }
}
