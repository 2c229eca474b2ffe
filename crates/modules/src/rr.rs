//! rr: Record-Route and Route (RFC 3261 §16.4, §16.6, §16.12).

use crate::pattern::Pattern;
use bytes::Bytes;
use host::watch::Moment;
use host::{Call, Ctx, Head, Outcome, Registrar, Routes, Text, Value};
use script::ast::Dialect;
use sip::{Anchor, HeaderName, Message, NameAddr, Piece, Span, Uri};

pub struct Rr {
    append_fromtag: bool,
    enable_double_rr: bool,
    add_username: bool,
    enable_full_lr: bool,
}

impl Default for Rr {
    fn default() -> Rr {
        Rr { append_fromtag: true, enable_double_rr: true, add_username: false, enable_full_lr: false }
    }
}

pub fn register(m: &mut Registrar<Rr>) {
    m.param_int("append_fromtag", |s, v| Ok(s.append_fromtag = v != 0));
    m.param_int("enable_double_rr", |s, v| Ok(s.enable_double_rr = v != 0));
    m.param_int("add_username", |s, v| Ok(s.add_username = v != 0));
    m.param_int("enable_full_lr", |s, v| Ok(s.enable_full_lr = v != 0));
    m.ignored(
        &["enable_socket_mismatch_warning"],
        "sockets of double Record-Routes are not compared with the network",
    );
    m.ignored(&["ignore_user"], "a Route with our address is ours whatever its user");
    let routes = Routes::REQUEST.and(Routes::BRANCH).and(Routes::FAILURE);
    m.function("loose_route", Routes::REQUEST, loose_route);
    m.function("record_route", routes, record_route);
    m.function("record_route_preset", routes, record_route_preset);
    m.function("add_rr_param", routes.and(Routes::LOCAL), |call: &mut Call<Rr>, param: Head| {
        add_param(call.ctx, &param)
    });
    let any = routes.and(Routes::ON_REPLY).and(Routes::LOCAL);
    m.function("check_route_param", any, check_route_param);
    m.function("is_direction", any, is_direction);
    m.variable("rr_params", |call| params_value(call.ctx));
}

/// What scripts did with the routes of a message.
#[derive(Clone, Default)]
struct State {
    /// Parameters of the Route that named us; the text after the first `;`.
    params: Params,
    recorded: bool,
    /// Where the Route values begin that were taken away.
    dropped: Vec<u32>,
    inline: Vec<u8>,
    before: Vec<u8>,
    after: Vec<u8>,
}

#[derive(Clone, Default)]
enum Params {
    #[default]
    None,
    Of(Bytes),
    /// Those of the current R-URI: it was our Record-Route (a strict router sent it).
    Uri,
}

/// Parameters of our own Route in this request; `None` when there was none.
pub fn route_params(ctx: &Ctx) -> Option<Bytes> {
    let text = match &ctx.state.ext.find::<State>()?.params {
        Params::None => return None,
        Params::Of(text) => text.clone(),
        Params::Uri => {
            let uri = match ctx.core.shared.dialect {
                Dialect::V21 => ctx.state.msg.request_uri(),
                Dialect::V4 => ctx.state.current_uri(),
            };
            Uri::parse(&uri).ok()?.params.text
        }
    };
    Some(text).filter(|t| !t.is_empty())
}

/// The Route value that begins here was taken away by `loose_route`.
pub fn is_dropped(ctx: &Ctx, start: u32) -> bool {
    ctx.state.ext.find::<State>().is_some_and(|state| state.dropped.contains(&start))
}

fn params_value(ctx: &mut Ctx) -> Value {
    match route_params(ctx) {
        Some(text) => Value::Str(text),
        // 2.1 prints nothing for it.
        None if ctx.core.shared.dialect == Dialect::V21 => Value::Str(Bytes::new()),
        None => Value::Null,
    }
}

/// Adds parameters (";name=value") to our Record-Route, already there or still to come.
pub fn add_param(ctx: &mut Ctx, param: &[u8]) -> i32 {
    let state = ctx.state.ext.entry::<State>();
    if state.recorded {
        // The newest comes first.
        state.after.splice(..0, param.iter().copied());
        let all = all_params(state);
        ctx.state.edits.each_pieces(|pieces| set_params(pieces, &all));
    } else {
        state.before.extend_from_slice(param);
    }
    1
}

/// Takes a parameter away again that `add_param` added; the next `add_param` writes what is left.
pub fn forget_param(ctx: &mut Ctx, param: &[u8]) {
    let state = ctx.state.ext.entry::<State>();
    for list in [&mut state.before, &mut state.after] {
        if let Some(at) = memchr::memmem::find(list, param) {
            list.drain(at..at + param.len());
        }
    }
}

