//! Exchanges with RADIUS servers: ids, retransmissions, the next server when one does not answer.

use super::config::{Config, Server};
use super::dictionary::Dictionary;
use super::packet::{self, Body};
use crate::exchange::{
    Address, Exchange, Family, Naming, Patience, Peer, Silence, Trouble, Verdict, first_of,
};
use host::Ctx;
use host::aaa::{AaaAnswer, AaaError, AaaFuture, AaaKind, AaaRequest, AaaServers};
use host::load::LoadError;
use std::sync::Arc;

/// What all workers know of a server.
struct Target {
    server: Server,
    peer: Arc<Peer>,
    silence: Silence,
}

/// A configured group of servers.
pub struct Client {
    config: Config,
    dictionary: Arc<Dictionary>,
    auth: Vec<Arc<Target>>,
    acct: Vec<Arc<Target>>,
}

impl Client {
    /// The error is what a user should read.
    pub fn new(config: Config) -> Result<Client, LoadError> {
        let dictionary = Arc::new(Dictionary::load(&config.dictionary)?);
        let targets = |servers: &[Server]| {
            let target = |server: &Server| {
                let address =
                    Address::Udp { host: server.host.clone(), port: server.port, family: Family::Any };
                let peer = Arc::new(Peer::new(address, config.bind));
                Arc::new(Target { server: server.clone(), peer, silence: Silence::default() })
            };
            servers.iter().map(target).collect()
        };
        let (auth, acct) = (targets(&config.auth), targets(&config.acct));
        Ok(Client { config, dictionary, auth, acct })
    }

    pub fn dictionary(&self) -> &Arc<Dictionary> {
        &self.dictionary
    }
}

/// The handle that modules get.
pub struct Group(pub Arc<Client>);

impl AaaServers for Group {
    fn has_attribute(&self, name: &str) -> bool {
        self.0.dictionary.attribute(name).is_some()
    }

    fn value(&self, attribute: &str, value: &str) -> Option<i64> {
        self.0.dictionary.value(attribute, value)
    }

    fn send(&self, ctx: &mut Ctx, request: AaaRequest) -> AaaFuture {
        let client = self.0.clone();
        let exchange = Exchange::on(ctx);
        Box::pin(async move {
            let body = Body::new(&request, &client.dictionary).map_err(AaaError::BadRequest)?;
            client.ask(request.kind, body, &exchange).await
        })
    }
}

impl Client {
    async fn ask(
        &self,
        kind: AaaKind,
        body: Body,
        exchange: &Exchange<Identifiers>,
    ) -> Result<AaaAnswer, AaaError> {
        let targets = if kind == AaaKind::Auth { &self.auth } else { &self.acct };
        let mut order: Vec<&Arc<Target>> = targets.iter().filter(|t| !t.silence.is_on()).collect();
        if order.is_empty() {
            // All of them are out: better any than none.
            order = targets.iter().collect();
        }
        let mut order = order.into_iter();
        let asked = first_of(
            || order.next(),
            async |target: &Arc<Target>| match self.ask_one(target, body.clone(), exchange).await {
                result @ (Ok(_) | Err(AaaError::BadRequest(_))) => {
                    if target.silence.ends() {
                        host::notice!(
                            "aaa_radius",
                            "{}:{} answers again",
                            target.server.host,
                            target.server.port
                        );
                    }
                    Verdict::Final(result)
                }
                Err(error) => {
                    if target.silence.begins(self.config.dead_time) {
                        host::error!("aaa_radius", "{}:{}: {error}", target.server.host, target.server.port);
                    }
                    Verdict::Next(error)
                }
            },
        );
        let none = || Err(AaaError::BadRequest("no server is configured for this".to_string()));
        asked.await.unwrap_or_else(none)
    }

    async fn ask_one(
        &self,
        target: &Arc<Target>,
        mut body: Body,
        exchange: &Exchange<Identifiers>,
    ) -> Result<AaaAnswer, AaaError> {
        let mut question = exchange.open(&target.peer).await.map_err(trouble)?;
        let own = question.own_ip().map_err(|e| AaaError::Io(e.to_string()))?;
        body.identify(self.config.identifier.as_deref(), own);
        let secret = &target.server.secret;
        let packet = body.write(question.name() as u8, secret, random()).map_err(AaaError::BadRequest)?;
        let patience = Patience { tries: self.config.tries, each: self.config.timeout };
        let read = |answer: Vec<u8>| packet::read(&answer, &packet, secret, &self.dictionary);
        question.ask(&packet, &patience, read).await.map_err(trouble)
    }
}

/// The identifier in the second byte of a packet (RFC 2865 §3).
struct Identifiers;

impl Naming for Identifiers {
    const AT_ONCE: usize = 256;

    fn next(last: u64) -> u64 {
        last.wrapping_add(1) % 256
    }

    fn of(datagram: &[u8]) -> Option<u64> {
        datagram.get(1).copied().map(u64::from)
    }
}

fn trouble(trouble: Trouble<String>) -> AaaError {
    match trouble {
        Trouble::Io(error) => AaaError::Io(error),
        Trouble::Full => AaaError::Io("too many requests wait for this server".to_string()),
        Trouble::Silent(doubt) => doubt.map_or(AaaError::TimedOut, AaaError::BadAnswer),
    }
}

/// Bytes nobody can guess.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    debug_assert!(filled.is_ok(), "the system has randomness");
    bytes
}
