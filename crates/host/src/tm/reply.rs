//! Replies made here: by the transaction when there is one, else stateless.

use crate::context::params::CoreParams;
use crate::ctx::{Ctx, MsgState};
use crate::tm::Parts;
use crate::tm::answer::{made_state, print_made};
use crate::tm::watch::{Way, show, tell_here};
use crate::watch::{Moment, Seen, Told};
use bytes::Bytes;
use script::ast::Dialect;
use sip::{HeaderName, HeaderOrder, Message, Method, ReplyParts, Rport};
use transaction::{Origin, Path};

/// How scripts changed the handling of the topmost Via (`force_rport`, `set_via_handling`), kept with
/// the message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ViaHandling {
    pub force_rport: bool,
    /// Replies go to the address in the Via, whatever the request came from.
    pub reply_to_via: bool,
}

/// Values of the Server and User-Agent headers of messages made here; empty for none.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    pub server: Bytes,
    pub user_agent: Bytes,
}

const PRODUCT: &str = concat!("Fermata/", env!("CARGO_PKG_VERSION"), " (OpenSIPS compatible)");

impl Signature {
    /// From `server_signature`, `server_header` and `user_agent_header`.
    pub fn new(core: &CoreParams) -> Signature {
        let value = |text: &Option<String>, label: &str| {
            let text = text.as_deref().unwrap_or(PRODUCT);
            let value = text.strip_prefix(label).unwrap_or(text).trim().to_string();
            Bytes::from(value)
        };
        if !core.server_signature {
            return Signature::default();
        }
        Signature {
            server: value(&core.server_header, "Server:"),
            user_agent: value(&core.user_agent_header, "User-Agent:"),
        }
    }
}

/// Who makes a reply: each has a tag of its own, so that the ACK says what it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Maker {
    Stateless,
    Transaction,
}

/// The tag of To in replies that this server makes to a request; the same for its retransmissions
/// and its ACK, whichever worker sees them.
pub fn to_tag(ctx: &Ctx, request: &Message, maker: Maker) -> Bytes {
    let via = request.via().and_then(|v| v.branch());

    Bytes::from(format!(
        "{:016x}.{:04x}",
        ctx.core.shared.tag_secret.hash_one(&(maker, via, request.call_id(), request.from_tag())),
        ctx.core.shared.tag_prefix
    ))
}

/// The tag that a reply to the current request would get now.
pub fn own_to_tag(ctx: &Ctx) -> Bytes {
    match ctx.state.txn {
        Some(id) => crate::tm::to_tag(ctx, id),
        None => to_tag(ctx, &ctx.state.msg, Maker::Stateless),
    }
}

/// True for an ACK to a reply that was made here without a transaction.
pub fn is_ack_of_ours(ctx: &Ctx, ack: &Message) -> bool {
    // Nearly every tag of somebody else has another form.
    let may_be_ours = |tag: &Bytes| tag.len() == 21 && tag[16] == b'.';
    let tag = ack.to_tag().filter(|tag| ack.method() == Method::Ack && may_be_ours(tag));
    tag.is_some_and(|tag| tag == to_tag(ctx, ack, Maker::Stateless))
}

/// Where a reply to a request goes (RFC 3261 §18.2.2, RFC 3581).
pub fn return_path(ctx: &Ctx, state: &MsgState) -> Path {
    let Some(via) = state.msg.via() else { return state.source };
    let handling = state.ext.find::<ViaHandling>().copied().unwrap_or_default();
    way_back(ctx, state.source, via, handling, state.flags)
}

