//! Management commands of usrloc, with the field names of the reference.

use super::contact::{Binding, Contact, Field, State};
use super::table::{Change, Record, Table};
use super::{Usrloc, now_s};
use bytes::Bytes;
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

type Command = fn(&mut Call<'_, Usrloc>, &MiParams) -> MiResult;

/// (name up to 3.x, name of 4.x, help, command)
const COMMANDS: &[(&str, &str, &str, Command)] = &[
    ("ul_rm", "usrloc:rm", "removes an address: ul_rm table_name aor", rm),
    ("ul_rm_contact", "usrloc:rm_contact", "removes a contact: ul_rm_contact table_name aor contact", rm_contact),
    ("ul_dump", "usrloc:dump", "all registrations: ul_dump [brief]", dump),
    ("ul_add", "usrloc:add", "adds a contact: ul_add table_name aor contact expires q flags cflags methods", add),
    ("ul_show_contact", "usrloc:show_contact", "contacts of an address: ul_show_contact table_name aor", show),
    ("ul_flush", "usrloc:flush", "writes pending changes to the database", flush),
];

pub fn register(m: &mut Registrar<Usrloc>) {
    for (old, new, help, command) in COMMANDS {
        m.command(old, help, *command);
        m.command(new, help, *command);
    }
}

fn table_and_aor(call: &Call<'_, Usrloc>, params: &MiParams) -> Result<(Arc<Table>, String), MiError> {
    let name = params.need("table_name", 0)?;
    let table = call.module.find_table(&name).ok_or_else(|| MiError::new(404, "Table not found"))?;
    Ok((table, params.need("aor", 1)?))
}

fn rm(call: &mut Call<Usrloc>, params: &MiParams) -> MiResult {
    let (table, aor) = table_and_aor(call, params)?;
    remove(call, &table, &aor, |_| true).then(|| json!("OK")).ok_or_else(|| MiError::new(404, "AOR not found"))
}

fn rm_contact(call: &mut Call<Usrloc>, params: &MiParams) -> MiResult {
    let (table, aor) = table_and_aor(call, params)?;
    let contact = params.need("contact", 2)?;
    let found = remove(call, &table, &aor, |c| c.uri() == contact.as_bytes());
    found.then(|| json!("OK")).ok_or_else(|| MiError::new(404, "Contact not found"))
}

fn remove(call: &mut Call<Usrloc>, table: &Table, aor: &str, meant: impl Fn(&Contact) -> bool) -> bool {
    let ((), changes) = table.with(aor.as_bytes(), |record, changes| {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut record.contacts).into_iter().partition(&meant);
        record.contacts = kept;
        changes.extend(gone.into_iter().map(Change::Deleted));
    });
    let module = call.module.clone();
    module.changed(call.ctx, table, aor.as_bytes(), &changes);
    changes.iter().any(|c| matches!(c, Change::Deleted(_)))
}

fn add(call: &mut Call<Usrloc>, params: &MiParams) -> MiResult {
    let table = call.module.table(&params.need("table_name", 0)?);
    let aor = params.need("aor", 1)?;
    let uri = Bytes::from(params.need("contact", 2)?);
    sip::Uri::parse(&uri).map_err(|_| MiError::params("contact is not a SIP URI"))?;
    let int = |name, at| params.int(name, at).map(|v| v.unwrap_or(0));
    let q: f64 = params.text("q", 4).and_then(|q| q.parse().ok()).unwrap_or(-1.0);
    let now = now_s(call.ctx);
    let expires = int("expires", 3)?;
    let methods = params.int("methods", 7)?.unwrap_or(i64::from(u32::MAX));
    let binding = Binding {
        uri,
        call_id: "dfjrewr12386fd6-343@opensips.mi".into(),
        user_agent: "FermataMI".into(),
        expires: if expires == 0 { 0 } else { now.saturating_add(expires.clamp(1, 1 << 30) as u32) },
        q: if q < 0.0 { -1 } else { (q * 1000.0).min(1000.0) as i16 },
        cseq: 1,
        flags: int("cflags", 6)? as u32,
        methods: methods as u32,
        ..Binding::default()
    };
    let (order, matching) = (call.module.order, call.module.matching.clone());
    let ((), changes) = table.with(aor.as_bytes(), |record, changes| {
        match record.find(&binding.uri, &binding.call_id, &matching, now) {
            Some(at) => changes.push(Change::Updated(record.update(at, &binding, now, order))),
            None => {
                let contact = Contact::new(table.next_id(), &binding, now);
                changes.push(Change::Inserted(contact.clone()));
                record.insert(contact, order);
            }
        }
    });
    let module = call.module.clone();
    module.changed(call.ctx, &table, aor.as_bytes(), &changes);
    Ok(json!("OK"))
}

