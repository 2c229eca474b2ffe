//! Replies made here to the request of a transaction.

use super::branch::socket_names;
use super::watch::{Way, show, tell};
use super::{MAX_QUEUE, TxnData, drain, ua};
use crate::ctx::{Ctx, MsgState};
use crate::reply::Maker;
use crate::watch::{Moment, Seen, Told};
use bytes::Bytes;
use script::ast::RouteKind;
use script::{RouteId, Task};
use sip::{Message, Method, SocketNames};
use transaction::{Origin, Replied, TxnId};

/// The 100 for an INVITE; `None` when none is due.
pub(super) fn trying_bytes(ctx: &Ctx, state: &MsgState, id: TxnId) -> Option<Bytes> {
    if !ctx.core.txns.settings.auto_100
        || state.msg.method() != Method::Invite
        || ctx.core.txns.txns.status(id) != 0
    {
        return None;
    }
    let reason: &[u8] = match ctx.core.shared.dialect {
        script::ast::Dialect::V21 => b"Giving a try",
        script::ast::Dialect::V4 => b"Giving it a try",
    };
    Some(crate::reply::build(ctx, state, 100, reason, None))
}

/// 100 to an INVITE that has had no reply yet.
pub(crate) fn trying(ctx: &mut Ctx, bytes: Option<Bytes>, id: TxnId) {
    if let Some(bytes) = bytes {
        super::trying_no_more(ctx, id);
        let now = ctx.core.now;
        ctx.core.txns.txns.reply(now, id, 100, bytes, Origin::Here);
        drain(ctx);
    }
}

/// The same for the current message.
pub fn trying_current(ctx: &mut Ctx, id: TxnId) {
    let bytes = trying_bytes(ctx, &ctx.state, id);
    trying(ctx, bytes, id);
}

/// The tag of To in replies made here to the request of a transaction.
pub fn to_tag(ctx: &Ctx, id: TxnId) -> Bytes {
    match ctx.core.txns.txns.get(id) {
        Some(data) if data.to_tag.is_empty() => crate::reply::to_tag(ctx, &data.msg, Maker::Transaction),
        Some(data) => data.to_tag.clone(),
        None => Bytes::new(),
    }
}

/// A reply made here to the request of a transaction, with the headers and body that the current
/// script gave it. 1 sent, -1 not.
pub fn reply(ctx: &mut Ctx, id: TxnId, code: u16, reason: &[u8]) -> i32 {
    reply_with(ctx, id, code, reason, Parts::default())
}

/// What a reply has that no script gave it.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Empty: the transaction's own.
    pub to_tag: Bytes,
    /// Whole lines.
    pub headers: Bytes,
    pub body: Bytes,
}

/// `reply` with further headers, a body, a tag.
pub fn reply_with(ctx: &mut Ctx, id: TxnId, code: u16, reason: &[u8], parts: Parts) -> i32 {
    if !(100..700).contains(&code) {
        return -1;
    }
    if !parts.to_tag.is_empty()
        && let Some(data) = ctx.core.txns.txns.get_mut(id)
    {
        data.to_tag = parts.to_tag.clone();
    }
    let tag = to_tag(ctx, id);
    let tag = (code != 100).then_some(&tag[..]);
    let here = ctx.state.txn == Some(id) && ctx.state.msg.is_request();
    let bytes = {
        let Some(data) = ctx.core.txns.txns.get(id) else { return -1 };
        let bare;
        let state = match (&data.saved, here) {
            (_, true) => &ctx.state,
            (Some(saved), false) => saved,
            (None, false) => {
                bare = bare_state(ctx, data);
                &bare
            }
        };
        crate::reply::build_with(ctx, state, code, reason, tag, &parts)
    };
    send_made(ctx, id, code, bytes)
}

/// A reply on its way upstream.
pub(super) struct Leaving {
    /// The status that it goes with.
    code: u16,
    form: Form,
}

enum Form {
    /// Made here.
    Made(Bytes),
    /// Of a branch, with the status that it gets.
    Relayed(Box<MsgState>, Option<(u16, Bytes)>),
}

impl Leaving {
    fn origin(&self) -> Origin {
        match self.form {
            Form::Made(_) => Origin::Here,
            Form::Relayed(..) => Origin::Relayed,
        }
    }

