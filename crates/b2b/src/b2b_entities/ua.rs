//! User agents of the script: calls that scripts, events and commands answer, make and end (`ua_session_...`).

use super::answer::{self, Reply};
use super::entity::{Kind, State};
use super::owner::{DialogInfo, Notice, Owner, Turn, What};
use super::send::{self, Inside, NewClient};
use super::{B2be, receive, table};
use bytes::Bytes;
use host::events;
use host::{Call, Ctx, Head, HeadLines, OutVar, Registrar, ReplyCode, Routes, Text, Value};
use sip::{Message, Method};
use std::sync::Arc;
use transaction::TxnId;

pub const EVENT: &str = "E_UA_SESSION";

/// How long a session that came to nothing is still listed.
const LINGER_MS: u64 = 32_000;
/// How long a script may take to answer an INVITE that was given up.
const CANCEL_MS: u64 = 5_000;

/// What a session is to tell and do (`flags`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UaFlags {
    /// `t`: seconds.
    pub timeout: u32,
    /// `a`
    pub acks: bool,
    /// `r`
    pub replies: bool,
    /// `d`
    pub no_ack: bool,
    /// `h`
    pub headers: bool,
    /// `b`
    pub body: bool,
    /// `n`
    pub not_new: bool,
}

impl UaFlags {
    pub fn parse(text: &[u8], default_timeout: u32) -> UaFlags {
        let mut flags = UaFlags { timeout: default_timeout, ..UaFlags::default() };
        let mut rest = text;
        while let Some((letter, after)) = rest.split_first() {
            rest = after;
            match letter {
                b't' => {
                    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                    let number = std::str::from_utf8(&rest[..digits]).unwrap_or_default();
                    flags.timeout = number.parse().unwrap_or(0);
                    rest = &rest[digits..];
                }
                b'a' => flags.acks = true,
                b'r' => flags.replies = true,
                b'd' => flags.no_ack = true,
                b'h' => flags.headers = true,
                b'b' => flags.body = true,
                b'n' => flags.not_new = true,
                other => host::warn!("b2b_entities", "unknown flag of a session: {}", char::from(*other)),
            }
        }
        flags
    }
}

/// Sessions have no logic behind them.
pub static OWNER: Owner = Owner { module: "b2b_entities", notify, answered, lost };

fn notify(ctx: &mut Ctx, _: Notice, turn: Turn) {
    turn.end(ctx);
}

fn answered(_: &mut Ctx, _: &Notice, _: DialogInfo) {}

fn lost(ctx: &mut Ctx, notice: Notice, turn: Turn) {
    if let Some(module) = ctx.shared().module::<B2be>() {
        terminate(ctx, &module, &notice.entity, Bytes::new());
    }
    turn.end(ctx);
}

pub fn register(m: &mut Registrar<B2be>) {
    m.function("ua_session_server_init", Routes::REQUEST, server_init);
    m.function("ua_session_update", Routes::REQUEST.and(Routes::EVENT), update);
    m.function("ua_session_reply", Routes::REQUEST.and(Routes::EVENT), reply);
    m.function("ua_session_terminate", Routes::REQUEST.and(Routes::EVENT), terminate_session);
}

/// Tells of the current message.
fn raise(ctx: &mut Ctx, key: &Bytes, kind: Kind, flags: UaFlags, event: &'static str, extra: Option<Bytes>) {
    let msg = ctx.state.msg.clone();
    let (method, status, reason) = match msg.is_request() {
        true => (msg.method_text(), 0, Value::Null),
        false => {
            let method = msg.cseq_parts().map(|(_, method)| method).unwrap_or_default();
            (method, msg.status(), Value::Str(msg.reason()))
        }
    };
    let body = if flags.body { Value::Str(msg.text(msg.body())) } else { Value::Null };
    let headers = if flags.headers { Value::Str(head_of(&msg)) } else { Value::Null };
    let values: [(&'static str, Value); 9] = [
        ("key", Value::Str(key.clone())),
        ("entity_type", if kind == Kind::Server { "UAS" } else { "UAC" }.into()),
        ("event_type", event.into()),
        ("status", Value::Int(status.into())),
        ("reason", reason),
        ("method", Value::Str(method)),
        ("body", body),
        ("headers", headers),
        ("extra_params", extra.map_or(Value::Null, Value::Str)),
    ];
    events::raise(ctx, EVENT, values.into_iter().collect());
}

/// All header lines of a message.
fn head_of(msg: &Message) -> Bytes {
    let lines = msg.headers().iter().map(|header| msg.bytes(header.whole()));
    lines.collect::<Vec<_>>().concat().into()
}

/// ua_session_server_init([key], [flags], [extra_params])
fn server_init(call: &mut Call<B2be>, key: Option<OutVar>, flags: Option<Text>, extra: Option<Text>) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let letters = flags.map(|text| text.0).unwrap_or_default();
    let flags = UaFlags::parse(&letters, module.ua_timeout);
    let contact = super::contact_of_socket(ctx, ctx.state.source, b"");
    let Some(new) = receive::server_new(ctx, &module, contact, &OWNER, Bytes::new(), Some(flags)) else {
        return -1;
    };
    begin_timer(ctx, &module, &new, flags);
    if let Some(var) = key
        && !var.set(ctx, Value::Str(new.clone()))
    {
        send::delete(ctx, &module, &new);
        return -1;
    }
    if !flags.not_new {
        raise(ctx, &new, Kind::Server, flags, "NEW", extra.map(|text| text.0));
    }
    1
}

