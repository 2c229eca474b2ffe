//! Call-IDs that tell nothing of the caller: masked on the side of the callee, plain everywhere in the server.
//!
//! What comes is unmasked before anything looks at it, and found by its worker by the plain Call-ID. Replies to a
//! request that came masked leave masked again; requests to the callee get the mask as an edit.

use super::codec::{Scheme, mix};
use bytes::Bytes;
use host::Ctx;
use host::shared::Hooks;
use host::watch::{Moment, OnWire, Told, Wire};
use sip::{HeaderName, Message, Method};
use std::sync::Arc;
use transaction::TxnId;

/// Between a Call-ID and the tag of its caller.
const SEPARATOR: u8 = b'|';

#[derive(Clone, Debug)]
pub struct Masks {
    pub password: String,
    pub prefix: String,
    /// The tag of the caller is part of the mask: a call that loops is unmasked only where it was masked.
    pub with_tag: bool,
}

impl Default for Masks {
    fn default() -> Masks {
        Masks { password: "OpenSIPS".into(), prefix: "DLGCH_".into(), with_tag: false }
    }
}

impl Masks {
    pub fn mask(&self, call_id: &[u8], caller_tag: &[u8]) -> Bytes {
        let mut text = call_id.to_vec();
        if self.with_tag {
            text.push(SEPARATOR);
            text.extend_from_slice(caller_tag);
        }
        mix(&mut text, self.password.as_bytes());
        [self.prefix.as_bytes(), &Scheme::Base64.encode(&text)].concat().into()
    }

    /// What a mask hides, and the tag of the caller when it is part of it; `None`: it is no mask.
    fn unmask(&self, masked: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let digits = masked.strip_prefix(self.prefix.as_bytes()).filter(|digits| !digits.is_empty())?;
        let mut text = Scheme::Base64.decode(digits)?;
        mix(&mut text, self.password.as_bytes());
        let mut tag = None;
        if self.with_tag
            && let Some(at) = text.iter().position(|b| *b == SEPARATOR)
        {
            tag = Some(text.split_off(at + 1));
            text.pop();
        }
        // With another password it would be anything.
        text.iter().all(|b| (b'!'..0x7f).contains(b)).then_some((text, tag))
    }

    /// The plain Call-ID of a message from the network, when it is masked and of a dialog.
    fn plain_of(&self, message: &Bytes) -> Option<Came> {
        let masked = Message::owner(message).filter(|id| id.starts_with(self.prefix.as_bytes()))?;
        let (plain, tag) = self.unmask(masked)?;
        let msg = Message::parse(message.clone()).ok()?;
        let (_, method) = msg.cseq_parts()?;
        if matches!(Method::parse(&method), Method::Register | Method::Publish | Method::Subscribe) {
            return None;
        }
        if msg.is_request() && msg.to_tag().is_none_or(|tag| tag.is_empty()) {
            return None;
        }
        let callers = if msg.is_request() { msg.from_tag() } else { msg.to_tag() };
        if tag.is_some() && tag.as_deref() == callers.as_deref() {
            // It came back by a loop, still on its way to the callee.
            return None;
        }
        Some(Came { bytes: with_call_id(&msg, &plain)?, masked: Bytes::copy_from_slice(masked) })
    }
}

struct Came {
    bytes: Bytes,
    masked: Bytes,
}

fn with_call_id(msg: &Message, call_id: &[u8]) -> Option<Bytes> {
    let span = msg.header(HeaderName::CallId)?.value();
    let (before, behind) = msg.buf().split_at(span.start as usize);
    Some([before, call_id, &behind[span.len()..]].concat().into())
}

/// A request came with a masked Call-ID; its replies get it back.
#[derive(Clone, Default)]
struct Masked(Bytes);

/// The last message of this worker that came masked: branch of its Via, mask.
#[derive(Default)]
struct Arrival(Option<(Bytes, Bytes)>);

pub fn ready(masks: &Arc<Masks>, hooks: &mut Hooks) {
    let of_owner = masks.clone();
    hooks.plain_call_ids.push(Arc::new(move |id: &[u8]| of_owner.unmask(id).map(|(plain, _)| plain)));
    let masks = masks.clone();
    hooks.watch.tap(Wire::Received, move |ctx, passing| received(ctx, &masks, passing));
    hooks.watch.on(Moment::RequestIn, |ctx, _| {
        if let Some((_, masked)) = ctx.local::<Arrival>().0.take() {
            ctx.state.ext.set(Masked(masked));
        }
    });
    hooks.watch.told(Told::Created, |ctx, seen| {
        let masked = ctx.state.ext.find::<Masked>().cloned();
        if let (Some(masked), Some(ext)) = (masked, seen.txn.and_then(|id| ctx.ext_of(id))) {
            ext.set(masked);
        }
    });
    hooks.watch.tap(Wire::Sent, sent);
}

