//! `fermata top`: calls of a running server and what they wait for, like `top`.

use crate::remote::{Remote, Server};
use clap::Args;
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// The server cannot be asked.
const UNUSABLE: u8 = 255;
/// Clears the terminal, the cursor at its beginning.
const CLEAR: &str = "\x1b[H\x1b[2J";

const HELP: &str = r#"Examples:
  fermata top                     # once a second, the oldest calls first; Ctrl-C ends
  fermata top --count 5 --every 5
  fermata top --once              # one look, for scripts

Above are requests and replies a second, how busy the workers are, and what calls wait for by operation; below,
each open transaction with its age, the status that its caller has heard, how many branches have no final reply,
and what it waits for, with the line of the script and the time until its deadline.
The management commands behind it are fermata:calls, async_stats and get_statistics.

The server is found as `fermata mi` finds it: by the script of -f, else /etc/fermata/fermata.cfg, else
/etc/opensips/opensips.cfg, or as --fifo, --datagram or --http say."#;

/// How it is shown.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Options {
    #[command(flatten)]
    remote: Remote,
    /// Calls that are shown
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    count: usize,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    every: f64,
    /// One look, without clearing the screen
    #[arg(long)]
    once: bool,
}

pub fn run(options: &Options) -> ExitCode {
    match watch(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("fermata: {text}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn watch(options: &Options) -> Result<(), String> {
    let server = options.remote.find()?;
    let mut before = None;
    loop {
        let picture = look(options, &server, &mut before)?;
        let mut out = std::io::stdout();
        let clear = if out.is_terminal() && !options.once { CLEAR } else { "" };
        if write!(out, "{clear}{picture}").and_then(|()| out.flush()).is_err() || options.once {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs_f64(options.every.clamp(0.1, 3600.0)));
    }
}

/// Requests and replies at the last look.
struct Before {
    at: std::time::Instant,
    requests: i64,
    replies: i64,
}

const STATISTICS: [&str; 5] =
    ["core:rcv_requests", "core:rcv_replies", "load:load", "async:async_in_flight", "async:async_timed_out"];

fn look(options: &Options, server: &Server, before: &mut Option<Before>) -> Result<String, String> {
    let calls = server.call("fermata:calls", &json!([options.count]))?;
    let statistics = server.call("get_statistics", &json!([STATISTICS]))?;
    let value = |name: &str| {
        let value = &statistics[name];
        value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
    };
    let now = Before {
        at: std::time::Instant::now(),
        requests: value("core:rcv_requests"),
        replies: value("core:rcv_replies"),
    };
    let rate =
        |now: i64, then: i64, seconds: f64| format!("{:.0}/s", (now - then) as f64 / seconds.max(0.001));
    let (requests, replies) = match before {
        Some(then) => {
            let seconds = (now.at - then.at).as_secs_f64();
            (rate(now.requests, then.requests, seconds), rate(now.replies, then.replies, seconds))
        }
        None => (now.requests.to_string(), now.replies.to_string()),
    };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "requests {requests}  replies {replies}  workers {} % busy  open {}  waiting {}  timed out {}",
        value("load:load"),
        calls["open"],
        calls["waiting"],
        value("async:async_timed_out")
    );
    *before = Some(now);
    out.push_str(&waits(&calls));
    out.push_str(&table(&calls));
    Ok(out)
}

/// What the shown calls wait for, by operation.
fn waits(calls: &Json) -> String {
    let mut kinds: Vec<(String, usize, u64)> = Vec::new();
    let all = calls["calls"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|call| call["waits"].as_array().into_iter().flatten());
    for wait in all {
        let what = wait["what"].as_str().unwrap_or_default();
        let ms = wait["ms"].as_u64().unwrap_or_default();
        match kinds.iter_mut().find(|(known, ..)| known == what) {
            Some((_, count, longest)) => {
                *count += 1;
                *longest = (*longest).max(ms);
            }
            None => kinds.push((what.to_string(), 1, ms)),
        }
    }
    kinds.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
    let shown: Vec<String> =
        kinds.iter().map(|(what, count, longest)| format!("{count} for {what} ({longest} ms)")).collect();
    if shown.is_empty() { "no call waits\n".to_string() } else { format!("waits: {}\n", shown.join(", ")) }
}

fn table(calls: &Json) -> String {
    let mut out = format!(
        "\n{:>9} {:8} {:>6} {:>8}  {:28} {:28} WAITS FOR\n",
        "AGE", "METHOD", "STATUS", "BRANCHES", "FROM", "TO"
    );
    for call in calls["calls"].as_array().into_iter().flatten() {
        let text = |name: &str| call[name].as_str().unwrap_or_default().chars().take(28).collect::<String>();
        let age = call["ms"].as_u64().unwrap_or_default() as f64 / 1000.0;
        let status = match call["status"].as_u64().unwrap_or_default() {
            0 => "-".to_string(),
            status => status.to_string(),
        };
        let waits: Vec<String> = call["waits"].as_array().into_iter().flatten().map(wait).collect();
        let _ = writeln!(
            out,
            "{age:>8.1}s {:8} {status:>6} {:>8}  {:28} {:28} {}",
            text("method"),
            call["branches"].to_string(),
            text("from"),
            text("to"),
            waits.join("; ")
        );
    }
    out
}

fn wait(wait: &Json) -> String {
    let seconds = |name: &str| wait[name].as_u64().unwrap_or_default() as f64 / 1000.0;
    let text = |name: &str| wait[name].as_str().unwrap_or_default();
    let file = text("file").rsplit('/').next().unwrap_or_default();
    let place = if file.is_empty() { String::new() } else { format!(" at {file}:{}", wait["line"]) };
    let detail: String = text("detail").chars().take(60).collect();
    let detail = if detail.is_empty() { detail } else { format!(" {detail}") };
    format!("{}{detail}{place}, {:.1} s, {:.1} s left", text("what"), seconds("ms"), seconds("left_ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_their_waits() {
        let wait = json!({"what": "sql_query", "detail": "select 1", "ms": 1500, "left_ms": 8500, "file": "/etc/a.cfg", "line": 7});
        let call = json!({"method": "INVITE", "status": 100, "branches": 2, "from": "sip:a@x", "to": "sip:b@x", "ms": 2500, "waits": [wait]});
        let calls = json!({"open": 1, "waiting": 1, "calls": [call]});
        assert_eq!(waits(&calls), "waits: 1 for sql_query (1500 ms)\n");
        let table = table(&calls);
        assert!(table.contains("2.5s INVITE      100        2  sip:a@x"), "{table}");
        assert!(table.contains("sql_query select 1 at a.cfg:7, 1.5 s, 8.5 s left"), "{table}");
        assert_eq!(waits(&json!({"calls": []})), "no call waits\n");
    }
}
