//! db_sqlite: SQLite files as databases (`sqlite:///path`).
//!
//! Each file has one thread with one connection, shared by all workers. SQLite lets one writer in at
//! a time anyway, so a second connection would only meet the first one's lock (and sleep on it);
//! through one connection nothing in this process ever waits for a lock, and the writes that pile up
//! behind a slow disk are put into one transaction.

pub mod thread;

use host::db::{BatchFuture, Db, DbError, DbFuture, DbUrl, Driver, Pool, Query, Rows};
use host::registrar::Stage;
use host::stats::Stats;
use host::{Ctx, Registrar};
use parking_lot::Mutex;
use std::rc::Rc;
use std::sync::Arc;
use thread::{Handle, Settings};

#[derive(Default)]
pub struct DbSqlite {
    settings: Settings,
}

pub fn register(m: &mut Registrar<DbSqlite>) {
    m.stage(Stage::Driver);
    m.param_int("busy_timeout", |m, ms| {
        m.settings.busy_ms = ms.clamp(0, 60_000) as u64;
        Ok(())
    });
    m.param_text("exec_pragma", |m, pragma| {
        m.settings.pragmas.push(pragma.to_string());
        Ok(())
    });
    m.param_int("exec_query_threshold", |m, us| {
        m.settings.slow_us = us.max(0) as u64;
        Ok(())
    });
    m.ignored(&["alloc_limit"], "rows are read as they come");
    m.ignored(&["load_extension"], "no native code is loaded; the REGEXP operator is built in");
    m.init(|m, loader| {
        let driver = SqliteDriver { settings: Arc::new(m.settings.clone()), open: Mutex::default() };
        loader.db_driver("sqlite", Arc::new(driver));
        Ok(())
    });
}

struct SqliteDriver {
    settings: Arc<Settings>,
    /// By path.
    open: Mutex<Vec<(String, Handle)>>,
}

impl SqliteDriver {
    fn handle(&self, path: &str, stats: &Stats) -> Handle {
        let mut open = self.open.lock();
        if let Some((_, handle)) = open.iter().find(|(p, _)| p == path) {
            return handle.clone();
        }
        let handle = Handle::start(path, self.settings.clone(), stats);
        open.push((path.to_string(), handle.clone()));
        handle
    }
}

impl Driver for SqliteDriver {
    fn module(&self) -> &'static str {
        "db_sqlite"
    }

    fn check(&self, url: &DbUrl) -> Result<(), String> {
        if url.database.is_empty() { Err("the path of the file is missing".to_string()) } else { Ok(()) }
    }

    fn lacks(&self, url: &DbUrl) -> Option<String> {
        let path = std::path::Path::new(&url.database);
        let memory = url.database == ":memory:" || url.database.starts_with("file:");
        (!memory && !path.exists()).then(|| {
            format!("the database {} is missing: make it with `fermata db create {url}`", path.display())
        })
    }

    fn pool(&self, db: &Db, ctx: &mut Ctx) -> Rc<dyn Pool> {
        Rc::new(SqlitePool(self.handle(&db.url().database, &ctx.shared().stats)))
    }
}

/// A file outside of workers, for tools.
pub struct File(Handle);

impl File {
    pub fn for_tools(url: &DbUrl) -> File {
        File(Handle::start(&url.database, Arc::new(Settings::default()), &Stats::default()))
    }

    pub async fn run(&self, query: Query) -> Result<Rows, DbError> {
        self.0.run(vec![query]).await?.pop().ok_or(DbError::Busy)
    }
}

/// A database in memory, asked on the calling thread: for tests of scripts.
pub struct Memory(rusqlite::Connection);

impl Memory {
    pub fn new() -> Result<Memory, String> {
        thread::connect(":memory:", &Settings::default()).map(Memory).map_err(|e| e.to_string())
    }

    pub fn run(&self, query: &Query) -> Result<Rows, DbError> {
        thread::run_one(&self.0, query)
    }
}

/// A worker's way to the thread of a file.
pub struct SqlitePool(pub Handle);

impl Pool for SqlitePool {
    fn run(&self, query: Query) -> DbFuture {
        let handle = self.0.clone();
        Box::pin(async move {
            let mut all = handle.run(vec![query]).await?;
            all.pop().ok_or(DbError::Busy)
        })
    }

    fn run_all(&self, queries: Vec<Query>) -> BatchFuture {
        let handle = self.0.clone();
        Box::pin(async move { handle.run(queries).await })
    }
}

#[cfg(test)]
mod tests;
