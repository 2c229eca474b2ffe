//! Replies from downstream: reply routes, then upstream.

use super::answer::relay_reply;
use super::watch::{Way, show};
use super::{MAX_QUEUE, Replies, drain, failure, ua};
use crate::ctx::{After, Ctx, MsgState};
use crate::watch::{Moment, Seen, Wire};
use bytes::Bytes;
use script::ast::RouteKind;
use script::{End, RouteId, Task};
use sip::Message;
use std::rc::Rc;
use transaction::{Path, Received, TxnId, Verdict};

/// `change_reply_status`, kept with the reply.
#[derive(Clone, Default)]
pub struct ReplyStatus {
    pub code: u16,
    pub reason: Bytes,
}

/// The final replies of the branches that a failure route looks at, in their order.
pub fn final_replies(ctx: &Ctx) -> Vec<Rc<Message>> {
    let Some(id) = ctx.state.txn else { return Vec::new() };
    let first = usize::from(ctx.core.txns.txns.first_branch(id));
    let branches = ctx.core.txns.txns.branches(id).skip(first);
    branches.filter_map(|branch| branch.data.reply.as_ref().map(|reply| reply.msg.clone())).collect()
}

pub(super) fn changed_status(state: &MsgState) -> Option<(u16, Bytes)> {
    state.ext.find::<ReplyStatus>().filter(|s| s.code != 0).map(|s| (s.code, s.reason.clone()))
}

/// Status and reason of the message that scripts see: (0, "") for a request.
pub fn status_of(state: &MsgState) -> (u16, Bytes) {
    changed_status(state).unwrap_or_else(|| (state.msg.status(), state.msg.reason()))
}

/// A reply came in: reply routes, then upstream. Replies of one transaction go one after the other,
/// also when a route of an earlier one waits.
pub fn on_reply(ctx: &mut Ctx, msg: Rc<Message>, source: Path) {
    if msg.via().is_none() {
        ctx.core.traffic.bad.up();
        return;
    }
    let matched = ctx.core.txns.txns.match_reply(&msg);
    // A callee's tag starts a dialog: a reply to an INVITE that has no To is of no use upstream.
    if matched.is_some_and(|(id, _)| ctx.core.txns.txns.is_invite(id)) && !msg.has_to() {
        ctx.core.traffic.bad.up();
        return;
    }
    let Some((id, branch)) = matched else {
        // To a transaction that is over, or to what it did not send: nobody waits for it (RFC 6026 §7.2).
        // A 2xx that comes again goes on: it wants its ACK.
        let cookie = msg.via().and_then(|via| via.branch_slice()).and_then(transaction::Cookie::parse);
        let lives = |id| ctx.core.txns.txns.get(id).is_some();
        return match cookie {
            Some(cookie) if lives(cookie.txn) || !(200..300).contains(&msg.status()) => {}
            _ => stray(ctx, msg, source),
        };
    };
    ctx.tapped(Wire::Matched, Some(id), source, msg.buf().clone());
    let now = ctx.core.now;
    // Timers and the ACK of a negative reply do not wait for scripts.
    let received = ctx.core.txns.txns.receive(now, id, branch, &msg);
    drain(ctx);
    let arrived = Arrived { branch, msg, source, received };
    if let Some(data) = ctx.core.txns.txns.get_mut(id)
        && data.replies == Replies::RouteRuns
    {
        // What changes nothing is forgotten; a final reply never is.
        let room = data.queue.len() < MAX_QUEUE || arrived.msg.status() >= 200;
        if room && received == Received::New {
            data.queue.push_back(arrived);
        } else if received == Received::New {
            let stats = &ctx.core.shared.stats;
            stats.counter("tm", "dropped_provisional_replies").up();
            let call_id = String::from_utf8_lossy(&arrived.msg.call_id().unwrap_or_default()).into_owned();
            crate::info!(
                "tm",
                "{MAX_QUEUE} replies wait for a script: a {} is dropped (Call-ID {call_id})",
                arrived.msg.status()
            );
        }
        return;
    }
    let _ = ctx.guarded(id, |ctx| handle(ctx, id, arrived));
}

/// A reply that its transaction knows of and whose routes have not run.
pub(super) struct Arrived {
    branch: u16,
    msg: Rc<Message>,
    source: Path,
    received: Received,
}

fn handle(ctx: &mut Ctx, id: TxnId, arrived: Arrived) {
    let Arrived { branch, msg, source, received } = arrived;
    let state = reply_state(ctx, id, branch, msg, source);
    if received == Received::Absorb {
        // The global route sees every reply, also those that change nothing.
        if let Some(route) = global_route(ctx)
            && !is_of_cancel(&state)
        {
            start(ctx, state, route, After::Nothing);
        }
        return;
    }
    if let (true, Some(data)) =
        (ctx.core.shared.hooks.watch.watches(Moment::ReplyIn), ctx.core.txns.txns.get_mut(id))
    {
        data.replies = Replies::RouteRuns;
    }
    let seen = Seen::of(Some(id)).branch(branch).status(state.msg.status());
    show(ctx, Moment::ReplyIn, state, seen, move |ctx, state, way| {
        let kept = if way == Way::On { Kept::Yes } else { Kept::Dropped };
        match kept == Kept::Dropped && state.msg.status() < 200 {
            true => decide(ctx, id, branch, state, kept),
            false => next_route(ctx, id, branch, state, Stage::Global, Kept::Yes),
        }
    });
}

fn is_of_cancel(state: &MsgState) -> bool {
    state.msg.cseq_slices().is_some_and(|(_, method)| method == b"CANCEL")
}

