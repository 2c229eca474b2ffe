//! Bodies: `$rb`, `$rb(application/sdp)`, `$cT`, and the parts of a multipart body.

use super::{pick, position};
use crate::ctx::{Ctx, MsgState};
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::Value;
use sip::{HeaderName, Message, Params};
use std::ops::Range;

/// Parts of one body that are looked at; the rest is passed over.
const MAX_PARTS: usize = 64;

pub fn register(table: &mut VarTable) {
    table.class("rb", |spec, _| {
        let mime = spec.inner.as_ref().map(|inner| inner.slice_ref(inner.trim_ascii()));
        Ok(VarKind::Other(Box::new(Body(mime.filter(|mime| !mime.is_empty())))))
    });
    table.simple("cT", ContentTypes);
}

/// One part of a body: a body that is no multipart has one part.
#[derive(Clone, Debug)]
pub struct Part {
    /// Value of its Content-Type; empty when it has none.
    pub content_type: Bytes,
    /// Place of its header lines in the whole body; empty when the body is no multipart.
    pub headers: Range<usize>,
    /// Its place in the whole body.
    pub span: Range<usize>,
}

impl Part {
    /// True when its type is this one; parameters of either do not count. A part without a type is plain text
    /// (RFC 2046 §5.1).
    pub fn is(&self, mime: &[u8]) -> bool {
        self.mime().eq_ignore_ascii_case(mime_of(mime))
    }

    /// Its type without parameters.
    pub fn mime(&self) -> &[u8] {
        match mime_of(&self.content_type) {
            [] => b"text/plain",
            mime => mime,
        }
    }

    /// The type as `$(cT[n])` names it: the types that the reference tells apart, in its words.
    fn name(&self) -> Bytes {
        let mime = self.mime().to_ascii_lowercase();
        let slash = memchr::memchr(b'/', &mime).unwrap_or(mime.len());
        let (kind, sub) = (&mime[..slash], mime.get(slash + 1..).unwrap_or_default());
        let kind = if KINDS.contains(&kind) { kind } else { b"unknown" };
        let known = SUBTYPES.iter().find(|(written, _)| *written == sub);
        [kind, b"/", known.map_or(&b"unknown"[..], |(_, name)| *name)].concat().into()
    }
}

const KINDS: [&[u8]; 4] = [b"text", b"message", b"application", b"multipart"];

/// Subtypes, and what OpenSIPS (`convert_mime2string_CT`) calls them.
const SUBTYPES: [(&[u8], &[u8]); 15] = [
    (b"plain", b"plain"),
    (b"cpim", b"cpim"),
    (b"sdp", b"sdp"),
    (b"cpl+xml", b"cplxml"),
    (b"pidf+xml", b"pidfxml"),
    (b"rlmi+xml", b"rlmixml"),
    (b"related", b"related"),
    (b"lpidf+xml", b"lpidfxml"),
    (b"xpidf+xml", b"xpidfxml"),
    (b"watcherinfo+xml", b"watcherinfoxml"),
    (b"external-body", b"external_body"),
    (b"xml+msrtc.pidf", b"xmlmsrtcpidf"),
    (b"simple-message-summary", b"sms"),
    (b"mixed", b"mixed"),
    (b"isup", b"isup"),
];

/// The type without its parameters.
pub fn mime_of(content_type: &[u8]) -> &[u8] {
    content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii()
}

/// The body as a script has left it so far.
pub fn current(state: &MsgState) -> Bytes {
    sip::edited_body(&state.msg, &state.edits)
}

/// The body that a script wrote through `$sdp` and its lines.
#[derive(Clone, Default)]
struct Written(Bytes);

/// Replaces the body, so that variables show it.
pub fn write(state: &mut MsgState, body: Bytes) {
    state.edits.set_body(body.clone());
    state.ext.set(Written(body));
}

/// The body as variables show it: the received one, or what `write` made of it. Other edits do not show, as in the
/// reference.
pub fn shown(state: &MsgState) -> Bytes {
    match state.ext.find::<Written>() {
        Some(written) => written.0.clone(),
        None => state.msg.text(state.msg.body()),
    }
}

/// The parts of `body`, whose headers are those of `msg`. Empty when the body is.
pub fn parts(msg: &Message, body: &Bytes) -> Vec<Part> {
    parts_of(msg.value(HeaderName::ContentType).unwrap_or_default(), body)
}

/// The parts of a body of this type. Empty when the body is, and when nobody says what it is.
pub fn parts_of(content_type: Bytes, body: &Bytes) -> Vec<Part> {
    if body.is_empty() || content_type.is_empty() {
        return Vec::new();
    }
    match boundary(&content_type) {
        Some(boundary) => split(body, &boundary),
        // Nobody can say where the parts of such a body are (RFC 2046 §5.1.1).
        None if mime_of(&content_type).get(..10).is_some_and(|m| m.eq_ignore_ascii_case(b"multipart/")) => {
            Vec::new()
        }
        None => vec![Part { content_type, headers: 0..0, span: 0..body.len() }],
    }
}

