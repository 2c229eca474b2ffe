//! Transactions as modules reach them: `ctx.txn(id)` to look, `ctx.txn_mut(id)` to change. One that has ended finds nothing.

use super::{BranchData, TxnData};
use crate::ctx::Ctx;
use bytes::Bytes;
use sip::Message;
use transaction::{BranchView, Cancelling, Config, Instant, Relation, Transactions, TxnId, Verdict};

/// A transaction, to look at.
#[derive(Clone, Copy)]
pub struct Txn<'a> {
    txns: &'a Transactions<TxnData, BranchData>,
    id: TxnId,
}

impl<'a> Txn<'a> {
    /// What belongs to it; `None`: it has ended.
    pub fn data(self) -> Option<&'a TxnData> {
        self.txns.get(self.id)
    }

    /// When its request came.
    pub fn created(self) -> Option<Instant> {
        Some(self.data()?.created)
    }

    /// One of its branches, from 0.
    pub fn branch(self, number: u16) -> Option<BranchView<'a, BranchData>> {
        self.txns.branch(self.id, number)
    }

    /// All of its branches, in order.
    pub fn branches(self) -> impl Iterator<Item = BranchView<'a, BranchData>> {
        self.txns.branches(self.id)
    }

    /// The first branch of the set that was made last (serial forking).
    pub fn first_branch(self) -> u16 {
        self.txns.first_branch(self.id)
    }

    /// Status of the reply that went upstream last, 0: none.
    pub fn status(self) -> u16 {
        self.txns.status(self.id)
    }

    /// No final reply went upstream.
    pub fn is_open(self) -> bool {
        self.txns.is_open(self.id)
    }

    /// Its request is an INVITE.
    pub fn is_invite(self) -> bool {
        self.txns.is_invite(self.id)
    }

    /// Its caller sent a CANCEL.
    pub fn was_cancelled(self) -> bool {
        self.txns.was_cancelled(self.id)
    }

    /// (before, after a provisional reply): how long a final one is waited for, milliseconds.
    pub fn timeouts(self) -> (u32, u32) {
        self.txns.timeouts(self.id)
    }
}

/// A transaction, to be changed.
pub struct TxnMut<'a> {
    txns: &'a mut Transactions<TxnData, BranchData>,
    id: TxnId,
    now: Instant,
}

impl<'a> TxnMut<'a> {
    /// What belongs to it; `None`: it has ended.
    pub fn data(self) -> Option<&'a mut TxnData> {
        self.txns.get_mut(self.id)
    }

    /// What belongs to one of its branches, from 0.
    pub fn branch_data(self, number: u16) -> Option<&'a mut BranchData> {
        self.txns.branch_data(self.id, number)
    }

    /// Its request came again: the last reply goes out again, if there is one.
    pub fn retransmission(self) -> bool {
        self.txns.retransmission(self.id)
    }

    /// How long a final reply is waited for before and after a provisional one, milliseconds.
    pub fn set_timeouts(self, fr: u32, fr_inv: u32) {
        self.txns.set_timeouts(self.now, self.id, fr, fr_inv);
    }

    /// Header lines of CANCELs and ACKs that are made for its branches.
    pub fn set_hop_headers(self, lines: Bytes) {
        self.txns.set_hop_headers(self.id, lines);
    }

    /// Cancels branches; these lines stand in the CANCELs.
    pub fn cancel_branches(self, which: Cancelling, lines: Bytes) {
        self.txns.cancel_branches(self.now, self.id, which, lines);
    }

    /// No further branch will join: what that means is to be told to `tm::on_verdict`.
    pub fn wait_no_more(self) -> Verdict {
        self.txns.wait_no_more(self.now, self.id)
    }

    /// Forgets it at once, as if it had never been (tests).
    pub fn remove(self) -> Option<TxnData> {
        self.txns.remove(self.id)
    }
}

impl Ctx {
    /// A transaction of this worker.
    pub fn txn(&self, id: TxnId) -> Txn<'_> {
        Txn { txns: &self.core.txns.txns, id }
    }

    /// A transaction of this worker, to be changed.
    pub fn txn_mut(&mut self, id: TxnId) -> TxnMut<'_> {
        let now = self.core.now;
        TxnMut { txns: &mut self.core.txns.txns, id, now }
    }

    /// The transaction that a message belongs to, and how.
    pub fn txn_of(&self, msg: &Message) -> Option<(TxnId, Relation)> {
        self.core.txns.txns.find(msg)
    }

    /// The transaction of a request with this Call-ID and number of CSeq.
    pub fn txn_of_call(&self, call_id: &[u8], cseq: &[u8]) -> Option<TxnId> {
        self.core.txns.txns.find_call(call_id, cseq)
    }

    /// The INVITE that a CANCEL is for.
    pub fn txn_cancelled_by(&self, cancel: &Message) -> Option<TxnId> {
        self.core.txns.txns.find_cancelled(cancel)
    }

    /// All transactions of this worker.
    pub fn txn_ids(&self) -> impl Iterator<Item = TxnId> {
        self.core.txns.txns.iter().map(|(id, _)| id)
    }

    /// Timers and bounds of all transactions.
    pub fn txn_config(&self) -> &Config {
        self.core.txns.txns.config()
    }
}