fn show(call: &mut Call<Usrloc>, params: &MiParams) -> MiResult {
    let (table, aor) = table_and_aor(call, params)?;
    let now = now_s(call.ctx);
    let found = table.read(aor.as_bytes(), |contacts| {
        contacts.iter().map(|c| contact_json(call, c, now)).collect::<Vec<_>>()
    });
    match found {
        Some(contacts) if !contacts.is_empty() => Ok(json!({"AOR": aor, "Contacts": contacts})),
        _ => Err(MiError::new(404, "AOR not found")),
    }
}

fn dump(call: &mut Call<Usrloc>, params: &MiParams) -> MiResult {
    let brief = params.text("brief", 0).is_some_and(|b| b == "brief" || b == "1");
    let now = now_s(call.ctx);
    let mut domains = Vec::new();
    for table in call.module.tables() {
        let mut aors = Vec::new();
        table.each(|aor, record| aors.push(record_json(call, aor, record, now, brief)));
        domains.push(json!({"name": table.name, "hash_size": 64, "AORs": aors}));
    }
    Ok(json!({"Domains": domains}))
}

fn flush(_: &mut Call<Usrloc>, _: &MiParams) -> MiResult {
    Ok(json!("OK"))
}

fn record_json(call: &Call<'_, Usrloc>, aor: &[u8], record: &Record, now: u32, brief: bool) -> Json {
    let mut out = Map::new();
    out.insert("AOR".into(), text(aor));
    if !brief {
        let contacts: Vec<Json> = record.contacts.iter().map(|c| contact_json(call, c, now)).collect();
        out.insert("Contacts".into(), json!(contacts));
    } else {
        let contacts: Vec<Json> = record.contacts.iter().map(|c| json!({"Contact": text(c.uri())})).collect();
        out.insert("Contacts".into(), json!(contacts));
    }
    Json::Object(out)
}

fn contact_json(call: &Call<'_, Usrloc>, c: &Contact, now: u32) -> Json {
    let mut out = Map::new();
    let mut put = |name: &str, value: Json| out.insert(name.into(), value);
    put("Contact", text(c.uri()));
    put("ContactID", json!(c.id.to_string()));
    put("Expires", match c.expires {
        0 => json!("permanent"),
        e if e <= now => json!("expired"),
        e => json!(e - now),
    });
    put("Q", if c.q < 0 { json!("") } else { json!(format!("{}", f64::from(c.q) / 1000.0)) });
    put("Callid", text(c.text(Field::CallId)));
    put("Cseq", json!(c.cseq));
    put("User-agent", text(c.text(Field::UserAgent)));
    for (name, field) in [("Received", Field::Received), ("Path", Field::Path), ("SIP_instance", Field::Instance)] {
        if !c.text(field).is_empty() {
            put(name, text(c.text(field)));
        }
    }
    put("State", json!(match c.state {
        State::New => "CS_NEW",
        State::Synced => "CS_SYNC",
        State::Dirty => "CS_DIRTY",
    }));
    put("Flags", json!(0));
    put("Cflags", json!(flag_names(call, c.flags)));
    if let Some(socket) = call.shared().sockets.get(usize::from(c.socket)) {
        put("Socket", json!(socket.text));
    }
    put("Methods", json!(c.methods));
    if !c.text(Field::Attr).is_empty() {
        put("Attr", text(c.text(Field::Attr)));
    }
    Json::Object(out)
}

fn flag_names(call: &Call<'_, Usrloc>, flags: u32) -> String {
    let names = call.shared().branch_flag_names.read();
    let set = names.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0);
    set.map(|(_, name)| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>().join(" ")
}

fn text(bytes: &[u8]) -> Json {
    json!(String::from_utf8_lossy(bytes))
}
