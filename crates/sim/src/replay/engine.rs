//! The workers of a recording, step by step.

use super::ops::Ops;
use super::player::{Book, Came, Faith, Player};
use super::{Replayed, Script};
use capture::recorder::format::{Event, Input, Job, Recording, Sent};
use capture::teller::{Teller, Wanted};
use host::call::Finish;
use host::mi::{MiAnswer, MiParams};
use host::observe::Observer;
use host::shared::Dispatch;
use host::tape::{PANICKED, Tape};
use host::taped::TapeMaker;
use host::worker::Clock;
use host::{Ctx, Output, Shared, TaskId, Worker};
use serde_json::Value as Json;
use sip::Message;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use transaction::Instant;

/// Differences that are told.
const MAX_DIFFERENCES: usize = 20;
/// A changed script is followed so long after the last message of a call, in milliseconds.
const AFTERMATH: u64 = 300_000;

type Parcel = (Option<(u16, u64)>, Box<dyn FnOnce(&mut Ctx) + Send>);

/// The mailboxes between the workers of a replay.
#[derive(Default)]
struct Mail(Mutex<Vec<VecDeque<Parcel>>>);

impl Mail {
    /// The job that a worker took then: that of the sender and number, else the oldest without any.
    fn take(&self, worker: u16, wanted: Option<(u16, u64)>) -> Option<Box<dyn FnOnce(&mut Ctx) + Send>> {
        let mut boxes = self.0.lock().ok()?;
        let mailbox = boxes.get_mut(usize::from(worker))?;
        let at = mailbox.iter().position(|(label, _)| *label == wanted)?;
        mailbox.remove(at).map(|(_, job)| job)
    }
}

impl Dispatch for Mail {
    fn workers(&self) -> usize {
        self.0.lock().map_or(0, |boxes| boxes.len())
    }

    fn run_on(&self, worker: usize, job: Box<dyn FnOnce(&mut Ctx) + Send>) -> bool {
        let Ok(mut boxes) = self.0.lock() else { return false };
        let Some(mailbox) = boxes.get_mut(worker) else { return false };
        mailbox.push_back((host::tape::label(), job));
        true
    }

    fn shut_down(&self) {}
}

/// One worker, and what belongs to it.
struct Place {
    worker: Option<Worker>,
    player: Rc<Player>,
    ops: Ops,
    /// Operations of the recording, as they are called here.
    tasks: HashMap<TaskId, TaskId>,
    /// What was sent when it was recorded and was not sent here yet, and the other way round.
    then: VecDeque<Sent>,
    now: VecDeque<Sent>,
}

pub struct Engine<'a> {
    recording: &'a Recording,
    shared: Arc<Shared>,
    mail: Arc<Mail>,
    places: Vec<Place>,
    teller: Rc<Teller>,
    wanted: Wanted,
    other: bool,
    clock: Clock,
    sent: usize,
    same: usize,
    differences: Vec<String>,
    /// Operations of a changed script that are ready, and when they are done.
    due: Vec<(u64, u16, TaskId)>,
}

