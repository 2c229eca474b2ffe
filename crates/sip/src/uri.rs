//! SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966).

use crate::params::Params;
use crate::scan::{self, starts_with_nocase};
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Schemes of URIs that are understood (RFC 3261 §19.1, 3966, 5031).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    Tels,
    Urn,
}

/// Transports of SIP (RFC 3261 §18, 7118).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Sctp,
    Ws,
    Wss,
}

/// The one list of transports, in the order of the enum.
const TRANSPORTS: [(Transport, &str, &str, u16); 6] = [
    (Transport::Udp, "udp", "UDP", 5060),
    (Transport::Tcp, "tcp", "TCP", 5060),
    (Transport::Tls, "tls", "TLS", 5061),
    (Transport::Sctp, "sctp", "SCTP", 5060),
    (Transport::Ws, "ws", "WS", 80),
    (Transport::Wss, "wss", "WSS", 443),
];

impl Transport {
    /// Any case; `None` for a transport that is not ours.
    pub fn parse(text: &[u8]) -> Option<Transport> {
        TRANSPORTS.iter().find(|row| row.1.as_bytes().eq_ignore_ascii_case(text)).map(|row| row.0)
    }

    /// "udp"
    pub fn as_str(self) -> &'static str {
        TRANSPORTS[self as usize].1
    }

    /// "UDP"
    pub fn upper(self) -> &'static str {
        TRANSPORTS[self as usize].2
    }

    /// The port when none is written.
    pub fn default_port(self) -> u16 {
        TRANSPORTS[self as usize].3
    }
}

/// A text is no URI: why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("bad URI: {0}")]
pub struct UriError(pub &'static str);

impl UriError {
    /// A well-formed URI may follow, but of a scheme that is not ours (416, RFC 3261 §21.4.14).
    pub const UNKNOWN_SCHEME: UriError = UriError("unknown scheme");
}

/// A parsed URI; every part is a slice of its text. For `tel:`, the number is `user`, host is empty.
/// For `urn:service:sos` the host is "sos".
#[derive(Clone, Debug)]
pub struct Uri {
    /// All of it.
    pub text: Bytes,
    /// What stands before the first colon.
    pub scheme: Scheme,
    /// `None`: no `@`. Never empty.
    pub user: Option<Bytes>,
    /// What stands between the user's colon and the `@`.
    pub password: Option<Bytes>,
    /// IPv6 keeps its brackets.
    pub host: Bytes,
    /// As written; 0 when absent.
    pub port: u16,
    /// What follows the host.
    pub params: Params,
    /// Text after `?`, without it.
    pub headers: Bytes,
    pub(crate) layout: Layout,
}

/// Where the parts stand in `Uri::text`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// After the scheme's colon.
    pub start: usize,
    pub host: usize,
    pub host_end: usize,
    /// After the port.
    pub hostport_end: usize,
    /// After the parameters: at `?` or the end.
    pub params_end: usize,
}

impl Uri {
    /// Schemes sip, sips, tel, tels and urn, any case. Blanks, control characters, `<` and `>`
    /// are refused anywhere, `"` outside of parameters and headers.
    pub fn parse(text: &Bytes) -> Result<Uri, UriError> {
        const BAD: UriError = UriError("character that must be escaped");
        let seen = text.iter().fold(0, |seen, &b| seen | CLASS[usize::from(b)]);
        if seen & NEVER != 0 {
            return Err(BAD);
        }
        let uri = Uri::parse_parts(text)?;
        let quoted = || seen & QUOTE != 0 && text[..uri.layout.hostport_end.min(text.len())].contains(&b'"');
        if quoted() { Err(BAD) } else { Ok(uri) }
    }

    fn parse_parts(text: &Bytes) -> Result<Uri, UriError> {
        match scheme_of(text) {
            Some((scheme @ (Scheme::Sip | Scheme::Sips), start)) => parse_sip(text, scheme, start),
            Some((scheme @ (Scheme::Tel | Scheme::Tels), start)) => parse_tel(text, scheme, start),
            Some((Scheme::Urn, start)) => parse_urn(text, start),
            None => Err(UriError::UNKNOWN_SCHEME),
        }
    }

