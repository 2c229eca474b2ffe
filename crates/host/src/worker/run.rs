//! One script: run to its end or its first wait, then what follows it.

use super::script_host::machine_run;
use crate::call::Suspension;
use crate::ctx::{After, Ctx, MsgState};
use crate::tm::{self, defect};
use script::{End, Step};

/// [`Ctx::run`]
pub(super) fn run(ctx: &mut Ctx, state: Box<MsgState>) {
    match ctx.try_with_state(state, machine_run) {
        (state, Ok(step)) => after_step(ctx, state, step),
        (state, Err(_)) => defect::script_broke(ctx, state),
    }
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
