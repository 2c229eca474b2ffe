//! Connecting an end with another one: which INVITE goes where, and what its answer leads to.
//!
//! ```text
//!  late offer (usual)        new ◄─INVITE─ ; its 200 offers: old ◄─INVITE+offer─ ; its 200 answers: ACK+answer ─► new
//!  no-late-sdp               new ◄─INVITE+old offer─ ; ACK; old ◄─INVITE─ ; its 200 offers: new ◄─INVITE+offer─ ...
//!  media server in between   old ◄─INVITE─ ; its 200 offers: media ◄─INVITE+offer─ ; then new as above, media gets BYE
//!  hold                      old ◄─INVITE+inactive─ first, then as above
//! ```

use super::session::{self, BridgeFlags, End, EndId, EndState, Initiator, Sdp, State};
use super::{B2bl, acts, hold, link::Link};
use crate::b2b_entities::entity::Kind;
use crate::b2b_entities::send::Inside;
use bytes::Bytes;
use host::Ctx;
use std::sync::Arc;

/// RFC 3261 §14.1: whoever made the Call-ID tries again between 2.1 and 4 seconds later.
const RETRY_MS: u64 = 2_100;

fn end(ctx: &mut Ctx, key: &Bytes, id: EndId) -> Option<End> {
    session::of(ctx, key)?.end(id).cloned()
}

fn change(ctx: &mut Ctx, key: &Bytes, id: EndId, change: impl FnOnce(&mut End)) {
    if let Some(end) = session::of(ctx, key).and_then(|s| s.end_mut(id)) {
        change(end);
    }
}

/// What is to be connected: an end that is there, and ends that are to be called.
pub struct Plan {
    pub old: Option<EndId>,
    pub new: Vec<End>,
    /// A media server for the time until the new end answers.
    pub media: Option<Bytes>,
    pub flags: BridgeFlags,
}

/// Begins to connect. False: somebody cannot be called.
pub fn begin(ctx: &mut Ctx, module: &B2bl, key: &Bytes, mut plan: Plan) -> bool {
    let begun = match plan.old {
        Some(old) => match plan.new.pop() {
            Some(new) => with_old(ctx, module, key, old, new, &plan),
            None => false,
        },
        None => two_new(ctx, module, key, plan.new),
    };
    let own = plan.flags.max_duration;
    let at = (own > 0).then(|| acts::later(ctx, own.into()));
    if let Some(s) = session::of(ctx, key).filter(|_| begun) {
        (s.ends_at, s.bridging.own_lifetime) = (at, own > 0);
    }
    begun
}

fn with_old(ctx: &mut Ctx, module: &B2bl, key: &Bytes, old: EndId, new: End, plan: &Plan) -> bool {
    let flags = plan.flags;
    let own_headers = if flags.media_headers { new.headers.clone() } else { Bytes::new() };
    let Some(s) = session::of(ctx, key) else { return false };
    s.bridge = [Some(old), None, None];
    let state = if flags.hold {
        let waiting = s.add(new);
        s.bridge[1] = Some(waiting);
        put_media(ctx, key, plan.media.clone(), own_headers);
        if !hold_old(ctx, key, old) {
            // There is nothing to hold: it goes on as after its answer.
            return held(ctx, module, key);
        }
        State::Hold
    } else if plan.media.is_some() {
        let waiting = s.add(new);
        s.bridge[1] = Some(waiting);
        put_media(ctx, key, plan.media.clone(), own_headers);
        if !ask_old(ctx, key, old, None) {
            return false;
        }
        State::Bridging
    } else {
        let body = if flags.no_late_sdp { offer_of(ctx, key, old) } else { None };
        if !call_new(ctx, module, key, old, &new, body) {
            return false;
        }
        if flags.no_late_sdp { State::InitSdp } else { State::Bridging }
    };
    if let Some(s) = session::of(ctx, key) {
        s.state = state;
    }
    true
}

fn offer_of(ctx: &mut Ctx, key: &Bytes, id: EndId) -> Option<Bytes> {
    end(ctx, key, id).map(|end| end.in_sdp.unwrap_or_default())
}

/// The media server takes the second place, the new end the third.
fn put_media(ctx: &mut Ctx, key: &Bytes, uri: Option<Bytes>, headers: Bytes) {
    let (Some(uri), Some(s)) = (uri, session::of(ctx, key)) else { return };
    let media = s.add(End { kind: Kind::Client, to_uri: uri, headers, ..End::default() });
    s.bridge[2] = s.bridge[1];
    s.bridge[1] = Some(media);
}

