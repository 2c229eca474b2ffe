//! Rows that nobody waits for: kept until there are enough for one statement (`query_buffer_size`) or the
//! oldest has waited long enough (`query_flush_time`).

use super::query::{Action, Query, TableQuery};
use super::{Db, DbError, LIMIT_MS, Pool};
use crate::call::Finish;
use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::services::db::Databases;
use crate::shared::{Hook, Hooks};
use parking_lot::Mutex;
use std::rc::Rc;
use std::sync::Arc;

/// Seconds that a row waits at most when `query_flush_time` says nothing.
const FLUSH_S: i64 = 10;
/// How often old rows are looked for.
const LOOK_MS: u64 = 1000;
/// More rows in one statement would not be faster.
const MAX_ROWS: i64 = 10_000;

/// What to do when a row could not be written.
type Failed = Box<dyn FnOnce(&DbError) + Send>;

/// Rows of one table and the same columns.
struct Batch {
    /// The first row; the further ones stand in it.
    query: Box<TableQuery>,
    failed: Vec<Failed>,
    since_us: u64,
}

/// Rows that wait, of all workers.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Vec<Batch>>);

impl Db {
    /// Writes a row some time soon, together with others when `query_buffer_size` is 2 or more. The
    /// query is an insert of one row; `failed` is called when it could not be written.
    pub fn insert_later(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        row: Query,
        failed: impl FnOnce(&DbError) + Send + 'static,
    ) {
        let size = ctx.shared().globals.core.query_buffer_size.min(MAX_ROWS);
        let failed: Failed = Box::new(failed);
        let query = match row {
            Query::Table(query) if size > 1 && query.action == Action::Insert => query,
            row => return self.write(ctx, what, row, vec![failed]),
        };
        let now = ctx.core.wall_us;
        if let Some(batch) = self.0.waiting.add(query, failed, size as usize, now) {
            self.write(ctx, what, Query::Table(batch.query), batch.failed);
        }
    }

    /// Writes what waited since before `since_us`.
    fn flush(&self, ctx: &mut Ctx, since_us: u64) {
        for batch in self.0.waiting.older(since_us) {
            self.write(ctx, "insert", Query::Table(batch.query), batch.failed);
        }
    }

    fn write(&self, ctx: &mut Ctx, what: &'static str, query: Query, failed: Vec<Failed>) {
        let pool = self.on(ctx);
        ctx.spawn(what, LIMIT_MS, async move {
            write(pool, query, failed).await;
            Box::new(|_: &mut Ctx| 1) as Finish
        });
    }
}

async fn write(pool: Rc<dyn Pool>, query: Query, failed: Vec<Failed>) {
    let Err(error) = pool.run(query.clone()).await else { return };
    let rows = match query {
        // One bad row must not take the others with it.
        Query::Table(query) if !query.rows.is_empty() && matches!(error, DbError::Refused { .. }) => {
            query.apart()
        }
        _ => return failed.into_iter().for_each(|failed| failed(&error)),
    };
    for (row, failed) in rows.into_iter().zip(failed) {
        if let Err(error) = pool.run(row).await {
            failed(&error);
        }
    }
}

impl Waiting {
    /// Adds a row; gives back the batch that is full now.
    fn add(&self, query: Box<TableQuery>, failed: Failed, size: usize, now_us: u64) -> Option<Batch> {
        let mut batches = self.0.lock();
        let same = |batch: &Batch| batch.query.takes(&query);
        let Some(at) = batches.iter().position(same) else {
            batches.push(Batch { query, failed: vec![failed], since_us: now_us });
            return None;
        };
        let batch = &mut batches[at];
        batch.query.rows.push(query.values.into_iter().map(|(_, value)| value).collect());
        batch.failed.push(failed);
        (batch.failed.len() >= size).then(|| batches.swap_remove(at))
    }

    fn older(&self, since_us: u64) -> Vec<Batch> {
        self.0.lock().extract_if(.., |batch| batch.since_us <= since_us).collect()
    }
}

impl TableQuery {
    /// The other row goes into the same table and columns.
    fn takes(&self, other: &TableQuery) -> bool {
        self.table == other.table
            && self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(|((a, _), (b, _))| a == b)
    }

    /// Each row as an insert of its own.
    fn apart(self) -> Vec<Query> {
        let first = Query::Table(Box::new(TableQuery { rows: Vec::new(), ..self.clone() }));
        let columns = self.values.into_iter().map(|(column, _)| column);
        let columns: Vec<_> = columns.collect();
        let further = self.rows.into_iter().map(|row| {
            let pairs = columns.iter().cloned().zip(row);
            pairs.fold(Query::insert(&self.table), |query, (column, value)| query.set(column, value))
        });
        std::iter::once(first).chain(further).collect()
    }
}

/// Looks after rows that wait, when the configuration lets any.
pub(crate) fn hooks(loader: &mut Loader, hooks: &mut Hooks) {
    let databases = loader.part::<Databases>().open();
    let core = &loader.globals.core;
    for db in &databases {
        let db = db.clone();
        hooks.lacks.push((db.module(), Arc::new(move || db.lacks().into_iter().collect())));
    }
    if core.query_buffer_size < 2 || databases.is_empty() {
        return;
    }
    let seconds = Some(core.query_flush_time).filter(|s| *s > 0).unwrap_or(FLUSH_S);
    let flush = |databases: Vec<Db>, age_us: u64| -> Hook {
        Arc::new(move |ctx: &mut Ctx| {
            let since = ctx.core.wall_us.saturating_sub(age_us);
            databases.iter().for_each(|db| db.flush(ctx, since));
        })
    };
    hooks.timers.push((LOOK_MS, flush(databases.to_vec(), seconds as u64 * 1_000_000)));
    hooks.stop.push(flush(databases.to_vec(), 0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Dialect, literal};

    fn row(table: &'static str, n: i64) -> Box<TableQuery> {
        match Query::insert(table).set("a", n).set("b", "x") {
            Query::Table(query) => query,
            Query::Raw(_) => unreachable!("it is structured"),
        }
    }

    fn text(query: Query) -> String {
        literal(&query, Dialect::MySql).expect("it is rendered")
    }

    #[test]
    fn rows_of_one_kind_go_together() {
        let waiting = Waiting::default();
        let add = |table, n, now| waiting.add(row(table, n), Box::new(|_| ()), 3, now);
        assert!(add("t", 1, 10).is_none());
        assert!(add("u", 2, 20).is_none());
        assert!(add("t", 3, 30).is_none());
        let full = add("t", 4, 40).expect("three rows");
        let apart: Vec<String> = full.query.clone().apart().into_iter().map(text).collect();
        assert_eq!(text(Query::Table(full.query)), "insert into t (a,b) values (1,'x'),(3,'x'),(4,'x')");
        assert_eq!(
            apart,
            [
                "insert into t (a,b) values (1,'x')",
                "insert into t (a,b) values (3,'x')",
                "insert into t (a,b) values (4,'x')"
            ]
        );
        assert!(waiting.older(19).is_empty());
        assert_eq!(waiting.older(20).len(), 1);
        assert!(waiting.older(100).is_empty());
    }
}
