//! The TLS domains with their files read: which one a connection gets.

use super::{Domain, TlsMgm};
use crate::tls::{Check, ClientTls};
use ahash::AHashMap;
use host::ctx::MsgState;
use host::load::LoadError;
use host::{Ctx, Value};
use net::link::{ClientSetup, ServerSetup, TlsSetup};
use parking_lot::{Mutex, RwLock};
use rustls::{ClientConfig, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;

/// Different hints that are remembered.
const MAX_HINTS: usize = 10_000;

/// What is needed for new connections; swapped as a whole by `tls_reload`.
#[derive(Default)]
pub struct Live {
    current: RwLock<Arc<Built>>,
    /// What the database holds, and whose side each is of; `None` before it was read.
    stored: RwLock<Option<Vec<(bool, Domain)>>>,
    /// By the number that a path carries, from 1.
    hints: Mutex<Hints>,
}

/// What is known of a connection that may be made.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Hint {
    /// `client_tls_domain_avp`
    domain: Option<String>,
    /// `client_sip_domain_avp`
    sip: Option<String>,
    /// The name of the next hop, unless it is an address.
    host: Option<String>,
}

/// What scripts and next hops said, by number; the oldest goes when there are `MAX_HINTS`, so that whoever chooses names
/// cannot make a connection go without.
#[derive(Default)]
struct Hints {
    all: Vec<Hint>,
    numbers: AHashMap<Hint, usize>,
    next: usize,
}

impl Hints {
    fn number(&mut self, hint: Hint) -> u32 {
        if let Some(at) = self.numbers.get(&hint) {
            return *at as u32 + 1;
        }
        let at = self.next % MAX_HINTS;
        self.next += 1;
        match self.all.get_mut(at) {
            Some(old) => {
                self.numbers.remove(old);
                *old = hint.clone();
            }
            None => self.all.push(hint.clone()),
        }
        self.numbers.insert(hint, at);
        at as u32 + 1
    }

