//! Where a request goes: names to addresses as RFC 3263 wants it (NAPTR, SRV, A, AAAA).
//!
//! An IP address and a cached name are answered at once; anything else is a future, and callers that
//! ask for the same name at the same time share one.

mod records;
pub mod rfc3263;

use ahash::AHashMap;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use parking_lot::Mutex;
use rfc3263::{Answer, Records as _};
use sip::Transport;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use records::{Failure, FoundRecords, NameServers};
pub use sip::names::{Hop, KnownName, Query, Record, RecordKind, ResolveError, Security};

/// Names kept with their addresses, for the whole server.
const CACHE_LIMIT: usize = 10_000;
/// Names one worker may be asking for at a time.
const PENDING_LIMIT: usize = 1024;
/// How long a failure of the name servers is remembered: long enough that a thousand calls to one dead
/// name do not ask a thousand times, short enough that nobody notices the recovery.
const FAILURE_TTL: Duration = Duration::from_secs(2);
/// No answer is kept longer, whatever it says.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// How names are looked up; core parameters `dns_*`.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    pub naptr: Naptr,
    pub families: Families,
    /// Transports that this server listens on, most wanted first.
    pub transports: Vec<Transport>,
    /// Seconds before a question is repeated (`dns_retr_time`); `None`: what resolv.conf says.
    pub retry_after: Option<Duration>,
    /// Repetitions (`dns_retr_no`).
    pub retries: Option<usize>,
    /// How many servers of resolv.conf are used (`dns_servers_no`).
    pub servers: Option<usize>,
    pub search: SearchList,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naptr {
    Try,
    Skip,
}

/// Whether the search list of resolv.conf applies to names (`dns_use_search_list`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SearchList {
    Use,
    Ignore,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    V4,
    V6,
    /// AAAA records when there is no A record (`dns_try_ipv6`).
    V4ThenV6,
}

impl Default for DnsOptions {
    fn default() -> Self {
        DnsOptions {
            naptr: Naptr::Try,
            families: Families::V4,
            transports: vec![Transport::Udp],
            retry_after: None,
            retries: None,
            servers: None,
            search: SearchList::Use,
        }
    }
}

/// Answers of the whole server. Clone it into each worker's `Resolver`.
#[derive(Clone, Default)]
pub struct DnsCache(Arc<Mutex<AHashMap<Query, Kept>>>);

struct Kept {
    answer: Result<Arc<Answer>, ResolveError>,
    until: Instant,
}

impl DnsCache {
    fn get(&self, query: &Query) -> Option<Result<Arc<Answer>, ResolveError>> {
        let mut map = self.0.lock();
        let kept = map.get(query)?;
        if kept.until <= Instant::now() {
            map.remove(query);
            return None;
        }
        Some(kept.answer.clone())
    }

