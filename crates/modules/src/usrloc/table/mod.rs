//! A location table: addresses of record and their contacts, sharded. The only locks of this module
//! are here; nothing waits under them.

mod pending;
mod publish;
mod record;
mod seen;

pub use pending::{Gone, Pending, Why};
pub use record::{Change, Matching, Order, Record, Wanted, same_uri};

use super::contact::{Contact, ContactState, bits};
use ahash::{AHashMap, AHashSet, RandomState};
use bytes::Bytes;
use host::stats::Counter;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Parts of a table, each with a lock of its own; timers look at one after the other.
pub const SHARDS: usize = 64;

#[derive(Default)]
struct Shard {
    records: AHashMap<Box<[u8]>, Record>,
    /// Addresses with contacts that the database does not have as they are.
    dirty: Vec<Bytes>,
    gone: Vec<Gone>,
    /// Addresses of which other servers do not know yet whether there are contacts here.
    unpublished: Vec<Bytes>,
    /// Addresses that registered here, where contacts are in a store.
    seen: AHashSet<Bytes>,
    /// Addresses by contact, where somebody looks for contacts by their ids.
    by_id: Option<AHashMap<u64, Bytes>>,
}

pub struct Table {
    pub name: String,
    shards: Box<[Mutex<Shard>]>,
    /// Held while an address of a shard is changed where several servers may change it.
    pub changing: Box<[tokio::sync::Mutex<()>]>,
    /// Held while pending changes are written: writes of one address keep their order, and whoever waits
    /// meanwhile finds that others wrote what it came for.
    pub writing: tokio::sync::Mutex<()>,
    /// Attempts at writing that failed so far.
    pub failures: AtomicU64,
    /// The last attempt at writing failed.
    pub behind: AtomicBool,
    hasher: RandomState,
    next_id: AtomicU64,
    /// Changes are kept for a database.
    persistent: AtomicBool,
    /// Other servers must learn which addresses have contacts here.
    published: AtomicBool,
    pub contacts: AtomicI64,
    pub records: AtomicI64,
    /// Statistic: contacts that expired.
    pub expired: Counter,
}

