//! What a session does to its ends: requests, replies, new calls, forgetting.

use super::session::{self, BridgeFlags, End, EndId, EndState, Session, State};
use super::{B2bl, OWNER, sql, wait};
use crate::b2b_entities::answer::{self, Reply};
use crate::b2b_entities::entity::{self, Kind};
use crate::b2b_entities::send::{self, Inside, NewClient};
use crate::b2b_entities::{B2be, contact_of_socket};
use bytes::Bytes;
use host::Ctx;
use std::sync::Arc;

/// Seconds that a session which is over still hears of its ends.
pub const LAST_S: u64 = 30;

/// The layer below.
pub fn entities(ctx: &Ctx) -> Arc<B2be> {
    ctx.shared().module::<B2be>().expect("b2b_logic needs it")
}

/// Milliseconds of the worker's clock, `seconds` from now.
pub fn later(ctx: &Ctx, seconds: u64) -> u64 {
    ctx.core.now.0.saturating_add(seconds.saturating_mul(1000))
}

fn entity_of(ctx: &mut Ctx, key: &Bytes, id: EndId) -> Option<Bytes> {
    let end = session::of(ctx, key)?.end(id)?;
    Some(end.key.clone()).filter(|key| !key.is_empty())
}

/// Sends a request to an end. False: it cannot be.
pub fn ask(ctx: &mut Ctx, key: &Bytes, id: EndId, what: Inside) -> bool {
    let Some(entity) = entity_of(ctx, key, id) else { return false };
    let module = entities(ctx);
    if &what.method[..] != b"ACK"
        && let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(id))
    {
        end.replied = false;
    }
    send::inside(ctx, &module, &entity, what)
}

/// Answers an end.
pub fn answer(ctx: &mut Ctx, key: &Bytes, id: EndId, reply: Reply) -> bool {
    let Some(entity) = entity_of(ctx, key, id) else { return false };
    let module = entities(ctx);
    answer::reply(ctx, &module, &entity, reply)
}

pub fn bye_ok(ctx: &mut Ctx, key: &Bytes, id: EndId) {
    answer(ctx, key, id, Reply::new("BYE", 200, "OK"));
}

/// Ends the dialog of an end: BYE, or CANCEL when it is not there yet. One that was never called is forgotten.
pub fn hang_up(ctx: &mut Ctx, key: &Bytes, id: Option<EndId>) {
    let Some(end) = id.and_then(|id| session::of(ctx, key)?.end(id).cloned()) else { return };
    if end.key.is_empty() {
        return forget(ctx, key, end.id);
    }
    if end.disconnected || end.rejected {
        return;
    }
    match (is_up(ctx, &end.key), end.kind) {
        (true, _) => drop(ask(ctx, key, end.id, Inside::new("BYE"))),
        (false, Kind::Client) => drop(ask(ctx, key, end.id, Inside::new("CANCEL"))),
        (false, Kind::Server) => {
            answer(ctx, key, end.id, Reply::new("INVITE", 487, "Request Terminated"));
        }
    }
    if let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(end.id)) {
        end.disconnected = true;
    }
}

/// It is answered and not over.
pub fn is_up(ctx: &mut Ctx, entity: &Bytes) -> bool {
    let state = crate::b2b_entities::table::of(ctx).get(entity).map(|entity| entity.state);
    state.is_some_and(|state| state.is_answered() && state != entity::State::Terminated)
}

/// The session is over as soon as its ends have said so.
pub fn close(ctx: &mut Ctx, key: &Bytes) {
    let at = later(ctx, LAST_S);
    if let Some(s) = session::of(ctx, key) {
        (s.to_delete, s.ends_at, s.state) = (true, Some(at), State::Cancel);
    }
    wait::look(ctx, key);
}

/// Forgets an end and its entity.
pub fn forget(ctx: &mut Ctx, key: &Bytes, id: EndId) {
    let Some(end) = session::of(ctx, key).and_then(|s| s.remove(id)) else { return };
    if !end.key.is_empty() {
        let module = entities(ctx);
        send::delete(ctx, &module, &end.key);
    }
    wait::look(ctx, key);
}

/// Forgets a session with all that belongs to it.
pub fn delete(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes) {
    let Some(mut session) = session::table(ctx).remove(key) else { return };
    ctx.cancel(session.retry);
    sql::gone(ctx, module, &session);
    let below = entities(ctx);
    for end in std::mem::take(&mut session.ends) {
        if !end.key.is_empty() {
            send::delete(ctx, &below, &end.key);
        }
    }
    wait::gone(ctx, session);
}

