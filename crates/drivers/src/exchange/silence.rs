//! What is known of a server that does not answer.

use host::outage::Outage;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A server that was silent is left out for a while. Shared by all workers.
#[derive(Debug)]
pub struct Silence {
    since_start: Instant,
    /// Milliseconds since `since_start`.
    until: AtomicU64,
    outage: Outage,
}

impl Default for Silence {
    fn default() -> Silence {
        Silence { since_start: Instant::now(), until: AtomicU64::new(0), outage: Outage::default() }
    }
}

impl Silence {
    /// It is left out now.
    pub fn is_on(&self) -> bool {
        self.until.load(Ordering::Relaxed) > self.now()
    }

    /// It did not answer and is left out for so long. True: it answered before.
    pub fn begins(&self, length: Duration) -> bool {
        let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        self.until.store(self.now().saturating_add(length), Ordering::Relaxed);
        self.outage.begins()
    }

    /// It answers. True: it was silent before.
    pub fn ends(&self) -> bool {
        self.until.store(0, Ordering::Relaxed);
        self.outage.ends()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since_start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
