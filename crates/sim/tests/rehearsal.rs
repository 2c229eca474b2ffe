//! Tests of scripts: the shipped examples pass theirs, stand-ins behave, and what fails is shown.

use sim::rehearsal::{Coverage, File, Ran, What};
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Every scenario of a file, with these seeds.
#[track_caller]
fn check(name: &str, seeds: std::ops::Range<u64>) -> Coverage {
    let file = File::read(&path(name)).unwrap_or_else(|p| panic!("{name}:{}: {}", p.line, p.text));
    let mut coverage = Coverage::default();
    let scenarios: Vec<String> = file.scenarios().map(|(name, _)| name.to_string()).collect();
    for (at, scenario) in scenarios.iter().enumerate() {
        for seed in seeds.clone() {
            let ran = file.run(at, seed).unwrap_or_else(|p| panic!("{name}:{}: {}", p.line, p.text));
            if let Err(failure) = &ran.result {
                panic!("{name}, {scenario}, seed {seed}: {failure:?}\n{}", ran.record.ladder());
            }
            coverage.merge(&ran.coverage);
        }
    }
    coverage
}

#[test]
fn the_residential_example() {
    let (ran, all) = check("../../etc/residential.test.yaml", 1..3).total();
    assert!(ran * 100 >= all * 85, "{ran} of {all} lines ran");
}

#[test]
fn the_b2b_example() {
    let (ran, all) = check("../../etc/b2b.test.yaml", 1..3).total();
    assert!(ran * 100 >= all * 85, "{ran} of {all} lines ran");
}

/// Calls with this server between the ends, on a bad network: each ends as it must, and nothing of it stays.
#[test]
fn calls_of_two_dialogs() {
    check("tests/rehearsal/b2b.test.yaml", 1..30);
}

#[test]
fn the_trunk_example() {
    let (ran, all) = check("../../etc/trunk.test.yaml", 1..3).total();
    assert!(ran * 100 >= all * 75, "{ran} of {all} lines ran");
}

#[test]
fn the_balancer_example() {
    let (ran, all) = check("../../etc/balancer.test.yaml", 1..3).total();
    assert!(ran * 100 >= all * 85, "{ran} of {all} lines ran");
}

#[test]
fn stand_ins() {
    check("tests/rehearsal/world.test.yaml", 1..3);
}

/// One scenario that is written to a file beside the script of the stand-ins.
fn run(name: &str, steps: &str, seed: u64) -> Result<Ran, sim::rehearsal::Problem> {
    let folder = std::env::temp_dir().join(format!("fermata-rehearsal-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(path("tests/rehearsal/world.cfg"), folder.join("world.cfg")).unwrap();
    let text = format!(
        "script: world.cfg\nparties: {{caller: 10.0.0.2, gateway: 10.0.0.9}}\nnetwork: {{loss: 30, double: 30, delay: 400 ms}}\n\
         scenarios:\n  - name: x\n    steps:\n{steps}"
    );
    std::fs::write(folder.join("x.test.yaml"), text).unwrap();
    let ran = File::read(&folder.join("x.test.yaml")).and_then(|file| file.run(0, seed));
    let _ = std::fs::remove_dir_all(folder);
    ran
}

const CALL: &str = "      - caller sends: INVITE sip:{gateway}\n      - gateway receives: INVITE\n      \
                    - gateway sends: 486 Busy Here\n      - caller receives: 504 Nobody There\n";

#[test]
fn a_seed_gives_the_same_run() {
    let ladder = |seed| {
        let ran = run("seed", CALL, seed).unwrap();
        assert_eq!(ran.result, Ok(()), "seed {seed}\n{}", ran.record.ladder());
        ran.record.ladder()
    };
    let seeds: Vec<String> = (1..10).map(ladder).collect();
    assert_eq!(seeds, (1..10).map(ladder).collect::<Vec<_>>());
    assert!(seeds.iter().any(|ladder| ladder.contains('✗')), "nothing was ever lost");
    assert!(seeds.windows(2).any(|two| two[0] != two[1]));
}

#[test]
fn a_failure_is_shown() {
    let ran = run("failure", &CALL.replace("504 Nobody", "486 Nobody"), 1).unwrap();
    let failure = ran.result.clone().unwrap_err();
    assert_eq!((failure.line, failure.step.as_str()), (10, "caller receives: 486 Nobody There"));
    assert!(failure.problems[0].contains("504 Nobody There came, 486 was expected"), "{failure:?}");
    assert!(ran.record.entries.iter().any(|entry| matches!(&entry.what, What::Line { line: 67, .. })));
    let left = run("left", "      - caller sends: OPTIONS sip:sleep@192.0.2.1:5070\n      - wait: 60 s\n", 1)
        .unwrap();
    assert!(left.result.unwrap_err().problems[0].contains("also received 200 Slept"));
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (steps, line, words) in [
        ("      - caler sends: x\n", 7, "parties are caller, gateway"),
        ("      - caller recieves: 200\n", 7, "sends, receives or authenticates"),
        ("      - wait: soon\n", 7, "`soon` is no time"),
        ("      - caller receives: 200\n        witihn: 3 s\n", 8, "did you mean `within`?"),
    ] {
        let problem = run("mistake", steps, 1).err().unwrap_or_else(|| panic!("{steps} is taken"));
        assert!(problem.line == line && problem.text.contains(words), "{problem:?}");
    }
    let unknown =
        run("unknown", "      - caller sends: OPTIONS sip:{nobody}\n", 1).unwrap().result.unwrap_err();
    assert!(unknown.problems[0].contains("{nobody}"), "{unknown:?}");
}
