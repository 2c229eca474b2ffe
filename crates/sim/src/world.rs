//! Agents, network and workers around one queue of what happens when.

mod answers;

use crate::agent::{CALLER, SERVER, Timer, Wishes, text};
use crate::callee::Callee;
use crate::caller::{CallKind, Caller};
use crate::chaos::{self, Trouble};
use crate::executor::Executor;
use crate::kept::Kept;
use crate::network::Network;
use crate::post::Post;
use crate::scenarios::Scenario;
use crate::{Report, module};
use answers::{Finals, Order};
use bytes::Bytes;
use capture::story::{Entry, Record, What};
use host::ctx::Rng;
use host::worker::Clock;
use host::{Input, Output, Worker};
use script::{Options, Severity, Sources};
use sip::{Message, Transport};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use transaction::{Instant, Path};

/// Who a timer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Caller,
    Callee(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Bytes,
    },
    Timer(Who, Timer),
    /// Something reaches the mailbox of a worker; its number.
    Mail(usize, u64),
    Trouble(Trouble),
    /// The server is told to end.
    Drain,
    /// The time to end is over for this worker.
    End(usize),
}

/// Nothing that this world does lasts longer, in virtual milliseconds.
const LIMIT: u64 = 600_000;

/// So long after everything has ended nothing may be left, in virtual milliseconds.
const REST: u64 = 90_000;

/// How long a job takes to another worker, in virtual milliseconds.
const MAIL_DELAY: u64 = 1;

pub struct World {
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events: u64,
    rng: Rng,
    network: Network,
    shared: Arc<host::Shared>,
    workers: Vec<Worker>,
    executors: Vec<Executor>,
    post: Arc<Post>,
    /// What is on its way to a worker, by number.
    mail: HashMap<u64, Input>,
    script: String,
    reloads: u32,
    /// Only with `chaos`: percent of messages on streams that cannot be sent.
    breaks: u64,
    /// Milliseconds that the clock of the day is ahead.
    ahead: i64,
    /// Until when each worker stands still.
    stalled: Vec<u64>,
    overload: u64,
    /// When a stream between two ends brings the last message that is on its way: nothing overtakes there.
    streams: HashMap<(SocketAddr, SocketAddr), u64>,
    /// Timers that each worker has from the start.
    timers: Vec<usize>,
    caller: Caller,
    callees: Vec<Callee>,
    orders: HashMap<String, Order>,
    /// By Call-ID.
    finals: HashMap<String, Finals>,
    /// Calls whose INVITE has come to the server, and the worker that they belong to.
    asked: HashMap<String, usize>,
    report: Report,
    problems: Vec<String>,
    trace: bool,
    seen: Option<Rc<RefCell<Record>>>,
}

pub(crate) fn load(script: &str, seed: u64) -> Result<host::Shared, String> {
    load_at(script, seed, 0, None)
}

/// The same for a server that starts at this time, with a database that is there already.
pub(crate) fn load_at(
    script: &str,
    seed: u64,
    wall_ms: u64,
    kept: Option<&Kept>,
) -> Result<host::Shared, String> {
    let mut sources = Sources::default();
    let (config, problems) = script::parse_text("sim.cfg", script, &mut sources, Options::default());
    let errors = |sources: &Sources, list: &[script::Diagnostic]| -> String {
        list.iter().filter(|d| d.severity == Severity::Error).map(|d| sources.render(d)).collect()
    };
    let found = errors(&sources, &problems);
    if !found.is_empty() {
        return Err(found);
    }
    let loaded = host::load_with(&config, sources, module::all(), wall_ms, seed, |loader| {
        if let Some(kept) = kept.cloned() {
            loader.databases_instead(Arc::new(move |module| kept.driver(module)));
        }
    });
    loaded.map_err(|(sources, list)| errors(&sources, &list))
}

