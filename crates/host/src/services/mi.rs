//! Management commands: JSON-RPC names, parameters and results, independent of how they arrive.

use crate::context::shared::Shared;
use crate::context::tape::Note;
use crate::ctx::Ctx;
use serde_json::Value as Json;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An error as JSON-RPC carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct MiError {
    pub code: i64,
    pub message: String,
    /// What exactly is wrong, where `message` is one of the fixed texts of JSON-RPC.
    pub data: Option<String>,
}

impl MiError {
    pub fn new(code: i64, message: impl Into<String>) -> MiError {
        MiError { code, message: message.into(), data: None }
    }
    /// -32602, a parameter is missing or wrong.
    pub fn params(what: impl Into<String>) -> MiError {
        MiError { data: Some(what.into()), ..MiError::new(-32602, "Invalid params") }
    }
    /// -32603, for reasons that stand in the log too.
    pub fn internal(why: impl Into<String>) -> MiError {
        MiError { data: Some(why.into()), ..MiError::new(-32603, "Internal error") }
    }
}

pub type MiResult = Result<Json, MiError>;

/// Parameters, by name or by position.
#[derive(Clone, Debug, Default)]
pub struct MiParams {
    pub named: serde_json::Map<String, Json>,
    pub positional: Vec<Json>,
}

impl MiParams {
    /// From a JSON-RPC `params` value.
    pub fn from_json(params: Option<Json>) -> Result<MiParams, MiError> {
        match params {
            None | Some(Json::Null) => Ok(MiParams::default()),
            Some(Json::Object(named)) => Ok(MiParams { named, positional: Vec::new() }),
            Some(Json::Array(positional)) => Ok(MiParams { named: Default::default(), positional }),
            Some(_) => Err(MiError::params("params must be an object or an array")),
        }
    }

    /// As a JSON-RPC `params` value.
    pub fn to_json(&self) -> Json {
        match self.named.is_empty() {
            true => Json::Array(self.positional.clone()),
            false => Json::Object(self.named.clone()),
        }
    }

    /// By name, else by position (from 0).
    pub fn find(&self, name: &str, position: usize) -> Option<&Json> {
        self.named.get(name).or_else(|| self.positional.get(position))
    }

    /// As text (numbers too); `None` when absent.
    pub fn text(&self, name: &str, position: usize) -> Option<String> {
        self.find(name, position).map(|v| match v {
            Json::String(s) => s.clone(),
            other => other.to_string(),
        })
    }

    pub fn need(&self, name: &str, position: usize) -> Result<String, MiError> {
        let what = if self.named.is_empty() {
            "Too few or too many parameters"
        } else {
            "Named parameters do not match"
        };
        self.text(name, position).ok_or_else(|| MiError::params(what))
    }

    /// A number of 32 bits, signed or not, so that no command has to cut it down.
    pub fn int(&self, name: &str, position: usize) -> Result<Option<i64>, MiError> {
        self.int_in(name, position, i32::MIN.into()..=u32::MAX.into())
    }

