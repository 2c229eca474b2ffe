use super::*;
use host::db::{DbValue, Op, Rows};
use std::future::Future;

/// A file of its own, removed at the end.
struct Temp(std::path::PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let path = std::env::temp_dir().join(format!("fermata-{name}-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Temp(path)
    }

    fn open(&self, settings: Settings) -> Handle {
        Handle::start(&self.0.to_string_lossy(), Arc::new(settings), &Stats::default())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

async fn run(handle: &Handle, query: Query) -> Result<Rows, DbError> {
    handle.run(vec![query]).await.map(|mut all| all.remove(0))
}

const TABLE: &str =
    "create table t (id integer primary key, name varchar(20) unique, x double, seen datetime, b blob)";

/// A file that takes the place of the open one is read from then on; one that is only gone is not missed.
#[test]
fn a_file_that_was_replaced_is_opened() {
    let (temp, other) = (Temp::new("replaced"), Temp::new("replacement"));
    let handle = temp.open(Settings::default());
    let count = || async {
        let rows = run(&handle, Query::raw("select count(*) from t")).await.expect("selects");
        rows.first().and_then(|row| row.int(0))
    };
    wait(async {
        run(&handle, Query::raw(TABLE)).await.expect("creates");
        assert_eq!(count().await, Some(0));
        let second = other.open(Settings::default());
        for text in [TABLE, "insert into t (name) values ('a')"] {
            run(&second, Query::raw(text)).await.expect("the other file");
        }
        std::fs::rename(&other.0, &temp.0).expect("moves");
        assert_eq!(count().await, Some(1));
        std::fs::remove_file(&temp.0).expect("removes");
        assert_eq!(count().await, Some(1));
    });
}

#[test]
fn what_is_written_is_read() {
    let temp = Temp::new("written");
    let handle = temp.open(Settings::default());
    wait(async {
        run(&handle, Query::raw(TABLE)).await.expect("creates");
        let insert = Query::insert("t")
            .set("name", "O'Hara; drop table t")
            .set("x", DbValue::Real(1.5))
            .set("seen", DbValue::Time(86_400))
            .set("b", DbValue::Blob(bytes::Bytes::from_static(b"\0\xff")));
        let done = run(&handle, insert).await.expect("inserts");
        assert_eq!((done.affected, done.insert_id, done.is_empty()), (1, 1, true));
        let rows =
            run(&handle, Query::select("t").eq("name", "O'Hara; drop table t")).await.expect("selects");
        let row = rows.first().expect("a row");
        let expected = [
            DbValue::Int(1),
            "O'Hara; drop table t".into(),
            DbValue::Real(1.5),
            DbValue::Time(86_400),
            DbValue::Blob(bytes::Bytes::from_static(b"\0\xff")),
        ];
        assert_eq!(row.cells, expected);
        assert_eq!(row.named("NAME"), row.at(1));
        let none = run(&handle, Query::select("t").filter("id", Op::Gt, 5)).await.expect("selects");
        assert_eq!((none.is_empty(), none.columns().len()), (true, 5));
        let upsert = Query::upsert("t").eq("name", "O'Hara; drop table t").set("x", 7);
        assert_eq!(run(&handle, upsert).await.expect("upserts").affected, 1);
        let matched =
            run(&handle, Query::raw("select x from t where name regexp '^O.H'")).await.expect("matches");
        assert_eq!(matched.first().expect("a row").real(0), Some(7.0));
    });
}

#[test]
fn errors_name_what_is_wrong() {
    let temp = Temp::new("errors");
    let handle = temp.open(Settings::default());
    wait(async {
        let error = run(&handle, Query::select("absent")).await.expect_err("no table");
        assert!(
            matches!(&error, DbError::Refused { message, .. } if message.contains("no such table")),
            "{error}"
        );
        let nowhere = Handle::start("/nowhere/at/all.db", Arc::new(Settings::default()), &Stats::default());
        let error = run(&nowhere, Query::raw("select 1")).await.expect_err("no file");
        assert!(matches!(error, DbError::Down(_)), "{error}");
    });
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let temp = Temp::new("transaction");
    let handle = temp.open(Settings::default());
    let insert = |name: &'static str| Query::insert("t").set("name", name);
    wait(async {
        run(&handle, Query::raw(TABLE)).await.expect("creates");
        handle.run(vec![insert("a"), insert("a")]).await.expect_err("the name is taken");
        assert_eq!(run(&handle, Query::select("t")).await.expect("selects").len(), 0);
        assert_eq!(handle.run(vec![insert("a"), insert("b")]).await.expect("inserts").len(), 2);
    });
}

#[test]
fn writes_that_come_together_stand_for_themselves() {
    let temp = Temp::new("group");
    let handle = temp.open(Settings::default());
    wait(async {
        run(&handle, Query::raw(TABLE)).await.expect("creates");
        let names = (0..100).map(|i| Query::insert("t").set("name", format!("n{}", i % 60)));
        let all = futures_util::future::join_all(names.map(|q| run(&handle, q))).await;
        assert_eq!(all.iter().filter(|r| r.is_ok()).count(), 60);
        assert_eq!(run(&handle, Query::select("t")).await.expect("selects").len(), 60);
    });
}

#[test]
fn a_dropped_query_stops_and_the_next_one_runs() {
    let temp = Temp::new("dropped");
    let handle = temp.open(Settings::default());
    let forever = "with recursive n(i) as (select 1 union all select i+1 from n) select count(*) from n";
    wait(async {
        run(&handle, Query::raw("select 1")).await.expect("opens");
        let mut endless = Box::pin(run(&handle, Query::raw(forever)));
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(endless.as_mut().poll(cx).is_pending()));
        assert!(first.await);
        drop(endless);
        run(&handle, Query::raw("select 1")).await.expect("the thread is free again");
    });
}

#[test]
fn pragmas_are_set() {
    let temp = Temp::new("pragma");
    let settings =
        Settings { pragmas: vec!["cache_size=-123".into(), "nonsense".into()], ..Settings::default() };
    let handle = temp.open(settings);
    let rows = wait(run(&handle, Query::raw("pragma cache_size"))).expect("reads");
    assert_eq!(rows.first().expect("a row").int(0), Some(-123));
}
