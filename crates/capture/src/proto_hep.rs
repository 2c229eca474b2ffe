//! proto_hep: sends HEP packets over UDP and TCP, and takes them in (`hep_in`).

use crate::hep::{Packet, SIP, Version};
use crate::hep_in::Received;
use bytes::Bytes;
use host::context::full::Full;
use host::outage::Outage;
use host::shared::{Hooks, Shared};
use host::stats::{Counter, Stats};
use host::{Call, Registrar, Routes, Text};
use parking_lot::Mutex;
use sip::Transport;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

/// Packets on their way to the senders, and to one destination; more are dropped and counted.
const MAX_QUEUE: usize = 4096;
/// Addresses that `hep_relay` keeps; beyond them it begins anew.
const MAX_RELAYS: usize = 256;
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(500);
/// A connection that does not come up in that time fails.
const CONNECT: Duration = Duration::from_secs(5);
/// The port of a destination that names none.
const PORT: u16 = 9060;

pub struct ProtoHep {
    ids: Vec<(String, Arc<Destination>)>,
    capture_id: u16,
    max_retries: u32,
    cooldown: Duration,
    queue: mpsc::Sender<(Arc<Destination>, Bytes)>,
    receiver: Mutex<Option<mpsc::Receiver<(Arc<Destination>, Bytes)>>>,
    sent: Mutex<Option<Counter>>,
    received: Mutex<Option<Counter>>,
    broken: Mutex<Option<Counter>>,
    /// The port of sockets that name none.
    port: u16,
    /// Reports have the layout of Homer 5.
    pub homer5: bool,
    /// Where `hep_relay` sent to, by address.
    relays: Mutex<HashMap<String, Arc<Destination>>>,
    lost: Full,
}

impl Default for ProtoHep {
    fn default() -> ProtoHep {
        let (queue, receiver) = mpsc::channel(MAX_QUEUE);
        ProtoHep {
            ids: Vec::new(),
            capture_id: 1,
            max_retries: 5,
            cooldown: Duration::from_secs(3600),
            queue,
            receiver: Mutex::new(Some(receiver)),
            sent: Mutex::default(),
            received: Mutex::default(),
            broken: Mutex::default(),
            port: 5656,
            homer5: true,
            relays: Mutex::default(),
            lost: Full::default(),
        }
    }
}

/// Where packets go.
#[derive(Debug)]
pub struct Destination {
    number: usize,
    pub host: String,
    pub port: u16,
    transport: Transport,
    version: Version,
    outage: Outage,
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Destination {
    /// `host:port; transport=tcp; version=3`
    pub fn parse(text: &str) -> Result<Destination, String> {
        let mut parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let address = parts.next().ok_or("a host and a port are missing")?;
        let (mut transport, mut version) = (None, None);
        for part in parts {
            let (key, value) = part.split_once('=').map_or((part, ""), |(k, v)| (k.trim(), v.trim()));
            match (key.to_ascii_lowercase().as_str(), value.to_ascii_lowercase().as_str()) {
                ("transport", "udp") => transport = Some(Transport::Udp),
                ("transport", "tcp") => transport = Some(Transport::Tcp),
                ("transport", "tls") => return Err("HEP over TLS is not there: udp or tcp".to_string()),
                ("version", "1") => version = Some(Version::One),
                ("version", "2") => version = Some(Version::Two),
                ("version", "3") => version = Some(Version::Three),
                _ => return Err(format!("`{part}`: transport=udp or tcp, version=1 to 3")),
            }
        }
        let version = version.unwrap_or(Version::Three);
        let usual = if version == Version::Three { Transport::Tcp } else { Transport::Udp };
        let transport = transport.unwrap_or(usual);
        if version != Version::Three && transport != Transport::Udp {
            return Err("HEPv1 and HEPv2 go over UDP only".to_string());
        }
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let number = port.parse().ok().filter(|port| *port > 0);
                (host, number.ok_or_else(|| format!("`{port}` is no port"))?)
            }
            _ => (address, PORT),
        };
        let host = host.trim_matches(['[', ']']).to_string();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Destination { number, host, port, transport, version, outage: Outage::default() })
    }

    fn is_lost(&self, error: &io::Error) {
        if self.outage.begins() {
            host::warn!("proto_hep", "{} is lost: {error}", self.shown());
        }
    }

    fn shown(&self) -> String {
        format!("hep {}:{}", self.host, self.port)
    }
}

