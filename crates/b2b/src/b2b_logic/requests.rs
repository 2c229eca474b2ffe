//! Requests of the ends of a session.

use super::link::{Link, Role};
use super::session::{self, EndId, EndState, Sdp, Session, State};
use super::{B2bl, acts, bridge, headers, refer, replies, sql};
use crate::b2b_entities::answer::{self, Reply};
use crate::b2b_entities::entity::{self, Kind};
use crate::b2b_entities::owner::{Notice, Turn, What, body_of};
use crate::b2b_entities::run_route;
use crate::b2b_entities::send::Inside;
use crate::b2b_entities::table;
use bytes::Bytes;
use host::Ctx;
use script::ast::RouteKind;
use script::{RouteId, Task};
use sip::{HeaderName, Method};
use std::sync::Arc;

/// Methods that routes see; others pass by.
fn is_known(method: &Method) -> bool {
    use Method::*;
    matches!(method, Invite | Ack | Bye | Refer | Cancel | Subscribe | Notify | Message | Update | Info)
}

pub fn came(ctx: &mut Ctx, module: &Arc<B2bl>, notice: Notice, turn: Turn) {
    let msg = ctx.state.msg.clone();
    let refer_to = msg.header(HeaderName::ReferTo).filter(|_| msg.method() == Method::Refer);
    let Some(header) = refer_to else {
        let lines = headers::passed(module, &msg, b"");
        return look(ctx, module, notice, lines, turn);
    };
    let line = headers::line(&msg, header);
    let task = Task::new(ctx.shared().program(), RouteId(0));
    let state = ctx.state.fork(RouteKind::Request, task);
    let module = module.clone();
    refer::rewritten(ctx, line, move |ctx, line| {
        let lines = headers::passed(&module, &state.msg, &line);
        ctx.with_state(state, |ctx| look(ctx, &module, notice, lines, turn));
    });
}

/// The end that a notice is about, when the session leads it.
pub fn end_of(ctx: &mut Ctx, notice: &Notice) -> Option<EndId> {
    let s = session::of(ctx, &notice.logic)?;
    s.of_entity(&notice.entity, notice.kind).filter(|end| end.no <= 1).map(|end| end.id)
}

fn look(ctx: &mut Ctx, module: &Arc<B2bl>, notice: Notice, lines: Bytes, turn: Turn) {
    let Some(id) = end_of(ctx, &notice) else {
        orphan(ctx, &notice);
        return turn.end(ctx);
    };
    let body = body_of(&ctx.state.msg);
    let link = Link {
        session: notice.logic.clone(),
        entity: notice.entity.clone(),
        kind: notice.kind,
        role: Role::Request,
        headers: lines,
        body,
        ..Link::default()
    };
    ctx.state.ext.set(link);
    match handle(ctx, module, &notice, id) {
        Next::Done => turn.end(ctx),
        Next::Pass => {
            pass(ctx, module, &notice.logic, id);
            turn.end(ctx);
        }
        Next::Route(route) => {
            let peer =
                acts::read(ctx, &notice.logic, |s| s.end(id)?.peer.and_then(|p| s.end(p)).map(|e| e.id));
            ctx.state.ext.entry::<Link>().peer = peer.flatten();
            run(ctx, module, route, notice.logic, turn);
        }
    }
}

/// A request of an entity that no session leads (any more).
fn orphan(ctx: &mut Ctx, notice: &Notice) {
    let method = ctx.state.msg.method();
    let reply = match method {
        Method::Ack => return,
        Method::Bye if notice.what == What::EndingBye => return,
        Method::Bye => Reply::new("BYE", 200, "OK"),
        Method::Cancel => Reply::new("INVITE", 487, "Request Terminated"),
        _ => Reply::new(method.as_str(), 481, "Call/Transaction Does Not Exist"),
    };
    let below = acts::entities(ctx);
    answer::reply(ctx, &below, &notice.entity, reply);
}

/// Runs the route of a session over the current message.
pub fn run(ctx: &mut Ctx, module: &Arc<B2bl>, route: RouteId, key: Bytes, turn: Turn) {
    let task = Task::new(ctx.shared().program(), RouteId(0));
    let mut state = ctx.state.fork(ctx.state.kind, task);
    let module = module.clone();
    let slot = super::wait::lend(ctx, turn);
    state.ext.entry::<Link>().slot = slot;
    run_route(ctx, route, state, move |ctx, _| {
        sql::changed(ctx, &module, &key);
        super::wait::give_back(ctx, slot);
        super::wait::look(ctx, &key);
    });
}

