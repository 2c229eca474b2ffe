//! The running call: the message being worked on and the worker around it.

use crate::avp::Avps;
use crate::call::{Finish, Suspension};
pub use crate::context::parked::{AsyncCounters, Parked, Report};
use crate::context::timers::Timers;
use crate::context::var::Context;
use crate::shared::Shared;
use crate::stats::{Counter, Stats};
use crate::watch::{OnWire, Wire};
use ahash::AHashMap;
use bytes::Bytes;
use script::ast::RouteKind;
use script::{End, Lang, RouteId, Task, Value};
use sip::names::{Record, RecordKind, ResolveError};
use sip::{Edits, Message};
use smallvec::SmallVec;
use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use transaction::{Instant, Path, TxnId};

/// The language of SIP scripts.
#[derive(Debug)]
pub struct Sip;

/// Compiled routes of a configuration.
pub type Program = script::Program<Sip>;

impl Lang for Sip {
    type Var = crate::context::var::Var;
    type Func = crate::context::func::Func;
}

/// One destination besides the main one (`append_branch`), or the target of one sent branch.
#[derive(Clone, Debug, Default)]
pub struct Branch {
    pub uri: Bytes,
    /// `$du` of the branch.
    pub dst_uri: Option<Bytes>,
    pub path: Option<Bytes>,
    /// q × 1000; -1 when not given.
    pub q: i32,
    pub flags: u32,
    /// Index into `Shared::sockets`.
    pub socket: Option<u16>,
    /// `$branch(attrs)`-like extra fields.
    pub attrs: Option<Bytes>,
    /// `$msg.branch.attr(name)`
    pub values: Vec<(Bytes, Value)>,
}

/// What goes on when a script has ended.
pub enum After {
    /// Nothing: timer, event and startup routes, report routes, ACK.
    Nothing,
    /// A request of the main route.
    Request,
    /// Whoever started the script goes on here, with the state the script left.
    Then(Box<dyn FnOnce(&mut Ctx, Box<MsgState>, End)>),
}

/// Everything a script sees and changes of one message. Owned by the running or suspended script.
pub struct MsgState {
    pub msg: Rc<Message>,
    /// Where it came from, and the socket it came in by.
    pub source: Path,
    pub received_at: Instant,
    /// Kind of the outermost route.
    pub kind: RouteKind,
    pub task: Task<Sip>,
    pub after: After,

    /// Edits of the message, applied when it is sent on.
    pub edits: Edits,
    /// Headers for replies made here (`append_to_reply`), whole lines, in call order.
    pub reply_headers: Vec<Bytes>,
    /// Body (content type, body) for replies made here.
    pub reply_body: Option<Box<(Bytes, Bytes)>>,

    /// New R-URI (`$ru =`), `None`: as received.
    pub ruri: Option<Bytes>,
    /// `$du`
    pub dst_uri: Option<Bytes>,
    /// Route set from Path, as a header value.
    pub path: Option<Bytes>,
    /// q × 1000 of the R-URI branch; -1 when not given.
    pub ruri_q: i32,
    /// `force_send_socket`, index into `Shared::sockets`.
    pub socket: Option<u16>,
    /// Message flags (`setflag`), bit per flag.
    pub flags: u32,
    /// Branch flags of the R-URI branch (`setbflag`).
    pub branch_flags: u32,
    pub branches: Vec<Branch>,

    pub avps: Rc<RefCell<Avps>>,
    /// `$var` by slot.
    pub vars: SmallVec<[Value; 2]>,
    /// Values that the next instruction waited for.
    pub(crate) answers: crate::context::awaited::Answers,

    /// Transaction this runs in.
    pub txn: Option<TxnId>,
    /// Branch of that transaction (branch, reply and failure routes).
    pub txn_branch: Option<u16>,
    pub on_branch: Option<RouteId>,
    pub on_reply: Option<RouteId>,
    pub on_failure: Option<RouteId>,

    /// Each step of the script is logged, or told to somebody.
    pub trace: Option<Box<Trace>>,

    /// What modules keep with a message (dialog, acc, rr parameters ...), by type.
    pub ext: Ext,
}

/// A server holds one for every call that waits: below the allocator's class of 768 bytes.
const _: () = assert!(size_of::<MsgState>() <= 768);

