//! cachedb_redis: Redis as a key-value store, one server, several to fall back on, Sentinel or Cluster.

mod connect;
mod manage;
mod raw;
mod store;

use connect::Target;
use host::cachedb::{Cache, CacheUrl, Engine, Store};
use host::registrar::Stage;
use host::{Call, Ctx, Output, Registrar};
use parking_lot::Mutex;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use store::RedisStore;

#[derive(Clone, Debug)]
pub struct Settings {
    pub connect: Duration,
    pub query: Duration,
    pub tls: bool,
    /// Seconds; zero: none.
    pub keepalive: u64,
}

pub struct CachedbRedis {
    settings: Settings,
    urls: Vec<String>,
    lazy: bool,
    must_connect: bool,
    caches: Vec<Cache>,
}

impl Default for CachedbRedis {
    fn default() -> CachedbRedis {
        let five = Duration::from_secs(5);
        CachedbRedis {
            settings: Settings { connect: five, query: five, tls: false, keepalive: 10 },
            urls: Vec::new(),
            lazy: false,
            must_connect: false,
            caches: Vec::new(),
        }
    }
}

fn ms(n: i64) -> Duration {
    Duration::from_millis(n.clamp(1, 600_000) as u64)
}

pub fn register(m: &mut Registrar<CachedbRedis>) {
    m.stage(Stage::Driver);
    m.param_text("cachedb_url", |m, url| Ok(m.urls.push(url.to_string())));
    m.param_int("connect_timeout", |m, n| Ok(m.settings.connect = ms(n)));
    m.param_int("query_timeout", |m, n| Ok(m.settings.query = ms(n)));
    m.param_int("use_tls", |m, on| Ok(m.settings.tls = on != 0));
    m.param_int("lazy_connect", |m, on| Ok(m.lazy = on != 0));
    m.param_int("shutdown_on_error", |m, on| Ok(m.must_connect = on != 0));
    m.param_int("redis_keepalive", |m, seconds| Ok(m.settings.keepalive = seconds.max(0) as u64));
    m.ignored(&["enable_raw_query_quoting"], "quotes are always understood");
    m.ignored(
        &["ftsearch_index_name", "ftsearch_json_prefix", "ftsearch_max_results", "ftsearch_json_mset_expire"],
        "nothing here keeps JSON documents in Redis",
    );
    m.init(init);
    m.start(start);
    manage::register(m);
}

fn init(m: &mut CachedbRedis, loader: &mut host::Loader) -> Result<(), String> {
    crate::tls::install_provider();
    let domains =
        loader.module::<crate::tls_mgm::TlsMgm>().map(|tls| tls.clients.clone()).unwrap_or_default();
    let engine = Redis {
        settings: m.settings.clone(),
        domains,
        targets: Mutex::default(),
        queries: loader.stats.counter("cachedb_redis", "redis_queries"),
        failed: loader.stats.counter("cachedb_redis", "redis_queries_failed"),
        refreshes: loader.stats.counter("cachedb_redis", "redis_topology_refreshes"),
    };
    loader.cache_engine("redis", Arc::new(engine));
    for url in &m.urls {
        m.caches.push(loader.named_cache(url)?);
    }
    Ok(())
}

struct Redis {
    settings: Settings,
    domains: Vec<crate::tls_mgm::Domain>,
    /// Prepared at load, by URL.
    targets: Mutex<Vec<(CacheUrl, Arc<Target>)>>,
    queries: host::stats::Counter,
    failed: host::stats::Counter,
    refreshes: host::stats::Counter,
}

impl Engine for Redis {
    fn module(&self) -> &'static str {
        "cachedb_redis"
    }

    fn check(&self, url: &CacheUrl) -> Result<(), String> {
        let target = Target::new(url, &self.settings, &self.domains)?;
        self.targets.lock().push((url.clone(), Arc::new(target)));
        Ok(())
    }

    fn connect(&self, cache: &Cache, ctx: &mut Ctx) -> Rc<dyn Store> {
        let targets = self.targets.lock();
        let found = targets.iter().find(|(url, _)| url == cache.url()).map(|(_, target)| target.clone());
        let target = found.expect("checked at load");
        ctx.shared().tell_backend("cachedb_redis", target.name.clone(), target.outage.clone());
        let store = RedisStore::new(target, self.queries.clone(), self.failed.clone());
        manage::remember(ctx, cache, &store, self.refreshes.clone());
        Rc::new(store)
    }

    fn limit_ms(&self) -> u64 {
        // The time for a connection, a query, and the query again on another connection.
        (self.settings.connect + self.settings.query).as_millis() as u64 * 2 + 1000
    }
}

/// Connects when the server starts, so that the first call need not wait.
fn start(call: &mut Call<CachedbRedis>) {
    if call.module.lazy {
        return;
    }
    let must_connect = call.module.must_connect;
    for cache in call.module.caches.clone() {
        let name = cache.url().to_string();
        cache.spawn(
            call.ctx,
            "redis connect",
            |s| s.connect(),
            move |ctx, done| {
                if let (Err(error), true) = (done, must_connect) {
                    host::error!("cachedb_redis", "{name}: {error}; shutdown_on_error ends the server");
                    ctx.core.outputs.push(Output::Shutdown { code: 255 });
                }
            },
        );
    }
}

#[cfg(test)]
mod tests;
