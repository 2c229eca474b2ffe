//! Key-value stores as modules and scripts see them: a [`Cache`] from a URL, single operations on keys.
//!
//! The engines are the `cachedb_*` modules; nothing here does I/O or knows a protocol. A module asks
//! the loader for a handle in its `init` and uses it from script functions:
//!
//! ```ignore
//! m.param_text("cachedb_url", |m, url| { m.url = Some(url.to_string()); Ok(()) });
//! m.init(|m, loader| { m.cache = m.url.as_deref().map(|url| loader.cache(url)).transpose()?; Ok(()) });
//!
//! cache.suspend(call.ctx, "my_function", key.clone(), |store| store.fetch(key), |ctx, found| match found {
//!     Ok(Some(value)) => 1,
//!     Ok(None) => -2,
//!     Err(_) => -1,
//! })
//! ```
//! An engine inside this process answers at once and no script waits; all others hold it.
//! Several operations in a row: `let store = cache.on(ctx);` then `store.fetch(key).get().await`.

mod taped;
mod url;

pub use url::{CacheUrl, Host};

use crate::call::{Finish, Outcome, Suspension};
use crate::context::shared::Shared;
use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::stats::{Counter, Stats};
use bytes::Bytes;
use script::{Traced, Value};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use transaction::Instant;

/// Longest an operation may take unless its engine knows better.
pub const LIMIT_MS: u64 = 20_000;

/// The answer of an operation, at once or later. Dropping it drops the operation.
pub enum Reply<T> {
    Now(Result<T, CacheError>),
    Later(Pin<Box<dyn Future<Output = Result<T, CacheError>>>>),
}

impl<T: 'static> Reply<T> {
    pub fn later(future: impl Future<Output = Result<T, CacheError>> + 'static) -> Reply<T> {
        Reply::Later(Box::pin(future))
    }

    /// For futures that do several operations.
    pub async fn get(self) -> Result<T, CacheError> {
        match self {
            Reply::Now(result) => result,
            Reply::Later(future) => future.await,
        }
    }
}

/// Why an operation gave nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheError {
    /// The server is unreachable, or the connection was lost and could not be replaced.
    Down(String),
    /// Too much waits or is stored already.
    Busy,
    /// The server gave no answer in time.
    TimedOut,
    /// The server said no, in its words.
    Refused(String),
    /// The value is no counter.
    NotANumber,
    /// The engine cannot do this.
    Unsupported(&'static str),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::Down(why) => write!(f, "the server is unreachable: {why}"),
            CacheError::Busy => f.write_str("too much waits or is stored already"),
            CacheError::TimedOut => f.write_str("no answer in time"),
            CacheError::Refused(words) => f.write_str(words),
            CacheError::NotANumber => f.write_str("the value is no number"),
            CacheError::Unsupported(what) => write!(f, "this engine has no {what}"),
        }
    }
}

impl std::error::Error for CacheError {}

/// Rows of a raw query, as many values in each as were asked for.
pub type RawRows = Vec<Vec<Value>>;

/// A worker's connection to one store. Operations start when their reply is polled, on the worker's
/// own runtime; `expires_s` 0 is never.
pub trait Store {
    /// The worker's clock and Unix time, told before each operation.
    fn at(&self, now: Instant, unix_s: u64) {
        let _ = (now, unix_s);
    }
    /// Connects, so that the first operation need not wait.
    fn connect(&self) -> Reply<()> {
        Reply::Now(Ok(()))
    }
    /// The value of a key; `None`: there is none.
    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>>;
    fn store(&self, key: Bytes, value: Bytes, expires_s: u32) -> Reply<()>;
    /// A key that does not exist is no error.
    fn remove(&self, key: Bytes) -> Reply<()>;
    /// Adds (or subtracts) and gives the new value; a missing counter is 0.
    fn add(&self, key: Bytes, by: i64, expires_s: u32) -> Reply<i64>;
    /// The value of a counter; `None`: there is none.
    fn counter(&self, key: Bytes) -> Reply<Option<i64>>;
    /// Fields and values of a map; empty when there is none.
    fn map_get(&self, key: Bytes) -> Reply<Vec<(Bytes, Bytes)>> {
        let _ = key;
        Reply::Now(Err(CacheError::Unsupported("maps")))
    }
    /// Sets and removes fields of a map, which is made when missing and gone when empty. It lives at least
    /// for `expires_s` from now; a longer life that it already has stays.
    fn map_change(
        &self,
        key: Bytes,
        set: Vec<(Bytes, Bytes)>,
        unset: Vec<Bytes>,
        expires_s: u32,
    ) -> Reply<()> {
        let _ = (key, set, unset, expires_s);
        Reply::Now(Err(CacheError::Unsupported("maps")))
    }
    /// A query in the engine's own language, at most `columns` values in each row of the answer; `None`:
    /// what it asks for does not exist. What came in stays between the quotes that it stands in.
    fn raw(&self, query: Traced, columns: usize) -> Reply<Option<RawRows>> {
        let _ = (query, columns);
        Reply::Now(Err(CacheError::Unsupported("raw queries")))
    }
}

