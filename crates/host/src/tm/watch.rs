//! Showing messages to those who watch: see [`crate::watch`] for the moments.

use super::answer::bare_state;
use super::{Held, hold};
use crate::call::{Finish, Outcome, Suspension, Wait};
use crate::ctx::{Ctx, MsgState, TaskId};
use crate::watch::{Moment, Seen, Told};
use sip::Method;
use transaction::TxnId;

/// Whether the message goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    On,
    /// A watcher stopped it.
    Stopped,
}

/// The message that watchers see as the current one.
enum Subject {
    /// It is held here.
    Message(Box<MsgState>),
    /// The request that a transaction keeps.
    RequestOf(TxnId),
    /// That of a script that waits for its watchers.
    Script(TaskId),
}

impl Subject {
    fn with<R>(&mut self, ctx: &mut Ctx, f: impl FnOnce(&mut Ctx) -> R) -> R {
        match self {
            Subject::Message(state) => with_message(ctx, state, f),
            Subject::RequestOf(id) => with_request(ctx, *id, f),
            Subject::Script(id) => {
                let Some(mut state) = ctx.live_slot(*id).and_then(|slot| slot.state.take()) else {
                    return f(ctx);
                };
                let result = with_message(ctx, &mut state, f);
                if let Some(slot) = ctx.live_slot(*id) {
                    slot.state = Some(state);
                }
                result
            }
        }
    }
}

fn with_message<R>(ctx: &mut Ctx, state: &mut Box<MsgState>, f: impl FnOnce(&mut Ctx) -> R) -> R {
    ctx.with_state_in(state, f)
}

/// The request of a transaction as the current message: the one that was kept when it went downstream, the current
/// one, or what is known of one that never left.
pub fn with_request<R>(ctx: &mut Ctx, id: TxnId, f: impl FnOnce(&mut Ctx) -> R) -> R {
    let saved = ctx.core.txns.txns.get_mut(id).and_then(|data| data.saved.take());
    if let Some(mut saved) = saved {
        let result = with_message(ctx, &mut saved, f);
        if let Some(data) = ctx.core.txns.txns.get_mut(id)
            && data.saved.is_none()
        {
            data.saved = Some(saved);
        }
        return result;
    }
    let here = ctx.state.txn == Some(id) && ctx.state.msg.is_request();
    match ctx.core.txns.txns.get(id).filter(|_| !here) {
        Some(data) => {
            let mut bare = bare_state(ctx, data);
            bare.txn = Some(id);
            with_message(ctx, &mut bare, f)
        }
        None => f(ctx),
    }
}

/// The modules that watch what broke have seen enough: one of them may be what broke it.
fn is_broken(ctx: &Ctx, id: TxnId) -> bool {
    ctx.core.txns.txns.get(id).is_some_and(|data| data.broken)
}

/// Tells what happened to a transaction, with its request as the current message.
pub(crate) fn tell(ctx: &mut Ctx, id: TxnId, what: Told, seen: Seen) {
    let broken = what != Told::Ended && is_broken(ctx, id);
    if ctx.core.shared.hooks.watch.tells(what) && !broken {
        let _ = ctx.guarded(id, |ctx| with_request(ctx, id, |ctx| tell_here(ctx, what, &seen)));
    }
}

/// The same about the current message.
pub(crate) fn tell_here(ctx: &mut Ctx, what: Told, seen: &Seen) {
    if ctx.core.shared.hooks.watch.tells(what) {
        let shared = ctx.core.shared.clone();
        shared.hooks.watch.listeners(what).for_each(|listener| listener(ctx, seen));
    }
}

/// Shows a message to the watchers of a moment, one after the other, then goes on with `then`: at once, or when the
/// last one has waited. It does not go on when the transaction ends meanwhile.
pub(crate) fn show<F>(ctx: &mut Ctx, moment: Moment, state: Box<MsgState>, seen: Seen, then: F)
where
    F: FnOnce(&mut Ctx, Box<MsgState>, Way) + 'static,
{
    if !ctx.core.shared.hooks.watch.watches(moment) || seen.txn.is_some_and(|id| is_broken(ctx, id)) {
        return then(ctx, state, Way::On);
    }
    let subject = Subject::Message(state);
    go_on(ctx, moment, 0, subject, seen, move |ctx, subject, way| match subject {
        Subject::Message(state) => then(ctx, state, way),
        Subject::RequestOf(_) | Subject::Script(_) => {}
    });
}