/// The boundary of `multipart/…;boundary=x` (RFC 2046 §5.1.1).
pub fn boundary(content_type: &Bytes) -> Option<Bytes> {
    if !mime_of(content_type).get(..10)?.eq_ignore_ascii_case(b"multipart/") {
        return None;
    }
    let semicolon = memchr::memchr(b';', content_type)?;
    let params = Params { text: content_type.slice(semicolon + 1..) };
    params.value(b"boundary").filter(|boundary| !boundary.is_empty())
}

fn split(body: &Bytes, boundary: &[u8]) -> Vec<Part> {
    let delimiter = [b"--", boundary].concat();
    let mut parts = Vec::new();
    let mut start = None;
    for at in memchr::memmem::find_iter(body, &delimiter) {
        if at > 0 && body[at - 1] != b'\n' {
            continue;
        }
        if let Some(start) = start.take() {
            // The line end before a delimiter belongs to the delimiter.
            let end = at.saturating_sub(if body[..at].ends_with(b"\r\n") { 2 } else { 1 });
            parts.extend(part(body, start..end.max(start)));
        }
        let after = at + delimiter.len();
        if body[after..].starts_with(b"--") || parts.len() >= MAX_PARTS {
            break;
        }
        start = memchr::memchr(b'\n', &body[after..]).map(|line| after + line + 1);
    }
    parts
}

/// Headers and body of one part; `None` when its headers do not end.
fn part(body: &Bytes, range: Range<usize>) -> Option<Part> {
    let text = &body[range.clone()];
    let mut content_type = Bytes::new();
    let mut at = 0;
    while at < text.len() {
        let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |line| at + line + 1);
        let line = text[at..end].trim_ascii();
        let headers = range.start..range.start + at;
        at = end;
        if line.is_empty() {
            return Some(Part { content_type, headers, span: range.start + at..range.end });
        }
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        if HeaderName::parse(line[..colon].trim_ascii()) == HeaderName::ContentType {
            content_type = body.slice_ref(line[colon + 1..].trim_ascii());
        }
    }
    None
}

/// `$rb`, with a type when one is asked for.
struct Body(Option<Bytes>);

impl Variable for Body {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let msg = &ctx.state.msg;
        let body = msg.text(msg.body());
        if self.0.is_none() && matches!(at, At::None | At::All) {
            return super::text_or_null(shown(&ctx.state));
        }
        let mut list = parts(msg, &body);
        if let Some(mime) = &self.0 {
            list.retain(|part| part.is(mime));
        }
        // All of a type is the first one, as in the reference.
        let at = if at == At::All { At::Index(0) } else { at };
        pick(&list, at, |part| Value::Str(body.slice(part.span.clone())))
    }
}

/// `$cT`: that of the message; by index those of the parts, of which a body that is no multipart has one. `[*]` is
/// that of the message and all of them, NULL without a body.
#[derive(Clone, Copy)]
struct ContentTypes;

impl Variable for ContentTypes {
    fn get(&self, ctx: &mut Ctx, at: At) -> Value {
        let msg = &ctx.state.msg;
        let main = msg.value(HeaderName::ContentType).map_or(Value::Null, super::text_or_null);
        let types = || -> Vec<Bytes> { parts(msg, &msg.text(msg.body())).iter().map(Part::name).collect() };
        match at {
            At::None => main,
            At::Append => Value::Null,
            At::All => match types() {
                types if types.is_empty() => Value::Null,
                types => {
                    let all: Vec<Bytes> = main.text().into_iter().chain(types).collect();
                    Value::Str(all.join(&b","[..]).into())
                }
            },
            At::Index(n) => {
                let types = types();
                position(types.len(), n).map_or(Value::Null, |i| super::text_or_null(types[i].clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_multipart_body() {
        let body = Bytes::from_static(
            b"preamble\r\n--b1\r\nContent-Type: application/sdp\r\n\r\nv=0\r\ns=one\r\n--b1\r\nc: text/plain\r\n\
              X-H: 1\r\n\r\nhello\r\n--b1\r\n\r\nbare\r\n--b1--\r\n--b1\r\n\r\nno\r\n",
        );
        let parts = split(&body, b"b1");
        let have: Vec<_> = parts.iter().map(|p| (&p.content_type[..], &body[p.span.clone()])).collect();
        let want: Vec<(&[u8], &[u8])> =
            vec![(b"application/sdp", b"v=0\r\ns=one"), (b"text/plain", b"hello"), (b"", b"bare")];
        assert_eq!(have, want);
        for text in ["", "--b1", "--b1\r\n", "--b1\r\nX: y\r\n--b1--", "x--b1\r\n\r\nz\r\n--b1--"] {
            assert!(split(&Bytes::from_static(text.as_bytes()), b"b1").is_empty(), "{text:?}");
        }
    }

    #[test]
    fn boundaries() {
        for (text, want) in [
            ("multipart/mixed;boundary=\"b1\"", Some("b1")),
            ("Multipart/Alternative; charset=x; BOUNDARY=zz", Some("zz")),
            ("application/sdp", None),
            ("multipart/mixed", None),
            ("multi", None),
        ] {
            let found = boundary(&Bytes::from_static(text.as_bytes()));
            assert_eq!(found.as_deref(), want.map(str::as_bytes), "{text}");
        }
    }
}
