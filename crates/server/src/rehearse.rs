//! `fermata test`: plays files of scenarios, shows what went wrong, and writes reports for CI.

use clap::Args;
use sim::rehearsal::{Coverage, Failure, File, Ran};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// A scenario has failed.
const FAILED: u8 = 1;
/// A file of scenarios, or its script, cannot be used.
const UNUSABLE: u8 = 255;
/// What files of scenarios end with, when folders are searched.
const ENDING: &str = ".test.yaml";

const HELP: &str = r#"A file of scenarios stands beside the script (opensips.cfg -> opensips.test.yaml):

  script: opensips.cfg
  parties:                          # user agents; the server is 10.0.0.1 where it listens on all
    alice: {address: 10.0.0.2, password: s3cret}
    bob: 10.0.0.3
  tables:                           # rows of its databases; all standard tables are there
    subscriber:
      - {username: alice, domain: 10.0.0.1, password: s3cret}
  http:                             # answers of HTTP servers; also: queries, processes, names, stores
    - request: GET http://api.example/route
      body: sip:bob@10.0.0.3
      after: 3 s                    # or hangs, refused, unreachable, broken: yes
  scenarios:
    - name: a call is answered
      steps:
        - alice sends: INVITE sip:bob@10.0.0.1
        - alice receives: 407
        - alice authenticates
        - bob receives: |
            INVITE sip:bob@10.0.0.3
            Record-Route: /10\.0\.0\.1/
            Proxy-Authorization: (none)
        - bob sends: 200 OK
        - alice receives: 200
        - alice sends: ACK
        - bob receives: ACK
        - alice sends: BYE
        - bob receives: BYE
        - bob sends: 200
        - alice receives: 200

Further steps: wait: 30 s; bob receives: nothing (for: 5 s); log: /expression/; no log: ...;
variables: {$avp(x): value}; database: select ... with gives: [[...]]; command: ul_dump with gives: /expression/.
Requests and final replies are repeated as RFC 3261 says; 100 and the ACK of a refusal are no steps. Time is
the scenario's own: waiting 30 s takes none. Everything else is on the page docs/TESTING_SCRIPTS.md.

Exit codes: 0 all passed; 1 a scenario failed; 255 a file or its script cannot be used."#;

/// What to test, and which reports to write.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Options {
    /// Files of scenarios, or folders with files that end with .test.yaml; none is this folder
    files: Vec<PathBuf>,
    /// Play only scenarios with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Seed of everything that is random: tags, loss and delays of the network
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Play each scenario with so many seeds, from --seed on
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seeds: u64,
    /// Show the ladder and the script's lines of scenarios that pass, too
    #[arg(long, short = 'v')]
    verbose: bool,
    /// Say which lines of the scripts ran, by route
    #[arg(long)]
    coverage: bool,
    /// Write the same for lcov (genhtml, editors)
    #[arg(long, value_name = "FILE")]
    lcov: Option<PathBuf>,
    /// Write the results for CI
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// One scenario in the report.
struct Case {
    file: String,
    name: String,
    seconds: f64,
    /// What went wrong, in words; `None`: it passed.
    wrong: Option<String>,
}

#[derive(Default)]
struct Report {
    cases: Vec<Case>,
    coverage: Coverage,
    unusable: bool,
}

