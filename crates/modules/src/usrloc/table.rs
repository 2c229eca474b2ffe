//! A location table: addresses of record and their contacts, sharded. The only locks of this module
//! are here; nothing waits under them.

use super::contact::{Binding, Contact};
use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use parking_lot::Mutex;
use sip::Uri;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const SHARDS: usize = 64;

/// How a registered contact is recognised.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Matching {
    /// Same URI (RFC 3261 §19.1.4).
    #[default]
    Uri,
    /// Same URI and Call-ID.
    UriAndCallId,
    /// Same value of this URI parameter.
    Param(Bytes),
}

/// Order of the contacts of one address.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Order {
    /// Highest q first; equal ones stay in order of arrival.
    #[default]
    Q,
    /// Newest first.
    Newest,
}

/// A change of a table, for the database and for events.
#[derive(Clone, Debug)]
pub enum Change {
    AorInserted,
    Inserted(Contact),
    Updated(Contact),
    Deleted(Contact),
    AorDeleted,
}

/// The contacts of one address of record.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub contacts: Vec<Contact>,
    /// `ul_add_key`: few have any.
    pub keys: Option<Box<Vec<(Bytes, Bytes)>>>,
}

pub struct Table {
    pub name: String,
    shards: Box<[Mutex<AHashMap<Box<[u8]>, Record>>]>,
    hasher: RandomState,
    next_id: AtomicU64,
    pub contacts: AtomicI64,
    pub records: AtomicI64,
}

impl Table {
    pub fn new(name: &str) -> Table {
        Table {
            name: name.to_string(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(1),
            contacts: AtomicI64::new(0),
            records: AtomicI64::new(0),
        }
    }

    /// Works on one record under its lock (made when missing, removed when left empty). Changes that
    /// `work` reports are counted and returned.
    pub fn with<R>(&self, aor: &[u8], work: impl FnOnce(&mut Record, &mut Vec<Change>) -> R) -> (R, Vec<Change>) {
        let mut changes = Vec::new();
        let mut shard = self.shard(aor).lock();
        if let Some(record) = shard.get_mut(aor) {
            let result = work(record, &mut changes);
            if record.contacts.is_empty() {
                shard.remove(aor);
                changes.push(Change::AorDeleted);
                if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                    shard.shrink_to_fit();
                }
            }
            self.count(&changes);
            return (result, changes);
        }
        let mut record = Record::default();
        let result = work(&mut record, &mut changes);
        if !record.contacts.is_empty() {
            record.contacts.shrink_to_fit();
            shard.insert(aor.into(), record);
            changes.insert(0, Change::AorInserted);
        }
        self.count(&changes);
        (result, changes)
    }

    /// Reads the live contacts of an address.
    pub fn read<R>(&self, aor: &[u8], read: impl FnOnce(&[Contact]) -> R) -> Option<R> {
        self.shard(aor).lock().get(aor).map(|record| read(&record.contacts))
    }

    /// Removes what has expired; (address, change) of each.
    pub fn expire(&self, now: u32) -> Vec<(Bytes, Change)> {
        let mut gone = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|aor, record| {
                if !record.contacts.iter().any(|c| c.expired(now)) {
                    return true;
                }
                let aor = Bytes::copy_from_slice(aor);
                let (expired, live) = std::mem::take(&mut record.contacts).into_iter().partition(|c| c.expired(now));
                record.contacts = live;
                let expired: Vec<Contact> = expired;
                gone.extend(expired.into_iter().map(|c| (aor.clone(), Change::Deleted(c))));
                if record.contacts.is_empty() {
                    gone.push((aor, Change::AorDeleted));
                }
                !record.contacts.is_empty()
            });
        }
        for (_, change) in &gone {
            self.count(std::slice::from_ref(change));
        }
        gone
    }

    /// Visits every record, one shard at a time.
    pub fn each(&self, mut visit: impl FnMut(&[u8], &mut Record)) {
        for shard in &self.shards {
            for (aor, record) in shard.lock().iter_mut() {
                visit(aor, record);
            }
        }
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Ids read from a database are not given out again.
    pub fn id_seen(&self, id: u64) {
        self.next_id.fetch_max(id + 1, Ordering::Relaxed);
    }

    fn shard(&self, aor: &[u8]) -> &Mutex<AHashMap<Box<[u8]>, Record>> {
        &self.shards[self.hasher.hash_one(aor) as usize % SHARDS]
    }

    fn count(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::AorInserted => self.records.fetch_add(1, Ordering::Relaxed),
                Change::AorDeleted => self.records.fetch_sub(1, Ordering::Relaxed),
                Change::Inserted(_) => self.contacts.fetch_add(1, Ordering::Relaxed),
                Change::Deleted(_) => self.contacts.fetch_sub(1, Ordering::Relaxed),
                Change::Updated(_) => 0,
            };
        }
    }
}

