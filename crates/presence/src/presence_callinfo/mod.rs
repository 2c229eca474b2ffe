//! presence_callinfo: lines that several phones share, as BroadWorks has them: the events `call-info` (what each appearance
//! does) and `line-seize` (somebody takes one to call from it). Somebody else publishes what calls do, or the calls of this
//! server are followed by module `dialog`.

mod lines;

use crate::presence::Presence;
use crate::presence::own::{self, Own};
use crate::presence::packages::{BAD_REQUEST, BROKEN, Package, Refusal};
use crate::presence::subscribe::Request;
use bytes::Bytes;
use host::load::Loader;
use host::mi::{MiError, MiParams, MiResult};
use host::{Call, Ctx, Head, Registrar, Routes};
use lines::{LineState, Lines, Taken};
use modules::dialog::api::{self, Event, Told};
use modules::dialog::{Flags, Key, Val};
use serde_json::json;
use sip::{Message, Method, Uri};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const CALL_INFO: &str = "call-info";
const LINE_SEIZE: &str = "line-seize";
/// Seconds that the state of a line is kept.
const EXPIRES_S: u32 = 3600;
const TAKEN: Refusal = Refusal(480, "Temporarily Unavailable");

pub struct CallInfo {
    tells_end: bool,
    seize_tells_end: bool,
    /// Others publish; calls are not followed.
    external: bool,
    lines: Arc<Lines>,
    presence: Option<Arc<Presence>>,
    level: AtomicI64,
}

impl Default for CallInfo {
    fn default() -> CallInfo {
        CallInfo {
            tells_end: true,
            seize_tells_end: false,
            external: false,
            lines: Arc::default(),
            presence: None,
            level: AtomicI64::new(0),
        }
    }
}

pub fn register(m: &mut Registrar<CallInfo>) {
    m.param_int("call_info_timeout_notification", |s, v| Ok(s.tells_end = v != 0));
    m.param_int("line_seize_timeout_notification", |s, v| Ok(s.seize_tells_end = v != 0));
    m.param_int("disable_dialog_support_for_sca", |s, v| Ok(s.external = v != 0));
    m.ignored(&["line_hash_size"], "the table grows by itself");
    m.function("sca_set_calling_line", Routes::REQUEST, set_calling_line);
    m.function("sca_set_called_line", Routes::REQUEST.and(Routes::BRANCH), set_called_line);
    m.command("presence_callinfo:list_lines sca_list_lines", "lines and what their appearances do", list)
        .takes("[sca_line]");
    m.command(
        "presence_callinfo:release_line sca_release_line",
        "makes a line, or one appearance, idle",
        release,
    )
    .takes("sca_line [sca_index]");
    m.command(
        "presence_callinfo:set_log_level sca_set_log_level",
        "keeps a number for who reads it; messages follow log_level",
        level,
    )
    .takes("[log_level]");
    m.needs(&["presence"]);
    m.asks_for(|s| (!s.external).then(|| "dialog".into()));
    m.init(init);
    m.start(|call| {
        let module = call.module.clone();
        if !module.external {
            api::listen(call.ctx, std::rc::Rc::new(move |ctx, told| told_of(ctx, &module, told)));
        }
    });
}

fn init(s: &mut CallInfo, loader: &mut Loader) -> Result<(), String> {
    let Some(presence) = loader.module::<Presence>() else { return Ok(()) };
    presence.packages.add(Package {
        needs_body: false,
        keeps_tag: true,
        tells_end: s.tells_end,
        headers: &["Call-Info"],
        admits: Some(has_call_info),
        empty_headers: Some(Arc::new(|uri| lines::header(uri, None))),
        ..Package::new(CALL_INFO, "")
    });
    let seize = Package {
        needs_body: false,
        default_expires: 15,
        tells_end: s.seize_tells_end,
        ..Package::new(LINE_SEIZE, "")
    };
    let (all, shown, own) = (s.lines.clone(), s.lines.clone(), presence.clone());
    presence.packages.add(match s.external {
        true => Package { admits: Some(has_call_info), ..seize },
        false => Package {
            admits_subscribe: Some(Arc::new(move |ctx, uri, request| take(ctx, &own, &all, uri, request))),
            empty_headers: Some(Arc::new(move |uri| match shown.get(uri) {
                Some(line) if line.seized != 0 => format!(
                    "Call-Info: <{}>;appearance-index={}\r\n",
                    String::from_utf8_lossy(uri),
                    line.seized
                )
                .into(),
                _ => Bytes::new(),
            })),
            ..seize
        },
    });
    s.presence = Some(presence);
    Ok(())
}

fn has_call_info(msg: &Message) -> Result<(), Refusal> {
    if msg.headers_named(b"Call-Info").next().is_some() { Ok(()) } else { Err(BROKEN) }
}