impl<'a> Engine<'a> {
    pub fn new(recording: &'a Recording, mut shared: Shared, wanted: Wanted, script: &Script) -> Engine<'a> {
        let makers = shared.hooks.list::<TapeMaker>();
        makers.clear();
        makers.push(TapeMaker(Arc::new(|_, worker| {
            PLAYERS.with_borrow(|players| players[usize::from(worker)].clone() as Rc<dyn Tape>)
        })));
        let other = matches!(script, Script::Other(_));
        let made = recording.events.iter().filter_map(|event| match event.input {
            Input::Made { workers, .. } => Some(workers),
            _ => None,
        });
        let told = recording.head["workers"].as_u64().unwrap_or(1).clamp(1, 1024) as u16;
        let count = usize::from(made.max().unwrap_or(told));
        let book = Rc::new(RefCell::new(Book::new(recording)));
        let faith = if other { Faith::Near } else { Faith::Exact };
        let places: Vec<Place> = (0..count)
            .map(|worker| Place {
                worker: None,
                player: Rc::new(Player::new(book.clone(), worker as u16, faith)),
                ops: Ops::default(),
                tasks: HashMap::new(),
                then: VecDeque::new(),
                now: VecDeque::new(),
            })
            .collect();
        PLAYERS.set(places.iter().map(|place| place.player.clone()).collect());
        let mail = Arc::new(Mail(Mutex::new((0..count).map(|_| VecDeque::new()).collect())));
        let _ = shared.dispatch.set(mail.clone());
        let teller = Rc::new(Teller::new(wanted.clone()));
        TELLER.set(Some(teller.clone()));
        Engine {
            recording,
            shared: Arc::new(shared),
            mail,
            places,
            teller,
            wanted,
            other,
            clock: Clock::default(),
            sent: 0,
            same: 0,
            differences: Vec::new(),
            due: Vec::new(),
        }
    }

    pub fn run(mut self) -> Result<Replayed, String> {
        if self.other {
            self.imagine()
        } else {
            self.repeat()
        }
        TELLER.set(None);
        self.places.iter_mut().for_each(|place| place.worker = None);
        PLAYERS.take();
        Ok(Replayed {
            record: self.teller.take(),
            sources: self.shared.sources(),
            sent: self.sent,
            same: self.same,
            differences: self.differences,
            calls: calls(self.recording),
        })
    }

    /// Every step as it was.
    fn repeat(&mut self) {
        let mut reloads = VecDeque::from(self.recording.reloads());
        for event in &self.recording.events {
            while let Some(reload) = reloads.pop_front_if(|reload| reload.order < event.order) {
                if !super::load::reload(self.recording, &reload, &self.shared) {
                    self.differences.push("routes that were reloaded cannot be read again".to_string());
                }
            }
            self.clock = Clock { now: Instant(event.at.now), wall_us: event.at.wall_us };
            let at = usize::from(event.worker);
            if at >= self.places.len() {
                continue;
            }
            if let Some(worker) = &mut self.places[at].worker {
                worker.prepare(event.at.rng, event.txns.iter().copied());
            }
            self.input(event);
            self.settle(event);
        }
        for place in &self.places {
            let (then, now) = (place.then.len(), place.now.len());
            if then > 0 && self.differences.len() < MAX_DIFFERENCES {
                self.differences.push(format!("{then} messages were sent then that are not sent now"));
            }
            if now > 0 && self.differences.len() < MAX_DIFFERENCES {
                self.differences.push(format!("{now} messages are sent now that were not sent then"));
            }
        }
    }

    fn input(&mut self, event: &Event) {
        let input = match &event.input {
            Input::Made { worker, workers, seed } => return self.make(*worker, *workers, *seed),
            Input::Message { source, bytes, excess } => {
                let (source, bytes) = (*source, bytes.clone());
                match *excess {
                    None => host::Input::Message { source, bytes },
                    Some(lateness) => host::Input::Excess { source, bytes, lateness },
                }
            }
            Input::Undeliverable { path, bytes } => {
                host::Input::Undeliverable { path: *path, bytes: bytes.clone() }
            }
            Input::Resume(task) => match self.finish_of(event, *task) {
                Some((task, finish)) => host::Input::Resume(task, finish),
                None => return,
            },
            Input::Timer => host::Input::Timer,
            Input::Run(job) => match self.job(event, job) {
                Some(job) => host::Input::Run(job),
                None => return,
            },
            Input::Drain => host::Input::Drain,
            Input::End => host::Input::End,
        };
        self.step(event.worker, input);
    }

    fn step(&mut self, worker: u16, input: host::Input) {
        if let Some(worker) = &mut self.places[usize::from(worker)].worker {
            worker.step(self.clock, input);
            self.teller.away();
        }
    }

    fn make(&mut self, number: u16, workers: u16, seed: u64) {
        let at = usize::from(number);
        let ops = Rc::new(self.places[at].ops.clone());
        let mut worker = Worker::new(self.shared.clone(), number, workers, seed, ops, self.clock);
        worker.ctx().observe(self.teller.clone() as Rc<dyn Observer>);
        self.places[at].worker = Some(worker);
    }

    /// What an operation leaves to do, as it was: what it waited for is answered, or its return code is known.
    fn finish_of(&mut self, event: &Event, task: TaskId) -> Option<(TaskId, Finish)> {
        let place = &mut self.places[usize::from(event.worker)];
        let Some(ours) = place.tasks.remove(&task) else {
            // Begun before the recording, or by a script that went another way.
            return None;
        };
        place.ops.poll();
        let finish = place.ops.take(ours).or_else(|| {
            let rc = *event.over.first()?;
            Some(Box::new(move |_: &mut Ctx| match rc {
                PANICKED => std::panic::resume_unwind(Box::new("it panicked when it was recorded")),
                rc => rc,
            }) as Finish)
        });
        finish.map(|finish| (ours, finish))
    }

    fn job(&mut self, event: &Event, job: &Job) -> Option<Box<dyn FnOnce(&mut Ctx) + Send>> {
        match job {
            Job::Of { from, number } => self.mail.take(event.worker, Some((*from, *number))),
            Job::Command { name, params } => {
                let (name, params) = (name.clone(), params.clone());
                Some(Box::new(move |ctx| command(ctx, &name, params)))
            }
            Job::Unknown => self.mail.take(event.worker, None),
        }
    }

    /// After a step: what it began, and whether it sent what was sent.
    fn settle(&mut self, event: &Event) {
        let at = usize::from(event.worker);
        let outputs = self.outputs(at);
        let place = &mut self.places[at];
        let Came { spawned, sent } = place.player.take();
        place.tasks.extend(event.spawned.iter().copied().zip(spawned));
        place.ops.poll();
        self.sent += outputs;
        place.now.extend(sent);
        place.then.extend(event.sent.iter().copied());
        while let (Some(then), Some(now)) = (place.then.front(), place.now.front()) {
            if then == now {
                self.same += 1;
            } else if self.differences.len() < MAX_DIFFERENCES {
                let ms = event.at.now;
                self.differences.push(format!("at {ms} ms another message is sent than then"));
            }
            place.then.pop_front();
            place.now.pop_front();
        }
    }

    /// Messages that a worker wants sent: how many.
    fn outputs(&mut self, at: usize) -> usize {
        let mut outputs = Vec::new();
        if let Some(worker) = &mut self.places[at].worker {
            worker.take_outputs(&mut outputs);
        }
        outputs.iter().filter(|output| matches!(output, Output::Transmit { .. })).count()
    }
}

/// Another script.
impl Engine<'_> {
    /// The messages of the wanted call come as they came; everything else follows from the script.
    fn imagine(&mut self) {
        let call = match &self.wanted {
            Wanted::Call(id) => Some(id.clone()),
            _ => None,
        };
        let events: Vec<&Event> =
            self.recording.events.iter().filter(|event| of_call(event, call.as_deref())).collect();
        let mut last = None;
        for event in events {
            let at = usize::from(event.worker);
            if at >= self.places.len() {
                continue;
            }
            if !matches!(event.input, Input::Made { .. }) {
                self.until(event.at.now);
            }
            self.clock = Clock { now: Instant(event.at.now), wall_us: event.at.wall_us };
            if let Some(worker) = &mut self.places[at].worker {
                worker.prepare(event.at.rng, event.txns.iter().copied());
            }
            self.input(event);
            self.look(event.worker);
            last = Some(event.at.now);
        }
        if let Some(last) = last {
            self.until(last + AFTERMATH);
        }
    }

