//! Bare words of conditions: `src_ip == 10.0.0.0/8`, `uri == myself`, `method == INVITE`, `proto == UDP`.

use super::socket;
use crate::context::net::{Net, address_of};
use crate::ctx::Ctx;
use crate::language::loader::Loader;
use crate::var::{Answer, At, Context, Index, Var, VarKind, Variable, WaitingVariable};
use bytes::Bytes;
use script::ast::Dialect;
use script::{Diagnostic, Loc, Value};
use sip::{HeaderName, Method, Transport};
use std::net::IpAddr;

/// Largest message, as scripts know it (`max_len`).
const MAX_LEN: i64 = 65_535;

type Read = fn(&mut Ctx) -> Value;

/// Words that read something of the message.
const READS: [(&str, Read); 13] = [
    ("src_ip", |ctx| ip_value(ctx.state.source.remote.ip())),
    ("src_port", |ctx| Value::Int(i64::from(ctx.state.source.remote.port()))),
    ("dst_ip", |ctx| local(ctx, |addr| ip_value(addr.ip()))),
    ("dst_port", |ctx| local(ctx, |addr| Value::Int(i64::from(addr.port())))),
    ("proto", |ctx| ctx.state.source.transport.as_str().into()),
    ("af", |ctx| socket::family(ctx.state.source.remote.ip())),
    ("method", |ctx| super::text_or_null(ctx.state.msg.method_text())),
    ("uri", |ctx| super::text_or_null(ctx.state.current_uri())),
    ("from_uri", |ctx| address(ctx, HeaderName::From)),
    ("to_uri", |ctx| address(ctx, HeaderName::To)),
    ("status", |ctx| match ctx.state.msg.status() {
        0 => Value::Null,
        status => Value::Int(i64::from(status)),
    }),
    ("msg:len", |ctx| Value::Int(ctx.state.msg.buf().len() as i64)),
    ("max_len", |_| Value::Int(MAX_LEN)),
];

fn ip_value(ip: IpAddr) -> Value {
    Value::Str(Bytes::from(ip.to_canonical().to_string()))
}

fn local(ctx: &Ctx, value: fn(std::net::SocketAddr) -> Value) -> Value {
    socket::incoming(ctx).map_or(Value::Null, |s| value(s.addr))
}

fn address(ctx: &mut Ctx, header: HeaderName) -> Value {
    super::address::first(ctx, header).map_or(Value::Null, |address| super::text_or_null(address.uri))
}

/// `x == myself` and comparisons of addresses with networks; `None`: compare as plain values.
pub fn compare(ctx: &mut Ctx, left: &Value, word: &Var) -> Option<bool> {
    match &word.kind {
        VarKind::Other(word) => word.equals(ctx, left),
        _ => None,
    }
}

/// Prepares a bare word as an operand.
pub fn prepare(word: &[u8], loc: Loc, loader: &mut Loader) -> Result<Var, Diagnostic> {
    let text = String::from_utf8_lossy(word).into_owned();
    if loader.dialect == Dialect::V4 && Net::parse(&text).is_none() && !is_host(word) {
        return Err(Diagnostic::error(loc, format!("`{text}` was a word of 2.x")).hint(successor(&text)));
    }
    let kind: Box<dyn Variable> = if let Some((_, read)) = READS.iter().find(|(name, _)| *name == text) {
        Box::new(crate::var::ReadOnly(*read))
    } else if text == "myself" {
        Box::new(Myself)
    } else if let Some(constant) = constant(&text) {
        Box::new(Constant(constant))
    } else if let Some(net) = Net::parse(&text) {
        Box::new(Network { net, text: Bytes::copy_from_slice(word) })
    } else if is_host(word) {
        let kind = VarKind::Waiting(Box::new(HostName(text)));
        return Ok(loader.awaited(of_kind(kind, word)));
    } else {
        let error = Diagnostic::error(loc, format!("unknown word {text}"));
        let known = READS.iter().map(|(name, _)| *name).chain(["myself"]);
        return Err(match script::nearest(&text, known) {
            Some(near) => error.hint(format!("did you mean {near}? A text needs quotes")),
            None => error.hint("a text needs quotes, a variable starts with $"),
        });
    };
    Ok(of_kind(VarKind::Other(kind), word))
}

fn of_kind(kind: VarKind, word: &[u8]) -> Var {
    Var {
        kind,
        index: Index::None,
        context: Context::Current,
        trans: [].into(),
        fails: false,
        text: Bytes::copy_from_slice(word),
    }
}

/// `src_ip == gw.example.com`
fn is_host(word: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    word.contains(&b'.') && word.iter().all(fits) && word.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// The address of a host, as `src_ip` shows it; NULL when it has none.
struct HostName(String);

impl WaitingVariable for HostName {
    fn ask(&self, ctx: &mut Ctx, _: At) -> Answer {
        address_of(ctx, self.0.clone(), |hops| {
            hops.first().map_or(Value::Null, |hop| ip_value(hop.addr.ip()))
        })
    }
}

/// What 3.x and later have for a word of 2.x.
fn successor(word: &str) -> &'static str {
    match word {
        "method" => "write `$rm == \"INVITE\"`, or `is_method(\"INVITE\")`",
        "uri" => "write `$ru`, or `is_myself(\"$rd\", $rp)`",
        "from_uri" => "write `$fu`, or `is_myself(\"$fd\")`",
        "to_uri" => "write `$tu`, or `is_myself(\"$td\")`",
        "myself" => "write `is_myself(\"$rd\")`",
        "src_ip" => "write `$si`",
        "src_port" => "write `$sp`",
        "dst_ip" => "write `$socket_in(ip)`",
        "dst_port" => "write `$socket_in(port)`",
        "proto" => "write `$socket_in(proto)`",
        "af" => "write `$socket_in(af)`",
        "status" => "write `$rs`",
        "msg:len" => "write `$ml`",
        _ => "a text needs quotes, a variable starts with $",
    }
}

/// `UDP`, `INET6`, `INVITE`: words that stand for themselves.
fn constant(word: &str) -> Option<Bytes> {
    let known = matches!(word, "INET" | "INET6")
        || Method::all().any(|m| m.as_str() == word)
        || Transport::parse(word.as_bytes()).is_some();
    known.then(|| Bytes::copy_from_slice(word.as_bytes()))
}

struct Constant(Bytes);

impl Variable for Constant {
    fn get(&self, _: &mut Ctx, _: At) -> Value {
        Value::Str(self.0.clone())
    }
}

/// `myself`: any address or name of this server.
struct Myself;

impl Variable for Myself {
    fn get(&self, _: &mut Ctx, _: At) -> Value {
        "myself".into()
    }

    fn equals(&self, ctx: &mut Ctx, left: &Value) -> Option<bool> {
        let Some(text) = left.text() else { return Some(false) };
        Some(match super::uri::parse(&text) {
            Some(uri) => ctx.core.shared.is_own(&uri),
            None => ctx.core.shared.is_myself(&text, 0, None),
        })
    }
}

/// An address or network.
struct Network {
    net: Net,
    text: Bytes,
}

impl Variable for Network {
    fn get(&self, _: &mut Ctx, _: At) -> Value {
        Value::Str(self.text.clone())
    }

    fn equals(&self, _: &mut Ctx, left: &Value) -> Option<bool> {
        let text = left.text()?;
        let text = std::str::from_utf8(&text).ok()?;
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        bare.parse().ok().map(|ip| self.net.has(ip))
    }
}
