//! Suspended scripts: parking, deadlines, resuming, dropping.

use crate::call::{Finish, Outcome, Suspension, Wait};
use crate::ctx::{After, Ctx, MsgState, Parked, Report, TaskId};
use crate::registrar::Func;
use crate::tm::Held;
use crate::worker::ops::{Ended, Named};
use crate::worker::timers::Due;
use bytes::Bytes;
use script::ast::RouteKind;
use script::{RouteId, Task, Value};
use sip::Method;
use transaction::{Instant, TxnId};

/// More suspended scripts than this on one worker are refused (the function returns -1).
const MAX_PARKED: usize = 1_000_000;
/// Longest any script may wait, whatever it asks for: one day.
const SERVER_CAP_MS: u64 = 86_400_000;
/// How much of a query or URL is kept for `async_list`.
const DETAIL_BYTES: usize = 128;

impl Ctx {
    /// Puts a script aside until its operation is done. `state` is not the current one any more.
    pub(crate) fn park(&mut self, mut state: Box<MsgState>, operation: Suspension) {
        // Reports of `launch` and the like need no transaction.
        let is_main = state.kind == RouteKind::Request && matches!(state.after, After::Request);
        if is_main && state.msg.method() != Method::Ack {
            match crate::tm::hold(self, &mut state) {
                Held::Waits => {}
                Held::Known => return,
            }
        }
        let beside = matches!(state.after, After::Nothing);
        let loc = state.task.loc();
        let call_id = state.msg.call_id().unwrap_or_default();
        let Suspension { what, detail, wait, limit_ms, on_deadline } = operation;
        match self.park_slot(what, detail, call_id, loc, limit_ms, on_deadline) {
            Some(id) => {
                if let Some(txn) = state.txn.filter(|_| !beside) {
                    self.tie(id, txn);
                }
                self.core.tasks[id.index as usize].state = Some(state);
                self.begin_wait(id, wait);
            }
            None => {
                state.task.resume(-1);
                self.run(state);
            }
        }
    }

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
            what,
            detail,
            call_id,
            loc,
            on_deadline,
            on_timer: None,
            guard: None,
            live: true,
            report: None,
            txn: None,
            kind: 0,
            member: None,
            group: None,
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
        Some(id)
    }

    /// The operation ends with this transaction.
    fn tie(&mut self, id: TaskId, txn: TxnId) {
        self.core.tasks[id.index as usize].txn = Some(txn);
        self.core.tasks_of.entry(txn).or_default().push(id);
    }

    pub(crate) fn begin_wait(&mut self, id: TaskId, wait: Wait) {
        let slot = &mut self.core.tasks[id.index as usize];
        match wait {
            Wait::Timer(ms, finish) => {
                slot.on_timer = Some(finish);
                let at = self.core.now.after(ms).min(slot.deadline);
                slot.deadline = at;
                self.core.timers.add(at, Due::task(id));
            }
            Wait::Future(future) => {
                self.core.timers.add(slot.deadline, Due::task(id));
                let named = Box::pin(Named::new(slot.what, future));
                let guard = self.core.spawner.clone().spawn(id, named);
                if let Some(slot) = self.live_slot(id) {
                    slot.guard = Some(guard);
                }
            }
            Wait::External(begin) => {
                self.core.timers.add(slot.deadline, Due::task(id));
                begin(self, id);
            }
        }
    }

    pub(crate) fn live_slot(&mut self, id: TaskId) -> Option<&mut Parked> {
        self.core.tasks.get_mut(id.index as usize).filter(|t| t.live && t.generation == id.generation)
    }

    /// Frees the slot; its operation is dropped with the guard.
    fn take_task(&mut self, id: TaskId) -> Option<Parked> {
        let slot = self.live_slot(id)?;
        let generation = slot.generation.wrapping_add(1);
        let free = Parked {
            generation,
            state: None,
            since: Instant(0),
            deadline: Instant(0),
            what: "",
            detail: Bytes::new(),
            call_id: Bytes::new(),
            loc: script::Loc::default(),
            on_deadline: -1,
            on_timer: None,
            guard: None,
            live: false,
            report: None,
            txn: None,
            kind: 0,
            member: None,
            group: None,
        };
        let parked = std::mem::replace(slot, free);
        self.core.free_tasks.push(id.index);
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

    fn note_end(&mut self, parked: &Parked, how: Ended) {
        let took = self.core.now.0.saturating_sub(parked.since.0);
        self.core.ops.ended(parked.kind, how, took);
    }

    #[cold]
    fn complain_slow(&mut self, parked: &Parked, limit: &str, took: u64) {
        let shared = self.core.shared.clone();
        let sources = shared.sources();
        let (file, line) = (sources.name(parked.loc), sources.line_col(parked.loc).0);
        let detail = String::from_utf8_lossy(&parked.detail).into_owned();
        let what = parked.what;
        crate::warn!("core", "{file}:{line}: {what} {detail} took {took} ms, more than {limit}");
        let extra = format!("{what} {detail}");
        let values: [(&'static str, Value); 3] = [
            ("source", Value::from("core")),
            ("time", Value::Int((took * 1000) as i64)),
            ("extra", Value::from(extra)),
        ];
        crate::events::raise(self, "E_CORE_THRESHOLD", values.into_iter().collect());
    }

    /// The operation of `id` is done; stale ids are ignored.
    pub fn resume(&mut self, id: TaskId, finish: Finish) {
        if let Some(parked) = self.take_task(id) {
            self.core.counters.done.up();
            let took = self.core.now.0.saturating_sub(parked.since.0);
            if let Some(limit) = self.core.ops.too_slow(parked.what, took).filter(|_| parked.group.is_none())
            {
                self.complain_slow(&parked, limit, took);
            }
            self.go_on(parked, finish, None);
        }
    }

    /// `how` is `None` when the operation was done.
    fn go_on(&mut self, mut parked: Parked, finish: Finish, how: Option<Ended>) {
        if let Some(how) = how {
            self.note_end(&parked, how);
        }
        if let Some(member) = parked.member {
            let rc = self.member_done(member, finish);
            return self.note_done(&parked, how, rc);
        }
        if let Some(report) = parked.report.take() {
            let (rc, after) = self.finish_report(report, finish);
            self.note_done(&parked, how, rc);
            if let Some(state) = after {
                self.run(state);
            }
            return;
        }
        let Some(mut state) = parked.state.take() else {
            let rc = finish(self);
            return self.note_done(&parked, how, rc);
        };
        std::mem::swap(&mut self.state, &mut state);
        let rc = finish(self);
        self.note_done(&parked, how, rc);
        std::mem::swap(&mut self.state, &mut state);
        state.task.resume(rc);
        self.run(state);
    }

    fn note_done(&mut self, parked: &Parked, how: Option<Ended>, rc: i32) {
        if how.is_none() {
            self.note_end(parked, Ended::Done(rc));
        }
    }

    /// A deadline or a pause is over.
    pub(crate) fn task_due(&mut self, id: TaskId) {
        let Some(mut parked) = self.take_task(id) else { return };
        let mut how = Some(Ended::TimedOut);
        let finish = match (parked.on_timer.take(), parked.group.take()) {
            (Some(finish), _) => {
                // A pause is over; work that has something to do when it is late has a future.
                how = how.filter(|_| parked.guard.is_some());
                finish
            }
            (None, Some(mut group)) => {
                self.core.counters.timed_out.up();
                Box::new(move |ctx: &mut Ctx| ctx.group_late(&mut group)) as Finish
            }
            (None, None) => {
                self.core.counters.timed_out.up();
                crate::info!(
                    "core",
                    "{} gave no answer in time: {}",
                    parked.what,
                    String::from_utf8_lossy(&parked.detail)
                );
                let rc = parked.on_deadline;
                Box::new(move |_: &mut Ctx| rc) as Finish
            }
        };
        parked.guard = None;
        self.go_on(parked, finish, how);
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

    /// Ends one operation as if its deadline had passed: its script goes on with that return code.
    pub fn fail_task(&mut self, id: TaskId) -> bool {
        let Some(mut parked) = self.take_task(id) else { return false };
        self.core.counters.cancelled.up();
        parked.guard = None;
        let rc = parked.on_deadline;
        self.go_on(parked, Box::new(move |_| rc), Some(Ended::Cancelled));
        true
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

    /// `launch(f, route, param)`: starts f beside this script.
    pub(crate) fn start_launch(&mut self, func: &Func, route: Option<RouteId>, param: Value) -> i32 {
        let program = self.state.task.program().clone();
        let state = self.state.fork(self.state.kind, Task::new(program, route.unwrap_or(RouteId(0))));
        let report = Report { state, route, param };
        match func.call(self) {
            Outcome::Done(rc) => {
                self.report(report, Box::new(move |_| rc));
                1
            }
            Outcome::Suspend(operation) => {
                let Suspension { what, detail, wait, limit_ms, on_deadline } = *operation;
                let call_id = self.state.msg.call_id().unwrap_or_default();
                let loc = self.state.task.loc();
                match self.park_slot(what, detail, call_id, loc, limit_ms, on_deadline) {
                    Some(id) => {
                        self.core.tasks[id.index as usize].report = Some(report);
                        self.begin_wait(id, wait);
                        1
                    }
                    None => -1,
                }
            }
        }
    }

    fn report(&mut self, report: Report, finish: Finish) {
        if let (_, Some(state)) = self.finish_report(report, finish) {
            self.run(state);
        }
    }

    /// The return code, and the report route if there is one.
    fn finish_report(&mut self, report: Report, finish: Finish) -> (i32, Option<Box<MsgState>>) {
        let Report { mut state, route, param } = report;
        std::mem::swap(&mut self.state, &mut state);
        let rc = finish(self);
        std::mem::swap(&mut self.state, &mut state);
        let Some(route) = route else { return (rc, None) };
        let program = state.task.program().clone();
        state.task = Task::with_params(program, route, vec![param]);
        state.task.rc = i64::from(rc);
        state.after = After::Nothing;
        (rc, Some(state))
    }
}
