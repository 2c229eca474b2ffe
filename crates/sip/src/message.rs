use crate::{CSeq, Header, HeaderName, Method, NameAddr, Via};
use bytes::Bytes;

/// A range of bytes of a message's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub start: u32,
    pub end: u32,
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

#[derive(Clone, Debug)]
pub enum StartLine {
    Request { method: Method, method_text: Span, uri: Span, version: Span },
    Reply { status: u16, reason: Span, version: Span },
}

/// A message: its bytes and an index of them. Cloning shares the bytes.
///
/// Accessors look only at what they are asked for; a header that does not parse reads as absent
/// (`None`) and never panics.
#[derive(Clone, Debug)]
pub struct Message {
    /* room A fills in */
    pub(crate) buf: Bytes,
}

#[allow(unused_variables)]
impl Message {
    /// Indexes one datagram or one stream frame. Leading CRLFs are skipped (kept in the buffer).
    /// Takes a missing or wrong Content-Length as it comes: see `body`.
    pub fn parse(buf: Bytes) -> Result<Message, ParseError> {
        todo!()
    }
    pub fn buf(&self) -> &Bytes {
        &self.buf
    }
    /// Zero-copy slice of the buffer.
    pub fn text(&self, span: Span) -> Bytes {
        self.buf.slice(span.start as usize..span.end as usize)
    }
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.buf[span.start as usize..span.end as usize]
    }
    pub fn start(&self) -> &StartLine {
        todo!()
    }
    /// The whole first line, with its line end.
    pub fn start_line(&self) -> Span {
        todo!()
    }
    pub fn is_request(&self) -> bool {
        matches!(self.start(), StartLine::Request { .. })
    }
    /// Method of a request; for a reply the method of its CSeq (`Other` if there is none).
    pub fn method(&self) -> Method {
        todo!()
    }
    pub fn method_text(&self) -> Bytes {
        todo!()
    }
    /// 0 for a request.
    pub fn status(&self) -> u16 {
        todo!()
    }
    pub fn reason(&self) -> Bytes {
        todo!()
    }
    /// Empty for a reply.
    pub fn request_uri(&self) -> Bytes {
        todo!()
    }
    pub fn headers(&self) -> &[Header] {
        todo!()
    }
    pub fn header(&self, name: HeaderName) -> Option<&Header> {
        self.headers().iter().find(|h| h.name == name)
    }
    pub fn headers_of(&self, name: HeaderName) -> impl Iterator<Item = &Header> {
        self.headers().iter().filter(move |h| h.name == name)
    }
    /// Headers by any spelling: full, compact, any case; unknown names too.
    pub fn headers_named<'a>(&'a self, label: &'a [u8]) -> impl Iterator<Item = &'a Header> {
        self.headers().iter()
    }
    /// Value of the first such header, unfolded raw bytes.
    pub fn value(&self, name: HeaderName) -> Option<Bytes> {
        self.header(name).map(|h| self.text(h.value))
    }
    /// Offset just after the last header line: where the empty line stands.
    pub fn headers_end(&self) -> u32 {
        todo!()
    }
    /// What follows the empty line, cut to Content-Length when that is smaller.
    pub fn body(&self) -> Span {
        todo!()
    }
    pub fn content_length(&self) -> Option<u32> {
        todo!()
    }
    /// The topmost Via value.
    pub fn via(&self) -> Option<Via> {
        todo!()
    }
    /// All Via values over all Via headers, top first.
    pub fn vias(&self) -> Vec<Via> {
        todo!()
    }
    pub fn from(&self) -> Option<NameAddr> {
        todo!()
    }
    pub fn to(&self) -> Option<NameAddr> {
        todo!()
    }
    pub fn from_tag(&self) -> Option<Bytes> {
        todo!()
    }
    /// Present and not empty: the request is inside a dialog.
    pub fn to_tag(&self) -> Option<Bytes> {
        todo!()
    }
    pub fn cseq(&self) -> Option<CSeq> {
        todo!()
    }
    pub fn call_id(&self) -> Option<Bytes> {
        todo!()
    }
    /// All values, over all headers of this name, in order, commas outside quotes and <> split.
    /// A bare `*` in Contact is a NameAddr with uri `*`.
    pub fn addresses(&self, name: HeaderName) -> Result<Vec<NameAddr>, ParseError> {
        todo!()
    }
    pub fn max_forwards(&self) -> Option<u32> {
        todo!()
    }
    pub fn expires(&self) -> Option<u32> {
        todo!()
    }
    /// Checks what RFC 3261 §8.1.1/§16.3 make mandatory; the text names the first thing missing.
    pub fn mandatory(&self) -> Result<(), &'static str> {
        todo!()
    }
    /// Call-ID of raw bytes without a full parse: decides which worker owns the datagram.
    pub fn owner(datagram: &[u8]) -> Option<&[u8]> {
        todo!()
    }
}
