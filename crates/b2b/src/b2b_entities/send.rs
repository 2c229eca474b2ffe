//! What entities send: their first INVITE, requests inside the dialog, ACKs.

use super::entity::{CALLEE, CALLER, Entity, Kind, State, method_number, party};
use super::owner::{self, Owner};
use super::table::{self, Moved};
use super::ua::UaFlags;
use super::{B2be, answer, auth, heard, sql};
use bytes::Bytes;
use host::Ctx;
use host::avp::Avps;
use host::tm::NewRequest;
use host::tm::ua::{self, Heard};
use sip::Method;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use transaction::TxnId;

/// A call that is to begin here.
#[derive(Clone, Debug, Default)]
pub struct NewClient {
    /// Request-URI; `None`: that of To.
    pub ruri: Option<Bytes>,
    pub to_uri: Bytes,
    pub to_dname: Bytes,
    pub from_uri: Bytes,
    pub from_dname: Bytes,
    /// `None`: a new one.
    pub from_tag: Option<Bytes>,
    pub proxy: Option<Bytes>,
    /// Whole lines, before and behind the Contact.
    pub headers: Bytes,
    pub own_headers: Bytes,
    /// `Some` says Content-Type also when it is empty.
    pub body: Option<Bytes>,
    pub contact: Bytes,
    pub contact_params: Bytes,
    /// That of the request it follows from; its own is one more.
    pub cseq: Option<u32>,
    /// As it came in; `None`: 70.
    pub max_forwards: Option<u32>,
    pub socket: Option<u16>,
    pub avps: Option<Rc<RefCell<Avps>>>,
}

/// A request inside a dialog.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    pub method: Bytes,
    /// Whole lines, before and behind the Contact.
    pub headers: Bytes,
    pub own_headers: Bytes,
    pub body: Option<Bytes>,
    pub contact_params: Bytes,
    /// As it came in; `None`: 70.
    pub max_forwards: Option<u32>,
    /// Which end a forked client means.
    pub leg: Option<u32>,
    /// Nobody hears of its replies.
    pub quiet: bool,
}

impl Inside {
    pub fn new(method: &str) -> Inside {
        Inside { method: Bytes::copy_from_slice(method.as_bytes()), ..Inside::default() }
    }
}

/// 32 digits of the From tag of a call.
pub fn random_tag(ctx: &mut Ctx) -> String {
    format!("{:016x}{:016x}", ctx.core.rng.next_u64(), ctx.core.rng.next_u64())
}

/// Lines with the Contact between them, and a Content-Type for a body that has none.
pub fn lines(before: &[u8], contact: &[u8], params: &[u8], behind: &[u8], has_body: bool) -> Bytes {
    let mut out = before.to_vec();
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    let parts: [&[u8]; 3] =
        if contact.starts_with(b"<") { [b"Contact: ", contact, b""] } else { [b"Contact: <", contact, b">"] };
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(params);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(behind);
    let named = out.split(|b| *b == b'\n').any(|line| {
        let name = line.split(|b| *b == b':').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"Content-Type") || name.eq_ignore_ascii_case(b"c")
    });
    if has_body && !named {
        out.extend_from_slice(b"Content-Type: application/sdp\r\n");
    }
    out.into()
}

fn forwards(came: Option<u32>) -> u32 {
    came.filter(|n| *n > 0).map_or(70, |n| n - 1)
}

