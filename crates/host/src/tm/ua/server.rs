//! Requests that this server answers itself, when its owner wants to: held, answered, acknowledged.

use super::{Ear, Heard, Ua, hear, ua};
use crate::ctx::{Ctx, MsgState};
use crate::timers::TimerKey;
use crate::tm::{Parts, drain, new_transaction, reply_with};
use bytes::Bytes;
use sip::{HeaderName, Message, Method};
use std::rc::Rc;
use transaction::TxnId;

/// Longest a reliable provisional reply is repeated: 64·T1 (RFC 3262 §3).
const REPEATS_MS: u64 = 32_000;

/// What is known of a request that is answered here.
#[derive(Default)]
pub(super) struct Serves {
    /// Number of the last reliable provisional reply; 0: none yet.
    rseq: u32,
    /// The one that waits for its PRACK.
    reliable: Option<Reliable>,
    acked: bool,
    /// Its owner looks at the CANCEL, and at everything inside the dialog.
    whole: bool,
}

struct Reliable {
    /// As it went out; empty while watchers hold it (`Moment::ReplyOut`).
    bytes: Bytes,
    timer: TimerKey,
}

/// Takes the current request out of the script's hands: it is answered here, by whoever hears of it, when they like.
/// Retransmissions are absorbed; an INVITE's CANCEL, ACK and PRACK are the owner's, no script sees them. There is no
/// limit to how long it takes: the owner sets one. `None`: it is an ACK, was answered, or there are too many.
pub fn take(ctx: &mut Ctx, ear: Ear) -> Option<TxnId> {
    take_as(ctx, ear, Serves::default())
}

/// The same for an owner that watches `Moment::RequestIn` and finds there what belongs to the request: its CANCEL is
/// not answered here, its ACK is to be told to [`ack_came`]. What such a watcher stops counts as handled.
pub fn take_whole(ctx: &mut Ctx, ear: Ear) -> Option<TxnId> {
    take_as(ctx, ear, Serves { whole: true, ..Serves::default() })
}

fn take_as(ctx: &mut Ctx, ear: Ear, serves: Serves) -> Option<TxnId> {
    if new_transaction(ctx) != 1 {
        return None;
    }
    let id = ctx.state.txn.filter(|id| ctx.core.txns.txns.is_open(*id))?;
    let data = ctx.core.txns.txns.get_mut(id)?;
    data.absorb = true;
    data.implicit = false;
    data.ua = Some(Box::new(Ua { ear: Some(ear), serves: Some(serves), ..Ua::default() }));
    Some(id)
}

/// Sends a reply to a request that was taken: 1 sent, -1 not. The tag of the first one that has one stays; a 2xx to
/// an INVITE is repeated until its ACK comes (RFC 3261 §13.3.1.4).
pub fn answer(ctx: &mut Ctx, id: TxnId, code: u16, reason: &[u8], parts: Parts) -> i32 {
    if code >= 200 {
        forget_reliable(ctx, id);
    }
    reply_with(ctx, id, code, reason, parts)
}

/// Sends a provisional reply that the caller has to acknowledge (RFC 3262): repeated until its PRACK comes. False:
/// the one before has no PRACK yet, or the request was not taken or is answered.
pub fn answer_reliably(ctx: &mut Ctx, id: TxnId, code: u16, reason: &[u8], parts: Parts) -> bool {
    let first = (ctx.core.rng.below(1 << 20) + 1) as u32;
    let open = ctx.core.txns.txns.is_open(id) && ctx.core.txns.txns.is_invite(id);
    let Some(serves) = serves(ctx, id).filter(|_| open && (101..200).contains(&code)) else { return false };
    if serves.reliable.is_some() {
        return false;
    }
    serves.rseq = if serves.rseq == 0 { first } else { serves.rseq + 1 };
    serves.reliable = Some(Reliable { bytes: Bytes::new(), timer: TimerKey::NONE });
    let lines = format!("Require: 100rel\r\nRSeq: {}\r\n", serves.rseq);
    let rseq = serves.rseq;
    let headers = [lines.as_bytes(), &parts.headers[..]].concat().into();
    if reply_with(ctx, id, code, reason, Parts { headers, ..parts }) < 0 {
        forget_reliable(ctx, id);
        return false;
    }
    let t1 = u64::from(ctx.core.txns.settings.config.t1);
    repeat_later(ctx, id, rseq, t1, 0);
    true
}

fn serves(ctx: &mut Ctx, id: TxnId) -> Option<&mut Serves> {
    ua(ctx, id)?.serves.as_mut()
}

