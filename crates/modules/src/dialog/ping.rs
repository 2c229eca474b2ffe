//! Pings: OPTIONS or re-INVITEs that show whether an end is still there.
//!
//! ```text
//!  Idle ──interval──▶ request sent, Waits ──answer──▶ Idle
//!                          │ 408, 481, silence
//!                          ▼
//!                        Gone ──interval──▶ the call is ended
//! ```

use super::cell::{LegNo, Text};
use super::request::{self, Inside};
use super::table::{self, Due, Key};
use super::{CALLER, Dlg, Flags, end};
use bytes::Bytes;
use host::Ctx;
use std::sync::Arc;

/// What is known of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Answering {
    #[default]
    Idle,
    Waits,
    Gone,
}

/// What an end is asked with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Options,
    Reinvite,
}

impl Kind {
    /// Flag of the caller's side and of the callee's, and what is said when one is gone.
    fn sides(self) -> [(Flags, &'static str); 2] {
        match self {
            Kind::Options => [
                (Flags::OPTIONS_CALLER, "Caller Ping Timeout"),
                (Flags::OPTIONS_CALLEE, "Callee Ping Timeout"),
            ],
            Kind::Reinvite => [
                (Flags::REINVITE_CALLER, "Caller ReINVITE Ping Timeout"),
                (Flags::REINVITE_CALLEE, "Callee ReINVITE Ping Timeout"),
            ],
        }
    }
}

/// The interval of a dialog's pings is over.
pub fn due(ctx: &mut Ctx, module: &Arc<Dlg>, key: Key, due: Due) {
    let kind = if due == Due::Options { Kind::Options } else { Kind::Reinvite };
    let now = ctx.core.now;
    let Some(dialog) = table::of(ctx).get(key) else { return };
    if !dialog.state.is_answered() || !super::acts_for(ctx, key) {
        return rearm(ctx, key, due, now);
    }
    let Some(dialog) = table::of(ctx).get(key) else { return };
    let ping = if kind == Kind::Options { dialog.options } else { dialog.reinvites };
    let flags = dialog.flags;
    let legs: [LegNo; 2] = [CALLER, dialog.callee_no()];
    for (side, (flag, reason)) in kind.sides().into_iter().enumerate() {
        if flags.has(flag) && ping.answering[side] == Answering::Gone {
            end::end_answered(ctx, module, key, reason, &Bytes::new());
            return;
        }
    }
    for (side, (flag, _)) in kind.sides().into_iter().enumerate() {
        if flags.has(flag) && ping.answering[side] == Answering::Idle {
            ask(ctx, key, kind, side, legs[side]);
        }
    }
    rearm(ctx, key, due, now);
}

fn rearm(ctx: &mut Ctx, key: Key, due: Due, now: transaction::Instant) {
    let table = table::of(ctx);
    let Some(dialog) = table.get(key) else { return };
    let ping = if due == Due::Options { dialog.options } else { dialog.reinvites };
    // local_route may have set the next one already.
    if ping.next.is_none() && ping.interval > 0 {
        table::set_due(ctx, key, due, Some(now.after(u64::from(ping.interval) * 1000)));
    }
}

fn ask(ctx: &mut Ctx, key: Key, kind: Kind, side: usize, leg: LegNo) {
    set(ctx, key, kind, side, Answering::Waits);
    let what = match kind {
        Kind::Options => Inside::new("OPTIONS", leg),
        Kind::Reinvite => {
            let body = sent_last(ctx, key, leg).unwrap_or_default();
            Inside { contact: true, ..Inside::new("INVITE", leg).with_sdp(&body) }
        }
    };
    let sent = request::send(ctx, key, what, move |ctx, answer| {
        let gone = matches!(answer.status, 408 | 481);
        set(ctx, key, kind, side, if gone { Answering::Gone } else { Answering::Idle });
    });
    if !sent {
        set(ctx, key, kind, side, Answering::Gone);
    }
}

fn set(ctx: &mut Ctx, key: Key, kind: Kind, side: usize, answering: Answering) {
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    let ping = if kind == Kind::Options { &mut dialog.options } else { &mut dialog.reinvites };
    ping.answering[side] = answering;
}

/// The session description that an end was sent last: changed on its way, else as the other end sent it.
pub fn sent_last(ctx: &mut Ctx, key: Key, leg: LegNo) -> Option<Text> {
    let dialog = table::of(ctx).get(key)?;
    let other = dialog.other(leg);
    dialog.leg(leg)?.changed.body_out.clone().or_else(|| dialog.leg(other)?.body_in.clone())
}
