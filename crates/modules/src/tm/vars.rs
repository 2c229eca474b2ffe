//! Variables of tm: the transaction of a message and its branches.

use super::Tm;
use host::avp::{AvpName, Avps};
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::vars::{flags, position, socket, text_or_null};
use host::{Call, Ctx, Registrar, Value, branches};
use script::Diagnostic;
use script::ast::{AssignOp, Dialect, RouteKind, VarSpec};
use transaction::BranchView;

pub fn register(m: &mut Registrar<Tm>) {
    m.variable("T_branch_idx", |call: &mut Call<Tm>| {
        let failing = call.ctx.state.kind == RouteKind::Failure;
        match call.ctx.state.kind {
            // Not in failure routes of 2.1.
            RouteKind::Failure if call.ctx.core.shared.dialect == Dialect::V21 => Value::Null,
            RouteKind::Branch | RouteKind::OnReply | RouteKind::Failure => {
                let current = if failing { current(call.ctx) } else { call.ctx.state.txn_branch };
                Value::Int(i64::from(current.unwrap_or(0)))
            }
            _ => Value::Null,
        }
    });
    m.variable("T_reply_code", |call: &mut Call<Tm>| Value::Int(i64::from(reply_code(call.ctx))));
    m.variable("T_ruri", |call: &mut Call<Tm>| match target_uri(call.ctx) {
        Some(uri) => Value::Str(uri),
        None if call.ctx.state.msg.is_request() && call.ctx.state.txn.is_none() => {
            Value::Str(call.ctx.state.current_uri())
        }
        None => Value::Null,
    });
    m.variable("T_id", |call: &mut Call<Tm>| match call.ctx.state.txn {
        Some(id) => Value::from(super::id_text(id)),
        None => Value::Null,
    });
    m.variable_class("T_fr_timeout", |_, _, _| Ok(VarKind::Other(Box::new(Timeout(Which::Fr)))));
    m.variable_class("T_fr_inv_timeout", |_, _, _| Ok(VarKind::Other(Box::new(Timeout(Which::FrInv)))));
    m.variable_class("T_branch_last_reply_code", |spec, loader, _| {
        Ok(VarKind::Other(Box::new(LastReply(Name::optional(spec, loader)?))))
    });
    m.variable_class("bavp", |spec, loader, _| {
        Ok(VarKind::Other(Box::new(BranchAvp(Name::new(spec, loader, "$bavp(name)")?))))
    });
    for (name, read) in FIELDS {
        m.variable_class(name, move |_, _, _| Ok(VarKind::Other(Box::new(Field { name, read }))));
    }
    m.variable_class("tm.branch.flag", |spec, loader, _| {
        let name = spec.inner.as_deref().map(<[u8]>::trim_ascii).filter(|inner| !inner.is_empty());
        match name {
            Some(name) => Ok(VarKind::Other(Box::new(Flag(loader.branch_flag(name, spec.loc)?)))),
            None => Err(needs_name(spec, "a flag")),
        }
    });
    m.variable_class("tm.branch.attr", |spec, loader, _| {
        Ok(VarKind::Other(Box::new(Attribute(Name::new(spec, loader, "$tm.branch.attr(name)")?))))
    });
}

fn needs_name(spec: &VarSpec, what: &str) -> Diagnostic {
    let name = String::from_utf8_lossy(&spec.name);
    Diagnostic::error(spec.loc, format!("${name} needs the name of {what}"))
}

/// The branch that variables without an index mean: that of the message, in a failure route the one that was heard of
/// last, in routes of no branch the first. `None` in the global reply route, which knows of no transaction.
fn current(ctx: &Ctx) -> Option<u16> {
    let txn = ctx.txn(ctx.state.txn?);
    match ctx.state.kind {
        RouteKind::Failure => {
            let winner = ctx.state.txn_branch;
            // A branch that nobody answered ended by its timer, after all that was heard.
            let silent = winner.and_then(|w| txn.branch(w)).is_some_and(|b| b.received == 0);
            let heard = txn.data().and_then(|data| data.last_heard).filter(|_| !silent);
            heard.or(winner)
        }
        RouteKind::OnReply => ctx.state.txn_branch,
        _ => ctx.state.txn_branch.or_else(|| txn.branch(0).map(|_| 0)),
    }
}

/// In a branch route: the branch that is being made, which is not counted yet.
fn being_made(ctx: &Ctx) -> Option<u16> {
    ctx.state.txn_branch.filter(|_| ctx.state.kind == RouteKind::Branch)
}

/// Status of the reply at hand: the one that is worked on, the best one of a failure, or the one sent last.
pub(super) fn reply_code(ctx: &Ctx) -> u16 {
    if !ctx.state.msg.is_request() {
        let known = ctx.state.txn_branch.is_some();
        return if known { host::tm::status_of(&ctx.state).0 } else { 0 };
    }
    let Some(id) = ctx.state.txn.filter(|_| ctx.state.kind != RouteKind::Branch) else { return 0 };
    let txn = ctx.txn(id);
    match ctx.state.txn_branch {
        Some(branch) if ctx.state.kind == RouteKind::Failure => txn.branch(branch).map_or(0, |b| b.status),
        None if ctx.state.kind == RouteKind::Failure => txn.data().map_or(0, |data| data.seen_status),
        _ => txn.status(),
    }
}

