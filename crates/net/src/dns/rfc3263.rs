//! RFC 3263 §4: from the parts of a URI to transports, ports and addresses. Knows no sockets: records
//! come from a `Records`.

use super::records::{Failure, FoundRecords};
use super::{
    DnsOptions, FAILURE_TTL, Families, Hop, Naptr, Query, Record, RecordKind, ResolveError, Security,
};
use futures_util::future::join_all;
use sip::Transport;
use sip::names::{default_port, transport_of};
use std::net::SocketAddr;
use std::time::Duration;

/// Records of one answer that are looked at; the rest is ignored.
const MAX_RECORDS: usize = 16;
/// How long a missing record is remembered when its zone does not say.
const MISSING_TTL: Duration = Duration::from_secs(30);

/// Where records come from.
#[expect(async_fn_in_trait, reason = "its futures stay on their thread")]
pub trait Records {
    async fn find(&self, name: &str, kind: RecordKind) -> Result<FoundRecords, Failure>;
}

/// The addresses of one name, before the weights are drawn.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// In order of rank.
    choices: Vec<Choice>,
}

/// One server: an SRV record, or the host itself.
#[derive(Clone, PartialEq, Debug)]
struct Choice {
    /// Lower is tried first: NAPTR order, then SRV priority.
    rank: u32,
    weight: u16,
    transport: Transport,
    addrs: Vec<SocketAddr>,
}

impl Answer {
    /// All hops; servers of one rank in an order drawn by weight (RFC 2782). `random(n)` is below n.
    pub fn order(&self, mut random: impl FnMut(u32) -> u32) -> Vec<Hop> {
        let mut hops = Vec::with_capacity(self.choices.len());
        for rank in self.choices.chunk_by(|a, b| a.rank == b.rank) {
            let mut left: Vec<&Choice> = rank.iter().collect();
            // Weight 0 first, so that it keeps its very small chance.
            left.sort_by_key(|c| c.weight != 0);
            while !left.is_empty() {
                let total: u32 = left.iter().map(|c| u32::from(c.weight)).sum();
                let drawn = if left.len() == 1 { 0 } else { random(total + 1) };
                let mut sum = 0;
                let at = left.iter().position(|c| {
                    sum += u32::from(c.weight);
                    sum >= drawn
                });
                let choice = left.remove(at.unwrap_or(0));
                hops.extend(choice.addrs.iter().map(|addr| Hop { transport: choice.transport, addr: *addr }));
            }
        }
        hops
    }
}

/// Everything a query leads to, and how long that holds (also for an error).
pub async fn resolve(
    query: &Query,
    options: &DnsOptions,
    records: &impl Records,
) -> (Result<Answer, ResolveError>, Duration) {
    let mut search = Search { options, records, ttl: Duration::MAX, choices: Vec::new(), refused: false };
    let result = search.run(query).await;
    match result {
        Ok(()) if search.choices.is_empty() && search.refused => (Err(ResolveError::Transport), search.ttl()),
        Ok(()) if search.choices.is_empty() => (Err(ResolveError::NoAddress), search.ttl()),
        Ok(()) => {
            let ttl = search.ttl();
            (Ok(Answer { choices: search.choices }), ttl)
        }
        Err(e) => (Err(e), FAILURE_TTL),
    }
}

struct Search<'a, R> {
    options: &'a DnsOptions,
    records: &'a R,
    ttl: Duration,
    choices: Vec<Choice>,
    /// There were records, but for transports that this server does not have.
    refused: bool,
}

