//! The transactions of a worker: a slab guarded by generations, and the keys that find them.

use crate::branch::Branch;
use crate::config::{Config, Stats};
use crate::cookie::{Cookie, ViaBranch};
use crate::key::{Key, KeyMap, Keys, Relation, method_of};
use crate::server::Upstream;
use crate::timers::Due;
use crate::wheel::{TimerId, Wheel};
use crate::{Event, Instant, Output, Path, TxnId};
use bytes::Bytes;
use sip::{Message, Method};

use std::collections::VecDeque;

/// Room for more transactions than this is given back when the last of them is gone.
const KEPT: usize = 1024;

/// There are `max_transactions` already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// One transaction: `data` is its owner's.
pub(crate) struct Txn<T, B> {
    pub(crate) id: TxnId,
    pub(crate) data: T,
    pub(crate) branches: Vec<Branch<B>>,
    /// Where replies go.
    pub(crate) upstream: Path,
    /// The reply sent last, for retransmissions.
    pub(crate) last_reply: Bytes,
    /// Header lines added to ACKs and CANCELs made here.
    pub(crate) hop_headers: Bytes,
    pub(crate) key: Option<Key>,
    pub(crate) call_key: Option<Key>,
    pub(crate) fr: u32,
    pub(crate) fr_inv: u32,
    /// Timer G, or the owner's retransmission of a 2xx made here.
    pub(crate) again: TimerId,
    /// Interval of `again`, ms.
    pub(crate) interval: u32,
    /// End of life (H, I, J, L), or the guard of an unanswered transaction.
    pub(crate) end: TimerId,
    /// Status sent upstream last, 0: none.
    pub(crate) status: u16,
    /// First branch of the last set: only these compete for the best reply, unless none of them left.
    pub(crate) first: u16,
    /// First branch of the last set before it of which something left.
    pub(crate) first_before: u16,
    /// The next branch is the first of a set.
    pub(crate) starts_set: bool,
    /// How many branches are still to be injected (`t_wait_for_new_branches`).
    pub(crate) awaited: u16,
    pub(crate) state: Upstream,
    pub(crate) is_invite: bool,
    /// A CANCEL came from upstream.
    pub(crate) cancelled: bool,
    /// A branch said 6xx.
    pub(crate) declined: bool,
    /// `Failed` was reported and no branch was added since.
    pub(crate) concluded: bool,
    /// A 2xx leaves the other branches alone (RFC 3841 no-cancel).
    pub(crate) keep_branches: bool,
}

struct Slot<T, B> {
    generation: u32,
    txn: Option<Box<Txn<T, B>>>,
}

/// All transactions of a worker. `T`: the owner's data of a transaction, `B`: of a branch.
pub struct Transactions<T, B> {
    pub(crate) config: Config,
    pub(crate) stats: Stats,
    pub(crate) wheel: Wheel<Due>,
    pub(crate) outputs: VecDeque<Output>,
    worker: u16,
    seed: u64,
    /// How often room was given back: slots that are made anew begin with other generations.
    round: u64,
    slots: Vec<Slot<T, B>>,
    free: Vec<u32>,
    /// Ended; dropped at the next `on_timer`.
    ended: Vec<u32>,
    live: u32,
    /// Ids of transactions as they are made, for `take_made`.
    made: Option<Vec<TxnId>>,
    /// The ids that the next ones get, for `expect`.
    expected: VecDeque<TxnId>,
    keys: Keys,
    by_request: KeyMap,
    by_call: KeyMap,
}

impl<T, B> Transactions<T, B> {
    /// `worker` goes into Via branches. `seed` must not be guessable: it keeps foreign requests and
    /// replies from being aimed at a transaction.
    pub fn new(config: Config, worker: u16, seed: u64) -> Transactions<T, B> {
        Transactions {
            config,
            stats: Stats::default(),
            wheel: Wheel::default(),
            outputs: VecDeque::new(),
            worker,
            seed,
            round: 0,
            slots: Vec::new(),
            free: Vec::new(),
            ended: Vec::new(),
            live: 0,
            made: None,
            expected: VecDeque::new(),
            keys: Keys::new(seed),
            by_request: KeyMap::default(),
            by_call: KeyMap::default(),
        }
    }

    /// The timers and limits that they were made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was counted since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Transactions that have not ended.
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// There is no transaction.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Timers that run; none when there are no transactions.
    pub fn timers(&self) -> usize {
        self.wheel.len()
    }

