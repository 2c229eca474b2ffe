//! Bodies, their parts, and the codecs and streams in their descriptions.

use super::Sipmsgops;
use super::parts::{self, Part, Parts};
use super::sdp::{Change, Codecs, Sdp};
use crate::pattern::Pattern;
use bytes::Bytes;
use host::registrar::Since;
use host::vars::body::mime_of;
use host::{Call, Checked, Head, Named, OutVar, Registrar, Routes, Text};
use script::ast::Dialect;
use script::{Diagnostic, Loc};
use sip::{HeaderName, Transport};

pub fn register(m: &mut Registrar<Sipmsgops>) {
    let any =
        Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("has_body_part", any, has_body_part);
    m.function("add_body_part", any, add_body_part);
    m.function("remove_body_part", any, remove_body_part);
    m.function("get_updated_body_part", any, get_updated_body_part);
    m.function_of(Since::V21, "has_body", any, has_body);
    m.function_of(Since::V21, "strip_body", any, strip_body);
    m.function_of(Since::V21, "add_body", any, add_body);
    m.function_of(Since::V21, "filter_body", any, filter_body);
    m.function("is_audio_on_hold", any, is_audio_on_hold);
    m.function("codec_exists", any, codec_exists);
    m.function("codec_exists_re", any, codec_exists_re);
    m.function("codec_delete", any, codec_delete);
    m.function("codec_delete_re", any, codec_delete_re);
    m.function("codec_delete_except_re", any, codec_delete_except_re);
    m.function("codec_move_up", any, codec_move_up);
    m.function("codec_move_up_re", any, codec_move_up_re);
    m.function("codec_move_down", any, codec_move_down);
    m.function("codec_move_down_re", any, codec_move_down_re);
    m.function("stream_exists", any, stream_exists);
    m.function("stream_delete", any, stream_delete);
}

