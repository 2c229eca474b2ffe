//! One script: run to its end or its first wait, then what follows it.

use super::script_host::machine_run;
use crate::call::Suspension;
use crate::ctx::{After, Ctx, MsgState};
use script::{End, Step};

/// [`Ctx::run`]
pub(super) fn run(ctx: &mut Ctx, state: Box<MsgState>) {
    let outer = std::mem::replace(&mut ctx.state, state);
    let step = machine_run(ctx);
    let inner = std::mem::replace(&mut ctx.state, outer);
    after_step(ctx, inner, step);
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
    match std::mem::replace(&mut state.after, After::Nothing) {
        After::Nothing => {}
        After::Request => crate::tm::request_done(ctx, state, end),
        After::Then(then) => then(ctx, state, end),
    }
}
