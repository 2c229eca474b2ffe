//! Contacts as rows of a location table. Two layouts: that of 3.x and 4.x (rows are known by
//! `contact_id`, `expires` is a number) and that of 2.1 (the key is user, domain, contact and Call-ID,
//! `expires` is a moment).

use super::contact::{ALL_METHODS, Binding, Contact, ContactState, Field, NO_SOCKET};
use super::table::{Gone, Why};
use bytes::Bytes;
use host::Shared;
use host::db::{DbValue, Name, Op, Query, Row};

/// Names of the columns that parameters may change.
#[derive(Clone, Debug)]
pub struct Columns {
    pub contact_id: Name,
    pub user: Name,
    pub domain: Name,
    pub contact: Name,
    pub expires: Name,
    pub q: Name,
    pub call_id: Name,
    pub cseq: Name,
    pub methods: Name,
    pub flags: Name,
    pub cflags: Name,
    pub user_agent: Name,
    pub received: Name,
    pub socket: Name,
    pub path: Name,
    pub instance: Name,
    pub keys: Name,
    pub attr: Name,
}

const LAST_MODIFIED: Name = Name::fixed("last_modified");

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            contact_id: "contact_id".into(),
            user: "username".into(),
            domain: "domain".into(),
            contact: "contact".into(),
            expires: "expires".into(),
            q: "q".into(),
            call_id: "callid".into(),
            cseq: "cseq".into(),
            methods: "methods".into(),
            flags: "flags".into(),
            cflags: "cflags".into(),
            user_agent: "user_agent".into(),
            received: "received".into(),
            socket: "socket".into(),
            path: "path".into(),
            instance: "sip_instance".into(),
            keys: "kv_store".into(),
            attr: "attr".into(),
        }
    }
}

/// Which columns a table has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// 2.2 and later.
    ById,
    /// 2.1 and before.
    ByKey,
}

/// Who numbers the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ids {
    Ours,
    /// Several servers share the table.
    OfDatabase,
}

/// How contacts of this server become rows.
#[derive(Clone)]
pub struct Schema {
    pub columns: Columns,
    pub layout: Layout,
    pub ids: Ids,
    pub use_domain: bool,
}

