//! The sockets of a worker to its servers, and who waits for what on them.

use super::peer::{Address, Peer, resolve};
use super::{Naming, Patience, Trouble, websocket};
use ahash::AHashMap;
use host::Ctx;
use host::worker::ops::note_refused;
use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Weak as SharedWeak};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

/// Sockets of a worker to one server.
const MAX_SOCKETS: usize = 16;
/// Answers to one question that wait to be looked at: all but the right one are forged or repeated.
const MAX_ANSWERS: usize = 8;
/// After the system said that nobody is there: before the next try.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Longest that a connection and its handshake may take.
const WS_OPENING: Duration = Duration::from_secs(5);

/// What comes for a question.
enum Arrived {
    Answer(Vec<u8>),
    /// Nobody is there.
    Refused,
}

type Waiting = RefCell<AHashMap<u64, mpsc::Sender<Arrived>>>;

/// A socket and those who wait for answers on it.
struct Link {
    way: Way,
    own: io::Result<IpAddr>,
    waiting: Rc<Waiting>,
    last: Cell<u64>,
    listener: AbortHandle,
}

enum Way {
    Udp(Rc<UdpSocket>),
    /// To the task that has the connection.
    Ws(mpsc::Sender<Vec<u8>>),
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Link {
    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        match &self.way {
            // What the network says of the last packet comes with the next: it is no reason to stop.
            Way::Udp(socket) => match socket.send(packet).await {
                Ok(_) => Ok(()),
                Err(_) => socket.send(packet).await.map(drop),
            },
            Way::Ws(connection) => {
                let sent = connection.send(packet.to_vec()).await;
                sent.map_err(|_| io::Error::other("the connection has ended"))
            }
        }
    }
}

/// The links of a worker to one server.
struct Links {
    peer: SharedWeak<Peer>,
    id: u64,
    list: Vec<Rc<Link>>,
}

/// Questions of one worker, with names of this kind. Clones share their sockets.
pub struct Exchange<N>(Rc<RefCell<Vec<Links>>>, PhantomData<N>);

impl<N> Clone for Exchange<N> {
    fn clone(&self) -> Exchange<N> {
        Exchange(self.0.clone(), PhantomData)
    }
}

impl<N> Default for Exchange<N> {
    fn default() -> Exchange<N> {
        Exchange(Rc::default(), PhantomData)
    }
}

impl<N: Naming> Exchange<N> {
    /// That of this worker.
    pub fn on(ctx: &mut Ctx) -> Exchange<N> {
        ctx.local::<Exchange<N>>().clone()
    }

    /// A socket to this server, with a free name.
    pub async fn open<W>(&self, peer: &Arc<Peer>) -> Result<Question<N>, Trouble<W>> {
        if let Some(question) = self.free(peer)? {
            return Ok(question);
        }
        let link = connect::<N>(peer).await.map_err(|e| Trouble::Io(e.to_string()))?;
        let question = take(&link).ok_or(Trouble::Full)?;
        let mut all = self.0.borrow_mut();
        // Servers that a reload took away leave with their sockets.
        all.retain(|links| links.peer.strong_count() > 0);
        match all.iter_mut().find(|links| links.id == peer.id) {
            Some(links) => links.list.push(link),
            None => all.push(Links { peer: Arc::downgrade(peer), id: peer.id, list: vec![link] }),
        }
        Ok(question)
    }

    /// `None`: another socket is needed.
    fn free<W>(&self, peer: &Peer) -> Result<Option<Question<N>>, Trouble<W>> {
        let all = self.0.borrow();
        let Some(links) = all.iter().find(|links| links.id == peer.id) else { return Ok(None) };
        if let Some(question) = links.list.iter().find_map(take) {
            return Ok(Some(question));
        }
        if links.list.len() >= MAX_SOCKETS {
            note_refused();
            return Err(Trouble::Full);
        }
        Ok(None)
    }

    /// The server was silent: the next question looks its name up again.
    pub fn forget(&self, peer: &Peer) {
        self.0.borrow_mut().retain(|links| links.id != peer.id);
    }
}

fn take<N: Naming>(link: &Rc<Link>) -> Option<Question<N>> {
    let mut waiting = link.waiting.borrow_mut();
    if waiting.len() >= N::AT_ONCE {
        return None;
    }
    let mut name = N::next(link.last.get());
    while waiting.contains_key(&name) {
        name = N::next(name);
    }
    link.last.set(name);
    let (sender, answers) = mpsc::channel(MAX_ANSWERS);
    waiting.insert(name, sender);
    Some(Question { link: link.clone(), name, answers, naming: PhantomData })
}

