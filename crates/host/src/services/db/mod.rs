//! Databases as modules see them: a [`Db`] from a URL, structured or raw queries, typed rows.
//!
//! The drivers are the `db_*` modules; nothing here does I/O or knows a protocol. A module asks the
//! loader for a handle in its `init` and runs queries from script functions:
//!
//! ```ignore
//! m.param_text("db_url", |m, url| { m.db_url = Some(url.to_string()); Ok(()) });
//! m.init(|m, loader| { m.db = loader.db_or_default(m.db_url.as_deref())?; Ok(()) });
//!
//! fn is_user_in(call: &mut Call<Group>, user: Text) -> Outcome {
//!     let query = Query::select("grp").column("grp").filter("username", Op::Eq, user.0);
//!     db.suspend(call.ctx, "is_user_in", query, |_ctx, rows| match rows {
//!         Ok(rows) if !rows.is_empty() => 1,
//!         _ => -1,
//!     })
//! }
//! ```
//! Several queries in a row: `let pool = db.on(ctx);` then `pool.run(query).await` inside one future.

mod insert;
mod json;
mod merge;
mod proof;
mod query;
mod render;
pub mod schema;
mod statement;
mod taped;
mod url;
mod value;

pub(crate) use insert::hooks;
pub use json::filled_json;
pub use proof::{Proof, Proofs};
pub use query::{Action, Cond, Join, Name, Op, Query, Statement, TableQuery};
pub use render::{Dialect, Sql, literal, quote, render};
pub use taped::NOT_RECORDED;
pub use url::DbUrl;
pub use value::{DbValue, Row, Rows};

use crate::call::{Finish, Outcome, Suspension};
use crate::context::shared::Shared;
use crate::ctx::Ctx;
use crate::language::late::Late;
use crate::language::loader::Loader;
use crate::outage::Outage;
use bytes::Bytes;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize};

/// Longest a database operation may take, waiting for a connection included, unless its module
/// knows better.
pub const LIMIT_MS: u64 = 20_000;

/// The result of a query when it is there. Dropping it drops the query.
pub type DbFuture = Pin<Box<dyn Future<Output = Result<Rows, DbError>>>>;
/// The results of several statements run as one transaction.
pub type BatchFuture = Pin<Box<dyn Future<Output = Result<Vec<Rows>, DbError>>>>;

/// Why a query gave no rows.
#[derive(Clone, Debug, PartialEq)]
pub enum DbError {
    /// The server is unreachable, or the connection was lost and could not be replaced.
    Down(String),
    /// Too many queries wait for a connection.
    Busy,
    /// The statement took longer than the driver allows.
    TimedOut,
    /// The server refused the statement; its code (SQLSTATE, error number) and words.
    Refused { code: String, message: String },
    /// The server is there and cannot do it now, whatever the statement: it is locked, read-only, out of room. Later it may.
    Unable { code: String, message: String },
    /// Several statements in one query, which `db_multi_statements` does not allow.
    Several,
    /// The driver cannot do this.
    Unsupported(&'static str),
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DbError::Down(why) => write!(f, "the database is unreachable: {why}"),
            DbError::Busy => f.write_str("too many queries wait for a connection"),
            DbError::TimedOut => f.write_str("the database gave no answer in time"),
            DbError::Refused { code, message } | DbError::Unable { code, message } => {
                write!(f, "{message} ({code})")
            }
            DbError::Several => f.write_str(
                "several statements in one query are refused (the core parameter db_multi_statements allows them)",
            ),
            DbError::Unsupported(what) => write!(f, "this database driver has no {what}"),
        }
    }
}

impl std::error::Error for DbError {}

/// A driver, registered by a `db_*` module (`Loader::db_driver`).
pub trait Driver: Send + Sync {
    /// The module ("db_mysql").
    fn module(&self) -> &'static str;
    /// Checks a URL at load; nothing is connected.
    fn check(&self, url: &DbUrl) -> Result<(), String> {
        let _ = url;
        Ok(())
    }
    /// What this machine lacks for a database of that URL, for `check`; may take a moment.
    fn lacks(&self, url: &DbUrl) -> Option<String> {
        let _ = url;
        None
    }
    /// A worker's pool. Connections are made when queries need them.
    fn pool(&self, db: &Db, ctx: &mut Ctx) -> Rc<dyn Pool>;
}

/// A worker's connections to one database.
pub trait Pool {
    /// Starts a query. It runs when the future is polled, on the worker's own runtime.
    fn run(&self, query: Query) -> DbFuture;

    /// Runs statements as one transaction: all or none.
    fn run_all(&self, queries: Vec<Query>) -> BatchFuture;
}

/// A database, shared by all modules that name the same URL.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    id: u32,
    url: DbUrl,
    driver: Arc<dyn Driver>,
    connections: AtomicUsize,
    outage: Outage,
    trouble: Outage,
    waiting: insert::Waiting,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({})", self.0.url)
    }
}

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// The pools of a worker, by `Inner::id`.
#[derive(Default)]
struct Pools(Vec<(u32, Rc<dyn Pool>)>);

impl Db {
    /// A handle on a driver, for tests and for drivers that stand in front of others.
    pub fn new(url: DbUrl, driver: Arc<dyn Driver>) -> Db {
        let id = NEXT_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (connections, outage, trouble) = (AtomicUsize::new(0), Outage::default(), Outage::default());
        Db(Arc::new(Inner { id, url, driver, connections, outage, trouble, waiting: Default::default() }))
    }

    pub fn url(&self) -> &DbUrl {
        &self.0.url
    }

    /// Open connections of all workers; pools keep it true and hold it under the cap.
    pub fn connections(&self) -> &AtomicUsize {
        &self.0.connections
    }

