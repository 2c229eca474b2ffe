//! From memory to the database. Rows of one worker go out together, one transaction after the other.

use super::Mode;
use super::row::Rows;
use crate::dialog::context::ask_all;
use crate::dialog::table::{self, Key};
use crate::dialog::{Did, Dlg, State};
use host::Ctx;
use host::call::Finish;
use host::db::{DbError, LIMIT_MS, Query};
use host::mi::{MiAnswer, MiError};
use std::sync::Arc;

/// Statements of one transaction.
const BATCH: usize = 500;
/// Milliseconds that changes gather before they are written: an answer and its ACK make one row.
const GATHER_MS: u64 = 20;
/// Pause after a write that failed, in milliseconds.
const RETRY_MS: u64 = 1000;
/// Time that the last writes may take.
const LAST_LIMIT_MS: u64 = 60_000;

/// What waits to be written on this worker.
#[derive(Default)]
struct Writing {
    /// Held by every write that is not done; what comes later waits for it.
    running: Arc<()>,
    /// A look is due.
    soon: bool,
    /// Not before this time.
    not_before: transaction::Instant,
}

impl Writing {
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.running) > 1
    }
}

/// Something has changed: in real time it is written as soon as the write before it is done.
pub fn soon(ctx: &mut Ctx) {
    let Some(module) = crate::dialog::api::module(ctx).filter(|m| m.store.mode == Mode::Realtime) else {
        return;
    };
    let writing = ctx.local::<Writing>();
    if writing.is_busy() || std::mem::replace(&mut writing.soon, true) {
        return;
    }
    ctx.after(GATHER_MS, move |ctx| {
        ctx.local::<Writing>().soon = false;
        tick(ctx, &module);
    });
}

/// Looks whether there is something to write, and writes it beside everything else.
pub fn tick(ctx: &mut Ctx, module: &Arc<Dlg>) {
    let period = match module.store.mode {
        Mode::None | Mode::Shutdown => return,
        Mode::Realtime => 0,
        Mode::Delayed => u64::from(module.store.period) * 1000,
    };
    let now = ctx.core.now;
    let writing = ctx.local::<Writing>();
    if writing.is_busy() || writing.not_before > now {
        return;
    }
    writing.not_before = now.after(period);
    let (keys, gone) = table::of(ctx).take_unsaved(BATCH);
    if keys.is_empty() && gone.is_empty() {
        return;
    }
    let rows = Rows::new(ctx, module);
    let table = table::of(ctx);
    let mut queries: Vec<Query> = gone.iter().map(|did| rows.delete(*did)).collect();
    for key in &keys {
        let Some(dialog) = table.get_mut(*key) else { continue };
        if dialog.state.is_answered() {
            dialog.stored = true;
            queries.push(rows.write(&dialog.data, module.store.with_values));
        } else if dialog.state == State::Ended && dialog.stored {
            dialog.stored = false;
            queries.push(rows.delete(dialog.did));
        }
    }
    if queries.is_empty() {
        return;
    }
    // What is left goes next.
    if table.has_unsaved() {
        ctx.local::<Writing>().not_before = now;
    }
    send(ctx, module, queries, keys, gone);
}

fn send(ctx: &mut Ctx, module: &Arc<Dlg>, queries: Vec<Query>, keys: Vec<Key>, gone: Vec<Did>) {
    let Some(db) = &module.store.db else { return };
    let running = ctx.local::<Writing>().running.clone();
    let pool = db.on(ctx);
    ctx.spawn("dialog write", LIMIT_MS, async move {
        let mut result = pool.run_all(Query::merged(queries.clone())).await.map(drop);
        if let Err(DbError::Refused { .. }) = result {
            // One bad row must not keep the others from being written.
            result = Ok(());
            for query in queries {
                match pool.run(query).await {
                    Ok(_) => {}
                    Err(e @ DbError::Refused { .. }) => {
                        host::error!("dialog", "the database refuses a dialog: {e}")
                    }
                    Err(error) => result = Err(error),
                }
            }
        }
        Box::new(move |ctx: &mut Ctx| {
            drop(running);
            if let Err(error) = result {
                host::error!("dialog", "dialogs are not in the database yet: {error}");
                ctx.local::<Writing>().not_before = ctx.core.now.after(RETRY_MS);
                table::of(ctx).not_written(keys, gone);
            } else if table::of(ctx).has_unsaved() {
                soon(ctx);
            }
            1
        }) as Finish
    });
}

