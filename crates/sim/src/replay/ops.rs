//! Futures of operations in a replay: polled when they are begun or woken, done when the recording says so. And what
//! stands where databases and stores were: nothing, the tape answers for them.

use host::cachedb::{Cache, CacheError, Engine, Reply, Store};
use host::call::Finish;
use host::ctx::{Ctx, Spawn, TaskId};
use host::db::{BatchFuture, Db, DbFuture, Driver, Pool, Query};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

type Future = Pin<Box<dyn std::future::Future<Output = Finish>>>;

enum Operation {
    Runs(Future),
    Done(Finish),
}

/// Operations of one worker.
#[derive(Clone, Default)]
pub struct Ops(Rc<Inner>);

#[derive(Default)]
struct Inner {
    running: RefCell<HashMap<TaskId, Operation>>,
    /// Begun and not polled yet.
    fresh: RefCell<Vec<TaskId>>,
    woken: Arc<Mutex<Vec<TaskId>>>,
    started: Cell<bool>,
}

struct Waking(Arc<Mutex<Vec<TaskId>>>, TaskId);

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        if let Ok(mut list) = self.0.lock() {
            list.push(self.1);
        }
    }
}

impl Ops {
    /// Polls what is new or was woken, until nothing is; gives what became ready.
    pub fn poll(&self) -> Vec<TaskId> {
        let mut ready = Vec::new();
        loop {
            let mut turn = self.0.fresh.take();
            turn.extend(self.0.woken.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default());
            if turn.is_empty() {
                return ready;
            }
            for task in turn {
                let Some(operation) = self.0.running.borrow_mut().remove(&task) else { continue };
                let operation = match operation {
                    Operation::Runs(mut future) => {
                        let waker = Waker::from(Arc::new(Waking(self.0.woken.clone(), task)));
                        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                            Poll::Ready(finish) => {
                                ready.push(task);
                                Operation::Done(finish)
                            }
                            Poll::Pending => Operation::Runs(future),
                        }
                    }
                    done => done,
                };
                self.0.running.borrow_mut().insert(task, operation);
            }
        }
    }

    /// The second half of an operation, if it is ready.
    pub fn take(&self, task: TaskId) -> Option<Finish> {
        let mut running = self.0.running.borrow_mut();
        match running.remove(&task)? {
            Operation::Done(finish) => Some(finish),
            runs => {
                running.insert(task, runs);
                None
            }
        }
    }
}

/// Dropping it drops the operation.
struct Guard(Ops, TaskId);

impl Drop for Guard {
    fn drop(&mut self) {
        let dropped = self.0.0.running.borrow_mut().remove(&self.1);
        drop(dropped);
    }
}

impl Spawn for Ops {
    fn spawn(&self, task: TaskId, future: Future) -> Box<dyn Any> {
        self.0.running.borrow_mut().insert(task, Operation::Runs(future));
        self.0.fresh.borrow_mut().push(task);
        Box::new(Guard(self.clone(), task))
    }

    fn started(&self) {
        self.0.started.set(true);
    }
}

/// A database that is not there.
pub struct Nowhere(pub &'static str);

impl Driver for Nowhere {
    fn module(&self) -> &'static str {
        self.0
    }
    fn pool(&self, _: &Db, _: &mut Ctx) -> Rc<dyn Pool> {
        Rc::new(NoPool)
    }
}

struct NoPool;

impl Pool for NoPool {
    fn run(&self, _: Query) -> DbFuture {
        Box::pin(std::future::pending())
    }
    fn run_all(&self, _: Vec<Query>) -> BatchFuture {
        Box::pin(std::future::pending())
    }
}

/// The store that stands in for those of a module; that inside the process is as it is.
pub fn store(module: &'static str) -> Option<Arc<dyn Engine>> {
    (module != "cachedb_local").then(|| Arc::new(NoEngine(module)) as Arc<dyn Engine>)
}

struct NoEngine(&'static str);

impl Engine for NoEngine {
    fn module(&self) -> &'static str {
        self.0
    }
    fn connect(&self, _: &Cache, _: &mut Ctx) -> Rc<dyn Store> {
        Rc::new(NoStore)
    }
}

struct NoStore;

fn gone<T: 'static>() -> Reply<T> {
    Reply::later(async { Err(CacheError::Down(host::db::NOT_RECORDED.to_string())) })
}

impl Store for NoStore {
    fn fetch(&self, _: bytes::Bytes) -> Reply<Option<bytes::Bytes>> {
        gone()
    }
    fn store(&self, _: bytes::Bytes, _: bytes::Bytes, _: u32) -> Reply<()> {
        gone()
    }
    fn remove(&self, _: bytes::Bytes) -> Reply<()> {
        gone()
    }
    fn add(&self, _: bytes::Bytes, _: i64, _: u32) -> Reply<i64> {
        gone()
    }
    fn counter(&self, _: bytes::Bytes) -> Reply<Option<i64>> {
        gone()
    }
}
