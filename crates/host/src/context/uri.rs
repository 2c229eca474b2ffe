//! URIs that scripts make.

use bytes::Bytes;
use sip::{Scheme, Uri};

/// Reads a URI that a script may have made: what stands in its host is let through, line ends are not, nor what
/// belongs to another part of a SIP URI (an `@` after the host, a `;` in the password).
pub fn parse(text: &Bytes) -> Option<Uri> {
    let uri = Uri::parse(text).ok().or_else(|| parse_with_blanks(text))?;
    let sip = matches!(uri.scheme, Scheme::Sip | Scheme::Sips);
    let misplaced = uri.params.text.contains(&b'@')
        || uri.headers.contains(&b'@')
        || uri.password.as_ref().is_some_and(|password| password.contains(&b';'));
    (!sip || !misplaced).then_some(uri)
}

fn parse_with_blanks(text: &Bytes) -> Option<Uri> {
    let strange = |b: &u8| b" \t<>\"$,{}\\/()^|&+#".contains(b);
    if text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) || !text.iter().any(strange) {
        return None;
    }
    // The layout is that of the same text with harmless bytes in those places.
    let masked: Vec<u8> = text.iter().map(|b| if strange(b) { b'_' } else { *b }).collect();
    let masked = Bytes::from(masked);
    let mut uri = Uri::parse(&masked).ok()?;
    let back = |part: &Bytes| {
        if part.is_empty() {
            return Bytes::new();
        }
        let start = part.as_ptr() as usize - masked.as_ptr() as usize;
        text.slice(start..start + part.len())
    };
    uri.user = uri.user.as_ref().map(back);
    uri.password = uri.password.as_ref().map(back);
    uri.host = back(&uri.host);
    uri.params.text = back(&uri.params.text);
    uri.headers = back(&uri.headers);
    uri.text = text.clone();
    Some(uri)
}
