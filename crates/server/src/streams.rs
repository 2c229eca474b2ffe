//! Stream connections of the workers: their settings, how commands reach them, and a worker as their owner.

use crate::mailbox::{Letter, Post};
use crate::runner::Runner;
use bytes::Bytes;
use host::Shared;
use host::streams::{Connection, Connections, StreamSettings, Tls};
use net::link::ws::Origin;
use net::link::{LinkSetup, Pings, TlsSetup, WsSetup};
use net::streams::{
    Closed, Counters, Direction, Directory, Entry, Open, Owner, Peer, Settings, Socket, owner_of,
};
use net::tcp::{Keepalive, TcpOptions};
use script::Value;
use sip::Transport;
use std::rc::Weak;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use transaction::Path;

/// What all workers have in common about streams.
#[derive(Clone)]
pub struct Common {
    pub directory: Arc<Directory>,
    pub sockets: Vec<Option<Socket>>,
    pub settings: Settings,
}

impl Common {
    /// The error is what a user should read.
    pub fn new(shared: &Shared, tos: Option<u8>) -> Result<Common, String> {
        let sockets = shared.sockets.iter().map(|socket| match socket.transport {
            Transport::Udp => Ok(None),
            transport => {
                let link = layers(shared, transport).map_err(|e| format!("{}: {e}", socket.text))?;
                Ok(Some(Socket { transport, local: socket.addr, link }))
            }
        });
        let sockets = sockets.collect::<Result<_, String>>()?;
        Ok(Common { directory: Arc::default(), sockets, settings: settings(shared, tos) })
    }
}

/// The layers of connections of one transport.
fn layers(shared: &Shared, transport: Transport) -> Result<LinkSetup, String> {
    let tls = match transport {
        Transport::Tls | Transport::Wss => Some(tls_setup(shared)?),
        _ => None,
    };
    let ws = matches!(transport, Transport::Ws | Transport::Wss).then(|| {
        let required = shared.stream_setting(transport, |set| set.require_origin).unwrap_or(true);
        let resource = shared.stream_setting(transport, |set| set.resource.clone());
        WsSetup {
            origin: if required { Origin::Required } else { Origin::Optional },
            resource: resource.unwrap_or_else(|| "/".into()),
        }
    });
    // WebSockets have pings of their own; what is set for TCP counts for the rest.
    let asked = if transport == Transport::Tls { Transport::Tls } else { Transport::Tcp };
    let answered = shared.stream_setting(asked, |set| set.pong).unwrap_or(true);
    Ok(LinkSetup { tls, ws, pings: if answered { Pings::Answered } else { Pings::Ignored } })
}

/// The domains that connections ask: the first that some module has and that can serve.
fn tls_setup(shared: &Shared) -> Result<Arc<dyn TlsSetup>, String> {
    let all = shared.hooks.listed::<Arc<dyn TlsSetup>>();
    match all.iter().find(|domains| domains.serves()) {
        Some(domains) => Ok(domains.clone()),
        None if all.is_empty() => Err("TLS needs the module tls_mgm".into()),
        None => Err("there is no TLS domain with a certificate (tls_mgm)".into()),
    }
}

/// Longest that handshakes may take: what scripts set for TLS and WebSocket, but not so short that it would
/// be a matter of distance; nothing waits for it.
fn handshake(shared: &Shared, default: u64) -> u64 {
    const SHORTEST: u64 = 2_000;
    let set = shared.hooks.listed::<StreamSettings>().iter().filter_map(|set| set.handshake_ms);
    set.max().map_or(default, |ms| ms.max(SHORTEST))
}