    /// What to do next; drain it after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `on_timer` has something to do, or earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next().map(Instant)
    }

    /// The transaction that a request belongs to, and how (RFC 3261 §17.2.3). `None`: it is new.
    pub fn find(&self, request: &Message) -> Option<(TxnId, Relation)> {
        let base = self.keys.base(request, &self.config)?;
        let at =
            |method, text: &[u8]| self.by_request.get(&base.with(method, text)).and_then(|i| self.at(*i));
        let (method, text) = method_of(request);
        match method {
            Method::Ack => {
                if let Some(txn) = at(Method::Invite, b"") {
                    return match txn.state {
                        Upstream::Completed | Upstream::Confirmed => Some((txn.id, Relation::Ack)),
                        Upstream::Accepted => Some((txn.id, Relation::AckOfSuccess)),
                        _ => None,
                    };
                }
                let id = self.find_call_key(self.keys.call_of(request)?)?;
                let accepted = self.txn(id)?.state == Upstream::Accepted;
                accepted.then_some((id, Relation::AckOfSuccess))
            }
            Method::Cancel => {
                if let Some(own) = at(Method::Cancel, b"") {
                    return Some((own.id, Relation::Retransmission));
                }
                self.find_cancelled(request).map(|id| (id, Relation::Cancel))
            }
            method => at(method, &text).map(|txn| (txn.id, Relation::Retransmission)),
        }
    }

    /// What a CANCEL is for, also when it has a transaction of its own already.
    pub fn find_cancelled(&self, cancel: &Message) -> Option<TxnId> {
        let base = self.keys.base(cancel, &self.config)?;
        let others = Method::all().filter(|m| !matches!(m, Method::Ack | Method::Cancel));
        let at = |m| self.by_request.get(&base.with(m, b"")).and_then(|i| self.at(*i));
        others.into_iter().find_map(at).map(|txn| txn.id)
    }

    /// The newest INVITE transaction of a Call-ID and CSeq number (as written).
    pub fn find_call(&self, call_id: &[u8], cseq: &[u8]) -> Option<TxnId> {
        self.find_call_key(self.keys.call(call_id, cseq))
    }

    fn find_call_key(&self, key: Key) -> Option<TxnId> {
        self.by_call.get(&key).and_then(|i| self.at(*i)).map(|txn| txn.id)
    }

    /// Makes the server transaction of a received request. `upstream`: where replies go.
    pub fn create(
        &mut self,
        now: Instant,
        request: &Message,
        upstream: Path,
        data: T,
    ) -> Result<TxnId, Full> {
        let (method, text) = method_of(request);
        let key = self.keys.base(request, &self.config).map(|base| base.with(method, &text));
        let id = self.insert(now, request, upstream, Upstream::Trying, data)?;
        self.stats.created_server += 1;
        if let Some(key) = key {
            self.by_request.insert(key, id.index);
            if let Some(txn) = self.txn_mut(id) {
                txn.key = Some(key);
            }
        }
        Ok(id)
    }

    /// Makes a transaction for a request of this server itself: nothing goes upstream, `reply` only
    /// ends it.
    pub fn create_local(
        &mut self,
        now: Instant,
        request: &Message,
        nowhere: Path,
        data: T,
    ) -> Result<TxnId, Full> {
        let id = self.insert(now, request, nowhere, Upstream::Local, data)?;
        self.stats.created_local += 1;
        Ok(id)
    }

    fn insert(
        &mut self,
        now: Instant,
        request: &Message,
        upstream: Path,
        state: Upstream,
        data: T,
    ) -> Result<TxnId, Full> {
        if self.live >= self.config.max_transactions {
            self.stats.refused += 1;
            return Err(Full);
        }
        let expected = self.expected.pop_front().and_then(|id| self.take_slot(id));
        let index = expected.or_else(|| self.free.pop()).unwrap_or_else(|| self.add_slot());
        let id = TxnId { index, generation: self.slots[index as usize].generation };
        if let Some(made) = &mut self.made {
            made.push(id);
        }
        let is_invite = request.method() == Method::Invite;
        let call_key = if is_invite { self.keys.call_of(request) } else { None };
        if let Some(key) = call_key {
            self.by_call.insert(key, index);
        }
        let end = self.wheel.set(now.after(self.config.unanswered.into()).0, Due::End(index));
        self.slots[index as usize].txn = Some(Box::new(Txn {
            id,
            data,
            branches: Vec::new(),
            upstream,
            last_reply: Bytes::new(),
            hop_headers: Bytes::new(),
            key: None,
            call_key,
            fr: self.config.fr,
            fr_inv: self.config.fr_inv,
            again: TimerId::NONE,
            interval: 0,
            end,
            status: 0,
            first: 0,
            first_before: 0,
            starts_set: false,
            awaited: 0,
            state,
            is_invite,
            cancelled: false,
            declined: false,
            concluded: false,
            keep_branches: false,
        }));
        self.live += 1;
        Ok(id)
    }

    fn add_slot(&mut self) -> u32 {
        let index = self.slots.len() as u32;
        let generation = (crate::key::mix(self.seed ^ (self.round << 32) ^ u64::from(index)) >> 32) as u32;
        self.slots.push(Slot { generation, txn: None });
        index
    }

    /// From now on `take_made` has something to give.
    pub fn note_made(&mut self) {
        self.made = Some(Vec::new());
    }

    /// The ids of the transactions that were made since it was asked last.
    pub fn take_made(&mut self) -> Vec<TxnId> {
        self.made.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The transactions that are made next get these ids, as those of a recording had. An id whose slot is in use is
    /// skipped.
    pub fn expect(&mut self, ids: impl IntoIterator<Item = TxnId>) {
        self.expected.clear();
        self.expected.extend(ids);
    }

    /// The slot of an expected id, if it is free.
    fn take_slot(&mut self, id: TxnId) -> Option<u32> {
        while self.slots.len() <= id.index as usize {
            let index = self.add_slot();
            self.free.push(index);
        }
        // Ids seldom differ from what is next, so this is seldom long.
        let at = self.free.iter().rposition(|index| *index == id.index)?;
        self.free.remove(at);
        self.slots[id.index as usize].generation = id.generation;
        Some(id.index)
    }

    /// The data of a transaction that is still there.
    pub fn get(&self, id: TxnId) -> Option<&T> {
        self.txn(id).map(|txn| &txn.data)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: TxnId) -> Option<&mut T> {
        self.txn_mut(id).map(|txn| &mut txn.data)
    }

    /// All that have not ended.
    pub fn iter(&self) -> impl Iterator<Item = (TxnId, &T)> {
        let live = self.slots.iter().filter_map(|slot| slot.txn.as_deref());
        live.filter(|txn| txn.state != Upstream::Ended).map(|txn| (txn.id, &txn.data))
    }

    /// Branches whose final reply has not come, also of transactions that were answered without it.
    pub fn pending_branches(&self) -> usize {
        let live = self.slots.iter().filter_map(|slot| slot.txn.as_deref());
        live.map(|txn| txn.branches.iter().filter(|branch| branch.is_pending()).count()).sum()
    }

    /// The Via branch of a branch's request: its replies find it.
    pub fn via_branch(&self, id: TxnId, branch: u16) -> ViaBranch {
        Cookie { worker: self.worker, txn: id, branch }.text()
    }

    /// The branch that a reply is for. `None`: a stray one, or its CSeq names another method than was sent.
    pub fn match_reply(&self, reply: &Message) -> Option<(TxnId, u16)> {
        let cookie = Cookie::parse(reply.via()?.branch_slice()?)?;
        let branch = self.txn(cookie.txn)?.branches.get(usize::from(cookie.branch))?;
        (cookie.worker == self.worker && branch.expects(reply)).then_some((cookie.txn, cookie.branch))
    }

    /// Ends a transaction at once, whatever is open. Nothing is sent.
    pub fn remove(&mut self, id: TxnId) -> Option<T> {
        self.txn(id)?;
        self.unhook(id);
        let txn = self.take(id.index)?;
        Some(txn.data)
    }

    /// Ends a transaction that nobody answers: it goes on absorbing retransmissions for `wait`.
    pub fn release(&mut self, now: Instant, id: TxnId) {
        let at = now.after(self.config.wait.into());
        let Some(txn) = self.txn_mut(id) else { return };
        if txn.is_open() {
            txn.state = Upstream::Confirmed;
            self.set_end(id, at);
        }
    }

    /// Asks again later: somebody still works on an unanswered transaction.
    pub fn hold(&mut self, now: Instant, id: TxnId) {
        let at = now.after(self.config.unanswered.into());
        if self.txn(id).is_some_and(|txn| txn.is_open()) {
            self.set_end(id, at);
        }
    }

    /// A request of this server stays until then, although it has its final reply.
    pub fn linger(&mut self, id: TxnId, until: Instant) {
        if self.txn(id).is_some_and(|txn| txn.state == Upstream::Completed && txn.key.is_none()) {
            self.set_end(id, until);
        }
    }

    pub(crate) fn set_end(&mut self, id: TxnId, at: Instant) {
        let Some(txn) = txn_of(&mut self.slots, id) else { return };
        self.wheel.cancel(&mut txn.end);
        txn.end = self.wheel.set(at.0, Due::End(id.index));
    }

    /// Life is over: found no more, its data stays until the next `on_timer`.
    pub(crate) fn end(&mut self, id: TxnId) {
        self.unhook(id);
        self.ended.push(id.index);
        self.outputs.push_back(Output::Event(Event::Ended { txn: id }));
    }

    pub(crate) fn drop_ended(&mut self) {
        while let Some(index) = self.ended.pop() {
            self.take(index);
        }
        if self.live == 0 && self.slots.len() > KEPT {
            self.give_back();
        }
    }

    /// Ids of before find nothing in the slots that come.
    #[cold]
    fn give_back(&mut self) {
        self.round += 1;
        (self.slots, self.free) = (Vec::new(), Vec::new());
        (self.by_request, self.by_call) = (KeyMap::default(), KeyMap::default());
        self.ended.shrink_to(KEPT);
        self.outputs.shrink_to(KEPT);
    }

    fn unhook(&mut self, id: TxnId) {
        let Some(txn) = txn_of(&mut self.slots, id) else { return };
        if txn.state == Upstream::Ended {
            return;
        }
        txn.state = Upstream::Ended;
        self.live -= 1;
        self.wheel.cancel(&mut txn.again);
        self.wheel.cancel(&mut txn.end);
        for branch in &mut txn.branches {
            branch.stop(&mut self.wheel);
        }
        for (map, key) in [(&mut self.by_request, txn.key), (&mut self.by_call, txn.call_key)] {
            if let Some(key) = key.filter(|key| map.get(key) == Some(&id.index)) {
                map.remove(&key);
            }
        }
    }

    /// Frees a slot whose transaction is unhooked.
    fn take(&mut self, index: u32) -> Option<Box<Txn<T, B>>> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.txn.as_ref()?.state != Upstream::Ended {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.txn.take()
    }

    pub(crate) fn at(&self, index: u32) -> Option<&Txn<T, B>> {
        self.slots.get(index as usize)?.txn.as_deref()
    }

    pub(crate) fn txn(&self, id: TxnId) -> Option<&Txn<T, B>> {
        self.at(id.index).filter(|txn| txn.id == id)
    }

    pub(crate) fn txn_mut(&mut self, id: TxnId) -> Option<&mut Txn<T, B>> {
        txn_of(&mut self.slots, id)
    }

    /// A transaction together with what its changes touch.
    pub(crate) fn parts(&mut self, id: TxnId) -> Option<Parts<'_, T, B>> {
        let txn = txn_of(&mut self.slots, id).filter(|txn| txn.state != Upstream::Ended)?;
        Some(Parts {
            txn,
            wheel: &mut self.wheel,
            outputs: &mut self.outputs,
            stats: &mut self.stats,
            config: &self.config,
        })
    }
}

/// Borrowed pieces of `Transactions`.
pub(crate) struct Parts<'a, T, B> {
    pub(crate) txn: &'a mut Txn<T, B>,
    pub(crate) wheel: &'a mut Wheel<Due>,
    pub(crate) outputs: &'a mut VecDeque<Output>,
    pub(crate) stats: &'a mut Stats,
    pub(crate) config: &'a Config,
}

fn txn_of<T, B>(slots: &mut [Slot<T, B>], id: TxnId) -> Option<&mut Txn<T, B>> {
    slots.get_mut(id.index as usize)?.txn.as_deref_mut().filter(|txn| txn.id == id)
}

impl<T, B> Txn<T, B> {
    /// No final reply went upstream.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, Upstream::Trying | Upstream::Proceeding | Upstream::Local)
    }
}
