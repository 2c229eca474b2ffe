//! The name inside a variable: `$avp(x)`, `$hdr($var(name))`.

use crate::ctx::Ctx;
use crate::format::Format;
use crate::language::loader::Loader;
use bytes::Bytes;
use script::Diagnostic;
use script::ast::VarSpec;

/// A name that is written, or made when the variable is used.
#[derive(Debug)]
pub enum Name {
    Fixed(Bytes),
    Dynamic(Format),
}

impl Name {
    /// The name inside; `example` is shown when there is none.
    pub fn new(spec: &VarSpec, loader: &mut Loader, example: &str) -> Result<Name, Diagnostic> {
        let inner = spec.inner.as_ref().map(|inner| inner.slice_ref(inner.trim_ascii()));
        let Some(inner) = inner.filter(|inner| !inner.is_empty()) else {
            let name = String::from_utf8_lossy(&spec.name);
            return Err(Diagnostic::error(spec.loc, format!("${name} needs a name inside: {example}")));
        };
        Name::of(&inner, spec, loader)
    }

    /// The name inside, when there is one.
    pub fn optional(spec: &VarSpec, loader: &mut Loader) -> Result<Option<Name>, Diagnostic> {
        let inner = spec.inner.as_ref().map(|inner| inner.slice_ref(inner.trim_ascii()));
        inner.filter(|inner| !inner.is_empty()).map(|inner| Name::of(&inner, spec, loader)).transpose()
    }

    fn of(inner: &Bytes, spec: &VarSpec, loader: &mut Loader) -> Result<Name, Diagnostic> {
        if !inner.contains(&b'$') {
            return Ok(Name::Fixed(inner.clone()));
        }
        Ok(match Format::new(inner, spec.loc, loader)? {
            Format::Constant(text) => Name::Fixed(text),
            dynamic => Name::Dynamic(dynamic),
        })
    }

    /// The name now; `None` when it is a variable that is NULL.
    pub fn text(&self, ctx: &mut Ctx) -> Option<Bytes> {
        match self {
            Name::Fixed(text) => Some(text.clone()),
            Name::Dynamic(format) => format.value(ctx).text(),
        }
    }

    /// The name as a number now.
    pub fn number(&self, ctx: &mut Ctx) -> Option<i64> {
        match self {
            Name::Fixed(text) => crate::arg::parse_int(text),
            Name::Dynamic(format) => {
                let value = format.value(ctx);
                value.int().or_else(|| crate::arg::parse_int(&value.text()?))
            }
        }
    }
}
