//! drouting: calls go by the longest prefix of their number, in groups, at times, over gateways and carriers.
//!
//! ```text
//!  load.rs ── pages.rs (tables in pages), kept.rs (over a restart) ──► rows.rs ──► data.rs, tree.rs ──► partition.rs
//!  route.rs do_routing · push.rs what is tried in which order · next.rs what follows · gate.rs is it a gateway
//!  watch.rs states, probes · manage.rs commands · old.rs the functions as 2.1 writes them
//! ```

mod args;
pub mod data;
mod gate;
mod kept;
mod lists;
mod load;
mod manage;
mod next;
mod old;
mod pages;
mod params;
mod partition;
mod push;
mod route;
mod rows;
#[cfg(test)]
mod tests;
pub mod tree;
mod watch;

use self::lists::IdBytes;
use self::params::Settings;
use self::partition::{DEFAULT, GROUP, Partition, Tables};
use self::rows::{Reading, States};
use self::tree::Alphabet;
use crate::destinations::{BlacklistedSets, Codes, Pace, Probe};
use crate::qrouting::Qrouting;
use host::db::{Db, Name, Proof, Query, Rows};
use host::load::Loader;
use host::registrar::Since;
use host::shared::{Hooks, socket_named};
use host::stats::Stats;
use host::{Call, Ctx, OutVar, Registrar, Routes, Shared, Value};
use host::{InParam, LoadError};
use parking_lot::{Mutex, RwLock};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Between two attempts to load, when the database is down.
const RETRY_MS: u64 = 5000;
/// Between two writes of states.
const FLUSH_MS: u64 = 30_000;
const PARTITION_COLUMNS: [&str; 13] = [
    "partition_name",
    "db_url",
    "drd_table",
    "drr_table",
    "drg_table",
    "drc_table",
    "ruri_avp",
    "gw_id_avp",
    "gw_priprefix_avp",
    "gw_sock_avp",
    "rule_id_avp",
    "rule_prefix_avp",
    "carrier_id_avp",
];

/// Columns of the table of groups.
pub struct GroupColumns {
    pub user: Name,
    pub domain: Name,
    pub group: Name,
}

#[derive(Default)]
pub struct Drouting {
    settings: Settings,
    /// The table of partitions.
    partitions_db: Option<Db>,
    partitions: RwLock<Arc<Vec<Arc<Partition>>>>,
    /// Rows of the table of partitions that were read before the workers began.
    found: Mutex<Option<Rows>>,
    /// Partitions that the script names.
    named: Mutex<Vec<String>>,
    /// Gets the name of the partition that `*` found.
    partition_var: Option<OutVar>,
    reading: Option<Arc<Reading>>,
    ids: Option<IdBytes>,
    /// Whether a script asks for attributes of rules, gateways, carriers.
    attrs_wanted: [AtomicBool; 3],
    group_columns: GroupColumns,
    /// (partition, list)
    blacklists: Vec<(String, BlacklistedSets)>,
    kept: Option<String>,
    probe: Option<Probe>,
    good_codes: Codes,
    /// Only the node on which this sharing tag is active probes.
    probing_tag: Option<bytes::Bytes>,
    probes: AtomicBool,
    /// Module qrouting, when it is loaded.
    quality: OnceLock<Arc<Qrouting>>,
    pace: Pace,
}

impl Default for GroupColumns {
    fn default() -> GroupColumns {
        GroupColumns { user: "username".into(), domain: "domain".into(), group: "groupid".into() }
    }
}

