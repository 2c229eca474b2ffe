//! A table or queue that is full: counted each time, told once until there is room again.

use crate::outage::Outage;
use crate::stats::{Counter, Stats};
use std::sync::OnceLock;

/// What a bound turned away.
#[derive(Default)]
pub struct Full {
    counter: OnceLock<Counter>,
    full: Outage,
}

impl Full {
    /// Shows the count as a statistic.
    pub fn show(&self, stats: &Stats, group: &str, name: &str) {
        let _ = self.counter.set(stats.counter(group, name));
    }

    /// Something found no room. True: the first since there was some, which is worth a log line.
    pub fn refused(&self) -> bool {
        if let Some(counter) = self.counter.get() {
            counter.up();
        }
        self.full.begins()
    }

    /// Something found room.
    pub fn taken(&self) {
        self.full.ends();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_and_the_first_is_told() {
        let (full, stats) = (Full::default(), Stats::default());
        full.show(&stats, "m", "refused");
        full.taken();
        assert_eq!([full.refused(), full.refused()], [true, false]);
        full.taken();
        assert!(full.refused());
        assert_eq!(stats.counter("m", "refused").value(), 3);
    }
}
