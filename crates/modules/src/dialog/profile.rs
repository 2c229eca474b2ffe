//! Profiles: how many dialogs have a property, by value. All workers count into the same numbers.

use super::cell::{Membership, Text};
use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// How a profile is counted beyond this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sharing {
    #[default]
    Own,
    /// `/s`: numbers in the key-value store of `cachedb_url`.
    Store,
    /// `/b`: told to the other nodes of the cluster in the reference.
    Cluster,
}

/// Parts of the values of a profile; workers rarely want the same one at once.
const SHARDS: usize = 16;
/// Different values of one profile; dialogs with further ones count in the total only.
const MAX_VALUES: usize = 4_000_000;

pub struct Profile {
    pub name: String,
    pub has_value: bool,
    pub sharing: Sharing,
    total: AtomicI64,
    values: [Mutex<AHashMap<Text, i64>>; SHARDS],
}

impl Profile {
    fn new(name: &str, has_value: bool, sharing: Sharing) -> Profile {
        Profile {
            name: name.into(),
            has_value,
            sharing,
            total: AtomicI64::new(0),
            values: Default::default(),
        }
    }

    fn shard(&self, value: &[u8]) -> &Mutex<AHashMap<Text, i64>> {
        &self.values[super::did::hash(value) as usize % SHARDS]
    }

    /// Counts a dialog in.
    pub fn add(&self, value: &[u8]) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if self.has_value {
            let mut shard = self.shard(value).lock();
            if let Some(count) = shard.get_mut(value) {
                *count += 1;
            } else if shard.len() < MAX_VALUES / SHARDS {
                shard.insert(value.into(), 1);
            } else {
                host::warn!(
                    "dialog",
                    "profile {} has {MAX_VALUES} values: further ones are not counted one by one",
                    self.name
                );
            }
        }
    }

    /// Counts a dialog out.
    pub fn remove(&self, value: &[u8]) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        if self.has_value {
            let mut shard = self.shard(value).lock();
            if let Some(count) = shard.get_mut(value) {
                *count -= 1;
                if *count <= 0 {
                    shard.remove(value);
                }
            }
        }
    }

    /// Dialogs of this server in the profile, with this value if one is given.
    pub fn size(&self, value: Option<&[u8]>) -> i64 {
        match value {
            Some(value) if self.has_value => self.shard(value).lock().get(value).copied().unwrap_or(0),
            _ => self.total.load(Ordering::Relaxed),
        }
    }

    /// Values and how many dialogs have each, in the order of the values.
    pub fn values(&self) -> Vec<(Text, i64)> {
        let mut list: Vec<(Text, i64)> = Vec::new();
        for shard in &self.values {
            list.extend(shard.lock().iter().map(|(value, count)| (value.clone(), *count)));
        }
        list.sort_unstable();
        list
    }
}

/// Profiles of one server; further ones of modules are refused.
const MAX_PROFILES: usize = 10_000;

/// All profiles: those of the configuration, and behind them those that modules add.
#[derive(Default)]
pub struct Profiles(RwLock<Vec<Arc<Profile>>>);

impl Profiles {
    /// A list as the parameters have it: `name; name/s`. The error says what is wrong with it.
    pub fn declare(&mut self, list: &str, has_value: bool) -> Result<(), String> {
        for word in list.split(';').map(str::trim).filter(|w| !w.is_empty()) {
            let (name, sharing) = match word.split_once('/') {
                None => (word, Sharing::Own),
                Some((name, "s")) => (name.trim(), Sharing::Store),
                Some((name, "b")) => (name.trim(), Sharing::Cluster),
                Some((_, other)) => return Err(format!("`{word}`: /s and /b are known, /{other} is not")),
            };
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(format!("`{name}` is no name of a profile: letters, digits, - and _"));
            }
            if self.find(name.as_bytes()).is_some() {
                return Err(format!("profile {name} is declared twice"));
            }
            self.0.get_mut().push(Arc::new(Profile::new(name, has_value, sharing)));
        }
        Ok(())
    }

    /// The profile of this name, with values, made when there is none. `None`: there are too many, or it has none.
    pub fn find_or_add(&self, name: &str, sharing: Sharing) -> Option<u16> {
        let mut all = self.0.write();
        if let Some(at) = all.iter().position(|p| p.name == name) {
            return all[at].has_value.then_some(at as u16);
        }
        if all.len() >= MAX_PROFILES {
            host::warn!("dialog", "profile {name} is not made: there are {MAX_PROFILES}");
            return None;
        }
        all.push(Arc::new(Profile::new(name, true, sharing)));
        Some(all.len() as u16 - 1)
    }

    pub fn find(&self, name: &[u8]) -> Option<(u16, Arc<Profile>)> {
        let all = self.0.read();
        let at = all.iter().position(|p| p.name.as_bytes() == name)?;
        Some((at as u16, all[at].clone()))
    }

    pub fn at(&self, index: u16) -> Option<Arc<Profile>> {
        self.0.read().get(usize::from(index)).cloned()
    }

    /// Profiles without values first, as they were declared.
    pub fn all(&self) -> Vec<Arc<Profile>> {
        self.0.read().clone()
    }

    pub fn count_in(&self, membership: &Membership) {
        if let Some(profile) = self.at(membership.profile) {
            profile.add(&membership.value);
        }
    }

    pub fn count_out(&self, membership: &Membership) {
        if let Some(profile) = self.at(membership.profile) {
            profile.remove(&membership.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations() {
        let mut profiles = Profiles::default();
        profiles.declare("out ; in/s;", false).expect("two");
        profiles.declare("caller; gw/b", true).expect("two");
        let all = profiles.all();
        let list: Vec<_> = all.iter().map(|p| (p.name.as_str(), p.has_value, p.sharing)).collect();
        assert_eq!(
            list,
            [
                ("out", false, Sharing::Own),
                ("in", false, Sharing::Store),
                ("caller", true, Sharing::Own),
                ("gw", true, Sharing::Cluster)
            ]
        );
        for bad in ["a b", "c.d", "x/z", "out", "/s"] {
            assert!(profiles.declare(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_by_value() {
        let mut profiles = Profiles::default();
        profiles.declare("gw", true).expect("one");
        let gw = profiles.at(0).expect("it");
        for value in ["a", "b", "a"] {
            gw.add(value.as_bytes());
        }
        assert_eq!((gw.size(None), gw.size(Some(b"a")), gw.size(Some(b"c"))), (3, 2, 0));
        gw.remove(b"a");
        gw.remove(b"b");
        assert_eq!(gw.values(), [(b"a"[..].into(), 1)]);
    }
}