/// The same for the topmost Via of a request from `path` that has these flags.
pub(super) fn way_back(ctx: &Ctx, mut path: Path, via: &sip::Via, handling: ViaHandling, flags: u32) -> Path {
    if path.is_reliable() {
        return back_by_stream(ctx, flags, path, via);
    }
    let forced = handling.force_rport;
    let port = if via.port == 0 { path.transport.default_port() } else { via.port };
    if (handling.reply_to_via || ctx.core.txns.policy.reply_to_via) && !forced && via.rport().is_none() {
        if let Some(ip) = via.ip() {
            path.remote = (ip, port).into();
        }
        return path;
    }
    if !forced && via.rport().is_none() {
        path.remote.set_port(port);
    }
    path
}

/// The connection that the request came by; when that is gone, one to the port in the Via (RFC 3261
/// §18.2.2). Nobody listens for a browser.
fn back_by_stream(ctx: &Ctx, flags: u32, mut path: Path, via: &sip::Via) -> Path {
    let browser = matches!(path.transport, sip::Transport::Ws | sip::Transport::Wss);
    if browser || flags & ctx.core.txns.streams.rules.no_new_for_replies != 0 {
        return path.only_existing();
    }
    path.remote.set_port(if via.port == 0 { path.transport.default_port() } else { via.port });
    path
}

/// What is added to the topmost Via of a request from this source.
pub fn via_params(state: &MsgState) -> Bytes {
    let forced = state.ext.find::<ViaHandling>().is_some_and(|h| h.force_rport);
    let rport = if forced { Rport::Forced } else { Rport::AsAsked };
    state.msg.via().map(|via| via.source_params(state.source.remote, rport)).unwrap_or_default()
}

/// The bytes of a reply to the request of `state`, with the headers and body that the script gave it.
pub fn build(ctx: &Ctx, state: &MsgState, code: u16, reason: &[u8], to_tag: Option<&[u8]>) -> Bytes {
    build_with(ctx, state, code, reason, to_tag, &Parts::default())
}

/// The same with what a command gave it; its body goes before the script's.
pub fn build_with(
    ctx: &Ctx,
    state: &MsgState,
    code: u16,
    reason: &[u8],
    to_tag: Option<&[u8]>,
    parts: &Parts,
) -> Bytes {
    let mut extra: Vec<u8> = state.reply_headers.concat();
    extra.extend_from_slice(&parts.headers);
    let mut body: &[u8] = &parts.body;
    if let (Some((content_type, text)), true) = (state.reply_body.as_deref(), body.is_empty()) {
        if !content_type.is_empty() {
            extra.extend_from_slice(b"Content-Type: ");
            extra.extend_from_slice(content_type);
            extra.extend_from_slice(b"\r\n");
        }
        body = text;
    }
    // A redirection goes where the script would have sent the request.
    if let (300..=399, Some(contacts)) = (code, crate::branches::contacts(state)) {
        for part in [&b"Contact: "[..], &contacts, b"\r\n"] {
            extra.extend_from_slice(part);
        }
    }
    if ctx.core.txns.policy.warns {
        extra.extend_from_slice(warning(ctx, state).as_bytes());
    }
    let via_params = via_params(state);
    let parts = ReplyParts {
        code,
        reason,
        to_tag,
        via_params: &via_params,
        extra: &extra,
        server: &ctx.core.txns.policy.signature.server,
        body,
        order: match ctx.core.shared.dialect {
            Dialect::V21 => HeaderOrder::AsReceived,
            Dialect::V4 => HeaderOrder::Fixed,
        },
    };
    sip::build_reply(&state.msg, &parts)
}

/// The Warning header that says what came in and what became of it (`sip_warning`).
fn warning(ctx: &Ctx, state: &MsgState) -> String {
    let names = crate::tm::branch::socket_names(ctx, &state.source);
    let here = format!("{}:{}", String::from_utf8_lossy(&names.host), names.port);
    let plain = |uri: Bytes| String::from_utf8_lossy(&uri).replace(['"', '\\', '\r', '\n'], " ");
    format!(
        "Warning: 392 {here} \"Noisy feedback tells:  pid={} req_src_ip={} req_src_port={} in_uri={} out_uri={} \
         via_cnt=={}\"\r\n",
        std::process::id(),
        state.source.remote.ip(),
        state.source.remote.port(),
        plain(state.msg.request_uri()),
        plain(state.current_uri()),
        state.msg.vias().len(),
    )
}

