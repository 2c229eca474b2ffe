//! One worker thread: feeds a `host::Worker` from its sockets, its mailbox and the clock, and carries
//! out what it wants done.

mod mail;
mod overload;

use crate::mailbox::{Letter, Post};
use crate::streams::{Common, OwnerOf, peer};
use bytes::Bytes;
use host::call::Finish;
use host::ctx::{Later, Resolved, Spawn, TaskId};
use host::stats::Counter;
use host::worker::Clock;
use host::{Input, Output, Shared, Worker};
use net::dns::{DnsCache, DnsOptions, Lookup, Query, Record, RecordKind, Resolver};
use net::streams::Streams;
use net::tcp::BoundTcp;
use net::{BoundUdp, Datagram, Outgoing, RECV_BATCH, RecvArena, UdpSocket};
use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use transaction::Path;

pub use overload::Delay;

/// Messages of connections after which datagrams are looked for.
const STREAMED: usize = 32;

/// How often it is looked whether a crowd has gone.
const LULL: Duration = Duration::from_secs(2);
/// Fewer transactions and suspended scripts are no crowd.
const CROWD: usize = 1_000;

/// What a worker thread is started with.
pub struct Setup {
    pub shared: Arc<Shared>,
    pub index: u16,
    pub seed: u64,
    /// One for each of `Shared::sockets`.
    pub sockets: Vec<Bound>,
    pub streams: Common,
    pub post: Arc<Post>,
    pub dns: DnsOptions,
    pub cache: DnsCache,
    /// Zero of the workers' clock.
    pub epoch: Instant,
}

/// A socket that has no runtime yet.
pub enum Bound {
    Udp(BoundUdp),
    Stream(BoundTcp),
}

/// Runs a worker until it is told to stop. The body of its thread.
pub fn run(setup: Setup) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (post, index) = (setup.post.clone(), setup.index);
    let result = LocalSet::new().block_on(&runtime, async move {
        let runner = Runner::new(setup)?;
        runner.serve().await;
        Ok(())
    });
    if let Err(e) = &result {
        host::error!("core", "worker {index} cannot run: {e}");
        post.main.tell(|told| told.shut_down = Some(255));
    }
    // Futures that still run are dropped with the runtime, without waiting for blocking ones.
    runtime.shutdown_background();
    post.main.tell(|told| told.ended += 1);
    result
}

pub struct Runner {
    worker: RefCell<Worker>,
    pub shared: Arc<Shared>,
    index: usize,
    /// `None` where connections are listened for.
    sockets: Vec<Option<UdpSocket>>,
    streams: Rc<Streams>,
    arena: RefCell<RecvArena>,
    /// Messages of connections since datagrams were looked for.
    streamed: Cell<usize>,
    post: Arc<Post>,
    /// Messages of other workers' calls, by worker, while a batch is looked at.
    letters: RefCell<Vec<Vec<Letter>>>,
    outputs: RefCell<Vec<Output>>,
    /// What goes out next, by socket.
    sends: RefCell<Vec<Vec<Outgoing>>>,
    /// Some future changed the worker: outputs wait.
    dirty: Notify,
    /// The deadline came nearer than `armed`.
    rearm: Notify,
    armed: Cell<u64>,
    epoch: Instant,
    draining: Cell<bool>,
    /// Sockets with datagrams that wait for room.
    blocked: Notify,
    last_complaint: Cell<u64>,
    /// `exec_msg_threshold`: a step that takes longer is worth a log line.
    patience: Option<Duration>,
    /// Statistic: messages that found a full mailbox.
    lost: Counter,
    /// Statistic: messages that came to another worker than their call's.
    handed_over: Counter,
    overload: overload::Overload,
}

