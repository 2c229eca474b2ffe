//! Listening specifications of scripts: `socket = udp:eth0:5060 as 203.0.113.7` (OpenSIPS `socket`,
//! `listen`, `-l`).

use std::fmt;
use std::net::IpAddr;

/// Protocol words that a specification may start with.
const PROTOCOLS: &[&str] = &[
    "udp", "tcp", "tls", "sctp", "ws", "wss", "bin", "bins", "hep_udp", "hep_tcp", "hep_tls", "smpp", "msrp",
    "msrps", "ipsec",
];
/// Ports of one specification; a range is for a handful of ports.
const MAX_PORTS: usize = 1024;

/// One specification as written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListenSpec {
    /// Lower case; `None` when none was written (all transports, in the reference).
    pub protocol: Option<String>,
    pub host: ListenHost,
    /// Ports, in order; empty: the protocol's default.
    pub ports: Vec<u16>,
    /// `as host[:port]`
    pub advertised: Option<(String, Option<u16>)>,
    pub tos: Option<u8>,
    pub tag: Option<String>,
    pub anycast: bool,
    pub accept_subdomain: bool,
    /// Options that are accepted and change nothing here (`use_workers`, `frag`, `reuse_port`, scaling profiles, proxy
    /// protocol): worth one line in the log.
    pub without_effect: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ListenHost {
    /// `*`: every address of every interface.
    #[default]
    All,
    Ip(IpAddr),
    /// An interface or a host name.
    Name(String),
}

/// What is wrong with a specification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenError {
    Empty,
    Port(String),
    Bracket(String),
    Option(String),
    Value(String),
    Bond,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Empty => write!(f, "the address is empty"),
            ListenError::Port(text) => write!(f, "`{text}` is not a port (1 to 65535)"),
            ListenError::Bracket(text) => write!(f, "`{text}` lacks its closing bracket"),
            ListenError::Option(text) => write!(
                f,
                "`{text}` is not a socket option (as, use_workers, tos, tag, anycast, frag, accept_subdomain ...)"
            ),
            ListenError::Value(text) => write!(f, "`{text}` needs a value"),
            ListenError::Bond => write!(f, "bond sockets are not supported"),
        }
    }
}

impl ListenSpec {
    /// Reads `[proto:]host[:port[-port]] [option...]`; quotes around a part are dropped.
    pub fn parse(text: &str) -> Result<ListenSpec, ListenError> {
        let text = text.trim().trim_end_matches(';').replace('"', "");
        let mut words = text.split_whitespace();
        let mut spec = ListenSpec::default();
        let mut rest = words.next().ok_or(ListenError::Empty)?;
        if let Some((first, after)) = rest.split_once(':') {
            let first = first.to_ascii_lowercase();
            if first == "bond" {
                return Err(ListenError::Bond);
            }
            if PROTOCOLS.contains(&first.as_str()) {
                spec.protocol = Some(first);
                rest = after;
            }
        }
        let (host, port) = split_host_port(rest)?;
        spec.host = match host {
            "" => return Err(ListenError::Empty),
            "*" => ListenHost::All,
            _ => match host.parse::<IpAddr>() {
                Ok(ip) => ListenHost::Ip(ip),
                Err(_) => ListenHost::Name(host.to_owned()),
            },
        };
        if let Some(port) = port {
            spec.ports = parse_ports(port)?;
        }
        spec.options(&mut words)?;
        Ok(spec)
    }

    fn options<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Result<(), ListenError> {
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| ListenError::Value(word.to_owned()));
            match word.to_ascii_lowercase().as_str() {
                "as" => {
                    let (host, port) = split_host_port(value()?)?;
                    let port = port.map(parse_port).transpose()?;
                    self.advertised = Some((host.to_owned(), port));
                }
                "use_workers" | "use_children" => {
                    let _: u16 = parse_number(value()?)?;
                    self.without_effect.push(format!("{word} (all workers read every socket)"));
                }
                "tos" => self.tos = Some(parse_number(value()?)?),
                "tag" => self.tag = Some(value()?.to_owned()),
                "anycast" => self.anycast = true,
                "accept_subdomain" => self.accept_subdomain = true,
                "use_auto_scaling_profile" => {
                    value()?;
                    self.without_effect.push(word.to_owned());
                }
                "frag" | "reuse_port" | "allow_proxy_protocol" | "send_proxy_protocol" | "proxy_protocol" => {
                    self.without_effect.push(word.to_owned());
                }
                _ => return Err(ListenError::Option(word.to_owned())),
            }
        }
        Ok(())
    }
}

