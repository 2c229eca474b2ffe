//! How much memory large messages hold while scripts wait: bounded for the whole server, so that a few thousand
//! of 60 KB cannot take all of it. Messages of the usual size do not count: how many of them wait is bounded.

use crate::context::outage::Outage;
use crate::context::stats::{Counter, Stats};

/// Messages from this size on count, bytes.
const LARGE: usize = 8 * 1024;
/// What all large messages that wait may hold, bytes.
pub const MAX_HELD: i64 = 256 * 1024 * 1024;
/// After an overload the next one is worth a line when so much is free again, bytes.
const CALM: i64 = MAX_HELD / 4 * 3;
/// A message that waits is held as it came and, with most scripts, once more as it is to go on.
const COPIES: usize = 2;

/// The sum of all workers. Clones are about the same sum.
#[derive(Clone, Default)]
pub struct Held {
    bytes: Counter,
    refused: Counter,
    overload: Outage,
}

impl Held {
    /// Statistics `async:async_held_bytes` and `async:async_refused_large`.
    pub fn new(stats: &Stats) -> Held {
        let held = Held { refused: stats.counter("async", "async_refused_large"), ..Held::default() };
        let bytes = held.bytes.clone();
        stats.computed("async", "async_held_bytes", move || bytes.value());
        held
    }

    /// A message of this size is to wait. `None`: there is no room for it.
    pub(crate) fn take(&self, size: usize) -> Option<Share> {
        if size < LARGE {
            return Some(Share::default());
        }
        let bytes = (size * COPIES) as i64;
        let before = self.bytes.value();
        if before + bytes > MAX_HELD {
            self.refused.up();
            if self.overload.begins() {
                crate::warn!(
                    "core",
                    "large messages that wait hold {} MB: more of them are refused until some have gone on",
                    before >> 20
                );
            }
            return None;
        }
        if before < CALM {
            self.overload.ends();
        }
        self.bytes.add(bytes);
        Some(Share(Some((self.bytes.clone(), bytes))))
    }
}

/// What one message holds; given back when it is dropped.
#[derive(Default)]
pub struct Share(Option<(Counter, i64)>);

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((sum, bytes)) = &self.0 {
            sum.add(-bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_messages_are_bounded_and_small_ones_are_not() {
        let stats = Stats::default();
        let held = Held::new(&stats);
        let mut shares = Vec::new();
        while let Some(share) = held.take(60_000) {
            shares.push(share);
        }
        assert_eq!(shares.len() as i64, MAX_HELD / 120_000);
        assert!(held.clone().take(LARGE).is_some() && held.take(500).is_some());
        assert!(held.take(60_000).is_none());
        assert_eq!(held.refused.value(), 2);
        shares.truncate(10);
        assert_eq!(held.bytes.value(), 1_200_000);
        assert!(held.take(60_000).is_some());
        shares.clear();
        assert_eq!(held.bytes.value(), 0);
    }
}
