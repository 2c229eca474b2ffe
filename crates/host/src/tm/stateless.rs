//! Forwarding without a transaction: ACKs, `forward()`, `send()`, stray replies.

use super::branch::{self, SendError, path_of};
use super::resolve;
use super::watch::{Way, show};
use crate::branches::request_branch;
use crate::call::Outcome;
use crate::ctx::{Branch, Ctx, MsgState};
use crate::watch::{Moment, Seen};
use bytes::Bytes;
use script::{RouteId, Task};
use sip::{Message, Via};
use std::net::SocketAddr;
use transaction::Path;

/// Sends the current request on by `proxy`, `$du` or its R-URI. 1 sent, negative not. Names must be
/// known ([`forward_or_wait`]).
pub fn forward(ctx: &mut Ctx, proxy: Option<&Bytes>) -> i32 {
    let msg = &ctx.state.msg;
    if msg.call_id().is_none() || msg.cseq_slices().is_none() {
        return -1;
    }
    if !ctx.core.shared.hooks.watch.watches(Moment::ForwardOut) {
        return match printed(ctx, &ctx.state, proxy) {
            Ok((path, bytes)) => forwarded(ctx, path, bytes),
            Err(error) => unsent(ctx, proxy, error),
        };
    }
    if let Err(error) = path_of(ctx, &ctx.state, &request_branch(&ctx.state), proxy) {
        return unsent(ctx, proxy, error);
    }
    let copy = ctx.state.fork(ctx.state.kind, Task::new(ctx.core.shared.program(), RouteId(0)));
    let (seen, proxy) = (Seen::of(ctx.state.txn), proxy.cloned());
    show(ctx, Moment::ForwardOut, copy, seen, move |ctx, state, way| {
        if let (Way::On, Ok((path, bytes))) = (way, printed(ctx, &state, proxy.as_ref())) {
            forwarded(ctx, path, bytes);
        }
    });
    1
}

/// A request as it is forwarded, and where to.
fn printed(ctx: &Ctx, state: &MsgState, proxy: Option<&Bytes>) -> Result<(Path, Bytes), SendError> {
    let target = request_branch(state);
    let path = path_of(ctx, state, &target, proxy)?;
    let via = state.msg.via().ok_or(SendError::Dropped)?;
    let cookie = via_branch(ctx, &state.msg, via);
    Ok((path, branch::print(ctx, state, None, &target, &path, &cookie)))
}

fn forwarded(ctx: &mut Ctx, path: Path, bytes: Bytes) -> i32 {
    ctx.core.traffic.forwarded_requests.up();
    ctx.transmit(path, bytes);
    1
}

fn unsent(ctx: &mut Ctx, proxy: Option<&Bytes>, error: SendError) -> i32 {
    let target = request_branch(&ctx.state);
    branch::complain(ctx, branch::next_hop(&target, proxy), error);
    error.code()
}

/// The same; waits while a name is looked up.
pub fn forward_or_wait(ctx: &mut Ctx, proxy: Option<Bytes>) -> Outcome {
    if !ctx.state.msg.is_request() {
        return Outcome::Done(-1);
    }
    let target = request_branch(&ctx.state);
    when_known(ctx, "forward", target, proxy, |ctx, _, proxy| match forward(ctx, proxy.as_ref()) {
        // `t_relay()` of an ACK says -5.
        rc if rc == SendError::Filtered.code() => -1,
        rc => rc,
    })
}

/// Goes on with `then` once the address of the next hop is known.
fn when_known(
    ctx: &mut Ctx,
    what: &'static str,
    target: Branch,
    proxy: Option<Bytes>,
    then: impl FnOnce(&mut Ctx, &Branch, Option<Bytes>) -> i32 + 'static,
) -> Outcome {
    let waits = matches!(path_of(ctx, &ctx.state, &target, proxy.as_ref()), Err(SendError::NotYet));
    let wanted = branch::lookup_of(&ctx.core.shared.sockets, &target, proxy.as_ref()).filter(|_| waits);
    let wanted = wanted.into_iter().collect();
    resolve::when_known(ctx, what, wanted, move |ctx| then(ctx, &target, proxy))
}

