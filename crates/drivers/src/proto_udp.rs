//! proto_udp: SIP over UDP. The sockets themselves belong to the server; this names the default port.

use host::Registrar;
use host::load::Loader;
use sip::Transport;

#[derive(Default)]
pub struct ProtoUdp {
    /// 0: 5060
    port: u16,
}

pub fn register(m: &mut Registrar<ProtoUdp>) {
    m.param_int("udp_port", |s, v| Ok(s.port = port(v)?));
    m.init(|s, loader| Ok(use_port(loader, Transport::Udp, s.port)));
}

/// A port as a module parameter gives it.
pub(crate) fn port(value: i64) -> Result<u16, String> {
    u16::try_from(value).ok().filter(|p| *p > 0).ok_or_else(|| format!("{value} is not a port"))
}

/// Gives sockets that were written without a port this one; 0 changes nothing.
pub(crate) fn use_port(loader: &mut Loader, transport: Transport, port: u16) {
    for socket in loader.globals.sockets.iter_mut().filter(|s| port != 0 && s.transport == transport) {
        let written = host::listen::ListenSpec::parse(&socket.text);
        if !written.is_ok_and(|spec| spec.ports.is_empty()) {
            continue;
        }
        if socket.names.port == socket.addr.port() {
            socket.names.port = port;
        }
        socket.addr.set_port(port);
    }
}
