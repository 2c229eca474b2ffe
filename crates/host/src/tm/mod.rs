//! The transaction engine as scripts see it: arrival of messages, suspension, replies, forking.

use crate::ctx::{Ctx, MsgState};
use crate::var::Context;
use script::End;
use sip::Message;
use std::rc::Rc;
use transaction::{Instant, Path, TxnId};

/// Transactions of a worker and what belongs to them.
#[derive(Default)]
pub struct Engine {}

/// Before the script: what the transactions say about an arriving request.
pub enum Admit {
    /// A retransmission, an ACK or a CANCEL that was dealt with.
    Absorbed,
    /// The main route runs.
    Run,
}

pub fn admit(_ctx: &mut Ctx, _msg: &Rc<Message>, _source: Path) -> Admit {
    Admit::Run
}

/// A reply came in: reply routes, then upstream.
pub fn on_reply(_ctx: &mut Ctx, _msg: Rc<Message>, _source: Path) {}

/// A message could not be sent: its branch, if it is a request's, has failed.
pub fn on_undeliverable(_ctx: &mut Ctx, _path: Path, _bytes: bytes::Bytes) {}

/// The script of `state` waits: makes the server transaction when there is none (100 for an INVITE).
pub fn hold(_ctx: &mut Ctx, _state: &mut MsgState) {}

/// The main route ended.
pub fn request_done(_ctx: &mut Ctx, _state: Box<MsgState>, _end: End) {}

/// Replies to the request of a transaction. 1 sent, -1 not.
pub fn reply(ctx: &mut Ctx, txn: TxnId, code: u16, reason: &[u8]) -> i32 {
    let _ = txn;
    crate::reply::send_stateless(ctx, code, reason)
}

/// The request of the transaction a reply belongs to, or the reply a failure route looks at.
pub fn other_message(_ctx: &mut Ctx, _context: Context) -> Option<Box<MsgState>> {
    None
}

/// Runs what is due.
pub fn on_timer(_ctx: &mut Ctx) {}

impl Engine {
    pub fn new(_shared: &crate::shared::Shared, _worker: u16) -> Engine {
        Engine {}
    }
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }
    /// Open transactions.
    pub fn open(&self) -> usize {
        0
    }
}

/// What modules may observe of a transaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TxnEvent {
    Created,
    /// A reply of a branch, before it is relayed.
    ReplyIn {
        branch: u16,
        status: u16,
    },
    /// A reply goes upstream.
    ReplyOut {
        status: u16,
    },
    Cancelled,
    /// An ACK for a 2xx of this transaction passed.
    AckIn,
    Ended,
}

/// Observer of transactions.
pub type TxnHook = std::sync::Arc<dyn Fn(&mut Ctx, TxnId, TxnEvent) + Send + Sync>;