fn all_params(state: &State) -> Bytes {
    [&state.inline[..], &state.after, &state.before].concat().into()
}

const CLOSE: &[u8] = b">\r\n";

/// The piece before each end of a Record-Route holds its added parameters.
fn set_params(pieces: &mut [Piece], params: &Bytes) {
    for i in 0..pieces.len() {
        if let Piece::IfSocketsDiffer(inner) = &mut pieces[i] {
            set_params(inner, params);
        }
        if i > 0 && pieces[i] == Piece::Text(Bytes::from_static(CLOSE)) {
            pieces[i - 1] = Piece::Text(params.clone());
        }
    }
}

fn text(parts: &[&[u8]]) -> Piece {
    Piece::Text(parts.concat().into())
}

/// record_route([params])
fn record_route(call: &mut Call<Rr>, params: Option<Head>) -> i32 {
    let module = call.module.clone();
    let Some((user, ftag)) = begin(call, params.as_deref()) else { return -1 };
    let lr: &[u8] = if module.enable_full_lr { b";lr=on" } else { b";lr" };
    let all = all_params(call.ctx.state.ext.entry::<State>());
    let open = text(&[b"Record-Route: <sip:", &user]);
    let close = Piece::Text(Bytes::from_static(CLOSE));
    let pieces = if module.enable_double_rr {
        let outer = vec![
            open.clone(),
            Piece::SendHostPort,
            Piece::SendTransport,
            text(&[b";r2=on", lr, &ftag]),
            Piece::Text(all.clone()),
            close.clone(),
        ];
        vec![
            Piece::IfSocketsDiffer(outer),
            open,
            Piece::ReceivedHostPort,
            Piece::ReceivedTransport,
            Piece::IfSocketsDiffer(vec![text(&[b";r2=on"])]),
            text(&[lr, &ftag]),
            Piece::Text(all),
            close,
        ]
    } else {
        vec![open, Piece::SendHostPort, Piece::SendTransport, text(&[lr, &ftag]), Piece::Text(all), close]
    };
    call.ctx.state.edits.insert_pieces(Anchor::Top, pieces);
    1
}

/// record_route_preset(address, [second address])
fn record_route_preset(call: &mut Call<Rr>, first: Head, second: Option<Head>) -> i32 {
    let module = call.module.clone();
    let Some((user, ftag)) = begin(call, None) else { return -1 };
    let lr: &[u8] = if module.enable_full_lr { b";lr=on" } else { b";lr" };
    let all = all_params(call.ctx.state.ext.entry::<State>());
    for address in [Some(first), second].into_iter().flatten() {
        let pieces = vec![
            text(&[b"Record-Route: <sip:", &user, &address.0, &ftag, lr]),
            Piece::Text(all.clone()),
            Piece::Text(Bytes::from_static(CLOSE)),
        ];
        call.ctx.state.edits.insert_pieces(Anchor::Top, pieces);
    }
    1
}

/// User part and `;ftag=` of a new Record-Route; `None` when there is one already.
fn begin(call: &mut Call<Rr>, params: Option<&Bytes>) -> Option<(Bytes, Bytes)> {
    let module = call.module.clone();
    let state = call.ctx.state.ext.entry::<State>();
    if state.recorded {
        host::warn!("rr", "a Record-Route was added to this request before, another one is not");
        return None;
    }
    state.recorded = true;
    state.inline = params.map(|p| p.to_vec()).unwrap_or_default();
    let mut user = Bytes::new();
    if module.add_username
        && let Ok(uri) = Uri::parse(&call.ctx.state.current_uri())
        && let Some(name) = uri.user.filter(|u| !u.is_empty())
    {
        user = [&name[..], b"@"].concat().into();
    }
    let ftag = match call.ctx.state.msg.from_tag() {
        Some(tag) if module.append_fromtag => [b";ftag=", &tag[..]].concat().into(),
        _ => Bytes::new(),
    };
    Some((user, ftag))
}

/// One Route value with the header it stands in.
struct Hop {
    uri: Uri,
    /// The header, and its value.
    whole: Span,
    value: Span,
    /// Where it begins.
    start: u32,
}

impl Hop {
    fn is_ours(&self, ctx: &Ctx) -> bool {
        is_ours(ctx, &self.uri)
    }
    fn is_loose(&self) -> bool {
        self.uri.params.find(b"lr").is_some()
    }
}

