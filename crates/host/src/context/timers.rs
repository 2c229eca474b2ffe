//! Timers of a worker other than those of transactions: deadlines, pauses, timer routes, hooks.

use crate::ctx::TaskId;
use script::RouteId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use transaction::Instant;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Due {
    /// Deadline or pause of a parked operation (index, generation).
    Task(u32, u32),
    /// timer_route
    Route(u16),
    /// Index into `Hooks::timers`, `Hooks::worker_timers`
    Hook(u32),
    WorkerHook(u32),
}

impl Due {
    pub fn task(id: TaskId) -> Due {
        Due::Task(id.index, id.generation)
    }
    pub fn route(id: RouteId) -> Due {
        Due::Route(id.0)
    }
}

/// Cancelled entries stay until due; whoever handles them checks generations.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64, Due)>>,
    order: u64,
}

impl Timers {
    pub fn add(&mut self, at: Instant, due: Due) {
        self.order += 1;
        self.heap.push(Reverse((at, self.order, due)));
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The next entry that is due at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, due))| due)
    }
}
