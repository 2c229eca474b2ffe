//! What the drivers of database servers share: a worker's pool of connections.
//!
//! ```text
//!            first query            connected
//!  Unknown ─────────────▶ connecting ─────────▶ Up ──┐ a connection is lost
//!     ▲                       │                  ▲   │
//!     └───────────────────────┼──────────────────┼───┘
//!                             │ refused, timeout │ connected
//!                             ▼                  │
//!                           Down ── tries again, less and less often
//! ```
//! While Unknown one attempt goes ahead and the other queries wait for it; while Down queries fail
//! at once and a task of the pool tries. An outage is logged when it begins and when it ends.

mod collect;
mod lease;
mod mend;
mod pool;
#[cfg(test)]
pub mod real;
#[cfg(test)]
pub mod server;
mod session;
#[cfg(test)]
mod tests;
mod tls;

pub use collect::Collect;
pub use pool::{Limits, Reach, SqlPool};
pub use session::{Session, dialect_of};
pub use tls::{Tls, Verify};

use host::db::{DbError, Dialect, Rows};
use std::time::Duration;

/// Why a statement failed.
#[derive(Debug)]
pub enum Failure {
    /// The connection is of no use any more.
    Lost(String),
    /// The server said no; the connection is fine.
    Refused(DbError),
}

/// One kind of database server.
pub trait Backend: 'static {
    type Conn: 'static;

    /// The module ("db_mysql").
    const MODULE: &'static str;
    const DIALECT: Dialect;

    /// Connects and logs in, within the driver's own time limit.
    async fn connect(&self) -> Result<Self::Conn, String>;
    /// Runs one text.
    async fn run(&self, conn: &mut Self::Conn, text: &str) -> Result<Rows, Failure>;
    /// How long one statement may take.
    fn query_limit(&self) -> Duration {
        Duration::from_secs(86_400)
    }
    /// The connection answers; whatever it was doing is over.
    async fn ping(&self, conn: &mut Self::Conn) -> bool;
    /// Ends a connection whose statement nobody waits for, and connects anew. The error: the server
    /// does not answer any more.
    async fn replace(&self, conn: Self::Conn) -> Result<Self::Conn, String>;
}

/// Why no connection to a server comes to be, for `check`.
#[allow(clippy::disallowed_methods, reason = "asked before anything runs, where waiting is allowed")]
pub fn no_answer(url: &host::db::DbUrl, port: u16) -> Option<String> {
    use std::net::{TcpStream, ToSocketAddrs};
    let (host, port) = (if url.host.is_empty() { "localhost" } else { &url.host }, url.port.unwrap_or(port));
    if url.params.iter().any(|(name, _)| name == "socket" || name == "unix_socket") || host.starts_with('/') {
        return None;
    }
    let mut why = "the host has no address".to_owned();
    for address in (host, port).to_socket_addrs().into_iter().flatten() {
        match TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)) {
            Ok(_) => return None,
            Err(error) => why = error.to_string(),
        }
    }
    Some(format!("no database answers at {host}:{port}: {why}"))
}
