//! Tables that are kept in memory: loaded when the server starts, replaced as a whole by a reload, read by all
//! workers. Readers take a counted reference and never wait for a writer's work.

use host::db::{Db, DbError, Query, Rows};
use host::{Ctx, Finish, Outcome, Suspension};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::watch;

/// How long a script waits for the first load.
const FIRST_LOAD_MS: u64 = 10_000;

struct Inner<T> {
    value: RwLock<Option<Arc<T>>>,
    /// A load has ended, well or not.
    tried: watch::Sender<bool>,
}

/// One such table.
pub struct Cached<T>(Arc<Inner<T>>);

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Cached<T> {
        Cached(self.0.clone())
    }
}

impl<T> Default for Cached<T> {
    fn default() -> Cached<T> {
        Cached(Arc::new(Inner { value: RwLock::new(None), tried: watch::Sender::new(false) }))
    }
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// `None` before the first load.
    pub fn get(&self) -> Option<Arc<T>> {
        self.0.value.read().clone()
    }

    pub fn set(&self, value: T) {
        *self.0.value.write() = Some(Arc::new(value));
        self.0.tried.send_replace(true);
    }

    /// Calls `f` with what is loaded; a script that comes before the first load waits for its end, and gets -1 when it
    /// failed or is not there in time.
    pub fn with(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        f: impl FnOnce(&mut Ctx, &T) -> i32 + 'static,
    ) -> Outcome {
        if let Some(value) = self.get() {
            return f(ctx, &value).into();
        }
        let mut tried = self.0.tried.subscribe();
        if *tried.borrow() {
            host::complain!(ctx, what, "its table could not be loaded");
            return (-1).into();
        }
        let table = self.clone();
        Suspension::future(what, async move {
            // The sender lives in `table`.
            let _ = tried.wait_for(|tried| *tried).await;
            Box::new(move |ctx: &mut Ctx| match table.get() {
                Some(value) => f(ctx, &value),
                None => -1,
            }) as Finish
        })
        .limit(FIRST_LOAD_MS, -1)
    }

    /// Runs `query` and replaces the table by what `read` makes of its rows. `done` hears how it went; after
    /// a failure the old table stays.
    pub fn load(
        &self,
        ctx: &mut Ctx,
        module: &'static str,
        db: &Db,
        query: Query,
        read: impl FnOnce(&Rows) -> T + 'static,
        done: impl FnOnce(&mut Ctx, Result<(), DbError>) + 'static,
    ) {
        let table = self.clone();
        db.spawn(ctx, "load", query, move |ctx, rows| {
            let result = rows.map(|rows| table.set(read(&rows)));
            if let Err(error) = &result {
                host::error!(module, "a table was not loaded: {error}");
                // Who waits need not wait for the next attempt.
                table.0.tried.send_replace(true);
            }
            done(ctx, result);
        });
    }
}
