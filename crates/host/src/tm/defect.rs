//! What a defect of the server costs: the message it was met with, and nothing else.
//!
//! A panic is caught where the work for one transaction begins (its script, what follows it, an operation's
//! second half, a reply, a timer). The caller hears 500, branches are cancelled, what waited is dropped.

use super::ending::end_with;
use crate::context::current::Defect;
use crate::ctx::{After, Ctx, MsgState};
use script::End;
use sip::{Message, Method};
use std::rc::Rc;
use transaction::{Path, Relation, TxnId};

const CODE: u16 = 500;
const REASON: &str = "Server Internal Error";

impl Ctx {
    /// Does work for a transaction. A panic ends it with 500, and goes no further.
    pub fn guarded<R>(&mut self, txn: TxnId, work: impl FnOnce(&mut Ctx) -> R) -> Result<R, Defect> {
        let done = self.catch(work);
        if done.is_err() {
            end_broken(self, txn);
        }
        done
    }
}

/// The script of `state` met a defect. What is to follow it follows, as if it had said `drop`. A script that nothing
/// follows (event, report) ran beside the call, which goes on.
pub(crate) fn script_broke(ctx: &mut Ctx, mut state: Box<MsgState>) {
    match state.txn {
        _ if matches!(state.after, After::Nothing) => {}
        Some(txn) => end_broken(ctx, txn),
        None if matches!(state.after, After::Request) && state.msg.method() != Method::Ack => {
            let refused = ctx.try_with_state(state, |ctx| {
                crate::reply::send_stateless(ctx, CODE, REASON.as_bytes());
            });
            state = refused.0;
        }
        None => {}
    }
    if let After::Then(then) = std::mem::replace(&mut state.after, After::Nothing) {
        let _ = ctx.catch(|ctx| then(ctx, state, End::Drop));
    }
}

/// A defect was met with a request before its script, or beside it.
pub(crate) fn request_broke(ctx: &mut Ctx, msg: &Rc<Message>, source: Path) {
    let mut state = super::cancel::plain_state(ctx, msg, source);
    state.after = After::Request;
    if let Some((id, Relation::Retransmission)) = ctx.core.txns.txns.find(msg) {
        state.txn = Some(id);
    }
    script_broke(ctx, state);
}

/// Ends a transaction of which nobody knows how far it is. If that fails too, it is forgotten without a word.
pub(crate) fn end_broken(ctx: &mut Ctx, id: TxnId) {
    if ctx.catch(|ctx| end(ctx, id)).is_err() {
        ctx.core.txns.txns.remove(id);
        let _ = ctx.catch(|ctx| ctx.drop_tasks_of(id));
    }
}

fn end(ctx: &mut Ctx, id: TxnId) {
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        // The modules that watch it have seen enough: one of them may be what broke.
        data.broken = true;
        end_with(ctx, id, CODE, REASON);
    }
}
