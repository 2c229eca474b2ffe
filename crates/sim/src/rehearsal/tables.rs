//! Stand-ins for databases and key-value stores: every database of a script is one SQLite database in memory with the
//! standard tables, every store one map; rules of the scenario come first.

use super::plan::{QueryAnswer, Rule, Setup, StoreAnswer, Table, When};
use super::scene::{Scene, scene};
use super::yaml::Problem;
use bytes::Bytes;
use drivers::db_sqlite::Memory;
use host::Ctx;
use host::cachedb::{Cache, CacheError, Engine, Reply, Store};
use host::db::schema::{self, Type};
use host::db::{BatchFuture, Db, DbError, DbFuture, DbValue, Dialect, Driver, Name, Pool, Query, Rows};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use transaction::Instant;

/// Makes the standard tables and fills in what the scenario says.
pub fn fill(memory: &Memory, setup: &Setup) -> Result<(), Problem> {
    let run = |line: usize, text: String| {
        memory
            .run(&Query::raw(text.clone()))
            .map(drop)
            .map_err(|e| Problem::new(line, format!("{e}: {text}")))
    };
    for table in schema::tables() {
        for statement in table.create(Dialect::Sqlite) {
            run(0, statement)?;
        }
    }
    for table in schema::tables() {
        for statement in table.set_version() {
            run(0, statement)?;
        }
    }
    for (line, statement) in &setup.sql {
        run(*line, statement.clone())?;
    }
    setup.tables.iter().try_for_each(|table| fill_table(memory, table))
}

fn fill_table(memory: &Memory, table: &Table) -> Result<(), Problem> {
    let failed = |e: DbError| Problem::new(table.line, format!("table {}: {e}", table.name));
    let known = schema::table(&table.name);
    let there = memory.run(&Query::select(table.name.clone()).limit(1)).is_ok();
    if !there {
        let mut columns: Vec<&str> = Vec::new();
        for (column, _) in table.rows.iter().flatten() {
            if !columns.contains(&column.as_str()) {
                columns.push(column);
            }
        }
        if columns.is_empty() {
            return Err(Problem::new(
                table.line,
                format!("table {} has no columns: write a row", table.name),
            ));
        }
        let text = format!("create table {} ({})", table.name, columns.join(", "));
        memory.run(&Query::raw(text)).map_err(failed)?;
    }
    for row in &table.rows {
        let mut query = Query::insert(table.name.clone());
        for (column, value) in row {
            let value = value.clone().map_or(DbValue::Null, |text| DbValue::Text(text.into()));
            query = query.set(column.clone(), value);
        }
        // What a row must have and a scenario does not care about.
        let columns = known.map_or(&[][..], |table| &table.columns[..]);
        let needed = columns.iter().filter(|c| !c.nullable && c.default.is_none() && !c.kind.is_serial());
        for column in needed.filter(|c| row.iter().all(|(name, _)| name != c.name)) {
            let value = match column.kind {
                Type::Text(_) | Type::LongText | Type::Blob | Type::LongBlob => DbValue::Text(Bytes::new()),
                Type::Time => DbValue::Time(0),
                _ => DbValue::Int(0),
            };
            query = query.set(column.name, value);
        }
        memory.run(&query).map_err(failed)?;
    }
    Ok(())
}

/// A driver that answers from the scene; it has the name of the one that it stands in for.
pub struct StandIn(pub &'static str);

impl Driver for StandIn {
    fn module(&self) -> &'static str {
        self.0
    }

    fn pool(&self, _: &Db, _: &mut Ctx) -> Rc<dyn Pool> {
        Rc::new(StandInPool)
    }
}

struct StandInPool;

impl Pool for StandInPool {
    fn run(&self, query: Query) -> DbFuture {
        let Some(scene) = scene() else { return Box::pin(std::future::ready(Err(DbError::Busy))) };
        let text = shown(&query);
        let rule = scene.rule(&scene.setup.queries, &text).cloned();
        Box::pin(async move { answer(&scene, rule, &text, || scene.memory.run(&query)).await })
    }

