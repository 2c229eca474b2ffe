//! Flags of rtpengine functions: words and `key=value`, separated by blanks. What is not known goes to the engine as it is.

use super::bencode::{Bencode, Dict};
use super::brackets;
use super::command::Op;
use bytes::Bytes;

/// Which Via a `via-branch` is taken from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Via {
    First,
    Second,
    /// The one that the sender of the request wrote.
    Auto,
    /// `extra_id_pv`
    Extra,
    Given(Bytes),
}

/// What flags say besides what goes into the command as it is.
#[derive(Debug, Default)]
pub struct Flags {
    pub call_id: Option<Bytes>,
    pub from_tag: Option<Bytes>,
    pub to_tag: Option<Bytes>,
    /// `to-tag`: the tag of To is part of the command.
    pub with_to_tag: bool,
    pub directional: bool,
    pub via: Option<Via>,
    pub received_from: Option<Bytes>,
    pub transport: Option<&'static str>,
    flags: Vec<Bencode>,
    replace: Vec<Bencode>,
    rtcp_mux: Vec<Bencode>,
    direction: Vec<Bencode>,
}

/// Bits of the transport that the flags ask for.
const SECURE: u8 = 1;
const FEEDBACK: u8 = 2;
const DTLS: u8 = 4;

fn transport(bits: u8) -> &'static str {
    match bits {
        0 => "RTP/AVP",
        SECURE => "RTP/SAVP",
        FEEDBACK => "RTP/AVPF",
        3 => "RTP/SAVPF",
        DTLS => "UDP/TLS/RTP/SAVP",
        _ => "UDP/TLS/RTP/SAVPF",
    }
}

/// A flag: its key and value, and the flags after it. `None`: there is none. `Err`: a bracket does not end.
fn next(text: &Bytes) -> Result<Option<(Bytes, Option<Bytes>, Bytes)>, &'static str> {
    let start = text.iter().position(|b| *b != b' ').unwrap_or(text.len());
    let text = text.slice(start..);
    let end = text.iter().position(|b| matches!(b, b' ' | b'=')).unwrap_or(text.len());
    let key = text.slice(..end);
    if key.is_empty() {
        return Ok(None);
    }
    if text.get(end) != Some(&b'=') {
        return Ok(Some((key, None, text.slice(end..))));
    }
    let rest = text.slice(end + 1..);
    let end = if rest.first() == Some(&b'[') {
        let (_, after) = brackets::bracket(&rest).ok_or("unmatched bracket in the value of a flag")?;
        rest.len() - after.len()
    } else {
        rest.iter().position(|b| *b == b' ').unwrap_or(rest.len())
    };
    Ok(Some((key, Some(rest.slice(..end)), rest.slice(end..))))
}

impl Flags {
    /// Reads flags for a command, which `force-answer` may change. What goes into the command as it is goes into `dict`.
    pub fn parse(text: &Bytes, op: &mut Op, dict: &mut Dict) -> Result<Flags, String> {
        let mut found = Flags { with_to_tag: *op != Op::Delete, ..Flags::default() };
        let mut bits = None;
        let (mut incoming, mut outgoing) = (None, None);
        let mut rest = text.clone();
        loop {
            let Some((key, value, after)) = next(&rest)? else { break };
            rest = after;
            if let Some(now) = transport_word(&key, bits) {
                bits = Some(now);
                continue;
            }
            match &key[..] {
                b"internal" | b"external" if incoming.is_none() => incoming = Some(key),
                b"internal" | b"external" => outgoing = Some(key),
                b"in-iface" => incoming = value,
                b"out-iface" => outgoing = value,
                _ => found
                    .take(&key, value, op, dict)
                    .map_err(|why| format!("{}: {why}", String::from_utf8_lossy(&key)))?,
            }
        }
        found.transport = bits.map(transport);
        let of = |interface: Option<Bytes>| interface.filter(|text| !text.is_empty());
        match (of(incoming), of(outgoing)) {
            (None, None) => {}
            (Some(incoming), Some(outgoing)) => {
                found.direction = vec![Bencode::Text(incoming), Bencode::Text(outgoing)];
            }
            _ => return Err("in-iface and out-iface come together".into()),
        }
        Ok(found)
    }

