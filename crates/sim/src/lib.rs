//! The whole server on a simulated network and clock.
//!
//! [`run`] drives the same `host::Worker` as the program, with real scripts, between user agents that
//! behave as RFC 3261 says and a network that loses, doubles and delays. Everything comes from one
//! seed: the same seed gives the same run, to the last byte. What may never happen is checked at the
//! end ([`World::verdict`](world::World::verdict)).

mod agent;
mod callee;
mod caller;
pub mod desk;
pub mod ends;
mod executor;
mod module;
mod network;
mod post;
pub mod scenarios;
pub mod watch;
mod world;

use scenarios::Scenario;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What happened in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub calls: usize,
    /// Calls by the class of their final reply, index 2 to 6.
    pub finals: [usize; 7],
    pub datagrams: usize,
    /// Virtual milliseconds until everything had ended.
    pub lasted: u64,
    /// Of every datagram, in order: two runs of one seed have the same.
    pub fingerprint: u64,
}

/// Runs one seed of a scenario. The error says what went wrong and how to see it again.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, String> {
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(scenario, seed);
        world.play();
        world.verdict()
    }));
    let result = done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    result.map_err(|problem| {
        format!("{problem}\nagain: SIM_TRACE=1 cargo run -p sim -- {} {seed}", scenario.name)
    })
}
