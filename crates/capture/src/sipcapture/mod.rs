//! sipcapture: messages that capture agents send (HEP), or that come as SIP, into tables; HEP packets to look at, to
//! change and to send on.
//!
//! ```text
//!  hep_udp:, hep_tcp: ─► hep_in ─► hep_route: none ─► sip_capture()
//!                                   ├─ sip ─► the main route, or onreply_route, over the payload
//!                                   └─ route[name], without a message ─► hep_get, hep_set, hep_relay, report_capture
//!                                                                        hep_resume_sip ─► the main route
//! ```

mod chunks;
mod rows;

use crate::hep_in::{Received, Taker};
use crate::proto_hep::ProtoHep;
use bytes::Bytes;
use host::InParam;
use host::call::Outcome;
use host::ctx::MsgState;
use host::db::Db;
use host::mi::{MiError, MiParams, MiResult};
use host::shared::Hooks;
use host::stats::{Counter, Stats};
use host::worker::detached_state;
use host::{Accepts, After, Call, Ctx, Int, Loader, Registrar, Routes, Text};
use parking_lot::Mutex;
use rows::Columns;
use script::ast::RouteKind;
use script::{RouteId, Task};
use serde_json::json;
use sip::{Message, Transport};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use transaction::Path;

const ROUTES: Routes =
    Routes::REQUEST.and(Routes::FAILURE).and(Routes::ON_REPLY).and(Routes::BRANCH).and(Routes::LOCAL);

/// What HEP packets go through.
#[derive(Clone, Debug, Default, PartialEq)]
enum HepRoute {
    /// Straight into the table.
    None,
    #[default]
    Sip,
    Route(String, Option<RouteId>),
}

pub struct SipCapture {
    db_url: Option<String>,
    db: Option<Db>,
    table: String,
    report_table: String,
    pub(crate) columns: Columns,
    on: AtomicBool,
    hep_on: bool,
    node: String,
    hep_route: HepRoute,
    hep: Option<Arc<ProtoHep>>,
    requests: Mutex<Option<Counter>>,
    replies: Mutex<Option<Counter>>,
}

impl Default for SipCapture {
    fn default() -> SipCapture {
        SipCapture {
            db_url: None,
            db: None,
            table: "sip_capture".to_string(),
            report_table: "rtcp_capture".to_string(),
            columns: Columns::default(),
            on: AtomicBool::new(false),
            hep_on: false,
            node: "homer01".to_string(),
            hep_route: HepRoute::Sip,
            hep: None,
            requests: Mutex::default(),
            replies: Mutex::default(),
        }
    }
}

/// The packet that a script works on.
#[derive(Clone, Default)]
pub(crate) struct Current(Option<Arc<Received>>);

/// `hep_resume_sip` was called.
#[derive(Clone, Copy, Default)]
struct Resumes(bool);

/// The packet of the current message.
pub(crate) fn packet(ctx: &Ctx) -> Option<Arc<Received>> {
    ctx.state.ext.find::<Current>().and_then(|current| current.0.clone())
}

pub(crate) fn set_packet(ctx: &mut Ctx, packet: Received) {
    ctx.state.ext.set(Current(Some(Arc::new(packet))));
}

pub fn register(m: &mut Registrar<SipCapture>) {
    m.param_text("db_url", |m, url| Ok(m.db_url = Some(url.to_string())));
    m.param_text("table_name", |m, name| Ok(m.table = name.to_string()));
    m.param_text("rtcp_table_name", |m, name| Ok(m.report_table = name.to_string()));
    // Names that may end in a format of time.
    m.accepts(Accepts::FILLED, &["table_name", "rtcp_table_name"]);
    m.param_text("capture_node", |m, name| Ok(m.node = name.to_string()));
    m.param_int("capture_on", |m, n| Ok(m.on.store(n != 0, Ordering::Relaxed)));
    m.param_int("hep_capture_on", |m, n| Ok(m.hep_on = n != 0));
    m.param_text("hep_route", |m, name| {
        m.hep_route = match name.to_ascii_lowercase().as_str() {
            "none" => HepRoute::None,
            "sip" => HepRoute::Sip,
            _ => HepRoute::Route(name.to_string(), None),
        };
        Ok(())
    });
    rows::register_columns(m);
    m.ignored(
        &["max_async_queries"],
        "rows that come close together are stored together (query_buffer_size)",
    );
    m.ignored(
        &[
            "raw_ipip_capture_on",
            "raw_moni_capture_on",
            "raw_socket_listen",
            "raw_interface",
            "raw_sock_children",
            "promiscuous_on",
            "promiscious_on",
            "raw_moni_bpf_on",
        ],
        "there are no raw sockets: capture agents send HEP (hep_capture_on)",
    );
    m.asks_for(|m| m.db_url.as_deref().and_then(host::db::driver_of));
    m.init(init);
    m.function("sip_capture", ROUTES, sip_capture);
    m.function("report_capture", ROUTES, report_capture);
    m.function("hep_relay", ROUTES, hep_relay);
    m.function("hep_resume_sip", Routes::REQUEST, hep_resume_sip);
    chunks::register(m);
    m.command(
        "sipcapture:capture sip_capture",
        "says whether messages are captured, or turns it on and off",
        capture,
    )
    .takes("[capture_mode]");
    m.ready(ready);
}

