//! `t_relay`: transaction, branches, branch routes, sending.

use super::branch::{self, SendError, lookup_of};
use super::resolve::{FoundHops, LOOKUP_MS, Lookup, when_known};
use super::watch::{Way, show};
use super::{Activity, BranchData, cancel, create_current, drain, failure, save_request, trying_current};
use crate::blacklist::{Going, InUse};
use crate::branches::request_branch;
use crate::call::{Finish, Outcome};
use crate::ctx::{After, Branch, Ctx, MsgState};
use crate::watch::{Moment, Seen};
use bytes::Bytes;
use script::ast::RouteKind;
use script::{End, RouteId, Task};
use sip::Method;
use sip::names::Query;
use transaction::{Path, Refused, Relation, TxnId, Verdict};

/// How a request is relayed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relay {
    /// Flag 0x01: no 100 to an INVITE.
    pub no_100: bool,
    /// `no-auto-477`: a relay that fails is not answered here.
    pub no_477: bool,
    /// `pass-reason-hdr`: the Reason of a CANCEL goes on with it.
    pub pass_reason: bool,
    /// `allow-no-cancel`: a 2xx leaves the other branches alone when the caller asks for it (RFC 3841).
    pub keep_branches: bool,
    /// `no-dns-failover`: only the first address of a name is tried.
    pub no_failover: bool,
    /// Next hop for all branches.
    pub proxy: Option<Bytes>,
}

/// `t_newtran`: 1 made (or there already), 0 a retransmission (answered here, the script ends), -1 error.
pub fn new_transaction(ctx: &mut Ctx) -> i32 {
    if ctx.state.txn.is_some() {
        return 1;
    }
    let msg = ctx.state.msg.clone();
    if !msg.is_request() || msg.method() == Method::Ack {
        return 1;
    }
    if msg.from().is_none() || !msg.has_to() || msg.call_id().is_none() || msg.cseq_slices().is_none() {
        return -1;
    }
    if let Some((id, Relation::Retransmission)) = ctx.core.txns.txns.find(&msg) {
        ctx.core.txns.txns.retransmission(id);
        drain(ctx);
        return 0;
    }
    if create_current(ctx).is_some() { 1 } else { -1 }
}

/// `t_relay`: 1 sent, or not sent and answered here; 0 ends the script (a retransmission); negative: see
/// [`SendError::code`], -3 when no branch may be added. Waits while names are looked up.
pub fn relay(ctx: &mut Ctx, mut how: Relay) -> Outcome {
    if ctx.state.kind == RouteKind::OnReply || !ctx.state.msg.is_request() {
        return Outcome::Done(-1);
    }
    how.no_failover |= ctx.core.txns.policy.no_failover;
    let missing = missing_lookups(ctx, &how);
    when_known(ctx, "t_relay", missing, move |ctx| {
        let rc = relay_now(ctx, how);
        // A defect in a branch route has answered the caller: the script has nothing left to say.
        let broken = ctx.state.txn.and_then(|id| ctx.core.txns.txns.get(id)).is_some_and(|data| data.broken);
        if broken { 0 } else { rc }
    })
}

/// Names of destinations that this script has not looked up yet. A branch route may still change them.
fn missing_lookups(ctx: &Ctx, how: &Relay) -> Vec<Query> {
    let state = &ctx.state;
    if state.on_branch.is_some() {
        return Vec::new();
    }
    let mut missing: Vec<Query> = Vec::new();
    for branch in std::iter::once(&request_branch(state)).chain(&state.branches) {
        if let Some(target) = lookup_of(&ctx.core.shared.sockets, branch, how.proxy.as_ref())
            && FoundHops::of(state, &target).is_none()
            && !missing.contains(&target)
        {
            missing.push(target);
        }
    }
    missing
}

