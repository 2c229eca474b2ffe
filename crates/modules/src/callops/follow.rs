//! What becomes of a transfer: the call that it brings, and the NOTIFYs about it.

use super::{CALL_VALUE, Callops, LEG_VALUE, Mode, leg_word, living, raise_transfer, set_text, text_value};
use crate::dialog::api::{self, Event, Told};
use crate::dialog::{CALLER, Did, Key};
use bytes::Bytes;
use host::watch::Seen;
use host::{Call, Ctx, Text};
use sip::{Message, Method, Uri};
use std::rc::Rc;
use std::sync::Arc;

/// How a dialog is named that a new call takes the place of; it may live on another worker.
#[derive(Clone, Debug)]
enum Old {
    Did(Did),
    CallId(Bytes),
}

/// The calls that the current INVITE, or that of a transaction, takes the place of.
#[derive(Clone, Default, Debug)]
struct Replaces(Vec<Old>);

/// The call whose end another call replaced first (attended), kept with the dialog.
#[derive(Clone, Default)]
struct First(Option<Bytes>);

pub fn listen(ctx: &mut Ctx, module: &Arc<Callops>) {
    let module = module.clone();
    api::listen(
        ctx,
        Rc::new(move |ctx: &mut Ctx, told: &Told| match told.event {
            Event::Created => created(ctx, &module, told.key),
            Event::RequestWithin if module.mode != Mode::Manual => within(ctx, told.key),
            _ => {}
        }),
    );
}

/// Does something to a dialog on the worker where it lives.
fn at(ctx: &mut Ctx, old: &Old, job: impl Fn(&mut Ctx, Key) + Clone + Send + 'static) {
    match old {
        Old::CallId(call_id) => {
            let name = call_id.clone();
            ctx.on_owner(call_id, move |ctx: &mut Ctx| {
                if let Some(key) = living(ctx, &name) {
                    job(ctx, key);
                }
            });
        }
        // An identity does not tell the worker.
        Old::Did(did) => {
            let did = *did;
            for worker in 0..usize::from(ctx.core.workers) {
                let job = job.clone();
                ctx.on_worker(worker, move |ctx: &mut Ctx| {
                    if let Some(key) = api::find_by_did(ctx, did) {
                        job(ctx, key);
                    }
                });
            }
        }
    }
}

/// A call begins: it may be one that a transfer brings.
fn created(ctx: &mut Ctx, module: &Callops, key: Key) {
    let Some(dialog) = api::get(ctx, key) else { return };
    let own = Bytes::copy_from_slice(&dialog.call_id);
    if let Some(replaces) = replaces_of(&ctx.state.msg.clone()) {
        return attended(ctx, own, replaces);
    }
    if module.mode == Mode::Manual {
        return;
    }
    let Some((value, uri)) = take_param(ctx, &module.param) else { return };
    let old = match module.mode {
        Mode::CallId => Some(Old::CallId(value)),
        _ => Did::parse(&value).map(Old::Did),
    };
    if let Some(old) = old {
        ctx.state.ruri = Some(uri);
        begin(ctx, old, None, own);
    }
}

/// The value of our parameter in the R-URI, and the URI without it.
fn take_param(ctx: &Ctx, name: &str) -> Option<(Bytes, Bytes)> {
    let uri = Uri::parse(&ctx.state.current_uri()).ok()?;
    let value = uri.params.value(name.as_bytes()).filter(|value| !value.is_empty())?;
    let mark = [b";", name.as_bytes(), b"=", &value].concat();
    let at = memchr::memmem::find(&uri.text, &mark)?;
    Some((value, [&uri.text[..at], &uri.text[at + mark.len()..]].concat().into()))
}

/// The current INVITE brings a transferred call. `leg`: the end of the old one that is transferred, when it is known.
fn begin(ctx: &mut Ctx, old: Old, leg: Option<Bytes>, new: Bytes) {
    let destination = ctx.state.current_uri();
    remember(ctx, old.clone());
    at(ctx, &old, move |ctx, key| {
        if let Some(leg) = &leg {
            set_text(ctx, key, LEG_VALUE, leg);
        }
        set_text(ctx, key, CALL_VALUE, &new);
        raise_transfer(ctx, key, &new, &destination, "start", b"");
    });
}

fn remember(ctx: &mut Ctx, old: Old) {
    ctx.state.ext.entry::<Replaces>().0.push(old);
    let all = ctx.state.ext.entry::<Replaces>().clone();
    if let Some(ext) = ctx.state.txn.and_then(|id| ctx.ext_of(id)) {
        ext.set(all);
    }
}

/// The transaction of the current INVITE was made.
pub fn adopt(ctx: &mut Ctx, seen: &Seen) {
    let all = ctx.state.ext.find::<Replaces>().cloned();
    if let (Some(all), Some(ext)) = (all, seen.txn.and_then(|id| ctx.ext_of(id))) {
        ext.set(all);
    }
}

/// Call-ID, from-tag and to-tag of a Replaces header (RFC 3891).
fn replaces_of(msg: &Message) -> Option<[Bytes; 3]> {
    let header = msg.headers_named(b"Replaces").next()?;
    let text = msg.text(header.value());
    let end = text.iter().position(|b| *b == b';')?;
    let params = sip::Params { text: text.slice(end + 1..) };
    let call_id = text.slice_ref(text[..end].trim_ascii());
    Some([call_id, params.value(b"from-tag")?, params.value(b"to-tag")?])
}

