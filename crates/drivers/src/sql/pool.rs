//! A worker's connections to one database server.
#![expect(
    clippy::disallowed_methods,
    reason = "connections to servers are real I/O: they live outside the worker"
)]

use super::lease::{Lease, Use};
use super::mend::{reconnect, settle_all, thin_out};
use super::{Backend, Failure};
use host::Ctx;
use host::db::{BatchFuture, Db, DbError, DbFuture, Dialect, Pool, Query, Rows, literal};
use host::stats::{Counter, Stats};
use host::worker::ops::{note_queued, note_refused};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// A write on a connection that rested longer asks first whether it is still there: a write cannot
/// be sent twice.
const RESTED: Duration = Duration::from_secs(1);
/// Without `db_max_async_connections` a pool grows with need, to so many connections of all workers, ...
const GROWN: i64 = 50;
/// ... of which a worker keeps so many when they are not needed any more.
const RESTING: usize = 10;
/// How long one more than that may rest.
const MAY_REST: Duration = Duration::from_secs(30);
/// After the server refused one more connection.
const NO_GROWTH: Duration = Duration::from_secs(1);

/// How large a pool may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of this worker (`db_max_async_connections`).
    pub own: usize,
    /// Connections of this worker that stay open when nobody needs them.
    pub resting: usize,
    /// Connections of all workers; each may have one whatever this says.
    pub total: usize,
    /// Queries that may wait.
    pub queue: usize,
    /// Log statements that take longer, µs; 0: none.
    pub slow_us: u64,
}

impl Limits {
    /// From the core parameters.
    pub fn of(ctx: &Ctx, slow_us: u64) -> Limits {
        let core = &ctx.shared().globals.core;
        let size = |n: i64| n.clamp(1, 100_000) as usize;
        let grown = core.db_max_async_connections.is_none();
        let total = if grown { GROWN } else { 100 };
        Limits {
            own: size(core.db_max_async_connections.unwrap_or(GROWN)),
            resting: if grown { RESTING } else { usize::MAX },
            total: size(core.db_max_connections.unwrap_or(total)),
            queue: size(core.db_max_queue),
            slow_us,
        }
    }
}

/// Counters of all databases and workers.
struct Counters {
    queries: Counter,
    failed: Counter,
    slow: Counter,
    full: Counter,
    lost: Counter,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Health {
    Unknown,
    Up,
    Down(String),
}

pub(super) struct State<B: Backend> {
    /// Used last comes last, and is used first.
    idle: Vec<(B::Conn, Instant)>,
    /// Connections, resting and leased, and those being made.
    pub(super) open: usize,
    connecting: usize,
    pub(super) health: Health,
    waiting: VecDeque<oneshot::Sender<Result<Lease<B>, DbError>>>,
    /// No more connections are tried before this.
    no_growth: Option<Instant>,
    abandoned: Option<mpsc::UnboundedSender<(B::Conn, Use)>>,
    pub(super) reconnecting: bool,
    /// Somebody looks after what rests too long.
    pub(super) thinning: bool,
}

/// Told when a lost server is back, and when it is lost.
pub type Watcher = Box<dyn Fn(Reach)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    Connected,
    Disconnected,
}

/// The pool itself; futures and leases share it.
pub struct Inner<B: Backend> {
    pub(super) backend: B,
    watcher: Option<Watcher>,
    db: Db,
    limits: Limits,
    counters: Counters,
    /// The last statement got no answer in time, which was said.
    silent: Cell<bool>,
    pub(super) state: RefCell<State<B>>,
}

/// The pool as the host sees it.
pub struct SqlPool<B: Backend>(Rc<Inner<B>>);

impl<B: Backend> SqlPool<B> {
    pub fn new(db: &Db, backend: B, limits: Limits, stats: &Stats) -> SqlPool<B> {
        SqlPool::watched(db, backend, limits, stats, None)
    }

    pub fn watched(
        db: &Db,
        backend: B,
        limits: Limits,
        stats: &Stats,
        watcher: Option<Watcher>,
    ) -> SqlPool<B> {
        SqlPool(Rc::new(Inner {
            backend,
            watcher,
            db: db.clone(),
            limits,
            counters: Counters {
                queries: stats.counter("db", "db_queries"),
                failed: stats.counter("db", "db_failed_queries"),
                slow: stats.counter("db", "db_slow_queries"),
                full: stats.counter("db", "db_queue_full"),
                lost: stats.counter("db", "db_lost_connections"),
            },
            silent: Cell::new(false),
            state: RefCell::new(State {
                idle: Vec::new(),
                open: 0,
                connecting: 0,
                health: Health::Unknown,
                waiting: VecDeque::new(),
                no_growth: None,
                abandoned: None,
                reconnecting: false,
                thinning: false,
            }),
        }))
    }

