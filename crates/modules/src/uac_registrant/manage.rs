//! Management commands of uac_registrant.

use super::record::{DEFAULT_EXPIRES, Record, RegistrationState, Wish};
use super::{GROUP, Records, Registrant, What, load, send};
use bytes::Bytes;
use host::db::Query;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Ctx, Registrar};
use serde_json::{Value as Json, json};
use sip::Uri;

pub fn register(m: &mut Registrar<Registrant>) {
    m.command("uac_registrant:list reg_list", "the registrations and their states", list)
        .takes("[aor] [contact] [registrar]");
    m.command_late(
        "uac_registrant:reload reg_reload",
        "reads the registrations from the database again",
        reload,
    )
    .takes("[aor] [contact] [registrar]");
    m.command("uac_registrant:enable reg_enable", "enables a registration", |call, params| {
        enable(call, params, Wanted::On)
    })
    .takes("aor contact registrar");
    m.command("uac_registrant:disable reg_disable", "disables a registration", |call, params| {
        enable(call, params, Wanted::Off)
    })
    .takes("aor contact registrar");
    m.command("uac_registrant:force_register reg_force_register", "registers at once", force)
        .takes("aor contact registrar");
    m.command("uac_registrant:upsert reg_upsert", "adds or changes a registration in memory", upsert).takes("aor contact registrar [proxy] [third_party_registrant] [username] [password] [binding_params] [expiry] [forced_socket] [cluster_shtag] [state]");
    m.command("uac_registrant:delete reg_delete", "removes a registration from memory", delete)
        .takes("aor contact registrar");
}

/// A socket of this server by "udp:127.0.0.1:5060" or "127.0.0.1:5060".
pub fn socket_named(ctx: &Ctx, text: &str) -> Option<u16> {
    host::shared::socket_named(&ctx.core.shared.sockets, text)
}

const MISSING: &str = "No such registrant";

fn wanted(call: &mut Call<Registrant>, params: &MiParams) -> Result<u64, MiError> {
    let aor = params.need("aor", 0)?;
    let contact = params.need("contact", 1)?;
    let registrar = params.need("registrar", 2)?;
    let found = call.ctx.local::<Records>().find(aor.as_bytes(), contact.as_bytes(), registrar.as_bytes());
    found.ok_or_else(|| MiError::new(404, MISSING))
}

fn list(call: &mut Call<Registrant>, params: &MiParams) -> MiResult {
    if params.find("aor", 0).is_some() {
        let id = wanted(call, params)?;
        let record = call.ctx.local::<Records>().by_id.get(&id).cloned();
        return Ok(json!({ "Registrant": record.map(|record| show(call.ctx, &record)) }));
    }
    let records: Vec<Record> = call.ctx.local::<Records>().by_id.values().cloned().collect();
    Ok(json!({ "Records": records.iter().map(|record| show(call.ctx, record)).collect::<Vec<_>>() }))
}

fn show(ctx: &Ctx, record: &Record) -> Json {
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let wish = &record.wish;
    let time = |seconds: u64| host::clock::ctime(seconds as i64).trim_end().to_string();
    let mut item = json!({
        "AOR": text(&wish.aor),
        "expires": record.expires,
        "state": record.state.names().0,
        "enabled": if wish.enabled { "yes" } else { "no" },
        "last_register_sent": time(record.last_sent),
        "registration_t_out": time(record.due),
        "registrar": text(&wish.registrar),
        "binding": text(&wish.contact),
    });
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            item[name] = json!(value);
        }
    };
    add("binding_params", Some(text(&wish.params)));
    add("third_party_registrant", wish.third_party.as_ref().map(text));
    let used = record
        .path
        .and_then(|path| ctx.shared().sockets.get(usize::from(path.socket)))
        .map(|s| s.text.clone());
    add("socket", wish.socket.as_ref().map(|(_, text)| text.clone()).or(used));
    add("proxy", wish.proxy.as_ref().map(text));
    let address = record.path.map(|path| path.remote.ip());
    add("dst_IP", address.map(|a| if a.is_ipv4() { "IPv4" } else { "IPv6" }.to_string()));
    add("ip", address.map(|a| a.to_string()));
    add("shtag", wish.sharing_tag.clone());
    item
}

