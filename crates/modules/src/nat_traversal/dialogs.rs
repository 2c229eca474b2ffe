//! Calls whose endpoints are kept alive. The transactions of INVITE and BYE tell when a call begins and ends; where
//! module dialog knows the call, it tells of ends that no BYE tells, and a restart forgets no endpoint.

use super::{Dialogs, NatTraversal, Wanted};
use crate::dialog::api::{self, Event};
use crate::dialog::{Key, Val};
use crate::path::source_uri;
use bytes::Bytes;
use host::Ctx;
use host::watch::Seen;
use sip::Method;
use transaction::TxnId;

/// Seconds after which a call whose BYE was not seen is forgotten: the reference's longest dialog.
const LONGEST_S: u64 = 43_200;
/// Calls of one server; the endpoints of further ones are not kept alive.
const MAX_CALLS: usize = 200_000;

/// One call and the endpoints it needs.
pub struct Call {
    endpoints: Vec<Bytes>,
    /// Unix seconds.
    until: u64,
}

/// Call-ID and the tag of the caller: the same for the INVITE and a BYE of either side.
fn key(call_id: &Bytes, tag: &[u8]) -> Bytes {
    [call_id, &b"\0"[..], tag].concat().into()
}

impl Dialogs {
    fn add(&mut self, key: Bytes, endpoint: Bytes, now: u64) {
        if self.calls.len() >= MAX_CALLS && !self.calls.contains_key(&key) {
            return;
        }
        let call = self.calls.entry(key).or_insert(Call { endpoints: Vec::new(), until: now + LONGEST_S });
        if !call.endpoints.contains(&endpoint) {
            *self.counts.entry(endpoint.clone()).or_insert(0) += 1;
            call.endpoints.push(endpoint);
        }
    }

    fn remove(&mut self, key: &Bytes) -> bool {
        let Some(call) = self.calls.remove(key) else { return false };
        self.release(call);
        true
    }

    fn release(&mut self, call: Call) {
        for endpoint in call.endpoints {
            if let Some(count) = self.counts.get_mut(&endpoint) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&endpoint);
                }
            }
        }
    }

    /// Forgets calls that were never hung up here.
    pub fn expire(&mut self, now: u64) {
        let over: Vec<Bytes> =
            self.calls.iter().filter(|(_, c)| c.until <= now).map(|(k, _)| k.clone()).collect();
        for key in over {
            self.remove(&key);
        }
    }

    /// The endpoint takes part in a call.
    pub fn needs(&self, endpoint: &Bytes) -> bool {
        self.counts.contains_key(endpoint)
    }
}

impl NatTraversal {
    /// A reply of a callee: the call is heard of.
    pub(super) fn reply_in(&self, ctx: &mut Ctx, seen: &Seen) {
        let (Some(id), Some(branch), 101..300) = (seen.txn, seen.branch, seen.status) else { return };
        host::tm::with_request(ctx, id, |ctx| {
            if ctx.state.msg.method() == Method::Invite {
                self.begin(ctx);
                self.answered_by(ctx, id, branch);
            }
        });
    }

    /// The current request was answered.
    pub(super) fn watch_call(&self, ctx: &mut Ctx, status: u16) {
        match (ctx.state.msg.method(), status) {
            (Method::Invite, 300..) if ctx.state.msg.to_tag().is_none() => {
                self.end(ctx, Side::Caller);
            }
            (Method::Bye, 200..) => {
                let _ = self.end(ctx, Side::Caller) || self.end(ctx, Side::Callee);
            }
            _ => {}
        }
    }

    /// Somebody heard of the call: from now on it may last.
    fn begin(&self, ctx: &mut Ctx) {
        let wanted = ctx.state.ext.find::<Wanted>().is_some_and(|wanted| wanted.0);
        let Some(key) = call_key(ctx, Side::Caller).filter(|_| wanted && ctx.state.msg.to_tag().is_none())
        else {
            return;
        };
        let (uri, now) = (Bytes::from(source_uri(ctx)), ctx.core.wall_us / 1_000_000);
        self.endpoint(uri.clone(), ctx.state.source);
        keep(ctx, &uri);
        self.dialogs.lock().add(key, uri, now);
    }

