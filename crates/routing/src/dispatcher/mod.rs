//! dispatcher: sets of destinations, one of which is chosen for a request by a hash, in turn, at random, by load or by a
//! route; the others are kept for when it fails.
//!
//! `select.rs` chooses, `failover.rs` keeps the others in AVPs, `state.rs` changes states and tells of it, `probing.rs` asks
//! who is there, `data.rs` reads the table. What is not of this module alone is in `destinations`.

mod commands;
mod data;
mod failover;
mod flags;
mod functions;
mod hash;
mod load;
mod partition;
mod probing;
mod score;
mod select;
mod state;
#[cfg(test)]
mod tests;

use crate::destinations::{BlacklistedSets, Codes, Pace, Probe, SharedStates};
use host::load::Loader;
use host::shared::Hooks;
use host::stats::Stats;
use host::{Accepts, InParam, LoadError};
use host::{Ctx, Format, OutVar, Registrar};
use modules::clusterer;
use partition::{DEFAULT, Partition, Wishes};
use probing::Mode;
use script::ast::Dialect;
use script::{Loc, RouteId};
use std::sync::Arc;

const EVENT: &str = "E_DISPATCHER_STATUS";
/// Of status and reports.
const GROUP: &str = "dispatcher";
/// The version of the table (`opensips.version`).
const TABLE_VERSION: u32 = 9;

/// Names of the columns.
#[derive(Clone, Debug)]
pub struct Columns {
    set: String,
    destination: String,
    socket: String,
    state: String,
    weight: String,
    priority: String,
    attrs: String,
    description: String,
    /// Tables of 2.1 have none.
    probe_mode: String,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            set: "setid".into(),
            destination: "destination".into(),
            socket: "socket".into(),
            state: "state".into(),
            weight: "weight".into(),
            priority: "priority".into(),
            attrs: "attrs".into(),
            description: "description".into(),
            probe_mode: "probe_mode".into(),
        }
    }
}

/// What a cluster changes: who probes, and states that all servers have.
#[derive(Default)]
struct Cluster {
    id: i64,
    states: Vec<Arc<SharedStates>>,
    tag: String,
    by_tag: bool,
}

impl Cluster {
    fn probes_here(&self, ctx: &Ctx) -> bool {
        self.id <= 0 || !self.by_tag || clusterer::is_active_here(ctx, self.tag.as_bytes())
    }
}

/// The module, shared by all workers.
pub struct Dispatcher {
    wishes: Wishes,
    columns: Columns,
    partitions: Vec<Arc<Partition>>,
    hash_pvar: Option<Format>,
    setid_pvar: Option<OutVar>,
    /// `pvar_algo_pattern`
    load_pattern: Option<String>,
    algo_route: Option<RouteId>,
    texts: Texts,
    probe: Probe,
    ping_interval: u64,
    threshold: u32,
    mode: Mode,
    good_codes: Codes,
    /// Sets that are probed; empty: all.
    probing_list: Vec<i64>,
    cluster: Cluster,
    probes: Pace,
    refreshes: Pace,
    unresolved: Pace,
    retries: Pace,
}

/// Parameters as they were written, until `init` reads them.
#[derive(Default)]
struct Texts {
    hash_pvar: Option<String>,
    setid_pvar: Option<String>,
    algo_route: Option<String>,
    codes: Option<String>,
    socket: Option<String>,
}

impl Default for Dispatcher {
    fn default() -> Dispatcher {
        let (method, from) = ("OPTIONS".into(), "sip:dispatcher@localhost".into());
        Dispatcher {
            wishes: Wishes::default(),
            columns: Columns::default(),
            partitions: Vec::new(),
            hash_pvar: None,
            setid_pvar: None,
            load_pattern: None,
            algo_route: None,
            texts: Texts::default(),
            probe: Probe { method, from, max_forwards: None, socket: None },
            ping_interval: 0,
            threshold: 3,
            mode: Mode::default(),
            good_codes: Codes::default(),
            probing_list: Vec::new(),
            cluster: Cluster::default(),
            probes: Pace::default(),
            refreshes: Pace::default(),
            unresolved: Pace::default(),
            retries: Pace::default(),
        }
    }
}

