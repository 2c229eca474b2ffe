//! Sockets and names: batched UDP, interface addresses, DNS as RFC 3263 wants it; and what a daemon asks
//! of the system. The only crate of the project with `unsafe`; each block says why it holds.
//!
//! Nothing here blocks: a socket says `WouldBlock` and is awaited, a name that is not an IP address is
//! a future.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "the real clock and the real sockets are here")]

pub mod dns;
mod iface;
pub mod link;
pub mod process;
mod steer;
pub mod stream;
pub mod streams;
mod sys;
pub mod tcp;
mod udp;

pub use iface::{Interface, host_name_of, interfaces, source_for};
pub use udp::{
    BoundUdp, Datagram, Outgoing, RECV_BATCH, RecvArena, SendReport, Sharing, UdpOptions, UdpSocket,
};
