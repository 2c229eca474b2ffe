//! When all branches have failed: failure routes, then the best reply upstream.

use super::answer::relay_reply;
use super::watch::show_request;
use super::{Activity, Answer, drain, ua};
use crate::branches::request_branch;
use crate::ctx::{After, Ctx, MsgState};
use crate::watch::{Moment, Seen};
use bytes::Bytes;
use script::ast::{Dialect, RouteKind};
use script::{RouteId, Task};
use sip::Method;
use transaction::{TxnId, Verdict};

/// Acts on what a reply or a timeout meant for its transaction.
pub(super) fn on_verdict(ctx: &mut Ctx, id: TxnId, verdict: Verdict) {
    drain(ctx);
    if let Verdict::Failed { winner } = verdict {
        all_failed(ctx, id, winner);
    }
}

/// Runs the failure route when there is one, else answers.
fn all_failed(ctx: &mut Ctx, id: TxnId, winner: Option<u16>) {
    let status = winner.and_then(|w| ctx.core.txns.txns.branch(id, w)).map_or(0, |b| b.status);
    let Some(data) = ctx.core.txns.txns.get_mut(id) else { return };
    // A failure route that is running decides itself when it ends.
    if data.activity != Activity::Idle {
        return;
    }
    data.seen_status = status;
    if winner.is_some_and(|winner| super::relay::next_way(ctx, id, winner)) {
        return;
    }
    let Some(branch) = winner else {
        if let Some(data) = ctx.core.txns.txns.get_mut(id) {
            data.on_failure = None;
        }
        return answer(ctx, id, None);
    };
    set_activity(ctx, id, Activity::FailureRoute);
    let seen = Seen::of(Some(id)).branch(branch).status(status);
    show_request(ctx, Moment::Failing, id, seen, move |ctx| {
        set_activity(ctx, id, Activity::Idle);
        let Some(data) = ctx.core.txns.txns.get_mut(id) else { return };
        match data.on_failure.take() {
            Some(route) => run_route(ctx, id, route, winner),
            None => answer(ctx, id, winner),
        }
    });
}

/// What comes meanwhile is not decided about.
fn set_activity(ctx: &mut Ctx, id: TxnId, activity: Activity) {
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.activity = activity;
    }
}

/// Nobody answered, and no branch is open: the script forgot the transaction, or only rang. As when a
/// callee is silent, the failure route runs, else the caller gets 408 (a request other than INVITE
/// gets nothing so late, RFC 4320 §4.1).
pub(super) fn nobody_answered(ctx: &mut Ctx, id: TxnId) {
    let now = ctx.core.now;
    let txns = &mut ctx.core.txns.txns;
    let (status, (_, fr_inv)) = (txns.status(id), txns.timeouts(id));
    let Some(data) = txns.get_mut(id) else { return };
    if data.msg.method() != Method::Invite {
        return txns.release(now, id);
    }
    if status > 100 && now < data.created.after(fr_inv.into()) {
        return txns.hold(now, id);
    }
    data.seen_status = 408;
    match data.on_failure.take() {
        Some(route) => run_route(ctx, id, route, None),
        None => answer(ctx, id, None),
    }
}

/// `winner`: the branch whose reply the route is about.
fn run_route(ctx: &mut Ctx, id: TxnId, route: RouteId, winner: Option<u16>) {
    let Some(saved) = &ctx.core.txns.txns.get(id).and_then(|d| d.saved.as_ref()) else {
        return answer(ctx, id, winner);
    };
    let task = Task::new(ctx.core.shared.program(), route);
    let mut state = saved.fork(RouteKind::Failure, task);
    let view = winner.and_then(|winner| ctx.core.txns.txns.branch(id, winner));
    let target = view.map(|b| b.data.target.clone()).unwrap_or_else(|| request_branch(saved));
    state.txn = Some(id);
    state.txn_branch = winner;
    // The branch route that the request was given holds for the branches made here too.
    state.on_failure = None;
    state.on_reply = None;
    match ctx.core.shared.dialect {
        Dialect::V21 => {
            state.ruri = Some(target.uri);
            state.branch_flags = target.flags;
        }
        // 4.x starts again from the request as it was received.
        Dialect::V4 => {
            state.ruri = None;
            state.branch_flags = 0;
            state.ruri_q = -1;
            state.socket = None;
        }
    }
    state.dst_uri = None;
    state.path = None;
    state.branches.clear();
    state.after = After::Then(Box::new(move |ctx, state, _| route_done(ctx, id, state)));
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.activity = Activity::FailureRoute;
    }
    ctx.run(state);
}

