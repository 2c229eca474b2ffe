//! Agents, network and workers around one queue of what happens when.

use crate::agent::{CALLER, SERVER, Timer, Wishes, text, value};
use crate::callee::Callee;
use crate::caller::{Caller, Kind, is_invite_reply, sequence};
use crate::executor::Executor;
use crate::network::Network;
use crate::post::{Job, Post};
use crate::scenarios::Scenario;
use crate::{Report, module};
use bytes::Bytes;
use host::ctx::Rng;
use host::worker::Clock;
use host::{Input, Output, Worker};
use script::{Options, Severity, Sources};
use sip::{HeaderName, Message, Transport};
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
    /// A job reaches the mailbox of a worker; its number.
    Mail(usize, u64),
    /// The server is told to end.
    Drain,
}

/// Nothing that this world does lasts longer, in virtual milliseconds.
const LIMIT: u64 = 600_000;

/// How long a job takes to another worker, in virtual milliseconds.
const MAIL_DELAY: u64 = 1;

/// Order of replies of one callee's branch, as they came to the server and as they left it.
#[derive(Default)]
struct Order {
    came: Vec<u64>,
    left: Vec<(u64, u16)>,
}

/// Final replies to an INVITE that have left the server.
#[derive(Default)]
struct Finals {
    good: bool,
    bad: bool,
}

pub struct World {
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events: u64,
    rng: Rng,
    network: Network,
    workers: Vec<Worker>,
    executors: Vec<Executor>,
    post: Arc<Post>,
    /// Jobs on their way, by number.
    mail: HashMap<u64, Job>,
    caller: Caller,
    callees: Vec<Callee>,
    orders: HashMap<String, Order>,
    /// By Call-ID.
    finals: HashMap<String, Finals>,
    report: Report,
    problems: Vec<String>,
    trace: bool,
}

pub(crate) fn load(script: &str, seed: u64) -> Result<host::Shared, String> {
    let mut sources = Sources::default();
    let (config, problems) = script::parse_text("sim.cfg", script, &mut sources, Options::default());
    let errors = |sources: &Sources, list: &[script::Diagnostic]| -> String {
        list.iter().filter(|d| d.severity == Severity::Error).map(|d| sources.render(d)).collect()
    };
    let found = errors(&sources, &problems);
    if !found.is_empty() {
        return Err(found);
    }
    host::load(&config, sources, module::all(), 0, seed).map_err(|(sources, list)| errors(&sources, &list))
}

impl World {
    pub fn new(scenario: &Scenario, seed: u64) -> World {
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
        let workers: Vec<Worker> = workers.collect();
        let calls = 1 + rng.below(8) as usize;
        let caller = Caller::new(&mut rng, calls, scenario.targets, scenario.others);
        let callees = (3..6).map(|n| Callee::new(&mut rng, n)).collect();
        let network = Network::new(&mut rng);
        let mut world = World {
            now: 0,
            queue: BinaryHeap::new(),
            events: 0,
            network,
            workers,
            executors,
            post,
            mail: HashMap::new(),
            caller,
            callees,
            orders: HashMap::new(),
            finals: HashMap::new(),
            report: Report { calls, ..Report::default() },
            problems: Vec::new(),
            trace: std::env::var_os("SIM_TRACE").is_some(),
            rng,
        };
        let mut wishes = Wishes::default();
        world.caller.begin(&mut wishes);
        world.grant(Who::Caller, CALLER.into(), wishes);
        if scenario.drains {
            let at = world.rng.below(30_000);
            world.at(at, Event::Drain);
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
            self.carry(from, to, bytes);
        }
    }

