//! Manual pages and shell completions, made from the one list of switches and commands (`cli.rs`).

use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const SECTION: &str = "8";

/// Prints the completions of a shell.
pub fn completions(shell: Shell) -> ExitCode {
    clap_complete::generate(shell, &mut Cli::command(), "fermata", &mut std::io::stdout());
    ExitCode::SUCCESS
}

/// Prints the manual page, or writes it and one for each command into a folder.
pub fn man(folder: Option<&Path>) -> ExitCode {
    let done = match folder {
        None => page(Cli::command()).and_then(|page| std::io::stdout().write_all(&page)),
        Some(folder) => write_all(folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("fermata man: {e}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = Cli::command();
    command.build();
    let each = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    for sub in each {
        let name = format!("fermata-{}", sub.get_name());
        std::fs::write(folder.join(format!("{name}.{SECTION}")), page(sub.clone())?)?;
    }
    std::fs::write(folder.join(format!("fermata.{SECTION}")), page(Cli::command())?)
}

fn page(command: clap::Command) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command).section(SECTION).render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_in_the_page_and_the_completions() {
        let man = String::from_utf8(page(Cli::command()).unwrap()).unwrap();
        let mut bash = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "fermata", &mut bash);
        let bash = String::from_utf8(bash).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(man.contains(&format!("fermata\\-{name}")), "{name} is not in the manual page");
            assert!(bash.contains(name), "{name} is not completed");
        }
    }
}
