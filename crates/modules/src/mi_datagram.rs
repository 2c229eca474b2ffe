//! mi_datagram: management commands as JSON-RPC datagrams, over UDP or a Unix socket.
#![expect(clippy::disallowed_methods, reason = "a management socket is no part of any call")]

use crate::own_file::{self, Access, OwnFile, OwnFileKind};
use host::Accepts;
use host::context::full::Full;
use host::mi;
use host::outage::Outage;
use host::registrar::ParamFn;
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::{Registrar, error, notice};
use parking_lot::Mutex;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::Semaphore;

/// Commands at a time; further ones wait in the socket, whose buffer is their bound.
const AT_ONCE: usize = 256;
/// Between two tries.
const RETRY: Duration = Duration::from_millis(10);

pub struct MiDatagram {
    /// "udp:127.0.0.1:8080", "127.0.0.1:8080" or a path.
    socket: String,
    access: Access,
    pretty: bool,
    /// How long a client may take to read what it was sent before.
    timeout: Duration,
    bound: Mutex<Option<Bound>>,
    /// Answers that their clients did not take.
    lost: Full,
    /// Commands had to wait for others.
    crowded: Full,
}

impl Default for MiDatagram {
    fn default() -> MiDatagram {
        MiDatagram {
            socket: String::new(),
            access: Access { mode: 0o660, ..Access::default() },
            pretty: false,
            timeout: Duration::from_secs(2),
            bound: Mutex::default(),
            lost: Full::default(),
            crowded: Full::default(),
        }
    }
}

pub fn register(m: &mut Registrar<MiDatagram>) {
    m.param_text("socket_name", |s, v| Ok(s.socket = v.into()));
    m.param_int("unix_socket_mode", |s, v| Ok(s.access.mode = v as u32 & 0o777));
    m.param_int("pretty_printing", |s, v| Ok(s.pretty = v != 0));
    m.accepts(Accepts::range(0, 0o7777), &["unix_socket_mode"]);
    m.accepts(Accepts::from(0).unit("ms"), &["socket_timeout"]);
    m.ignored(&["socket_buf_size"], "buffers grow as needed");
    m.ignored(&["children_count"], "each command has a task of its own");
    m.param("unix_socket_user", ParamFn::Any(|s, v| Ok(s.access.user = Some(own_file::owner_text(v)))));
    m.param("unix_socket_group", ParamFn::Any(|s, v| Ok(s.access.group = Some(own_file::owner_text(v)))));
    m.param_int("socket_timeout", |s, v| Ok(s.timeout = Duration::from_millis(v.clamp(0, 60_000) as u64)));
    m.ignored(&["trace_destination", "trace_bwlist", "reply_indent"], "management traffic is not traced");
    m.init(|s, _| if s.socket.is_empty() { Err("socket_name is not set".into()) } else { Ok(()) });
    m.ready(ready);
}

fn ready(module: &Arc<MiDatagram>, hooks: &mut Hooks, stats: &Stats) {
    module.lost.show(stats, "mi_datagram", "lost_answers");
    module.crowded.show(stats, "mi_datagram", "delayed_requests");
    let opening = module.clone();
    hooks.openings.push(Arc::new(move || open(&opening)));
    let lacking = module.clone();
    let path = move || unix_path(&lacking.socket).and_then(|path| own_file::folder_missing(Path::new(path)));
    hooks.lacks.push(("mi_datagram", Arc::new(move || path().into_iter().collect())));
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

/// The path of a Unix socket; `None`: an address.
fn unix_path(name: &str) -> Option<&str> {
    name.strip_prefix("unix:").or(name.starts_with('/').then_some(name))
}

/// The socket, bound at the start.
enum Bound {
    Udp(std::net::UdpSocket),
    Unix(OwnFile, std::os::unix::net::UnixDatagram),
}

fn open(module: &MiDatagram) -> Result<(), String> {
    let name = &module.socket;
    let bound = match unix_path(name) {
        Some(path) => {
            let path = Path::new(path);
            let bind = || std::os::unix::net::UnixDatagram::bind(path);
            let made = own_file::make(path, OwnFileKind::Socket, &module.access, bind);
            let (file, socket) = made.map_err(|e| format!("mi_datagram: {e}"))?;
            Bound::Unix(file, socket)
        }
        None => {
            let address = name.strip_prefix("udp:").unwrap_or(name);
            let bound = std::net::UdpSocket::bind(address);
            Bound::Udp(bound.map_err(|e| format!("mi_datagram: cannot listen on {address}: {e}"))?)
        }
    };
    *module.bound.lock() = Some(bound);
    Ok(())
}

async fn serve(module: Arc<MiDatagram>, shared: Arc<Shared>) {
    let served = match module.bound.lock().take() {
        None => return,
        Some(Bound::Udp(socket)) => {
            let socket = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket));
            socket.map(|socket| (None, Socket::Udp(socket)))
        }
        Some(Bound::Unix(file, socket)) => {
            let both = socket.set_nonblocking(true).and_then(|()| Ok((socket.try_clone()?, socket)));
            let both = both.and_then(|(out, socket)| Ok(Socket::Unix(UnixDatagram::from_std(socket)?, out)));
            both.map(|socket| (Some(file), socket))
        }
    };
    match served {
        Ok((_own, socket)) => receive(&module, &shared, Arc::new(socket)).await,
        Err(e) => error!("mi_datagram", "{}: {e}", module.socket),
    }
}

