//! Scripts that wait for what the ends of a session do (`b2b_wait`, `b2b_run`), and the turn of a call while its
//! routes run.

use super::link::{self, Link, Role};
use super::session::{self, EndState, Session, State};
use super::{B2bl, acts};
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::owner::Turn;
use crate::b2b_entities::{entity, run_route, table};
use ahash::AHashMap;
use bytes::Bytes;
use host::arg::{ROUTE, RouteArg};
use host::call::{Suspension, Wait};
use host::{Call, Ctx, Int, Outcome, TaskId, Text};
use script::ast::RouteKind;
use script::{RouteId, Task};

/// Scripts that wait for one session.
const MAX_WATCHING: usize = 16;
/// Longest a script waits when it says no time: a day, and what the server allows at most.
const LONG_MS: u64 = 86_400_000;

/// Turns of calls whose routes run.
#[derive(Default)]
struct Lent {
    next: u64,
    turns: AHashMap<u64, Turn>,
}

/// Keeps the turn of a call while a route of it runs.
pub fn lend(ctx: &mut Ctx, turn: Turn) -> u64 {
    let lent = ctx.local::<Lent>();
    lent.next += 1;
    let slot = lent.next;
    lent.turns.insert(slot, turn);
    slot
}

/// The route has ended, or waits for others: the call goes on.
pub fn give_back(ctx: &mut Ctx, slot: u64) {
    if let Some(turn) = ctx.local::<Lent>().turns.remove(&slot) {
        turn.end(ctx);
    }
}

/// This route is one of `b2b_run`: it belongs to a session and to no message of it.
pub fn runs_beside(ctx: &Ctx) -> bool {
    link::of(ctx).is_some_and(|link| link.role == Role::Request && link.slot == 0)
}

/// What a script waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum For {
    /// An end has answered.
    Answered,
    /// The ends are connected.
    Bridged,
    /// The session is over.
    Ended,
}

impl For {
    fn parse(word: &[u8]) -> Option<For> {
        match word {
            b"answered" => Some(For::Answered),
            b"bridged" => Some(For::Bridged),
            b"ended" => Some(For::Ended),
            _ => None,
        }
    }
}

/// A script that waits.
#[derive(Clone, Debug)]
pub struct Watching {
    task: TaskId,
    what: For,
    /// Name of an end; empty: the one that was called last.
    end: Bytes,
}

const HAPPENED: i32 = 1;
const NEVER: i32 = -2;
const OVER: i32 = -3;

/// 1: it has happened, -2: it will not any more, -3: nor anything else, the call is over. `None`: it may.
fn verdict(ctx: &mut Ctx, key: &[u8], what: For, name: &[u8]) -> Option<i32> {
    let Some(s) = session::of(ctx, key) else {
        return Some(if what == For::Ended { HAPPENED } else { OVER });
    };
    let over = s.to_delete;
    match what {
        For::Ended => over.then_some(HAPPENED),
        _ if over || s.state == State::Cancel => Some(OVER),
        For::Bridged => (s.state == State::Bridged).then_some(HAPPENED),
        For::Answered => {
            let Some(end) = find(s, name).cloned() else { return Some(NEVER) };
            if end.state == EndState::Confirmed {
                return Some(HAPPENED);
            }
            if end.rejected || end.disconnected {
                return Some(NEVER);
            }
            let Some(entity) = table::of(ctx).get(&end.key) else { return Some(NEVER) };
            let refused = entity.kind == Kind::Client && entity.uac.is_none();
            match entity.state.is_answered() && entity.state != entity::State::Terminated {
                true => Some(HAPPENED),
                false => (refused || entity.state == entity::State::Terminated).then_some(NEVER),
            }
        }
    }
}

fn find<'a>(s: &'a Session, name: &[u8]) -> Option<&'a session::End> {
    if name.is_empty() {
        return s.bridge[2].or(s.bridge[1]).and_then(|id| s.end(id));
    }
    s.ends.iter().rev().find(|end| end.name == name)
}

