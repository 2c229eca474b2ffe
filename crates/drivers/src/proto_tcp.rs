//! proto_tcp: SIP over TCP. The connections themselves belong to the server; this holds what scripts set
//! about them.

use crate::proto_udp::{port, use_port};
use host::Registrar;
use host::streams::StreamSettings;
use sip::Transport;

/// Parameters.
pub struct ProtoTcp {
    /// 0: 5060
    port: u16,
    /// A double CRLF is answered with one (RFC 5626 §3.5.1).
    pong: bool,
    /// Messages that may wait for one connection; `None`: the server's own limit.
    queue: Option<usize>,
}

impl Default for ProtoTcp {
    fn default() -> ProtoTcp {
        ProtoTcp { port: 0, pong: true, queue: None }
    }
}

pub fn register(m: &mut Registrar<ProtoTcp>) {
    m.param_int("tcp_port", |s, v| Ok(s.port = port(v)?));
    m.param_int("tcp_crlf_pingpong", |s, v| Ok(s.pong = v != 0));
    m.param_int("tcp_async_max_postponed_chunks", |s, v| Ok(s.queue = Some(v.clamp(1, 10_000) as usize)));
    m.ignored(&["tcp_crlf_drop"], "a lone CRLF is always dropped");
    m.ignored(&["tcp_max_msg_chunks"], "the size and the time of a message are bounded instead");
    m.ignored(
        &[
            "tcp_async",
            "tcp_async_local_connect_timeout",
            "tcp_async_local_write_timeout",
            "tcp_send_timeout",
        ],
        "connecting and writing never block",
    );
    m.ignored(
        &["tcp_parallel_handling"],
        "messages of one connection go to the workers that own their calls",
    );
    m.ignored(
        &["trace_destination", "trace_on", "trace_filter_route"],
        "tracing of connections does not exist yet",
    );
    m.init(|s, loader| Ok(use_port(loader, Transport::Tcp, s.port)));
    m.ready(|s, hooks, _| {
        let set = StreamSettings { pong: Some(s.pong), queue: s.queue, ..StreamSettings::of(Transport::Tcp) };
        hooks.list().push(set);
    });
}
