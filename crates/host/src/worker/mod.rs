//! One worker: everything that happens to the calls it owns, without I/O.

mod parallel;
mod park;
mod run;
mod script_host;

use crate::call::Finish;
use crate::context::detached::nowhere;
use crate::context::observe::Way;
use crate::context::tape::{self, Moment, Note, Step, Tape};
use crate::context::taped::{TapeMaker, TapedSpawn};
use crate::context::timers::{Due, Timers};
use crate::ctx::{After, Core, Ctx, EngineSlot, MsgState, Output, Rng, Spawn, TaskId, Upper};
use crate::shared::{Hook, Hooks, Shared};
use crate::tm::{self, Admit};
use crate::watch::Wire;
use bytes::Bytes;
use script::Task;
use script::ast::RouteKind;
use sip::{Message, ParseError};
use std::rc::Rc;
use std::sync::Arc;
use transaction::{Instant, Path};

pub use crate::context::detached::{detached_state, dummy_message, owner};
use crate::context::log;
pub use crate::context::ops::{self, Ops};
use crate::context::parked::AtEnd;
pub use crate::context::parked::{Group, Member};

/// What is due is done in portions of so many timers: messages that came meanwhile are not kept waiting for all
/// of it.
const TIMERS_PER_STEP: usize = 32;
/// Timers of transactions may be this late: one wake of the thread serves all that are due about then.
const TXN_TICK_MS: u64 = 16;

/// The two clocks, read by whoever drives the worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Milliseconds since any moment; never goes back.
    pub now: Instant,
    /// Microseconds since 1970 (UTC).
    pub wall_us: u64,
}

/// What happened outside.
pub enum Input {
    /// A datagram, or a message framed from a stream.
    Message { source: Path, bytes: Bytes },
    /// A message that comes while there is more to do than can be done: it may be refused.
    Excess { source: Path, bytes: Bytes, lateness: tm::overload::Lateness },
    /// What was to be sent could not be (no connection, refused by the system).
    Undeliverable { path: Path, bytes: Bytes },
    /// An operation is done.
    Resume(TaskId, Finish),
    /// Time passed. Not everything that is due may be done in one step: `next_deadline` tells.
    Timer,
    /// Something to do on this worker (management commands).
    Run(Box<dyn FnOnce(&mut Ctx) + Send>),
    /// From now on new requests are refused (503) and the worker empties.
    Drain,
    /// Its time is over: what is still open hears 503, branches are cancelled. `Drain` after it says that nobody waits
    /// for them any more.
    End,
}

/// One owner of calls: their transactions, scripts that wait, timers. [`step`](Worker::step) takes what happened outside,
/// [`take_outputs`](Worker::take_outputs) gives what is to be sent, [`next_deadline`](Worker::next_deadline) says when to
/// come again without anything happening. It does no I/O, reads no clock and never waits; whoever drives it (the server's
/// runner, the simulation, a test) brings both clocks and a [`Spawn`] for futures, whose results come back as
/// [`Input::Resume`]. A worker belongs to one thread.
pub struct Worker {
    ctx: Ctx,
    life: Life,
}

/// How far the worker's end is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Serving,
    /// `Input::End` was handled: CANCELs are on their way.
    Farewell,
    /// Only work that modules do beside calls is waited for.
    LastWrites,
}

impl Worker {
    /// `seed` makes tags and branches; two workers must not share it.
    pub fn new(
        shared: Arc<Shared>,
        worker: u16,
        workers: u16,
        seed: u64,
        spawner: Rc<dyn Spawn>,
        clock: Clock,
    ) -> Worker {
        let tape = shared.hooks.listed::<TapeMaker>().first().map(|maker| (maker.0)(&shared, worker));
        if let Some(tape) = &tape {
            let at = Moment { now: clock.now.0, wall_us: clock.wall_us, rng: seed };
            tape.step(at, Step::Made { worker, workers, seed });
        }
        let spawner = match &tape {
            Some(tape) => Rc::new(TapedSpawn { inner: spawner, tape: tape.clone() }),
            None => spawner,
        };
        let core = Core {
            now: clock.now,
            wall_us: clock.wall_us,
            worker,
            workers,
            txns: EngineSlot(Box::new(tm::Engine::new(&shared, worker, seed ^ shared_seed(&shared)))),
            tasks: Default::default(),
            free_tasks: Default::default(),
            tasks_of: Default::default(),
            counters: crate::ctx::AsyncCounters::new(&shared.stats),
            ops: Ops::new(&shared.globals.core),
            traffic: crate::ctx::Traffic::new(&shared.stats),
            timers: Timers::default(),
            outputs: Vec::new(),
            rng: Rng(seed),
            spawner,
            local: Default::default(),
            draining: false,
            again: None,
            tape,
            observers: None,
            upper: Upper { run: run::run, other_message: tm::other_message },
            shared: shared.clone(),
        };
        let state = dummy_state(&shared, clock.now);
        let mut worker = Worker { ctx: Ctx { core, state }, life: Life::Serving };
        let _playing = worker.ctx.core.tape.as_ref().map(|tape| tape::enter(tape, Bytes::new()));
        if worker.ctx.core.tape.is_some() {
            worker.ctx.core.txns.txns.note_made();
        }
        worker.start();
        worker.note_made();
        worker
    }

