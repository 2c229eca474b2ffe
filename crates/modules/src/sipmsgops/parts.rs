//! The parts of a body, to add and to remove (RFC 2046 §5.1), and how they are put together again.

use bytes::Bytes;
use host::MsgState;
use host::vars::body;
use sip::{Anchor, HeaderName, Message, Span};

/// Delimits the parts of a body that had one part before, as the reference does.
const BOUNDARY: &str = "OSS-unique-boundary-42";
/// Parts that a script may add to one body.
const MAX_ADDED: usize = 64;

#[derive(Clone)]
pub struct Part {
    /// With its parameters; empty when none is stated.
    pub content_type: Bytes,
    /// Header lines besides Content-Type for a part that was added, all of them for one that came.
    headers: Bytes,
    origin: Origin,
    pub content: Bytes,
    pub removed: bool,
}

#[derive(Clone)]
enum Origin {
    /// `lead`: what stands before its content in the body, delimiter and headers.
    Received {
        lead: Bytes,
    },
    Added,
}

impl Part {
    /// True when its type, without parameters, is this one. `*` stands for any type or subtype.
    pub fn is(&self, mime: &[u8]) -> bool {
        let own = body::mime_of(&self.content_type);
        // A part without a type is plain text (RFC 2046 §5.1).
        let own = if own.is_empty() { b"text/plain" } else { own };
        own.eq_ignore_ascii_case(body::mime_of(mime))
    }

    /// What says nothing about its type is taken for SDP, as in the reference.
    pub fn is_sdp(&self) -> bool {
        self.content_type.is_empty() || self.is(b"application/sdp")
    }

    fn is_new(&self) -> bool {
        matches!(self.origin, Origin::Added)
    }
}

/// The parts of the body of a message as a script has left them.
#[derive(Clone, Default)]
pub struct Parts {
    pub list: Vec<Part>,
    /// Its boundary when the body is a multipart.
    boundary: Option<Bytes>,
    /// From the last delimiter on.
    tail: Bytes,
    /// The body that these parts make, once they were stored.
    stored: Option<Bytes>,
    /// The header lines put in the place of Content-Type.
    header: Option<Bytes>,
}

impl Parts {
    /// Those that came: functions that look for a part do not see what the script added, as in the reference.
    pub fn received(&self) -> impl Iterator<Item = &Part> {
        self.list.iter().filter(|part| !part.is_new())
    }

    /// The parts now.
    pub fn of(state: &MsgState) -> Parts {
        let now = sip::edited_body(&state.msg, &state.edits);
        let Some(last) = state.ext.find::<Parts>() else { return Parts::read(own_type(&state.msg), &now) };
        if last.stored.as_ref() == Some(&now) {
            return last.clone();
        }
        // Something else changed the body since.
        let content_type = last.header.as_ref().map(type_in);
        let parts = Parts::read(content_type.unwrap_or_else(|| own_type(&state.msg)), &now);
        Parts { header: last.header.clone(), ..parts }
    }

    fn read(content_type: Bytes, text: &Bytes) -> Parts {
        let boundary = body::boundary(&content_type);
        let mut at = 0;
        let mut list = Vec::new();
        for part in body::parts_of(content_type, text) {
            list.push(Part {
                content_type: part.content_type,
                headers: text.slice(part.headers),
                origin: Origin::Received { lead: text.slice(at..part.span.start) },
                content: text.slice(part.span.clone()),
                removed: false,
            });
            at = part.span.end;
        }
        Parts { list, boundary, tail: text.slice(at..), ..Parts::default() }
    }

    pub fn is_multipart(&self) -> bool {
        self.boundary.is_some()
    }

    /// Adds a part at the end; false when there are too many.
    pub fn add(&mut self, content_type: Bytes, headers: Bytes, content: Bytes) -> bool {
        let added = self.list.iter().filter(|part| part.is_new()).count();
        let room = added < MAX_ADDED;
        if room {
            self.list.push(Part { content_type, headers, origin: Origin::Added, content, removed: false });
        }
        room
    }

