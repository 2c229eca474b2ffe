//! Where a message came from and where it leaves: `$si`, `$socket_in(port)`, `$socket_out`, `$fs`.

use crate::ctx::Ctx;
use crate::language::vartable::VarTable;
use crate::shared::{Listen, host_text};
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::ast::AssignOp;
use script::{Diagnostic, Value};
use sip::Transport;
use std::net::{IpAddr, SocketAddr};

pub fn register(table: &mut VarTable) {
    let source: [(&str, fn(&mut Ctx) -> Value); 8] = [
        ("si", |ctx| ip_value(ctx.state.source.remote.ip())),
        ("src_ip", |ctx| ip_value(ctx.state.source.remote.ip())),
        ("sp", |ctx| Value::Int(i64::from(ctx.state.source.remote.port()))),
        ("Ri", |ctx| incoming(ctx).map_or(Value::Null, |s| ip_value(s.addr.ip()))),
        ("Rp", |ctx| incoming(ctx).map_or(Value::Null, |s| Value::Int(i64::from(s.addr.port())))),
        ("pr", |ctx| protocol(ctx.state.source.transport)),
        ("proto", |ctx| protocol(ctx.state.source.transport)),
        ("af", |ctx| family(ctx.state.source.remote.ip())),
    ];
    for (name, read) in source {
        table.read(name, read);
    }
    table.simple("fs", Forced);
    table.class("socket_in", |spec, _| {
        let field = spec.inner.as_deref().map(|inner| field(inner, spec.loc)).transpose()?;
        Ok(VarKind::Other(Box::new(Socket { side: Side::In, field })))
    });
    table.class("socket_out", |spec, _| {
        let inner = spec.inner.as_deref().map(<[u8]>::trim_ascii);
        let side = if inner == Some(b"forced") { Side::Forced } else { Side::Out };
        let inner = inner.filter(|_| side == Side::Out);
        let field = inner.map(|inner| field(inner, spec.loc)).transpose()?;
        Ok(VarKind::Other(Box::new(Socket { side, field })))
    });
    // No connection here speaks the PROXY protocol.
    table.read("proxy_protocol", |_| Value::Null);
}

/// The socket that the message came in by, at the address it came to.
pub(super) fn incoming(ctx: &Ctx) -> Option<Listen> {
    let (source, shared) = (&ctx.state.source, &ctx.core.shared);
    Some(shared.sockets.get(usize::from(source.socket))?.at(shared.local_address(source.local)))
}

fn ip_value(ip: IpAddr) -> Value {
    Value::Str(Bytes::from(ip.to_canonical().to_string()))
}

/// A transport as `$proto` and its like have it: its name, and its number.
pub(super) fn protocol(transport: Transport) -> Value {
    let number = match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
        Transport::Tls => 3,
        Transport::Sctp => 4,
        Transport::Ws => 5,
        Transport::Wss => 6,
    };
    Value::Both(Bytes::from_static(transport.as_str().as_bytes()), number)
}

pub(super) fn family(ip: IpAddr) -> Value {
    match ip.to_canonical() {
        IpAddr::V4(_) => "INET".into(),
        IpAddr::V6(_) => "INET6".into(),
    }
}

/// `proto:ip:port` of a socket, as scripts write it.
pub fn describe(socket: &Listen) -> Bytes {
    let (transport, host) = (socket.transport.as_str(), host_text(socket.addr));
    Bytes::from(format!("{transport}:{host}:{}", socket.addr.port()))
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    In,
    Out,
    /// `$socket_out(forced)`: NULL unless a script chose one.
    Forced,
}

type Field = fn(&Listen) -> Value;

const FIELDS: [(&str, Field); 8] = [
    ("ip", |s| Value::Str(host_text(s.addr).into())),
    ("port", |s| Value::Int(i64::from(s.addr.port()))),
    ("proto", |s| s.transport.as_str().into()),
    ("advertised_ip", |s| if s.advertised { Value::Str(s.names.host.clone()) } else { Value::Null }),
    ("advertised_port", |s| if s.advertised { Value::Int(i64::from(s.names.port)) } else { Value::Null }),
    ("tag", |s| s.tag.clone().into()),
    ("anycast", |_| Value::Int(0)),
    ("af", |s| family(s.addr.ip())),
];

