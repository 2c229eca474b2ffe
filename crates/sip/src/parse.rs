//! The indexer: finds the start line, the header lines and the body, and copies nothing.

use crate::message::{MAX_HEADERS, MAX_MESSAGE, Message, ParseError, Span, StartLine};
use crate::scan::{self, is_lws, is_token_text, starts_with_nocase};
use crate::{Header, HeaderName, Method};
use bytes::Bytes;
use smallvec::SmallVec;

pub(crate) fn message(buf: Bytes) -> Result<Message, ParseError> {
    if buf.len() > MAX_MESSAGE {
        return Err(ParseError::TooLarge);
    }
    let start = first_line(&buf);
    if buf[start..].iter().all(|&b| is_lws(b) || b == 0) {
        return Err(ParseError::KeepAlive);
    }
    let end = line_end(&buf, start);
    if buf[end - 1] != b'\n' {
        return Err(ParseError::StartLine("no line end"));
    }
    let start_line = parse_start_line(&buf, start, end)?;
    let (headers, headers_end, body_start) = index_headers(&buf, end, |_| true)?;
    let mut message = Message {
        start: start_line,
        line: Span::new(start, end),
        headers,
        headers_end: headers_end as u32,
        body: Span::new(body_start, buf.len()),
        buf,
        top_via: Default::default(),
        to_tag: Default::default(),
        note: Default::default(),
    };
    if let Some(length) = message.content_length() {
        message.body.end = message.body.end.min(message.body.start.saturating_add(length));
    }
    Ok(message)
}

/// A request with the headers that its answer copies, and no others; no body. `None`: it is none, or not well formed.
pub(crate) fn outline(buf: Bytes) -> Option<Message> {
    let start = first_line(&buf);
    let end = line_end(&buf, start);
    let line = parse_start_line(&buf, start, end).ok()?;
    // Via, From, To, Call-ID, CSeq, and their compact forms.
    let copied = |header: &[u8]| matches!(header[0] | 0x20, b'v' | b'f' | b't' | b'c' | b'i');
    let (headers, headers_end, body_start) = index_headers(&buf, end, copied).ok()?;
    let message = Message {
        start: line,
        line: Span::new(start, end),
        headers,
        headers_end: headers_end as u32,
        body: Span::new(body_start, body_start),
        buf,
        top_via: Default::default(),
        to_tag: Default::default(),
        note: Default::default(),
    };
    (message.is_request() && message.answerable().is_ok()).then_some(message)
}

/// Offset of the start line: leading line ends are passed over (RFC 3261 §7.5).
pub(crate) fn first_line(buf: &[u8]) -> usize {
    buf.iter().take_while(|&&b| b == b'\r' || b == b'\n').count()
}

/// Offset after the line feed that ends the line at `at`, or the end of the buffer.
#[inline]
pub(crate) fn line_end(buf: &[u8], at: usize) -> usize {
    scan::find(&buf[at..], [b'\n']).map_or(buf.len(), |n| at + n + 1)
}

/// As `line_end`, with the folded lines that continue the header line at `at`.
pub(crate) fn header_end(buf: &[u8], at: usize) -> usize {
    let mut end = line_end(buf, at);
    while matches!(buf.get(end), Some(b' ' | b'\t')) {
        end = line_end(buf, end);
    }
    end
}