/// The Contact of a call that this server makes: of the script, of `server_address`, else of a socket.
pub fn own_contact(ctx: &mut Ctx, module: &B2bl, from_uri: &Bytes) -> Option<Bytes> {
    let has_message = ctx.state.msg.call_id().is_some_and(|id| &id[..] != b"dummy");
    if let Some(format) = &module.server_address {
        return Some(format.text(ctx));
    }
    if !has_message {
        host::error!("b2b_logic", "a call from here needs the parameter server_address");
        return None;
    }
    let user = if module.contact_user { super::headers::user_of(from_uri) } else { Bytes::new() };
    let socket = ctx.state.socket.unwrap_or(ctx.state.source.socket);
    let path = transaction::Path { socket, ..ctx.state.source };
    Some(contact_of_socket(ctx, path, &user))
}

/// What a call to a new end is made of, beside what the end itself says.
#[derive(Clone, Debug, Default)]
pub struct Calling {
    pub body: Option<Bytes>,
    /// Request-URI and caller's tag, where they are not the usual ones.
    pub ruri: Option<Bytes>,
    pub from_tag: Option<Bytes>,
    pub from_uri: Bytes,
    pub from_dname: Bytes,
    pub headers: Bytes,
    pub contact: Option<Bytes>,
    pub contact_params: Bytes,
    pub hops: Option<u32>,
    pub cseq: Option<u32>,
    pub socket: Option<u16>,
    pub with_avps: bool,
}

/// Calls a new end and lists it. `None`: it cannot be called.
pub fn call(ctx: &mut Ctx, module: &B2bl, key: &Bytes, mut end: End, how: Calling) -> Option<EndId> {
    let contact = match end.contact.clone().or(how.contact).filter(|contact| !contact.is_empty()) {
        Some(contact) => contact,
        None => own_contact(ctx, module, &how.from_uri)?,
    };
    let new = NewClient {
        ruri: how.ruri,
        to_uri: end.to_uri.clone(),
        to_dname: Bytes::new(),
        from_uri: how.from_uri.clone(),
        from_dname: how.from_dname,
        from_tag: how.from_tag,
        proxy: end.proxy.clone(),
        headers: how.headers,
        own_headers: end.headers.clone(),
        body: how.body,
        contact,
        contact_params: how.contact_params,
        cseq: how.cseq,
        max_forwards: how.hops,
        socket: how.socket,
        avps: how.with_avps.then(|| ctx.state.avps.clone()),
    };
    let below = entities(ctx);
    let entity = send::client_new(ctx, &below, new, &OWNER, key.clone(), None)?;
    (end.kind, end.key, end.from_uri) = (Kind::Client, entity.clone(), how.from_uri);
    let listed = session::of(ctx, key).and_then(|s| {
        let id = s.add(end);
        s.enlist(id).then_some(id)
    });
    if listed.is_none() {
        send::delete(ctx, &below, &entity);
    }
    listed
}

/// Calls an end in place of, or beside, the peer that it is to speak with.
pub fn call_for(
    ctx: &mut Ctx,
    module: &B2bl,
    key: &Bytes,
    peer: &End,
    new: &End,
    body: Option<Bytes>,
    with_hops: bool,
) -> Option<EndId> {
    let s = session::of(ctx, key)?;
    let (headers, flags): (Bytes, BridgeFlags) = (s.headers.clone(), s.bridging);
    let from_uri = match peer.kind {
        Kind::Client => peer.to_uri.clone(),
        Kind::Server if !new.from_uri.is_empty() => new.from_uri.clone(),
        Kind::Server => peer.from_uri.clone(),
    };
    let dname = if new.from_dname.is_empty() { &peer.from_dname } else { &new.from_dname };
    let cseq = ctx.state.msg.cseq().map(|cseq| cseq.number);
    let has_message = ctx.state.msg.call_id().is_some_and(|id| &id[..] != b"dummy");
    let how = Calling {
        body,
        from_uri,
        from_dname: dname.clone(),
        headers,
        contact_params: peer.contact_params.clone().unwrap_or_default(),
        hops: peer.hops.filter(|_| with_hops),
        cseq: cseq.filter(|_| has_message),
        socket: ctx.state.socket,
        with_avps: flags.propagate_avps,
        ..Calling::default()
    };
    let end = End { from_dname: Bytes::new(), proxy: new.proxy.clone(), ..new.clone() };
    let end = End {
        state: EndState::New,
        disconnected: false,
        rejected: false,
        peer: None,
        key: Bytes::new(),
        ..end
    };
    call(ctx, module, key, end, how)
}

/// Reads a session, when it is there.
pub fn read<R>(ctx: &mut Ctx, key: &Bytes, look: impl FnOnce(&Session) -> R) -> Option<R> {
    session::of(ctx, key).map(|s| look(s))
}
