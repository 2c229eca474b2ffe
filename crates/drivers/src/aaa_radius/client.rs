//! Exchanges with RADIUS servers: ids, retransmissions, the next server when one does not answer.
#![expect(
    clippy::disallowed_methods,
    reason = "exchanges with servers are real I/O: they live outside the worker"
)]

use super::config::{Config, Server};
use super::dictionary::Dictionary;
use super::packet::{self, Body};
use host::Ctx;
use host::aaa::{AaaAnswer, AaaError, AaaFuture, AaaKind, AaaRequest, AaaServers};
use host::worker::ops::note_refused;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Sockets to one server; each carries 256 requests at a time.
const MAX_SOCKETS: usize = 16;
/// Answers to one request that wait to be looked at: all but the right one are forged or repeated.
const MAX_ANSWERS: usize = 8;

/// What all workers know of a server.
struct Target {
    server: Server,
    /// It did not answer last time, which was said.
    silent: AtomicBool,
    /// Left out until then, ms since `Client::started`.
    dead_until: AtomicU64,
}

/// A configured group of servers.
pub struct Client {
    config: Config,
    dictionary: Arc<Dictionary>,
    auth: Vec<Arc<Target>>,
    acct: Vec<Arc<Target>>,
    started: Instant,
}

/// A worker's sockets, by server (address of its `Target`).
#[derive(Default)]
struct Links(Vec<(usize, Vec<Rc<Link>>)>);

/// A socket and those who wait for answers on it.
struct Link {
    socket: UdpSocket,
    waiting: RefCell<Vec<Option<mpsc::Sender<Vec<u8>>>>>,
}

/// An id in use; given back when dropped.
struct Slot {
    link: Rc<Link>,
    id: u8,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.link.waiting.borrow_mut()[usize::from(self.id)] = None;
    }
}

impl Client {
    /// The error is what a user should read.
    pub fn new(config: Config) -> Result<Client, String> {
        let dictionary = Arc::new(Dictionary::load(&config.dictionary)?);
        let targets = |servers: &[Server]| {
            let target = |server: &Server| {
                let (silent, dead_until) = (AtomicBool::new(false), AtomicU64::new(0));
                Arc::new(Target { server: server.clone(), silent, dead_until })
            };
            servers.iter().map(target).collect()
        };
        let (auth, acct) = (targets(&config.auth), targets(&config.acct));
        Ok(Client { config, dictionary, auth, acct, started: Instant::now() })
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
        let links = ctx.local::<SharedLinks>().0.clone();
        Box::pin(async move {
            let body = Body::new(&request, &client.dictionary).map_err(AaaError::BadRequest)?;
            client.ask(request.kind, body, &links).await
        })
    }
}

#[derive(Default)]
struct SharedLinks(Rc<RefCell<Links>>);

impl Client {
    async fn ask(
        &self,
        kind: AaaKind,
        body: Body,
        links: &Rc<RefCell<Links>>,
    ) -> Result<AaaAnswer, AaaError> {
        let targets = if kind == AaaKind::Auth { &self.auth } else { &self.acct };
        let now = self.started.elapsed().as_millis() as u64;
        let alive = |target: &&Arc<Target>| target.dead_until.load(Ordering::Relaxed) <= now;
        let mut order: Vec<&Arc<Target>> = targets.iter().filter(alive).collect();
        if order.is_empty() {
            // All of them are out: better any than none.
            order = targets.iter().collect();
        }
        let mut result = Err(AaaError::BadRequest("no server is configured for this".to_string()));
        for target in order {
            result = self.ask_one(target, body.clone(), links).await;
            match &result {
                Ok(_) | Err(AaaError::BadRequest(_)) => {
                    if target.silent.swap(false, Ordering::Relaxed) {
                        host::notice!("aaa_radius", "{} answers again", target.server.host);
                    }
                    return result;
                }
                Err(error) => {
                    if !target.silent.swap(true, Ordering::Relaxed) {
                        host::error!("aaa_radius", "{}:{}: {error}", target.server.host, target.server.port);
                    }
                    let until = self.started.elapsed() + self.config.dead_time;
                    target.dead_until.store(until.as_millis() as u64, Ordering::Relaxed);
                }
            }
        }
        result
    }

