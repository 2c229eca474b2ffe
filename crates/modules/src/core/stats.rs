//! Statistics over management: `get_statistics`, `list_statistics`, `reset_statistics`.

use super::Core;
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Map, Value as Json, json};

pub fn register(m: &mut Registrar<Core>) {
    m.command("statistics:get get_statistics", "values of statistics (\"all\", \"group:\" or names)", get)
        .takes("statistics...");
    m.command("statistics:list list_statistics", "names of statistics", list).takes("[statistics...]");
    m.command("statistics:reset reset_statistics", "sets statistics to zero", reset).takes("statistics...");
    m.command("statistics:reset_all reset_all_statistics", "sets all statistics to zero", reset_all)
        .takes("");
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
        return Err(MiError::params("Too few or too many parameters"));
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
    Ok(Json::Object(out))
}

fn list(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let names = wanted(params);
    let stats = &call.shared().stats;
    let mut out = Map::new();
    for (group, name, _) in stats.list(None) {
        let full = format!("{group}:{name}");
        if names.is_empty() || names.iter().any(|wanted| is_meant(wanted, &group, &name)) {
            let kind = if stats.may_reset(&full) { "incremental" } else { "non-incremental" };
            out.insert(full, json!(kind));
        }
    }
    Ok(Json::Object(out))
}

fn reset(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let names = wanted(params);
    if names.is_empty() {
        return Err(MiError::params("Too few or too many parameters"));
    }
    let mut found = false;
    for name in names {
        let stats = &call.shared().stats;
        found |= stats.source(&name).is_some();
        stats.reset(&name);
    }
    if found { Ok(json!("OK")) } else { Err(not_found()) }
}

fn reset_all(call: &mut Call<Core>, _: &MiParams) -> MiResult {
    let stats = &call.shared().stats;
    for (group, name, _) in stats.list(None) {
        stats.reset(&format!("{group}:{name}"));
    }
    Ok(json!("OK"))
}
