//! What a contact of ours carries where no dialog remembers it: target, route set, socket, all behind a password.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Digits of texts that may stand in URIs and Call-IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheme {
    #[default]
    Base64,
    /// For peers that change the case.
    Base32,
}

const WORD64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.";
const WORD32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl Scheme {
    pub fn parse(text: &str) -> Option<Scheme> {
        match text {
            "base64" => Some(Scheme::Base64),
            "base32" => Some(Scheme::Base32),
            _ => None,
        }
    }

    fn digits(self) -> (&'static [u8], u32) {
        match self {
            Scheme::Base64 => (WORD64, 6),
            Scheme::Base32 => (WORD32, 5),
        }
    }

    /// Filled up with `-`, as the reference does.
    pub fn encode(self, bytes: &[u8]) -> Vec<u8> {
        let (digits, bits) = self.digits();
        let group = if self == Scheme::Base64 { 4 } else { 8 };
        let (mut held, mut count) = (0u32, 0);
        let mut out = Vec::with_capacity(bytes.len() * 8 / bits as usize + group);
        for byte in bytes {
            held = held << 8 | u32::from(*byte);
            count += 8;
            while count >= bits {
                count -= bits;
                out.push(digits[(held >> count) as usize & (digits.len() - 1)]);
            }
        }
        if count > 0 {
            out.push(digits[(held << (bits - count)) as usize & (digits.len() - 1)]);
        }
        while !out.len().is_multiple_of(group) {
            out.push(b'-');
        }
        out
    }

    /// `None`: there is another character in it.
    pub fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        let (digits, bits) = self.digits();
        let (mut held, mut count) = (0u32, 0);
        let mut out = Vec::with_capacity(text.len() * bits as usize / 8);
        let end = text.iter().rposition(|b| *b != b'-').map_or(0, |at| at + 1);
        for byte in &text[..end] {
            let byte = if self == Scheme::Base32 { byte.to_ascii_uppercase() } else { *byte };
            let digit = digits.iter().position(|d| *d == byte)?;
            held = held << bits | digit as u32;
            count += bits;
            if count >= 8 {
                count -= 8;
                out.push((held >> count) as u8);
            }
        }
        Some(out)
    }
}

/// Each byte with one of the password. The same again undoes it.
pub fn mix(bytes: &mut [u8], password: &[u8]) {
    bytes.iter_mut().zip(password.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}

/// How what is hidden is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Layout {
    /// Sealed: nobody without the password can read, change or make one.
    #[default]
    Compact,
    /// As the reference has it: what it made is understood, and the other way round.
    Long,
}

/// A parameter of contacts that carries what is hidden.
#[derive(Clone, Debug, PartialEq)]
pub struct Carrier {
    pub name: String,
    pub password: String,
    pub layout: Layout,
}

pub const DEFAULT_NAME: &str = "thinfo";
pub const DEFAULT_PASSWORD: &str = "ToPoCtPaSS";

impl Default for Carrier {
    fn default() -> Carrier {
        Carrier { name: DEFAULT_NAME.into(), password: DEFAULT_PASSWORD.into(), layout: Layout::default() }
    }
}

impl Carrier {
    /// "name", "name:password" or "name:password:C".
    pub fn parse(text: &str) -> Result<Carrier, String> {
        let mut parts = text.splitn(3, ':');
        let name = parts.next().unwrap_or_default().to_string();
        if name.is_empty() {
            return Err("th_contact_encode_param_password begins with the name of a parameter".into());
        }
        let password = parts.next().unwrap_or(DEFAULT_PASSWORD).to_string();
        if password.is_empty() {
            return Err(format!("the password of {name} is empty"));
        }
        let layout = match parts.next() {
            None | Some("C" | "c") => Layout::Compact,
            Some("L" | "l") => Layout::Long,
            Some(other) => return Err(format!("the encoding is C (compact) or L (long), not {other}")),
        };
        Ok(Carrier { name, password, layout })
    }

    pub fn encode(&self, scheme: Scheme, info: &Info) -> Vec<u8> {
        scheme.encode(&match self.layout {
            Layout::Compact => seal(&info.compact(), self.password.as_bytes()),
            Layout::Long => {
                let mut bytes = info.long();
                mix(&mut bytes, self.password.as_bytes());
                bytes
            }
        })
    }

    /// `None`: it was not made with this password, or is damaged.
    pub fn decode(&self, scheme: Scheme, text: &[u8]) -> Option<Info> {
        let mut bytes = scheme.decode(text)?;
        match self.layout {
            Layout::Compact => Info::of_compact(&open(&bytes, self.password.as_bytes())?),
            Layout::Long => {
                mix(&mut bytes, self.password.as_bytes());
                Info::of_long(&bytes)
            }
        }
    }
}

/// Where requests to a contact of ours really go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    /// URI of the end's own contact; empty in a Record-Route.
    pub contact: Vec<u8>,
    /// Its route set: `<sip:a;lr>,<sip:b;lr>`.
    pub routes: Vec<u8>,
    /// The socket that it is reached by: `udp:10.0.0.1:5060`.
    pub socket: Vec<u8>,
    /// Bits of the column `module_flags` of dialogs.
    pub flags: u8,
    /// The user that contacts shown to the caller and to the callee have.
    pub users: [Vec<u8>; 2],
}