/// The failure route ended: it may have opened branches or replied; otherwise the best reply goes out.
fn route_done(ctx: &mut Ctx, id: TxnId, state: Box<MsgState>) {
    let Some(data) = ctx.core.txns.txns.get_mut(id) else { return };
    data.activity = Activity::Idle;
    if let Some(saved) = &mut data.saved {
        saved.flags = state.flags;
        saved.on_branch = state.on_branch;
        saved.vars = state.vars;
        saved.ext = state.ext;
    }
    let now = ctx.core.now;
    if !ctx.core.txns.txns.is_open(id) || ctx.core.txns.txns.awaits_branches(id) {
        // Also one that rang while the route waited: its end is to be told again.
        ctx.core.txns.txns.reopen(id);
        return;
    }
    let winner = ctx.core.txns.txns.winner(id);
    // New branches that failed at once are a new failure, with its own route.
    let again = ctx.core.txns.txns.get(id).is_some_and(|d| d.on_failure.is_some());
    match ctx.core.txns.txns.conclude(now, id) {
        Verdict::Failed { winner } if again => all_failed(ctx, id, winner),
        _ => answer(ctx, id, winner),
    }
}

/// Sends the best reply upstream.
fn answer(ctx: &mut Ctx, id: TxnId, winner: Option<u16>) {
    if !ctx.core.txns.txns.is_open(id) {
        return;
    }
    ua::refused(ctx, id, |ctx| {
        let view = winner.and_then(|w| ctx.core.txns.txns.branch(id, w));
        let reply = view.as_ref().and_then(|v| v.data.reply.as_ref()).map(|reply| reply.msg.clone());
        let local = view.as_ref().map_or("", |v| v.data.local_reason);
        Answer {
            path: view.as_ref().and_then(|v| v.path),
            status: view.map_or(487, |v| v.status),
            reason: reply.as_ref().map_or(Bytes::from_static(local.as_bytes()), |r| r.reason()),
            reply,
        }
    });
    let cancelled = ctx.core.txns.txns.was_cancelled(id);
    let Some(winner) = winner else {
        let timed_out = ctx.core.txns.txns.get(id).is_some_and(|data| data.seen_status == 408);
        if cancelled {
            super::reply(ctx, id, 487, b"Request Terminated");
        } else if timed_out {
            super::reply(ctx, id, 408, b"Request Timeout");
        }
        return;
    };
    let Some(view) = ctx.core.txns.txns.branch(id, winner) else { return };
    let (status, reason) = (view.status, view.data.local_reason);
    let reply = ctx.core.txns.txns.branch_data(id, winner).and_then(|b| b.reply.take());
    let Some(reply) = reply else {
        let (code, reason): (u16, &[u8]) = match status {
            487 => (487, b"Request Terminated"),
            408 if cancelled => (487, b"Request Terminated"),
            _ if !reason.is_empty() => (status, reason.as_bytes()),
            _ => (status.max(400), b"Request Timeout"),
        };
        super::reply(ctx, id, code, reason);
        return;
    };
    // RFC 3261 §16.7 step 6: a 503 says nothing about this server.
    let changed = match status {
        503 if !ctx.core.txns.policy.keeps_503 => Some((500, reply.msg.reason())),
        _ => super::replies::changed_status(&reply),
    };
    let code = changed.as_ref().map_or(status, |(code, _)| *code);
    relay_reply(ctx, id, code, reply, changed);
}
