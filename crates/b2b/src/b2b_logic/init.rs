//! How sessions begin: with an INVITE that came, or with two calls from here.

use super::acts::{self, Calling};
use super::bridge::{self, Plan};
use super::link::{self, Link, NewEnd};
use super::session::{self, BridgeFlags, End, EndId, InitFlags, Initiator, Scenario, Session};
use super::{B2bl, OWNER, headers, notify, sql, upkeep};
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::owner::{DialogInfo, Turn, body_of, hold};
use crate::b2b_entities::{apply_edits, receive, send};
use bytes::Bytes;
use host::Ctx;
use host::avp::AvpName;
use script::RouteId;
use sip::{HeaderName, Method};
use std::sync::Arc;

/// Routes of a session in place of the module's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionRoutes {
    pub request: Option<RouteId>,
    pub reply: Option<RouteId>,
}

/// A session of this worker with its turn taken. `None`: there are too many.
fn new_session(
    ctx: &mut Ctx,
    module: &Arc<B2bl>,
    scenario: Scenario,
    routes: SessionRoutes,
) -> Option<(Bytes, Turn)> {
    let random = ctx.core.rng.next_u64();
    let (worker, workers) = (ctx.core.worker, ctx.core.workers);
    let (key, id) = session::table(ctx).make_key(worker, workers, module.size, random);
    let mut s = Session::new(key.clone(), id, scenario);
    s.req_route = routes.request.or_else(|| module.req_route(ctx));
    s.reply_route = routes.reply.or_else(|| module.reply_route(ctx));
    if !session::table(ctx).insert(s) {
        return None;
    }
    upkeep::begin(ctx, module);
    let turn = hold(ctx, &key)?;
    Some((key, turn))
}

/// Lines of headers that the script keeps in AVPs.
fn script_headers(ctx: &Ctx, avps: Option<(AvpName, AvpName)>) -> Bytes {
    let Some((names, bodies)) = avps else { return Bytes::new() };
    let avps = ctx.state.avps.borrow();
    let mut out = Vec::new();
    let pairs = (0..).map_while(|at| Some((avps.at(names, at)?, avps.at(bodies, at)?)));
    for (name, body) in pairs {
        let (Some(name), Some(body)) = (name.head(), body.head()) else { continue };
        out.extend_from_slice(&[name.trim_ascii(), b": ", body.trim_ascii(), b"\r\n"].concat());
    }
    out.into()
}

/// An end as the script prepared it.
pub fn end_of(ctx: &Ctx, new: &NewEnd) -> End {
    End {
        kind: new.kind,
        name: new.name.clone(),
        to_uri: new.uri.clone(),
        proxy: new.proxy.clone(),
        from_dname: new.from_dname.clone(),
        headers: script_headers(ctx, new.headers),
        contact: new.contact.clone(),
        pass_legs: new.pass_legs,
        ..End::default()
    }
}

