use crate::message::{Message, Span};
use bytes::Bytes;

/// A piece of inserted text; what depends on the sending socket is filled in when printed.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(Bytes),
    /// host[:port] of the socket the message leaves by.
    SendHostPort,
    /// host[:port] of the socket the message came in by.
    ReceivedHostPort,
    /// `;transport=tcp` of the leaving socket; nothing for UDP.
    SendTransport,
    ReceivedTransport,
    /// What is between is printed only when leaving and incoming socket differ in transport or
    /// address (double Record-Route).
    IfSocketsDiffer(Vec<Piece>),
}

/// Where a new header goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    /// Before the first header line.
    Top,
    /// After the last header line.
    End,
    /// At this byte offset of the message.
    At(u32),
}

/// Recorded edits of one message ("lumps"): deletions and insertions that are applied when the
/// message is printed. A script does not see its own edits; the next hop does. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Edits {/* room A fills in */}

#[allow(unused_variables)]
impl Edits {
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn delete(&mut self, span: Span) {
        todo!()
    }
    /// Repeated inserts at one place keep their call order.
    pub fn insert(&mut self, at: Anchor, text: impl Into<Bytes>) {
        todo!()
    }
    /// Repeated inserts at one place: the newest first (Record-Route, Via).
    pub fn insert_first(&mut self, at: Anchor, pieces: Vec<Piece>) {
        todo!()
    }
    pub fn insert_pieces(&mut self, at: Anchor, pieces: Vec<Piece>) {
        todo!()
    }
    pub fn replace(&mut self, span: Span, text: impl Into<Bytes>) {
        self.delete(span);
        self.insert(Anchor::At(span.start), text);
    }
    pub fn is_deleted(&self, span: Span) -> bool {
        todo!()
    }
    /// Replaces the whole body (and only it); printing writes the right Content-Length.
    pub fn set_body(&mut self, body: Bytes) {
        todo!()
    }
    pub fn body(&self) -> Option<&Bytes> {
        todo!()
    }
    /// Removes the edits of `other` kinds ... (`remove added header` of scripts): inserted texts for which `keep` is false.
    pub fn retain_inserted(&mut self, keep: impl FnMut(&[u8]) -> bool) {
        todo!()
    }
}

/// Names of a socket as printed into messages (advertised address if there is one).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketNames {
    /// "10.0.0.1", "[::1]" or an advertised name.
    pub host: Bytes,
    pub port: u16,
    /// "UDP"
    pub transport: &'static str,
}

/// How a request leaves.
pub struct PrintTarget<'a> {
    pub uri: &'a [u8],
    /// Whole Via line(s) to put on top, with CRLF; empty for none.
    pub via: &'a [u8],
    /// Added to the topmost received Via value, e.g. `;received=1.2.3.4;rport=5`; empty for none.
    pub via_params: &'a [u8],
    /// Whole extra header lines after Via (Route of a path), with CRLF.
    pub extra: &'a [u8],
    pub send: &'a SocketNames,
    pub received: &'a SocketNames,
}

/// The bytes of a request with all edits of `edits` in order (base edits, then branch edits) applied;
/// Content-Length is corrected when the body was edited.
#[allow(unused_variables)]
pub fn print_request(msg: &Message, edits: &[&Edits], target: &PrintTarget<'_>) -> Bytes {
    todo!()
}

/// The bytes of a reply without its topmost Via value, edits applied. `status`: replaces the status
/// line's code and reason.
#[allow(unused_variables)]
pub fn print_reply(
    msg: &Message,
    edits: &Edits,
    status: Option<(u16, &[u8])>,
    send: &SocketNames,
    received: &SocketNames,
) -> Bytes {
    todo!()
}
