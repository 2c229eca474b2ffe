//! The script functions of rtpengine.

use super::Rtpengine;
use super::ask::{Answered, Asking, Target};
use super::bencode::Dict;
use super::command::{Command, Op, prepare};
use super::statistics::keep;
use crate::bodies;
use crate::nodes::{DEFAULT_SET, Set};
use bytes::Bytes;
use host::tm::with_request;
use host::{Call, Ctx, Finish, Int, OutVar, Outcome, Registrar, Routes, Suspension, Text, Value};
use script::ast::RouteKind;
use sip::Method;
use std::sync::Arc;

/// Beyond what the engines may take: looking up names, changing sockets.
const SLACK_MS: u64 = 5_000;

pub fn register(m: &mut Registrar<Rtpengine>) {
    m.function("rtpengine_use_set", Routes::ALL, use_set);
    m.function("rtpengine_offer", Routes::ALL, offer);
    m.function("rtpengine_answer", Routes::ALL, answer);
    m.function("rtpengine_manage", Routes::ALL, manage);
    m.function("rtpengine_delete", Routes::ALL, delete);
    m.function("rtpengine_start_recording", Routes::ALL, start_recording);
    m.function("rtpengine_stop_recording", Routes::ALL, stop_recording);
    m.function("rtpengine_pause_recording", Routes::ALL, pause_recording);
    m.function("rtpengine_block_media", Routes::ALL, block_media);
    m.function("rtpengine_unblock_media", Routes::ALL, unblock_media);
    m.function("rtpengine_block_dtmf", Routes::ALL, block_dtmf);
    m.function("rtpengine_unblock_dtmf", Routes::ALL, unblock_dtmf);
    m.function("rtpengine_start_forwarding", Routes::ALL, start_forwarding);
    m.function("rtpengine_stop_forwarding", Routes::ALL, stop_forwarding);
    m.function("rtpengine_play_media", Routes::ALL, play_media);
    m.function("rtpengine_stop_media", Routes::ALL, stop_media);
    m.function("rtpengine_play_dtmf", Routes::ALL, play_dtmf);
}

type Flags = Option<Text>;
type Sock = Option<OutVar>;

/// The set that functions of this message use.
#[derive(Clone, Default)]
struct Chosen(Option<i64>);

/// The request of an INVITE had nothing to anchor: its reply makes the offer.
#[derive(Clone, Default)]
struct WithoutSdp(bool);

/// rtpengine_use_set(set): 1, or -1 when there is no such set.
fn use_set(call: &mut Call<Rtpengine>, set: Int) -> Outcome {
    let module = call.module.clone();
    when_ready(call, "rtpengine_use_set", move |ctx| {
        if module.sets.get().get(set.0).is_none() {
            host::error!("rtpengine", "there is no set {}", set.0);
            return -1;
        }
        ctx.state.ext.set(Chosen(Some(set.0)));
        1
    })
}

/// Does something once the sets are known.
fn when_ready(
    call: &mut Call<Rtpengine>,
    what: &'static str,
    then: impl FnOnce(&mut Ctx) -> i32 + 'static,
) -> Outcome {
    if *call.module.ready.borrow() {
        return then(call.ctx).into();
    }
    let mut ready = call.module.ready.subscribe();
    Suspension::future(what, async move {
        let _ = ready.wait_for(|ready| *ready).await;
        Box::new(then) as Finish
    })
}

/// The number of the set for this message: that of the AVP, the one chosen before, or the default. `Err`: the AVP holds
/// no number.
fn set_number(ctx: &mut Ctx, module: &Rtpengine, avp: UseAvp) -> Result<i64, ()> {
    let said = match (module.set_avp, avp) {
        (Some(name), UseAvp::Yes) => ctx.state.avps.borrow().first(name).cloned(),
        _ => None,
    };
    match said {
        None => Ok(ctx.state.ext.find::<Chosen>().and_then(|chosen| chosen.0).unwrap_or(DEFAULT_SET)),
        Some(Value::Int(n)) => Ok(n),
        Some(_) => {
            host::error!("rtpengine", "setid_avp must hold a number");
            Err(())
        }
    }
}

/// Whether `setid_avp` counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UseAvp {
    Yes,
    No,
}