impl<R: Records> Search<'_, R> {
    fn ttl(&self) -> Duration {
        if self.ttl == Duration::MAX { MISSING_TTL } else { self.ttl }
    }

    async fn run(&mut self, query: &Query) -> Result<(), ResolveError> {
        let transport = transport_of(query);
        if query.port != 0 {
            return self.host(&query.host, query.port, transport, 0, 0).await;
        }
        if query.transport.is_some() {
            let found = self.service(transport, &query.host).await?;
            self.servers(&found, transport, 0).await?;
        } else {
            if self.options.naptr == Naptr::Try {
                self.naptr(query).await?;
            }
            if self.choices.is_empty() {
                self.any_service(query).await?;
            }
        }
        match self.choices.is_empty() {
            true => self.host(&query.host, default_port(transport), transport, 0, 0).await,
            false => Ok(()),
        }
    }

    /// NAPTR: which transports the domain wants, in its order (§4.1).
    async fn naptr(&mut self, query: &Query) -> Result<(), ResolveError> {
        let found = self.find(&query.host, RecordKind::Naptr).await?;
        let mut wanted: Vec<(u16, u16, Transport, &str)> = Vec::new();
        for record in &found {
            let Record::Naptr { order, preference, flags, service, replacement, .. } = record else {
                continue;
            };
            let Some(transport) = naptr_transport(service, query.security) else { continue };
            if !flags.eq_ignore_ascii_case("s") {
                continue;
            }
            match self.options.transports.contains(&transport) {
                true => wanted.push((*order, *preference, transport, replacement)),
                false => self.refused = true,
            }
        }
        wanted.sort_by_key(|(order, preference, ..)| (*order, *preference));
        for (i, (_, _, transport, name)) in wanted.into_iter().enumerate() {
            let found = self.find(name, RecordKind::Srv).await?;
            self.servers(&found, transport, (i as u32) << 16).await?;
        }
        Ok(())
    }

    /// No NAPTR: the first of our transports that the domain has an SRV record for.
    async fn any_service(&mut self, query: &Query) -> Result<(), ResolveError> {
        let ours: Vec<Transport> =
            self.options.transports.iter().copied().filter(|t| fits(*t, query.security)).collect();
        let records = self.records;
        let asked = ours.iter().filter_map(|t| service_name(*t, &query.host).map(|name| (*t, name)));
        let asked = asked.map(|(t, name)| async move { (t, records.find(&name, RecordKind::Srv).await) });
        for (transport, found) in join_all(asked).await {
            let found = self.take(found)?;
            self.servers(&found, transport, 0).await?;
            if !self.choices.is_empty() {
                break;
            }
        }
        Ok(())
    }

    async fn service(&mut self, transport: Transport, host: &str) -> Result<Vec<Record>, ResolveError> {
        match service_name(transport, host) {
            Some(name) => self.find(&name, RecordKind::Srv).await,
            None => Ok(Vec::new()),
        }
    }

    /// The servers behind SRV records.
    async fn servers(&mut self, srv: &[Record], transport: Transport, rank: u32) -> Result<(), ResolveError> {
        let mut sorted: Vec<(u16, u16, u16, &str)> = srv
            .iter()
            .filter_map(|r| match r {
                // A target of "." says that there is no such service (RFC 2782).
                Record::Srv { priority, weight, port, target } if !target.is_empty() => {
                    Some((*priority, *weight, *port, target.as_str()))
                }
                _ => None,
            })
            .collect();
        sorted.sort_by_key(|(priority, ..)| *priority);
        for (priority, weight, port, target) in sorted {
            self.host(target, port, transport, rank + u32::from(priority), weight).await?;
        }
        Ok(())
    }

    /// The addresses of one host.
    async fn host(
        &mut self,
        host: &str,
        port: u16,
        transport: Transport,
        rank: u32,
        weight: u16,
    ) -> Result<(), ResolveError> {
        let kinds: &[RecordKind] = match self.options.families {
            Families::V4 => &[RecordKind::A],
            Families::V6 => &[RecordKind::Aaaa],
            Families::V4ThenV6 => &[RecordKind::A, RecordKind::Aaaa],
        };
        for kind in kinds {
            let found = self.find(host, *kind).await?;
            let addrs = found.iter().filter_map(|r| match r {
                Record::Address(ip) => Some(SocketAddr::new(*ip, port)),
                _ => None,
            });
            let addrs: Vec<SocketAddr> = addrs.collect();
            if !addrs.is_empty() {
                self.choices.push(Choice { rank, weight, transport, addrs });
                break;
            }
        }
        Ok(())
    }

    async fn find(&mut self, name: &str, kind: RecordKind) -> Result<Vec<Record>, ResolveError> {
        let found = self.records.find(name, kind).await;
        self.take(found)
    }

    /// Missing records are no error; the answer holds as long as the shortest-lived of what it rests on.
    fn take(&mut self, found: Result<FoundRecords, Failure>) -> Result<Vec<Record>, ResolveError> {
        match found {
            Ok(mut found) => {
                self.ttl = self.ttl.min(found.ttl);
                found.records.truncate(MAX_RECORDS);
                Ok(found.records)
            }
            Err(Failure::Missing(ttl)) => {
                self.ttl = self.ttl.min(ttl.unwrap_or(MISSING_TTL));
                Ok(Vec::new())
            }
            Err(Failure::Unavailable) => Err(ResolveError::Unavailable),
            Err(Failure::BadName) => Err(ResolveError::BadName),
        }
    }
}

fn fits(transport: Transport, security: Security) -> bool {
    security == Security::Sip || matches!(transport, Transport::Tls | Transport::Wss)
}

/// RFC 3263 §4.1, RFC 7118 §5: the service field of a NAPTR record.
fn naptr_transport(service: &str, security: Security) -> Option<Transport> {
    let transport = match service.to_ascii_uppercase().as_str() {
        "SIP+D2U" => Transport::Udp,
        "SIP+D2T" => Transport::Tcp,
        "SIPS+D2T" => Transport::Tls,
        "SIP+D2S" => Transport::Sctp,
        "SIP+D2W" => Transport::Ws,
        "SIPS+D2W" => Transport::Wss,
        _ => return None,
    };
    fits(transport, security).then_some(transport)
}

/// The name of a transport's SRV records; WebSocket has none.
fn service_name(transport: Transport, host: &str) -> Option<String> {
    let prefix = match transport {
        Transport::Udp => "_sip._udp.",
        Transport::Tcp => "_sip._tcp.",
        Transport::Tls => "_sips._tcp.",
        Transport::Sctp => "_sip._sctp.",
        Transport::Ws | Transport::Wss => return None,
    };
    Some(format!("{prefix}{host}"))
}
