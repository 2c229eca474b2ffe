//! `fermata profile`: where scripts of a running server spend their time, and what they wait for; as tables and as a
//! flame graph.

use crate::remote::Remote;
use clap::Args;
use serde_json::{Value as Json, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The server cannot be asked, or the file cannot be written.
const UNUSABLE: u8 = 255;
/// Rows of each table.
const ROWS: usize = 25;

const HELP: &str = r#"Examples:
  fermata profile                          # ten seconds, then tables: lines by time, lines by waits
  fermata profile --seconds 60 --svg cpu.svg --waits-svg waits.svg   # flame graphs for a browser
  fermata profile --json > profile.json    # what the management command fermata:profile answers

Time is found by looking a thousand times a second where each worker is; nothing is added to the lines
themselves but a note of the place. Waits are counted each, with their time. While nothing is measured it costs
nothing. A flame graph has routes at the bottom, their lines above, functions on top; wider is longer.

The server is found as `fermata mi` finds it: by the script of -f, else /etc/fermata/fermata.cfg, else
/etc/opensips/opensips.cfg, or as --fifo, --datagram or --http say."#;

/// How long, and how it is shown.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Options {
    #[command(flatten)]
    remote: Remote,
    /// How long is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 10.0)]
    seconds: f64,
    /// Write a flame graph of the time in scripts
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a flame graph of the waits
    #[arg(long, value_name = "FILE")]
    waits_svg: Option<PathBuf>,
    /// Print what was measured as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("fermata: {text}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn measure(options: &Options) -> Result<(), String> {
    let server = options.remote.find()?;
    let call = |name: &str| server.call(name, &json!([]));
    call("fermata:profile_start")?;
    std::thread::sleep(Duration::from_secs_f64(options.seconds.clamp(0.01, 3600.0)));
    let found = call("fermata:profile");
    call("fermata:profile_stop")?;
    let found = found?;
    let write = |path: &Option<PathBuf>, text: String| match path {
        None => Ok(()),
        Some(path) => std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display())),
    };
    write(&options.svg, flame("Time in scripts", "samples", &stacks(&found["samples"], "samples")))?;
    write(&options.waits_svg, flame("Waits of scripts", "ms", &stacks(&found["waits"], "total_ms")))?;
    if options.json {
        println!("{found}");
    } else {
        print!("{}", tables(&found));
    }
    Ok(())
}

fn place(row: &Json) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    format!("{}:{}", text("file").rsplit('/').next().unwrap_or_default(), row["line"])
}

fn tables(found: &Json) -> String {
    let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    let (samples, waits) = (list("samples"), list("waits"));
    let number = |row: &Json, name: &str| row[name].as_u64().unwrap_or_default();
    let total: u64 = samples.iter().map(|row| number(row, "samples")).sum();
    let (taken, seconds) = (number(found, "taken").max(1), found["seconds"].as_f64().unwrap_or_default());
    let ms = |samples: u64| samples as f64 * seconds * 1000.0 / taken as f64;
    let mut out = format!(
        "{seconds:.1} s, {} ms of processor time, about {:.0} ms of it in scripts\n",
        found["cpu_ms"],
        ms(total)
    );
    let _ = writeln!(out, "\n    TIME      ms  LINE                      ROUTE");
    for row in samples.iter().take(ROWS) {
        let count = number(row, "samples");
        let share = count as f64 * 100.0 / total.max(1) as f64;
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "{share:>6.1} % {:>7.0}  {:24}  {:20}  {}",
            ms(count),
            place(row),
            text("route"),
            text("source")
        );
    }
    let _ = writeln!(out, "\n    WAITS  FAILED  MEAN ms  LONGEST  LINE                      OPERATION");
    for row in waits.iter().take(ROWS) {
        let count = number(row, "count");
        let _ = writeln!(
            out,
            "{count:>9} {:>7} {:>8.1} {:>8}  {:24}  {}",
            number(row, "failed"),
            number(row, "total_ms") as f64 / count.max(1) as f64,
            number(row, "longest_ms"),
            place(row),
            row["what"].as_str().unwrap_or_default()
        );
    }
    out
}

/// A frame: its name, its weight, what stands on it.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    name: String,
    weight: u64,
    above: Vec<Frame>,
}

