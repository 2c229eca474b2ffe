//! Where a server is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which addresses of a name count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Family {
    #[default]
    Any,
    V4,
    V6,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    Udp {
        host: String,
        port: u16,
        family: Family,
    },
    /// Questions over a TCP connection, one behind the other, without a frame of their own.
    Tcp {
        host: String,
        port: u16,
        family: Family,
    },
    /// A WebSocket with this subprotocol.
    Ws {
        host: String,
        port: u16,
        family: Family,
        resource: String,
        protocol: &'static str,
    },
    /// A stream socket: one connection for each question.
    Unix(PathBuf),
}

/// A server. Workers have sockets of their own for it.
#[derive(Debug)]
pub struct Peer {
    pub(super) id: u64,
    pub address: Address,
    /// What its sockets are bound to.
    pub bind: Option<IpAddr>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Peer {
    pub fn new(address: Address, bind: Option<IpAddr>) -> Peer {
        Peer { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), address, bind }
    }
}

/// The first address of a name that fits; names are looked up on a thread of their own.
pub(super) async fn resolve(host: &str, port: u16, family: Family) -> io::Result<SocketAddr> {
    let fits = |ip: IpAddr| match family {
        Family::Any => true,
        Family::V4 => ip.is_ipv4(),
        Family::V6 => ip.is_ipv6(),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut found = tokio::net::lookup_host((host, port)).await?;
    found.find(|a| fits(a.ip())).ok_or_else(|| io::Error::other(format!("{host} has no address")))
}
