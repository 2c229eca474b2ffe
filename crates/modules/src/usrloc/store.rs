//! Reading and changing contacts wherever they live: in memory, in memory with a database behind it,
//! or only in a database. What must wait for a database suspends its script.

use super::cdb;
use super::contact::Contact;
use super::sql::{Ids, Layout, Schema};
use super::table::{Change, Gone, Pending, Record, SHARDS, Table};
use super::{Mode, Usrloc};
use bytes::Bytes;
use host::cachedb::{CacheError, Store};
use host::call::Finish;
use host::db::{DbError, LIMIT_MS, Pool, Query, Rows};
use host::{Ctx, Outcome, Shared, Suspension, error, info};
use std::rc::Rc;
use std::sync::Arc;

/// Rows that are read at once when contacts are loaded.
const PAGE: u64 = 2_000;
/// Statements of one transaction.
const BATCH: usize = 500;
/// Loading a large table may take its time; nobody waits for it to end but new registrations.
const LOAD_LIMIT_MS: u64 = 3_600_000;
const LAST_WRITES_LIMIT_MS: u64 = 60_000;

/// What an operation that waits takes along.
struct Place {
    usrloc: Arc<Usrloc>,
    table: Arc<Table>,
    shared: Arc<Shared>,
    /// `None`: contacts live in memory only.
    pool: Option<Rc<dyn Pool>>,
    store: Option<Rc<dyn Store>>,
    /// Unix second at which the operation began.
    now: u32,
}