/// `appearance-index` of the first Call-Info; 0 is none.
fn index_of(msg: &Message) -> Option<u32> {
    let header = msg.headers_named(b"Call-Info").next()?;
    let value = msg.text(header.value());
    let params = value.iter().position(|b| *b == b'>').map_or(&value[..], |at| &value[at..]);
    let wanted = b"appearance-index";
    let of = params.split(|b| matches!(b, b';' | b',')).find_map(|param| {
        let (name, value) = param.split_at(param.iter().position(|b| *b == b'=')?);
        name.trim_ascii().eq_ignore_ascii_case(wanted).then(|| value[1..].trim_ascii())
    })?;
    std::str::from_utf8(of).ok()?.parse().ok().filter(|index| *index != 0)
}

fn now_s(ctx: &Ctx) -> u64 {
    ctx.core.wall_us / 1_000_000
}

/// A SUBSCRIBE to line-seize takes a line, keeps it or gives it back.
fn take(
    ctx: &mut Ctx,
    presence: &Arc<Presence>,
    lines: &Lines,
    uri: &Bytes,
    request: &Request,
) -> Result<(), Refusal> {
    let msg = ctx.state.msg.clone();
    let index = index_of(&msg).ok_or(BAD_REQUEST)?;
    let now = now_s(ctx);
    let taken = match (request.is_first(), request.expires) {
        // It only asks.
        (true, 0) => return Ok(()),
        (true, seconds) => lines.seize(uri, index, now, seconds),
        (false, 0) => lines.give_back(uri, index),
        (false, seconds) => {
            return match lines.extend(uri, now, seconds) {
                Taken::Unknown => Err(BROKEN),
                _ => Ok(()),
            };
        }
    };
    match taken {
        Taken::Done => tell(ctx, presence, lines, uri),
        Taken::Busy => return Err(TAKEN),
        Taken::Unknown if request.expires > 0 => return Err(BROKEN),
        Taken::Unknown => {}
    }
    Ok(())
}

/// Watchers of a line hear what it does.
fn tell(ctx: &mut Ctx, presence: &Arc<Presence>, lines: &Lines, uri: &Bytes) {
    let Ok(parsed) = Uri::parse(uri) else { return };
    let state = Own {
        user: parsed.user.unwrap_or_default(),
        domain: parsed.host,
        event: CALL_INFO,
        body: None,
        headers: Some(lines::header(uri, lines.get(uri).as_ref())),
        expires: EXPIRES_S,
    };
    own::publish(ctx, presence, state);
}

/// Which end of a call has a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Caller,
    Callee,
}

impl Side {
    fn names(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Side::Caller => (b"PCI_calling_line", b"PCI_calling_index"),
            Side::Callee => (b"PCI_called_line", b"PCI_called_index"),
        }
    }
}

fn kept(ctx: &mut Ctx, key: Key, side: Side) -> Option<(Bytes, u32)> {
    let (line, index) = side.names();
    let Some(Val::Str(line)) = api::val(ctx, key, line) else { return None };
    let Some(Val::Int(index)) = api::val(ctx, key, index) else { return None };
    Some((Bytes::copy_from_slice(&line), u32::try_from(index).ok()?))
}

/// sca_set_calling_line([line]): the caller calls from a line that he has taken.
fn set_calling_line(call: &mut Call<CallInfo>, line: Option<Head>) -> i32 {
    let line = line.map(|line| line.0).or_else(|| call.state.msg.from().map(|from| from.uri));
    set_line(call, line, Side::Caller)
}

/// sca_set_called_line([line]): the callee has a line.
fn set_called_line(call: &mut Call<CallInfo>, line: Option<Head>) -> i32 {
    let line = line.map(|line| line.0).or_else(|| Some(call.state.current_uri()));
    set_line(call, line, Side::Callee)
}

fn set_line(call: &mut Call<CallInfo>, line: Option<Bytes>, side: Side) -> i32 {
    let module = call.module.clone();
    let ctx = &mut *call.ctx;
    if module.external {
        host::complain!(
            ctx,
            "presence_callinfo",
            "calls are not followed: disable_dialog_support_for_sca is set"
        );
        return -1;
    }
    let msg = ctx.state.msg.clone();
    if msg.method() != Method::Invite {
        return 1;
    }
    let Some(line) = line.filter(|line| Uri::parse(line).is_ok()) else { return -1 };
    let Some(index) = index_of(&msg) else {
        host::complain!(ctx, "presence_callinfo", "the INVITE says no appearance-index in Call-Info");
        return -1;
    };
    let wanted = (side == Side::Caller).then_some(index);
    if !module.lines.used(&line, wanted) {
        host::complain!(ctx, "presence_callinfo", "{} was not seized", String::from_utf8_lossy(&line));
        return -1;
    }
    let key = api::current(ctx).map(|(key, _)| key).or_else(|| api::create(ctx, Flags::default()));
    let Some(key) = key else { return -1 };
    let (name, number) = side.names();
    api::set_val(ctx, key, name, Some(Val::Str(line[..].into())));
    api::set_val(ctx, key, number, Some(Val::Int(i64::from(index))));
    1
}