impl Dispatcher {
    /// By name; no name, or `default`, is the default one.
    fn partition(&self, name: &[u8]) -> Option<&Arc<Partition>> {
        if name.is_empty() {
            return self.partitions.iter().find(|partition| partition.is_default);
        }
        self.partitions.iter().find(|partition| partition.name.as_bytes() == name)
    }
}

fn module(ctx: &Ctx) -> Option<Arc<Dispatcher>> {
    ctx.shared().module::<Dispatcher>()
}

pub fn register(m: &mut Registrar<Dispatcher>) {
    register_tables(m);
    m.param_text("hash_pvar", |s, v| Ok(s.texts.hash_pvar = Some(v.into())));
    m.param_text("setid_pvar", |s, v| Ok(s.texts.setid_pvar = Some(v.into())));
    m.param_text("algo_route", |s, v| Ok(s.texts.algo_route = Some(v.into())));
    m.param_text("pvar_algo_pattern", |s, v| {
        Ok(s.load_pattern = Some(v.into()).filter(|v: &String| !v.is_empty()))
    });
    for name in ["ds_probing_threshhold", "ds_probing_threshold"] {
        m.param_int(name, |s, v| Ok(s.threshold = v.clamp(0, i64::from(u32::MAX)) as u32));
    }
    m.param_text("ds_ping_method", |s, v| Ok(s.probe.method = v.into()));
    m.param_text("ds_ping_from", |s, v| Ok(s.probe.from = v.into()));
    m.param_int("ds_ping_interval", |s, v| Ok(s.ping_interval = v.max(0) as u64));
    m.param_int("ds_ping_maxfwd", |s, v| Ok(s.probe.max_forwards = u32::try_from(v).ok()));
    m.param_int("ds_probing_mode", |s, v| {
        s.mode = if v == 1 { Mode::All } else { Mode::Suspects };
        Ok(())
    });
    m.param_text("options_reply_codes", |s, v| Ok(s.texts.codes = Some(v.into())));
    m.param_text("ds_probing_sock", |s, v| Ok(s.texts.socket = Some(v.into())));
    m.param_text("ds_probing_list", |s, v| {
        let list = flags::parse_list(v.as_bytes())
            .ok_or_else(|| format!("ds_probing_list `{v}` is no list of sets"))?;
        s.probing_list = list;
        Ok(())
    });
    m.param_int("cluster_id", |s, v| Ok(s.cluster.id = v));
    m.param_text("cluster_sharing_tag", |s, v| Ok(s.cluster.tag = v.into()));
    m.param_text("cluster_probing_mode", |s, v| {
        s.cluster.by_tag = match v {
            "by-shtag" => true,
            // Nodes do not know here which of them are up: with "distributed", too, each asks for itself.
            "all" | "distributed" => false,
            other => {
                return Err(format!(
                    "cluster_probing_mode `{other}`: all, by-shtag and distributed are known"
                ));
            }
        };
        Ok(())
    });
    m.ignored(
        &["fetch_freeswitch_stats", "max_freeswitch_weight"],
        "there is no client of FreeSWITCH here: a weight that is its URL counts 1",
    );
    m.accepts(Accepts::from(0), &["cluster_id", "ds_probing_threshhold", "ds_probing_threshold"]);
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.accepts(Accepts::seconds(0), &["ds_ping_interval"]);
    m.accepts(Accepts::range(-1, 255), &["ds_ping_maxfwd"]);
    m.accepts(Accepts::range(0, 1), &["ds_probing_mode"]);
    m.accepts(Accepts::TOKEN, &["ds_ping_method"]);
    m.accepts(Accepts::SIP_URI, &["ds_ping_from"]);
    // ds_probing_sock and options_reply_codes are looked at only where something is probed, as the reference does.
    m.accepts(Accepts::FORMAT, &["hash_pvar"]);
    m.accepts(Accepts::TARGET, &["setid_pvar"]);
    m.accepts(Accepts::AVP, &["attrs_avp", "cnt_avp", "dst_avp", "grp_avp", "script_attrs_avp", "sock_avp"]);
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
    m.stop(|call| call.module.clone().partitions.iter().for_each(|p| probing::flush(call.ctx, p)));
}