fn parse_start_line(buf: &[u8], start: usize, end: usize) -> Result<StartLine, ParseError> {
    // Trailing blanks are tolerated; a reply may have an empty reason.
    let line = &buf[start..start + scan::trimmed(&buf[start..end]).1];
    if scan::find(line, [b'\r']).is_some() {
        return Err(ParseError::StartLine("carriage return inside"));
    }
    let at = |from: usize, to: usize| Span::new(start + from, start + to);
    let first = scan::find(line, [b' ']).ok_or(ParseError::StartLine("one word"))?;
    if starts_with_nocase(line, b"SIP/") {
        let (status, reason) = parse_status(line, first)?;
        return Ok(StartLine::Reply { status, reason: at(reason, line.len()), version: at(0, first) });
    }
    let second = first
        + 1
        + scan::find(&line[first + 1..], [b' ', b'\t'])
            .ok_or(ParseError::StartLine("no version after the URI"))?;
    // Liberal, as the reference: more blanks than one, and tabs, stand before the version.
    let version = scan::skip_lws(line, second);
    let method = &line[..first];
    if !is_token_text(method) {
        return Err(ParseError::StartLine("method is not a token"));
    }
    if second == first + 1 {
        return Err(ParseError::StartLine("no URI"));
    }
    if !is_version(&line[version..]) {
        return Err(ParseError::StartLine("no version"));
    }
    Ok(StartLine::Request {
        method: Method::parse(method),
        method_text: at(0, first),
        uri: at(first + 1, second),
        version: at(version, line.len()),
    })
}

/// Status and offset of the reason.
fn parse_status(line: &[u8], version_end: usize) -> Result<(u16, usize), ParseError> {
    let code = &line[version_end + 1..];
    let digits = code.iter().take_while(|b| b.is_ascii_digit()).count();
    if !is_version(&line[..version_end]) {
        return Err(ParseError::StartLine("bad version"));
    }
    match scan::decimal(&code[..digits]) {
        Some(status @ 100..=699) if digits == 3 && code.get(3).is_none_or(|&b| b == b' ') => {
            Ok((status as u16, (version_end + 5).min(line.len())))
        }
        _ => Err(ParseError::StartLine("bad status code")),
    }
}

/// `SIP/2.0`, `SIP/3.0`, also `HTTP/1.1`: a name, a slash, two numbers.
fn is_version(text: &[u8]) -> bool {
    let Some(slash) = scan::find(text, [b'/']) else { return false };
    let mut numbers = text[slash + 1..].splitn(2, |&b| b == b'.');
    let mut number = || numbers.next().is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit));
    is_token_text(&text[..slash]) && number() && number()
}

type Headers = SmallVec<[Header; 16]>;

/// Headers that are wanted, the offset of the empty line, the offset after it.
fn index_headers(
    buf: &[u8],
    from: usize,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<(Headers, usize, usize), ParseError> {
    let mut headers = Headers::new();
    let mut at = from;
    if matches!(buf.get(at), Some(b' ' | b'\t')) {
        // Relayed, it would continue the Via that is put before it.
        return Err(ParseError::Header("folded line without a header", at as u32));
    }
    while at < buf.len() {
        match &buf[at..] {
            [b'\r', b'\n', ..] => return Ok((headers, at, at + 2)),
            [b'\n', ..] | [b'\r'] => return Ok((headers, at, at + 1)),
            // Whoever takes it for a line end sees another header than we do.
            [b'\r', _, ..] => {
                return Err(ParseError::Header("line begins with a carriage return", at as u32));
            }
            _ => {}
        }
        if headers.len() == MAX_HEADERS {
            return Err(ParseError::TooLarge);
        }
        let end = header_end(buf, at);
        if wanted(&buf[at..end]) {
            headers.push(index_header(buf, at, end));
        }
        at = end;
    }
    Ok((headers, at, at))
}

/// A line without a colon is kept (and relayed) as a header without label.
fn index_header(buf: &[u8], at: usize, end: usize) -> Header {
    let line = &buf[at..end];
    let Some((label_end, colon)) = split_label(line) else {
        return Header::new(HeaderName::Other, at..end, at, at..at);
    };
    let (start, stop) = scan::trimmed(&line[colon + 1..]);
    let value = at + colon + 1;
    Header::new(HeaderName::parse(&line[..label_end]), at..end, at + label_end, value + start..value + stop)
}

/// End of the label and offset of the colon; a colon after a fold does not count (RFC 3261 §25.1
/// HCOLON).
pub(crate) fn split_label(line: &[u8]) -> Option<(usize, usize)> {
    let colon = scan::find(line, [b':', b'\n']).filter(|&n| line[n] == b':')?;
    Some((line[..colon].iter().rposition(|&b| !is_lws(b)).map_or(0, |n| n + 1), colon))
}
