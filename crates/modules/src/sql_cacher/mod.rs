//! sql_cacher: tables of a database in a key-value store, read as variables: whole tables kept up to date, or rows
//! as they are asked for.

mod entry;
mod row;
mod spec;

use ahash::AHashMap;
use bytes::Bytes;
use entry::{Entry, Trouble};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared, join_all};
use host::Accepts;
use host::arg::OutVars;
use host::cachedb::Reply;
use host::call::Finish;
use host::mi::{MiAnswer, MiError, MiParams};
use host::var::{Answer, At, VarKind, WaitingVariable};
use host::{Call, Ctx, Format, Loader, Outcome, Registrar, Routes, Suspension, Text, Value};
use row::{BigInts, Kept};
use script::ast::AssignOp;
use serde_json::json;
use spec::{Mode, Spec};
use std::sync::Arc;

/// Longest a value is waited for.
const LIMIT_MS: u64 = 20_000;
/// Longest a load may take.
const LOAD_MS: u64 = 600_000;
/// After a load that failed.
const RETRY_S: i64 = 5;

pub struct SqlCacher {
    /// `cache_table`, in the order of the file: delimiters may follow.
    texts: Vec<String>,
    spec_delimiter: char,
    pvar_delimiter: u8,
    columns_delimiter: char,
    full_expire_s: u32,
    /// Seconds before the end of its life that a table is loaded again.
    reload_s: i64,
    big: BigInts,
    entries: Vec<Arc<Entry>>,
}

impl Default for SqlCacher {
    fn default() -> SqlCacher {
        SqlCacher {
            texts: Vec::new(),
            spec_delimiter: '\n',
            pvar_delimiter: b':',
            columns_delimiter: ' ',
            full_expire_s: 86_400,
            reload_s: 60,
            big: BigInts::Numbers,
            entries: Vec::new(),
        }
    }
}

fn one(text: &str) -> Result<char, String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if c.is_ascii() => Ok(c),
        _ => Err("a delimiter is one character".to_string()),
    }
}

pub fn register(m: &mut Registrar<SqlCacher>) {
    m.param_text("cache_table", |m, text| Ok(m.texts.push(text.to_string())));
    m.accepts(Accepts::FILLED, &["cache_table"]);
    m.param_text("spec_delimiter", |m, text| Ok(m.spec_delimiter = one(text)?));
    m.param_text("pvar_delimiter", |m, text| Ok(m.pvar_delimiter = one(text)? as u8));
    m.param_text("columns_delimiter", |m, text| Ok(m.columns_delimiter = one(text)?));
    m.param_int("full_caching_expire", |m, n| {
        m.full_expire_s = u32::try_from(n).ok().filter(|n| *n > 0).ok_or("this is a number of seconds")?;
        Ok(())
    });
    m.param_int("reload_interval", |m, n| Ok(m.reload_s = n.max(0)));
    m.accepts(Accepts::seconds(0), &["reload_interval"]);
    m.param_int("bigint_to_str", |m, on| {
        m.big = if on != 0 { BigInts::Texts } else { BigInts::Numbers };
        Ok(())
    });
    m.ignored(&["sql_fetch_nr_rows"], "a result comes as one");
    m.init(init);
    m.timer(1000, load_what_is_due);
    m.variable_class("sql_cached_value", |spec, loader, module| {
        let text = Format::new(&spec.inner.clone().unwrap_or_default(), spec.loc, loader)?;
        Ok(VarKind::Waiting(Box::new(CachedValue { text, module: module.clone() })))
    });
    m.function("sql_cache_dump", Routes::ALL, dump);
    for name in ["sql_cacher_reload", "sql_cacher:reload"] {
        m.command_late(name, "reads a cached table, or one of its rows, again", reload).takes("id [key]");
    }
}

fn init(m: &mut SqlCacher, loader: &mut Loader) -> Result<(), String> {
    if m.reload_s >= i64::from(m.full_expire_s) {
        return Err("reload_interval must be less than full_caching_expire".to_string());
    }
    for text in std::mem::take(&mut m.texts) {
        let wrong = |why: String| format!("cache_table: {why}");
        let spec = Spec::parse(&text, m.spec_delimiter, m.columns_delimiter).map_err(wrong)?;
        if m.entries.iter().any(|entry| entry.spec.id == spec.id) {
            return Err(format!("cache_table: there are two with id {}", spec.id));
        }
        let (db, cache) = (loader.db(&spec.db_url)?, loader.cache(&spec.cachedb_url)?);
        m.entries.push(Arc::new(Entry::new(spec, db, cache, m.full_expire_s)));
    }
    Ok(())
}

impl SqlCacher {
    fn entry(&self, id: &[u8]) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| entry.spec.id.as_bytes() == id)
    }
}

/// Each second, on one worker.
fn load_what_is_due(call: &mut Call<SqlCacher>) {
    let now_s = call.core.wall_us / 1_000_000;
    for entry in call.module.entries.clone() {
        if entry.take_load(now_s as i64, RETRY_S) {
            load(call, entry, |_, _| {});
        }
    }
}

