//! The thread that owns a file: takes jobs, runs them in order, answers.
#![expect(clippy::disallowed_methods, reason = "the thread of a database file is outside the workers")]

use host::clock;
use host::db::{DbError, DbValue, Dialect, Name, Query, Rows, render};
use host::stats::{Counter, Stats};
use host::worker::ops::{note_queued, note_refused};
use parking_lot::Mutex;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags, ToSql};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Jobs that may wait for the thread; more are refused.
const QUEUE: usize = 4096;
/// Writes put into one transaction at most.
const GROUP: usize = 128;
/// Prepared statements that are kept.
const STATEMENTS: usize = 64;
/// A result larger than this is an error, in bytes.
const MAX_RESULT: usize = 256 << 20;

/// Keeps its tables elsewhere than in an SQLite file; the database itself is in memory. Runs on the thread.
pub trait Store: Send + Sync {
    /// Fills a database that was just opened.
    fn opened(&self, connection: &Connection) -> Result<(), String>;
    /// Statements are about to run.
    fn before(&self, connection: &Connection);
    /// Writes what has changed back to where it came from.
    fn save(&self, connection: &Connection) -> Result<(), String>;
}

#[derive(Clone)]
pub struct Settings {
    /// How long to wait for the lock of another process.
    pub busy_ms: u64,
    pub pragmas: Vec<String>,
    /// Log statements that take longer, µs; 0: none.
    pub slow_us: u64,
    pub store: Option<Arc<dyn Store>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { busy_ms: 500, pragmas: Vec::new(), slow_us: 0, store: None }
    }
}

type Answer = Result<Vec<Rows>, DbError>;

struct Job {
    id: u64,
    /// More than one: a transaction. None: the store writes back what has changed.
    queries: Vec<Query>,
    answer: oneshot::Sender<Answer>,
}

/// What the thread does now, for whoever wants it stopped.
#[derive(Default)]
struct Running {
    /// Job that may be interrupted; 0: none.
    id: u64,
    interrupt: Option<InterruptHandle>,
}

/// The way to the thread of one file.
#[derive(Clone)]
pub struct Handle {
    jobs: SyncSender<Job>,
    running: Arc<Mutex<Running>>,
    next: Arc<AtomicU64>,
    refused: Counter,
}

/// Takes a job back when its script is gone.
struct Guard<'a> {
    handle: &'a Handle,
    id: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let running = self.handle.running.lock();
        if let (true, Some(interrupt)) = (running.id == self.id, &running.interrupt) {
            interrupt.interrupt();
        }
    }
}

impl Handle {
    pub fn start(path: &str, settings: Arc<Settings>, stats: &Stats) -> Handle {
        let (jobs, queue) = sync_channel(QUEUE);
        let running = Arc::<Mutex<Running>>::default();
        let handle = Handle {
            jobs,
            running: running.clone(),
            next: Arc::default(),
            refused: stats.counter("db", "db_queue_full"),
        };
        let thread = Thread {
            path: path.to_string(),
            settings,
            running,
            connection: None,
            file: None,
            down: false,
            unable: false,
            queries: stats.counter("db", "db_queries"),
            failed: stats.counter("db", "db_failed_queries"),
            slow: stats.counter("db", "db_slow_queries"),
        };
        let started =
            std::thread::Builder::new().name("sqlite".to_string()).spawn(move || thread.run(&queue));
        if let Err(error) = started {
            host::error!("db_sqlite", "no thread for {path}: {error}");
        }
        handle
    }

    /// Several queries are one transaction.
    pub async fn run(&self, queries: Vec<Query>) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, result) = oneshot::channel();
        if self.running.lock().id != 0 {
            note_queued();
        }
        match self.jobs.try_send(Job { id, queries, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.refused.up();
                note_refused();
                return Err(DbError::Busy);
            }
            Err(TrySendError::Disconnected(_)) => return Err(gone()),
        }
        let _guard = Guard { handle: self, id };
        result.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> DbError {
    DbError::Down("its thread has ended".to_string())
}

struct Thread {
    path: String,
    settings: Arc<Settings>,
    running: Arc<Mutex<Running>>,
    connection: Option<Connection>,
    /// Which file that is; `None`: not one with a name of its own.
    file: Option<FileId>,
    /// The last attempt to open failed, and that was logged.
    down: bool,
    /// The last statement could not be done, for no fault of its own, and that was logged.
    unable: bool,
    queries: Counter,
    failed: Counter,
    slow: Counter,
}

/// Device and number of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    /// `None`: there is no file of this name.
    fn of(path: &str) -> Option<FileId> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|file| FileId(file.dev(), file.ino()))
    }
}

