//! A store that a tape hears of: what was asked of it, and what it answered.

use super::{CacheError, RawRows, Reply, Store};
use crate::context::coded::Coded;
use crate::context::tape::{at_once, awaited};
use bytes::Bytes;
use script::Traced;
use std::cell::RefCell;
use std::rc::Rc;
use transaction::Instant;

pub(super) struct TapedStore {
    pub(super) inner: Rc<dyn Store>,
    /// Its URL, without the password.
    pub(super) url: String,
}

fn absent() -> CacheError {
    CacheError::Down(crate::services::db::NOT_RECORDED.to_string())
}

impl TapedStore {
    /// One operation. What was answered at once is answered at once again.
    fn through<T: Coded + 'static>(
        &self,
        asked: impl FnOnce() -> String,
        operation: impl FnOnce(&dyn Store) -> Reply<T>,
    ) -> Reply<T> {
        let question = format!("{} {}", self.url, asked());
        let later = RefCell::new(None);
        let live = || match operation(&*self.inner) {
            Reply::Now(answer) => Some(answer),
            Reply::Later(future) => {
                *later.borrow_mut() = Some(future);
                None
            }
        };
        match at_once("store-now", || question.clone(), live) {
            Some(Some(answer)) => Reply::Now(answer),
            _ => {
                let live = later.into_inner().unwrap_or_else(|| Box::pin(std::future::pending()));
                Reply::later(awaited("store", move || question, live, || Err(absent())))
            }
        }
    }
}

fn shown(key: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(key)
}

impl Store for TapedStore {
    fn at(&self, now: Instant, unix_s: u64) {
        self.inner.at(now, unix_s);
    }

    fn connect(&self) -> Reply<()> {
        self.through(|| "connect".to_string(), |store| store.connect())
    }

    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>> {
        self.through(|| format!("fetch {}", shown(&key)), |store| store.fetch(key.clone()))
    }

    fn store(&self, key: Bytes, value: Bytes, expires_s: u32) -> Reply<()> {
        let asked = || format!("store {} {} for {expires_s} s", shown(&key), shown(&value));
        self.through(asked, |store| store.store(key.clone(), value.clone(), expires_s))
    }

    fn remove(&self, key: Bytes) -> Reply<()> {
        self.through(|| format!("remove {}", shown(&key)), |store| store.remove(key.clone()))
    }

    fn add(&self, key: Bytes, by: i64, expires_s: u32) -> Reply<i64> {
        let asked = || format!("add {by} to {} for {expires_s} s", shown(&key));
        self.through(asked, |store| store.add(key.clone(), by, expires_s))
    }

    fn counter(&self, key: Bytes) -> Reply<Option<i64>> {
        self.through(|| format!("counter {}", shown(&key)), |store| store.counter(key.clone()))
    }

    fn map_get(&self, key: Bytes) -> Reply<Vec<(Bytes, Bytes)>> {
        self.through(|| format!("map {}", shown(&key)), |store| store.map_get(key.clone()))
    }

    fn map_change(
        &self,
        key: Bytes,
        set: Vec<(Bytes, Bytes)>,
        unset: Vec<Bytes>,
        expires_s: u32,
    ) -> Reply<()> {
        let asked = || format!("change map {}: {set:?}, without {unset:?}, for {expires_s} s", shown(&key));
        self.through(asked, |store| store.map_change(key.clone(), set.clone(), unset.clone(), expires_s))
    }

    fn raw(&self, query: Traced, columns: usize) -> Reply<Option<RawRows>> {
        let asked = || format!("query {} ({columns} columns)", shown(&query.text));
        self.through(asked, |store| store.raw(query.clone(), columns))
    }
}

impl Coded for CacheError {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, text) = match self {
            CacheError::Down(why) => (0u8, why.as_str()),
            CacheError::Busy => (1, ""),
            CacheError::TimedOut => (2, ""),
            CacheError::Refused(words) => (3, words.as_str()),
            CacheError::NotANumber => (4, ""),
            CacheError::Unsupported(_) => (5, ""),
        };
        out.push(kind);
        text.to_string().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<CacheError> {
        let (kind, text) = (u8::take(from)?, String::take(from)?);
        Some(match kind {
            0 => CacheError::Down(text),
            1 => CacheError::Busy,
            2 => CacheError::TimedOut,
            3 => CacheError::Refused(text),
            4 => CacheError::NotANumber,
            _ => CacheError::Unsupported("such a function"),
        })
    }
}
