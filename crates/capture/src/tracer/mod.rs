//! tracer: copies of SIP messages to databases, HEP servers and SIP addresses, of single messages, transactions or whole
//! calls. What is traced is what passes the network (`Wire`), so retransmissions and messages of this server are there.

mod commands;
mod targets;

use bytes::Bytes;
use host::shared::{Hooks, Listen};
use host::stats::Stats;
use host::watch::{Moment, OnWire, Told, Wire};
use host::{Call, Checked, Ctx, Named, Registrar, Routes, Text};
use parking_lot::RwLock;
use script::{Diagnostic, Loc};
use sip::{HeaderName, Message, Method, Transport};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use targets::{Copied, Direction};
pub use targets::{Target, siptrace_target};
use transaction::{Path, TxnId};

/// Calls that one worker traces at one time; further ones are traced for their first transaction.
const MAX_CALLS: usize = 100_000;

pub struct Tracer {
    on: AtomicBool,
    /// As they are written, until `init` knows the other modules.
    written: Vec<(String, String)>,
    ids: Vec<Arc<TraceId>>,
    /// Those that management made.
    dynamic: RwLock<Vec<Arc<Dynamic>>>,
    local: Option<(Transport, SocketAddr)>,
    has_dialog: bool,
    hep: Option<Arc<crate::proto_hep::ProtoHep>>,
    told: AtomicBool,
}

impl Default for Tracer {
    fn default() -> Tracer {
        Tracer {
            on: AtomicBool::new(true),
            written: Vec::new(),
            ids: Vec::new(),
            dynamic: RwLock::default(),
            local: None,
            has_dialog: false,
            hep: None,
            told: AtomicBool::new(false),
        }
    }
}

/// A name of `trace_id` and where its copies go.
pub struct TraceId {
    name: String,
    on: AtomicBool,
    targets: Vec<Target>,
}

/// Made by `tracer:start`: follows requests that fit.
pub struct Dynamic {
    id: Arc<TraceId>,
    filters: Vec<Filter>,
    scope: Scope,
    sip: bool,
}

enum Filter {
    Caller(String),
    Callee(String),
    Ip(std::net::IpAddr),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Message,
    Transaction,
    Dialog,
}

/// Which side of a transaction or call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sides {
    Both,
    Caller,
    Callee,
}

/// One order to copy.
pub struct Order {
    pub id: Arc<TraceId>,
    pub sides: Sides,
    pub attrs: Option<Bytes>,
    pub correlation: Option<Bytes>,
    /// Tag of the caller, who is on the caller's side all along the call.
    pub caller: Bytes,
}

/// Orders for a message or a transaction.
#[derive(Clone, Default)]
struct Orders(Vec<Arc<Order>>);

/// Calls that this worker traces, by Call-ID.
#[derive(Default)]
struct Calls(HashMap<Bytes, TracedCall>);

struct TracedCall {
    orders: Vec<Arc<Order>>,
    answered: bool,
}

/// "[name] rest" of `trace_id` and `hep_id`.
pub fn named(text: &str) -> Result<(&str, &str), String> {
    let rest = text.trim().strip_prefix('[').ok_or("it begins with [name]")?;
    let (name, rest) = rest.split_once(']').ok_or("`]` is missing after the name")?;
    match name.trim() {
        "" => Err("the name is empty".to_string()),
        name => Ok((name, rest.trim())),
    }
}

/// The address of ours that a message came to, or leaves from.
pub fn own_address(ctx: &Ctx, path: &Path) -> SocketAddr {
    let shared = ctx.shared();
    let listen: Option<&Listen> = shared.sockets.get(usize::from(path.socket));
    let mut addr = listen.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |listen| listen.addr);
    if let (true, Some(ip)) = (addr.ip().is_unspecified(), shared.local_address(path.local)) {
        addr.set_ip(ip);
    }
    addr
}

