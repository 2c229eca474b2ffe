//! Parameters of usrloc, and how they choose the working mode.

use super::table::{Matching, Order};
use super::{Mode, Usrloc};
use bytes::Bytes;
use host::Accepts;
use host::Registrar;
use host::db::Name;
use host::registrar::ParamFn;
use script::ast::{Dialect, ParamValue};

/// What the configuration says about the working mode. A preset wins over the single settings.
#[derive(Default)]
pub struct Chosen {
    preset: Option<Mode>,
    db_mode: Option<Mode>,
    shared: Option<Mode>,
    persistency: bool,
    write_mode: Option<Mode>,
}

impl Chosen {
    pub fn mode(&self, dialect: Dialect) -> Result<Mode, String> {
        if let Some(mode) = self.preset {
            return Ok(mode);
        }
        if let (Some(mode), Dialect::V21) = (self.db_mode, dialect) {
            return Ok(mode);
        }
        if let Some(mode) = self.shared {
            return Ok(mode);
        }
        match (self.persistency, self.write_mode) {
            (true, Some(Mode::Memory)) => {
                Err("restart_persistency needs a sql_write_mode other than none".into())
            }
            (true, mode) => Ok(mode.unwrap_or(Mode::WriteBack)),
            (false, Some(mode)) => Ok(mode),
            (false, None) => Ok(self.db_mode.unwrap_or_default()),
        }
    }
}

/// What would need the binary interface, and what to use instead.
fn no_binary(what: &str) -> String {
    format!(
        "{what} sends contacts from server to server over the binary interface, which Fermata does not have: \
         `full-sharing-cachedb-cluster` and `federation-cachedb-cluster` share them through a store \
         (cachedb_url), `sql-only` through a database"
    )
}

fn preset(s: &mut Usrloc, name: &str) -> Result<(), String> {
    s.chosen.preset = Some(match name {
        "single-instance-no-db" => Mode::Memory,
        "single-instance-sql-write-through" => Mode::WriteThrough,
        "single-instance-sql-write-back" => Mode::WriteBack,
        "sql-only" => Mode::SqlOnly,
        "full-sharing-cachedb-cluster" => Mode::Cache,
        "federation-cachedb-cluster" => {
            s.federated.wanted = true;
            Mode::Memory
        }
        "full-sharing-cluster" => return Err(no_binary("working_mode_preset `full-sharing-cluster`")),
        _ => {
            return Err(format!(
                "working_mode_preset cannot be `{name}`: single-instance-no-db, \
                 single-instance-sql-write-through, single-instance-sql-write-back, sql-only, \
                 full-sharing-cachedb-cluster or federation-cachedb-cluster"
            ));
        }
    });
    Ok(())
}

fn db_mode(s: &mut Usrloc, value: i64) -> Result<(), String> {
    s.chosen.db_mode = Some(match value {
        0 => Mode::Memory,
        1 => Mode::WriteThrough,
        2 => Mode::WriteBack,
        3 => Mode::SqlOnly,
        _ => return Err("db_mode is 0 to 3".into()),
    });
    Ok(())
}

fn cluster_mode(s: &mut Usrloc, value: &str) -> Result<(), String> {
    match value {
        "none" => {}
        "sql-only" => s.chosen.shared = Some(Mode::SqlOnly),
        "full-sharing-cachedb" => s.chosen.shared = Some(Mode::Cache),
        "federation-cachedb" => s.federated.wanted = true,
        "full-sharing" => return Err(no_binary("cluster_mode `full-sharing`")),
        _ => {
            return Err(format!(
                "cluster_mode cannot be `{value}`: none, federation-cachedb, full-sharing-cachedb or sql-only"
            ));
        }
    }
    Ok(())
}

