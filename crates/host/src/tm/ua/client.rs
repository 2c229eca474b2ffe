//! Requests of this server: sent, acknowledged, cancelled. Nobody is upstream; whoever asked hears of the replies.

use super::{Answer, Ear, Heard, Side, Success, Ua, hear, ua};
use crate::avp::Avps;
use crate::branches::request_branch;
use crate::context::detached::nowhere;
use crate::ctx::{After, Branch, Ctx, MsgState};
use crate::tm::branch::{self, SendError, path_of};
use crate::tm::resolve::{LOOKUP_MS, Lookup};
use crate::tm::watch::{Way, show};
use crate::tm::{BranchData, Parts, Timeouts, TxnData, drain, failure};
use crate::watch::{Moment, Seen};
use bytes::Bytes;
use script::ast::RouteKind;
use script::{End, RouteId, Task};
use sip::{HeaderName, Message};
use std::cell::RefCell;
use std::rc::Rc;
use transaction::{Origin, Path, TxnId};

/// A callee repeats its 2xx for so long (64·T1), and the ACK with it.
const LINGER_MS: u64 = 32_000;

/// Is told the final reply, once, on the same worker.
pub type Done = Box<dyn FnOnce(&mut Ctx, Answer)>;

/// A request to be sent in a transaction of its own; it passes local_route.
#[derive(Clone, Debug)]
pub struct NewRequest {
    pub method: Bytes,
    pub uri: Bytes,
    /// Header values. From gets a tag when it has none.
    pub from: Bytes,
    pub to: Bytes,
    /// `None`: a new one, owned by this worker.
    pub call_id: Option<Bytes>,
    pub cseq: u32,
    pub max_forwards: u32,
    /// Whole further lines, Content-Type and Routes among them.
    pub headers: Bytes,
    pub body: Bytes,
    /// URI of the next hop, if it is not the Request-URI.
    pub next_hop: Option<Bytes>,
    /// Index into `Shared::sockets`.
    pub socket: Option<u16>,
    /// `$avp(uac_ctx)` in local_route.
    pub context: Option<Bytes>,
    /// AVPs that local_route and the transaction begin with.
    pub avps: Option<Rc<RefCell<Avps>>>,
}

impl NewRequest {
    pub fn new(method: &str, uri: Bytes, from: &str, to: &str) -> NewRequest {
        NewRequest {
            method: Bytes::copy_from_slice(method.as_bytes()),
            uri,
            from: Bytes::copy_from_slice(from.as_bytes()),
            to: Bytes::copy_from_slice(to.as_bytes()),
            call_id: None,
            cseq: 10,
            max_forwards: 70,
            headers: Bytes::new(),
            body: Bytes::new(),
            next_hop: None,
            socket: None,
            context: None,
            avps: None,
        }
    }

    /// Fills in what makes a request one of its dialog, Call-ID and From tag, so that another one may follow it.
    pub fn identified(mut self, ctx: &mut Ctx) -> NewRequest {
        if self.call_id.is_none() {
            self.call_id = Some(own_call_id(ctx));
        }
        if memchr::memmem::find(&self.from, b";tag=").is_none() {
            let tag = format!(";tag={:016x}", ctx.core.rng.next_u64());
            self.from = [&self.from[..], tag.as_bytes()].concat().into();
        }
        self
    }

    /// It is identified.
    fn print(&self, ctx: &Ctx) -> Bytes {
        let mut out = Vec::with_capacity(512 + self.headers.len() + self.body.len());
        let mut number = itoa::Buffer::new();
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        put(&[&self.method, b" ", &self.uri, b" SIP/2.0\r\nTo: ", &self.to, b"\r\nFrom: ", &self.from]);
        put(&[
            b"\r\nCall-ID: ",
            self.call_id.as_deref().unwrap_or_default(),
            b"\r\nCSeq: ",
            number.format(self.cseq).as_bytes(),
            b" ",
            &self.method,
        ]);
        put(&[b"\r\nMax-Forwards: ", number.format(self.max_forwards).as_bytes(), b"\r\n", &self.headers]);
        let agent = &ctx.core.txns.policy.signature.user_agent;
        if !agent.is_empty() {
            put(&[b"User-Agent: ", agent, b"\r\n"]);
        }
        put(&[b"Content-Length: ", number.format(self.body.len()).as_bytes(), b"\r\n\r\n", &self.body]);
        out.into()
    }
}

