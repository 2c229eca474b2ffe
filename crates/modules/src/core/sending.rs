//! Sending without a transaction, and how the server names itself in what it sends.

use super::Core;
use super::arg::{Digits, Plain, Socket};
use bytes::Bytes;
use host::arg::Arg;
use host::load::Loader;
use host::registrar::Since;
use host::reply::ViaHandling;
use host::tm::LocalVia;
use host::{Call, Ctx, Format, Head, HeadLines, Int, Outcome, Registrar, Routes, Text, Word};
use script::ast;
use script::{Diagnostic, Loc};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    m.function("forward", all, forward);
    m.function("send", all, send);
    for name in ["force_rport", "add_rport"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>| force_rport(call.ctx));
    }
    for name in ["add_local_rport", "force_local_rport"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>| add_local_rport(call.ctx));
    }
    for name in ["force_tcp_alias", "add_tcp_alias"] {
        m.function_of(since(name), name, all, |call: &mut Call<Core>, port: Option<Int>| {
            force_tcp_alias(call.ctx, port)
        });
    }
    m.function_of(Since::V4, "set_via_handling", all, set_via_handling);
    m.function_of(Since::V4, "set_advertised_address", all, |call: &mut Call<Core>, host: Head| {
        advertise_host(call.ctx, host.0)
    });
    // 3.0 wrote it as a number.
    m.function_of(Since::V4, "set_advertised_port", all, |call: &mut Call<Core>, port: Digits| {
        advertise_port(call.ctx, &port.0)
    });
    m.function_of(Since::V21, "set_advertised_address", all, |call: &mut Call<Core>, host: Word| {
        advertise_host(call.ctx, host.0)
    });
    m.function_of(Since::V21, "set_advertised_port", all, |call: &mut Call<Core>, port: Word| {
        advertise_port(call.ctx, &port.0)
    });
    m.function("force_send_socket", all, force_send_socket);
}

fn since(name: &str) -> Since {
    match name {
        "force_rport" | "add_local_rport" | "force_tcp_alias" => Since::Both,
        _ => Since::V21,
    }
}

/// Where `forward` sends: `[proto:]host[:port]`; left out, the R-URI or `$du` says it. Using it turns
/// the forwarding of stray replies on.
struct Destination(Option<Bytes>);

impl Arg<Core> for Destination {
    type Prepared = Option<Format>;
    const OPTIONAL: bool = true;
    const WHAT: &'static str = "[proto:]host[:port]";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<Core>,
    ) -> Result<Option<Format>, Diagnostic> {
        if loader.globals.core.disable_stateless_fwd == Some(true) {
            let error = Diagnostic::error(site, "forward() is used, and disable_stateless_fwd is set");
            return Err(error.hint("set disable_stateless_fwd=no, or relay with t_relay()"));
        }
        loader.use_forward();
        let Some(arg) = host::arg::given(arg) else { return Ok(None) };
        <Plain as Arg<Core>>::prepare(Some(arg), site, loader, module).map(Some)
    }

    fn eval(prepared: &Option<Format>, call: &mut Call<'_, Core>) -> Result<Destination, i32> {
        let Some(format) = prepared else { return Ok(Destination(None)) };
        let text = <Text as Arg<Core>>::eval(format, call)?;
        Ok(Destination(Some(crate::tm::relay::proxy_uri(&text.str()))))
    }
}

/// forward([destination]): 1 sent, negative not. A name is looked up without blocking.
fn forward(call: &mut Call<Core>, to: Destination) -> Outcome {
    host::tm::forward_or_wait(call.ctx, to.0)
}

/// send(destination, [headers]): the message as it came, with these header lines on top.
fn send(call: &mut Call<Core>, to: Plain, headers: Option<HeadLines>) -> Outcome {
    let uri = crate::tm::relay::proxy_uri(&String::from_utf8_lossy(&to.0));
    host::tm::send_to(call.ctx, uri, headers.map(|h| h.0).unwrap_or_default())
}

fn force_rport(ctx: &mut Ctx) -> i32 {
    ctx.state.ext.entry::<ViaHandling>().force_rport = true;
    1
}

fn add_local_rport(ctx: &mut Ctx) -> i32 {
    ctx.state.ext.entry::<LocalVia>().rport = true;
    1
}

/// force_tcp_alias([port]): requests towards the sender's Via port take the connection it came by.
fn force_tcp_alias(ctx: &mut Ctx, port: Option<Int>) -> i32 {
    let source = ctx.state.source;
    if source.transport == sip::Transport::Udp {
        return 1;
    }
    let via = ctx.state.msg.via().map_or(0, |via| via.port);
    let port = port.map_or(i64::from(via), |p| p.0);
    let Ok(port) = u16::try_from(port) else {
        host::warn!("core", "force_tcp_alias: {port} is no port");
        return -1;
    };
    let port = if port == 0 { source.transport.default_port() } else { port };
    let connections = ctx.core.shared.connections();
    match connections.is_some_and(|all| all.alias(source.connection_id(), port)) {
        true => 1,
        false => -1,
    }
}

/// set_via_handling("force-rport,add-local-rport,reply-to-via,force-tcp-alias")
fn set_via_handling(call: &mut Call<Core>, flags: Text) -> i32 {
    for flag in flags.split(|b| *b == b',') {
        match flag.trim_ascii() {
            b"force-rport" => force_rport(call.ctx),
            b"add-local-rport" => add_local_rport(call.ctx),
            b"force-tcp-alias" => force_tcp_alias(call.ctx, None),
            b"reply-to-via" => {
                call.ctx.state.ext.entry::<ViaHandling>().reply_to_via = true;
                1
            }
            other => {
                host::warn!("core", "set_via_handling knows no flag {}", String::from_utf8_lossy(other));
                1
            }
        };
    }
    1
}

/// Text that may stand in a Via: nothing that would end it.
fn fits_in_via(text: &[u8]) -> bool {
    !text.is_empty() && !text.iter().any(|b| b.is_ascii_whitespace() || matches!(b, b';' | b',' | 0))
}

fn advertise_host(ctx: &mut Ctx, host: Bytes) -> i32 {
    if !fits_in_via(&host) {
        host::warn!("core", "set_advertised_address: {} is no host", String::from_utf8_lossy(&host));
        return -1;
    }
    ctx.state.ext.entry::<LocalVia>().host =
        Some(host::shared::bracketed(&String::from_utf8_lossy(&host)).into());
    1
}

fn advertise_port(ctx: &mut Ctx, port: &[u8]) -> i32 {
    let Some(port) = host::arg::parse_int(port).and_then(|p| u16::try_from(p).ok()) else {
        host::warn!("core", "set_advertised_port: {} is no port", String::from_utf8_lossy(port));
        return -1;
    };
    ctx.state.ext.entry::<LocalVia>().port = Some(port);
    1
}

/// force_send_socket(socket)
fn force_send_socket(call: &mut Call<Core>, socket: Socket) -> bool {
    if socket.0.is_some() {
        call.ctx.state.socket = socket.0;
    }
    socket.0.is_some()
}
