//! A worker's connection to one server, and what becomes of it.
//!
//! ```text
//!         first use            connected
//!  Idle ───────────▶ Waiting ────────────▶ Up ──┐ lost
//!                      │  ▲ ◀────────────────────┘
//!     refused, timeout │  
//!                      ▼            connected
//!                    Down ── tries again, less and less often ──▶ Up
//! ```
//! While Waiting, operations wait for the attempt that runs; while Down they fail at once. An outage is
//! logged when the first worker notices it and when the first one is connected again.

use host::cachedb::CacheError;
use host::outage::Outage;
use host::worker::ops::{note_queued, note_refused};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One kind of server. A connection is cheap to clone and carries many operations at a time.
pub trait Backend: 'static {
    type Conn: Clone + 'static;

    /// The module, for log lines.
    const MODULE: &'static str;

    /// The server as log lines name it, without passwords.
    fn name(&self) -> String;
    /// Whether workers have lost it.
    fn outage(&self) -> &Outage;
    /// Connects and logs in, within a time limit of its own.
    async fn connect(&self) -> Result<Self::Conn, String>;
}

enum State<C> {
    Idle,
    Waiting,
    /// With a number that tells this connection from its successors.
    Up(C, u64),
    Down(String),
}

/// Operations that one worker has under way with one server; more are refused.
const MAX_IN_FLIGHT: usize = 10_000;

struct Inner<B: Backend> {
    backend: B,
    in_flight: Cell<usize>,
    state: RefCell<State<B::Conn>>,
    changed: Notify,
}

/// The connection of one worker.
pub struct Link<B: Backend>(Rc<Inner<B>>);

impl<B: Backend> Clone for Link<B> {
    fn clone(&self) -> Link<B> {
        Link(self.0.clone())
    }
}

impl<B: Backend> Link<B> {
    pub fn new(backend: B) -> Link<B> {
        let (state, changed) = (RefCell::new(State::Idle), Notify::new());
        Link(Rc::new(Inner { backend, in_flight: Cell::new(0), state, changed }))
    }

    /// A place for one operation, given back when dropped.
    pub fn enter(&self) -> Result<Place<B>, CacheError> {
        let running = self.0.in_flight.get();
        if running >= MAX_IN_FLIGHT {
            note_refused();
            return Err(CacheError::Busy);
        }
        self.0.in_flight.set(running + 1);
        Ok(Place(self.0.clone()))
    }

    /// The connection and its number; waits for an attempt that runs.
    pub async fn conn(&self) -> Result<(B::Conn, u64), CacheError> {
        let mut waited = false;
        loop {
            let changed = self.0.changed.notified();
            match &mut *self.0.state.borrow_mut() {
                State::Up(conn, number) => return Ok((conn.clone(), *number)),
                State::Down(why) => return Err(CacheError::Down(why.clone())),
                State::Waiting => {}
                idle => {
                    *idle = State::Waiting;
                    spawn_local(keep_trying(Rc::downgrade(&self.0), 1, None));
                }
            }
            if !std::mem::replace(&mut waited, true) {
                note_queued();
            }
            changed.await;
        }
    }

    /// The connection, if there is one now.
    pub fn up(&self) -> Option<(B::Conn, u64)> {
        match &*self.0.state.borrow() {
            State::Up(conn, number) => Some((conn.clone(), *number)),
            _ => None,
        }
    }

    /// The server's name in log lines.
    pub fn name(&self) -> String {
        self.0.backend.name()
    }

    /// Connects anew; what runs on the old connection ends there.
    pub async fn renew(&self) -> Result<(), CacheError> {
        if let Some((_, number)) = self.up() {
            self.lost(number, "it is renewed");
        }
        self.conn().await.map(drop)
    }

    /// Connection `number` is of no use any more.
    pub fn lost(&self, number: u64, why: &str) {
        let mut state = self.0.state.borrow_mut();
        if matches!(&*state, State::Up(_, n) if *n == number) {
            *state = State::Waiting;
            let why = Some(why.to_string());
            spawn_local(keep_trying(Rc::downgrade(&self.0), number + 1, why));
        }
    }
}

/// One operation under way.
pub struct Place<B: Backend>(Rc<Inner<B>>);

impl<B: Backend> Drop for Place<B> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// Connects, with pauses, until it succeeds or nobody uses the link any more.
async fn keep_trying<B: Backend>(link: Weak<Inner<B>>, number: u64, lost: Option<String>) {
    let mut pause = FIRST_PAUSE;
    let mut out = false;
    loop {
        let Some(inner) = link.upgrade() else { return };
        match inner.backend.connect().await {
            Ok(conn) => {
                if inner.backend.outage().ends() {
                    host::notice!(B::MODULE, "{} is back", inner.backend.name());
                }
                *inner.state.borrow_mut() = State::Up(conn, number);
                inner.changed.notify_waiters();
                return;
            }
            Err(why) => {
                if !std::mem::replace(&mut out, true) && inner.backend.outage().begins() {
                    let before =
                        lost.as_ref().map(|l| format!(" (connection lost: {l})")).unwrap_or_default();
                    host::error!(B::MODULE, "{} is unreachable: {why}{before}", inner.backend.name());
                }
                *inner.state.borrow_mut() = State::Down(why);
                inner.changed.notify_waiters();
            }
        }
        drop(inner);
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