/// A Call-ID whose messages come to this worker.
pub fn own_call_id(ctx: &mut Ctx) -> Bytes {
    let host = ctx.shared().sockets.first().map_or("fermata".into(), |socket| socket.names.host.clone());
    let host = String::from_utf8_lossy(&host).into_owned();
    loop {
        let id = format!("{:016x}-{}@{host}", ctx.core.rng.next_u64(), ctx.core.rng.next_u64() as u32);
        if crate::context::detached::owner(id.as_bytes(), ctx.core.workers.into())
            == usize::from(ctx.core.worker)
        {
            return id.into();
        }
    }
}

/// Sends a request made here; `done` hears the final reply. 1: on its way; negative: it cannot be sent, `done` heard.
pub fn send_new(ctx: &mut Ctx, request: NewRequest, done: Option<Done>) -> i32 {
    let mut done = done;
    let ear: Ear = Box::new(move |ctx, _, heard| {
        if let Heard::Reply(answer) = heard
            && answer.status >= 200
            && let Some(done) = done.take()
        {
            done(ctx, answer);
        }
    });
    match send(ctx, request, ear) {
        Ok(_) => 1,
        Err(error) => error.code(),
    }
}

/// Sends a request made here, in a transaction of its own. It passes local_route and `Moment::LocalOut`, which may
/// wait. The error: it cannot be sent, which `ear` heard too (as a reply made here).
pub fn send(ctx: &mut Ctx, request: NewRequest, ear: Ear) -> Result<TxnId, SendError> {
    send_within(ctx, request, Timeouts::default(), ear)
}

/// The same with timeouts of its own.
pub fn send_within(
    ctx: &mut Ctx,
    request: NewRequest,
    timeouts: Timeouts,
    mut ear: Ear,
) -> Result<TxnId, SendError> {
    let request = request.identified(ctx);
    let Ok(msg) = Message::parse(request.print(ctx)) else {
        ear(ctx, NOWHERE, Heard::Reply(Answer::made_here(SendError::BadUri)));
        return Err(SendError::BadUri);
    };
    let program = ctx.core.shared.program();
    let route = program.route(RouteKind::Local, None);
    let task = Task::new(program, route.unwrap_or(RouteId(0)));
    let mut state = state_of(ctx, &request, msg, task);
    // A route may send it elsewhere; without one it is known now.
    let known = path_of(ctx, &state, &request_branch(&state), None);
    if let (None, Err(error)) = (route, known.map(|_| ()))
        && error != SendError::NotYet
    {
        ear(ctx, NOWHERE, Heard::Reply(Answer::made_here(error)));
        return Err(error);
    }
    if let Some(avps) = request.avps {
        state.avps = avps;
    }
    if let Some(context) = request.context {
        state.avps.borrow_mut().add(crate::avp::AvpName::new(b"uac_ctx"), context.into());
    }
    let ua = Box::new(Ua { ear: Some(ear), ..Ua::default() });
    let now = ctx.core.now;
    let data = TxnData { ua: Some(ua), ..TxnData::of(&state) };
    let id = match ctx.core.txns.txns.create_local(now, &state.msg, state.source, data) {
        Ok(id) => id,
        Err(_) => return Err(SendError::Dropped),
    };
    crate::tm::set_agent(ctx, id);
    let (fr, fr_inv) = ctx.core.txns.txns.timeouts(id);
    let (fr, fr_inv) = (timeouts.fr.unwrap_or(fr), timeouts.fr_inv.unwrap_or(fr_inv));
    ctx.core.txns.txns.set_timeouts(now, id, fr, fr_inv);
    state.txn = Some(id);
    if route.is_none() {
        leave(ctx, id, state);
        return Ok(id);
    }
    state.after = After::Then(Box::new(move |ctx, state, end| match end {
        End::Drop => never_left(ctx, id, SendError::Dropped),
        _ => leave(ctx, id, state),
    }));
    ctx.run(state);
    Ok(id)
}

/// Of no transaction.
const NOWHERE: TxnId = TxnId { index: u32::MAX, generation: 0 };

fn state_of(ctx: &Ctx, request: &NewRequest, msg: Message, task: Task<crate::Sip>) -> Box<MsgState> {
    let source = Path { socket: request.socket.unwrap_or(0), ..nowhere() };
    let mut state = MsgState::new(Rc::new(msg), source, ctx.core.now, RouteKind::Local, task);
    state.dst_uri = request.next_hop.clone();
    state.socket = request.socket;
    state
}

/// Watchers see the request, then it goes out.
fn leave(ctx: &mut Ctx, id: TxnId, state: Box<MsgState>) {
    let seen = Seen::of(Some(id)).origin(Origin::Here);
    show(ctx, Moment::LocalOut, state, seen, move |ctx, state, way| match way {
        Way::Stopped => never_left(ctx, id, SendError::Dropped),
        Way::On => find_way(ctx, Some(id), state, move |ctx, state, found| match found {
            Ok((target, path)) => go_out(ctx, id, &state, target, path),
            Err(error) => never_left(ctx, id, error),
        }),
    });
}

