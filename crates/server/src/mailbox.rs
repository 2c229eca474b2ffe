//! How threads reach a worker: what another worker received for it, and jobs of the management side.
//! One lock and at most one wake for a batch.

use crate::runner::Delay;
use bytes::Bytes;
use host::Ctx;
use host::shared::Dispatch;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use transaction::Path;

/// Messages that may wait for one worker; more are dropped, as a full socket buffer would.
pub const MESSAGE_LIMIT: usize = 16_384;
/// From so many on, connections are not read from: their peers wait, and datagrams keep their place.
pub const CROWDED: usize = 128;
/// Jobs that may wait for one worker.
pub const JOB_LIMIT: usize = 4096;

pub type Job = Box<dyn FnOnce(&mut Ctx) + Send>;

/// A message for the worker that owns its call.
pub struct Letter {
    pub source: Path,
    pub bytes: Bytes,
    /// When it came to this machine, microseconds since 1970; 0: not known, or it is not from the network.
    pub at_us: u64,
}

/// What a mailbox holds when it is emptied.
#[derive(Default)]
pub struct Mail {
    pub letters: Vec<Letter>,
    /// Messages for connections of this worker.
    pub outgoing: Vec<Letter>,
    /// Messages of calls of this worker that could not be sent.
    pub undelivered: Vec<Letter>,
    /// Connections to end.
    pub closing: Vec<u64>,
    pub jobs: Vec<Job>,
    /// New requests are refused from now on.
    pub drain: bool,
    /// What is open ends now, with an answer.
    pub end: bool,
    pub stop: bool,
}

#[derive(Default)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    /// Messages in `mail.letters` and those taken out that were not looked at yet.
    letters: AtomicUsize,
    wake: Notify,
    /// How long messages of this worker waited for their turn.
    pub delay: Delay,
}

impl Mailbox {
    /// Puts a batch in and empties `letters`; how many found no room.
    pub fn deliver(&self, letters: &mut Vec<Letter>) -> usize {
        if letters.is_empty() {
            return 0;
        }
        let mut mail = self.mail.lock();
        let room = MESSAGE_LIMIT.saturating_sub(self.letters.load(Ordering::Relaxed));
        let lost = letters.len().saturating_sub(room);
        letters.truncate(room);
        self.letters.fetch_add(letters.len(), Ordering::Relaxed);
        mail.letters.append(letters);
        drop(mail);
        self.wake.notify_one();
        lost
    }

    /// So many of the messages that `take` gave were looked at.
    pub fn seen(&self, letters: usize) {
        self.letters.fetch_sub(letters, Ordering::Relaxed);
    }

    /// Messages wait that will take a while.
    pub fn is_crowded(&self) -> bool {
        self.letters.load(Ordering::Relaxed) >= CROWDED
    }

    /// A message for a connection of this worker; given back when there is no room.
    pub fn pass_on(&self, letter: Letter) -> Result<(), Letter> {
        self.put(letter, |mail| &mut mail.outgoing)
    }

    /// A message of a call of this worker could not be sent.
    pub fn undelivered(&self, letter: Letter) -> Result<(), Letter> {
        self.put(letter, |mail| &mut mail.undelivered)
    }

    fn put(&self, letter: Letter, list: fn(&mut Mail) -> &mut Vec<Letter>) -> Result<(), Letter> {
        let mut mail = self.mail.lock();
        let list = list(&mut mail);
        if list.len() >= MESSAGE_LIMIT {
            return Err(letter);
        }
        list.push(letter);
        drop(mail);
        self.wake.notify_one();
        Ok(())
    }

    pub fn close(&self, connection: u64) {
        self.mail.lock().closing.push(connection);
        self.wake.notify_one();
    }

    /// False when too many jobs wait: the worker is stuck.
    pub fn submit(&self, job: Job) -> bool {
        let mut mail = self.mail.lock();
        if mail.stop || mail.jobs.len() >= JOB_LIMIT {
            return false;
        }
        mail.jobs.push(job);
        drop(mail);
        self.wake.notify_one();
        true
    }

