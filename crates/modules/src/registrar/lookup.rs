//! `lookup()`: from an address to the contacts it is reached at.

use super::aor;
use super::flags::LookupFlags;
use super::Registration;
use crate::usrloc::contact::{Contact, Field};
use crate::usrloc::now_s;
use crate::usrloc::table::Table;
use bytes::Bytes;
use host::{Branch, Call, Ctx, Text};
use sip::NameAddr;

/// lookup(domain, [flags], [aor]): 1 found, -1 nobody, -2 nobody for this method, -3 error.
pub fn lookup(call: &mut Call<Registration>, table: Text, flags: Option<Text>, address: Option<Text>) -> i32 {
    let flags = match flags.map_or_else(|| Ok(LookupFlags::default()), |f| LookupFlags::parse(&f.str())) {
        Ok(flags) => flags,
        Err(error) => {
            host::error!("registrar", "lookup: {error}");
            return -3;
        }
    };
    let module = call.module.clone();
    let usrloc = module.usrloc();
    let Some(table) = usrloc.find_table(&table.str()) else { return -1 };
    let uri = address.map_or_else(|| call.ctx.state.current_uri(), |a| a.0);
    let Ok(key) = aor::aor(&uri, usrloc.use_domain, &module) else { return -3 };
    let mut addresses = vec![key];
    if flags.expand_branches {
        for branch in std::mem::take(&mut call.ctx.state.branches) {
            addresses.extend(aor::aor(&branch.uri, usrloc.use_domain, &module));
        }
    }
    let mut found = Vec::new();
    let mut wrong_method = false;
    for key in &addresses {
        wrong_method |= collect(call.ctx, &table, key, &flags, &mut found);
    }
    if flags.sort_by_latency {
        found.sort_by_key(|c| if c.latency_us == 0 { u32::MAX } else { c.latency_us });
    }
    if found.is_empty() {
        return if wrong_method { -2 } else { -1 };
    }
    spread(call, found, &flags);
    1
}

/// Adds the contacts that pass the flags; true when only the method kept one out.
fn collect(ctx: &Ctx, table: &Table, key: &[u8], flags: &LookupFlags, found: &mut Vec<Contact>) -> bool {
    let now = now_s(ctx);
    let method = ctx.state.msg.method().bit();
    let filter = flags.ua_filter.as_ref().and_then(|p| {
        regex::bytes::RegexBuilder::new(p).case_insensitive(flags.case_insensitive).size_limit(1 << 20).build().ok()
    });
    let mut wrong_method = false;
    table.read(key, |contacts| {
        for contact in contacts.iter().filter(|c| !c.expired(now)) {
            if flags.method_filtering && contact.methods & method == 0 {
                wrong_method = true;
                continue;
            }
            if flags.ua_filter.is_some() && !filter.as_ref().is_some_and(|f| f.is_match(contact.text(Field::UserAgent))) {
                continue;
            }
            if flags.max_ping_latency_us.is_some_and(|max| contact.latency_us > max) {
                continue;
            }
            found.push(contact.clone());
        }
    });
    wrong_method
}

/// The first contact becomes the R-URI, the others branches.
fn spread(call: &mut Call<Registration>, found: Vec<Contact>, flags: &LookupFlags) {
    let mut found = found.into_iter();
    if !flags.to_branches_only
        && let Some(first) = found.next()
    {
        let branch = branch_of(&first);
        if let (Some(var), Some(attr)) = (&call.module.attr_avp.var, &branch.attrs) {
            var.set(call.ctx, script::ast::AssignOp::Set, attr.clone().into());
        }
        let state = &mut call.ctx.state;
        state.ruri = Some(branch.uri);
        state.ruri_q = branch.q;
        state.dst_uri = branch.dst_uri;
        state.path = branch.path;
        state.branch_flags = branch.flags;
        state.socket = branch.socket;
    }
    if !flags.no_branches {
        call.ctx.state.branches.extend(found.map(|c| branch_of(&c)));
    }
}

fn branch_of(contact: &Contact) -> Branch {
    let copy = |field| Bytes::copy_from_slice(contact.text(field));
    let path = Some(copy(Field::Path)).filter(|p| !p.is_empty());
    let received = Some(copy(Field::Received)).filter(|r| !r.is_empty());
    let first_hop = path.as_ref().and_then(|p| NameAddr::parse_list(p)?.into_iter().next()).map(|hop| hop.uri);
    Branch {
        uri: copy(Field::Uri),
        dst_uri: first_hop.or(received),
        path,
        q: i32::from(contact.q),
        flags: contact.flags,
        socket: Some(contact.socket),
        attrs: Some(copy(Field::Attr)).filter(|a| !a.is_empty()),
        values: Vec::new(),
    }
}
