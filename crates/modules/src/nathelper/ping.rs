//! Pinging registered contacts: four bytes, or an OPTIONS whose answers are counted.
//!
//! Worker 0 visits a part of the location tables every second, so that all contacts are pinged once an
//! interval and no moment sees many at once. Answers come to the worker of their Call-ID; what is waited for
//! stands under one short lock.

use super::Nathelper;
use crate::usrloc::contact::{Contact, Field};
use crate::usrloc::table::{Change, Record, SHARDS, Table};
use crate::usrloc::{Usrloc, now_s};
use ahash::AHashMap;
use bytes::Bytes;
use host::Accepts;
use host::ctx::Resolved;
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::registrar::ParamFn;
use host::shared::Hooks;
use host::stats::Stats;
use host::tm::branch::{lookup_of, path_of};
use host::watch::Moment;
use host::{Branch, Call, Ctx, Registrar};
use parking_lot::Mutex;
use script::ast::ParamValue;
use serde_json::json;
use sip::{Message, NameAddr, Transport};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use transaction::Path;

pub struct Settings {
    /// Seconds; 0: no pings.
    interval: u64,
    nated_only: bool,
    tcp: bool,
    /// Names of branch flags, then their bits.
    sip_flag: (Option<String>, u32),
    remove_flag: (Option<String>, u32),
    latency_flag: (Option<String>, u32),
    from: String,
    method: String,
    ignored_codes: Vec<u16>,
    force_socket: (Option<String>, Option<u16>),
    /// Seconds.
    threshold: u64,
    max_lost: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            interval: 0,
            nated_only: false,
            tcp: false,
            sip_flag: (None, 0),
            remove_flag: (None, 0),
            latency_flag: (None, 0),
            from: String::new(),
            method: "OPTIONS".into(),
            ignored_codes: Vec::new(),
            force_socket: (None, None),
            threshold: 3,
            max_lost: 3,
        }
    }
}

impl Settings {
    pub fn init(&mut self, loader: &mut Loader) -> Result<(), String> {
        if self.interval > 0 && !loader.is_loaded("usrloc") {
            return Err("natping_interval needs module usrloc".into());
        }
        for flag in [&mut self.sip_flag, &mut self.remove_flag, &mut self.latency_flag] {
            if let Some(name) = &flag.0 {
                flag.1 =
                    loader.branch_flag(name.as_bytes(), script::Loc::default()).map_err(|d| d.message)?;
            }
        }
        if self.interval > 0 && self.sip_flag.1 != 0 && self.from.is_empty() {
            return Err("sipping_bflag needs sipping_from".into());
        }
        if let Some(text) = &self.force_socket.0 {
            let same = |socket: &host::Listen| {
                socket.text.ends_with(text.as_str()) || socket.addr.to_string() == *text
            };
            self.force_socket.1 = loader.globals.sockets.iter().position(same).map(|i| i as u16);
            if self.force_socket.1.is_none() {
                return Err(format!("force_socket {text} is no socket of this server"));
            }
        }
        Ok(())
    }
}

/// Whom an answer is waited from.
struct Ping {
    aor: Bytes,
    sent_us: u64,
    waiting: bool,
    lost: u32,
}

#[derive(Default)]
pub struct Pings {
    off: AtomicBool,
    next_shard: AtomicUsize,
    /// By table and id of the contact.
    sent: Mutex<AHashMap<(usize, u64), Ping>>,
    secret: ahash::RandomState,
}

fn flag_name(value: &ParamValue) -> String {
    match value {
        ParamValue::Int(n) => n.to_string(),
        ParamValue::Text(text) => String::from_utf8_lossy(text).into_owned(),
    }
}