/// `[protocol:]address[:port]` of `trace_local_ip`.
pub fn local_address(text: &str) -> Result<(Transport, SocketAddr), String> {
    let (transport, rest) = match text.split_once(':') {
        Some((word, rest)) if Transport::parse(word.as_bytes()).is_some() => {
            (Transport::parse(word.as_bytes()).unwrap_or(Transport::Udp), rest)
        }
        _ => (Transport::Udp, text),
    };
    let addr =
        rest.parse().or_else(|_| rest.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, 5060)));
    Ok((transport, addr.map_err(|_| format!("`{text}` is no [protocol:]address[:port]"))?))
}

impl TraceId {
    pub fn named(name: &str, targets: Vec<Target>) -> Arc<TraceId> {
        Arc::new(TraceId { name: name.to_string(), on: AtomicBool::new(true), targets })
    }
}

/// For `siptrace`, which has one target and does the same.
impl Tracer {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn set_on(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// One `trace_id`, before `init`.
    pub fn write_id(&mut self, text: &str) -> Result<(), String> {
        let (name, rest) = named(text)?;
        self.written.push((name.to_string(), rest.to_string()));
        Ok(())
    }

    /// The driver that a `trace_id` needs.
    pub fn driver(&self) -> Option<String> {
        self.written.iter().find_map(|(_, text)| host::db::driver_of(targets::uri_of(text)?))
    }

    pub fn has_ids(&self) -> bool {
        !self.written.is_empty()
    }

    pub fn set_local(&mut self, local: (Transport, SocketAddr)) {
        self.local = Some(local);
    }

    pub fn set_targets(
        &mut self,
        id: Arc<TraceId>,
        has_dialog: bool,
        hep: Option<Arc<crate::proto_hep::ProtoHep>>,
    ) {
        (self.ids, self.has_dialog, self.hep) = (vec![id], has_dialog, hep);
    }

    /// The one that `set_targets` set.
    pub fn only_id(&self) -> Arc<TraceId> {
        self.ids[0].clone()
    }
}

pub fn register(m: &mut Registrar<Tracer>) {
    m.param_int("trace_on", |m, n| Ok(m.on.store(n != 0, Ordering::Relaxed)));
    m.param_text("trace_local_ip", |m, text| {
        m.local = Some(local_address(text)?);
        Ok(())
    });
    m.param_text("trace_id", |m, text| m.write_id(text));
    m.ignored(
        &["syslog_default_facility", "syslog_default_level", "file_mode"],
        "copies go to no files and no syslog",
    );
    m.asks_for(Tracer::driver);
    m.init(init);
    let routes =
        Routes::REQUEST.and(Routes::FAILURE).and(Routes::ON_REPLY).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("trace", routes, trace);
    commands::register(m);
    m.ready(ready);
}

pub fn init(m: &mut Tracer, loader: &mut host::Loader) -> Result<(), String> {
    m.has_dialog = loader.is_loaded("dialog");
    m.hep = loader.module::<crate::proto_hep::ProtoHep>();
    let mut ids: Vec<(String, Vec<Target>)> = Vec::new();
    for (name, text) in &m.written {
        let target =
            Target::parse(text, m.hep.as_ref(), loader).map_err(|why| format!("trace_id [{name}]: {why}"))?;
        match ids.iter_mut().find(|(known, _)| known == name) {
            Some((_, targets)) => targets.push(target),
            None => ids.push((name.clone(), vec![target])),
        }
    }
    let made = |(name, targets)| Arc::new(TraceId { name, on: AtomicBool::new(true), targets });
    m.ids = ids.into_iter().map(made).collect();
    Ok(())
}

pub fn ready(module: &Arc<Tracer>, hooks: &mut Hooks, _: &Stats) {
    let m = module.clone();
    hooks.watch.on(Moment::RequestIn, move |ctx, _| m.request_in(ctx));
    hooks.watch.told(Told::Created, |ctx, seen| {
        let orders = ctx.state.ext.find::<Orders>().cloned();
        if let (Some(txn), Some(orders)) = (seen.txn, orders)
            && let Some(ext) = ctx.ext_of(txn)
        {
            ext.set(orders);
        }
    });
    hooks.watch.told(Told::Ended, |ctx, _| call_may_have_ended(ctx));
    let m = module.clone();
    hooks.watch.tap(Wire::Matched, move |ctx, passing| m.passed(ctx, passing, Direction::In));
    let m = module.clone();
    hooks.watch.tap(Wire::Sent, move |ctx, passing| m.passed(ctx, passing, Direction::Out));
}

const NO_SCOPE: &str = "the scope is m, t or d (sessions of b2b_logic are not traced as one)";

impl Scope {
    /// By its first letter.
    fn parse(text: &[u8]) -> Option<Scope> {
        match text.first().map(u8::to_ascii_lowercase)? {
            b'm' => Some(Scope::Message),
            b't' => Some(Scope::Transaction),
            b'd' => Some(Scope::Dialog),
            _ => None,
        }
    }
}

/// A `trace_id` of the configuration.
struct IdName;

impl Named<Tracer> for IdName {
    const WHAT: &'static str = "a trace_id";

