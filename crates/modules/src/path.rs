//! path: the Path header of registrations that pass through (RFC 3327).

use bytes::Bytes;
use host::{Call, Ctx, Head, Registrar, Routes};
use sip::{Anchor, HeaderName, Piece, Transport};

pub struct Path {
    use_received: bool,
    enable_double_path: bool,
}

impl Default for Path {
    fn default() -> Path {
        Path { use_received: false, enable_double_path: true }
    }
}

pub fn register(m: &mut Registrar<Path>) {
    m.param_int("use_received", |s, v| Ok(s.use_received = v != 0));
    m.param_int("enable_double_path", |s, v| Ok(s.enable_double_path = v != 0));
    m.function("add_path", Routes::REQUEST, |call: &mut Call<Path>, user: Option<Head>| {
        add(call, user, Received::No)
    });
    m.function("add_path_received", Routes::REQUEST, |call: &mut Call<Path>, user: Option<Head>| {
        add(call, user, Received::Yes)
    });
}

/// Whether the address of the sender is told.
#[derive(Clone, Copy, PartialEq)]
enum Received {
    Yes,
    No,
}

/// Path headers above those there are. Two when the request leaves by another socket: the upper one with the
/// leaving socket, the lower one with the incoming socket and the sender.
fn add(call: &mut Call<Path>, user: Option<Head>, received: Received) -> i32 {
    let text = |text: &[u8]| Piece::Text(Bytes::copy_from_slice(text));
    let user =
        user.filter(|user| !user.is_empty()).map(|user| [&user.0[..], b"@"].concat()).unwrap_or_default();
    let open = text(&[b"Path: <sip:", &user[..]].concat());
    let sender = match received {
        Received::Yes => format!(";received={}", escaped(&source_uri(call.ctx))),
        Received::No => String::new(),
    };
    let end = |tail: &str| text(format!(";lr{tail}>\r\n").as_bytes());
    let one = vec![open.clone(), Piece::SendHostPort, Piece::SendTransport, end(&sender)];
    let pieces = if call.module.enable_double_path {
        vec![
            Piece::IfSocketsDiffer(vec![
                open.clone(),
                Piece::SendHostPort,
                Piece::SendTransport,
                text(b";r2=on"),
                end(""),
            ]),
            open,
            Piece::ReceivedHostPort,
            Piece::ReceivedTransport,
            Piece::IfSocketsDiffer(vec![text(b";r2=on")]),
            end(&sender),
        ]
    } else {
        one
    };
    let state = &mut call.ctx.state;
    let place = state.msg.header(HeaderName::Path).map_or(Anchor::End, |h| Anchor::At(h.whole().start));
    state.edits.insert_first(place, pieces);
    1
}

/// The sender of the current message as a URI: `sip:1.2.3.4:5`, with its transport unless that is UDP.
pub fn source_uri(ctx: &Ctx) -> String {
    uri_of(ctx.state.source.remote, ctx.state.source.transport)
}

/// "sip:10.0.0.1:5060", with a transport parameter unless it is UDP.
pub fn uri_of(address: std::net::SocketAddr, transport: Transport) -> String {
    let host = host::shared::host_text(address);
    let transport = match transport {
        Transport::Udp => String::new(),
        other => format!(";transport={}", other.as_str()),
    };
    format!("sip:{host}:{}{transport}", address.port())
}

/// A URI as the value of a parameter of another one.
fn escaped(uri: &str) -> String {
    uri.replace(';', "%3b").replace('=', "%3d")
}

/// `use_received`: the `received` of a Route that was ours is where the request goes next.
pub fn follow_received(ctx: &mut Ctx, params: &sip::Params) {
    let Some(module) = ctx.shared().module::<Path>() else { return };
    if !module.use_received {
        return;
    }
    if let Some(uri) = params.value(b"received").filter(|uri| !uri.is_empty()) {
        ctx.state.dst_uri = Some(Bytes::copy_from_slice(&sip::unescape(&uri)));
    }
}
