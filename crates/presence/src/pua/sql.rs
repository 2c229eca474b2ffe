//! The table pua: what this server has under way outlives a restart.

use super::record::{Record, Source, Watch, event_numbered};
use super::{Pua, now_s};
use bytes::Bytes;
use host::db::{DbError, LIMIT_MS, Name, Op, Query, Rows};
use host::tm::ua::Side;
use host::{Call, Ctx, Finish};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// Rows written in one transaction.
const BATCH: usize = 100;

const COLUMNS: [&str; 20] = [
    "pres_uri",
    "pres_id",
    "event",
    "expires",
    "desired_expires",
    "flag",
    "etag",
    "tuple_id",
    "watcher_uri",
    "to_uri",
    "call_id",
    "to_tag",
    "from_tag",
    "cseq",
    "record_route",
    "contact",
    "remote_contact",
    "version",
    "extra_headers",
    "sharing_tag",
];

/// What tells one row from the others.
pub struct Row {
    uri: Bytes,
    id: Bytes,
    event: i64,
    flag: i64,
    watcher: Bytes,
    /// Its tag, where it is a state, as it was written last.
    etag: Bytes,
}

impl Row {
    pub fn of(r: &Record) -> Row {
        Row {
            uri: r.uri.clone(),
            id: r.id.clone(),
            event: i64::from(r.event.number),
            flag: r.source as i64,
            watcher: r.watch.as_ref().map(|w| w.watcher.clone()).unwrap_or_default(),
            etag: r.etag.clone(),
        }
    }

    /// A state without an id of its own is known by its tag.
    fn delete(&self, table: &Name) -> Query {
        let query = Query::delete(table)
            .eq("pres_uri", self.uri.clone())
            .eq("pres_id", self.id.clone())
            .eq("event", self.event)
            .eq("flag", self.flag);
        match (self.watcher.is_empty(), self.id.is_empty()) {
            (false, _) => query.eq("watcher_uri", self.watcher.clone()),
            (true, true) => query.eq("etag", self.etag.clone()),
            (true, false) => query,
        }
    }
}

fn tag_of(party: &Bytes) -> Bytes {
    sip::NameAddr::parse(party).and_then(|p| p.tag()).unwrap_or_default()
}

fn insert(table: &Name, r: &Record) -> Query {
    let query = Query::insert(table)
        .set("pres_uri", r.uri.clone())
        .set("pres_id", r.id.clone())
        .set("event", i64::from(r.event.number))
        .set("expires", r.expires)
        .set("desired_expires", r.desired)
        .set("flag", r.source as i64)
        .set("etag", r.etag.clone())
        .set("tuple_id", r.tuple_id.clone())
        .set("version", i64::from(r.version))
        .set("extra_headers", r.headers.clone());
    let Some(watch) = &r.watch else { return query };
    let query = query
        .set("watcher_uri", watch.watcher.clone())
        .set("to_uri", watch.to.clone())
        .set("contact", watch.contact.clone());
    let Some(side) = &watch.side else { return query };
    query
        .set("call_id", side.call_id.clone())
        .set("to_tag", tag_of(&side.remote))
        .set("from_tag", tag_of(&side.local))
        .set("cseq", i64::from(side.cseq))
        .set("record_route", Bytes::from(side.routes.join(&b","[..])))
        .set("remote_contact", side.target.clone())
}

/// Writes what changed and removes what is gone.
pub fn save(call: &mut Call<Pua>, limit_ms: u64) {
    let module = call.module.clone();
    let Some(db) = &module.db else { return };
    let mut queries: Vec<Query> = std::mem::take(&mut *module.records.gone.lock())
        .iter()
        .map(|row| row.delete(&module.table))
        .collect();
    module.records.each_mut(|r| {
        if std::mem::take(&mut r.unwritten) && r.expires > 0 {
            queries.push(Row::of(r).delete(&module.table));
            queries.push(insert(&module.table, r));
        }
        false
    });
    if queries.is_empty() {
        return;
    }
    queries.push(Query::delete(&module.table).filter("expires", Op::Lt, now_s(call.ctx)));
    let pool = db.on(call.ctx);
    call.ctx.spawn("pua", limit_ms, async move {
        for batch in queries.chunks(BATCH) {
            if let Err(error) = pool.run_all(batch.to_vec()).await {
                host::error!("pua", "what is under way was not written: {error}");
            }
        }
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}

/// Reads what an earlier run of the server left.
pub fn load(call: &mut Call<Pua>) {
    let module = call.module.clone();
    let Some(db) = &module.db else { return };
    let pool = db.on(call.ctx);
    let query = Query::select(&module.table).columns(COLUMNS);
    let kept = module.clone();
    call.ctx.spawn("pua", LIMIT_MS, async move {
        let rows = pool.run(query).await;
        Box::new(move |ctx: &mut Ctx| {
            take(ctx, &kept, rows);
            1
        }) as Finish
    });
}

fn take(ctx: &Ctx, module: &Pua, rows: Result<Rows, DbError>) {
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return host::error!("pua", "what was under way was not read: {error}"),
    };
    if module.loaded.swap(true, Ordering::Relaxed) {
        return;
    }
    let now = now_s(ctx);
    for row in rows.iter() {
        let text = |at: usize| row.text(at).unwrap_or_default();
        let number = |at: usize| row.int(at).unwrap_or(0);
        let (Some(event), Some(source)) = (event_numbered(number(2)), Source::of_number(number(5))) else {
            continue;
        };
        if number(3) < now || text(0).is_empty() {
            continue;
        }
        let party = |uri: Bytes, tag: Bytes| Bytes::from([b"<", &uri[..], b">;tag=", &tag].concat());
        let has_dialog = !text(10).is_empty() && !text(11).is_empty();
        let route = text(14);
        let routes = sip::NameAddr::parse_list(&route).unwrap_or_default();
        let side = has_dialog.then(|| Side {
            call_id: text(10),
            local: party(text(8), text(12)),
            remote: party(text(9), text(11)),
            target: text(16),
            routes: routes
                .iter()
                .map(|r| route.slice(r.whole.start as usize..r.whole.end as usize))
                .collect(),
            cseq: number(13).clamp(0, i64::from(u32::MAX)) as u32,
            socket: None,
        });
        let watch = (!text(8).is_empty()).then(|| Watch {
            watcher: text(8),
            to: text(9),
            contact: text(15),
            call_id: text(10),
            side,
        });
        module.records.insert(Record {
            number: 0,
            uri: text(0),
            id: text(1),
            event,
            source,
            etag: text(6),
            expires: number(3),
            desired: number(4),
            tuple_id: row.string(7),
            headers: text(18),
            proxy: None,
            version: number(17).clamp(0, i64::from(u32::MAX)) as u32,
            waits: false,
            pending: VecDeque::new(),
            unwritten: false,
            watch,
        });
    }
}
