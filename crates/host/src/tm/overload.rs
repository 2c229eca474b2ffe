//! More to do than can be done: what opens something new is refused before anything is begun for it.
//!
//! Whoever drives the worker knows how long a message has waited for its turn (`Input::Excess`); here is what that
//! means for each kind. A refusal is made of the five headers that it copies, without a transaction, a script, a
//! module or a trace: it has to cost a small part of what the request would.
//!
//! | | in time | late | very late |
//! |---|---|---|---|
//! | INVITE, SUBSCRIBE, MESSAGE, OPTIONS and others outside a dialog | goes on | 503 | 503 |
//! | REGISTER, which is mostly a refresh | goes on | goes on | 503 |
//! | inside a dialog, ACK, BYE, CANCEL, PRACK, UPDATE, INFO, replies, `urn:service:sos` | goes on | goes on | goes on |
//! | again what was refused, and its ACK | 503, ended here | the same | the same |
//!
//! Nothing is dropped: a request that hears nothing is sent again up to six times, and each of them has to be read.

use super::reply::{Maker, ViaHandling, to_tag, way_back};
pub use crate::context::lateness::Lateness;
use crate::ctx::Ctx;
use crate::stats::{Counter, Stats};
use bytes::Bytes;
use sip::{HeaderOrder, Message, Method, ReplyParts, Rport};
use transaction::Path;

/// Refused requests that are remembered, so that one that comes again is not let in: nobody waits for it any more. A
/// power of two; a further one takes the place of an older one.
const REMEMBERED: usize = 1 << 14;
/// As long as a client repeats a request (64 * T1), ms.
const REPEATED_FOR: u64 = 32_000;
/// Answers ask for a pause of 1 to so many seconds, each for another, so that not all come back at once. Short: RFC 3261
/// has proxies leave a server alone for all of it, and there is room again as soon as some have gone elsewhere.
const LONGEST_PAUSE: u64 = 4;

/// What a worker refused lately.
pub struct Refusals {
    /// (hash, until when) by the low bits of the hash; empty until something is refused.
    lately: Vec<(u64, u64)>,
    refused: Counter,
}

impl Refusals {
    pub(super) fn new(stats: &Stats) -> Refusals {
        Refusals { lately: Vec::new(), refused: stats.counter("net", "overload_refused") }
    }

    fn slot(hash: u64) -> usize {
        hash as usize & (REMEMBERED - 1)
    }

    fn remember(&mut self, hash: u64, now: u64) {
        if self.lately.is_empty() {
            self.lately.resize(REMEMBERED, (0, 0));
        }
        self.lately[Refusals::slot(hash)] = (hash, now + REPEATED_FOR);
    }

    fn knows(&self, hash: u64, now: u64) -> bool {
        self.lately.get(Refusals::slot(hash)).is_some_and(|(known, until)| *known == hash && now < *until)
    }
}

