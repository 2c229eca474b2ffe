//! The sets of engines: from the script or a database, asked whether they are there.

use super::Rtpengine;
use super::ask::Asking;
use crate::nodes::source::{Reload, all};
use crate::nodes::{DEFAULT_SET, Node, Sets, Writing, ticks};
use host::shared::Hooks;
use host::{Call, Ctx, Finish};
use std::sync::Arc;

/// A database that cannot be read is tried again after this.
const AGAIN_MS: u64 = 2_000;
/// Longest that looking at all engines may take.
const LOOK_MS: u64 = 600_000;

/// The sets that a script lists.
pub fn of_lines(lines: &[String]) -> Result<Sets, String> {
    let mut sets = Sets::default();
    for line in lines {
        sets.add_line(line, DEFAULT_SET, Writing::Rtpengine)
            .map_err(|why| format!("rtpengine_sock: {why}"))?;
    }
    Ok(sets)
}

pub fn hooks(module: &Arc<Rtpengine>, hooks: &mut Hooks) {
    if let Some(db) = &module.db {
        hooks.proves(module.table.proof("rtpengine", db));
    }
    let looking = module.clone();
    let every = u64::from(module.interval_s) * 1000;
    hooks.timers.push((every, Arc::new(move |ctx| look(&looking, ctx))));
}

pub fn start(call: &mut Call<Rtpengine>) {
    if call.core.worker != 0 {
        return;
    }
    let module = call.module.clone();
    match &module.db {
        None => look_at(&module, call.ctx, |_| true),
        Some(_) => load_first(&module, call.ctx),
    }
}

fn load_first(module: &Arc<Rtpengine>, ctx: &mut Ctx) {
    let again = module.clone();
    load(module, ctx, Reload::Hard, move |ctx, result| match result {
        Ok(()) => look_at(&again, ctx, |_| true),
        Err(why) => {
            host::error!("rtpengine", "engines were not read: {why}");
            ctx.after(AGAIN_MS, move |ctx| load_first(&again, ctx));
        }
    });
}

/// Reads the sets from the database; `done` hears how it went.
pub fn load(
    module: &Arc<Rtpengine>,
    ctx: &mut Ctx,
    how: Reload,
    done: impl FnOnce(&mut Ctx, Result<(), String>) + 'static,
) {
    let Some(db) = &module.db else { return };
    let (old, own) = (module.sets.get(), module.clone());
    module.table.read(ctx, db, "rtpengine", how, old, move |ctx, sets| {
        let result = sets.map(|sets| {
            own.sets.set(sets);
            own.ready.send_replace(true);
        });
        done(ctx, result);
    });
}

/// Asks the engines that are due.
fn look(module: &Arc<Rtpengine>, ctx: &mut Ctx) {
    let now = ticks(ctx);
    let (ping, every) = (module.ping_enabled, module.interval_s);
    look_at(module, ctx, move |node| {
        node.is_due(now) || (ping && !node.is_disabled() && node.last_answer() + every <= now)
    });
}

/// Asks engines whether they are there.
fn look_at(module: &Arc<Rtpengine>, ctx: &mut Ctx, which: impl Fn(&Node) -> bool) {
    let nodes: Vec<_> = module.sets.get().nodes().filter(|node| which(node)).cloned().collect();
    if nodes.is_empty() {
        return;
    }
    let asking = Asking::new(ctx, module);
    ctx.spawn_aside("rtpengine ping", LOOK_MS, async move {
        all(nodes.iter().map(|node| asking.ping(node))).await;
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}