enum Next {
    Done,
    /// It goes to the peer.
    Pass,
    Route(RouteId),
}

fn handle(ctx: &mut Ctx, module: &Arc<B2bl>, notice: &Notice, id: EndId) -> Next {
    let (msg, key) = (ctx.state.msg.clone(), notice.logic.clone());
    let method = msg.method();
    if let Some(params) = headers::contact_params(module, &msg)
        && let Some(end) = session::of(ctx, &key).and_then(|s| s.end_mut(id))
    {
        end.contact_params = Some(params);
    }
    if !is_known(&method) {
        return Next::Pass;
    }
    if acts::read(ctx, &key, |s| s.to_delete) == Some(true) {
        over(ctx, module, notice, id, &method);
        return Next::Done;
    }
    match method {
        Method::Bye => {
            if let Some(next) = bye(ctx, module, notice, id) {
                return next;
            }
        }
        Method::Cancel => {
            if let Some(end) = session::of(ctx, &key).and_then(|s| s.end_mut(id)) {
                end.state = EndState::Canceling;
            }
        }
        Method::Invite => note_offer(ctx, &key, id),
        Method::Ack => {
            if notice.what == What::AckOfRefusal {
                return Next::Done;
            }
            bridge::late_bye(ctx, module, &key);
        }
        _ => {}
    }
    let Some(s) = session::of(ctx, &key) else { return Next::Done };
    let route = s.req_route.filter(|_| s.scenario != session::Scenario::TopHiding);
    let Some(route) = route else {
        if method == Method::Bye {
            let at = acts::later(ctx, acts::LAST_S);
            if let Some(s) = session::of(ctx, &key) {
                s.ends_at = Some(at);
            }
        }
        return Next::Pass;
    };
    let peer = s.end(id).and_then(|end| end.peer);
    if s.state == State::Bridged
        && method == Method::Invite
        && let Some(end) = peer.and_then(|peer| s.end_mut(peer))
    {
        let has_body = body_of(&msg).is_some_and(|body| !body.is_empty());
        end.sdp = if has_body { Sdp::Normal } else { Sdp::Late };
    }
    Next::Route(route)
}

fn note_offer(ctx: &mut Ctx, key: &Bytes, id: EndId) {
    let body = body_of(&ctx.state.msg);
    let Some(s) = session::of(ctx, key) else { return };
    let peer = s.end(id).and_then(|end| end.peer);
    if let Some(end) = s.end_mut(id) {
        end.in_sdp = body.clone();
    }
    if let Some(end) = peer.and_then(|peer| s.end_mut(peer)) {
        end.out_sdp = body;
    }
}

/// A request of a session that waits for its end.
fn over(ctx: &mut Ctx, module: &Arc<B2bl>, notice: &Notice, id: EndId, method: &Method) {
    let key = &notice.logic;
    match method {
        Method::Ack => {}
        Method::Bye if notice.what == What::EndingBye => {}
        Method::Bye => {
            acts::bye_ok(ctx, key, id);
            let peer = acts::read(ctx, key, |s| s.end(id)?.peer).flatten();
            if let Some(peer) = peer {
                acts::bye_ok(ctx, key, peer);
            }
        }
        other => {
            acts::answer(ctx, key, id, Reply::new(other.as_str(), 400, "Not Acceptable"));
        }
    }
    acts::delete(ctx, module, key);
}