impl Frame {
    fn add(&mut self, path: &[String], weight: u64) {
        self.weight += weight;
        let Some((first, rest)) = path.split_first() else { return };
        let at = self.above.iter().position(|frame| frame.name == *first).unwrap_or_else(|| {
            self.above.push(Frame { name: first.clone(), ..Frame::default() });
            self.above.len() - 1
        });
        self.above[at].add(rest, weight);
    }
}

/// Route, line, function.
fn stacks(rows: &Json, weight: &str) -> Frame {
    let mut all = Frame { name: "all".to_string(), ..Frame::default() };
    for row in rows.as_array().into_iter().flatten() {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let mut path = vec![text("route").to_string(), format!("{} {}", place(row), text("source"))];
        let top = if text("what").is_empty() { text("function") } else { text("what") };
        if !top.is_empty() {
            path.push(top.to_string());
        }
        all.add(&path, row[weight].as_u64().unwrap_or_default());
    }
    all
}

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 22.0;

fn flame(title: &str, unit: &str, all: &Frame) -> String {
    let height = 5.0 * HEIGHT + 20.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fffdf5\"/><text x=\"4\" y=\"16\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    if all.weight == 0 {
        out.push_str("<text x=\"4\" y=\"40\">nothing was measured</text>\n");
    } else {
        draw(&mut out, all, (0.0, WIDTH), 0, height, (unit, all.weight));
    }
    out.push_str("</svg>\n");
    out
}

fn draw(
    out: &mut String,
    frame: &Frame,
    (from, width): (f64, f64),
    floor: u32,
    height: f64,
    of: (&str, u64),
) {
    let (unit, total) = of;
    let y = height - f64::from(floor + 1) * HEIGHT;
    let share = frame.weight as f64 * 100.0 / total as f64;
    let name = escaped(&frame.name);
    let hue = 10 + frame.name.bytes().fold(0u32, |sum, b| (sum * 31 + u32::from(b)) % 45);
    let letters = (width / 7.0) as usize;
    let label: String = frame.name.chars().take(letters.saturating_sub(1)).collect();
    let _ = write!(
        out,
        "<g><title>{name}: {} {unit}, {share:.1} %</title><rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" \
         fill=\"hsl({hue},85%,65%)\" rx=\"2\"/>",
        frame.weight,
        (width - 0.5).max(0.3),
        HEIGHT - 1.0
    );
    if letters > 3 {
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", from + 3.0, y + 15.0, escaped(&label));
    }
    out.push_str("</g>\n");
    let mut at = from;
    let mut above: Vec<&Frame> = frame.above.iter().collect();
    above.sort_by(|a, b| a.name.cmp(&b.name));
    for next in above {
        let own = width * next.weight as f64 / frame.weight.max(1) as f64;
        draw(out, next, (at, own), floor + 1, height, of);
        at += own;
    }
}

/// Text inside XML.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Json {
        let row = |route: &str, line: u32, function: &str, samples: u64| json!({"route": route, "file": "/etc/a.cfg", "line": line, "function": function, "source": format!("{function}(\"<x>\");"), "samples": samples});
        let wait = json!({"route": "request_route", "file": "/etc/a.cfg", "line": 9, "what": "sql_query", "source": "sql_query();", "count": 4, "failed": 1, "total_ms": 100, "longest_ms": 70});
        json!({
            "seconds": 2.0, "taken": 2000, "cpu_ms": 500,
            "samples": [row("request_route", 3, "xlog", 30), row("route[relay]", 7, "t_relay", 10)],
            "waits": [wait],
        })
    }

    #[test]
    fn lines_by_time_and_by_waits() {
        let shown = tables(&found());
        assert!(shown.contains("about 40 ms of it in scripts"), "{shown}");
        assert!(shown.contains("  75.0 %      30  a.cfg:3 "), "{shown}");
        assert!(shown.contains("        4       1     25.0       70  a.cfg:9 "), "{shown}");
    }

    #[test]
    fn a_flame_graph_is_well_formed_and_in_proportion() {
        let all = stacks(&found()["samples"], "samples");
        assert_eq!(
            (all.weight, all.above.len(), all.above[0].above[0].above[0].name.as_str()),
            (40, 2, "xlog")
        );
        let svg = flame("Time", "samples", &all);
        assert!(svg.contains("width=\"899.5\"") && svg.contains("width=\"299.5\""), "{svg}");
        assert!(svg.contains("&lt;x&gt;") && !svg.contains("<x>"), "{svg}");
        assert!(flame("Time", "ms", &Frame::default()).contains("nothing was measured"));
    }
}
