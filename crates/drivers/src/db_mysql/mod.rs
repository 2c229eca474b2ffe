//! db_mysql: MySQL and MariaDB (`mysql://user:password@host[:port]/database`).

use crate::sql::{Backend, Collect, Failure, Limits, Reach, SqlPool, Tls, Verify};
use futures_util::StreamExt;
use host::clock;
use host::db::{Db, DbError, DbUrl, DbValue, Dialect, Driver, Pool, Rows};
use host::registrar::Stage;
use host::{Ctx, Registrar, Value};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlSslMode};
use sqlx::{Column, ConnectOptions, Connection, Either, Row, TypeInfo};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

pub struct DbMysql {
    timeout_s: u64,
    slow_us: u64,
    tls: bool,
}

impl Default for DbMysql {
    fn default() -> DbMysql {
        DbMysql { timeout_s: 2, slow_us: 0, tls: false }
    }
}

pub fn register(m: &mut Registrar<DbMysql>) {
    m.stage(Stage::Driver);
    m.param_int("exec_query_threshold", |m, us| {
        m.slow_us = us.max(0) as u64;
        Ok(())
    });
    m.param_int("timeout_interval", |m, seconds| {
        m.timeout_s = seconds.clamp(1, 3600) as u64;
        Ok(())
    });
    m.param_int("use_tls", |m, on| {
        m.tls = on != 0;
        Ok(())
    });
    m.ignored(
        &["max_db_queries", "max_db_retries", "ping_interval"],
        "a lost read is sent again once, and lost connections are replaced in the background",
    );
    m.ignored(&["tls_client_domain"], "URLs say it: tls_domain=...");
    m.ignored(&["ps_max_col_size"], "columns of any size are read whole");
    m.ready(|_, hooks, _| hooks.raises([EVENT]));
    m.init(|m, loader| {
        let driver =
            MySqlDriver { timeout: Duration::from_secs(m.timeout_s), slow_us: m.slow_us, tls: m.tls };
        loader.db_driver("mysql", Arc::new(driver));
        Ok(())
    });
}

struct MySqlDriver {
    timeout: Duration,
    slow_us: u64,
    tls: bool,
}

impl MySqlDriver {
    /// What is checked when the URL does not say.
    fn verify(&self) -> Verify {
        if self.tls { Verify::Nothing } else { Verify::Off }
    }
}

impl Driver for MySqlDriver {
    fn module(&self) -> &'static str {
        "db_mysql"
    }

    fn check(&self, url: &DbUrl) -> Result<(), String> {
        Tls::of(url, self.verify()).map(drop)
    }

    fn lacks(&self, url: &DbUrl) -> Option<String> {
        crate::sql::no_answer(url, 3306)
    }

    fn pool(&self, db: &Db, ctx: &mut Ctx) -> Rc<dyn Pool> {
        let limits = Limits::of(ctx, self.slow_us);
        let tls = Tls::with_domain(db.url(), self.verify(), ctx).unwrap_or_else(|why| {
            host::error!("db_mysql", "{}: {why}", db.url());
            // Nothing is trusted then: the server cannot be reached, and the line above says why.
            Tls { verify: Verify::Name, ..Tls::default() }
        });
        let backend = MySql { options: options(db.url(), &tls), timeout: self.timeout };
        let watcher = watcher(db, ctx);
        Rc::new(SqlPool::watched(db, backend, limits, &ctx.shared().stats, Some(watcher)))
    }
}

const EVENT: &str = "E_MYSQL_CONNECTION";

/// Raises the event on the pool's own worker.
fn watcher(db: &Db, ctx: &Ctx) -> Box<dyn Fn(Reach)> {
    let (shared, worker) = (ctx.shared().clone(), usize::from(ctx.core.worker));
    let url = db.url().to_string();
    Box::new(move |reach| {
        let status = match reach {
            Reach::Connected => "connected",
            Reach::Disconnected => "disconnected",
        };
        let params = [("url", Value::from(url.clone())), ("status", Value::from(status))];
        let raise = move |ctx: &mut Ctx| host::events::raise(ctx, EVENT, params.into_iter().collect());
        if let Some(dispatch) = shared.dispatch.get() {
            dispatch.run_on(worker, Box::new(raise));
        }
    })
}

/// The session keeps the server's own settings, as with the reference: no time zone, no SQL mode.
fn options(url: &DbUrl, tls: &Tls) -> MySqlConnectOptions {
    let host = if url.host.is_empty() { "localhost" } else { &url.host };
    let mut options = MySqlConnectOptions::new()
        .host(host)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .ssl_mode(match tls.verify {
            Verify::Off => MySqlSslMode::Disabled,
            Verify::Prefer => MySqlSslMode::Preferred,
            Verify::Nothing => MySqlSslMode::Required,
            Verify::Chain => MySqlSslMode::VerifyCa,
            Verify::Name => MySqlSslMode::VerifyIdentity,
        })
        .statement_cache_capacity(0)
        .disable_statement_logging();
    if !url.database.is_empty() {
        options = options.database(&url.database);
    }
    if let Some(ca) = &tls.ca {
        options = options.ssl_ca(ca);
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
    }
    if let Some(port) = url.port {
        options = options.port(port);
    }
    if let Some(user) = &url.user {
        options = options.username(user);
    }
    if let Some(password) = &url.password {
        options = options.password(password);
    }
    options
}

/// Where the client library of the reference looks when the host is "localhost".
const SOCKETS: [&str; 3] = ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"];

pub struct MySql {
    options: MySqlConnectOptions,
    timeout: Duration,
}

pub struct Conn {
    inner: MySqlConnection,
    /// What KILL QUERY takes.
    id: i64,
}

