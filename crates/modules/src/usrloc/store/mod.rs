//! Reading and changing contacts wherever they live: in memory, in memory with a database behind it,
//! or only in a database. What must wait for a database suspends its script.

mod flush;
mod publish;
mod rows;
mod shared;
mod visit;

use super::contact::Contact;
use super::table::{Change, Record, Table};
use super::{Mode, Usrloc};
use bytes::Bytes;
use flush::Scope;
use host::cachedb::Store;
use host::call::Finish;
use host::db::{DbError, LIMIT_MS, Pool};
use host::{Ctx, Outcome, Shared, Suspension};
use std::rc::Rc;
use std::sync::Arc;

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
        if self.changes_at_once() {
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
        if self.changes_at_once() {
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

    /// `read_record` beside any script.
    pub fn read_beside<R: 'static>(
        self: &Arc<Usrloc>,
        ctx: &mut Ctx,
        what: &'static str,
        table: &Arc<Table>,
        aor: Bytes,
        pick: impl FnOnce(&Record) -> R + 'static,
        finish: impl FnOnce(&mut Ctx, Result<R, DbError>) + 'static,
    ) {
        let finish = |ctx: &mut Ctx, result| {
            finish(ctx, result);
            1
        };
        if let Outcome::Suspend(operation) = self.read_record(ctx, what, table, aor, pick, finish) {
            beside(ctx, *operation);
        }
    }

    /// Answers come from memory at once.
    pub fn in_memory(&self) -> bool {
        self.mode.in_memory() && *self.loaded.borrow()
    }

    /// A change is made when memory has it: nobody else must know of it first.
    fn changes_at_once(&self) -> bool {
        self.in_memory() && self.mode != Mode::WriteThrough && self.federation.is_none()
    }

    fn place(self: &Arc<Usrloc>, ctx: &mut Ctx, table: &Arc<Table>) -> Place {
        let pool = self.db.as_ref().map(|db| db.on(ctx));
        let cache = self.cache.as_ref().or(self.federation.as_ref().map(|federation| &federation.cache));
        let store = cache.map(|cache| cache.on(ctx));
        let (usrloc, table, shared) = (self.clone(), table.clone(), ctx.shared().clone());
        Place { usrloc, table, shared, pool, store, now: super::now_s(ctx) }
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
        let mine = self.table.shard_of(aor);
        // When the database or the store is down this waits for it in memory, and timers try again.
        if self.usrloc.mode == Mode::WriteThrough {
            let _ = self.flush(Scope::Everything { mine }).await;
        }
        let _ = self.publish(mine).await;
        Ok(done)
    }
}
