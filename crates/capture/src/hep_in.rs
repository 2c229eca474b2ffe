//! HEP packets that come in: read (versions 1 to 3), listened for over UDP and TCP, handed to the module that asked for
//! them, on the worker of the call that they are about.

use crate::hep::Version;
use crate::proto_hep::ProtoHep;
use bytes::{Bytes, BytesMut};
use host::Ctx;
use host::shared::Shared;
use sip::{Message, Transport};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Connections that are read from at one time; further ones are closed.
const MAX_CONNECTIONS: usize = 1000;
/// Bytes of a packet: its length has 16 bits.
const MAX_PACKET: usize = 65_535;
/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(3600);
/// Addresses of version 1 and 2, and of chunks.
const INET: u8 = 2;

/// One chunk of a packet of version 3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    pub vendor: u16,
    pub kind: u16,
    pub data: Bytes,
}

/// A packet that came in.
#[derive(Clone, Debug)]
pub struct Received {
    pub version: Version,
    /// Of version 3, as they came and as the script changes them; those of older versions are made from their fields.
    pub chunks: Vec<Chunk>,
    /// Who sent it, the address it came to, and by what.
    pub peer: SocketAddr,
    pub own: SocketAddr,
    pub transport: Transport,
    /// As it came.
    pub bytes: Bytes,
}

/// Chunks with a meaning of their own (vendor 0).
pub mod kind {
    pub const FAMILY: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const SOURCE_4: u16 = 3;
    pub const TARGET_4: u16 = 4;
    pub const SOURCE_6: u16 = 5;
    pub const TARGET_6: u16 = 6;
    pub const SOURCE_PORT: u16 = 7;
    pub const TARGET_PORT: u16 = 8;
    pub const SECONDS: u16 = 9;
    pub const MICROSECONDS: u16 = 10;
    pub const PAYLOAD_KIND: u16 = 11;
    pub const AGENT: u16 = 12;
    pub const PAYLOAD: u16 = 15;
    pub const PAYLOAD_PACKED: u16 = 16;
    pub const CORRELATION: u16 = 17;
    pub const EXTRA_CORRELATION: u16 = 101;
}

impl Received {
    /// Reads a packet. `None`: it is none.
    pub fn read(bytes: Bytes, peer: SocketAddr, own: SocketAddr, transport: Transport) -> Option<Received> {
        let (version, chunks) = match bytes.first()? {
            b'H' => (Version::Three, chunks(&bytes)?),
            1 => (Version::One, fields(&bytes, Version::One)?),
            2 => (Version::Two, fields(&bytes, Version::Two)?),
            _ => return None,
        };
        Some(Received { version, chunks, peer, own, transport, bytes })
    }

    /// The data of a chunk of vendor 0.
    pub fn chunk(&self, kind: u16) -> Option<&Bytes> {
        self.find(0, kind)
    }

    pub fn find(&self, vendor: u16, kind: u16) -> Option<&Bytes> {
        self.chunks.iter().find(|c| c.vendor == vendor && c.kind == kind).map(|c| &c.data)
    }

    /// Sets a chunk, or adds it before the payload.
    pub fn set(&mut self, vendor: u16, kind: u16, data: Bytes) {
        if let Some(chunk) = self.chunks.iter_mut().find(|c| c.vendor == vendor && c.kind == kind) {
            chunk.data = data;
            return;
        }
        let payload = self
            .chunks
            .iter()
            .position(|c| c.vendor == 0 && matches!(c.kind, kind::PAYLOAD | kind::PAYLOAD_PACKED));
        self.chunks.insert(payload.unwrap_or(self.chunks.len()), Chunk { vendor, kind, data });
    }

    /// False: there is none.
    pub fn remove(&mut self, kind: u16) -> bool {
        let before = self.chunks.len();
        self.chunks.retain(|c| c.kind != kind);
        self.chunks.len() < before
    }

