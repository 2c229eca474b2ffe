//! What a worker with a tape has besides: who made it, and names that it hears of.

use super::call::Finish;
use super::ctx::{Later, Resolved, Spawn, TaskId};
use super::shared::Shared;
use super::tape::{Note, Tape, at_once, awaited};
use sip::names::{Hop, KnownName, Query, Record, RecordKind, ResolveError};
use std::any::Any;
use std::cell::Cell;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// Makes the tape of a worker, when it starts; `Hooks::list::<TapeMaker>()`.
#[derive(Clone)]
pub struct TapeMaker(pub Arc<dyn Fn(&Shared, u16) -> Rc<dyn Tape> + Send + Sync>);

/// Hears of other routes that come into place (`reload_routes`), just before they do; `Hooks::list::<OnReload>()`.
#[derive(Clone)]
pub struct OnReload(pub Arc<dyn Fn(&Reloaded) + Send + Sync>);

/// Which files the new routes stand in, by their places in `Sources::files`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// Files that were known before.
    pub before: usize,
    /// Files that are known now.
    pub known: usize,
    /// Those that have routes.
    pub files: Vec<u16>,
}

/// Runs futures, with a tape that hears what was begun and what names answered.
pub struct TapedSpawn {
    pub inner: Rc<dyn Spawn>,
    pub tape: Rc<dyn Tape>,
}

/// Names that were known, or not: the latter wait for an answer.
type MaybeKnown = Option<Result<Vec<Hop>, ResolveError>>;

fn asked(query: &Query) -> String {
    let transport = query.transport.map_or("any", sip::Transport::as_str);
    format!("{} port {} {transport} {:?}", query.host, query.port, query.security)
}

impl Spawn for TapedSpawn {
    fn spawn(&self, task: TaskId, future: Pin<Box<dyn Future<Output = Finish>>>) -> Box<dyn Any> {
        if self.tape.on() {
            self.tape.note(Note::Spawned(task));
        }
        self.inner.spawn(task, future)
    }

    fn started(&self) {
        self.tape.note(Note::Started);
        self.inner.started();
    }

    fn resolve(&self, query: Query) -> Resolved {
        if let Some(hop) = sip::names::literal(&query) {
            return Resolved::Now(Ok(vec![hop]));
        }
        let question = asked(&query);
        let later = Cell::new(None);
        let live = || match self.inner.resolve(query) {
            Resolved::Now(known) => Some(known),
            Resolved::Later(answer) => {
                later.set(Some(answer));
                None
            }
        };
        let known: Option<MaybeKnown> = at_once("dns-known", || question.clone(), live);
        match known {
            Some(Some(known)) => Resolved::Now(known),
            _ => {
                let live = later.take().unwrap_or_else(|| Box::pin(std::future::pending()));
                let absent = || Err(ResolveError::Unavailable);
                Resolved::Later(Box::pin(awaited("dns", move || question, live, absent)))
            }
        }
    }

    fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        at_once("route", || remote.to_string(), || self.inner.source_for(remote)).flatten()
    }

    fn records(&self, name: String, kind: RecordKind) -> Later<Vec<Record>> {
        let question = format!("{name} {kind:?}");
        let live = self.inner.records(name, kind);
        Box::pin(awaited("dns-records", move || question, live, || Err(ResolveError::Unavailable)))
    }

    fn known_names(&self) -> Vec<KnownName> {
        self.inner.known_names()
    }

    fn forget_names(&self) {
        self.inner.forget_names();
    }
}