impl Record {
    /// Index of the contact that `uri` (with this Call-ID) means.
    pub fn find(&self, uri: &Bytes, call_id: &[u8], matching: &Matching, now: u32) -> Option<usize> {
        let live = |c: &&Contact| !c.expired(now);
        let position = |same: &dyn Fn(&Contact) -> bool| {
            self.contacts.iter().enumerate().filter(|(_, c)| live(c)).find(|(_, c)| same(c)).map(|(i, _)| i)
        };
        match matching {
            Matching::Uri => position(&|c| same_uri(c, uri)),
            Matching::UriAndCallId => {
                position(&|c| same_uri(c, uri) && c.text(super::contact::Field::CallId) == call_id)
            }
            Matching::Param(name) => {
                let wanted = uri_param(uri, name)?;
                position(&|c| uri_param(&Bytes::copy_from_slice(c.uri()), name).as_ref() == Some(&wanted))
            }
        }
    }

    /// Puts a contact at its place.
    pub fn insert(&mut self, contact: Contact, order: Order) {
        let at = match order {
            Order::Newest => 0,
            Order::Q => self.contacts.iter().position(|c| c.q < contact.q).unwrap_or(self.contacts.len()),
        };
        self.contacts.insert(at, contact);
    }

    /// Updates a contact and moves it to its place.
    pub fn update(&mut self, at: usize, binding: &Binding, now: u32, order: Order) -> Contact {
        let old_q = self.contacts[at].q;
        self.contacts[at].update(binding, now);
        let copy = self.contacts[at].clone();
        if order == Order::Newest || old_q != binding.q {
            let contact = self.contacts.remove(at);
            self.insert(contact, order);
        }
        copy
    }
}

fn same_uri(contact: &Contact, uri: &Bytes) -> bool {
    if contact.uri() == &uri[..] {
        return true;
    }
    let stored = Bytes::copy_from_slice(contact.uri());
    match (Uri::parse(&stored), Uri::parse(uri)) {
        (Ok(a), Ok(b)) => a.equals(&b),
        _ => false,
    }
}

fn uri_param(uri: &Bytes, name: &[u8]) -> Option<Bytes> {
    Uri::parse(uri).ok()?.params.value(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(uri: &'static str, q: i16, expires: u32) -> Binding {
        Binding { uri: uri.into(), q, expires, call_id: "c".into(), ..Binding::default() }
    }

    fn save(table: &Table, b: &Binding, order: Order) {
        table.with(b"alice", |record, changes| {
            let contact = Contact::new(table.next_id(), b, 1);
            changes.push(Change::Inserted(contact.clone()));
            record.insert(contact, order);
        });
    }

    fn uris(table: &Table) -> Vec<String> {
        let names = |c: &[Contact]| c.iter().map(|c| String::from_utf8_lossy(c.uri()).into_owned()).collect();
        table.read(b"alice", names).unwrap_or_default()
    }

    #[test]
    fn contacts_are_ordered_by_q_or_by_age() {
        for (order, expected) in [(Order::Q, ["sip:b@2", "sip:c@3", "sip:a@1"]), (Order::Newest, ["sip:c@3", "sip:b@2", "sip:a@1"])] {
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
        save(&table, &binding("sip:a@1", -1, 50), Order::Q);
        save(&table, &binding("sip:b@2", -1, 90), Order::Q);
        assert_eq!((table.records.load(Ordering::Relaxed), table.contacts.load(Ordering::Relaxed)), (1, 2));
        assert_eq!(table.expire(60).len(), 1);
        assert_eq!(uris(&table), ["sip:b@2"]);
        assert_eq!(table.expire(100).len(), 2);
        assert_eq!((table.records.load(Ordering::Relaxed), table.contacts.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn matching_modes() {
        let mut record = Record::default();
        record.insert(Contact::new(1, &binding("sip:a@10.0.0.1;rinstance=x", -1, 0), 1), Order::Q);
        for (uri, call_id, matching, found) in [
            ("sip:a@10.0.0.1;rinstance=x", "c", Matching::Uri, true),
            ("sip:a@10.0.0.1:5060;rinstance=x", "c", Matching::Uri, false),
            ("sip:a@10.0.0.1;rinstance=x", "other", Matching::UriAndCallId, false),
            ("sip:zz@10.0.0.9;rinstance=x", "c", Matching::Param("rinstance".into()), true),
            ("sip:zz@10.0.0.9;rinstance=y", "c", Matching::Param("rinstance".into()), false),
        ] {
            assert_eq!(record.find(&uri.into(), call_id.as_bytes(), &matching, 5).is_some(), found, "{uri}");
        }
    }
}
