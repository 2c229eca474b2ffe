//! Operations on a server.
#![expect(
    clippy::disallowed_methods,
    reason = "connections to servers are real I/O: they live outside the worker"
)]

use super::connect::{Server, Target};
use super::raw;
use crate::cachedb::Link;
use bytes::Bytes;
use host::Traced;
use host::cachedb::{CacheError, RawRows, Reply, Store};
use host::stats::Counter;
use redis::{Cmd, RedisError, Value, cmd};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// `map_change` as one step, so that servers that change one map at the same time cannot shorten its life:
/// the map lives as long as whoever needs it longest said. ARGV: seconds (0: for ever), how many fields go,
/// their names, then names and values of those that are set.
const CHANGE: &str = "\
local key, life, gone = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local left = redis.call('TTL', key)
for i = 3, 2 + gone do redis.call('HDEL', key, ARGV[i]) end
for i = 3 + gone, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
if life == 0 then redis.call('PERSIST', key)
elseif left == -2 or (left >= 0 and left < life) then redis.call('EXPIRE', key, life) end
return 1";

/// Whether a command may be sent a second time, when its connection broke.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Done twice, it leaves what it leaves when done once.
    Harmless,
    Never,
}

#[derive(Clone)]
pub struct RedisStore {
    pub link: Link<Server>,
    pub seen: Rc<Seen>,
    queries: Counter,
    failed: Counter,
}

/// What this connection has done.
#[derive(Default)]
pub struct Seen {
    pub queries: Cell<u64>,
    pub errors: Cell<u64>,
    /// The last answer.
    pub last: Cell<Option<Instant>>,
}

fn refused(error: &RedisError) -> CacheError {
    CacheError::Refused(error.to_string())
}

impl RedisStore {
    pub fn new(target: Arc<Target>, queries: Counter, failed: Counter) -> RedisStore {
        RedisStore { link: Link::new(Server(target)), seen: Rc::default(), queries, failed }
    }

    async fn run(self, cmd: Cmd, again: Again) -> Result<Value, CacheError> {
        let _place = self.link.enter()?;
        let result = self.try_run(&cmd, again).await;
        let seen = &self.seen;
        if result.is_ok() {
            self.queries.up();
            seen.queries.set(seen.queries.get() + 1);
            seen.last.set(Some(Instant::now()));
        } else {
            self.failed.up();
            seen.errors.set(seen.errors.get() + 1);
        }
        result
    }

    async fn try_run(&self, cmd: &Cmd, again: Again) -> Result<Value, CacheError> {
        let mut tries = if again == Again::Harmless { 2 } else { 1 };
        loop {
            tries -= 1;
            let (mut conn, number) = self.link.conn().await?;
            let error = match conn.run(cmd).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.is_timeout() {
                // A server that does not answer is as good as gone: the next attempt shows it.
                self.link.lost(number, "no answer in time");
                return Err(CacheError::TimedOut);
            }
            // The server's own word: it is there, and another connection would hear the same.
            if error.code().is_some() {
                return Err(refused(&error));
            }
            if !(error.is_connection_dropped() || error.is_io_error() || error.is_unrecoverable_error()) {
                return Err(refused(&error));
            }
            self.link.lost(number, &error.to_string());
            if tries == 0 {
                return Err(CacheError::Down(error.to_string()));
            }
        }
    }
}

impl Store for RedisStore {
    fn connect(&self) -> Reply<()> {
        let link = self.link.clone();
        Reply::later(async move { link.conn().await.map(drop) })
    }

    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>> {
        let get = cmd("GET").arg(&key[..]).take();
        let answer = self.clone().run(get, Again::Harmless);
        Reply::later(async move { Ok(text(answer.await?)) })
    }

    fn store(&self, key: Bytes, value: Bytes, expires_s: u32) -> Reply<()> {
        let mut set = cmd("SET");
        set.arg(&key[..]).arg(&value[..]);
        if expires_s > 0 {
            set.arg("EX").arg(expires_s);
        }
        let answer = self.clone().run(set, Again::Harmless);
        Reply::later(async move { answer.await.map(drop) })
    }

    fn remove(&self, key: Bytes) -> Reply<()> {
        let del = cmd("DEL").arg(&key[..]).take();
        let answer = self.clone().run(del, Again::Harmless);
        Reply::later(async move { answer.await.map(drop) })
    }

    fn add(&self, key: Bytes, by: i64, expires_s: u32) -> Reply<i64> {
        let incr = cmd("INCRBY").arg(&key[..]).arg(by).take();
        let store = self.clone();
        Reply::later(async move {
            let sum = match store.clone().run(incr, Again::Never).await? {
                Value::Int(sum) => sum,
                _ => return Err(CacheError::NotANumber),
            };
            if expires_s > 0 {
                let expire = cmd("EXPIRE").arg(&key[..]).arg(expires_s).take();
                store.run(expire, Again::Harmless).await?;
            }
            Ok(sum)
        })
    }

    fn counter(&self, key: Bytes) -> Reply<Option<i64>> {
        let get = cmd("GET").arg(&key[..]).take();
        let answer = self.clone().run(get, Again::Harmless);
        Reply::later(async move {
            let Some(text) = text(answer.await?) else { return Ok(None) };
            let number = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
            number.map(Some).ok_or(CacheError::NotANumber)
        })
    }

    fn map_get(&self, key: Bytes) -> Reply<Vec<(Bytes, Bytes)>> {
        let answer = self.clone().run(cmd("HGETALL").arg(&key[..]).take(), Again::Harmless);
        Reply::later(async move {
            let flat: Vec<Value> = match answer.await? {
                Value::Array(list) => list,
                Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
                _ => Vec::new(),
            };
            let mut texts = flat.into_iter().filter_map(text);
            Ok(std::iter::from_fn(|| Some((texts.next()?, texts.next()?))).collect())
        })
    }

    fn map_change(
        &self,
        key: Bytes,
        set: Vec<(Bytes, Bytes)>,
        unset: Vec<Bytes>,
        expires_s: u32,
    ) -> Reply<()> {
        let mut eval = cmd("EVAL");
        eval.arg(CHANGE).arg(1).arg(&key[..]).arg(expires_s).arg(unset.len());
        for name in &unset {
            eval.arg(&name[..]);
        }
        for (name, value) in &set {
            eval.arg(&name[..]).arg(&value[..]);
        }
        let answer = self.clone().run(eval, Again::Harmless);
        Reply::later(async move { answer.await.map(drop) })
    }

    fn raw(&self, query: Traced, _: usize) -> Reply<Option<RawRows>> {
        let words = match raw::words(&query) {
            Ok(words) => words,
            Err(error) => return Reply::Now(Err(error)),
        };
        let mut command = Cmd::new();
        for word in &words {
            command.arg(&word[..]);
        }
        let answer = self.clone().run(command, Again::Never);
        Reply::later(async move { raw::rows(answer.await?) })
    }
}

fn text(answer: Value) -> Option<Bytes> {
    match answer {
        Value::BulkString(text) => Some(Bytes::from(text)),
        Value::SimpleString(text) => Some(Bytes::from(text)),
        Value::Int(n) => Some(Bytes::from(n.to_string())),
        _ => None,
    }
}
