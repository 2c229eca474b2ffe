//! Push notification (RFC 8599): what a REGISTER asks for, what the reply says, the PURR.

use super::answer::Problem;
use super::flags::SaveFlags;
use crate::usrloc::contact::{Contact, bits};
use crate::usrloc::table::Matching;
use bytes::Bytes;
use sip::{Message, NameAddr, Uri};

/// Parameters `pn_*`; times in seconds.
pub struct Push {
    pub enabled: bool,
    pub providers: Vec<String>,
    /// URI parameters that a contact is known by.
    pub params: Vec<Bytes>,
    pub pnsreg_s: u32,
    pub trigger_s: u32,
    pub skip_s: u32,
    pub refresh_s: u32,
    pub purr: bool,
}

impl Default for Push {
    fn default() -> Push {
        Push {
            enabled: false,
            providers: Vec::new(),
            params: list_of("pn-provider, pn-prid, pn-param").map(Bytes::from).collect(),
            pnsreg_s: 130,
            trigger_s: 120,
            skip_s: 0,
            refresh_s: 6,
            purr: false,
        }
    }
}

/// Members of a comma separated list.
pub fn list_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(',').map(|p| p.trim().to_string()).filter(|p| !p.is_empty())
}

/// What is done about push for a REGISTER; numbers are providers.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    None,
    /// The contact is woken by this provider, and known by its push parameters.
    On(usize),
    /// A proxy in front wakes it: it is only known by its push parameters.
    Match,
    /// The client asks what there is.
    List(Vec<usize>),
}

impl Push {
    /// What the first contact of a REGISTER asks for.
    pub fn inspect(
        &self,
        msg: &Message,
        contacts: &[NameAddr],
        flags: &SaveFlags,
    ) -> Result<Action, Problem> {
        if !self.enabled || flags.matching.is_some() {
            return Ok(Action::None);
        }
        let Some(first) = contacts.first() else { return Ok(Action::None) };
        let uri = Uri::parse(&first.uri).map_err(|_| Problem::Contacts)?;
        let Some(provider) = uri.params.find(b"pn-provider") else { return Ok(Action::None) };
        let Some(provider) = provider.filter(|p| !p.is_empty()) else {
            let ours =
                self.providers.iter().enumerate().filter(|(_, p)| !handled_upstream(msg, p.as_bytes()));
            return Ok(Action::List(ours.map(|(i, _)| i).collect()));
        };
        let upstream = handled_upstream(msg, &provider);
        let ours = self.providers.iter().position(|p| p.as_bytes() == &provider[..]);
        let mut query = true;
        for param in self.params.iter().filter(|p| &p[..] != b"pn-provider") {
            let there = uri.params.has(param);
            query &= !(there && (&param[..] == b"pn-prid" || &param[..] == b"pn-param"));
            if there {
                continue;
            }
            if upstream {
                return Ok(Action::None);
            }
            if !query {
                return Err(Problem::NoPushSupport);
            }
        }
        match (upstream, ours, query) {
            (true, _, _) => Ok(Action::Match),
            (false, None, _) => Err(Problem::NoPushSupport),
            (false, Some(provider), true) => Ok(Action::List(vec![provider])),
            (false, Some(provider), false) => Ok(Action::On(provider)),
        }
    }

    /// How contacts are recognised; `None`: as usual.
    pub fn matching(&self, action: &Action) -> Option<Matching> {
        matches!(action, Action::On(_) | Action::Match).then(|| Matching::Params(self.params.clone()))
    }

    /// Feature-Caps headers of the reply; `id` is that of the contact that was saved.
    pub fn headers(&self, action: &Action, id: Option<u64>) -> Vec<Bytes> {
        match action {
            Action::On(provider) => {
                let purr = id.filter(|_| self.purr).map(|id| format!(";+sip.pnspurr=\"{}\"", purr(id)));
                vec![Bytes::from(format!(
                    "Feature-Caps: +sip.pns=\"{}\";+sip.pnsreg=\"{}\"{}\r\n",
                    self.providers[*provider],
                    self.pnsreg_s,
                    purr.unwrap_or_default()
                ))]
            }
            Action::List(providers) => {
                let line =
                    |p: &usize| Bytes::from(format!("Feature-Caps: +sip.pns=\"{}\"\r\n", self.providers[*p]));
                providers.iter().map(line).collect()
            }
            Action::None | Action::Match => Vec::new(),
        }
    }

    /// The push parameters of a contact that has all of them.
    pub fn values(&self, uri: &[u8]) -> Option<Vec<(Bytes, Bytes)>> {
        let uri = Uri::parse(&Bytes::copy_from_slice(uri)).ok()?;
        let pairs =
            self.params.iter().map(|name| Some((name.clone(), uri.params.find(name)?.unwrap_or_default())));
        pairs.collect()
    }