    fn run_all(&self, queries: Vec<Query>) -> BatchFuture {
        let Some(scene) = scene() else { return Box::pin(std::future::ready(Err(DbError::Busy))) };
        Box::pin(async move {
            let mut all = Vec::new();
            for query in &queries {
                let text = shown(query);
                let rule = scene.rule(&scene.setup.queries, &text).cloned();
                all.push(answer(&scene, rule, &text, || scene.memory.run(query)).await?);
            }
            Ok(all)
        })
    }
}

/// The statement with its values, as rules see it.
fn shown(query: &Query) -> String {
    let text = host::db::literal(query, Dialect::Sqlite);
    text.unwrap_or_else(|_| String::from_utf8_lossy(&query.detail()).into_owned())
}

async fn answer(
    scene: &Scene,
    rule: Option<Rule<QueryAnswer>>,
    text: &str,
    tables: impl Fn() -> Result<Rows, DbError>,
) -> Result<Rows, DbError> {
    let answer = match rule {
        Some(rule) => {
            scene.wait(rule.when).await;
            rule.answer
        }
        // Also the fastest database does not answer at once.
        None => {
            scene.wait(When { after: 1, ..When::default() }).await;
            QueryAnswer::Tables
        }
    };
    let rows = match answer {
        QueryAnswer::Tables => tables(),
        QueryAnswer::Rows { columns, rows } => Ok(made(columns, rows)),
        QueryAnswer::Error(message) => Err(DbError::Refused { code: "test".into(), message }),
        QueryAnswer::Gone => Err(DbError::Down("the scenario says that it is gone".into())),
    };
    let told = match &rows {
        Ok(rows) if rows.columns().is_empty() => format!("{} changed", rows.affected),
        Ok(rows) => format!("{} row{}", rows.len(), if rows.len() == 1 { "" } else { "s" }),
        Err(error) => error.to_string(),
    };
    scene.say(format!("sql: {}: {told}", text.split_whitespace().collect::<Vec<_>>().join(" ")));
    rows
}

fn made(columns: Vec<String>, rows: Vec<Vec<Option<String>>>) -> Rows {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(columns.len());
    let names = (0..width).map(|at| Name::from(columns.get(at).cloned().unwrap_or(format!("column{at}"))));
    let cell = |text: Option<&Option<String>>| match text {
        Some(Some(text)) => match text.parse() {
            // As a server types a column of numbers; what has zeros before it is a text.
            Ok(number) if *text == i64::to_string(&number) => DbValue::Int(number),
            _ => DbValue::Text(text.clone().into()),
        },
        _ => DbValue::Null,
    };
    let cells = rows.iter().flat_map(|row| (0..width).map(move |at| cell(row.get(at))));
    Rows::new(names.collect(), cells.collect())
}

/// A store that answers from the scene.
pub struct StandInEngine(pub &'static str);

impl Engine for StandInEngine {
    fn module(&self) -> &'static str {
        self.0
    }

    fn connect(&self, _: &Cache, _: &mut Ctx) -> Rc<dyn Store> {
        let values = scene().map(|scene| scene.setup.stores.clone()).unwrap_or_default();
        let kept = values.into_iter().map(|(key, value)| (key.into(), Kept::Text(value.into())));
        Rc::new(Keys {
            kept: RefCell::new(kept.map(|(key, kept)| (key, (kept, 0))).collect()),
            now: Cell::new(0),
        })
    }
}

enum Kept {
    Text(Bytes),
    Map(BTreeMap<Bytes, Bytes>),
}

struct Keys {
    /// Values and when they go, Unix seconds; 0: never.
    kept: RefCell<BTreeMap<Bytes, (Kept, u64)>>,
    now: Cell<u64>,
}

