//! hep_get, hep_set, hep_del; $hep_net and $HEPVERSION.

use super::{ROUTES, SipCapture, packet, set_packet};
use crate::hep::Version;
use crate::hep_in::{Received, kind};
use bytes::Bytes;
use host::var::{At, VarKind, Variable};
use host::{Call, Ctx, OutVar, Registrar, Text, Value};
use script::Diagnostic;
use std::net::IpAddr;

/// Chunks by the names that scripts may use.
const NAMES: [(&str, u16); 13] = [
    ("proto_family", kind::FAMILY),
    ("proto_id", kind::PROTOCOL),
    ("src_ip", kind::SOURCE_4),
    ("dst_ip", kind::TARGET_4),
    ("src_port", kind::SOURCE_PORT),
    ("dst_port", kind::TARGET_PORT),
    ("timestamp", kind::SECONDS),
    ("timestamp_us", kind::MICROSECONDS),
    ("proto_type", kind::PAYLOAD_KIND),
    ("captagent_id", kind::AGENT),
    ("payload", kind::PAYLOAD),
    ("correlation_id", kind::CORRELATION),
    ("time", kind::SECONDS),
];

/// Transports, as IP numbers them.
const PROTOCOLS: [(&str, u8); 8] =
    [("UDP", 17), ("TCP", 6), ("TLS", 22), ("SCTP", 132), ("WS", 50), ("WSS", 51), ("BIN", 52), ("HEP", 53)];

/// What a payload is, as HEP numbers it.
const KINDS: [(&str, u8); 12] = [
    ("SIP", 1),
    ("XMPP", 2),
    ("SDP", 3),
    ("RTP", 4),
    ("RTCP", 5),
    ("MGCP", 6),
    ("MEGACO", 7),
    ("M2UA", 8),
    ("M3UA", 9),
    ("IAX", 10),
    ("H322", 11),
    ("H321", 12),
];

/// How the data of a chunk is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Uint8,
    Uint16,
    Uint32,
    Inet4,
    Inet6,
    Text,
    Octets,
}

impl Type {
    fn parse(text: &str) -> Option<Type> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "uint8" => Type::Uint8,
            "uint16" => Type::Uint16,
            "uint32" => Type::Uint32,
            "inet4-addr" => Type::Inet4,
            "inet6-addr" => Type::Inet6,
            "" | "utf8-string" => Type::Text,
            "octet-string" => Type::Octets,
            _ => return None,
        })
    }

    /// That of a chunk with a meaning of its own.
    fn of(kind: u16) -> Option<Type> {
        Some(match kind {
            1 | 2 | 11 => Type::Uint8,
            3 | 4 => Type::Inet4,
            5 | 6 => Type::Inet6,
            7 | 8 | 13 | 18 => Type::Uint16,
            9 | 10 | 12 => Type::Uint32,
            14 => Type::Octets,
            15..=17 => Type::Text,
            _ => return None,
        })
    }

    fn encode(self, text: &Bytes) -> Option<Bytes> {
        let word = std::str::from_utf8(text).ok().map(str::trim);
        let number = || -> Option<u32> {
            let word = word?;
            word.strip_prefix("0x").map_or_else(|| word.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
        };
        Some(match self {
            Type::Uint8 => vec![u8::try_from(number()?).ok()?].into(),
            Type::Uint16 => u16::try_from(number()?).ok()?.to_be_bytes().to_vec().into(),
            Type::Uint32 => number()?.to_be_bytes().to_vec().into(),
            Type::Inet4 | Type::Inet6 => match (self, word?.trim_matches(['[', ']']).parse().ok()?) {
                (Type::Inet4, IpAddr::V4(ip)) => ip.octets().to_vec().into(),
                (Type::Inet6, IpAddr::V6(ip)) => ip.octets().to_vec().into(),
                _ => return None,
            },
            Type::Text | Type::Octets => text.clone(),
        })
    }

    fn decode(self, data: &Bytes) -> Option<Value> {
        let number = |bytes: &[u8]| bytes.iter().fold(0i64, |n, b| n << 8 | i64::from(*b));
        Some(match self {
            Type::Uint8 if data.len() == 1 => Value::Int(number(data)),
            Type::Uint16 if data.len() == 2 => Value::Int(number(data)),
            Type::Uint32 if data.len() == 4 => Value::Int(number(data)),
            Type::Inet4 => Value::from(IpAddr::from(<[u8; 4]>::try_from(&data[..]).ok()?).to_string()),
            Type::Inet6 => Value::from(IpAddr::from(<[u8; 16]>::try_from(&data[..]).ok()?).to_string()),
            Type::Text | Type::Octets => Value::Str(data.clone()),
            _ => return None,
        })
    }
}

