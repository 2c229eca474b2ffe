//! Sessions in the table b2b_logic: they outlive a restart.

use super::session::{self, End, EndId, EndState, Scenario, Session, State};
use super::{B2bl, acts};
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::table as entities;
use crate::b2b_entities::worker_of_logic;
use crate::store::{self, Keeps, Mode, Store};
use bytes::Bytes;
use host::Ctx;
use host::call::Finish;
use host::db::{DbValue, LIMIT_MS, Name, Query, Row, Rows};
use std::sync::Arc;

const COLUMNS: [&str; 21] = [
    "si_key", "scenario", "sstate", "lifetime", "e1_type", "e1_sid", "e1_from", "e1_to", "e1_key", "e1_sdp",
    "e2_type", "e2_sid", "e2_from", "e2_to", "e2_key", "e2_sdp", "e3_type", "e3_sid", "e3_from", "e3_to",
    "e3_key",
];
/// Where the columns of each end begin.
const ENDS: [usize; 3] = [4, 10, 16];

impl Keeps for B2bl {
    const MODULE: &'static str = "b2b_logic";

    fn store(&self) -> &Store {
        &self.store
    }

    fn rows(&self, ctx: &mut Ctx, key: &Bytes) -> Vec<Query> {
        let (now, seconds) = (ctx.core.now.0, ctx.core.wall_us / 1_000_000);
        let Some(s) = session::of(ctx, key) else { return Vec::new() };
        if s.to_delete || s.state < State::Hold {
            return Vec::new();
        }
        s.stored = true;
        let left = s.ends_at.map_or(0, |at| seconds as i64 + (at.saturating_sub(now) / 1000) as i64);
        vec![delete(&self.store, key), insert(&self.store, s, left)]
    }

    fn keys(&self, ctx: &mut Ctx) -> Vec<Bytes> {
        session::table(ctx).all().map(|s| s.key.clone()).collect()
    }
}

/// A session has changed.
pub fn changed(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes) {
    if session::table(ctx).get(key).is_some() {
        store::changed(ctx, module, key);
    }
}

pub fn gone(ctx: &mut Ctx, module: &Arc<B2bl>, session: &Session) {
    store::gone(ctx, module, &session.key, delete(&module.store, &session.key));
}

fn delete(store: &Store, key: &Bytes) -> Query {
    Query::delete(&store.table).eq("si_key", key.clone())
}

fn insert(store: &Store, s: &Session, left: i64) -> Query {
    let name = match &s.scenario {
        Scenario::Internal => DbValue::Null,
        other => DbValue::Text(other.name()),
    };
    let mut values =
        vec![DbValue::Text(s.key.clone()), name, DbValue::Int(s.state as i64), DbValue::Int(left)];
    for at in 0..3 {
        let none = End::default();
        let there = s.bridged(at);
        let end = there.unwrap_or(&none);
        let kind = if there.is_some() { DbValue::Int(end.kind as i64) } else { DbValue::Null };
        values.push(kind);
        for text in [&end.name, &end.from_uri, &end.to_uri, &end.key] {
            values.push(DbValue::Text(text.clone()));
        }
        if at < 2 {
            values.push(DbValue::Text(end.out_sdp.clone().unwrap_or_default()));
        }
    }
    let mut query = Query::insert(&store.table);
    for (column, value) in COLUMNS.iter().zip(values) {
        query = query.set(*column, value);
    }
    query
}

fn read(row: &Row<'_>, now: u64, seconds: i64) -> Option<Session> {
    let text = |at: usize| row.text(at).unwrap_or_default();
    let key = text(0);
    let id = std::str::from_utf8(&key).ok()?.split('.').nth(1)?.parse().ok()?;
    let mut s = Session::new(key, id, Scenario::of(&text(1)));
    s.state = State::of_number(row.int(2)?);
    let until = row.int(3).unwrap_or(0);
    s.ends_at = (until > 0).then(|| now + u64::try_from(until - seconds).unwrap_or(0) * 1000);
    s.stored = true;
    for (at, first) in ENDS.into_iter().enumerate() {
        if text(first + 4).is_empty() {
            continue;
        }
        let end = End {
            kind: Kind::of_number(row.int(first).unwrap_or(0)),
            name: text(first + 1),
            from_uri: text(first + 2),
            to_uri: text(first + 3),
            key: text(first + 4),
            out_sdp: (at < 2).then(|| text(first + 5)).filter(|sdp| !sdp.is_empty()),
            no: at.min(1) as u8,
            state: EndState::Confirmed,
            replied: true,
            ..End::default()
        };
        let id = s.add(end);
        s.enlist(id);
        s.bridge[at] = Some(id);
    }
    connect(&mut s);
    Some(s)
}

/// The first two speak; what one hears the other has said.
fn connect(s: &mut Session) {
    let [Some(a), Some(b), _] = s.bridge else { return };
    s.connect(a, b);
    let said: [Option<Bytes>; 2] = [a, b].map(|id| s.end(id).and_then(|end| end.out_sdp.clone()));
    for (id, sdp) in [a, b].into_iter().zip(said.into_iter().rev()) {
        if let Some(end) = s.end_mut(id) {
            end.in_sdp = sdp;
        }
    }
}

/// Takes in a session on the worker that leads it.
fn take_in(ctx: &mut Ctx, module: &Arc<B2bl>, mut s: Session) {
    s.req_route = module.req_route(ctx);
    s.reply_route = module.reply_route(ctx);
    let keys: Vec<(EndId, Bytes)> = s.ends.iter().map(|end| (end.id, end.key.clone())).collect();
    for (id, key) in keys {
        let dialog = entities::of(ctx).get(&key).map(super::upkeep::dialog_of);
        if let Some(end) = s.end_mut(id) {
            end.dialog = dialog;
        }
    }
    session::table(ctx).insert(s);
    super::upkeep::begin(ctx, module);
}

/// Worker 0, at the start: what an earlier run of the server left. Entities are there before it.
pub fn restore(ctx: &mut Ctx, module: &Arc<B2bl>) {
    let Some(db) = module.store.db.clone().filter(|_| module.store.mode != Mode::None) else { return };
    let hold = ctx.hold_start();
    let (pool, module) = (db.on(ctx), module.clone());
    ctx.spawn("b2b_logic load", LIMIT_MS, async move {
        let rows = pool.run(Query::select(&module.store.table).columns(COLUMNS)).await;
        Box::new(move |ctx: &mut Ctx| {
            match rows {
                Ok(rows) => {
                    host::info!("b2b_logic", "{} sessions are in the database", rows.len());
                    distribute(ctx, &module, &rows);
                }
                Err(error) => host::error!("b2b_logic", "the calls of before are not restored: {error}"),
            }
            drop(hold);
            1
        }) as Finish
    });
}

fn distribute(ctx: &mut Ctx, module: &Arc<B2bl>, rows: &Rows) {
    let workers = usize::from(ctx.core.workers);
    for row in rows.iter() {
        let Some(worker) = worker_of_logic(&row.text(0).unwrap_or_default(), workers) else { continue };
        let cells: Vec<DbValue> = (0..COLUMNS.len()).map(|at| row.at(at).clone()).collect();
        let module = module.clone();
        ctx.on_worker(worker, move |ctx| {
            let names = COLUMNS.iter().copied().map(Name::from).collect();
            let (now, seconds) = (acts::later(ctx, 0), (ctx.core.wall_us / 1_000_000) as i64);
            if let Some(s) = Rows::new(names, cells).first().and_then(|row| read(&row, now, seconds)) {
                take_in(ctx, &module, s);
            }
        });
    }
}
