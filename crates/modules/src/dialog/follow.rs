//! What becomes of the INVITE: replies that go upstream, CANCEL, the end of its transaction.

use super::api::{self, Event};
use super::cell::{self, Leg, LegNo, MAX_CALLEES};
use super::link::{self, Link};
use super::routes::{self, Moment};
use super::state::Happened;
use super::table::{self, Due, Key};
use super::{Dlg, Flags, State, create, cseq, end, prack};
use host::Ctx;
use host::shared::Hooks;
use host::tm::TxnEvent;
use sip::{Message, Method, NameAddr, Uri};
use std::sync::Arc;
use transaction::TxnId;

pub fn ready(module: &Arc<Dlg>, hooks: &mut Hooks) {
    let here = module.clone();
    hooks
        .txn
        .push(Arc::new(move |ctx: &mut Ctx, id: TxnId, event: TxnEvent| on_event(ctx, &here, id, event)));
    hooks.reply_in.push(Arc::new(|ctx: &mut Ctx| cseq::restore(ctx)));
    let here = module.clone();
    hooks.request_end.push(Arc::new(move |ctx: &mut Ctx| request_end(ctx, &here)));
}

/// The main route of an INVITE ended. A dialog whose INVITE got no transaction has failed.
fn request_end(ctx: &mut Ctx, module: &Arc<Dlg>) {
    let Some(key) = ctx.state.ext.find::<Link>().and_then(|link| link.key) else { return };
    match ctx.state.txn {
        Some(id) => adopt(ctx, key, id),
        None => {
            if table::of(ctx).get(key).is_some_and(|d| d.txn.is_none() && d.state == State::Unconfirmed) {
                over(ctx, module, key);
            }
        }
    }
}

/// The INVITE's way is over; without an answer the dialog has failed.
fn over(ctx: &mut Ctx, module: &Dlg, key: Key) {
    let (before, after) = end::advance(ctx, module, key, Happened::TransactionEnd);
    if before != after {
        end::failed(ctx, module, key);
    }
}

/// The transaction of the current request belongs to its dialog.
fn adopt(ctx: &mut Ctx, key: Key, id: TxnId) {
    let known = table::of(ctx).link_of(id).is_some();
    if !known {
        let link = ctx.state.ext.find::<Link>().cloned().unwrap_or_default();
        table::of(ctx).link(id, Link { loaded: None, ..link });
    }
    let first = ctx.state.msg.method() == Method::Invite && ctx.state.msg.to_tag().is_none();
    if let Some(dialog) = table::of(ctx).get_mut(key).filter(|d| first && d.txn.is_none()) {
        dialog.txn = Some(id);
    }
}

fn on_event(ctx: &mut Ctx, module: &Arc<Dlg>, id: TxnId, event: TxnEvent) {
    if event == TxnEvent::Ended {
        return ended(ctx, module, id);
    }
    if ctx.state.msg.is_request()
        && let Some(key) = ctx.state.ext.find::<Link>().and_then(|link| link.key)
    {
        adopt(ctx, key, id);
    }
    let Some((key, link)) = link::of_txn(ctx, id) else { return };
    let first = table::of(ctx).get(key).is_some_and(|d| d.txn == Some(id));
    match event {
        TxnEvent::ReplyOut { status } if first => replied(ctx, module, key, id, status),
        TxnEvent::ReplyOut { status } => super::within::replied(ctx, key, &link, id, status),
        TxnEvent::Cancelled if first => cancelled(ctx, module, key),
        _ => {}
    }
}

fn ended(ctx: &mut Ctx, module: &Arc<Dlg>, id: TxnId) {
    let Some(key) = table::of(ctx).unlink(id).and_then(|link| link.key) else { return };
    let Some(dialog) = table::of(ctx).get_mut(key).filter(|d| d.txn == Some(id)) else { return };
    dialog.txn = None;
    over(ctx, module, key);
}

/// The caller gave up.
fn cancelled(ctx: &mut Ctx, module: &Dlg, key: Key) {
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
fn replied(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, id: TxnId, status: u16) {
    let bytes = ctx.core.txns.txns.get(id).map(|data| data.reply_out.clone()).unwrap_or_default();
    let Ok(reply) = Message::parse(bytes) else { return };
    let here = reply.to_tag().is_none_or(|tag| tag == host::tm::to_tag(ctx, id));
    if !here && status < 300 {
        callee(ctx, key, &reply, status);
    }
    let happened = match status {
        101..200 => Happened::Provisional,
        200..300 => Happened::Success,
        300.. => Happened::Refused,
        _ => return,
    };
    let (before, after) = end::advance(ctx, module, key, happened);
    if happened == Happened::Provisional && !here {
        prack::provisional(ctx, module, key, id, &reply);
    }
    match (before, after) {
        (State::Unconfirmed, State::Early) => api::tell(ctx, key, Event::Early, Some(&reply)),
        (before, State::Answered) if before != State::Answered => answered(ctx, module, key, &reply),
        (before, State::Ended) if before != State::Ended => end::failed(ctx, module, key),
        _ => {}
    }
}

/// The callee that a reply came from: known by its tag, else a new one. Its target and routes count with the answer.
fn callee(ctx: &mut Ctx, key: Key, reply: &Message, status: u16) {
    let Some(tag) = reply.to_tag() else { return };
    let invite = ctx.state.msg.clone();
    let number = create::number(&invite).unwrap_or(0);
    let socket = ctx.state.source.socket;
    let contact = cell::contact_uri(reply);
    let body = create::body(reply);
    let routes = (200..300).contains(&status).then(|| routes_behind_us(ctx, &invite, reply));
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    let no = match dialog.callee_with(&tag) {
        Some(no) => no,
        None => {
            let leg = Leg { tag: tag[..].into(), cseq: number, socket, ..Leg::default() };
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
