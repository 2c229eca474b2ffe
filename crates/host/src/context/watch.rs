//! The moments of a request at which modules join in (compare OpenSIPS `tm/t_hooks.h`).
//!
//! ```text
//!  network ──► Wire::Received ─┬─ request ──► Wire::Matched, when it is of a transaction: retransmissions, CANCELs
//!                              │    │         and ACKs of refusals end here
//!                              │    ▼
//!                              │  RequestIn ──► AckIn (an ACK) ──► main route ──► RequestEnd
//!                              │                                     │   └ Routed: loose_route() found our Route
//!                              │        ┌────────────────────────────┤
//!                              │        ▼ t_newtran, t_relay, a wait ▼ forward(), an ACK of a 2xx
//!                              │  Told::Created                    ForwardOut ─────► print ──► Wire::Sent ──► network
//!                              │        ▼ for each branch, after its branch route
//!                              │    RequestOut ────────────────────────────────────► print ──► Wire::Sent
//!                              │    LocalOut (a request made here, after local_route) ► print ──► Wire::Sent
//!                              │
//!                              └─ reply ─┬─ of a transaction: Wire::Matched ──► ReplyIn ──► reply routes ──► verdict
//!                                        │        ┌──────────────── it goes upstream ─────────────────────────┤
//!                                        │        ▼                                                           ▼
//!                                        │    ReplyOut ──► print ──► Wire::Sent ──► Told::Replied     all branches failed:
//!                                        │        ▲ replies made here, stateless ones too                  Failing
//!                                        │        └─────────────── nothing more to try ◄── failure route ◄────┘
//!                                        └─ of none: StrayReply ──► onreply_route ──► ReplyOut ──► Wire::Sent
//!
//!  a CANCEL of an INVITE: Cancelled ──► CANCELs to its branches        the end of a transaction: Told::Ended
//! ```
//!
//! A watcher sees the real message as the current one (`ctx.state`), with its `ext`, flags and edits. At a
//! [`Moment`] it may wait: it returns an [`Outcome`], and the message is held there, nothing of its transaction
//! overtaking it on the same way, until the operation is done, its deadline passes (it goes on with the return
//! code of [`Outcome::limit`]), or its transaction ends. A negative return code stops the message, see each moment.
//! A [`Told`] watcher hears of what happened; a [`Wire`] tap sees bytes and may change them. Neither waits.
//!
//! A moment that nobody watches costs one test of a bit.

use crate::context::call::Outcome;
use crate::context::ctx::Ctx;
use bytes::Bytes;
use std::sync::Arc;
use transaction::{Origin, Path, TxnId};

/// Where a watcher may hold a message. A script's CANCEL, or the end of the transaction, drops what is held of its
/// request; a reply that is held goes its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// A request came, its main route is next. One that waits has its server transaction from then on. Stopped: it
    /// is dropped without an answer.
    RequestIn,
    /// An ACK came that is for a 2xx: `Seen::txn` is the INVITE's transaction while there is one. It has passed
    /// `RequestIn`, its main route is next. Stopped: it is dropped.
    AckIn,
    /// `loose_route()` said that its Routes decide where the current request goes. Stopped: `loose_route()` returns -1.
    Routed,
    /// The main route has ended. Stopped: the transaction forgets its failure route.
    RequestEnd,
    /// A branch leaves: destination, socket, headers and body may be changed for this branch alone. Comes after its
    /// branch route, before its names are looked up; also for branches of failure routes and injected ones, not for
    /// the next address of the same branch. Stopped: the branch fails with 500.
    RequestOut,
    /// A request is forwarded without a transaction; an ACK of a 2xx too. Changes are for this copy alone.
    /// Stopped: it is not sent.
    ForwardOut,
    /// A request of this server itself leaves, in the transaction `Seen::txn`. It has passed local_route.
    /// Stopped: whoever made it is told 500.
    LocalOut,
    /// A reply of a transaction came, before its routes; each 2xx of a forked INVITE, and late ones.
    /// Stopped: a provisional reply is dropped (a final one counts).
    ReplyIn,
    /// A reply came that belongs to no transaction. Stopped: it was one of the watcher's own.
    StrayReply,
    /// A reply leaves upstream, relayed after its routes or made here (`Seen::origin`); without `Seen::txn` it is
    /// stateless. Not the 100 that answers an INVITE here. Stopped: it is not sent.
    ReplyOut,
    /// All branches have failed, the failure route is next, or the best reply: `Seen::branch` and `Seen::status`
    /// are the best one's. The current message is the request. What it returns means nothing.
    Failing,
    /// The caller gave up: the CANCELs to its branches are next. The current message is the INVITE. What it returns
    /// means nothing.
    Cancelled,
}