/// An engine, registered by a `cachedb_*` module (`Loader::cache_engine`).
pub trait Engine: Send + Sync {
    /// The module ("cachedb_redis").
    fn module(&self) -> &'static str;
    /// Checks a URL at load; nothing is connected.
    fn check(&self, url: &CacheUrl) -> Result<(), String> {
        let _ = url;
        Ok(())
    }
    /// The same, for engines that stand on something else that is configured.
    fn prepare(&self, url: &CacheUrl, loader: &mut Loader) -> Result<(), String> {
        let _ = loader;
        self.check(url)
    }
    /// A worker's connection. It connects when it is used first.
    fn connect(&self, cache: &Cache, ctx: &mut Ctx) -> Rc<dyn Store>;
    /// Milliseconds that an operation may take.
    fn limit_ms(&self) -> u64 {
        LIMIT_MS
    }
    /// Operations that take longer are logged and counted (`exec_threshold`), microseconds; 0: none.
    fn slow_us(&self) -> u64 {
        0
    }
}

/// A store, shared by all modules that name the same URL.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    id: u32,
    url: CacheUrl,
    engine: Arc<dyn Engine>,
    total: Counter,
    slow: Counter,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({})", self.0.url)
    }
}

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// The connections of a worker, by `Inner::id`.
#[derive(Default)]
struct Stores(Vec<(u32, Rc<dyn Store>)>);

impl Cache {
    pub fn new(url: CacheUrl, engine: Arc<dyn Engine>, stats: &Stats) -> Cache {
        Cache(Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            url,
            engine,
            total: stats.counter("cdb", "cdb_total_queries"),
            slow: stats.counter("cdb", "cdb_slow_queries"),
        }))
    }

    pub fn url(&self) -> &CacheUrl {
        &self.0.url
    }

    /// This worker's connection. It may be kept and used in futures of this worker.
    pub fn on(&self, ctx: &mut Ctx) -> Rc<dyn Store> {
        let (id, now) = (self.0.id, ctx.core.now);
        let open = ctx.local::<Stores>().0.iter().find(|(i, _)| *i == id).map(|(_, store)| store.clone());
        let store = open.unwrap_or_else(|| {
            let mut store = self.0.engine.clone().connect(self, ctx);
            if ctx.core.tape.is_some() {
                store = Rc::new(taped::TapedStore { inner: store, url: self.0.url.to_string() });
            }
            ctx.local::<Stores>().0.push((id, store.clone()));
            store
        });
        store.at(now, ctx.core.wall_us / 1_000_000);
        store
    }

    /// Does one operation; the script is held until its answer is there. `finish` gives the return
    /// code, `detail` is what `async_list` shows.
    pub fn suspend<T: 'static>(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        detail: Bytes,
        operation: impl FnOnce(&dyn Store) -> Reply<T>,
        finish: impl FnOnce(&mut Ctx, Result<T, CacheError>) -> i32 + 'static,
    ) -> Outcome {
        self.0.total.up();
        let store = self.on(ctx);
        match operation(&*store) {
            Reply::Now(result) => Outcome::Done(finish(ctx, result)),
            Reply::Later(future) => {
                let (since, cache, shown) = (ctx.core.now, self.clone(), detail.clone());
                let future = async move {
                    let result = future.await;
                    Box::new(move |ctx: &mut Ctx| {
                        cache.note_time(ctx.core.now.0.saturating_sub(since.0), what, &shown);
                        finish(ctx, result)
                    }) as Finish
                };
                Suspension::future(what, future).detail(detail).limit(self.0.engine.limit_ms(), -1)
            }
        }
    }

    /// The same beside any script.
    pub fn spawn<T: 'static>(
        &self,
        ctx: &mut Ctx,
        what: &'static str,
        operation: impl FnOnce(&dyn Store) -> Reply<T>,
        finish: impl FnOnce(&mut Ctx, Result<T, CacheError>) + 'static,
    ) {
        self.0.total.up();
        let store = self.on(ctx);
        match operation(&*store) {
            Reply::Now(result) => finish(ctx, result),
            Reply::Later(future) => ctx.spawn(what, self.0.engine.limit_ms(), async move {
                let result = future.await;
                Box::new(move |ctx: &mut Ctx| {
                    finish(ctx, result);
                    1
                }) as Finish
            }),
        }
    }

    fn note_time(&self, ms: u64, what: &str, detail: &[u8]) {
        let limit = self.0.engine.slow_us();
        if limit > 0 && ms.saturating_mul(1000) > limit {
            self.0.slow.up();
            let (module, detail) = (self.0.engine.module(), String::from_utf8_lossy(detail));
            crate::warn!(module, "{what} {detail} took {ms} ms");
        }
    }
}

