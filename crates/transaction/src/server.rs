//! The upstream side: server transactions of RFC 3261 §17.2 with RFC 6026's Accepted.

use crate::branch::{Cancelling, ELSEWHERE};
use crate::store::Transactions;
use crate::timers::Due;
use crate::{Instant, Output, TxnId};
use bytes::Bytes;

/// ```text
///             INVITE                                     other requests
///
///            Trying ──1xx─► Proceeding                  Trying ──1xx─► Proceeding
///              │ 2xx   │ 300-699                           │ final       │ final
///     ┌────────┘       └─────────┐                         └──────┬──────┘
///     ▼                          ▼  G: reply again                ▼  retransmission: reply again
///  Accepted ◄┐ 2xx again      Completed ──H: no ACK──┐         Completed
///     │ L  └─┘                   │ ACK               │            │ J
///     ▼                          ▼                   ▼            ▼
///   Ended                    Confirmed ─────I────► Ended        Ended
/// ```
///
/// `Local`: a request of this server, nobody is upstream; a final status leads to Completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Upstream {
    Local,
    Trying,
    Proceeding,
    Accepted,
    Completed,
    Confirmed,
    /// Waits for its slot to be freed.
    Ended,
}

/// Who made a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// This server: it repeats a 2xx to an INVITE until the ACK comes (RFC 3261 §13.3.1.4).
    Here,
    /// A callee, who repeats it itself.
    Relayed,
}

/// What `reply` did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replied {
    /// It is on its way, or kept for a retransmission.
    Sent,
    /// A final reply had been sent before, or the transaction is gone: nothing was sent.
    Late,
}

/// What an ACK did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acked {
    /// It belonged to a negative reply and ends here.
    Absorbed,
    /// It belongs to a 2xx and goes on to the callee; a 2xx made here is repeated no more.
    Success,
    /// No reply waits for it.
    Nothing,
}

impl<T, B> Transactions<T, B> {
    /// Sends a reply upstream and keeps it for retransmissions. After a final reply only further 2xx to
    /// an INVITE are taken (and not kept); one that a callee sent also after a negative reply. A final reply cancels the branches that are still open.
    pub fn reply(&mut self, now: Instant, id: TxnId, status: u16, bytes: Bytes, origin: Origin) -> Replied {
        let takes = self.takes_reply(id, status, origin);
        let Some(parts) = self.parts(id) else { return Replied::Late };
        let txn = parts.txn;
        let success = (200..300).contains(&status);
        let counter = match origin {
            Origin::Here => &mut parts.stats.replies_local,
            Origin::Relayed => &mut parts.stats.replies_relayed,
        };
        if !txn.is_open() {
            if !takes {
                return Replied::Late;
            }
            *counter += 1;
            parts.outputs.push_back(Output::Transmit { txn: id, path: txn.upstream, bytes });
            return Replied::Sent;
        }
        let local = txn.state == Upstream::Local;
        if !local {
            *counter += 1;
            parts.outputs.push_back(Output::Transmit { txn: id, path: txn.upstream, bytes: bytes.clone() });
            txn.last_reply = bytes;
        }
        txn.status = status;
        if status < 200 {
            if !local {
                txn.state = Upstream::Proceeding;
            }
            return Replied::Sent;
        }
        parts.stats.finals[usize::from(status / 100).min(6)] += 1;
        let waits_for_ack = txn.is_invite && !local;
        txn.state = if success && waits_for_ack { Upstream::Accepted } else { Upstream::Completed };
        let repeat_success = success && origin == Origin::Here;
        let repeated = waits_for_ack && (repeat_success || (!success && !txn.upstream.is_reliable()));
        let until_ack = waits_for_ack && (repeat_success || !success);
        if repeated {
            txn.interval = parts.config.t1;
            txn.again = parts.wheel.set(now.after(txn.interval.into()).0, Due::ReplyAgain(id.index));
        }
        let end = if until_ack { txn.fr } else { parts.config.wait };
        let keep = success && txn.keep_branches;
        self.set_end(id, now.after(end.into()));
        if !keep {
            let reason = if success { ELSEWHERE } else { Bytes::new() };
            self.cancel_branches(now, id, Cancelling::All, reason);
        }
        Replied::Sent
    }

    /// Whether `reply` would send it.
    pub fn takes_reply(&self, id: TxnId, status: u16, origin: Origin) -> bool {
        let Some(txn) = self.txn(id) else { return false };
        let again = txn.is_invite && txn.key.is_some() && (200..300).contains(&status);
        txn.is_open() || again && (txn.state == Upstream::Accepted || origin == Origin::Relayed)
    }

    /// Somebody is upstream: it is no request of this server itself.
    pub fn has_upstream(&self, id: TxnId) -> bool {
        self.txn(id).is_some_and(|txn| txn.key.is_some())
    }

