//! presence: a server of event packages (RFC 6665, 3903): PUBLISH brings states, SUBSCRIBE asks for them, NOTIFY tells.
//!
//! ```text
//!  PUBLISH ──► turn of (user, package) ──► database ──► body for all ──► workers that own the subscriptions ──► NOTIFYs
//!  SUBSCRIBE ─►        "               ──► rules, states ──► table ──► the watcher's first NOTIFY
//! ```
//! What was published lies in the database alone; subscriptions lie in memory, sharded by whom they watch, and are written
//! from time to time (`fallback2db`: at once, so that servers share them). A NOTIFY leaves from the worker that owns its
//! Call-ID, a few at a time.

pub mod body;
pub mod documents;
mod manage;
mod mix;
pub mod notify;
pub mod own;
pub mod packages;
mod publish;
pub mod sql;
pub mod subscribe;
pub mod subscription;
pub mod table;
mod upkeep;
pub mod winfo;

use host::db::{Db, Proof, Query};
use host::load::Loader;
use host::shared::Hooks;
use host::stats::Stats;
use host::{Ctx, Registrar, Routes, Var};
use packages::{BAD_EVENT, BAD_REQUEST, Packages, Refusal};
use script::ast::Dialect;
use sip::{HeaderName, Message};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use table::{Presentities, Table, Turns};

pub use manage::refresh_watchers;

/// Raised for every PUBLISH that is answered here.
const PUBLISHED: &str = "E_PRESENCE_PUBLISH";
/// Raised by `presence:expose`.
const EXPOSED: &str = "E_PRESENCE_EXPOSED";

pub struct Presence {
    url: Option<String>,
    db: Option<Db>,
    tables: sql::Tables,
    pub packages: Packages,
    table: Table,
    presentities: Presentities,
    turns: Turns,
    /// Memory has what the database had at the start.
    loaded: tokio::sync::watch::Sender<bool>,
    fallback: bool,
    sphere_check: bool,
    mix_dialog_presence: bool,
    notify_offline_body: bool,
    end_on_timeout: bool,
    fix_remote_target: bool,
    /// Seconds.
    expires_offset: u32,
    max_expires_subscribe: u32,
    max_expires_publish: u32,
    /// Seconds; 0 or less: never.
    clean_period: i64,
    db_update_period: i64,
    waiting_days: u32,
    contact_user: String,
    /// Our Contact, of 2.1.
    server_address: Option<String>,
    bla_text: Option<String>,
    bla_spec: Option<Var>,
    version: u32,
    /// Unix seconds; part of entity tags.
    started: AtomicI64,
    counter: AtomicU64,
    /// States that ended before this moment have been told.
    cleaned_until: AtomicI64,
    /// NOTIFYs without an answer.
    undelivered: std::sync::OnceLock<host::stats::Counter>,
}

impl Default for Presence {
    fn default() -> Presence {
        Presence {
            url: None,
            db: None,
            tables: sql::Tables::default(),
            packages: Packages::default(),
            table: Table::default(),
            presentities: Presentities::default(),
            turns: Turns::default(),
            loaded: tokio::sync::watch::Sender::new(false),
            fallback: false,
            sphere_check: false,
            mix_dialog_presence: false,
            notify_offline_body: false,
            end_on_timeout: true,
            fix_remote_target: true,
            expires_offset: 0,
            max_expires_subscribe: 3600,
            max_expires_publish: 3600,
            clean_period: 100,
            db_update_period: 100,
            waiting_days: 3,
            contact_user: "presence".into(),
            server_address: None,
            bla_text: None,
            bla_spec: None,
            version: 12,
            started: AtomicI64::new(0),
            counter: AtomicU64::new(0),
            cleaned_until: AtomicI64::new(0),
            undelivered: std::sync::OnceLock::new(),
        }
    }
}

fn or_default(value: i64) -> u32 {
    u32::try_from(value).ok().filter(|v| *v > 0).unwrap_or(3600)
}

