//! Entities in the table b2b_entities: they outlive a restart.

use super::entity::{Entity, Kind, Leg, State, Stored};
use super::owner::Owner;
use super::{B2be, owner_named, table};
use crate::store::{self, Keeps, Mode, Store};
use bytes::Bytes;
use host::Ctx;
use host::call::Finish;
use host::db::{DbValue, LIMIT_MS, Name, Query, Row, Rows};
use sip::NameAddr;
use std::sync::Arc;

const COLUMNS: [&str; 27] = [
    "type",
    "state",
    "ruri",
    "from_uri",
    "to_uri",
    "from_dname",
    "to_dname",
    "tag0",
    "tag1",
    "callid",
    "cseq0",
    "cseq1",
    "contact0",
    "contact1",
    "route0",
    "route1",
    "sockinfo_srv",
    "param",
    "mod_name",
    "lm",
    "lrc",
    "lic",
    "leg_cseq",
    "leg_route",
    "leg_tag",
    "leg_contact",
    "leg_sockinfo",
];

/// Column of what the table has no columns for; of ours only its outbound proxy.
const STORAGE: &str = "storage";

impl Keeps for B2be {
    const MODULE: &'static str = "b2b_entities";

    fn store(&self) -> &Store {
        &self.store
    }

    fn rows(&self, ctx: &mut Ctx, key: &Bytes) -> Vec<Query> {
        let shared = ctx.shared().clone();
        let Some(entity) = table::of(ctx).get_mut(key) else { return Vec::new() };
        if !entity.state.is_answered() || entity.state == State::Terminated {
            return Vec::new();
        }
        entity.stored = Stored::Yes;
        vec![delete(&self.store, entity), insert(&self.store, entity, &shared)]
    }

    fn keys(&self, ctx: &mut Ctx) -> Vec<Bytes> {
        table::of(ctx).all().map(|entity| entity.key.clone()).collect()
    }
}

/// An entity has changed.
pub fn changed(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes) {
    if module.store.mode != Mode::None {
        store::changed(ctx, module, key);
    } else if let Some(entity) = table::of(ctx).get_mut(key)
        && entity.stored == Stored::Yes
    {
        entity.stored = Stored::Changed;
    }
}

pub fn gone(ctx: &mut Ctx, module: &Arc<B2be>, entity: &Entity) {
    store::gone(ctx, module, &entity.key, delete(&module.store, entity));
}

fn delete(store: &Store, e: &Entity) -> Query {
    let query = Query::delete(&store.table).eq("type", e.kind as i64).eq("callid", e.call_id.clone());
    match e.kind {
        Kind::Server => query.eq("tag1", e.tags[1].clone()),
        Kind::Client => query.eq("tag0", e.tags[0].clone()),
    }
}

fn insert(store: &Store, e: &Entity, shared: &host::Shared) -> Query {
    let leg = e.legs.first();
    let routes = |list: &[Bytes]| match list.is_empty() {
        true => DbValue::Null,
        false => DbValue::Text(list.join(&b","[..]).into()),
    };
    let of_leg = |text: Option<Bytes>| text.map_or(DbValue::Null, DbValue::Text);
    let values: [DbValue; 27] = [
        DbValue::Int(e.kind as i64),
        DbValue::Int(e.state as i64),
        DbValue::Text(e.ruri.clone()),
        DbValue::Text(e.from_uri.clone()),
        DbValue::Text(e.to_uri.clone()),
        DbValue::Text(e.from_dname.clone()),
        DbValue::Text(e.to_dname.clone()),
        DbValue::Text(e.tags[0].clone()),
        DbValue::Text(e.tags[1].clone()),
        DbValue::Text(e.call_id.clone()),
        DbValue::Int(e.cseq[0].into()),
        DbValue::Int(e.cseq[1].into()),
        DbValue::Text(e.contact[0].clone()),
        DbValue::Text(e.contact[1].clone()),
        routes(&e.routes),
        DbValue::Null,
        DbValue::Text(e.socket.map(|socket| shared.socket_text(socket)).unwrap_or_default().into()),
        DbValue::Text(e.logic.clone()),
        DbValue::Text(Bytes::from_static(e.owner.module.as_bytes())),
        DbValue::Int(e.last_method.into()),
        DbValue::Int(e.last_reply.into()),
        DbValue::Int(e.last_invite_cseq.into()),
        leg.map_or(DbValue::Null, |leg| DbValue::Int(leg.cseq.into())),
        leg.map_or(DbValue::Null, |leg| routes(&leg.routes)),
        of_leg(leg.map(|leg| leg.tag.clone())),
        of_leg(leg.map(|leg| leg.contact.clone())),
        DbValue::Null,
    ];
    let mut query = Query::insert(&store.table);
    for (column, value) in COLUMNS.iter().zip(values) {
        query = query.set(*column, value);
    }
    match &e.proxy {
        Some(proxy) => query.set(STORAGE, DbValue::Blob(proxy.clone())),
        None => query,
    }
}

