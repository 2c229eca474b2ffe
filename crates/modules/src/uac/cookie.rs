//! The parameter of our Record-Route that holds both URIs, combined so that each gives the other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Mixes in the password.
fn scramble(text: &mut [u8], password: &[u8]) {
    if password.is_empty() {
        return;
    }
    for (byte, key) in text.iter_mut().zip(password.iter().cycle()) {
        *byte ^= key;
    }
}

/// The value for two URIs of up to some hundred bytes; `replaced` is the new one with its `<>`.
pub fn encode(original: &[u8], replaced: &[u8], password: &[u8]) -> String {
    let (long, short) =
        if original.len() > replaced.len() { (original, replaced) } else { (replaced, original) };
    let mut mixed = long.to_vec();
    mixed.iter_mut().zip(short).for_each(|(byte, other)| *byte ^= other);
    scramble(&mut mixed, password);
    STANDARD.encode(mixed).replace('=', "-")
}

/// The other URI. `known`: the original, or the replacement with its `<>`.
pub fn decode(value: &[u8], known: &[u8], password: &[u8]) -> Option<Bytes> {
    let text: Vec<u8> = value.iter().map(|b| if *b == b'-' { b'=' } else { *b }).collect();
    let mut mixed = STANDARD.decode(text).ok()?;
    scramble(&mut mixed, password);
    if mixed.len() < known.len() {
        return None;
    }
    mixed.iter_mut().zip(known).for_each(|(byte, other)| *byte ^= other);
    if mixed.len() == known.len() {
        let end = mixed.iter().rposition(|b| *b != 0)? + 1;
        mixed.truncate(end);
    }
    // Somebody else may have changed the header: only a URI comes out.
    let uri = Bytes::from(mixed);
    let inner =
        uri.strip_prefix(b"<").and_then(|u| u.strip_suffix(b">")).map_or(uri.clone(), |u| uri.slice_ref(u));
    sip::Uri::parse(&inner).is_ok().then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gives_the_other() {
        for (original, new, password) in [
            ("sip:alice@example.com", "<sip:new@example.org>", ""),
            ("sip:a@b", "<sip:somebody-else@example.org>", "secret"),
            ("sip:somebody-with-a-long-name@example.org", "<sip:a@b>", "x"),
            ("sip:alice@example.com", "<sip:alice@example.com>", ""),
        ] {
            let (original, new, password) = (original.as_bytes(), new.as_bytes(), password.as_bytes());
            let value = encode(original, new, password);
            assert_eq!(decode(value.as_bytes(), original, password).as_deref(), Some(new));
            assert_eq!(decode(value.as_bytes(), new, password).as_deref(), Some(original));
        }
        assert_eq!(
            encode(b"sip:alice@example.com", b"<sip:new@example.org>", b""),
            "TxoZSlsCDBQlJR0ZDB0cCUtBEQhT"
        );
        let value = encode(b"sip:a@b", b"<sip:c@d>", b"");
        assert_eq!(decode(value.as_bytes(), b"sip:somebody-with-a-long-name@example.org", b""), None);
        assert_eq!(decode(value.as_bytes(), b"sip:x@y", b""), None, "what comes out is no URI");
        assert_eq!(decode(b"not base64", b"sip:a@b", b""), None);
    }
}
