//! Functions of the core: always there, no loadmodule.

mod arg;
mod blacklists;
mod branches;
mod cache;
mod dns;
mod events;
mod evi;
mod flags;
mod log;
mod memory;
mod mi;
mod misc;
mod sending;
mod stats;
mod status;
mod streams;
mod uri;
mod waiting;

use host::Registrar;

/// The core keeps nothing.
#[derive(Default)]
pub struct Core;

pub fn register(m: &mut Registrar<Core>) {
    cache::register(m);
    dns::register(m);
    memory::register(m);
    mi::register(m);
    waiting::register(m);
    log::register(m);
    flags::register(m);
    uri::register(m);
    blacklists::register(m);
    branches::register(m);
    sending::register(m);
    events::register(m);
    misc::register(m);
    stats::register(m);
    status::register(m);
    streams::register(m);
    evi::register(m);
}
