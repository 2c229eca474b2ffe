//! REFERs: an end is told to call somebody else, or to take the place of an end of another call.

use super::{CALL_VALUE, Callops, LEG_VALUE, Mode, leg_of, leg_word, living, set_text, text_value};
use crate::dialog::api::{self, Inside};
use crate::dialog::{CALLER, Key, LegNo};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams};
use host::tm::Answer;
use host::{Call, Ctx, Text};
use serde_json::json;

/// Where an end is to go.
enum Destination {
    Blind(Bytes),
    /// In the place of the end with these tags of the call.
    Attended {
        uri: Bytes,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Bytes,
    },
}

impl Destination {
    /// The header of the REFER. `did`, `call_id`: of the dialog that is transferred.
    fn refer_to(&self, module: &Callops, did: &str, call_id: &[u8]) -> Bytes {
        let mut line = b"Refer-To: <".to_vec();
        match self {
            Destination::Blind(uri) => {
                line.extend_from_slice(uri);
                let id = match module.mode {
                    Mode::Manual => None,
                    Mode::Did => Some(did.as_bytes()),
                    Mode::CallId => Some(call_id),
                };
                if let Some(id) = id {
                    line.extend([b";", module.param.as_bytes(), b"=", id].concat());
                }
            }
            Destination::Attended { uri, call_id, from_tag, to_tag } => {
                line.extend_from_slice(uri);
                line.extend_from_slice(b"?Replaces=");
                escape(&mut line, call_id);
                line.extend_from_slice(b"%3Bto-tag%3D");
                escape(&mut line, to_tag);
                line.extend_from_slice(b"%3Bfrom-tag%3D");
                escape(&mut line, from_tag);
            }
        }
        line.extend_from_slice(b">\r\n");
        line.into()
    }
}

/// As a value of a header in a URI (RFC 3261 §19.1.1, hvalue).
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for b in text {
        if b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(b) {
            out.push(*b);
        } else {
            out.extend(format!("%{b:02X}").into_bytes());
        }
    }
}

/// Refers an end. False: it is being transferred already, or cannot be reached; `done` is not told then.
fn refer(
    ctx: &mut Ctx,
    module: &Callops,
    key: Key,
    leg: LegNo,
    destination: &Destination,
    done: impl FnOnce(&mut Ctx, Answer) + 'static,
) -> bool {
    let Some(dialog) = api::get(ctx, key) else { return false };
    let line = destination.refer_to(module, &dialog.did.to_string(), &dialog.call_id);
    set_text(ctx, key, LEG_VALUE, leg_word(leg).as_bytes());
    let request = Inside { headers: line, contact: true, ..Inside::new("REFER", leg) };
    let sent = api::send(ctx, key, request, move |ctx, answer| {
        if answer.status >= 300 {
            set_text(ctx, key, LEG_VALUE, b"");
        }
        done(ctx, answer);
    });
    if !sent {
        set_text(ctx, key, LEG_VALUE, b"");
    }
    sent
}

fn is_under_way(ctx: &mut Ctx, key: Key) -> bool {
    text_value(ctx, key, LEG_VALUE).is_some()
}

/// The dialog of a script, when it is confirmed and not being transferred.
fn current(ctx: &mut Ctx) -> Option<Key> {
    let (key, _) = api::in_context(ctx)?;
    let ready = api::get(ctx, key).is_some_and(|d| d.state.is_answered());
    if !ready || is_under_way(ctx, key) {
        host::info!("callops", "call_transfer: the call is not answered, or is being transferred");
        return None;
    }
    Some(key)
}

/// call_transfer(leg, destination): 1 the REFER is on its way, -1 not.
pub fn blind(call: &mut Call<Callops>, leg: Text, destination: Text) -> i32 {
    let module = call.module.clone();
    let Some(key) = current(call.ctx) else { return -1 };
    let Some(leg) = leg_of(call.ctx, key, &leg.to_ascii_lowercase()) else {
        host::error!("callops", "call_transfer: the leg is caller or callee, not {}", leg.str());
        return -1;
    };
    let sent = refer(call.ctx, &module, key, leg, &Destination::Blind(destination.0), |_, _| ());
    if sent { 1 } else { -1 }
}

