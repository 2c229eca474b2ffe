//! The built-in user agents: one that calls, one that is called. Small, for loopback: requests are
//! repeated until something comes back, replies are given again to each repeated request.

use bytes::Bytes;
use sip::{Message, Method, ReplyParts, build_reply};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot};

/// RFC 3261 T1.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
const MAX_DATAGRAM: usize = 65_535;

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// From INVITE to 200.
    Answered(Duration),
    Failed(String),
}

impl Outcome {
    pub fn answered(&self) -> Option<Duration> {
        match self {
            Outcome::Answered(time) => Some(*time),
            Outcome::Failed(_) => None,
        }
    }
}

async fn socket() -> std::io::Result<(Rc<UdpSocket>, SocketAddr)> {
    #[allow(clippy::disallowed_methods, reason = "a user agent, not the server")]
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    let address = socket.local_addr()?;
    Ok((Rc::new(socket), address))
}

/// Answers every INVITE with 180 and 200, and every other request with 200.
pub struct Called {
    pub address: SocketAddr,
}

impl Called {
    pub async fn start() -> std::io::Result<Called> {
        let (socket, address) = socket().await?;
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; MAX_DATAGRAM];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(request) = Message::parse(Bytes::copy_from_slice(&buffer[..length])) else { continue };
                for reply in replies(&request, address) {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Ok(Called { address })
    }
}

fn replies(request: &Message, address: SocketAddr) -> Vec<Bytes> {
    let contact = format!("Contact: <sip:called@{address}>\r\n");
    let reply = |code: u16, reason: &[u8]| {
        let parts = ReplyParts {
            code,
            reason,
            to_tag: Some(b"called"),
            extra: contact.as_bytes(),
            ..ReplyParts::default()
        };
        build_reply(request, &parts)
    };
    match request.is_request().then(|| request.method()) {
        Some(Method::Invite) => vec![reply(180, b"Ringing"), reply(200, b"OK")],
        None | Some(Method::Ack) => Vec::new(),
        Some(_) => vec![reply(200, b"OK")],
    }
}

/// Places calls from one socket.
pub struct Caller {
    socket: Rc<UdpSocket>,
    address: SocketAddr,
    server: SocketAddr,
    /// Who waits for the messages of a Call-ID.
    open: RefCell<HashMap<Bytes, mpsc::UnboundedSender<Message>>>,
    asked: Cell<u64>,
}