    #[cfg(test)]
    pub fn open(&self) -> (usize, usize) {
        let state = self.0.state.borrow();
        (state.open, state.idle.len())
    }
}

fn writes(text: &str) -> bool {
    !text.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
}

impl<B: Backend> Pool for SqlPool<B> {
    fn run(&self, query: Query) -> DbFuture {
        let pool = self.0.clone();
        Box::pin(async move { pool.query(&query).await })
    }

    fn run_all(&self, queries: Vec<Query>) -> BatchFuture {
        let pool = self.0.clone();
        Box::pin(async move { pool.transaction(&queries).await })
    }
}

/// Takes one from `connecting` when the attempt is over or dropped.
struct Connecting<'a, B: Backend>(&'a Inner<B>);

impl<B: Backend> Drop for Connecting<'_, B> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().connecting -= 1;
    }
}

impl<B: Backend> Inner<B> {
    async fn query(self: &Rc<Self>, query: &Query) -> Result<Rows, DbError> {
        let text = literal(query, B::DIALECT).inspect_err(|error| {
            host::error!(B::MODULE, "{error}: {}", String::from_utf8_lossy(&query.detail()));
        })?;
        self.counters.queries.up();
        let since = Instant::now();
        let result = self.query_text(&text, query.reads_only()).await;
        self.report(&text, since, result.as_ref().err());
        result
    }