fn begin_timer(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, flags: UaFlags) {
    let (module, own) = (module.clone(), key.clone());
    let timer = ctx.after(u64::from(flags.timeout) * 1000, move |ctx| {
        terminate(ctx, &module, &own, Bytes::new());
        send::delete(ctx, &module, &own);
    });
    if let Some(entity) = table::of(ctx).get_mut(key) {
        entity.ua_timer = timer;
    }
}

/// A session of an earlier run of the server.
pub fn restored(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes) {
    let flags = UaFlags { timeout: module.ua_timeout, ..UaFlags::default() };
    if let Some(entity) = table::of(ctx).get_mut(key) {
        entity.ua = Some(flags);
    }
    begin_timer(ctx, module, key, flags);
}

/// Forgets a session some time after it came to nothing.
fn forget_later(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes) {
    let (module, own) = (module.clone(), key.clone());
    let Some(timer) = table::of(ctx).get(key).map(|entity| entity.ua_timer) else { return };
    ctx.cancel(timer);
    let timer = ctx.after(LINGER_MS, move |ctx| send::delete(ctx, &module, &own));
    if let Some(entity) = table::of(ctx).get_mut(key) {
        entity.ua_timer = timer;
    }
}

/// A request inside a session; it is the current message.
pub fn requested(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, txn: Option<TxnId>, what: What, turn: Turn) {
    let Some((kind, flags, state)) =
        table::of(ctx).get(key).and_then(|entity| Some((entity.kind, entity.ua?, entity.state)))
    else {
        return turn.end(ctx);
    };
    let method = ctx.state.msg.method();
    let event = match method {
        Method::Ack => flags.acks.then_some("UPDATED"),
        Method::Bye | Method::Cancel => Some("TERMINATED"),
        _ => Some("UPDATED"),
    };
    if let Some(event) = event {
        raise(ctx, key, kind, flags, event, None);
    }
    match method {
        Method::Bye => {
            if let Some(txn) = txn.filter(|_| what != What::EndingBye)
                && ctx.txn(txn).is_open()
            {
                answer::reply(ctx, module, key, Reply::new("BYE", 200, "OK"));
            }
            send::delete(ctx, module, key);
        }
        Method::Cancel => cancelled(ctx, module, key),
        _ if state == State::Terminated => forget_later(ctx, module, key),
        _ => {}
    }
    turn.end(ctx);
}

/// The script answers the INVITE that was given up; when it does not, it is answered here.
fn cancelled(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes) {
    let (module, own) = (module.clone(), key.clone());
    ctx.after(CANCEL_MS, move |ctx| {
        let Some(txn) = table::of(ctx).get(&own).and_then(|entity| entity.uas) else { return };
        if ctx.txn(txn).is_open() {
            answer::reply(ctx, &module, &own, Reply::new("INVITE", 487, "Request Terminated"));
        }
        forget_later(ctx, &module, &own);
    });
}

/// A reply to a request of a session; it is the current message.
pub fn replied(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, turn: Turn) {
    let msg = ctx.state.msg.clone();
    let event = match msg.status() {
        ..200 => "EARLY",
        200..300 => "ANSWERED",
        _ => "REJECTED",
    };
    if let Some((kind, flags)) = table::of(ctx).get(key).and_then(|entity| Some((entity.kind, entity.ua?))) {
        raise(ctx, key, kind, flags, event, None);
    }
    let found =
        table::of(ctx).get(key).and_then(|e| Some((e.state, e.ua?, e.unacked.is_some(), e.legs.is_empty())));
    if let Some((state, flags, waits, no_leg)) = found {
        let is_invite = msg.cseq_parts().is_some_and(|(_, method)| &method[..] == b"INVITE");
        if waits && !flags.no_ack && is_invite && (200..300).contains(&msg.status()) {
            send::inside(ctx, module, key, Inside::new("ACK"));
        }
        if state == State::Terminated {
            send::delete(ctx, module, key);
        } else if is_invite && no_leg && msg.status() >= 300 {
            forget_later(ctx, module, key);
        }
    }
    turn.end(ctx);
}

/// Ends a session: BYE, and it is forgotten. False: it is not known, or cannot be ended so.
pub fn terminate(ctx: &mut Ctx, module: &Arc<B2be>, key: &Bytes, headers: Bytes) -> bool {
    let bye = Inside { headers, quiet: true, ..Inside::new("BYE") };
    let ended = table::of(ctx).get(key).is_some() && send::inside(ctx, module, key, bye);
    if ended {
        send::delete(ctx, module, key);
    }
    ended
}

