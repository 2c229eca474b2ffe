//! The tree of drouting by itself; `benches/routing.py` compiles and runs it.
#[allow(dead_code)]
#[path = "../crates/routing/src/drouting/tree.rs"]
mod tree;

use tree::{Alphabet, Builder, Destination, NewRule};

fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Nanoseconds of the processor so far: a machine that is busy otherwise does not change it.
fn used_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
}

fn main() {
    let rules: u64 = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(1_000_000);
    let mut seed = 7_u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % bound
    };
    let mut digits = |shortest: u64, more: u64| -> Vec<u8> {
        (0..shortest + below(more)).map(|_| b'0' + below(10) as u8).collect()
    };
    let prefixes: Vec<Vec<u8>> = (0..rules).map(|_| digits(4, 9)).collect();
    let numbers: Vec<Vec<u8>> = (0..1_000_000).map(|_| digits(8, 6)).collect();
    let before = peak_kb();
    let begun = used_ns();
    let mut builder = Builder::new(Alphabet::new(""));
    for (id, prefix) in prefixes.iter().enumerate() {
        let destinations: Vec<Destination> = (0..2)
            .map(|_| Destination { which: below(200) as u32, is_carrier: false, weight: below(100) as u32 })
            .collect();
        let attrs = format!("rate={}", below(100_000));
        builder
            .add(&NewRule {
                id: id as i32,
                groups: &[below(5) as u32],
                prefix,
                priority: below(10) as u32,
                destinations: &destinations,
                attrs: attrs.as_bytes(),
                traits: 0,
            })
            .expect("a rule");
    }
    let tree = builder.build();
    let load = (used_ns() - begun) as f64 / 1e9;
    let peak = peak_kb() - before;
    let begun = used_ns();
    let mut found = 0;
    for number in &numbers {
        found += tree.search(number, below(5) as u32, 0, |_| true).is_some() as usize;
    }
    let each = (used_ns() - begun) / numbers.len() as u64;
    println!("{rules} {load:.3} {} {peak} {each} {found}", tree.bytes());
}
