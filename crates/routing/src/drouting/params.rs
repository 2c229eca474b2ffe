//! Parameters.

use super::Drouting;
use super::partition::{AvpTexts, Tables};
use super::rows::Sockets;
use crate::destinations::Codes;
use host::Accepts;
use host::Registrar;
use host::db::Name;

/// What the parameters say, until the module begins.
pub struct Settings {
    pub db_url: Option<String>,
    pub tables: Tables,
    pub avps: AvpTexts,
    pub use_partitions: bool,
    pub partitions_url: Option<String>,
    pub partitions_table: Name,
    pub partition_var: Option<String>,
    pub use_domain: bool,
    pub default_group: Option<i64>,
    pub force_dns: bool,
    pub persistent_state: bool,
    pub no_concurrent_reload: bool,
    pub persistent_rows: bool,
    pub extra_prefix: String,
    pub extra_ids: Option<String>,
    pub sockets: Sockets,
    pub checksum: bool,
    pub blacklists: Vec<String>,
    /// (token, statement)
    pub rule_queries: Vec<(String, String)>,
    pub probing_interval: u64,
    pub probing_method: String,
    pub probing_from: String,
    pub probing_socket: Option<String>,
    pub probing_tag: Option<String>,
    pub probes_by_tag: bool,
    /// Above 0: the states of gateways are those of the whole cluster.
    pub cluster: i64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            db_url: None,
            tables: Tables::default(),
            avps: AvpTexts::default(),
            use_partitions: false,
            partitions_url: None,
            partitions_table: "dr_partitions".into(),
            partition_var: None,
            use_domain: true,
            default_group: None,
            force_dns: true,
            persistent_state: true,
            no_concurrent_reload: false,
            persistent_rows: false,
            extra_prefix: String::new(),
            extra_ids: None,
            sockets: Sockets::Any,
            checksum: false,
            blacklists: Vec::new(),
            rule_queries: Vec::new(),
            probing_interval: 30,
            probing_method: "OPTIONS".into(),
            probing_from: "sip:prober@localhost".into(),
            probing_socket: None,
            probing_tag: None,
            probes_by_tag: false,
            cluster: 0,
        }
    }
}

fn table(text: &str) -> Result<Name, String> {
    let name = text.trim();
    if name.is_empty() { Err("a table needs a name".into()) } else { Ok(name.to_owned().into()) }
}

