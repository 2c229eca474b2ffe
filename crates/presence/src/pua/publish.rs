//! PUBLISH from here (RFC 3903): a first one, changes one after the other, refreshes, and the end.

use super::Pua;
use super::record::{Publication, Record};
use crate::xml::{self, Node};
use bytes::Bytes;
use host::Ctx;
use host::tm::{Answer, NewRequest};
use sip::HeaderName;
use std::collections::VecDeque;
use std::sync::Arc;

/// Why no PUBLISH was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There is nothing that could end.
    NoRecord,
    /// A first one needs a body.
    NoBody,
    WrongTag,
    /// The body is no document, or there is no way to the server.
    Failed,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refused::NoRecord => "there is nothing that could end",
            Refused::NoBody => "a first one needs a body",
            Refused::WrongTag => "its entity tag is not known",
            Refused::Failed => "the body is no document, or there is no way to the server",
        })
    }
}

/// Sends a PUBLISH, or does when the one before it is answered.
pub fn publish(ctx: &mut Ctx, module: &Arc<Pua>, publication: Publication) -> Result<(), Refused> {
    let now = super::now_s(ctx);
    let found = match publication.is_new {
        true => None,
        false => module.records.with(
            &publication.uri,
            |r| {
                r.watch.is_none()
                    && r.is_of(&publication.uri, publication.source, publication.event)
                    && (publication.id.is_empty() || r.id == publication.id)
                    && publication.etag.as_ref().is_none_or(|etag| r.etag == *etag)
                    && (r.expires >= now || (r.expires == 0 && r.waits))
            },
            |r| (r.number, r.waits),
        ),
    };
    match found {
        None if publication.etag.is_some() => Err(Refused::WrongTag),
        None if publication.expires == 0 => Err(Refused::NoRecord),
        None if publication.body.is_none() && !publication.event.content_type.is_empty() => {
            Err(Refused::NoBody)
        }
        None => {
            let number = module.records.insert(Record {
                number: 0,
                uri: publication.uri.clone(),
                id: publication.id.clone(),
                event: publication.event,
                source: publication.source,
                etag: Bytes::new(),
                expires: 0,
                desired: 0,
                tuple_id: String::new(),
                headers: Bytes::new(),
                proxy: publication.proxy.clone(),
                version: 0,
                waits: false,
                pending: VecDeque::new(),
                unwritten: true,
                watch: None,
            });
            let number = number.ok_or(Refused::Failed)?;
            send(ctx, module, number, publication)
        }
        Some((number, true)) => {
            let uri = publication.uri.clone();
            let queue = |r: &mut Record| r.pending.push_back(publication);
            module.records.with(&uri, |r| r.number == number, queue).ok_or(Refused::Failed)
        }
        Some((number, false)) => send(ctx, module, number, publication),
    }
}

/// The record is not waiting.
fn send(ctx: &mut Ctx, module: &Arc<Pua>, number: u64, mut p: Publication) -> Result<(), Refused> {
    let now = super::now_s(ctx);
    let random = ctx.core.rng.next_u64();
    let prepared = module.records.with(
        &p.uri,
        |r| r.number == number,
        |r| {
            r.version = r.version.wrapping_add(1);
            r.desired = if p.expires < 0 { 0 } else { now + p.expires };
            r.headers = p.headers.clone();
            r.proxy = p.proxy.clone();
            (r.waits, r.unwritten) = (true, true);
            if r.tuple_id.is_empty() {
                r.tuple_id = format!("0x{random:x}");
            }
            (r.etag.clone(), r.tuple_id.clone())
        },
    );
    let (etag, tuple_id) = prepared.ok_or(Refused::NoRecord)?;
    let body = match &p.body {
        Some(body) if p.event.name == "presence" => Some(identified(body, &tuple_id).ok_or(Refused::Failed)),
        body => body.clone().map(Ok),
    };
    let body = match body.transpose() {
        Ok(body) => body,
        Err(refused) => {
            module.records.remove(&p.uri, number);
            return Err(refused);
        }
    };
    if p.expires == 0 {
        module.records.remove(&p.uri, number);
    }
    let expires = match p.expires {
        0 => 0,
        expires if expires < 0 => module.default_expires,
        expires => expires.max(module.min_expires),
    };
    let content_type = if p.content_type.is_empty() {
        Bytes::from_static(p.event.content_type.as_bytes())
    } else {
        p.content_type.clone()
    };
    let mut request = request(&p.uri, p.event.name, expires, &etag);
    if body.is_some() {
        request.headers = [&request.headers[..], b"Content-Type: ", &content_type, b"\r\n"].concat().into();
    }
    request.headers = [&request.headers[..], &p.headers].concat().into();
    request.body = body.unwrap_or_default();
    request.next_hop = p.proxy.clone();
    let (module, uri, done) = (module.clone(), p.uri.clone(), p.done.take());
    let sent = host::tm::send_new(
        ctx,
        request,
        Some(Box::new(move |ctx, answer| {
            answered(ctx, &module, &uri, number, &answer);
            if let Some(done) = done {
                done(ctx, &answer);
            }
        })),
    );
    if sent < 0 { Err(Refused::Failed) } else { Ok(()) }
}

