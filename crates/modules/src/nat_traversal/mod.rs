//! nat_traversal: tests for clients behind NATs, and messages that keep their way open.
//!
//! Endpoints that `nat_keepalive` asked for are kept alive for as long as their registration or subscription
//! was granted, or the call that they began stands.

mod dialogs;
mod endpoints;
mod state;

use self::endpoints::{Endpoint, Endpoints};
use crate::nathelper::checks::{Private, has_private_contact, has_private_via, ip_differs_from_via};
use crate::nathelper::contact::{Org, fix};
use crate::path::source_uri;
use ahash::AHashMap;
use bytes::Bytes;
use host::Accepts;
use host::shared::Hooks;
use host::stats::Stats;
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::watch::{Moment, Told};
use host::{Call, Ctx, Int, Registrar, Routes, Value};
use parking_lot::Mutex;
use sip::{HeaderName, Method};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use transaction::Path;

pub struct NatTraversal {
    /// Seconds; 0: off.
    interval: u64,
    method: String,
    from: String,
    extra_headers: String,
    endpoints: Endpoints,
    dialogs: Mutex<Dialogs>,
    state_file: PathBuf,
    seconds: AtomicU64,
}

/// Calls by Call-ID and caller's tag, and how many of them need an endpoint.
#[derive(Default)]
struct Dialogs {
    calls: AHashMap<Bytes, dialogs::Call>,
    counts: AHashMap<Bytes, u32>,
}

impl Default for NatTraversal {
    fn default() -> NatTraversal {
        NatTraversal {
            interval: 60,
            method: "NOTIFY".into(),
            from: String::new(),
            extra_headers: String::new(),
            endpoints: Endpoints::default(),
            dialogs: Mutex::default(),
            state_file: "keepalive_state".into(),
            seconds: AtomicU64::new(0),
        }
    }
}

pub fn register(m: &mut Registrar<NatTraversal>) {
    m.param_int("keepalive_interval", |s, v| Ok(s.interval = v.max(0) as u64));
    m.param_text("keepalive_method", |s, v| Ok(s.method = v.into()));
    m.param_text("keepalive_from", |s, v| Ok(s.from = v.into()));
    m.param_text("keepalive_extra_headers", |s, v| Ok(s.extra_headers = v.into()));
    m.param_text("keepalive_state_file", |s, v| Ok(s.state_file = v.into()));
    // Zero and less: no keep-alives.
    m.accepts(Accepts::seconds(i32::MIN as i64), &["keepalive_interval"]);
    m.accepts(Accepts::TOKEN, &["keepalive_method"]);
    m.accepts(Accepts::SIP_URI, &["keepalive_from"]);
    m.ignored(&["cluster_id", "cluster_sharing_tag"], "every server keeps its own endpoints alive");
    let any = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH);
    m.function("client_nat_test", any, client_nat_test);
    m.function("fix_contact", any, fix_contact);
    m.function("nat_keepalive", Routes::REQUEST, nat_keepalive);
    m.variable("source_uri", |call| Value::Str(source_uri(call.ctx).into()));
    m.variable_class("keepalive.socket", |spec, loader, module| {
        let name = Name::new(spec, loader, "$keepalive.socket($du)")?;
        Ok(VarKind::Other(Box::new(Socket(name, module.clone()))))
    });
    m.timer(1000, tick);
    m.ready(ready);
    m.start(|call| {
        if call.core.worker == 0 && call.module.interval > 0 {
            let (module, now) = (call.module.clone(), call.core.wall_us / 1_000_000);
            state::read(&module.state_file, &module, &call.shared().sockets, now);
        }
        if call.module.interval > 0 && crate::dialog::api::module(call.ctx).is_some() {
            let module = call.module.clone();
            let listener = move |ctx: &mut Ctx, told: &crate::dialog::api::Told| module.told(ctx, told);
            crate::dialog::api::listen(call.ctx, std::rc::Rc::new(listener));
        }
    });
    m.stop(|call| {
        if call.module.interval > 0 && !call.module.endpoints.is_empty() {
            let module = call.module.clone();
            state::write(&module.state_file, &module, &call.shared().sockets);
        }
    });
}

