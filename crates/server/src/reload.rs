//! `reload_routes`: reads the script again on a thread of its own.

use crate::cli::Run;
use crate::config::{self, Refused};
use host::Shared;
use host::mi::{MiAnswer, MiError, MiResult};
use serde_json::json;
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
    let _ = shared.reload.set(Box::new(move |shared, answer| start(&script, shared, answer)));
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

fn reload(file: &Path, run: &Run, shared: &Arc<Shared>) -> MiResult {
    let begin = Instant::now();
    let mut sources = (*shared.sources()).clone();
    let (mut config, problems) = config::parse(file, run, &mut sources);
    let outcome = match problems.iter().any(script::Diagnostic::is_error) {
        true => Err((sources, problems)),
        false => host::reload::reload(shared, &mut config, sources),
    };
    match outcome {
        Ok(routes) => {
            let ms = begin.elapsed().as_millis();
            host::notice!("core", "{routes} routes of {} are in place, after {ms} ms", file.display());
            Ok(json!("OK"))
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