/// Limits and options: core parameters `tcp_*`.
pub fn settings(shared: &Shared, tos: Option<u8>) -> Settings {
    let default = Settings::default();
    let core = &shared.globals.core;
    let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    let seconds = |n: i64| number(Some(n)).map(Duration::from_secs).filter(|s| !s.is_zero());
    let details = [core.tcp_keepidle, core.tcp_keepinterval, core.tcp_keepcount];
    let wanted = core.tcp_keepalive || details.iter().any(|n| *n > 0);
    let keepalive = Keepalive {
        idle: seconds(core.tcp_keepidle),
        interval: seconds(core.tcp_keepinterval),
        count: u32::try_from(core.tcp_keepcount).ok().filter(|n| *n > 0),
    };
    let queue = shared.stream_setting(Transport::Tcp, |set| set.queue);
    Settings {
        handshake: handshake(shared, default.handshake),
        lifetime: number(core.tcp_connection_lifetime).map_or(default.lifetime, |s| s.max(1) * 1000),
        message: number(core.tcp_max_msg_time).map_or(default.message, |s| s.max(1) * 1000),
        queue: queue.unwrap_or(default.queue),
        max_accepted: number(core.tcp_max_connections).map_or(default.max_accepted, |n| n as usize),
        tcp: TcpOptions {
            backlog: number(core.tcp_socket_backlog)
                .map_or(default.tcp.backlog, |n| n.clamp(1, 65_535) as u32),
            keepalive: wanted.then_some(keepalive),
            connect_timeout: number(core.tcp_connect_timeout)
                .map_or(default.tcp.connect_timeout, |ms| Duration::from_millis(ms.max(1))),
            tos,
        },
        ..default
    }
}

/// Shows what happened to connections as statistics of the group `tcp`.
pub fn show(shared: &Shared, directory: &Arc<Directory>) {
    type Pick = fn(&Counters) -> &AtomicI64;
    let counters: [(&str, Pick); 16] = [
        ("tcp_accepted", |c| &c.accepted),
        ("tcp_connected", |c| &c.connected),
        ("tcp_connect_failed", |c| &c.connect_failed),
        ("tcp_refused", |c| &c.refused),
        ("tcp_closed_by_peer", |c| &c.closed_by_peer),
        ("tcp_closed_idle", |c| &c.closed_idle),
        ("tcp_closed_slow", |c| &c.closed_slow),
        ("tcp_closed_bad", |c| &c.closed_bad),
        ("tcp_closed_error", |c| &c.closed_error),
        ("tcp_closed_here", |c| &c.closed_here),
        ("tcp_send_overflow", |c| &c.overflowed),
        ("tcp_undelivered", |c| &c.undelivered),
        ("tcp_bytes_in", |c| &c.bytes_in),
        ("tcp_bytes_out", |c| &c.bytes_out),
        ("tcp_accept_failed", |c| &c.accept_failed),
        ("tcp_queued_bytes", |c| &c.queued),
    ];
    for (name, pick) in counters {
        let directory = directory.clone();
        shared.stats.computed("tcp", name, move || pick(&directory.counters).load(Ordering::Relaxed));
    }
    let directory = directory.clone();
    shared.stats.computed("tcp", "tcp_connections", move || directory.len() as i64);
}

/// Commands and scripts look connections up here; their workers close them.
pub struct Switchboard {
    pub common: Common,
    pub post: Arc<Post>,
    pub epoch: Instant,
}

impl Switchboard {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    fn show(&self, entry: &Entry) -> Connection {
        let end = entry.used.load(Ordering::Relaxed) + self.common.settings.lifetime;
        let end = end.max(entry.keep.load(Ordering::Relaxed));
        Connection {
            id: entry.id,
            socket: entry.socket,
            transport: entry.transport,
            remote: entry.remote,
            local: entry.local.get().copied(),
            accepted: entry.direction == Direction::Accepted,
            open: entry.open.load(Ordering::Relaxed),
            left: end.saturating_sub(self.now()) / 1000,
            aliases: entry.aliases().to_vec(),
            tls: tls_of(entry),
        }
    }
}

fn tls_of(entry: &Entry) -> Option<Arc<Tls>> {
    let info = entry.tls.get()?;
    Some(Arc::new(Tls {
        version: info.version,
        cipher: info.cipher.clone(),
        server_name: info.server_name.clone(),
        peer: info.peer.clone(),
        own: info.own.clone(),
        verified: info.verified,
    }))
}