fn target_uri(ctx: &Ctx) -> Option<bytes::Bytes> {
    let (id, branch) = (ctx.state.txn?, current(ctx)?);
    if being_made(ctx).is_some() {
        return None;
    }
    ctx.txn(id).branch(branch).map(|b| b.data.target.uri.clone())
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
            Some(id) => ctx.txn(id).timeouts(),
            None => {
                let set = ctx.state.ext.find::<host::tm::Timeouts>().copied().unwrap_or_default();
                let config = ctx.txn_config();
                (set.fr.unwrap_or(config.fr), set.fr_inv.unwrap_or(config.fr_inv))
            }
        };
        let ms = match self.0 {
            Which::Fr => fr,
            Which::FrInv => fr_inv,
        };
        let seconds = i64::from(ms / 1000);
        Value::Both(seconds.to_string().into(), seconds)
    }

    /// NULL: the module's parameter again.
    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let config = ctx.txn_config();
        let default = match self.0 {
            Which::Fr => config.fr,
            Which::FrInv => config.fr_inv,
        };
        let ms = if value.is_null() {
            Some(default)
        } else {
            let number = value.int().or_else(|| host::arg::parse_int(&value.text()?));
            number.and_then(|n| u32::try_from(n).ok()).and_then(|n| n.checked_mul(1000))
        };
        let Some(ms) = ms else { return false };
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

/// `$T_branch_last_reply_code`, `$T_branch_last_reply_code(n)`
struct LastReply(Option<Name>);

impl Variable for LastReply {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let branch = match (&self.0, at) {
            (Some(name), _) => name.number(ctx).and_then(|n| usize::try_from(n).ok()),
            // Any number will do: a branch that is not there has heard nothing.
            (None, At::Index(n)) if n >= 0 => usize::try_from(n).ok(),
            (None, at) => branch_at(ctx, at),
        };
        let (Some(id), Some(branch)) = (ctx.state.txn, branch) else { return Value::Null };
        if ctx.state.kind == RouteKind::OnReply && ctx.state.txn_branch.is_none() {
            return Value::Null;
        }
        let view = ctx.txn(id).branches().nth(branch);
        Value::Int(view.map_or(0, |view| i64::from(heard(ctx, &view))))
    }
}

/// Status of the last reply. The one at hand counts when its routes are through.
fn heard(ctx: &Ctx, view: &View) -> u16 {
    let here = ctx.state.kind == RouteKind::OnReply && is_current(ctx, view);
    if here { view.before } else { view.received }
}

/// The branch that an index means: none is the current one, a negative one counts from the end.
fn branch_at(ctx: &Ctx, at: At) -> Option<usize> {
    let current = current(ctx)?;
    match at {
        At::None => Some(usize::from(current)),
        At::Index(n) => {
            let made = ctx.txn(ctx.state.txn?).branches().count();
            position(being_made(ctx).map_or(made, usize::from), n)
        }
        At::All | At::Append => None,
    }
}

type View<'a> = BranchView<'a, host::tm::BranchData>;

/// `$tm.branch.…`, read-only.
struct Field {
    name: &'static str,
    read: fn(&Ctx, &View) -> Value,
}

const FIELDS: [(&str, fn(&Ctx, &View) -> Value); 8] = [
    ("tm.branch.uri", |_, b| text_or_null(b.data.target.uri.clone())),
    ("tm.branch.duri", |_, b| b.data.target.dst_uri.clone().map_or(Value::Null, Value::Str)),
    ("tm.branch.path", |_, b| b.data.target.path.clone().map_or(Value::Null, Value::Str)),
    ("tm.branch.q", |_, b| Value::Str(branches::q_text(b.data.target.q))),
    ("tm.branch.flags", |ctx, b| {
        Value::Str(flags::list(&ctx.core.shared.branch_flag_names.read(), b.data.target.flags))
    }),
    ("tm.branch.socket", |ctx, b| {
        let socket = b.path.and_then(|path| ctx.core.shared.sockets.get(usize::from(path.socket)));
        socket.map_or(Value::Null, |s| Value::Str(socket::describe(s)))
    }),
    ("tm.branch.last_received", |ctx, b| match heard(ctx, b) {
        0 => Value::Null,
        status => Value::Int(i64::from(status)),
    }),
    ("tm.branch.type", |_, b| {
        let waits = b.is_waiting || (b.path.is_none() && b.data.target.uri.is_empty());
        Value::from(if waits { "phony" } else { "sip" })
    }),
];

