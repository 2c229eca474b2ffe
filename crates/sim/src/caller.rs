//! The caller: INVITE client transactions (RFC 3261 §17.1.1), ACK of every 2xx, CANCEL, BYE, OPTIONS.

use crate::agent::{
    CALLER, Clients, SERVER, T1, TIMER_B, Timer, Wishes, branch, cseq_method, named, text, uri_of, value,
    values,
};
use bytes::Bytes;
use host::ctx::Rng;
use sip::{HeaderName, Message, Method};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What a call wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CallKind {
    Invite,
    Options,
}

pub struct Call {
    pub id: String,
    pub kind: CallKind,
    pub uri: String,
    starts: u64,
    /// When the caller gives up, if it does.
    cancels: Option<u64>,
    cancelled: bool,
    pub rang: bool,
    bytes: Bytes,
    interval: u64,
    again_at: u64,
    /// (status, To tag) of every different final reply.
    pub finals: BTreeSet<(u16, String)>,
    /// ACKs of 2xx by To tag, sent again with each 2xx.
    acks: BTreeMap<String, Bytes>,
    pub timed_out: bool,
}

impl Call {
    fn is_over(&self) -> bool {
        !self.finals.is_empty()
    }
}

pub struct Caller {
    pub calls: Vec<Call>,
    pub clients: Clients,
    talk: u64,
    seed: u64,
}

fn server() -> SocketAddr {
    SERVER.into()
}

fn head(method: &str, uri: &str, branch: &str) -> String {
    let at = SocketAddr::from(CALLER);
    format!("{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch={branch}\r\nMax-Forwards: 70\r\n")
}

impl Caller {
    /// `targets`: R-URIs to choose from.
    pub fn new(rng: &mut Rng, calls: usize, targets: &[&str], others: u64) -> Caller {
        let seed = rng.next_u64();
        let calls = (0..calls).map(|n| {
            let starts = 10 + rng.below(20_000);
            let kind = if rng.below(100) < others { CallKind::Options } else { CallKind::Invite };
            let cancels = (rng.below(3) == 0).then(|| starts + rng.below(9_000));
            Call {
                id: format!("{:08x}-{n}@caller.sim", rng.next_u64() as u32),
                kind,
                uri: targets[rng.below(targets.len() as u64) as usize].to_string(),
                starts,
                cancels,
                cancelled: false,
                rang: false,
                bytes: Bytes::new(),
                interval: T1,
                again_at: 0,
                finals: BTreeSet::new(),
                acks: BTreeMap::new(),
                timed_out: false,
            }
        });
        Caller { calls: calls.collect(), clients: Clients::default(), talk: 1000 + rng.below(10_000), seed }
    }

    pub fn begin(&self, wishes: &mut Wishes) {
        for (n, call) in self.calls.iter().enumerate() {
            wishes.timers.push((call.starts, Timer::Step(n)));
            wishes.timers.extend(call.cancels.map(|at| (at, Timer::Step(n))));
        }
    }

    fn branch(&self, call: usize, what: &str) -> String {
        format!("z9hG4bK{what}{call}x{:x}", self.seed as u32)
    }

    pub fn on_timer(&mut self, now: u64, timer: Timer, wishes: &mut Wishes) {
        match timer {
            Timer::Again(index) => self.clients.again(now, index, wishes),
            Timer::Step(n) => self.step(now, n, wishes),
            Timer::ReplyAgain(_) => {}
        }
    }

    fn step(&mut self, now: u64, n: usize, wishes: &mut Wishes) {
        let first = self.calls[n].bytes.is_empty();
        if first {
            return self.start(now, n, wishes);
        }
        let call = &mut self.calls[n];
        if call.kind == CallKind::Options || call.is_over() {
            return;
        }
        if call.cancels.is_some_and(|at| at <= now) && !call.cancelled && call.rang {
            return self.cancel(now, n, wishes);
        }
        if call.rang {
            return;
        }
        // Timers A and B.
        if now >= call.starts + TIMER_B {
            call.timed_out = true;
        } else if now >= call.again_at {
            wishes.send.push((server(), call.bytes.clone()));
            call.interval *= 2;
            call.again_at = now + call.interval;
            wishes.timers.push((call.again_at.min(call.starts + TIMER_B), Timer::Step(n)));
        }
    }

    fn start(&mut self, now: u64, n: usize, wishes: &mut Wishes) {
        let (invite, options) = (self.branch(n, "inv"), self.branch(n, "opt"));
        let call = &mut self.calls[n];
        let at = SocketAddr::from(CALLER);
        let tail = |method: &str| {
            format!(
                "From: <sip:caller@sim>;tag=c{n}\r\nTo: <{}>\r\nCall-ID: {}\r\nCSeq: 1 {method}\r\n\
                 Contact: <sip:caller@{at}>\r\nContent-Length: 0\r\n\r\n",
                call.uri, call.id
            )
        };
        if call.kind == CallKind::Options {
            let bytes = Bytes::from(head("OPTIONS", &call.uri, &options) + &tail("OPTIONS"));
            call.bytes = bytes.clone();
            return self.clients.begin(now, "OPTIONS", options, server(), bytes, wishes);
        }
        call.bytes = Bytes::from(head("INVITE", &call.uri, &invite) + &tail("INVITE"));
        wishes.send.push((server(), call.bytes.clone()));
        call.again_at = now + call.interval;
        wishes.timers.push((call.again_at, Timer::Step(n)));
    }

