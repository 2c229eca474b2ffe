//! What a worker hears from outside, told to a recorder while it happens, or said again from a recording.
//!
//! A worker is deterministic: its configuration, its seed and its inputs decide what it sends. Inputs are the steps that
//! its driver makes, and the answers to what it asks: databases, stores, HTTP servers, processes, names. [`Tape`] hears
//! of both. Whoever asks goes through [`awaited`] or [`at_once`], which ask the tape first; one that records says
//! [`Asked::Live`], one that plays back knows the answer.
//!
//! Without a tape all of this is one branch on an `Option` for each step.

use super::coded::Coded;
use super::lateness::Lateness;
use super::task_id::TaskId;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use transaction::{Path, TxnId};

/// The clocks and the generator of a worker as a step begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Milliseconds on the worker's clock.
    pub now: u64,
    /// Microseconds since 1970.
    pub wall_us: u64,
    pub rng: u64,
}

/// What a worker is given to do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step<'a> {
    /// It was made: its number, how many there are, its seed.
    Made {
        worker: u16,
        workers: u16,
        seed: u64,
    },
    Message {
        source: &'a Path,
        bytes: &'a Bytes,
        /// It may be refused, so late is it.
        excess: Option<Lateness>,
    },
    Undeliverable {
        path: &'a Path,
        bytes: &'a Bytes,
    },
    Resume(TaskId),
    Timer,
    /// A job; [`Note::Job`] and [`Note::Command`] say which.
    Run,
    Drain,
    End,
}

/// In [`Note::Over`]: what was to be done panicked.
pub const PANICKED: i32 = i32::MIN;

/// What a step leads to that a replay has to know.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Note<'a> {
    /// The future of an operation was started.
    Spawned(TaskId),
    /// A transaction was made.
    Txn(TxnId),
    /// The job was this one of those that worker `from` gave to others, from 0.
    Job { from: u16, number: u64 },
    /// The job was a management command.
    Command { name: &'a str, params: &'a str },
    /// What a driver is to send.
    Sent { path: &'a Path, bytes: &'a Bytes },
    /// An operation is over with this return code, or [`PANICKED`].
    Over(i32),
    /// Messages may come.
    Started,
}

/// What a tape says to a question.
#[derive(Clone, PartialEq, Debug)]
pub enum Asked {
    /// Ask really, and tell the answer under this number. What is not answered is told by [`Tape::unanswered`].
    Live(u64),
    /// This is what was answered.
    Known(Bytes),
    /// It was asked and never answered.
    Never,
    /// Nobody asked this when it was recorded.
    Unknown,
}

/// A recorder, or a recording. One for each worker, on its thread.
pub trait Tape {
    /// It wants to hear of what happens; asked before anything is prepared for it.
    fn on(&self) -> bool;
    fn step(&self, at: Moment, step: Step<'_>);
    fn note(&self, note: Note<'_>);
    /// `scope`: the Call-ID of the operation that asks, empty for none.
    fn ask(&self, scope: &[u8], kind: &'static str, question: &str) -> Asked;
    fn answered(&self, number: u64, answer: &[u8]);
    fn unanswered(&self, number: u64);
    /// The number of the next job for another worker.
    fn next_job(&self) -> u64;
}

/// The tape, and whose operation runs.
#[derive(Clone)]
pub struct Playing {
    tape: Rc<dyn Tape>,
    scope: Bytes,
}

thread_local! {
    static PLAYING: RefCell<Option<Playing>> = const { RefCell::new(None) };
    static LABEL: Cell<Option<(u16, u64)>> = const { Cell::new(None) };
}

/// Until it is dropped, what is asked on this thread goes to this tape.
pub struct Entered(Option<Playing>);

/// See [`Entered`].
pub fn enter(tape: &Rc<dyn Tape>, scope: Bytes) -> Entered {
    Entered(PLAYING.replace(Some(Playing { tape: tape.clone(), scope })))
}

impl Drop for Entered {
    fn drop(&mut self) {
        PLAYING.set(self.0.take());
    }
}

fn playing() -> Option<Playing> {
    PLAYING.with_borrow(|playing| playing.clone()).filter(|playing| playing.tape.on())
}

/// (worker, number) of the job that is being handed to another worker; for drivers that play back.
pub fn label() -> Option<(u16, u64)> {
    LABEL.get()
}

/// Hands a job over with its number.
pub(crate) fn labelled<T>(from: u16, number: u64, hand: impl FnOnce() -> T) -> T {
    LABEL.set(Some((from, number)));
    let result = hand();
    LABEL.set(None);
    result
}

/// A question that waits for its answer; dropped before, it is told so.
struct Open {
    playing: Playing,
    number: Option<u64>,
    /// See [`at_once`].
    at_once: bool,
}

/// The answer of a question whose answer was a panic: no value is coded as nothing.
const PANIC: &[u8] = b"";

impl Open {
    fn answered<T: Coded>(&mut self, answer: &T) {
        if let Some(number) = self.number.take() {
            self.playing.tape.answered(number, &answer.coded());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        match self.number.take() {
            Some(number) if self.at_once && std::thread::panicking() => {
                self.playing.tape.answered(number, PANIC)
            }
            Some(number) => self.playing.tape.unanswered(number),
            None => {}
        }
    }
}

/// An answer that is awaited from outside. `absent`: what a recording says to a question that it does not know.
pub async fn awaited<T: Coded>(
    kind: &'static str,
    question: impl FnOnce() -> String,
    live: impl Future<Output = T>,
    absent: impl FnOnce() -> T,
) -> T {
    let Some(playing) = playing() else { return live.await };
    match playing.tape.ask(&playing.scope, kind, &question()) {
        Asked::Live(number) => {
            let mut open = Open { playing, number: Some(number), at_once: false };
            let answer = live.await;
            open.answered(&answer);
            answer
        }
        Asked::Known(answer) => T::take(&mut &answer[..]).unwrap_or_else(absent),
        Asked::Never => std::future::pending().await,
        Asked::Unknown => absent(),
    }
}

/// An answer that is there at once, from something that workers share or the system knows. `None`: the recording does
/// not know it. A panic of `live` happens again when it is played back; for that no `T` may be coded as nothing.
pub fn at_once<T: Coded>(
    kind: &'static str,
    question: impl FnOnce() -> String,
    live: impl FnOnce() -> T,
) -> Option<T> {
    let Some(playing) = playing() else { return Some(live()) };
    match playing.tape.ask(&playing.scope, kind, &question()) {
        Asked::Live(number) => {
            let mut open = Open { playing, number: Some(number), at_once: true };
            let answer = live();
            open.answered(&answer);
            Some(answer)
        }
        Asked::Known(answer) if answer == PANIC => {
            std::panic::resume_unwind(Box::new("it panicked when it was recorded"))
        }
        Asked::Known(answer) => T::take(&mut &answer[..]),
        Asked::Never | Asked::Unknown => None,
    }
}
