//! What stands around the server in a scenario: everything it may ask, on the scenario's clock.

use super::pattern::Pattern;
use super::plan::{HttpAnswer as Http, NameRule, ProcessAnswer as Process, Rule, Setup, When};
use crate::executor::Executor;
use capture::story::{Entry, Record, What};
use drivers::db_sqlite::Memory;
use host::Ctx;
use host::call::Finish;
use host::ctx::{Later, Resolved, Spawn, TaskId};
use host::outside::{Awaited, HttpAnswer, HttpRequest, Outside, ProcessAnswer, ProcessRequest};
use net::dns::rfc3263::{self, Records};
use net::dns::{DnsOptions, Failure, Families, FoundRecords, Naptr, SearchList};
use script::End;
use sip::Transport;
use sip::names::{Query, Record as DnsRecord, RecordKind, ResolveError};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

thread_local! {
    static SCENE: RefCell<Option<Rc<Scene>>> = const { RefCell::new(None) };
}

/// One scenario's world. It belongs to one thread.
pub struct Scene {
    pub clock: Executor,
    pub setup: Setup,
    pub memory: Memory,
    pub record: RefCell<Record>,
    /// Milliseconds since the scenario began.
    pub now: Cell<u64>,
    /// Statements that ran, by file and line: how often.
    pub hits: RefCell<HashMap<(String, u32), u64>>,
    /// Variables that steps look at, and what they were when the last script ended.
    pub watched: Vec<String>,
    pub values: RefCell<Vec<String>>,
    /// Answers given, by the line of their rule.
    used: RefCell<HashMap<usize, u64>>,
    /// Startup has ended: messages may come.
    pub started: Cell<bool>,
    pub dns: RefCell<DnsOptions>,
}

/// The scene that plays on this thread.
pub fn scene() -> Option<Rc<Scene>> {
    SCENE.with(|scene| scene.borrow().clone())
}

/// The scene is this one until the guard is dropped.
pub fn enter(scene: Rc<Scene>) -> Entered {
    SCENE.with(|slot| *slot.borrow_mut() = Some(scene));
    Entered
}

pub struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        SCENE.with(|slot| slot.borrow_mut().take());
    }
}

impl Scene {
    pub fn new(setup: Setup, watched: Vec<String>, seed: u64) -> Result<Scene, String> {
        let dns = DnsOptions {
            naptr: Naptr::Skip,
            families: Families::V4,
            transports: vec![Transport::Udp],
            retry_after: None,
            retries: None,
            servers: None,
            search: SearchList::Ignore,
        };
        Ok(Scene {
            clock: Executor::new(seed),
            setup,
            memory: Memory::new()?,
            record: RefCell::default(),
            now: Cell::new(0),
            hits: RefCell::default(),
            watched,
            values: RefCell::default(),
            used: RefCell::default(),
            started: Cell::new(false),
            dns: RefCell::new(dns),
        })
    }

    pub fn note(&self, what: What) {
        self.record.borrow_mut().entries.push(Entry { at: self.now.get(), call: Default::default(), what });
    }

    pub fn say(&self, text: impl Into<String>) {
        self.note(What::Note(text.into()));
    }

    /// The first rule that fits what is asked and still answers.
    pub fn rule<'a, A>(&self, rules: &'a [Rule<A>], asked: &str) -> Option<&'a Rule<A>> {
        let mut used = self.used.borrow_mut();
        let free = |rule: &&Rule<A>| {
            let so_far = used.get(&rule.line).copied().unwrap_or(0);
            fits(&rule.asked, asked) && rule.when.times.is_none_or(|times| so_far < times)
        };
        let found = rules.iter().find(free)?;
        *used.entry(found.line).or_default() += 1;
        Some(found)
    }

    /// Waits as a rule says.
    pub async fn wait(&self, when: When) {
        if when.hangs {
            std::future::pending::<()>().await;
        }
        if when.after > 0 {
            self.clock.sleep(when.after).await;
        }
    }

    fn name(&self, name: &str) -> Option<&NameRule> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.setup.names.iter().find(|rule| rule.name == name)
    }
}

/// Spaces and letters' case do not matter in what is asked.
fn fits(pattern: &Pattern, asked: &str) -> bool {
    match pattern {
        Pattern::Text(text) => {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            words(text).eq_ignore_ascii_case(&words(asked))
        }
        pattern => pattern.matches(asked),
    }
}

