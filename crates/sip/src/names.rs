//! Where a request goes, as data: the question that a URI asks of DNS and what may come back (RFC 3263).
//! Whoever does the looking up is elsewhere.

use crate::Transport;
use std::net::{IpAddr, SocketAddr};

/// What to look up: the parts of a URI that matter (RFC 3263 §4).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Query {
    /// Host name or IP address; IPv6 with or without brackets.
    pub host: String,
    /// 0: none written, so SRV records decide.
    pub port: u16,
    /// `transport=` of the URI.
    pub transport: Option<Transport>,
    pub security: Security,
}

/// Whether the scheme demands TLS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Security {
    Sip,
    Sips,
}

/// One address to try.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    pub transport: Transport,
    pub addr: SocketAddr,
}

/// Why a name has no address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("the name does not exist or has no address")]
    NoAddress,
    #[error("the name servers do not answer")]
    Unavailable,
    #[error("not a domain name")]
    BadName,
    #[error("the name asks for a transport that this server does not listen on")]
    Transport,
    #[error("too many names are being looked up")]
    Busy,
}

/// Kinds of records that the server asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordKind {
    A,
    Aaaa,
    Srv,
    Naptr,
    Txt,
    /// Names of an address; the question is the address itself.
    Ptr,
}

/// One record. Names have no final dot; the root is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    Address(IpAddr),
    Srv { priority: u16, weight: u16, port: u16, target: String },
    Naptr { order: u16, preference: u16, flags: String, service: String, regexp: String, replacement: String },
    Txt(Vec<u8>),
    Name(String),
}

/// Transport of a query that needs no lookup for it (RFC 3263 §4.1).
pub fn transport_of(query: &Query) -> Transport {
    match (query.security, query.transport) {
        (Security::Sip, Some(t)) => t,
        (Security::Sip, None) => Transport::Udp,
        (Security::Sips, Some(Transport::Ws | Transport::Wss)) => Transport::Wss,
        (Security::Sips, _) => Transport::Tls,
    }
}

/// Port when neither the URI nor an SRV record has one (RFC 3263 §4.2).
pub fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp | Transport::Sctp => 5060,
        Transport::Tls => 5061,
        Transport::Ws => 80,
        Transport::Wss => 443,
    }
}

/// The only hop of a numeric host (RFC 3263 §4.1: no lookup at all).
pub fn literal(query: &Query) -> Option<Hop> {
    let host = query.host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&query.host);
    let ip: IpAddr = host.parse().ok()?;
    let transport = transport_of(query);
    let port = if query.port == 0 { default_port(transport) } else { query.port };
    Some(Hop { transport, addr: SocketAddr::new(ip, port) })
}

/// A name that was looked up, and what is remembered of it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownName {
    pub query: Query,
    pub answer: Result<Vec<Hop>, ResolveError>,
    /// Milliseconds that it is remembered still.
    pub left_ms: u64,
}