enum Socket {
    Udp(UdpSocket),
    /// The same twice: the runtime takes one client that does not read for the whole socket being blocked.
    Unix(UnixDatagram, std::os::unix::net::UnixDatagram),
}

/// Who asked.
enum Client {
    Udp(SocketAddr),
    Unix(PathBuf),
    /// A socket without a name: it cannot be answered.
    Nobody,
}

impl Socket {
    async fn receive(&self, buffer: &mut [u8]) -> std::io::Result<(usize, Client)> {
        match self {
            Socket::Udp(socket) => socket.recv_from(buffer).await.map(|(n, peer)| (n, Client::Udp(peer))),
            Socket::Unix(socket, _) => {
                let (n, peer) = socket.recv_from(buffer).await?;
                Ok((n, peer.as_pathname().map_or(Client::Nobody, |path| Client::Unix(path.to_owned()))))
            }
        }
    }

    /// Sends an answer. A Unix client whose queue is full blocks the sender, and the system does not tell when that has
    /// passed: it is tried again for a while.
    async fn send(&self, text: &[u8], client: &Client, limit: Duration) -> std::io::Result<()> {
        match (self, client) {
            (Socket::Udp(socket), Client::Udp(peer)) => socket.send_to(text, peer).await.map(drop),
            (Socket::Unix(_, socket), Client::Unix(path)) => {
                let end = tokio::time::Instant::now() + limit;
                loop {
                    match socket.send_to(text, path) {
                        Err(e) if e.kind() == ErrorKind::WouldBlock && tokio::time::Instant::now() < end => {
                            tokio::time::sleep(RETRY).await;
                        }
                        result => return result.map(drop),
                    }
                }
            }
            _ => Ok(()),
        }
    }
}

async fn receive(module: &Arc<MiDatagram>, shared: &Arc<Shared>, socket: Arc<Socket>) {
    let mut buffer = vec![0; 65_536];
    let outage = Outage::default();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        if places.available_permits() > 0 {
            module.crowded.taken();
        } else if module.crowded.refused() {
            notice!("mi_datagram", "{AT_ONCE} commands are under way, further ones wait");
        }
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (n, client) = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                if outage.begins() {
                    error!("mi_datagram", "cannot receive on {}: {e}; it is tried again", module.socket);
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        outage.ends();
        let (module, shared, socket) = (module.clone(), shared.clone(), socket.clone());
        let request = buffer[..n].to_vec();
        // Each in a task of its own: one that waits holds back no other.
        tokio::spawn(async move {
            let _place = place;
            let Some(text) = answer(&module, &shared, &request).await else { return };
            if let Err(e) = socket.send(text.as_bytes(), &client, module.timeout).await {
                let who = match client {
                    Client::Udp(peer) => peer.to_string(),
                    Client::Unix(path) => path.display().to_string(),
                    Client::Nobody => return,
                };
                if module.lost.refused() {
                    notice!("mi_datagram", "the answer to {who} is lost, {} bytes: {e}", text.len());
                }
            } else {
                module.lost.taken();
            }
        });
    }
}

async fn answer(module: &MiDatagram, shared: &Arc<Shared>, request: &[u8]) -> Option<String> {
    let answer = mi::answer(shared, request).await?;
    if module.pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) }.ok()
}
