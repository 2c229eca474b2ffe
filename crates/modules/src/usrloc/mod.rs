//! usrloc: the user location tables that registrar and others work on.

pub mod contact;
mod mi;
pub mod table;

use bytes::Bytes;

use host::load::Loader;
use host::shared::Hooks;
use host::stats::{Counter, Stats};
use host::{Call, Ctx, OutVar, Registrar, Routes, Text};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use table::{Change, Matching, Order, Table};

/// Where contacts live besides memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    #[default]
    Memory,
    WriteThrough,
    WriteBack,
    SqlOnly,
}

pub struct Usrloc {
    tables: RwLock<Vec<Arc<Table>>>,
    pub use_domain: bool,
    pub order: Order,
    pub matching: Matching,
    pub mode: Mode,
    pub timer_s: u64,
    pub db_url: String,
    pub nat_bflag: Option<Bytes>,
    /// Mask of `nat_bflag`.
    pub nat_flag: u32,
    expired: Counter,
    persistency: bool,
}

impl Default for Usrloc {
    fn default() -> Usrloc {
        Usrloc {
            tables: RwLock::default(),
            use_domain: true,
            order: Order::Q,
            matching: Matching::Uri,
            mode: Mode::Memory,
            timer_s: 60,
            db_url: String::new(),
            nat_bflag: None,
            nat_flag: 0,
            expired: Counter::default(),
            persistency: false,
        }
    }
}

pub fn register(m: &mut Registrar<Usrloc>) {
    m.param_int("use_domain", |s, v| Ok(s.use_domain = v != 0));
    m.param_int("desc_time_order", |s, v| Ok(s.order = if v != 0 { Order::Newest } else { Order::Q }));
    m.param_int("matching_mode", |s, v| {
        s.matching = match v {
            0 => Matching::Uri,
            1 => Matching::UriAndCallId,
            _ => return Err("matching_mode is 0 (contact) or 1 (contact and Call-ID)".into()),
        };
        Ok(())
    });
    m.param_int("timer_interval", |s, v| Ok(s.timer_s = v.max(1) as u64));
    m.param_text("db_url", |s, v| Ok(s.db_url = v.into()));
    m.param("nat_bflag", host::registrar::ParamFn::Any(|s, v| {
        s.nat_bflag = Some(match v {
            script::ast::ParamValue::Int(n) => Bytes::from(n.to_string()),
            script::ast::ParamValue::Text(t) => t.clone(),
        });
        Ok(())
    }));
    m.param_text("working_mode_preset", working_mode);
    m.param_text("sql_write_mode", |s, v| {
        s.mode = match v {
            "none" => Mode::Memory,
            "write-through" => Mode::WriteThrough,
            "write-back" => Mode::WriteBack,
            _ => return Err(format!("sql_write_mode cannot be `{v}`: none, write-through or write-back")),
        };
        Ok(())
    });
    m.param_text("restart_persistency", |s, v| match v {
        "none" => Ok(()),
        "load-from-sql" => Ok(s.persistency = true),
        _ => Err(format!("restart_persistency `{v}` does not exist in Fermata yet")),
    });
    m.param_text("cluster_mode", |_, v| match v {
        "none" => Ok(()),
        _ => Err(format!("cluster_mode `{v}` does not exist in Fermata yet")),
    });
    m.param_int("db_mode", |s, v| {
        s.mode = match v {
            0 => Mode::Memory,
            1 => Mode::WriteThrough,
            2 => Mode::WriteBack,
            3 => Mode::SqlOnly,
            _ => return Err("db_mode is 0 to 3".into()),
        };
        Ok(())
    });
    m.ignored(&["hash_size"], "tables grow by themselves");
    m.ignored(&["cseq_delay", "regen_broken_contactid", "skip_replicated_db_ops", "max_contact_delete"], "not needed by this design");
    m.ignored(&["location_cluster", "ha_cluster", "ha_shtag", "pinging_mode", "cachedb_url"], "clustering does not exist yet");
    m.ignored(&["latency_event_min_us", "latency_event_min_us_delta", "mi_dump_kv_store", "contact_refresh_timer"], "not built yet");
    m.function("ul_add_key", Routes::ALL, ul_add_key);
    m.function("ul_get_key", Routes::ALL, ul_get_key);
    m.function("ul_del_key", Routes::ALL, ul_del_key);
    mi::register(m);
    m.init(init);
    m.ready(ready);
}