/// Two ends that both are called: the first one offers.
fn two_new(ctx: &mut Ctx, module: &B2bl, key: &Bytes, new: Vec<End>) -> bool {
    let Ok([first, second]) = <[End; 2]>::try_from(new) else { return false };
    let peer = End { kind: Kind::Client, ..second.clone() };
    let Some(called) = acts::call_for(ctx, module, key, &peer, &first, None, false) else { return false };
    let Some(s) = session::of(ctx, key) else { return false };
    let waiting = s.add(peer);
    s.bridge = [Some(called), Some(waiting), None];
    s.state = State::Bridging;
    change(ctx, key, called, |end| (end.peer, end.sdp) = (Some(waiting), Sdp::Late));
    true
}

/// Calls the new end, which takes the second place.
pub fn call_new(
    ctx: &mut Ctx,
    module: &B2bl,
    key: &Bytes,
    old: EndId,
    new: &End,
    body: Option<Bytes>,
) -> bool {
    let Some(peer) = end(ctx, key, old) else { return false };
    let sdp = if body.is_some() { Sdp::Normal } else { Sdp::Late };
    let Some(called) = acts::call_for(ctx, module, key, &peer, new, body, true) else { return false };
    let Some(s) = session::of(ctx, key) else { return false };
    if let Some(end) = s.end_mut(called) {
        (end.sdp, end.no, end.peer) = (sdp, 1, Some(old));
    }
    if let Some(end) = s.end_mut(old).filter(|end| end.peer.is_none()) {
        end.peer = Some(called);
    }
    s.bridge[1] = Some(called);
    true
}

/// Sends an INVITE to the end that is there; without a body it is to offer.
pub fn ask_old(ctx: &mut Ctx, key: &Bytes, old: EndId, body: Option<Bytes>) -> bool {
    let Some(to) = end(ctx, key, old) else { return false };
    let sdp = if body.is_some() { Sdp::Normal } else { Sdp::Late };
    let what = Inside {
        own_headers: to.headers.clone(),
        body,
        contact_params: to.contact_params.clone().unwrap_or_default(),
        ..Inside::new("INVITE")
    };
    acts::ask(ctx, key, old, what);
    change(ctx, key, old, |end| (end.state, end.sdp) = (EndState::New, sdp));
    true
}

/// False: it is not sending, or nothing is known of what it hears.
fn hold_old(ctx: &mut Ctx, key: &Bytes, old: EndId) -> bool {
    let heard = end(ctx, key, old).and_then(|end| end.out_sdp).unwrap_or_default();
    match hold::inactive(&heard) {
        Some(body) => ask_old(ctx, key, old, Some(body)),
        None => false,
    }
}

/// The old end is on hold.
fn held(ctx: &mut Ctx, module: &B2bl, key: &Bytes) -> bool {
    let Some(s) = session::of(ctx, key) else { return false };
    let (bridge, flags) = (s.bridge, s.bridging);
    let [Some(old), Some(next), third] = bridge else { return false };
    if third.is_some() {
        s.state = State::Bridging;
        return ask_old(ctx, key, old, None);
    }
    let Some(new) = s.remove(next) else { return false };
    let body = if flags.no_late_sdp { offer_of(ctx, key, old) } else { None };
    let state = if flags.no_late_sdp { State::InitSdp } else { State::Bridging };
    if !call_new(ctx, module, key, old, &new, body) {
        return false;
    }
    if let Some(s) = session::of(ctx, key) {
        s.state = state;
    }
    true
}

fn ack(ctx: &mut Ctx, key: &Bytes, id: EndId, what: Inside) -> bool {
    acts::ask(ctx, key, id, Inside { method: Bytes::from_static(b"ACK"), ..what })
}

