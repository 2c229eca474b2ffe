//! All stream connections of the server: what every worker must know of those that others own.

use crate::link::TlsInfo;
use ahash::AHashMap;
use parking_lot::Mutex;
use sip::Transport;
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The bits of a connection's number that count; those above name the worker that owns it.
const COUNT_BITS: u32 = 40;
/// Ports by which one connection may be found besides its own.
const MAX_ALIASES: usize = 16;

/// Who began a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Accepted,
    Connected,
}

/// What is known of a connection everywhere.
#[derive(Debug)]
pub struct Entry {
    /// Never 0; says who owns it ([`owner_of`]).
    pub id: u64,
    /// Index of the listening socket it belongs to.
    pub socket: u16,
    pub transport: Transport,
    pub direction: Direction,
    pub remote: SocketAddr,
    /// Our end; unknown while it is being made.
    pub local: OnceLock<SocketAddr>,
    pub tls: OnceLock<Arc<TlsInfo>>,
    /// Handshakes are over.
    pub open: AtomicBool,
    /// Milliseconds of the directory's clock when it was used last, and until when it stays though idle.
    pub used: AtomicU64,
    pub keep: AtomicU64,
    aliases: Mutex<SmallVec<[u16; 2]>>,
}

impl Entry {
    pub fn aliases(&self) -> SmallVec<[u16; 2]> {
        self.aliases.lock().clone()
    }
}

/// What happened to connections since the start.
#[derive(Default, Debug)]
pub struct Counters {
    pub accepted: AtomicI64,
    pub connected: AtomicI64,
    pub connect_failed: AtomicI64,
    /// Not accepted because there are `max_accepted` already.
    pub refused: AtomicI64,
    pub closed_by_peer: AtomicI64,
    pub closed_idle: AtomicI64,
    /// A message, a handshake or our writing took too long.
    pub closed_slow: AtomicI64,
    /// What came was no SIP, no TLS or no WebSocket.
    pub closed_bad: AtomicI64,
    pub closed_error: AtomicI64,
    pub closed_here: AtomicI64,
    /// Messages that found no room in the queue of a connection.
    pub overflowed: AtomicI64,
    /// Messages that could not be sent.
    pub undelivered: AtomicI64,
    pub bytes_in: AtomicI64,
    pub bytes_out: AtomicI64,
    /// Times that a connection could not be accepted (no descriptor, no memory).
    pub accept_failed: AtomicI64,
    /// Bytes of messages that wait to be written, of all connections.
    pub queued: AtomicI64,
}

/// One more.
pub fn up(counter: &AtomicI64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Default)]
struct Inner {
    by_addr: AHashMap<(u16, SocketAddr), SmallVec<[u64; 1]>>,
    all: AHashMap<u64, Arc<Entry>>,
    accepted: usize,
}

/// Shared by all workers; locked for a few lookups at a time. Datagrams never come here.
#[derive(Default)]
pub struct Directory {
    inner: Mutex<Inner>,
    count: AtomicU64,
    pub counters: Counters,
}

/// Where a message for an address goes.
pub enum Way {
    /// There is a connection.
    Existing(u64),
    /// There was none: this one was entered and is the caller's to make.
    New(Arc<Entry>),
    None,
}

/// May a connection be made?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    Allowed,
    /// `tcp_no_new_conn_bflag`, `tcp_no_new_conn_rplflag`
    Never,
}

/// The worker that owns a connection.
pub fn owner_of(id: u64) -> u16 {
    (id >> COUNT_BITS) as u16
}

impl Directory {
    fn entry(&self, worker: u16, socket: u16, transport: Transport, remote: SocketAddr) -> Entry {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        Entry {
            id: u64::from(worker) << COUNT_BITS | count,
            socket,
            transport,
            direction: Direction::Connected,
            remote,
            local: OnceLock::new(),
            tls: OnceLock::new(),
            open: AtomicBool::new(false),
            used: AtomicU64::new(0),
            keep: AtomicU64::new(0),
            aliases: Mutex::default(),
        }
    }

    /// Enters a connection that a client made; `None`: there are `max` already.
    pub fn accept(
        &self,
        worker: u16,
        socket: u16,
        transport: Transport,
        remote: SocketAddr,
        max: usize,
    ) -> Option<Arc<Entry>> {
        let entry = Entry { direction: Direction::Accepted, ..self.entry(worker, socket, transport, remote) };
        let mut inner = self.inner.lock();
        if inner.accepted >= max {
            return None;
        }
        inner.accepted += 1;
        Some(inner.insert(Arc::new(entry)))
    }