/// The second of two Record-Routes of one message may name a transport that is not listened on here.
fn is_pair(ctx: &Ctx, hop: &Hop) -> bool {
    ctx.core.shared.is_own(&hop.uri)
}

fn is_ours(ctx: &Ctx, uri: &Uri) -> bool {
    let transport = uri.transport().or(uri.is_sips().then_some(sip::Transport::Tls));
    ctx.core.shared.is_myself(&uri.host, uri.port_or_default(), transport)
}

/// All Route values; `None` when the first cannot be used.
fn hops(msg: &Message) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    for header in msg.headers_of(HeaderName::Route) {
        let list = NameAddr::parse_list(&msg.text(header.value()))?;
        for addr in list {
            if !addr.bracketed {
                return if hops.is_empty() { None } else { Some(hops) };
            }
            let uri = Uri::parse(&addr.uri).ok()?;
            let start = header.value().start + addr.whole.start;
            hops.push(Hop { uri, whole: header.whole(), value: header.value(), start });
        }
    }
    Some(hops)
}

/// loose_route(): true when the Route headers decide where the request goes.
fn loose_route(call: &mut Call<Rr>) -> Outcome {
    match route(call) {
        rc if rc > 0 => host::tm::show_here(call.ctx, Moment::Routed),
        rc => rc.into(),
    }
}

fn route(call: &mut Call<Rr>) -> i32 {
    let msg = call.ctx.state.msg.clone();
    let Some(hops) = hops(&msg) else { return -1 };
    if hops.is_empty() {
        return -1;
    }
    call.ctx.state.ext.entry::<State>().params = Params::None;
    let strict_sender = Uri::parse(&call.ctx.state.current_uri()).is_ok_and(|uri| is_ours(call.ctx, &uri));
    if strict_sender && msg.to_tag().is_some() {
        return after_strict(call.ctx, &msg, &hops);
    }
    let (rc, ours) = after_loose(call, &msg, &hops);
    // Also when the request is not in a dialog: it may have come back by our Path.
    if let Some(params) = ours {
        crate::path::follow_received(call.ctx, &params);
    }
    rc
}

/// The previous hop put our Record-Route into the R-URI (RFC 2543): the real one is the last Route.
fn after_strict(ctx: &mut Ctx, msg: &Message, hops: &[Hop]) -> i32 {
    let mut rest = hops;
    let doubled = Uri::parse(&ctx.state.current_uri()).is_ok_and(|uri| uri.params.find(b"r2").is_some());
    if doubled && is_pair(ctx, &rest[0]) {
        drop_hop(ctx, msg, hops, 0);
        rest = &rest[1..];
        if rest.is_empty() {
            return -1;
        }
    }
    ctx.state.ext.entry::<State>().params = Params::Uri;
    if !rest[0].is_loose() {
        ctx.state.ruri = Some(rest[0].uri.text.clone());
        drop_hop(ctx, msg, hops, hops.len() - rest.len());
        return 1;
    }
    let last = &rest[rest.len() - 1];
    ctx.state.dst_uri = Some(rest[0].uri.text.clone());
    ctx.state.ruri = Some(last.uri.text.clone());
    drop_hop(ctx, msg, hops, hops.len() - 1);
    1
}

/// The return code, and the parameters of our Route: of two, those of the second one.
fn after_loose(call: &mut Call<Rr>, msg: &Message, hops: &[Hop]) -> (i32, Option<sip::Params>) {
    let double = call.module.enable_double_rr;
    let ctx = &mut *call.ctx;
    if !hops[0].is_ours(ctx) {
        return (next_hop(ctx, msg, hops, 0), None);
    }
    let mut ours = hops[0].uri.params.clone();
    ctx.state.ext.entry::<State>().params = Params::Of(ours.text.clone());
    drop_hop(ctx, msg, hops, 0);
    let mut passed = 1;
    if double && ours.has(b"r2") && hops.get(1).is_some_and(|hop| is_pair(ctx, hop)) {
        // The other side of this server: what it says of socket and transport is where the request leaves.
        ctx.state.socket = socket_of(ctx, &hops[1].uri).or(ctx.state.socket);
        ours = hops[1].uri.params.clone();
        drop_hop(ctx, msg, hops, 1);
        passed = 2;
    } else if msg.to_tag().is_some() && ctx.state.socket.is_none() {
        // One Record-Route: the call came and went by one socket.
        ctx.state.socket = Some(ctx.state.source.socket);
    }
    let rc = match hops.len() == passed {
        // A preloaded Route to us alone says nothing about where to go.
        true => {
            if msg.to_tag().is_some() {
                1
            } else {
                -1
            }
        }
        false => next_hop(ctx, msg, hops, passed),
    };
    (rc, Some(ours))
}

