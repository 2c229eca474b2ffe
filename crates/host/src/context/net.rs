//! Networks by address and mask, and the addresses of host names.

use crate::context::call::DEFAULT_LIMIT_MS;
use crate::context::ctx::{Ctx, Resolved};
use crate::context::var::Answer;
use bytes::Bytes;
use script::Value;
use std::net::IpAddr;

/// An address with its mask, `10.0.0.0/8` or `10.0.0.0/255.0.0.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Net {
    bits: u128,
    mask: u128,
    v6: bool,
}

impl Net {
    pub fn parse(text: &str) -> Option<Net> {
        let (ip, mask) = match text.split_once('/') {
            Some((ip, mask)) => (ip, Some(mask)),
            None => (text, None),
        };
        let ip = ip.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(ip);
        let ip: IpAddr = ip.parse().ok()?;
        let (bits, width) = bits_of(ip);
        let mask = match mask {
            None => ones(width, width),
            Some(mask) => match mask.parse::<u32>() {
                Ok(length) if length <= width => ones(length, width),
                Ok(_) => return None,
                Err(_) => bits_of(mask.parse().ok().filter(|m: &IpAddr| m.is_ipv4() == ip.is_ipv4())?).0,
            },
        };
        Some(Net { bits: bits & mask, mask, v6: ip.is_ipv6() })
    }

    /// The first `length` bits of an address; `None` when it has fewer.
    pub fn new(ip: IpAddr, length: u32) -> Option<Net> {
        let (bits, width) = bits_of(ip);
        if length > width {
            return None;
        }
        let mask = ones(length, width);
        Some(Net { bits: bits & mask, mask, v6: ip.is_ipv6() })
    }

    /// The network and its mask as addresses.
    pub fn parts(&self) -> (IpAddr, IpAddr) {
        let ip =
            |bits: u128| if self.v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
        (ip(self.bits), ip(self.mask))
    }

    pub fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv6() == self.v6 && bits_of(ip).0 & self.mask == self.bits
    }
}

/// An address as management prints it: every group of IPv6, none left out ("0:0:0:0:0:0:0:1").
pub fn long_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.segments().map(|group| format!("{group:x}")).join(":"),
    }
}

fn bits_of(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

/// The `length` highest of `width` bits.
fn ones(length: u32, width: u32) -> u128 {
    let all = u128::MAX >> (128 - width);
    if length == 0 { 0 } else { (all << (width - length)) & all }
}

/// What is made of the addresses of a host; NULL when it has none.
pub(crate) fn address_of(
    ctx: &mut Ctx,
    host: String,
    pick: impl FnOnce(Vec<sip::names::Hop>) -> Value + 'static,
) -> Answer {
    // With a port no SRV records are asked for.
    let (port, transport, security) = (5060, None, sip::names::Security::Sip);
    let detail = Bytes::from(host.clone());
    match ctx.core.spawner.resolve(sip::names::Query { host, port, transport, security }) {
        Resolved::Now(Ok(hops)) => Answer::Now(pick(hops)),
        Resolved::Now(Err(_)) => Answer::Now(Value::Null),
        Resolved::Later(found) => {
            Answer::later(
                "name",
                detail,
                DEFAULT_LIMIT_MS,
                async move { found.await.map_or(Value::Null, pick) },
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (net, ip, inside) in [
            ("127.0.0.0/8", "127.0.0.2", true),
            ("127.0.0.0/255.0.0.0", "127.9.9.9", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.1.0.0/16", "10.2.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:5::1", true),
            ("[2001:db8::1]", "2001:db8::1", true),
        ] {
            assert_eq!(Net::parse(net).unwrap().has(ip.parse().unwrap()), inside, "{ip} in {net}");
        }
        for text in ["10.0.0.0/33", "10.0.0.0/x", "a.b", "10.0.0.0/::1", ""] {
            assert_eq!(Net::parse(text), None, "{text}");
        }
    }
}
