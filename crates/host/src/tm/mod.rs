//! The transaction engine as scripts see it: arrival of messages, suspension, replies, forking.
//!
//! `crates/transaction` knows states and timers; here is what they mean for scripts: which route runs
//! when, what a branch is sent with, which reply goes upstream. Scripts may wait anywhere, so every
//! step that follows a script is a closure kept in its state (`After::Then`).

mod admit;
mod answer;
pub mod blacklist;
pub mod branch;
pub mod branches;
mod cancel;
pub mod contacts;
pub mod defect;
mod ending;
mod failure;
mod local;
pub mod overload;
pub mod policy;
mod relay;
mod replies;
pub mod reply;
mod resolve;
mod stateless;
mod stats;
mod txn;
pub mod ua;
pub mod watch;

use crate::context::timers::{Due, TimerKey};
use crate::ctx::{After, Branch, Ctx, EngineSlot, Ext, MsgState};
use crate::services::streams::Streams;
use crate::shared::Shared;
use crate::var::Context;
use crate::watch::{Moment, Seen, Told};
use answer::{bare_state, trying, trying_bytes};
use bytes::Bytes;
use script::{End, RouteId, Task};
use sip::{Message, Method};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use transaction::{Config, Event, Instant, Path, Transactions, TxnId};

pub(crate) use admit::request_in;
pub use admit::{Admit, admit};
pub use answer::{Parts, reply, reply_with, to_tag, trying_current};
pub use branch::LocalVia;
pub use cancel::{cancel, stop};
pub use ending::end_all;
pub(crate) use ending::refuse;
pub use local::{
    Timeouts, apply_timeouts, arm, inject, inject_into, on_verdict, replicate, wait_for_branches,
};
pub use policy::Policy;
pub use relay::{Relay, new_transaction, relay};
pub use replies::{ReplyStatus, final_replies, on_reply, status_of};
pub use resolve::FoundHops;
pub use stateless::{forward, forward_or_wait, forward_reply, send_to};
pub use txn::{Txn, TxnMut};
pub use ua::{Answer, Done, NewRequest, own_call_id, send_new};
pub use watch::{show_here, with_request};

/// The worker keeps the engine in a slot of a floor that does not know it.
impl Deref for EngineSlot {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.0.downcast_ref().expect("the worker put it there")
    }
}

impl DerefMut for EngineSlot {
    fn deref_mut(&mut self) -> &mut Engine {
        self.0.downcast_mut().expect("the worker put it there")
    }
}

/// What belongs to a transaction besides its state machine.
pub struct TxnData {
    pub msg: Rc<Message>,
    pub source: Path,
    pub avps: Rc<RefCell<crate::avp::Avps>>,
    /// The request as it went downstream: what failure routes and local replies start from.
    pub saved: Option<Box<MsgState>>,
    pub on_reply: Option<RouteId>,
    pub on_failure: Option<RouteId>,
    /// Retransmissions do not run the script again: it waits, or waited.
    pub absorb: bool,
    /// Made because its script waits, not because it asked for it: `t_relay` is to treat it as its own.
    implicit: bool,
    replies: Replies,
    queue: VecDeque<replies::Arrived>,
    activity: Activity,
    /// When its caller hears a 100, if nothing else goes out before.
    trying: TimerKey,
    /// A panic was caught while something was done for it: it has ended, only its end is still told.
    broken: bool,
    /// The tag of To in replies made here.
    pub to_tag: Bytes,
    /// Code of the last local final reply, 0: none (`t_local_replied`).
    pub local_status: u16,
    /// Reason header lines for CANCELs (`t_add_cancel_reason`).
    pub cancel_headers: Bytes,
    /// This server is one of its ends: who hears of it.
    ua: Option<Box<ua::Ua>>,
    /// When its request came.
    created: Instant,
    /// Status that the last reply route or failure route saw (`t_check_status`).
    pub seen_status: u16,
    /// The branch whose reply was decided about last: failure routes call it the current one.
    pub last_heard: Option<u16>,
    /// What modules keep with the transaction, by type: there from `Told::Created` to `Told::Ended`.
    pub ext: Ext,
    /// A reply is held on its way upstream; these follow it.
    leaving: Option<VecDeque<answer::Leaving>>,
}

