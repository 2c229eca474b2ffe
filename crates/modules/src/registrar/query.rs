//! Questions about registrations, and removing them.

use super::aor;
use super::Registration;
use crate::usrloc::contact::{Contact, Field};
use crate::usrloc::now_s;
use crate::usrloc::table::Change;
use bytes::Bytes;
use host::arg::AnyVar;
use host::{Call, Text};
use sip::{HeaderName, Method, Uri};

/// The address a question is about: given, else To of a REGISTER, else From.
fn key_of(call: &Call<'_, Registration>, address: Option<Text>) -> Option<Bytes> {
    let msg = &call.ctx.state.msg;
    let uri = match address {
        Some(address) => address.0,
        None if !msg.is_request() => return None,
        None if msg.method() == Method::Register => msg.to()?.uri,
        None => msg.from()?.uri,
    };
    aor::aor(&uri, call.module.usrloc().use_domain, call.module).ok()
}

/// True when a live contact of the address passes.
fn any_contact(call: &Call<'_, Registration>, table: &Text, key: &[u8], passes: impl Fn(&Contact) -> bool) -> bool {
    let now = now_s(call.ctx);
    let Some(table) = call.module.usrloc().find_table(&table.str()) else { return false };
    table.read(key, |contacts| contacts.iter().any(|c| !c.expired(now) && passes(c))).unwrap_or(false)
}

/// is_registered(domain, [aor])
pub fn is_registered(call: &mut Call<Registration>, table: Text, address: Option<Text>) -> i32 {
    let Some(key) = key_of(call, address) else { return -1 };
    if any_contact(call, &table, &key, |_| true) { 1 } else { -1 }
}

/// is_contact_registered(domain, [aor], [contact], [callid])
pub fn is_contact_registered(call: &mut Call<Registration>, table: Text, address: Option<Text>, contact: Option<Text>, call_id: Option<Text>) -> i32 {
    let Some(key) = key_of(call, address) else { return -1 };
    let contact = contact.map(|c| c.0).or_else(|| {
        let msg = &call.ctx.state.msg;
        call_id.is_none().then(|| msg.addresses(HeaderName::Contact).ok()?.into_iter().next().map(|c| c.uri)).flatten()
    });
    let parsed = contact.as_ref().and_then(|c| Uri::parse(c).ok());
    let found = any_contact(call, &table, &key, |c| {
        let uri = match (&contact, &parsed) {
            (None, _) => true,
            (Some(text), _) if c.uri() == &text[..] => true,
            (Some(_), Some(uri)) => Uri::parse(&Bytes::copy_from_slice(c.uri())).is_ok_and(|u| u.equals(uri)),
            (Some(_), None) => false,
        };
        uri && call_id.as_ref().is_none_or(|id| c.text(Field::CallId) == &id[..])
    });
    if found { 1 } else { -1 }
}

/// Host and port a contact is reached at: received, else its URI.
fn reached_at(contact: &Contact) -> Option<Uri> {
    let received = contact.text(Field::Received);
    let text = if received.is_empty() { contact.uri() } else { received };
    Uri::parse(&Bytes::copy_from_slice(text)).ok()
}

/// is_ip_registered(domain, [aor], ip, [port]): any of the values of the variables.
pub fn is_ip_registered(call: &mut Call<Registration>, table: Text, address: Option<Text>, ip: AnyVar, port: Option<AnyVar>) -> i32 {
    let Some(key) = key_of(call, address) else { return -1 };
    let mut wanted = Vec::new();
    for i in 0.. {
        let Some(host) = ip.0.get_at(call.ctx, i).text() else { break };
        let port = port.as_ref().and_then(|p| {
            let value = p.0.get_at(call.ctx, i);
            value.int().or_else(|| host::arg::parse_int(&value.text()?))
        });
        wanted.push((host, port));
        if i >= 1000 || wanted.len() > 1 && wanted[0] == wanted[1] {
            break;
        }
    }
    let found = any_contact(call, &table, &key, |c| {
        reached_at(c).is_some_and(|uri| {
            wanted.iter().any(|(host, port)| *host == uri.host && port.is_none_or(|p| p == i64::from(uri.port_or_default())))
        })
    });
    if found { 1 } else { -1 }
}

/// remove(domain, aor, [contact], [next_hop], [sip_instance], [bflag])
pub fn remove(
    call: &mut Call<Registration>,
    table: Text,
    address: Text,
    contact: Option<Text>,
    next_hop: Option<Text>,
    instance: Option<Text>,
    _flag: Option<Text>,
) -> i32 {
    let Some(key) = key_of(call, Some(address)) else { return -1 };
    let parsed = contact.as_ref().and_then(|c| Uri::parse(&c.0).ok());
    let meant = |c: &Contact| {
        let uri = || Uri::parse(&Bytes::copy_from_slice(c.uri())).ok();
        let same_contact = match (&contact, &parsed) {
            (None, _) => true,
            (Some(text), _) if c.uri() == &text[..] => true,
            (Some(_), Some(wanted)) => uri().is_some_and(|u| u.equals(wanted)),
            (Some(_), None) => false,
        };
        let hop = || {
            let path = Bytes::copy_from_slice(c.text(Field::Path));
            let first = sip::NameAddr::parse_list(&path).and_then(|p| p.into_iter().next());
            first.and_then(|hop| Uri::parse(&hop.uri).ok()).or_else(|| reached_at(c))
        };
        same_contact
            && next_hop.as_ref().is_none_or(|n| hop().is_some_and(|u| u.host.eq_ignore_ascii_case(n)))
            && instance.as_ref().is_none_or(|i| c.text(Field::Instance) == &i[..])
    };
    drop_contacts(call, &table, &key, meant);
    1
}

/// remove_ip_port(ip, port, domain, [aor])
pub fn remove_ip_port(call: &mut Call<Registration>, ip: Text, port: host::Int, table: Text, address: Option<Text>) -> i32 {
    let meant = |c: &Contact| {
        reached_at(c).is_some_and(|uri| uri.host == ip.0 && i64::from(uri.port_or_default()) == port.0)
    };
    let keys = match address {
        Some(address) => key_of(call, Some(address)).into_iter().collect(),
        None => {
            let mut keys = Vec::new();
            if let Some(table) = call.module.usrloc().find_table(&table.str()) {
                table.each(|aor, record| {
                    if record.contacts.iter().any(meant) {
                        keys.push(Bytes::copy_from_slice(aor));
                    }
                });
            }
            keys
        }
    };
    for key in keys {
        drop_contacts(call, &table, &key, meant);
    }
    1
}

fn drop_contacts(call: &mut Call<Registration>, table: &Text, key: &[u8], meant: impl Fn(&Contact) -> bool) {
    let usrloc = call.module.usrloc();
    let Some(table) = usrloc.find_table(&table.str()) else { return };
    let ((), changes) = table.with(key, |record, changes| {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut record.contacts).into_iter().partition(&meant);
        record.contacts = kept;
        changes.extend(gone.into_iter().map(Change::Deleted));
    });
    usrloc.changed(call.ctx, &table, key, &changes);
}
