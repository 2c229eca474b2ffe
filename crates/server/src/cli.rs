//! The command line: OpenSIPS's switches, and what teaches a newcomer the first steps.

use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

const ABOUT: &str = "A SIP server that runs OpenSIPS scripts (opensips.cfg) and never blocks a worker";

const LONG_ABOUT: &str = "\
A SIP server that runs OpenSIPS scripts (opensips.cfg, of 2.1 to 4.x) and never blocks a worker.

A script that needs a database, an HTTP answer, a process, a DNS lookup or a pause is held, and every
other call plays on. Both `async(sql_query(...), resume)` and a plain `sql_query(...)` do that.

First steps:
  fermata demo                   see many calls wait at once, without a configuration
  fermata -C -f opensips.cfg     check a script: every problem with line, column and a hint
  fermata -f opensips.cfg        run it, in the foreground, until Ctrl-C
  fermata -f opensips.cfg -dd    the same, with a log line for each step
  fermata explain opensips.cfg   see its routes and where a call may wait

Where log lines go (stderr, syslog), how many workers run and what is listened on stands in the script:
`stderror_enabled`, `syslog_enabled`, `log_level`, `udp_workers`, `socket`. Switches win over the script.";

const AFTER: &str = "\
Signals: SIGTERM and SIGINT let running calls finish (--grace) and refuse new ones with 503; a second one
ends at once. SIGHUP is ignored.

Exit codes: 0 ended normally or the check passed; 1 the script has errors; 255 the server could not start
(address in use, no such file, unknown switch).";

/// What was asked for on the command line.
#[derive(Parser, Debug, Default)]
#[command(
    name = "fermata", version = host::mi::VERSION, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER,
    disable_version_flag = true, args_conflicts_with_subcommands = true, max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: Run,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check scripts and say everything that is wrong with them
    Check {
        /// How: for people, or one JSON array for editors and CI
        #[arg(long, value_enum, default_value_t = Report::Text)]
        format: Report,
        /// Warnings count as errors
        #[arg(long)]
        strict: bool,
        /// What this machine lacks (folders, certificates, databases, addresses) counts as an error: the script is to run here
        #[arg(long)]
        here: bool,
        /// Scripts to check
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print what completes commands and switches in a shell
    #[command(after_help = "Example: fermata completions bash > /etc/bash_completion.d/fermata")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Say what of this machine keeps a script from running well, and the command that mends it
    Doctor(crate::doctor::Options),
    /// Lay scripts out in one style, in place
    Fmt {
        /// Change nothing; exit code 1 when a script is laid out differently
        #[arg(long)]
        check: bool,
        /// Scripts to lay out
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Make the tables of a database, or bring them up to date
    Db {
        #[command(subcommand)]
        command: DbCommand,
    },
    /// See calls wait: 200 of them, one worker, a database and a slow HTTP service
    Demo(crate::demo::Options),
    /// Draw the routes of a script: who runs whom, and where a call may wait
    Explain {
        /// How: a tree for the terminal, a graph for Graphviz, or a drawing
        #[arg(long, value_enum, default_value_t = Picture::Text)]
        format: Picture,
        /// The script
        file: PathBuf,
    },
    /// Help an editor with scripts: a language server on standard input and output
    #[command(after_help = "Neovim, VS Code and others: docs/EDITORS.md")]
    Lsp {
        /// Editors say so; it is the only way
        #[arg(long, hide = true)]
        stdio: bool,
    },
    /// Run a management command of the server that runs
    Mi(crate::mi_client::Options),
    /// Print the manual page, or write one for each command into a folder
    #[command(after_help = "Example: fermata man --to /usr/local/share/man/man8")]
    Man {
        /// The folder
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
    /// Measure a running server: where scripts spend their time, and what they wait for
    Profile(crate::profile::Options),
    /// Show the calls of a recording line for line, also with another script
    Replay(crate::replay::Options),
    /// Test scripts: scenarios of calls against a script, in a world and a time of their own
    Test(crate::rehearse::Options),
    /// Watch the calls of a running server and what they wait for
    Top(crate::top::Options),
    /// Follow single calls of a running server: messages, lines, values, waits
    Trace(crate::trace::Options),
    /// Print the reference of the modules, or what it says about one name
    Manual {
        /// A module, function, parameter (`tm:fr_timeout`), variable, command, event or statistic
        name: Option<String>,
        /// For developers: the file of words of this module, with the words missing
        #[arg(long, requires = "name")]
        skeleton: bool,
    },
}

/// What to do with the tables of a database.
#[derive(Subcommand, Debug)]
pub enum DbCommand {
    /// Make the standard tables; those that are there are left alone
    ///
    /// The tables have the names and columns that OpenSIPS gives them. The database itself is made too
    /// when the server has none of that name.
    #[command(after_help = DB_URLS)]
    Create {
        /// The database: mysql://user:password@host/name, postgres://..., sqlite:///path
        url: String,
        /// Tables or modules (subscriber, dialog, presence ...), or `all`; none are the standard ones
        tables: Vec<String>,
        /// Print the statements instead of running them
        #[arg(long)]
        print: bool,
    },
    /// Add the columns that tables of an older version lack; nothing is dropped or renamed
    #[command(after_help = DB_URLS)]
    Migrate {
        /// The database: mysql://user:password@host/name, postgres://..., sqlite:///path
        url: String,
        /// Tables or modules to look at; none are all that are there
        tables: Vec<String>,
        /// Print the statements instead of running them
        #[arg(long, short = 'n')]
        dry_run: bool,
    },
    /// List the tables that can be made, by module
    Tables,
}

const DB_URLS: &str = "\
Examples:
  fermata db create sqlite:///var/lib/fermata/fermata.db
  fermata db create mysql://root@localhost/opensips
  fermata db create 'postgres://opensips:secret@db.example/opensips?sslmode=verify-full' presence
  fermata db migrate --dry-run mysql://opensips:opensipsrw@localhost/opensips";

/// How `check` reports.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    Text,
    Json,
}

/// How `explain` draws.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Picture {
    Text,
    Dot,
    Svg,
}

