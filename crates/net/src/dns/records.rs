//! Records from name servers and /etc/hosts, through hickory-resolver.

use super::rfc3263::Records;
use super::{DnsOptions, Record, RecordKind, ResolveError, SearchList};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError, runtime::TokioRuntimeProvider};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Records and how long they hold.
#[derive(Clone, PartialEq, Debug)]
pub struct FoundRecords {
    pub records: Vec<Record>,
    pub ttl: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No such name or no such record; how long that holds, if the zone said so.
    Missing(Option<Duration>),
    /// No server answered, or only with an error.
    Unavailable,
    BadName,
}

/// Name servers to ask, and the hosts file.
pub struct NameServers(TokioResolver);

impl NameServers {
    /// What /etc/resolv.conf and /etc/hosts say. Without a resolv.conf, the server on this machine is
    /// asked, as the C library does.
    pub fn system(options: &DnsOptions) -> Result<NameServers, ResolveError> {
        let (config, opts) = hickory_resolver::system_conf::read_system_conf().unwrap_or_else(|_| {
            let local = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
            (ResolverConfig::from_parts(None, Vec::new(), vec![local]), ResolverOpts::default())
        });
        NameServers::build(config, opts, options)
    }

    /// One server at this address, for tests and special setups.
    pub fn at(server: SocketAddr, options: &DnsOptions) -> Result<NameServers, ResolveError> {
        let mut udp = ConnectionConfig::udp();
        udp.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![udp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        NameServers::build(config, ResolverOpts::default(), options)
    }

    /// Records that are remembered are asked for again.
    pub fn forget(&self) {
        self.0.clear_cache();
    }

    fn build(
        config: ResolverConfig,
        mut opts: ResolverOpts,
        options: &DnsOptions,
    ) -> Result<NameServers, ResolveError> {
        let (domain, search, mut servers) = config.into_parts();
        servers.truncate(options.servers.unwrap_or(usize::MAX));
        let config = match options.search {
            SearchList::Use => ResolverConfig::from_parts(domain, search, servers),
            SearchList::Ignore => ResolverConfig::from_parts(None, Vec::new(), servers),
        };
        opts.timeout = options.retry_after.unwrap_or(opts.timeout);
        opts.attempts = options.retries.unwrap_or(opts.attempts);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = opts;
        builder.build().map(NameServers).map_err(|_| ResolveError::Unavailable)
    }
}

impl Records for NameServers {
    async fn find(&self, name: &str, kind: RecordKind) -> Result<FoundRecords, Failure> {
        let asked = match kind {
            RecordKind::Ptr => Name::from(name.parse::<IpAddr>().map_err(|_| Failure::BadName)?),
            _ => Name::from_str_relaxed(name).map_err(|_| Failure::BadName)?,
        };
        let found = self.0.lookup(asked, record_type(kind)).await.map_err(failure)?;
        let records: Vec<Record> = found.answers().iter().filter_map(|r| record(&r.data)).collect();
        let ttl = found.valid_until().saturating_duration_since(Instant::now());
        if records.is_empty() { Err(Failure::Missing(Some(ttl))) } else { Ok(FoundRecords { records, ttl }) }
    }
}

fn record_type(kind: RecordKind) -> RecordType {
    match kind {
        RecordKind::A => RecordType::A,
        RecordKind::Aaaa => RecordType::AAAA,
        RecordKind::Srv => RecordType::SRV,
        RecordKind::Naptr => RecordType::NAPTR,
        RecordKind::Txt => RecordType::TXT,
        RecordKind::Ptr => RecordType::PTR,
    }
}

/// `None` for what was not asked for (CNAMEs on the way).
fn record(data: &RData) -> Option<Record> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match data {
        RData::A(a) => Record::Address(a.0.into()),
        RData::AAAA(a) => Record::Address(a.0.into()),
        RData::SRV(srv) => Record::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: plain(&srv.target),
        },
        RData::NAPTR(naptr) => Record::Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: text(&naptr.flags),
            service: text(&naptr.services),
            regexp: text(&naptr.regexp),
            replacement: plain(&naptr.replacement),
        },
        RData::TXT(txt) => Record::Txt(txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect()),
        RData::PTR(name) => Record::Name(plain(&name.0)),
        _ => return None,
    })
}

fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

fn failure(e: NetError) -> Failure {
    match e {
        NetError::Dns(DnsError::NoRecordsFound(missing)) => match missing.response_code {
            hickory_resolver::proto::op::ResponseCode::NoError
            | hickory_resolver::proto::op::ResponseCode::NXDomain => {
                Failure::Missing(missing.negative_ttl.map(|s| Duration::from_secs(s.into())))
            }
            _ => Failure::Unavailable,
        },
        _ => Failure::Unavailable,
    }
}