/// The failure that `sl_reply_error` and `error_route` report, kept with the message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastError {
    pub code: u16,
    pub reason: Bytes,
}

/// The reply that fits what went wrong last.
pub fn last_error(ctx: &Ctx) -> (u16, Bytes) {
    match ctx.state.ext.find::<LastError>() {
        Some(error) if error.code >= 300 => (error.code, error.reason.clone()),
        _ => (500, Bytes::from_static(b"Server error occurred (1/SL)")),
    }
}

/// Sends a reply to the current request: through its transaction when there is one. 1 sent, -1 not.
pub fn send(ctx: &mut Ctx, code: u16, reason: &[u8]) -> i32 {
    match ctx.state.txn {
        Some(txn) => crate::tm::reply(ctx, txn, code, reason),
        None => send_stateless(ctx, code, reason),
    }
}

/// Sends a reply without a transaction (`sl_send_reply`). 1 sent, -1 not. A transaction that is only
/// there because the script waited gets it all the same: it has to repeat it.
pub fn send_stateless(ctx: &mut Ctx, code: u16, reason: &[u8]) -> i32 {
    if let Some(txn) = ctx.state.txn.filter(|id| crate::tm::is_implicit(ctx, *id)) {
        return crate::tm::reply(ctx, txn, code, reason);
    }
    let state = &ctx.state;
    // Nobody answers an ACK; 2.1 ends the script there.
    if state.msg.is_request() && state.msg.method() == Method::Ack {
        return i32::from(ctx.core.shared.dialect == script::ast::Dialect::V4);
    }
    if !state.msg.is_request() || !(100..700).contains(&code) {
        return -1;
    }
    if state.msg.header(HeaderName::Via).is_none() {
        return -1;
    }
    let tag = to_tag(ctx, &state.msg, Maker::Stateless);
    let tag = (code != 100).then_some(&tag[..]);
    let bytes = build(ctx, &ctx.state, code, reason, tag);
    let path = return_path(ctx, &ctx.state);
    let seen = Seen::of(None).status(code).origin(Origin::Here);
    match ctx.core.shared.hooks.watch.watches(Moment::ReplyOut) {
        true => show_stateless(ctx, path, bytes, seen),
        false => stateless_leaves(ctx, path, bytes, seen),
    }
    1
}

fn show_stateless(ctx: &mut Ctx, path: Path, bytes: Bytes, seen: Seen) {
    let Some(mut state) = made_state(ctx, bytes.clone()) else { return };
    state.source.socket = path.socket;
    state.avps = ctx.state.avps.clone();
    state.flags = ctx.state.flags;
    // The request, for those who are told of its reply: its script may be over by then.
    let tells = ctx.core.shared.hooks.watch.tells(Told::Replied);
    let task = script::Task::new(ctx.core.shared.program(), script::RouteId(0));
    let request = tells.then(|| ctx.state.fork(ctx.state.kind, task));
    let told = seen.clone();
    show(ctx, Moment::ReplyOut, state, seen, move |ctx, state, way| {
        if way == Way::Stopped {
            return;
        }
        let bytes = if state.edits.is_empty() { bytes } else { print_made(ctx, &state) };
        match request {
            Some(request) => {
                let outer = std::mem::replace(&mut ctx.state, request);
                stateless_leaves(ctx, path, bytes, told);
                ctx.state = outer;
            }
            None => ctx.transmit(path, bytes),
        }
    });
}

/// The request is the current message.
fn stateless_leaves(ctx: &mut Ctx, path: Path, bytes: Bytes, seen: Seen) {
    ctx.transmit(path, bytes.clone());
    tell_here(ctx, Told::Replied, &Seen { bytes, ..seen });
}
