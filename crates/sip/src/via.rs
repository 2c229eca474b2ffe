//! Values of Via (RFC 3261 §20.42).

use crate::message::Span;
use crate::params::{Params, split_value};
use crate::scan::{self, Nesting, Scanner, is_token_text};
use crate::uri::Transport;
use bytes::Bytes;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// One Via value (RFC 3261 §20.42): its text, and where the parts stand in it.
#[derive(Clone, Debug)]
pub struct Via {
    text: Bytes,
    protocol: Span,
    version: Span,
    transport: Span,
    host: Span,
    /// Empty: there is none.
    branch: Span,
    comment: Span,
    /// 0 when absent.
    pub port: u16,
    /// `branch`, `received`, `rport` and others.
    pub params: Params,
    /// The value inside the message, without the comma.
    pub whole: Span,
    /// Just after host and port, where the parameters begin; same text as `whole`.
    pub sent_by_end: u32,
}

/// Was the source port asked for (RFC 3581 `rport`)?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rport {
    /// Only when the Via has an `rport` parameter.
    AsAsked,
    /// In any case (OpenSIPS `force_rport`).
    Forced,
}

impl Via {
    /// One value; `None` when a mandatory part is missing, a parameter is empty (`;;`), or the branch
    /// has no value: no transaction could be told by it.
    pub fn parse(text: &Bytes) -> Option<Via> {
        let (start, end) = scan::trimmed(text);
        Via::parse_part(text, start, end)
    }

    /// "SIP"
    pub fn protocol(&self) -> Bytes {
        self.text.slice(self.protocol.range())
    }

    /// "2.0"
    pub fn version(&self) -> Bytes {
        self.text.slice(self.version.range())
    }

    /// "UDP", as written.
    pub fn transport_text(&self) -> Bytes {
        self.text.slice(self.transport.range())
    }

    /// Name or address of sent-by; IPv6 keeps its brackets.
    pub fn host(&self) -> &[u8] {
        &self.text[self.host.range()]
    }

    /// The same, of its own.
    pub fn host_text(&self) -> Bytes {
        self.text.slice(self.host.range())
    }

    /// Text of a comment after the parameters, without its parentheses.
    pub fn comment(&self) -> Bytes {
        self.text.slice(self.comment.range())
    }

    /// The `branch` parameter.
    pub fn branch(&self) -> Option<Bytes> {
        self.branch_slice().map(|branch| self.text.slice_ref(branch))
    }

    /// The same, borrowed.
    pub fn branch_slice(&self) -> Option<&[u8]> {
        (!self.branch.is_empty()).then(|| &self.text[self.branch.range()])
    }

    /// The `received` parameter.
    pub fn received(&self) -> Option<Bytes> {
        self.params.value(b"received")
    }

    /// `Some(None)`: rport without value (RFC 3581), or with one that is no port.
    pub fn rport(&self) -> Option<Option<u16>> {
        let value = self.params.find(b"rport")?;
        Some(value.and_then(|v| scan::port(&v)).filter(|&p| p != 0))
    }

    /// `None` when the transport is not one of ours.
    pub fn transport(&self) -> Option<Transport> {
        Transport::parse(&self.text[self.transport.range()])
    }

    /// The sent-by host as an address, brackets removed.
    pub fn ip(&self) -> Option<IpAddr> {
        crate::uri::ip_of(self.host())
    }

