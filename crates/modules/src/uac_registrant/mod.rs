//! uac_registrant: registers this server at others (RFC 3261 §10.2), from a table.
//!
//! All records belong to worker 0: its timer sends, the replies come back to it.

mod manage;
mod record;

use crate::uac_auth;
use bytes::Bytes;
use host::Accepts;
use host::db::{Db, Name, Query, Rows};
use host::events::EventParams;
use host::load::Loader;
use host::tm::{Answer, NewRequest};
use host::{Call, Ctx, Registrar, Value};
use record::{Record, RegistrationState, Wish};
use sip::{HeaderName, Message, Uri};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Columns of the table, in the order of `Wish::read`.
const COLUMNS: [&str; 12] = [
    "registrar",
    "proxy",
    "aor",
    "third_party_registrant",
    "username",
    "password",
    "binding_URI",
    "binding_params",
    "expiry",
    "forced_socket",
    "cluster_shtag",
    "state",
];

pub struct Registrant {
    url: Option<String>,
    db: Option<Db>,
    table: Name,
    columns: [Name; 12],
    /// Seconds in which every record is looked at once.
    interval: u32,
    /// Power of two of the parts that records are spread over.
    hash_size: u32,
    /// Seconds after a failure; 0: as after a registration.
    retry: u32,
    percentage: u32,
    loaded: AtomicBool,
}

impl Default for Registrant {
    fn default() -> Registrant {
        Registrant {
            url: None,
            db: None,
            table: "registrant".into(),
            columns: COLUMNS.map(Into::into),
            interval: 100,
            hash_size: 1,
            retry: 0,
            percentage: 100,
            loaded: AtomicBool::new(false),
        }
    }
}

pub fn register(m: &mut Registrar<Registrant>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("table_name", |s, v| Ok(s.table = v.to_string().into()));
    m.param_text("registrar_column", |s, v| Ok(s.columns[0] = v.to_string().into()));
    m.param_text("proxy_column", |s, v| Ok(s.columns[1] = v.to_string().into()));
    m.param_text("aor_column", |s, v| Ok(s.columns[2] = v.to_string().into()));
    m.param_text("third_party_registrant_column", |s, v| Ok(s.columns[3] = v.to_string().into()));
    m.param_text("username_column", |s, v| Ok(s.columns[4] = v.to_string().into()));
    m.param_text("password_column", |s, v| Ok(s.columns[5] = v.to_string().into()));
    m.param_text("binding_URI_column", |s, v| Ok(s.columns[6] = v.to_string().into()));
    m.param_text("binding_params_column", |s, v| Ok(s.columns[7] = v.to_string().into()));
    m.param_text("expiry_column", |s, v| Ok(s.columns[8] = v.to_string().into()));
    m.param_text("forced_socket_column", |s, v| Ok(s.columns[9] = v.to_string().into()));
    m.param_text("cluster_shtag_column", |s, v| Ok(s.columns[10] = v.to_string().into()));
    m.param_text("state_column", |s, v| Ok(s.columns[11] = v.to_string().into()));
    m.param_int("timer_interval", |s, v| {
        s.interval = u32::try_from(v).ok().filter(|v| *v > 0).ok_or("timer_interval is at least 1 second")?;
        Ok(())
    });
    m.param_int("hash_size", |s, v| {
        s.hash_size =
            u32::try_from(v).ok().filter(|v| *v <= 16).ok_or("hash_size is a power of two, 0 to 16")?;
        Ok(())
    });
    m.param_int("failure_retry_interval", |s, v| Ok(s.retry = u32::try_from(v).unwrap_or(0)));
    m.accepts(Accepts::seconds(0), &["failure_retry_interval"]);
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.param_int("reregister_expiry_percentage", |s, v| {
        s.percentage =
            u32::try_from(v).ok().filter(|v| (1..=100).contains(v)).ok_or("a percentage is 1 to 100")?;
        Ok(())
    });
    m.param_int("enable_clustering", |_, v| match v {
        0 => Ok(()),
        _ => Err("registrations that nodes of a cluster share are not there: one node registers, or each has rows of its own".into()),
    });
    manage::register(m);
    m.needs(&["tm", "uac_auth"]);
    m.init(|s: &mut Registrant, loader: &mut Loader| {
        s.db = loader.db_or_default(s.url.as_deref())?;
        if s.db.is_none() {
            return Err("db_url is not set".into());
        }
        let parts = 1u32 << s.hash_size;
        if s.interval < parts {
            return Err(format!(
                "timer_interval {} is smaller than the {parts} parts of hash_size {}",
                s.interval, s.hash_size
            ));
        }
        Ok(())
    });
    m.ready(|_, hooks, _| hooks.raises(record::ALL.iter().filter_map(|s| s.names().1)));
    m.start(|call| {
        if call.core.worker == 0 {
            call.shared().status.group(GROUP);
            load(call, |_, _| ());
        }
    });
    m.timer(1000, tick);
}

