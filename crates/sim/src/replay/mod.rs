//! Recordings played again (`fermata replay`): the workers of the recording, their inputs one after the other, and what
//! they asked answered as it was. docs/RECORDING.md is the user's page.
//!
//! ```text
//!  file ─► capture::recorder::format ─► engine: host::Worker, one for each of the recording
//!                                         ├─ player: answers (host::tape)
//!                                         ├─ ops: futures of operations, done when the recording says so
//!                                         └─ capture::teller: what is shown
//! ```
//!
//! With the script of the recording every step is made as it was, so what is sent is the same, and is compared. With
//! another script ([`Script::Other`]) only the messages of a call are its own: time and answers follow the recording as
//! far as the script asks for the same.

mod engine;
mod load;
mod ops;
mod player;

use capture::recorder::format::Recording;
use capture::story::Record;
use capture::teller::Wanted;
use host::ModuleDef;
use script::Sources;
use std::path::PathBuf;
use std::sync::Arc;

/// Which script is run.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    Recorded,
    /// A file: what would it do?
    Other(PathBuf),
}

/// What came of a replay.
#[derive(Debug)]
pub struct Replayed {
    /// What happened to the wanted calls.
    pub record: Record,
    pub sources: Arc<Sources>,
    /// Messages that were sent, and those of them that are as they were when it was recorded.
    pub sent: usize,
    pub same: usize,
    /// Where a replay of the recorded script went another way, and why; the first few.
    pub differences: Vec<String>,
    /// Call-IDs of the requests that came in, in order, without those that are repeated.
    pub calls: Vec<String>,
}

pub(crate) use engine::log;

/// Plays a recording. `modules`: those that a script may load. The error is for the user.
pub fn replay(
    recording: &Recording,
    wanted: Wanted,
    script: &Script,
    modules: &'static [ModuleDef],
) -> Result<Replayed, String> {
    crate::capture_logs();
    let shared = load::load(recording, script, modules)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let _entered = runtime.enter();
    let local = tokio::task::LocalSet::new();
    let _tasks = local.enter();
    engine::Engine::new(recording, shared, wanted, script).run()
}