/// A 2xx while ends are being connected. False: it does not fit.
pub fn accepted(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, id: EndId) -> bool {
    if let Some(params) = super::headers::contact_params(module, &ctx.state.msg.clone()) {
        change(ctx, key, id, |end| end.contact_params = Some(params));
    }
    let Some(s) = session::of(ctx, key) else { return false };
    let (state, place) = (s.state, s.place_of(id));
    if s.bridge[0].is_none() {
        acts::close(ctx, key);
        return false;
    }
    match (state, place) {
        (State::Hold, Some(0)) => {
            change(ctx, key, id, |end| end.state = EndState::Confirmed);
            ack(ctx, key, id, Inside::default()) && held(ctx, module, key)
        }
        (State::InitSdp, Some(1)) => {
            let body = current_body(ctx);
            change(ctx, key, id, |end| (end.state, end.in_sdp) = (EndState::Confirmed, body));
            let Some(old) = session::of(ctx, key).and_then(|s| s.bridge[0]) else { return false };
            let asked = ack(ctx, key, id, Inside::default()) && ask_old(ctx, key, old, None);
            if let Some(s) = session::of(ctx, key).filter(|_| asked) {
                s.state = State::Bridging;
            }
            asked
        }
        (State::Bridging, Some(0)) => first_answered(ctx, module, key, id),
        (State::Bridging, Some(1)) => second_answered(ctx, module, key, id),
        (State::Bridging, Some(_)) => third_answered(ctx, key, id),
        _ => false,
    }
}

fn current_body(ctx: &Ctx) -> Option<Bytes> {
    ctx.state.ext.find::<Link>().and_then(|link| link.body.clone())
}

/// The end that was there (or was called first) answers.
fn first_answered(ctx: &mut Ctx, module: &B2bl, key: &Bytes, id: EndId) -> bool {
    let (Some(first), body) = (end(ctx, key, id), current_body(ctx)) else { return false };
    let Some(s) = session::of(ctx, key) else { return false };
    let (third, headers) = (s.bridge[2], s.headers.clone());
    let Some(second) = s.bridge[1].and_then(|id| s.end(id)).cloned() else { return false };
    let params = first.contact_params.clone().unwrap_or_default();
    if first.sdp == Sdp::Normal {
        // It answers the offer of the second one.
        change(ctx, key, id, |end| (end.state, end.in_sdp) = (EndState::Confirmed, body.clone()));
        change(ctx, key, second.id, |end| end.out_sdp = body.clone());
        let with = Inside { headers, body, contact_params: params, ..Inside::default() };
        let done = ack(ctx, key, second.id, with) && ack(ctx, key, id, Inside::default());
        bridged(ctx, key, id, second.id);
        return done;
    }
    if !second.key.is_empty() && second.state == EndState::New && second.kind == Kind::Client {
        return false;
    }
    change(ctx, key, id, |end| end.state = EndState::Confirmed);
    let connected = if second.kind == Kind::Client && second.key.is_empty() {
        let Some(called) = acts::call_for(ctx, module, key, &first, &second, body.clone(), true) else {
            return false;
        };
        change(ctx, key, called, |end| (end.sdp, end.no) = (Sdp::Normal, 1));
        let Some(s) = session::of(ctx, key) else { return false };
        s.remove(second.id);
        s.bridge[1] = Some(called);
        called
    } else {
        let what = Inside {
            headers,
            own_headers: second.headers.clone(),
            body: body.clone(),
            contact_params: params,
            ..Inside::new("INVITE")
        };
        if !acts::ask(ctx, key, second.id, what) {
            return false;
        }
        change(ctx, key, second.id, |end| (end.sdp, end.state) = (Sdp::Normal, EndState::New));
        second.id
    };
    if let Some(s) = session::of(ctx, key) {
        s.connect(id, connected);
    }
    if third.is_none() {
        change(ctx, key, id, |end| end.in_sdp = body.clone());
        change(ctx, key, connected, |end| end.out_sdp = body);
    }
    true
}

fn bridged(ctx: &mut Ctx, key: &Bytes, a: EndId, b: EndId) {
    if let Some(s) = session::of(ctx, key) {
        s.connect(a, b);
        s.state = State::Bridged;
        s.bridging.pending_sdp = false;
    }
}

