use crate::message::Span;
use crate::method::Method;
use bytes::Bytes;

/// Known header names, any case, compact forms folded in. One list feeds parsing and names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum HeaderName {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    Route,
    RecordRoute,
    MaxForwards,
    ContentLength,
    ContentType,
    ContentEncoding,
    ContentDisposition,
    Expires,
    MinExpires,
    Authorization,
    ProxyAuthorization,
    WwwAuthenticate,
    ProxyAuthenticate,
    AuthenticationInfo,
    Supported,
    Require,
    ProxyRequire,
    Unsupported,
    Allow,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    UserAgent,
    Server,
    Subject,
    Path,
    ServiceRoute,
    Event,
    AllowEvents,
    SubscriptionState,
    ReferTo,
    ReferredBy,
    ReferSub,
    Replaces,
    Diversion,
    HistoryInfo,
    PAssertedIdentity,
    PPreferredIdentity,
    RemotePartyId,
    Privacy,
    Reason,
    RetryAfter,
    Date,
    Organization,
    Priority,
    SessionExpires,
    MinSe,
    Rack,
    RSeq,
    SipEtag,
    SipIfMatch,
    CallInfo,
    AlertInfo,
    ErrorInfo,
    Warning,
    Timestamp,
    MimeVersion,
    Identity,
    FeatureCaps,
    Other,
}

impl HeaderName {
    /// `label` without the colon; "v" is Via.
    pub fn parse(label: &[u8]) -> HeaderName {
        let _ = label;
        todo!()
    }
    /// Canonical spelling ("Call-ID"); empty for `Other`.
    pub fn as_str(self) -> &'static str {
        todo!()
    }
}

/// One header of a message, as spans of its buffer.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub name: HeaderName,
    /// From the first byte of the name to after the line end (folded lines included).
    pub whole: Span,
    /// The name as written, without colon and blanks.
    pub label: Span,
    /// The value without surrounding blanks; folds are still inside.
    pub value: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CSeq {
    pub number: u32,
    pub method: Method,
    pub method_text: Bytes,
}
