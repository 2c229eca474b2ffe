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
    let mut at = line_end(head, 0);
    let mut clean = ends_in_crlf(&head[..at]) && !matches!(head.get(at), Some(b' ' | b'\t'));
    while clean && at < head.len() {
        let end = line_end(head, at);
        let line = &head[at..end];
        clean = ends_in_crlf(line);
        if matches!(line[0] | 0x20, b'c' | b'l') && is_length(line) {
            // A folded one is written anew.
            clean &= is_right(line, body) && !matches!(head.get(end), Some(b' ' | b'\t'));
            lengths += 1;
        }
        at = end;
    }
    clean && (lengths == 1 || lengths == 0 && length == Length::RightIfThere)
}

/// The line ends in CRLF, has no other CR, and is not empty.
fn ends_in_crlf(line: &[u8]) -> bool {
    memchr::memchr(b'\r', line).is_some_and(|at| at > 0 && at + 2 == line.len())
}

fn is_length(line: &[u8]) -> bool {
    split_label(line).is_some_and(|(end, _)| HeaderName::parse(&line[..end]) == HeaderName::ContentLength)
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
        if !is_length(header) {
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

/// With CRLF at its end and blanks for carriage returns inside. Empty lines are left out.
fn put_line(line: &[u8], out: &mut Vec<u8>) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let end = line.iter().rposition(|&b| b != b'\r').map_or(0, |at| at + 1);
    if end == 0 {
        return;
    }
    out.extend(line[..end].iter().map(|&b| if b == b'\r' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}
