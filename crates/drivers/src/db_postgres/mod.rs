//! db_postgres: PostgreSQL (`postgres://user:password@host[:port]/database`).

use crate::sql::{Backend, Collect, Failure, Limits, SqlPool, Tls, Verify};
use futures_util::StreamExt;
use host::clock;
use host::db::{Db, DbError, DbUrl, DbValue, Dialect, Driver, Pool, Rows};
use host::registrar::Stage;
use host::{Ctx, Registrar};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{Column, ConnectOptions, Connection, Either, Row, TypeInfo};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

pub struct DbPostgres {
    timeout_s: u64,
    slow_us: u64,
    tls: bool,
}

impl Default for DbPostgres {
    fn default() -> DbPostgres {
        DbPostgres { timeout_s: 5, slow_us: 0, tls: false }
    }
}

pub fn register(m: &mut Registrar<DbPostgres>) {
    m.stage(Stage::Driver);
    m.param_int("exec_query_threshold", |m, us| {
        m.slow_us = us.max(0) as u64;
        Ok(())
    });
    // A negative one waits for ever in the reference; here it is the default.
    m.param_int("timeout", |m, seconds| {
        if seconds > 0 {
            m.timeout_s = seconds.min(3600) as u64;
        }
        Ok(())
    });
    m.param_int("use_tls", |m, on| {
        m.tls = on != 0;
        Ok(())
    });
    m.ignored(
        &["max_db_queries"],
        "a lost read is sent again once, and lost connections are replaced in the background",
    );
    m.init(|m, loader| {
        let driver = PgDriver { timeout: Duration::from_secs(m.timeout_s), slow_us: m.slow_us, tls: m.tls };
        loader.db_driver("postgres", Arc::new(driver));
        Ok(())
    });
}

struct PgDriver {
    timeout: Duration,
    slow_us: u64,
    tls: bool,
}

impl PgDriver {
    /// What is checked when the URL does not say.
    fn verify(&self, url: &DbUrl) -> Verify {
        match (self.tls, url.param("tls_domain")) {
            (false, _) => Verify::Off,
            (true, None) => Verify::Prefer,
            (true, Some(_)) => Verify::Nothing,
        }
    }
}

impl Driver for PgDriver {
    fn module(&self) -> &'static str {
        "db_postgres"
    }

    fn check(&self, url: &DbUrl) -> Result<(), String> {
        Tls::of(url, self.verify(url)).map(drop)
    }

    fn lacks(&self, url: &DbUrl) -> Option<String> {
        crate::sql::no_answer(url, 5432)
    }

    fn pool(&self, db: &Db, ctx: &mut Ctx) -> Rc<dyn Pool> {
        let limits = Limits::of(ctx, self.slow_us);
        let tls = Tls::with_domain(db.url(), self.verify(db.url()), ctx).unwrap_or_else(|why| {
            host::error!("db_postgres", "{}: {why}", db.url());
            // Nothing is trusted then: the server cannot be reached, and the line above says why.
            Tls { verify: Verify::Name, ..Tls::default() }
        });
        let backend = Postgres { options: options(db.url(), &tls), timeout: self.timeout };
        Rc::new(SqlPool::new(db, backend, limits, &ctx.shared().stats))
    }
}

