//! PRACKs that the server sends for a caller that cannot (RFC 3262): `create_dialog("auto-prack")`.

use super::cell;
use super::follow;
use super::request::{self, Inside, Way};
use super::table::{self, Key};
use super::{Dlg, Flags};
use bytes::Bytes;
use host::Ctx;
use sip::Message;
use std::sync::Arc;
use transaction::TxnId;

/// A provisional reply to the INVITE went upstream.
pub fn provisional(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, id: TxnId, reply: &Message) {
    let request = ctx.state.msg.clone();
    let Some(dialog) = table::of(ctx).get(key).filter(|d| d.flags.has(Flags::AUTO_PRACK)) else { return };
    let number = reply.headers_named(b"RSeq").next().map(|h| reply.text(h.value()));
    let Some(number) = number.filter(|n| !n.is_empty()) else { return };
    let Some(leg) = reply.to_tag().and_then(|tag| dialog.callee_with(&tag)) else { return };
    let Some((invite, _)) = reply.cseq_parts() else { return };
    let mut way = dialog.leg(leg).cloned().unwrap_or_default();
    // The early dialog's own target and routes: the answer will settle them.
    way.contact = cell::contact_uri(reply).unwrap_or_default()[..].into();
    way.routes = follow::routes_behind_us(ctx, &request, reply);
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
