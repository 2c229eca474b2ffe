//! RADIUS packets (RFC 2865, 2866, 3579): writing requests, reading answers, checking who wrote them.

use super::dictionary::{Attribute, AttributeKind, Code, Dictionary, IN_DIGEST};
use hmac::{Hmac, Mac};
use host::aaa::{AaaAnswer, AaaKind, AaaRequest};
use md5::{Digest, Md5};
use script::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The largest packet (RFC 2865 §3).
const MAX_PACKET: usize = 4096;
const HEADER: usize = 20;
const ACCESS_REQUEST: u8 = 1;
const ACCESS_ACCEPT: u8 = 2;
const ACCESS_REJECT: u8 = 3;
const ACCOUNTING_REQUEST: u8 = 4;
const ACCOUNTING_RESPONSE: u8 = 5;
const ACCESS_CHALLENGE: u8 = 11;
const VENDOR_SPECIFIC: u8 = 26;
const MESSAGE_AUTHENTICATOR: u8 = 80;
const NAS_IP_ADDRESS: u8 = 4;
const NAS_PORT: u8 = 5;
const NAS_IDENTIFIER: u8 = 32;
const NAS_IPV6_ADDRESS: u8 = 95;
const ACCT_DELAY_TIME: u8 = 41;
const DIGEST_ATTRIBUTES: u8 = 207;
/// What stands in NAS-Port when the request says nothing, as in the reference.
const SIP_PORT: i64 = 5060;

/// A request's attributes, ready but for what depends on the server (id, secret).
#[derive(Clone)]
pub struct Body {
    kind: AaaKind,
    /// Code and value; hidden ones as they are.
    attributes: Vec<(Code, AttributeKind, Vec<u8>)>,
}

fn number(value: &Value, attribute: &Attribute, dictionary: &Dictionary) -> Option<i64> {
    if let Some(n) = value.int() {
        return Some(n);
    }
    let text = value.text()?;
    let text = std::str::from_utf8(&text).ok()?.trim();
    text.parse().ok().or_else(|| dictionary.value(&attribute.name, text))
}

fn encode(value: &Value, attribute: &Attribute, dictionary: &Dictionary) -> Option<Vec<u8>> {
    let text = value.text()?;
    Some(match attribute.kind {
        AttributeKind::Text | AttributeKind::Hidden | AttributeKind::Bytes => text.to_vec(),
        AttributeKind::Number => {
            let n = number(value, attribute, dictionary)?;
            let n = u32::try_from(n).ok().or_else(|| i32::try_from(n).ok().map(|n| n as u32))?;
            n.to_be_bytes().to_vec()
        }
        AttributeKind::Long => number(value, attribute, dictionary)?.to_be_bytes().to_vec(),
        AttributeKind::Address => match value {
            Value::Int(n) => u32::try_from(*n).ok()?.to_be_bytes().to_vec(),
            _ => std::str::from_utf8(&text).ok()?.parse::<Ipv4Addr>().ok()?.octets().to_vec(),
        },
        AttributeKind::Address6 => {
            let text = std::str::from_utf8(&text).ok()?;
            text.trim_matches(['[', ']']).parse::<Ipv6Addr>().ok()?.octets().to_vec()
        }
    })
}

impl Body {
    /// The error is what a log should say.
    pub fn new(request: &AaaRequest, dictionary: &Dictionary) -> Result<Body, String> {
        let mut attributes = Vec::with_capacity(request.attributes.len() + 4);
        for (name, value) in &request.attributes {
            if value.is_null() {
                continue;
            }
            let attribute =
                dictionary.attribute(name).ok_or_else(|| format!("the dictionary has no {name}"))?;
            let bytes = encode(value, attribute, dictionary).ok_or_else(|| {
                format!("`{}` is no value of {name}", String::from_utf8_lossy(&value.to_text()))
            })?;
            let most = match (attribute.kind, attribute.code.vendor) {
                (AttributeKind::Hidden, _) => 128,
                (_, 0) => 253,
                (_, IN_DIGEST) => 251,
                _ => 247,
            };
            if bytes.len() > most {
                return Err(format!("{name} is longer than {most} bytes"));
            }
            attributes.push((attribute.code, attribute.kind, bytes));
        }
        let mut body = Body { kind: request.kind, attributes };
        body.default(NAS_PORT, AttributeKind::Number, &(SIP_PORT as u32).to_be_bytes());
        if body.kind == AaaKind::Acct {
            body.default(ACCT_DELAY_TIME, AttributeKind::Number, &[0; 4]);
        }
        Ok(body)
    }

