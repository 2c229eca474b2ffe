//! stun: tells clients behind NAT the address that they are seen with, at the ports of SIP (RFC 3489, RFC 5389).
//!
//! Four sockets answer, two addresses with two ports each, so that a client can ask from where else it can be reached:
//!
//! ```text
//!            port 1 (primary)   port 2 (alternate)
//! address 1        0 (SIP)             1
//! address 2        2                   3          the other address: ^ 2, the other port: ^ 1
//! ```
#![expect(clippy::disallowed_methods, reason = "sends answers that belong to no call, and never waits")]

mod message;

use bytes::Bytes;
use host::registrar::ParamFn;
use host::shared::{Hooks, Shared};
use host::stats::{Counter, Stats};
use host::watch::{OnWire, Wire};
use host::{Ctx, Registrar};
use message::Facts;
use script::ast::ParamValue;
use sip::Transport;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};

/// An address or a port, and what of it clients are told.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told<T> {
    own: T,
    advertised: T,
}

impl<T: std::str::FromStr + Copy> Told<T> {
    /// `own [/ advertised]`
    fn parse(text: &str) -> Result<Told<T>, String> {
        let (own, advertised) = text.split_once('/').unwrap_or((text, text));
        let read = |text: &str| text.trim().parse().map_err(|_| format!("`{}` cannot be read", text.trim()));
        Ok(Told { own: read(own)?, advertised: read(advertised)? })
    }

    fn of_param(value: &ParamValue) -> Result<Told<T>, String> {
        match value {
            ParamValue::Int(n) => Told::parse(&n.to_string()),
            ParamValue::Text(text) => Told::parse(&String::from_utf8_lossy(text)),
        }
    }
}

pub struct Stun {
    primary_ip: Option<Told<IpAddr>>,
    primary_port: Told<u16>,
    alternate_ip: Option<Told<IpAddr>>,
    alternate_port: Told<u16>,
    /// Each UDP socket of SIP is the first of a set of four.
    all_listeners: bool,
    /// Once the sockets beside those of SIP are open.
    sets: OnceLock<Vec<Set>>,
    answered: OnceLock<Counter>,
}

impl Default for Stun {
    fn default() -> Stun {
        Stun {
            primary_ip: None,
            primary_port: Told { own: 5060, advertised: 5060 },
            alternate_ip: None,
            alternate_port: Told { own: 3478, advertised: 3478 },
            all_listeners: false,
            sets: OnceLock::new(),
            answered: OnceLock::new(),
        }
    }
}

/// Where an answer leaves.
#[derive(Clone)]
enum Way {
    /// A socket of SIP, by its place in the list.
    Sip(u16),
    Own(Arc<UdpSocket>),
}

/// The four sockets that answer together, and what they are called.
struct Set {
    ways: [Way; 4],
    names: [SocketAddr; 4],
}

pub fn register(m: &mut Registrar<Stun>) {
    m.param("primary_ip", ParamFn::Any(|s, v| Ok(s.primary_ip = Some(Told::of_param(v)?))));
    m.param("primary_port", ParamFn::Any(|s, v| Ok(s.primary_port = Told::of_param(v)?)));
    m.param("alternate_ip", ParamFn::Any(|s, v| Ok(s.alternate_ip = Some(Told::of_param(v)?))));
    m.param("alternate_port", ParamFn::Any(|s, v| Ok(s.alternate_port = Told::of_param(v)?)));
    m.param_int("use_listeners_as_primary", |s, n| Ok(s.all_listeners = n != 0));
    m.init(|s, _| match (s.primary_ip, s.alternate_ip) {
        (_, None) => Err("alternate_ip is not set".into()),
        (None, _) if !s.all_listeners => Err("primary_ip is not set".into()),
        (Some(primary), Some(alternate)) if primary.own == alternate.own && !s.all_listeners => {
            Err("alternate_ip is the primary one".into())
        }
        _ => Ok(()),
    });
    m.ready(ready);
}

fn ready(module: &Arc<Stun>, hooks: &mut Hooks, stats: &Stats) {
    let _ = module.answered.set(stats.counter("stun", "answered_requests"));
    let tapping = module.clone();
    hooks.watch.tap(Wire::Received, move |ctx, passing| at_sip_socket(&tapping, ctx, passing));
    let module = module.clone();
    hooks.services.push(Arc::new(move |shared| Box::pin(serve(module.clone(), shared))));
}