pub fn register(m: &mut Registrar<Drouting>) {
    params::register(m);
    let most = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    let with_replies = most.and(Routes::ON_REPLY);
    let (v4, v21) = (Since::V4, Since::V21);
    m.function_of(v4, "do_routing", Routes::ALL, route::do_routing);
    m.function_of(v4, "route_to_carrier", Routes::ALL, next::route_to_carrier);
    m.function_of(v4, "route_to_gw", Routes::ALL, next::route_to_gw);
    m.function_of(v4, "use_next_gw", most, next::use_next_gw);
    let from = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::ON_REPLY);
    m.function_of(v4, "is_from_gw", from, gate::is_from_gw);
    m.function_of(v4, "goes_to_gw", with_replies, gate::goes_to_gw);
    m.function_of(v4, "dr_is_gw", Routes::ALL, gate::dr_is_gw);
    m.function_of(v4, "dr_disable", with_replies, next::dr_disable);
    m.function("dr_match", with_replies, next::dr_match);
    let old = Routes::REQUEST.and(Routes::FAILURE).and(Routes::LOCAL);
    m.function_of(v21, "do_routing", old, old::do_routing);
    m.function_of(v21, "route_to_carrier", old, old::route_to_carrier);
    m.function_of(v21, "route_to_gw", old, old::route_to_gw);
    m.function_of(v21, "use_next_gw", old, old::use_next_gw);
    m.function_of(v21, "next_routing", old, old::use_next_gw);
    m.function_of(v21, "is_from_gw", from, old::is_from_gw);
    m.function_of(v21, "goes_to_gw", old.and(Routes::BRANCH), old::goes_to_gw);
    m.function_of(v21, "dr_is_gw", Routes::ALL, old::dr_is_gw);
    m.function_of(v21, "dr_disable", old.and(Routes::ON_REPLY), old::dr_disable);
    manage::register(m);
    m.init_or(init);
    m.ready(ready);
    m.start(start);
    m.timer(1000, watch::probe);
    m.timer(RETRY_MS, retry);
    m.timer(FLUSH_MS, watch::flush);
    m.stop(watch::stop);
}

fn init(s: &mut Drouting, loader: &mut Loader) -> Result<(), LoadError> {
    let settings = &s.settings;
    s.ids = Some(IdBytes::new(settings.extra_ids.as_deref().unwrap_or("_-.")));
    s.reading = Some(Arc::new(Reading {
        alphabet: Alphabet::new(&settings.extra_prefix),
        ids: IdBytes::new(settings.extra_ids.as_deref().unwrap_or("_-.")),
        sockets: settings.sockets,
        force_dns: settings.force_dns,
        states: settings.persistent_state,
        checksum: settings.checksum,
    }));
    s.kept = settings.persistent_rows.then(|| loader.globals.core.restart_persistency_cache_file.clone());
    let socket = settings.probing_socket.as_deref().filter(|text| !text.trim().is_empty());
    let socket = socket.map(|text| {
        let found = socket_named(&loader.globals.sockets, text);
        found.ok_or_else(|| format!("this server does not listen on {text}"))
    });
    s.probe = Some(Probe {
        method: settings.probing_method.clone(),
        from: settings.probing_from.clone(),
        max_forwards: None,
        socket: socket.transpose().in_param("probing_socket")?,
    });
    s.probes = AtomicBool::new(true);
    s.probing_tag = settings.probing_tag.clone().filter(|_| settings.probes_by_tag).map(Into::into);
    if let Some(text) = &settings.partition_var {
        let spec = script::parse_variable(&text.clone().into(), script::Loc::default());
        let var = spec.and_then(|spec| loader.target_var(&spec));
        s.partition_var = Some(OutVar(Arc::new(var.in_param("partition_id_pvar")?)));
    }
    // Mistakes in names of AVPs are found now.
    settings.avps.named(None)?;
    if settings.use_partitions {
        s.partitions_db =
            loader.db_or_default(settings.partitions_url.as_deref()).in_param("db_partitions_url")?;
        if s.partitions_db.is_none() {
            return Err(LoadError::from("it needs db_partitions_url").in_param("use_partitions"));
        }
    } else {
        let Some(db) = loader.db_or_default(settings.db_url.as_deref()).in_param("db_url")? else {
            return Err("db_url is not set".into());
        };
        let only = s.partition_of(DEFAULT, db, settings.tables.clone(), settings.avps.named(None)?);
        *s.partitions.get_mut() = Arc::new(vec![Arc::new(only)]);
    }
    for text in std::mem::take(&mut s.settings.blacklists) {
        let (partition, list) = match s.settings.use_partitions {
            false => (DEFAULT, text.as_str()),
            true => text
                .split_once(':')
                .filter(|(name, _)| !name.trim().is_empty())
                .ok_or_else(|| format!("`{text}` is written partition:name = 1, 2"))
                .in_param("define_blacklist")?,
        };
        let mut list = BlacklistedSets::parse(list).in_param("define_blacklist")?;
        list.declare(loader, "drouting").in_param("define_blacklist")?;
        s.blacklists.push((partition.trim().to_owned(), list));
    }
    Ok(())
}