/// Something of a session has changed: scripts whose wait is over go on, when what is done now is done.
pub fn look(ctx: &mut Ctx, key: &Bytes) {
    let Some(s) = session::of(ctx, key) else { return };
    if s.watching.is_empty() {
        return;
    }
    let all = std::mem::take(&mut s.watching);
    let mut rest = Vec::new();
    for watching in all {
        match verdict(ctx, key, watching.what, &watching.end) {
            Some(rc) => wake(ctx, watching.task, rc),
            None => rest.push(watching),
        }
    }
    if let Some(s) = session::of(ctx, key) {
        s.watching.append(&mut rest);
    }
}

/// A session is no more.
pub fn gone(ctx: &mut Ctx, session: Session) {
    for watching in session.watching {
        let rc = if watching.what == For::Ended { HAPPENED } else { OVER };
        wake(ctx, watching.task, rc);
    }
}

fn wake(ctx: &mut Ctx, task: TaskId, rc: i32) {
    ctx.after(0, move |ctx| ctx.resume(task, Box::new(move |_| rc)));
}

/// b2b_wait(what, [seconds], [entity]): 1 it happened, -1 the time is over, -2 it cannot happen any
/// more, -3 the call is over.
pub fn b2b_wait(call: &mut Call<B2bl>, what: Text, seconds: Option<Int>, end: Option<Text>) -> Outcome {
    let ctx = &mut *call.ctx;
    let Some(wanted) = For::parse(&what) else {
        host::error!("b2b_logic", "b2b_wait: {} is none of answered, bridged, ended", what.str());
        return Outcome::Done(-1);
    };
    let Some(key) = link::session(ctx) else {
        host::error!("b2b_logic", "b2b_wait: there is no session here");
        return Outcome::Done(-1);
    };
    let name = end.map(|text| text.0).unwrap_or_default();
    if let Some(rc) = verdict(ctx, &key, wanted, &name) {
        return Outcome::Done(rc);
    }
    if acts::read(ctx, &key, |s| s.watching.len() >= MAX_WATCHING) == Some(true) {
        host::error!("b2b_logic", "b2b_wait: {MAX_WATCHING} scripts wait for this session already");
        return Outcome::Done(-1);
    }
    // What is waited for comes in the turns of the call.
    if let Some(slot) = link::of(ctx).map(|link| link.slot) {
        ctx.after(0, move |ctx| give_back(ctx, slot));
    }
    let limit_ms = seconds.and_then(|n| u64::try_from(n.0).ok()).map_or(LONG_MS, |n| n.saturating_mul(1000));
    let own = key.clone();
    let begin = move |ctx: &mut Ctx, task: TaskId| {
        if let Some(s) = session::of(ctx, &own) {
            s.watching.push(Watching { task, what: wanted, end: name });
        }
        look(ctx, &own);
    };
    Outcome::Suspend(Box::new(Suspension {
        what: "b2b_wait",
        detail: key,
        wait: Wait::External(Box::new(begin)),
        limit_ms,
        on_deadline: -1,
    }))
}

/// b2b_run(route): runs a route of the session beside everything else, as long as it likes.
pub fn b2b_run(call: &mut Call<B2bl>, route: RouteArg<ROUTE>) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(key) = link::session(ctx) else {
        host::error!("b2b_logic", "b2b_run: there is no session here");
        return -1;
    };
    let caller = acts::read(ctx, &key, |s| {
        let first = s.servers.first().or(s.clients.first()).and_then(|id| s.end(*id));
        first.map(|end| (end.key.clone(), end.kind, end.peer))
    });
    let (entity, kind, peer) = caller.flatten().unwrap_or((Bytes::new(), Kind::Server, None));
    let task = Task::new(ctx.shared().program(), RouteId(0));
    let mut state = ctx.state.fork(RouteKind::Request, task);
    state.txn = None;
    state.ext.set(Link { session: key, entity, kind, peer, role: Role::Request, ..Link::default() });
    // Behind what runs now.
    let route = route.0;
    ctx.after(0, move |ctx| run_route(ctx, route, state, |_, _| ()));
    1
}