/// `None`: it goes on like any request.
fn bye(ctx: &mut Ctx, module: &Arc<B2bl>, notice: &Notice, id: EndId) -> Option<Next> {
    let key = &notice.logic;
    let end = acts::read(ctx, key, |s| s.end(id).cloned()).flatten()?;
    if notice.what == What::EndingBye {
        let peer = session::of(ctx, key).and_then(|s| {
            s.end_mut(id)?.said_bye = true;
            s.end(s.end(id)?.peer?).cloned()
        });
        if let Some(peer) = peer.filter(|peer| !peer.disconnected && peer.replied) {
            replies::acknowledge_and_end(ctx, key, peer.id, peer.last_code);
            acts::close(ctx, key);
        }
        return Some(Next::Done);
    }
    if end.disconnected {
        // Both hung up at the same time.
        acts::bye_ok(ctx, key, id);
        return Some(Next::Done);
    }
    let bridging = session::of(ctx, key).is_some_and(|s| {
        if let Some(end) = s.end_mut(id) {
            end.disconnected = true;
        }
        s.state.is_bridging()
    });
    if bridging {
        bridge::hung_up(ctx, module, key, id);
        let alone = acts::read(ctx, key, |s| s.to_delete && s.end(id).is_none_or(|end| end.peer.is_none()));
        if alone == Some(true) {
            acts::delete(ctx, module, key);
        }
        return Some(Next::Done);
    }
    None
}

/// Passes the current request to the peer of an end (`b2b_pass_request`). False: the session or end is gone.
pub fn pass(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, id: EndId) -> bool {
    let msg = ctx.state.msg.clone();
    let method = msg.method();
    let Some(end) = acts::read(ctx, key, |s| s.end(id).cloned()).flatten() else { return false };
    let mut peers = acts::read(ctx, key, |s| peers_of(s, id)).unwrap_or_default();
    if method == Method::Bye {
        // One that is over, by a CANCEL that crossed its answer, answers nothing.
        peers.retain(|(peer, _)| {
            let entity = acts::read(ctx, key, |s| s.end(*peer).map(|end| end.key.clone())).flatten();
            let state = entity.and_then(|entity| table::of(ctx).get(&entity).map(|entity| entity.state));
            state.is_some_and(|state| state != entity::State::Terminated)
        });
    }
    match method {
        Method::Cancel => {
            if let Some(s) = session::of(ctx, key) {
                s.state = State::Cancel;
            }
        }
        Method::Bye if peers.is_empty() => {
            acts::bye_ok(ctx, key, id);
            acts::delete(ctx, module, key);
            return true;
        }
        Method::Bye => acts::close(ctx, key),
        _ => {}
    }
    let link = ctx.state.ext.find::<Link>().cloned().unwrap_or_default();
    let body = link.body.filter(|body| !body.is_empty());
    let mut answers = false;
    for peer in peers {
        let of_leg =
            (method == Method::Prack && peer.1 == Kind::Client).then(|| passed_leg(&end, ctx)).flatten();
        let what = Inside {
            method: msg.method_text(),
            headers: link.headers.clone(),
            body: body.clone(),
            contact_params: end.contact_params.clone().unwrap_or_default(),
            max_forwards: msg.max_forwards(),
            leg: of_leg,
            ..Inside::default()
        };
        // One that is not up yet gets a CANCEL in place of the BYE, whose end nobody tells.
        let hears = method != Method::Bye || is_up(ctx, key, peer.0);
        answers |= acts::ask(ctx, key, peer.0, what) && hears;
    }
    match method {
        _ if answers => {}
        Method::Ack | Method::Cancel => {}
        Method::Bye => acts::bye_ok(ctx, key, id),
        // Nobody is there who could answer it.
        _ => drop(acts::answer(ctx, key, id, Reply::new(method.as_str(), 500, "Server Internal Error"))),
    }
    sql::changed(ctx, module, key);
    true
}

fn is_up(ctx: &mut Ctx, key: &Bytes, id: EndId) -> bool {
    let entity = acts::read(ctx, key, |s| s.end(id).map(|end| end.key.clone())).flatten();
    entity.is_some_and(|entity| acts::is_up(ctx, &entity))
}

/// The peer of an end, or all that ring for it.
fn peers_of(s: &Session, id: EndId) -> Vec<(EndId, Kind)> {
    let Some(peer) = s.end(id).and_then(|end| end.peer) else { return Vec::new() };
    let all = if s.rivals.contains(&peer) { s.rivals.clone() } else { vec![peer] };
    let called = |id: &EndId| s.end(*id).filter(|end| !end.key.is_empty()).map(|end| (end.id, end.kind));
    all.iter().filter_map(called).collect()
}

/// The leg that the tag of the current request names (`pass-legs-upstream`), from 0.
fn passed_leg(_: &session::End, ctx: &Ctx) -> Option<u32> {
    let tag = ctx.state.msg.to_tag()?;
    table::leg_number(&tag)?.checked_sub(1)
}
