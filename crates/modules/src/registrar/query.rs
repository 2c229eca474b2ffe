//! Questions about registrations, and removing them.

use super::{Registration, aor};
use crate::usrloc::contact::{Contact, Field};
use crate::usrloc::table::{Change, Record, Table};
use crate::usrloc::{TableArg, now_s};
use bytes::Bytes;
use host::arg::{AnyVar, Arg};
use host::load::Loader;
use host::var::VarKind;
use host::{Call, Ctx, Int, Outcome, Text, Value, Word};
use script::ast::Dialect;
use script::{Diagnostic, Loc, ast};
use sip::{HeaderName, Method, NameAddr, Uri};
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

/// The address a question is about: given, else To of a REGISTER, else From.
fn key_of(call: &Call<'_, Registration>, address: Option<Text>) -> Option<Bytes> {
    let msg = &call.ctx.state.msg;
    let uri = match address {
        Some(address) => address.0,
        None if !msg.is_request() => return None,
        None if msg.method() == Method::Register => msg.to()?.uri,
        None => msg.from()?.uri,
    };
    key(call, &uri)
}

fn key(call: &Call<'_, Registration>, uri: &Bytes) -> Option<Bytes> {
    aor::aor(uri, call.module.usrloc().use_domain, call.module).ok()
}

fn truth(found: bool) -> i32 {
    if found { 1 } else { -1 }
}

/// 1 when a live contact of the address passes, and what it was registered with.
fn any_contact(
    call: &mut Call<'_, Registration>,
    what: &'static str,
    table: &Arc<Table>,
    key: Bytes,
    passes: impl Fn(&Contact) -> bool + 'static,
) -> Outcome {
    let (now, module) = (now_s(call.ctx), call.module.clone());
    // From 3.x on the others only say whether there is one.
    let tells = what == "is_registered" || call.shared().dialect == Dialect::V21;
    let pick = move |found: &mut Option<Bytes>, _: &Bytes, contacts: &[Contact]| {
        let first = contacts.iter().find(|c| !c.expired(now) && passes(c));
        *found = first.map(|c| Bytes::copy_from_slice(c.text(Field::Attr)));
    };
    module.usrloc().clone().read(call.ctx, what, table, vec![key], pick, move |ctx, found| match found {
        Ok(Some(attr)) => {
            if let Some(name) = module.attr_avp.avp.filter(|_| tells) {
                ctx.state.avps.borrow_mut().add_last(name, Value::from(attr));
            }
            1
        }
        Ok(None) => -1,
        Err(error) => {
            super::complain(what, &error);
            -1
        }
    })
}

/// is_registered(domain, [aor])
pub fn is_registered(call: &mut Call<Registration>, table: TableArg, address: Option<Text>) -> Outcome {
    let Some(key) = key_of(call, address) else { return Outcome::Done(-1) };
    any_contact(call, "is_registered", &table.0, key, |_| true)
}

/// registered(domain, [aor], [callid]) of 2.1: the R-URI is the default.
pub fn registered(
    call: &mut Call<Registration>,
    table: TableArg,
    address: Option<Text>,
    call_id: Option<Text>,
) -> Outcome {
    let uri = match address {
        Some(address) => address.0,
        None if !call.ctx.state.msg.is_request() => return Outcome::Done(-1),
        None => call.ctx.state.current_uri(),
    };
    let Some(key) = key(call, &uri) else { return Outcome::Done(-1) };
    any_contact(call, "registered", &table.0, key, move |c| {
        call_id.as_ref().is_none_or(|id| id.is_empty() || c.text(Field::CallId) == &id[..])
    })
}

/// is_contact_registered(domain, [aor], [contact], [callid])
pub fn is_contact_registered(
    call: &mut Call<Registration>,
    table: TableArg,
    address: Option<Text>,
    contact: Option<Text>,
    call_id: Option<Text>,
) -> Outcome {
    let Some(key) = key_of(call, address) else { return Outcome::Done(-1) };
    let contact = contact.map(|c| c.0).or_else(|| {
        let msg = &call.ctx.state.msg;
        let first = || msg.addresses(HeaderName::Contact).ok()?.into_iter().next().map(|c| c.uri);
        if call_id.is_none() { first() } else { None }
    });
    if contact.is_none() && call_id.is_none() {
        return Outcome::Done(-1);
    }
    any_contact(call, "is_contact_registered", &table.0, key, move |c| {
        contact.as_ref().is_none_or(|wanted| same_uri(c.uri(), wanted))
            && call_id.as_ref().is_none_or(|id| c.text(Field::CallId) == &id[..])
    })
}

fn same_uri(stored: &[u8], wanted: &Bytes) -> bool {
    stored == &wanted[..]
        || match (Uri::parse(&Bytes::copy_from_slice(stored)), Uri::parse(wanted)) {
            (Ok(a), Ok(b)) => a.equals(&b),
            _ => false,
        }
}

