//! pua: this server publishes states (RFC 3903) and subscribes to others (RFC 6665) for modules that want it to.

mod publish;
pub mod record;
mod sql;
mod subscribe;

use ahash::AHashMap;
use bytes::Bytes;
use host::db::{Db, Name, Proof};
use host::load::Loader;
use host::{Call, Ctx, Registrar, Routes};
use parking_lot::Mutex;
use record::Record;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use publish::{Refused, publish};
pub use subscribe::{Wish, subscribe};

const SHARDS: usize = 32;
/// States and subscriptions that one server keeps for itself; further ones are refused to whoever wants them.
pub const MAX_RECORDS: u64 = 1_000_000;

/// All records, by the user they are about.
pub struct Records {
    shards: Box<[Mutex<AHashMap<Bytes, Vec<Record>>>]>,
    hash: ahash::RandomState,
    count: AtomicU64,
    next: AtomicU64,
    /// What the table has and nobody wants any more.
    gone: Mutex<Vec<sql::Row>>,
}

impl Default for Records {
    fn default() -> Records {
        Records {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: ahash::RandomState::new(),
            count: AtomicU64::new(0),
            next: AtomicU64::new(0),
            gone: Mutex::default(),
        }
    }
}

impl Records {
    fn shard(&self, uri: &Bytes) -> &Mutex<AHashMap<Bytes, Vec<Record>>> {
        &self.shards[self.hash.hash_one(uri) as usize % SHARDS]
    }

    /// Its number; `None`: there are too many.
    fn insert(&self, mut record: Record) -> Option<u64> {
        if self.count.load(Ordering::Relaxed) >= MAX_RECORDS {
            host::error!("pua", "a record was refused: there are {MAX_RECORDS}");
            return None;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        record.number = number;
        self.shard(&record.uri).lock().entry(record.uri.clone()).or_default().push(record);
        Some(number)
    }

    /// Reads or changes the first that `which` says.
    fn with<R>(
        &self,
        uri: &Bytes,
        which: impl FnMut(&Record) -> bool,
        f: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        let mut shard = self.shard(uri).lock();
        let records = shard.get_mut(uri)?;
        let at = records.iter().position(which)?;
        Some(f(&mut records[at]))
    }

    fn remove(&self, uri: &Bytes, number: u64) {
        let mut shard = self.shard(uri).lock();
        let Some(records) = shard.get_mut(uri) else { return };
        let before = records.len();
        records.retain(|r| {
            let goes = r.number == number;
            if goes {
                self.gone.lock().push(sql::Row::of(r));
            }
            !goes
        });
        self.count.fetch_sub((before - records.len()) as u64, Ordering::Relaxed);
        if records.is_empty() {
            shard.remove(uri);
        }
    }

    /// Shows all; true: some `f` was.
    fn each_mut(&self, mut f: impl FnMut(&mut Record) -> bool) -> bool {
        let mut any = false;
        for shard in &self.shards {
            for record in shard.lock().values_mut().flatten() {
                any |= f(record);
            }
        }
        any
    }
}

pub struct Pua {
    url: Option<String>,
    db: Option<Db>,
    table: Name,
    /// Seconds.
    pub min_expires: i64,
    pub default_expires: i64,
    update_period: i64,
    records: Records,
    loaded: AtomicBool,
}

impl Default for Pua {
    fn default() -> Pua {
        Pua {
            url: None,
            db: None,
            table: "pua".into(),
            min_expires: 300,
            default_expires: 3600,
            update_period: 30,
            records: Records::default(),
            loaded: AtomicBool::new(false),
        }
    }
}

pub fn register(m: &mut Registrar<Pua>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("db_table", |s, v| Ok(s.table = v.to_string().into()));
    m.param_int("min_expires", |s, v| Ok(s.min_expires = v.max(0)));
    m.param_int("default_expires", |s, v| Ok(s.default_expires = if v > 0 { v } else { 3600 }));
    m.param_int("update_period", |s, v| Ok(s.update_period = if v > 0 { v } else { 30 }));
    m.ignored(&["hash_size"], "the table grows by itself");
    m.ignored(
        &["cluster_id", "cluster_sharing_tag"],
        "each server publishes and refreshes what it began itself",
    );
    m.function("pua_update_contact", Routes::REQUEST, |call: &mut Call<Pua>| {
        let msg = call.state.msg.clone();
        if subscribe::update_contact(&call.module.clone(), &msg) { 1 } else { -1 }
    });
    m.needs(&["tm"]);
    m.init(init);
    m.ready(|module, hooks, _| {
        if let Some(db) = &module.db {
            hooks.proves(Proof::of_version("pua", db, &module.table, 9));
        }
    });
    m.start(|call| {
        if call.core.worker == 0 {
            sql::load(call);
        }
    });
    m.stop(|call| sql::save(call, LAST_PATIENCE_MS));
    m.timer(1000, tick);
}

/// How long the end of the server waits for the database.
const LAST_PATIENCE_MS: u64 = 25_000;

fn init(s: &mut Pua, loader: &mut Loader) -> Result<(), String> {
    s.db = loader.db_or_default(s.url.as_deref())?;
    if s.db.is_none() {
        return Err("db_url is not set".into());
    }
    Ok(())
}

/// Unix seconds of this step.
fn now_s(ctx: &Ctx) -> i64 {
    (ctx.core.wall_us / 1_000_000) as i64
}

/// Seconds since the start, on worker 0.
#[derive(Default)]
struct Ticks(u64);

/// What runs out before the next look is refreshed, or ended when nobody wants it longer.
fn tick(call: &mut Call<Pua>) {
    let module = call.module.clone();
    let ticks = call.ctx.local::<Ticks>();
    ticks.0 += 1;
    let ticks = ticks.0;
    if !module.loaded.load(Ordering::Relaxed) {
        if ticks.is_multiple_of(5) {
            sql::load(call);
        }
        return;
    }
    if !ticks.is_multiple_of(module.update_period.unsigned_abs()) {
        return;
    }
    let now = now_s(call.ctx);
    let mut due = Vec::new();
    module.records.each_mut(|r| {
        if !r.waits && r.expires > 0 && r.expires - module.update_period < now {
            let ends = r.desired != 0 && r.desired <= r.expires + 5;
            due.push((r.uri.clone(), r.number, r.watch.is_some(), ends));
        }
        false
    });
    for (uri, number, watches, ends) in due {
        match watches {
            true => subscribe::refresh(call.ctx, &module, &uri, number, ends),
            false => publish::refresh(call.ctx, &module, &uri, number, ends),
        }
    }
    sql::save(call, host::db::LIMIT_MS);
}

impl Pua {
    /// The number of the next document of a state, for servers that want one (RFC 4235 §4.1.1).
    pub fn next_number(&self, uri: &Bytes, id: &[u8]) -> u32 {
        self.records.with(uri, |r| r.id == id, |r| r.version.wrapping_add(1)).unwrap_or(1)
    }
}