/// Who is told of each step of a script.
pub struct Trace {
    /// `script_trace`
    pub log: Option<TraceLog>,
    /// `Core::observers`
    pub observed: bool,
}

/// What `script_trace` writes for each step.
pub struct TraceLog {
    pub level: crate::log::Level,
    /// The variables to watch, as text.
    pub values: Box<dyn Fn(&mut Ctx) -> Bytes>,
    /// A word that tells traces apart.
    pub info: Option<Bytes>,
}

/// A few values by type; cloning clones each.
#[derive(Default)]
pub struct Ext(SmallVec<[(TypeId, Box<dyn ExtValue>); 1]>);

pub trait ExtValue: Any {
    fn clone_box(&self) -> Box<dyn ExtValue>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Any + Clone> ExtValue for T {
    fn clone_box(&self) -> Box<dyn ExtValue> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Clone for Ext {
    fn clone(&self) -> Ext {
        Ext(self.0.iter().map(|(id, v)| (*id, (**v).clone_box())).collect())
    }
}

impl Ext {
    pub fn find<T: Any + Clone>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        self.0.iter().find(|(i, _)| *i == id).and_then(|(_, v)| (**v).as_any().downcast_ref())
    }

    /// The value of this type, made by `Default` when missing.
    pub fn entry<T: Any + Clone + Default>(&mut self) -> &mut T {
        let id = TypeId::of::<T>();
        let at = match self.0.iter().position(|(i, _)| *i == id) {
            Some(at) => at,
            None => {
                self.0.push((id, Box::new(T::default())));
                self.0.len() - 1
            }
        };
        (*self.0[at].1).as_any_mut().downcast_mut().expect("keyed by its own type")
    }

    pub fn set<T: Any + Clone + Default>(&mut self, value: T) {
        *self.entry::<T>() = value;
    }

    pub fn remove<T: Any>(&mut self) {
        let id = TypeId::of::<T>();
        self.0.retain(|(i, _)| *i != id);
    }
}

impl MsgState {
    pub fn new(
        msg: Rc<Message>,
        source: Path,
        now: Instant,
        kind: RouteKind,
        task: Task<Sip>,
    ) -> Box<MsgState> {
        Box::new(MsgState {
            msg,
            source,
            received_at: now,
            kind,
            task,
            after: After::Nothing,
            edits: Edits::default(),
            reply_headers: Vec::new(),
            reply_body: None,
            ruri: None,
            dst_uri: None,
            path: None,
            ruri_q: -1,
            socket: None,
            flags: 0,
            branch_flags: 0,
            branches: Vec::new(),
            avps: Rc::default(),
            vars: SmallVec::new(),
            answers: Default::default(),
            txn: None,
            txn_branch: None,
            on_branch: None,
            on_reply: None,
            on_failure: None,
            trace: None,
            ext: Ext::default(),
        })
    }

    /// A second script over the same message: everything is copied, AVPs are shared.
    pub fn fork(&self, kind: RouteKind, task: Task<Sip>) -> Box<MsgState> {
        Box::new(MsgState {
            msg: self.msg.clone(),
            source: self.source,
            received_at: self.received_at,
            kind,
            task,
            after: After::Nothing,
            edits: self.edits.clone(),
            reply_headers: self.reply_headers.clone(),
            reply_body: self.reply_body.clone(),
            ruri: self.ruri.clone(),
            dst_uri: self.dst_uri.clone(),
            path: self.path.clone(),
            ruri_q: self.ruri_q,
            socket: self.socket,
            flags: self.flags,
            branch_flags: self.branch_flags,
            branches: self.branches.clone(),
            avps: self.avps.clone(),
            vars: self.vars.clone(),
            answers: Default::default(),
            txn: self.txn,
            txn_branch: self.txn_branch,
            on_branch: self.on_branch,
            on_reply: self.on_reply,
            on_failure: self.on_failure,
            trace: None,
            ext: self.ext.clone(),
        })
    }

