//! cachedb_sql: a table of any database as a key-value store.

use bytes::Bytes;
use host::cachedb::{Cache, CacheError, CacheUrl, Engine, Reply, Store};
use host::db::{Db, DbError, DbValue, Dialect, Name, Op, Pool, Query, quote};
use host::registrar::Stage;
use host::{Call, Ctx, Loader, Registrar};
use parking_lot::Mutex;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use transaction::Instant;

/// Names of the table and its columns.
#[derive(Clone)]
struct Names {
    table: Name,
    key: Name,
    value: Name,
    counter: Name,
    expires: Name,
}

pub struct CachedbSql {
    urls: Vec<String>,
    names: Names,
    clean_s: i64,
    next_clean: std::sync::atomic::AtomicU64,
    engine: Arc<Sql>,
}

impl Default for CachedbSql {
    fn default() -> CachedbSql {
        let names = Names {
            table: "cachedb".into(),
            key: "keyname".into(),
            value: "value".into(),
            counter: "counter".into(),
            expires: "expires".into(),
        };
        let engine = Arc::new(Sql { names: names.clone(), databases: Mutex::default() });
        CachedbSql { urls: Vec::new(), names, clean_s: 60, next_clean: 0.into(), engine }
    }
}

pub fn register(m: &mut Registrar<CachedbSql>) {
    m.stage(Stage::Driver);
    m.param_text("cachedb_url", |m, url| Ok(m.urls.push(url.to_string())));
    m.param_text("db_table", |m, name| Ok(m.names.table = name.to_string().into()));
    m.param_text("key_column", |m, name| Ok(m.names.key = name.to_string().into()));
    m.param_text("value_column", |m, name| Ok(m.names.value = name.to_string().into()));
    m.param_text("counter_column", |m, name| Ok(m.names.counter = name.to_string().into()));
    m.param_text("expires_column", |m, name| Ok(m.names.expires = name.to_string().into()));
    m.param_int("cache_clean_period", |m, seconds| match seconds {
        1.. => Ok(m.clean_s = seconds),
        _ => Err("cache_clean_period is 1 at least".to_string()),
    });
    m.init(|m, loader| {
        m.engine = Arc::new(Sql { names: m.names.clone(), databases: Mutex::default() });
        loader.cache_engine("sql", m.engine.clone());
        m.urls.iter().try_for_each(|url| loader.named_cache(url).map(drop))
    });
    m.timer(1000, clean);
}

/// Removes what has expired.
fn clean(call: &mut Call<CachedbSql>) {
    use std::sync::atomic::Ordering;
    let (m, now) = (call.module.clone(), call.core.now.0);
    if now < m.next_clean.load(Ordering::Relaxed) {
        return;
    }
    m.next_clean.store(now + m.clean_s as u64 * 1000, Ordering::Relaxed);
    let wall_s = (call.core.wall_us / 1_000_000) as i64;
    let databases: Vec<Db> = m.engine.databases.lock().iter().map(|(_, db)| db.clone()).collect();
    for db in databases {
        let query = Query::delete(m.names.table.clone()).filter(m.names.expires.clone(), Op::Gt, 0).filter(
            m.names.expires.clone(),
            Op::Lt,
            wall_s,
        );
        // The driver says when its database is gone.
        db.spawn(call.ctx, "cachedb_sql clean-up", query, |_, _| ());
    }
}

struct Sql {
    names: Names,
    /// By the part of the URL that names the database.
    databases: Mutex<Vec<(String, Db)>>,
}

impl Engine for Sql {
    fn module(&self) -> &'static str {
        "cachedb_sql"
    }

    fn prepare(&self, url: &CacheUrl, loader: &mut Loader) -> Result<(), String> {
        let db = loader.db(&url.rest)?;
        self.databases.lock().push((url.rest.clone(), db));
        Ok(())
    }

    fn connect(&self, cache: &Cache, ctx: &mut Ctx) -> Rc<dyn Store> {
        let found = self
            .databases
            .lock()
            .iter()
            .find(|(rest, _)| *rest == cache.url().rest)
            .map(|(_, db)| db.clone());
        let db = found.expect("prepared at load");
        let dialect = match db.url().scheme.as_str() {
            "postgres" => Dialect::Postgres,
            "sqlite" => Dialect::Sqlite,
            _ => Dialect::MySql,
        };
        Rc::new(SqlStore { pool: db.on(ctx), names: self.names.clone(), dialect, unix_s: Cell::new(0) })
    }
}

struct SqlStore {
    pool: Rc<dyn Pool>,
    names: Names,
    dialect: Dialect,
    unix_s: Cell<u64>,
}

fn failed(error: DbError) -> CacheError {
    match error {
        DbError::Down(why) => CacheError::Down(why),
        DbError::Busy => CacheError::Busy,
        DbError::TimedOut => CacheError::TimedOut,
        other => CacheError::Refused(other.to_string()),
    }
}

impl SqlStore {
    fn expiry(&self, expires_s: u32) -> i64 {
        if expires_s == 0 { 0 } else { self.unix_s.get() as i64 + i64::from(expires_s) }
    }

