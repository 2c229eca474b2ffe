//! Comparisons, truth and pattern matching on values of any kind.

use crate::ops::{Cmp, Want};
use crate::posix::{self, Pattern};
use crate::value::Value;
use std::cell::RefCell;
use std::cmp::Ordering;

/// Outcome of a condition. What cannot be compared is neither true nor false: `!` leaves it as it is.
pub(crate) const TRUE: i32 = 1;
pub(crate) const NEITHER: i32 = -1;

fn holds(cmp: Cmp, order: Ordering) -> i32 {
    i32::from(match cmp {
        Cmp::Eq => order.is_eq(),
        Cmp::Ne => order.is_ne(),
        Cmp::Lt => order.is_lt(),
        Cmp::Gt => order.is_gt(),
        Cmp::Le => order.is_le(),
        Cmp::Ge => order.is_ge(),
    })
}

/// With one NULL side only `!=` holds, with two only `==`.
fn with_null(cmp: Cmp, both: bool) -> i32 {
    i32::from(if both { cmp == Cmp::Eq } else { cmp == Cmp::Ne })
}

/// Strings compare without case, byte by byte.
fn text_order(a: &[u8], b: &[u8]) -> Ordering {
    let lower = |byte: &u8| byte.to_ascii_lowercase();
    a.iter().map(lower).cmp(b.iter().map(lower))
}

fn text_holds(cmp: Cmp, a: &[u8], b: &[u8]) -> i32 {
    match cmp {
        Cmp::Eq => i32::from(a.eq_ignore_ascii_case(b)),
        Cmp::Ne => i32::from(!a.eq_ignore_ascii_case(b)),
        _ => holds(cmp, text_order(a, b)),
    }
}

/// Against a number written in the script: a plain string does not compare.
pub(crate) fn with_int(cmp: Cmp, left: &Value, right: i32) -> i32 {
    match left {
        Value::Null | Value::Nought => with_null(cmp, false),
        Value::Str(_) | Value::Pieced(..) | Value::Failed => NEITHER,
        Value::Int(n) | Value::Both(_, n) | Value::Num(_, n) => holds(cmp, (*n as i32).cmp(&right)),
    }
}

/// Against a text written in the script: everything but NULL has a text.
pub(crate) fn with_text(cmp: Cmp, left: &Value, right: &[u8]) -> i32 {
    match left.text_in(&mut itoa::Buffer::new()) {
        None if left.has_failed() => NEITHER,
        None => with_null(cmp, false),
        Some(text) => text_holds(cmp, text, right),
    }
}

/// Two variables: as numbers when both are, as texts otherwise.
pub(crate) fn values(cmp: Cmp, left: &Value, right: &Value) -> i32 {
    if left.has_failed() || right.has_failed() {
        return NEITHER;
    }
    if left.is_null() || right.is_null() {
        return with_null(cmp, left.is_null() && right.is_null());
    }
    if let (Some(a), Some(b)) = (left.int(), right.int()) {
        return holds(cmp, (a as i32).cmp(&(b as i32)));
    }
    let (mut one, mut two) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (a, b) = (left.text_in(&mut one).unwrap_or_default(), right.text_in(&mut two).unwrap_or_default());
    text_holds(cmp, a, b)
}

pub(crate) fn with_null_word(cmp: Cmp, left: &Value) -> i32 {
    if left.has_failed() { NEITHER } else { with_null(cmp, left.is_null()) }
}

/// A value alone as a condition: not NULL, not 0, not empty.
pub(crate) fn truth(value: &Value) -> i32 {
    i32::from(match value {
        Value::Null | Value::Nought | Value::Failed => false,
        Value::Int(n) | Value::Num(_, n) => *n != 0,
        Value::Str(text) | Value::Pieced(text, _) | Value::Both(text, _) => !text.is_empty(),
    })
}

/// NULL matches nothing.
pub(crate) fn matches(want: Want, left: &Value, regex: &Pattern) -> i32 {
    if left.has_failed() {
        return NEITHER;
    }
    let found = left.text_in(&mut itoa::Buffer::new()).is_some_and(|text| regex.is_match(text));
    i32::from(found == (want == Want::Match))
}

/// A pattern built at run time; `None`: it does not compile. A NULL pattern matches NULL alone.
pub(crate) fn matches_pattern(want: Want, left: &Value, pattern: &Value) -> Option<i32> {
    if left.has_failed() || pattern.has_failed() {
        return Some(NEITHER);
    }
    let mut digits = itoa::Buffer::new();
    let Some(pattern) = pattern.text_in(&mut digits) else {
        return Some(i32::from(left.is_null() == (want == Want::Match)));
    };
    with_cached(pattern, |regex| matches(want, left, regex))
}