/// Begins a call. Its key is its Call-ID. `None`: it cannot be sent.
pub fn client_new(
    ctx: &mut Ctx,
    module: &Arc<B2be>,
    new: NewClient,
    owner: &'static Owner,
    logic: Bytes,
    ua: Option<UaFlags>,
) -> Option<Bytes> {
    let (key, id) = module.keys.make(ctx, Kind::Client);
    let tag = match &new.from_tag {
        Some(tag) => tag.clone(),
        None => {
            let crc = ctx.core.rng.below(1 << 16);
            Bytes::from(format!("{}-{crc:04x}", random_tag(ctx)))
        }
    };
    let cseq = new.cseq.filter(|n| *n > 0).unwrap_or(1).saturating_add(1);
    let entity = Entity {
        from_uri: new.from_uri.clone(),
        from_dname: new.from_dname.clone(),
        to_uri: new.to_uri.clone(),
        to_dname: new.to_dname.clone(),
        tags: [tag.clone(), Bytes::new()],
        call_id: key.clone(),
        cseq: [cseq, 0],
        last_invite_cseq: cseq,
        contact: [new.contact.clone(), Bytes::new()],
        proxy: new.proxy.clone(),
        last_method: method_number(b"INVITE"),
        socket: new.socket,
        ua,
        avps: new.avps.clone(),
        ..Entity::new(Kind::Client, key.clone(), id, owner, logic)
    };
    if !table::of(ctx).insert(entity) {
        return None;
    }
    let request = first_request(&new, key.clone(), tag, cseq);
    match send(ctx, module, &key, request, new.avps) {
        Some(txn) => {
            if let Some(entity) = table::of(ctx).get_mut(&key) {
                entity.uac = Some(txn);
            }
            Some(key)
        }
        None => {
            table::of(ctx).remove(&key);
            None
        }
    }
}

fn first_request(new: &NewClient, call_id: Bytes, tag: Bytes, cseq: u32) -> NewRequest {
    let target = new.ruri.clone().unwrap_or_else(|| new.to_uri.clone());
    let trimmed = target.strip_prefix(b"<").and_then(|t| t.strip_suffix(b">")).map(|t| target.slice_ref(t));
    let mut request = NewRequest::new("INVITE", trimmed.unwrap_or(target), "", "");
    request.from = party(&new.from_dname, &new.from_uri, &tag);
    request.to = party(&new.to_dname, &new.to_uri, b"");
    request.call_id = Some(call_id);
    request.cseq = cseq;
    request.max_forwards = forwards(new.max_forwards);
    request.headers =
        lines(&new.headers, &new.contact, &new.contact_params, &new.own_headers, new.body.is_some());
    request.body = new.body.clone().unwrap_or_default();
    request.next_hop = new.proxy.clone();
    request.socket = new.socket;
    request
}

/// Sends a request of an entity and hears of its replies in the turn of the call.
pub fn send(
    ctx: &mut Ctx,
    module: &Arc<B2be>,
    key: &Bytes,
    mut request: NewRequest,
    avps: Option<Rc<RefCell<Avps>>>,
) -> Option<TxnId> {
    let copy = avps.map(|avps| Rc::new(RefCell::new(avps.borrow().clone())));
    request.avps = copy.clone();
    let sent = Rc::new(request.clone());
    let (module, key) = (module.clone(), key.clone());
    let ear = move |ctx: &mut Ctx, txn: TxnId, what: Heard| {
        let Heard::Reply(reply) = what else { return };
        if reply.status == 100 {
            return;
        }
        let lane = table::of(ctx).get(&key).map_or_else(|| key.clone(), lane_of);
        let came = heard::Came { key: key.clone(), txn, sent: sent.clone(), reply, avps: copy.clone() };
        let module = module.clone();
        owner::enter(ctx, &lane, move |ctx, turn| heard::reply(ctx, &module, came, turn));
    };
    ua::send(ctx, request, Box::new(ear)).ok()
}

/// The lane of an entity's call.
pub fn lane_of(entity: &Entity) -> Bytes {
    if entity.logic.is_empty() { entity.key.clone() } else { entity.logic.clone() }
}

