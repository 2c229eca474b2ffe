//! Slots of operations that scripts and modules wait for: taken, tied to transactions, dropped. What goes on
//! when one is done is the worker's (`worker/park.rs`).

use crate::context::call::{Finish, Suspension, Wait};
use crate::context::ctx::{Ctx, MsgState, TaskId};
use crate::context::held::Share;
use crate::context::observe::Waiting;
use crate::context::ops::{Ended, Named};
use crate::context::parked::{AtEnd, Parked, Then};
use crate::context::timers::{Due, TimerKey};
use bytes::Bytes;
use script::ast::RouteKind;
use transaction::{Instant, TxnId};

/// More suspended scripts than this on one worker are refused (the function returns -1).
const MAX_PARKED: usize = 1_000_000;
/// Longest any script may wait, whatever it asks for: one day.
const SERVER_CAP_MS: u64 = 86_400_000;
/// How much of a query or URL is kept for `async_list`.
const DETAIL_BYTES: usize = 128;

impl Ctx {
    /// A free slot, its deadline armed. `None`: too many are waiting.
    pub(crate) fn park_slot(
        &mut self,
        what: &'static str,
        detail: Bytes,
        call_id: Bytes,
        loc: script::Loc,
        limit_ms: u64,
        on_deadline: i32,
    ) -> Option<TaskId> {
        let now = self.core.now;
        let deadline = now.after(limit_ms.min(SERVER_CAP_MS));
        let detail = if detail.len() > DETAIL_BYTES {
            Bytes::copy_from_slice(&detail[..DETAIL_BYTES])
        } else {
            detail
        };
        let parked = |generation| Parked {
            generation,
            state: None,
            since: now,
            deadline,
            timer: TimerKey::NONE,
            what,
            detail,
            call_id,
            loc,
            on_deadline,
            on_timer: None,
            guard: None,
            held: Share::default(),
            live: true,
            at_end: AtEnd::Waits,
            report: None,
            txn: None,
            kind: 0,
            member: None,
            group: None,
            then: None,
        };
        let id = match self.core.free_tasks.pop() {
            Some(index) => {
                let generation = self.core.tasks[index as usize].generation;
                self.core.tasks[index as usize] = parked(generation);
                TaskId { index, generation }
            }
            None if self.core.tasks.len() < MAX_PARKED => {
                self.core.tasks.push(parked(0));
                TaskId { index: (self.core.tasks.len() - 1) as u32, generation: 0 }
            }
            None => {
                self.core.counters.refused.up();
                self.core.ops.refused(what);
                crate::warn!("core", "{MAX_PARKED} scripts are waiting: {what} was refused");
                return None;
            }
        };
        self.core.counters.started.up();
        self.core.counters.in_flight.up();
        self.core.tasks[id.index as usize].kind = self.core.ops.started(what);
        if self.core.observers.is_some() {
            let slot = &self.core.tasks[id.index as usize];
            let (detail, call_id) = (slot.detail.clone(), slot.call_id.clone());
            self.tell_waits(Waiting { what, detail: &detail, call_id: &call_id, loc, since: now });
        }
        Some(id)
    }

    /// The operation ends with this transaction.
    pub(crate) fn tie(&mut self, id: TaskId, txn: TxnId) {
        self.core.tasks[id.index as usize].txn = Some(txn);
        self.core.tasks_of.entry(txn).or_default().push(id);
    }

    /// Waits for an operation beside any script, with the message that is held for it. It ends with the
    /// transaction; else `then` follows.
    pub(crate) fn wait_beside(
        &mut self,
        held: Option<Box<MsgState>>,
        txn: Option<TxnId>,
        operation: Suspension,
        then: Then,
    ) {
        let call_id = held.as_ref().and_then(|state| state.msg.call_id()).unwrap_or_default();
        let Suspension { what, detail, wait, limit_ms, on_deadline } = operation;
        match self.park_slot(what, detail, call_id, script::Loc::default(), limit_ms, on_deadline) {
            Some(id) => {
                if let Some(txn) = txn {
                    self.tie(id, txn);
                }
                let slot = &mut self.core.tasks[id.index as usize];
                (slot.state, slot.then) = (held, Some(then));
                self.begin_wait(id, wait);
            }
            None => {
                then(self, held, Box::new(move |_| on_deadline));
            }
        }
    }

    pub(crate) fn begin_wait(&mut self, id: TaskId, wait: Wait) {
        let slot = &mut self.core.tasks[id.index as usize];
        if let Wait::Timer(ms, finish) = wait {
            // What takes longer than it may ends at its deadline, as any other operation.
            let over = self.core.now.after(ms);
            if over <= slot.deadline {
                (slot.deadline, slot.on_timer) = (over, Some(finish));
            }
            slot.timer = self.core.timers.set(slot.deadline, Due::Task(id));
            return;
        }
        slot.timer = self.core.timers.set(slot.deadline, Due::Task(id));
        match wait {
            Wait::Timer(..) => {}
            Wait::Future(future) => {
                let named = Named::new(slot.what, future).taped(self.core.tape.as_ref(), &slot.call_id);
                let named = Box::pin(named);
                let guard = self.core.spawner.clone().spawn(id, named);
                if let Some(slot) = self.live_slot(id) {
                    slot.guard = Some(guard);
                }
            }
            Wait::External(begin) => begin(self, id),
        }
    }

    pub(crate) fn live_slot(&mut self, id: TaskId) -> Option<&mut Parked> {
        self.core.tasks.get_mut(id.index as usize).filter(|t| t.live && t.generation == id.generation)
    }

