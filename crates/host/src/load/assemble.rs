//! From a syntax tree to what workers run: core parameters, modules, prepared routes. Every problem
//! is reported, not only the first.

use super::globals;
use super::modules::{self, Here};
use super::registrar::ModuleDef;
use super::reload::Reloader;
use crate::context::globals::Globals;
use crate::context::parts::Parts;
use crate::context::shared::{Hooks, Shared};
use crate::context::stats::Stats;
use crate::language::arg::HowCalled;
use crate::language::late::Late;
use crate::language::loader::Loader;
use crate::language::vartable::VarTable;
use crate::services::cachedb::Caches;
use crate::services::db::{Proof, Proofs};
use crate::services::events::{EventRoute, Events, ScriptEvents};
use crate::services::mi::Commands;
use crate::services::streams::Streams;
use crate::tm::Policy;
use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::RwLock;
use script::ast::{Config, GlobalValue, RouteKind};
use script::{Diagnostic, RouteId, Sources};
use std::sync::Arc;

/// The folder of the main file; that of the process when the name has none.
fn folder_of(sources: &Sources) -> std::path::PathBuf {
    let main = sources.files.first().map(|f| std::path::Path::new(&f.name));
    main.and_then(std::path::Path::parent).map(std::path::Path::to_path_buf).unwrap_or_default()
}

/// Checks and prepares a configuration. `core` is always loaded. Problems: the list holds at least
/// one error; `seed` makes tags and must not be guessable outside tests; warnings alone come with `Shared::warnings`.
pub fn load(
    config: &Config,
    sources: Sources,
    known: &'static [ModuleDef],
    wall_ms: u64,
    seed: u64,
) -> Result<Shared, (Sources, Vec<Diagnostic>)> {
    load_with(config, sources, known, wall_ms, seed, |_| ())
}

/// The same with a word to the loader before modules are loaded: stand-ins for databases and stores, probes.
pub fn load_with(
    config: &Config,
    sources: Sources,
    known: &'static [ModuleDef],
    wall_ms: u64,
    seed: u64,
    prepare: impl FnOnce(&mut Loader),
) -> Result<Shared, (Sources, Vec<Diagnostic>)> {
    let mut vars = VarTable::new(crate::vars::takes_index);
    crate::vars::register(&mut vars);
    let mut parts = Parts::default();
    parts.set(Here { known, ..Here::default() });
    let mut loader = Loader {
        dialect: config.dialect,
        globals: Globals::default(),
        diagnostics: Vec::new(),
        stats: Stats::default(),
        vars,
        module_vars: AHashMap::new(),
        trans: AHashMap::new(),
        core_trans: crate::tran::prepare,
        unknown_variable: modules::unknown_variable,
        locals: AHashMap::new(),
        routes: config.routes.iter().map(|r| (r.kind, r.name.clone())).collect(),
        flags: Vec::new(),
        branch_flags: Vec::new(),
        loaded: Vec::new(),
        states: AHashMap::new(),
        seed,
        folder: folder_of(&sources),
        initial_vars: Vec::new(),
        probes: script::Probes::None,
        awaited: Vec::new(),
        how_called: HowCalled { waits: script::Waits::Plain, timeout_ms: None },
        all_awaited: 0,
        index_taken: false,
        parts,
    };
    loader.globals = Globals::read(config, &mut loader.diagnostics);
    let remembers = !loader.globals.core.disable_dns_blacklist;
    let blacklists = globals::blacklists(config, remembers, &mut loader.diagnostics);
    *loader.part() = Arc::new(blacklists);
    let streams = Streams::new(&mut loader);
    prepare(&mut loader);
    loader.load_modules(config);
    let (program, problems) = script::compile(config, &mut loader);
    loader.diagnostics.extend(problems);
    if loader.diagnostics.iter().any(|d| d.severity == script::Severity::Error) {
        return Err((sources, loader.diagnostics));
    }
    let mut hooks = Hooks::default();
    let mut commands = Commands::default();
    for (name, module) in loader.part::<Here>().modules.clone().iter() {
        hooks.watch.module = name;
        module.hooks(&mut hooks, &loader.stats);
        commands.0.extend(module.commands(name));
    }
    crate::services::db::hooks(&mut loader, &mut hooks);
    if let Err(contradiction) = hooks.watch.arrange() {
        loader.diagnostics.push(Diagnostic::error(script::Loc::default(), contradiction));
        return Err((sources, loader.diagnostics));
    }
    let mut shared = Shared {
        declared: Default::default(),
        graph: Default::default(),
        told_backends: Default::default(),
        program: RwLock::new(Arc::new(program)),
        sources: RwLock::new(Arc::new(sources)),
        sockets: loader.globals.sockets.clone(),
        globals: loader.globals.clone(),
        stats: loader.stats.clone(),
        hooks,
        modules: loader.states.clone(),
        module_names: loader.loaded.clone(),
        flag_names: RwLock::new(loader.flags.clone()),
        branch_flag_names: RwLock::new(loader.branch_flags.clone()),
        status: Default::default(),
        started_ms: wall_ms,
        seed,
        listen_words: listen_words(config),
        warnings: std::mem::take(&mut loader.diagnostics),
        dialect: config.dialect,
        tag_secret: ahash::RandomState::with_seeds(seed, seed ^ 0x5bd1_e995, seed.rotate_left(17), !seed),
        tag_prefix: seed as u16,
        dispatch: Default::default(),
        outside: Default::default(),
        first_vars: Default::default(),
        held: crate::context::held::Held::new(&loader.stats),
        local_addresses: Default::default(),
        initial_vars: std::mem::take(&mut loader.initial_vars),
        arguments: Default::default(),
        parts: Parts::default(),
    };
    let named = std::mem::take(loader.part::<ScriptEvents>());
    let events = Events::new(&mut shared.hooks, event_routes(config).collect(), named);
    shared.set_part(events);
    let proofs = Proofs(shared.hooks.list::<Proof>().clone());
    shared.set_part(proofs);
    shared.set_part(commands);
    shared.set_part(streams);
    shared.set_part(loader.part::<Caches>().named.clone());
    shared.set_part(Policy::new(&mut loader));
    shared.set_part(Reloader::default());
    shared.set_part(Late::new(loader));
    Ok(shared)
}

/// The sockets of a configuration, as they are written.
fn listen_words(config: &Config) -> Vec<String> {
    let sockets = config.globals.iter().filter(|g| matches!(&g.name[..], b"socket" | b"listen"));
    let words = sockets.filter_map(|g| match &g.value {
        GlobalValue::Word(text) | GlobalValue::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    });
    words.collect()
}

/// The event_routes of a configuration by the names of their events.
pub(super) fn event_routes(config: &Config) -> impl Iterator<Item = (Bytes, EventRoute)> {
    let routes = config.routes.iter().enumerate().filter(|(_, r)| r.kind == RouteKind::Event);
    routes.filter_map(|(i, r)| Some((r.name.clone()?, EventRoute { route: RouteId(i as u16), mode: r.mode })))
}
