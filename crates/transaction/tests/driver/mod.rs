//! Drives one transaction with short words, on a virtual clock.

#![allow(dead_code)]

use bytes::Bytes;
use sip::{Message, Transport};
use transaction::*;

pub struct Driver {
    pub txns: Transactions<(), ()>,
    now: Instant,
    request: Option<Message>,
    id: Option<TxnId>,
    path: Path,
    failover: bool,
}

pub fn message(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n"))).expect("a correct message")
}

pub fn path(port: u16, transport: Transport) -> Path {
    Path { socket: 0, transport, remote: ([127, 0, 0, 1], port).into(), local: 0, connection: 0 }
}

pub fn request(method: &str, branch: &str, cseq: u32) -> Message {
    message(&format!(
        "{method} sip:b@h SIP/2.0\nVia: SIP/2.0/UDP up;branch={branch}\nFrom: <sip:a@h>;tag=a\n\
         To: <sip:b@h>\nCall-ID: c\nCSeq: {cseq} {method}\nContent-Length: 0\n\n"
    ))
}

/// The reply of a callee to a sent request, or to its CANCEL.
pub fn answer(sent: &Message, status: u16, cancel: bool) -> Message {
    let via = sent.text(sent.via().expect("a Via").whole);
    let method = if cancel { Bytes::from_static(b"CANCEL") } else { sent.method_text() };
    let (via, method) = (String::from_utf8_lossy(&via), String::from_utf8_lossy(&method));
    message(&format!(
        "SIP/2.0 {status} R\nVia: {via}\nFrom: <sip:a@h>;tag=a\nTo: <sip:b@h>;tag=b\nCall-ID: c\n\
         CSeq: 1 {method}\nContent-Length: 0\n\n"
    ))
}

impl Driver {
    pub fn new(config: Config) -> Driver {
        Driver {
            txns: Transactions::new(config, 3, 42),
            now: Instant(0),
            request: None,
            id: None,
            path: path(5060, Transport::Udp),
            failover: false,
        }
    }

    /// Runs one step; what came out, in words.
    pub fn step(&mut self, step: &str) -> Vec<String> {
        let words: Vec<&str> = step.split_whitespace().collect();
        let number = |n: usize| words.get(n).and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        let id = self.id.unwrap_or(TxnId { index: 0, generation: 0 });
        let (branch, status) = (number(1) as u16, number(2) as u16);
        let mut after = Vec::new();
        match words[0] {
            "tcp" => self.path.transport = Transport::Tcp,
            "failover" => self.failover = true,
            "new" | "local" => after.extend(self.create(words[0], words[1])),
            "open" => drop(self.txns.open_branch(id, ())),
            "go" => self.go(id, branch, &mut after),
            "send" => match self.txns.open_branch(id, ()) {
                Ok(branch) => self.go(id, branch, &mut after),
                Err(_) => after.push("refused".to_owned()),
            },
            "recv" | "recvc" => after.extend(self.receive(branch, status, words[0] == "recvc", true)),
            "late" => after.extend(self.receive(branch, status, false, false)),
            "decide" => {
                let verdict = self.txns.decide(self.now, id, branch, status);
                after.push(Self::verdict(verdict).unwrap_or("absorb".to_owned()));
            }
            "up" | "here" => {
                let origin = if words[0] == "up" { Origin::Relayed } else { Origin::Here };
                let bytes = Bytes::from(format!("SIP/2.0 {branch} R\r\n\r\n"));
                if self.txns.reply(self.now, id, branch, bytes, origin) == Replied::Late {
                    after.push("late".to_owned());
                }
            }
            "again" => match self.txns.find(self.request.as_ref().expect("a request")) {
                Some((found, Relation::Retransmission)) => {
                    assert_eq!(found, id);
                    self.txns.retransmission(id);
                }
                other => after.push(other.map_or("unknown".to_owned(), |o| format!("{o:?}"))),
            },
            "ack" | "ack2" => {
                let branch = if words[0] == "ack" { "z9hG4bKone" } else { "z9hG4bKother" };
                let found = self.txns.find(&request("ACK", branch, 1));
                let expected = if words[0] == "ack" { Relation::Ack } else { Relation::AckOfSuccess };
                assert_eq!(found, Some((id, expected)));
                after.push(format!("{:?}", self.txns.on_ack(self.now, id)).to_lowercase());
            }
            "cancel" => {
                let found = self.txns.find(&request("CANCEL", "z9hG4bKone", 1));
                assert_eq!(found, Some((id, Relation::Cancel)));
                let verdict = self.txns.cancel(self.now, id, Bytes::new());
                after.push(Self::verdict(verdict).unwrap_or("absorb".to_owned()));
            }
            "minor" => self.txns.set_minor(id, branch),
            "keep" => self.txns.keep_branches(id),
            "hold" => self.txns.hold(self.now, id),
            "release" => self.txns.release(self.now, id),
            "wait" => drop(self.txns.wait_for_branches(self.now, id, branch, ())),
            "injected" => {
                let verdict = self.txns.branch_injected(self.now, id);
                after.push(Self::verdict(verdict).unwrap_or("absorb".to_owned()));
            }
            "at" => {
                assert!(number(1) >= self.now.0);
                return self.advance(Instant(number(1)));
            }
            other => panic!("no step {other}"),
        }
        let mut out = self.outputs();
        out.extend(after);
        out
    }

