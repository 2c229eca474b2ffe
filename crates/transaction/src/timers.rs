//! What happens when time passes.

use crate::branch::{BranchState, Cancel, NO_ANSWER};
use crate::server::Upstream;
use crate::store::{Parts, Transactions};
use crate::wheel::TimerId;
use crate::{Event, Instant, Output, TxnId};

/// A timer of a transaction (slot) or of one of its branches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// A, E, or a CANCEL's.
    RequestAgain(u32, u16),
    /// B, C, F
    FinalReply(u32, u16),
    /// G
    ReplyAgain(u32),
    /// H, I, J, L; the guard of an unanswered transaction.
    End(u32),
}

impl<T, B> Transactions<T, B> {
    /// What is due, at most so many timers: retransmissions, timeouts, ends. `next_deadline` says whether something
    /// is left. The data of transactions that ended before this call is dropped.
    pub fn on_timer(&mut self, now: Instant, at_most: usize) {
        self.drop_ended();
        for _ in 0..at_most {
            let Some(due) = self.wheel.pop(now.0) else { break };
            match due {
                Due::RequestAgain(index, branch) => self.with(index, |parts| {
                    parts.txn.branches[usize::from(branch)].again = TimerId::NONE;
                    parts.request_again(now, branch);
                }),
                Due::FinalReply(index, branch) => self.with(index, |parts| {
                    parts.txn.branches[usize::from(branch)].fr = TimerId::NONE;
                    parts.no_final_reply(now, branch);
                }),
                Due::ReplyAgain(index) => {
                    if let Some(id) = self.at(index).map(|txn| txn.id) {
                        self.with(index, |parts| parts.txn.again = TimerId::NONE);
                        self.reply_again(now, id);
                    }
                }
                Due::End(index) => {
                    if let Some(id) = self.at(index).map(|txn| txn.id) {
                        self.with(index, |parts| parts.txn.end = TimerId::NONE);
                        self.end_due(now, id);
                    }
                }
            }
        }
    }

    /// Timers are cancelled with their transaction, so a slot's timer is its present occupant's.
    fn with(&mut self, index: u32, f: impl FnOnce(&mut Parts<'_, T, B>)) {
        let id = self.at(index).map(|txn| txn.id);
        if let Some(mut parts) = id.and_then(|id| self.parts(id)) {
            f(&mut parts);
        }
    }

    fn end_due(&mut self, now: Instant, id: TxnId) {
        let wait = now.after(self.config.wait.into());
        let unanswered = now.after(self.config.unanswered.into());
        let Some(parts) = self.parts(id) else { return };
        let txn = parts.txn;
        // A branch without a timer waits for its owner, who may have forgotten it. One that timed out at
        // this very moment is being told of: what its owner does next has timers of its own.
        let pending = txn.branches.iter().any(|b| b.fr != TimerId::NONE || b.state == BranchState::TimedOut);
        match txn.state {
            Upstream::Trying | Upstream::Proceeding | Upstream::Local => {
                if !pending {
                    parts.outputs.push_back(Output::Event(Event::Unanswered { txn: id }));
                }
                self.set_end(id, unanswered);
            }
            Upstream::Completed if txn.is_invite && !txn.last_reply.is_empty() => {
                parts.stats.no_ack += 1;
                parts.wheel.cancel(&mut txn.again);
                txn.state = Upstream::Confirmed;
                self.set_end(id, wait);
            }
            // Branches that were cancelled before they rang; their own timers end them.
            _ if pending => self.set_end(id, wait),
            _ => self.end(id),
        }
    }
}

impl<T, B> Parts<'_, T, B> {
    /// Timers B, C and F.
    fn no_final_reply(&mut self, now: Instant, branch: u16) {
        let (txn, stats) = (&mut *self.txn, &mut *self.stats);
        let open = txn.is_open();
        let b = &mut txn.branches[usize::from(branch)];
        let rang = match b.state {
            BranchState::Calling => {
                stats.timeouts += 1;
                self.wheel.cancel(&mut b.again);
                false
            }
            BranchState::Proceeding => {
                stats.timeouts_ringing += 1;
                if !matches!(b.cancel, Cancel::Sent(..)) {
                    self.wheel.cancel(&mut b.again);
                }
                true
            }
            BranchState::Waiting => false,
            _ => return,
        };
        if rang && txn.is_invite && matches!(b.cancel, Cancel::None) {
            b.cancel = Cancel::Wanted(NO_ANSWER);
            b.state = BranchState::TimedOut;
            self.send_cancel(now, branch);
        }
        let txn = &mut *self.txn;
        let b = &mut txn.branches[usize::from(branch)];
        if open {
            b.state = BranchState::TimedOut;
            self.outputs.push_back(Output::Event(Event::Timeout { txn: txn.id, branch, rang }));
        } else {
            b.state = BranchState::Failed;
            b.status = 408;
        }
    }
}
