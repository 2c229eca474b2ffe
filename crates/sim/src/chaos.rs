//! What goes wrong in one run besides the network, by its seed: outages, clocks that jump, workers that stand still,
//! overload, reloads, connections that break.

use host::ctx::Rng;
use host::tm::overload::Lateness;
use std::fmt;

/// Something that goes wrong at some time. Times are virtual milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nothing that scripts ask answers for so long.
    Outage(u64),
    /// The clock of the day jumps; time that passes goes on as ever.
    Jump(i64),
    /// A worker does nothing for so long: the machine had no time for it.
    Stall { worker: usize, ms: u64 },
    /// Messages come as if they had waited long.
    Overload(u64),
    /// The script is read again.
    Reload,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Outage(ms) => write!(f, "nothing that is asked answers for {ms} ms"),
            Trouble::Jump(ms) => write!(f, "the clock jumps by {ms} ms"),
            Trouble::Stall { worker, ms } => write!(f, "worker {worker} stands still for {ms} ms"),
            Trouble::Overload(ms) => write!(f, "overload for {ms} ms"),
            Trouble::Reload => write!(f, "the script is read again"),
        }
    }
}

/// Troubles of a run and when they come; none to six.
pub fn troubles(rng: &mut Rng, workers: usize) -> Vec<(u64, Trouble)> {
    (0..rng.below(7))
        .map(|_| {
            let at = rng.below(40_000);
            let what = match rng.below(6) {
                0 | 1 => Trouble::Outage(rng.below(15_000)),
                2 => Trouble::Jump((rng.below(7_200_000) as i64) - 3_600_000),
                3 => Trouble::Stall { worker: rng.below(workers as u64) as usize, ms: rng.below(3_000) },
                4 => Trouble::Overload(rng.below(8_000)),
                _ => Trouble::Reload,
            };
            (at, what)
        })
        .collect()
}

/// How late a message is during overload.
pub fn lateness(rng: &mut Rng) -> Lateness {
    [Lateness::InTime, Lateness::Late, Lateness::VeryLate][rng.below(3) as usize]
}