/// A message that came while the worker is overloaded. True: it was refused, or is the ACK of a refusal; nothing is left
/// to do. False: it is handled as ever.
pub fn refused(ctx: &mut Ctx, source: Path, bytes: &Bytes, lateness: Lateness) -> bool {
    let Some(opens) = opens(bytes, lateness) else { return false };
    let Some(request) = Message::outline(bytes.clone()) else { return false };
    if opens != Opens::Ended && request.to_tag().is_some() {
        return false;
    }
    let (now, key) = (ctx.core.now.0, key(ctx, &request));
    let again = ctx.core.txns.refusals.knows(key, now);
    match opens {
        Opens::Ended => again,
        Opens::Spared if !again => false,
        // A request that is being dealt with came again.
        _ if !again && ctx.core.txns.txns.find(&request).is_some() => false,
        _ => {
            ctx.core.txns.refusals.remember(key, now);
            ctx.core.txns.refusals.refused.up();
            refuse(ctx, &request, source, key);
            true
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opens {
    Something,
    /// Only what was refused before is refused again.
    Spared,
    /// An ACK, perhaps of a refusal.
    Ended,
}

/// What a message is about, by its first line; `None`: it is never refused.
fn opens(bytes: &[u8], lateness: Lateness) -> Option<Opens> {
    let mut words = bytes.splitn(3, |b| *b == b' ');
    let (method, uri) = (words.next()?, words.next()?);
    if method.is_empty() || method.starts_with(b"SIP/") || method.len() > 32 {
        return None;
    }
    let emergency = uri.get(..15).is_some_and(|start| start.eq_ignore_ascii_case(b"urn:service:sos"));
    let spared_until = match Method::parse(method) {
        Method::Ack => return Some(Opens::Ended),
        Method::Bye | Method::Cancel | Method::Prack | Method::Update | Method::Info => return None,
        _ if emergency => return None,
        Method::Register => Lateness::VeryLate,
        _ => Lateness::Late,
    };
    Some(if lateness >= spared_until { Opens::Something } else { Opens::Spared })
}

/// The same for a request, what repeats it, and the ACK of its refusal.
fn key(ctx: &Ctx, request: &Message) -> u64 {
    let branch = request.via().and_then(|via| via.branch());
    let number = request.cseq_slices().map(|(number, _)| number);
    ctx.core.shared.tag_secret.hash_one(&("refused", branch, request.call_id(), number))
}

fn refuse(ctx: &mut Ctx, request: &Message, source: Path, key: u64) {
    let Some(via) = request.via() else { return };
    let tag = to_tag(ctx, request, Maker::Stateless);
    let pause = format!("Retry-After: {}\r\n", 1 + (key >> 32) % LONGEST_PAUSE);
    let parts = ReplyParts {
        code: 503,
        reason: b"Service Unavailable",
        to_tag: Some(&tag),
        via_params: &via.source_params(source.remote, Rport::AsAsked),
        extra: pause.as_bytes(),
        server: &ctx.core.txns.policy.signature.server,
        body: b"",
        order: HeaderOrder::Fixed,
    };
    let bytes = sip::build_reply(request, &parts);
    let path = way_back(ctx, source, via, ViaHandling::default(), 0);
    ctx.core.outputs.push(crate::ctx::Output::Transmit { path, bytes });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(first_line: &str, lateness: Lateness, expected: Option<Opens>) {
        assert_eq!(opens(first_line.as_bytes(), lateness), expected, "{first_line} {lateness:?}");
    }

    #[test]
    fn kinds() {
        use Lateness::{InTime, Late, VeryLate};
        for method in ["INVITE", "SUBSCRIBE", "MESSAGE", "OPTIONS", "PUBLISH", "REFER", "NEWEST"] {
            check(&format!("{method} sip:a@b SIP/2.0\r\n"), InTime, Some(Opens::Spared));
            check(&format!("{method} sip:a@b SIP/2.0\r\n"), Late, Some(Opens::Something));
            check(&format!("{method} sip:a@b SIP/2.0\r\n"), VeryLate, Some(Opens::Something));
        }
        check("REGISTER sip:b SIP/2.0\r\n", Late, Some(Opens::Spared));
        check("REGISTER sip:b SIP/2.0\r\n", VeryLate, Some(Opens::Something));
        for method in ["BYE", "CANCEL", "PRACK", "UPDATE", "INFO"] {
            check(&format!("{method} sip:a@b SIP/2.0\r\n"), VeryLate, None);
        }
        check("ACK sip:a@b SIP/2.0\r\n", InTime, Some(Opens::Ended));
        check("INVITE urn:service:sos SIP/2.0\r\n", VeryLate, None);
        check("INVITE URN:service:SOS.fire SIP/2.0\r\n", VeryLate, None);
        check("SIP/2.0 200 OK\r\n", VeryLate, None);
        for odd in ["", " ", "INVITE", "\r\n\r\n", "\0\0\0\0"] {
            check(odd, VeryLate, None);
        }
    }

    #[test]
    fn what_was_refused_is_remembered_for_a_while() {
        let mut refusals = Refusals::new(&Stats::default());
        assert!(!refusals.knows(7, 0));
        refusals.remember(7, 1000);
        assert!(refusals.knows(7, 1000 + REPEATED_FOR - 1) && !refusals.knows(7, 1000 + REPEATED_FOR));
        assert!(!refusals.knows(8, 1000) && !refusals.knows(7 + REMEMBERED as u64, 1000));
        refusals.remember(7 + REMEMBERED as u64, 1000);
        assert!(!refusals.knows(7, 1000));
    }
}
