//! What the demonstration shows at its end, in text.

use super::agent::Outcome;
use super::watch::Seen;
use std::fmt::Write;
use std::time::Duration;

const WIDTH: usize = 60;
const HEIGHT: usize = 8;
const BARS: usize = 44;

/// All that was seen.
pub struct Picture<'a> {
    pub outcomes: &'a [Outcome],
    pub seen: &'a Seen,
    pub elapsed: Duration,
    /// How long the OPTIONS requests took that were sent beside the calls.
    pub probes: &'a [Duration],
}

/// The line that changes while calls run.
pub fn progress(placed: usize, done: usize, total: usize, waiting: usize) -> String {
    let filled = done * 30 / total.max(1);
    let bar: String = (0..30).map(|i| if i < filled { '█' } else { '░' }).collect();
    format!("calls {bar} {done}/{total}   running {:<5} waiting in the script {waiting:<5}", placed - done)
}

impl Picture<'_> {
    pub fn draw(&self) -> String {
        let mut out = String::new();
        let mut times: Vec<Duration> = self.outcomes.iter().filter_map(Outcome::answered).collect();
        times.sort_unstable();
        let failed = self.outcomes.len() - times.len();
        let _ = writeln!(
            out,
            "{} calls in {:.1} s with one worker, {}.\n",
            self.outcomes.len(),
            self.elapsed.as_secs_f64(),
            if failed == 0 { "none failed".to_owned() } else { format!("{failed} FAILED") }
        );
        self.waiting(&mut out);
        set_up(&times, &mut out);
        self.options(&mut out);
        self.failures(&mut out);
        out
    }

    /// Waiting scripts over time.
    fn waiting(&self, out: &mut String) {
        let Some(peak) = self.seen.peak().filter(|p| p.total() > 0) else {
            out.push_str("No call was seen waiting.\n\n");
            return;
        };
        let on: Vec<String> = peak.waiting.iter().map(|(what, n)| format!("{n} for {what}")).collect();
        let _ = writeln!(out, "Calls waiting at once: {} at most ({})\n", peak.total(), on.join(", "));
        let columns = columns(self.seen, self.elapsed);
        let top = peak.total();
        for row in (1..=HEIGHT).rev() {
            let label = if row == HEIGHT { top.to_string() } else { String::new() };
            let line: String = columns.iter().map(|&n| cell(n, top, row)).collect();
            let _ = writeln!(out, "  {label:>6} │{}", line.trim_end());
        }
        let _ = writeln!(out, "  {:>6} └{}", 0, "─".repeat(WIDTH));
        let _ = writeln!(out, "          0 s{:>w$.1} s\n", self.elapsed.as_secs_f64(), w = WIDTH - 6);
    }

    fn options(&self, out: &mut String) {
        let mut probes = self.probes.to_vec();
        probes.sort_unstable();
        if let (Some(median), Some(worst)) = (probes.get(probes.len() / 2), probes.last()) {
            let _ = writeln!(
                out,
                "\n{} OPTIONS sent meanwhile: answered in {:.1} ms (median), {:.1} ms (worst).",
                probes.len(),
                median.as_secs_f64() * 1e3,
                worst.as_secs_f64() * 1e3
            );
        }
    }

    fn failures(&self, out: &mut String) {
        let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
        for outcome in self.outcomes {
            if let Outcome::Failed(reason) = outcome {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        for (reason, count) in reasons {
            let _ = writeln!(out, "{count} calls failed: {reason}");
        }
    }
}

/// The most that waited in each stretch of time; a stretch without a look keeps the one before.
fn columns(seen: &Seen, elapsed: Duration) -> Vec<usize> {
    let mut columns = vec![None; WIDTH];
    for look in &seen.looks {
        let at = (look.at.as_secs_f64() / elapsed.as_secs_f64().max(1e-9) * WIDTH as f64) as usize;
        let slot: &mut Option<usize> = &mut columns[at.min(WIDTH - 1)];
        *slot = Some(slot.unwrap_or(0).max(look.total()));
    }
    let mut last = 0;
    let filled = columns.into_iter().map(|c| {
        last = c.unwrap_or(last);
        last
    });
    filled.collect()
}

/// One character of a column of `n` out of `top`, in eighths.
fn cell(n: usize, top: usize, row: usize) -> char {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let eighths = (n * HEIGHT * 8).div_ceil(top.max(1));
    EIGHTHS[eighths.saturating_sub((row - 1) * 8).min(8)]
}

/// From INVITE to 200, as bars.
fn set_up(times: &[Duration], out: &mut String) {
    let Some(longest) = times.last() else { return };
    let step =
        [10, 20, 50, 100, 200, 500, 1000, 2000].into_iter().find(|s| longest.as_millis() as u64 / s < 10);
    let step = step.unwrap_or(5000);
    let mut counts = vec![0usize; (longest.as_millis() as u64 / step) as usize + 1];
    for time in times {
        counts[(time.as_millis() as u64 / step) as usize] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    out.push_str("Set-up time (INVITE to 200):\n\n");
    for (i, count) in counts.iter().enumerate() {
        let (from, to) = (i as u64 * step, (i as u64 + 1) * step);
        let bar = "█".repeat((count * BARS).div_ceil(most));
        let _ = writeln!(out, "  {from:>5}-{to:<5} ms │{bar} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::watch::Look;
    use std::collections::BTreeMap;

    #[test]
    fn everything_is_in_the_picture() {
        let ms = Duration::from_millis;
        let looks = (0..10).map(|i| Look {
            at: ms(i * 100),
            waiting: BTreeMap::from([("rest_get".to_owned(), i as usize), ("sql_query".to_owned(), 1)]),
        });
        let seen = Seen { looks: looks.collect() };
        let outcomes: Vec<Outcome> = (0..100).map(|i| Outcome::Answered(ms(i * 10))).collect();
        let picture =
            Picture { outcomes: &outcomes, seen: &seen, elapsed: ms(1000), probes: &[ms(1), ms(2), ms(3)] }
                .draw();
        for words in [
            "100 calls in 1.0 s with one worker, none failed",
            "10 at most (9 for rest_get, 1 for sql_query)",
            "900-1000  ms │",
            "3 OPTIONS sent meanwhile: answered in 2.0 ms (median), 3.0 ms (worst)",
        ] {
            assert!(picture.contains(words), "{words} is not in\n{picture}");
        }
    }

    #[test]
    fn nothing_seen_is_said() {
        let outcomes = [Outcome::Failed("503 No Answer".into())];
        let picture =
            Picture { outcomes: &outcomes, seen: &Seen::default(), elapsed: Duration::ZERO, probes: &[] }
                .draw();
        assert!(picture.contains("1 FAILED") && picture.contains("1 calls failed: 503 No Answer"));
        assert!(picture.contains("No call was seen waiting"));
    }

    #[test]
    fn progress_fits_a_terminal() {
        assert!(progress(200, 100, 200, 99).chars().count() < 100);
    }
}