    fn get(&self, number: u32) -> Hint {
        number.checked_sub(1).and_then(|at| self.all.get(at as usize).cloned()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Built {
    servers: Vec<Server>,
    clients: Vec<Client>,
}

struct Server {
    domain: Domain,
    config: Arc<ServerConfig>,
    own: Option<Arc<[u8]>>,
}

struct Client {
    domain: Domain,
    /// Checks no name.
    config: Arc<ClientConfig>,
    /// Checks the name that is asked for, when names are checked.
    named: Option<Arc<ClientConfig>>,
    own: Option<Arc<[u8]>>,
}

impl TlsSetup for TlsMgm {
    fn serves(&self) -> bool {
        self.table.is_used() || !self.live.current.read().servers.is_empty()
    }

    fn server(&self, local: SocketAddr, name: Option<&str>) -> Result<ServerSetup, String> {
        let built = self.live.current.read().clone();
        let found = best(&built.servers, |s| &s.domain, local, name);
        let found = found.ok_or_else(|| match name {
            Some(name) => format!("no server_domain serves {name} on {local}"),
            None => format!("no server_domain serves {local} without a name"),
        })?;
        Ok(ServerSetup { config: found.config.clone(), own: found.own.clone() })
    }

    fn client(&self, remote: SocketAddr, hint: u32) -> Result<ClientSetup, String> {
        let built = self.live.current.read().clone();
        let Hint { domain, sip, host } = self.live.hints.lock().get(hint);
        let found = match &domain {
            Some(wanted) => built.clients.iter().find(|c| c.domain.name == *wanted),
            None => best(&built.clients, |c| &c.domain, remote, sip.as_deref()),
        };
        let found = found.ok_or_else(|| format!("no client_domain leads to {remote}"))?;
        // What the script says comes before what the request says.
        let name = sip.or(host);
        let named = found.named.as_ref().filter(|_| name.is_some());
        Ok(ClientSetup {
            config: named.unwrap_or(&found.config).clone(),
            own: found.own.clone(),
            verified: found.domain.verify_cert.unwrap_or(true),
            name,
        })
    }
}

impl TlsMgm {
    /// Reads the files of all domains. The error is what a user should read; nothing changes then.
    pub fn read_files(&self) -> Result<(), LoadError> {
        let mut built = Built::default();
        for domain in &self.servers {
            built.serve(domain)?;
        }
        for domain in &self.clients {
            built.call(domain)?;
        }
        for (server, domain) in &self.live.stored() {
            let done = if *server { built.serve(domain) } else { built.call(domain) };
            // One bad row must not take the others with it.
            if let Err(error) = done {
                host::error!("tls_mgm", "{error}");
            }
        }
        self.default_server().map_or(Ok(()), |domain| built.serve(domain))?;
        built.call(&self.default)?;
        *self.live.current.write() = Arc::new(built);
        Ok(())
    }

    /// What is set without naming a domain is one that serves where no other fits.
    fn default_server(&self) -> Option<&Domain> {
        Some(&self.default).filter(|domain| domain.certificate.is_some())
    }

    /// What the AVPs of a message say about connections that are made for it, and the name of its next hop; 0: nothing.
    pub fn hint(&self, ctx: &Ctx, state: &MsgState, host: Option<&[u8]>) -> u32 {
        let value = |name: &Option<host::avp::AvpName>| {
            let name = (*name)?;
            let branch = state.txn.zip(state.txn_branch);
            let branch = branch.and_then(|(id, branch)| ctx.txn(id).branch(branch));
            let of_branch = branch.and_then(|view| view.data.avps.first(name).cloned());
            of_branch.or_else(|| state.avps.borrow().first(name).cloned())
        };
        let text = |value: Value| String::from_utf8_lossy(&value.to_text()).into_owned();
        let hint = Hint {
            domain: value(&self.client_tls_domain_avp).map(text),
            sip: value(&self.client_sip_domain_avp).map(text),
            host: host.map(|host| String::from_utf8_lossy(host).to_ascii_lowercase()),
        };
        if hint == Hint::default() { 0 } else { self.live.hints.lock().number(hint) }
    }
}

impl Built {
    fn serve(&mut self, domain: &Domain) -> Result<(), LoadError> {
        let config = domain.server().and_then(|server| server.build());
        let config = config.map_err(|e| format!("server_domain {}: {e}", domain.name))?;
        self.servers.push(Server { domain: domain.clone(), config: Arc::new(config), own: domain.shown() });
        Ok(())
    }

    fn call(&mut self, domain: &Domain) -> Result<(), LoadError> {
        let build = |tls: ClientTls| {
            tls.build().map(Arc::new).map_err(|e| format!("client_domain {}: {e}", domain.name))
        };
        let config = build(domain.client())?;
        let named =
            domain.checks_names().then(|| ClientTls { check: Check::ChainAndName, ..domain.client() });
        let named = named.map(build).transpose()?;
        self.clients.push(Client { domain: domain.clone(), config, named, own: domain.shown() });
        Ok(())
    }
}

impl Live {
    /// Keeps what the database holds.
    pub fn keep(&self, domains: Vec<(bool, Domain)>) {
        *self.stored.write() = Some(domains);
    }

    pub fn stored(&self) -> Vec<(bool, Domain)> {
        self.stored.read().clone().unwrap_or_default()
    }

    /// The database was read.
    pub fn is_read(&self) -> bool {
        self.stored.read().is_some()
    }
}

/// The domain that fits an address and a name best: one that names the address before one that takes
/// any, then the longest name.
fn best<'a, T>(
    all: &'a [T],
    domain: impl Fn(&T) -> &Domain,
    addr: SocketAddr,
    name: Option<&str>,
) -> Option<&'a T> {
    let rank = |one: &T| {
        let domain = domain(one);
        Some((address_rank(&domain.match_ip_address, addr)?, name_rank(&domain.match_sip_domain, name)?))
    };
    // Of equals the first one, so that the default comes last.
    let ranked =
        all.iter().enumerate().filter_map(|(at, one)| Some((rank(one)?, std::cmp::Reverse(at), one)));
    ranked.max_by_key(|(rank, at, _)| (*rank, *at)).map(|(_, _, one)| one)
}

/// 0: any address will do.
fn address_rank(filters: &[String], addr: SocketAddr) -> Option<usize> {
    let fits = |filter: &str| filter.parse() == Ok(addr) || filter.parse() == Ok(addr.ip());
    match filters.iter().any(|filter| fits(filter)) {
        true => Some(1),
        false => (filters.is_empty() || filters.iter().any(|f| f == "*")).then_some(0),
    }
}

fn name_rank(filters: &[String], name: Option<&str>) -> Option<usize> {
    let any = filters.is_empty() || filters.iter().any(|f| f == "*");
    let named = match name {
        None => filters.iter().any(|f| f == "none").then_some(usize::MAX),
        Some(name) => {
            let fit =
                filters.iter().filter(|filter| *filter != "none" && *filter != "*" && matches(filter, name));
            fit.map(|filter| 1 + filter.len() + usize::from(!filter.contains('*')) * 1000).max()
        }
    };
    named.or(any.then_some(0))
}

/// `*.example.com`, `sip?.example.com`: wildcards of the shell, in any case.
fn matches(filter: &str, name: &str) -> bool {
    fn step(filter: &[u8], name: &[u8]) -> bool {
        match (filter.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| step(rest, &name[skip..])),
            (Some((b'?', rest)), Some((_, name))) => step(rest, name),
            (Some((a, rest)), Some((b, name))) => a.eq_ignore_ascii_case(b) && step(rest, name),
            _ => false,
        }
    }
    step(filter.as_bytes(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        let (name, filters) = text.split_once(' ').unwrap();
        let (ip, sip) = filters.split_once(' ').unwrap();
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        Domain {
            name: name.into(),
            match_ip_address: list(ip),
            match_sip_domain: list(sip),
            ..Domain::default()
        }
    }

    #[test]
    fn hints_are_bounded_and_none_is_lost_while_it_is_new() {
        let mut hints = Hints::default();
        let named = |n: usize| Hint { host: Some(format!("h{n}")), ..Hint::default() };
        let first = hints.number(named(0));
        assert_eq!(hints.number(named(0)), first);
        for n in 1..MAX_HINTS * 2 {
            let number = hints.number(named(n));
            assert_eq!(hints.get(number), named(n));
        }
        assert_eq!((hints.all.len(), hints.numbers.len()), (MAX_HINTS, MAX_HINTS));
        assert_eq!(hints.get(0), Hint::default());
    }

    #[test]
    fn the_best_domain_is_found() {
        let all = [
            "atlanta 10.0.0.10:5061 atlanta.com",
            "wild 10.0.0.10:5061 *.com",
            "nameless 10.0.0.10:5061 none",
            "gateway 1.2.3.4 *",
        ];
        let all: Vec<Domain> = all.iter().map(|text| domain(text)).collect();
        for (addr, name, expected) in [
            ("10.0.0.10:5061", Some("ATLANTA.com"), Some("atlanta")),
            ("10.0.0.10:5061", Some("biloxi.com"), Some("wild")),
            ("10.0.0.10:5061", Some("biloxi.org"), None),
            ("10.0.0.10:5061", None, Some("nameless")),
            ("10.0.0.10:5062", None, None),
            ("1.2.3.4:7", Some("x"), Some("gateway")),
            ("1.2.3.4:7", None, Some("gateway")),
        ] {
            let found = best(&all, |d| d, addr.parse().unwrap(), name).map(|d| d.name.as_str());
            assert_eq!(found, expected, "{addr} {name:?}");
        }
    }
}
