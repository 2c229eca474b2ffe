//! Hiding in calls that the dialog module remembers: contacts carry the identity of the dialog, which knows the rest.

use super::headers::{self, Advertised, Contact};
use super::{Hidden, Th, Users, call_id};
use crate::dialog::api::{self, Event, Told};
use crate::dialog::{CALLER, Flags, Key, LegNo, Val};
use bytes::Bytes;
use host::Ctx;
use sip::{Anchor, HeaderName};
use std::rc::Rc;
use std::sync::Arc;
use transaction::TxnId;

/// The first request of a call: 1, or -1.
pub fn begin(ctx: &mut Ctx, module: &Th, key: Key, flags: Flags, users: Users) -> i32 {
    let Some(dialog) = api::get(ctx, key) else { return -1 };
    let engaged = dialog.flags.has(Flags::HIDDEN);
    dialog.flags.set(flags.with(Flags::HIDDEN));
    if engaged {
        return 1;
    }
    let vars = [(&module.caller_var, &users.caller), (&module.callee_var, &users.callee)];
    for (name, user) in vars.into_iter().filter(|(_, user)| !user.is_empty()) {
        api::set_val(ctx, key, name.as_bytes(), Some(Val::Str(user[..].into())));
    }
    headers::delete_record_routes(ctx);
    headers::delete_all(ctx, HeaderName::Via);
    replace_contact(ctx, module, key, 1);
    mask(ctx, module, key);
    super::remember(ctx, Hidden::Dialog { key, towards: 1, first: true });
    1
}

/// Each worker follows requests inside dialogs.
pub fn listen(ctx: &mut Ctx, module: &Arc<Th>) {
    let module = module.clone();
    api::listen(
        ctx,
        Rc::new(move |ctx: &mut Ctx, told: &Told| {
            if matches!(told.event, Event::RequestWithin | Event::Terminated) {
                within(ctx, &module, told.key);
            }
        }),
    );
}

/// The current request, if it is one of this dialog, is made to fit the end it goes to.
fn within(ctx: &mut Ctx, module: &Th, key: Key) {
    let of_this = |ctx: &mut Ctx| api::current(ctx).filter(|(own, _)| *own == key);
    let is_request = ctx.state.msg.is_request() && ctx.state.kind == script::ast::RouteKind::Request;
    let Some((_, towards)) = of_this(ctx).filter(|_| is_request) else { return };
    let hidden = api::get(ctx, key).is_some_and(|d| d.flags.has(Flags::HIDDEN));
    // A BYE is told of twice.
    if !hidden || !matches!(ctx.state.ext.find::<Hidden>(), None | Some(Hidden::No)) {
        return;
    }
    headers::delete_all(ctx, HeaderName::Via);
    headers::delete_record_routes(ctx);
    api::route_to(ctx, key, towards);
    show_contact(ctx, module, key, towards);
    if towards != CALLER {
        mask(ctx, module, key);
    }
    super::remember(ctx, Hidden::Dialog { key, towards, first: false });
}

fn mask(ctx: &mut Ctx, module: &Th, key: Key) {
    let Some(dialog) = api::get(ctx, key).filter(|d| d.flags.has(Flags::MASK_CALL_ID)) else { return };
    let tag = Bytes::copy_from_slice(&dialog.caller.tag);
    call_id::mask_current(ctx, &module.masks, &tag);
}

/// The contact of a later message: what its end was shown first, where that is wanted, else one made of its own.
fn show_contact(ctx: &mut Ctx, module: &Th, key: Key, to: LegNo) {
    let kept = if to == CALLER { Flags::KEEP_TO_CALLER } else { Flags::KEEP_TO_CALLEE };
    let shown = api::get(ctx, key).filter(|d| d.flags.has(kept));
    match shown.and_then(|d| d.leg(to)?.changed.shown_contact.clone()) {
        Some(line) => headers::replace_contact_line(ctx, &line),
        None => replace_contact(ctx, module, key, to),
    }
}

/// The contact of the current message, which goes to the end `to`.
fn replace_contact(ctx: &mut Ctx, module: &Th, key: Key, to: LegNo) {
    let own = match headers::contact(ctx) {
        Contact::Absent => return,
        Contact::One(address) => Some(address),
        Contact::Other => None,
    };
    let param = api::did_param(ctx);
    let Some(dialog) = api::get(ctx, key) else { return };
    let (flags, did) = (dialog.flags, dialog.did.to_string());
    let name = if to == CALLER { &module.caller_var } else { &module.callee_var };
    let mut user = Bytes::new();
    if flags.has(Flags::KEEP_USER) {
        user = match dialog.val(name.as_bytes()) {
            Some(Val::Str(text)) => Bytes::copy_from_slice(text),
            _ => own.as_ref().map(headers::user_of).unwrap_or_default(),
        };
    }
    let mut params = Vec::new();
    if flags.has(Flags::DID_IN_USER) {
        let before: &[u8] = if user.is_empty() { b"X" } else { &user };
        user = [before, format!(".{param}.{did}").as_bytes()].concat().into();
    } else {
        params = format!(";{param}={did}").into_bytes();
    }
    let mut shown = Advertised { user: &user, params, behind: Vec::new() };
    if let Some(own) = &own {
        shown.pass(own, &module.uri_params, &module.header_params);
    }
    let value = shown.value();
    headers::replace_contact(ctx, value);
}

/// The current message is a reply that goes upstream.
pub fn reply(ctx: &mut Ctx, module: &Th, id: TxnId, key: Key, towards: LegNo, first: bool) {
    let Some(dialog) = api::get(ctx, key) else { return };
    let to = dialog.other(towards);
    let routes = dialog.caller.routes.clone();
    match (first, ctx.state.msg.status()) {
        // A redirection names others, whom the caller is to reach itself.
        (true, 300..400) => {}
        (true, _) => replace_contact(ctx, module, key, to),
        (false, _) => show_contact(ctx, module, key, to),
    }
    headers::delete_record_routes(ctx);
    headers::restore_vias(ctx, id);
    if first && !routes.is_empty() {
        ctx.state.edits.insert(Anchor::Top, [b"Record-Route: ", &routes[..], b"\r\n"].concat());
    }
}

/// The current message is a request of this server itself.
pub fn local(ctx: &mut Ctx, module: &Th) {
    let Some((key, towards)) = api::current(ctx) else { return };
    let Some(dialog) = api::get(ctx, key).filter(|d| d.flags.has(Flags::HIDDEN)) else { return };
    let shown = dialog.leg(towards).is_some_and(|leg| leg.changed.shown_contact.is_some());
    if !shown {
        replace_contact(ctx, module, key, towards);
    }
    if towards != CALLER {
        mask(ctx, module, key);
    }
}

/// `$TH_callee_callid`
pub fn callee_call_id(ctx: &mut Ctx, module: &Th) -> Option<Bytes> {
    let (key, _) = api::current(ctx)?;
    let dialog = api::get(ctx, key).filter(|d| d.flags.has(Flags::MASK_CALL_ID))?;
    Some(module.masks.mask(&dialog.call_id, &dialog.caller.tag))
}
