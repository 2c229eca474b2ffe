//! Calendar arithmetic on Unix times. Local time is what the server set at start.

use std::sync::atomic::{AtomicI32, Ordering};

static OFFSET: AtomicI32 = AtomicI32::new(0);

/// Seconds east of UTC that local times use.
pub fn set_utc_offset(seconds: i32) {
    OFFSET.store(seconds, Ordering::Relaxed);
}

pub fn utc_offset() -> i32 {
    OFFSET.load(Ordering::Relaxed)
}

/// A moment broken into fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fields {
    pub year: i64,
    /// 1..=12
    pub month: u32,
    /// 1..=31
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
    /// 1..=366
    pub yearday: u32,
}

/// Fields of a Unix time, UTC.
pub fn utc(unix: i64) -> Fields {
    let days = unix.div_euclid(86_400);
    let seconds = unix.rem_euclid(86_400) as u32;
    let (year, month, day) = date_of(days);
    Fields {
        year,
        month,
        day,
        hour: seconds / 3600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        weekday: (days + 4).rem_euclid(7) as u32,
        yearday: (days - days_of(year, 1, 1)) as u32 + 1,
    }
}

/// Fields in local time.
pub fn local(unix: i64) -> Fields {
    utc(unix + i64::from(utc_offset()))
}

/// Days since 1970-01-01 of a date.
pub fn days_of(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let m = i64::from(month);
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn date_of(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, (doy - (153 * mp + 2) / 5 + 1) as u32)
}

pub const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
pub const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// "Mon Jul 21 17:41:03 2008", local time.
pub fn ctime(unix: i64) -> String {
    let f = local(unix);
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {}",
        DAYS[f.weekday as usize],
        MONTHS[f.month as usize - 1],
        f.day,
        f.hour,
        f.minute,
        f.second,
        f.year
    )
}

/// "Mon, 21 Jul 2008 17:41:03 GMT" (RFC 3261 §20.17).
pub fn rfc1123(unix: i64) -> String {
    let f = utc(unix);
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
        DAYS[f.weekday as usize],
        f.day,
        MONTHS[f.month as usize - 1],
        f.year,
        f.hour,
        f.minute,
        f.second
    )
}

/// The Unix time of a Date header, "Mon, 21 Jul 2008 17:41:03 GMT"; `None` when it is not of that form.
pub fn from_rfc1123(text: &str) -> Option<i64> {
    let (_, date) = text.trim().split_once(',')?;
    let mut words = date.split_ascii_whitespace();
    let day = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))?;
    let year = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let fits = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    let zone = matches!(words.next()?, "GMT" | "UTC") && words.next().is_none();
    let days = days_of(year, month as u32 + 1, day);
    (fits && zone).then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// "2008-07-21 17:41:03", as SQL writes it, local time.
pub fn sql(unix: i64) -> String {
    let f = local(unix);
    format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", f.year, f.month, f.day, f.hour, f.minute, f.second)
}

/// The Unix time of "2008-07-21 17:41:03" (local); `None` when it is not of that form.
pub fn from_sql(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let time = |at: usize| number(at..at + 2).unwrap_or(0);
    let days = days_of(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    Some(days * 86_400 + time(11) * 3600 + time(14) * 60 + time(17) - i64::from(utc_offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_inverse() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_216_662_063, "2008-07-21 17:41:03"),
            (4_102_444_799, "2099-12-31 23:59:59"),
        ] {
            assert_eq!(sql(unix), text);
            assert_eq!(from_sql(text), Some(unix));
        }
        assert_eq!(from_rfc1123(&rfc1123(1_216_662_063)), Some(1_216_662_063));
        for bad in
            ["", "Mon, 21 Jul 2008 17:41:03", "Mon, 21 Jul 2008 25:41:03 GMT", "21 Jul 2008 17:41:03 GMT"]
        {
            assert_eq!(from_rfc1123(bad), None, "{bad}");
        }
        assert_eq!(ctime(1_216_662_063), "Mon Jul 21 17:41:03 2008");
        assert_eq!(utc(951_782_400).yearday, 60);
    }
}
