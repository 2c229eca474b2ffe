//! Values as a recording keeps them: small, without names, the same on every machine.

use bytes::Bytes;
use script::Value;
use sip::Transport;
use sip::names::{Hop, Record, ResolveError};
use std::net::{IpAddr, SocketAddr};

/// A value that can be written down and read back. `take` gives `None` for what `put` has not written.
pub trait Coded: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes it from the front.
    fn take(from: &mut &[u8]) -> Option<Self>;

    /// It alone.
    fn coded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
}

/// Seven bits a byte, the lowest first.
pub fn put_number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// What [`put_number`] wrote.
pub fn take_number(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// The next so many bytes.
pub fn take_bytes<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (bytes, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(bytes)
}

impl Coded for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(*self, out);
    }
    fn take(from: &mut &[u8]) -> Option<u64> {
        take_number(from)
    }
}

/// Numbers that fit into another one that is coded.
macro_rules! narrower {
    ($($kind:ty),*) => {
        $(impl Coded for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                put_number(u64::from(*self), out);
            }
            fn take(from: &mut &[u8]) -> Option<$kind> {
                take_number(from)?.try_into().ok()
            }
        })*
    };
}
narrower!(u8, u16, u32);

impl Coded for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_number((*self << 1 ^ *self >> 63) as u64, out);
    }
    fn take(from: &mut &[u8]) -> Option<i64> {
        let n = take_number(from)?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }
}

impl Coded for i32 {
    fn put(&self, out: &mut Vec<u8>) {
        i64::from(*self).put(out);
    }
    fn take(from: &mut &[u8]) -> Option<i32> {
        i64::take(from)?.try_into().ok()
    }
}

impl Coded for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut &[u8]) -> Option<bool> {
        Some(u8::take(from)? == 1)
    }
}

impl Coded for () {
    fn put(&self, _: &mut Vec<u8>) {}
    fn take(_: &mut &[u8]) -> Option<()> {
        Some(())
    }
}

impl Coded for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(self.len() as u64, out);
        out.extend_from_slice(self);
    }
    fn take(from: &mut &[u8]) -> Option<Bytes> {
        let count = take_number(from)?.try_into().ok()?;
        take_bytes(from, count).map(Bytes::copy_from_slice)
    }
}

impl Coded for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<String> {
        String::from_utf8(Bytes::take(from)?.into()).ok()
    }
}

impl<T: Coded> Coded for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Option<T>> {
        Some(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Coded> Coded for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(self.len() as u64, out);
        self.iter().for_each(|value| value.put(out));
    }
    fn take(from: &mut &[u8]) -> Option<Vec<T>> {
        (0..take_number(from)?).map(|_| T::take(from)).collect()
    }
}

impl<A: Coded, B: Coded> Coded for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<(A, B)> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<T: Coded, E: Coded> Coded for Result<T, E> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => error.put(out),
        }
    }
    fn take(from: &mut &[u8]) -> Option<Result<T, E>> {
        Some(if bool::take(from)? { Ok(T::take(from)?) } else { Err(E::take(from)?) })
    }
}

impl Coded for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
    }
    fn take(from: &mut &[u8]) -> Option<IpAddr> {
        Some(match u8::take(from)? {
            4 => <[u8; 4]>::try_from(take_bytes(from, 4)?).ok()?.into(),
            6 => <[u8; 16]>::try_from(take_bytes(from, 16)?).ok()?.into(),
            _ => return None,
        })
    }
}

impl Coded for SocketAddr {
    fn put(&self, out: &mut Vec<u8>) {
        self.ip().put(out);
        self.port().put(out);
    }
    fn take(from: &mut &[u8]) -> Option<SocketAddr> {
        Some(SocketAddr::new(IpAddr::take(from)?, u16::take(from)?))
    }
}

const TRANSPORTS: [Transport; 6] =
    [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Sctp, Transport::Ws, Transport::Wss];

impl Coded for Transport {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(TRANSPORTS.iter().position(|t| t == self).unwrap_or(0) as u8);
    }
    fn take(from: &mut &[u8]) -> Option<Transport> {
        TRANSPORTS.get(usize::from(u8::take(from)?)).copied()
    }
}

