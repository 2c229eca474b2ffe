//! CANCEL (RFC 3261 §9.2): answered at once, sent on to branches that have rung.

use super::answer::send_made;
use super::watch::show_request;
use super::{Activity, create, drain, failure, ua};
use crate::ctx::{Ctx, MsgState};
use crate::watch::{Moment, Seen};
use script::ast::RouteKind;
use script::{RouteId, Task};
use sip::Message;
use std::rc::Rc;
use transaction::{ORIGINATOR, Path, Relation, TxnId, Verdict};

/// A message as the start of a script's state.
pub(super) fn plain_state(ctx: &Ctx, msg: &Rc<Message>, source: Path) -> Box<MsgState> {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    MsgState::new(msg.clone(), source, ctx.core.now, RouteKind::Request, task)
}

/// The caller gives up while the script of its INVITE waits: 200 to the CANCEL, 487 to the INVITE,
/// the operation is dropped and the script does not go on.
pub(super) fn waiting(ctx: &mut Ctx, msg: &Rc<Message>, source: Path, invite: TxnId) {
    let mut state = plain_state(ctx, msg, source);
    answer(ctx, &mut state, invite);
    stop(ctx, invite);
}

/// `t_relay` of a CANCEL. `None`: there is no INVITE for it.
pub fn cancel(ctx: &mut Ctx) -> Option<i32> {
    let msg = ctx.state.msg.clone();
    if let Some(own) = ctx.state.txn {
        let id = ctx.core.txns.txns.find_cancelled(&msg)?;
        let tag = super::to_tag(ctx, id);
        let bytes = crate::reply::build(ctx, &ctx.state, 200, b"canceling", Some(&tag));
        send_made(ctx, own, 200, bytes);
        stop(ctx, id);
        return Some(1);
    }
    let (id, relation) = ctx.core.txns.txns.find(&msg)?;
    if relation == Relation::Retransmission {
        ctx.core.txns.txns.retransmission(id);
        drain(ctx);
        return Some(0);
    }
    let source = ctx.state.source;
    let mut state = plain_state(ctx, &msg, source);
    state.reply_headers = ctx.state.reply_headers.clone();
    answer(ctx, &mut state, id);
    ctx.state.txn = state.txn;
    stop(ctx, id);
    Some(1)
}

/// 200 to the CANCEL, in a transaction of its own, with the tag of the INVITE's replies.
fn answer(ctx: &mut Ctx, state: &mut Box<MsgState>, invite: TxnId) {
    let tag = super::to_tag(ctx, invite);
    if let Some(id) = create(ctx, state) {
        let bytes = crate::reply::build(ctx, state, 200, b"canceling", Some(&tag));
        send_made(ctx, id, 200, bytes);
    }
}

/// Ends an INVITE: drops what its script waits for, cancels branches; with none open, 487 at once.
pub fn stop(ctx: &mut Ctx, invite: TxnId) {
    keep_suspended(ctx, invite);
    ctx.drop_requests_of(invite);
    // A failure route that waits, or whose watchers do, is dropped with the rest.
    if let Some(data) = ctx.core.txns.txns.get_mut(invite)
        && std::mem::replace(&mut data.activity, Activity::Idle) == Activity::FailureRoute
    {
        data.on_failure = None;
    }
    let seen = Seen::of(Some(invite));
    let _ = ctx.guarded(invite, |ctx| {
        show_request(ctx, Moment::Cancelled, invite, seen, move |ctx| cancel_branches(ctx, invite));
    });
}

fn cancel_branches(ctx: &mut Ctx, invite: TxnId) {
    let now = ctx.core.now;
    let waits = ctx.core.txns.txns.is_open(invite);
    let headers = ctx.core.txns.txns.get(invite).map(|d| d.cancel_headers.clone());
    let headers = headers.filter(|h| !h.is_empty()).unwrap_or(ORIGINATOR);
    let verdict = ctx.core.txns.txns.cancel(now, invite, headers);
    drain(ctx);
    let armed = ctx.core.txns.txns.get(invite).is_some_and(|data| data.on_failure.is_some());
    match verdict {
        // Nothing is open downstream that could still answer.
        Verdict::Failed { .. } if !armed => {
            super::reply(ctx, invite, 487, b"Request Terminated");
        }
        verdict => failure::on_verdict(ctx, invite, verdict),
    }
    if waits {
        ua::cancelled(ctx, invite);
    }
}

/// What a waiting script had done to its request stays visible to observers of the transaction.
fn keep_suspended(ctx: &mut Ctx, invite: TxnId) {
    if ctx.core.txns.txns.get(invite).is_none_or(|data| data.saved.is_some()) {
        return;
    }
    let tasks = ctx.core.tasks_of.get(&invite).cloned().unwrap_or_default();
    let waiting = tasks.iter().find_map(|id| ctx.core.tasks.get(id.index as usize)?.state.as_ref());
    let Some(waiting) = waiting.filter(|state| state.msg.is_request()) else { return };
    let mut kept = waiting.fork(waiting.kind, Task::new(ctx.core.shared.program(), RouteId(0)));
    kept.reply_headers.clear();
    kept.reply_body = None;
    kept.branches.clear();
    if let Some(data) = ctx.core.txns.txns.get_mut(invite) {
        data.saved = Some(kept);
    }
}

/// The Reason headers of the current CANCEL go into the CANCELs it causes.
pub(super) fn keep_reason(ctx: &mut Ctx) {
    let msg = ctx.state.msg.clone();
    let Some(id) = ctx.core.txns.txns.find_cancelled(&msg) else { return };
    let lines: Vec<&[u8]> = msg.headers_of(sip::HeaderName::Reason).map(|h| msg.bytes(h.whole())).collect();
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.cancel_headers = lines.concat().into();
    }
}

/// `Request-Disposition: no-cancel` (RFC 3841 §9.1).
pub(super) fn asks_no_cancel(msg: &Message) -> bool {
    msg.headers_of(sip::HeaderName::RequestDisposition).any(|h| {
        msg.bytes(h.value()).split(|b| *b == b',').any(|w| w.trim_ascii().eq_ignore_ascii_case(b"no-cancel"))
    })
}