impl Runner {
    fn new(setup: Setup) -> std::io::Result<Rc<Runner>> {
        let Setup { shared, index, seed, sockets: bound, streams, post, dns, cache, epoch } = setup;
        let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
        for (at, socket) in bound.into_iter().enumerate() {
            sockets.push(match socket {
                Bound::Udp(socket) => Some(socket.open()?),
                Bound::Stream(socket) => {
                    listeners.push((at as u16, socket.open()?));
                    None
                }
            });
        }
        let patience = |us: i64| u64::try_from(us).ok().filter(|us| *us > 0).map(Duration::from_micros);
        let core = &shared.globals.core;
        let (patience, dns_patience) = (patience(core.exec_msg_threshold), patience(core.exec_dns_threshold));
        let resolver = Resolver::new(dns, cache);
        let spawner = Spawner {
            runner: Rc::default(),
            post: post.clone(),
            resolver,
            dns_patience,
            starts: Rc::default(),
        };
        let lost = shared.stats.counter("net", "mailbox_dropped");
        let handed_over = shared.stats.counter("net", "mailbox_messages");
        let overload = overload::Overload::new(&shared, &post, index);
        let workers = post.boxes.len();
        let worker =
            Worker::new(shared.clone(), index, workers as u16, seed, Rc::new(spawner.clone()), clock(epoch));
        let Common { directory, sockets: stream_sockets, settings } = streams;
        let runner = Rc::new_cyclic(|weak| Runner {
            shared,
            streams: Streams::new(
                index,
                directory,
                stream_sockets,
                settings,
                epoch,
                Rc::new(OwnerOf(Weak::clone(weak))),
            ),
            worker: RefCell::new(worker),
            index: index.into(),
            arena: RefCell::default(),
            streamed: Cell::new(0),
            letters: RefCell::new((0..workers).map(|_| Vec::new()).collect()),
            outputs: RefCell::default(),
            sends: RefCell::new(sockets.iter().map(|_| Vec::new()).collect()),
            sockets,
            post,
            dirty: Notify::new(),
            rearm: Notify::new(),
            armed: Cell::new(u64::MAX),
            epoch,
            draining: Cell::new(false),
            blocked: Notify::new(),
            last_complaint: Cell::new(0),
            patience,
            lost,
            handed_over,
            overload,
        });
        let _ = spawner.runner.set(Rc::downgrade(&runner));
        for (socket, listener) in listeners {
            let runner = runner.clone();
            spawn_local(async move {
                runner.until_started().await;
                runner.streams.clone().listen(socket, listener).await;
            });
        }
        Ok(runner)
    }

    /// Everything a worker does, until it is told to stop.
    async fn serve(self: &Rc<Self>) {
        self.finish();
        for socket in 0..self.sockets.len() {
            if self.sockets[socket].is_some() {
                spawn_local(self.clone().receive(socket));
            }
        }
        spawn_local(self.clone().keep_time());
        spawn_local(self.clone().send_late());
        spawn_local(self.clone().unblock());
        spawn_local(self.clone().give_back_memory());
        loop {
            let mail = self.post.boxes[self.index].take().await;
            let stop = mail.stop;
            self.on_mail(mail).await;
            if stop {
                break;
            }
        }
    }

    /// What comes before startup_route has ended stays with the kernel.
    async fn until_started(&self) {
        let _ = self.post.started.subscribe().wait_for(|started| *started).await;
    }

