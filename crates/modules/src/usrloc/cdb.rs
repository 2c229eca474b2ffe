//! Contacts in a key-value store that several servers share (`full-sharing-cachedb`): one map for each
//! address, one field for each contact, so that servers that change different contacts of an address do
//! not undo one another's work.

use super::contact::{ALL_METHODS, Binding, Contact, ContactState, Field, NO_SOCKET};
use super::sql::{OwnKeys, flag_bits, flag_names, packed_keys, socket_index, socket_text, unpacked_keys};
use super::table::{Change, Matching, Record};
use bytes::Bytes;
use host::Shared;
use host::cachedb::{CacheError, Store};
use serde_json::{Map, Value as Json, json};
use std::rc::Rc;

/// The key of an address.
pub fn key(table: &str, aor: &[u8]) -> Bytes {
    [table.as_bytes(), b":", aor].concat().into()
}

/// All contacts of an address, as field and value.
pub async fn read(store: &Rc<dyn Store>, key: Bytes) -> Result<Vec<(Bytes, Bytes)>, CacheError> {
    match store.map_get(key.clone()).get().await {
        Err(CacheError::Unsupported(_)) => Ok(document(store, key).await?.into_iter().collect()),
        other => other,
    }
}

/// Sets and removes fields of an address; the map goes after `expires_s`, 0 never.
pub async fn write(
    store: &Rc<dyn Store>,
    key: Bytes,
    set: Vec<(Bytes, Bytes)>,
    unset: Vec<Bytes>,
    expires_s: u32,
) -> Result<(), CacheError> {
    match store.map_change(key.clone(), set.clone(), unset.clone(), expires_s).get().await {
        Err(CacheError::Unsupported(_)) => {}
        other => return other,
    }
    // An engine without maps: the whole address is one value.
    let mut all = document(store, key.clone()).await?;
    all.retain(|(name, _)| !unset.contains(name));
    for (name, value) in set {
        all.retain(|(n, _)| *n != name);
        all.push((name, value));
    }
    if all.is_empty() {
        return store.remove(key).get().await;
    }
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let map: Map<String, Json> = all.iter().map(|(n, v)| (text(n), Json::from(text(v)))).collect();
    store.store(key, Json::Object(map).to_string().into(), expires_s).get().await
}

async fn document(store: &Rc<dyn Store>, key: Bytes) -> Result<Vec<(Bytes, Bytes)>, CacheError> {
    let Some(text) = store.fetch(key).get().await? else { return Ok(Vec::new()) };
    let map: Map<String, Json> = serde_json::from_slice(&text).unwrap_or_default();
    let pair = |(n, v): (String, Json)| Some((Bytes::from(n), Bytes::from(v.as_str()?.to_string())));
    Ok(map.into_iter().filter_map(pair).collect())
}

/// The name of a contact's field.
pub fn field(uri: &[u8], call_id: &[u8], matching: &Matching) -> Bytes {
    match matching {
        Matching::UriAndCallId | Matching::TextAndCallId => [uri, b" ", call_id].concat().into(),
        _ => Bytes::copy_from_slice(uri),
    }
}

fn field_of(contact: &Contact, matching: &Matching) -> Bytes {
    field(contact.uri(), contact.text(Field::CallId), matching)
}

/// What changes do to the fields: (set, removed).
pub fn fields(
    shared: &Shared,
    record: &Record,
    changes: &[Change],
    matching: &Matching,
) -> (Vec<(Bytes, Bytes)>, Vec<Bytes>) {
    let keys = record.keys_json();
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Inserted(c) | Change::Updated(c) | Change::Touched(c) => {
                set.push((field_of(c, matching), pack(shared, c, &keys)));
            }
            Change::Deleted(c) => unset.push(field_of(c, matching)),
            Change::Moved { uri, call_id, .. } => unset.push(field(uri, call_id, matching)),
            Change::AorInserted | Change::AorDeleted => {}
        }
    }
    unset.retain(|name| !set.iter().any(|(n, _)| n == name));
    (set, unset)
}

/// Seconds until the last contact has expired; 0 when one never does.
pub fn lifetime(record: &Record, now: u32) -> u32 {
    if record.contacts.iter().any(|c| c.expires == 0) {
        return 0;
    }
    let last = record.contacts.iter().map(|c| c.expires).max().unwrap_or(now);
    last.saturating_sub(now).max(1)
}

fn text(bytes: &[u8]) -> Json {
    Json::from(String::from_utf8_lossy(bytes))
}

fn pack(shared: &Shared, c: &Contact, keys: &[u8]) -> Bytes {
    let methods = (c.methods != ALL_METHODS).then_some(c.methods);
    let packed = packed_keys(c, keys);
    json!({
        "contact": text(c.uri()), "expires": c.expires, "q": c.q, "callid": text(c.text(Field::CallId)),
        "cseq": c.cseq, "flags": c.bits, "cflags": flag_names(shared, c.flags),
        "user_agent": text(c.text(Field::UserAgent)), "received": text(c.text(Field::Received)),
        "path": text(c.text(Field::Path)), "sock": c.socket().and_then(|s| socket_text(shared, s)),
        "methods": methods, "last_mod": c.modified, "sip_instance": text(c.text(Field::Instance)),
        "attr": text(c.text(Field::Attr)), "kv_store": text(&packed),
    })
    .to_string()
    .into()
}

/// The contacts of an address; what is none is passed over.
pub fn unpack(shared: &Shared, aor: &[u8], fields: &[(Bytes, Bytes)]) -> Vec<(Contact, Vec<(Bytes, Bytes)>)> {
    fields.iter().filter_map(|(name, value)| unpack_one(shared, aor, name, value)).collect()
}

fn unpack_one(
    shared: &Shared,
    aor: &[u8],
    name: &[u8],
    value: &[u8],
) -> Option<(Contact, Vec<(Bytes, Bytes)>)> {
    let json: Json = serde_json::from_slice(value).ok()?;
    let get = |n: &str| Bytes::from(json[n].as_str().unwrap_or("").to_string());
    let int = |n: &str| json[n].as_u64().unwrap_or(0);
    let (keys, own): (_, OwnKeys) = unpacked_keys(&get("kv_store"));
    let binding = Binding {
        uri: Bytes::from(json["contact"].as_str()?.to_string()),
        call_id: get("callid"),
        user_agent: get("user_agent"),
        received: get("received"),
        path: get("path"),
        instance: get("sip_instance"),
        attr: get("attr"),
        tag: own.tag,
        keys: own.keys,
        expires: json["expires"].as_u64()? as u32,
        expires_out: own.expires_out,
        q: json["q"].as_i64().unwrap_or(-1).clamp(-1, 1000) as i16,
        cseq: int("cseq") as u32,
        flags: flag_bits(shared, &get("cflags")),
        methods: json["methods"].as_u64().map_or(ALL_METHODS, |m| m as u32),
        socket: socket_index(shared, &get("sock")).unwrap_or(NO_SOCKET),
        reg_id: own.reg_id,
        bits: int("flags") as u8,
    };
    let mut contact = Contact::new(id_of(aor, name), &binding, int("last_mod") as u32);
    contact.state = ContactState::Synced;
    Some((contact, keys))
}

/// The same on every server (FNV-1a), and positive.
pub fn id_of(aor: &[u8], name: &[u8]) -> u64 {
    let bytes = aor.iter().chain(b" ").chain(name);
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    hash >> 1
}