    fn has(&self, number: u8) -> bool {
        self.attributes.iter().any(|(code, _, _)| *code == Code { vendor: 0, number })
    }

    fn default(&mut self, number: u8, kind: AttributeKind, value: &[u8]) {
        if !self.has(number) {
            self.attributes.push((Code { vendor: 0, number }, kind, value.to_vec()));
        }
    }

    /// Says who asks, unless the request does.
    pub fn identify(&mut self, identifier: Option<&str>, address: IpAddr) {
        if [NAS_IP_ADDRESS, NAS_IDENTIFIER, NAS_IPV6_ADDRESS].iter().any(|number| self.has(*number)) {
            return;
        }
        match (identifier, address) {
            (Some(name), _) => self.default(NAS_IDENTIFIER, AttributeKind::Text, name.as_bytes()),
            (None, IpAddr::V4(address)) => {
                self.default(NAS_IP_ADDRESS, AttributeKind::Address, &address.octets())
            }
            (None, IpAddr::V6(address)) => {
                self.default(NAS_IPV6_ADDRESS, AttributeKind::Address6, &address.octets())
            }
        }
    }

    /// The bytes for one server. `random` makes the authenticator of an access request.
    pub fn write(&self, id: u8, secret: &[u8], random: [u8; 16]) -> Result<Vec<u8>, String> {
        let code = if self.kind == AaaKind::Auth { ACCESS_REQUEST } else { ACCOUNTING_REQUEST };
        let mut out = vec![code, id, 0, 0];
        let auth = self.kind == AaaKind::Auth;
        out.extend_from_slice(if auth { &random } else { &[0; 16] });
        if auth {
            // First, so that nobody can put an answer together around it (RFC 9765 has the story).
            attribute(&mut out, MESSAGE_AUTHENTICATOR, &[0; 16]);
        }
        for (code, kind, value) in &self.attributes {
            let hidden;
            let value = match kind {
                AttributeKind::Hidden => {
                    hidden = hide(value, secret, &random);
                    &hidden
                }
                _ => value,
            };
            match code.vendor {
                0 => attribute(&mut out, code.number, value),
                IN_DIGEST => {
                    let mut inner = Vec::new();
                    attribute(&mut inner, code.number, value);
                    attribute(&mut out, DIGEST_ATTRIBUTES, &inner);
                }
                vendor => {
                    let mut inner = vendor.to_be_bytes().to_vec();
                    attribute(&mut inner, code.number, value);
                    attribute(&mut out, VENDOR_SPECIFIC, &inner);
                }
            }
        }
        if out.len() > MAX_PACKET {
            return Err(format!("the request is longer than {MAX_PACKET} bytes"));
        }
        let length = (out.len() as u16).to_be_bytes();
        out[2..4].copy_from_slice(&length);
        if auth {
            let sum = keyed(secret, &[&out]);
            out[HEADER + 2..HEADER + 18].copy_from_slice(&sum);
        } else {
            let sum: [u8; 16] = Md5::new().chain_update(&out).chain_update(secret).finalize().into();
            out[4..20].copy_from_slice(&sum);
        }
        Ok(out)
    }
}

fn attribute(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.extend_from_slice(&[number, value.len() as u8 + 2]);
    out.extend_from_slice(value);
}