impl Keys {
    /// Does it when the scene's time has come.
    fn later<T: 'static>(&self, key: &Bytes, what: &str, result: Result<T, CacheError>) -> Reply<T> {
        let Some(scene) = scene() else { return Reply::Now(result) };
        let key = String::from_utf8_lossy(key).into_owned();
        let rule = scene.rule(&scene.setup.stores_rule, &key).cloned();
        let gone = matches!(&rule, Some(Rule { answer: StoreAnswer::Gone, .. }));
        let result = if gone { Err(CacheError::Down("the scenario says so".into())) } else { result };
        let what = format!("store: {what} {key}");
        Reply::later(async move {
            scene.wait(rule.map_or(When { after: 1, ..When::default() }, |rule| rule.when)).await;
            scene.say(if result.is_ok() { what } else { format!("{what}: failed") });
            result
        })
    }

    fn live(&self) {
        let now = self.now.get();
        self.kept.borrow_mut().retain(|_, (_, until)| *until == 0 || *until > now);
    }

    fn until(&self, expires_s: u32) -> u64 {
        if expires_s == 0 { 0 } else { self.now.get() + u64::from(expires_s) }
    }

    fn number(&self, key: &Bytes) -> Result<Option<i64>, CacheError> {
        match self.kept.borrow().get(key) {
            None => Ok(None),
            Some((Kept::Text(text), _)) => {
                let number = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
                number.map(Some).ok_or(CacheError::NotANumber)
            }
            Some(_) => Err(CacheError::NotANumber),
        }
    }
}

impl Store for Keys {
    fn at(&self, _: Instant, unix_s: u64) {
        self.now.set(unix_s);
        self.live();
    }

    fn fetch(&self, key: Bytes) -> Reply<Option<Bytes>> {
        let found = match self.kept.borrow().get(&key) {
            Some((Kept::Text(text), _)) => Some(text.clone()),
            _ => None,
        };
        self.later(&key, "fetch", Ok(found))
    }

    fn store(&self, key: Bytes, value: Bytes, expires_s: u32) -> Reply<()> {
        let until = self.until(expires_s);
        self.kept.borrow_mut().insert(key.clone(), (Kept::Text(value), until));
        self.later(&key, "store", Ok(()))
    }

    fn remove(&self, key: Bytes) -> Reply<()> {
        self.kept.borrow_mut().remove(&key);
        self.later(&key, "remove", Ok(()))
    }

    fn add(&self, key: Bytes, by: i64, expires_s: u32) -> Reply<i64> {
        let sum = self.number(&key).map(|found| found.unwrap_or(0).wrapping_add(by));
        if let Ok(sum) = sum {
            let until = self.until(expires_s);
            self.kept.borrow_mut().insert(key.clone(), (Kept::Text(sum.to_string().into()), until));
        }
        self.later(&key, "add", sum)
    }

    fn counter(&self, key: Bytes) -> Reply<Option<i64>> {
        let found = self.number(&key);
        self.later(&key, "counter", found)
    }

    fn map_get(&self, key: Bytes) -> Reply<Vec<(Bytes, Bytes)>> {
        let fields = match self.kept.borrow().get(&key) {
            Some((Kept::Map(map), _)) => {
                map.iter().map(|(field, value)| (field.clone(), value.clone())).collect()
            }
            _ => Vec::new(),
        };
        self.later(&key, "map of", Ok(fields))
    }

    fn map_change(
        &self,
        key: Bytes,
        set: Vec<(Bytes, Bytes)>,
        unset: Vec<Bytes>,
        expires_s: u32,
    ) -> Reply<()> {
        let until = self.until(expires_s);
        let mut all = self.kept.borrow_mut();
        let entry = all.entry(key.clone()).or_insert_with(|| (Kept::Map(BTreeMap::new()), until));
        if let Kept::Map(map) = &mut entry.0 {
            map.extend(set);
            unset.iter().for_each(|field| drop(map.remove(field)));
            entry.1 = entry.1.max(until);
            if map.is_empty() {
                all.remove(&key);
            }
        }
        drop(all);
        self.later(&key, "change of", Ok(()))
    }
}

/// Every store of a script but those inside the server itself.
pub fn engine(module: &'static str) -> Option<Arc<dyn Engine>> {
    let outside = !matches!(module, "cachedb_local" | "cachedb_sql");
    outside.then(|| Arc::new(StandInEngine(module)) as Arc<dyn Engine>)
}
