//! `fermata db`: makes the standard tables and brings old ones up to date.

use crate::cli::DbCommand;
use drivers::{Session, dialect_of};
use host::db::schema::{self, Table};
use host::db::{DbError, DbUrl, Dialect, Rows};
use std::process::ExitCode;

/// Something a user should read; the command ends.
struct Failed(String);

impl From<String> for Failed {
    fn from(text: String) -> Failed {
        Failed(text)
    }
}

pub fn run(command: &DbCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, act(command)),
        Err(error) => Err(Failed(error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(text)) => {
            eprintln!("fermata: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn act(command: &DbCommand) -> Result<(), Failed> {
    match command {
        DbCommand::Create { url, tables, print } => {
            let url = DbUrl::parse(url)?;
            let tables = chosen(tables)?;
            match print {
                true => print_tables(dialect_of(&url)?, &tables),
                false => create(&mut Database::open(&url, If::Missing).await?, &tables).await?,
            }
        }
        DbCommand::Migrate { url, tables, dry_run } => {
            let url = DbUrl::parse(url)?;
            let all: Vec<&Table> = schema::tables().iter().collect();
            let tables = if tables.is_empty() { all } else { chosen(tables)? };
            let mut db = Database::open(&url, If::Present).await?;
            migrate(&mut db, &tables, *dry_run).await?;
        }
        DbCommand::Tables => list(),
    }
    Ok(())
}

/// Makes an SQLite file with the standard tables, for the built-in configuration; false: it is there.
pub fn make_file(path: &str) -> Result<bool, String> {
    if std::path::Path::new(path).exists() {
        return Ok(false);
    }
    let make = async {
        let url = DbUrl::parse(&format!("sqlite://{path}"))?;
        let mut db = Database::open(&url, If::Missing).await?;
        for table in chosen(&[])? {
            db.all(&making(table, db.dialect)).await?;
        }
        Ok::<(), Failed>(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let made = tokio::task::LocalSet::new().block_on(&runtime, make);
    made.map(|()| true).map_err(|Failed(text)| format!("cannot make {path}: {text}"))
}

/// Tables by their own names or those of modules; none: the standard ones. `version` is always there.
fn chosen(names: &[String]) -> Result<Vec<&'static Table>, String> {
    let tables = schema::tables();
    if names.is_empty() {
        return Ok(tables.iter().filter(|table| table.standard).collect());
    }
    for name in names.iter().filter(|name| *name != "all") {
        if !tables.iter().any(|table| table.name == name || table.module == name) {
            let known = tables.iter().flat_map(|table| [table.name, table.module]);
            return Err(match script::nearest(name, known) {
                Some(near) => format!("there is no table or module `{name}`; did you mean `{near}`?"),
                None => format!("there is no table or module `{name}`; `fermata db tables` lists them"),
            });
        }
    }
    let wanted =
        |table: &&Table| names.iter().any(|name| name == "all" || table.name == name || table.module == name);
    Ok(tables.iter().filter(|table| table.name == "version" || wanted(table)).collect())
}

fn list() {
    let mut module = "";
    for table in schema::tables() {
        if table.module != module {
            module = table.module;
            println!("{module}{}", if table.standard { "" } else { "   (only when named)" });
        }
        println!("  {:<26} version {:<5} {} columns", table.name, table.version, table.columns.len());
    }
}

fn print_tables(dialect: Dialect, tables: &[&Table]) {
    for table in tables {
        for statement in making(table, dialect) {
            println!("{statement};");
        }
        println!();
    }
}

/// The statements that make a table and note its version.
fn making(table: &Table, dialect: Dialect) -> Vec<String> {
    let mut statements = table.create(dialect);
    if table.name != "version" {
        statements.extend(table.set_version());
    }
    statements
}

#[derive(Clone, Copy, PartialEq)]
enum If {
    /// A database that is not there is made.
    Missing,
    /// It has to be there.
    Present,
}

/// An open database.
struct Database {
    session: Session,
    dialect: Dialect,
    tables: Vec<String>,
}

impl Database {
    async fn open(url: &DbUrl, when: If) -> Result<Database, Failed> {
        let dialect = dialect_of(url)?;
        if when == If::Present && dialect == Dialect::Sqlite && !std::path::Path::new(&url.database).exists()
        {
            return Err(Failed(format!("{url}: there is no such file")));
        }
        let (session, made) = Session::open(url).await.map_err(|why| format!("{url}: {why}"))?;
        if made {
            println!("made    database {}", url.database);
        }
        let mut db = Database { session, dialect, tables: Vec::new() };
        let query = match dialect {
            Dialect::Sqlite => "select name from sqlite_master where type in ('table', 'view')",
            Dialect::MySql => {
                "select table_name from information_schema.tables where table_schema=database()"
            }
            Dialect::Postgres => {
                "select table_name from information_schema.tables where table_schema=current_schema()"
            }
        };
        db.tables = db.texts(query, 0).await.map_err(|e| format!("{url}: {e}"))?;
        Ok(db)
    }

    async fn query(&mut self, text: &str) -> Result<Rows, DbError> {
        self.session.run(text).await
    }

    async fn texts(&mut self, query: &str, column: usize) -> Result<Vec<String>, DbError> {
        let rows = self.query(query).await?;
        Ok(rows.iter().map(|row| row.string(column).to_ascii_lowercase()).collect())
    }

    fn has(&self, table: &Table) -> bool {
        self.tables.iter().any(|name| name == table.name)
    }

    /// Statements that belong together. Servers that can take back a CREATE do so when one fails.
    async fn all(&mut self, statements: &[String]) -> Result<(), Failed> {
        self.query("begin").await.map_err(|e| e.to_string())?;
        for statement in statements {
            if let Err(error) = self.query(statement).await {
                let _ = self.query("rollback").await;
                return Err(Failed(format!("{error}, in:\n{statement}")));
            }
        }
        self.query("commit").await.map_err(|e| e.to_string())?;
        Ok(())
    }

    async fn columns(&mut self, table: &Table) -> Result<Vec<String>, Failed> {
        let name = table.name;
        let (query, column) = match self.dialect {
            Dialect::Sqlite => (format!("pragma table_info({name})"), 1),
            Dialect::MySql => (
                format!(
                    "select column_name from information_schema.columns where table_schema=database() and \
                     table_name='{name}'"
                ),
                0,
            ),
            Dialect::Postgres => (
                format!(
                    "select column_name from information_schema.columns where table_schema=current_schema() \
                     and table_name='{name}'"
                ),
                0,
            ),
        };
        self.texts(&query, column).await.map_err(|e| Failed(e.to_string()))
    }

    /// What the table `version` says; 0: nothing.
    async fn version(&mut self, table: &Table) -> i64 {
        let query = format!("select table_version from version where table_name='{}'", table.name);
        let rows = self.query(&query).await;
        rows.ok().and_then(|rows| rows.first()?.int(0)).unwrap_or(0)
    }
}

async fn create(db: &mut Database, tables: &[&Table]) -> Result<(), Failed> {
    let (mut made, mut kept) = (0, 0);
    for table in tables {
        if db.has(table) {
            kept += 1;
            println!("kept    {} (it is there)", table.name);
            continue;
        }
        db.all(&making(table, db.dialect)).await?;
        made += 1;
        println!("made    {} (version {}, {} columns)", table.name, table.version, table.columns.len());
    }
    println!("{made} tables made, {kept} kept as they are");
    Ok(())
}

/// Adds what tables lack. Nothing is dropped, renamed or narrowed.
async fn migrate(db: &mut Database, tables: &[&Table], dry_run: bool) -> Result<(), Failed> {
    let (mut changed, mut current) = (0, 0);
    for table in tables {
        if !db.has(table) {
            continue;
        }
        let columns = db.columns(table).await?;
        let version = db.version(table).await;
        let wanted = table.columns.iter();
        let missing: Vec<_> =
            wanted.filter(|c| !columns.iter().any(|n| n.eq_ignore_ascii_case(c.name))).collect();
        if let Some(serial) = missing.iter().find(|column| column.kind.is_serial()) {
            return Err(Failed(format!(
                "{} has no column {}, which numbers its rows: this is no table of OpenSIPS, or one from \
                 before 1.x; rename it and let `fermata db create` make a new one",
                table.name, serial.name
            )));
        }
        let mut statements: Vec<String> = missing.iter().map(|c| table.add(c, db.dialect)).collect();
        let newer = version > i64::from(table.version);
        if newer {
            println!(
                "kept    version {version} of {}: it is newer than {}, which this program knows",
                table.name, table.version
            );
        } else if version != i64::from(table.version) && table.name != "version" {
            statements.extend(table.set_version());
        }
        if statements.is_empty() {
            current += 1;
            continue;
        }
        changed += 1;
        let names: Vec<&str> = missing.iter().map(|column| column.name).collect();
        let added = if names.is_empty() { "no new columns".to_string() } else { names.join(", ") };
        let now = if newer { version } else { table.version.into() };
        println!("changed {} (version {version} to {now}): {added}", table.name);
        match dry_run {
            true => statements.iter().for_each(|statement| println!("        {statement};")),
            false => db.all(&statements).await?,
        }
    }
    let would = if dry_run { " to be changed" } else { " changed" };
    println!("{changed} tables{would}, {current} up to date");
    if changed + current == 0 {
        return Err(Failed(
            "this database has none of the tables; `fermata db create` makes them".to_string(),
        ));
    }
    Ok(())
}