fn relay_now(ctx: &mut Ctx, how: Relay) -> i32 {
    match ctx.state.msg.method() {
        Method::Ack => {
            let msg = ctx.state.msg.clone();
            return match ctx.core.txns.txns.find(&msg) {
                // It was for a reply that went out from here: its way ends.
                Some((_, Relation::Ack)) => 1,
                _ => super::forward(ctx, how.proxy.as_ref()),
            };
        }
        Method::Cancel => {
            if how.pass_reason {
                super::cancel::keep_reason(ctx);
            }
            if let Some(rc) = cancel(ctx) {
                return rc;
            }
        }
        // An R-URI that is none is not even answered here.
        _ if ctx.state.txn.is_none() && sip::Uri::parse(&ctx.state.current_uri()).is_err() => {
            let uri = ctx.state.current_uri();
            branch::complain(ctx, &uri, SendError::BadUri);
            return SendError::BadUri.code();
        }
        _ => {}
    }
    let implicit = |d: &mut super::TxnData| std::mem::take(&mut d.implicit);
    let fresh = match ctx.state.txn {
        Some(id) => ctx.core.txns.txns.get_mut(id).is_some_and(implicit),
        None => true,
    };
    match new_transaction(ctx) {
        1 => {}
        other => return other,
    }
    let Some(id) = ctx.state.txn else { return -1 };
    if !ctx.core.txns.txns.is_open(id) {
        return -1;
    }
    if !how.no_100 && ctx.state.kind == RouteKind::Request {
        trying_current(ctx, id);
    }
    if how.keep_branches && super::cancel::asks_no_cancel(&ctx.state.msg) {
        ctx.core.txns.txns.keep_branches(id);
    }
    if ctx.state.kind == RouteKind::Failure {
        let (on_reply, on_failure) = (ctx.state.on_reply, ctx.state.on_failure);
        if let Some(data) = ctx.core.txns.txns.get_mut(id) {
            data.on_reply = on_reply.or(data.on_reply);
            data.on_failure = on_failure;
        }
    } else {
        save_request(ctx, id);
    }
    ctx.core.txns.txns.begin_set(id);
    let Err(failed) = open_branches(ctx, id, &how) else { return 1 };
    if fresh && !how.no_477 {
        let (code, reason) = failed.reply();
        if super::reply(ctx, id, code, reason.as_bytes()) > 0 {
            return 1;
        }
    }
    failed.code()
}

/// Opens and sends all branches of the current message. The error is the last branch's.
pub(super) fn open_branches(ctx: &mut Ctx, id: TxnId, how: &Relay) -> Result<(), SendError> {
    let mut targets = vec![request_branch(&ctx.state)];
    // Branch routes see the list; attributes are those of the branches that are opened from now on.
    let shown = if ctx.state.on_branch.is_some() { ctx.state.branches.clone() } else { Vec::new() };
    targets.append(&mut ctx.state.branches);
    crate::branches::forget_request_attributes(&mut ctx.state);
    ctx.state.branches = shown;
    let opened = open_targets(ctx, id, how, targets);
    ctx.state.branches.clear();
    opened
}

/// Opens and sends branches of the current request. The error is the last branch's.
pub(super) fn open_targets(
    ctx: &mut Ctx,
    id: TxnId,
    how: &Relay,
    targets: Vec<Branch>,
) -> Result<(), SendError> {
    let route = ctx.state.on_branch;
    let mut error = SendError::Dropped;
    let mut sent = 0;
    for (at, target) in targets.into_iter().enumerate() {
        if let Some(opened) = at.checked_sub(1).and_then(|at| ctx.state.branches.get_mut(at)) {
            opened.values.clear();
        }
        let data = BranchData::new(target.clone());
        let minor = ctx.core.txns.settings.minor_flag & target.flags != 0;
        let number = match ctx.core.txns.txns.open_branch(id, data) {
            Ok(number) => number,
            Err(refused) => {
                error = match refused {
                    Refused::Blocked => SendError::Blocked,
                    Refused::Full | Refused::Answered => SendError::Dropped,
                };
                break;
            }
        };
        if minor {
            ctx.core.txns.txns.set_minor(id, number);
        }
        match route {
            route if route.is_some() || ctx.core.shared.hooks.watch.watches(Moment::RequestOut) => {
                let state = branch_state(ctx, id, number, target, route, how);
                if let Some(data) = ctx.core.txns.txns.get_mut(id) {
                    data.activity = Activity::BranchRoute;
                }
                match route {
                    Some(_) => ctx.run(state),
                    None => leave(ctx, id, number, state, how.clone()),
                }
                if let Some(data) = ctx.core.txns.txns.get_mut(id) {
                    let failing = ctx.state.kind == RouteKind::Failure;
                    data.activity = if failing { Activity::FailureRoute } else { Activity::Idle };
                }
                match ctx.core.txns.txns.branch(id, number) {
                    Some(b) if b.is_pending => sent += 1,
                    Some(b) => error = b.data.failed.unwrap_or(SendError::Dropped),
                    None => {}
                }
            }
            _ => {
                let sending = send_branch(ctx, id, number, None, &target, how);
                match sending {
                    Ok(()) => sent += 1,
                    // `t_relay` has asked for its names before; branches that join later have not.
                    Err(SendError::NotYet) => {
                        let task = Task::new(ctx.core.shared.program(), script::RouteId(0));
                        let state = ctx.state.fork(ctx.state.kind, task);
                        look_up(ctx, id, number, state, target, how.clone());
                        sent += 1;
                    }
                    Err(e) => {
                        error = e;
                        fail(ctx, id, number, e);
                    }
                }
            }
        }
    }
    drain(ctx);
    if sent > 0 { Ok(()) } else { Err(error) }
}