/// The world outside, for modules.
pub struct Stand;

impl Outside for Stand {
    fn http(&self, request: HttpRequest) -> Awaited<HttpAnswer> {
        let Some(scene) = scene() else { return Box::pin(std::future::ready(HttpAnswer::Refused)) };
        let asked = format!("{} {}", request.method, request.url);
        let Some(rule) = scene.rule(&scene.setup.http, &asked).cloned() else {
            scene.say(format!("http: {asked}: nothing under `http:` answers this"));
            return Box::pin(std::future::ready(HttpAnswer::Refused));
        };
        scene.say(format!("http: {asked} ..."));
        Box::pin(async move {
            scene.wait(rule.when).await;
            let (told, answer) = match rule.answer {
                Http::Status { status, ctype, body } => (
                    status.to_string(),
                    HttpAnswer::Answered { status, ctype: ctype.into(), body: body.into() },
                ),
                Http::Refused => ("refused".to_string(), HttpAnswer::Refused),
                Http::Broken => ("the connection broke".to_string(), HttpAnswer::Broken),
                Http::Unreachable => {
                    match request.connect_ms {
                        Some(ms) => scene.clock.sleep(ms).await,
                        None => std::future::pending().await,
                    }
                    ("no connection in time".to_string(), HttpAnswer::Unreachable)
                }
            };
            scene.say(format!("http: {asked}: {told}"));
            answer
        })
    }

    fn process(&self, request: ProcessRequest) -> Awaited<Option<ProcessAnswer>> {
        let Some(scene) = scene() else { return Box::pin(std::future::ready(None)) };
        let args = request.args.unwrap_or_default();
        let asked = [request.command].into_iter().chain(args).collect::<Vec<_>>().join(" ");
        let Some(rule) = scene.rule(&scene.setup.processes, &asked).cloned() else {
            scene.say(format!("process: {asked}: nothing under `processes:` answers this"));
            return Box::pin(std::future::ready(None));
        };
        scene.say(format!("process: {asked} ..."));
        Box::pin(async move {
            scene.wait(rule.when).await;
            let Process { output, errors, exit, missing } = rule.answer;
            scene.say(format!("process: {asked}: exit {exit}"));
            let done = ProcessAnswer { stdout: output.into(), stderr: errors.into(), success: exit == 0 };
            (!missing).then_some(done)
        })
    }

    fn statement(&self, ctx: &mut Ctx) {
        let Some(scene) = scene() else { return };
        let loc = ctx.state.task.loc();
        let sources = ctx.shared().sources();
        let (file, line) = (sources.name(loc).to_string(), sources.line_col(loc).0);
        *scene.hits.borrow_mut().entry((file.clone(), line)).or_default() += 1;
        scene.note(What::Line { file, line });
    }

    fn ended(&self, ctx: &mut Ctx, _: End) {
        let Some(scene) = scene() else { return };
        let value = |text: &String| match ctx.late_format(&text.clone().into()) {
            Some(format) => String::from_utf8_lossy(&format.text(ctx)).into_owned(),
            None => "(no variable of that name)".to_string(),
        };
        *scene.values.borrow_mut() = scene.watched.iter().map(value).collect();
    }
}

/// Runs operations of scripts on the scene's clock; answers for names.
pub struct Spawner;

impl Spawn for Spawner {
    fn spawn(&self, task: TaskId, future: Pin<Box<dyn Future<Output = Finish>>>) -> Box<dyn Any> {
        match scene() {
            Some(scene) => scene.clock.spawn(task, future),
            None => Box::new(()),
        }
    }

    fn started(&self) {
        if let Some(scene) = scene() {
            scene.started.set(true);
        }
    }

    fn resolve(&self, query: Query) -> Resolved {
        if let Some(hop) = sip::names::literal(&query) {
            return Resolved::Now(Ok(vec![hop]));
        }
        let Some(scene) = scene() else { return Resolved::Now(Err(ResolveError::Unavailable)) };
        Resolved::Later(Box::pin(async move {
            let options = scene.dns.borrow().clone();
            let (found, _) = rfc3263::resolve(&query, &options, &Zone(scene.clone())).await;
            let hops = found.map(|answer| answer.order(|n| scene.clock.below(u64::from(n.max(1))) as u32));
            let shown = match &hops {
                Ok(hops) => hops.iter().map(|hop| hop.addr.to_string()).collect::<Vec<_>>().join(", "),
                Err(e) => e.to_string(),
            };
            scene.say(format!("name {}: {shown}", query.host));
            hops
        }))
    }