/// The group of statuses that management shows.
const GROUP: &str = "uac_registrant";

/// The records of worker 0, by a number that answers carry.
#[derive(Default)]
struct Records {
    by_id: BTreeMap<u64, Record>,
    next: u64,
    /// Seconds since the start, and the part looked at last.
    seconds: u32,
    part: u32,
}

impl Records {
    fn add(&mut self, record: Record) -> u64 {
        self.next += 1;
        self.by_id.insert(self.next, record);
        self.next
    }

    fn find(&self, aor: &[u8], contact: &[u8], registrar: &[u8]) -> Option<u64> {
        self.by_id.iter().find(|(_, r)| r.wish.is(aor, contact, registrar)).map(|(id, _)| *id)
    }
}

fn now_s(ctx: &Ctx) -> u64 {
    ctx.core.wall_us / 1_000_000
}

impl Registrant {
    fn query(&self) -> Query {
        Query::select(&self.table).columns(self.columns.iter().cloned())
    }

    /// When a record is due that was given, or refused, `seconds`.
    fn due(&self, ctx: &Ctx, seconds: u32) -> u64 {
        let seconds = u64::from(seconds) * u64::from(self.percentage) / 100;
        (now_s(ctx) + seconds).saturating_sub(u64::from(self.interval))
    }

    fn retry_due(&self, ctx: &Ctx, record_expires: u32) -> u64 {
        if self.retry > 0 {
            return (now_s(ctx) + u64::from(self.retry)).saturating_sub(u64::from(self.interval));
        }
        self.due(ctx, record_expires)
    }
}

/// Reads the table; records that are there already keep their state.
fn load(call: &mut Call<Registrant>, done: impl FnOnce(&mut Ctx, Result<(), host::db::DbError>) + 'static) {
    let module = call.module.clone();
    let Some(db) = &module.db else { return };
    let kept = module.clone();
    db.spawn(call.ctx, "uac_registrant", module.query(), move |ctx, rows| {
        let result = rows.map(|rows| take(ctx, &kept, &rows));
        match &result {
            Ok(()) => kept.loaded.store(true, Ordering::Relaxed),
            Err(error) => host::error!("uac_registrant", "the registrations were not loaded: {error}"),
        }
        done(ctx, result);
    });
}

fn wishes(ctx: &Ctx, rows: &Rows) -> Vec<Wish> {
    let socket = |text: &str| manage::socket_named(ctx, text);
    let read = |row: host::db::Row<'_>| match Wish::read(&row, socket) {
        Ok(wish) => Some(wish),
        Err(why) => {
            host::error!("uac_registrant", "the registration of {} is left out: {why}", row.string(2));
            None
        }
    };
    rows.iter().filter_map(read).collect()
}