/// Where destinations come from, and what a transaction remembers.
fn register_tables(m: &mut Registrar<Dispatcher>) {
    m.param_text("partition", |s, v| s.wishes.define(v));
    macro_rules! of_default {
        ($($name:literal)*) => { $(m.param_text($name, |s, v| s.wishes.default.set($name, v));)* };
    }
    of_default!("db_url" "table_name" "dst_avp" "grp_avp" "cnt_avp" "sock_avp" "attrs_avp" "script_attrs_avp");
    m.param_text("ds_define_blacklist", |s, v| {
        s.wishes.default.blacklists.push(BlacklistedSets::parse(v)?);
        Ok(())
    });
    m.param_int("persistent_state", |s, v| {
        s.wishes.default.persistent_state = Some(if v == 0 { "0" } else { "1" }.into());
        Ok(())
    });
    m.param_text("setid_col", |s, v| Ok(s.columns.set = v.into()));
    m.param_text("destination_col", |s, v| Ok(s.columns.destination = v.into()));
    m.param_text("socket_col", |s, v| Ok(s.columns.socket = v.into()));
    m.param_text("state_col", |s, v| Ok(s.columns.state = v.into()));
    m.param_text("weight_col", |s, v| Ok(s.columns.weight = v.into()));
    m.param_text("priority_col", |s, v| Ok(s.columns.priority = v.into()));
    m.param_text("attrs_col", |s, v| Ok(s.columns.attrs = v.into()));
    m.param_text("description_col", |s, v| Ok(s.columns.description = v.into()));
    m.param_text("probe_mode_col", |s, v| Ok(s.columns.probe_mode = v.into()));
}

fn init(s: &mut Dispatcher, loader: &mut Loader) -> Result<(), LoadError> {
    if loader.dialect == Dialect::V21 {
        s.columns.probe_mode.clear();
    }
    if let Some(text) = s.texts.hash_pvar.take().filter(|text| !text.is_empty()) {
        let format = Format::new(&text.clone().into(), Loc::default(), loader);
        s.hash_pvar = Some(format.in_param("hash_pvar")?);
    }
    if let Some(text) = s.texts.setid_pvar.take().filter(|text| !text.is_empty()) {
        let spec = script::parse_variable(&text.clone().into(), Loc::default());
        let var = spec.and_then(|spec| loader.target_var(&spec));
        s.setid_pvar = Some(OutVar(Arc::new(var.in_param("setid_pvar")?)));
    }
    if let Some(name) = &s.texts.algo_route {
        let route = loader.route(name);
        if route.is_err() {
            host::warn!("dispatcher", "algo_route: there is no route {name}, so algorithm 10 finds nothing");
        }
        s.algo_route = route.ok();
    }
    if s.ping_interval > 0 {
        if let Some(codes) = &s.texts.codes {
            s.good_codes = Codes::parse(codes).in_param("options_reply_codes")?;
        }
        if let Some(socket) = s.texts.socket.as_ref().filter(|socket| !socket.is_empty()) {
            let found = host::shared::socket_named(&loader.globals.sockets, socket);
            let missing = || format!("{socket} is no socket of this server");
            s.probe.socket = Some(found.ok_or_else(missing).in_param("ds_probing_sock")?);
        }
    }
    let partitions = s.wishes.build(loader, &s.probe)?;
    s.partitions = partitions.into_iter().map(Arc::new).collect();
    s.cluster.states = s.partitions.iter().map(|_| Arc::default()).collect();
    if s.partition(b"").is_none() {
        return Err(format!("there is no partition {DEFAULT}").into());
    }
    Ok(())
}

fn ready(module: &Arc<Dispatcher>, hooks: &mut Hooks, _: &Stats) {
    hooks.raises([EVENT]);
    load::prove(module, hooks);
}
