//! How busy the server is: statistics `load:load`, `load1m`, `load10m` (percent of its worker threads), and since when
//! it runs.

use host::stats::Stats;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Seconds of the longest average.
const LONGEST: usize = 600;
/// Ticks of the clock that /proc counts in, per second (`USER_HZ`, the same on all Linux systems).
const TICKS: f64 = 100.0;

/// The averages over 1, 60 and 600 seconds, in percent.
#[derive(Default)]
struct Load([AtomicI64; 3]);

/// Makes the statistics, and measures once a second until the end.
pub async fn watch(stats: Stats, workers: usize) {
    let started = Instant::now();
    stats.computed("core", "timestamp", move || started.elapsed().as_secs() as i64);
    let load = Arc::new(Load::default());
    for (at, name) in ["load", "load1m", "load10m"].into_iter().enumerate() {
        for name in [name.to_owned(), format!("{name}-all")] {
            let load = load.clone();
            stats.computed("load", &name, move || load.0[at].load(Ordering::Relaxed));
        }
    }
    stats.computed("load", "processes_number", move || workers as i64);
    let mut samples = VecDeque::from([(started, cpu_ticks())]);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        samples.push_back((Instant::now(), cpu_ticks()));
        if samples.len() > LONGEST + 1 {
            samples.pop_front();
        }
        for (at, seconds) in [1, 60, LONGEST].into_iter().enumerate() {
            load.0[at].store(average(&samples, seconds, workers), Ordering::Relaxed);
        }
    }
}

/// Percent of `workers` threads over the last samples.
fn average(samples: &VecDeque<(Instant, u64)>, seconds: usize, workers: usize) -> i64 {
    let (to, used) = samples[samples.len() - 1];
    let (from, before) = samples[samples.len().saturating_sub(seconds + 1)];
    let time = (to - from).as_secs_f64() * workers as f64;
    let busy = used.saturating_sub(before) as f64 / TICKS;
    if time > 0.0 { (busy / time * 100.0).round().min(100.0) as i64 } else { 0 }
}

/// Processor time of this process, user and system.
fn cpu_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold spaces.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let number =
        |at: usize| fields.split_whitespace().nth(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    number(11) + number(12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let samples = VecDeque::from([(at(0), 0), (at(1), 100), (at(2), 100), (at(3), 150)]);
        assert_eq!(average(&samples, 1, 1), 50);
        assert_eq!(average(&samples, 60, 1), 50);
        assert_eq!(average(&samples, 60, 2), 25);
        assert_eq!(average(&VecDeque::from([(at(0), 7)]), 1, 1), 0);
    }
}