    fn check(text: &[u8], _: &mut host::Loader, module: &Tracer) -> Result<(), Diagnostic> {
        if module.ids.iter().any(|id| id.name.as_bytes() == text) {
            return Ok(());
        }
        let name = String::from_utf8_lossy(text);
        let error = Diagnostic::error(Loc::default(), format!("there is no trace_id `{name}`"));
        let names: Vec<&str> = module.ids.iter().map(|id| id.name.as_str()).collect();
        Err(error.hint(format!("modparam(\"tracer\", \"trace_id\", ...) declares: {}", names.join(", "))))
    }
}

/// How much of a call is traced.
struct ScopeName;

impl Named<Tracer> for ScopeName {
    const WHAT: &'static str = "a scope: m, t, d";

    fn check(text: &[u8], _: &mut host::Loader, _: &Tracer) -> Result<(), Diagnostic> {
        let error = || Diagnostic::error(Loc::default(), NO_SCOPE);
        Scope::parse(text).map(drop).ok_or_else(error)
    }
}

/// trace(trace_id, [scope], [type], [trace_attrs], [flags], [correlation_id])
fn trace(
    call: &mut Call<Tracer>,
    id: Checked<IdName>,
    scope: Option<Checked<ScopeName>>,
    kinds: Option<Text>,
    attrs: Option<Text>,
    flags: Option<Text>,
    correlation: Option<Text>,
) -> bool {
    let module = call.module.clone();
    let (id, scope) = (Text((*id).clone()), scope.map(|scope| Text((*scope).clone())));
    trace_by(&module, call.ctx, (id, scope, kinds, attrs), flags, correlation)
}

/// What `trace` and, in 2.2 to 2.4, `sip_trace` do. First: trace_id, scope, types, attributes.
pub fn trace_by(
    module: &Tracer,
    ctx: &mut Ctx,
    (id, scope, kinds, attrs): (Text, Option<Text>, Option<Text>, Option<Text>),
    flags: Option<Text>,
    correlation: Option<Text>,
) -> bool {
    let name = id.str().into_owned();
    let Some(id) = module.ids.iter().find(|known| known.name == name).cloned() else {
        host::error!("tracer", "trace: there is no trace_id `{name}`");
        return false;
    };
    let scope = match scope.as_ref().map(|scope| Scope::parse(scope)) {
        None => module.widest(),
        Some(Some(scope)) => scope,
        Some(None) => {
            host::error!("tracer", "trace: {NO_SCOPE}");
            return false;
        }
    };
    let kinds = kinds.map(|kinds| kinds.str().to_ascii_lowercase());
    if !module.copies_sip(kinds.as_deref()) {
        return true;
    }
    let has = |letter: u8| flags.as_ref().is_some_and(|flags| flags.0.contains(&letter));
    let sides = match (has(b'C'), has(b'c')) {
        (true, false) => Sides::Caller,
        (false, true) => Sides::Callee,
        _ => Sides::Both,
    };
    let (attrs, correlation) = (attrs.map(|t| t.0), correlation.map(|t| t.0));
    let caller = ctx.state.msg.from_tag().unwrap_or_default();
    module.begin(ctx, Order { id, sides, attrs, correlation, caller }, scope);
    true
}

impl Tracer {
    /// The widest scope that the loaded modules allow. Transactions are always there.
    fn widest(&self) -> Scope {
        if self.has_dialog { Scope::Dialog } else { Scope::Transaction }
    }

