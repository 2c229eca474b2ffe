//! What a recording looks like, in memory and in a file.
//!
//! ```text
//! file     "FERMATA RECORDING 1\n", length and text of the head (JSON), segments
//! segment  worker, number, length, records
//! record   a kind, and its fields (host::coded)
//! ```
//!
//! A step is followed by what it led to, and by answers that came until the next one. Times are differences to the step
//! before; a segment begins with whole ones, so each can be read without those before it.

use bytes::Bytes;
use host::TaskId;
use host::coded::{Coded, put_number, take_bytes, take_number};
use host::tape::{Moment, Note, Step};
use host::taped::Reloaded;
use host::tm::overload::Lateness;
use serde_json::{Value as Json, json};
use sip::Transport;
use std::collections::HashMap;
use std::net::SocketAddr;
use transaction::{Path, TxnId};

/// What a file begins with.
pub const MAGIC: &[u8] = b"FERMATA RECORDING 1\n";

mod kind {
    pub const MADE: u8 = 1;
    pub const MESSAGE: u8 = 2;
    pub const UNDELIVERABLE: u8 = 3;
    pub const RESUME: u8 = 4;
    pub const TIMER: u8 = 5;
    pub const RUN: u8 = 6;
    pub const DRAIN: u8 = 7;
    pub const END: u8 = 8;
    pub const EXCESS: u8 = 9;
    pub const SPAWNED: u8 = 16;
    pub const TXN: u8 = 17;
    pub const JOB: u8 = 18;
    pub const COMMAND: u8 = 19;
    pub const SENT: u8 = 20;
    pub const OVER: u8 = 21;
    pub const STARTED: u8 = 22;
    pub const ANSWER: u8 = 23;
}

/// What a worker was given to do, read back.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    Made { worker: u16, workers: u16, seed: u64 },
    Message { source: Path, bytes: Bytes, excess: Option<Lateness> },
    Undeliverable { path: Path, bytes: Bytes },
    Resume(TaskId),
    Timer,
    Run(Job),
    Drain,
    End,
}

/// Whose job it was.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Job {
    /// It came from outside the workers, and nothing is known of it.
    #[default]
    Unknown,
    /// The job with this number, of those that a worker gave to others.
    Of {
        from: u16,
        number: u64,
    },
    Command {
        name: String,
        params: Json,
    },
}

/// A message that left: what identifies it, without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    pub length: usize,
    pub mark: u64,
}

impl Sent {
    pub fn of(path: &Path, bytes: &[u8]) -> Sent {
        let mut to = Vec::new();
        (path.transport, path.remote).put(&mut to);
        Sent { length: bytes.len(), mark: mark(bytes, mark(&to, u64::from(path.socket))) }
    }
}

