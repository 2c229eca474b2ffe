//! Whether a worker has more to do than it can: told by how long messages have waited when their turn comes, from their
//! arrival in the socket on, also through the mailbox.
//!
//! ```text
//!              messages older than `delay`, without a break, for `time`
//!   keeps up ───────────────────────────────────────────────────────────► overloaded
//!            ◄───────────────────────────────────────────────────────────
//!                       none of them for CALM_US
//! ```
//!
//! A burst that is dealt with in time changes nothing, whatever its size (the idea of CoDel, RFC 8289 §3.1). Once
//! overloaded, each message is judged by its own age: what has waited longer than `delay` may be refused
//! (`host::tm::overload`), the rest is served. So the queue stays at about `delay`, the worker is never idle, and nobody
//! is refused any more at the moment when there is room again.

use super::Runner;
use crate::mailbox::Post;
use bytes::Bytes;
use host::stats::Counter;
use host::tm::overload::Lateness;
use host::worker::Clock;
use host::{Input, Shared};
use script::Value;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use transaction::Path;

/// So long only young messages, and those before were another crowd.
const BREAK_US: u64 = 300_000;
/// So long without an old message, and the worker keeps up again.
const CALM_US: u64 = 1_000_000;
/// A message that has waited so many times `delay` is very late.
const VERY_LATE: u64 = 3;
/// What finds no room in a socket shows that it holds less than `delay` of messages; then its age counts, and this at
/// least.
const LEAST_US: u64 = 5_000;
/// How often an overloaded worker looks whether it keeps up again.
const LOOK: Duration = Duration::from_millis(200);

/// What is seen of one worker. Times are microseconds since 1970.
struct Gate {
    /// `overload_delay`; 0: no message is ever late.
    delay: u64,
    /// `overload_time`
    time: u64,
    /// The first and the last old message of this crowd.
    first: u64,
    last: u64,
    /// Since when only young ones came; `None`: the last one was old.
    young: Option<u64>,
    spell: Option<Spell>,
}

/// From the moment when a worker does not keep up to when it does.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spell {
    began: u64,
    /// From so old on a message is late.
    late: u64,
    /// The oldest message.
    worst: u64,
}

#[derive(PartialEq, Debug)]
enum Change {
    Began(Spell),
    Ended(Spell),
}

impl Gate {
    fn new(delay_ms: i64, time_ms: i64) -> Gate {
        let us = |ms: i64| u64::try_from(ms).unwrap_or(0) * 1000;
        Gate { delay: us(delay_ms), time: us(time_ms), first: 0, last: 0, young: None, spell: None }
    }

    /// The youngest of some messages whose turn came is `age` old; `lost`: what found no room in their socket.
    fn look(&mut self, now: u64, age: u64, lost: u32) -> Option<Change> {
        if self.delay == 0 {
            return None;
        }
        if age >= self.delay || lost > 0 {
            let young = self.young.take().is_some_and(|since| now.saturating_sub(since) > BREAK_US);
            // A worker that looks seldom is busy with what it saw last; or it had nothing to do, and this came much later.
            let later = now.saturating_sub(age) > self.last.saturating_add(CALM_US);
            if young || later {
                self.first = now;
            }
            self.last = now;
        } else {
            self.young.get_or_insert(now);
        }
        match &mut self.spell {
            None if self.last == now && now.saturating_sub(self.first) >= self.time => {
                let spell = Spell { began: now, late: self.late(age, lost), worst: age };
                self.spell = Some(spell);
                Some(Change::Began(spell))
            }
            None => None,
            Some(_) if now.saturating_sub(self.last) >= CALM_US => self.spell.take().map(Change::Ended),
            Some(spell) => {
                spell.worst = spell.worst.max(age);
                if lost > 0 {
                    spell.late = spell.late.min((age / 2).max(LEAST_US));
                }
                None
            }
        }
    }

    fn late(&self, age: u64, lost: u32) -> u64 {
        if lost > 0 { self.delay.min((age / 2).max(LEAST_US)) } else { self.delay }
    }

    /// `None`: the worker keeps up.
    fn lateness(&self, age: u64) -> Option<Lateness> {
        let late = self.spell.as_ref()?.late;
        Some(match age {
            age if age < late => Lateness::InTime,
            age if age < late * VERY_LATE => Lateness::Late,
            _ => Lateness::VeryLate,
        })
    }
}

