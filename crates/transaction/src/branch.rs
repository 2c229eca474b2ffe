//! Branches: client transactions of RFC 3261 §17.1, opened, sent, answered, cancelled.

use crate::store::{Parts, Transactions};
use crate::timers::Due;
use crate::wheel::{TimerId, Wheel};
use crate::{Instant, Output, Path, TxnId};
use bytes::Bytes;
use sip::Message;

/// ```text
///  Opened ──send──► Calling ────1xx────► Proceeding          Waiting (for branches to be injected)
///    │               │ A, E: again        │ E: again at T2      │
///    │               │                    │ (not INVITE)        │ C
///    │               ├─ final ► Deciding ◄┤ final               │
///    │               │             │      │                     │
///    │            B, F             │    C, F: CANCEL, if INVITE │
///    │               └──► TimedOut │ ◄────┴─────────────────────┘
///    │ fail_branch           │     │ decide
///    └───────────────► Failed ◄────┴────► Succeeded ◄┐ 2xx again
///                                              └─────┘
/// ```
///
/// Every final reply above 299 to an INVITE is acknowledged when it is received, in any state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BranchState {
    /// Its number is taken, its request is being made.
    Opened,
    /// Sends nothing: keeps the transaction open for branches to come.
    Waiting,
    Calling,
    Proceeding,
    /// A final reply is here; its owner has not said yet what it counts as (reply routes may suspend).
    Deciding,
    /// The owner was told and is to call `fail_branch`.
    TimedOut,
    Succeeded,
    Failed,
}

/// What a CANCEL of a branch is doing.
#[derive(Clone, Debug)]
pub(crate) enum Cancel {
    None,
    /// Goes out with the first provisional reply; the header lines it is to have.
    Wanted(Bytes),
    /// Unanswered; how often it was sent.
    Sent(Bytes, u8),
    /// Answered, or needless.
    Done,
}

/// Reason (RFC 3326) of the CANCELs of branches that lost to a 2xx.
pub(crate) const ELSEWHERE: Bytes =
    Bytes::from_static(b"Reason: SIP ;cause=200 ;text=\"Call completed elsewhere\"\r\n");
/// Reason of the CANCELs of a caller who gave up, unless the CANCEL or the script says better. It goes out
/// at once or not at all: a branch that rings later is cancelled without it (as in OpenSIPS).
pub const ORIGINATOR: Bytes = Bytes::from_static(b"Reason: SIP;cause=487;text=\"ORIGINATOR_CANCEL\"\r\n");
/// Reason of the CANCEL of a branch that rang for too long.
pub(crate) const NO_ANSWER: Bytes = Bytes::from_static(b"Reason: SIP;cause=480;text=\"NO_ANSWER\"\r\n");

/// A CANCEL is sent at most so often: 64·T1 in all.
const CANCELS: u8 = 11;

pub(crate) struct Branch<B> {
    pub(crate) data: B,
    /// The request as sent; empty before. Of a request that is no INVITE, once it has a 2xx, only the method.
    pub(crate) bytes: Bytes,
    pub(crate) path: Option<Path>,
    pub(crate) cancel: Cancel,
    pub(crate) state: BranchState,
    /// Nobody waits for it when all others have failed.
    pub(crate) minor: bool,
    /// Its last provisional reply came after its CANCEL had gone out: nobody wants to hear of it.
    pub(crate) rang_late: bool,
    /// Last status from the network, 0: none.
    pub(crate) received: u16,
    /// The one before.
    pub(crate) before: u16,
    /// What it counts as among the others; 0: undecided.
    pub(crate) status: u16,
    /// Retransmission of the request (A, E), later of its CANCEL.
    pub(crate) again: TimerId,
    pub(crate) interval: u32,
    /// No final reply (B, C, F).
    pub(crate) fr: TimerId,
}