    /// Whether a list of types ("sip|xlog") has SIP messages; nothing else is copied.
    fn copies_sip(&self, kinds: Option<&str>) -> bool {
        let Some(kinds) = kinds else { return true };
        let mut kinds = kinds.split('|').map(str::trim);
        if kinds.clone().any(|kind| kind != "sip") && !self.told.swap(true, Ordering::Relaxed) {
            host::warn!("tracer", "only SIP messages are traced: xlog and rest are not");
        }
        kinds.any(|kind| kind == "sip")
    }

    /// Copies the current message, and what belongs to it.
    pub fn begin(&self, ctx: &mut Ctx, order: Order, scope: Scope) {
        let order = Arc::new(order);
        let (msg, path) = (ctx.state.msg.clone(), ctx.state.source);
        self.copy(ctx, std::slice::from_ref(&order), &msg, path, Direction::In);
        if scope == Scope::Message {
            return;
        }
        follow(ctx, &order);
        if scope == Scope::Dialog && self.has_dialog {
            let id = msg.call_id().unwrap_or_default();
            let id = Bytes::copy_from_slice(&id);
            let calls = &mut ctx.local::<Calls>().0;
            if calls.len() < MAX_CALLS || calls.contains_key(&id) {
                let call =
                    calls.entry(id).or_insert_with(|| TracedCall { orders: Vec::new(), answered: false });
                call.orders.push(order);
            } else {
                host::warn!(
                    "tracer",
                    "{MAX_CALLS} calls are traced: this one is for its first transaction only"
                );
            }
        }
    }

    /// A request of a call that is traced, or one that management wants to see.
    fn request_in(&self, ctx: &mut Ctx) {
        let dynamic = self.dynamic.read();
        let wanted: Vec<_> = dynamic.iter().filter(|d| d.sip && d.fits(ctx)).cloned().collect();
        drop(dynamic);
        let msg = ctx.state.msg.clone();
        let orders = {
            let calls = &ctx.local::<Calls>().0;
            let id = if calls.is_empty() { None } else { msg.call_id() };
            id.and_then(|id| calls.get(&id)).map(|call| call.orders.clone()).unwrap_or_default()
        };
        if !orders.is_empty() {
            let path = ctx.state.source;
            self.copy(ctx, &orders, &msg, path, Direction::In);
            orders.iter().for_each(|order| follow(ctx, order));
        }
        for Dynamic { id, scope, .. } in wanted.iter().map(|d| &**d) {
            if orders.iter().any(|order| Arc::ptr_eq(&order.id, id)) {
                continue;
            }
            let caller = msg.from_tag().unwrap_or_default();
            let order = Order { id: id.clone(), sides: Sides::Both, attrs: None, correlation: None, caller };
            self.begin(ctx, order, *scope);
        }
    }

    /// Something of a transaction came, or something leaves.
    fn passed(&self, ctx: &mut Ctx, passing: &mut OnWire, direction: Direction) {
        let of_txn = |ctx: &mut Ctx, txn: TxnId| ctx.ext_of(txn)?.find::<Orders>().cloned();
        let orders = passing.txn.and_then(|txn| of_txn(ctx, txn));
        // Stateless replies and ACKs that are passed on have none: their message knows.
        let here = direction == Direction::Out && passing.txn.is_none();
        let orders = orders.or_else(|| ctx.state.ext.find::<Orders>().filter(|_| here).cloned());
        let Some(Orders(orders)) = orders else { return };
        let Ok(msg) = Message::parse(passing.bytes.clone()) else { return };
        if direction == Direction::Out
            && (200..300).contains(&msg.status())
            && msg.cseq_parts().is_some_and(|(_, method)| *method == b"INVITE"[..])
            && let Some(id) = msg.call_id()
            && let Some(call) = ctx.local::<Calls>().0.get_mut(&id)
        {
            call.answered = true;
        }
        self.copy(ctx, &orders, &msg, passing.path, direction);
    }

