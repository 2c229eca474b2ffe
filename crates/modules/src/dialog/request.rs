//! Requests that the server makes inside a dialog: BYE, pings, what scripts and commands ask for.

use super::cell::{Dialog, Leg, LegNo};
use super::link;
use super::table::{self, Key};
use super::{CALLER, Dlg};
use crate::uac_auth::{self, UacAuth};
use bytes::Bytes;
use host::tm::ua::{self, Heard};
use host::tm::{Answer, NewRequest};
use host::{Call, Ctx, Text};
use sip::{NameAddr, Uri};
use transaction::TxnId;

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
/// A challenge is answered once, when `uac_auth` has a credential for its realm.
pub fn send(ctx: &mut Ctx, key: Key, what: Inside, done: impl FnOnce(&mut Ctx, Answer) + 'static) -> bool {
    send_with(ctx, key, what, None, Box::new(done))
}

fn send_with(ctx: &mut Ctx, key: Key, what: Inside, credentials: Option<Bytes>, done: ua::Done) -> bool {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return false };
    let Some(mut request) = build(dialog, &what) else { return false };
    let first = credentials.is_none();
    if let Some(line) = credentials {
        request.headers = [&request.headers[..], &line[..]].concat().into();
    }
    table::touch(ctx, key);
    let is_invite = what.method == "INVITE";
    let uri = request.uri.clone();
    let mut left = Some((what, done));
    let ear = move |ctx: &mut Ctx, id: TxnId, heard: Heard| {
        let Heard::Reply(answer) = heard else { return };
        if answer.status < 200 {
            return;
        }
        if let (true, 200..300, Some(reply)) = (is_invite, answer.status, &answer.reply) {
            ua::ack_like_invite(ctx, id, reply);
        }
        let Some((what, done)) = left.take() else { return };
        match answer
            .reply
            .as_deref()
            .filter(|_| first)
            .and_then(|reply| credentials_for(ctx, &what, &uri, reply))
        {
            Some(line) => drop(send_with(ctx, key, what, Some(line), done)),
            None => done(ctx, answer),
        }
    };
    let _ = ua::send(ctx, request, Box::new(ear));
    true
}

/// The header that answers a challenge to a request of ours; `None`: it is none, or there is no credential.
fn credentials_for(ctx: &mut Ctx, what: &Inside, uri: &[u8], reply: &sip::Message) -> Option<Bytes> {
    let known = ctx.shared().module::<UacAuth>()?;
    let challenged = uac_auth::choose(reply, &[], |realm| known.lookup(ctx, realm))?;
    Some(challenged.line(ctx, &what.method, uri, &what.body, 1))
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
        match &to_leg.changed.shown_contact {
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
        max_forwards: 70,
        headers: headers.into(),
        body: what.body.clone(),
        next_hop: way.next_hop,
        socket: Some(to_leg.socket),
        context: None,
        avps: None,
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
