//! HEP, the Homer encapsulation protocol: messages with the addresses they went between (HEP3 rev. 12; HEPv1 and v2 as
//! OpenSIPS `hep.c` sends them).

use bytes::Bytes;
use sip::Transport;
use std::net::{IpAddr, SocketAddr};

/// The payload is a SIP message.
pub const SIP: u8 = 1;
/// Chunk of further correlations, a JSON object (OpenSIPS `correlate`).
const EXTRA_CORRELATION: u16 = 101;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    One = 1,
    Two = 2,
    Three = 3,
}

/// What is told of one message.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub transport: Transport,
    /// Microseconds since 1970 (UTC).
    pub at_us: u64,
    /// Of the payload, as HEP numbers protocols.
    pub kind: u8,
    /// What ties it to other packets: the Call-ID.
    pub correlation: Bytes,
    /// JSON; empty: none.
    pub extra: Bytes,
    pub payload: Bytes,
}

/// The number of the protocol in IP; what runs over TCP is TCP.
fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 17,
        Transport::Sctp => 132,
        _ => 6,
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

impl Packet {
    /// The bytes of a packet. `None`: HEPv1 and v2 hold addresses of one family.
    pub fn encode(&self, version: Version, capture_id: u16) -> Option<Bytes> {
        match version {
            Version::Three => Some(self.chunks(capture_id)),
            version => self.fixed(version, capture_id),
        }
    }

    fn chunks(&self, capture_id: u16) -> Bytes {
        let mut out = Vec::with_capacity(160 + self.payload.len());
        out.extend_from_slice(b"HEP3\0\0");
        let mut chunk = |kind: u16, data: &[u8]| {
            out.extend_from_slice(&0u16.to_be_bytes());
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&((data.len() + 6).min(u16::MAX.into()) as u16).to_be_bytes());
            out.extend_from_slice(data);
        };
        chunk(1, &[family(self.from.ip())]);
        chunk(2, &[protocol(self.transport)]);
        for (ip, four, six) in [(self.from.ip(), 3, 5), (self.to.ip(), 4, 6)] {
            match ip {
                IpAddr::V4(ip) => chunk(four, &ip.octets()),
                IpAddr::V6(ip) => chunk(six, &ip.octets()),
            }
        }
        chunk(7, &self.from.port().to_be_bytes());
        chunk(8, &self.to.port().to_be_bytes());
        chunk(9, &((self.at_us / 1_000_000) as u32).to_be_bytes());
        chunk(10, &((self.at_us % 1_000_000) as u32).to_be_bytes());
        chunk(11, &[self.kind]);
        chunk(12, &u32::from(capture_id).to_be_bytes());
        if !self.correlation.is_empty() {
            chunk(17, &self.correlation);
        }
        if !self.extra.is_empty() {
            chunk(EXTRA_CORRELATION, &self.extra);
        }
        // A packet counts its bytes with 16 bits.
        let room = usize::from(u16::MAX) - 6;
        let left = room.saturating_sub(self.correlation.len() + self.extra.len() + 128);
        chunk(15, &self.payload[..self.payload.len().min(left)]);
        let length = (out.len() as u16).to_be_bytes();
        out[4..6].copy_from_slice(&length);
        out.into()
    }

    fn fixed(&self, version: Version, capture_id: u16) -> Option<Bytes> {
        let mut out = Vec::with_capacity(56 + self.payload.len());
        let addresses = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => [&a.octets()[..], &b.octets()].concat(),
            (IpAddr::V6(a), IpAddr::V6(b)) => [&a.octets()[..], &b.octets()].concat(),
            _ => return None,
        };
        // v2 has a time and an agent behind the addresses, in the sender's byte order, with two bytes that mean nothing.
        let times = if version == Version::Two { 12 } else { 0 };
        let length = (8 + addresses.len() + times) as u8;
        out.extend_from_slice(&[version as u8, length, family(self.from.ip()), protocol(self.transport)]);
        out.extend_from_slice(&self.from.port().to_be_bytes());
        out.extend_from_slice(&self.to.port().to_be_bytes());
        out.extend_from_slice(&addresses);
        if version == Version::Two {
            out.extend_from_slice(&((self.at_us / 1_000_000) as u32).to_le_bytes());
            out.extend_from_slice(&((self.at_us % 1_000_000) as u32).to_le_bytes());
            out.extend_from_slice(&capture_id.to_le_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        out.extend_from_slice(&self.payload);
        Some(out.into())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn packet(from: &str, to: &str) -> Packet {
        Packet {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            transport: Transport::Udp,
            at_us: 1_700_000_000_000_123,
            kind: SIP,
            correlation: "a@b".into(),
            extra: Bytes::new(),
            payload: "OPTIONS".into(),
        }
    }

    /// The chunks of a HEP3 packet: (type, data).
    fn read(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!((&bytes[..4], usize::from(number(4))), (&b"HEP3"[..], bytes.len()));
        let (mut at, mut out) = (6, Vec::new());
        while at < bytes.len() {
            let length = usize::from(number(at + 4));
            out.push((number(at + 2), bytes[at + 6..at + length].to_vec()));
            at += length;
        }
        out
    }

    #[test]
    fn version_three() {
        let bytes = packet("10.0.0.1:5060", "10.0.0.2:5070").encode(Version::Three, 300).unwrap();
        let want: Vec<(u16, Vec<u8>)> = vec![
            (1, vec![2]),
            (2, vec![17]),
            (3, vec![10, 0, 0, 1]),
            (4, vec![10, 0, 0, 2]),
            (7, 5060u16.to_be_bytes().to_vec()),
            (8, 5070u16.to_be_bytes().to_vec()),
            (9, 1_700_000_000u32.to_be_bytes().to_vec()),
            (10, 123u32.to_be_bytes().to_vec()),
            (11, vec![1]),
            (12, 300u32.to_be_bytes().to_vec()),
            (17, b"a@b".to_vec()),
            (15, b"OPTIONS".to_vec()),
        ];
        assert_eq!(read(&bytes), want);
        let mut six = packet("[2001:db8::1]:5060", "[2001:db8::2]:5060");
        six.payload = vec![b'x'; 70_000].into();
        let chunks = read(&six.encode(Version::Three, 1).unwrap());
        assert!(chunks[0].1 == [10] && chunks[2].0 == 5 && chunks[3].0 == 6 && chunks[2].1.len() == 16);
    }

    #[test]
    fn older_versions() {
        let one = packet("10.0.0.1:5060", "10.0.0.2:5070").encode(Version::One, 7).unwrap();
        assert_eq!(&one[..16], [1, 16, 2, 17, 0x13, 0xc4, 0x13, 0xce, 10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(&one[16..], b"OPTIONS");
        let two = packet("10.0.0.1:5060", "10.0.0.2:5070").encode(Version::Two, 7).unwrap();
        assert_eq!(
            (two[0], two[1], &two[24..26], &two[28..]),
            (2, 28, &7u16.to_le_bytes()[..], &b"OPTIONS"[..])
        );
        assert!(packet("10.0.0.1:1", "[::1]:1").encode(Version::Two, 7).is_none());
    }
}
