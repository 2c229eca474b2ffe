//! Questions to servers that answer in datagrams: RADIUS servers, engines that relay media.
//!
//! ```text
//!  first_of(servers) ──► open(peer): a socket of this worker with a free name
//!       ▲                     │
//!       │                     ▼
//!       │ Verdict::Next    ask(packet, patience): sent, waited for, sent again, until an answer counts
//!       └─────────────────────┤
//!                             ▼
//!                        Verdict::Final
//! ```
//!
//! Every wait is a future of the worker; who drops it gives its name back. A name (an identifier, a cookie) joins an
//! answer to its question: what comes for a name that nobody waits for is dropped. All questions of a worker to one
//! server share sockets.
#![expect(
    clippy::disallowed_methods,
    reason = "exchanges with servers are real I/O: they live outside the worker"
)]

mod link;
mod peer;
mod silence;
mod stream;
mod websocket;

pub use link::{Exchange, Question, fresh_name};
pub use peer::{Address, Family, Peer};
pub use silence::Silence;
pub use stream::{ask_tcp, ask_unix};

use bytes::Bytes;
use host::coded::Coded;
use std::time::Duration;

/// How answers are joined to questions.
pub trait Naming: 'static {
    /// Questions that one socket carries at a time.
    const AT_ONCE: usize;

    /// The name that follows `last`; the first one of a socket follows a random number.
    fn next(last: u64) -> u64;

    /// The name in an answer.
    fn of(datagram: &[u8]) -> Option<u64>;
}

/// How long a server may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// How often a question is sent.
    pub tries: u32,
    /// How long an answer is waited for each time.
    pub each: Duration,
}

impl Patience {
    /// All of it, in milliseconds.
    pub fn total_ms(&self) -> u64 {
        u64::try_from(self.each.as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.tries.max(1)))
    }
}

/// Why there is no answer. `W`: why one that came does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble<W> {
    /// What the system says.
    Io(String),
    /// Too many questions wait for this server.
    Full,
    /// Nothing came in time, or nothing but this.
    Silent(Option<W>),
}

impl Coded for Trouble<String> {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, why) = match self {
            Trouble::Io(why) => (0u8, Some(why)),
            Trouble::Full => (1, None),
            Trouble::Silent(why) => (2, why.as_ref()),
        };
        (kind, why.cloned()).put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Trouble<String>> {
        let (kind, why): (u8, Option<String>) = Coded::take(from)?;
        Some(match kind {
            0 => Trouble::Io(why?),
            1 => Trouble::Full,
            2 => Trouble::Silent(why),
            _ => return None,
        })
    }
}

/// An exchange with an engine as a tape hears of it; `question` without a name that is another one each time.
pub async fn taped(
    kind: &'static str,
    question: impl FnOnce() -> String,
    live: impl Future<Output = Result<Bytes, Trouble<String>>>,
) -> Result<Bytes, Trouble<String>> {
    let absent = || Err(Trouble::Io(host::db::NOT_RECORDED.to_string()));
    host::tape::awaited(kind, question, live, absent).await
}

/// What a server's answer means for the servers after it.
pub enum Verdict<T, E> {
    Final(Result<T, E>),
    Next(E),
}

/// Asks servers, one after the other, until one's answer is final. `None`: there was no server.
pub async fn first_of<S, T, E>(
    mut next: impl FnMut() -> Option<S>,
    mut ask: impl AsyncFnMut(S) -> Verdict<T, E>,
) -> Option<Result<T, E>> {
    let mut last = None;
    while let Some(server) = next() {
        match ask(server).await {
            Verdict::Final(result) => return Some(result),
            Verdict::Next(error) => last = Some(Err(error)),
        }
    }
    last
}

#[cfg(test)]
mod tests;