fn list(text: &Bytes) -> Vec<Bytes> {
    let all = NameAddr::parse_list(text).unwrap_or_default();
    all.iter().map(|one| text.slice(one.whole.range())).collect()
}

fn read(row: &Row<'_>, shared: &host::Shared) -> Option<Entity> {
    let text = |at: usize| row.text(at).unwrap_or_default();
    let number = |at: usize| u32::try_from(row.int(at).unwrap_or(0)).unwrap_or(0);
    let kind = Kind::of_number(row.int(0)?);
    let state = State::of_number(row.int(1)?);
    let owner: &'static Owner = owner_named(&text(18))?;
    if !state.is_answered() || state == State::Terminated {
        return None;
    }
    let key = if kind == Kind::Server { text(8) } else { text(9) };
    let id = std::str::from_utf8(&key).ok()?.split('.').nth(2)?.parse().unwrap_or(0);
    let leg = Leg {
        id: 0,
        cseq: number(22),
        routes: list(&text(23)),
        tag: text(24),
        contact: text(25),
        rack: Bytes::new(),
    };
    let proxy = text(27);
    Some(Entity {
        state,
        ruri: text(2),
        from_uri: text(3),
        to_uri: text(4),
        from_dname: text(5),
        to_dname: text(6),
        tags: [text(7), text(8)],
        call_id: text(9),
        cseq: [number(10), number(11)],
        last_invite_cseq: number(21),
        contact: [text(12), text(13)],
        routes: list(&text(14)),
        proxy: Some(proxy).filter(|uri| uri.starts_with(b"sip")),
        last_method: number(19),
        last_reply: number(20) as u16,
        socket: shared.socket_named(&row.string(16)),
        legs: if kind == Kind::Client { vec![leg] } else { Vec::new() },
        ua: (owner.module == "b2b_entities").then(Default::default),
        stored: Stored::Yes,
        ..Entity::new(kind, Bytes::copy_from_slice(table::strip_leg(&key)), id, owner, text(17))
    })
}

/// The question for all rows, and what they say.
async fn load(pool: &dyn host::db::Pool, store: &Store) -> Result<Rows, host::db::DbError> {
    pool.run(Query::select(&store.table).columns(COLUMNS).column(STORAGE)).await
}

/// Takes in an entity on the worker that leads its call from now on.
fn take_in(ctx: &mut Ctx, module: &Arc<B2be>, entity: Entity) {
    let here = usize::from(ctx.core.worker);
    if host::worker::owner(&entity.call_id, ctx.core.workers.into()) != here {
        module.moved.here(ctx, &entity.call_id);
    }
    let (key, ua) = (entity.key.clone(), entity.ua);
    table::of(ctx).insert(entity);
    if ua.is_some() {
        super::ua::restored(ctx, module, &key);
    }
}

/// Worker 0, at the start: what an earlier run of the server left.
pub fn restore(ctx: &mut Ctx, module: &Arc<B2be>) {
    let Some(db) = module.store.db.clone().filter(|_| module.store.mode != Mode::None) else { return };
    let hold = ctx.hold_start();
    let (pool, module) = (db.on(ctx), module.clone());
    ctx.spawn("b2b_entities load", LIMIT_MS, async move {
        let rows = load(&*pool, &module.store).await;
        Box::new(move |ctx: &mut Ctx| {
            match rows {
                Ok(rows) => {
                    host::info!("b2b_entities", "{} entities are in the database", rows.len());
                    distribute(ctx, &module, &rows);
                }
                Err(error) => host::error!("b2b_entities", "the calls of before are not restored: {error}"),
            }
            drop(hold);
            1
        }) as Finish
    });
}

/// The worker of a call by the key of its logic (`hash.number`), where it has one.
pub fn worker_of_logic(logic: &[u8], workers: usize) -> Option<usize> {
    let hash = logic.split(|b| *b == b'.').next()?;
    let hash: usize = std::str::from_utf8(hash).ok()?.parse().ok()?;
    Some(hash % workers.max(1))
}

fn distribute(ctx: &mut Ctx, module: &Arc<B2be>, rows: &Rows) {
    let workers = usize::from(ctx.core.workers);
    for row in rows.iter() {
        let (call_id, logic) = (row.text(9).unwrap_or_default(), row.text(17).unwrap_or_default());
        let by_call = host::worker::owner(&call_id, workers);
        let worker = worker_of_logic(&logic, workers).unwrap_or(by_call);
        let cells: Vec<DbValue> = (0..=COLUMNS.len()).map(|at| row.at(at).clone()).collect();
        let module = module.clone();
        ctx.on_worker(worker, move |ctx| {
            let names = COLUMNS.iter().copied().chain([STORAGE]).map(Name::from).collect();
            let shared = ctx.shared().clone();
            if let Some(entity) = Rows::new(names, cells).first().and_then(|row| read(&row, &shared)) {
                take_in(ctx, &module, entity);
            }
        });
    }
}
