//! fermata: what every server says of its calls to `fermata trace`, `fermata top` and `fermata profile`, and to the page.
//! Loaded always. docs/TRACING.md and docs/PROFILING.md are the user's pages.

mod calls;
pub mod profile;
mod trace;

use host::Registrar;
use parking_lot::Mutex;
use profile::Profile;
use serde_json::Value as Json;
use std::sync::Arc;

/// What the workers share of it.
#[derive(Default)]
pub struct Watching {
    profile: Mutex<Option<Arc<Profile>>>,
}

pub fn register(m: &mut Registrar<Watching>) {
    m.command_each(
        "fermata:trace",
        "tells what happens to calls, since it was asked last",
        together,
        trace::read,
    )
    .takes("filter [client]");
    m.command_each("fermata:trace_stop", "ends a trace before its time", together, trace::stop)
        .takes("filter [client]");
    m.command_each(
        "fermata:calls",
        "lists open transactions and what they wait for",
        calls::join,
        calls::list,
    )
    .takes("[count]");
    m.command_each("fermata:profile_start", "begins to measure scripts and waits", together, profile::start)
        .takes("");
    m.command(
        "fermata:profile",
        "says where scripts spend their time, and what they wait for",
        profile::read,
    )
    .takes("");
    m.command_each(
        "fermata:profile_stop",
        "ends measuring; what was measured stays",
        together,
        profile::stop,
    )
    .takes("");
}

/// The lists of all workers as one, in the order of their times.
fn together(lists: Vec<Json>) -> Json {
    if !lists.iter().any(Json::is_array) {
        return lists.into_iter().next().unwrap_or_default();
    }
    let mut all: Vec<Json> = lists
        .into_iter()
        .flat_map(|list| match list {
            Json::Array(list) => list,
            _ => Vec::new(),
        })
        .collect();
    all.sort_by_key(|entry| entry["time_us"].as_u64().unwrap_or_default());
    all.into()
}
