//! One cached table: what is loaded, from where, and how a row is found.

use super::row::Kept;
use super::spec::{KeyType, Mode, Spec};
use bytes::Bytes;
use futures_util::StreamExt;
use host::Ctx;
use host::cachedb::{Cache, CacheError, Store};
use host::db::{Db, DbError, DbValue, Pool, Query, Rows};
use parking_lot::Mutex;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Rows on their way into the store at one time.
const WRITES: usize = 64;

/// A cached table. All workers share it.
pub struct Entry {
    pub spec: Spec,
    db: Db,
    pub cache: Cache,
    /// Seconds that a row is kept.
    keep_s: u32,
    state: State,
}

/// What is known of its rows.
#[derive(Default)]
struct State {
    /// The whole table is there.
    loaded: AtomicBool,
    loading: AtomicBool,
    /// Unix seconds of the next load.
    next_load: AtomicI64,
    /// Rows read before this moment (microseconds of Unix time) do not count.
    valid_from_us: AtomicU64,
    /// Keys of the last load, in the order of the rows.
    keys: Mutex<Arc<[Bytes]>>,
}

/// What a load, or a row, failed on.
#[derive(Debug)]
pub enum Trouble {
    Db(DbError),
    Cache(CacheError),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Db(error) => error.fmt(f),
            Trouble::Cache(error) => error.fmt(f),
        }
    }
}

/// What a future needs of a worker.
pub struct Hands {
    pool: Rc<dyn Pool>,
    store: Rc<dyn Store>,
    now_us: u64,
}

impl Entry {
    pub fn new(spec: Spec, db: Db, cache: Cache, full_expire_s: u32) -> Entry {
        let keep_s = if spec.mode == Mode::Full { full_expire_s } else { spec.expire_s };
        Entry { spec, db, cache, keep_s, state: State::default() }
    }

    pub fn hands(&self, ctx: &mut Ctx) -> Hands {
        Hands { pool: self.db.on(ctx), store: self.cache.on(ctx), now_us: ctx.core.wall_us }
    }

    pub fn is_loaded(&self) -> bool {
        self.state.loaded.load(Ordering::Acquire)
    }

    pub fn is_loading(&self) -> bool {
        self.state.loading.load(Ordering::Acquire)
    }

    pub fn keys(&self) -> Arc<[Bytes]> {
        self.state.keys.lock().clone()
    }

    /// True for one caller when a full table is to be loaded now (Unix seconds); the next attempt is
    /// `retry_s` later if this one fails.
    pub fn take_load(&self, now_s: i64, retry_s: i64) -> bool {
        let due = self.spec.mode == Mode::Full && self.state.next_load.load(Ordering::Acquire) <= now_s;
        if !due || self.state.loading.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.state.next_load.store(now_s + retry_s, Ordering::Release);
        true
    }

    /// A load by command. False: one runs already.
    pub fn begin_load(&self) -> bool {
        !self.state.loading.swap(true, Ordering::AcqRel)
    }

    /// Rows that were read up to now do not count any more.
    pub fn invalidate(&self, now_us: u64) {
        self.state.valid_from_us.store(now_us, Ordering::Release);
    }

    /// The place of a row in the store.
    pub fn place(&self, key: &[u8]) -> Bytes {
        [self.spec.id.as_bytes(), b":", key].concat().into()
    }

    /// A value of the store, if it is a row that still counts.
    pub fn usable(&self, text: &[u8]) -> Option<Kept> {
        let oldest = self.state.valid_from_us.load(Ordering::Acquire);
        Kept::parse(text).filter(|kept| kept.read_at_us() >= oldest)
    }

    /// `None`: the key is no number, and the column is one.
    fn query(&self, key: Option<&Bytes>) -> Option<Query> {
        let spec = &self.spec;
        let mut query = Query::select(spec.table.clone());
        if !spec.columns.is_empty() {
            // The key comes first.
            query = query.column(spec.key.clone()).columns(spec.columns.iter().cloned());
        }
        let Some(key) = key else { return Some(query) };
        let value = match spec.key_type {
            KeyType::Text => DbValue::Text(key.clone()),
            KeyType::Int => DbValue::Int(std::str::from_utf8(key).ok()?.trim().parse().ok()?),
        };
        Some(query.eq(spec.key.clone(), value))
    }

    fn kept(&self, rows: &Rows, cells: &[DbValue], now_us: u64) -> Kept {
        Kept::of(rows.columns().iter().map(|name| &**name), cells, now_us)
    }

    /// Reads one row from the database and keeps it. `Ok(None)`: there is none.
    pub async fn read(self: Arc<Self>, key: Bytes, hands: Hands) -> Result<Option<Kept>, Trouble> {
        let Some(query) = self.query(Some(&key)) else { return Ok(None) };
        let rows = hands.pool.run(query).await.map_err(Trouble::Db)?;
        let Some(row) = rows.first() else {
            hands.store.remove(self.place(&key)).get().await.map_err(Trouble::Cache)?;
            return Ok(None);
        };
        let kept = self.kept(&rows, row.cells, hands.now_us);
        let stored = hands.store.store(self.place(&key), kept.text(), self.keep_s).get().await;
        if let Err(error) = stored {
            // The script has its value all the same.
            host::warn!("sql_cacher", "{}: a row was not kept: {error}", self.spec.id);
        }
        Ok(Some(kept))
    }

    /// Reads the whole table; what is gone from it goes. Gives the number of rows. Whoever began the load
    /// calls `end_load`.
    pub async fn load(self: Arc<Self>, hands: Hands) -> Result<usize, Trouble> {
        let query = self.query(None).unwrap_or_else(|| Query::select(self.spec.table.clone()));
        let rows = hands.pool.run(query).await.map_err(Trouble::Db)?;
        let keyed = || rows.iter().filter_map(|row| Some((row.named(&self.spec.key).text()?, row)));
        let writes = keyed().map(|(key, row)| {
            let text = self.kept(&rows, row.cells, hands.now_us).text();
            hands.store.store(self.place(&key), text, self.keep_s)
        });
        let mut writing =
            futures_util::stream::iter(writes).map(|reply| reply.get()).buffer_unordered(WRITES);
        while let Some(done) = writing.next().await {
            done.map_err(Trouble::Cache)?;
        }
        let keys: Arc<[Bytes]> = keyed().map(|(key, _)| key).collect();
        let old = std::mem::replace(&mut *self.state.keys.lock(), keys.clone());
        let now: ahash::AHashSet<&Bytes> = keys.iter().collect();
        for gone in old.iter().filter(|key| !now.contains(key)) {
            hands.store.remove(self.place(gone)).get().await.map_err(Trouble::Cache)?;
        }
        Ok(keys.len())
    }

    /// A load is over; the next one is `seconds` from now if it went well.
    pub fn end_load(&self, went_well: bool, now_s: i64, seconds: i64) {
        if went_well {
            self.state.next_load.store(now_s + seconds, Ordering::Release);
            self.state.loaded.store(true, Ordering::Release);
        }
        self.state.loading.store(false, Ordering::Release);
    }
}
