//! What becomes of operations that scripts wait for, by kind ("sql_query", "rest_get"): counters and a
//! histogram, kept by each worker on its own and put together when somebody asks.

use crate::call::Finish;
use crate::context::params::CoreParams;
use crate::context::tape::{self, Tape};
use ahash::AHashMap;
use bytes::Bytes;
use script::Loc;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Upper ends of the histogram's steps, milliseconds; the last step has none.
pub const STEPS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000];

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this return code.
    Done(i32),
    TimedOut,
    Cancelled,
}

/// One kind of operation on one worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpStats {
    pub started: u64,
    pub done: u64,
    /// Of those done: with a negative return code.
    pub failed: u64,
    pub timed_out: u64,
    pub cancelled: u64,
    /// Had to wait for its turn at a pool.
    pub queued: u64,
    /// Not started: too much was waiting already.
    pub refused: u64,
    pub in_flight: u64,
    /// How long those that were done took: at most `STEPS_MS[i]` and more than the step before.
    pub steps: [u64; STEPS_MS.len() + 1],
    pub longest_ms: u64,
    pub total_ms: u64,
}

/// What the operations that began at one place of the script took, however they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Site {
    pub ended: u64,
    pub total_ms: u64,
    pub longest_ms: u64,
}

/// Places that one worker remembers; a script has one for each call that waits, after a reload anew.
const MAX_SITES: usize = 10_000;

/// Kinds of a worker, in the order in which they were first used. They are few: every one is a literal
/// in a module.
#[derive(Default)]
pub struct Ops {
    kinds: Vec<(&'static str, OpStats)>,
    sites: AHashMap<(&'static str, Loc), Site>,
    /// Operations that take longer are logged, milliseconds; `None`: none.
    slow_ms: Option<u64>,
    slow_dns_ms: Option<u64>,
}

thread_local! {
    /// What futures report: they have no worker at hand, but they run on its thread.
    static REPORTED: RefCell<Vec<(&'static str, Reported)>> = const { RefCell::new(Vec::new()) };
    /// The operation whose future runs now; empty: none.
    static CURRENT: Cell<&'static str> = const { Cell::new("") };
}

/// The future of an operation, which what it reports is counted under.
pub struct Named {
    what: &'static str,
    /// Who hears what it asks for, and whose operation it is.
    tape: Option<(Rc<dyn Tape>, Bytes)>,
    future: Pin<Box<dyn Future<Output = Finish>>>,
}

impl Named {
    pub fn new(what: &'static str, future: Pin<Box<dyn Future<Output = Finish>>>) -> Named {
        Named { what, tape: None, future }
    }

    /// The same for an operation of a call that a tape hears of.
    pub fn taped(self, tape: Option<&Rc<dyn Tape>>, call_id: &Bytes) -> Named {
        Named { tape: tape.map(|tape| (tape.clone(), call_id.clone())), ..self }
    }
}

impl Future for Named {
    type Output = Finish;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finish> {
        let before = CURRENT.replace(self.what);
        let _playing = self.tape.as_ref().map(|(tape, scope)| tape::enter(tape, scope.clone()));
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(cx)));
        CURRENT.set(before);
        // A defect is the worker's to handle, with what the operation belongs to.
        polled.unwrap_or_else(|panic| Poll::Ready(Box::new(|_| resume_unwind(panic))))
    }
}

#[derive(Clone, Copy)]
enum Reported {
    Queued,
    Refused,
}

/// More than this is not kept between two looks.
const MAX_REPORTED: usize = 100_000;

fn report(reported: Reported) {
    let what = CURRENT.get();
    if what.is_empty() {
        return;
    }
    REPORTED.with_borrow_mut(|list| {
        if list.len() < MAX_REPORTED {
            list.push((what, reported));
        }
    });
}

/// The operation that runs has to wait for its turn. For pools and queues, inside their futures.
pub fn note_queued() {
    report(Reported::Queued);
}

/// The operation that runs found its pool's queue full.
pub fn note_refused() {
    report(Reported::Refused);
}

impl Ops {
    pub fn new(core: &CoreParams) -> Ops {
        let ms = |us: i64| u64::try_from(us).ok().filter(|us| *us > 0).map(|us| us.div_ceil(1000));
        let (slow_ms, slow_dns_ms) = (ms(core.exec_msg_threshold), ms(core.exec_dns_threshold));
        Ops { slow_ms, slow_dns_ms, ..Ops::default() }
    }

    fn kind(&mut self, what: &'static str) -> usize {
        let same = |k: &&'static str| std::ptr::eq(*k, what) || *k == what;
        match self.kinds.iter().position(|(k, _)| same(k)) {
            Some(at) => at,
            None => {
                self.kinds.push((what, OpStats::default()));
                self.kinds.len() - 1
            }
        }
    }