/// call_transfer(leg, Call-ID, leg there, [destination]): the same in the place of an end of another call, which may
/// live on another worker: 1 it has been asked for.
pub fn attended(
    call: &mut Call<Callops>,
    leg: Text,
    other: Text,
    other_leg: Text,
    destination: Option<Text>,
) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let Some(key) = current(ctx) else { return -1 };
    let wanted = (leg_of(ctx, key, &leg.to_ascii_lowercase()), &other_leg.to_ascii_lowercase()[..]);
    let (Some(leg), b"caller" | b"callee") = wanted else {
        host::error!("callops", "call_transfer: legs are caller or callee");
        return -1;
    };
    let Some(dialog) = api::get(ctx, key) else { return -1 };
    let own = Bytes::copy_from_slice(&dialog.call_id);
    // Until it is known whether the other call is there, no second transfer begins.
    set_text(ctx, key, LEG_VALUE, leg_word(leg).as_bytes());
    let destination = destination.map(|text| text.0);
    ask_other(ctx, own, other.0, other_leg.0, destination, move |ctx, found| {
        let sent = found.is_some_and(|to| refer(ctx, &module, key, leg, &to, |_, _| ()));
        if !sent {
            set_text(ctx, key, LEG_VALUE, b"");
        }
    });
    1
}

/// Finds the end that is to be replaced on the worker of its call, and tells it so. `then` runs on this worker again.
fn ask_other(
    ctx: &mut Ctx,
    own: Bytes,
    other: Bytes,
    other_leg: Bytes,
    destination: Option<Bytes>,
    then: impl FnOnce(&mut Ctx, Option<Destination>) + 'static,
) {
    let (found, answer) = tokio::sync::oneshot::channel();
    let name = other.clone();
    ctx.on_owner(&name, move |ctx: &mut Ctx| {
        drop(found.send(replaced(ctx, &own, &other, &other_leg, destination)));
    });
    ctx.spawn("call_transfer", LIMIT_MS, async move {
        let found = answer.await.ok().flatten();
        Box::new(move |ctx: &mut Ctx| {
            then(ctx, found);
            1
        }) as host::Finish
    });
}

/// Longest that another worker may take.
const LIMIT_MS: u64 = 5_000;

/// The end of the call of this worker that is to be replaced.
fn replaced(
    ctx: &mut Ctx,
    own: &[u8],
    call_id: &Bytes,
    leg: &[u8],
    uri: Option<Bytes>,
) -> Option<Destination> {
    let key = living(ctx, call_id)?;
    let dialog = api::get(ctx, key)?;
    let copy = |text: &[u8]| Bytes::copy_from_slice(text);
    let (caller, callee) = (copy(&dialog.caller.tag), copy(&dialog.callee()?.tag));
    let (from_tag, to_tag, party) = match leg.eq_ignore_ascii_case(b"caller") {
        true => (callee, caller, copy(&dialog.from_uri)),
        false => (caller, callee, copy(&dialog.to_uri)),
    };
    set_text(ctx, key, CALL_VALUE, own);
    Some(Destination::Attended { uri: uri.unwrap_or(party), call_id: call_id.clone(), from_tag, to_tag })
}

/// What the command asks for.
struct Order {
    call_id: Bytes,
    caller: bool,
    uri: Option<Bytes>,
    other: Option<Other>,
}

/// The end of another call, known here or by its tags.
enum Other {
    Known { call_id: Bytes, leg: Bytes },
    Tags { call_id: Bytes, from_tag: Bytes, to_tag: Bytes },
}