/// The request goes to the Route at `at`; those before it are gone.
fn next_hop(ctx: &mut Ctx, msg: &Message, hops: &[Hop], at: usize) -> i32 {
    let next = &hops[at];
    if next.is_loose() {
        ctx.state.dst_uri = Some(next.uri.text.clone());
        return 1;
    }
    // A strict router follows: it wants to be the R-URI, ours becomes the last Route.
    let already = ctx.state.ruri.as_ref() == Some(&next.uri.text);
    if !already {
        let line = [b"Route: <", &ctx.state.current_uri()[..], b">\r\n"].concat();
        ctx.state.edits.insert(Anchor::End, line);
        ctx.state.ruri = Some(next.uri.text.clone());
        drop_hop(ctx, msg, hops, at);
    }
    1
}

/// Takes a value out of its header; the header goes with the last of them.
fn drop_hop(ctx: &mut Ctx, msg: &Message, hops: &[Hop], which: usize) {
    let hop = &hops[which];
    let here: Vec<u32> = hops.iter().filter(|h| h.whole == hop.whole).map(|h| h.start).collect();
    if ctx.state.edits.is_deleted(hop.whole) {
        return;
    }
    let state = ctx.state.ext.entry::<State>();
    if state.dropped.contains(&hop.start) {
        return;
    }
    let before = spans(msg, hop, &here, &state.dropped);
    state.dropped.push(hop.start);
    let now = spans(msg, hop, &here, &state.dropped);
    before.into_iter().for_each(|span| ctx.state.edits.undelete(span));
    now.into_iter().for_each(|span| ctx.state.edits.delete(span));
}

/// What to delete so that the values at `dropped` are gone from the header of `hop`: `here` is where all its
/// values begin.
fn spans(msg: &Message, hop: &Hop, here: &[u32], dropped: &[u32]) -> Vec<Span> {
    let Some(last_kept) = here.iter().rposition(|start| !dropped.contains(start)) else {
        return vec![hop.whole];
    };
    let mut spans: Vec<Span> = (0..last_kept)
        .filter(|i| dropped.contains(&here[*i]))
        .map(|i| Span { start: here[i], end: here[i + 1] })
        .collect();
    if let Some(next) = here.get(last_kept + 1) {
        // With the comma before it.
        let previous = msg.bytes(Span { start: hop.value.start, end: *next });
        let comma = previous.iter().rposition(|b| *b == b',').unwrap_or(previous.len());
        spans.push(Span { start: hop.value.start + comma as u32, end: hop.value.end });
    }
    spans
}

fn socket_of(ctx: &Ctx, uri: &Uri) -> Option<u16> {
    let transport = uri.transport().unwrap_or(sip::Transport::Udp);
    let sockets = &ctx.core.shared.sockets;
    let found = sockets.iter().position(|s| {
        s.transport == transport
            && (s.names.host.eq_ignore_ascii_case(&uri.host) && s.names.port == uri.port_or_default()
                || uri.ip() == Some(s.addr.ip()) && s.addr.port() == uri.port_or_default()
                || uri.ip().is_some_and(|ip| ctx.core.shared.hears(s, ip, uri.port_or_default())))
    });
    found.map(|i| i as u16)
}

/// check_route_param(regexp): on the parameters of our Route, with their first `;`.
fn check_route_param(call: &mut Call<Rr>, pattern: Pattern) -> i32 {
    let Some(params) = route_params(call.ctx) else { return -1 };
    let subject = [b";", &params[..]].concat();
    if pattern.0.is_match(&subject) { 1 } else { -1 }
}

/// Does this in-dialog request go the way of the first one? `ftag` of our Route tells.
pub fn is_downstream(ctx: &Ctx) -> bool {
    let ftag = route_params(ctx).and_then(|text| sip::Params { text }.value(b"ftag"));
    match (ftag, ctx.state.msg.from_tag()) {
        (Some(ftag), Some(tag)) => ftag == tag,
        _ => true,
    }
}

/// is_direction("downstream" | "upstream")
fn is_direction(call: &mut Call<Rr>, direction: Text) -> i32 {
    let downstream = is_downstream(call.ctx);
    match direction.0.to_ascii_lowercase().as_slice() {
        b"downstream" if downstream => 1,
        b"upstream" if !downstream => 1,
        b"downstream" | b"upstream" => -1,
        _ => {
            host::error!("rr", "is_direction takes \"downstream\" or \"upstream\"");
            -1
        }
    }
}

#[cfg(test)]
mod tests;
