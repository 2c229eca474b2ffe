//! The whole server on a simulated network and clock.
//!
//! [`run`] drives the same `host::Worker` as the program, with real scripts, between user agents that
//! behave as RFC 3261 says and a network that loses, doubles and delays. Everything comes from one
//! seed: the same seed gives the same run, to the last byte. What may never happen is checked at the
//! end ([`World::verdict`](world::World::verdict)).

mod agent;
mod callee;
mod caller;
mod chaos;
pub mod desk;
pub mod ends;
mod executor;
pub mod kept;
pub mod module;
mod network;
mod post;
pub mod rehearsal;
pub mod replay;
pub mod scenarios;
pub mod watch;
mod world;

use capture::story::Record;
use scenarios::Scenario;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

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

/// Log lines of this thread go into what is played on it.
fn capture_logs() {
    host::log::set_sink(Box::new(|level, who, text| {
        let said = if who.is_empty() {
            text.trim_end().to_string()
        } else {
            format!("{}:{who}: {text}", level.name())
        };
        if !rehearsal::log(&said) && !replay::log(&said) {
            host::log::plain(level, who, text);
        }
    }));
}

/// Runs one seed of a scenario. The error says what went wrong and how to see it again.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, String> {
    record(scenario, seed).map(|(report, _)| report)
}

/// The same with the recording that the script's recorder made; empty without one.
pub fn record(scenario: &Scenario, seed: u64) -> Result<(Report, Vec<u8>), String> {
    let seen = Rc::new(RefCell::new(Record::default()));
    play(scenario, seed, None).map_err(|problem| {
        // The same once more, written down.
        let _ = play(scenario, seed, Some(seen.clone()));
        let ladder = seen.borrow().ladder();
        let lines = ladder.lines().count();
        let shown: Vec<&str> = ladder.lines().take(1).chain(ladder.lines().skip(1).take(LADDER)).collect();
        let more = lines.saturating_sub(LADDER + 1);
        let more =
            if more > 0 { format!("\n... {more} lines more: SIM_TRACE=1 shows all") } else { String::new() };
        format!(
            "{problem}\n{}{more}\nagain: SIM_TRACE=1 cargo run -p sim -- {} {seed}",
            shown.join("\n"),
            scenario.name
        )
    })
}

/// Lines of a ladder that a failure shows.
const LADDER: usize = 200;

fn play(
    scenario: &Scenario,
    seed: u64,
    seen: Option<Rc<RefCell<Record>>>,
) -> Result<(Report, Vec<u8>), String> {
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(scenario, seed, seen);
        world.play();
        let recording = world.recording().unwrap_or_default();
        world.verdict().map(|report| (report, recording))
    }));
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}
