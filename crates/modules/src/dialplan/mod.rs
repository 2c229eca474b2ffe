//! dialplan: texts translated by the rules of a table.
//!
//! The rules are in memory. A script that comes before they are loaded waits for them; when the database is
//! down at the start the load is tried again until it works.

mod old;
mod rules;

use bytes::Bytes;
use host::arg::OutVar;
use host::call::Finish;
use host::ctx::Ctx;
use host::db::{Db, DbError, Query};
use host::load::Loader;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::registrar::Since;
use host::{Call, Int, Outcome, Registrar, Routes, Suspension, Text};
use parking_lot::RwLock;
use rules::{Rules, Translation};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

const DEFAULT: &str = "default";
/// Columns in the order in which the rules read them, with the parameters that rename them.
const COLUMNS: [(&str, &str); 11] = [
    ("id_col", "id"),
    ("dpid_col", "dpid"),
    ("pr_col", "pr"),
    ("match_op_col", "match_op"),
    ("match_exp_col", "match_exp"),
    ("match_flags_col", "match_flags"),
    ("subst_exp_col", "subst_exp"),
    ("repl_exp_col", "repl_exp"),
    ("timerec_col", "timerec"),
    ("disabled_col", "disabled"),
    ("attrs_col", "attrs"),
];
/// Between two attempts to load, when the database is down.
const RETRY_MS: u64 = 5000;

pub struct Dialplan {
    db_url: Option<String>,
    table: String,
    columns: [String; COLUMNS.len()],
    /// As written in `partition` parameters: (name, url, table).
    wanted: Vec<(String, Option<String>, Option<String>)>,
    /// `default: pstn`
    default: Option<String>,
    partitions: Vec<Arc<Partition>>,
}

impl Default for Dialplan {
    fn default() -> Dialplan {
        Dialplan {
            db_url: None,
            table: "dialplan".to_string(),
            columns: COLUMNS.map(|(_, name)| name.to_string()),
            wanted: Vec::new(),
            default: None,
            partitions: Vec::new(),
        }
    }
}

/// One table.
struct Partition {
    name: String,
    table: String,
    db: Db,
    rules: RwLock<Option<Arc<Rules>>>,
    /// True once the first load has ended, well or not.
    tried: watch::Sender<bool>,
    loading: AtomicBool,
}

pub fn register(m: &mut Registrar<Dialplan>) {
    m.param_text("db_url", |s, v| Ok(s.db_url = Some(v.to_string())));
    m.param_text("table_name", |s, v| Ok(s.table = v.to_string()));
    m.param_text("dpid_col", |s, v| Ok(s.columns[1] = v.to_string()));
    m.param_text("pr_col", |s, v| Ok(s.columns[2] = v.to_string()));
    m.param_text("match_op_col", |s, v| Ok(s.columns[3] = v.to_string()));
    m.param_text("match_exp_col", |s, v| Ok(s.columns[4] = v.to_string()));
    m.param_text("match_flags_col", |s, v| Ok(s.columns[5] = v.to_string()));
    m.param_text("subst_exp_col", |s, v| Ok(s.columns[6] = v.to_string()));
    m.param_text("repl_exp_col", |s, v| Ok(s.columns[7] = v.to_string()));
    m.param_text("timerec_col", |s, v| Ok(s.columns[8] = v.to_string()));
    m.param_text("disabled_col", |s, v| Ok(s.columns[9] = v.to_string()));
    m.param_text("attrs_col", |s, v| Ok(s.columns[10] = v.to_string()));
    m.param_text("partition", Dialplan::add_partition);
    m.init(Dialplan::init);
    m.start(|call| {
        if call.core.worker == 0 {
            for partition in call.module.partitions.clone() {
                load(call.ctx, &call.module.columns, &partition, |_, _| ());
            }
        }
    });
    m.timer(RETRY_MS, |call| {
        for partition in call.module.partitions.clone() {
            if partition.rules.read().is_none() {
                load(call.ctx, &call.module.columns, &partition, |_, _| ());
            }
        }
    });
    m.function_of(Since::V4, "dp_translate", Routes::ALL, dp_translate);
    m.function_of(Since::V21, "dp_translate", Routes::ALL, old::dp_translate);
    m.command_late("dialplan:reload dp_reload", "loads the rules again", reload).takes("[partition]");
    m.command("dialplan:translate dp_translate", "translates a text", translate_command)
        .takes("dpid input [partition]");
    m.command("dialplan:show_partition dp_show_partition", "partitions and their tables", show_partition)
        .takes("[partition]");
}