impl Coded for Hop {
    fn put(&self, out: &mut Vec<u8>) {
        self.transport.put(out);
        self.addr.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Hop> {
        Some(Hop { transport: Transport::take(from)?, addr: SocketAddr::take(from)? })
    }
}

impl Coded for ResolveError {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            ResolveError::NoAddress => 0,
            ResolveError::Unavailable => 1,
            ResolveError::BadName => 2,
            ResolveError::Transport => 3,
            _ => 4,
        });
    }
    fn take(from: &mut &[u8]) -> Option<ResolveError> {
        Some(match u8::take(from)? {
            0 => ResolveError::NoAddress,
            2 => ResolveError::BadName,
            3 => ResolveError::Transport,
            _ => ResolveError::Unavailable,
        })
    }
}

impl Coded for Record {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Record::Address(ip) => {
                out.push(0);
                ip.put(out);
            }
            Record::Srv { priority, weight, port, target } => {
                out.push(1);
                (*priority, (*weight, (*port, target.clone()))).put(out);
            }
            Record::Naptr { order, preference, flags, service, regexp, replacement } => {
                out.push(2);
                (*order, *preference).put(out);
                [flags, service, regexp, replacement].into_iter().for_each(|text| text.put(out));
            }
            Record::Txt(text) => {
                out.push(3);
                Bytes::copy_from_slice(text).put(out);
            }
            Record::Name(name) => {
                out.push(4);
                name.put(out);
            }
        }
    }
    fn take(from: &mut &[u8]) -> Option<Record> {
        Some(match u8::take(from)? {
            0 => Record::Address(IpAddr::take(from)?),
            1 => {
                let (priority, (weight, (port, target))) = Coded::take(from)?;
                Record::Srv { priority, weight, port, target }
            }
            2 => {
                let (order, preference) = Coded::take(from)?;
                let mut text = || String::take(from);
                let (flags, service, regexp, replacement) = (text()?, text()?, text()?, text()?);
                Record::Naptr { order, preference, flags, service, regexp, replacement }
            }
            3 => Record::Txt(Bytes::take(from)?.into()),
            4 => Record::Name(String::take(from)?),
            _ => return None,
        })
    }
}

impl Coded for Value {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null | Value::Nought | Value::Failed => out.push(0),
            Value::Int(n) | Value::Num(_, n) => {
                out.push(1);
                n.put(out);
            }
            Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _) => {
                out.push(2);
                text.put(out);
            }
        }
    }
    fn take(from: &mut &[u8]) -> Option<Value> {
        Some(match u8::take(from)? {
            0 => Value::Null,
            1 => Value::Int(i64::take(from)?),
            2 => Value::Str(Bytes::take(from)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Coded + PartialEq + std::fmt::Debug>(value: T) {
        let coded = value.coded();
        let mut from = &coded[..];
        assert_eq!(T::take(&mut from), Some(value));
        assert!(from.is_empty());
        for short in 0..coded.len() {
            assert!(T::take(&mut &coded[..short]).is_none(), "{short} of {}", coded.len());
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for n in [0, 1, -1, 63, -64, 300, i64::MAX, i64::MIN] {
            check(n);
        }
        for n in [0, 127, 128, u64::MAX] {
            check(n);
        }
        check((Some(String::from("a")), vec![1u16, 65535]));
        check::<Result<Bytes, String>>(Err("no".into()));
        check(SocketAddr::from(([10, 0, 0, 1], 5060)));
        check("[2001:db8::1]:5061".parse::<SocketAddr>().unwrap());
        check(Hop { transport: Transport::Wss, addr: ([1, 2, 3, 4], 443).into() });
        let text = || "x".to_string();
        check(vec![
            Record::Srv { priority: 1, weight: 2, port: 5060, target: text() },
            Record::Naptr {
                order: 1,
                preference: 2,
                flags: text(),
                service: text(),
                regexp: text(),
                replacement: text(),
            },
            Record::Txt(b"t".to_vec()),
            Record::Name(text()),
        ]);
        assert!(u8::take(&mut &[0xff, 0xff, 1][..]).is_none(), "it does not fit");
    }
}
