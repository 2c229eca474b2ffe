//! One connection of a worker: its socket, its layers, its deadlines.

use super::directory::Entry;
use super::{Closed, Settings};
use crate::link::{Link, LinkError};
use crate::sys;
use bytes::Bytes;
use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Slices of one vectored write.
const SLICES: usize = 16;

/// No deadline, and "not since any time".
const NEVER: u64 = u64::MAX;

/// A connection that this worker owns. All times are milliseconds of the directory's clock.
pub(super) struct Conn {
    pub entry: Arc<Entry>,
    /// Invariant: set before `link`.
    pub stream: OnceCell<TcpStream>,
    /// `None` while it is being made.
    link: RefCell<Option<Link>>,
    /// Messages that wait until it is open.
    early: RefCell<Vec<Bytes>>,
    /// Something to write, a nearer deadline, or `kill`.
    pub wake: Notify,
    started: u64,
    /// Since when writing makes no progress.
    stalled: Cell<u64>,
    /// Since when a message is not complete.
    partial: Cell<u64>,
    pub kill: Cell<bool>,
    /// Since when the queue was full and not empty since.
    full: Cell<u64>,
    /// Bytes of `early`, and what of `queued()` the directory knows.
    early_bytes: Cell<usize>,
    told: Cell<usize>,
    /// Bytes of the wire that were not counted yet.
    sent: Cell<i64>,
    received: Cell<i64>,
    /// When the last byte that was read came, microseconds since 1970; 0: not known, or it came long ago because the
    /// peer does not read.
    at_us: Cell<u64>,
    /// What comes waits because the peer does not read what it made us say.
    held: Cell<bool>,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    Queued,
    /// Its queue is full.
    Full,
    /// The connection has failed.
    Failed,
}

impl Conn {
    pub fn new(entry: Arc<Entry>, now: u64) -> Conn {
        entry.used.store(now, Ordering::Relaxed);
        Conn {
            entry,
            stream: OnceCell::new(),
            link: RefCell::new(None),
            early: RefCell::default(),
            wake: Notify::new(),
            started: now,
            stalled: Cell::new(NEVER),
            partial: Cell::new(NEVER),
            kill: Cell::new(false),
            full: Cell::new(NEVER),
            early_bytes: Cell::new(0),
            told: Cell::new(0),
            sent: Cell::new(0),
            received: Cell::new(0),
            at_us: Cell::new(0),
            held: Cell::new(false),
        }
    }

    /// The socket is there.
    pub fn begin(&self, stream: TcpStream, link: Link) {
        if let Ok(local) = stream.local_addr() {
            let _ = self.entry.local.set(local);
        }
        // Nice to know, not needed.
        let _ = sys::enable_arrival_times(stream.as_fd());
        let _ = self.stream.set(stream);
        *self.link.borrow_mut() = Some(link);
    }

    fn is_open(&self) -> bool {
        self.link.borrow().as_ref().is_some_and(Link::is_open)
    }

    /// Queues a message and writes what the socket takes at once. `queued`: what waits in all connections.
    pub fn send(&self, message: Bytes, now: u64, settings: &Settings, queued: &AtomicI64) -> Sent {
        self.entry.used.store(now, Ordering::Relaxed);
        let sent = self.queue(message, now, settings, queued);
        match sent {
            // Its peer has had its time: who reads a little now and then does not keep the queue.
            Sent::Full if now.saturating_sub(self.full.get()) >= settings.stall => {
                self.kill.set(true);
                self.wake.notify_one();
            }
            Sent::Full => self.full.set(self.full.get().min(now)),
            _ => {}
        }
        self.tell(queued);
        sent
    }

    fn queue(&self, message: Bytes, now: u64, settings: &Settings, queued: &AtomicI64) -> Sent {
        // Of all connections together; one message each always has room.
        let crowded = || queued.load(Ordering::Relaxed) >= settings.queue_bytes as i64;
        let mut link = self.link.borrow_mut();
        let Some(link) = link.as_mut().filter(|link| link.is_open()) else {
            let mut early = self.early.borrow_mut();
            if early.len() >= settings.queue || (!early.is_empty() && crowded()) {
                return Sent::Full;
            }
            self.early_bytes.set(self.early_bytes.get() + message.len());
            early.push(message);
            return Sent::Queued;
        };
        if link.waiting() >= settings.queue || (link.waiting() > 0 && crowded()) {
            return Sent::Full;
        }
        if link.send(message).is_err() {
            self.kill.set(true);
            self.wake.notify_one();
            return Sent::Failed;
        }
        // An error shows again where the connection is served, which reports what was not sent.
        let flushed = self.write(link, now);
        if !matches!(flushed, Ok(true)) {
            self.wake.notify_one();
        }
        Sent::Queued
    }

    /// Sends what waited for the end of the handshakes, once.
    fn opened(&self, link: &mut Link) -> Result<(), LinkError> {
        if self.entry.open.load(Ordering::Relaxed) || !link.is_open() {
            return Ok(());
        }
        if let Some(info) = link.tls_info() {
            let _ = self.entry.tls.set(Arc::new(info));
        }
        self.entry.open.store(true, Ordering::Relaxed);
        self.early_bytes.set(0);
        self.early.take().into_iter().try_for_each(|message| link.send(message))
    }