/// The same about the request of a transaction, which stays in its place.
pub(crate) fn show_request(
    ctx: &mut Ctx,
    moment: Moment,
    id: TxnId,
    seen: Seen,
    then: impl FnOnce(&mut Ctx) + 'static,
) {
    if !ctx.core.shared.hooks.watch.watches(moment) {
        return then(ctx);
    }
    go_on(ctx, moment, 0, Subject::RequestOf(id), seen, move |ctx, _, _| then(ctx));
}

/// Shows the current message within a script function: 1, or -1 when a watcher stopped it.
pub fn show_here(ctx: &mut Ctx, moment: Moment) -> Outcome {
    let seen = Seen { txn: ctx.state.txn, branch: ctx.state.txn_branch, ..Seen::of(None) };
    let shared = ctx.core.shared.clone();
    let mut at = 0;
    while let Some(watcher) = shared.hooks.watch.watcher(moment, at) {
        at += 1;
        match watcher(ctx, &seen) {
            Outcome::Done(rc) if rc < 0 => return Outcome::Done(-1),
            Outcome::Done(_) => {}
            Outcome::Suspend(operation) => return script_waits(moment, at, seen, *operation),
        }
    }
    Outcome::Done(1)
}

/// The script that is shown waits for a watcher, and for those that follow it.
fn script_waits(moment: Moment, at: usize, seen: Seen, operation: Suspension) -> Outcome {
    let (what, detail, limit_ms) = (operation.what, operation.detail.clone(), operation.limit_ms);
    let begin = move |ctx: &mut Ctx, script: TaskId| {
        let subject = Subject::Script(script);
        wait(ctx, moment, at, subject, seen, operation, move |ctx, _, way| {
            let rc = if way == Way::On { 1 } else { -1 };
            ctx.resume(script, Box::new(move |_| rc));
        });
    };
    Outcome::Suspend(Box::new(Suspension {
        what,
        detail,
        wait: Wait::External(Box::new(begin)),
        limit_ms: limit_ms.saturating_mul(2),
        on_deadline: -1,
    }))
}

/// The watchers from number `at` on.
fn go_on<F>(ctx: &mut Ctx, moment: Moment, mut at: usize, mut subject: Subject, seen: Seen, then: F)
where
    F: FnOnce(&mut Ctx, Subject, Way) + 'static,
{
    let shared = ctx.core.shared.clone();
    while let Some(watcher) = shared.hooks.watch.watcher(moment, at) {
        at += 1;
        match subject.with(ctx, |ctx| watcher(ctx, &seen)) {
            Outcome::Done(rc) if rc < 0 => return then(ctx, subject, Way::Stopped),
            Outcome::Done(_) => {}
            Outcome::Suspend(operation) => return wait(ctx, moment, at, subject, seen, *operation, then),
        }
    }
    then(ctx, subject, Way::On);
}

/// Holds the message until a watcher's operation is done.
fn wait<F>(
    ctx: &mut Ctx,
    moment: Moment,
    at: usize,
    mut subject: Subject,
    mut seen: Seen,
    operation: Suspension,
    then: F,
) where
    F: FnOnce(&mut Ctx, Subject, Way) + 'static,
{
    let mut held = None;
    if let Subject::Message(state) = &mut subject {
        // From now on the request is answered here when it comes again.
        if moment == Moment::RequestIn && state.msg.method() != Method::Ack {
            if hold(ctx, state) == Held::Known {
                return;
            }
            seen.txn = state.txn;
        }
    }
    let script = match subject {
        Subject::Message(state) => {
            held = Some(state);
            None
        }
        other => Some(other),
    };
    // These go their way without it.
    let alone = matches!(moment, Moment::AckIn | Moment::ForwardOut | Moment::StrayReply);
    let txn = seen.txn.filter(|_| !alone);
    let done = move |ctx: &mut Ctx, held: Option<Box<MsgState>>, finish: Finish| {
        let Some(mut subject) = held.map(Subject::Message).or(script) else { return -1 };
        let rc = subject.with(ctx, finish);
        match rc {
            ..0 => then(ctx, subject, Way::Stopped),
            _ => go_on(ctx, moment, at, subject, seen, then),
        }
        rc
    };
    ctx.wait_beside(held, txn, operation, Box::new(done));
}