    pub fn drain(&self) {
        self.mail.lock().drain = true;
        self.wake.notify_one();
    }

    /// What is open ends now, with an answer.
    pub fn end(&self) {
        self.mail.lock().end = true;
        self.wake.notify_one();
    }

    pub fn stop(&self) {
        self.mail.lock().stop = true;
        self.wake.notify_one();
    }

    /// Waits until there is something, and takes all of it.
    pub async fn take(&self) -> Mail {
        self.wake.notified().await;
        std::mem::take(&mut *self.mail.lock())
    }
}

/// The mailboxes of all workers, and the way to the main thread.
pub struct Post {
    pub boxes: Vec<Mailbox>,
    pub main: MainBox,
    /// startup_route has ended: SIP messages may be taken.
    pub started: tokio::sync::watch::Sender<bool>,
}

/// What workers tell the main thread.
#[derive(Default)]
pub struct MainBox {
    state: Mutex<Told>,
    wake: Notify,
}

/// What the main thread was told so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Told {
    /// The server shall end, with this exit code.
    pub shut_down: Option<i32>,
    /// Workers that have nothing open any more (they were told to drain).
    pub idle: usize,
    /// Workers whose thread has ended.
    pub ended: usize,
}

impl MainBox {
    pub fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.state.lock());
        self.wake.notify_one();
    }

    /// Waits until `reached`; for one waiter at a time.
    pub async fn wait(&self, reached: impl Fn(&Told) -> bool) -> Told {
        loop {
            let told = *self.state.lock();
            if reached(&told) {
                return told;
            }
            self.wake.notified().await;
        }
    }

    /// As `wait`, but no longer than `limit`.
    pub async fn wait_at_most(&self, limit: Duration, reached: impl Fn(&Told) -> bool) -> Option<Told> {
        tokio::time::timeout(limit, self.wait(reached)).await.ok()
    }
}

impl Post {
    pub fn new(workers: usize) -> Post {
        Post {
            boxes: (0..workers).map(|_| Mailbox::default()).collect(),
            main: MainBox::default(),
            started: Default::default(),
        }
    }
}

impl Dispatch for Post {
    fn workers(&self) -> usize {
        self.boxes.len()
    }

    fn run_on(&self, worker: usize, job: Job) -> bool {
        self.boxes.get(worker).is_some_and(|mailbox| mailbox.submit(job))
    }

    fn shut_down(&self) {
        self.main.tell(|told| told.shut_down = told.shut_down.or(Some(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(count: usize) -> Vec<Letter> {
        let remote = ([127, 0, 0, 1], 5060).into();
        let source = Path { socket: 0, transport: sip::Transport::Udp, remote, local: 0, connection: 0 };
        (0..count).map(|_| Letter { source, bytes: Bytes::new(), at_us: 0 }).collect()
    }

    #[tokio::test]
    async fn batches_arrive_whole_and_in_bounds() {
        let mailbox = Mailbox::default();
        let mut batch = letters(3);
        mailbox.deliver(&mut batch);
        mailbox.deliver(&mut letters(2));
        assert!(batch.is_empty());
        assert_eq!(mailbox.take().await.letters.len(), 5);
        // What was taken and not looked at yet counts too.
        assert_eq!(mailbox.deliver(&mut letters(MESSAGE_LIMIT)), 5);
        assert!(mailbox.is_crowded());
        mailbox.take().await;
        mailbox.seen(MESSAGE_LIMIT);
        assert!(!mailbox.is_crowded());
        assert_eq!(mailbox.deliver(&mut letters(MESSAGE_LIMIT + 10)), 10);
        assert_eq!(mailbox.take().await.letters.len(), MESSAGE_LIMIT);
    }

    #[tokio::test]
    async fn nothing_is_accepted_after_the_end() {
        let mailbox = Mailbox::default();
        assert!(mailbox.submit(Box::new(|_| {})));
        mailbox.stop();
        assert!(!mailbox.submit(Box::new(|_| {})));
        let mail = mailbox.take().await;
        assert_eq!((mail.jobs.len(), mail.stop), (1, true));
    }
}
