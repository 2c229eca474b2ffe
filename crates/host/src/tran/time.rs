//! `{s.date2unix}`: the Date header of SIP.

use crate::clock::{self, DAYS, MONTHS};
use script::Value;

/// "Thu, 13 Jun 2024 12:48:00 GMT" as seconds since 1970; NULL when it is no such text.
pub(super) fn date2unix(value: Value) -> Value {
    let Value::Str(text) = &value else { return Value::Null };
    std::str::from_utf8(text)
        .ok()
        .and_then(unix)
        .filter(|n| *n >= 0)
        .map_or(Value::Null, |n| Value::Str(n.to_string().into()))
}

/// As strptime(3) reads `%a, %d %b %Y %H:%M:%S GMT`: blanks are free, what follows does not matter, and a
/// day beyond the end of its month belongs to the next one.
fn unix(text: &str) -> Option<i64> {
    let rest = name(text.trim_start(), &DAYS)?.1.strip_prefix(',')?;
    let (day, rest) = digits(rest, 2)?;
    let (month, rest) = name(rest.trim_start(), &MONTHS)?;
    let (year, rest) = digits(rest, 4)?;
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    rest.trim_start().strip_prefix("GMT")?;
    let sound = (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let days = clock::days_of(year, month as u32 + 1, 1) + day - 1;
    sound.then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// One of these names, in full English or its first three letters, and what follows it.
fn name<'a>(text: &'a str, names: &[&str]) -> Option<(usize, &'a str)> {
    const FULL: [&str; 19] = [
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let starts = |name: &str| text.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name));
    let at = names.iter().position(|name| starts(name))?;
    let full = FULL.iter().find(|full| full.starts_with(names[at]) && starts(full));
    Some((at, &text[full.map_or(names[at].len(), |full| full.len())..]))
}

/// A number of at most `most` digits after blanks.
fn digits(text: &str, most: usize) -> Option<(i64, &str)> {
    let text = text.trim_start();
    let len = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    Some((text[..len].parse().ok()?, &text[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, want) in [
            ("Thu, 13 Jun 2024 12:48:00 GMT", Some(1_718_282_880)),
            ("thursday,13 june 2024 12:48:00GMT and more", Some(1_718_282_880)),
            ("Sat, 31 Feb 2026 00:00:00 GMT", Some(1_772_496_000)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 13 Jun 2024 12:48:00", None),
            ("Thu, 13 Jun 2024 25:48:00 GMT", None),
            ("é, 13", None),
            ("garbage", None),
            ("", None),
        ] {
            assert_eq!(unix(text), want, "{text}");
        }
    }
}