    /// Handles one input at this time.
    pub fn step(&mut self, clock: Clock, input: Input) {
        self.life = match (&input, self.life) {
            (Input::End, Life::Serving) => Life::Farewell,
            (Input::Drain, Life::Farewell) => Life::LastWrites,
            (_, life) => life,
        };
        let ctx = &mut self.ctx;
        ctx.core.now = ctx.core.now.max(clock.now);
        ctx.core.wall_us = clock.wall_us;
        log::hold();
        let _playing = ctx.core.tape.as_ref().map(|tape| on_tape(tape, &ctx.core, &input));
        // A defect in the handling of one message must not take the other calls with it.
        let _ = ctx.catch(|ctx| take(ctx, input));
        if self.ctx.core.tape.is_some() {
            self.note_made();
        }
        log::release();
        self.ctx.core.txns.publish();
    }

    /// Tells the tape of transactions that were made.
    #[cold]
    fn note_made(&mut self) {
        let made = self.ctx.core.txns.txns.take_made();
        if let Some(tape) = self.ctx.core.tape.as_ref().filter(|tape| tape.on()) {
            made.into_iter().for_each(|id| tape.note(Note::Txn(id)));
        }
    }

    /// Moves what is to be done into `out`.
    pub fn take_outputs(&mut self, out: &mut Vec<Output>) {
        let core = &mut self.ctx.core;
        if let Some(tape) = core.tape.as_ref().filter(|tape| tape.on()) {
            for output in &core.outputs {
                if let Output::Transmit { path, bytes } = output {
                    tape.note(Note::Sent { path, bytes });
                }
            }
        }
        out.append(&mut core.outputs);
    }

    /// For whoever plays a recording back: what the generator is now, and the ids of the transactions that the next step
    /// makes.
    pub fn prepare(&mut self, rng: u64, txns: impl IntoIterator<Item = transaction::TxnId>) {
        let core = &mut self.ctx.core;
        core.rng = Rng(rng);
        core.txns.txns.expect(txns);
    }