/// Where a request goes: at once, or when its name is known.
fn find_way<F>(ctx: &mut Ctx, txn: Option<TxnId>, mut state: Box<MsgState>, then: F)
where
    F: FnOnce(&mut Ctx, Box<MsgState>, Result<(Branch, Path), SendError>) + 'static,
{
    let target = request_branch(&state);
    let error = match path_of(ctx, &state, &target, None) {
        Ok(path) => return then(ctx, state, Ok((target, path))),
        Err(error) => error,
    };
    let lookup = if error == SendError::NotYet { Lookup::of(ctx, &target, None) } else { None };
    let Some(lookup) = lookup else { return then(ctx, state, Err(error)) };
    // The end of the server waits for the transaction, if it is part of a call.
    let spawn = if txn.is_some() { Ctx::spawn_aside } else { Ctx::spawn };
    spawn(ctx, "local request", LOOKUP_MS, async move {
        let answer = lookup.answer().await;
        Box::new(move |ctx: &mut Ctx| {
            // It may have been cancelled meanwhile.
            if txn.is_none_or(|id| ctx.core.txns.txns.is_open(id)) {
                answer.keep(&mut state);
                let path = path_of(ctx, &state, &target, None);
                then(ctx, state, path.map(|path| (target, path)));
            }
            1
        }) as crate::call::Finish
    });
}

fn never_left(ctx: &mut Ctx, id: TxnId, error: SendError) {
    hear(ctx, id, Heard::Reply(Answer::made_here(error)));
    end(ctx, id);
}

fn go_out(ctx: &mut Ctx, id: TxnId, state: &MsgState, target: Branch, path: Path) {
    let now = ctx.core.now;
    let Ok(number) = ctx.core.txns.txns.open_branch(id, BranchData::new(target.clone())) else { return };
    let cookie = ctx.core.txns.txns.via_branch(id, number);
    let bytes = branch::print_local(ctx, state, &target, &path, &cookie);
    ctx.core.txns.txns.send(now, id, number, bytes.clone(), path);
    drain(ctx);
    if let Some(route) = ctx.core.txns.settings.request_route {
        show_to_route(ctx, route, bytes);
    }
}

/// Lets a route look at a message that was made here.
pub(in crate::tm) fn show_to_route(ctx: &mut Ctx, route: RouteId, bytes: Bytes) {
    let Ok(msg) = Message::parse(bytes) else { return };
    let task = Task::new(ctx.core.shared.program(), route);
    // An event's route: what it waits for concerns nobody.
    let state = MsgState::new(
        Rc::new(msg),
        crate::context::detached::nowhere(),
        ctx.core.now,
        RouteKind::Event,
        task,
    );
    ctx.run(state);
}

/// A provisional reply or a 2xx came to a request of this server.
pub(in crate::tm) fn replied(ctx: &mut Ctx, id: TxnId, branch: u16, reply: &Rc<Message>) {
    let is_invite = ctx.core.txns.txns.is_invite(id);
    let Some(ua) = ua(ctx, id) else { return };
    if reply.status() >= 200 {
        let tag = reply.to_tag().unwrap_or_default();
        match ua.successes.iter().find(|success| success.tag == tag) {
            // It was repeated: its ACK was lost, or has not been made yet.
            Some(Success { ack: Some((path, bytes)), .. }) => {
                let (path, bytes) = (*path, bytes.clone());
                return ctx.transmit_for(Some(id), path, bytes);
            }
            Some(_) => return,
            None => ua.successes.push(Success { tag, ack: None }),
        }
    }
    let path = ctx.core.txns.txns.branch(id, branch).and_then(|b| b.path);
    let (status, reason) = (reply.status(), reply.reason());
    hear(ctx, id, Heard::Reply(Answer { status, reason, reply: Some(reply.clone()), path }));
    if is_invite && status >= 200 {
        let until = ctx.core.now.after(LINGER_MS);
        ctx.core.txns.txns.linger(id, until);
    }
}

/// A request of this server was refused.
pub(in crate::tm) fn refused(ctx: &mut Ctx, id: TxnId, answer: impl FnOnce(&mut Ctx) -> Answer) {
    if ua(ctx, id).is_some_and(|ua| ua.serves.is_none()) {
        let answer = answer(ctx);
        hear(ctx, id, Heard::Reply(answer));
    }
}