    /// The newest connection to an address that a socket has, or a new one for `worker` to make.
    pub fn find(
        &self,
        worker: u16,
        socket: u16,
        transport: Transport,
        remote: SocketAddr,
        open: Open,
    ) -> Way {
        let mut inner = self.inner.lock();
        let found = inner.by_addr.get(&(socket, remote)).and_then(|ids| ids.last().copied());
        match (found, open) {
            (Some(id), _) => Way::Existing(id),
            (None, Open::Never) => Way::None,
            (None, Open::Allowed) => {
                Way::New(inner.insert(Arc::new(self.entry(worker, socket, transport, remote))))
            }
        }
    }

    pub fn exists(&self, socket: u16, remote: SocketAddr) -> bool {
        self.inner.lock().by_addr.contains_key(&(socket, remote))
    }

    pub fn get(&self, id: u64) -> Option<Arc<Entry>> {
        self.inner.lock().all.get(&id).cloned()
    }

    /// Requests to the peer's address with `port` take this connection (RFC 5923). False: there is no
    /// such connection, it has too many names, or the name is another living connection's (as in the
    /// reference: who comes second does not take over).
    pub fn alias(&self, id: u64, port: u16) -> bool {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.all.get(&id).cloned() else { return false };
        if port == 0 || port == entry.remote.port() {
            return port != 0;
        }
        let mut aliases = entry.aliases.lock();
        if aliases.contains(&port) {
            return true;
        }
        let ids = inner.by_addr.entry((entry.socket, SocketAddr::new(entry.remote.ip(), port))).or_default();
        if !ids.is_empty() || aliases.len() >= MAX_ALIASES {
            return false;
        }
        ids.push(id);
        aliases.push(port);
        true
    }

    /// Strikes a connection out; true: it was there.
    pub fn remove(&self, id: u64) -> bool {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.all.remove(&id) else { return false };
        inner.accepted -= usize::from(entry.direction == Direction::Accepted);
        inner.forget((entry.socket, entry.remote), id);
        for port in entry.aliases.lock().iter() {
            inner.forget((entry.socket, SocketAddr::new(entry.remote.ip(), *port)), id);
        }
        true
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<_> = self.inner.lock().all.values().cloned().collect();
        all.sort_by_key(|entry| entry.id << (64 - COUNT_BITS));
        all
    }

    pub fn len(&self) -> usize {
        self.inner.lock().all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn insert(&mut self, entry: Arc<Entry>) -> Arc<Entry> {
        self.by_addr.entry((entry.socket, entry.remote)).or_default().push(entry.id);
        self.all.insert(entry.id, entry.clone());
        entry
    }

    fn forget(&mut self, key: (u16, SocketAddr), id: u64) {
        if let Some(ids) = self.by_addr.get_mut(&key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_addr.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn one_connection_for_all_that_ask() {
        let directory = Directory::default();
        let find = |worker, port, open| directory.find(worker, 0, Transport::Tcp, addr(port), open);
        assert!(matches!(find(0, 5060, Open::Never), Way::None));
        let Way::New(entry) = find(1, 5060, Open::Allowed) else { panic!() };
        assert_eq!(owner_of(entry.id), 1);
        assert!(matches!(find(0, 5060, Open::Allowed), Way::Existing(id) if id == entry.id));
        assert!(directory.exists(0, addr(5060)) && !directory.exists(1, addr(5060)));
        assert!(directory.remove(entry.id) && !directory.remove(entry.id));
        assert!(directory.is_empty() && !directory.exists(0, addr(5060)));
    }

    #[test]
    fn aliases_belong_to_the_first() {
        let directory = Directory::default();
        let accept = |port| directory.accept(0, 0, Transport::Tcp, addr(port), 2);
        let (a, b) = (accept(40_000).unwrap(), accept(40_001).unwrap());
        assert!(accept(40_002).is_none(), "the limit");
        assert!(directory.alias(a.id, 5060) && directory.alias(a.id, 5060));
        assert!(!directory.alias(b.id, 5060) && !directory.alias(b.id, 0));
        let find = |port| match directory.find(0, 0, Transport::Tcp, addr(port), Open::Never) {
            Way::Existing(id) => Some(id),
            _ => None,
        };
        assert_eq!((find(5060), find(40_001)), (Some(a.id), Some(b.id)));
        directory.remove(a.id);
        assert_eq!(find(5060), None);
        assert!(directory.alias(b.id, 5060) && !directory.alias(a.id, 5061));
        assert!(accept(40_002).is_some());
    }
}
