//! What the dispatcher is asked: lines of `name: value`, and an empty one.

use super::Mediaproxy;
use super::streams::Description;
use bytes::Bytes;
use host::Ctx;
use sip::{HeaderName, Message};
use std::fmt::Write;

/// Longest question that dispatchers take, bytes.
const LONGEST: usize = 8191;

/// A line end in a value would begin a line of its own.
fn put(out: &mut String, name: &str, value: &[u8]) {
    let value: String =
        String::from_utf8_lossy(value).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = write!(out, "{name}: {value}\r\n");
}

/// `alice@example.com`: without scheme and parameters.
fn uri(msg: &Message, name: HeaderName) -> Bytes {
    let value = msg.value(name).unwrap_or_default();
    let uri = sip::NameAddr::parse(&value).map(|addr| addr.uri).unwrap_or_default();
    let has_scheme = uri.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sip:"));
    let uri = if has_scheme { uri.slice(4..) } else { uri };
    let end = uri.iter().position(|b| *b == b';').unwrap_or(uri.len());
    if end == 0 { Bytes::from_static(b"unknown") } else { uri.slice(..end) }
}

/// The CSeq of the request as its caller wrote it: an authentication may have changed the branch's.
fn cseq(ctx: &mut Ctx) -> Option<u32> {
    let own = |ctx: &mut Ctx| ctx.state.msg.cseq().map(|cseq| cseq.number);
    match ctx.state.txn.filter(|_| !ctx.state.msg.is_request()) {
        Some(id) => host::tm::with_request(ctx, id, own),
        None => own(ctx),
    }
}

/// The To tag; a provisional reply's is not final.
fn to_tag(msg: &Message) -> Bytes {
    let provisional = !msg.is_request() && msg.status() < 200;
    if provisional { Bytes::new() } else { msg.to_tag().unwrap_or_default() }
}

/// Asks for the streams of a description, or tells that a call was answered without one. `None`: the message lacks what is
/// needed, or it would be too long.
pub fn update(
    ctx: &mut Ctx,
    module: &Mediaproxy,
    dialog: &str,
    streams: Option<&Description>,
) -> Option<String> {
    let source = ctx.state.source.remote.ip().to_string();
    let signaling = module.signaling_ip.value(ctx).unwrap_or_else(|| source.into());
    let relay = module.media_relay.value(ctx).unwrap_or_default();
    let cseq = cseq(ctx);
    let msg = &ctx.state.msg;
    let (Some(call_id), Some(cseq)) = (msg.call_id(), cseq) else {
        host::error!("mediaproxy", "a message without Call-ID or CSeq");
        return None;
    };
    let agent = [HeaderName::UserAgent, HeaderName::Server].into_iter().find_map(|name| msg.value(name));
    let agent = agent.filter(|agent| !agent.is_empty()).unwrap_or(Bytes::from_static(b"unknown agent"));
    let mut out = String::from("update\r\n");
    put(&mut out, "type", if msg.is_request() { b"request" } else { b"reply" });
    put(&mut out, "dialog_id", dialog.as_bytes());
    put(&mut out, "call_id", &call_id);
    put(&mut out, "cseq", cseq.to_string().as_bytes());
    put(&mut out, "from_uri", &uri(msg, HeaderName::From));
    put(&mut out, "to_uri", &uri(msg, HeaderName::To));
    put(&mut out, "from_tag", &msg.from_tag().unwrap_or_default());
    put(&mut out, "to_tag", &to_tag(msg));
    put(&mut out, "user_agent", &agent);
    put(&mut out, "signaling_ip", &signaling);
    put(&mut out, "media_relay", &relay);
    if let Some(streams) = streams {
        put(&mut out, "media", streams.asked().as_bytes());
    }
    out.push_str("\r\n");
    if out.len() > LONGEST {
        host::error!(
            "mediaproxy",
            "the message has more to ask than the {LONGEST} bytes that a dispatcher takes"
        );
        return None;
    }
    Some(out)
}

/// Ends the session of a call.
pub fn remove(call_id: &[u8], from_tag: &[u8], to_tag: &[u8]) -> String {
    let mut out = String::from("remove\r\n");
    put(&mut out, "call_id", call_id);
    put(&mut out, "from_tag", from_tag);
    put(&mut out, "to_tag", to_tag);
    out.push_str("\r\n");
    out
}

/// The same for the call of the current message.
pub fn remove_current(ctx: &Ctx) -> Option<String> {
    let msg = &ctx.state.msg;
    Some(remove(&msg.call_id()?, &msg.from_tag().unwrap_or_default(), &to_tag(msg)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_on_their_lines() {
        let text = remove(b"a\r\nremove\r\ncall_id: b", b"1", b"");
        assert_eq!(text, "remove\r\ncall_id: a  remove  call_id: b\r\nfrom_tag: 1\r\nto_tag: \r\n\r\n");
    }
}