    /// Whether workers have lost it.
    pub fn outage(&self) -> &Outage {
        &self.0.outage
    }

    /// The module of its driver.
    pub fn module(&self) -> &'static str {
        self.0.driver.module()
    }

    /// What this machine lacks for it.
    pub fn lacks(&self) -> Option<String> {
        self.0.driver.lacks(&self.0.url)
    }

    /// Whether it is there and takes no statements (`DbError::Unable`).
    pub fn trouble(&self) -> &Outage {
        &self.0.trouble
    }

    /// This worker's pool. It may be kept and used in futures of this worker.
    pub fn on(&self, ctx: &mut Ctx) -> Rc<dyn Pool> {
        let id = self.0.id;
        if let Some((_, pool)) = ctx.local::<Pools>().0.iter().find(|(i, _)| *i == id) {
            return pool.clone();
        }
        let mut pool = self.0.driver.clone().pool(self, ctx);
        if ctx.core.tape.is_some() {
            pool = Rc::new(taped::TapedPool { inner: pool, database: self.0.url.to_string() });
        }
        ctx.local::<Pools>().0.push((id, pool.clone()));
        pool
    }

    /// Holds the script until the rows are there; `finish` gives the return code.
    pub fn suspend(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        query: Query,
        finish: impl FnOnce(&mut Ctx, Result<Rows, DbError>) -> i32 + 'static,
    ) -> Outcome {
        let detail = query.detail();
        let rows = self.on(ctx).run(query);
        let future = async move {
            let rows = rows.await;
            Box::new(move |ctx: &mut Ctx| finish(ctx, rows)) as Finish
        };
        Suspension::future(what, future).detail(detail).limit(LIMIT_MS, -1)
    }

    /// Runs a query beside any script; `finish` sees the result on this worker.
    pub fn spawn(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        query: Query,
        finish: impl FnOnce(&mut Ctx, Result<Rows, DbError>) + 'static,
    ) {
        let reads = query.reads_only();
        let rows = self.on(ctx).run(query);
        let future = async move {
            let rows = rows.await;
            Box::new(move |ctx: &mut Ctx| {
                finish(ctx, rows);
                1
            }) as Finish
        };
        // What is only read is of no use when the server ends.
        if reads {
            ctx.spawn_aside(what, LIMIT_MS, future);
        } else {
            ctx.spawn(what, LIMIT_MS, future);
        }
    }
}

/// Makes the driver that stands in for that of a module.
pub type DriverInstead = Arc<dyn Fn(&'static str) -> Arc<dyn Driver> + Send + Sync>;

/// Databases while a configuration loads.
#[derive(Clone, Default)]
pub struct Databases {
    instead: Option<DriverInstead>,
    drivers: Vec<(&'static str, Arc<dyn Driver>)>,
    open: Vec<(String, Db)>,
}

impl Databases {
    /// Those that modules asked for.
    pub(crate) fn open(&self) -> Vec<Db> {
        self.open.iter().map(|(_, db)| db.clone()).collect()
    }
}

/// The module whose database a URL names.
pub fn driver_of(url: &str) -> Option<String> {
    url.split_once("://").map(|(scheme, _)| module_of(scheme.trim()))
}

/// The module that drives a URL scheme of the reference.
fn module_of(scheme: &str) -> String {
    format!("db_{scheme}")
}

impl Loader {
    /// Registers the driver of a URL scheme; `db_*` modules do it in their `init`, which runs before
    /// that of all other modules.
    pub fn db_driver(&mut self, scheme: &'static str, driver: Arc<dyn Driver>) {
        self.part::<Databases>().drivers.push((scheme, driver));
    }

    /// Lets another driver answer for every database of the configuration, whose own driver checks its URL only.
    pub fn databases_instead(&mut self, instead: DriverInstead) {
        self.part::<Databases>().instead = Some(instead);
    }

    /// A database from its URL. The error is what a user should read.
    pub fn db(&mut self, url: &str) -> Result<Db, String> {
        let url = url.trim();
        if let Some((_, db)) = self.part::<Databases>().open.iter().find(|(u, _)| u == url) {
            return Ok(db.clone());
        }
        let parsed = DbUrl::parse(url)?;
        let drivers = &self.part::<Databases>().drivers;
        let Some((_, driver)) = drivers.iter().find(|(s, _)| *s == parsed.scheme) else {
            let module = module_of(&parsed.scheme);
            return Err(format!("{parsed} needs its driver: loadmodule \"{module}.so\""));
        };
        let driver = driver.clone();
        let instead = self.part::<Databases>().instead.clone();
        driver.check(&parsed).map_err(|why| format!("{parsed}: {why}"))?;
        let driver = instead.map_or(driver.clone(), |instead| instead(driver.module()));
        let db = Db::new(parsed, driver);
        self.part::<Databases>().open.push((url.to_string(), db.clone()));
        Ok(db)
    }

    /// The module's own URL, else the core's `db_default_url`, else none.
    pub fn db_or_default(&mut self, url: Option<&str>) -> Result<Option<Db>, String> {
        match url {
            Some(url) if !url.trim().is_empty() => self.db(url).map(Some),
            _ => match self.globals.core.db_default_url.clone() {
                Some(url) if !url.is_empty() => self.db(&url).map(Some),
                _ => Ok(None),
            },
        }
    }
}

impl Shared {
    /// A database whose URL became known only after loading (it stands in a table).
    pub fn late_db(&self, url: &str) -> Result<Db, String> {
        self.part::<Late>().with(|loader| loader.db(url))
    }
}

/// A text of a script or message as a value.
impl From<Bytes> for DbValue {
    fn from(text: Bytes) -> DbValue {
        DbValue::Text(text)
    }
}
