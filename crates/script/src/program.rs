//! Compiled routes.

use crate::ast::{Dialect, RouteKind, Until};
use crate::diagnostic::Loc;
use crate::host::{Lang, RouteId};
use crate::ops::{AsyncId, ConstId, FuncId, LaunchId, Op, ParallelId, Pc, RegexId, VarId, WaitId};
use crate::posix::Pattern;
use crate::value::Value;
use bytes::Bytes;

/// Rounds of a `while` before it is left, when the configuration does not say (`max_while_loops`).
pub(crate) fn default_while_loops(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::V21 => 100,
        Dialect::V4 => 10_000,
    }
}

#[derive(Debug)]
pub(crate) struct RouteInfo {
    pub(crate) kind: RouteKind,
    /// Empty: the main route of its kind.
    pub(crate) name: Bytes,
    pub(crate) interval: Option<u32>,
    pub(crate) entry: Pc,
    pub(crate) loc: Loc,
}

/// `async(func, resume, timeout)`
#[derive(Debug)]
pub(crate) struct AsyncSite {
    pub(crate) func: FuncId,
    pub(crate) resume: RouteId,
    pub(crate) timeout_ms: Option<u64>,
}

/// `launch(func, report, param)`
#[derive(Debug)]
pub(crate) struct LaunchSite {
    pub(crate) func: FuncId,
    pub(crate) report: Option<RouteId>,
}

/// `parallel until (timeout) { target = func; ... }`
#[derive(Debug)]
pub(crate) struct Parallel {
    pub(crate) until: Until,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) calls: Box<[(FuncId, Option<VarId>)]>,
}

/// Compiled routes. Immutable; tasks keep theirs alive.
#[derive(Debug)]
pub struct Program<L: Lang> {
    /// Invariant: ends with `End`, and every `Pc` in it is inside it.
    pub(crate) code: Box<[Op]>,
    pub(crate) consts: Box<[Value]>,
    pub(crate) vars: Box<[L::Var]>,
    pub(crate) funcs: Box<[L::Func]>,
    pub(crate) regexes: Box<[Pattern]>,
    pub(crate) asyncs: Box<[AsyncSite]>,
    pub(crate) launches: Box<[LaunchSite]>,
    pub(crate) parallels: Box<[Parallel]>,
    /// What an `Await` asks for, in this order.
    pub(crate) waits: Box<[Box<[VarId]>]>,
    /// Indexed by `RouteId`.
    pub(crate) routes: Box<[RouteInfo]>,
    /// Routes in the order of (kind, name), for look-ups.
    pub(crate) by_name: Box<[RouteId]>,
    pub(crate) error_route: Option<RouteId>,
    /// Statements by their first instruction, ascending.
    pub(crate) locs: Box<[(Pc, Loc)]>,
    pub(crate) max_while_loops: u32,
    pub(crate) dialect: Dialect,
}

/// What routes are sorted by.
fn key(route: &RouteInfo) -> (u8, &[u8]) {
    (route.kind as u8, &route.name)
}

impl<L: Lang> Program<L> {
    /// No routes; a task of it ends at once.
    pub fn empty() -> Self {
        Program {
            code: Box::new([Op::End]),
            consts: Box::default(),
            vars: Box::default(),
            funcs: Box::default(),
            regexes: Box::default(),
            asyncs: Box::default(),
            launches: Box::default(),
            parallels: Box::default(),
            waits: Box::default(),
            routes: Box::default(),
            by_name: Box::default(),
            error_route: None,
            locs: Box::default(),
            max_while_loops: default_while_loops(Dialect::V4),
            dialect: Dialect::V4,
        }
    }

    /// A route by kind and name; `None` (or "0") is the main route of the kind.
    pub fn route(&self, kind: RouteKind, name: Option<&[u8]>) -> Option<RouteId> {
        let name = main_name(name);
        let found = self
            .by_name
            .binary_search_by(|id| key(&self.routes[id.0 as usize]).cmp(&(kind as u8, name)))
            .ok()?;
        Some(self.by_name[found])
    }

    /// What runs the route.
    pub fn route_kind(&self, id: RouteId) -> RouteKind {
        self.routes.get(id.0 as usize).map_or(RouteKind::Request, |r| r.kind)
    }