/// What goes on for the request of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Activity {
    Idle,
    /// `t_relay` has a branch route run, and hears itself how its branches fare.
    BranchRoute,
    /// A failure route runs or waits: it decides itself when it ends.
    FailureRoute,
}

/// Whether the next reply of a transaction has its turn. Apart from [`Activity`]: a reply of a branch that a failure
/// route has opened is not held up while that route waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replies {
    Free,
    /// The routes of one run or wait; later ones queue behind it.
    RouteRuns,
}

/// What belongs to a branch.
pub struct BranchData {
    pub target: Branch,
    pub on_reply: Option<RouteId>,
    /// The negative final reply with the edits of reply routes, in case it is the best.
    reply: Option<Box<MsgState>>,
    /// The status of this branch was made here (timeout, unreachable): its reason.
    pub local_reason: &'static str,
    /// Addresses that are left to try when this one fails.
    ways: branch::Ways,
    /// The script wants one address only: that it failed is not remembered.
    no_failover: bool,
    /// `$bavp`
    pub avps: crate::avp::Avps,
    /// Why it never left.
    failed: Option<branch::SendError>,
}

/// Replies that may wait behind one whose route waits.
const MAX_QUEUE: usize = 32;

/// Transactions of a worker and what belongs to them.
pub struct Engine {
    pub(crate) txns: Transactions<TxnData, BranchData>,
    pub settings: Settings,
    pub policy: Arc<Policy>,
    pub streams: Arc<Streams>,
    refusals: overload::Refusals,
    published: Option<stats::Published>,
}

impl Engine {
    pub fn new(shared: &Shared, worker: u16, seed: u64) -> Engine {
        let policy = shared.policy().clone();
        let settings = policy.settings.clone();
        Engine {
            txns: Transactions::new(settings.config.clone(), worker, seed),
            published: settings.loaded.then(|| stats::Published::new(&shared.stats)),
            settings,
            policy,
            streams: shared.part::<Streams>().clone(),
            refusals: overload::Refusals::new(&shared.stats),
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.txns.next_deadline()
    }

    /// Brings the statistics up to date.
    pub fn publish(&mut self) {
        if let Some(published) = &mut self.published {
            published.update(self.txns.stats(), self.txns.len());
        }
    }

    /// (now, since the start): how many transactions there are.
    pub fn counts(&self) -> (usize, u64) {
        let stats = self.txns.stats();
        (self.txns.len(), stats.created_server + stats.created_local)
    }

    /// Transactions without a final reply that somebody waits for.
    pub fn open(&self) -> usize {
        let open = self.txns.iter().filter(|(id, data)| self.txns.is_open(*id) && !data.is_aside());
        open.count()
    }
}

impl TxnData {
    /// A request of this server that is part of no call: a probe, a ping, a PUBLISH, a REGISTER. The end of the server
    /// does not wait for its reply.
    pub(crate) fn is_aside(&self) -> bool {
        let of_a_call = || self.msg.method() == Method::Invite || self.msg.to_tag().is_some();
        let ours = self.ua.as_ref().is_some_and(|ua| ua.asks());
        ours && (self.msg.method() == Method::Options || !of_a_call())
    }
}

/// What module tm sets before workers start.
#[derive(Clone)]
pub struct Settings {
    pub config: Config,
    pub auto_100: bool,
    /// `onreply_avp_mode` 1
    pub shared_avps: bool,
    /// Mask of `minor_branch_flag`.
    pub minor_flag: u32,
    /// `local_request_route`, `local_reply_route`: they look at what is made here.
    pub request_route: Option<RouteId>,
    pub reply_route: Option<RouteId>,
    /// Module tm is there: its statistics are kept.
    pub loaded: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            config: Config::default(),
            auto_100: true,
            shared_avps: false,
            minor_flag: 0,
            request_route: None,
            reply_route: None,
            loaded: false,
        }
    }
}

