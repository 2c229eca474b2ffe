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
    /// The scheme of the URI.
    pub security: Security,
}

/// Whether the scheme demands TLS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Security {
    /// `sip:`
    Sip,
    /// `sips:`: TLS to the next hop.
    Sips,
}

/// One address to try.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    /// How it is reached.
    pub transport: Transport,
    /// Address and port.
    pub addr: SocketAddr,
}

/// Why a name has no address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum ResolveError {
    /// NXDOMAIN, or no record that leads to an address.
    #[error("the name does not exist or has no address")]
    NoAddress,
    /// None of them answered in time.
    #[error("the name servers do not answer")]
    Unavailable,
    /// It has an empty or too long label.
    #[error("not a domain name")]
    BadName,
    /// NAPTR and SRV name only others.
    #[error("the name asks for a transport that this server does not listen on")]
    Transport,
    /// The bound on look-ups is reached.
    #[error("too many names are being looked up")]
    Busy,
}

/// Kinds of records that the server asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names say it")]
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
    /// A, AAAA.
    Address(IpAddr),
    /// RFC 2782.
    #[expect(missing_docs, reason = "the names say it")]
    Srv { priority: u16, weight: u16, port: u16, target: String },
    /// RFC 3403.
    #[expect(missing_docs, reason = "the names say it")]
    Naptr { order: u16, preference: u16, flags: String, service: String, regexp: String, replacement: String },
    /// The strings of one TXT record, joined.
    Txt(Vec<u8>),
    /// PTR.
    Name(String),
}

/// Transport of a query that needs no lookup for it (RFC 3263 §4.1).
pub fn transport_of(query: &Query) -> Transport {
    transport_for(query.security, query.transport)
}

fn transport_for(security: Security, transport: Option<Transport>) -> Transport {
    match (security, transport) {
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
    Some(hop_to(host.parse().ok()?, query.port, query.transport, query.security))
}

/// The hop to an address; port 0: that of the transport.
pub fn hop_to(ip: IpAddr, port: u16, transport: Option<Transport>, security: Security) -> Hop {
    let transport = transport_for(security, transport);
    let port = if port == 0 { default_port(transport) } else { port };
    Hop { transport, addr: SocketAddr::new(ip, port) }
}

/// A name that was looked up, and what is remembered of it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownName {
    /// What was asked.
    pub query: Query,
    /// What was answered.
    pub answer: Result<Vec<Hop>, ResolveError>,
    /// Milliseconds that it is remembered still.
    pub left_ms: u64,
}
