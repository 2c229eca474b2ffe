//! `fermata trace`: single calls of a running server, while they happen.

use crate::remote::Remote;
use capture::story::{Entry, Record, What};
use clap::Args;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(300);
/// The server cannot be asked.
const UNUSABLE: u8 = 255;

const HELP: &str = r#"Examples:
  fermata trace sip:bob@example.com              # calls of this user, as From, To or request URI
  fermata trace 203.0.113.7                      # calls to and from this address
  fermata trace 3848276298220188511@pc33         # this Call-ID
  fermata trace sip:bob@example.com --messages   # messages whole
  fermata trace 203.0.113.7 --seconds 10 --ladder   # ten seconds, then a ladder for each call
  fermata trace 203.0.113.7 --json               # one object for each entry, for programs

Shown are messages, the lines of the script that call a function or set a variable, with values and return
codes, and what is waited for. It costs the calls that are traced a little time, others nothing. It ends with
Ctrl-C. The management command behind it is fermata:trace; docs/TRACING.md says what it answers.

The server is found as `fermata mi` finds it: by the script of -f, else /etc/fermata/fermata.cfg, else
/etc/opensips/opensips.cfg, or as --fifo, --datagram or --http say."#;

/// Whom to trace, and how it is shown.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Options {
    /// A Call-ID, `sip:user@...`, or an IP address
    filter: String,
    #[command(flatten)]
    remote: Remote,
    /// Show messages whole
    #[arg(long)]
    messages: bool,
    /// End after so many seconds
    #[arg(long, value_name = "NUMBER")]
    seconds: Option<f64>,
    /// At the end, draw a ladder of each call
    #[arg(long)]
    ladder: bool,
    /// One JSON object a line instead of text
    #[arg(long, conflicts_with_all = ["messages", "ladder"])]
    json: bool,
}

pub fn run(options: &Options) -> ExitCode {
    match follow(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("fermata: {text}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn follow(options: &Options) -> Result<(), String> {
    let client = format!("trace-{}", std::process::id());
    let params = json!([options.filter, client]);
    let server = options.remote.find()?;
    let ask = || server.call("fermata:trace", &params);
    ask()?;
    if !options.json {
        eprintln!("waiting for calls of {} (Ctrl-C ends)", options.filter);
    }
    let started = Instant::now();
    let mut calls: Vec<(String, Record)> = Vec::new();
    let mut first = None;
    loop {
        std::thread::sleep(INTERVAL);
        let over = options.seconds.is_some_and(|s| started.elapsed().as_secs_f64() >= s);
        for told in ask()?.as_array().into_iter().flatten() {
            if options.json {
                println!("{told}");
                continue;
            }
            let at = told["time_us"].as_u64().unwrap_or_default() / 1000;
            let from = *first.get_or_insert(at);
            let id = told["call_id"].as_str().unwrap_or_default();
            let place = calls.iter().position(|(known, _)| known == id).unwrap_or_else(|| {
                println!("== {id}");
                calls.push((id.to_string(), Record::default()));
                calls.len() - 1
            });
            let record = &mut calls[place].1;
            let Some((entry, text)) = entry(record, told, at.saturating_sub(from)) else { continue };
            let one = Record { columns: record.columns.clone(), entries: vec![entry.clone()] };
            let source = |_: &str, _: u32| text.clone();
            print!("{}", if options.messages { one.story_with_messages(source) } else { one.story(source) });
            if options.ladder {
                record.entries.push(entry);
            }
        }
        let _ = std::io::stdout().flush();
        if over {
            break;
        }
    }
    let _ = server.call("fermata:trace_stop", &params);
    if options.ladder {
        for (id, record) in &calls {
            println!("\n{id}\n{}", record.ladder());
        }
    }
    Ok(())
}

/// What the server told, for the record of its call; and the text of its line.
fn entry(record: &mut Record, told: &Json, at: u64) -> Option<(Entry, String)> {
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_string();
    let what = match told["type"].as_str()? {
        "message" => {
            let mut column = |name: &str| record.column(told[name].as_str()?);
            let (from, to) = (column("from"), column("to"));
            What::Message { from, to, text: text("text"), full: text("message").into(), lost: false }
        }
        "line" => What::Line { file: text("file"), line: told["line"].as_u64()? as u32 },
        "detail" => What::Detail(text("text")),
        "log" => What::Log(text("text")),
        _ => What::Note(text("text")),
    };
    Some((Entry { at, call: text("call_id").into(), what }, text("text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_becomes_a_ladder() {
        let mut record = Record::default();
        let message =
            json!({"type": "message", "from": "10.0.0.2:5060", "to": "server", "text": "INVITE sip:b@x"});
        for told in [message, json!({"type": "wait", "text": "waits for sleep"})] {
            let (entry, _) = entry(&mut record, &told, 5).unwrap();
            record.entries.push(entry);
        }
        assert_eq!(record.columns, ["10.0.0.2:5060", "server"]);
        let ladder = record.ladder();
        assert!(ladder.contains("INVITE sip:b@x") && ladder.contains("(waits for sleep)"), "{ladder}");
    }
}