impl Table {
    pub fn new(name: &str) -> Table {
        Table {
            name: name.to_string(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            changing: (0..SHARDS).map(|_| tokio::sync::Mutex::default()).collect(),
            writing: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
            behind: AtomicBool::new(false),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(1),
            persistent: AtomicBool::new(false),
            published: AtomicBool::new(false),
            contacts: AtomicI64::new(0),
            records: AtomicI64::new(0),
            expired: Counter::default(),
        }
    }

    /// Works on one record under its lock (made when missing, removed when left empty). Changes that
    /// `work` reports are counted and returned.
    pub fn with<R>(
        &self,
        aor: &[u8],
        work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R,
    ) -> (R, Vec<Change>) {
        let mut changes = Vec::new();
        let mut shard = self.shard(aor).lock();
        if let Some(record) = shard.records.get_mut(aor) {
            let result = work(record, &mut changes);
            if record.contacts.is_empty() {
                shard.records.remove(aor);
                changes.push(Change::AorDeleted);
                if shard.records.capacity() > 64 && shard.records.len() < shard.records.capacity() / 4 {
                    shard.records.shrink_to_fit();
                }
            }
            self.note(&mut shard, aor, &changes);
            return (result, changes);
        }
        let mut record = Record::default();
        let result = work(&mut record, &mut changes);
        if !record.contacts.is_empty() {
            record.contacts.shrink_to_fit();
            shard.records.insert(aor.into(), record);
            changes.insert(0, Change::AorInserted);
        }
        self.note(&mut shard, aor, &changes);
        (result, changes)
    }

    /// Reads the contacts of an address, expired ones too.
    pub fn read<R>(&self, aor: &[u8], read: impl FnOnce(&Record) -> R) -> Option<R> {
        self.shard(aor).lock().records.get(aor).map(read)
    }

    /// Removes what has expired in one shard; (address, changes) of each.
    pub fn expire(&self, shard: usize, now: u32) -> Vec<(Bytes, Vec<Change>)> {
        let mut shard = self.shards[shard].lock();
        let late = |r: &Record| r.contacts.iter().any(|c| c.expired(now));
        if !shard.records.values().any(late) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        shard.records.retain(|aor, record| {
            if !late(record) {
                return true;
            }
            let expired = record.contacts.extract_if(.., |c| c.expired(now)).map(Change::Deleted);
            let mut changes: Vec<Change> = expired.collect();
            if record.contacts.is_empty() {
                changes.push(Change::AorDeleted);
            }
            gone.push((Bytes::copy_from_slice(aor), changes));
            !record.contacts.is_empty()
        });
        for (aor, changes) in &gone {
            self.expired.add(changes.iter().filter(|c| matches!(c, Change::Deleted(_))).count() as i64);
            self.note(&mut shard, aor, changes);
        }
        gone
    }

    /// From now on `by_id` finds contacts; before the first contact comes.
    pub fn index_ids(&self) {
        for shard in &self.shards {
            shard.lock().by_id.get_or_insert_default();
        }
    }

    /// The contact of an id, with its address; nothing without `index_ids`.
    pub fn by_id(&self, id: u64) -> Option<(Bytes, Contact)> {
        self.shards.iter().find_map(|shard| {
            let shard = shard.lock();
            let aor = shard.by_id.as_ref()?.get(&id)?;
            let contact = shard.records.get(&aor[..])?.contacts.iter().find(|c| c.id == id)?;
            Some((aor.clone(), contact.clone()))
        })
    }

    /// Visits every record, one shard at a time.
    pub fn each(&self, mut visit: impl FnMut(&[u8], &mut Record)) {
        for shard in 0..SHARDS {
            self.each_in(shard, &mut visit);
        }
    }

    /// Visits the records of one shard.
    pub fn each_in(&self, shard: usize, mut visit: impl FnMut(&[u8], &mut Record)) {
        for (aor, record) in &mut self.shards[shard].lock().records {
            visit(aor, record);
        }
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn shard_of(&self, aor: &[u8]) -> usize {
        self.hasher.hash_one(aor) as usize % SHARDS
    }

    fn shard(&self, aor: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.shard_of(aor)]
    }

    /// Counts changes, and keeps them for the database.
    fn note(&self, shard: &mut Shard, aor: &[u8], changes: &[Change]) {
        if self.published.load(Ordering::Relaxed) && !changes.is_empty() {
            shard.add_unpublished(aor);
        }
        let persistent = self.persistent.load(Ordering::Relaxed);
        let mut dirty = false;
        for change in changes {
            match change {
                Change::AorInserted => self.records.fetch_add(1, Ordering::Relaxed),
                Change::AorDeleted => self.records.fetch_sub(1, Ordering::Relaxed),
                Change::Inserted(_) => self.contacts.fetch_add(1, Ordering::Relaxed),
                Change::Deleted(_) => self.contacts.fetch_sub(1, Ordering::Relaxed),
                Change::Moved { .. } | Change::Updated(_) | Change::Touched(_) => 0,
            };
            match (change, &mut shard.by_id) {
                (Change::Inserted(c), Some(index)) => drop(index.insert(c.id, Bytes::copy_from_slice(aor))),
                (Change::Deleted(c), Some(index)) => drop(index.remove(&c.id)),
                _ => {}
            }
            if !persistent {
                continue;
            }
            match change {
                Change::Inserted(c) | Change::Updated(c) | Change::Touched(c) => {
                    dirty |= !c.has(bits::MEMORY_ONLY)
                }
                Change::Deleted(c) if c.state != ContactState::New && !c.has(bits::MEMORY_ONLY) => {
                    shard.add_gone(Gone::of(aor, c));
                }
                Change::Moved { id, uri, call_id } => {
                    shard.add_gone(Gone::moved(aor, *id, uri, call_id));
                }
                _ => {}
            }
        }
        if dirty && shard.dirty.last().is_none_or(|last| last != aor) {
            shard.dirty.push(Bytes::copy_from_slice(aor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usrloc::contact::Binding;

    fn binding(uri: &'static str, q: i16, expires: u32) -> Binding {
        Binding { uri: uri.into(), q, expires, call_id: "c".into(), ..Binding::default() }
    }

    fn save(table: &Table, b: &Binding, order: Order) {
        table.with(b"alice", |record, changes| record.add(table.next_id(), b, 1, order, changes));
    }

    fn uris(table: &Table) -> Vec<String> {
        let names =
            |r: &Record| r.contacts.iter().map(|c| String::from_utf8_lossy(c.uri()).into_owned()).collect();
        table.read(b"alice", names).unwrap_or_default()
    }

    #[test]
    fn contacts_are_ordered_by_q_or_by_age() {
        for (order, expected) in [
            (Order::Q, ["sip:b@2", "sip:c@3", "sip:a@1"]),
            (Order::Newest, ["sip:c@3", "sip:b@2", "sip:a@1"]),
        ] {
            let table = Table::new("location");
            for b in [binding("sip:a@1", 300, 0), binding("sip:b@2", 900, 0), binding("sip:c@3", 500, 0)] {
                save(&table, &b, order);
            }
            assert_eq!(uris(&table), expected);
        }
    }

    #[test]
    fn what_expired_goes_and_is_counted() {
        let table = Table::new("location");
        let shard = table.shard_of(b"alice");
        save(&table, &binding("sip:a@1", -1, 50), Order::Q);
        save(&table, &binding("sip:b@2", -1, 90), Order::Q);
        assert_eq!((table.records.load(Ordering::Relaxed), table.contacts.load(Ordering::Relaxed)), (1, 2));
        assert_eq!(table.expire(shard, 60).len(), 1);
        assert_eq!(uris(&table), ["sip:b@2"]);
        assert_eq!(table.expire(shard, 100).len(), 1);
        assert_eq!((table.records.load(Ordering::Relaxed), table.contacts.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(table.expired.value(), 2);
    }

    #[test]
    fn matching_modes() {
        let mut record = Record::default();
        let stored =
            Binding { instance: "<urn:1>".into(), reg_id: 1, ..binding("sip:a@10.0.0.1;rinstance=x", -1, 0) };
        record.insert(Contact::new(1, &stored, 1), Order::Q);
        let param = || Matching::Params(vec!["rinstance".into()]);
        for (uri, call_id, flow, matching, found) in [
            ("sip:a@10.0.0.1;rinstance=x", "c", None, Matching::Uri, true),
            ("sip:a@10.0.0.1:5060;rinstance=x", "c", None, Matching::Uri, false),
            ("sip:a@10.0.0.1;rinstance=x", "other", None, Matching::UriAndCallId, false),
            ("sip:a@10.0.0.1;rinstance=x", "other", None, Matching::Text, true),
            ("sip:a@10.0.0.1;RINSTANCE=x", "c", None, Matching::Uri, true),
            ("sip:a@10.0.0.1;RINSTANCE=x", "c", None, Matching::Text, false),
            ("sip:a@10.0.0.1;rinstance=x", "other", None, Matching::TextAndCallId, false),
            ("sip:zz@10.0.0.9;rinstance=x", "c", None, param(), true),
            ("sip:zz@10.0.0.9;rinstance=y", "c", None, param(), false),
            ("sip:zz@10.0.0.9", "c", Some(1), Matching::Uri, true),
            ("sip:zz@10.0.0.9", "c", Some(2), Matching::Uri, false),
        ] {
            let flow = flow.map(|id| (&b"<urn:1>"[..], id));
            let wanted = Wanted { uri: &uri.into(), call_id: call_id.as_bytes(), flow };
            assert_eq!(record.find(wanted, &matching, 5).is_some(), found, "{uri}");
        }
    }

    #[test]
    fn the_database_learns_every_change_once() {
        let table = Table::new("location");
        table.make_persistent(100);
        let shard = table.shard_of(b"alice");
        save(&table, &binding("sip:a@1", -1, 0), Order::Q);
        let first = table.pending(shard);
        assert_eq!(first.contacts.len(), 1);
        // Changed while it is written: it stays dirty.
        table.with(b"alice", |r, changes| r.update(0, &binding("sip:a@1", -1, 9), 2, Order::Q, changes));
        table.written(shard, first);
        let second = table.pending(shard);
        assert_eq!(second.contacts[0].1.expires, 9);
        table.not_written(shard, second);
        let third = table.pending(shard);
        assert_eq!(third.contacts.len(), 1);
        // Deleted while it is written: the row must go.
        table.with(b"alice", |r, changes| r.remove(|_| true, changes));
        table.written(shard, third);
        assert_eq!(table.pending(shard).gone.len(), 2, "once by the delete, once by the write");
        assert!(table.pending(shard).gone.is_empty());
        save(&table, &binding("sip:b@1", -1, 0), Order::Q);
        table.with(b"alice", |r, changes| r.remove(|_| true, changes));
        assert_eq!(table.pending(shard).gone, [], "what the database never had");
    }
}
