//! SUBSCRIBE from here (RFC 6665): a first one, refreshes inside its dialog, and the end.

use super::Pua;
use super::record::{Event, Record, Source, Watch};
use bytes::Bytes;
use host::Ctx;
use host::tm::ua::Side;
use host::tm::{Answer, NewRequest};
use sip::{HeaderName, Message};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// A SUBSCRIBE that somebody wants sent.
pub struct Wish {
    pub uri: Bytes,
    pub watcher: Bytes,
    pub contact: Bytes,
    pub event: Event,
    pub source: Source,
    /// Seconds; below 0: as long as usual.
    pub expires: i64,
    /// What tells subscriptions of one watcher and source apart; empty: there is one.
    pub id: Bytes,
    /// URI of the server that the first request goes to; `None`: where the URI says.
    pub proxy: Option<Bytes>,
    /// Whole further lines.
    pub headers: Bytes,
}

/// False: it could not be sent.
pub fn subscribe(ctx: &mut Ctx, module: &Arc<Pua>, wish: Wish) -> bool {
    let now = super::now_s(ctx);
    let expires = match wish.expires {
        0 => 0,
        expires if expires < 0 => module.default_expires,
        expires => expires.max(module.min_expires),
    };
    let is_it = |r: &Record| {
        r.is_of(&wish.uri, wish.source, wish.event)
            && r.id == wish.id
            && r.watch.as_ref().is_some_and(|w| w.watcher == wish.watcher && w.to == wish.uri)
    };
    let found = module.records.with(&wish.uri, is_it, |r| {
        r.desired = if wish.expires < 0 { 0 } else { now + expires };
        r.unwritten = true;
        (r.number, next(r))
    });
    let Some((number, request)) = found else { return first(ctx, module, wish, expires) };
    match request {
        Some(request) => send(ctx, module, number, request, expires, &wish),
        None => {
            host::warn!("pua", "the first SUBSCRIBE is not answered yet: no further one is sent");
            true
        }
    }
}

/// The next request inside the dialog; `None`: there is none yet.
fn next(r: &mut Record) -> Option<NewRequest> {
    r.watch.as_mut()?.side.as_mut().map(|side| side.request("SUBSCRIBE"))
}

fn first(ctx: &mut Ctx, module: &Arc<Pua>, wish: Wish, expires: i64) -> bool {
    let text = |uri: &Bytes| format!("<{}>", String::from_utf8_lossy(uri));
    let request = NewRequest::new("SUBSCRIBE", wish.uri.clone(), &text(&wish.watcher), &text(&wish.uri));
    let mut request = request.identified(ctx);
    request.next_hop = wish.proxy.clone();
    let now = super::now_s(ctx);
    let watch = Watch {
        watcher: wish.watcher.clone(),
        to: wish.uri.clone(),
        contact: wish.contact.clone(),
        call_id: request.call_id.clone().unwrap_or_default(),
        side: None,
    };
    let record = Record {
        number: 0,
        uri: wish.uri.clone(),
        id: wish.id.clone(),
        event: wish.event,
        source: wish.source,
        etag: Bytes::new(),
        expires: 0,
        desired: if wish.expires < 0 { 0 } else { now + expires },
        tuple_id: String::new(),
        headers: wish.headers.clone(),
        proxy: wish.proxy.clone(),
        version: 0,
        waits: true,
        pending: VecDeque::new(),
        unwritten: true,
        watch: Some(watch),
    };
    let Some(number) = module.records.insert(record) else { return false };
    send(ctx, module, number, request, expires, &wish)
}

/// Of the wish its URI, event, contact and further lines count.
fn send(
    ctx: &mut Ctx,
    module: &Arc<Pua>,
    number: u64,
    mut request: NewRequest,
    expires: i64,
    wish: &Wish,
) -> bool {
    let contact = String::from_utf8_lossy(&wish.contact);
    let head = format!("Event: {}\r\nContact: <{contact}>\r\nExpires: {expires}\r\n", wish.event.name);
    request.headers = [&request.headers[..], head.as_bytes(), &wish.headers].concat().into();
    let sent = request.clone();
    let (module, uri) = (module.clone(), wish.uri.clone());
    let sent = host::tm::send_new(
        ctx,
        request,
        Some(Box::new(move |ctx, answer| answered(ctx, &module, &uri, number, &sent, expires, &answer))),
    );
    sent >= 0
}

