//! A caller takes a place in a session that is there (`b2b_bridge_request`).

use super::link::{self, Link};
use super::session::{self, BridgeFlags, End, EndId, EndState, Sdp, Session};
use super::{B2bl, OWNER, acts, bridge, headers, sql};
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::owner::{DialogInfo, body_of, enter};
use crate::b2b_entities::send::Inside;
use crate::b2b_entities::{B2be, apply_edits, contact_of_socket, receive, table, worker_of_logic};
use bytes::Bytes;
use host::{Call, Ctx, Head, Int, MsgState, Text};
use script::ast::RouteKind;
use script::{RouteId, Task};
use sip::{Message, Method};
use std::rc::Rc;
use std::sync::Arc;
use transaction::Path;

/// What `b2b_bridge_request` was told.
#[derive(Clone, Debug)]
struct Joining {
    key: Bytes,
    /// 0 or 1; `None`: whoever is not named by the key.
    place: Option<usize>,
    contact: Option<Bytes>,
    late_bye: bool,
    values: Vec<(Bytes, Bytes)>,
}

/// The session that a key or `callid;from-tag;to-tag` names on this worker, and the place of the other end.
pub fn resolve(ctx: &mut Ctx, text: &Bytes) -> Option<(Bytes, Option<usize>)> {
    if !text.contains(&b';') {
        return session::table(ctx).get(text).map(|s| (s.key.clone(), None));
    }
    let mut parts = text.split(|b| *b == b';');
    let (call_id, from, to) = (parts.next()?, parts.next()?, parts.next()?);
    let entities = table::of(ctx);
    let found = entities.of_dialog(call_id, from, to).or_else(|| entities.of_dialog(call_id, to, from))?;
    let (entity, logic) = (found.key.clone(), found.logic.clone());
    let s = session::of(ctx, &logic)?;
    Some((s.key.clone(), s.other_place(&entity)))
}

/// The worker that may know it.
fn worker_of(ctx: &Ctx, text: &[u8]) -> Option<usize> {
    let workers = usize::from(ctx.core.workers);
    match text.iter().position(|b| *b == b';') {
        None => worker_of_logic(text, workers),
        Some(at) => Some(host::worker::owner(&text[..at], workers)),
    }
}

/// b2b_bridge_request(key, entity_no, [adv_contact], [flags]): the caller joins and the route ends (on another worker it
/// is tried there, and refused there when it fails), -1 error.
pub fn b2b_bridge_request(
    call: &mut Call<B2bl>,
    key: Text,
    no: Int,
    contact: Option<Head>,
    flags: Option<Text>,
) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    if ctx.state.msg.method() != Method::Invite || link::of(ctx).is_some_and(|link| !link.session.is_empty())
    {
        host::error!("b2b_logic", "b2b_bridge_request() is for an INVITE of the main route");
        return -1;
    }
    let what = Joining {
        key: key.0.clone(),
        place: usize::try_from(no.0).ok(),
        contact: contact.map(|text| text.0),
        late_bye: flags.is_some_and(|flags| flags.windows(8).any(|word| word == b"late_bye")),
        values: ctx.state.ext.find::<Link>().map(|link| link.values.clone()).unwrap_or_default(),
    };
    if resolve(ctx, &key.0).is_some() {
        return if join(ctx, &module, &what) { 0 } else { -1 };
    }
    let here = usize::from(ctx.core.worker);
    match worker_of(ctx, &key.0).filter(|worker| *worker != here && ctx.state.txn.is_none()) {
        Some(worker) => elsewhere(ctx, &module, worker, what),
        None => {
            host::error!("b2b_logic", "b2b_bridge_request: there is no session {}", key.str());
            -1
        }
    }
}

/// The INVITE goes to the worker that leads the session; its dialog lives there.
fn elsewhere(ctx: &mut Ctx, module: &Arc<B2bl>, worker: usize, what: Joining) -> i32 {
    let task = Task::new(ctx.shared().program(), RouteId(0));
    let mut copy = ctx.state.fork(RouteKind::Request, task);
    apply_edits(ctx, &mut copy);
    let (bytes, source, module) = (copy.msg.buf().clone(), ctx.state.source, module.clone());
    let sent = ctx.on_worker(worker, move |ctx| arrived(ctx, &module, bytes, source, &what));
    if sent { 0 } else { -1 }
}

fn arrived(ctx: &mut Ctx, module: &Arc<B2bl>, bytes: Bytes, source: Path, what: &Joining) {
    let Ok(msg) = Message::parse(bytes) else { return };
    let call_id = msg.call_id().unwrap_or_default();
    let task = Task::new(ctx.shared().program(), RouteId(0));
    let state = MsgState::new(Rc::new(msg), source, ctx.core.now, RouteKind::Request, task);
    let Some(below) = ctx.shared().module::<B2be>() else { return };
    below.moved.here(ctx, &call_id);
    ctx.with_state(state, |ctx| {
        if !join(ctx, module, what) {
            below.moved.forget(&call_id);
            host::reply::send(ctx, 481, b"Call/Transaction Does Not Exist");
        }
    });
}