    /// Writes what the socket takes; true: nothing is left.
    fn write(&self, link: &mut Link, now: u64) -> io::Result<bool> {
        let Some(stream) = self.stream.get() else { return Ok(true) };
        loop {
            if link.is_flushed() {
                self.stalled.set(NEVER);
                self.full.set(NEVER);
                return Ok(true);
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = link.wire(&mut slices);
            match stream.try_write_vectored(&slices[..count]) {
                Ok(n) => {
                    self.sent.set(self.sent.get() + n as i64);
                    link.written(n);
                    self.stalled.set(now);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled.set(self.stalled.get().min(now));
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads once; complete messages go into `got`. An end is an error too.
    pub fn read(&self, buffer: &mut [u8], got: &mut Vec<Bytes>, now: u64) -> Result<(), Closed> {
        let (Some(stream), Some(link)) = (self.stream.get(), &mut *self.link.borrow_mut()) else {
            return Ok(());
        };
        let before = got.len();
        let size = buffer.len();
        let read = match stream.try_io(Interest::READABLE, || sys::recv_stream(stream.as_fd(), buffer)) {
            Ok((0, _)) => Err(Closed::ByPeer),
            Ok((n, at_us)) => {
                self.at_us.set(if self.held.get() { 0 } else { at_us });
                if n < size {
                    self.held.set(false);
                }
                self.received.set(self.received.get() + n as i64);
                link.receive(&buffer[..n], got).map_err(Closed::from)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => Err(Closed::Error(e.kind())),
        };
        let opened = read.and_then(|()| self.opened(link).map_err(Closed::from));
        let written = self.write(link, now).map_err(|e| Closed::Error(e.kind()));
        let result = opened.and(written.map(drop));
        if got.len() > before {
            self.entry.used.store(now, Ordering::Relaxed);
            self.partial.set(NEVER);
        }
        match link.is_partial() {
            true => self.partial.set(self.partial.get().min(now)),
            false => self.partial.set(NEVER),
        }
        result
    }

    /// Writes what waits.
    pub fn flush(&self, now: u64) -> Result<(), Closed> {
        let mut link = self.link.borrow_mut();
        let Some(link) = link.as_mut() else { return Ok(()) };
        self.opened(link)?;
        self.write(link, now).map(drop).map_err(|e| Closed::Error(e.kind()))
    }

    /// Brings the sum of what waits in all connections up to date.
    pub fn tell(&self, queued: &AtomicI64) {
        let link = self.link.borrow().as_ref().map_or(0, Link::waiting_bytes);
        let waits = link + self.early_bytes.get();
        let told = self.told.replace(waits);
        if waits != told {
            queued.fetch_add(waits as i64 - told as i64, Ordering::Relaxed);
        }
    }

    /// Bytes in and out since the last call.
    pub fn take_traffic(&self) -> (i64, i64) {
        (self.received.take(), self.sent.take())
    }

    pub fn wants_to_write(&self) -> bool {
        self.link.borrow().as_ref().is_some_and(|link| !link.is_flushed())
    }

    /// More may be read: the peer takes what it makes us say.
    pub fn wants_to_read(&self) -> bool {
        let wants = self.link.borrow().as_ref().is_none_or(|link| !link.owes_too_much());
        if !wants {
            self.held.set(true);
        }
        wants
    }

    /// What it took us to look at messages is not the time of the one that has begun behind them.
    pub fn excuse(&self, now: u64) {
        if self.partial.get() != NEVER {
            self.partial.set(now);
        }
    }

    /// When what was read last came, microseconds since 1970; 0: that says nothing.
    pub fn at_us(&self) -> u64 {
        self.at_us.get()
    }

    #[cfg(test)]
    pub fn owed(&self) -> usize {
        self.link.borrow().as_ref().map_or(0, |link| link.owed())
    }

    /// When to look at it next, and what it then ends for if nothing happens.
    pub fn deadline(&self, settings: &Settings) -> (u64, Closed) {
        let after = |since: u64, limit: u64| if since == NEVER { NEVER } else { since.saturating_add(limit) };
        let handshake = if self.is_open() { NEVER } else { self.started.saturating_add(settings.handshake) };
        let partial = if self.is_open() { self.partial.get() } else { NEVER };
        let idle = self.entry.used.load(Ordering::Relaxed).saturating_add(settings.lifetime);
        let idle = idle.max(self.entry.keep.load(Ordering::Relaxed));
        let slow = after(partial, settings.message).min(after(self.stalled.get(), settings.stall));
        let slow = slow.min(handshake);
        if slow <= idle { (slow, Closed::Slow) } else { (idle, Closed::Idle) }
    }

    /// Says goodbye as far as the socket takes it; what was not sent.
    pub fn end(&self, why: &Closed, now: u64) -> Vec<Bytes> {
        let mut unsent = Vec::new();
        if let Some(mut link) = self.link.take() {
            unsent = link.unsent();
            if matches!(why, Closed::Idle | Closed::Here) && unsent.is_empty() {
                link.close();
                let _ = self.write(&mut link, now);
            }
        }
        unsent.extend(self.early.take());
        self.early_bytes.set(0);
        unsent
    }
}
