//! One worker on a desk: messages go in by hand, time passes when told, and what comes out is looked
//! at. For tests that want every step.

use crate::executor::Executor;
use crate::module;
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

pub struct Desk {
    pub worker: Worker,
    pub executor: Executor,
    now: u64,
    sent: Vec<Sent>,
}

impl Desk {
    /// `script`: the whole configuration. `slow(ms, rc)` waits on the virtual clock.
    pub fn new(script: &str) -> Desk {
        let shared = crate::world::load(script, 1).unwrap_or_else(|error| panic!("{error}"));
        let executor = Executor::new(7);
        module::use_clock(&executor);
        let worker = Worker::new(Arc::new(shared), 0, 1, 1, Rc::new(executor.clone()), Clock::default());
        let mut desk = Desk { worker, executor, now: 0, sent: Vec::new() };
        desk.collect();
        desk
    }

    fn clock(&self) -> Clock {
        Clock { now: Instant(self.now), wall_us: self.now * 1000 }
    }

    pub fn input(&mut self, input: Input) {
        module::use_clock(&self.executor);
        let clock = self.clock();
        self.worker.step(clock, input);
        self.collect();
        self.settle();
    }

    fn collect(&mut self) {
        let mut outputs = Vec::new();
        self.worker.take_outputs(&mut outputs);
        for output in outputs {
            if let Output::Transmit { path, bytes } = output {
                self.sent.push(Sent { to: path.remote, bytes });
            }
        }
    }

    /// Hands on what operations have finished by now.
    fn settle(&mut self) {
        loop {
            let done = self.executor.poll(self.now);
            if done.is_empty() {
                return;
            }
            for (task, finish) in done {
                let clock = self.clock();
                self.worker.step(clock, Input::Resume(task, finish));
                self.collect();
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
        let source = Path { socket: 0, transport: sip::Transport::Udp, remote, connection: 0 };
        self.input(Input::Message { source, bytes });
    }

    /// Time passes, timer by timer.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let worker = self.worker.next_deadline().map(|at| at.0);
            let next = worker.into_iter().chain(self.executor.next_wake()).min();
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
