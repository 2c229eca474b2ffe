//! Replies to requests of entities.

use super::entity::{CALLEE, CALLER, Entity, Kind, Leg, State, Stored, Unacked, contact_of};
use super::owner::{DialogInfo, Notice, Turn, What};
use super::{B2be, auth, run_route, send, sql, table, ua as sessions};
use bytes::Bytes;
use host::avp::Avps;
use host::tm::ua::{self, Side};
use host::tm::{Answer, NewRequest, Parts};
use host::{Ctx, MsgState};
use script::ast::RouteKind;
use script::{RouteId, Task};
use sip::{HeaderName, Message, Method, NameAddr};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use transaction::{Path, TxnId};

/// A reply that came, and the request that it is for.
#[derive(Clone)]
pub struct Came {
    pub key: Bytes,
    pub txn: TxnId,
    pub sent: Rc<NewRequest>,
    pub reply: Answer,
    pub avps: Option<Rc<RefCell<Avps>>>,
}

impl Came {
    fn is_invite(&self) -> bool {
        self.sent.method == "INVITE"
    }

    /// The reply, made up when there was none.
    fn message(&self) -> Option<Rc<Message>> {
        if let Some(reply) = &self.reply.reply {
            return Some(reply.clone());
        }
        let sent = &self.sent;
        let text = [
            format!("SIP/2.0 {} Timeout\r\nVia: SIP/2.0/UDP fermata.invalid\r\nTo: ", self.reply.status)
                .as_bytes(),
            &sent.to,
            b"\r\nFrom: ",
            &sent.from,
            b"\r\nCall-ID: ",
            sent.call_id.as_deref().unwrap_or_default(),
            format!("\r\nCSeq: {} ", sent.cseq).as_bytes(),
            &sent.method,
            b"\r\nContent-Length: 0\r\n\r\n",
        ]
        .concat();
        Message::parse(text.into()).ok().map(Rc::new)
    }
}

/// In the turn of the call.
pub fn reply(ctx: &mut Ctx, module: &Arc<B2be>, came: Came, turn: Turn) {
    let Some(msg) = came.message() else { return turn.end(ctx) };
    if table::of(ctx).get(&came.key).is_none() {
        late(ctx, &came, &msg, None);
        return turn.end(ctx);
    }
    match advance(ctx, module, &came, &msg) {
        Next::Done => turn.end(ctx),
        Next::Tell(what) => tell(ctx, module, came, msg, what, turn),
        Next::OnlyRoute => {
            let state = state_of(ctx, &came, msg);
            match module.reply_route(ctx) {
                Some(route) => run_route(ctx, route, state, move |ctx, _| turn.end(ctx)),
                None => turn.end(ctx),
            }
        }
    }
}

/// A 2xx to an INVITE whose entity is gone, or which is over.
fn late(ctx: &mut Ctx, came: &Came, msg: &Message, entity: Option<&Bytes>) {
    if came.is_invite() && (200..300).contains(&msg.status()) && came.reply.reply.is_some() {
        send::ack_and_bye(ctx, came.txn, &came.sent, msg, entity);
    }
}

enum Next {
    Done,
    Tell(What),
    /// A challenge was answered: scripts see it, nobody acts.
    OnlyRoute,
}

/// What the reply changes in the entity.
fn advance(ctx: &mut Ctx, module: &Arc<B2be>, came: &Came, msg: &Rc<Message>) -> Next {
    let status = msg.status();
    let Some(entity) = table::of(ctx).get_mut(&came.key) else { return Next::Done };
    if entity.kind == Kind::Client && entity.socket.is_none() {
        entity.socket = came.reply.path.map(|path| path.socket);
    }
    if !came.is_invite() {
        if matches!(Method::parse(&came.sent.method), Method::Update) && (200..300).contains(&status) {
            entity.refresh(msg);
        }
        return Next::Tell(What::Reply);
    }
    if entity.uac != Some(came.txn) {
        // Another end of a fork, or an INVITE of before.
        late(ctx, came, msg, Some(&came.key));
        return Next::Done;
    }
    if status >= 300 {
        return refused(ctx, module, came, msg);
    }
    if status >= 200 {
        if entity.state == State::Terminated {
            entity.uac = None;
            // As in the reference, without a Contact: the call that it would be for is over.
            late(ctx, came, msg, None);
            return Next::Tell(What::LateReply);
        }
        entity.unacked = Some(Unacked { txn: came.txn, reply: msg.clone() });
    }
    first_reply(entity, msg);
    match (entity.state, status) {
        (State::New | State::NewAuth | State::Early, ..200) => provisional(ctx, module, came, msg),
        (State::New | State::NewAuth | State::Early, _) => answered(ctx, module, came, msg),
        (State::Modified, 200..) => {
            entity.state = State::Confirmed;
            entity.uac = None;
            entity.refresh(msg);
            sql::changed(ctx, module, &came.key);
            Next::Tell(What::Reply)
        }
        (State::Confirmed, _) => Next::Done,
        _ => Next::Tell(What::Reply),
    }
}

