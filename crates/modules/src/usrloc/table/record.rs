//! The contacts of one address: how they are recognised, ordered and changed.

use crate::usrloc::contact::{Binding, Contact, ContactState, Field};
use bytes::Bytes;
use script::ast::Dialect;
use sip::Uri;

/// How a registered contact is recognised.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Matching {
    /// Same URI (RFC 3261 §19.1.4).
    #[default]
    Uri,
    /// Same URI and Call-ID.
    UriAndCallId,
    /// The URI as written, to the byte, as 2.1 tells contacts apart.
    Text,
    /// The URI as written and the Call-ID.
    TextAndCallId,
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
/// What is looked for among the contacts of an address.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub uri: &'a Bytes,
    pub call_id: &'a [u8],
    /// The flow of RFC 5626: instance and reg-id, when both count.
    pub flow: Option<(&'a [u8], u16)>,
}

impl Matching {
    /// What a matching mode means in this dialect.
    pub fn of(self, dialect: Dialect) -> Matching {
        match (self, dialect) {
            (Matching::Uri, Dialect::V21) => Matching::Text,
            (Matching::UriAndCallId, Dialect::V21) => Matching::TextAndCallId,
            (mode, _) => mode,
        }
    }
}

impl Record {
    /// Index of the contact that is meant.
    pub fn find(&self, wanted: Wanted<'_>, matching: &Matching, now: u32) -> Option<usize> {
        let position =
            |same: &dyn Fn(&Contact) -> bool| self.contacts.iter().position(|c| !c.expired(now) && same(c));
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
            Matching::Text => position(&|c| c.uri() == &wanted.uri[..]),
            Matching::TextAndCallId => position(&|c| same_call(c) && c.uri() == &wanted.uri[..]),
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
            Order::Q => self.contacts.iter().position(|c| c.q < contact.q).unwrap_or(self.contacts.len()),
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
        if moved && contact.state != ContactState::New {
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

/// The contact's URI and this one mean the same (RFC 3261 §19.1.4).
pub fn same_uri(contact: &Contact, uri: &Bytes) -> bool {
    if contact.uri() == &uri[..] {
        return true;
    }
    let stored = Bytes::copy_from_slice(contact.uri());
    match (Uri::parse(&stored), Uri::parse(uri)) {
        (Ok(a), Ok(b)) => a.equals(&b),
        _ => false,
    }
}