/// A branch as a message of its own, with its branch route if there is one.
fn branch_state(
    ctx: &mut Ctx,
    id: TxnId,
    number: u16,
    target: Branch,
    route: Option<RouteId>,
    how: &Relay,
) -> Box<MsgState> {
    let task = Task::new(ctx.core.shared.program(), route.unwrap_or(RouteId(0)));
    let mut state = ctx.state.fork(RouteKind::Branch, task);
    (state.ruri, state.dst_uri, state.path) = (Some(target.uri), target.dst_uri, target.path);
    // `$ru_q` is the request's, whatever branch it is about, as in the reference.
    (state.branch_flags, state.socket) = (target.flags, target.socket);
    state.txn_branch = Some(number);
    state.on_branch = None;
    state.on_reply = None;
    let how = how.clone();
    state.after = After::Then(Box::new(move |ctx, state, end| {
        branch_ready(ctx, id, number, state, end, how);
    }));
    state
}

/// Sends a branch, made of the current message or of what its branch route left.
fn send_branch(
    ctx: &mut Ctx,
    id: TxnId,
    number: u16,
    state: Option<&MsgState>,
    target: &Branch,
    how: &Relay,
) -> Result<(), SendError> {
    let state = state.unwrap_or(&ctx.state);
    let mut ways = branch::paths_of(ctx, state, target, how.proxy.as_ref())?;
    if how.no_failover {
        ways.truncate(1);
        // That of the whole server leaves the memory of failures alone, as in the reference.
        let by_script = !ctx.core.txns.policy.no_failover;
        if let Some(data) = ctx.core.txns.txns.branch_data(id, number) {
            data.no_failover = by_script;
        }
    }
    let cookie = ctx.core.txns.txns.via_branch(id, number);
    let mut bytes = branch::print(ctx, state, None, target, &ways[0], &cookie);
    if bytes.len() > ctx.core.txns.policy.longest_datagram
        && let Some(stream) = branch::instead_of_datagram(ctx, state, target, &ways[0])
    {
        // The datagram stays for a next hop that takes no TCP.
        ways.insert(0, stream);
        bytes = branch::print(ctx, state, None, target, &stream, &cookie);
    }
    let (path, now) = (ways[0], ctx.core.now);
    if ways.len() > 1
        && let Some(data) = ctx.core.txns.txns.branch_data(id, number)
    {
        data.ways = ways[1..].into();
    }
    ctx.core.txns.txns.send(now, id, number, bytes, path);
    Ok(())
}

/// The branch route ended: the branch leaves, unless it said `drop`.
fn branch_ready(ctx: &mut Ctx, id: TxnId, number: u16, state: Box<MsgState>, end: End, how: Relay) {
    if ctx.state.txn == Some(id) {
        ctx.state.ruri_q = state.ruri_q;
    }
    if let Some(data) = ctx.core.txns.txns.branch_data(id, number) {
        data.on_reply = state.on_reply;
    }
    let verdict = match end {
        // Its number is free for the next one.
        End::Drop if ctx.core.txns.txns.drop_branch(id, number) => Verdict::Absorb,
        End::Drop => fail(ctx, id, number, SendError::Dropped),
        _ => return leave(ctx, id, number, state, how),
    };
    settle(ctx, id, verdict);
}

/// Watchers see the branch, then it is sent.
fn leave(ctx: &mut Ctx, id: TxnId, number: u16, state: Box<MsgState>, how: Relay) {
    let seen = Seen::of(Some(id)).branch(number);
    show(ctx, Moment::RequestOut, state, seen, move |ctx, state, way| {
        let mut target = request_branch(&state);
        let minor = ctx.core.txns.settings.minor_flag & target.flags != 0;
        if let Some(data) = ctx.core.txns.txns.branch_data(id, number) {
            (target.q, target.attrs) = (data.target.q, data.target.attrs.clone());
            target.values = std::mem::take(&mut data.target.values);
            data.target = target.clone();
        }
        if minor {
            ctx.core.txns.txns.set_minor(id, number);
        }
        let sending = match way {
            Way::On => send_branch(ctx, id, number, Some(&state), &target, &how),
            Way::Stopped => Err(SendError::Dropped),
        };
        let verdict = match sending {
            Ok(()) => Verdict::Absorb,
            Err(SendError::NotYet) => return look_up(ctx, id, number, state, target, how),
            Err(error) => fail(ctx, id, number, error),
        };
        settle(ctx, id, verdict);
    });
}