    /// A number in network order, of at most four bytes; 0 when there is none.
    pub fn number(&self, kind: u16) -> u32 {
        self.chunk(kind)
            .filter(|data| data.len() <= 4)
            .map_or(0, |data| data.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    }

    fn address(&self, four: u16, six: u16) -> Option<IpAddr> {
        let found = |kind: u16| self.chunk(kind);
        let of_four = || <[u8; 4]>::try_from(&found(four)?[..]).ok().map(IpAddr::from);
        let of_six = || <[u8; 16]>::try_from(&found(six)?[..]).ok().map(IpAddr::from);
        of_four().or_else(of_six)
    }

    pub fn source(&self) -> Option<SocketAddr> {
        let ip = self.address(kind::SOURCE_4, kind::SOURCE_6)?;
        Some(SocketAddr::new(ip, self.number(kind::SOURCE_PORT) as u16))
    }

    pub fn target(&self) -> Option<SocketAddr> {
        let ip = self.address(kind::TARGET_4, kind::TARGET_6)?;
        Some(SocketAddr::new(ip, self.number(kind::TARGET_PORT) as u16))
    }

    /// When it was caught, microseconds since 1970; version 1 does not say.
    pub fn at_us(&self) -> Option<u64> {
        self.chunk(kind::SECONDS)?;
        Some(u64::from(self.number(kind::SECONDS)) * 1_000_000 + u64::from(self.number(kind::MICROSECONDS)))
    }

    pub fn payload(&self) -> Bytes {
        self.chunk(kind::PAYLOAD).cloned().unwrap_or_default()
    }

    /// The packet as it is now. Versions 1 and 2 go on as they came.
    pub fn encode(&self) -> Bytes {
        if self.version != Version::Three {
            return self.bytes.clone();
        }
        let mut out = BytesMut::with_capacity(self.bytes.len() + 64);
        out.extend_from_slice(b"HEP3\0\0");
        for Chunk { vendor, kind, data } in &self.chunks {
            let length = (data.len() + 6).min(MAX_PACKET);
            out.extend_from_slice(&vendor.to_be_bytes());
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&(length as u16).to_be_bytes());
            out.extend_from_slice(&data[..length - 6]);
        }
        let length = out.len().min(MAX_PACKET) as u16;
        out[4..6].copy_from_slice(&length.to_be_bytes());
        out.freeze()
    }
}

fn chunks(bytes: &Bytes) -> Option<Vec<Chunk>> {
    let number = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = usize::from(number(4)?);
    if !bytes.starts_with(b"HEP3") || length > bytes.len() || length < 6 {
        return None;
    }
    let (mut at, mut out) = (6, Vec::new());
    while at + 6 <= length {
        let (vendor, kind, size) = (number(at)?, number(at + 2)?, usize::from(number(at + 4)?));
        if size < 6 || at + size > length {
            return None;
        }
        out.push(Chunk { vendor, kind, data: bytes.slice(at + 6..at + size) });
        at += size;
    }
    (at == length).then_some(out)
}

/// Version 1 and 2: fixed fields, then the payload, which is SIP.
fn fields(bytes: &Bytes, version: Version) -> Option<Vec<Chunk>> {
    let (length, family, protocol) = (usize::from(*bytes.get(1)?), *bytes.get(2)?, *bytes.get(3)?);
    let size = if family == INET { 4 } else { 16 };
    let addresses = 8 + 2 * size;
    if bytes.len() < addresses || length < addresses {
        return None;
    }
    let (four, six) = ((kind::SOURCE_4, kind::TARGET_4), (kind::SOURCE_6, kind::TARGET_6));
    let (source, target) = if family == INET { four } else { six };
    let own = |kind: u16, data: Bytes| Chunk { vendor: 0, kind, data };
    let mut out = vec![
        own(kind::FAMILY, vec![family].into()),
        own(kind::PROTOCOL, vec![protocol].into()),
        own(source, bytes.slice(8..8 + size)),
        own(target, bytes.slice(8 + size..addresses)),
        own(kind::SOURCE_PORT, bytes.slice(4..6)),
        own(kind::TARGET_PORT, bytes.slice(6..8)),
    ];
    let mut at = addresses;
    if version == Version::Two {
        // In the sender's byte order, which is that of nearly every machine.
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let agent = u16::from_le_bytes(bytes.get(at + 8..at + 10)?.try_into().ok()?);
        out.push(own(kind::SECONDS, word(at)?.to_be_bytes().to_vec().into()));
        out.push(own(kind::MICROSECONDS, word(at + 4)?.to_be_bytes().to_vec().into()));
        out.push(own(kind::AGENT, u32::from(agent).to_be_bytes().to_vec().into()));
        at += 12;
    }
    out.push(own(kind::PAYLOAD_KIND, vec![crate::hep::SIP].into()));
    out.push(own(kind::PAYLOAD, bytes.slice(at.min(bytes.len())..)));
    Some(out)
}

/// Takes packets in, on a worker; `Hooks::list::<Taker>()`.
#[derive(Clone)]
pub struct Taker(pub Arc<dyn Fn(&mut Ctx, Received) + Send + Sync>);

/// Listens on every HEP socket of the script, until the server ends.
pub async fn listen(module: Arc<ProtoHep>, shared: Arc<Shared>, port: u16) {
    for (protocol, mut addr) in shared.globals.other_sockets.clone() {
        if addr.port() == 0 {
            addr.set_port(port);
        }
        let (module, shared) = (module.clone(), shared.clone());
        match protocol.as_str() {
            "hep_udp" => drop(tokio::spawn(async move {
                if let Err(e) = datagrams(&module, &shared, addr).await {
                    host::error!("proto_hep", "cannot listen on hep_udp:{addr}: {e}");
                }
            })),
            "hep_tcp" => drop(tokio::spawn(async move {
                if let Err(e) = connections(&module, &shared, addr).await {
                    host::error!("proto_hep", "cannot listen on hep_tcp:{addr}: {e}");
                }
            })),
            _ => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a socket of a capture server is no part of any call")]
async fn datagrams(module: &ProtoHep, shared: &Arc<Shared>, addr: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(addr).await?;
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(came) => came,
            // An ICMP error of something sent before says nothing of the socket.
            Err(_) => continue,
        };
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        take(module, shared, Received::read(bytes, peer, addr, Transport::Udp));
    }
}

async fn connections(module: &Arc<ProtoHep>, shared: &Arc<Shared>, addr: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let open = Arc::new(());
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if Arc::strong_count(&open) > MAX_CONNECTIONS {
            host::warn!("proto_hep", "{MAX_CONNECTIONS} HEP connections are open: {peer} is closed");
            continue;
        }
        let (module, shared, held) = (module.clone(), shared.clone(), open.clone());
        tokio::spawn(async move {
            let _held = held;
            if let Err(e) = packets(&module, &shared, stream, peer, addr).await {
                host::info!("proto_hep", "the HEP connection of {peer} is closed: {e}");
            }
        });
    }
}