pub fn register(m: &mut Registrar<Presence>) {
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("presentity_table", |s, v| Ok(s.tables.presentity = v.to_string().into()));
    m.param_text("active_watchers_table", |s, v| Ok(s.tables.active_watchers = v.to_string().into()));
    m.param_text("watchers_table", |s, v| Ok(s.tables.watchers = v.to_string().into()));
    m.param_int("clean_period", |s, v| Ok(s.clean_period = v));
    m.param_int("db_update_period", |s, v| Ok(s.db_update_period = v));
    m.param_int("expires_offset", |s, v| Ok(s.expires_offset = u32::try_from(v).unwrap_or(0)));
    m.param_int("max_expires_subscribe", |s, v| Ok(s.max_expires_subscribe = or_default(v)));
    m.param_int("max_expires_publish", |s, v| Ok(s.max_expires_publish = or_default(v)));
    m.param_text("contact_user", |s, v| Ok(s.contact_user = v.into()));
    m.param_text("server_address", |s, v| Ok(s.server_address = Some(v.into())));
    m.param_int("fallback2db", |s, v| Ok(s.fallback = v != 0));
    m.param_int("enable_sphere_check", |s, v| Ok(s.sphere_check = v != 0));
    m.param_int("waiting_subs_daysno", |s, v| {
        s.waiting_days = u32::try_from(v).ok().filter(|v| *v > 0).map_or(3, |v| v.min(30));
        Ok(())
    });
    m.param_int("mix_dialog_presence", |s, v| Ok(s.mix_dialog_presence = v != 0));
    m.param_text("bla_presentity_spec", |s, v| Ok(s.bla_text = Some(v.into())));
    m.param_int("bla_fix_remote_target", |s, v| Ok(s.fix_remote_target = v != 0));
    m.param_int("notify_offline_body", |s, v| Ok(s.notify_offline_body = v != 0));
    m.param_int("end_sub_on_timeout", |s, v| Ok(s.end_on_timeout = v != 0));
    m.ignored(&["subs_htable_size", "pres_htable_size"], "the tables grow by themselves");
    m.ignored(
        &[
            "cluster_id",
            "cluster_federation_mode",
            "cluster_pres_events",
            "cluster_be_active_shtag",
            "cluster_sharing_tags",
        ],
        "presence servers share what they know through their database (fallback2db), not through clusterer",
    );
    m.function("handle_publish", Routes::REQUEST, publish::handle);
    m.function("handle_subscribe", Routes::REQUEST, subscribe::handle);
    m.needs(&["tm", "signaling"]);
    manage::register(m);
    m.init(init);
    m.ready(ready);
    m.start(|call| {
        if call.core.worker == 0 {
            let (module, now) = (call.module.clone(), now_s(call.ctx));
            module.started.store(now, std::sync::atomic::Ordering::Relaxed);
            upkeep::load(call.ctx, &module);
        }
    });
    m.stop(upkeep::stop);
    m.timer(1000, upkeep::tick);
}

fn init(s: &mut Presence, loader: &mut Loader) -> Result<(), String> {
    // Without its own URL it is only there for other modules.
    if let Some(url) = s.url.as_deref().filter(|url| !url.trim().is_empty()) {
        s.db = Some(loader.db(url)?);
    }
    if loader.dialect == Dialect::V21 {
        s.version = 11;
    }
    if let Some(text) = &s.bla_text {
        let spec = script::parse_variable(&text.clone().into(), script::Loc::default());
        s.bla_spec = Some(spec.and_then(|spec| loader.var(&spec)).map_err(|d| d.message)?);
    }
    Ok(())
}

fn ready(module: &Arc<Presence>, hooks: &mut Hooks, stats: &Stats) {
    let _ = module.undelivered.set(stats.counter("presence", "undelivered_notifies"));
    hooks.raises([PUBLISHED, EXPOSED]);
    let Some(db) = &module.db else { return };
    let tables = &module.tables;
    for (table, version) in
        [(&tables.presentity, 5), (&tables.active_watchers, module.version), (&tables.watchers, 4)]
    {
        hooks.proves(Proof::of_version("presence", db, table, version));
    }
}

/// Unix seconds of this step.
fn now_s(ctx: &Ctx) -> i64 {
    (ctx.core.wall_us / 1_000_000) as i64
}

/// Sends a refusal; -1.
pub fn refuse(ctx: &mut Ctx, module: &Presence, refusal: Refusal) -> i32 {
    if refusal == BAD_EVENT {
        let events = format!("Allow-Events: {}\r\n", module.packages.list());
        ctx.state.reply_headers.push(events.into());
    }
    host::reply::send(ctx, refusal.0, refusal.1.as_bytes());
    -1
}

/// Seconds that a request asks for; one that cannot be read is refused.
fn expires_of(msg: &Message, default: u32) -> Result<u32, Refusal> {
    match msg.header(HeaderName::Expires) {
        None => Ok(default),
        Some(_) => msg.expires().ok_or(BAD_REQUEST),
    }
}

/// Writes beside everything else; failures are logged.
fn write(ctx: &mut Ctx, module: &Presence, query: Query) {
    let Some(db) = &module.db else { return };
    db.spawn(ctx, "presence", query, |_, result| {
        if let Err(error) = result {
            host::error!("presence", "a table was not written: {error}");
        }
    });
}
