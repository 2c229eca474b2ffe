//! The frame of what leaves: whatever came in, the next hop cuts the message where this server cut it. Lines end
//! in CRLF, one empty line ends the headers, and Content-Length is there at most once and true. Otherwise bytes
//! that were body, or behind it, for us would be a message of their own for the next server on a stream.

use crate::parse::{header_end, line_end, split_label};
use crate::{HeaderName, scan};
use bytes::Bytes;

/// What Content-Length must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Length {
    /// A datagram does without.
    RightIfThere,
    ThereAndRight,
}

/// The message of these lines (start line and headers, without the empty line) and this body.
pub(crate) fn finish(head: Vec<u8>, body: &[u8], length: Length) -> Bytes {
    let mut out =
        if is_regular(&head, body.len(), length) { head } else { regular(&head, body.len(), length) };
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out.into()
}

/// Nearly every message is: one look, nothing copied.
fn is_regular(head: &[u8], body: usize, length: Length) -> bool {
    let mut lengths = 0;
    let mut at = 0;
    while at < head.len() {
        let Some(end) = clean_line(head, at) else { return false };
        let line = &head[at..end];
        let folded = matches!(head.get(end), Some(b' ' | b'\t'));
        if at == 0 && folded || is_blank(line) {
            return false;
        }
        if at > 0 && matches!(line[0] | 0x20, b'c' | b'l') && (is_length(line) || folded && is_hidden(line)) {
            // A folded one is written anew.
            if folded || !is_right(line, body) {
                return false;
            }
            lengths += 1;
        }
        at = end;
    }
    at > 0 && (lengths == 1 || lengths == 0 && length == Length::RightIfThere)
}

/// Where the line at `at` ends, if it ends in CRLF, has no other CR, and is not empty.
fn clean_line(head: &[u8], at: usize) -> Option<usize> {
    let text = scan::find(&head[at..], [b'\r', b'\n']).filter(|text| *text > 0)?;
    head[at + text..].starts_with(b"\r\n").then_some(at + text + 2)
}

fn is_length(line: &[u8]) -> bool {
    split_label(line).is_some_and(|(end, _)| HeaderName::parse(&line[..end]) == HeaderName::ContentLength)
}

/// The colon may stand on the next line: no header for us (RFC 3261 §25.1), one for who joins the lines first.
fn is_hidden(line: &[u8]) -> bool {
    split_label(line).is_none()
}

/// A length that only those see who join lines first.
fn is_hidden_length(header: &[u8]) -> bool {
    let colon = scan::find(header, [b':']).filter(|_| is_hidden(header));
    colon.is_some_and(|colon| HeaderName::parse(scan::trim(&header[..colon])) == HeaderName::ContentLength)
}

fn is_right(line: &[u8], body: usize) -> bool {
    let Some((_, colon)) = split_label(line) else { return false };
    scan::decimal(scan::trim(&line[colon + 1..])).is_some_and(|n| n as usize == body)
}

/// The same lines as they must be. Content-Length stands where the first one stood.
fn regular(head: &[u8], body: usize, length: Length) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 64);
    let mut wanted = true;
    let first = line_end(head, 0);
    put_line(&head[..first], &mut out);
    // A fold without a header would join the start line.
    let mut at = first;
    while matches!(head.get(at), Some(b' ' | b'\t')) {
        at = line_end(head, at);
    }
    while at < head.len() {
        let end = header_end(head, at);
        let header = &head[at..end];
        if is_hidden_length(header) {
            // It was none for us.
        } else if !is_length(header) {
            header.split_inclusive(|&b| b == b'\n').for_each(|line| put_line(line, &mut out));
        } else if std::mem::take(&mut wanted) {
            let folded = line_end(header, 0) < header.len();
            if is_right(header, body) && !folded {
                put_line(header, &mut out);
            } else {
                put_length(body, &mut out);
            }
        }
        at = end;
    }
    if wanted && length == Length::ThereAndRight {
        put_length(body, &mut out);
    }
    out
}

fn put_length(body: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(body).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A fold with nothing in it: RFC 3261 allows it, and whoever trims lines takes it for the empty one.
fn is_blank(line: &[u8]) -> bool {
    matches!(line[0], b' ' | b'\t') && scan::trim(line).is_empty()
}

/// With CRLF at its end and blanks for carriage returns inside. Empty lines, and folds with nothing in them, are left out.
fn put_line(line: &[u8], out: &mut Vec<u8>) {
    if line.is_empty() || is_blank(line) {
        return;
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let end = line.iter().rposition(|&b| b != b'\r').map_or(0, |at| at + 1);
    if end == 0 {
        return;
    }
    out.extend(line[..end].iter().map(|&b| if b == b'\r' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}
