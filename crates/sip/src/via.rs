//! Values of Via (RFC 3261 §20.42).

use crate::message::Span;
use crate::params::{Params, split_value};
use crate::scan::{self, Nesting, Scanner, is_token_text};
use crate::uri::Transport;
use bytes::Bytes;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

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
    /// Text of a comment after the parameters, without its parentheses.
    pub comment: Bytes,
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

    pub fn branch(&self) -> Option<Bytes> {
        self.params.value(b"branch")
    }
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
        Transport::parse(&self.transport)
    }

    /// The sent-by host as an address, brackets removed.
    pub fn ip(&self) -> Option<IpAddr> {
        crate::uri::ip_of(&self.host)
    }

    /// What a server adds to the topmost Via of a request that came from `source`
    /// (RFC 3261 §18.2.1, RFC 3581 §4): `;received=..` when `maddr`, or else the host, differs or
    /// when the Via has `rport` or `received`, and `;rport=..` when asked for. Empty when there is nothing
    /// to add. Meant for `PrintTarget::via_params` and `ReplyParts::via_params`.
    pub fn source_params(&self, source: SocketAddr, rport: Rport) -> Bytes {
        let address = source.ip().to_canonical();
        let with_port = rport == Rport::Forced || self.params.has(b"rport");
        let marked = with_port || self.params.has(b"received");
        let mut out = Vec::new();
        // A Vec takes every write.
        let named = self.params.value(b"maddr").map_or(self.ip(), |maddr| crate::uri::ip_of(&maddr));
        if marked || named != Some(address) {
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
        if params.find(b"branch").is_some_and(|value| value.is_none_or(|v| v.is_empty())) {
            return None;
        }
        Some(Via {
            protocol: text.slice_ref(protocol),
            version: text.slice_ref(version),
            transport: text.slice_ref(transport),
            host: text.slice_ref(host),
            port,
            params,
            comment,
            whole: Span::new(start, end),
            sent_by_end: (start + sent_by_end) as u32,
        })
    }

    pub(crate) fn moved_by(mut self, offset: u32) -> Via {
        self.whole = self.whole.moved_by(offset);
        self.sent_by_end += offset;
        self
    }
}

/// `LWS token LWS stop`: the token and the offset after the stop.
fn token_before(value: &[u8], from: usize, stop: u8) -> Option<(&[u8], usize)> {
    let at = from + memchr::memchr(stop, &value[from..])?;
    let token = scan::trim(&value[from..at]);
    is_token_text(token).then_some((token, at + 1))
}

/// Host, port and the offset after them; blanks may stand around the colon.
fn sent_by(value: &[u8], at: usize) -> Option<(&[u8], u16, usize)> {
    let host_end = match value.get(at)? {
        b'[' => at + memchr::memchr(b']', &value[at..])? + 1,
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
fn tail(text: &Bytes, start: usize, from: usize, end: usize) -> Option<(Params, Bytes)> {
    let value = &text[..end];
    let from = start + from;
    let open = Scanner::new(value, Nesting::Quotes).find(from, b'(');
    let comment = match open {
        Some(at) => {
            let close = scan::comment_end(value, at)?;
            (scan::skip_lws(value, close) == end).then(|| text.slice(at + 1..close - 1))?
        }
        None => Bytes::new(),
    };
    let stop = open.unwrap_or(end);
    let params = match text[from..stop].first() {
        None => Params::default(),
        Some(b';') => Params { text: scan::trim_bytes(&text.slice(from + 1..stop)) },
        Some(_) => return None,
    };
    let complete =
        from == stop || (!params.text.is_empty() && params.raw().all(|p| !split_value(p).0.is_empty()));
    complete.then_some((params, comment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Via> {
        Via::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn check(text: &str, transport: &str, host: &str, port: u16, params: &str, comment: &str) {
        let via = parse(text).unwrap_or_else(|| panic!("{text}"));
        let have = (&via.transport[..], &via.host[..], via.port, &via.params.text[..], &via.comment[..]);
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