    /// The body, and the header lines that must stand in the place of Content-Type, if they change.
    pub fn render(&self) -> (Bytes, Option<Bytes>) {
        let left: Vec<&Part> = self.list.iter().filter(|part| !part.removed).collect();
        match left[..] {
            [] => (Bytes::new(), Some(Bytes::new())),
            [only] if only.is_new() => {
                let lines = [b"Content-Type: ", &only.content_type[..], b"\r\n", &only.headers].concat();
                (only.content.clone(), Some(lines.into()))
            }
            [only] if self.received().count() > 1 => {
                (only.content.clone(), Some(type_last(&without_length(&only.headers))))
            }
            [only] => (self.packed(only), None),
            _ if self.received().count() > 1 => (self.repacked(&left), None),
            _ => {
                let boundary = free_boundary(&left);
                let header = format!("Content-Type: multipart/mixed;boundary={boundary}\r\n");
                (joined(&left, boundary.as_bytes()), Some(header.into()))
            }
        }
    }

    /// The only part that came, framed as it came.
    fn packed(&self, part: &Part) -> Bytes {
        let Origin::Received { lead } = &part.origin else { return part.content.clone() };
        [&lead[..], &part.content, &self.tail].concat().into()
    }

    /// Some parts of a multipart, with new ones before its end.
    fn repacked(&self, left: &[&Part]) -> Bytes {
        let delimiter = [b"--", &self.boundary.clone().unwrap_or_default()[..]].concat();
        let mut out = Vec::new();
        for part in left {
            match &part.origin {
                Origin::Received { lead } => {
                    // The line end before a delimiter goes with the part before it.
                    let lead = if out.is_empty() { lead.trim_ascii_start() } else { &lead[..] };
                    out.extend_from_slice(lead);
                }
                Origin::Added => {
                    if !out.is_empty() {
                        out.extend_from_slice(b"\r\n");
                    }
                    out.extend_from_slice(&delimiter);
                    out.extend_from_slice(b"\r\n");
                    push_headers(part, &mut out);
                }
            }
            out.extend_from_slice(&part.content);
        }
        out.extend_from_slice(&self.tail);
        out.into()
    }
}

fn push_headers(part: &Part, out: &mut Vec<u8>) {
    let lines_hold_type = !part.is_new() && !part.headers.is_empty();
    if !lines_hold_type && !part.content_type.is_empty() {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(&part.content_type);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&part.headers);
    out.extend_from_slice(b"\r\n");
}

fn joined(left: &[&Part], boundary: &[u8]) -> Bytes {
    let mut out = Vec::new();
    for part in left {
        out.extend_from_slice(b"--");
        out.extend_from_slice(boundary);
        out.extend_from_slice(b"\r\n");
        push_headers(part, &mut out);
        out.extend_from_slice(&part.content);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"--");
    out.extend_from_slice(boundary);
    out.extend_from_slice(b"--\r\n");
    out.into()
}

/// A boundary that no part holds.
fn free_boundary(left: &[&Part]) -> String {
    let held = |boundary: &str| {
        left.iter().any(|part| memchr::memmem::find(&part.content, boundary.as_bytes()).is_some())
    };
    let mut boundary = BOUNDARY.to_string();
    while held(&boundary) {
        boundary.push('x');
    }
    boundary
}

/// The headers of a part as headers of the message: its length is not the message's.
fn without_length(headers: &Bytes) -> Bytes {
    let mut out = Vec::with_capacity(headers.len());
    let mut keep = true;
    for line in headers.split_inclusive(|b| *b == b'\n') {
        if !matches!(line, [b' ' | b'\t', ..]) {
            let label = line.split(|b| *b == b':').next().unwrap_or_default().trim_ascii_end();
            keep = HeaderName::parse(label) != HeaderName::ContentLength;
        }
        if keep {
            out.extend_from_slice(line);
        }
    }
    out.into()
}

fn own_type(msg: &Message) -> Bytes {
    msg.value(HeaderName::ContentType).unwrap_or_default()
}

/// The same lines, Content-Type behind the others, as the reference writes them.
fn type_last(lines: &[u8]) -> Bytes {
    let all = lines.split_inclusive(|b| *b == b'\n');
    let (types, others): (Vec<&[u8]>, Vec<&[u8]>) =
        all.partition(|line| line.get(..13).is_some_and(|name| name.eq_ignore_ascii_case(b"content-type:")));
    [others.concat(), types.concat()].concat().into()
}

