//! What `setvars` tells a command about the message.

use bytes::{Bytes, BytesMut};
use host::Ctx;
use sip::{HeaderName, Uri};

/// Adds SIP_HF_*, SIP_TID, SIP_DID, SIP_SRCIP, SIP_ORURI, SIP_RURI, SIP_USER and SIP_OUSER.
pub fn of_message(ctx: &Ctx, env: &mut Vec<(String, Bytes)>) {
    let state = &ctx.state;
    let msg = &state.msg;
    let mut headers: Vec<(String, BytesMut)> = Vec::new();
    for header in msg.headers() {
        let label = msg.bytes(header.label());
        let name = match header.name {
            HeaderName::Other => variable_name(label),
            known => variable_name(known.as_str().as_bytes()),
        };
        let value = msg.bytes(header.value());
        match headers.iter_mut().find(|(n, _)| *n == name) {
            Some((_, all)) => {
                all.extend_from_slice(b",");
                all.extend_from_slice(value);
            }
            None => headers.push((name, BytesMut::from(value))),
        }
    }
    env.extend(headers.into_iter().map(|(name, value)| (name, value.freeze())));
    let branch = msg.via().and_then(|via| via.branch()).unwrap_or_default();
    let original = if msg.is_request() { msg.request_uri() } else { Bytes::new() };
    let current = if msg.is_request() { state.current_uri() } else { Bytes::new() };
    let user = |uri: &Bytes| Uri::parse(uri).ok().and_then(|uri| uri.user).unwrap_or_default();
    let pairs = [
        ("SIP_TID", branch),
        ("SIP_DID", msg.to_tag().unwrap_or_default()),
        ("SIP_SRCIP", Bytes::from(state.source.remote.ip().to_string())),
        ("SIP_USER", user(&current)),
        ("SIP_OUSER", user(&original)),
        ("SIP_ORURI", original),
        ("SIP_RURI", current),
    ];
    env.extend(pairs.map(|(name, value)| (name.to_string(), value)));
    // A NUL would end a value early, and the system refuses it.
    env.retain(|(_, value)| !value.contains(&0));
}

/// "Record-Route" is SIP_HF_RECORD_ROUTE: a shell takes letters, digits and `_`.
fn variable_name(header: &[u8]) -> String {
    let letter = |b: &u8| if b.is_ascii_alphanumeric() { b.to_ascii_uppercase() as char } else { '_' };
    "SIP_HF_".chars().chain(header.iter().map(letter)).collect()
}
