//! Who watches scripts run: tracing of single calls, replay, the profiler. Nobody does by default, which costs a branch
//! where a script begins, and none where it goes on: `MsgState::trace` says whether anything is told of it.

use super::ctx::{Ctx, MsgState};
use super::ops::Ended;
use bytes::Bytes;
use script::{End, Loc, Value};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use transaction::{Instant, Path};

/// What happens in a script, or to a message.
#[derive(Clone, Debug)]
pub enum Seen<'a> {
    /// A statement begins; only in programs with probes.
    Line(Loc),
    /// A function is about to run.
    Calls { name: &'static str },
    /// It has run; `None`: it waits.
    Called { name: &'static str, rc: Option<i32> },
    /// A variable was set.
    Assigned { variable: &'a [u8], value: &'a Value },
    /// A script has ended, or waits.
    Left(Option<End>),
}

/// An operation that is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    pub what: &'static str,
    pub detail: &'a Bytes,
    pub call_id: &'a Bytes,
    /// Where the script stands; none for operations beside a script.
    pub loc: Loc,
    pub since: Instant,
}

/// Hears of what happens on a worker. All of it is on the path of messages: be short.
pub trait Observer {
    /// Scripts of this message are told of. Asked whenever a script begins or goes on.
    fn wants(&self, ctx: &Ctx, state: &MsgState) -> bool;
    /// Something happened in a script that is wanted; its message is the current one.
    fn script(&self, ctx: &mut Ctx, seen: Seen<'_>);
    /// An operation began to be waited for.
    fn waits(&self, ctx: &mut Ctx, waiting: Waiting<'_>);
    /// It is over.
    fn waited(&self, ctx: &mut Ctx, waiting: Waiting<'_>, how: Ended);
    /// A message came in (`incoming`), or is about to leave.
    fn message(&self, ctx: &mut Ctx, way: Way, path: &Path, bytes: &Bytes);
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    In,
    Out,
}

/// Where a script of a worker is, for whoever takes samples from another thread: 0 outside of scripts, else a place in
/// the sources ([`place_of`]).
pub type Spot = Arc<AtomicU64>;

fn spot_of(loc: Loc) -> u64 {
    1 << 63 | u64::from(loc.file) << 32 | u64::from(loc.start)
}

/// The place that a spot tells; `None`: no script runs.
pub fn place_of(spot: u64) -> Option<Loc> {
    let start = spot as u32;
    (spot != 0).then_some(Loc { file: (spot >> 32) as u16 & 0x7fff, start, end: start })
}

/// The observers of a worker.
#[derive(Clone, Default)]
pub struct Observers {
    list: Vec<Rc<dyn Observer>>,
    spot: Option<Spot>,
}

impl Observers {
    fn each(ctx: &mut Ctx, tell: impl Fn(&dyn Observer, &mut Ctx)) {
        let Some(observers) = ctx.core.observers.clone() else { return };
        observers.list.iter().for_each(|observer| tell(&**observer, ctx));
    }
}

impl Ctx {
    /// From now on it hears of what happens on this worker.
    pub fn observe(&mut self, observer: Rc<dyn Observer>) {
        let mut observers = self.core.observers.as_deref().cloned().unwrap_or_default();
        observers.list.push(observer);
        self.core.observers = Some(Rc::new(observers));
    }

    /// It hears of nothing any more; the last one leaves no cost behind.
    pub fn unobserve(&mut self, observer: &Rc<dyn Observer>) {
        let Some(observers) = &self.core.observers else { return };
        let list: Vec<_> = observers.list.iter().filter(|own| !Rc::ptr_eq(own, observer)).cloned().collect();
        let spot = observers.spot.clone();
        self.core.observers = (!list.is_empty() || spot.is_some()).then(|| Rc::new(Observers { list, spot }));
    }

    /// From now on the place of scripts that run here is told there; `None`: not any more.
    pub fn tell_spot(&mut self, spot: Option<Spot>) {
        let list = self.core.observers.as_ref().map(|observers| observers.list.clone()).unwrap_or_default();
        self.core.observers = (!list.is_empty() || spot.is_some()).then(|| Rc::new(Observers { list, spot }));
    }

    /// A script is here now; `None`: it is left.
    pub(crate) fn at_spot(&self, loc: Option<Loc>) {
        if let Some(spot) = self.core.observers.as_ref().and_then(|observers| observers.spot.as_ref()) {
            spot.store(loc.map_or(0, spot_of), Ordering::Relaxed);
        }
    }

    /// A script begins or goes on: whether anything is told of it.
    #[cold]
    pub(crate) fn mark_observed(&self, state: &mut MsgState) {
        let (observed, sampled) = match &self.core.observers {
            Some(observers) => {
                (observers.list.iter().any(|observer| observer.wants(self, state)), observers.spot.is_some())
            }
            None => (false, false),
        };
        if sampled {
            self.at_spot(Some(state.task.loc()));
        }
        match &mut state.trace {
            Some(trace) => trace.observed = observed,
            None if observed || sampled => {
                state.trace = Some(Box::new(super::ctx::Trace { log: None, observed }));
            }
            None => {}
        }
        if !sampled && state.trace.as_ref().is_some_and(|trace| !observed && trace.log.is_none()) {
            state.trace = None;
        }
    }

    /// Something happened in the current script, which is told of.
    #[cold]
    pub(crate) fn tell_script(&mut self, seen: &Seen<'_>) {
        if self.state.trace.as_ref().is_some_and(|trace| trace.observed) {
            Observers::each(self, |observer, ctx| {
                if observer.wants(ctx, &ctx.state) {
                    observer.script(ctx, seen.clone());
                }
            });
        }
    }

    #[cold]
    pub(crate) fn tell_waits(&mut self, waiting: Waiting<'_>) {
        Observers::each(self, |observer, ctx| observer.waits(ctx, waiting));
    }

    #[cold]
    pub(crate) fn tell_waited(&mut self, waiting: Waiting<'_>, how: Ended) {
        Observers::each(self, |observer, ctx| observer.waited(ctx, waiting, how));
    }

    #[cold]
    pub(crate) fn tell_message(&mut self, way: Way, path: &Path, bytes: &Bytes) {
        Observers::each(self, |observer, ctx| observer.message(ctx, way, path, bytes));
    }
}
