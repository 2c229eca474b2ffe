//! pua_reginfo: registrations are told (RFC 3680) to watchers of this server and, by PUBLISH, to another one; what another
//! server tells is registered here.

mod document;
mod notice;

use crate::presence::Presence;
use crate::presence::own::{self, Own};
use crate::presence_reginfo::EVENT;
use crate::pua::record::{Publication, Source, event_named};
use crate::pua::{Pua, Refused, Wish, publish, subscribe};
use bytes::Bytes;
use document::Told;
use host::load::Loader;
use host::{Call, Ctx, Head, Int, Outcome, Registrar, Routes, Text};
use modules::usrloc::HasTables;
use modules::usrloc::contact::Contact;
use modules::usrloc::table::{Change, Record, Table};
use modules::usrloc::{Usrloc, now_s};
use sip::Uri;
use std::sync::Arc;

/// Seconds that a state is kept.
const EXPIRES_S: u32 = 3600;

#[derive(Default)]
pub struct PuaReginfo {
    domain: Option<String>,
    proxy: Option<Bytes>,
    server: Option<Bytes>,
    table: Option<String>,
    identities: Option<Bytes>,
    publishes: bool,
    usrloc: Option<Arc<Usrloc>>,
    pua: Option<Arc<Pua>>,
    presence: Option<Arc<Presence>>,
}

impl HasTables for PuaReginfo {
    fn usrloc(&self) -> Arc<Usrloc> {
        self.usrloc.clone().unwrap_or_default()
    }
}

/// What changes while this message is handled came from another server: it is not told further.
#[derive(Clone, Copy, Default)]
struct Foreign(bool);

pub fn register(m: &mut Registrar<PuaReginfo>) {
    m.param_text("default_domain", |s, v| Ok(s.domain = Some(v.into())));
    m.param_text("outbound_proxy", |s, v| Ok(s.proxy = Some(v.to_string().into())));
    m.param_text("server_address", |s, v| Ok(s.server = Some(v.to_string().into())));
    m.param_text("ul_domain", |s, v| Ok(s.table = Some(v.into())));
    m.param_text("ul_identities_key", |s, v| Ok(s.identities = Some(v.to_string().into())));
    m.param_int("publish_reginfo", |s, v| Ok(s.publishes = v == 1));
    m.function("reginfo_handle_notify", Routes::REQUEST, notice::reginfo_handle_notify);
    m.function("reginfo_subscribe", Routes::REQUEST.and(Routes::ON_REPLY), reginfo_subscribe);
    m.function("reginfo_update", Routes::REQUEST.and(Routes::ON_REPLY), reginfo_update);
    m.needs(&["presence", "pua", "usrloc"]);
    m.init(init);
    m.start(|call| {
        if call.core.worker > 0 {
            return;
        }
        let module = call.module.clone();
        let Some(usrloc) = module.usrloc.clone() else { return };
        usrloc.watch(Arc::new(move |ctx, table, aor, changes| {
            let is_foreign = ctx.state.ext.find::<Foreign>().is_some_and(|foreign| foreign.0);
            if is_foreign || Some(table.name.as_str()) != module.table.as_deref() {
                return;
            }
            changes.iter().for_each(|change| changed(ctx, &module, aor, change));
        }));
    });
}

fn init(s: &mut PuaReginfo, loader: &mut Loader) -> Result<(), String> {
    if s.publishes && s.domain.is_none() {
        return Err("default_domain is not set".into());
    }
    if s.server.is_none() {
        return Err("server_address is not set".into());
    }
    let Some(table) = &s.table else { return Err("ul_domain is not set".into()) };
    s.usrloc = loader.module::<Usrloc>();
    if let Some(usrloc) = &s.usrloc {
        usrloc.table(table);
    }
    (s.pua, s.presence) = (loader.module::<Pua>(), loader.module::<Presence>());
    Ok(())
}

/// A contact came, was refreshed or is gone.
fn changed(ctx: &mut Ctx, module: &Arc<PuaReginfo>, aor: &Bytes, change: &Change) {
    let now = now_s(ctx);
    let told = match change {
        Change::Inserted(contact) => Told::Registered(contact.id),
        Change::Updated(contact) => Told::Refreshed(contact.id),
        Change::Deleted(contact) if contact.expired(now) => Told::Expired(Box::new(contact.clone())),
        Change::Deleted(contact) => Told::Unregistered(Box::new(contact.clone())),
        _ => return,
    };
    tell(ctx, module, aor.clone(), told);
}

