//! `fermata replay`: shows the calls of a recording, line for line, also with another script.

use capture::recorder::format::{Input, Recording};
use capture::teller::Wanted;
use clap::Args;
use sim::replay::{Replayed, Script, replay};
use std::path::PathBuf;
use std::process::ExitCode;

/// The replay of the recorded script went another way than what was recorded.
const DIFFERS: u8 = 1;
/// The recording or the script cannot be used.
const UNUSABLE: u8 = 255;

const HELP: &str = r#"A server records when its script says so, or when it is told to:

  loadmodule "recorder.so"
  modparam("recorder", "enabled", 1)            # from the start; else: recorder:start
  modparam("recorder", "size", 64)              # megabytes of each worker; the oldest goes
  modparam("recorder", "mask_credentials", 1)   # digests and passwords are crossed out

  opensips-cli -x mi recorder:save /var/tmp/night.rec

Examples:
  fermata replay night.rec                                  # the calls that are in it
  fermata replay night.rec --call-id 3848276298220188511@x  # a ladder, then every line with values
  fermata replay night.rec --call-id 38482... --messages    # and every message whole
  fermata replay night.rec --call-id 38482... --config new.cfg   # what would this script do?
  fermata replay night.rec --verify                         # is everything sent as it was?

Nothing goes out: databases, HTTP servers, names and processes are answered from the recording. What is not
in it (files that modules read, calls that began before it) is on the page docs/RECORDING.md.

Exit codes: 0 all as it was; 1 the replay of the recorded script sends something else; 255 the recording or
the script cannot be used."#;

/// Which recording, and what of it.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Options {
    /// A file of recorder:save, or the folder of modparam("recorder", "directory", ...)
    file: PathBuf,
    /// Show this call
    #[arg(long, value_name = "CALL-ID")]
    call_id: Option<String>,
    /// Show calls to or from this user
    #[arg(long, value_name = "USER", conflicts_with = "call_id")]
    user: Option<String>,
    /// Run another script: what would it do with the same messages and answers?
    #[arg(long, value_name = "SCRIPT", requires = "call_id")]
    config: Option<PathBuf>,
    /// Show messages whole
    #[arg(long)]
    messages: bool,
    /// Only say whether the replay sends what was sent
    #[arg(long, conflicts_with_all = ["call_id", "user", "config"])]
    verify: bool,
}

pub fn run(options: &Options) -> ExitCode {
    match work(options) {
        Ok(code) => code,
        Err(text) => {
            eprintln!("fermata: {}", text.trim_end());
            ExitCode::from(UNUSABLE)
        }
    }
}

fn work(options: &Options) -> Result<ExitCode, String> {
    let path = &options.file;
    let bytes = match path.is_dir() {
        true => capture::recorder::spill::read_folder(path),
        false => std::fs::read(path),
    };
    let bytes = bytes.map_err(|e| format!("{}: {e}", path.display()))?;
    let recording = Recording::parse(&bytes).map_err(|text| format!("{}: {text}", path.display()))?;
    let wanted = match (&options.call_id, &options.user) {
        (Some(id), _) => Wanted::Call(id.clone().into_bytes().into()),
        (None, Some(user)) => Wanted::User(user.clone()),
        // Nothing is shown: the list of calls, or the verdict.
        (None, None) => Wanted::Call(Default::default()),
    };
    let shows = options.call_id.is_some() || options.user.is_some();
    if !shows && !options.verify {
        list(&recording);
        return Ok(ExitCode::SUCCESS);
    }
    let script = options.config.clone().map_or(Script::Recorded, Script::Other);
    let replayed = replay(&recording, wanted, &script, catalog::all())?;
    if shows {
        if replayed.record.entries.is_empty() {
            return Err("nothing of this call is in the recording (without --call-id its calls are listed)"
                .to_string());
        }
        print!("{}", shown(&replayed, options.messages));
    }
    if script != Script::Recorded {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(verdict(&recording, &replayed))
}

/// The calls of a recording.
fn list(recording: &Recording) {
    let mut known = std::collections::HashMap::<String, (u64, String, usize)>::new();
    let mut order = Vec::new();
    let start = recording.events.first().map_or(0, |event| event.at.wall_us);
    for event in &recording.events {
        let Input::Message { bytes, .. } = &event.input else { continue };
        let Some(id) = sip::Message::owner(bytes) else { continue };
        let id = String::from_utf8_lossy(id).into_owned();
        let call = known.entry(id.clone()).or_insert_with(|| {
            order.push(id);
            (event.at.wall_us, capture::teller::first_line(bytes), 0)
        });
        call.2 += 1;
    }
    println!("     time  messages  call");
    for id in &order {
        let (at, first, messages) = &known[id];
        println!("{:>9.3}  {messages:>8}  {id}  {first}", (at - start) as f64 / 1e6);
    }
    let gaps = if recording.has_gaps { ", with gaps: older parts were dropped" } else { "" };
    println!("{} calls, {} steps of the workers{gaps}", order.len(), recording.events.len());
}

/// The ladder, and the story below it.
pub fn shown(replayed: &Replayed, messages: bool) -> String {
    let source = |file: &str, line: u32| {
        let found = replayed.sources.files.iter().find(|source| source.name == file);
        let text = found.map(|source| String::from_utf8_lossy(&source.text).into_owned()).unwrap_or_default();
        text.lines().nth((line as usize).saturating_sub(1)).unwrap_or_default().to_string()
    };
    let record = &replayed.record;
    let story = if messages { record.story_with_messages(source) } else { record.story(source) };
    format!("{}\n{story}", record.ladder())
}

fn verdict(recording: &Recording, replayed: &Replayed) -> ExitCode {
    let then: usize = recording.events.iter().map(|event| event.sent.len()).sum();
    if replayed.same == then && replayed.sent == then {
        println!("\nthe replay sends all {then} messages as they were sent");
        return ExitCode::SUCCESS;
    }
    println!(
        "\n{} of {then} messages are sent as they were, {} others",
        replayed.same,
        replayed.sent - replayed.same
    );
    for difference in &replayed.differences {
        println!("  {difference}");
    }
    if recording.is_of_several_scripts() {
        println!("  routes were reloaded before it was saved: the replay has those that were read last");
    }
    if recording.has_gaps {
        println!("  the recording has gaps: calls that began in one cannot be as they were");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(DIFFERS)
}