/// The new end, or the media server, answers.
fn second_answered(ctx: &mut Ctx, module: &B2bl, key: &Bytes, id: EndId) -> bool {
    let body = current_body(ctx);
    let (Some(second), Some(s)) = (end(ctx, key, id), session::of(ctx, key)) else { return false };
    let (third, headers, flags) = (s.bridge[2], s.headers.clone(), s.bridging);
    let Some(first) = s.bridge[0].and_then(|id| s.end(id)).cloned() else { return false };
    let params = second.contact_params.clone().unwrap_or_default();
    change(ctx, key, id, |end| (end.state, end.in_sdp) = (EndState::Confirmed, body.clone()));
    if second.sdp == Sdp::Late {
        // It offers: the first one is to answer.
        let what = Inside {
            own_headers: first.headers.clone(),
            body: body.clone(),
            contact_params: params,
            ..Inside::new("INVITE")
        };
        acts::ask(ctx, key, first.id, what);
        change(ctx, key, first.id, |end| {
            (end.state, end.sdp, end.out_sdp) = (EndState::New, Sdp::Normal, body);
        });
        if let Some(s) = session::of(ctx, key) {
            s.connect(first.id, id);
        }
        return true;
    }
    let answer = if first.sdp == Sdp::Late { body.clone() } else { None };
    let with = Inside { headers, body: answer, ..Inside::default() };
    if !ack(ctx, key, first.id, with) || !ack(ctx, key, id, Inside::default()) {
        return false;
    }
    change(ctx, key, first.id, |end| (end.state, end.out_sdp) = (EndState::Confirmed, body));
    let Some(third) = third else {
        bridged(ctx, key, first.id, id);
        return true;
    };
    if let Some(s) = session::of(ctx, key) {
        s.connect(first.id, id);
    }
    call_third(ctx, module, key, first.id, third, flags)
}

/// The media server plays, the real destination is called.
fn call_third(
    ctx: &mut Ctx,
    module: &B2bl,
    key: &Bytes,
    first: EndId,
    third: EndId,
    flags: BridgeFlags,
) -> bool {
    let (Some(peer), Some(new)) = (end(ctx, key, first), end(ctx, key, third)) else { return false };
    let body = if flags.no_late_sdp { Some(peer.in_sdp.clone().unwrap_or_default()) } else { None };
    let sdp = if body.is_some() { Sdp::Normal } else { Sdp::Late };
    let Some(called) = acts::call_for(ctx, module, key, &peer, &new, body, true) else { return false };
    change(ctx, key, called, |end| (end.sdp, end.no) = (sdp, 1));
    let Some(s) = session::of(ctx, key) else { return false };
    s.remove(third);
    s.bridge[2] = Some(called);
    true
}

/// The real destination answers: the media server has done its work.
fn third_answered(ctx: &mut Ctx, key: &Bytes, id: EndId) -> bool {
    let body = current_body(ctx);
    let Some(s) = session::of(ctx, key) else { return false };
    let ([Some(first), media, _], headers) = (s.bridge, s.headers.clone()) else { return false };
    let params = s.end(id).and_then(|end| end.contact_params.clone()).unwrap_or_default();
    acts::hang_up(ctx, key, media);
    let Some(own) = end(ctx, key, first) else { return false };
    let what = Inside {
        headers,
        own_headers: own.headers.clone(),
        body: body.clone(),
        contact_params: params,
        ..Inside::new("INVITE")
    };
    if !acts::ask(ctx, key, first, what) {
        return false;
    }
    change(ctx, key, first, |end| {
        (end.state, end.sdp, end.out_sdp) = (EndState::New, Sdp::Normal, body.clone());
    });
    change(ctx, key, id, |end| (end.state, end.in_sdp) = (EndState::Confirmed, body));
    let Some(s) = session::of(ctx, key) else { return false };
    // The new end offers now, as if it had been there: it has the first place.
    s.bridge = [Some(id), Some(first), None];
    s.connect(id, first);
    change(ctx, key, first, |end| end.sdp = Sdp::Normal);
    true
}

/// An end refuses while ends are being connected. True: the session goes on.
pub fn refused(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, id: EndId) -> bool {
    let Some(s) = session::of(ctx, key) else { return false };
    let Some(place) = s.place_of(id) else { return true };
    if place == 0 {
        s.state = State::Cancel;
    }
    ended(ctx, module, key, id, place)
}

/// An end hangs up while ends are being connected.
pub fn hung_up(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, id: EndId) {
    let Some(s) = session::of(ctx, key) else { return };
    let asked = s.bridging.rollback && s.initiator == Some(Initiator::End(id));
    let place = if asked { Some(3) } else { s.place_of(id) };
    acts::bye_ok(ctx, key, id);
    if let Some(place) = place {
        ended(ctx, module, key, id, place);
    }
}