/// The Via branch of a request forwarded without a transaction, made from the Via below it: the same
/// for retransmissions (RFC 3261 §16.11), not one that a transaction would have, and known again when
/// the reply brings it back.
fn via_branch(ctx: &Ctx, msg: &Message, below: &Via) -> Vec<u8> {
    let hash = ctx.core.shared.tag_secret.hash_one(&(
        below.branch(),
        (below.host(), below.port),
        msg.call_id(),
        msg.from_tag(),
        msg.cseq_parts().map(|c| c.0),
    ));
    format!("z9hG4bKs{hash:016x}.0").into_bytes()
}

/// Sends the current message to a URI as it came in, with more header lines on top (`send()`). 1 sent,
/// negative not; waits while a name is looked up.
pub fn send_to(ctx: &mut Ctx, uri: Bytes, headers: Bytes) -> Outcome {
    let target = Branch { uri, ..Branch::default() };
    when_known(ctx, "send", target, None, move |ctx, target, _| {
        let path = match path_of(ctx, &ctx.state, target, None) {
            Ok(path) => path,
            Err(error) => {
                branch::complain(ctx, branch::next_hop(target, None), error);
                return error.code();
            }
        };
        let mut edits = sip::Edits::default();
        if !headers.is_empty() {
            edits.insert(sip::Anchor::Top, headers);
        }
        let names = branch::names_of(ctx, &ctx.state, &path);
        let bytes = sip::print_as_received(&ctx.state.msg, &edits, &names);
        ctx.transmit(path, bytes);
        1
    })
}

/// Sends a reply of no transaction on by its second Via (RFC 3261 §16.7 step 2, §18.1.2).
pub fn forward_reply(ctx: &mut Ctx, state: Box<MsgState>) {
    if !ctx.core.txns.policy.forwards {
        ctx.core.traffic.dropped_replies.up();
        return;
    }
    let vias = state.msg.vias();
    let (Some(top), Some(next)) = (vias.first(), vias.get(1)) else { return };
    // Only what this server sent comes back to it.
    let port = if top.port == 0 { 5060 } else { top.port };
    let named = ctx.core.shared.is_myself(top.host(), port, None);
    let sent = || top.branch().is_some_and(|b| b[..] == via_branch(ctx, &state.msg, next)[..]);
    if !named && (ctx.core.txns.policy.check_via || !sent()) {
        return;
    }
    let Some(transport) = next.transport() else { return };
    let host = next.received().unwrap_or_else(|| next.host_text());
    let port = match next.rport() {
        Some(Some(port)) => port,
        _ if next.port != 0 => next.port,
        _ => transport.default_port(),
    };
    let text = String::from_utf8_lossy(&host).into_owned();
    let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() else { return };
    let remote = SocketAddr::new(ip, port);
    let socket = state.source.socket;
    let local = branch::leaving_by(ctx, socket, remote);
    let path = Path { socket, transport, remote, local, connection: 0 };
    let seen = Seen::of(None).status(super::status_of(&state).0);
    show(ctx, Moment::ReplyOut, state, seen, move |ctx, state, way| {
        if way == Way::On {
            let bytes = printed_reply(ctx, &state, &path);
            ctx.core.traffic.forwarded_replies.up();
            ctx.transmit(path, bytes);
        }
    });
}

fn printed_reply(ctx: &Ctx, state: &MsgState, path: &Path) -> Bytes {
    let (send, received) = (branch::socket_names(ctx, path), branch::socket_names(ctx, &state.source));
    let status = super::replies::changed_status(state).filter(|_| !(200..300).contains(&state.msg.status()));
    let status = status.as_ref().map(|(code, reason)| (*code, &reason[..]));
    sip::print_reply(&state.msg, &state.edits, status, &send, &received)
}
