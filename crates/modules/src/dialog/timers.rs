//! What is due: ends of calls, pings, memory to give back.
//!
//! Many dialogs may be due at once. A turn does a few of them and leaves the rest to the next, which comes soon, so
//! that the requests that end them go out between those of other calls and not before them. A turn that comes late
//! says that messages wait for the worker: it does half as much as the one before, one in time does a little more.

use super::table::{self, Due};
use super::{Dlg, db, end, handover, ping};
use host::{Call, Ctx, TimerKey};
use std::sync::Arc;
use transaction::Instant;

/// How often the worker looks whether there is something to write.
pub const TICK_MS: u64 = 50;
/// Dialogs that one turn may end: with two BYEs each, about a millisecond.
const PER_TURN: usize = 32;
/// However busy the worker is.
const FEWEST: usize = 2;
/// A turn in time does so many more than the one before.
const STEP: usize = 2;
/// Milliseconds by which a turn may be late for no reason.
const LATE_MS: u64 = 1;
/// Milliseconds to the next turn when there is more to do.
const PAUSE_MS: u64 = 2;

/// This worker.
#[derive(Default)]
struct Turns {
    /// When the next turn comes, and its timer.
    next: Option<(Instant, TimerKey)>,
    /// Dialogs for the next turn; 0: as many as there may be.
    portion: usize,
    /// The server ends, and what it knows is being written.
    drained: bool,
}

pub fn run(call: &mut Call<Dlg>) {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    note_size(ctx, &module);
    db::tick(ctx, &module);
    // Who ends this server may not have the patience for calls that still ring.
    if ctx.core.worker == 0
        && ctx.core.draining
        && !std::mem::replace(&mut ctx.local::<Turns>().drained, true)
    {
        db::at_end(ctx, &module);
    }
}

/// A timer was set: the next turn comes in time for it.
pub fn arm(ctx: &mut Ctx) {
    let Some(at) = table::of(ctx).next_due() else { return };
    let next = ctx.local::<Turns>().next;
    match next {
        Some((set, _)) if set <= at => return,
        Some((_, timer)) => drop(ctx.cancel(timer)),
        None => {}
    }
    arm_at(ctx, at);
}

fn arm_at(ctx: &mut Ctx, at: Instant) {
    let left = at.0.saturating_sub(ctx.core.now.0);
    let timer = ctx.after(left, move |ctx| {
        let late = ctx.core.now.0.saturating_sub(at.0);
        let turns = ctx.local::<Turns>();
        turns.next = None;
        turns.portion = portion(turns.portion, late);
        let portion = turns.portion;
        if let Some(module) = super::api::module(ctx) {
            turn(ctx, &module, portion);
        }
    });
    ctx.local::<Turns>().next = Some((at, timer));
}

/// What a turn does that comes so many milliseconds late, after one that did `before`.
fn portion(before: usize, late: u64) -> usize {
    match before {
        0 => PER_TURN,
        before if late > LATE_MS => (before / 2).max(FEWEST),
        before => (before + STEP).min(PER_TURN),
    }
}

fn turn(ctx: &mut Ctx, module: &Arc<Dlg>, portion: usize) {
    let now = ctx.core.now;
    for _ in 0..portion {
        let Some((key, due)) = table::of(ctx).pop_due(now) else { return arm(ctx) };
        match due {
            Due::Forget => end::forget(ctx, module, key),
            due => {
                let of_due = module.clone();
                handover::if_ours(ctx, module, key, due, move |ctx| match due {
                    Due::Options | Due::Reinvite => ping::due(ctx, &of_due, key, due),
                    _ => end::expired(ctx, &of_due, key),
                });
            }
        }
    }
    // What was set meanwhile may have armed an earlier turn: this one comes after the pause all the same.
    if let Some((_, timer)) = ctx.local::<Turns>().next.take() {
        ctx.cancel(timer);
    }
    arm_at(ctx, now.after(PAUSE_MS));
}

/// How many dialogs this worker has, for lists over all workers.
pub fn note_size(ctx: &mut Ctx, module: &Dlg) {
    let (worker, workers) = (usize::from(ctx.core.worker), usize::from(ctx.core.workers));
    let len = table::of(ctx).len();
    let same = module.sizes.read().get(worker) == Some(&len);
    if !same {
        let mut sizes = module.sizes.write();
        sizes.resize(workers.max(worker + 1), 0);
        sizes[worker] = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst begins whole, gives way while messages wait, and comes back when none do.
    #[test]
    fn a_late_turn_does_less() {
        let mut now = portion(0, 0);
        assert_eq!(now, PER_TURN);
        let mut sizes = Vec::new();
        for late in [5, 5, 5, 5, 5, 0, 1, 0] {
            now = portion(now, late);
            sizes.push(now);
        }
        assert_eq!(sizes, [16, 8, 4, 2, 2, 4, 6, 8]);
    }
}