pub fn run(options: &Options) -> ExitCode {
    let mut report = Report::default();
    match files(&options.files) {
        Ok(files) => files.iter().for_each(|path| play(path, options, &mut report)),
        Err(text) => {
            eprintln!("fermata: {text}");
            return ExitCode::from(UNUSABLE);
        }
    }
    let failed = report.cases.iter().filter(|case| case.wrong.is_some()).count();
    println!("{} passed, {failed} failed", report.cases.len() - failed);
    let mut written = Ok(());
    if options.coverage {
        print!("\n{}", report.coverage.report(line_of_file()));
    }
    if let Some(path) = &options.lcov {
        written = written.and(write(path, &report.coverage.lcov()));
    }
    if let Some(path) = &options.junit {
        written = written.and(write(path, &junit(&report.cases)));
    }
    match written {
        _ if report.unusable => ExitCode::from(UNUSABLE),
        Err(text) => {
            eprintln!("fermata: {text}");
            ExitCode::from(UNUSABLE)
        }
        Ok(()) if failed > 0 => ExitCode::from(FAILED),
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// The files that are meant.
fn files(asked: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let here = [PathBuf::from(".")];
    let mut found = Vec::new();
    for path in if asked.is_empty() { &here[..] } else { asked } {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut inside: Vec<PathBuf> = names.filter(|p| p.to_string_lossy().ends_with(ENDING)).collect();
        inside.sort();
        found.extend(inside);
    }
    if found.is_empty() {
        return Err(format!(
            "no file ends with {ENDING} here (fermata test --help shows what stands in one)"
        ));
    }
    Ok(found)
}

fn play(path: &Path, options: &Options, report: &mut Report) {
    let shown = path.display().to_string();
    let file = match File::read(path) {
        Ok(file) => file,
        Err(problem) => {
            eprintln!("{shown}:{}: {}", problem.line, problem.text);
            report.unusable = true;
            return;
        }
    };
    println!("{shown}");
    let names: Vec<String> = file.scenarios().map(|(name, _)| name.to_string()).collect();
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for (at, name) in names.into_iter().enumerate().filter(|(_, name)| wanted(name)) {
        let started = Instant::now();
        let mut wrong = None;
        let mut lasted = 0;
        for seed in options.seed..options.seed.saturating_add(options.seeds.max(1)) {
            let ran = match file.run(at, seed) {
                Ok(ran) => ran,
                Err(problem) => {
                    eprintln!("{shown}:{}: {}", problem.line, problem.text.trim_end());
                    report.unusable = true;
                    return;
                }
            };
            report.coverage.merge(&ran.coverage);
            lasted = ran.lasted;
            if options.verbose && ran.result.is_ok() {
                print!("{}", picture(&ran));
            }
            if let Err(failure) = &ran.result {
                wrong = Some(explain(&shown, failure, &ran, seed));
                break;
            }
        }
        match &wrong {
            None => println!("  ok    {name}  ({:.1} s)", lasted as f64 / 1000.0),
            Some(text) => println!("  FAIL  {name}\n{text}"),
        }
        let seconds = started.elapsed().as_secs_f64();
        report.cases.push(Case { file: shown.clone(), name, seconds, wrong });
    }
}

/// What went wrong, the ladder, and the lines of the script.
fn explain(file: &str, failure: &Failure, ran: &Ran, seed: u64) -> String {
    let step = if failure.step.is_empty() { "at its end" } else { &failure.step };
    let mut out = format!("{file}:{}: {step}\n", failure.line);
    for problem in &failure.problems {
        let _ = writeln!(out, "    {problem}");
    }
    let _ = write!(out, "\n{}\n    seed {seed}: fermata test --seed {seed} {file}\n", picture(ran));
    out
}

fn picture(ran: &Ran) -> String {
    let lines = ran.record.lines(line_of_file());
    let ran_nothing = lines.is_empty();
    let lines = if ran_nothing { "  none\n".to_string() } else { lines };
    format!("{}\n  lines of the script that ran:\n{lines}", ran.record.ladder())
}

/// Gives a line of a file, from 1; each file is read once.
fn line_of_file() -> impl Fn(&str, u32) -> String {
    let known: std::cell::RefCell<HashMap<String, Vec<String>>> = Default::default();
    move |file, line| {
        let mut known = known.borrow_mut();
        let lines = known.entry(file.to_string()).or_insert_with(|| {
            let text = std::fs::read(file).unwrap_or_default();
            String::from_utf8_lossy(&text).lines().map(str::to_string).collect()
        });
        lines.get((line as usize).saturating_sub(1)).cloned().unwrap_or_default()
    }
}

/// The format that CI systems read.
fn junit(cases: &[Case]) -> String {
    let failed = cases.iter().filter(|case| case.wrong.is_some()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(out, "<testsuites tests=\"{}\" failures=\"{failed}\">", cases.len());
    for suite in cases.chunk_by(|a, b| a.file == b.file) {
        let failed = suite.iter().filter(|case| case.wrong.is_some()).count();
        let file = escaped(&suite[0].file);
        let _ =
            writeln!(out, "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{failed}\">", suite.len());
        for case in suite {
            let (name, seconds) = (escaped(&case.name), case.seconds);
            let _ = write!(out, "    <testcase classname=\"{file}\" name=\"{name}\" time=\"{seconds:.3}\"");
            match &case.wrong {
                None => out.push_str("/>\n"),
                Some(text) => {
                    let first = escaped(text.lines().nth(1).unwrap_or_default().trim());
                    let _ =
                        writeln!(out, ">\n      <failure message=\"{first}\">{}</failure>", escaped(text));
                    out.push_str("    </testcase>\n");
                }
            }
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Text of XML 1.0, which has no control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