fn options(url: &DbUrl, tls: &Tls) -> PgConnectOptions {
    let mode = match tls.verify {
        Verify::Off => PgSslMode::Disable,
        Verify::Prefer => PgSslMode::Prefer,
        Verify::Nothing => PgSslMode::Require,
        Verify::Chain => PgSslMode::VerifyCa,
        Verify::Name => PgSslMode::VerifyFull,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .database(&url.database)
        .application_name("fermata")
        .ssl_mode(mode)
        .statement_cache_capacity(0)
        .disable_statement_logging();
    options =
        if url.host.is_empty() { options.socket("/var/run/postgresql") } else { options.host(&url.host) };
    if let Some(ca) = &tls.ca {
        options = options.ssl_root_cert(ca);
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

pub struct Postgres {
    options: PgConnectOptions,
    timeout: Duration,
}

impl Postgres {
    /// For a connection of its own; the error is what a user should read.
    pub fn for_tools(url: &DbUrl) -> Result<Postgres, String> {
        Ok(Postgres { options: options(url, &Tls::of(url, Verify::Off)?), timeout: Duration::from_secs(10) })
    }

    async fn connect_now(&self) -> Result<PgConnection, String> {
        let mut conn = self.options.connect().await.map_err(|e| e.to_string())?;
        // Times go both ways as local time.
        let minutes = clock::utc_offset() / 60;
        let (sign, minutes) = if minutes < 0 { ('-', -minutes) } else { ('+', minutes) };
        let zone =
            format!("set time zone interval '{sign}{:02}:{:02}' hour to minute", minutes / 60, minutes % 60);
        // A statement whose connection was closed under it ends (from version 14 on).
        // Backslashes in '…' stand for themselves, as they do by default: that is how values are escaped.
        let strings = "set standard_conforming_strings = on";
        for text in [zone.as_str(), strings, "set client_connection_check_interval = 1000"] {
            if let Err(Failure::Lost(why)) = run(&mut conn, text).await {
                return Err(why);
            }
        }
        Ok(conn)
    }
}

impl Backend for Postgres {
    type Conn = PgConnection;
    const MODULE: &'static str = "db_postgres";
    const DIALECT: Dialect = Dialect::Postgres;

    async fn connect(&self) -> Result<PgConnection, String> {
        match timeout(self.timeout, self.connect_now()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs())),
        }
    }

    async fn run(&self, conn: &mut PgConnection, text: &str) -> Result<Rows, Failure> {
        run(conn, text).await
    }

    fn query_limit(&self) -> Duration {
        self.timeout
    }

    async fn ping(&self, conn: &mut PgConnection) -> bool {
        conn.ping().await.is_ok()
    }

    async fn replace(&self, conn: PgConnection) -> Result<PgConnection, String> {
        // The server ends the statement when it sees that its client is gone.
        drop(conn);
        self.connect().await
    }
}

async fn run(conn: &mut PgConnection, text: &str) -> Result<Rows, Failure> {
    let mut out = Collect::default();
    let mut kinds = Vec::new();
    let mut stream = sqlx::raw_sql(text).fetch_many(conn);
    while let Some(item) = stream.next().await {
        match item.map_err(failure)? {
            Either::Left(done) => out.done(done.rows_affected(), 0),
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
    Bool,
    Real,
    Time,
    Blob,
    Text,
}

fn kind(name: &str) -> Kind {
    match name {
        "INT2" | "INT4" | "INT8" | "OID" => Kind::Int,
        "BOOL" => Kind::Bool,
        "FLOAT4" | "FLOAT8" => Kind::Real,
        "TIMESTAMP" | "TIMESTAMPTZ" => Kind::Time,
        "BYTEA" => Kind::Blob,
        _ => Kind::Text,
    }
}

fn cell(row: &PgRow, i: usize, kind: Kind) -> DbValue {
    let Ok(Some(text)) = row.try_get_unchecked::<Option<&str>, _>(i) else { return DbValue::Null };
    let plain = || DbValue::Text(bytes::Bytes::copy_from_slice(text.as_bytes()));
    match kind {
        Kind::Int => text.parse().map_or_else(|_| plain(), DbValue::Int),
        Kind::Bool => DbValue::Int(i64::from(text == "t")),
        Kind::Real => text.parse().map_or_else(|_| plain(), DbValue::Real),
        Kind::Time => clock::from_sql(text).map_or_else(plain, DbValue::Time),
        Kind::Blob => match text.strip_prefix("\\x").map(hex::decode) {
            Some(Ok(bytes)) => DbValue::Blob(bytes.into()),
            _ => plain(),
        },
        Kind::Text => plain(),
    }
}

fn failure(error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(refused) = &error else { return Failure::Lost(error.to_string()) };
    let code = refused.code().unwrap_or_default().into_owned();
    // Class 57P is "operator intervention" (shutdown, restart), class 08 is about connections.
    if code.starts_with("57P") || code.starts_with("08") {
        return Failure::Lost(refused.message().to_string());
    }
    let message = refused.message().to_string();
    Failure::Refused(match is_passing(&code) {
        true => DbError::Unable { code, message },
        false => DbError::Refused { code, message },
    })
}

/// Read-only (a standby, a failover), rolled back for others' sake, out of resources, locked, trouble with files: no fault of
/// the statement.
fn is_passing(code: &str) -> bool {
    code == "25006" || ["40", "53", "55", "58"].iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests;