pub fn register(m: &mut Registrar<Usrloc>) {
    m.param_int("use_domain", |s, v| {
        s.use_domain = v != 0;
        Ok(())
    });
    m.param_int("desc_time_order", |s, v| {
        s.order = if v != 0 { Order::Newest } else { Order::Q };
        Ok(())
    });
    m.param_int("matching_mode", |s, v| {
        s.matching = match v {
            0 => Matching::Uri,
            1 => Matching::UriAndCallId,
            _ => return Err("matching_mode is 0 (contact) or 1 (contact and Call-ID)".into()),
        };
        Ok(())
    });
    m.param_int("timer_interval", |s, v| {
        s.timer_s = v.max(1) as u64;
        Ok(())
    });
    m.param_text("db_url", |s, v| {
        s.db_url = Some(v.to_string());
        Ok(())
    });
    m.param(
        "nat_bflag",
        ParamFn::Any(|s, v| {
            s.nat_bflag = Some(match v {
                ParamValue::Int(n) => Bytes::from(n.to_string()),
                ParamValue::Text(t) => t.clone(),
            });
            Ok(())
        }),
    );
    m.param_text("working_mode_preset", preset);
    m.param_int("db_mode", db_mode);
    m.param_text("cluster_mode", cluster_mode);
    m.param_text("sql_write_mode", |s, v| {
        s.chosen.write_mode = Some(match v {
            "none" => Mode::Memory,
            "write-through" => Mode::WriteThrough,
            "write-back" => Mode::WriteBack,
            _ => return Err(format!("sql_write_mode cannot be `{v}`: none, write-through or write-back")),
        });
        Ok(())
    });
    m.param_text("restart_persistency", |s, v| {
        match v {
            "none" => {}
            "load-from-sql" => s.chosen.persistency = true,
            "sync-from-cluster" => return Err(no_binary("restart_persistency `sync-from-cluster`")),
            _ => return Err(format!("restart_persistency cannot be `{v}`: none or load-from-sql")),
        }
        Ok(())
    });
    m.param_int("hash_size", |s, v| {
        s.hash_size = v.clamp(1, 16) as u32;
        Ok(())
    });
    m.param_int("mi_dump_kv_store", |s, v| {
        s.dump_keys = v != 0;
        Ok(())
    });
    m.param_int("contact_refresh_timer", |s, v| {
        s.refresh.enabled = v != 0;
        Ok(())
    });
    m.accepts(Accepts::seconds(0), &["timer_interval"]);
    m.accepts(Accepts::range(0, 31), &["hash_size"]);
    columns(m);
    m.ignored(&["shared_pinging"], "every server pings the contacts that it knows");
    m.ignored(&["cseq_delay"], "a registration that is sent twice changes nothing the second time");
    m.ignored(&["max_contact_delete", "fetch_rows"], "statements are sent in batches");
    m.ignored(&["regen_broken_contactid"], "ids of contacts do not depend on the size of tables");
    m.param_int("location_cluster", |s, v| Ok(s.federated.location_cluster = number(v)?));
    m.param_int("ha_cluster", |s, v| Ok(s.federated.ha_cluster = number(v)?));
    m.param_text("ha_shtag", |s, v| Ok(s.federated.ha_tag = v.to_string()));
    m.param_text("pinging_mode", |_, v| match v {
        "ownership" | "cooperation" => Ok(()),
        _ => Err(format!("pinging_mode cannot be `{v}`: ownership or cooperation")),
    });
    let binary = "contacts do not come over a binary interface";
    m.ignored(&["skip_replicated_db_ops", "accept_replicated_contacts", "replicate_contacts_to"], binary);
    m.param_text("cachedb_url", |s, v| {
        s.cache_url = Some(v.to_string());
        Ok(())
    });
    m.param_int("latency_event_min_us", |s, v| {
        Ok(s.latencies.min_us = v.clamp(0, i64::from(u32::MAX)) as u32)
    });
    m.param_int("latency_event_min_us_delta", |s, v| {
        s.latencies.min_delta_us = v.clamp(0, i64::from(u32::MAX)) as u32;
        Ok(())
    });
}

fn number(cluster: i64) -> Result<u32, String> {
    u32::try_from(cluster).map_err(|_| "the number of a cluster is 0 (none) or above".into())
}

fn columns(m: &mut Registrar<Usrloc>) {
    macro_rules! column {
        ($($name:literal $field:ident),* $(,)?) => {
            $(m.param_text($name, |s, v| {
                s.columns.$field = Name::from(v.to_string());
                Ok(())
            });)*
        };
    }
    column!(
        "contact_id_column" contact_id, "user_column" user, "domain_column" domain, "contact_column" contact,
        "expires_column" expires, "q_column" q, "callid_column" call_id, "cseq_column" cseq,
        "methods_column" methods, "flags_column" flags, "cflags_column" cflags,
        "user_agent_column" user_agent, "received_column" received, "socket_column" socket,
        "path_column" path, "sip_instance_column" instance, "kv_store_column" keys, "attr_column" attr,
    );
}
