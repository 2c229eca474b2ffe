//! Variables of tm: timeouts and branches of the current transaction.

use super::Tm;
use host::var::{At, Kind, Variable};
use host::{Call, Ctx, Registrar, Value};
use script::ast::AssignOp;

pub fn register(m: &mut Registrar<Tm>) {
    m.variable("T_branch_idx", |call: &mut Call<Tm>| Value::Int(i64::from(call.ctx.state.txn_branch.unwrap_or(0))));
    m.variable("T_ruri", |call: &mut Call<Tm>| match target(call.ctx) {
        Some(uri) => Value::Str(uri),
        None => Value::Null,
    });
    m.variable("T_id", |call: &mut Call<Tm>| match call.ctx.state.txn {
        Some(id) => Value::from(format!("{}.{}", id.index, id.generation)),
        None => Value::Null,
    });
    m.variable_class("T_fr_timeout", |_, _, _| Ok(Kind::Other(Box::new(Timeout(Which::Fr)))));
    m.variable_class("T_fr_inv_timeout", |_, _, _| Ok(Kind::Other(Box::new(Timeout(Which::FrInv)))));
}

fn target(ctx: &Ctx) -> Option<bytes::Bytes> {
    let (id, branch) = (ctx.state.txn?, ctx.state.txn_branch?);
    ctx.core.txns.txns.branch(id, branch).map(|b| b.data.target.uri.clone())
}

#[derive(Clone, Copy)]
enum Which {
    Fr,
    FrInv,
}

/// `$T_fr_timeout`, `$T_fr_inv_timeout`: seconds, of this transaction.
struct Timeout(Which);

impl Variable for Timeout {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let (fr, fr_inv) = match ctx.state.txn {
            Some(id) => ctx.core.txns.txns.timeouts(id),
            None => {
                let set = ctx.state.ext.find::<host::tm::Timeouts>().copied().unwrap_or_default();
                let config = ctx.core.txns.txns.config();
                (set.fr.unwrap_or(config.fr), set.fr_inv.unwrap_or(config.fr_inv))
            }
        };
        let ms = match self.0 {
            Which::Fr => fr,
            Which::FrInv => fr_inv,
        };
        Value::Int(i64::from(ms / 1000))
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let number = value.int().or_else(|| host::arg::parse_int(&value.text()?));
        let Some(ms) = number.and_then(|n| u32::try_from(n).ok()).and_then(|n| n.checked_mul(1000)) else { return false };
        let set = ctx.state.ext.entry::<host::tm::Timeouts>();
        match self.0 {
            Which::Fr => set.fr = Some(ms),
            Which::FrInv => set.fr_inv = Some(ms),
        }
        host::tm::apply_timeouts(ctx);
        true
    }

    fn writable(&self) -> bool {
        true
    }
}
