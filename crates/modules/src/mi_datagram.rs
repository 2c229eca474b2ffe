//! mi_datagram: management commands as JSON-RPC datagrams, over UDP or a Unix socket.
#![expect(clippy::disallowed_methods, reason = "a management socket is no part of any call")]

use host::mi;
use host::shared::{Hooks, Shared};
use host::stats::Stats;
use host::{Registrar, error};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::net::{UdpSocket, UnixDatagram};

pub struct MiDatagram {
    /// "udp:127.0.0.1:8080", "127.0.0.1:8080" or a path.
    socket: String,
    mode: u32,
    pretty: bool,
}

impl Default for MiDatagram {
    fn default() -> MiDatagram {
        MiDatagram { socket: String::new(), mode: 0o660, pretty: false }
    }
}

pub fn register(m: &mut Registrar<MiDatagram>) {
    m.param_text("socket_name", |s, v| Ok(s.socket = v.into()));
    m.param_int("unix_socket_mode", |s, v| Ok(s.mode = v as u32));
    m.param_int("pretty_printing", |s, v| Ok(s.pretty = v != 0));
    m.ignored(&["socket_buf_size"], "buffers grow as needed");
    m.ignored(&["children_count"], "one task serves all commands");
    m.ignored(&["unix_socket_group", "unix_socket_user"], "the socket belongs to the user of the server");
    m.ignored(&["socket_timeout"], "answers are sent without waiting");
    m.ignored(&["trace_destination", "trace_bwlist", "reply_indent"], "management traffic is not traced");
    m.init(|s, _| if s.socket.is_empty() { Err("socket_name is not set".into()) } else { Ok(()) });
    m.ready(ready);
}

fn ready(module: &Arc<MiDatagram>, hooks: &mut Hooks, _: &Stats) {
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

async fn serve(module: Arc<MiDatagram>, shared: Arc<Shared>) {
    let result = match module
        .socket
        .strip_prefix("unix:")
        .or(module.socket.starts_with('/').then_some(&module.socket))
    {
        Some(path) => serve_unix(&module, path, &shared).await,
        None => serve_udp(&module, &shared).await,
    };
    if let Err(e) = result {
        error!("mi_datagram", "{}: {e}", module.socket);
    }
}

async fn serve_udp(module: &MiDatagram, shared: &Arc<Shared>) -> std::io::Result<()> {
    let address = module.socket.strip_prefix("udp:").unwrap_or(&module.socket);
    let socket = UdpSocket::bind(address).await?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (n, peer) = socket.recv_from(&mut buffer).await?;
        if let Some(text) = answer(module, shared, &buffer[..n]).await {
            let _ = socket.send_to(text.as_bytes(), peer).await;
        }
    }
}

async fn serve_unix(module: &MiDatagram, path: &str, shared: &Arc<Shared>) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(module.mode))?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (n, peer) = socket.recv_from(&mut buffer).await?;
        if let (Some(text), Some(peer)) = (answer(module, shared, &buffer[..n]).await, peer.as_pathname()) {
            let _ = socket.send_to(text.as_bytes(), peer).await;
        }
    }
}

async fn answer(module: &MiDatagram, shared: &Arc<Shared>, request: &[u8]) -> Option<String> {
    let answer = mi::answer(shared, request).await?;
    if module.pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) }.ok()
}