pub fn register(m: &mut Registrar<Drouting>) {
    m.param_text("db_url", |s, v| Ok(s.settings.db_url = Some(v.into())));
    m.param_text("drd_table", |s, v| Ok(s.settings.tables.gateways = table(v)?));
    m.param_text("drr_table", |s, v| Ok(s.settings.tables.rules = table(v)?));
    m.param_text("drg_table", |s, v| Ok(s.settings.tables.groups = table(v)?));
    m.param_text("drc_table", |s, v| Ok(s.settings.tables.carriers = table(v)?));
    m.param_text("ruri_avp", |s, v| Ok(s.settings.avps.ruri = Some(v.into())));
    m.param_text("gw_id_avp", |s, v| Ok(s.settings.avps.gw_id = Some(v.into())));
    m.param_text("gw_priprefix_avp", |s, v| Ok(s.settings.avps.gw_priprefix = Some(v.into())));
    m.param_text("gw_sock_avp", |s, v| Ok(s.settings.avps.gw_sock = Some(v.into())));
    m.param_text("rule_id_avp", |s, v| Ok(s.settings.avps.rule_id = Some(v.into())));
    m.param_text("rule_prefix_avp", |s, v| Ok(s.settings.avps.rule_prefix = Some(v.into())));
    m.param_text("carrier_id_avp", |s, v| Ok(s.settings.avps.carrier_id = Some(v.into())));
    m.param_text("rule_attrs_avp", |s, v| Ok(s.settings.avps.rule_attrs = Some(v.into())));
    m.param_text("define_blacklist", |s, v| Ok(s.settings.blacklists.push(v.into())));
    m.param_int("default_group", |s, v| Ok(s.settings.default_group = Some(v)));
    m.param_int("force_dns", |s, v| Ok(s.settings.force_dns = v != 0));
    m.param_int("persistent_state", |s, v| Ok(s.settings.persistent_state = v != 0));
    m.param_int("no_concurrent_reload", |s, v| Ok(s.settings.no_concurrent_reload = v != 0));
    m.param_int("use_domain", |s, v| Ok(s.settings.use_domain = v != 0));
    m.param_text("drg_user_col", |s, v| Ok(s.group_columns.user = v.to_owned().into()));
    m.param_text("drg_domain_col", |s, v| Ok(s.group_columns.domain = v.to_owned().into()));
    m.param_text("drg_grpid_col", |s, v| Ok(s.group_columns.group = v.to_owned().into()));
    m.param_int("use_partitions", |s, v| Ok(s.settings.use_partitions = v == 1));
    m.param_text("db_partitions_url", |s, v| Ok(s.settings.partitions_url = Some(v.into())));
    m.param_text("db_partitions_table", |s, v| Ok(s.settings.partitions_table = table(v)?));
    m.param_text("partition_id_pvar", |s, v| Ok(s.settings.partition_var = Some(v.into())));
    m.param_int("enable_restart_persistency", |s, v| Ok(s.settings.persistent_rows = v != 0));
    m.param_text("extra_prefix_chars", |s, v| Ok(s.settings.extra_prefix = v.into()));
    m.param_text("extra_id_chars", |s, v| Ok(s.settings.extra_ids = Some(v.into())));
    m.param_text("gw_socket_filter_mode", |s, v| {
        s.settings.sockets = match v.to_ascii_lowercase().as_str() {
            "none" => Sockets::Any,
            "ignore" => Sockets::Ignored,
            "matched-only" => Sockets::Matching,
            _ => return Err(format!("`{v}` is none of none, ignore, matched-only")),
        };
        Ok(())
    });
    m.param_text("rule_tables_query", |s, v| {
        let (token, query) = v.split_once(':').ok_or_else(|| format!("`{v}` is written token: query"))?;
        s.settings.rule_queries.push((token.trim().into(), query.trim().into()));
        Ok(())
    });
    m.accepts(
        Accepts::AVP,
        &[
            "carrier_id_avp",
            "gw_id_avp",
            "gw_priprefix_avp",
            "gw_sock_avp",
            "rule_attrs_avp",
            "rule_id_avp",
            "rule_prefix_avp",
            "ruri_avp",
        ],
    );
    m.accepts(Accepts::TARGET, &["partition_id_pvar"]);
    m.accepts(Accepts::from(-1), &["default_group"]);
    m.param_int("generate_data_checksum", |s, v| Ok(s.settings.checksum = v != 0));
    m.param_int("probing_interval", |s, v| {
        let bad = || "a number of seconds, 0: no probes".to_string();
        Ok(s.settings.probing_interval = u64::try_from(v).map_err(|_| bad())?)
    });
    m.param_text("probing_method", |s, v| Ok(s.settings.probing_method = v.into()));
    m.param_text("probing_from", |s, v| Ok(s.settings.probing_from = v.into()));
    m.param_text("probing_socket", |s, v| Ok(s.settings.probing_socket = Some(v.into())));
    m.accepts(Accepts::TOKEN, &["probing_method"]);
    m.accepts(Accepts::SIP_URI, &["probing_from"]);
    m.accepts(Accepts::SOCKET, &["probing_socket"]);
    m.param_text("probing_reply_codes", |s, v| Ok(s.good_codes = Codes::parse(v)?));
    m.param_text("cluster_sharing_tag", |s, v| Ok(s.settings.probing_tag = Some(v.into())));
    m.param_text("cluster_probing_mode", |s, v| {
        s.settings.probes_by_tag = match v.to_ascii_lowercase().as_str() {
            "by-shtag" => true,
            "all" => false,
            "distributed" => {
                host::warn!("drouting", "cluster_probing_mode distributed: every node probes all gateways");
                false
            }
            _ => return Err(format!("`{v}` is none of all, by-shtag, distributed")),
        };
        Ok(())
    });
    for name in ["cluster_id", "status_replication_cluster"] {
        m.param_int(name, |s, v| Ok(s.settings.cluster = v));
    }
    m.accepts(Accepts::from(0), &["cluster_id", "status_replication_cluster"]);
}
