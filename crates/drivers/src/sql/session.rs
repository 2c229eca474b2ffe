//! One connection for tools: no pool, no worker.

#[cfg(any(feature = "mysql", feature = "postgres"))]
use super::{Backend, Failure};
#[cfg(feature = "mysql")]
use crate::db_mysql;
#[cfg(feature = "postgres")]
use crate::db_postgres;
use crate::db_sqlite;
use host::db::{DbError, DbUrl, Dialect, Query, Rows};

/// A connection to any of the three kinds of databases.
pub struct Session(Kind);

enum Kind {
    #[cfg(feature = "mysql")]
    MySql(db_mysql::MySql, <db_mysql::MySql as Backend>::Conn),
    #[cfg(feature = "postgres")]
    Postgres(db_postgres::Postgres, <db_postgres::Postgres as Backend>::Conn),
    Sqlite(db_sqlite::File),
}

/// The dialect of a URL; the error is what a user should read.
pub fn dialect_of(url: &DbUrl) -> Result<Dialect, String> {
    match &*url.scheme {
        "mysql" => Ok(Dialect::MySql),
        "postgres" => Ok(Dialect::Postgres),
        "sqlite" if url.database.is_empty() => Err("the path of the file is missing".to_string()),
        "sqlite" => Ok(Dialect::Sqlite),
        other => Err(format!("no tables can be made in {other}:// (mysql, postgres and sqlite can)")),
    }
}

impl Session {
    /// Connects, and makes the database when the server says that there is none. True: it was made.
    pub async fn open(url: &DbUrl) -> Result<(Session, bool), String> {
        match Session::connect(url).await {
            Err(why) if missing(&why) => {
                let mut server =
                    Session::connect(&DbUrl { database: server_database(url), ..url.clone() }).await?;
                let create = format!("CREATE DATABASE {}", quoted(url));
                server.run(&create).await.map_err(|e| format!("{}: {e}", url.database))?;
                Ok((Session::connect(url).await?, true))
            }
            other => other.map(|session| (session, false)),
        }
    }

    /// Connects to a database that is there.
    pub async fn connect(url: &DbUrl) -> Result<Session, String> {
        Ok(Session(match dialect_of(url)? {
            #[cfg(feature = "mysql")]
            Dialect::MySql => {
                let backend = db_mysql::MySql::for_tools(url)?;
                let conn = backend.connect().await?;
                #[cfg(feature = "mysql")]
                Kind::MySql(backend, conn)
            }
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let backend = db_postgres::Postgres::for_tools(url)?;
                let conn = backend.connect().await?;
                #[cfg(feature = "postgres")]
                Kind::Postgres(backend, conn)
            }
            Dialect::Sqlite => Kind::Sqlite(db_sqlite::File::for_tools(url)),
            #[cfg(not(all(feature = "mysql", feature = "postgres")))]
            _ => return Err(format!("this program was built without {}", url.scheme)),
        }))
    }

    pub async fn run(&mut self, text: &str) -> Result<Rows, DbError> {
        match &mut self.0 {
            #[cfg(feature = "mysql")]
            Kind::MySql(backend, conn) => backend.run(conn, text).await.map_err(told),
            #[cfg(feature = "postgres")]
            Kind::Postgres(backend, conn) => backend.run(conn, text).await.map_err(told),
            Kind::Sqlite(file) => file.run(Query::raw(text.to_string())).await,
        }
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
fn told(failure: Failure) -> DbError {
    match failure {
        Failure::Lost(why) => DbError::Down(why),
        Failure::Refused(error) => error,
    }
}

/// The server is there, the database is not.
fn missing(why: &str) -> bool {
    why.contains("Unknown database") || (why.contains("database \"") && why.contains("does not exist"))
}

/// Where to be while the database does not exist.
fn server_database(url: &DbUrl) -> String {
    if url.scheme == "postgres" { "postgres".to_string() } else { String::new() }
}

fn quoted(url: &DbUrl) -> String {
    match &*url.scheme {
        "postgres" => format!("\"{}\"", url.database.replace('"', "\"\"")),
        _ => format!("`{}`", url.database.replace('`', "``")),
    }
}
