//! proto_bin: the binary interface between servers, which does not exist here. Configurations name it beside
//! clusterer; nothing listens, and the log says so for each such socket.

use host::Registrar;

/// The module keeps nothing.
#[derive(Default)]
pub struct ProtoBin;

pub fn register(m: &mut Registrar<ProtoBin>) {
    let why = "there is no binary interface: servers share a store instead";
    m.ignored(&["bin_port", "bin_send_timeout", "bin_max_msg_chunks", "bin_async"], why);
    m.ignored(&["bin_async_max_postponed_chunks", "bin_async_local_connect_timeout"], why);
    m.ignored(&["bin_async_local_write_timeout", "trace_destination", "trace_on", "trace_filter_route"], why);
}
