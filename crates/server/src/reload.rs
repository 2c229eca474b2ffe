//! `reload_routes`: reads the script again on a thread of its own.

use crate::cli::Run;
use crate::config::{self, Refused};
use host::Shared;
use host::mi::{MiAnswer, MiError, MiResult};
use script::ast::Config;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What to read, and how.
struct Script {
    file: PathBuf,
    run: Run,
    /// One reload at a time.
    busy: AtomicBool,
}

/// Makes `reload_routes` work. Called before the server changes its folder.
pub fn offer(shared: &Shared, run: &Run) {
    let file = run.file.clone().unwrap_or_else(|| config::BUILT_IN.into());
    let file = if config::is_built_in(&file) { file } else { std::path::absolute(&file).unwrap_or(file) };
    let script = Arc::new(Script { file, run: run.clone(), busy: AtomicBool::new(false) });
    shared.set_reload(Box::new(move |shared, answer| start(&script, shared, answer)));
}

fn start(script: &Arc<Script>, shared: &Arc<Shared>, answer: MiAnswer) {
    if script.busy.swap(true, Ordering::AcqRel) {
        return answer.give(Err(MiError::new(500, "A reload is under way")));
    }
    let (script, shared) = (script.clone(), shared.clone());
    // Dropped with the thread that could not be made, the answer is an internal error.
    let thread = std::thread::Builder::new().name("reload".into()).spawn(move || {
        let result = reload(&script.file, &script.run, &shared);
        script.busy.store(false, Ordering::Release);
        answer.give(result);
    });
    if let Err(e) = thread {
        host::error!("core", "cannot reload: {e}");
    }
}

/// What a configuration says besides routes and the one that runs does not: each thing in words.
fn left_out(runs: &Config, read: &Config) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut left = Vec::new();
    let names = |config: &Config| config.modules.iter().map(|m| text(&m.name)).collect::<Vec<_>>();
    let (old, new) = (names(runs), names(read));
    left.extend(new.iter().filter(|m| !old.contains(m)).map(|m| format!("module {m} is new")));
    left.extend(old.iter().filter(|m| !new.contains(m)).map(|m| format!("module {m} is gone")));
    let params = |config: &Config| {
        let mut list: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for param in &config.params {
            let name = format!("parameter {} of module {}", text(&param.name), text(&param.module));
            list.entry(name).or_default().push(format!("{:?}", param.value));
        }
        list
    };
    left.extend(differences(&params(runs), &params(read)));
    let globals = |config: &Config| {
        let mut list: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for global in &config.globals {
            let name = match &global.name[..] {
                b"socket" | b"listen" => "sockets".to_owned(),
                name => format!("core parameter {}", text(name)),
            };
            list.entry(name).or_default().push(format!("{:?}", global.value));
        }
        list
    };
    left.extend(differences(&globals(runs), &globals(read)));
    left
}

/// Names whose values differ: new, gone or changed.
fn differences(old: &BTreeMap<String, Vec<String>>, new: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let changed = new.iter().filter_map(|(name, values)| match old.get(name) {
        None => Some(format!("{name}: new")),
        Some(before) if before != values => Some(format!("{name}: changed")),
        Some(_) => None,
    });
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("{name}: gone"));
    changed.chain(gone).collect()
}

fn reload(file: &Path, run: &Run, shared: &Arc<Shared>) -> MiResult {
    let begin = Instant::now();
    let mut sources = (*shared.sources()).clone();
    let (mut config, problems) = config::parse(file, run, &mut sources);
    let graph = config::routes_shown(shared, &config);
    let outcome = match problems.iter().any(script::Diagnostic::is_error) {
        true => Err((sources, problems)),
        false => host::reload::reload(shared, &mut config, sources),
    };
    match outcome {
        Ok(routes) => {
            *shared.graph.write() = graph;
            let ms = begin.elapsed().as_millis();
            host::notice!("core", "{routes} routes of {} are in place, after {ms} ms", file.display());
            let left = left_out(&shared.declared, &config);
            if left.is_empty() {
                return Ok(json!("OK"));
            }
            host::warn!(
                "core",
                "only a restart takes over what else has changed in {}: {}",
                file.display(),
                left.join("; ")
            );
            Ok(json!({"Routes": "OK", "Not taken over": left}))
        }
        Err((sources, diagnostics)) => {
            let refused = Refused { sources, diagnostics };
            let text = refused.problems();
            host::error!("core", "the routes stay as they are:\n{}", text.trim_end());
            Err(MiError {
                data: Some(text),
                ..MiError::new(500, "Reload failed, the routes stay as they are")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use script::{Options, Sources};

    #[test]
    fn what_a_reload_leaves_out() {
        let read =
            |text: &str| script::parse_text("t.cfg", text, &mut Sources::default(), Options::default()).0;
        let old = read(
            "log_level=3\nsocket=udp:127.0.0.1:5060\nloadmodule \"tm.so\"\nloadmodule \"rr.so\"\n\
             modparam(\"tm\", \"fr_timeout\", 5)\nmodparam(\"rr\", \"append_fromtag\", 1)\nroute { exit; }",
        );
        assert_eq!(left_out(&old, &old), Vec::<String>::new());
        let new = read(
            "xlog_level=3\nsocket=udp:127.0.0.1:5061\nloadmodule \"tm.so\"\nloadmodule \"sl.so\"\n\
             modparam(\"tm\", \"fr_timeout\", 6)\nmodparam(\"tm\", \"wt_timer\", 1)\nroute { drop; }",
        );
        assert_eq!(
            left_out(&old, &new),
            [
                "module sl is new",
                "module rr is gone",
                "parameter fr_timeout of module tm: changed",
                "parameter wt_timer of module tm: new",
                "parameter append_fromtag of module rr: gone",
                "core parameter xlog_level: new",
                "sockets: changed",
                "core parameter log_level: gone",
            ]
        );
    }
}