    fn take(
        &mut self,
        key: &Bytes,
        value: Option<Bytes>,
        op: &mut Op,
        dict: &mut Dict,
    ) -> Result<(), &'static str> {
        let needed = || value.clone().ok_or("missing value");
        match &key[..] {
            b"to-tag" => {
                self.with_to_tag = true;
                self.to_tag = value.or(self.to_tag.take());
            }
            b"callid" if value.is_some() => self.call_id = value,
            b"call-id" => self.call_id = Some(needed()?),
            b"from-tag" => (self.from_tag, self.directional) = (Some(needed()?), true),
            b"via-branch" => self.via = Some(via(&needed()?)?),
            b"via-branch-param" => self.via = Some(Via::Given(value.unwrap_or_default())),
            b"received-from" => self.received_from = value.or(self.received_from.take()),
            b"repacketize" => match leading_number(&needed()?) {
                0 => return Err("invalid value"),
                n => dict.set("repacketize", Bencode::Int(n)),
            },
            b"delete-delay" => dict.set("delete-delay", Bencode::Int(leading_number(&needed()?))),
            b"force-answer" if *op == Op::Offer => *op = Op::Answer,
            b"force-answer" => return Err("cannot force an answer in a command that is no offer"),
            b"address-family" => match needed()? {
                family if &family[..] == b"IP4" || &family[..] == b"IP6" => {
                    dict.set_text("address family", family)
                }
                _ => return Err("invalid value"),
            },
            b"media-address" if value.is_none() => return Err("missing value"),
            b"directional" => {
                self.directional = true;
                self.flags.push(Bencode::Text(key.clone()));
            }
            _ => match listed(key) {
                Some((List::Replace, word)) => push_word(&mut self.replace, word),
                Some((List::RtcpMux, word)) => push_word(&mut self.rtcp_mux, word),
                None => self.pass_on(key, value, dict)?,
            },
        }
        Ok(())
    }

    fn pass_on(&mut self, key: &Bytes, value: Option<Bytes>, dict: &mut Dict) -> Result<(), &'static str> {
        let Some(value) = value else {
            self.flags.push(Bencode::Text(key.clone()));
            return Ok(());
        };
        let inner = value.strip_prefix(b"[").and_then(|v| v.strip_suffix(b"]"));
        let value = match inner {
            Some(inner) => brackets::parse(inner).ok_or("failed to parse the value in brackets")?,
            None => Bencode::Text(value),
        };
        dict.set(key.clone(), value);
        Ok(())
    }

    /// The lists that the flags made, as far as the command has them.
    pub fn add_lists(&mut self, op: Op, dict: &mut Dict) {
        let describes = matches!(op, Op::Offer | Op::Answer);
        let mut add = |key: &'static str, list: &mut Vec<Bencode>, wanted: bool| {
            if wanted && !list.is_empty() {
                dict.set(key, Bencode::List(std::mem::take(list)));
            }
        };
        add("direction", &mut self.direction, describes);
        add("flags", &mut self.flags, true);
        add("replace", &mut self.replace, describes);
        add("rtcp-mux", &mut self.rtcp_mux, describes);
    }
}

fn transport_word(key: &[u8], now: Option<u8>) -> Option<u8> {
    let bits = now.unwrap_or(0);
    Some(match key {
        b"RTP" => bits & !SECURE,
        b"AVP" => bits & !FEEDBACK,
        b"SRTP" => bits | SECURE,
        b"AVPF" => bits | FEEDBACK,
        b"RTP/AVP" => 0,
        b"RTP/SAVP" => SECURE,
        b"RTP/AVPF" => FEEDBACK,
        b"RTP/SAVPF" => SECURE | FEEDBACK,
        b"UDP/TLS/RTP/SAVP" => DTLS,
        b"UDP/TLS/RTP/SAVPF" => DTLS | SECURE,
        _ => return None,
    })
}

fn via(value: &[u8]) -> Result<Via, &'static str> {
    match value {
        [b'1', ..] => Ok(Via::First),
        [b'2', ..] => Ok(Via::Second),
        b"auto" => Ok(Via::Auto),
        b"extra" => Ok(Via::Extra),
        _ => Err("invalid value"),
    }
}

enum List {
    Replace,
    RtcpMux,
}