/// True: the session goes on.
fn ended(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes, id: EndId, place: usize) -> bool {
    let Some(s) = session::of(ctx, key) else { return false };
    let (bridge, flags, initiator) = (s.bridge, s.bridging, s.initiator.clone());
    let back = match initiator {
        Some(Initiator::End(own)) if flags.rollback => {
            s.end(own).filter(|end| end.peer.is_some()).map(|end| end.id)
        }
        _ => None,
    };
    match (place, bridge[2], back) {
        // The media server is not there: the real destination all the same.
        (1, Some(third), _) => {
            acts::forget(ctx, key, id);
            let Some(first) = bridge[0] else { return false };
            if let Some(first) = session::of(ctx, key).and_then(|s| s.end_mut(first)) {
                first.state = EndState::Confirmed;
            }
            return call_third(ctx, module, key, first, third, flags);
        }
        (1, None, Some(back)) => {
            acts::forget(ctx, key, id);
            restore(ctx, key, back, bridge[0]);
            return true;
        }
        (2, _, Some(back)) => {
            acts::forget(ctx, key, id);
            acts::hang_up(ctx, key, bridge[1]);
            restore(ctx, key, back, bridge[0]);
            if !ask_old(ctx, key, back, None) {
                return false;
            }
            if let Some(s) = session::of(ctx, key) {
                s.state = State::Bridging;
            }
            return true;
        }
        _ => {}
    }
    let initiator = match initiator {
        Some(Initiator::End(own)) if place == 0 => Some(own),
        _ => None,
    };
    for other in bridge.into_iter().chain([initiator]).flatten().filter(|other| *other != id) {
        acts::hang_up(ctx, key, Some(other));
    }
    acts::close(ctx, key);
    false
}

/// The two that spoke before speak again.
fn restore(ctx: &mut Ctx, key: &Bytes, back: EndId, other: Option<EndId>) {
    let Some(s) = session::of(ctx, key) else { return };
    s.bridge = [Some(back), other, None];
    if let Some(other) = other {
        s.connect(back, other);
    }
    s.state = State::Bridged;
    s.initiator = None;
}

/// The new end is changing the session itself: the first one is left as it is, and asked again later.
pub fn pending(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes) {
    let Some(s) = session::of(ctx, key) else { return };
    let [Some(first), Some(second), _] = s.bridge else { return };
    let body = s.end(second).and_then(|end| end.in_sdp.clone());
    s.bridging.pending_sdp = true;
    s.state = State::Bridged;
    ack(ctx, key, first, Inside { body, ..Inside::default() });
    let (module, own) = (module.clone(), key.clone());
    let timer = ctx.after(RETRY_MS, move |ctx| {
        let Some(s) = session::of(ctx, &own) else { return };
        let [Some(first), Some(second), _] = s.bridge else { return };
        if !s.bridging.pending_sdp || s.to_delete {
            return;
        }
        change(ctx, &own, second, |end| end.state = EndState::Confirmed);
        if ask_old(ctx, &own, first, None)
            && let Some(s) = session::of(ctx, &own)
        {
            s.state = State::Bridging;
        }
        super::sql::changed(ctx, &module, &own);
    });
    if let Some(s) = session::of(ctx, key) {
        s.retry = timer;
    }
}

/// The ACK of a call that replaced an end: the one that was replaced hears of it now (`late_bye`).
pub fn late_bye(ctx: &mut Ctx, module: &Arc<B2bl>, key: &Bytes) {
    let Some(s) = session::of(ctx, key) else { return };
    if s.state != State::Bridged || !s.bridging.late_bye {
        return;
    }
    s.bridging = BridgeFlags::default();
    let Some(old) = s.bridge[2].take() else { return };
    let Some(end) = s.remove(old) else { return };
    let delay = u64::from(module.term_delay) * 1000;
    if delay == 0 {
        return part_with(ctx, end);
    }
    ctx.after(delay, move |ctx| part_with(ctx, end));
}

/// An end that no session has any more is ended and forgotten.
pub fn part_with(ctx: &mut Ctx, end: End) {
    use crate::b2b_entities::answer::{self, Reply};
    use crate::b2b_entities::{send, table};
    let module = acts::entities(ctx);
    let answered = table::of(ctx).get(&end.key).is_some_and(|entity| entity.state.is_answered());
    if end.disconnected {
        answer::reply(ctx, &module, &end.key, Reply::new("BYE", 200, "OK"));
    } else if answered || end.kind == Kind::Client {
        send::inside(ctx, &module, &end.key, Inside { quiet: answered, ..Inside::new("BYE") });
    } else {
        let reason = "Temporarily Unavailable - answered elsewhere";
        answer::reply(ctx, &module, &end.key, Reply::new("INVITE", 480, reason));
    }
    send::delete(ctx, &module, &end.key);
}