fn answered(
    ctx: &mut Ctx,
    module: &Arc<Pua>,
    uri: &Bytes,
    number: u64,
    sent: &NewRequest,
    asked: i64,
    answer: &Answer,
) {
    let now = super::now_s(ctx);
    let Some(reply) = answer.reply.as_ref().filter(|_| answer.status < 300) else {
        return module.records.remove(uri, number);
    };
    let given = reply.expires().map_or(asked, i64::from);
    if given == 0 || asked == 0 {
        return module.records.remove(uri, number);
    }
    let begun = dialog(sent, reply);
    module.records.with(
        uri,
        |r| r.number == number,
        |r| {
            (r.waits, r.unwritten, r.expires) = (false, true, now + given);
            let Some(watch) = &mut r.watch else { return };
            match &mut watch.side {
                Some(side) => side.refresh(reply),
                None => watch.side = begun,
            }
        },
    );
}

/// The dialog that the reply to a first SUBSCRIBE begins.
fn dialog(sent: &NewRequest, reply: &Rc<Message>) -> Option<Side> {
    let to = reply.header(HeaderName::To).map(|h| reply.text(h.value()))?;
    reply.to_tag()?;
    let contact = reply.addresses(HeaderName::Contact).ok().and_then(|all| all.into_iter().next());
    let mut routes = Vec::new();
    for header in reply.headers_of(HeaderName::RecordRoute) {
        let value = reply.text(header.value());
        let all = sip::NameAddr::parse_list(&value)?;
        routes.extend(all.iter().map(|r| value.slice(r.whole.start as usize..r.whole.end as usize)));
    }
    routes.reverse();
    Some(Side {
        call_id: sent.call_id.clone()?,
        local: sent.from.clone(),
        remote: to,
        target: contact.map_or_else(|| sent.uri.clone(), |c| c.uri),
        routes,
        cseq: sent.cseq,
        socket: None,
    })
}

/// It is about time.
pub fn refresh(ctx: &mut Ctx, module: &Arc<Pua>, uri: &Bytes, number: u64, ends: bool) {
    let now = super::now_s(ctx);
    let due = module.records.with(
        uri,
        |r| r.number == number,
        |r| {
            let left = if r.desired == 0 { module.default_expires } else { r.desired - now };
            let expires = if ends { 0 } else { left.max(module.min_expires) };
            let (watcher, contact) =
                r.watch.as_ref().map(|w| (w.watcher.clone(), w.contact.clone())).unwrap_or_default();
            let wish = Wish {
                uri: r.uri.clone(),
                watcher,
                contact,
                event: r.event,
                source: r.source,
                expires,
                id: r.id.clone(),
                proxy: r.proxy.clone(),
                headers: r.headers.clone(),
            };
            r.waits = true;
            (next(r), expires, wish)
        },
    );
    match due {
        Some((Some(request), expires, wish)) => {
            send(ctx, module, number, request, expires, &wish);
        }
        // It never began.
        Some(_) => module.records.remove(uri, number),
        None => {}
    }
}

/// pua_update_contact(): a NOTIFY says where its sender is now.
pub fn update_contact(module: &Pua, msg: &Message) -> bool {
    let (Some(call_id), Some(contact)) =
        (msg.call_id(), msg.addresses(HeaderName::Contact).ok().and_then(|all| all.into_iter().next()))
    else {
        return false;
    };
    module.records.each_mut(|r| match r.watch.as_mut().and_then(|w| w.side.as_mut()) {
        Some(side) if side.call_id == call_id => {
            side.target = contact.uri.clone();
            r.unwritten = true;
            true
        }
        _ => false,
    })
}

impl Pua {
    /// The id of the subscription from here to a user that a NOTIFY with this Call-ID belongs to.
    pub fn subscription(&self, uri: &Bytes, source: Source, call_id: &Bytes) -> Option<Bytes> {
        let is_it =
            |r: &Record| r.source == source && r.watch.as_ref().is_some_and(|w| w.call_id == *call_id);
        self.records.with(uri, is_it, |r| r.id.clone())
    }

    /// Whom the subscriptions with an id watch. Looks at all there are.
    pub fn watched(&self, source: Source, id: &Bytes) -> Vec<Bytes> {
        let mut found = Vec::new();
        self.records.each_mut(|r| {
            if r.source == source && r.id == *id && r.watch.is_some() {
                found.push(r.uri.clone());
            }
            false
        });
        found
    }
}
