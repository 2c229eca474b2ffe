//! A few hundred seeds of every scenario. `SIM_SEEDS=FIRST..LAST` takes others.

use sim::scenarios::ALL;

fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("SIM_SEEDS").ok();
    let parsed = given.as_deref().and_then(|text| {
        let (first, last) = text.split_once("..")?;
        Some(first.parse().ok()?..last.parse().ok()?)
    });
    parsed.unwrap_or(1..31)
}

#[test]
fn nothing_goes_wrong() {
    let failures: Vec<String> = ALL
        .iter()
        .flat_map(|scenario| seeds().map(move |seed| (scenario, seed)))
        .filter_map(|(scenario, seed)| {
            sim::run(scenario, seed).err().map(|e| format!("{} {seed}: {e}", scenario.name))
        })
        .collect();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n\n"));
}

/// The same seed gives the same run, to the last byte.
#[test]
fn a_seed_replays() {
    for scenario in ALL {
        for seed in [3, 1_000_003] {
            assert_eq!(sim::run(scenario, seed), sim::run(scenario, seed), "{} {seed}", scenario.name);
        }
    }
}
