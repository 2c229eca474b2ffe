//! Memory and its database: loading at start, writing what has changed.

use super::Place;
use crate::usrloc::sql::Schema;
use crate::usrloc::table::{Pending, SHARDS, Table};
use crate::usrloc::{Mode, Usrloc};
use bytes::Bytes;
use host::call::Finish;
use host::db::{DbError, LIMIT_MS, Query};
use host::{Ctx, error, info};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Rows that are read at once when contacts are loaded.
const PAGE: u64 = 2_000;
/// Statements of one transaction.
const BATCH: usize = 500;
/// Loading a large table may take its time; nobody waits for it to end but new registrations.
const LOAD_LIMIT_MS: u64 = 3_600_000;
const LAST_WRITES_LIMIT_MS: u64 = 60_000;

impl Usrloc {
    /// Worker 0, at start: what the database holds comes into memory; until then registrations wait.
    pub(in crate::usrloc) fn load(self: &Arc<Usrloc>, ctx: &mut Ctx) {
        let places: Vec<Place> = self.tables().iter().map(|table| self.place(ctx, table)).collect();
        let usrloc = self.clone();
        ctx.spawn_aside("usrloc load", LOAD_LIMIT_MS, async move {
            for place in places {
                let mut tries = 0;
                while let Err(e) = place.load().await {
                    if tries == 0 {
                        error!("usrloc", "cannot load table {} yet: {e}", place.table.name);
                        // Phones register again: better without the old contacts than not at all.
                        usrloc.loaded.send_replace(true);
                    }
                    tries += 1;
                    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                }
            }
            usrloc.loaded.send_replace(true);
            Box::new(|_: &mut Ctx| 1) as Finish
        });
    }

    /// Writes what is pending in one shard of a table, beside any script.
    pub(in crate::usrloc) fn flush_beside(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        table: &Arc<Table>,
        shard: usize,
    ) {
        let place = self.place(ctx, table);
        ctx.spawn("usrloc flush", LIMIT_MS, async move {
            let _ = place.flush(Scope::Shard(shard)).await;
            Box::new(|_: &mut Ctx| 1) as Finish
        });
    }

    /// Tries again what the database did not take, unless an attempt is under way.
    pub(in crate::usrloc) fn catch_up(self: &Arc<Usrloc>, ctx: &mut Ctx, table: &Arc<Table>) {
        if !table.behind.load(Ordering::Relaxed) || table.writing.try_lock().is_err() {
            return;
        }
        let Some(mine) = (0..SHARDS).find(|shard| table.is_pending(*shard)) else { return };
        let place = self.place(ctx, table);
        ctx.spawn("usrloc flush", LIMIT_MS, async move {
            let _ = place.flush(Scope::Everything { mine }).await;
            Box::new(|_: &mut Ctx| 1) as Finish
        });
    }

    /// Writes everything that is pending; `done` gets what went wrong first. With `patience`, a database that does not take
    /// it is asked again and again in that time.
    pub(in crate::usrloc) fn flush_all(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        patience: Duration,
        done: impl FnOnce(&mut Ctx, Result<(), DbError>) + 'static,
    ) {
        let places: Vec<Place> = self.tables().iter().map(|table| self.place(ctx, table)).collect();
        ctx.spawn("usrloc flush", LAST_WRITES_LIMIT_MS, async move {
            let mut result = Ok(());
            for pause in std::iter::once(Duration::ZERO).chain(pauses(patience)) {
                tokio::time::sleep(pause).await;
                result = Ok(());
                for place in &places {
                    result = result.and(place.flush_shards().await);
                }
                if result.is_ok() {
                    break;
                }
            }
            Box::new(move |ctx: &mut Ctx| {
                done(ctx, result);
                1
            }) as Finish
        });
    }

    /// Empties a table of the database, or the rows of one address, and writes them again.
    pub(in crate::usrloc) fn rewrite(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        table: &Arc<Table>,
        aor: Option<Bytes>,
        done: impl FnOnce(&mut Ctx, Result<(), DbError>) + 'static,
    ) {
        let place = self.place(ctx, table);
        ctx.spawn("usrloc sync", LAST_WRITES_LIMIT_MS, async move {
            let result = place.rewrite(aor).await;
            Box::new(move |ctx: &mut Ctx| {
                done(ctx, result);
                1
            }) as Finish
        });
    }

    /// Removes expired rows where no memory knows them.
    pub(in crate::usrloc) fn expire_rows(self: &Arc<Usrloc>, ctx: &mut Ctx, now: u32) {
        for table in self.tables() {
            let place = self.place(ctx, &table);
            ctx.spawn("usrloc expire", LIMIT_MS, async move {
                let _ = place.expire_rows(now).await;
                Box::new(|_: &mut Ctx| 1) as Finish
            });
        }
    }
}

/// Pauses between attempts, for `patience` all together.
fn pauses(patience: Duration) -> impl Iterator<Item = Duration> {
    const PAUSE: Duration = Duration::from_millis(250);
    std::iter::repeat_n(PAUSE, (patience.as_millis() / PAUSE.as_millis()) as usize)
}

impl Place {
    /// Writes what is pending in each shard, until one fails.
    async fn flush_shards(&self) -> Result<(), DbError> {
        for shard in 0..SHARDS {
            self.flush(Scope::Shard(shard)).await?;
        }
        Ok(())
    }

