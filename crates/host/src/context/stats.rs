//! Statistics: named counters, summed over workers.

use ahash::{AHashMap, AHashSet};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A counter that any worker may change.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicI64>);

impl Counter {
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    pub fn up(&self) {
        self.add(1);
    }
    pub fn down(&self) {
        self.add(-1);
    }
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

/// How a statistic gets its value.
#[derive(Clone)]
pub enum Source {
    Counter(Counter),
    /// Computed when asked; cannot be reset.
    Computed(Arc<dyn Fn() -> i64 + Send + Sync>),
}

/// All statistics by "group:name", in the order in which they were made. A clone is the same list.
#[derive(Clone, Default)]
pub struct Stats {
    inner: Arc<RwLock<Table>>,
}

#[derive(Default)]
struct Table {
    /// By "group:name", and by name alone: the first of that name.
    by_name: AHashMap<String, usize>,
    list: Vec<(String, String, Source)>,
    /// Places in `list` of those that are never reset.
    kept: AHashSet<usize>,
}

impl Stats {
    /// The counter of this name, made when it does not exist.
    pub fn counter(&self, group: &str, name: &str) -> Counter {
        let full = format!("{group}:{name}");
        if let Some(Source::Counter(c)) = self.source(&full) {
            return c;
        }
        let mut table = self.inner.write();
        // Another thread may have made it meanwhile.
        if let Some(Source::Counter(c)) = table.find(&full) {
            return c;
        }
        let counter = Counter::default();
        table.insert(group, name, Source::Counter(counter.clone()));
        counter
    }

    /// From now on this one is never reset (`/no_reset`).
    pub fn keep(&self, name: &str) {
        let mut table = self.inner.write();
        if let Some(at) = table.by_name.get(name).copied() {
            table.kept.insert(at);
        }
    }

    /// It counts, and may be set to zero.
    pub fn may_reset(&self, name: &str) -> bool {
        let table = self.inner.read();
        let at = table.by_name.get(name);
        at.is_some_and(|at| matches!(table.list[*at].2, Source::Counter(_)) && !table.kept.contains(at))
    }

    /// Sets a counter to zero; false: there is none of the name, it is computed, or it is never reset.
    pub fn reset(&self, name: &str) -> bool {
        match self.source(name) {
            Some(Source::Counter(counter)) if self.may_reset(name) => {
                counter.set(0);
                true
            }
            _ => false,
        }
    }

    /// Shows a counter that a module keeps itself.
    pub fn count_with(&self, group: &str, name: &str, counter: Counter) {
        self.insert(group, name, Source::Counter(counter));
    }

    pub fn computed(&self, group: &str, name: &str, f: impl Fn() -> i64 + Send + Sync + 'static) {
        self.insert(group, name, Source::Computed(Arc::new(f)));
    }

    /// Value by name or "group:name".
    pub fn value(&self, name: &str) -> Option<i64> {
        Some(match self.source(name)? {
            Source::Counter(c) => c.value(),
            Source::Computed(f) => f(),
        })
    }

    pub fn source(&self, name: &str) -> Option<Source> {
        self.inner.read().find(name)
    }

    /// (group, name, value) of all, or of one group.
    pub fn list(&self, group: Option<&str>) -> Vec<(String, String, i64)> {
        let all: Vec<_> = self.inner.read().list.clone();
        all.into_iter()
            .filter(|(g, _, _)| group.is_none_or(|wanted| wanted == g))
            .map(|(g, n, s)| {
                let value = match s {
                    Source::Counter(c) => c.value(),
                    Source::Computed(f) => f(),
                };
                (g, n, value)
            })
            .collect()
    }

    fn insert(&self, group: &str, name: &str, source: Source) {
        self.inner.write().insert(group, name, source);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.read().list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    fn find(&self, name: &str) -> Option<Source> {
        self.by_name.get(name).map(|i| self.list[*i].2.clone())
    }

    /// One of the same full name is replaced.
    fn insert(&mut self, group: &str, name: &str, source: Source) {
        let full = format!("{group}:{name}");
        if let Some(at) = self.by_name.get(&full) {
            self.list[*at].2 = source;
            return;
        }
        let at = self.list.len();
        self.list.push((group.to_string(), name.to_string(), source));
        self.by_name.insert(full, at);
        self.by_name.entry(name.to_string()).or_insert(at);
    }
}
