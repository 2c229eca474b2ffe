//! event_datagram: events to other programs as datagrams, `udp:127.0.0.1:8081` or `unix:/tmp/socket`.
//! JSON-RPC notifications; 2.x configurations send lines (`NAME\nkey::value\n`).
#![expect(clippy::disallowed_methods, reason = "sends what belongs to no call, and never waits")]

use host::events::{Event, EventTransport};
use host::shared::Hooks;
use host::stats::{Counter, Stats};
use host::{Ctx, Registrar, warn};
use parking_lot::Mutex;
use script::ast::Dialect;
use serde_json::json;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest event, as in the reference.
const MAX_EVENT: usize = 65_457;
/// Log lines about events that could not be sent: at most one in this many milliseconds.
const COMPLAIN_MS: u64 = 10_000;

#[derive(Default)]
pub struct EventDatagram;

pub fn register(m: &mut Registrar<EventDatagram>) {
    m.ready(ready);
}

fn ready(_: &Arc<EventDatagram>, hooks: &mut Hooks, stats: &Stats) {
    let lost = stats.counter("event_datagram", "events_lost");
    hooks.event_transport(Arc::new(Datagrams::new(Kind::Udp, lost.clone())));
    hooks.event_transport(Arc::new(Datagrams::new(Kind::Unix, lost)));
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Udp,
    Unix,
}

struct Datagrams {
    kind: Kind,
    /// Made when the first event goes out; IPv4, IPv6.
    udp: Mutex<[Option<UdpSocket>; 2]>,
    unix: Mutex<Option<UnixDatagram>>,
    lost: Counter,
    complained_ms: AtomicU64,
}

impl Datagrams {
    fn new(kind: Kind, lost: Counter) -> Datagrams {
        Datagrams {
            kind,
            udp: Mutex::default(),
            unix: Mutex::default(),
            lost,
            complained_ms: AtomicU64::new(0),
        }
    }

    fn send_bytes(&self, address: &str, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > MAX_EVENT {
            return Err(io::Error::other("the event is too long for a datagram"));
        }
        match self.kind {
            Kind::Udp => {
                let peer: SocketAddr = address.parse().map_err(io::Error::other)?;
                let mut sockets = self.udp.lock();
                let slot = &mut sockets[usize::from(peer.is_ipv6())];
                if slot.is_none() {
                    let any: SocketAddr =
                        if peer.is_ipv6() { ([0; 8], 0).into() } else { ([0; 4], 0).into() };
                    let socket = UdpSocket::bind(any)?;
                    socket.set_nonblocking(true)?;
                    *slot = Some(socket);
                }
                slot.as_ref().map_or(Ok(0), |socket| socket.send_to(bytes, peer)).map(drop)
            }
            Kind::Unix => {
                let mut slot = self.unix.lock();
                if slot.is_none() {
                    let socket = UnixDatagram::unbound()?;
                    socket.set_nonblocking(true)?;
                    *slot = Some(socket);
                }
                slot.as_ref().map_or(Ok(0), |socket| socket.send_to(bytes, address)).map(drop)
            }
        }
    }
}

impl EventTransport for Datagrams {
    fn scheme(&self) -> &'static str {
        match self.kind {
            Kind::Udp => "udp",
            Kind::Unix => "unix",
        }
    }

    fn check(&self, address: &str) -> Result<(), String> {
        match self.kind {
            Kind::Udp if address.parse::<SocketAddr>().is_err() => {
                Err(format!("`{address}` is not an IP address with a port"))
            }
            Kind::Unix if address.is_empty() => Err("the path of the socket is missing".into()),
            _ => Ok(()),
        }
    }

    fn send(&self, ctx: &mut Ctx, address: &str, event: &Event) {
        let bytes = match ctx.shared().dialect {
            Dialect::V21 => as_lines(event),
            Dialect::V4 => as_json(event),
        };
        if let Err(e) = self.send_bytes(address, &bytes) {
            self.lost.up();
            let now = ctx.core.wall_us / 1000;
            let last = self.complained_ms.load(Ordering::Relaxed);
            if now.saturating_sub(last) >= COMPLAIN_MS {
                self.complained_ms.store(now, Ordering::Relaxed);
                warn!("event_datagram", "events to {}:{address} are lost: {e}", self.scheme());
            }
        }
    }
}

fn as_json(event: &Event) -> Vec<u8> {
    let method = String::from_utf8_lossy(&event.name);
    json!({"jsonrpc": "2.0", "method": method, "params": event.json(None)}).to_string().into_bytes()
}

fn as_lines(event: &Event) -> Vec<u8> {
    let mut out = event.name.to_vec();
    out.push(b'\n');
    for (name, value) in event.params.0.iter() {
        if !name.is_empty() {
            out.extend_from_slice(name);
            out.extend_from_slice(b"::");
        }
        let text = value.to_text();
        if text.iter().any(|b| b"'\"\r\n".contains(b)) {
            let escaped: Vec<u8> = text
                .iter()
                .flat_map(|b| match b {
                    b'"' | b'\\' => vec![b'\\', *b],
                    // A value is no further line of the event.
                    b'\r' => b"\\r".to_vec(),
                    b'\n' => b"\\n".to_vec(),
                    b => vec![*b],
                })
                .collect();
            out.push(b'"');
            out.extend_from_slice(&escaped);
            out.push(b'"');
        } else {
            out.extend_from_slice(&text);
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::Value;
    use host::events::EventParams;

    fn check(params: EventParams, lines: &str, json: &str) {
        let event = Event { name: "E_X".into(), params };
        assert_eq!(String::from_utf8_lossy(&as_lines(&event)), lines);
        assert_eq!(String::from_utf8_lossy(&as_json(&event)), json);
    }

    #[test]
    fn events_as_text() {
        let named = [("ip", Value::from("10.0.0.1")), ("n", Value::from(5))].into_iter().collect();
        check(
            named,
            "E_X\nip::10.0.0.1\nn::5\n\n",
            r#"{"jsonrpc":"2.0","method":"E_X","params":{"ip":"10.0.0.1","n":5}}"#,
        );
        let two = [("x", Value::from("a\r\nforged::1"))].into_iter().collect();
        check(
            two,
            "E_X\nx::\"a\\r\\nforged::1\"\n\n",
            r#"{"jsonrpc":"2.0","method":"E_X","params":{"x":"a\r\nforged::1"}}"#,
        );
        let plain = [("", Value::from("a \"b\""))].into_iter().collect();
        check(plain, "E_X\n\"a \\\"b\\\"\"\n\n", r#"{"jsonrpc":"2.0","method":"E_X","params":["a \"b\""]}"#);
    }
}
