//! Hold: both ends get a re-INVITE with what they were sent last, in another direction (RFC 3264 §8.4).

use super::{Callops, HOLD, leg_word, living, raise};
use crate::dialog::api::{self, Inside};
use crate::dialog::{CALLER, Key, LegNo, State, Val};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Ctx};

/// Bits of what is kept: this end does not send, does not receive.
const SEND_OFF: i64 = 4;
const RECV_OFF: i64 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Hold,
    Unhold,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Hold => "hold",
            Action::Unhold => "unhold",
        }
    }
}

fn value_name(leg: LegNo) -> &'static [u8] {
    if leg == CALLER { b"call_hold_caller" } else { b"call_hold_callee" }
}

/// What the command asks of each end.
struct Order {
    /// Of the caller and of the callee.
    modes: [i64; 2],
    headers: [Bytes; 2],
}

impl Order {
    fn parse(params: &MiParams) -> Result<Order, MiError> {
        let modes = match params.text("leg", 1).as_deref() {
            None | Some("both") => [SEND_OFF | RECV_OFF; 2],
            Some("caller") => [RECV_OFF, SEND_OFF],
            Some("callee") => [SEND_OFF, RECV_OFF],
            Some(_) => return Err(MiError::new(420, "Bad leg")),
        };
        let lines = |text: String| Bytes::from(text.replace("\\r\\n", "\r\n"));
        let headers = match params.find("headers", 2).and_then(|value| value.as_array()) {
            Some(list) => [0, 1].map(|at| {
                let text = list.get(at).and_then(|text| text.as_str());
                text.map(|text| lines(text.to_string())).unwrap_or_default()
            }),
            None => {
                let both = params.text("headers", 2).map(lines).unwrap_or_default();
                [both.clone(), both]
            }
        };
        Ok(Order { modes, headers })
    }
}

/// callops:hold and callops:unhold callid [leg] [headers]
pub fn command(call: &mut Call<Callops>, params: &MiParams, answer: MiAnswer, action: Action) {
    let parsed = params.need("callid", 0).and_then(|call_id| Ok((call_id, Order::parse(params)?)));
    let (call_id, order) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return answer.give(Err(error)),
    };
    let name = call_id.clone();
    call.ctx.on_owner(name.as_bytes(), move |ctx: &mut Ctx| {
        answer.give(here(ctx, call_id.as_bytes(), &order, action));
    });
}

fn here(ctx: &mut Ctx, call_id: &[u8], order: &Order, action: Action) -> MiResult {
    let key = living(ctx, call_id).ok_or(MiError::new(404, "Dialog not found"))?;
    let dialog = api::get(ctx, key).filter(|d| d.state == State::Confirmed);
    let callee = dialog.map(|d| d.callee_no()).ok_or(MiError::new(410, "Dialog not ready"))?;
    let mut any = false;
    for (leg, at) in [(CALLER, 0), (callee, 1)] {
        let (mode, headers) = (order.modes[at], order.headers[at].clone());
        any |= match action {
            Action::Hold => hold(ctx, key, leg, mode, headers),
            Action::Unhold => resume(ctx, key, leg, mode, headers),
        };
    }
    match (any, action) {
        (true, _) => Ok("OK".into()),
        (false, Action::Hold) => Err(MiError::new(480, "Both dialog legs are on hold")),
        (false, Action::Unhold) => Err(MiError::new(480, "No dialog legs on hold")),
    }
}

/// What is off at an end.
fn held(ctx: &mut Ctx, key: Key, leg: LegNo) -> i64 {
    match api::val(ctx, key, value_name(leg)) {
        Some(Val::Int(n)) => n,
        Some(Val::Str(text)) if !text.is_empty() => SEND_OFF | RECV_OFF,
        _ => 0,
    }
}

/// False: it is on hold already.
fn hold(ctx: &mut Ctx, key: Key, leg: LegNo, mode: i64, headers: Bytes) -> bool {
    let before = held(ctx, key, leg);
    if before == mode {
        return false;
    }
    offer(ctx, key, leg, before | mode, headers, Action::Hold);
    true
}

