//! Adding, finding and removing headers.

use super::Sipmsgops;
use crate::pattern::Pattern;
use bytes::Bytes;
use host::registrar::Since;
use host::{Call, Head, HeadLines, OutVar, Registrar, Routes, Text};
use script::ast::Dialect;
use script::posix::{self, Case};
use sip::{Anchor, Header, HeaderName, Message};

pub fn register(m: &mut Registrar<Sipmsgops>) {
    let replying = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::ERROR);
    let any =
        Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("append_to_reply", replying, append_to_reply);
    m.function("append_body_to_reply", replying, append_body_to_reply);
    m.function("append_hf", any, append_hf);
    m.function("insert_hf", any, insert_hf);
    m.function("append_urihf", Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH), append_urihf);
    m.function("append_time", replying.and(Routes::LOCAL), append_time);
    m.function("is_present_hf", any, is_present_hf);
    m.function("remove_hf", any, remove_hf);
    m.function_of(Since::V21, "remove_hf", any, remove_hf_match);
    m.function("remove_hf_re", any, remove_hf_re);
    m.function("remove_hf_glob", any, remove_hf_glob);
    m.function("get_glob_headers_values", any, get_glob_headers_values);
}

/// append_to_reply(lines): for every reply that is made here to this request.
fn append_to_reply(call: &mut Call<Sipmsgops>, lines: HeadLines) -> i32 {
    call.ctx.state.reply_headers.push(lines.0);
    1
}

/// append_body_to_reply(body): the first one stays.
fn append_body_to_reply(call: &mut Call<Sipmsgops>, body: Text) -> i32 {
    if call.ctx.state.reply_body.is_none() {
        call.ctx.state.reply_body = Some(Box::new((Bytes::new(), body.0)));
    }
    1
}

/// Whether a header bears this name, in full or compact on either side.
pub fn bears(msg: &Message, header: &Header, name: &[u8]) -> bool {
    match HeaderName::parse(name) {
        HeaderName::Other => {
            header.name == HeaderName::Other && msg.bytes(header.label()).eq_ignore_ascii_case(name)
        }
        known => header.name == known,
    }
}

/// Whether a pattern means a header: as it is written, or its full name when that is the compact form.
fn meant(msg: &Message, header: &Header, matches: impl Fn(&[u8]) -> bool) -> bool {
    let (label, full) = (msg.bytes(header.label()), header.full_name(msg));
    matches(label) || (full.len() != label.len() && matches(full))
}

/// The headers that bear a name.
pub fn named<'a>(msg: &'a Message, name: &'a [u8]) -> impl Iterator<Item = &'a Header> {
    msg.headers().iter().filter(move |header| bears(msg, header, name))
}

/// The header that another one is put next to. From 3.x on an unknown name is looked for in the case it is
/// written in.
fn anchor<'a>(msg: &'a Message, name: &'a [u8], dialect: Dialect) -> Option<&'a Header> {
    let exact = dialect == Dialect::V4 && HeaderName::parse(name) == HeaderName::Other;
    named(msg, name).find(|header| !exact || msg.bytes(header.label()) == name)
}

/// append_hf(lines, [header]): after that header, else after the last one.
fn append_hf(call: &mut Call<Sipmsgops>, lines: HeadLines, after: Option<Text>) -> i32 {
    let msg = call.ctx.state.msg.clone();
    let dialect = call.ctx.core.shared.dialect;
    let anchor = after.and_then(|name| anchor(&msg, &name, dialect).map(|h| Anchor::At(h.whole().end)));
    call.ctx.state.edits.insert(anchor.unwrap_or(Anchor::End), lines.0);
    1
}

/// insert_hf(lines, [header]): before that header, else before the first one.
fn insert_hf(call: &mut Call<Sipmsgops>, lines: HeadLines, before: Option<Text>) -> i32 {
    let msg = call.ctx.state.msg.clone();
    let dialect = call.ctx.core.shared.dialect;
    let anchor = before.and_then(|name| anchor(&msg, &name, dialect).map(|h| Anchor::At(h.whole().start)));
    call.ctx.state.edits.insert(anchor.unwrap_or(Anchor::Top), lines.0);
    1
}

/// append_urihf(prefix, suffix): a header around the R-URI as received.
fn append_urihf(call: &mut Call<Sipmsgops>, prefix: Head, suffix: HeadLines) -> i32 {
    let uri = call.ctx.state.msg.request_uri();
    let line = [&prefix.0[..], &uri, &suffix.0].concat();
    call.ctx.state.edits.insert(Anchor::End, line);
    1
}

