//! Adding, finding and removing headers. Generic over the module: in 2.1 textops has them too.

use bytes::Bytes;
use host::{Call, Registrar, Routes, Text};
use regex::bytes::Regex;
use sip::{Anchor, Header, HeaderName, Message};

/// Registers the functions for a module.
pub fn register<M: Default + Send + Sync + 'static>(m: &mut Registrar<M>) {
    let replying = Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::ERROR);
    let any = Routes::REQUEST.and(Routes::ON_REPLY).and(Routes::FAILURE).and(Routes::BRANCH).and(Routes::LOCAL);
    m.function("append_to_reply", replying, append_to_reply);
    m.function("append_body_to_reply", replying, append_body_to_reply);
    m.function("append_hf", any, append_hf);
    m.function("insert_hf", any, insert_hf);
    m.function("append_urihf", Routes::REQUEST.and(Routes::FAILURE).and(Routes::BRANCH), append_urihf);
    m.function("append_time", replying.and(Routes::LOCAL), append_time);
    m.function("is_present_hf", any, is_present_hf);
    m.function("remove_hf", any, remove_hf);
    m.function("remove_hf_re", any, remove_hf_re);
    m.function("remove_hf_glob", any, remove_hf_glob);
}

/// append_to_reply(lines): for every reply that is made here to this request.
fn append_to_reply<M>(call: &mut Call<M>, lines: Text) -> i32 {
    call.ctx.state.reply_headers.push(lines.0);
    1
}

/// append_body_to_reply(body): the first one stays.
fn append_body_to_reply<M>(call: &mut Call<M>, body: Text) -> i32 {
    if call.ctx.state.reply_body.is_none() {
        call.ctx.state.reply_body = Some((Bytes::new(), body.0));
    }
    1
}

/// The first header of a name, in any spelling.
fn first<'a>(msg: &'a Message, name: &'a [u8]) -> Option<&'a Header> {
    msg.headers_named(name).next()
}

/// append_hf(lines, [header]): after that header, else after the last one.
fn append_hf<M>(call: &mut Call<M>, lines: Text, after: Option<Text>) -> i32 {
    let msg = call.ctx.state.msg.clone();
    let anchor = after.and_then(|name| first(&msg, &name).map(|h| Anchor::At(h.whole.end)));
    call.ctx.state.edits.insert(anchor.unwrap_or(Anchor::End), lines.0);
    1
}

/// insert_hf(lines, [header]): before that header, else before the first one.
fn insert_hf<M>(call: &mut Call<M>, lines: Text, before: Option<Text>) -> i32 {
    let msg = call.ctx.state.msg.clone();
    let anchor = before.and_then(|name| first(&msg, &name).map(|h| Anchor::At(h.whole.start)));
    call.ctx.state.edits.insert(anchor.unwrap_or(Anchor::Top), lines.0);
    1
}

/// append_urihf(prefix, suffix): a header around the R-URI as received.
fn append_urihf<M>(call: &mut Call<M>, prefix: Text, suffix: Text) -> i32 {
    let uri = call.ctx.state.msg.request_uri();
    let line = [&prefix.0[..], &uri, &suffix.0].concat();
    call.ctx.state.edits.insert(Anchor::End, line);
    1
}

/// append_time(): a Date header for the replies.
fn append_time<M>(call: &mut Call<M>) -> i32 {
    let date = host::clock::rfc1123((call.ctx.core.wall_us / 1_000_000) as i64);
    call.ctx.state.reply_headers.push(format!("Date: {date}\r\n").into());
    1
}

fn is_present_hf<M>(call: &mut Call<M>, name: Text) -> bool {
    first(&call.ctx.state.msg, &name).is_some()
}

/// Does a header bear this name? Known names: those the reference knows, in any form; `Subject` is not
/// one of them, so its compact form is another header there.
fn bears(msg: &Message, header: &Header, name: &[u8], known: HeaderName) -> bool {
    let literal = msg.bytes(header.label).eq_ignore_ascii_case(name);
    match known {
        HeaderName::Other | HeaderName::Subject => literal,
        known => header.name == known,
    }
}

/// remove_hf(name): true when there was one.
fn remove_hf<M>(call: &mut Call<M>, name: Text) -> i32 {
    let known = HeaderName::parse(&name);
    remove(call, |msg, header| bears(msg, header, &name, known))
}

fn remove<M>(call: &mut Call<M>, meant: impl Fn(&Message, &Header) -> bool) -> i32 {
    let msg = call.ctx.state.msg.clone();
    let mut found = -1;
    for header in msg.headers().iter().filter(|h| meant(&msg, h)) {
        call.ctx.state.edits.delete(header.whole);
        found = 1;
    }
    found
}

/// remove_hf_re(regexp): on the names, without regard to case.
fn remove_hf_re<M>(call: &mut Call<M>, pattern: Text) -> i32 {
    match compile(&pattern.str()) {
        Some(regex) => remove(call, |msg, header| regex.is_match(msg.bytes(header.label))),
        None => -1,
    }
}

fn compile(pattern: &str) -> Option<Regex> {
    let built = regex::bytes::RegexBuilder::new(pattern).case_insensitive(true).size_limit(1 << 20).build();
    if built.is_err() {
        host::error!("sipmsgops", "{pattern} is no regular expression");
    }
    built.ok()
}

/// remove_hf_glob(pattern): `*`, `?` and `[...]`, with regard to case.
fn remove_hf_glob<M>(call: &mut Call<M>, pattern: Text) -> i32 {
    remove(call, |msg, header| glob(&pattern, msg.bytes(header.label)))
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