impl Dialplan {
    /// "name: table_name = x; db_url = y", or "default: name".
    fn add_partition(&mut self, text: &str) -> Result<(), String> {
        let (name, rest) = text.split_once(':').ok_or_else(|| format!("`{text}` is not name: settings"))?;
        let (name, rest) = (name.trim().to_string(), rest.trim());
        if name == DEFAULT && !rest.contains('=') {
            self.default = Some(rest.trim_end_matches(';').trim().to_string());
            return Ok(());
        }
        let (mut url, mut table) = (None, None);
        for setting in rest.split(';').map(str::trim).filter(|s| !s.is_empty()) {
            match setting.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("table_name", value)) => table = Some(value.to_string()),
                Some(("db_url", value)) => url = Some(value.to_string()),
                _ => return Err(format!("`{setting}` is not table_name = x or db_url = x")),
            }
        }
        self.wanted.push((name, url, table));
        Ok(())
    }

    fn init(&mut self, loader: &mut Loader) -> Result<(), String> {
        let mut wanted = std::mem::take(&mut self.wanted);
        let has_default = self.default.is_some() || wanted.iter().any(|(name, ..)| name == DEFAULT);
        // Without a database of its own the default partition is there only when it is needed.
        if !has_default && (wanted.is_empty() || self.db_url.is_some()) {
            wanted.push((DEFAULT.to_string(), None, None));
        }
        for (name, url, table) in wanted {
            let url = url.as_deref().or(self.db_url.as_deref());
            let db = loader.db_or_default(url)?.ok_or_else(|| format!("partition {name} has no db_url"))?;
            self.partitions.push(Arc::new(Partition {
                name,
                table: table.unwrap_or_else(|| self.table.clone()),
                db,
                rules: RwLock::new(None),
                tried: watch::Sender::new(false),
                loading: AtomicBool::new(false),
            }));
        }
        match &self.default {
            Some(name) if self.find(name).is_none() => {
                Err(format!("the default partition {name} does not exist"))
            }
            _ => Ok(()),
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Partition>> {
        let name = match (&self.default, name) {
            (Some(real), DEFAULT) => real,
            _ => name,
        };
        self.partitions.iter().find(|p| p.name == name).cloned()
    }
}

/// Reads the table and puts its rules in place; `done` sees how it went. A load under way is not doubled.
fn load(
    ctx: &mut Ctx,
    columns: &[String],
    partition: &Arc<Partition>,
    done: impl FnOnce(&mut Ctx, Result<(), DbError>) + 'static,
) {
    if partition.loading.swap(true, Ordering::AcqRel) {
        return done(ctx, Ok(()));
    }
    let before = partition.rules.read().is_some();
    let told = |ctx: &Ctx, name: &str, text: String| {
        ctx.shared().status.report("dialplan", name, ctx.core.wall_us / 1_000_000, text)
    };
    let status =
        |ctx: &Ctx, name: &str, level, details| ctx.shared().status.set("dialplan", name, level, details);
    match before {
        true => status(ctx, &partition.name, 2, "reloading data"),
        false => status(ctx, &partition.name, -1, "loading data"),
    }
    told(ctx, &partition.name, "starting DB data loading".into());
    let query = Query::select(partition.table.clone()).columns(columns.to_vec());
    let target = partition.clone();
    partition.db.clone().spawn(ctx, "dialplan", query, move |ctx, rows| {
        let result = rows.map(|rows| {
            let rules = Rules::new(rows.iter());
            let (loaded, discarded) = (rules.loaded, rules.discarded);
            *target.rules.write() = Some(Arc::new(rules));
            host::info!("dialplan", "{}: {loaded} rules loaded ({discarded} discarded)", target.name);
            told(ctx, &target.name, "DB data loading successfully completed".into());
            told(ctx, &target.name, format!("{loaded} rules loaded ({discarded} discarded)"));
            status(ctx, &target.name, 1, "data available");
        });
        if let Err(error) = &result {
            host::warn!("dialplan", "{}: the rules could not be loaded: {error}", target.name);
            told(ctx, &target.name, format!("DB data loading failed, discarding: {error}"));
            match before {
                true => status(ctx, &target.name, 1, "data available"),
                false => status(ctx, &target.name, -2, "no data loaded"),
            }
        }
        target.loading.store(false, Ordering::Release);
        target.tried.send_replace(true);
        done(ctx, result);
    });
}

/// dp_translate(id, input, [result], [attributes], [partition])
fn dp_translate(
    call: &mut Call<Dialplan>,
    id: Int,
    input: Text,
    out: Option<OutVar>,
    attrs: Option<OutVar>,
    partition: Option<Text>,
) -> Outcome {
    let name = partition.map_or(DEFAULT.into(), |p| p.str().into_owned());
    begin(call, id.0, input.0, out, attrs, &name)
}

/// Translates now, or when the rules are there.
fn begin(
    call: &mut Call<Dialplan>,
    id: i64,
    input: Bytes,
    out: Option<OutVar>,
    attrs: Option<OutVar>,
    name: &str,
) -> Outcome {
    let Some(partition) = call.module.find(name) else {
        host::warn!("dialplan", "there is no partition {name}");
        return Outcome::Done(-1);
    };
    if partition.rules.read().is_some() || *partition.tried.borrow() {
        return Outcome::Done(translate(call.ctx, &partition, id, &input, out, attrs));
    }
    let mut tried = partition.tried.subscribe();
    Suspension::future("dp_translate", async move {
        let _ = tried.wait_for(|tried| *tried).await;
        Box::new(move |ctx: &mut Ctx| translate(ctx, &partition, id, &input, out, attrs)) as Finish
    })
}

fn translate(
    ctx: &mut Ctx,
    partition: &Partition,
    id: i64,
    input: &Bytes,
    out: Option<OutVar>,
    attrs: Option<OutVar>,
) -> i32 {
    let Some(rules) = partition.rules.read().clone() else { return -1 };
    let Some(Translation { output, attrs: found }) = rules.translate(ctx, id, input) else { return -1 };
    let written = out.is_none_or(|out| out.set(ctx, output));
    let written = attrs.is_none_or(|attrs| attrs.set(ctx, found)) && written;
    if written { 1 } else { -1 }
}

fn chosen(module: &Dialplan, name: Option<String>) -> Result<Vec<Arc<Partition>>, MiError> {
    match name {
        None => Ok(module.partitions.clone()),
        Some(name) => match module.find(&name) {
            Some(partition) => Ok(vec![partition]),
            None => Err(MiError::new(404, "there is no such partition")),
        },
    }
}

fn reload(call: &mut Call<Dialplan>, params: &MiParams, answer: MiAnswer) {
    match chosen(call.module, params.text("partition", 0)) {
        Ok(partitions) => reload_next(call.ctx, call.module.columns.to_vec(), partitions, answer),
        Err(error) => answer.give(Err(error)),
    }
}

/// One after the other; the first failure is the answer.
fn reload_next(ctx: &mut Ctx, columns: Vec<String>, mut partitions: Vec<Arc<Partition>>, answer: MiAnswer) {
    let Some(partition) = partitions.pop() else { return answer.give(Ok(json!("OK"))) };
    load(ctx, &columns.clone(), &partition, move |ctx, result| match result {
        Ok(()) => reload_next(ctx, columns, partitions, answer),
        Err(error) => answer.give(Err(MiError::new(500, error.to_string()))),
    });
}

fn translate_command(call: &mut Call<Dialplan>, params: &MiParams) -> MiResult {
    let dpid = params.int("dpid", 0)?.ok_or_else(|| MiError::params("dpid is missing"))?;
    let input = params.need("input", 1)?;
    let name = params.text("partition", 2).unwrap_or_else(|| DEFAULT.to_string());
    let partition = call.module.find(&name).ok_or_else(|| MiError::new(404, "there is no such partition"))?;
    let rules = partition.rules.read().clone();
    let rules = rules.filter(|rules| rules.has(dpid));
    let Some(rules) = rules else { return Err(MiError::new(404, "No information available for dpid")) };
    match rules.translate(call.ctx, dpid, &Bytes::from(input)) {
        Some(found) => Ok(json!({
            "Output": String::from_utf8_lossy(&found.output),
            "ATTRIBUTES": String::from_utf8_lossy(&found.attrs),
        })),
        None => Err(MiError::new(404, "translation failed")),
    }
}

fn show_partition(call: &mut Call<Dialplan>, params: &MiParams) -> MiResult {
    let shown =
        |p: &Arc<Partition>| json!({"name": p.name, "table": p.table, "db_url": p.db.url().to_string()});
    let list: Vec<Json> = chosen(call.module, params.text("partition", 0))?.iter().map(shown).collect();
    Ok(json!({"Partitions": list}))
}
