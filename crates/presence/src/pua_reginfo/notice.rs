//! NOTIFYs of other registrars: what they say is registered here.

use super::{Foreign, PuaReginfo};
use crate::xml::{self, Element};
use bytes::Bytes;
use host::{Call, Ctx, Outcome};
use modules::usrloc::contact::{ALL_METHODS, Binding, NO_SOCKET};
use modules::usrloc::now_s;
use modules::usrloc::table::{Change, Matching, Record, Wanted};
use modules::usrloc::{HasTables, TableArg};
use sip::Uri;
use std::sync::Arc;

/// Registrations that one NOTIFY may change.
const MAX_REGISTRATIONS: usize = 64;

/// What a document says of one address.
#[derive(Debug, PartialEq)]
struct Said {
    user: Bytes,
    host: Bytes,
    /// Without contacts: all of them go.
    active: bool,
    contacts: Vec<Here>,
}

/// One contact. Seconds that are 0: it goes.
#[derive(Clone, Debug, PartialEq)]
struct Here {
    uri: Bytes,
    call_id: Bytes,
    cseq: u32,
    seconds: u32,
    received: Bytes,
    path: Bytes,
}

fn of(element: &Element, name: &str) -> Bytes {
    element.get(name).map(|text| Bytes::copy_from_slice(text.as_bytes())).unwrap_or_default()
}

/// `None`: it says nothing that could be used.
fn contacts_of(element: &Element) -> Option<Vec<Here>> {
    let goes = match element.get("event")? {
        "registered" | "created" | "refreshed" => false,
        "unregistered" | "expired" | "terminated" | "deactivated" | "probation" | "rejected" => true,
        _ => return None,
    };
    let seconds = if goes { 0 } else { element.get("expires")?.trim().parse().ok()? };
    let call_id = if element.get("callid").is_some() { of(element, "callid") } else { of(element, "id") };
    let mut params = String::new();
    for param in element.elements().filter(|e| e.is("unknown-param")) {
        params += &format!(";{}", param.get("name")?);
        let value = param.content();
        if !value.is_empty() {
            params += &format!("={value}");
        }
    }
    let here = |uri: &Element| Here {
        uri: format!("{}{params}", uri.content().trim()).into(),
        call_id: call_id.clone(),
        cseq: element.get("cseq").and_then(|n| n.trim().parse().ok()).unwrap_or(0),
        seconds,
        received: of(element, "received"),
        path: of(element, "path"),
    };
    let all: Vec<Here> = element.elements().filter(|e| e.is("uri")).map(here).collect();
    let whole = all.iter().all(|c| c.uri.len() <= 4096 && Uri::parse(&c.uri).is_ok());
    whole.then_some(all)
}

fn read(body: &[u8]) -> Result<Vec<Said>, String> {
    let root = xml::parse(body).map_err(|error| error.to_string())?;
    let root = root.find("reginfo").ok_or("there is no reginfo in it")?;
    let mut all = Vec::new();
    for registration in root.elements().filter(|e| e.is("registration")).take(MAX_REGISTRATIONS) {
        let active = match registration.get("state") {
            Some("active") => true,
            Some("terminated") => false,
            _ => continue,
        };
        let Ok(uri) = Uri::parse(&of(registration, "aor")) else { continue };
        let contacts = registration.elements().filter(|e| e.is("contact")).filter_map(contacts_of);
        all.push(Said {
            user: uri.user.unwrap_or_default(),
            host: uri.host,
            active,
            contacts: contacts.flatten().collect(),
        });
    }
    Ok(all)
}

/// Does with the contacts of an address what was said.
fn apply(record: &mut Record, said: &Said, now: u32, next: &dyn Fn() -> u64, changes: &mut Vec<Change>) {
    if !said.active {
        return record.remove(|_| true, changes);
    }
    for here in &said.contacts {
        let wanted = Wanted { uri: &here.uri, call_id: &here.call_id, flow: None };
        let found = record.find(wanted, &Matching::Uri, now);
        if here.seconds == 0 {
            if let Some(at) = found {
                let id = record.contacts[at].id;
                record.remove(|c| c.id == id, changes);
            }
            continue;
        }
        let binding = Binding {
            uri: here.uri.clone(),
            call_id: here.call_id.clone(),
            user_agent: Bytes::from_static(b"n/a"),
            received: here.received.clone(),
            path: here.path.clone(),
            expires: now.saturating_add(here.seconds),
            q: -1,
            cseq: here.cseq,
            methods: ALL_METHODS,
            socket: NO_SOCKET,
            ..Binding::default()
        };
        let order = modules::usrloc::table::Order::Q;
        match found {
            Some(at) => record.update(at, &binding, now, order, changes),
            None => record.add(next(), &binding, now, order, changes),
        }
    }
}