/// A number that differs when bytes do. Fast; not for data of an enemy.
fn mark(bytes: &[u8], from: u64) -> u64 {
    let fold = |mark: u64, word: u64| (mark.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = bytes.as_chunks::<8>();
    let mark =
        words.iter().fold(from ^ bytes.len() as u64, |mark, word| fold(mark, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mark = fold(mark, u64::from_le_bytes(last));
    mark ^ mark >> 32
}

/// A step and what it led to.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    pub worker: u16,
    /// Its place among the steps of all workers.
    pub order: u64,
    pub at: Moment,
    pub input: Input,
    pub spawned: Vec<TaskId>,
    pub txns: Vec<TxnId>,
    pub sent: Vec<Sent>,
    /// Return codes of operations that ended in it.
    pub over: Vec<i32>,
    /// Messages may come from here on.
    pub started: bool,
}

/// What was asked outside, and what came back.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    pub worker: u16,
    /// Its place among the questions of its worker.
    pub number: u64,
    /// The Call-ID whose operation asked.
    pub scope: Bytes,
    pub kind: String,
    pub question: String,
    /// `None`: it was never answered.
    pub answer: Option<Bytes>,
    /// Milliseconds that the answer took.
    pub took: u64,
}

fn put_path(path: &Path, out: &mut Vec<u8>) {
    path.socket.put(out);
    path.transport.put(out);
    path.remote.put(out);
    path.local.put(out);
    path.connection.put(out);
}

fn lateness(number: u8) -> Option<Lateness> {
    [Lateness::InTime, Lateness::Late, Lateness::VeryLate].into_iter().find(|known| *known as u8 == number)
}

fn take_path(from: &mut &[u8]) -> Option<Path> {
    Some(Path {
        socket: u16::take(from)?,
        transport: Transport::take(from)?,
        remote: SocketAddr::take(from)?,
        local: u16::take(from)?,
        connection: u64::take(from)?,
    })
}

/// Appends the records of one worker.
#[derive(Default)]
pub struct Writer {
    before: Moment,
    order: u64,
}

impl Writer {
    /// What is written next does not need what was written before.
    pub fn restart(&mut self) {
        *self = Writer::default();
    }

    pub fn step(&mut self, order: u64, at: Moment, step: &Step<'_>, out: &mut Vec<u8>) {
        out.push(match step {
            Step::Made { .. } => kind::MADE,
            Step::Message { excess: None, .. } => kind::MESSAGE,
            Step::Message { .. } => kind::EXCESS,
            Step::Undeliverable { .. } => kind::UNDELIVERABLE,
            Step::Resume(_) => kind::RESUME,
            Step::Timer => kind::TIMER,
            Step::Run => kind::RUN,
            Step::Drain => kind::DRAIN,
            Step::End => kind::END,
        });
        put_number(order.wrapping_sub(self.order), out);
        (at.now.wrapping_sub(self.before.now) as i64).put(out);
        (at.wall_us.wrapping_sub(self.before.wall_us) as i64).put(out);
        out.extend_from_slice(&at.rng.to_le_bytes());
        (self.before, self.order) = (at, order);
        match *step {
            Step::Made { worker, workers, seed } => {
                (worker, workers).put(out);
                out.extend_from_slice(&seed.to_le_bytes());
            }
            Step::Message { source: path, bytes, excess } => {
                if let Some(lateness) = excess {
                    out.push(lateness as u8);
                }
                put_path(path, out);
                bytes.put(out);
            }
            Step::Undeliverable { path, bytes } => {
                put_path(path, out);
                bytes.put(out);
            }
            Step::Resume(task) => (task.index, task.generation).put(out),
            Step::Timer | Step::Run | Step::Drain | Step::End => {}
        }
    }

    pub fn note(note: &Note<'_>, out: &mut Vec<u8>) {
        match *note {
            Note::Spawned(task) => {
                out.push(kind::SPAWNED);
                (task.index, task.generation).put(out);
            }
            Note::Txn(id) => {
                out.push(kind::TXN);
                (id.index, id.generation).put(out);
            }
            Note::Job { from, number } => {
                out.push(kind::JOB);
                (from, number).put(out);
            }
            Note::Command { name, params } => {
                out.push(kind::COMMAND);
                (name.to_string(), params.to_string()).put(out);
            }
            Note::Sent { path, bytes } => {
                let sent = Sent::of(path, bytes);
                out.push(kind::SENT);
                put_number(sent.length as u64, out);
                out.extend_from_slice(&sent.mark.to_le_bytes());
            }
            Note::Over(rc) => {
                out.push(kind::OVER);
                rc.put(out);
            }
            Note::Started => out.push(kind::STARTED),
        }
    }

    pub fn answer(
        number: u64,
        (scope, asked, question): (&[u8], &str, &str),
        answer: Option<&[u8]>,
        took: u64,
        out: &mut Vec<u8>,
    ) {
        out.push(kind::ANSWER);
        put_number(number, out);
        for text in [scope, asked.as_bytes(), question.as_bytes()] {
            put_number(text.len() as u64, out);
            out.extend_from_slice(text);
        }
        answer.is_some().put(out);
        let answer = answer.unwrap_or_default();
        put_number(answer.len() as u64, out);
        out.extend_from_slice(answer);
        put_number(took, out);
    }
}

/// What was read of a segment.
#[derive(Default, Debug)]
pub struct Read {
    pub events: Vec<Event>,
    pub answers: Vec<Answer>,
}

fn word(from: &mut &[u8]) -> Option<u64> {
    take_bytes(from, 8)?.try_into().ok().map(u64::from_le_bytes)
}

impl Read {
    /// Adds the records of a segment. False: it ends in the middle of one (a file that was not written to its end), or
    /// is none.
    pub fn segment(&mut self, worker: u16, bytes: &[u8]) -> bool {
        let (mut from, mut writer) = (bytes, Writer::default());
        let mut fresh = true;
        while !from.is_empty() {
            if self.record(worker, &mut from, &mut writer, &mut fresh).is_none() {
                return false;
            }
        }
        true
    }

    fn record(&mut self, worker: u16, from: &mut &[u8], before: &mut Writer, fresh: &mut bool) -> Option<()> {
        let kind = u8::take(from)?;
        if kind < kind::SPAWNED {
            let event = step(worker, kind, from, before)?;
            self.events.push(event);
            *fresh = false;
            return Some(());
        }
        if kind == kind::ANSWER {
            let number = take_number(from)?;
            let scope = Bytes::take(from)?;
            let (kind, question) = Coded::take(from)?;
            let there = bool::take(from)?;
            let answer = Bytes::take(from)?;
            let took = take_number(from)?;
            let answer = there.then_some(answer);
            self.answers.push(Answer { worker, number, scope, kind, question, answer, took });
            return Some(());
        }
        // What belongs to a step of the segment before is lost with it.
        let mut lost = Event::lost();
        let event = if *fresh { &mut lost } else { self.events.last_mut()? };
        match kind {
            kind::SPAWNED => {
                let (index, generation) = Coded::take(from)?;
                event.spawned.push(TaskId { index, generation });
            }
            kind::TXN => {
                let (index, generation) = Coded::take(from)?;
                event.txns.push(TxnId { index, generation });
            }
            kind::JOB => {
                let (from, number) = Coded::take(from)?;
                if let Input::Run(job) = &mut event.input {
                    *job = Job::Of { from, number };
                }
            }
            kind::COMMAND => {
                let (name, params): (String, String) = Coded::take(from)?;
                if let Input::Run(job) = &mut event.input {
                    *job = Job::Command { name, params: serde_json::from_str(&params).unwrap_or_default() };
                }
            }
            kind::SENT => {
                let length = usize::try_from(take_number(from)?).ok()?;
                event.sent.push(Sent { length, mark: word(from)? });
            }
            kind::OVER => event.over.push(i32::take(from)?),
            kind::STARTED => event.started = true,
            _ => return None,
        }
        Some(())
    }
}

impl Event {
    fn lost() -> Event {
        Event {
            worker: 0,
            order: 0,
            at: Moment::default(),
            input: Input::Timer,
            spawned: Vec::new(),
            txns: Vec::new(),
            sent: Vec::new(),
            over: Vec::new(),
            started: false,
        }
    }
}

fn step(worker: u16, kind: u8, from: &mut &[u8], before: &mut Writer) -> Option<Event> {
    let order = before.order.wrapping_add(take_number(from)?);
    let now = before.before.now.wrapping_add(i64::take(from)? as u64);
    let wall_us = before.before.wall_us.wrapping_add(i64::take(from)? as u64);
    let at = Moment { now, wall_us, rng: word(from)? };
    (before.before, before.order) = (at, order);
    let input = match kind {
        kind::MADE => {
            let (worker, workers) = Coded::take(from)?;
            Input::Made { worker, workers, seed: word(from)? }
        }
        kind::MESSAGE => Input::Message { source: take_path(from)?, bytes: Bytes::take(from)?, excess: None },
        kind::EXCESS => {
            let excess = Some(lateness(u8::take(from)?)?);
            Input::Message { source: take_path(from)?, bytes: Bytes::take(from)?, excess }
        }
        kind::UNDELIVERABLE => Input::Undeliverable { path: take_path(from)?, bytes: Bytes::take(from)? },
        kind::RESUME => {
            let (index, generation) = Coded::take(from)?;
            Input::Resume(TaskId { index, generation })
        }
        kind::TIMER => Input::Timer,
        kind::RUN => Input::Run(Job::Unknown),
        kind::DRAIN => Input::Drain,
        kind::END => Input::End,
        _ => return None,
    };
    Some(Event { worker, order, at, input, ..Event::lost() })
}

/// The beginning of a file.
pub fn preamble(head: &Json) -> Vec<u8> {
    let text = head.to_string();
    let mut out = MAGIC.to_vec();
    put_number(text.len() as u64, &mut out);
    out.extend_from_slice(text.as_bytes());
    out
}

/// What stands before the records of a segment.
pub fn label(worker: u16, number: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    worker.put(&mut out);
    number.put(&mut out);
    (length as u64).put(&mut out);
    out
}

/// A whole recording.
#[derive(Debug)]
pub struct Recording {
    pub head: Json,
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// By worker and number.
    pub answers: Vec<Answer>,
    /// Segments were dropped between the first and the next, or a file is cut.
    pub has_gaps: bool,
}

impl Recording {
    /// Reads a file. The error is for the user.
    pub fn parse(mut from: &[u8]) -> Result<Recording, String> {
        from = from.strip_prefix(MAGIC).ok_or("this is no recording of Fermata")?;
        let damaged = "the recording is damaged at its beginning";
        let length = take_number(&mut from).and_then(|n| usize::try_from(n).ok()).ok_or(damaged)?;
        let head = take_bytes(&mut from, length).ok_or(damaged)?;
        let head = serde_json::from_slice(head).map_err(|e| format!("{damaged}: {e}"))?;
        let (mut read, mut gaps) = (Read::default(), false);
        let mut expected = std::collections::HashMap::<u16, u64>::new();
        while !from.is_empty() {
            let found = (|| {
                let (worker, number) = (u16::take(&mut from)?, u64::take(&mut from)?);
                let length = usize::try_from(u64::take(&mut from)?).ok()?;
                let whole = length <= from.len();
                let there = length.min(from.len());
                let bytes = take_bytes(&mut from, there)?;
                Some((worker, number, bytes, whole))
            })();
            let Some((worker, number, bytes, whole)) = found else {
                gaps = true;
                break;
            };
            let next = expected.entry(worker).or_insert(0);
            gaps |= *next != number || !whole;
            *next = number + 1;
            gaps |= !read.segment(worker, bytes);
        }
        let Read { mut events, mut answers } = read;
        events.sort_by_key(|event| event.order);
        answers.sort_by_key(|answer| (answer.worker, answer.number));
        Ok(Recording { head, events, answers, has_gaps: gaps })
    }

    /// Files of the configuration: name and text; the first is the main one.
    pub fn files(&self) -> Vec<(String, String)> {
        let files = self.head["files"].as_array().cloned().unwrap_or_default();
        let text = |file: &Json, name: &str| file[name].as_str().unwrap_or_default().to_string();
        files.iter().map(|file| (text(file, "name"), text(file, "text"))).collect()
    }

    /// Whether a reload brought other routes that the recording does not tell the time of: a file is there twice. A replay
    /// has those that were read last.
    pub fn is_of_several_scripts(&self) -> bool {
        let mut known = HashMap::new();
        self.first_files()
            .into_iter()
            .any(|(name, text)| known.insert(name, text.clone()).is_some_and(|before| before != text))
    }
}

/// What a replay has to know of the server besides its inputs.
pub fn head(shared: &host::Shared, workers: usize, masks: bool, reloads: &[(u64, Reloaded)]) -> Json {
    let sources = shared.sources();
    let text = |text: &Bytes| match masks {
        true => super::mask::script(&String::from_utf8_lossy(text)),
        false => String::from_utf8_lossy(text).into_owned(),
    };
    let files: Vec<Json> =
        sources.files.iter().map(|file| json!({"name": file.name, "text": text(&file.text)})).collect();
    let addresses: Vec<String> = shared.local_addresses.read().iter().map(|ip| ip.to_string()).collect();
    json!({
        "version": host::mi::VERSION,
        "workers": workers,
        "started_ms": shared.started_ms,
        "seed": shared.seed.to_string(),
        "listen": shared.listen_words,
        "local_addresses": addresses,
        "utc_offset": host::clock::utc_offset(),
        "arguments": shared.arguments.get(),
        "files": files,
        "reloads": super::reloads::coded(reloads),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        let remote = ([10, 0, 0, 2], 5060).into();
        Path { socket: 1, transport: Transport::Tcp, remote, local: 2, connection: 77 }
    }

    #[test]
    fn a_step_and_what_follows_it_is_read_back() {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        let at = |now| Moment { now, wall_us: now * 1000 + 5, rng: u64::MAX - now };
        let task = TaskId { index: 3, generation: 4 };
        writer.step(10, at(0), &Step::Made { worker: 1, workers: 2, seed: 9 }, &mut out);
        let bytes = Bytes::from_static(b"INVITE");
        writer.step(12, at(50), &Step::Message { source: &path(), bytes: &bytes, excess: None }, &mut out);
        Writer::note(&Note::Spawned(task), &mut out);
        Writer::note(&Note::Txn(TxnId { index: 7, generation: 8 }), &mut out);
        Writer::note(&Note::Sent { path: &path(), bytes: &bytes }, &mut out);
        Writer::answer(0, (b"call", "db", "select 1"), Some(b"rows"), 30, &mut out);
        Writer::answer(1, (b"", "http", "GET"), None, 0, &mut out);
        writer.step(13, at(80), &Step::Resume(task), &mut out);
        Writer::note(&Note::Over(-2), &mut out);
        writer.step(14, at(81), &Step::Run, &mut out);
        Writer::note(&Note::Command { name: "ps", params: "[1]" }, &mut out);
        let mut read = Read::default();
        assert!(read.segment(1, &out));
        let [made, message, resume, run] = &read.events[..] else { panic!("{:?}", read.events) };
        assert_eq!(made.input, Input::Made { worker: 1, workers: 2, seed: 9 });
        assert_eq!((message.order, message.at), (12, at(50)));
        assert_eq!(message.input, Input::Message { source: path(), bytes: bytes.clone(), excess: None });
        assert_eq!((&message.spawned[..], message.txns.len()), (&[task][..], 1));
        assert_eq!(message.sent, [Sent::of(&path(), &bytes)]);
        assert_eq!((&resume.input, &resume.over[..]), (&Input::Resume(task), &[-2][..]));
        assert_eq!(run.input, Input::Run(Job::Command { name: "ps".into(), params: json!([1]) }));
        let answered: Vec<_> =
            read.answers.iter().map(|a| (a.question.as_str(), a.answer.as_deref(), a.took)).collect();
        assert_eq!(answered, [("select 1", Some(&b"rows"[..]), 30), ("GET", None, 0)]);
        let mut cut = Read::default();
        assert!(!cut.segment(1, &out[..out.len() - 2]));
        assert_eq!(cut.events.len(), 4);
    }

    #[test]
    fn a_file_with_a_gap() {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        writer.step(1, Moment::default(), &Step::Timer, &mut out);
        let mut file = preamble(&json!({"files": [{"name": "a.cfg", "text": "x"}]}));
        for number in [0, 2] {
            file.extend(label(0, number, out.len()));
            file.extend_from_slice(&out);
        }
        let recording = Recording::parse(&file).unwrap();
        assert_eq!((recording.events.len(), recording.has_gaps), (2, true));
        assert_eq!(recording.files(), [("a.cfg".to_string(), "x".to_string())]);
        assert!(!recording.is_of_several_scripts());
        assert!(Recording::parse(b"something else").is_err());
        let file = |text: &str| json!({"name": "a.cfg", "text": text});
        let read = |files: [Json; 2]| Recording::parse(&preamble(&json!({"files": files}))).unwrap();
        assert!(!read([file("x"), file("x")]).is_of_several_scripts());
        assert!(read([file("x"), file("y")]).is_of_several_scripts());
    }

    #[test]
    fn marks_differ() {
        let of = |text: &'static [u8]| Sent::of(&path(), text);
        assert_eq!(of(b"INVITE sip:a"), of(b"INVITE sip:a"));
        assert_ne!(of(b"INVITE sip:a"), of(b"INVITE sip:b"));
        assert_ne!(of(b"12345678").mark, of(b"123456780").mark);
    }
}