/// The current INVITE takes the place of an end of another call, whose partner is told too.
fn attended(ctx: &mut Ctx, new: Bytes, [call_id, from_tag, to_tag]: [Bytes; 3]) {
    let destination = ctx.state.current_uri();
    let old = Old::CallId(call_id);
    remember(ctx, old.clone());
    at(ctx, &old, move |ctx, key| {
        let Some(dialog) = api::get(ctx, key) else { return };
        let tags = (&dialog.caller.tag[..], dialog.callee().map(|leg| &leg.tag[..]).unwrap_or_default());
        let leg = match tags {
            (caller, callee) if caller == &from_tag[..] && callee == &to_tag[..] => 1,
            (caller, callee) if caller == &to_tag[..] && callee == &from_tag[..] => CALLER,
            _ => return host::warn!("callops", "a Replaces names tags that its call does not have"),
        };
        if let Some(first) = text_value(ctx, key, CALL_VALUE) {
            if let Some(dialog) = api::get(ctx, key) {
                dialog.ext.set(First(Some(first.clone())));
            }
            let (new, destination) = (new.clone(), destination.clone());
            at(ctx, &Old::CallId(first), move |ctx, key| {
                raise_transfer(ctx, key, &new, &destination, "start", b"");
                set_text(ctx, key, CALL_VALUE, &new);
            });
        }
        set_text(ctx, key, LEG_VALUE, leg_word(leg).as_bytes());
        set_text(ctx, key, CALL_VALUE, &new);
        raise_transfer(ctx, key, &new, &destination, "start", b"");
    });
}

/// The INVITE of a transferred call was answered or refused.
pub fn replied(ctx: &mut Ctx, seen: &Seen) {
    if seen.status < 200 {
        return;
    }
    let all = seen.txn.and_then(|id| ctx.ext_of(id)?.find::<Replaces>().cloned());
    let Some(Replaces(all)) = all.filter(|all| !all.0.is_empty()) else { return };
    if let Some(ext) = seen.txn.and_then(|id| ctx.ext_of(id)) {
        ext.remove::<Replaces>();
    }
    let state = if seen.status >= 300 { "fail" } else { "ok" };
    let reply = Message::parse(seen.bytes.clone()).ok();
    let reason = reply.map(|reply| reply.reason()).unwrap_or_default();
    let status = Bytes::from([seen.status.to_string().as_bytes(), b" ", &reason].concat());
    let (new, destination) = (ctx.state.msg.call_id().unwrap_or_default(), ctx.state.current_uri());
    for old in all {
        let (new, destination, status) = (new.clone(), destination.clone(), status.clone());
        at(ctx, &old, move |ctx, key| {
            over(ctx, key, &new, &destination, state, &status);
            let first = api::get(ctx, key).and_then(|d| d.ext.find::<First>()?.0.clone());
            if let Some(first) = first {
                let (new, destination, status) = (new.clone(), destination.clone(), status.clone());
                at(ctx, &Old::CallId(first), move |ctx, key| {
                    over(ctx, key, &new, &destination, state, &status)
                });
            }
        });
    }
}

fn over(ctx: &mut Ctx, key: Key, new: &[u8], destination: &[u8], state: &'static str, status: &[u8]) {
    raise_transfer(ctx, key, new, destination, state, status);
    set_text(ctx, key, LEG_VALUE, b"");
}

/// call_blind_replace(Call-ID, [leg]): 1 the current INVITE takes the place of this call.
pub fn blind_replace(call: &mut Call<Callops>, old: Text, leg: Option<Text>) -> i32 {
    let Some(new) = call.ctx.state.msg.call_id() else { return -1 };
    let known = usize::from(call.ctx.core.workers) > 1 || living(call.ctx, &old).is_some();
    if !known {
        return -2;
    }
    begin(call.ctx, Old::CallId(old.0), leg.map(|leg| leg.0), new);
    1
}

/// A NOTIFY about a transfer that began here is answered; its script runs on all the same.
fn within(ctx: &mut Ctx, key: Key) {
    if ctx.state.msg.method() == Method::Notify && api::val(ctx, key, LEG_VALUE).is_some() {
        notify(ctx, key);
    }
}

/// call_transfer_notify(): ends the script when the request is a NOTIFY about a transfer, which is answered; -1 no
/// dialog or no event, -2 another event.
pub fn transfer_notify(call: &mut Call<Callops>) -> i32 {
    match api::current(call.ctx) {
        Some((key, _)) => notify(call.ctx, key),
        None => -1,
    }
}

fn notify(ctx: &mut Ctx, key: Key) -> i32 {
    let msg = ctx.state.msg.clone();
    if msg.method() != Method::Notify {
        return -2;
    }
    let event = msg.headers_named(b"Event").chain(msg.headers_named(b"o")).next();
    let Some(event) = event.map(|header| msg.text(header.value())) else { return -1 };
    let package = event.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    if !package.eq_ignore_ascii_case(b"refer") {
        return -2;
    }
    let body = msg.bytes(msg.body());
    let (code, reason): (u16, &[u8]) = match body.strip_prefix(b"SIP/2.0") {
        None => (400, b"Bad Request"),
        Some(status) => match api::val(ctx, key, CALL_VALUE) {
            None => {
                ctx.state.reply_headers.push(Bytes::from_static(b"Retry-After: 1 (not found)\r\n"));
                (480, b"Temporarily Unavailable")
            }
            Some(_) => {
                let new = text_value(ctx, key, CALL_VALUE).unwrap_or_default();
                raise_transfer(ctx, key, &new, b"", "notify", status.trim_ascii());
                (200, b"OK")
            }
        },
    };
    if host::tm::new_transaction(ctx) <= 0 {
        return -1;
    }
    if host::reply::send(ctx, code, reason) < 0 { -1 } else { 0 }
}
