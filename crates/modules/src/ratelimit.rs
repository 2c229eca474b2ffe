//! ratelimit: pipes that let so many requests through.

use crate::pattern::Pattern;
use crate::sipmsgops::headers::glob;
use ahash::AHashMap;
use bytes::Bytes;
use host::Accepts;
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::{Call, Ctx, Int, OutVar, Registrar, Routes, Text, Value};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// Pipes of one server; a check on a further one passes.
const MAX_PIPES: usize = 100_000;
/// Slots of one window.
const MAX_SLOTS: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Algorithm {
    /// So many from the start of each interval on.
    TailDrop,
    /// Every n-th, by the load of the last interval.
    Red,
    /// So many in a window that slides.
    Slots,
}

const ALGORITHM: Accepts = Accepts::Such {
    what: "TAILDROP, RED or SBT",
    check: |text, _| {
        let found = Algorithm::parse(&String::from_utf8_lossy(text));
        found.map(drop).map_err(|why| script::Diagnostic::error(script::Loc::default(), why))
    },
};

impl Algorithm {
    fn parse(text: &str) -> Result<Algorithm, String> {
        match text.to_ascii_uppercase().as_str() {
            "TAILDROP" => Ok(Algorithm::TailDrop),
            "RED" => Ok(Algorithm::Red),
            "SBT" => Ok(Algorithm::Slots),
            other => Err(format!("algorithm {other} is not here: TAILDROP, RED and SBT are")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Algorithm::TailDrop => "TAILDROP",
            Algorithm::Red => "RED",
            Algorithm::Slots => "SBT",
        }
    }
}

struct Pipe {
    algorithm: Algorithm,
    limit: i64,
    counter: i64,
    /// Of the last interval.
    last_counter: i64,
    /// RED: of n requests one passes.
    one_of: i64,
    /// SBT: (start in milliseconds, count) of the slots in the window.
    slots: VecDeque<(u64, i64)>,
    /// Unix seconds.
    used: u64,
}

pub struct Ratelimit {
    interval: u64,
    limit_per_interval: bool,
    expire: u64,
    default: String,
    algorithm: Algorithm,
    window_ms: u64,
    slot_ms: u64,
    pipes: Mutex<AHashMap<Bytes, Pipe>>,
}

impl Default for Ratelimit {
    fn default() -> Ratelimit {
        Ratelimit {
            interval: 10,
            limit_per_interval: false,
            expire: 3600,
            default: "TAILDROP".into(),
            algorithm: Algorithm::TailDrop,
            window_ms: 10_000,
            slot_ms: 200,
            pipes: Mutex::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Ratelimit>) {
    m.param_int("timer_interval", |s, v| Ok(s.interval = v.max(1) as u64));
    m.param_int("limit_per_interval", |s, v| Ok(s.limit_per_interval = v != 0));
    m.param_int("expire_time", |s, v| Ok(s.expire = v.max(1) as u64));
    m.param_text("default_algorithm", |s, v| Ok(s.default = v.into()));
    m.param_int("window_size", |s, v| Ok(s.window_ms = v.max(1) as u64 * 1000));
    m.param_int("slot_period", |s, v| Ok(s.slot_ms = v.max(1) as u64));
    m.accepts(Accepts::seconds(1), &["expire_time", "timer_interval", "window_size"]);
    m.accepts(Accepts::from(1).unit("ms"), &["slot_period"]);
    m.accepts(ALGORITHM, &["default_algorithm"]);
    m.ignored(&["hash_size"], "the table grows by itself");
    m.ignored(
        &[
            "cachedb_url",
            "db_prefix",
            "repl_buffer_threshold",
            "repl_timer_interval",
            "repl_timer_expire",
            "pipe_replication_cluster",
            "bridge_replication",
            "bridge_repl_timer_interval",
            "bridge_repl_timer_expire",
        ],
        "pipes count what this server sees",
    );
    m.function("rl_check", Routes::ALL, rl_check);
    m.function("rl_dec_count", Routes::ALL, |call: &mut Call<Ratelimit>, name: Text| {
        change(call, &name, |counter| (counter - 1).max(0))
    });
    m.function("rl_reset_count", Routes::ALL, |call: &mut Call<Ratelimit>, name: Text| {
        change(call, &name, |_| 0)
    });
    m.function("rl_values", Routes::ALL, rl_values);
    m.variable_class("rl_count", |spec, loader, module| {
        let name = Name::new(spec, loader, "$rl_count(pipe)")?;
        Ok(VarKind::Other(Box::new(Count(name, module.clone()))))
    });
    m.command("ratelimit:list rl_list", "pipes", list).takes("[pipe] [filter] [filter_out]");
    m.command("ratelimit:dump_pipe rl_dump_pipe", "a pipe in full", list).takes("pipe");
    m.command("ratelimit:reset_pipe rl_reset_pipe", "sets a pipe to zero", reset).takes("pipe");
    m.timer(1000, tick);
    m.init(init);
}

fn init(s: &mut Ratelimit, _: &mut Loader) -> Result<(), String> {
    s.algorithm = Algorithm::parse(&s.default)?;
    if s.window_ms / s.slot_ms > MAX_SLOTS as u64 {
        return Err(format!("window_size / slot_period gives more than {MAX_SLOTS} slots"));
    }
    Ok(())
}

/// The name without what says where it is counted (`/b`, `/s`, `/r`).
fn plain(name: &Bytes) -> Bytes {
    match name.len().checked_sub(2).map(|at| (&name[at..], at)) {
        Some((b"/b" | b"/s" | b"/r", at)) => name.slice(..at),
        _ => name.clone(),
    }
}

/// rl_check(pipe, limit, [algorithm]): -1 when the limit is reached.
fn rl_check(call: &mut Call<Ratelimit>, name: Text, limit: Int, algorithm: Option<Text>) -> i32 {
    let module = call.module.clone();
    let algorithm = match algorithm.map(|text| Algorithm::parse(&text.str())) {
        None => module.algorithm,
        Some(Ok(algorithm)) => algorithm,
        Some(Err(error)) => {
            host::error!("ratelimit", "{error}");
            return -1;
        }
    };
    let now_ms = call.core.wall_us / 1000;
    if module.check(plain(&name.0), limit.0, algorithm, now_ms) { 1 } else { -1 }
}

impl Ratelimit {
    fn check(&self, name: Bytes, limit: i64, algorithm: Algorithm, now_ms: u64) -> bool {
        let mut pipes = self.pipes.lock();
        if pipes.len() >= MAX_PIPES && !pipes.contains_key(&name) {
            return true;
        }
        let pipe = pipes.entry(name).or_insert_with(|| Pipe {
            algorithm,
            limit,
            counter: 0,
            last_counter: 0,
            one_of: 1,
            slots: VecDeque::new(),
            used: 0,
        });
        pipe.limit = limit;
        pipe.used = now_ms / 1000;
        pipe.counter += 1;
        let most = if self.limit_per_interval { limit } else { limit.saturating_mul(self.interval as i64) };
        match pipe.algorithm {
            Algorithm::TailDrop => pipe.counter <= most,
            Algorithm::Red => pipe.one_of <= 1 || pipe.counter % pipe.one_of == 0,
            // The limit is that of the whole window.
            Algorithm::Slots => {
                pipe.counter = pipe.slide(now_ms, self.window_ms, self.slot_ms);
                pipe.counter <= limit
            }
        }
    }

    /// The interval ends.
    fn next_interval(&self, now: u64) {
        self.pipes.lock().retain(|_, pipe| {
            let most = if self.limit_per_interval { pipe.limit } else { pipe.limit * self.interval as i64 };
            if pipe.algorithm != Algorithm::Slots {
                pipe.last_counter = std::mem::take(&mut pipe.counter);
                pipe.one_of = if most > 0 { (pipe.last_counter + most - 1) / most } else { i64::MAX };
            }
            now.saturating_sub(pipe.used) < self.expire
        });
    }
}

impl Pipe {
    /// Counts one more; the sum of the window.
    fn slide(&mut self, now_ms: u64, window_ms: u64, slot_ms: u64) -> i64 {
        let start = now_ms / slot_ms * slot_ms;
        while self.slots.front().is_some_and(|(at, _)| at + window_ms <= start) {
            self.slots.pop_front();
        }
        match self.slots.back_mut() {
            Some((at, count)) if *at == start => *count += 1,
            _ => self.slots.push_back((start, 1)),
        }
        self.slots.iter().map(|(_, count)| count).sum()
    }
}

fn change(call: &mut Call<Ratelimit>, name: &Text, change: fn(i64) -> i64) -> bool {
    match call.module.pipes.lock().get_mut(&plain(&name.0)) {
        Some(pipe) => {
            pipe.counter = change(pipe.counter);
            match pipe.slots.back_mut() {
                Some((_, count)) if pipe.counter > 0 => *count = change(*count),
                _ => pipe.slots.clear(),
            }
            true
        }
        None => false,
    }
}

/// rl_values(variable, [regexp]): the names of the pipes.
fn rl_values(call: &mut Call<Ratelimit>, out: OutVar, filter: Option<Pattern>) -> bool {
    let mut names: Vec<Bytes> = call.module.pipes.lock().keys().cloned().collect();
    names.retain(|name| filter.as_ref().is_none_or(|filter| filter.0.is_match(name)));
    names.sort();
    names.into_iter().all(|name| out.set(call.ctx, name))
}

/// `$rl_count(pipe)`
struct Count(Name, Arc<Ratelimit>);

impl Variable for Count {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        self.1.pipes.lock().get(&plain(&name)).map_or(Value::Null, |pipe| Value::Int(pipe.counter))
    }
}

fn tick(call: &mut Call<Ratelimit>) {
    let now = call.core.wall_us / 1_000_000;
    if now.is_multiple_of(call.module.interval) {
        call.module.next_interval(now);
    }
}

fn shown(name: &Bytes, pipe: &Pipe) -> Json {
    json!({
        "id": String::from_utf8_lossy(name),
        "algorithm": pipe.algorithm.name(),
        "limit": pipe.limit,
        "counter": pipe.counter,
        "last_counter": pipe.last_counter,
    })
}

fn list(call: &mut Call<Ratelimit>, params: &MiParams) -> MiResult {
    let pipes = call.module.pipes.lock();
    if let Some(name) = params.text("pipe", 0) {
        let name = Bytes::from(name.to_string());
        let pipe = pipes.get(&name).ok_or_else(|| MiError::new(404, "Pipe not found"))?;
        return Ok(json!({"Pipe": shown(&name, pipe)}));
    }
    let matches = |key: &str, name: &Bytes| params.text(key, 9).map(|pattern| glob(pattern.as_bytes(), name));
    let wanted = |name: &Bytes| {
        matches("filter", name).unwrap_or(true) && !matches("filter_out", name).unwrap_or(false)
    };
    let list: Vec<Json> =
        pipes.iter().filter(|(name, _)| wanted(name)).map(|(name, pipe)| shown(name, pipe)).collect();
    Ok(json!({"Pipes": list}))
}

fn reset(call: &mut Call<Ratelimit>, params: &MiParams) -> MiResult {
    let name = Bytes::from(params.need("pipe", 0)?.to_string());
    let mut pipes = call.module.pipes.lock();
    let pipe = pipes.get_mut(&name).ok_or_else(|| MiError::new(404, "Pipe not found"))?;
    pipe.counter = 0;
    pipe.slots.clear();
    Ok(json!("OK"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(limit: &Ratelimit, algorithm: Algorithm, count: usize, now_ms: u64) -> usize {
        (0..count).filter(|_| limit.check("p".into(), 1, algorithm, now_ms)).count()
    }

    #[test]
    fn pipes_let_their_limit_through() {
        let tail = Ratelimit::default();
        assert_eq!(passed(&tail, Algorithm::TailDrop, 15, 0), 10);
        tail.next_interval(10);
        assert_eq!(passed(&tail, Algorithm::TailDrop, 15, 0), 10);
        tail.next_interval(4000);
        assert!(tail.pipes.lock().is_empty());

        let red = Ratelimit::default();
        assert_eq!(passed(&red, Algorithm::Red, 40, 0), 40);
        red.next_interval(10);
        assert_eq!(passed(&red, Algorithm::Red, 40, 0), 10);

        let slots = Ratelimit { window_ms: 2000, slot_ms: 100, ..Ratelimit::default() };
        assert_eq!(passed(&slots, Algorithm::Slots, 5, 1000), 1);
        assert_eq!(passed(&slots, Algorithm::Slots, 5, 2950), 0);
        assert_eq!(passed(&slots, Algorithm::Slots, 5, 9000), 1);
    }

    #[test]
    fn names_lose_their_suffix() {
        for (name, want) in [("a/b", "a"), ("a/s", "a"), ("a/x", "a/x"), ("/b", ""), ("b", "b")] {
            assert_eq!(plain(&Bytes::from(name)), want);
        }
    }
}
