//! What happens by itself: states are told, subscriptions end, the tables are brought up to date.

use super::body::Extent;
use super::notify::{self, COLUMNS, News, TOLD, UPDATED, Whom, dialog_of, did_of};
use super::{Rls, now_s};
use crate::presence::packages::Event;
use crate::presence::sql;
use crate::presence::subscription::{Dialog, Reason, Status, Subscription, Unwritten};
use crate::presence::table::{Key, SHARDS};
use bytes::Bytes;
use host::db::{DbError, LIMIT_MS, Op, Query, Rows};
use host::{Call, Ctx, Finish};
use std::sync::Arc;

/// A row that is being told.
const TAKEN: i64 = 2;
/// How often a database is asked again that could not be read at the start, seconds.
const RETRY_S: u64 = 5;
/// How long the end of the server waits for the database.
const LAST_PATIENCE_MS: u64 = 25_000;

/// Seconds since the start, on worker 0.
#[derive(Default)]
struct Ticks(u64);

/// Once a second on worker 0.
pub fn tick(call: &mut Call<Rls>) {
    let module = call.module.clone();
    let ticks = call.ctx.local::<Ticks>();
    ticks.0 += 1;
    let ticks = ticks.0;
    if !*module.loaded.borrow() {
        if ticks.is_multiple_of(RETRY_S) {
            load(call.ctx, &module);
        }
        return;
    }
    if ticks.is_multiple_of(module.waitn) {
        tell(call.ctx, &module);
    }
    if ticks.is_multiple_of(module.clean_period) {
        clean(call.ctx, &module);
    }
}

/// Subscriptions of an earlier run.
pub fn load(ctx: &mut Ctx, module: &Arc<Rls>) {
    let Some(pool) = module.pool(ctx) else { return };
    let module = module.clone();
    ctx.spawn("rls load", LIMIT_MS, async move {
        let rows = pool.run(module.tables.subscriptions()).await;
        Box::new(move |ctx: &mut Ctx| {
            match rows {
                Ok(rows) => restore(ctx, &module, &rows),
                Err(error) => host::error!("rls", "subscriptions were not read: {error}"),
            }
            1
        }) as Finish
    });
}

fn restore(ctx: &mut Ctx, module: &Rls, rows: &Rows) {
    let now = now_s(ctx) as u32;
    for row in rows.iter() {
        let Some((uri, event, mut s)) = sql::read(ctx.shared(), &row) else { continue };
        let event = Event::parse(&Bytes::from(event));
        let package = event.and_then(|event| module.presence.as_ref()?.packages.of_event(&event));
        let Some((package, _)) = package.filter(|_| s.expires > now) else { continue };
        s.restored = true;
        module.table.insert(&Arc::new(Key { uri, package }), s);
    }
    module.loaded.send_replace(true);
}

/// Users told something: their watchers hear of all of it at once.
fn tell(ctx: &mut Ctx, module: &Arc<Rls>) {
    let Some(pool) = module.pool(ctx) else { return };
    if module.table.subscriptions() == 0 {
        return;
    }
    let module = module.clone();
    ctx.spawn("rls tell", LIMIT_MS, async move {
        let mark = |from: i64, to: i64| Query::update(&module.states).set("updated", to).eq("updated", from);
        let rows = async {
            // What comes meanwhile is told the next time.
            pool.run(mark(UPDATED, TAKEN)).await?;
            let columns = COLUMNS.into_iter().chain(["rlsubs_did"]);
            let select =
                Query::select(&module.states).columns(columns).eq("updated", TAKEN).order("rlsubs_did");
            let rows = pool.run(select).await?;
            if !rows.is_empty() {
                pool.run(mark(TAKEN, TOLD)).await?;
            }
            Ok::<Rows, DbError>(rows)
        };
        let rows = rows.await;
        let module = module.clone();
        Box::new(move |ctx: &mut Ctx| {
            match rows {
                Ok(rows) => post(ctx, &module, &rows),
                Err(error) => host::error!("rls", "states were not read: {error}"),
            }
            1
        }) as Finish
    });
}

