//! One user agent of a scenario. It keeps the transactions and dialogs of RFC 3261, so that steps say what is meant
//! and no more: requests and final replies are repeated, repetitions absorbed, refusals acknowledged.

use super::message::{Written, headers};
use super::plan::PartySpec;
use crate::agent::{T1, T2, TIMER_B, address_of, branch, cseq_method, named, text, uri_of, value};
use bytes::Bytes;
use sip::{HeaderName, Message, ReplyParts};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

/// What a party wants done.
#[derive(Default)]
pub struct Wishes {
    pub send: Vec<(SocketAddr, Bytes)>,
    /// (in so many milliseconds, which of its repetitions)
    pub timers: Vec<(u64, Repeat)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repeat {
    Request(usize),
    Reply(usize),
}

/// A request that was sent.
struct Client {
    branch: String,
    method: String,
    bytes: Bytes,
    to: SocketAddr,
    began: u64,
    interval: u64,
    /// The last status.
    status: u16,
    /// What came, so that repetitions are known.
    seen: Vec<Bytes>,
    /// The ACK of its 2xx or refusal, which goes out again with each repetition.
    ack: Option<(SocketAddr, Bytes)>,
    call: usize,
}

/// A request that came.
struct Server {
    msg: Rc<Message>,
    from: SocketAddr,
    status: u16,
    reply: Option<Bytes>,
    began: u64,
    interval: u64,
    acked: bool,
}

/// A dialog, or what may become one.
#[derive(Clone, Default)]
struct Call {
    id: String,
    /// From or To of its own requests, with its tag.
    local: String,
    remote: String,
    cseq: u32,
    routes: Vec<String>,
    target: String,
    /// The number of the INVITE that the next ACK and CANCEL belong to, and its client transaction.
    invite: Option<(u32, usize)>,
}

pub struct Party {
    pub spec: PartySpec,
    pub server: SocketAddr,
    /// What no step has taken yet.
    pub inbox: VecDeque<Rc<Message>>,
    calls: Vec<Call>,
    /// The call that the next step is about.
    current: usize,
    clients: Vec<Client>,
    servers: Vec<Server>,
    made: u32,
    /// Nonces of credentials that were used, so that their count goes up.
    nonces: Vec<(Bytes, u32)>,
}

impl Party {
    pub fn new(spec: PartySpec, server: SocketAddr) -> Party {
        Party {
            spec,
            server,
            inbox: VecDeque::new(),
            calls: Vec::new(),
            current: 0,
            clients: Vec::new(),
            servers: Vec::new(),
            made: 0,
            nonces: Vec::new(),
        }
    }

    fn fresh(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}{}", self.spec.name, self.made)
    }

    fn domain(&self) -> String {
        self.spec.domain.clone().unwrap_or_else(|| self.server.ip().to_string())
    }

    /// Sends what a step says. The error is what a user should read.
    pub fn send(&mut self, now: u64, written: Written, to: Option<SocketAddr>) -> Result<Wishes, String> {
        let first = written.start.strip_prefix("SIP/2.0 ").unwrap_or(&written.start).to_string();
        if first.starts_with(|c: char| c.is_ascii_digit()) {
            self.reply(now, &first, written)
        } else {
            self.request(now, written, to)
        }
    }

    /// Bytes as they are, to the server.
    pub fn send_raw(&self, bytes: Bytes, to: Option<SocketAddr>) -> Wishes {
        Wishes { send: vec![(to.unwrap_or(self.server), bytes)], ..Wishes::default() }
    }

