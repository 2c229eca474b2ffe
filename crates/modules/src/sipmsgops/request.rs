//! Methods, tags and the Request-URI.

use bytes::Bytes;
use host::{Call, Registrar, Routes, Text};
use sip::{HeaderName, Scheme, Uri};

pub fn register<M: Default + Send + Sync + 'static>(m: &mut Registrar<M>) {
    let any = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    let requests = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("is_method", any, is_method);
    m.function("has_totag", any, has_totag);
    m.function("ruri_has_param", requests, ruri_has_param);
    m.function("ruri_add_param", requests, ruri_add_param);
    m.function("ruri_del_param", requests, ruri_del_param);
    m.function("ruri_tel2sip", requests, ruri_tel2sip);
    m.function("is_uri_user_e164", any, is_uri_user_e164);
    m.function("is_privacy", any, is_privacy);
}

/// is_method("INVITE|ACK"): of a reply the method of its CSeq. Names of unknown methods are compared
/// without regard to case.
fn is_method<M>(call: &mut Call<M>, names: Text) -> bool {
    let method = call.ctx.state.msg.method_text();
    names.split(|b| *b == b'|').any(|name| method.eq_ignore_ascii_case(name.trim_ascii()))
}

fn has_totag<M>(call: &mut Call<M>) -> bool {
    call.ctx.state.msg.to_tag().is_some()
}

fn ruri<M>(call: &Call<'_, M>) -> Option<Uri> {
    Uri::parse(&call.ctx.state.current_uri()).ok()
}

/// ruri_has_param(name, [value]): without a value the parameter must have none either.
fn ruri_has_param<M>(call: &mut Call<M>, name: Text, value: Option<Text>) -> bool {
    let Some(found) = ruri(call).and_then(|uri| uri.params.find(&name)) else { return false };
    match (found, value) {
        (None, None) => true,
        (Some(found), Some(value)) => found.eq_ignore_ascii_case(&value),
        _ => false,
    }
}

/// ruri_add_param("name=value")
fn ruri_add_param<M>(call: &mut Call<M>, param: Text) -> i32 {
    let Some(uri) = ruri(call) else { return -1 };
    // Before the headers of the URI.
    let end = uri.text.len() - if uri.headers.is_empty() { 0 } else { uri.headers.len() + 1 };
    let new = [&uri.text[..end], b";", &param.0, &uri.text[end..]].concat();
    call.ctx.state.ruri = Some(new.into());
    1
}

fn ruri_del_param<M>(call: &mut Call<M>, name: Text) -> i32 {
    match ruri(call) {
        Some(uri) if uri.params.find(&name).is_some() => {
            call.ctx.state.ruri = Some(uri.with_param(&name, None));
            1
        }
        _ => -1,
    }
}

/// ruri_tel2sip(): tel:+49-30 becomes sip:+4930@<host of To>;user=phone.
fn ruri_tel2sip<M>(call: &mut Call<M>) -> i32 {
    let Some(uri) = ruri(call) else { return -1 };
    if !matches!(uri.scheme, Scheme::Tel | Scheme::Tels) {
        return 1;
    }
    let Some(host) = call.ctx.state.msg.from().and_then(|f| Uri::parse(&f.uri).ok()).map(|u| u.host) else { return -1 };
    let rest = uri.text.slice(uri.text.iter().position(|b| *b == b':').map_or(0, |i| i + 1)..);
    let new = [b"sip:", &rest[..], b"@", &host, b";user=phone"].concat();
    call.ctx.state.ruri = Some(new.into());
    1
}

fn is_e164(user: &[u8]) -> bool {
    match user.strip_prefix(b"+") {
        Some(digits) => (2..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        None => false,
    }
}

fn is_uri_user_e164<M>(_: &mut Call<M>, uri: Text) -> bool {
    Uri::parse(&uri.0).ok().and_then(|u| u.user).is_some_and(|user| is_e164(&user))
}

/// is_privacy(type): among the values of the Privacy header.
fn is_privacy<M>(call: &mut Call<M>, kind: Text) -> bool {
    let msg = &call.ctx.state.msg;
    let has = |value: Bytes| value.split(|b| *b == b';' || *b == b',').any(|v| v.trim_ascii().eq_ignore_ascii_case(&kind));
    msg.headers_of(HeaderName::Privacy).any(|h| has(msg.text(h.value)))
}