/// Sends a command; `then` sees the answer. `otherwise` when there is none.
fn send(
    call: &mut Call<Rtpengine>,
    what: &'static str,
    otherwise: i32,
    command: Result<Command, String>,
    sock: Sock,
    then: impl FnOnce(&mut Ctx, Answered) -> i32 + 'static,
) -> Outcome {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let Ok(number) = set_number(ctx, &module, UseAvp::Yes) else { return (-1).into() };
    let command = match command {
        Ok(command) => command,
        Err(why) => {
            failed(ctx, &module, &why);
            return otherwise.into();
        }
    };
    let said = module.set_avp.is_some();
    let forced = sock.as_ref().and_then(|var| var.0.get(ctx).text()).filter(|url| !url.is_empty());
    let asking = Asking::new(ctx, &module);
    let detail = command.call_id.clone();
    let limit = limit(&module);
    let mut ready = module.ready.subscribe();
    Suspension::future(what, async move {
        let _ = ready.wait_for(|ready| *ready).await;
        let set = module.sets.get().get(number).cloned();
        if set.is_none() && (number != DEFAULT_SET || said) {
            host::error!("rtpengine", "there is no set {number}");
            return Box::new(|_: &mut Ctx| -1) as Finish;
        }
        let result = asking.run(&command, Target { set: set.clone(), forced, known: None }).await;
        Box::new(move |ctx: &mut Ctx| {
            ctx.state.ext.set(Chosen(set.map(|set: Arc<Set>| set.id)));
            match result {
                Err(why) => {
                    failed(ctx, &module, &why);
                    otherwise
                }
                Ok(answered) => {
                    if let Some(sock) = &sock {
                        sock.set(ctx, answered.node.url.clone());
                    }
                    then(ctx, answered)
                }
            }
        }) as Finish
    })
    .detail(detail)
    .limit(limit, otherwise)
}

/// Longest that a command may wait.
pub fn limit(module: &Rtpengine) -> u64 {
    let nodes = module.sets.get().nodes().count() as u64;
    module.patience.total_ms().saturating_mul(nodes.max(1) + 2) + SLACK_MS
}

fn failed(ctx: &mut Ctx, module: &Rtpengine, why: &str) {
    host::error!("rtpengine", "{why}");
    if let Some(error) = &module.error {
        error.set(ctx, script::ast::AssignOp::Set, Value::from(why.to_string()));
    }
}

fn text(flags: Flags) -> Bytes {
    flags.map_or_else(Bytes::new, |flags| flags.0)
}

/// A command whose answer says nothing that a script could use.
fn simple(call: &mut Call<Rtpengine>, what: &'static str, op: Op, flags: Flags, sock: Sock) -> Outcome {
    let module = call.module.clone();
    let command = prepare(call.ctx, &module, op, &text(flags), None, None);
    send(call, what, -1, command, sock, move |ctx, answered| {
        if op == Op::Delete {
            keep(ctx, Some(answered.dict));
        }
        1
    })
}

/// The engine took it.
pub fn is_ok(dict: &Dict) -> bool {
    let ok = dict.text("result").is_some_and(|result| result == "ok");
    if !ok {
        host::error!("rtpengine", "the engine did not say ok");
    }
    ok
}

/// Functions that are one command.
macro_rules! commands {
    ($($name:ident: $op:ident),* $(,)?) => {
        $(fn $name(call: &mut Call<Rtpengine>, flags: Flags, sock: Sock) -> Outcome {
            simple(call, concat!("rtpengine_", stringify!($name)), Op::$op, flags, sock)
        })*
    };
}

commands! {
    start_recording: StartRecording,
    stop_recording: StopRecording,
    pause_recording: PauseRecording,
    block_media: BlockMedia,
    unblock_media: UnblockMedia,
    block_dtmf: BlockDtmf,
    unblock_dtmf: UnblockDtmf,
    start_forwarding: StartForwarding,
    stop_forwarding: StopForwarding,
    delete: Delete,
}

/// An offer or an answer: the description goes out, what comes back takes its place.
fn describe(
    call: &mut Call<Rtpengine>,
    what: &'static str,
    op: Op,
    flags: Flags,
    sock: Sock,
    out: Option<OutVar>,
    body: Option<Text>,
) -> Outcome {
    let given = match body {
        Some(body) => Some(body.0),
        None => bodies::sdp(&call.ctx.state),
    };
    let Some(given) = given else {
        host::info!("rtpengine", "{what}: the message has no description");
        return (-1).into();
    };
    let module = call.module.clone();
    let command = prepare(call.ctx, &module, op, &text(flags), Some(given.clone()), None);
    send(call, what, -1, command, sock, move |ctx, answered| {
        if !is_ok(&answered.dict) {
            return -1;
        }
        let Some(made) = answered.dict.description().cloned() else {
            host::error!("rtpengine", "{}: an answer without a description", answered.node.url);
            return -1;
        };
        match out {
            Some(out) => {
                out.set(ctx, made);
                1
            }
            None if bodies::replace_sdp(&mut ctx.state, given, made) => 1,
            None => {
                host::error!("rtpengine", "{what}: the message has no description that could be replaced");
                -1
            }
        }
    })
}

/// rtpengine_offer([flags], [engine], [description], [body])
fn offer(
    call: &mut Call<Rtpengine>,
    flags: Flags,
    sock: Sock,
    out: Option<OutVar>,
    body: Option<Text>,
) -> Outcome {
    describe(call, "rtpengine_offer", Op::Offer, flags, sock, out, body)
}

