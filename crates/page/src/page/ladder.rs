//! Calls as they pass, for whoever looks: `page:follow` says which, `page:ladder` shows messages and waits.
//!
//! Nothing is kept while nobody looks: following ends [`PATIENCE_MS`] after the last look.

use super::Page;
use bytes::Bytes;
use host::ctx::{Core, MsgState};
use host::mi::{MiParams, MiResult};
use host::observe::{Observer, Seen, Waiting, Way};
use host::worker::ops::Ended;
use host::{Call, Ctx, Registrar};
use memchr::memmem;
use parking_lot::Mutex;
use script::{Loc, Sources};
use serde_json::{Value as Json, json};
use sip::{HeaderName, Message};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use transaction::Path;

/// Calls that are kept; the oldest go first.
const MAX_CALLS: usize = 50;
/// Messages and waits of one call; what follows is only counted.
const MAX_EVENTS: usize = 500;
/// Bytes of a message that are shown.
const SHOWN_BYTES: usize = 4096;
/// Following ends so long after the last look, ms.
const PATIENCE_MS: u64 = 60_000;

enum What {
    Message { sent: bool, peer: String, first: String, text: String },
    Wait { what: &'static str, detail: String, loc: Loc, over: Option<(Ended, u64)> },
}

struct Event {
    at_us: u64,
    what: What,
}

struct Followed {
    call_id: Bytes,
    from: String,
    to: String,
    events: Vec<Event>,
    /// Events for which there was no room.
    left_out: u64,
}

#[derive(Default)]
struct Following {
    /// What a message must hold for its call to be followed; empty: every call.
    text: Vec<u8>,
    until_ms: u64,
    calls: VecDeque<Followed>,
}

#[derive(Default)]
pub struct Ladder {
    following: Mutex<Following>,
}

pub fn register(m: &mut Registrar<Page>) {
    m.command(
        "page:follow",
        "follows calls from now on whose messages hold this text: a Call-ID, a user, an address",
        follow,
    )
    .takes("[text]");
    m.command("page:ladder", "calls that are followed, or messages and waits of one", show)
        .takes("[call_id]");
}

/// What a worker tells the ladder, as long as somebody looks.
struct Watching(Arc<Ladder>);

/// The one of this worker, while there is one.
#[derive(Default)]
struct OfWorker(Option<Rc<dyn Observer>>);

impl Observer for Watching {
    fn wants(&self, _: &Ctx, _: &MsgState) -> bool {
        false
    }

    fn script(&self, _: &mut Ctx, _: Seen<'_>) {}

    fn waits(&self, ctx: &mut Ctx, waiting: Waiting<'_>) {
        self.0.waits(&ctx.core, &waiting, None);
    }

    fn waited(&self, ctx: &mut Ctx, waiting: Waiting<'_>, how: Ended) {
        let took = ctx.core.now.0.saturating_sub(waiting.since.0);
        self.0.waits(&ctx.core, &waiting, Some((how, took)));
    }

    fn message(&self, ctx: &mut Ctx, way: Way, path: &Path, bytes: &Bytes) {
        if self.0.ended(ctx.core.now.0) {
            if let Some(own) = ctx.local::<OfWorker>().0.take() {
                ctx.unobserve(&own);
            }
            return;
        }
        self.0.passed(ctx, way, path, bytes);
    }
}

/// This worker tells what passes, until nobody looks.
fn observe(ctx: &mut Ctx, ladder: Arc<Ladder>) {
    if ctx.local::<OfWorker>().0.is_none() {
        let own: Rc<dyn Observer> = Rc::new(Watching(ladder));
        ctx.local::<OfWorker>().0 = Some(own.clone());
        ctx.observe(own);
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || memmem::find(bytes, text).is_some()
}

impl Ladder {
    /// Follows anew; what was kept before is forgotten.
    fn follow(&self, text: &str, now_ms: u64) {
        let (text, until_ms) = (text.as_bytes().to_vec(), now_ms + PATIENCE_MS);
        *self.following.lock() = Following { text, until_ms, calls: VecDeque::new() };
    }

    /// Nobody has looked for so long that nothing is kept any more.
    fn ended(&self, now_ms: u64) -> bool {
        now_ms > self.following.lock().until_ms
    }

    fn passed(&self, ctx: &Ctx, way: Way, path: &Path, bytes: &Bytes) {
        let at_us = ctx.core.wall_us;
        let mut following = self.following.lock();
        let known = following.calls.iter().position(|call| holds(bytes, &call.call_id));
        if known.is_none() && !holds(bytes, &following.text) {
            return;
        }
        let Ok(msg) = Message::parse(bytes.clone()) else { return };
        let Some(call_id) = msg.call_id() else { return };
        // Its text may stand in another call's message.
        let known = known.filter(|at| following.calls[*at].call_id == call_id);
        let at = match known.or_else(|| following.calls.iter().position(|call| call.call_id == call_id)) {
            Some(at) => at,
            None => {
                if following.calls.len() == MAX_CALLS {
                    following.calls.pop_front();
                }
                following.calls.push_back(Followed::of(&msg, call_id));
                following.calls.len() - 1
            }
        };
        let peer = format!("{}:{}", path.transport.as_str(), path.remote);
        let what =
            What::Message { sent: way == Way::Out, peer, first: first_line(bytes), text: shown(bytes) };
        following.calls[at].add(Event { at_us, what });
    }

    /// `over`: how it ended and how many ms it took; `None`: it begins.
    fn waits(&self, core: &Core, waiting: &Waiting<'_>, over: Option<(Ended, u64)>) {
        let mut following = self.following.lock();
        let Some(call) = following.calls.iter_mut().find(|call| call.call_id == *waiting.call_id) else {
            return;
        };
        if over.is_some() {
            let ours = |event: &&mut Event| matches!(&event.what, What::Wait { what, loc, over: None, .. } if *what == waiting.what && *loc == waiting.loc);
            if let Some(Event { what: What::Wait { over: end, .. }, .. }) = call.events.iter_mut().find(ours)
            {
                *end = over;
            }
            return;
        }
        let detail = String::from_utf8_lossy(waiting.detail).into_owned();
        let what = What::Wait { what: waiting.what, detail, loc: waiting.loc, over: None };
        call.add(Event { at_us: core.wall_us, what });
    }
}

impl Followed {
    fn of(msg: &Message, call_id: Bytes) -> Followed {
        let uri = |name| {
            let addresses = msg.addresses(name).unwrap_or_default();
            addresses.first().map_or_else(String::new, |a| String::from_utf8_lossy(&a.uri).into_owned())
        };
        let (from, to) = (uri(HeaderName::From), uri(HeaderName::To));
        Followed { call_id, from, to, events: Vec::new(), left_out: 0 }
    }

    fn add(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS { self.events.push(event) } else { self.left_out += 1 }
    }
}

fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned()
}

/// A message without what proves who somebody is.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    let line = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        let secret = ["Authorization", "Proxy-Authorization"].iter().any(|s| name.eq_ignore_ascii_case(s));
        if secret { format!("{name}: (not shown)\n") } else { format!("{}\n", line.trim_end_matches('\r')) }
    };
    let mut folded = false;
    let mut out = String::new();
    for each in text.split_terminator('\n') {
        // The rest of a secret that goes on on the next line.
        if folded && each.starts_with([' ', '\t']) {
            continue;
        }
        let written = line(each);
        folded = written.ends_with("(not shown)\n");
        out.push_str(&written);
    }
    out
}

