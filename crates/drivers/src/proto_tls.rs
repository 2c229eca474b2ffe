//! proto_tls: SIP over TLS. The connections belong to the server, the certificates to tls_mgm; in 2.1 this
//! module has both, and its parameters are handed on.

use crate::proto_udp::{port, use_port};
use crate::tls_mgm::{HasDomains, TlsMgm, avp};
use host::Registrar;
use host::registrar::ParamFn;
use host::streams::StreamSettings;
use net::link::{ClientSetup, ServerSetup, TlsSetup};
use script::ast::{Dialect, ParamValue};
use sip::Transport;
use std::net::SocketAddr;
use std::sync::Arc;

/// Parameters.
pub struct ProtoTls {
    /// 0: 5061
    port: u16,
    pong: bool,
    handshake_ms: Option<u64>,
    /// Domains as 2.1 sets them here.
    domains: TlsMgm,
}

impl HasDomains for ProtoTls {
    fn domains(&mut self) -> &mut TlsMgm {
        &mut self.domains
    }
}

impl Default for ProtoTls {
    fn default() -> ProtoTls {
        ProtoTls { port: 0, pong: true, handshake_ms: None, domains: TlsMgm::default() }
    }
}

pub fn register(m: &mut Registrar<ProtoTls>) {
    crate::tls_mgm::params(m);
    m.param(
        "client_domain_avp",
        ParamFn::Any(|s, v| {
            let name = match v {
                ParamValue::Int(n) => n.to_string(),
                ParamValue::Text(text) => String::from_utf8_lossy(text).into_owned(),
            };
            Ok(s.domains.client_tls_domain_avp = Some(avp(&name)))
        }),
    );
    m.param_int("tls_port", |s, v| Ok(s.port = port(v)?));
    m.param_int("tls_crlf_pingpong", |s, v| Ok(s.pong = v != 0));
    m.param_int("tls_handshake_timeout", |s, v| Ok(s.handshake_ms = u64::try_from(v).ok()));
    m.ignored(&["tls_crlf_drop"], "a lone CRLF is always dropped");
    m.ignored(&["tls_max_msg_chunks"], "the size and the time of a message are bounded instead");
    m.ignored(
        &["tls_async", "tls_async_local_connect_timeout", "tls_async_handshake_timeout"],
        "connecting and writing never block",
    );
    m.ignored(
        &["tls_async_max_postponed_chunks"],
        "tcp_async_max_postponed_chunks of proto_tcp counts for all",
    );
    m.ignored(&["cert_check_on_conn_reusage"], "connections are found by address");
    m.ignored(
        &["tls_parallel_handling"],
        "messages of one connection go to the workers that own their calls",
    );
    m.ignored(
        &["trace_destination", "trace_on", "trace_filter_route"],
        "tracing of connections does not exist yet",
    );
    m.init_with_files(|s, loader| {
        use_port(loader, Transport::Tls, s.port);
        // In 2.1 these are seconds.
        if loader.dialect == Dialect::V21 {
            s.handshake_ms = s.handshake_ms.map(|seconds| seconds.saturating_mul(1000));
        }
        if s.domains.is_set() { s.domains.finish() } else { Ok(()) }
    });
    m.ready(|module, hooks, _| {
        hooks.list().push(StreamSettings {
            pong: Some(module.pong),
            handshake_ms: module.handshake_ms,
            ..StreamSettings::of(Transport::Tls)
        });
        if module.domains.is_set() {
            hooks.list::<Arc<dyn TlsSetup>>().push(Arc::new(OwnDomains(module.clone())));
        }
        let module = module.clone();
        if module.domains.is_set() || module.domains.client_tls_domain_avp.is_some() {
            hooks.tls_hints.push(Arc::new(move |ctx, state, host| module.domains.hint(ctx, state, host)));
        }
    });
}

/// The domains of 2.1, as connections ask for them.
struct OwnDomains(Arc<ProtoTls>);

impl TlsSetup for OwnDomains {
    fn serves(&self) -> bool {
        self.0.domains.serves()
    }
    fn server(&self, local: SocketAddr, name: Option<&str>) -> Result<ServerSetup, String> {
        TlsSetup::server(&self.0.domains, local, name)
    }
    fn client(&self, remote: SocketAddr, hint: u32) -> Result<ClientSetup, String> {
        TlsSetup::client(&self.0.domains, remote, hint)
    }
}
