//! What happened to calls, in order, and its picture: for tests of scripts, replays and live traces.

use bytes::Bytes;
use std::fmt::Write;

/// Characters of one column of a ladder.
const COLUMN: usize = 26;
/// Lines of a script that a picture shows; the first are left out.
const MAX_LINES: usize = 120;

#[derive(Clone, Debug)]
pub enum What {
    /// Ends of the ladder by index; `None`: somebody who is no party. `lost`: it never arrives.
    Message {
        from: Option<usize>,
        to: Option<usize>,
        /// Its first line.
        text: String,
        /// All of it; empty where nobody shows it.
        full: Bytes,
        lost: bool,
    },
    /// Something that the server asked or was told.
    Note(String),
    Log(String),
    /// A statement of the script.
    Line {
        file: String,
        line: u32,
    },
    /// What a statement came to: a value that was set, a return code, a wait.
    Detail(String),
    /// A step of the scenario was done.
    Step {
        line: usize,
        text: String,
    },
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// Milliseconds since the scenario began.
    pub at: u64,
    /// The call, where several are told of.
    pub call: Bytes,
    pub what: What,
}

#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Names of the columns: parties in their order, the server among them.
    pub columns: Vec<String>,
    pub entries: Vec<Entry>,
}

/// Whether messages are shown whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// Columns of a ladder.
const MAX_COLUMNS: usize = 64;

impl Record {
    /// The column of somebody; the server stands behind the first of the others. `None`: there are too many.
    pub fn column(&mut self, name: &str) -> Option<usize> {
        if self.columns.is_empty() {
            let first = if name == "server" { "somebody" } else { name };
            self.columns.extend([first.to_string(), "server".to_string()]);
        }
        if let Some(at) = self.columns.iter().position(|column| column == name) {
            return Some(at);
        }
        (self.columns.len() < MAX_COLUMNS).then(|| {
            self.columns.push(name.to_string());
            self.columns.len() - 1
        })
    }

