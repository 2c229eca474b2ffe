//! The dispatcher: a command goes to its Unix socket, a line comes back.

use bytes::Bytes;
use drivers::exchange::{Patience, Trouble, ask_unix};
use host::outage::Outage;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::time::Duration;
use transaction::Instant;

/// One that failed is left alone for so long, milliseconds.
const REST_MS: u64 = 10_000;

pub struct Dispatcher {
    pub path: PathBuf,
    pub patience: Patience,
    outage: Outage,
    rests_until: Mutex<Instant>,
}

impl Dispatcher {
    pub fn new(path: &str) -> Dispatcher {
        Dispatcher {
            path: path.into(),
            patience: Patience { tries: 1, each: Duration::from_millis(500) },
            outage: Outage::default(),
            rests_until: Mutex::default(),
        }
    }

    /// The line that it answers. `None`: it is out of order, which one line says when it begins and one when it ends.
    /// `now`: the time of the worker that asks.
    pub async fn ask(&self, now: Instant, command: &str) -> Option<Bytes> {
        if now < *self.rests_until.lock() {
            return None;
        }
        let asked =
            ask_unix(&self.path, command.as_bytes(), &self.patience, |text| text.ends_with(b"\n")).await;
        let why = match asked {
            Ok(answer) => {
                if self.outage.ends() {
                    host::notice!("mediaproxy", "the dispatcher at {} answers again", self.path.display());
                }
                return Some(answer.into());
            }
            Err(Trouble::Io(why)) => why,
            Err(_) => format!("it does not answer within {} ms", self.patience.each.as_millis()),
        };
        *self.rests_until.lock() = now.after(REST_MS);
        if self.outage.begins() {
            host::error!(
                "mediaproxy",
                "the dispatcher at {}: {why}; calls go on without a relay, it is tried again every 10 s",
                self.path.display()
            );
        }
        None
    }
}
