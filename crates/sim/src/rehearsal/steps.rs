//! The steps of a scenario, as they are written.

use super::pattern::{Pattern, duration};
use super::yaml::{Node, NodeKind, Problem};

/// How long something that is expected is waited for when a step does not say, milliseconds of the scenario's time.
const WITHIN: u64 = 60_000;
/// How long nothing has to happen for `receives: nothing`.
const SILENCE: u64 = 5_000;

pub struct Step {
    pub line: usize,
    /// As it is written, in short.
    pub text: String,
    pub what: What,
}

pub enum What {
    Send {
        party: String,
        message: String,
        /// A party's name, or an address; the server by default.
        to: Option<String>,
        /// The bytes are sent as they are written.
        raw: bool,
    },
    Authenticate {
        party: String,
    },
    Receive {
        party: String,
        message: Box<Expected>,
        within: u64,
        /// (name, header, expression): what its first group matches can be used as {name} later.
        save: Vec<(String, String, Pattern)>,
    },
    Silence {
        party: String,
        lasts: u64,
    },
    Wait(u64),
    Log {
        pattern: Pattern,
        within: u64,
    },
    NoLog(Pattern),
    /// Values when the last script ended.
    Variables(Vec<(String, Pattern)>),
    Database {
        query: String,
        gives: Vec<Vec<Pattern>>,
    },
    Command {
        name: String,
        params: Vec<(String, String)>,
        gives: Option<Pattern>,
        fails: bool,
    },
}

/// A message as it should be.
#[derive(Debug)]
pub struct Expected {
    pub start: Start,
    /// (name, value)
    pub headers: Vec<(String, String)>,
    /// Lines that the body must have.
    pub body: Vec<String>,
}

#[derive(Debug)]
pub enum Start {
    Request {
        method: String,
        uri: Option<String>,
    },
    /// "200", "4xx"; the reason where it is written.
    Reply {
        status: String,
        reason: Option<String>,
    },
}

impl Step {
    pub fn parse(node: &Node, parties: &[&str]) -> Result<Step, Problem> {
        let line = node.line;
        let (head, head_line, value) = match &node.kind {
            NodeKind::Text(text) => (text.trim(), line, None),
            NodeKind::Map(entries) => match entries.first() {
                Some((key, at, value)) => (key.as_str(), *at, Some(value)),
                None => return Err(Problem::new(line, "an empty step")),
            },
            _ => return Err(Problem::new(line, "a step is a text or a map")),
        };
        let what = match head {
            "wait" => What::Wait(duration(text_of(value, "wait", line)?, line)?),
            "log" => {
                node.only("a step", &[head, "within"])?;
                let pattern = Pattern::parse(text_of(value, "log", line)?, line)?;
                What::Log { pattern, within: within(node, 1000)? }
            }
            "no log" => What::NoLog(Pattern::parse(text_of(value, "no log", line)?, line)?),
            "variables" => What::Variables(variables(value, line)?),
            "database" => database(node, value, line)?,
            "command" => command(node, value, line)?,
            _ => of_party(node, head, head_line, value, parties)?,
        };
        let first = match value.map(|v| &v.kind) {
            Some(NodeKind::Text(text)) => text.lines().next().unwrap_or_default(),
            _ => "",
        };
        let text = if first.is_empty() { head.to_string() } else { format!("{head}: {first}") };
        Ok(Step { line, text, what })
    }
}

fn text_of<'a>(value: Option<&'a Node>, what: &str, line: usize) -> Result<&'a str, Problem> {
    value.ok_or_else(|| Problem::new(line, format!("`{what}:` needs a value")))?.text(what)
}

fn within(node: &Node, otherwise: u64) -> Result<u64, Problem> {
    node.get("within").map_or(Ok(otherwise), |within| duration(within.text("within")?, within.line))
}

/// "alice sends", "bob receives", "alice authenticates".
fn of_party(
    node: &Node,
    head: &str,
    line: usize,
    value: Option<&Node>,
    parties: &[&str],
) -> Result<What, Problem> {
    let (name, verb) = head.split_once(' ').unwrap_or((head, ""));
    if !parties.contains(&name) {
        let hint = match parties {
            [] => "the file has no `parties:`".to_string(),
            parties => format!("parties are {}", parties.join(", ")),
        };
        return Err(Problem::new(
            line,
            format!(
                "`{head}` is no step: {hint}; others are wait, log, no log, variables, database, command"
            ),
        ));
    }
    let party = name.to_string();
    match verb {
        "sends" => {
            node.only("a step", &[head, "to", "raw"])?;
            let to = node.get("to").map(|to| to.text("to").map(str::to_string)).transpose()?;
            let raw = super::plan::yes(node, "raw")?;
            Ok(What::Send { party, message: text_of(value, "sends", line)?.to_string(), to, raw })
        }
        "authenticates" if value.is_none_or(Node::is_null) => Ok(What::Authenticate { party }),
        "receives nothing" => Ok(What::Silence { party, lasts: SILENCE }),
        "receives" => {
            node.only("a step", &[head, "within", "for", "save"])?;
            let text = text_of(value, "receives", line)?;
            if text.trim() == "nothing" {
                let lasts = node.get("for").map_or(Ok(SILENCE), |n| duration(n.text("for")?, n.line))?;
                return Ok(What::Silence { party, lasts });
            }
            let message = Box::new(Expected::parse(text, line)?);
            Ok(What::Receive { party, message, within: within(node, WITHIN)?, save: saves(node)? })
        }
        _ => Err(Problem::new(line, format!("a party sends, receives or authenticates: `{head}`"))),
    }
}