/// What is only told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// A request has its server transaction now (`TxnData::ext` is empty).
    Created,
    /// A reply was sent upstream, `Seen::bytes` as it went. The current message is the request.
    Replied,
    /// The transaction ends; its `ext` is still there. The current message is its request.
    Ended,
}

/// Where bytes pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Something came from the network, before it is parsed. Its worker was found by the Call-ID in it.
    Received,
    /// It belongs to a transaction: a retransmission, an ACK, a CANCEL, a reply.
    Matched,
    /// It goes to the network, retransmissions too.
    Sent,
}

const MOMENTS: usize = Moment::Cancelled as usize + 1;
const TOLD: usize = Told::Ended as usize + 1;
const WIRES: usize = Wire::Sent as usize + 1;

/// What a watcher learns besides the current message.
#[derive(Clone, Debug)]
pub struct Seen {
    pub txn: Option<TxnId>,
    /// The branch that it is about, where there is one.
    pub branch: Option<u16>,
    /// The status of the reply, as it is sent on (`change_reply_status`); 0: none.
    pub status: u16,
    /// Who made the message.
    pub origin: Origin,
    /// `Told::Replied`: the reply as it was sent.
    pub bytes: Bytes,
}

impl Seen {
    pub fn of(txn: Option<TxnId>) -> Seen {
        Seen { txn, branch: None, status: 0, origin: Origin::Relayed, bytes: Bytes::new() }
    }

    pub fn branch(self, branch: u16) -> Seen {
        Seen { branch: Some(branch), ..self }
    }

    pub fn status(self, status: u16) -> Seen {
        Seen { status, ..self }
    }

    pub fn origin(self, origin: Origin) -> Seen {
        Seen { origin, ..self }
    }
}

/// Bytes on their way in or out. A tap may put others in their place.
#[derive(Clone, Debug)]
pub struct OnWire {
    pub txn: Option<TxnId>,
    /// Where they came from, or go to.
    pub path: Path,
    pub bytes: Bytes,
}

pub type Watcher = Arc<dyn Fn(&mut Ctx, &Seen) -> Outcome + Send + Sync>;
pub type Listener = Arc<dyn Fn(&mut Ctx, &Seen) + Send + Sync>;
pub type Tap = Arc<dyn Fn(&mut Ctx, &mut OnWire) + Send + Sync>;

/// The place of a watcher among those of other modules; else they run in the order in which modules are loaded.
pub struct Place {
    module: &'static str,
    before: Vec<&'static str>,
    after: Vec<&'static str>,
}

impl Place {
    /// It runs before the watchers of this module, when that is loaded.
    pub fn before(&mut self, module: &'static str) -> &mut Place {
        self.before.push(module);
        self
    }

    pub fn after(&mut self, module: &'static str) -> &mut Place {
        self.after.push(module);
        self
    }

    fn goes_before(&self, other: &Place) -> bool {
        self.module != other.module
            && (self.before.contains(&other.module) || other.after.contains(&self.module))
    }
}

struct List<T>(Vec<(Place, T)>);

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Vec::new())
    }
}

impl<T> List<T> {
    fn add(&mut self, module: &'static str, run: T) -> &mut Place {
        self.0.push((Place { module, before: Vec::new(), after: Vec::new() }, run));
        &mut self.0.last_mut().expect("just pushed").0
    }

    /// Puts the entries in order, those without a wish as they came.
    fn arrange(&mut self) -> Result<(), String> {
        let mut rest = std::mem::take(&mut self.0);
        while !rest.is_empty() {
            let free = |i: &usize| !rest.iter().any(|(place, _)| place.goes_before(&rest[*i].0));
            match (0..rest.len()).find(free) {
                Some(next) => self.0.push(rest.remove(next)),
                None => {
                    let names: Vec<&str> = rest.iter().map(|(place, _)| place.module).collect();
                    return Err(format!("modules each want to come before the other: {}", names.join(", ")));
                }
            }
        }
        Ok(())
    }
}

