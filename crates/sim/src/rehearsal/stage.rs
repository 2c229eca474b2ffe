//! One scenario being played: the real worker between parties, a network and a clock that only scenarios move.

use super::party::{Party, Repeat, Wishes};
use super::plan::Scenario;
use super::scene::{Scene, Spawner, Stand};
use super::tables::{self, StandIn};
use crate::network::Network;
use crate::post::Post;
use bytes::Bytes;
use capture::story::What as Seen;
use host::ctx::Rng;
use host::listen::{ListenHost, ListenSpec};
use host::worker::Clock;
use host::{Input, Output, Shared, Worker};
use net::dns::Naptr;
use script::ast::{Config, Global, GlobalValue};
use script::{Options, Probes, Severity, Sources};
use sip::{Message, Transport};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use transaction::Instant;

/// Steps of the worker at one moment; more is a script that runs in a circle.
const MAX_TURNS: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives { from: SocketAddr, to: SocketAddr, bytes: Bytes },
    Repeat(usize, Repeat),
}

pub struct Stage {
    now: u64,
    start_us: u64,
    worker: Worker,
    shared: Arc<Shared>,
    post: Arc<Post>,
    pub parties: Vec<Party>,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events: u64,
    network: Network,
    rng: Rng,
    pub scene: Rc<Scene>,
    /// Modules that start tasks of their own find a runtime; it has no network.
    _runtime: Runtime,
}

struct Runtime {
    // Dropped in this order.
    _tasks: tokio::task::LocalEnterGuard,
    _local: Rc<tokio::task::LocalSet>,
}

/// Loads a script with stand-ins for everything outside. The error is what a user should read.
pub fn load(
    script: &Path,
    listen: &[String],
    server: IpAddr,
    wall_ms: u64,
    seed: u64,
) -> Result<Shared, String> {
    let mut sources = Sources::default();
    let mut read = |path: &str| std::fs::read(path);
    let name = script.to_string_lossy();
    let (mut config, problems) = script::parse_file(&name, &mut read, &mut sources, Options::default());
    let errors = |sources: &Sources, list: &[script::Diagnostic]| -> String {
        list.iter().filter(|d| d.severity == Severity::Error).map(|d| sources.render(d)).collect()
    };
    let found = errors(&sources, &problems);
    if !found.is_empty() {
        return Err(found);
    }
    listen_on(&mut config, listen, server)?;
    let loaded = host::load_with(&config, sources, catalog::all(), wall_ms, seed, |loader| {
        loader.probes = Probes::Statements;
        loader.databases_instead(Arc::new(|module| Arc::new(StandIn(module))));
        loader.stores_instead(Arc::new(tables::engine));
    });
    let shared = loaded.map_err(|(sources, list)| errors(&sources, &list))?;
    let _ = shared.outside.set(Arc::new(Stand));
    Ok(shared)
}

/// Sockets as the scenario has them: `listen` instead of the script's own, and the address of the server where they name
/// an interface, a host or all addresses.
fn listen_on(config: &mut Config, listen: &[String], server: IpAddr) -> Result<(), String> {
    let mut written: Vec<(String, script::Loc)> =
        listen.iter().map(|text| (text.clone(), script::Loc::default())).collect();
    config.globals.retain(|global| {
        let is_socket = matches!(&global.name[..], b"socket" | b"listen");
        if let (true, GlobalValue::Word(text) | GlobalValue::Text(text)) = (is_socket, &global.value)
            && listen.is_empty()
        {
            written.push((String::from_utf8_lossy(text).into_owned(), global.loc));
        }
        !is_socket
    });
    if written.is_empty() {
        written.push(("udp:*:5060".to_string(), script::Loc::default()));
    }
    for (text, loc) in written {
        let spec = ListenSpec::parse(&text).map_err(|e| format!("cannot listen on {text}: {e}"))?;
        let named = match &spec.host {
            ListenHost::Ip(_) => None,
            ListenHost::All => Some("*"),
            ListenHost::Name(name) => Some(name.as_str()),
        };
        let address = host::shared::bracketed(&server.to_string());
        let text = named.map_or(text.clone(), |named| text.replacen(named, &address, 1));
        config.globals.push(Global { name: "socket".into(), value: GlobalValue::Word(text.into()), loc });
    }
    Ok(())
}