    /// Goes on as a copy of this message was left by a route that worked on it for this one.
    pub fn take_changes(&mut self, other: MsgState) {
        self.edits = other.edits;
        self.reply_headers = other.reply_headers;
        self.reply_body = other.reply_body;
        self.ruri = other.ruri;
        self.dst_uri = other.dst_uri;
        self.path = other.path;
        self.ruri_q = other.ruri_q;
        self.socket = other.socket;
        self.flags = other.flags;
        self.branch_flags = other.branch_flags;
        self.branches = other.branches;
        self.vars = other.vars;
        self.txn = other.txn;
        self.on_branch = other.on_branch;
        self.on_reply = other.on_reply;
        self.on_failure = other.on_failure;
        self.ext = other.ext;
    }

    /// The R-URI as it would be sent now.
    pub fn current_uri(&self) -> Bytes {
        self.ruri.clone().unwrap_or_else(|| self.msg.request_uri())
    }
}

pub use crate::context::task_id::TaskId;

/// What the worker wants done.
#[derive(Debug)]
pub enum Output {
    Transmit {
        path: Path,
        bytes: Bytes,
    },
    /// A management command or a fatal module error asks the server to stop.
    Shutdown {
        code: i32,
    },
}

/// Runs futures for the worker, on the worker's own thread.
pub trait Spawn {
    /// Runs `future` and hands its result back as `Input::Resume(task, finish)`. Dropping the guard
    /// drops the future.
    fn spawn(&self, task: TaskId, future: std::pin::Pin<Box<dyn Future<Output = Finish>>>) -> Box<dyn Any>;

    /// startup_route has ended, or there is none: every worker may take SIP messages.
    fn started(&self) {}

    /// Where a request goes (RFC 3263 §4). IP addresses and names known from before are answered at
    /// once; anything else is a future to suspend on.
    fn resolve(&self, query: sip::names::Query) -> Resolved {
        Resolved::Now(match sip::names::literal(&query) {
            Some(hop) => Ok(vec![hop]),
            None => Err(ResolveError::Unavailable),
        })
    }

    /// The address of this machine that the route to `remote` starts from (`mhomed`).
    fn source_for(&self, remote: std::net::IpAddr) -> Option<std::net::IpAddr> {
        let _ = remote;
        None
    }

    /// Records of one name (ENUM, reverse lookups); empty when there are none.
    fn records(&self, name: String, kind: RecordKind) -> Later<Vec<Record>> {
        let _ = (name, kind);
        Box::pin(std::future::ready(Err(ResolveError::Unavailable)))
    }

    /// What the whole server remembers of names.
    fn known_names(&self) -> Vec<sip::names::KnownName> {
        Vec::new()
    }

