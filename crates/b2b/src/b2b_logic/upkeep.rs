//! Sessions whose time is over.

use super::session::{self, EndId, EndState};
use super::{B2bl, acts};
use crate::b2b_entities::answer::Reply;
use crate::b2b_entities::entity::{Entity, Kind};
use crate::b2b_entities::owner::{DialogInfo, hold};
use bytes::Bytes;
use host::Ctx;
use std::sync::Arc;

/// What identifies the dialog of an entity.
pub fn dialog_of(e: &Entity) -> DialogInfo {
    match e.kind {
        Kind::Server => {
            DialogInfo { call_id: e.call_id.clone(), from_tag: e.tags[0].clone(), to_tag: e.tags[1].clone() }
        }
        Kind::Client => DialogInfo {
            call_id: e.call_id.clone(),
            from_tag: e.legs.first().map(|leg| leg.tag.clone()).unwrap_or_default(),
            to_tag: e.tags[0].clone(),
        },
    }
}

/// Looks at the sessions of a worker as long as there are any.
pub fn begin(ctx: &mut Ctx, module: &Arc<B2bl>) {
    if std::mem::replace(&mut session::table(ctx).watched, true) {
        return;
    }
    let module = module.clone();
    ctx.after(u64::from(module.cleanup_period) * 1000, move |ctx| {
        run(ctx, &module);
        session::table(ctx).watched = false;
        if session::table(ctx).all().next().is_some() {
            begin(ctx, &module);
        }
    });
}

fn run(ctx: &mut Ctx, module: &Arc<B2bl>) {
    let now = acts::later(ctx, 0);
    let over: Vec<Bytes> = session::table(ctx)
        .all()
        .filter(|s| s.ends_at.is_some_and(|at| at <= now))
        .map(|s| s.key.clone())
        .collect();
    for key in over {
        // A route that looks at it goes first.
        let Some(turn) = hold(ctx, &key) else { continue };
        end(ctx, module, &key);
        turn.end(ctx);
    }
}

/// Ends a session and forgets it.
fn end(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes) {
    terminate(ctx, key);
    acts::delete(ctx, module, key);
}

/// Both ends are told that it is over.
pub fn terminate(ctx: &mut Ctx, key: &Bytes) {
    let ends = acts::read(ctx, key, |s| if s.to_delete { [None; 3] } else { s.bridge }).unwrap_or_default();
    if ends[0].is_none() || ends[1].is_none() {
        return;
    }
    for id in ends.into_iter().flatten() {
        one(ctx, key, id);
    }
    let rivals = acts::read(ctx, key, |s| s.rivals.clone()).unwrap_or_default();
    for id in rivals {
        acts::hang_up(ctx, key, Some(id));
    }
}

fn one(ctx: &mut Ctx, key: &Bytes, id: EndId) {
    let Some(end) = acts::read(ctx, key, |s| s.end(id).cloned()).flatten() else { return };
    if end.disconnected || end.key.is_empty() {
        return;
    }
    if end.kind == Kind::Client || acts::is_up(ctx, &end.key) {
        return acts::hang_up(ctx, key, Some(id));
    }
    let (code, reason) = match end.state {
        EndState::Canceling => (487, "Request Terminated"),
        _ => (408, "Request Timeout"),
    };
    acts::answer(ctx, key, id, Reply::new("INVITE", code, reason));
    if let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(id)) {
        end.disconnected = true;
    }
}