    /// What those learn who watch it.
    fn seen(&self, id: TxnId) -> Seen {
        let branch = match &self.form {
            Form::Made(_) => None,
            Form::Relayed(state, _) => state.txn_branch,
        };
        Seen { branch, ..Seen::of(Some(id)).status(self.code).origin(self.origin()) }
    }
}

/// Sends a reply made here. 1 sent, or held by a watcher on its way; -1: it comes too late.
pub(super) fn send_made(ctx: &mut Ctx, id: TxnId, code: u16, bytes: Bytes) -> i32 {
    leave(ctx, id, Leaving { code, form: Form::Made(bytes) })
}

/// Sends a branch's reply on. `changed`: the status that it gets.
pub(super) fn relay_reply(
    ctx: &mut Ctx,
    id: TxnId,
    code: u16,
    state: Box<MsgState>,
    changed: Option<(u16, Bytes)>,
) -> i32 {
    leave(ctx, id, Leaving { code, form: Form::Relayed(state, changed) })
}

fn leave(ctx: &mut Ctx, id: TxnId, leaving: Leaving) -> i32 {
    let (code, origin) = (leaving.code, leaving.origin());
    let has_upstream = ctx.core.txns.txns.has_upstream(id);
    let watched = ctx.core.shared.hooks.watch.watches(Moment::ReplyOut) && has_upstream;
    if !watched {
        let seen = leaving.seen(id);
        let bytes = match leaving.form {
            Form::Made(bytes) => bytes,
            Form::Relayed(state, changed) if has_upstream => print(ctx, id, &state, changed),
            Form::Relayed(..) => Bytes::new(),
        };
        return send(ctx, id, bytes, seen);
    }
    if !ctx.core.txns.txns.takes_reply(id, code, origin) {
        return -1;
    }
    let Some(data) = ctx.core.txns.txns.get_mut(id) else { return -1 };
    match &mut data.leaving {
        // A provisional reply that finds no room is forgotten, a final one never.
        Some(queue) if queue.len() >= MAX_QUEUE && code < 200 => return -1,
        Some(queue) => queue.push_back(leaving),
        None => {
            data.leaving = Some(Default::default());
            show_leaving(ctx, id, leaving);
        }
    }
    1
}

/// The watchers see a reply, then it is printed and sent, and the next one follows.
fn show_leaving(ctx: &mut Ctx, id: TxnId, leaving: Leaving) {
    let seen = leaving.seen(id);
    let (state, changed, made) = match leaving.form {
        Form::Relayed(state, changed) => (Some(state), changed, None),
        Form::Made(bytes) => (reply_state(ctx, id, bytes.clone()), None, Some(bytes)),
    };
    let Some(state) = state else { return next_leaving(ctx, id) };
    show(ctx, Moment::ReplyOut, state, seen.clone(), move |ctx, state, way| {
        if way == Way::On {
            let bytes = match made {
                Some(bytes) if state.edits.is_empty() => bytes,
                Some(_) => print_made(ctx, &state),
                None => print(ctx, id, &state, changed),
            };
            send(ctx, id, bytes, seen);
        }
        next_leaving(ctx, id);
    });
}

fn next_leaving(ctx: &mut Ctx, id: TxnId) {
    let Some(data) = ctx.core.txns.txns.get_mut(id) else { return };
    match data.leaving.as_mut().and_then(|queue| queue.pop_front()) {
        // A final reply that was sent meanwhile lets no other one follow.
        Some(leaving) => match ctx.core.txns.txns.takes_reply(id, leaving.code, leaving.origin()) {
            true => show_leaving(ctx, id, leaving),
            false => next_leaving(ctx, id),
        },
        None => data.leaving = None,
    }
}

/// A reply made here as a message that watchers may look at and edit.
fn reply_state(ctx: &Ctx, id: TxnId, bytes: Bytes) -> Option<Box<MsgState>> {
    let mut state = made_state(ctx, bytes)?;
    let data = ctx.core.txns.txns.get(id)?;
    state.txn = Some(id);
    state.avps = data.avps.clone();
    state.source.socket = data.source.socket;
    state.flags = data.saved.as_ref().map_or(0, |saved| saved.flags);
    Some(state)
}