    /// Forgets the names of the whole server, and what this worker remembers of single records.
    fn forget_names(&self) {}
}

/// An answer of DNS that is awaited.
pub type Later<T> = std::pin::Pin<Box<dyn Future<Output = Result<T, ResolveError>>>>;

/// Addresses to try, best first; never empty when `Ok`.
pub enum Resolved {
    Now(Result<Vec<sip::names::Hop>, ResolveError>),
    Later(Later<Vec<sip::names::Hop>>),
}

/// Messages that came in, of all workers.
#[derive(Clone)]
pub struct Traffic {
    pub requests: Counter,
    pub replies: Counter,
    /// What is no SIP, or too broken to be handled.
    pub bad: Counter,
    /// Sent on without a transaction.
    pub forwarded_requests: Counter,
    pub forwarded_replies: Counter,
    /// Requests that a module refused before the script.
    pub dropped_requests: Counter,
    /// Replies without a transaction that nobody wanted.
    pub dropped_replies: Counter,
    /// Panics that were caught.
    pub defects: Counter,
}

impl Traffic {
    pub fn new(stats: &Stats) -> Traffic {
        Traffic {
            requests: stats.counter("core", "rcv_requests"),
            replies: stats.counter("core", "rcv_replies"),
            bad: stats.counter("core", "bad_msg_hdr"),
            forwarded_requests: stats.counter("core", "fwd_requests"),
            forwarded_replies: stats.counter("core", "fwd_replies"),
            dropped_requests: stats.counter("core", "drop_requests"),
            dropped_replies: stats.counter("core", "drop_replies"),
            defects: stats.counter("core", "defects"),
        }
    }
}

/// The transaction engine of a worker. What it is, `tm` says: there it is an `Engine` by `Deref`, which costs one
/// comparison of types.
pub struct EngineSlot(pub(crate) Box<dyn Any>);

/// What the ground floor needs of those above; the worker says who does it.
#[derive(Clone, Copy)]
pub struct Upper {
    /// [`Ctx::run`]
    pub run: fn(&mut Ctx, Box<MsgState>),
    /// The request of the transaction that a reply belongs to, or the reply that a failure route looks at.
    pub other_message: fn(&mut Ctx, Context) -> Option<Box<MsgState>>,
}

/// The worker's state that outlives a message.
pub struct Core {
    /// Monotonic clock of this step.
    pub now: Instant,
    /// Wall clock of this step, microseconds since 1970 (UTC).
    pub wall_us: u64,
    pub worker: u16,
    pub workers: u16,
    pub shared: Arc<Shared>,
    pub txns: EngineSlot,
    pub tasks: crate::chunks::Chunks<Parked>,
    pub free_tasks: Vec<u32>,
    /// Suspended scripts of a transaction.
    pub tasks_of: AHashMap<TxnId, SmallVec<[TaskId; 1]>>,
    pub counters: AsyncCounters,
    /// What became of operations, by kind.
    pub ops: crate::context::ops::Ops,
    pub traffic: Traffic,
    pub timers: Timers,
    pub outputs: Vec<Output>,
    pub rng: Rng,
    pub spawner: Rc<dyn Spawn>,
    /// Per-worker state of modules, by type.
    pub local: AHashMap<TypeId, Box<dyn Any>>,
    pub draining: bool,
    /// What the second half of an operation waits for next (`Ctx::wait_again`).
    pub(crate) again: Option<Box<Suspension>>,
    /// A recorder, or a recording that is played back.
    pub tape: Option<Rc<dyn crate::context::tape::Tape>>,
    /// Who watches scripts run.
    pub observers: Option<Rc<crate::context::observe::Observers>>,
    pub upper: Upper,
}

/// Seeded generator (xoshiro-like quality is not needed; tags and branches add the worker's secret).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next_u64(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// 0..n (n > 0)
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }
}

/// The one object that script functions get: the message being worked on and the worker.
pub struct Ctx {
    pub core: Core,
    /// The message of the script that runs now.
    pub state: Box<MsgState>,
}

impl Ctx {
    /// Per-worker state of a module, made by `Default`.
    pub fn local<T: Default + 'static>(&mut self) -> &mut T {
        self.core
            .local
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::<T>::default())
            .downcast_mut()
            .expect("keyed by its own type")
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.core.shared
    }

    /// Queues bytes for the network.
    pub fn transmit(&mut self, path: Path, bytes: Bytes) {
        self.transmit_for(None, path, bytes);
    }

    /// The same for a transaction.
    pub(crate) fn transmit_for(&mut self, txn: Option<TxnId>, path: Path, bytes: Bytes) {
        let bytes = self.tapped(Wire::Sent, txn, path, bytes);
        if self.core.observers.is_some() {
            self.tell_message(crate::context::observe::Way::Out, &path, &bytes);
        }
        self.core.outputs.push(Output::Transmit { path, bytes });
    }

    /// Bytes as they go on when modules have seen them pass.
    pub(crate) fn tapped(&mut self, wire: Wire, txn: Option<TxnId>, path: Path, bytes: Bytes) -> Bytes {
        if !self.core.shared.hooks.watch.taps(wire) {
            return bytes;
        }
        let shared = self.core.shared.clone();
        let mut passing = OnWire { txn, path, bytes };
        shared.hooks.watch.tapping(wire).for_each(|tap| tap(self, &mut passing));
        passing.bytes
    }

    /// Runs a script to its end or first suspension, then `state.after`. The current message is
    /// put aside meanwhile: scripts nest (branch routes inside `t_relay`).
    pub fn run(&mut self, state: Box<MsgState>) {
        (self.core.upper.run)(self, state);
    }

    /// A route as a script of its own, over a copy of the current message.
    pub fn fork_run(&mut self, route: RouteId, kind: RouteKind, params: Vec<Value>, after: After) {
        let task = Task::with_params(self.core.shared.program(), route, params);
        let mut state = self.state.fork(kind, task);
        state.after = after;
        self.run(state);
    }
}
