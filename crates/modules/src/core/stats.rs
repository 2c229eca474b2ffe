//! Statistics over management: `get_statistics`, `list_statistics`, `reset_statistics`; and those of the
//! process itself.

use super::Core;
use host::mi::{MiError, MiParams, MiResult};
use host::shared::Hooks;
use host::stats::{Source, Stats};
use host::{Call, Registrar};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Core>) {
    for name in ["get_statistics", "statistics:get"] {
        m.command(name, "values of statistics (\"all\", \"group:\" or names): get_statistics statistics", get);
    }
    for name in ["list_statistics", "statistics:list"] {
        m.command(name, "names of statistics: list_statistics [statistics]", list);
    }
    for name in ["reset_statistics", "statistics:reset"] {
        m.command(name, "sets statistics to zero: reset_statistics statistics", reset);
    }
    for name in ["reset_all_statistics", "statistics:reset_all"] {
        m.command(name, "sets all statistics to zero", reset_all);
    }
    m.ready(ready);
}

/// What the reference calls shared memory is the memory of the process here.
fn ready(_: &Arc<Core>, _: &mut Hooks, stats: &Stats) {
    type Read = fn(&Memory) -> i64;
    let all: [(&str, Read); 4] = [
        ("total_size", |m| m.total),
        ("used_size", |m| m.used),
        ("real_used_size", |m| m.used),
        ("free_size", |m| (m.total - m.used).max(0)),
    ];
    for (name, read) in all {
        stats.computed("shmem", name, move || read(&Memory::now()));
    }
}

/// Bytes.
struct Memory {
    /// Of the machine.
    total: i64,
    /// Resident, of this process.
    used: i64,
}

impl Memory {
    fn now() -> Memory {
        let number = |file: &str, word: usize| -> i64 {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.split_whitespace().nth(word).and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        // /proc/meminfo begins "MemTotal: N kB"; statm's second number counts pages of 4 KiB.
        Memory { total: number("/proc/meminfo", 1) * 1024, used: number("/proc/self/statm", 1) * 4096 }
    }
}

/// The names asked for: a list, or one name per positional parameter.
fn wanted(params: &MiParams) -> Vec<String> {
    let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let texts = |v: &Json| match v {
        Json::Array(list) => list.iter().map(text).collect(),
        one => vec![text(one)],
    };
    match params.named.get("statistics") {
        Some(value) => texts(value),
        None => params.positional.iter().flat_map(texts).collect(),
    }
}

/// A statistic is meant by its name, its full name, or its group with a colon.
fn is_meant(wanted: &str, group: &str, name: &str) -> bool {
    wanted == name
        || wanted.strip_suffix(':') == Some(group)
        || wanted.split_once(':').is_some_and(|(g, n)| g == group && n == name)
}

fn not_found() -> MiError {
    MiError::new(404, "Statistics Not Found")
}

fn get(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let names = wanted(params);
    if names.is_empty() {
        return Err(MiError::params("missing parameter: statistics"));
    }
    let all = call.shared().stats.list(None);
    let mut out = Map::new();
    for wanted in names {
        for (group, name, value) in &all {
            if wanted == "all" || is_meant(&wanted, group, name) {
                out.insert(format!("{group}:{name}"), json!(value));
            }
        }
    }
    if out.is_empty() { Err(not_found()) } else { Ok(Json::Object(out)) }
}

fn list(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let names = wanted(params);
    let stats = &call.shared().stats;
    let mut out = Map::new();
    for (group, name, _) in stats.list(None) {
        if names.is_empty() || names.iter().any(|wanted| is_meant(wanted, &group, &name)) {
            let counts = matches!(stats.source(&name), Some(Source::Counter(_)));
            out.insert(format!("{group}:{name}"), json!(if counts { "incremental" } else { "non-incremental" }));
        }
    }
    if out.is_empty() { Err(not_found()) } else { Ok(Json::Object(out)) }
}

fn reset(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let names = wanted(params);
    if names.is_empty() {
        return Err(MiError::params("missing parameter: statistics"));
    }
    let mut found = false;
    for name in names {
        if let Some(source) = call.shared().stats.source(&name) {
            found = true;
            if let Source::Counter(counter) = source {
                counter.set(0);
            }
        }
    }
    if found { Ok(json!("OK")) } else { Err(not_found()) }
}

fn reset_all(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    let stats = &call.shared().stats;
    for (_, name, _) in stats.list(None) {
        if let Some(Source::Counter(counter)) = stats.source(&name) {
            counter.set(0);
        }
    }
    Ok(json!("OK"))
}
