//! Addresses that registered at this server where their contacts are in a store that cannot be searched.

use super::Table;
use bytes::Bytes;

/// Addresses of one part that are remembered; further ones are not pinged from here.
const MOST: usize = 100_000;

impl Table {
    pub fn note_seen(&self, aor: &Bytes) {
        let mut shard = self.shard(aor).lock();
        if shard.seen.len() < MOST {
            shard.seen.insert(aor.clone());
        }
    }

    pub fn seen(&self, shard: usize) -> Vec<Bytes> {
        self.shards[shard].lock().seen.iter().cloned().collect()
    }

    pub fn forget_seen(&self, shard: usize, aor: &Bytes) {
        self.shards[shard].lock().seen.remove(aor);
    }
}
