//! What callers and callees share: reading messages, writing them, client transactions of RFC 3261 §17.1.

use bytes::Bytes;
use sip::{HeaderName, Message};
use std::net::SocketAddr;

pub const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 5060);
pub const CALLER: ([u8; 4], u16) = ([10, 0, 0, 2], 5060);
/// Timers in milliseconds.
pub const T1: u64 = 500;
pub const T2: u64 = 4000;
pub const TIMER_B: u64 = 64 * T1;

/// What an agent wants of the world.
#[derive(Default)]
pub struct Wishes {
    pub send: Vec<(SocketAddr, Bytes)>,
    /// (when, which timer of the agent)
    pub timers: Vec<(u64, Timer)>,
}

/// A timer of an agent; stale ones find that nothing is to be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Something in the life of a call, or of a request to a callee, is due.
    Step(usize),
    /// A request of a client transaction goes out again.
    Again(usize),
    /// A final reply goes out again.
    ReplyAgain(usize),
}

pub fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn value(msg: &Message, name: HeaderName) -> String {
    msg.value(name).map(|v| text(&v)).unwrap_or_default()
}

/// Whole values of a header that may stand more than once, in order, one a member.
pub fn values(msg: &Message, name: HeaderName) -> Vec<String> {
    msg.list(name).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
}

pub fn named(msg: &Message, label: &str) -> Option<String> {
    let header = msg.headers_named(label.as_bytes()).next().copied()?;
    Some(text(&msg.text(header.value())))
}

pub fn branch(msg: &Message) -> String {
    msg.via().and_then(|via| via.branch()).map(|b| text(&b)).unwrap_or_default()
}

pub fn cseq_method(msg: &Message) -> String {
    msg.cseq_parts().map(|(_, method)| text(&method)).unwrap_or_default()
}

/// "<sip:x>;p" → "sip:x"
pub fn uri_of(contact: &str) -> String {
    let inner = contact.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(contact, |(uri, _)| uri).to_string()
}

/// Where a URI leads, if its host is an address.
pub fn address_of(uri: &str) -> Option<SocketAddr> {
    let uri = sip::Uri::parse(&Bytes::copy_from_slice(uri.as_bytes())).ok()?;
    Some((uri.ip()?, if uri.port == 0 { 5060 } else { uri.port }).into())
}

/// A request outside of INVITE: sent again (E) until its final reply or F.
pub struct Client {
    pub branch: String,
    pub bytes: Bytes,
    pub to: SocketAddr,
    pub began: u64,
    pub interval: u64,
    /// Final status; 0: none yet.
    pub status: u16,
    pub what: String,
}

/// Client transactions of one agent.
#[derive(Default)]
pub struct Clients {
    pub list: Vec<Client>,
}

impl Clients {
    pub fn begin(
        &mut self,
        now: u64,
        what: &str,
        branch: String,
        to: SocketAddr,
        bytes: Bytes,
        wishes: &mut Wishes,
    ) {
        wishes.send.push((to, bytes.clone()));
        wishes.timers.push((now + T1, Timer::Again(self.list.len())));
        self.list.push(Client {
            branch,
            bytes,
            to,
            began: now,
            interval: T1,
            status: 0,
            what: what.to_string(),
        });
    }

    /// The same at a later time.
    pub fn begin_later(
        &mut self,
        at: u64,
        what: &str,
        branch: String,
        to: SocketAddr,
        bytes: Bytes,
        wishes: &mut Wishes,
    ) {
        wishes.timers.push((at, Timer::Again(self.list.len())));
        self.list.push(Client {
            branch,
            bytes,
            to,
            began: at,
            interval: T1 / 2,
            status: 0,
            what: what.to_string(),
        });
    }

    pub fn again(&mut self, now: u64, index: usize, wishes: &mut Wishes) {
        let client = &mut self.list[index];
        if client.status != 0 || now >= client.began + TIMER_B {
            return;
        }
        wishes.send.push((client.to, client.bytes.clone()));
        client.interval = (client.interval * 2).min(T2);
        wishes.timers.push((now + client.interval, Timer::Again(index)));
    }

    /// True when the reply is for one of these.
    pub fn reply(&mut self, reply: &Message) -> bool {
        let branch = branch(reply);
        let found = self.list.iter_mut().find(|c| c.branch == branch && c.what == cseq_method(reply));
        let Some(client) = found else { return false };
        if reply.status() >= 200 && client.status == 0 {
            client.status = reply.status();
        }
        true
    }

    /// Requests without a final reply.
    pub fn unanswered(&self) -> impl Iterator<Item = &Client> {
        self.list.iter().filter(|c| c.status == 0)
    }
}
