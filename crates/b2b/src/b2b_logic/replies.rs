//! Replies of the ends of a session.

use super::link::{Link, Role};
use super::requests::{end_of, run};
use super::session::{self, End, EndId, EndState, Initiator, Scenario, State};
use super::{B2bl, acts, bridge, headers, notify, sql, wait};
use crate::b2b_entities::answer::Reply;
use crate::b2b_entities::entity::{Kind, contact_of};
use crate::b2b_entities::owner::{Notice, Turn, What, body_of};
use crate::b2b_entities::send::Inside;
use crate::b2b_entities::table;
use bytes::Bytes;
use host::Ctx;
use sip::{HeaderName, Message, Method};
use std::sync::Arc;

/// Of the CANCELs to those who rang when somebody else answered.
const ELSEWHERE: &[u8] = b"Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n";

/// What `b2b_handle_reply` was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Handling {
    /// The Contact of a redirection passes as it is.
    pub pass_contact: bool,
}

pub fn came(ctx: &mut Ctx, module: &Arc<B2bl>, notice: Notice, turn: Turn) {
    let (msg, key) = (ctx.state.msg.clone(), notice.logic.clone());
    let Some(id) = end_of(ctx, &notice) else { return turn.end(ctx) };
    let transparent = acts::read(ctx, &key, |s| s.init.transparent_auth) == Some(true);
    let challenge = match (transparent, msg.status()) {
        (true, 401) => Some(HeaderName::WwwAuthenticate),
        (true, 407) => Some(HeaderName::ProxyAuthenticate),
        _ => None,
    };
    let challenge = challenge.and_then(|name| msg.header(name)).map(|header| headers::line(&msg, header));
    let lines = headers::passed(module, &msg, &challenge.unwrap_or_default());
    let Some(s) = session::of(ctx, &key) else { return turn.end(ctx) };
    let (route, scenario) = (s.reply_route, s.scenario.clone());
    let Some(end) = s.end_mut(id) else { return turn.end(ctx) };
    if msg.status() >= 200 {
        (end.replied, end.last_code) = (true, msg.status());
    }
    if end.disconnected && msg.status() < 200 {
        return turn.end(ctx);
    }
    if end.disconnected {
        let last = s.to_delete && s.ends.iter().all(|other| other.id == id || other.rejected);
        acts::forget(ctx, &key, id);
        if last {
            acts::delete(ctx, module, &key);
        }
        sql::changed(ctx, module, &key);
        return turn.end(ctx);
    }
    let link = Link {
        session: key.clone(),
        entity: notice.entity.clone(),
        kind: notice.kind,
        role: Role::Reply,
        headers: lines,
        body: body_of(&msg),
        late: notice.what == What::LateReply,
        ..Link::default()
    };
    ctx.state.ext.set(link);
    match route.filter(|_| scenario != Scenario::TopHiding) {
        Some(route) => run(ctx, module, route, key, turn),
        None => {
            handle(ctx, module, &key, id, Handling::default());
            turn.end(ctx);
        }
    }
}

/// Does with the current reply what the state of the session asks for (`b2b_handle_reply`). False: it does not fit.
pub fn handle(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, id: EndId, how: Handling) -> bool {
    let msg = ctx.state.msg.clone();
    let Some((_, method)) = msg.cseq_parts() else { return false };
    let method = Method::parse(&method);
    let Some(s) = session::of(ctx, key) else { return false };
    let Some(end) = s.end(id).cloned() else { return false };
    let bridging = s.state.is_bridging();
    let done = if bridging {
        method == Method::Invite && of_bridge(ctx, module, key, &end, &msg)
    } else {
        plain(ctx, module, key, &end, &msg, &method, how);
        true
    };
    wait::look(ctx, key);
    sql::changed(ctx, module, key);
    done
}

