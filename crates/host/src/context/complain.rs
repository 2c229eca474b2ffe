//! What fails at run time, said once where the operator looks: with the line of the script and the Call-ID of the
//! message, so many in a second at most.

use crate::context::call::Finish;
use crate::context::ctx::Ctx;
use crate::context::log::{self, Held, Level};
use std::fmt::Arguments;

/// Lines of this kind that a worker writes in a second; the next line tells how many were left out.
const MAX_A_SECOND: u32 = 20;

#[derive(Default)]
struct Said {
    /// Seconds of the worker's clock.
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Ctx {
    /// A warning about the message that is being worked on: what could not be done, and why.
    #[cold]
    pub fn note_failure(&mut self, module: &str, what: Arguments<'_>) {
        if log::enabled(Level::Warning) {
            self.say(Level::Warning, module, &what.to_string());
        }
    }

    /// A function of a script has returned: what it said meanwhile is written, with its place.
    #[cold]
    pub(crate) fn place_held(&mut self) {
        for Held { level, who, text } in log::take_held() {
            self.say(level, &who, &text);
        }
    }

    /// Runs what an operation leaves to do; what it says has the place of its script.
    pub(crate) fn finish_placed(&mut self, finish: Finish) -> i32 {
        let rc = finish(self);
        if log::holds_any() {
            self.place_held();
        }
        rc
    }

    fn say(&mut self, level: Level, module: &str, what: &str) {
        let second = self.core.now.0 / 1000;
        let said = self.local::<Said>();
        if said.second != second {
            (said.second, said.lines) = (second, 0);
        }
        if said.lines >= MAX_A_SECOND {
            said.left_out += 1;
            return;
        }
        said.lines += 1;
        let left_out = std::mem::take(&mut said.left_out);
        let place = self.place();
        let more =
            if left_out == 0 { String::new() } else { format!(" ({left_out} lines like it were left out)") };
        log::write(level, module, format_args!("{what} ({place}){more}"));
    }

    /// "opensips.cfg:12; Call-ID x"
    fn place(&self) -> String {
        let sources = self.core.shared.sources();
        let loc = self.state.task.loc();
        let (file, line) = (sources.name(loc), sources.line_col(loc).0);
        let call_id = self.state.msg.call_id().filter(|id| &id[..] != b"dummy");
        let call_id = call_id.map(|id| format!("; Call-ID {}", String::from_utf8_lossy(&id)));
        format!("{file}:{line}{}", call_id.unwrap_or_default())
    }
}

/// `complain!(ctx, "module", "format", ...)`: see [`Ctx::note_failure`].
#[macro_export]
macro_rules! complain {
    ($ctx:expr, $module:expr, $($arg:tt)+) => {
        $ctx.note_failure($module, format_args!($($arg)+))
    };
}
