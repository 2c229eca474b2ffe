//! What happens by itself: subscriptions and states end, the database is brought up to date, a start reads what was.

use super::body::{Ask, Sources};
use super::notify::{self, News, Whom};
use super::packages::Event;
use super::publish::sphere_of;
use super::subscription::{Reason, Status, Subscription, Unwritten};
use super::table::{Key, Published, SHARDS};
use super::{Presence, sql};
use bytes::Bytes;
use host::db::{DbError, LIMIT_MS, Query, Rows};
use host::{Call, Ctx, Finish};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often people who wait to be let in are looked at, seconds.
const WAITING_PERIOD_S: u64 = 3600;
/// A state is over only some time after its end, seconds: its source may be late.
const GRACE_S: i64 = 10;
/// Pause between two parts of the table, milliseconds.
const PAUSE_MS: u64 = 1;
/// Rows written in one transaction.
const BATCH: usize = 200;
/// How long the end of the server waits for a database.
const LAST_PATIENCE_MS: u64 = 25_000;
/// How often a database is asked again that could not be read at the start, seconds.
const RETRY_S: u64 = 5;

/// Seconds since the start, on worker 0.
#[derive(Default)]
struct Ticks(u64);

/// Once a second on worker 0.
pub fn tick(call: &mut Call<Presence>) {
    let module = call.module.clone();
    if module.db.is_none() {
        return;
    }
    let ticks = call.ctx.local::<Ticks>();
    ticks.0 += 1;
    let ticks = ticks.0;
    if !*module.loaded.borrow() {
        if ticks.is_multiple_of(RETRY_S) {
            load(call.ctx, &module);
        }
        return;
    }
    let due = |period: i64| u64::try_from(period).is_ok_and(|p| p > 0 && ticks.is_multiple_of(p));
    if due(module.db_update_period) {
        update(call.ctx, module.clone(), 0);
    }
    if due(module.clean_period) {
        clean(call.ctx, &module, module.clean_period, |_| ());
    }
    if module.clean_period > 0 && ticks.is_multiple_of(WAITING_PERIOD_S) {
        forget_waiting(call.ctx, &module);
    }
}

/// Nobody has decided about them for days.
pub fn forget_waiting(ctx: &mut Ctx, module: &Presence) {
    let before = super::now_s(ctx) - i64::from(module.waiting_days) * 86_400;
    super::write(ctx, module, module.tables.delete_pending(before));
}

/// One part of the table after the other: what has expired goes, what changed is written.
fn update(ctx: &mut Ctx, module: Arc<Presence>, shard: usize) {
    let now = super::now_s(ctx);
    for (key, mut s) in module.table.expire(shard, now as u32) {
        let Some(package) = module.packages.get(key.package).filter(|p| p.tells_end) else { continue };
        s.change(Status::Terminated, &Reason::TIMEOUT);
        s.expires = 0;
        notify::post(ctx, &module, &key, &package, News::of(None), vec![Whom::Gone(Box::new(s))]);
    }
    let rows = unwritten(ctx, &module, shard);
    save(ctx, &module, rows, LIMIT_MS);
    match shard + 1 {
        SHARDS => super::write(ctx, &module, module.tables.delete_expired(now)),
        next => {
            ctx.after(PAUSE_MS, move |ctx| update(ctx, module, next));
        }
    }
}

/// A change that the database does not have.
struct Change {
    key: Arc<Key>,
    subscription: Subscription,
    query: Query,
}

/// Takes the changes of one part of the table; they count as written now.
fn unwritten(ctx: &Ctx, module: &Presence, shard: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    // Where every change is written at once, nothing is left.
    if module.fallback {
        return changes;
    }
    module.table.each_in(shard, |key, s| {
        let Some(package) = module.packages.get(key.package) else { return };
        let query = match s.unwritten {
            Unwritten::Nothing => return,
            Unwritten::Insert => module.tables.insert_subscription(ctx.shared(), key, package.name, s),
            Unwritten::Update => module.tables.update_subscription(key, package.name, s),
        };
        changes.push(Change { key: key.clone(), subscription: s.clone(), query });
        s.unwritten = Unwritten::Nothing;
    });
    changes
}

fn save(ctx: &mut Ctx, module: &Arc<Presence>, mut changes: Vec<Change>, limit_ms: u64) {
    let Some(db) = module.db.as_ref().filter(|_| !changes.is_empty()) else { return };
    let pool = db.on(ctx);
    let module = module.clone();
    ctx.spawn("presence", limit_ms, async move {
        let mut failed = Vec::new();
        while !changes.is_empty() {
            let batch: Vec<Change> = changes.drain(..changes.len().min(BATCH)).collect();
            let queries = batch.iter().map(|change| change.query.clone()).collect();
            if let Err(error) = pool.run_all(queries).await {
                host::error!("presence", "{} subscriptions were not written: {error}", batch.len());
                failed.extend(batch);
            }
        }
        Box::new(move |_: &mut Ctx| {
            for Change { key, subscription, .. } in failed {
                // Later, with what has changed since.
                module.table.with(&key, &subscription.dialog(), |s| {
                    if s.unwritten != Unwritten::Insert {
                        s.unwritten = subscription.unwritten;
                    }
                });
            }
            1
        }) as Finish
    });
}

/// The server ends.
pub fn stop(call: &mut Call<Presence>) {
    let module = call.module.clone();
    if !*module.loaded.borrow() {
        return;
    }
    let changes = (0..SHARDS).flat_map(|shard| unwritten(call.ctx, &module, shard)).collect();
    save(call.ctx, &module, changes, LAST_PATIENCE_MS);
}