    fn carry(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        self.report.datagrams += 1;
        for byte in bytes.iter().chain(&self.now.to_be_bytes()) {
            self.report.fingerprint =
                (self.report.fingerprint ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let delays = self.network.carry(&mut self.rng, from, to, &bytes);
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

    /// Until nothing is left to happen.
    pub fn play(&mut self) {
        while let Some(at) = self.next() {
            if at > LIMIT {
                self.problems.push("it does not end".into());
                return;
            }
            self.now = self.now.max(at);
            self.wake_executors();
            self.wake_workers();
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
        let workers = self.workers.iter().filter_map(|w| w.next_deadline().map(|at| at.0));
        let executors = self.executors.iter().filter_map(Executor::next_wake);
        queue.into_iter().chain(workers).chain(executors).min()
    }

    fn clock(&self) -> Clock {
        Clock { now: Instant(self.now), wall_us: self.now * 1000 }
    }

    fn step(&mut self, worker: usize, input: Input) {
        module::use_clock(&self.executors[worker]);
        let clock = self.clock();
        self.workers[worker].step(clock, input);
        self.flush();
    }

    fn wake_executors(&mut self) {
        for worker in 0..self.workers.len() {
            for (task, finish) in self.executors[worker].poll(self.now) {
                self.step(worker, Input::Resume(task, finish));
            }
        }
    }

    fn wake_workers(&mut self) {
        for worker in 0..self.workers.len() {
            if self.workers[worker].next_deadline().is_some_and(|at| at.0 <= self.now) {
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
                self.watch_leaving(&bytes);
                self.carry(SERVER.into(), path.remote, bytes);
            }
        }
        for (worker, job) in self.post.take() {
            // Mailboxes keep the order of each sender: all take equally long.
            self.at(self.now + MAIL_DELAY, Event::Mail(worker, self.events));
            self.mail.insert(self.events - 1, job);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Drain => (0..self.workers.len()).for_each(|worker| self.step(worker, Input::Drain)),
            Event::Mail(worker, number) => {
                if let Some(job) = self.mail.remove(&number) {
                    self.step(worker, Input::Run(job));
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
                self.watch_coming(&bytes);
                let worker = host::owner::receiver(&bytes, self.workers.len()).unwrap_or(0);
                let source =
                    Path { socket: 0, transport: Transport::Udp, remote: from, local: 0, connection: 0 };
                self.step(worker, Input::Message { source, bytes });
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

    fn watch_coming(&mut self, bytes: &Bytes) {
        let Ok(msg) = Message::parse(bytes.clone()) else { return };
        if let (true, Some((who, n))) = (is_invite_reply(&msg), sequence(&msg)) {
            let order = self.orders.entry(who).or_default();
            if !order.came.contains(&n) {
                order.came.push(n);
            }
        }
    }

    fn watch_leaving(&mut self, bytes: &Bytes) {
        let Ok(msg) = Message::parse(bytes.clone()) else { return };
        if !is_invite_reply(&msg) {
            return;
        }
        self.watch_final(&msg);
        if let Some((who, n)) = sequence(&msg) {
            let order = self.orders.entry(who).or_default();
            if !order.left.iter().any(|(known, _)| *known == n) {
                order.left.push((n, msg.status()));
            }
        }
    }

    /// A 2xx may follow a negative reply (RFC 3261 §16.7 step 5), never the other way round.
    fn watch_final(&mut self, msg: &Message) {
        let call = value(msg, HeaderName::CallId);
        let finals = self.finals.entry(call).or_default();
        match msg.status() {
            0..200 => {}
            200..300 => finals.good = true,
            status => {
                if finals.good && !finals.bad {
                    let call = value(msg, HeaderName::CallId);
                    self.problems.push(format!("{status} left after a 2xx to the INVITE of {call}"));
                }
                finals.bad = true;
            }
        }
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
            let (txns, idle) = (worker.ctx().core.txns.txns.len(), worker.idle());
            let tasks = worker.ctx().core.tasks.iter().filter(|t| t.live).count();
            if txns > 0 || tasks > 0 || !idle {
                problems
                    .push(format!("worker {i} is left with {txns} transactions and {tasks} waiting scripts"));
            }
            if !worker.ctx().core.tasks_of.is_empty() {
                problems.push(format!("worker {i} remembers tasks of transactions that are gone"));
            }
            if !self.executors[i].is_idle() {
                problems.push(format!("worker {i} left operations running"));
            }
        }
        for call in self.caller.calls.iter().filter(|c| c.kind == Kind::Invite) {
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
