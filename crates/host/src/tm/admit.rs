//! Before the script: what the transactions say about an arriving request.

use super::watch::{Way, show};
use super::{cancel, drain, ua};
use crate::ctx::{Ctx, MsgState};
use crate::stats::Source;
use crate::watch::{Moment, Seen, Wire};
use bytes::Bytes;
use sip::{Message, Method};
use std::rc::Rc;
use transaction::{Path, Relation, TxnId};

pub enum Admit {
    /// A retransmission, an ACK or a CANCEL that was dealt with, or nothing that a script could answer.
    Absorbed,
    /// The main route runs. An ACK: the transaction that it is for, if there is one.
    Run(Option<TxnId>),
}

/// Retransmissions of requests whose script ran to its end run it again, up to `t_newtran` or
/// `t_relay`, as in the reference; those of a waiting script are absorbed here.
pub fn admit(ctx: &mut Ctx, msg: &Rc<Message>, source: Path) -> Admit {
    if msg.answerable().is_err() {
        ctx.core.traffic.bad.up();
        return Admit::Absorbed;
    }
    let now = ctx.core.now;
    let found = ctx.core.txns.txns.find(msg);
    if let Some((id, _)) = found {
        ctx.tapped(Wire::Matched, Some(id), source, msg.buf().clone());
    }
    match found {
        Some((id, Relation::Retransmission)) => {
            if ctx.core.txns.txns.get(id).is_none_or(|data| data.absorb) {
                ctx.core.txns.txns.retransmission(id);
                drain(ctx);
                return Admit::Absorbed;
            }
            Admit::Run(None)
        }
        Some((id, Relation::Ack | Relation::AckOfSuccess)) => {
            ctx.core.txns.txns.on_ack(now, id);
            drain(ctx);
            // Scripts see every ACK; `t_relay` knows those whose way ends here.
            Admit::Run(Some(id))
        }
        Some((id, Relation::Cancel)) if !ctx.requests_of(id).is_empty() || ua::gives_up_here(ctx, id) => {
            cancel::waiting(ctx, msg, source, id);
            Admit::Absorbed
        }
        Some((_, Relation::Cancel)) => Admit::Run(None),
        None if msg.method() == Method::Ack => {
            if crate::reply::is_ack_of_ours(ctx, msg) {
                // Module sl's, when it is loaded.
                if let Some(Source::Counter(acks)) = ctx.core.shared.stats.source("received_ACKs") {
                    acks.up();
                }
                Admit::Absorbed
            } else {
                Admit::Run(None)
            }
        }
        None if ctx.core.draining && msg.to_tag().is_none() => {
            refuse_new(ctx, msg, source);
            Admit::Absorbed
        }
        None => Admit::Run(None),
    }
}

/// Modules see the request, then its main route runs. `of`: what an ACK is for.
pub(crate) fn request_in(ctx: &mut Ctx, state: Box<MsgState>, of: Option<TxnId>) {
    show(ctx, Moment::RequestIn, state, Seen::of(None), move |ctx, mut state, way| match way {
        Way::Stopped => refused(ctx, state, of),
        Way::On if is_of_success(ctx, &state, of) => {
            show(ctx, Moment::AckIn, state, Seen::of(of), move |ctx, state, way| match way {
                Way::On => begin(ctx, state, of),
                Way::Stopped => refused(ctx, state, of),
            });
        }
        Way::On if ua::prack_came(ctx, &mut state) => {}
        Way::On => begin(ctx, state, of),
    });
}

/// The main route runs, unless the request is an ACK for what was answered here.
fn begin(ctx: &mut Ctx, state: Box<MsgState>, of: Option<TxnId>) {
    match of.filter(|id| ua::holds(ctx, *id)) {
        Some(id) => ua::ack_came(ctx, id, &state.msg),
        None => ctx.run(state),
    }
}

fn is_of_success(ctx: &Ctx, state: &MsgState, of: Option<TxnId>) -> bool {
    let refusal = || of.is_some_and(|id| ctx.core.txns.txns.status(id) >= 300);
    state.msg.method() == Method::Ack && !refusal()
}

/// Nobody is told; a transaction that it got while it waited forgets it. What a user agent took is its own.
fn refused(ctx: &mut Ctx, state: Box<MsgState>, of: Option<TxnId>) {
    if state.txn.or(of).is_some_and(|id| ua::holds(ctx, id)) {
        return;
    }
    ctx.core.traffic.dropped_requests.up();
    if let Some(id) = state.txn {
        let now = ctx.core.now;
        ctx.core.txns.txns.release(now, id);
    }
}

/// The server ends: new requests go elsewhere.
fn refuse_new(ctx: &mut Ctx, msg: &Rc<Message>, source: Path) {
    let mut state = super::cancel::plain_state(ctx, msg, source);
    state.reply_headers.push(Bytes::from_static(b"Retry-After: 10\r\n"));
    ctx.with_state(state, |ctx| crate::reply::send_stateless(ctx, 503, b"Service Unavailable"));
}
