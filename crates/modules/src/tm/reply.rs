//! Replies of transactions: `t_newtran`, `t_reply` and its like.

use super::Tm;
use bytes::Bytes;
use host::{Call, Ctx, Head, Registrar, ReplyCode, Routes, Text};
use script::ast::Dialect;

pub fn register(m: &mut Registrar<Tm>) {
    let routes = Routes::REQUEST.and(Routes::FAILURE);
    m.function("t_newtran", Routes::REQUEST, |call: &mut Call<Tm>| script_newtran(call.ctx));
    m.function("t_reply", routes, t_reply);
    m.function("t_reply_with_body", routes, t_reply_with_body);
    m.function("t_reply_by_callid", Routes::ALL, by_callid);
}

/// What `t_newtran` says of a request that has its transaction already.
const ALREADY: i32 = -10;

/// t_newtran(), as scripts call it: an ACK whose way ends here ends the script too.
fn script_newtran(ctx: &mut Ctx) -> i32 {
    if ctx.state.txn.is_some_and(|id| !host::tm::is_implicit(ctx, id)) {
        return ALREADY;
    }
    let msg = ctx.state.msg.clone();
    if msg.method() == sip::Method::Ack && matches!(ctx.txn_of(&msg), Some((_, transaction::Relation::Ack))) {
        return 0;
    }
    newtran(ctx)
}

/// t_newtran(): also answers 100 to an INVITE. 1 made, 0 ends the script (a retransmission), -1 not.
fn newtran(ctx: &mut Ctx) -> i32 {
    let made = host::tm::new_transaction(ctx);
    if let (1, Some(txn)) = (made, ctx.state.txn) {
        host::tm::asked_for(ctx, txn);
        host::tm::trying_current(ctx, txn);
    }
    made
}

/// t_reply(code, reason): makes the transaction when there is none.
fn t_reply(call: &mut Call<Tm>, code: ReplyCode, reason: Head) -> i32 {
    if call.ctx.state.msg.method() == sip::Method::Ack {
        return 0;
    }
    let made = newtran(call.ctx);
    match call.ctx.state.txn {
        Some(txn) if made == 1 => host::tm::reply(call.ctx, txn, code.0, &reason),
        _ => made.min(0),
    }
}

/// t_reply_with_body(code, reason, body): the type of the body comes from `append_to_reply`.
fn t_reply_with_body(call: &mut Call<Tm>, code: ReplyCode, reason: Head, body: Text) -> i32 {
    // 2.1 knows only headers that are older than the transaction.
    let forgets = call.ctx.state.txn.is_some() && call.ctx.core.shared.dialect == Dialect::V21;
    // The 100 has no body.
    let made = newtran(call.ctx);
    if made != 1 {
        return made;
    }
    let headers = if forgets { std::mem::take(&mut call.ctx.state.reply_headers) } else { Vec::new() };
    let before = call.ctx.state.reply_body.replace(Box::new((Bytes::new(), body.0)));
    let rc = t_reply(call, code, reason);
    call.ctx.state.reply_body = before;
    if forgets {
        call.ctx.state.reply_headers = headers;
    }
    rc
}

/// t_reply_by_callid(code, reason, [callid], [cseq])
fn by_callid(
    call: &mut Call<Tm>,
    code: ReplyCode,
    reason: Head,
    call_id: Option<Text>,
    cseq: Option<Text>,
) -> i32 {
    let ctx = &mut *call.ctx;
    let call_id = call_id.map(|c| c.0).or_else(|| ctx.state.msg.call_id()).unwrap_or_default();
    let cseq = cseq.map(|c| c.0).or_else(|| Some(ctx.state.msg.cseq_parts()?.0)).unwrap_or_default();
    match ctx.txn_of_call(&call_id, &cseq) {
        Some(id) => host::tm::reply(ctx, id, code.0, &reason),
        None => -1,
    }
}
