//! What entities and sessions have in a database: parameters, and when rows go there.

use ahash::{AHashMap, AHashSet};
use bytes::Bytes;
use futures_channel::oneshot;
use host::call::Finish;
use host::db::{Db, LIMIT_MS, Name, Query};
use host::{Ctx, Loader};
use std::marker::PhantomData;
use std::sync::Arc;

/// Milliseconds that changes gather before they are written.
const GATHER_MS: u64 = 20;
/// Pause after a write that failed, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// Time that the last writes may take.
const LAST_LIMIT_MS: u64 = 60_000;
/// Statements of one transaction.
const BATCH: usize = 200;

/// When memory goes to the database (`db_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    None,
    /// Each change.
    Through,
    /// What has changed, every `update_period`.
    #[default]
    Back,
}

pub struct Store {
    pub url: Option<String>,
    pub db: Option<Db>,
    pub mode: Mode,
    /// Seconds.
    pub period: u32,
    pub table: Name,
}

impl Store {
    pub fn new(table: &'static str) -> Store {
        Store { url: None, db: None, mode: Mode::Back, period: 100, table: table.into() }
    }

    pub fn set_mode(&mut self, n: i64) -> Result<(), String> {
        self.mode = match n {
            0 => Mode::None,
            1 => Mode::Through,
            2 => Mode::Back,
            _ => return Err("db_mode is 0 (none), 1 (each change) or 2 (from time to time)".into()),
        };
        Ok(())
    }

    pub fn set_period(&mut self, n: i64) -> Result<(), String> {
        match u32::try_from(n) {
            Ok(n) if n > 0 => Ok(self.period = n),
            _ => Err("update_period is a number of seconds".into()),
        }
    }

    /// Without a URL nothing is kept.
    pub fn init(&mut self, loader: &mut Loader) -> Result<(), String> {
        if self.mode != Mode::None {
            self.db = loader.db_or_default(self.url.as_deref())?;
        }
        if self.db.is_none() {
            self.mode = Mode::None;
        }
        Ok(())
    }
}

/// A module that keeps rows.
pub trait Keeps: Send + Sync + 'static {
    const MODULE: &'static str;
    fn store(&self) -> &Store;
    /// What the table is to be told of a key; nothing when there is nothing to keep of it.
    fn rows(&self, ctx: &mut Ctx, key: &Bytes) -> Vec<Query>;
    /// Keys of everything that is kept.
    fn keys(&self, ctx: &mut Ctx) -> Vec<Bytes>;
}

/// What one worker has to write.
struct Writing<M> {
    changed: AHashSet<Bytes>,
    gone: AHashMap<Bytes, Query>,
    busy: bool,
    soon: bool,
    of: PhantomData<fn() -> M>,
}

impl<M> Default for Writing<M> {
    fn default() -> Writing<M> {
        Writing { changed: AHashSet::new(), gone: AHashMap::new(), busy: false, soon: false, of: PhantomData }
    }
}

/// Something of a key has changed.
pub fn changed<M: Keeps>(ctx: &mut Ctx, module: &Arc<M>, key: &Bytes) {
    if module.store().mode == Mode::None {
        return;
    }
    ctx.local::<Writing<M>>().changed.insert(key.clone());
    soon(ctx, module);
}

/// A key is no more; `delete` takes its rows away.
pub fn gone<M: Keeps>(ctx: &mut Ctx, module: &Arc<M>, key: &Bytes, delete: Query) {
    if module.store().mode == Mode::None {
        return;
    }
    let writing = ctx.local::<Writing<M>>();
    writing.changed.remove(key);
    writing.gone.insert(key.clone(), delete);
    soon(ctx, module);
}

