//! clusterer: which servers belong together, what this one is called among them, and sharing tags.
//!
//! There is no binary interface here: nodes do not speak to one another. What they share goes through a
//! store that all of them reach (`usrloc` with a `cachedb_url`), so the nodes, their addresses and the tags
//! of this node are all that is kept.

mod nodes;
mod tags;

use host::db::Db;
use host::load::Loader;
use host::mi::{MiParams, MiResult};
use host::registrar::Stage;
use host::{Call, Int, Registrar, Routes, Text, Word};
use nodes::{Columns, Node};
use parking_lot::RwLock;
use serde_json::json;
use tags::Tags;

/// How often a table that could not be read is tried again.
const RETRY_MS: u64 = 5_000;

#[derive(Default)]
pub struct Clusterer {
    /// This node; 0: not said.
    my_id: u32,
    /// `db_mode` 0: nodes stand in the configuration.
    from_script: bool,
    mine: Vec<Node>,
    neighbours: Vec<Node>,
    url: Option<String>,
    db: Option<Db>,
    columns: Columns,
    /// Nodes of all clusters; `None` while the table has not been read.
    nodes: RwLock<Option<Vec<Node>>>,
    pub tags: Tags,
}

/// This node acts for what has this sharing tag (`name` or `name/cluster`): the tag is active here, or there are no
/// tags because the module is not loaded.
pub fn is_active_here(ctx: &host::Ctx, tag: &[u8]) -> bool {
    let Some(module) = ctx.shared().module::<Clusterer>() else { return true };
    module.tags.is_active_in_any(tag)
}

/// `name/cluster` of the tags that are active on this node.
pub fn active_tags(ctx: &host::Ctx) -> Vec<String> {
    ctx.shared().module::<Clusterer>().map_or_else(Vec::new, |module| module.tags.active())
}

pub use tags::listen;

pub fn register(m: &mut Registrar<Clusterer>) {
    m.stage(Stage::OverDrivers);
    for name in ["my_node_id", "current_id"] {
        m.param_int(name, |s, v| {
            s.my_id = u32::try_from(v).ok().filter(|id| *id > 0).ok_or("the id of a node is above 0")?;
            Ok(())
        });
    }
    m.param_int("db_mode", |s, v| Ok(s.from_script = v == 0));
    m.param_text("db_url", |s, v| Ok(s.url = Some(v.into())));
    for name in ["my_node_info", "current_info"] {
        m.param_text(name, |s, v| Ok(s.mine.push(Node::parse(v)?)));
    }
    for name in ["neighbor_node_info", "neighbor_info"] {
        m.param_text(name, |s, v| Ok(s.neighbours.push(Node::parse(v)?)));
    }
    m.param_text("sharing_tag", |s, v| s.tags.define(v));
    nodes::register(m);
    let no_links = "nodes do not speak to one another here: they share a store";
    m.ignored(
        &["ping_interval", "ping_timeout", "node_timeout", "seed_fallback_interval", "sync_timeout"],
        no_links,
    );
    m.ignored(&["sync_packet_size", "dispatch_jobs", "enable_rerouting", "enable_stats"], no_links);
    m.ignored(&["db_bridge_table", "no_ping_retries_col", "priority_col"], no_links);
    m.function("cluster_check_addr", Routes::ALL, check_addr);
    tags::register(m);
    m.command("clusterer:list clusterer_list", "the other nodes of each cluster", list).takes("");
    m.command("clusterer:reload clusterer_reload", "reads the nodes from the database again", reload)
        .takes("");
    m.init(init);
    m.start(|call| {
        if call.core.worker == 0 {
            load(call);
        }
    });
    m.timer(RETRY_MS, |call| {
        if call.module.nodes.read().is_none() {
            load(call);
        }
    });
}

