//! What becomes of the INVITE: replies that go upstream, CANCEL, the end of its transaction.

use super::api::{self, Event};
use super::bodies::Left;
use super::cell::{self, Leg, LegNo, MAX_CALLEES};
use super::link::{self, Link};
use super::routes::{self, Moment};
use super::state::Happened;
use super::table::{self, Due, Key};
use super::{Dlg, Flags, State, create, cseq, end, prack};
use host::Ctx;
use host::shared::Hooks;
use host::watch::{Moment as At, Seen, Told};
use sip::{Message, Method, NameAddr, Uri};
use std::sync::Arc;
use transaction::{Origin, TxnId};

pub fn ready(module: &Arc<Dlg>, hooks: &mut Hooks) {
    let watch = &mut hooks.watch;
    watch.told(Told::Created, adopt);
    watch.on(At::ReplyIn, |ctx, _| cseq::restore(ctx));
    let (of_reply, of_cancel, of_end, of_script) =
        (module.clone(), module.clone(), module.clone(), module.clone());
    watch.told(Told::Replied, move |ctx, seen| upstream(ctx, &of_reply, seen));
    watch.on(At::Cancelled, move |ctx, seen| cancelled(ctx, &of_cancel, seen));
    watch.told(Told::Ended, move |ctx, seen| ended(ctx, &of_end, seen));
    watch.on(At::RequestEnd, move |ctx, _| request_end(ctx, &of_script));
}

/// The main route of an INVITE ended. A dialog whose INVITE got no transaction has failed.
fn request_end(ctx: &mut Ctx, module: &Arc<Dlg>) {
    let Some(key) = ctx.state.ext.find::<Link>().and_then(|link| link.key) else { return };
    let untold = table::of(ctx).get(key).is_some_and(|d| d.txn.is_none() && d.state == State::Unconfirmed);
    if ctx.state.txn.is_none() && untold {
        over(ctx, module, key);
    }
}

/// The INVITE's way is over; without an answer the dialog has failed.
fn over(ctx: &mut Ctx, module: &Dlg, key: Key) {
    let (before, after) = end::advance(ctx, module, key, Happened::TransactionEnd);
    if before != after {
        end::failed(ctx, module, key);
    }
}

/// The transaction of the current request was made: it belongs to the request's dialog.
fn adopt(ctx: &mut Ctx, seen: &Seen) {
    let (Some(id), Some(link)) = (seen.txn, ctx.state.ext.find::<Link>().cloned()) else { return };
    let Some(key) = link.key else { return };
    if let Some(ext) = ctx.ext_of(id) {
        ext.set(Link { loaded: None, ..link });
    }
    let first = ctx.state.msg.method() == Method::Invite && ctx.state.msg.to_tag().is_none();
    if let Some(dialog) = table::of(ctx).get_mut(key).filter(|d| first && d.txn.is_none()) {
        dialog.txn = Some(id);
    }
}

/// The dialog whose INVITE this transaction is.
fn first_of(ctx: &mut Ctx, id: TxnId) -> Option<Key> {
    let (key, _) = link::of_txn(ctx, id)?;
    table::of(ctx).get(key).filter(|d| d.txn == Some(id)).map(|_| key)
}

/// A reply went upstream.
fn upstream(ctx: &mut Ctx, module: &Arc<Dlg>, seen: &Seen) {
    let Some(id) = seen.txn else { return };
    let Some((key, link)) = link::of_txn(ctx, id) else { return };
    let Ok(reply) = Message::parse(seen.bytes.clone()) else { return };
    match first_of(ctx, id) {
        Some(key) => replied(ctx, module, key, id, &reply, seen),
        None => super::within::replied(ctx, key, &link, &reply),
    }
}

fn ended(ctx: &mut Ctx, module: &Arc<Dlg>, seen: &Seen) {
    let Some(key) = seen.txn.and_then(|id| first_of(ctx, id)) else { return };
    if let Some(dialog) = table::of(ctx).get_mut(key) {
        dialog.txn = None;
    }
    over(ctx, module, key);
}

/// The caller gave up.
fn cancelled(ctx: &mut Ctx, module: &Dlg, seen: &Seen) {
    let Some(key) = seen.txn.and_then(|id| first_of(ctx, id)) else { return };
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    dialog.flags.set(Flags::CANCELLED);
    if dialog.state.is_answered() {
        race(ctx, module, key);
    } else {
        dialog.because("Cancelled");
    }
}

/// A CANCEL or a BYE crossed the answer (RFC 5407): if asked for, the call ends soon.
fn race(ctx: &mut Ctx, module: &Dlg, key: Key) {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    if !dialog.flags.has(Flags::END_ON_RACE) {
        return;
    }
    dialog.flags.set(Flags::RACED);
    dialog.lifetime = module.race_timeout;
    let at = ctx.core.now.after(u64::from(module.race_timeout) * 1000);
    table::of(ctx).set_due(key, Due::End, Some(at));
}

