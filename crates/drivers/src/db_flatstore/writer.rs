//! The thread that writes: disks may be slow, workers must not be.

use ahash::AHashMap;
use host::db::DbError;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use tokio::sync::oneshot;

/// Writes that may wait for the disk; more are refused.
const QUEUE: usize = 4096;

/// When what was written is pushed to the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    EachTime,
    WhenIdle,
}

enum Job {
    Append { path: PathBuf, text: Vec<u8>, done: oneshot::Sender<Result<(), DbError>> },
    Reopen,
}

#[derive(Clone)]
pub struct Writer(SyncSender<Job>);

fn gone() -> DbError {
    DbError::Down("its thread has ended".to_string())
}

impl Writer {
    pub fn start(flush: Flush) -> Writer {
        let (jobs, queue) = sync_channel(QUEUE);
        let started = std::thread::Builder::new().name("flatstore".to_string()).spawn(move || {
            let mut files = Files { open: AHashMap::new(), flush, failed: false };
            files.run(&queue);
        });
        if let Err(error) = started {
            host::error!("db_flatstore", "no thread: {error}");
        }
        Writer(jobs)
    }

    pub async fn append(&self, path: PathBuf, text: Vec<u8>) -> Result<(), DbError> {
        let (done, result) = oneshot::channel();
        self.0.try_send(Job::Append { path, text, done }).map_err(|error| match error {
            TrySendError::Full(_) => DbError::Busy,
            TrySendError::Disconnected(_) => gone(),
        })?;
        result.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Closes all files; the next write opens new ones.
    pub fn reopen(&self) {
        // A full queue is worked off first.
        let _ = self.0.try_send(Job::Reopen);
    }
}

struct Files {
    open: AHashMap<PathBuf, std::io::BufWriter<File>>,
    flush: Flush,
    /// The last write failed, and that was logged.
    failed: bool,
}

impl Files {
    fn run(&mut self, queue: &Receiver<Job>) {
        loop {
            let job = match queue.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.open.values_mut().for_each(|file| drop(file.flush()));
                    match queue.recv() {
                        Ok(job) => job,
                        Err(_) => return,
                    }
                }
            };
            match job {
                Job::Reopen => self.open.clear(),
                Job::Append { path, text, done } => {
                    let result = self.append(&path, &text);
                    if let Err(error) = &result {
                        self.open.remove(&path);
                        if !std::mem::replace(&mut self.failed, true) {
                            host::error!("db_flatstore", "{}: {error}", path.display());
                        }
                    } else if std::mem::take(&mut self.failed) {
                        host::notice!("db_flatstore", "{} can be written again", path.display());
                    }
                    let _ = done.send(result.map_err(|error| DbError::Down(error.to_string())));
                }
            }
        }
    }

    fn append(&mut self, path: &PathBuf, text: &[u8]) -> std::io::Result<()> {
        if !self.open.contains_key(path) {
            let file = File::options().append(true).create(true).open(path)?;
            self.open.insert(path.clone(), std::io::BufWriter::new(file));
        }
        let file = self.open.get_mut(path).ok_or_else(|| std::io::Error::other("it is not open"))?;
        file.write_all(text)?;
        match self.flush {
            Flush::EachTime => file.flush(),
            Flush::WhenIdle => Ok(()),
        }
    }
}