/// Repeats the reliable reply `rseq` in `ms` milliseconds, then after twice that; `waited` is for how long it has been.
fn repeat_later(ctx: &mut Ctx, id: TxnId, rseq: u32, ms: u64, waited: u64) {
    let timer = ctx.after(ms, move |ctx| {
        let waited = waited + ms;
        let Some(serves) = serves(ctx, id).filter(|serves| serves.rseq == rseq) else { return };
        let Some(reliable) = &serves.reliable else { return };
        if waited >= REPEATS_MS {
            serves.reliable = None;
            return hear(ctx, id, Heard::Unacknowledged);
        }
        let bytes = reliable.bytes.clone();
        if !bytes.is_empty() {
            ctx.core.txns.txns.repeat(id, bytes);
            drain(ctx);
        }
        repeat_later(ctx, id, rseq, (ms * 2).min(REPEATS_MS - waited), waited);
    });
    match serves(ctx, id).and_then(|serves| serves.reliable.as_mut()) {
        Some(reliable) => reliable.timer = timer,
        None => {
            ctx.cancel(timer);
        }
    }
}

fn forget_reliable(ctx: &mut Ctx, id: TxnId) {
    if let Some(reliable) = serves(ctx, id).and_then(|serves| serves.reliable.take()) {
        ctx.cancel(reliable.timer);
    }
}

/// A provisional reply went out.
pub(in crate::tm) fn note_sent(ctx: &mut Ctx, id: TxnId, bytes: &Bytes) {
    let Some(serves) = serves(ctx, id) else { return };
    let line = format!("\r\nRSeq: {}\r\n", serves.rseq);
    let is_it = || memchr::memmem::find(bytes, line.as_bytes()).is_some();
    if let Some(reliable) = serves.reliable.as_mut().filter(|_| is_it()) {
        reliable.bytes = bytes.clone();
    }
}

/// The request was taken.
pub fn holds(ctx: &Ctx, id: TxnId) -> bool {
    serving(ctx, id).is_some()
}

/// The request was taken, and a CANCEL ends it at once.
pub(in crate::tm) fn gives_up_here(ctx: &Ctx, id: TxnId) -> bool {
    serving(ctx, id).is_some_and(|serves| !serves.whole)
}

fn serving(ctx: &Ctx, id: TxnId) -> Option<&Serves> {
    ctx.core.txns.txns.get(id)?.ua.as_ref()?.serves.as_ref()
}

/// An ACK of a request that was taken: its way ends here.
pub fn ack_came(ctx: &mut Ctx, id: TxnId, ack: &Rc<Message>) {
    let Some(serves) = serves(ctx, id) else { return };
    let first = !std::mem::replace(&mut serves.acked, true);
    if first && (200..300).contains(&ctx.core.txns.txns.status(id)) {
        hear(ctx, id, Heard::Acked(ack.clone()));
    }
}

/// A PRACK for a reply that was sent here is answered, 481 when nothing waits for it; else it is not ours.
pub(in crate::tm) fn prack_came(ctx: &mut Ctx, state: &mut Box<MsgState>) -> bool {
    if state.msg.method() != Method::Prack {
        return false;
    }
    let msg = state.msg.clone();
    let Some((rseq, invite)) = acknowledged(ctx, &msg) else { return false };
    let waits = serves(ctx, invite).is_some_and(|serves| serves.rseq == rseq && serves.reliable.is_some());
    let (code, reason): (u16, &[u8]) =
        if waits { (200, b"OK") } else { (481, b"Call/Transaction Does Not Exist") };
    std::mem::swap(&mut ctx.state, state);
    if new_transaction(ctx) == 1
        && let Some(id) = ctx.state.txn
    {
        if let Some(data) = ctx.core.txns.txns.get_mut(id) {
            data.absorb = true;
        }
        crate::tm::reply(ctx, id, code, reason);
    }
    std::mem::swap(&mut ctx.state, state);
    if waits {
        forget_reliable(ctx, invite);
        hear(ctx, invite, Heard::Pracked(msg));
    }
    true
}

/// What a PRACK is for: the number of the reply, and the INVITE when it was taken here.
fn acknowledged(ctx: &Ctx, prack: &Message) -> Option<(u32, TxnId)> {
    let rack = prack.header(HeaderName::Rack).map(|header| prack.text(header.value()))?;
    let text = std::str::from_utf8(&rack).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (rseq, cseq) = (words.next()?.parse().ok()?, words.next()?);
    let invite = ctx.core.txns.txns.find_call(&prack.call_id()?, cseq.as_bytes())?;
    holds(ctx, invite).then_some((rseq, invite))
}

/// The caller gave up before there was a final reply, and 487 goes out.
pub(in crate::tm) fn cancelled(ctx: &mut Ctx, id: TxnId) {
    if holds(ctx, id) {
        forget_reliable(ctx, id);
        hear(ctx, id, Heard::Cancelled);
    }
}

/// The transaction is over, and its 2xx got no ACK.
pub(super) fn never_acked(ctx: &mut Ctx, id: TxnId) {
    forget_reliable(ctx, id);
    let waits = |serves: &mut Serves| !serves.acked;
    let success = ctx.core.txns.txns.is_invite(id) && (200..300).contains(&ctx.core.txns.txns.status(id));
    if success && serves(ctx, id).is_some_and(waits) {
        hear(ctx, id, Heard::Unacknowledged);
    }
}
