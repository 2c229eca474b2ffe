//! What every driver does with a real server; the drivers' tests call it.

use super::server::Server;
use super::{Backend, Limits, SqlPool};
use host::db::{Db, DbError, DbFuture, DbValue, Driver, Pool, Query, Rows};
use host::stats::Stats;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

pub fn drive(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Where the two kinds of server differ.
pub struct Words {
    pub create: &'static str,
    /// Takes much longer than any test.
    pub sleep: &'static str,
    /// Counts those that run.
    pub sleeping: &'static str,
}

pub struct Bench<B: Backend> {
    pub pool: SqlPool<B>,
}

impl<B: Backend> Bench<B> {
    pub fn new(url: &str, driver: Arc<dyn Driver>, backend: B) -> Bench<B> {
        let db = Db::new(host::db::DbUrl::parse(url).expect("a URL"), driver);
        let limits = Limits { own: 3, resting: usize::MAX, total: 100, queue: 100, slow_us: 0 };
        Bench { pool: SqlPool::new(&db, backend, limits, &Stats::default()) }
    }

    pub fn run(&self, query: impl Into<Query>) -> DbFuture {
        self.pool.run(query.into())
    }

    /// Asks until the answer is `wanted`; servers start and notice things in their own time.
    async fn until(&self, text: &'static str, wanted: impl Fn(&Result<Rows, DbError>) -> bool) {
        let asking = async {
            while !wanted(&self.run(Query::raw(text)).await) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), asking).await.expect(text);
    }
}

/// Every standard table can be made, and its columns are there.
pub async fn tables<B: Backend>(b: &Bench<B>) {
    for table in host::db::schema::tables() {
        for statement in table.create(B::DIALECT) {
            let made = b.run(Query::raw(statement.clone())).await;
            made.unwrap_or_else(|error| panic!("{error}: {statement}"));
        }
        let columns = table.columns.iter().map(|column| column.name);
        let rows = b.run(Query::select(table.name).columns(columns)).await;
        assert!(rows.unwrap_or_else(|error| panic!("{}: {error}", table.name)).is_empty());
    }
}

fn number(rows: &Rows) -> Option<i64> {
    rows.first().and_then(|row| row.int(0))
}

pub async fn check<B: Backend>(b: &Bench<B>, server: &mut Server, words: &Words) {
    b.until("select 1", |r| r.is_ok()).await;
    b.run(Query::raw(words.create)).await.expect("creates");
    let text = "O'Hara \\ \"x\"; drop table t -- ";
    let row = [
        ("name", DbValue::from(text)),
        ("n", DbValue::Int(-5)),
        ("x", DbValue::Real(1.5)),
        ("seen", DbValue::Time(1_216_662_063)),
        ("b", DbValue::Blob(bytes::Bytes::from_static(b"\0'\\\xff"))),
        ("nothing", DbValue::Null),
    ];
    let insert = row.iter().fold(Query::insert("t"), |q, (column, value)| q.set(*column, value.clone()));
    assert_eq!(b.run(insert).await.expect("inserts").affected, 1);
    let columns = row.iter().map(|(column, _)| *column);
    let rows = b.run(Query::select("t").columns(columns).eq("name", text)).await.expect("selects");
    let expected: Vec<DbValue> = row.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(rows.first().expect("a row").cells, expected);
    let upsert = Query::upsert("t").eq("name", text).set("n", 6);
    b.run(upsert).await.expect("upserts");
    assert_eq!(number(&b.run(Query::select("t").column("n")).await.expect("selects")), Some(6));
    assert!(b.run(Query::select("t").eq("n", 7)).await.expect("selects").is_empty());

    let error = b.run(Query::raw("select * from absent")).await.expect_err("no such table");
    assert!(matches!(&error, DbError::Refused { .. }), "{error}");
    let both = vec![Query::insert("t").set("name", "z"), Query::insert("t").set("name", "z")];
    b.pool.run_all(both).await.expect_err("the key is taken");
    assert_eq!(number(&b.run(Query::raw("select count(*) from t")).await.expect("counts")), Some(1));
    dropped_statements_end(b, words).await;
    outage(b, server).await;
}

async fn dropped_statements_end<B: Backend>(b: &Bench<B>, words: &Words) {
    let endless: Vec<_> = (0..5).map(|_| tokio::task::spawn_local(b.run(Query::raw(words.sleep)))).collect();
    // All three connections are taken: nothing else gets in until a sleeper is dropped.
    sleep(Duration::from_millis(50)).await;
    for task in endless {
        task.abort();
    }
    b.until(words.sleeping, |r| r.as_ref().is_ok_and(|rows| number(rows) == Some(0))).await;
}

async fn outage<B: Backend>(b: &Bench<B>, server: &mut Server) {
    b.run(Query::raw("select 1")).await.expect("a connection rests");
    server.stop();
    let error = b.run(Query::raw("select 1")).await.expect_err("it is gone");
    assert!(matches!(error, DbError::Down(_)), "{error}");
    server.start();
    b.until("select 1", |r| r.is_ok()).await;
    server.stop();
    server.start();
    // Its connection is dead and the server not quite there: no answer is wrong, and it comes back.
    b.until("select count(*) from t", |r| r.as_ref().is_ok_and(|rows| number(rows) == Some(1))).await;
}

/// A server that takes connections and says nothing.
pub async fn silent<B: Backend>(make: impl Fn(u16) -> Bench<B>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let b = make(listener.local_addr().expect("an address").port());
    let first = tokio::task::spawn_local(b.run(Query::raw("select 1")));
    let error = b.run(Query::raw("select 1")).await.expect_err("no answer");
    assert_eq!(error, DbError::Down("no answer within 1 s".to_string()));
    assert!(first.await.expect("runs").is_err());
}
