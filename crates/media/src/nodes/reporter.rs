//! What futures that speak to engines need of their worker: the time, and telling what became of an engine.
#![expect(clippy::disallowed_methods, reason = "exchanges with engines are real I/O, they measure real time")]

use super::Node;
use host::events::{EventParams, raise};
use host::{Ctx, Shared, Value};
use std::sync::Arc;
use tokio::time::Instant;

/// Raises an event when an engine goes out of order or comes back.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
    worker: usize,
    /// Seconds since the start when this was made.
    ticks: u32,
    made: Instant,
    how: Told,
}

/// The event, and what it says.
#[derive(Clone, Copy)]
pub struct Told {
    pub module: &'static str,
    pub event: &'static str,
    pub with_set: bool,
    /// It says the opposite, as the reference does where an operator switches.
    pub inverted: bool,
}

impl Reporter {
    pub fn new(ctx: &Ctx, how: Told) -> Reporter {
        let (shared, worker) = (ctx.shared().clone(), usize::from(ctx.core.worker));
        Reporter { shared, worker, ticks: ticks(ctx), made: Instant::now(), how }
    }

    /// Seconds since the start of the server.
    pub fn now(&self) -> u32 {
        self.ticks.saturating_add(self.made.elapsed().as_secs() as u32)
    }

    /// The engine does not answer: it is out of order for so many seconds.
    pub fn lost(&self, node: &Arc<Node>, why: &str, seconds: u32) {
        let before = node.is_disabled();
        if node.disable(self.now().saturating_add(seconds)) && !before {
            host::error!(self.how.module, "{}: {why}; it is out of order for {seconds} s", node.url);
            self.tell(node);
        }
    }

    /// The engine answers.
    pub fn found(&self, node: &Arc<Node>) {
        node.answered(self.now());
        if node.enable() {
            host::notice!(self.how.module, "{} is in order again", node.url);
            self.tell(node);
        }
    }

    fn tell(&self, node: &Arc<Node>) {
        let (node, how) = (node.clone(), self.how);
        if let Some(dispatch) = self.shared.dispatch.get() {
            dispatch.run_on(self.worker, Box::new(move |ctx| how.raise(ctx, &node)));
        }
    }
}

impl Told {
    /// What the engine is now.
    pub fn raise(self, ctx: &mut Ctx, node: &Node) {
        let status = if node.is_disabled() != self.inverted { "inactive" } else { "active" };
        let mut params = vec![("socket", Value::from(node.url.clone())), ("status", Value::from(status))];
        if self.with_set {
            params.push(("set", Value::Int(node.set)));
        }
        raise(ctx, self.event, params.into_iter().collect::<EventParams>());
    }
}

/// Seconds since the start of the server.
pub fn ticks(ctx: &Ctx) -> u32 {
    u32::try_from(ctx.core.now.0 / 1000).unwrap_or(NEVER_YET)
}

const NEVER_YET: u32 = super::NEVER - 1;