/// A datagram at a socket of SIP.
fn at_sip_socket(module: &Stun, ctx: &mut Ctx, passing: &mut OnWire) {
    if !message::is_stun(&passing.bytes) || passing.path.transport != Transport::Udp {
        return;
    }
    let (socket, remote) = (passing.path.socket, passing.path.remote);
    let is_it = |way: &Way| matches!(way, Way::Sip(at) if *at == socket);
    let sets = module.sets.get().map_or(&[][..], Vec::as_slice);
    let found = sets.iter().find_map(|set| Some((set, set.ways.iter().position(is_it)?)));
    let Some((set, at)) = found else { return };
    if let Some((way, answer)) = answer(set, at, remote, &passing.bytes) {
        module.count();
        match way {
            Way::Sip(socket) => {
                let path = transaction::Path { socket: *socket, ..passing.path };
                ctx.transmit(path, answer.into());
            }
            // A client asks again.
            Way::Own(socket) => drop(socket.send_to(&answer, remote)),
        }
    }
    // Nothing is left for SIP.
    passing.bytes = Bytes::from_static(b"\r\n");
}

fn answer<'a>(set: &'a Set, at: usize, remote: SocketAddr, bytes: &[u8]) -> Option<(&'a Way, Vec<u8>)> {
    let request = message::parse(bytes)?;
    let (ip, port) = request.change;
    let from = at ^ usize::from(ip) << 1 ^ usize::from(port);
    let facts = Facts { mapped: remote, source: set.names[from], changed: set.names[at ^ 3] };
    Some((&set.ways[from], message::response(&request, &facts)))
}

impl Stun {
    fn count(&self) {
        if let Some(answered) = self.answered.get() {
            answered.up();
        }
    }

    /// The sets that the UDP sockets of SIP make.
    fn open(&self, shared: &Shared) -> Result<Vec<Set>, String> {
        let listens =
            shared.sockets.iter().enumerate().filter(|(_, listen)| listen.transport == Transport::Udp);
        let alternate = self.alternate_ip.ok_or("alternate_ip is not set")?;
        let mut own: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
        let mut sets = Vec::new();
        for (at, listen) in listens.clone() {
            let first = listen.addr;
            let (ip, port) = match self.all_listeners {
                true => (
                    Told { own: first.ip(), advertised: first.ip() },
                    Told { own: first.port(), advertised: first.port() },
                ),
                false => (self.primary_ip.ok_or("primary_ip is not set")?, self.primary_port),
            };
            let is_primary = first == SocketAddr::new(ip.own, port.own);
            let is_alternate = first.ip() == alternate.own || first.port() == self.alternate_port.own;
            if !is_primary
                || (self.all_listeners && (is_alternate || first.is_ipv4() != alternate.own.is_ipv4()))
            {
                continue;
            }
            let places =
                [(ip, port), (ip, self.alternate_port), (alternate, port), (alternate, self.alternate_port)];
            let names = places.map(|(ip, port)| SocketAddr::new(ip.advertised, port.advertised));
            let mut ways = Vec::new();
            for (ip, port) in places {
                let place = SocketAddr::new(ip.own, port.own);
                let sip = listens.clone().find(|(_, listen)| listen.addr == place);
                let opened = own.iter().find(|(known, _)| *known == place);
                ways.push(match (sip, opened) {
                    (Some((at, _)), _) => Way::Sip(at as u16),
                    (None, Some((_, socket))) => Way::Own(socket.clone()),
                    (None, None) => {
                        let socket = UdpSocket::bind(place).map_err(|error| format!("{place}: {error}"))?;
                        socket.set_nonblocking(true).map_err(|error| format!("{place}: {error}"))?;
                        let socket = Arc::new(socket);
                        own.push((place, socket.clone()));
                        Way::Own(socket)
                    }
                });
            }
            debug_assert!(matches!(ways[0], Way::Sip(first) if usize::from(first) == at));
            let ways: [Way; 4] = ways.try_into().map_err(|_| "four sockets make a set".to_owned())?;
            sets.push(Set { ways, names });
        }
        if sets.is_empty() {
            return Err("no UDP socket of SIP has the primary address and port".into());
        }
        Ok(sets)
    }
}

