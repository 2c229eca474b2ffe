//! The functions of scripts.

use super::bridge::{self, Plan};
use super::init::{self, SessionRoutes, Triggered};
use super::link::{self, Link, NewEnd, Role};
use super::replies::{self, Handling};
use super::session::{self, BridgeFlags, End, EndId, InitFlags, Initiator, State};
use super::{B2bl, acts, join, notify, requests, sql, upkeep, wait};
use crate::b2b_entities::answer::Reply;
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::owner::body_of;
use crate::b2b_entities::send::Inside;
use crate::b2b_entities::ua::whole;
use bytes::Bytes;
use host::arg::{ROUTE, RouteArg};
use host::avp::AvpName;
use host::registrar::Since;
use host::{Call, Ctx, Head, HeadLines, Registrar, ReplyCode, Routes, Text};
use sip::Uri;

pub fn register(m: &mut Registrar<B2bl>) {
    m.function_of(Since::V4, "b2b_init_request", Routes::REQUEST, init_request);
    m.function_of(Since::V21, "b2b_init_request", Routes::REQUEST, init_request_2);
    m.function("b2b_server_new", Routes::REQUEST, server_new);
    m.function("b2b_client_new", Routes::REQUEST, client_new);
    m.function("b2b_bridge", Routes::REQUEST, bridge_ends);
    m.function("b2b_bridge_retry", Routes::REQUEST, bridge_retry);
    m.function("b2b_bridge_request", Routes::REQUEST, join::b2b_bridge_request);
    m.function("b2b_pass_request", Routes::REQUEST, pass_request);
    m.function("b2b_handle_reply", Routes::REQUEST, handle_reply);
    m.function("b2b_send_reply", Routes::REQUEST, send_reply);
    m.function("b2b_delete_entity", Routes::REQUEST, delete_entity);
    m.function("b2b_end_dlg_leg", Routes::REQUEST, end_dlg_leg);
    m.function("b2b_trigger_scenario", Routes::REQUEST, trigger_scenario);
    m.function("b2b_wait", Routes::REQUEST, wait::b2b_wait);
    m.function("b2b_run", Routes::REQUEST, wait::b2b_run);
    m.function("b2b_hang_up", Routes::REQUEST, hang_up);
}

/// Comma separated words and `name=value`s.
fn words(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    text.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty()).map(|word| match word
        .iter()
        .position(|b| *b == b'=')
    {
        Some(at) => (word[..at].trim_ascii(), Some(word[at + 1..].trim_ascii())),
        None => (word, None),
    })
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn unknown(function: &str, word: &[u8]) {
    host::warn!("b2b_logic", "{function}: unknown flag {}", String::from_utf8_lossy(word));
}

fn init_flags(text: &[u8], timeout: u32) -> InitFlags {
    let mut flags = InitFlags { setup_timeout: timeout, ..InitFlags::default() };
    for (word, value) in words(text) {
        match (word, value.map(number)) {
            (b"setup-timeout", Some(Some(n))) => flags.setup_timeout = n,
            (b"transparent-auth", None) => flags.transparent_auth = true,
            (b"preserve-to", None) => flags.preserve_to = true,
            (b"pass-legs-upstream", None) => flags.pass_legs = true,
            _ => unknown("b2b_init_request", word),
        }
    }
    flags
}

/// b2b_init_request(id, [flags], [req_route], [reply_route])
fn init_request(
    call: &mut Call<B2bl>,
    id: Text,
    flags: Option<Text>,
    request: Option<RouteArg<ROUTE>>,
    reply: Option<RouteArg<ROUTE>>,
) -> i32 {
    let module = call.module.clone();
    let flags = init_flags(&flags.map(|text| text.0).unwrap_or_default(), module.setup_timeout);
    let routes = SessionRoutes { request: request.map(|r| r.0), reply: reply.map(|r| r.0) };
    if init::from_request(call.ctx, &module, &id, flags, routes) { 1 } else { -1 }
}