/// `save: {tag: 'To: /tag=(\w+)/'}`
fn saves(node: &Node) -> Result<Vec<(String, String, Pattern)>, Problem> {
    let Some(save) = node.get("save") else { return Ok(Vec::new()) };
    let one = |(name, line, value): &(String, usize, Node)| {
        let wrong = || Problem::new(*line, "`save` has lines like `tag: 'To: /tag=(\\w+)/'`");
        let (header, pattern) = value.text("save")?.split_once(':').ok_or_else(wrong)?;
        match Pattern::parse(pattern, *line)? {
            pattern @ Pattern::Regex(_) => Ok((name.clone(), header.trim().to_string(), pattern)),
            _ => Err(wrong()),
        }
    };
    save.map("save")?.iter().map(one).collect()
}

fn variables(value: Option<&Node>, line: usize) -> Result<Vec<(String, Pattern)>, Problem> {
    let value = value.ok_or_else(|| Problem::new(line, "`variables:` needs lines like `$avp(x): value`"))?;
    let one = |(name, at, value): &(String, usize, Node)| {
        if !name.contains('$') {
            return Err(Problem::new(*at, format!("`{name}` is no variable of a script: they begin with $")));
        }
        let pattern = if value.is_null() { "<null>" } else { value.text("a value")? };
        Ok((name.clone(), Pattern::parse(pattern, *at)?))
    };
    value.map("variables")?.iter().map(one).collect()
}

fn database(node: &Node, value: Option<&Node>, line: usize) -> Result<What, Problem> {
    node.only("a step", &["database", "gives"])?;
    let query = text_of(value, "database", line)?.to_string();
    let gives = node.get("gives").ok_or_else(|| Problem::new(line, "`gives:` is missing: a list of rows"))?;
    let cell =
        |cell: &Node| Pattern::parse(if cell.is_null() { "NULL" } else { cell.text("a value")? }, cell.line);
    let row = |row: &Node| row.list("a row")?.iter().map(cell).collect::<Result<Vec<_>, _>>();
    let gives = gives.list("gives")?.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    Ok(What::Database { query, gives })
}

fn command(node: &Node, value: Option<&Node>, line: usize) -> Result<What, Problem> {
    node.only("a step", &["command", "with", "gives", "fails"])?;
    let name = text_of(value, "command", line)?.trim().to_string();
    let with = node.get("with").map_or(Ok(&[][..]), |with| with.map("with"))?;
    let params = with.iter().map(|(key, _, value)| Ok((key.clone(), value.text("a parameter")?.to_string())));
    let params = params.collect::<Result<Vec<_>, Problem>>()?;
    let gives =
        node.get("gives").map(|gives| Pattern::parse(gives.text("gives")?, gives.line)).transpose()?;
    Ok(What::Command { name, params, gives, fails: super::plan::yes(node, "fails")? })
}

impl Expected {
    /// A start line, header lines, and after an empty line what the body must have.
    pub fn parse(text: &str, line: usize) -> Result<Expected, Problem> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().trim();
        let first = first.strip_prefix("SIP/2.0 ").unwrap_or(first);
        let first = first.strip_suffix(" SIP/2.0").unwrap_or(first);
        let (word, rest) = first.split_once(' ').unwrap_or((first, ""));
        let rest = Some(rest.trim().to_string()).filter(|rest| !rest.is_empty());
        let digit = word.starts_with(|c: char| c.is_ascii_digit());
        let start = match word {
            "" => return Err(Problem::new(line, "which message? A method, or a status")),
            status if digit && status.len() == 3 => Start::Reply { status: status.to_string(), reason: rest },
            method if method.chars().all(|c| c.is_ascii_uppercase()) => {
                Start::Request { method: method.to_string(), uri: rest }
            }
            other => return Err(Problem::new(line, format!("`{other}` is neither a method nor a status"))),
        };
        let (mut headers, mut body) = (Vec::new(), Vec::new());
        let mut in_body = false;
        for (at, text) in lines.enumerate() {
            match (in_body, text.trim()) {
                (false, "") => in_body = true,
                (true, "") => {}
                (true, text) => body.push(text.to_string()),
                (false, text) => {
                    let wrong = || Problem::new(line + at + 1, format!("`{text}` is no header line"));
                    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
                    headers.push((name.trim().to_string(), value.trim().to_string()));
                }
            }
        }
        Ok(Expected { start, headers, body })
    }
}
