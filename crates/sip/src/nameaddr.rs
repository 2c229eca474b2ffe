//! Addresses with a display name and parameters: From, To, Contact, Route.

use crate::message::Span;
use crate::params::Params;
use crate::scan::{self, Nesting, is_lws};
use bytes::Bytes;

/// `"Display" <uri>;params` or `uri;params` (RFC 3261 §25.1, name-addr / addr-spec).
#[derive(Clone, Debug, PartialEq)]
pub struct NameAddr {
    /// As written, quotes included; empty when there is none.
    pub display: Bytes,
    /// The URI text without `<>`.
    pub uri: Bytes,
    /// Parameters of the header value (not of the URI).
    pub params: Params,
    /// The whole value in the text it was parsed from (message offsets when it came from a message).
    pub whole: Span,
    /// The URI in that text.
    pub uri_span: Span,
    /// The URI was written inside `<>`.
    pub bracketed: bool,
}

impl NameAddr {
    /// One value. `None` when quotes or brackets do not close, when text follows the brackets that
    /// is no parameter, or when an unbracketed text has no scheme.
    pub fn parse(text: &Bytes) -> Option<NameAddr> {
        let (start, end) = scan::trimmed(text);
        NameAddr::parse_part(text, start, end)
    }

    /// Comma-separated list, quotes and `<>` respected. Empty members are passed over; `None` when
    /// a member does not parse.
    pub fn parse_list(text: &Bytes) -> Option<Vec<NameAddr>> {
        scan::list(text, Nesting::Angles).map(|(a, b)| NameAddr::parse_part(text, a, b)).collect()
    }

    /// Of a repeated tag the last, as most other servers read it: the two ends of a dialog must not
    /// take different ones.
    pub fn tag(&self) -> Option<Bytes> {
        self.params.last_value(b"tag")
    }

    /// A value of From or To: as `parse`, and besides that one word which need not be a URI
    /// (`garbage;tag=1`); the message is still one, and its sender gets an answer.
    pub fn parse_party(text: &Bytes) -> Option<NameAddr> {
        let (start, end) = scan::trimmed(text);
        NameAddr::parse_part(text, start, end).or_else(|| Self::one_word(text, start, end))
    }

    fn one_word(text: &Bytes, start: usize, end: usize) -> Option<NameAddr> {
        let value = &text[start..end];
        let stop = memchr::memchr(b';', value).unwrap_or(value.len());
        let word = scan::trim(&value[..stop]);
        let odd = |&b: &u8| b <= b' ' || b == 0x7f || b"\"<>,".contains(&b);
        (!word.is_empty() && !word.iter().any(odd)).then(|| Self::unbracketed(text, start, end, word.len()))
    }

    /// The display name without quotes and escapes.
    pub fn display_text(&self) -> Bytes {
        let inner = scan::unquoted(&self.display);
        if !inner.contains(&b'\\') {
            return self.display.slice_ref(inner);
        }
        let mut out = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(&b) = bytes.next() {
            out.push(if b == b'\\' { *bytes.next().unwrap_or(&b) } else { b });
        }
        out.into()
    }

    /// The value at `start..end` of `text` (no blanks around it).
    pub(crate) fn parse_part(text: &Bytes, start: usize, end: usize) -> Option<NameAddr> {
        let value = &text[start..end];
        let open = match value.first()? {
            b'"' => {
                let at = scan::skip_lws(value, scan::quoted_end(value, 0)?);
                (value.get(at) == Some(&b'<')).then_some(Some(at))?
            }
            _ => memchr::memchr(b'<', value).filter(|&at| !value[..at].contains(&b';')),
        };
        match open {
            Some(at) => Self::bracketed(text, start, end, at),
            None => Self::plain(text, start, end),
        }
    }

    fn bracketed(text: &Bytes, start: usize, end: usize, open: usize) -> Option<NameAddr> {
        let value = &text[start..end];
        let display = scan::trim(&value[..open]);
        if display.first() != Some(&b'"') && display.iter().any(|b| b"\">".contains(b)) {
            return None;
        }
        let close = open + memchr::memchr(b'>', &value[open..])?;
        let rest = scan::skip_lws(value, close + 1);
        let params = match value.get(rest) {
            None => Params::default(),
            Some(b';') => Params { text: text.slice(start + rest + 1..end) },
            Some(_) => return None,
        };
        Some(NameAddr {
            display: if display.is_empty() { Bytes::new() } else { text.slice_ref(display) },
            uri: text.slice(start + open + 1..start + close),
            params,
            whole: Span::new(start, end),
            uri_span: Span::new(start + open + 1, start + close),
            bracketed: true,
        })
    }