    fn put(&self, query: Query, answer: Result<Arc<Answer>, ResolveError>, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut map = self.0.lock();
        if map.len() >= CACHE_LIMIT {
            map.retain(|_, kept| kept.until > now);
            // Still full of live names: every eighth goes, whichever they are.
            let mut nth = 0usize;
            if map.len() >= CACHE_LIMIT {
                map.retain(|_, _| {
                    nth += 1;
                    !nth.is_multiple_of(8)
                });
            }
        }
        map.insert(query, Kept { answer, until: now + ttl.min(MAX_TTL) });
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The outcome of a lookup: known, or a future that owns what it needs.
pub enum Lookup<F> {
    Now(Result<Vec<Hop>, ResolveError>),
    Later(F),
}

type Work = Shared<LocalBoxFuture<'static, Result<Arc<Answer>, ResolveError>>>;

/// The resolver of one worker. The connection to the name servers is made by the first name that needs
/// it. Cloning shares it.
#[derive(Clone)]
pub struct Resolver(Rc<Inner>);

struct Inner {
    options: DnsOptions,
    cache: DnsCache,
    servers: OnceCell<Result<NameServers, ResolveError>>,
    pending: RefCell<AHashMap<Query, Work>>,
    random: Cell<u64>,
}

impl Resolver {
    pub fn new(options: DnsOptions, cache: DnsCache) -> Resolver {
        let seed = ahash::RandomState::new().build_hasher().finish() | 1;
        Resolver(Rc::new(Inner {
            options,
            cache,
            servers: OnceCell::new(),
            pending: RefCell::default(),
            random: Cell::new(seed),
        }))
    }

    /// With these name servers instead of the system's.
    pub fn with_servers(options: DnsOptions, cache: DnsCache, servers: NameServers) -> Resolver {
        let resolver = Resolver::new(options, cache);
        let _ = resolver.0.servers.set(Ok(servers));
        resolver
    }

    /// Addresses to try, best first; never empty when `Ok`. SRV weights are drawn anew each time.
    pub fn lookup(
        &self,
        query: Query,
    ) -> Lookup<impl Future<Output = Result<Vec<Hop>, ResolveError>> + use<>> {
        if let Some(hop) = sip::names::literal(&query) {
            return Lookup::Now(Ok(vec![hop]));
        }
        let query = Query { host: query.host.trim_end_matches('.').to_ascii_lowercase(), ..query };
        if let Some(kept) = self.0.cache.get(&query) {
            return Lookup::Now(kept.map(|answer| self.0.order(&answer)));
        }
        if query.host.is_empty() || query.host.len() > 253 {
            return Lookup::Now(Err(ResolveError::BadName));
        }
        let Some(work) = self.work(&query) else { return Lookup::Now(Err(ResolveError::Busy)) };
        let inner = self.0.clone();
        // Names of the system's hosts file need nobody's answer: one look tells.
        if let Some(answer) = work.clone().now_or_never() {
            inner.pending.borrow_mut().remove(&query);
            return Lookup::Now(answer.map(|answer| inner.order(&answer)));
        }
        Lookup::Later(async move {
            let answer = work.await;
            // The first waiter to get here takes the work off the list; for the others it is gone.
            inner.pending.borrow_mut().remove(&query);
            answer.map(|answer| inner.order(&answer))
        })
    }

    /// What the cache holds now, in the order of the names.
    pub fn known(&self) -> Vec<KnownName> {
        let now = Instant::now();
        let map = self.0.cache.0.lock();
        let live = map.iter().filter(|(_, kept)| kept.until > now);
        let mut list: Vec<KnownName> = live
            .map(|(query, kept)| KnownName {
                query: query.clone(),
                answer: kept.answer.as_ref().map(|answer| answer.order(|_| 0)).map_err(|e| *e),
                left_ms: kept.until.duration_since(now).as_millis() as u64,
            })
            .collect();
        list.sort_by(|a, b| a.query.host.cmp(&b.query.host));
        list
    }

    /// Forgets all names, of the whole server, and single records of this worker.
    pub fn forget(&self) {
        self.0.cache.clear();
        if let Some(Ok(servers)) = self.0.servers.get() {
            servers.forget();
        }
    }

    /// Plain records of one name, for script functions (ENUM, `$(..{...})`, blacklists). Empty when
    /// there are none.
    pub fn records(
        &self,
        name: String,
        kind: RecordKind,
    ) -> impl Future<Output = Result<Vec<Record>, ResolveError>> + use<> {
        let inner = self.0.clone();
        async move {
            match inner.servers()?.find(&name, kind).await {
                Ok(found) => Ok(found.records),
                Err(records::Failure::Missing(_)) => Ok(Vec::new()),
                Err(records::Failure::Unavailable) => Err(ResolveError::Unavailable),
                Err(records::Failure::BadName) => Err(ResolveError::BadName),
            }
        }
    }

    /// The running lookup of `query`, started if there is none; `None` when too many run.
    fn work(&self, query: &Query) -> Option<Work> {
        let mut pending = self.0.pending.borrow_mut();
        if let Some(work) = pending.get(query) {
            return Some(work.clone());
        }
        if pending.len() >= PENDING_LIMIT {
            // Waiters that gave up leave their work behind.
            pending.retain(|_, work| work.strong_count().is_some_and(|n| n > 1));
            if pending.len() >= PENDING_LIMIT {
                return None;
            }
        }
        // Weak: the work is kept in a list inside what it refers to.
        let (inner, asked) = (Rc::downgrade(&self.0), query.clone());
        let work = async move {
            let inner = inner.upgrade().ok_or(ResolveError::Unavailable)?;
            let (answer, ttl) = match inner.servers() {
                Ok(servers) => rfc3263::resolve(&asked, &inner.options, servers).await,
                Err(e) => (Err(e), FAILURE_TTL),
            };
            let answer = answer.map(Arc::new);
            inner.cache.put(asked, answer.clone(), ttl);
            answer
        };
        let work = work.boxed_local().shared();
        pending.insert(query.clone(), work.clone());
        Some(work)
    }
}

impl Inner {
    fn servers(&self) -> Result<&NameServers, ResolveError> {
        self.servers.get_or_init(|| NameServers::system(&self.options)).as_ref().map_err(|e| *e)
    }

    fn order(&self, answer: &Answer) -> Vec<Hop> {
        answer.order(|below| {
            // xorshift64: spreads load, guards nothing.
            let mut x = self.random.get();
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            self.random.set(x);
            (x >> 16) as u32 % below.max(1)
        })
    }
}

#[cfg(test)]
mod tests;
