//! Management commands of tm: sending and cancelling requests, answering transactions.

use super::Tm;
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::tm::{Answer, NewRequest};
use host::{Call, Registrar};
use serde_json::{Value as Json, json};
use sip::{HeaderName, Message, Uri};

pub fn register(m: &mut Registrar<Tm>) {
    m.command_late("tm:uac_dlg t_uac_dlg uac_dlg", UAC_DLG, uac_dlg);
    let cancel = "cancels an INVITE: t_uac_cancel callid cseq";
    m.command_each("tm:uac_cancel t_uac_cancel uac_cancel", cancel, any_done, uac_cancel);
    m.command_each("tm:hash t_hash hash", "how many transactions each worker holds", Json::Array, hash)
        .takes("");
    m.command_each("tm:reply t_reply reply", REPLY, any_done, reply);
}

const UAC_DLG: &str = "sends a request: t_uac_dlg method ruri headers [next_hop] [socket] [body]";
const REPLY: &str = "answers a transaction: t_reply code reason trans_id to_tag [new_headers] [body]";

/// The answer of the worker that has the transaction.
fn any_done(mut answers: Vec<Json>) -> Json {
    answers.pop().unwrap_or(Json::Null)
}

/// Lines of a parameter: `\r\n` may be written as escapes.
fn lines(text: &str) -> String {
    let text = text.replace("\\r", "\r").replace("\\n", "\n");
    let lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
    lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect()
}

/// The pieces that a request takes from the headers given, and what is left of them.
#[derive(Default)]
struct Given {
    from: Option<String>,
    to: Option<String>,
    call_id: Option<String>,
    cseq: Option<u32>,
    rest: String,
    has_type: bool,
}

fn given(text: &str, method: &str) -> Result<Given, MiError> {
    let bad = |what: &str| MiError::new(400, what);
    let mut given = Given::default();
    for line in lines(text).split_inclusive("\r\n") {
        let (label, value) = line.split_once(':').ok_or_else(|| bad("Bad headers"))?;
        let value = value.trim().to_string();
        match HeaderName::parse(label.trim().as_bytes()) {
            HeaderName::From => given.from = Some(value),
            HeaderName::To => given.to = Some(value),
            HeaderName::CallId => given.call_id = Some(value),
            HeaderName::ContentLength => return Err(bad("Content-Length disallowed")),
            HeaderName::CSeq => {
                let (number, named) = value.split_once(' ').ok_or_else(|| bad("Bad CSeq number"))?;
                given.cseq = Some(number.parse().map_err(|_| bad("Bad CSeq number"))?);
                if named.trim() != method {
                    return Err(bad("CSeq method mismatch"));
                }
            }
            name => {
                given.has_type |= name == HeaderName::ContentType;
                given.rest.push_str(line);
            }
        }
    }
    Ok(given)
}

fn request_of(call: &Call<Tm>, params: &MiParams) -> Result<NewRequest, MiError> {
    let (method, uri) = (params.need("method", 0)?, params.need("ruri", 1)?);
    let bad = |what: &str| MiError::new(400, what);
    let is_uri = |text: &str| Uri::parse(&Bytes::copy_from_slice(text.as_bytes())).is_ok();
    if !is_uri(&uri) {
        return Err(bad("Invalid ruri"));
    }
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
    if method.is_empty() || !method.bytes().all(token) {
        return Err(bad("Invalid method"));
    }
    let given = given(&params.need("headers", 2)?, &method)?;
    let optional =
        |name, position| params.text(name, position).filter(|text| !text.is_empty() && text != ".");
    let body = optional("body", 5).unwrap_or_default();
    if !body.is_empty() && !given.has_type {
        return Err(bad("Content-Type missing"));
    }
    let to = given.to.ok_or_else(|| bad("To missing"))?;
    let from = given.from.ok_or_else(|| bad("From missing"))?;
    let mut request = NewRequest::new(&method, uri.into(), &from, &to);
    request.call_id = given.call_id.map(Bytes::from);
    request.cseq = given.cseq.unwrap_or(1);
    request.headers = given.rest.into();
    request.body = body.into();
    if let Some(hop) = optional("next_hop", 3) {
        if !is_uri(&hop) {
            return Err(bad("Invalid next_hop"));
        }
        request.next_hop = Some(hop.into());
    }
    if let Some(socket) = optional("socket", 4) {
        let found = host::vars::socket::find(&call.ctx.core.shared.sockets, socket.as_bytes());
        request.socket = Some(found.ok_or_else(|| MiError::new(404, "Local socket not found"))?);
    }
    Ok(request)
}

/// Answers with the final reply.
fn uac_dlg(call: &mut Call<Tm>, params: &MiParams, answer: MiAnswer) {
    match request_of(call, params) {
        Ok(request) => {
            let told = move |_: &mut host::Ctx, result: Answer| answer.give(Ok(show(&result)));
            host::tm::send_new(call.ctx, request, Some(Box::new(told)));
        }
        Err(error) => answer.give(Err(error)),
    }
}

fn show(answer: &Answer) -> Json {
    let mut shown =
        json!({"Status": format!("{} {}", answer.status, String::from_utf8_lossy(&answer.reason))});
    if let Some(reply) = &answer.reply {
        shown["Message"] = text(reply).into();
    }
    shown
}

fn text(reply: &Message) -> String {
    String::from_utf8_lossy(reply.buf()).into_owned()
}

/// The CSeq may be written with its method.
fn uac_cancel(call: &mut Call<Tm>, params: &MiParams) -> MiResult {
    let (call_id, cseq) = (params.need("callid", 0)?, params.need("cseq", 1)?);
    let number = cseq.split_whitespace().next().unwrap_or_default();
    match call.ctx.txn_of_call(call_id.as_bytes(), number.as_bytes()) {
        Some(id) => {
            host::tm::stop(call.ctx, id);
            Ok("OK".into())
        }
        None => Err(MiError::new(481, "No such transaction")),
    }
}

fn hash(call: &mut Call<Tm>, _: &MiParams) -> MiResult {
    let (current, total) = call.ctx.core.txns.counts();
    Ok(json!({"index": call.ctx.core.worker, "Current": current, "Total": total}))
}

fn reply(call: &mut Call<Tm>, params: &MiParams) -> MiResult {
    let code = params.int("code", 0)?.and_then(|n| u16::try_from(n).ok()).filter(|n| (100..700).contains(n));
    let code = code.ok_or_else(|| MiError::new(400, "Invalid reply code"))?;
    let reason = params.need("reason", 1)?;
    let id =
        super::parse_id(&params.need("trans_id", 2)?).ok_or_else(|| MiError::new(400, "Invalid trans_id"))?;
    let tag = params.need("to_tag", 3)?;
    let ctx = &mut *call.ctx;
    if ctx.txn(id).data().is_none() {
        return Err(MiError::new(404, "Transaction not found"));
    }
    let optional =
        |name, position| params.text(name, position).filter(|text| !text.is_empty() && text != ".");
    let parts = host::tm::Parts {
        to_tag: tag.into(),
        headers: lines(&optional("new_headers", 4).unwrap_or_default()).into(),
        body: optional("body", 5).unwrap_or_default().into(),
    };
    match host::tm::reply_with(ctx, id, code, reason.as_bytes(), parts) {
        1 => Ok("OK".into()),
        _ => Err(MiError::new(500, "Reply failed")),
    }
}