impl Schema {
    /// "user@domain" → (user, domain).
    fn split<'a>(&self, aor: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        match aor.iter().position(|b| *b == b'@') {
            _ if !self.use_domain => (aor, b""),
            Some(at) => (&aor[..at], &aor[at + 1..]),
            None => (b"", aor),
        }
    }

    fn of_aor(&self, query: Query, aor: &[u8]) -> Query {
        let (user, domain) = self.split(aor);
        let query = query.eq(&self.columns.user, text(user));
        if self.use_domain { query.eq(&self.columns.domain, text(domain)) } else { query }
    }

    /// All contacts of an address.
    pub fn select(&self, table: &str, aor: &[u8]) -> Query {
        self.of_aor(self.all(table), aor)
    }

    /// `count` rows after the row of this id, in order of ids.
    pub fn page(&self, table: &str, after: u64, count: u64) -> Query {
        let id = self.id();
        self.all(table).filter(&id, Op::Gt, after as i64).order(&id).limit(count)
    }

    /// The rows of one of some parts of the table.
    pub fn part(&self, table: &str, part: usize, parts: usize) -> Query {
        let modulo = Op::Other(format!("% {parts} =").into());
        self.all(table).filter(self.id(), modulo, part as i64)
    }

    fn all(&self, table: &str) -> Query {
        let c = &self.columns;
        let id = self.id();
        let names = [
            &c.user,
            &id,
            &c.contact,
            &c.expires,
            &c.q,
            &c.call_id,
            &c.cseq,
            &c.flags,
            &c.cflags,
            &c.user_agent,
            &c.received,
            &c.path,
            &c.socket,
            &c.methods,
            &LAST_MODIFIED,
            &c.instance,
            &c.attr,
        ];
        let query = Query::select(table.to_string()).columns(names);
        let query = if self.use_domain { query.column(&c.domain) } else { query };
        if self.layout == Layout::ById { query.column(&c.keys) } else { query }
    }

    fn id(&self) -> Name {
        match self.layout {
            Layout::ById => self.columns.contact_id.clone(),
            Layout::ByKey => "id".into(),
        }
    }

    /// Statements that make the row of a contact what the contact is.
    pub fn write(
        &self,
        shared: &Shared,
        table: &str,
        aor: &[u8],
        contact: &Contact,
        keys: &[u8],
    ) -> Vec<Query> {
        let c = &self.columns;
        let table = || table.to_string();
        let id = contact.id as i64;
        match (self.layout, self.ids) {
            (Layout::ByKey, _) => {
                let old = self.key(Query::delete(table()), aor, contact.uri(), contact.text(Field::CallId));
                vec![old, self.values(self.names_of(Query::insert(table()), aor), shared, contact, keys)]
            }
            (Layout::ById, Ids::Ours) => {
                let query = self.names_of(Query::upsert(table()).eq(&c.contact_id, id), aor);
                vec![self.values(query, shared, contact, keys)]
            }
            (Layout::ById, Ids::OfDatabase) if contact.state == ContactState::New => {
                vec![self.values(self.names_of(Query::insert(table()), aor), shared, contact, keys)]
            }
            (Layout::ById, Ids::OfDatabase) => {
                let query = Query::update(table()).eq(&c.contact_id, id);
                vec![self.values(query, shared, contact, keys)]
            }
        }
    }

    fn names_of(&self, query: Query, aor: &[u8]) -> Query {
        let (user, domain) = self.split(aor);
        let query = query.set(&self.columns.user, text(user));
        if self.use_domain { query.set(&self.columns.domain, text(domain)) } else { query }
    }

    fn key(&self, query: Query, aor: &[u8], uri: &[u8], call_id: &[u8]) -> Query {
        let query = self.of_aor(query, aor).eq(&self.columns.contact, text(uri));
        query.eq(&self.columns.call_id, text(call_id))
    }

    fn values(&self, query: Query, shared: &Shared, contact: &Contact, keys: &[u8]) -> Query {
        let c = &self.columns;
        let field = |f| some(contact.text(f));
        let expires = match self.layout {
            Layout::ById => DbValue::Int(i64::from(contact.expires)),
            Layout::ByKey => DbValue::Time(i64::from(contact.expires)),
        };
        let q = if contact.q < 0 { -1.0 } else { f64::from(contact.q) / 1000.0 };
        let methods = (contact.methods != ALL_METHODS).then_some(i64::from(contact.methods));
        let query = query
            .set(&c.contact, text(contact.uri()))
            .set(&c.expires, expires)
            .set(&c.q, DbValue::Real(q))
            .set(&c.call_id, text(contact.text(Field::CallId)))
            .set(&c.cseq, i64::from(contact.cseq))
            .set(&c.flags, i64::from(contact.bits))
            .set(&c.cflags, flag_names(shared, contact.flags))
            .set(&c.user_agent, text(contact.text(Field::UserAgent)))
            .set(&c.received, field(Field::Received))
            .set(&c.path, field(Field::Path))
            .set(&c.socket, contact.socket().and_then(|s| socket_text(shared, s)))
            .set(&c.methods, methods)
            .set(LAST_MODIFIED, DbValue::Time(i64::from(contact.modified)))
            .set(&c.instance, field(Field::Instance))
            .set(&c.attr, field(Field::Attr));
        match self.layout {
            Layout::ById => query.set(&c.keys, some(&packed_keys(contact, keys))),
            Layout::ByKey => query,
        }
    }

    /// Removes a row; nothing where the row lives on under its id.
    pub fn delete(&self, table: &str, gone: &Gone) -> Option<Query> {
        let query = Query::delete(table.to_string());
        match (self.layout, gone.why) {
            (Layout::ById, Why::Moved) => None,
            (Layout::ById, Why::Deleted) => Some(query.eq(&self.columns.contact_id, gone.id as i64)),
            (Layout::ByKey, _) => Some(self.key(query, &gone.aor, &gone.uri, &gone.call_id)),
        }
    }

    /// Removes all rows of an address.
    pub fn delete_aor(&self, table: &str, aor: &[u8]) -> Query {
        self.of_aor(Query::delete(table.to_string()), aor)
    }

    /// Removes all rows that have expired.
    pub fn delete_expired(&self, table: &str, now: u32) -> Query {
        let time = |s: u32| match self.layout {
            Layout::ById => DbValue::Int(i64::from(s)),
            Layout::ByKey => DbValue::Time(i64::from(s)),
        };
        let expires = &self.columns.expires;
        Query::delete(table.to_string()).filter(expires, Op::Lt, time(now)).filter(expires, Op::Ne, time(0))
    }

    /// (address, contact, keys of the address) of a row; `None` for a row that is no contact.
    pub fn read(&self, shared: &Shared, row: Row<'_>) -> Option<(Bytes, Contact, Vec<(Bytes, Bytes)>)> {
        let c = &self.columns;
        let get = |name: &Name| row.named(name).text().unwrap_or_default();
        let int = |name: &Name| row.named(name).int().unwrap_or(0);
        let aor = match (get(&c.user), self.use_domain) {
            (user, false) => user,
            (user, true) if user.is_empty() => get(&c.domain),
            (user, true) => [&user[..], b"@", &get(&c.domain)].concat().into(),
        };
        let (keys, own) = match self.layout {
            Layout::ById => unpacked_keys(&get(&c.keys)),
            Layout::ByKey => Default::default(),
        };
        let q = row.named(&c.q).real().unwrap_or(-1.0);
        let binding = Binding {
            uri: get(&c.contact),
            call_id: get(&c.call_id),
            user_agent: get(&c.user_agent),
            received: get(&c.received),
            path: get(&c.path),
            instance: get(&c.instance),
            attr: get(&c.attr),
            tag: own.tag,
            keys: own.keys,
            expires: row.named(&c.expires).time()?.clamp(0, i64::from(u32::MAX)) as u32,
            expires_out: own.expires_out,
            q: if q < 0.0 { -1 } else { (q * 1000.0).round().min(1000.0) as i16 },
            cseq: int(&c.cseq) as u32,
            flags: flag_bits(shared, &get(&c.cflags)),
            methods: row.named(&c.methods).int().map_or(ALL_METHODS, |m| m as u32),
            socket: socket_index(shared, &get(&c.socket)).unwrap_or(NO_SOCKET),
            reg_id: own.reg_id,
            bits: int(&c.flags) as u8,
        };
        if aor.is_empty() || binding.uri.is_empty() {
            return None;
        }
        let modified = row.named(&LAST_MODIFIED).time().unwrap_or(0).max(0) as u32;
        let id = row.named(&self.id()).int()? as u64;
        let mut contact = Contact::new(id, &binding, modified);
        contact.state = ContactState::Synced;
        Some((aor, contact, keys))
    }

    /// The id of a row, for the next page.
    pub fn row_id(&self, row: Row<'_>) -> u64 {
        row.named(&self.id()).int().unwrap_or(0) as u64
    }
}

