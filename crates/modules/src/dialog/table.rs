//! The dialogs of one worker.

use super::cell::{Data, Dialog, Text};
use super::did::{self, Did};
use ahash::AHashMap;
use host::Ctx;
use smallvec::SmallVec;
use std::collections::{BTreeSet, VecDeque};
use transaction::Instant;

/// A dialog of this worker; a stale key finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    index: u32,
    generation: u32,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    dialog: Option<Box<Dialog>>,
}

/// What a dialog's timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Due {
    /// Its lifetime is over.
    End,
    Options,
    Reinvite,
    /// Its memory is given back.
    Forget,
}

/// Dialogs by the ways they are looked for. No lock: everything about a call happens on its worker.
#[derive(Default)]
pub struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_did: AHashMap<Did, Key>,
    /// By the hash of the Call-ID; usually one.
    by_call: AHashMap<u64, SmallVec<[Key; 1]>>,
    due: BTreeSet<(Instant, Key, Due)>,
    /// Changes are collected for a database.
    pub(super) collects: bool,
    /// What has changed since it was written, in the order of the changes.
    unsaved: VecDeque<Key>,
    /// Rows of dialogs that are no more.
    gone: Vec<Did>,
    /// The same for the store of other nodes.
    pub(super) shares: bool,
    unshared: VecDeque<Key>,
    unlisted: Vec<(Did, Text)>,
}

/// Dialogs of one worker; `create_dialog` fails above it.
pub const MAX_DIALOGS: usize = 2_000_000;

impl Table {
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// `None`: there are too many, or this identity is taken.
    pub fn insert(&mut self, data: Data) -> Option<Key> {
        if self.len() >= MAX_DIALOGS || self.by_did.contains_key(&data.did) {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        let key = Key { index, generation: slot.generation };
        self.by_did.insert(data.did, key);
        self.by_call.entry(did::hash(&data.call_id)).or_default().push(key);
        slot.dialog = Some(Box::new(data.into()));
        Some(key)
    }

    pub fn get(&self, key: Key) -> Option<&Dialog> {
        let slot = self.slots.get(key.index as usize).filter(|s| s.generation == key.generation)?;
        slot.dialog.as_deref()
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Dialog> {
        let slot = self.slots.get_mut(key.index as usize).filter(|s| s.generation == key.generation)?;
        slot.dialog.as_deref_mut()
    }

    /// Takes a dialog out; its timers with it.
    pub fn remove(&mut self, key: Key) -> Option<Box<Dialog>> {
        let slot = self.slots.get_mut(key.index as usize).filter(|s| s.generation == key.generation)?;
        let dialog = slot.dialog.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        self.by_did.remove(&dialog.did);
        let hash = did::hash(&dialog.call_id);
        if let Some(keys) = self.by_call.get_mut(&hash) {
            keys.retain(|k| *k != key);
            if keys.is_empty() {
                self.by_call.remove(&hash);
            }
        }
        for (at, what) in timers(&dialog) {
            self.due.remove(&(at, key, what));
        }
        if dialog.stored && self.collects {
            self.gone.push(dialog.did);
        }
        if let Some(tag) = dialog.tag.clone().filter(|_| dialog.shared) {
            self.unlisted.push((dialog.did, tag));
        }
        Some(dialog)
    }

    /// Its row is to be written.
    fn touch(&mut self, key: Key) {
        if !self.collects {
            return;
        }
        if let Some(dialog) = self.get_mut(key).filter(|d| !d.unsaved) {
            dialog.unsaved = true;
            self.unsaved.push_back(key);
        }
    }

    /// Up to `most` dialogs that have changed, and the rows that are to go.
    pub fn take_unsaved(&mut self, most: usize) -> (Vec<Key>, Vec<Did>) {
        let keys: Vec<Key> = self.unsaved.drain(..most.min(self.unsaved.len())).collect();
        for key in &keys {
            if let Some(dialog) = self.get_mut(*key) {
                dialog.unsaved = false;
            }
        }
        (keys, std::mem::take(&mut self.gone))
    }

    /// The store of other nodes is to learn of the dialog. False: it is not shared.
    fn share(&mut self, key: Key) -> bool {
        let Some(dialog) = self.get_mut(key).filter(|d| d.tag.is_some()) else { return false };
        if !std::mem::replace(&mut dialog.unshared, true) {
            self.unshared.push_back(key);
        }
        true
    }

    /// Up to `most` shared dialogs that have changed, and those that are no more.
    pub fn take_unshared(&mut self, most: usize) -> (Vec<Key>, Vec<(Did, Text)>) {
        let keys: Vec<Key> = self.unshared.drain(..most.min(self.unshared.len())).collect();
        for key in &keys {
            if let Some(dialog) = self.get_mut(*key) {
                dialog.unshared = false;
            }
        }
        (keys, std::mem::take(&mut self.unlisted))
    }

    pub fn has_unshared(&self) -> bool {
        !self.unshared.is_empty() || !self.unlisted.is_empty()
    }

    /// The store did not take them: they go again.
    pub fn not_shared(&mut self, keys: Vec<Key>, gone: Vec<(Did, Text)>) {
        for key in keys {
            self.share(key);
        }
        self.unlisted.extend(gone);
    }

    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty() || !self.gone.is_empty()
    }

    /// The write failed: all of it goes again.
    pub fn not_written(&mut self, keys: Vec<Key>, gone: Vec<Did>) {
        for key in keys {
            // Its row may be there or not; what the next write does fits both.
            if let Some(dialog) = self.get_mut(key) {
                dialog.stored = true;
                self.touch(key);
            }
        }
        self.gone.extend(gone);
    }

    pub fn by_did(&self, did: Did) -> Option<Key> {
        self.by_did.get(&did).copied()
    }

    /// Dialogs with this Call-ID, the newest first.
    pub fn by_call_id(&self, call_id: &[u8]) -> impl Iterator<Item = Key> + '_ {
        let keys = self.by_call.get(&did::hash(call_id)).map_or(&[][..], |keys| &keys[..]);
        let call_id = call_id.to_vec();
        keys.iter().rev().copied().filter(move |key| self.get(*key).is_some_and(|d| *d.call_id == *call_id))
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| slot.dialog.is_some());
        slots.map(|(index, slot)| Key { index: index as u32, generation: slot.generation })
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &Dialog)> {
        self.keys().filter_map(|key| Some((key, self.get(key)?)))
    }

    /// Changes a timer of a dialog.
    pub fn set_due(&mut self, key: Key, what: Due, at: Option<Instant>) {
        let Some(dialog) = self.get_mut(key) else { return };
        let set = match what {
            Due::End => dialog.ends,
            Due::Forget => dialog.forgotten,
            Due::Options => dialog.options.next,
            Due::Reinvite => dialog.reinvites.next,
        };
        // Most have no pings, and no memory for them.
        if set == at {
            return;
        }
        let slot = match what {
            Due::End => &mut dialog.ends,
            Due::Forget => &mut dialog.forgotten,
            Due::Options => &mut dialog.options.next,
            Due::Reinvite => &mut dialog.reinvites.next,
        };
        let before = std::mem::replace(slot, at);
        if let Some(before) = before {
            self.due.remove(&(before, key, what));
        }
        if let Some(at) = at {
            self.due.insert((at, key, what));
        }
    }

    /// The next timer that is due, taken out.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Key, Due)> {
        let (at, key, what) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.set_due(key, what, None);
        // A timer of a dialog that is gone has gone with it; do not spin if not.
        self.due.remove(&(at, key, what));
        Some((key, what))
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, ..)| *at)
    }
}