    /// The `transport` parameter, if it is one of ours.
    pub fn transport(&self) -> Option<Transport> {
        Transport::parse(&self.params.value(b"transport")?)
    }

    /// Port written, else the default of the scheme and transport.
    pub fn port_or_default(&self) -> u16 {
        match (self.port, self.scheme, self.transport()) {
            (0, Scheme::Sips, Some(Transport::Ws | Transport::Wss)) => Transport::Wss.default_port(),
            (0, Scheme::Sips | Scheme::Tels, _) => Transport::Tls.default_port(),
            (0, _, transport) => transport.unwrap_or(Transport::Udp).default_port(),
            (port, _, _) => port,
        }
    }

    /// A colon without a number follows the host.
    pub fn has_empty_port(&self) -> bool {
        self.port == 0 && self.layout.hostport_end == self.layout.host_end + 1
    }

    /// Port 0 is written out.
    pub fn has_zero_port(&self) -> bool {
        self.port == 0 && self.layout.hostport_end > self.layout.host_end + 1
    }

    /// The host as an address, if it is one; brackets of IPv6 are removed.
    pub fn ip(&self) -> Option<IpAddr> {
        ip_of(&self.host)
    }

    /// The scheme demands TLS on every hop.
    pub fn is_sips(&self) -> bool {
        matches!(self.scheme, Scheme::Sips | Scheme::Tels)
    }
}

/// The address that a host of a URI or Via is, IPv6 with or without brackets.
pub fn ip_of(host: &[u8]) -> Option<IpAddr> {
    // The parser of the standard library takes its time.
    if !host.contains(&b':') {
        return ipv4_of(host).map(IpAddr::V4);
    }
    let text = std::str::from_utf8(host).ok()?;
    match text.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Four numbers up to 255 without leading zeros, as the standard library reads them.
fn ipv4_of(host: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let (mut number, mut digits, mut octet) = (0, 0, 0u16);
    for &b in host {
        match b {
            b'0'..=b'9' if digits == 0 || octet > 0 => {
                octet = octet * 10 + u16::from(b - b'0');
                octets[number] = u8::try_from(octet).ok()?;
                digits += 1;
            }
            b'.' if digits > 0 && number < 3 => (number, digits, octet) = (number + 1, 0, 0),
            _ => return None,
        }
    }
    (number == 3 && digits > 0).then(|| octets.into())
}

fn scheme_of(text: &[u8]) -> Option<(Scheme, usize)> {
    const SCHEMES: [(&[u8], Scheme); 5] = [
        (b"sip:", Scheme::Sip),
        (b"sips:", Scheme::Sips),
        (b"tel:", Scheme::Tel),
        (b"tels:", Scheme::Tels),
        (b"urn:", Scheme::Urn),
    ];
    let found = SCHEMES.iter().find(|(prefix, _)| starts_with_nocase(text, prefix))?;
    Some((found.1, found.0.len()))
}

/// What stands nowhere in a URI, and what does not before its parameters.
const NEVER: u8 = 1;
const QUOTE: u8 = 2;

const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < table.len() {
        table[b] = match b as u8 {
            0..=b' ' | 0x7f | b'<' | b'>' => NEVER,
            b'"' => QUOTE,
            _ => 0,
        };
        b += 1;
    }
    table
};

/// What a host name cannot hold, for the reference too.
const FORBIDDEN_IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let list = b"@,[]{}\\/()^|=$&+#";
    let mut i = 0;
    while i < list.len() {
        table[list[i] as usize] = true;
        i += 1;
    }
    table
};

