//! Requests that this server itself sends: `t_replicate`, `t_new_request`.

use super::Tm;
use bytes::Bytes;
use host::{Call, Text};

/// t_replicate(uri, [flags]): a copy goes to another server, whose replies nobody sees.
pub fn replicate(call: &mut Call<Tm>, uri: Text, _flags: Option<Text>) -> i32 {
    host::tm::replicate(call.ctx, &uri.0)
}

/// "[display ]URI" as a header value.
fn address(text: &str) -> String {
    match text.trim().rsplit_once(' ') {
        Some((display, uri)) => format!("\"{}\" <{uri}>", display.trim().trim_matches('"')),
        None => format!("<{}>", text.trim()),
    }
}

/// t_new_request(method, ruri, from, to, [body], [context])
pub fn new_request(call: &mut Call<Tm>, method: Text, uri: Text, from: Text, to: Text, body: Option<Text>, context: Option<Text>) -> i32 {
    let ctx = &mut *call.ctx;
    let (content_type, body) = match &body {
        Some(text) => match text.0.iter().position(|b| *b == b' ') {
            Some(at) => (text.0.slice(..at), text.0.slice(at + 1..)),
            None => (text.0.clone(), Bytes::new()),
        },
        None => (Bytes::new(), Bytes::new()),
    };
    let tag = format!("{:016x}", ctx.core.rng.next_u64());
    let call_id = format!("{:016x}@fermata", ctx.core.rng.next_u64());
    let mut text = format!(
        "{method} {uri} SIP/2.0\r\nTo: {}\r\nFrom: {};tag={tag}\r\nCall-ID: {call_id}\r\nCSeq: 10 {method}\r\nMax-Forwards: 70\r\n",
        address(&to.str()),
        address(&from.str()),
        method = method.str(),
        uri = uri.str(),
    );
    if !content_type.is_empty() {
        text.push_str(&format!("Content-Type: {}\r\n", String::from_utf8_lossy(&content_type)));
    }
    let agent = String::from_utf8_lossy(&ctx.core.shared.signature.user_agent).into_owned();
    if !agent.is_empty() {
        text.push_str(&format!("User-Agent: {agent}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let bytes = [text.as_bytes(), &body].concat();
    host::tm::send_request(ctx, bytes.into(), &uri.0, context.map(|c| c.0))
}
