//! The pool against a server that does what a test says, on a clock that jumps.
#![expect(clippy::disallowed_methods, reason = "the paused clock of tokio")]

use super::{Backend, Failure, Limits, SqlPool};
use host::db::{Db, DbError, DbFuture, DbUrl, Dialect, Driver, Pool, Query, Rows};
use host::stats::Stats;
use std::cell::RefCell;
use std::future::{Future, pending};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Fine,
    Refuses,
    /// Swallows everything (a firewall that drops).
    Blackhole,
}

struct World {
    mood: Mood,
    /// Connections made before this number are dead.
    alive_from: usize,
    made: usize,
    most: usize,
    log: Vec<String>,
    go: Rc<Notify>,
}

#[derive(Clone)]
struct Server(Rc<RefCell<World>>);

impl Server {
    fn new(mood: Mood) -> Server {
        let world = World { mood, alive_from: 0, made: 0, most: 100, log: Vec::new(), go: Rc::default() };
        Server(Rc::new(RefCell::new(world)))
    }
    fn restart(&self) {
        let mut world = self.0.borrow_mut();
        world.alive_from = world.made;
    }
    fn log(&self) -> Vec<String> {
        self.0.borrow().log.clone()
    }
}

impl Backend for Server {
    type Conn = usize;
    const MODULE: &'static str = "db_test";
    const DIALECT: Dialect = Dialect::MySql;

    async fn connect(&self) -> Result<usize, String> {
        tokio::task::yield_now().await;
        let mood = self.0.borrow().mood;
        match mood {
            Mood::Refuses => Err("connection refused".to_string()),
            Mood::Blackhole => {
                let _ = timeout(Duration::from_secs(2), pending::<()>()).await;
                Err("timed out".to_string())
            }
            Mood::Fine => {
                let mut world = self.0.borrow_mut();
                if world.made - world.alive_from >= world.most {
                    return Err("too many connections".to_string());
                }
                world.made += 1;
                Ok(world.made - 1)
            }
        }
    }

    async fn run(&self, conn: &mut usize, text: &str) -> Result<Rows, Failure> {
        tokio::task::yield_now().await;
        self.0.borrow_mut().log.push(format!("{conn}:{text}"));
        if *conn < self.0.borrow().alive_from {
            return Err(Failure::Lost("broken pipe".to_string()));
        }
        let go = self.0.borrow().go.clone();
        match text {
            "select wait" => go.notified().await,
            "select forever" => pending().await,
            "bad" => {
                let error = DbError::Refused { code: "1064".into(), message: "syntax".into() };
                return Err(Failure::Refused(error));
            }
            _ => {}
        }
        Ok(Rows::new(vec!["conn".into()], vec![(*conn as i64).into()]))
    }

    async fn ping(&self, conn: &mut usize) -> bool {
        let stuck = self.0.borrow().log.last().is_some_and(|l| l == &format!("{conn}:select forever"));
        if stuck {
            pending::<()>().await;
        }
        *conn >= self.0.borrow().alive_from
    }

    async fn replace(&self, conn: usize) -> Result<usize, String> {
        self.0.borrow_mut().log.push(format!("{conn}:killed"));
        self.connect().await
    }
}

struct NoDriver;
impl Driver for NoDriver {
    fn module(&self) -> &'static str {
        "db_test"
    }
    fn pool(&self, _: &Db, _: &mut host::Ctx) -> Rc<dyn Pool> {
        unreachable!("the tests make their pools")
    }
}

struct Bench {
    server: Server,
    pool: SqlPool<Server>,
    db: Db,
    stats: Stats,
}

fn bench(mood: Mood, own: usize, queue: usize) -> Bench {
    bench_that_keeps(mood, own, usize::MAX, queue)
}

fn bench_that_keeps(mood: Mood, own: usize, resting: usize, queue: usize) -> Bench {
    let server = Server::new(mood);
    let db = Db::new(DbUrl::parse("test://h/d").expect("a URL"), Arc::new(NoDriver));
    let stats = Stats::default();
    let limits = Limits { own, resting, total: 100, queue, slow_us: 0 };
    Bench { pool: SqlPool::new(&db, server.clone(), limits, &stats), server, db, stats }
}