/// Opens the sockets beside those of SIP, and answers there.
async fn serve(module: Arc<Stun>, shared: Arc<Shared>) {
    let sets = match module.open(&shared) {
        Ok(sets) => sets,
        Err(why) => return host::error!("stun", "STUN requests are not answered: {why}"),
    };
    let sets = module.sets.get_or_init(|| sets);
    for (number, set) in sets.iter().enumerate() {
        for (at, way) in set.ways.iter().enumerate() {
            let Way::Own(socket) = way else { continue };
            // One socket may be in several sets: the first of them answers.
            let earlier = sets[..number].iter().flat_map(|set| &set.ways);
            if earlier.into_iter().any(|other| matches!(other, Way::Own(known) if Arc::ptr_eq(known, socket)))
            {
                continue;
            }
            let socket = socket.try_clone().and_then(tokio::net::UdpSocket::from_std);
            match socket {
                Ok(socket) => {
                    drop(tokio::spawn(at_own_socket(module.clone(), shared.clone(), (number, at), socket)))
                }
                Err(error) => host::error!("stun", "a socket cannot be read: {error}"),
            }
        }
    }
}

async fn at_own_socket(
    module: Arc<Stun>,
    shared: Arc<Shared>,
    (number, at): (usize, usize),
    socket: tokio::net::UdpSocket,
) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, remote)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(set) = module.sets.get().and_then(|sets| sets.get(number)) else { return };
        let bytes = &buffer[..length];
        let Some((way, answer)) =
            Some(bytes).filter(|b| message::is_stun(b)).and_then(|b| answer(set, at, remote, b))
        else {
            continue;
        };
        module.count();
        match way {
            // A client asks again.
            Way::Own(socket) => drop(socket.send_to(&answer, remote)),
            Way::Sip(socket) => {
                let path = transaction::Path {
                    socket: *socket,
                    transport: Transport::Udp,
                    remote,
                    local: 0,
                    connection: 0,
                };
                let job = Box::new(move |ctx: &mut Ctx| ctx.transmit(path, answer.into()));
                shared.dispatch.get().map(|dispatch| dispatch.run_on(0, job));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{refused, run};
    use script::ast::Dialect;

    #[test]
    fn parameters() {
        assert_eq!(Told::parse("5060 / 5062"), Ok(Told { own: 5060u16, advertised: 5062 }));
        assert_eq!(
            Told::parse(" 10.0.0.1 "),
            Ok(Told::<IpAddr> { own: [10, 0, 0, 1].into(), advertised: [10, 0, 0, 1].into() })
        );
        assert!(Told::<u16>::parse("x").is_err());
        let load = |params: &[(&str, &str)]| {
            let lines =
                params.iter().map(|(name, value)| format!("modparam(\"stun\", \"{name}\", {value})\n"));
            format!("loadmodule \"stun.so\"\n{}", lines.collect::<String>())
        };
        run(
            &load(&[
                ("primary_ip", "\"10.0.0.1\""),
                ("primary_port", "\"5060\""),
                ("alternate_ip", "\"10.0.0.2\""),
                ("alternate_port", "3479"),
            ]),
            "exit;",
            Dialect::V4,
        );
        run(
            &load(&[("use_listeners_as_primary", "1"), ("alternate_ip", "\"10.0.0.2 / 1.2.3.4\"")]),
            "exit;",
            Dialect::V4,
        );
        for (params, why) in [
            (&[("primary_ip", "\"10.0.0.1\"")][..], "alternate_ip is not set"),
            (&[("alternate_ip", "\"10.0.0.1\"")][..], "primary_ip is not set"),
            (&[("primary_ip", "\"10.0.0.1\""), ("alternate_ip", "\"10.0.0.1\"")][..], "is the primary one"),
            (&[("primary_ip", "\"host\"")][..], "cannot be read"),
        ] {
            assert!(refused(&load(params), "exit;", Dialect::V4).contains(why), "{why}");
        }
    }

    #[test]
    fn answers_come_from_where_they_are_asked_from() {
        let names: [SocketAddr; 4] = ["192.0.2.1:5060", "192.0.2.1:3478", "192.0.2.2:5060", "192.0.2.2:3478"]
            .map(|name| name.parse().unwrap());
        let set = Set { ways: [0, 1, 2, 3].map(Way::Sip), names };
        let remote = "192.0.2.9:1000".parse().unwrap();
        for (change, from) in [(0, 0), (2, 1), (4, 2), (6, 3)] {
            let mut request = b"\0\x01\0\x080123456789abcdef\0\x03\0\x04\0\0\0".to_vec();
            request.push(change);
            let (way, answer) = answer(&set, 0, remote, &request).unwrap();
            assert!(matches!(way, Way::Sip(at) if *at == from), "{change}");
            // SOURCE-ADDRESS, CHANGED-ADDRESS
            assert_eq!(answer[38..40], names[usize::from(from)].port().to_be_bytes());
            assert_eq!(answer[50..52], names[3].port().to_be_bytes());
        }
    }
}