/// False: it is not on hold.
fn resume(ctx: &mut Ctx, key: Key, leg: LegNo, mode: i64, headers: Bytes) -> bool {
    let before = held(ctx, key, leg);
    if before == 0 {
        return false;
    }
    offer(ctx, key, leg, before & !mode, headers, Action::Unhold);
    true
}

/// The re-INVITE for one end, which is to be in this state.
fn offer(ctx: &mut Ctx, key: Key, leg: LegNo, mode: i64, headers: Bytes, action: Action) {
    let Some(last) = api::sent_last(ctx, key, leg) else { return };
    let body = match mode {
        0 => last.to_vec(),
        mode => match directed(&last, word(mode)) {
            Some(body) => body,
            None => return,
        },
    };
    tell(ctx, key, leg, action, "start");
    let request = Inside { headers, contact: true, ..Inside::new("INVITE", leg).with_sdp(&body) };
    let sent = api::send(ctx, key, request, move |ctx, answer| {
        let accepted = (200..300).contains(&answer.status);
        if accepted {
            api::set_val(ctx, key, value_name(leg), Some(Val::Int(mode)));
        }
        tell(ctx, key, leg, action, if accepted { "ok" } else { "fail" });
    });
    if !sent {
        tell(ctx, key, leg, action, "fail");
    }
}

fn tell(ctx: &mut Ctx, key: Key, leg: LegNo, action: Action, state: &'static str) {
    let Some(dialog) = api::get(ctx, key) else { return };
    let call_id = Bytes::copy_from_slice(&dialog.call_id);
    let fields: [(&'static str, &[u8]); 4] = [
        ("callid", &call_id),
        ("leg", leg_word(leg).as_bytes()),
        ("action", action.word().as_bytes()),
        ("state", state.as_bytes()),
    ];
    raise(ctx, HOLD, &fields);
}

/// The attribute that an end is shown: what the other one does.
fn word(mode: i64) -> &'static str {
    match (mode & SEND_OFF != 0, mode & RECV_OFF != 0) {
        (true, true) => "inactive",
        (true, false) => "recvonly",
        _ => "sendonly",
    }
}

/// The description with this direction for each stream; `None`: all have it.
fn directed(sdp: &[u8], direction: &str) -> Option<Vec<u8>> {
    let is_direction = |line: &[u8]| {
        line.strip_prefix(b"a=")
            .is_some_and(|a| matches!(a, b"sendrecv" | b"sendonly" | b"recvonly" | b"inactive"))
    };
    let wanted = [b"a=", direction.as_bytes()].concat();
    let mut out = Vec::with_capacity(sdp.len() + 64);
    // Whether the stream that is written has its direction yet; before the first one there is none to have.
    let (mut changed, mut missing, mut streams) = (false, false, false);
    let put = |out: &mut Vec<u8>, line: &[u8]| {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    };
    for line in sdp.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
        if line.is_empty() {
            continue;
        }
        if line.starts_with(b"m=") {
            if missing {
                put(&mut out, &wanted);
                changed = true;
            }
            (missing, streams) = (true, true);
        }
        if streams && is_direction(line) {
            changed |= line != wanted;
            missing = false;
            put(&mut out, &wanted);
        } else {
            put(&mut out, line);
        }
    }
    if missing {
        put(&mut out, &wanted);
        changed = true;
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_turned() {
        let check = |sdp: &str, direction: &str, expected: Option<&str>| {
            let turned = directed(sdp.replace('\n', "\r\n").as_bytes(), direction);
            let turned = turned.map(|text| String::from_utf8_lossy(&text).replace("\r\n", "\n"));
            assert_eq!(turned.as_deref(), expected, "{sdp}");
        };
        check(
            "v=0\na=sendrecv\nm=audio 1 RTP/AVP 0\na=sendrecv\na=ptime:20\nm=video 2 RTP/AVP 9\n",
            "inactive",
            Some(
                "v=0\na=sendrecv\nm=audio 1 RTP/AVP 0\na=inactive\na=ptime:20\nm=video 2 RTP/AVP 9\na=inactive\n",
            ),
        );
        check("v=0\nm=audio 1 RTP/AVP 0\na=sendonly\n", "sendonly", None);
        assert_eq!(
            (word(SEND_OFF), word(RECV_OFF), word(SEND_OFF | RECV_OFF)),
            ("recvonly", "sendonly", "inactive")
        );
    }
}
