//! What entities answer.

use super::entity::{Kind, State};
use super::send::lines;
use super::table;
use super::{B2be, sql};
use bytes::Bytes;
use host::Ctx;
use host::tm::Parts;
use host::tm::ua;
use sip::Method;
use std::sync::Arc;
use transaction::TxnId;

/// A reply of an entity.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Of the request that is answered.
    pub method: Bytes,
    pub code: u16,
    pub reason: Bytes,
    pub headers: Bytes,
    pub body: Option<Bytes>,
    /// In place of the entity's.
    pub contact: Option<Bytes>,
    pub contact_params: Bytes,
    /// The number of a leg that the tag of a first reply carries.
    pub leg: Option<u32>,
}

impl Reply {
    pub fn new(method: &str, code: u16, reason: &str) -> Reply {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Reply { method: text(method), code, reason: text(reason), ..Reply::default() }
    }
}

/// A reply without anything of the dialog but its tag.
pub fn send_plain(ctx: &mut Ctx, txn: TxnId, code: u16, reason: &[u8], tag: &Bytes) -> i32 {
    ua::answer(ctx, txn, code, reason, Parts { to_tag: tag.clone(), ..Parts::default() })
}

/// Answers what an entity has to answer. False: there is no such request.
pub fn reply(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, reply: Reply) -> bool {
    let method = Method::parse(&reply.method);
    let Some(entity) = table::of(ctx).get_mut(key) else { return false };
    let txn = match method {
        Method::Prack => entity.pracks.first().map(|(_, txn)| *txn),
        Method::Update => entity.update,
        _ => entity.uas,
    };
    let Some(txn) = txn else { return entity.last_reply == reply.code };
    if !matches!(method, Method::Prack | Method::Update) && method_of(ctx, txn) != Some(method) {
        return false;
    }
    let Some(entity) = table::of(ctx).get_mut(key) else { return false };
    let is_invite = method == Method::Invite;
    if is_invite && matches!(entity.state, State::Confirmed | State::Established) {
        return true;
    }
    if reply.code >= 200 {
        match method {
            Method::Invite if reply.code < 300 => entity.state = State::Confirmed,
            Method::Invite => {
                // Its ACK is the transaction's.
                entity.uas = None;
                match entity.state {
                    State::Modified => entity.state = State::Established,
                    _ if entity.uac.is_none() => entity.state = State::Terminated,
                    _ => {}
                }
            }
            Method::Update => entity.update = None,
            Method::Prack => entity.pracks.retain(|(_, id)| *id != txn),
            _ => entity.uas = None,
        }
    }
    if method == Method::Bye {
        entity.state = State::Terminated;
    }
    entity.last_reply = reply.code;
    let contact = reply.contact.clone().unwrap_or_else(|| entity.own_contact().clone());
    let mut tag = entity.key.clone();
    if let Some(leg) = reply.leg.filter(|_| entity.state < State::Established) {
        tag = format!("{}.{leg}", String::from_utf8_lossy(&tag)).into();
    }
    let headers = lines(&reply.headers, &contact, &reply.contact_params, b"", false);
    let parts = Parts { to_tag: tag.clone(), headers, body: reply.body.clone().unwrap_or_default() };
    if entity.kind == Kind::Server && entity.tags[1] != tag {
        entity.tags[1] = tag;
    }
    let sent = ua::answer(ctx, txn, reply.code, &reply.reason, parts) > 0;
    sql::changed(ctx, module, key);
    sent
}

fn method_of(ctx: &Ctx, txn: TxnId) -> Option<Method> {
    ctx.txn(txn).data().map(|data| data.msg.method())
}