impl MySql {
    /// For a connection of its own; the error is what a user should read.
    pub fn for_tools(url: &DbUrl) -> Result<MySql, String> {
        Ok(MySql { options: options(url, &Tls::of(url, Verify::Off)?), timeout: Duration::from_secs(10) })
    }

    async fn log_in(&self) -> Result<MySqlConnection, sqlx::Error> {
        if self.options.get_host() == "localhost" && self.options.get_port() == 3306 {
            for socket in SOCKETS.into_iter().filter(|s| Path::new(s).exists()) {
                let options = self.options.clone().socket(socket);
                if let Ok(conn) = options.connect().await {
                    return Ok(conn);
                }
            }
        }
        self.options.connect().await
    }

    async fn connect_now(&self) -> Result<Conn, String> {
        let inner = self.log_in().await.map_err(|e| e.to_string())?;
        let mut conn = Conn { inner, id: 0 };
        let rows = run(&mut conn.inner, "select connection_id()").await.map_err(|e| format!("{e:?}"))?;
        conn.id = rows.first().and_then(|r| r.int(0)).unwrap_or(0);
        Ok(conn)
    }
}

impl Backend for MySql {
    type Conn = Conn;
    const MODULE: &'static str = "db_mysql";
    const DIALECT: Dialect = Dialect::MySql;

    async fn connect(&self) -> Result<Conn, String> {
        match timeout(self.timeout, self.connect_now()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs())),
        }
    }

    async fn run(&self, conn: &mut Conn, text: &str) -> Result<Rows, Failure> {
        run(&mut conn.inner, text).await
    }

    /// The time limit counts three times, as in the reference.
    fn query_limit(&self) -> Duration {
        self.timeout * 3
    }

    async fn ping(&self, conn: &mut Conn) -> bool {
        conn.inner.ping().await.is_ok()
    }

    async fn replace(&self, conn: Conn) -> Result<Conn, String> {
        let mut other = self.connect().await?;
        match timeout(self.timeout, run(&mut other.inner, &format!("kill query {}", conn.id))).await {
            // One that has just ended cannot be killed, which is as well.
            Ok(Ok(_) | Err(Failure::Refused(_))) => Ok(other),
            Ok(Err(Failure::Lost(why))) => Err(why),
            Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs())),
        }
    }
}

async fn run(conn: &mut MySqlConnection, text: &str) -> Result<Rows, Failure> {
    let mut out = Collect::default();
    let mut kinds = Vec::new();
    let mut stream = sqlx::raw_sql(text).fetch_many(conn);
    while let Some(item) = stream.next().await {
        match item.map_err(failure)? {
            Either::Left(done) => out.done(done.rows_affected(), done.last_insert_id() as i64),
            Either::Right(row) => {
                if out.starts() {
                    kinds = row.columns().iter().map(|c| kind(c.type_info().name())).collect();
                    out.columns(row.columns().iter().map(|c| c.name()));
                }
                out.row(row.len(), |i| cell(&row, i, kinds[i]))?;
            }
        }
    }
    Ok(out.rows())
}

#[derive(Clone, Copy)]
enum Kind {
    Int,
    Real,
    Time,
    Bit,
    Blob,
    Text,
}

fn kind(name: &str) -> Kind {
    match name {
        "BOOLEAN" | "YEAR" => Kind::Int,
        "FLOAT" | "DOUBLE" => Kind::Real,
        "DATETIME" | "TIMESTAMP" => Kind::Time,
        "BIT" => Kind::Bit,
        "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => Kind::Blob,
        _ if name.contains("INT") => Kind::Int,
        _ => Kind::Text,
    }
}

fn cell(row: &MySqlRow, i: usize, kind: Kind) -> DbValue {
    let Ok(Some(bytes)) = row.try_get_unchecked::<Option<&[u8]>, _>(i) else { return DbValue::Null };
    let text = || std::str::from_utf8(bytes).unwrap_or("");
    let plain = || DbValue::Text(bytes.to_vec().into());
    match kind {
        // An unsigned number above i64 stays a text.
        Kind::Int => text().parse().map_or_else(|_| plain(), DbValue::Int),
        Kind::Real => text().parse().map_or_else(|_| plain(), DbValue::Real),
        Kind::Time => clock::from_sql(text()).map_or_else(plain, DbValue::Time),
        Kind::Bit => DbValue::Int(bytes.iter().fold(0, |n, b| n << 8 | i64::from(*b))),
        Kind::Blob => DbValue::Blob(bytes.to_vec().into()),
        Kind::Text => plain(),
    }
}

fn failure(error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(refused) = &error else { return Failure::Lost(error.to_string()) };
    let number = refused.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
    match number {
        // Shutdown in progress; the connection was killed; the server is going away.
        1053 | 1927 | 2006 | 2013 | 4031 => Failure::Lost(refused.message().to_string()),
        _ => {
            let (code, message) = (number.to_string(), refused.message().to_string());
            Failure::Refused(match is_passing(number) {
                true => DbError::Unable { code, message },
                false => DbError::Refused { code, message },
            })
        }
    }
}

/// Errors that are no fault of the statement: read-only for a failover, locked for a backup, out of room or memory, not ready.
fn is_passing(number: u16) -> bool {
    matches!(
        number,
        1015..=1017
            | 1020
            | 1021
            | 1026
            | 1030
            | 1037
            | 1038
            | 1040
            | 1041
            | 1047
            | 1099
            | 1100
            | 1114
            | 1180
            | 1194
            | 1195
            | 1203
            | 1205
            | 1206
            | 1213
            | 1223
            | 1226
            | 1290
            | 1317
            | 1613
            | 1614
            | 1637
            | 1689
            | 1792
            | 1836
            | 1969
            | 3024
            | 3032
            | 3100
            | 3101
            | 3572
    )
}

#[cfg(test)]
mod tests;
