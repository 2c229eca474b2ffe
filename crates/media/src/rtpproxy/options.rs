//! Flags of rtpproxy functions: letters, some with a number behind them.

use bytes::Bytes;

/// What flags ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Letters that go into the command.
    pub letters: Vec<u8>,
    /// `z30`
    pub repacketize: Vec<u8>,
    /// `t10`, `T10`
    pub ttl: Vec<u8>,
    /// The address in the description counts, not the one that the message came from.
    pub trusted: bool,
    /// Only a session that is there already.
    pub lookup: bool,
    /// The description stays as it is.
    pub keep: bool,
    /// The mark of another proxy is ignored.
    pub force: bool,
    /// `c=` of the session too, where a stream has its own.
    pub common: bool,
    /// `o=` too.
    pub origin: bool,
    /// The engine tells when media stops; at this socket, or the configured one.
    pub notify: Option<Option<Bytes>>,
    /// The engine tells of DTMF; the payload type.
    pub dtmf: Option<Vec<u8>>,
}

/// The digits behind a letter.
fn digits<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits
}

impl Options {
    pub fn parse(text: &[u8]) -> Options {
        let mut found = Options::default();
        let mut rest = text;
        while let Some((letter, after)) = rest.split_first() {
            rest = after;
            match letter.to_ascii_lowercase() {
                b'a' => {
                    found.letters.push(b'A');
                    found.trusted = true;
                }
                b'd' => found.dtmf = Some(digits(&mut rest).to_vec()),
                b'i' => found.letters.push(b'I'),
                b'e' => found.letters.push(b'E'),
                b's' | b'w' => found.letters.push(b'S'),
                b'l' => found.lookup = true,
                b'k' => found.keep = true,
                b'f' => found.force = true,
                b'r' => found.trusted = true,
                b'c' => found.common = true,
                b'o' => found.origin = true,
                b'n' => found.notify = Some(socket(&mut rest)),
                b't' => {
                    found.ttl.push(*letter);
                    found.ttl.extend_from_slice(digits(&mut rest));
                }
                b'z' => {
                    found.repacketize.push(b'Z');
                    found.repacketize.extend_from_slice(digits(&mut rest));
                }
                _ => {
                    host::warn!("rtpproxy", "unknown flag `{}`", char::from(*letter));
                    found.letters.push(*letter);
                }
            }
        }
        found
    }
}

/// `<tcp:10.0.0.1:9999>`
fn socket(rest: &mut &[u8]) -> Option<Bytes> {
    let inner = rest.strip_prefix(b"<")?;
    let end = inner.iter().position(|b| *b == b'>').unwrap_or(inner.len());
    *rest = &inner[(end + 1).min(inner.len())..];
    Some(Bytes::copy_from_slice(&inner[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_numbers() {
        let found = Options::parse(b"rcoEIfT30z20t5sWx9");
        assert_eq!(found.letters, b"EISSx9");
        assert_eq!((&found.ttl[..], &found.repacketize[..]), (&b"T30t5"[..], &b"Z20"[..]));
        assert!(found.trusted && found.common && found.origin && found.force && !found.lookup && !found.keep);
        assert!(Options::parse(b"a").trusted);
        assert_eq!(Options::parse(b"n").notify, Some(None));
        let found = Options::parse(b"n<tcp:1.2.3.4:5>lkd96");
        assert_eq!(found.notify, Some(Some(Bytes::from_static(b"tcp:1.2.3.4:5"))));
        assert!(found.lookup && found.keep);
        assert_eq!(found.dtmf.as_deref(), Some(&b"96"[..]));
        assert_eq!(Options::parse(b"n<x").notify, Some(Some(Bytes::from_static(b"x"))));
    }
}
