//! From the database to memory: at start, and when `dialog:db_sync` asks for it.

use super::Mode;
use super::row::Rows;
use crate::dialog::api::{self, Event};
use crate::dialog::cell::Data;
use crate::dialog::table::{self, Due};
use crate::dialog::{Dlg, within};
use host::Ctx;
use host::call::Finish;
use host::db::{DbError, Op, Query};
use host::mi::{MiAnswer, MiError};
use std::sync::Arc;

/// Rows that are read at once.
const PAGE: u64 = 2_000;
const LOAD_LIMIT_MS: u64 = 600_000;

/// Worker 0, at start: SIP messages wait until the dialogs are there.
pub fn restore(ctx: &mut Ctx, module: &Arc<Dlg>) {
    if module.store.mode == Mode::None {
        return;
    }
    let hold = ctx.hold_start();
    load(ctx, module, move |ctx, result| {
        if let Err(error) = result {
            host::error!("dialog", "the dialogs of before are not restored: {error}");
        }
        drop(hold);
        let _ = ctx;
    });
}

/// `dialog:db_sync`
pub fn sync(ctx: &mut Ctx, module: &Arc<Dlg>, answer: MiAnswer) {
    if module.store.db.is_none() {
        return answer.give(Err(MiError::new(400, "dialogs are not kept in a database: db_mode is 0")));
    }
    load(ctx, module, move |_, result| {
        answer.give(match result {
            Ok(_) => Ok("OK".into()),
            Err(error) => Err(MiError::internal(error.to_string())),
        })
    });
}

fn load(ctx: &mut Ctx, module: &Arc<Dlg>, done: impl FnOnce(&mut Ctx, Result<usize, DbError>) + 'static) {
    let Some(db) = &module.store.db else { return };
    let (pool, module) = (db.on(ctx), module.clone());
    let rows = Rows::new(ctx, &module);
    let store = module.clone();
    ctx.spawn("dialog load", LOAD_LIMIT_MS, async move {
        let store = &store.store;
        let mut found: Vec<Data> = Vec::new();
        let mut after = i64::MIN;
        let result = loop {
            let mut query = Query::select(store.table.clone()).column(store.id.clone());
            query = query.columns(store.columns.iter().cloned());
            if after != i64::MIN {
                query = query.filter(store.id.clone(), Op::Gt, after);
            }
            let page = match pool.run(query.order(store.id.clone()).limit(PAGE)).await {
                Ok(page) => page,
                Err(error) => break Err(error),
            };
            for row in page.iter() {
                after = row.int(0).unwrap_or(after);
                found.extend(rows.read(&row));
            }
            if (page.len() as u64) < PAGE {
                break Ok(found.len());
            }
        };
        Box::new(move |ctx: &mut Ctx| {
            if let Ok(count) = &result {
                host::info!("dialog", "{count} dialogs are in the database");
            }
            distribute(ctx, &module, found);
            done(ctx, result);
            1
        }) as Finish
    });
}

/// Gives dialogs to the workers that own their calls.
pub fn distribute(ctx: &mut Ctx, module: &Arc<Dlg>, found: Vec<Data>) {
    let workers = usize::from(ctx.core.workers);
    let mut shares: Vec<Vec<Data>> = (0..workers).map(|_| Vec::new()).collect();
    for data in found {
        shares[host::owner::of_call(ctx.shared(), &data.call_id, workers)].push(data);
    }
    for (worker, share) in shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty()) {
        let module = module.clone();
        ctx.on_worker(worker, move |ctx: &mut Ctx| {
            share.into_iter().for_each(|data| take_in(ctx, &module, data));
        });
    }
}

/// A dialog comes back. One that memory knows in the same or a newer state stays as it is.
pub fn take_in(ctx: &mut Ctx, module: &Arc<Dlg>, mut data: Data) {
    let ends = data.ends.take();
    if table::of(ctx).by_did(data.did).is_some() {
        return;
    }
    let memberships = data.memberships.clone();
    let confirmed = data.state == crate::dialog::State::Confirmed;
    let Some(key) = table::of(ctx).insert(data) else { return };
    memberships.iter().for_each(|m| module.profiles.count_in(m));
    module.counts.active.up();
    table::set_due(ctx, key, Due::End, ends);
    if confirmed {
        within::start_pings(ctx, key);
    }
    api::tell(ctx, key, Event::Loaded, None);
}
