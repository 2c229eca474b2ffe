//! Subcommands that work on scripts: check, fmt, explain.

use crate::BAD_SCRIPT;
use crate::cli::{Picture, Run};
use crate::config::{self, Depth};
use script::Sources;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks scripts; says what each listens on, as the reference does, or everything that is wrong.
pub fn check(files: &[PathBuf], run: &Run) -> ExitCode {
    all(files, |file| match config::load(file, run, Depth::Lint) {
        Ok(shared) => {
            for warning in &shared.warnings {
                eprintln!("{}", shared.sources.render(warning).trim_end());
            }
            for socket in &shared.sockets {
                println!("{}: listens on {}", file.display(), socket.text);
            }
            println!("{}: correct", file.display());
            true
        }
        Err(refused) => {
            eprint!("{}", refused.render());
            false
        }
    })
}

/// Lays scripts out in place; with `check`, only says which would change.
pub fn format(files: &[PathBuf], check: bool) -> ExitCode {
    all(files, |file| {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) => return refuse(file, &format!("cannot be read: {e}")),
        };
        match script::format_source(&text, &file.to_string_lossy()) {
            Ok(new) if new == text => true,
            Ok(_) if check => refuse(file, "is not laid out as `fermata fmt` does"),
            Ok(new) => match std::fs::write(file, new) {
                Ok(()) => true,
                Err(e) => refuse(file, &format!("cannot be written: {e}")),
            },
            Err(problems) => {
                let mut sources = Sources::default();
                sources.add(file.to_string_lossy().into_owned(), text);
                for problem in &problems {
                    eprintln!("{}", sources.render(problem).trim_end());
                }
                refuse(file, "has errors and was not touched")
            }
        }
    })
}

/// Draws the routes of a script: who runs whom, and where a call may wait.
pub fn explain(file: &Path, picture: Picture, run: &Run) -> ExitCode {
    let mut sources = Sources::default();
    let (config, problems) = config::parse(file, run, &mut sources);
    if problems.iter().any(|p| p.is_error()) {
        eprint!("{}", config::Refused { sources, diagnostics: problems }.render());
        return ExitCode::from(BAD_SCRIPT);
    }
    let waiting = waiting_functions();
    let graph = script::explain(&config, &|name| waiting.contains(name));
    print!(
        "{}",
        match picture {
            Picture::Text => graph.to_text(&sources),
            Picture::Dot => graph.to_dot(),
        }
    );
    ExitCode::SUCCESS
}

/// Names of all functions that may suspend a script.
fn waiting_functions() -> HashSet<&'static [u8]> {
    let functions = modules::ALL.iter().flat_map(|module| (module.make)().functions());
    functions.filter(|f| f.may_wait).map(|f| f.name.as_bytes()).collect()
}

fn all(files: &[PathBuf], each: impl Fn(&Path) -> bool) -> ExitCode {
    // Every file is looked at, also after a bad one.
    let bad = files.iter().filter(|file| !each(file)).count();
    ExitCode::from(if bad > 0 { BAD_SCRIPT } else { 0 })
}

fn refuse(file: &Path, why: &str) -> bool {
    eprintln!("{} {why}", file.display());
    false
}
