//! `rtpproxy_engage`: all descriptions of a dialog, without another word in the script.

use super::Rtpproxy;
use super::ask::Asking;
use super::commands::delete;
use super::describe::Kind;
use super::functions::{Out, Said, ask, ask_for, limit, task};
use crate::bodies;
use bytes::Bytes;
use host::shared::Hooks;
use host::watch::Moment;
use host::{Call, Ctx, Finish, Int, OutVar, Outcome, Text};
use modules::dialog::api::{self as dialog, Event};
use modules::dialog::{Key, Val};
use sip::Method;
use std::rc::Rc;
use std::sync::Arc;

/// Values of the dialog: flags, address, set, and that the ACK will bring the offer's answer.
const FLAGS: &[u8] = b"rtpproxy_1";
const ADDRESS: &[u8] = b"rtpproxy_2";
const SET: &[u8] = b"rtpproxy_3";
const LATE: &[u8] = b"late_negotiation";

/// rtpproxy_engage([flags], [address], [set], [engine], [place])
pub fn engage(
    call: &mut Call<Rtpproxy>,
    flags: Option<Text>,
    ip: Option<Text>,
    set: Option<Int>,
    sock: Option<OutVar>,
    place: Option<OutVar>,
) -> Outcome {
    let ctx = &mut *call.ctx;
    let msg = ctx.state.msg.clone();
    let is_first = msg.to_tag().is_none_or(|tag| tag.is_empty());
    if !msg.is_request() || msg.method() != Method::Invite || !is_first {
        host::error!("rtpproxy", "rtpproxy_engage: only an INVITE that begins a call");
        return (-1).into();
    }
    let Some(key) = dialog::create(ctx, modules::dialog::Flags::default()) else {
        host::error!("rtpproxy", "rtpproxy_engage: there is no dialog");
        return (-1).into();
    };
    let number = set.as_ref().map_or(call.module.default_set, |n| n.0);
    let said =
        Said { flags: flags.map(|text| text.0).unwrap_or_default(), ip: ip.map(|text| text.0), bind: None };
    let text = |text: &Bytes| Some(Val::Str(text[..].into()));
    dialog::set_val(ctx, key, FLAGS, text(&said.flags));
    dialog::set_val(ctx, key, ADDRESS, said.ip.as_ref().and_then(text));
    dialog::set_val(ctx, key, SET, Some(Val::Int(number)));
    if !bodies::has_sdp(&ctx.state) {
        dialog::set_val(ctx, key, LATE, Some(Val::Int(1)));
        return 1.into();
    }
    ask(call, "rtpproxy_engage", Kind::Offer, said, Some(number), Out { sock, place, ..Out::default() })
}

/// The dialog of the current message, when it is engaged: its set and what a script said.
fn engaged(ctx: &mut Ctx) -> Option<(Key, i64, Said)> {
    let (key, _) = dialog::current(ctx)?;
    let (number, said) = of_dialog(ctx, key)?;
    Some((key, number, said))
}

fn of_dialog(ctx: &mut Ctx, key: Key) -> Option<(i64, Said)> {
    let Val::Int(number) = dialog::val(ctx, key, SET)? else { return None };
    let mut text = |name| match dialog::val(ctx, key, name) {
        Some(Val::Str(text)) => Some(Bytes::from(text.into_vec())),
        _ => None,
    };
    let said = Said { flags: text(FLAGS).unwrap_or_default(), ip: text(ADDRESS), bind: None };
    Some((number, said))
}

pub fn hooks(module: &Arc<Rtpproxy>, hooks: &mut Hooks) {
    for moment in [Moment::RequestOut, Moment::ForwardOut, Moment::ReplyOut] {
        let module = module.clone();
        hooks.watch.on(moment, move |ctx, _| leaving(&module, ctx)).before("dialog");
    }
}

/// A message of an engaged dialog leaves.
fn leaving(module: &Arc<Rtpproxy>, ctx: &mut Ctx) -> Outcome {
    let msg = ctx.state.msg.clone();
    let method = msg.cseq().map_or(msg.method(), |cseq| cseq.method);
    let carries = matches!(method, Method::Invite | Method::Update | Method::Ack | Method::Prack);
    let is_request = msg.is_request();
    if !carries || is_request && msg.to_tag().is_none_or(|tag| tag.is_empty()) {
        return 1.into();
    }
    let Some((key, number, said)) = engaged(ctx) else { return 1.into() };
    let has_sdp = bodies::has_sdp(&ctx.state);
    let late = dialog::val(ctx, key, LATE).is_some();
    match (method, has_sdp) {
        (Method::Ack, false) => return 1.into(),
        (Method::Ack, true) if !late => return 1.into(),
        (Method::Ack, true) => dialog::set_val(ctx, key, LATE, None),
        (Method::Invite | Method::Update, false) if is_request => {
            dialog::set_val(ctx, key, LATE, Some(Val::Int(1)));
            return 1.into();
        }
        (_, false) => return 1.into(),
        (_, true) => {}
    }
    let kind = if late { Kind::Offer } else { Kind::Answer };
    let Some(sdp) = bodies::sdp(&ctx.state) else { return 1.into() };
    let Some(task) = task(ctx, module, kind, said, sdp) else { return 1.into() };
    // Without an engine the message goes on as it is.
    ask_for(ctx, module, "rtpproxy_engage", task, Some(number), Out { otherwise: 1, ..Out::default() })
}

/// Sessions end with their dialogs.
pub fn start(call: &mut Call<Rtpproxy>) {
    if dialog::module(call.ctx).is_none() {
        return;
    }
    let module = call.module.clone();
    dialog::listen(
        call.ctx,
        Rc::new(move |ctx, told| {
            if matches!(told.event, Event::Terminated | Event::Failed | Event::Expired) {
                over(&module, ctx, told.key);
            }
        }),
    );
}

fn over(module: &Arc<Rtpproxy>, ctx: &mut Ctx, key: Key) {
    let Some((number, _)) = of_dialog(ctx, key) else { return };
    let Some(dialog) = dialog::get(ctx, key) else { return };
    let call_id = Bytes::copy_from_slice(&dialog.call_id);
    let callee = dialog.callee().map(|leg| leg.tag.to_vec()).unwrap_or_default();
    let command = delete(&call_id, &dialog.caller.tag, &callee);
    let Some(set) = module.sets.get().get(number).cloned() else { return };
    let asking = Asking::new(ctx, module);
    ctx.spawn("rtpproxy_unforce", limit(module), async move {
        match asking.choose(&set, &call_id, &[]).await {
            Some(node) => {
                asking.send(&node, &command).await;
            }
            None => host::error!("rtpproxy", "no engine to end a session at"),
        }
        Box::new(|_: &mut Ctx| 1) as Finish
    });
}