    /// Frees the slot; its operation is dropped with the guard.
    pub(crate) fn take_task(&mut self, id: TaskId) -> Option<Parked> {
        let slot = self.live_slot(id)?;
        let generation = slot.generation.wrapping_add(1);
        let free = Parked {
            generation,
            state: None,
            since: Instant(0),
            deadline: Instant(0),
            timer: TimerKey::NONE,
            what: "",
            detail: Bytes::new(),
            call_id: Bytes::new(),
            loc: script::Loc::default(),
            on_deadline: -1,
            on_timer: None,
            guard: None,
            held: Share::default(),
            live: false,
            at_end: AtEnd::Waits,
            report: None,
            txn: None,
            kind: 0,
            member: None,
            group: None,
            then: None,
        };
        let parked = std::mem::replace(slot, free);
        self.core.free_tasks.push(id.index);
        self.core.timers.cancel(parked.timer);
        self.core.counters.in_flight.down();
        if let Some(txn) = parked.txn
            && let Some(list) = self.core.tasks_of.get_mut(&txn)
        {
            list.retain(|t| *t != id);
            if list.is_empty() {
                self.core.tasks_of.remove(&txn);
            }
        }
        // What runs for a group ends with it.
        for member in parked.group.iter().flat_map(|group| &group.running) {
            if let Some(member) = self.take_task(*member) {
                self.core.counters.cancelled.up();
                self.note_end(&member, Ended::Cancelled);
            }
        }
        Some(parked)
    }

    pub(crate) fn note_end(&mut self, parked: &Parked, how: Ended) {
        let took = self.core.now.0.saturating_sub(parked.since.0);
        self.core.ops.ended(parked.kind, how, took);
        self.core.ops.ended_at(parked.what, parked.loc, took);
        if self.core.observers.is_some() {
            let Parked { what, detail, call_id, loc, since, .. } = parked;
            self.tell_waited(Waiting { what, detail, call_id, loc: *loc, since: *since }, how);
        }
    }

    /// The transaction ended: its suspended scripts and their operations are dropped.
    pub fn drop_tasks_of(&mut self, txn: TxnId) {
        let of = self.core.tasks_of.get(&txn).cloned().unwrap_or_default();
        for id in of {
            self.cancel_task(id);
        }
    }

    /// The caller gave up: the same, except for scripts that hold a reply, which goes its way.
    pub fn drop_requests_of(&mut self, txn: TxnId) {
        for id in self.requests_of(txn) {
            self.cancel_task(id);
        }
    }

    /// Waiting scripts that work on the request of a transaction, and look-ups for it.
    pub fn requests_of(&self, txn: TxnId) -> smallvec::SmallVec<[TaskId; 1]> {
        let of = self.core.tasks_of.get(&txn).into_iter().flatten().copied();
        let holds_reply = |id: &TaskId| {
            let state = &self.core.tasks[id.index as usize].state;
            state.as_ref().is_some_and(|state| state.kind == RouteKind::OnReply)
        };
        of.filter(|id| !holds_reply(id)).collect()
    }

    /// Drops one operation and its script.
    pub fn cancel_task(&mut self, id: TaskId) -> bool {
        let Some(parked) = self.take_task(id) else { return false };
        self.core.counters.cancelled.up();
        self.note_end(&parked, Ended::Cancelled);
        true
    }

    /// The server ends: scripts that still wait are dropped, and what they wait for. Work that modules have begun
    /// beside scripts goes on (last writes).
    pub(crate) fn drop_scripts(&mut self) {
        let scripts = |task: &Parked| task.live && (task.state.is_some() || task.report.is_some());
        let tasks = self.core.tasks.iter().enumerate().filter(|(_, task)| scripts(task));
        let ids: Vec<TaskId> =
            tasks.map(|(index, task)| TaskId { index: index as u32, generation: task.generation }).collect();
        for id in ids {
            self.cancel_task(id);
        }
    }

    /// Work beside any script: `future` owns what it needs, its finisher runs on this worker.
    pub fn spawn(
        &mut self,
        what: &'static str,
        limit_ms: u64,
        future: impl Future<Output = Finish> + 'static,
    ) {
        let slot = self.park_slot(what, Bytes::new(), Bytes::new(), script::Loc::default(), limit_ms, -1);
        if let Some(id) = slot {
            self.begin_wait(id, Wait::Future(Box::pin(future)));
        }
    }

    /// The same for what concerns no call and saves nothing (probes, reloads, look-ups ahead): the end of the server
    /// does not wait for it.
    pub fn spawn_aside(
        &mut self,
        what: &'static str,
        limit_ms: u64,
        future: impl Future<Output = Finish> + 'static,
    ) {
        let slot = self.park_slot(what, Bytes::new(), Bytes::new(), script::Loc::default(), limit_ms, -1);
        if let Some(id) = slot {
            self.core.tasks[id.index as usize].at_end = AtEnd::Drops;
            self.begin_wait(id, Wait::Future(Box::pin(future)));
        }
    }

    /// The same for a transaction, with which it is dropped. `too_late` takes the place of the finisher
    /// when the time is over.
    pub fn spawn_for(
        &mut self,
        txn: TxnId,
        what: &'static str,
        detail: Bytes,
        limit_ms: u64,
        future: impl Future<Output = Finish> + 'static,
        too_late: Finish,
    ) {
        let slot = self.park_slot(what, detail, Bytes::new(), script::Loc::default(), limit_ms, -1);
        let Some(id) = slot else {
            too_late(self);
            return;
        };
        self.tie(id, txn);
        self.core.tasks[id.index as usize].on_timer = Some(too_late);
        self.begin_wait(id, Wait::Future(Box::pin(future)));
    }
}
