//! What is kept of an operation that a script or a module waits for.

use crate::context::call::Finish;
use crate::context::ctx::{Ctx, MsgState, Sip, TaskId};
use crate::context::held::Share;
use crate::context::stats::{Counter, Stats};
use crate::context::timers::TimerKey;
use bytes::Bytes;
use script::{ParallelSite, RouteId, Value};
use std::any::Any;
use transaction::{Instant, TxnId};

/// A suspended operation.
pub struct Parked {
    pub generation: u32,
    /// `None`: an operation beside a script (`launch`), or a free slot.
    pub state: Option<Box<MsgState>>,
    /// It ends with this transaction.
    pub txn: Option<TxnId>,
    pub since: Instant,
    pub deadline: Instant,
    /// The deadline, or the end of a pause; gone with the slot.
    pub timer: TimerKey,
    pub what: &'static str,
    pub detail: Bytes,
    pub call_id: Bytes,
    pub loc: script::Loc,
    /// Return code when the deadline passes.
    pub on_deadline: i32,
    /// Waits for a timer: what to do then.
    pub on_timer: Option<Finish>,
    pub guard: Option<Box<dyn Any>>,
    /// Its message counts as a large one.
    pub held: Share,
    pub live: bool,
    pub at_end: AtEnd,
    /// `launch`: the message it was started from and the route to report to.
    pub report: Option<Report>,
    /// Kind of operation, for `Ops`.
    pub kind: u16,
    /// One of several that a `parallel` started.
    pub member: Option<Member>,
    /// A `parallel` that waits for its members.
    pub group: Option<Box<Group>>,
    /// What follows instead of the script: it gets the message that was held, and what the operation leaves to do.
    pub then: Option<Then>,
}

/// What the end of the server does with an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtEnd {
    /// It is waited for, as long as there is time.
    Waits,
    /// It concerns no call and saves nothing (a probe, a reload): it is dropped.
    Drops,
}

/// Goes on when a wait beside any script is over; gives the return code of the operation.
pub type Then = Box<dyn FnOnce(&mut Ctx, Option<Box<MsgState>>, Finish) -> i32>;

/// Where `launch()` reports.
pub struct Report {
    pub state: Box<MsgState>,
    pub route: Option<RouteId>,
    pub param: Value,
}

/// The group that an operation belongs to, and its place in it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub group: TaskId,
    pub place: usize,
}

/// What a group waits for.
pub struct Group {
    pub(crate) site: ParallelSite<Sip>,
    /// Return codes; `None`: not done.
    pub(crate) codes: Vec<Option<i32>>,
    /// The operations that run.
    pub running: Vec<TaskId>,
}

/// Counters of operations, of all workers.
#[derive(Clone)]
pub struct AsyncCounters {
    pub started: Counter,
    pub done: Counter,
    pub timed_out: Counter,
    pub cancelled: Counter,
    pub refused: Counter,
    pub in_flight: Counter,
}

impl AsyncCounters {
    pub fn new(stats: &Stats) -> AsyncCounters {
        AsyncCounters {
            started: stats.counter("async", "async_started"),
            done: stats.counter("async", "async_done"),
            timed_out: stats.counter("async", "async_timed_out"),
            cancelled: stats.counter("async", "async_cancelled"),
            refused: stats.counter("async", "async_refused"),
            in_flight: stats.counter("async", "async_in_flight"),
        }
    }
}