impl Thread {
    fn run(mut self, queue: &Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP);
        while let Ok(first) = queue.recv() {
            jobs.push(first);
            jobs.extend(queue.try_iter().take(GROUP - 1));
            let mut rest = jobs.drain(..).filter(|job| !job.answer.is_closed()).peekable();
            while let Some(job) = rest.next() {
                if !groupable(&job) {
                    self.one(job);
                    continue;
                }
                let mut group = vec![job];
                while let Some(job) = rest.next_if(groupable) {
                    group.push(job);
                }
                match group.len() {
                    1 => self.one(group.remove(0)),
                    _ => self.group(group),
                }
            }
        }
    }

    fn one(&mut self, job: Job) {
        self.queries.add(job.queries.len() as i64);
        let since = Instant::now();
        self.running.lock().id = job.id;
        let store = self.settings.store.clone();
        let result = match self.open() {
            Ok(connection) if job.queries.is_empty() => {
                let saved = store.map_or(Ok(()), |store| store.save(connection));
                saved.map(|()| Vec::new()).map_err(DbError::Down)
            }
            Ok(connection) => run_job(connection, &job.queries),
            Err(error) => Err(error),
        };
        self.running.lock().id = 0;
        self.report(&job, &result, since.elapsed());
        let _ = job.answer.send(result);
    }

    /// Writes that came in together: each stands for itself, the disk is waited for once.
    fn group(&mut self, jobs: Vec<Job>) {
        self.queries.add(jobs.len() as i64);
        let since = Instant::now();
        let outcome = self.open().and_then(|connection| {
            connection.execute_batch("begin immediate").map_err(refused)?;
            let results: Vec<Answer> =
                jobs.iter().map(|job| Ok(vec![run_one(connection, &job.queries[0])?])).collect();
            connection.execute_batch("commit").map_err(|error| {
                let _ = connection.execute_batch("rollback");
                refused(error)
            })?;
            Ok(results)
        });
        let results = match outcome {
            Ok(results) => results,
            Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let each = since.elapsed() / jobs.len() as u32;
        for (job, result) in jobs.into_iter().zip(results) {
            self.report(&job, &result, each);
            let _ = job.answer.send(result);
        }
    }

    /// Another file took the place of the open one (a backup came back): the next statement is for that one.
    fn follow_file(&mut self) {
        let replaced = |open: FileId| FileId::of(&self.path).is_some_and(|now| now != open);
        if self.file.is_some_and(replaced) {
            host::notice!("db_sqlite", "{} was replaced: the new file is opened", self.path);
            self.running.lock().interrupt = None;
            (self.connection, self.file) = (None, None);
        }
    }

    fn open(&mut self) -> Result<&mut Connection, DbError> {
        self.follow_file();
        if self.connection.is_none() {
            match self.connect() {
                Ok(connection) => {
                    self.running.lock().interrupt = Some(connection.get_interrupt_handle());
                    self.connection = Some(connection);
                    self.file = FileId::of(&self.path).filter(|_| self.settings.store.is_none());
                    if std::mem::take(&mut self.down) {
                        host::notice!("db_sqlite", "{} can be opened again", self.path);
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.down, true) {
                        host::error!("db_sqlite", "{} cannot be opened: {error}", self.path);
                    }
                    return Err(DbError::Down(error));
                }
            }
        }
        let connection = self.connection.as_mut().ok_or_else(gone)?;
        if let Some(store) = &self.settings.store {
            store.before(connection);
        }
        Ok(connection)
    }

    fn connect(&self) -> Result<Connection, String> {
        let connection = connect(&self.path, &self.settings).map_err(|e| e.to_string())?;
        match &self.settings.store {
            Some(store) => store.opened(&connection).map(|()| connection),
            None => Ok(connection),
        }
    }

    fn report(&mut self, job: &Job, result: &Answer, took: Duration) {
        match result {
            Ok(_) => {
                // Reading may go on all the while.
                let wrote = !job.queries.iter().all(Query::reads_only);
                if wrote && std::mem::take(&mut self.unable) {
                    host::notice!("db_sqlite", "{} takes statements again", self.path);
                }
            }
            Err(error) => {
                self.failed.up();
                match error {
                    DbError::Down(_) => {}
                    // Whoever has a lock lets go; until then one line is enough.
                    DbError::Unable { .. } => {
                        if !std::mem::replace(&mut self.unable, true) {
                            host::error!("db_sqlite", "{} takes no statements: {error}", self.path);
                        }
                        if self.settings.store.is_none() && wants_reopening(error) {
                            self.running.lock().interrupt = None;
                            self.connection = None;
                        }
                    }
                    error if !job.answer.is_closed() => host::error!("db_sqlite", "{error}: {}", shown(job)),
                    _ => {}
                }
            }
        }
        let us = took.as_micros() as u64;
        if self.settings.slow_us > 0 && us > self.settings.slow_us {
            self.slow.up();
            host::warn!("db_sqlite", "slow query ({us} us): {}", shown(job));
        }
    }
}

