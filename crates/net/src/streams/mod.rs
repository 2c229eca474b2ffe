//! Stream connections (TCP, TLS, WebSocket) of one worker.
//!
//! ```text
//! listener ─ accept ─┐                       ┌─► messages ─► Owner::received
//!                    ├─► Conn (one task) ────┤
//! send ─ connect ────┘   reads, writes,      └─► its end ──► Owner::closed, Owner::undelivered
//!                        deadlines
//! ```
//!
//! A connection belongs to the worker that accepted or made it, for its whole life. The [`Directory`] is
//! what workers share: who owns which connection and by which addresses it is found. A message for a
//! connection of another worker goes there through [`Owner::pass_on`].
//!
//! Nothing waits: connecting and handshakes queue messages, a full queue gives them back.

mod conn;
mod directory;

use crate::link::{Link, LinkError, LinkSetup};
use crate::tcp::{self, TcpOptions};
use ahash::AHashMap;
use bytes::Bytes;
use conn::{Conn, Sent};
use futures_util::FutureExt;
use sip::Transport;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

pub use directory::{Counters, Direction, Directory, Entry, Open, owner_of};
use directory::{Way, up};

/// Bytes of one read; shared by all connections of a worker. What one connection brings at a time, before all others and
/// the datagrams have their turn.
const BUFFER: usize = 16 * 1024;
/// Messages of one read after which others have their turn at once.
const HASTE: usize = 4;
/// Pause of a connection whose messages the workers cannot take now.
const PAUSE: Duration = Duration::from_millis(1);

/// Limits of connections; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `tcp_connection_lifetime`: an idle connection ends.
    pub lifetime: u64,
    /// `tcp_max_msg_time`: a message must be complete.
    pub message: u64,
    /// TLS and WebSocket handshakes must be over.
    pub handshake: u64,
    /// What we write must make progress.
    pub stall: u64,
    /// `tcp_async_max_postponed_chunks`: messages that may wait for one connection.
    pub queue: usize,
    /// Bytes of messages that may wait for all connections together, when more than one waits for a connection.
    pub queue_bytes: usize,
    /// `tcp_max_connections`: accepted ones, of all workers.
    pub max_accepted: usize,
    pub tcp: TcpOptions,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lifetime: 120_000,
            message: 4_000,
            handshake: 10_000,
            stall: 10_000,
            queue: 256,
            queue_bytes: 64 << 20,
            max_accepted: 2048,
            tcp: TcpOptions::default(),
        }
    }
}

/// A listening socket, as its connections need it.
#[derive(Clone)]
pub struct Socket {
    pub transport: Transport,
    pub local: SocketAddr,
    pub link: LinkSetup,
}

/// The other end of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    pub socket: u16,
    pub transport: Transport,
    pub remote: SocketAddr,
    /// The address of this machine, for a socket that is bound to all of them.
    pub local: Option<IpAddr>,
    /// 0: whichever leads to `remote`.
    pub connection: u64,
    pub open: Open,
    /// What the script chose for TLS, 0 nothing.
    pub hint: u32,
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Closed {
    #[error("closed by the peer")]
    ByPeer,
    #[error("nothing was sent or received for too long")]
    Idle,
    #[error("too slow")]
    Slow,
    #[error("{0}")]
    Bad(LinkError),
    #[error("{0}")]
    Error(io::ErrorKind),
    #[error("cannot connect: {0}")]
    Unreachable(io::ErrorKind),
    #[error("closed from here")]
    Here,
    #[error("a defect in the server (see stderr)")]
    Defect,
}

impl From<LinkError> for Closed {
    fn from(error: LinkError) -> Closed {
        match error {
            LinkError::Closed => Closed::ByPeer,
            other => Closed::Bad(other),
        }
    }
}

/// Who uses the connections: the worker. Never called from within [`Streams::send`].
pub trait Owner {
    /// Messages of one connection, in order; takes them out. `at_us`: when the last of them came, microseconds since 1970,
    /// 0: not known.
    fn received(&self, from: Peer, messages: &mut Vec<Bytes>, at_us: u64);
    /// Workers have no room for more messages of connections: these wait in their peers' buffers.
    fn is_busy(&self) -> bool;
    /// These could not be sent.
    fn undelivered(&self, to: Peer, messages: Vec<Bytes>);
    /// The connection is another worker's.
    fn pass_on(&self, worker: u16, to: Peer, message: Bytes);
    fn closed(&self, entry: &Entry, why: &Closed);
    /// Something for the log.
    fn complain(&self, text: &str);
}

/// The connections of one worker.
pub struct Streams {
    worker: u16,
    directory: Arc<Directory>,
    sockets: Vec<Option<Socket>>,
    settings: Settings,
    table: RefCell<AHashMap<u64, Rc<Conn>>>,
    buffer: RefCell<Vec<u8>>,
    epoch: Instant,
    owner: Rc<dyn Owner>,
}