/// A reply to an INVITE while ends are being connected.
fn of_bridge(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, end: &End, msg: &Message) -> bool {
    let status = msg.status();
    let Some(s) = session::of(ctx, key) else { return false };
    let newest = s.bridge[2].or(s.bridge[1]);
    let (flags, initiator) = (s.bridging, s.initiator.clone());
    if let Some(initiator) = initiator.filter(|_| status >= 200 && newest == Some(end.id)) {
        if flags.notify {
            notify::send(ctx, key, &initiator, Some(msg));
        }
        let goes = (status == 200 || !flags.rollback) && !flags.keep_initiator;
        if let (true, Initiator::End(id)) = (goes, &initiator) {
            acts::hang_up(ctx, key, Some(*id));
            if let Some(s) = session::of(ctx, key) {
                s.initiator = None;
            }
        }
    }
    match status {
        300.. if flags.no_late_sdp && status == 491 => {
            bridge::pending(ctx, module, key);
            true
        }
        300.. => {
            if let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(end.id)) {
                end.rejected = true;
            }
            if bridge::refused(ctx, module, key, end.id) {
                return true;
            }
            let alone = acts::read(ctx, key, |s| {
                let peer = s.end(end.id).and_then(|end| end.peer).and_then(|peer| s.end(peer));
                peer.is_none_or(|peer| peer.key.is_empty())
            });
            if alone == Some(true) {
                acts::delete(ctx, module, key);
            }
            true
        }
        200.. => bridge::accepted(ctx, module, key, end.id),
        _ => true,
    }
}

fn plain(
    ctx: &mut Ctx,
    module: &Arc<B2bl>,
    key: &Bytes,
    end: &End,
    msg: &Message,
    method: &Method,
    how: Handling,
) {
    let Some(peer) = end.peer.and_then(|peer| acts::read(ctx, key, |s| s.end(peer).cloned()).flatten())
    else {
        return;
    };
    if peer.said_bye {
        if !end.disconnected {
            acknowledge_and_end(ctx, key, end.id, msg.status());
            acts::close(ctx, key);
        }
        return;
    }
    match method {
        Method::Bye => {
            pass(ctx, key, end, peer.id, msg, method, how);
            acts::delete(ctx, module, key);
        }
        Method::Invite | Method::Update => of_offer(ctx, module, key, end, &peer, msg, method, how),
        _ => drop(pass(ctx, key, end, peer.id, msg, method, how)),
    }
}

#[allow(clippy::too_many_arguments)]
fn of_offer(
    ctx: &mut Ctx,
    module: &Arc<B2bl>,
    key: &Bytes,
    end: &End,
    peer: &End,
    msg: &Message,
    method: &Method,
    how: Handling,
) {
    let status = msg.status();
    let rival = acts::read(ctx, key, |s| s.rivals.len() > 1 && s.rivals.contains(&end.id)) == Some(true);
    match (end.state == EndState::Confirmed, status) {
        (false, 300..) if rival => one_less(ctx, key, end.id, peer.id),
        (false, 300..) => {
            pass(ctx, key, end, peer.id, msg, method, how);
            acts::close(ctx, key);
        }
        (false, 200..) => connected(ctx, module, key, end, peer, msg, method, how),
        (false, _) => {
            learn_dialog(ctx, key, end.id, msg);
            pass(ctx, key, end, peer.id, msg, method, how);
        }
        (true, _) => {
            if (200..300).contains(&status) {
                note_answer(ctx, key, end.id, peer.id);
                if let Some(s) = session::of(ctx, key) {
                    s.bridging.pending_sdp = false;
                }
            }
            pass(ctx, key, end, peer.id, msg, method, how);
            if matches!(status, 408 | 481) {
                let at = acts::later(ctx, acts::LAST_S);
                if let Some(s) = session::of(ctx, key) {
                    s.ends_at = Some(at);
                }
            }
        }
    }
}

/// One of several that rang refuses.
fn one_less(ctx: &mut Ctx, key: &Bytes, id: EndId, peer: EndId) {
    acts::forget(ctx, key, id);
    let Some(s) = session::of(ctx, key) else { return };
    let Some(head) = s.rivals.first().copied() else { return };
    s.clients = vec![head];
    s.bridge[1] = Some(head);
    if let Some(end) = s.end_mut(peer) {
        end.peer = Some(head);
    }
}

