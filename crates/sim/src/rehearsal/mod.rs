//! Tests of scripts (`fermata test`): a file of scenarios plays against the real script on a virtual clock, with
//! stand-ins for everything outside. docs/TESTING_SCRIPTS.md is the user's page.
//!
//! ```text
//!  yaml ──► plan, steps ──► play ──► stage: host::Worker, network, clock
//!                                     │  └─ party: user agents
//!                                     └─ scene: databases, HTTP, processes, names; what happened is a capture::story
//! ```

mod coverage;
mod message;
mod party;
mod pattern;
mod plan;
mod play;
mod scene;
mod stage;
mod steps;
mod tables;
mod yaml;

pub use capture::story::{Entry, Record, What};
pub use coverage::Coverage;
pub use play::Failure;
pub use yaml::Problem;

use plan::Plan;
use scene::Scene;
use stage::Stage;
use std::path::Path;
use std::rc::Rc;
use steps::What as StepWhat;

/// A file of scenarios.
pub struct File(Plan);

/// One run of a scenario.
pub struct Ran {
    pub result: Result<(), Failure>,
    pub record: Record,
    pub coverage: Coverage,
    /// Milliseconds of the scenario's own time.
    pub lasted: u64,
}

impl File {
    /// Reads a file; the script itself is not looked at yet.
    pub fn read(path: &Path) -> Result<File, Problem> {
        let text =
            std::fs::read_to_string(path).map_err(|e| Problem::new(0, format!("cannot be read: {e}")))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Plan::parse(&text, folder).map(File)
    }

    pub fn script(&self) -> &Path {
        &self.0.script
    }

    /// (name, line) of each scenario.
    pub fn scenarios(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.scenarios.iter().map(|scenario| (scenario.name.as_str(), scenario.line))
    }

    /// Plays one scenario. The same seed gives the same run. The error: the script does not load, or the world that the
    /// file describes cannot be made.
    pub fn run(&self, at: usize, seed: u64) -> Result<Ran, Problem> {
        crate::capture_logs();
        let Some(scenario) = self.0.scenarios.get(at) else {
            return Err(Problem::new(0, "there is no such scenario"));
        };
        let failed = |text: String| Problem::new(scenario.line, text);
        let mut watched: Vec<String> = Vec::new();
        for step in &scenario.steps {
            if let StepWhat::Variables(list) = &step.what {
                watched.extend(list.iter().map(|(name, _)| name.clone()));
            }
        }
        let scene = Scene::new(scenario.setup.clone(), watched, seed).map_err(failed)?;
        let scene = Rc::new(scene);
        let _entered = scene::enter(scene.clone());
        tables::fill(&scene.memory, &scenario.setup)?;
        let wall_ms = scenario.setup.start.max(0) as u64 * 1000;
        let shared = stage::load(&self.0.script, &self.0.listen, scenario.setup.server, wall_ms, seed | 1)
            .map_err(failed)?;
        let _levels = Levels::set(&shared);
        let mut coverage = Coverage::default();
        let (program, sources) = (shared.program(), shared.sources());
        for (route, loc) in program.statements() {
            coverage.statement(sources.name(loc), sources.line_col(loc).0, &program.route_text(route));
        }
        let mut stage = Stage::new(scenario, shared, scene.clone(), seed).map_err(failed)?;
        let result = play::Play::run(&mut stage, scenario);
        let lasted = stage.now();
        for ((file, line), times) in scene.hits.borrow().iter() {
            coverage.ran(file, *line, *times);
        }
        drop(stage);
        let record = scene.record.borrow().clone();
        Ok(Ran { result, record, coverage, lasted })
    }
}

/// A log line of this thread; false: no scenario plays here.
pub(crate) fn log(said: &str) -> bool {
    scene::scene().inspect(|scene| scene.note(What::Log(said.to_string()))).is_some()
}

/// The script's own log levels on this thread, until it is dropped.
struct Levels;

impl Levels {
    fn set(shared: &host::Shared) -> Levels {
        let core = &shared.globals.core;
        let level = if core.debug_mode { 4 } else { core.log_level.clamp(-3, 4) as i8 };
        // Since 3.0 that of xlog does not follow it.
        let own = (shared.dialect == script::ast::Dialect::V4).then_some(host::log::Level::Notice as i64);
        let xlog = core.xlog_level.or(own).map(|level| level.clamp(-3, 4) as i8);
        host::log::override_level(Some(level));
        host::log::override_xlog_level(xlog);
        Levels
    }
}

impl Drop for Levels {
    fn drop(&mut self) {
        host::log::override_level(None);
        host::log::override_xlog_level(None);
    }
}