    /// One column of a key that has not expired.
    fn column(
        &self,
        column: &Name,
        key: &Bytes,
    ) -> impl Future<Output = Result<Option<DbValue>, CacheError>> + use<> {
        let columns = [column.clone(), self.names.expires.clone()];
        let query =
            Query::select(self.names.table.clone()).columns(columns).eq(self.names.key.clone(), key.clone());
        let (rows, now) = (self.pool.run(query), self.unix_s.get() as i64);
        async move {
            let rows = rows.await.map_err(failed)?;
            let Some(row) = rows.first() else { return Ok(None) };
            let expires = row.cells.get(1).and_then(DbValue::int).unwrap_or(0);
            let alive = expires == 0 || expires > now;
            Ok(row.cells.first().filter(|v| alive && !v.is_null()).cloned())
        }
    }
}

impl Store for SqlStore {
    fn at(&self, _: Instant, unix_s: u64) {
        self.unix_s.set(unix_s);
    }

    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>> {
        let found = self.column(&self.names.value, &key);
        Reply::later(async move { Ok(found.await?.and_then(|v| v.text())) })
    }

    fn store(&self, key: Bytes, value: Bytes, expires_s: u32) -> Reply<()> {
        let n = &self.names;
        let query = Query::upsert(n.table.clone())
            .eq(n.key.clone(), key)
            .set(n.value.clone(), value)
            .set(n.expires.clone(), self.expiry(expires_s));
        let rows = self.pool.run(query);
        Reply::later(async move { rows.await.map(drop).map_err(failed) })
    }

    fn remove(&self, key: Bytes) -> Reply<()> {
        let rows = self.pool.run(Query::delete(self.names.table.clone()).eq(self.names.key.clone(), key));
        Reply::later(async move { rows.await.map(drop).map_err(failed) })
    }

    fn add(&self, key: Bytes, by: i64, expires_s: u32) -> Reply<i64> {
        let Names { table, key: k, value, counter, expires } = &self.names;
        let key_text = quote(&DbValue::Text(key.clone()), self.dialect);
        let at = self.expiry(expires_s);
        let insert = format!(
            "INSERT INTO {table} ({k}, {value}, {counter}, {expires}) VALUES ({key_text}, '', {by}, {at})"
        );
        let clash = match self.dialect {
            Dialect::MySql => {
                format!("ON DUPLICATE KEY UPDATE {counter} = {counter} + ({by}), {expires} = {at}")
            }
            _ => format!(
                "ON CONFLICT ({k}) DO UPDATE SET {counter} = {table}.{counter} + ({by}), {expires} = {at}"
            ),
        };
        let select = Query::select(table.clone()).column(counter.clone()).eq(k.clone(), key);
        // One transaction: nobody else's change comes between.
        let all = self.pool.run_all(vec![Query::raw(format!("{insert} {clash}")), select]);
        Reply::later(async move {
            let all = all.await.map_err(failed)?;
            let sum = all.last().and_then(|rows| rows.first()).and_then(|row| row.int(0));
            sum.ok_or(CacheError::NotANumber)
        })
    }

    fn counter(&self, key: Bytes) -> Reply<Option<i64>> {
        let found = self.column(&self.names.counter, &key);
        Reply::later(async move {
            let Some(value) = found.await? else { return Ok(None) };
            value.int().map(Some).ok_or(CacheError::NotANumber)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Folder, run};
    use script::ast::Dialect;

    #[test]
    fn values_and_counters_in_sqlite() {
        let folder = Folder::new("cachedb-sql");
        let file = folder.0.join("db");
        let table = "CREATE TABLE cachedb (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, keyname CHAR(255) NOT NULL, value TEXT NOT NULL, counter INTEGER DEFAULT 0 NOT NULL, expires INTEGER DEFAULT 0 NOT NULL, UNIQUE (keyname))";
        rusqlite::Connection::open(&file).and_then(|db| db.execute_batch(table)).expect("a table");
        let config = format!(
            "socket=udp:127.0.0.1:5060\nloadmodule \"db_sqlite.so\"\nloadmodule \"cachedb_sql.so\"\nmodparam(\"cachedb_sql\", \"cachedb_url\", \"sql:1st-sqlite://{}\")\n",
            file.display()
        );
        let body = r#"$var(s) = "sql:1st-sqlite"; cache_store("sql:1st-sqlite", "k", "it's"); cache_fetch($var(s), "k", $avp(r));
            cache_store("sql:1st-sqlite", "k", "other"); cache_fetch("sql:1st-sqlite", "k", $avp(r));
            cache_fetch("sql:1st-sqlite", "none", $var(x)); $avp(r) = $rc; cache_remove("sql:1st-sqlite", "k"); $avp(r) = $rc;
            cache_fetch("sql:1st-sqlite", "k", $var(x)); $avp(r) = $rc;
            cache_add("sql:1st-sqlite", "n'", 5, 0, $avp(r)); cache_sub("sql:1st-sqlite", "n'", 7, 0, $avp(r)); cache_counter_fetch("sql:1st-sqlite", "n'", $avp(r));
            cache_counter_fetch("sql:1st-sqlite", "m", $var(x)); $avp(r) = $rc; cache_raw_query("sql:1st-sqlite", "x"); $avp(r) = $rc;"#;
        let ran = run(&config, body, Dialect::V4);
        let mut found = ran.avps("r");
        found.reverse();
        assert_eq!(found, ["it's", "other", "-2", "1", "-2", "5", "-2", "-2", "-2", "-1"]);
        assert!(ran.waits > 5, "it waits: {}", ran.waits);
    }
}