impl Usrloc {
    /// Reads one address whole; an empty record when it has no contacts.
    pub fn read_record<R: 'static>(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aor: Bytes,
        pick: impl FnOnce(&Record) -> R + 'static,
        finish: impl FnOnce(&mut Ctx, Result<R, DbError>) -> i32 + 'static,
    ) -> Outcome {
        if self.in_memory() {
            let picked = table.with(&aor, |record, _| pick(record)).0;
            return Outcome::Done(finish(ctx, Ok(picked)));
        }
        let place = self.place(ctx, table);
        let detail = aor.clone();
        let future = async move {
            let picked = place.record(&aor).await.map(|record| pick(&record));
            Box::new(move |ctx: &mut Ctx| finish(ctx, picked)) as Finish
        };
        Suspension::future(what, future).detail(detail).limit(LIMIT_MS, -1)
    }

    /// Shows the contacts of some addresses to `pick` (expired ones too; not the addresses without
    /// any), then runs `finish`.
    pub fn read<R: Default + 'static>(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aors: Vec<Bytes>,
        mut pick: impl FnMut(&mut R, &Bytes, &[Contact]) + 'static,
        finish: impl FnOnce(&mut Ctx, Result<R, DbError>) -> i32 + 'static,
    ) -> Outcome {
        if self.in_memory() {
            let mut picked = R::default();
            for aor in &aors {
                table.read(aor, |record| pick(&mut picked, aor, &record.contacts));
            }
            return Outcome::Done(finish(ctx, Ok(picked)));
        }
        let place = self.place(ctx, table);
        let detail = aors.first().cloned().unwrap_or_default();
        let future = async move {
            let mut picked = R::default();
            let mut result = Ok(());
            for aor in aors {
                match place.record(&aor).await {
                    Ok(record) => pick(&mut picked, &aor, &record.contacts),
                    Err(error) => result = Err(error),
                }
            }
            Box::new(move |ctx: &mut Ctx| finish(ctx, result.map(|()| picked))) as Finish
        };
        Suspension::future(what, future).detail(detail).limit(LIMIT_MS, -1)
    }

    /// Changes the contacts of an address with `work`, which reports what it did, then runs `finish`.
    /// Where the database is written through, `finish` runs when it has been.
    pub fn change<R: 'static>(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aor: Bytes,
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R + 'static,
        finish: impl FnOnce(&mut Ctx, Result<R, DbError>) -> i32 + 'static,
    ) -> Outcome {
        if self.in_memory() && self.mode != Mode::WriteThrough {
            let (result, changes) = table.with(&aor, work);
            self.changed(ctx, table, &aor, &changes);
            return Outcome::Done(finish(ctx, Ok(result)));
        }
        let place = self.place(ctx, table);
        let detail = aor.clone();
        let future = async move {
            let done = place.change(&aor, work).await;
            Box::new(move |ctx: &mut Ctx| {
                let result = done.map(|(result, changes)| {
                    place.usrloc.changed(ctx, &place.table, &aor, &changes);
                    result
                });
                finish(ctx, result)
            }) as Finish
        };
        Suspension::future(what, future).detail(detail).limit(LIMIT_MS, -1)
    }

    /// `change` for several addresses, one after the other; `finish` gets what went wrong first.
    pub fn change_each(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aors: Vec<Bytes>,
        work: impl Fn(&mut Record, &mut Vec<Change>) + 'static,
        finish: impl FnOnce(&mut Ctx, Result<(), DbError>) -> i32 + 'static,
    ) -> Outcome {
        if self.in_memory() && self.mode != Mode::WriteThrough {
            for aor in aors {
                let ((), changes) = table.with(&aor, &work);
                self.changed(ctx, table, &aor, &changes);
            }
            return Outcome::Done(finish(ctx, Ok(())));
        }
        let place = self.place(ctx, table);
        let future = async move {
            let (mut all, mut result) = (Vec::new(), Ok(()));
            for aor in aors {
                match place.change(&aor, &work).await {
                    Ok(((), changes)) => all.push((aor, changes)),
                    Err(error) => result = result.and(Err(error)),
                }
            }
            Box::new(move |ctx: &mut Ctx| {
                for (aor, changes) in all {
                    place.usrloc.changed(ctx, &place.table, &aor, &changes);
                }
                finish(ctx, result)
            }) as Finish
        };
        Suspension::future(what, future).limit(LIMIT_MS, -1)
    }

    /// The same beside any script (management commands, timers).
    pub fn change_beside<R: 'static>(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aor: Bytes,
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R + 'static,
        finish: impl FnOnce(&mut Ctx, Result<R, DbError>) + 'static,
    ) {
        let finish = |ctx: &mut Ctx, result| {
            finish(ctx, result);
            1
        };
        if let Outcome::Suspend(operation) = self.change(ctx, what, table, aor, work, finish) {
            beside(ctx, *operation);
        }
    }

    /// `read` beside any script.
    pub fn read_beside<R: Default + 'static>(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aor: Bytes,
        pick: impl FnMut(&mut R, &Bytes, &[Contact]) + 'static,
        finish: impl FnOnce(&mut Ctx, Result<R, DbError>) + 'static,
    ) {
        let finish = |ctx: &mut Ctx, result| {
            finish(ctx, result);
            1
        };
        if let Outcome::Suspend(operation) = self.read(ctx, what, table, vec![aor], pick, finish) {
            beside(ctx, *operation);
        }
    }

    /// Answers come from memory at once.
    pub fn in_memory(&self) -> bool {
        self.mode.in_memory() && *self.loaded.borrow()
    }

    fn place(self: &Arc<Usrloc>, ctx: &mut Ctx, table: &Arc<Table>) -> Place {
        let pool = self.db.as_ref().map(|db| db.on(ctx));
        let store = self.cache.as_ref().map(|cache| cache.on(ctx));
        let (usrloc, table, shared) = (self.clone(), table.clone(), ctx.shared().clone());
        Place { usrloc, table, shared, pool, store, now: super::now_s(ctx) }
    }

    /// Worker 0, at start: what the database holds comes into memory; until then registrations wait.
    pub(super) fn load(self: &Arc<Usrloc>, ctx: &mut Ctx) {
        let places: Vec<Place> = self.tables().iter().map(|table| self.place(ctx, table)).collect();
        let usrloc = self.clone();
        ctx.spawn("usrloc load", LOAD_LIMIT_MS, async move {
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
    pub(super) fn flush_beside(self: &Arc<Usrloc>, ctx: &mut Ctx, table: &Arc<Table>, shard: usize) {
        let place = self.place(ctx, table);
        ctx.spawn("usrloc flush", LIMIT_MS, async move {
            let _ = place.flush(Scope::Shard(shard)).await;
            Box::new(|_: &mut Ctx| 1) as Finish
        });
    }

    /// Writes everything that is pending; `done` gets what went wrong first.
    pub(super) fn flush_all(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        done: impl FnOnce(&mut Ctx, Result<(), DbError>) + 'static,
    ) {
        let places: Vec<Place> = self.tables().iter().map(|table| self.place(ctx, table)).collect();
        ctx.spawn("usrloc flush", LAST_WRITES_LIMIT_MS, async move {
            let mut result = Ok(());
            for place in &places {
                for shard in 0..SHARDS {
                    result = result.and(place.flush(Scope::Shard(shard)).await);
                }
            }
            Box::new(move |ctx: &mut Ctx| {
                done(ctx, result);
                1
            }) as Finish
        });
    }

    /// Empties a table of the database, or the rows of one address, and writes them again.
    pub(super) fn rewrite(
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
    pub(super) fn expire_rows(self: &Arc<Usrloc>, ctx: &mut Ctx, now: u32) {
        for table in self.tables() {
            let place = self.place(ctx, &table);
            ctx.spawn("usrloc expire", LIMIT_MS, async move {
                let _ = place.expire_rows(now).await;
                Box::new(|_: &mut Ctx| 1) as Finish
            });
        }
    }
}

/// Runs what a function would have suspended on without a script.
fn beside(ctx: &mut Ctx, operation: Suspension) {
    if let host::Wait::Future(future) = operation.wait {
        ctx.spawn(operation.what, operation.limit_ms, future);
    }
}

impl Place {
    /// Memory is filled, if it will be.
    async fn loaded(&self) {
        let mut loaded = self.usrloc.loaded.subscribe();
        let _ = loaded.wait_for(|loaded| *loaded).await;
    }

    fn pool(&self) -> Result<&Rc<dyn Pool>, DbError> {
        self.pool.as_ref().ok_or(DbError::Unsupported("connection"))
    }

    /// How rows of the table look: asked once.
    async fn schema(&self) -> Result<Schema, DbError> {
        let usrloc = &self.usrloc;
        let schema = |layout| Schema {
            columns: usrloc.columns.clone(),
            layout,
            ids: if usrloc.mode == Mode::SqlOnly { Ids::OfDatabase } else { Ids::Ours },
            use_domain: usrloc.use_domain,
        };
        if let Some(layout) = usrloc.layout.get() {
            return Ok(schema(*layout));
        }
        let ask = Query::select(self.table.name.clone()).column(&usrloc.columns.contact_id).limit(1);
        let layout = match self.pool()?.run(ask).await {
            Ok(_) => Layout::ById,
            Err(DbError::Refused { .. }) => {
                let ask = Query::select(self.table.name.clone()).column("id").limit(1);
                self.pool()?.run(ask).await?;
                Layout::ByKey
            }
            Err(error) => return Err(error),
        };
        Ok(schema(*usrloc.layout.get_or_init(|| layout)))
    }

    /// A copy of the contacts of an address.
    async fn record(&self, aor: &[u8]) -> Result<Record, DbError> {
        match self.usrloc.mode {
            Mode::SqlOnly => {}
            Mode::Cache => return self.shared_record(aor).await,
            _ => {
                self.loaded().await;
                return Ok(self.table.read(aor, Record::clone).unwrap_or_default());
            }
        }
        let rows = self.pool()?.run(self.schema().await?.select(&self.table.name, aor)).await?;
        Ok(self.record_of(&self.schema().await?, &rows))
    }

    fn record_of(&self, schema: &Schema, rows: &Rows) -> Record {
        let mut record = Record::default();
        for row in rows.iter() {
            if let Some((_, contact, keys)) = schema.read(&self.shared, row) {
                record.insert(contact, self.usrloc.order);
                if !keys.is_empty() {
                    record.keys = Some(Box::new(keys));
                }
            }
        }
        record
    }

    async fn change<R>(
        &self,
        aor: &Bytes,
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R,
    ) -> Result<(R, Vec<Change>), DbError> {
        match self.usrloc.mode {
            Mode::SqlOnly => return self.change_rows(aor, work).await,
            Mode::Cache => return self.change_shared(aor, work).await,
            _ => self.loaded().await,
        }
        let done = self.table.with(aor, work);
        if self.usrloc.mode == Mode::WriteThrough {
            // When the database is down the contacts stay pending, and the timer writes them later.
            let _ = self.flush(Scope::Everything { mine: self.table.shard_of(aor) }).await;
        }
        Ok(done)
    }

    /// Reads, changes and writes the rows of an address; changes of this server do not overlap.
    async fn change_rows<R>(
        &self,
        aor: &Bytes,
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R,
    ) -> Result<(R, Vec<Change>), DbError> {
        let _order = self.table.changing[self.table.shard_of(aor)].lock().await;
        let schema = self.schema().await?;
        let name = &self.table.name;
        let rows = self.pool()?.run(schema.select(name, aor)).await?;
        let mut record = self.record_of(&schema, &rows);
        let mut changes = Vec::new();
        let result = work(&mut record, &mut changes);
        let keys = record.keys_json();
        let mut queries = Vec::new();
        for change in &changes {
            match change {
                Change::Inserted(c) | Change::Updated(c) | Change::Touched(c) => {
                    queries.extend(schema.write(&self.shared, name, aor, c, &keys));
                }
                Change::Deleted(c) => queries.extend(schema.delete(name, &Gone::of(aor, c))),
                Change::Moved { .. } | Change::AorInserted | Change::AorDeleted => {}
            }
        }
        // Before everything else: a contact that moved leaves its old row where that is its key.
        for change in &changes {
            if let Change::Moved { id, uri, call_id } = change {
                let gone = Gone::moved(aor, *id, uri, call_id);
                if let Some(query) = schema.delete(name, &gone) {
                    queries.insert(0, query);
                }
            }
        }
        if !queries.is_empty() {
            self.pool()?.run_all(queries).await?;
        }
        Ok((result, changes))
    }

    /// The contacts of an address in the store.
    async fn shared_record(&self, aor: &[u8]) -> Result<Record, DbError> {
        let fields = cdb::read(self.store()?, cdb::key(&self.table.name, aor)).await.map_err(of_store)?;
        let mut record = Record::default();
        for (contact, keys) in cdb::unpack(&self.shared, aor, &fields) {
            record.insert(contact, self.usrloc.order);
            if !keys.is_empty() {
                record.keys = Some(Box::new(keys));
            }
        }
        Ok(record)
    }

    /// Reads, changes and writes an address in the store; changes of this server do not overlap, those
    /// of others touch other contacts.
    async fn change_shared<R>(
        &self,
        aor: &Bytes,
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R,
    ) -> Result<(R, Vec<Change>), DbError> {
        let _order = self.table.changing[self.table.shard_of(aor)].lock().await;
        let mut record = self.shared_record(aor).await?;
        let mut changes = Vec::new();
        let result = work(&mut record, &mut changes);
        let (set, unset) = cdb::fields(&self.shared, &record, &changes, &self.usrloc.matching);
        if !set.is_empty() || !unset.is_empty() {
            let key = cdb::key(&self.table.name, aor);
            let life = cdb::lifetime(&record, self.now);
            cdb::write(self.store()?, key, set, unset, life).await.map_err(of_store)?;
        }
        Ok((result, changes))
    }

    fn store(&self) -> Result<&Rc<dyn Store>, DbError> {
        self.store.as_ref().ok_or(DbError::Unsupported("connection"))
    }

    /// Writes what is pending. One transaction takes along what came while the last one was written.
    async fn flush(&self, scope: Scope) -> Result<(), DbError> {
        if self.pool.is_none() || self.usrloc.mode == Mode::Memory {
            return Ok(());
        }
        let _order = self.table.writing.lock().await;
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
        let name = &self.table.name;
        let all = || writing.pending.iter().map(|(_, pending)| pending);
        let deletes = all().flat_map(|p| &p.gone).filter_map(|gone| schema.delete(name, gone));
        let writes = all()
            .flat_map(|p| &p.contacts)
            .flat_map(|(aor, contact, keys)| schema.write(&self.shared, name, aor, contact, keys));
        let queries: Vec<Query> = deletes.chain(writes).collect();
        for batch in queries.chunks(BATCH) {
            self.write(batch).await?;
        }
        for (shard, pending) in std::mem::take(&mut writing.pending) {
            self.table.written(shard, pending);
        }
        Ok(())
    }

    /// One transaction; when the database refuses it, each statement alone: one bad row must not keep
    /// the others from being written.
    async fn write(&self, batch: &[Query]) -> Result<(), DbError> {
        match self.pool()?.run_all(batch.to_vec()).await {
            Ok(_) => return Ok(()),
            Err(DbError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        for query in batch {
            match self.pool()?.run(query.clone()).await {
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
    async fn load(&self) -> Result<(), DbError> {
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

    async fn rewrite(&self, aor: Option<Bytes>) -> Result<(), DbError> {
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

    async fn expire_rows(&self, now: u32) -> Result<(), DbError> {
        let query = self.schema().await?.delete_expired(&self.table.name, now);
        self.pool()?.run(query).await.map(drop)
    }
}

fn of_store(error: CacheError) -> DbError {
    match error {
        CacheError::Busy => DbError::Busy,
        CacheError::TimedOut => DbError::TimedOut,
        CacheError::Unsupported(what) => DbError::Unsupported(what),
        other => DbError::Down(other.to_string()),
    }
}

/// Which pending changes are written.
#[derive(Clone, Copy)]
enum Scope {
    Shard(usize),
    /// All there are, unless nothing is left of this shard.
    Everything { mine: usize },
}

/// What is being written, by shard; dropped before it is done, it stays pending.
struct Writing<'a> {
    table: &'a Table,
    pending: Vec<(usize, Pending)>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        for (shard, pending) in std::mem::take(&mut self.pending) {
            self.table.not_written(shard, pending);
        }
    }
}
