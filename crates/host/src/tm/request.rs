//! Requests of this server itself: nobody is upstream, whoever asked gets the final reply.

use super::branch::{self, Found, SendError, path_of};
use super::watch::{Way, show, tell};
use super::{BranchData, TxnData, drain};
use crate::branches::request_branch;
use crate::ctx::{After, Branch, Ctx, MsgState, Resolved};
use crate::watch::{Moment, Seen, Told};
use bytes::Bytes;
use script::ast::RouteKind;
use script::{End, RouteId, Task};
use sip::Message;
use std::rc::Rc;
use transaction::{Origin, Path, TxnId};

/// How a request of this server ended.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: Bytes,
    /// `None`: made here (408, 476, 477 ...).
    pub reply: Option<Rc<Message>>,
    /// Where the request went; `None`: it never left.
    pub path: Option<Path>,
}

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
    /// Whole further lines, Content-Type and Routes among them.
    pub headers: Bytes,
    pub body: Bytes,
    /// URI of the next hop, if it is not the Request-URI.
    pub next_hop: Option<Bytes>,
    /// Index into `Shared::sockets`.
    pub socket: Option<u16>,
    /// `$avp(uac_ctx)` in local_route.
    pub context: Option<Bytes>,
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
            headers: Bytes::new(),
            body: Bytes::new(),
            next_hop: None,
            socket: None,
            context: None,
        }
    }

    fn print(&self, ctx: &mut Ctx) -> Bytes {
        let mut out = Vec::with_capacity(512 + self.headers.len() + self.body.len());
        let mut number = itoa::Buffer::new();
        let call_id = self.call_id.clone().unwrap_or_else(|| own_call_id(ctx));
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        put(&[&self.method, b" ", &self.uri, b" SIP/2.0\r\nTo: ", &self.to, b"\r\nFrom: ", &self.from]);
        if memchr::memmem::find(&self.from, b";tag=").is_none() {
            put(&[format!(";tag={:016x}", ctx.core.rng.next_u64()).as_bytes()]);
        }
        put(&[
            b"\r\nCall-ID: ",
            &call_id,
            b"\r\nCSeq: ",
            number.format(self.cseq).as_bytes(),
            b" ",
            &self.method,
        ]);
        put(&[b"\r\nMax-Forwards: 70\r\n", &self.headers]);
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
    loop {
        let id = format!("{:016x}{:08x}@fermata", ctx.core.rng.next_u64(), ctx.core.rng.next_u64() as u32);
        if crate::context::detached::owner(id.as_bytes(), ctx.core.workers.into())
            == usize::from(ctx.core.worker)
        {
            return id.into();
        }
    }
}

/// Sends a request made here. 1: on its way, `done` will hear; negative: it cannot be sent, `done` heard.
pub fn send_new(ctx: &mut Ctx, request: NewRequest, done: Option<Done>) -> i32 {
    let bytes = request.print(ctx);
    let Ok(msg) = Message::parse(bytes) else {
        return fail(ctx, SendError::BadUri, done);
    };
    let program = ctx.core.shared.program();
    let route = program.route(RouteKind::Local, None);
    let task = Task::new(program, route.unwrap_or(RouteId(0)));
    let source = Path { socket: request.socket.unwrap_or(0), ..crate::context::detached::nowhere() };
    let mut state = MsgState::new(Rc::new(msg), source, ctx.core.now, RouteKind::Local, task);
    state.dst_uri = request.next_hop;
    state.socket = request.socket;
    if let Some(context) = request.context {
        state.avps.borrow_mut().add(crate::avp::AvpName::new(b"uac_ctx"), context.into());
    }
    if route.is_none() {
        return launch(ctx, state, done);
    }
    state.after = After::Then(Box::new(move |ctx, state, end| {
        if end == End::Drop {
            fail(ctx, SendError::Dropped, done);
        } else {
            launch(ctx, state, done);
        }
    }));
    ctx.run(state);
    1
}

fn fail(ctx: &mut Ctx, error: SendError, done: Option<Done>) -> i32 {
    let (status, reason) = error.reply();
    if let Some(done) = done {
        done(ctx, Answer { status, reason: Bytes::from_static(reason.as_bytes()), reply: None, path: None });
    }
    error.code()
}

/// Longest a name may take.
const LOOKUP_MS: u64 = 10_000;

/// The request gets its transaction, watchers see it, then it goes out.
fn launch(ctx: &mut Ctx, mut state: Box<MsgState>, done: Option<Done>) -> i32 {
    match path_of(ctx, &state, &request_branch(&state), None) {
        Ok(_) | Err(SendError::NotYet) => {}
        Err(error) => return fail(ctx, error, done),
    }
    let now = ctx.core.now;
    let data = TxnData { done, ..TxnData::of(&state) };
    let Ok(id) = ctx.core.txns.txns.create_local(now, &state.msg, state.source, data) else { return -1 };
    super::set_agent(ctx, id);
    state.txn = Some(id);
    show(ctx, Moment::LocalOut, state, Seen::of(Some(id)).origin(Origin::Here), move |ctx, state, way| {
        match way {
            Way::On => find_way(ctx, id, state),
            Way::Stopped => never_left(ctx, id, SendError::Dropped),
        }
    });
    1
}

fn find_way(ctx: &mut Ctx, id: TxnId, mut state: Box<MsgState>) {
    let target = request_branch(&state);
    match path_of(ctx, &state, &target, None) {
        Ok(path) => send(ctx, id, &state, target, path),
        Err(SendError::NotYet) => {
            let Some(wanted) = branch::lookup_of(&ctx.core.shared.sockets, &target, None) else {
                return never_left(ctx, id, SendError::BadUri);
            };
            let Resolved::Later(future) = ctx.core.spawner.resolve(wanted.clone()) else {
                return never_left(ctx, id, SendError::Unresolvable);
            };
            ctx.spawn("local request", LOOKUP_MS, async move {
                let found = future.await.unwrap_or_default();
                Box::new(move |ctx: &mut Ctx| {
                    state.ext.entry::<Found>().0.push((wanted, found));
                    find_way(ctx, id, state);
                    1
                }) as crate::call::Finish
            });
        }
        Err(error) => never_left(ctx, id, error),
    }
}

fn never_left(ctx: &mut Ctx, id: TxnId, error: SendError) {
    let done = ctx.core.txns.txns.get_mut(id).and_then(|data| data.done.take());
    tell(ctx, id, Told::Ended, Seen::of(Some(id)));
    ctx.core.txns.txns.remove(id);
    fail(ctx, error, done);
}

fn send(ctx: &mut Ctx, id: TxnId, state: &MsgState, target: Branch, path: Path) {
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
pub(super) fn show_to_route(ctx: &mut Ctx, route: RouteId, bytes: Bytes) {
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

/// The final reply of a request of this server goes to whoever sent it.
pub(super) fn tell_sender(ctx: &mut Ctx, id: TxnId, answer: impl FnOnce(&mut Ctx) -> Answer) {
    let done = ctx.core.txns.txns.get_mut(id).and_then(|data| data.done.take());
    if let Some(done) = done {
        let answer = answer(ctx);
        done(ctx, answer);
    }
}