/// Switches of the server itself; the letters are those of OpenSIPS.
#[derive(Args, Clone, Debug, Default)]
pub struct Run {
    /// The script to run; without it, a built-in residential configuration with an SQLite file in this folder
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Check the script and stop
    #[arg(short = 'c', long = "check")]
    pub check: bool,
    /// Check the script and stop, as -c does
    #[arg(short = 'C', hide_short_help = true)]
    pub check_functions: bool,
    /// Run the script's text through this command first (m4, sed ...), as it would be in a shell
    #[arg(short = 'p', long = "preprocess", value_name = "COMMAND")]
    pub preprocessor: Option<String>,
    /// Listen here instead of where the script says: [proto:]address[:port]; may be repeated
    #[arg(short = 'l', long = "listen", value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// Worker threads (default: udp_workers of the script, at most the number of cores)
    #[arg(short = 'n', long = "workers", value_name = "NUMBER")]
    pub workers: Option<u16>,
    /// More log lines; twice for all of them
    #[arg(short = 'd', long = "debug", action = ArgAction::Count)]
    pub debug: u8,
    /// Log to stderr, whatever the script says
    #[arg(short = 'E', long = "stderr")]
    pub stderr: bool,
    /// Stay in the foreground: the default here
    #[arg(short = 'F', hide_short_help = true)]
    pub foreground: bool,
    /// Stay in the foreground with log level 4 on stderr (`debug_mode`)
    #[arg(short = 'D', hide_short_help = true)]
    pub debug_mode: bool,
    /// Go on in the background once the script is loaded and the addresses are bound
    #[arg(long = "daemon", conflicts_with_all = ["foreground", "debug_mode"])]
    pub daemon: bool,
    /// Write the process number here
    #[arg(short = 'P', long = "pid-file", value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Write the process group's number here
    #[arg(short = 'G', value_name = "FILE", hide_short_help = true)]
    pub pgid_file: Option<PathBuf>,
    /// Run as this user, after the addresses are bound
    #[arg(short = 'u', long = "user", value_name = "USER")]
    pub user: Option<String>,
    /// Run as this group
    #[arg(short = 'g', long = "group", value_name = "GROUP")]
    pub group: Option<String>,
    /// Work in this folder
    #[arg(short = 'w', long = "directory", value_name = "FOLDER")]
    pub directory: Option<PathBuf>,
    /// Make this folder the root after the script is read
    #[arg(short = 't', long = "chroot", value_name = "FOLDER")]
    pub chroot: Option<PathBuf>,
    /// Set $argv(name) of the script; may be repeated
    #[arg(short = 'o', long = "option", value_name = "NAME=VALUE")]
    pub options: Vec<String>,
    /// Receive buffer asked of the system for each UDP socket, in bytes
    #[arg(short = 'b', long = "receive-buffer", value_name = "BYTES")]
    pub receive_buffer: Option<usize>,
    /// Seconds that running calls get to finish when the server is told to stop
    #[arg(long = "grace", value_name = "SECONDS", default_value_t = 10)]
    pub grace: u64,
    /// Print the version
    #[arg(short = 'V', long = "version", action = ArgAction::Version)]
    pub version: Option<bool>,
    #[command(flatten)]
    pub without_effect: WithoutEffect,
}