    /// A number within these bounds.
    pub fn int_in(
        &self,
        name: &str,
        position: usize,
        bounds: RangeInclusive<i64>,
    ) -> Result<Option<i64>, MiError> {
        let number = match self.find(name, position) {
            None => return Ok(None),
            Some(Json::Number(n)) => n.as_i64(),
            Some(Json::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let number: i64 = number.ok_or_else(|| bad_type(name))?;
        if bounds.contains(&number) {
            return Ok(Some(number));
        }
        let (first, last) = (bounds.start(), bounds.end());
        Err(MiError::params(format!("{name} is a number from {first} to {last}, not {number}")))
    }

    /// Refuses what a command does not take.
    fn check(&self, usage: &Usage) -> Result<(), MiError> {
        let (few, many) = (usage.needed.len(), usage.needed.len() + usage.optional.len());
        let given = self.positional.len().max(self.named.len());
        if given < few || (given > many && !usage.open) {
            return Err(MiError::params("Too few or too many parameters"));
        }
        if self.named.is_empty() {
            return Ok(());
        }
        let known = |name: &String| usage.names().any(|n| n == name);
        let fits = self.named.keys().all(known) && usage.needed.iter().all(|n| self.named.contains_key(*n));
        if fits { Ok(()) } else { Err(MiError::params("Named parameters do not match")) }
    }
}

fn bad_type(name: &str) -> MiError {
    MiError::params(format!("Bad type for parameter '{name}'"))
}

/// Where a command runs.
#[derive(Clone, Copy)]
pub enum MiScope {
    /// On one worker: it reads or writes what workers share.
    One,
    /// On every worker; the function puts the answers together.
    Each(fn(Vec<Json>) -> Json),
}

pub(crate) type Handler = Arc<dyn Fn(&mut Ctx, &MiParams) -> MiResult + Send + Sync>;
pub(crate) type LateHandler = Arc<dyn Fn(&mut Ctx, &MiParams, MiAnswer) + Send + Sync>;

/// Takes the result of a command that waits for something. Dropped, the command fails.
pub struct MiAnswer(futures_channel::oneshot::Sender<MiResult>);

impl MiAnswer {
    /// An answer and where it arrives.
    pub fn channel() -> (MiAnswer, futures_channel::oneshot::Receiver<MiResult>) {
        let (send, receive) = futures_channel::oneshot::channel();
        (MiAnswer(send), receive)
    }

    pub fn give(self, result: MiResult) {
        // Whoever asked may be gone.
        let _ = self.0.send(result);
    }
}

/// One management command.
#[derive(Clone)]
pub struct MiCommand {
    /// As 4.x writes it, `module:what`, where the module gave it such a name.
    pub name: &'static str,
    /// Names of before.
    pub aliases: Vec<&'static str>,
    pub module: &'static str,
    pub help: &'static str,
    /// Its parameters (`CommandWords::takes`); `None`: not declared.
    pub takes: Option<&'static str>,
    pub scope: MiScope,
    pub run: Handler,
    /// Runs instead of `run` when the command waits for I/O; on one worker.
    pub late: Option<LateHandler>,
}

/// The parameters of a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub needed: Vec<&'static str>,
    pub optional: Vec<&'static str>,
    /// The last parameter may be given again and again.
    pub open: bool,
}

impl Usage {
    fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.needed.iter().chain(&self.optional).copied()
    }

    /// The lists of parameters that the command takes, the shortest first.
    pub fn recipes(&self) -> Vec<Vec<&'static str>> {
        let longer = |n: usize| self.needed.iter().chain(&self.optional[..n]).copied().collect();
        (0..=self.optional.len()).map(longer).collect()
    }
}

impl MiCommand {
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// `None`: they were not declared.
    pub fn usage(&self) -> Option<Usage> {
        let mut usage = Usage::default();
        for word in self.takes?.split_ascii_whitespace() {
            usage.open |= word.contains("...");
            let name = word.trim_matches(['[', ']']).trim_end_matches("...");
            if word.starts_with('[') { usage.optional.push(name) } else { usage.needed.push(name) }
        }
        Some(usage)
    }
}

/// The management commands of a server.
#[derive(Default)]
pub struct Commands(pub Vec<MiCommand>);

impl Shared {
    pub fn commands(&self) -> &[MiCommand] {
        &self.part::<Commands>().0
    }

    /// A management command: `name`, or `module:name` as 4.x writes it, where `name` is that of before or what
    /// follows its first word (`domain:reload` is `domain_reload`).
    pub fn command(&self, name: &str) -> Option<&MiCommand> {
        let found = self.commands().iter().find(|c| c.names().any(|own| own == name));
        found.or_else(|| {
            let (module, name) = name.split_once(':')?;
            let mut mine = self.commands().iter().filter(|c| c.module == module);
            let tail = |c: &&MiCommand| {
                c.names().any(|own| own.split_once('_').is_some_and(|(_, tail)| tail == name))
            };
            mine.clone().find(|c| c.names().any(|own| own == name)).or_else(|| mine.find(tail))
        })
    }
}