fn take(ctx: &mut Ctx, _: &Registrant, rows: &Rows) {
    let wishes = wishes(ctx, rows);
    let records = ctx.local::<Records>();
    let mut old = std::mem::take(&mut records.by_id);
    for wish in wishes {
        let same =
            old.iter().find(|(_, r)| r.wish.is(&wish.aor, &wish.contact, &wish.registrar)).map(|(id, _)| *id);
        match same.and_then(|id| Some((id, old.remove(&id)?))) {
            Some((id, mut record)) => {
                record.asked = wish.expires;
                record.wish = wish;
                records.by_id.insert(id, record);
            }
            None => {
                records.add(Record::new(wish));
            }
        }
    }
    let status = &ctx.shared().status;
    for record in old.values() {
        status.forget(GROUP, &record.identifier());
    }
}

/// Once a second: each part of the records has its turn once in `timer_interval`.
fn tick(call: &mut Call<Registrant>) {
    let module = call.module.clone();
    if !module.loaded.load(Ordering::Relaxed) {
        if call.ctx.local::<Records>().seconds % 5 == 4 {
            load(call, |_, _| ());
        }
        call.ctx.local::<Records>().seconds += 1;
        return;
    }
    let parts = 1u32 << module.hash_size;
    let records = call.ctx.local::<Records>();
    records.seconds += 1;
    if !records.seconds.is_multiple_of(module.interval / parts) {
        return;
    }
    let part = records.part % parts;
    records.part = part + 1;
    let ids: Vec<u64> =
        records.by_id.iter().filter(|(_, r)| part_of(r, parts) == part).map(|(id, _)| *id).collect();
    for id in ids {
        look_at(call.ctx, &module, id);
    }
}

fn part_of(record: &Record, parts: u32) -> u32 {
    let mut hasher = std::hash::DefaultHasher::new();
    record.wish.aor.hash(&mut hasher);
    (hasher.finish() % u64::from(parts)) as u32
}

/// Does what a record needs now.
fn look_at(ctx: &mut Ctx, module: &Arc<Registrant>, id: u64) {
    let now = now_s(ctx);
    let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) else { return };
    let enabled = record.wish.enabled;
    match record.state {
        state if state.is_open() => {}
        state if state.has_failed() && now < record.due => {}
        state if state.has_failed() => {
            // A failed registration begins anew.
            record.call_id = Bytes::new();
            send(ctx, module, id, if enabled { What::Register } else { What::Unregister }, None);
        }
        RegistrationState::Registered if now + u64::from(module.interval) < record.due => {}
        _ if enabled => send(ctx, module, id, What::Register, None),
        _ => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Register,
    Unregister,
    /// Every binding of the AOR.
    UnregisterAll,
}

/// Sends a REGISTER; `authorization` is a whole header line.
fn send(ctx: &mut Ctx, module: &Arc<Registrant>, id: u64, what: What, authorization: Option<Bytes>) {
    let now = now_s(ctx);
    let fresh_id = host::tm::own_call_id(ctx);
    let tag = format!("{:016x}", ctx.core.rng.next_u64());
    let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) else { return };
    if record.call_id.is_empty() {
        (record.call_id, record.from_tag, record.cseq) = (fresh_id, tag.into(), 0);
    }
    record.cseq += 1;
    let wish = &record.wish;
    let contact = match what {
        What::Register => {
            format!("Contact: <{}>{};expires={}\r\n", text(&wish.contact), text(&wish.params), record.asked)
        }
        What::Unregister => format!("Contact: <{}>{};expires=0\r\n", text(&wish.contact), text(&wish.params)),
        What::UnregisterAll => "Contact: *\r\nExpires: 0\r\n".to_string(),
    };
    let from = wish.third_party.as_ref().unwrap_or(&wish.aor);
    let from = format!("<{}>;tag={}", text(from), text(&record.from_tag));
    let to = format!("<{}>", text(&wish.aor));
    let mut request = NewRequest::new("REGISTER", wish.registrar.clone(), &from, &to);
    request.call_id = Some(record.call_id.clone());
    request.cseq = record.cseq;
    request.headers = [contact.as_bytes(), authorization.as_deref().unwrap_or_default()].concat().into();
    request.next_hop = wish.proxy.clone();
    request.socket = wish.socket.as_ref().map(|(index, _)| *index);
    let state = match (what, authorization.is_some()) {
        (What::Register, false) => RegistrationState::Registering,
        (What::Register, true) => RegistrationState::Authenticating,
        (_, false) => RegistrationState::Unregistering,
        (_, true) => RegistrationState::AuthenticatingUnregister,
    };
    if what == What::Register && authorization.is_none() {
        record.last_sent = now;
    }
    let cseq = record.cseq;
    change(ctx, id, state);
    let module = module.clone();
    host::tm::send_new(
        ctx,
        request,
        Some(Box::new(move |ctx, answer| answered(ctx, &module, id, cseq, what, answer))),
    );
}