impl Stage {
    /// Sets the scene and waits until startup_route has ended.
    pub fn new(scenario: &Scenario, shared: Shared, scene: Rc<Scene>, seed: u64) -> Result<Stage, String> {
        let shared = Arc::new(shared);
        let udp = shared.sockets.iter().find(|socket| socket.transport == Transport::Udp);
        let udp = udp.ok_or(
            "the script has no UDP socket, and parties speak nothing else: write `listen: udp:10.0.0.1:5060`",
        )?;
        let mut server = udp.addr;
        if udp.is_wildcard() {
            server.set_ip(scenario.setup.server);
        }
        shared.local_addresses.write().push(server.ip());
        {
            let mut dns = scene.dns.borrow_mut();
            dns.naptr = if shared.globals.core.dns_try_naptr { Naptr::Try } else { Naptr::Skip };
            let order = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
            dns.transports =
                order.into_iter().filter(|t| shared.sockets.iter().any(|s| s.transport == *t)).collect();
        }
        let post = Post::new(1);
        let _ = shared.dispatch.set(post.clone());
        let _ = shared.arguments.set(vec!["fermata".to_string()]);
        let start_us = scenario.setup.start.max(0) as u64 * 1_000_000;
        let clock = Clock { now: Instant(0), wall_us: start_us };
        let local = Rc::new(tokio::task::LocalSet::new());
        let runtime = Runtime { _tasks: local.enter(), _local: local };
        let worker = Worker::new(shared.clone(), 0, 1, seed, Rc::new(Spawner), clock);
        let parties: Vec<Party> =
            scenario.setup.parties.iter().map(|spec| Party::new(spec.clone(), server)).collect();
        let mut columns: Vec<String> = parties.iter().map(|party| party.spec.name.clone()).collect();
        columns.insert(columns.len().min(1), "server".to_string());
        scene.record.borrow_mut().columns = columns;
        let mut rng = Rng(seed);
        rng.next_u64();
        let network = Network::with(scenario.setup.network);
        let mut stage = Stage {
            now: 0,
            start_us,
            worker,
            shared,
            post,
            parties,
            queue: BinaryHeap::new(),
            events: 0,
            network,
            rng,
            scene,
            _runtime: runtime,
        };
        let started = |stage: &mut Stage| stage.scene.started.get().then_some(());
        stage.until(60_000, started)?.ok_or("startup_route does not end within 60 s")?;
        Ok(stage)
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    fn at(&mut self, at: u64, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }

    /// Column of an address.
    fn column(&self, addr: SocketAddr) -> Option<usize> {
        let party = self.parties.iter().position(|party| party.spec.address == addr);
        match party {
            // The server stands behind the first party.
            Some(0) => Some(0),
            Some(at) => Some(at + 1),
            None => self.socket(addr).map(|_| self.parties.len().min(1)),
        }
    }

    /// The socket of the server that takes what is sent to an address.
    fn socket(&self, addr: SocketAddr) -> Option<(u16, bool)> {
        let shared = self.shared.clone();
        let own = shared.local_addresses.read().contains(&addr.ip());
        let takes = |socket: &host::Listen| {
            let here = socket.addr.ip() == addr.ip() || (socket.is_wildcard() && own);
            socket.transport == Transport::Udp && socket.addr.port() == addr.port() && here
        };
        let at = shared.sockets.iter().position(takes)?;
        Some((at as u16, shared.sockets[at].is_wildcard()))
    }

    /// A party does something.
    pub fn grant(&mut self, party: usize, wishes: Wishes) {
        let from = self.parties[party].spec.address;
        for (to, bytes) in wishes.send {
            self.carry(from, to, bytes);
        }
        for (ms, repeat) in wishes.timers {
            self.at(self.now + ms, Event::Repeat(party, repeat));
        }
    }

    fn carry(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let delays = self.network.carry(&mut self.rng, from, to, &bytes);
        let (a, b) = (self.column(from), self.column(to));
        let text = super::message::first_line(&bytes);
        let text = if b.is_none() { format!("{text} to {to},") } else { text };
        self.scene.note(Seen::Message { from: a, to: b, text, full: bytes.clone(), lost: delays.is_empty() });
        for delay in delays {
            self.at(self.now + delay, Event::Arrives { from, to, bytes: bytes.clone() });
        }
    }

    fn clock(&self) -> Clock {
        Clock { now: Instant(self.now), wall_us: self.start_us + self.now * 1000 }
    }

    fn step(&mut self, input: Input) {
        let clock = self.clock();
        self.worker.step(clock, input);
        self.flush();
    }

    /// Does something on the worker.
    pub fn on_worker<T>(&mut self, work: impl FnOnce(&mut host::Ctx) -> T) -> T {
        let clock = self.clock();
        // The worker's own clock follows the stage's.
        self.worker.step(clock, Input::Run(Box::new(|_| {})));
        let result = work(self.worker.ctx());
        self.flush();
        result
    }

    fn flush(&mut self) {
        let mut outputs = Vec::new();
        self.worker.take_outputs(&mut outputs);
        let shared = self.shared.clone();
        for output in outputs {
            match output {
                Output::Transmit { path, bytes } if path.transport == Transport::Udp => {
                    let Some(socket) = shared.sockets.get(usize::from(path.socket)) else { continue };
                    let mut from = socket.addr;
                    if socket.is_wildcard() {
                        from.set_ip(shared.local_address(path.local).unwrap_or(self.scene.setup.server));
                    }
                    self.carry(from, path.remote, bytes);
                }
                Output::Transmit { path, bytes } => {
                    let text = super::message::first_line(&bytes);
                    let to = format!("{} {}", path.transport.as_str(), path.remote);
                    self.scene.say(format!("{text} to {to}: only UDP is simulated"));
                    self.step(Input::Undeliverable { path, bytes });
                }
                Output::Shutdown { code } => self.scene.say(format!("the server wants to end, code {code}")),
            }
        }
    }

    /// Everything that happens at this moment.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..MAX_TURNS {
            let mut more = false;
            for (task, finish) in self.scene.clock.clone().poll(self.now) {
                more = true;
                self.step(Input::Resume(task, finish));
            }
            for (_, job) in self.post.take() {
                more = true;
                self.step(Input::Run(job));
            }
            if self.worker.next_deadline().is_some_and(|at| at.0 <= self.now) {
                more = true;
                self.step(Input::Timer);
            }
            while let Some(Reverse((at, _, _))) = self.queue.peek()
                && *at <= self.now
            {
                let Some(Reverse((_, _, event))) = self.queue.pop() else { break };
                more = true;
                self.happen(event);
            }
            if !more {
                return Ok(());
            }
        }
        Err("the server does not come to rest: something runs in a circle".to_string())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Repeat(party, what) => {
                let wishes = self.parties[party].repeat(self.now, what);
                self.grant(party, wishes);
            }
            Event::Arrives { from, to, bytes } => {
                if let Some((socket, wildcard)) = self.socket(to) {
                    let local = if wildcard { self.shared.note_local(to.ip()) } else { 0 };
                    let source = transaction::Path {
                        socket,
                        transport: Transport::Udp,
                        remote: from,
                        local,
                        connection: 0,
                    };
                    self.step(Input::Message { source, bytes });
                } else if let Some(party) = self.parties.iter().position(|p| p.spec.address == to) {
                    match Message::parse(bytes) {
                        Ok(msg) => {
                            let wishes = self.parties[party].receive(self.now, from, msg);
                            self.grant(party, wishes);
                        }
                        Err(sip::ParseError::KeepAlive) => {}
                        Err(e) => self.scene.say(format!("what came to {} is no SIP message: {e}", to)),
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<u64> {
        let queue = self.queue.peek().map(|Reverse((at, _, _))| *at);
        let worker = self.worker.next_deadline().map(|at| at.0);
        let operations = self.scene.clock.next_wake();
        queue.into_iter().chain(worker).chain(operations).min()
    }

    /// Lets time pass until something is there, at most so many milliseconds.
    pub fn until<T>(
        &mut self,
        ms: u64,
        mut there: impl FnMut(&mut Stage) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let end = self.now + ms;
        loop {
            self.settle()?;
            if let Some(found) = there(self) {
                return Ok(Some(found));
            }
            match self.next().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None if self.now >= end => return Ok(None),
                None => self.now = end,
            }
            self.scene.now.set(self.now);
        }
    }

    /// Lets this much time pass.
    pub fn pass(&mut self, ms: u64) -> Result<(), String> {
        self.until(ms, |_| None::<()>).map(drop)
    }
}