/// One worker's gate, and how others see it.
pub(super) struct Overload {
    gate: RefCell<Gate>,
    /// Statistic: workers that do not keep up now.
    overloaded: Counter,
    /// Statistic: datagrams that found no room in a socket.
    lost: Counter,
    refused: Counter,
    /// `refused` when it began.
    refused_before: Cell<i64>,
}

impl Overload {
    pub fn new(shared: &Shared, post: &Arc<Post>, index: u16) -> Overload {
        let core = &shared.globals.core;
        if index == 0 {
            let post = post.clone();
            shared.stats.computed("net", "queue_delay", move || {
                post.boxes.iter().map(|mailbox| mailbox.delay.recent()).max().unwrap_or(0) as i64
            });
        }
        Overload {
            gate: RefCell::new(Gate::new(core.overload_delay, core.overload_time)),
            overloaded: shared.stats.counter("net", "overloaded"),
            lost: shared.stats.counter("net", "socket_dropped"),
            refused: shared.stats.counter("net", "overload_refused"),
            refused_before: Default::default(),
        }
    }

    /// What becomes of a message that came at `at_us` (0: not known).
    pub fn input(&self, clock: Clock, source: Path, bytes: Bytes, at_us: u64) -> Input {
        let gate = self.gate.borrow();
        if gate.spell.is_none() {
            return Input::Message { source, bytes };
        }
        // Those before it in the batch took their time.
        let clock = Clock { wall_us: super::wall_us(), ..clock };
        let lateness = gate.lateness(age(clock, at_us)).unwrap_or(Lateness::InTime);
        Input::Excess { source, bytes, lateness }
    }
}

/// Microseconds; 0 when it is not known, or the clock was set back.
fn age(clock: Clock, at_us: u64) -> u64 {
    if at_us == 0 { 0 } else { clock.wall_us.saturating_sub(at_us) }
}

impl Runner {
    /// The turn of some messages has come, the youngest of which came at `at_us`; `lost`: datagrams that found no room
    /// in their socket.
    pub(super) fn note_wait(self: &Rc<Self>, clock: Clock, at_us: u64, lost: u32) {
        let (overload, age) = (&self.overload, age(clock, at_us));
        self.post.boxes[self.index].delay.note(clock.wall_us, age);
        if lost > 0 {
            overload.lost.add(lost.into());
        }
        let change = overload.gate.borrow_mut().look(clock.wall_us, age, lost);
        if let Some(change) = change {
            self.clone().tell(clock, change);
        }
    }

    #[cold]
    fn tell(self: Rc<Self>, clock: Clock, change: Change) {
        let (worker, overload) = (self.index, &self.overload);
        let (state, worst, refused) = match change {
            Change::Began(spell) => {
                overload.overloaded.up();
                overload.refused_before.set(overload.refused.value());
                host::warn!(
                    "core",
                    "worker {worker} has more to do than it can: messages wait {} ms for their turn; new requests that \
                     waited longer than {} ms get a 503 until there is room again",
                    spell.worst / 1000,
                    spell.late / 1000
                );
                tokio::task::spawn_local(self.clone().look_again());
                ("begin", spell.worst, 0)
            }
            Change::Ended(spell) => {
                overload.overloaded.down();
                let refused = overload.refused.value() - overload.refused_before.get();
                host::notice!(
                    "core",
                    "worker {worker} keeps up again, after {:.1} s: {refused} requests were refused (by all workers), \
                     messages waited {} ms at most",
                    clock.wall_us.saturating_sub(spell.began) as f64 / 1e6,
                    spell.worst / 1000
                );
                ("end", spell.worst, refused)
            }
        };
        let param = |name: &'static str, value: Value| (Bytes::from_static(name.as_bytes()), value);
        let params = [
            param("state", state.into()),
            param("worker", Value::Int(worker as i64)),
            param("delay", Value::Int((worst / 1000) as i64)),
            param("refused", Value::Int(refused)),
        ];
        let params = params.into_iter().collect();
        // Not from within the loop that looks at messages.
        tokio::task::spawn_local(async move { self.raise(host::events::OVERLOAD, params) });
    }

    /// Also when no message comes any more the end is seen.
    async fn look_again(self: Rc<Self>) {
        while self.overload.gate.borrow().spell.is_some() {
            tokio::time::sleep(LOOK).await;
            self.note_wait(super::clock(self.epoch), 0, 0);
        }
    }
}

/// How long messages of a worker waited lately: the longest of this second and the last one.
#[derive(Default)]
pub struct Delay {
    second: AtomicU64,
    /// Microseconds.
    this: AtomicU64,
    before: AtomicU64,
}