    async fn ask_one(
        &self,
        target: &Arc<Target>,
        mut body: Body,
        links: &Rc<RefCell<Links>>,
    ) -> Result<AaaAnswer, AaaError> {
        let link = self.link(target, links).await?;
        let (slot, mut answers) = link.take().ok_or_else(too_many)?;
        let io = |e: std::io::Error| AaaError::Io(e.to_string());
        let own = link.socket.local_addr().map_err(io)?.ip();
        body.identify(self.config.identifier.as_deref(), own);
        let secret = &target.server.secret;
        let packet = body.write(slot.id, secret, random()).map_err(AaaError::BadRequest)?;
        let mut doubt = None;
        for _ in 0..self.config.tries {
            // What the network says of the last packet comes with the next: it is no reason to stop.
            if link.socket.send(&packet).await.is_err() {
                link.socket.send(&packet).await.map_err(io)?;
            }
            let until = Instant::now() + self.config.timeout;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let Ok(Some(answer)) = timeout(left, answers.recv()).await else { break };
                match packet::read(&answer, &packet, secret, &self.dictionary) {
                    Ok(answer) => return Ok(answer),
                    // The right one may still come.
                    Err(why) => doubt = Some(why),
                }
            }
        }
        Err(doubt.map_or(AaaError::TimedOut, AaaError::BadAnswer))
    }

    /// A socket with a free id.
    async fn link(&self, target: &Arc<Target>, links: &Rc<RefCell<Links>>) -> Result<Rc<Link>, AaaError> {
        let key = Arc::as_ptr(target) as usize;
        {
            let mut links = links.borrow_mut();
            if !links.0.iter().any(|(k, _)| *k == key) {
                links.0.push((key, Vec::new()));
            }
            let own = links.0.iter().find(|(k, _)| *k == key).map(|(_, own)| own);
            let own = own.into_iter().flatten();
            let free: Vec<_> = own.filter(|link| link.has_room()).cloned().collect();
            if let Some(link) = free.into_iter().next() {
                return Ok(link);
            }
            if links.0.iter().any(|(k, own)| *k == key && own.len() >= MAX_SOCKETS) {
                return Err(too_many());
            }
        }
        let link = Rc::new(self.open(&target.server).await.map_err(|e| AaaError::Io(e.to_string()))?);
        tokio::task::spawn_local(listen(Rc::downgrade(&link)));
        if let Some((_, own)) = links.borrow_mut().0.iter_mut().find(|(k, _)| *k == key) {
            own.push(link.clone());
        }
        Ok(link)
    }

    async fn open(&self, server: &Server) -> std::io::Result<Link> {
        let address = match server.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, server.port),
            // On a thread of its own.
            Err(_) => {
                let found = tokio::net::lookup_host((&*server.host, server.port)).await?.next();
                found.ok_or_else(|| std::io::Error::other(format!("{} has no address", server.host)))?
            }
        };
        let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((self.config.bind.unwrap_or(any), 0)).await?;
        socket.connect(address).await?;
        let waiting = std::iter::repeat_with(|| None).take(256).collect();
        Ok(Link { socket, waiting: RefCell::new(waiting) })
    }
}

fn too_many() -> AaaError {
    note_refused();
    AaaError::Io("too many requests wait for this server".to_string())
}

impl Link {
    fn has_room(&self) -> bool {
        self.waiting.borrow().iter().any(Option::is_none)
    }

    fn take(self: &Rc<Self>) -> Option<(Slot, mpsc::Receiver<Vec<u8>>)> {
        let mut waiting = self.waiting.borrow_mut();
        let id = waiting.iter().position(Option::is_none)?;
        let (sender, receiver) = mpsc::channel(MAX_ANSWERS);
        waiting[id] = Some(sender);
        Some((Slot { link: self.clone(), id: id as u8 }, receiver))
    }
}

/// Hands answers to those who wait.
async fn listen(link: Weak<Link>) {
    let mut buffer = vec![0; 4096];
    while let Some(link) = link.upgrade() {
        match link.socket.recv(&mut buffer).await {
            Ok(length) if length >= 2 => {
                if let Some(waiter) = &link.waiting.borrow()[usize::from(buffer[1])] {
                    let _ = waiter.try_send(buffer[..length].to_vec());
                }
            }
            Ok(_) => {}
            // "Connection refused": the server is not there. Those who wait find out in their own time.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Bytes nobody can guess.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    debug_assert!(filled.is_ok(), "the system has randomness");
    bytes
}
