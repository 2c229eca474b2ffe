//! Management commands of usrloc, with the field names of the reference.

use super::contact::{Binding, Contact, ContactState, Field, NO_SOCKET};
use super::sql::{flag_names, socket_text};
use super::table::{Change, Record, Table};
use super::{Mode, Usrloc, now_s};
use bytes::Bytes;
use host::db::DbError;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use std::time::Duration;

type Command = fn(&mut Call<'_, Usrloc>, &MiParams) -> MiResult;
type Late = fn(&mut Call<'_, Usrloc>, &MiParams, MiAnswer);

/// (name of 4.x and that up to 3.x, help, parameters, command)
const COMMANDS: &[(&str, &str, &str, Command)] = &[
    ("usrloc:dump ul_dump", "all registrations", "[brief]", dump),
    ("usrloc:cluster_sync ul_cluster_sync", "asks another server for its contacts", "", cluster_sync),
];

/// Those that may wait for a database.
const LATE: &[(&str, &str, &str, Late)] = &[
    ("usrloc:rm ul_rm", "removes an address", "table_name aor", rm),
    ("usrloc:rm_contact ul_rm_contact", "removes a contact", "table_name aor contact", rm_contact),
    ("usrloc:add ul_add", "adds a contact", "table_name aor contact expires q flags cflags methods", add),
    ("usrloc:show_contact ul_show_contact", "contacts of an address", "table_name aor", show),
    ("usrloc:flush ul_flush", "writes pending changes to the database", "", flush),
    ("usrloc:sync ul_sync", "writes the table of the database anew", "table_name [aor]", sync),
];

pub fn register(m: &mut Registrar<Usrloc>) {
    for (names, help, takes, command) in COMMANDS {
        m.command(names, help, *command).takes(takes);
    }
    for (names, help, takes, command) in LATE {
        m.command_late(names, help, *command).takes(takes);
    }
}

/// Says what is wrong and ends the command.
macro_rules! or_answer {
    ($answer:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return $answer.give(Err(error)),
        }
    };
}

fn table_of(call: &Call<'_, Usrloc>, params: &MiParams) -> Result<Arc<Table>, MiError> {
    let name = params.need("table_name", 0)?;
    call.module.find_table(&name).ok_or_else(|| MiError::new(404, "Table not found"))
}

/// The address as it is stored; with `use_domain` it must have a domain, else it is cut off.
fn aor_of(call: &Call<'_, Usrloc>, params: &MiParams) -> Result<Bytes, MiError> {
    let aor = params.need("aor", 1)?;
    match (call.module.use_domain, aor.split_once('@')) {
        (true, None) => Err(MiError::new(400, "Domain missing in AOR")),
        (false, Some((user, _))) => Ok(Bytes::from(user.to_string())),
        _ => Ok(Bytes::from(aor)),
    }
}

fn failed(error: DbError) -> MiError {
    MiError::new(500, error.to_string())
}

fn rm(call: &mut Call<Usrloc>, params: &MiParams, answer: MiAnswer) {
    let table = or_answer!(answer, table_of(call, params));
    let aor = or_answer!(answer, aor_of(call, params));
    let work = |record: &mut Record, changes: &mut Vec<Change>| record.remove(|_| true, changes);
    let usrloc = call.module.clone();
    usrloc.change_beside(call.ctx, "ul_rm", &table, aor, work, |_, done| {
        answer.give(done.map(|()| json!("OK")).map_err(failed));
    });
}

fn rm_contact(call: &mut Call<Usrloc>, params: &MiParams, answer: MiAnswer) {
    let table = or_answer!(answer, table_of(call, params));
    let aor = or_answer!(answer, aor_of(call, params));
    let uri = or_answer!(answer, params.need("contact", 2));
    let work = move |record: &mut Record, changes: &mut Vec<Change>| {
        if record.contacts.is_empty() {
            return Err(MiError::new(404, "AOR not found"));
        }
        record.remove(|c| c.uri() == uri.as_bytes(), changes);
        if changes.is_empty() { Err(MiError::new(404, "Contact not found")) } else { Ok(json!("OK")) }
    };
    let usrloc = call.module.clone();
    usrloc.change_beside(call.ctx, "ul_rm_contact", &table, aor, work, |_, done| {
        answer.give(done.map_err(failed).and_then(|result| result));
    });
}

fn add(call: &mut Call<Usrloc>, params: &MiParams, answer: MiAnswer) {
    let table = or_answer!(answer, table_of(call, params));
    let aor = or_answer!(answer, aor_of(call, params));
    let now = now_s(call.ctx);
    let mut binding = or_answer!(answer, binding_of(params, now));
    let (usrloc, order) = (call.module.clone(), call.module.order);
    let id = table.next_id();
    let work = move |record: &mut Record, changes: &mut Vec<Change>| {
        let at = record.contacts.iter().position(|c| c.uri() == &binding.uri[..]);
        match at {
            Some(at) => {
                binding.cseq = record.contacts[at].cseq;
                record.update(at, &binding, now, order, changes);
            }
            None => record.add(id, &binding, now, order, changes),
        }
    };
    usrloc.change_beside(call.ctx, "ul_add", &table, aor, work, |_, done| {
        answer.give(done.map(|()| json!("OK")).map_err(failed));
    });
}

fn binding_of(params: &MiParams, now: u32) -> Result<Binding, MiError> {
    let uri = Bytes::from(params.need("contact", 2)?);
    sip::Uri::parse(&uri).map_err(|_| MiError::new(500, "Internal Error"))?;
    let int = |name, at| {
        params
            .int_in(name, at, 0..=u32::MAX.into())?
            .ok_or_else(|| MiError::params(format!("missing parameter: {name}")))
    };
    let q = params.need("q", 4)?;
    let q = q.trim().parse::<f64>().ok().filter(|q| (0.0..=1.0).contains(q));
    let q = q.ok_or_else(|| MiError::new(400, "Bad parameter value"))?;
    let expires = int("expires", 3)?;
    Ok(Binding {
        uri,
        call_id: "dfjrewr12386fd6-343@opensips.mi".into(),
        user_agent: "OpenSIPS MI Server".into(),
        expires: if expires == 0 { 0 } else { now.saturating_add(expires.clamp(1, 1 << 30) as u32) },
        q: (q * 1000.0).round() as i16,
        cseq: 1,
        bits: int("flags", 5)? as u8,
        flags: int("cflags", 6)? as u32,
        methods: int("methods", 7)? as u32,
        socket: NO_SOCKET,
        ..Binding::default()
    })
}

fn show(call: &mut Call<Usrloc>, params: &MiParams, answer: MiAnswer) {
    let table = or_answer!(answer, table_of(call, params));
    let aor = or_answer!(answer, aor_of(call, params));
    let (usrloc, shown, keys) = (call.module.clone(), aor.clone(), call.module.dump_keys);
    usrloc.read_beside(call.ctx, "ul_show_contact", &table, aor, Record::clone, move |ctx, record| {
        let now = now_s(ctx);
        answer.give(match record {
            Ok(record) if record.contacts.is_empty() => Err(MiError::new(404, "AOR not found")),
            Ok(record) => Ok(record_json(ctx.shared(), &shown, &record, now, keys)),
            Err(error) => Err(failed(error)),
        });
    });
}

/// `ul_dump brief`: only the addresses. An array parameter as `brief` counts by its value.
fn dump(call: &mut Call<Usrloc>, params: &MiParams) -> MiResult {
    let brief = params.text("brief", 0).is_some_and(|b| !matches!(&*b, "" | "0" | "false"));
    let now = now_s(call.ctx);
    let mut domains = Vec::new();
    for table in call.module.tables() {
        let mut aors = Vec::new();
        table.each(|aor, record| {
            aors.push(match brief {
                true => json!({"AOR": text(aor)}),
                false => record_json(call.shared(), aor, record, now, call.module.dump_keys),
            });
        });
        domains.push(json!({"name": table.name, "hash_size": 1 << call.module.hash_size, "AORs": aors}));
    }
    Ok(json!({"Domains": domains}))
}

fn flush(call: &mut Call<Usrloc>, _: &MiParams, answer: MiAnswer) {
    if !matches!(call.module.mode, Mode::WriteThrough | Mode::WriteBack) {
        return answer.give(Ok(json!("OK")));
    }
    let usrloc = call.module.clone();
    usrloc.flush_all(call.ctx, Duration::ZERO, |_, done| {
        answer.give(done.map(|()| json!("OK")).map_err(failed))
    });
}

fn sync(call: &mut Call<Usrloc>, params: &MiParams, answer: MiAnswer) {
    if !matches!(call.module.mode, Mode::WriteThrough | Mode::WriteBack) {
        return answer.give(Err(MiError::new(200, "Contacts already synced")));
    }
    let table = or_answer!(answer, table_of(call, params));
    let aor = match params.find("aor", 1) {
        Some(_) => Some(or_answer!(answer, aor_of(call, params))),
        None => None,
    };
    if aor.as_ref().is_some_and(|aor| table.read(aor, |_| ()).is_none()) {
        return answer.give(Err(MiError::new(404, "AOR not found")));
    }
    let usrloc = call.module.clone();
    usrloc.rewrite(call.ctx, &table, aor, |_, done| {
        answer.give(done.map(|()| json!("OK")).map_err(failed));
    });
}

/// In a federation every address of this server is published again.
fn cluster_sync(call: &mut Call<Usrloc>, _: &MiParams) -> MiResult {
    if call.module.federation.is_some() {
        let usrloc = call.module.clone();
        usrloc.publish_all(call.ctx);
        return Ok(json!("OK"));
    }
    Err(MiError::new(400, "Clustering not enabled"))
}

/// An address with its contacts, and its keys where they are wanted.
fn record_json(shared: &host::Shared, aor: &[u8], record: &Record, now: u32, with_keys: bool) -> Json {
    let contacts: Vec<Json> = record.contacts.iter().map(|c| contact_json(shared, c, now)).collect();
    let mut out = Map::new();
    out.insert("AOR".into(), text(aor));
    out.insert("Contacts".into(), json!(contacts));
    let keys = record.keys_json();
    if with_keys && !keys.is_empty() {
        out.insert("KV-Store".into(), text(&keys));
    }
    Json::Object(out)
}

pub fn contact_json(shared: &host::Shared, c: &Contact, now: u32) -> Json {
    let mut out = Map::new();
    let mut put = |name: &str, value: Json| out.insert(name.into(), value);
    put("Contact", text(c.uri()));
    put("ContactID", json!(c.id.to_string()));
    put(
        "Expires",
        match c.expires {
            0 => json!("permanent"),
            e if e <= now => json!("expired"),
            e => json!(e - now),
        },
    );
    put("Q", if c.q < 0 { json!("") } else { json!(format!("{}", f64::from(c.q) / 1000.0)) });
    put("Callid", text(c.text(Field::CallId)));
    put("Cseq", json!(c.cseq));
    for (name, field) in
        [("User-agent", Field::UserAgent), ("Received", Field::Received), ("Path", Field::Path)]
    {
        if !c.text(field).is_empty() {
            put(name, text(c.text(field)));
        }
    }
    let state = match c.state {
        ContactState::New => "CS_NEW",
        ContactState::Synced => "CS_SYNC",
        ContactState::Dirty => "CS_DIRTY",
    };
    put("State", json!(state));
    put("Flags", json!(c.bits));
    put("Cflags", json!(flag_names(shared, c.flags)));
    if let Some(socket) = c.socket().and_then(|s| socket_text(shared, s)) {
        put("Socket", json!(socket));
    }
    put("Methods", json!(c.methods));
    for (name, field) in [("Attr", Field::Attr), ("SIP_instance", Field::Instance)] {
        if !c.text(field).is_empty() {
            put(name, text(c.text(field)));
        }
    }
    if c.latency_us > 0 {
        put("Ping-Latency", json!(c.latency_us));
    }
    Json::Object(out)
}

fn text(bytes: &[u8]) -> Json {
    json!(String::from_utf8_lossy(bytes))
}