    /// Hands one message to every target of these orders.
    fn copy(&self, ctx: &mut Ctx, orders: &[Arc<Order>], msg: &Message, path: Path, direction: Direction) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let own = own_address(ctx, &path);
        let (mut transport, mut from, mut to) = (path.transport, path.remote, own);
        if direction == Direction::Out {
            (from, to) = (own, path.remote);
            if let Some((protocol, addr)) = self.local {
                (transport, from) = (protocol, addr);
            }
        }
        for order in orders.iter().filter(|order| order.id.on.load(Ordering::Relaxed)) {
            if !order.sides.has(msg, direction, &order.caller) {
                continue;
            }
            let copied = Copied {
                msg,
                from,
                to,
                from_transport: transport,
                to_transport: path.transport,
                direction,
                attrs: order.attrs.clone(),
                correlation: order.correlation.clone(),
            };
            order.id.targets.iter().for_each(|target| target.take(ctx, self.hep.as_ref(), &copied));
        }
    }
}

impl Sides {
    /// Requests of the caller come in on its side and leave on the callee's, replies to them the other way round.
    fn has(self, msg: &Message, direction: Direction, caller: &[u8]) -> bool {
        let of_caller = msg.from_tag().is_some_and(|tag| *tag == *caller);
        let towards = (direction == Direction::In) == msg.is_request();
        match self {
            Sides::Both => true,
            Sides::Caller => of_caller == towards,
            Sides::Callee => of_caller != towards,
        }
    }
}

/// What the current message leads to is copied too.
pub fn follow(ctx: &mut Ctx, order: &Arc<Order>) {
    ctx.state.ext.entry::<Orders>().0.push(order.clone());
    if let Some(txn) = ctx.state.txn
        && let Some(ext) = ctx.ext_of(txn)
    {
        ext.entry::<Orders>().0.push(order.clone());
    }
}

/// What a transaction leads to is copied.
pub fn follow_in(ctx: &mut Ctx, txn: TxnId, order: &Arc<Order>) {
    if let Some(ext) = ctx.ext_of(txn) {
        ext.entry::<Orders>().0.push(order.clone());
    }
}

/// A transaction has ended, the current message is its request: a call ends with its BYE, or with an INVITE that nobody
/// answered.
fn call_may_have_ended(ctx: &mut Ctx) {
    let msg = ctx.state.msg.clone();
    let calls = &mut ctx.local::<Calls>().0;
    if calls.is_empty() || !matches!(msg.method(), Method::Bye | Method::Invite) {
        return;
    }
    let Some(id) = msg.call_id() else { return };
    let over = calls.get(&id).is_some_and(|call| match msg.method() {
        Method::Bye => true,
        _ => msg.to_tag().is_none() && !call.answered,
    });
    if over {
        calls.remove(&id);
    }
}

impl Dynamic {
    fn fits(&self, ctx: &Ctx) -> bool {
        let (msg, source) = (&ctx.state.msg, ctx.state.source.remote.ip());
        let user = |name: HeaderName, wanted: &str| {
            let party = if name == HeaderName::From { msg.from() } else { msg.to() };
            let uri = party.and_then(|party| sip::Uri::parse(&party.uri).ok());
            uri.and_then(|uri| uri.user).is_some_and(|user| *user == *wanted.as_bytes())
        };
        self.filters.iter().all(|filter| match filter {
            Filter::Caller(name) => user(HeaderName::From, name),
            Filter::Callee(name) => user(HeaderName::To, name),
            Filter::Ip(ip) => *ip == source,
        })
    }
}

#[cfg(test)]
mod tests;
