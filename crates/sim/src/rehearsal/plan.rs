//! A file of scenarios, read: the world around the script and what is to happen.

use super::pattern::{Pattern, duration};
use super::steps::Step;
use super::yaml::{self, Node, Problem};
use crate::network::Quality;
use sip::names::{Record, RecordKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the clock stands when a scenario begins and the file does not say: 2026-01-01 12:00 UTC.
const START: i64 = 1_767_268_800;
/// The address of a server that listens on all of them.
const SERVER: &str = "10.0.0.1";

pub struct Plan {
    /// As the file names it, from where the file is.
    pub script: PathBuf,
    /// Instead of the script's own sockets.
    pub listen: Vec<String>,
    pub scenarios: Vec<Scenario>,
}

pub struct Scenario {
    pub name: String,
    pub line: usize,
    pub setup: Setup,
    pub steps: Vec<Step>,
}

/// The world around the script.
#[derive(Clone)]
pub struct Setup {
    pub parties: Vec<PartySpec>,
    /// Unix seconds.
    pub start: i64,
    /// The address of this server where it listens on all.
    pub server: std::net::IpAddr,
    pub network: Quality,
    pub tables: Vec<Table>,
    pub sql: Vec<(usize, String)>,
    pub queries: Vec<Rule<QueryAnswer>>,
    pub http: Vec<Rule<HttpAnswer>>,
    pub processes: Vec<Rule<ProcessAnswer>>,
    pub names: Vec<NameRule>,
    pub stores: Vec<(String, String)>,
    pub stores_rule: Vec<Rule<StoreAnswer>>,
}

#[derive(Clone, Debug)]
pub struct PartySpec {
    pub name: String,
    pub address: SocketAddr,
    pub user: String,
    pub domain: Option<String>,
    pub password: Option<String>,
    /// It does by itself only what a step says.
    pub manual: bool,
}

/// Rows of a table: (column, value), NULL being `None`.
#[derive(Clone, Debug)]
pub struct Table {
    pub line: usize,
    pub name: String,
    pub rows: Vec<Vec<(String, Option<String>)>>,
}

/// What is answered when somebody outside is asked.
#[derive(Clone, Debug)]
pub struct Rule<A> {
    pub line: usize,
    pub asked: Pattern,
    pub when: When,
    pub answer: A,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct When {
    /// Milliseconds.
    pub after: u64,
    pub hangs: bool,
    /// It answers so often; then the next rule that fits.
    pub times: Option<u64>,
}

#[derive(Clone, Debug)]
pub enum QueryAnswer {
    /// What the tables say.
    Tables,
    Rows {
        columns: Vec<String>,
        rows: Vec<Vec<Option<String>>>,
    },
    /// The server refuses the statement.
    Error(String),
    /// The server is not there.
    Gone,
}

#[derive(Clone, Debug)]
pub enum HttpAnswer {
    Status { status: u16, ctype: String, body: String },
    Refused,
    Unreachable,
    Broken,
}

#[derive(Clone, Debug)]
pub struct ProcessAnswer {
    pub output: String,
    pub errors: String,
    pub exit: i64,
    /// There is no such program.
    pub missing: bool,
}

#[derive(Clone, Debug)]
pub enum StoreAnswer {
    Stores,
    Gone,
}

#[derive(Clone, Debug)]
pub struct NameRule {
    pub name: String,
    /// None: it does not exist.
    pub records: Vec<(RecordKind, Record)>,
    /// The name servers do not answer.
    pub fails: bool,
    pub when: When,
}

const SETUP: [&str; 12] = [
    "parties",
    "start",
    "server",
    "network",
    "tables",
    "sql",
    "queries",
    "http",
    "processes",
    "names",
    "stores",
    "store operations",
];

impl Plan {
    /// Reads a file; `folder` is where it stands.
    pub fn parse(text: &str, folder: &Path) -> Result<Plan, Problem> {
        let root = yaml::parse(text)?;
        let mut known = vec!["script", "listen", "scenarios"];
        known.extend(SETUP);
        root.only("a file of scenarios", &known)?;
        let script = root.get("script").ok_or_else(|| Problem::new(1, "`script:` names no script"))?;
        let script = folder.join(script.text("script")?);
        let listen = texts(root.get("listen"), "listen")?;
        let mut setup = Setup::empty();
        setup.read(&root)?;
        let list = root.get("scenarios").ok_or_else(|| Problem::new(1, "there are no `scenarios:`"))?;
        let mut scenarios: Vec<Scenario> = Vec::new();
        for node in list.list("scenarios")? {
            let mut known = vec!["name", "steps"];
            known.extend(SETUP);
            node.only("a scenario", &known)?;
            let name =
                node.get("name").ok_or_else(|| Problem::new(node.line, "a scenario needs a `name:`"))?;
            let name = name.text("name")?.to_string();
            if scenarios.iter().any(|s| s.name == name) {
                return Err(Problem::new(node.line, format!("there are two scenarios `{name}`")));
            }
            let mut setup = setup.clone();
            setup.read(node)?;
            let steps =
                node.get("steps").ok_or_else(|| Problem::new(node.line, "a scenario needs `steps:`"))?;
            let parties: Vec<&str> = setup.parties.iter().map(|p| p.name.as_str()).collect();
            let steps = steps.list("steps")?.iter().map(|step| Step::parse(step, &parties));
            let steps = steps.collect::<Result<Vec<_>, _>>()?;
            scenarios.push(Scenario { name, line: node.line, setup, steps });
        }
        Ok(Plan { script, listen, scenarios })
    }
}

fn texts(node: Option<&Node>, what: &str) -> Result<Vec<String>, Problem> {
    match node.map(|node| &node.kind) {
        None => Ok(Vec::new()),
        Some(yaml::NodeKind::Text(one)) => Ok(vec![one.clone()]),
        Some(_) => {
            let list = node.map_or(Ok(&[][..]), |node| node.list(what))?;
            list.iter().map(|one| one.text(what).map(str::to_string)).collect()
        }
    }
}

impl Setup {
    fn empty() -> Setup {
        Setup {
            parties: Vec::new(),
            start: START,
            server: SERVER.parse().unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            network: Quality { loss: 0, double: 0, delay: 1 },
            tables: Vec::new(),
            sql: Vec::new(),
            queries: Vec::new(),
            http: Vec::new(),
            processes: Vec::new(),
            names: Vec::new(),
            stores: Vec::new(),
            stores_rule: Vec::new(),
        }
    }

    /// What a scenario says comes before what the file says.
    fn read(&mut self, node: &Node) -> Result<(), Problem> {
        if let Some(parties) = node.get("parties") {
            for (name, line, party) in parties.map("parties")? {
                let spec = PartySpec::read(name, *line, party)?;
                self.parties.retain(|known| known.name != spec.name);
                self.parties.push(spec);
            }
        }
        if let Some(start) = node.get("start") {
            let wrong = || Problem::new(start.line, "`start` is a time like 2026-01-31 12:00:00 (UTC)");
            self.start = host::clock::from_sql(start.text("start")?).ok_or_else(wrong)?;
        }
        if let Some(server) = node.get("server") {
            let wrong = |_| Problem::new(server.line, "`server` is an IP address");
            self.server = server.text("server")?.parse().map_err(wrong)?;
        }
        if let Some(network) = node.get("network") {
            self.network = quality(network)?;
        }
        if let Some(tables) = node.get("tables") {
            for (name, line, rows) in tables.map("tables")? {
                let table = Table { line: *line, name: name.clone(), rows: rows_of(rows)? };
                self.tables.retain(|known| known.name != table.name);
                self.tables.push(table);
            }
        }
        for statement in node.get("sql").map_or(Ok(&[][..]), |sql| sql.list("sql"))? {
            self.sql.push((statement.line, statement.text("a statement")?.to_string()));
        }
        before(&mut self.queries, rules(node.get("queries"), "query", QUERY, query_answer)?);
        before(&mut self.http, rules(node.get("http"), "request", HTTP, http_answer)?);
        before(&mut self.processes, rules(node.get("processes"), "command", PROCESS, process_answer)?);
        before(&mut self.stores_rule, rules(node.get("store operations"), "key", &["gone"], store_answer)?);
        for (name, _, rule) in node.get("names").map_or(Ok(&[][..]), |names| names.map("names"))? {
            let rule = NameRule::read(name, rule)?;
            self.names.retain(|known| known.name != rule.name);
            self.names.push(rule);
        }
        for (key, _, value) in node.get("stores").map_or(Ok(&[][..]), |stores| stores.map("stores"))? {
            self.stores.push((key.clone(), value.text("a value")?.to_string()));
        }
        Ok(())
    }
}

fn before<T>(list: &mut Vec<T>, mut first: Vec<T>) {
    first.append(list);
    *list = first;
}

fn quality(node: &Node) -> Result<Quality, Problem> {
    node.only("network", &["loss", "double", "delay"])?;
    let percent = |key: &str| -> Result<u64, Problem> {
        let Some(value) = node.get(key) else { return Ok(0) };
        let number = value.text(key)?.trim().trim_end_matches('%').trim().parse().ok();
        let wrong = || Problem::new(value.line, format!("`{key}` is percent, 0 to 90"));
        number.filter(|n| *n <= 90).ok_or_else(wrong)
    };
    let delay = node.get("delay").map_or(Ok(1), |delay| duration(delay.text("delay")?, delay.line))?;
    Ok(Quality { loss: percent("loss")?, double: percent("double")?, delay: delay.max(1) })
}

fn rows_of(node: &Node) -> Result<Vec<Vec<(String, Option<String>)>>, Problem> {
    let row = |row: &Node| {
        let cells = row.map("a row")?.iter().map(|(column, _, value)| Ok((column.clone(), cell(value)?)));
        cells.collect::<Result<Vec<_>, Problem>>()
    };
    node.list("the rows of a table")?.iter().map(row).collect()
}

fn cell(value: &Node) -> Result<Option<String>, Problem> {
    if value.is_null() { Ok(None) } else { value.text("a value").map(|text| Some(text.to_string())) }
}

const WHEN: [&str; 3] = ["after", "hangs", "times"];
const QUERY: &[&str] = &["rows", "columns", "error", "gone"];
const HTTP: &[&str] = &["status", "type", "body", "refused", "unreachable", "broken"];
const PROCESS: &[&str] = &["output", "errors", "exit", "missing"];

impl When {
    fn read(node: &Node) -> Result<When, Problem> {
        let after = node.get("after").map_or(Ok(0), |after| duration(after.text("after")?, after.line))?;
        let times = match node.get("times") {
            None => None,
            Some(times) => {
                let wrong = |_| Problem::new(times.line, "`times` is a number");
                Some(times.text("times")?.trim().parse().map_err(wrong)?)
            }
        };
        Ok(When { after, hangs: yes(node, "hangs")?, times })
    }
}

/// A key that is yes or no; missing is no.
pub fn yes(node: &Node, key: &str) -> Result<bool, Problem> {
    let Some(value) = node.get(key) else { return Ok(false) };
    match value.text(key)? {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        other => Err(Problem::new(value.line, format!("`{key}` is yes or no, not `{other}`"))),
    }
}

/// The rules of a list: `key` is what they are asked.
fn rules<A>(
    node: Option<&Node>,
    key: &str,
    fields: &[&str],
    answer: fn(&Node) -> Result<A, Problem>,
) -> Result<Vec<Rule<A>>, Problem> {
    let list = node.map_or(Ok(&[][..]), |node| node.list("answers"))?;
    let rule = |node: &Node| {
        let known: Vec<&str> = [key].iter().chain(&WHEN).chain(fields).copied().collect();
        node.only("an answer", &known)?;
        let asked = node.get(key).ok_or_else(|| Problem::new(node.line, format!("`{key}:` is missing")))?;
        let asked = Pattern::parse(asked.text(key)?, asked.line)?;
        Ok(Rule { line: node.line, asked, when: When::read(node)?, answer: answer(node)? })
    };
    list.iter().map(rule).collect()
}

fn query_answer(node: &Node) -> Result<QueryAnswer, Problem> {
    if let Some(error) = node.get("error") {
        return Ok(QueryAnswer::Error(error.text("error")?.to_string()));
    }
    if yes(node, "gone")? {
        return Ok(QueryAnswer::Gone);
    }
    let Some(list) = node.get("rows") else { return Ok(QueryAnswer::Tables) };
    let mut columns = texts(node.get("columns"), "columns")?;
    let mut rows = Vec::new();
    for row in list.list("rows")? {
        match &row.kind {
            yaml::NodeKind::Map(cells) => {
                columns = cells.iter().map(|(column, ..)| column.clone()).collect();
                rows.push(cells.iter().map(|(.., value)| cell(value)).collect::<Result<Vec<_>, _>>()?);
            }
            _ => rows.push(row.list("a row")?.iter().map(cell).collect::<Result<Vec<_>, _>>()?),
        }
    }
    Ok(QueryAnswer::Rows { columns, rows })
}

fn http_answer(node: &Node) -> Result<HttpAnswer, Problem> {
    for (key, answer) in [
        ("refused", HttpAnswer::Refused),
        ("unreachable", HttpAnswer::Unreachable),
        ("broken", HttpAnswer::Broken),
    ] {
        if yes(node, key)? {
            return Ok(answer);
        }
    }
    let text = |key: &str, otherwise: &str| {
        node.get(key).map_or(Ok(otherwise.to_string()), |value| value.text(key).map(str::to_string))
    };
    let status = text("status", "200")?.trim().parse();
    let status = status.map_err(|_| Problem::new(node.line, "`status` is a number like 200"))?;
    Ok(HttpAnswer::Status { status, ctype: text("type", "text/plain")?, body: text("body", "")? })
}

fn process_answer(node: &Node) -> Result<ProcessAnswer, Problem> {
    let text =
        |key: &str| node.get(key).map_or(Ok(String::new()), |value| value.text(key).map(str::to_string));
    let exit = match text("exit")?.trim() {
        "" => 0,
        number => number.parse().map_err(|_| Problem::new(node.line, "`exit` is a number"))?,
    };
    Ok(ProcessAnswer {
        output: text("output")?,
        errors: text("errors")?,
        exit,
        missing: yes(node, "missing")?,
    })
}

fn store_answer(node: &Node) -> Result<StoreAnswer, Problem> {
    Ok(if yes(node, "gone")? { StoreAnswer::Gone } else { StoreAnswer::Stores })
}

fn records(node: Option<&Node>, line: usize) -> Result<Vec<(RecordKind, Record)>, Problem> {
    let one = |text: &String| {
        let wrong = || {
            Problem::new(
                line,
                format!("`{text}` is no record: an address, SRV 10 5 5060 host, NAPTR ..., TXT ..., PTR ..."),
            )
        };
        super::scene::dns_record(text).ok_or_else(wrong)
    };
    texts(node, "records")?.iter().map(one).collect()
}

impl NameRule {
    fn read(name: &str, node: &Node) -> Result<NameRule, Problem> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut rule = NameRule { name, records: Vec::new(), fails: false, when: When::default() };
        if let yaml::NodeKind::Map(_) = node.kind {
            node.only("a name", &["records", "fails", "after", "hangs"])?;
            rule.records = records(node.get("records"), node.line)?;
            rule.fails = yes(node, "fails")?;
            rule.when = When::read(node)?;
        } else if !node.is_null() {
            rule.records = records(Some(node), node.line)?;
        }
        Ok(rule)
    }
}

impl PartySpec {
    /// `10.0.0.2`, `10.0.0.2:5070`, or a map with `address`.
    fn read(name: &str, line: usize, node: &Node) -> Result<PartySpec, Problem> {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if name.is_empty() || !plain {
            return Err(Problem::new(
                line,
                format!("`{name}`: a party has a name of letters, digits, - and _"),
            ));
        }
        let is_map = matches!(node.kind, yaml::NodeKind::Map(_));
        if is_map {
            node.only("a party", &["address", "user", "domain", "password", "manual"])?;
        }
        let text = |key: &str| node.get(key).map(|value| value.text(key).map(str::to_string)).transpose();
        let address = if is_map { text("address")? } else { Some(node.text("an address")?.to_string()) };
        let address = address.unwrap_or_default();
        let address = address
            .parse::<SocketAddr>()
            .or_else(|_| address.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, 5060)))
            .map_err(|_| {
                Problem::new(
                    node.line,
                    format!("`{address}` is no address of a party: 10.0.0.2 or 10.0.0.2:5070"),
                )
            })?;
        Ok(PartySpec {
            name: name.to_string(),
            address,
            user: text("user")?.unwrap_or_else(|| name.to_string()),
            domain: text("domain")?,
            password: text("password")?,
            manual: yes(node, "manual")?,
        })
    }
}
