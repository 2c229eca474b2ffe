//! Timers: a hierarchical wheel, exact to the millisecond, insertion and removal in constant time.
//!
//! Level 0 has a slot for each of the next 64 ms, each further level 64 times coarser ones. A slot is a
//! doubly linked list through a slab of nodes, so that a cancelled timer leaves at once.

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 7;
/// Farther than this ahead (about 139 years) is the same as this.
const HORIZON: u64 = 1 << (BITS * LEVELS as u32 - 1);
const NONE: u32 = u32::MAX;

/// Room for more timers than this is given back when the last of them is gone.
const KEPT: usize = 1024;

/// A timer that was set; `TimerId::NONE` when it is not. A copy of one that has fired or was cancelled finds
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId {
    index: u32,
    /// Which use of the node this is.
    turn: u32,
}

impl TimerId {
    /// No timer.
    pub const NONE: TimerId = TimerId { index: NONE, turn: 0 };
}

struct Node<K> {
    at: u64,
    next: u32,
    prev: u32,
    turn: u32,
    /// level × 64 + slot
    slot: u16,
    /// `None`: a free node.
    key: Option<K>,
}

/// Timers in the order of their moments, each with a key that says what is due. Moments are milliseconds of one
/// clock that never goes back.
pub struct Wheel<K> {
    /// Everything before this moment has fired.
    now: u64,
    /// Counts what was set, so that a node's uses are told apart.
    turn: u32,
    nodes: Vec<Node<K>>,
    free: u32,
    heads: Box<[u32; SLOTS * LEVELS]>,
    tails: Box<[u32; SLOTS * LEVELS]>,
    /// Bit n: slot n of the level holds something.
    occupied: [u64; LEVELS],
    len: usize,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Wheel {
            now: 0,
            turn: 0,
            nodes: Vec::new(),
            free: NONE,
            heads: Box::new([NONE; SLOTS * LEVELS]),
            tails: Box::new([NONE; SLOTS * LEVELS]),
            occupied: [0; LEVELS],
            len: 0,
        }
    }
}

impl<K> Wheel<K> {
    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No timer is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A moment that has passed fires with the next `pop`.
    pub fn set(&mut self, at: u64, key: K) -> TimerId {
        let at = at.clamp(self.now, self.now + HORIZON);
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let node = Node { at, next: NONE, prev: NONE, turn, slot: 0, key: Some(key) };
        let index = match self.free {
            NONE => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
            index => {
                self.free = self.nodes[index as usize].next;
                self.nodes[index as usize] = node;
                index
            }
        };
        self.link(index);
        self.len += 1;
        TimerId { index, turn }
    }

    /// Takes the timer out and gives its key back; `None` when it has fired or was taken out before. `id` becomes
    /// NONE.
    pub fn cancel(&mut self, id: &mut TimerId) -> Option<K> {
        let TimerId { index, turn } = std::mem::replace(id, TimerId::NONE);
        let node = self.nodes.get(index as usize)?;
        if node.turn != turn || node.key.is_none() {
            return None;
        }
        self.unlink(index);
        self.release(index)
    }

    /// When the next timer may be due: never later than it is, and exact within the next 64 ms.
    pub fn next(&self) -> Option<u64> {
        let (level, slot) = self.first_slot()?;
        Some(self.start_of(level, slot))
    }

    /// The next timer that is due at `now`, in the order of their moments, then of setting.
    pub fn pop(&mut self, now: u64) -> Option<K> {
        while let Some((level, slot)) = self.first_slot() {
            let start = self.start_of(level, slot);
            if start > now {
                break;
            }
            self.now = self.now.max(start);
            let at = level * SLOTS + slot;
            let index = self.heads[at];
            if level == 0 {
                self.unlink(index);
                return self.release(index);
            }
            self.spread(at);
        }
        self.now = self.now.max(now);
        None
    }