fn text(bytes: &[u8]) -> DbValue {
    DbValue::Text(Bytes::copy_from_slice(bytes))
}

fn some(bytes: &[u8]) -> DbValue {
    if bytes.is_empty() { DbValue::Null } else { text(bytes) }
}

/// Keys of a contact that have no column of their own stand in `kv_store` under this name.
const OWN: &str = "fermata";

/// Those keys.
#[derive(Default)]
pub struct OwnKeys {
    pub tag: Bytes,
    pub keys: Bytes,
    pub expires_out: u32,
    pub reg_id: u16,
}

/// Keys of the address and those of the contact as one JSON object; empty for none.
pub fn packed_keys(contact: &Contact, keys: &[u8]) -> Vec<u8> {
    let mut all: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(keys).unwrap_or_default();
    let tag = contact.text(Field::Tag);
    let own = contact.text(Field::Keys);
    if !tag.is_empty() || !own.is_empty() || contact.expires_out != 0 || contact.reg_id != 0 {
        let string = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let own = serde_json::json!({
            "shtag": string(tag), "keys": string(own), "expires_out": contact.expires_out, "reg_id": contact.reg_id,
        });
        all.insert(OWN.to_string(), own);
    }
    if all.is_empty() { Vec::new() } else { serde_json::Value::Object(all).to_string().into_bytes() }
}

pub fn unpacked_keys(text: &[u8]) -> (Vec<(Bytes, Bytes)>, OwnKeys) {
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).unwrap_or_default();
    let mut own = OwnKeys::default();
    let mut keys = Vec::new();
    for (name, value) in all {
        if name == OWN {
            let string = |n: &str| Bytes::from(value[n].as_str().unwrap_or("").to_string());
            own = OwnKeys {
                tag: string("shtag"),
                keys: string("keys"),
                expires_out: value["expires_out"].as_u64().unwrap_or(0) as u32,
                reg_id: value["reg_id"].as_u64().unwrap_or(0) as u16,
            };
        } else if let Some(value) = value.as_str() {
            keys.push((Bytes::from(name), Bytes::from(value.to_string())));
        }
    }
    (keys, own)
}

/// "NAT SIP_PING": names of the set branch flags.
pub fn flag_names(shared: &Shared, flags: u32) -> String {
    let names = shared.branch_flag_names.read();
    let set = names.iter().enumerate().filter(|(bit, _)| *bit < 32 && flags & (1 << bit) != 0);
    set.map(|(_, name)| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>().join(" ")
}

/// Names that no script declares are passed over.
pub fn flag_bits(shared: &Shared, names: &[u8]) -> u32 {
    let known = shared.branch_flag_names.read();
    let bit = |name: &[u8]| known.iter().position(|k| k == name).filter(|bit| *bit < 32);
    names.split(|b| *b == b' ').filter_map(bit).fold(0, |all, bit| all | 1 << bit)
}

/// "udp:10.0.0.1:5060", by the advertised name when there is one.
pub fn socket_text(shared: &Shared, index: u16) -> Option<String> {
    let listen = shared.sockets.get(usize::from(index))?;
    let host = String::from_utf8_lossy(&listen.names.host);
    Some(format!("{}:{host}:{}", listen.transport.as_str(), listen.names.port))
}

/// The socket of this name, as `socket_text` or by its real address.
pub fn socket_index(shared: &Shared, text: &[u8]) -> Option<u16> {
    let same = |i: usize| {
        let listen = &shared.sockets[i];
        socket_text(shared, i as u16).is_some_and(|t| t.as_bytes().eq_ignore_ascii_case(text))
            || format!("{}:{}", listen.transport.as_str(), listen.addr).as_bytes().eq_ignore_ascii_case(text)
    };
    (0..shared.sockets.len()).find(|i| same(*i)).map(|i| i as u16)
}