fn number(text: &str) -> Option<u16> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u16::from_str_radix(hex, 16).ok())
}

/// The number of a chunk: written so, or its name.
fn chunk_of(text: &Text) -> Option<u16> {
    let text = text.str();
    let text = text.trim();
    let named = || NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, kind)| *kind);
    number(text).filter(|kind| *kind > 0).or_else(named)
}

pub fn register(m: &mut Registrar<SipCapture>) {
    m.function("hep_set", ROUTES, hep_set);
    m.function("hep_get", ROUTES, hep_get);
    m.function("hep_del", ROUTES, hep_del);
    m.variable("HEPVERSION", |call| match packet(call.ctx) {
        Some(packet) => Value::Int(packet.version as i64),
        None => Value::Null,
    });
    m.variable_class("hep_net", |spec, _, _| {
        let name = spec.inner.clone().unwrap_or_default();
        let known = ["proto_family", "proto_id", "src_ip", "dst_ip", "src_port", "dst_port"];
        match known.into_iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
            Some(name) => Ok(VarKind::Other(Box::new(Net(name)))),
            None => Err(Diagnostic::error(spec.loc, format!("$hep_net takes {}", known.join(", ")))),
        }
    });
}

/// `$hep_net(name)`: who sent the packet, and where it came to.
struct Net(&'static str);

impl Variable for Net {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(packet) = packet(ctx) else { return Value::Null };
        match self.0 {
            "proto_family" => Value::from(if packet.peer.is_ipv4() { "AF_INET" } else { "AF_INET6" }),
            "proto_id" => Value::from("HEP"),
            "src_ip" => Value::from(packet.peer.ip().to_string()),
            "dst_ip" => Value::from(packet.own.ip().to_string()),
            "src_port" => Value::Int(packet.peer.port().into()),
            _ => Value::Int(packet.own.port().into()),
        }
    }
}

/// The packet of a script that wants to change it.
fn of_three(call: &Call<SipCapture>, what: &str) -> Option<Received> {
    match packet(call.ctx) {
        Some(packet) if packet.version == Version::Three => Some((*packet).clone()),
        Some(_) => {
            host::error!("sipcapture", "{what}: only packets of version 3 have chunks");
            None
        }
        None => {
            host::error!("sipcapture", "{what}: this is no HEP message");
            None
        }
    }
}

/// The protocol or kind of payload that a word names, or a number.
fn named(table: &[(&str, u8)], text: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let found = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, n)| *n);
    Some(vec![found.or_else(|| text.parse().ok())?].into())
}

/// hep_set(chunk, data, [type], [vendor])
fn hep_set(
    call: &mut Call<SipCapture>,
    chunk: Text,
    data: Text,
    kind_of: Option<Text>,
    vendor: Option<Text>,
) -> bool {
    let Some(mut packet) = of_three(call, "hep_set") else { return false };
    let refuse = |why: &str| {
        host::error!("sipcapture", "hep_set: {} {why}", chunk.str());
        false
    };
    let Some(kind) = chunk_of(&chunk) else { return refuse("is no chunk") };
    let generic = Type::of(kind);
    let vendor = match vendor.as_ref().map(|vendor| number(vendor.str().trim())) {
        None => {
            if generic.is_some() {
                0
            } else {
                3
            }
        }
        Some(None) => return refuse("has a vendor that is no number"),
        Some(Some(vendor)) if generic.is_some() && vendor != 0 => return refuse("is of vendor 0"),
        Some(Some(vendor)) => vendor,
    };
    let written = match kind_of.as_ref().map(|kind| Type::parse(&kind.str())) {
        Some(None) => return refuse("has no such type"),
        Some(Some(kind)) => kind,
        None => Type::Text,
    };
    let data = match kind {
        kind::FAMILY | kind::SECONDS | kind::MICROSECONDS => return refuse("cannot be set"),
        kind::PROTOCOL => named(&PROTOCOLS, &data.0),
        kind::PAYLOAD_KIND => named(&KINDS, &data.0),
        kind::SOURCE_4 | kind::SOURCE_6 | kind::TARGET_4 | kind::TARGET_6 => {
            return set_address(call, packet, kind, &data.0) || refuse("takes an IP address");
        }
        _ => generic.unwrap_or(written).encode(&data.0),
    };
    let Some(data) = data else { return refuse("does not take this") };
    packet.set(vendor, kind, data);
    set_packet(call.ctx, packet);
    true
}

