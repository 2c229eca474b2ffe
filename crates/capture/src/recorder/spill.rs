//! Segments in files: `head`, and one file for each segment, written by a thread of their own. The oldest go when there
//! are too many; the first of each worker stays.
#![allow(clippy::disallowed_methods, reason = "files of a recording are written outside the workers")]

use super::format::{self, label};
use super::ring::Spill;
use serde_json::Value as Json;
use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};

/// Segments that wait to be written; more are lost, and said.
const MAX_WAITING: usize = 64;

enum Order {
    Write(u16, u64, Arc<Vec<u8>>),
    /// All before it is written.
    Flush(Sender<()>),
}

/// A folder of segments.
pub struct Folder {
    path: PathBuf,
    orders: SyncSender<Order>,
}

/// A file that only its owner reads: it holds what callers said.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

impl Folder {
    /// Begins a new recording there; files of an older one are removed.
    pub fn open(path: &Path, head: &Json, limit: u64) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        for file in segments(path)? {
            fs::remove_file(file)?;
        }
        write_private(&path.join("head"), &format::preamble(head))?;
        let (orders, waiting) = sync_channel(MAX_WAITING);
        let folder = path.to_path_buf();
        std::thread::Builder::new()
            .name("recorder".to_string())
            .spawn(move || run(&folder, &waiting, limit))?;
        Ok(Folder { path: path.to_path_buf(), orders })
    }

    /// Where a worker's full segments go.
    pub fn spill(&self, worker: u16) -> Spill {
        let orders = self.orders.clone();
        Box::new(move |number, bytes| {
            if let Err(TrySendError::Full(_)) = orders.try_send(Order::Write(worker, number, bytes)) {
                host::warn!("recorder", "the disk is too slow: a part of the recording is lost");
            }
        })
    }

    /// Writes one segment, also an unfinished one.
    pub fn write(&self, worker: u16, number: u64, bytes: Arc<Vec<u8>>) {
        let _ = self.orders.send(Order::Write(worker, number, bytes));
    }

    /// Waits until everything before is written.
    pub fn flush(&self) {
        let (done, wait) = channel();
        if self.orders.send(Order::Flush(done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Puts everything into one file; its bytes.
    pub fn gather(&self, into: &Path) -> io::Result<u64> {
        self.flush();
        let mut out = fs::read(self.path.join("head"))?;
        for file in segments(&self.path)? {
            out.extend(fs::read(file)?);
        }
        write_private(into, &out)?;
        Ok(out.len() as u64)
    }
}

/// The files of segments, in order.
fn segments(path: &Path) -> io::Result<Vec<PathBuf>> {
    let files = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "segment")).collect();
    files.sort();
    Ok(files)
}

/// A folder as one recording, for `fermata replay`.
pub fn read_folder(path: &Path) -> io::Result<Vec<u8>> {
    let mut out = fs::read(path.join("head"))?;
    for file in segments(path)? {
        out.extend(fs::read(file)?);
    }
    Ok(out)
}

fn run(path: &Path, orders: &Receiver<Order>, limit: u64) {
    let mut kept: VecDeque<(PathBuf, u64)> = VecDeque::new();
    let mut bytes = 0;
    while let Ok(order) = orders.recv() {
        let (worker, number, segment) = match order {
            Order::Write(worker, number, segment) => (worker, number, segment),
            Order::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let file = path.join(format!("{worker:05}-{number:012}.segment"));
        let mut whole = label(worker, number, segment.len());
        whole.extend_from_slice(&segment);
        if let Err(e) = write_private(&file, &whole) {
            host::error!("recorder", "cannot write {}: {e}", file.display());
            continue;
        }
        // Written again, a segment that was unfinished counts once.
        if let Some(at) = kept.iter().position(|(known, _)| *known == file) {
            bytes -= kept.remove(at).map_or(0, |(_, length)| length);
        }
        if number > 0 {
            bytes += whole.len() as u64;
            kept.push_back((file, whole.len() as u64));
        }
        while bytes > limit && kept.len() > 1 {
            let Some((oldest, length)) = kept.pop_front() else { break };
            let _ = fs::remove_file(oldest);
            bytes -= length;
        }
    }
}