fn working_mode(s: &mut Usrloc, preset: &str) -> Result<(), String> {
    s.mode = match preset {
        "single-instance-no-db" => Mode::Memory,
        "single-instance-sql-write-through" => Mode::WriteThrough,
        "single-instance-sql-write-back" => Mode::WriteBack,
        "sql-only" => Mode::SqlOnly,
        _ => return Err(format!("working_mode_preset `{preset}` does not exist in Fermata yet")),
    };
    Ok(())
}

fn init(s: &mut Usrloc, loader: &mut Loader) -> Result<(), String> {
    if s.persistency && s.mode == Mode::Memory {
        s.mode = Mode::WriteBack;
    }
    if let Some(flag) = s.nat_bflag.clone() {
        s.nat_flag = loader.branch_flag(&flag, script::Loc::default()).map_err(|d| d.message)?;
    }
    Ok(())
}

fn ready(module: &Arc<Usrloc>, hooks: &mut Hooks, stats: &Stats) {
    type Read = fn(&Table) -> i64;
    let statistics: [(&str, Read); 2] =
        [("registered_users", |t| t.records.load(Ordering::Relaxed)), ("contacts", |t| t.contacts.load(Ordering::Relaxed))];
    for (name, read) in statistics {
        let module = module.clone();
        let sum = move || module.tables.read().iter().map(|t| read(t)).sum();
        stats.computed("usrloc", name, sum);
    }
    let module = module.clone();
    hooks.timers.push((module.timer_s * 1000, Arc::new(move |ctx| module.expire(ctx))));
}

impl Usrloc {
    /// The table of this name, made at its first use.
    pub fn table(&self, name: &str) -> Arc<Table> {
        if let Some(table) = self.find_table(name) {
            return table;
        }
        let mut tables = self.tables.write();
        match tables.iter().find(|t| t.name == name) {
            Some(table) => table.clone(),
            None => {
                let table = Arc::new(Table::new(name));
                tables.push(table.clone());
                table
            }
        }
    }

    pub fn find_table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.read().iter().find(|t| t.name == name).cloned()
    }

    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.tables.read().clone()
    }

    /// Tells everybody who is interested what changed.
    pub fn changed(&self, ctx: &mut Ctx, table: &Table, aor: &[u8], changes: &[Change]) {
        let _ = (ctx, table, aor, changes);
    }

    fn expire(&self, ctx: &mut Ctx) {
        let now = now_s(ctx);
        for table in self.tables() {
            for (aor, change) in table.expire(now) {
                if matches!(change, Change::Deleted(_)) {
                    self.expired.up();
                }
                self.changed(ctx, &table, &aor, &[change]);
            }
        }
    }
}

/// Unix seconds of this step.
pub fn now_s(ctx: &Ctx) -> u32 {
    (ctx.core.wall_us / 1_000_000) as u32
}

fn ul_add_key(call: &mut Call<Usrloc>, table: Text, aor: Text, key: Text, value: Option<Text>) -> bool {
    let value = value.map(|v| v.0).unwrap_or_default();
    set_key(call, &table, &aor, key.0, value)
}

fn ul_del_key(call: &mut Call<Usrloc>, table: Text, aor: Text, key: Text) -> bool {
    set_key(call, &table, &aor, key.0, Bytes::new())
}

/// An empty value removes the key. False when the address is not registered.
fn set_key(call: &mut Call<Usrloc>, table: &Text, aor: &[u8], key: Bytes, value: Bytes) -> bool {
    let Some(table) = call.module.find_table(&table.str()) else { return false };
    let (known, _) = table.with(aor, |record, _| {
        if record.contacts.is_empty() {
            return false;
        }
        let keys = record.keys.get_or_insert_default();
        keys.retain(|(k, _)| *k != key);
        if !value.is_empty() {
            keys.push((key, value));
        }
        true
    });
    known
}

fn ul_get_key(call: &mut Call<Usrloc>, table: Text, aor: Text, key: Text, out: OutVar) -> bool {
    let Some(table) = call.module.find_table(&table.str()) else { return false };
    let (value, _) = table.with(&aor, |record, _| {
        record.keys.as_ref().and_then(|keys| keys.iter().find(|(k, _)| *k == key.0).map(|(_, v)| v.clone()))
    });
    match value {
        Some(value) => out.set(call.ctx, value),
        None => false,
    }
}

