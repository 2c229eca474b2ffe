//! The end of the server: nobody is left without an answer.

use super::{Activity, Answer, Replies, drain, ua};
use crate::ctx::{Ctx, MsgState};
use bytes::Bytes;
use transaction::TxnId;

const CODE: u16 = 503;
const REASON: &str = "Service Unavailable";

/// What is open now ends: callers hear 503, what rings is cancelled, whoever asked for a request is told.
pub fn end_all(ctx: &mut Ctx) {
    let txns = &ctx.core.txns.txns;
    let open: Vec<TxnId> = txns.iter().map(|(id, _)| id).filter(|id| txns.is_open(*id)).collect();
    for id in open {
        // A probe that nobody waits for says nothing of whom it asked.
        if let Some(data) = ctx.core.txns.txns.get_mut(id)
            && data.is_aside()
            && let Some(ua) = &mut data.ua
        {
            ua.forget();
        }
        let _ = ctx.guarded(id, |ctx| end_with(ctx, id, CODE, REASON));
    }
}

/// The server has no room for a request whose script is running: 503, and the script ends.
pub(crate) fn refuse(ctx: &mut Ctx, mut state: Box<MsgState>) {
    match state.txn {
        Some(id) => end_with(ctx, id, CODE, REASON),
        None => {
            state.reply_headers.push(Bytes::from_static(b"Retry-After: 10\r\n"));
            ctx.with_state(state, |ctx| crate::reply::send_stateless(ctx, CODE, REASON.as_bytes()));
        }
    }
}

/// Ends one transaction with a final reply made here: what waits for it is dropped, branches are cancelled, no route
/// runs any more.
pub(super) fn end_with(ctx: &mut Ctx, id: TxnId, code: u16, reason: &'static str) {
    let Some(data) = ctx.core.txns.txns.get_mut(id) else { return };
    data.queue.clear();
    data.leaving = None;
    (data.on_reply, data.on_failure) = (None, None);
    (data.activity, data.replies) = (Activity::Idle, Replies::Free);
    ctx.drop_tasks_of(id);
    if !ctx.core.txns.txns.is_open(id) {
        return drain(ctx);
    }
    ua::refused(ctx, id, |_| Answer {
        status: code,
        reason: Bytes::from_static(reason.as_bytes()),
        reply: None,
        path: None,
    });
    super::reply(ctx, id, code, reason.as_bytes());
}
