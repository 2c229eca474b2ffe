//! Methods, tags and the Request-URI.

use bytes::Bytes;
use host::{Call, Registrar, Routes, Text};
use sip::{HeaderName, Uri};

pub fn register<M: Default + Send + Sync + 'static>(m: &mut Registrar<M>) {
    let any =
        Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
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

pub fn has_totag<M>(call: &mut Call<M>) -> bool {
    call.ctx.state.msg.to_tag().is_some()
}

fn ruri<M>(call: &Call<'_, M>) -> Option<Uri> {
    Uri::parse(&call.ctx.state.current_uri()).ok()
}

/// ruri_has_param(name, [value]): without a value the parameter must have none either. The first one of
/// that name counts; case matters.
pub fn ruri_has_param<M>(call: &mut Call<M>, name: Text, value: Option<Text>) -> bool {
    let Some(uri) = ruri(call) else { return false };
    let Some((_, found)) = uri.params.iter().find(|(n, _)| *n == name.0) else { return false };
    match (found.filter(|found| !found.is_empty()), value) {
        (None, None) => true,
        (Some(found), Some(value)) => found == value.0,
        _ => false,
    }
}

/// ruri_add_param("name=value"): before the headers of the URI. As in the reference the parameter is added
/// and the result is -1 all the same.
pub fn ruri_add_param<M>(call: &mut Call<M>, param: Text) -> i32 {
    if param.is_empty() {
        return 1;
    }
    let Some(uri) = ruri(call) else { return -1 };
    let end = uri.text.len() - if uri.headers.is_empty() { 0 } else { uri.headers.len() + 1 };
    let new = [&uri.text[..end], b";", &param.0, &uri.text[end..]].concat();
    host::vars::uri::set_request(call.ctx, new.into());
    -1
}

pub fn ruri_del_param<M>(call: &mut Call<M>, name: Text) -> i32 {
    if name.is_empty() {
        return 1;
    }
    match ruri(call) {
        Some(uri) if uri.params.find(&name).is_some() => {
            call.ctx.state.ruri = Some(uri.without_param_exact(&name));
            1
        }
        _ => -1,
    }
}

/// ruri_tel2sip(): tel:+49-30 becomes sip:+49-30@<host of From>;user=phone. As in the reference the result
/// of a conversion is -1, that of any other URI 1.
pub fn ruri_tel2sip<M>(call: &mut Call<M>) -> i32 {
    let uri = call.ctx.state.current_uri();
    let Some(number) = uri.get(..4).filter(|s| s.eq_ignore_ascii_case(b"tel:")).map(|_| &uri[4..]) else {
        return 1;
    };
    let from = call.ctx.state.msg.from().and_then(|from| Uri::parse(&from.uri).ok());
    let Some(from) = from else { return -1 };
    let new = [b"sip:", number, b"@", &from.host, b";user=phone"].concat();
    host::vars::uri::set_request(call.ctx, new.into());
    -1
}

pub fn is_e164(user: &[u8]) -> bool {
    match user.strip_prefix(b"+") {
        Some(digits) => (2..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        None => false,
    }
}

pub fn is_uri_user_e164<M>(_: &mut Call<M>, uri: Text) -> bool {
    Uri::parse(&uri.0).ok().and_then(|u| u.user).is_some_and(|user| is_e164(&user))
}

/// is_privacy(type): among the values of the Privacy header.
fn is_privacy<M>(call: &mut Call<M>, kind: Text) -> bool {
    let msg = &call.ctx.state.msg;
    let has = |value: Bytes| value.split(|b| *b == b';').any(|v| v.trim_ascii().eq_ignore_ascii_case(&kind));
    msg.headers_of(HeaderName::Privacy).any(|h| has(msg.text(h.value())))
}
