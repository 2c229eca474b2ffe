//! What is due: ends of calls, pings, memory to give back.
//!
//! Many dialogs may be due at once. A turn does a part of them and leaves the rest to the next, so that the
//! requests that end them go out between other calls and not before them.

use super::table::{self, Due};
use super::{Dlg, db, end, ping};
use host::Call;

/// How often the worker looks.
pub const TICK_MS: u64 = 50;
/// Dialogs that one turn may end: with two BYEs each, a few milliseconds.
const PER_TURN: usize = 200;

pub fn run(call: &mut Call<Dlg>) {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    note_size(ctx, &module);
    let now = ctx.core.now;
    for _ in 0..PER_TURN {
        let Some((key, due)) = table::of(ctx).pop_due(now) else { break };
        match due {
            Due::End => end::expired(ctx, &module, key),
            Due::Forget => end::forget(ctx, &module, key),
            Due::Options | Due::Reinvite => ping::due(ctx, &module, key, due),
        }
    }
    db::tick(ctx, &module);
}

/// How many dialogs this worker has, for lists over all workers.
pub fn note_size(ctx: &mut host::Ctx, module: &Dlg) {
    let (worker, workers) = (usize::from(ctx.core.worker), usize::from(ctx.core.workers));
    let len = table::of(ctx).len();
    let same = module.sizes.read().get(worker) == Some(&len);
    if !same {
        let mut sizes = module.sizes.write();
        sizes.resize(workers.max(worker + 1), 0);
        sizes[worker] = len;
    }
}