/// What an entity learns from the first reply to it.
fn first_reply(entity: &mut Entity, msg: &Message) {
    let begins = entity.legs.is_empty() && matches!(entity.state, State::New | State::NewAuth | State::Early);
    if !begins || entity.kind != Kind::Client {
        return;
    }
    entity.tags[CALLEE] = msg.to_tag().unwrap_or_default();
    entity.cseq[CALLEE] = 1;
    entity.contact[CALLEE] = contact_of(msg).unwrap_or_default();
    if entity.stored == Stored::No {
        entity.stored = Stored::New;
    }
}

fn refused(ctx: &mut Ctx, module: &Arc<B2be>, came: &Came, msg: &Rc<Message>) -> Next {
    let status = msg.status();
    let Some(entity) = table::of(ctx).get_mut(&came.key) else { return Next::Done };
    entity.uac = None;
    let (within, was_new) = (entity.state.is_answered(), entity.state == State::New);
    if !within {
        entity.legs.clear();
    } else if entity.state == State::Modified {
        entity.state = State::Established;
    }
    let may_answer = matches!(status, 401 | 407) && auth::is_there(ctx) && (within || was_new);
    if may_answer && send::answer_challenge(ctx, module, came) {
        if let Some(entity) = table::of(ctx).get_mut(&came.key).filter(|_| within) {
            entity.state = State::Modified;
        }
        return Next::OnlyRoute;
    }
    let known = auth::is_there(ctx);
    if let Some(entity) = table::of(ctx).get_mut(&came.key)
        && !within
        && known
        && was_new
    {
        entity.state = State::Terminated;
    }
    sql::changed(ctx, module, &came.key);
    Next::Tell(What::Reply)
}

fn routes_of(msg: &Message) -> Vec<Bytes> {
    let mut all = Vec::new();
    for header in msg.headers_of(HeaderName::RecordRoute) {
        let value = msg.text(header.value());
        for one in NameAddr::parse_list(&value).unwrap_or_default() {
            all.push(value.slice(one.whole.range()));
        }
    }
    all.reverse();
    all
}

fn leg_of(msg: &Message, id: u32) -> Leg {
    Leg {
        id,
        tag: msg.to_tag().unwrap_or_default(),
        cseq: msg.cseq().map_or(0, |cseq| cseq.number),
        contact: contact_of(msg).unwrap_or_default(),
        routes: routes_of(msg),
        rack: Bytes::new(),
    }
}

/// The legs that ring at the same time; further ones are not told apart.
const MAX_LEGS: usize = 64;