impl Caller {
    pub async fn start(server: SocketAddr) -> std::io::Result<Rc<Caller>> {
        let (socket, address) = socket().await?;
        let caller =
            Rc::new(Caller { socket, address, server, open: RefCell::default(), asked: Cell::new(0) });
        let receiver = caller.clone();
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; MAX_DATAGRAM];
            // An error is an ICMP message for something sent before: the server is not there yet.
            loop {
                let Ok((length, _)) = receiver.socket.recv_from(&mut buffer).await else { continue };
                let Ok(message) = Message::parse(Bytes::copy_from_slice(&buffer[..length])) else { continue };
                let id = message.call_id().unwrap_or_default();
                if let Some(call) = receiver.open.borrow().get(&id) {
                    let _ = call.send(message);
                }
            }
        });
        Ok(caller)
    }

    /// Starts `count` calls, `rate` in a second.
    pub fn place(self: &Rc<Self>, count: u32, rate: u32, limit: Duration) -> Rc<Calls> {
        let calls = Rc::new(Calls::default());
        calls.expected.set(count as usize);
        let (caller, into) = (self.clone(), calls.clone());
        tokio::task::spawn_local(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
            for number in 0..count {
                ticks.tick().await;
                into.placed.set(into.placed.get() + 1);
                let (caller, into) = (caller.clone(), into.clone());
                tokio::task::spawn_local(async move {
                    let outcome = tokio::time::timeout(limit, caller.call(number)).await;
                    into.add(outcome.unwrap_or_else(|_| Outcome::Failed("no answer".into())));
                });
            }
        });
        calls
    }

    async fn call(&self, number: u32) -> Outcome {
        let id = format!("call-{number}@{}", self.address.ip());
        let mut inbox = self.listen(&id);
        let started = Instant::now();
        let target = format!("sip:100{number:04}@{}", self.server);
        let invite = self.request("INVITE", &target, &id, 1, "", "");
        let outcome = match self.exchange(&invite, &mut inbox).await {
            reply if reply.status() / 100 == 2 => {
                let time = started.elapsed();
                self.hang_up(&id, &reply, &mut inbox).await;
                Outcome::Answered(time)
            }
            reply => {
                if let Ok(sent) = Message::parse(Bytes::from(invite)) {
                    self.send(&sip::build_ack(&sent, &reply, b"")).await;
                }
                Outcome::Failed(format!("{} {}", reply.status(), String::from_utf8_lossy(&reply.reason())))
            }
        };
        self.open.borrow_mut().remove(id.as_bytes());
        outcome
    }

    async fn hang_up(&self, id: &str, answer: &Message, inbox: &mut mpsc::UnboundedReceiver<Message>) {
        let contact =
            answer.addresses(sip::HeaderName::Contact).ok().and_then(|list| list.into_iter().next());
        let target = contact.map(|c| String::from_utf8_lossy(&c.uri).into_owned()).unwrap_or_default();
        let mut routes: Vec<_> = answer.headers_of(sip::HeaderName::RecordRoute).collect();
        routes.reverse();
        let routes: String = routes
            .iter()
            .map(|r| format!("Route: {}\r\n", String::from_utf8_lossy(answer.bytes(r.value()))))
            .collect();
        let tag =
            answer.to_tag().map(|t| format!(";tag={}", String::from_utf8_lossy(&t))).unwrap_or_default();
        self.send(self.request("ACK", &target, id, 1, &tag, &routes).as_bytes()).await;
        let bye = self.request("BYE", &target, id, 2, &tag, &routes);
        self.exchange(&bye, inbox).await;
    }

    fn listen(&self, id: &str) -> mpsc::UnboundedReceiver<Message> {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.open.borrow_mut().insert(Bytes::copy_from_slice(id.as_bytes()), sender);
        inbox
    }

    /// Sends until something comes back; the final reply.
    async fn exchange(&self, request: &str, inbox: &mut mpsc::UnboundedReceiver<Message>) -> Message {
        let method = request.split(' ').next().unwrap_or_default().to_owned();
        let mut provisional = false;
        self.send(request.as_bytes()).await;
        loop {
            match tokio::time::timeout(REPEAT_AFTER, inbox.recv()).await {
                Ok(Some(m)) if m.is_request() || !of_method(&m, &method) => {}
                Ok(Some(reply)) if reply.status() >= 200 => return reply,
                Ok(_) => provisional = true,
                Err(_) if !provisional => self.send(request.as_bytes()).await,
                Err(_) => {}
            }
        }
    }

    /// One OPTIONS; how long its answer took.
    pub async fn ask(&self, limit: Duration) -> Option<Duration> {
        let number = self.asked.get();
        self.asked.set(number + 1);
        let id = format!("options-{number}@{}", self.address.ip());
        let mut inbox = self.listen(&id);
        let target = format!("sip:{}", self.server);
        let started = Instant::now();
        self.send(self.request("OPTIONS", &target, &id, 1, "", "").as_bytes()).await;
        let answered =
            tokio::time::timeout(limit, inbox.recv()).await.ok().flatten().map(|_| started.elapsed());
        self.open.borrow_mut().remove(id.as_bytes());
        answered
    }

    fn request(
        &self,
        method: &str,
        target: &str,
        id: &str,
        number: u32,
        to_tag: &str,
        routes: &str,
    ) -> String {
        let me = self.address;
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK-{method}-{id}\r\n{routes}\
             Max-Forwards: 70\r\nFrom: <sip:caller@{me}>;tag=caller\r\nTo: <sip:called@{}>{to_tag}\r\n\
             Call-ID: {id}\r\nCSeq: {number} {method}\r\nContact: <sip:caller@{me}>\r\nContent-Length: 0\r\n\r\n",
            self.server
        )
    }

    async fn send(&self, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, self.server).await;
    }
}

fn of_method(reply: &Message, method: &str) -> bool {
    reply.cseq_parts().is_some_and(|(_, m)| m == method.as_bytes())
}

/// Calls that run or are done.
#[derive(Default)]
pub struct Calls {
    expected: Cell<usize>,
    placed: Cell<usize>,
    outcomes: RefCell<Vec<Outcome>>,
    changed: Notify,
}

impl Calls {
    fn add(&self, outcome: Outcome) {
        self.outcomes.borrow_mut().push(outcome);
        self.changed.notify_one();
    }

    /// (started, ended)
    pub fn counts(&self) -> (usize, usize) {
        (self.placed.get(), self.outcomes.borrow().len())
    }

    /// Waits for all of them.
    pub async fn finished(&self) -> Vec<Outcome> {
        while self.outcomes.borrow().len() < self.expected.get() {
            self.changed.notified().await;
        }
        self.outcomes.borrow().clone()
    }
}

/// Sends OPTIONS beside the calls, one after the other.
pub struct Prober {
    times: Rc<RefCell<Vec<Duration>>>,
    _stop: oneshot::Sender<()>,
}

impl Prober {
    pub fn stop(self) -> Vec<Duration> {
        self.times.borrow().clone()
    }
}

/// Asks every 20 ms.
pub fn probe(caller: Rc<Caller>) -> Prober {
    let times = Rc::new(RefCell::new(Vec::new()));
    let (stop, mut stopped) = oneshot::channel::<()>();
    let into = times.clone();
    tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
            ticks.tick().await;
            // An OPTIONS without an answer counts with all the time it was given.
            let limit = Duration::from_secs(5);
            let time = caller.ask(limit).await.unwrap_or(limit);
            into.borrow_mut().push(time);
        }
    });
    Prober { times, _stop: stop }
}