    /// The number of a kind, for `ended`.
    pub fn started(&mut self, what: &'static str) -> u16 {
        let at = self.kind(what);
        let stats = &mut self.kinds[at].1;
        stats.started += 1;
        stats.in_flight += 1;
        at as u16
    }

    pub fn refused(&mut self, what: &'static str) {
        let at = self.kind(what);
        self.kinds[at].1.refused += 1;
    }

    pub fn ended(&mut self, kind: u16, how: Ended, took_ms: u64) {
        let Some((_, stats)) = self.kinds.get_mut(usize::from(kind)) else { return };
        stats.in_flight = stats.in_flight.saturating_sub(1);
        match how {
            Ended::TimedOut => stats.timed_out += 1,
            Ended::Cancelled => stats.cancelled += 1,
            Ended::Done(rc) => {
                stats.done += 1;
                stats.failed += u64::from(rc < 0);
                stats.steps[STEPS_MS.partition_point(|end| *end < took_ms)] += 1;
                stats.longest_ms = stats.longest_ms.max(took_ms);
                stats.total_ms += took_ms;
            }
        }
    }

    /// An operation that began at this place of the script is over.
    pub fn ended_at(&mut self, what: &'static str, loc: Loc, took_ms: u64) {
        if self.sites.len() >= MAX_SITES && !self.sites.contains_key(&(what, loc)) {
            self.sites.clear();
        }
        let site = self.sites.entry((what, loc)).or_default();
        site.ended += 1;
        site.total_ms += took_ms;
        site.longest_ms = site.longest_ms.max(took_ms);
    }

    /// (operation, place in the script, what became of it), in no order.
    pub fn sites(&self) -> impl Iterator<Item = (&'static str, Loc, Site)> + '_ {
        self.sites.iter().map(|((what, loc), site)| (*what, *loc, *site))
    }

    /// The limit that an operation of this kind went over.
    pub fn too_slow(&self, what: &str, took_ms: u64) -> Option<&'static str> {
        let over = |limit: Option<u64>| limit.is_some_and(|ms| took_ms > ms);
        // These wait for nothing but names.
        let looks_up = matches!(what, "t_relay" | "forward" | "send") || what.starts_with("dns");
        if looks_up && over(self.slow_dns_ms) {
            return Some("exec_dns_threshold");
        }
        over(self.slow_ms).then_some("exec_msg_threshold")
    }

    /// Everything, what futures reported included.
    pub fn all(&mut self) -> &[(&'static str, OpStats)] {
        for (what, reported) in REPORTED.take() {
            let at = self.kind(what);
            match reported {
                Reported::Queued => self.kinds[at].1.queued += 1,
                Reported::Refused => self.kinds[at].1.refused += 1,
            }
        }
        &self.kinds
    }

    /// Counters begin anew; what is in flight stays.
    pub fn reset(&mut self) {
        self.all();
        self.sites.clear();
        for (_, stats) in &mut self.kinds {
            *stats = OpStats { in_flight: stats.in_flight, ..OpStats::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_steps() {
        let mut ops = Ops::default();
        for (took, how) in [
            (0, Ended::Done(1)),
            (1, Ended::Done(-2)),
            (3, Ended::Done(1)),
            (30_000, Ended::Done(1)),
            (7, Ended::TimedOut),
            (8, Ended::Cancelled),
        ] {
            let kind = ops.started("f");
            ops.ended(kind, how, took);
        }
        ops.started("f");
        for (what, note) in [("f", note_queued as fn()), ("g", note_refused), ("", note_refused)] {
            let future = async move {
                note();
                Box::new(|_: &mut crate::Ctx| 1) as Finish
            };
            let mut named = Named::new(what, Box::pin(future));
            let done = Pin::new(&mut named).poll(&mut Context::from_waker(std::task::Waker::noop()));
            assert!(done.is_ready());
        }
        let all = ops.all();
        let f = &all[0].1;
        assert_eq!((f.started, f.done, f.failed, f.timed_out, f.cancelled, f.in_flight), (7, 4, 1, 1, 1, 1));
        assert_eq!((f.queued, f.longest_ms, all[1].1.refused, all.len()), (1, 30_000, 1, 2));
        let steps: Vec<usize> = (0..f.steps.len()).filter(|i| f.steps[*i] > 0).collect();
        assert_eq!(steps, [0, 2, 14]);
        let at = Loc { file: 0, start: 7, end: 9 };
        ops.ended_at("f", at, 3);
        ops.ended_at("f", at, 5);
        let site = Site { ended: 2, total_ms: 8, longest_ms: 5 };
        assert_eq!(ops.sites().collect::<Vec<_>>(), [("f", at, site)]);
        ops.reset();
        assert_eq!(ops.sites().count(), 0);
        assert_eq!(ops.all()[0].1, OpStats { in_flight: 1, ..OpStats::default() });
    }
}