pub fn register(m: &mut Registrar<Nathelper>) {
    m.param_int("natping_interval", |s, v| Ok(s.ping.interval = v.max(0) as u64));
    m.param_int("ping_nated_only", |s, v| Ok(s.ping.nated_only = v != 0));
    m.param_int("natping_tcp", |s, v| Ok(s.ping.tcp = v != 0));
    // Branch flags have numbers in 2.x.
    m.param("sipping_bflag", ParamFn::Any(|s, v| Ok(s.ping.sip_flag.0 = Some(flag_name(v)))));
    m.param("remove_on_timeout_bflag", ParamFn::Any(|s, v| Ok(s.ping.remove_flag.0 = Some(flag_name(v)))));
    m.param_text("sipping_latency_flag", |s, v| Ok(s.ping.latency_flag.0 = Some(v.into())));
    m.param_text("sipping_from", |s, v| Ok(s.ping.from = v.into()));
    m.param_text("sipping_method", |s, v| Ok(s.ping.method = v.into()));
    m.param_text("sipping_ignore_rpl_codes", |s, v| {
        let codes: Result<_, _> = v.split(',').map(|code| code.trim().parse()).collect();
        s.ping.ignored_codes = codes.map_err(|_| "sipping_ignore_rpl_codes takes status codes")?;
        Ok(())
    });
    m.param_text("force_socket", |s, v| Ok(s.ping.force_socket.0 = Some(v.into())));
    m.param_int("ping_threshold", |s, v| Ok(s.ping.threshold = v.max(1) as u64));
    m.param_int("max_pings_lost", |s, v| Ok(s.ping.max_lost = v.max(1) as u32));
    m.accepts(Accepts::seconds(0), &["natping_interval"]);
    m.accepts(Accepts::from(1), &["max_pings_lost", "ping_threshold"]);
    m.accepts(Accepts::TOKEN, &["sipping_method"]);
    m.accepts(Accepts::SIP_URI, &["sipping_from"]);
    m.accepts(Accepts::SOCKET, &["force_socket"]);
    m.ignored(&["natping_partitions", "natping_processes"], "pings are spread over the interval as it is");
    m.ignored(&["natping_socket"], "a foreign source address needs raw sockets");
    m.ignored(&["cluster_id", "cluster_sharing_tag"], "every server pings the contacts that it knows");
    m.ignored(
        &[
            "rtpproxy_sock",
            "rtpproxy_disable",
            "rtpproxy_tout",
            "rtpproxy_autobridge",
            "rtpproxy_disable_tout",
            "rtpproxy_retr",
        ],
        "module rtpproxy has these",
    );
    m.command(
        "nathelper:enable_ping nh_enable_ping enable_ping",
        "reads or sets whether contacts are pinged",
        enable_ping,
    )
    .takes("[status]");
    m.start(|call| {
        if let (true, Some(usrloc)) = (call.module.ping.interval > 0, call.shared().module::<Usrloc>()) {
            usrloc.will_visit();
        }
    });
    m.timer(1000, tick);
    m.ready(ready);
}

fn ready(module: &Arc<Nathelper>, hooks: &mut Hooks, _: &Stats) {
    if module.ping.interval > 0 {
        let module = module.clone();
        hooks.watch.on(Moment::StrayReply, move |ctx, _| {
            let reply = ctx.state.msg.clone();
            !module.answered(ctx, &reply)
        });
    }
}

fn enable_ping(call: &mut Call<Nathelper>, params: &MiParams) -> MiResult {
    if call.module.ping.interval == 0 {
        return Err(MiError::new(400, "NATping disabled from script"));
    }
    match params.int("status", 0)? {
        Some(status) => {
            call.module.pings.off.store(status <= 0, Ordering::Relaxed);
            Ok(json!("OK"))
        }
        None => {
            let on = !call.module.pings.off.load(Ordering::Relaxed);
            Ok(json!({"Status": u8::from(on)}))
        }
    }
}

/// A contact that is due.
struct Due {
    table: usize,
    aor: Bytes,
    contact: Contact,
}

fn tick(call: &mut Call<Nathelper>) {
    let module = call.module.clone();
    let Some(usrloc) = call.shared().module::<Usrloc>() else { return };
    if module.ping.interval == 0 || module.pings.off.load(Ordering::Relaxed) {
        return;
    }
    module.count_lost(call.ctx, &usrloc);
    for part in module.shards() {
        for (n, table) in usrloc.tables().into_iter().enumerate() {
            let (module, owner) = (module.clone(), usrloc.clone());
            usrloc.visit(call.ctx, &table, part, move |ctx, contacts| {
                for (aor, contact) in contacts {
                    if module.wants(ctx, &owner, &contact) {
                        module.ping(ctx, &Due { table: n, aor, contact });
                    }
                }
            });
        }
    }
}