fn ready(module: &Arc<Drouting>, hooks: &mut Hooks, _: &Stats) {
    hooks.raises([watch::STATUS]);
    if let Some(db) = &module.partitions_db {
        let table = module.settings.partitions_table.clone();
        hooks.proves(Proof::of_version("drouting", db, &table, 1));
        let (module, query) = (module.clone(), module.partitions_query());
        hooks.proves(Proof::new("drouting", db, query, move |rows| {
            let names: Vec<String> = rows.iter().map(|row| row.string(0)).collect();
            let missing = module.named.lock().iter().find(|name| !names.contains(name)).cloned();
            *module.found.lock() = Some(rows.clone());
            match missing {
                Some(name) => {
                    let near = args::did_you_mean(&name, names.iter().map(String::as_str));
                    Err(format!("the script names partition {name}, which table {table} does not have{near}"))
                }
                None => Ok(()),
            }
        }));
    }
    for partition in module.partitions() {
        module.prove_tables(&partition, hooks);
    }
}

/// The first worker makes the partitions that a table names, and loads them.
fn start(call: &mut Call<Drouting>) {
    let module = call.module.clone();
    let found = module.found.lock().take();
    if let Some(rows) = found {
        module.make_partitions(call.shared(), &rows);
    }
    if call.core.worker != 0 {
        return;
    }
    match module.partitions().is_empty() {
        true => ask_for_partitions(call),
        false => load_all(call.ctx, &module),
    }
}

fn load_all(ctx: &mut Ctx, module: &Arc<Drouting>) {
    for partition in module.partitions() {
        ctx.shared().status.identifier(GROUP, &partition.events);
        partition.tell(ctx.shared(), -2, "no data loaded");
        load::load(ctx, module, &partition, States::Inherited, |_, _| ());
    }
}

/// The database of the table of partitions was not there when the server started.
fn ask_for_partitions(call: &mut Call<Drouting>) {
    let Some(db) = call.module.partitions_db.clone() else { return };
    let (module, query) = (call.module.clone(), call.module.partitions_query());
    db.spawn(call.ctx, "dr_partitions", query, move |ctx, rows| match rows {
        Ok(rows) => {
            module.make_partitions(ctx.shared(), &rows);
            load_all(ctx, &module);
        }
        Err(error) => host::error!("drouting", "the table of partitions was not read: {error}"),
    });
}

fn retry(call: &mut Call<Drouting>) {
    let module = call.module.clone();
    let partitions = module.partitions();
    if partitions.is_empty() {
        return ask_for_partitions(call);
    }
    for partition in partitions {
        if partition.again.swap(false, Ordering::Relaxed) {
            load::load(call.ctx, &module, &partition, States::Inherited, |_, _| ());
        }
    }
}