/// Sends what the transactions want sent and handles their events.
pub fn drain(ctx: &mut Ctx) {
    while let Some(output) = ctx.core.txns.txns.poll_output() {
        match output {
            transaction::Output::Transmit { txn, path, bytes } => {
                ctx.transmit_for(Some(txn), path, bytes);
            }
            transaction::Output::Event(event) => {
                let (Event::Timeout { txn, .. } | Event::Unanswered { txn } | Event::Ended { txn }) = event;
                // What is left in the queue is not this transaction's.
                let _ = ctx.guarded(txn, |ctx| on_event(ctx, event));
            }
        }
    }
}

fn on_event(ctx: &mut Ctx, event: Event) {
    let now = ctx.core.now;
    match event {
        Event::Timeout { txn, branch, .. } => {
            if let Some(data) = ctx.core.txns.txns.branch_data(txn, branch) {
                data.local_reason = "Request Timeout";
            }
            let verdict = ctx.core.txns.txns.fail_branch(now, txn, branch, 408);
            failure::on_verdict(ctx, txn, verdict);
        }
        Event::Unanswered { txn } => {
            let works =
                |d: &TxnData| d.replies != Replies::Free || d.activity != Activity::Idle || d.ua.is_some();
            if ctx.core.tasks_of.contains_key(&txn) || ctx.core.txns.txns.get(txn).is_some_and(works) {
                ctx.core.txns.txns.hold(now, txn);
            } else {
                failure::nobody_answered(ctx, txn);
            }
        }
        Event::Ended { txn } => {
            trying_no_more(ctx, txn);
            ended(ctx, txn);
        }
    }
}

/// The transaction is over, its data is still there.
fn ended(ctx: &mut Ctx, id: TxnId) {
    watch::tell(ctx, id, Told::Ended, Seen::of(Some(id)));
    ua::over(ctx, id);
    ctx.drop_tasks_of(id);
}

/// Runs what is due, at most so many timers.
pub fn on_timer(ctx: &mut Ctx, at_most: usize) {
    let now = ctx.core.now;
    ctx.core.txns.txns.on_timer(now, at_most);
    drain(ctx);
}

/// A message could not be sent: its branch, if it is a request's, has failed.
pub fn on_undeliverable(ctx: &mut Ctx, _path: Path, mut bytes: Bytes) {
    // It may have grown beyond what is read; only its head matters here.
    bytes.truncate(sip::MAX_MESSAGE);
    let Ok(msg) = Message::parse(bytes) else { return };
    let cookie = msg.via().and_then(|via| via.branch_slice()).and_then(transaction::Cookie::parse);
    let Some(cookie) = cookie.filter(|c| msg.is_request() && c.worker == ctx.core.worker) else { return };
    let (id, branch) = (cookie.txn, cookie.branch);
    if msg.method() == Method::Ack || msg.method() == Method::Cancel {
        return;
    }
    if let Some(data) = ctx.core.txns.txns.branch_data(id, branch) {
        data.local_reason = "Send failed (477/TM)";
    }
    let now = ctx.core.now;
    let verdict = ctx.core.txns.txns.fail_branch(now, id, branch, 477);
    failure::on_verdict(ctx, id, verdict);
}

/// What becomes of a script that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    Waits,
    /// Its request came again and is being dealt with already: this script ends.
    Known,
}

/// The script of `state` waits: makes the server transaction when there is none (100 for an INVITE). From now on
/// the request that comes again is answered before the script.
pub fn hold(ctx: &mut Ctx, state: &mut Box<MsgState>) -> Held {
    if let Some(id) = state.txn {
        // The script made it itself (`t_newtran`).
        let implicit = ctx.core.txns.txns.get_mut(id).is_some_and(|data| {
            data.absorb = true;
            data.implicit
        });
        keep_quiet(ctx, state, id, implicit);
        return Held::Waits;
    }
    if let Some((id, transaction::Relation::Retransmission)) = ctx.core.txns.txns.find(&state.msg) {
        ctx.core.txns.txns.retransmission(id);
        drain(ctx);
        return Held::Known;
    }
    let Some(id) = create(ctx, state) else { return Held::Waits };
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.absorb = true;
        data.implicit = true;
    }
    keep_quiet(ctx, state, id, true);
    Held::Waits
}

