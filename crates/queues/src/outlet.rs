//! What leaves for destinations outside: workers put it into a queue and go on, a task for each destination beside
//! them delivers it in order.
//!
//! ```text
//! worker ──give──▶ queue ──service──▶ one task and queue for each destination
//! ```

use ahash::AHashMap;
use host::shared::{Hooks, Shared};
use host::stats::{Counter, Stats};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// What waits to be handed to its destination, and what waits at one destination.
const MAX_QUEUED: usize = 10_000;
/// Destinations of one module; what is for further ones is lost.
const MAX_DESTINATIONS: usize = 1_000;
/// Log lines about one module's losses: at most one in this many milliseconds.
const COMPLAIN_MS: u64 = 10_000;

/// Jobs by their destination's name.
type Queue<J> = (mpsc::Sender<(String, J)>, Mutex<Option<mpsc::Receiver<(String, J)>>>);

pub struct Outlet<J> {
    module: &'static str,
    queue: Queue<J>,
    lost: Counter,
    complained_ms: AtomicU64,
}

impl<J: Send + 'static> Outlet<J> {
    pub fn new(module: &'static str, stats: &Stats) -> Arc<Outlet<J>> {
        let (send, receive) = mpsc::channel(MAX_QUEUED);
        let lost = stats.counter(module, "events_lost");
        let queue = (send, Mutex::new(Some(receive)));
        Arc::new(Outlet { module, queue, lost, complained_ms: AtomicU64::new(0) })
    }

    /// False: the queue is full, and what was given is lost.
    pub fn give(&self, now_ms: u64, destination: &str, job: J) -> bool {
        let given = self.queue.0.try_send((destination.to_owned(), job)).is_ok();
        if !given {
            self.lost(now_ms, destination, "too many wait to be sent");
        }
        given
    }

    /// Counts what was not delivered, and says so now and then.
    pub fn lost(&self, now_ms: u64, destination: &str, why: impl std::fmt::Display) {
        self.lost.up();
        let last = self.complained_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(last) >= COMPLAIN_MS {
            self.complained_ms.store(now_ms, Ordering::Relaxed);
            host::warn!(self.module, "what is for {} is lost: {why}", without_password(destination));
        }
    }

    /// Runs `deliver` for each destination, with its name and its queue, once there is something for it.
    pub fn serve<F>(
        self: &Arc<Self>,
        hooks: &mut Hooks,
        deliver: impl Fn(Arc<Shared>, String, mpsc::Receiver<J>) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let outlet = self.clone();
        hooks.services.push(Arc::new(move |shared| {
            let (outlet, deliver) = (outlet.clone(), deliver.clone());
            Box::pin(async move {
                let Some(mut queue) = outlet.queue.1.lock().take() else { return };
                let mut destinations: AHashMap<String, mpsc::Sender<J>> = AHashMap::new();
                while let Some((name, job)) = queue.recv().await {
                    let known = destinations.contains_key(&name);
                    if !known && destinations.len() >= MAX_DESTINATIONS {
                        outlet.lost(wall_ms(), &name, "there are too many destinations");
                        continue;
                    }
                    let destination = destinations.entry(name.clone()).or_insert_with(|| {
                        let (send, receive) = mpsc::channel(MAX_QUEUED);
                        tokio::spawn(deliver(shared.clone(), name.clone(), receive));
                        send
                    });
                    if destination.try_send(job).is_err() {
                        outlet.lost(wall_ms(), &name, "too many wait to be sent");
                    }
                }
            })
        }));
    }
}

/// Milliseconds of the clock on the wall, for log lines that are not too many.
#[expect(clippy::disallowed_methods, reason = "beside the workers, for the rate of log lines only")]
pub fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

/// `user:secret@host` as `user@host`.
pub fn without_password(destination: &str) -> String {
    match destination.rsplit_once('@') {
        Some((who, place)) => {
            let start = who.find("://").map_or(0, |at| at + 3);
            let user = who[start..].split(':').next().unwrap_or_default();
            format!("{}{user}@{place}", &who[..start])
        }
        None => destination.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_told() {
        for (text, want) in [
            ("guest:secret@127.0.0.1/q", "guest@127.0.0.1/q"),
            ("amqp://guest:se@cret@h", "amqp://guest@h"),
            ("127.0.0.1:80", "127.0.0.1:80"),
        ] {
            assert_eq!(without_password(text), want);
        }
    }

    #[test]
    fn a_full_queue_loses_and_counts() {
        let stats = Stats::default();
        let outlet = Outlet::<u8>::new("event_stream", &stats);
        for n in 0..MAX_QUEUED {
            assert!(outlet.give(0, "x", n as u8));
        }
        assert!(!outlet.give(0, "x", 0));
        assert_eq!(stats.value("events_lost"), Some(1));
    }
}
