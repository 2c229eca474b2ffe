//! Whom to keep alive, in parts with a lock each: a timer looks at one after the other, and calls wait for none of them long.

use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use host::context::full::Full;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use transaction::Path;

/// Endpoints of one server; further ones are not kept alive.
const MAX_ENDPOINTS: usize = 200_000;
const PARTS: usize = 256;

/// Whom to send something, and until when (Unix seconds), by why.
pub struct Endpoint {
    pub path: Path,
    pub registered: u64,
    pub subscribed: u64,
}

impl Endpoint {
    pub fn new(path: Path) -> Endpoint {
        Endpoint { path, registered: 0, subscribed: 0 }
    }
}

/// All endpoints, by their URIs.
pub struct Endpoints {
    parts: Vec<Mutex<AHashMap<Bytes, Endpoint>>>,
    hasher: RandomState,
    count: AtomicUsize,
    pub full: Full,
}

impl Default for Endpoints {
    fn default() -> Endpoints {
        Endpoints {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            count: AtomicUsize::new(0),
            full: Full::default(),
        }
    }
}

impl Endpoints {
    fn part(&self, uri: &[u8]) -> &Mutex<AHashMap<Bytes, Endpoint>> {
        &self.parts[self.hasher.hash_one(uri) as usize % PARTS]
    }

    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Reads or changes an endpoint that is known.
    pub fn with<R>(&self, uri: &Bytes, work: impl FnOnce(&mut Endpoint) -> R) -> Option<R> {
        self.part(uri).lock().get_mut(uri).map(work)
    }

    /// Makes an endpoint known, or tells where it is now; false: there is no room.
    pub fn put(&self, uri: Bytes, endpoint: Endpoint) -> bool {
        let mut part = self.part(&uri).lock();
        if let Some(known) = part.get_mut(&uri) {
            known.path = endpoint.path;
            return true;
        }
        if self.count.load(Ordering::Relaxed) >= MAX_ENDPOINTS {
            if self.full.refused() {
                host::warn!(
                    "nat_traversal",
                    "there are {MAX_ENDPOINTS} endpoints: further ones are not kept alive"
                );
            }
            return false;
        }
        self.full.taken();
        self.count.fetch_add(1, Ordering::Relaxed);
        part.insert(uri, endpoint);
        true
    }

    /// How many are meant.
    pub fn count(&self, meant: impl Fn(&Endpoint) -> bool) -> usize {
        self.parts.iter().map(|part| part.lock().values().filter(|one| meant(one)).count()).sum()
    }

    /// Shows all of them, part by part.
    pub fn each(&self, mut see: impl FnMut(&Bytes, &Endpoint)) {
        for part in &self.parts {
            part.lock().iter().for_each(|(uri, endpoint)| see(uri, endpoint));
        }
    }

    /// The parts whose turn it is in second `turn` of `interval`: each has its turn once.
    pub fn parts_of(turn: u64, interval: u64) -> impl Iterator<Item = usize> {
        (0..PARTS).filter(move |part| *part as u64 % interval == turn)
    }

    /// Keeps those of a part that `keep` wants.
    pub fn retain(&self, part: usize, keep: impl FnMut(&Bytes, &mut Endpoint) -> bool) {
        let mut keep = keep;
        let mut part = self.parts[part].lock();
        let before = part.len();
        part.retain(|uri, endpoint| keep(uri, endpoint));
        self.count.fetch_sub(before - part.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_once_an_interval() {
        for interval in [1, 7, 60, 1000] {
            let mut seen: Vec<_> =
                (0..interval).flat_map(|turn| Endpoints::parts_of(turn, interval)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..PARTS).collect::<Vec<_>>(), "{interval}");
        }
    }

    #[test]
    fn there_is_a_bound() {
        let endpoints = Endpoints::default();
        let remote = "127.0.0.1:5060".parse().expect("an address");
        let path = Path { socket: 0, transport: sip::Transport::Udp, remote, local: 0, connection: 0 };
        let uri = |n: usize| Bytes::from(format!("sip:{n}"));
        let put = |n: usize| endpoints.put(uri(n), Endpoint::new(path));
        assert!((0..MAX_ENDPOINTS).all(put));
        assert!(!put(MAX_ENDPOINTS) && put(1), "one that is known is told anew");
        assert_eq!(endpoints.count(|_| true), MAX_ENDPOINTS);
        for part in 0..PARTS {
            endpoints.retain(part, |at, _| *at == uri(5));
        }
        assert!(put(MAX_ENDPOINTS));
        assert_eq!(endpoints.count(|_| true), 2);
    }
}
