//! The end of a call: a BYE that passed, time that is over, a command, a refusal.

use super::api::{self, Event};
use super::cell::LegNo;
use super::link::Link;
use super::routes::{self, Moment};
use super::state::Happened;
use super::table::{self, Due, Key};
use super::{CALLER, Dlg, Flags, State, request};
use bytes::Bytes;
use host::Ctx;
use host::Value;
use host::events::{self, EventParams};
use sip::Message;
use std::sync::Arc;

/// Milliseconds that an ended dialog stays at least: late requests and retransmissions still find it.
const LINGER_MS: u64 = 5_000;

/// Moves a dialog and tells who wants to know; gives the states before and after.
pub fn advance(ctx: &mut Ctx, module: &Dlg, key: Key, happened: Happened) -> (State, State) {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return (State::Ended, State::Ended) };
    let before = dialog.state;
    let after = before.next(happened, dialog.flags.has(Flags::SAID_BYE));
    dialog.state = after;
    if before == after {
        return (before, after);
    }
    count(module, before, after);
    if after == State::Ended {
        let delay = dialog.delay.unwrap_or(module.delete_delay);
        table::touch(ctx, key);
        let stays = LINGER_MS.max(u64::from(delay) * 1000);
        let at = ctx.core.now.after(stays);
        for due in [Due::End, Due::Options, Due::Reinvite] {
            table::set_due(ctx, key, due, None);
        }
        table::set_due(ctx, key, Due::Forget, Some(at));
    } else {
        table::touch(ctx, key);
        table::set_due(ctx, key, Due::Forget, None);
    }
    raise(ctx, key, before, after);
    (before, after)
}

/// Statistics follow the states.
fn count(module: &Dlg, before: State, after: State) {
    if before == State::Early {
        module.counts.early.down();
    }
    if after == State::Early {
        module.counts.early.up();
    }
    match (before.is_answered(), after.is_answered()) {
        (false, true) => module.counts.active.up(),
        (true, false) => module.counts.active.down(),
        _ => {}
    }
    if before.is_early() && after == State::Ended {
        module.counts.failed.up();
    }
    if before == State::Ended {
        module.counts.failed.down();
    }
}

fn raise(ctx: &mut Ctx, key: Key, before: State, after: State) {
    if !ctx.shared().events().wanted(super::EVENT.as_bytes()) {
        return;
    }
    let Some(dialog) = table::of(ctx).get(key) else { return };
    let text = |t: &[u8]| Value::Str(Bytes::copy_from_slice(t));
    let to_tag = dialog.callee().map_or(Value::Null, |leg| text(&leg.tag));
    let params: EventParams = [
        ("id", Value::from(dialog.did.to_string())),
        ("db_id", Value::from(dialog.did.number().to_string())),
        ("callid", text(&dialog.call_id)),
        ("from_tag", text(&dialog.caller.tag)),
        ("to_tag", to_tag),
        ("old_state", Value::Int(before as i64)),
        ("new_state", Value::Int(after as i64)),
    ]
    .into_iter()
    .map(|(name, value)| (Bytes::from_static(name.as_bytes()), value))
    .collect();
    events::raise(ctx, super::EVENT, params);
}

/// The dialog leaves all profiles.
fn leave_profiles(ctx: &mut Ctx, module: &Dlg, key: Key) {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    for membership in std::mem::take(&mut dialog.memberships) {
        module.profiles.count_out(&membership);
        super::shared::changed(ctx, module, &membership, -1);
    }
}

/// A request said BYE to the end `towards`.
pub fn hung_up(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, towards: LegNo) {
    if let Some(dialog) = table::of(ctx).get_mut(key) {
        // Only the callee that answered can be hung up on.
        if dialog.state.is_answered() && towards != CALLER && towards != dialog.callee_no() {
            return;
        }
        dialog.flags.set(Flags::SAID_BYE);
    }
    let (before, after) = advance(ctx, module, key, Happened::Bye);
    if after != State::Ended || before == State::Ended {
        return;
    }
    let reason = if towards == CALLER { "Upstream BYE" } else { "Downstream BYE" };
    finish(ctx, module, key, Event::Terminated, move |ctx| {
        if let Some(dialog) = table::of(ctx).get_mut(key) {
            dialog.because(reason);
        }
    });
}