/// A branch, to look at.
#[derive(Clone, Copy, Debug)]
pub struct BranchView<'a, B> {
    /// What the owner keeps with it.
    pub data: &'a B,
    /// The request as sent; empty before. Of a request that is no INVITE, once it has a 2xx, only the method.
    pub bytes: &'a Bytes,
    /// Where it was sent.
    pub path: Option<Path>,
    /// Last status from the network, 0: none.
    pub received: u16,
    /// The one before it: while its reply routes run, scripts are told of this one.
    pub before: u16,
    /// What it counts as, 0: undecided. Above `received` when it failed here.
    pub status: u16,
    /// It was sent or is to be, and has no final reply.
    pub is_pending: bool,
    /// It only waits for branches to come.
    pub is_waiting: bool,
}

/// Which branches a CANCEL is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelling {
    /// Every one.
    All,
    /// The one of this number.
    Only(u16),
    /// Every one but that of this number.
    AllBut(u16),
}

impl Cancelling {
    fn means(self, branch: u16) -> bool {
        match self {
            Cancelling::All => true,
            Cancelling::Only(n) => n == branch,
            Cancelling::AllBut(n) => n != branch,
        }
    }
}

/// What follows for the upstream side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing.
    Absorb,
    /// This provisional reply goes upstream.
    Provisional,
    /// This 2xx goes upstream; an INVITE may have several.
    Success,
    #[expect(missing_docs, reason = "the names say it")]
    /// All branches have failed. `winner`: the branch with the best reply; `None` without branches. The
    /// owner opens further branches or sends a reply.
    Failed { winner: Option<u16> },
}

/// Why no branch can be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No such transaction, or it has its final reply.
    Answered,
    /// A CANCEL or a 6xx came.
    Blocked,
    /// There are `max_branches` already.
    Full,
}

/// Whether a reply is for reply routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// Run them, then call `decide` (a provisional reply may be dropped instead).
    New,
    /// It changes nothing.
    Absorb,
}

impl<B> Branch<B> {
    fn new(data: B, state: BranchState) -> Branch<B> {
        Branch {
            data,
            bytes: Bytes::new(),
            path: None,
            cancel: Cancel::None,
            state,
            minor: false,
            rang_late: false,
            received: 0,
            before: 0,
            status: 0,
            again: TimerId::NONE,
            interval: 0,
            fr: TimerId::NONE,
        }
    }

    /// Without a final reply that counts.
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.state, BranchState::Succeeded | BranchState::Failed)
    }

    fn view(&self) -> BranchView<'_, B> {
        BranchView {
            data: &self.data,
            bytes: &self.bytes,
            path: self.path,
            received: self.received,
            before: self.before,
            status: self.status,
            is_pending: self.is_pending(),
            is_waiting: self.state == BranchState::Waiting,
        }
    }

    /// The reply's CSeq names the method that was sent, or its CANCEL.
    pub(crate) fn expects(&self, reply: &Message) -> bool {
        let Some((_, method)) = reply.cseq_slices() else { return false };
        let sent = self.bytes.strip_prefix(method).is_some_and(|rest| rest.first() == Some(&b' '));
        sent || (method == b"CANCEL" && matches!(self.cancel, Cancel::Sent(..) | Cancel::Done))
    }

    /// It has its final reply and is not sent again: what later replies are compared with is the method.
    pub(crate) fn keep_method(&mut self) {
        if let Some(end) = self.bytes.iter().position(|b| *b == b' ') {
            self.bytes = Bytes::copy_from_slice(&self.bytes[..=end]);
        }
    }

    /// Sets timer C anew if it runs.
    pub(crate) fn ring_until(&mut self, wheel: &mut Wheel<Due>, at: Instant, id: TxnId, number: u16) {
        if self.state == BranchState::Proceeding && matches!(self.cancel, Cancel::None) {
            wheel.cancel(&mut self.fr);
            self.fr = wheel.set(at.0, Due::FinalReply(id.index, number));
        }
    }

    pub(crate) fn stop(&mut self, wheel: &mut Wheel<Due>) {
        wheel.cancel(&mut self.again);
        wheel.cancel(&mut self.fr);
    }
}

