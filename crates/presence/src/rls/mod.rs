//! rls: one subscription to a list of users (RFC 4662, RFC 4826). The server subscribes to each of them, and tells the
//! watcher of all in one body.
//!
//! ```text
//! watcher ──SUBSCRIBE list──▶ rls ──SUBSCRIBE user──▶ presence server      (one each, by pua)
//! watcher ◀──NOTIFY rlmi──── rls ◀──NOTIFY user──── presence server        (rows of rls_presentity between)
//! ```

mod body;
mod documents;
mod notify;
mod subscribe;
mod upkeep;

use crate::presence::Presence;
use crate::presence::sql::Tables;
use crate::presence::table::Table;
use crate::pua::Pua;
use crate::xcap::Xcap;
use bytes::Bytes;
use host::db::{Name, Pool, Proof};
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::shared::Hooks;
use host::stats::Stats;
use host::{Call, Ctx, Registrar, Routes};
use serde_json::json;
use sip::Uri;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;

pub struct Rls {
    xcap: Option<Arc<Xcap>>,
    presence: Option<Arc<Presence>>,
    pua: Option<Arc<Pua>>,
    /// Of presence's kind; `active_watchers` is the table of subscriptions to lists.
    tables: Tables,
    /// What the users of lists told last.
    states: Name,
    table: Table,
    /// The table was read.
    loaded: watch::Sender<bool>,
    /// Seconds.
    clean_period: u64,
    waitn: u64,
    max_expires: u32,
    to_presence_code: i32,
    /// As in Event.
    events: Vec<String>,
    presence_server: Option<Bytes>,
    contact_user: String,
    /// Our address of 2.1.
    server_address: Option<String>,
    xcap_root: Option<String>,
}

impl Default for Rls {
    fn default() -> Rls {
        Rls {
            xcap: None,
            presence: None,
            pua: None,
            tables: Tables { active_watchers: "rls_watchers".into(), ..Tables::default() },
            states: "rls_presentity".into(),
            table: Table::default(),
            loaded: watch::Sender::new(false),
            clean_period: 100,
            waitn: 50,
            max_expires: 7200,
            to_presence_code: 0,
            events: vec!["presence".into()],
            presence_server: None,
            contact_user: "rls".into(),
            server_address: None,
            xcap_root: None,
        }
    }
}

fn seconds(value: i64, default: u64) -> u64 {
    u64::try_from(value).ok().filter(|n| *n > 0).unwrap_or(default)
}

pub fn register(m: &mut Registrar<Rls>) {
    m.param_text("rlsubs_table", |s, v| Ok(s.tables.active_watchers = v.to_string().into()));
    m.param_text("rlpres_table", |s, v| Ok(s.states = v.to_string().into()));
    m.param_int("clean_period", |s, v| Ok(s.clean_period = seconds(v, 100)));
    m.param_int("waitn_time", |s, v| Ok(s.waitn = seconds(v, 50)));
    m.param_int("max_expires", |s, v| Ok(s.max_expires = seconds(v, 7200) as u32));
    m.param_int("to_presence_code", |s, v| Ok(s.to_presence_code = v as i32));
    m.param_text("rls_event", |s, v| Ok(s.events.push(v.into())));
    m.param_text("presence_server", |s, v| {
        let uri = Bytes::from(v.to_owned());
        Uri::parse(&uri).map_err(|error| error.to_string())?;
        Ok(s.presence_server = Some(uri))
    });
    m.param_text("contact_user", |s, v| Ok(s.contact_user = v.into()));
    m.param_text("server_address", |s, v| Ok(s.server_address = Some(v.into())));
    m.param_text("xcap_root", |s, v| Ok(s.xcap_root = Some(v.into())));
    m.ignored(&["hash_size"], "the table grows by itself");
    m.ignored(
        &["db_url", "xcap_table", "integrated_xcap_server"],
        "those of module xcap count, as since 1.11",
    );
    m.function("rls_handle_subscribe", Routes::REQUEST, subscribe::handle);
    m.function("rls_handle_notify", Routes::REQUEST, notify::handle);
    m.command("rls:update_subscriptions rls_update_subscriptions", "reads the lists of a user again", update)
        .takes("presentity_uri");
    m.needs(&["tm", "signaling", "xcap", "pua", "presence"]);
    m.init(init);
    m.ready(ready);
    m.start(|call| {
        if call.core.worker == 0 {
            upkeep::load(call.ctx, &call.module.clone());
        }
    });
    m.timer(1000, upkeep::tick);
    m.stop(upkeep::stop);
}

fn init(s: &mut Rls, loader: &mut Loader) -> Result<(), String> {
    (s.xcap, s.presence, s.pua) = (loader.module(), loader.module(), loader.module());
    if s.xcap.as_ref().is_some_and(|xcap| !xcap.integrated) && s.xcap_root.is_none() {
        return Err("xcap_root is not set, and module xcap has no integrated_xcap_server".into());
    }
    Ok(())
}

fn ready(module: &Arc<Rls>, hooks: &mut Hooks, _: &Stats) {
    let Some(db) = module.xcap.as_ref().and_then(|xcap| xcap.database()) else { return };
    for (table, version) in [(&module.tables.active_watchers, 2), (&module.states, 1)] {
        hooks.proves(Proof::of_version("rls", db, table, version));
    }
}

impl Rls {
    fn pool(&self, ctx: &mut Ctx) -> Option<Rc<dyn Pool>> {
        self.xcap.as_ref()?.pool(ctx)
    }
}

/// Unix seconds of this step.
fn now_s(ctx: &Ctx) -> i64 {
    (ctx.core.wall_us / 1_000_000) as i64
}

/// rls:update_subscriptions
fn update(call: &mut Call<Rls>, params: &MiParams) -> MiResult {
    let uri = Bytes::from(params.need("presentity_uri", 0)?);
    if uri.is_empty() {
        return Err(MiError::new(404, "Empty presentity URI"));
    }
    let Ok(uri) = Uri::parse(&uri) else {
        return Err(MiError {
            data: Some("Command handler returned null".into()),
            ..MiError::new(-32000, "Server error")
        });
    };
    subscribe::update_of(call, &uri.user.unwrap_or_default(), &uri.host);
    Ok(json!("OK"))
}
