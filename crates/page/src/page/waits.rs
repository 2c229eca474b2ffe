//! What calls wait for now, by operation and line of the script, and what became of those before: `page:waits`.

use super::Page;
use ahash::AHashMap;
use host::mi::{MiParams, MiResult};
use host::{Call, Registrar};
use script::Loc;
use serde_json::{Value as Json, json};

/// Lines of an answer; those with the most that wait, or that took the longest in all.
const SHOWN: usize = 500;

/// Sums of one operation at one place.
#[derive(Clone, Copy, Default)]
struct Sum {
    now: u64,
    /// The one that waits longest, ms.
    oldest: u64,
    ended: u64,
    total_ms: u64,
    longest_ms: u64,
}

pub fn register(m: &mut Registrar<Page>) {
    m.command_each("page:waits", "what calls wait for now and waited for before, by line", join, waits)
        .takes("");
}

/// Of one worker.
fn waits(call: &mut Call<Page>, _: &MiParams) -> MiResult {
    let core = &call.ctx.core;
    let mut sums: AHashMap<(&'static str, Loc), Sum> = AHashMap::new();
    for (what, loc, site) in core.ops.sites() {
        let (ended, total_ms, longest_ms) = (site.ended, site.total_ms, site.longest_ms);
        sums.insert((what, loc), Sum { ended, total_ms, longest_ms, ..Sum::default() });
    }
    for task in core.tasks.iter().filter(|task| task.live) {
        let sum = sums.entry((task.what, task.loc)).or_default();
        sum.now += 1;
        sum.oldest = sum.oldest.max(core.now.0.saturating_sub(task.since.0));
    }
    let sources = core.shared.sources();
    let row = |((what, loc), sum): ((&str, Loc), Sum)| {
        // What a module waits for beside a script has no place in it.
        let place = match loc == Loc::default() {
            true => String::new(),
            false => format!("{}:{}", sources.name(loc), sources.line_col(loc).0),
        };
        json!({
            "Operation": what, "Line": place, "Waiting": sum.now, "Oldest ms": sum.oldest, "Ended": sum.ended,
            "Total ms": sum.total_ms, "Longest ms": sum.longest_ms,
        })
    };
    Ok(sums.into_iter().map(row).collect())
}

fn join(workers: Vec<Json>) -> Json {
    let mut sums: AHashMap<(String, String), Sum> = AHashMap::new();
    for row in workers.iter().filter_map(Json::as_array).flatten() {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        let sum = sums.entry((text("Operation"), text("Line"))).or_default();
        sum.now += number("Waiting");
        sum.oldest = sum.oldest.max(number("Oldest ms"));
        sum.ended += number("Ended");
        sum.total_ms += number("Total ms");
        sum.longest_ms = sum.longest_ms.max(number("Longest ms"));
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(a, x), (b, y)| (y.now, y.total_ms, a).cmp(&(x.now, x.total_ms, b)));
    let row = |((operation, line), sum): ((String, String), Sum)| {
        json!({
            "Operation": operation, "Line": line, "Waiting": sum.now, "Oldest ms": sum.oldest, "Ended": sum.ended,
            "Total ms": sum.total_ms, "Longest ms": sum.longest_ms,
        })
    };
    json!({"Waits": sums.into_iter().take(SHOWN).map(row).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed() {
        let row = |waiting: u64, oldest: u64| {
            json!({"Operation": "sleep", "Line": "a.cfg:7", "Waiting": waiting, "Oldest ms": oldest, "Ended": 1, "Total ms": 5,
                   "Longest ms": 5})
        };
        let joined = join(vec![json!([row(2, 40)]), json!([row(1, 90)])]);
        let first = &joined["Waits"][0];
        assert_eq!(
            (&first["Waiting"], &first["Oldest ms"], &first["Ended"]),
            (&json!(3), &json!(90), &json!(2))
        );
    }
}