impl<T, B> Transactions<T, B> {
    /// Takes the next branch number. The branch counts as pending until `send` and its replies, or
    /// `fail_branch`. After all others have failed it begins a new set: only its branches compete then.
    pub fn open_branch(&mut self, id: TxnId, data: B) -> Result<u16, Refused> {
        let Some(parts) = self.parts(id) else { return Err(Refused::Answered) };
        let txn = parts.txn;
        if !txn.is_open() {
            return Err(Refused::Answered);
        }
        if txn.cancelled || txn.declined {
            return Err(Refused::Blocked);
        }
        if txn.branches.len() >= usize::from(parts.config.max_branches) {
            parts.stats.branches_refused += 1;
            return Err(Refused::Full);
        }
        let number = txn.branches.len() as u16;
        if txn.concluded || txn.starts_set {
            (txn.concluded, txn.starts_set) = (false, false);
            if txn.left_from(txn.first) {
                txn.first_before = txn.first;
            }
            txn.first = number;
        }
        // Nearly always there is one.
        if txn.branches.is_empty() {
            txn.branches.reserve_exact(1);
        }
        txn.branches.push(Branch::new(data, BranchState::Opened));
        Ok(number)
    }

    /// Only branches that are opened from now on compete for the best reply (each `t_relay` begins a set of
    /// its own), unless the transaction waits for branches to be injected.
    pub fn begin_set(&mut self, id: TxnId) {
        let Some(txn) = self.txn_mut(id) else { return };
        let waits = txn.branches.iter().skip(txn.first.into()).any(|b| b.state == BranchState::Waiting);
        txn.starts_set = !waits;
    }

    /// Takes the number of the branch opened last back, before it was sent: its branch route dropped it.
    /// False: it is not the last one.
    pub fn drop_branch(&mut self, id: TxnId, branch: u16) -> bool {
        let Some(txn) = self.txn_mut(id) else { return false };
        let last = txn.branches.len() == usize::from(branch) + 1;
        let opened = last && txn.branches.last().is_some_and(|b| b.state == BranchState::Opened);
        if opened {
            txn.branches.pop();
        }
        opened
    }

    /// Nobody waits for this branch when all others have failed (`minor_branch_flag`).
    pub fn set_minor(&mut self, id: TxnId, branch: u16) {
        if let Some(branch) = self.branch_mut(id, branch) {
            branch.minor = true;
        }
    }

    /// Sends the request of an opened branch. False: it was cancelled meanwhile, or is not open.
    pub fn send(&mut self, now: Instant, id: TxnId, branch: u16, bytes: Bytes, path: Path) -> bool {
        let Some(parts) = self.parts(id) else { return false };
        let txn = parts.txn;
        let fr = txn.fr;
        let Some(b) = txn.branches.get_mut(usize::from(branch)).filter(|b| b.state == BranchState::Opened)
        else {
            return false;
        };
        b.state = BranchState::Calling;
        b.bytes = bytes.clone();
        b.path = Some(path);
        b.fr = parts.wheel.set(now.after(fr.into()).0, Due::FinalReply(id.index, branch));
        if !path.is_reliable() {
            b.interval = parts.config.t1;
            b.again = parts.wheel.set(now.after(b.interval.into()).0, Due::RequestAgain(id.index, branch));
        }
        parts.outputs.push_back(Output::Transmit { txn: id, path, bytes });
        true
    }

    /// Keeps the transaction open for `count` branches that are opened later, at most for its `fr_inv`
    /// (OpenSIPS `t_wait_for_new_branches`).
    pub fn wait_for_branches(
        &mut self,
        now: Instant,
        id: TxnId,
        count: u16,
        data: B,
    ) -> Result<u16, Refused> {
        let number = self.open_branch(id, data)?;
        let Some(parts) = self.parts(id) else { return Err(Refused::Answered) };
        let txn = parts.txn;
        txn.awaited = count;
        let branch = &mut txn.branches[usize::from(number)];
        branch.state = BranchState::Waiting;
        branch.fr = parts.wheel.set(now.after(txn.fr_inv.into()).0, Due::FinalReply(id.index, number));
        Ok(number)
    }