/// All watchers of a server.
#[derive(Default)]
pub struct Watch {
    /// The module that adds some now.
    pub(crate) module: &'static str,
    held: [List<Watcher>; MOMENTS],
    told: [List<Listener>; TOLD],
    taps: [List<Tap>; WIRES],
    /// Bits of what is watched: moments, then what is told, then taps.
    bits: u32,
}

impl Watch {
    /// Joins in at a moment. What returns no [`Outcome`] (nothing, a number, a bool) does not wait.
    pub fn on<R: Into<Outcome>>(
        &mut self,
        moment: Moment,
        watcher: impl Fn(&mut Ctx, &Seen) -> R + Send + Sync + 'static,
    ) -> &mut Place {
        self.bits |= 1 << moment as u32;
        let watcher: Watcher = Arc::new(move |ctx, seen| watcher(ctx, seen).into());
        self.held[moment as usize].add(self.module, watcher)
    }

    pub fn told(
        &mut self,
        what: Told,
        listener: impl Fn(&mut Ctx, &Seen) + Send + Sync + 'static,
    ) -> &mut Place {
        self.bits |= 1 << (MOMENTS as u32 + what as u32);
        self.told[what as usize].add(self.module, Arc::new(listener))
    }

    pub fn tap(
        &mut self,
        wire: Wire,
        tap: impl Fn(&mut Ctx, &mut OnWire) + Send + Sync + 'static,
    ) -> &mut Place {
        self.bits |= 1 << ((MOMENTS + TOLD) as u32 + wire as u32);
        self.taps[wire as usize].add(self.module, Arc::new(tap))
    }

    /// Once all modules have joined in. The error names modules whose wishes contradict each other.
    pub(crate) fn arrange(&mut self) -> Result<(), String> {
        self.held.iter_mut().try_for_each(List::arrange)?;
        self.told.iter_mut().try_for_each(List::arrange)?;
        self.taps.iter_mut().try_for_each(List::arrange)
    }

    #[inline]
    pub fn watches(&self, moment: Moment) -> bool {
        self.bits & 1 << moment as u32 != 0
    }

    #[inline]
    pub fn tells(&self, what: Told) -> bool {
        self.bits & 1 << (MOMENTS as u32 + what as u32) != 0
    }

    #[inline]
    pub fn taps(&self, wire: Wire) -> bool {
        self.bits & 1 << ((MOMENTS + TOLD) as u32 + wire as u32) != 0
    }

    /// The watcher at a place of the list.
    pub(crate) fn watcher(&self, moment: Moment, at: usize) -> Option<&Watcher> {
        self.held[moment as usize].0.get(at).map(|(_, watcher)| watcher)
    }

    pub(crate) fn listeners(&self, what: Told) -> impl Iterator<Item = &Listener> {
        self.told[what as usize].0.iter().map(|(_, listener)| listener)
    }

    pub(crate) fn tapping(&self, wire: Wire) -> impl Iterator<Item = &Tap> {
        self.taps[wire as usize].0.iter().map(|(_, tap)| tap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(watch: &Watch) -> Vec<&'static str> {
        watch.held[Moment::ReplyIn as usize].0.iter().map(|(place, _)| place.module).collect()
    }

    fn add<'a>(watch: &'a mut Watch, module: &'static str) -> &'a mut Place {
        watch.module = module;
        watch.on(Moment::ReplyIn, |_, _| {})
    }

    #[test]
    fn watchers_stand_where_they_wish() {
        let mut watch = Watch::default();
        assert!(!watch.watches(Moment::ReplyIn));
        add(&mut watch, "acc").after("dialog");
        add(&mut watch, "uac");
        add(&mut watch, "dialog").before("missing");
        add(&mut watch, "first").before("uac").before("dialog");
        watch.arrange().unwrap();
        assert_eq!(order(&watch), ["first", "uac", "dialog", "acc"]);
        assert!(watch.watches(Moment::ReplyIn) && !watch.watches(Moment::ReplyOut));
        assert!(!watch.tells(Told::Created) && !watch.taps(Wire::Received));
    }

    #[test]
    fn wishes_that_contradict_are_named() {
        let mut watch = Watch::default();
        add(&mut watch, "a").before("b");
        add(&mut watch, "b").before("a");
        assert!(watch.arrange().unwrap_err().ends_with("a, b"));
    }
}
