//! `lookup()`: from an address to the contacts it is reached at.

use super::aor::{self, Target};
use super::flags::{Flags, LookupFlags};
use super::{Registration, gruu, wake};
use crate::usrloc::TableArg;
use crate::usrloc::contact::{Contact, Field, method_bit};
use crate::usrloc::federation::Remote;
use crate::usrloc::now_s;
use crate::usrloc::table::Table;
use bytes::Bytes;
use host::cachedb::CacheError;
use host::{Branch, Call, Ctx, Outcome, Text, Value};
use script::ast::Dialect;
use sip::NameAddr;
use std::sync::Arc;

/// lookup(domain, [flags], [aor]): 1 found, 2 only phones that are being woken, -1 nobody, -2 nobody for
/// this method, -3 error.
pub fn lookup(
    call: &mut Call<Registration>,
    table: TableArg,
    flags: Option<Flags<LookupFlags>>,
    address: Option<Text>,
) -> Outcome {
    let module = call.module.clone();
    let uri = address.map_or_else(|| call.ctx.state.current_uri(), |a| a.0);
    let Ok(target) = aor::target(&uri, module.usrloc().use_domain, &module) else { return Outcome::Done(-3) };
    find(call.ctx, &module, &table.0, flags.unwrap_or_default().0, target)
}

/// Contacts that passed, while several addresses are looked at.
#[derive(Default)]
struct Found {
    contacts: Vec<(Bytes, Contact)>,
    /// The method kept somebody out.
    wrong_method: bool,
    right_method: bool,
}

/// Finds the contacts of a target and spreads them over R-URI and branches.
pub fn find(
    ctx: &mut Ctx,
    module: &Arc<Registration>,
    table: &Arc<Table>,
    flags: Arc<LookupFlags>,
    target: Target,
) -> Outcome {
    let usrloc = module.usrloc();
    let mut addresses = vec![target.key.clone()];
    if flags.expand_branches {
        for branch in std::mem::take(&mut ctx.state.branches) {
            addresses.extend(aor::aor(&branch.uri, usrloc.use_domain, module));
        }
    }
    // Another server must know which device is meant.
    let device = target.instance.is_some().then(|| ctx.state.current_uri());
    let wanted =
        Wanted { now: now_s(ctx), method: method_bit(ctx.state.msg.method()), flags: flags.clone(), target };
    let pick =
        move |found: &mut Found, aor: &Bytes, contacts: &[Contact]| wanted.collect(found, aor, contacts);
    let (module, shown) = (module.clone(), table.clone());
    if flags.global && usrloc.federation.is_some() {
        return usrloc.read_everywhere(ctx, "lookup", table, addresses, pick, move |ctx, found, remotes| {
            let remotes = remotes.map(|list| list.iter().map(|r| branch_to(&module, r, &device)).collect());
            everywhere(ctx, &module, &shown, &flags, found, remotes)
        });
    }
    usrloc.read(ctx, "lookup", table, addresses, pick, move |ctx, found| match found {
        Ok(found) => local(ctx, &module, &shown, &flags, found),
        Err(error) => {
            super::complain("lookup", &error);
            -3
        }
    })
}

fn local(
    ctx: &mut Ctx,
    module: &Arc<Registration>,
    table: &Arc<Table>,
    flags: &LookupFlags,
    found: Found,
) -> i32 {
    match found.contacts.is_empty() {
        false => spread(ctx, module, table, found.contacts, flags),
        true if found.wrong_method && !found.right_method => -2,
        true => -1,
    }
}

/// Contacts of this server, and behind them a branch for each other server of the federation that has some.
fn everywhere(
    ctx: &mut Ctx,
    module: &Arc<Registration>,
    table: &Arc<Table>,
    flags: &LookupFlags,
    found: Found,
    remotes: Result<Vec<Branch>, CacheError>,
) -> i32 {
    let mut rc = local(ctx, module, table, flags, found);
    let remotes = match remotes {
        Ok(remotes) => remotes,
        Err(error) => {
            // The engine logs an outage once; each look-up that it fails is counted there.
            host::debug!("registrar", "lookup: other servers are not known: {error}");
            return if rc == -1 { -3 } else { rc };
        }
    };
    for branch in remotes {
        if rc < 0 && !flags.to_branches_only {
            host::branches::set_request_branch(&mut ctx.state, branch);
        } else if flags.no_branches {
            break;
        } else {
            host::branches::append_branch(&mut ctx.state, branch);
        }
        rc = 1;
    }
    rc
}

fn branch_to(module: &Registration, remote: &Remote, device: &Option<Bytes>) -> Branch {
    let (uri, hop) = remote.uris(&module.usrloc());
    Branch { uri: device.clone().unwrap_or(uri), dst_uri: Some(hop), q: -1, ..Branch::default() }
}

