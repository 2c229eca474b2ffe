//! What other threads bring: a worker empties its mailbox.

use super::{Runner, clock};
use crate::mailbox::{Letter, Mail};
use crate::streams::peer;
use host::Input;
use std::rc::Rc;

/// Messages out of the mailbox that are handled before others have their turn.
const LETTERS: usize = 64;

impl Runner {
    pub(super) async fn on_mail(self: &Rc<Self>, mail: Mail) {
        if mail.drain {
            self.draining.set(true);
            self.step(clock(self.epoch), Input::Drain);
        }
        let mut letters = mail.letters.into_iter();
        while letters.len() > 0 {
            let (clock, seen) = (clock(self.epoch), letters.len().min(LETTERS));
            let youngest = letters.as_slice()[seen - 1].at_us;
            self.note_wait(clock, youngest, 0);
            for Letter { source, bytes, at_us } in letters.by_ref().take(seen) {
                self.step(clock, self.overload.input(clock, source, bytes, at_us));
            }
            self.post.boxes[self.index].seen(seen);
            if letters.len() > 0 {
                self.finish();
                tokio::task::yield_now().await;
            }
        }
        let clock = clock(self.epoch);
        for Letter { source, bytes, .. } in mail.undelivered {
            self.step(clock, Input::Undeliverable { path: source, bytes });
        }
        for Letter { source, bytes, .. } in mail.outgoing {
            self.streams.send(peer(&self.shared, &source), bytes);
        }
        for id in mail.closing {
            self.streams.close(id);
        }
        for job in mail.jobs {
            self.step(clock, Input::Run(job));
        }
        if mail.end {
            self.step(clock, Input::End);
        }
        self.finish();
    }
}