fn follow(call: &mut Call<Page>, params: &MiParams) -> MiResult {
    let text = params.text("text", 0).unwrap_or_default();
    let ladder = call.module.ladder.clone();
    ladder.follow(text.trim(), call.ctx.core.now.0);
    for worker in 0..usize::from(call.core.workers) {
        let ladder = ladder.clone();
        call.ctx.on_worker(worker, move |ctx| observe(ctx, ladder));
    }
    Ok(json!("OK"))
}

fn show(call: &mut Call<Page>, params: &MiParams) -> MiResult {
    let (wanted, sources) = (params.text("call_id", 0), call.shared().sources());
    let now_ms = call.ctx.core.now.0;
    let mut following = call.module.ladder.following.lock();
    let active = now_ms <= following.until_ms;
    if active {
        following.until_ms = now_ms + PATIENCE_MS;
    }
    let text = String::from_utf8_lossy(&following.text).into_owned();
    let calls: Vec<Json> = following
        .calls
        .iter()
        .map(|c| {
            let answer = c.events.iter().rev().find_map(|event| match &event.what {
                What::Message { first, .. } if first.starts_with("SIP/2.0 ") => Some(first[8..].to_owned()),
                _ => None,
            });
            json!({
                "Call-ID": String::from_utf8_lossy(&c.call_id), "From": c.from, "To": c.to, "Events": c.events.len(),
                "Began": c.events.first().map(|e| e.at_us / 1000), "Last answer": answer,
            })
        })
        .collect();
    let one = wanted.and_then(|id| following.calls.iter().find(|c| c.call_id == id.as_bytes()));
    let events = one.map(|c| c.events.iter().map(|event| as_json(event, &sources)).collect::<Vec<_>>());
    let left_out = one.map_or(0, |c| c.left_out);
    Ok(json!({"Following": active, "Text": text, "Calls": calls, "Events": events, "Left out": left_out}))
}

fn as_json(event: &Event, sources: &Sources) -> Json {
    match &event.what {
        What::Message { sent, peer, first, text } => {
            json!({"At": event.at_us, "Sent": sent, "Peer": peer, "First": first, "Text": text})
        }
        What::Wait { what, detail, loc, over } => {
            let line = match *loc == Loc::default() {
                true => String::new(),
                false => format!("{}:{}", sources.name(*loc), sources.line_col(*loc).0),
            };
            let end = over.map(|(how, _)| match how {
                Ended::Done(code) => format!("returned {code}"),
                Ended::TimedOut => "no answer in time".to_owned(),
                Ended::Cancelled => "dropped".to_owned(),
            });
            json!({
                "At": event.at_us, "Operation": what, "For": detail, "Line": line, "Took ms": over.map(|(_, ms)| ms),
                "End": end,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = shown(
            b"REGISTER sip:a SIP/2.0\r\nAuthorization: Digest username=\"a\",\r\n response=\"secret\"\r\nproxy-authorization : Digest x\r\nTo: <sip:b>\r\n\r\n",
        );
        assert_eq!(
            text,
            "REGISTER sip:a SIP/2.0\nAuthorization: (not shown)\nproxy-authorization: (not shown)\nTo: <sip:b>\n\n"
        );
    }
}