/// Within `t_relay` the script hears of it; a branch that waited has nobody else to tell.
fn settle(ctx: &mut Ctx, id: TxnId, verdict: Verdict) {
    let waited = ctx.core.txns.txns.get(id).is_none_or(|d| d.activity == Activity::Idle);
    drain(ctx);
    if waited {
        failure::on_verdict(ctx, id, verdict);
    }
}

/// The branch goes out when its name is known; the script does not wait for it.
fn look_up(ctx: &mut Ctx, id: TxnId, number: u16, mut state: Box<MsgState>, target: Branch, how: Relay) {
    let Some(lookup) = Lookup::of(ctx, &target, how.proxy.as_ref()) else {
        let verdict = fail(ctx, id, number, SendError::Unresolvable);
        return failure::on_verdict(ctx, id, verdict);
    };
    let detail = lookup.host();
    let known = async move {
        let answer = lookup.answer().await;
        Box::new(move |ctx: &mut Ctx| {
            answer.keep(&mut state);
            if let Err(error) = send_branch(ctx, id, number, Some(&state), &target, &how) {
                let verdict = fail(ctx, id, number, error);
                failure::on_verdict(ctx, id, verdict);
            }
            drain(ctx);
            1
        }) as Finish
    };
    let too_late = Box::new(move |ctx: &mut Ctx| {
        let verdict = fail(ctx, id, number, SendError::Unresolvable);
        failure::on_verdict(ctx, id, verdict);
        -1
    });
    ctx.spawn_for(id, "t_relay", detail, LOOKUP_MS, known, too_late);
}

/// The winner gave no answer, or said 503: the same request goes to the next address of its name
/// (RFC 3263 §4.3) that no blacklist forbids meanwhile. False: there is none. The address that failed is remembered, if
/// the configuration wants that.
pub(super) fn next_way(ctx: &mut Ctx, id: TxnId, failed: u16) -> bool {
    let (now, lists) = (ctx.core.now, ctx.core.txns.policy.blacklists.clone());
    let txns = &mut ctx.core.txns.txns;
    let used = txns.get(id).and_then(|data| data.saved.as_ref()?.ext.find::<InUse>().copied());
    let Some(view) = txns.branch(id, failed) else { return false };
    let silent = view.received == 0 && matches!(view.status, 408 | 477);
    if !(silent || view.received == 503) {
        return false;
    }
    let (data, bytes) = (view.data, view.bytes.clone());
    if let Some(gone) = view.path.filter(|_| !data.no_failover) {
        lists.remember_failed(gone.transport, gone.remote, now);
    }
    if !txns.is_open(id) || txns.was_cancelled(id) {
        return false;
    }
    let allowed = |way: &Path| {
        let going = Going { transport: Some(way.transport), addr: way.remote, message: &bytes, now };
        !lists.block(used.unwrap_or_default(), &going)
    };
    let Some(at) = data.ways.iter().position(allowed) else { return false };
    let path = data.ways[at];
    let next = BranchData {
        on_reply: data.on_reply,
        avps: data.avps.clone(),
        ways: data.ways[at + 1..].into(),
        ..BranchData::new(data.target.clone())
    };
    let Ok(number) = txns.open_branch(id, next) else { return false };
    let cookie = txns.via_branch(id, number);
    let bytes = branch::readdressed(ctx, bytes, &path, &cookie);
    ctx.core.txns.txns.send(now, id, number, bytes, path);
    drain(ctx);
    true
}

/// The branch does not leave.
fn fail(ctx: &mut Ctx, id: TxnId, number: u16, error: SendError) -> Verdict {
    let (status, reason) = error.reply();
    let target = ctx.core.txns.txns.branch(id, number).map(|branch| branch.data.target.clone());
    if let Some(target) = target {
        branch::complain(ctx, branch::next_hop(&target, None), error);
    }
    if let Some(data) = ctx.core.txns.txns.branch_data(id, number) {
        data.local_reason = reason;
        data.failed = Some(error);
    }
    let now = ctx.core.now;
    ctx.core.txns.txns.fail_branch(now, id, number, status)
}
