//! Requests that the server makes inside a dialog: BYE, pings, what scripts and commands ask for.

use super::cell::{Dialog, Leg, LegNo};
use super::link;
use super::table::{self, Key};
use super::{CALLER, Dlg};
use bytes::Bytes;
use host::tm::{Answer, NewRequest, send_new};
use host::{Call, Ctx, Text};
use script::ast::RouteKind;
use sip::{NameAddr, Uri};
use std::rc::Rc;
use transaction::Path;

/// What is sent to one end.
#[derive(Clone, Debug)]
pub struct Inside {
    pub method: Bytes,
    pub towards: LegNo,
    /// Whole lines.
    pub headers: Bytes,
    pub body: Bytes,
    pub content_type: Bytes,
    /// With a Contact header: that of the other end.
    pub contact: bool,
    /// Another way than the one the dialog knows.
    pub way: Option<Way>,
}

impl Inside {
    pub fn new(method: &str, towards: LegNo) -> Inside {
        Inside {
            method: Bytes::copy_from_slice(method.as_bytes()),
            towards,
            headers: Bytes::new(),
            body: Bytes::new(),
            content_type: Bytes::new(),
            contact: false,
            way: None,
        }
    }

    /// With a session description, if there is one.
    pub fn with_sdp(mut self, body: &[u8]) -> Inside {
        if !body.is_empty() {
            self.body = Bytes::copy_from_slice(body);
            self.content_type = Bytes::from_static(b"application/sdp");
        }
        self
    }
}

/// Sends it; `done` hears the final reply or why there is none. False: there is no such end, nobody will hear.
pub fn send(ctx: &mut Ctx, key: Key, what: Inside, done: impl FnOnce(&mut Ctx, Answer) + 'static) -> bool {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return false };
    let Some(request) = build(dialog, &what) else { return false };
    table::of(ctx).touch(key);
    let ack = (what.method == "INVITE").then(|| request.clone());
    let done = move |ctx: &mut Ctx, answer: Answer| {
        if let (Some(request), 200..300, Some(path)) = (ack, answer.status, answer.path) {
            acknowledge(ctx, request, path);
        }
        done(ctx, answer);
    };
    send_new(ctx, request, Some(Box::new(done)));
    true
}

/// The ACK for a 2xx to an INVITE of ours (RFC 3261 §13.2.2.4).
fn acknowledge(ctx: &mut Ctx, invite: NewRequest, path: Path) {
    let mut text = Vec::with_capacity(512);
    let cseq = invite.cseq.to_string();
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| text.extend_from_slice(part));
    put(&[b"ACK ", &invite.uri, b" SIP/2.0\r\nTo: ", &invite.to, b"\r\nFrom: ", &invite.from, b"\r\nCSeq: "]);
    put(&[cseq.as_bytes(), b" ACK\r\nCall-ID: ", invite.call_id.as_deref().unwrap_or_default(), b"\r\n"]);
    put(&[b"Max-Forwards: 70\r\n"]);
    for line in invite.headers.split_inclusive(|b| *b == b'\n').filter(|line| line.starts_with(b"Route: ")) {
        put(&[line]);
    }
    let agent = ctx.core.txns.policy.signature.user_agent.clone();
    if !agent.is_empty() {
        put(&[b"User-Agent: ", &agent, b"\r\n"]);
    }
    put(&[b"Content-Length: 0\r\n\r\n"]);
    let Ok(msg) = sip::Message::parse(text.into()) else { return };
    let task = script::Task::new(ctx.shared().program(), script::RouteId(0));
    let state = host::MsgState::new(Rc::new(msg), path, ctx.core.now, RouteKind::Local, task);
    let target = host::Branch { uri: invite.uri, ..Default::default() };
    let branch = format!("z9hG4bK{:016x}", ctx.core.rng.next_u64());
    let bytes = host::tm::branch::print_local(ctx, &state, &target, &path, branch.as_bytes());
    ctx.transmit(path, bytes);
}

