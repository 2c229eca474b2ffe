//! Requests that entities get: the first INVITE of a server entity, and everything inside dialogs.

use super::entity::{CALLEE, Entity, Kind, State, Stored, contact_of};
use super::heard::notice_of;
use super::owner::{self, Owner, Turn, What};
use super::send::lane_of;
use super::ua::UaFlags;
use super::{B2be, answer, run_route, sql, table, ua as sessions};
use bytes::Bytes;
use host::shared::Hooks;
use host::tm::ua::{self, Heard};
use host::watch::Moment;
use host::{Ctx, MsgState};
use script::ast::RouteKind;
use script::{RouteId, Task};
use sip::{HeaderName, Message, Method, NameAddr, Uri};
use std::rc::Rc;
use std::sync::Arc;
use transaction::TxnId;

pub fn ready(module: &Arc<B2be>, hooks: &mut Hooks) {
    let of_request = module.clone();
    hooks.watch.on(Moment::RequestIn, move |ctx, _| came_in(ctx, &of_request)).before("dialog");
    let moved = module.moved.clone();
    hooks.plain_call_ids.push(Arc::new(move |call_id: &[u8]| moved.find(call_id)));
}

/// The entity that a transaction of ours is for.
#[derive(Clone, Debug, Default)]
struct For(Bytes);

/// Makes a server entity of the current INVITE, which is its to answer from now on. `None`: it cannot be.
pub fn server_new(
    ctx: &mut Ctx,
    module: &Arc<B2be>,
    contact: Bytes,
    owner: &'static Owner,
    logic: Bytes,
    ua: Option<UaFlags>,
) -> Option<Bytes> {
    let msg = ctx.state.msg.clone();
    let (from, to) = (msg.from()?, msg.to()?);
    let tag = from.tag().filter(|tag| !tag.is_empty())?;
    if msg.method() != Method::Invite {
        return None;
    }
    let cseq = msg.cseq()?.number;
    let (key, id) = module.keys.make(ctx, Kind::Server);
    let entity = Entity {
        ruri: ctx.state.current_uri(),
        from_uri: from.uri.clone(),
        from_dname: dname(&from),
        to_uri: to.uri.clone(),
        to_dname: dname(&to),
        tags: [tag, key.clone()],
        call_id: msg.call_id()?,
        cseq: [cseq, 1],
        last_invite_cseq: cseq,
        contact: [contact_of(&msg).unwrap_or_default(), contact],
        routes: routes_of(&msg),
        socket: Some(ctx.state.socket.unwrap_or(ctx.state.source.socket)),
        ua,
        stored: Stored::New,
        ..Entity::new(Kind::Server, key.clone(), id, owner, logic)
    };
    if !table::of(ctx).insert(entity) {
        return None;
    }
    let Some(txn) = take(ctx, module, &key) else {
        table::of(ctx).remove(&key);
        return None;
    };
    host::tm::trying_current(ctx, txn);
    if let Some(entity) = table::of(ctx).get_mut(&key) {
        entity.uas = Some(txn);
    }
    Some(key)
}

/// A display name as it is written.
fn dname(addr: &NameAddr) -> Bytes {
    addr.display.clone()
}

fn routes_of(msg: &Message) -> Vec<Bytes> {
    let mut all = Vec::new();
    for header in msg.headers_of(HeaderName::RecordRoute) {
        let value = msg.text(header.value());
        let list = NameAddr::parse_list(&value).unwrap_or_default();
        all.extend(list.iter().map(|one| value.slice(one.whole.range())));
    }
    all
}

/// The current request is the entity's.
fn take(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes) -> Option<TxnId> {
    let (module, owned) = (module.clone(), key.clone());
    let txn = ua::take_whole(ctx, Box::new(move |ctx, id, what| hears(ctx, &module, &owned, id, what)))?;
    if let Some(ext) = ctx.ext_of(txn) {
        ext.set(For(key.clone()));
    }
    Some(txn)
}