impl Info {
    fn compact(&self) -> Vec<u8> {
        let mut out = vec![self.flags];
        for part in [&self.socket, &self.contact, &self.routes, &self.users[0], &self.users[1]] {
            // Two bytes of length, the first alone below 128.
            match part.len() {
                short @ 0..0x80 => out.push(short as u8),
                long => out.extend_from_slice(&(long.min(0x7fff) as u16 | 0x8000).to_be_bytes()),
            }
            out.extend_from_slice(&part[..part.len().min(0x7fff)]);
        }
        out
    }

    fn of_compact(bytes: &[u8]) -> Option<Info> {
        let (flags, mut rest) = bytes.split_first()?;
        let mut part = || {
            let (first, behind) = rest.split_first()?;
            let (length, behind) = match first {
                short @ 0..0x80 => (usize::from(*short), behind),
                high => {
                    let (low, behind) = behind.split_first()?;
                    (usize::from(high & 0x7f) << 8 | usize::from(*low), behind)
                }
            };
            let (part, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some(part.to_vec())
        };
        Some(Info {
            flags: *flags,
            socket: part()?,
            contact: part()?,
            routes: part()?,
            users: [part()?, part()?],
        })
    }

    /// Lengths in two bytes, the lower first; the flags as digits.
    fn long(&self) -> Vec<u8> {
        let flags = self.flags.to_string().into_bytes();
        let mut out = Vec::new();
        for part in [&self.routes, &self.contact, &flags, &self.socket] {
            let length = part.len().min(i16::MAX as usize);
            out.extend_from_slice(&(length as u16).to_le_bytes());
            out.extend_from_slice(&part[..length]);
        }
        out
    }

    fn of_long(bytes: &[u8]) -> Option<Info> {
        let mut rest = bytes;
        let mut part = || {
            let (length, behind) = rest.split_first_chunk()?;
            let (part, behind) = behind.split_at_checked(u16::from_le_bytes(*length).into())?;
            rest = behind;
            Some(part.to_vec())
        };
        let (routes, contact, flags, socket) = (part()?, part()?, part()?, part()?);
        let flags = std::str::from_utf8(&flags).ok()?.parse().ok()?;
        Some(Info { contact, routes, socket, flags, users: Default::default() })
    }
}

/// Bytes of the mark that shows who made it.
const MARK: usize = 8;

fn keyed(password: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(password).expect("any length is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Hides bytes under a mark that is made of them: the same gives the same, so that contacts do not change needlessly.
fn seal(plain: &[u8], password: &[u8]) -> Vec<u8> {
    let mark = keyed(password, &[b"m", plain]);
    let mut out = [&mark[..MARK], plain].concat();
    let (mark, hidden) = out.split_at_mut(MARK);
    cover(hidden, mark, password);
    out
}

fn open(sealed: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let (mark, hidden) = sealed.split_at_checked(MARK)?;
    let mut plain = hidden.to_vec();
    cover(&mut plain, mark, password);
    (keyed(password, &[b"m", &plain])[..MARK] == *mark).then_some(plain)
}

fn cover(bytes: &mut [u8], mark: &[u8], password: &[u8]) {
    for (n, block) in bytes.chunks_mut(32).enumerate() {
        mix(block, &keyed(password, &[b"c", mark, &(n as u32).to_be_bytes()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> Info {
        Info {
            contact: b"sip:alice@10.0.0.9:5070;transport=tcp".to_vec(),
            routes: b"<sip:10.0.0.1;lr>,<sip:10.0.0.2;lr>".to_vec(),
            socket: b"udp:10.0.0.5:5060".to_vec(),
            flags: 6,
            users: [b"shop".to_vec(), Vec::new()],
        }
    }

    #[test]
    fn texts_lead_back() {
        let long = Info { routes: vec![b'r'; 700], ..info() };
        for scheme in [Scheme::Base64, Scheme::Base32] {
            for layout in [Layout::Compact, Layout::Long] {
                let carrier = Carrier { layout, ..Carrier::default() };
                for info in [info(), Info::default(), long.clone()] {
                    let text = carrier.encode(scheme, &info);
                    assert!(text.iter().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(b)));
                    let expected = match layout {
                        Layout::Compact => info,
                        Layout::Long => Info { users: Default::default(), ..info },
                    };
                    assert_eq!(carrier.decode(scheme, &text), Some(expected));
                }
            }
        }
    }

    #[test]
    fn nobody_else_makes_one() {
        let carrier = Carrier::default();
        let other = Carrier { password: "guessed".into(), ..Carrier::default() };
        assert_eq!(carrier.decode(Scheme::Base64, &other.encode(Scheme::Base64, &info())), None);
        let mut text = carrier.encode(Scheme::Base64, &info());
        text[20] = if text[20] == b'A' { b'B' } else { b'A' };
        assert_eq!(carrier.decode(Scheme::Base64, &text), None);
        for bad in ["AAAA", "", "=", "-"] {
            assert_eq!(carrier.decode(Scheme::Base64, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn carriers_are_written_with_colons() {
        let long = Carrier::parse("p:secret:L").expect("a carrier");
        assert_eq!((&*long.name, &*long.password, long.layout), ("p", "secret", Layout::Long));
        assert_eq!(Carrier::parse("p").expect("a carrier").password, DEFAULT_PASSWORD);
        for bad in ["", ":x", "p:", "p:x:Z"] {
            assert!(Carrier::parse(bad).is_err(), "{bad}");
        }
    }
}