async fn connect<N: Naming>(peer: &Peer) -> io::Result<Rc<Link>> {
    let (host, port, family) = match &peer.address {
        Address::Udp { host, port, family } => (host, port, family),
        Address::Ws { .. } => return ws_link::<N>(peer).await,
        _ => return Err(io::Error::other("this address takes no datagrams")),
    };
    let address = resolve(host, *port, *family).await?;
    let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = Rc::new(UdpSocket::bind((peer.bind.unwrap_or(any), 0)).await?);
    socket.connect(address).await?;
    let waiting = Rc::new(Waiting::default());
    let listener = tokio::task::spawn_local(listen::<N>(socket.clone(), Rc::downgrade(&waiting)));
    let own = socket.local_addr().map(|a| a.ip());
    let last = Cell::new(random());
    Ok(Rc::new(Link { way: Way::Udp(socket), own, waiting, last, listener: listener.abort_handle() }))
}

async fn ws_link<N: Naming>(peer: &Peer) -> io::Result<Rc<Link>> {
    let opened = timeout(WS_OPENING, websocket::open(peer)).await;
    let connection = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let own = connection.own_ip();
    let (sender, packets) = mpsc::channel(MAX_ANSWERS);
    let waiting = Rc::new(Waiting::default());
    let hearing = Rc::downgrade(&waiting);
    let heard = move |answer: Option<&[u8]>| hearing.upgrade().map(|waiting| deliver::<N>(&waiting, answer));
    let listener = tokio::task::spawn_local(connection.run(packets, heard));
    let last = Cell::new(random());
    let listener = listener.abort_handle();
    Ok(Rc::new(Link { way: Way::Ws(sender), own, waiting, last, listener }))
}

/// An answer to the one who waits for it; `None`: nobody is there, for all.
fn deliver<N: Naming>(waiting: &Waiting, answer: Option<&[u8]>) {
    let waiting = waiting.borrow();
    match answer {
        Some(answer) => {
            if let Some(waiter) = N::of(answer).and_then(|name| waiting.get(&name)) {
                let _ = waiter.try_send(Arrived::Answer(answer.to_vec()));
            }
        }
        None => waiting.values().for_each(|waiter| drop(waiter.try_send(Arrived::Refused))),
    }
}

/// Hands answers to those who wait.
async fn listen<N: Naming>(socket: Rc<UdpSocket>, waiting: Weak<Waiting>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let received = socket.recv(&mut buffer).await;
        let Some(waiting) = waiting.upgrade() else { return };
        deliver::<N>(&waiting, received.ok().map(|length| &buffer[..length]));
    }
}

/// A question to one server. Its name is free again when it is dropped.
pub struct Question<N> {
    link: Rc<Link>,
    name: u64,
    answers: mpsc::Receiver<Arrived>,
    naming: PhantomData<N>,
}

impl<N> Drop for Question<N> {
    fn drop(&mut self) {
        self.link.waiting.borrow_mut().remove(&self.name);
    }
}

impl<N: Naming> Question<N> {
    pub fn name(&self) -> u64 {
        self.name
    }

    /// The address that it leaves from.
    pub fn own_ip(&self) -> io::Result<IpAddr> {
        self.link.own.as_ref().copied().map_err(|e| io::Error::other(e.to_string()))
    }

    /// Sends `packet`, which holds the name, until `read` accepts an answer. One that is not accepted ends nothing:
    /// the right one may still come.
    pub async fn ask<T, W>(
        &mut self,
        packet: &[u8],
        patience: &Patience,
        mut read: impl FnMut(Vec<u8>) -> Result<T, W>,
    ) -> Result<T, Trouble<W>> {
        let mut doubt = None;
        for _ in 0..patience.tries.max(1) {
            if let Err(error) = self.link.send(packet).await {
                // The system has heard of an earlier packet that nobody is there.
                if error.kind() != io::ErrorKind::ConnectionRefused {
                    return Err(Trouble::Io(error.to_string()));
                }
            }
            let until = Instant::now() + patience.each;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                match timeout(left, self.answers.recv()).await {
                    Ok(Some(Arrived::Answer(answer))) => match read(answer) {
                        Ok(answer) => return Ok(answer),
                        Err(why) => doubt = Some(why),
                    },
                    Ok(Some(Arrived::Refused)) => {
                        sleep(REFUSED_PAUSE.min(left)).await;
                        break;
                    }
                    Ok(None) | Err(_) => break,
                }
            }
        }
        Err(Trouble::Silent(doubt))
    }
}

/// A name for a question that goes over a connection of its own.
pub fn fresh_name<N: Naming>() -> u64 {
    N::next(random())
}

/// A number nobody can guess.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    debug_assert!(filled.is_ok(), "the system has randomness");
    u64::from_be_bytes(bytes)
}
