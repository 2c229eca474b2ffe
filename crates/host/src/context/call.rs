//! A script function's view: the context, its module, and how it waits.

use crate::ctx::Ctx;
use bytes::Bytes;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;

/// The second half of an operation: short, synchronous, on the same worker. Gives the return code.
pub type Finish = Box<dyn FnOnce(&mut Ctx) -> i32>;

/// What a script function did.
pub enum Outcome {
    /// Return code: positive is true, negative false, 0 ends the script.
    Done(i32),
    Suspend(Box<Suspension>),
}

/// What a suspended operation waits for.
pub enum Wait {
    /// This many milliseconds.
    Timer(u64, Finish),
    Future(Pin<Box<dyn Future<Output = Finish>>>),
    /// Somebody calls `Ctx::resume(task, finish)`: the slot tells them the task.
    External(Box<dyn FnOnce(&mut Ctx, crate::ctx::TaskId)>),
}

/// An operation in flight.
pub struct Suspension {
    /// The script function ("sql_query").
    pub what: &'static str,
    /// What it waits for, for `async_list` (a query, a URL); shortened there.
    pub detail: Bytes,
    pub wait: Wait,
    /// Milliseconds until it is aborted; the server's cap applies above it.
    pub limit_ms: u64,
    /// Return code when that happens.
    pub on_deadline: i32,
}

/// Longest any operation may take unless its module knows better: 20 s, as curl_timeout there.
pub const DEFAULT_LIMIT_MS: u64 = 20_000;

impl Suspension {
    /// Waits for a future that owns what it needs; its value is the second half.
    pub fn future<F>(what: &'static str, future: F) -> Outcome
    where
        F: Future<Output = Finish> + 'static,
    {
        Outcome::Suspend(Box::new(Suspension {
            what,
            detail: Bytes::new(),
            wait: Wait::Future(Box::pin(future)),
            limit_ms: DEFAULT_LIMIT_MS,
            on_deadline: -1,
        }))
    }

    /// Waits `ms` milliseconds, then returns `rc`; -1 when less time is left for it.
    pub fn timer(what: &'static str, ms: u64, rc: i32) -> Outcome {
        Outcome::Suspend(Box::new(Suspension {
            what,
            detail: Bytes::new(),
            wait: Wait::Timer(ms, Box::new(move |_| rc)),
            limit_ms: ms.saturating_add(1000),
            on_deadline: -1,
        }))
    }
}

impl Outcome {
    /// Sets what `async_list` shows.
    pub fn detail(mut self, detail: impl Into<Bytes>) -> Outcome {
        if let Outcome::Suspend(s) = &mut self {
            s.detail = detail.into();
        }
        self
    }

    /// Sets the module's own deadline and its return code.
    pub fn limit(mut self, ms: u64, rc: i32) -> Outcome {
        if let Outcome::Suspend(s) = &mut self {
            s.limit_ms = ms;
            s.on_deadline = rc;
        }
        self
    }
}

impl From<i32> for Outcome {
    fn from(rc: i32) -> Outcome {
        Outcome::Done(rc)
    }
}

/// Nothing to say is 1.
impl From<()> for Outcome {
    fn from(_: ()) -> Outcome {
        Outcome::Done(1)
    }
}

/// true is 1, false is -1.
impl From<bool> for Outcome {
    fn from(ok: bool) -> Outcome {
        Outcome::Done(if ok { 1 } else { -1 })
    }
}

/// The current message and worker, with the module whose function runs.
pub struct Call<'a, M> {
    pub ctx: &'a mut Ctx,
    pub module: &'a Arc<M>,
}

impl<M> Deref for Call<'_, M> {
    type Target = Ctx;
    fn deref(&self) -> &Ctx {
        self.ctx
    }
}

impl<M> DerefMut for Call<'_, M> {
    fn deref_mut(&mut self) -> &mut Ctx {
        self.ctx
    }
}
