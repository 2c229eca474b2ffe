//! The table of addresses in memory: groups of hosts and networks.

use ahash::AHashMap;
use bytes::Bytes;
use host::db::{Row, Rows};
use regex::bytes::Regex;
use sip::Transport;
use std::net::IpAddr;

/// Group 0 of a question: any group.
pub const ANY_GROUP: u32 = 0;

/// One row of the table.
#[derive(Debug)]
pub struct Entry {
    pub ip: IpAddr,
    /// Bits of the mask.
    pub mask: u8,
    /// 0: any.
    pub port: u16,
    /// `None`: any.
    pub proto: Option<Transport>,
    pub pattern: Option<(Bytes, Regex)>,
    pub info: Option<Bytes>,
}

impl Entry {
    /// It is one address. 32 is what the table gives when no mask is set, so an IPv6 address with it is a host
    /// too.
    pub fn is_host(&self) -> bool {
        self.mask == 32 || self.mask == 128
    }

    fn accepts(&self, question: &Question<'_>) -> bool {
        let pattern = match (&self.pattern, question.pattern) {
            (Some((_, regex)), Some(text)) => regex.is_match(text),
            _ => true,
        };
        let port = self.port == 0 || question.port == 0 || self.port == question.port;
        let proto = self.proto.is_none() || question.proto.is_none() || self.proto == question.proto;
        port && proto && pattern
    }
}

/// What is looked for.
pub struct Question<'a> {
    pub ip: IpAddr,
    /// 0: any.
    pub port: u16,
    /// `None`: any.
    pub proto: Option<Transport>,
    pub pattern: Option<&'a [u8]>,
}

/// The entries of one group.
#[derive(Debug)]
pub struct Group {
    pub id: u32,
    hosts: AHashMap<IpAddr, Vec<Entry>>,
    /// By (address family, length of the mask), longest first: an entry is found by its network address.
    nets: Vec<(Family, u8, AHashMap<IpAddr, Vec<Entry>>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

fn family(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

impl Group {
    fn find(&self, question: &Question<'_>) -> Option<&Entry> {
        let accepts = |e: &&Entry| e.accepts(question);
        if let Some(found) = self.hosts.get(&question.ip).and_then(|list| list.iter().find(accepts)) {
            return Some(found);
        }
        let nets = self.nets.iter().filter(|(f, ..)| *f == family(question.ip));
        nets.filter_map(|(_, mask, by_net)| by_net.get(&masked(question.ip, *mask)))
            .find_map(|list| list.iter().find(accepts))
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let nets = self.nets.iter().flat_map(|(_, _, by_net)| by_net.values().flatten());
        self.hosts.values().flatten().chain(nets)
    }
}

/// The network part of an address.
fn masked(ip: IpAddr, mask: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let bits = u32::MAX.checked_shl(32 - u32::from(mask.min(32))).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & bits).into())
        }
        IpAddr::V6(ip) => {
            let bits = u128::MAX.checked_shl(128 - u32::from(mask.min(128))).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & bits).into())
        }
    }
}

/// All groups, in the order of the table.
#[derive(Debug, Default)]
pub struct Addresses {
    pub groups: Vec<Group>,
}

/// Which answer there is.
#[derive(Debug, PartialEq)]
pub enum AddressMatch<T> {
    Entry(T),
    NoMatch,
    NoGroup,
}

impl Addresses {
    /// From rows of (ip, group, mask, port, proto, pattern, info); rows that make no sense are left out and
    /// said so.
    pub fn read(rows: &Rows) -> Addresses {
        let mut addresses = Addresses::default();
        for row in rows.iter() {
            match entry(&row) {
                Ok(Some((group, entry))) => addresses.add(group, entry),
                Ok(None) => {}
                Err(why) => host::warn!("permissions", "address {} is left out: {why}", row.string(0)),
            }
        }
        addresses
    }

    fn add(&mut self, id: u32, entry: Entry) {
        let at = match self.groups.iter().position(|g| g.id == id) {
            Some(at) => at,
            None => {
                self.groups.push(Group { id, hosts: AHashMap::new(), nets: Vec::new() });
                self.groups.len() - 1
            }
        };
        let group = &mut self.groups[at];
        if entry.is_host() {
            return group.hosts.entry(entry.ip).or_default().push(entry);
        }
        let (family, mask) = (family(entry.ip), entry.mask);
        let at = match group.nets.iter().position(|(f, m, _)| (*f, *m) == (family, mask)) {
            Some(at) => at,
            None => {
                group.nets.push((family, mask, AHashMap::new()));
                group.nets.sort_by_key(|(_, mask, _)| std::cmp::Reverse(*mask));
                group.nets.iter().position(|(f, m, _)| (*f, *m) == (family, mask)).expect("just added")
            }
        };
        group.nets[at].2.entry(masked(entry.ip, mask)).or_default().push(entry);
    }

    pub fn find(&self, group: u32, question: &Question<'_>) -> AddressMatch<&Entry> {
        if group == ANY_GROUP {
            let found = self.groups.iter().find_map(|g| g.find(question));
            return found.map_or(AddressMatch::NoMatch, AddressMatch::Entry);
        }
        match self.groups.iter().find(|g| g.id == group) {
            None => AddressMatch::NoGroup,
            Some(group) => group.find(question).map_or(AddressMatch::NoMatch, AddressMatch::Entry),
        }
    }

