//! Time recurrences: `timezone|dtstart|dtend|duration|freq|until|interval|byday|bymday|byyday|byweekno|bymonth`
//! (RFC 2445 §4.3.10 in fields), joined with `&`, `/` and `!`.

use host::clock::{self, Fields};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Parentheses and negations inside each other.
const DEPTH: usize = 32;
/// Fields without that of the zone.
const FIELDS: usize = 11;

/// A recurrence or several of them.
#[derive(Debug)]
pub enum Recurrence {
    One(Box<Rule>),
    All(Vec<Recurrence>),
    Any(Vec<Recurrence>),
    Not(Box<Recurrence>),
}

#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
enum Freq {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// One recurrence. Times are wall clock times of its zone, as if that were UTC.
#[derive(Debug)]
pub struct Rule {
    /// `None`: the local time of the server.
    zone: Option<TimeZone>,
    start: Option<i64>,
    /// Seconds from the start; 0: without end.
    duration: i64,
    freq: Option<Freq>,
    until: Option<i64>,
    interval: i64,
    /// (number or 0, weekday with 0 for Sunday)
    days: Vec<(i64, u32)>,
    month_days: Vec<i64>,
    year_days: Vec<i64>,
    weeks: Vec<i64>,
    months: Vec<i64>,
}

impl Recurrence {
    /// `None`: malformed.
    pub fn parse(text: &str) -> Option<Recurrence> {
        let mut parser = Parser { rest: text.trim(), depth: 0 };
        let found = parser.expression()?;
        parser.rest.trim().is_empty().then_some(found)
    }

