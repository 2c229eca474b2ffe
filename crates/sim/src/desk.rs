//! Workers on a desk: messages go in by hand, time passes when told, and what comes out is looked
//! at. For tests that want every step.

use crate::executor::Executor;
use crate::kept::Kept;
use crate::module;
use crate::post::Post;
use bytes::Bytes;
use host::worker::Clock;
use host::{Input, Output, Worker};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use transaction::{Instant, Path};

/// A datagram that the worker sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub to: SocketAddr,
    pub bytes: Bytes,
}

impl Sent {
    /// "10.0.0.2 SIP/2.0 200 OK", "10.0.0.3 INVITE"
    pub fn summary(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let first = text.lines().next().unwrap_or_default();
        let what =
            if first.starts_with("SIP/2.0") { first } else { first.split(' ').next().unwrap_or_default() };
        format!("{} {what}", self.to.ip())
    }
}

/// One worker on a desk, or several with their mailboxes.
pub struct Desk {
    shared: Arc<host::Shared>,
    workers: Vec<Worker>,
    executors: Vec<Executor>,
    post: Arc<Post>,
    now: u64,
    sent: Vec<Sent>,
    /// What it is started from, again after it was killed.
    script: String,
    kept: Option<Kept>,
    lives: u64,
}

impl Desk {
    /// `script`: the whole configuration. `slow(ms, rc)` waits on the virtual clock.
    pub fn new(script: &str) -> Desk {
        Desk::with_workers(script, 1)
    }

    pub fn with_workers(script: &str, count: u16) -> Desk {
        Desk::start(script, count, None, 0, 0)
    }

    /// Whatever driver the script loads, its databases are this one.
    pub fn with_database(script: &str, count: u16, kept: Kept) -> Desk {
        Desk::start(script, count, Some(kept), 0, 0)
    }

    /// The server is killed, without a word to anybody, and started again at once: what is not in its database is gone.
    pub fn restart(&mut self) {
        let (count, kept) = (self.workers.len() as u16, self.kept.clone());
        *self = Desk::start(&self.script, count, kept, self.now, self.lives + 1);
        self.settle();
    }

    fn start(script: &str, count: u16, kept: Option<Kept>, now: u64, lives: u64) -> Desk {
        let seed = 1 + lives * 1000;
        let loaded = crate::world::load_at(script, seed, now, kept.as_ref());
        let shared = Arc::new(loaded.unwrap_or_else(|error| panic!("{error}")));
        let post = Post::new(count.into());
        let _ = shared.dispatch.set(post.clone());
        let executors: Vec<Executor> = (0..count).map(|n| Executor::new(seed + 6 + u64::from(n))).collect();
        let clock = Clock { now: Instant(now), wall_us: now * 1000 };
        let worker = |(n, executor): (usize, &Executor)| {
            module::use_clock(executor);
            executor.poll(now);
            let spawner = Rc::new(executor.clone());
            Worker::new(shared.clone(), n as u16, count, seed + n as u64, spawner, clock)
        };
        let workers = executors.iter().enumerate().map(worker).collect();
        let (script, sent) = (script.to_owned(), Vec::new());
        let mut desk =
            Desk { shared: shared.clone(), workers, executors, post, now, sent, script, kept, lives };
        desk.collect();
        desk
    }

    /// The first worker.
    pub fn worker(&mut self) -> &mut Worker {
        &mut self.workers[0]
    }

    /// All workers.
    pub fn workers(&mut self) -> &mut [Worker] {
        &mut self.workers
    }

    /// Nothing is open, nothing waits, no operation runs.
    pub fn is_idle(&self) -> bool {
        self.workers.iter().all(Worker::idle) && self.executors.iter().all(Executor::is_idle)
    }

    /// No operation of a script runs.
    pub fn has_no_operations(&self) -> bool {
        self.executors.iter().all(Executor::is_idle)
    }

    fn clock(&self) -> Clock {
        Clock { now: Instant(self.now), wall_us: self.now * 1000 }
    }

    /// For all workers when it concerns none of them in particular, else for the first.
    pub fn input(&mut self, input: Input) {
        match input {
            Input::Timer => (0..self.workers.len()).for_each(|worker| self.step(worker, Input::Timer)),
            Input::Drain => (0..self.workers.len()).for_each(|worker| self.step(worker, Input::Drain)),
            input => self.step(0, input),
        }
        self.settle();
    }

    fn step(&mut self, worker: usize, input: Input) {
        module::use_clock(&self.executors[worker]);
        let clock = self.clock();
        self.workers[worker].step(clock, input);
        self.collect();
    }

    fn collect(&mut self) {
        let mut outputs = Vec::new();
        for worker in &mut self.workers {
            worker.take_outputs(&mut outputs);
        }
        for output in outputs {
            if let Output::Transmit { path, bytes } = output {
                self.sent.push(Sent { to: path.remote, bytes });
            }
        }
    }

    /// Hands on what operations have finished by now, and the mail.
    fn settle(&mut self) {
        loop {
            let mut more = false;
            for worker in 0..self.workers.len() {
                for (task, finish) in self.executors[worker].poll(self.now) {
                    more = true;
                    self.step(worker, Input::Resume(task, finish));
                }
            }
            for (worker, job) in self.post.take() {
                more = true;
                self.step(worker, Input::Run(job));
            }
            if !more {
                return;
            }
        }
    }

    /// A datagram from 10.0.0.`from`; line ends are made CRLF.
    pub fn receive(&mut self, from: u8, text: &str) {
        let bytes = Bytes::from(text.replace("\r\n", "\n").replace('\n', "\r\n"));
        self.receive_bytes(from, bytes);
    }

    pub fn receive_bytes(&mut self, from: u8, bytes: Bytes) {
        let remote = SocketAddr::from(([10, 0, 0, from], 5060));
        let source = Path { socket: 0, transport: sip::Transport::Udp, remote, local: 0, connection: 0 };
        let worker = host::owner::receiver(&self.shared, &bytes, self.workers.len()).unwrap_or(0);
        self.step(worker, Input::Message { source, bytes });
        self.settle();
    }

    /// Time passes, timer by timer.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let workers = self.workers.iter().filter_map(|worker| worker.next_deadline().map(|at| at.0));
            let next = workers.chain(self.executors.iter().filter_map(Executor::next_wake)).min();
            match next {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.settle();
                    self.input(Input::Timer);
                }
                _ => break,
            }
        }
        self.now = end;
        self.collect();
        self.settle();
    }

    /// Time passes, and the worker gets one turn, which need not be enough for all that is due.
    pub fn one_turn_after(&mut self, ms: u64) {
        self.now += ms;
        self.input(Input::Timer);
    }

    /// What was sent since the last time.
    pub fn sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// The same, in short.
    pub fn summaries(&mut self) -> Vec<String> {
        self.sent().iter().map(Sent::summary).collect()
    }
}