fn timers(dialog: &Dialog) -> impl Iterator<Item = (Instant, Due)> {
    [
        (dialog.ends, Due::End),
        (dialog.forgotten, Due::Forget),
        (dialog.options.next, Due::Options),
        (dialog.reinvites.next, Due::Reinvite),
    ]
    .into_iter()
    .filter_map(|(at, what)| Some((at?, what)))
}

/// Changes a timer of a dialog.
pub fn set_due(ctx: &mut Ctx, key: Key, what: Due, at: Option<Instant>) {
    of(ctx).set_due(key, what, at);
    if at.is_some() {
        super::timers::arm(ctx);
    }
}

/// The dialog has changed: its row is to be written.
pub fn touch(ctx: &mut Ctx, key: Key) {
    let table = of(ctx);
    if table.collects {
        table.touch(key);
        super::db::soon(ctx);
    }
    let table = of(ctx);
    if table.shares && table.share(key) {
        super::handover::soon(ctx);
    }
}

/// The table of this worker.
pub fn of(ctx: &mut Ctx) -> &mut Table {
    ctx.local::<Table>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sip::NameAddr;

    fn dialog(call_id: &str, id: u32) -> Data {
        let addr = NameAddr::parse(&Bytes::from_static(b"<sip:a@x>")).expect("an address");
        Data::new(Did::new(call_id.as_bytes(), did::ENTRIES, id), call_id.as_bytes(), &addr, &addr, b"t")
    }

    #[test]
    fn what_is_gone_is_not_found() {
        let mut table = Table::default();
        let first = table.insert(dialog("a", 1)).expect("room");
        let second = table.insert(dialog("a", 2)).expect("room");
        assert_eq!(table.insert(dialog("a", 2)), None, "taken");
        assert_eq!(table.by_call_id(b"a").collect::<Vec<_>>(), [second, first]);
        table.set_due(first, Due::End, Some(Instant(5)));
        table.set_due(second, Due::End, Some(Instant(7)));
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        let third = table.insert(dialog("b", 3)).expect("room");
        assert!(table.get(first).is_none() && table.get(third).is_some(), "the place is used again");
        assert_eq!(table.pop_due(Instant(6)), None);
        assert_eq!(table.pop_due(Instant(7)), Some((second, Due::End)));
        assert_eq!((table.next_due(), table.len()), (None, 2));
    }

    #[test]
    fn timers_move() {
        let mut table = Table::default();
        let key = table.insert(dialog("a", 1)).expect("room");
        table.set_due(key, Due::End, Some(Instant(5)));
        table.set_due(key, Due::End, Some(Instant(9)));
        table.set_due(key, Due::Options, Some(Instant(6)));
        assert_eq!(table.pop_due(Instant(8)), Some((key, Due::Options)));
        assert_eq!(table.pop_due(Instant(8)), None);
        table.set_due(key, Due::End, None);
        assert_eq!(table.next_due(), None);
    }
}
