//! Reads `flags<TAB>pattern<TAB>text` in hexadecimal, a pair a line, and prints where the expression and its groups match:
//! what a comparison with another implementation of POSIX expressions reads.

use script::posix::{Case, compile, compile_lines};
use std::io::BufRead;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).filter_map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()).collect()
}

fn main() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap_or_default();
        let (flags, pattern, text) = (field(), bytes(field()), bytes(field()));
        let case = if flags.contains('i') { Case::Ignore } else { Case::Sensitive };
        let built = if flags.contains('n') { compile_lines(&pattern, case) } else { compile(&pattern, case) };
        println!(
            "{}",
            match built {
                Err(_) => "refused".to_string(),
                Ok(pattern) => match pattern.groups_at(&text, 0) {
                    None => "no".to_string(),
                    Some(groups) => {
                        assert_eq!(pattern.find(&text), Some(groups.range()));
                        assert!(pattern.is_match(&text));
                        let show =
                            |n| groups.get(n).map_or("-".to_string(), |r| format!("{},{}", r.start, r.end));
                        (0..10).map(show).collect::<Vec<_>>().join(" ")
                    }
                },
            }
        );
    }
}
