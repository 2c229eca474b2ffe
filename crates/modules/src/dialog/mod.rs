//! dialog: calls that the server remembers from the INVITE to the BYE.
//!
//! A dialog lives on the worker that owns its Call-ID (`table.rs`) and is reached without a lock; what all calls
//! count together, profiles and statistics, is shared. `state.rs` draws its states, `follow.rs` and `within.rs`
//! move it through them, `end.rs` ends it, `api.rs` is what other modules use.

pub mod api;
mod bodies;
mod cell;
mod commands;
mod context;
mod create;
mod cseq;
mod db;
mod did;
mod end;
mod flags;
mod follow;
mod functions;
mod handover;
mod link;
mod list;
mod matching;
mod moment;
mod params;
mod ping;
mod prack;
mod profile;
mod query;
mod request;
mod routes;
mod sequential;
mod shared;
mod state;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod validate;
mod vars;
mod within;

pub use cell::{CALLER, Dialog, Direction, Leg, LegNo, Val};
pub use did::Did;
pub use flags::Flags;
pub use state::State;
pub use table::Key;

use host::LoadError;
use host::Registrar;
use host::load::Loader;
use host::shared::Hooks;
use host::stats::{Counter, Stats};
use parking_lot::RwLock;
use profile::Profiles;
use std::sync::Arc;

const EVENT: &str = "E_DLG_STATE_CHANGED";

/// How requests inside a dialog find it (`dlg_match_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MatchMode {
    /// By the identity in our Route only.
    DidOnly,
    /// By the identity, and by Call-ID and tags when it is not there or fits no dialog.
    DidFallback,
    /// By Call-ID and tags; no identity is added to Routes.
    DidNone,
}

impl MatchMode {
    /// A word of `match_dialog`; others mean the fallback.
    fn parse(word: &[u8]) -> MatchMode {
        match word {
            b"DID_ONLY" => MatchMode::DidOnly,
            b"DID_NONE" => MatchMode::DidNone,
            _ => MatchMode::DidFallback,
        }
    }
}

/// Counters of all workers.
#[derive(Default)]
struct Counts {
    active: Counter,
    early: Counter,
    processed: Counter,
    expired: Counter,
    failed: Counter,
}

/// The module, shared by all workers.
pub struct Dlg {
    stats: bool,
    entries: u32,
    rr_param: String,
    default_timeout: u32,
    extra_headers: String,
    mode: MatchMode,
    delete_delay: u32,
    options_interval: u32,
    reinvite_interval: u32,
    race_timeout: u32,
    prack_hangup: bool,
    prack_timeout: u32,
    profiles: Profiles,
    /// Names of the script's flags, in the order they were met.
    flag_names: RwLock<Vec<bytes::Bytes>>,
    counts: Counts,
    store: db::Store,
    shared: shared::Store,
    /// Dialogs of each worker, for lists that go over all.
    sizes: RwLock<Vec<usize>>,
}

impl Default for Dlg {
    fn default() -> Dlg {
        Dlg {
            stats: true,
            entries: did::ENTRIES,
            rr_param: "did".into(),
            default_timeout: 43_200,
            extra_headers: String::new(),
            mode: MatchMode::DidFallback,
            delete_delay: 0,
            options_interval: 30,
            reinvite_interval: 300,
            race_timeout: 5,
            prack_hangup: false,
            prack_timeout: 3,
            profiles: Profiles::default(),
            flag_names: RwLock::default(),
            counts: Counts::default(),
            store: db::Store::default(),
            shared: shared::Store::default(),
            sizes: RwLock::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Dlg>) {
    params::register(m);
    functions::register(m);
    vars::register(m);
    commands::register(m);
    m.needs(&["tm"]);
    m.init_or(init);
    m.ready(ready);
    db::register(m);
    shared::register(m);
    m.start(start);
    m.stop(|call| db::at_end(call.ctx, &call.module.clone()));
    m.worker_timer(timers::TICK_MS, timers::run);
}

fn init(s: &mut Dlg, loader: &mut Loader) -> Result<(), LoadError> {
    if s.mode == MatchMode::DidOnly && !loader.is_loaded("rr") {
        return Err(LoadError::from("0 finds dialogs by Routes only, which need module rr")
            .in_param("dlg_match_mode"));
    }
    shared::init(s, loader)?;
    db::init(s, loader)
}

fn start(call: &mut host::Call<Dlg>) {
    let module = call.module.clone();
    table::of(call.ctx).collects = module.store.mode.collects();
    handover::start(call.ctx, &module);
    if call.ctx.core.worker == 0 {
        db::restore(call.ctx, &module);
    }
}

/// This server acts for the dialog: sends requests of its own and ends it.
fn acts_for(ctx: &mut host::Ctx, key: Key) -> bool {
    let tag = table::of(ctx).get(key).and_then(|d| d.tag.clone());
    tag.is_none_or(|tag| crate::clusterer::is_active_here(ctx, &tag))
}

fn ready(module: &Arc<Dlg>, hooks: &mut Hooks, stats: &Stats) {
    hooks.raises([EVENT]);
    bodies::ready(hooks);
    follow::ready(module, hooks);
    prack::ready(module, hooks);
    within::ready(module, hooks);
    if module.stats {
        let counts = &module.counts;
        for (name, counter) in [
            ("active_dialogs", &counts.active),
            ("early_dialogs", &counts.early),
            ("processed_dialogs", &counts.processed),
            ("expired_dialogs", &counts.expired),
            ("failed_dialogs", &counts.failed),
        ] {
            stats.count_with("dialog", name, counter.clone());
        }
        // Of the replication of the reference, which is not there: always 0.
        for name in ["create_sent", "update_sent", "delete_sent", "create_recv", "update_recv", "delete_recv"]
        {
            stats.counter("dialog", name);
        }
    }
}

impl Dlg {
    /// The bit of a named flag; `None`: there are 64 already.
    fn flag_bit(&self, name: &[u8]) -> Option<u8> {
        let at = |names: &[bytes::Bytes]| names.iter().position(|n| n == name);
        if let Some(at) = at(&self.flag_names.read()) {
            return Some(at as u8);
        }
        let mut names = self.flag_names.write();
        if let Some(at) = at(&names) {
            return Some(at as u8);
        }
        if names.len() >= 64 {
            return None;
        }
        names.push(bytes::Bytes::copy_from_slice(name));
        Some(names.len() as u8 - 1)
    }

    /// The names of the flags that are set, with blanks between; the last one that the configuration names first.
    fn flag_text(&self, flags: u64) -> String {
        let names = self.flag_names.read();
        let set = names.iter().enumerate().rev().filter(|(bit, _)| flags & (1 << bit) != 0);
        let names: Vec<_> = set.map(|(_, name)| String::from_utf8_lossy(name).into_owned()).collect();
        names.join(" ")
    }
}