    /// The first group that holds an address.
    pub fn group_of(&self, question: &Question<'_>) -> Option<u32> {
        self.groups.iter().find(|g| g.find(question).is_some()).map(|g| g.id)
    }
}

/// One row; `None`: it never matches ("none" as protocol, no address).
fn entry(row: &Row<'_>) -> Result<Option<(u32, Entry)>, String> {
    let ip = row.string(0);
    if ip.is_empty() || row.string(4).eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let ip = ip.trim_matches(['[', ']']).parse::<IpAddr>().map_err(|_| "it is no IP address".to_string())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let mask = row.int(2).filter(|m| (0..=most).contains(m)).ok_or("its mask is out of range")? as u8;
    let port = row.int(3).and_then(|p| u16::try_from(p).ok()).ok_or("its port is out of range")?;
    let group = row.int(1).and_then(|g| u32::try_from(g).ok()).ok_or("its group is no number")?;
    let proto = proto(row.string(4).as_bytes()).ok_or("its protocol is unknown")?;
    let pattern = match row.text(5).filter(|p| !p.is_empty()) {
        Some(text) => {
            let regex = wildcard(&text).ok_or("its pattern cannot be read")?;
            Some((text, regex))
        }
        None => None,
    };
    Ok(Some((group, Entry { ip, mask, port, proto, pattern, info: row.text(6) })))
}

/// "any" (or nothing) is `Some(None)`; `None` for a name that is no transport.
pub fn proto(text: &[u8]) -> Option<Option<Transport>> {
    let text = text.trim_ascii();
    if text.is_empty() || text.eq_ignore_ascii_case(b"any") {
        return Some(None);
    }
    Transport::parse(text).map(Some)
}

/// A shell wildcard (`*`, `?`, `[a-z]`, `[!a]`, `\x`) as a regular expression over the whole text.
fn wildcard(text: &[u8]) -> Option<Regex> {
    let text = std::str::from_utf8(text).ok()?;
    let mut out = String::from("(?s)^");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => {
                out.push('[');
                if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
                    out.push('^');
                }
                let mut first = true;
                loop {
                    let c = chars.next()?;
                    if c == ']' && !first {
                        break;
                    }
                    first = false;
                    if matches!(c, '[' | ']' | '\\' | '^' | '&' | '~') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push(']');
            }
            '\\' => out.push_str(&regex::escape(&chars.next()?.to_string())),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    regex::bytes::RegexBuilder::new(&out).unicode(false).size_limit(1 << 20).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::db::DbValue;

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("bob*", "bobby", true),
            ("bob*", "alice", false),
            ("?ob", "bob", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("a.b", "axb", false),
            (r"\*", "*", true),
            ("*@example.com", "sip:x@example.com", true),
            ("", "", true),
        ] {
            let regex = wildcard(pattern.as_bytes()).expect(pattern);
            assert_eq!(regex.is_match(text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(wildcard(b"[a").is_none());
    }

    fn rows(list: &[(&'static str, i64, i64, i64, &'static str)]) -> Rows {
        let columns = ["ip", "grp", "mask", "port", "proto", "pattern", "info"].map(Into::into).to_vec();
        let cells = list.iter().flat_map(|(ip, group, mask, port, proto)| {
            [
                (*ip).into(),
                (*group).into(),
                (*mask).into(),
                (*port).into(),
                (*proto).into(),
                DbValue::Null,
                DbValue::from(*ip),
            ]
        });
        Rows::new(columns, cells.collect())
    }

    #[test]
    fn hosts_before_networks_and_longer_masks_first() {
        let addresses = Addresses::read(&rows(&[
            ("10.0.0.0", 1, 8, 0, "any"),
            ("10.1.0.0", 1, 16, 0, "any"),
            ("10.1.1.1", 1, 32, 5070, "udp"),
            ("2001:db8::1", 2, 128, 0, "tcp"),
            ("2001:db8::", 2, 48, 0, "any"),
            ("0.0.0.0", 3, 0, 0, "any"),
            ("1.1.1.1", 4, 32, 0, "none"),
            ("nonsense", 4, 32, 0, "any"),
            ("1.1.1.1", 4, 33, 0, "any"),
        ]));
        let ask = |group, ip: &str, port, proto: &str| {
            let proto = proto_of(proto);
            let question = Question { ip: ip.parse().expect(ip), port, proto, pattern: None };
            match addresses.find(group, &question) {
                AddressMatch::Entry(e) => e.ip.to_string(),
                AddressMatch::NoMatch => "-".into(),
                AddressMatch::NoGroup => "no group".into(),
            }
        };
        for (group, ip, port, proto, expected) in [
            (1, "10.1.1.1", 5070, "udp", "10.1.1.1"),
            (1, "10.1.1.1", 5071, "udp", "10.1.0.0"),
            (1, "10.1.1.1", 0, "any", "10.1.1.1"),
            (1, "10.2.2.2", 1, "tcp", "10.0.0.0"),
            (1, "11.2.2.2", 1, "tcp", "-"),
            (2, "2001:db8::1", 5060, "udp", "2001:db8::"),
            (2, "2001:db8::1", 5060, "tcp", "2001:db8::1"),
            (0, "9.9.9.9", 5060, "udp", "0.0.0.0"),
            (4, "1.1.1.1", 5060, "udp", "no group"),
        ] {
            assert_eq!(ask(group, ip, port, proto), expected, "{group} {ip} {port} {proto}");
        }
    }

    fn proto_of(text: &str) -> Option<Transport> {
        proto(text.as_bytes()).expect(text)
    }
}
