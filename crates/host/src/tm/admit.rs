//! Before the script: what the transactions say about an arriving request.

use super::{TxnEvent, cancel, drain, tell};
use crate::ctx::Ctx;
use crate::stats::Source;
use bytes::Bytes;
use sip::{Message, Method};
use std::rc::Rc;
use transaction::{Acked, Path, Relation};

pub enum Admit {
    /// A retransmission, an ACK or a CANCEL that was dealt with, or nothing that a script could answer.
    Absorbed,
    /// The main route runs.
    Run,
}

/// Retransmissions of requests whose script ran to its end run it again, up to `t_newtran` or
/// `t_relay`, as in the reference; those of a waiting script are absorbed here.
pub fn admit(ctx: &mut Ctx, msg: &Rc<Message>, source: Path) -> Admit {
    if msg.answerable().is_err() {
        ctx.core.traffic.bad.up();
        return Admit::Absorbed;
    }
    let now = ctx.core.now;
    match ctx.core.txns.txns.find(msg) {
        Some((id, Relation::Retransmission)) => {
            if ctx.core.txns.txns.get(id).is_none_or(|data| data.absorb) {
                ctx.core.txns.txns.retransmission(id);
                drain(ctx);
                return Admit::Absorbed;
            }
            Admit::Run
        }
        Some((id, Relation::Ack | Relation::AckOfSuccess)) => {
            let acked = ctx.core.txns.txns.on_ack(now, id);
            drain(ctx);
            if acked == Acked::Success {
                tell(ctx, id, TxnEvent::AckIn);
            }
            // Scripts see every ACK; `t_relay` knows those whose way ends here.
            Admit::Run
        }
        Some((id, Relation::Cancel)) if !ctx.requests_of(id).is_empty() => {
            cancel::waiting(ctx, msg, source, id);
            Admit::Absorbed
        }
        Some((_, Relation::Cancel)) => Admit::Run,
        None if msg.method() == Method::Ack => {
            if crate::reply::is_ack_of_ours(ctx, msg) {
                // Module sl's, when it is loaded.
                if let Some(Source::Counter(acks)) = ctx.core.shared.stats.source("received_ACKs") {
                    acks.up();
                }
                Admit::Absorbed
            } else {
                Admit::Run
            }
        }
        None if ctx.core.draining && msg.to_tag().is_none() => {
            refuse_new(ctx, msg, source);
            Admit::Absorbed
        }
        None => Admit::Run,
    }
}

/// The server ends: new requests go elsewhere.
fn refuse_new(ctx: &mut Ctx, msg: &Rc<Message>, source: Path) {
    let mut state = super::cancel::plain_state(ctx, msg, source);
    state.reply_headers.push(Bytes::from_static(b"Retry-After: 10\r\n"));
    let outer = std::mem::replace(&mut ctx.state, state);
    crate::reply::send_stateless(ctx, 503, b"Service Unavailable");
    ctx.state = outer;
}