fn shown(job: &Job) -> String {
    let detail = job.queries.first().map(Query::detail).unwrap_or_default();
    String::from_utf8_lossy(&detail).chars().take(200).collect()
}

/// A single structured write: it can share a transaction with others.
fn groupable(job: &Job) -> bool {
    matches!(&job.queries[..], [Query::Table(q)] if q.action != host::db::Action::Select)
}

/// Opens a file (`:memory:` is none) with what every connection here has.
pub(super) fn connect(path: &str, settings: &Settings) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = match settings.store {
        None => {
            make_private(path);
            Connection::open_with_flags(path, flags)?
        }
        Some(_) => Connection::open_in_memory()?,
    };
    connection.busy_timeout(Duration::from_millis(settings.busy_ms))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    for pragma in &settings.pragmas {
        // A pragma may answer with a row, and a wrong one is ignored, as SQLite does.
        let ran = connection.prepare(&format!("PRAGMA {pragma}")).and_then(|mut statement| {
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        });
        if let Err(error) = ran {
            host::warn!("db_sqlite", "PRAGMA {pragma}: {error}");
        }
    }
    add_regexp(&connection)?;
    Ok(connection)
}

/// A file that is not there yet is made so that only its owner and group get at it: it holds passwords. Files that SQLite
/// makes beside it get the same mode. What cannot be made SQLite reports itself.
fn make_private(path: &str) {
    if !path.starts_with("file:") && !path.is_empty() && path != ":memory:" {
        let _ = private().create_new(true).open(path);
    }
}

fn private() -> std::fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o660);
    options
}

/// A file, made anew, that only the server's user and group get at.
pub fn private_file(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    private().create(true).truncate(true).open(path)
}

/// The function behind `text REGEXP pattern`.
fn add_regexp(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("regexp", 2, flags, |ctx| {
        let regex = ctx.get_or_create_aux(0, |pattern| {
            regex::bytes::Regex::new(pattern.as_str()?)
                .map_err(|e| Box::new(e) as Box<dyn std::error::Error + Send + Sync>)
        })?;
        Ok(match ctx.get_raw(1) {
            ValueRef::Text(text) | ValueRef::Blob(text) => regex.is_match(text),
            ValueRef::Integer(n) => regex.is_match(n.to_string().as_bytes()),
            ValueRef::Real(x) => regex.is_match(x.to_string().as_bytes()),
            ValueRef::Null => false,
        })
    })
}

fn run_job(connection: &mut Connection, queries: &[Query]) -> Answer {
    if let [query] = queries {
        return Ok(vec![run_one(connection, query)?]);
    }
    // Dropped without commit, it rolls back.
    let transaction = connection.transaction().map_err(refused)?;
    let all = queries.iter().map(|query| run_one(&transaction, query)).collect::<Answer>()?;
    transaction.commit().map_err(refused)?;
    Ok(all)
}

/// Runs one query on a connection, on the calling thread.
pub(super) fn run_one(connection: &Connection, query: &Query) -> Result<Rows, DbError> {
    let sql = render(query, Dialect::Sqlite)?;
    match query {
        // Raw texts have their values inside: keeping them would drive out those worth keeping.
        Query::Raw(_) => {
            use rusqlite::fallible_iterator::FallibleIterator;
            let mut batch = rusqlite::Batch::new(connection, &sql.text);
            let mut first: Option<Rows> = None;
            while let Some(mut statement) = batch.next().map_err(refused)? {
                let rows = step(connection, &mut statement, &sql.values)?;
                // As with the other servers: what the first one that selects has found.
                if first.as_ref().is_none_or(|rows| rows.columns().is_empty()) {
                    first = Some(rows);
                }
            }
            Ok(first.unwrap_or_default())
        }
        Query::Table(_) => {
            let mut statement = connection.prepare_cached(&sql.text).map_err(refused)?;
            step(connection, &mut statement, &sql.values)
        }
    }
}

