//! Addresses with a display name and parameters: From, To, Contact, Route.

use crate::message::Span;
use crate::params::{self, Params};
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
        let value = &text[start..end];
        let layout = Layout::of(value).or_else(|| Layout::of_word(value))?;
        Some(layout.value(text, start, end))
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
        Layout::of(&text[start..end]).map(|layout| layout.value(text, start, end))
    }

    /// As `tag` of `parse_party`, borrowed: `None` when the value cannot be read.
    pub(crate) fn party_tag(text: &[u8]) -> Option<Option<&[u8]>> {
        let value = scan::trim(text);
        let layout = Layout::of(value).or_else(|| Layout::of_word(value))?;
        Some(layout.params.and_then(|at| params::last_value(&value[at..], b"tag")))
    }

    pub(crate) fn moved_by(mut self, offset: u32) -> NameAddr {
        self.whole = self.whole.moved_by(offset);
        self.uri_span = self.uri_span.moved_by(offset);
        self
    }
}

/// Where the parts of a value stand in it.
struct Layout {
    /// Where the display name ends; it begins at 0.
    display: usize,
    uri: (usize, usize),
    /// Where the text of the parameters begins, when a semicolon is there.
    params: Option<usize>,
    bracketed: bool,
}

impl Layout {
    /// Of a value without blanks around it.
    fn of(value: &[u8]) -> Option<Layout> {
        let open = match value.first()? {
            b'"' => {
                let at = scan::skip_lws(value, scan::quoted_end(value, 0)?);
                (value.get(at) == Some(&b'<')).then_some(Some(at))?
            }
            _ => scan::find(value, [b'<']).filter(|&at| scan::find(&value[..at], [b';']).is_none()),
        };
        match open {
            Some(at) => Self::bracketed(value, at),
            None => Self::plain(value),
        }
    }

    fn bracketed(value: &[u8], open: usize) -> Option<Layout> {
        let display = scan::trim(&value[..open]);
        if display.first() != Some(&b'"') && display.iter().any(|b| b"\">".contains(b)) {
            return None;
        }
        let close = open + scan::find(&value[open..], [b'>'])?;
        let rest = scan::skip_lws(value, close + 1);
        let params = match value.get(rest) {
            None => None,
            Some(b';') => Some(rest + 1),
            Some(_) => return None,
        };
        Some(Layout { display: display.len(), uri: (open + 1, close), params, bracketed: true })
    }

    fn plain(value: &[u8]) -> Option<Layout> {
        let semicolon = scan::find(value, [b';']);
        let uri = scan::trim(&value[..semicolon.unwrap_or(value.len())]);
        if uri != b"*" && (!has_scheme(uri) || uri.iter().any(|&b| is_lws(b) || b == b'"' || b == b'>')) {
            return None;
        }
        Some(Self::unbracketed(semicolon, uri))
    }

    /// One word, whatever it is, and parameters.
    fn of_word(value: &[u8]) -> Option<Layout> {
        let semicolon = scan::find(value, [b';']);
        let word = scan::trim(&value[..semicolon.unwrap_or(value.len())]);
        let odd = |&b: &u8| b <= b' ' || b == 0x7f || b"\"<>,".contains(&b);
        (!word.is_empty() && !word.iter().any(odd)).then(|| Self::unbracketed(semicolon, word))
    }

    fn unbracketed(semicolon: Option<usize>, uri: &[u8]) -> Layout {
        Layout { display: 0, uri: (0, uri.len()), params: semicolon.map(|at| at + 1), bracketed: false }
    }

    /// The value at `start..end` of `text`.
    fn value(&self, text: &Bytes, start: usize, end: usize) -> NameAddr {
        let (from, to) = (start + self.uri.0, start + self.uri.1);
        NameAddr {
            display: text.slice(start..start + self.display),
            uri: text.slice(from..to),
            params: self
                .params
                .map_or_else(Params::default, |at| Params { text: text.slice(start + at..end) }),
            whole: Span::new(start, end),
            uri_span: Span::new(from, to),
            bracketed: self.bracketed,
        }
    }
}

fn has_scheme(uri: &[u8]) -> bool {
    let Some(colon) = scan::find(uri, [b':']) else { return false };
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
