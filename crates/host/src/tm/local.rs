//! What scripts do to a transaction besides relaying: timeouts, armed routes, copies, added branches.

use super::branch::{self, SendError, path_of};
use super::{BranchData, TxnData, drain, failure};
use crate::branches::set_request_branch;
use crate::ctx::{Branch, Ctx, MsgState};
use crate::var::Context;
use bytes::Bytes;
use script::ast::RouteKind;
use script::{RouteId, Task};
use transaction::{Cancelling, TxnId, Verdict};

/// `$T_fr_timeout` and its like, set before the transaction exists; milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timeouts {
    pub fr: Option<u32>,
    pub fr_inv: Option<u32>,
}

/// Gives the transaction of the current message the timeouts that the script set.
pub fn apply_timeouts(ctx: &mut Ctx) {
    let (Some(id), Some(set)) = (ctx.state.txn, ctx.state.ext.find::<Timeouts>().copied()) else { return };
    let (fr, fr_inv) = ctx.core.txns.txns.timeouts(id);
    let now = ctx.core.now;
    ctx.core.txns.txns.set_timeouts(now, id, set.fr.unwrap_or(fr), set.fr_inv.unwrap_or(fr_inv));
}

/// `t_on_failure`, `t_on_reply` after the transaction was made: they take effect at once, except in a
/// branch route, whose reply route is its own.
pub fn arm(ctx: &mut Ctx) -> i32 {
    let Some(id) = ctx.state.txn else { return 1 };
    let (kind, on_reply, on_failure) = (ctx.state.kind, ctx.state.on_reply, ctx.state.on_failure);
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        if kind != RouteKind::Branch && on_reply.is_some() {
            data.on_reply = on_reply;
        }
        if kind != RouteKind::Failure && on_failure.is_some() {
            data.on_failure = on_failure;
        }
    }
    1
}

/// `t_replicate`: the request as it stands goes to `uri` as well; replies end here.
pub fn replicate(ctx: &mut Ctx, uri: &Bytes) -> i32 {
    let mut targets =
        vec![Branch { uri: ctx.state.current_uri(), dst_uri: Some(uri.clone()), ..Branch::default() }];
    targets.append(&mut ctx.state.branches);
    let now = ctx.core.now;
    let mut sent = -1;
    let data = TxnData::of(&ctx.state);
    let msg = ctx.state.msg.clone();
    let source = ctx.state.source;
    let Ok(id) = ctx.core.txns.txns.create_local(now, &msg, source, data) else { return -1 };
    for target in targets {
        let Ok(path) = path_of(ctx, &ctx.state, &target, None) else { continue };
        let data = BranchData::new(target.clone());
        let Ok(number) = ctx.core.txns.txns.open_branch(id, data) else { break };
        let cookie = ctx.core.txns.txns.via_branch(id, number);
        let bytes = branch::print(ctx, &ctx.state, None, &target, &path, &cookie);
        ctx.core.txns.txns.send(now, id, number, bytes, path);
        sent = 1;
    }
    if sent < 0 {
        ctx.core.txns.txns.remove(id);
    }
    drain(ctx);
    sent
}

/// Keeps the transaction open for branches to be injected.
pub fn wait_for_branches(ctx: &mut Ctx, count: u16) -> i32 {
    let Some(id) = ctx.state.txn else { return -1 };
    let now = ctx.core.now;
    let data = BranchData::new(Branch::default());
    if ctx.core.txns.txns.wait_for_branches(now, id, count, data).is_ok() { 1 } else { -1 }
}

/// The R-URI and branches of the current message join its transaction.
pub fn inject(ctx: &mut Ctx, cancel: bool, last: bool) -> i32 {
    let Some(id) = ctx.state.txn else { return -1 };
    let now = ctx.core.now;
    if cancel {
        ctx.core.txns.txns.cancel_branches(now, id, Cancelling::All, Bytes::new());
    }
    let sent = open_injected(ctx, id);
    let verdict = if last {
        ctx.core.txns.txns.wait_no_more(now, id)
    } else {
        ctx.core.txns.txns.branch_injected(now, id)
    };
    failure::on_verdict(ctx, id, verdict);
    match sent {
        Ok(()) => 1,
        Err(error) => error.code(),
    }
}

/// These branches join a transaction, whose request nobody holds now. -1: it is gone, or there are none.
pub fn inject_into(
    ctx: &mut Ctx,
    txn: TxnId,
    branches: impl IntoIterator<Item = Branch>,
    cancel: bool,
    last: bool,
) -> i32 {
    let mut branches = branches.into_iter();
    let (Some(first), Some(mut state)) = (branches.next(), request_of(ctx, txn)) else { return -1 };
    set_request_branch(&mut state, first);
    state.branches = branches.collect();
    ctx.with_state(state, |ctx| inject(ctx, cancel, last)).1
}

/// The request of a transaction that still exists.
fn request_of(ctx: &mut Ctx, txn: TxnId) -> Option<Box<MsgState>> {
    ctx.core.txns.txns.get(txn)?;
    let outer = ctx.state.txn.replace(txn);
    let state = super::other_message(ctx, Context::Request);
    ctx.state.txn = outer;
    state.map(|mut state| {
        state.txn = Some(txn);
        state
    })
}

/// In a reply route the branches that the script appended are meant, with the request as it was relayed.
fn open_injected(ctx: &mut Ctx, id: transaction::TxnId) -> Result<(), SendError> {
    let how = super::Relay::default();
    if ctx.state.msg.is_request() {
        return super::relay::open_branches(ctx, id, &how);
    }
    let targets = std::mem::take(&mut ctx.state.branches);
    let saved = ctx.core.txns.txns.get(id).and_then(|data| data.saved.as_ref());
    let Some(saved) = saved.filter(|_| !targets.is_empty()) else { return Err(SendError::Dropped) };
    let request = saved.fork(RouteKind::Request, Task::new(ctx.core.shared.program(), RouteId(0)));
    ctx.with_state(request, |ctx| super::relay::open_targets(ctx, id, &how, targets)).1
}

/// Used by modules that end waiting themselves.
pub fn on_verdict(ctx: &mut Ctx, id: TxnId, verdict: Verdict) {
    failure::on_verdict(ctx, id, verdict);
}