    /// Replies make no connection when the one the request came by is gone.
    pub fn keep_to_connection(&mut self, id: TxnId) {
        if let Some(parts) = self.parts(id) {
            parts.txn.upstream = parts.txn.upstream.only_existing();
        }
    }

    /// A request was received again: the last reply is sent again. False: there is none yet.
    pub fn retransmission(&mut self, id: TxnId) -> bool {
        let Some(parts) = self.parts(id) else { return false };
        parts.stats.retransmissions_in += 1;
        let txn = parts.txn;
        if txn.last_reply.is_empty() {
            return false;
        }
        parts.outputs.push_back(Output::Transmit {
            txn: id,
            path: txn.upstream,
            bytes: txn.last_reply.clone(),
        });
        true
    }

    /// Sends a reply again that need not be the last one (a reliable provisional one, RFC 3262).
    pub fn repeat(&mut self, id: TxnId, bytes: Bytes) {
        let Some(parts) = self.parts(id) else { return };
        parts.stats.replies_again += 1;
        parts.outputs.push_back(Output::Transmit { txn: id, path: parts.txn.upstream, bytes });
    }

    /// An ACK that `find` related to this transaction.
    pub fn on_ack(&mut self, now: Instant, id: TxnId) -> Acked {
        let Some(parts) = self.parts(id) else { return Acked::Nothing };
        let txn = parts.txn;
        let wait = now.after(parts.config.wait.into());
        match txn.state {
            Upstream::Completed if txn.is_invite => {
                txn.state = Upstream::Confirmed;
                parts.wheel.cancel(&mut txn.again);
                self.set_end(id, wait);
                Acked::Absorbed
            }
            Upstream::Confirmed => Acked::Absorbed,
            Upstream::Accepted => {
                parts.wheel.cancel(&mut txn.again);
                self.set_end(id, wait);
                Acked::Success
            }
            _ => Acked::Nothing,
        }
    }

    /// Timer G.
    pub(crate) fn reply_again(&mut self, now: Instant, id: TxnId) {
        let Some(parts) = self.parts(id) else { return };
        let txn = parts.txn;
        txn.interval = (txn.interval * 2).min(parts.config.t2);
        txn.again = parts.wheel.set(now.after(txn.interval.into()).0, Due::ReplyAgain(id.index));
        parts.stats.replies_again += 1;
        parts.outputs.push_back(Output::Transmit {
            txn: id,
            path: txn.upstream,
            bytes: txn.last_reply.clone(),
        });
    }

    /// Status sent upstream last; 0: none.
    pub fn status(&self, id: TxnId) -> u16 {
        self.txn(id).map_or(0, |txn| txn.status)
    }

    /// No final reply went upstream yet.
    pub fn is_open(&self, id: TxnId) -> bool {
        self.txn(id).is_some_and(|txn| txn.is_open())
    }

    /// The request was an INVITE; false when there is no such transaction.
    pub fn is_invite(&self, id: TxnId) -> bool {
        self.txn(id).is_some_and(|txn| txn.is_invite)
    }

    /// A CANCEL came from upstream.
    pub fn was_cancelled(&self, id: TxnId) -> bool {
        self.txn(id).is_some_and(|txn| txn.cancelled)
    }

    /// The bytes of the reply sent last.
    pub fn last_reply(&self, id: TxnId) -> Option<&Bytes> {
        self.txn(id).map(|txn| &txn.last_reply).filter(|bytes| !bytes.is_empty())
    }

    /// Final reply timers of this transaction in milliseconds (`$T_fr_timeout`, `$T_fr_inv_timeout`):
    /// `fr` for branches sent from now on; `fr_inv` also for those that ring.
    pub fn set_timeouts(&mut self, now: Instant, id: TxnId, fr: u32, fr_inv: u32) {
        let Some(parts) = self.parts(id) else { return };
        let changed = parts.txn.fr_inv != fr_inv;
        (parts.txn.fr, parts.txn.fr_inv) = (fr, fr_inv);
        if changed && parts.txn.is_invite {
            for (n, branch) in parts.txn.branches.iter_mut().enumerate() {
                branch.ring_until(parts.wheel, now.after(fr_inv.into()), id, n as u16);
            }
        }
    }

    /// (`fr`, `fr_inv`) of this transaction.
    pub fn timeouts(&self, id: TxnId) -> (u32, u32) {
        self.txn(id).map_or((self.config.fr, self.config.fr_inv), |txn| (txn.fr, txn.fr_inv))
    }

    /// Whole header lines added to the ACKs and CANCELs made here.
    pub fn set_hop_headers(&mut self, id: TxnId, lines: Bytes) {
        if let Some(txn) = self.txn_mut(id) {
            txn.hop_headers = lines;
        }
    }

    /// A 2xx is to leave the other branches alone (RFC 3841 §9.1 no-cancel).
    pub fn keep_branches(&mut self, id: TxnId) {
        if let Some(txn) = self.txn_mut(id) {
            txn.keep_branches = true;
        }
    }
}
