//! Messages of Diameter as they go over a connection (RFC 6733 §3 and §4).

/// The largest message that is read or sent, bytes.
pub const MAX_MESSAGE: usize = 262_144;
const HEAD: usize = 20;
const REQUEST: u8 = 0x80;
const PROXIABLE: u8 = 0x40;
const ERROR: u8 = 0x20;
const VENDOR: u8 = 0x80;
const MANDATORY: u8 = 0x40;

/// An attribute: what it is, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avp {
    pub code: u32,
    /// 0: of the base protocol.
    pub vendor: u32,
    pub data: Vec<u8>,
}

impl Avp {
    pub fn new(code: u32, data: impl Into<Vec<u8>>) -> Avp {
        Avp { code, vendor: 0, data: data.into() }
    }

    pub fn number(code: u32, number: u32) -> Avp {
        Avp::new(code, number.to_be_bytes())
    }

    pub fn group(code: u32, members: &[Avp]) -> Avp {
        Avp::new(code, printed(members))
    }

    /// Its value as Unsigned32.
    pub fn as_number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.data[..].try_into().ok()?))
    }
}

/// Attributes one after the other, each filled up to four bytes.
pub fn printed(avps: &[Avp]) -> Vec<u8> {
    let mut out = Vec::new();
    for avp in avps {
        let (flags, head) = if avp.vendor == 0 { (MANDATORY, 8) } else { (MANDATORY | VENDOR, 12) };
        out.extend(avp.code.to_be_bytes());
        let length = (head + avp.data.len()) as u32;
        out.extend((length | u32::from(flags) << 24).to_be_bytes());
        if avp.vendor != 0 {
            out.extend(avp.vendor.to_be_bytes());
        }
        out.extend(&avp.data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The attributes in these bytes; `None` when they do not fit.
pub fn read(mut bytes: &[u8]) -> Option<Vec<Avp>> {
    let mut avps = Vec::new();
    while !bytes.is_empty() {
        let (code, second) = (word(bytes, 0)?, word(bytes, 4)?);
        let (flags, length) = ((second >> 24) as u8, (second & 0xff_ffff) as usize);
        let (vendor, head) = if flags & VENDOR != 0 { (word(bytes, 8)?, 12) } else { (0, 8) };
        avps.push(Avp { code, vendor, data: bytes.get(head..length)?.to_vec() });
        // The last one may come without what fills it up.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(avps)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub request: bool,
    pub error: bool,
    /// Servers between may pass it on.
    pub proxiable: bool,
    pub command: u32,
    pub app: u32,
    /// Of this connection: an answer has that of its request.
    pub hop: u32,
    pub end: u32,
    pub avps: Vec<Avp>,
}

impl Message {
    pub fn request(app: u32, command: u32, avps: Vec<Avp>) -> Message {
        Message { request: true, error: false, proxiable: app != 0, command, app, hop: 0, end: 0, avps }
    }

    /// The answer to a request, with these attributes.
    pub fn answer(&self, error: bool, avps: Vec<Avp>) -> Message {
        Message { request: false, error, avps, ..*self }
    }

    pub fn avp(&self, code: u32) -> Option<&Avp> {
        self.avps.iter().find(|avp| avp.code == code && avp.vendor == 0)
    }

    /// `None`: it is too large.
    pub fn print(&self) -> Option<Vec<u8>> {
        let body = printed(&self.avps);
        let length = HEAD + body.len();
        if length > MAX_MESSAGE {
            return None;
        }
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let flags = flag(self.request, REQUEST) | flag(self.proxiable, PROXIABLE) | flag(self.error, ERROR);
        let mut out = Vec::with_capacity(length);
        out.extend((length as u32 | 1 << 24).to_be_bytes());
        out.extend((self.command | u32::from(flags) << 24).to_be_bytes());
        for number in [self.app, self.hop, self.end] {
            out.extend(number.to_be_bytes());
        }
        out.extend(body);
        Some(out)
    }

    /// Takes the first message of what came, if all of it is there. The error says why the connection is of no use any
    /// more.
    pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Message>, &'static str> {
        let Some(first) = word(bytes, 0) else { return Ok(None) };
        let length = (first & 0xff_ffff) as usize;
        if first >> 24 != 1 || !(HEAD..=MAX_MESSAGE).contains(&length) || !length.is_multiple_of(4) {
            return Err("what came is no message of Diameter");
        }
        if bytes.len() < length {
            return Ok(None);
        }
        let rest = bytes.split_off(length);
        let message = std::mem::replace(bytes, rest);
        let number = |at| word(&message, at).unwrap_or_default();
        let flags = message[4];
        let avps = read(&message[HEAD..]).ok_or("a message of the peer has broken attributes")?;
        Ok(Some(Message {
            request: flags & REQUEST != 0,
            error: flags & ERROR != 0,
            proxiable: flags & PROXIABLE != 0,
            command: number(4) & 0xff_ffff,
            app: number(8),
            hop: number(12),
            end: number(16),
            avps,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let vendor = Avp { code: 601, vendor: 10415, data: b"sip:a@b".to_vec() };
        let avps = vec![Avp::new(263, "s;1;2"), Avp::group(260, &[Avp::number(266, 7)]), vendor];
        let mut message = Message::request(16_777_216, 303, avps);
        (message.hop, message.end) = (1, 2);
        let bytes = message.print().unwrap();
        assert_eq!(bytes[..8], [1, 0, 0, bytes.len() as u8, 0xc0, 0, 1, 0x2f]);
        assert_eq!(bytes[20..36], *b"\0\0\x01\x07\x40\0\0\x0ds;1;2\0\0\0");
        let mut stream = bytes.clone();
        stream.extend(&bytes[..30]);
        assert_eq!(Message::take(&mut stream).unwrap().unwrap(), message);
        assert_eq!((Message::take(&mut stream), stream.len()), (Ok(None), 30));
        assert_eq!(message.avp(260).map(|avp| read(&avp.data).unwrap()[0].as_number()), Some(Some(7)));
        let answer = message.answer(true, Vec::new());
        assert!(!answer.request && answer.error && answer.hop == 1 && answer.command == 303);
    }

    #[test]
    fn what_is_none() {
        for first in [[2, 0, 0, 20], [1, 0, 0, 16], [1, 0xff, 0xff, 0xfc], [1, 0, 0, 21]] {
            assert!(Message::take(&mut first.to_vec()).is_err(), "{first:?}");
        }
        let mut message = Message::request(0, 280, vec![Avp::new(1, "abcd")]).print().unwrap();
        message[27] = 99;
        assert!(Message::take(&mut message).is_err());
        message = Message::request(0, 280, vec![Avp::new(1, "abcd")]).print().unwrap();
        message[27] = 3;
        assert!(Message::take(&mut message).is_err());
    }
}