/// Host and port a contact is reached at: received, else its URI.
fn reached_at(contact: &Contact) -> Option<Uri> {
    let received = contact.text(Field::Received);
    let text = if received.is_empty() { contact.uri() } else { received };
    Uri::parse(&Bytes::copy_from_slice(text)).ok()
}

/// The next hop towards a contact: its Path, else where it is reached.
fn next_hop(contact: &Contact) -> Option<Uri> {
    let path = Bytes::copy_from_slice(contact.text(Field::Path));
    let first = NameAddr::parse_list(&path).and_then(|p| p.into_iter().next());
    first.and_then(|hop| Uri::parse(&hop.uri).ok()).or_else(|| reached_at(contact))
}

/// All values of an AVP, or the one value of another variable.
fn values_of(ctx: &mut Ctx, var: &AnyVar) -> Vec<Value> {
    match var.0.kind {
        VarKind::Avp(name) => ctx.state.avps.borrow().values(name).cloned().collect(),
        _ => vec![var.0.get(ctx)],
    }
}

/// is_ip_registered(domain, [aor], ip, [port]): any of the values of the variables.
pub fn is_ip_registered(
    call: &mut Call<Registration>,
    table: TableArg,
    address: Option<Text>,
    ip: AnyVar,
    port: Option<AnyVar>,
) -> Outcome {
    let Some(key) = key_of(call, address) else { return Outcome::Done(-1) };
    let ips = values_of(call.ctx, &ip);
    let ports = port.map(|p| values_of(call.ctx, &p)).unwrap_or_default();
    let number = |v: &Value| v.int().or_else(|| host::arg::parse_int(&v.text()?));
    let wanted: Vec<(Bytes, Option<i64>)> = ips
        .iter()
        .enumerate()
        .filter_map(|(i, ip)| Some((ip.text()?, ports.get(i).and_then(number))))
        .collect();
    any_contact(call, "is_ip_registered", &table.0, key, move |c| {
        reached_at(c).is_some_and(|uri| {
            let port_of = || i64::from(uri.port_or_default());
            wanted
                .iter()
                .any(|(host, port)| same_host(&uri.host, host) && port.is_none_or(|p| p == port_of()))
        })
    })
}

/// is_other_contact(domain, IPs) of 2.1: somebody registered from an address that is not in the AVP.
pub fn is_other_contact(call: &mut Call<Registration>, table: TableArg, ips: AnyVar) -> Outcome {
    let msg = call.ctx.state.msg.clone();
    let Some(to) = msg.to() else { return Outcome::Done(-2) };
    let contacts = msg.addresses(HeaderName::Contact).unwrap_or_default();
    let flags = super::flags::SaveFlags::default();
    let module = call.module.clone();
    let mut lasting = contacts.iter();
    if !lasting.any(|c| super::request::lifetime(call.ctx, &msg, c, &module, &flags) > 0) {
        return Outcome::Done(-1);
    }
    let Some(key) = key(call, &to.uri) else { return Outcome::Done(-2) };
    let known: Vec<Bytes> = values_of(call.ctx, &ips).iter().filter_map(Value::text).collect();
    any_contact(call, "is_other_contact", &table.0, key, move |c| {
        let received = Uri::parse(&Bytes::copy_from_slice(c.text(Field::Received)));
        received.is_ok_and(|uri| !known.iter().any(|ip| same_host(&uri.host, ip)))
    })
}

/// The same name, or the same address (brackets do not count).
fn same_host(a: &[u8], b: &[u8]) -> bool {
    let ip = |h: &[u8]| std::str::from_utf8(h).ok()?.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    a.eq_ignore_ascii_case(b) || ip(a).is_some_and(|x| ip(b) == Some(x))
}

/// The name of a branch flag, known when the script is loaded.
pub struct BranchFlag(u32);

impl<M: Send + Sync + 'static> Arg<M> for BranchFlag {
    type Prepared = u32;
    const WHAT: &'static str = "the name of a branch flag";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<u32, Diagnostic> {
        let name = <Word as Arg<M>>::prepare(arg, site, loader, module)?;
        loader.branch_flag(&name, site)
    }

    fn eval(bit: &u32, _: &mut Call<'_, M>) -> Result<BranchFlag, i32> {
        Ok(BranchFlag(*bit))
    }
}

/// remove(domain, aor, [contact], [next_hop], [sip_instance], [bflag])
pub fn remove(
    call: &mut Call<Registration>,
    table: TableArg,
    address: Text,
    contact: Option<Text>,
    hop: Option<Text>,
    instance: Option<Text>,
    flag: Option<BranchFlag>,
) -> Outcome {
    let Some(key) = key(call, &address.0) else { return Outcome::Done(-1) };
    let meant = move |c: &Contact, hops: &[Bytes]| {
        contact.as_ref().is_none_or(|wanted| c.uri() == &wanted[..])
            && (hops.is_empty() || next_hop(c).is_some_and(|u| hops.iter().any(|h| same_host(&u.host, h))))
            && instance.as_ref().is_none_or(|i| c.text(Field::Instance) == &i[..])
            && flag.as_ref().is_none_or(|f| c.flags & (1 << f.0) != 0)
    };
    with_addresses(call, hop.map(|h| h.0), move |call, hops| {
        drop_contacts(call, &table.0, key, move |c| meant(c, &hops))
    })
}

