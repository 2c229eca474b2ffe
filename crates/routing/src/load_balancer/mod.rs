//! load_balancer: the destination with the most free capacity gets the call. Dialogs count themselves, so that what a
//! destination has left is known without asking it.
//!
//! `route.rs` chooses, `count.rs` knows how many calls there are, `data.rs` and `resources.rs` read the table. What is not
//! of this module alone is in `destinations`.

mod commands;
mod count;
mod data;
mod functions;
mod load;
mod probing;
mod resources;
mod route;
#[cfg(test)]
mod tests;

use crate::destinations::{BlacklistedSets, Codes, Pace, Probe, SharedStates};
use data::Data;
use host::Registrar;
use host::db::Db;
use host::load::Loader;
use host::shared::Hooks;
use host::stats::Stats;
use host::{Accepts, InParam, LoadError};
use modules::cached::Cached;
use modules::clusterer;
use script::ast::Dialect;
use std::sync::Arc;

const EVENT: &str = "E_LOAD_BALANCER_STATUS";
/// The version of the table (`opensips.version`).
const TABLE_VERSION: u32 = 3;

/// The module, shared by all workers.
pub struct LoadBalancer {
    url: Option<String>,
    db: Option<Db>,
    table: String,
    /// Tables of 2.1 have no attributes.
    old_table: bool,
    names: route::Names,
    data: Cached<Data>,
    probe: Probe,
    probing_interval: u64,
    good_codes: Codes,
    codes: Option<String>,
    verbose: bool,
    blacklists: Vec<BlacklistedSets>,
    cluster_id: i64,
    states: Arc<SharedStates>,
    cluster_tag: String,
    probes: Pace,
    refreshes: Pace,
    retries: Pace,
}

impl Default for LoadBalancer {
    fn default() -> LoadBalancer {
        let (method, from) = ("OPTIONS".into(), "sip:prober@localhost".into());
        LoadBalancer {
            url: None,
            db: None,
            table: "load_balancer".into(),
            old_table: false,
            names: route::Names::default(),
            data: Cached::default(),
            probe: Probe { method, from, max_forwards: None, socket: None },
            probing_interval: 30,
            good_codes: Codes::default(),
            codes: None,
            verbose: false,
            blacklists: Vec::new(),
            cluster_id: 0,
            states: Arc::default(),
            cluster_tag: String::new(),
            probes: Pace::default(),
            refreshes: Pace::default(),
            retries: Pace::default(),
        }
    }
}

pub fn register(m: &mut Registrar<LoadBalancer>) {
    m.needs(&["dialog"]);
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    m.param_text("db_table", |s, v| Ok(s.table = v.into()));
    m.param_int("probing_interval", |s, v| Ok(s.probing_interval = v.max(0) as u64));
    m.param_text("probing_method", |s, v| Ok(s.probe.method = v.into()));
    m.param_text("probing_from", |s, v| Ok(s.probe.from = v.into()));
    m.param_text("probing_reply_codes", |s, v| Ok(s.codes = Some(v.into())));
    m.param_int("probing_verbose", |s, v| Ok(s.verbose = v != 0));
    m.param_text("lb_define_blacklist", |s, v| {
        s.blacklists.push(BlacklistedSets::parse(v)?);
        Ok(())
    });
    m.param_int("cluster_id", |s, v| Ok(s.cluster_id = v));
    m.param_text("cluster_sharing_tag", |s, v| Ok(s.cluster_tag = v.into()));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.accepts(Accepts::from(0), &["cluster_id"]);
    m.accepts(Accepts::seconds(0), &["probing_interval"]);
    m.accepts(Accepts::TOKEN, &["probing_method"]);
    m.accepts(Accepts::SIP_URI, &["probing_from"]);
    m.ignored(
        &["fetch_freeswitch_stats", "initial_freeswitch_load"],
        "there is no client of FreeSWITCH here: capacities are numbers",
    );
    m.ignored(&["status_replication_cluster"], "nodes do not tell one another states of destinations");
    functions::register(m);
    commands::register(m);
    m.init_or(init);
    m.ready(ready);
    m.start(|call| {
        if call.core.worker == 0 {
            let module = call.module.clone();
            module.begin(call.ctx);
        }
    });
    m.timer(1000, probing::tick);
}

fn init(s: &mut LoadBalancer, loader: &mut Loader) -> Result<(), LoadError> {
    s.old_table = loader.dialect == Dialect::V21;
    let db = loader.db_or_default(s.url.as_deref())?;
    s.db = Some(db.ok_or("there is no database: set db_url (or db_default_url)")?);
    if s.probing_interval > 0
        && let Some(codes) = &s.codes
    {
        s.good_codes = Codes::parse(codes).in_param("probing_reply_codes")?;
    }
    for list in &mut s.blacklists {
        list.declare(loader, "load_balancer").in_param("lb_define_blacklist")?;
    }
    Ok(())
}

fn ready(module: &Arc<LoadBalancer>, hooks: &mut Hooks, _: &Stats) {
    hooks.raises([EVENT]);
    load::prove(module, hooks);
}

impl LoadBalancer {
    /// This node is the one that probes.
    fn probes_here(&self, ctx: &host::Ctx) -> bool {
        let tag = self.cluster_tag.as_bytes();
        self.cluster_id <= 0 || tag.is_empty() || clusterer::is_active_here(ctx, tag)
    }
}
