//! The index of a message: where the start line and the headers are, nothing copied.

use crate::parse::{self, line_end};
use crate::scan::{self, Nesting};
use crate::{CSeq, Header, HeaderName, Method, NameAddr, Via};
use bytes::Bytes;
use smallvec::SmallVec;
use std::cell::OnceCell;
use std::ops::Range;

/// Largest message that is accepted, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024 - 1;
/// Largest number of header lines of one message.
pub const MAX_HEADERS: usize = 256;

/// A range of bytes of a message's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    /// From offsets in a text of at most 4 GiB.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }
    /// As an index of slices.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
    /// How many bytes it has.
    pub fn len(self) -> usize {
        self.range().len()
    }
    /// It has no bytes.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
    /// The whole of `other` lies inside.
    pub fn contains(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }
    /// The same range in a text that begins `offset` bytes earlier.
    pub fn moved_by(self, offset: u32) -> Span {
        Span { start: self.start + offset, end: self.end + offset }
    }
}

/// Why bytes are not a SIP message. Says what an answer could be (RFC 4475).
#[derive(Clone, Debug, PartialEq)]
pub enum ParseError {
    /// CRLF keep-alive or only blanks: not an error of the peer, drop silently.
    KeepAlive,
    /// No start line that could be SIP.
    StartLine(&'static str),
    /// A header line that cannot be read; offset in the buffer.
    Header(&'static str, u32),
    /// Longer than the limits of this crate (64 KiB, headers' count).
    TooLarge,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParseError::KeepAlive => f.write_str("keep-alive"),
            ParseError::StartLine(why) => write!(f, "bad start line: {why}"),
            ParseError::Header(why, at) => write!(f, "bad header at byte {at}: {why}"),
            ParseError::TooLarge => f.write_str("message too large or too many headers"),
        }
    }
}

impl std::error::Error for ParseError {}

/// The first line of a message, and where its parts stand.
#[derive(Clone, Debug)]
pub enum StartLine {
    /// `INVITE sip:a@b SIP/2.0`
    #[expect(missing_docs, reason = "the names say it")]
    Request { method: Method, method_text: Span, uri: Span, version: Span },
    /// `SIP/2.0 200 OK`
    #[expect(missing_docs, reason = "the names say it")]
    Reply { status: u16, reason: Span, version: Span },
}

/// A message: its bytes and an index of them. Cloning shares the bytes.
///
/// Accessors look only at what they are asked for; a header that does not parse reads as absent
/// (`None`) and never panics.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) buf: Bytes,
    pub(crate) start: StartLine,
    pub(crate) line: Span,
    /// In the order of the message. Invariant: spans lie in `buf`, `whole` spans touch each other.
    pub(crate) headers: SmallVec<[Header; 16]>,
    pub(crate) headers_end: u32,
    pub(crate) body: Span,
    /// The topmost Via, parsed when it is first asked for: many steps of a message's way need it.
    pub(crate) top_via: OnceCell<Option<Box<Via>>>,
    /// What To says of its tag, read when it is first asked for, for the same reason.
    pub(crate) to_tag: OnceCell<ToTag>,
    /// See `remembered`.
    pub(crate) note: OnceCell<(u64, Option<u128>)>,
}

/// The tag of To.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ToTag {
    /// There is no To that can be read.
    Unreadable,
    None,
    /// An empty one stands nowhere.
    At(Span),
}

impl Message {
    /// Indexes one datagram or one stream frame. Leading CRLFs are skipped (kept in the buffer).
    /// Takes a missing or wrong Content-Length as it comes: see `body`.
    pub fn parse(buf: Bytes) -> Result<Message, ParseError> {
        parse::message(buf)
    }

    /// All bytes of the message.
    pub fn buf(&self) -> &Bytes {
        &self.buf
    }

