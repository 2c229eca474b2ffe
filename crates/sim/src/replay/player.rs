//! The tape of a replay: knows what was answered.

use capture::recorder::format::{Answer, Recording, Sent};
use host::TaskId;
use host::tape::{Asked, Moment, Note, Step, Tape};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// How faithfully a question is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faith {
    /// The same question of the same call, in the order of asking.
    Exact,
    /// Also an answer that was given before, or to another call: the script is another one.
    Near,
}

type Key = (String, String);

/// Answers of a recording: those of each call, in the order of asking.
#[derive(Default)]
pub struct Book {
    /// By worker and call.
    exact: HashMap<(u16, Vec<u8>, Key), VecDeque<Answer>>,
    /// Given last to a question, whoever asked.
    near: HashMap<Key, Answer>,
}

impl Book {
    pub fn new(recording: &Recording) -> Book {
        let mut book = Book::default();
        for answer in &recording.answers {
            let key = (answer.kind.clone(), answer.question.clone());
            let list = book.exact.entry((answer.worker, answer.scope.to_vec(), key.clone())).or_default();
            list.push_back(answer.clone());
            book.near.entry(key).or_insert_with(|| answer.clone());
        }
        book
    }

    fn find(&mut self, worker: u16, scope: &[u8], key: Key, faith: Faith) -> Option<Answer> {
        let exact = (worker, scope.to_vec(), key);
        if let Some(answer) = self.exact.get_mut(&exact).and_then(VecDeque::pop_front) {
            return Some(answer);
        }
        (faith == Faith::Near).then(|| self.near.get(&exact.2).cloned()).flatten()
    }
}

/// What a step of a replay led to.
#[derive(Default)]
pub struct Came {
    pub spawned: Vec<TaskId>,
    pub sent: Vec<Sent>,
}

pub struct Player {
    book: Rc<RefCell<Book>>,
    worker: u16,
    pub faith: Faith,
    came: RefCell<Came>,
    jobs: Cell<u64>,
    /// Milliseconds that the answers took that were given since the last look.
    pub took: Cell<u64>,
    /// Questions without an answer since the last look.
    pub unknown: RefCell<Vec<String>>,
}

/// As the recorder cuts them.
const MAX_QUESTION: usize = 4096;

impl Player {
    pub fn new(book: Rc<RefCell<Book>>, worker: u16, faith: Faith) -> Player {
        Player {
            book,
            worker,
            faith,
            came: RefCell::default(),
            jobs: Cell::new(0),
            took: Cell::new(0),
            unknown: RefCell::default(),
        }
    }

    /// What came since the last look.
    pub fn take(&self) -> Came {
        self.came.take()
    }
}

impl Tape for Player {
    fn on(&self) -> bool {
        true
    }

    fn step(&self, _: Moment, _: Step<'_>) {}

    fn note(&self, note: Note<'_>) {
        match note {
            Note::Spawned(task) => self.came.borrow_mut().spawned.push(task),
            Note::Sent { path, bytes } => self.came.borrow_mut().sent.push(Sent::of(path, bytes)),
            _ => {}
        }
    }

    fn ask(&self, scope: &[u8], kind: &'static str, question: &str) -> Asked {
        let question = &question[..question.floor_char_boundary(MAX_QUESTION)];
        let key = (kind.to_string(), question.to_string());
        match self.book.borrow_mut().find(self.worker, scope, key, self.faith) {
            Some(Answer { answer: Some(bytes), took, .. }) => {
                self.took.set(self.took.get() + took);
                Asked::Known(bytes)
            }
            Some(_) => Asked::Never,
            None => {
                // What is answered at once asks again, and waits then.
                if !kind.ends_with("-now") && !kind.ends_with("-known") {
                    self.unknown.borrow_mut().push(format!("{kind}: {question}"));
                }
                match self.faith {
                    Faith::Exact => Asked::Never,
                    Faith::Near => Asked::Unknown,
                }
            }
        }
    }

    fn answered(&self, _: u64, _: &[u8]) {}

    fn unanswered(&self, _: u64) {}

    fn next_job(&self) -> u64 {
        self.jobs.replace(self.jobs.get() + 1)
    }
}