/// `b2b_init_request`: the current INVITE begins a session. False: it cannot.
pub fn from_request(
    ctx: &mut Ctx,
    module: &Arc<B2bl>,
    name: &Bytes,
    flags: InitFlags,
    routes: SessionRoutes,
) -> bool {
    let is_new = link::of(ctx).is_none_or(|link| link.session.is_empty());
    if ctx.state.msg.method() != Method::Invite || !is_new {
        host::error!("b2b_logic", "b2b_init_request() is for an INVITE of the main route, once");
        return false;
    }
    let state_of_script = ctx.state.edits.is_empty();
    if !state_of_script {
        edit_current(ctx);
    }
    if ctx.state.msg.max_forwards() == Some(0) {
        host::reply::send(ctx, 483, b"Too Many Hops");
        return false;
    }
    let scenario = Scenario::of(name);
    let top_hiding = scenario == Scenario::TopHiding;
    let new = link::of(ctx).map(|link| link.new.clone()).unwrap_or_default();
    let server = new.iter().find(|end| end.kind == Kind::Server).cloned();
    let client = new.iter().find(|end| end.kind == Kind::Client).cloned();
    if !top_hiding && (server.is_none() || client.is_none()) {
        host::error!("b2b_logic", "b2b_init_request() wants b2b_server_new() and b2b_client_new() before it");
        return false;
    }
    let Some((key, turn)) = new_session(ctx, module, scenario, routes) else { return false };
    let values = ctx.state.ext.find::<Link>().map(|link| link.values.clone()).unwrap_or_default();
    let auth = authorization(ctx, flags);
    let lines = headers::passed(module, &ctx.state.msg.clone(), &auth);
    let contact = session_contact(ctx, module);
    let seconds = if flags.setup_timeout == 0 { module.max_duration } else { flags.setup_timeout };
    let at = (seconds > 0).then(|| acts::later(ctx, seconds.into()));
    if let Some(s) = session::of(ctx, &key) {
        (s.init, s.values, s.headers, s.contact, s.ends_at) = (flags, values, lines.clone(), contact, at);
    }
    let begun = match top_hiding {
        true => hide(ctx, module, &key, flags, lines),
        false => connect(ctx, module, &key, flags, server, client),
    };
    if begun {
        let link = ctx.state.ext.entry::<Link>();
        (link.session, link.new) = (key.clone(), Vec::new());
        sql::changed(ctx, module, &key);
    } else {
        acts::delete(ctx, module, &key);
    }
    turn.end(ctx);
    begun
}

/// What the script changed is part of the message from now on.
pub fn edit_current(ctx: &mut Ctx) {
    let task = script::Task::new(ctx.shared().program(), RouteId(0));
    let mut copy = ctx.state.fork(ctx.state.kind, task);
    apply_edits(ctx, &mut copy);
    ctx.state.msg = copy.msg;
    ctx.state.edits = copy.edits;
}

/// Credentials of the caller that pass (`transparent-auth`).
fn authorization(ctx: &Ctx, flags: InitFlags) -> Bytes {
    let msg = &ctx.state.msg;
    let header = msg.header(HeaderName::ProxyAuthorization).or_else(|| msg.header(HeaderName::Authorization));
    match header.filter(|_| flags.transparent_auth) {
        Some(header) => headers::line(msg, header),
        None => Bytes::new(),
    }
}

/// The Contact that the caller sees.
fn session_contact(ctx: &mut Ctx, module: &B2bl) -> Bytes {
    if let Some(format) = &module.server_address {
        return format.text(ctx);
    }
    let user = match module.contact_user {
        true => ctx.state.msg.to().map(|to| headers::user_of(&to.uri)).unwrap_or_default(),
        false => Bytes::new(),
    };
    crate::b2b_entities::contact_of_socket(ctx, ctx.state.source, &user)
}

/// The end that called.
fn caller(ctx: &mut Ctx, module: &B2bl, key: &Bytes, mut end: End) -> Option<EndId> {
    let msg = ctx.state.msg.clone();
    let contact = match &end.contact {
        Some(contact) => contact.clone(),
        None => acts::read(ctx, key, |s| s.contact.clone())?,
    };
    let below = acts::entities(ctx);
    let entity = receive::server_new(ctx, &below, contact, &OWNER, key.clone(), None)?;
    end.kind = Kind::Server;
    end.in_sdp = body_of(&msg);
    end.hops = msg.max_forwards().filter(|n| *n > 0);
    end.dialog = Some(DialogInfo {
        call_id: msg.call_id().unwrap_or_default(),
        from_tag: msg.from_tag().unwrap_or_default(),
        to_tag: entity.clone(),
    });
    end.contact_params = headers::contact_params(module, &msg);
    end.key = entity;
    let s = session::of(ctx, key)?;
    let id = s.add(end);
    s.enlist(id).then_some(id)
}