    /// Empty for the main route of a kind.
    pub fn route_name(&self, id: RouteId) -> Bytes {
        self.routes.get(id.0 as usize).map_or_else(Bytes::new, |r| r.name.clone())
    }

    /// As it is written: "route[relay]".
    pub fn route_text(&self, id: RouteId) -> String {
        crate::compile::route_shown(self.route_kind(id), &self.route_name(id))
    }

    /// Where the route is written.
    pub fn route_loc(&self, id: RouteId) -> Loc {
        self.routes.get(id.0 as usize).map_or_else(Loc::default, |r| r.loc)
    }

    /// All routes, in the order of the text.
    pub fn routes(&self) -> impl Iterator<Item = RouteId> + use<L> {
        (0..self.routes.len()).map(|i| RouteId(i as u16))
    }

    /// (route, seconds) of timer routes.
    pub fn timers(&self) -> Vec<(RouteId, u32)> {
        let timers = self.routes.iter().enumerate();
        timers.filter_map(|(i, r)| Some((RouteId(i as u16), r.interval?))).collect()
    }

    /// The statements of a program with probes, by route, in the order in which they are written.
    pub fn statements(&self) -> impl Iterator<Item = (RouteId, Loc)> {
        let mut entries: Vec<(Pc, RouteId)> =
            self.routes.iter().enumerate().map(|(i, route)| (route.entry, RouteId(i as u16))).collect();
        entries.sort_by_key(|(entry, _)| *entry);
        let probes = self.code.iter().enumerate().filter(|(_, op)| **op == Op::Probe);
        probes.filter_map(move |(pc, _)| {
            let pc = pc as Pc;
            let after = entries.partition_point(|(entry, _)| *entry <= pc);
            Some((entries.get(after.checked_sub(1)?)?.1, self.loc(pc)))
        })
    }

    /// Rounds of a `while` before it is left (`max_while_loops`).
    pub fn max_while_loops(&mut self, limit: u32) {
        self.max_while_loops = limit;
    }

    pub(crate) fn entry(&self, id: RouteId) -> Pc {
        self.routes.get(id.0 as usize).map_or(self.code.len() as Pc - 1, |r| r.entry)
    }

    /// The statement that an instruction belongs to.
    pub(crate) fn loc(&self, pc: Pc) -> Loc {
        match self.locs.partition_point(|(first, _)| *first <= pc) {
            0 => Loc::default(),
            after => self.locs[after - 1].1,
        }
    }

    pub(crate) fn var(&self, id: VarId) -> &L::Var {
        &self.vars[id.0 as usize]
    }
    pub(crate) fn func(&self, id: FuncId) -> &L::Func {
        &self.funcs[id.0 as usize]
    }
    pub(crate) fn constant(&self, id: ConstId) -> &Value {
        &self.consts[id.0 as usize]
    }
    pub(crate) fn regex(&self, id: RegexId) -> &Pattern {
        &self.regexes[id.0 as usize]
    }
    pub(crate) fn async_site(&self, id: AsyncId) -> &AsyncSite {
        &self.asyncs[id.0 as usize]
    }
    pub(crate) fn launch_site(&self, id: LaunchId) -> &LaunchSite {
        &self.launches[id.0 as usize]
    }
    pub(crate) fn parallel(&self, id: ParallelId) -> &Parallel {
        &self.parallels[id.0 as usize]
    }
    pub(crate) fn awaited(&self, id: WaitId) -> &[VarId] {
        &self.waits[id.0 as usize]
    }
}

/// `route[0]` is `route`.
pub(crate) fn main_name(name: Option<&[u8]>) -> &[u8] {
    match name {
        None | Some(b"0") => b"",
        Some(name) => name,
    }
}

/// The look-up order of routes.
pub(crate) fn sorted(routes: &[RouteInfo]) -> Box<[RouteId]> {
    let mut ids: Vec<RouteId> = (0..routes.len()).map(|i| RouteId(i as u16)).collect();
    ids.sort_by(|a, b| key(&routes[a.0 as usize]).cmp(&key(&routes[b.0 as usize])));
    ids.into()
}