/// An address, whose family the packet's follows.
fn set_address(call: &mut Call<SipCapture>, mut packet: Received, chunk: u16, data: &Bytes) -> bool {
    let word = String::from_utf8_lossy(data).trim().trim_matches(['[', ']']).to_string();
    let Ok(ip) = word.parse::<IpAddr>() else { return false };
    let is_source = matches!(chunk, kind::SOURCE_4 | kind::SOURCE_6);
    let (four, six) =
        if is_source { (kind::SOURCE_4, kind::SOURCE_6) } else { (kind::TARGET_4, kind::TARGET_6) };
    packet.chunks.retain(|c| c.vendor != 0 || (c.kind != four && c.kind != six));
    let (kind, data, family): (u16, Bytes, u8) = match ip {
        IpAddr::V4(ip) => (four, ip.octets().to_vec().into(), 2),
        IpAddr::V6(ip) => (six, ip.octets().to_vec().into(), 10),
    };
    packet.set(0, kind, data);
    packet.set(0, kind::FAMILY, vec![family].into());
    set_packet(call.ctx, packet);
    true
}

/// hep_get(chunk, [type], [data], [vendor]): -1 when there is no such chunk.
fn hep_get(
    call: &mut Call<SipCapture>,
    chunk: Text,
    kind_of: Option<Text>,
    data: Option<OutVar>,
    vendor: Option<OutVar>,
) -> bool {
    let Some(packet) = packet(call.ctx) else {
        host::error!("sipcapture", "hep_get: this is no HEP message");
        return false;
    };
    let Some(mut kind) = chunk_of(&chunk) else {
        host::error!("sipcapture", "hep_get: {} is no chunk", chunk.str());
        return false;
    };
    // "src_ip" is that of whatever family there is.
    kind = match kind {
        kind::SOURCE_4 | kind::SOURCE_6 if packet.chunk(kind::SOURCE_6).is_some() => kind::SOURCE_6,
        kind::SOURCE_6 => kind::SOURCE_4,
        kind::TARGET_4 | kind::TARGET_6 if packet.chunk(kind::TARGET_6).is_some() => kind::TARGET_6,
        kind::TARGET_6 => kind::TARGET_4,
        kind => kind,
    };
    let Some(found) = packet.chunks.iter().find(|c| c.kind == kind) else { return false };
    let asked = kind_of.as_ref().and_then(|kind| Type::parse(&kind.str()));
    let word = |table: &[(&str, u8)]| {
        let n = found.data.first().copied().unwrap_or(0);
        let known =
            table.iter().find(|(_, number)| *number == n).map(|(name, _)| Value::from((*name).to_string()));
        known.unwrap_or(Value::Int(n.into()))
    };
    let value = match (found.vendor, kind) {
        (0, kind::FAMILY) => Value::from(if found.data[..] == [10] { "AF_INET6" } else { "AF_INET" }),
        (0, kind::PROTOCOL) => word(&PROTOCOLS),
        (0, kind::PAYLOAD_KIND) => word(&KINDS),
        (0, kind::SECONDS) => {
            let seconds = i64::from(packet.number(kind::SECONDS));
            Value::from(host::vars::time::strftime(b"%a %b %e %H:%M:%S %Y", seconds))
        }
        (0, kind) => match Type::of(kind).or(asked).unwrap_or(Type::Text).decode(&found.data) {
            Some(value) => value,
            None => return false,
        },
        _ => match asked.unwrap_or(Type::Text).decode(&found.data) {
            Some(value) => value,
            None => return false,
        },
    };
    let owner = found.vendor;
    if let Some(data) = data {
        data.set(call.ctx, value);
    }
    if let Some(vendor) = vendor {
        vendor.set(call.ctx, Value::Int(owner.into()));
    }
    true
}

/// hep_del(chunk)
fn hep_del(call: &mut Call<SipCapture>, chunk: Text) -> bool {
    let Some(mut packet) = of_three(call, "hep_del") else { return false };
    let Some(kind) = chunk_of(&chunk) else {
        host::error!("sipcapture", "hep_del: {} is no chunk", chunk.str());
        return false;
    };
    let removed = packet.remove(kind);
    set_packet(call.ctx, packet);
    removed
}