fn init(m: &mut SipCapture, loader: &mut Loader) -> Result<(), String> {
    m.db = m.db_url.as_deref().filter(|url| !url.is_empty()).map(|url| loader.db(url)).transpose()?;
    m.hep = loader.module::<ProtoHep>();
    if m.hep_on && m.hep.is_none() {
        return Err("hep_capture_on needs loadmodule \"proto_hep.so\"".to_string());
    }
    if let HepRoute::Route(name, id) = &mut m.hep_route {
        *id = Some(loader.route(name).in_param("hep_route")?);
    }
    Ok(())
}

fn ready(module: &Arc<SipCapture>, hooks: &mut Hooks, stats: &Stats) {
    *module.requests.lock() = Some(stats.counter("sipcapture", "captured_requests"));
    *module.replies.lock() = Some(stats.counter("sipcapture", "captured_replies"));
    if module.hep_on {
        let module = module.clone();
        hooks.list::<Taker>().push(Taker(Arc::new(move |ctx, packet| came(&module, ctx, packet))));
    }
}

/// A HEP packet came.
fn came(module: &Arc<SipCapture>, ctx: &mut Ctx, packet: Received) {
    let packet = Arc::new(packet);
    match &module.hep_route {
        HepRoute::None => {
            if let Some(state) = of_payload(ctx, &packet, RouteKind::Request) {
                let module = module.clone();
                ctx.with_state(state, |ctx| store(&module, ctx, None, [None, None, None]));
            }
        }
        HepRoute::Sip => resume(ctx, &packet),
        HepRoute::Route(_, Some(route)) => {
            let mut state = detached_state(ctx, *route, RouteKind::Request);
            if let Some(source) = packet.source() {
                state.source.remote = source;
            }
            state.ext.set(Current(Some(packet)));
            state.after = After::Then(Box::new(|ctx, state, _| {
                let resumes = state.ext.find::<Resumes>().is_some_and(|resumes| resumes.0);
                if let (true, Some(packet)) = (resumes, state.ext.find::<Current>().and_then(|c| c.0.clone()))
                {
                    resume(ctx, &packet);
                }
            }));
            ctx.run(state);
        }
        HepRoute::Route(_, None) => {}
    }
}

/// The main route over the payload, or the reply route when it is a reply.
fn resume(ctx: &mut Ctx, packet: &Arc<Received>) {
    let kind = match Message::looks_like_reply(&packet.payload()) {
        true => RouteKind::OnReply,
        false => RouteKind::Request,
    };
    if let Some(state) = of_payload(ctx, packet, kind) {
        ctx.run(state);
    }
}

/// A message as if it had come from where it was caught; it is no request of this server's to answer.
fn of_payload(ctx: &mut Ctx, packet: &Arc<Received>, kind: RouteKind) -> Option<Box<MsgState>> {
    let msg = match Message::parse(packet.payload()) {
        Ok(msg) => Rc::new(msg),
        Err(e) => {
            host::info!(
                "sipcapture",
                "the payload of a HEP packet from {} is no SIP message: {e}",
                packet.peer
            );
            return None;
        }
    };
    let program = ctx.shared().program();
    let route =
        program.route(kind, None).or_else(|| program.route(RouteKind::Request, None)).unwrap_or(RouteId(0));
    let transport = match packet.number(crate::hep_in::kind::PROTOCOL) {
        6 => Transport::Tcp,
        132 => Transport::Sctp,
        _ => Transport::Udp,
    };
    let remote = packet.source().unwrap_or(packet.peer);
    let path = Path { socket: 0, transport, remote, local: 0, connection: 0 };
    if kind == RouteKind::OnReply && program.route(kind, None).is_none() {
        return None;
    }
    let mut state = MsgState::new(msg, path, ctx.core.now, kind, Task::new(program, route));
    let shared = ctx.shared();
    state.vars = shared.first_vars.get().unwrap_or(&shared.initial_vars).as_slice().into();
    state.ext.set(Current(Some(packet.clone())));
    Some(state)
}

