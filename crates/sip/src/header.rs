//! Names of headers, and where a header stands in its message.

use crate::message::Span;
use crate::method::Method;
use bytes::Bytes;
use std::ops::Range;

/// Makes `HeaderName` and its table from one list: variant, canonical name, compact form (0: none).
macro_rules! header_names {
    ($($variant:ident $name:literal $compact:literal)*) => {
        /// Known header names, any case, compact forms folded in. One list feeds parsing and names.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum HeaderName {
            $($variant,)*
            /// Any other name; its text is `Header::label`.
            Other,
        }

        const TABLE: [(HeaderName, &str, u8); [$($name),*].len()] =
            [$((HeaderName::$variant, $name, $compact)),*];
    };
}

header_names! {
    Via "Via" b'v'
    From "From" b'f'
    To "To" b't'
    CallId "Call-ID" b'i'
    CSeq "CSeq" 0
    Contact "Contact" b'm'
    Route "Route" 0
    RecordRoute "Record-Route" 0
    MaxForwards "Max-Forwards" 0
    ContentLength "Content-Length" b'l'
    ContentType "Content-Type" b'c'
    ContentEncoding "Content-Encoding" b'e'
    ContentDisposition "Content-Disposition" 0
    Expires "Expires" 0
    MinExpires "Min-Expires" 0
    Authorization "Authorization" 0
    ProxyAuthorization "Proxy-Authorization" 0
    WwwAuthenticate "WWW-Authenticate" 0
    ProxyAuthenticate "Proxy-Authenticate" 0
    AuthenticationInfo "Authentication-Info" 0
    Supported "Supported" b'k'
    Require "Require" 0
    ProxyRequire "Proxy-Require" 0
    Unsupported "Unsupported" 0
    Allow "Allow" 0
    Accept "Accept" 0
    AcceptEncoding "Accept-Encoding" 0
    AcceptLanguage "Accept-Language" 0
    AcceptContact "Accept-Contact" b'a'
    RejectContact "Reject-Contact" b'j'
    RequestDisposition "Request-Disposition" b'd'
    UserAgent "User-Agent" 0
    Server "Server" 0
    Subject "Subject" b's'
    Path "Path" 0
    ServiceRoute "Service-Route" 0
    Event "Event" b'o'
    AllowEvents "Allow-Events" b'u'
    SubscriptionState "Subscription-State" 0
    ReferTo "Refer-To" b'r'
    ReferredBy "Referred-By" b'b'
    ReferSub "Refer-Sub" 0
    Replaces "Replaces" 0
    Diversion "Diversion" 0
    HistoryInfo "History-Info" 0
    PAssertedIdentity "P-Asserted-Identity" 0
    PPreferredIdentity "P-Preferred-Identity" 0
    RemotePartyId "Remote-Party-ID" 0
    Privacy "Privacy" 0
    Reason "Reason" 0
    RetryAfter "Retry-After" 0
    Date "Date" 0
    Organization "Organization" 0
    Priority "Priority" 0
    SessionExpires "Session-Expires" b'x'
    MinSe "Min-SE" 0
    Rack "RAck" 0
    RSeq "RSeq" 0
    SipEtag "SIP-ETag" 0
    SipIfMatch "SIP-If-Match" 0
    CallInfo "Call-Info" 0
    AlertInfo "Alert-Info" 0
    ErrorInfo "Error-Info" 0
    Warning "Warning" 0
    Timestamp "Timestamp" 0
    MimeVersion "MIME-Version" 0
    Identity "Identity" b'y'
    IdentityInfo "Identity-Info" b'n'
    FeatureCaps "Feature-Caps" 0
}

const NONE: u8 = u8::MAX;

/// Chains of names with the same bucket, made when the crate is compiled: `head[bucket]` is the
/// first row of `TABLE`, `next[row]` the following one.
struct Index {
    head: [u8; 256],
    next: [u8; TABLE.len()],
    compact: [u8; 26],
}

const fn bucket(length: usize, first: u8, last: u8) -> usize {
    (length * 31 + (first | 0x20) as usize * 7 + (last | 0x20) as usize) & 0xff
}

static INDEX: Index = {
    let mut index = Index { head: [NONE; 256], next: [NONE; TABLE.len()], compact: [NONE; 26] };
    let mut row = 0;
    while row < TABLE.len() {
        let name = TABLE[row].1.as_bytes();
        let at = bucket(name.len(), name[0], name[name.len() - 1]);
        index.next[row] = index.head[at];
        index.head[at] = row as u8;
        if TABLE[row].2 != 0 {
            index.compact[(TABLE[row].2 - b'a') as usize] = row as u8;
        }
        row += 1;
    }
    index
};

/// Whether two texts of at least two bytes are the same, in place: the middle may be looked at twice.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
        a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
    }
    a.len() == b.len()
        && match a.len() {
            ..4 => ends::<2>(a, b),
            4..8 => ends::<4>(a, b),
            8..=16 => ends::<8>(a, b),
            _ => a == b,
        }
}

