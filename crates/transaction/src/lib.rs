//! Transactions of RFC 3261 §17 and RFC 6026: pure state machines, a timer wheel, best-reply
//! selection. Datagrams, replies and the clock come in as arguments; what to send comes out as values.
//!
//! # Contract
//!
//! [`Transactions`] holds the transactions of one worker. A transaction has an upstream side (a server
//! transaction, or nothing when this server itself sends the request) and branches (client
//! transactions), several at a time and, after they failed, further ones.
//!
//! ```text
//! request ─► find ── None ────────► create ─► add_branch ×n ── reply ─► match_reply ─► on_reply ─┐
//!              ├── Retransmission ► retransmission                                              │
//!              ├── Ack ───────────► on_ack                        ┌──────── Verdict ◄───────────┤
//!              └── Cancel ────────► cancel                        ▼                             │
//!                                     Provisional, Success: reply(bytes)     on_timer ─► Event::Timeout
//!                                     Failed{winner}: more branches,                      then fail_branch
//!                                                     or reply(bytes of the winner)
//! ```
//!
//! - Mutate, then drain: every call may queue [`Output`]s; `poll_output` until it is empty.
//! - What goes upstream is decided by the caller and handed to `reply`, which stores it for
//!   retransmissions. It takes one final reply (and, for an INVITE, further 2xx after a 2xx); later
//!   ones are refused as [`Replied::Late`].
//! - A hop-by-hop ACK, a CANCEL that had to wait for a provisional reply, retransmissions and the
//!   CANCEL of branches that lost are sent from here, without the caller.
//! - [`Event::Timeout`] says that a branch got no (final) reply in time. The caller may add a branch
//!   in its place (failover) and then must call `fail_branch`.
//! - [`Event::Unanswered`]: a transaction without open branches was neither answered nor released for
//!   a long time (a suspended script may hold it). The caller calls `hold` to go on waiting, or `release`.
//! - A `TxnId` of a transaction that has ended finds nothing; every method says so by `None`, `false`
//!   or [`Verdict::Absorb`].
//!
//! # Timers
//!
//! RFC 3261's A, B (and C), E, F run on branches, G, H, I, J and RFC 6026's L on the upstream side,
//! K, D and M end with it. Two parameters of the reference replace many of the RFC's: the final
//! reply timer (B, C, F, H) is `fr` before and `fr_inv` after a provisional reply, and a finished
//! transaction stays for `wait` (D, I, J, K, L, M). With `wait` at 32 s the RFC's values are met.

#![warn(missing_docs)]

mod branch;
mod config;
mod cookie;
mod forking;
mod key;
mod server;
mod store;
mod timers;
pub mod wheel;

pub use branch::{BranchView, Cancelling, ORIGINATOR, Received, Refused, Verdict};
pub use config::{Config, Stats};
pub use cookie::{Cookie, ViaBranch};
pub use forking::priority;
pub use key::Relation;
pub use server::{Acked, Origin, Replied};
pub use store::{Full, Transactions};

use bytes::Bytes;
use std::net::SocketAddr;

/// Milliseconds on the worker's monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// So many milliseconds later; the end of time at most.
    pub fn after(self, ms: u64) -> Instant {
        Instant(self.0.saturating_add(ms))
    }
}

/// Which transaction; stale copies find nothing (generation-checked).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TxnId {
    /// The slot.
    pub index: u32,
    /// Who had the slot before counts up; an old id finds nothing.
    pub generation: u32,
}

/// Where bytes go to or came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// Index of the listening socket in the worker's list.
    pub socket: u16,
    /// What the message travels by.
    pub transport: sip::Transport,
    /// The other end.
    pub remote: SocketAddr,
    /// Address of this machine, for a socket that is bound to all of them: where a message came to, or is sent
    /// from. A number in the owner's list of addresses; 0: the socket's own.
    pub local: u16,
    /// Stream connection, 0 for datagrams or "any connection to that address"; may carry what
    /// [`Path::only_existing`] and [`Path::with_hint`] say instead.
    pub connection: u64,
}

/// Marks in `Path::connection`; numbers of connections have neither.
const ONLY_EXISTING: u64 = 1 << 63;
const HINT: u64 = 1 << 62;

impl Path {
    /// The same way, but no connection is made for it (`tcp_no_new_conn_bflag`).
    pub fn only_existing(self) -> Path {
        Path { connection: self.connection | ONLY_EXISTING, ..self }
    }

    /// It goes by a connection that is there, or not at all.
    pub fn is_only_existing(&self) -> bool {
        self.connection & ONLY_EXISTING != 0
    }

    /// The same way to any connection; one that is made follows `hint` (which TLS domain). 0: no hint.
    pub fn with_hint(self, hint: u32) -> Path {
        let mark = if hint == 0 { 0 } else { HINT | u64::from(hint) };
        Path { connection: self.connection & ONLY_EXISTING | mark, ..self }
    }

    /// Which TLS domain a new connection is for, by its number; 0 none was named.
    pub fn hint(&self) -> u32 {
        if self.connection & HINT == 0 { 0 } else { self.connection as u32 }
    }

    /// The connection that is meant, 0 for any.
    pub fn connection_id(&self) -> u64 {
        if self.connection & HINT == 0 { self.connection & !ONLY_EXISTING } else { 0 }
    }

    /// The transport delivers or says so: nothing is retransmitted over it.
    pub fn is_reliable(&self) -> bool {
        self.transport != sip::Transport::Udp
    }
}

/// What a transaction wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A message of this transaction, its retransmissions too.
    Transmit {
        /// Whose message it is.
        txn: TxnId,
        /// Where it goes.
        path: Path,
        /// What is sent.
        bytes: Bytes,
    },
    /// Something to decide or to know.
    Event(Event),
}

/// What the caller has to decide or wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    #[expect(missing_docs, reason = "the names say it")]
    /// No final reply in time. `rang`: a provisional reply had come; the branch was sent a CANCEL.
    /// The caller must call `fail_branch`.
    Timeout { txn: TxnId, branch: u16, rang: bool },
    #[expect(missing_docs, reason = "the names say it")]
    /// Nothing was sent upstream and nothing is going on downstream: call `hold` or `release`.
    Unanswered { txn: TxnId },
    #[expect(missing_docs, reason = "the names say it")]
    /// The transaction is over; its data is still there until `remove` or the next call of `on_timer`.
    Ended { txn: TxnId },
}
