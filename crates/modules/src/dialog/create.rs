//! The beginning of a dialog.

use super::api::{self, Event};
use super::cell::{self, Data};
use super::link::{self, Link};
use super::table::{self, Key};
use super::{Did, Dlg, Flags, MatchMode};
use host::Ctx;
use sip::{HeaderName, Message, Method};

/// `create_dialog`: 1 there is one now, -1 the message cannot begin one or there is no room.
pub fn create(ctx: &mut Ctx, module: &Dlg, flags: Flags) -> i32 {
    let msg = ctx.state.msg.clone();
    if !msg.is_request() || msg.method() != Method::Invite || msg.to_tag().is_some_and(|t| !t.is_empty()) {
        return -1;
    }
    if let Some((key, _)) = link::own(ctx) {
        return again(ctx, module, key, flags);
    }
    let Some(mut dialog) = of_request(ctx, module, &msg) else { return -1 };
    let pending = ctx.state.ext.find::<Link>().cloned().unwrap_or_default();
    dialog.flags = flags.settled();
    dialog.lifetime = pending.timeout.unwrap_or(module.default_timeout);
    if dialog.flags.options() {
        dialog.options.interval = pending.options.unwrap_or(module.options_interval);
    }
    if dialog.flags.reinvites() {
        dialog.reinvites.interval = pending.reinvites.unwrap_or(module.reinvite_interval);
    }
    dialog.txn = ctx.state.txn;
    let did = dialog.did;
    module.counts.processed.up();
    let Some(key) = table::of(ctx).insert(dialog) else {
        host::warn!("dialog", "no room for a dialog: there are {} on this worker", table::MAX_DIALOGS);
        module.counts.failed.up();
        return -1;
    };
    link::set(ctx, key, 1);
    if module.mode != MatchMode::DidNone {
        crate::rr::add_param(ctx, format!(";{}={did}", module.rr_param).as_bytes());
    }
    api::tell(ctx, key, Event::Created, None);
    1
}

/// A second `create_dialog`: what it asks for replaces what the first did.
fn again(ctx: &mut Ctx, module: &Dlg, key: Key, flags: Flags) -> i32 {
    if flags != Flags::default()
        && let Some(dialog) = table::of(ctx).get_mut(key)
    {
        dialog.flags = dialog.flags.without(Flags::ASKED).with(flags).settled();
        if dialog.flags.options() && dialog.options.interval == 0 {
            dialog.options.interval = module.options_interval;
        }
        if dialog.flags.reinvites() && dialog.reinvites.interval == 0 {
            dialog.reinvites.interval = module.reinvite_interval;
        }
    }
    1
}

/// The dialog that an INVITE begins; `None`: it lacks what names one.
fn of_request(ctx: &mut Ctx, module: &Dlg, msg: &Message) -> Option<Data> {
    let (from, to) = (msg.from()?, msg.to()?);
    let (call_id, tag) = (msg.call_id()?, msg.from_tag()?);
    if call_id.is_empty() || tag.is_empty() {
        return None;
    }
    let mut id = 0;
    while id == 0 {
        id = ctx.core.rng.next_u64() as u32;
        let did = Did::new(&call_id, module.entries, id);
        if table::of(ctx).by_did(did).is_some() {
            id = 0;
        }
    }
    let mut dialog = Data::new(Did::new(&call_id, module.entries, id), &call_id, &from, &to, &tag);
    let caller = &mut dialog.caller;
    caller.contact = cell::current_contact(&ctx.state).unwrap_or_default()[..].into();
    caller.routes = cell::route_set(msg, false, 0);
    caller.socket = ctx.state.source.socket;
    caller.invite_cseq = number(msg).unwrap_or(0);
    caller.body_in = body(msg);
    Some(dialog)
}

/// The number in CSeq.
pub fn number(msg: &Message) -> Option<u32> {
    let (number, _) = msg.cseq_parts()?;
    std::str::from_utf8(&number).ok()?.parse().ok()
}

/// The body when it is a session description.
pub fn body(msg: &Message) -> Option<cell::Text> {
    let body = msg.bytes(msg.body());
    let kind = msg.value(HeaderName::ContentType)?;
    let sdp = memchr::memmem::find(&kind.to_ascii_lowercase(), b"sdp").is_some();
    if body.is_empty() || !sdp { None } else { Some(body.into()) }
}