    fn source_for(&self, _: IpAddr) -> Option<IpAddr> {
        scene().map(|scene| scene.setup.server)
    }

    fn records(&self, name: String, kind: RecordKind) -> Later<Vec<DnsRecord>> {
        let Some(scene) = scene() else {
            return Box::pin(std::future::ready(Err(ResolveError::Unavailable)));
        };
        Box::pin(async move {
            match Zone(scene.clone()).find(&name, kind).await {
                Ok(found) => Ok(found.records),
                Err(Failure::Missing(_)) => Ok(Vec::new()),
                Err(Failure::Unavailable) => Err(ResolveError::Unavailable),
                Err(Failure::BadName) => Err(ResolveError::BadName),
            }
        })
    }
}

/// The names of a scenario as DNS has them.
struct Zone(Rc<Scene>);

impl Records for Zone {
    async fn find(&self, name: &str, kind: RecordKind) -> Result<FoundRecords, Failure> {
        let Some(rule) = self.0.name(name) else { return Err(Failure::Missing(None)) };
        self.0.wait(rule.when).await;
        if rule.fails {
            return Err(Failure::Unavailable);
        }
        let records: Vec<DnsRecord> =
            rule.records.iter().filter(|(is, _)| *is == kind).map(|(_, record)| record.clone()).collect();
        match records.is_empty() {
            true => Err(Failure::Missing(None)),
            false => Ok(FoundRecords { records, ttl: Duration::from_secs(60) }),
        }
    }
}

/// A line of a zone without its name: "10.0.0.9", "SRV 10 5 5060 a.example", "NAPTR 1 1 u E2U+sip !^.*$!sip:x! .", "TXT
/// text", "PTR name".
pub fn dns_record(text: &str) -> Option<(RecordKind, DnsRecord)> {
    let of = |ip: IpAddr| if ip.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa };
    if let Ok(ip) = text.trim().parse::<IpAddr>() {
        return Some((of(ip), DnsRecord::Address(ip)));
    }
    let (kind, rest) = text.trim().split_once(' ')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let name = |text: &str| text.trim_end_matches('.').to_string();
    let number = |at: usize| words.get(at)?.parse::<u16>().ok();
    Some(match kind.to_ascii_uppercase().as_str() {
        "A" | "AAAA" => {
            let ip: IpAddr = words.first()?.parse().ok()?;
            (of(ip), DnsRecord::Address(ip))
        }
        "SRV" => {
            let (priority, weight, port) = (number(0)?, number(1)?, number(2)?);
            (RecordKind::Srv, DnsRecord::Srv { priority, weight, port, target: name(words.get(3)?) })
        }
        "NAPTR" => {
            let word = |at: usize| words.get(at).map(|w| w.trim_matches('"').to_string());
            let (order, preference) = (number(0)?, number(1)?);
            let replacement = name(&word(5)?);
            let (flags, service, regexp) = (word(2)?, word(3)?, word(4)?);
            (RecordKind::Naptr, DnsRecord::Naptr { order, preference, flags, service, regexp, replacement })
        }
        "TXT" => (RecordKind::Txt, DnsRecord::Txt(rest.trim().trim_matches('"').as_bytes().to_vec())),
        "PTR" => (RecordKind::Ptr, DnsRecord::Name(name(words.first()?))),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_zone() {
        for (text, kind) in [
            ("10.0.0.9", Some(RecordKind::A)),
            ("2001:db8::1", Some(RecordKind::Aaaa)),
            ("SRV 10 5 5060 a.example.", Some(RecordKind::Srv)),
            ("NAPTR 1 1 u E2U+sip !^.*$!sip:x@y! .", Some(RecordKind::Naptr)),
            ("TXT \"v=1\"", Some(RecordKind::Txt)),
            ("SRV 10 a.example", None),
            ("nonsense", None),
        ] {
            assert_eq!(dns_record(text).map(|(kind, _)| kind), kind, "{text}");
        }
    }
}
