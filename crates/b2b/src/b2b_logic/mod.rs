//! b2b_logic: which ends speak with each other.
//!
//! ```text
//!  b2b_init_request ─► init.rs ──► session.rs ◄── sql.rs (rows), upkeep.rs (time), manage.rs (commands)
//!  requests.rs, replies.rs ─► route[script_req_route], route[script_reply_route] ─► functions.rs, wait.rs
//!  bridge.rs: another end in the place of one    acts.rs: what a session does to its ends
//! ```

mod acts;
mod bridge;
mod functions;
mod headers;
mod hold;
mod init;
mod join;
mod link;
mod manage;
mod notify;
mod refer;
mod replies;
mod requests;
mod session;
mod sql;
mod upkeep;
mod vars;
mod wait;

use crate::b2b_entities::owner::{DialogInfo, Notice, Owner, Turn};
use crate::b2b_entities::{check_route, route_of, size_of};
use crate::store::{self, Mode, Store};
use bytes::Bytes;
use host::db::Proof;
use host::format::Format;
use host::{Ctx, Loader, Registrar, Var};
use script::posix::{self, Case, Pattern};
use script::{Loc, RouteId};

/// Most headers that one parameter names.
const MAX_CUSTOM_HEADERS: usize = 64;

/// Those that pass in any case.
const ALWAYS: [&str; 9] = [
    "Max-Forwards",
    "Content-Type",
    "Supported",
    "Allow",
    "Proxy-Require",
    "Session-Expires",
    "Min-SE",
    "Require",
    "RSeq",
];

pub struct B2bl {
    /// Rows of the reference's table: keys are made of it.
    pub size: u32,
    pub custom_headers: Vec<Bytes>,
    pub custom_pattern: Option<Pattern>,
    pub contact_params: Vec<String>,
    pub init_callid_header: Option<String>,
    from_spec: Option<String>,
    pub from_var: Option<Var>,
    address: Option<String>,
    pub server_address: Option<Format>,
    pub contact_user: bool,
    /// Seconds; 0: for ever.
    pub max_duration: u32,
    /// Seconds.
    pub term_delay: u32,
    /// Seconds until a call that nobody answers is given up.
    pub setup_timeout: u32,
    pub early_update: bool,
    /// Seconds.
    pub cleanup_period: u32,
    pub store: Store,
    req_route: Option<String>,
    reply_route: Option<String>,
    pattern: Option<String>,
}

impl Default for B2bl {
    fn default() -> B2bl {
        B2bl {
            size: 1 << 10,
            custom_headers: Vec::new(),
            custom_pattern: None,
            contact_params: Vec::new(),
            init_callid_header: None,
            from_spec: None,
            from_var: None,
            address: None,
            server_address: None,
            contact_user: false,
            max_duration: 12 * 3600,
            term_delay: 0,
            setup_timeout: 60,
            early_update: false,
            cleanup_period: 100,
            store: Store::new("b2b_logic"),
            req_route: None,
            reply_route: None,
            pattern: None,
        }
    }
}

/// What the layer below tells.
pub static OWNER: Owner = Owner { module: "b2b_logic", notify, answered, lost };

fn notify(ctx: &mut Ctx, notice: Notice, turn: Turn) {
    let Some(module) = ctx.shared().module::<B2bl>() else { return turn.end(ctx) };
    match notice.what.is_request() {
        true => requests::came(ctx, &module, notice, turn),
        false => replies::came(ctx, &module, notice, turn),
    }
}

fn answered(ctx: &mut Ctx, notice: &Notice, dialog: DialogInfo) {
    let Some(module) = ctx.shared().module::<B2bl>() else { return };
    let at = (module.max_duration > 0).then(|| acts::later(ctx, module.max_duration.into()));
    let Some(s) = session::of(ctx, &notice.logic) else { return };
    if !s.bridging.own_lifetime {
        s.ends_at = at;
    }
    if let Some(id) = s.of_entity(&notice.entity, notice.kind).map(|end| end.id)
        && let Some(end) = s.end_mut(id)
    {
        end.dialog = Some(dialog);
    }
}

/// Nobody acknowledges: the call is over.
fn lost(ctx: &mut Ctx, notice: Notice, turn: Turn) {
    let key = notice.logic;
    if let Some(ends) = acts::read(ctx, &key, |s| s.bridge) {
        for id in ends {
            acts::hang_up(ctx, &key, id);
        }
        acts::close(ctx, &key);
    }
    turn.end(ctx);
}

fn number(name: &str, n: i64) -> Result<u32, String> {
    u32::try_from(n).map_err(|_| format!("{name} is a number of seconds"))
}