fn parse_sip(text: &Bytes, scheme: Scheme, start: usize) -> Result<Uri, UriError> {
    // A user may hold `;`, `?` and `/` but no `@`, so the first `@` ends it (RFC 3261 §25.1).
    let at = scan::find(&text[start..], [b'@']).map(|n| start + n);
    let (user, password) = match at {
        None => (None, None),
        Some(at) => match scan::find(&text[start..at], [b':']) {
            None => (Some(text.slice(start..at)), None),
            Some(n) => (Some(text.slice(start..start + n)), Some(text.slice(start + n + 1..at))),
        },
    };
    if user.as_ref().is_some_and(|user| user.is_empty()) {
        return Err(UriError("empty user"));
    }
    let host = at.map_or(start, |at| at + 1);
    let host_end = host_end(text, host)?;
    let (port, hostport_end) = port_at(text, host_end)?;
    let params_end = scan::find(&text[hostport_end..], [b'?']).map_or(text.len(), |n| hostport_end + n);
    Ok(Uri {
        scheme,
        user,
        password,
        host: text.slice(host..host_end),
        port,
        params: params_between(text, hostport_end, params_end),
        headers: text.slice((params_end + 1).min(text.len())..),
        layout: Layout { start, host, host_end, hostport_end, params_end },
        text: text.clone(),
    })
}

fn host_end(text: &[u8], host: usize) -> Result<usize, UriError> {
    let end = if text.get(host) == Some(&b'[') {
        let close = scan::find(&text[host..], [b']']).ok_or(UriError("IPv6 address without ]"))?;
        let end = host + close + 1;
        ip_of(&text[host..end]).ok_or(UriError("not an IPv6 address"))?;
        end
    } else {
        host + text[host..].iter().take_while(|b| !matches!(b, b':' | b';' | b'?')).count()
    };
    let name = &text[host..end];
    if name.is_empty() {
        return Err(UriError("no host"));
    }
    if name[0] != b'[' && name.iter().any(|&b| FORBIDDEN_IN_HOST[usize::from(b)]) {
        return Err(UriError("character not allowed in a host"));
    }
    Ok(end)
}

/// Port and the offset after it; an empty port (`host:`) counts as none.
fn port_at(text: &[u8], host_end: usize) -> Result<(u16, usize), UriError> {
    match text.get(host_end) {
        Some(b':') => {
            let digits = &text[host_end + 1..];
            let end = scan::find(digits, [b';', b'?']).unwrap_or(digits.len());
            let port = scan::port(&digits[..end]).ok_or(UriError("bad port"))?;
            Ok((port, host_end + 1 + end))
        }
        None | Some(b';' | b'?') => Ok((0, host_end)),
        Some(_) => Err(UriError("text after the host")),
    }
}

fn params_between(text: &Bytes, at: usize, end: usize) -> Params {
    if at < end { Params { text: text.slice(at + 1..end) } } else { Params::default() }
}

fn parse_tel(text: &Bytes, scheme: Scheme, start: usize) -> Result<Uri, UriError> {
    let end = scan::find(&text[start..], [b';']).map_or(text.len(), |n| start + n);
    if end == start {
        return Err(UriError("no number"));
    }
    // What a script made of it: the number is behind the `@` then, as the reference reads it.
    if let Some(at) = scan::find(&text[start..end], [b'@']) {
        let host = start + at + 1;
        let host_end = host_end(text, host)?;
        let (port, hostport_end) = port_at(text, host_end)?;
        return Ok(Uri {
            scheme,
            user: Some(text.slice(host..host_end)),
            password: None,
            host: Bytes::new(),
            port,
            params: params_between(text, hostport_end, text.len()),
            headers: Bytes::new(),
            layout: Layout { start, host, host_end, hostport_end, params_end: text.len() },
            text: text.clone(),
        });
    }
    Ok(Uri {
        scheme,
        user: Some(text.slice(start..end)),
        password: None,
        host: Bytes::new(),
        port: 0,
        params: params_between(text, end, text.len()),
        headers: Bytes::new(),
        layout: Layout { start, host: end, host_end: end, hostport_end: end, params_end: text.len() },
        text: text.clone(),
    })
}