    /// One of the awaited branches is here; after the last one nothing waits any more.
    pub fn branch_injected(&mut self, now: Instant, id: TxnId) -> Verdict {
        let Some(txn) = self.txn_mut(id) else { return Verdict::Absorb };
        txn.awaited = txn.awaited.saturating_sub(1);
        if txn.awaited > 0 { Verdict::Absorb } else { self.wait_no_more(now, id) }
    }

    /// Ends `wait_for_branches`.
    pub fn wait_no_more(&mut self, now: Instant, id: TxnId) -> Verdict {
        let waiting =
            self.txn(id).and_then(|txn| txn.branches.iter().position(|b| b.state == BranchState::Waiting));
        waiting.map_or(Verdict::Absorb, |branch| self.fail_branch(now, id, branch as u16, 408))
    }

    /// One branch, from 0.
    pub fn branch(&self, id: TxnId, branch: u16) -> Option<BranchView<'_, B>> {
        self.txn(id)?.branches.get(usize::from(branch)).map(Branch::view)
    }

    /// All branches in the order in which they were made.
    pub fn branches(&self, id: TxnId) -> impl Iterator<Item = BranchView<'_, B>> {
        self.txn(id).into_iter().flat_map(|txn| txn.branches.iter().map(Branch::view))
    }

    /// First branch of the set that competes now.
    pub fn first_branch(&self, id: TxnId) -> u16 {
        self.txn(id).map_or(0, |txn| txn.first)
    }

    /// What the owner keeps with a branch, to be changed.
    pub fn branch_data(&mut self, id: TxnId, branch: u16) -> Option<&mut B> {
        self.branch_mut(id, branch).map(|b| &mut b.data)
    }

    pub(crate) fn branch_mut(&mut self, id: TxnId, branch: u16) -> Option<&mut Branch<B>> {
        self.txn_mut(id)?.branches.get_mut(usize::from(branch))
    }

    /// A reply that `match_reply` related to a branch: stops and starts timers, acknowledges a negative
    /// final reply to an INVITE, sends a CANCEL that waited for it.
    pub fn receive(&mut self, now: Instant, id: TxnId, branch: u16, reply: &Message) -> Received {
        let Some(mut parts) = self.parts(id) else { return Received::Absorb };
        parts.stats.replies_in += 1;
        let received = parts.receive(now, branch, reply);
        if received == Received::Absorb {
            parts.stats.replies_absorbed += 1;
        }
        // Who repeats a final reply has not got its ACK yet: the transaction stays to send it again.
        if received == Received::Absorb && reply.status() >= 200 && !parts.txn.is_open() {
            let wait = now.after(parts.config.wait.into());
            let waits_for_ack = parts.txn.again != TimerId::NONE;
            if !waits_for_ack {
                self.set_end(id, wait);
            }
        }
        received
    }

    /// A CANCEL came from upstream. `headers`: whole lines (Reason) for the CANCELs sent on. A transaction
    /// that is not an open INVITE is not changed. `Failed`: nothing is open downstream, the owner answers.
    pub fn cancel(&mut self, now: Instant, id: TxnId, headers: Bytes) -> Verdict {
        let Some(txn) = self.txn_mut(id) else { return Verdict::Absorb };
        if !txn.is_invite || !txn.is_open() {
            return Verdict::Absorb;
        }
        txn.cancelled = true;
        txn.concluded = false;
        self.cancel_branches(now, id, Cancelling::All, headers);
        self.conclude(now, id)
    }

    /// Cancels pending branches of an INVITE: at once where a provisional reply has come, otherwise when
    /// it comes. Opened ones are not sent any more. Afterwards `conclude`, unless a reply follows.
    pub fn cancel_branches(&mut self, now: Instant, id: TxnId, which: Cancelling, headers: Bytes) {
        let Some(mut parts) = self.parts(id).filter(|parts| parts.txn.is_invite) else { return };
        for branch in 0..parts.txn.branches.len() as u16 {
            if which.means(branch) {
                parts.cancel_branch(now, branch, &headers);
            }
        }
    }
}

