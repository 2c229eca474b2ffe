//! opentelemetry: calls and their waits as spans, sent to a collector over OTLP/HTTP (JSON). Parameters as in the
//! reference; what becomes a span is this server's own:
//!
//! ```text
//!  call                      from its INVITE to the answer of its BYE, or to a refusal      root of the trace
//!  ├─ INVITE request         from a request to its final reply
//!  │  waits: sql_query ...   from where a script is held to where it goes on                 beside it, under the root
//!  └─ BYE request
//! ```
//! A request outside of calls (REGISTER, OPTIONS) is the root of its own trace. The numbers of a trace and of its root come
//! from the Call-ID, so whatever belongs to a call finds them, on every worker.

mod export;
mod span;

use bytes::Bytes;
use export::Exporter;
use host::ctx::MsgState;
use host::mi::{MiError, MiParams, MiResult};
use host::observe::{Observer, Seen, Waiting, Way};
use host::shared::Hooks;
use host::stats::Stats;
use host::watch::Told;
use host::worker::ops::Ended;
use host::{Call, Ctx, Registrar};
use serde_json::json;
use sip::{HeaderName, Message, Method};
use span::{Span, SpanKind, Trace};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use transaction::Path;

/// Calls of a worker whose end is waited for; the oldest end without one.
const MAX_CALLS: usize = 100_000;

pub struct OpenTelemetry {
    on: AtomicBool,
    service: String,
    endpoint: String,
    exporter: Arc<Exporter>,
}

impl Default for OpenTelemetry {
    fn default() -> OpenTelemetry {
        OpenTelemetry {
            on: AtomicBool::new(false),
            service: "opensips".to_string(),
            endpoint: "http://127.0.0.1:4318/v1/traces".to_string(),
            exporter: Arc::default(),
        }
    }
}

/// When a transaction began, microseconds since 1970.
#[derive(Clone, Copy, Default)]
struct Began(u64);

/// Calls of this worker that have not ended: when they began, and what their INVITE was.
#[derive(Default)]
struct Calls {
    open: HashMap<Bytes, (u64, Rc<Message>, Path)>,
    order: VecDeque<Bytes>,
}

/// What this worker has of it.
#[derive(Default)]
struct Here(Option<Rc<dyn Observer>>);

pub fn register(m: &mut Registrar<OpenTelemetry>) {
    m.param_int("enable", |m, n| Ok(m.on.store(n != 0, Ordering::Relaxed)));
    m.param_text("service_name", |m, name| Ok(m.service = name.to_string()));
    m.param_text("exporter_endpoint", |m, url| {
        if url.trim().is_empty() {
            return Ok(());
        }
        match url.starts_with("http://") || url.starts_with("https://") {
            true => Ok(m.endpoint = url.trim().to_string()),
            false => Err("it is a URL, http://127.0.0.1:4318/v1/traces".to_string()),
        }
    });
    m.ignored(&["use_batch"], "spans that end within a second go together, nobody waits for them");
    m.ignored(&["proc_profiling"], "there are no processes; `fermata profile` measures the workers");
    m.ignored(&["log_level"], "log lines are no part of spans");
    m.command_each("opentelemetry:enable otel_enable", "turns spans on (1) and off (0)", first, enable)
        .takes("enable");
    m.start(|call| {
        if call.module.on.load(Ordering::Relaxed) {
            begin(call.module, call.ctx);
        }
    });
    m.ready(ready);
}

fn first(answers: Vec<serde_json::Value>) -> serde_json::Value {
    answers.into_iter().next().unwrap_or_default()
}

