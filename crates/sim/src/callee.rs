//! A callee: server transactions (RFC 3261 §17.2) that ring, answer, refuse or say nothing, by the seed.

use crate::agent::{Clients, T1, T2, Timer, Wishes, branch, text, value};
use bytes::Bytes;
use host::ctx::Rng;
use sip::{HeaderName, Message, Method, ReplyParts};
use std::net::SocketAddr;

/// One request that came.
pub struct Request {
    msg: Message,
    branch: String,
    pub call_id: String,
    /// Where replies go.
    to: SocketAddr,
    /// What is still to be sent: (when, status).
    plan: Vec<(u64, u16)>,
    /// The reply sent last.
    last: Bytes,
    pub status: u16,
    pub acked: bool,
    interval: u64,
    until: u64,
}

pub struct Callee {
    pub address: SocketAddr,
    pub name: String,
    pub requests: Vec<Request>,
    pub clients: Clients,
    /// Branches whose CANCEL could not be brought: nobody tells it to stop ringing (a request is sent once over a stream, RFC 3261 §17.1.2).
    unreached: Vec<String>,
    rng: Rng,
    sent: u64,
}

impl Callee {
    pub fn new(rng: &mut Rng, n: u8) -> Callee {
        Callee {
            address: ([10, 0, 0, n], 5060).into(),
            name: format!("callee{n}"),
            requests: Vec::new(),
            clients: Clients::default(),
            unreached: Vec::new(),
            rng: Rng(rng.next_u64()),
            sent: 0,
        }
    }

    /// Something for this callee could not be sent.
    pub fn cannot_hear(&mut self, msg: &Message) {
        if msg.method() == Method::Cancel && msg.is_request() {
            self.unreached.push(branch(msg));
        }
    }

    pub fn on_message(&mut self, now: u64, from: SocketAddr, msg: Message, wishes: &mut Wishes) {
        if !msg.is_request() {
            self.clients.reply(&msg);
            return;
        }
        let (branch, method) = (branch(&msg), msg.method());
        let call_id = value(&msg, HeaderName::CallId);
        if method == Method::Ack {
            let tag = msg.to_tag().map(|t| text(&t)).unwrap_or_default();
            let own = |r: &&mut Request| {
                r.msg.method() == Method::Invite
                    && (r.branch == branch || (r.call_id == call_id && r.tag(&self.name) == tag))
            };
            self.requests.iter_mut().filter(own).for_each(|r| r.acked = true);
            return;
        }
        if method == Method::Bye {
            // Who hangs up has heard the 2xx.
            let tag = msg.to_tag().map(|t| text(&t)).unwrap_or_default();
            let name = self.name.clone();
            let own = |r: &&mut Request| r.call_id == call_id && r.status < 300 && r.tag(&name) == tag;
            self.requests.iter_mut().filter(own).for_each(|r| r.acked = true);
        }
        let known = self.requests.iter().position(|r| r.branch == branch && r.msg.method() == method);
        if let Some(known) = known {
            let request = &self.requests[known];
            if !request.last.is_empty() {
                wishes.send.push((request.to, request.last.clone()));
            }
            return;
        }
        let index = self.requests.len();
        let plan = match method {
            Method::Invite => self.invite_plan(now),
            _ => vec![(now, 200)],
        };
        wishes.timers.extend(plan.iter().map(|(at, _)| (*at, Timer::Step(index))));
        self.requests.push(Request {
            msg,
            branch: branch.clone(),
            call_id,
            to: from,
            plan,
            last: Bytes::new(),
            status: 0,
            acked: false,
            interval: T1,
            until: u64::MAX,
        });
        if method == Method::Cancel {
            self.cancelled(now, &branch, wishes);
        }
    }

    /// Rings none to three times, then answers; or never says anything more.
    fn invite_plan(&mut self, now: u64) -> Vec<(u64, u16)> {
        let mut at = now + self.rng.below(3000);
        let mut plan = Vec::new();
        for _ in 0..self.rng.below(4) {
            plan.push((at, if self.rng.below(3) == 0 { 183 } else { 180 }));
            at += self.rng.below(4000);
        }
        let status = match self.rng.below(20) {
            0..9 => 200,
            9..12 => 486,
            12 => 404,
            13 => 503,
            14 => 302,
            15 => 603,
            16 => 408,
            17 => 480,
            18 => return plan,
            _ => return Vec::new(),
        };
        plan.push((at, status));
        plan
    }

    fn cancelled(&mut self, now: u64, branch: &str, wishes: &mut Wishes) {
        let of = self.requests.iter().position(|r| r.branch == branch && r.msg.method() == Method::Invite);
        if let Some(index) = of.filter(|i| self.requests[*i].status < 200) {
            self.requests[index].plan = vec![(now, 487)];
            wishes.timers.push((now, Timer::Step(index)));
        }
    }

    pub fn on_timer(&mut self, now: u64, timer: Timer, wishes: &mut Wishes) {
        match timer {
            Timer::Again(index) => self.clients.again(now, index, wishes),
            Timer::Step(index) => self.step(now, index, wishes),
            Timer::ReplyAgain(index) => {
                let request = &mut self.requests[index];
                if !request.acked && now < request.until {
                    wishes.send.push((request.to, request.last.clone()));
                    request.interval = (request.interval * 2).min(T2);
                    wishes.timers.push((now + request.interval, Timer::ReplyAgain(index)));
                }
            }
        }
    }

    fn step(&mut self, now: u64, index: usize, wishes: &mut Wishes) {
        let request = &mut self.requests[index];
        let Some(at) = request.plan.iter().position(|(at, _)| *at <= now) else { return };
        let (_, status) = request.plan.remove(at);
        if request.status >= 200 {
            return;
        }
        self.sent += 1;
        let tag = request.tag(&self.name);
        let contact = format!(
            "Contact: <sip:{}@{}>\r\nX-Seq: {}{}-{}\r\n",
            self.name, self.address, self.name, request.branch, self.sent
        );
        let parts = ReplyParts {
            code: status,
            reason: b"Reason",
            to_tag: Some(tag.as_bytes()),
            extra: contact.as_bytes(),
            ..ReplyParts::default()
        };
        request.last = sip::build_reply(&request.msg, &parts);
        request.status = status;
        wishes.send.push((request.to, request.last.clone()));
        if status >= 200 && request.msg.method() == Method::Invite {
            request.until = now + 64 * T1;
            wishes.timers.push((now + request.interval, Timer::ReplyAgain(index)));
        }
    }

    /// What is not as it must be. `acknowledged`: the caller took that 2xx.
    pub fn complain(&self, acknowledged: impl Fn(&str, &str) -> bool, problems: &mut Vec<String>) {
        for request in self.requests.iter().filter(|r| r.msg.method() == Method::Invite) {
            let (name, id, status) = (&self.name, &request.call_id, request.status);
            if (100..200).contains(&status) && !self.unreached.contains(&request.branch) {
                problems.push(format!("{name} rings for ever for {id}"));
            }
            let taken = status >= 300 || acknowledged(id, &request.tag(name));
            if status >= 200 && !request.acked && taken {
                problems.push(format!("{name} got no ACK for its {status} of {id}"));
            }
        }
        for client in self.clients.unanswered() {
            problems.push(format!("{} got no final reply to its {}", self.name, client.what));
        }
    }
}

impl Request {
    /// The tag of this callee in the dialog.
    fn tag(&self, name: &str) -> String {
        match self.msg.to_tag() {
            Some(tag) => text(&tag),
            None => format!("{name}{}", self.branch.trim_start_matches("z9hG4bK").replace('.', "")),
        }
    }
}
