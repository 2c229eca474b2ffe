//! One script: run to its end or its first wait, then what follows it.

use super::script_host::machine_run;
use crate::call::Suspension;
use crate::context::observe::Seen;
use crate::ctx::{After, Ctx, MsgState};
use crate::tm::{self, defect};
use script::{End, Step};

/// [`Ctx::run`]
pub(super) fn run(ctx: &mut Ctx, mut state: Box<MsgState>) {
    if ctx.core.observers.is_some() || state.trace.is_some() {
        ctx.mark_observed(&mut state);
    }
    match ctx.try_with_state(state, machine_run) {
        (mut state, Ok(step)) => {
            if state.trace.is_some() {
                left(ctx, &mut state, &step);
            }
            after_step(ctx, state, step);
        }
        (state, Err(_)) => defect::script_broke(ctx, state),
    }
}

/// A script that somebody is told of has ended, or waits.
#[cold]
fn left(ctx: &mut Ctx, state: &mut Box<MsgState>, step: &Step<Box<Suspension>>) {
    let end = match step {
        Step::Done(end) => Some(*end),
        Step::Suspended(_) => None,
        Step::OutOfFuel => Some(End::Exit),
    };
    ctx.at_spot(None);
    ctx.with_state_in(state, |ctx| ctx.tell_script(&Seen::Left(end)));
}

fn after_step(ctx: &mut Ctx, state: Box<MsgState>, step: Step<Box<Suspension>>) {
    match step {
        Step::Done(end) => ended(ctx, state, end),
        Step::Suspended(operation) => ctx.park(state, *operation),
        Step::OutOfFuel => {
            crate::error!("core", "script stopped: it ran too long without waiting");
            ended(ctx, state, End::Exit);
        }
    }
}

fn ended(ctx: &mut Ctx, mut state: Box<MsgState>, end: End) {
    if let Some(outside) = ctx.core.shared.outside.get().cloned() {
        ctx.with_state_in(&mut state, |ctx| outside.ended(ctx, end));
    }
    let (txn, after) = (state.txn, std::mem::replace(&mut state.after, After::Nothing));
    let follow = |ctx: &mut Ctx| match after {
        After::Nothing => {}
        After::Request => tm::request_done(ctx, state, end),
        After::Then(then) => then(ctx, state, end),
    };
    match txn {
        Some(txn) => drop(ctx.guarded(txn, follow)),
        None => drop(ctx.catch(follow)),
    }
}
