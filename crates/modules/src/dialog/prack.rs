//! PRACKs that the server sends for a caller that cannot (RFC 3262): `create_dialog("auto-prack")`.

use super::cell;
use super::follow;
use super::request::{self, Inside, Way};
use super::table::{self, Key};
use super::{Dlg, Flags, link};
use bytes::Bytes;
use host::Ctx;
use host::shared::Hooks;
use host::watch::Moment;
use sip::{Message, Method};
use std::sync::Arc;
use transaction::TxnId;

/// PRACKs of ours wait as long as `auto_prack_fr_timeout` says.
pub fn ready(module: &Arc<Dlg>, hooks: &mut Hooks) {
    let module = module.clone();
    hooks.watch.on(Moment::LocalOut, move |ctx, seen| {
        if ctx.state.msg.method() != Method::Prack {
            return;
        }
        let (Some(id), Some((key, _))) = (seen.txn, link::own(ctx)) else { return };
        if table::of(ctx).get(key).is_some_and(|d| d.flags.has(Flags::AUTO_PRACK)) {
            let ms = module.prack_timeout.saturating_mul(1000);
            ctx.txn_mut(id).set_timeouts(ms, ms);
        }
    });
}

/// A provisional reply to the INVITE went upstream.
pub fn provisional(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, id: TxnId, reply: &Message) {
    let request = ctx.state.msg.clone();
    if !table::of(ctx).get(key).is_some_and(|d| d.flags.has(Flags::AUTO_PRACK)) {
        return;
    }
    let routes = follow::routes_of_callee(ctx, key, &request, reply, None);
    let Some(dialog) = table::of(ctx).get(key) else { return };
    let number = reply.headers_named(b"RSeq").next().map(|h| reply.text(h.value()));
    let Some(number) = number.filter(|n| !n.is_empty()) else { return };
    let Some(leg) = reply.to_tag().and_then(|tag| dialog.callee_with(&tag)) else { return };
    let Some((invite, _)) = reply.cseq_parts() else { return };
    let mut way = dialog.leg(leg).cloned().unwrap_or_default();
    // The early dialog's own target and routes: the answer will settle them.
    way.contact = cell::contact_uri(reply).unwrap_or_default()[..].into();
    way.routes = routes;
    let headers = [&b"RAck: "[..], &number, b" ", &invite, b" INVITE\r\n"].concat();
    let prack = Inside {
        headers: Bytes::from(headers),
        contact: true,
        way: Some(Way::to(&way)),
        ..Inside::new("PRACK", leg)
    };
    let hangup = module.prack_hangup;
    request::send(ctx, key, prack, move |ctx, answer| {
        if hangup && answer.status >= 300 {
            host::tm::reply(ctx, id, 502, b"Bad Gateway");
        }
    });
}