/// The form of 2.x: flags are letters behind the name.
fn init_request_2(
    call: &mut Call<B2bl>,
    id: Text,
    _p1: Option<Text>,
    _p2: Option<Text>,
    _p3: Option<Text>,
    _p4: Option<Text>,
    _p5: Option<Text>,
) -> i32 {
    let module = call.module.clone();
    let (name, letters) = match id.iter().position(|b| *b == b'/') {
        Some(at) => (id.slice(..at), id.slice(at + 1..)),
        None => (id.0.clone(), Bytes::new()),
    };
    if &name[..] != session::TOP_HIDING {
        host::error!(
            "b2b_logic",
            "b2b_init_request: scenarios of XML files are not understood, write routes"
        );
        return -1;
    }
    let seconds = letters.iter().position(|b| *b == b't').and_then(|at| {
        let digits = letters[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        number(&letters[at + 1..at + 1 + digits])
    });
    let flags = InitFlags {
        transparent_auth: letters.contains(&b'a'),
        preserve_to: letters.contains(&b'p'),
        setup_timeout: seconds.unwrap_or(module.setup_timeout),
        ..InitFlags::default()
    };
    if init::from_request(call.ctx, &module, &name, flags, SessionRoutes::default()) { 1 } else { -1 }
}

fn pair(names: Option<AvpName>, bodies: Option<AvpName>) -> Option<(AvpName, AvpName)> {
    Some((names?, bodies?))
}

/// Prepares an end. False: two are prepared already.
fn prepare(ctx: &mut Ctx, end: NewEnd) -> bool {
    let link = ctx.state.ext.entry::<Link>();
    if link.new.len() >= 2 {
        host::error!("b2b_logic", "two ends are prepared already");
        return false;
    }
    link.new.push(end);
    true
}

/// b2b_server_new(id, [adv_contact], [extra_hdrs], [extra_hdr_bodies])
fn server_new(
    call: &mut Call<B2bl>,
    id: Text,
    contact: Option<Head>,
    names: Option<AvpName>,
    bodies: Option<AvpName>,
) -> i32 {
    if link::of(call.ctx).is_some_and(|link| link.role != Role::Main) {
        host::error!("b2b_logic", "b2b_server_new() is for the main route");
        return -1;
    }
    let end = NewEnd {
        kind: Kind::Server,
        name: id.0,
        contact: contact.map(|text| text.0),
        headers: pair(names, bodies),
        ..NewEnd::default()
    };
    if prepare(call.ctx, end) { 1 } else { -1 }
}

/// A URI, with or without angle brackets around it.
fn bare(text: &Bytes) -> Bytes {
    let inner = text.trim_ascii();
    let inner = match inner.iter().position(|b| *b == b'<') {
        Some(at) => inner[at + 1..].split(|b| *b == b'>').next().unwrap_or_default(),
        None => inner,
    };
    text.slice_ref(inner)
}

/// b2b_client_new(id, dest_uri, [proxy], [from_dname], [adv_contact], [extra_hdrs], [extra_hdr_bodies], [flags])
#[allow(clippy::too_many_arguments)]
fn client_new(
    call: &mut Call<B2bl>,
    id: Text,
    uri: Head,
    proxy: Option<Head>,
    dname: Option<Head>,
    contact: Option<Head>,
    names: Option<AvpName>,
    bodies: Option<AvpName>,
    flags: Option<Text>,
) -> i32 {
    let uri = bare(&uri);
    if Uri::parse(&uri).is_err() {
        host::error!("b2b_logic", "b2b_client_new: {} is no URI", String::from_utf8_lossy(&uri));
        return -1;
    }
    if names.is_some() != bodies.is_some() {
        host::error!("b2b_logic", "b2b_client_new: names and bodies of headers belong together");
        return -1;
    }
    let mut pass_legs = false;
    for (word, _) in words(&flags.map(|text| text.0).unwrap_or_default()) {
        match word {
            b"pass-legs-upstream" => pass_legs = true,
            _ => unknown("b2b_client_new", word),
        }
    }
    let end = NewEnd {
        kind: Kind::Client,
        name: id.0,
        uri,
        proxy: proxy.map(|text| text.0).filter(|uri| !uri.is_empty()),
        from_dname: dname.map(|text| text.0).unwrap_or_default(),
        contact: contact.map(|text| text.0),
        headers: pair(names, bodies),
        pass_legs,
    };
    if prepare(call.ctx, end) { 1 } else { -1 }
}

/// The session and end of a route.
pub struct Here {
    pub key: Bytes,
    pub end: Option<EndId>,
}

/// Where this route is. `None`: in no route of a session, which is an error.
pub fn here(ctx: &mut Ctx, function: &str, roles: &[Role]) -> Option<Here> {
    let link = link::of(ctx).cloned().unwrap_or_default();
    if link.session.is_empty() || !roles.contains(&link.role) {
        host::error!("b2b_logic", "{function}() is for other routes than this one");
        return None;
    }
    let s = session::of(ctx, &link.session)?;
    let end = s.of_entity(&link.entity, link.kind).map(|end| (end.id, end.no));
    if end.is_some_and(|(_, no)| no > 1) {
        return None;
    }
    Some(Here { key: link.session, end: end.map(|(id, _)| id) })
}

/// One that is there, or one that was prepared.
enum Which {
    There(EndId),
    New(NewEnd),
}

fn which(ctx: &mut Ctx, at: &Here, name: &Bytes) -> Option<Which> {
    let link = link::of(ctx).cloned().unwrap_or_default();
    let s = session::of(ctx, &at.key)?;
    match &name[..] {
        b"this" => at.end.map(Which::There),
        b"peer" => link.peer.filter(|id| s.end(*id).is_some()).map(Which::There),
        _ if let Some(end) = s.named(name) => Some(Which::There(end.id)),
        _ => {
            let new = link.new.into_iter().find(|end| end.kind == Kind::Client && end.name == *name);
            if new.is_none() {
                host::error!("b2b_logic", "there is no end {}", String::from_utf8_lossy(name));
            }
            new.map(Which::New)
        }
    }
}

fn bridge_flags(text: &[u8]) -> BridgeFlags {
    let mut flags = BridgeFlags::default();
    for (word, value) in words(text) {
        match (word, value.map(number)) {
            (b"max_duration", Some(Some(n))) => flags.max_duration = n,
            (b"notify", None) => flags.notify = true,
            (b"rollback-failed", None) => flags.rollback = true,
            (b"hold", None) => flags.hold = true,
            (b"no-late-sdp", None) => flags.no_late_sdp = true,
            (b"propagate-avps", None) => flags.propagate_avps = true,
            (b"provmedia-extra-headers", None) => flags.media_headers = true,
            _ => unknown("b2b_bridge", word),
        }
    }
    flags
}

/// b2b_bridge(entity1, entity2, [provmedia_uri], [flags])
fn bridge_ends(
    call: &mut Call<B2bl>,
    first: Text,
    second: Text,
    media: Option<Head>,
    flags: Option<Text>,
) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let Some(at) = here(ctx, "b2b_bridge", &[Role::Request]) else { return -1 };
    let flags = bridge_flags(&flags.map(|text| text.0).unwrap_or_default());
    let (Some(first), Some(second)) = (which(ctx, &at, &first), which(ctx, &at, &second)) else { return -1 };
    let new = |ctx: &mut Ctx, new: &NewEnd| init::end_of(ctx, new);
    let (old, new) = match (first, second) {
        (Which::There(old), Which::New(end)) | (Which::New(end), Which::There(old)) => {
            (Some(old), vec![new(ctx, &end)])
        }
        (Which::New(a), Which::New(b)) => (None, vec![new(ctx, &a), new(ctx, &b)]),
        (Which::There(_), Which::There(_)) => {
            host::error!("b2b_logic", "b2b_bridge: one of the two must be made by b2b_client_new()");
            return -1;
        }
    };
    let refer_id = ctx.state.msg.cseq().map_or(0, |cseq| cseq.number);
    let initiator = at.end.filter(|_| !wait::runs_beside(ctx)).map(Initiator::End);
    if initiator.is_none()
        && let Some(old) = old
    {
        // Nobody asked for it: the old peer goes at once.
        let peer = acts::read(ctx, &at.key, |s| s.end(old)?.peer).flatten();
        acts::hang_up(ctx, &at.key, peer);
        if let Some(s) = session::of(ctx, &at.key) {
            s.disconnect(old);
        }
    }
    if let Some(s) = session::of(ctx, &at.key) {
        (s.bridging, s.refer_id) = (flags, refer_id);
    }
    if let Some(initiator) = initiator.as_ref().filter(|_| flags.notify) {
        notify::send(ctx, &at.key, initiator, None);
    }
    let media = media.map(|text| bare(&text.0)).filter(|uri| !uri.is_empty());
    if !bridge::begin(ctx, &module, &at.key, Plan { old, new, media, flags }) {
        return -1;
    }
    if let Some(s) = session::of(ctx, &at.key) {
        s.initiator = initiator;
    }
    ctx.state.ext.entry::<Link>().new.clear();
    sql::changed(ctx, &module, &at.key);
    1
}