    /// Moves a slot's timers to finer levels, keeping their order.
    fn spread(&mut self, at: usize) {
        let mut index = std::mem::replace(&mut self.heads[at], NONE);
        self.tails[at] = NONE;
        self.occupied[at / SLOTS] &= !(1 << (at % SLOTS));
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    /// The level of a moment is that of the highest digit (base 64) in which it differs from now.
    fn place(&self, at: u64) -> usize {
        let differs = (at ^ self.now) | (SLOTS as u64 - 1);
        let level = ((63 - differs.leading_zeros()) / BITS) as usize;
        let level = level.min(LEVELS - 1);
        level * SLOTS + (at >> (BITS * level as u32)) as usize % SLOTS
    }

    fn link(&mut self, index: u32) {
        let slot = self.place(self.nodes[index as usize].at);
        let last = self.tails[slot];
        let node = &mut self.nodes[index as usize];
        node.slot = slot as u16;
        node.prev = last;
        node.next = NONE;
        match last {
            NONE => self.heads[slot] = index,
            last => self.nodes[last as usize].next = index,
        }
        self.tails[slot] = index;
        self.occupied[slot / SLOTS] |= 1 << (slot % SLOTS);
    }

    fn unlink(&mut self, index: u32) {
        let Node { next, prev, slot, .. } = self.nodes[index as usize];
        let slot = usize::from(slot);
        match prev {
            NONE => self.heads[slot] = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            NONE => self.tails[slot] = prev,
            next => self.nodes[next as usize].prev = prev,
        }
        if self.heads[slot] == NONE {
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    fn release(&mut self, index: u32) -> Option<K> {
        let node = &mut self.nodes[index as usize];
        let key = node.key.take();
        node.next = self.free;
        self.free = index;
        self.len -= 1;
        if self.len == 0 && self.nodes.capacity() > KEPT {
            self.nodes = Vec::new();
            self.free = NONE;
        }
        key
    }

    /// The occupied slot whose time comes first: the finest level that has one at or after now's.
    fn first_slot(&self) -> Option<(usize, usize)> {
        (0..LEVELS).find_map(|level| {
            let here = (self.now >> (BITS * level as u32)) as u32 % SLOTS as u32;
            let ahead = self.occupied[level].rotate_right(here);
            (ahead != 0).then(|| (level, (ahead.trailing_zeros() + here) as usize % SLOTS))
        })
    }

    fn start_of(&self, level: usize, slot: usize) -> u64 {
        let shift = BITS * level as u32;
        let turn = self.now >> shift;
        let here = turn % SLOTS as u64;
        let turns = (turn - here) + slot as u64 + if (slot as u64) < here { SLOTS as u64 } else { 0 };
        (turns << shift).max(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_and_cancellation() {
        let mut wheel = Wheel::default();
        let mut ids: Vec<_> =
            [500, 3, 3, 70_000, 64, 0, 4096].iter().enumerate().map(|(i, at)| wheel.set(*at, i)).collect();
        wheel.cancel(&mut ids[4]);
        assert_eq!(wheel.next(), Some(0));
        assert_eq!(wheel.pop(0), Some(5));
        assert_eq!(wheel.pop(2), None);
        assert_eq!(wheel.next(), Some(3));
        let fired: Vec<_> = std::iter::from_fn(|| wheel.pop(1 << 20)).collect();
        assert_eq!(fired, [1, 2, 0, 6, 3]);
        assert_eq!((wheel.len(), wheel.next()), (0, None));
        wheel.set(5, 9);
        assert_eq!(wheel.pop(1 << 20), Some(9), "a moment that has passed");
    }

    #[test]
    fn copies_of_what_is_gone_find_nothing() {
        let mut wheel = Wheel::default();
        let mut first = wheel.set(5, "first");
        let mut copy = first;
        assert_eq!(wheel.cancel(&mut first), Some("first"));
        let mut second = wheel.set(6, "second");
        assert_eq!((first, wheel.cancel(&mut copy)), (TimerId::NONE, None), "the same node, another timer");
        assert_eq!(wheel.pop(6), Some("second"));
        assert_eq!(wheel.cancel(&mut second), None);
    }

    #[test]
    fn room_is_given_back() {
        let mut wheel = Wheel::default();
        let ids: Vec<_> = (0..10_000).map(|n| wheel.set(n, n)).collect();
        let stale = ids[7];
        ids.into_iter().for_each(|mut id| assert!(wheel.cancel(&mut id).is_some()));
        assert_eq!((wheel.len(), wheel.nodes.capacity()), (0, 0));
        wheel.set(1, 1);
        assert_eq!(wheel.cancel(&mut { stale }), None);
    }

    proptest! {
        /// Like a sorted list: nothing early, nothing late, nothing lost, in order.
        #[test]
        fn behaves_like_a_sorted_list(
            steps in proptest::collection::vec((0u8..4, 0u64..300_000, 0usize..50), 1..200)
        ) {
            let mut wheel = Wheel::default();
            let mut model: Vec<(u64, usize)> = Vec::new();
            let mut ids: Vec<TimerId> = Vec::new();
            let mut now = 0;
            for (what, n, which) in steps {
                match what {
                    0 | 1 => {
                        model.push((now + n, ids.len()));
                        ids.push(wheel.set(now + n, ids.len()));
                    }
                    2 => {
                        if let Some(at) = model.iter().position(|(_, key)| *key == which) {
                            model.remove(at);
                            wheel.cancel(&mut ids[which]);
                        }
                    }
                    _ => {
                        now += n;
                        model.sort();
                        while let Some(key) = wheel.pop(now) {
                            prop_assert!(!model.is_empty());
                            let (at, expected) = model.remove(0);
                            prop_assert!(at <= now);
                            prop_assert_eq!(key, expected);
                        }
                        prop_assert!(model.iter().all(|(at, _)| *at > now));
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.iter().map(|(at, _)| *at).min();
                match (wheel.next(), first) {
                    (Some(next), Some(first)) => prop_assert!(next <= first),
                    (next, first) => prop_assert_eq!(next, first),
                }
            }
        }
    }
}