/// Patterns kept per thread. Scripts have few, and those are asked for again and again.
const CACHED: usize = 64;

struct Cache {
    /// Newest use last.
    entries: Vec<(Vec<u8>, Pattern)>,
}

thread_local! {
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache { entries: Vec::new() }) };
}

fn with_cached<T>(pattern: &[u8], then: impl FnOnce(&Pattern) -> T) -> Option<T> {
    CACHE.with_borrow_mut(|cache| {
        let entries = &mut cache.entries;
        match entries.iter().rposition(|(p, _)| p == pattern) {
            Some(at) if at + 1 == entries.len() => {}
            Some(at) => entries[at..].rotate_left(1),
            None => {
                let regex = posix::compile(pattern, posix::Case::Ignore).ok()?;
                if entries.len() >= CACHED {
                    entries.remove(0);
                }
                entries.push((pattern.to_vec(), regex));
            }
        }
        entries.last().map(|(_, regex)| then(regex))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const FALSE: i32 = 0;
    const ALL: [Cmp; 6] = [Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Gt, Cmp::Le, Cmp::Ge];

    fn text(t: &str) -> Value {
        Value::Str(Bytes::copy_from_slice(t.as_bytes()))
    }

    /// The operators that hold, as golden area cmp.pairs lists them.
    fn check(left: &Value, right: &Value, want: &str) {
        let holding: Vec<&str> =
            ALL.into_iter().filter(|c| values(*c, left, right) == TRUE).map(Cmp::sign).collect();
        assert_eq!(holding.join(" "), want, "{left:?} and {right:?}");
    }

    #[test]
    fn two_variables() {
        let (i5, i10, s5, s10, empty, abc) =
            (Value::Int(5), Value::Int(10), text("5"), text("10"), text(""), text("abc"));
        check(&i5, &i10, "!= < <=");
        check(&i5, &s10, "!= > >=");
        check(&i5, &s5, "== <= >=");
        check(&i5, &abc, "!= < <=");
        check(&s5, &i10, "!= > >=");
        check(&empty, &i10, "!= < <=");
        check(&abc, &text("ABC"), "== <= >=");
        check(&i5, &Value::Null, "!=");
        check(&Value::Null, &abc, "!=");
        check(&Value::Null, &Value::Null, "==");
        check(&Value::Both(Bytes::from_static(b"5060"), 5060), &Value::Int(5060), "== <= >=");
    }

    #[test]
    fn literals() {
        for cmp in ALL {
            assert_eq!(with_int(cmp, &text("5"), 5), NEITHER);
            assert_eq!(with_int(cmp, &text(""), 0), NEITHER);
        }
        assert_eq!(with_int(Cmp::Ne, &Value::Null, 5), TRUE);
        assert_eq!(with_int(Cmp::Lt, &Value::Null, 5), FALSE);
        let seconds = Value::Num(Bytes::from_static(b"2868.12 sec"), 2868);
        assert_eq!(with_int(Cmp::Gt, &seconds, 4), TRUE);
        assert_eq!(with_text(Cmp::Eq, &seconds, b"2868.12 sec"), TRUE);
        assert_eq!(with_text(Cmp::Eq, &Value::Int(5), b"5"), TRUE);
        assert_eq!(with_text(Cmp::Eq, &text("INVITE"), b"invite"), TRUE);
        assert_eq!(with_text(Cmp::Eq, &Value::Null, b""), FALSE);
        assert_eq!(with_text(Cmp::Gt, &text("10"), b"9"), FALSE);
    }

    #[test]
    fn truths() {
        for (value, want) in [
            (Value::Null, FALSE),
            (Value::Int(0), FALSE),
            (Value::Int(-1), TRUE),
            (text(""), FALSE),
            (text("0"), TRUE),
        ] {
            assert_eq!(truth(&value), want, "{value:?}");
        }
    }

    #[test]
    fn the_pattern_cache_is_bounded() {
        for round in 0..3 {
            for n in 0..200 {
                let hit = matches_pattern(Want::Match, &Value::Int(n), &Value::Str(format!("^{n}$").into()));
                assert_eq!(hit, Some(TRUE), "round {round}");
            }
        }
        assert!(CACHE.with_borrow(|c| c.entries.len()) <= CACHED);
        assert_eq!(matches_pattern(Want::Match, &Value::Int(1), &text("[")), None);
        assert_eq!(matches_pattern(Want::NoMatch, &Value::Null, &text("x")), Some(TRUE));
    }
}
