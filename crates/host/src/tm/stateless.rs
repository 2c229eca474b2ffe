//! Forwarding without a transaction: ACKs, `forward()`, `send()`, stray replies.

use super::branch::{self, SendError, path_of};
use crate::branches::request_branch;
use crate::ctx::{Ctx, MsgState, Resolved};
use bytes::Bytes;
use sip::SocketNames;
use std::net::SocketAddr;
use transaction::Path;

/// Sends the current request on by its R-URI, `$du` or `proxy`. 1 sent, negative not.
pub fn forward(ctx: &mut Ctx, proxy: Option<&Bytes>) -> i32 {
    let mut targets = vec![request_branch(&ctx.state)];
    targets.append(&mut ctx.state.branches);
    let mut result = -1;
    for (i, target) in targets.iter().enumerate() {
        let path = match path_of(ctx, &ctx.state, target, proxy) {
            Ok(path) => path,
            Err(SendError::NotYet) => {
                forward_later(ctx, target.clone(), proxy.cloned(), i);
                result = 1;
                continue;
            }
            Err(_) => continue,
        };
        let cookie = via_branch(ctx, i);
        let bytes = branch::print(ctx, &ctx.state, None, target, &path, &cookie);
        ctx.transmit(path, bytes);
        result = 1;
    }
    result
}

/// The name is looked up beside the script; the request follows.
fn forward_later(ctx: &mut Ctx, target: crate::ctx::Branch, proxy: Option<Bytes>, number: usize) {
    let Some(wanted) = branch::lookup_of(&target, proxy.as_ref()) else { return };
    let Resolved::Later(future) = ctx.core.spawner.resolve(wanted.clone()) else { return };
    let task = script::Task::new(ctx.core.shared.program(), script::RouteId(0));
    let mut state = ctx.state.fork(ctx.state.kind, task);
    ctx.spawn("forward", 10_000, async move {
        let found = future.await.unwrap_or_default();
        Box::new(move |ctx: &mut Ctx| {
            state.ext.entry::<branch::Found>().0.push((wanted, found));
            if let Ok(path) = path_of(ctx, &state, &target, proxy.as_ref()) {
                let outer = std::mem::replace(&mut ctx.state, state);
                let cookie = via_branch(ctx, number);
                let bytes = branch::print(ctx, &ctx.state, None, &target, &path, &cookie);
                ctx.state = outer;
                ctx.transmit(path, bytes);
            }
            1
        }) as crate::call::Finish
    });
}

/// The Via branch of a request forwarded without a transaction: the same for its retransmissions
/// (RFC 3261 §16.11), not one that a transaction would have.
fn via_branch(ctx: &Ctx, number: usize) -> Vec<u8> {
    let msg = &ctx.state.msg;

    let via = msg.via();
    let branch = via.as_ref().and_then(|v| v.branch());

    format!(
        "z9hG4bKs{:016x}.{number}",
        ctx.core.shared.tag_secret.hash_one(&(
            branch,
            via.map(|v| (v.host, v.port)),
            msg.call_id(),
            msg.from_tag(),
            msg.cseq_parts().map(|c| c.0),
            msg.request_uri(),
        ))
    )
    .into_bytes()
}

/// Sends the current message as it stands to an address, without a Via of ours (`send()`).
pub fn send_to(ctx: &mut Ctx, uri: &Bytes) -> i32 {
    let target =
        crate::ctx::Branch { uri: ctx.state.current_uri(), dst_uri: Some(uri.clone()), ..Default::default() };
    let Ok(path) = path_of(ctx, &ctx.state, &target, None) else { return -1 };
    let send = branch::names_of(ctx, &ctx.state, path.socket);
    let print = sip::PrintTarget {
        uri: &target.uri,
        via: b"",
        via_params: b"",
        extra: b"",
        send: &send,
        received: &send,
    };
    let bytes = sip::print_request(&ctx.state.msg, &[&ctx.state.edits], &print);
    ctx.transmit(path, bytes);
    1
}

/// Sends a reply of no transaction on by its second Via (RFC 3261 §16.7 step 2, §18.1.2).
pub fn forward_reply(ctx: &mut Ctx, state: &MsgState) {
    let vias = state.msg.vias();
    let (Some(top), Some(next)) = (vias.first(), vias.get(1)) else { return };
    // Only what this server sent comes back to it.
    if !ctx.core.shared.is_myself(&top.host, if top.port == 0 { 5060 } else { top.port }, None) {
        return;
    }
    let Some(transport) = next.transport() else { return };
    let host = next.received().unwrap_or_else(|| next.host.clone());
    let port = match next.rport() {
        Some(Some(port)) => port,
        _ if next.port != 0 => next.port,
        _ => transport.default_port(),
    };
    let text = String::from_utf8_lossy(&host).into_owned();
    let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() else { return };
    let remote = SocketAddr::new(ip, port);
    let names = |socket: u16| -> SocketNames {
        ctx.core.shared.sockets.get(usize::from(socket)).map(|s| s.names.clone()).unwrap_or_default()
    };
    let names = names(state.source.socket);
    let status = super::replies::changed_status(state).filter(|_| !(200..300).contains(&state.msg.status()));
    let status = status.as_ref().map(|(code, reason)| (*code, &reason[..]));
    let bytes = sip::print_reply(&state.msg, &state.edits, status, &names, &names);
    let path = Path { socket: state.source.socket, transport, remote, connection: 0 };
    ctx.transmit(path, bytes);
}
