//! Simulates many seeds: `sim [SCENARIO|all] [FIRST SEED [COUNT]]`. One seed alone is shown with
//! `SIM_TRACE=1`.

use sim::scenarios::{self, Scenario};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("all", String::as_str);
    let number = |i: usize, default: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (first, count) = (number(1, 1), number(2, 1));
    let chosen: Vec<&Scenario> = match scenarios::find(name) {
        Some(one) => vec![one],
        None if name == "all" => scenarios::ALL.iter().collect(),
        None => {
            let names: Vec<&str> = scenarios::ALL.iter().map(|s| s.name).collect();
            eprintln!("no scenario {name}; there are all, {}", names.join(", "));
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for scenario in chosen {
        let (mut calls, mut datagrams, mut finals) = (0, 0, [0; 7]);
        for seed in first..first + count {
            match sim::run(scenario, seed) {
                Ok(report) => {
                    calls += report.calls;
                    datagrams += report.datagrams;
                    finals.iter_mut().zip(report.finals).for_each(|(sum, n)| *sum += n);
                }
                Err(problem) => {
                    failed += 1;
                    eprintln!("{} {seed}: {problem}", scenario.name);
                }
            }
        }
        println!(
            "{:<16} {count} seeds, {calls} calls, {datagrams} datagrams, finals {:?}",
            scenario.name,
            &finals[2..]
        );
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
