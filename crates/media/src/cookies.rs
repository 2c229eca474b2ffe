//! The word in front of a datagram that joins an answer to its question, as rtpengine and rtpproxy have it.

use bytes::Bytes;
use drivers::exchange::Naming;

pub struct Cookies;

impl Naming for Cookies {
    const AT_ONCE: usize = 10_000;

    fn next(last: u64) -> u64 {
        last.wrapping_add(1)
    }

    fn of(datagram: &[u8]) -> Option<u64> {
        let end = datagram.iter().position(|b| b.is_ascii_whitespace()).unwrap_or(datagram.len());
        u64::from_str_radix(std::str::from_utf8(&datagram[..end]).ok()?, 16).ok()
    }
}

/// A command as it is sent.
pub fn with_cookie(name: u64, command: &[u8]) -> Vec<u8> {
    let mut out = format!("{name:016x} ").into_bytes();
    out.extend_from_slice(command);
    out
}

/// An answer without its cookie.
pub fn without_cookie(answer: Vec<u8>) -> Bytes {
    let answer = Bytes::from(answer);
    let start = answer.iter().position(|b| b.is_ascii_whitespace()).map_or(answer.len(), |at| at + 1);
    answer.slice(start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_there_and_back() {
        let sent = with_cookie(0xab, b"d7:command4:pinge");
        assert_eq!(sent, b"00000000000000ab d7:command4:pinge");
        assert_eq!(Cookies::of(&sent), Some(0xab));
        assert_eq!(&without_cookie(sent)[..], b"d7:command4:pinge");
        assert_eq!(Cookies::of(b"00000000000000ab"), Some(0xab));
        assert_eq!(&without_cookie(b"ab".to_vec())[..], b"");
        for odd in [&b""[..], b" x", b"xyz d", b"\xff d"] {
            assert_eq!(Cookies::of(odd), None);
        }
    }
}