/// The state of a reply that was made here.
pub(crate) fn made_state(ctx: &Ctx, bytes: Bytes) -> Option<Box<MsgState>> {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let msg = std::rc::Rc::new(Message::parse(bytes).ok()?);
    Some(MsgState::new(msg, crate::context::detached::nowhere(), ctx.core.now, RouteKind::OnReply, task))
}

/// A reply as it goes upstream.
fn print(ctx: &Ctx, id: TxnId, reply: &MsgState, changed: Option<(u16, Bytes)>) -> Bytes {
    let send = ctx.core.txns.txns.get(id).map_or_else(SocketNames::default, |d| socket_names(ctx, &d.source));
    let status = changed.as_ref().map(|(code, reason)| (*code, &reason[..]));
    sip::print_reply(&reply.msg, &reply.edits, status, &send, &socket_names(ctx, &reply.source))
}

/// A reply that was made here, as watchers left it.
pub(crate) fn print_made(ctx: &Ctx, reply: &MsgState) -> Bytes {
    let names = socket_names(ctx, &reply.source);
    sip::print_as_received(&reply.msg, &reply.edits, &names)
}

/// Hands a final or provisional reply to the transaction. 1 sent, -1 not.
fn send(ctx: &mut Ctx, id: TxnId, bytes: Bytes, seen: Seen) -> i32 {
    let (now, code, origin) = (ctx.core.now, seen.status, seen.origin);
    let shown = bytes.clone();
    if let (Origin::Here, Some(data)) = (origin, ctx.core.txns.txns.get_mut(id))
        && code >= 200
    {
        data.local_status = code;
    }
    if ctx.core.txns.streams.rules.no_new_for_replies != 0 {
        keep_to_connection(ctx, id);
    }
    super::trying_no_more(ctx, id);
    let sent = ctx.core.txns.txns.reply(now, id, code, bytes, origin);
    if sent == Replied::Late {
        drain(ctx);
        return -1;
    }
    if code < 200 {
        ua::note_sent(ctx, id, &shown);
    }
    if ctx.core.shared.hooks.watch.tells(Told::Replied) && ctx.core.txns.txns.has_upstream(id) {
        tell(ctx, id, Told::Replied, Seen { bytes: shown.clone(), ..seen });
    }
    drain(ctx);
    if let (Some(route), Origin::Here) = (ctx.core.txns.settings.reply_route, origin) {
        ua::show_to_route(ctx, route, shown);
    }
    if code >= 200 {
        forget_request(ctx, id);
    }
    1
}

/// A transaction with its final reply stays for some seconds, to answer what comes again. The request as it went
/// downstream is not needed for that, unless somebody looks at later replies or at the end.
fn forget_request(ctx: &mut Ctx, id: TxnId) {
    let watch = &ctx.core.shared.hooks.watch;
    let looked_at = [Told::Ended, Told::Replied].iter().any(|what| watch.tells(*what))
        || [Moment::ReplyIn, Moment::ReplyOut].iter().any(|moment| watch.watches(*moment))
        || super::replies::global_route(ctx).is_some()
        || ctx.core.txns.txns.is_open(id)
        || ctx.core.txns.txns.branches(id).any(|branch| branch.data.on_reply.is_some());
    if let Some(data) = ctx.core.txns.txns.get_mut(id)
        && !looked_at
        && data.on_reply.is_none()
        && data.on_failure.is_none()
        && data.ua.is_none()
    {
        data.saved = None;
    }
}

/// `tcp_no_new_conn_rplflag`, which the script may have set after the transaction was made.
fn keep_to_connection(ctx: &mut Ctx, id: TxnId) {
    let saved = ctx.core.txns.txns.get(id).and_then(|data| data.saved.as_ref()).map_or(0, |s| s.flags);
    let current = if ctx.state.txn == Some(id) { ctx.state.flags } else { 0 };
    if (saved | current) & ctx.core.txns.streams.rules.no_new_for_replies != 0 {
        ctx.core.txns.txns.keep_to_connection(id);
    }
}

/// The request of a transaction that never went downstream, as a state to build replies from.
pub(super) fn bare_state(ctx: &Ctx, data: &TxnData) -> Box<MsgState> {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let kind = script::ast::RouteKind::Request;
    let mut state = MsgState::new(data.msg.clone(), data.source, ctx.core.now, kind, task);
    state.avps = data.avps.clone();
    state
}