/// The server ends: every answered dialog of every worker is written, with all that belongs to it.
pub fn at_end(ctx: &mut Ctx, module: &Arc<Dlg>) {
    if module.store.mode == Mode::None {
        return;
    }
    let Some(db) = &module.store.db else { return };
    let (pool, asked) = (db.on(ctx), module.clone());
    let answers = ask_all(ctx, move |ctx| Some(everything(ctx, &asked)));
    // A table that is only written at the end still has the calls of the end before.
    let old = (module.store.mode == Mode::Shutdown).then(|| Query::delete(module.store.table.clone()));
    ctx.spawn("dialog last writes", LAST_LIMIT_MS, async move {
        let living = answers.await.into_iter().flat_map(|(_, list)| list);
        let queries: Vec<Query> = old.into_iter().chain(living).collect();
        if let Err(error) = write_all(&*pool, queries).await {
            host::error!("dialog", "not all dialogs could be written: {error}");
        }
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}

/// All that the database must be told of this worker's dialogs.
fn everything(ctx: &mut Ctx, module: &Arc<Dlg>) -> Vec<Query> {
    let rows = Rows::new(ctx, module);
    let table = table::of(ctx);
    let (_, gone) = table.take_unsaved(usize::MAX);
    let mut queries: Vec<Query> = gone.into_iter().map(|did| rows.delete(did)).collect();
    for (_, dialog) in table.iter() {
        if dialog.state.is_answered() {
            queries.push(rows.write(&dialog.data, true));
        } else if dialog.state == State::Ended && dialog.stored {
            queries.push(rows.delete(dialog.did));
        }
    }
    queries
}

async fn write_all(pool: &dyn host::db::Pool, mut queries: Vec<Query>) -> Result<(), DbError> {
    while !queries.is_empty() {
        let rest = queries.split_off(queries.len().min(BATCH));
        pool.run_all(Query::merged(queries)).await?;
        queries = rest;
    }
    Ok(())
}

/// `dialog:restore_db`: the table is emptied and written again.
pub fn rewrite(ctx: &mut Ctx, module: &Arc<Dlg>, answer: MiAnswer) {
    let db = module.store.db.as_ref().filter(|_| matches!(module.store.mode, Mode::Realtime | Mode::Delayed));
    let Some(db) = db else {
        return answer
            .give(Err(MiError::new(400, "dialogs are not kept in a database while the server runs")));
    };
    let (pool, asked) = (db.on(ctx), module.clone());
    let empty = Query::delete(module.store.table.clone());
    let answers = ask_all(ctx, move |ctx| {
        // A call that ends meanwhile must not be taken out before its row is written.
        let running = ctx.local::<Writing>().running.clone();
        let rows = Rows::new(ctx, &asked);
        let table = table::of(ctx);
        let living: Vec<Key> =
            table.iter().filter(|(_, d)| d.state.is_answered()).map(|(key, _)| key).collect();
        let write = |key: Key| {
            let dialog = table.get_mut(key)?;
            dialog.stored = true;
            Some(rows.write(&dialog.data, asked.store.with_values))
        };
        Some((living.into_iter().filter_map(write).collect::<Vec<_>>(), running))
    });
    ctx.spawn("dialog rewrite", LAST_LIMIT_MS, async move {
        let (queries, running): (Vec<Vec<Query>>, Vec<_>) =
            answers.await.into_iter().map(|(_, told)| told).unzip();
        let queries: Vec<Query> = queries.into_iter().flatten().collect();
        let result = match pool.run(empty).await {
            Ok(_) => write_all(&*pool, queries).await,
            Err(error) => Err(error),
        };
        answer.give(match result {
            Ok(()) => Ok("OK".into()),
            Err(error) => Err(MiError::internal(error.to_string())),
        });
        drop(running);
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}
