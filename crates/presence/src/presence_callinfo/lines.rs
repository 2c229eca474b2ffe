//! Lines that several phones share, and what their appearances do.
//!
//! ```text
//!  none, idle ──► seized ──► progressing (the caller's), alerting (the callee's) ──► active ◄──► held
//!       ▲                                       │                                      │
//!       └───────────────────────────────────────┴──────────────────────────────────────┘
//! ```

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Lines that are known at a time; further ones are refused and logged.
pub const MAX_LINES: usize = 100_000;
/// Appearances of one line.
pub const MAX_APPEARANCES: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineState {
    Idle,
    Seized,
    Progressing,
    Alerting,
    Active,
    Held,
}

impl LineState {
    pub fn as_str(self) -> &'static str {
        match self {
            LineState::Idle => "idle",
            LineState::Seized => "seized",
            LineState::Progressing => "progressing",
            LineState::Alerting => "alerting",
            LineState::Active => "active",
            LineState::Held => "held",
        }
    }

    /// A call moves an appearance on, never back.
    fn may_become(self, next: LineState) -> bool {
        use LineState::*;
        match self {
            Idle => true,
            Seized => matches!(next, Idle | Progressing | Active),
            Progressing | Alerting => matches!(next, Idle | Active),
            Active => matches!(next, Idle | Held),
            Held => matches!(next, Idle | Active),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The appearance that somebody has taken to call from; 0: none.
    pub seized: u32,
    /// Unix seconds until when.
    pub seized_until: u64,
    pub appearances: BTreeMap<u32, LineState>,
}

impl Line {
    pub fn is_seized(&self, now: u64) -> bool {
        self.seized != 0 && now < self.seized_until
    }
}

/// The header of a line, with the end of its line.
pub fn header(uri: &[u8], line: Option<&Line>) -> Bytes {
    let mut text = format!("Call-Info: <{}>", String::from_utf8_lossy(uri));
    let busy =
        line.into_iter().flat_map(|line| &line.appearances).filter(|(_, state)| **state != LineState::Idle);
    for (index, state) in busy {
        text += &format!(";appearance-index={index};appearance-state={}", state.as_str());
    }
    text += ";appearance-index=*;appearance-state=idle\r\n";
    text.into()
}

/// What an attempt to take a line came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Watchers are to hear of it.
    Done,
    /// It is somebody else's.
    Busy,
    /// There is no such line.
    Unknown,
}

#[derive(Default)]
pub struct Lines(Mutex<AHashMap<Bytes, Line>>);

impl Lines {
    /// A phone takes an appearance to call from it.
    pub fn seize(&self, uri: &Bytes, index: u32, now: u64, seconds: u32) -> Taken {
        let mut lines = self.0.lock();
        if !lines.contains_key(uri) && lines.len() >= MAX_LINES {
            host::error!("presence_callinfo", "a line was refused: there are {MAX_LINES}");
            return Taken::Unknown;
        }
        let line = lines.entry(uri.clone()).or_default();
        if line.is_seized(now) {
            return Taken::Busy;
        }
        if line.appearances.len() >= MAX_APPEARANCES && !line.appearances.contains_key(&index) {
            return Taken::Busy;
        }
        (line.seized, line.seized_until) = (index, now + u64::from(seconds));
        line.appearances.insert(index, LineState::Seized);
        Taken::Done
    }

    /// It keeps what it has taken.
    pub fn extend(&self, uri: &Bytes, now: u64, seconds: u32) -> Taken {
        match self.0.lock().get_mut(uri) {
            Some(line) => {
                line.seized_until = now + u64::from(seconds);
                Taken::Done
            }
            None => Taken::Unknown,
        }
    }

    /// It gives it back.
    pub fn give_back(&self, uri: &Bytes, index: u32) -> Taken {
        match self.0.lock().get_mut(uri) {
            Some(line) => {
                (line.seized, line.seized_until) = (0, 0);
                line.appearances.insert(index, LineState::Idle);
                Taken::Done
            }
            None => Taken::Unknown,
        }
    }

    /// A call begins on it: what was taken has served its purpose. `wanted`: it must have been this appearance. False: it
    /// was not, or there is no such line.
    pub fn used(&self, uri: &Bytes, wanted: Option<u32>) -> bool {
        let mut lines = self.0.lock();
        let Some(line) = lines.get_mut(uri) else { return false };
        if wanted.is_some_and(|wanted| line.seized != wanted) {
            return false;
        }
        (line.seized, line.seized_until) = (0, 0);
        true
    }

    /// A call on an appearance goes on. False: there is nothing to tell.
    pub fn moved(&self, uri: &Bytes, index: u32, next: LineState) -> bool {
        let mut lines = self.0.lock();
        let Some(line) = lines.get_mut(uri) else { return false };
        let state = line.appearances.entry(index).or_insert(LineState::Idle);
        if *state == next || !state.may_become(next) {
            return false;
        }
        *state = next;
        true
    }

    pub fn get(&self, uri: &[u8]) -> Option<Line> {
        self.0.lock().get(uri).cloned()
    }

    /// All, or the one with this name.
    pub fn list(&self, only: Option<&[u8]>) -> Vec<(Bytes, Line)> {
        let lines = self.0.lock();
        let wanted = |uri: &Bytes| only.is_none_or(|only| &uri[..] == only);
        lines.iter().filter(|(uri, _)| wanted(uri)).map(|(uri, line)| (uri.clone(), line.clone())).collect()
    }

    /// Makes one appearance of a line idle, or all of it. False: there is no such line or appearance.
    pub fn release(&self, uri: &[u8], index: Option<u32>) -> bool {
        let mut lines = self.0.lock();
        let Some(line) = lines.get_mut(uri) else { return false };
        if index.is_none_or(|index| index == line.seized) {
            (line.seized, line.seized_until) = (0, 0);
        }
        match index {
            Some(index) => match line.appearances.get_mut(&index) {
                Some(state) => *state = LineState::Idle,
                None => return false,
            },
            None => line.appearances.values_mut().for_each(|state| *state = LineState::Idle),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_once() {
        let (lines, uri) = (Lines::default(), Bytes::from_static(b"sip:line@x"));
        assert_eq!(lines.seize(&uri, 1, 100, 15), Taken::Done);
        assert_eq!(lines.seize(&uri, 2, 101, 15), Taken::Busy);
        assert_eq!(lines.seize(&uri, 2, 115, 15), Taken::Done);
        assert!(!lines.used(&uri, Some(1)) && lines.used(&uri, Some(2)));
        assert_eq!(lines.give_back(&Bytes::from_static(b"sip:other@x"), 1), Taken::Unknown);
    }

    #[test]
    fn calls_move_on() {
        let (lines, uri) = (Lines::default(), Bytes::from_static(b"sip:line@x"));
        lines.seize(&uri, 1, 0, 15);
        for (next, told) in [
            (LineState::Held, false),
            (LineState::Progressing, true),
            (LineState::Progressing, false),
            (LineState::Active, true),
            (LineState::Held, true),
            (LineState::Idle, true),
        ] {
            assert_eq!(lines.moved(&uri, 1, next), told, "{next:?}");
        }
        lines.moved(&uri, 3, LineState::Active);
        assert_eq!(
            &header(&uri, lines.get(&uri).as_ref())[..],
            b"Call-Info: <sip:line@x>;appearance-index=3;appearance-state=active;appearance-index=*;\
              appearance-state=idle\r\n"
        );
        assert!(lines.release(&uri, Some(3)) && !lines.release(&uri, Some(9)) && !lines.release(b"x", None));
    }
}