impl Order {
    fn parse(params: &MiParams) -> Result<Order, MiError> {
        let bad = |text: &str| MiError::params(text);
        let named = |name: &str| params.text(name, usize::MAX).map(Bytes::from);
        let call_id = Bytes::from(params.need("callid", 0)?);
        let caller = match params.need("leg", 1)?.as_str() {
            "caller" => true,
            "callee" => false,
            _ => return Err(bad("leg is caller or callee")),
        };
        let uri = named("destination").or_else(|| named("transfer_destination"));
        let other = match named("transfer_callid") {
            None => None,
            Some(call_id) => {
                Some(match (named("transfer_leg"), named("transfer_fromtag"), named("transfer_totag")) {
                    (Some(leg), ..) if matches!(&leg[..], b"caller" | b"callee") => {
                        Other::Known { call_id, leg }
                    }
                    (None, Some(from_tag), Some(to_tag)) if uri.is_some() => {
                        Other::Tags { call_id, from_tag, to_tag }
                    }
                    _ => {
                        return Err(bad(
                            "transfer_leg, or transfer_fromtag, transfer_totag and destination are needed",
                        ));
                    }
                })
            }
        };
        let uri = uri.or_else(|| params.text("destination", 2).filter(|_| other.is_none()).map(Bytes::from));
        if other.is_none() && uri.is_none() {
            return Err(bad("destination is needed"));
        }
        Ok(Order { call_id, caller, uri, other })
    }
}

/// callops:transfer
pub fn command(call: &mut Call<Callops>, params: &MiParams, answer: MiAnswer) {
    let order = match Order::parse(params) {
        Ok(order) => order,
        Err(error) => return answer.give(Err(error)),
    };
    let module = call.module.clone();
    let name = order.call_id.clone();
    call.ctx.on_owner(&name, move |ctx: &mut Ctx| {
        let Some(key) = living(ctx, &order.call_id) else {
            return answer.give(Err(MiError::new(404, "Dialog not found")));
        };
        if is_under_way(ctx, key) {
            return answer.give(Err(MiError::new(491, "Request Pending")));
        }
        let leg = if order.caller { CALLER } else { api::get(ctx, key).map_or(1, |d| d.callee_no()) };
        let go = move |ctx: &mut Ctx, to: Option<Destination>, answer: MiAnswer| {
            let Some(to) = to else {
                set_text(ctx, key, LEG_VALUE, b"");
                return answer.give(Err(MiError::new(404, "Transfer dialog not found")));
            };
            let mut later = Some(answer);
            let told = move |_: &mut Ctx, reply: Answer| {
                if let Some(answer) = later.take() {
                    let reason = String::from_utf8_lossy(&reply.reason).into_owned();
                    answer.give(match reply.reply {
                        Some(_) => Ok(json!({"Code": reply.status, "Reason": reason})),
                        None => Err(MiError::new(reply.status.into(), reason)),
                    });
                }
            };
            refer(ctx, &module, key, leg, &to, told);
        };
        match order.other {
            None => go(ctx, order.uri.map(Destination::Blind), answer),
            Some(Other::Tags { call_id, from_tag, to_tag }) => {
                let uri = order.uri.unwrap_or_default();
                go(ctx, Some(Destination::Attended { uri, call_id, from_tag, to_tag }), answer);
            }
            Some(Other::Known { call_id, leg: other_leg }) => {
                set_text(ctx, key, LEG_VALUE, leg_word(leg).as_bytes());
                ask_other(ctx, order.call_id, call_id, other_leg, order.uri, move |ctx, to| {
                    go(ctx, to, answer)
                });
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_become_headers() {
        let check = |destination: Destination, mode: Mode, expected: &str| {
            let module = Callops { mode, ..Callops::default() };
            let line = destination.refer_to(&module, "1a.2b", b"c1@host");
            assert_eq!(String::from_utf8_lossy(&line), format!("Refer-To: <{expected}>\r\n"));
        };
        let blind = || Destination::Blind("sip:carol@x".into());
        check(blind(), Mode::Did, "sip:carol@x;osid=1a.2b");
        check(blind(), Mode::CallId, "sip:carol@x;osid=c1@host");
        check(blind(), Mode::Manual, "sip:carol@x");
        let attended = Destination::Attended {
            uri: "sip:dave@x".into(),
            call_id: "c2@h;1".into(),
            from_tag: "F".into(),
            to_tag: "T".into(),
        };
        check(attended, Mode::Did, "sip:dave@x?Replaces=c2%40h%3B1%3Bto-tag%3DT%3Bfrom-tag%3DF");
    }
}
