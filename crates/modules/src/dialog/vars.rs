//! The variables `$DLG_...` and `$dlg_val(name)`.

use super::cell::Val;
use super::context::{self, Change};
use super::link::{self, Link};
use super::{Dlg, State, functions, list};
use bytes::Bytes;
use host::load::Loader;
use host::var::VarKind;
use host::{At, Call, Ctx, Format, Registrar, Value, Variable};
use script::Diagnostic;
use script::ast::{AssignOp, VarSpec};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Dlg>) {
    m.variable("DLG_count", |call| {
        Value::Int(if call.module.stats { call.module.counts.active.value() } else { 0 })
    });
    m.variable("DLG_status", |call| read(call.ctx, |d| Value::Int(d.state as i64)));
    m.variable("DLG_lifetime", |call| {
        let now = (call.ctx.core.wall_us / 1_000_000) as u32;
        read(call.ctx, |d| {
            Value::Int(if d.started == 0 { 0 } else { i64::from(now.saturating_sub(d.started)) })
        })
    });
    m.variable("DLG_flags", |call| {
        let module = call.module.clone();
        read(call.ctx, |d| Value::from(module.flag_text(d.user_flags)))
    });
    m.variable("DLG_dir", |call| functions::direction(call.ctx));
    m.variable("DLG_did", |call| read(call.ctx, |d| Value::from(d.did.to_string())));
    m.variable("DLG_end_reason", |call| {
        read(call.ctx, |d| match &d.end_reason {
            Some(reason) if d.state == State::Ended => Value::Str(Bytes::copy_from_slice(reason)),
            _ => Value::Null,
        })
    });
    m.variable("DLG_json", |call| json(call, list::Detail::Json));
    m.variable("DLG_ctx_json", |call| json(call, list::Detail::JsonContext));
    m.variable_class("DLG_timeout", |_, _, module| {
        Ok(VarKind::Other(Box::new(Seconds(Which::Timeout, module.clone()))))
    });
    m.variable_class("DLG_del_delay", |_, _, module| {
        Ok(VarKind::Other(Box::new(Seconds(Which::Delay, module.clone()))))
    });
    m.variable_class("DLG_options_ping_interval", |_, _, module| {
        Ok(VarKind::Other(Box::new(Seconds(Which::Options, module.clone()))))
    });
    m.variable_class("DLG_reinvite_ping_interval", |_, _, module| {
        Ok(VarKind::Other(Box::new(Seconds(Which::Reinvites, module.clone()))))
    });
    m.variable_class("dlg_val", value);
}

fn read(ctx: &mut Ctx, look: impl FnOnce(&super::cell::Data) -> Value) -> Value {
    link::read(ctx, look).unwrap_or(Value::Null)
}

fn json(call: &mut Call<Dlg>, detail: list::Detail) -> Value {
    let module = call.module.clone();
    let shown = list::Shown::new(call.ctx, &module);
    read(call.ctx, |d| Value::from(shown.dialog(d, detail).to_string()))
}

/// A number of seconds that a script reads and sets.
struct Seconds(Which, Arc<Dlg>);

#[derive(Clone, Copy, PartialEq)]
enum Which {
    Timeout,
    Delay,
    Options,
    Reinvites,
}

impl Variable for Seconds {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let now = ctx.core.now;
        let left = |at: transaction::Instant| Value::Int((at.0.saturating_sub(now.0)).div_ceil(1000) as i64);
        let module = &self.1;
        let value = link::read(ctx, |d| match self.0 {
            Which::Timeout => match d.ends {
                Some(at) if d.state.is_answered() => left(at),
                // Its time does not run any more.
                _ if d.state == State::Ended => Value::Int(0),
                _ => Value::Int(i64::from(d.lifetime)),
            },
            Which::Delay => Value::Int(i64::from(d.delay.unwrap_or(module.delete_delay))),
            Which::Options if !d.flags.options() => Value::Null,
            Which::Reinvites if !d.flags.reinvites() => Value::Null,
            Which::Options => d.options.next.map_or(Value::Int(d.options.interval.into()), left),
            Which::Reinvites => d.reinvites.next.map_or(Value::Int(d.reinvites.interval.into()), left),
        });
        let ahead = || {
            let link = ctx.state.ext.find::<Link>()?;
            match self.0 {
                Which::Timeout => link.timeout,
                Which::Options => link.options,
                Which::Reinvites => link.reinvites,
                Which::Delay => None,
            }
        };
        value.unwrap_or_else(|| ahead().map_or(Value::Null, |n| Value::Int(n.into())))
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let Some(seconds) = value.int().and_then(|n| u32::try_from(n).ok()) else { return false };
        if seconds == 0 && self.0 != Which::Delay {
            return false;
        }
        if link::current(ctx).is_none() {
            let link = ctx.state.ext.entry::<Link>();
            match self.0 {
                Which::Timeout => link.timeout = Some(seconds),
                Which::Options => link.options = Some(seconds),
                Which::Reinvites => link.reinvites = Some(seconds),
                Which::Delay => return false,
            }
            return true;
        }
        let pings = link::read(ctx, |d| d.flags).unwrap_or_default();
        let change = match self.0 {
            Which::Timeout => Change::Timeout(seconds),
            Which::Delay => Change::Delay(seconds),
            Which::Options if pings.options() => Change::Options(seconds),
            Which::Reinvites if pings.reinvites() => Change::Reinvites(seconds),
            Which::Options | Which::Reinvites => return false,
        };
        context::change(ctx, &self.1, change)
    }

    fn writable(&self) -> bool {
        true
    }
}

/// `$dlg_val(name)`; the name may be a variable.
struct DlgVal(Format, Arc<Dlg>);

impl Variable for DlgVal {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let name = self.0.text(ctx);
        read(ctx, |d| d.val(&name).map_or(Value::Null, Val::value))
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let name = self.0.text(ctx);
        context::change(ctx, &self.1, Change::Val(name[..].into(), Val::of(&value)))
    }

    fn writable(&self) -> bool {
        true
    }
}

fn value(spec: &VarSpec, loader: &mut Loader, module: &Arc<Dlg>) -> Result<VarKind, Diagnostic> {
    let name = spec.inner.clone().unwrap_or_default();
    if name.is_empty() {
        return Err(Diagnostic::error(spec.loc, "$dlg_val needs a name: $dlg_val(name)"));
    }
    // A lone variable is a name made at run time, anything else is the name.
    let name =
        if name.starts_with(b"$") { Format::new(&name, spec.loc, loader)? } else { Format::Constant(name) };
    Ok(VarKind::Other(Box::new(DlgVal(name, module.clone()))))
}
