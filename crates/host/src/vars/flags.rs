//! Flags: `$mf`, `$bf`, `$sf`, `$msg.flag(name)`.

use crate::ctx::{Ctx, MsgState};
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use bytes::{Bytes, BytesMut};
use script::ast::AssignOp;
use script::{Diagnostic, Value};

/// Script flags of 2.1 (`setsflag`): they end with the script.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScriptFlags(pub u32);

pub fn register(table: &mut VarTable) {
    let reads: [(&str, fn(&mut Ctx) -> Value); 6] = [
        ("mf", |ctx| Value::Str(list(&ctx.core.shared.flag_names.read(), ctx.state.flags))),
        ("bf", |ctx| Value::Str(list(&ctx.core.shared.branch_flag_names.read(), ctx.state.branch_flags))),
        ("sf", |ctx| Value::Str(list(&ctx.core.shared.flag_names.read(), script_flags(&ctx.state)))),
        ("mF", |ctx| hex(ctx.state.flags)),
        ("bF", |ctx| hex(ctx.state.branch_flags)),
        ("sF", |ctx| hex(script_flags(&ctx.state))),
    ];
    for (name, read) in reads {
        table.read(name, read);
    }
    table.class("msg.flag", |spec, loader| {
        let Some(name) = spec.inner.as_deref().map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) else {
            return Err(Diagnostic::error(spec.loc, "$msg.flag needs the name of a flag: $msg.flag(NAT)"));
        };
        Ok(VarKind::Other(Box::new(MessageFlag(loader.flag(name, spec.loc)?))))
    });
}

fn script_flags(state: &MsgState) -> u32 {
    state.ext.find::<ScriptFlags>().copied().unwrap_or_default().0
}

fn hex(flags: u32) -> Value {
    Value::Str(Bytes::from(format!("{flags:08X}")))
}

/// Names of the flags that are set, the one declared last first, with blanks between them.
pub fn list(names: &[Bytes], flags: u32) -> Bytes {
    let mut out = BytesMut::new();
    for (_, name) in names.iter().enumerate().rev().filter(|(bit, _)| flags & (1 << bit) != 0) {
        if !out.is_empty() {
            out.extend_from_slice(b" ");
        }
        out.extend_from_slice(name);
    }
    out.freeze()
}

/// `$msg.flag(name)`: the bit.
struct MessageFlag(u32);

impl Variable for MessageFlag {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        super::boolean(ctx.state.flags & self.0 != 0)
    }
    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        match value.int() {
            Some(0) => ctx.state.flags &= !self.0,
            Some(_) => ctx.state.flags |= self.0,
            None => return false,
        }
        true
    }
    fn writable(&self) -> bool {
        true
    }
}