    fn create(&mut self, how: &str, method: &str) -> Option<String> {
        let request = request(method, "z9hG4bKone", 1);
        let made = match how {
            "new" => self.txns.create(self.now, &request, self.path, ()),
            _ => self.txns.create_local(self.now, &request, self.path, ()),
        };
        self.request = Some(request);
        self.id = made.ok();
        self.id.is_none().then(|| "full".to_owned())
    }

    fn go(&mut self, id: TxnId, branch: u16, after: &mut Vec<String>) {
        let method = self.request.as_ref().expect("a request").method().as_str();
        let cookie = self.txns.via_branch(id, branch);
        let sent = request(method, std::str::from_utf8(&cookie).expect("ASCII"), 1);
        let mut path = self.path;
        path.remote.set_port(6000 + branch);
        if !self.txns.send(self.now, id, branch, sent.buf().clone(), path) {
            after.push("not sent".to_owned());
        }
    }

    fn receive(&mut self, branch: u16, status: u16, cancel: bool, decide: bool) -> Option<String> {
        let id = self.id?;
        let sent = Message::parse(self.txns.branch(id, branch)?.bytes.clone()).ok()?;
        let reply = answer(&sent, status, cancel);
        assert_eq!(self.txns.match_reply(&reply), Some((id, branch)));
        let received = self.txns.receive(self.now, id, branch, &reply);
        if received == Received::Absorb || !decide {
            return None;
        }
        Self::verdict(self.txns.decide(self.now, id, branch, status))
    }

    fn verdict(verdict: Verdict) -> Option<String> {
        match verdict {
            Verdict::Absorb => None,
            Verdict::Provisional => Some("provisional".to_owned()),
            Verdict::Success => Some("success".to_owned()),
            Verdict::Failed { winner: Some(n) } => Some(format!("failed {n}")),
            Verdict::Failed { winner: None } => Some("failed -".to_owned()),
        }
    }

    /// Jumps from deadline to deadline.
    fn advance(&mut self, to: Instant) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            let due = self.txns.next_deadline().filter(|at| *at <= to);
            self.now = due.unwrap_or(to).max(self.now);
            self.txns.on_timer(self.now, usize::MAX);
            out.extend(self.outputs());
            if due.is_none() {
                return out;
            }
        }
    }

    fn outputs(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(output) = self.txns.poll_output() {
            match output {
                Output::Transmit { path, bytes, .. } => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let mut words = text.split_whitespace();
                    let first = words.next().unwrap_or("").to_owned();
                    out.push(match path.remote.port() {
                        5060 => format!("up {}", words.next().unwrap_or("")),
                        port => format!("b{} {first}", port - 6000),
                    });
                }
                Output::Event(Event::Timeout { txn, branch, rang }) => {
                    out.push(format!("timeout {branch}{}", if rang { " rang" } else { "" }));
                    if std::mem::take(&mut self.failover) {
                        let next = self.txns.open_branch(txn, ()).expect("open");
                        self.go(txn, next, &mut out);
                    }
                    let verdict = self.txns.fail_branch(self.now, txn, branch, 408);
                    out.extend(Self::verdict(verdict));
                }
                Output::Event(Event::Unanswered { .. }) => out.push("unanswered".to_owned()),
                Output::Event(Event::Ended { .. }) => out.push("ended".to_owned()),
            }
        }
        out
    }
}