    /// Lets time pass: timers, and operations whose answers took so long.
    fn until(&mut self, end: u64) {
        loop {
            let timers = self.places.iter().enumerate().filter_map(|(at, place)| {
                let next = place.worker.as_ref()?.next_deadline()?;
                Some((next.0, at as u16, None))
            });
            let done = self.due.iter().map(|(when, worker, task)| (*when, *worker, Some(*task)));
            let Some((when, worker, task)) = done.chain(timers).min_by_key(|(when, ..)| *when) else {
                return;
            };
            if when > end || (task.is_none() && self.at_rest(when, end)) {
                return;
            }
            let passed = when.saturating_sub(self.clock.now.0);
            self.clock.now = Instant(when.max(self.clock.now.0));
            self.clock.wall_us += passed * 1000;
            match task {
                None => self.step(worker, host::Input::Timer),
                Some(task) => {
                    self.due.retain(|(_, w, t)| (*w, *t) != (worker, task));
                    if let Some(finish) = self.places[usize::from(worker)].ops.take(task) {
                        self.step(worker, host::Input::Resume(task, finish));
                    }
                }
            }
            (0..self.places.len()).for_each(|at| self.look(at as u16));
        }
    }

    /// Only timers of modules are left: nothing of a call happens any more.
    fn at_rest(&mut self, _: u64, end: u64) -> bool {
        let after_all = self.recording.events.last().is_none_or(|event| end > event.at.now + AFTERMATH / 2);
        after_all
            && self.due.is_empty()
            && self.places.iter_mut().all(|p| p.worker.as_ref().is_none_or(Worker::idle))
    }