/// `host:port`, `[v6]:port`, a bare IPv6 address; the brackets are removed.
fn split_host_port(text: &str) -> Result<(&str, Option<&str>), ListenError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| ListenError::Bracket(text.to_owned()))?;
        return Ok((host, after.strip_prefix(':')));
    }
    if text.matches(':').count() > 1 && text.parse::<IpAddr>().is_ok() {
        return Ok((text, None));
    }
    Ok(match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

fn parse_port(text: &str) -> Result<u16, ListenError> {
    text.parse().ok().filter(|p| *p > 0).ok_or_else(|| ListenError::Port(text.to_owned()))
}

fn parse_ports(text: &str) -> Result<Vec<u16>, ListenError> {
    let Some((first, last)) = text.split_once('-') else { return Ok(vec![parse_port(text)?]) };
    let range = parse_port(first)?..=parse_port(last)?;
    if range.is_empty() || range.len() > MAX_PORTS {
        return Err(ListenError::Port(text.to_owned()));
    }
    Ok(range.collect())
}

fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, ListenError> {
    text.parse().map_err(|_| ListenError::Value(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification in short: `proto host ports as workers`.
    fn check(text: &str, expected: &str) {
        let got = match ListenSpec::parse(text) {
            Err(e) => format!("error: {e}"),
            Ok(s) => {
                let host = match &s.host {
                    ListenHost::All => "*".to_owned(),
                    ListenHost::Ip(ip) => format!("ip {ip}"),
                    ListenHost::Name(name) => format!("name {name}"),
                };
                let mut out = format!("{} {host} {:?}", s.protocol.as_deref().unwrap_or("-"), s.ports);
                if let Some((host, port)) = &s.advertised {
                    out += &format!(" as {host} {port:?}");
                }
                if !s.without_effect.is_empty() {
                    out += &format!(" ignored {}", s.without_effect.join(","));
                }
                out
            }
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn specifications() {
        check("udp:127.0.0.1:5060", "udp ip 127.0.0.1 [5060]");
        check("udp:*:5060", "udp * [5060]");
        check("UDP:eth0", "udp name eth0 []");
        check("127.0.0.1", "- ip 127.0.0.1 []");
        check("sip.example.com:5070", "- name sip.example.com [5070]");
        check("tls:[2001:db8::1]:5061", "tls ip 2001:db8::1 [5061]");
        check("udp:2001:db8::1", "udp ip 2001:db8::1 []");
        check("udp:10.0.0.1:5060-5062", "udp ip 10.0.0.1 [5060, 5061, 5062]");
        check("udp:10.0.0.1:5060 as 203.0.113.7:5080", "udp ip 10.0.0.1 [5060] as 203.0.113.7 Some(5080)");
        check(
            "udp:10.0.0.1 AS sip.example.com use_children 3;",
            "udp ip 10.0.0.1 [] as sip.example.com None ignored use_children (all workers read every socket)",
        );
        check("udp:\"eth0:1\":5060 frag", "udp name eth0:1 [5060] ignored frag");
        check("udp:10.0.0.1:0", "error: `0` is not a port (1 to 65535)");
        check("udp:10.0.0.1:70000", "error: `70000` is not a port (1 to 65535)");
        check("udp:[::1:5060", "error: `[::1:5060` lacks its closing bracket");
        check("udp:10.0.0.1 as", "error: `as` needs a value");
        check("udp:", "error: the address is empty");
        check("", "error: the address is empty");
    }
}