    /// RFC 3261 §9.1: only after a provisional reply.
    fn cancel(&mut self, now: u64, n: usize, wishes: &mut Wishes) {
        let call = &mut self.calls[n];
        call.cancelled = true;
        let invite = Message::parse(call.bytes.clone()).expect("its own INVITE");
        let bytes = sip::build_cancel(&invite, b"");
        let branch = branch(&invite);
        self.clients.begin(now, "CANCEL", branch, server(), bytes, wishes);
    }

    pub fn on_message(&mut self, now: u64, msg: &Message, wishes: &mut Wishes) {
        if msg.is_request() {
            return;
        }
        if cseq_method(msg) != "INVITE" {
            self.clients.reply(msg);
            return;
        }
        let id = value(msg, HeaderName::CallId);
        let Some(n) = self.calls.iter().position(|c| c.id == id) else { return };
        let status = msg.status();
        let tag = msg.to_tag().map(|t| text(&t)).unwrap_or_default();
        let call = &mut self.calls[n];
        if status < 200 {
            if !call.rang {
                call.rang = true;
                let due = call.cancels.filter(|at| *at <= now).is_some();
                wishes.timers.extend(due.then_some((now, Timer::Step(n))));
            }
            return;
        }
        let known = !call.finals.insert((status, tag.clone()));
        if status >= 300 {
            let invite = Message::parse(call.bytes.clone()).expect("its own INVITE");
            wishes.send.push((server(), sip::build_ack(&invite, msg, b"")));
            return;
        }
        if known {
            wishes.send.push((server(), call.acks[&tag].clone()));
            return;
        }
        self.answered(now, n, msg, &tag, wishes);
    }

    /// A 2xx: its ACK, and a BYE after the talk (at once when the caller had given up).
    fn answered(&mut self, now: u64, n: usize, reply: &Message, tag: &str, wishes: &mut Wishes) {
        let target = uri_of(&value(reply, HeaderName::Contact));
        let mut routes = values(reply, HeaderName::RecordRoute);
        routes.reverse();
        let routes: String = routes.iter().map(|r| format!("Route: {r}\r\n")).collect();
        let in_dialog = |method: &str, cseq: u32, branch: &str, id: &str| {
            let to = value(reply, HeaderName::To);
            let from = value(reply, HeaderName::From);
            head(method, &target, branch)
                + &routes
                + &format!(
                    "From: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
                )
        };
        let id = self.calls[n].id.clone();
        // Without Record-Route the rest of the call goes past the server.
        let to = if routes.is_empty() { crate::agent::address_of(&target) } else { Some(server()) };
        let Some(to) = to else { return };
        let ack = Bytes::from(in_dialog("ACK", 1, &self.branch(n, &format!("ack{tag}")), &id));
        wishes.send.push((to, ack.clone()));
        self.calls[n].acks.insert(tag.to_string(), ack);
        let branch = self.branch(n, &format!("bye{tag}"));
        let bytes = Bytes::from(in_dialog("BYE", 2, &branch, &id));
        let later = if self.calls[n].cancelled { 0 } else { self.talk };
        // The request waits as a client transaction that begins later.
        self.clients.begin_later(now + later, "BYE", branch, to, bytes, wishes);
    }

    /// What is not as it must be.
    pub fn complain(&self, problems: &mut Vec<String>) {
        for call in self.calls.iter().filter(|c| c.kind == CallKind::Invite) {
            let good = call.finals.iter().filter(|(status, _)| *status < 300).count();
            let bad = call.finals.len() - good;
            // Both: a callee answered when another's refusal had gone upstream; see `World::watch_final`.
            let one = bad <= 1 && good + bad >= 1;
            if !one || call.timed_out {
                problems.push(format!(
                    "the INVITE {} to {} got the final replies {:?}{}",
                    call.id,
                    call.uri,
                    call.finals,
                    if call.timed_out { ", after its timer B" } else { "" }
                ));
            }
        }
        for client in self.clients.unanswered() {
            let first = String::from_utf8_lossy(&client.bytes).lines().next().unwrap_or_default().to_string();
            let of = Message::parse(client.bytes.clone())
                .map(|m| value(&m, HeaderName::CallId))
                .unwrap_or_default();
            problems.push(format!("no final reply to {first} of {of}"));
        }
    }

    /// The caller acknowledged a 2xx with this tag.
    pub fn has_answer(&self, call_id: &str, tag: &str) -> bool {
        self.calls.iter().any(|c| c.id == call_id && c.acks.contains_key(tag))
    }
}

/// Position of a reply among those its callee sent.
pub fn sequence(msg: &Message) -> Option<(String, u64)> {
    let text = named(msg, "X-Seq")?;
    let (who, n) = text.rsplit_once('-')?;
    Some((who.to_string(), n.parse().ok()?))
}

/// A reply to an INVITE.
pub fn is_invite_reply(msg: &Message) -> bool {
    !msg.is_request() && msg.cseq().is_some_and(|c| c.method == Method::Invite)
}