    /// When [`Input::Timer`] is due, if nothing else comes before; `None`: never. Of transactions it may be up to
    /// 16 ms late, so that one wake serves several.
    pub fn next_deadline(&self) -> Option<Instant> {
        let core = &self.ctx.core;
        let txns = core.txns.next_deadline().map(|at| Instant(at.0.next_multiple_of(TXN_TICK_MS)));
        match (core.timers.next(), txns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Nothing is open: no transaction that still matters, no suspended script, nothing that has to be saved; at the end
    /// of the server, no branch either that has to hear of it.
    pub fn idle(&self) -> bool {
        let core = &self.ctx.core;
        let calls = match self.life {
            Life::Serving => core.txns.open(),
            Life::Farewell => core.txns.txns.pending_branches(),
            Life::LastWrites => 0,
        };
        calls == 0 && core.tasks.iter().all(|task| !task.live || task.at_end == AtEnd::Drops)
    }

    /// Transactions and suspended scripts: what most memory is for.
    pub fn held(&self) -> usize {
        let core = &self.ctx.core;
        core.txns.txns.len() + core.tasks.len() - core.free_tasks.len()
    }

    /// For tests and the management side of the driver.
    pub fn ctx(&mut self) -> &mut Ctx {
        &mut self.ctx
    }

    fn start(&mut self) {
        let ctx = &mut self.ctx;
        let shared = ctx.core.shared.clone();
        let started = (ctx.core.worker == 0).then(|| Hold(Rc::new(Started(ctx.core.spawner.clone()))));
        ctx.local::<Starting>().0 = started.clone();
        for hook in &shared.hooks.start {
            hook(ctx);
        }
        ctx.local::<Starting>().0 = None;
        for at in 0..shared.hooks.worker_timers.len() {
            arm_hook(ctx, |hooks| &hooks.worker_timers, at);
        }
        if ctx.core.worker != 0 {
            return;
        }
        for at in 0..shared.hooks.timers.len() {
            arm_hook(ctx, |hooks| &hooks.timers, at);
        }
        let program = shared.program();
        for (route, seconds) in program.timers() {
            ctx.arm_route(route, seconds);
        }
        if let Some(route) = program.route(RouteKind::Startup, None) {
            let mut state = detached_state(ctx, route, RouteKind::Startup);
            state.vars = shared.initial_vars.as_slice().into();
            state.after = After::Then(Box::new(|ctx, state, _| {
                let _started = started;
                let values: Vec<script::Value> = state.vars.to_vec();
                let _ = ctx.core.shared.first_vars.set(values);
            }));
            ctx.run(state);
        }
    }
}

/// A tape hears of an input, and of what is asked for until what this gives is dropped.
#[cold]
fn on_tape(tape: &Rc<dyn Tape>, core: &Core, input: &Input) -> tape::Entered {
    if tape.on() {
        let step = match input {
            Input::Message { source, bytes } => Step::Message { source, bytes, excess: None },
            Input::Excess { source, bytes, lateness } => {
                Step::Message { source, bytes, excess: Some(*lateness) }
            }
            Input::Undeliverable { path, bytes } => Step::Undeliverable { path, bytes },
            Input::Resume(task, _) => Step::Resume(*task),
            Input::Timer => Step::Timer,
            Input::Run(_) => Step::Run,
            Input::Drain => Step::Drain,
            Input::End => Step::End,
        };
        tape.step(Moment { now: core.now.0, wall_us: core.wall_us, rng: core.rng.0 }, step);
    }
    tape::enter(tape, Bytes::new())
}

fn take(ctx: &mut Ctx, input: Input) {
    match input {
        Input::Message { source, bytes } => on_message(ctx, source, bytes),
        Input::Excess { source, bytes, lateness } => {
            if !tm::overload::refused(ctx, source, &bytes, lateness) {
                on_message(ctx, source, bytes);
            }
        }
        Input::Undeliverable { path, bytes } => tm::on_undeliverable(ctx, path, bytes),
        Input::Resume(task, finish) => ctx.resume(task, finish),
        Input::Timer => on_timers(ctx),
        Input::Run(job) => job(ctx),
        Input::Drain => ctx.core.draining = true,
        Input::End => {
            ctx.core.draining = true;
            tm::end_all(ctx);
            ctx.drop_scripts();
        }
    }
}

fn on_timers(ctx: &mut Ctx) {
    tm::on_timer(ctx, TIMERS_PER_STEP);
    let now = ctx.core.now;
    for _ in 0..TIMERS_PER_STEP {
        let Some(due) = ctx.core.timers.pop(now) else { break };
        let _ = ctx.catch(|ctx| match due {
            Due::Task(id) => ctx.task_due(id),
            Due::Route(route) => timer_route(ctx, route),
            Due::Trying(txn) => tm::trying_due(ctx, txn),
            Due::Job(job) => job(ctx),
        });
    }
}

/// A timer of a module: every so many milliseconds.
fn arm_hook(ctx: &mut Ctx, list: fn(&Hooks) -> &Vec<(u64, Hook)>, at: usize) {
    let Some((ms, _)) = list(&ctx.core.shared.hooks).get(at) else { return };
    ctx.after((*ms).max(1), move |ctx| {
        arm_hook(ctx, list, at);
        let hook = list(&ctx.core.shared.hooks)[at].1.clone();
        hook(ctx);
    });
}

/// Keeps the workers from taking SIP messages while it is held (`Ctx::hold_start`).
#[derive(Clone)]
pub struct Hold(#[allow(dead_code)] Rc<Started>);

/// The start is going on.
#[derive(Default)]
struct Starting(Option<Hold>);

impl Ctx {
    /// For what a module must have done before the first message comes (reading back what was stored): messages wait
    /// until this is dropped. `None`: not on worker 0, or not within `start`.
    pub fn hold_start(&mut self) -> Option<Hold> {
        self.local::<Starting>().0.clone()
    }
}

/// Says that SIP messages may come when startup_route has ended, whatever way it went, and nobody holds them.
struct Started(Rc<dyn Spawn>);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.started();
    }
}

fn timer_route(ctx: &mut Ctx, route: script::RouteId) {
    // While the server ends nothing new begins.
    if ctx.core.draining {
        return;
    }
    let timers = ctx.core.shared.program().timers();
    // A reload may have taken it away.
    let Some((_, seconds)) = timers.into_iter().find(|(r, _)| *r == route) else { return };
    ctx.arm_route(route, seconds);
    let state = detached_state(ctx, route, RouteKind::Timer);
    ctx.run(state);
}

fn shared_seed(shared: &Arc<Shared>) -> u64 {
    shared.tag_secret.hash_one(0x7478_6e73_u32)
}

fn dummy_state(shared: &Arc<Shared>, now: Instant) -> Box<MsgState> {
    MsgState::new(
        dummy_message(),
        nowhere(),
        now,
        RouteKind::Startup,
        Task::new(shared.program(), script::RouteId(0)),
    )
}

/// `;alias` in the topmost Via (RFC 5923): requests to the Via's port take this connection.
fn accept_alias(ctx: &Ctx, msg: &Message, source: &Path) {
    let Some(via) = msg.via().filter(|via| via.params.has(b"alias")) else { return };
    let port = if via.port == 0 { source.transport.default_port() } else { via.port };
    if let Some(connections) = ctx.core.txns.streams.connections() {
        connections.alias(source.connection_id(), port);
    }
}

fn on_message(ctx: &mut Ctx, source: Path, bytes: Bytes) {
    if ctx.core.observers.is_some() {
        ctx.tell_message(Way::In, &source, &bytes);
    }
    let bytes = ctx.tapped(Wire::Received, None, source, bytes);
    let msg = match Message::parse(bytes) {
        Ok(msg) => Rc::new(msg),
        Err(ParseError::KeepAlive) => return,
        Err(error) => {
            ctx.core.traffic.bad.up();
            crate::info!("core", "dropped a message from {} that is not SIP: {error}", source.remote);
            return;
        }
    };
    if !msg.is_request() {
        ctx.core.traffic.replies.up();
        return tm::on_reply(ctx, msg, source);
    }
    ctx.core.traffic.requests.up();
    if source.is_reliable() && ctx.core.txns.streams.rules.accept_aliases {
        accept_alias(ctx, &msg, &source);
    }
    // Its bytes only: whoever changes the message need not make a copy of it.
    let known = msg.buf().clone();
    if ctx.catch(|ctx| on_request(ctx, msg, source)).is_err()
        && let Ok(msg) = Message::parse(known)
    {
        tm::defect::request_broke(ctx, &Rc::new(msg), source);
    }
}

fn on_request(ctx: &mut Ctx, msg: Rc<Message>, source: Path) {
    let program = ctx.core.shared.program();
    let of_errors = program.route(RouteKind::Error, None);
    let unreadable = of_errors.and_then(|_| crate::vars::error::look_over(&msg));
    let of_errors = of_errors.filter(|_| unreadable.is_some());
    let of = if of_errors.is_some() && msg.answerable().is_err() {
        // No transaction can know it; error_route may look at it all the same.
        ctx.core.traffic.bad.up();
        None
    } else {
        let Admit::Run(of) = tm::admit(ctx, &msg, source) else { return };
        of
    };
    let Some(route) = of_errors.or_else(|| program.route(RouteKind::Request, None)) else { return };
    let task = Task::new(program, route);
    let mut state = MsgState::new(msg, source, ctx.core.now, RouteKind::Request, task);
    state.after = After::Request;
    // What startup_route left in `$var`s is where every script begins.
    let shared = &ctx.core.shared;
    let first = shared.first_vars.get().unwrap_or(&shared.initial_vars);
    state.vars = first.as_slice().into();
    if let Some(error) = unreadable {
        crate::vars::error::note_in(&mut state, error);
    }
    tm::request_in(ctx, state, of);
}