    async fn query_text(self: &Rc<Self>, text: &str, reads_only: bool) -> Result<Rows, DbError> {
        let mut again = reads_only;
        loop {
            let mut lease = if reads_only { self.acquire().await? } else { self.acquire_alive().await? };
            let Some(conn) = &mut lease.conn else { return Err(DbError::Busy) };
            lease.doing = Use::Statement;
            let limited = timeout(self.backend.query_limit(), self.backend.run(conn, text));
            // Dropped in the middle of its statement, the connection is settled by the pool.
            let Ok(result) = limited.await else { return Err(DbError::TimedOut) };
            lease.doing = Use::Resting;
            match result {
                Ok(rows) => return Ok(rows),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Lost(why)) => {
                    self.lost(lease, &why);
                    if !std::mem::replace(&mut again, false) {
                        return Err(DbError::Down(why));
                    }
                }
            }
        }
    }

    async fn transaction(self: &Rc<Self>, queries: &[Query]) -> Result<Vec<Rows>, DbError> {
        let mut texts = Vec::with_capacity(queries.len());
        for query in queries {
            texts.push(literal(query, B::DIALECT)?);
        }
        self.counters.queries.add(queries.len() as i64);
        let since = Instant::now();
        let mut lease = self.acquire_alive().await?;
        let Some(conn) = &mut lease.conn else { return Err(DbError::Busy) };
        lease.doing = Use::Transaction;
        let mut all = Vec::with_capacity(texts.len());
        let mut result = self.backend.run(conn, "begin").await;
        for text in &texts {
            if result.is_err() {
                break;
            }
            let Ok(answer) = timeout(self.backend.query_limit(), self.backend.run(conn, text)).await else {
                self.report(text, since, Some(&DbError::TimedOut));
                return Err(DbError::TimedOut);
            };
            result = answer;
            if let Ok(rows) = &mut result {
                all.push(std::mem::take(rows));
            }
        }
        let end = if result.is_ok() { "commit" } else { "rollback" };
        if !matches!(result, Err(Failure::Lost(_))) {
            let ended = self.backend.run(conn, end).await;
            result = result.and(ended);
        }
        lease.doing = Use::Resting;
        let result = match result {
            Ok(_) => Ok(all),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Lost(why)) => {
                self.lost(lease, &why);
                Err(DbError::Down(why))
            }
        };
        self.report(texts.first().map_or("", String::as_str), since, result.as_ref().err());
        result
    }

    fn report(&self, text: &str, since: Instant, error: Option<&DbError>) {
        let shown = || text.chars().take(200).collect::<String>();
        if let Some(error) = error {
            self.counters.failed.up();
            // Once, until the server answers again.
            let silence = *error == DbError::TimedOut && !self.silent.replace(true);
            if silence || matches!(error, DbError::Refused { .. }) {
                host::error!(B::MODULE, "{error}: {}", shown());
            }
            if matches!(error, DbError::Unable { .. }) && self.db.trouble().begins() {
                host::error!(B::MODULE, "{} takes no statements now: {error}: {}", self.db.url(), shown());
            }
        } else {
            self.silent.set(false);
            // Reading may go on all the while.
            if writes(text) && self.db.trouble().ends() {
                host::notice!(B::MODULE, "{} takes statements again", self.db.url());
            }
        }
        let us = since.elapsed().as_micros() as u64;
        if self.limits.slow_us > 0 && us > self.limits.slow_us {
            self.counters.slow.up();
            host::warn!(B::MODULE, "slow query ({us} us): {}", shown());
        }
    }

    /// A connection that is there for sure.
    async fn acquire_alive(self: &Rc<Self>) -> Result<Lease<B>, DbError> {
        loop {
            let mut lease = self.acquire().await?;
            if lease.rested.is_none_or(|since| since.elapsed() < RESTED) {
                return Ok(lease);
            }
            let Some(conn) = &mut lease.conn else { return Err(DbError::Busy) };
            lease.doing = Use::Statement;
            let alive = self.backend.ping(conn).await;
            lease.doing = Use::Resting;
            if alive {
                return Ok(lease);
            }
            self.lost(lease, "it was closed while it rested");
        }
    }

    async fn acquire(self: &Rc<Self>) -> Result<Lease<B>, DbError> {
        loop {
            let ready = self.take_ready()?;
            let lease = match ready {
                Some(lease) => lease,
                None => self.wait().await?,
            };
            if lease.conn.is_some() {
                return Ok(lease);
            }
            if let Some(lease) = self.connect(lease).await? {
                return Ok(lease);
            }
        }
    }

    /// What can be had without waiting.
    fn take_ready(self: &Rc<Self>) -> Result<Option<Lease<B>>, DbError> {
        let mut state = self.state.borrow_mut();
        if let Health::Down(why) = &state.health {
            return Err(DbError::Down(why.clone()));
        }
        if state.waiting.is_empty()
            && let Some((conn, since)) = state.idle.pop()
        {
            return Ok(Some(Lease::new(self, Some(conn), Some(since))));
        }
        if self.may_open(&state) {
            self.count_open(&mut state);
            return Ok(Some(Lease::new(self, None, None)));
        }
        Ok(None)
    }

    async fn wait(self: &Rc<Self>) -> Result<Lease<B>, DbError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.borrow_mut();
            if state.waiting.len() >= self.limits.queue {
                state.waiting.retain(|w| !w.is_closed());
            }
            if state.waiting.len() >= self.limits.queue {
                self.counters.full.up();
                note_refused();
                return Err(DbError::Busy);
            }
            state.waiting.push_back(sender);
            note_queued();
        }
        receiver.await.unwrap_or(Err(DbError::Busy))
    }

    /// Fills a lease. `None`: the server refuses more connections, and there are others to wait for.
    async fn connect(self: &Rc<Self>, mut lease: Lease<B>) -> Result<Option<Lease<B>>, DbError> {
        self.start_settler();
        self.state.borrow_mut().connecting += 1;
        let attempt = Connecting(self);
        let result = self.backend.connect().await;
        drop(attempt);
        match result {
            Ok(conn) => {
                lease.conn = Some(conn);
                self.is_up();
                self.start_thinning();
                self.feed();
                Ok(Some(lease))
            }
            Err(why) => {
                if self.state.borrow().open > 1 {
                    self.grows_no_more(&why);
                    return Ok(None);
                }
                self.is_down(&why);
                Err(DbError::Down(why))
            }
        }
    }

    /// The server refuses one more, and others still work.
    pub(super) fn grows_no_more(&self, why: &str) {
        let until = Instant::now() + NO_GROWTH;
        if self.state.borrow_mut().no_growth.replace(until).is_none() {
            host::warn!(B::MODULE, "{} gives no more connections: {why}", self.db.url());
        }
    }

    fn may_open(&self, state: &State<B>) -> bool {
        let grows = state.no_growth.is_none_or(|until| until <= Instant::now())
            && self.db.connections().load(Ordering::Relaxed) < self.limits.total;
        state.open < self.limits.own
            && (state.health == Health::Up || state.connecting == 0)
            && (state.open == 0 || grows)
    }

    pub(super) fn count_open(&self, state: &mut State<B>) {
        state.open += 1;
        self.db.connections().fetch_add(1, Ordering::Relaxed);
    }

    /// Hands what is free to those who wait.
    fn feed(self: &Rc<Self>) {
        loop {
            let (waiter, lease) = {
                let mut state = self.state.borrow_mut();
                while state.waiting.front().is_some_and(|w| w.is_closed()) {
                    state.waiting.pop_front();
                }
                if state.waiting.is_empty() {
                    return;
                }
                let lease = if let Some((conn, since)) = state.idle.pop() {
                    Lease::new(self, Some(conn), Some(since))
                } else if self.may_open(&state) {
                    self.count_open(&mut state);
                    Lease::new(self, None, None)
                } else {
                    return;
                };
                (state.waiting.pop_front(), lease)
            };
            if let Some(waiter) = waiter {
                // One that went away meanwhile drops the lease, which comes back here.
                let _ = waiter.send(Ok(lease));
            }
        }
    }

    pub(super) fn give_back(self: &Rc<Self>, conn: B::Conn) {
        self.state.borrow_mut().idle.push((conn, Instant::now()));
        self.feed();
    }

    /// One more than the pool keeps: somebody has to close it when it is not needed any more.
    fn start_thinning(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.open > self.limits.resting && !std::mem::replace(&mut state.thinning, true) {
            tokio::task::spawn_local(thin_out(Rc::downgrade(self), MAY_REST));
        }
    }

    /// Closes what has rested for long and is more than the pool keeps. False: there is no more than that.
    pub(super) fn close_resting(self: &Rc<Self>, longer_than: Duration) -> bool {
        let (closed, more) = {
            let mut state = self.state.borrow_mut();
            let surplus = state.open.saturating_sub(self.limits.resting);
            // What was used last comes last.
            let old = state.idle.iter().take_while(|(_, since)| since.elapsed() >= longer_than).count();
            let closed: Vec<_> = state.idle.drain(..old.min(surplus)).collect();
            state.thinning = surplus > closed.len();
            (closed, state.thinning)
        };
        self.closed(closed.len());
        more
    }

    pub(super) fn closed(self: &Rc<Self>, count: usize) {
        self.state.borrow_mut().open -= count;
        self.db.connections().fetch_sub(count, Ordering::Relaxed);
        self.feed();
    }

    /// A connection broke: those that rest are most likely gone too.
    fn lost(self: &Rc<Self>, lease: Lease<B>, why: &str) {
        self.counters.lost.up();
        let resting = {
            let mut state = self.state.borrow_mut();
            state.health = Health::Unknown;
            std::mem::take(&mut state.idle)
        };
        host::info!(B::MODULE, "a connection to {} was lost: {why}", self.db.url());
        self.closed(resting.len());
        drop(resting);
        lease.close();
    }

    pub(super) fn is_up(&self) {
        let before = std::mem::replace(&mut self.state.borrow_mut().health, Health::Up);
        if matches!(before, Health::Down(_)) && self.db.outage().ends() {
            host::notice!(B::MODULE, "{} is reachable again", self.name());
            self.tell(Reach::Connected);
        }
        self.state.borrow_mut().no_growth = None;
    }

    /// The server as log lines name it, with its port.
    fn name(&self) -> String {
        let url = self.db.url();
        let port = match B::DIALECT {
            _ if url.port.is_some() || url.host.is_empty() => return url.to_string(),
            Dialect::MySql => 3306,
            _ => 5432,
        };
        format!("{url} ({}:{port})", url.host)
    }

    fn tell(&self, reach: Reach) {
        if let Some(watcher) = &self.watcher {
            watcher(reach);
        }
    }

    pub(super) fn is_down(self: &Rc<Self>, why: &str) {
        let (before, waiting, reconnecting) = {
            let mut state = self.state.borrow_mut();
            let before = std::mem::replace(&mut state.health, Health::Down(why.to_string()));
            let reconnecting = std::mem::replace(&mut state.reconnecting, true);
            (before, std::mem::take(&mut state.waiting), reconnecting)
        };
        for waiter in waiting {
            let _ = waiter.send(Err(DbError::Down(why.to_string())));
        }
        if !matches!(before, Health::Down(_)) && self.db.outage().begins() {
            host::error!(B::MODULE, "{} is unreachable: {why}", self.name());
            self.tell(Reach::Disconnected);
        }
        if !reconnecting {
            tokio::task::spawn_local(reconnect(Rc::downgrade(self)));
        }
    }

    /// The script that waited is gone: the statement gets a moment to end, then the connection goes.
    pub(super) fn abandon(self: &Rc<Self>, conn: B::Conn, doing: Use) {
        let sent = match &self.state.borrow().abandoned {
            Some(settler) => settler.send((conn, doing)).is_ok(),
            None => false,
        };
        if !sent {
            self.closed(1);
        }
    }

    /// Started with the first connection: only there is a runtime to run it on.
    fn start_settler(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.abandoned.is_none() {
            let (sender, receiver) = mpsc::unbounded_channel();
            state.abandoned = Some(sender);
            tokio::task::spawn_local(settle_all(Rc::downgrade(self), receiver));
        }
    }
}