/// Stores by the names that scripts use ("redis:group1", "local").
#[derive(Clone, Debug, Default)]
pub struct Named(Vec<(String, Cache)>);

impl Named {
    pub fn find(&self, name: &[u8]) -> Option<&Cache> {
        self.0.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, cache)| cache)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(n, _)| n.as_str())
    }

    fn set(&mut self, name: &str, cache: Cache) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = cache,
            None => self.0.push((name.to_string(), cache)),
        }
    }
}

/// Makes the engine that stands in for that of a module; `None`: it does not.
pub type EngineInstead = Arc<dyn Fn(&'static str) -> Option<Arc<dyn Engine>> + Send + Sync>;

/// Stores while a configuration loads.
#[derive(Clone, Default)]
pub struct Caches {
    engines: Vec<(&'static str, Arc<dyn Engine>)>,
    open: Vec<(String, Cache)>,
    instead: Option<EngineInstead>,
    pub named: Named,
}

impl Shared {
    /// Stores by the names that scripts use.
    pub fn caches(&self) -> &Arc<Named> {
        self.part()
    }
}

impl Loader {
    pub fn caches(&mut self) -> &mut Caches {
        self.part()
    }

    /// Registers the engine of a URL scheme; `cachedb_*` modules do it in their `init`, which runs
    /// before that of all other modules.
    pub fn cache_engine(&mut self, scheme: &'static str, engine: Arc<dyn Engine>) {
        self.caches().engines.push((scheme, engine));
    }

    /// Lets other engines answer for the stores of the configuration.
    pub fn stores_instead(&mut self, instead: EngineInstead) {
        self.caches().instead = Some(instead);
    }

    /// A store from its URL. The error is what a user should read.
    pub fn cache(&mut self, url: &str) -> Result<Cache, String> {
        let url = url.trim();
        if let Some((_, cache)) = self.caches().open.iter().find(|(u, _)| u == url) {
            return Ok(cache.clone());
        }
        let parsed = CacheUrl::parse(url)?;
        let engine = self.caches().engines.iter().find(|(s, _)| *s == parsed.scheme);
        let Some((_, engine)) = engine else {
            let module = format!("cachedb_{}", parsed.scheme);
            return Err(format!("{parsed} needs its engine: loadmodule \"{module}.so\""));
        };
        let engine = engine.clone();
        engine.prepare(&parsed, self).map_err(|why| format!("{parsed}: {why}"))?;
        let instead = self.caches().instead.clone();
        let engine = instead.and_then(|instead| instead(engine.module())).unwrap_or(engine);
        let cache = Cache::new(parsed, engine, &self.stats);
        self.caches().open.push((url.to_string(), cache.clone()));
        Ok(cache)
    }

    /// A store from the `cachedb_url` of its own module: scripts know it by `scheme[:group]`.
    pub fn named_cache(&mut self, url: &str) -> Result<Cache, String> {
        let cache = self.cache(url)?;
        let name = cache.url().name();
        self.caches().named.set(&name, cache.clone());
        Ok(cache)
    }
}
