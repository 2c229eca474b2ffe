//! What happens to a call that is told of: replies to its INVITE, its answer, re-INVITEs, its end.

use super::document::{self, End, View};
use super::{Party, PuaDialogInfo, Sides, keep, kept};
use crate::pua::record::{Publication, Source, event_named};
use crate::pua::{Refused, publish};
use bytes::Bytes;
use host::shared::Hooks;
use host::watch::{Moment, Seen};
use host::{Call, Ctx};
use modules::dialog::Key;
use modules::dialog::api::{self, Event, Told};
use sip::Method;
use std::sync::Arc;

/// How long a state of a call lasts that is not answered, seconds.
const RINGING_S: i64 = 3600;

/// Branches of a call that have been told of, a bit for each.
#[derive(Clone, Copy, Default)]
struct Marks {
    early: u64,
    failed: u64,
}

pub fn ready(module: &Arc<PuaDialogInfo>, hooks: &mut Hooks) {
    let (of_reply, of_failure) = (module.clone(), module.clone());
    hooks.watch.on(Moment::ReplyIn, move |ctx, seen| reply(ctx, &of_reply, seen)).after("dialog");
    hooks.watch.on(Moment::Failing, move |ctx, seen| failing(ctx, &of_failure, seen)).after("dialog");
}

pub fn start(call: &mut Call<PuaDialogInfo>) {
    let module = call.module.clone();
    api::listen(call.ctx, std::rc::Rc::new(move |ctx, told| told_of(ctx, &module, told)));
}

/// A state that both sides are told.
struct Turn<'a> {
    state: &'a str,
    branch: u16,
    /// Seconds; 0: it is over.
    expires: i64,
    caller_tag: Bytes,
    callee_tag: Bytes,
}

/// The call is one that is told of.
fn sides(ctx: &mut Ctx, key: Key) -> Option<Sides> {
    let letters = kept(ctx, key, "__blf_param_5")?;
    Some(Sides { caller: letters.contains(&b'A'), callee: letters.contains(&b'B') })
}

fn marks(ctx: &mut Ctx, key: Key, change: impl FnOnce(&mut Marks) -> bool) -> bool {
    api::get(ctx, key).is_some_and(|dialog| change(dialog.ext.entry::<Marks>()))
}

fn bit(branch: u16) -> u64 {
    1 << (branch % 64)
}

/// A reply to the INVITE came on a branch.
fn reply(ctx: &mut Ctx, module: &Arc<PuaDialogInfo>, seen: &Seen) {
    let Some((key, _)) = api::current(ctx) else { return };
    let msg = ctx.state.msg.clone();
    let is_invite = msg.cseq().is_some_and(|cseq| cseq.method == Method::Invite);
    let is_first = api::get(ctx, key).is_some_and(|d| d.answered == 0 && d.txn == seen.txn);
    if !is_invite || !is_first || sides(ctx, key).is_none() {
        return;
    }
    let branch = seen.branch.or(ctx.state.txn_branch).unwrap_or(0);
    let moment = |state, expires| Turn {
        state,
        branch,
        expires,
        caller_tag: msg.from_tag().unwrap_or_default(),
        callee_tag: msg.to_tag().unwrap_or_default(),
    };
    match msg.status() {
        100..180 if module.trying => tell(ctx, module, key, &moment("trying", RINGING_S)),
        180..200 => {
            let is_news = |m: &mut Marks| {
                let before = m.early;
                m.early |= bit(branch);
                before != m.early
            };
            if marks(ctx, key, is_news) {
                tell(ctx, module, key, &moment("early", RINGING_S));
            }
        }
        200..300 => keep(ctx, key, "__dlg_brX", branch.to_string().as_bytes()),
        300.. => {
            let is_news = |m: &mut Marks| {
                let before = m.failed;
                m.failed |= bit(branch);
                before != m.failed
            };
            if marks(ctx, key, is_news) {
                tell(ctx, module, key, &moment("terminated", 0));
            }
        }
        _ => {}
    }
}

/// All branches have failed; those that rang and never said more are over, too.
fn failing(ctx: &mut Ctx, module: &Arc<PuaDialogInfo>, seen: &Seen) {
    let Some((key, _)) = api::current(ctx) else { return };
    let is_first = api::get(ctx, key).is_some_and(|d| d.answered == 0 && d.txn == seen.txn);
    if !is_first || sides(ctx, key).is_none() {
        return;
    }
    let mut open = 0;
    marks(ctx, key, |m| {
        open = m.early & !m.failed;
        m.failed |= open;
        true
    });
    let caller_tag = ctx.state.msg.from_tag().unwrap_or_default();
    for branch in (0..64).filter(|branch| open & bit(*branch) != 0) {
        let moment = Turn {
            state: "terminated",
            branch,
            expires: 0,
            caller_tag: caller_tag.clone(),
            callee_tag: Bytes::new(),
        };
        tell(ctx, module, key, &moment);
    }
}

