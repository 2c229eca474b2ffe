//! Statistics over a window of time.

use host::stats::Stats;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Statistics of one profile.
const MAX_SERIES: usize = 10_000;
/// Slots of one window.
const MAX_SLOTS: u64 = 3600;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Algorithm {
    Accumulate,
    Average,
    Percentage,
}

/// How values are kept and put together.
pub struct Profile {
    algorithm: Algorithm,
    group: Option<String>,
    /// Seconds.
    window: u64,
    slots: u64,
    factor: i64,
    /// Unix seconds, for reading.
    clock: Arc<AtomicU64>,
    series: Mutex<BTreeMap<String, Arc<Mutex<Series>>>>,
}

/// One statistic: a ring of slots, each with the number of its time.
struct Series {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// Which stretch of time it holds: seconds divided by the length of a slot.
    time: u64,
    /// Sum of the values; of the positive ones for a percentage.
    sum: i64,
    /// Number of values; sum of their sizes for a percentage.
    count: i64,
}

impl Profile {
    /// "name: attr=value ..."
    pub fn parse(text: &str) -> Result<(String, Profile), String> {
        let (name, attributes) = text.split_once(':').unwrap_or((text, ""));
        let mut profile = Profile {
            algorithm: Algorithm::Accumulate,
            group: None,
            window: 60,
            slots: 0,
            factor: 100,
            clock: Arc::default(),
            series: Mutex::default(),
        };
        for attribute in attributes.split_whitespace() {
            let (key, value) =
                attribute.split_once('=').ok_or_else(|| format!("{attribute} has no value"))?;
            let number = || value.parse::<u64>().ok().filter(|n| *n > 0).ok_or(format!("bad number {value}"));
            match key {
                "algorithm" => {
                    profile.algorithm = match value {
                        "accumulate" => Algorithm::Accumulate,
                        "average" => Algorithm::Average,
                        "percentage" => Algorithm::Percentage,
                        other => return Err(format!("unknown algorithm {other}")),
                    }
                }
                "group" => profile.group = Some(value.to_string()),
                "window" => profile.window = number()?,
                "slots" => profile.slots = number()?,
                "percentage_factor" => profile.factor = number()? as i64,
                // Sizes a table of the reference.
                "hash_size" => {}
                other => return Err(format!("unknown attribute {other}")),
            }
        }
        if profile.slots == 0 {
            profile.slots = profile.window;
        }
        profile.slots = profile.slots.min(profile.window).min(MAX_SLOTS);
        Ok((name.trim().to_string(), profile))
    }

    pub fn set_clock(&self, now: u64) {
        self.clock.store(now, Ordering::Relaxed);
    }

    fn slot_seconds(&self) -> u64 {
        (self.window / self.slots).max(1)
    }

    /// Adds a value; the first one of a name makes its statistic.
    pub fn update(&self, stats: &Stats, profile: &str, name: &str, now: u64, value: i64) -> bool {
        self.set_clock(now);
        let series = {
            let mut all = self.series.lock();
            match all.get(name) {
                Some(series) => series.clone(),
                None if all.len() >= MAX_SERIES => return false,
                None => {
                    let slots = vec![Slot::default(); self.slots as usize];
                    let series = Arc::new(Mutex::new(Series { slots }));
                    all.insert(name.to_string(), series.clone());
                    let (shown, clock) = (series.clone(), self.clock.clone());
                    let (algorithm, seconds, factor) = (self.algorithm, self.slot_seconds(), self.factor);
                    stats.computed(self.group.as_deref().unwrap_or(profile), name, move || {
                        shown.lock().value(algorithm, clock.load(Ordering::Relaxed) / seconds, factor)
                    });
                    series
                }
            }
        };
        series.lock().add(self.algorithm, now / self.slot_seconds(), value);
        true
    }
}

impl Series {
    fn add(&mut self, algorithm: Algorithm, time: u64, value: i64) {
        let at = (time % self.slots.len() as u64) as usize;
        let slot = &mut self.slots[at];
        if slot.time != time {
            *slot = Slot { time, ..Slot::default() };
        }
        let (sum, count) = match algorithm {
            Algorithm::Accumulate | Algorithm::Average => (value, 1),
            Algorithm::Percentage => (value.max(0), value.saturating_abs()),
        };
        slot.sum = slot.sum.saturating_add(sum);
        slot.count = slot.count.saturating_add(count);
    }

    fn value(&self, algorithm: Algorithm, time: u64, factor: i64) -> i64 {
        let oldest = (time + 1).saturating_sub(self.slots.len() as u64);
        let live = self.slots.iter().filter(|s| (oldest..=time).contains(&s.time));
        let (sum, count) = live
            .fold((0i64, 0i64), |(sum, count), s| (sum.saturating_add(s.sum), count.saturating_add(s.count)));
        match algorithm {
            Algorithm::Accumulate => sum,
            _ if count == 0 => 0,
            Algorithm::Average => sum / count,
            Algorithm::Percentage => sum.saturating_mul(factor) / count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_pass() {
        let check = |text: &str, values: &[(u64, i64)], reads: &[(u64, i64)]| {
            let (name, profile) = Profile::parse(text).unwrap();
            let stats = Stats::default();
            for (time, value) in values {
                assert!(profile.update(&stats, &name, "x", *time, *value));
            }
            for (time, want) in reads {
                profile.set_clock(*time);
                assert_eq!(stats.value("x"), Some(*want), "{text} at {time}");
            }
        };
        check("a: window=10", &[(100, 5), (105, 2)], &[(105, 7), (110, 2), (120, 0)]);
        check("a: algorithm=average window=60 slots=6", &[(100, 5), (101, 2)], &[(101, 3), (300, 0)]);
        check("a: algorithm=percentage percentage_factor=1000", &[(1, 1), (2, -3)], &[(2, 250)]);
        for text in ["a: window=0", "a: x=1", "a: algorithm=median", "a: window"] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
    }
}