fn step(
    connection: &Connection,
    statement: &mut rusqlite::Statement<'_>,
    values: &[DbValue],
) -> Result<Rows, DbError> {
    let columns: Vec<Name> =
        statement.column_names().into_iter().map(|c| Name::from(c.to_string())).collect();
    let times: Vec<bool> = statement.columns().iter().map(|c| is_time(c.decl_type())).collect();
    let bound = values.iter().map(Bound);
    let mut cells = Vec::new();
    let mut size = 0;
    let before = connection.total_changes();
    let mut rows = statement.query(rusqlite::params_from_iter(bound)).map_err(refused)?;
    while let Some(row) = rows.next().map_err(refused)? {
        for (i, time) in times.iter().enumerate() {
            let cell = read_time(row.get_ref(i).map_err(refused)?, *time);
            size += 32 + cell_bytes(&cell);
            cells.push(cell);
        }
        if size > MAX_RESULT {
            return Err(DbError::Refused { code: "size".into(), message: "the result is too large".into() });
        }
    }
    drop(rows);
    let mut result = Rows::new(columns, cells);
    if times.is_empty() {
        result.affected = connection.total_changes().saturating_sub(before);
        result.insert_id = connection.last_insert_rowid();
    }
    Ok(result)
}

fn cell_bytes(cell: &DbValue) -> usize {
    match cell {
        DbValue::Text(t) | DbValue::Blob(t) => t.len(),
        _ => 0,
    }
}

fn is_time(declared: Option<&str>) -> bool {
    declared.is_some_and(|t| t.eq_ignore_ascii_case("datetime") || t.eq_ignore_ascii_case("timestamp"))
}

/// A cell as it stands in the database.
pub fn read(value: ValueRef<'_>) -> DbValue {
    match value {
        ValueRef::Null => DbValue::Null,
        ValueRef::Integer(n) => DbValue::Int(n),
        ValueRef::Real(x) => DbValue::Real(x),
        ValueRef::Blob(b) => DbValue::Blob(b.to_vec().into()),
        ValueRef::Text(t) => DbValue::Text(t.to_vec().into()),
    }
}

/// The same where a column of times holds texts.
fn read_time(value: ValueRef<'_>, time: bool) -> DbValue {
    let text = if let ValueRef::Text(t) = value { std::str::from_utf8(t).ok() } else { None };
    text.filter(|_| time).and_then(clock::from_sql).map_or_else(|| read(value), DbValue::Time)
}

/// A value on its way into a statement.
struct Bound<'a>(&'a DbValue);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            DbValue::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            DbValue::Int(n) => ToSqlOutput::Borrowed(ValueRef::Integer(*n)),
            DbValue::Real(x) => ToSqlOutput::Borrowed(ValueRef::Real(*x)),
            DbValue::Text(t) => ToSqlOutput::Borrowed(ValueRef::Text(t)),
            DbValue::Blob(b) => ToSqlOutput::Borrowed(ValueRef::Blob(b)),
            DbValue::Time(unix) => ToSqlOutput::Owned(clock::sql(*unix).into()),
        })
    }
}

/// What SQLite says no to; what it cannot do now is told apart from what it will never do.
fn refused(error: rusqlite::Error) -> DbError {
    match &error {
        rusqlite::Error::SqliteFailure(e, message) => {
            let (code, message) =
                (e.extended_code.to_string(), message.clone().unwrap_or_else(|| error.to_string()));
            match is_passing(e.code) {
                true => DbError::Unable { code, message },
                false => DbError::Refused { code, message },
            }
        }
        rusqlite::Error::SqlInputError { error: e, msg, .. } => {
            DbError::Refused { code: e.extended_code.to_string(), message: msg.clone() }
        }
        _ => DbError::Refused { code: String::new(), message: error.to_string() },
    }
}

/// The file is locked, read-only, damaged or full: no fault of the statement.
fn is_passing(code: ErrorCode) -> bool {
    use ErrorCode::*;
    matches!(
        code,
        PermissionDenied
            | DatabaseBusy
            | DatabaseLocked
            | OutOfMemory
            | ReadOnly
            | SystemIoFailure
            | DatabaseCorrupt
            | DiskFull
            | CannotOpen
            | FileLockingProtocolFailed
            | NoLargeFileSupport
            | AuthorizationForStatementDenied
            | NotADatabase
    )
}

/// Another connection may do better: the file was put aside, or came back.
fn wants_reopening(error: &DbError) -> bool {
    let DbError::Unable { code, .. } = error else { return false };
    let primary = code.parse::<i32>().unwrap_or(0) & 0xff;
    // SQLITE_READONLY, IOERR, CORRUPT, CANTOPEN, NOTADB.
    matches!(primary, 8 | 10 | 11 | 14 | 26)
}
