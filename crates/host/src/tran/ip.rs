//! Class `ip`: addresses as texts and as bytes.

use super::{Entry, Tran, Word, some, text, truth};
use crate::context::net::{Net, address_of};
use crate::language::loader::Loader;
use bytes::Bytes;
use script::ast::TranSpec;
use script::{Diagnostic, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const NAMES: super::Names = &[
    ("pton", Entry::Pure(pton)),
    ("ntop", Entry::Pure(ntop)),
    ("family", Entry::Pure(family)),
    ("isip", Entry::Pure(|v| test(&v, |text| parse(text).is_some()))),
    ("isip4", Entry::Pure(|v| test(&v, |text| matches!(parse(text), Some(IpAddr::V4(_)))))),
    ("isip6", Entry::Pure(|v| test(&v, |text| matches!(parse(text), Some(IpAddr::V6(_)))))),
    (
        "isprivate",
        Entry::Pure(|v| test(&v, |text| matches!(parse(text), Some(IpAddr::V4(ip)) if private(ip)))),
    ),
    ("matches", Entry::With(matches)),
    ("resolve", Entry::With(|_, _| Ok(resolve(Family::Any)))),
    ("resolve4", Entry::With(|_, _| Ok(resolve(Family::V4)))),
    ("resolve6", Entry::With(|_, _| Ok(resolve(Family::V6)))),
];

/// An address as the reference reads it: IPv6 with or without brackets, never with IPv4 inside.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if bare.contains('.') { None } else { bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6) }
}

fn octets(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// As the reference prints it: IPv6 in capitals, all groups, none of them padded.
fn print(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => ip.to_string().into(),
        IpAddr::V6(ip) => ip.segments().map(|group| format!("{group:X}")).join(":").into(),
    }
}

/// RFC 1918, RFC 6598 and 127.0.0.0/8.
fn private(ip: Ipv4Addr) -> bool {
    ip.is_private() || ip.is_loopback() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
}

fn test(value: &Value, is: fn(&[u8]) -> bool) -> Value {
    let text = text(value);
    if text.is_empty() { Value::Null } else { truth(is(&text)) }
}

fn pton(value: Value) -> Value {
    parse(&text(&value)).map_or(Value::Null, |ip| Value::Str(octets(ip)))
}

fn ntop(value: Value) -> Value {
    let text = text(&value);
    let v4 = <[u8; 4]>::try_from(&text[..]).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(&text[..]).map(IpAddr::from));
    ip.map_or(Value::Null, |ip| Value::Str(print(ip)))
}

fn family(value: Value) -> Value {
    match text(&value).len() {
        4 => "INET".into(),
        16 => "INET6".into(),
        _ => Value::Null,
    }
}

/// `{ip.matches,10.0.0.0/8}`: NULL when one of both is no address or they are of different families.
fn matches(spec: &TranSpec, loader: &mut Loader) -> Result<Tran, Diagnostic> {
    let net = Word::new(spec, 0, loader)?;
    let fixed = match &net {
        Word::Fixed(text) => Some(network(text)),
        Word::Var(_) => None,
    };
    Ok(Tran::new(move |ctx, value| {
        let net = match fixed {
            Some(net) => net,
            None => net.get(ctx).and_then(|text| network(&text)),
        };
        match (net, parse(&text(&value))) {
            (Some((net, family)), Some(ip)) if family == ip.is_ipv4() => truth(net.has(ip)),
            _ => Value::Null,
        }
    }))
}

/// "address/bits", and whether it is IPv4.
fn network(text: &[u8]) -> Option<(Net, bool)> {
    let slash = memchr::memchr(b'/', text)?;
    let ip = parse(&text[..slash])?;
    let bits: u32 = std::str::from_utf8(&text[slash + 1..]).ok()?.parse().ok()?;
    Some((Net::new(ip, bits)?, ip.is_ipv4()))
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Any,
    V4,
    V6,
}

/// Address of a host name; that of an address is itself. Waits when DNS must be asked.
fn resolve(family: Family) -> Tran {
    Tran::waiting(move |ctx, value| {
        let name = text(&value);
        let name = name.strip_prefix(b"[").and_then(|n| n.strip_suffix(b"]")).unwrap_or(&name);
        let name = String::from_utf8_lossy(name).into_owned();
        address_of(ctx, name, move |hops| address(hops, family))
    })
}

/// The first address of the family.
fn address(hops: Vec<sip::names::Hop>, family: Family) -> Value {
    let mut found = hops.into_iter().map(|hop| hop.addr.ip().to_canonical());
    let ip = found.find(|ip| match family {
        Family::Any => true,
        Family::V4 => ip.is_ipv4(),
        Family::V6 => ip.is_ipv6(),
    });
    ip.map_or(Value::Null, |ip| some(print(ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, want) in [
            ("194.168.4.134", Some("194.168.4.134")),
            ("2001:db8::7334", Some("2001:DB8:0:0:0:0:0:7334")),
            ("[::1]", Some("0:0:0:0:0:0:0:1")),
            ("01.2.3.4", None),
            ("::ffff:1.2.3.4", None),
            ("fe80::1%eth0", None),
            ("1.2.3.4 ", None),
            ("", None),
        ] {
            let have = parse(text.as_bytes()).map(print);
            assert_eq!(have.as_deref(), want.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn private_networks() {
        for (ip, is) in [
            ("10.0.0.1", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("127.0.0.1", true),
            ("169.254.1.1", false),
        ] {
            assert_eq!(private(ip.parse().unwrap()), is, "{ip}");
        }
    }
}