fn hears(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, txn: TxnId, what: Heard) {
    match what {
        Heard::Over => {
            if let Some(entity) = table::of(ctx).get_mut(key) {
                entity.uas = entity.uas.filter(|id| *id != txn);
                entity.update = entity.update.filter(|id| *id != txn);
                entity.pracks.retain(|(_, id)| *id != txn);
            }
        }
        // A script that waits had the INVITE: it was answered there.
        Heard::Cancelled => {
            let cancel = ctx.txn(txn).data().map(|data| sip::build_cancel(&data.msg, b""));
            if let Some(cancel) = cancel.and_then(|bytes| Message::parse(bytes).ok()) {
                give_up(ctx, module, key, Rc::new(cancel));
            }
        }
        Heard::Unacknowledged => {
            let Some(entity) = table::of(ctx).get(key) else { return };
            let (lane, owner, notice) = (lane_of(entity), entity.owner, notice_of(entity, What::Request));
            if entity.state == State::Confirmed || entity.state == State::Modified {
                owner::enter(ctx, &lane, move |ctx, turn| (owner.lost)(ctx, notice, turn));
            }
        }
        Heard::Acked(_) | Heard::Pracked(_) | Heard::Reply(_) => {}
    }
}

/// The caller gives up; `cancel` stands for what came.
fn give_up(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, cancel: Rc<Message>) {
    let Some(entity) = table::of(ctx).get(key) else { return };
    let lane = lane_of(entity);
    let mut state = copy(ctx);
    state.msg = cancel;
    let (module, key) = (module.clone(), key.clone());
    owner::enter(ctx, &lane, move |ctx, turn| within(ctx, module, state, key, None, turn));
}

/// The current message for an entity, whatever becomes of the script that it would have had.
fn copy(ctx: &Ctx) -> Box<MsgState> {
    let task = Task::new(ctx.core.shared.program(), RouteId(0));
    let mut state = ctx.state.fork(RouteKind::Request, task);
    state.txn = None;
    state
}

/// What a request is for.
enum Target {
    Entity(Bytes),
    /// It has the form of ours, and nobody has it.
    Nobody,
}

/// 1: it is not for an entity, the main route runs.
fn came_in(ctx: &mut Ctx, module: &Arc<B2be>) -> i32 {
    let msg = ctx.state.msg.clone();
    if msg.method() == Method::Cancel {
        return cancel(ctx, module, &msg);
    }
    match target(ctx, module, &msg) {
        None => 1,
        Some(Target::Nobody) => stray(ctx, &msg),
        Some(Target::Entity(key)) => {
            received(ctx, module, key, &msg);
            -1
        }
    }
}

fn stray(ctx: &mut Ctx, msg: &Message) -> i32 {
    match msg.method() {
        Method::Ack => {}
        Method::Bye => drop(host::reply::send_stateless(ctx, 200, b"OK")),
        _ => drop(host::reply::send_stateless(ctx, 481, b"Call/Transaction Does Not Exist")),
    }
    -1
}

fn target(ctx: &mut Ctx, module: &B2be, msg: &Message) -> Option<Target> {
    let (to_tag, call_id) = (msg.to_tag().filter(|tag| !tag.is_empty())?, msg.call_id()?);
    let of_server = module.keys.is_key(&to_tag);
    let may_be_early = matches!(msg.method(), Method::Update | Method::Prack);
    if !of_server && !module.keys.is_key(&call_id) && !may_be_early {
        return None;
    }
    let from_tag = msg.from_tag().filter(|tag| !tag.is_empty())?;
    if !comes_to_us(ctx, msg) {
        return None;
    }
    let table = table::of(ctx);
    if !of_server && !module.keys.is_key(&call_id) {
        return table.of_caller(&call_id, &from_tag).map(|entity| Target::Entity(entity.key.clone()));
    }
    Some(match table.of_dialog(&call_id, &from_tag, &to_tag) {
        Some(entity) => Target::Entity(entity.key.clone()),
        None => Target::Nobody,
    })
}

/// Its Routes and its Request-URI lead nowhere else.
fn comes_to_us(ctx: &Ctx, msg: &Message) -> bool {
    let mine = |uri: &Uri| ctx.shared().is_myself(&uri.host, uri.port_or_default(), uri.transport());
    let Ok(routes) = msg.addresses(HeaderName::Route) else { return false };
    let routes_are_ours =
        routes.len() <= 2 && routes.iter().all(|route| Uri::parse(&route.uri).is_ok_and(|uri| mine(&uri)));
    let is_ack = msg.method() == Method::Ack;
    routes_are_ours && (is_ack || Uri::parse(&msg.request_uri()).is_ok_and(|uri| mine(&uri)))
}

