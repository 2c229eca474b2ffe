//! Suspended scripts: parking, deadlines, resuming, dropping.

use crate::call::{Finish, Outcome, Suspension};
use crate::ctx::{After, Ctx, MsgState, Parked, Report, TaskId};
use crate::registrar::Func;
use crate::tm::{Held, defect};
use crate::worker::ops::Ended;
use script::ast::RouteKind;
use script::{End, RouteId, Task, Value};
use sip::Method;
use std::cell::RefCell;
use std::rc::Rc;

impl Ctx {
    /// Puts a script aside until its operation is done. `state` is not the current one any more.
    pub(crate) fn park(&mut self, mut state: Box<MsgState>, operation: Suspension) {
        // Reports of `launch` and the like need no transaction.
        let is_main = state.kind == RouteKind::Request && matches!(state.after, After::Request);
        let Some(held) = self.core.shared.held.take(state.msg.buf().len()) else {
            return self.no_room(state, is_main);
        };
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
                let slot = &mut self.core.tasks[id.index as usize];
                (slot.state, slot.held) = (Some(state), held);
                if self.catch(|ctx| ctx.begin_wait(id, wait)).is_err()
                    && let Some(state) = self.take_task(id).and_then(|parked| parked.state)
                {
                    defect::script_broke(self, state);
                }
            }
            None => {
                state.task.resume(-1);
                self.run(state);
            }
        }
    }

    /// Runs a route as a script of its own over a copy of the current message, for a watcher or a function that goes
    /// on with `done` when the route has ended: at once, or later when it waits (`limit_ms` at most, then with
    /// `on_deadline`).
    pub fn call_route(
        &mut self,
        route: RouteId,
        what: &'static str,
        limit_ms: u64,
        on_deadline: i32,
        done: impl FnOnce(&mut Ctx, End) -> i32 + 'static,
    ) -> Outcome {
        let done = move |ctx: &mut Ctx, _: Box<MsgState>, end: End| Outcome::Done(done(ctx, end));
        self.call_route_within(route, what, limit_ms, on_deadline, done)
    }

    /// The same for a function whose route works on the message itself: `done` gets the copy as the route left it, for
    /// [`MsgState::take_changes`], and may wait again.
    pub fn call_route_within(
        &mut self,
        route: RouteId,
        what: &'static str,
        limit_ms: u64,
        on_deadline: i32,
        done: impl FnOnce(&mut Ctx, Box<MsgState>, End) -> Outcome + 'static,
    ) -> Outcome {
        /// What the route and whoever waits for it tell each other.
        #[derive(Default)]
        struct Meeting {
            end: Option<(Box<MsgState>, End)>,
            waits: Option<TaskId>,
        }
        let meeting = Rc::new(RefCell::new(Meeting::default()));
        let (told, kind) = (meeting.clone(), self.state.kind);
        let done = Rc::new(RefCell::new(Some(done)));
        let later = done.clone();
        let ended = move |ctx: &mut Ctx, state: Box<MsgState>, end: End| {
            let waits = told.borrow().waits;
            let Some(id) = waits else {
                told.borrow_mut().end = Some((state, end));
                return;
            };
            let Some(done) = later.take() else { return };
            let finish = move |ctx: &mut Ctx| {
                let outcome = done(ctx, state, end);
                ctx.wait_again(outcome)
            };
            ctx.resume(id, Box::new(finish));
        };
        self.fork_run(route, kind, Vec::new(), After::Then(Box::new(ended)));
        let end = meeting.borrow_mut().end.take();
        if let Some((state, end)) = end
            && let Some(done) = done.take()
        {
            return done(self, state, end);
        }
        Outcome::Suspend(Box::new(Suspension {
            what,
            detail: Default::default(),
            wait: crate::call::Wait::External(Box::new(move |_, id| meeting.borrow_mut().waits = Some(id))),
            limit_ms,
            on_deadline,
        }))
    }

    /// For the second half of an operation: what the function does next. When that waits too, its script is put aside
    /// again, and what is returned here does not count. Not for what `launch` and `parallel` run: there it is -1.
    pub fn wait_again(&mut self, outcome: Outcome) -> i32 {
        match outcome {
            Outcome::Done(rc) => rc,
            Outcome::Suspend(operation) => {
                self.core.again = Some(operation);
                -1
            }
        }
    }

    /// Too much waits already for a message of this size: a request is refused, any other script goes on as when
    /// too many wait.
    #[cold]
    fn no_room(&mut self, mut state: Box<MsgState>, is_main: bool) {
        self.core.counters.refused.up();
        if is_main && state.msg.method() != Method::Ack {
            crate::tm::refuse(self, state);
        } else {
            state.task.resume(-1);
            self.run(state);
        }
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
        crate::events::raise(self, crate::events::THRESHOLD, values.into_iter().collect());
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
        self.core.again = None;
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
        if let Some(then) = parked.then.take() {
            let state = parked.state.take();
            let done = match parked.txn {
                Some(txn) => self.guarded(txn, |ctx| then(ctx, state, finish)),
                None => self.catch(|ctx| then(ctx, state, finish)),
            };
            return self.note_done(&parked, how, done.unwrap_or(-1));
        }
        let Some(state) = parked.state.take() else {
            let done = match parked.txn {
                Some(txn) => self.guarded(txn, finish),
                None => self.catch(finish),
            };
            return self.note_done(&parked, how, done.unwrap_or(-1));
        };
        let (mut state, done) = self.try_with_state(state, |ctx| ctx.finish_placed(finish));
        self.note_done(&parked, how, done.unwrap_or(-1));
        match (done, self.core.again.take()) {
            (Ok(_), Some(operation)) => self.park(state, *operation),
            (Ok(rc), None) => {
                state.task.resume(rc);
                self.run(state);
            }
            (Err(_), _) => defect::script_broke(self, state),
        }
    }

    fn note_done(&mut self, parked: &Parked, how: Option<Ended>, rc: i32) {
        if how.is_none() {
            self.note_end(parked, Ended::Done(rc));
        }
        if let Some(tape) = self.core.tape.as_ref().filter(|tape| tape.on()) {
            tape.note(crate::context::tape::Note::Over(rc));
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

    /// Ends one operation as if its deadline had passed: its script goes on with that return code.
    pub fn fail_task(&mut self, id: TaskId) -> bool {
        let Some(mut parked) = self.take_task(id) else { return false };
        self.core.counters.cancelled.up();
        parked.guard = None;
        let rc = parked.on_deadline;
        self.go_on(parked, Box::new(move |_| rc), Some(Ended::Cancelled));
        true
    }

    /// `launch(f, route, param)`: starts f beside this script.
    pub(crate) fn start_launch(&mut self, func: &Func, route: Option<RouteId>, param: Value) -> i32 {
        let outcome = func.call(self);
        let program = self.state.task.program().clone();
        let mut state = self.state.fork(self.state.kind, Task::new(program, route.unwrap_or(RouteId(0))));
        // The report's AVPs are its own, as in the reference: what an operation writes later is there for it, and
        // what it sets nobody else sees.
        state.avps = match &outcome {
            Outcome::Done(_) => Rc::new(RefCell::new(self.state.avps.borrow().clone())),
            Outcome::Suspend(_) => Rc::default(),
        };
        let report = Report { state, route, param };
        match outcome {
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
        let Report { state, route, param } = report;
        let (mut state, done) = self.try_with_state(state, |ctx| ctx.finish_placed(finish));
        let Ok(rc) = done else {
            return (-1, None);
        };
        let Some(route) = route else { return (rc, None) };
        let program = state.task.program().clone();
        state.task = Task::with_params(program, route, vec![param]);
        state.task.rc = i64::from(rc);
        state.after = After::Nothing;
        (rc, Some(state))
    }
}
