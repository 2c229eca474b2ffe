//! Tells the story of calls while they happen: an observer that writes a [`Record`]. Live traces and replays share it.

use crate::story::{Entry, Record, What};
use bytes::Bytes;
use host::ctx::MsgState;
use host::observe::{Observer, Seen, Waiting, Way};
use host::worker::ops::Ended;
use host::{Ctx, Value};
use script::Loc;
use sip::{HeaderName, Message};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use transaction::Path;

/// Calls that one teller follows; further ones are not told of.
const MAX_TOLD_CALLS: usize = 1000;
/// Entries that are kept until they are taken; the oldest go.
const MAX_ENTRIES: usize = 100_000;
/// Characters of a value that are shown.
const SHOWN: usize = 200;

/// Which calls are told of.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Wanted {
    #[default]
    All,
    /// Of this Call-ID.
    Call(Bytes),
    /// To or from this user: in the R-URI, From or To of the request.
    User(String),
    /// To or from this address.
    Address(IpAddr),
}

impl Wanted {
    /// An address, `user@...` or a plain user, or a Call-ID: as people write what they look for.
    pub fn guess(text: &str) -> Wanted {
        if let Ok(ip) = text.parse() {
            return Wanted::Address(ip);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Wanted::Address(address.ip());
        }
        match text.strip_prefix("sip:").or_else(|| text.strip_prefix("sips:")) {
            Some(uri) => Wanted::User(uri.split('@').next().unwrap_or(uri).to_string()),
            None => Wanted::Call(Bytes::copy_from_slice(text.as_bytes())),
        }
    }
}

/// Writes down what happens to the calls that are wanted.
pub struct Teller {
    wanted: Wanted,
    calls: RefCell<HashSet<Bytes>>,
    record: RefCell<Record>,
    /// The clock of the first entry; times count from it.
    from: Cell<Option<u64>>,
    clock: fn(&Ctx) -> u64,
    /// The line noted last, so that one with several functions is noted once.
    last: Cell<Loc>,
    /// Something of a wanted call happens in this step: its log lines belong here.
    here: RefCell<Bytes>,
    /// Entries that were not kept.
    pub missed: Cell<u64>,
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null | Value::Nought | Value::Failed => "<null>".to_string(),
        Value::Int(n) => n.to_string(),
        Value::Num(text, _) => cut(text),
        Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _) => format!("\"{}\"", cut(text)),
    }
}

fn cut(text: &[u8]) -> String {
    let text = script::traced::printable(&String::from_utf8_lossy(text)).into_owned();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// The first line of a message, without what every one has.
pub fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.trim_start().lines().next().unwrap_or_default().trim_end();
    let line = line.strip_prefix("SIP/2.0 ").unwrap_or(line);
    line.strip_suffix(" SIP/2.0").unwrap_or(line).to_string()
}

impl Teller {
    pub fn new(wanted: Wanted) -> Teller {
        let calls = match &wanted {
            Wanted::Call(id) => HashSet::from([id.clone()]),
            _ => HashSet::new(),
        };
        Teller {
            wanted,
            calls: RefCell::new(calls),
            record: RefCell::default(),
            from: Cell::new(None),
            clock: |ctx| ctx.core.now.0,
            last: Cell::default(),
            here: RefCell::default(),
            missed: Cell::new(0),
        }
    }

    /// One whose times are milliseconds since 1970, for traces of several workers.
    pub fn live(wanted: Wanted) -> Teller {
        Teller { clock: |ctx| ctx.core.wall_us / 1000, from: Cell::new(Some(0)), ..Teller::new(wanted) }
    }

    /// What was told since the last time; the columns stay.
    pub fn take(&self) -> Record {
        let mut record = self.record.borrow_mut();
        let entries = std::mem::take(&mut record.entries);
        Record { columns: record.columns.clone(), entries }
    }

    fn wants_call(&self, id: &[u8]) -> bool {
        self.wanted == Wanted::All || self.calls.borrow().contains(id)
    }

    /// Looks at a message that passes: whether its call is wanted from here on.
    fn looks_at(&self, path: &Path, bytes: &Bytes, id: &Bytes) -> bool {
        if self.wants_call(id) {
            return true;
        }
        let fits = match &self.wanted {
            Wanted::All => true,
            Wanted::Call(_) => false,
            Wanted::Address(ip) => path.remote.ip() == *ip,
            Wanted::User(user) => is_of_user(bytes, user),
        };
        let mut calls = self.calls.borrow_mut();
        if !fits || calls.len() >= MAX_TOLD_CALLS {
            return false;
        }
        calls.insert(id.clone());
        true
    }

    fn note(&self, now: u64, call: &Bytes, what: What) {
        let from = self.from.get().unwrap_or(now);
        self.from.set(Some(from));
        let mut record = self.record.borrow_mut();
        if record.entries.len() >= MAX_ENTRIES {
            record.entries.remove(0);
            self.missed.set(self.missed.get() + 1);
        }
        record.entries.push(Entry { at: now.saturating_sub(from), call: call.clone(), what });
    }

    /// A log line that is written now, if it belongs to a call that is told of.
    pub fn log_here(&self, text: &str) {
        let now =
            self.record.borrow().entries.last().map_or(0, |entry| entry.at) + self.from.get().unwrap_or(0);
        let here = self.here.borrow().clone();
        if !here.is_empty() {
            self.note(now, &here, What::Log(text.trim_end().to_string()));
        }
    }