impl Nathelper {
    /// The contact is one to ping, and this server is who pings it.
    fn wants(&self, ctx: &Ctx, usrloc: &Usrloc, contact: &Contact) -> bool {
        !contact.expired(now_s(ctx))
            && usrloc.owns(ctx.shared(), contact)
            && (!self.ping.nated_only || contact.flags & usrloc.nat_flag != 0)
    }

    /// The shards of this second.
    fn shards(&self) -> impl Iterator<Item = usize> {
        let each = SHARDS.div_ceil(self.ping.interval.max(1) as usize);
        let start = self.pings.next_shard.fetch_add(each, Ordering::Relaxed);
        // A pass takes `interval` seconds, also when it has nothing left to visit at its end.
        let pass = each * self.ping.interval.max(1) as usize;
        (start..start + each).map(move |n| n % pass).filter(|n| *n < SHARDS)
    }

    fn ping(&self, ctx: &mut Ctx, due: &Due) {
        let contact = &due.contact;
        let text = |field: Field| Bytes::copy_from_slice(contact.text(field));
        let route = NameAddr::parse_list(&text(Field::Path)).and_then(|list| list.into_iter().next());
        let received = Some(text(Field::Received)).filter(|uri| !uri.is_empty());
        let dst_uri = route.map(|route| route.uri).or(received);
        let known = (contact.socket as usize) < ctx.shared().sockets.len();
        let socket = if known { Some(contact.socket) } else { self.ping.force_socket.1 };
        let target =
            Branch { uri: Bytes::copy_from_slice(contact.uri()), dst_uri, socket, ..Branch::default() };
        let path = match path_of(ctx, &ctx.state, &target, None) {
            Ok(path) => path,
            Err(_) => return look_up(ctx, &target),
        };
        let by_sip = self.ping.sip_flag.1 != 0 && contact.flags & self.ping.sip_flag.1 != 0;
        if path.transport != Transport::Udp && !self.ping.tcp {
            return;
        }
        if by_sip || path.transport != Transport::Udp {
            if self.ping.from.is_empty() {
                return;
            }
            let bytes = self.request(ctx, due, &target, &path);
            // A ping keeps a connection; it makes none.
            let path = if path.is_reliable() { path.only_existing() } else { path };
            ctx.transmit(path, bytes);
        } else {
            ctx.transmit(path, Bytes::from_static(&[0; 4]));
        }
    }

