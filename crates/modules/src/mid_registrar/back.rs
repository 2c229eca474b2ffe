//! The main registrar answered: what it granted is kept here, and the client sees its own contacts.

use super::forward::Passing;
use super::save::shown;
use super::{IdPlace, MidRegistrar, Mode, Upstream};
use crate::registrar::request;
use crate::usrloc::contact::{Binding, Contact};
use crate::usrloc::now_s;
use crate::usrloc::table::{Change, Record};
use bytes::Bytes;
use host::ctx::MsgState;
use host::var::Context;
use host::{Ctx, Outcome};
use sip::{Anchor, HeaderName, Message, Method, NameAddr, Uri};
use std::rc::Rc;
use std::sync::Arc;

/// A reply of any transaction, before its routes.
pub fn reply(ctx: &mut Ctx, module: &Arc<MidRegistrar>) -> Outcome {
    let reply = ctx.state.msg.clone();
    if !(200..300).contains(&reply.status()) || reply.method() != Method::Register {
        return Outcome::Done(1);
    }
    let request = host::tm::other_message(ctx, Context::Request);
    let passing = request.as_ref().and_then(|request| request.ext.find::<Option<Passing>>()?.clone());
    match request.zip(passing) {
        Some((request, passing)) => keep(ctx, module, &request, reply, passing),
        None => Outcome::Done(1),
    }
}

/// What becomes of one contact of the request.
struct Granted {
    binding: Binding,
    id: u64,
    /// 0: the main registrar does not have it.
    expires: u32,
}

fn keep(
    ctx: &mut Ctx,
    module: &Arc<MidRegistrar>,
    request: &MsgState,
    reply: Rc<Message>,
    passing: Passing,
) -> Outcome {
    let now = now_s(ctx);
    let contacts = reply.addresses(HeaderName::Contact).unwrap_or_default();
    let granted = granted(ctx, module, request, &reply, &passing, &contacts, now);
    if granted.iter().zip(&passing.asked).any(|(g, a)| a.expires > 0 && g.expires == 0) {
        host::notice!("mid_registrar", "the main registrar's 200 lacks a contact of its REGISTER");
    }
    let usrloc = module.reg.usrloc();
    let (order, star, matching) = (usrloc.order, passing.star, passing.matching.clone());
    let (ids, by_aor) = (passing.table.clone(), module.mode == Mode::ByAor);
    let aor = passing.key.clone();
    let shown = shown(ctx, module, &request.msg);
    let work = move |record: &mut Record, changes: &mut Vec<Change>| {
        record.remove(|c| c.expired(now), changes);
        if star {
            record.contacts.iter_mut().for_each(Contact::forget_upstream);
            record.remove(|_| true, changes);
        }
        for Granted { binding, id, expires } in granted {
            match record.find(binding.wanted(), &matching, now) {
                Some(at) if expires == 0 => {
                    // The main registrar knows: nobody has to tell it.
                    let mut gone = record.contacts.remove(at);
                    gone.forget_upstream();
                    changes.push(Change::Deleted(gone));
                }
                Some(at) => record.update(at, &binding, now, order, changes),
                None if expires > 0 => {
                    let id = if by_aor { ids.next_id() } else { id };
                    record.add(id, &binding, now, order, changes);
                }
                None => {}
            }
        }
        shown.header(&aor, &record.contacts)
    };
    let (table, key) = (passing.table.clone(), passing.key.clone());
    let extra = module.reg.push.headers(&passing.push, passing.ids.first().copied());
    let finish = move |ctx: &mut Ctx, done: Result<Option<Bytes>, _>| {
        // What the database did not tell is what the request named.
        let header = done.ok().flatten().or_else(|| asked_header(&passing, &contacts));
        replace_contacts(ctx, &reply, header);
        for line in extra {
            ctx.state.edits.insert(Anchor::End, line);
        }
        1
    };
    usrloc.change(ctx, "mid_registrar", &table, key, work, finish)
}

fn granted(
    ctx: &Ctx,
    module: &MidRegistrar,
    request: &MsgState,
    reply: &Message,
    passing: &Passing,
    contacts: &[NameAddr],
    now: u32,
) -> Vec<Granted> {
    let default = reply.expires().unwrap_or(module.reg.default_expires);
    let lifetime = |c: &NameAddr| match c.params.value(b"expires") {
        Some(text) => request::seconds(&text).map_or(default, |n| n.min(1 << 30) as u32),
        None => default,
    };
    let mut ids = passing.ids.iter().copied();
    let mut list = Vec::with_capacity(passing.asked.len());
    for asked in &passing.asked {
        let id = ids.next().unwrap_or(0);
        let theirs = match module.mode {
            // Our own address stands for all contacts.
            Mode::ByAor => {
                contacts.iter().find(|c| Uri::parse(&c.uri).is_ok_and(|uri| ctx.shared().is_own(&uri)))
            }
            _ => contacts.iter().find(|c| id_of(module, &c.uri) == Some(id)),
        };
        let out = theirs.map_or(0, lifetime);
        let expires = asked.expires.min(out);
        let upstream = Upstream {
            uri: request.current_uri(),
            hop: format!("sip:{}", ctx.state.source.remote).into(),
            from: text_of(&request.msg, HeaderName::From),
            to: text_of(&request.msg, HeaderName::To),
            contact: theirs.map(|c| c.uri.clone()).unwrap_or_default(),
            call_id: request.msg.call_id().unwrap_or_default(),
            cseq: request.msg.cseq().map_or(0, |c| c.number),
        };
        let throttled = module.mode != Mode::Mirror;
        let binding = Binding {
            expires: now.saturating_add(expires),
            expires_out: if throttled { now.saturating_add(out) } else { 0 },
            keys: if throttled { upstream.pack() } else { Bytes::new() },
            ..asked.binding.clone()
        };
        list.push(Granted { binding, id, expires });
    }
    list
}

/// The id in a contact that the main registrar was given.
pub fn id_of(module: &MidRegistrar, uri: &Bytes) -> Option<u64> {
    let uri = Uri::parse(uri).ok()?;
    let text = match module.id_place {
        IdPlace::Param => uri.params.value(module.id_param.as_bytes())?,
        IdPlace::User => uri.user?,
    };
    std::str::from_utf8(&text).ok()?.parse().ok()
}

fn text_of(msg: &Message, name: HeaderName) -> Bytes {
    msg.header(name).map(|h| msg.text(h.value())).unwrap_or_default()
}

/// The contacts that the request named, with what the main registrar granted first.
fn asked_header(passing: &Passing, contacts: &[NameAddr]) -> Option<Bytes> {
    let seconds = contacts.iter().find_map(|c| request::seconds(&c.params.value(b"expires")?));
    let live = passing.asked.iter().filter(|a| a.expires > 0);
    let values: Vec<String> = live
        .map(|a| {
            let expires = seconds.map_or(a.expires, |s| a.expires.min(s as u32));
            format!("<{}>;expires={expires}", String::from_utf8_lossy(&a.binding.uri))
        })
        .collect();
    (!values.is_empty()).then(|| format!("Contact: {}\r\n", values.join(", ")).into())
}

fn replace_contacts(ctx: &mut Ctx, reply: &Message, header: Option<Bytes>) {
    for old in reply.headers_of(HeaderName::Contact) {
        ctx.state.edits.delete(old.whole());
    }
    if let Some(header) = header {
        ctx.state.edits.insert(Anchor::End, header);
    }
}