/// Reads all again, or one.
fn reload(call: &mut Call<Registrant>, params: &MiParams, answer: MiAnswer) {
    if params.find("aor", 0).is_some()
        && let Err(error) = wanted(call, params)
    {
        return answer.give(Err(error));
    }
    // Records that are there keep their state, so reading one more than asked for does no harm.
    load(call, move |_, result| {
        answer.give(result.map(|()| json!("OK")).map_err(|e| MiError::new(500, e.to_string())));
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    On,
    Off,
}

fn enable(call: &mut Call<Registrant>, params: &MiParams, how: Wanted) -> MiResult {
    let module = call.module.clone();
    let id = wanted(call, params)?;
    let Some(record) = call.ctx.local::<Records>().by_id.get_mut(&id) else {
        return Err(MiError::new(404, MISSING));
    };
    if record.wish.enabled == (how == Wanted::On) {
        return Ok(json!("OK"));
    }
    record.wish.enabled = how == Wanted::On;
    let (state, wish) = (record.state, record.wish.clone());
    match how {
        // What waits for an answer acts on it when it comes.
        _ if state.is_open() => {}
        Wanted::On => send(call.ctx, &module, id, What::Register, None),
        Wanted::Off if state == RegistrationState::Registered => {
            send(call.ctx, &module, id, What::Unregister, None)
        }
        Wanted::Off => {}
    }
    if let Some(db) = &module.db {
        let c = &module.columns;
        let query = Query::update(&module.table)
            .set(&c[11], i64::from(how == Wanted::Off))
            .eq(&c[2], wish.aor)
            .eq(&c[6], wish.contact)
            .eq(&c[0], wish.registrar);
        db.spawn(call.ctx, "uac_registrant", query, |_, result| {
            if let Err(error) = result {
                host::error!("uac_registrant", "the state of a registration was not written: {error}");
            }
        });
    }
    Ok(json!("OK"))
}

fn force(call: &mut Call<Registrant>, params: &MiParams) -> MiResult {
    let module = call.module.clone();
    let id = wanted(call, params)?;
    let record = call.ctx.local::<Records>().by_id.get(&id);
    let Some(record) = record else { return Err(MiError::new(404, MISSING)) };
    if !record.wish.enabled {
        return Err(MiError::new(400, "The registrant is disabled"));
    }
    if !record.state.is_open() {
        send(call.ctx, &module, id, What::Register, None);
    }
    Ok(json!("OK"))
}

fn upsert(call: &mut Call<Registrant>, params: &MiParams) -> MiResult {
    let uri = |name: &str, at: usize| -> Result<Bytes, MiError> {
        let text = Bytes::from(params.need(name, at)?);
        Uri::parse(&text).map_err(|e| MiError::params(format!("{name}: {e}")))?;
        Ok(text)
    };
    let optional = |name: &str, at: usize| params.text(name, at).filter(|t| !t.is_empty());
    let (aor, contact, registrar) = (uri("aor", 0)?, uri("contact", 1)?, uri("registrar", 2)?);
    let optional_uri = |name: &str, at: usize| optional(name, at).map(|_| uri(name, at)).transpose();
    let socket = match optional("forced_socket", 9) {
        Some(text) => {
            let index = socket_named(call.ctx, &text);
            Some((
                index.ok_or_else(|| MiError::params(format!("{text} is not a socket of this server")))?,
                text,
            ))
        }
        None => None,
    };
    let wish = Wish {
        registrar,
        proxy: optional_uri("proxy", 3)?,
        aor,
        third_party: optional_uri("third_party_registrant", 4)?,
        user: optional("username", 5).unwrap_or_default().into(),
        password: optional("password", 6).unwrap_or_default().into(),
        contact,
        params: optional("binding_params", 7).unwrap_or_default().into(),
        expires: params
            .int("expiry", 8)?
            .and_then(|e| u32::try_from(e).ok())
            .filter(|e| *e > 0)
            .unwrap_or(DEFAULT_EXPIRES),
        socket,
        sharing_tag: optional("cluster_shtag", 10),
        enabled: params.int("state", 11)?.unwrap_or(0) == 0,
    };
    let records = call.ctx.local::<Records>();
    match records.find(&wish.aor, &wish.contact, &wish.registrar).and_then(|id| records.by_id.get_mut(&id)) {
        Some(record) => {
            record.asked = wish.expires;
            record.wish = wish;
        }
        None => {
            records.add(Record::new(wish));
        }
    }
    Ok(json!("OK"))
}

fn delete(call: &mut Call<Registrant>, params: &MiParams) -> MiResult {
    let id = wanted(call, params)?;
    if let Some(record) = call.ctx.local::<Records>().by_id.remove(&id) {
        call.shared().status.forget(GROUP, &record.identifier());
    }
    Ok(json!("OK"))
}