/// Switches that exist so that scripts around OpenSIPS keep working; the log says so at start.
#[derive(Clone, Args, Debug, Default)]
#[command(next_help_heading = "Accepted, without effect here")]
pub struct WithoutEffect {
    /// Shared memory, MB: memory is taken as needed
    #[arg(short = 'm', value_name = "MB", hide_short_help = true)]
    pub shared_memory: Option<String>,
    /// Memory for each process, MB
    #[arg(short = 'M', value_name = "MB", hide_short_help = true)]
    pub private_memory: Option<String>,
    /// TCP workers: each worker serves TCP too
    #[arg(short = 'N', value_name = "NUMBER", hide_short_help = true)]
    pub tcp_workers: Option<String>,
    /// Poll method
    #[arg(short = 'W', value_name = "METHOD", hide_short_help = true)]
    pub poll_method: Option<String>,
    /// Memory allocator
    #[arg(short = 'a', value_name = "NAME", hide_short_help = true)]
    pub allocator: Option<String>,
    /// Memory allocator of processes
    #[arg(short = 'k', value_name = "NAME", hide_short_help = true)]
    pub private_allocator: Option<String>,
    /// Memory allocator of shared memory
    #[arg(short = 's', value_name = "NAME", hide_short_help = true)]
    pub shared_allocator: Option<String>,
    /// Memory allocator of restart-persistent memory
    #[arg(short = 'e', value_name = "NAME", hide_short_help = true)]
    pub persistent_allocator: Option<String>,
    /// FIFO for management: see the mi_fifo module
    #[arg(short = 'i', value_name = "FILE", hide_short_help = true)]
    pub fifo: Option<String>,
    /// Socket for management: see the mi_datagram module
    #[arg(short = 'x', value_name = "FILE", hide_short_help = true)]
    pub unix_socket: Option<String>,
    /// Assertions
    #[arg(short = 'A', num_args = 0..=1, default_missing_value = "", hide_short_help = true)]
    pub assertions: Option<String>,
    /// DNS check of Via hosts
    #[arg(short = 'r', hide_short_help = true)]
    pub dns_via: bool,
    /// Reverse DNS check of Via hosts
    #[arg(short = 'R', hide_short_help = true)]
    pub reverse_dns_via: bool,
    /// Via check of replies
    #[arg(short = 'v', hide_short_help = true)]
    pub check_via: bool,
    /// No TCP: a script without TCP sockets has none
    #[arg(short = 'T', hide_short_help = true)]
    pub no_tcp: bool,
    /// No SCTP: there is none
    #[arg(short = 'S', hide_short_help = true)]
    pub no_sctp: bool,
}

impl WithoutEffect {
    /// The letters that were given.
    pub fn given(&self) -> Vec<char> {
        let valued = [
            ('m', &self.shared_memory),
            ('M', &self.private_memory),
            ('N', &self.tcp_workers),
            ('W', &self.poll_method),
            ('a', &self.allocator),
            ('k', &self.private_allocator),
            ('s', &self.shared_allocator),
            ('e', &self.persistent_allocator),
            ('i', &self.fifo),
            ('x', &self.unix_socket),
            ('A', &self.assertions),
        ];
        let flags = [
            ('r', self.dns_via),
            ('R', self.reverse_dns_via),
            ('v', self.check_via),
            ('T', self.no_tcp),
            ('S', self.no_sctp),
        ];
        let valued = valued.iter().filter(|(_, v)| v.is_some()).map(|(c, _)| *c);
        valued.chain(flags.iter().filter(|(_, on)| *on).map(|(c, _)| *c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check(line: &str, expected: &str) {
        let got = match Cli::try_parse_from(line.split_whitespace()) {
            Err(e) => format!("error: {:?}", e.kind()),
            Ok(cli) => {
                let r = cli.run;
                let given: String = r.without_effect.given().iter().collect();
                format!(
                    "{} check {} d{} E{} workers {:?} listen {} unused {given}",
                    r.file.unwrap_or_default().display(),
                    r.check || r.check_functions,
                    r.debug,
                    u8::from(r.stderr),
                    r.workers,
                    r.listen.join(","),
                )
            }
        };
        assert_eq!(got, expected, "{line}");
    }

    #[test]
    fn switches_of_the_reference() {
        Cli::command().debug_assert();
        check("fermata -f a.cfg", "a.cfg check false d0 E0 workers None listen  unused ");
        check("opensips -cf a.cfg", "a.cfg check true d0 E0 workers None listen  unused ");
        check("opensips -C -f a.cfg", "a.cfg check true d0 E0 workers None listen  unused ");
        check("opensips -F -m 64 -M8 -fa.cfg", "a.cfg check false d0 E0 workers None listen  unused mM");
        check(
            "opensips -ddE -n 4 -l udp:lo:5060 -l tcp:lo -P /p -u u -g g -w / -A -f a.cfg",
            "a.cfg check false d2 E1 workers Some(4) listen udp:lo:5060,tcp:lo unused A",
        );
        check(
            "opensips -k F_MALLOC -s Q_MALLOC -a HP_MALLOC -N 2 -W epoll -rRvT -f a",
            "a check false d0 E0 workers None listen  unused NWaksrRvT",
        );
        check("fermata -Z", "error: UnknownArgument");
        check("fermata -V", "error: DisplayVersion");
        check("fermata -h", "error: DisplayHelp");
    }

    #[test]
    fn help_names_every_switch() {
        let help = Cli::command().render_long_help().to_string();
        for letter in "fcCplndEFDPGugwtobVmMNWaksRrvTAixh".chars() {
            assert!(help.contains(&format!("-{letter}")), "-{letter} is not in --help");
        }
    }
}