fn dialog_of_client(ctx: &mut Ctx, key: &Bytes, id: EndId) {
    let Some(entity) = acts::read(ctx, key, |s| s.end(id).map(|end| end.key.clone())).flatten() else {
        return;
    };
    let tag = crate::b2b_entities::table::of(ctx).get(&entity).map(|e| e.tags[0].clone()).unwrap_or_default();
    if let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(id)) {
        end.dialog = Some(DialogInfo { call_id: entity, from_tag: Bytes::new(), to_tag: tag });
    }
}

/// The scenario "top hiding": the Request-URI is called, and what else `append_branch` added.
fn hide(ctx: &mut Ctx, module: &B2bl, key: &Bytes, flags: InitFlags, lines: Bytes) -> bool {
    let (Some((from_uri, from_dname)), Some(to_uri)) =
        (headers::from(ctx, module), headers::to(ctx, flags.preserve_to))
    else {
        return false;
    };
    let end = End { to_uri: to_uri.clone(), from_uri: from_uri.clone(), ..End::default() };
    let Some(server) = caller(ctx, module, key, end) else { return false };
    let user = if module.contact_user { headers::user_of(&from_uri) } else { Bytes::new() };
    let socket = ctx.state.socket.unwrap_or(ctx.state.source.socket);
    let path = transaction::Path { socket, ..ctx.state.source };
    let msg = ctx.state.msg.clone();
    let mut how = Calling {
        body: body_of(&msg),
        from_uri,
        from_dname,
        headers: lines,
        contact: Some(crate::b2b_entities::contact_of_socket(ctx, path, &user)),
        contact_params: headers::contact_params(module, &msg).unwrap_or_default(),
        hops: msg.max_forwards().filter(|n| *n > 0),
        cseq: msg.cseq().map(|cseq| cseq.number),
        socket: ctx.state.socket,
        with_avps: true,
        ..Calling::default()
    };
    let main = (ctx.state.current_uri(), ctx.state.dst_uri.clone());
    let branches: Vec<_> = ctx.state.branches.iter().map(|b| (b.uri.clone(), b.dst_uri.clone())).collect();
    let mut called = Vec::new();
    for (ruri, proxy) in std::iter::once(main).chain(branches) {
        how.ruri = Some(ruri);
        how.from_tag = Some(send::random_tag(ctx).into());
        let end = End { to_uri: to_uri.clone(), proxy, no: 1, out_sdp: how.body.clone(), ..End::default() };
        let Some(id) = acts::call(ctx, module, key, end, how.clone()) else { return false };
        dialog_of_client(ctx, key, id);
        called.insert(0, id);
        if let Some(s) = session::of(ctx, key) {
            s.unlist(id);
        }
    }
    let Some(s) = session::of(ctx, key) else { return false };
    for id in &called {
        if let Some(end) = s.end_mut(*id) {
            end.peer = Some(server);
        }
    }
    let head = called[0];
    s.clients = vec![head];
    if called.len() > 1 {
        s.rivals = called;
    }
    if let Some(end) = s.end_mut(server) {
        end.peer = Some(head);
    }
    s.bridge = [Some(server), Some(head), None];
    true
}

/// Any other scenario: the ends that the script prepared.
fn connect(
    ctx: &mut Ctx,
    module: &B2bl,
    key: &Bytes,
    flags: InitFlags,
    server: Option<NewEnd>,
    client: Option<NewEnd>,
) -> bool {
    let (Some(server), Some(client)) = (server, client) else { return false };
    let (Some((from_uri, from_dname)), Some(to_uri)) =
        (headers::from(ctx, module), headers::to(ctx, flags.preserve_to))
    else {
        return false;
    };
    let own = End { to_uri, from_uri: from_uri.clone(), ..end_of(ctx, &server) };
    let Some(first) = caller(ctx, module, key, own) else { return false };
    let msg = ctx.state.msg.clone();
    let how = Calling {
        body: body_of(&msg),
        from_uri,
        from_dname,
        headers: acts::read(ctx, key, |s| s.headers.clone()).unwrap_or_default(),
        contact_params: headers::contact_params(module, &msg).unwrap_or_default(),
        hops: msg.max_forwards().filter(|n| *n > 0),
        cseq: msg.cseq().map(|cseq| cseq.number),
        socket: ctx.state.socket,
        with_avps: true,
        ..Calling::default()
    };
    let end = End { no: 1, out_sdp: how.body.clone(), from_dname: Bytes::new(), ..end_of(ctx, &client) };
    let Some(second) = acts::call(ctx, module, key, end, how) else { return false };
    dialog_of_client(ctx, key, second);
    let Some(s) = session::of(ctx, key) else { return false };
    s.bridge = [Some(first), Some(second), None];
    s.connect(first, second);
    true
}

