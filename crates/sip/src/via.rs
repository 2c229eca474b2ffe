use crate::message::Span;
use crate::params::Params;
use crate::uri::Transport;
use bytes::Bytes;

/// One Via value (RFC 3261 §20.42).
#[derive(Clone, Debug)]
pub struct Via {
    /// "SIP", version "2.0", transport text "UDP".
    pub protocol: Bytes,
    pub version: Bytes,
    pub transport: Bytes,
    pub host: Bytes,
    /// 0 when absent.
    pub port: u16,
    pub params: Params,
    pub comment: Bytes,
    /// The value inside the message, without the comma.
    pub whole: Span,
}

#[allow(unused_variables)]
impl Via {
    pub fn parse(text: &Bytes) -> Option<Via> {
        todo!()
    }
    pub fn branch(&self) -> Option<Bytes> {
        self.params.value(b"branch")
    }
    pub fn received(&self) -> Option<Bytes> {
        self.params.value(b"received")
    }
    /// `Some(None)`: rport without value (RFC 3581).
    pub fn rport(&self) -> Option<Option<u16>> {
        todo!()
    }
    pub fn transport(&self) -> Option<Transport> {
        Transport::parse(&self.transport)
    }
}
