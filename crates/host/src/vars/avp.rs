//! `$avp(name)` and `$var(name)`.

use crate::avp::AvpName;
use crate::ctx::Ctx;
use crate::load::VarTable;
use crate::var::{At, Kind};
use bytes::{Bytes, BytesMut};
use script::ast::AssignOp;
use script::{Diagnostic, Value};

pub fn register(table: &mut VarTable) {
    table.class("var", |spec, loader| {
        let Some(name) = &spec.inner else {
            return Err(Diagnostic::error(spec.loc, "$var needs a name: $var(name)"));
        };
        Ok(Kind::Local(loader.local(name)))
    });
    table.class("avp", |spec, loader| {
        let Some(name) = &spec.inner else {
            return Err(Diagnostic::error(spec.loc, "$avp needs a name: $avp(name)"));
        };
        let _ = loader;
        Ok(Kind::Avp(AvpName::new(name)))
    });
}

/// Reads by index: none is the newest, `[*]` joins all.
pub fn read(ctx: &mut Ctx, name: AvpName, at: At) -> Value {
    let avps = ctx.state.avps.borrow();
    match at {
        At::None => avps.first(name).cloned().unwrap_or_default(),
        At::Index(n) => avps.at(name, n).cloned().unwrap_or_default(),
        At::Append => Value::Null,
        At::All => {
            let mut out = BytesMut::new();
            for (i, value) in avps.values(name).enumerate() {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                out.extend_from_slice(&value.to_text());
            }
            if out.is_empty() { Value::Null } else { Value::Str(Bytes::from(out)) }
        }
    }
}

/// `=` adds, with an index it replaces; NULL removes one (`:=` or `[*]`: all).
pub fn assign(ctx: &mut Ctx, name: AvpName, at: At, op: AssignOp, value: Value) -> bool {
    let mut avps = ctx.state.avps.borrow_mut();
    match (at, value.is_null()) {
        (At::All, true) => {
            avps.remove_all(name);
        }
        (At::Append, true) => return false,
        (At::Append, false) => avps.add_last(name, value),
        (At::Index(n), true) => {
            avps.remove(name, n);
        }
        (At::None, true) => {
            if op == AssignOp::SetOver {
                avps.remove_all(name);
            } else {
                avps.remove(name, 0);
            }
        }
        (At::All, false) => {
            avps.remove_all(name);
            avps.add(name, value);
        }
        (At::Index(n), false) => return avps.replace(name, n, value),
        (At::None, false) => {
            if op == AssignOp::SetOver {
                avps.remove_all(name);
            }
            avps.add(name, value);
        }
    }
    true
}