/// Sends a request inside the dialog of an entity. False: it cannot be.
pub fn inside(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, what: Inside) -> bool {
    let mut method = Method::parse(&what.method);
    let Some(entity) = table::of(ctx).get_mut(key) else { return false };
    if entity.state == State::Terminated {
        return matches!(method, Method::Bye | Method::Cancel);
    }
    let rack = entity.leg(what.leg).map(|leg| leg.rack.clone()).filter(|_| method == Method::Prack);
    let before = [&rack.unwrap_or_default()[..], &what.headers].concat();
    let contact = entity.own_contact().clone();
    let headers = lines(&before, &contact, &what.contact_params, &what.own_headers, what.body.is_some());
    if !entity.state.is_answered() {
        let known = matches!(method, Method::Update | Method::Prack | Method::Cancel | Method::Invite);
        match (&method, entity.kind) {
            (Method::Bye, Kind::Client) => method = Method::Cancel,
            _ if !known => return false,
            _ => {}
        }
    } else if entity.state == State::Confirmed && method != Method::Ack && entity.last_method == 1 {
        // The answer is acknowledged before anything else follows.
        ack(ctx, key, &headers, what.body.as_ref(), None);
    }
    let sent = match method {
        Method::Cancel => give_up(ctx, module, key, headers, &what),
        Method::Ack => ack(ctx, key, &headers, what.body.as_ref(), what.max_forwards),
        _ => request(ctx, module, key, headers, &what),
    };
    if !sent {
        return false;
    }
    if let Some(entity) = table::of(ctx).get_mut(key) {
        entity.moved_by(&method);
    }
    sql::changed(ctx, module, key);
    true
}

fn request(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, headers: Bytes, what: &Inside) -> bool {
    let method = String::from_utf8_lossy(&what.method).into_owned();
    let avps = ctx.state.avps.clone();
    let Some(entity) = table::of(ctx).get_mut(key) else { return false };
    entity.last_method = method_number(&what.method);
    let mut request = entity.request(&method, what.leg);
    request.headers = [&request.headers[..], &headers[..]].concat().into();
    request.body = what.body.clone().unwrap_or_default();
    request.max_forwards = forwards(what.max_forwards);
    if what.quiet {
        return ua::send(ctx, request, Box::new(|_, _, _| ())).is_ok();
    }
    let Some(txn) = send(ctx, module, key, request, Some(avps)) else { return false };
    if method == "INVITE"
        && let Some(entity) = table::of(ctx).get_mut(key)
    {
        (entity.uac, entity.unacked) = (Some(txn), None);
    }
    true
}

/// CANCEL, or BYE for what was answered already.
fn give_up(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, headers: Bytes, what: &Inside) -> bool {
    let Some(entity) = table::of(ctx).get_mut(key) else { return false };
    entity.last_method = method_number(b"CANCEL");
    if let Some(txn) = entity.uac {
        ua::cancel(ctx, txn, headers);
        return true;
    }
    if !entity.state.is_answered() {
        return false;
    }
    if entity.state == State::Confirmed {
        ack(ctx, key, &headers, None, None);
    }
    if let Some(entity) = table::of(ctx).get_mut(key) {
        entity.state = State::Terminated;
    }
    let bye = Inside { method: Bytes::from_static(b"BYE"), ..what.clone() };
    request(ctx, module, key, headers, &bye)
}

/// Acknowledges the 2xx that came last.
fn ack(ctx: &mut Ctx, key: &Bytes, headers: &Bytes, body: Option<&Bytes>, came: Option<u32>) -> bool {
    let Some(entity) = table::of(ctx).get_mut(key) else { return false };
    entity.last_method = method_number(b"ACK");
    entity.ack_body = body.cloned().unwrap_or_default();
    let Some(unacked) = entity.unacked.take() else { return false };
    let mut request = entity.request("ACK", None);
    if entity.state == State::Confirmed {
        entity.state = State::Established;
    }
    request.headers = [&request.headers[..], &headers[..]].concat().into();
    request.body = body.cloned().unwrap_or_default();
    request.max_forwards = forwards(came);
    ua::ack_with(ctx, unacked.txn, &unacked.reply, request)
}