    /// Whether this moment (Unix seconds) is inside.
    pub fn matches(&self, unix: i64) -> bool {
        match self {
            Recurrence::One(rule) => rule.matches(unix),
            Recurrence::All(list) => list.iter().all(|r| r.matches(unix)),
            Recurrence::Any(list) => list.iter().any(|r| r.matches(unix)),
            Recurrence::Not(inner) => !inner.matches(unix),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    /// Operators go from left to right.
    fn expression(&mut self) -> Option<Recurrence> {
        let mut left = self.operand()?;
        loop {
            self.rest = self.rest.trim_start();
            let join: fn(Vec<Recurrence>) -> Recurrence = match self.rest.chars().next() {
                Some('&') => Recurrence::All,
                Some('/') => Recurrence::Any,
                _ => return Some(left),
            };
            self.rest = &self.rest[1..];
            left = join(vec![left, self.operand()?]);
        }
    }

    fn operand(&mut self) -> Option<Recurrence> {
        self.depth += 1;
        self.rest = self.rest.trim_start();
        let found = match self.rest.chars().next() {
            _ if self.depth > DEPTH => None,
            Some('!') => {
                self.rest = self.rest[1..].trim_start();
                // An empty rule is "always"; nothing is not its opposite.
                if self.rest.is_empty() {
                    return None;
                }
                self.operand().map(|inner| Recurrence::Not(Box::new(inner)))
            }
            Some('(') => {
                self.rest = &self.rest[1..];
                let inner = self.expression()?;
                self.rest = self.rest.trim_start().strip_prefix(')')?;
                Some(inner)
            }
            _ => self.rule(),
        };
        self.depth -= 1;
        found
    }

    /// Up to an operator; a slash before the first `|` belongs to the time zone.
    fn rule(&mut self) -> Option<Recurrence> {
        let bar = self.rest.find('|').unwrap_or(self.rest.len());
        let stops = |(at, c): (usize, char)| match c {
            '&' | ')' => Some(at),
            '/' if at > bar => Some(at),
            _ => None,
        };
        let end = self.rest.char_indices().find_map(stops).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Rule::parse(text.trim()).map(|rule| Recurrence::One(Box::new(rule)))
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        let mut fields: Vec<&str> = text.split('|').map(str::trim).collect();
        // The zone may be left out with its bar; a start begins with a digit.
        let first = fields.first().copied().unwrap_or_default();
        let zone = match first.chars().next() {
            Some(c) if !c.is_ascii_digit() => {
                fields.remove(0);
                Some(TimeZone::get(first).ok()?)
            }
            // An empty field in front is that of the zone.
            None if fields.len() > 1 => {
                fields.remove(0);
                None
            }
            _ => None,
        };
        // Bars behind the last field say nothing.
        if fields.iter().skip(FIELDS).any(|field| !field.is_empty()) {
            return None;
        }
        let field = |n: usize| fields.get(n).copied().unwrap_or_default();
        let time = |n: usize| match field(n) {
            "" => Some(None),
            text => moment(text).map(Some),
        };
        let (start, end) = (time(0)?, time(1)?);
        let duration = match (field(2), start, end) {
            ("", Some(start), Some(end)) => (end - start).max(0),
            ("", ..) => 0,
            (text, ..) => duration(text)?,
        };
        let freq = match field(3).to_ascii_lowercase().as_str() {
            "" => None,
            "daily" => Some(Freq::Daily),
            "weekly" => Some(Freq::Weekly),
            "monthly" => Some(Freq::Monthly),
            "yearly" => Some(Freq::Yearly),
            _ => return None,
        };
        let interval = if field(5).is_empty() { 1 } else { field(5).parse().ok().filter(|n| *n > 0)? };
        Some(Rule {
            zone,
            start,
            duration,
            freq,
            until: time(4)?,
            interval,
            days: list(field(6), weekday)?,
            month_days: list(field(7), number)?,
            year_days: list(field(8), number)?,
            weeks: list(field(9), number)?,
            months: list(field(10), number)?,
        })
    }

    fn matches(&self, unix: i64) -> bool {
        let now = match &self.zone {
            Some(zone) => match Timestamp::from_second(unix) {
                Ok(moment) => unix + i64::from(zone.to_offset(moment).seconds()),
                Err(_) => return false,
            },
            None => unix + i64::from(clock::utc_offset()),
        };
        let Some(start) = self.start else { return true };
        if now < start {
            return false;
        }
        let first = self.duration == 0 || now < start + self.duration;
        let Some(freq) = self.freq else { return first };
        if self.until.is_some_and(|until| now >= until) {
            return false;
        }
        if self.duration > 0 && first {
            return true;
        }
        let (then, now_fields) = (clock::utc(start), clock::utc(now));
        self.in_interval(freq, &then, &now_fields, start, now)
            && self.in_window(freq, &then, &now_fields, start, now)
            && self.by_fields(&now_fields)
    }

    /// The day, week, month or year is one of every `interval`.
    fn in_interval(&self, freq: Freq, then: &Fields, now: &Fields, start: i64, unix: i64) -> bool {
        let days = unix.div_euclid(86_400) - start.div_euclid(86_400);
        let passed = match freq {
            Freq::Daily => days,
            // Weeks begin on Monday.
            Freq::Weekly => (days + i64::from((then.weekday + 6) % 7)).div_euclid(7),
            Freq::Monthly => (now.year - then.year) * 12 + i64::from(now.month) - i64::from(then.month),
            Freq::Yearly => now.year - then.year,
        };
        passed % self.interval == 0
    }

    /// The moment lies as far behind the start of its period as the duration allows.
    fn in_window(&self, freq: Freq, then: &Fields, now: &Fields, start: i64, unix: i64) -> bool {
        if self.duration == 0 {
            return true;
        }
        let daily = !self.days.is_empty() || !self.month_days.is_empty() || !self.year_days.is_empty();
        let days = match freq {
            _ if daily => 0,
            Freq::Daily => 0,
            Freq::Weekly => i64::from((now.weekday + 7 - then.weekday) % 7),
            _ if !self.weeks.is_empty() => i64::from((now.weekday + 7 - then.weekday) % 7),
            Freq::Monthly => i64::from(now.day) - i64::from(then.day),
            _ if !self.months.is_empty() => i64::from(now.day) - i64::from(then.day),
            Freq::Yearly => i64::from(now.yearday) - i64::from(then.yearday),
        };
        let offset = days * 86_400 + unix.rem_euclid(86_400) - start.rem_euclid(86_400);
        (0..self.duration).contains(&offset)
    }

    fn by_fields(&self, now: &Fields) -> bool {
        let counted = |list: &[i64], at: i64, of: i64| {
            list.is_empty() || list.iter().any(|n| *n == at || (*n < 0 && of + n + 1 == at))
        };
        let month_length = month_length(now.year, now.month);
        let year_length = clock::days_of(now.year + 1, 1, 1) - clock::days_of(now.year, 1, 1);
        let (day, yearday) = (i64::from(now.day), i64::from(now.yearday));
        // Weeks of the year, the first one holds the first Monday's week as in C's %W.
        let week = (yearday + 6 - i64::from((now.weekday + 6) % 7)) / 7;
        let in_month = self.freq == Some(Freq::Monthly);
        let (at, length) = if in_month { (day, month_length) } else { (yearday, year_length) };
        let by_day = self.days.is_empty()
            || self.days.iter().any(|(nth, weekday)| {
                let front = (at + 6) / 7;
                let back = (length - at) / 7 + 1;
                *weekday == now.weekday && (*nth == 0 || *nth == front || -*nth == back)
            });
        by_day
            && counted(&self.month_days, day, month_length)
            && counted(&self.year_days, yearday, year_length)
            && counted(&self.weeks, week, 52)
            && counted(&self.months, i64::from(now.month), 12)
    }
}

fn month_length(year: i64, month: u32) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    clock::days_of(next.0, next.1, 1) - clock::days_of(year, month, 1)
}

/// "20121101T000000", with or without a Z.
fn moment(text: &str) -> Option<i64> {
    let text = text.trim_end_matches(['Z', 'z']);
    let digits = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i64>().ok()).flatten()
    };
    if text.len() != 15 || !text.get(8..9)?.eq_ignore_ascii_case("t") {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(4..6)?, digits(6..8)?);
    let (hour, minute, second) = (digits(9..11)?, digits(11..13)?, digits(13..15)?);
    let sound =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let days = clock::days_of(year, month as u32, day as u32);
    sound.then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// "P30D", "PT8H30M", "P1W" in seconds.
fn duration(text: &str) -> Option<i64> {
    let text = text.to_ascii_uppercase();
    let (mut total, mut number, mut time, mut seen) = (0i64, None::<i64>, false, false);
    for c in text.strip_prefix(['P', '+']).map_or(text.as_str(), |t| t).trim_start_matches('P').chars() {
        match (c, number) {
            ('0'..='9', n) => {
                let digit = i64::from(c as u8 - b'0');
                number = Some(n.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            }
            ('T', None) => time = true,
            (unit, Some(n)) => {
                let seconds = match (unit, time) {
                    ('W', false) => 604_800,
                    ('D', false) => 86_400,
                    ('H', true) => 3600,
                    ('M', true) => 60,
                    ('S', true) => 1,
                    _ => return None,
                };
                total = total.checked_add(n.checked_mul(seconds)?)?;
                number = None;
                seen = true;
            }
            _ => return None,
        }
    }
    (seen && number.is_none()).then_some(total)
}

fn list<T>(text: &str, one: fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// "MO", "-1FR", "2TU"
fn weekday(text: &str) -> Option<(i64, u32)> {
    let at = text.len().checked_sub(2).filter(|at| text.is_char_boundary(*at))?;
    let (nth, name) = text.split_at(at);
    let names = ["SU", "MO", "TU", "WE", "TH", "FR", "SA"];
    let day = names.iter().position(|n| n.eq_ignore_ascii_case(name))?;
    let nth = if nth.is_empty() { 0 } else { nth.parse().ok()? };
    Some((nth, day as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        moment(text).unwrap()
    }

    #[test]
    fn recurrences() {
        let work = "20210104T080000|20210104T180000||WEEKLY|||MO,TU,WE,TH,FR";
        let lunch = "20210104T120000|20210104T140000||DAILY";
        for (rule, moment, want) in [
            ("20120101T000000|20130101T000000", "20120601T120000", true),
            ("20120101T000000|20130101T000000", "20130101T000000", false),
            ("20121101T000000||p30d", "20121130T235959", true),
            ("20121101T000000||p30d", "20121201T000000", false),
            (work, "20210106T093000", true),
            (work, "20210106T183000", false),
            (work, "20210109T093000", false),
            (&format!("{work} & !{lunch}"), "20210106T130000", false),
            (&format!("{work} & !{lunch}"), "20210106T143000", true),
            (&format!("!({work} / {lunch})"), "20210109T130000", false),
            ("20210101T000000||P1D|MONTHLY||||1,-1", "20210331T120000", true),
            ("20210101T000000||P1D|MONTHLY||||1,-1", "20210330T120000", false),
            ("20210101T000000||P1D|MONTHLY|||2TU", "20210309T120000", true),
            ("20210101T000000||P1D|MONTHLY|||-1FR", "20210326T120000", true),
            ("20210101T000000||PT1H|DAILY||2", "20210102T003000", false),
            ("20210101T000000||PT1H|DAILY||2", "20210103T003000", true),
            ("20210101T000000||P1D|YEARLY|||||||12", "20221201T120000", true),
            ("20210101T000000||P1D|YEARLY|||||||12", "20221101T120000", false),
            ("20210101T000000||PT1H|DAILY|20210201T000000", "20210301T003000", false),
            ("UTC|20210101T000000|20210101T010000", "20210101T003000", true),
        ] {
            let parsed = Recurrence::parse(rule).unwrap_or_else(|| panic!("{rule}"));
            assert_eq!(parsed.matches(at(moment)), want, "{rule} at {moment}");
        }
        for bad in [
            "2012",
            "x|y",
            "20120101T000000||P|",
            "20120101T000000|||NEVER",
            "(",
            "!",
            "20120101T000000||P1D|DAILY|||XX",
        ] {
            assert!(Recurrence::parse(bad).is_none(), "{bad}");
        }
        assert!(Recurrence::parse(&"(".repeat(100_000)).is_none());
        assert!(Recurrence::parse(&"!".repeat(100_000)).is_none());
    }
}
