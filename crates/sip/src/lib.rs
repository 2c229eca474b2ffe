//! SIP messages: an index over the bytes, typed headers on demand, edits, printing, digest.
//!
//! Pure: no I/O, no clock, no randomness. Everything is a slice of the received buffer until it is
//! printed.

#![warn(missing_docs)]

mod build;
pub mod call_hash;
pub mod digest;
mod edit;
mod frame;
mod header;
mod message;
mod method;
mod nameaddr;
pub mod names;
mod params;
mod parse;
mod print;
mod scan;
mod uri;
mod uri_compare;
mod uri_edit;
mod via;

pub use build::{HeaderOrder, ReplyParts, build_ack, build_cancel, build_reply, via_lines};
pub use call_hash::call_hash;
pub use edit::{Anchor, Edits, Piece};
pub use header::{CSeq, Header, HeaderName};
pub use message::{MAX_HEADERS, MAX_MESSAGE, Message, ParseError, Span, StartLine};
pub use method::Method;
pub use nameaddr::NameAddr;
pub use params::Params;
pub use print::{PrintTarget, SocketNames, edited_body, print_as_received, print_reply, print_request};
pub use uri::{Scheme, Transport, Uri, UriError, ip_of as host_ip};
pub use uri_edit::{escape_param, escape_user, unescape};
pub use via::{Rport, Via};