/// Something happened to a call.
fn told_of(ctx: &mut Ctx, module: &Arc<PuaDialogInfo>, told: &Told) {
    let state = match told.event {
        Event::Confirmed | Event::RequestWithin => "confirmed",
        Event::Terminated | Event::Expired => "terminated",
        _ => return,
    };
    if sides(ctx, told.key).is_none() {
        return;
    }
    if told.event == Event::RequestWithin
        && (ctx.state.msg.method() != Method::Invite || ctx.state.flags & module.quiet != 0)
    {
        return;
    }
    let branch = kept(ctx, told.key, "__dlg_brX");
    let branch = branch.and_then(|b| std::str::from_utf8(&b).ok()?.parse().ok()).unwrap_or(0);
    let Some(dialog) = api::get(ctx, told.key) else { return };
    let moment = Turn {
        state,
        branch,
        expires: if state == "confirmed" { i64::from(dialog.lifetime) } else { 0 },
        caller_tag: Bytes::copy_from_slice(&dialog.caller.tag),
        callee_tag: dialog.callee().map(|leg| Bytes::copy_from_slice(&leg.tag)).unwrap_or_default(),
    };
    tell(ctx, module, told.key, &moment);
}

fn tell(ctx: &mut Ctx, module: &Arc<PuaDialogInfo>, key: Key, moment: &Turn<'_>) {
    let Some(mut sides) = sides(ctx, key) else { return };
    let party = |ctx: &mut Ctx, uri: &str, name: &str| {
        Some(Party { uri: kept(ctx, key, uri)?, name: kept(ctx, key, name).unwrap_or_default() })
    };
    let branch = moment.branch;
    if let Some(muted) = kept(ctx, key, &format!("__blf_mute_{branch}")) {
        sides.caller &= !muted.contains(&b'A');
        sides.callee &= !muted.contains(&b'B');
    }
    let caller = party(ctx, "__blf_param_1", "__blf_param_2");
    let own = party(ctx, &format!("__blf_callee_{branch}"), &format!("__blf_name_{branch}"));
    let callee = own.or_else(|| party(ctx, "__blf_param_3", "__blf_param_4"));
    let (Some(caller), Some(callee), Some(dialog)) = (caller, callee, api::get(ctx, key)) else { return };
    let call_id = Bytes::copy_from_slice(&dialog.call_id);
    // Two hexadecimal digits, the lower one first, as there.
    let id = match branch {
        0..16 => format!("{}.{branch:x}", String::from_utf8_lossy(&call_id)),
        _ => format!("{}.{:x}{:x}", String::from_utf8_lossy(&call_id), branch % 16, branch / 16),
    };
    for end in [End::Caller, End::Callee] {
        let is_caller = end == End::Caller;
        if !(if is_caller { sides.caller } else { sides.callee }) {
            continue;
        }
        let (own, other) = if is_caller { (&caller, &callee) } else { (&callee, &caller) };
        let tags = [&moment.caller_tag, &moment.callee_tag];
        let view = View {
            id: &id,
            call_id: &call_id,
            // Some phones blink for a call of their own.
            state: if is_caller && module.caller_confirmed && moment.state == "early" {
                "confirmed"
            } else {
                moment.state
            },
            end,
            own,
            other,
            own_tag: tags[usize::from(!is_caller)],
            other_tag: tags[usize::from(is_caller)],
        };
        send(ctx, module, &view, moment.expires);
    }
}

fn send(ctx: &mut Ctx, module: &Arc<PuaDialogInfo>, view: &View<'_>, expires: i64) {
    let (Some(pua), Some(event)) = (&module.pua, event_named("dialog")) else { return };
    let number = (!module.own_server).then(|| pua.next_number(&view.own.uri, view.id.as_bytes()));
    let publication = Publication {
        uri: view.own.uri.clone(),
        id: Bytes::copy_from_slice(view.id.as_bytes()),
        event,
        source: Source::Dialog,
        expires,
        body: Some(document::of(module, view, number)),
        content_type: Bytes::new(),
        etag: None,
        headers: Bytes::new(),
        proxy: module.server.clone(),
        is_new: false,
        done: None,
    };
    match publish(ctx, pua, publication) {
        Ok(()) | Err(Refused::NoRecord) => {}
        Err(why) => {
            let uri = String::from_utf8_lossy(&view.own.uri);
            host::error!("pua_dialoginfo", "the state of a call of {uri} was not published: {why}");
        }
    }
}
