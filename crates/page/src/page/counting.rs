//! Calls as a caller sees them: how many, how they are answered, and after how long. Statistics of group `page`.

use host::Ctx;
use host::shared::Hooks;
use host::stats::{Counter, Stats};
use host::watch::{Moment, OnWire, Seen, Told, Wire};
use host::worker::ops::STEPS_MS;
use sip::{Message, Method};
use std::sync::Arc;

const STEPS: usize = STEPS_MS.len() + 1;

/// Counters of one server.
#[derive(Clone, Default)]
pub struct Counts(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: Counter,
    challenged: Counter,
    /// By first digit, from 2.
    classes: [Counter; 5],
    /// Until the first ringing, by `STEPS_MS`.
    ringing: [Counter; STEPS],
    /// Until the 2xx.
    setup: [Counter; STEPS],
}

/// When a call came, and what its caller has heard.
#[derive(Clone, Copy, Default)]
struct Course {
    began_ms: u64,
    ringing: bool,
    answered: bool,
}

impl Counts {
    pub fn new(stats: &Stats) -> Counts {
        let counter = |name: &str| stats.counter("page", name);
        let steps = |what: &str| {
            std::array::from_fn(|at| {
                counter(&STEPS_MS.get(at).map_or(format!("{what}_longer"), |ms| format!("{what}_{ms}ms")))
            })
        };
        Counts(Arc::new(Inner {
            calls: counter("calls"),
            challenged: counter("challenged"),
            classes: std::array::from_fn(|at| counter(&format!("calls_{}xx", at + 2))),
            ringing: steps("ringing"),
            setup: steps("setup"),
        }))
    }

    /// The values that the history keeps: calls, challenged, 2xx to 6xx.
    pub fn now(&self) -> [i64; 7] {
        let Inner { calls, challenged, classes, .. } = &*self.0;
        let [c2, c3, c4, c5, c6] = classes;
        [calls, challenged, c2, c3, c4, c5, c6].map(Counter::value)
    }

    fn answered(&self, status: u16) {
        match status {
            401 | 407 => self.0.challenged.up(),
            200..700 => self.0.classes[usize::from(status / 100 - 2)].up(),
            _ => {}
        }
    }
}

fn step(took_ms: u64) -> usize {
    STEPS_MS.partition_point(|end| *end < took_ms)
}

/// An INVITE that begins a call.
fn begins_call(msg: &Message) -> bool {
    msg.is_request() && msg.method() == Method::Invite && msg.to_tag().is_none()
}

pub fn watch(counts: &Counts, hooks: &mut Hooks) {
    let counted = counts.clone();
    hooks.watch.on(Moment::RequestIn, move |ctx: &mut Ctx, _: &Seen| {
        if begins_call(&ctx.state.msg) {
            counted.0.calls.up();
        }
    });
    hooks.watch.told(Told::Created, |ctx, seen| {
        if !begins_call(&ctx.state.msg) {
            return;
        }
        let course = Course { began_ms: ctx.core.now.0, ringing: false, answered: false };
        if let Some(ext) = seen.txn.and_then(|id| ctx.ext_of(id)) {
            ext.set(course);
        }
    });
    let counted = counts.clone();
    hooks.watch.told(Told::Replied, move |ctx, seen| replied(&counted, ctx, seen));
    let counted = counts.clone();
    hooks.watch.tap(Wire::Sent, move |ctx, passing| {
        if passing.txn.is_none() {
            stateless(&counted, ctx, passing);
        }
    });
}

fn replied(counts: &Counts, ctx: &mut Ctx, seen: &Seen) {
    let now = ctx.core.now.0;
    let Some(ext) = seen.txn.and_then(|id| ctx.ext_of(id)) else { return };
    let Some(mut course) = ext.find::<Course>().copied() else { return };
    let took = now.saturating_sub(course.began_ms);
    match seen.status {
        // What a 100 says is no news to a caller.
        101..200 if !course.ringing => {
            course.ringing = true;
            counts.0.ringing[step(took)].up();
        }
        200..700 if !course.answered => {
            course.answered = true;
            counts.answered(seen.status);
            if seen.status < 300 {
                counts.0.setup[step(took)].up();
            }
        }
        _ => return,
    }
    ext.set(course);
}

/// A reply that a script sends without a transaction: the request is the current message.
fn stateless(counts: &Counts, ctx: &Ctx, passing: &OnWire) {
    let Some(status) = passing.bytes.strip_prefix(b"SIP/2.0 ").and_then(|rest| rest.get(..3)) else { return };
    if begins_call(&ctx.state.msg)
        && let Some(status) = std::str::from_utf8(status).ok().and_then(|s| s.parse::<u16>().ok())
    {
        counts.answered(status);
    }
}
