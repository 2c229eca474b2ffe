//! sst: session timers (RFC 4028). A call whose ends stop refreshing ends: its dialog lives as long as its session.

use crate::dialog::Key;
use crate::dialog::api::{self, Event, Told};
use host::load::Loader;
use host::registrar::ParamFn;
use host::shared::Hooks;
use host::stats::{Counter, Stats};
use host::{Call, Ctx, Int, Registrar, Routes};
use script::ast::ParamValue;
use sip::{Anchor, Message, Method};
use std::rc::Rc;
use std::sync::Arc;

/// Smallest interval that RFC 4028 allows, seconds.
const SMALLEST: u32 = 90;

pub struct Sst {
    flag: String,
    bit: u32,
    min_se: u32,
    interval: u32,
    reject: bool,
    stats: bool,
    expired: Counter,
}

impl Default for Sst {
    fn default() -> Sst {
        Sst {
            flag: String::new(),
            bit: 0,
            min_se: SMALLEST,
            interval: 0,
            reject: true,
            stats: true,
            expired: Counter::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Sst>) {
    m.param_int("enable_stats", |s, v| Ok(s.stats = v != 0));
    m.param_int("min_se", |s, v| match u32::try_from(v) {
        Ok(n) if n >= SMALLEST => Ok(s.min_se = n),
        _ => Err(format!("min_se is at least {SMALLEST} seconds (RFC 4028)")),
    });
    m.param_int("sst_interval", |s, v| match u32::try_from(v) {
        Ok(n) => Ok(s.interval = n),
        _ => Err("sst_interval is a number of seconds".into()),
    });
    m.param_int("reject_to_small", |s, v| Ok(s.reject = v != 0));
    m.param(
        "sst_flag",
        ParamFn::Any(|s, v| {
            s.flag = match v {
                ParamValue::Int(n) => n.to_string(),
                ParamValue::Text(t) => String::from_utf8_lossy(t).into_owned(),
            };
            Ok(())
        }),
    );
    m.function("sstCheckMin", Routes::REQUEST.and(Routes::ON_REPLY), check_min);
    m.needs(&["dialog"]);
    m.init(init);
    m.ready(ready);
    m.start(start);
}

fn init(s: &mut Sst, loader: &mut Loader) -> Result<(), String> {
    if s.flag.is_empty() {
        return Err("sst_flag names the message flag that asks for session timers".into());
    }
    s.bit = loader.flag(s.flag.as_bytes(), script::Loc::default()).map_err(|d| d.message)?;
    s.interval = s.interval.max(s.min_se);
    Ok(())
}

fn ready(module: &Arc<Sst>, hooks: &mut Hooks, stats: &Stats) {
    if module.stats {
        stats.count_with("sst", "expired_sst", module.expired.clone());
    }
    let module = module.clone();
    hooks.watch.on(host::watch::Moment::ReplyIn, move |ctx, _| reply_in(ctx, &module));
}

/// What is known of a call's session, kept with its dialog.
#[derive(Clone, Default)]
struct Session {
    followed: bool,
    /// The caller said `Supported: timer`.
    caller_supports: bool,
    /// Seconds that the request asked for.
    asked: u32,
}

fn start(call: &mut Call<Sst>) {
    let module = call.module.clone();
    api::listen(
        call.ctx,
        Rc::new(move |ctx: &mut Ctx, told: &Told| match told.event {
            Event::Created => created(ctx, &module, told.key),
            Event::RequestWithin => refreshed(ctx, told.key),
            Event::ReplyWithin | Event::Confirmed => {
                if let Some(reply) = told.reply {
                    agreed(ctx, told.key, reply);
                }
            }
            Event::Terminated | Event::Expired => ended(ctx, &module, told.key),
            _ => {}
        }),
    );
}

/// The seconds of Session-Expires.
fn session_expires(msg: &Message) -> Option<u32> {
    let header = msg.headers_named(b"Session-Expires").next().or_else(|| msg.headers_named(b"x").next())?;
    let text = msg.bytes(header.value());
    let digits = text.split(|b| *b == b';').next()?.trim_ascii();
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The header, and the seconds, of Min-SE.
fn min_se(msg: &Message) -> Option<(sip::Header, u32)> {
    let header = *msg.headers_named(b"Min-SE").next()?;
    let digits = msg.bytes(header.value()).split(|b| *b == b';').next()?.trim_ascii();
    Some((header, std::str::from_utf8(digits).ok()?.parse().ok()?))
}

fn supports_timer(msg: &Message) -> bool {
    msg.list(sip::HeaderName::Supported).any(|word| word.trim_ascii().eq_ignore_ascii_case(b"timer"))
}

/// The INVITE of a new dialog: its session gets an interval that this server can live with.
fn created(ctx: &mut Ctx, module: &Sst, key: Key) {
    if ctx.state.flags & module.bit == 0 {
        return;
    }
    let msg = ctx.state.msg.clone();
    let mut session = Session { followed: true, caller_supports: supports_timer(&msg), asked: 0 };
    match session_expires(&msg) {
        Some(seconds) if seconds < module.min_se && module.reject && session.caller_supports => {
            return refuse(ctx, module);
        }
        Some(seconds) => session.asked = seconds.max(module.min_se),
        None => {
            session.asked = module.interval;
            let known = min_se(&msg).map_or(0, |(_, n)| n);
            session.asked = session.asked.max(known);
            let line = format!("Session-Expires: {}\r\n", session.asked);
            if let Some((header, _)) = min_se(&msg).filter(|(_, n)| *n < module.min_se) {
                ctx.state.edits.delete(header.whole());
                ctx.state.edits.insert(Anchor::End, format!("Min-SE: {}\r\n", module.min_se));
            }
            ctx.state.edits.insert(Anchor::End, line);
        }
    }
    set_lifetime(ctx, key, session.asked);
    if let Some(dialog) = api::get(ctx, key) {
        dialog.ext.set(session);
    }
}

fn refuse(ctx: &mut Ctx, module: &Sst) {
    ctx.state.reply_headers.push(format!("MIN-SE: {}\r\n", module.min_se).into());
    host::reply::send(ctx, 422, b"Session Timer Too Small");
    ctx.state.reply_headers.pop();
}

fn session(ctx: &mut Ctx, key: Key) -> Option<Session> {
    api::get(ctx, key)?.ext.find::<Session>().filter(|s| s.followed).cloned()
}

/// A request inside the dialog asks for another interval.
fn refreshed(ctx: &mut Ctx, key: Key) {
    let msg = ctx.state.msg.clone();
    if !matches!(msg.method(), Method::Invite | Method::Update) {
        return;
    }
    let Some(mut session) = session(ctx, key) else { return };
    if let Some(seconds) = session_expires(&msg) {
        session.asked = seconds;
        session.caller_supports = supports_timer(&msg);
        if let Some(dialog) = api::get(ctx, key) {
            dialog.ext.set(session);
        }
    }
}

/// A 2xx that says nothing of timers, for a caller that knows them: the caller refreshes (RFC 4028 §8.1.2).
fn reply_in(ctx: &mut Ctx, module: &Sst) {
    let msg = ctx.state.msg.clone();
    let invite = msg.cseq_parts().is_some_and(|(_, method)| &method[..] == b"INVITE");
    if !(200..300).contains(&msg.status()) || !invite || session_expires(&msg).is_some() {
        return;
    }
    let Some((key, _)) = api::current(ctx) else { return };
    let Some(session) = session(ctx, key).filter(|s| s.caller_supports) else { return };
    let seconds = session.asked.max(module.min_se);
    let lines = format!("Session-Expires: {seconds};refresher=uac\r\nRequire: timer\r\n");
    ctx.state.edits.insert(Anchor::End, lines);
}

/// A 2xx went upstream: what it says of the session holds.
fn agreed(ctx: &mut Ctx, key: Key, reply: &Message) {
    if !(200..300).contains(&reply.status()) {
        return;
    }
    if session(ctx, key).is_some()
        && let Some(seconds) = session_expires(reply)
    {
        set_lifetime(ctx, key, seconds);
    }
}

fn set_lifetime(ctx: &mut Ctx, key: Key, seconds: u32) {
    api::set_lifetime(ctx, key, seconds);
}

fn ended(ctx: &mut Ctx, module: &Sst, key: Key) {
    let over = |d: &crate::dialog::Dialog| d.end_reason.as_deref() == Some(b"Lifetime Timeout");
    if session(ctx, key).is_some() && api::get(ctx, key).is_some_and(|d| over(d)) {
        module.expired.up();
    }
}

/// sstCheckMin(answer): 1 the interval is too small, answered with 422 when `answer` is not 0; -1 it is fine.
fn check_min(call: &mut Call<Sst>, answer: Int) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    let msg = ctx.state.msg.clone();
    if !msg.is_request() {
        // A 422 that a callee sent says what it wants itself.
        return -1;
    }
    let small = session_expires(&msg).is_some_and(|n| n < module.min_se)
        || min_se(&msg).is_some_and(|(_, n)| n < module.min_se);
    if small && answer.0 != 0 {
        refuse(ctx, &module);
    }
    if small { 1 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn headers_are_read() {
        let parse = |headers: &str| {
            let text = format!("INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nCall-ID: c\r\n{headers}\r\n");
            Message::parse(Bytes::from(text)).expect("a message")
        };
        for (headers, expires, min) in [
            ("Session-Expires: 600;refresher=uac\r\n", Some(600), None),
            ("x: 90 \r\nMin-SE: 120;a=b\r\n", Some(90), Some(120)),
            ("Session-Expires: soon\r\nMin-SE: \r\n", None, None),
        ] {
            let msg = parse(headers);
            assert_eq!((session_expires(&msg), min_se(&msg).map(|(_, n)| n)), (expires, min), "{headers}");
        }
        assert!(supports_timer(&parse("Supported: 100rel, Timer\r\n")));
    }
}