fn init(s: &mut Clusterer, loader: &mut Loader) -> Result<(), String> {
    if s.my_id == 0 {
        return Err("my_node_id says which node this is: set it".into());
    }
    if !s.from_script {
        let what = "nodes are in a database (db_mode 1): set db_url (or db_default_url)";
        s.db = Some(loader.db_or_default(s.url.as_deref())?.ok_or(what)?);
        return Ok(());
    }
    let me = s.my_id;
    s.mine.iter_mut().for_each(|node| node.id = me);
    if s.mine.is_empty() {
        return Err("my_node_info describes this node: set it (db_mode is 0)".into());
    }
    if s.neighbours.iter().any(|node| node.id == 0) {
        return Err("neighbor_node_info needs a node_id".into());
    }
    *s.nodes.write() = Some(s.mine.iter().chain(&s.neighbours).cloned().collect());
    Ok(())
}

fn load(call: &mut Call<Clusterer>) {
    let module = call.module.clone();
    let Some(db) = &module.db else { return };
    let into = module.clone();
    db.spawn(call.ctx, "clusterer load", module.columns.query(), move |_, rows| match rows {
        Ok(rows) => {
            let found: Vec<Node> = rows.iter().filter_map(|row| into.columns.read(row)).collect();
            if !found.iter().any(|node| node.id == into.my_id) {
                host::error!("clusterer", "node {} (my_node_id) is not in the table", into.my_id);
            }
            *into.nodes.write() = Some(found);
        }
        Err(error) => host::error!("clusterer", "cannot read the nodes: {error}"),
    });
}

impl Clusterer {
    /// The node that this server is.
    pub fn my_id(&self) -> u32 {
        self.my_id
    }

    /// The SIP address (`sip_addr`: an IP address or name, with a port or without) of this node in a
    /// cluster; `None` when it has none, or the table has not been read yet.
    pub fn sip_addr(&self, cluster: u32) -> Option<String> {
        let nodes = self.nodes.read();
        let mine = nodes.as_ref()?.iter().find(|n| n.cluster == cluster && n.id == self.my_id)?;
        Some(mine.sip_addr.clone()).filter(|addr| !addr.is_empty())
    }

    /// What is wrong with the address of this node, when that can be known already.
    pub fn check_addr(&self, cluster: u32) -> Result<(), String> {
        if self.nodes.read().is_none() || self.sip_addr(cluster).is_some() {
            return Ok(());
        }
        Err(format!("my_node_info of module clusterer needs cluster_id={cluster} and a sip_addr"))
    }
}

/// cluster_check_addr(cluster, ip, [which]): 1 when a node of the cluster has this address ("sip", or
/// "bin").
fn check_addr(call: &mut Call<Clusterer>, cluster: Int, ip: Text, which: Option<Word>) -> i32 {
    let by_url = which.is_some_and(|w| w.0.eq_ignore_ascii_case(b"bin"));
    let nodes = call.module.nodes.read();
    let same = |node: &Node| {
        let addr = if by_url { node.url.strip_prefix("bin:").unwrap_or(&node.url) } else { &node.sip_addr };
        i64::from(node.cluster) == cluster.0 && nodes::host_of(addr) == nodes::host_of(&ip.str())
    };
    if nodes.as_ref().is_some_and(|nodes| nodes.iter().any(same)) { 1 } else { -1 }
}

/// Links are "Unknown": nothing probes them.
fn list(call: &mut Call<Clusterer>, _: &MiParams) -> MiResult {
    let nodes = call.module.nodes.read().clone().unwrap_or_default();
    let mut clusters: Vec<u32> = nodes.iter().map(|n| n.cluster).collect();
    clusters.sort_unstable();
    clusters.dedup();
    let others = |cluster: u32| -> Vec<serde_json::Value> {
        let here = nodes.iter().filter(|n| n.cluster == cluster && n.id != call.module.my_id);
        here.map(Node::json).collect()
    };
    let all: Vec<_> = clusters.iter().map(|c| json!({"cluster_id": c, "Nodes": others(*c)})).collect();
    Ok(json!({"Clusters": all}))
}

fn reload(call: &mut Call<Clusterer>, _: &MiParams) -> MiResult {
    load(call);
    Ok(json!("OK"))
}

#[cfg(test)]
mod tests;
