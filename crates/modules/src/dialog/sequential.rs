//! dialog:send_sequential: a request inside a dialog that a command asks for, and a session that is negotiated anew.

use super::cell::LegNo;
use super::context::Name;
use super::request::{self, Inside};
use super::table::{self, Key};
use super::{CALLER, Dlg, State, create, ping};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::tm::Answer;
use host::{Call, Ctx};
use serde_json::json;

/// What the request carries.
enum Body {
    None,
    /// What the other end sent last.
    Inbound,
    /// What this end was sent last.
    Outbound,
    Custom {
        kind: Bytes,
        text: Bytes,
    },
}

/// What is asked for.
struct Order {
    method: String,
    /// The other end gets what the first one answers.
    challenge: bool,
    callee_first: bool,
    body: Body,
    headers: Bytes,
}

impl Order {
    fn parse(params: &MiParams) -> Result<Order, MiError> {
        let method = params.text("method", 1).unwrap_or_else(|| "INVITE".into());
        let (challenge, callee_first) = match params.text("mode", 2).as_deref() {
            None | Some("caller") => (false, false),
            Some("callee") => (false, true),
            Some("challenge" | "challenge-caller") => (true, false),
            Some("challenge-callee") => (true, true),
            Some(_) => return Err(MiError::new(400, "Invalid mode")),
        };
        let body = match params.text("body", 3).as_deref() {
            None | Some("none") => Body::None,
            Some("inbound") => Body::Inbound,
            Some("outbound") => Body::Outbound,
            Some(text) => {
                let custom = text.strip_prefix("custom:").and_then(|rest| rest.split_once(':'));
                let (kind, text) = custom.ok_or_else(|| MiError::new(400, "Invalid body mode"))?;
                Body::Custom { kind: kind.to_string().into(), text: text.to_string().into() }
            }
        };
        if challenge && !matches!(method.as_str(), "INVITE" | "UPDATE") {
            return Err(MiError::new(406, "Not Acceptable"));
        }
        let headers = params.text("headers", 4).unwrap_or_default().into();
        Ok(Order { method, challenge, callee_first, body, headers })
    }

    fn request(&self, ctx: &mut Ctx, key: Key, leg: LegNo) -> Inside {
        let plain = Inside { contact: true, headers: self.headers.clone(), ..Inside::new(&self.method, leg) };
        match &self.body {
            Body::None => plain,
            Body::Outbound => match ping::sent_last(ctx, key, leg) {
                Some(body) => plain.with_sdp(&body),
                None => plain,
            },
            Body::Inbound => {
                let dialog = table::of(ctx).get(key);
                let body = dialog.and_then(|d| d.leg(d.other(leg))?.body_in.clone());
                body.map_or(plain.clone(), |body| plain.with_sdp(&body))
            }
            Body::Custom { kind, text } => Inside { content_type: kind.clone(), body: text.clone(), ..plain },
        }
    }
}

fn none() -> MiError {
    MiError::new(404, "Dialog Not Found")
}

/// dialog:send_sequential callid [method] [mode] [body] [headers]
pub fn send(call: &mut Call<Dlg>, params: &MiParams, answer: MiAnswer) {
    let call_id = match params.need("callid", 0) {
        Ok(call_id) => call_id,
        Err(error) => return answer.give(Err(error)),
    };
    let (params, name) = (params.clone(), call_id.clone());
    call.ctx.on_owner(name.as_bytes(), move |ctx: &mut Ctx| here(ctx, &call_id, &params, answer));
}

fn here(ctx: &mut Ctx, call_id: &str, params: &MiParams, answer: MiAnswer) {
    let key = Name::CallId(call_id.as_bytes().into()).find(ctx);
    let key = key.filter(|key| table::of(ctx).get(*key).is_some_and(|d| d.state != State::Ended));
    let Some(key) = key else { return answer.give(Err(none())) };
    let order = match Order::parse(params) {
        Ok(order) => order,
        Err(error) => return answer.give(Err(error)),
    };
    let Some(callee) = table::of(ctx).get(key).map(|d| d.callee_no()) else {
        return answer.give(Err(none()));
    };
    let (first, second) = if order.callee_first { (callee, CALLER) } else { (CALLER, callee) };
    let request = order.request(ctx, key, first);
    let method = order.method.clone();
    let challenge = order.challenge;
    let mut later = Some(answer);
    let done = move |ctx: &mut Ctx, reply: Answer| {
        let Some(answer) = later.take() else { return };
        let accepted = (200..300).contains(&reply.status);
        if !challenge || !accepted {
            return answer.give(result(&reply));
        }
        let body = reply.reply.as_deref().and_then(create::body).unwrap_or_default();
        let next = Inside { contact: true, ..Inside::new(&method, second).with_sdp(&body) };
        let mut answer = Some(answer);
        request::send(ctx, key, next, move |_, reply| {
            if let Some(answer) = answer.take() {
                answer.give(result(&reply));
            }
        });
    };
    request::send(ctx, key, request, done);
}

/// What the last reply was.
fn result(reply: &Answer) -> MiResult {
    let reason = String::from_utf8_lossy(&reply.reason).into_owned();
    if (200..300).contains(&reply.status) {
        Ok(json!({"Code": reply.status, "Reason": reason}))
    } else {
        Err(MiError::new(reply.status.into(), reason))
    }
}