/// Words that are an element of a list of their own.
fn listed(key: &[u8]) -> Option<(List, &'static str)> {
    Some(match key {
        b"replace-origin" => (List::Replace, "origin"),
        b"replace-session-connection" => (List::Replace, "session-connection"),
        b"replace-zero-address" => (List::Replace, "zero address"),
        b"replace-SDP-version" => (List::Replace, "SDP version"),
        b"replace-username" => (List::Replace, "username"),
        b"replace-session-name" => (List::Replace, "session name"),
        b"rtcp-mux-demux" => (List::RtcpMux, "demux"),
        b"rtcp-mux-reject" => (List::RtcpMux, "reject"),
        b"rtcp-mux-offer" => (List::RtcpMux, "offer"),
        b"rtcp-mux-require" => (List::RtcpMux, "require"),
        b"rtcp-mux-accept" => (List::RtcpMux, "accept"),
        _ => return None,
    })
}

fn push_word(list: &mut Vec<Bencode>, word: &'static str) {
    list.push(Bencode::Text(word.into()));
}

/// The number that a text begins with, 0 when it begins with none.
fn leading_number(text: &[u8]) -> i64 {
    let sign = usize::from(text.first() == Some(&b'-'));
    let end = text[sign..].iter().position(|b| !b.is_ascii_digit()).map_or(text.len(), |at| at + sign);
    std::str::from_utf8(&text[..end]).ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: Op, text: &'static str, want: Result<&str, &str>) {
        let (mut dict, mut now) = (Dict::default(), op);
        let found =
            Flags::parse(&Bytes::from_static(text.as_bytes()), &mut now, &mut dict).map(|mut flags| {
                flags.add_lists(now, &mut dict);
                let transport = flags.transport.map_or(String::new(), |t| format!(" {t}"));
                format!("{}{transport}", dict.to_json())
            });
        match (&found, want) {
            (Err(why), Err(want)) => assert!(why.contains(want), "{text}: {why}"),
            _ => assert_eq!(found, want.map(String::from).map_err(String::from), "{text}"),
        }
    }

    #[test]
    fn flags_for_offers() {
        check(Op::Offer, "", Ok("{}"));
        check(
            Op::Offer,
            " trust-address  record-call=yes",
            Ok(r#"{"record-call":"yes","flags":["trust-address"]}"#),
        );
        check(Op::Offer, "SRTP AVPF", Ok("{} RTP/SAVPF"));
        check(Op::Offer, "RTP/SAVPF RTP", Ok("{} RTP/AVPF"));
        check(Op::Offer, "RTP AVP", Ok("{} RTP/AVP"));
        check(Op::Offer, "UDP/TLS/RTP/SAVPF", Ok("{} UDP/TLS/RTP/SAVPF"));
        check(Op::Offer, "internal external", Ok(r#"{"direction":["internal","external"]}"#));
        check(Op::Offer, "out-iface=b in-iface=a", Ok(r#"{"direction":["a","b"]}"#));
        check(
            Op::Offer,
            "rtcp-mux-offer replace-origin",
            Ok(r#"{"replace":["origin"],"rtcp-mux":["offer"]}"#),
        );
        check(Op::Delete, "rtcp-mux-offer replace-origin in-iface=a out-iface=b", Ok("{}"));
        check(Op::Offer, "codec=[strip=[a b]] x", Ok(r#"{"codec":{"strip":["a","b"]},"flags":["x"]}"#));
        check(Op::Offer, "delete-delay=x repacketize=20", Ok(r#"{"delete-delay":0,"repacketize":20}"#));
        check(Op::Offer, "callid", Ok(r#"{"flags":["callid"]}"#));
        check(Op::Offer, "x=[a]]", Ok(r#"{"x":["a"],"flags":["]"]}"#));
        check(Op::Offer, "a =b c", Ok(r#"{"flags":["a"]}"#));
    }

    #[test]
    fn mistakes_in_flags() {
        for (text, why) in [
            ("in-iface=a", "come together"),
            ("call-id", "missing value"),
            ("from-tag", "missing value"),
            ("media-address", "missing value"),
            ("repacketize=x", "invalid value"),
            ("address-family=4", "invalid value"),
            ("via-branch=3", "invalid value"),
            ("via-branch=", "invalid value"),
            ("x=[a", "unmatched"),
        ] {
            check(Op::Offer, text, Err(why));
        }
        check(Op::Answer, "force-answer", Err("force"));
    }
}
