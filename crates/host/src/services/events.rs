//! Events: something happened, and event_routes, modules or other programs want to know.
//!
//! A module declares its events (`Hooks::raises`) and raises them with [`raise`]. Transports
//! (`event_datagram`, `event_rabbitmq` ...) are modules too: `Hooks::event_transport`.

use crate::call::Call;
use crate::context::shared::{Hooks, Shared};
use crate::ctx::{After, Ctx, MsgState};
use crate::language::arg::{Arg, Text};
use crate::language::format::Format;
use crate::language::loader::Loader;
use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::RwLock;
use script::ast::{self, Dialect, EventMode, RouteKind};
use script::{Diagnostic, Loc, RouteId, Task, Value};
use serde_json::Value as Json;
use std::sync::Arc;

/// A wait of a script was slower than a threshold allows: source, time, extra.
pub const THRESHOLD: &str = "E_CORE_THRESHOLD";
/// A worker has more to do than it can, or keeps up again: state, worker, delay, refused.
pub const OVERLOAD: &str = "E_CORE_OVERLOAD";
/// A stream connection ended: src_ip, src_port, dst_ip, dst_port, proto.
pub const TCP_DISCONNECT: &str = "E_CORE_TCP_DISCONNECT";

/// Events of one server: what scripts name at run time beyond that is raised, but not listed.
const MAX_EVENTS: usize = 1_000;

/// Events raised by routes of events are followed this deep.
const MAX_DEPTH: u32 = 8;
/// Subscriptions of one server; further ones are refused.
const MAX_SUBSCRIPTIONS: usize = 10_000;

/// Names and values of an event, in order; a value without name has an empty one.
#[derive(Clone, Debug, Default)]
pub struct EventParams(pub Arc<[(Bytes, Value)]>);

impl EventParams {
    pub fn find(&self, name: &[u8]) -> Option<Value> {
        self.0.iter().find(|(n, _)| &n[..] == name).map(|(_, value)| value.clone())
    }
}

impl<N: Into<Bytes>> FromIterator<(N, Value)> for EventParams {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(items: I) -> EventParams {
        EventParams(items.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: Bytes,
    pub params: EventParams,
}

impl Event {
    /// The parameters as JSON-RPC has them: an object, or a list where none has a name. `named`: under this name
    /// stands the event's own, before them.
    pub fn json(&self, named: Option<&str>) -> Json {
        let list = &self.params.0;
        let plain = !list.is_empty() && list.iter().all(|(name, _)| name.is_empty());
        let own = named.map(|key| (key, Json::from(String::from_utf8_lossy(&self.name))));
        if plain || (list.is_empty() && named.is_none()) {
            let values = list.iter().map(|(_, value)| json_of(value));
            return own.map(|(_, name)| name).into_iter().chain(values).collect();
        }
        let mut map = serde_json::Map::new();
        map.extend(own.map(|(key, name)| (key.to_owned(), name)));
        map.extend(list.iter().map(|(n, v)| (String::from_utf8_lossy(n).into_owned(), json_of(v))));
        Json::Object(map)
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Null | Value::Nought | Value::Failed => Json::Null,
        Value::Int(n) | Value::Num(_, n) => Json::from(*n),
        Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _) => {
            Json::from(String::from_utf8_lossy(text))
        }
    }
}

/// Carries events to other programs.
pub trait EventTransport: Send + Sync {
    /// The word before the colon of a socket ("udp", "rabbitmq").
    fn scheme(&self) -> &'static str;
    /// Checks what follows the colon; the error is what a user should read.
    fn check(&self, address: &str) -> Result<(), String>;
    /// Sends without waiting; failures are the transport's to log and count.
    fn send(&self, ctx: &mut Ctx, address: &str, event: &Event);
}

/// Code of this server that wants to know.
pub type Listener = Arc<dyn Fn(&mut Ctx, &Event) + Send + Sync>;

/// An event_route and how it runs.
#[derive(Clone, Copy, Debug)]
pub struct EventRoute {
    pub route: RouteId,
    pub mode: EventMode,
}

enum Receiver {
    Socket { socket: String, transport: Arc<dyn EventTransport> },
    Listener(Listener),
}

struct Subscription {
    id: u64,
    event: Bytes,
    receiver: Receiver,
    /// Unix milliseconds; `None`: never ends.
    expires_ms: Option<u64>,
}

/// What `subscribers_list` shows of one subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscriber {
    pub event: Bytes,
    pub socket: String,
    pub expires_ms: Option<u64>,
}