    /// A request to a contact. Its Call-ID tells which contact answered.
    fn request(&self, ctx: &mut Ctx, due: &Due, target: &Branch, path: &Path) -> Bytes {
        let now = ctx.core.wall_us;
        let contact = &due.contact;
        let counted = self.ping.remove_flag.1 | self.ping.latency_flag.1;
        if contact.flags & counted != 0 {
            let mut sent = self.pings.sent.lock();
            let ping = sent.entry((due.table, contact.id)).or_insert(Ping {
                aor: due.aor.clone(),
                sent_us: now,
                waiting: false,
                lost: 0,
            });
            // One that is still waited for keeps its time: it may be late, or lost.
            if !ping.waiting {
                (ping.sent_us, ping.waiting) = (now, true);
            }
        }
        let names = host::tm::branch::socket_names(ctx, path);
        let host = format!("{}:{}", String::from_utf8_lossy(&names.host), names.port);
        let mark = self.mark(due.table, contact.id);
        let uri = String::from_utf8_lossy(&target.uri);
        let route = match contact.text(Field::Path) {
            b"" => String::new(),
            path => format!("Route: {}\r\n", String::from_utf8_lossy(path)),
        };
        let (method, from, random) = (&self.ping.method, &self.ping.from, ctx.core.rng.next_u64());
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {host};branch=z9hG4bKnp{random:016x}\r\n{route}From: <{from}>;tag={:08x}\r\n\
             To: <{uri}>\r\nCall-ID: {mark}@{host}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            names.transport,
            random as u32,
        )
        .into()
    }

    /// `table-id-seal`: nobody else can make one.
    fn mark(&self, table: usize, id: u64) -> String {
        format!("{table:x}-{id:x}-{:016x}", self.pings.secret.hash_one((table, id)))
    }

    /// The contact that a Call-ID of ours names.
    fn marked(&self, call_id: &[u8]) -> Option<(usize, u64)> {
        let text = std::str::from_utf8(call_id).ok()?;
        let (mark, _) = text.split_once('@')?;
        let mut parts = mark.split('-');
        let table = usize::from_str_radix(parts.next()?, 16).ok()?;
        let id = u64::from_str_radix(parts.next()?, 16).ok()?;
        (self.mark(table, id) == mark).then_some((table, id))
    }

    /// A reply of no transaction: true when it answers a ping.
    fn answered(&self, ctx: &mut Ctx, reply: &Message) -> bool {
        let Some(key) = reply.call_id().and_then(|id| self.marked(&id)) else { return false };
        if self.ping.ignored_codes.contains(&reply.status()) || reply.status() < 200 {
            return true;
        }
        let now = ctx.core.wall_us;
        let taken = {
            let mut sent = self.pings.sent.lock();
            sent.get_mut(&key).map(|ping| {
                let latency = now.saturating_sub(ping.sent_us);
                (ping.waiting, ping.lost) = (false, 0);
                (ping.aor.clone(), latency)
            })
        };
        if let (Some((aor, latency)), Some(usrloc)) = (taken, ctx.shared().module::<Usrloc>())
            && let Some(table) = usrloc.tables().get(key.0)
        {
            let latency_us = latency.min(u64::from(u32::MAX)) as u32;
            usrloc.answered(ctx, table, &aor, key.1, self.ping.latency_flag.1, latency_us);
        }
        true
    }

    /// Pings without an answer in time. A contact that lost too many leaves its table.
    fn count_lost(&self, ctx: &mut Ctx, usrloc: &Arc<Usrloc>) {
        let now = ctx.core.wall_us;
        let late = self.ping.threshold * 1_000_000;
        let forgotten = late + self.ping.interval * 3_000_000;
        let mut gone = Vec::new();
        self.pings.sent.lock().retain(|key, ping| {
            let age = now.saturating_sub(ping.sent_us);
            if ping.waiting && age >= late {
                ping.waiting = false;
                ping.lost += 1;
            }
            let dead = ping.lost >= self.ping.max_lost;
            if dead {
                gone.push((*key, ping.aor.clone()));
            }
            // Contacts that are pinged no more are forgotten.
            !dead && age < forgotten
        });
        let tables = usrloc.tables();
        for ((table, id), aor) in gone {
            if let Some(table) = tables.get(table) {
                self.remove(ctx, usrloc, table, &aor, id);
            }
        }
    }

    fn remove(&self, ctx: &mut Ctx, usrloc: &Arc<Usrloc>, table: &Arc<Table>, aor: &Bytes, id: u64) {
        let flag = self.ping.remove_flag.1;
        let work = move |record: &mut Record, changes: &mut Vec<Change>| {
            record.remove(|c| c.id == id && c.flags & flag != 0, changes);
            !changes.is_empty()
        };
        let name = aor.clone();
        usrloc.change_beside(ctx, "natping", table, aor.clone(), work, move |_, gone| {
            if gone == Ok(true) {
                let aor = String::from_utf8_lossy(&name);
                host::info!("nathelper", "{aor} answers no pings: its contact is removed");
            }
        });
    }
}

/// The name is looked up beside; the next ping finds it known.
fn look_up(ctx: &mut Ctx, target: &Branch) {
    let Some(query) = lookup_of(&ctx.core.shared.sockets, target, None) else { return };
    if let Resolved::Later(found) = ctx.core.spawner.resolve(query) {
        ctx.spawn_aside("natping", 5000, async move {
            let _ = found.await;
            let finish: host::Finish = Box::new(|_| 1);
            finish
        });
    }
}