/// A new end calls in the place of the one that refused the first call (`b2b_bridge_retry`).
pub fn call_instead(ctx: &mut Ctx, module: &B2bl, key: &Bytes, old: EndId, new: &NewEnd) -> bool {
    acts::forget(ctx, key, old);
    let Some(s) = session::of(ctx, key) else { return false };
    let Some(first) = s.bridge[0].and_then(|id| s.end(id)).cloned() else { return false };
    let (lines, contact) = (s.headers.clone(), s.contact.clone());
    let how = Calling {
        body: Some(first.in_sdp.clone().unwrap_or_default()),
        ruri: Some(new.uri.clone()),
        from_uri: first.from_uri.clone(),
        from_dname: new.from_dname.clone(),
        headers: lines,
        contact: Some(contact),
        hops: first.hops,
        socket: ctx.state.socket,
        with_avps: true,
        ..Calling::default()
    };
    // As for a branch: To is whom the caller called.
    let to_uri = first.to_uri.clone();
    let end = End { no: 1, out_sdp: first.in_sdp.clone(), to_uri, ..end_of(ctx, new) };
    let Some(called) = acts::call(ctx, module, key, end, how) else { return false };
    let Some(s) = session::of(ctx, key) else { return false };
    s.bridge[1] = Some(called);
    s.connect(first.id, called);
    true
}

/// Two calls from here (`b2b_trigger_scenario`).
pub struct Triggered {
    pub scenario: Bytes,
    pub ends: [End; 2],
    pub values: Vec<(Bytes, Bytes)>,
    /// Who hears how it goes.
    pub initiator: Option<Initiator>,
}

/// Seconds for both to answer.
const TRIGGER_S: u64 = 60;

/// Its key; `None`: the first one cannot be called.
pub fn trigger(ctx: &mut Ctx, module: &Arc<B2bl>, what: Triggered) -> Option<Bytes> {
    let (key, turn) = new_session(ctx, module, Scenario::of(&what.scenario), SessionRoutes::default())?;
    let flags = BridgeFlags {
        notify: what.initiator.is_some(),
        keep_initiator: what.initiator.is_some(),
        ..BridgeFlags::default()
    };
    let has_message = ctx.state.msg.call_id().is_some_and(|id| &id[..] != b"dummy");
    let lines = if has_message { headers::passed(module, &ctx.state.msg.clone(), b"") } else { Bytes::new() };
    if let Some(s) = session::of(ctx, &key) {
        (s.bridging, s.values, s.headers) = (flags, what.values, lines);
        s.initiator = what.initiator.clone();
    }
    if let Some(initiator) = &what.initiator {
        notify::send(ctx, &key, initiator, None);
    }
    let plan = Plan { old: None, new: what.ends.into(), media: None, flags };
    let begun = bridge::begin(ctx, module, &key, plan);
    let at = acts::later(ctx, TRIGGER_S);
    match session::of(ctx, &key) {
        Some(s) if begun => s.ends_at = Some(at),
        _ => acts::delete(ctx, module, &key),
    }
    turn.end(ctx);
    begun.then_some(key)
}
