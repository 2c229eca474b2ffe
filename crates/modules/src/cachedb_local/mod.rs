//! cachedb_local: key-value stores in this process, shared by all workers. Nothing ever waits.

mod file;
mod table;

use crate::sipmsgops::headers::glob;
use bytes::Bytes;
use host::Accepts;
use host::cachedb::{Cache, CacheUrl, Engine, Reply, Store};
use host::mi::{MiError, MiParams, MiResult};
use host::registrar::Stage;
use host::{Call, Ctx, Registrar, Routes, Text};
use serde_json::json;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use table::Table;
use transaction::Instant;

const DEFAULT: &str = "default";
/// Seconds between two clean-ups when `cache_clean_period` is not set.
const CLEAN_S: u64 = 600;

/// What the workers share.
struct Collections {
    list: Vec<(String, Table)>,
    /// Milliseconds of the workers' clock, as of the last operation of any worker.
    now: AtomicU64,
    /// Where everything is kept over a restart.
    file: Option<PathBuf>,
}

impl Collections {
    fn find(&self, name: &str) -> Option<&Table> {
        let name = if name.is_empty() { DEFAULT } else { name };
        self.list.iter().find(|(n, _)| n == name).map(|(_, table)| table)
    }
}

pub struct CachedbLocal {
    names: Vec<String>,
    urls: Vec<String>,
    clean_s: u64,
    /// Milliseconds of the next clean-up.
    next_clean: AtomicU64,
    persistent: bool,
    collections: Arc<Collections>,
}

impl Default for CachedbLocal {
    fn default() -> CachedbLocal {
        CachedbLocal {
            names: vec![DEFAULT.to_string()],
            urls: Vec::new(),
            clean_s: CLEAN_S,
            next_clean: AtomicU64::new(0),
            persistent: false,
            collections: Arc::new(Collections { list: Vec::new(), now: AtomicU64::new(0), file: None }),
        }
    }
}

pub fn register(m: &mut Registrar<CachedbLocal>) {
    m.stage(Stage::Driver);
    m.param_text("cachedb_url", |m, url| {
        m.urls.push(url.to_string());
        Ok(())
    });
    m.param_text("cache_collections", add_collections);
    m.param_int("cache_clean_period", |m, seconds| {
        m.clean_s = seconds.max(1) as u64;
        Ok(())
    });
    m.accepts(Accepts::seconds(0), &["cache_clean_period"]);
    m.param_int("enable_restart_persistency", |m, on| {
        m.persistent = on != 0;
        Ok(())
    });
    m.ignored(&["exec_threshold"], "operations in memory take no time worth a warning");
    m.ignored(&["cache_table_size"], "collections grow as needed");
    m.ignored(&["cluster_id", "cluster_persistency"], "there is no clustering");
    m.init(init);
    m.function("cache_remove_chunk", Routes::ALL, remove_chunk);
    m.command(
        "cachedb_local:remove_chunk cache_remove_chunk",
        "removes the keys that match",
        mi_remove_chunk,
    )
    .takes("glob [collection]");
    m.command("cachedb_local:fetch_chunk cache_fetch_chunk", "lists the keys that match", mi_fetch_chunk)
        .takes("glob [collection]");
    m.timer(1000, clean);
    m.start(restore);
    m.stop(|call| {
        if let Some(file) = &call.module.collections.file {
            let now = call.core.now.0;
            file::write(file, &call.module.collections.list, now, call.core.wall_us / 1_000_000);
        }
    });
}

/// "collection1/r; collection2 = 5": names; sizes do not matter here.
fn add_collections(m: &mut CachedbLocal, text: &str) -> Result<(), String> {
    for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, size) = part.split_once('=').unwrap_or((part, "9"));
        if size.trim().parse::<u8>().is_err() {
            return Err(format!("cache_collections: `{}` is no size (a power of two, as 9)", size.trim()));
        }
        let name = name.trim();
        let name = name.strip_suffix("/r").unwrap_or(name).trim();
        if !m.names.iter().any(|n| n == name) {
            m.names.push(name.to_string());
        }
    }
    Ok(())
}

fn init(m: &mut CachedbLocal, loader: &mut host::Loader) -> Result<(), String> {
    let file = m.persistent.then(|| {
        let base = loader.globals.core.restart_persistency_cache_file.clone();
        PathBuf::from(base + ".cachedb_local")
    });
    m.collections = Arc::new(Collections {
        list: m.names.iter().map(|name| (name.clone(), Table::default())).collect(),
        now: AtomicU64::new(0),
        file,
    });
    loader.cache_engine("local", Arc::new(Local(m.collections.clone())));
    // The one without a group is there even if no URL names it.
    loader.named_cache("local://")?;
    for url in &m.urls {
        loader.named_cache(url)?;
    }
    Ok(())
}

