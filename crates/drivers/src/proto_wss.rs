//! proto_wss: SIP over secure WebSocket (RFC 7118). The connections belong to the server; this holds what scripts
//! set about them.

use crate::proto_udp::{port, use_port};
use host::Registrar;
use host::registrar::ParamFn;
use host::streams::StreamSettings;
use sip::Transport;

/// Parameters.
pub struct ProtoWss {
    /// 0: 443
    port: u16,
    /// Handshakes must have an Origin.
    require_origin: bool,
    /// What handshakes begun here ask for.
    resource: String,
    handshake_ms: Option<u64>,
}

impl Default for ProtoWss {
    fn default() -> ProtoWss {
        ProtoWss { port: 0, require_origin: true, resource: "/".into(), handshake_ms: None }
    }
}

pub fn register(m: &mut Registrar<ProtoWss>) {
    m.param_int("wss_port", |s, v| Ok(s.port = port(v)?));
    m.param_text("wss_resource", |s, v| Ok(s.resource = v.to_owned()));
    m.param("require_origin", ParamFn::Any(|s, v| Ok(s.require_origin = host::registrar::truth(v))));
    m.ignored(&["wss_max_msg_chunks"], "the size and the time of a message are bounded instead");
    m.ignored(
        &["wss_send_timeout", "wss_tls_handshake_timeout", "wss_async_handshake_timeout"],
        "writing never blocks",
    );
    m.param_int("wss_handshake_timeout", |s, v| Ok(s.handshake_ms = u64::try_from(v).ok()));
    m.ignored(&["cert_check_on_conn_reusage"], "connections are found by address");
    m.ignored(
        &["trace_destination", "trace_on", "trace_filter_route"],
        "tracing of connections does not exist yet",
    );
    m.needs(&["tls_mgm"]);
    m.init(|s, loader| Ok(use_port(loader, Transport::Wss, s.port)));
    m.ready(|s, hooks, _| {
        hooks.list().push(StreamSettings {
            require_origin: Some(s.require_origin),
            resource: Some(s.resource.clone()),
            handshake_ms: s.handshake_ms,
            ..StreamSettings::of(Transport::Wss)
        });
    });
}
