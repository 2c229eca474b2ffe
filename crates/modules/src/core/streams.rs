//! Stream connections: lists them and ends them (`tcp:list`, `tcp:close`, `tcp_close_conn`).

use super::Core;
use host::mi::{MiError, MiParams, MiResult};
use host::streams::{Connection, Connections};
use host::{Call, Registrar, Routes, Text};
use serde_json::{Value as Json, json};
use sip::Transport;
use std::net::SocketAddr;
use std::sync::Arc;

pub fn register(m: &mut Registrar<Core>) {
    m.function("tcp_close_conn", Routes::ALL, tcp_close_conn);
    m.command("tcp:list list_tcp_conns", "stream connections", list).takes("[proto]");
    m.command("tcp:close", "ends a stream connection", close).takes("ipport");
    use host::events::{OVERLOAD, TCP_DISCONNECT, THRESHOLD};
    m.ready(|_, hooks, _| hooks.raises([OVERLOAD, TCP_DISCONNECT, THRESHOLD]));
}

fn list(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let wanted = match params.text("proto", 0) {
        None => None,
        Some(name) => {
            Some(Transport::parse(name.as_bytes()).ok_or_else(|| MiError::params("no such protocol"))?)
        }
    };
    let all = call.shared().connections().map(|all| all.list()).unwrap_or_default();
    let now = call.ctx.core.wall_us as i64 / 1_000_000;
    let shown = all.iter().filter(|c| wanted.is_none_or(|w| w == c.transport)).map(|c| show(c, now));
    Ok(json!({ "Connections": shown.collect::<Vec<_>>() }))
}

fn show(connection: &Connection, now: i64) -> Json {
    let end = host::clock::sql(now + connection.left as i64);
    let mut shown = json!({
        "ID": connection.id,
        "Type": connection.transport.as_str(),
        "State": i32::from(!connection.open),
        "Remote": connection.remote.to_string(),
        "Local": connection.local.map(|l| l.to_string()),
        "Lifetime": end,
        "Alias port": connection.aliases.first().copied().unwrap_or(connection.remote.port()),
    });
    if let Some(tls) = &connection.tls {
        shown["TLS"] =
            json!({ "Version": tls.version, "Cipher": tls.cipher, "Server name": tls.server_name });
    }
    shown
}

/// Ends what `text` names: a number of `tcp:list`, `ip:port` or `proto:ip:port`. `None`: it names nothing
/// that could be a connection; false: there is no such connection.
fn end(all: &Arc<dyn Connections>, text: &str) -> Option<bool> {
    let text = text.trim();
    if let Ok(id) = text.parse() {
        return Some(all.close(id));
    }
    let split =
        text.split_once(':').and_then(|(word, rest)| Some((Transport::parse(word.as_bytes())?, rest)));
    let (transport, address) = split.map_or((None, text), |(transport, rest)| (Some(transport), rest));
    let address: SocketAddr = address.parse().ok()?;
    let fits = |c: &Connection| c.remote == address && transport.is_none_or(|t| t == c.transport);
    let found: Vec<u64> = all.list().iter().filter(|c| fits(c)).map(|c| c.id).collect();
    Some(found.into_iter().filter(|id| all.close(*id)).count() > 0)
}

fn close(call: &mut Call<Core>, params: &MiParams) -> MiResult {
    let text = params.text("ipport", 0).ok_or_else(|| MiError::params("ipport is missing"))?;
    let ended = call.shared().connections().map_or(Some(false), |all| end(all, &text));
    match ended {
        Some(true) => Ok(json!("OK")),
        Some(false) => Err(MiError::new(404, "connection not found")),
        None => Err(MiError::params("neither a number nor [proto:]ip:port")),
    }
}

/// tcp_close_conn(ipport): 1 it ends, -1 there is no such connection or the text is none.
fn tcp_close_conn(call: &mut Call<Core>, ipport: Text) -> i32 {
    let text = ipport.str().into_owned();
    match call.shared().connections().and_then(|all| end(all, &text)) {
        Some(true) => 1,
        _ => -1,
    }
}
