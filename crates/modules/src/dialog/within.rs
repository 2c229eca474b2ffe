//! Requests inside a dialog: which it is, what they change, what their replies change.

use super::api::{self, Event};
use super::cell::{self, LegNo};
use super::follow::Origins;
use super::link::{self, Link};
use super::state::Happened;
use super::table::{self, Due, Key};
use super::{Dlg, MatchMode, State, create, cseq, end, follow, handover, matching};
use host::Ctx;
use host::shared::Hooks;
use host::watch::Moment;
use sip::{Message, Method};
use std::sync::Arc;

pub fn ready(module: &Arc<Dlg>, hooks: &mut Hooks) {
    let module = module.clone();
    hooks.watch.on(Moment::Routed, move |ctx, _| handover::match_request(ctx, &module, module.mode, |_| 1));
}

/// Finds the dialog of the current request, once, and takes in what the request says.
pub fn match_request(ctx: &mut Ctx, module: &Arc<Dlg>, mode: MatchMode) {
    let msg = ctx.state.msg.clone();
    if !msg.is_request() || msg.to_tag().is_none_or(|tag| tag.is_empty()) || link::own(ctx).is_some() {
        return;
    }
    let Some((key, towards)) = matching::find(ctx, module, mode) else { return };
    enter(ctx, module, key, towards);
}

/// The current request is one of this dialog, for this end.
pub fn enter(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, towards: LegNo) {
    let msg = ctx.state.msg.clone();
    link::set(ctx, key, towards);
    note_body(ctx, key, towards, &msg);
    let state = table::of(ctx).get(key).map_or(State::Ended, |d| d.state);
    match msg.method() {
        Method::Ack => ack(ctx, module, key, towards),
        Method::Bye => bye(ctx, module, key, towards, state),
        _ if state == State::Ended => late(ctx, key, towards),
        _ => other(ctx, key, towards, state),
    }
}

/// A session description that a request brings.
fn note_body(ctx: &mut Ctx, key: Key, towards: LegNo, msg: &Message) {
    let Some(body) = create::body(msg) else { return };
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    let from = dialog.other(towards);
    if let Some(leg) = dialog.leg_mut(from) {
        leg.body_in = Some(body);
    }
}

fn ack(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, towards: LegNo) {
    let (before, after) = end::advance(ctx, module, key, Happened::Ack);
    api::tell(ctx, key, Event::RequestWithin, None);
    cseq::shift_ack(ctx, key, towards);
    if before == State::Answered && after == State::Confirmed {
        start_pings(ctx, key);
        api::changed(ctx, key);
    }
}

/// The ends are watched from the ACK on.
pub fn start_pings(ctx: &mut Ctx, key: Key) {
    let now = ctx.core.now;
    let Some(dialog) = table::of(ctx).get(key) else { return };
    let (options, reinvites) = (dialog.options.interval, dialog.reinvites.interval);
    for (due, seconds) in [(Due::Options, options), (Due::Reinvite, reinvites)] {
        if seconds > 0 {
            table::set_due(ctx, key, due, Some(now.after(u64::from(seconds) * 1000)));
        }
    }
}

fn bye(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, towards: LegNo, state: State) {
    if state == State::Ended {
        return late(ctx, key, towards);
    }
    end::hung_up(ctx, module, key, towards);
    if table::of(ctx).get(key).is_none_or(|d| d.state != State::Ended) {
        // Early, or to a callee that did not answer: the dialog goes on.
        api::tell(ctx, key, Event::RequestWithin, None);
        cseq::note(ctx, key, towards);
    }
    cseq::shift(ctx, key, towards);
}

/// After the end nothing changes any more; the request is only made to fit.
fn late(ctx: &mut Ctx, key: Key, towards: LegNo) {
    api::tell(ctx, key, Event::RequestWithin, None);
    cseq::shift(ctx, key, towards);
}

fn other(ctx: &mut Ctx, key: Key, towards: LegNo, state: State) {
    if state == State::Unconfirmed {
        return;
    }
    take_pending(ctx, key);
    api::tell(ctx, key, Event::RequestWithin, None);
    cseq::note(ctx, key, towards);
    if state.is_answered() {
        cseq::shift(ctx, key, towards);
        table::touch(ctx, key);
        api::changed(ctx, key);
    }
}

/// What the script set before the dialog was found.
fn take_pending(ctx: &mut Ctx, key: Key) {
    let Some(link) = ctx.state.ext.find::<Link>() else { return };
    let (timeout, options, reinvites) = (link.timeout, link.options, link.reinvites);
    let now = ctx.core.now;
    let table = table::of(ctx);
    let Some(dialog) = table.get_mut(key) else { return };
    if let Some(seconds) = timeout {
        dialog.lifetime = seconds;
    }
    let pings = dialog.flags;
    let answered = dialog.state.is_answered();
    if let Some(seconds) = options.filter(|_| pings.options()) {
        dialog.options.interval = seconds;
    }
    if let Some(seconds) = reinvites.filter(|_| pings.reinvites()) {
        dialog.reinvites.interval = seconds;
    }
    let due = [
        (Due::End, timeout),
        (Due::Options, options.filter(|_| pings.options())),
        (Due::Reinvite, reinvites.filter(|_| pings.reinvites())),
    ];
    for (due, seconds) in due {
        if let Some(seconds) = seconds.filter(|_| answered) {
            table::set_due(ctx, key, due, Some(now.after(u64::from(seconds) * 1000)));
        }
    }
}

/// A reply to a request inside the dialog went upstream. The ends of a call move with a 2xx (RFC 3261 §12.2).
pub fn replied(ctx: &mut Ctx, key: Key, link: &Link, origins: &Origins) {
    let reply = &*origins.reply;
    let Some(towards) = link.towards else { return };
    let request = ctx.state.msg.clone();
    let refreshes = matches!(request.method(), Method::Invite | Method::Update);
    if refreshes && (200..300).contains(&reply.status()) {
        let from = table::of(ctx).get(key).map_or(0, |d| d.other(towards));
        let contact = cell::current_contact(&ctx.state);
        follow::refresh(ctx, key, from, &request, contact);
        follow::refresh(ctx, key, towards, reply, origins.contact.clone());
        table::touch(ctx, key);
        api::changed(ctx, key);
    }
    api::tell(ctx, key, Event::ReplyWithin, Some(reply));
}