/// append_time(): a Date header for the replies.
fn append_time(call: &mut Call<Sipmsgops>) -> i32 {
    let date = host::clock::rfc1123((call.ctx.core.wall_us / 1_000_000) as i64);
    call.ctx.state.reply_headers.push(format!("Date: {date}\r\n").into());
    1
}

fn is_present_hf(call: &mut Call<Sipmsgops>, name: Text) -> bool {
    named(&call.ctx.state.msg, &name).next().is_some()
}

/// remove_hf(name): true when there was one that was not removed before.
fn remove_hf(call: &mut Call<Sipmsgops>, name: Text) -> i32 {
    remove(call, |msg, header| bears(msg, header, &name))
}

/// 2.1: remove_hf(pattern, "r" for a regular expression or "g" for wildcards)
fn remove_hf_match(call: &mut Call<Sipmsgops>, pattern: Text, kind: Text) -> i32 {
    match (&kind[..], posix::compile_lines(&pattern, Case::Ignore)) {
        (b"g", _) => remove(call, |msg, header| meant(msg, header, |name| glob(&pattern, name))),
        (b"r", Ok(regex)) => remove(call, |msg, header| meant(msg, header, |name| regex.is_match(name))),
        (b"r", Err(error)) => {
            host::error!("sipmsgops", "remove_hf {}: {error}", pattern.str());
            -1
        }
        _ => {
            host::error!("sipmsgops", "remove_hf: matching `{}` is neither r nor g", kind.str());
            -1
        }
    }
}

fn remove(call: &mut Call<Sipmsgops>, wanted: impl Fn(&Message, &Header) -> bool) -> i32 {
    let msg = call.ctx.state.msg.clone();
    // From 3.x on a header that is removed already is none.
    let counts_removed = call.ctx.core.shared.dialect == Dialect::V21;
    let mut found = -1;
    let top = msg.header(HeaderName::Via).map(|via| via.whole().start);
    for header in msg.headers().iter().filter(|h| wanted(&msg, h)) {
        if !counts_removed && call.ctx.state.edits.is_deleted(header.whole()) {
            continue;
        }
        // Without the first Via no reply finds its way.
        if Some(header.whole().start) != top {
            call.ctx.state.edits.delete(header.whole());
        }
        found = 1;
    }
    found
}

/// remove_hf_re(regexp): on the names, without regard to case.
fn remove_hf_re(call: &mut Call<Sipmsgops>, pattern: Pattern) -> i32 {
    remove(call, |msg, header| meant(msg, header, |name| pattern.0.is_match(name)))
}

/// remove_hf_glob(pattern): `*`, `?` and `[...]`, with regard to case.
fn remove_hf_glob(call: &mut Call<Sipmsgops>, pattern: Text) -> i32 {
    remove(call, |msg, header| meant(msg, header, |name| glob(&pattern, name)))
}

/// get_glob_headers_values(pattern, $avp(names), $avp(values)): of the headers whose names match.
fn get_glob_headers_values(call: &mut Call<Sipmsgops>, pattern: Text, names: OutVar, values: OutVar) -> bool {
    let msg = call.ctx.state.msg.clone();
    let mut found = false;
    for header in msg.headers().iter().filter(|h| meant(&msg, h, |name| glob(&pattern, name))) {
        found =
            names.set(call.ctx, msg.text(header.label())) && values.set(call.ctx, msg.text(header.value()));
        if !found {
            return false;
        }
    }
    found
}

/// Shell wildcards. Iterative with one point to go back to: no pattern takes more than |p|·|t| steps.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) if t == text.len() => None,
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], text[t]),
            Some(c) if *c == text[t] => Some(1),
            Some(_) => None,
        };
        match (step, back) {
            (Some(used), _) => {
                p += used;
                t += 1;
            }
            (None, Some((after, at))) if at < text.len() => {
                back = Some((after, at + 1));
                p = after;
                t = at + 1;
            }
            _ => return false,
        }
    }
}

/// `[a-z]`, `[!x]`: how long the class is when `byte` is in it.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|b| *b == b']')?;
    let set = &pattern[start..end];
    let mut inside = false;
    let mut i = 0;
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == b'-' {
            inside |= (set[i]..=set[i + 2]).contains(&byte);
            i += 3;
        } else {
            inside |= set[i] == byte;
            i += 1;
        }
    }
    (inside != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("X-*", "X-A", true),
            ("X-*", "x-a", false),
            ("*", "", true),
            ("X-?", "X-AB", false),
            ("X-[AB]", "X-B", true),
            ("X-[!AB]", "X-B", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("X-[a-f]*", "X-foo", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
