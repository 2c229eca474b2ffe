//! What a database must still learn of a table.

use super::record::{Order, Record};
use super::{Shard, Table};
use crate::usrloc::contact::{Contact, ContactState, Field, bits};
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// Deleted rows that wait for the database; beyond, rows stay until they expire there.
const MAX_GONE: usize = 100_000;

/// Why a row must leave the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Deleted,
    /// The contact lives on under another URI or Call-ID: matters where those are the key.
    Moved,
}

/// A row that must leave the database.
#[derive(Clone, Debug, PartialEq)]
pub struct Gone {
    pub why: Why,
    pub id: u64,
    pub aor: Bytes,
    pub uri: Bytes,
    pub call_id: Bytes,
}

/// What a write to the database is about to make true.
#[derive(Debug, Default)]
pub struct Pending {
    /// (address, contact, keys of the address)
    pub contacts: Vec<(Bytes, Contact, Bytes)>,
    pub gone: Vec<Gone>,
}

impl Table {
    /// From now on changes wait for `pending`. Ids start at `first_id`: those of an earlier run, which a
    /// database may still hold, are not given out again.
    pub fn make_persistent(&self, first_id: u64) {
        self.persistent.store(true, Ordering::Relaxed);
        self.next_id.fetch_max(first_id, Ordering::Relaxed);
    }

    /// Takes a contact that a database holds, unless memory knows a newer one.
    pub fn restore(&self, aor: &[u8], mut contact: Contact, order: Order) {
        self.next_id.fetch_max(contact.id + 1, Ordering::Relaxed);
        contact.state = ContactState::Synced;
        let mut shard = self.shard(aor).lock();
        let known = shard.records.get(aor).is_some_and(|r| {
            r.contacts.iter().any(|c| {
                c.id == contact.id
                    || c.uri() == contact.uri() && c.text(Field::CallId) == contact.text(Field::CallId)
            })
        });
        if known {
            return;
        }
        let record = shard.records.entry(aor.into()).or_insert_with(|| {
            self.records.fetch_add(1, Ordering::Relaxed);
            Record::default()
        });
        record.contacts.reserve_exact(1);
        let id = contact.id;
        record.insert(contact, order);
        if self.published.load(Ordering::Relaxed) {
            shard.add_unpublished(aor);
        }
        if let Some(index) = &mut shard.by_id {
            index.insert(id, Bytes::copy_from_slice(aor));
        }
        self.contacts.fetch_add(1, Ordering::Relaxed);
    }

    /// There is something to write in a shard.
    pub fn is_pending(&self, shard: usize) -> bool {
        let shard = self.shards[shard].lock();
        !shard.dirty.is_empty() || !shard.gone.is_empty()
    }

    /// How many addresses the database must still learn of, how many contacts it still has that are gone, and the names
    /// of some of the addresses.
    pub fn unwritten(&self, most: usize) -> (usize, usize, Vec<Bytes>) {
        let (mut count, mut removed, mut names) = (0, 0, Vec::new());
        for shard in &self.shards {
            let shard = shard.lock();
            let mut dirty: Vec<&[u8]> = shard.dirty.iter().map(|aor| &aor[..]).collect();
            dirty.sort_unstable();
            dirty.dedup();
            count += dirty.len();
            removed += shard.gone.len();
            let room = most.saturating_sub(names.len());
            names.extend(dirty.into_iter().take(room).map(Bytes::copy_from_slice));
        }
        (count, removed, names)
    }

    /// Takes what the database must learn of a shard. `written` or `not_written` must follow.
    pub fn pending(&self, shard: usize) -> Pending {
        let mut shard = self.shards[shard].lock();
        let mut pending = Pending { contacts: Vec::new(), gone: std::mem::take(&mut shard.gone) };
        let mut dirty = std::mem::take(&mut shard.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for aor in dirty {
            let Some(record) = shard.records.get(&aor[..]) else { continue };
            let keys = record.keys_json();
            for contact in &record.contacts {
                if contact.state != ContactState::Synced && !contact.has(bits::MEMORY_ONLY) {
                    pending.contacts.push((aor.clone(), contact.clone(), keys.clone()));
                }
            }
        }
        pending
    }

    /// The database has what `pending` gave.
    pub fn written(&self, shard: usize, pending: Pending) {
        let mut shard = self.shards[shard].lock();
        for (aor, old, _) in pending.contacts {
            let record = shard.records.get_mut(&aor[..]);
            match record.and_then(|r| r.contacts.iter_mut().find(|c| c.id == old.id)) {
                Some(contact) if contact.version == old.version => contact.state = ContactState::Synced,
                Some(contact) => contact.state = ContactState::Dirty,
                // Deleted meanwhile, by somebody who could not know that there is a row.
                None => shard.add_gone(Gone::of(&aor, &old)),
            }
        }
    }

    /// The database did not take it: it stays pending.
    pub fn not_written(&self, shard: usize, pending: Pending) {
        let mut shard = self.shards[shard].lock();
        for gone in pending.gone {
            shard.add_gone(gone);
        }
        for (aor, _, _) in pending.contacts {
            if shard.dirty.last() != Some(&aor) {
                shard.dirty.push(aor);
            }
        }
    }

    /// Everything is to be written again (`ul_sync`): the database was emptied.
    pub fn forget_database(&self, only: Option<&[u8]>) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { records, dirty, .. } = &mut *shard;
            for (aor, record) in records.iter_mut().filter(|(aor, _)| only.is_none_or(|o| o == &aor[..])) {
                record.contacts.iter_mut().for_each(|c| c.state = ContactState::New);
                dirty.push(Bytes::copy_from_slice(aor));
            }
        }
    }
}

impl Shard {
    pub(super) fn add_gone(&mut self, gone: Gone) {
        if self.gone.len() < MAX_GONE {
            self.gone.push(gone);
        }
    }
}
impl Gone {
    pub fn moved(aor: &[u8], id: u64, uri: &Bytes, call_id: &Bytes) -> Gone {
        let aor = Bytes::copy_from_slice(aor);
        Gone { why: Why::Moved, id, aor, uri: uri.clone(), call_id: call_id.clone() }
    }

    pub fn of(aor: &[u8], contact: &Contact) -> Gone {
        Gone {
            why: Why::Deleted,
            id: contact.id,
            aor: Bytes::copy_from_slice(aor),
            uri: Bytes::copy_from_slice(contact.uri()),
            call_id: Bytes::copy_from_slice(contact.text(Field::CallId)),
        }
    }
}