/// How long a caller hears nothing while a script waits (RFC 3261 §17.2.1).
const TRYING_AFTER_MS: u64 = 200;

/// An explicit `async()` has its 100 at once, as in the reference; a plain wait only when it takes long.
fn keep_quiet(ctx: &mut Ctx, state: &MsgState, id: TxnId, implicit: bool) {
    if implicit && state.task.in_async() {
        let bytes = trying_bytes(ctx, state, id);
        return trying(ctx, bytes, id);
    }
    if !ctx.core.txns.settings.auto_100
        || state.msg.method() != Method::Invite
        || ctx.core.txns.txns.status(id) != 0
    {
        return;
    }
    let at = ctx.core.now.after(TRYING_AFTER_MS);
    if let Some(data) = ctx.core.txns.txns.get_mut(id).filter(|data| data.trying == TimerKey::NONE) {
        data.trying = ctx.core.timers.set(at, Due::Trying(id));
    }
}

/// The script of an INVITE has waited long without a word to the caller.
pub(crate) fn trying_due(ctx: &mut Ctx, id: TxnId) {
    let waiting = ctx.requests_of(id).first().and_then(|task| {
        let slot = ctx.core.tasks.get(task.index as usize)?;
        slot.state.as_deref().filter(|state| state.msg.is_request())
    });
    let bytes = match (waiting, ctx.core.txns.txns.get(id)) {
        (Some(state), _) => trying_bytes(ctx, state, id),
        (None, Some(data)) => trying_bytes(ctx, &bare_state(ctx, data), id),
        (None, None) => None,
    };
    trying(ctx, bytes, id);
}

/// The caller has been told something.
fn trying_no_more(ctx: &mut Ctx, id: TxnId) {
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        ctx.core.timers.cancel(std::mem::replace(&mut data.trying, TimerKey::NONE));
    }
}

impl Ctx {
    /// What modules keep with a transaction. `None`: it is over.
    pub fn ext_of(&mut self, id: TxnId) -> Option<&mut Ext> {
        self.core.txns.txns.get_mut(id).map(|data| &mut data.ext)
    }
}

impl BranchData {
    fn new(target: Branch) -> BranchData {
        BranchData {
            target,
            on_reply: None,
            reply: None,
            local_reason: "",
            ways: branch::Ways::new(),
            no_failover: false,
            avps: Default::default(),
            failed: None,
        }
    }
}

impl TxnData {
    fn of(state: &MsgState) -> TxnData {
        TxnData {
            msg: state.msg.clone(),
            source: state.source,
            avps: state.avps.clone(),
            saved: None,
            on_reply: None,
            on_failure: None,
            absorb: false,
            implicit: false,
            replies: Replies::Free,
            queue: VecDeque::new(),
            activity: Activity::Idle,
            trying: TimerKey::NONE,
            broken: false,
            to_tag: Bytes::new(),
            local_status: 0,
            cancel_headers: Bytes::new(),
            seen_status: 0,
            last_heard: None,
            created: state.received_at,
            ext: Ext::default(),
            leaving: None,
            ua: None,
        }
    }
}

/// Makes the server transaction of a request. `None`: there are too many.
pub(crate) fn create(ctx: &mut Ctx, state: &mut Box<MsgState>) -> Option<TxnId> {
    ctx.with_state_in(state, create_current)
}

