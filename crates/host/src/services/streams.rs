//! Stream connections (TCP, TLS, WebSocket) as scripts, modules and commands see them.

use crate::context::shared::Shared;
use crate::language::loader::Loader;
use script::Loc;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use transaction::Path;

/// The connections of all workers. Set by the driver of the workers; without one there are none.
pub trait Connections: Send + Sync {
    /// All of them, oldest first.
    fn list(&self) -> Vec<Connection>;
    /// A message for `path` would take a connection that exists.
    fn exists(&self, path: &Path) -> bool;
    /// What TLS agreed on.
    fn tls(&self, id: u64) -> Option<Arc<Tls>>;
    /// Ends a connection; false: there is none of this number.
    fn close(&self, id: u64) -> bool;
    /// Requests to the peer's address with `port` take this connection (RFC 5923); false: refused.
    fn alias(&self, id: u64, port: u16) -> bool;
    /// It stays for at least so many milliseconds from now, though it is idle.
    fn keep(&self, id: u64, ms: u64);
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub id: u64,
    /// Index into `Shared::sockets`.
    pub socket: u16,
    pub transport: sip::Transport,
    pub remote: SocketAddr,
    /// `None` while it is being made.
    pub local: Option<SocketAddr>,
    /// A client made it, not this server.
    pub accepted: bool,
    /// Handshakes are over.
    pub open: bool,
    /// Seconds until it ends when nothing happens.
    pub left: u64,
    pub aliases: Vec<u16>,
    pub tls: Option<Arc<Tls>>,
}

/// What the two sides of a TLS connection agreed on and showed each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// "TLSv1.3"
    pub version: &'static str,
    /// Name of the cipher suite.
    pub cipher: String,
    /// Name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// The peer's certificate, DER.
    pub peer: Option<Arc<[u8]>>,
    /// Ours.
    pub own: Option<Arc<[u8]>>,
    /// The peer's certificate is of someone trusted.
    pub verified: bool,
}

/// What a module sets about the connections of a transport. The modules of transports add theirs to `Hooks::list` when they
/// are ready; the driver of the workers asks `Shared::stream_setting`. Certificates are registered likewise, as
/// `Arc<dyn net::link::TlsSetup>`.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    pub transport: sip::Transport,
    /// A double CRLF is answered with one (RFC 5626 §3.5.1).
    pub pong: Option<bool>,
    /// Messages that may wait for one connection.
    pub queue: Option<usize>,
    /// WebSocket handshakes must have an Origin.
    pub require_origin: Option<bool>,
    /// What WebSocket handshakes begun here ask for.
    pub resource: Option<String>,
    /// Longest that handshakes may take, milliseconds.
    pub handshake_ms: Option<u64>,
}

impl StreamSettings {
    /// Nothing is set.
    pub fn of(transport: sip::Transport) -> StreamSettings {
        let (pong, queue, require_origin, resource, handshake_ms) = Default::default();
        StreamSettings { transport, pong, queue, require_origin, resource, handshake_ms }
    }
}

/// What core parameters say about which connection a message may take.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rules {
    /// `tcp_accept_aliases`: `;alias` in a Via is believed (RFC 5923).
    pub accept_aliases: bool,
    /// Mask of `tcp_no_new_conn_bflag`.
    pub no_new_for_requests: u32,
    /// Mask of `tcp_no_new_conn_rplflag`.
    pub no_new_for_replies: u32,
}

/// What all workers know of stream connections.
#[derive(Default)]
pub struct Streams {
    pub rules: Rules,
    connections: OnceLock<Arc<dyn Connections>>,
}

impl Streams {
    pub(crate) fn new(loader: &mut Loader) -> Streams {
        Streams { rules: Rules::read(loader), ..Streams::default() }
    }

    /// The stream connections, when a driver has some.
    pub fn connections(&self) -> Option<&Arc<dyn Connections>> {
        self.connections.get()
    }
}

impl Shared {
    /// What the first module says that sets this about a transport.
    pub fn stream_setting<T>(
        &self,
        transport: sip::Transport,
        read: impl Fn(&StreamSettings) -> Option<T>,
    ) -> Option<T> {
        let all = self.hooks.listed::<StreamSettings>().iter();
        all.filter(|set| set.transport == transport).find_map(read)
    }

    /// The stream connections, when a driver has some.
    pub fn connections(&self) -> Option<&Arc<dyn Connections>> {
        self.part::<Streams>().connections()
    }

    /// For the driver of the workers, once.
    pub fn set_connections(&self, connections: Arc<dyn Connections>) {
        let _ = self.part::<Streams>().connections.set(connections);
    }
}

impl Rules {
    fn read(loader: &mut Loader) -> Rules {
        let core = loader.globals.core.clone();
        let mut rules = Rules { accept_aliases: core.tcp_accept_aliases, ..Rules::default() };
        if let Some(flag) = core.tcp_no_new_conn_bflag {
            match loader.branch_flag(flag.as_bytes(), Loc::default()) {
                Ok(bit) => rules.no_new_for_requests = bit,
                Err(e) => loader.diagnostics.push(e),
            }
        }
        if let Some(flag) = core.tcp_no_new_conn_rplflag {
            match loader.flag(flag.as_bytes(), Loc::default()) {
                Ok(bit) => rules.no_new_for_replies = bit,
                Err(e) => loader.diagnostics.push(e),
            }
        }
        rules
    }
}
