//! Nodes: from `my_node_info`, `neighbor_node_info`, or a table.

use super::Clusterer;
use host::Registrar;
use host::db::{Name, Query, Row};
use serde_json::{Value as Json, json};

/// A server in a cluster; one that is in several has one for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub cluster: u32,
    pub id: u32,
    /// Row of the table; 0: none.
    pub row: i64,
    /// `bin:10.0.0.1:5566`
    pub url: String,
    /// Where SIP requests for it go; empty when nobody said.
    pub sip_addr: String,
    pub description: String,
}

impl Node {
    /// `cluster_id=1, node_id=2, url=bin:10.0.0.1:5566, sip_addr=10.0.0.1`
    pub fn parse(text: &str) -> Result<Node, String> {
        let mut node = Node::default();
        for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| format!("`{pair}` is no property=value"))?;
            let value = value.trim();
            let number = || value.parse::<u32>().map_err(|_| format!("{} needs a number", name.trim()));
            match name.trim() {
                "cluster_id" => node.cluster = number()?,
                "node_id" => node.id = number()?,
                "url" => node.url = value.to_string(),
                "sip_addr" => node.sip_addr = value.to_string(),
                "description" => node.description = value.to_string(),
                "state" | "no_ping_retries" | "priority" | "flags" | "id" => {}
                other => return Err(format!("a node has no property `{other}`")),
            }
        }
        if node.cluster == 0 || node.url.is_empty() {
            return Err("a node needs a cluster_id and a url".into());
        }
        Ok(node)
    }

    /// With the names of the reference's `clusterer:list`.
    pub fn json(&self) -> Json {
        let text = |t: &str| if t.is_empty() { json!("none") } else { json!(t) };
        json!({
            "node_id": self.id, "db_id": self.row, "url": self.url, "link_state": "Unknown", "next_hop": "none",
            "description": text(&self.description), "sip_addr": text(&self.sip_addr),
        })
    }
}

/// "10.0.0.1:5060" and "sip:10.0.0.1" as "10.0.0.1"; brackets of IPv6 stay off.
pub fn host_of(addr: &str) -> &str {
    let addr = addr.strip_prefix("sip:").unwrap_or(addr);
    if let Some((host, _)) = addr.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match addr.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => addr,
    }
}

/// Names of the table and its columns.
pub struct Columns {
    table: Name,
    id: Name,
    cluster: Name,
    node: Name,
    url: Name,
    state: Name,
    sip_addr: Name,
    description: Name,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            table: "clusterer".into(),
            id: "id".into(),
            cluster: "cluster_id".into(),
            node: "node_id".into(),
            url: "url".into(),
            state: "state".into(),
            sip_addr: "sip_addr".into(),
            description: "description".into(),
        }
    }
}

pub fn register(m: &mut Registrar<Clusterer>) {
    m.param_text("db_table", |s, v| Ok(s.columns.table = v.to_string().into()));
    m.param_text("id_col", |s, v| Ok(s.columns.id = v.to_string().into()));
    m.param_text("cluster_id_col", |s, v| Ok(s.columns.cluster = v.to_string().into()));
    m.param_text("node_id_col", |s, v| Ok(s.columns.node = v.to_string().into()));
    m.param_text("url_col", |s, v| Ok(s.columns.url = v.to_string().into()));
    m.param_text("state_col", |s, v| Ok(s.columns.state = v.to_string().into()));
    m.param_text("sip_addr_col", |s, v| Ok(s.columns.sip_addr = v.to_string().into()));
    m.param_text("description_col", |s, v| Ok(s.columns.description = v.to_string().into()));
    m.ignored(&["flags_col"], "there are no seed nodes without a binary interface");
}

impl Columns {
    pub fn query(&self) -> Query {
        let names =
            [&self.id, &self.cluster, &self.node, &self.url, &self.state, &self.sip_addr, &self.description];
        Query::select(self.table.clone()).columns(names)
    }

    /// The node of a row; `None` for one that is switched off, or no node.
    pub fn read(&self, row: Row<'_>) -> Option<Node> {
        let int = |name: &Name| row.named(name).int();
        let text = |name: &Name| {
            row.named(name).text().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default()
        };
        if int(&self.state) == Some(0) {
            return None;
        }
        Some(Node {
            cluster: u32::try_from(int(&self.cluster)?).ok()?,
            id: u32::try_from(int(&self.node)?).ok()?,
            row: int(&self.id).unwrap_or(0),
            url: text(&self.url),
            sip_addr: text(&self.sip_addr),
            description: text(&self.description),
        })
    }
}
