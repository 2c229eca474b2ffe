//! Where copies go: a table, a HEP server, a SIP address.

use crate::hep::{Packet, SIP};
use crate::proto_hep::{Destination, ProtoHep};
use bytes::Bytes;
use host::db::{Db, DbValue, Query};
use host::{Ctx, Output};
use sip::{Message, Transport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use transaction::Path;

/// The table when a trace_id names none.
const TABLE: &str = "sip_trace";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    In,
    Out,
}

/// A message and the way it went.
pub struct Copied<'a> {
    pub msg: &'a Message,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub from_transport: Transport,
    pub to_transport: Transport,
    pub direction: Direction,
    pub attrs: Option<Bytes>,
    pub correlation: Option<Bytes>,
}

pub enum Target {
    /// `attrs`: the column of what the script says of the message; nothing is stored while `on` is not.
    Table {
        db: Db,
        table: String,
        attrs: &'static str,
        on: Arc<AtomicBool>,
    },
    Hep(Arc<Destination>),
    Sip(SocketAddr),
}

/// The table of `siptrace`, which has another column for whom a message is traced.
pub fn siptrace_target(db: Db, table: String, on: Arc<AtomicBool>) -> Target {
    Target::Table { db, table, attrs: "traced_user", on }
}

/// The value of `uri=` in what a trace_id says.
pub fn uri_of(text: &str) -> Option<&str> {
    fields(text).into_iter().find(|(key, _)| *key == "uri").map(|(_, value)| value)
}

/// `uri=...;table=...`; semicolons of a URI belong to it.
fn fields(text: &str) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    let mut rest = text.trim().trim_end_matches(';');
    while let Some((key, value)) = rest.split_once('=') {
        let next = [";uri=", ";table="].iter().filter_map(|next| value.find(next)).min();
        let end = next.unwrap_or(value.len());
        out.push((key.trim(), value[..end].trim()));
        rest = value[end..].trim_start_matches(';').trim();
    }
    out
}

impl Target {
    pub fn parse(
        text: &str,
        hep: Option<&Arc<ProtoHep>>,
        loader: &mut host::Loader,
    ) -> Result<Target, String> {
        let compact: String = text.split_inclusive(';').map(str::trim).collect();
        let fields = fields(&compact);
        let value = |wanted: &str| fields.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        if let Some((key, _)) = fields.iter().find(|(key, _)| !matches!(*key, "uri" | "table")) {
            return Err(format!("`{key}` is neither uri nor table"));
        }
        let uri = value("uri").ok_or("uri= is missing")?;
        match Target::address(uri, hep)? {
            Some(target) => Ok(target),
            None => {
                let table = value("table").unwrap_or(TABLE).to_string();
                let (attrs, on) = ("trace_attrs", Arc::new(AtomicBool::new(true)));
                Ok(Target::Table { db: loader.db(uri)?, table, attrs, on })
            }
        }
    }

    /// What is no database.
    pub fn address(uri: &str, hep: Option<&Arc<ProtoHep>>) -> Result<Option<Target>, String> {
        if let Some(id) = uri.strip_prefix("hep:") {
            let hep = hep.ok_or("copies over HEP need loadmodule \"proto_hep.so\"")?;
            let found = hep.destination(id.trim());
            return found
                .map(|to| Some(Target::Hep(to)))
                .ok_or_else(|| format!("proto_hep has no hep_id `{id}`"));
        }
        if let Some(address) = uri.strip_prefix("sip:") {
            let address = address.strip_suffix(";transport=udp").unwrap_or(address);
            let addr = address.parse().or_else(|_| address.parse().map(|ip| SocketAddr::new(ip, 5060)));
            let wrong = |_| format!("`{uri}`: copies go by UDP to an IP address, sip:10.0.0.1:5060");
            return addr.map(|addr| Some(Target::Sip(addr))).map_err(wrong);
        }
        if uri.starts_with("file:") || uri.starts_with("syslog") {
            return Err(format!("`{uri}`: copies go to a database, hep: or sip:, not to files or syslog"));
        }
        Ok(None)
    }