fn is_current(ctx: &Ctx, view: &View) -> bool {
    let current = ctx.state.txn.zip(ctx.state.txn_branch);
    let current = current.and_then(|(id, branch)| ctx.txn(id).branch(branch));
    current.is_some_and(|current| std::ptr::eq(current.data, view.data))
}

impl Variable for Field {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let (Some(id), Some(branch)) = (ctx.state.txn, branch_at(ctx, at)) else { return Value::Null };
        // Nothing of the branch that is being made is known yet.
        if being_made(ctx).map(usize::from) == Some(branch) {
            return match self.name {
                "tm.branch.uri" | "tm.branch.flags" => Value::Str(bytes::Bytes::new()),
                "tm.branch.q" => Value::from("0"),
                "tm.branch.type" => Value::from("sip"),
                _ => Value::Null,
            };
        }
        ctx.txn(id).branch(branch as u16).map_or(Value::Null, |view| (self.read)(ctx, &view))
    }
}

/// Flags and attributes of branches can be changed where there is one.
fn writable(ctx: &Ctx) -> bool {
    matches!(ctx.state.kind, RouteKind::Branch | RouteKind::OnReply | RouteKind::Failure)
}

/// `$tm.branch.flag(name)`: the bit.
struct Flag(u32);

impl Variable for Flag {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let (Some(id), Some(branch)) = (ctx.state.txn, branch_at(ctx, at)) else { return Value::Null };
        // The flags of a branch that is being made are still those of its message.
        if being_made(ctx).map(usize::from) == Some(branch) {
            return host::vars::boolean(false);
        }
        match ctx.txn(id).branch(branch as u16) {
            Some(view) => host::vars::boolean(view.data.target.flags & self.0 != 0),
            None => Value::Null,
        }
    }

    fn set(&self, ctx: &mut Ctx, at: At, _: AssignOp, value: Value) -> bool {
        let (Some(id), Some(branch), Some(on)) = (ctx.state.txn, branch_at(ctx, at), value.int()) else {
            return false;
        };
        if !writable(ctx) {
            return false;
        }
        let change = |flags: &mut u32| if on != 0 { *flags |= self.0 } else { *flags &= !self.0 };
        if being_made(ctx).map(usize::from) == Some(branch) {
            change(&mut ctx.state.branch_flags);
            return true;
        }
        match ctx.txn_mut(id).branch_data(branch as u16) {
            Some(data) => {
                change(&mut data.target.flags);
                true
            }
            None => false,
        }
    }

    fn writable(&self) -> bool {
        true
    }
}

/// `$tm.branch.attr(name)`: what a script keeps with a branch.
struct Attribute(Name);

/// Attributes of one branch; further ones are refused.
const MAX_ATTRIBUTES: usize = 64;

impl Variable for Attribute {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        let (Some(id), Some(branch)) = (ctx.state.txn, branch_at(ctx, at)) else { return Value::Null };
        let view = ctx.txn(id).branch(branch as u16);
        let found = view.and_then(|b| b.data.target.values.iter().find(|(n, _)| *n == name));
        found.map_or(Value::Null, |(_, value)| value.clone())
    }

    fn set(&self, ctx: &mut Ctx, at: At, _: AssignOp, value: Value) -> bool {
        let Some(name) = self.0.text(ctx) else { return false };
        let (Some(id), Some(branch)) = (ctx.state.txn, branch_at(ctx, at)) else { return false };
        if !writable(ctx) {
            return false;
        }
        let Some(data) = ctx.txn_mut(id).branch_data(branch as u16) else { return false };
        let values = &mut data.target.values;
        values.retain(|(n, _)| *n != name);
        let room = values.len() < MAX_ATTRIBUTES;
        if !value.is_null() && room {
            values.push((name, value.plain()));
        }
        room
    }

    fn writable(&self) -> bool {
        true
    }
}

/// `$bavp(name)`: an AVP of the current branch.
struct BranchAvp(Name);

impl BranchAvp {
    fn list<'a>(&self, ctx: &'a mut Ctx) -> Option<(AvpName, &'a mut Avps)> {
        let name = AvpName::new(&self.0.text(ctx)?);
        let (id, branch) = (ctx.state.txn?, current(ctx)?);
        Some((name, &mut ctx.txn_mut(id).branch_data(branch)?.avps))
    }
}

impl Variable for BranchAvp {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let Some((name, avps)) = self.list(ctx) else { return Value::Null };
        match at {
            At::None => avps.first(name).cloned().unwrap_or_default(),
            At::Index(n) => avps.at(name, n).cloned().unwrap_or_default(),
            At::Append => Value::Null,
            At::All => host::vars::join(avps.values(name).cloned()),
        }
    }

    fn set(&self, ctx: &mut Ctx, at: At, op: AssignOp, value: Value) -> bool {
        let Some((name, avps)) = self.list(ctx) else { return false };
        host::vars::avp::change(avps, name, at, op, value)
    }

    fn writable(&self) -> bool {
        true
    }
}