fn provisional(ctx: &mut Ctx, module: &Arc<B2be>, came: &Came, msg: &Rc<Message>) -> Next {
    let Some(entity) = table::of(ctx).get_mut(&came.key) else { return Next::Done };
    entity.state = State::Early;
    let tag = msg.to_tag().unwrap_or_default();
    if !entity.legs.iter().any(|leg| leg.tag == tag) && entity.legs.len() < MAX_LEGS {
        let id = entity.legs.first().map_or(0, |leg| leg.id + 1);
        entity.legs.insert(0, leg_of(msg, id));
    }
    let reliable = msg.headers_of(HeaderName::Require).any(|header| {
        msg.bytes(header.value())
            .split(|b| *b == b',')
            .any(|w| w.trim_ascii().eq_ignore_ascii_case(b"100rel"))
    });
    if reliable && !module.passthru_prack {
        let invite = ctx.txn(came.txn).data().map(|data| data.msg.clone());
        let side = invite.and_then(|invite| Side::of_reply(&invite, msg));
        if let (Some(mut side), Some(entity)) = (side, table::of(ctx).get_mut(&came.key)) {
            side.cseq = entity.cseq[CALLER];
            side.socket = entity.socket;
            entity.cseq[CALLER] = side.cseq.saturating_add(1);
            let next_hop = entity.proxy.clone();
            if next_hop.is_none() {
                ua::prack(ctx, &mut side, msg, Parts::default(), Box::new(|_, _, _| ()));
            } else if let Some(line) = rack(msg) {
                let mut prack = side.request("PRACK");
                prack.next_hop = next_hop;
                prack.headers = [&prack.headers[..], &line[..]].concat().into();
                let _ = ua::send(ctx, prack, Box::new(|_, _, _| ()));
            }
        }
    } else if reliable
        && let Some(line) = rack(msg)
        && let Some(leg) =
            table::of(ctx).get_mut(&came.key).and_then(|e| e.legs.iter_mut().find(|leg| leg.tag == tag))
    {
        leg.rack = line;
    }
    Next::Tell(What::Reply)
}

/// `RAck: rseq cseq method`
fn rack(msg: &Message) -> Option<Bytes> {
    let rseq = msg.value(HeaderName::RSeq)?;
    let (number, method) = msg.cseq_parts()?;
    Some([b"RAck: ", rseq.trim_ascii(), b" ", &number[..], b" ", &method[..], b"\r\n"].concat().into())
}

fn answered(ctx: &mut Ctx, module: &Arc<B2be>, came: &Came, msg: &Rc<Message>) -> Next {
    let Some(entity) = table::of(ctx).get_mut(&came.key) else { return Next::Done };
    let tag = msg.to_tag().unwrap_or_default();
    let id = entity.legs.iter().find(|leg| leg.tag == tag).map_or(0, |leg| leg.id);
    entity.legs = vec![leg_of(msg, id)];
    entity.tags[CALLEE] = tag.clone();
    entity.state = State::Confirmed;
    entity.uac = None;
    let info =
        DialogInfo { call_id: entity.call_id.clone(), from_tag: tag, to_tag: entity.tags[CALLER].clone() };
    let notice = notice_of(entity, What::Reply);
    let owner = entity.owner;
    sql::changed(ctx, module, &came.key);
    (owner.answered)(ctx, &notice, info);
    Next::Tell(What::Reply)
}

pub fn notice_of(entity: &Entity, what: What) -> Notice {
    Notice { entity: entity.key.clone(), kind: entity.kind, logic: entity.logic.clone(), what }
}

/// The reply as the current message of scripts.
fn state_of(ctx: &Ctx, came: &Came, msg: Rc<Message>) -> Box<MsgState> {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let nowhere = Path {
        socket: came.sent.socket.unwrap_or(0),
        transport: sip::Transport::Udp,
        remote: ([127, 0, 0, 1], 9).into(),
        local: 0,
        connection: 0,
    };
    let path = came.reply.path.unwrap_or(nowhere);
    let mut state = MsgState::new(msg, path, ctx.core.now, RouteKind::OnReply, task);
    if let Some(avps) = &came.avps {
        state.avps = avps.clone();
    }
    state
}

fn tell(ctx: &mut Ctx, module: &Arc<B2be>, came: Came, msg: Rc<Message>, what: What, turn: Turn) {
    let state = state_of(ctx, &came, msg);
    let module = module.clone();
    let go_on = move |ctx: &mut Ctx, state: Box<MsgState>| {
        let Some(entity) = table::of(ctx).get(&came.key) else { return turn.end(ctx) };
        let (notice, owner, is_ua) = (notice_of(entity, what), entity.owner, entity.is_ua());
        let wants = entity.ua.as_ref().is_some_and(|flags| flags.replies || is_ua);
        ctx.with_state(state, |ctx| match wants {
            true => sessions::replied(ctx, &module, &came.key, turn),
            false => (owner.notify)(ctx, notice, turn),
        });
    };
    match module_route(ctx) {
        Some(route) => run_route(ctx, route, state, go_on),
        None => go_on(ctx, state),
    }
}

fn module_route(ctx: &Ctx) -> Option<RouteId> {
    ctx.shared().module::<B2be>().and_then(|module| module.reply_route(ctx))
}