/// reginfo_handle_notify(domain): 1 somebody is registered (or the NOTIFY is empty), 2 nobody, -1 it cannot be read.
pub fn reginfo_handle_notify(call: &mut Call<PuaReginfo>, table: TableArg) -> Outcome {
    let msg = call.state.msg.clone();
    let body = msg.text(msg.body());
    if body.is_empty() {
        return Outcome::Done(1);
    }
    let all = match read(&body) {
        Ok(all) => all,
        Err(why) => {
            host::error!("pua_reginfo", "a NOTIFY cannot be read: {why}");
            return Outcome::Done(-1);
        }
    };
    let usrloc = call.module.usrloc();
    let with_domain = usrloc.use_domain;
    let aor_of = |said: &Said| match with_domain {
        true => Bytes::from([&said.user[..], b"@", &said.host].concat()),
        false => said.user.clone(),
    };
    let aors: Vec<Bytes> = all.iter().map(aor_of).collect();
    if aors.is_empty() {
        return Outcome::Done(-1);
    }
    call.state.ext.set(Foreign(true));
    let (now, table) = (now_s(call.ctx), table.0);
    let (own, of) = (table.clone(), aors.clone());
    // Each address is changed in the order of the list.
    let at = std::cell::Cell::new(0);
    let active = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = active.clone();
    let work = move |record: &mut Record, changes: &mut Vec<Change>| {
        let n = at.replace(at.get() + 1);
        let Some(said) = all.get(n) else { return };
        apply(record, said, now, &|| own.next_id(), changes);
        if record.contacts.iter().any(|c| !c.expired(now)) {
            seen.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    usrloc.change_each(call.ctx, "reginfo_handle_notify", &table, of, work, move |ctx: &mut Ctx, done| {
        ctx.state.ext.set(Foreign(false));
        match done {
            Ok(()) if active.load(std::sync::atomic::Ordering::Relaxed) => 1,
            Ok(()) => 2,
            Err(error) => {
                host::error!("pua_reginfo", "what a NOTIFY said was not registered: {error}");
                -1
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "<reginfo xmlns='urn:ietf:params:xml:ns:reginfo' version='0' state='full'>\
        <registration aor='sip:a@x' id='1' state='active'>\
        <contact id='7' state='active' event='registered' expires='60' callid='k' cseq='4'>\
        <uri>sip:a@192.0.2.1</uri><unknown-param name='audio'/><unknown-param name='l'>de</unknown-param></contact>\
        <contact id='8' state='terminated' event='expired' expires='0'><uri>sip:b@192.0.2.1</uri></contact>\
        <contact id='9' event='odd' expires='0'><uri>sip:c@192.0.2.1</uri></contact></registration>\
        <registration aor='sip:b@x' id='2' state='terminated'/>\
        <registration aor='sip:c@x' id='3'/></reginfo>";

    #[test]
    fn a_document_is_read() {
        let all = read(BODY.as_bytes()).unwrap();
        let short: Vec<_> = all.iter().map(|s| (s.user.clone(), s.active, s.contacts.len())).collect();
        assert_eq!(short, [("a".into(), true, 2), ("b".into(), false, 0)]);
        assert_eq!(all[0].contacts[0].uri, "sip:a@192.0.2.1;audio;l=de");
        assert_eq!((all[0].contacts[0].seconds, all[0].contacts[0].cseq), (60, 4));
        assert_eq!((all[0].contacts[1].call_id.clone(), all[0].contacts[1].seconds), ("8".into(), 0));
        assert!(read(b"<x/>").is_err() && read(b"no").is_err());
    }

    #[test]
    fn contacts_come_and_go() {
        let all = read(BODY.as_bytes()).unwrap();
        let (mut record, mut changes) = (Record::default(), Vec::new());
        apply(&mut record, &all[0], 100, &|| 5, &mut changes);
        assert_eq!(record.contacts.iter().map(|c| c.expires).collect::<Vec<_>>(), [160]);
        apply(&mut record, &all[0], 110, &|| 6, &mut changes);
        assert_eq!(record.contacts.iter().map(|c| (c.id, c.expires)).collect::<Vec<_>>(), [(5, 170)]);
        apply(&mut record, &all[1], 110, &|| 7, &mut changes);
        assert!(record.contacts.is_empty() && matches!(changes[..], [_, _, Change::Deleted(_)]));
    }
}