fn cancel(ctx: &mut Ctx, module: &Arc<B2be>, msg: &Rc<Message>) -> i32 {
    let Some(invite) = ctx.txn_cancelled_by(msg) else { return 1 };
    let Some(For(key)) = ctx.ext_of(invite).and_then(|ext| ext.find::<For>().cloned()) else { return 1 };
    let Some(txn) = ua::take_whole(ctx, Box::new(|_, _, _| ())) else { return -1 };
    ua::answer(ctx, txn, 200, b"canceling", host::tm::Parts::default());
    if ctx.txn(invite).is_open() {
        give_up(ctx, module, &key, msg.clone());
    }
    -1
}

fn received(ctx: &mut Ctx, module: &Arc<B2be>, key: Bytes, msg: &Rc<Message>) {
    let Some(entity) = table::of(ctx).get(&key) else { return };
    let (lane, state, kind) = (lane_of(entity), entity.state, entity.kind);
    let method = msg.method();
    if method == Method::Ack {
        return acknowledged(ctx, module, key, lane, msg);
    }
    let Some(txn) = take(ctx, module, &key) else { return };
    if method == Method::Prack && !module.passthru_prack {
        answer::send_plain(ctx, txn, 200, b"OK", &key);
        if let Some(route) = module.req_route(ctx) {
            let state = copy(ctx);
            owner::enter(ctx, &lane, move |ctx, turn| {
                run_route(ctx, route, state, move |ctx, _| turn.end(ctx));
            });
        }
        return;
    }
    if !state.is_answered() && !matches!(method, Method::Update | Method::Prack) {
        return early(ctx, module, &key, kind, txn, &method);
    }
    if method == Method::Invite {
        host::tm::trying_current(ctx, txn);
    }
    let state = copy(ctx);
    let module = module.clone();
    let own = key.clone();
    let job = move |ctx: &mut Ctx, turn: Turn| within(ctx, module, state, own, Some(txn), turn);
    if !owner::enter(ctx, &lane, job) {
        answer::send_plain(ctx, txn, 500, b"Overlapping Requests", &key);
    }
}

/// Inside a dialog that is not answered yet only its end is understood.
fn early(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, kind: Kind, txn: TxnId, method: &Method) {
    if *method != Method::Bye || kind == Kind::Client {
        answer::send_plain(ctx, txn, 500, b"Server Internal Error", key);
        return;
    }
    answer::send_plain(ctx, txn, 200, b"OK", key);
    let invite = table::of(ctx).get(key).and_then(|entity| entity.uas);
    let cancel = invite.and_then(|id| ctx.txn(id).data().map(|data| sip::build_cancel(&data.msg, b"")));
    if let Some(cancel) = cancel.and_then(|bytes| Message::parse(bytes).ok()) {
        give_up(ctx, module, key, Rc::new(cancel));
    }
}

fn acknowledged(ctx: &mut Ctx, module: &Arc<B2be>, key: Bytes, lane: Bytes, msg: &Rc<Message>) {
    let of = ctx.txn_of(msg).map(|(id, _)| id);
    if let Some(id) = of {
        ua::ack_came(ctx, id, msg);
    }
    let (state, module) = (copy(ctx), module.clone());
    owner::enter(ctx, &lane, move |ctx, turn| {
        match table::of(ctx).get(&key) {
            Some(entity) if entity.state != State::Established => {}
            _ => return turn.end(ctx),
        }
        within(ctx, module, state, key, of, turn);
    });
}

/// A request of an entity, in the turn of its call.
fn within(
    ctx: &mut Ctx,
    module: Arc<B2be>,
    state: Box<MsgState>,
    key: Bytes,
    txn: Option<TxnId>,
    turn: Turn,
) {
    let Some(route) = module.req_route(ctx) else { return admitted(ctx, &module, state, key, txn, turn) };
    run_route(ctx, route, state, move |ctx, state| {
        admitted(ctx, &module, state, key, txn, turn);
    });
}