/// Loads a table; the caller has begun that. `done` hears the number of rows.
fn load(call: &mut Call<SqlCacher>, entry: Arc<Entry>, done: impl FnOnce(&mut Ctx, Option<usize>) + 'static) {
    let hands = entry.hands(call.ctx);
    let next = i64::from(call.module.full_expire_s) - call.module.reload_s;
    // Also when the worker drops the load: another one may then begin.
    let ending = Ending { entry: entry.clone() };
    call.spawn_aside("sql_cacher load", LOAD_MS, async move {
        let loaded = entry.clone().load(hands).await;
        Box::new(move |ctx: &mut Ctx| {
            let now_s = (ctx.core.wall_us / 1_000_000) as i64;
            entry.end_load(loaded.is_ok(), now_s, next);
            drop(ending);
            let id = &entry.spec.id;
            match loaded {
                Ok(rows) => {
                    host::info!("sql_cacher", "{id}: {rows} rows are loaded");
                    done(ctx, Some(rows));
                    1
                }
                Err(error) => {
                    host::error!("sql_cacher", "{id} was not loaded: {error}");
                    done(ctx, None);
                    -1
                }
            }
        }) as Finish
    });
}

struct Ending {
    entry: Arc<Entry>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.entry.is_loading() {
            self.entry.end_load(false, 0, 0);
        }
    }
}

/// `$sql_cached_value(id:column:key)`
struct CachedValue {
    text: Format,
    module: Arc<SqlCacher>,
}

type Reading = Shared<LocalBoxFuture<'static, Option<Arc<Kept>>>>;

/// Rows that this worker is reading: who wants the same one waits for the same query.
#[derive(Default)]
struct Readings {
    running: AHashMap<(usize, Bytes), Reading>,
    /// How many there may be before those that are over are looked for.
    sweep_at: usize,
}

impl Readings {
    /// The one that runs, or a new one.
    fn join(&mut self, key: (usize, Bytes), new: impl FnOnce() -> Reading) -> Reading {
        if self.running.len() >= self.sweep_at {
            self.running.retain(|_, r| r.peek().is_none() && r.strong_count().is_some_and(|n| n > 1));
            self.sweep_at = self.running.len() * 2 + 64;
        }
        match self.running.get(&key).filter(|reading| reading.peek().is_none()) {
            Some(reading) => reading.clone(),
            None => {
                let reading = new();
                self.running.insert(key, reading.clone());
                reading
            }
        }
    }
}

impl WaitingVariable for CachedValue {
    fn ask(&self, ctx: &mut Ctx, _: At) -> Answer {
        let text = self.text.text(ctx);
        let Some((id, column, key)) = spec::split(&text, self.module.pvar_delimiter) else {
            host::error!("sql_cacher", "`{}` is not id, column and key", String::from_utf8_lossy(&text));
            return Value::Null.into();
        };
        let Some(at) = self.module.entries.iter().position(|e| e.spec.id.as_bytes() == id) else {
            host::error!("sql_cacher", "there is no cache_table with id {}", String::from_utf8_lossy(&id));
            return Value::Null.into();
        };
        let entry = self.module.entries[at].clone();
        let column = String::from_utf8_lossy(&column).into_owned();
        let big = self.module.big;
        let answer = entry.cache.on(ctx).fetch(entry.place(&key));
        let kept = match answer {
            Reply::Now(Ok(Some(text))) => entry.usable(&text),
            Reply::Now(Ok(None)) => None,
            Reply::Now(Err(error)) => {
                complain(&entry, &Trouble::Cache(error));
                None
            }
            Reply::Later(future) => {
                let reading = entry.clone();
                let read = read(ctx, at, &entry, key);
                let detail = text.clone();
                return Answer::later("sql_cached_value", detail, LIMIT_MS, async move {
                    let found = match future.await {
                        Ok(text) => text.and_then(|text| reading.usable(&text)).map(Arc::new),
                        Err(error) => {
                            complain(&reading, &Trouble::Cache(error));
                            None
                        }
                    };
                    let kept = match (found, reading.asks_database()) {
                        (Some(kept), _) => Some(kept),
                        (None, true) => read.await,
                        (None, false) => None,
                    };
                    kept.map_or(Value::Null, |kept| value(&reading, &kept, &column, big))
                });
            }
        };
        match kept {
            Some(kept) => value(&entry, &kept, &column, big).into(),
            None if entry.asks_database() => {
                let read = read(ctx, at, &entry, key);
                Answer::later("sql_cached_value", text, LIMIT_MS, async move {
                    read.await.map_or(Value::Null, |kept| value(&entry, &kept, &column, big))
                })
            }
            None => Value::Null.into(),
        }
    }
}

fn value(entry: &Entry, kept: &Kept, column: &str, big: BigInts) -> Value {
    if !kept.has(column) {
        host::error!("sql_cacher", "{} has no column {column}", entry.spec.id);
    }
    kept.value(column, big)
}

