//! What is wrong with a configuration, where, and what to write instead.

use bytes::Bytes;
use std::fmt::Write as _;

/// A place in the configuration: file (index in `Sources`) and byte range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Loc {
    /// Index in [`Sources::files`].
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// The byte behind the last.
    pub end: u32,
}

impl Loc {
    /// From the start of `self` to the end of `other`; `self` when they stand in different files.
    pub fn to(self, other: Loc) -> Loc {
        if self.file == other.file && other.end >= self.start { Loc { end: other.end, ..self } } else { self }
    }
}

/// Whether a server can run with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, and probably does not do what is meant.
    Warning,
    /// Nothing against the script: what a machine lacks that it may not run on.
    Note,
}

impl Severity {
    /// "error", "warning", "note"
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing wrong with a configuration. Never a bare string: place, what, and what to write instead.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Whether a server can run with it.
    pub severity: Severity,
    /// The place.
    pub loc: Loc,
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// True where this machine decides, not the text: a file, an interface. It keeps a server from starting,
    /// but says nothing against the script.
    pub here: bool,
}

impl Diagnostic {
    /// A server cannot run with it.
    pub fn error(loc: Loc, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Error, loc, message: message.into(), hint: None, here: false }
    }
    /// A server can run with it.
    pub fn warning(loc: Loc, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Self::error(loc, message) }
    }
    /// Says what to write instead.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// The problem is this machine's, not the text's.
    pub fn of_this_machine(mut self) -> Self {
        self.here = true;
        self
    }
    /// A server cannot run with it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The candidate nearest to `word`, when it is near enough to be meant by it: for "did you mean".
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match word.len() {
        0..=2 => 0,
        3..=5 => 1,
        6..=10 => 2,
        _ => 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate.len().abs_diff(word.len()) > limit {
            continue;
        }
        let d = distance(word.as_bytes(), candidate.as_bytes());
        if d <= limit && best.is_none_or(|(b, _)| d < b) {
            best = Some((d, candidate));
        }
    }
    best.map(|(_, c)| c)
}

/// Edits between two words, a swap of neighbours counting as one; case costs nothing.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let (mut before, mut above): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = a[i - 1].eq_ignore_ascii_case(&b[j - 1]);
            row[j] = (above[j - 1] + usize::from(!same)).min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// One text that a configuration was read from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path, as it was opened.
    pub name: String,
    /// All of it.
    pub text: Bytes,
}

/// The texts a configuration was read from (includes too), for excerpts and line numbers.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// In the order in which they were opened.
    pub files: Vec<Source>,
}

/// Widest excerpt shown, in characters.
const EXCERPT: usize = 120;

impl Sources {
    /// Adds a text and returns its index for `Loc::file`; one that is there already keeps its.
    pub fn add(&mut self, name: String, text: impl Into<Bytes>) -> u16 {
        let text = text.into();
        if let Some(at) = self.files.iter().position(|f| f.name == name && f.text == text) {
            return at.min(u16::MAX as usize) as u16;
        }
        self.files.push(Source { name, text });
        (self.files.len() - 1).min(u16::MAX as usize) as u16
    }

    /// Name of the file of a place; empty for a place in no file.
    pub fn name(&self, loc: Loc) -> &str {
        self.files.get(loc.file as usize).map_or("", |f| &f.name)
    }

    /// The text at a place.
    pub fn text(&self, loc: Loc) -> &[u8] {
        let text = self.files.get(loc.file as usize).map_or(&b""[..], |f| &f.text);
        text.get(loc.start as usize..(loc.end as usize).min(text.len())).unwrap_or(b"")
    }

    /// (line, column), both from 1; the column counts characters.
    pub fn line_col(&self, loc: Loc) -> (u32, u32) {
        let Some(file) = self.files.get(loc.file as usize) else { return (1, 1) };
        let start = (loc.start as usize).min(file.text.len());
        let line_start = memchr::memrchr(b'\n', &file.text[..start]).map_or(0, |i| i + 1);
        let line = memchr::memchr_iter(b'\n', &file.text[..line_start]).count() as u32 + 1;
        let column = String::from_utf8_lossy(&file.text[line_start..start]).chars().count() as u32 + 1;
        (line, column)
    }

    /// For people: what, file:line:column, excerpt with the place underlined, hint.
    ///
    /// ```text
    /// error: `else` without an `if` before it
    ///  --> opensips.cfg:12:5
    ///    |
    /// 12 |     else {
    ///    |     ^^^^
    ///    = hint: no `;` may stand between `}` and `else`
    /// ```
    pub fn render(&self, d: &Diagnostic) -> String {
        let kind = d.severity.word();
        let mut out = format!("{kind}: {}\n", d.message);
        if let Some(file) = self.files.get(d.loc.file as usize) {
            let (line, column) = self.line_col(d.loc);
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            let (excerpt, marks) = self.excerpt(d.loc);
            let _ = writeln!(out, "{gutter}--> {}:{line}:{column}", file.name);
            let _ = writeln!(out, "{gutter} |\n{number} | {excerpt}\n{gutter} | {marks}");
            if let Some(hint) = &d.hint {
                let _ = writeln!(out, "{gutter} = hint: {hint}");
            }
        } else if let Some(hint) = &d.hint {
            let _ = writeln!(out, " = hint: {hint}");
        }
        out
    }

    /// The line of a place and the carets below it, cut to a readable width.
    fn excerpt(&self, loc: Loc) -> (String, String) {
        let text = &self.files[loc.file as usize].text;
        let start = (loc.start as usize).min(text.len());
        let end = (loc.end as usize).clamp(start, text.len());
        let line_start = memchr::memrchr(b'\n', &text[..start]).map_or(0, |i| i + 1);
        let line_end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |i| start + i);
        let plain = |bytes: &[u8]| -> String {
            let clean = |c: char| {
                if c == '\t' {
                    c
                } else if c.is_control() {
                    ' '
                } else {
                    c
                }
            };
            String::from_utf8_lossy(bytes).trim_end_matches(['\r', '\n']).chars().map(clean).collect()
        };
        let mut before = plain(&text[line_start..start]);
        let inside = plain(&text[start..end.min(line_end)]);
        let after = plain(&text[end.min(line_end)..line_end]);
        let lead = before.chars().count();
        if lead > EXCERPT / 2 {
            before = format!("...{}", before.chars().skip(lead - EXCERPT / 2).collect::<String>());
        }
        let mut line: String = format!("{before}{inside}{after}");
        if line.chars().count() > EXCERPT {
            line = format!("{}...", line.chars().take(EXCERPT).collect::<String>());
        }
        let room = EXCERPT.saturating_sub(before.chars().count()).max(1);
        let pad: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let marks = format!("{pad}{}", "^".repeat(inside.chars().count().clamp(1, room)));
        (line.trim_end().to_string(), marks)
    }
}