    /// For lists: (type, address).
    pub fn shown(&self) -> (&'static str, String) {
        match self {
            Target::Table { db, .. } => ("Database", db.url().to_string()),
            Target::Hep(to) => ("HEP", format!("{}:{}", to.host, to.port)),
            Target::Sip(addr) => ("SIP", addr.to_string()),
        }
    }

    pub fn take(&self, ctx: &mut Ctx, hep: Option<&Arc<ProtoHep>>, copied: &Copied<'_>) {
        match self {
            Target::Table { on, .. } if !on.load(Ordering::Relaxed) => {}
            Target::Table { db, table, attrs, .. } => {
                let row = row(table, attrs, copied, ctx.core.wall_us);
                db.insert_later(ctx, "tracer", row, |error| {
                    host::error!("tracer", "a copy of a message was not stored: {error}");
                });
            }
            Target::Hep(to) => {
                let call_id = || copied.msg.call_id().unwrap_or_default();
                let packet = Packet {
                    from: copied.from,
                    to: copied.to,
                    transport: copied.from_transport,
                    at_us: ctx.core.wall_us,
                    kind: SIP,
                    correlation: copied.correlation.clone().unwrap_or_else(call_id),
                    extra: Bytes::new(),
                    payload: copied.msg.buf().clone(),
                };
                if let Some(hep) = hep {
                    hep.send(to, &packet);
                }
            }
            Target::Sip(remote) => {
                let udp = ctx
                    .shared()
                    .sockets
                    .iter()
                    .position(|s| s.transport == Transport::Udp && s.addr.is_ipv4() == remote.is_ipv4());
                let Some(socket) = udp else {
                    return host::error!("tracer", "there is no UDP socket to send copies to {remote} from");
                };
                let transport = Transport::Udp;
                let path =
                    Path { socket: socket as u16, transport, remote: *remote, local: 0, connection: 0 };
                // Past the taps: a copy is not copied.
                ctx.core.outputs.push(Output::Transmit { path, bytes: copied.msg.buf().clone() });
            }
        }
    }
}

fn row(table: &str, attrs: &'static str, copied: &Copied<'_>, wall_us: u64) -> Query {
    let msg = copied.msg;
    let method = if msg.is_request() {
        msg.method_text()
    } else {
        msg.cseq_parts().map(|(_, method)| method).unwrap_or_default()
    };
    let status = if msg.is_request() { Bytes::new() } else { msg.status().to_string().into() };
    let text = |text: String| DbValue::Text(text.into());
    let port = |addr: SocketAddr| DbValue::Int(addr.port().into());
    let direction = if copied.direction == Direction::In { "in" } else { "out" };
    Query::insert(table.to_string())
        .set("msg", DbValue::Blob(msg.buf().clone()))
        .set("callid", DbValue::Text(msg.call_id().unwrap_or_default()))
        .set("method", DbValue::Text(method))
        .set("status", DbValue::Text(status))
        .set("from_proto", text(copied.from_transport.as_str().to_string()))
        .set("from_ip", text(copied.from.ip().to_string()))
        .set("from_port", port(copied.from))
        .set("to_proto", text(copied.to_transport.as_str().to_string()))
        .set("to_ip", text(copied.to.ip().to_string()))
        .set("to_port", port(copied.to))
        .set("time_stamp", DbValue::Time((wall_us / 1_000_000) as i64))
        .set("direction", text(direction.to_string()))
        .set("fromtag", DbValue::Text(msg.from_tag().unwrap_or_default()))
        .set(attrs, copied.attrs.clone().map_or(DbValue::Text(Bytes::new()), DbValue::Text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trace_id_says() {
        assert_eq!(uri_of("uri=mysql://u:p@h/db;table=new_sip_trace;"), Some("mysql://u:p@h/db"));
        assert_eq!(fields("uri=hep:a;x=1"), [("uri", "hep:a;x=1")]);
        assert_eq!(fields("table=t;uri=sqlite:///f"), [("table", "t"), ("uri", "sqlite:///f")]);
        for wrong in ["sip:name.example", "file:/tmp/x", "syslog:local0", "hep:x"] {
            assert!(Target::address(wrong, None).is_err(), "{wrong}");
        }
        assert!(matches!(Target::address("sip:10.0.0.1", None), Ok(Some(Target::Sip(_)))));
        assert!(matches!(Target::address("mysql://x", None), Ok(None)));
    }
}