/// The first answer connects both.
#[allow(clippy::too_many_arguments)]
fn connected(
    ctx: &mut Ctx,
    module: &B2bl,
    key: &Bytes,
    end: &End,
    peer: &End,
    msg: &Message,
    method: &Method,
    how: Handling,
) {
    if let Some(params) = headers::contact_params(module, msg)
        && let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(end.id))
    {
        end.contact_params = Some(params);
    }
    win(ctx, key, end.id, peer.id);
    if ctx.state.ext.find::<Link>().is_some_and(|link| link.late) {
        acts::answer(ctx, key, peer.id, Reply::new("INVITE", 487, "Request Terminated"));
        return acts::close(ctx, key);
    }
    if *method == Method::Update {
        // Before the answer: nothing is connected by it.
        note_answer(ctx, key, end.id, peer.id);
        pass(ctx, key, end, peer.id, msg, method, how);
        return;
    }
    note_answer(ctx, key, end.id, peer.id);
    if let Some(s) = session::of(ctx, key) {
        s.state = State::Bridged;
        for id in [end.id, peer.id] {
            if let Some(end) = s.end_mut(id) {
                end.state = EndState::Confirmed;
            }
        }
    }
    pass(ctx, key, end, peer.id, msg, method, how);
}

/// The others that rang are given up.
fn win(ctx: &mut Ctx, key: &Bytes, id: EndId, peer: EndId) {
    let others = session::of(ctx, key).map(|s| std::mem::take(&mut s.rivals)).unwrap_or_default();
    if !others.contains(&id) {
        return;
    }
    for other in others.into_iter().filter(|other| *other != id) {
        let cancel = Inside { headers: Bytes::from_static(ELSEWHERE), ..Inside::new("CANCEL") };
        acts::ask(ctx, key, other, cancel);
        acts::forget(ctx, key, other);
    }
    if let Some(s) = session::of(ctx, key) {
        s.clients = vec![id];
        s.bridge[1] = Some(id);
        s.connect(peer, id);
    }
}

fn note_answer(ctx: &mut Ctx, key: &Bytes, id: EndId, peer: EndId) {
    let body = ctx.state.ext.find::<Link>().and_then(|link| link.body.clone());
    let Some(s) = session::of(ctx, key) else { return };
    if let Some(end) = s.end_mut(id) {
        end.in_sdp = body.clone();
    }
    if let Some(end) = s.end_mut(peer) {
        end.out_sdp = body;
    }
}

/// A provisional reply shows the tag of who rings.
fn learn_dialog(ctx: &mut Ctx, key: &Bytes, id: EndId, msg: &Message) {
    let (Some(call_id), Some(tag)) = (msg.call_id(), msg.from_tag()) else { return };
    let other = msg.to_tag().unwrap_or_default();
    if let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(id)) {
        let dialog = end.dialog.get_or_insert_default();
        if dialog.from_tag.is_empty() {
            (dialog.call_id, dialog.from_tag, dialog.to_tag) = (call_id, other, tag);
        }
    }
}

/// Passes the current reply to an end.
fn pass(
    ctx: &mut Ctx,
    key: &Bytes,
    end: &End,
    to: EndId,
    msg: &Message,
    method: &Method,
    how: Handling,
) -> bool {
    let link = ctx.state.ext.find::<Link>().cloned().unwrap_or_default();
    let redirects = how.pass_contact && (300..400).contains(&msg.status());
    let by_session = acts::read(ctx, key, |s| s.init.pass_legs) == Some(true);
    let leg = (end.pass_legs || by_session).then(|| leg_of(ctx, end, msg)).flatten();
    let reply = Reply {
        method: Bytes::copy_from_slice(method.as_str().as_bytes()),
        code: msg.status(),
        reason: msg.reason(),
        headers: link.headers,
        body: link.body,
        contact: if redirects { contact_of(msg) } else { None },
        leg,
        ..Reply::default()
    };
    acts::answer(ctx, key, to, reply)
}

/// The number of the leg that a reply is of, from 1.
fn leg_of(ctx: &mut Ctx, end: &End, msg: &Message) -> Option<u32> {
    if end.kind != Kind::Client {
        return None;
    }
    let tag = msg.to_tag()?;
    let entity = table::of(ctx).get(&end.key)?;
    entity.legs.iter().find(|leg| leg.tag == tag).map(|leg| leg.id + 1)
}

/// Ends an end whose peer has gone while it answered.
pub fn acknowledge_and_end(ctx: &mut Ctx, key: &Bytes, id: EndId, status: u16) {
    if (200..300).contains(&status) {
        acts::ask(ctx, key, id, Inside::new("ACK"));
    }
    acts::ask(ctx, key, id, Inside::new("BYE"));
    if let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(id)) {
        end.disconnected = true;
    }
}