    /// The phone of this contact must be woken before it can be reached.
    pub fn must_wake(&self, contact: &Contact, now: u32) -> bool {
        self.is_push(contact) && contact.modified.saturating_add(self.skip_s) <= now
    }

    pub fn is_push(&self, contact: &Contact) -> bool {
        self.enabled && contact.has(bits::PUSH) && self.values(contact.uri()).is_some()
    }

    /// A contact URI without its push parameters.
    pub fn stripped(&self, uri: &[u8]) -> Bytes {
        let mut text = Bytes::copy_from_slice(uri);
        for param in &self.params {
            if let Ok(parsed) = Uri::parse(&text) {
                text = parsed.with_param(param, None);
            }
        }
        text
    }
}

/// A proxy in front said that it wakes phones of this provider (`Feature-Caps: *;+sip.pns="apns"`).
fn handled_upstream(msg: &Message, provider: &[u8]) -> bool {
    msg.headers_named(b"Feature-Caps").any(|h| {
        msg.bytes(h.value()).split(|b| matches!(b, b';' | b',')).any(|part| {
            let (name, value) = part.split_at(part.iter().position(|b| *b == b'=').unwrap_or(part.len()));
            let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
            let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
            name.trim_ascii().eq_ignore_ascii_case(b"+sip.pns") && value == provider
        })
    })
}

/// The reference to a registration that goes into dialogs: 16 hex digits in groups of 3, 5 and 8.
pub fn purr(id: u64) -> String {
    let hex = format!("{id:016x}");
    format!("{}.{}.{}", &hex[..3], &hex[3..8], &hex[8..])
}

/// The contact id of a PURR; `None`: it is not one of ours.
pub fn contact_of(purr: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(purr).ok()?;
    let parts: Vec<&str> = text.split('.').collect();
    let [a, b, c] = parts[..] else { return None };
    if (a.len(), b.len(), c.len()) != (3, 5, 8) || text.contains('+') {
        return None;
    }
    u64::from_str_radix(&format!("{a}{b}{c}"), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purrs_come_back() {
        for id in [0, 1, 0x1234_5678_9abc_def0, u64::MAX >> 1] {
            assert_eq!(contact_of(purr(id).as_bytes()), Some(id));
        }
        assert_eq!(purr(0x1234_5678_9abc_def0), "123.45678.9abcdef0");
        for other in ["", "123.45678.9abcdef", "12.345678.9abcdef0", "xyz.45678.9abcdef0"] {
            assert_eq!(contact_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_a_contact_asks_for() {
        let push = Push { enabled: true, providers: vec!["apns".into(), "fcm".into()], ..Push::default() };
        let check = |contact: &str, caps: &str, expected: Result<Action, Problem>| {
            let text = format!(
                "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP 1.1.1.1;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                 To: <sip:a@h>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n{caps}Contact: <{contact}>\r\n\r\n"
            );
            let msg = Message::parse(Bytes::from(text)).expect("a correct message");
            let contacts = msg.addresses(sip::HeaderName::Contact).expect("contacts");
            assert_eq!(push.inspect(&msg, &contacts, &SaveFlags::default()), expected, "{contact}");
        };
        check("sip:a@1", "", Ok(Action::None));
        check("sip:a@1;pn-provider", "", Ok(Action::List(vec![0, 1])));
        check("sip:a@1;pn-provider", "Feature-Caps: *;+sip.pns=\"fcm\"\r\n", Ok(Action::List(vec![0])));
        check("sip:a@1;pn-provider=fcm", "", Ok(Action::List(vec![1])));
        check("sip:a@1;pn-provider=fcm;pn-prid=x;pn-param=y", "", Ok(Action::On(1)));
        check("sip:a@1;pn-provider=fcm;pn-prid=x", "", Err(Problem::NoPushSupport));
        check("sip:a@1;pn-provider=other;pn-prid=x;pn-param=y", "", Err(Problem::NoPushSupport));
        let upstream = "Feature-Caps: *;+sip.pns=\"fcm\"\r\n";
        check("sip:a@1;pn-provider=fcm;pn-prid=x;pn-param=y", upstream, Ok(Action::Match));
        check("sip:a@1;pn-provider=fcm", upstream, Ok(Action::None));
        let uri = b"sip:a@1:5060;pn-provider=fcm;x=1;pn-prid=x;pn-param=y?h=1";
        assert_eq!(push.stripped(uri), "sip:a@1:5060;x=1?h=1");
    }
}
