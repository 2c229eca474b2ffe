//! Messages of STUN (RFC 3489, with XOR-MAPPED-ADDRESS of RFC 5389). Pure.

use std::net::{IpAddr, SocketAddr};

const REQUEST: u16 = 0x0001;
const RESPONSE: u16 = 0x0101;
const REFUSAL: u16 = 0x0111;
/// The first half of the identifier in requests of RFC 5389.
pub const COOKIE: u32 = 0x2112_a442;

const MAPPED_ADDRESS: u16 = 0x0001;
const CHANGE_REQUEST: u16 = 0x0003;
const SOURCE_ADDRESS: u16 = 0x0004;
const CHANGED_ADDRESS: u16 = 0x0005;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// What clients of before RFC 5389 read.
const OLD_XOR_MAPPED_ADDRESS: u16 = 0x8020;
/// From here on an attribute need not be understood.
const OPTIONAL: u16 = 0x8000;

/// A Binding Request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// As the answer has it: 16 bytes, with the cookie of RFC 5389 where that is spoken.
    pub id: [u8; 16],
    /// The answer shall come from the other address, from the other port.
    pub change: (bool, bool),
    /// Attributes that must be understood and are not.
    pub unknown: Vec<u16>,
}

/// May it be one? No SIP message begins like this.
pub fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= 20 && bytes[0] == 0 && bytes[1] == 1
}

/// `None`: it is no Binding Request.
pub fn parse(bytes: &[u8]) -> Option<Request> {
    let short = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = usize::from(short(2)?);
    if short(0)? != REQUEST || !length.is_multiple_of(4) || bytes.len() < 20 + length {
        return None;
    }
    let mut request =
        Request { id: bytes[4..20].try_into().ok()?, change: (false, false), unknown: Vec::new() };
    let mut at = 20;
    while at + 4 <= 20 + length {
        let (kind, size) = (short(at)?, usize::from(short(at + 2)?));
        let value = bytes.get(at + 4..at + 4 + size)?;
        match kind {
            CHANGE_REQUEST if size == 4 => request.change = (value[3] & 4 != 0, value[3] & 2 != 0),
            kind if kind >= OPTIONAL => {}
            kind => request.unknown.push(kind),
        }
        at += 4 + size.next_multiple_of(4);
    }
    Some(request)
}

/// What an answer tells.
pub struct Facts {
    /// Where the request came from.
    pub mapped: SocketAddr,
    /// Where the answer leaves from, and where from it would with the other address and port.
    pub source: SocketAddr,
    pub changed: SocketAddr,
}

pub fn response(request: &Request, facts: &Facts) -> Vec<u8> {
    let mut body = Vec::new();
    if !request.unknown.is_empty() {
        attribute(&mut body, ERROR_CODE, b"\0\0\x04\x14Unknown Attribute   ");
        let list: Vec<u8> = request.unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        attribute(&mut body, UNKNOWN_ATTRIBUTES, &list);
        return message(REFUSAL, &request.id, &body);
    }
    attribute(&mut body, MAPPED_ADDRESS, &address(facts.mapped, &[0; 16]));
    attribute(&mut body, SOURCE_ADDRESS, &address(facts.source, &[0; 16]));
    attribute(&mut body, CHANGED_ADDRESS, &address(facts.changed, &[0; 16]));
    let is_new = request.id[..4] == COOKIE.to_be_bytes();
    let kind = if is_new { XOR_MAPPED_ADDRESS } else { OLD_XOR_MAPPED_ADDRESS };
    attribute(&mut body, kind, &address(facts.mapped, &request.id));
    message(RESPONSE, &request.id, &body)
}

fn message(kind: u16, id: &[u8; 16], body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), id, body].concat()
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Family, port and address, each bit turned where the mask has one.
fn address(of: SocketAddr, mask: &[u8; 16]) -> Vec<u8> {
    let (family, ip) = match of.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let masked = |bytes: &[u8]| bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<u8>>();
    [vec![0, family], masked(&of.port().to_be_bytes()), masked(&ip)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[u8], id: [u8; 16]) -> Vec<u8> {
        message(REQUEST, &id, attributes)
    }

    #[test]
    fn requests() {
        let id = *b"0123456789abcdef";
        let plain = parse(&request(b"", id)).unwrap();
        assert_eq!((plain.id, plain.change, plain.unknown.len()), (id, (false, false), 0));
        let changing = parse(&request(b"\0\x03\0\x04\0\0\0\x06\x80\x22\0\x02ab\0\0", id)).unwrap();
        assert_eq!((changing.change, changing.unknown.len()), ((true, true), 0));
        // RESPONSE-ADDRESS would make us send to whom the sender likes.
        let elsewhere = parse(&request(b"\0\x02\0\x08\0\x01\x10\x10\x01\x02\x03\x04", id)).unwrap();
        assert_eq!(elsewhere.unknown, [2]);
        for bad in [
            &b""[..],
            &request(b"\0\x03\0\x08\0\0\0\0", id),
            &request(b"abc", id),
            &message(RESPONSE, &id, b""),
        ] {
            assert_eq!(parse(bad), None);
        }
        assert!(is_stun(&request(b"", id)) && !is_stun(b"INVITE sip:a@b SIP/2.0") && !is_stun(b"\r\n\r\n"));
    }

    #[test]
    fn answers() {
        let mut id = *b"0123456789abcdef";
        id[..4].copy_from_slice(&COOKIE.to_be_bytes());
        let facts = Facts {
            mapped: "192.0.2.1:32853".parse().unwrap(),
            source: "192.0.2.2:5060".parse().unwrap(),
            changed: "192.0.2.3:3478".parse().unwrap(),
        };
        let answer = response(&parse(&request(b"", id)).unwrap(), &facts);
        assert_eq!(&answer[..4], b"\x01\x01\0\x30");
        assert_eq!(&answer[20..32], b"\0\x01\0\x08\0\x01\x80\x55\xc0\0\x02\x01");
        // RFC 5769 §2.2: the same address, turned.
        assert_eq!(&answer[56..68], b"\0\x20\0\x08\0\x01\xa1\x47\xe1\x12\xa6\x43");
        let refused = response(&Request { id, change: (false, false), unknown: vec![6] }, &facts);
        assert_eq!(&refused[..2], b"\x01\x11");
        assert_eq!(&refused[20..28], b"\0\x09\0\x18\0\0\x04\x14");
        assert_eq!(&refused[refused.len() - 8..], b"\0\x0a\0\x02\0\x06\0\0");
    }
}