fn text(bytes: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Notes a state and tells who wants to know.
fn change(ctx: &mut Ctx, id: u64, state: RegistrationState) {
    let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) else { return };
    record.state = state;
    let wish = &record.wish;
    let identifier = record.identifier();
    let params: EventParams = [
        ("aor", Value::Str(wish.aor.clone())),
        ("contact", Value::Str(wish.contact.clone())),
        ("registrar", Value::Str(wish.registrar.clone())),
    ]
    .into_iter()
    .collect();
    let (name, event) = state.names();
    let level = if state == RegistrationState::Registered { 1 } else { -1 };
    let now = now_s(ctx);
    ctx.shared().status.set(GROUP, &identifier, level, name);
    ctx.shared().status.report(GROUP, &identifier, now, format!("state changed to {name}"));
    if let Some(event) = event {
        host::events::raise(ctx, event, params);
    }
}

fn fail(ctx: &mut Ctx, module: &Registrant, id: u64, state: RegistrationState, why: &str) {
    let Some(record) = ctx.local::<Records>().by_id.get(&id) else { return };
    let (aor, expires) = (record.wish.aor.clone(), record.expires);
    host::warn!("uac_registrant", "{} is not registered: {why}", text(&aor));
    let due = module.retry_due(ctx, expires);
    if let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) {
        record.due = due;
    }
    change(ctx, id, state);
}

/// The final reply to a REGISTER.
fn answered(ctx: &mut Ctx, module: &Arc<Registrant>, id: u64, cseq: u32, what: What, answer: Answer) {
    if let (Some(path), Some(record)) = (answer.path, ctx.local::<Records>().by_id.get_mut(&id)) {
        record.path = Some(path);
    }
    let Some(record) = ctx.local::<Records>().by_id.get(&id) else { return };
    // An answer to what was sent before a change of mind.
    if record.cseq != cseq || !record.state.is_open() {
        return;
    }
    let (state, status) = (record.state, answer.status);
    let Some(reply) = answer.reply else {
        let failed =
            if status == 408 { RegistrationState::RegisterTimeout } else { RegistrationState::InternalError };
        return fail(ctx, module, id, failed, &format!("{status} {}", text(&answer.reason)));
    };
    match status {
        200..=299 => accepted(ctx, module, id, &reply),
        401 | 407 => challenged(ctx, module, id, what, state, &reply),
        423 => {
            let more = reply
                .value(HeaderName::MinExpires)
                .and_then(|v| std::str::from_utf8(&v).ok()?.trim().parse().ok());
            let asked = record.asked;
            match more.filter(|more: &u32| *more > asked && what == What::Register) {
                Some(more) => {
                    if let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) {
                        record.asked = more;
                    }
                    send(ctx, module, id, What::Register, None);
                }
                None => fail(ctx, module, id, RegistrationState::RegistrarError, "423 without a longer time"),
            }
        }
        408 => fail(ctx, module, id, RegistrationState::RegisterTimeout, "the registrar timed out"),
        _ => fail(
            ctx,
            module,
            id,
            RegistrationState::RegistrarError,
            &format!("{status} {}", text(&answer.reason)),
        ),
    }
}