pub fn register(m: &mut Registrar<ProtoHep>) {
    m.param_text("hep_id", |m, text| {
        let (name, rest) = crate::tracer::named(text)?;
        let destination = Destination::parse(rest).map_err(|why| format!("[{name}]: {why}"))?;
        m.ids.push((name.to_string(), Arc::new(destination)));
        Ok(())
    });
    m.param_int("hep_capture_id", |m, n| {
        m.capture_id = u16::try_from(n).map_err(|_| "hep_capture_id has 16 bits")?;
        Ok(())
    });
    m.param_int("hep_max_retries", |m, n| Ok(m.max_retries = n.clamp(1, 65_535) as u32));
    m.param_int("hep_retry_cooldown", |m, n| Ok(m.cooldown = Duration::from_secs(n.clamp(0, 65_535) as u64)));
    m.param_int("homer5_on", |m, n| Ok(m.homer5 = n != 0));
    m.param_int("hep_port", |m, n| {
        m.port = u16::try_from(n).ok().filter(|n| *n > 0).ok_or("hep_port is a port")?;
        Ok(())
    });
    m.ignored(&["homer5_delim"], "reports of other protocols are not sent");
    m.ignored(&["hep_max_msg_chunks"], "however a packet is cut, nobody waits for it");
    m.ignored(
        &[
            "hep_send_timeout",
            "hep_async",
            "hep_async_local_connect_timeout",
            "hep_async_local_write_timeout",
        ],
        "sending never blocks",
    );
    m.ignored(&["hep_async_max_postponed_chunks"], "4096 packets wait for a destination");
    m.function(
        "correlate",
        Routes::REQUEST.and(Routes::FAILURE).and(Routes::ON_REPLY).and(Routes::BRANCH).and(Routes::LOCAL),
        correlate,
    );
    m.ready(ready);
}

fn ready(module: &Arc<ProtoHep>, hooks: &mut Hooks, stats: &Stats) {
    *module.sent.lock() = Some(stats.counter("proto_hep", "hep_sent"));
    *module.received.lock() = Some(stats.counter("proto_hep", "hep_received"));
    *module.broken.lock() = Some(stats.counter("proto_hep", "hep_refused"));
    module.lost.show(stats, "proto_hep", "hep_lost");
    let listening = module.clone();
    hooks.services.push(Arc::new(move |shared: Arc<Shared>| {
        Box::pin(crate::hep_in::listen(listening.clone(), shared, listening.port))
    }));
    let module = module.clone();
    hooks.services.push(Arc::new(move |_: Arc<Shared>| Box::pin(serve(module.clone()))));
}

/// correlate(hep id, type, correlation, type, correlation): a packet that ties two correlations together.
fn correlate(call: &mut Call<ProtoHep>, id: Text, type1: Text, id1: Text, type2: Text, id2: Text) -> bool {
    let module = call.module.clone();
    let name = id.str().into_owned();
    let Some(destination) = module.destination(&name) else {
        host::error!("proto_hep", "correlate: there is no hep_id `{name}`");
        return false;
    };
    if type1.0 == type2.0 {
        host::error!("proto_hep", "correlate: both types are `{}`", type1.str());
        return false;
    }
    let both = serde_json::json!({ type1.str(): id1.str(), type2.str(): id2.str() });
    let (path, at_us) = (call.state.source, call.core.wall_us);
    let to = crate::tracer::own_address(call.ctx, &path);
    let packet = Packet {
        from: path.remote,
        to,
        transport: path.transport,
        at_us,
        kind: SIP,
        correlation: call.state.msg.call_id().unwrap_or_default(),
        extra: both.to_string().into(),
        payload: call.state.msg.buf().clone(),
    };
    module.send(&destination, &packet)
}

impl ProtoHep {
    /// One that only sends, for whoever has destinations of its own.
    pub fn sender(capture_id: u16) -> ProtoHep {
        ProtoHep { capture_id, ..ProtoHep::default() }
    }

    pub fn destination(&self, name: &str) -> Option<Arc<Destination>> {
        self.ids.iter().find(|(known, _)| known == name).map(|(_, destination)| destination.clone())
    }

    /// A packet came in; false: it was none, or nobody had room for it.
    pub fn count(&self, good: bool) {
        let counter = if good { &self.received } else { &self.broken };
        if let Some(counter) = &*counter.lock() {
            counter.up();
        }
    }

    /// Sends a packet that came in on to a SIP URI, in its own version; older ones by UDP.
    pub fn relay(&self, uri: &[u8], packet: &Received) -> bool {
        let Some(to) = self.relay_to(uri, packet.version) else {
            host::error!("proto_hep", "cannot send HEP to {}", String::from_utf8_lossy(uri));
            return false;
        };
        let queued = self.queue.try_send((to, packet.encode())).is_ok();
        if !queued {
            self.note_lost();
        }
        queued
    }

    fn relay_to(&self, uri: &[u8], version: Version) -> Option<Arc<Destination>> {
        let uri = sip::Uri::parse(&Bytes::copy_from_slice(uri)).ok()?;
        let host = String::from_utf8_lossy(&uri.host).into_owned();
        let by_tcp = uri.transport() == Some(Transport::Tcp) && version == Version::Three;
        let transport = if by_tcp { "tcp" } else { "udp" };
        let port = if uri.port == 0 { self.port } else { uri.port };
        let text = format!("{host}:{port}; transport={transport}; version={}", version as u8);
        let mut relays = self.relays.lock();
        if let Some(known) = relays.get(&text) {
            return Some(known.clone());
        }
        if relays.len() >= MAX_RELAYS {
            relays.clear();
        }
        let to = Arc::new(Destination::parse(&text).ok()?);
        relays.insert(text, to.clone());
        Some(to)
    }

