//! States that go back into the module's table.

use super::Standing;
use host::db::{Db, Query};
use host::{Ctx, Finish};
use std::sync::Arc;

/// How long a write of states may take.
const WRITE_MS: u64 = 30_000;

/// A state, and the statement that writes it.
pub struct Save {
    pub standing: Arc<Standing>,
    pub query: Query,
}

/// Writes states (those for which `Standing::take_unsaved` said so). What could not be written is noted as unsaved
/// again, for the next turn.
pub fn save(ctx: &mut Ctx, module: &'static str, db: &Db, list: Vec<Save>) {
    if list.is_empty() {
        return;
    }
    let pool = db.on(ctx);
    let again: Vec<_> = list.iter().map(|save| save.standing.clone()).collect();
    let queries = list.into_iter().map(|save| save.query).collect();
    ctx.spawn("states of destinations", WRITE_MS, async move {
        let written = pool.run_all(queries).await;
        Box::new(move |_: &mut Ctx| {
            if let Err(error) = written {
                host::error!(
                    module,
                    "states of destinations were not saved, they will be tried again: {error}"
                );
                again.iter().for_each(|standing| standing.note_unsaved());
            }
            1
        }) as Finish
    });
}