    /// Log lines from an entry on.
    pub fn logs(&self, from: usize) -> impl Iterator<Item = &str> {
        self.entries.iter().skip(from).filter_map(|entry| match &entry.what {
            What::Log(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Messages as arrows, with what the server asked and logged.
    pub fn ladder(&self) -> String {
        let mut out = String::from("      time");
        let centre = |at: usize| 10 + COLUMN / 2 + at * COLUMN;
        for name in &self.columns {
            let _ = write!(out, "{name:^COLUMN$}");
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        for Entry { at, what, .. } in &self.entries {
            let time = format!("{:>9.3} ", *at as f64 / 1000.0);
            let mut row: Vec<char> = time.chars().collect();
            row.resize(10 + self.columns.len() * COLUMN + 1, ' ');
            (0..self.columns.len()).for_each(|column| row[centre(column)] = '│');
            match what {
                What::Message { from, to, text, lost, .. } => {
                    self.arrow(&mut row, *from, *to, text, *lost, centre);
                }
                What::Note(text) => self.beside(&mut row, &format!("({text})"), centre),
                What::Log(text) => self.beside(&mut row, &format!("log: {text}"), centre),
                What::Line { .. } | What::Detail(_) | What::Step { .. } => continue,
            }
            let line: String = row.into_iter().collect();
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn server(&self) -> usize {
        self.columns.iter().position(|name| name == "server").unwrap_or(0)
    }

    /// A text on the server's line; it runs over those of the parties behind it.
    fn beside(&self, row: &mut Vec<char>, text: &str, centre: impl Fn(usize) -> usize) {
        let from = centre(self.server()) + 2;
        for (i, c) in text.chars().take(160).enumerate() {
            if row.len() <= from + i {
                row.resize(from + i + 1, ' ');
            }
            row[from + i] = c;
        }
    }

    fn arrow(
        &self,
        row: &mut Vec<char>,
        from: Option<usize>,
        to: Option<usize>,
        text: &str,
        lost: bool,
        centre: impl Fn(usize) -> usize,
    ) {
        let (Some(a), Some(b)) = (from, to) else {
            let way = if from.is_some() { "to nobody" } else { "from nobody" };
            return self.beside(row, &format!("{text} {way}"), centre);
        };
        if a == b {
            return self.beside(row, &format!("{text} to itself"), centre);
        }
        let (left, right) = (centre(a.min(b)) + 1, centre(a.max(b)) - 1);
        for cell in &mut row[left..=right] {
            *cell = '─';
        }
        let head = if a < b { right } else { left };
        row[head] = if lost {
            '✗'
        } else if a < b {
            '►'
        } else {
            '◄'
        };
        let room = right - left - 3;
        let label: Vec<char> = text.chars().take(room).collect();
        let at = left + (right - left).saturating_sub(label.len()) / 2 + usize::from(a > b);
        for (i, c) in label.into_iter().enumerate() {
            row[at + i] = c;
        }
    }

    /// Everything one below the other: messages, statements with their text and what they came to, waits. `source` gives
    /// a line of a file.
    pub fn story(&self, source: impl Fn(&str, u32) -> String) -> String {
        self.told(source, Whole::No)
    }

    /// The same with messages as they went.
    pub fn story_with_messages(&self, source: impl Fn(&str, u32) -> String) -> String {
        self.told(source, Whole::Yes)
    }

    fn told(&self, source: impl Fn(&str, u32) -> String, whole: Whole) -> String {
        let name = |end: &Option<usize>| end.and_then(|at| self.columns.get(at)).map_or("somebody", |n| n);
        let mut out = String::new();
        for Entry { at, what, .. } in &self.entries {
            let time = *at as f64 / 1000.0;
            let _ = match what {
                What::Message { from, to, text, full, lost } => {
                    let lost = if *lost { " (lost)" } else { "" };
                    let _ = writeln!(out, "{time:>9.3} {} ──► {}: {text}{lost}", name(from), name(to));
                    let full = String::from_utf8_lossy(full);
                    let lines = full.trim_end().lines().filter(|_| whole == Whole::Yes);
                    for line in lines {
                        let _ = writeln!(out, "            | {}", line.trim_end());
                    }
                    Ok(())
                }
                What::Note(text) => writeln!(out, "{time:>9.3}   ({text})"),
                What::Log(text) => writeln!(out, "{time:>9.3}   log: {text}"),
                What::Line { file, line } => {
                    let short = file.rsplit('/').next().unwrap_or(file);
                    writeln!(out, "{time:>9.3}   {short}:{line}: {}", source(file, *line).trim())
                }
                What::Detail(text) => writeln!(out, "{:>9}       {text}", ""),
                What::Step { .. } => Ok(()),
            };
        }
        out
    }

    /// The statements that ran, each with its text; `source` gives a line of a file.
    pub fn lines(&self, source: impl Fn(&str, u32) -> String) -> String {
        let mut shown: Vec<(u64, &str, u32, usize)> = Vec::new();
        for Entry { at, what, .. } in &self.entries {
            let What::Line { file, line } = what else { continue };
            match shown.last_mut() {
                Some((_, f, l, times)) if f == file && l == line => *times += 1,
                _ => shown.push((*at, file, *line, 1)),
            }
        }
        let skipped = shown.len().saturating_sub(MAX_LINES);
        let mut out = String::new();
        if skipped > 0 {
            let _ = writeln!(out, "  ... {skipped} lines before these");
        }
        for (at, file, line, times) in shown.into_iter().skip(skipped) {
            let name = file.rsplit('/').next().unwrap_or(file);
            let again = if times > 1 { format!("  (x{times})") } else { String::new() };
            let text = source(file, line);
            let _ = writeln!(out, "{:>9.3} {name}:{line}: {}{again}", at as f64 / 1000.0, text.trim());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, what: What) -> Entry {
        Entry { at, call: Bytes::new(), what }
    }

    fn message(at: u64, from: usize, to: usize, text: &str, lost: bool) -> Entry {
        entry(
            at,
            What::Message { from: Some(from), to: Some(to), text: text.into(), full: Bytes::new(), lost },
        )
    }

    #[test]
    fn a_ladder() {
        let line = |line| entry(1, What::Line { file: "etc/a.cfg".into(), line });
        let record = Record {
            columns: vec!["alice".into(), "server".into(), "bob".into()],
            entries: vec![
                message(0, 0, 1, "INVITE sip:bob@10.0.0.1", false),
                line(3),
                line(4),
                line(4),
                entry(1, What::Note("sql: select 1: 1 row".into())),
                message(1, 1, 2, "INVITE", true),
                message(1500, 2, 0, "200 OK", false),
            ],
        };
        let ladder = record.ladder();
        let lines: Vec<&str> = ladder.lines().collect();
        assert!(lines[0].contains("alice") && lines[0].contains("server") && lines[0].contains("bob"));
        assert!(
            lines[1].contains("│INVITE sip:bob@10.0.0.1") || lines[1].contains("INVITE sip:bob@10.0"),
            "{ladder}"
        );
        assert!(lines[1].contains('►') && lines[2].contains("(sql: select 1: 1 row)"), "{ladder}");
        assert!(lines[3].contains('✗') && lines[4].contains('◄') && lines[4].contains("1.500"), "{ladder}");
        let story = record.story(|_, line| format!("  statement {line}; "));
        assert!(
            story.starts_with(
                "    0.000 alice ──► server: INVITE sip:bob@10.0.0.1\n    0.001   a.cfg:3: statement 3;\n"
            ),
            "{story}"
        );
        assert!(story.contains("1.500 bob ──► alice: 200 OK"), "{story}");
        let ran = record.lines(|_, line| format!("  statement {line}; "));
        assert_eq!(ran, "    0.001 a.cfg:3: statement 3;\n    0.001 a.cfg:4: statement 4;  (x2)\n");
    }
}