fn challenged(
    ctx: &mut Ctx,
    module: &Arc<Registrant>,
    id: u64,
    what: What,
    state: RegistrationState,
    reply: &Message,
) {
    let Some(record) = ctx.local::<Records>().by_id.get(&id) else { return };
    let wish = record.wish.clone();
    // A stale nonce is no reproach.
    let stale = reply
        .headers_of(HeaderName::WwwAuthenticate)
        .chain(reply.headers_of(HeaderName::ProxyAuthenticate))
        .any(|h| {
            sip::digest::Challenge::parse(&reply.text(h.value()))
                .is_ok_and(|c| c.stale == sip::digest::Stale::Yes)
        });
    let again =
        matches!(state, RegistrationState::Authenticating | RegistrationState::AuthenticatingUnregister)
            && !(stale && record.cseq < 10);
    if wish.user.is_empty() || wish.password.is_empty() {
        return fail(ctx, module, id, RegistrationState::WrongCredentials, "the registrar wants credentials");
    }
    if again {
        return fail(
            ctx,
            module,
            id,
            RegistrationState::WrongCredentials,
            "the registrar refused the credentials",
        );
    }
    let credential = |realm: &[u8]| {
        Some(uac_auth::Credential {
            user: wish.user.clone(),
            realm: Bytes::copy_from_slice(realm),
            password: wish.password.clone(),
        })
    };
    let Some(challenged) = uac_auth::choose(reply, &[], credential) else {
        return fail(ctx, module, id, RegistrationState::InternalError, "the challenge cannot be answered");
    };
    let line = challenged.line(ctx, b"REGISTER", &wish.registrar, b"", 1);
    send(ctx, module, id, what, Some(line));
}

fn accepted(ctx: &mut Ctx, module: &Arc<Registrant>, id: u64, reply: &Message) {
    let Some(record) = ctx.local::<Records>().by_id.get(&id) else { return };
    let (wish, state) = (record.wish.clone(), record.state);
    let bindings = reply.addresses(HeaderName::Contact).unwrap_or_default();
    match (state.is_leaving(), wish.enabled) {
        // It was enabled, or all bindings were removed to make room: now for real.
        (true, true) => {
            if let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) {
                record.call_id = Bytes::new();
            }
            return send(ctx, module, id, What::Register, None);
        }
        (true, false) => {
            if let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) {
                record.due = 0;
            }
            return change(ctx, id, RegistrationState::NotRegistered);
        }
        (false, false) => return send(ctx, module, id, What::Unregister, None),
        (false, true) => {}
    }
    if wish.is_exclusive() && bindings.len() > 1 {
        return send(ctx, module, id, What::UnregisterAll, None);
    }
    let ours = Uri::parse(&wish.contact).ok();
    let mine = bindings.iter().find(|b| match (&ours, Uri::parse(&b.uri)) {
        (Some(ours), Ok(theirs)) => ours.equals(&theirs),
        _ => false,
    });
    let number = |v: Bytes| std::str::from_utf8(&v).ok()?.trim().parse::<u32>().ok();
    let given = mine
        .and_then(|b| b.params.value(b"expires"))
        .and_then(number)
        .or_else(|| reply.expires())
        .filter(|e| *e > 0);
    if mine.is_none() {
        return fail(
            ctx,
            module,
            id,
            RegistrationState::RegistrarError,
            "the registrar's answer does not hold the binding",
        );
    }
    let expires = given.unwrap_or(wish.expires);
    if expires <= module.interval {
        host::warn!(
            "uac_registrant",
            "the registrar gives {} only {expires} s: timer_interval {} is too long for that",
            text(&wish.aor),
            module.interval
        );
    }
    let due = module.due(ctx, expires);
    if let Some(record) = ctx.local::<Records>().by_id.get_mut(&id) {
        (record.expires, record.due) = (expires, due);
    }
    change(ctx, id, RegistrationState::Registered);
}

#[cfg(test)]
mod tests;
