//! CSeq numbers: what passed, and the shift that requests of the server itself make necessary.
//!
//! When the server has sent a request of its own to one end, that end has seen a number that the other end does not
//! know of. From then on each request that passes gets the next number, and its replies get the old one back.

use super::cell::LegNo;
use super::create::number;
use super::link::{self, Link};
use super::table::{self, Key};
use bytes::Bytes;
use host::Ctx;
use sip::{HeaderName, Message, Method, Span};

/// Where the number in CSeq stands.
fn span(msg: &Message) -> Option<Span> {
    let header = msg.header(HeaderName::CSeq)?;
    let (digits, _) = msg.cseq_parts()?;
    let start = header.value().start;
    Some(Span { start, end: start + digits.len() as u32 })
}

fn write(ctx: &mut Ctx, number: u32) {
    let msg = ctx.state.msg.clone();
    if let Some(span) = span(&msg) {
        // A number that was written before goes with what it replaced.
        ctx.state.edits.forget(span);
        ctx.state.edits.replace(span, Bytes::from(number.to_string()));
    }
}

/// The current request passes to an end of its dialog: its number is kept.
pub fn note(ctx: &mut Ctx, key: Key, towards: LegNo) {
    let msg = ctx.state.msg.clone();
    let Some(number) = number(&msg) else { return };
    let refreshes = matches!(msg.method(), Method::Invite | Method::Update);
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    if let Some(leg) = dialog.leg_mut(towards) {
        leg.previous_cseq = Some(leg.cseq);
        leg.cseq = number;
    }
    if refreshes {
        let other = dialog.other(towards);
        if let Some(leg) = dialog.leg_mut(other) {
            leg.invite_cseq = number;
        }
    }
}

/// Gives the current request the number that its receiver expects.
pub fn shift(ctx: &mut Ctx, key: Key, towards: LegNo) {
    let msg = ctx.state.msg.clone();
    let Some(came) = number(&msg) else { return };
    let Some(leg) = table::of(ctx).get_mut(key).and_then(|d| d.leg_mut(towards)) else { return };
    if leg.made_cseq == 0 {
        return;
    }
    let number = leg.next_cseq();
    if msg.method() == Method::Invite {
        leg.changed.invite_shift = Some((came, number));
    }
    write(ctx, number);
    ctx.state.ext.entry::<Link>().came_with_cseq = Some(came);
    link::keep(ctx);
}

/// The current request was refused with a challenge and goes to its end once more: it gets the next number. False:
/// that end has no tag yet, or there is no dialog.
pub fn again(ctx: &mut Ctx) -> bool {
    let Some((key, towards)) = link::own(ctx).filter(|_| ctx.state.msg.to_tag().is_some()) else {
        return false;
    };
    let msg = ctx.state.msg.clone();
    let Some(came) = number(&msg) else { return false };
    let Some(leg) = table::of(ctx).get_mut(key).and_then(|d| d.leg_mut(towards)) else { return false };
    leg.made_cseq = leg.made_cseq.max(came);
    let next = leg.next_cseq();
    if msg.method() == Method::Invite {
        leg.changed.invite_shift = Some((came, next));
    }
    table::touch(ctx, key);
    write(ctx, next);
    ctx.state.ext.entry::<Link>().came_with_cseq = Some(came);
    link::keep(ctx);
    true
}

/// The same for an ACK: the number of its INVITE.
pub fn shift_ack(ctx: &mut Ctx, key: Key, towards: LegNo) {
    let msg = ctx.state.msg.clone();
    let Some(came) = number(&msg) else { return };
    let leg = table::of(ctx).get(key).and_then(|d| d.leg(towards));
    if let Some((_, number)) =
        leg.and_then(|leg| leg.changed.invite_shift).filter(|(invite, _)| *invite == came)
    {
        write(ctx, number);
    }
}

/// The current message is a reply: it gets the number that its request came with.
pub fn restore(ctx: &mut Ctx) {
    let Some(id) = ctx.state.txn else { return };
    let Some((_, link)) = link::of_txn(ctx, id) else { return };
    if let Some(came) = link.came_with_cseq {
        write(ctx, came);
    }
}
