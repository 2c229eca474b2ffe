//! proto_ws: SIP over WebSocket (RFC 7118). The connections belong to the server; this holds what scripts
//! set about them.

use crate::proto_udp::{port, use_port};
use host::Registrar;
use host::registrar::ParamFn;
use host::streams::StreamSettings;
use sip::Transport;

/// Parameters.
pub struct ProtoWs {
    /// 0: 80
    port: u16,
    /// Handshakes must have an Origin.
    require_origin: bool,
    /// What handshakes begun here ask for.
    resource: String,
}

impl Default for ProtoWs {
    fn default() -> ProtoWs {
        ProtoWs { port: 0, require_origin: true, resource: "/".into() }
    }
}

pub fn register(m: &mut Registrar<ProtoWs>) {
    m.param_int("ws_port", |s, v| Ok(s.port = port(v)?));
    m.param_text("ws_resource", |s, v| Ok(s.resource = v.to_owned()));
    m.param("require_origin", ParamFn::Any(|s, v| Ok(s.require_origin = host::registrar::truth(v))));
    m.ignored(&["ws_max_msg_chunks"], "the size and the time of a message are bounded instead");
    m.ignored(&["ws_send_timeout"], "writing never blocks");
    m.ignored(
        &["trace_destination", "trace_on", "trace_filter_route"],
        "tracing of connections does not exist yet",
    );
    m.init(|s, loader| Ok(use_port(loader, Transport::Ws, s.port)));
    m.ready(|s, hooks, _| {
        hooks.list().push(StreamSettings {
            require_origin: Some(s.require_origin),
            resource: Some(s.resource.clone()),
            ..StreamSettings::of(Transport::Ws)
        });
    });
}