    /// Puts other bytes in a place, for all readers of this message. False: their number differs.
    pub fn overwrite(&mut self, span: Span, bytes: &[u8]) -> bool {
        if span.len() != bytes.len() || span.range().end > self.buf.len() {
            return false;
        }
        let mut buf = bytes::BytesMut::from(&self.buf[..]);
        buf[span.range()].copy_from_slice(bytes);
        self.buf = buf.freeze();
        use HeaderName::{CSeq, CallId, From, To, Via};
        let mut others = self.headers.iter().filter(|h| !matches!(h.name, Via | From | To | CallId | CSeq));
        if others.any(|header| header.whole().contains(span)) {
            // What was read stands where it stood, and the old bytes are not to be kept for it.
            if let Some(Some(via)) = self.top_via.get_mut() {
                via.move_to(&self.buf);
            }
        } else {
            (self.top_via, self.to_tag, self.note) = Default::default();
        }
        true
    }

    /// Zero-copy slice of the buffer.
    pub fn text(&self, span: Span) -> Bytes {
        self.buf.slice(span.range())
    }

    /// The bytes of a range.
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.buf[span.range()]
    }

    /// The first line.
    pub fn start(&self) -> &StartLine {
        &self.start
    }

    /// The whole first line, with its line end.
    pub fn start_line(&self) -> Span {
        self.line
    }

    /// A request, not a reply.
    pub fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// Method of a request; for a reply the method of its CSeq (`Other` if there is none).
    pub fn method(&self) -> Method {
        match self.start {
            StartLine::Request { method, .. } => method,
            StartLine::Reply { .. } => self.cseq_slices().map_or(Method::Other, |(_, m)| Method::parse(m)),
        }
    }

    /// As `method`, as written; empty for a reply without CSeq.
    pub fn method_text(&self) -> Bytes {
        match self.start {
            StartLine::Request { method_text, .. } => self.text(method_text),
            StartLine::Reply { .. } => self.cseq_parts().map_or_else(Bytes::new, |(_, m)| m),
        }
    }

    /// 0 for a request.
    pub fn status(&self) -> u16 {
        match self.start {
            StartLine::Request { .. } => 0,
            StartLine::Reply { status, .. } => status,
        }
    }

    /// Empty for a request.
    pub fn reason(&self) -> Bytes {
        match self.start {
            StartLine::Request { .. } => Bytes::new(),
            StartLine::Reply { reason, .. } => self.text(reason),
        }
    }

    /// "SIP/2.0" as written; other versions are accepted (RFC 3261 §21.5.6 leaves the answer to us).
    pub fn version(&self) -> Bytes {
        match self.start {
            StartLine::Request { version, .. } | StartLine::Reply { version, .. } => self.text(version),
        }
    }

    /// Empty for a reply.
    pub fn request_uri(&self) -> Bytes {
        match self.start {
            StartLine::Request { uri, .. } => self.text(uri),
            StartLine::Reply { .. } => Bytes::new(),
        }
    }

    /// All headers in the order of the message.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The first header of a name.
    pub fn header(&self, name: HeaderName) -> Option<&Header> {
        self.headers().iter().find(|h| h.name == name)
    }

    /// All headers of a name, in order.
    pub fn headers_of(&self, name: HeaderName) -> impl Iterator<Item = &Header> {
        self.headers().iter().filter(move |h| h.name == name)
    }

    /// Headers by any spelling: full, compact, any case; unknown names too.
    pub fn headers_named<'a>(&'a self, label: &'a [u8]) -> impl Iterator<Item = &'a Header> {
        let name = HeaderName::parse(label);
        self.headers().iter().filter(move |h| match name {
            HeaderName::Other => {
                h.name == HeaderName::Other
                    && !label.is_empty()
                    && self.bytes(h.label()).eq_ignore_ascii_case(label)
            }
            known => h.name == known,
        })
    }

    /// Value of the first such header, unfolded raw bytes.
    pub fn value(&self, name: HeaderName) -> Option<Bytes> {
        self.header(name).map(|h| self.text(h.value()))
    }

    /// Offset just after the last header line: where the empty line stands.
    pub fn headers_end(&self) -> u32 {
        self.headers_end
    }

    /// What follows the empty line, cut to Content-Length when that is smaller.
    pub fn body(&self) -> Span {
        self.body
    }

    /// `None` when absent or not a number; the first of several counts.
    pub fn content_length(&self) -> Option<u32> {
        self.number(HeaderName::ContentLength)
    }

    /// The topmost Via value.
    pub fn via(&self) -> Option<&Via> {
        self.top_via.get_or_init(|| self.parse_via().map(Box::new)).as_deref()
    }

    /// A number that its reader makes of the first line, Via, From, To, Call-ID and CSeq of this message and asks for
    /// again and again (the key of its transaction). `reader` names who made it: another one's is not taken for one's own.
    pub fn remembered(&self, reader: u64, make: impl FnOnce() -> Option<u128>) -> Option<u128> {
        match self.note.get() {
            Some((by, number)) if *by == reader => *number,
            Some(_) => make(),
            None => self.note.get_or_init(|| (reader, make())).1,
        }
    }

    fn parse_via(&self) -> Option<Via> {
        let value = self.header(HeaderName::Via)?.value();
        let (start, end) = scan::list(self.bytes(value), Nesting::Comments).next()?;
        let at = value.start as usize;
        Via::parse_part(&self.buf, at + start, at + end)
    }

    /// All Via values over all Via headers, top first; those that do not parse are left out.
    pub fn vias(&self) -> Vec<Via> {
        let mut all = Vec::new();
        for header in self.headers_of(HeaderName::Via) {
            let at = header.value().start as usize;
            let values = scan::list(self.bytes(header.value()), Nesting::Comments);
            all.extend(values.filter_map(|(a, b)| Via::parse_part(&self.buf, at + a, at + b)));
        }
        all
    }

    /// The value of From; `None`: it is missing or cannot be read.
    pub fn from(&self) -> Option<NameAddr> {
        self.address(HeaderName::From)
    }

    /// The value of To; `None`: it is missing or cannot be read.
    pub fn to(&self) -> Option<NameAddr> {
        self.address(HeaderName::To)
    }

    fn address(&self, name: HeaderName) -> Option<NameAddr> {
        let value = self.header(name)?.value();
        Some(NameAddr::parse_party(&self.text(value))?.moved_by(value.start))
    }

    /// What a value of From or To says of its tag; `None`: the value is missing or cannot be read.
    fn party_tag(&self, name: HeaderName) -> Option<Option<&[u8]>> {
        NameAddr::party_tag(self.bytes(self.header(name)?.value()))
    }

    /// The tag of From.
    pub fn from_tag(&self) -> Option<Bytes> {
        let tag = self.party_tag(HeaderName::From)??;
        (!tag.is_empty()).then(|| self.buf.slice_ref(tag))
    }

    /// Present and not empty: the request is inside a dialog.
    pub fn to_tag(&self) -> Option<Bytes> {
        match self.tag_of_to() {
            ToTag::At(span) if !span.is_empty() => Some(self.text(span)),
            _ => None,
        }
    }

    /// There is a To that can be read.
    pub fn has_to(&self) -> bool {
        !matches!(self.tag_of_to(), ToTag::Unreadable)
    }

    fn tag_of_to(&self) -> ToTag {
        *self.to_tag.get_or_init(|| match self.party_tag(HeaderName::To) {
            None => ToTag::Unreadable,
            Some(None) => ToTag::None,
            Some(Some([])) => ToTag::At(Span::default()),
            Some(Some(tag)) => {
                let start = scan::offset_of(&self.buf, tag);
                ToTag::At(Span::new(start, start + tag.len()))
            }
        })
    }

    /// `None` when the number is not a 32-bit number or the method is missing; see `cseq_parts`.
    pub fn cseq(&self) -> Option<CSeq> {
        let (number, method_text) = self.cseq_parts()?;
        Some(CSeq { number: scan::decimal(&number)?, method: Method::parse(&method_text), method_text })
    }

    /// Number and method of CSeq as written, whatever the number looks like.
    pub fn cseq_parts(&self) -> Option<(Bytes, Bytes)> {
        let (number, method) = self.cseq_slices()?;
        Some((self.buf.slice_ref(number), self.buf.slice_ref(method)))
    }

    /// The same, borrowed.
    pub fn cseq_slices(&self) -> Option<(&[u8], &[u8])> {
        let value = self.bytes(self.header(HeaderName::CSeq)?.value());
        let blank = value.iter().position(|&b| scan::is_lws(b))?;
        let method = scan::trim(&value[blank..]);
        let one_word = !method.is_empty() && !method.iter().any(|&b| scan::is_lws(b));
        one_word.then(|| (&value[..blank], method))
    }

    /// The value of Call-ID.
    pub fn call_id(&self) -> Option<Bytes> {
        self.value(HeaderName::CallId)
    }

    /// The same, borrowed.
    pub fn call_id_slice(&self) -> Option<&[u8]> {
        self.header(HeaderName::CallId).map(|header| self.bytes(header.value()))
    }

    /// All values, over all headers of this name, in order, commas outside quotes and <> split.
    /// A bare `*` in Contact is a NameAddr with uri `*`.
    pub fn addresses(&self, name: HeaderName) -> Result<Vec<NameAddr>, ParseError> {
        let mut all = Vec::new();
        for header in self.headers_of(name) {
            let offset = header.value().start;
            let list = NameAddr::parse_list(&self.text(header.value()))
                .ok_or(ParseError::Header("bad address", header.whole().start))?;
            all.extend(list.into_iter().map(|address| address.moved_by(offset)));
        }
        Ok(all)
    }

    /// The members of a comma-separated header over all its lines (Supported, Allow, ...), in order.
    pub fn list(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.headers_of(name).flat_map(|header| {
            let text = self.bytes(header.value());
            scan::list(text, Nesting::Angles).map(move |(start, end)| &text[start..end])
        })
    }

    /// The value of Max-Forwards; `None`: it is missing or no number.
    pub fn max_forwards(&self) -> Option<u32> {
        self.number(HeaderName::MaxForwards)
    }

    /// `None` when absent, not a number or above 32 bits.
    pub fn expires(&self) -> Option<u32> {
        self.number(HeaderName::Expires)
    }

    fn number(&self, name: HeaderName) -> Option<u32> {
        scan::decimal(self.bytes(self.header(name)?.value()))
    }

    /// Checks what RFC 3261 §8.1.1/§16.3 make mandatory; the text names the first thing missing.
    pub fn mandatory(&self) -> Result<(), &'static str> {
        if self.via().is_none() {
            return Err("Via");
        }
        if self.from().is_none() {
            return Err("From");
        }
        if !self.has_to() {
            return Err("To");
        }
        if self.call_id().is_none_or(|id| id.is_empty()) {
            return Err("Call-ID");
        }
        let Some(cseq) = self.cseq() else { return Err("CSeq") };
        match self.start {
            StartLine::Request { method_text, .. } if self.bytes(method_text) != &cseq.method_text[..] => {
                Err("CSeq method")
            }
            _ => Ok(()),
        }
    }

    /// Whether a reply can be built: a readable Via, To and CSeq, and a Content-Length that is a
    /// number if present. What OpenSIPS needs before a script sees the request or can answer it;
    /// the text names the first thing missing.
    pub fn answerable(&self) -> Result<(), &'static str> {
        if self.via().is_none() {
            return Err("Via");
        }
        match self.tag_of_to() {
            ToTag::Unreadable if self.header(HeaderName::To).is_some() => return Err("To"),
            ToTag::At(span) if span.is_empty() => return Err("To tag"),
            _ => {}
        }
        if self.header(HeaderName::CSeq).is_some() && self.cseq_slices().is_none() {
            return Err("CSeq");
        }
        if self.header(HeaderName::ContentLength).is_some() && self.content_length().is_none() {
            return Err("Content-Length");
        }
        Ok(())
    }

    /// The first header that may stand only once and stands twice: what a strict element answers
    /// with 400 (RFC 4475 §3.3.8, §3.3.9). The accessors read the first.
    pub fn repeated(&self) -> Option<HeaderName> {
        use HeaderName::{CSeq, CallId, ContentLength, From, MaxForwards, To};
        let mut seen = 0u64;
        self.headers.iter().map(|header| header.name).find(|&name| {
            let single = matches!(name, From | To | CallId | CSeq | MaxForwards | ContentLength);
            let bit = if single { 1 << name as u8 } else { 0 };
            let again = seen & bit != 0;
            seen |= bit;
            again
        })
    }

    /// A request of which only the headers that an answer copies are looked at (Via, From, To, Call-ID, CSeq, some
    /// others by chance): enough to tell whether it is new, and to refuse it. `None`: it cannot be answered.
    pub fn outline(bytes: Bytes) -> Option<Message> {
        parse::outline(bytes)
    }

    /// Length of the head at the front of a stream, the empty line included; `None`: it is not complete. `searched`
    /// is how much was looked at before without finding it. The same place where `parse` finds it.
    pub fn head_length(stream: &[u8], searched: usize) -> Option<usize> {
        // The line that was incomplete then may be empty.
        let from = searched.saturating_sub(2);
        memchr::memchr_iter(b'\n', &stream[from..]).find_map(|n| match stream[from + n + 1..] {
            [b'\n', ..] => Some(from + n + 2),
            [b'\r', b'\n', ..] => Some(from + n + 3),
            _ => None,
        })
    }

    /// What the first Content-Length of a head says: how much of a stream is its body (RFC 3261 §18.3). `None`: there
    /// is none, or no number.
    pub fn length_of(head: &[u8]) -> Option<u32> {
        let mut at = line_end(head, parse::first_line(head));
        while at < head.len() {
            let line = &head[at..parse::header_end(head, at)];
            if matches!(line[0] | 0x20, b'c' | b'l')
                && let Some((label_end, colon)) = parse::split_label(line)
                && HeaderName::parse(&line[..label_end]) == HeaderName::ContentLength
            {
                return scan::decimal(scan::trim(&line[colon + 1..]));
            }
            at += line.len();
        }
        None
    }

    /// Call-ID of raw bytes without a full parse: decides which worker owns the datagram.
    /// The same text as `call_id` of the parsed message.
    pub fn owner(datagram: &[u8]) -> Option<&[u8]> {
        raw_header(datagram, HeaderName::CallId, *b"ci")
    }

    /// Branch of the topmost Via of raw bytes without a full parse: decides who sent a request, or whose reply
    /// this is. The same text as `via().branch()` of the parsed message.
    pub fn via_branch(datagram: &Bytes) -> Option<Bytes> {
        let value = raw_header(datagram, HeaderName::Via, *b"vv")?;
        let (start, end) = scan::list(value, Nesting::Comments).next()?;
        let at = scan::offset_of(datagram, value);
        Via::parse_part(datagram, at + start, at + end)?.branch()
    }

    /// Whether raw bytes begin as a reply does.
    pub fn looks_like_reply(datagram: &[u8]) -> bool {
        scan::starts_with_nocase(&datagram[parse::first_line(datagram)..], b"SIP/")
    }
}

/// Value of the first header of this name in raw bytes; `initials`: what its forms begin with, in lower case.
fn raw_header(datagram: &[u8], name: HeaderName, initials: [u8; 2]) -> Option<&[u8]> {
    let start = parse::first_line(datagram);
    let mut at = line_end(datagram, start);
    while at < datagram.len() {
        if matches!(&datagram[at..], [b'\n', ..] | [b'\r', b'\n', ..]) {
            return None;
        }
        let line = &datagram[at..parse::header_end(datagram, at)];
        if initials.contains(&(line[0] | 0x20))
            && let Some((label_end, colon)) = parse::split_label(line)
            && HeaderName::parse(&line[..label_end]) == name
        {
            return Some(scan::trim(&line[colon + 1..]));
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests;
