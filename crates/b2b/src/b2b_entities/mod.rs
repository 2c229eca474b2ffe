//! b2b_entities: dialogs in which this server is an end.
//!
//! ```text
//!  receive.rs   requests in, before the main route ─► script_req_route ─┐            ┌─► send.rs, answer.rs
//!  heard.rs     replies in ─────────────────────────► script_reply_route ┴─► owner ───┤
//!  owner.rs     who leads an entity, and the lane of its call                        └─► ua.rs: the script's own
//! ```
//! An entity lives on the worker that owns its Call-ID; both ends of a call live on one (`table.rs`).

pub mod answer;
mod auth;
pub mod entity;
pub mod heard;
mod manage;
pub mod owner;
pub mod receive;
pub mod send;
mod sql;
pub mod table;
pub mod ua;

use crate::store::{self, Mode, Store};
use bytes::Bytes;
use host::ctx::{After, MsgState};
use host::db::Proof;
use host::load::Loader;
use host::tm::branch::socket_names;
use host::{Ctx, Registrar};
use owner::Owner;
use script::ast::RouteKind;
use script::{RouteId, Task};
use std::rc::Rc;
use std::sync::Arc;
use table::{Keys, Moved};
use transaction::Path;

pub use sql::worker_of_logic;

/// Longest prefix of keys: a worker is found by what follows it (`sip::call_hash`).
const MAX_PREFIX: usize = 16;

pub struct B2be {
    pub keys: Keys,
    req_route: Option<String>,
    reply_route: Option<String>,
    pub store: Store,
    pub passthru_prack: bool,
    advertised: Option<Bytes>,
    pub ua_timeout: u32,
    /// Calls that are led by another worker than their Call-ID says.
    pub moved: Arc<Moved>,
}

impl Default for B2be {
    fn default() -> B2be {
        B2be {
            keys: Keys::default(),
            req_route: None,
            reply_route: None,
            store: Store::new("b2b_entities"),
            passthru_prack: false,
            advertised: None,
            ua_timeout: 43_200,
            moved: Arc::default(),
        }
    }
}

/// The real size of a table from its logarithm.
pub fn size_of(name: &str, n: i64) -> Result<u32, String> {
    match n {
        1..=20 => Ok(1 << n),
        _ => Err(format!("{name} is a number between 1 and 20, the logarithm of the size")),
    }
}

pub fn register(m: &mut Registrar<B2be>) {
    m.param_int("server_hsize", |s, v| Ok(s.keys.server_size = size_of("server_hsize", v)?));
    m.param_int("client_hsize", |s, v| Ok(s.keys.client_size = size_of("client_hsize", v)?));
    m.param_text("script_req_route", |s, v| Ok(s.req_route = Some(v.into())));
    m.param_text("script_reply_route", |s, v| Ok(s.reply_route = Some(v.into())));
    m.param_text("b2b_key_prefix", |s, v| {
        if v.is_empty() || v.len() > MAX_PREFIX {
            return Err(format!("b2b_key_prefix has 1 to {MAX_PREFIX} letters"));
        }
        Ok(s.keys.prefix = v.into())
    });
    m.param_int("passthru_prack", |s, v| Ok(s.passthru_prack = v != 0));
    m.param_text("advertised_contact", |s, v| Ok(s.advertised = Some(v.to_string().into())));
    m.param_int("ua_default_timeout", |s, v| match u32::try_from(v) {
        Ok(n) if n > 0 => Ok(s.ua_timeout = n),
        _ => Err("ua_default_timeout is a number of seconds".into()),
    });
    crate::store_params!(m);
    m.ignored(&["cluster_id", "replication_mode"], "calls are kept in a database, not copied to other nodes");
    m.needs(&["tm"]);
    ua::register(m);
    manage::register(m);
    m.init(init);
    m.ready(|module, hooks, _| {
        hooks.raises([ua::EVENT]);
        receive::ready(module, hooks);
        if let Some(db) = &module.store.db {
            hooks.proves(Proof::of_version("b2b_entities", db, &module.store.table, 2));
        }
    });
    m.start(|call| {
        let module = call.module.clone();
        if call.ctx.core.worker == 0 {
            sql::restore(call.ctx, &module);
        }
    });
    m.stop(|call| {
        let module = call.module.clone();
        if module.store.mode != Mode::None {
            store::at_end(call.ctx, &module);
        }
    });
}

fn init(s: &mut B2be, loader: &mut Loader) -> Result<(), String> {
    for name in [&s.req_route, &s.reply_route].into_iter().flatten() {
        check_route(loader, name)?;
    }
    s.store.init(loader)
}

/// A route that a parameter names must be there.
pub fn check_route(loader: &Loader, name: &str) -> Result<(), String> {
    loader.route(name).map(drop).map_err(|error| error.message)
}

/// A `route[name]` of the program as it is now.
pub fn route_of(ctx: &Ctx, name: Option<&str>) -> Option<RouteId> {
    ctx.shared().program().route(RouteKind::Request, Some(name?.as_bytes()))
}

impl B2be {
    pub fn req_route(&self, ctx: &Ctx) -> Option<RouteId> {
        route_of(ctx, self.req_route.as_deref())
    }

    pub fn reply_route(&self, ctx: &Ctx) -> Option<RouteId> {
        route_of(ctx, self.reply_route.as_deref())
    }
}

/// Modules that may lead entities which a database gives back.
fn owner_named(module: &[u8]) -> Option<&'static Owner> {
    [&ua::OWNER, &crate::b2b_logic::OWNER].into_iter().find(|owner| owner.module.as_bytes() == module)
}

/// Runs a route over a message, then `then` with the message as the route left it. The route may wait.
pub fn run_route(
    ctx: &mut Ctx,
    route: RouteId,
    mut state: Box<MsgState>,
    then: impl FnOnce(&mut Ctx, Box<MsgState>) + 'static,
) {
    state.task = Task::new(ctx.shared().program(), route);
    state.after = After::Then(Box::new(move |ctx, mut state, _| {
        apply_edits(ctx, &mut state);
        then(ctx, state);
    }));
    ctx.run(state);
}

/// The message with the changes that a script made to it.
pub fn apply_edits(ctx: &Ctx, state: &mut MsgState) {
    if state.edits.is_empty() {
        return;
    }
    let names = socket_names(ctx, &state.source);
    let bytes = sip::print_as_received(&state.msg, &state.edits, &names);
    match sip::Message::parse(bytes) {
        Ok(msg) => {
            state.msg = Rc::new(msg);
            state.edits = Default::default();
        }
        Err(_) => host::error!("b2b_entities", "changes of a script left no message: they are forgotten"),
    }
}

/// The Contact of this server where it is reached by this path.
pub fn contact_of_socket(ctx: &Ctx, path: Path, user: &[u8]) -> Bytes {
    let names = socket_names(ctx, &path);
    let transport = ctx.shared().sockets.get(usize::from(path.socket)).map(|socket| socket.transport);
    let mut out = b"sip:".to_vec();
    if !user.is_empty() {
        out.extend_from_slice(user);
        out.push(b'@');
    }
    out.extend_from_slice(&names.host);
    out.extend_from_slice(format!(":{}", names.port).as_bytes());
    if let Some(transport) = transport.filter(|t| *t != sip::Transport::Udp) {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(transport.as_str().as_bytes());
    }
    out.into()
}