impl Connections for Switchboard {
    fn list(&self) -> Vec<Connection> {
        self.common.directory.list().iter().map(|entry| self.show(entry)).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        match path.connection_id() {
            0 => self.common.directory.exists(path.socket, path.remote),
            id => self.common.directory.get(id).is_some(),
        }
    }

    fn tls(&self, id: u64) -> Option<Arc<Tls>> {
        self.common.directory.get(id).and_then(|entry| tls_of(&entry))
    }

    fn close(&self, id: u64) -> bool {
        let known = self.common.directory.get(id).is_some();
        if known && let Some(mailbox) = self.post.boxes.get(usize::from(owner_of(id))) {
            mailbox.close(id);
        }
        known
    }

    fn alias(&self, id: u64, port: u16) -> bool {
        self.common.directory.alias(id, port)
    }

    fn keep(&self, id: u64, ms: u64) {
        if let Some(entry) = self.common.directory.get(id) {
            entry.keep.fetch_max(self.now() + ms, Ordering::Relaxed);
        }
    }
}

/// What a path of the transactions means to connections.
pub fn peer(shared: &Shared, path: &Path) -> Peer {
    Peer {
        socket: path.socket,
        transport: path.transport,
        remote: path.remote,
        local: shared.local_address(path.local),
        connection: path.connection_id(),
        open: if path.is_only_existing() { Open::Never } else { Open::Allowed },
        hint: path.hint(),
    }
}

fn path(shared: &Shared, peer: &Peer) -> Path {
    let Peer { socket, transport, remote, local, connection, open, .. } = *peer;
    let local = local.map_or(0, |ip| shared.note_local(ip));
    let path = Path { socket, transport, remote, local, connection };
    if open == Open::Never { path.only_existing() } else { path }
}

/// The worker whose calls come and go by the connections.
pub struct OwnerOf(pub Weak<Runner>);

impl Owner for OwnerOf {
    fn received(&self, from: Peer, messages: &mut Vec<Bytes>, at_us: u64) {
        if let Some(runner) = self.0.upgrade() {
            runner.on_messages(path(&runner.shared, &from), messages, at_us);
        }
    }

    fn is_busy(&self) -> bool {
        self.0.upgrade().is_some_and(|runner| runner.is_busy())
    }

    fn undelivered(&self, to: Peer, messages: Vec<Bytes>) {
        if let Some(runner) = self.0.upgrade() {
            runner.on_undelivered(path(&runner.shared, &to), messages);
        }
    }

    fn pass_on(&self, worker: u16, to: Peer, bytes: Bytes) {
        if let Some(runner) = self.0.upgrade() {
            runner.pass_on(worker.into(), Letter { source: path(&runner.shared, &to), bytes, at_us: 0 });
        }
    }

    fn closed(&self, entry: &Entry, why: &Closed) {
        host::info!("core", "{} connection with {}: {why}", entry.transport.as_str(), entry.remote);
        let Some(runner) = self.0.upgrade() else { return };
        if matches!(why, Closed::Unreachable(std::io::ErrorKind::AddrInUse)) {
            runner.complain(&format!(
                "no port is left for a connection to {}: widen the range with `sysctl net.ipv4.ip_local_port_range`",
                entry.remote
            ));
        }
        let Some(local) = entry.local.get() else { return };
        let param = |name: &'static str, value: Value| (Bytes::from_static(name.as_bytes()), value);
        let params = [
            param("src_ip", entry.remote.ip().to_string().into()),
            param("src_port", i64::from(entry.remote.port()).into()),
            param("dst_ip", local.ip().to_string().into()),
            param("dst_port", i64::from(local.port()).into()),
            param("proto", entry.transport.as_str().into()),
        ];
        runner.raise(host::events::TCP_DISCONNECT, params.into_iter().collect());
    }

    fn complain(&self, text: &str) {
        if let Some(runner) = self.0.upgrade() {
            runner.complain(text);
        }
    }
}
