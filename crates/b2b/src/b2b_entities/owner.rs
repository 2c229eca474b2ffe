//! Who leads entities, and in which order what happens to them is looked at.
//!
//! Everything of one call passes one lane: while a route that looks at one message waits, the messages that follow it
//! wait for their turn.

use super::entity::Kind;
use bytes::Bytes;
use host::Ctx;
use sip::Message;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What waits for its turn in one call; what comes beyond is dropped, its sender tries again.
const MAX_LANE: usize = 64;

/// A message of an entity; it is the current message of the context.
#[derive(Clone, Debug)]
pub struct Notice {
    pub entity: Bytes,
    pub kind: Kind,
    /// The key that the owner gave.
    pub logic: Bytes,
    pub what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Request,
    /// A BYE that ended a request which was under way here.
    EndingBye,
    /// The ACK of a refusal.
    AckOfRefusal,
    Reply,
    /// A 2xx to an INVITE that was given up: it was acknowledged, and a BYE followed.
    LateReply,
}

impl What {
    pub fn is_request(self) -> bool {
        !matches!(self, What::Reply | What::LateReply)
    }
}

/// What identifies a dialog of an entity: Call-ID, the other end's tag, this server's tag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DialogInfo {
    pub call_id: Bytes,
    pub from_tag: Bytes,
    pub to_tag: Bytes,
}

/// A module that leads entities.
pub struct Owner {
    pub module: &'static str,
    /// Looks at a message and says when the next one of the call may follow.
    pub notify: fn(&mut Ctx, Notice, Turn),
    /// The call of a client entity was answered.
    pub answered: fn(&mut Ctx, &Notice, DialogInfo),
    /// This server is not acknowledged by the end that it answered.
    pub lost: fn(&mut Ctx, Notice, Turn),
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.module)
    }
}

type Job = Box<dyn FnOnce(&mut Ctx, Turn)>;

#[derive(Default)]
struct Lane {
    busy: bool,
    queue: VecDeque<Job>,
}

/// The lanes of a worker that are in use.
#[derive(Default)]
pub struct Lanes(ahash::AHashMap<Bytes, Rc<RefCell<Lane>>>);

/// The right to look at a call. Whoever has it ends it; lost with a script that broke, it is free again.
pub struct Turn {
    name: Bytes,
    lane: Rc<RefCell<Lane>>,
    ended: bool,
}

impl Turn {
    /// The next one follows.
    pub fn end(mut self, ctx: &mut Ctx) {
        self.ended = true;
        let next = self.lane.borrow_mut().queue.pop_front();
        let Some(job) = next else {
            self.lane.borrow_mut().busy = false;
            ctx.local::<Lanes>().0.remove(&self.name);
            return;
        };
        let turn = Turn { name: self.name.clone(), lane: self.lane.clone(), ended: false };
        // It is of another message than what ran until now, and its defect costs nothing but itself.
        if ctx.catch(|ctx| job(ctx, turn)).is_err()
            && !std::mem::replace(&mut self.lane.borrow_mut().busy, true)
        {
            Turn { name: self.name.clone(), lane: self.lane.clone(), ended: false }.end(ctx);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.ended {
            self.lane.borrow_mut().busy = false;
        }
    }
}

/// Does `job` when the call has its turn: now, or behind what is being looked at. False: too much waits.
pub fn enter(ctx: &mut Ctx, name: &Bytes, job: impl FnOnce(&mut Ctx, Turn) + 'static) -> bool {
    let lane = ctx.local::<Lanes>().0.entry(name.clone()).or_default().clone();
    let mut job: Job = Box::new(job);
    {
        let mut lane = lane.borrow_mut();
        if lane.busy {
            if lane.queue.len() >= MAX_LANE {
                host::warn!("b2b_entities", "a message was dropped: too many of its call wait for a script");
                return false;
            }
            lane.queue.push_back(job);
            return true;
        }
        // What a broken script left behind comes first.
        if let Some(first) = lane.queue.pop_front() {
            lane.queue.push_back(std::mem::replace(&mut job, first));
        }
        lane.busy = true;
    }
    job(ctx, Turn { name: name.clone(), lane, ended: false });
    true
}

/// Takes the turn of a call that nobody looks at yet, or while something of it is done from outside.
pub fn hold(ctx: &mut Ctx, name: &Bytes) -> Option<Turn> {
    let lane = ctx.local::<Lanes>().0.entry(name.clone()).or_default().clone();
    if std::mem::replace(&mut lane.borrow_mut().busy, true) {
        return None;
    }
    Some(Turn { name: name.clone(), lane, ended: false })
}

/// The body of a message as its peer is to get it: `None` when it says nothing of one.
pub fn body_of(msg: &Message) -> Option<Bytes> {
    let body = msg.text(msg.body());
    (!body.is_empty() || msg.content_length().is_some()).then_some(body)
}