/// A reply to the INVITE went upstream.
fn replied(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, id: TxnId, reply: &Message, seen: &Seen) {
    let (status, here) = (reply.status(), seen.origin == Origin::Here);
    if !here && status < 300 {
        callee(ctx, key, reply, seen);
    }
    let happened = match status {
        101..200 => Happened::Provisional,
        200..300 => Happened::Success,
        300.. => Happened::Refused,
        _ => return,
    };
    let (before, after) = end::advance(ctx, module, key, happened);
    if happened == Happened::Provisional && !here {
        prack::provisional(ctx, module, key, id, reply);
    }
    match (before, after) {
        (State::Unconfirmed, State::Early) => api::tell(ctx, key, Event::Early, Some(reply)),
        (before, State::Answered) if before != State::Answered => answered(ctx, module, key, reply),
        (before, State::Ended) if before != State::Ended => end::failed(ctx, module, key),
        _ => {}
    }
}

/// The callee that a reply came from: known by its tag, else a new one. Its target and routes count with the answer.
fn callee(ctx: &mut Ctx, key: Key, reply: &Message, seen: &Seen) {
    let Some(tag) = reply.to_tag() else { return };
    let invite = ctx.state.msg.clone();
    let number = create::number(&invite).unwrap_or(0);
    let status = reply.status();
    let branch = seen.txn.zip(seen.branch).and_then(|(id, n)| ctx.core.txns.txns.branch(id, n)?.path);
    let socket = branch.map_or(ctx.state.source.socket, |path| path.socket);
    let left = seen.txn.and_then(|id| ctx.ext_of(id)?.find::<Left>()?.0.clone());
    let contact = cell::contact_uri(reply);
    let body = create::body(reply);
    let routes = (200..300).contains(&status).then(|| routes_behind_us(ctx, &invite, reply));
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    let no = match dialog.callee_with(&tag) {
        Some(no) => no,
        None => {
            let leg = Leg { tag: tag[..].into(), cseq: number, socket, body_out: left, ..Leg::default() };
            if dialog.callees.len() >= MAX_CALLEES {
                dialog.callees.pop();
            }
            dialog.callees.reserve_exact(1);
            dialog.callees.push(leg);
            dialog.callees.len() as LegNo
        }
    };
    let Some(leg) = dialog.leg_mut(no) else { return };
    if body.is_some() {
        leg.body_in = body;
    }
    if let Some(routes) = routes {
        leg.contact = contact.unwrap_or_default()[..].into();
        leg.routes = routes;
        dialog.answered = no;
    }
}

/// The route set from here to the callee: what stands behind our own Record-Routes.
pub fn routes_behind_us(ctx: &Ctx, invite: &Message, reply: &Message) -> cell::Text {
    let before = routes_in(invite).len();
    let ours = |addr: &NameAddr| {
        Uri::parse(&addr.uri)
            .is_ok_and(|uri| ctx.core.shared.is_myself(&uri.host, uri.port_or_default(), None))
    };
    let mut all = routes_in(reply);
    all.reverse();
    // Two when the message left by another socket than it came by.
    let own = all.iter().skip(before).take(2).take_while(|addr| ours(addr)).count();
    cell::route_set(reply, true, before + own)
}

fn routes_in(msg: &Message) -> Vec<NameAddr> {
    let headers = msg.headers_of(sip::HeaderName::RecordRoute);
    headers.flat_map(|h| NameAddr::parse_list(&msg.text(h.value())).unwrap_or_default()).collect()
}

/// The call is answered: its time runs.
fn answered(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, reply: &Message) {
    let (now, unix) = (ctx.core.now, (ctx.core.wall_us / 1_000_000) as u32);
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    dialog.started = unix;
    let at = now.after(u64::from(dialog.lifetime) * 1000);
    let raced = dialog.flags.has(Flags::CANCELLED.with(Flags::SAID_BYE));
    table::of(ctx).set_due(key, Due::End, Some(at));
    if raced {
        race(ctx, module, key);
    }
    api::tell(ctx, key, Event::Confirmed, Some(reply));
    routes::run(ctx, key, Moment::Answer, |_| ());
}

/// A message of the callee's refreshes what is known of the end it came from.
pub fn refresh(ctx: &mut Ctx, key: Key, from: LegNo, msg: &Message) {
    let contact = cell::contact_uri(msg);
    let body = create::body(msg);
    let Some(leg) = table::of(ctx).get_mut(key).and_then(|d| d.leg_mut(from)) else { return };
    if let Some(contact) = contact {
        leg.contact = contact[..].into();
    }
    if body.is_some() {
        leg.body_in = body;
    }
}
