//! Which addresses other servers must still learn of.

use super::{Shard, Table};
use bytes::Bytes;
use std::sync::atomic::Ordering;

impl Table {
    /// From now on changes wait for `unpublished`.
    pub fn make_published(&self) {
        self.published.store(true, Ordering::Relaxed);
    }

    pub fn is_unpublished(&self, shard: usize) -> bool {
        !self.shards[shard].lock().unpublished.is_empty()
    }

    /// Takes the addresses of a shard that are to be published, each once. `not_published` gives back those
    /// that were not.
    pub fn unpublished(&self, shard: usize) -> Vec<Bytes> {
        let mut aors = std::mem::take(&mut self.shards[shard].lock().unpublished);
        aors.sort_unstable();
        aors.dedup();
        aors
    }

    pub fn not_published(&self, shard: usize, aors: Vec<Bytes>) {
        self.shards[shard].lock().unpublished.extend(aors);
    }

    /// Every address is to be published again.
    pub fn forget_published(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { records, unpublished, .. } = &mut *shard;
            unpublished.extend(records.keys().map(|aor| Bytes::copy_from_slice(aor)));
        }
    }
}

impl Shard {
    pub(super) fn add_unpublished(&mut self, aor: &[u8]) {
        if self.unpublished.last().is_none_or(|last| last != aor) {
            self.unpublished.push(Bytes::copy_from_slice(aor));
        }
    }
}