impl Delay {
    /// Only its worker notes.
    fn note(&self, now_us: u64, age: u64) {
        let second = now_us / 1_000_000;
        let old = self.second.load(Ordering::Relaxed);
        if second != old {
            let last = if second == old + 1 { self.this.load(Ordering::Relaxed) } else { 0 };
            self.before.store(last, Ordering::Relaxed);
            self.this.store(age, Ordering::Relaxed);
            self.second.store(second, Ordering::Relaxed);
        } else if age > self.this.load(Ordering::Relaxed) {
            self.this.store(age, Ordering::Relaxed);
        }
    }

    /// Milliseconds.
    fn recent(&self) -> u64 {
        self.this.load(Ordering::Relaxed).max(self.before.load(Ordering::Relaxed)) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// A worker that is told of its messages every millisecond from `from` to `to` ms, each `age` ms old; the first
    /// change and when it was.
    fn run(gate: &mut Gate, from: u64, to: u64, age: u64, lost: u32) -> Option<(u64, Change)> {
        let start = 1_000_000_000;
        (from..to).find_map(|at| Some((at, gate.look(start + at * MS, age * MS, lost)?)))
    }

    #[test]
    fn a_burst_is_no_overload() {
        let mut gate = Gate::new(100, 300);
        for at in [0, 1000, 2000] {
            assert_eq!(run(&mut gate, at, at + 299, 200, 0), None);
            assert_eq!(run(&mut gate, at + 299, at + 400, 99, 0), None);
        }
        assert_eq!(gate.lateness(500 * MS), None);
    }

    #[test]
    fn a_queue_that_stays_is() {
        let mut gate = Gate::new(100, 300);
        let (at, change) = run(&mut gate, 0, 400, 150, 0).unwrap();
        assert!(matches!(change, Change::Began(Spell { late: 100_000, worst: 150_000, .. })) && at == 300);
        assert_eq!(gate.lateness(99 * MS), Some(Lateness::InTime));
        assert_eq!(gate.lateness(100 * MS), Some(Lateness::Late));
        assert_eq!(gate.lateness(300 * MS), Some(Lateness::VeryLate));
        // A pause of less than a second does not end it.
        assert_eq!(run(&mut gate, 301, 1200, 10, 0), None);
        assert_eq!(run(&mut gate, 1200, 1201, 170, 0), None);
        let (at, change) = run(&mut gate, 1201, 3000, 0, 0).unwrap();
        assert!(matches!(change, Change::Ended(Spell { worst: 170_000, .. })) && at == 2200);
        assert_eq!(gate.lateness(500 * MS), None);
    }

    /// A worker that needs long for each portion looks seldom.
    #[test]
    fn a_queue_that_is_seen_seldom() {
        let mut gate = Gate::new(100, 300);
        let start = 1_000_000_000;
        assert_eq!(gate.look(start, 0, 0), None);
        assert_eq!(gate.look(start + 1500 * MS, 1500 * MS, 0), None);
        assert!(matches!(gate.look(start + 3000 * MS, 3000 * MS, 0), Some(Change::Began(_))));
        // One stall after the other, with nothing to do between them, is no queue.
        let mut gate = Gate::new(100, 300);
        for stall in 1..5 {
            assert_eq!(gate.look(start + stall * 5000 * MS, 400 * MS, 0), None);
        }
    }

    #[test]
    fn a_full_socket_is_overload_too() {
        let mut gate = Gate::new(100, 300);
        let (at, change) = run(&mut gate, 0, 400, 30, 1).unwrap();
        assert!(matches!(change, Change::Began(Spell { late: 15_000, .. })) && at == 300);
        run(&mut gate, 301, 302, 4, 1);
        assert_eq!(gate.lateness(4 * MS), Some(Lateness::InTime));
        assert_eq!(gate.lateness(5 * MS), Some(Lateness::Late));
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut gate = Gate::new(0, 300);
        assert_eq!(run(&mut gate, 0, 5000, 60_000, 9), None);
    }

    #[test]
    fn the_longest_wait_of_late() {
        let delay = Delay::default();
        delay.note(10_000_000, 5_000);
        delay.note(10_100_000, 3_000);
        assert_eq!(delay.recent(), 5);
        delay.note(11_000_000, 1_000);
        assert_eq!(delay.recent(), 5);
        delay.note(12_000_000, 2_000);
        assert_eq!(delay.recent(), 2);
        delay.note(20_000_000, 0);
        assert_eq!(delay.recent(), 0);
    }
}
