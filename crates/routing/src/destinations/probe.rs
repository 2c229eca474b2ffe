//! Probes: requests that ask whether a destination is there. One at a time for each destination.

use super::Destination;
use host::Ctx;
use host::tm::ua::{self, NewRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// CSeq of probes that the reference sends as if they were inside a dialog (dispatcher, drouting).
pub const CSEQ_WITHIN: u32 = 14;
/// CSeq of those that it sends as the first of one (load_balancer).
pub const CSEQ_FIRST: u32 = 10;

/// How probes look.
#[derive(Clone, Debug)]
pub struct Probe {
    pub method: String,
    /// URI of From.
    pub from: String,
    /// `None`: 70.
    pub max_forwards: Option<u32>,
    /// Index into `Shared::sockets`, where the destination has none of its own.
    pub socket: Option<u16>,
}

/// What came of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Of the final reply; 408 is silence, too.
    pub status: u16,
    /// It left this server: the name had an address, and there was a way.
    pub sent: bool,
}

impl Probe {
    /// Sends one, unless the one before has not been answered yet; `done` hears what came of it.
    pub fn send(
        &self,
        ctx: &mut Ctx,
        destination: &Arc<Destination>,
        done: impl FnOnce(&mut Ctx, &Arc<Destination>, Heard) + 'static,
    ) {
        self.send_numbered(ctx, destination, CSEQ_WITHIN, done);
    }

    /// The same with another CSeq.
    pub fn send_numbered(
        &self,
        ctx: &mut Ctx,
        destination: &Arc<Destination>,
        cseq: u32,
        done: impl FnOnce(&mut Ctx, &Arc<Destination>, Heard) + 'static,
    ) {
        if destination.probed.swap(true, Ordering::Relaxed) {
            return;
        }
        let to = format!("<{}>", String::from_utf8_lossy(&destination.uri));
        let mut request =
            NewRequest::new(&self.method, destination.uri.clone(), &format!("<{}>", self.from), &to);
        request.cseq = cseq;
        request.socket = destination.socket.or(self.socket);
        if let Some(hops) = self.max_forwards {
            request.max_forwards = hops;
        }
        let probed = destination.clone();
        let heard = Box::new(move |ctx: &mut Ctx, answer: ua::Answer| {
            probed.probed.store(false, Ordering::Relaxed);
            let sent = answer.reply.is_some() || answer.path.is_some() || answer.status == 408;
            done(ctx, &probed, Heard { status: answer.status, sent });
        });
        if ua::send_new(ctx, request, Some(heard)) < 0 {
            // Where the transaction itself could not be made nobody hears of it.
            destination.probed.store(false, Ordering::Relaxed);
        }
    }
}

/// Status codes that count as good besides 200: `"501, 403"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes(Vec<u16>);

impl Codes {
    pub fn parse(text: &str) -> Result<Codes, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let code = |word: &str| word.parse::<u16>().ok().filter(|code| (100..700).contains(code));
        let codes = words.map(|word| code(word).ok_or_else(|| format!("`{word}` is no status code")));
        codes.collect::<Result<_, _>>().map(Codes)
    }

    pub fn has(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

/// Something that is due every so many seconds, asked each second.
#[derive(Default)]
pub struct Pace(AtomicU64);

impl Pace {
    /// True once in `seconds`, the first time after them; 0: never.
    pub fn due(&self, ctx: &Ctx, seconds: u64) -> bool {
        let now = ctx.core.now.0;
        if seconds == 0 {
            return false;
        }
        let next = self.0.load(Ordering::Relaxed);
        // Timers share wakes, so one may come a moment early.
        let due = next != 0 && now + 100 >= next;
        if due || next == 0 {
            let from = if due && now < next + seconds * 1000 { next } else { now };
            self.0.store((from + seconds * 1000).max(1), Ordering::Relaxed);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let codes = Codes::parse("501, 403,").expect("two");
        assert!(codes.has(501) && codes.has(403) && !codes.has(404));
        assert!(Codes::parse("many").is_err() && Codes::parse("99").is_err());
        assert_eq!(Codes::parse(""), Ok(Codes::default()));
    }
}
