//! `$TH_callee_callid`, and what the contact of ours that a request came to hides.

use super::alone::Decoded;
use super::{Th, with_dialog};
use bytes::Bytes;
use host::var::VarKind;
use host::{At, Ctx, Registrar, Value, Variable};
use script::Diagnostic;
use script::ast::VarSpec;
use sip::Uri;

pub fn register(m: &mut Registrar<Th>) {
    m.variable("TH_callee_callid", |call| {
        let module = call.module.clone();
        with_dialog::callee_call_id(call.ctx, &module).map_or(Value::Null, Value::Str)
    });
    m.variable("TH_decoded_routes_count", |call| {
        let decoded = call.ctx.state.ext.find::<Decoded>().map_or(0, |d| d.0.len());
        Value::Int(decoded.saturating_sub(1) as i64)
    });
    m.variable_class("TH_decoded_routes", |spec, _, _| {
        Ok(VarKind::Other(Box::new(Hop(Part::of(spec)?, true))))
    });
    m.variable_class("TH_decoded_contact", |spec, _, _| {
        Ok(VarKind::Other(Box::new(Hop(Part::of(spec)?, false))))
    });
}

/// Of a URI.
#[derive(Clone, Copy)]
enum Part {
    /// All of it, in brackets.
    Whole,
    Host,
    Port,
    User,
    Params,
}

impl Part {
    fn of(spec: &VarSpec) -> Result<Part, Diagnostic> {
        Ok(match spec.inner.as_deref().map(<[u8]>::to_ascii_lowercase).as_deref() {
            None => Part::Whole,
            Some(b"host") => Part::Host,
            Some(b"port") => Part::Port,
            Some(b"user") => Part::User,
            Some(b"params") => Part::Params,
            Some(_) => {
                return Err(Diagnostic::error(spec.loc, "this is no part of a URI")
                    .hint("host, port, user and params are"));
            }
        })
    }

    fn read(self, text: &Bytes) -> Value {
        if matches!(self, Part::Whole) {
            return Value::Str(text.clone());
        }
        let inner = text.slice(1..text.len().saturating_sub(1).max(1));
        let Ok(uri) = Uri::parse(&inner) else { return Value::Null };
        let value = match self {
            Part::Whole => return Value::Str(text.clone()),
            Part::Port => return Value::Int(uri.port_or_default().into()),
            Part::Host => uri.host,
            Part::User => uri.user.unwrap_or_default(),
            Part::Params => uri.params.text,
        };
        if value.is_empty() { Value::Null } else { Value::Str(value) }
    }
}

/// A part, of a route or else of the contact.
struct Hop(Part, bool);

impl Variable for Hop {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let Some(decoded) = ctx.state.ext.find::<Decoded>().filter(|d| !d.0.is_empty()) else {
            return Value::Null;
        };
        let routes = decoded.0.len() as i64 - 1;
        let found = match (self.1, at) {
            (false, _) => 0,
            (true, At::None) => 1,
            (true, At::Index(n)) if n < 0 => 1 + routes + i64::from(n),
            (true, At::Index(n)) => 1 + i64::from(n),
            (true, At::All | At::Append) => return Value::Null,
        };
        let text =
            usize::try_from(found).ok().filter(|at| !self.1 || *at > 0).and_then(|at| decoded.0.get(at));
        text.map_or(Value::Null, |text| self.0.read(text))
    }
}