struct Local(Arc<Collections>);

impl Engine for Local {
    fn module(&self) -> &'static str {
        "cachedb_local"
    }

    fn check(&self, url: &CacheUrl) -> Result<(), String> {
        match self.0.find(&url.database) {
            Some(_) => Ok(()),
            None => Err(format!("there is no collection `{}`: name it in cache_collections", url.database)),
        }
    }

    fn connect(&self, cache: &Cache, _: &mut Ctx) -> Rc<dyn Store> {
        Rc::new(LocalStore { collections: self.0.clone(), collection: cache.url().database.clone() })
    }
}

struct LocalStore {
    collections: Arc<Collections>,
    collection: String,
}

impl LocalStore {
    fn on<T: 'static>(&self, operation: impl FnOnce(&Table, u64) -> T) -> T {
        let table = self.collections.find(&self.collection).expect("checked at load");
        operation(table, self.collections.now.load(Ordering::Relaxed))
    }
}

impl Store for LocalStore {
    fn at(&self, now: Instant, _: u64) {
        self.collections.now.fetch_max(now.0, Ordering::Relaxed);
    }

    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>> {
        Reply::Now(Ok(self.on(|table, now| table.fetch(now, &key))))
    }

    fn store(&self, key: Bytes, value: Bytes, expires_s: u32) -> Reply<()> {
        Reply::Now(self.on(|table, now| table.store(now, key, value, expires_s)))
    }

    fn remove(&self, key: Bytes) -> Reply<()> {
        self.on(|table, _| table.remove(&key));
        Reply::Now(Ok(()))
    }

    fn add(&self, key: Bytes, by: i64, expires_s: u32) -> Reply<i64> {
        Reply::Now(self.on(|table, now| table.add(now, key, by, expires_s)))
    }

    fn counter(&self, key: Bytes) -> Reply<Option<i64>> {
        Reply::Now(self.on(|table, now| table.counter(now, &key)))
    }
}

/// cache_remove_chunk([collection], glob)
fn remove_chunk(call: &mut Call<CachedbLocal>, first: Option<Text>, second: Option<Text>) -> bool {
    let (collection, pattern) = match (first, second) {
        (collection, Some(pattern)) => (collection, pattern),
        (Some(pattern), None) => (None, pattern),
        (None, None) => return false,
    };
    let name = collection.map_or_else(String::new, |c| c.str().into_owned());
    let Some(table) = call.module.collections.find(&name) else {
        host::error!("cachedb_local", "there is no collection `{name}`");
        return false;
    };
    table.remove_all(|key| glob(&pattern, key));
    true
}

/// Pattern and collection of a management command.
fn mi_chunk<'a>(call: &Call<'a, CachedbLocal>, params: &MiParams) -> Result<(&'a Table, String), MiError> {
    let pattern = params.need("glob", 0)?;
    let name = params.text("collection", 1).unwrap_or_default();
    let table = call.module.collections.find(&name);
    Ok((table.ok_or_else(|| MiError::params("there is no such collection"))?, pattern))
}

fn mi_remove_chunk(call: &mut Call<CachedbLocal>, params: &MiParams) -> MiResult {
    let (table, pattern) = mi_chunk(call, params)?;
    table.remove_all(|key| glob(pattern.as_bytes(), key));
    Ok(json!("OK"))
}

fn mi_fetch_chunk(call: &mut Call<CachedbLocal>, params: &MiParams) -> MiResult {
    let (table, pattern) = mi_chunk(call, params)?;
    let found = table.list(call.core.now.0, |key| glob(pattern.as_bytes(), key));
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let keys = found.iter().map(|(key, value, _)| json!({"name": text(key), "value": text(value)}));
    Ok(json!({"keys": keys.collect::<Vec<_>>()}))
}

/// Every second: the clean-up when it is due.
fn clean(call: &mut Call<CachedbLocal>) {
    let now = call.core.now.0;
    let m = call.module;
    m.collections.now.fetch_max(now, Ordering::Relaxed);
    if now < m.next_clean.load(Ordering::Relaxed) {
        return;
    }
    m.next_clean.store(now + m.clean_s * 1000, Ordering::Relaxed);
    for (_, table) in &m.collections.list {
        table.clean(now);
    }
}

/// What was there before the restart.
fn restore(call: &mut Call<CachedbLocal>) {
    let (worker, now, wall_s) = (call.core.worker, call.core.now.0, call.core.wall_us / 1_000_000);
    if worker == 0
        && let Some(file) = &call.module.collections.file
    {
        file::read(file, &call.module.collections.list, now, wall_s);
    }
}

#[cfg(test)]
mod tests;