fn soon<M: Keeps>(ctx: &mut Ctx, module: &Arc<M>) {
    let ms = match module.store().mode {
        Mode::None => return,
        Mode::Through => GATHER_MS,
        Mode::Back => u64::from(module.store().period) * 1000,
    };
    let writing = ctx.local::<Writing<M>>();
    if writing.busy || std::mem::replace(&mut writing.soon, true) {
        return;
    }
    let module = module.clone();
    ctx.after(ms, move |ctx| {
        ctx.local::<Writing<M>>().soon = false;
        write(ctx, &module);
    });
}

fn write<M: Keeps>(ctx: &mut Ctx, module: &Arc<M>) {
    let Some(db) = &module.store().db else { return };
    let writing = ctx.local::<Writing<M>>();
    let (changed, gone) = (std::mem::take(&mut writing.changed), std::mem::take(&mut writing.gone));
    let mut queries: Vec<Query> = gone.values().cloned().collect();
    for key in &changed {
        queries.extend(module.rows(ctx, key));
    }
    if queries.is_empty() {
        return;
    }
    ctx.local::<Writing<M>>().busy = true;
    let (pool, module) = (db.on(ctx), module.clone());
    ctx.spawn(M::MODULE, LIMIT_MS, async move {
        let mut failed = None;
        for batch in queries.chunks(BATCH) {
            if let Err(error) = pool.run_all(batch.to_vec()).await {
                failed = Some(error);
                break;
            }
        }
        Box::new(move |ctx: &mut Ctx| {
            let writing = ctx.local::<Writing<M>>();
            writing.busy = false;
            if let Some(error) = failed {
                host::error!("b2b", "{}: calls are not in the database yet: {error}", M::MODULE);
                writing.changed.extend(changed);
                for (key, query) in gone {
                    writing.gone.entry(key).or_insert(query);
                }
                writing.soon = true;
                ctx.after(RETRY_MS, move |ctx| {
                    ctx.local::<Writing<M>>().soon = false;
                    write(ctx, &module);
                });
            } else if !writing.changed.is_empty() || !writing.gone.is_empty() {
                soon(ctx, &module);
            }
            1
        }) as Finish
    });
}

/// The server ends: what every worker has goes to the table.
pub fn at_end<M: Keeps>(ctx: &mut Ctx, module: &Arc<M>) {
    let Some(db) = module.store().db.clone().filter(|_| module.store().mode != Mode::None) else { return };
    let mut answers = Vec::new();
    for worker in 0..usize::from(ctx.core.workers) {
        let (send, receive) = oneshot::channel::<Vec<Query>>();
        let asked = module.clone();
        let job = move |ctx: &mut Ctx| {
            let gone = std::mem::take(&mut ctx.local::<Writing<M>>().gone);
            let mut queries: Vec<Query> = gone.into_values().collect();
            for key in asked.keys(ctx) {
                queries.extend(asked.rows(ctx, &key));
            }
            let _ = send.send(queries);
        };
        if ctx.on_worker(worker, job) {
            answers.push(receive);
        }
    }
    let pool = db.on(ctx);
    ctx.spawn(M::MODULE, LAST_LIMIT_MS, async move {
        for answer in answers {
            let queries = answer.await.unwrap_or_default();
            for batch in queries.chunks(BATCH) {
                if let Err(error) = pool.run_all(batch.to_vec()).await {
                    host::error!("b2b", "{}: not all calls could be written: {error}", M::MODULE);
                }
            }
        }
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}

/// The registrar's parameters that both have.
#[macro_export]
macro_rules! store_params {
    ($m:ident) => {
        $m.param_text("db_url", |s, v| Ok(s.store.url = Some(v.into())));
        $m.param_text("db_table", |s, v| Ok(s.store.table = v.to_string().into()));
        $m.param_int("db_mode", |s, v| s.store.set_mode(v));
        $m.param_int("update_period", |s, v| s.store.set_period(v));
        $m.ignored(
            &["cachedb_url", "cachedb_key_prefix"],
            "calls are kept in a database (db_url), not in a key-value store",
        );
    };
}