    fn plain(text: &Bytes, start: usize, end: usize) -> Option<NameAddr> {
        let value = &text[start..end];
        let semicolon = memchr::memchr(b';', value);
        let uri = scan::trim(&value[..semicolon.unwrap_or(value.len())]);
        if uri != b"*" && (!has_scheme(uri) || uri.iter().any(|&b| is_lws(b) || b == b'"' || b == b'>')) {
            return None;
        }
        Some(Self::unbracketed(text, start, end, uri.len()))
    }

    /// The first `length` bytes are the URI; parameters may follow.
    fn unbracketed(text: &Bytes, start: usize, end: usize, length: usize) -> NameAddr {
        let semicolon = memchr::memchr(b';', &text[start..end]);
        let params =
            semicolon.map_or_else(Params::default, |s| Params { text: text.slice(start + s + 1..end) });
        NameAddr {
            display: Bytes::new(),
            uri: text.slice(start..start + length),
            params,
            whole: Span::new(start, end),
            uri_span: Span::new(start, start + length),
            bracketed: false,
        }
    }

    pub(crate) fn moved_by(mut self, offset: u32) -> NameAddr {
        self.whole = self.whole.moved_by(offset);
        self.uri_span = self.uri_span.moved_by(offset);
        self
    }
}

fn has_scheme(uri: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', uri) else { return false };
    uri[0].is_ascii_alphabetic()
        && uri[..colon].iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Option<(&str, &str, &str)>) {
        let text = Bytes::copy_from_slice(text.as_bytes());
        let have = NameAddr::parse(&text);
        let have = have.map(|n| {
            assert_eq!(text.slice(n.uri_span.range()), n.uri);
            [n.display, n.uri, n.params.text].map(|b| String::from_utf8(b.to_vec()).unwrap())
        });
        assert_eq!(have, want.map(|(d, u, p)| [d, u, p].map(String::from)), "{text:?}");
    }

    #[test]
    fn name_addr_and_addr_spec() {
        check("sip:a@b", Some(("", "sip:a@b", "")));
        check(" sip:a@b;tag=1 ; x ", Some(("", "sip:a@b", "tag=1 ; x")));
        check("<sip:a@b;lr>;tag=1", Some(("", "sip:a@b;lr", "tag=1")));
        check("Al Ice <sip:a@b> ; tag=1", Some(("Al Ice", "sip:a@b", " tag=1")));
        check("\"<sip:fake@x>\" <sip:j@e.com>;tag=a", Some(("\"<sip:fake@x>\"", "sip:j@e.com", "tag=a")));
        check("\"a\\\" <b\"<sip:j@e.com>", Some(("\"a\\\" <b\"", "sip:j@e.com", "")));
        check("tel:+4930123", Some(("", "tel:+4930123", "")));
        check("*", Some(("", "*", "")));
        check("caller<sip:c@x>", Some(("caller", "sip:c@x", "")));
        check("sip:a@b;x=\"<\"", Some(("", "sip:a@b", "x=\"<\"")));
    }

    #[test]
    fn malformed_values_are_absent() {
        for text in [
            "",
            " ",
            "garbage garbage",
            "garbage",
            "\"Alice <sip:a@b>;tag=1",
            "><",
            "<sip:a@b",
            "<sip:a@b> x",
            "\"A\" sip:a@b",
            "A \"b <sip:a@b>",
            "sip:a b@c",
            ";tag=1",
            "\"A\"",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn parties_may_be_one_word() {
        let party = |text: &'static str| NameAddr::parse_party(&Bytes::from_static(text.as_bytes()));
        let found = party(" garbage ;tag=1;tag=2").unwrap();
        assert_eq!((&found.uri[..], &found.tag().unwrap()[..]), (&b"garbage"[..], &b"2"[..]));
        for text in ["", ";tag=1", "garbage x", "<sip:a@b", "\"A\"", "a,b", "a\"b"] {
            assert_eq!(party(text), None, "{text}");
        }
    }

    #[test]
    fn lists_respect_quotes_and_brackets() {
        let text = Bytes::from_static(b"\"A, B\" <sip:a@x;p=1,2>;q=0.5, <sip:b@y>,, sip:c@z;q=0.1");
        let uris: Vec<_> = NameAddr::parse_list(&text).unwrap().into_iter().map(|n| n.uri).collect();
        assert_eq!(uris, ["sip:a@x;p=1,2", "sip:b@y", "sip:c@z"]);
        assert!(NameAddr::parse_list(&Bytes::from_static(b"<sip:a@b>, junk")).is_none());
    }

    #[test]
    fn display_text_is_unescaped() {
        let name = NameAddr::parse(&Bytes::from_static(b"\"J \\\"R\\\" \\\\\" <sip:j@x>")).unwrap();
        assert_eq!(name.display_text(), "J \"R\" \\");
    }
}