    fn note_lost(&self) {
        if self.lost.refused() {
            host::warn!("proto_hep", "{MAX_QUEUE} HEP packets wait for a destination: more are lost");
        }
    }

    /// Queues a packet; false when there is no room.
    pub fn send(&self, to: &Arc<Destination>, packet: &Packet) -> bool {
        let Some(bytes) = packet.encode(to.version, self.capture_id) else { return false };
        let queued = self.queue.try_send((to.clone(), bytes)).is_ok();
        if !queued {
            self.note_lost();
        }
        queued
    }
}

/// Hands packets to the sender of their destination.
pub async fn serve(module: Arc<ProtoHep>) {
    let Some(mut receiver) = module.receiver.lock().take() else { return };
    let mut senders: HashMap<usize, mpsc::Sender<Bytes>> = HashMap::new();
    while let Some((to, bytes)) = receiver.recv().await {
        let sender = senders.entry(to.number).or_insert_with(|| {
            let (sender, packets) = mpsc::channel(MAX_QUEUE);
            tokio::spawn(deliver(module.clone(), to.clone(), packets));
            sender
        });
        if sender.try_send(bytes).is_err() {
            module.note_lost();
        }
    }
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

#[expect(clippy::disallowed_methods, reason = "a socket to a capture server is no part of any call")]
async fn connect(to: &Destination) -> io::Result<Link> {
    let found = tokio::net::lookup_host((to.host.as_str(), to.port)).await?.next();
    let addr = found.ok_or_else(|| io::Error::other("its name has no address"))?;
    if to.transport == Transport::Udp {
        let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(addr).await?;
        return Ok(Link::Udp(socket));
    }
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(addr)).await;
    let stream = stream.map_err(|_| io::Error::other("no connection in time"))??;
    stream.set_nodelay(true)?;
    Ok(Link::Tcp(stream))
}

/// Sends the packets of one destination, in order.
async fn deliver(module: Arc<ProtoHep>, to: Arc<Destination>, mut packets: mpsc::Receiver<Bytes>) {
    let mut link: Option<Link> = None;
    let mut failures = 0;
    let sent = module.sent.lock().clone();
    while let Some(bytes) = packets.recv().await {
        // A connection that was closed meanwhile shows when it is written to: once more on a new one.
        for _ in 0..2 {
            let open = match link.take() {
                Some(open) => Ok(open),
                None => connect(&to).await,
            };
            let done = match open {
                Err(e) => Err(e),
                Ok(Link::Udp(socket)) => {
                    // Nobody listens there, says an ICMP of an earlier packet: this one was not sent.
                    let result = socket.send(&bytes).await.map(drop);
                    link = Some(Link::Udp(socket));
                    result
                }
                Ok(Link::Tcp(mut stream)) => match closed(&stream) {
                    true => Err(io::Error::other("the connection was closed")),
                    false => {
                        let result = stream.write_all(&bytes).await;
                        if result.is_ok() {
                            link = Some(Link::Tcp(stream));
                        }
                        result
                    }
                },
            };
            match done {
                Ok(()) => {
                    failures = 0;
                    module.lost.taken();
                    if to.outage.ends() {
                        host::notice!("proto_hep", "{} is back", to.shown());
                    }
                    if let Some(sent) = &sent {
                        sent.up();
                    }
                    break;
                }
                Err(e) if to.transport == Transport::Udp => to.is_lost(&e),
                Err(e) => {
                    to.is_lost(&e);
                    failures += 1;
                    let pause = if failures >= module.max_retries { module.cooldown } else { RETRY };
                    if failures >= module.max_retries {
                        failures = 0;
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// The other side has ended the connection.
fn closed(stream: &TcpStream) -> bool {
    let mut byte = [0; 1];
    match stream.try_read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => e.kind() != io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let read = |text: &str| {
            Destination::parse(text).map(|d| (d.host, d.port, d.transport, d.version)).map_err(drop)
        };
        let one = |host: &str, port, transport, version| Ok((host.to_string(), port, transport, version));
        assert_eq!(read(" 10.0.0.1:8001"), one("10.0.0.1", 8001, Transport::Tcp, Version::Three));
        assert_eq!(read("h; version=2"), one("h", 9060, Transport::Udp, Version::Two));
        assert_eq!(read("[::1]:5; transport=UDP; version=3"), one("::1", 5, Transport::Udp, Version::Three));
        for wrong in ["", "h:0", "h;transport=tls", "h;version=4", "h;version=1;transport=tcp", "h;x"] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }
}