impl World {
    /// `seen`: where what happens is written down.
    pub fn new(scenario: &Scenario, seed: u64, seen: Option<Rc<RefCell<Record>>>) -> World {
        let mut rng = Rng(seed ^ 0x5eed_0f5e_55a1_0000);
        rng.next_u64();
        let shared =
            load(&scenario.script(), seed | 1).unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
        let shared = Arc::new(shared);
        let count = 1 + rng.below(3) as u16;
        let post = Post::new(count.into());
        let _ = shared.dispatch.set(post.clone());
        let executors: Vec<Executor> = (0..count).map(|_| Executor::new(rng.next_u64())).collect();
        let workers = executors.iter().enumerate().map(|(i, executor)| {
            module::use_clock(executor);
            Worker::new(
                shared.clone(),
                i as u16,
                count,
                rng.next_u64(),
                Rc::new(executor.clone()),
                Clock::default(),
            )
        });
        let mut workers: Vec<Worker> = workers.collect();
        let timers = workers.iter_mut().map(|worker| worker.ctx().core.timers.len()).collect();
        let calls = 1 + rng.below(8) as usize;
        let caller = Caller::new(&mut rng, calls, scenario.targets, scenario.others);
        let callees = (3..6).map(|n| Callee::new(&mut rng, n)).collect();
        let network = Network::new(&mut rng);
        let mut world = World {
            shared,
            now: 0,
            queue: BinaryHeap::new(),
            events: 0,
            network,
            workers,
            executors,
            post,
            mail: HashMap::new(),
            script: scenario.script(),
            reloads: 0,
            breaks: 0,
            ahead: 0,
            stalled: vec![0; count.into()],
            overload: 0,
            streams: HashMap::new(),
            timers,
            caller,
            callees,
            orders: HashMap::new(),
            finals: HashMap::new(),
            asked: HashMap::new(),
            report: Report { calls, ..Report::default() },
            problems: Vec::new(),
            trace: std::env::var_os("SIM_TRACE").is_some(),
            seen,
            rng,
        };
        world.columns();
        if scenario.chaos {
            world.breaks = [0, 0, 5, 20][world.rng.below(4) as usize];
            for (at, trouble) in chaos::troubles(&mut world.rng, count.into()) {
                world.at(at, Event::Trouble(trouble));
            }
        }
        let mut wishes = Wishes::default();
        world.caller.begin(&mut wishes);
        world.grant(Who::Caller, CALLER.into(), wishes);
        if scenario.drains {
            let at = world.rng.below(30_000);
            world.at(at, Event::Drain);
            if scenario.ends {
                let at = at + world.rng.below(20_000);
                (0..count.into()).for_each(|worker| world.at(at, Event::End(worker)));
            }
        }
        world.flush();
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }

    fn grant(&mut self, who: Who, from: SocketAddr, wishes: Wishes) {
        for (at, timer) in wishes.timers {
            self.at(at.max(self.now), Event::Timer(who, timer));
        }
        for (to, bytes) in wishes.send {
            let way = if self.is_streamed(&bytes) { Transport::Tcp } else { Transport::Udp };
            self.carry(from, to, bytes, way);
        }
    }

    /// A reply goes by the transport of the Via that it answers; agents send requests as datagrams.
    fn is_streamed(&self, bytes: &Bytes) -> bool {
        let reply = Message::looks_like_reply(bytes).then(|| Message::parse(bytes.clone()).ok()).flatten();
        reply.is_some_and(|reply| reply.via().and_then(|via| via.transport()) == Some(Transport::Tcp))
    }

