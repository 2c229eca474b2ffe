//! Replies as the previous hop expects them, and later requests of the dialog as the next hop does.

use super::replace::{Side, restore};
use super::{CSEQ_PARAM, Done, Restore, Uac};
use bytes::Bytes;
use host::Ctx;
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::{Moment, Seen, Told};
use sip::{NameAddr, Span};
use std::sync::Arc;

/// Notes a change of the current request, also where its replies find it.
pub fn remember(ctx: &mut Ctx, change: impl Fn(&mut Done)) {
    change(ctx.state.ext.entry::<Done>());
    if let Some(ext) = ctx.state.txn.and_then(|id| ctx.ext_of(id)) {
        change(ext.entry::<Done>());
    }
}

pub fn ready(module: &Arc<Uac>, hooks: &mut Hooks, _: &Stats) {
    hooks.watch.told(Told::Created, |ctx, seen| {
        let done = ctx.state.ext.find::<Done>().copied();
        if let (Some(done), Some(ext)) = (done, seen.txn.and_then(|id| ctx.ext_of(id))) {
            ext.set(done);
        }
    });
    hooks.watch.on(Moment::ReplyIn, undo);
    let module = module.clone();
    hooks.watch.on(Moment::Routed, move |ctx, _| routed(ctx, &module));
}

/// A later request of a dialog came by our Route.
fn routed(ctx: &mut Ctx, module: &Uac) {
    if module.restore == Restore::Auto {
        for side in [Side::From, Side::To] {
            match restore(ctx, module, side) {
                Some(Side::From) => remember(ctx, |done| done.from = true),
                Some(Side::To) => remember(ctx, |done| done.to = true),
                None => {}
            }
        }
    }
    let params = crate::rr::route_params(ctx).map(|text| sip::Params { text });
    let more = params.and_then(|p| p.value(CSEQ_PARAM.as_bytes()));
    let more = more.and_then(|v| std::str::from_utf8(&v).ok()?.parse::<u32>().ok()).filter(|n| *n < 100);
    if let Some(more) = more
        && crate::rr::is_downstream(ctx)
    {
        super::auth::add_to_cseq(ctx, more);
    }
}

/// The current message is a reply from downstream: From, To and CSeq become those of the request as it came.
fn undo(ctx: &mut Ctx, seen: &Seen) {
    let Some(id) = seen.txn else { return };
    let done = ctx.ext_of(id).and_then(|ext| ext.find::<Done>()).copied().unwrap_or_default();
    if !done.from && !done.to && done.cseq == 0 {
        return;
    }
    let Some(request) = ctx.txn(id).data().map(|data| data.msg.clone()) else { return };
    for (side, changed) in [(Side::From, done.from), (Side::To, done.to)] {
        if !changed {
            continue;
        }
        let original = match side {
            Side::From => request.from(),
            Side::To => request.to(),
        };
        if let (Some(original), Some(reply)) = (original, side.address(ctx)) {
            let text: Bytes = request.text(head(&original));
            ctx.state.edits.replace(head(&reply), text);
        }
    }
    if done.cseq > 0
        && let (Some((number, _)), Some(value)) =
            (request.cseq_parts(), ctx.state.msg.header(sip::HeaderName::CSeq))
        && let Some((sent, _)) = ctx.state.msg.cseq_parts()
    {
        let span = Span { start: value.value().start, end: value.value().start + sent.len() as u32 };
        ctx.state.edits.replace(span, number);
    }
}

/// Display name and URI, without the parameters of the header.
fn head(address: &NameAddr) -> Span {
    let end = address.uri_span.end + u32::from(address.bracketed);
    Span { start: address.whole.start, end }
}