/// The request with the next CSeq of that end.
fn build(dialog: &mut Dialog, what: &Inside) -> Option<NewRequest> {
    let from_caller = what.towards != CALLER;
    let cseq = dialog.leg_mut(what.towards)?.next_cseq();
    let other = dialog.other(what.towards);
    let (to_leg, from_leg) = (dialog.leg(what.towards)?, dialog.leg(other)?);
    let (from_uri, to_uri) = if from_caller {
        (&dialog.from_uri, dialog.shown_to.as_ref().unwrap_or(&dialog.to_uri))
    } else {
        (&dialog.to_uri, &dialog.from_uri)
    };
    let from_uri = if from_caller { dialog.shown_from.as_ref().unwrap_or(from_uri) } else { from_uri };
    let party = |uri: &[u8], tag: &[u8]| -> Bytes {
        let mut text = [&b"<"[..], uri, b">"].concat();
        if !tag.is_empty() {
            text.extend_from_slice(b";tag=");
            text.extend_from_slice(tag);
        }
        text.into()
    };
    let way = what.way.clone().unwrap_or_else(|| Way::to(to_leg));
    let mut headers = way.headers;
    if what.contact {
        match &to_leg.shown_contact {
            Some(line) => headers.extend_from_slice(line),
            None => headers.extend([&b"Contact: <"[..], &from_leg.contact, b">\r\n"].concat()),
        }
    }
    headers.extend_from_slice(&what.headers);
    if !what.headers.is_empty() && !what.headers.ends_with(b"\n") {
        headers.extend_from_slice(b"\r\n");
    }
    if !what.content_type.is_empty() {
        headers.extend([&b"Content-Type: "[..], &what.content_type, b"\r\n"].concat());
    }
    Some(NewRequest {
        method: what.method.clone(),
        uri: way.uri,
        from: party(from_uri, &from_leg.tag),
        to: party(to_uri, &to_leg.tag),
        call_id: Some(Bytes::copy_from_slice(&dialog.call_id)),
        cseq,
        headers: headers.into(),
        body: what.body.clone(),
        next_hop: way.next_hop,
        socket: Some(to_leg.socket),
        context: None,
    })
}

/// How a request reaches an end (RFC 3261 §12.2.1.1).
#[derive(Clone, Debug)]
pub struct Way {
    pub uri: Bytes,
    /// `None`: the URI says where to.
    pub next_hop: Option<Bytes>,
    /// Route lines.
    pub headers: Vec<u8>,
}

impl Way {
    pub fn to(leg: &Leg) -> Way {
        let contact = Bytes::copy_from_slice(&leg.contact);
        let text = Bytes::copy_from_slice(&leg.routes);
        let routes = NameAddr::parse_list(&text).unwrap_or_default();
        let Some(first) = routes.first() else {
            return Way { uri: contact, next_hop: None, headers: Vec::new() };
        };
        let line = |list: &[u8]| [&b"Route: "[..], list, b"\r\n"].concat();
        let loose = Uri::parse(&first.uri).is_ok_and(|uri| uri.params.has(b"lr"));
        if loose {
            return Way { uri: contact, next_hop: Some(first.uri.clone()), headers: line(&leg.routes) };
        }
        // A strict router wants to be the Request-URI; the target becomes the last Route.
        let mut rest: Vec<Bytes> = routes[1..].iter().map(|addr| text.slice(addr_range(addr))).collect();
        rest.push([&b"<"[..], &contact, b">"].concat().into());
        Way { uri: first.uri.clone(), next_hop: None, headers: line(&rest.join(&b","[..])) }
    }
}

fn addr_range(addr: &NameAddr) -> std::ops::Range<usize> {
    addr.whole.range()
}

/// "caller" or "callee"; `None`: neither.
pub fn leg_named(ctx: &mut Ctx, key: Key, word: &[u8]) -> Option<LegNo> {
    match word {
        b"caller" => Some(CALLER),
        b"callee" => table::of(ctx).get(key).map(|d| d.callee_no()),
        _ => None,
    }
}

/// dlg_send_sequential(method, leg, [body], [content type], [headers]): 1 it is on its way.
pub fn send_sequential(
    call: &mut Call<Dlg>,
    method: Text,
    leg: Text,
    body: Option<Text>,
    content_type: Option<Text>,
    headers: Option<Text>,
) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(link::Current::Here(key)) = link::current(ctx) else { return -1 };
    let Some(towards) = leg_named(ctx, key, &leg) else {
        host::error!("dialog", "dlg_send_sequential: the leg is caller or callee, not {}", leg.str());
        return -1;
    };
    let text = |t: Option<Text>| t.map_or(Bytes::new(), |t| t.0);
    let what = Inside {
        method: method.0,
        towards,
        headers: text(headers),
        body: text(body),
        content_type: text(content_type),
        contact: true,
        way: None,
    };
    if send(ctx, key, what, |_, _| ()) { 1 } else { -1 }
}
