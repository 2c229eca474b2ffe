//! Futures on the virtual clock: what scripts wait for.

use host::call::Finish;
use host::ctx::{Resolved, Spawn, TaskId};
use sip::names::{Hop, Query, ResolveError};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

type Operation = Pin<Box<dyn Future<Output = Finish>>>;

#[derive(Default)]
struct Inner {
    now: u64,
    /// When to poll, and whose operation; in the order they were begun.
    operations: BTreeMap<u64, (TaskId, Operation)>,
    next: u64,
    /// Set by a sleep while its operation is polled.
    wake: u64,
    rng: u64,
    /// Nothing answers before.
    outage: u64,
}

/// Operations that something else than time has woken.
#[derive(Default)]
struct Woken(Mutex<Vec<u64>>);

struct Waking(Arc<Woken>, u64);

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        if let Ok(mut list) = self.0.0.lock() {
            list.push(self.1);
        }
    }
}

/// Runs operations of one worker. Clones share them.
#[derive(Clone, Default)]
pub struct Executor {
    inner: Rc<RefCell<Inner>>,
    wakes: Rc<RefCell<BTreeMap<u64, u64>>>,
    woken: Arc<Woken>,
}

impl Executor {
    pub fn new(seed: u64) -> Executor {
        let executor = Executor::default();
        executor.inner.borrow_mut().rng = seed;
        executor
    }

    /// 0..n, from the seed.
    pub fn below(&self, n: u64) -> u64 {
        let mut inner = self.inner.borrow_mut();
        let mut rng = host::ctx::Rng(inner.rng);
        let value = rng.below(n);
        inner.rng = rng.0;
        value
    }

    /// Nothing that is asked from now on answers before `until`.
    pub fn fail_until(&self, until: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.outage = inner.outage.max(until);
    }

    pub fn is_out(&self) -> bool {
        let inner = self.inner.borrow();
        inner.now < inner.outage
    }

    /// Ready after so many milliseconds.
    pub fn sleep(&self, ms: u64) -> impl Future<Output = ()> + 'static {
        let inner = self.inner.clone();
        let at = inner.borrow().now + ms;
        std::future::poll_fn(move |_| {
            let mut inner = inner.borrow_mut();
            if inner.now >= at {
                return Poll::Ready(());
            }
            inner.wake = inner.wake.min(at);
            Poll::Pending
        })
    }

    pub fn is_idle(&self) -> bool {
        self.inner.borrow().operations.is_empty()
    }

    pub fn next_wake(&self) -> Option<u64> {
        self.wakes.borrow().values().min().copied()
    }

    /// Polls what is due at `now`; gives what is done.
    pub fn poll(&self, now: u64) -> Vec<(TaskId, Finish)> {
        self.inner.borrow_mut().now = now;
        for id in self.woken.0.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default() {
            if self.inner.borrow().operations.contains_key(&id) {
                self.wakes.borrow_mut().insert(id, now);
            }
        }
        let due: Vec<u64> =
            self.wakes.borrow().iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        let mut done = Vec::new();
        for id in due {
            self.wakes.borrow_mut().remove(&id);
            let Some((task, mut operation)) = self.inner.borrow_mut().operations.remove(&id) else {
                continue;
            };
            self.inner.borrow_mut().wake = u64::MAX;
            let waker = Waker::from(Arc::new(Waking(self.woken.clone(), id)));
            match operation.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(finish) => done.push((task, finish)),
                Poll::Pending => {
                    let mut inner = self.inner.borrow_mut();
                    if inner.wake != u64::MAX {
                        self.wakes.borrow_mut().insert(id, inner.wake);
                    }
                    inner.operations.insert(id, (task, operation));
                }
            }
        }
        done
    }
}

/// Dropping it drops the operation.
struct Guard(Executor, u64);

impl Drop for Guard {
    fn drop(&mut self) {
        let dropped = self.0.inner.borrow_mut().operations.remove(&self.1);
        self.0.wakes.borrow_mut().remove(&self.1);
        drop(dropped);
    }
}

impl Spawn for Executor {
    fn spawn(&self, task: TaskId, future: Operation) -> Box<dyn Any> {
        let mut inner = self.inner.borrow_mut();
        let id = inner.next;
        inner.next += 1;
        inner.operations.insert(id, (task, future));
        self.wakes.borrow_mut().insert(id, inner.now);
        Box::new(Guard(self.clone(), id))
    }

    /// `one.sim`, `two.sim`: the callees; `flaky.sim`: nobody, then a callee; `none.sim`: no address.
    fn resolve(&self, query: Query) -> Resolved {
        if let Some(hop) = sip::names::literal(&query) {
            return Resolved::Now(Ok(vec![hop]));
        }
        let hop =
            |n: u8| Hop { transport: sip::Transport::Udp, addr: SocketAddr::from(([10, 0, 0, n], 5060)) };
        let found = match query.host.as_str() {
            "one.sim" => Ok(vec![hop(3)]),
            "two.sim" => Ok(vec![hop(4)]),
            "flaky.sim" => Ok(vec![hop(99), hop(3)]),
            _ => Err(ResolveError::NoAddress),
        };
        if self.is_out() {
            return Resolved::Now(Err(ResolveError::Unavailable));
        }
        if self.below(4) == 0 {
            return Resolved::Now(found);
        }
        let (clock, ms) = (self.clone(), self.below(3000));
        Resolved::Later(Box::pin(async move {
            clock.sleep(ms).await;
            found
        }))
    }
}
