//! `save()`: what a REGISTER does to the location table.

use super::answer::{self, Problem};
use super::aor::{self, AorError};
use super::flags::{Path, SaveFlags};
use super::Registration;
use crate::usrloc::contact::{Binding, Contact};
use crate::usrloc::now_s;
use crate::usrloc::table::{Change, Matching, Order, Record, Table};
use bytes::Bytes;
use host::{Call, Ctx, Text, Value};
use sip::{HeaderName, Message, Method, NameAddr};
use std::sync::Arc;

/// save(domain, [flags], [aor], [ownership_tag])
pub fn save(call: &mut Call<Registration>, table: Text, flags: Option<Text>, aor: Option<Text>, _tag: Option<Text>) -> i32 {
    let flags = match flags.map_or_else(|| Ok(SaveFlags::default()), |f| SaveFlags::parse(&f.str())) {
        Ok(flags) => flags,
        Err(error) => {
            host::error!("registrar", "save: {error}");
            return -1;
        }
    };
    let module = call.module.clone();
    let usrloc = module.usrloc();
    let table = usrloc.table(&table.str());
    let result = run(call.ctx, &module, &table, &flags, aor.map(|a| a.0));
    let (code, ok) = match result {
        Ok(()) => {
            module.counters.accepted.up();
            (if flags.no_reply { 1 } else { answer::accept(call.ctx) }, true)
        }
        Err(problem) => {
            module.counters.rejected.up();
            (if flags.no_reply { 1 } else { answer::refuse(call.ctx, problem, module.retry_after) }, false)
        }
    };
    if ok && code > 0 { 1 } else { -1 }
}

/// Contacts of a request as they will be stored, checked.
struct Wanted {
    binding: Binding,
    /// Seconds; 0 removes.
    expires: u32,
}

fn run(ctx: &mut Ctx, module: &Arc<Registration>, table: &Table, flags: &SaveFlags, aor: Option<Bytes>) -> Result<(), Problem> {
    let usrloc = module.usrloc();
    let now = now_s(ctx);
    let msg = ctx.state.msg.clone();
    let contacts = contacts_of(&msg)?;
    let address = match aor {
        Some(aor) => aor,
        None => msg.to().ok_or(Problem::AorParse)?.uri,
    };
    let key = aor::aor(&address, usrloc.use_domain, module).map_err(|e| match e {
        AorError::Parse => Problem::AorParse,
        AorError::TooLong => Problem::AorTooLong,
    })?;
    let matching = flags.matching.clone().unwrap_or_else(|| usrloc.matching.clone());
    let (result, changes) = if contacts.iter().any(|c| &c.uri[..] == b"*") {
        if contacts.len() > 1 {
            return Err(Problem::Contacts);
        }
        if msg.expires() != Some(0) {
            return Err(Problem::StarExpires);
        }
        table.with(&key, |record, changes| {
            changes.extend(record.contacts.drain(..).map(Change::Deleted));
            (Ok(()), None)
        })
    } else {
        let wanted = wanted_of(ctx, &msg, &contacts, module, flags, now)?;
        let rules = Rules {
            matching,
            order: usrloc.order,
            max: flags.max_contacts.unwrap_or(module.max_contacts),
            force: flags.force,
            dup_cseq: module.allow_dup_cseq,
            only_request: flags.only_request_contacts,
            now,
        };
        table.with(&key, |record, changes| {
            let result = apply(record, changes, &wanted, &rules, table);
            let shown: Vec<Contact>;
            let list = if rules.only_request {
                shown = only(record, &wanted, &rules);
                &shown
            } else {
                &record.contacts
            };
            (result, answer::contact_header(list, now, module))
        })
    };
    usrloc.changed(ctx, table, &key, &changes);
    let (outcome, header) = result;
    if !flags.no_reply {
        ctx.state.reply_headers.extend(header);
        if outcome.is_ok() {
            ctx.state.reply_headers.extend(path_header(&msg, flags));
        }
    }
    outcome
}

fn contacts_of(msg: &Message) -> Result<Vec<NameAddr>, Problem> {
    let contacts = msg.addresses(HeaderName::Contact).map_err(|_| Problem::Contacts)?;
    if contacts.len() > 1 && contacts.iter().any(|c| &c.uri[..] == b"*") {
        return Err(Problem::Contacts);
    }
    Ok(contacts)
}

struct Rules {
    matching: Matching,
    order: Order,
    /// 0: no limit
    max: usize,
    force: bool,
    dup_cseq: bool,
    only_request: bool,
    now: u32,
}