/// The same for the current message.
pub(crate) fn create_current(ctx: &mut Ctx) -> Option<TxnId> {
    let upstream = crate::reply::return_path(ctx, &ctx.state);
    let now = ctx.core.now;
    let msg = ctx.state.msg.clone();
    let Ok(id) = ctx.core.txns.txns.create(now, &msg, upstream, TxnData::of(&ctx.state)) else {
        crate::warn!("tm", "too many transactions: a request is not handled");
        return None;
    };
    set_agent(ctx, id);
    ctx.state.txn = Some(id);
    apply_timeouts(ctx);
    watch::tell_here(ctx, Told::Created, &Seen::of(Some(id)));
    Some(id)
}

/// ACKs and CANCELs made here say who made them.
fn set_agent(ctx: &mut Ctx, id: TxnId) {
    let agent = &ctx.core.txns.policy.signature.user_agent;
    if !agent.is_empty() {
        let line = [b"User-Agent: ", &agent[..], b"\r\n"].concat();
        ctx.core.txns.txns.set_hop_headers(id, line.into());
    }
}

/// The transaction is there because a script waited, which did not ask for one.
pub fn is_implicit(ctx: &Ctx, id: TxnId) -> bool {
    ctx.core.txns.txns.get(id).is_some_and(|data| data.implicit)
}

/// The script asked for the transaction (`t_newtran`): a relay that fails is the script's to answer.
pub fn asked_for(ctx: &mut Ctx, id: TxnId) {
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.implicit = false;
    }
}

/// The main route ended.
pub fn request_done(ctx: &mut Ctx, state: Box<MsgState>, _end: End) {
    let seen = Seen::of(state.txn);
    watch::show(ctx, Moment::RequestEnd, state, seen, |ctx, state, way| {
        if way == watch::Way::On {
            keep_failure_route(ctx, state);
        }
    });
}

/// The failure route of a request that was not relayed may still be wanted, when nobody answers.
fn keep_failure_route(ctx: &mut Ctx, mut state: Box<MsgState>) {
    if let Some(id) = state.txn
        && state.on_failure.is_some()
        && ctx.core.txns.txns.is_open(id)
        && let Some(data) = ctx.core.txns.txns.get_mut(id)
        && data.saved.is_none()
    {
        data.on_failure = state.on_failure;
        // What the script held ends with it (locks): a copy has none of it.
        state.ext = state.ext.clone();
        data.saved = Some(state);
    }
}

/// The negative final reply of a branch; `None`: there was none, its failure was made here.
pub fn branch_reply(ctx: &Ctx, id: TxnId, branch: u16) -> Option<Rc<Message>> {
    ctx.core.txns.txns.branch(id, branch)?.data.reply.as_ref().map(|reply| reply.msg.clone())
}

/// The request of the transaction a reply belongs to, or the reply a failure route looks at.
pub fn other_message(ctx: &mut Ctx, context: Context) -> Option<Box<MsgState>> {
    let id = ctx.state.txn?;
    match context {
        Context::Current => None,
        Context::Request => {
            let data = ctx.core.txns.txns.get(id)?;
            match &data.saved {
                Some(saved) => {
                    let task = Task::new(ctx.core.shared.program(), RouteId(0));
                    Some(saved.fork(saved.kind, task))
                }
                None => Some(bare_state(ctx, data)),
            }
        }
        Context::Reply => {
            let branch = ctx.state.txn_branch?;
            let task = Task::new(ctx.core.shared.program(), RouteId(0));
            let view = ctx.core.txns.txns.branch(id, branch)?;
            view.data.reply.as_ref().map(|reply| reply.fork(reply.kind, task))
        }
    }
}

/// Keeps the request as it goes downstream, once.
pub(crate) fn save_request(ctx: &mut Ctx, id: TxnId) {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let mut saved = ctx.state.fork(ctx.state.kind, task);
    saved.branches.clear();
    crate::branches::forget_request_attributes(&mut saved);
    saved.after = After::Nothing;
    saved.txn = Some(id);
    if let Some(data) = ctx.core.txns.txns.get_mut(id) {
        data.on_reply = saved.on_reply;
        data.on_failure = saved.on_failure;
        if data.saved.is_none() {
            data.saved = Some(saved);
        }
    }
}
