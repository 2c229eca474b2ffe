//! Transactions of RFC 3261 §17 and RFC 6026: pure state machines, a timer wheel, best-reply
//! selection. Datagrams, replies and the clock come in as arguments; what to send comes out as values.

use std::net::SocketAddr;

/// Milliseconds on the worker's monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Instant(pub u64);

impl Instant {
    pub fn after(self, ms: u64) -> Instant {
        Instant(self.0 + ms)
    }
}

/// Which transaction; stale copies find nothing (generation-checked).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TxnId {
    pub index: u32,
    pub generation: u32,
}

/// Where bytes go to or came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// Index of the listening socket in the worker's list.
    pub socket: u16,
    pub transport: sip::Transport,
    pub remote: SocketAddr,
    /// Stream connection, 0 for datagrams or "any connection to that address".
    pub connection: u64,
}
