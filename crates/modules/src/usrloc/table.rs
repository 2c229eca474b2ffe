//! A location table: addresses of record and their contacts, sharded. The only locks of this module
//! are here; nothing waits under them.

use super::contact::{Binding, Contact, Field, State, bits};
use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use host::stats::Counter;
use parking_lot::Mutex;
use sip::Uri;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Parts of a table, each with a lock of its own; timers look at one after the other.
pub const SHARDS: usize = 64;
/// Deleted rows that wait for the database; beyond, rows stay until they expire there.
const MAX_GONE: usize = 100_000;

/// How a registered contact is recognised.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Matching {
    /// Same URI (RFC 3261 §19.1.4).
    #[default]
    Uri,
    /// Same URI and Call-ID.
    UriAndCallId,
    /// Same values of these URI parameters, all of them present.
    Params(Vec<Bytes>),
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
    /// The contact's URI or Call-ID changes: what they were. `Updated` follows.
    Moved {
        id: u64,
        uri: Bytes,
        call_id: Bytes,
    },
    Updated(Contact),
    /// Something of it that no event tells of.
    Touched(Contact),
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

#[derive(Default)]
struct Shard {
    records: AHashMap<Box<[u8]>, Record>,
    /// Addresses with contacts that the database does not have as they are.
    dirty: Vec<Bytes>,
    gone: Vec<Gone>,
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
    hasher: RandomState,
    next_id: AtomicU64,
    /// Changes are kept for a database.
    persistent: AtomicBool,
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
            hasher: RandomState::new(),
            next_id: AtomicU64::new(1),
            persistent: AtomicBool::new(false),
            contacts: AtomicI64::new(0),
            records: AtomicI64::new(0),
            expired: Counter::default(),
        }
    }

    /// From now on changes wait for `pending`. Ids start at `first_id`: those of an earlier run, which a
    /// database may still hold, are not given out again.
    pub fn make_persistent(&self, first_id: u64) {
        self.persistent.store(true, Ordering::Relaxed);
        self.next_id.fetch_max(first_id, Ordering::Relaxed);
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

    /// Takes a contact that a database holds, unless memory knows a newer one.
    pub fn restore(&self, aor: &[u8], mut contact: Contact, order: Order) {
        self.next_id.fetch_max(contact.id + 1, Ordering::Relaxed);
        contact.state = State::Synced;
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
                if contact.state != State::Synced && !contact.has(bits::MEMORY_ONLY) {
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
                Some(contact) if contact.version == old.version => contact.state = State::Synced,
                Some(contact) => contact.state = State::Dirty,
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
                record.contacts.iter_mut().for_each(|c| c.state = State::New);
                dirty.push(Bytes::copy_from_slice(aor));
            }
        }
    }

    fn shard(&self, aor: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.shard_of(aor)]
    }

    /// Counts changes, and keeps them for the database.
    fn note(&self, shard: &mut Shard, aor: &[u8], changes: &[Change]) {
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
                Change::Inserted(c) | Change::Updated(c) | Change::Touched(c) => dirty |= !c.has(bits::MEMORY_ONLY),
                Change::Deleted(c) if c.state != State::New && !c.has(bits::MEMORY_ONLY) => {
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

impl Shard {
    fn add_gone(&mut self, gone: Gone) {
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

/// What is looked for among the contacts of an address.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub uri: &'a Bytes,
    pub call_id: &'a [u8],
    /// The flow of RFC 5626: instance and reg-id, when both count.
    pub flow: Option<(&'a [u8], u16)>,
}

impl Record {
    /// Index of the contact that is meant.
    pub fn find(&self, wanted: Wanted<'_>, matching: &Matching, now: u32) -> Option<usize> {
        let position = |same: &dyn Fn(&Contact) -> bool| {
            self.contacts.iter().position(|c| !c.expired(now) && same(c))
        };
        if let Some((instance, reg_id)) = wanted.flow {
            let same = position(&|c| c.reg_id == reg_id && c.text(Field::Instance) == instance);
            if same.is_some() {
                return same;
            }
        }
        let same_call = |c: &Contact| c.text(Field::CallId) == wanted.call_id;
        match matching {
            Matching::Uri => position(&|c| same_uri(c, wanted.uri)),
            Matching::UriAndCallId => position(&|c| same_call(c) && same_uri(c, wanted.uri)),
            Matching::Params(names) => {
                let uri = Uri::parse(wanted.uri).ok()?;
                let values = names.iter().map(|name| uri.params.value(name));
                let values: Vec<Bytes> = values.collect::<Option<_>>()?;
                position(&|c| {
                    Uri::parse(&Bytes::copy_from_slice(c.uri())).is_ok_and(|u| {
                        let mut pairs = names.iter().zip(&values);
                        pairs.all(|(name, value)| u.params.value(name).as_ref() == Some(value))
                    })
                })
            }
        }
    }

    /// Puts a contact at its place.
    pub fn insert(&mut self, contact: Contact, order: Order) {
        let at = match order {
            Order::Newest => 0,
            Order::Q => {
                self.contacts.iter().position(|c| c.q < contact.q).unwrap_or(self.contacts.len())
            }
        };
        self.contacts.insert(at, contact);
    }

    /// Adds a new contact and reports it.
    pub fn add(&mut self, id: u64, binding: &Binding, now: u32, order: Order, changes: &mut Vec<Change>) {
        let contact = Contact::new(id, binding, now);
        changes.push(Change::Inserted(contact.clone()));
        self.insert(contact, order);
    }

    /// Updates a contact, moves it to its place and reports it.
    pub fn update(
        &mut self,
        at: usize,
        binding: &Binding,
        now: u32,
        order: Order,
        changes: &mut Vec<Change>,
    ) {
        let contact = &mut self.contacts[at];
        let old_q = contact.q;
        let moved = contact.uri() != &binding.uri[..] || contact.text(Field::CallId) != &binding.call_id[..];
        if moved && contact.state != State::New {
            let copy = |field| Bytes::copy_from_slice(contact.text(field));
            changes.push(Change::Moved {
                id: contact.id,
                uri: copy(Field::Uri),
                call_id: copy(Field::CallId),
            });
        }
        contact.update(binding, now);
        changes.push(Change::Updated(contact.clone()));
        if order == Order::Newest || old_q != binding.q {
            let contact = self.contacts.remove(at);
            self.insert(contact, order);
        }
    }

    /// Removes the contacts that are meant and reports them.
    pub fn remove(&mut self, mut meant: impl FnMut(&Contact) -> bool, changes: &mut Vec<Change>) {
        changes.extend(self.contacts.extract_if(.., |c| meant(c)).map(Change::Deleted));
    }

    /// The keys of the address as a JSON object; empty for none.
    pub fn keys_json(&self) -> Bytes {
        let Some(keys) = &self.keys else { return Bytes::new() };
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let map: serde_json::Map<_, _> =
            keys.iter().map(|(k, v)| (text(k), serde_json::Value::from(text(v)))).collect();
        if map.is_empty() { Bytes::new() } else { serde_json::Value::Object(map).to_string().into() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(uri: &'static str, q: i16, expires: u32) -> Binding {
        Binding { uri: uri.into(), q, expires, call_id: "c".into(), ..Binding::default() }
    }

    fn save(table: &Table, b: &Binding, order: Order) {
        table.with(b"alice", |record, changes| record.add(table.next_id(), b, 1, order, changes));
    }

    fn uris(table: &Table) -> Vec<String> {
        let names = |r: &Record| {
            r.contacts.iter().map(|c| String::from_utf8_lossy(c.uri()).into_owned()).collect()
        };
        table.read(b"alice", names).unwrap_or_default()
    }

    #[test]
    fn contacts_are_ordered_by_q_or_by_age() {
        for (order, expected) in
            [(Order::Q, ["sip:b@2", "sip:c@3", "sip:a@1"]), (Order::Newest, ["sip:c@3", "sip:b@2", "sip:a@1"])]
        {
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
        let stored = Binding { instance: "<urn:1>".into(), reg_id: 1, ..binding("sip:a@10.0.0.1;rinstance=x", -1, 0) };
        record.insert(Contact::new(1, &stored, 1), Order::Q);
        let param = || Matching::Params(vec!["rinstance".into()]);
        for (uri, call_id, flow, matching, found) in [
            ("sip:a@10.0.0.1;rinstance=x", "c", None, Matching::Uri, true),
            ("sip:a@10.0.0.1:5060;rinstance=x", "c", None, Matching::Uri, false),
            ("sip:a@10.0.0.1;rinstance=x", "other", None, Matching::UriAndCallId, false),
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