/// One NOTIFY for each subscription among the rows, which are in order.
fn post(ctx: &mut Ctx, module: &Arc<Rls>, rows: &Rows) {
    let mut all =
        rows.iter().filter_map(|row| Some((row.text(COLUMNS.len())?, notify::instance(&row, 0)?))).peekable();
    while let Some((did, first)) = all.next() {
        let mut instances = vec![first];
        while let Some((_, next)) = all.next_if(|(other, _)| *other == did) {
            instances.push(next);
        }
        let Some(dialog) = dialog_of(&did) else { continue };
        let Some(key) = module.table.key_of(&dialog) else { continue };
        let mut users: Vec<String> = Vec::new();
        for instance in &instances {
            if !users.contains(&instance.uri) {
                users.push(instance.uri.clone());
            }
        }
        let news = News { extent: Extent::Partial, users, instances };
        notify::post(ctx, module, &key, Whom::Stored(dialog), news);
    }
}

fn event_of(module: &Rls, key: &Key) -> Option<&'static str> {
    Some(module.presence.as_ref()?.packages.get(key.package)?.name)
}

/// What has expired goes, what changed is written.
fn clean(ctx: &mut Ctx, module: &Arc<Rls>) {
    let now = now_s(ctx);
    for shard in 0..SHARDS {
        for (key, mut s) in module.table.expire(shard, now as u32) {
            if let Some(event) = event_of(module, &key) {
                super::subscribe::leave(ctx, module, event, &s);
            }
            let dialog = s.dialog();
            s.change(Status::Terminated, &Reason::TIMEOUT);
            let news = News { extent: Extent::Partial, users: Vec::new(), instances: Vec::new() };
            notify::post(ctx, module, &key, Whom::Gone(Box::new(s)), news);
            forget(ctx, module, &dialog);
        }
    }
    let mut queries = unwritten(ctx, module);
    queries.push(Query::delete(&module.states).filter("expires", Op::Lt, now).filter("expires", Op::Gt, 0));
    queries.push(module.tables.delete_expired(now));
    write(ctx, module, queries, LIMIT_MS);
}

fn unwritten(ctx: &Ctx, module: &Rls) -> Vec<Query> {
    let mut queries = Vec::new();
    for shard in 0..SHARDS {
        module.table.each_in(shard, |key, s| {
            let Some(event) = event_of(module, key) else { return };
            match s.unwritten {
                Unwritten::Nothing => return,
                Unwritten::Insert => {
                    queries.push(module.tables.insert_subscription(ctx.shared(), key, event, s));
                }
                Unwritten::Update => queries.push(module.tables.update_subscription(key, event, s)),
            }
            s.unwritten = Unwritten::Nothing;
        });
    }
    queries
}

pub fn stop(call: &mut Call<Rls>) {
    let module = call.module.clone();
    let queries = unwritten(call.ctx, &module);
    write(call.ctx, &module, queries, LAST_PATIENCE_MS);
}

/// One after the other; the first failure is logged and ends it.
fn write(ctx: &mut Ctx, module: &Rls, queries: Vec<Query>, limit_ms: u64) {
    let Some(pool) = module.pool(ctx).filter(|_| !queries.is_empty()) else { return };
    ctx.spawn("rls write", limit_ms, async move {
        for query in queries {
            if let Err(error) = pool.run(query).await {
                host::error!("rls", "a table was not written: {error}");
                break;
            }
        }
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}

/// A subscription is over: it is no longer in the table.
pub fn remove(ctx: &mut Ctx, module: &Rls, key: &Key, dialog: &Dialog) -> Option<Subscription> {
    let removed = module.table.remove(key, dialog);
    if let Some(event) = event_of(module, key) {
        write(ctx, module, vec![module.tables.delete_subscription(key, event, &dialog.to_tag)], LIMIT_MS);
    }
    removed
}

/// What users told it goes, too.
pub fn forget(ctx: &mut Ctx, module: &Rls, dialog: &Dialog) {
    write(ctx, module, vec![Query::delete(&module.states).eq("rlsubs_did", did_of(dialog))], LIMIT_MS);
}

/// Its watcher knows of none, or is gone.
pub fn end(ctx: &mut Ctx, module: &Rls, key: &Key, dialog: &Dialog) {
    let Some(s) = remove(ctx, module, key, dialog) else { return };
    if let Some(event) = event_of(module, key) {
        super::subscribe::leave(ctx, module, event, &s);
    }
    forget(ctx, module, dialog);
}