    fn carry(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes, way: Transport) {
        self.report.datagrams += 1;
        for byte in bytes.iter().chain(&self.now.to_be_bytes()) {
            self.report.fingerprint =
                (self.report.fingerprint ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut delays = self.network.carry(&mut self.rng, from, to, &bytes);
        if way != Transport::Udp {
            let last = self.streams.entry((from, to)).or_default();
            *last = (self.now + delays.first().copied().unwrap_or(1)).max(*last);
            delays = vec![*last - self.now];
        }
        self.write(from, to, &bytes, delays.is_empty());
        if self.trace {
            let text = text(&bytes);
            let first = text.lines().next().unwrap_or_default();
            let id = text.lines().find(|l| l.starts_with("Call-ID")).unwrap_or_default();
            let fate = if delays.is_empty() { " LOST" } else { "" };
            eprintln!("{:>8} {} -> {} {first} {id}{fate}", self.now, from.ip(), to.ip());
        }
        for delay in delays {
            self.at(self.now + delay, Event::Arrives { from, to, bytes: bytes.clone() });
        }
    }

    /// Columns of the ladder.
    fn columns(&self) {
        if let Some(seen) = &self.seen {
            let names = ["caller", "server"].map(str::to_owned).into_iter();
            seen.borrow_mut().columns =
                names.chain(self.callees.iter().map(|callee| callee.name.clone())).collect();
        }
    }

    fn write(&self, from: SocketAddr, to: SocketAddr, bytes: &Bytes, lost: bool) {
        let Some(seen) = &self.seen else { return };
        let column = |end: SocketAddr| match end {
            end if end == SocketAddr::from(CALLER) => Some(0),
            end if end == SocketAddr::from(SERVER) => Some(1),
            end => self.callees.iter().position(|callee| callee.address == end).map(|n| n + 2),
        };
        let text = text(bytes);
        let first = text.lines().next().unwrap_or_default().trim_start_matches("SIP/2.0 ");
        let first = if first.starts_with(char::is_numeric) {
            first
        } else {
            first.split(' ').next().unwrap_or_default()
        };
        let call = text.lines().find_map(|line| line.strip_prefix("Call-ID: ")).unwrap_or_default();
        let text = format!("{first} {}", call.split('@').next().unwrap_or_default());
        let what = What::Message { from: column(from), to: column(to), text, full: Bytes::new(), lost };
        seen.borrow_mut().entries.push(Entry { at: self.now, call: Bytes::new(), what });
    }

    fn note(&self, text: &str) {
        if self.trace {
            eprintln!("{:>8} {text}", self.now);
        }
        if let Some(seen) = &self.seen {
            let what = What::Note(text.to_owned());
            seen.borrow_mut().entries.push(Entry { at: self.now, call: Bytes::new(), what });
        }
    }

    /// Until nothing is left to happen.
    pub fn play(&mut self) {
        let mut quiet = u64::MAX;
        while let Some(at) = self.next() {
            if at > LIMIT {
                self.problems.push("it does not end".into());
                return;
            }
            self.now = self.now.max(at);
            self.wake_executors();
            self.wake_workers();
            if self.queue.is_empty()
                && self.workers.iter_mut().all(|worker| worker.ctx().txn_ids().count() == 0)
            {
                // Timers of modules and of the script go on for ever.
                quiet = quiet.min(self.now);
                if self.now >= quiet.saturating_add(REST) && self.is_quiet() {
                    break;
                }
            } else {
                quiet = u64::MAX;
            }
            while let Some(Reverse((at, _, _))) = self.queue.peek()
                && *at <= self.now
            {
                let Some(Reverse((_, _, event))) = self.queue.pop() else { break };
                self.happen(event);
            }
        }
        self.report.lasted = self.now;
    }

    fn next(&self) -> Option<u64> {
        let queue = self.queue.peek().map(|Reverse((at, _, _))| *at);
        let awake = |(at, until): (Option<u64>, &u64)| at.map(|at| at.max(*until));
        let workers = self.workers.iter().map(|w| w.next_deadline().map(|at| at.0));
        let workers = workers.zip(&self.stalled).filter_map(awake);
        let executors = self.executors.iter().map(Executor::next_wake).zip(&self.stalled).filter_map(awake);
        queue.into_iter().chain(workers).chain(executors).min()
    }

    fn clock(&self) -> Clock {
        let ms = (self.now as i64).saturating_add(self.ahead).max(0);
        Clock { now: Instant(self.now), wall_us: ms as u64 * 1000 }
    }

    fn is_stalled(&self, worker: usize) -> bool {
        self.now < self.stalled[worker]
    }

    /// Nothing is open and nothing on its way.
    fn is_quiet(&self) -> bool {
        self.queue.is_empty()
            && self.workers.iter().all(Worker::idle)
            && self.executors.iter().all(Executor::is_idle)
    }

    fn step(&mut self, worker: usize, input: Input) {
        module::use_clock(&self.executors[worker]);
        let clock = self.clock();
        self.workers[worker].step(clock, input);
        self.flush();
    }

    fn wake_executors(&mut self) {
        for worker in
            (0..self.workers.len()).filter(|worker| self.now >= self.stalled[*worker]).collect::<Vec<_>>()
        {
            for (task, finish) in self.executors[worker].poll(self.now) {
                self.step(worker, Input::Resume(task, finish));
            }
        }
    }

    fn wake_workers(&mut self) {
        for worker in 0..self.workers.len() {
            if self.workers[worker].next_deadline().is_some_and(|at| at.0 <= self.now)
                && !self.is_stalled(worker)
            {
                self.step(worker, Input::Timer);
            }
        }
    }

    fn flush(&mut self) {
        let mut outputs = Vec::new();
        for worker in &mut self.workers {
            worker.take_outputs(&mut outputs);
        }
        for output in outputs {
            if let Output::Transmit { path, bytes } = output {
                if path.is_reliable() && self.rng.below(100) < self.breaks {
                    let worker = host::owner::sender(&bytes, self.workers.len()).unwrap_or(0);
                    self.note(&format!("cannot be sent to {}", path.remote));
                    let callee = self.callees.iter_mut().find(|callee| callee.address == path.remote);
                    if let (Some(callee), Ok(msg)) = (callee, Message::parse(bytes.clone())) {
                        callee.cannot_hear(&msg);
                    }
                    self.post_to(worker, Input::Undeliverable { path, bytes });
                    continue;
                }
                self.watch_leaving(&bytes);
                self.carry(SERVER.into(), path.remote, bytes, path.transport);
            }
        }
        for (worker, job) in self.post.take() {
            self.post_to(worker, Input::Run(job));
        }
    }

    /// Mailboxes keep the order of each sender: all take equally long.
    fn post_to(&mut self, worker: usize, input: Input) {
        self.at(self.now + MAIL_DELAY, Event::Mail(worker, self.events));
        self.mail.insert(self.events - 1, input);
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.note(&trouble.to_string());
        match trouble {
            Trouble::Outage(ms) => self.executors.iter().for_each(|all| all.fail_until(self.now + ms)),
            Trouble::Jump(ms) => self.ahead += ms,
            Trouble::Stall { worker, ms } => self.stalled[worker] = self.stalled[worker].max(self.now + ms),
            Trouble::Overload(ms) => self.overload = self.now + ms,
            Trouble::Reload => {
                let mut sources = (*self.shared.sources()).clone();
                self.reloads += 1;
                let script = self.other_script();
                let (mut config, _) =
                    script::parse_text("sim.cfg", &script, &mut sources, Options::default());
                if host::reload::reload(&self.shared, &mut config, sources).is_err() {
                    self.problems.push("the script cannot be read again".into());
                }
            }
        }
    }

    /// Another route in front of the others, which tell their number by a header; every third time the first script again.
    fn other_script(&self) -> String {
        match self.reloads {
            n if n % 3 == 0 => self.script.clone(),
            n => {
                let routes = self
                    .script
                    .replace("route[more] {", &format!("route[more] {{ append_hf(\"X-Script: {n}\\r\\n\");"));
                routes.replacen("route {", &format!("route[new{n}] {{ slow(); }}\nroute {{"), 1)
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Drain => {
                self.note("the server is told to end");
                (0..self.workers.len()).for_each(|worker| self.step(worker, Input::Drain));
            }
            Event::End(worker) if self.is_stalled(worker) => self.at(self.stalled[worker], event),
            Event::End(worker) => self.end(worker),
            Event::Trouble(trouble) => self.trouble(trouble),
            Event::Mail(worker, _) if self.is_stalled(worker) => self.at(self.stalled[worker], event),
            Event::Mail(worker, number) => {
                if let Some(input) = self.mail.remove(&number) {
                    self.step(worker, input);
                }
            }
            Event::Timer(who, timer) => {
                let mut wishes = Wishes::default();
                let from = match who {
                    Who::Caller => {
                        self.caller.on_timer(self.now, timer, &mut wishes);
                        CALLER.into()
                    }
                    Who::Callee(n) => {
                        self.callees[n].on_timer(self.now, timer, &mut wishes);
                        self.callees[n].address
                    }
                };
                self.grant(who, from, wishes);
            }
            Event::Arrives { from, to, bytes } if to == SocketAddr::from(SERVER) => {
                let worker = host::owner::receiver(&self.shared, &bytes, self.workers.len()).unwrap_or(0);
                if self.is_stalled(worker) {
                    return self.at(self.stalled[worker], Event::Arrives { from, to, bytes });
                }
                self.watch_coming(worker, &bytes);
                let source = match self.is_streamed(&bytes) {
                    true => {
                        Path { socket: 1, transport: Transport::Tcp, remote: from, local: 0, connection: 1 }
                    }
                    false => {
                        Path { socket: 0, transport: Transport::Udp, remote: from, local: 0, connection: 0 }
                    }
                };
                let input = match self.now < self.overload {
                    true => Input::Excess { source, bytes, lateness: chaos::lateness(&mut self.rng) },
                    false => Input::Message { source, bytes },
                };
                self.step(worker, input);
            }
            Event::Arrives { from, to, bytes } => {
                let Ok(msg) = Message::parse(bytes) else {
                    self.problems.push("the server sent what is no SIP message".into());
                    return;
                };
                let mut wishes = Wishes::default();
                if to == SocketAddr::from(CALLER) {
                    self.caller.on_message(self.now, &msg, &mut wishes);
                    self.grant(Who::Caller, to, wishes);
                } else if let Some(n) = self.callees.iter().position(|c| c.address == to) {
                    self.callees[n].on_message(self.now, from, msg, &mut wishes);
                    self.grant(Who::Callee(n), to, wishes);
                }
            }
        }
    }

    /// What was recorded, where the script has a recorder.
    pub fn recording(&self) -> Option<Vec<u8>> {
        let rings = self.shared.module::<capture::recorder::Rings>()?;
        Some(rings.written(&self.shared))
    }

    /// Everything that may never happen.
    pub fn verdict(mut self) -> Result<Report, String> {
        let mut problems = std::mem::take(&mut self.problems);
        self.caller.complain(&mut problems);
        for callee in &self.callees {
            callee.complain(|id, tag| self.caller.has_answer(id, tag), &mut problems);
        }
        for (who, order) in &self.orders {
            let position = |n: &u64| order.came.iter().position(|c| c == n);
            let positions: Vec<_> = order.left.iter().map(|(n, _)| position(n)).collect();
            let after_final = order.left.windows(2).any(|pair| pair[0].1 >= 200 && pair[1].1 < 200);
            if !positions.is_sorted() || after_final {
                problems
                    .push(format!("replies of {who} came as {:?} and left as {:?}", order.came, order.left));
            }
        }
        for (i, worker) in self.workers.iter_mut().enumerate() {
            let (txns, idle) = (worker.ctx().txn_ids().count(), worker.idle());
            let tasks = worker.ctx().core.tasks.iter().filter(|t| t.live).count();
            if txns > 0 || tasks > 0 || !idle {
                problems
                    .push(format!("worker {i} is left with {txns} transactions and {tasks} waiting scripts"));
            }
            let timers = worker.ctx().core.timers.len();
            if timers > self.timers[i] {
                problems.push(format!("worker {i} is left with {} more timers", timers - self.timers[i]));
            }
            if !worker.ctx().core.tasks_of.is_empty() {
                problems.push(format!("worker {i} remembers tasks of transactions that are gone"));
            }
            if !self.executors[i].is_idle() {
                problems.push(format!("worker {i} left operations running"));
            }
        }
        for name in ["dialog:active_dialogs", "dialog:early_dialogs"] {
            if let Some(left @ 1..) = self.shared.stats.value(name) {
                problems.push(format!("{name} is {left} in the end"));
            }
        }
        for call in self.caller.calls.iter().filter(|c| c.kind == CallKind::Invite) {
            for class in
                call.finals.iter().map(|(status, _)| usize::from(status / 100)).collect::<HashSet<_>>()
            {
                self.report.finals[class.min(6)] += 1;
            }
        }
        match problems.is_empty() {
            true => Ok(self.report),
            false => Err(problems.join("\n")),
        }
    }
}