/// In a route of `b2b_run`: the second end of a call that nobody has answered yet gives way to another one.
fn next_one(ctx: &mut Ctx, module: &B2bl, name: &Bytes) -> i32 {
    let Some(Here { key, .. }) = here(ctx, "b2b_bridge_retry", &[Role::Request]) else { return -1 };
    let new = link::of(ctx).and_then(|link| link.new.iter().find(|end| end.name == *name).cloned());
    let at =
        acts::read(ctx, &key, |s| s.bridge[1].filter(|_| s.state == State::Init && !s.to_delete)).flatten();
    let (Some(new), Some(old)) = (new, at) else {
        host::error!("b2b_logic", "b2b_bridge_retry() follows b2b_client_new(), before a call is answered");
        return -1;
    };
    acts::hang_up(ctx, &key, Some(old));
    if !init::call_instead(ctx, module, &key, old, &new) {
        return -1;
    }
    ctx.state.ext.entry::<Link>().new.clear();
    1
}

/// b2b_hang_up(): ends the session.
fn hang_up(call: &mut Call<B2bl>) -> i32 {
    let module = call.module.clone();
    let Some(key) = link::session(call.ctx) else {
        host::error!("b2b_logic", "b2b_hang_up: there is no session here");
        return -1;
    };
    upkeep::terminate(call.ctx, &key);
    acts::close(call.ctx, &key);
    sql::changed(call.ctx, &module, &key);
    1
}

