//! Equality of URIs (RFC 3261 §19.1.4, RFC 3966 §5 for `tel:`, RFC 8141 for `urn:`).

use crate::params::Params;
use crate::scan;
use crate::uri::{Scheme, Uri, ip_of};
use crate::uri_edit::escaped;

/// Parameters that count also when only one of the URIs has them.
const SIGNIFICANT: [&[u8]; 5] = [b"user", b"ttl", b"method", b"maddr", b"transport"];

const MAX_COMPARED: usize = 64;

impl Uri {
    /// Equality of RFC 3261 §19.1.4: user and password by case, the rest not; escapes are decoded;
    /// an explicit default port differs from none; unknown parameters count only when both have
    /// them; headers always count.
    pub fn equals(&self, other: &Uri) -> bool {
        self.scheme == other.scheme
            && match self.scheme {
                Scheme::Sip | Scheme::Sips => self.equals_sip(other),
                Scheme::Tel | Scheme::Tels => self.equals_tel(other),
                Scheme::Urn => self.text.eq_ignore_ascii_case(&other.text),
            }
    }

    fn equals_sip(&self, other: &Uri) -> bool {
        let userinfo = |uri: &Uri| uri.user.clone().filter(|u| !u.is_empty());
        same_option(userinfo(self).as_deref(), userinfo(other).as_deref(), Case::Sensitive)
            && same_option(self.password.as_deref(), other.password.as_deref(), Case::Sensitive)
            && same_host(&self.host, &other.host)
            && self.port == other.port
            && common_params_agree(&self.params, &other.params)
            && SIGNIFICANT.iter().all(|name| self.params.has(name) == other.params.has(name))
            && same_headers(&self.headers, &other.headers)
    }

    fn equals_tel(&self, other: &Uri) -> bool {
        let digits = |uri: &Uri| -> Vec<u8> {
            let number = uri.user.as_deref().unwrap_or_default();
            number.iter().filter(|b| !b"-.()".contains(b)).map(u8::to_ascii_lowercase).collect()
        };
        digits(self) == digits(other)
            && common_params_agree(&self.params, &other.params)
            && self.params.slices().count() == other.params.slices().count()
            && self.params.slices().all(|(name, _)| other.params.has(name))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    Sensitive,
    Ignored,
}

fn same_option(a: Option<&[u8]>, b: Option<&[u8]>, case: Case) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => same_text(a, b, case),
        _ => false,
    }
}

/// Texts with escapes decoded, except that an escaped reserved character differs from the bare one.
fn same_text(a: &[u8], b: &[u8], case: Case) -> bool {
    normal(a, case).eq(normal(b, case))
}

/// Units of comparison: a byte, with 256 added when a reserved character was escaped.
fn normal(text: &[u8], case: Case) -> impl Iterator<Item = u16> + '_ {
    let mut i = 0;
    std::iter::from_fn(move || {
        let &byte = text.get(i)?;
        let decoded = escaped(&text[i..]);
        i += if decoded.is_some() { 3 } else { 1 };
        Some(match decoded {
            Some(b) if b";/?:@&=+$,".contains(&b) => 256 + u16::from(b),
            other => {
                let b = other.unwrap_or(byte);
                u16::from(if case == Case::Ignored { b.to_ascii_lowercase() } else { b })
            }
        })
    })
}

fn same_host(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b) || matches!((ip_of(a), ip_of(b)), (Some(x), Some(y)) if x == y)
}

/// Of a repeated parameter the first counts. Beyond `MAX_COMPARED` parameters only equal texts agree,
/// which bounds the work on hostile URIs.
fn common_params_agree(a: &Params, b: &Params) -> bool {
    if a.slices().nth(MAX_COMPARED).is_some() || b.slices().nth(MAX_COMPARED).is_some() {
        return a.text.eq_ignore_ascii_case(&b.text);
    }
    a.slices().all(|(name, _)| match (a.find(name), b.find(name)) {
        (Some(mine), Some(other)) => same_option(mine.as_deref(), other.as_deref(), Case::Ignored),
        _ => true,
    })
}

/// The same headers in any order; names without case, values as they are.
fn same_headers(a: &[u8], b: &[u8]) -> bool {
    let split = |text| -> Vec<(Vec<u16>, Vec<u16>)> {
        let fields = <[u8]>::split(text, |&b| b == b'&').filter(|field| !field.is_empty());
        let mut list: Vec<_> = fields
            .map(|field| {
                let eq = scan::find(field, [b'=']).unwrap_or(field.len());
                let value = field.get(eq + 1..).unwrap_or_default();
                (normal(&field[..eq], Case::Ignored).collect(), normal(value, Case::Sensitive).collect())
            })
            .collect();
        list.sort();
        list
    };
    a == b || split(a) == split(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn check(a: &str, b: &str, want: bool) {
        let [x, y] = [a, b].map(|t| Uri::parse(&Bytes::copy_from_slice(t.as_bytes())).unwrap());
        assert_eq!(x.equals(&y), want, "{a} {b}");
        assert_eq!(y.equals(&x), want, "{b} {a}");
        assert!(x.equals(&x) && y.equals(&y));
    }

    /// The examples of RFC 3261 §19.1.4, then our own.
    #[test]
    fn examples() {
        check("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", true);
        check("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", true);
        check("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5", true);
        check(
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            true,
        );
        check(
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            true,
        );
        check("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP", false);
        check("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", false);
        check("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", false);
        check("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp", false);
        check("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting", false);
        check("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4", false);
        check("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off", false);
        check("sip:a@h", "sips:a@h", false);
        check("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]", true);
        check("sip:a%2Fb@h", "sip:a/b@h", false);
        check("sip:a:p@h", "sip:a@h", false);
        check("sip:h;lr", "sip:h;lr=on", false);
        check("tel:+49-30(123)", "tel:+4930123", true);
        check("tel:1;phone-context=a", "tel:1", false);
        check("tel:1;isub=2;phone-context=A", "tel:1;phone-context=a;isub=2", true);
        check("urn:service:sos", "URN:Service:SOS", true);
    }
}