fn ready(module: &Arc<NatTraversal>, hooks: &mut Hooks, stats: &Stats) {
    module.endpoints.full.show(stats, "nat_traversal", "refused_endpoints");
    let count = |stat: &str, meant: fn(&Endpoint) -> bool| {
        let module = module.clone();
        stats.computed("nat_traversal", stat, move || module.endpoints.count(meant) as i64);
    };
    count("keepalive_endpoints", |_| true);
    count("registered_endpoints", |endpoint| endpoint.registered > 0);
    count("subscribed_endpoints", |endpoint| endpoint.subscribed > 0);
    let of_calls = module.clone();
    stats.computed("nat_traversal", "dialog_endpoints", move || of_calls.dialogs.lock().counts.len() as i64);
    if module.interval == 0 {
        return;
    }
    let (rings, replied) = (module.clone(), module.clone());
    hooks.watch.on(Moment::ReplyIn, move |ctx, seen| rings.reply_in(ctx, seen));
    hooks.watch.told(Told::Replied, move |ctx, seen| {
        if seen.txn.is_some() {
            replied.watch_call(ctx, seen.status);
        }
        replied.answered(ctx, seen.status, &seen.bytes);
    });
}

/// client_nat_test(tests): 1 private address in Contact, 2 another address or port in Via, 4 private address
/// in Via, 8 another address in Contact.
fn client_nat_test(call: &mut Call<NatTraversal>, tests: Int) -> bool {
    let private = Private::new(call.shared().dialect);
    let state = &call.ctx.state;
    let other_source = || {
        let port = state.msg.via().map(|via| if via.port == 0 { 5060 } else { via.port });
        ip_differs_from_via(state, private) || port.is_some_and(|port| port != state.source.remote.port())
    };
    let other_contact = || {
        let contact = host::contacts::addresses(state).unwrap_or_default().into_iter().next();
        let uri = contact.and_then(|contact| sip::Uri::parse(&contact.uri).ok());
        uri.is_some_and(|uri| uri.ip() != Some(state.source.remote.ip()))
    };
    (tests.0 & 1 != 0 && has_private_contact(state, private))
        || (tests.0 & 2 != 0 && other_source())
        || (tests.0 & 4 != 0 && has_private_via(state, private))
        || (tests.0 & 8 != 0 && other_contact())
}

/// fix_contact(): the contacts get the address that the message came from.
fn fix_contact(call: &mut Call<NatTraversal>) -> i32 {
    if call.ctx.state.msg.header(HeaderName::Contact).is_none() {
        return -1;
    }
    fix(&mut call.ctx.state, b"", Org::Forgotten)
}

/// Kept with a request that asked for keep-alives.
#[derive(Clone, Default)]
struct Wanted(bool);

/// nat_keepalive(): from a positive answer on for REGISTER and SUBSCRIBE, while the call stands for INVITE.
fn nat_keepalive(call: &mut Call<NatTraversal>) -> i32 {
    match call.ctx.state.msg.method() {
        Method::Register | Method::Subscribe | Method::Invite => {
            call.ctx.state.ext.set(Wanted(true));
            1
        }
        _ => {
            host::error!("nat_traversal", "nat_keepalive() is for REGISTER, SUBSCRIBE and INVITE");
            -1
        }
    }
}