pub fn register(m: &mut Registrar<B2bl>) {
    params(m);
    m.needs(&["b2b_entities"]);
    functions::register(m);
    vars::register(m);
    manage::register(m);
    m.init(prepare);
    m.ready(|module, hooks, _| {
        if let Some(db) = &module.store.db {
            hooks.proves(Proof::of_version("b2b_logic", db, &module.store.table, 5));
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

fn params(m: &mut Registrar<B2bl>) {
    m.param_int("hash_size", |s, v| Ok(s.size = size_of("hash_size", v)?));
    m.param_int("cleanup_period", |s, v| {
        s.cleanup_period = number("cleanup_period", v)?;
        if s.cleanup_period == 0 { Err("cleanup_period is a number of seconds".into()) } else { Ok(()) }
    });
    m.param_text("script_req_route", |s, v| Ok(s.req_route = Some(v.into())));
    m.param_text("script_reply_route", |s, v| Ok(s.reply_route = Some(v.into())));
    m.param_text("custom_headers", |s, v| {
        let names = v.split([';', ',']).map(str::trim).filter(|name| !name.is_empty());
        let wanted = names.filter(|name| !ALWAYS.iter().any(|own| own.eq_ignore_ascii_case(name)));
        s.custom_headers = wanted.map(|name| name.to_string().into()).collect();
        match s.custom_headers.len() {
            ..=MAX_CUSTOM_HEADERS => Ok(()),
            _ => Err(format!("custom_headers names at most {MAX_CUSTOM_HEADERS} headers")),
        }
    });
    m.param_text("custom_headers_regexp", |s, v| Ok(s.pattern = Some(v.into())));
    m.param_text("custom_contact_header_params", |s, v| {
        let names = v.split([';', ',']).map(str::trim).filter(|name| !name.is_empty());
        Ok(s.contact_params = names.map(str::to_string).collect())
    });
    m.param_text("init_callid_hdr", |s, v| Ok(s.init_callid_header = Some(v.into())));
    m.param_text("b2bl_from_spec_param", |s, v| Ok(s.from_spec = Some(v.into())));
    m.param_text("server_address", |s, v| Ok(s.address = Some(v.into())));
    m.param_int("contact_user", |s, v| Ok(s.contact_user = v != 0));
    m.param_int("max_duration", |s, v| Ok(s.max_duration = number("max_duration", v)?));
    m.param_int("old_entity_term_delay", |s, v| Ok(s.term_delay = number("old_entity_term_delay", v)?));
    m.param_int("b2bl_th_init_timeout", |s, v| Ok(s.setup_timeout = number("b2bl_th_init_timeout", v)?));
    m.param_int("b2bl_early_update", |s, v| Ok(s.early_update = v != 0));
    crate::store_params!(m);
    m.ignored(
        &["script_scenario", "extern_scenario", "use_init_sdp"],
        "scenarios of XML files are gone since 3.2: routes say what they said",
    );
    m.ignored(&["cluster_id"], "calls are kept in a database, not copied to other nodes");
}

/// `/pattern/flags` or a pattern alone; `i` or nothing else is understood.
fn pattern_of(text: &str) -> Result<Pattern, String> {
    let (inner, flags) = match text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/')) {
        Some((inner, flags)) => (inner, flags),
        None => (text, ""),
    };
    let case = if flags.contains('i') { Case::Ignore } else { Case::Sensitive };
    posix::compile(inner.as_bytes(), case).map_err(|error| format!("custom_headers_regexp: {error}"))
}

fn prepare(s: &mut B2bl, loader: &mut Loader) -> Result<(), String> {
    for name in [&s.req_route, &s.reply_route].into_iter().flatten() {
        check_route(loader, name)?;
    }
    if let Some(text) = &s.pattern {
        s.custom_pattern = Some(pattern_of(text)?);
    }
    if let Some(text) = s.from_spec.clone() {
        let spec = script::parse_variable(&text.clone().into(), Loc::default());
        let var = spec.and_then(|spec| loader.var(&spec));
        s.from_var = Some(var.map_err(|d| format!("b2bl_from_spec_param: {}", d.message))?);
    }
    if let Some(text) = s.address.clone() {
        let format = Format::new(&text.into(), Loc::default(), loader);
        s.server_address = Some(format.map_err(|d| format!("server_address: {}", d.message))?);
    }
    s.store.init(loader)
}

impl B2bl {
    pub fn req_route(&self, ctx: &Ctx) -> Option<RouteId> {
        route_of(ctx, self.req_route.as_deref())
    }

    pub fn reply_route(&self, ctx: &Ctx) -> Option<RouteId> {
        route_of(ctx, self.reply_route.as_deref())
    }
}