/// A body, and what it is.
pub fn with_content(
    body: Option<Bytes>,
    content_type: Option<Bytes>,
    headers: Option<Bytes>,
) -> (Option<Bytes>, Bytes) {
    let Some(body) = body else { return (None, headers.map(|lines| whole(&lines)).unwrap_or_default()) };
    let kind = content_type.unwrap_or_else(|| Bytes::from_static(b"application/sdp"));
    let line = match kind.to_ascii_lowercase().starts_with(b"content-type:") {
        true => whole(&kind),
        false => [b"Content-Type: ", kind.trim_ascii(), b"\r\n"].concat().into(),
    };
    let more = headers.map(|lines| whole(&lines)).unwrap_or_default();
    (Some(body), [&line[..], &more].concat().into())
}

/// Lines with the line ends that SIP has.
pub fn whole(text: &Bytes) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 2);
    for line in text.split(|b| *b == b'\n').map(|line| line.trim_ascii_end()).filter(|line| !line.is_empty())
    {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// Does something with a session: here, or on the worker that has it. 1, -1: it failed here.
fn at(ctx: &mut Ctx, key: &Bytes, job: impl Fn(&mut Ctx) -> bool + Send + Clone + 'static) -> i32 {
    if table::of(ctx).get(key).is_some() || ctx.core.workers < 2 {
        return if job(ctx) { 1 } else { -1 };
    }
    let here = usize::from(ctx.core.worker);
    let mut sent = -1;
    for worker in (0..usize::from(ctx.core.workers)).filter(|worker| *worker != here) {
        let (job, key) = (job.clone(), key.clone());
        let asked = ctx.on_worker(worker, move |ctx| {
            if table::of(ctx).get(&key).is_some() {
                job(ctx);
            }
        });
        if asked {
            sent = 1;
        }
    }
    sent
}

/// ua_session_update(key, method, [body], [extra_headers], [content_type])
fn update(
    call: &mut Call<B2be>,
    key: Text,
    method: Head,
    body: Option<Text>,
    headers: Option<HeadLines>,
    content_type: Option<Head>,
) -> i32 {
    let module = call.module.clone();
    let (body, headers) = with_content(body.map(|t| t.0), content_type.map(|t| t.0), headers.map(|t| t.0));
    let what = Inside { method: method.0, body, headers, ..Inside::default() };
    let own = key.0.clone();
    at(call.ctx, &key.0, move |ctx| send::inside(ctx, &module, &own, what.clone()))
}

/// ua_session_reply(key, method, code, [reason], [body], [extra_headers], [content_type])
#[allow(clippy::too_many_arguments)]
fn reply(
    call: &mut Call<B2be>,
    key: Text,
    method: Head,
    code: ReplyCode,
    reason: Option<Head>,
    body: Option<Text>,
    headers: Option<HeadLines>,
    content_type: Option<Head>,
) -> i32 {
    let module = call.module.clone();
    let (body, headers) = with_content(body.map(|t| t.0), content_type.map(|t| t.0), headers.map(|t| t.0));
    let reason = reason.map(|text| text.0).unwrap_or_default();
    let what = Reply { method: method.0, code: code.0, reason, body, headers, ..Reply::default() };
    let own = key.0.clone();
    at(call.ctx, &key.0, move |ctx| answer::reply(ctx, &module, &own, what.clone()))
}

/// ua_session_terminate(key, [extra_headers])
fn terminate_session(call: &mut Call<B2be>, key: Text, headers: Option<HeadLines>) -> i32 {
    let module = call.module.clone();
    let headers = headers.map(|lines| whole(&lines.0)).unwrap_or_default();
    let own = key.0.clone();
    at(call.ctx, &key.0, move |ctx| terminate(ctx, &module, &own, headers.clone()))
}

/// Begins a session with an INVITE.
pub fn start_client(ctx: &mut Ctx, module: &Arc<B2be>, new: NewClient, flags: UaFlags) -> Option<Bytes> {
    let key = send::client_new(ctx, module, new, &OWNER, Bytes::new(), Some(flags))?;
    begin_timer(ctx, module, &key, flags);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_letters() {
        let flags = UaFlags::parse(b"t30arx", 7);
        assert_eq!((flags.timeout, flags.acks, flags.replies, flags.no_ack), (30, true, true, false));
        assert_eq!(
            UaFlags::parse(b"hbnd", 7),
            UaFlags {
                timeout: 7,
                headers: true,
                body: true,
                not_new: true,
                no_ack: true,
                ..UaFlags::default()
            }
        );
    }

    #[test]
    fn content_is_named() {
        let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        let check = |body, kind, headers, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&with_content(body, kind, headers).1), expected);
        };
        check(None, text("text/plain"), text("A: b"), "A: b\r\n");
        check(text("x"), None, None, "Content-Type: application/sdp\r\n");
        check(
            text("x"),
            text("text/plain"),
            text("A: b\nC: d\r\n"),
            "Content-Type: text/plain\r\nA: b\r\nC: d\r\n",
        );
        check(text("x"), text("Content-Type: text/plain\r\n"), None, "Content-Type: text/plain\r\n");
    }
}