fn complain(entry: &Entry, trouble: &Trouble) {
    // Outages are told by those who own the connections.
    let known = match trouble {
        Trouble::Db(error) => matches!(error, host::db::DbError::Down(_)),
        Trouble::Cache(error) => matches!(error, host::cachedb::CacheError::Down(_)),
    };
    if !known {
        host::error!("sql_cacher", "{}: {trouble}", entry.spec.id);
    }
}

impl Entry {
    /// A row that is not in the store may be in the database: on demand, and while the table is not there yet.
    fn asks_database(&self) -> bool {
        self.spec.mode == Mode::OnDemand || !self.is_loaded()
    }
}

/// Reads a row from the database, or joins those who read it already. Nothing happens before it is awaited.
fn read(ctx: &mut Ctx, at: usize, entry: &Arc<Entry>, key: Bytes) -> Reading {
    let hands = entry.hands(ctx);
    let (entry, place) = (entry.clone(), (at, key.clone()));
    let new = || {
        let work = entry.clone().read(key, hands);
        let work = async move {
            work.await.unwrap_or_else(|trouble| {
                complain(&entry, &trouble);
                None
            })
        };
        work.map(|kept| kept.map(Arc::new)).boxed_local().shared()
    };
    ctx.local::<Readings>().join(place, new)
}

/// sql_cache_dump(id, columns, AVPs): the number of rows of a whole cached table, -2 for none, -1 on errors. The
/// rows stack up so that index 0 is the first one.
fn dump(call: &mut Call<SqlCacher>, id: Text, columns: Text, out: OutVars) -> Outcome {
    let Some(entry) = call.module.entry(&id.0).cloned() else {
        host::error!("sql_cacher", "sql_cache_dump: there is no cache_table with id {}", id.str());
        return Outcome::Done(-1);
    };
    let names: Vec<String> = columns.str().split(',').map(|name| name.trim().to_string()).collect();
    if names.len() != out.0.len() {
        host::error!("sql_cacher", "sql_cache_dump: {} columns for {} variables", names.len(), out.0.len());
        return Outcome::Done(-1);
    }
    if entry.spec.mode == Mode::OnDemand {
        host::error!("sql_cacher", "sql_cache_dump: {} is not cached whole", entry.spec.id);
        return Outcome::Done(-1);
    }
    let store = entry.cache.on(call.ctx);
    let replies: Vec<_> = entry.keys().iter().map(|key| store.fetch(entry.place(key))).collect();
    let big = call.module.big;
    let future = async move {
        let found = join_all(replies.into_iter().map(|reply| reply.get())).await;
        Box::new(move |ctx: &mut Ctx| {
            let rows: Vec<Kept> = found.into_iter().filter_map(|text| entry.usable(&text.ok()??)).collect();
            for row in rows.iter().rev() {
                for (var, name) in out.0.iter().zip(&names) {
                    let value = row.value(name, big);
                    match var.kind {
                        // Rows keep their places: NULL is a text here, as sql_query has it.
                        VarKind::Avp(avp) => {
                            let value = if value.is_null() { Value::from("<null>") } else { value };
                            ctx.state.avps.borrow_mut().add(avp, value);
                        }
                        _ => drop(var.set(ctx, AssignOp::Set, value)),
                    }
                }
            }
            if rows.is_empty() { -2 } else { rows.len() as i32 }
        }) as Finish
    };
    Suspension::future("sql_cache_dump", future).detail(id.0).limit(LIMIT_MS, -1)
}

/// sql_cacher_reload id [key]
fn reload(call: &mut Call<SqlCacher>, params: &MiParams, answer: MiAnswer) {
    let id = match params.need("id", 0) {
        Ok(id) => id,
        Err(error) => return answer.give(Err(error)),
    };
    let Some(entry) = call.module.entry(id.as_bytes()).cloned() else {
        return answer.give(Err(MiError::new(404, "there is no cache_table with this id")));
    };
    let failed = |_: &mut Ctx| Err(MiError::new(500, "the table was not loaded"));
    match params.text("key", 1) {
        Some(key) => {
            let reading = entry.clone().read(Bytes::from(key), entry.hands(call.ctx));
            call.spawn_aside("sql_cacher load", LIMIT_MS, async move {
                let kept = reading.await;
                Box::new(move |_: &mut Ctx| {
                    answer.give(match kept {
                        Ok(Some(_)) => Ok(json!("OK")),
                        Ok(None) => Err(MiError::new(404, "the table has no such row")),
                        Err(error) => Err(MiError::new(500, error.to_string())),
                    });
                    1
                }) as Finish
            });
        }
        None if entry.spec.mode == Mode::OnDemand => {
            let now = call.core.wall_us;
            entry.invalidate(now);
            answer.give(Ok(json!("OK")));
        }
        None if entry.begin_load() => load(call, entry, move |ctx, rows| {
            answer.give(match rows {
                Some(_) => Ok(json!("OK")),
                None => failed(ctx),
            });
        }),
        None => answer.give(Err(MiError::new(500, "the table is being loaded"))),
    }
}
