//! The last ten minutes, a sample a second: `page:history`; and how busy each thread is: `page:threads`.
#![expect(
    clippy::disallowed_methods,
    reason = "samples of a watcher outside of the workers, no part of any call"
)]

use super::Page;
use super::counting::Counts;
use host::mi::{MiParams, MiResult};
use host::shared::Shared;
use host::{Call, Registrar};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Samples that are kept.
const KEPT: usize = 600;
/// Ticks of the clock that /proc counts in, per second (`USER_HZ`, the same on all Linux systems).
const TICKS: f64 = 100.0;

/// What a sample holds besides its number and time: counters as they stand, then what is so at that moment.
const COLUMNS: [&str; 13] = [
    "page:calls",
    "page:challenged",
    "page:calls_2xx",
    "page:calls_3xx",
    "page:calls_4xx",
    "page:calls_5xx",
    "page:calls_6xx",
    "core:rcv_requests",
    "async:async_in_flight",
    "tm:inuse_transactions",
    "dialog:active_dialogs",
    "usrloc:registered_users",
    "load:load",
];
/// Columns before this one are counters of the page.
const COUNTED: usize = 7;

#[derive(Clone)]
struct Sample {
    number: u64,
    /// Milliseconds since 1970.
    at_ms: u64,
    values: [i64; COLUMNS.len()],
}

/// One thread of the process.
#[derive(Clone, Debug, PartialEq)]
struct Thread {
    id: u32,
    name: String,
    ticks: u64,
    /// Percent of one core, between the last two samples.
    busy: f64,
}

#[derive(Default)]
pub struct History {
    samples: Mutex<VecDeque<Sample>>,
    threads: Mutex<Vec<Thread>>,
}

pub fn register(m: &mut Registrar<Page>) {
    m.command("page:history", "the last ten minutes, a sample a second", history).takes("[since]");
    m.command("page:threads", "how busy the threads of the server are, in percent of a core", threads)
        .takes("");
}

/// Takes the samples, until the end.
pub async fn keep(history: Arc<History>, shared: Arc<Shared>) {
    let Some(page) = shared.module::<Page>() else { return };
    let mut number = 0;
    let mut before = Instant::now();
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        number += 1;
        let sample = sample(number, &page.counts, &shared);
        {
            let mut samples = history.samples.lock();
            if samples.len() == KEPT {
                samples.pop_front();
            }
            samples.push_back(sample);
        }
        let (now, old) = (Instant::now(), history.threads.lock().clone());
        let fresh = read_threads(&old, (now - before).as_secs_f64());
        *history.threads.lock() = fresh;
        before = now;
    }
}

fn sample(number: u64, counts: &Counts, shared: &Shared) -> Sample {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut values = [0; COLUMNS.len()];
    values[..COUNTED].copy_from_slice(&counts.now());
    for (value, name) in values.iter_mut().zip(COLUMNS).skip(COUNTED) {
        *value = shared.stats.value(name).unwrap_or(0);
    }
    Sample { number, at_ms: wall.as_millis() as u64, values }
}

fn history(call: &mut Call<Page>, params: &MiParams) -> MiResult {
    let since = params.int("since", 0)?.unwrap_or(0).max(0) as u64;
    let samples = call.module.history.samples.lock();
    let row = |s: &Sample| {
        let head = [json!(s.number), json!(s.at_ms)];
        Json::Array(head.into_iter().chain(s.values.iter().map(|v| json!(v))).collect())
    };
    let rows: Vec<Json> = samples.iter().filter(|s| s.number > since).map(row).collect();
    let columns: Vec<&str> = ["number", "time"].into_iter().chain(COLUMNS).collect();
    Ok(json!({"Columns": columns, "Samples": rows}))
}

fn threads(call: &mut Call<Page>, _: &MiParams) -> MiResult {
    let threads = call.module.history.threads.lock();
    let shown =
        threads.iter().map(|t| json!({"ID": t.id, "Name": t.name, "Busy": (t.busy * 10.0).round() / 10.0}));
    Ok(json!({"Threads": shown.collect::<Vec<_>>(), "Cores": cores()}))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn read_threads(old: &[Thread], seconds: f64) -> Vec<Thread> {
    let Ok(folder) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let stats = folder.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let mut threads: Vec<Thread> = stats.filter_map(|text| parse(&text)).collect();
    for thread in &mut threads {
        if let Some(before) = old.iter().find(|t| t.id == thread.id).filter(|_| seconds > 0.0) {
            let ticks = thread.ticks.saturating_sub(before.ticks) as f64;
            thread.busy = (ticks / TICKS / seconds * 100.0).min(100.0);
        }
    }
    threads.sort_by_key(|t| t.id);
    threads
}

/// A line of /proc/self/task/N/stat.
fn parse(text: &str) -> Option<Thread> {
    let (id, rest) = text.split_once(" (")?;
    // The name may hold spaces and parentheses.
    let (name, fields) = rest.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut number = || fields.next()?.parse::<u64>().ok();
    let ticks = number()? + number()?;
    Some(Thread { id: id.parse().ok()?, name: name.to_owned(), ticks, busy: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_read() {
        let line = "812 (worker 0 (x)) S 1 812 812 0 -1 4194560 150 0 0 0 37 5 0 0 20 0 3 0 100 0 0";
        let thread = parse(line).unwrap();
        assert_eq!((thread.id, thread.name.as_str(), thread.ticks), (812, "worker 0 (x)", 42));
        assert_eq!(parse("812 worker"), None);
        let own = read_threads(&[], 0.0);
        assert!(own.iter().any(|t| t.id == std::process::id()));
        let busier: Vec<Thread> =
            own.iter().map(|t| Thread { ticks: t.ticks.saturating_sub(1), ..t.clone() }).collect();
        assert!(read_threads(&busier, 0.1).iter().all(|t| t.busy <= 100.0));
    }
}
