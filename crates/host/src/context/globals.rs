//! Core parameters as the rest of the server reads them, and the flags that scripts name.

use crate::context::params::CoreParams;
use crate::context::sockets::Listen;
use ahash::AHashSet;
use bytes::Bytes;
use sip::Transport;

/// Flag names by bit.
pub type FlagNames = Vec<Bytes>;

/// A name of this server besides its sockets (`alias=`).
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    pub transport: Option<Transport>,
    pub host: String,
    /// 0: any
    pub port: u16,
    /// `accept_subdomain`: names that end with this one too.
    pub subdomains: bool,
}

/// Core parameters, read and checked.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    pub sockets: Vec<Listen>,
    pub aliases: Vec<Alias>,
    /// Sockets of protocols that are no SIP and belong to a module that is loaded: (protocol, address; port 0 is the
    /// protocol's own).
    pub other_sockets: Vec<(String, std::net::SocketAddr)>,
    /// All others that have an effect.
    pub core: CoreParams,
    /// Names of the parameters that are written, as they are.
    pub written: AHashSet<String>,
}
