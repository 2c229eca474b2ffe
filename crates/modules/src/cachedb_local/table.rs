//! One collection: keys and values of all workers, in shards.

use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use host::cachedb::CacheError;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SHARDS: usize = 64;
/// More keys than this in one collection are refused.
const MAX_KEYS: usize = 10_000_000;

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    value: Bytes,
    /// Milliseconds of the workers' clock; `u64::MAX`: never.
    expires: u64,
}

/// The counter that a value holds.
fn number(value: &[u8]) -> Result<i64, CacheError> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|t| t.trim().parse().ok()).ok_or(CacheError::NotANumber)
}

/// A key-value table. All times are milliseconds of the workers' clock.
pub struct Table {
    shards: Box<[Mutex<AHashMap<Bytes, Entry>>]>,
    hasher: RandomState,
    keys: AtomicUsize,
    most: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            keys: AtomicUsize::new(0),
            most: MAX_KEYS,
        }
    }
}

fn expiry(now: u64, seconds: u32) -> u64 {
    if seconds == 0 { u64::MAX } else { now.saturating_add(u64::from(seconds) * 1000) }
}

impl Table {
    fn shard(&self, key: &[u8]) -> &Mutex<AHashMap<Bytes, Entry>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    pub fn fetch(&self, now: u64, key: &[u8]) -> Option<Bytes> {
        let mut shard = self.shard(key).lock();
        let entry = shard.get(key)?;
        if entry.expires > now {
            return Some(entry.value.clone());
        }
        shard.remove(key);
        self.keys.fetch_sub(1, Ordering::Relaxed);
        None
    }

    pub fn store(&self, now: u64, key: Bytes, value: Bytes, seconds: u32) -> Result<(), CacheError> {
        self.put(key, Entry { value, expires: expiry(now, seconds) })
    }

    fn put(&self, key: Bytes, entry: Entry) -> Result<(), CacheError> {
        let mut shard = self.shard(&key).lock();
        // What was cut from a message must not keep the whole message.
        let entry = Entry { value: Bytes::copy_from_slice(&entry.value), ..entry };
        if let Some(old) = shard.get_mut(&key) {
            *old = entry;
            return Ok(());
        }
        if self.keys.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            return Err(CacheError::Busy);
        }
        shard.insert(Bytes::copy_from_slice(&key), entry);
        Ok(())
    }

    pub fn remove(&self, key: &[u8]) {
        if self.shard(key).lock().remove(key).is_some() {
            self.keys.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Adds to a counter; one that exists keeps its lifetime.
    pub fn add(&self, now: u64, key: Bytes, by: i64, seconds: u32) -> Result<i64, CacheError> {
        {
            let mut shard = self.shard(&key).lock();
            if let Some(entry) = shard.get_mut(&key).filter(|e| e.expires > now) {
                let sum = number(&entry.value)?.wrapping_add(by);
                entry.value = Bytes::from(sum.to_string());
                return Ok(sum);
            }
        }
        self.store(now, key, Bytes::from(by.to_string()), seconds)?;
        Ok(by)
    }

    pub fn counter(&self, now: u64, key: &[u8]) -> Result<Option<i64>, CacheError> {
        self.fetch(now, key).map(|value| number(&value)).transpose()
    }

    /// Removes what has expired.
    pub fn clean(&self, now: u64) {
        self.retain(|_, entry| entry.expires > now);
    }

    pub fn remove_all(&self, wanted: impl Fn(&[u8]) -> bool) {
        self.retain(|key, _| !wanted(key));
    }

    fn retain(&self, keep: impl Fn(&[u8], &Entry) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|key, entry| keep(key, entry));
            self.keys.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    /// Keys, values and remaining seconds (0: for ever) of what is alive, by key.
    pub fn list(&self, now: u64, wanted: impl Fn(&[u8]) -> bool) -> Vec<(Bytes, Bytes, u32)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let alive = shard.iter().filter(|(key, entry)| entry.expires > now && wanted(key));
            found.extend(alive.map(|(key, entry)| {
                let left = match entry.expires {
                    u64::MAX => 0,
                    at => ((at - now).div_ceil(1000)).min(u64::from(u32::MAX)) as u32,
                };
                (key.clone(), entry.value.clone(), left)
            }));
        }
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &'static str) -> Bytes {
        Bytes::from_static(s.as_bytes())
    }

    #[test]
    fn keys_live_and_expire() {
        let table = Table::default();
        table.store(0, text("k"), text("v"), 2).expect("room");
        table.store(0, text("for ever"), text("x"), 0).expect("room");
        assert_eq!(table.fetch(1999, b"k"), Some(text("v")));
        assert_eq!(table.fetch(2000, b"k"), None);
        assert_eq!(table.fetch(u64::MAX - 1, b"for ever"), Some(text("x")));
        table.store(0, text("old"), text("v"), 1).expect("room");
        table.clean(5000);
        assert_eq!(table.list(0, |_| true), [(text("for ever"), text("x"), 0)]);
        assert_eq!(table.keys.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn counters() {
        let table = Table::default();
        assert_eq!(table.add(0, text("n"), 5, 10), Ok(5));
        assert_eq!(table.add(0, text("n"), -7, 0), Ok(-2));
        assert_eq!(table.counter(0, b"n"), Ok(Some(-2)));
        // The lifetime of the first one counts.
        assert_eq!(table.add(10_000, text("n"), 1, 0), Ok(1));
        table.store(0, text("t"), text("abc"), 0).expect("room");
        assert_eq!(table.add(0, text("t"), 1, 0), Err(CacheError::NotANumber));
        assert_eq!(table.counter(0, b"t"), Err(CacheError::NotANumber));
        assert_eq!(table.counter(0, b"none"), Ok(None));
    }

    #[test]
    fn a_full_table_refuses() {
        let table = Table { most: 2, ..Table::default() };
        for key in ["a", "b", "a"] {
            table.store(0, text(key), text("v"), 1).expect("room");
        }
        assert_eq!(table.store(0, text("c"), text("v"), 0), Err(CacheError::Busy));
        table.clean(2000);
        table.store(2000, text("c"), text("v"), 0).expect("room again");
    }
}