/// The version line of `version`, the Server header's base.
pub const VERSION: &str = concat!("Fermata (", env!("CARGO_PKG_VERSION"), ", OpenSIPS compatible)");

/// Runs a command by name on the worker or workers it needs.
pub async fn call(shared: &Arc<Shared>, name: &str, params: MiParams) -> MiResult {
    let Some(command) = shared.command(name) else {
        return Err(MiError::new(-32601, "Method not found"));
    };
    if let Some(usage) = command.usage() {
        params.check(&usage)?;
    }
    let Some(dispatch) = shared.dispatch.get() else { return Err(MiError::new(-32603, "Internal error")) };
    let targets = match command.scope {
        MiScope::One => 0..1,
        MiScope::Each(_) => 0..dispatch.workers(),
    };
    let mut waiting = Vec::new();
    for worker in targets {
        let (answer, receive) = MiAnswer::channel();
        let (run, late, params) = (command.run.clone(), command.late.clone(), params.clone());
        let name = command.name;
        let job = move |ctx: &mut Ctx| {
            if let Some(tape) = ctx.core.tape.as_ref().filter(|tape| tape.on()) {
                tape.note(Note::Command { name, params: &params.to_json().to_string() });
            }
            match late {
                Some(late) => late(ctx, &params, answer),
                None => answer.give(run(ctx, &params)),
            }
        };
        dispatch.run_on(worker, Box::new(job));
        waiting.push(receive);
    }
    // Only a worker that has what is asked for may say yes: errors count when nobody does.
    let mut answers = Vec::with_capacity(waiting.len());
    let mut refused = None;
    for receive in waiting {
        match receive.await.unwrap_or_else(|_| Err(MiError::new(-32603, "Internal error"))) {
            Ok(answer) => answers.push(answer),
            Err(error) => refused = Some(error),
        }
    }
    if let (true, Some(error)) = (answers.is_empty(), refused) {
        return Err(error);
    }
    Ok(match command.scope {
        MiScope::One => answers.pop().unwrap_or(Json::Null),
        MiScope::Each(join) => join(answers),
    })
}

/// Texts that may be under way at a time: a command may wait for a database.
pub const UNDER_WAY_LIMIT: usize = 1000;

/// Counts one text for as long as it is under way.
struct UnderWay;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

