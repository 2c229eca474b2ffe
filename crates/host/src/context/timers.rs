//! Timers of a worker other than those of transactions: deadlines and pauses of what waits, timer routes, and
//! whatever a module wants done later. All stand in one wheel and can be cancelled.

use crate::context::ctx::{Ctx, TaskId};
use script::RouteId;
use transaction::wheel::{TimerId, Wheel};
use transaction::{Instant, TxnId};

/// Work for later, on the worker that asked for it.
pub type Job = Box<dyn FnOnce(&mut Ctx)>;

/// A timer that was set with [`Ctx::after`]. A copy: when it has fired or was cancelled it finds nothing.
pub type TimerKey = TimerId;

/// What is due.
pub(crate) enum Due {
    /// Deadline or pause of a parked operation.
    Task(TaskId),
    /// The next turn of a timer_route.
    Route(RouteId),
    /// An INVITE whose script waits has had no reply for a while.
    Trying(TxnId),
    Job(Job),
}

/// Everything of one worker that is due at some moment.
#[derive(Default)]
pub struct Timers(Wheel<Due>);

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, due: Due) -> TimerKey {
        self.0.set(at.0, due)
    }

    pub(crate) fn cancel(&mut self, mut key: TimerKey) -> bool {
        self.0.cancel(&mut key).is_some()
    }

    /// When something is due, or earlier.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.next().map(Instant)
    }

    /// The next that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Due> {
        self.0.pop(now.0)
    }

    /// How many are set.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Ctx {
    /// Does `job` in `ms` milliseconds, on this worker. It finds no message of its own: what it needs it owns, and
    /// a script it starts gets a state of its own.
    pub fn after(&mut self, ms: u64, job: impl FnOnce(&mut Ctx) + 'static) -> TimerKey {
        let at = self.core.now.after(ms);
        self.core.timers.set(at, Due::Job(Box::new(job)))
    }

    /// The next turn of a timer_route is `seconds` away.
    pub(crate) fn arm_route(&mut self, route: RouteId, seconds: u32) {
        let at = self.core.now.after(u64::from(seconds.max(1)) * 1000);
        self.core.timers.set(at, Due::Route(route));
    }

    /// Takes a timer back; false when it has fired, or was taken back before.
    pub fn cancel(&mut self, key: TimerKey) -> bool {
        self.core.timers.cancel(key)
    }
}