pub(super) fn global_route(ctx: &Ctx) -> Option<RouteId> {
    ctx.core.shared.program.read().route(RouteKind::OnReply, None)
}

fn reply_state(ctx: &Ctx, id: TxnId, branch: u16, msg: Rc<Message>, source: Path) -> Box<MsgState> {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let mut state = MsgState::new(msg, source, ctx.core.now, RouteKind::OnReply, task);
    state.txn = Some(id);
    state.txn_branch = Some(branch);
    if let Some(data) = ctx.core.txns.txns.get(id) {
        if ctx.core.txns.settings.shared_avps {
            state.avps = data.avps.clone();
        }
        state.flags = data.saved.as_ref().map_or(0, |s| s.flags);
    }
    if let Some(view) = ctx.core.txns.txns.branch(id, branch) {
        state.branch_flags = view.data.target.flags;
    }
    state
}

/// The routes of a reply, in the order they run.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Global,
    Branch,
    Transaction,
    Done,
}

/// A route said `drop`.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    Yes,
    Dropped,
}

/// Runs the next route there is; after the last one the reply counts.
fn next_route(ctx: &mut Ctx, id: TxnId, branch: u16, state: Box<MsgState>, stage: Stage, kept: Kept) {
    let mut state = state;
    let (route, next) = match stage {
        // It runs before the transaction is looked for, so it knows of no branch.
        Stage::Global => (global_route(ctx), Stage::Branch),
        Stage::Branch => {
            (ctx.core.txns.txns.branch(id, branch).and_then(|b| b.data.on_reply), Stage::Transaction)
        }
        Stage::Transaction => (ctx.core.txns.txns.get(id).and_then(|d| d.on_reply), Stage::Done),
        Stage::Done => return decide(ctx, id, branch, state, kept),
    };
    let of_branch = if stage == Stage::Global { None } else { Some(branch) };
    let Some(route) = route else { return next_route(ctx, id, branch, state, next, kept) };
    let flags = state.branch_flags;
    if of_branch.is_none() {
        (state.txn_branch, state.branch_flags) = (None, 0);
    }
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.replies = Replies::RouteRuns;
        data.seen_status = state.msg.status();
    }
    let after = After::Then(Box::new(move |ctx, mut state, end| {
        let kept = if end == End::Drop { Kept::Dropped } else { kept };
        if of_branch.is_none() {
            (state.txn_branch, state.branch_flags) = (Some(branch), flags);
        } else if let Some(data) = ctx.core.txns.txns.branch_data(id, branch) {
            data.target.flags = state.branch_flags;
        }
        next_route(ctx, id, branch, state, next, kept);
    }));
    start(ctx, state, route, after);
}

fn start(ctx: &mut Ctx, mut state: Box<MsgState>, route: RouteId, after: After) {
    state.task = Task::new(ctx.core.shared.program(), route);
    state.after = after;
    ctx.run(state);
}

/// What the reply means, after its routes.
fn decide(ctx: &mut Ctx, id: TxnId, branch: u16, state: Box<MsgState>, kept: Kept) {
    let now = ctx.core.now;
    let received = state.msg.status();
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.replies = Replies::Free;
        data.last_heard = Some(branch);
        if let Some(saved) = &mut data.saved {
            saved.flags = state.flags;
        }
    }
    let dropped = kept == Kept::Dropped && received < 200;
    if !dropped {
        let changed = if (200..300).contains(&received) { None } else { changed_status(&state) };
        let verdict_status = match &changed {
            Some((code, _)) if (received >= 300) == (*code >= 300) => *code,
            _ => received,
        };
        if received >= 300 {
            if let Some(data) = ctx.core.txns.txns.branch_data(id, branch) {
                data.reply = Some(state);
            }
            let verdict = ctx.core.txns.txns.decide(now, id, branch, verdict_status);
            failure::on_verdict(ctx, id, verdict);
        } else {
            let verdict = ctx.core.txns.txns.decide(now, id, branch, verdict_status);
            drain(ctx);
            if matches!(verdict, Verdict::Provisional | Verdict::Success) {
                let code = changed.as_ref().map_or(received, |(code, _)| *code);
                let msg = state.msg.clone();
                relay_reply(ctx, id, code, state, changed);
                ua::replied(ctx, id, branch, &msg);
            } else {
                failure::on_verdict(ctx, id, verdict);
            }
        }
    }
    next_in_queue(ctx, id);
}

fn next_in_queue(ctx: &mut Ctx, id: TxnId) {
    // One that has no route to wait in is done at once, and the next one is looked at.
    while let Some(data) = ctx.core.txns.txns.get_mut(id)
        && data.replies == Replies::Free
        && let Some(arrived) = data.queue.pop_front()
    {
        handle(ctx, id, arrived);
    }
}

/// A reply of no transaction: the global route, then on by its second Via.
fn stray(ctx: &mut Ctx, msg: Rc<Message>, source: Path) {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let state = MsgState::new(msg, source, ctx.core.now, RouteKind::OnReply, task);
    let seen = Seen::of(None).status(state.msg.status());
    show(ctx, Moment::StrayReply, state, seen, |ctx, state, way| match (way, global_route(ctx)) {
        (Way::Stopped, _) => {}
        (Way::On, Some(route)) => {
            let after = After::Then(Box::new(|ctx, state, end| {
                if end != End::Drop || (200..300).contains(&state.msg.status()) {
                    super::forward_reply(ctx, state);
                }
            }));
            start(ctx, state, route, after);
        }
        (Way::On, None) => super::forward_reply(ctx, state),
    });
}
