//! This server as a user agent: requests of its own, and requests that it answers itself, later.
//!
//! ```text
//!  client                                              server
//!  send ──► local_route ──► LocalOut ──► network       take (the request of a script or a watcher)
//!    │ Heard::Reply: each 1xx, each 2xx by its           │ answer: provisional, final; a 2xx is repeated until its ACK
//!    │   To tag, the one refusal                         │ answer_reliably: repeated until its PRACK
//!    ├─ prack (a reliable 1xx)                           ├─ Heard::Pracked, Heard::Acked
//!    ├─ ack (each 2xx of an INVITE): again with          ├─ Heard::Cancelled: 487 has gone out
//!    │   each repetition of that 2xx                     ├─ Heard::Unacknowledged: the PRACK or ACK did not come
//!    ├─ cancel                                           │
//!    └─ end, or 32 s after the last new 2xx              └─ final reply, ACK
//!  Heard::Over                                         Heard::Over
//! ```
//!
//! A handle is the [`TxnId`] of the transaction; one whose transaction is over does nothing. The owner keeps what
//! it wants to know of the call: [`Side`] is a dialog as a request inside it needs it. Credentials are the
//! owner's business: a 401 or 407 is told with its reply, and the request is sent again by whoever has a password.

mod client;
mod server;
mod side;

use super::branch::SendError;
use crate::ctx::Ctx;
use bytes::Bytes;
use sip::Message;
use std::rc::Rc;
use transaction::{Path, TxnId};

pub use client::{
    Done, NewRequest, ack, ack_like_invite, ack_with, cancel, end, own_call_id, prack, send, send_new,
    send_within,
};
pub(super) use client::{refused, replied, show_to_route};
pub use server::{ack_came, answer, answer_reliably, holds, take, take_whole};
pub(super) use server::{cancelled, gives_up_here, note_sent, prack_came};
pub use side::Side;

/// A reply to a request of this server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: Bytes,
    /// `None`: made here (408, 476, 477 ...).
    pub reply: Option<Rc<Message>>,
    /// Where the request went; `None`: it never left.
    pub path: Option<Path>,
}

impl Answer {
    fn made_here(error: SendError) -> Answer {
        let (status, reason) = error.reply();
        Answer { status, reason: Bytes::from_static(reason.as_bytes()), reply: None, path: None }
    }
}

/// What the owner of a handle hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// To a request of this server: a provisional reply, a 2xx (of an INVITE each To tag once), or the final
    /// refusal, made here too.
    Reply(Answer),
    /// The 2xx that was sent here has its ACK.
    Acked(Rc<Message>),
    /// The reliable provisional reply has its PRACK, which was answered.
    Pracked(Rc<Message>),
    /// The caller gave up; 487 has gone out.
    Cancelled,
    /// The PRACK, or the ACK of a 2xx, did not come in time. The owner refuses the call, or sends BYE.
    Unacknowledged,
    /// The transaction is over.
    Over,
}

/// Hears of one transaction, on the worker that owns it.
pub type Ear = Box<dyn FnMut(&mut Ctx, TxnId, Heard)>;

/// What a transaction keeps for its owner.
#[derive(Default)]
pub(super) struct Ua {
    ear: Option<Ear>,
    /// Of a request of this server: the 2xx that were told, by To tag.
    successes: Vec<Success>,
    /// Of a request that is answered here.
    serves: Option<server::Serves>,
}

impl Ua {
    /// This server sent the request of its own accord.
    pub(in crate::tm) fn asks(&self) -> bool {
        self.serves.is_none()
    }

    /// Nobody hears what becomes of it any more.
    pub(in crate::tm) fn forget(&mut self) {
        self.ear = None;
    }
}

struct Success {
    tag: Bytes,
    /// Its ACK.
    ack: Option<(Path, Bytes)>,
}

fn ua(ctx: &mut Ctx, id: TxnId) -> Option<&mut Ua> {
    ctx.core.txns.txns.get_mut(id)?.ua.as_deref_mut()
}

/// Tells the owner of a transaction.
fn hear(ctx: &mut Ctx, id: TxnId, heard: Heard) {
    let Some(mut ear) = ua(ctx, id).and_then(|ua| ua.ear.take()) else { return };
    ear(ctx, id, heard);
    if let Some(ua) = ua(ctx, id)
        && ua.ear.is_none()
    {
        ua.ear = Some(ear);
    }
}

/// The transaction is over.
pub(super) fn over(ctx: &mut Ctx, id: TxnId) {
    if ua(ctx, id).is_none() {
        return;
    }
    server::never_acked(ctx, id);
    hear(ctx, id, Heard::Over);
    if let Some(ua) = ua(ctx, id) {
        ua.ear = None;
    }
}
