//! SIP messages: an index over the bytes, typed headers on demand, edits, printing, digest.
//!
//! Pure: no I/O, no clock, no randomness. Everything is a slice of the received buffer until it is
//! printed.

mod edit;
mod header;
mod message;
mod method;
mod nameaddr;
mod params;
mod uri;
mod via;

pub use edit::{Anchor, Edits, Piece, PrintTarget, SocketNames, print_reply, print_request};
pub use header::{CSeq, Header, HeaderName};
pub use message::{Message, ParseError, Span, StartLine};
pub use method::Method;
pub use nameaddr::NameAddr;
pub use params::Params;
pub use uri::{Scheme, Transport, Uri, UriError};
pub use via::Via;
