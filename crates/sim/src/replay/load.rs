//! The configuration of a recording, loaded with nothing outside.

use super::{Script, ops};
use capture::recorder::format::Recording;
use capture::recorder::reloads::Reload;
use host::{ModuleDef, Shared};
use script::ast::{Global, GlobalValue};
use script::{Loc, Options, Probes, Severity, Sources};
use std::collections::HashMap;
use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;

/// Puts the routes of a reload in place, as it did. False: they cannot be read.
pub fn reload(recording: &Recording, reload: &Reload, shared: &Arc<Shared>) -> bool {
    let files = recording.files_of(reload);
    let Some((main, _)) = recording.first_files().into_iter().next() else { return false };
    let mut sources = (*shared.sources()).clone();
    let mut read = |path: &str| {
        let text = files.get(path).map(|text| text.clone().into_bytes());
        text.ok_or_else(|| Error::new(ErrorKind::NotFound, "it is not in the recording"))
    };
    let (mut config, problems) = script::parse_file(&main, &mut read, &mut sources, Options::default());
    !problems.iter().any(script::Diagnostic::is_error)
        && host::reload::reload(shared, &mut config, sources).is_ok()
}

/// Loads the recorded script, or another one, for the recorded sockets. The error is for the user.
pub fn load(recording: &Recording, script: &Script, modules: &'static [ModuleDef]) -> Result<Shared, String> {
    let files = recording.first_files();
    let main = files.first().ok_or("the recording has no script")?.0.clone();
    let texts: HashMap<String, String> = files.into_iter().collect();
    let mut sources = Sources::default();
    let (name, recorded) = match script {
        Script::Recorded => (main, true),
        Script::Other(path) => (path.to_string_lossy().into_owned(), false),
    };
    let mut read = |path: &str| {
        if !recorded {
            return std::fs::read(path);
        }
        let text = texts.get(path).map(|text| text.clone().into_bytes());
        text.ok_or_else(|| Error::new(ErrorKind::NotFound, "it is not in the recording"))
    };
    let (mut config, problems) = script::parse_file(&name, &mut read, &mut sources, Options::default());
    let errors = |sources: &Sources, list: &[script::Diagnostic]| -> String {
        list.iter().filter(|d| d.severity == Severity::Error).map(|d| sources.render(d)).collect()
    };
    let found = errors(&sources, &problems);
    if !found.is_empty() {
        return Err(found);
    }
    config.globals.retain(|global| !matches!(&global.name[..], b"socket" | b"listen"));
    for word in recording.head["listen"].as_array().into_iter().flatten().filter_map(|word| word.as_str()) {
        let value = GlobalValue::Word(word.to_string().into());
        config.globals.push(Global { name: "socket".into(), value, loc: Loc::default() });
    }
    let wall_ms = recording.head["started_ms"].as_u64().unwrap_or_default();
    let seed = recording.head["seed"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    let loaded = host::load_with(&config, sources, modules, wall_ms, seed, |loader| {
        loader.probes = Probes::Statements;
        loader.databases_instead(Arc::new(|module| Arc::new(ops::Nowhere(module))));
        loader.stores_instead(Arc::new(ops::store));
    });
    let shared = loaded.map_err(|(sources, list)| errors(&sources, &list))?;
    if let Some(seconds) = recording.head["utc_offset"].as_i64() {
        host::clock::set_utc_offset(seconds as i32);
    }
    let addresses = recording.head["local_addresses"].as_array().cloned().unwrap_or_default();
    let addresses = addresses.iter().filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok());
    shared.local_addresses.write().extend(addresses);
    let arguments = recording.head["arguments"].as_array().into_iter().flatten();
    let arguments = arguments.filter_map(|word| word.as_str().map(str::to_string)).collect();
    let _ = shared.arguments.set(arguments);
    Ok(shared)
}
