/// A request method. Case-sensitive (RFC 3261 §7.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Method {
    Invite,
    Ack,
    Cancel,
    Bye,
    Info,
    Options,
    Update,
    Register,
    Message,
    Subscribe,
    Notify,
    Prack,
    Refer,
    Publish,
    Service,
    /// Anything else; the text is in the message.
    Other,
}

impl Method {
    pub fn parse(text: &[u8]) -> Method {
        let _ = text;
        todo!()
    }
    /// The canonical text; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        todo!()
    }
    /// One bit per method, for method sets (`Other` has its own bit).
    pub fn bit(self) -> u32 {
        1 << self as u8
    }
}
