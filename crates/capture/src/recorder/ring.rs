//! The last so many bytes of what happened on one worker.

use super::format::{Writer, label};
use super::mask;
use bytes::Bytes;
use host::tape::{Asked, Moment, Note, Step, Tape};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a segment: what is dropped at a time. The first is kept, with what the worker asked when it started.
const SEGMENT: usize = 256 * 1024;
/// Questions without an answer yet; more are not recorded.
const MAX_OPEN: usize = 100_000;
/// Bytes of a question that are kept.
const MAX_QUESTION: usize = 4096;

/// What all workers share.
#[derive(Debug, Default)]
pub struct Common {
    pub on: AtomicBool,
    /// Places of steps among those of all workers.
    pub order: AtomicU64,
    /// Segments that were dropped.
    pub dropped: AtomicU64,
    /// Credentials are masked.
    pub masks: bool,
}

/// A full segment goes to a file.
pub type Spill = Box<dyn Fn(u64, Arc<Vec<u8>>) + Send>;

/// Records of one worker. Reached from elsewhere only when they are saved.
pub struct Ring {
    common: Arc<Common>,
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    writer: Writer,
    /// Number of `current`.
    number: u64,
    current: Vec<u8>,
    /// Whole segments, the oldest first.
    full: VecDeque<(u64, Arc<Vec<u8>>)>,
    bytes: usize,
    questions: u64,
    open: HashMap<u64, Open>,
    jobs: u64,
    now: u64,
    spill: Option<Spill>,
}

struct Open {
    scope: Bytes,
    kind: &'static str,
    question: String,
    since: u64,
}

impl Ring {
    /// `limit`: bytes that are kept at most, two segments at least.
    pub fn new(common: Arc<Common>, limit: usize, spill: Option<Spill>) -> Ring {
        Ring { common, limit: limit.max(2 * SEGMENT), inner: Mutex::new(Inner { spill, ..Inner::default() }) }
    }

    /// Bytes that are kept now.
    pub fn len(&self) -> usize {
        let inner = self.inner.lock();
        inner.bytes + inner.current.len()
    }

    /// What is kept, each segment with its label.
    pub fn segments(&self, worker: u16) -> Vec<(Vec<u8>, Arc<Vec<u8>>)> {
        let inner = self.inner.lock();
        let current = (inner.number, Arc::new(inner.current.clone()));
        let all = inner.full.iter().cloned().chain([current]);
        all.map(|(number, bytes)| (label(worker, number, bytes.len()), bytes)).collect()
    }

    /// What has not been handed to `spill` yet, which is: the unfinished segment.
    pub fn unfinished(&self) -> (u64, Vec<u8>) {
        let inner = self.inner.lock();
        (inner.number, inner.current.clone())
    }
}