    /// What a server adds to the topmost Via of a request that came from `source`
    /// (RFC 3261 §18.2.1, RFC 3581 §4): `;received=..` when `maddr`, or else the host, differs or
    /// when the Via has `rport` or `received`, and `;rport=..` when asked for. Empty when there is nothing
    /// to add. Meant for `PrintTarget::via_params` and `ReplyParts::via_params`.
    pub fn source_params(&self, source: SocketAddr, rport: Rport) -> Bytes {
        let address = source.ip().to_canonical();
        let (mut asked, mut received, mut maddr) = (false, false, None);
        for (name, value) in self.params.slices() {
            match name.len() {
                5 if name.eq_ignore_ascii_case(b"rport") => asked = true,
                5 if name.eq_ignore_ascii_case(b"maddr") => maddr = maddr.or(Some(value)),
                8 if name.eq_ignore_ascii_case(b"received") => received = true,
                _ => {}
            }
        }
        let with_port = rport == Rport::Forced || asked;
        let named = || match maddr.flatten() {
            Some(maddr) => crate::uri::ip_of(scan::unquoted(maddr)),
            None => self.ip(),
        };
        let with_address = with_port || received || named() != Some(address);
        let mut out = Vec::new();
        // A Vec takes every write.
        if with_address {
            let _ = write!(out, ";received={address}");
        }
        if with_port {
            let _ = write!(out, ";rport={}", source.port());
        }
        out.into()
    }

    /// The value at `start..end` of `text` (no blanks around it).
    pub(crate) fn parse_part(text: &Bytes, start: usize, end: usize) -> Option<Via> {
        let value = &text[start..end];
        let (protocol, at) = token_before(value, 0, b'/')?;
        let (version, at) = token_before(value, at, b'/')?;
        let at = scan::skip_lws(value, at);
        let blank = at + value[at..].iter().position(|&b| scan::is_lws(b))?;
        let transport = &value[at..blank];
        let host_at = scan::skip_lws(value, blank);
        let (host, port, sent_by_end) = sent_by(value, host_at)?;
        if !is_token_text(transport) {
            return None;
        }
        let (params, comment) = tail(text, start, scan::skip_lws(value, sent_by_end), end)?;
        let branch = branch_of(&params)?;
        let span = |part: &[u8]| {
            let at = scan::offset_of(text, part);
            Span::new(at, at + part.len())
        };
        Some(Via {
            protocol: span(protocol),
            version: span(version),
            transport: span(transport),
            host: span(host),
            branch: branch.map_or(Span::default(), span),
            comment,
            port,
            whole: Span::new(start, end),
            sent_by_end: (start + sent_by_end) as u32,
            text: text.clone(),
            params,
        })
    }

    /// The same Via in a text that has the same bytes in its place.
    pub(crate) fn move_to(&mut self, text: &Bytes) {
        if !self.params.text.is_empty() {
            let at = scan::offset_of(&self.text, &self.params.text);
            self.params.text = text.slice(at..at + self.params.text.len());
        }
        self.text = text.clone();
    }
}

/// `LWS token LWS stop`: the token and the offset after the stop.
fn token_before(value: &[u8], from: usize, stop: u8) -> Option<(&[u8], usize)> {
    let at = from + scan::find(&value[from..], [stop])?;
    let token = scan::trim(&value[from..at]);
    is_token_text(token).then_some((token, at + 1))
}

/// Host, port and the offset after them; blanks may stand around the colon.
fn sent_by(value: &[u8], at: usize) -> Option<(&[u8], u16, usize)> {
    let host_end = match value.get(at)? {
        b'[' => at + scan::find(&value[at..], [b']'])? + 1,
        _ => {
            let ends = |b: &u8| matches!(b, b':' | b';' | b' ' | b'\t' | b'\r' | b'\n' | b'(' | b',');
            at + value[at..].iter().take_while(|b| !ends(b)).count()
        }
    };
    if host_end == at {
        return None;
    }
    let colon = scan::skip_lws(value, host_end);
    if value.get(colon) != Some(&b':') {
        return Some((&value[at..host_end], 0, host_end));
    }
    let digits = scan::skip_lws(value, colon + 1);
    let port_end = digits + value[digits..].iter().take_while(|b| b.is_ascii_digit()).count();
    let port = scan::port(&value[digits..port_end])?;
    Some((&value[at..host_end], port, port_end))
}