fn admitted(
    ctx: &mut Ctx,
    module: &Arc<B2be>,
    state: Box<MsgState>,
    key: Bytes,
    txn: Option<TxnId>,
    turn: Turn,
) {
    let method = state.msg.method();
    if table::of(ctx).get(&key).is_none() {
        too_late(ctx, &method, &key, txn);
        return turn.end(ctx);
    }
    let Some(what) = admit(ctx, &state.msg, &key, txn) else { return turn.end(ctx) };
    let Some(entity) = table::of(ctx).get_mut(&key) else { return turn.end(ctx) };
    if matches!(method, Method::Invite | Method::Update) {
        entity.refresh(&state.msg);
    }
    entity.moved_by(&method);
    let (notice, owner, is_ua) = (notice_of(entity, what), entity.owner, entity.is_ua());
    sql::changed(ctx, module, &key);
    ctx.with_state(state, |ctx| match is_ua {
        true => sessions::requested(ctx, module, &key, txn, what, turn),
        false => (owner.notify)(ctx, notice, turn),
    });
}

/// PRACKs of an entity that are not answered yet.
const MAX_PRACKS: usize = 64;

/// The request before it is not answered yet.
fn overlaps(ctx: &mut Ctx, txn: TxnId, key: &Bytes) {
    let seconds = ctx.core.rng.below(10);
    let headers = Bytes::from(format!("Retry-After: {seconds}\r\n"));
    let parts = host::tm::Parts { to_tag: key.clone(), headers, ..Default::default() };
    ua::answer(ctx, txn, 500, b"Overlapping Requests", parts);
}

/// The call ended while its request waited for its turn: the answer is that of a request which comes then (`stray`).
fn too_late(ctx: &mut Ctx, method: &Method, key: &Bytes, txn: Option<TxnId>) {
    let (Some(txn), false) = (txn, matches!(method, Method::Ack | Method::Cancel)) else { return };
    if !ctx.txn(txn).is_open() {
        return;
    }
    match method {
        Method::Bye => answer::send_plain(ctx, txn, 200, b"OK", key),
        _ => answer::send_plain(ctx, txn, 481, b"Call/Transaction Does Not Exist", key),
    };
}

/// Whether the entity may look at the request now. `None`: it was answered, or there is nobody to.
fn admit(ctx: &mut Ctx, msg: &Message, key: &Bytes, txn: Option<TxnId>) -> Option<What> {
    let method = msg.method();
    let entity = table::of(ctx).get_mut(key)?;
    let (Some(txn), false) = (txn, method == Method::Cancel) else { return Some(What::Request) };
    match method {
        Method::Ack => {
            entity.uas = entity.uas.filter(|id| *id != txn);
            let refused = ctx.txn(txn).status() >= 300;
            return Some(if refused { What::AckOfRefusal } else { What::Request });
        }
        Method::Prack => {
            let leg = table::leg_number(&msg.to_tag().unwrap_or_default()).unwrap_or(0);
            if entity.pracks.len() >= MAX_PRACKS {
                overlaps(ctx, txn, key);
                return None;
            }
            entity.pracks.push((leg, txn));
            entity.cseq[CALLEE] = entity.cseq[CALLEE].saturating_add(1);
            return Some(What::Request);
        }
        Method::Update => {
            if entity.update.is_some() {
                overlaps(ctx, txn, key);
                return None;
            }
            entity.update = Some(txn);
            return Some(What::Request);
        }
        _ => {}
    }
    let is_bye = method == Method::Bye;
    if entity.uac.is_some() && !is_bye {
        answer::send_plain(ctx, txn, 491, b"Request Pending", key);
        return None;
    }
    let Some(pending) = entity.uas else {
        entity.uas = Some(txn);
        return Some(What::Request);
    };
    if !is_bye {
        overlaps(ctx, txn, key);
        return None;
    }
    entity.uas = None;
    answer::send_plain(ctx, txn, 200, b"OK", key);
    if ctx.txn(pending).is_open() {
        answer::send_plain(ctx, pending, 487, b"Request Terminated", key);
    }
    Some(What::EndingBye)
}