/// b2b_bridge_retry(new_entity)
fn bridge_retry(call: &mut Call<B2bl>, name: Text) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    if wait::runs_beside(ctx) {
        return next_one(ctx, &module, &name);
    }
    let Some(Here { key, end: Some(refused) }) = here(ctx, "b2b_bridge_retry", &[Role::Reply]) else {
        return -1;
    };
    let msg = ctx.state.msg.clone();
    let is_invite = msg.cseq_parts().is_some_and(|(_, method)| &method[..] == b"INVITE");
    let new = link::of(ctx).and_then(|link| link.new.iter().find(|end| end.name == name.0).cloned());
    let (Some(new), true, true) = (new, is_invite, msg.status() >= 300) else {
        host::error!("b2b_logic", "b2b_bridge_retry() follows a refusal and b2b_client_new()");
        return -1;
    };
    let Some(s) = session::of(ctx, &key) else { return -1 };
    if s.bridge[1] != Some(refused) {
        host::error!("b2b_logic", "b2b_bridge_retry() is for the second end");
        return -1;
    }
    let (state, old) = (s.state, s.bridge[0]);
    let done = match (state, old) {
        (State::Init, _) => init::call_instead(ctx, &module, &key, refused, &new),
        (_, Some(old)) if state.is_bridging() => {
            let end = init::end_of(ctx, &new);
            acts::forget(ctx, &key, refused);
            let called = bridge::call_new(ctx, &module, &key, old, &end, None);
            if let Some(s) = session::of(ctx, &key).filter(|_| called) {
                s.state = State::Bridging;
            }
            called
        }
        _ => false,
    };
    if done {
        ctx.state.ext.entry::<Link>().new.clear();
    }
    if done { 1 } else { -1 }
}

/// What the route changed in the body (`rtpengine_offer`) passes on.
fn with_edits(ctx: &mut Ctx) {
    if ctx.state.edits.is_empty() {
        return;
    }
    init::edit_current(ctx);
    let body = body_of(&ctx.state.msg);
    ctx.state.ext.entry::<Link>().body = body;
}

fn pass_request(call: &mut Call<B2bl>) -> i32 {
    let module = call.module.clone();
    with_edits(call.ctx);
    let Some(Here { key, end: Some(end) }) = here(call.ctx, "b2b_pass_request", &[Role::Request]) else {
        return -1;
    };
    if requests::pass(call.ctx, &module, &key, end) { 1 } else { -1 }
}

/// b2b_handle_reply([flags])
fn handle_reply(call: &mut Call<B2bl>, flags: Option<Text>) -> i32 {
    let module = call.module.clone();
    with_edits(call.ctx);
    let Some(Here { key, end: Some(end) }) = here(call.ctx, "b2b_handle_reply", &[Role::Reply]) else {
        return -1;
    };
    let mut how = Handling::default();
    for (word, _) in words(&flags.map(|text| text.0).unwrap_or_default()) {
        match word {
            b"pass-3xx-contact" => how.pass_contact = true,
            _ => unknown("b2b_handle_reply", word),
        }
    }
    if replies::handle(call.ctx, &module, &key, end, how) { 1 } else { -1 }
}

/// b2b_send_reply(code, reason, [headers], [body])
fn send_reply(
    call: &mut Call<B2bl>,
    code: ReplyCode,
    reason: Head,
    headers: Option<HeadLines>,
    body: Option<Text>,
) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(Here { key, end: Some(end) }) = here(ctx, "b2b_send_reply", &[Role::Request]) else { return -1 };
    let reply = Reply {
        method: ctx.state.msg.method_text(),
        code: code.0,
        reason: reason.0,
        headers: headers.map(|lines| whole(&lines.0)).unwrap_or_default(),
        body: body.map(|text| text.0),
        ..Reply::default()
    };
    acts::answer(ctx, &key, end, reply);
    1
}