fn wanted_of(ctx: &mut Ctx, msg: &Message, contacts: &[NameAddr], module: &Arc<Registration>, flags: &SaveFlags, now: u32) -> Result<Vec<Wanted>, Problem> {
    let path = path_of(msg, flags)?;
    let received = match &module.received_avp.var {
        Some(var) => var.get(ctx).text().unwrap_or_default(),
        None => Bytes::new(),
    };
    let attr = match &module.attr_avp.var {
        Some(var) => var.get(ctx).text().unwrap_or_default(),
        None => Bytes::new(),
    };
    let mut base = Binding {
        call_id: msg.call_id().unwrap_or_default(),
        cseq: msg.cseq().map_or(0, |c| c.number),
        user_agent: msg.value(HeaderName::UserAgent).unwrap_or_default(),
        received,
        attr,
        flags: ctx.state.branch_flags,
        socket: ctx.state.socket.unwrap_or(ctx.state.source.socket),
        path,
        ..Binding::default()
    };
    if flags.path_received
        && let Some(first) = NameAddr::parse_list(&base.path).and_then(|mut p| (!p.is_empty()).then(|| p.swap_remove(0)))
        && let Ok(uri) = sip::Uri::parse(&first.uri)
        && let Some(received) = uri.params.value(b"received")
    {
        base.received = received;
        base.flags |= module.usrloc().nat_flag;
    }
    let methods = allowed(msg);
    let mut wanted = Vec::with_capacity(contacts.len());
    for contact in contacts {
        if contact.uri.len() > module.max_contact_len.max(255) * 2 {
            return Err(Problem::Insert);
        }
        let q = match contact.params.value(b"q") {
            Some(text) => q_of(&text).ok_or(Problem::Q)?,
            None => module.default_q,
        };
        let expires = lifetime(ctx, msg, contact, module, flags);
        let methods = contact.params.value(b"methods").map_or(methods, |m| methods_in(&m));
        let instance = contact.params.value(b"+sip.instance").unwrap_or_default();
        let reg_id = contact.params.value(b"reg-id").and_then(|r| std::str::from_utf8(&r).ok()?.parse().ok()).unwrap_or(0);
        let binding = Binding {
            uri: contact.uri.clone(),
            q,
            expires: now.saturating_add(expires),
            methods,
            instance,
            reg_id,
            ..base.clone()
        };
        wanted.push(Wanted { binding, expires });
    }
    Ok(wanted)
}

/// Seconds that a contact asks for, brought within the limits; 0 removes it.
fn lifetime(ctx: &mut Ctx, msg: &Message, contact: &NameAddr, module: &Registration, flags: &SaveFlags) -> u32 {
    let asked = match contact.params.value(b"expires") {
        Some(text) => seconds(&text),
        None => msg.value(HeaderName::Expires).and_then(|v| seconds(v.trim_ascii())),
    };
    let min = flags.min_expires.unwrap_or(module.min_expires);
    let max = flags.max_expires.unwrap_or(module.max_expires);
    let mut expires = match asked {
        Some(0) => return 0,
        // Beyond 32 bits: the shortest.
        Some(n) => u32::try_from(n).ok().filter(|n| *n < u32::MAX / 2).unwrap_or(min.max(1)),
        None => module.default_expires,
    };
    if module.deviation > 0 {
        let spread = ctx.core.rng.below(u64::from(module.deviation) * 2 + 1) as i64 - i64::from(module.deviation);
        expires = (i64::from(expires) + spread).max(1) as u32;
    }
    if max > 0 {
        expires = expires.min(max);
    }
    expires.max(min)
}

/// Digits only; `None` for anything else.
fn seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