    async fn receive(self: Rc<Self>, index: usize) {
        let Some(socket) = &self.sockets[index] else { return };
        self.until_started().await;
        let mut batch = Vec::new();
        loop {
            match socket.recv_batch(&self.arena, &mut batch).await {
                Ok(received) => {
                    self.on_datagrams(index as u16, &mut batch);
                    // Others have their turn, also while datagrams come faster than they are served.
                    if received == RECV_BATCH {
                        tokio::task::yield_now().await;
                    }
                }
                Err(e) => {
                    self.complain(&format!("cannot receive on {}: {e}", socket.local()));
                    // A socket that keeps failing must not keep the others from being served.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn on_datagrams(self: &Rc<Self>, socket: u16, batch: &mut Vec<Datagram>) {
        self.streamed.set(0);
        let clock = clock(self.epoch);
        let mut letters = self.letters.borrow_mut();
        let udp = self.sockets[usize::from(socket)].as_ref();
        let wildcard = udp.is_some_and(|s| s.local().ip().is_unspecified());
        self.note_wait(clock, batch.last().map_or(0, |d| d.at_us), udp.map_or(0, UdpSocket::take_lost));
        for Datagram { bytes, remote, local, at_us } in batch.drain(..) {
            let local = if wildcard { self.shared.note_local(local.ip()) } else { 0 };
            let source = Path { socket, transport: sip::Transport::Udp, remote, local, connection: 0 };
            self.sort(clock, source, bytes, at_us, &mut letters);
        }
        self.deliver(&mut letters);
        drop(letters);
        self.finish();
    }

    /// Messages of a stream connection.
    pub fn on_messages(self: &Rc<Self>, source: Path, messages: &mut Vec<Bytes>, at_us: u64) {
        let clock = clock(self.epoch);
        self.note_wait(clock, at_us, 0);
        let mut letters = self.letters.borrow_mut();
        self.streamed.set(self.streamed.get() + messages.len());
        for bytes in messages.drain(..) {
            self.sort(clock, source, bytes, at_us, &mut letters);
        }
        self.deliver(&mut letters);
        drop(letters);
        self.finish();
        if self.streamed.get() >= STREAMED {
            self.look_for_datagrams();
        }
    }

    /// Datagrams come before the next messages of connections, however many connections are in haste.
    fn look_for_datagrams(self: &Rc<Self>) {
        self.streamed.set(0);
        if !*self.post.started.borrow() {
            return;
        }
        let mut batch = Vec::new();
        for (index, socket) in self.sockets.iter().enumerate() {
            // An error shows again where the socket is waited for.
            if socket
                .as_ref()
                .is_some_and(|s| s.try_recv_batch(&mut self.arena.borrow_mut(), &mut batch).is_ok())
            {
                self.on_datagrams(index as u16, &mut batch);
            }
        }
    }

    /// Some worker has more messages to look at than it should.
    pub fn is_busy(&self) -> bool {
        self.post.boxes.iter().any(|mailbox| mailbox.is_crowded())
    }

    /// A message goes to the worker that owns its call, a reply to the one that sent its request.
    fn sort(&self, clock: Clock, source: Path, bytes: Bytes, at_us: u64, letters: &mut [Vec<Letter>]) {
        match host::owner::receiver(&self.shared, &bytes, letters.len()) {
            Some(worker) if worker != self.index => {
                // The mailbox knows ages also where the socket does not.
                let at_us = if at_us == 0 { clock.wall_us } else { at_us };
                letters[worker].push(Letter { source, bytes, at_us });
            }
            _ => self.step(clock, self.overload.input(clock, source, bytes, at_us)),
        }
    }

    fn deliver(&self, letters: &mut [Vec<Letter>]) {
        for (mailbox, letters) in self.post.boxes.iter().zip(letters.iter_mut()) {
            if !letters.is_empty() {
                self.handed_over.add(letters.len() as i64);
            }
            let lost = mailbox.deliver(letters);
            if lost > 0 {
                self.lost.add(lost as i64);
                self.complain("a worker is overloaded: messages for it are lost");
            }
        }
    }

    /// A message for a connection of another worker.
    pub fn pass_on(&self, worker: usize, letter: Letter) {
        let Some(mailbox) = self.post.boxes.get(worker) else { return };
        if mailbox.pass_on(letter).is_err() {
            self.lost.add(1);
            self.complain("a worker is overloaded: messages for its connections are lost");
        }
    }

    /// These could not be sent: the worker that sent them hears of it.
    pub fn on_undelivered(&self, path: Path, messages: Vec<Bytes>) {
        let clock = clock(self.epoch);
        for bytes in messages {
            let workers = self.post.boxes.len();
            let sender = host::owner::sender(&bytes, workers).unwrap_or(self.index);
            if sender == self.index {
                self.step(clock, Input::Undeliverable { path, bytes });
            } else if self.post.boxes[sender].undelivered(Letter { source: path, bytes, at_us: 0 }).is_err() {
                self.lost.add(1);
            }
        }
        self.finish();
    }

    /// An event that nothing in a script began.
    pub fn raise(&self, name: &'static str, params: host::events::EventParams) {
        let job = Box::new(move |ctx: &mut host::Ctx| host::events::raise(ctx, name, params));
        self.step(clock(self.epoch), Input::Run(job));
        self.dirty.notify_one();
    }

    fn step(&self, clock: Clock, input: Input) {
        let started = self.patience.map(|limit| (limit, Instant::now()));
        self.worker.borrow_mut().step(clock, input);
        if let Some((limit, started)) = started
            && started.elapsed() > limit
        {
            host::warn!("core", "one step of a script took {} us", started.elapsed().as_micros());
        }
    }

    /// After one or more steps: sends what the worker wants sent, and looks at its next deadline.
    fn finish(&self) {
        let mut outputs = self.outputs.borrow_mut();
        let next = {
            let mut worker = self.worker.borrow_mut();
            worker.take_outputs(&mut outputs);
            if self.draining.get() && worker.idle() {
                self.draining.set(false);
                self.post.main.tell(|told| told.idle += 1);
            }
            worker.next_deadline().map_or(u64::MAX, |at| at.0)
        };
        if next < self.armed.get() {
            self.rearm.notify_one();
        }
        if outputs.is_empty() {
            return;
        }
        let mut sends = self.sends.borrow_mut();
        for output in outputs.drain(..) {
            match output {
                Output::Transmit { path, bytes } if path.is_reliable() => {
                    self.streams.send(peer(&self.shared, &path), bytes);
                }
                Output::Transmit { path, bytes } => match sends.get_mut(usize::from(path.socket)) {
                    Some(list) => list.push(Outgoing {
                        bytes,
                        remote: path.remote,
                        source: self.shared.local_address(path.local),
                    }),
                    None => self.complain(&format!("there is no socket to send to {} from", path.remote)),
                },
                Output::Shutdown { code } => self.post.main.tell(|told| told.shut_down = Some(code)),
            }
        }
        for (at, (socket, batch)) in self.sockets.iter().zip(sends.iter_mut()).enumerate() {
            if !batch.is_empty() {
                self.send(at as u16, socket.as_ref(), batch);
                batch.clear();
            }
        }
    }

    fn send(&self, number: u16, socket: Option<&UdpSocket>, batch: &[Outgoing]) {
        let Some(socket) = socket else {
            return self.complain(&format!("cannot send to {}: no UDP socket", batch[0].remote));
        };
        let report = socket.send_batch(batch);
        for (at, e) in &report.failed {
            let Outgoing { bytes, remote, .. } = &batch[*at];
            self.complain(&format!("cannot send to {remote} from {}: {e}", socket.local()));
            // Too large for a datagram: trying again does not help, and whoever sent it is told.
            if e.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) {
                let source = Path {
                    socket: number,
                    transport: sip::Transport::Udp,
                    remote: *remote,
                    local: 0,
                    connection: 0,
                };
                let letter = Letter { source, bytes: bytes.clone(), at_us: 0 };
                if self.post.boxes[self.index].undelivered(letter).is_err() {
                    self.lost.add(1);
                }
            }
        }
        if report.queued > 0 {
            self.blocked.notify_one();
        }
        if report.overflowed > 0 {
            self.complain(&format!("{}: send buffer and queue are full, datagrams are lost", socket.local()));
        }
    }

    /// Sends what futures left: one batch for all that were ready together.
    async fn send_late(self: Rc<Self>) {
        loop {
            self.dirty.notified().await;
            self.finish();
        }
    }

    /// Sends what waits for room in a socket's buffer.
    async fn unblock(self: Rc<Self>) {
        loop {
            self.blocked.notified().await;
            for socket in self.sockets.iter().flatten() {
                if let Err(e) = socket.flush().await {
                    self.complain(&format!("cannot send from {}: {e}", socket.local()));
                }
            }
        }
    }

    /// One timer for everything the worker waits for.
    async fn keep_time(self: Rc<Self>) {
        loop {
            let next = self.worker.borrow().next_deadline();
            self.armed.set(next.map_or(u64::MAX, |at| at.0));
            match next {
                None => self.rearm.notified().await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until((self.epoch + Duration::from_millis(at.0)).into()) => {
                        self.step(clock(self.epoch), Input::Timer);
                        self.finish();
                        // Sockets and mail have their turn before what is left of a crowd.
                        tokio::task::yield_now().await;
                    }
                    () = self.rearm.notified() => {}
                },
            }
        }
    }

    /// The system gets back what a crowd has needed, when it has gone.
    async fn give_back_memory(self: Rc<Self>) {
        let mut most = 0;
        loop {
            tokio::time::sleep(LULL).await;
            let held = self.worker.borrow().held();
            if most > CROWD && held < most / 2 {
                net::process::give_back_memory();
                most = held;
            }
            most = most.max(held);
        }
    }

    /// Logs, at most once a second: a dead network would fill the disk.
    pub fn complain(&self, text: &str) {
        let second = self.epoch.elapsed().as_secs() + 1;
        if self.last_complaint.replace(second) != second {
            host::error!("core", "{text}");
        }
    }
}

/// Both clocks, read once for a batch.
fn clock(epoch: Instant) -> Clock {
    Clock { now: transaction::Instant(epoch.elapsed().as_millis() as u64), wall_us: wall_us() }
}

/// Microseconds since 1970.
fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Runs the futures of suspended scripts on this thread.
#[derive(Clone)]
struct Spawner {
    runner: Rc<OnceCell<Weak<Runner>>>,
    post: Arc<Post>,
    resolver: Resolver,
    /// `exec_dns_threshold`: a look-up that takes longer is worth a log line.
    dns_patience: Option<Duration>,
    starts: Rc<RefCell<Starts>>,
}

/// Where routes start from, as the system said not long ago.
#[derive(Default)]
struct Starts {
    asked: Option<Instant>,
    known: std::collections::HashMap<IpAddr, Option<IpAddr>>,
}

impl Starts {
    /// Routes change seldom, and then new ones are wanted soon.
    const FRESH: Duration = Duration::from_secs(1);
    const MAX: usize = 4096;