impl Drouting {
    /// Rules with `sort_alg` Q are ordered by this module from now on.
    pub fn rate_by(&self, quality: Arc<Qrouting>) {
        let _ = self.quality.set(quality);
    }

    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().to_vec()
    }

    pub fn partition(&self, name: &str) -> Option<Arc<Partition>> {
        self.partitions.read().iter().find(|partition| partition.name == name).cloned()
    }

    /// The only one, without `use_partitions`.
    pub fn first(&self) -> Option<Arc<Partition>> {
        self.partitions.read().first().cloned()
    }

    /// The script names a partition. The error is what is wrong with it.
    fn note_named(&self, name: &str) -> Result<(), String> {
        if name == "*" || (!self.settings.use_partitions && name == DEFAULT) {
            return Ok(());
        }
        if !self.settings.use_partitions {
            return Err(format!("there is no partition {name}: use_partitions is not set"));
        }
        self.named.lock().push(name.to_owned());
        Ok(())
    }

    /// `*` found something in this partition.
    fn note_partition(&self, ctx: &mut Ctx, partition: &Partition) {
        if let Some(var) = &self.partition_var {
            var.set(ctx, Value::from(partition.name.clone()));
        }
    }

    fn wants_attrs(&self, of: usize) -> bool {
        self.attrs_wanted[of].load(Ordering::Relaxed)
    }

    fn reading(&self) -> Arc<Reading> {
        self.reading.clone().expect("made by init")
    }

    /// The statement that names tables of rules, when the name of the table is a token for it.
    fn rules_query(&self, table: &str) -> Option<String> {
        self.settings.rule_queries.iter().find(|(token, _)| token == table).map(|(_, query)| query.clone())
    }

    fn partitions_query(&self) -> Query {
        Query::select(&self.settings.partitions_table).columns(PARTITION_COLUMNS)
    }

    fn partition_of(&self, name: &str, db: Db, tables: Tables, avps: partition::Avps) -> Partition {
        let kept = self.kept.as_ref().map(|base| PathBuf::from(format!("{base}.drouting.{name}")));
        Partition::new(name, db, tables, avps, self.ids.clone().expect("made by init"), kept)
    }

    fn prove_tables(&self, partition: &Partition, hooks: &mut Hooks) {
        let Tables { gateways, rules, groups, carriers } = &partition.tables;
        let rules = Some((rules, 4)).filter(|(rules, _)| self.rules_query(rules).is_none());
        for (table, version) in [(gateways, 6), (groups, 2), (carriers, 3)].into_iter().chain(rules) {
            hooks.proves(Proof::of_version("drouting", &partition.db, table, version));
        }
    }

    /// From rows of the table of partitions; one that cannot be is said and left out.
    fn make_partitions(&self, shared: &Shared, rows: &Rows) {
        let mut list = Vec::new();
        for row in rows.iter() {
            let text = |column: usize| partition::table_name(row.text(column));
            let Some(name) = text(0) else { continue };
            let settings = &self.settings;
            let table =
                |column: usize, default: &Name| text(column).map_or_else(|| default.clone(), Name::from);
            let tables = Tables {
                gateways: table(2, &settings.tables.gateways),
                rules: table(3, &settings.tables.rules),
                groups: table(4, &settings.tables.groups),
                carriers: table(5, &settings.tables.carriers),
            };
            let avps = partition::AvpTexts {
                ruri: text(6),
                gw_id: text(7),
                gw_priprefix: text(8),
                gw_sock: text(9),
                rule_id: text(10),
                rule_prefix: text(11),
                carrier_id: text(12),
                rule_attrs: None,
            };
            let db = match (text(1), &self.partitions_db) {
                (Some(url), _) => shared.late_db(&url),
                (None, Some(db)) => Ok(db.clone()),
                (None, None) => continue,
            };
            let table = &settings.partitions_table;
            match db.and_then(|db| Ok((db, avps.named(Some(&name))?))) {
                Ok((db, avps)) => list.push(Arc::new(self.partition_of(&name, db, tables, avps))),
                Err(why) => {
                    host::error!("drouting", "table {table}, partition {name}: {why}: it is left out")
                }
            }
        }
        *self.partitions.write() = Arc::new(list);
    }

    /// Blacklists of a partition follow what it has loaded.
    fn fill_blacklists(&self, ctx: &Ctx, partition: &Partition) {
        let Some(data) = partition.data() else { return };
        for (_, list) in self.blacklists.iter().filter(|(name, _)| *name == partition.name) {
            let gateways = &data.ends.gateways;
            let pairs = list.sets.iter().flat_map(|kind| gateways.iter().map(move |gateway| (kind, gateway)));
            let listed = pairs.filter(|(kind, gateway)| gateway.kind == **kind);
            list.fill(ctx, listed.map(|(_, gateway)| &gateway.destination));
        }
    }
}
