//! The hash that chooses a destination, and what is hashed of a message. Other servers that hash the same must choose the
//! same destination, so numbers are those of the reference.

use bytes::Bytes;
use host::Ctx;
use host::vars::uri::parse as parse_loosely;
use sip::digest::Credentials;
use sip::{HeaderName, Uri};

/// Of one text, or of two one after the other; never 0.
pub fn hash(first: &[u8], second: &[u8]) -> u32 {
    let h = part(first).wrapping_add(part(second));
    let h = h.wrapping_add(h >> 11).wrapping_add((h >> 13).wrapping_add(h >> 23));
    h.max(1)
}

/// Bytes count as signed, four at a time, the highest first.
fn part(text: &[u8]) -> u32 {
    let signed = |b: &u8| *b as i8 as i32 as u32;
    let mixed = |v: u32| v ^ (v >> 3);
    let chunks = text.chunks_exact(4);
    let rest = chunks.remainder();
    let word = |four: &[u8]| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| signed(&four[at]));
        (a << 24).wrapping_add(b << 16).wrapping_add(c << 8).wrapping_add(d)
    };
    let whole = chunks.fold(0u32, |h, four| h.wrapping_add(mixed(word(four))));
    let tail = rest.iter().fold(0u32, |v, b| (v << 8).wrapping_add(signed(b)));
    whole.wrapping_add(mixed(tail))
}

/// How much of a URI counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// User, host, and the port unless it is that of the transport.
    Whole,
    User,
}

/// Of a URI; `None`: it is none.
pub fn of_uri(ctx: &Ctx, text: &Bytes, scope: Scope) -> Option<u32> {
    let uri = parse_loosely(text)?;
    if uri.host.is_empty() {
        return None;
    }
    let user = uri.user.as_deref().unwrap_or_default();
    if scope == Scope::User {
        return Some(hash(user, b""));
    }
    Some(hash(user, &host_and_port(ctx, &uri)))
}

fn host_and_port(ctx: &Ctx, uri: &Uri) -> Vec<u8> {
    let mut place = uri.host.to_vec();
    let transport = match (uri.is_sips(), uri.transport()) {
        (true, None) => sip::Transport::Tls,
        (_, transport) => transport.unwrap_or(sip::Transport::Udp),
    };
    // One that is not loaded has no default port.
    let loaded =
        ctx.shared().module_names.iter().any(|m| m.strip_prefix("proto_") == Some(transport.as_str()));
    if uri.port != 0 && !(loaded && uri.port == transport.default_port()) {
        place.extend_from_slice(format!(":{}", uri.port).as_bytes());
    }
    place
}

pub fn of_call_id(ctx: &Ctx) -> Option<u32> {
    Some(hash(&ctx.state.msg.call_id()?, b""))
}

pub fn of_from(ctx: &Ctx, scope: Scope) -> Option<u32> {
    of_uri(ctx, &ctx.state.msg.from()?.uri, scope)
}

pub fn of_to(ctx: &Ctx, scope: Scope) -> Option<u32> {
    of_uri(ctx, &ctx.state.msg.to()?.uri, scope)
}

/// Of the user that offers credentials, without its domain; `None`: nobody does.
pub fn of_credentials(ctx: &Ctx) -> Option<u32> {
    let msg = &ctx.state.msg;
    let headers = [HeaderName::ProxyAuthorization, HeaderName::Authorization];
    let found = headers.into_iter().find_map(|name| Credentials::parse(&msg.value(name)?).ok())?;
    Some(hash(&found.user_and_domain().0, b""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_bytes_and_tails() {
        // Recorded: the four destinations that Call-IDs choose (weight 1 each).
        for (text, nth) in [("a", 1), ("abcd", 0), ("abcde", 1), ("90210", 0), ("call-3@10.1.1.1", 2)] {
            assert_eq!(hash(text.as_bytes(), b"") % 4, nth, "{text}");
        }
        assert_eq!(hash(b"", b""), 1);
    }
}