/// remove(domain, aor, [target]) of 2.1: the target is a contact, or a host that contacts are behind.
pub fn remove_v21(
    call: &mut Call<Registration>,
    table: TableArg,
    address: Text,
    target: Option<Text>,
) -> Outcome {
    let Some(key) = key(call, &address.0) else { return Outcome::Done(-1) };
    let Some(target) = target else { return drop_contacts(call, &table.0, key, |_| true) };
    if !target.starts_with(b"sip:") && !target.starts_with(b"sips:") {
        return with_addresses(call, Some(target.0), move |call, hops| {
            drop_contacts(call, &table.0, key, move |c| {
                next_hop(c).is_some_and(|u| hops.iter().any(|h| same_host(&u.host, h)))
            })
        });
    }
    let Ok(wanted) = Uri::parse(&target.0) else { return Outcome::Done(-1) };
    drop_contacts(call, &table.0, key, move |c| {
        let Ok(uri) = Uri::parse(&Bytes::copy_from_slice(c.uri())) else { return false };
        let hop = next_hop(c);
        uri.user == wanted.user
            && uri.port_or_default() == wanted.port_or_default()
            && hop.is_some_and(|h| same_host(&h.host, &wanted.host))
    })
}

/// Goes on with a host and its addresses: a name that is none of a contact's is looked up, for which
/// the script may wait.
fn with_addresses(
    call: &mut Call<'_, Registration>,
    host: Option<Bytes>,
    go_on: impl FnOnce(&mut Call<'_, Registration>, Vec<Bytes>) -> Outcome + 'static,
) -> Outcome {
    let Some(name) = host else { return go_on(call, Vec::new()) };
    let text = String::from_utf8_lossy(&name).into_owned();
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return go_on(call, vec![name]);
    }
    let query =
        sip::names::Query { host: text, port: 0, transport: None, security: sip::names::Security::Sip };
    let hosts = move |found: Result<Vec<sip::names::Hop>, sip::names::ResolveError>| {
        let addresses =
            found.unwrap_or_default().into_iter().map(|hop| Bytes::from(hop.addr.ip().to_string()));
        std::iter::once(name.clone()).chain(addresses).collect::<Vec<_>>()
    };
    match call.ctx.core.spawner.resolve(query) {
        host::ctx::Resolved::Now(found) => go_on(call, hosts(found)),
        host::ctx::Resolved::Later(future) => {
            let module = call.module.clone();
            host::Suspension::future("remove", async move {
                let found = hosts(future.await);
                Box::new(move |ctx: &mut Ctx| match go_on(&mut Call { ctx, module: &module }, found) {
                    Outcome::Done(rc) => rc,
                    // Where contacts are only in a database the removal goes on beside the script.
                    Outcome::Suspend(operation) => {
                        if let host::Wait::Future(future) = operation.wait {
                            ctx.spawn(operation.what, operation.limit_ms, future);
                        }
                        1
                    }
                }) as host::Finish
            })
            .limit(10_000, -1)
        }
    }
}

/// remove_ip_port(ip, port, domain, [aor])
pub fn remove_ip_port(
    call: &mut Call<Registration>,
    ip: Text,
    port: Int,
    table: TableArg,
    address: Option<Text>,
) -> Outcome {
    let meant = move |c: &Contact| {
        next_hop(c).is_some_and(|uri| same_host(&uri.host, &ip) && i64::from(uri.port_or_default()) == port.0)
    };
    if let Some(address) = address {
        let Some(key) = key(call, &address.0) else { return Outcome::Done(-1) };
        return drop_contacts(call, &table.0, key, meant);
    }
    let keys = RefCell::new(Vec::new());
    table.0.each(|aor, record| {
        if record.contacts.iter().any(&meant) {
            keys.borrow_mut().push(Bytes::copy_from_slice(aor));
        }
    });
    let work = move |record: &mut Record, changes: &mut Vec<Change>| record.remove(|c| meant(c), changes);
    let usrloc = call.module.usrloc();
    usrloc.change_each(call.ctx, "remove_ip_port", &table.0, keys.into_inner(), work, |_, done| {
        truth(done.is_ok())
    })
}

fn drop_contacts(
    call: &mut Call<'_, Registration>,
    table: &Arc<Table>,
    key: Bytes,
    meant: impl Fn(&Contact) -> bool + 'static,
) -> Outcome {
    let usrloc = call.module.usrloc();
    let work = move |record: &mut Record, changes: &mut Vec<Change>| record.remove(meant, changes);
    usrloc.change(call.ctx, "remove", table, key, work, |_, done| truth(done.is_ok()))
}
