//! `reload_routes`: other routes for a server that runs.
//!
//! Only routes change; core parameters, modules and their parameters stay as they were when the server started. What
//! makes it safe:
//!
//! - A script that runs or waits keeps its program to its end (`Task` holds it).
//! - A route keeps its number: what was armed before (`t_on_failure`, timers, event routes) finds the route of the same
//!   name in the new program, as in the reference. A route that is gone leaves an empty one behind.
//! - `$var` slots and flags keep theirs too.
//! - The new program is prepared beside the server and put in place by one assignment; a script with an error changes
//!   nothing.

use crate::context::taped::{OnReload, Reloaded};
use crate::language::late::Late;
use crate::language::loader::Loader;
use crate::services::mi::MiAnswer;
use crate::shared::Shared;
use script::ast::{Config, Dialect, EventMode, Route, RouteKind};
use script::{Diagnostic, Loc, Program, RouteId, Sources};
use std::sync::{Arc, OnceLock};

/// Files that all loads together may read; then the server must be restarted.
const MAX_FILES: usize = u16::MAX as usize - 1024;

/// What `reload_routes` calls; it must not block.
pub type Reload = Box<dyn Fn(&Arc<Shared>, MiAnswer) + Send + Sync>;

/// Reads the routes of the configuration again. Set by whoever read them.
#[derive(Default)]
pub(super) struct Reloader(OnceLock<Reload>);

impl Shared {
    pub fn set_reload(&self, reload: Reload) {
        let _ = self.part::<Reloader>().0.set(reload);
    }

    /// Reads the routes of the configuration again, and answers when they are in place. `None`: they cannot be.
    pub fn reload(&self) -> Option<&Reload> {
        self.part::<Reloader>().0.get()
    }
}

/// Prepares the routes of `config` and puts them in place. `sources` began as a copy of `Shared::sources`. Blocks for as
/// long as preparing takes: not for a worker. How many routes there are now; the error is every problem that was found.
pub fn reload(
    shared: &Arc<Shared>,
    config: &mut Config,
    sources: Sources,
) -> Result<usize, (Sources, Vec<Diagnostic>)> {
    let refuse = |sources: Sources, text: &str| Err((sources, vec![Diagnostic::error(Loc::default(), text)]));
    if config.dialect != shared.dialect && !config.routes.is_empty() {
        let text = match shared.dialect {
            Dialect::V21 => "the script is no longer one of 2.x",
            Dialect::V4 => "the script has become one of 2.x",
        };
        return refuse(sources, text);
    }
    if sources.files.len() > MAX_FILES {
        return refuse(sources, "too many reloads: restart the server");
    }
    let late = shared.part::<Late>();
    let routes = config.routes.len();
    // Others prepare late texts meanwhile: what they declared must not be lost.
    for _ in 0..8 {
        let before = late.copy();
        keep_numbers(&before, &mut config.routes);
        let mut loader = before.clone();
        loader.set_routes(&config.routes);
        let (program, problems) = script::compile(config, &mut loader);
        let mut problems: Vec<Diagnostic> = problems;
        problems.append(&mut loader.diagnostics);
        if loader.uses_forward() && !shared.policy().forwards {
            let text = "forward() is new in this script: only a restart lets replies of no transaction pass";
            problems.push(Diagnostic::error(Loc::default(), text));
        }
        if problems.iter().any(Diagnostic::is_error) {
            return Err((sources, problems));
        }
        let (flags, branch_flags) = (loader.flags.clone(), loader.branch_flags.clone());
        if late.replace(&before, loader) {
            *shared.flag_names.write() = flags;
            *shared.branch_flag_names.write() = branch_flags;
            put_in_place(shared, config, program, sources);
            return Ok(routes);
        }
    }
    refuse(sources, "the server is too busy to take other routes; try again")
}

/// The main route of a kind has no name; `route[0]` is another spelling of it.
fn key(kind: RouteKind, name: Option<&[u8]>) -> (u8, &[u8]) {
    (kind as u8, name.filter(|name| *name != b"0").unwrap_or_default())
}

/// Puts each route where the program in use has the one of its name; new ones come last.
fn keep_numbers(loader: &Loader, routes: &mut Vec<Route>) {
    let mut new: Vec<Option<Route>> =
        std::mem::take(routes).into_iter().filter(|r| !is_removed(r)).map(Some).collect();
    for (at, (kind, name)) in loader.routes().enumerate() {
        let same =
            |r: &Option<Route>| r.as_ref().is_some_and(|r| key(r.kind, r.name.as_deref()) == key(kind, name));
        let found = new.iter().position(same).and_then(|i| new[i].take());
        routes.push(found.unwrap_or_else(|| removed(at)));
    }
    routes.extend(new.into_iter().flatten());
}

/// An empty route under a name that no script can write.
fn removed(at: usize) -> Route {
    Route {
        kind: RouteKind::Request,
        name: Some(format!("\0{at}").into()),
        interval: None,
        mode: EventMode::Unset,
        body: Vec::new(),
        loc: Loc::default(),
    }
}

fn is_removed(route: &Route) -> bool {
    route.name.as_ref().is_some_and(|name| name.starts_with(b"\0"))
}

fn put_in_place(shared: &Arc<Shared>, config: &Config, program: Program<crate::ctx::Sip>, sources: Sources) {
    let known: Vec<RouteId> = shared.program().timers().into_iter().map(|(route, _)| route).collect();
    let timers: Vec<(RouteId, u32)> =
        program.timers().into_iter().filter(|(route, _)| !known.contains(route)).collect();
    let events = super::assemble::event_routes(config).collect();
    let hooks = shared.hooks.listed::<OnReload>();
    if !hooks.is_empty() {
        let mut files: Vec<u16> =
            config.routes.iter().filter(|r| !is_removed(r)).map(|r| r.loc.file).collect();
        files.sort_unstable();
        files.dedup();
        let reloaded = Reloaded { before: shared.sources().files.len(), known: sources.files.len(), files };
        hooks.iter().for_each(|hook| (hook.0)(&reloaded));
    }
    // Places are looked up in it: it must know the new files before a new route runs.
    *shared.sources.write() = Arc::new(sources);
    *shared.program.write() = Arc::new(program);
    *shared.events().routes.write() = events;
    let Some(dispatch) = shared.dispatch.get().filter(|_| !timers.is_empty()) else { return };
    dispatch.run_on(
        0,
        Box::new(move |ctx| {
            for (route, seconds) in timers {
                ctx.arm_route(route, seconds);
            }
        }),
    );
}
