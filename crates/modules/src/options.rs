//! options: answers OPTIONS requests for the server itself.

use host::{Call, Registrar, Routes};
use sip::{Method, Uri};

pub struct Options {
    accept: String,
    accept_encoding: String,
    accept_language: String,
    support: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            accept: "*/*".into(),
            accept_encoding: String::new(),
            accept_language: "en".into(),
            support: String::new(),
        }
    }
}

pub fn register(m: &mut Registrar<Options>) {
    m.param_text("accept", |s, v| Ok(s.accept = v.into()));
    m.param_text("accept_encoding", |s, v| Ok(s.accept_encoding = v.into()));
    m.param_text("accept_language", |s, v| Ok(s.accept_language = v.into()));
    m.param_text("support", |s, v| Ok(s.support = v.into()));
    m.function("options_reply", Routes::REQUEST, options_reply);
}

/// options_reply(): 200 with what the server accepts, and the script ends; -1 when this is no OPTIONS for the
/// server itself. Without any header to send it answers 500, as in the reference.
fn options_reply(call: &mut Call<Options>) -> i32 {
    let state = &call.ctx.state;
    if state.msg.method() != Method::Options {
        host::error!("options", "options_reply() is for OPTIONS requests");
        return -1;
    }
    let Ok(uri) = Uri::parse(&state.current_uri()) else { return -1 };
    if uri.user.is_some_and(|user| !user.is_empty()) {
        return -1;
    }
    let module = call.module.clone();
    let mut lines = String::new();
    for (name, value) in [
        ("Accept", &module.accept),
        ("Accept-Encoding", &module.accept_encoding),
        ("Accept-Language", &module.accept_language),
        ("Supported", &module.support),
    ] {
        if !value.is_empty() {
            lines += &format!("{name}: {value}\r\n");
        }
    }
    let (code, reason): (u16, &[u8]) = match lines.is_empty() {
        true => (500, b"Server internal error"),
        false => (200, b"OK"),
    };
    call.ctx.state.reply_headers.push(lines.into());
    if host::reply::send(call.ctx, code, reason) < 0 { -1 } else { 0 }
}