/// What follows the end of an answered call: its hangup route, then its profiles are left. `last` follows the route.
fn finish(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, event: Event, last: impl FnOnce(&mut Ctx) + 'static) {
    let module = module.clone();
    routes::run(ctx, key, Moment::Hangup, move |ctx| {
        leave_profiles(ctx, &module, key);
        last(ctx);
    });
    api::tell(ctx, key, event, None);
}

/// The call was never answered. `reply`: what its caller hears.
pub fn failed(ctx: &mut Ctx, module: &Dlg, key: Key, reply: Option<&Message>) {
    leave_profiles(ctx, module, key);
    api::tell(ctx, key, Event::Failed, reply);
}

/// Its time is over.
pub fn expired(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key) {
    if table::of(ctx).get(key).is_none_or(|d| !d.state.is_answered()) {
        return;
    }
    let module = module.clone();
    routes::run(ctx, key, Moment::Timeout, move |ctx| {
        let Some(dialog) = table::of(ctx).get(key) else { return };
        // The route may have given it more time, or it may have ended meanwhile.
        if dialog.ends.is_some() || !dialog.state.is_answered() {
            return;
        }
        module.counts.expired.up();
        if dialog.flags.has(Flags::BYE_ON_TIMEOUT) {
            end_answered(ctx, &module, key, "Lifetime Timeout", &Bytes::new());
        } else {
            advance(ctx, &module, key, Happened::End);
            leave_profiles(ctx, &module, key);
            api::tell(ctx, key, Event::Expired, None);
        }
    });
}

/// Sends BYE both ways; the dialog ends with the first answer, or when none comes.
pub fn end_answered(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, reason: &str, headers: &Bytes) {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    if dialog.flags.has(Flags::ENDING) {
        return;
    }
    dialog.because(reason);
    dialog.flags.set(Flags::ENDING);
    let callee = dialog.callee_no();
    table::set_due(ctx, key, Due::End, None);
    let headers = Bytes::from([module.extra_headers.as_bytes(), &headers[..]].concat());
    for leg in [CALLER, callee] {
        let module = module.clone();
        let bye = request::Inside { headers: headers.clone(), ..request::Inside::new("BYE", leg) };
        let answered = module.clone();
        if !request::send(ctx, key, bye, move |ctx, _| bye_answered(ctx, &answered, key)) {
            bye_answered(ctx, &module, key);
        }
    }
}

/// A BYE of ours was answered, or is not going to be.
fn bye_answered(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key) {
    if let Some(dialog) = table::of(ctx).get_mut(key) {
        dialog.flags.set(Flags::SAID_BYE);
    }
    let (before, after) = advance(ctx, module, key, Happened::End);
    if after == State::Ended && before != State::Ended {
        finish(ctx, module, key, Event::Terminated, |_| ());
    }
}

/// Ends a dialog, whatever its state: BYE both ways, or CANCEL to the callees; false when it has ended.
pub fn end(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, reason: &str, headers: &Bytes) -> bool {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return false };
    if dialog.state.is_answered() {
        end_answered(ctx, module, key, reason, headers);
        return true;
    }
    if dialog.state == State::Ended {
        return false;
    }
    dialog.because(reason);
    let Some(txn) = dialog.txn else { return false };
    host::tm::stop(ctx, txn);
    true
}

/// Its memory is given back.
pub fn forget(ctx: &mut Ctx, module: &Dlg, key: Key) {
    api::tell(ctx, key, Event::Gone, None);
    leave_profiles(ctx, module, key);
    table::of(ctx).remove(key);
    // A message that still knows it finds nothing.
    if ctx.state.ext.find::<Link>().is_some_and(|link| link.key == Some(key)) {
        ctx.state.ext.remove::<Link>();
    }
}
