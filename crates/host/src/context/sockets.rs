//! Where the server listens, and the names under which it is known.

use crate::context::shared::Shared;
use sip::{SocketNames, Transport};
use std::net::SocketAddr;

/// A listening socket (`socket=` / `listen=`).
#[derive(Clone, Debug)]
pub struct Listen {
    pub transport: Transport,
    pub addr: SocketAddr,
    /// As printed into messages: the advertised name if there is one.
    pub names: SocketNames,
    /// True when `names` is not the bound address.
    pub advertised: bool,
    pub tag: Option<String>,
    /// As written, for lists.
    pub text: String,
}

impl Shared {
    /// True when host and port (0: any) name this server (`myself`): sockets, advertised names, aliases.
    pub fn is_myself(&self, host: &[u8], port: u16, transport: Option<Transport>) -> bool {
        let same = |h: &[u8], p: u16, t: Transport| {
            h.eq_ignore_ascii_case(host)
                && (port == 0 || port == p)
                && transport.is_none_or(|wanted| wanted == t)
        };
        self.sockets.iter().any(|s| {
            same(&s.names.host, s.names.port, s.transport)
                || same(host_text(s.addr).as_bytes(), s.addr.port(), s.transport)
        }) || self.globals.aliases.iter().any(|a| {
            (a.host.as_bytes().eq_ignore_ascii_case(host)
                || (a.subdomains && is_below(host, a.host.as_bytes())))
                && (port == 0 || a.port == 0 || a.port == port)
                && (a.transport.is_none() || transport.is_none() || a.transport == transport)
        })
    }
}

/// `a.example.org` is below `example.org`.
fn is_below(host: &[u8], domain: &[u8]) -> bool {
    let Some(dot) = host.len().checked_sub(domain.len() + 1) else { return false };
    host[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(domain)
}

/// "10.0.0.1" or "[::1]"
pub fn host_text(addr: SocketAddr) -> String {
    match addr {
        SocketAddr::V4(a) => a.ip().to_string(),
        SocketAddr::V6(a) => format!("[{}]", a.ip()),
    }
}