fn field(inner: &[u8], loc: script::Loc) -> Result<Field, Diagnostic> {
    let found = FIELDS.iter().find(|(name, _)| name.as_bytes() == inner.trim_ascii());
    found.map(|(_, read)| *read).ok_or_else(|| {
        let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        Diagnostic::error(loc, "a socket has no such field").hint(format!("fields are {}", names.join(", ")))
    })
}

struct Socket {
    side: Side,
    field: Option<Field>,
}

impl Variable for Socket {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let state = &ctx.state;
        let index = match self.side {
            Side::In => Some(state.source.socket),
            Side::Out => state.socket.or(Some(state.source.socket)),
            Side::Forced => state.socket,
        };
        let sockets = &ctx.core.shared.sockets;
        let Some(index) = index else { return Value::Null };
        let Some(socket) = sockets.get(usize::from(index)) else { return Value::Null };
        let came_to = ctx.core.shared.local_address(state.source.local);
        let here = socket.at(came_to.filter(|_| index == state.source.socket));
        match self.field {
            Some(read) => read(&here),
            None => Value::Str(describe(&here)),
        }
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        force(ctx, &value)
    }

    fn writable(&self) -> bool {
        self.side == Side::Out && self.field.is_none()
    }
}

/// `$fs`, the name of `$socket_out` in 2.1; NULL unless a script chose one.
#[derive(Clone, Copy)]
struct Forced;

impl Variable for Forced {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let socket = ctx.state.socket.and_then(|i| ctx.core.shared.sockets.get(usize::from(i)));
        socket.map_or(Value::Null, |socket| Value::Str(describe(socket)))
    }
    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        force(ctx, &value)
    }
    fn writable(&self) -> bool {
        true
    }
}

/// Chooses the socket to send from; NULL leaves the choice to the server.
pub fn force(ctx: &mut Ctx, value: &Value) -> bool {
    if value.is_null() {
        ctx.state.socket = None;
        return true;
    }
    let text = value.to_text();
    let found = find(&ctx.core.shared.sockets, &text).or_else(|| find_wildcard(ctx, &text));
    if found.is_some() {
        ctx.state.socket = found;
    }
    found.is_some()
}

/// The socket that a script names: `udp:10.0.0.1:5060`, `10.0.0.1:5060`, or its tag. Without a port the
/// default one is tried first, then any.
pub fn find(sockets: &[Listen], text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let at = sockets.iter().position(|s| s.tag.as_deref() == Some(text));
    let at = at.or_else(|| {
        let (transport, rest) = split_transport(text);
        let fits = |s: &Listen| transport.is_none_or(|t| t == s.transport);
        let exact = sockets.iter().position(|s| fits(s) && named(s, rest));
        exact.or_else(|| sockets.iter().position(|s| fits(s) && host_text(s.addr) == rest))
    })?;
    u16::try_from(at).ok()
}

/// The socket bound to all addresses that listens on the one that a script names.
fn find_wildcard(ctx: &Ctx, text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (transport, rest) = split_transport(text);
    let (ip, port) = match rest.parse::<SocketAddr>() {
        Ok(addr) => (addr.ip(), addr.port()),
        Err(_) => (rest.trim_matches(['[', ']']).parse().ok()?, 0),
    };
    let shared = &ctx.core.shared;
    let fits = |s: &Listen| transport.is_none_or(|t| t == s.transport) && shared.hears(s, ip, port);
    shared.sockets.iter().position(fits).and_then(|at| u16::try_from(at).ok())
}

/// The transport that a name of a socket begins with, and the rest.
fn split_transport(text: &str) -> (Option<Transport>, &str) {
    let first = text.split_once(':');
    let known = first.and_then(|(word, rest)| Some((Transport::parse(word.as_bytes())?, rest)));
    known.map_or((None, text), |(transport, rest)| (Some(transport), rest))
}

/// True when `host[:port]` is the bound or the advertised name of a socket.
fn named(socket: &Listen, text: &str) -> bool {
    let default = socket.transport.default_port();
    let same = |host: &str, port: u16| {
        let with_port = format!("{host}:{port}");
        with_port.eq_ignore_ascii_case(text) || (port == default && host.eq_ignore_ascii_case(text))
    };
    same(&host_text(socket.addr), socket.addr.port())
        || same(&socket.addr.ip().to_string(), socket.addr.port())
        || same(&String::from_utf8_lossy(&socket.names.host), socket.names.port)
}
