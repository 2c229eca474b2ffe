//! A worker's HTTP clients: one for each TLS identity, each with its own pool of open connections.

use super::Settings;
use super::names::Names;
use super::phase::Watch;
use crate::tls::{Check, ClientTls};
use crate::tls_mgm::Domain;
use ahash::AHashMap;
use reqwest::Client;
use reqwest::redirect::Policy;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Transfers that may wait for their turn, for each that may run.
const QUEUE: usize = 20;
/// Connections that wait for their next use, to one host.
const IDLE_PER_HOST: usize = 100;
const IDLE: Duration = Duration::from_secs(90);

/// When this worker last got an answer from a host.
pub type LastSeen = Rc<RefCell<AHashMap<String, Instant>>>;

/// The state of a worker.
#[derive(Default)]
pub struct Clients {
    by_domain: Vec<(Option<Domain>, Pair)>,
    turns: Option<Turns>,
    pub last_seen: LastSeen,
}

/// The clients of one TLS identity.
#[derive(Clone)]
pub struct Pair {
    /// Keeps connections for the next request.
    pub kept: Client,
    /// Makes one for each request.
    pub fresh: Client,
}

/// The right to transfer, and how many wait for it.
#[derive(Clone)]
pub struct Turns {
    pub running: Arc<Semaphore>,
    pub places: Arc<Semaphore>,
}

/// The TLS side of a client.
pub fn tls(settings: &Settings, domain: Option<&Domain>) -> Result<rustls::ClientConfig, String> {
    let alpn: &[&[u8]] = match settings.version {
        1 => &[b"http/1.0"],
        2 => &[b"http/1.1"],
        _ => &[b"h2", b"http/1.1"],
    };
    let check = match (settings.verify_peer, settings.verify_host) {
        (false, _) => Check::Nothing,
        (true, false) => Check::Chain,
        (true, true) => Check::ChainAndName,
    };
    let mut authorities: Vec<_> = settings.authorities.iter().cloned().collect();
    authorities.extend(domain.iter().flat_map(|d| d.ca_list.iter().chain(&d.ca_dir)).cloned());
    let identity = domain.and_then(Domain::identity);
    let alpn = alpn.iter().map(|p| p.to_vec()).collect();
    let pem = domain.and_then(|d| d.pem.clone());
    Ok(ClientTls { check, authorities, identity, alpn, pem, ..ClientTls::default() }.build()?)
}

impl Clients {
    pub fn client(
        &mut self,
        settings: &Settings,
        domain: Option<&Domain>,
        names: Names,
    ) -> Result<Pair, String> {
        if let Some((_, pair)) = self.by_domain.iter().find(|(known, _)| known.as_ref() == domain) {
            return Ok(pair.clone());
        }
        let kept = build(settings, domain, names.clone(), IDLE_PER_HOST)?;
        let pair = Pair { kept, fresh: build(settings, domain, names, 0)? };
        // One that the database has changed since takes the place of the old one.
        let name = |domain: Option<&Domain>| domain.map(|d| d.name.clone());
        self.by_domain.retain(|(known, _)| name(known.as_ref()) != name(domain));
        self.by_domain.push((domain.cloned(), pair.clone()));
        Ok(pair)
    }

    pub fn turn(&mut self, settings: &Settings) -> Turns {
        let new = || Turns {
            running: Arc::new(Semaphore::new(settings.transfers)),
            places: Arc::new(Semaphore::new(settings.transfers.saturating_mul(QUEUE))),
        };
        self.turns.get_or_insert_with(new).clone()
    }
}

/// A client for work beside calls, with the system's certificates and names.
pub fn plain(limit: Duration) -> Result<Client, String> {
    let builder =
        Client::builder().tls_backend_preconfigured(tls(&Settings::default(), None)?).timeout(limit);
    builder.build().map_err(|e| e.to_string())
}

/// A client that keeps up to `idle` connections to a host.
fn build(settings: &Settings, domain: Option<&Domain>, names: Names, idle: usize) -> Result<Client, String> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls(settings, domain)?)
        .dns_resolver(names)
        .redirect(match settings.redirects {
            0 => Policy::none(),
            most => Policy::limited(most),
        })
        .connector_layer(Watch)
        .pool_max_idle_per_host(idle)
        .pool_idle_timeout(if settings.lifetime.is_zero() { IDLE } else { settings.lifetime })
        .tcp_nodelay(true)
        .http1_ignore_invalid_headers_in_responses(true);
    if !settings.connect.is_zero() {
        builder = builder.connect_timeout(settings.connect);
    }
    builder = match settings.version {
        1 | 2 => builder.http1_only(),
        5 => builder.http2_prior_knowledge(),
        _ => builder,
    };
    builder.build().map_err(|e| e.to_string())
}