/// Forgets an entity. What it has not answered is answered 408.
pub fn delete(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes) {
    let Some(entity) = table::of(ctx).remove(key) else { return };
    ctx.cancel(entity.ua_timer);
    sql::gone(ctx, module, &entity);
    ctx.shared().part_of_moved().forget(&entity.call_id);
    for txn in [entity.uas, entity.update].into_iter().flatten().chain(entity.pracks.iter().map(|p| p.1)) {
        if ctx.txn(txn).is_open() {
            answer::send_plain(ctx, txn, 408, b"Request Timeout", &entity.key);
        }
    }
}

/// Where the calls that moved are known.
pub trait PartOfMoved {
    fn part_of_moved(&self) -> Arc<Moved>;
}

impl PartOfMoved for Arc<host::Shared> {
    fn part_of_moved(&self) -> Arc<Moved> {
        self.module::<B2be>().map(|module| module.moved.clone()).unwrap_or_default()
    }
}

/// Acknowledges a 2xx that nobody waits for, and ends the call that it began.
pub fn ack_and_bye(
    ctx: &mut Ctx,
    txn: TxnId,
    sent: &NewRequest,
    reply: &sip::Message,
    entity: Option<&Bytes>,
) {
    let invite = ctx.txn(txn).data().map(|data| data.msg.clone());
    let Some(mut side) = invite.and_then(|invite| ua::Side::of_reply(&invite, reply)) else { return };
    side.socket = sent.socket;
    let agent = entity.and_then(|key| table::of(ctx).get(key).map(|e| e.own_contact().clone()));
    let contact = agent.map(|contact| lines(b"", &contact, b"", b"", false)).unwrap_or_default();
    let mut ack = side.request("ACK");
    ack.headers = [&ack.headers[..], &contact[..]].concat().into();
    ua::ack_with(ctx, txn, reply, ack);
    let mut bye = side.request("BYE");
    bye.headers = [&bye.headers[..], &contact[..]].concat().into();
    let _ = ua::send(ctx, bye, Box::new(|_, _, _| ()));
}

/// Answers a challenge to a request of an entity. True: the request goes out again.
pub fn answer_challenge(ctx: &mut Ctx, module: &Arc<B2be>, came: &heard::Came) -> bool {
    let Some(reply) = came.reply.reply.clone() else { return false };
    let Some(line) = auth::line(ctx, &came.sent, &reply, came.avps.as_ref()) else { return false };
    let mut again = (*came.sent).clone();
    let Some(entity) = table::of(ctx).get_mut(&came.key) else { return false };
    let own = if entity.kind == Kind::Server { CALLEE } else { CALLER };
    entity.cseq[own] = entity.cseq[own].saturating_add(1);
    again.cseq = entity.cseq[own];
    again.max_forwards = forwards(None);
    entity.last_invite_cseq = again.cseq;
    again.headers = [&again.headers[..], &line[..]].concat().into();
    let Some(txn) = send(ctx, module, &came.key, again, came.avps.clone()) else { return false };
    if let Some(entity) = table::of(ctx).get_mut(&came.key) {
        entity.uac = Some(txn);
        if !entity.state.is_answered() {
            entity.state = State::NewAuth;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_it_is() {
        let check = |before: &str, contact: &str, has_body: bool, expected: &str| {
            let found = lines(before.as_bytes(), contact.as_bytes(), b";x", b"A: b\r\n", has_body);
            assert_eq!(String::from_utf8_lossy(&found), expected);
        };
        check("", "sip:s@x", false, "Contact: <sip:s@x>;x\r\nA: b\r\n");
        check("", "<sip:s@x>", true, "Contact: <sip:s@x>;x\r\nA: b\r\nContent-Type: application/sdp\r\n");
        check(
            "content-type: text/plain\r\n",
            "sip:s@x",
            true,
            "content-type: text/plain\r\nContact: <sip:s@x>;x\r\nA: b\r\n",
        );
    }

    #[test]
    fn hops_are_counted() {
        assert_eq!(
            [forwards(None), forwards(Some(0)), forwards(Some(1)), forwards(Some(70))],
            [70, 70, 0, 69]
        );
    }
}
