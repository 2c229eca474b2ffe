//! Session descriptions as the ends were shown them, where they were changed on their way: a re-INVITE of the server
//! repeats what its receiver knows.

use super::cell::{CALLER, Text};
use super::link::{self, Link};
use super::{create, table};
use host::Ctx;
use host::shared::Hooks;
use host::watch::{Moment, Seen};
use sip::Method;
use transaction::Origin;

/// What the INVITE carried when it left, kept with its transaction until a callee is known.
#[derive(Clone, Default)]
pub struct Left(pub Option<Text>);

pub fn ready(hooks: &mut Hooks) {
    hooks.watch.on(Moment::RequestOut, |ctx, _| request(ctx));
    hooks.watch.on(Moment::ReplyOut, reply);
}

/// The body of the current message if it is a session description that was changed.
fn changed(ctx: &Ctx) -> Option<Text> {
    let (msg, edits) = (&ctx.state.msg, &ctx.state.edits);
    if edits.is_empty() {
        return None;
    }
    create::body(msg)?;
    let body = sip::edited_body(msg, edits);
    let same = msg.bytes(msg.body()) == &body[..];
    if same || body.is_empty() { None } else { Some(body[..].into()) }
}

fn carries_session(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Ack | Method::Prack)
}

fn request(ctx: &mut Ctx) {
    if !carries_session(ctx.state.msg.method()) {
        return;
    }
    let Some((key, towards)) = link::own(ctx) else { return };
    if create::body(&ctx.state.msg).is_none() {
        return;
    }
    let body = changed(ctx);
    if ctx.state.msg.to_tag().is_some() {
        if let Some(leg) = table::of(ctx).get_mut(key).and_then(|d| d.leg_mut(towards)) {
            leg.note_sent(body);
        }
    } else if let (Some(body), Some(id)) = (body, ctx.state.txn)
        && let Some(ext) = ctx.ext_of(id)
    {
        ext.set(Left(Some(body)));
    }
}

fn reply(ctx: &mut Ctx, seen: &Seen) {
    let answers =
        ctx.state.msg.cseq_parts().is_some_and(|(_, method)| carries_session(Method::parse(&method)));
    if seen.origin != Origin::Relayed || !answers || create::body(&ctx.state.msg).is_none() {
        return;
    }
    let Some(id) = seen.txn else { return };
    let Some((key, Link { towards, .. })) = link::of_txn(ctx, id) else { return };
    let body = changed(ctx);
    let Some(dialog) = table::of(ctx).get_mut(key) else { return };
    // The reply goes to the end that the request came from.
    let to = dialog.other(towards.unwrap_or(1));
    let to = if towards.is_none_or(|t| t != CALLER) { CALLER } else { to };
    if let Some(leg) = dialog.leg_mut(to) {
        leg.note_sent(body);
    }
}
