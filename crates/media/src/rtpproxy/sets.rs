//! The sets of engines, asked what they can do when the server starts and when they are out of order.

use super::Rtpproxy;
use super::ask::Asking;
use crate::nodes::source::{Reload, all};
use crate::nodes::{Node, Sets, Writing, refuse_websockets, ticks};
use host::shared::Hooks;
use host::{Call, Ctx, Finish};
use std::sync::Arc;

/// A database that cannot be read is tried again after this.
const AGAIN_MS: u64 = 2_000;
/// Engines that are out of order are looked at as often.
const EVERY_MS: u64 = 1_000;
/// Longest that looking at all engines may take.
const LOOK_MS: u64 = 600_000;

/// The sets that a script lists.
pub fn of_lines(lines: &[String], default: i64) -> Result<Sets, String> {
    let mut sets = Sets::default();
    for line in lines {
        sets.add_line(line, default, Writing::Rtpproxy).map_err(|why| format!("rtpproxy_sock: {why}"))?;
    }
    refuse_websockets(&sets)?;
    Ok(sets)
}

pub fn hooks(module: &Arc<Rtpproxy>, hooks: &mut Hooks) {
    if let Some(db) = &module.db {
        hooks.proves(module.table.proof("rtpproxy", db));
    }
    let looking = module.clone();
    hooks.timers.push((
        EVERY_MS,
        Arc::new(move |ctx| {
            let now = ticks(ctx);
            look_at(&looking, ctx, |node| node.is_due(now), |_| ());
        }),
    ));
}

pub fn start(call: &mut Call<Rtpproxy>) {
    if call.core.worker != 0 {
        return;
    }
    let module = call.module.clone();
    match &module.db {
        None => look_at(&module, call.ctx, |_| true, |_| ()),
        Some(_) => load_first(&module, call.ctx),
    }
}

fn load_first(module: &Arc<Rtpproxy>, ctx: &mut Ctx) {
    let again = module.clone();
    load(module, ctx, move |ctx, result| match result {
        Ok(()) => look_at(&again, ctx, |_| true, |_| ()),
        Err(why) => {
            host::error!("rtpproxy", "engines were not read: {why}");
            ctx.after(AGAIN_MS, move |ctx| load_first(&again, ctx));
        }
    });
}

/// Reads the sets from the database; `done` hears how it went.
pub fn load(
    module: &Arc<Rtpproxy>,
    ctx: &mut Ctx,
    done: impl FnOnce(&mut Ctx, Result<(), String>) + 'static,
) {
    let Some(db) = &module.db else { return };
    let (old, own) = (module.sets.get(), module.clone());
    module.table.read(ctx, db, "rtpproxy", Reload::Hard, old, move |ctx, sets| {
        let result = sets.map(|sets| {
            own.sets.set(sets);
            own.ready.send_replace(true);
        });
        done(ctx, result);
    });
}

/// Asks engines whether they are there and what they can do.
pub fn look_at(
    module: &Arc<Rtpproxy>,
    ctx: &mut Ctx,
    which: impl Fn(&Node) -> bool,
    then: impl FnOnce(&mut Ctx) + 'static,
) {
    let nodes: Vec<_> = module.sets.get().nodes().filter(|node| which(node)).cloned().collect();
    if nodes.is_empty() {
        return then(ctx);
    }
    let asking = Asking::new(ctx, module);
    ctx.spawn_aside("rtpproxy probe", LOOK_MS, async move {
        all(nodes.iter().map(|node| asking.probe(node))).await;
        Box::new(|ctx: &mut Ctx| {
            then(ctx);
            1
        }) as Finish
    });
}