impl NatTraversal {
    /// A request was answered, here or from downstream.
    fn answered(&self, ctx: &mut Ctx, status: u16, reply: &Bytes) {
        let asked = ctx.state.ext.find::<Wanted>().is_some_and(|wanted| wanted.0);
        let method = ctx.state.msg.method();
        let lasts = matches!(method, Method::Register | Method::Subscribe);
        if !asked || !lasts || !(200..300).contains(&status) {
            return;
        }
        let now = ctx.core.wall_us / 1_000_000;
        let seconds = granted(reply).or_else(|| ctx.state.msg.expires()).unwrap_or(3600);
        let until = if seconds == 0 { 0 } else { now + u64::from(seconds) };
        let register = method == Method::Register;
        let uri = Bytes::from(source_uri(ctx));
        self.endpoint(uri.clone(), ctx.state.source);
        self.endpoints.with(&uri, |endpoint| {
            *(if register { &mut endpoint.registered } else { &mut endpoint.subscribed }) = until;
        });
    }

    /// Makes an endpoint known, or tells where it is now.
    fn endpoint(&self, uri: Bytes, path: Path) {
        self.endpoints.put(uri, Endpoint::new(path));
    }
}

/// Seconds that a reply grants: the longest of its contacts, else Expires.
fn granted(reply: &Bytes) -> Option<u32> {
    let reply = sip::Message::parse(reply.clone()).ok()?;
    let of_contact = |contact: sip::NameAddr| {
        let text = contact.params.value(b"expires")?;
        std::str::from_utf8(&text).ok()?.parse().ok()
    };
    let contacts = reply.addresses(HeaderName::Contact).unwrap_or_default();
    contacts.into_iter().filter_map(of_contact).max().or_else(|| reply.expires())
}

/// Every second some parts of the endpoints, so that each has its turn once an interval.
fn tick(call: &mut Call<NatTraversal>) {
    let module = call.module.clone();
    if module.interval == 0 {
        return;
    }
    let now = call.core.wall_us / 1_000_000;
    let turn = module.seconds.fetch_add(1, Ordering::Relaxed) % module.interval;
    let mut due = Vec::new();
    module.dialogs.lock().expire(now);
    for part in Endpoints::parts_of(turn, module.interval) {
        let dialogs = module.dialogs.lock();
        module.endpoints.retain(part, |uri, endpoint| {
            for until in [&mut endpoint.registered, &mut endpoint.subscribed] {
                if *until <= now {
                    *until = 0;
                }
            }
            let alive = endpoint.registered + endpoint.subscribed > 0 || dialogs.needs(uri);
            if alive {
                due.push((uri.clone(), endpoint.path));
            }
            alive
        });
    }
    for (uri, path) in due {
        let bytes = module.request(call.ctx, &uri, path);
        call.ctx.transmit(path, bytes);
    }
}

impl NatTraversal {
    fn request(&self, ctx: &mut Ctx, uri: &Bytes, path: Path) -> Bytes {
        let names = host::tm::branch::socket_names(ctx, &path);
        let host = String::from_utf8_lossy(&names.host).into_owned();
        let from = if self.from.is_empty() { format!("sip:keepalive@{host}") } else { self.from.clone() };
        let (uri, method) = (String::from_utf8_lossy(uri), &self.method);
        let random = ctx.core.rng.next_u64();
        let event = if method == "NOTIFY" { "Event: keep-alive\r\n" } else { "" };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {host}:{};branch=z9hG4bKka{random:016x}\r\n\
             From: <{from}>;tag={:08x}\r\nTo: <{uri}>\r\nCall-ID: {random:016x}@{host}\r\nCSeq: 1 {method}\r\n\
             {event}{}Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            names.transport,
            names.port,
            random as u32,
            self.extra_headers,
        )
        .into()
    }
}

/// `$keepalive.socket(uri)`: `udp:10.0.0.1:5060`
struct Socket(Name, Arc<NatTraversal>);

impl Variable for Socket {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(uri) = self.0.text(ctx) else { return Value::Null };
        let socket = self.1.endpoints.with(&uri, |endpoint| endpoint.path.socket);
        match socket.and_then(|socket| ctx.shared().sockets.get(usize::from(socket))) {
            Some(socket) => {
                let text = format!("{}:{}", socket.names.transport.to_ascii_lowercase(), socket.addr);
                Value::Str(text.into())
            }
            None => Value::Null,
        }
    }
}