fn drive(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

impl Bench {
    fn run(&self, text: &'static str) -> DbFuture {
        self.pool.run(Query::raw(text))
    }
    /// Started and left running.
    fn start(&self, text: &'static str) -> tokio::task::JoinHandle<Result<Rows, DbError>> {
        tokio::task::spawn_local(self.run(text))
    }
    fn conn(result: Result<Rows, DbError>) -> i64 {
        result.expect("an answer").first().and_then(|r| r.int(0)).expect("a number")
    }
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn nothing_connects_before_a_query_and_one_connection_serves_many() {
    drive(async {
        let b = bench(Mood::Fine, 10, 10);
        let future = b.run("select 1");
        settle().await;
        assert_eq!((b.pool.open(), b.server.log().len()), ((0, 0), 0));
        assert_eq!(Bench::conn(future.await), 0);
        assert_eq!(Bench::conn(b.run("select 2").await), 0);
        assert_eq!(b.pool.open(), (1, 1));
    });
}

#[test]
fn the_pool_grows_to_its_limit_then_queries_wait_in_order_then_are_refused() {
    drive(async {
        let b = bench(Mood::Fine, 2, 2);
        Bench::conn(b.run("select 1").await);
        let first: Vec<_> = (0..4).map(|_| b.start("select wait")).collect();
        settle().await;
        assert_eq!(b.pool.open(), (2, 0));
        assert_eq!(b.run("select 1").await, Err(DbError::Busy));
        assert_eq!(b.stats.value("db_queue_full"), Some(1));
        let go = b.server.0.borrow().go.clone();
        for task in first {
            go.notify_one();
            task.await.expect("runs").expect("answers");
        }
        assert_eq!(b.pool.open(), (2, 2));
        assert_eq!(b.db.connections().load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_pool_that_grew_with_need_shrinks_when_the_need_is_over() {
    drive(async {
        let b = bench_that_keeps(Mood::Fine, 50, 3, 1000);
        let all: Vec<_> = (0..100).map(|_| b.start("select wait")).collect();
        settle().await;
        assert_eq!(b.pool.open(), (50, 0), "as many as may be, at once");
        let go = b.server.0.borrow().go.clone();
        for task in all {
            go.notify_one();
            task.await.expect("runs").expect("answers");
        }
        assert_eq!(b.pool.open(), (50, 50));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(b.pool.open(), (3, 3));
        assert_eq!(b.db.connections().load(Ordering::Relaxed), 3);
        Bench::conn(b.run("select 1").await);
    });
}

#[test]
fn a_dropped_query_frees_its_place_and_its_connection() {
    drive(async {
        let b = bench(Mood::Fine, 1, 10);
        Bench::conn(b.run("select 1").await);
        let running = b.start("select wait");
        let waiting = b.start("select wait");
        let last = b.start("select 1");
        settle().await;
        waiting.abort();
        running.abort();
        // The connection settles (its statement could be ended), then serves the one that waited.
        assert_eq!(Bench::conn(last.await.expect("runs")), 0);
        let stuck = b.start("select forever");
        settle().await;
        stuck.abort();
        // That statement does not end: its connection is closed under it.
        assert_eq!(Bench::conn(b.run("select 1").await), 1);
        settle().await;
        assert!(b.server.log().contains(&"0:killed".to_string()));
        assert_eq!(b.db.connections().load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_read_lost_with_its_connection_is_sent_again_and_a_write_is_not_lost() {
    drive(async {
        let b = bench(Mood::Fine, 2, 10);
        Bench::conn(b.run("select 1").await);
        b.server.restart();
        assert_eq!(Bench::conn(b.run("select 1").await), 1);
        b.server.restart();
        // In flight when the server goes: nobody knows whether it was done.
        assert!(matches!(b.run("update t").await, Err(DbError::Down(_))));
        Bench::conn(b.run("select 1").await);
        b.server.restart();
        tokio::time::advance(Duration::from_secs(5)).await;
        // Rested for long: asked first, so it reaches a living connection.
        Bench::conn(b.run("update t").await);
        let writes = b.server.log().iter().filter(|l| l.ends_with("update t")).count();
        assert_eq!(writes, 2);
    });
}

#[test]
fn while_the_server_is_down_queries_fail_at_once_and_it_comes_back() {
    drive(async {
        let b = bench(Mood::Refuses, 5, 10);
        let all: Vec<_> = (0..5).map(|_| b.start("select 1")).collect();
        for task in all {
            assert!(matches!(task.await.expect("runs"), Err(DbError::Down(_))));
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let before = Instant::now();
        assert!(matches!(b.run("select 1").await, Err(DbError::Down(_))));
        assert_eq!(before.elapsed(), Duration::ZERO);
        b.server.0.borrow_mut().mood = Mood::Fine;
        tokio::time::sleep(Duration::from_secs(3)).await;
        Bench::conn(b.run("select 1").await);
        assert_eq!(b.db.connections().load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_blackholed_server_costs_one_connection_timeout() {
    drive(async {
        let b = bench(Mood::Blackhole, 5, 10);
        let before = Instant::now();
        let all: Vec<_> = (0..5).map(|_| b.start("select 1")).collect();
        for task in all {
            assert!(matches!(task.await.expect("runs"), Err(DbError::Down(_))));
        }
        assert_eq!(before.elapsed().as_secs(), 2);
        assert!(matches!(b.run("select 1").await, Err(DbError::Down(_))));
        assert_eq!(before.elapsed().as_secs(), 2);
    });
}

#[test]
fn a_server_that_gives_no_more_connections_is_not_down() {
    drive(async {
        let b = bench(Mood::Fine, 5, 10);
        b.server.0.borrow_mut().most = 1;
        Bench::conn(b.run("select 1").await);
        let all: Vec<_> = (0..5).map(|_| b.start("select 1")).collect();
        for task in all {
            assert_eq!(Bench::conn(task.await.expect("runs")), 0);
        }
    });
}

#[test]
fn all_connections_lost_at_once_leave_nobody_waiting() {
    drive(async {
        let b = bench(Mood::Fine, 3, 10);
        Bench::conn(b.run("select 1").await);
        let all: Vec<_> = (0..6).map(|_| b.start("select wait")).collect();
        settle().await;
        b.server.restart();
        b.server.0.borrow_mut().mood = Mood::Refuses;
        b.server.0.borrow().go.notify_waiters();
        let more: Vec<_> = (0..3).map(|_| b.start("select 1")).collect();
        for task in all.into_iter().chain(more) {
            let _ = timeout(Duration::from_secs(1), task).await.expect("nobody is left waiting");
        }
        assert_eq!(b.db.connections().load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_transaction_ends_with_commit_or_rollback() {
    drive(async {
        let b = bench(Mood::Fine, 2, 10);
        let all = b.pool.run_all(vec![Query::raw("a"), Query::raw("b")]).await.expect("commits");
        assert_eq!(all.len(), 2);
        assert!(b.pool.run_all(vec![Query::raw("bad"), Query::raw("never")]).await.is_err());
        assert_eq!(b.server.log(), ["0:begin", "0:a", "0:b", "0:commit", "0:begin", "0:bad", "0:rollback"]);
        assert_eq!(b.pool.open(), (1, 1));
    });
}
