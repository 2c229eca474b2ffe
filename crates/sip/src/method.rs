//! Methods of requests.

/// A request method. Case-sensitive (RFC 3261 §7.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
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

/// The one list of methods, in the order of the enum.
const NAMES: [(Method, &str); 15] = [
    (Method::Invite, "INVITE"),
    (Method::Ack, "ACK"),
    (Method::Cancel, "CANCEL"),
    (Method::Bye, "BYE"),
    (Method::Info, "INFO"),
    (Method::Options, "OPTIONS"),
    (Method::Update, "UPDATE"),
    (Method::Register, "REGISTER"),
    (Method::Message, "MESSAGE"),
    (Method::Subscribe, "SUBSCRIBE"),
    (Method::Notify, "NOTIFY"),
    (Method::Prack, "PRACK"),
    (Method::Refer, "REFER"),
    (Method::Publish, "PUBLISH"),
    (Method::Service, "SERVICE"),
];

impl Method {
    /// The method of this exact text; `Other` for anything unknown, also for "invite".
    pub fn parse(text: &[u8]) -> Method {
        NAMES.iter().find(|(_, name)| name.as_bytes() == text).map_or(Method::Other, |&(method, _)| method)
    }

    /// The canonical text; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        NAMES.get(self as usize).map_or("", |&(_, name)| name)
    }

    /// One bit per method, for method sets (`Other` has its own bit).
    pub fn bit(self) -> u32 {
        1 << self as u8
    }

    /// All known methods, without `Other`.
    pub fn all() -> impl Iterator<Item = Method> {
        NAMES.iter().map(|&(method, _)| method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_case_matters() {
        for (i, (method, name)) in NAMES.iter().enumerate() {
            assert_eq!(*method as usize, i, "{name} is out of order");
            assert_eq!(Method::parse(name.as_bytes()), *method);
            assert_eq!(method.as_str(), *name);
            assert_eq!(Method::parse(name.to_lowercase().as_bytes()), Method::Other);
        }
        assert_eq!(Method::parse(b""), Method::Other);
        assert_eq!(Method::Other.as_str(), "");
    }
}
