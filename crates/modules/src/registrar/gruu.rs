//! GRUUs of a contact (RFC 5627): the public one names the address and the instance, the temporary one
//! hides both behind `gruu_secret`, in the form of the reference, so that other servers of a platform
//! understand it.

use super::aor::Target;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// How the user part of a temporary GRUU begins.
pub const PREFIX: &[u8] = b"tgruu.";
/// `gruu_secret` when none is set.
pub const DEFAULT_SECRET: &str = "0p3nS1pS";

/// What GRUUs of one contact are made from.
pub struct Parts<'a> {
    pub aor: &'a [u8],
    /// `<urn:uuid:...>`
    pub instance: &'a [u8],
    pub call_id: &'a [u8],
    pub now: u32,
    /// "host:port" of the socket that the contact registered through.
    pub host: &'a str,
    pub use_domain: bool,
}

/// The parameters for a Contact in a reply, beginning with a semicolon; empty when the instance is no
/// `<...>`.
pub fn params(parts: &Parts<'_>, secret: &str) -> Vec<u8> {
    let Some(inner) = bare(parts.instance) else { return Vec::new() };
    let time = parts.now.to_string();
    let mut hidden = [time.as_bytes(), parts.aor, inner, parts.call_id].join(&b' ');
    mask(&mut hidden, secret);
    let host = if parts.use_domain { String::new() } else { format!("@{}", parts.host) };
    [
        b";pub-gruu=\"sip:",
        parts.aor,
        host.as_bytes(),
        b";gr=",
        inner,
        b"\";temp-gruu=\"sip:",
        PREFIX,
        STANDARD.encode(&hidden).as_bytes(),
        b"@",
        parts.host.as_bytes(),
        b";gr\";+sip.instance=\"",
        parts.instance,
        b"\"",
    ]
    .concat()
}

/// Whom the user part of a temporary GRUU means; `None` when it was not made with this secret.
pub fn open(user: &[u8], secret: &str) -> Option<Target> {
    let mut text = STANDARD.decode(user.strip_prefix(PREFIX)?).ok()?;
    mask(&mut text, secret);
    let mut parts = text.splitn(4, |b| *b == b' ');
    let time = parts.next()?;
    if time.is_empty() || !time.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut part = || parts.next().filter(|p| !p.is_empty()).map(Bytes::copy_from_slice);
    Some(Target { key: part()?, instance: Some(part()?), call_id: Some(part()?) })
}

fn bare(instance: &[u8]) -> Option<&[u8]> {
    instance.strip_prefix(b"<")?.strip_suffix(b">").filter(|inner| !inner.is_empty())
}

/// The contact registered with this instance (given without `<>`).
pub fn is_instance(stored: &[u8], wanted: &[u8]) -> bool {
    bare(stored).is_some_and(|inner| inner == wanted)
}

fn mask(text: &mut [u8], secret: &str) {
    let secret = if secret.is_empty() { DEFAULT_SECRET } else { secret };
    for (byte, key) in text.iter_mut().zip(secret.bytes().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_gruus_open_with_their_secret() {
        let parts = Parts {
            aor: b"alice@example.com",
            instance: b"<urn:uuid:1>",
            call_id: b"c 1",
            now: 1_700_000_000,
            host: "10.0.0.1:5060",
            use_domain: true,
        };
        let text = String::from_utf8(params(&parts, "secret")).expect("text");
        assert!(text.starts_with(";pub-gruu=\"sip:alice@example.com;gr=urn:uuid:1\";temp-gruu=\"sip:tgruu."));
        assert!(text.ends_with("@10.0.0.1:5060;gr\";+sip.instance=\"<urn:uuid:1>\""), "{text}");
        let user = text.split("temp-gruu=\"sip:").nth(1).and_then(|t| t.split('@').next()).expect("a user");
        let target = open(user.as_bytes(), "secret").expect("it opens");
        assert_eq!(target.key, "alice@example.com");
        assert_eq!(target.instance.as_deref(), Some(&b"urn:uuid:1"[..]));
        assert_eq!(target.call_id.as_deref(), Some(&b"c 1"[..]));
        assert_eq!(open(user.as_bytes(), "other"), None);
        assert!(params(&Parts { instance: b"x", ..parts }, "").is_empty());
    }
}