    /// After a step: jobs are carried, operations begun, questions without an answer told.
    fn look(&mut self, worker: u16) {
        let at = usize::from(worker);
        self.sent += self.outputs(at);
        self.places[at].player.take();
        loop {
            let place = &self.places[at];
            place.player.took.set(0);
            let ready = place.ops.poll();
            let when = self.clock.now.0 + place.player.took.get();
            self.due.extend(ready.into_iter().map(|task| (when, worker, task)));
            for question in place.player.unknown.take() {
                self.teller.say(self.clock.now.0, format!("not in the recording: {question}"));
            }
            let Some(job) = self.mail.take(worker, None) else { break };
            self.step(worker, host::Input::Run(job));
            self.sent += self.outputs(at);
        }
    }
}

thread_local! {
    static PLAYERS: RefCell<Vec<Rc<Player>>> = const { RefCell::new(Vec::new()) };
    static TELLER: RefCell<Option<Rc<Teller>>> = const { RefCell::new(None) };
}

/// A log line of this thread; false: no replay runs here.
pub(crate) fn log(text: &str) -> bool {
    let teller = TELLER.with_borrow(Clone::clone);
    teller.inspect(|teller| teller.log_here(text)).is_some()
}

fn command(ctx: &mut Ctx, name: &str, params: Json) {
    let Ok(params) = MiParams::from_json(Some(params)) else { return };
    let Some(command) = ctx.shared().command(name).cloned() else { return };
    // What writes a recording would write over the one that is played.
    if command.module == "recorder" {
        return;
    }
    match &command.late {
        Some(late) => late(ctx, &params, MiAnswer::channel().0),
        None => drop((command.run)(ctx, &params)),
    }
}

/// Inputs that a changed script gets: messages of the call, and that the workers were made.
fn of_call(event: &Event, call: Option<&[u8]>) -> bool {
    match &event.input {
        Input::Made { .. } => true,
        Input::Message { bytes, .. } | Input::Undeliverable { bytes, .. } => {
            call.is_none_or(|id| Message::owner(bytes) == Some(id))
        }
        _ => false,
    }
}

fn calls(recording: &Recording) -> Vec<String> {
    let mut known = HashSet::new();
    let requests = recording.events.iter().filter_map(|event| match &event.input {
        Input::Message { bytes, .. } if !Message::looks_like_reply(bytes) => Message::owner(bytes),
        _ => None,
    });
    let ids = requests.map(|id| String::from_utf8_lossy(id).into_owned());
    ids.filter(|id| known.insert(id.clone())).collect()
}