/// Events that are known, and who wants them. Shared by all workers.
#[derive(Default)]
pub struct Events {
    pub routes: RwLock<AHashMap<Bytes, EventRoute>>,
    /// Events by name: those of the core, of modules and of the script; what a script names only at run time comes
    /// behind them.
    names: RwLock<Vec<Bytes>>,
    /// Complete once modules are loaded.
    pub transports: Vec<Arc<dyn EventTransport>>,
    subscriptions: RwLock<Vec<Subscription>>,
    next_id: std::sync::atomic::AtomicU64,
}

/// An event that a module raises, for lists; a hook of [`Hooks::list`].
#[derive(Clone, Copy, Debug)]
struct Raised(&'static str);

/// Events that statements of the script name (`raise_event("E_X")`); a part of the loader.
#[derive(Clone, Debug, Default)]
pub struct ScriptEvents(pub Vec<Bytes>);

/// The name of an event as an argument: it is listed from the load on when it is constant, else once it was used.
#[derive(Clone, Debug)]
pub struct EventName(pub Bytes);

impl<M> Arg<M> for EventName {
    type Prepared = Format;
    const WHAT: &'static str = "the name of an event";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<M>,
    ) -> Result<Format, Diagnostic> {
        let format = <Text as Arg<M>>::prepare(arg, site, loader, module)?;
        if let Some(name) = format.constant() {
            loader.part::<ScriptEvents>().0.push(name.clone());
        }
        Ok(format)
    }

    fn eval(format: &Format, call: &mut Call<'_, M>) -> Result<EventName, i32> {
        let name = <Text as Arg<M>>::eval(format, call)?.0;
        if format.constant().is_none() {
            call.shared().events().declare(&name);
        }
        Ok(EventName(name))
    }
}

impl Hooks {
    /// The module raises these events.
    pub fn raises(&mut self, names: impl IntoIterator<Item = &'static str>) {
        self.list().extend(names.into_iter().map(Raised));
    }

    /// The module carries events to other programs.
    pub fn event_transport(&mut self, transport: Arc<dyn EventTransport>) {
        self.list().push(transport);
    }
}

impl Shared {
    pub fn events(&self) -> &Arc<Events> {
        self.part()
    }
}

impl Events {
    /// `script`: what the statements of the script name.
    pub(crate) fn new(
        hooks: &mut Hooks,
        routes: AHashMap<Bytes, EventRoute>,
        script: ScriptEvents,
    ) -> Events {
        let mut of_routes: Vec<Bytes> = routes.keys().cloned().collect();
        of_routes.sort_unstable();
        let events = Events {
            routes: RwLock::new(routes),
            transports: hooks.list::<Arc<dyn EventTransport>>().clone(),
            ..Events::default()
        };
        let raised = hooks.list::<Raised>().iter().map(|event| Bytes::from(event.0)).collect::<Vec<_>>();
        for name in raised.into_iter().chain(script.0).chain(of_routes) {
            events.declare(&name);
        }
        events
    }

    /// Where an event stands in the list, which is its id.
    pub fn id_of(&self, name: &[u8]) -> Option<usize> {
        self.names.read().iter().position(|n| n == name)
    }

    /// All names; their places are their ids.
    pub fn list(&self) -> Vec<Bytes> {
        self.names.read().clone()
    }

    /// Puts a name into the list unless it is there; false: the list is full.
    pub fn declare(&self, name: &Bytes) -> bool {
        if self.id_of(name).is_some() {
            return true;
        }
        let mut names = self.names.write();
        if names.len() >= MAX_EVENTS {
            return false;
        }
        if !names.contains(name) {
            names.push(name.clone());
        }
        true
    }

    /// Subscribes a socket (`udp:127.0.0.1:5051`); the same one again gets a new end. The error is
    /// what a user should read.
    pub fn subscribe(
        &self,
        event: Bytes,
        socket: &str,
        expires_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), String> {
        let (scheme, address) = socket.split_once(':').ok_or("a socket is written scheme:address")?;
        let transport = self.transports.iter().find(|t| t.scheme() == scheme).ok_or_else(|| {
            format!("no loaded module carries events over `{scheme}` (event_datagram, event_rabbitmq ...)")
        })?;
        transport.check(address)?;
        let mut list = self.subscriptions.write();
        list.retain(|s| s.expires_ms.is_none_or(|end| end > now_ms));
        let same = |s: &Subscription| {
            s.event == event
                && matches!(&s.receiver, Receiver::Socket { socket: other, .. } if other == socket)
        };
        list.retain(|s| !same(s));
        if list.len() >= MAX_SUBSCRIPTIONS {
            return Err(format!("there are {MAX_SUBSCRIPTIONS} subscriptions already"));
        }
        let receiver = Receiver::Socket { socket: socket.to_owned(), transport: transport.clone() };
        list.push(Subscription { id: self.id(), event, receiver, expires_ms });
        Ok(())
    }

