//! usrloc: the user location tables that registrar and others work on.

mod cdb;
pub mod contact;
pub mod events;
pub mod federation;
mod keys;
mod latency;
mod mi;
mod params;
mod refresh;
pub mod sql;
pub mod store;
pub mod table;

pub use keys::{HasTables, TableArg};

use bytes::Bytes;
use host::cachedb::Cache;
use host::db::Db;
use host::load::Loader;
use host::shared::Hooks;
use host::stats::Stats;
use host::{Call, Ctx, Registrar};
use host::{InParam, LoadError};
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use table::{Change, Matching, Order, SHARDS, Table};

/// How long the end of the server waits for a database that does not take what it was answered for. A little less than the
/// server gives to all last writes.
const LAST_PATIENCE: Duration = Duration::from_secs(25);
/// Addresses that are named when their last changes are lost.
const NAMED_LOST: usize = 100;
/// How often a database is asked again that did not take what it was told.
const CATCH_UP_MS: u64 = 1000;
/// How often a store is told what it could not be told at once.
const PUBLISH_MS: u64 = 1000;

/// Where contacts live besides memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    #[default]
    Memory,
    /// Memory and database; a change is acknowledged when both have it.
    WriteThrough,
    /// Memory, and the database by timer and at the end.
    WriteBack,
    /// Only the database, which other servers may share.
    SqlOnly,
    /// Only a key-value store, which other servers may share.
    Cache,
}

impl Mode {
    /// Contacts of this server are in its memory.
    pub fn in_memory(self) -> bool {
        !matches!(self, Mode::SqlOnly | Mode::Cache)
    }

    fn uses_sql(self) -> bool {
        matches!(self, Mode::WriteThrough | Mode::WriteBack | Mode::SqlOnly)
    }
}

/// Told of every change, with the address it happened to.
pub type Watcher = Arc<dyn Fn(&mut Ctx, &Arc<Table>, &Bytes, &[Change]) + Send + Sync>;

pub struct Usrloc {
    tables: RwLock<Vec<Arc<Table>>>,
    pub use_domain: bool,
    pub order: Order,
    pub matching: Matching,
    pub mode: Mode,
    pub timer_s: u64,
    db_url: Option<String>,
    db: Option<Db>,
    cache_url: Option<String>,
    cache: Option<Cache>,
    federated: federation::Settings,
    pub federation: Option<federation::Federation>,
    columns: sql::Columns,
    layout: OnceLock<sql::Layout>,
    /// Memory holds what the database held at start (or there is no database).
    loaded: tokio::sync::watch::Sender<bool>,
    nat_bflag: Option<Bytes>,
    /// Mask of `nat_bflag`.
    pub nat_flag: u32,
    /// 2^hash_size is what `ul_dump` shows.
    hash_size: u32,
    dump_keys: bool,
    watchers: RwLock<Vec<Watcher>>,
    refresh: refresh::Refresh,
    next_shard: AtomicUsize,
    chosen: params::Chosen,
    latencies: latency::Filter,
    /// Somebody goes over all contacts.
    visited: AtomicBool,
}

impl Default for Usrloc {
    fn default() -> Usrloc {
        Usrloc {
            tables: RwLock::default(),
            use_domain: true,
            order: Order::Q,
            matching: Matching::Uri,
            mode: Mode::Memory,
            timer_s: 60,
            db_url: None,
            db: None,
            cache_url: None,
            cache: None,
            federated: federation::Settings::default(),
            federation: None,
            columns: sql::Columns::default(),
            layout: OnceLock::new(),
            loaded: tokio::sync::watch::Sender::new(true),
            nat_bflag: None,
            nat_flag: 0,
            hash_size: 9,
            dump_keys: false,
            watchers: RwLock::default(),
            refresh: refresh::Refresh::default(),
            next_shard: AtomicUsize::new(0),
            chosen: params::Chosen::default(),
            latencies: latency::Filter::default(),
            visited: AtomicBool::new(false),
        }
    }
}

pub fn register(m: &mut Registrar<Usrloc>) {
    params::register(m);
    keys::register(m);
    mi::register(m);
    m.init_or(init);
    m.ready(ready);
    m.start(start);
    m.stop(stop);
}

fn init(s: &mut Usrloc, loader: &mut Loader) -> Result<(), LoadError> {
    s.mode = s.chosen.mode(loader.dialect)?;
    s.matching = std::mem::take(&mut s.matching).of(loader.dialect);
    if s.mode == Mode::Cache {
        let url =
            s.cache_url.clone().ok_or("this working mode keeps contacts in a store: set cachedb_url")?;
        s.cache = Some(loader.cache(&url).in_param("cachedb_url")?);
    }
    if s.federated.wanted {
        s.federation = Some(federation::Federation::new(&s.federated, s.cache_url.as_deref(), loader)?);
    }
    if s.mode.uses_sql() {
        let what = "this working mode keeps contacts in a database: set db_url (or db_default_url)";
        s.db = Some(loader.db_or_default(s.db_url.as_deref()).in_param("db_url")?.ok_or(what)?);
    }
    if matches!(s.mode, Mode::WriteThrough | Mode::WriteBack) {
        s.loaded.send_replace(false);
    }
    if let Some(flag) = s.nat_bflag.clone() {
        s.nat_flag = loader.branch_flag(&flag, script::Loc::default()).in_param("nat_bflag")?;
    }
    Ok(())
}

