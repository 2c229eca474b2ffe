use crate::message::Span;
use crate::params::Params;
use bytes::Bytes;

/// `"Display" <uri>;params` or `uri;params` (RFC 3261 §25.1, name-addr / addr-spec).
#[derive(Clone, Debug, PartialEq)]
pub struct NameAddr {
    /// As written, quotes included; empty when there is none.
    pub display: Bytes,
    /// The URI text without `<>`.
    pub uri: Bytes,
    /// Parameters of the header value (not of the URI).
    pub params: Params,
    /// The whole value in the text it was parsed from (message offsets when it came from a message).
    pub whole: Span,
    /// The URI in that text.
    pub uri_span: Span,
    /// The URI was written inside `<>`.
    pub bracketed: bool,
}

#[allow(unused_variables)]
impl NameAddr {
    pub fn parse(text: &Bytes) -> Option<NameAddr> {
        todo!()
    }
    /// Comma-separated list, quotes and `<>` respected.
    pub fn parse_list(text: &Bytes) -> Option<Vec<NameAddr>> {
        todo!()
    }
    pub fn tag(&self) -> Option<Bytes> {
        self.params.value(b"tag")
    }
}