/// A state that ended: user, domain, tag, event.
struct Ended(Bytes, Bytes, Bytes, String);

/// States whose time is over are told and removed; `period`: seconds between two looks.
pub fn clean(ctx: &mut Ctx, module: &Arc<Presence>, period: i64, done: impl FnOnce(&mut Ctx) + 'static) {
    let Some(db) = &module.db else { return done(ctx) };
    let before = super::now_s(ctx) - GRACE_S;
    let after = module.cleaned_until.swap(before - 1, Ordering::Relaxed);
    let kept = module.clone();
    db.spawn(ctx, "presence", module.tables.ended(after, before), move |ctx, rows| {
        let ended = match rows {
            Ok(rows) => rows
                .iter()
                .map(|r| {
                    let text = |at| r.text(at).unwrap_or_default();
                    Ended(text(0), text(1), text(2), r.string(3))
                })
                .collect(),
            Err(error) => {
                host::error!("presence", "states that ended were not read: {error}");
                kept.cleaned_until.store(after, Ordering::Relaxed);
                VecDeque::new()
            }
        };
        let last = kept.tables.delete_ended(before - 3 * period);
        clean_next(ctx, kept, ended, last, Box::new(done));
    });
}

/// One after the other, each when it is its turn.
fn clean_next(
    ctx: &mut Ctx,
    module: Arc<Presence>,
    mut ended: VecDeque<Ended>,
    last: Query,
    done: Box<dyn FnOnce(&mut Ctx)>,
) {
    let Some(sources) = Sources::open(&module, ctx) else { return done(ctx) };
    let Some(Ended(user, domain, etag, event)) = ended.pop_front() else {
        let Some(db) = &module.db else { return done(ctx) };
        return db.spawn(ctx, "presence", last, move |ctx, result| {
            if let Err(error) = result {
                host::error!("presence", "states that ended were not removed: {error}");
            }
            done(ctx);
        });
    };
    ctx.spawn("presence", LIMIT_MS, async move {
        let event = Event::parse(&Bytes::from(event));
        let package = event.and_then(|event| sources.module.packages.of_event(&event));
        let mut told = None;
        if let Some((number, package)) = package {
            let uri = super::subscription::uri_of(&user, &domain).into();
            let key = Arc::new(Key { uri, package: number });
            let turn = sources.module.turns.take(&key).await;
            let ask = Ask { ending: Some(&etag), ..Ask::ALL };
            let telling = notify::telling(&sources, &key, &package, ask, &Bytes::new()).await;
            sources.module.presentities.remove(&key, &etag);
            told = Some((turn, telling));
        }
        Box::new(move |ctx: &mut Ctx| {
            if let Some((turn, telling)) = told {
                match telling {
                    Ok(Some(telling)) => notify::tell(ctx, &sources.module, telling),
                    Ok(None) => {}
                    Err(error) => host::error!("presence", "the end of a state was not told: {error}"),
                }
                drop(turn);
            }
            clean_next(ctx, sources.module, ended, last, done);
            1
        }) as Finish
    });
}

/// Reads what an earlier run of the server left; requests wait for it.
pub fn load(ctx: &mut Ctx, module: &Arc<Presence>) {
    let Some(db) = &module.db else { return };
    let pool = db.on(ctx);
    let queries =
        (Query::delete(&module.tables.watchers), module.tables.states(), module.tables.subscriptions());
    let module = module.clone();
    ctx.spawn("presence", LIMIT_MS, async move {
        let (forget, states, subscriptions) = queries;
        let all = async {
            let states = pool.run(states).await?;
            let subscriptions = pool.run(subscriptions).await?;
            // Whoever watches is asked about anew.
            pool.run(forget).await?;
            Ok::<_, DbError>((states, subscriptions))
        }
        .await;
        Box::new(move |ctx: &mut Ctx| {
            match all {
                Ok((states, subscriptions)) => {
                    take(ctx, &module, &states, &subscriptions);
                    module.loaded.send_replace(true);
                }
                Err(error) => host::error!("presence", "the tables were not read: {error}"),
            }
            1
        }) as Finish
    });
}

fn take(ctx: &Ctx, module: &Presence, states: &Rows, subscriptions: &Rows) {
    if *module.loaded.borrow() {
        return;
    }
    let now = super::now_s(ctx);
    let package = |event: &str| {
        let event = Event::parse(&Bytes::copy_from_slice(event.as_bytes()))?;
        module.packages.of_event(&event)
    };
    for row in states.iter() {
        let text = |at| row.text(at).unwrap_or_default();
        let Some((number, package)) = package(&row.string(2)).filter(|_| row.int(3).unwrap_or(0) >= now)
        else {
            continue;
        };
        let key = Key { uri: super::subscription::uri_of(&text(0), &text(1)).into(), package: number };
        let sphere = (module.sphere_check && package.is_presence()).then(|| sphere_of(&text(5))).flatten();
        module.presentities.insert(&key, Published { etag: text(4), count: 0, sphere });
    }
    for row in subscriptions.iter() {
        let Some((uri, event, mut s)) = sql::read(ctx.shared(), &row) else { continue };
        s.restored = true;
        if i64::from(s.expires) < now {
            continue;
        }
        if let Some((number, _)) = package(&event) {
            module.table.insert(&Arc::new(Key { uri, package: number }), s);
        }
    }
}
