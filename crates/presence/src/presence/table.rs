//! All subscriptions of this server, and which users have published something. Sharded; a lock is held for a look or a
//! change, never across a wait.

use super::subscription::{Dialog, Subscription};
use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub const SHARDS: usize = 64;

/// Subscriptions that one server keeps. Reaching it refuses further ones with 500 and is logged.
pub const MAX_SUBSCRIPTIONS: usize = 2_000_000;

/// Whom a subscription watches, and which package.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// "sip:user@domain"
    pub uri: Bytes,
    pub package: u8,
}

#[derive(Default)]
struct Shard {
    /// Subscriptions in the order in which they came: by their numbers.
    groups: AHashMap<Arc<Key>, BTreeMap<u64, Subscription>>,
    /// Where subscriptions are whose dialog hashes here: a user may have a hundred thousand watchers, and every
    /// NOTIFY finds its own.
    dialogs: AHashMap<u64, Place>,
}

/// Where a subscription is.
#[derive(Clone)]
struct Place {
    key: Arc<Key>,
    number: u64,
}

/// The subscriptions.
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    hash: RandomState,
    count: AtomicUsize,
    next: AtomicU64,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: RandomState::new(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(0),
        }
    }
}

impl Table {
    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[self.hash.hash_one(key) as usize % SHARDS]
    }

    pub fn subscriptions(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// False: there are too many.
    pub fn insert(&self, key: &Arc<Key>, subscription: Subscription) -> bool {
        if self.subscriptions() >= MAX_SUBSCRIPTIONS {
            return false;
        }
        let dialog = self.hash.hash_one(subscription.dialog());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = Place { key: key.clone(), number };
        self.shards[dialog as usize % SHARDS].lock().dialogs.insert(dialog, place);
        self.shard(key).lock().groups.entry(key.clone()).or_default().insert(number, subscription);
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn place(&self, dialog: &Dialog) -> Option<Place> {
        let hash = self.hash.hash_one(dialog);
        self.shards[hash as usize % SHARDS].lock().dialogs.get(&hash).cloned()
    }

    /// Whom the subscription of a dialog watches.
    pub fn key_of(&self, dialog: &Dialog) -> Option<Arc<Key>> {
        self.place(dialog).map(|place| place.key)
    }

    /// Reads or changes one.
    pub fn with<R>(&self, key: &Key, dialog: &Dialog, f: impl FnOnce(&mut Subscription) -> R) -> Option<R> {
        let number = self.place(dialog)?.number;
        let mut shard = self.shard(key).lock();
        shard.groups.get_mut(key)?.get_mut(&number).filter(|s| s.is(dialog)).map(f)
    }

    pub fn remove(&self, key: &Key, dialog: &Dialog) -> Option<Subscription> {
        let number = self.place(dialog)?.number;
        let gone = {
            let mut shard = self.shard(key).lock();
            let group = shard.groups.get_mut(key)?;
            group.get(&number).filter(|s| s.is(dialog))?;
            let gone = group.remove(&number)?;
            if group.is_empty() {
                shard.groups.remove(key);
            }
            gone
        };
        self.forget(std::slice::from_ref(&gone));
        Some(gone)
    }

    /// Takes those out that `f` says, of one key.
    pub fn take(&self, key: &Key, f: impl FnMut(&mut Subscription) -> bool) -> Vec<Subscription> {
        let taken = {
            let mut shard = self.shard(key).lock();
            let Some(group) = shard.groups.get_mut(key) else { return Vec::new() };
            let taken = taken_out(group, f);
            if group.is_empty() {
                shard.groups.remove(key);
            }
            taken
        };
        self.forget(&taken);
        taken
    }

    fn forget(&self, gone: &[Subscription]) {
        for subscription in gone {
            let hash = self.hash.hash_one(subscription.dialog());
            self.shards[hash as usize % SHARDS].lock().dialogs.remove(&hash);
        }
        self.count.fetch_sub(gone.len(), Ordering::Relaxed);
    }

    /// Looks at those of one key, in the order in which they came.
    pub fn each_of(&self, key: &Key, f: impl FnMut(&mut Subscription)) {
        if let Some(group) = self.shard(key).lock().groups.get_mut(key) {
            group.values_mut().for_each(f);
        }
    }

    pub fn any_of(&self, key: &Key, f: impl FnMut(&Subscription) -> bool) -> bool {
        self.shard(key).lock().groups.get(key).is_some_and(|group| group.values().any(f))
    }

    /// Looks at all of one shard.
    pub fn each_in(&self, shard: usize, mut f: impl FnMut(&Arc<Key>, &mut Subscription)) {
        for (key, group) in &mut self.shards[shard].lock().groups {
            group.values_mut().for_each(|s| f(key, s));
        }
    }

    /// Takes out what has expired in one shard.
    pub fn expire(&self, shard: usize, now: u32) -> Vec<(Arc<Key>, Subscription)> {
        let mut gone = Vec::new();
        {
            let mut shard = self.shards[shard].lock();
            shard.groups.retain(|key, group| {
                gone.extend(taken_out(group, |s| s.expires < now).into_iter().map(|s| (key.clone(), s)));
                !group.is_empty()
            });
        }
        let subscriptions: Vec<Subscription> = gone.iter().map(|(_, s)| s.clone()).collect();
        self.forget(&subscriptions);
        gone
    }
}

/// Takes those out of a group that `f` says, in their order.
fn taken_out(
    group: &mut BTreeMap<u64, Subscription>,
    mut f: impl FnMut(&mut Subscription) -> bool,
) -> Vec<Subscription> {
    let numbers: Vec<u64> = group.iter_mut().filter_map(|(n, s)| f(s).then_some(*n)).collect();
    numbers.iter().filter_map(|n| group.remove(n)).collect()
}

/// One published state.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    pub etag: Bytes,
    /// Times that its tag was changed.
    pub count: u32,
    pub sphere: Option<String>,
}

