//! Endpoints over a restart: one a line, "uri socket registered subscribed" (the ends in Unix seconds), written when
//! the server ends.

use super::NatTraversal;
use super::endpoints::Endpoint;
use bytes::Bytes;
use host::shared::Listen;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use transaction::Path as Way;

/// Writes what is alive.
pub fn write(file: &Path, module: &NatTraversal, sockets: &[Listen]) {
    let mut text = String::new();
    module.endpoints.each(|uri, endpoint| {
        let socket = sockets.get(usize::from(endpoint.path.socket));
        let Some(socket) = socket.filter(|_| endpoint.registered + endpoint.subscribed > 0) else { return };
        let uri = String::from_utf8_lossy(uri);
        text.push_str(&format!(
            "{uri} {}:{} {} {}\n",
            socket.transport.as_str(),
            socket.addr,
            endpoint.registered,
            endpoint.subscribed
        ));
    });
    let fresh = file.with_extension("new");
    if let Err(error) = crate::own_file::private(&fresh)
        .and_then(|mut out| out.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&fresh, file))
    {
        host::error!("nat_traversal", "cannot keep the endpoints in {}: {error}", file.display());
    }
}

/// Reads what has not ended meanwhile and whose socket is still there.
pub fn read(file: &Path, module: &NatTraversal, sockets: &[Listen], now: u64) {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return host::error!("nat_traversal", "cannot read {}: {error}", file.display()),
    };
    for line in text.lines() {
        if let Some((uri, endpoint)) =
            parse(line, sockets).filter(|(_, e)| e.registered.max(e.subscribed) > now)
        {
            module.endpoints.put(uri, endpoint);
        }
    }
}

fn parse(line: &str, sockets: &[Listen]) -> Option<(Bytes, Endpoint)> {
    let words: Vec<&str> = line.split(' ').collect();
    let &[uri, socket, registered, subscribed] = &words[..] else { return None };
    let parsed = sip::Uri::parse(&Bytes::copy_from_slice(uri.as_bytes())).ok()?;
    let at = sockets.iter().position(|s| format!("{}:{}", s.transport.as_str(), s.addr) == socket)?;
    let remote = std::net::SocketAddr::new(parsed.ip()?, parsed.port_or_default());
    let path = Way { socket: at as u16, transport: sockets[at].transport, remote, local: 0, connection: 0 };
    let endpoint =
        Endpoint { path, registered: registered.parse().ok()?, subscribed: subscribed.parse().ok()? };
    Some((Bytes::copy_from_slice(uri.as_bytes()), endpoint))
}
