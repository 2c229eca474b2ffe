//! Replies made here to the request of a transaction.

use super::{TxnData, TxnEvent, drain, request, tell};
use crate::ctx::{Ctx, MsgState};
use crate::reply::Maker;
use bytes::Bytes;
use script::{RouteId, Task};
use sip::Method;
use transaction::{Origin, Replied, TxnId};

/// The 100 for an INVITE; `None` when none is due.
pub(super) fn trying_bytes(ctx: &Ctx, state: &MsgState, id: TxnId) -> Option<Bytes> {
    if !ctx.core.txns.settings.auto_100
        || state.msg.method() != Method::Invite
        || ctx.core.txns.txns.status(id) != 0
    {
        return None;
    }
    let reason: &[u8] = match ctx.core.shared.dialect {
        script::ast::Dialect::V21 => b"Giving a try",
        script::ast::Dialect::V4 => b"Giving it a try",
    };
    Some(crate::reply::build(ctx, state, 100, reason, None))
}

/// 100 to an INVITE that has had no reply yet.
pub(crate) fn trying(ctx: &mut Ctx, bytes: Option<Bytes>, id: TxnId) {
    if let Some(bytes) = bytes {
        let now = ctx.core.now;
        ctx.core.txns.txns.reply(now, id, 100, bytes, Origin::Here);
        drain(ctx);
    }
}

/// The same for the current message.
pub fn trying_current(ctx: &mut Ctx, id: TxnId) {
    let bytes = trying_bytes(ctx, &ctx.state, id);
    trying(ctx, bytes, id);
}

/// The tag of To in replies made here to the request of a transaction.
pub fn to_tag(ctx: &Ctx, id: TxnId) -> Bytes {
    match ctx.core.txns.txns.get(id) {
        Some(data) if data.to_tag.is_empty() => crate::reply::to_tag(ctx, &data.msg, Maker::Transaction),
        Some(data) => data.to_tag.clone(),
        None => Bytes::new(),
    }
}

/// A reply made here to the request of a transaction, with the headers and body that the current
/// script gave it. 1 sent, -1 not.
pub fn reply(ctx: &mut Ctx, id: TxnId, code: u16, reason: &[u8]) -> i32 {
    reply_with(ctx, id, code, reason, Parts::default())
}

/// What a reply has that no script gave it.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Empty: the transaction's own.
    pub to_tag: Bytes,
    /// Whole lines.
    pub headers: Bytes,
    pub body: Bytes,
}

/// `reply` with further headers, a body, a tag.
pub fn reply_with(ctx: &mut Ctx, id: TxnId, code: u16, reason: &[u8], parts: Parts) -> i32 {
    if !(100..700).contains(&code) {
        return -1;
    }
    if !parts.to_tag.is_empty()
        && let Some(data) = ctx.core.txns.txns.get_mut(id)
    {
        data.to_tag = parts.to_tag.clone();
    }
    let tag = to_tag(ctx, id);
    let tag = (code != 100).then_some(&tag[..]);
    let here = ctx.state.txn == Some(id) && ctx.state.msg.is_request();
    let bytes = {
        let Some(data) = ctx.core.txns.txns.get(id) else { return -1 };
        let bare;
        let state = match (&data.saved, here) {
            (_, true) => &ctx.state,
            (Some(saved), false) => saved,
            (None, false) => {
                bare = bare_state(ctx, data);
                &bare
            }
        };
        crate::reply::build_with(ctx, state, code, reason, tag, &parts)
    };
    send_reply(ctx, id, code, bytes, Origin::Here)
}

/// Hands a final or provisional reply to the transaction.
pub(crate) fn send_reply(ctx: &mut Ctx, id: TxnId, code: u16, bytes: Bytes, origin: Origin) -> i32 {
    let now = ctx.core.now;
    let shown = bytes.clone();
    if let (Origin::Here, Some(data)) = (origin, ctx.core.txns.txns.get_mut(id))
        && code >= 200
    {
        data.local_status = code;
    }
    if let (false, Some(data)) = (ctx.core.shared.hooks.txn.is_empty(), ctx.core.txns.txns.get_mut(id)) {
        data.reply_out = bytes.clone();
    }
    if ctx.core.shared.stream_rules.no_new_for_replies != 0 {
        keep_to_connection(ctx, id);
    }
    let sent = ctx.core.txns.txns.reply(now, id, code, bytes, origin);
    if sent == Replied::Sent {
        tell(ctx, id, TxnEvent::ReplyOut { status: code });
    }
    drain(ctx);
    if let (Some(route), Origin::Here, Replied::Sent) = (ctx.core.txns.settings.reply_route, origin, sent) {
        request::show(ctx, route, shown);
    }
    if sent == Replied::Sent { 1 } else { -1 }
}

/// `tcp_no_new_conn_rplflag`, which the script may have set after the transaction was made.
fn keep_to_connection(ctx: &mut Ctx, id: TxnId) {
    let saved = ctx.core.txns.txns.get(id).and_then(|data| data.saved.as_ref()).map_or(0, |s| s.flags);
    let current = if ctx.state.txn == Some(id) { ctx.state.flags } else { 0 };
    if (saved | current) & ctx.core.shared.stream_rules.no_new_for_replies != 0 {
        ctx.core.txns.txns.keep_to_connection(id);
    }
}

/// The request of a transaction that never went downstream, as a state to build replies from.
pub(super) fn bare_state(ctx: &Ctx, data: &TxnData) -> Box<MsgState> {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let kind = script::ast::RouteKind::Request;
    let mut state = MsgState::new(data.msg.clone(), data.source, ctx.core.now, kind, task);
    state.avps = data.avps.clone();
    state
}