    /// Writes what is pending, and notes whether that went well.
    pub(super) async fn flush(&self, scope: Scope) -> Result<(), DbError> {
        let result = self.try_flush(scope).await;
        match (&result, scope) {
            (Ok(()), Scope::Everything { .. }) => self.table.behind.store(false, Ordering::Relaxed),
            (Ok(()), Scope::Shard(_)) => {}
            (Err(_), _) => self.table.behind.store(true, Ordering::Relaxed),
        }
        result
    }

    /// Writes what is pending. One transaction takes along what came while the last one was written.
    async fn try_flush(&self, scope: Scope) -> Result<(), DbError> {
        if self.pool.is_none() || self.usrloc.mode == Mode::Memory {
            return Ok(());
        }
        let failures = self.table.failures.load(Ordering::Relaxed);
        let _order = self.table.writing.lock().await;
        if self.table.failures.load(Ordering::Relaxed) != failures {
            // The database did not take it while this waited: asking once more now would make everybody wait in a row.
            return Err(DbError::Busy);
        }
        let result = self.write_pending(scope).await;
        if result.is_err() {
            self.table.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn write_pending(&self, scope: Scope) -> Result<(), DbError> {
        let (mine, shards) = match scope {
            Scope::Shard(shard) => (shard, shard..shard + 1),
            Scope::Everything { mine } => (mine, 0..SHARDS),
        };
        if !self.table.is_pending(mine) {
            return Ok(());
        }
        let mut writing = Writing { table: &self.table, pending: Vec::new() };
        for shard in shards.filter(|shard| self.table.is_pending(*shard)) {
            writing.pending.push((shard, self.table.pending(shard)));
        }
        let schema = self.schema().await?;
        let mut left = self.statements(&schema, &writing);
        let mut done = 0;
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(BATCH));
            let count = left.len();
            let again = || self.statements(&schema, &writing).into_iter().skip(done).take(count);
            self.write(left, again).await?;
            (left, done) = (rest, done + count);
        }
        for (shard, pending) in std::mem::take(&mut writing.pending) {
            self.table.written(shard, pending);
        }
        Ok(())
    }

    /// What makes the database have what is pending; the same each time.
    fn statements(&self, schema: &Schema, writing: &Writing<'_>) -> Vec<Query> {
        let name = &self.table.name;
        let all = || writing.pending.iter().map(|(_, pending)| pending);
        let deletes = all().flat_map(|p| &p.gone).filter_map(|gone| schema.delete(name, gone));
        let writes = all()
            .flat_map(|p| &p.contacts)
            .flat_map(|(aor, contact, keys)| schema.write(&self.shared, name, aor, contact, keys));
        deletes.chain(writes).collect()
    }

    /// One transaction; when the database refuses it, each statement (from `again`) alone: one bad row must
    /// not keep the others from being written.
    async fn write<I: Iterator<Item = Query>>(
        &self,
        batch: Vec<Query>,
        again: impl FnOnce() -> I,
    ) -> Result<(), DbError> {
        let together = match self.usrloc.db.as_ref().is_some_and(|db| db.url().scheme == "sqlite") {
            // Nothing is far away, and statements that are the same but for their values are kept.
            true => batch,
            false => Query::merged(batch),
        };
        match self.pool()?.run_all(together).await {
            Ok(_) => return Ok(()),
            Err(DbError::Refused { .. }) => {}
            // Also when it cannot do it now: nothing was written, all of it stays pending.
            Err(error) => return Err(error),
        }
        for query in again() {
            match self.pool()?.run(query).await {
                Ok(_) => {}
                Err(e @ DbError::Refused { .. }) => {
                    error!("usrloc", "the database refuses a contact of table {}: {e}", self.table.name);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the contacts of the table into memory.
    pub(super) async fn load(&self) -> Result<(), DbError> {
        let schema = self.schema().await?;
        let (mut after, mut count) = (0, 0);
        loop {
            let rows = self.pool()?.run(schema.page(&self.table.name, after, PAGE)).await?;
            for row in rows.iter() {
                after = schema.row_id(row).max(after);
                if let Some((aor, contact, keys)) = schema.read(&self.shared, row) {
                    self.table.restore(&aor, contact, self.usrloc.order);
                    if !keys.is_empty() {
                        self.table.with(&aor, |record, _| record.keys = Some(Box::new(keys)));
                    }
                    count += 1;
                }
            }
            if (rows.len() as u64) < PAGE {
                break;
            }
        }
        info!("usrloc", "loaded {count} contacts of table {}", self.table.name);
        Ok(())
    }

    pub(super) async fn rewrite(&self, aor: Option<Bytes>) -> Result<(), DbError> {
        self.loaded().await;
        let schema = self.schema().await?;
        let query = match &aor {
            Some(aor) => schema.delete_aor(&self.table.name, aor),
            None => Query::delete(self.table.name.clone()),
        };
        self.pool()?.run(query).await?;
        self.table.forget_database(aor.as_deref());
        let shards = match &aor {
            Some(aor) => self.table.shard_of(aor)..self.table.shard_of(aor) + 1,
            None => 0..SHARDS,
        };
        for shard in shards {
            self.flush(Scope::Shard(shard)).await?;
        }
        Ok(())
    }
}

/// Which pending changes are written.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    Shard(usize),
    /// All there are, unless nothing is left of this shard.
    Everything {
        mine: usize,
    },
}

/// What is being written, by shard; dropped before it is done, it stays pending.
struct Writing<'a> {
    table: &'a Table,
    pending: Vec<(usize, Pending)>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.table.behind.store(true, Ordering::Relaxed);
        }
        for (shard, pending) in std::mem::take(&mut self.pending) {
            self.table.not_written(shard, pending);
        }
    }
}