impl UnderWay {
    fn enter() -> Option<UnderWay> {
        let entered = UnderWay;
        // Dropped, the refused one is not counted any more.
        (UNDER_WAY.fetch_add(1, Ordering::Relaxed) < UNDER_WAY_LIMIT).then_some(entered)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers one JSON-RPC 2.0 text (a request or a batch). `None`: only notifications. Carriers run each text in a task of
/// its own, so that one that waits holds back no other.
pub async fn answer(shared: &Arc<Shared>, text: &[u8]) -> Option<Json> {
    let Some(_under_way) = UnderWay::enter() else {
        shared.stats.counter("mi", "refused_commands").add(1);
        return Some(failure(&MiError::new(503, "Too many commands are under way"), Json::Null));
    };
    match serde_json::from_slice::<Json>(text) {
        Err(_) => Some(failure(&MiError::new(-32700, "Parse error"), Json::Null)),
        Ok(Json::Array(requests)) if requests.is_empty() => {
            Some(failure(&MiError::new(-32600, "Invalid Request"), Json::Null))
        }
        Ok(Json::Array(requests)) => {
            let mut answers = Vec::new();
            for request in requests {
                answers.extend(answer_one(shared, request).await);
            }
            if answers.is_empty() { None } else { Some(Json::Array(answers)) }
        }
        Ok(request) => answer_one(shared, request).await,
    }
}

async fn answer_one(shared: &Arc<Shared>, mut request: Json) -> Option<Json> {
    let id = request.get("id").cloned();
    let method = request.get("method").and_then(Json::as_str).map(str::to_string);
    let (Some(method), Some("2.0")) = (method, request.get("jsonrpc").and_then(Json::as_str)) else {
        return Some(failure(&MiError::new(-32600, "Invalid Request"), id.unwrap_or(Json::Null)));
    };
    let params = request.as_object_mut().and_then(|o| o.remove("params"));
    let result = match MiParams::from_json(params) {
        Ok(params) => call(shared, &method, params).await,
        Err(error) => Err(error),
    };
    let id = id?;
    Some(match result {
        Ok(result) => serde_json::json!({"jsonrpc": "2.0", "result": result, "id": id}),
        Err(error) => failure(&error, id),
    })
}

fn failure(error: &MiError, id: Json) -> Json {
    let mut shown = serde_json::json!({"code": error.code, "message": error.message});
    if let Some(data) = &error.data {
        shown["data"] = Json::from(data.as_str());
    }
    serde_json::json!({"jsonrpc": "2.0", "error": shown, "id": id})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(takes: &'static str) -> MiCommand {
        let (scope, run) = (MiScope::One, Arc::new(|_: &mut Ctx, _: &MiParams| Ok(Json::Null)));
        let (name, aliases, module, help) = ("m:x", vec!["x"], "m", "does it");
        MiCommand { name, aliases, module, help, takes: Some(takes), scope, run, late: None }
    }

    #[test]
    fn what_is_under_way_has_a_bound() {
        let all: Vec<_> = std::iter::from_fn(UnderWay::enter).collect();
        assert_eq!(all.len(), UNDER_WAY_LIMIT);
        drop(all);
        assert!(UnderWay::enter().is_some());
    }

    #[test]
    fn parameters_of_commands() {
        let check = |takes: &'static str, expected: &[&[&str]]| {
            assert_eq!(command(takes).usage().map(|u| u.recipes()).unwrap_or_default(), expected, "{takes}");
        };
        check("", &[&[]]);
        check("a b", &[&["a", "b"]]);
        check("a [b] [c...]", &[&["a"], &["a", "b"], &["a", "b", "c"]]);
    }

    #[test]
    fn numbers_have_bounds() {
        let check = |value: Json, expected: Result<Option<i64>, &str>| {
            let params = MiParams::from_json(Some(serde_json::json!([value.clone()]))).unwrap();
            let found = params.int_in("n", 0, 0..=10).map_err(|e| e.data.unwrap_or_default());
            assert_eq!(found.as_ref().map_err(String::as_str).copied(), expected, "{value}");
        };
        check(7.into(), Ok(Some(7)));
        check("7".into(), Ok(Some(7)));
        check(11.into(), Err("n is a number from 0 to 10, not 11"));
        for wrong in [serde_json::json!(1.5), "x".into(), Json::Bool(true)] {
            check(wrong, Err("Bad type for parameter 'n'"));
        }
        // No command cuts a number down to its 32 bits.
        let params = MiParams::from_json(Some(serde_json::json!([4_294_967_297_i64]))).unwrap();
        assert!(params.int("n", 0).is_err());
    }

    #[test]
    fn wrong_parameters_are_refused() {
        let check = |takes: &'static str, params: Json, expected: Option<&str>| {
            let params = MiParams::from_json(Some(params)).unwrap();
            let found = params.check(&command(takes).usage().unwrap()).err().and_then(|e| e.data);
            assert_eq!(found.as_deref(), expected, "{takes}");
        };
        let (number, names) = (Some("Too few or too many parameters"), Some("Named parameters do not match"));
        check("a [b]", serde_json::json!([]), number);
        check("a [b]", serde_json::json!(["1", "2"]), None);
        check("a [b]", serde_json::json!(["1", "2", "3"]), number);
        check("a...", serde_json::json!(["1", "2", "3"]), None);
        check("a [b]", serde_json::json!({"a": 1}), None);
        check("a [b]", serde_json::json!({"b": 1}), names);
        check("a [b]", serde_json::json!({"a": 1, "c": 1}), names);
        check("a b", serde_json::json!({"a": 1}), number);
    }
}
