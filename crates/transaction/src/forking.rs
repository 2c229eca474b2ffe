//! Which reply of several branches goes upstream (RFC 3261 §16.7, in the order of OpenSIPS).

use crate::branch::{Branch, BranchState, Cancel, Cancelling, Verdict};
use crate::store::{Transactions, Txn};
use crate::{Instant, TxnId};
use bytes::Bytes;

/// Rank of a negative final status, the smallest is the best: 6xx, 3xx, then what a caller can repair
/// (401, 407, 415, 420, 484), the other 4xx by number, 5xx by number; 408 says least of all.
pub fn priority(status: u16) -> u16 {
    match status {
        600.. => status - 600,
        300..=399 => status,
        401 | 407 | 415 | 420 | 484 => 400,
        408 => u16::MAX,
        _ => status + 100,
    }
}

/// Rank of the 487 of a call that its caller cancelled: behind 6xx, before 3xx.
const ASKED_FOR: u16 = 100;

impl<T, B> Transactions<T, B> {
    /// What a reply counts as, after reply routes: `status` is its own, or what they made of it (a
    /// negative one stays negative).
    pub fn decide(&mut self, now: Instant, id: TxnId, branch: u16, status: u16) -> Verdict {
        let block = !self.config.fork_after_6xx;
        let Some(parts) = self.parts(id) else { return Verdict::Absorb };
        let txn = parts.txn;
        let open = txn.is_open();
        let is_invite = txn.is_invite;
        let Some(b) = txn.branches.get_mut(usize::from(branch)) else { return Verdict::Absorb };
        if status < 200 {
            // Its final reply may be here already, behind it.
            let in_time = matches!(b.state, BranchState::Proceeding | BranchState::Deciding);
            let relayed = open && status > 100 && in_time && !b.rang_late;
            return if relayed { Verdict::Provisional } else { Verdict::Absorb };
        }
        if b.state != BranchState::Deciding {
            return Verdict::Absorb;
        }
        b.status = status;
        if status < 300 {
            b.state = BranchState::Succeeded;
            if !is_invite {
                b.keep_method();
            }
            return if open || is_invite { Verdict::Success } else { Verdict::Absorb };
        }
        b.state = BranchState::Failed;
        if status >= 600 && block {
            txn.declined = true;
            self.cancel_branches(now, id, Cancelling::AllBut(branch), Bytes::new());
        }
        self.conclude(now, id)
    }

    /// A branch failed here: it timed out, or could not be sent. Where the callee may still ring it is
    /// cancelled.
    pub fn fail_branch(&mut self, now: Instant, id: TxnId, branch: u16, status: u16) -> Verdict {
        let Some(mut parts) = self.parts(id) else { return Verdict::Absorb };
        let is_invite = parts.txn.is_invite;
        let Some(b) = parts.txn.branches.get(usize::from(branch)).filter(|b| b.is_pending()) else {
            return Verdict::Absorb;
        };
        let (was, quiet) = (b.state, matches!(b.cancel, Cancel::None));
        if is_invite && was != BranchState::Deciding {
            parts.cancel_branch(now, branch, &Bytes::new());
        }
        let b = &mut parts.txn.branches[usize::from(branch)];
        if was == BranchState::TimedOut && is_invite && quiet {
            b.cancel = Cancel::Wanted(Bytes::new());
        }
        if !matches!(b.cancel, Cancel::Sent(..)) {
            parts.wheel.cancel(&mut b.again);
        }
        parts.wheel.cancel(&mut b.fr);
        b.state = BranchState::Failed;
        b.status = status;
        self.conclude(now, id)
    }

    /// Looks whether all branches have failed. Says so once, until another branch is opened.
    pub fn conclude(&mut self, now: Instant, id: TxnId) -> Verdict {
        let Some(mut parts) = self.parts(id) else { return Verdict::Absorb };
        let txn = &mut *parts.txn;
        if !txn.is_open() || txn.concluded || txn.branches.iter().any(|b| b.state == BranchState::Succeeded) {
            return Verdict::Absorb;
        }
        let first = usize::from(txn.first).min(txn.branches.len());
        if txn.awaits_branches() {
            return Verdict::Absorb;
        }
        txn.concluded = true;
        for branch in first..txn.branches.len() {
            if parts.txn.branches[branch].is_pending() {
                parts.cancel_branch(now, branch as u16, &Bytes::new());
            }
        }
        let at = now.after(self.config.unanswered.into());
        self.set_end(id, at);
        Verdict::Failed { winner: self.winner(id) }
    }

    /// `Failed` was told too early: it is told again when the branches that are open have ended.
    pub fn reopen(&mut self, id: TxnId) {
        if let Some(txn) = self.txn_mut(id) {
            txn.concluded = false;
        }
    }

    /// A branch of the last set is open whose reply decides.
    pub fn awaits_branches(&self, id: TxnId) -> bool {
        self.txn(id).is_some_and(|txn| txn.awaits_branches())
    }

    /// The best of the failed branches of the last set, the first of equals; of the set before it when nothing of the
    /// last one left this server. What failed here (not sent, no answer) says less than any answer of a callee. After a
    /// CANCEL a 487 is the answer that was asked for: only a 6xx beats it.
    pub fn winner(&self, id: TxnId) -> Option<u16> {
        let txn = self.txn(id)?;
        let first = if txn.left_from(txn.first) { txn.first } else { txn.first_before };
        let set = txn.branches.iter().enumerate().skip(first.into());
        let failed = set.filter(|(_, b)| b.state == BranchState::Failed);
        let rank = |b: &Branch<B>| match b.status {
            487 if txn.cancelled => (false, ASKED_FOR),
            status => (b.received < 300, priority(status)),
        };
        failed.min_by_key(|(_, b)| rank(b)).map(|(n, _)| n as u16)
    }
}

impl<T, B> Txn<T, B> {
    /// Something was sent to a branch of this number or a later one.
    pub(crate) fn left_from(&self, first: u16) -> bool {
        self.branches.iter().skip(first.into()).any(|b| b.path.is_some())
    }

    /// After a 6xx nobody waits for a callee who has not rung: the CANCEL goes out when it does.
    fn awaits_branches(&self) -> bool {
        let set = self.branches.iter().skip(self.first.into());
        set.filter(|b| b.is_pending() && !b.minor).any(|b| !(self.declined && b.is_given_up()))
    }
}

impl<B> Branch<B> {
    /// It is to end, and never rang.
    fn is_given_up(&self) -> bool {
        matches!((&self.cancel, self.state), (Cancel::Wanted(_), BranchState::Calling))
    }
}