fn received(ctx: &mut Ctx, masks: &Masks, passing: &mut OnWire) {
    let came = masks.plain_of(&passing.bytes);
    let branch = came.as_ref().and_then(|_| Message::via_branch(&passing.bytes));
    ctx.local::<Arrival>().0 = branch.zip(came.as_ref().map(|came| came.masked.clone()));
    if let Some(came) = came {
        passing.bytes = came.bytes;
    }
}

/// The mask of what is answered now.
fn mask_of(ctx: &mut Ctx, txn: Option<TxnId>, reply: &Bytes) -> Option<Bytes> {
    let of_txn = txn.and_then(|id| ctx.ext_of(id)?.find::<Masked>().cloned());
    let of_current = || ctx.state.ext.find::<Masked>().filter(|_| txn.is_none() || txn == ctx.state.txn);
    if let Some(Masked(masked)) = of_txn.or_else(|| of_current().cloned()) {
        return Some(masked);
    }
    // Answered before a script could see it.
    let (branch, masked) = ctx.local::<Arrival>().0.clone()?;
    (Message::via_branch(reply)? == branch).then_some(masked)
}

fn sent(ctx: &mut Ctx, passing: &mut OnWire) {
    if !Message::looks_like_reply(&passing.bytes) {
        return;
    }
    let Some(masked) = mask_of(ctx, passing.txn, &passing.bytes) else { return };
    let reply = Message::parse(passing.bytes.clone()).ok();
    if let Some(bytes) = reply.and_then(|reply| with_call_id(&reply, &masked)) {
        passing.bytes = bytes;
    }
}

/// The current request goes to the callee of its call.
pub fn mask_current(ctx: &mut Ctx, masks: &Masks, caller_tag: &[u8]) {
    let msg = ctx.state.msg.clone();
    let (Some(header), Some(call_id)) = (msg.header(HeaderName::CallId), msg.call_id()) else { return };
    ctx.state.edits.forget(header.value());
    ctx.state.edits.replace(header.value(), masks.mask(&call_id, caller_tag));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_lead_back() {
        let plain = Masks::default();
        let masked = plain.mask(b"a84b4c76e66710@pc33", b"t");
        assert!(masked.starts_with(b"DLGCH_") && !masked.ends_with(b"pc33"));
        assert_eq!(plain.unmask(&masked), Some((b"a84b4c76e66710@pc33".to_vec(), None)));
        let tagged = Masks { with_tag: true, ..Masks::default() };
        let masked = tagged.mask(b"c1", b"t9");
        assert_eq!(tagged.unmask(&masked), Some((b"c1".to_vec(), Some(b"t9".to_vec()))));
        for other in ["c1", "DLGCH_", "DLGCH_!"] {
            assert_eq!(plain.unmask(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn only_requests_of_a_dialog_are_unmasked() {
        let masks = Masks { with_tag: true, ..Masks::default() };
        let id = masks.mask(b"c1", b"A");
        let id = String::from_utf8_lossy(&id);
        let message = |first: &str, from: &str, to: &str, method: &str| {
            let text = format!(
                "{first}\r\nVia: SIP/2.0/UDP x;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag={from}\r\nTo: <sip:b@x>{to}\r\n\
                 Call-ID: {id}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
            );
            masks.plain_of(&Bytes::from(text)).map(|came| Message::owner(&came.bytes).map(<[u8]>::to_vec))
        };
        let plain = Some(Some(b"c1".to_vec()));
        assert_eq!(message("BYE sip:x SIP/2.0", "B", ";tag=A", "BYE"), plain);
        assert_eq!(message("SIP/2.0 200 OK", "A", ";tag=B", "INVITE"), plain);
        assert_eq!(message("INVITE sip:x SIP/2.0", "B", "", "INVITE"), None);
        assert_eq!(message("SUBSCRIBE sip:x SIP/2.0", "B", ";tag=A", "SUBSCRIBE"), None);
        assert_eq!(message("BYE sip:x SIP/2.0", "A", ";tag=B", "BYE"), None, "a loop");
    }
}