/// rtpengine_answer([flags], [engine], [description], [body]): in replies, ACK and PRACK.
fn answer(
    call: &mut Call<Rtpengine>,
    flags: Flags,
    sock: Sock,
    out: Option<OutVar>,
    body: Option<Text>,
) -> Outcome {
    let msg = &call.ctx.state.msg;
    if msg.is_request() && !matches!(msg.method(), Method::Ack | Method::Prack) {
        return (-1).into();
    }
    describe(call, "rtpengine_answer", Op::Answer, flags, sock, out, body)
}

/// rtpengine_manage([flags], [engine], [description], [body]): offer, answer or delete, whatever fits the message.
fn manage(
    call: &mut Call<Rtpengine>,
    flags: Flags,
    sock: Sock,
    out: Option<OutVar>,
    body: Option<Text>,
) -> Outcome {
    let what = "rtpengine_manage";
    let ctx = &mut *call.ctx;
    let msg = ctx.state.msg.clone();
    let method = msg.cseq().map_or(msg.method(), |cseq| cseq.method);
    let has_sdp = match &body {
        Some(body) => !body.is_empty(),
        None => bodies::has_sdp(&ctx.state),
    };
    let op = match method {
        Method::Cancel | Method::Bye => Op::Delete,
        Method::Invite | Method::Ack | Method::Update | Method::Prack => {
            match managed(ctx, method, msg.is_request(), msg.status(), has_sdp) {
                Some(op) => op,
                None => return (-1).into(),
            }
        }
        _ => return (-1).into(),
    };
    match op {
        Op::Delete => simple(call, what, op, flags, sock),
        op => describe(call, what, op, flags, sock, out, body),
    }
}

fn managed(ctx: &mut Ctx, method: Method, is_request: bool, status: u16, has_sdp: bool) -> Option<Op> {
    if is_request {
        return match method {
            _ if !has_sdp => {
                if method == Method::Invite {
                    ctx.state.ext.set(WithoutSdp(true));
                }
                None
            }
            Method::Ack | Method::Prack => Some(Op::Answer),
            Method::Invite if ctx.state.kind == RouteKind::Failure => Some(Op::Delete),
            _ => Some(Op::Offer),
        };
    }
    if status >= 300 {
        return Some(Op::Delete);
    }
    if !has_sdp {
        return None;
    }
    let offers = method != Method::Update
        && ctx.state.txn.is_some_and(|txn| {
            with_request(ctx, txn, |ctx| ctx.state.ext.find::<WithoutSdp>().is_some_and(|w| w.0))
        });
    Some(if offers { Op::Offer } else { Op::Answer })
}

/// A command whose answer must say ok, and holds a number that a script may want.
fn with_number(
    call: &mut Call<Rtpengine>,
    what: &'static str,
    op: Op,
    flags: Flags,
    sock: Sock,
    number: (Option<OutVar>, &'static str),
) -> Outcome {
    let module = call.module.clone();
    let command = prepare(call.ctx, &module, op, &text(flags), None, None);
    send(call, what, -1, command, sock, move |ctx, answered| {
        if !is_ok(&answered.dict) {
            return -1;
        }
        if let (Some(var), key) = number {
            var.set(ctx, answered.dict.int(key).unwrap_or(-1));
        }
        1
    })
}

/// rtpengine_play_media(flags, [duration], [engine])
fn play_media(call: &mut Call<Rtpengine>, flags: Text, duration: Option<OutVar>, sock: Sock) -> Outcome {
    with_number(call, "rtpengine_play_media", Op::PlayMedia, Some(flags), sock, (duration, "duration"))
}

/// rtpengine_stop_media([flags], [engine], [last frame])
fn stop_media(call: &mut Call<Rtpengine>, flags: Flags, sock: Sock, last: Option<OutVar>) -> Outcome {
    with_number(call, "rtpengine_stop_media", Op::StopMedia, flags, sock, (last, "last-frame-pos"))
}

/// rtpengine_play_dtmf(code, [flags], [engine]): -2 when the engine does not take it.
fn play_dtmf(call: &mut Call<Rtpengine>, code: Text, flags: Flags, sock: Sock) -> Outcome {
    let module = call.module.clone();
    let mut given = Dict::default();
    given.set_text("code", code.0);
    let command = prepare(call.ctx, &module, Op::PlayDtmf, &text(flags), None, Some(given));
    send(
        call,
        "rtpengine_play_dtmf",
        -2,
        command,
        sock,
        |_, answered| {
            if is_ok(&answered.dict) { 1 } else { -2 }
        },
    )
}

/// Asks about the call of the current message: what `$rtpstat` and `$rtpquery` show.
pub fn query(ctx: &mut Ctx, module: &Arc<Rtpengine>) -> Option<(Asking, Command, i64, u64)> {
    let command = prepare(ctx, module, Op::Query, &Bytes::new(), None, None);
    let number = set_number(ctx, module, UseAvp::No).ok()?;
    let limit = module.patience.total_ms().saturating_mul(3) + SLACK_MS;
    match command {
        Ok(command) => Some((Asking::new(ctx, module), command, number, limit)),
        Err(why) => {
            failed(ctx, module, &why);
            None
        }
    }
}
