//! The dispatcher: a command goes to its Unix socket, a line comes back.

use bytes::Bytes;
use drivers::exchange::{Patience, Silence, Trouble, ask_unix};
use std::path::PathBuf;
use std::time::Duration;

/// One that failed is left alone for so long.
const REST: Duration = Duration::from_secs(10);

pub struct Dispatcher {
    pub path: PathBuf,
    pub patience: Patience,
    silence: Silence,
}

impl Dispatcher {
    pub fn new(path: &str) -> Dispatcher {
        Dispatcher {
            path: path.into(),
            patience: Patience { tries: 1, each: Duration::from_millis(500) },
            silence: Silence::default(),
        }
    }

    /// The line that it answers. `None`: it is out of order, which one line says when it begins and one when it ends.
    pub async fn ask(&self, command: &str) -> Option<Bytes> {
        if self.silence.is_on() {
            return None;
        }
        let asked =
            ask_unix(&self.path, command.as_bytes(), &self.patience, |text| text.ends_with(b"\n")).await;
        let why = match asked {
            Ok(answer) => {
                if self.silence.ends() {
                    host::notice!("mediaproxy", "the dispatcher at {} answers again", self.path.display());
                }
                return Some(answer.into());
            }
            Err(Trouble::Io(why)) => why,
            Err(_) => format!("it does not answer within {} ms", self.patience.each.as_millis()),
        };
        if self.silence.begins(REST) {
            host::error!(
                "mediaproxy",
                "the dispatcher at {}: {why}; calls go on without a relay, it is tried again every 10 s",
                self.path.display()
            );
        }
        None
    }
}
