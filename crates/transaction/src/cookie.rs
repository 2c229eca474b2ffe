//! The Via branch of requests that are sent: says which branch of which transaction a reply is for.

use crate::TxnId;
use crate::key::MAGIC;

/// What a Via branch of this server says. `z9hG4bK` then worker, slot, generation and branch in
/// hexadecimal, separated by dots: `z9hG4bK1.2a.9c0ffee1.0`. The generation starts at a random number,
/// so that a branch is not used again after a restart and cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie {
    /// Who sent the request.
    pub worker: u16,
    /// The transaction there.
    pub txn: TxnId,
    /// Its branch, from 0.
    pub branch: u16,
}

/// The text of a branch parameter, on the stack.
pub type ViaBranch = smallvec::SmallVec<[u8; 32]>;

impl Cookie {
    /// The value of the branch parameter, with the magic cookie of RFC 3261 in front.
    pub fn text(&self) -> ViaBranch {
        let mut out = ViaBranch::from_slice(MAGIC);
        push_hex(&mut out, u32::from(self.worker));
        for part in [self.txn.index, self.txn.generation, u32::from(self.branch)] {
            out.push(b'.');
            push_hex(&mut out, part);
        }
        out
    }

    /// `None`: not a branch of this server.
    pub fn parse(branch: &[u8]) -> Option<Cookie> {
        let mut parts = branch.strip_prefix(MAGIC)?.split(|b| *b == b'.').map(hex);
        let mut part = || parts.next()?;
        let (worker, index, generation, branch) = (part()?, part()?, part()?, part()?);
        let cookie = Cookie {
            worker: u16::try_from(worker).ok()?,
            txn: TxnId { index, generation },
            branch: u16::try_from(branch).ok()?,
        };
        parts.next().is_none().then_some(cookie)
    }
}

fn push_hex(out: &mut ViaBranch, n: u32) {
    let digits = (32 - (n | 1).leading_zeros()).div_ceil(4);
    out.extend((0..digits).rev().map(|i| b"0123456789abcdef"[(n >> (4 * i)) as usize & 15]));
}

/// Lower case without leading zeros, as printed: each cookie has one spelling.
fn hex(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 8 || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    text.iter().try_fold(0, |n: u32, b| {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u32::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (worker, index, generation, branch, text) in [
            (0, 0, 0, 0, "z9hG4bK0.0.0.0"),
            (3, 0x2a, 0x9c0f_fee1, 11, "z9hG4bK3.2a.9c0ffee1.b"),
            (u16::MAX, u32::MAX, u32::MAX, u16::MAX, "z9hG4bKffff.ffffffff.ffffffff.ffff"),
        ] {
            let cookie = Cookie { worker, txn: TxnId { index, generation }, branch };
            assert_eq!(&cookie.text()[..], text.as_bytes());
            assert_eq!(Cookie::parse(text.as_bytes()), Some(cookie));
        }
    }

    #[test]
    fn foreign_branches() {
        for text in [
            "",
            "z9hG4bK",
            "z9hG4bK0.0.0",
            "z9hG4bK0.0.0.0.0",
            "z9hG4bK00.0.0.0",
            "z9hG4bK0.0.0.A",
            "0.0.0.0",
            "z9hG4bK0.0.123456789.0",
            "z9hG4bK10000.0.0.0",
            "z9hG4bK0..0.0",
            "z9hG4bK-524287-1---abcdef",
        ] {
            assert_eq!(Cookie::parse(text.as_bytes()), None, "{text}");
        }
    }
}
