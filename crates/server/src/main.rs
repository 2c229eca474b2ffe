//! The program `fermata`: reads the command line and the script, then checks or serves.

#![allow(clippy::disallowed_methods, reason = "the real clock is read here and handed to the workers")]

mod cli;
mod commands;
mod config;
mod database;
mod demo;
mod doctor;
mod load;
mod log;
mod lsp;
mod mailbox;
mod manual;
mod mi_client;
mod papers;
mod pid_file;
mod profile;
mod proofs;
mod rehearse;
mod reload;
mod remote;
mod replay;
mod runner;
mod serve;
mod settings;
mod streams;
mod top;
mod trace;

use clap::Parser;
use cli::{Cli, Command, Report, Run};
use commands::{Machine, Strictness};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The script has errors.
const BAD_SCRIPT: u8 = 1;
/// Anything else that keeps the server from starting; what tools around OpenSIPS expect.
const CANNOT_START: u8 = 255;

fn main() -> ExitCode {
    let started = Instant::now();
    net::process::forgo_huge_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { CANNOT_START } else { 0 });
        }
    };
    std::panic::set_hook(Box::new(|panic| host::error!("core", "a defect in the server: {panic}")));
    match &cli.command {
        Some(Command::Check { files, format, strict, here }) => {
            let strictness = if *strict { Strictness::Warnings } else { Strictness::Errors };
            let machine = if *here { Machine::This } else { Machine::Any };
            commands::check(files, &cli.run, *format, strictness, machine)
        }
        Some(Command::Fmt { check, files }) => commands::format(files, *check),
        Some(Command::Db { command }) => database::run(command),
        Some(Command::Completions { shell }) => papers::completions(*shell),
        Some(Command::Doctor(options)) => doctor::run(options),
        Some(Command::Lsp { .. }) => lsp::run(),
        Some(Command::Mi(options)) => mi_client::run(options),
        Some(Command::Man { to }) => papers::man(to.as_deref()),
        Some(Command::Explain { format, file }) => commands::explain(file, *format, &cli.run),
        Some(Command::Profile(options)) => profile::run(options),
        Some(Command::Replay(options)) => replay::run(options),
        Some(Command::Test(options)) => rehearse::run(options),
        Some(Command::Top(options)) => top::run(options),
        Some(Command::Trace(options)) => trace::run(options),
        Some(Command::Demo(options)) => demo::run(options),
        Some(Command::Manual { name, skeleton }) => manual::run(name.as_deref(), *skeleton),
        None => {
            let file = cli.run.file.clone().unwrap_or_else(|| config::BUILT_IN.into());
            match cli.run.check || cli.run.check_functions {
                true => commands::check(&[file], &cli.run, Report::Text, Strictness::Errors, Machine::Any),
                false => run(&file, &cli.run, started),
            }
        }
    }
}

fn run(file: &Path, run: &Run, started: Instant) -> ExitCode {
    if config::is_built_in(file) {
        let database = run.directory.clone().unwrap_or_default().join(config::BUILT_IN_DATABASE);
        match database::make_file(&database.to_string_lossy()) {
            Ok(true) => eprintln!("fermata: made {} with the standard tables", database.display()),
            Ok(false) => {}
            Err(text) => {
                eprintln!("fermata: {text}");
                return ExitCode::from(CANNOT_START);
            }
        }
        eprintln!("fermata: no -f: running the built-in residential configuration (fermata --help)");
    }
    let shared = match config::load(file, run, config::Depth::Load) {
        Ok(shared) => shared,
        Err(refused) => {
            eprint!("{}", refused.render());
            return ExitCode::from(BAD_SCRIPT);
        }
    };
    host::log::set_level(settings::log_level(run, &shared.globals));
    if let Some(level) = settings::xlog_level(&shared) {
        host::log::set_xlog_level(level);
    }
    match serve::serve(shared, run, started) {
        Ok(code) => code,
        Err(serve::Failed(text)) => {
            eprintln!("fermata: {text}");
            ExitCode::from(CANNOT_START)
        }
    }
}