/// Who has published what; the bodies are in the database.
pub struct Presentities {
    shards: Box<[Mutex<AHashMap<Key, Vec<Published>>>]>,
    hash: RandomState,
}

impl Default for Presentities {
    fn default() -> Presentities {
        Presentities { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hash: RandomState::new() }
    }
}

impl Presentities {
    fn shard(&self, key: &Key) -> &Mutex<AHashMap<Key, Vec<Published>>> {
        &self.shards[self.hash.hash_one(key) as usize % SHARDS]
    }

    pub fn has(&self, key: &Key) -> bool {
        self.shard(key).lock().contains_key(key)
    }

    pub fn find(&self, key: &Key, etag: &[u8]) -> Option<Published> {
        self.shard(key).lock().get(key)?.iter().find(|p| p.etag == etag).cloned()
    }

    pub fn sphere(&self, key: &Key) -> Option<String> {
        self.shard(key).lock().get(key)?.iter().find_map(|p| p.sphere.clone())
    }

    pub fn insert(&self, key: &Key, published: Published) {
        self.shard(key).lock().entry(key.clone()).or_default().push(published);
    }

    /// A state has a new tag; false: it is not here.
    pub fn renew(&self, key: &Key, etag: &[u8], new: &Published) -> bool {
        let mut shard = self.shard(key).lock();
        let old = shard.get_mut(key).and_then(|all| all.iter_mut().find(|p| p.etag == etag));
        old.map(|old| *old = new.clone()).is_some()
    }

    pub fn remove(&self, key: &Key, etag: &[u8]) {
        let mut shard = self.shard(key).lock();
        if let Some(all) = shard.get_mut(key) {
            all.retain(|p| p.etag != etag);
            if all.is_empty() {
                shard.remove(key);
            }
        }
    }

    pub fn each(&self, mut f: impl FnMut(&Key, &Published)) {
        for shard in &self.shards {
            for (key, all) in &*shard.lock() {
                all.iter().for_each(|p| f(key, p));
            }
        }
    }
}

/// Whose turn it is: PUBLISH and SUBSCRIBE for one user and package are handled one after the other, whichever workers
/// they come to, so that NOTIFYs tell things in the order in which they happened.
pub struct Turns(Mutex<Taken>);

struct Taken {
    by_key: AHashMap<Key, Arc<tokio::sync::Mutex<()>>>,
    /// When there are so many, those are forgotten that nobody holds or waits for.
    sweep_at: usize,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns(Mutex::new(Taken { by_key: AHashMap::new(), sweep_at: 1024 }))
    }
}

impl Turns {
    /// Waits for its turn, which lasts until the guard is dropped.
    pub async fn take(&self, key: &Key) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut taken = self.0.lock();
            if taken.by_key.len() >= taken.sweep_at {
                taken.by_key.retain(|_, turn| Arc::strong_count(turn) > 1);
                taken.sweep_at = (taken.by_key.len() * 2).max(1024);
            }
            taken.by_key.entry(key.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::subscription::Status;
    use super::*;

    fn key(uri: &'static str) -> Arc<Key> {
        Arc::new(Key { uri: Bytes::from_static(uri.as_bytes()), package: 0 })
    }

    fn sub(call_id: &str, expires: u32) -> Subscription {
        let texts = ["a", "x", "b", "x", call_id, "t", "f", "sip:c@x", "", "", "", ""]
            .map(|t| Bytes::copy_from_slice(t.as_bytes()));
        Subscription::new(&texts, expires, Status::Active)
    }

    #[test]
    fn subscriptions_come_and_go() {
        let (table, bob, carol) = (Table::default(), key("sip:bob@x"), key("sip:carol@x"));
        for (key, call_id, expires) in [(&bob, "1", 10), (&bob, "2", 20), (&carol, "3", 30)] {
            assert!(table.insert(key, sub(call_id, expires)));
        }
        let dialog = sub("2", 0).dialog();
        assert_eq!(table.key_of(&dialog).as_ref(), Some(&bob));
        assert_eq!(table.with(&bob, &dialog, |s| s.expires), Some(20));
        let gone: Vec<_> = (0..SHARDS).flat_map(|shard| table.expire(shard, 15)).collect();
        assert_eq!(gone.len(), 1);
        assert!(table.key_of(&sub("1", 0).dialog()).is_none());
        assert!(table.remove(&bob, &dialog).is_some() && table.remove(&bob, &dialog).is_none());
        assert_eq!(table.subscriptions(), 1);
        assert!(!table.any_of(&bob, |_| true) && table.any_of(&carol, |_| true));
    }

    #[test]
    fn published_states() {
        let (all, key) = (Presentities::default(), key("sip:bob@x"));
        let one = Published { etag: "1".into(), count: 0, sphere: None };
        all.insert(&key, one.clone());
        assert!(all.renew(&key, b"1", &Published { etag: "2".into(), count: 1, ..one }));
        assert_eq!(all.find(&key, b"2").map(|p| p.count), Some(1));
        all.remove(&key, b"2");
        assert!(!all.has(&key));
    }
}