/// Reads packets of version 3 until the connection ends.
async fn packets(
    module: &ProtoHep,
    shared: &Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    own: SocketAddr,
) -> io::Result<()> {
    let mut data = BytesMut::new();
    loop {
        while data.len() >= 6 {
            if !data.starts_with(b"HEP3") {
                return Err(io::Error::other("it sent no HEP3"));
            }
            let length = usize::from(u16::from_be_bytes([data[4], data[5]]));
            if length < 6 {
                return Err(io::Error::other("it sent a packet without a length"));
            }
            if data.len() < length {
                break;
            }
            let bytes = data.split_to(length).freeze();
            take(module, shared, Received::read(bytes, peer, own, Transport::Tcp));
        }
        let read = tokio::time::timeout(IDLE, stream.read_buf(&mut data)).await;
        if read.map_err(|_| io::Error::other("it said nothing for an hour"))?? == 0 {
            return Ok(());
        }
    }
}

/// Hands a packet to the worker of its call.
fn take(module: &ProtoHep, shared: &Arc<Shared>, packet: Option<Received>) {
    module.count(packet.is_some());
    let Some(packet) = packet else { return };
    let Some(dispatch) = shared.dispatch.get() else { return };
    let payload = packet.payload();
    let workers = dispatch.workers();
    let worker = Message::owner(&payload).map_or(0, |id| host::owner::of_call(shared, id, workers));
    let job = move |ctx: &mut Ctx| {
        for Taker(taker) in ctx.shared().clone().hooks.listed::<Taker>() {
            taker(ctx, packet.clone());
        }
    };
    if !dispatch.run_on(worker, Box::new(job)) {
        module.count(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hep::tests::packet;

    fn read(bytes: Bytes) -> Option<Received> {
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        Received::read(bytes, addr, addr, Transport::Udp)
    }

    #[test]
    fn what_is_sent_is_read() {
        let ends = [("10.0.0.1:5060", "10.0.0.2:5070"), ("[2001:db8::1]:5060", "[2001:db8::2]:5070")];
        for (from, to) in ends {
            for version in [Version::One, Version::Two, Version::Three] {
                let bytes = packet(from, to).encode(version, 7).unwrap();
                let got = read(bytes.clone()).unwrap();
                assert_eq!(got.source().map(|a| a.to_string()).as_deref(), Some(from));
                assert_eq!(got.target().map(|a| a.to_string()).as_deref(), Some(to));
                assert_eq!((&got.payload()[..], got.number(kind::PROTOCOL)), (&b"OPTIONS"[..], 17));
                let at = (version != Version::One).then_some(1_700_000_000_000_123);
                assert_eq!(got.at_us(), at, "{version:?}");
                assert_eq!(got.encode(), bytes);
            }
        }
    }

    #[test]
    fn chunks_are_set_and_removed() {
        let mut got = read(packet("10.0.0.1:1", "10.0.0.2:2").encode(Version::Three, 7).unwrap()).unwrap();
        got.set(0, kind::AGENT, vec![0, 0, 0, 9].into());
        got.set(3, 31, "own".into());
        assert!(got.remove(kind::CORRELATION) && !got.remove(kind::CORRELATION));
        let again = read(got.encode()).unwrap();
        assert_eq!((again.number(kind::AGENT), again.find(3, 31).map(|d| &d[..])), (9, Some(&b"own"[..])));
        assert_eq!(again.chunks.last().map(|c| c.kind), Some(kind::PAYLOAD));
    }

    #[test]
    fn what_is_broken_is_refused() {
        let whole = packet("10.0.0.1:1", "10.0.0.2:2").encode(Version::Three, 7).unwrap();
        for cut in 0..whole.len() {
            assert!(read(whole.slice(..cut)).is_none(), "{cut}");
        }
        let mut wrong = whole.to_vec();
        wrong[10..12].copy_from_slice(&3u16.to_be_bytes());
        assert!(read(wrong.into()).is_none());
        let old = packet("10.0.0.1:1", "10.0.0.2:2").encode(Version::Two, 7).unwrap();
        assert!(read(old.slice(..20)).is_none() && read("GET / HTTP/1.0".into()).is_none());
    }
}