/// Value of the Content-Type among these lines.
fn type_in(lines: &Bytes) -> Bytes {
    let value = |line: &[u8]| {
        let colon = memchr::memchr(b':', line)?;
        let known = HeaderName::parse(line[..colon].trim_ascii_end()) == HeaderName::ContentType;
        known.then(|| lines.slice_ref(line[colon + 1..].trim_ascii()))
    };
    lines.split(|b| *b == b'\n').find_map(value).unwrap_or_default()
}

/// Makes these parts the body of the message.
pub fn store(state: &mut MsgState, mut parts: Parts) {
    let (text, header) = parts.render();
    place_header(state, &parts.header, header.as_ref());
    state.edits.set_body(text.clone());
    parts.stored = Some(text);
    parts.header = header;
    state.ext.set(parts);
}

/// Puts `lines` where Content-Type is; `before`: what was put there last time.
fn place_header(state: &mut MsgState, before: &Option<Bytes>, lines: Option<&Bytes>) {
    if before.as_ref() == lines {
        return;
    }
    let msg = state.msg.clone();
    let own: Vec<Span> = msg.headers_of(HeaderName::ContentType).map(|header| header.whole()).collect();
    if let Some(before) = before {
        own.iter().for_each(|line| state.edits.undelete(*line));
        state.edits.retain_inserted(|text| text != &before[..]);
    }
    let Some(lines) = lines else { return };
    own.iter().for_each(|line| state.edits.delete(*line));
    if !lines.is_empty() {
        let place = own.first().map_or(Anchor::End, |line| Anchor::At(line.start));
        state.edits.insert(place, lines.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "--b\r\nContent-Type: text/a\r\nX: 1\r\nContent-Length: 3\r\n\r\none\r\n--b\r\nc: text/b\r\n\r\ntwo\r\n--b--\r\n";

    fn read(content_type: &str, text: &str) -> Parts {
        let parts = Parts::read(
            Bytes::copy_from_slice(content_type.as_bytes()),
            &Bytes::copy_from_slice(text.as_bytes()),
        );
        let (same, header) = parts.render();
        if !parts.list.is_empty() {
            assert_eq!((&same[..], header), (text.as_bytes(), None));
        }
        parts
    }

    fn check(parts: &Parts, body: &str, header: Option<&str>) {
        let (text, lines) = parts.render();
        assert_eq!(String::from_utf8_lossy(&text), body);
        assert_eq!(lines.map(|l| String::from_utf8_lossy(&l).into_owned()), header.map(str::to_string));
    }

    #[test]
    fn one_part_more() {
        let mut parts = read("text/plain", "hi");
        assert!(parts.add("text/x".into(), "H: 1\r\n".into(), "new".into()));
        check(
            &parts,
            "--OSS-unique-boundary-42\r\nContent-Type: text/plain\r\n\r\nhi\r\n--OSS-unique-boundary-42\r\n\
             Content-Type: text/x\r\nH: 1\r\n\r\nnew\r\n--OSS-unique-boundary-42--\r\n",
            Some("Content-Type: multipart/mixed;boundary=OSS-unique-boundary-42\r\n"),
        );
        parts.list[0].removed = true;
        check(&parts, "new", Some("Content-Type: text/x\r\nH: 1\r\n"));
        parts.list[1].removed = true;
        check(&parts, "", Some(""));
    }

    #[test]
    fn parts_of_a_multipart() {
        let mut parts = read("multipart/mixed;boundary=b", TWO);
        parts.list[1].removed = true;
        check(&parts, "one", Some("X: 1\r\nContent-Type: text/a\r\n"));
        parts.list[1].removed = false;
        parts.list[0].removed = true;
        check(&parts, "two", Some("c: text/b\r\n"));
        assert!(parts.add("text/x".into(), Bytes::new(), "new".into()));
        check(
            &parts,
            "--b\r\nc: text/b\r\n\r\ntwo\r\n--b\r\nContent-Type: text/x\r\n\r\nnew\r\n--b--\r\n",
            None,
        );
    }

    #[test]
    fn a_boundary_that_stands_in_a_part_is_not_taken() {
        let mut parts = read("text/plain", "--OSS-unique-boundary-42--");
        parts.add("text/x".into(), Bytes::new(), "new".into());
        let (_, header) = parts.render();
        assert!(header.unwrap().ends_with(b"boundary-42x\r\n"));
    }
}
