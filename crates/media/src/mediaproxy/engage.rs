//! `engage_media_proxy`: all descriptions of a dialog, without another word in the script.

use super::functions::{Ice, limit, relay};
use super::{Mediaproxy, command};
use crate::bodies;
use host::shared::Hooks;
use host::watch::Moment;
use host::{Call, Ctx, Finish, Outcome};
use modules::dialog::api::{self as dialog, Event};
use modules::dialog::{Key, Val};
use sip::Method;
use std::rc::Rc;
use std::sync::Arc;

/// Value of the dialog: the priority of the relay's candidates, -1: none.
const ICE: &[u8] = b"mediaproxy_ice";
/// The next answer belongs to the end of an ICE negotiation and stays as it is.
const SKIP: &[u8] = b"mediaproxy_skip";

pub fn engage(call: &mut Call<Mediaproxy>) -> Outcome {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    if module.disabled {
        return (-1).into();
    }
    if dialog::module(ctx).is_none() {
        host::error!("mediaproxy", "engage_media_proxy: load the modules tm and dialog");
        return (-1).into();
    }
    let msg = &ctx.state.msg;
    let begins =
        msg.is_request() && msg.method() == Method::Invite && msg.to_tag().is_none_or(|tag| tag.is_empty());
    if !begins {
        host::error!("mediaproxy", "engage_media_proxy: only an INVITE that begins a call");
        return (-1).into();
    }
    let Some(key) = dialog::create(ctx, modules::dialog::Flags::default()) else {
        host::error!("mediaproxy", "engage_media_proxy: there is no dialog");
        return (-1).into();
    };
    let ice = Ice::of(ctx, &module);
    let kept = if let Ice::Priority(n) = ice { i64::from(n) } else { -1 };
    dialog::set_val(ctx, key, ICE, Some(Val::Int(kept)));
    if !bodies::has_sdp(&ctx.state) {
        return 1.into();
    }
    let id = dialog_id(ctx, key);
    relay(ctx, &module, "engage_media_proxy", &id, ice, Some(1))
}

/// As the dispatcher knows a dialog: one number.
fn dialog_id(ctx: &mut Ctx, key: Key) -> String {
    dialog::get(ctx, key).map_or_else(String::new, |dialog| (dialog.did.number() as u64).to_string())
}

fn ice_of(ctx: &mut Ctx, key: Key) -> Option<Ice> {
    let Val::Int(kept) = dialog::val(ctx, key, ICE)? else { return None };
    Some(u32::try_from(kept).map_or(Ice::None, Ice::Priority))
}

pub fn hooks(module: &Arc<Mediaproxy>, hooks: &mut Hooks) {
    for moment in [Moment::RequestOut, Moment::ForwardOut, Moment::ReplyOut] {
        let module = module.clone();
        hooks.watch.on(moment, move |ctx, _| leaving(&module, ctx)).before("dialog");
    }
}

/// A message of an engaged dialog leaves.
fn leaving(module: &Arc<Mediaproxy>, ctx: &mut Ctx) -> Outcome {
    let msg = &ctx.state.msg;
    let concerned = match msg.is_request() {
        true => msg.to_tag().is_some_and(|tag| !tag.is_empty()),
        false => (101..300).contains(&msg.status()),
    };
    let is_request = msg.is_request();
    let answers_call = !is_request && msg.cseq().is_some_and(|cseq| cseq.method == Method::Invite);
    let sdp = bodies::sdp(&ctx.state);
    if !concerned || sdp.is_none() && !answers_call {
        return 1.into();
    }
    let Some((key, _)) = dialog::current(ctx) else { return 1.into() };
    let Some(ice) = ice_of(ctx, key) else { return 1.into() };
    if is_request && sdp.as_deref().is_some_and(super::streams::ends_ice) {
        dialog::set_val(ctx, key, SKIP, Some(Val::Int(1)));
        return 1.into();
    }
    if !is_request && dialog::val(ctx, key, SKIP).is_some() {
        dialog::set_val(ctx, key, SKIP, None);
        return 1.into();
    }
    let id = dialog_id(ctx, key);
    relay(ctx, module, "engage_media_proxy", &id, ice, Some(1))
}

/// Sessions end with their dialogs.
pub fn start(call: &mut Call<Mediaproxy>) {
    if dialog::module(call.ctx).is_none() {
        return;
    }
    let module = call.module.clone();
    dialog::listen(
        call.ctx,
        Rc::new(move |ctx, told| {
            if matches!(told.event, Event::Terminated | Event::Failed | Event::Expired) {
                let refused = told.reply.and_then(sip::Message::to_tag);
                over(&module, ctx, told.key, refused);
            }
        }),
    );
}

/// `refused`: the tag of who refused the call.
fn over(module: &Arc<Mediaproxy>, ctx: &mut Ctx, key: Key, refused: Option<bytes::Bytes>) {
    if ice_of(ctx, key).is_none() {
        return;
    }
    let Some(dialog) = dialog::get(ctx, key) else { return };
    let answered = dialog.callee().map(|leg| bytes::Bytes::copy_from_slice(&leg.tag));
    let callee = answered.or(refused).unwrap_or_default();
    let question = command::remove(&dialog.call_id, &dialog.caller.tag, &callee);
    let module = module.clone();
    ctx.spawn("end_media_session", limit(&module), async move {
        module.dispatcher.ask(&question).await;
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}