    fn of(&mut self, remote: IpAddr) -> Option<IpAddr> {
        let old = self.asked.is_none_or(|asked| asked.elapsed() > Starts::FRESH);
        if old || self.known.len() >= Starts::MAX {
            self.known.clear();
            self.asked = Some(Instant::now());
        }
        *self.known.entry(remote).or_insert_with(|| net::source_for(remote))
    }
}

impl Spawn for Spawner {
    fn spawn(&self, task: TaskId, future: Pin<Box<dyn Future<Output = Finish>>>) -> Box<dyn Any> {
        let spawner = self.clone();
        let handle = spawn_local(async move {
            let finish = future.await;
            if let Some(runner) = spawner.runner.get().and_then(Weak::upgrade) {
                runner.step(clock(runner.epoch), Input::Resume(task, finish));
                runner.dirty.notify_one();
            }
        });
        Box::new(AbortOnDrop(handle))
    }

    fn started(&self) {
        self.post.started.send_replace(true);
    }

    fn resolve(&self, query: Query) -> Resolved {
        let host = self.dns_patience.map(|_| query.host.clone()).unwrap_or_default();
        match self.resolver.lookup(query) {
            Lookup::Now(answer) => Resolved::Now(answer),
            Lookup::Later(answer) => match self.dns_patience {
                None => Resolved::Later(Box::pin(answer)),
                Some(limit) => Resolved::Later(Box::pin(async move {
                    let started = Instant::now();
                    let found = answer.await;
                    if started.elapsed() > limit {
                        host::warn!("core", "looking up {host} took {} us", started.elapsed().as_micros());
                    }
                    found
                })),
            },
        }
    }

    fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        self.starts.borrow_mut().of(remote)
    }

    fn records(&self, name: String, kind: RecordKind) -> Later<Vec<Record>> {
        Box::pin(self.resolver.records(name, kind))
    }

    fn known_names(&self) -> Vec<sip::names::KnownName> {
        self.resolver.known()
    }

    fn forget_names(&self) {
        self.resolver.forget();
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