fn is_multipart_type(mime: &[u8]) -> bool {
    mime.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

/// Whether the message says that its body is of this type.
fn has_type(call: &Call<Sipmsgops>, mime: &[u8]) -> bool {
    let own = call.ctx.state.msg.value(HeaderName::ContentType).unwrap_or_default();
    mime_of(&own).eq_ignore_ascii_case(mime)
}

/// The type of a body, `type/subtype`.
struct MimeType;

impl Named<Sipmsgops> for MimeType {
    const WHAT: &'static str = "a type, as application/sdp";

    fn check(text: &[u8], _: &mut host::Loader, _: &Sipmsgops) -> Result<(), Diagnostic> {
        let parts = text.split(|byte| *byte == b'/').filter(|part| !part.trim_ascii().is_empty());
        if text.is_empty() || parts.count() == 2 {
            return Ok(());
        }
        let error = Diagnostic::error(Loc::default(), "a type has two parts");
        Err(error.hint("as in \"application/sdp\""))
    }
}

/// has_body_part([type]): whether a part of this type came. Without a type a datagram always has one, as in
/// the reference.
fn has_body_part(call: &mut Call<Sipmsgops>, mime: Option<Checked<MimeType>>) -> bool {
    let state = &call.ctx.state;
    let nothing = state.msg.content_length().is_none_or(|length| length == 0);
    if state.source.transport != Transport::Udp && nothing {
        return false;
    }
    has_part(call, mime)
}

fn has_part(call: &mut Call<Sipmsgops>, mime: Option<Checked<MimeType>>) -> bool {
    let Some(mime) = mime else { return true };
    if is_multipart_type(&mime) {
        return has_type(call, &mime);
    }
    Parts::of(&call.ctx.state).received().any(|part| part.is(&mime))
}

/// 2.1: has_body([type]). A body of no type is taken for SDP.
fn has_body(call: &mut Call<Sipmsgops>, mime: Option<Checked<MimeType>>) -> bool {
    if call.ctx.state.msg.content_length().is_none_or(|length| length == 0) {
        return false;
    }
    let untyped = call.ctx.state.msg.header(HeaderName::ContentType).is_none();
    if untyped && mime.as_ref().is_some_and(|mime| mime.eq_ignore_ascii_case(b"application/sdp")) {
        return true;
    }
    has_part(call, mime)
}

/// add_body_part(body, type, [headers]): with header lines of its own.
fn add_body_part(call: &mut Call<Sipmsgops>, content: Text, mime: Head, headers: Option<Head>) -> bool {
    if content.is_empty() || mime.is_empty() {
        host::error!("sipmsgops", "add_body_part: body and type must not be empty");
        return false;
    }
    let mut parts = Parts::of(&call.ctx.state);
    let headers = headers.map_or_else(Bytes::new, |headers| headers.0);
    let added = parts.add(mime.0, headers, content.0);
    if added {
        parts::store(&mut call.ctx.state, parts);
    }
    added
}

/// remove_body_part([type], [revert]): those of this type, or all others; all without a type.
fn remove_body_part(call: &mut Call<Sipmsgops>, mime: Option<Text>, revert: Option<Text>) -> bool {
    remove_parts(call, |part| mime.as_ref().is_none_or(|mime| part.is(mime) != revert.is_some()))
}

fn remove_parts(call: &mut Call<Sipmsgops>, meant: impl Fn(&Part) -> bool) -> bool {
    let mut parts = Parts::of(&call.ctx.state);
    let mut removed = false;
    for part in parts.list.iter_mut().filter(|part| !part.removed && meant(part)) {
        part.removed = true;
        removed = true;
    }
    if removed {
        parts::store(&mut call.ctx.state, parts);
    }
    removed
}

/// 2.1: strip_body([type]): the whole body, or the parts of this type.
fn strip_body(call: &mut Call<Sipmsgops>, mime: Option<Text>) -> bool {
    match mime {
        Some(mime) if is_multipart_type(&mime) => has_type(call, &mime) && remove_parts(call, |_| true),
        Some(mime) => remove_parts(call, |part| part.is(&mime)),
        None => remove_parts(call, |_| true),
    }
}

/// 2.1: add_body(body, [type]) in the place of the one there is.
fn add_body(call: &mut Call<Sipmsgops>, content: Text, mime: Option<Head>) -> bool {
    let mut parts = Parts::of(&call.ctx.state);
    let old = parts.list.iter().all(|part| part.removed);
    if content.is_empty() || (old && mime.is_none()) {
        host::error!("sipmsgops", "add_body: a body without a type in a message without a body");
        return false;
    }
    match mime {
        Some(mime) => {
            parts.list.iter_mut().for_each(|part| part.removed = true);
            parts.add(mime.0, Bytes::new(), content.0);
            parts::store(&mut call.ctx.state, parts);
        }
        None => call.ctx.state.edits.set_body(content.0),
    }
    true
}

/// 2.1: filter_body(type): the body becomes the first part of this type. Content-Type stays for the script to
/// change.
fn filter_body(call: &mut Call<Sipmsgops>, mime: Text) -> bool {
    let parts = Parts::of(&call.ctx.state);
    let found = parts.list.iter().find(|part| !part.removed && part.is(&mime));
    let Some(part) = found.filter(|_| parts.is_multipart()) else { return false };
    call.ctx.state.edits.set_body([&part.content[..], b"\r\n"].concat().into());
    true
}

/// get_updated_body_part([type], variable): the body, or its first part of this type, with the changes made so
/// far; -2 when there is no such part.
fn get_updated_body_part(call: &mut Call<Sipmsgops>, mime: Option<Text>, out: OutVar) -> i32 {
    let parts = Parts::of(&call.ctx.state);
    if parts.list.is_empty() {
        return -1;
    }
    let text = match &mime {
        None => parts.render().0,
        Some(mime) => match parts.received().find(|part| !part.removed && part.is(mime)) {
            Some(part) => part.content.clone(),
            None => return -2,
        },
    };
    if out.set(call.ctx, text) { 1 } else { -1 }
}

/// The descriptions of the body.
fn descriptions(call: &Call<Sipmsgops>) -> Vec<Sdp> {
    let parts = Parts::of(&call.ctx.state);
    let described = parts.list.iter().filter(|part| !part.removed && part.is_sdp());
    described.map(|part| Sdp::parse(&part.content)).collect()
}

/// Changes the descriptions; false when `change` says so for each.
fn change(call: &mut Call<Sipmsgops>, mut change: impl FnMut(&mut Sdp) -> bool) -> bool {
    let mut parts = Parts::of(&call.ctx.state);
    let mut changed = false;
    for part in parts.list.iter_mut().filter(|part| !part.removed && part.is_sdp()) {
        let mut sdp = Sdp::parse(&part.content);
        if change(&mut sdp) {
            part.content = sdp.text();
            changed = true;
        }
    }
    if changed {
        parts::store(&mut call.ctx.state, parts);
    }
    changed
}

/// is_audio_on_hold(): whether any audio stream is.
fn is_audio_on_hold(call: &mut Call<Sipmsgops>) -> bool {
    descriptions(call).iter().any(|sdp| sdp.hold().is_some())
}

fn by_name<'a>(name: &'a Text, clock: &'a Option<Text>) -> Codecs<'a> {
    match clock {
        Some(clock) => Codecs::WithClock(name, clock),
        None => Codecs::Named(name),
    }
}

/// codec_exists(name, [clock]): the reference looks at the clock rate in 2.1 only.
fn codec_exists(call: &mut Call<Sipmsgops>, name: Text, clock: Option<Text>) -> bool {
    let clock = clock.filter(|_| call.shared().dialect == Dialect::V21);
    descriptions(call).iter().any(|sdp| sdp.has_codec(&by_name(&name, &clock)))
}

fn codec_exists_re(call: &mut Call<Sipmsgops>, names: Pattern) -> bool {
    descriptions(call).iter().any(|sdp| sdp.has_codec(&Codecs::Matching(&names.0)))
}

fn codec_delete(call: &mut Call<Sipmsgops>, name: Text, clock: Option<Text>) -> bool {
    change(call, |sdp| sdp.change_codecs(&by_name(&name, &clock), Change::Delete))
}

fn codec_delete_re(call: &mut Call<Sipmsgops>, names: Pattern) -> bool {
    change(call, |sdp| sdp.change_codecs(&Codecs::Matching(&names.0), Change::Delete))
}

/// codec_delete_except_re(regexp): all whose names do not match.
fn codec_delete_except_re(call: &mut Call<Sipmsgops>, names: Pattern) -> bool {
    change(call, |sdp| sdp.change_codecs(&Codecs::Other(&names.0), Change::Delete))
}

fn codec_move_up(call: &mut Call<Sipmsgops>, name: Text, clock: Option<Text>) -> bool {
    change(call, |sdp| sdp.change_codecs(&by_name(&name, &clock), Change::MoveUp))
}

fn codec_move_up_re(call: &mut Call<Sipmsgops>, names: Pattern) -> bool {
    change(call, |sdp| sdp.change_codecs(&Codecs::Matching(&names.0), Change::MoveUp))
}

fn codec_move_down(call: &mut Call<Sipmsgops>, name: Text, clock: Option<Text>) -> bool {
    change(call, |sdp| sdp.change_codecs(&by_name(&name, &clock), Change::MoveDown))
}

fn codec_move_down_re(call: &mut Call<Sipmsgops>, names: Pattern) -> bool {
    change(call, |sdp| sdp.change_codecs(&Codecs::Matching(&names.0), Change::MoveDown))
}

/// stream_exists(media, [transport]): regular expressions.
fn stream_exists(call: &mut Call<Sipmsgops>, media: Pattern, transport: Option<Pattern>) -> bool {
    let transport = transport.map(|pattern| pattern.0);
    descriptions(call).iter().any(|sdp| sdp.find_stream(&media.0, transport.as_ref()).is_some())
}

/// stream_delete(media, [transport]): the last stream that matches.
fn stream_delete(call: &mut Call<Sipmsgops>, media: Pattern, transport: Option<Pattern>) -> bool {
    let transport = transport.map(|pattern| pattern.0);
    let mut done = false;
    change(call, |sdp| {
        let found = sdp.find_stream(&media.0, transport.as_ref()).filter(|_| !done);
        done |= found.is_some();
        found.map(|stream| sdp.delete_stream(stream)).is_some()
    })
}