/// `urn:service:sos` (RFC 5031), `urn:nena:service:police` and others: what follows the name space is the host.
fn parse_urn(text: &Bytes, start: usize) -> Result<Uri, UriError> {
    let colon = scan::find(&text[start..], [b':']).ok_or(UriError("URN without name space"))?;
    let mut host = start + colon + 1;
    if starts_with_nocase(&text[start..], b"nena:service:") {
        host = start + b"nena:service:".len();
    }
    if colon == 0 || host == text.len() {
        return Err(UriError("empty URN"));
    }
    let end = text.len();
    Ok(Uri {
        scheme: Scheme::Urn,
        user: None,
        password: None,
        host: text.slice(host..),
        port: 0,
        params: Params::default(),
        headers: Bytes::new(),
        layout: Layout { start, host, host_end: end, hostport_end: end, params_end: end },
        text: text.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Uri, UriError> {
        Uri::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn addresses_are_those_of_the_standard_library() {
        for text in [
            "1.2.3.4",
            "0.0.0.0",
            "255.255.255.255",
            "01.2.3.4",
            "1.2.3.00",
            "256.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "",
            ".",
            "1..2.3",
            "1.2.3.",
            ".1.2.3",
            "1.2.3.4 ",
            "+1.2.3.4",
            "1.2.3.x",
            "a.b.c.d",
            "::1",
            "::ffff:1.2.3.4",
            "fe80::g",
        ] {
            assert_eq!(ip_of(text.as_bytes()), text.parse().ok(), "{text}");
        }
        assert_eq!(ip_of(b"[::1]"), "::1".parse().ok());
        assert!([&b"[::1"[..], b"[1.2.3.4]", b"[]"].iter().all(|text| ip_of(text).is_none()));
    }

    /// user|password|host|port|params|headers, `-` for what is absent.
    fn check(text: &str, want: &str) {
        let uri = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let show =
            |b: &Option<Bytes>| b.as_ref().map_or("-".into(), |b| String::from_utf8_lossy(b).into_owned());
        let have = format!(
            "{}|{}|{}|{}|{}|{}",
            show(&uri.user),
            show(&uri.password),
            show(&Some(uri.host.clone())),
            uri.port,
            show(&Some(uri.params.text.clone())),
            show(&Some(uri.headers.clone()))
        );
        assert_eq!(have, want, "{text}");
    }

    #[test]
    fn parts() {
        check("sip:bob@example.com", "bob|-|example.com|0||");
        check("SIP:bob:pw@h:5062;a=b;lr?H=1&x=a", "bob|pw|h|5062|a=b;lr|H=1&x=a");
        check("sip:h", "-|-|h|0||");
        check("sip:h?x=1", "-|-|h|0||x=1");
        check("sip:bob@example.com:", "bob|-|example.com|0||");
        check("sip:b@[2001:db8::1]:5070;transport=udp", "b|-|[2001:db8::1]|5070|transport=udp|");
        check("sip:a;p?q/r@h:1", "a;p?q/r|-|h|1||");
        check("tel:+49-30;phone-context=x", "+49-30|-||0|phone-context=x|");
        check("urn:service:sos", "-|-|sos|0||");
        check("urn:service:sos.fire", "-|-|sos.fire|0||");
        check("urn:nena:service:sos", "-|-|sos|0||");
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "sip:",
            "sip:a@",
            "sip:@h",
            "sip::pw@h",
            "bob@example.com",
            "http://x",
            "sip:a@h:99999",
            "sip:a@h:x",
            "<sip:a@b>",
            "sip:a b@h",
            "sip:a@b@c",
            "tel:",
            "urn:",
            "urn:x:",
            "sip:[::1",
            "sip:[zz]",
            "*",
            "sip:a@h\r\n",
            "sip:[::1]x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn default_ports() {
        for (text, port) in [
            ("sip:h", 5060),
            ("sips:h", 5061),
            ("sip:h;transport=tls", 5061),
            ("sip:h;transport=ws", 80),
            ("sip:h:7", 7),
            ("tel:1", 5060),
            ("urn:service:sos", 5060),
        ] {
            assert_eq!(parse(text).unwrap().port_or_default(), port, "{text}");
        }
    }

    #[test]
    fn transports() {
        for (i, row) in TRANSPORTS.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(Transport::parse(row.2.as_bytes()), Some(row.0));
            assert_eq!(row.0.upper().to_lowercase(), row.0.as_str());
        }
        assert_eq!(Transport::parse(b"foo"), None);
    }
}
