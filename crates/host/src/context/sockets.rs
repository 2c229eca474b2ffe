//! Where the server listens, and the names under which it is known.

use crate::context::shared::Shared;
use sip::{SocketNames, Transport};
use std::net::{IpAddr, SocketAddr};

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

impl Listen {
    /// Bound to all addresses of the machine.
    pub fn is_wildcard(&self) -> bool {
        self.addr.ip().is_unspecified()
    }

    /// As printed into a message that comes or goes by this address of ours: the advertised name, else the address
    /// itself, where the socket is bound to all of them.
    pub fn names_at(&self, local: Option<IpAddr>) -> SocketNames {
        let mut names = self.names.clone();
        if let Some(ip) = local.filter(|_| self.is_wildcard() && names.host == host_text(self.addr)) {
            names.host = host_text(SocketAddr::new(ip, 0)).into();
        }
        names
    }

    /// The socket as a message sees it that came to this address of ours.
    pub fn at(&self, local: Option<IpAddr>) -> Listen {
        let mut own = self.clone();
        if let Some(ip) = local.filter(|_| self.is_wildcard()) {
            own.names = self.names_at(local);
            own.addr.set_ip(ip);
        }
        own
    }
}

/// The socket of ours that `[proto:]host[:port]` names: by its address, the name it is known under, or its tag.
pub fn socket_named(sockets: &[Listen], text: &str) -> Option<u16> {
    let text = text.trim();
    let (transport, place) =
        match text.split_once(':').map(|(word, rest)| (Transport::parse(word.as_bytes()), rest)) {
            Some((Some(transport), rest)) => (Some(transport), rest),
            _ => (None, text),
        };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (place, 0),
    };
    let ip = sip::host_ip(host.as_bytes());
    let same = |socket: &Listen| {
        let by_address = ip == Some(socket.addr.ip()) && (port == 0 || port == socket.addr.port());
        let names = &socket.names;
        let by_name = names.host.eq_ignore_ascii_case(host.as_bytes()) && (port == 0 || port == names.port);
        let by_tag = socket.tag.as_deref() == Some(text);
        by_tag || (transport.is_none_or(|t| t == socket.transport) && (by_address || by_name))
    };
    sockets.iter().position(same).map(|at| at as u16)
}

impl Shared {
    /// How rows and lists name a socket: "udp:10.0.0.1:5060"; empty when there is no such.
    pub fn socket_text(&self, index: u16) -> String {
        let socket = self.sockets.get(usize::from(index));
        socket.map_or_else(String::new, |s| format!("{}:{}", s.transport.as_str(), s.addr))
    }

    /// The socket of this name, see [`socket_named`].
    pub fn socket_named(&self, name: &str) -> Option<u16> {
        socket_named(&self.sockets, name)
    }
}

/// Addresses of this machine that sockets bound to all of them know.
const MAX_LOCAL: usize = 4096;

impl Shared {
    /// A message came to this address by a socket that is bound to all of them, or goes out from it: it is one of ours.
    /// Its number for `Path::local`.
    pub fn note_local(&self, ip: IpAddr) -> u16 {
        let known = |all: &[IpAddr]| all.iter().position(|one| *one == ip).map(|at| at as u16 + 1);
        if let Some(number) = known(&self.local_addresses.read()) {
            return number;
        }
        let mut all = self.local_addresses.write();
        if let Some(number) = known(&all) {
            return number;
        }
        if all.len() >= MAX_LOCAL {
            return 0;
        }
        all.push(ip);
        all.len() as u16
    }

    /// The address of this number.
    pub fn local_address(&self, number: u16) -> Option<IpAddr> {
        let at = usize::from(number).checked_sub(1)?;
        self.local_addresses.read().get(at).copied()
    }

    /// A socket that is bound to all addresses listens on this one too. Port 0: any.
    pub fn hears(&self, socket: &Listen, ip: IpAddr, port: u16) -> bool {
        socket.is_wildcard()
            && socket.addr.is_ipv4() == ip.is_ipv4()
            && (port == 0 || port == socket.addr.port())
            && self.local_addresses.read().contains(&ip)
    }

    /// True when host and port of `uri` name this server, whatever its transport.
    pub fn is_own(&self, uri: &sip::Uri) -> bool {
        self.is_myself(&uri.host, uri.port_or_default(), None)
    }

    /// True when host and port (0: any) name this server (`myself`): sockets, advertised names, aliases.
    pub fn is_myself(&self, host: &[u8], port: u16, transport: Option<Transport>) -> bool {
        let ip = std::cell::LazyCell::new(|| sip::host_ip(host));
        self.sockets.iter().filter(|s| transport.is_none_or(|wanted| wanted == s.transport)).any(|s| {
            (port == 0 || port == s.names.port) && s.names.host.eq_ignore_ascii_case(host)
                || (port == 0 || port == s.addr.port()) && *ip == Some(s.addr.ip())
                || s.is_wildcard() && ip.is_some_and(|ip| self.hears(s, ip, port))
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

/// A host as it stands in URIs and Vias: an IPv6 address that was written without brackets gets them.
pub fn bracketed(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    }
}