impl Inner {
    fn rotate(&mut self, common: &Common, limit: usize) {
        let full = Arc::new(std::mem::replace(&mut self.current, Vec::with_capacity(SEGMENT + 4096)));
        let number = self.number;
        self.number += 1;
        self.writer.restart();
        if let Some(spill) = &self.spill {
            // The file has it; memory keeps nothing.
            spill(number, full);
            return;
        }
        self.bytes += full.len();
        self.full.push_back((number, full));
        while self.bytes + SEGMENT > limit && self.full.len() > 1 {
            if let Some((_, oldest)) = self.full.remove(1) {
                self.bytes -= oldest.len();
                common.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The ring as its worker writes it.
pub struct Recorder(pub Arc<Ring>);

impl Recorder {
    fn close(&self, number: u64, answer: Option<&[u8]>) {
        let mut inner = self.0.inner.lock();
        let Some(open) = inner.open.remove(&number) else { return };
        let took = inner.now.saturating_sub(open.since);
        let about = (&open.scope[..], open.kind, open.question.as_str());
        let masked = answer.filter(|_| self.0.common.masks && open.kind.starts_with("db")).map(mask::answer);
        let answer = masked.as_deref().or(answer);
        Writer::answer(number, about, answer, took, &mut inner.current);
    }
}

impl Tape for Recorder {
    fn on(&self) -> bool {
        self.0.common.on.load(Ordering::Relaxed)
    }

    fn step(&self, at: Moment, step: Step<'_>) {
        let order = self.0.common.order.fetch_add(1, Ordering::Relaxed);
        let mut guard = self.0.inner.lock();
        let inner = &mut *guard;
        if inner.current.len() >= SEGMENT {
            inner.rotate(&self.0.common, self.0.limit);
        }
        inner.now = at.now;
        match step {
            Step::Message { source, bytes, excess } if self.0.common.masks => {
                let bytes = mask::message(bytes);
                inner.writer.step(
                    order,
                    at,
                    &Step::Message { source, bytes: &bytes, excess },
                    &mut inner.current,
                );
            }
            step => inner.writer.step(order, at, &step, &mut inner.current),
        }
    }

    fn note(&self, note: Note<'_>) {
        Writer::note(&note, &mut self.0.inner.lock().current);
    }

    fn ask(&self, scope: &[u8], kind: &'static str, question: &str) -> Asked {
        let mut inner = self.0.inner.lock();
        let number = inner.questions;
        inner.questions += 1;
        if inner.open.len() < MAX_OPEN {
            let mut question = question.to_string();
            let end = question.floor_char_boundary(MAX_QUESTION);
            question.truncate(end);
            let (scope, since) = (Bytes::copy_from_slice(scope), inner.now);
            inner.open.insert(number, Open { scope, kind, question, since });
        }
        Asked::Live(number)
    }

    fn answered(&self, number: u64, answer: &[u8]) {
        self.close(number, Some(answer));
    }

    fn unanswered(&self, number: u64) {
        self.close(number, None);
    }

    fn next_job(&self) -> u64 {
        let mut inner = self.0.inner.lock();
        inner.jobs += 1;
        inner.jobs - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Read;
    use super::*;

    #[test]
    fn the_first_and_the_last_are_kept() {
        let common = Arc::new(Common { on: true.into(), ..Common::default() });
        let ring = Arc::new(Ring::new(common.clone(), 3 * SEGMENT, None));
        let recorder = Recorder(ring.clone());
        let path = transaction::Path {
            socket: 0,
            transport: sip::Transport::Udp,
            remote: ([10, 0, 0, 1], 5060).into(),
            local: 0,
            connection: 0,
        };
        let bytes = Bytes::from(vec![b'x'; 10_000]);
        for now in 0..300 {
            let at = Moment { now, ..Moment::default() };
            recorder.step(at, Step::Message { source: &path, bytes: &bytes, excess: None });
        }
        assert!(ring.len() <= 3 * SEGMENT + 20_000, "{}", ring.len());
        assert!(common.dropped.load(Ordering::Relaxed) > 5);
        let segments = ring.segments(0);
        let mut read = Read::default();
        segments.iter().for_each(|(_, bytes)| assert!(read.segment(0, bytes)));
        let times: Vec<u64> = read.events.iter().map(|event| event.at.now).collect();
        assert_eq!((times[0], times[times.len() - 1]), (0, 299));
        assert!(times.windows(2).any(|pair| pair[1] - pair[0] > 50), "there is a gap");
    }

    #[test]
    fn questions_and_answers() {
        let ring = Arc::new(Ring::new(Arc::default(), 0, None));
        let recorder = Recorder(ring.clone());
        let at = |now| Moment { now, ..Moment::default() };
        recorder.step(at(0), Step::Timer);
        assert_eq!(recorder.ask(b"call", "db", "select"), Asked::Live(0));
        assert_eq!(recorder.ask(b"call", "db", "never"), Asked::Live(1));
        recorder.step(at(40), Step::Timer);
        recorder.answered(0, b"rows");
        recorder.answered(0, b"twice");
        recorder.unanswered(1);
        let mut read = Read::default();
        assert!(read.segment(0, &ring.unfinished().1));
        let shown: Vec<_> = read.answers.iter().map(|a| (a.number, a.answer.as_deref(), a.took)).collect();
        assert_eq!(shown, [(0, Some(&b"rows"[..]), 40), (1, None, 40)]);
    }
}