/// Puts the current message into a table.
fn store(module: &Arc<SipCapture>, ctx: &mut Ctx, table: Option<&[u8]>, custom: [Option<Bytes>; 3]) -> i32 {
    let packet = packet(ctx);
    if module.hep_on && packet.is_none() {
        host::warn!("sipcapture", "sip_capture: with hep_capture_on only HEP messages are captured");
        return -1;
    }
    if !module.on.load(Ordering::Relaxed) {
        return -1;
    }
    let Some(db) = module.db.clone() else {
        host::error!("sipcapture", "sip_capture: there is no db_url");
        return -1;
    };
    let table = table.map_or_else(|| module.table.clone().into_bytes(), <[u8]>::to_vec);
    let table = rows::table_of(&table, ctx.core.wall_us);
    let homer5 = module.hep.as_ref().is_none_or(|hep| hep.homer5);
    let row = rows::message(module, ctx, packet.as_deref(), homer5, custom).into_query(&table);
    let counter = if ctx.state.msg.is_request() { &module.requests } else { &module.replies };
    if let Some(counter) = &*counter.lock() {
        counter.up();
    }
    db.insert_later(ctx, "sipcapture", row, |error| {
        host::error!("sipcapture", "a message was not stored: {error}");
    });
    1
}

/// sip_capture([table], [custom field 1], [custom field 2], [custom field 3])
fn sip_capture(
    call: &mut Call<SipCapture>,
    table: Option<Text>,
    one: Option<Text>,
    two: Option<Text>,
    three: Option<Text>,
) -> i32 {
    let module = call.module.clone();
    let custom = [one.map(|t| t.0), two.map(|t| t.0), three.map(|t| t.0)];
    store(&module, call.ctx, table.as_ref().map(|t| &t.0[..]), custom)
}

/// report_capture(correlation, [table], [protocol type])
fn report_capture(
    call: &mut Call<SipCapture>,
    correlation: Text,
    table: Option<Text>,
    kind: Option<Int>,
) -> i32 {
    let module = call.module.clone();
    let Some(packet) = packet(call.ctx) else {
        host::warn!("sipcapture", "report_capture: this is no HEP message");
        return -1;
    };
    if !module.on.load(Ordering::Relaxed) {
        return -1;
    }
    let Some(db) = module.db.clone() else {
        host::error!("sipcapture", "report_capture: there is no db_url");
        return -1;
    };
    let table = table.map_or_else(|| module.report_table.clone().into(), |t| t.0);
    let table = rows::table_of(&table, call.core.wall_us);
    let homer5 = module.hep.as_ref().is_none_or(|hep| hep.homer5);
    let row = rows::report(&module, call.core.wall_us, &packet, &correlation.0, kind.map(|k| k.0), homer5);
    db.insert_later(call.ctx, "sipcapture", row.into_query(&table), |error| {
        host::error!("sipcapture", "a report was not stored: {error}");
    });
    1
}

/// hep_relay(): sends the packet on to $du or the request URI, as it is now.
fn hep_relay(call: &mut Call<SipCapture>) -> bool {
    let (Some(packet), Some(hep)) = (packet(call.ctx), call.module.hep.clone()) else {
        host::warn!("sipcapture", "hep_relay: this is no HEP message");
        return false;
    };
    let uri = call.state.dst_uri.clone().unwrap_or_else(|| call.state.current_uri());
    hep.relay(&uri, &packet)
}

/// hep_resume_sip(): the hep route ends, the main route follows.
fn hep_resume_sip(call: &mut Call<SipCapture>) -> Outcome {
    let twice = call.state.ext.find::<Resumes>().is_some_and(|resumes| resumes.0);
    if packet(call.ctx).is_none() || twice || !matches!(call.module.hep_route, HepRoute::Route(..)) {
        host::error!("sipcapture", "hep_resume_sip works once, in the route of hep_route");
        return Outcome::Done(-1);
    }
    call.state.ext.set(Resumes(true));
    // 0 ends the route.
    Outcome::Done(0)
}

fn capture(call: &mut Call<SipCapture>, params: &MiParams) -> MiResult {
    let on = &call.module.on;
    match params.text("capture_mode", 0).map(|mode| mode.to_ascii_lowercase()).as_deref() {
        None => Ok(json!(if on.load(Ordering::Relaxed) { "on" } else { "off" })),
        Some("on") => {
            on.store(true, Ordering::Relaxed);
            Ok(json!("OK"))
        }
        Some("off") => {
            on.store(false, Ordering::Relaxed);
            Ok(json!("OK"))
        }
        Some(_) => Err(MiError {
            data: Some("capture_mode should be either 'on' or 'off'".to_string()),
            ..MiError::new(400, "Bad parameter value")
        }),
    }
}

#[cfg(test)]
mod tests;