impl Streams {
    /// `sockets`: by the index of the listening socket, `None` for those of datagrams. All workers must
    /// have the same `epoch`.
    pub fn new(
        worker: u16,
        directory: Arc<Directory>,
        sockets: Vec<Option<Socket>>,
        settings: Settings,
        epoch: Instant,
        owner: Rc<dyn Owner>,
    ) -> Rc<Streams> {
        Rc::new(Streams {
            worker,
            directory,
            sockets,
            settings,
            table: RefCell::default(),
            buffer: RefCell::default(),
            epoch,
            owner,
        })
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    /// Accepts connections for ever.
    pub async fn listen(self: Rc<Self>, socket: u16, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => self.accept(socket, stream, remote),
                Err(e) => {
                    up(&self.directory.counters.accept_failed);
                    self.owner.complain(&format!("cannot accept connections: {e}"));
                    // Out of file descriptors, mostly: others must go on meanwhile.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn accept(self: &Rc<Self>, index: u16, stream: TcpStream, remote: SocketAddr) {
        let Some(Some(socket)) = self.sockets.get(usize::from(index)) else { return };
        let counters = &self.directory.counters;
        let max = self.settings.max_accepted;
        let Some(entry) = self.directory.accept(self.worker, index, socket.transport, remote, max) else {
            up(&counters.refused);
            return self.owner.complain(&format!("connection of {remote} refused: there are {max}"));
        };
        up(&counters.accepted);
        let conn = self.enter(entry);
        // A client that is gone already shows when it is read from.
        let _ = tcp::prepare(&stream, &self.settings.tcp);
        let local = stream.local_addr().unwrap_or(socket.local);
        conn.begin(stream, Link::accepted(&socket.link, local));
        spawn_local(self.clone().serve(conn));
    }

    fn enter(&self, entry: Arc<Entry>) -> Rc<Conn> {
        let conn = Rc::new(Conn::new(entry, self.now()));
        self.table.borrow_mut().insert(conn.entry.id, conn.clone());
        conn
    }

    /// Sends by the connection that `to` names, else by one that leads to its address, else by a new one.
    pub fn send(self: &Rc<Self>, to: Peer, message: Bytes) {
        if to.connection != 0 {
            if owner_of(to.connection) != self.worker {
                if self.directory.get(to.connection).is_some() {
                    return self.owner.pass_on(owner_of(to.connection), to, message);
                }
            } else if let Some(conn) = self.conn(to.connection) {
                return self.send_on(&conn, to, message);
            }
        }
        match self.directory.find(self.worker, to.socket, to.transport, to.remote, to.open) {
            Way::Existing(id) if owner_of(id) != self.worker => {
                self.owner.pass_on(owner_of(id), Peer { connection: id, ..to }, message);
            }
            Way::Existing(id) => match self.conn(id) {
                Some(conn) => self.send_on(&conn, to, message),
                None => self.give_back(to, vec![message]),
            },
            Way::New(entry) => {
                let conn = self.enter(entry);
                self.send_on(&conn, to, message);
                spawn_local(self.clone().connect(conn, to));
            }
            Way::None => self.give_back(to, vec![message]),
        }
    }

    fn conn(&self, id: u64) -> Option<Rc<Conn>> {
        self.table.borrow().get(&id).cloned()
    }

    fn send_on(&self, conn: &Conn, to: Peer, message: Bytes) {
        let queued = &self.directory.counters.queued;
        match conn.send(message.clone(), self.now(), &self.settings, queued) {
            Sent::Queued => {}
            Sent::Full => {
                up(&self.directory.counters.overflowed);
                self.give_back(to, vec![message]);
            }
            Sent::Failed => self.give_back(to, vec![message]),
        }
    }

    /// Tells the owner, later: it may be in the middle of something.
    fn give_back(&self, to: Peer, messages: Vec<Bytes>) {
        if messages.is_empty() {
            return;
        }
        self.directory.counters.undelivered.fetch_add(messages.len() as i64, Ordering::Relaxed);
        let owner = self.owner.clone();
        spawn_local(async move { owner.undelivered(to, messages) });
    }

    async fn connect(self: Rc<Self>, conn: Rc<Conn>, to: Peer) {
        let made = self.make(&conn, &to).await;
        match made {
            Ok(()) => {
                up(&self.directory.counters.connected);
                self.serve(conn).await;
            }
            Err(why) => {
                up(&self.directory.counters.connect_failed);
                self.end(&conn, why);
            }
        }
    }

    async fn make(&self, conn: &Conn, to: &Peer) -> Result<(), Closed> {
        let entry = &conn.entry;
        let Some(Some(socket)) = self.sockets.get(usize::from(entry.socket)) else {
            return Err(Closed::Unreachable(io::ErrorKind::AddrNotAvailable));
        };
        let from = to.local.map_or(socket.local, |ip| SocketAddr::new(ip, 0));
        let stream = tcp::connect(from, entry.remote, &self.settings.tcp);
        let stream = stream.await.map_err(|e| Closed::Unreachable(e.kind()))?;
        conn.begin(stream, Link::connected(&socket.link, entry.remote, to.hint)?);
        Ok(())
    }

    /// Reads, writes and watches the time until the connection ends.
    async fn serve(self: Rc<Self>, conn: Rc<Conn>) {
        let until_end = async {
            loop {
                if let Err(why) = self.turn(&conn).await {
                    break why;
                }
            }
        };
        // A defect costs one connection, which is struck out like any other.
        let why = AssertUnwindSafe(until_end).catch_unwind().await;
        self.end(&conn, why.unwrap_or(Closed::Defect));
    }

    fn count(&self, conn: &Conn) {
        let (received, sent) = conn.take_traffic();
        self.directory.counters.bytes_in.fetch_add(received, Ordering::Relaxed);
        self.directory.counters.bytes_out.fetch_add(sent, Ordering::Relaxed);
        conn.tell(&self.directory.counters.queued);
    }

    async fn turn(&self, conn: &Conn) -> Result<(), Closed> {
        let Some(stream) = conn.stream.get() else { return Err(Closed::Here) };
        conn.flush(self.now())?;
        self.count(conn);
        let (deadline, late) = conn.deadline(&self.settings);
        let deadline = self.epoch + Duration::from_millis(deadline.min(u64::from(u32::MAX)));
        tokio::select! {
            ready = stream.readable(), if conn.wants_to_read() => {
                ready.map_err(|e| Closed::Error(e.kind()))?;
                let (messages, result) = self.read(conn);
                // Whoever sends as fast as it can must not be read from as fast as it sends.
                if messages >= HASTE {
                    tokio::task::yield_now().await;
                }
                while self.owner.is_busy() && !conn.kill.get() {
                    tokio::time::sleep(PAUSE).await;
                }
                if messages > 0 {
                    conn.excuse(self.now());
                }
                result
            }
            ready = stream.writable(), if conn.wants_to_write() => {
                ready.map_err(|e| Closed::Error(e.kind()))
            }
            () = conn.wake.notified() => if conn.kill.get() { Err(Closed::Here) } else { Ok(()) },
            // It may have been used meanwhile.
            () = tokio::time::sleep_until(deadline.into()) => {
                if conn.deadline(&self.settings).0 <= self.now() { Err(late) } else { Ok(()) }
            }
        }
    }

    /// How many messages one read brought, and whether the connection goes on.
    fn read(&self, conn: &Conn) -> (usize, Result<(), Closed>) {
        let mut got = Vec::new();
        let result = {
            let mut buffer = self.buffer.borrow_mut();
            buffer.resize(BUFFER, 0);
            conn.read(&mut buffer, &mut got, self.now())
        };
        let messages = got.len();
        if messages > 0 {
            self.owner.received(self.peer_of(&conn.entry), &mut got, conn.at_us());
        }
        (messages, result)
    }

    /// Who is at the other end of a connection.
    fn peer_of(&self, entry: &Entry) -> Peer {
        let socket = self.sockets.get(usize::from(entry.socket)).and_then(Option::as_ref);
        let wildcard = socket.is_some_and(|socket| socket.local.ip().is_unspecified());
        Peer {
            socket: entry.socket,
            transport: entry.transport,
            remote: entry.remote,
            local: entry.local.get().filter(|_| wildcard).map(SocketAddr::ip),
            connection: entry.id,
            open: Open::Allowed,
            hint: 0,
        }
    }

    fn end(&self, conn: &Conn, why: Closed) {
        let counters = &self.directory.counters;
        match &why {
            Closed::ByPeer => up(&counters.closed_by_peer),
            Closed::Idle => up(&counters.closed_idle),
            Closed::Slow => up(&counters.closed_slow),
            Closed::Bad(_) => up(&counters.closed_bad),
            Closed::Error(_) | Closed::Defect => up(&counters.closed_error),
            Closed::Unreachable(_) => {}
            Closed::Here => up(&counters.closed_here),
        }
        self.directory.remove(conn.entry.id);
        self.table.borrow_mut().remove(&conn.entry.id);
        let unsent = conn.end(&why, self.now());
        self.count(conn);
        self.owner.closed(&conn.entry, &why);
        self.give_back(self.peer_of(&conn.entry), unsent);
    }

    /// Ends a connection of this worker; false: there is none.
    pub fn close(&self, id: u64) -> bool {
        let Some(conn) = self.conn(id) else { return false };
        conn.kill.set(true);
        conn.wake.notify_one();
        true
    }
}

#[cfg(test)]
mod tests;
