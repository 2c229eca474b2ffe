//! Answers to INVITEs: their order, that there is one final reply, and that nobody is left without at the end.

use super::World;
use crate::agent::value;
use crate::caller::{is_invite_reply, sequence};
use bytes::Bytes;
use host::Input;
use sip::{HeaderName, Message, Method};

/// Order of replies of one callee's branch, as they came to the server and as they left it.
#[derive(Default)]
pub(super) struct Order {
    pub(super) came: Vec<u64>,
    pub(super) left: Vec<(u64, u16)>,
}

/// Final replies to an INVITE that have left the server.
#[derive(Default)]
pub(super) struct Finals {
    good: bool,
    bad: bool,
}

impl World {
    /// Nobody is left without an answer (`Input::End`): every INVITE that has come has its final reply then.
    pub(super) fn end(&mut self, worker: usize) {
        self.note(&format!("the time of worker {worker} is over"));
        self.step(worker, Input::End);
        for (call, _) in
            self.asked.iter().filter(|(call, of)| **of == worker && !self.finals.contains_key(*call))
        {
            self.problems.push(format!("the INVITE of {call} had no final reply when its worker ended"));
        }
    }

    pub(super) fn watch_coming(&mut self, worker: usize, bytes: &Bytes) {
        let Ok(msg) = Message::parse(bytes.clone()) else { return };
        if msg.is_request() && msg.method() == Method::Invite {
            self.asked.insert(value(&msg, HeaderName::CallId), worker);
        }
        if let (true, Some((who, n))) = (is_invite_reply(&msg), sequence(&msg)) {
            let order = self.orders.entry(who).or_default();
            if !order.came.contains(&n) {
                order.came.push(n);
            }
        }
    }

    pub(super) fn watch_leaving(&mut self, bytes: &Bytes) {
        let Ok(msg) = Message::parse(bytes.clone()) else { return };
        if !is_invite_reply(&msg) {
            return;
        }
        self.watch_final(&msg);
        if let Some((who, n)) = sequence(&msg) {
            let order = self.orders.entry(who).or_default();
            if !order.left.iter().any(|(known, _)| *known == n) {
                order.left.push((n, msg.status()));
            }
        }
    }

    /// A 2xx may follow a negative reply (RFC 3261 §16.7 step 5), never the other way round.
    fn watch_final(&mut self, msg: &Message) {
        if msg.status() < 200 {
            return;
        }
        let finals = self.finals.entry(value(msg, HeaderName::CallId)).or_default();
        match msg.status() {
            200..300 => finals.good = true,
            status => {
                if finals.good && !finals.bad {
                    let call = value(msg, HeaderName::CallId);
                    self.problems.push(format!("{status} left after a 2xx to the INVITE of {call}"));
                }
                finals.bad = true;
            }
        }
    }
}