/// What a contact must be like.
struct Wanted {
    now: u32,
    method: u32,
    flags: Arc<LookupFlags>,
    target: Target,
}

impl Wanted {
    fn collect(&self, found: &mut Found, aor: &Bytes, contacts: &[Contact]) {
        let flags = &self.flags;
        for contact in contacts.iter().filter(|c| !c.expired(self.now)) {
            if flags.method_filtering && contact.methods & self.method == 0 {
                found.wrong_method = true;
                continue;
            }
            found.right_method = true;
            let agent = contact.text(Field::UserAgent);
            if flags.agents.as_ref().is_some_and(|filter| !filter.is_match(agent)) {
                continue;
            }
            if flags.max_ping_latency_us.is_some_and(|max| contact.latency_us > max) {
                continue;
            }
            match &self.target.instance {
                None => found.contacts.push((aor.clone(), contact.clone())),
                Some(instance) if self.is_device(instance, contact, contacts) => {
                    found.contacts.push((aor.clone(), contact.clone()));
                    return;
                }
                Some(_) => {}
            }
        }
    }

    /// The device of a GRUU; a temporary one ends when the device registers with another Call-ID.
    fn is_device(&self, instance: &[u8], contact: &Contact, all: &[Contact]) -> bool {
        let same = |c: &Contact| gruu::is_instance(c.text(Field::Instance), instance);
        let newer = |c: &Contact| {
            same(c) && !c.expired(self.now) && (c.modified, c.id) > (contact.modified, contact.id)
        };
        match &self.target.call_id {
            _ if !same(contact) => false,
            None => true,
            Some(id) => contact.text(Field::CallId) == &id[..] && !all.iter().any(newer),
        }
    }
}

/// The first contact becomes the R-URI, the others branches; those that must be woken join later.
pub fn spread(
    ctx: &mut Ctx,
    module: &Arc<Registration>,
    table: &Arc<Table>,
    mut found: Vec<(Bytes, Contact)>,
    flags: &LookupFlags,
) -> i32 {
    if flags.sort_by_latency {
        found.sort_by_key(|(_, c)| if c.latency_us == 0 { u32::MAX } else { c.latency_us });
    }
    let now = now_s(ctx);
    let (asleep, mut ready): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(_, c)| module.push.must_wake(c, now));
    let limit = if flags.no_branches { 1 } else { usize::MAX };
    ready.truncate(limit);
    let count = ready.len();
    let mut ready = ready.into_iter().map(|(_, c)| c);
    if !flags.to_branches_only
        && let Some(first) = ready.next()
    {
        let mut branch = branch_of(module, &first);
        attributes(ctx, module, &first, &mut branch);
        host::branches::set_request_branch(&mut ctx.state, branch);
    }
    for contact in ready {
        let mut branch = branch_of(module, &contact);
        attributes(ctx, module, &contact, &mut branch);
        ctx.state.branches.push(branch);
    }
    if asleep.is_empty() || count >= limit {
        return 1;
    }
    let rc = wake::wake(ctx, module, table, asleep, limit, count);
    if rc == 2 && count > 0 { 1 } else { rc }
}

/// What was registered with the contact: the branch's attribute, in 2.1 a value of the AVP.
fn attributes(ctx: &mut Ctx, module: &Registration, contact: &Contact, branch: &mut Branch) {
    let Some(name) = module.attr_avp.avp else { return };
    let value = Value::from(Bytes::copy_from_slice(contact.text(Field::Attr)));
    match ctx.core.shared.dialect {
        Dialect::V21 => ctx.state.avps.borrow_mut().add_last(name, value),
        Dialect::V4 => branch.values.push((name.text(), value)),
    }
}

/// Where requests to a contact go.
pub fn branch_of(module: &Registration, contact: &Contact) -> Branch {
    let copy = |field| Bytes::copy_from_slice(contact.text(field));
    let some = |field| Some(copy(field)).filter(|t| !t.is_empty());
    let path = some(Field::Path);
    let first_hop =
        path.as_ref().and_then(|p| NameAddr::parse_list(p)?.into_iter().next()).map(|hop| hop.uri);
    let uri =
        if module.push.is_push(contact) { module.push.stripped(contact.uri()) } else { copy(Field::Uri) };
    Branch {
        uri,
        dst_uri: first_hop.or_else(|| some(Field::Received)),
        path,
        q: i32::from(contact.q),
        flags: contact.flags,
        socket: contact.socket(),
        attrs: some(Field::Attr),
        values: Vec::new(),
    }
}
