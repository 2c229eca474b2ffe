//! What becomes of the INVITE: replies that go upstream, CANCEL, the end of its transaction.

use super::api::{self, Event};
use super::bodies::Left;
use super::cell::{self, Leg, LegNo, MAX_CALLEES};
use super::link::{self, Link};
use super::routes::{self, Moment};
use super::state::Happened;
use super::table::{self, Due, Key};
use super::{Dlg, Flags, State, create, cseq, end, prack};
use bytes::Bytes;
use host::Ctx;
use host::shared::Hooks;
use host::watch::{Moment as At, Seen, Told};
use sip::{Message, Method, NameAddr, Uri};
use std::rc::Rc;
use std::sync::Arc;
use transaction::{Origin, TxnId};

pub fn ready(module: &Arc<Dlg>, hooks: &mut Hooks) {
    let watch = &mut hooks.watch;
    watch.told(Told::Created, adopt);
    watch.on(At::ReplyIn, |ctx, _| cseq::restore(ctx));
    watch.on(At::ReplyOut, came).before("topology_hiding");
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
        end::failed(ctx, module, key, None);
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

/// A reply of a call whose ends are hidden from each other, as it came: what left tells nothing of its sender.
#[derive(Clone, Default)]
struct Came(Option<Origins>);

/// Who sent a reply, and by which way.
#[derive(Clone)]
pub struct Origins {
    pub reply: Rc<Message>,
    /// URI of its Contact, as scripts have changed it.
    pub contact: Option<Bytes>,
}

fn came(ctx: &mut Ctx, seen: &Seen) {
    let Some(id) = seen.txn.filter(|_| seen.origin == Origin::Relayed) else { return };
    let Some((key, _)) = link::of_txn(ctx, id) else { return };
    if !is_hidden(ctx, key) {
        return;
    }
    let origins = Origins { reply: ctx.state.msg.clone(), contact: cell::current_contact(&ctx.state) };
    if let Some(ext) = ctx.ext_of(id) {
        ext.set(Came(Some(origins)));
    }
}

fn is_hidden(ctx: &mut Ctx, key: Key) -> bool {
    table::of(ctx).get(key).is_some_and(|d| d.flags.has(Flags::HIDDEN))
}

/// A reply went upstream.
fn upstream(ctx: &mut Ctx, module: &Arc<Dlg>, seen: &Seen) {
    let Some(id) = seen.txn else { return };
    let Some((key, link)) = link::of_txn(ctx, id) else { return };
    let Ok(sent) = Message::parse(seen.bytes.clone()) else { return };
    let came = ctx.ext_of(id).and_then(|ext| ext.find::<Came>()?.0.clone());
    let came = came.filter(|came| seen.origin == Origin::Relayed && came.reply.status() == sent.status());
    if came.is_some() {
        note_shown(ctx, key, &sent, seen);
    }
    let origins = came.unwrap_or_else(|| {
        let contact = cell::contact_uri(&sent);
        Origins { reply: Rc::new(sent), contact }
    });
    match first_of(ctx, id) {
        Some(key) => replied(ctx, module, key, id, &origins, seen),
        None => super::within::replied(ctx, key, &link, &origins),
    }
}

/// The caller was shown a contact of ours: requests of this server repeat it.
fn note_shown(ctx: &mut Ctx, key: Key, sent: &Message, seen: &Seen) {
    let Some(id) = seen.txn else { return };
    if first_of(ctx, id).is_none() {
        return;
    }
    if let (Some(line), Some(dialog)) = (cell::contact_line(sent), table::of(ctx).get_mut(key)) {
        dialog.caller.changed.shown_contact = Some(line);
    }
}

/// The branch that a reply came by, as its request left.
fn left(ctx: &Ctx, seen: &Seen) -> Option<Message> {
    let branch = ctx.txn(seen.txn?).branch(seen.branch?)?;
    Message::parse(branch.bytes.clone()).ok()
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
    table::set_due(ctx, key, Due::End, Some(at));
}

/// A reply to the INVITE went upstream.
fn replied(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, id: TxnId, origins: &Origins, seen: &Seen) {
    let reply = &*origins.reply;
    let (status, here) = (reply.status(), seen.origin == Origin::Here);
    if !here && status < 300 {
        callee(ctx, key, origins, seen);
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
        (before, State::Ended) if before != State::Ended => end::failed(ctx, module, key, Some(reply)),
        _ => {}
    }
}

/// The callee that a reply came from: known by its tag, else a new one. Its target and routes count with the answer.
fn callee(ctx: &mut Ctx, key: Key, origins: &Origins, seen: &Seen) {
    let reply = &*origins.reply;
    let Some(tag) = reply.to_tag() else { return };
    let invite = ctx.state.msg.clone();
    let number = create::number(&invite).unwrap_or(0);
    let status = reply.status();
    let sent = left(ctx, seen);
    let hidden = is_hidden(ctx, key);
    let shown = sent.as_ref().filter(|_| hidden).and_then(cell::contact_line);
    // It was sent again with an answer to a challenge.
    let renumbered = sent.as_ref().and_then(create::number).filter(|sent| *sent != number);
    let branch = seen.txn.zip(seen.branch).and_then(|(id, n)| ctx.txn(id).branch(n)?.path);
    let socket = branch.map_or(ctx.state.source.socket, |path| path.socket);
    let left = seen.txn.and_then(|id| ctx.ext_of(id)?.find::<Left>()?.0.clone());
    let body = create::body(reply);
    // Where ends are hidden, requests may have to be routed before the answer.
    let settled = (200..300).contains(&status);
    let routes = (settled || hidden).then(|| routes_of_callee(ctx, key, &invite, reply, sent.as_ref()));
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    let no = match dialog.callee_with(&tag) {
        Some(no) => no,
        None => {
            let mut leg = Leg { tag: tag[..].into(), cseq: number, socket, ..Leg::default() };
            leg.note_sent(left);
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
    if let Some(shown) = shown {
        leg.changed.shown_contact = Some(shown);
    }
    if let Some(sent) = renumbered.filter(|_| leg.made_cseq == 0) {
        (leg.made_cseq, leg.changed.invite_shift) = (sent, Some((number, sent)));
    }
    if let Some(routes) = routes {
        leg.contact = origins.contact.clone().unwrap_or_default()[..].into();
        leg.routes = routes;
    }
    if settled {
        dialog.answered = no;
    }
}

/// The route set from here to the callee that sent this reply.
/// `sent`: the INVITE as it left, where it is known.
pub fn routes_of_callee(
    ctx: &mut Ctx,
    key: Key,
    invite: &Message,
    reply: &Message,
    sent: Option<&Message>,
) -> cell::Text {
    if !is_hidden(ctx, key) {
        let before = routes_in(invite).len();
        return cell::route_set(reply, true, before + own_routes(ctx, reply, before));
    }
    // Nothing of what stood before us left; what did is our own, of a script that also calls record_route().
    let own = sent.map_or_else(|| own_routes(ctx, reply, 0), |sent| routes_in(sent).len());
    cell::route_set(reply, true, own)
}

/// How many Record-Routes are our own, behind those that were there before.
fn own_routes(ctx: &Ctx, reply: &Message, before: usize) -> usize {
    let ours = |addr: &NameAddr| Uri::parse(&addr.uri).is_ok_and(|uri| ctx.core.shared.is_own(&uri));
    let mut all = routes_in(reply);
    all.reverse();
    // Two when the message left by another socket than it came by.
    all.iter().skip(before).take(2).take_while(|addr| ours(addr)).count()
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
    table::set_due(ctx, key, Due::End, Some(at));
    if raced {
        race(ctx, module, key);
    }
    api::tell(ctx, key, Event::Confirmed, Some(reply));
    routes::run(ctx, key, Moment::Answer, |_| ());
}

/// A message refreshes what is known of the end it came from.
pub fn refresh(ctx: &mut Ctx, key: Key, from: LegNo, msg: &Message, contact: Option<Bytes>) {
    let body = create::body(msg);
    let Some(leg) = table::of(ctx).get_mut(key).and_then(|d| d.leg_mut(from)) else { return };
    if let Some(contact) = contact {
        leg.contact = contact[..].into();
    }
    if body.is_some() {
        leg.body_in = body;
    }
}