    /// Something else that belongs to the story.
    pub fn say(&self, now: u64, text: String) {
        self.note(now, &Bytes::new(), What::Note(text));
    }

    /// A step is over.
    pub fn away(&self) {
        self.here.borrow_mut().clear();
        self.last.set(Loc::default());
    }

    fn line(&self, ctx: &Ctx, loc: Loc, call: &Bytes) {
        if self.last.replace(loc) == loc || loc == Loc::default() {
            return;
        }
        let sources = ctx.shared().sources();
        let (file, line) = (sources.name(loc).to_string(), sources.line_col(loc).0);
        self.note((self.clock)(ctx), call, What::Line { file, line });
    }
}

fn is_of_user(bytes: &Bytes, user: &str) -> bool {
    let Ok(msg) = Message::parse(bytes.clone()) else { return false };
    let of_uri = |uri: &[u8]| {
        let uri = String::from_utf8_lossy(uri);
        let rest =
            uri.split_once("sip:").or_else(|| uri.split_once("sips:")).or_else(|| uri.split_once("tel:"));
        rest.is_some_and(|(_, rest)| rest.split(['@', ';', '>', ':']).next() == Some(user))
    };
    let header = |name| msg.header(name).is_some_and(|h| of_uri(msg.bytes(h.value())));
    (msg.is_request() && of_uri(&msg.request_uri())) || header(HeaderName::From) || header(HeaderName::To)
}

impl Observer for Teller {
    fn wants(&self, _: &Ctx, state: &MsgState) -> bool {
        let wanted = state.msg.call_id().is_some_and(|id| self.wants_call(&id));
        if wanted {
            *self.here.borrow_mut() = state.msg.call_id().unwrap_or_default();
        }
        wanted
    }

    fn script(&self, ctx: &mut Ctx, seen: Seen<'_>) {
        let call = ctx.state.msg.call_id().unwrap_or_default();
        let now = (self.clock)(ctx);
        let detail = |text: String| self.note(now, &call, What::Detail(text));
        match seen {
            Seen::Line(loc) => self.line(ctx, loc, &call),
            Seen::Calls { .. } => self.line(ctx, ctx.state.task.loc(), &call),
            Seen::Called { name, rc: Some(rc) } => detail(format!("{name}() = {rc}")),
            Seen::Called { .. } => {}
            Seen::Assigned { variable, value } => {
                self.line(ctx, ctx.state.task.loc(), &call);
                detail(format!("{} = {}", String::from_utf8_lossy(variable), shown(value)));
            }
            Seen::Left(_) => self.last.set(Loc::default()),
        }
    }

    fn waits(&self, ctx: &mut Ctx, waiting: Waiting<'_>) {
        if self.wants_call(waiting.call_id) && !waiting.call_id.is_empty() {
            let text = format!("waits for {} {}", waiting.what, cut(waiting.detail));
            self.note((self.clock)(ctx), waiting.call_id, What::Note(text.trim_end().to_string()));
        }
    }

    fn waited(&self, ctx: &mut Ctx, waiting: Waiting<'_>, how: Ended) {
        if !self.wants_call(waiting.call_id) || waiting.call_id.is_empty() {
            return;
        }
        let now = (self.clock)(ctx);
        let ms = ctx.core.now.0.saturating_sub(waiting.since.0);
        let end = match how {
            Ended::Done(rc) => format!("{} = {rc} after {ms} ms", waiting.what),
            Ended::TimedOut => format!("{} gave no answer within {ms} ms", waiting.what),
            Ended::Cancelled => format!("{} was given up after {ms} ms", waiting.what),
        };
        self.note(now, waiting.call_id, What::Note(end));
    }

    fn message(&self, ctx: &mut Ctx, way: Way, path: &Path, bytes: &Bytes) {
        let Some(id) = Message::owner(bytes).map(Bytes::copy_from_slice) else { return };
        if !self.looks_at(path, bytes, &id) {
            return;
        }
        *self.here.borrow_mut() = id.clone();
        let peer = self.record.borrow_mut().column(&path.remote.to_string());
        let (from, to) = match way {
            Way::In => (peer, Some(1)),
            Way::Out => (Some(1), peer),
        };
        let what = What::Message { from, to, text: first_line(bytes), full: bytes.clone(), lost: false };
        self.note((self.clock)(ctx), &id, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_look_for() {
        let user = |text: &str| Wanted::User(text.to_string());
        for (text, expected) in [
            ("10.0.0.1", Wanted::Address([10, 0, 0, 1].into())),
            ("10.0.0.1:5060", Wanted::Address([10, 0, 0, 1].into())),
            ("sip:bob@example.com", user("bob")),
            ("sips:bob", user("bob")),
            ("a84b4c76e66710@pc33", Wanted::Call("a84b4c76e66710@pc33".into())),
        ] {
            assert_eq!(Wanted::guess(text), expected, "{text}");
        }
    }

    #[test]
    fn users_are_found_in_requests_and_replies() {
        let text = "INVITE sip:carol@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: \"A\" <sip:alice@x>;tag=1\r\n\
                    To: sip:bob@x;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n";
        for (user, expected) in [("alice", true), ("bob", true), ("carol", true), ("bo", false), ("A", false)]
        {
            assert_eq!(is_of_user(&Bytes::from(text), user), expected, "{user}");
        }
    }
}