    fn request(&mut self, now: u64, mut written: Written, to: Option<SocketAddr>) -> Result<Wishes, String> {
        let line = written.start.strip_suffix(" SIP/2.0").unwrap_or(&written.start).to_string();
        let (method, uri) = line.split_once(' ').map_or((line.as_str(), None), |(m, u)| (m, Some(u.trim())));
        let call_id = written.take("Call-ID");
        let within = match (&call_id, uri) {
            (Some(id), _) => self.calls.iter().position(|call| call.id == *id),
            (None, None) => Some(self.current).filter(|at| *at < self.calls.len()),
            (None, Some(_)) => None,
        };
        let at = match within {
            Some(at) => at,
            None => {
                let uri = uri.ok_or_else(|| {
                    format!("{} is in no call: where does {method} go? Write a URI", self.spec.name)
                })?;
                self.new_call(call_id, uri, method)
            }
        };
        self.current = at;
        if method == "CANCEL" {
            return self.cancel(now, at);
        }
        let mut call = self.calls[at].clone();
        let number = match (method, call.invite) {
            ("ACK", Some((number, _))) => number,
            ("ACK", None) => {
                return Err(format!("{} has sent no INVITE that an ACK could be for", self.spec.name));
            }
            _ => {
                call.cseq += 1;
                call.cseq
            }
        };
        let branch = written.has("Via").then(String::new).unwrap_or_else(|| self.fresh("z9hG4bK"));
        let uri = uri.map_or(call.target.clone(), str::to_string);
        let mut head = format!("{method} {uri} SIP/2.0\r\n");
        let mut add = |name: &str, value: &str, written: &mut Written| {
            let value = written.take(name).unwrap_or_else(|| value.to_string());
            head.push_str(&format!("{name}: {value}\r\n"));
        };
        let address = self.spec.address;
        add("Via", &format!("SIP/2.0/UDP {address};branch={branch};rport"), &mut written);
        add("Max-Forwards", "70", &mut written);
        if !written.has("Route") {
            call.routes.iter().for_each(|route| add("Route", route, &mut Written::parse("")));
        }
        add("From", &call.local, &mut written);
        add("To", &call.remote, &mut written);
        add("Call-ID", &call.id, &mut written);
        add("CSeq", &format!("{number} {method}"), &mut written);
        if matches!(method, "INVITE" | "REGISTER" | "SUBSCRIBE" | "UPDATE" | "REFER" | "NOTIFY") {
            add("Contact", &format!("<sip:{}@{address}>", self.spec.user), &mut written);
        }
        let body = written.body_text();
        if !body.is_empty() && !written.has("Content-Type") {
            add("Content-Type", "application/sdp", &mut written);
        }
        written.take("Content-Length");
        written.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let bytes = Bytes::from(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        let next = call.routes.first().map_or(call.target.as_str(), |route| route.as_str());
        let in_dialog = call.remote.contains(";tag=");
        let to = to.or_else(|| address_of(&uri_of(next)).filter(|_| in_dialog)).unwrap_or(self.server);
        let msg = Message::parse(bytes.clone())
            .map_err(|e| format!("what is to be sent is no SIP message: {e}"))?;
        self.calls[at] = call;
        Ok(self.begin(now, at, method, number, &msg, to))
    }

    fn begin(
        &mut self,
        now: u64,
        call: usize,
        method: &str,
        number: u32,
        msg: &Message,
        to: SocketAddr,
    ) -> Wishes {
        let bytes = msg.buf().clone();
        let mut wishes = Wishes { send: vec![(to, bytes.clone())], ..Wishes::default() };
        if method == "ACK" {
            if let Some((_, client)) = self.calls[call].invite {
                self.clients[client].ack = Some((to, bytes));
            }
            return wishes;
        }
        if method == "INVITE" {
            self.calls[call].invite = Some((number, self.clients.len()));
        }
        wishes.timers.push((T1, Repeat::Request(self.clients.len())));
        self.clients.push(Client {
            branch: branch(msg),
            method: method.to_string(),
            bytes,
            to,
            began: now,
            interval: T1,
            status: 0,
            seen: Vec::new(),
            ack: None,
            call,
        });
        wishes
    }

    fn new_call(&mut self, id: Option<String>, uri: &str, method: &str) -> usize {
        let own = format!("<sip:{}@{}>", self.spec.user, self.domain());
        let tag = self.fresh("tag");
        let id = id.unwrap_or_else(|| self.fresh("call-"));
        // A registration is of the party itself (RFC 3261 §10.2).
        let remote = if method == "REGISTER" { own.clone() } else { format!("<{uri}>") };
        let call = Call {
            id,
            local: format!("{own};tag={tag}"),
            remote,
            target: uri.to_string(),
            ..Call::default()
        };
        self.calls.push(call);
        self.calls.len() - 1
    }

    fn cancel(&mut self, now: u64, call: usize) -> Result<Wishes, String> {
        let Some((_, invite)) = self.calls[call].invite else {
            return Err(format!("{} has sent no INVITE that it could cancel", self.spec.name));
        };
        let of = &self.clients[invite];
        let msg = Message::parse(of.bytes.clone()).map_err(|e| e.to_string())?;
        let cancel = sip::build_cancel(&msg, b"");
        let to = of.to;
        let msg = Message::parse(cancel).map_err(|e| e.to_string())?;
        Ok(self.begin(now, call, "CANCEL", 0, &msg, to))
    }

    /// The last request that was refused for its credentials, once more with them.
    pub fn authenticate(&mut self, now: u64) -> Result<Wishes, String> {
        let name = self.spec.name.clone();
        let password = self.spec.password.clone().ok_or_else(|| format!("{name} has no `password:`"))?;
        let refused = self.clients.iter().rposition(|c| matches!(c.status, 401 | 407));
        let at = refused.ok_or_else(|| format!("nobody has asked {name} for credentials (401, 407)"))?;
        let (challenged, request) = {
            let client = &self.clients[at];
            let reply = client.seen.last().cloned().ok_or("no reply")?;
            (Message::parse(reply), Message::parse(client.bytes.clone()))
        };
        let (challenged, request) =
            (challenged.map_err(|e| e.to_string())?, request.map_err(|e| e.to_string())?);
        let (asks, answers) = match challenged.status() {
            401 => ("WWW-Authenticate", "Authorization"),
            _ => ("Proxy-Authenticate", "Proxy-Authorization"),
        };
        let challenge = named(&challenged, asks).ok_or_else(|| format!("there is no {asks} in the reply"))?;
        let challenge =
            sip::digest::Challenge::parse(&Bytes::from(challenge)).map_err(|e| format!("{asks}: {e}"))?;
        let count = match self.nonces.iter_mut().find(|(nonce, _)| *nonce == challenge.nonce) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.nonces.push((challenge.nonce.clone(), 1));
                1
            }
        };
        let algorithm = challenge.algorithm.unwrap_or(sip::digest::Algorithm::Md5);
        let user = self.spec.user.clone();
        let ha1 = sip::digest::ha1(algorithm, user.as_bytes(), &challenge.realm, password.as_bytes());
        let cnonce = self.fresh("c");
        let answer = challenge.answer(&sip::digest::Answer {
            user: user.as_bytes(),
            ha1: &ha1,
            method: &request.method_text(),
            uri: &request.request_uri(),
            body: request.bytes(request.body()),
            cnonce: cnonce.as_bytes(),
            nonce_count: count,
        });
        self.again(now, at, &request, &format!("{answers}: {}", text(&answer)))
    }

    /// A request once more, in a transaction of its own, with one more header.
    fn again(&mut self, now: u64, at: usize, request: &Message, line: &str) -> Result<Wishes, String> {
        let (call, to, method) =
            (self.clients[at].call, self.clients[at].to, self.clients[at].method.clone());
        self.calls[call].cseq += 1;
        self.current = call;
        let (number, branch) = (self.calls[call].cseq, self.fresh("z9hG4bK"));
        let name = line.split(':').next().unwrap_or_default();
        let mut head = format!("{} {} SIP/2.0\r\n", method, text(&request.request_uri()));
        for header in request.headers() {
            let label = text(&request.text(header.label()));
            let value = match header.name {
                HeaderName::Via => format!("SIP/2.0/UDP {};branch={branch};rport", self.spec.address),
                HeaderName::CSeq => format!("{number} {method}"),
                _ if label.eq_ignore_ascii_case(name) => continue,
                HeaderName::ContentLength => {
                    head.push_str(&format!("{line}\r\n"));
                    text(&request.text(header.value()))
                }
                _ => text(&request.text(header.value())),
            };
            head.push_str(&format!("{label}: {}\r\n", value.trim()));
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(request.bytes(request.body()));
        let msg = Message::parse(bytes.into()).map_err(|e| e.to_string())?;
        Ok(self.begin(now, call, &method, number, &msg, to))
    }

    fn reply(&mut self, now: u64, first: &str, mut written: Written) -> Result<Wishes, String> {
        let (code, reason) = first.split_once(' ').unwrap_or((first, "OK"));
        let code: u16 = code.parse().map_err(|_| format!("`{code}` is no status"))?;
        let wanted = written.take("CSeq");
        let fits = |s: &Server| {
            s.msg.method() != sip::Method::Ack
                && s.status < 200
                && wanted.as_ref().is_none_or(|cseq| *cseq == value(&s.msg, HeaderName::CSeq))
        };
        let at = self.servers.iter().rposition(fits);
        let at = at.ok_or_else(|| format!("{} has no request that waits for a reply", self.spec.name))?;
        let call = self.call_of(&self.servers[at].msg.clone());
        self.current = call;
        let tag =
            self.calls[call].local.split_once(";tag=").map(|(_, tag)| tag.to_string()).unwrap_or_default();
        let mut extra = String::new();
        if !written.has("Contact") && (101..300).contains(&code) {
            extra.push_str(&format!("Contact: <sip:{}@{}>\r\n", self.spec.user, self.spec.address));
        }
        let body = written.body_text();
        if !body.is_empty() && !written.has("Content-Type") {
            extra.push_str("Content-Type: application/sdp\r\n");
        }
        written.headers.iter().for_each(|(name, value)| extra.push_str(&format!("{name}: {value}\r\n")));
        let parts = ReplyParts {
            code,
            reason: reason.as_bytes(),
            to_tag: (code > 100).then_some(tag.as_bytes()),
            extra: extra.as_bytes(),
            body: body.as_bytes(),
            ..ReplyParts::default()
        };
        Ok(self.answer(now, at, &parts))
    }

    fn answer(&mut self, now: u64, at: usize, parts: &ReplyParts<'_>) -> Wishes {
        let server = &mut self.servers[at];
        let bytes = sip::build_reply(&server.msg, parts);
        (server.status, server.reply) = (parts.code, Some(bytes.clone()));
        let mut wishes = Wishes { send: vec![(server.from, bytes)], ..Wishes::default() };
        if parts.code >= 200 && server.msg.method() == sip::Method::Invite {
            (server.began, server.interval) = (now, T1);
            wishes.timers.push((T1, Repeat::Reply(at)));
        }
        wishes
    }

    /// The call of a request that came, made when it is a new one.
    fn call_of(&mut self, msg: &Message) -> usize {
        let id = value(msg, HeaderName::CallId);
        if let Some(at) = self.calls.iter().position(|call| call.id == id) {
            return at;
        }
        let tag = self.fresh("tag");
        let routes = msg.list(HeaderName::RecordRoute).map(|v| String::from_utf8_lossy(v).into_owned());
        let call = Call {
            id,
            local: format!("{};tag={tag}", value(msg, HeaderName::To)),
            remote: value(msg, HeaderName::From),
            cseq: 100,
            routes: routes.collect(),
            target: uri_of(&value(msg, HeaderName::Contact)),
            invite: None,
        };
        self.calls.push(call);
        self.calls.len() - 1
    }

    /// Something came. What steps should see goes into the inbox.
    pub fn receive(&mut self, now: u64, from: SocketAddr, msg: Message) -> Wishes {
        if msg.is_request() { self.on_request(now, from, msg) } else { self.on_reply(msg) }
    }

    fn on_request(&mut self, now: u64, from: SocketAddr, msg: Message) -> Wishes {
        let (id, method) = (branch(&msg), msg.method_text());
        let known = |s: &Server| branch(&s.msg) == id && s.msg.method_text() == method;
        if let Some(server) = self.servers.iter().find(|s| known(s)) {
            let again = server.reply.clone().map(|reply| (from, reply));
            return Wishes { send: again.into_iter().collect(), ..Wishes::default() };
        }
        if msg.method() == sip::Method::Ack {
            return self.on_ack(id, msg);
        }
        let msg = Rc::new(msg);
        let (began, interval) = (now, T1);
        self.servers.push(Server {
            msg: msg.clone(),
            from,
            status: 0,
            reply: None,
            began,
            interval,
            acked: false,
        });
        self.current = self.call_of(&msg);
        self.inbox.push_back(msg.clone());
        let mut wishes = Wishes::default();
        if msg.method() == sip::Method::Cancel && !self.spec.manual {
            let at = self.servers.len() - 1;
            let ok =
                ReplyParts { code: 200, reason: b"OK", to_tag: Some(b"canceled"), ..ReplyParts::default() };
            wishes.send.extend(self.answer(now, at, &ok).send);
            let invite =
                |s: &Server| branch(&s.msg) == id && s.msg.method() == sip::Method::Invite && s.status < 200;
            if let Some(at) = self.servers.iter().position(invite) {
                let tag = self.calls[self.current].local.split_once(";tag=").map(|(_, t)| t.to_string());
                let tag = tag.unwrap_or_default();
                let reason = b"Request Terminated";
                let parts =
                    ReplyParts { code: 487, reason, to_tag: Some(tag.as_bytes()), ..ReplyParts::default() };
                let more = self.answer(now, at, &parts);
                wishes.send.extend(more.send);
                wishes.timers.extend(more.timers);
            }
        }
        wishes
    }

    /// That of a refusal ends the transaction and is no step; that of a 2xx is one.
    fn on_ack(&mut self, id: String, msg: Message) -> Wishes {
        let call_id = value(&msg, HeaderName::CallId);
        let invite = |s: &&mut Server| {
            s.msg.method() == sip::Method::Invite && value(&s.msg, HeaderName::CallId) == call_id
        };
        let number = msg.cseq_parts().map(|(number, _)| number);
        let mut fresh = true;
        for server in self.servers.iter_mut().filter(invite) {
            let same = server.msg.cseq_parts().map(|(number, _)| number) == number;
            let refused = server.status >= 300 && branch(&server.msg) == id;
            if refused || (same && server.status < 300) {
                fresh = fresh && !refused && !server.acked;
                server.acked = true;
            }
        }
        if fresh {
            self.inbox.push_back(Rc::new(msg));
        }
        Wishes::default()
    }

    fn on_reply(&mut self, msg: Message) -> Wishes {
        let (id, method) = (branch(&msg), cseq_method(&msg));
        let mut wishes = Wishes::default();
        let Some(at) = self.clients.iter().position(|c| c.branch == id && c.method == method) else {
            self.inbox.push_back(Rc::new(msg));
            return wishes;
        };
        let (status, client) = (msg.status(), &mut self.clients[at]);
        let repeated =
            client.seen.contains(msg.buf()) || (status >= 200 && client.status == status && status >= 300);
        client.status = client.status.max(status);
        if repeated {
            wishes.send.extend(client.ack.clone());
            return wishes;
        }
        client.seen.push(msg.buf().clone());
        let call = client.call;
        self.current = call;
        if method == "INVITE"
            && status >= 300
            && !self.spec.manual
            && let Ok(invite) = Message::parse(client.bytes.clone())
        {
            let ack = (client.to, sip::build_ack(&invite, &msg, b""));
            client.ack = Some(ack.clone());
            wishes.send.push(ack);
        }
        if (101..300).contains(&status) && matches!(method.as_str(), "INVITE" | "SUBSCRIBE") {
            self.learn(call, &msg);
        }
        if status != 100 || self.spec.manual {
            self.inbox.push_back(Rc::new(msg));
        }
        wishes
    }

    /// The dialog as a reply has it (RFC 3261 §12.1.2).
    fn learn(&mut self, call: usize, msg: &Message) {
        let call = &mut self.calls[call];
        if msg.to_tag().is_some() {
            call.remote = value(msg, HeaderName::To);
        }
        if let Some(contact) = headers(msg, "Contact").first() {
            call.target = uri_of(contact);
        }
        let routes = msg.list(HeaderName::RecordRoute).map(|v| String::from_utf8_lossy(v).into_owned());
        let routes: Vec<String> = routes.collect();
        if !routes.is_empty() {
            call.routes = routes.into_iter().rev().collect();
        }
    }

    /// The time of a repetition has come.
    pub fn repeat(&mut self, now: u64, what: Repeat) -> Wishes {
        let mut wishes = Wishes::default();
        match what {
            Repeat::Request(at) => {
                let client = &mut self.clients[at];
                let invite = client.method == "INVITE";
                let over = client.status >= 200 || (invite && client.status >= 100);
                if over || now >= client.began + TIMER_B {
                    return wishes;
                }
                wishes.send.push((client.to, client.bytes.clone()));
                client.interval *= 2;
                if !invite {
                    client.interval = client.interval.min(T2);
                }
                wishes.timers.push((client.interval, what));
            }
            Repeat::Reply(at) => {
                let server = &mut self.servers[at];
                if server.acked || now >= server.began + TIMER_B {
                    return wishes;
                }
                wishes.send.extend(server.reply.clone().map(|reply| (server.from, reply)));
                server.interval = (server.interval * 2).min(T2);
                wishes.timers.push((server.interval, what));
            }
        }
        wishes
    }
}