fn request(uri: &Bytes, event: &str, expires: i64, etag: &Bytes) -> NewRequest {
    let party = format!("<{}>", String::from_utf8_lossy(uri));
    let mut request = NewRequest::new("PUBLISH", uri.clone(), &party, &party);
    // One second more, so that a refresh in the last moment is not late.
    let expires = if expires == 0 { 0 } else { expires + 1 };
    let mut head = format!("Event: {event}\r\nExpires: {expires}\r\n").into_bytes();
    if !etag.is_empty() {
        head.extend_from_slice(&[b"SIP-If-Match: ", &etag[..], b"\r\n"].concat());
    }
    request.headers = head.into();
    request
}

fn answered(ctx: &mut Ctx, module: &Arc<Pua>, uri: &Bytes, number: u64, answer: &Answer) {
    let now = super::now_s(ctx);
    let reply = answer.reply.as_ref().filter(|_| answer.status < 300);
    let given = reply.and_then(|reply| Some((reply.expires()?, reply.value(HeaderName::SipEtag))));
    match given {
        Some((expires, Some(etag))) if expires > 0 => {
            module.records.with(
                uri,
                |r| r.number == number,
                |r| {
                    (r.expires, r.etag, r.unwritten) = (now + i64::from(expires), etag, true);
                },
            );
        }
        // Nobody answered: it may be there all the same.
        _ if answer.status == 408 && answer.reply.is_none() => {}
        _ => module.records.remove(uri, number),
    }
    let next = module.records.with(
        uri,
        |r| r.number == number,
        |r| {
            r.waits = false;
            r.pending.pop_front()
        },
    );
    if let Some(Some(next)) = next {
        let event = next.event.name;
        if let Err(why) = send(ctx, module, number, next) {
            host::error!("pua", "a PUBLISH for {event} was not sent: {why}");
        }
    }
}

/// It is about time: somebody wants it longer than the server keeps it, or it ends.
pub fn refresh(ctx: &mut Ctx, module: &Arc<Pua>, uri: &Bytes, number: u64, ends: bool) {
    let now = super::now_s(ctx);
    let due = module.records.with(
        uri,
        |r| r.number == number,
        |r| {
            r.waits = true;
            let left = if r.desired == 0 { module.default_expires } else { r.desired - now };
            let expires = if ends { 0 } else { left.max(module.min_expires) };
            (r.event.name, expires, r.etag.clone(), r.headers.clone(), r.proxy.clone())
        },
    );
    let Some((event, expires, etag, headers, proxy)) = due else { return };
    let mut request = request(uri, event, expires, &etag);
    request.headers = [&request.headers[..], &headers].concat().into();
    request.next_hop = proxy;
    if ends {
        module.records.remove(uri, number);
    }
    let (module, uri) = (module.clone(), uri.clone());
    host::tm::send_new(
        ctx,
        request,
        Some(Box::new(move |ctx, answer| answered(ctx, &module, &uri, number, &answer))),
    );
}

/// Tuples and persons have an id.
fn identified(body: &Bytes, id: &str) -> Option<Bytes> {
    let mut root = xml::parse(body).ok()?;
    for node in &mut root.children {
        if let Node::Element(element) = node
            && (element.is("tuple") || element.is("person"))
            && element.get("id").is_none()
        {
            let id = if element.is("tuple") { id.to_string() } else { format!("pdd{}", &id[2..]) };
            element.set("id", id);
        }
    }
    Some(root.document())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_get_an_id() {
        let body = Bytes::from_static(b"<presence><tuple><s/></tuple><person id='me'/></presence>");
        let text = String::from_utf8(identified(&body, "0x1f").unwrap().to_vec()).unwrap();
        assert!(text.contains("<tuple id=\"0x1f\">") && text.contains("<person id=\"me\"/>"), "{text}");
        assert_eq!(identified(&Bytes::from_static(b"no"), "0x1"), None);
    }
}