/// 0.123 → 123; `None` when it is no q value of 0 to 1.
fn q_of(text: &[u8]) -> Option<i16> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}")[..3].parse::<i16>().ok()?;
    match whole.trim_start_matches('0') {
        "" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Methods of the Allow headers; all when there is none.
fn allowed(msg: &Message) -> u32 {
    let mut methods = 0;
    let mut any = false;
    for header in msg.headers_of(HeaderName::Allow) {
        any = true;
        methods |= methods_in(msg.bytes(header.value));
    }
    if any { methods } else { u32::MAX }
}

fn methods_in(list: &[u8]) -> u32 {
    list.split(|b| *b == b',').map(|m| Method::parse(m.trim_ascii()).bit()).fold(0, |all, bit| all | bit)
}

/// Path values to store (RFC 3327).
fn path_of(msg: &Message, flags: &SaveFlags) -> Result<Bytes, Problem> {
    if flags.path == Path::None {
        return Ok(Bytes::new());
    }
    let path = path_text(msg);
    if flags.path == Path::Strict && !path.is_empty() && !supports_path(msg) {
        return Err(Problem::NoPathSupport);
    }
    Ok(path)
}

fn path_text(msg: &Message) -> Bytes {
    let values: Vec<&[u8]> = msg.headers_of(HeaderName::Path).map(|h| msg.bytes(h.value)).collect();
    values.join(&b","[..]).into()
}

fn supports_path(msg: &Message) -> bool {
    msg.headers_of(HeaderName::Supported)
        .any(|h| msg.bytes(h.value).split(|b| *b == b',').any(|o| o.trim_ascii().eq_ignore_ascii_case(b"path")))
}

fn path_header(msg: &Message, flags: &SaveFlags) -> Option<Bytes> {
    let shown = matches!(flags.path, Path::Lazy | Path::Strict) && supports_path(msg);
    let path = path_text(msg);
    if !shown || path.is_empty() {
        return None;
    }
    Some([b"Path: ", &path[..], b"\r\n"].concat().into())
}

/// Checks everything first, then changes the record: a refused REGISTER changes nothing.
fn apply(record: &mut Record, changes: &mut Vec<Change>, wanted: &[Wanted], rules: &Rules, table: &Table) -> Result<(), Problem> {
    let now = rules.now;
    drop_expired(record, changes, now);
    let find = |record: &Record, w: &Wanted| record.find(&w.binding.uri, &w.binding.call_id, &rules.matching, now);
    let mut new = 0;
    let mut gone = 0;
    for w in wanted {
        match find(record, w) {
            Some(at) => {
                let stored = &record.contacts[at];
                let same_call = stored.text(crate::usrloc::contact::Field::CallId) == &w.binding.call_id[..];
                if same_call && w.binding.cseq < stored.cseq {
                    return Err(Problem::CSeq);
                }
                gone += usize::from(w.expires == 0);
            }
            None if w.expires > 0 => {
                sip::Uri::parse(&w.binding.uri).map_err(|_| Problem::Insert)?;
                new += 1;
            }
            None => {}
        }
    }
    let after = record.contacts.len() + new - gone;
    let excess = if rules.max > 0 { after.saturating_sub(rules.max) } else { 0 };
    if excess > 0 && new > 0 {
        if !rules.force || new > rules.max {
            return Err(Problem::TooMany);
        }
        make_room(record, changes, wanted, excess, rules);
    }
    for w in wanted {
        match find(record, w) {
            Some(at) if w.expires == 0 => changes.push(Change::Deleted(record.contacts.remove(at))),
            Some(at) => {
                let stored = &record.contacts[at];
                let same_call = stored.text(crate::usrloc::contact::Field::CallId) == &w.binding.call_id[..];
                if same_call && w.binding.cseq == stored.cseq && !rules.dup_cseq {
                    continue;
                }
                changes.push(Change::Updated(record.update(at, &w.binding, now, rules.order)));
            }
            None if w.expires > 0 => {
                let contact = Contact::new(table.next_id(), &w.binding, now);
                changes.push(Change::Inserted(contact.clone()));
                record.insert(contact, rules.order);
            }
            None => {}
        }
    }
    Ok(())
}

fn drop_expired(record: &mut Record, changes: &mut Vec<Change>, now: u32) {
    if record.contacts.iter().any(|c| c.expired(now)) {
        let (expired, live): (Vec<_>, Vec<_>) = std::mem::take(&mut record.contacts).into_iter().partition(|c| c.expired(now));
        record.contacts = live;
        changes.extend(expired.into_iter().map(Change::Deleted));
    }
}

/// Removes the contacts that registered longest ago and are not in this request.
fn make_room(record: &mut Record, changes: &mut Vec<Change>, wanted: &[Wanted], excess: usize, rules: &Rules) {
    let kept: Vec<u64> = wanted
        .iter()
        .filter_map(|w| record.find(&w.binding.uri, &w.binding.call_id, &rules.matching, rules.now))
        .map(|at| record.contacts[at].id)
        .collect();
    for _ in 0..excess {
        let candidates = record.contacts.iter().enumerate().filter(|(_, c)| !kept.contains(&c.id));
        let Some((at, _)) = candidates.min_by_key(|(_, c)| (c.modified, c.id)) else { return };
        changes.push(Change::Deleted(record.contacts.remove(at)));
    }
}

/// The stored contacts that this request named.
fn only(record: &Record, wanted: &[Wanted], rules: &Rules) -> Vec<Contact> {
    let found = wanted.iter().filter_map(|w| record.find(&w.binding.uri, &w.binding.call_id, &rules.matching, rules.now));
    found.map(|at| record.contacts[at].clone()).collect()
}

/// add_sock_hdr(name): adds a header with the socket the request came in by.
pub fn add_sock_hdr(call: &mut Call<Registration>, name: Text) -> i32 {
    let ctx = &mut *call.ctx;
    let socket = ctx.state.source.socket;
    let Some(listen) = ctx.core.shared.sockets.get(usize::from(socket)) else { return -1 };
    let line = format!("{}: {}:{}\r\n", name.str(), listen.transport.as_str(), listen.addr);
    ctx.state.edits.insert(sip::Anchor::End, line);
    let _ = Value::Null;
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_values() {
        for (text, q) in [("1", Some(1000)), ("1.0", Some(1000)), ("0.123", Some(123)), ("0", Some(0)), ("0.5", Some(500)),
            (".5", Some(500)), ("2", None), ("1.5", None), ("x", None), ("", None), ("-1", None)] {
            assert_eq!(q_of(text.as_bytes()), q, "{text}");
        }
    }

    #[test]
    fn lifetimes_are_digits() {
        for (text, n) in [("60", Some(60)), ("abc", None), ("-5", None), ("", None), ("99999999999", Some(99_999_999_999)),
            ("999999999999999999999999", Some(u64::MAX))] {
            assert_eq!(seconds(text.as_bytes()), n, "{text}");
        }
    }
}
