//! Subcommands that work on scripts: check, fmt, explain.

use crate::BAD_SCRIPT;
use crate::cli::{Picture, Report, Run};
use crate::config::{self, Depth};
use script::{Diagnostic, Loc, Severity, Sources};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What makes a check fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strictness {
    Errors,
    /// Warnings too.
    Warnings,
}

/// What it means that this machine lacks something: a folder, a certificate, a database, an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// The script may be meant for another one.
    Any,
    /// The script is to run here.
    This,
}

/// Checks scripts; says what each listens on, as the reference does, or everything that is wrong.
pub fn check(
    files: &[PathBuf],
    run: &Run,
    report: Report,
    strictness: Strictness,
    machine: Machine,
) -> ExitCode {
    let mut found = Vec::new();
    let code = all(files, |file| {
        let (sources, mut diagnostics, sockets) = match config::load(file, run, Depth::Lint) {
            Ok(shared) => {
                let mut diagnostics = shared.warnings.clone();
                diagnostics.extend(config::missing_here(&shared));
                ((*shared.sources()).clone(), diagnostics, shared.sockets)
            }
            Err(config::Refused { sources, diagnostics }) => (sources, diagnostics, Vec::new()),
        };
        if machine == Machine::Any {
            diagnostics.iter_mut().filter(|d| d.is_error() && d.here).for_each(note);
        }
        let counts = |d: &Diagnostic| match d.severity {
            Severity::Error => true,
            Severity::Warning => strictness == Strictness::Warnings,
            Severity::Note => false,
        };
        let runs = !diagnostics.iter().any(Diagnostic::is_error);
        let correct = !diagnostics.iter().any(counts);
        match (report, runs) {
            (Report::Json, _) => found.extend(diagnostics.iter().map(|d| as_json(&sources, d))),
            (Report::Text, true) => {
                for problem in &diagnostics {
                    eprintln!("{}", sources.render(problem).trim_end());
                }
                for socket in &sockets {
                    println!("{}: listens on {}", file.display(), socket.text);
                }
                let verdict = if correct { "correct" } else { "has warnings" };
                println!("{}: {verdict}", file.display());
            }
            (Report::Text, false) => eprint!("{}", config::Refused { sources, diagnostics }.render()),
        }
        correct
    });
    if report == Report::Json {
        println!("{}", serde_json::Value::Array(found));
    }
    code
}

/// What only this machine lacks says nothing against the script.
fn note(problem: &mut Diagnostic) {
    problem.severity = Severity::Note;
    problem.hint.get_or_insert_with(|| "the server does not start on a machine like this one".to_owned());
}

/// One diagnostic for programs; lines and columns count from 1, the end is behind the last character.
fn as_json(sources: &Sources, diagnostic: &Diagnostic) -> serde_json::Value {
    let loc = diagnostic.loc;
    let (line, column) = sources.line_col(loc);
    let (end_line, end_column) = sources.line_col(Loc { start: loc.end, ..loc });
    serde_json::json!({
        "file": sources.name(loc),
        "line": line,
        "column": column,
        "endLine": end_line,
        "endColumn": end_column,
        "severity": diagnostic.severity.word(),
        "message": diagnostic.message,
        "hint": diagnostic.hint,
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
            Picture::Svg => graph.to_svg(),
        }
    );
    ExitCode::SUCCESS
}

/// Variables and transformations that may, as `script::explain` asks for them.
const WAITING_VARIABLES: &[&str] = &["{ip.resolve}", "{ip.resolve4}", "{ip.resolve6}", "$sql_cached_value"];

/// Names of all functions that may suspend a script, and of variables and transformations.
pub fn waiting_functions() -> HashSet<&'static [u8]> {
    let functions = catalog::all().iter().flat_map(|module| (module.make)().functions());
    let functions = functions.filter(|f| f.may_wait).map(|f| f.name.as_bytes());
    functions.chain(WAITING_VARIABLES.iter().map(|name| name.as_bytes())).collect()
}

fn all(files: &[PathBuf], mut each: impl FnMut(&Path) -> bool) -> ExitCode {
    // Every file is looked at, also after a bad one.
    let bad = files.iter().filter(|file| !each(file)).count();
    ExitCode::from(if bad > 0 { BAD_SCRIPT } else { 0 })
}

fn refuse(file: &Path, why: &str) -> bool {
    eprintln!("{} {why}", file.display());
    false
}
