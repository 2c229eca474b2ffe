//! Questions about the transaction of a message, and acting on others by Call-ID.

use super::Tm;
use crate::pattern::Pattern;
use host::registrar::Since;
use host::{Call, Registrar, Routes, Text};
use sip::Method;
use transaction::Relation;

pub fn register(m: &mut Registrar<Tm>) {
    let any =
        Routes::REQUEST.and(Routes::BRANCH).and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::LOCAL);
    m.function("t_check_trans", Routes::REQUEST.and(Routes::BRANCH), check_trans);
    m.function("t_check_status", any, check_status);
    m.function("t_local_replied", any, local_replied);
    m.function("t_was_cancelled", any, was_cancelled);
    m.function("t_cancel_callid", Routes::ALL, cancel_callid);
    m.function_of(
        Since::V21,
        "t_cancel_callid",
        Routes::ALL,
        |call: &mut Call<Tm>, id: Text, cseq: Text, _: Text| cancel_callid(call, id, cseq, None),
    );
}

/// t_check_trans(): CANCEL and ACK: is there a transaction; others: a retransmission ends the script.
pub fn check_trans(call: &mut Call<Tm>) -> i32 {
    let ctx = &mut *call.ctx;
    let msg = ctx.state.msg.clone();
    let found = ctx.txn_of(&msg);
    match (msg.method(), found) {
        (Method::Cancel, Some((_, Relation::Cancel | Relation::Retransmission))) => 1,
        (Method::Ack, Some((_, Relation::Ack))) => 1,
        (Method::Ack, Some((_, Relation::AckOfSuccess))) => -2,
        (Method::Ack | Method::Cancel, _) => -1,
        (_, Some((id, Relation::Retransmission))) if ctx.state.txn.is_none() => {
            ctx.txn_mut(id).retransmission();
            host::tm::drain(ctx);
            0
        }
        (_, Some(_)) => 1,
        (_, None) => -1,
    }
}

/// t_check_status(regexp)
pub fn check_status(call: &mut Call<Tm>, pattern: Pattern) -> i32 {
    let ctx = &mut *call.ctx;
    let status = super::vars::reply_code(ctx);
    let text = if status == 0 { String::new() } else { status.to_string() };
    if !text.is_empty() && pattern.0.is_match(text.as_bytes()) { 1 } else { -1 }
}

/// t_local_replied("all" | "last")
pub fn local_replied(call: &mut Call<Tm>, which: Text) -> i32 {
    let ctx = &mut *call.ctx;
    let Some(id) = ctx.state.txn else { return -1 };
    let txn = ctx.txn(id);
    let local = match &which.0[..] {
        b"all" => txn.branches().all(|b| b.received == 0),
        b"last" => match ctx.state.txn_branch {
            Some(branch) => txn.branch(branch).is_some_and(|b| b.received != b.status),
            None => txn.data().is_some_and(|d| d.local_status != 0),
        },
        _ => {
            host::error!("tm", "t_local_replied takes \"all\" or \"last\"");
            false
        }
    };
    if local { 1 } else { -1 }
}

pub fn was_cancelled(call: &mut Call<Tm>) -> i32 {
    let cancelled = call.ctx.state.txn.is_some_and(|id| call.ctx.txn(id).was_cancelled());
    if cancelled { 1 } else { -1 }
}

/// t_cancel_callid(callid, cseq, [flag])
pub fn cancel_callid(call: &mut Call<Tm>, call_id: Text, cseq: Text, _: Option<Text>) -> i32 {
    let ctx = &mut *call.ctx;
    match ctx.txn_of_call(&call_id, &cseq) {
        Some(id) => {
            host::tm::stop(ctx, id);
            1
        }
        None => -1,
    }
}