    /// What the dialog of a call tells.
    pub(super) fn told(&self, ctx: &mut Ctx, told: &api::Told) {
        let Some(dialog) = api::get(ctx, told.key) else { return };
        let key = key(&Bytes::copy_from_slice(&dialog.call_id), &dialog.caller.tag);
        match told.event {
            Event::Terminated | Event::Expired | Event::Failed | Event::Gone => {
                self.dialogs.lock().remove(&key);
            }
            Event::Loaded => {
                let now = ctx.core.wall_us / 1_000_000;
                for uri in kept(ctx, told.key) {
                    self.dialogs.lock().add(key.clone(), uri, now);
                }
            }
            _ => {}
        }
    }

    /// Whoever rings or answers is kept alive too, when it is behind a NAT: it has registered through this server.
    fn answered_by(&self, ctx: &mut Ctx, id: TxnId, branch: u16) {
        let Some(key) = call_key(ctx, Side::Caller) else { return };
        let Some(path) = ctx.txn(id).branch(branch).and_then(|b| b.path) else { return };
        let uri = Bytes::from(crate::path::uri_of(path.remote, path.transport));
        let registered = self.endpoints.with(&uri, |e| e.registered > 0) == Some(true);
        if registered {
            keep(ctx, &uri);
        }
        let mut dialogs = self.dialogs.lock();
        if registered && dialogs.calls.contains_key(&key) {
            dialogs.add(key, uri, ctx.core.wall_us / 1_000_000);
        }
    }

    fn end(&self, ctx: &mut Ctx, side: Side) -> bool {
        call_key(ctx, side).is_some_and(|key| self.dialogs.lock().remove(&key))
    }
}

/// The value of a dialog that names its endpoints, with commas between.
const VALUE: &[u8] = b"keepalive_endpoints";

/// The endpoints that a dialog keeps.
fn kept(ctx: &mut Ctx, key: Key) -> Vec<Bytes> {
    let Some(Val::Str(text)) = api::val(ctx, key, VALUE) else { return Vec::new() };
    text.split(|b| *b == b',').map(Bytes::copy_from_slice).collect()
}

/// The dialog of the current request, if there is one, keeps the endpoint.
fn keep(ctx: &mut Ctx, uri: &Bytes) {
    let Some((key, _)) = api::current(ctx) else { return };
    let mut all = kept(ctx, key);
    if !all.contains(uri) {
        all.push(uri.clone());
        api::set_val(ctx, key, VALUE, Some(Val::Str(all.join(&b","[..]).into())));
    }
}

/// Who sent the request: the tag of the caller stands in From, or in To when the callee sends.
#[derive(Clone, Copy)]
enum Side {
    Caller,
    Callee,
}

fn call_key(ctx: &Ctx, side: Side) -> Option<Bytes> {
    let msg = &ctx.state.msg;
    let tag = match side {
        Side::Caller => msg.from_tag(),
        Side::Callee => msg.to_tag(),
    };
    Some(key(&msg.call_id()?, &tag?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_needed_while_one_call_stands() {
        let mut dialogs = Dialogs::default();
        let (a, b) = (Bytes::from("sip:1.2.3.4:5"), Bytes::from("sip:5.6.7.8:9"));
        dialogs.add(key(&"x".into(), b"1"), a.clone(), 100);
        dialogs.add(key(&"x".into(), b"1"), a.clone(), 100);
        dialogs.add(key(&"y".into(), b"1"), a.clone(), 200);
        dialogs.add(key(&"y".into(), b"1"), b.clone(), 200);
        assert!(dialogs.remove(&key(&"x".into(), b"1")) && !dialogs.remove(&key(&"x".into(), b"1")));
        assert!(dialogs.needs(&a) && dialogs.needs(&b));
        dialogs.expire(200 + LONGEST_S);
        assert!(!dialogs.needs(&a) && !dialogs.needs(&b));
    }
}