/// Something happened to a call.
fn told_of(ctx: &mut Ctx, module: &Arc<CallInfo>, told: &Told) {
    let Some(presence) = &module.presence else { return };
    for side in [Side::Caller, Side::Callee] {
        let Some((line, index)) = kept(ctx, told.key, side) else { continue };
        let next = match (told.event, side) {
            (Event::Early, Side::Caller) => LineState::Progressing,
            (Event::Early, Side::Callee) => LineState::Alerting,
            (Event::Confirmed, _) => LineState::Active,
            (Event::RequestWithin, _) if ctx.state.msg.method() == Method::Invite => {
                match on_hold(&ctx.state.msg) {
                    true => LineState::Held,
                    false => LineState::Active,
                }
            }
            (Event::Terminated | Event::Expired | Event::Failed, _) => LineState::Idle,
            _ => continue,
        };
        if module.lines.moved(&line, index, next) {
            tell(ctx, presence, &module.lines, &line);
        }
    }
}

/// Its sender does not want to hear anything (RFC 3264 §8.4).
fn on_hold(msg: &Message) -> bool {
    let body = msg.bytes(msg.body());
    let lines = || body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines().any(|line| matches!(line, b"a=sendonly" | b"a=inactive" | b"c=IN IP4 0.0.0.0"))
}

fn list(call: &mut Call<CallInfo>, params: &MiParams) -> MiResult {
    let now = now_s(call.ctx);
    let only = params.text("sca_line", 0);
    let all = call.module.lines.list(only.as_ref().map(|line| line.as_bytes()));
    let mut indexes = 0;
    let shown: Vec<_> = all
        .iter()
        .map(|(uri, line)| {
            indexes += line.appearances.len();
            let left = match line.seized_until {
                0 => 0,
                until => until as i64 - now as i64,
            };
            let appearances: Vec<_> = line
                .appearances
                .iter()
                .map(|(index, state)| json!({"index": index, "state": state.as_str()}))
                .collect();
            json!({
                "line": String::from_utf8_lossy(uri),
                "seize_state": line.seized,
                "seize_expires": left,
                "seize_expires_ts": line.seized_until,
                "indexes": appearances,
            })
        })
        .collect();
    Ok(json!({"lines": shown, "num_lines": all.len(), "num_indexes": indexes}))
}

fn release(call: &mut Call<CallInfo>, params: &MiParams) -> MiResult {
    let module = call.module.clone();
    let name = params.need("sca_line", 0)?;
    let index = params.int("sca_index", 1)?.map(u32::try_from).transpose();
    let index = index.map_err(|_| MiError::params("sca_index is a number"))?;
    let names: Vec<Bytes> = match name.as_str() {
        "ALL" => module.lines.list(None).into_iter().map(|(uri, _)| uri).collect(),
        name => vec![Bytes::copy_from_slice(name.as_bytes())],
    };
    for uri in &names {
        if !module.lines.release(uri, index) {
            return Err(MiError::new(404, "SCA line or index not found"));
        }
        if let Some(presence) = &module.presence {
            tell(call.ctx, presence, &module.lines, uri);
        }
    }
    Ok(json!("OK"))
}

fn level(call: &mut Call<CallInfo>, params: &MiParams) -> MiResult {
    if let Some(level) = params.int("log_level", 0)? {
        call.module.level.store(level, Ordering::Relaxed);
    }
    Ok(json!({"log_level": call.module.level.load(Ordering::Relaxed)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(header: &str, body: &str) -> Message {
        let text = format!(
            "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n{header}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    #[test]
    fn appearances_have_numbers() {
        let index = |header| index_of(&request(header, ""));
        assert_eq!(index("Call-Info: <sip:l@x>;appearance-index=3;appearance-state=seized\r\n"), Some(3));
        assert_eq!(index("Call-Info: <sip:l@x>;appearance-index=*\r\n"), None);
        assert_eq!(index("Call-Info: <sip:l@x;appearance-index=2>\r\n"), None);
        assert_eq!(index(""), None);
        assert!(has_call_info(&request("", "")).is_err());
    }

    #[test]
    fn hold_is_seen() {
        assert!(on_hold(&request("", "v=0\r\na=sendonly\r\n")));
        assert!(!on_hold(&request("", "v=0\r\na=sendrecv\r\n")));
    }
}
