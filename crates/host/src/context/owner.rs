//! Which worker a message is for, and work that another worker is to do.

use crate::context::ctx::Ctx;
use crate::context::detached::owner;
use crate::context::shared::Shared;
use crate::context::tape::{self, Note};
use bytes::Bytes;
use sip::Message;
use std::sync::Arc;
use transaction::Cookie;

/// The Call-ID behind one that a module masked; `None`: it is none of its masks (topology hiding).
pub type PlainCallId = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// The worker that owns the calls of a Call-ID, also of a masked one.
pub fn of_call(shared: &Shared, call_id: &[u8], workers: usize) -> usize {
    let plain = shared.hooks.plain_call_ids.iter().find_map(|plain| plain(call_id));
    owner(plain.as_deref().unwrap_or(call_id), workers)
}

/// The worker that sent a request of this server, or its reply's: its number stands in the topmost Via.
pub fn sender(message: &Bytes, workers: usize) -> Option<usize> {
    let cookie = Message::via_branch(message).and_then(|branch| Cookie::parse(&branch))?;
    Some(usize::from(cookie.worker)).filter(|worker| *worker < workers)
}

/// The worker that a message from the network is for. A reply goes to the worker that sent its request, a request
/// to the owner of its Call-ID. `None`: whoever received it.
pub fn receiver(shared: &Shared, message: &Bytes, workers: usize) -> Option<usize> {
    if workers < 2 {
        return None;
    }
    let sent_by = if Message::looks_like_reply(message) { sender(message, workers) } else { None };
    sent_by.or_else(|| Message::owner(message).map(|id| of_call(shared, id, workers)))
}

impl Ctx {
    /// Does `job` on the worker that owns the calls of a Call-ID: at once when it is this one, else soon, in the
    /// order of asking. False when that worker takes no more (it is overloaded, or the server ends); the job is
    /// dropped then. What the job needs it owns; whatever the current message is, it is not the job's.
    pub fn on_owner(&mut self, call_id: &[u8], job: impl FnOnce(&mut Ctx) + Send + 'static) -> bool {
        let worker = of_call(&self.core.shared, call_id, self.core.workers.into());
        self.on_worker(worker, job)
    }

    /// The same on worker `n`, from 0.
    pub fn on_worker(&mut self, n: usize, job: impl FnOnce(&mut Ctx) + Send + 'static) -> bool {
        if n == usize::from(self.core.worker) {
            job(self);
            return true;
        }
        let Some(dispatch) = self.core.shared.dispatch.get() else { return false };
        let Some(tape) = self.core.tape.as_ref().filter(|tape| tape.on()) else {
            return dispatch.run_on(n, Box::new(job));
        };
        let (from, number) = (self.core.worker, tape.next_job());
        let job = move |ctx: &mut Ctx| {
            if let Some(tape) = &ctx.core.tape {
                tape.note(Note::Job { from, number });
            }
            job(ctx);
        };
        tape::labelled(from, number, || dispatch.run_on(n, Box::new(job)))
    }
}
