use crate::params::Params;
use bytes::Bytes;
use std::net::IpAddr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    Tels,
    Urn,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Sctp,
    Ws,
    Wss,
}

impl Transport {
    pub fn parse(text: &[u8]) -> Option<Transport> {
        let _ = text;
        todo!()
    }
    /// "udp"
    pub fn as_str(self) -> &'static str {
        todo!()
    }
    /// "UDP"
    pub fn upper(self) -> &'static str {
        todo!()
    }
    pub fn default_port(self) -> u16 {
        todo!()
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("bad URI: {0}")]
pub struct UriError(pub &'static str);

/// A parsed URI; every part is a slice of its text. For `tel:`, the number is `user`, host is empty.
#[derive(Clone, Debug)]
pub struct Uri {
    pub text: Bytes,
    pub scheme: Scheme,
    /// `None`: no `@`. May be `Some("")`.
    pub user: Option<Bytes>,
    pub password: Option<Bytes>,
    /// IPv6 keeps its brackets.
    pub host: Bytes,
    /// As written; 0 when absent.
    pub port: u16,
    pub params: Params,
    /// Text after `?`, without it.
    pub headers: Bytes,
}

#[allow(unused_variables)]
impl Uri {
    pub fn parse(text: &Bytes) -> Result<Uri, UriError> {
        todo!()
    }
    pub fn transport(&self) -> Option<Transport> {
        todo!()
    }
    /// Port written, else the default of the scheme and transport.
    pub fn port_or_default(&self) -> u16 {
        todo!()
    }
    pub fn ip(&self) -> Option<IpAddr> {
        todo!()
    }
    /// Equality of RFC 3261 §19.1.4.
    pub fn equals(&self, other: &Uri) -> bool {
        todo!()
    }
    /// A copy with parts replaced, printed anew: `None` keeps a part, `Some(empty)` removes it.
    pub fn with_user(&self, user: &[u8]) -> Bytes {
        todo!()
    }
    pub fn with_host(&self, host: &[u8]) -> Bytes {
        todo!()
    }
    pub fn with_port(&self, port: Option<u16>) -> Bytes {
        todo!()
    }
    pub fn with_hostport(&self, hostport: &[u8]) -> Bytes {
        todo!()
    }
    pub fn with_password(&self, password: &[u8]) -> Bytes {
        todo!()
    }
    /// Sets, replaces or (None) removes one parameter.
    pub fn with_param(&self, name: &[u8], value: Option<Option<&[u8]>>) -> Bytes {
        todo!()
    }
}
