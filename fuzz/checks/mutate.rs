//! Damages correct inputs at random and hands them to a check: what `cargo fuzz` does, for a stable compiler.
//!
//! `MUTATIONS=1000000 SEED=7 cargo test -p sip --release --test mutations` runs long; the input of a failure is printed.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Numbers from a seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The words of a libFuzzer dictionary.
fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let word = |line: &str| {
        let inner = line.trim().strip_prefix('"')?.strip_suffix('"')?;
        let mut out = Vec::new();
        let mut bytes = inner.bytes();
        while let Some(byte) = bytes.next() {
            match (byte, byte == b'\\') {
                (_, true) => match bytes.next()? {
                    b'x' => {
                        let hex = [bytes.next()?, bytes.next()?];
                        out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
                    }
                    other => out.push(other),
                },
                (byte, false) => out.push(byte),
            }
        }
        Some(out)
    };
    dictionary.lines().filter_map(word).collect()
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.below(input.len() + 1);
    let end = (at + rng.below(16)).min(input.len());
    match rng.below(8) {
        0 if at < input.len() => input[at] = rng.next() as u8,
        1 if at < input.len() => input[at] ^= 1 << rng.below(8),
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            let to = rng.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        4 if !words.is_empty() => drop(input.splice(at..end, words[rng.below(words.len())].iter().copied())),
        5 if !words.is_empty() => drop(input.splice(at..at, words[rng.below(words.len())].iter().copied())),
        6 => input.truncate(at),
        _ => {
            let other = &seeds[rng.below(seeds.len())];
            let from = rng.below(other.len());
            let to = (from + rng.below(64)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
    }
}

/// `count` inputs, unless `MUTATIONS` says otherwise.
pub fn run(seeds: &[Vec<u8>], dictionary: &str, count: u64, check: fn(&[u8])) {
    let (count, seed) = (setting("MUTATIONS", count), setting("SEED", 1));
    let words = words(dictionary);
    let mut rng = Rng(seed);
    for seed in seeds {
        check(seed);
    }
    for round in 0..count {
        let mut input = seeds[rng.below(seeds.len())].clone();
        for _ in 0..=rng.below(6) {
            mutate(&mut input, seeds, &words, &mut rng);
        }
        let result = catch_unwind(AssertUnwindSafe(|| check(&input)));
        assert!(result.is_ok(), "seed {seed}, round {round}: {}", input.escape_ascii());
    }
}

/// The files of a folder with this ending.
pub fn seeds(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let fits = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == ending);
    paths.iter().filter(|path| fits(path)).map(|path| std::fs::read(path).unwrap()).collect()
}