fn ready(module: &Arc<Usrloc>, hooks: &mut Hooks, stats: &Stats) {
    let all = module.clone();
    let users = move || all.tables.read().iter().map(|t| t.records.load(Ordering::Relaxed)).sum();
    stats.computed("usrloc", "registered_users", users);
    for table in module.tables() {
        let (name, users, contacts) = (table.name.clone(), table.clone(), table.clone());
        stats.computed("usrloc", &format!("{name}-users"), move || users.records.load(Ordering::Relaxed));
        stats.computed("usrloc", &format!("{name}-contacts"), move || {
            contacts.contacts.load(Ordering::Relaxed)
        });
        stats.count_with("usrloc", &format!("{name}-expires"), table.expired.clone());
    }
    hooks.raises(events::NAMES);
    let sweeper = module.clone();
    let every_ms = match module.mode {
        Mode::SqlOnly => module.timer_s * 1000,
        // One shard at a time, so that a large table holds its worker only for moments.
        _ => (module.timer_s * 1000 / SHARDS as u64).max(10),
    };
    hooks.timers.push((every_ms, Arc::new(move |ctx| sweeper.sweep(ctx))));
    if matches!(module.mode, Mode::WriteThrough | Mode::WriteBack) {
        let late = module.clone();
        let catch_up = move |ctx: &mut Ctx| late.tables().iter().for_each(|table| late.catch_up(ctx, table));
        hooks.timers.push((CATCH_UP_MS, Arc::new(catch_up)));
    }
    if module.federation.is_some() {
        module.tables().iter().for_each(|table| table.make_published());
        let publisher = module.clone();
        hooks.timers.push((PUBLISH_MS, Arc::new(move |ctx| publisher.publish_beside(ctx))));
    }
    refresh::ready(module, hooks);
}

fn start(call: &mut Call<Usrloc>) {
    let module = call.module.clone();
    if call.core.worker != 0 || !matches!(module.mode, Mode::WriteThrough | Mode::WriteBack) {
        return;
    }
    for table in module.tables() {
        table.make_persistent(u64::from(now_s(call.ctx)) << 24);
    }
    module.load(call.ctx);
}

/// The server ends: what is pending goes to the database.
fn stop(call: &mut Call<Usrloc>) {
    let module = call.module.clone();
    if matches!(module.mode, Mode::WriteThrough | Mode::WriteBack) {
        let tables = module.tables();
        module.flush_all(call.ctx, LAST_PATIENCE, move |_, result| {
            let Err(e) = result else { return };
            for table in tables {
                let (count, removed, names) = table.unwritten(NAMED_LOST);
                if count + removed > 0 {
                    let names = names.iter().map(|aor| String::from_utf8_lossy(aor)).collect::<Vec<_>>();
                    let more = if count > names.len() { " ..." } else { "" };
                    host::error!(
                        "usrloc",
                        "lost: {count} addresses of table {} end without their last changes in the database, {removed} contacts \
                         are gone here and stay there ({e}): {}{more}",
                        table.name,
                        names.join(" ")
                    );
                }
            }
        });
    }
}

impl Usrloc {
    /// The table of this name, made at its first use: functions name theirs when they are loaded.
    pub fn table(&self, name: &str) -> Arc<Table> {
        if let Some(table) = self.find_table(name) {
            return table;
        }
        let mut tables = self.tables.write();
        match tables.iter().find(|t| t.name == name) {
            Some(table) => table.clone(),
            None => {
                let table = Arc::new(Table::new(name));
                tables.push(table.clone());
                table
            }
        }
    }

    pub fn find_table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.read().iter().find(|t| t.name == name).cloned()
    }

    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.tables.read().clone()
    }

    /// Seconds before its end at which a registration that takes push is refreshed.
    pub fn wake_before(&self, seconds: u32) {
        self.refresh.before.store(seconds, Ordering::Relaxed);
    }

    /// Somebody will `visit` all contacts: where a store holds them, this server remembers which addresses
    /// registered here.
    pub fn will_visit(&self) {
        self.visited.store(true, Ordering::Relaxed);
    }

    fn remembers(&self) -> bool {
        self.visited.load(Ordering::Relaxed)
    }

    /// Calls `watcher` for every change, on the worker that made it.
    pub fn watch(&self, watcher: Watcher) {
        self.watchers.write().push(watcher);
    }

    /// Tells everybody who is interested what changed.
    pub fn changed(&self, ctx: &mut Ctx, table: &Arc<Table>, aor: &Bytes, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        events::changed(ctx, table, aor, changes);
        // A watcher may change contacts itself: none runs under the lock.
        let watchers = self.watchers.read().clone();
        for watcher in watchers {
            watcher(ctx, table, aor, changes);
        }
    }

    /// Looks at the next shard of every table: what has expired goes, what is pending is written.
    fn sweep(self: &Arc<Usrloc>, ctx: &mut Ctx) {
        let now = now_s(ctx);
        match self.mode {
            Mode::SqlOnly => return self.expire_rows(ctx, now),
            // The store forgets addresses itself; single contacts go when the address changes.
            Mode::Cache => return,
            _ => {}
        }
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
        for table in self.tables() {
            for (aor, changes) in table.expire(shard, now) {
                self.changed(ctx, &table, &aor, &changes);
            }
            if self.mode != Mode::Memory && table.is_pending(shard) {
                self.flush_beside(ctx, &table, shard);
            }
        }
    }
}

/// Unix seconds of this step.
pub fn now_s(ctx: &Ctx) -> u32 {
    (ctx.core.wall_us / 1_000_000) as u32
}