fn delete_entity(call: &mut Call<B2bl>) -> i32 {
    let module = call.module.clone();
    let Some(Here { key, end: Some(end) }) = here(call.ctx, "b2b_delete_entity", &[Role::Request]) else {
        return -1;
    };
    acts::forget(call.ctx, &key, end);
    sql::changed(call.ctx, &module, &key);
    1
}

fn end_dlg_leg(call: &mut Call<B2bl>) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let roles = [Role::Request, Role::Reply];
    let Some(Here { key, end: Some(end) }) = here(ctx, "b2b_end_dlg_leg", &roles) else { return -1 };
    if let Some(end) = session::of(ctx, &key).and_then(|s| s.end_mut(end)) {
        end.disconnected = true;
    }
    acts::ask(ctx, &key, end, Inside::new("BYE"));
    if let Some(s) = session::of(ctx, &key) {
        s.disconnect(end);
    }
    sql::changed(ctx, &module, &key);
    1
}

/// `name,uri[,proxy[,display name]]`
fn party(ctx: &Ctx, text: &Bytes, headers: Option<(AvpName, AvpName)>) -> Option<End> {
    let mut parts = text.split(|b| *b == b',').map(|part| text.slice_ref(part.trim_ascii()));
    let name = parts.next().filter(|name| !name.is_empty())?;
    let uri = parts.next().map(|uri| bare(&uri)).filter(|uri| Uri::parse(uri).is_ok())?;
    let proxy = parts.next().filter(|proxy| !proxy.is_empty());
    // As in the reference, a display name counts behind a proxy only.
    let from_dname = proxy.as_ref().and_then(|_| parts.next()).unwrap_or_default();
    Some(init::end_of(
        ctx,
        &NewEnd { kind: Kind::Client, name, uri, proxy, from_dname, headers, ..NewEnd::default() },
    ))
}

/// Who hears how a triggered scenario goes: `n[,key of a session,0 or 1]`.
fn listener(ctx: &mut Ctx, params: &Bytes) -> Option<Initiator> {
    let mut parts = params.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    if parts.next() != Some(b"n") {
        return None;
    }
    let other = parts.next().filter(|key| !key.is_empty()).map(|key| params.slice_ref(key));
    let place = if parts.next() == Some(b"1") { 1 } else { 0 };
    match other {
        Some(key) => {
            let entity = acts::read(ctx, &key, |s| s.bridged(place).map(|end| end.key.clone())).flatten()?;
            Some(Initiator::Elsewhere { session: key, entity })
        }
        None => {
            let (entity, _, session) = link::entity(ctx)?;
            Some(Initiator::Elsewhere { session, entity })
        }
    }
}

/// b2b_trigger_scenario(scenario, [params], peer1, [hdrs1], [bodies1], peer2, [hdrs2], [bodies2])
#[allow(clippy::too_many_arguments)]
fn trigger_scenario(
    call: &mut Call<B2bl>,
    scenario: Text,
    params: Option<Text>,
    peer1: Head,
    names1: Option<AvpName>,
    bodies1: Option<AvpName>,
    peer2: Head,
    names2: Option<AvpName>,
    bodies2: Option<AvpName>,
) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let first = party(ctx, &peer1, pair(names1, bodies1));
    let second = party(ctx, &peer2, pair(names2, bodies2));
    let (Some(first), Some(second)) = (first, second) else {
        host::error!("b2b_logic", "b2b_trigger_scenario: an end is written name,uri[,proxy[,display name]]");
        return -1;
    };
    let params = params.map(|text| text.0).unwrap_or_default();
    let initiator = listener(ctx, &params);
    let values = ctx.state.ext.find::<Link>().map(|link| link.values.clone()).unwrap_or_default();
    let what = Triggered { scenario: scenario.0, ends: [first, second], values, initiator };
    if init::trigger(ctx, &module, what).is_some() { 1 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_words() {
        let flags = init_flags(b"setup-timeout=7, preserve-to,odd", 60);
        assert_eq!(flags, InitFlags { setup_timeout: 7, preserve_to: true, ..InitFlags::default() });
        let flags = bridge_flags(b"max_duration=30,notify,hold");
        assert_eq!(
            flags,
            BridgeFlags { max_duration: 30, notify: true, hold: true, ..BridgeFlags::default() }
        );
    }

    #[test]
    fn a_uri_may_stand_in_brackets() {
        let check = |text: &'static str, expected: &str| assert_eq!(bare(&text.into()), expected);
        check("\"A\" <sip:a@x>;p", "sip:a@x");
        check(" sip:a@x ", "sip:a@x");
        check("<sip:a@x", "sip:a@x");
    }
}
