//! Flags of `ds_select_dst`, and the lists of 2.1.

use host::arg::parse_int;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// `f`: the other destinations are kept for `ds_next_dst`.
    pub failover: bool,
    /// `u`: only the user of a URI is hashed.
    pub user_only: bool,
    /// `d`: the last destination of the set is the last resort.
    pub default: bool,
    /// `a`: what is kept for failover stays, behind the new ones.
    pub append: bool,
    /// `s` of 2.1: nothing is done when there is a destination already.
    pub force: bool,
}

/// The dialect whose letters are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Letters {
    V21,
    V4,
}

impl Flags {
    /// Any case, blanks between them; `None`: another letter.
    pub fn parse(text: &[u8], letters: Letters) -> Option<Flags> {
        let mut flags = Flags::default();
        for letter in text.iter().map(u8::to_ascii_lowercase) {
            match letter {
                b' ' => {}
                b'f' => flags.failover = true,
                b'u' => flags.user_only = true,
                b'd' => flags.default = true,
                b'a' if letters == Letters::V4 => flags.append = true,
                b's' if letters == Letters::V21 => flags.force = true,
                _ => return None,
            }
        }
        Some(flags)
    }
}

/// How many destinations a list for failover holds when nobody says.
pub const MANY_RESULTS: i64 = 1000;

/// `"fuD M 5, fuS M 2"`: flags and numbers of results, one for each set (2.1).
pub fn parse_limits(text: &[u8]) -> Option<Vec<(Flags, i64)>> {
    let one = |part: &[u8]| {
        let part = part.trim_ascii();
        if part.is_empty() {
            return None;
        }
        if part[0].is_ascii_digit() {
            return Some((Flags::default(), parse_int(part)?));
        }
        match part.iter().position(|b| *b == b'M') {
            Some(at) => {
                Some((Flags::parse(&part[..at], Letters::V21)?, parse_int(part[at + 1..].trim_ascii())?))
            }
            None => Some((Flags::parse(part, Letters::V21)?, MANY_RESULTS)),
        }
    };
    text.split(|b| *b == b',').map(one).collect()
}

/// `"1, 2"`
pub fn parse_list(text: &[u8]) -> Option<Vec<i64>> {
    text.split(|b| *b == b',').map(|part| parse_int(part.trim_ascii())).collect()
}

/// `"partition : 1, 2"`: the partition, empty when none is named, and the rest.
pub fn split_partition(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|b| *b == b':') {
        Some(at) => (text[..at].trim_ascii(), text[at + 1..].trim_ascii()),
        None => (b"", text.trim_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_both() {
        let all = Flags { failover: true, user_only: true, default: true, ..Flags::default() };
        assert_eq!(Flags::parse(b" F uD", Letters::V4), Some(all));
        assert_eq!(Flags::parse(b"fs", Letters::V4), None);
        assert_eq!(Flags::parse(b"a", Letters::V21), None);
        assert_eq!(Flags::parse(b"S", Letters::V21), Some(Flags { force: true, ..Flags::default() }));
    }

    #[test]
    fn lists_of_old() {
        let limits = parse_limits(b"fuD M 5, 2 ,f").expect("three");
        assert_eq!(
            limits.iter().map(|(f, n)| (f.failover, *n)).collect::<Vec<_>>(),
            [(true, 5), (false, 2), (true, MANY_RESULTS)]
        );
        assert_eq!(parse_limits(b"fx"), None);
        assert_eq!(parse_list(b" 1, 2"), Some(vec![1, 2]));
        assert_eq!(split_partition(b"p4 : 1, 2"), (&b"p4"[..], &b"1, 2"[..]));
        assert_eq!(split_partition(b"3"), (&b""[..], &b"3"[..]));
    }
}
