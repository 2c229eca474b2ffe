//! From a URI to the key under which its owner is stored.

use super::{Registration, gruu};
use bytes::Bytes;
use sip::{Scheme, Uri};

/// Why an address cannot be used, with the reply that says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AorError {
    Parse,
    TooLong,
}

/// Whom a request is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub key: Bytes,
    /// Only the device with this instance (`gr` of a GRUU, RFC 5627), without `<>`.
    pub instance: Option<Bytes>,
    /// Only what was registered with this Call-ID (temporary GRUU).
    pub call_id: Option<Bytes>,
}

/// Whom a URI that may be a GRUU is for.
pub fn target(uri: &Bytes, use_domain: bool, limits: &Registration) -> Result<Target, AorError> {
    let parsed = Uri::parse(uri).map_err(|_| AorError::Parse)?;
    let user = parsed.user.as_deref().unwrap_or(b"");
    match parsed.params.find(b"gr") {
        Some(_) if user.starts_with(gruu::PREFIX) => {
            gruu::open(user, &limits.gruu_secret).ok_or(AorError::Parse)
        }
        Some(instance) => Ok(Target { key: aor(uri, use_domain, limits)?, instance, call_id: None }),
        None => Ok(Target { key: aor(uri, use_domain, limits)?, ..Target::default() }),
    }
}

/// "user@domain" (or "user"), unescaped, in the case that the parameters ask for.
pub fn aor(uri: &Bytes, use_domain: bool, limits: &Registration) -> Result<Bytes, AorError> {
    let uri = Uri::parse(uri).map_err(|_| AorError::Parse)?;
    let user = unescape(uri.user.as_deref().unwrap_or(b""));
    let host: &[u8] = if matches!(uri.scheme, Scheme::Tel | Scheme::Tels) { b"" } else { &uri.host };
    if user.is_empty() && host.is_empty() || user.is_empty() && !use_domain {
        return Err(AorError::Parse);
    }
    if user.len() > limits.max_username_len || host.len() > limits.max_domain_len {
        return Err(AorError::TooLong);
    }
    let mut key = Vec::with_capacity(user.len() + host.len() + 1);
    key.extend_from_slice(&user);
    if use_domain {
        if !user.is_empty() {
            key.push(b'@');
        }
        let prefix = limits.realm_prefix.as_bytes();
        let host = if !prefix.is_empty() && host.len() > prefix.len() {
            host.strip_prefix(prefix).unwrap_or(host)
        } else {
            host
        };
        key.extend(host.iter().map(u8::to_ascii_lowercase));
    }
    if key.len() > limits.max_aor_len {
        return Err(AorError::TooLong);
    }
    if !limits.case_sensitive {
        key.make_ascii_lowercase();
    }
    Ok(key.into())
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let byte = if first == b'%' {
            tail.get(..2).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok())
        } else {
            None
        };
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_addresses() {
        let limits = Registration { realm_prefix: "sip.".into(), ..Registration::default() };
        let check = |uri: &'static str, use_domain, key: Result<&'static str, AorError>| {
            assert_eq!(aor(&uri.into(), use_domain, &limits), key.map(Bytes::from), "{uri}");
        };
        check("sip:alice@Example.com:5099;x=y", true, Ok("alice@example.com"));
        check("sip:alice@sip.example.com", true, Ok("alice@example.com"));
        check("sip:al%69ce@example.com", true, Ok("alice@example.com"));
        check("sip:alice@example.com", false, Ok("alice"));
        check("sip:example.com", true, Ok("example.com"));
        check("nonsense", true, Err(AorError::Parse));
        check(
            "sip:uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu@h",
            true,
            Err(AorError::TooLong),
        );
    }
}
