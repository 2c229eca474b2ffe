//! One destination of a table.

use super::Standing;
use bytes::Bytes;
use host::Shared;
use parking_lot::RwLock;
use sip::names::{Hop, Query, Security, literal, transport_of};
use sip::{Scheme, Transport, Uri};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Whether a destination may be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    Active = 0,
    /// Not chosen, not probed: it comes back by a command or a script only.
    Inactive = 1,
    /// Not chosen until a probe succeeds.
    Probing = 2,
}

impl State {
    /// As tables have it: 0, 1, 2.
    pub fn of_column(n: i64) -> Option<State> {
        [State::Active, State::Inactive, State::Probing].into_iter().find(|state| *state as i64 == n)
    }
}

/// Where a message came from, or where one would go. Port 0 and no transport: any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub ip: IpAddr,
    pub port: u16,
    pub transport: Option<Transport>,
}

impl Place {
    /// An address as scripts write it, IPv6 with or without brackets; `None`: it is none.
    pub fn parse(ip: &[u8], port: u16) -> Option<Place> {
        Some(Place { ip: sip::host_ip(ip)?, port, transport: None })
    }
}

/// One destination. Shared by all workers, and by the table before and after a reload.
pub struct Destination {
    /// As the table has it.
    pub uri: Bytes,
    /// Index into `Shared::sockets`: what requests to it leave by; `None`: any.
    pub socket: Option<u16>,
    /// What its URI asks of DNS; `None`: its host is an address.
    pub(super) query: Option<Query>,
    /// Best first (RFC 3263). Port 0: any, because its transport is not loaded and has no default.
    hops: RwLock<Arc<[Hop]>>,
    pub standing: Arc<Standing>,
    /// Failures in a row, for thresholds.
    pub failures: AtomicU32,
    /// Calls that were sent there first.
    pub hits: AtomicU64,
    /// A probe is on its way.
    pub(super) probed: AtomicBool,
}

impl Destination {
    /// The error says what is wrong with the URI.
    pub fn new(
        shared: &Shared,
        uri: &Bytes,
        socket: Option<u16>,
        state: State,
    ) -> Result<Destination, String> {
        let parsed = Uri::parse(uri).map_err(|e| e.to_string())?;
        if parsed.host.is_empty() || !matches!(parsed.scheme, Scheme::Sip | Scheme::Sips) {
            return Err("it is no SIP URI of a host".into());
        }
        let query = Query {
            host: String::from_utf8_lossy(&parsed.host).into_owned(),
            port: parsed.port,
            transport: parsed.transport(),
            security: if parsed.scheme == Scheme::Sips { Security::Sips } else { Security::Sip },
        };
        let hop = literal(&query).map(|mut hop| {
            if query.port == 0 && !is_loaded(shared, transport_of(&query)) {
                hop.addr.set_port(0);
            }
            hop
        });
        Ok(Destination {
            uri: uri.clone(),
            socket,
            query: hop.is_none().then_some(query),
            hops: RwLock::new(hop.into_iter().collect()),
            standing: Arc::new(Standing::new(state)),
            failures: AtomicU32::new(0),
            hits: AtomicU64::new(0),
            probed: AtomicBool::new(false),
        })
    }

    /// Addresses, best first; empty while its name has none.
    pub fn hops(&self) -> Arc<[Hop]> {
        self.hops.read().clone()
    }

    pub(super) fn set_hops(&self, hops: Vec<Hop>) {
        *self.hops.write() = hops.into();
    }

    /// Its name has an address, or it needs none.
    pub fn is_known(&self) -> bool {
        !self.hops.read().is_empty()
    }

    pub fn state(&self) -> State {
        self.standing.state()
    }

    pub fn is_active(&self) -> bool {
        self.state() == State::Active
    }

    /// Changes the state, to be saved; false: it was that already.
    pub fn set_state(&self, state: State) -> bool {
        self.standing.set(state)
    }

    /// The state that the table says.
    pub fn load_state(&self, state: State) {
        self.standing.load(state);
    }

    /// One failure more; true: there are `threshold` of them, which stays so until `failures` is set back.
    pub fn failed(&self, threshold: u32) -> bool {
        let more = |count: u32| Some(count.saturating_add(1).min(threshold.max(1)));
        let before = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.is_ok_and(|count| count.saturating_add(1) >= threshold)
    }

    /// One of its addresses is this one.
    pub fn is_at(&self, place: &Place) -> bool {
        let ip = place.ip.to_canonical();
        self.hops.read().iter().any(|hop| {
            let port = hop.addr.port();
            hop.addr.ip() == ip
                && (port == 0 || place.port == 0 || port == place.port)
                && place.transport.is_none_or(|t| t == hop.transport)
        })
    }

    /// "127.0.0.1:5060" of each address, as management prints them.
    pub fn addresses(&self) -> Vec<String> {
        let text = |addr: SocketAddr| format!("{}:{}", host::context::net::long_text(addr.ip()), addr.port());
        self.hops.read().iter().map(|hop| text(hop.addr)).collect()
    }
}

/// The module of a transport is loaded.
fn is_loaded(shared: &Shared, transport: Transport) -> bool {
    let is = |name: &&str| name.strip_prefix("proto_") == Some(transport.as_str());
    shared.module_names.iter().any(is)
}

/// The destination of before where it goes on being the same, with state and counters; else the new one.
pub fn kept(old: Option<&Arc<Destination>>, new: Destination) -> Arc<Destination> {
    match old {
        Some(old) if old.uri == new.uri && old.socket == new.socket => old.clone(),
        _ => Arc::new(new),
    }
}