/// Reads the registrations of an address and tells of them.
fn tell(ctx: &mut Ctx, module: &Arc<PuaReginfo>, aor: Bytes, told: Told) {
    let Some(usrloc) = module.usrloc.clone() else { return };
    let table = usrloc.table(module.table.as_deref().unwrap_or_default());
    let (own, address) = (module.clone(), aor.clone());
    let pick = |record: &Record| (record.contacts.clone(), record.keys.clone().map(|keys| *keys));
    usrloc.read_beside(ctx, "reginfo", &table, aor, pick, move |ctx, found| match found {
        Ok((contacts, keys)) => spread(ctx, &own, &address, &contacts, &keys.unwrap_or_default(), &told),
        Err(error) => {
            let aor = String::from_utf8_lossy(&address);
            host::error!("pua_reginfo", "registrations of {aor} were not read: {error}");
        }
    });
}

/// "sip:user@domain" of an address.
fn uri_of(module: &PuaReginfo, aor: &Bytes) -> String {
    let aor = String::from_utf8_lossy(aor);
    let domain = module.domain.as_deref().unwrap_or_default();
    match (aor.contains('@'), aor.is_empty()) {
        (true, _) => format!("sip:{aor}"),
        (false, false) => format!("sip:{aor}@{domain}"),
        (false, true) => format!("sip:{domain}"),
    }
}

fn spread(
    ctx: &mut Ctx,
    module: &Arc<PuaReginfo>,
    aor: &Bytes,
    contacts: &[Contact],
    keys: &[(Bytes, Bytes)],
    told: &Told,
) {
    let uri = uri_of(module, aor);
    let names = match &module.identities {
        None => vec![uri.clone()],
        Some(wanted) => match keys.iter().find(|(key, _)| key == wanted) {
            Some((_, value)) => document::identities(value),
            // They are not known yet: `reginfo_update` follows.
            None => return,
        },
    };
    let Ok(parsed) = Uri::parse(&Bytes::from(uri.clone())) else {
        host::error!("pua_reginfo", "{uri} is no URI: set default_domain");
        return;
    };
    let body = document::write(&names, aor, contacts, told, now_s(ctx));
    if let Some(presence) = &module.presence {
        let state = Own {
            user: parsed.user.unwrap_or_default(),
            domain: parsed.host,
            event: EVENT,
            body: Some(body.clone()),
            headers: None,
            expires: EXPIRES_S,
        };
        own::publish(ctx, presence, state);
    }
    if module.publishes {
        send(ctx, module, &uri, aor, body);
    }
}

/// Sends a PUBLISH.
fn send(ctx: &mut Ctx, module: &Arc<PuaReginfo>, uri: &str, aor: &Bytes, body: Bytes) {
    let (Some(pua), Some(event)) = (&module.pua, event_named(EVENT)) else { return };
    let table = module.table.as_deref().unwrap_or_default();
    let id = [b"REGINFO_PUBLISH.", &aor[..], b"@", table.as_bytes()].concat();
    let publication = Publication {
        uri: uri.to_string().into(),
        id: id.into(),
        event,
        source: Source::Registrations,
        expires: EXPIRES_S.into(),
        body: Some(body),
        content_type: Bytes::new(),
        etag: None,
        headers: Bytes::new(),
        proxy: module.proxy.clone(),
        is_new: false,
        done: None,
    };
    if let Err(why) = publish(ctx, pua, publication)
        && why != Refused::NoRecord
    {
        host::error!("pua_reginfo", "registrations of {uri} were not published: {why:?}");
    }
}

/// reginfo_subscribe(uri, [expires])
fn reginfo_subscribe(call: &mut Call<PuaReginfo>, uri: Head, expires: Option<Int>) -> i32 {
    let module = call.module.clone();
    let (Some(pua), Some(event)) = (&module.pua, event_named(EVENT)) else { return -1 };
    let own = module.server.clone().unwrap_or_default();
    let wish = Wish {
        uri: uri.0,
        watcher: own.clone(),
        contact: own,
        event,
        source: Source::OtherRegistrar,
        expires: expires.map_or(i64::from(EXPIRES_S), |n| n.0),
        id: Bytes::new(),
        proxy: module.proxy.clone(),
        headers: Bytes::new(),
    };
    if !subscribe(call.ctx, pua, wish) {
        host::error!("pua_reginfo", "reginfo_subscribe: the SUBSCRIBE cannot be sent");
    }
    1
}

/// reginfo_update(aor): -1 when it is not registered.
fn reginfo_update(call: &mut Call<PuaReginfo>, aor: Text) -> Outcome {
    let module = call.module.clone();
    let Some(usrloc) = module.usrloc.clone() else { return Outcome::Done(-1) };
    let table: Arc<Table> = usrloc.table(module.table.as_deref().unwrap_or_default());
    let address = aor.0.clone();
    let pick = |record: &Record| record.contacts.iter().map(|c| c.id).collect::<Vec<_>>();
    usrloc.read_record(call.ctx, "reginfo_update", &table, aor.0, pick, move |ctx, found| {
        let told = match found.unwrap_or_default()[..] {
            [] => return -1,
            [one] => Told::Registered(one),
            [first, ..] => Told::Refreshed(first),
        };
        tell(ctx, &module, address, told);
        1
    })
}
