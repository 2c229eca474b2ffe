//! What is measured of one gateway under one rule: sums of the last `history_span` minutes, in steps of
//! `sampling_interval` seconds.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Custom statistics (`extra_stats`) at most, as in the reference.
pub const MAX_EXTRA: usize = 5;

/// What is measured of every gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quality {
    /// Answer seizure ratio: calls with a 200, of all.
    Asr,
    /// Call completion ratio: calls with a reply below 500 that the gateway made.
    Ccr,
    /// Post dial delay: milliseconds from the INVITE to the first 180 or 183.
    Pdd,
    /// Average setup time: milliseconds from the INVITE to the 200.
    Ast,
    /// Average call duration: whole seconds from the 200 to the end.
    Acd,
}

impl Quality {
    pub const ALL: [Quality; 5] = [Quality::Asr, Quality::Ccr, Quality::Pdd, Quality::Ast, Quality::Acd];

    /// As management names it; columns have it in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Quality::Asr => "ASR",
            Quality::Ccr => "CCR",
            Quality::Pdd => "PDD",
            Quality::Ast => "AST",
            Quality::Acd => "ACD",
        }
    }

    /// A higher value is better.
    pub fn rises(self) -> bool {
        matches!(self, Quality::Asr | Quality::Ccr | Quality::Acd)
    }
}

/// A sum, and of how many.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Mean {
    pub sum: f64,
    pub count: f64,
}

impl Mean {
    pub fn add(&mut self, value: f64, count: f64) {
        self.sum += value;
        self.count += count;
    }

    /// The value, -1 for fewer samples than `least`, and how many there are.
    pub fn value(self, least: u32) -> (f64, i64) {
        let enough = self.count != 0.0 && self.count >= f64::from(least);
        (if enough { self.sum / self.count } else { -1.0 }, self.count as i64)
    }
}

/// Sums of one time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sample {
    /// By `Quality`.
    means: [Mean; Quality::ALL.len()],
    extra: [Mean; MAX_EXTRA],
}

impl Sample {
    fn all(&mut self) -> impl Iterator<Item = &mut Mean> {
        self.means.iter_mut().chain(&mut self.extra)
    }

    fn change(&mut self, by: &Sample, sign: f64) {
        let mut other = *by;
        for (mine, theirs) in self.all().zip(other.all()) {
            mine.add(sign * theirs.sum, sign * theirs.count);
        }
    }

    pub fn mean(&self, of: Quality) -> Mean {
        self.means[of as usize]
    }

    pub fn extra(&self, at: usize) -> Mean {
        self.extra[at]
    }
}

#[derive(Default)]
struct Inner {
    /// Since the last step.
    now: Sample,
    /// Of all steps that count.
    sum: Sample,
    /// Steps in which something happened, by their number.
    history: VecDeque<(u64, Sample)>,
    off: bool,
    /// `None`: it must be worked out again.
    score: Option<f64>,
}

/// A gateway under a rule.
pub struct Measured {
    pub gateway: Bytes,
    inner: Mutex<Inner>,
}

impl Measured {
    pub fn new(gateway: Bytes) -> Measured {
        Measured { gateway, inner: Mutex::default() }
    }

    pub fn add(&self, of: Quality, value: f64) {
        self.inner.lock().now.means[of as usize].add(value, 1.0);
    }

    pub fn add_extra(&self, at: usize, value: f64, count: f64) {
        self.inner.lock().now.extra[at].add(value, count);
    }

    /// A call has its final reply: whether it was answered, and whether it counts as completed.
    pub fn ended(&self, answered: bool, completed: bool) {
        let mut inner = self.inner.lock();
        for (of, good) in [(Quality::Asr, answered), (Quality::Ccr, completed)] {
            inner.now.means[of as usize].add(f64::from(u8::from(good)), 1.0);
        }
    }

    /// Step number `step` is over; what is older than `span` steps counts no more.
    pub fn step(&self, step: u64, span: u64) {
        let inner = &mut *self.inner.lock();
        let changed = inner.now != Sample::default();
        if changed {
            let now = std::mem::take(&mut inner.now);
            inner.sum.change(&now, 1.0);
            inner.history.push_back((step, now));
            inner.score = None;
        }
        while inner.history.front().is_some_and(|(at, _)| at + span <= step) {
            if let Some((_, old)) = inner.history.pop_front() {
                inner.sum.change(&old, -1.0);
                inner.score = None;
            }
        }
        if inner.history.is_empty() {
            // No rest of rounding.
            inner.sum = Sample::default();
        }
    }

    /// What counts now.
    pub fn sum(&self) -> Sample {
        self.inner.lock().sum
    }

    pub fn is_off(&self) -> bool {
        self.inner.lock().off
    }

    pub fn set_off(&self, off: bool) {
        self.inner.lock().off = off;
    }

    /// The score, and whether it was worked out just now.
    pub fn score(&self, work_out: impl FnOnce(&Sample) -> f64) -> (f64, bool) {
        let mut inner = self.inner.lock();
        match inner.score {
            Some(score) => (score, false),
            None => {
                let score = work_out(&inner.sum);
                inner.score = Some(score);
                (score, true)
            }
        }
    }

    /// Thresholds have changed.
    pub fn forget_score(&self) {
        self.inner.lock().score = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_counts_no_more() {
        let gateway = Measured::new("gw".into());
        gateway.add(Quality::Pdd, 100.0);
        assert_eq!(gateway.sum().mean(Quality::Pdd).value(1), (-1.0, 0));
        gateway.step(1, 3);
        gateway.add(Quality::Pdd, 300.0);
        gateway.step(2, 3);
        assert_eq!(gateway.sum().mean(Quality::Pdd).value(2), (200.0, 2));
        assert_eq!(gateway.sum().mean(Quality::Pdd).value(3), (-1.0, 2));
        gateway.step(4, 3);
        assert_eq!(gateway.sum().mean(Quality::Pdd).value(1), (300.0, 1));
        gateway.step(5, 3);
        assert_eq!(gateway.sum(), Sample::default());
    }

    #[test]
    fn a_score_is_kept_until_something_changes() {
        let gateway = Measured::new("gw".into());
        assert_eq!(gateway.score(|_| 0.5), (0.5, true));
        gateway.step(1, 3);
        assert_eq!(gateway.score(|_| unreachable!()), (0.5, false));
        gateway.ended(true, true);
        gateway.step(2, 3);
        assert_eq!(gateway.score(|sum| sum.mean(Quality::Asr).sum), (1.0, true));
    }
}