/// The rows of a bucket.
#[inline]
fn rows(bucket: usize) -> impl Iterator<Item = (HeaderName, &'static [u8])> {
    let mut row = INDEX.head[bucket];
    std::iter::from_fn(move || {
        let (name, text, _) = TABLE.get(usize::from(row))?;
        row = INDEX.next[usize::from(row)];
        Some((*name, text.as_bytes()))
    })
}

impl HeaderName {
    /// `label` without the colon; "v" is Via.
    pub fn parse(label: &[u8]) -> HeaderName {
        let (first, last) = match *label {
            [] => return HeaderName::Other,
            [letter] => return Self::parse_compact(letter),
            [first, .., last] => (first, last),
        };
        let bucket = bucket(label.len(), first, last);
        // Nearly every peer writes the canonical spelling.
        match rows(bucket).find(|(_, text)| is_same(text, label)) {
            Some((name, _)) => name,
            None => Self::parse_other_case(label, bucket),
        }
    }

    #[cold]
    fn parse_other_case(label: &[u8], bucket: usize) -> HeaderName {
        let found = rows(bucket).find(|(_, text)| text.eq_ignore_ascii_case(label));
        found.map_or(HeaderName::Other, |(name, _)| name)
    }

    fn parse_compact(letter: u8) -> HeaderName {
        let row = match letter | 0x20 {
            lower @ b'a'..=b'z' if letter.is_ascii_alphabetic() => INDEX.compact[usize::from(lower - b'a')],
            _ => NONE,
        };
        TABLE.get(usize::from(row)).map_or(HeaderName::Other, |entry| entry.0)
    }

    /// Canonical spelling ("Call-ID"); empty for `Other`.
    pub fn as_str(self) -> &'static str {
        TABLE.get(self as usize).map_or("", |entry| entry.1)
    }

    /// The compact form's letter ("i"), if the header has one (RFC 3261 §7.3.3 and the IANA list).
    pub fn compact(self) -> Option<char> {
        TABLE.get(self as usize).map(|entry| entry.2).filter(|&c| c != 0).map(char::from)
    }

    /// All known names, without `Other`.
    pub fn all() -> impl Iterator<Item = HeaderName> {
        TABLE.iter().map(|entry| entry.0)
    }
}

/// One header of a message: where it stands in the message's buffer. A message keeps sixteen of these in
/// itself, so they are small.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Which header it is.
    pub name: HeaderName,
    start: u16,
    label_end: u16,
    value_start: u16,
    value_end: u16,
    end: u16,
}

// `MAX_MESSAGE` keeps offsets below 64 Ki.
const _: () = assert!(size_of::<Header>() <= 12 && crate::MAX_MESSAGE <= u16::MAX as usize);

impl Header {
    /// Of a line of a message of at most `MAX_MESSAGE` bytes. `label` begins where the line begins.
    pub(crate) fn new(name: HeaderName, line: Range<usize>, label_end: usize, value: Range<usize>) -> Header {
        Header {
            name,
            start: line.start as u16,
            label_end: label_end as u16,
            value_start: value.start as u16,
            value_end: value.end as u16,
            end: line.end as u16,
        }
    }

    /// Its name in full, also when it is written in its compact form (RFC 3261 §7.3.3).
    pub fn full_name<'a>(&self, msg: &'a crate::Message) -> &'a [u8] {
        match msg.bytes(self.label()) {
            [_] if self.name != HeaderName::Other => self.name.as_str().as_bytes(),
            label => label,
        }
    }

    /// From the first byte of the name to after the line end (folded lines included).
    pub fn whole(&self) -> Span {
        Span { start: self.start.into(), end: self.end.into() }
    }

    /// The name as written, without colon and blanks. Empty when the line has no colon.
    pub fn label(&self) -> Span {
        Span { start: self.start.into(), end: self.label_end.into() }
    }

    /// The value without surrounding blanks; folds are still inside.
    pub fn value(&self) -> Span {
        Span { start: self.value_start.into(), end: self.value_end.into() }
    }
}

/// A CSeq value (RFC 3261 §20.16).
#[derive(Clone, Debug, PartialEq)]
pub struct CSeq {
    /// The sequence number.
    pub number: u32,
    /// The method behind it.
    pub method: Method,
    /// The method as written, for those without a name here.
    pub method_text: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (row, (name, text, compact)) in TABLE.iter().enumerate() {
            assert_eq!(*name as usize, row);
            assert_eq!(name.as_str(), *text);
            for spelling in [text.to_string(), text.to_lowercase(), text.to_uppercase()] {
                assert_eq!(HeaderName::parse(spelling.as_bytes()), *name, "{spelling}");
            }
            if *compact != 0 {
                assert_eq!(HeaderName::parse(&[*compact]), *name);
                assert_eq!(HeaderName::parse(&[compact.to_ascii_uppercase()]), *name);
            }
        }
    }

    #[test]
    fn unknown_names_are_other() {
        for label in ["", "x-a", "Vib", "Viaa", "w", "V ia", "@", "{", "Call_ID", "\u{c}"] {
            assert_eq!(HeaderName::parse(label.as_bytes()), HeaderName::Other, "{label:?}");
        }
    }
}