impl<T, B> Parts<'_, T, B> {
    fn receive(&mut self, now: Instant, branch: u16, reply: &Message) -> Received {
        let status = reply.status();
        let is_invite = self.txn.is_invite;
        let at = usize::from(branch);
        let Some(b) = self.txn.branches.get_mut(at) else { return Received::Absorb };
        let of_cancel = reply.cseq_slices().is_some_and(|(_, method)| method == b"CANCEL");
        // A CANCEL of no INVITE known here is relayed like any request.
        if of_cancel && !b.bytes.starts_with(b"CANCEL ") {
            if status >= 200 && matches!(b.cancel, Cancel::Sent(..)) {
                b.cancel = Cancel::Done;
                self.wheel.cancel(&mut b.again);
            }
            return Received::Absorb;
        }
        if is_invite && status >= 300 {
            self.acknowledge(branch, reply);
        }
        let b = &mut self.txn.branches[at];
        if status >= 200 && !matches!(b.cancel, Cancel::None) {
            // The final reply is here: its CANCEL is needless.
            b.cancel = Cancel::Done;
            self.wheel.cancel(&mut b.again);
        }
        let in_progress = matches!(b.state, BranchState::Calling | BranchState::Proceeding);
        match status {
            ..200 if in_progress => {
                (b.before, b.received) = (b.received, status);
                self.provisional(now, branch);
                Received::New
            }
            ..200 => {
                // It rings after it was given up.
                self.send_late_cancel(now, branch);
                Received::Absorb
            }
            200..300 if is_invite => {
                // A callee who takes the call after all is heard, whatever went upstream before.
                if b.state == BranchState::Deciding {
                    return Received::Absorb;
                }
                b.settle(self.wheel, status);
                Received::New
            }
            _ if in_progress => {
                b.settle(self.wheel, status);
                Received::New
            }
            _ => Received::Absorb,
        }
    }

    fn provisional(&mut self, now: Instant, branch: u16) {
        let (txn, config) = (&mut *self.txn, self.config);
        let b = &mut txn.branches[usize::from(branch)];
        let first = b.state == BranchState::Calling;
        b.state = BranchState::Proceeding;
        b.rang_late = matches!(b.cancel, Cancel::Sent(..) | Cancel::Done);
        if !txn.is_invite {
            b.interval = config.t2;
            return;
        }
        if first {
            self.wheel.cancel(&mut b.again);
        }
        match b.cancel {
            Cancel::None if first || config.restart_on_each_reply => {
                self.wheel.cancel(&mut b.fr);
                let at = now.after(txn.fr_inv.into());
                b.fr = self.wheel.set(at.0, Due::FinalReply(txn.id.index, branch));
            }
            Cancel::Wanted(_) => self.send_late_cancel(now, branch),
            _ => {}
        }
    }

    /// Sends the CANCEL that waited for a provisional reply.
    fn send_late_cancel(&mut self, now: Instant, branch: u16) {
        if let Cancel::Wanted(headers) = &mut self.txn.branches[usize::from(branch)].cancel {
            if *headers == ORIGINATOR {
                headers.clear();
            }
            self.send_cancel(now, branch);
        }
    }

    /// The hop-by-hop ACK (RFC 3261 §17.1.1.3).
    fn acknowledge(&mut self, branch: u16, reply: &Message) {
        let b = &self.txn.branches[usize::from(branch)];
        let (Some(path), Ok(invite)) = (b.path, Message::parse(b.bytes.clone())) else { return };
        let bytes = sip::build_ack(&invite, reply, &self.txn.hop_headers);
        self.outputs.push_back(Output::Transmit { txn: self.txn.id, path, bytes });
    }

    pub(crate) fn cancel_branch(&mut self, now: Instant, branch: u16, headers: &Bytes) {
        let b = &mut self.txn.branches[usize::from(branch)];
        match b.state {
            BranchState::Opened | BranchState::Waiting => {
                b.stop(self.wheel);
                b.state = BranchState::Failed;
                b.status = 487;
            }
            BranchState::Calling if matches!(b.cancel, Cancel::None) => {
                b.cancel = Cancel::Wanted(headers.clone())
            }
            BranchState::Proceeding if matches!(b.cancel, Cancel::None) => {
                b.cancel = Cancel::Wanted(headers.clone());
                self.send_cancel(now, branch);
            }
            _ => {}
        }
    }

    /// Sends the CANCEL that is wanted; the branch has 64·T1 to give its final reply (RFC 3261 §9.1).
    pub(crate) fn send_cancel(&mut self, now: Instant, branch: u16) {
        let txn = &mut *self.txn;
        let b = &mut txn.branches[usize::from(branch)];
        let Cancel::Wanted(headers) = std::mem::replace(&mut b.cancel, Cancel::Done) else { return };
        let (Some(path), Ok(invite)) = (b.path, Message::parse(b.bytes.clone())) else { return };
        let bytes = sip::build_cancel(&invite, &[&headers[..], &txn.hop_headers].concat());
        b.cancel = Cancel::Sent(bytes.clone(), 1);
        b.stop(self.wheel);
        if !path.is_reliable() {
            b.interval = self.config.t1;
            b.again = self.wheel.set(now.after(b.interval.into()).0, Due::RequestAgain(txn.id.index, branch));
        }
        if b.state == BranchState::Proceeding {
            let limit = (64 * u64::from(self.config.t1)).min(txn.fr_inv.into());
            b.fr = self.wheel.set(now.after(limit).0, Due::FinalReply(txn.id.index, branch));
        }
        self.outputs.push_back(Output::Transmit { txn: self.txn.id, path, bytes });
    }

    /// Timers A and E, and those of a CANCEL.
    pub(crate) fn request_again(&mut self, now: Instant, branch: u16) {
        let (txn, config) = (&mut *self.txn, self.config);
        let b = &mut txn.branches[usize::from(branch)];
        let Some(path) = b.path else { return };
        let waits = b.state == BranchState::Calling || (b.state == BranchState::Proceeding && !txn.is_invite);
        let bytes = match &mut b.cancel {
            Cancel::Sent(bytes, times) if *times < CANCELS => {
                *times += 1;
                bytes.clone()
            }
            Cancel::Sent(..) => return,
            _ if waits => {
                let step = (b.interval / config.t1.max(1)).max(1).ilog2();
                let step = if b.interval >= config.t2 { 3 } else { step.min(2) };
                self.stats.requests_again[step as usize] += 1;
                b.bytes.clone()
            }
            _ => return,
        };
        b.interval = b.interval.saturating_mul(2).min(config.t2).max(1);
        b.again = self.wheel.set(now.after(b.interval.into()).0, Due::RequestAgain(txn.id.index, branch));
        self.outputs.push_back(Output::Transmit { txn: self.txn.id, path, bytes });
    }
}

impl<B> Branch<B> {
    /// A final reply is here.
    fn settle(&mut self, wheel: &mut Wheel<Due>, status: u16) {
        self.stop(wheel);
        (self.before, self.received) = (self.received, status);
        self.state = BranchState::Deciding;
        // Never cancelled and answered: its provisional replies that wait in routes still count.
        if !matches!(self.cancel, Cancel::None) {
            self.cancel = Cancel::Done;
        }
    }
}