/// False: there is no such session, or nobody to speak with.
fn join(ctx: &mut Ctx, module: &Arc<B2bl>, what: &Joining) -> bool {
    let Some((key, other)) = resolve(ctx, &what.key) else { return false };
    for (name, value) in &what.values {
        if let Some(s) = session::of(ctx, &key) {
            session::set_value(&mut s.values, name, Some(value.clone()));
        }
    }
    let place = what.place.or(other).filter(|place| *place < 2);
    let ends =
        place.and_then(|place| acts::read(ctx, &key, |s| ends(s, place, module.early_update)).flatten());
    let Some((stays, goes)) = ends else {
        host::error!("b2b_logic", "b2b_bridge_request: nobody in the session can speak with the caller");
        acts::close(ctx, &key);
        return false;
    };
    let mut goes_now = None;
    if let Some(s) = session::of(ctx, &key) {
        match what.late_bye {
            true => {
                s.bridging = BridgeFlags { late_bye: true, ..BridgeFlags::default() };
                s.bridge[2] = Some(goes);
                s.disconnect(goes);
            }
            false => goes_now = s.remove(goes),
        }
    }
    if let Some(end) = goes_now {
        let delay = u64::from(module.term_delay) * 1000;
        match delay {
            0 => bridge::part_with(ctx, end),
            _ => drop(ctx.after(delay, move |ctx| bridge::part_with(ctx, end))),
        }
    }
    let joined = take_place(ctx, module, &key, stays, what);
    if !joined {
        acts::close(ctx, &key);
    }
    sql::changed(ctx, module, &key);
    joined
}

/// (who stays, who goes)
fn ends(s: &Session, place: usize, early: bool) -> Option<(EndId, EndId)> {
    let (stays, goes) = (s.bridged(place)?, s.bridged(1 - place)?);
    let fits = !stays.disconnected && !s.to_delete && s.rivals.is_empty();
    (fits && (early || stays.state == EndState::Confirmed)).then_some((stays.id, goes.id))
}

fn take_place(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, stays: EndId, what: &Joining) -> bool {
    let preserve = acts::read(ctx, key, |s| s.init.preserve_to) == Some(true);
    let (Some((from_uri, from_dname)), Some(to_uri)) =
        (headers::from(ctx, module), headers::to(ctx, preserve))
    else {
        return false;
    };
    let contact = match (&what.contact, &module.server_address) {
        (Some(contact), _) => contact.clone(),
        (None, Some(format)) => format.text(ctx),
        (None, None) => contact_of_socket(ctx, ctx.state.source, b""),
    };
    let below = acts::entities(ctx);
    let msg = ctx.state.msg.clone();
    let Some(entity) = receive::server_new(ctx, &below, contact, &OWNER, key.clone(), None) else {
        return false;
    };
    let body = body_of(&msg);
    let end = End {
        kind: Kind::Server,
        key: entity.clone(),
        to_uri,
        from_uri,
        from_dname,
        no: 1,
        in_sdp: body.clone(),
        hops: msg.max_forwards().filter(|n| *n > 0),
        dialog: Some(DialogInfo {
            call_id: msg.call_id().unwrap_or_default(),
            from_tag: msg.from_tag().unwrap_or_default(),
            to_tag: entity.clone(),
        }),
        contact_params: headers::contact_params(module, &msg),
        ..End::default()
    };
    let at = (module.max_duration > 0).then(|| acts::later(ctx, module.max_duration.into()));
    let Some(s) = session::of(ctx, key) else { return false };
    let id = s.add(end);
    if !s.enlist(id) {
        return false;
    }
    s.connect(stays, id);
    s.bridge[0] = Some(stays);
    s.bridge[1] = Some(id);
    s.bridging.own_lifetime = false;
    s.ends_at = at;
    let Some(old) = s.end_mut(stays) else { return false };
    (old.no, old.out_sdp, old.sdp) = (0, body.clone(), Sdp::Normal);
    let answered = old.state == EndState::Confirmed;
    old.state = EndState::New;
    let (own_headers, params) = (old.headers.clone(), old.contact_params.clone().unwrap_or_default());
    let link = ctx.state.ext.entry::<Link>();
    (link.session, link.entity, link.kind) = (key.clone(), entity, Kind::Server);
    let ask = Inside {
        own_headers,
        body,
        contact_params: params,
        max_forwards: msg.max_forwards().filter(|n| *n > 0),
        ..Inside::new(if answered { "INVITE" } else { "UPDATE" })
    };
    let (module, own) = (module.clone(), key.clone());
    // Behind what the session looks at now.
    enter(ctx, key, move |ctx, turn| {
        if !acts::ask(ctx, &own, stays, ask) {
            acts::close(ctx, &own);
        }
        sql::changed(ctx, &module, &own);
        turn.end(ctx);
    })
}
