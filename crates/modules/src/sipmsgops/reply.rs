//! Status of replies, and the message as JSON.

use super::Sipmsgops;
use host::tm::ReplyStatus;
use host::{Call, Head, Int, OutVar, Registrar, Routes};
use serde_json::Value as Json;
use sip::Message;

pub fn register(m: &mut Registrar<Sipmsgops>) {
    let any =
        Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("change_reply_status", Routes::ON_REPLY, change_reply_status);
    m.function("sip_to_json", any, sip_to_json);
}

/// change_reply_status(code, reason): provisional and 2xx replies keep their class, and no other gets theirs.
fn change_reply_status(call: &mut Call<Sipmsgops>, code: Int, reason: Head) -> bool {
    let received = i64::from(call.ctx.state.msg.status());
    let class_kept = code.0 / 100 == received / 100;
    if !(100..700).contains(&code.0) || ((code.0 < 300 || received < 300) && !class_kept) {
        host::error!("sipmsgops", "change_reply_status: {received} cannot become {}", code.0);
        return false;
    }
    let clean: Vec<u8> = reason.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    call.ctx.state.ext.set(ReplyStatus { code: code.0 as u16, reason: clean.into() });
    true
}

/// sip_to_json(variable): first line, headers by name, body.
fn sip_to_json(call: &mut Call<Sipmsgops>, out: OutVar) -> bool {
    let text = json_of(&call.ctx.state.msg);
    out.set(call.ctx, bytes::Bytes::from(text))
}

fn json_of(msg: &Message) -> String {
    let text = |bytes: &[u8]| Json::from(String::from_utf8_lossy(bytes)).to_string();
    // Names that differ in case only share a list, under the first spelling.
    let mut headers: Vec<(&[u8], Vec<String>)> = Vec::new();
    for header in msg.headers() {
        let (label, value) = (header.full_name(msg), text(msg.bytes(header.value())));
        match headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(label)) {
            Some((_, values)) => values.push(value),
            None => headers.push((label, vec![value])),
        }
    }
    let lists = headers.iter().map(|(name, values)| format!("{}:[{}]", text(name), values.join(",")));
    let headers = lists.collect::<Vec<_>>().join(",");
    let body = msg.bytes(msg.body());
    let body = if body.is_empty() { String::new() } else { format!(",\"body\":{}", text(body)) };
    format!("{{\"first_line\":{},\"headers\":{{{headers}}}{body}}}", text(msg.bytes(msg.start_line())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_json() {
        let raw = "BYE sip:a SIP/2.0\r\nX-A: \"q\"\r\nTo: <sip:b>\r\nx-a: 2\r\n\r\nhi";
        let want = r#"{"first_line":"BYE sip:a SIP/2.0\r\n","headers":{"X-A":["\"q\"","2"],"To":["<sip:b>"]},"body":"hi"}"#;
        assert_eq!(json_of(&Message::parse(raw.into()).unwrap()), want);
    }
}
