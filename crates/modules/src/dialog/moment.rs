//! A moment on both clocks: the worker's own, which never jumps, and that of the world, in which rows and listings count.

use host::Ctx;
use transaction::Instant;

#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    /// Unix milliseconds.
    wall_ms: u64,
}

impl Moment {
    pub fn of(ctx: &Ctx) -> Moment {
        Moment { now: ctx.core.now, wall_ms: ctx.core.wall_us / 1000 }
    }

    /// Unix seconds at `at`, or now when it has passed: the nearest second, so that a time that is written, read and
    /// written again stays what it was.
    pub fn unix_of(self, at: Instant) -> u64 {
        (self.wall_ms + at.0.saturating_sub(self.now.0) + 500) / 1000
    }

    /// The worker's time at `unix` seconds; now when they have passed.
    pub fn instant_of(self, unix: u64) -> Instant {
        self.now.after((unix * 1000).saturating_sub(self.wall_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_kept_and_read_again_does_not_move() {
        for wall_ms in (1_700_000_000_000..1_700_000_003_000).step_by(37) {
            let first = Moment { now: Instant(5_000), wall_ms };
            let kept = first.unix_of(Instant(5_000 + 3_600_000));
            for later in [0, 3, 499, 500, 501, 999, 1_700] {
                let then = Moment { now: Instant(20 + later), wall_ms: wall_ms + 2_900 + later };
                assert_eq!(then.unix_of(then.instant_of(kept)), kept, "{wall_ms} {later}");
            }
        }
    }
}