fn ready(module: &Arc<OpenTelemetry>, hooks: &mut Hooks, stats: &Stats) {
    module.exporter.show(stats);
    let (exporter, endpoint, service) =
        (module.exporter.clone(), module.endpoint.clone(), module.service.clone());
    hooks.services.push(Arc::new(move |_| {
        Box::pin(export::serve(exporter.clone(), endpoint.clone(), service.clone()))
    }));
    let m = module.clone();
    hooks.watch.told(Told::Created, move |ctx, seen| {
        if m.on.load(Ordering::Relaxed) {
            created(ctx, seen.txn);
        }
    });
    let m = module.clone();
    hooks.watch.told(Told::Replied, move |ctx, seen| {
        if seen.status >= 200 && m.on.load(Ordering::Relaxed) {
            replied(&m, ctx, seen);
        }
    });
}

/// opentelemetry:enable
fn enable(call: &mut Call<OpenTelemetry>, params: &MiParams) -> MiResult {
    let on = match params.int("enable", 0)? {
        Some(1) => true,
        Some(0) => false,
        _ => return Err(MiError::params("enable is 1 or 0")),
    };
    call.module.on.store(on, Ordering::Relaxed);
    match on {
        true => begin(call.module, call.ctx),
        false => end(call.ctx),
    }
    Ok(json!("OK"))
}

fn begin(module: &Arc<OpenTelemetry>, ctx: &mut Ctx) {
    if ctx.local::<Here>().0.is_some() {
        return;
    }
    let waits: Rc<dyn Observer> = Rc::new(Waits(module.clone()));
    ctx.observe(waits.clone());
    ctx.local::<Here>().0 = Some(waits);
}

fn end(ctx: &mut Ctx) {
    if let Some(waits) = ctx.local::<Here>().0.take() {
        ctx.unobserve(&waits);
    }
}