/// Parameters and comment from `from` (relative to `start`) to `end`.
fn tail(text: &Bytes, start: usize, from: usize, end: usize) -> Option<(Params, Span)> {
    let value = &text[..end];
    let from = start + from;
    let open = Scanner::new(value, Nesting::Quotes).find(from, b'(');
    let comment = match open {
        Some(at) => {
            let close = scan::comment_end(value, at)?;
            (scan::skip_lws(value, close) == end).then(|| Span::new(at + 1, close - 1))?
        }
        None => Span::default(),
    };
    let stop = open.unwrap_or(end);
    let params = match text[from..stop].first() {
        None => Params::default(),
        Some(b';') => Params { text: scan::trim_bytes(&text.slice(from + 1..stop)) },
        Some(_) => return None,
    };
    (from == stop || !params.text.is_empty()).then_some((params, comment))
}

/// The value of the branch parameter, if there is one. `None`: a parameter is empty, or the branch has no value.
fn branch_of(params: &Params) -> Option<Option<&[u8]>> {
    let mut branch = None;
    for (name, value) in params.raw().map(split_value) {
        if name.is_empty() {
            return None;
        }
        if branch.is_none() && name.eq_ignore_ascii_case(b"branch") {
            branch = Some(value.filter(|value| !value.is_empty())?);
        }
    }
    Some(branch.map(scan::unquoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Via> {
        Via::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn check(text: &str, transport: &str, host: &str, port: u16, params: &str, comment: &str) {
        let via = parse(text).unwrap_or_else(|| panic!("{text}"));
        let (word, said) = (via.transport_text(), via.comment());
        let have = (&word[..], via.host(), via.port, &via.params.text[..], &said[..]);
        let want = (transport.as_bytes(), host.as_bytes(), port, params.as_bytes(), comment.as_bytes());
        assert_eq!(have, want, "{text}");
    }

    #[test]
    fn well_formed() {
        check("SIP/2.0/UDP h;branch=z", "UDP", "h", 0, "branch=z", "");
        check("sip/2.0/udp 10.0.0.1:5080", "udp", "10.0.0.1", 5080, "", "");
        check("SIP / 2.0\r\n / UDP\r\n  h : 5060 ; ttl=1;x", "UDP", "h", 5060, "ttl=1;x", "");
        check("SIP/2.0/TLS [2001:db8::9]:5061;rport", "TLS", "[2001:db8::9]", 5061, "rport", "");
        check("SIP/2.0/UDP h;branch=b (hello)", "UDP", "h", 0, "branch=b", "hello");
        check("SIP/2.0/UDP h;x=\"q;(r\"", "UDP", "h", 0, "x=\"q;(r\"", "");
        check("SIP/2.0/FOO h", "FOO", "h", 0, "", "");
    }

    #[test]
    fn malformed() {
        for text in [
            "",
            "garbage",
            "SIP/2.0/UDP ;branch=b",
            "SIP/2.0/UDP h;;branch=b",
            "SIP/2.0/UDP",
            "SIP/2.0 h",
            "SIP/2.0/UDP h:99999",
            "SIP/2.0/UDP h x",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP h;",
            "SIP/2.0/UDP h (open",
            "SIP/2.0/UDP h;branch=",
            "SIP/2.0/UDP h;x;branch",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn source_parameters() {
        let source: SocketAddr = "10.0.0.2:7000".parse().unwrap();
        for (via, force, want) in [
            ("SIP/2.0/UDP 10.0.0.2;branch=b", Rport::AsAsked, ""),
            ("SIP/2.0/UDP 10.0.0.2;branch=b", Rport::Forced, ";received=10.0.0.2;rport=7000"),
            ("SIP/2.0/UDP 10.0.0.9", Rport::AsAsked, ";received=10.0.0.2"),
            ("SIP/2.0/UDP 10.0.0.2;rport", Rport::AsAsked, ";received=10.0.0.2;rport=7000"),
            ("SIP/2.0/UDP 10.0.0.2;maddr=1.2.3.4", Rport::AsAsked, ";received=10.0.0.2"),
            ("SIP/2.0/UDP h;maddr=10.0.0.2", Rport::AsAsked, ""),
        ] {
            assert_eq!(parse(via).unwrap().source_params(source, force), want, "{via}");
        }
    }
}