    /// Ends the subscription of a socket; false when there was none.
    pub fn unsubscribe(&self, event: &[u8], socket: &str) -> bool {
        let mut list = self.subscriptions.write();
        let before = list.len();
        list.retain(|s| {
            !(s.event == event
                && matches!(&s.receiver, Receiver::Socket { socket: other, .. } if other == socket))
        });
        list.len() < before
    }

    /// Calls `listener` on the worker that raises the event, until [`Events::unlisten`].
    pub fn listen(&self, event: Bytes, listener: Listener) -> u64 {
        let id = self.id();
        let receiver = Receiver::Listener(listener);
        self.subscriptions.write().push(Subscription { id, event, receiver, expires_ms: None });
        id
    }

    pub fn unlisten(&self, id: u64) {
        self.subscriptions.write().retain(|s| s.id != id);
    }

    /// Sockets that are subscribed now, those of one event or all.
    pub fn subscribers(&self, event: Option<&[u8]>, now_ms: u64) -> Vec<Subscriber> {
        let list = self.subscriptions.read();
        let live = list.iter().filter(|s| s.expires_ms.is_none_or(|end| end > now_ms));
        live.filter(|s| event.is_none_or(|event| s.event == event))
            .filter_map(|s| match &s.receiver {
                Receiver::Socket { socket, .. } => Some(Subscriber {
                    event: s.event.clone(),
                    socket: socket.clone(),
                    expires_ms: s.expires_ms,
                }),
                Receiver::Listener(_) => None,
            })
            .collect()
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// Somebody wants this event: whoever would have to compute its values may ask first.
    pub fn wanted(&self, event: &[u8]) -> bool {
        self.routes.read().contains_key(event) || self.subscriptions.read().iter().any(|s| s.event == event)
    }
}

/// How deep events of this worker are nested now.
#[derive(Default)]
struct Depth(u32);

/// Tells everyone who wants it. Event routes run at once, in 2.1 over the current message, later
/// over one of their own; what they wait for is theirs.
pub fn raise(ctx: &mut Ctx, name: impl Into<Bytes>, params: EventParams) {
    let name = name.into();
    let shared = ctx.core.shared.clone();
    if !shared.events().wanted(&name) {
        return;
    }
    if ctx.local::<Depth>().0 >= MAX_DEPTH {
        let name = String::from_utf8_lossy(&name);
        return crate::warn!("core", "event {name} was dropped: events raise events {MAX_DEPTH} deep");
    }
    ctx.local::<Depth>().0 += 1;
    let event = Event { name, params };
    let _ = ctx.catch(|ctx| send(ctx, &shared, &event));
    let found = shared.events().routes.read().get(&event.name).copied();
    // While the server ends nothing new begins.
    if let Some(found) = found.filter(|_| !ctx.core.draining) {
        run_route(ctx, &shared, found, &event);
    }
    ctx.local::<Depth>().0 -= 1;
}

fn send(ctx: &mut Ctx, shared: &Shared, event: &Event) {
    enum Target {
        Socket(String, Arc<dyn EventTransport>),
        Listener(Listener),
    }
    let now_ms = ctx.core.wall_us / 1000;
    // Receivers may subscribe or end subscriptions: none runs under the lock.
    let targets: Vec<Target> = {
        let list = shared.events().subscriptions.read();
        let live = list.iter().filter(|s| s.event == event.name);
        live.filter(|s| s.expires_ms.is_none_or(|end| end > now_ms))
            .map(|s| match &s.receiver {
                Receiver::Socket { socket, transport } => Target::Socket(socket.clone(), transport.clone()),
                Receiver::Listener(listener) => Target::Listener(listener.clone()),
            })
            .collect()
    };
    for target in targets {
        match target {
            Target::Socket(socket, transport) => {
                let address = socket.split_once(':').map_or("", |(_, address)| address);
                transport.send(ctx, address, event);
            }
            Target::Listener(listener) => listener(ctx, event),
        }
    }
}

fn run_route(ctx: &mut Ctx, shared: &Shared, found: EventRoute, event: &Event) {
    let values = event.params.0.iter().map(|(_, value)| value.clone()).collect();
    let task = Task::with_params(shared.program(), found.route, values);
    let in_place = match found.mode {
        EventMode::Sync => true,
        EventMode::Async => false,
        EventMode::Unset => shared.dialect == Dialect::V21,
    };
    let mut state: Box<MsgState> = if in_place {
        ctx.state.fork(RouteKind::Event, task)
    } else {
        let mut state = crate::context::detached::detached_state(ctx, found.route, RouteKind::Event);
        state.task = task;
        state
    };
    state.ext.set(event.params.clone());
    state.after = After::Nothing;
    ctx.run(state);
}
