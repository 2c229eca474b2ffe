//! Which worker a message is for, and work that another worker is to do.

use crate::context::ctx::Ctx;
use crate::context::detached::owner;
use bytes::Bytes;
use sip::Message;
use transaction::Cookie;

/// The worker that sent a request of this server, or its reply's: its number stands in the topmost Via.
pub fn sender(message: &Bytes, workers: usize) -> Option<usize> {
    let cookie = Message::via_branch(message).and_then(|branch| Cookie::parse(&branch))?;
    Some(usize::from(cookie.worker)).filter(|worker| *worker < workers)
}

/// The worker that a message from the network is for. A reply goes to the worker that sent its request, a request
/// to the owner of its Call-ID. `None`: whoever received it.
pub fn receiver(message: &Bytes, workers: usize) -> Option<usize> {
    if workers < 2 {
        return None;
    }
    let sent_by = if Message::looks_like_reply(message) { sender(message, workers) } else { None };
    sent_by.or_else(|| Message::owner(message).map(|id| owner(id, workers)))
}

impl Ctx {
    /// Does `job` on the worker that owns the calls of a Call-ID: at once when it is this one, else soon, in the
    /// order of asking. False when that worker takes no more (it is overloaded, or the server ends); the job is
    /// dropped then. What the job needs it owns; whatever the current message is, it is not the job's.
    pub fn on_owner(&mut self, call_id: &[u8], job: impl FnOnce(&mut Ctx) + Send + 'static) -> bool {
        self.on_worker(owner(call_id, self.core.workers.into()), job)
    }

    /// The same on worker `n`, from 0.
    pub fn on_worker(&mut self, n: usize, job: impl FnOnce(&mut Ctx) + Send + 'static) -> bool {
        if n == usize::from(self.core.worker) {
            job(self);
            return true;
        }
        self.core.shared.dispatch.get().is_some_and(|dispatch| dispatch.run_on(n, Box::new(job)))
    }
}