/// Acknowledges a 2xx to an INVITE of this server; it is sent again with each repetition of the 2xx until the owner
/// ends the transaction. `parts.to_tag` is of no use here. False: no such 2xx was told, or it has its ACK.
pub fn ack(ctx: &mut Ctx, id: TxnId, reply: &Message, parts: Parts) -> bool {
    let invite = ctx.core.txns.txns.get(id).map(|data| data.msg.clone());
    let side = invite.and_then(|invite| Side::of_reply(&invite, reply));
    side.is_some_and(|mut side| {
        let mut request = side.request("ACK");
        add(&mut request, &parts);
        ack_with(ctx, id, reply, request)
    })
}

/// The same to where the INVITE went, whatever contact the 2xx names: the target of a dialog that others lead.
pub fn ack_like_invite(ctx: &mut Ctx, id: TxnId, reply: &Message) -> bool {
    let Some(invite) = ctx.core.txns.txns.get(id).map(|data| data.msg.clone()) else { return false };
    let Some(side) = Side::of_reply(&invite, reply) else { return false };
    let request = Side { target: invite.request_uri(), ..side }.request("ACK");
    ack_with(ctx, id, reply, request)
}

/// The same with an ACK that its owner made, of the dialog that the 2xx began or is in.
pub fn ack_with(ctx: &mut Ctx, id: TxnId, reply: &Message, mut request: NewRequest) -> bool {
    let tag = reply.to_tag().unwrap_or_default();
    let waits = |ua: &mut Ua| ua.successes.iter().any(|success| success.tag == tag && success.ack.is_none());
    if !ua(ctx, id).is_some_and(waits) {
        return false;
    }
    request.socket = ctx.core.txns.txns.branch(id, 0).and_then(|b| b.path).map(|path| path.socket);
    let Ok(msg) = Message::parse(request.print(ctx)) else { return false };
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let state = state_of(ctx, &request, msg, task);
    let seen = Seen::of(Some(id)).origin(Origin::Here);
    show(ctx, Moment::LocalOut, state, seen, move |ctx, state, way| {
        if way == Way::Stopped {
            return;
        }
        find_way(ctx, None, state, move |ctx, state, found| {
            let Ok((target, path)) = found else { return };
            let cookie = format!("z9hG4bKa{:016x}", ctx.core.rng.next_u64());
            let bytes = branch::print_local(ctx, &state, &target, &path, cookie.as_bytes());
            let success = ua(ctx, id).and_then(|ua| ua.successes.iter_mut().find(|s| s.tag == tag));
            if let Some(success) = success {
                success.ack = Some((path, bytes.clone()));
            }
            ctx.transmit_for(Some(id), path, bytes);
        });
    });
    true
}

/// Acknowledges a reliable provisional reply (RFC 3262) to an INVITE of this server, inside `side`, the dialog that
/// the reply began. `None`: the reply is not reliable, or the PRACK cannot be sent.
pub fn prack(ctx: &mut Ctx, side: &mut Side, reply: &Message, parts: Parts, ear: Ear) -> Option<TxnId> {
    let rseq = reply.header(HeaderName::RSeq).map(|header| reply.text(header.value()))?;
    let (number, method) = reply.cseq_parts()?;
    let mut request = side.request("PRACK");
    add(&mut request, &parts);
    let rack = [b"RAck: ", rseq.trim_ascii(), b" ", &number[..], b" ", &method[..], b"\r\n"].concat();
    request.headers = [&request.headers[..], &rack[..]].concat().into();
    send(ctx, request, ear).ok()
}

fn add(request: &mut NewRequest, parts: &Parts) {
    request.headers = [&request.headers[..], &parts.headers[..]].concat().into();
    request.body = parts.body.clone();
}

/// Gives an INVITE of this server up: its branch is cancelled as soon as it has rung, and its owner hears the final
/// reply; one that has not left is refused here with 487. `headers`: whole lines (Reason).
pub fn cancel(ctx: &mut Ctx, id: TxnId, headers: Bytes) {
    if ua(ctx, id).is_none() {
        return;
    }
    ctx.drop_requests_of(id);
    let now = ctx.core.now;
    let verdict = ctx.core.txns.txns.cancel(now, id, headers);
    failure::on_verdict(ctx, id, verdict);
}

/// The owner wants to hear no more, nor have ACKs repeated: the transaction is over.
pub fn end(ctx: &mut Ctx, id: TxnId) {
    if ua(ctx, id).is_some() {
        crate::tm::ended(ctx, id);
        ctx.core.txns.txns.remove(id);
    }
}