/// The next number of a span that is no root.
fn own_id(ctx: &mut Ctx) -> u64 {
    let (worker, started) = (u64::from(ctx.core.worker), ctx.shared().started_ms);
    let ids = ctx.local::<Ids>();
    ids.0 += 1;
    host::ctx::Rng(started ^ worker << 48 ^ ids.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_u64()
}

/// How many spans this worker has numbered.
#[derive(Default)]
struct Ids(u64);

fn created(ctx: &mut Ctx, txn: Option<transaction::TxnId>) {
    let now = ctx.core.wall_us;
    if let Some(ext) = txn.and_then(|txn| ctx.ext_of(txn)) {
        ext.set(Began(now));
    }
    let (msg, path) = (ctx.state.msg.clone(), ctx.state.source);
    if msg.method() != Method::Invite || msg.to_tag().is_some() {
        return;
    }
    let Some(id) = msg.call_id() else { return };
    let calls = ctx.local::<Calls>();
    while calls.order.len() >= MAX_CALLS {
        let Some(oldest) = calls.order.pop_front() else { break };
        calls.open.remove(&oldest);
    }
    let id = Bytes::copy_from_slice(&id);
    if calls.open.insert(id.clone(), (now, msg, path)).is_none() {
        calls.order.push_back(id);
    }
}

/// A final reply has left: the span of its request ends, and with it perhaps the call.
fn replied(module: &OpenTelemetry, ctx: &mut Ctx, seen: &host::watch::Seen) {
    let Some(began) = seen.txn.and_then(|txn| ctx.ext_of(txn)).and_then(|ext| ext.find::<Began>().copied())
    else {
        return;
    };
    // A second 2xx of a fork is no second span.
    if let Some(ext) = seen.txn.and_then(|txn| ctx.ext_of(txn)) {
        ext.remove::<Began>();
    }
    let (msg, path, now) = (ctx.state.msg.clone(), ctx.state.source, ctx.core.wall_us);
    let id = msg.call_id().unwrap_or_default();
    let trace = Trace::of(&id);
    let own = own_id(ctx);
    let is_call = ctx.local::<Calls>().open.contains_key(&id);
    let method = String::from_utf8_lossy(&msg.method_text()).into_owned();
    let mut span = Span::new(&trace, format!("{method} request"), SpanKind::Server, began.0, now);
    if is_call || msg.to_tag().is_some() {
        span.under_root(&trace, own);
    }
    attributes(&mut span, &msg, &path, seen.status);
    module.exporter.queue(span);
    let over = match msg.method() {
        Method::Bye => true,
        Method::Invite => seen.status >= 300 && msg.to_tag().is_none(),
        _ => false,
    };
    if let Some((since, invite, from)) = ctx.local::<Calls>().open.get(&id).filter(|_| over).cloned() {
        let calls = ctx.local::<Calls>();
        calls.open.remove(&id);
        // Where it stood in the order is found when its turn to give way comes.
        if calls.order.len() > 2 * calls.open.len() + 64 {
            let open = std::mem::take(&mut calls.order);
            calls.order = open.into_iter().filter(|id| calls.open.contains_key(id)).collect();
        }
        let mut call = Span::new(&trace, "call".to_string(), SpanKind::Server, since, now);
        let status = if msg.method() == Method::Bye { 200 } else { seen.status };
        attributes(&mut call, &invite, &from, status);
        module.exporter.queue(call);
    }
}

fn attributes(span: &mut Span, msg: &Message, path: &Path, status: u16) {
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    span.text("network.protocol.name", "sip");
    span.text("network.transport", path.transport.as_str());
    span.text("network.peer.address", &path.remote.ip().to_string());
    span.number("network.peer.port", path.remote.port().into());
    span.text("opensips.route.type", "request");
    span.text("sip.request.method", &text(msg.method_text()));
    span.text("sip.request.uri", &text(msg.request_uri()));
    span.text("sip.call_id", &text(msg.call_id().unwrap_or_default()));
    span.text("sip.cseq", &text(msg.value(HeaderName::CSeq).unwrap_or_default()));
    if status > 0 {
        span.number("sip.response.status_code", status.into());
    }
    if status >= 500 {
        span.failed(&format!("{status}"));
    }
}

/// Every wait of a call is a span.
struct Waits(Arc<OpenTelemetry>);

impl Observer for Waits {
    fn wants(&self, _: &Ctx, _: &MsgState) -> bool {
        false
    }
    fn script(&self, _: &mut Ctx, _: Seen<'_>) {}
    fn waits(&self, _: &mut Ctx, _: Waiting<'_>) {}
    fn message(&self, _: &mut Ctx, _: Way, _: &Path, _: &Bytes) {}

    fn waited(&self, ctx: &mut Ctx, waiting: Waiting<'_>, how: Ended) {
        if waiting.call_id.is_empty() || !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        let now = ctx.core.wall_us;
        let ms = ctx.core.now.0.saturating_sub(waiting.since.0);
        let trace = Trace::of(waiting.call_id);
        // Waits are known to the millisecond: rounding must not let one begin before its call.
        let call_began = ctx.local::<Calls>().open.get(waiting.call_id).map_or(0, |(began, ..)| *began);
        let began = now.saturating_sub(ms * 1000).max(call_began).min(now);
        let mut span = Span::new(&trace, waiting.what.to_string(), SpanKind::Client, began, now);
        let own = own_id(ctx);
        span.under_root(&trace, own);
        let sources = ctx.shared().sources();
        span.text("sip.call_id", &String::from_utf8_lossy(waiting.call_id));
        span.text("fermata.wait", waiting.what);
        if !waiting.detail.is_empty() {
            span.text("fermata.detail", &String::from_utf8_lossy(waiting.detail));
        }
        if waiting.loc != script::Loc::default() {
            span.text("code.filepath", sources.name(waiting.loc));
            span.number("code.lineno", sources.line_col(waiting.loc).0.into());
        }
        match how {
            Ended::Done(rc) => span.number("fermata.return_code", rc.into()),
            Ended::TimedOut => span.failed("no answer in time"),
            Ended::Cancelled => span.failed("given up"),
        }
        self.0.exporter.queue(span);
    }
}

#[cfg(test)]
mod tests;
