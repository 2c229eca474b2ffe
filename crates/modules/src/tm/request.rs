//! Requests that this server itself sends: `t_new_request`.

use super::Tm;
use bytes::Bytes;
use host::tm::{Answer, NewRequest};
use host::{Call, Ctx, Head, Registrar, Routes, Text};

pub fn register(m: &mut Registrar<Tm>) {
    m.function("t_new_request", Routes::ALL, new_request);
}

/// "[display ]URI" as a header value.
fn address(text: &str) -> String {
    match text.trim().rsplit_once(' ') {
        Some((display, uri)) => format!("{} <{uri}>", display.trim()),
        None => format!("<{}>", text.trim()),
    }
}

/// t_new_request(method, ruri, from, to, ["type body"], [context]): 1 on its way, -1 not.
fn new_request(
    call: &mut Call<Tm>,
    method: Head,
    uri: Head,
    from: Head,
    to: Head,
    body: Option<Text>,
    context: Option<Text>,
) -> i32 {
    let (content_type, body) = match &body {
        Some(text) => match text.0.iter().position(|b| *b == b' ') {
            Some(at) => (text.0.slice(..at), text.0.slice(at + 1..)),
            None => (text.0.clone(), Bytes::new()),
        },
        None => (Bytes::new(), Bytes::new()),
    };
    let text = |part: &Head| String::from_utf8_lossy(part).into_owned();
    let mut request =
        NewRequest::new(&text(&method), uri.0.clone(), &address(&text(&from)), &address(&text(&to)));
    if !content_type.is_empty() {
        request.headers =
            [b"Content-Type: ", &script::traced::on_one_line(&content_type)[..], b"\r\n"].concat().into();
    }
    request.body = body;
    request.context = context.map(|c| c.0);
    let whom = text(&uri);
    let done = move |_: &mut Ctx, answer: Answer| {
        if answer.reply.is_none() && answer.status != NOBODY_ANSWERED {
            host::warn!(
                "tm",
                "t_new_request: nothing is sent to {whom}: {}",
                String::from_utf8_lossy(&answer.reason)
            );
        }
    };
    host::tm::send_new(call.ctx, request, Some(Box::new(done)))
}

/// What stands for an answer when none came in time.
const NOBODY_ANSWERED: u16 = 408;