fn keyed(secret: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(secret).expect("any length is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// User-Password (RFC 2865 §5.2).
fn hide(value: &[u8], secret: &[u8], authenticator: &[u8; 16]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(value.len().next_multiple_of(16).max(16));
    let mut before = *authenticator;
    let mut rest = value;
    loop {
        let (block, after) = rest.split_at(rest.len().min(16));
        let mut sum: [u8; 16] = Md5::new().chain_update(secret).chain_update(before).finalize().into();
        sum.iter_mut().zip(block).for_each(|(s, b)| *s ^= b);
        out.extend_from_slice(&sum);
        before = sum;
        rest = after;
        if rest.is_empty() {
            return out;
        }
    }
}

/// Reads an answer to `request`. The error says why it cannot be believed.
pub fn read(
    answer: &[u8],
    request: &[u8],
    secret: &[u8],
    dictionary: &Dictionary,
) -> Result<AaaAnswer, String> {
    let length = match answer {
        [_, _, high, low, ..] if answer.len() >= HEADER => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err("it is too short".to_string()),
    };
    if !(HEADER..=answer.len()).contains(&length) {
        return Err("its length is wrong".to_string());
    }
    let answer = &answer[..length];
    let (head, authenticator, attributes) = (&answer[..4], &answer[4..HEADER], &answer[HEADER..]);
    let sum: [u8; 16] = Md5::new()
        .chain_update(head)
        .chain_update(&request[4..HEADER])
        .chain_update(attributes)
        .chain_update(secret)
        .finalize()
        .into();
    if !same(&sum, authenticator) {
        return Err("its authenticator is wrong: do both sides have the same secret?".to_string());
    }
    let list = split(attributes).ok_or("its attributes do not fit")?;
    for (number, value, at) in &list {
        if *number == MESSAGE_AUTHENTICATOR {
            let (before, after) = (&attributes[..*at], &attributes[at + value.len()..]);
            let sum = keyed(secret, &[head, &request[4..HEADER], before, &[0; 16], after]);
            if !same(&sum, value) {
                return Err("its Message-Authenticator is wrong".to_string());
            }
        }
    }
    let accepted = match (request[0], answer[0]) {
        (ACCESS_REQUEST, ACCESS_ACCEPT) | (ACCOUNTING_REQUEST, ACCOUNTING_RESPONSE) => true,
        // Nobody can be asked for more here.
        (ACCESS_REQUEST, ACCESS_REJECT | ACCESS_CHALLENGE) => false,
        (_, code) => return Err(format!("its code {code} is no answer to this")),
    };
    let mut found = Vec::new();
    for (number, value, _) in list {
        if number != VENDOR_SPECIFIC || value.len() < 4 {
            push(&mut found, dictionary, Code { vendor: 0, number }, value);
            continue;
        }
        let vendor = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
        for (number, value, _) in split(&value[4..]).unwrap_or_default() {
            push(&mut found, dictionary, Code { vendor, number }, value);
        }
    }
    Ok(AaaAnswer { accepted, attributes: found })
}

/// In a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// Number, value, and where the value starts.
fn split(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8], usize)>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let [number, length, ..] = bytes {
        let length = usize::from(*length);
        if length < 2 || length > bytes.len() {
            return None;
        }
        found.push((*number, &bytes[2..length], at + 2));
        at += length;
        bytes = &bytes[length..];
    }
    bytes.is_empty().then_some(found)
}

fn push(found: &mut Vec<(Arc<str>, Value)>, dictionary: &Dictionary, code: Code, value: &[u8]) {
    let Some(attribute) = dictionary.by_code(code) else { return };
    let value = match (attribute.kind, value) {
        (AttributeKind::Number, [a, b, c, d]) => Value::Int(i64::from(u32::from_be_bytes([*a, *b, *c, *d]))),
        (AttributeKind::Long, value) if value.len() == 8 => {
            Value::Int(value.iter().fold(0, |n, byte| n << 8 | i64::from(*byte)))
        }
        (AttributeKind::Address, [a, b, c, d]) => Value::from(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
        (AttributeKind::Address6, value) => match <[u8; 16]>::try_from(value) {
            Ok(octets) => Value::from(Ipv6Addr::from(octets).to_string()),
            Err(_) => return,
        },
        (_, value) => Value::Str(value.to_vec().into()),
    };
    found.push((attribute.name.clone(), value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_as_rfc_2865_has_them() {
        // RFC 2865 §7.1: user nemo, password arctangent, secret xyzzy5461.
        let authenticator =
            hex::decode("0f403f9473978057bd83d5cb98f4227a").expect("hex").try_into().expect("16 bytes");
        let hidden = hide(b"arctangent", b"xyzzy5461", &authenticator);
        assert_eq!(hex::encode(hidden), "0dbe708d93d413ce3196e43f782a0aee");
        assert_eq!(hide(b"", b"x", &[0; 16]).len(), 16);
        assert_eq!(hide(&[7; 17], b"x", &[0; 16]).len(), 32);
    }

    #[test]
    fn answers_are_checked() {
        // The answer of RFC 2865 §7.1.
        let request = hex::decode("010000380f403f9473978057bd83d5cb98f4227a").expect("hex");
        let answer =
            hex::decode("0200002686fe220e7624ba2a1005f6bf9b55e0b20606000000010f06000000000e06c0a80103")
                .expect("hex");
        let dictionary = Dictionary::default();
        let good = read(&answer, &request, b"xyzzy5461", &dictionary);
        assert!(good.is_ok_and(|answer| answer.accepted));
        let check = |answer: &[u8], says: &str| {
            let error = read(answer, &request, b"xyzzy5461", &dictionary).expect_err(says);
            assert!(error.contains(says), "{error}");
        };
        check(&answer[..10], "too short");
        check(&answer[..30], "length");
        let mut forged = answer.clone();
        forged[25] = 2;
        check(&forged, "same secret");
    }
}
