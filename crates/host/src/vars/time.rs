//! Time: `$Ts`, `$Tsm`, `$TS`, `$Tf`, `$time(format)`.

use super::name::Name;
use crate::clock::{self, DAYS, Fields, MONTHS};
use crate::ctx::Ctx;
use crate::language::vartable::VarTable;
use crate::var::{At, VarKind, Variable};
use bytes::Bytes;
use script::Value;
use std::fmt::Write;

pub fn register(table: &mut VarTable) {
    table.read("Ts", |ctx| Value::Int(seconds(ctx)));
    table.read("Tsm", |ctx| Value::Int((ctx.core.wall_us % 1_000_000) as i64));
    table.read("TS", |ctx| Value::Int((ctx.shared().started_ms / 1000) as i64));
    for name in ["Tf", "TF"] {
        table.read(name, |ctx| {
            let now = seconds(ctx);
            Value::Both(Bytes::from(clock::ctime(now)), now)
        });
    }
    table.class("time", |spec, loader| {
        Ok(VarKind::Other(Box::new(Formatted(Name::new(spec, loader, "$time(%Y-%m-%d)")?))))
    });
}

/// Unix time now.
fn seconds(ctx: &Ctx) -> i64 {
    (ctx.core.wall_us / 1_000_000) as i64
}

struct Formatted(Name);

impl Variable for Formatted {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        match self.0.text(ctx) {
            Some(format) => Value::Str(strftime(&format, seconds(ctx)).into()),
            None => Value::Null,
        }
    }
}

const LONG_DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const LONG_MONTHS: [&str; 12] = [
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

/// The local time of `unix` in a format of strftime(3), POSIX locale. Unknown directives stay.
pub fn strftime(format: &[u8], unix: i64) -> String {
    let fields = clock::local(unix);
    let format = String::from_utf8_lossy(format);
    let mut out = String::with_capacity(format.len() * 2);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // GNU and POSIX modifiers change nothing in this locale.
        let mut directive = chars.next();
        while matches!(directive, Some('E' | 'O')) {
            directive = chars.next();
        }
        match directive {
            Some(directive) => write_directive(&mut out, directive, unix, &fields),
            None => out.push('%'),
        }
    }
    out
}

fn write_directive(out: &mut String, directive: char, unix: i64, f: &Fields) {
    let hour12 = match f.hour % 12 {
        0 => 12,
        hour => hour,
    };
    let (iso_year, iso_week) = iso_week(f);
    let offset = clock::utc_offset();
    // Writing into a string cannot fail.
    let _ = match directive {
        'Y' => write!(out, "{}", f.year),
        'C' => write!(out, "{:02}", f.year.div_euclid(100)),
        'y' => write!(out, "{:02}", f.year.rem_euclid(100)),
        'm' => write!(out, "{:02}", f.month),
        'd' => write!(out, "{:02}", f.day),
        'e' => write!(out, "{:2}", f.day),
        'H' => write!(out, "{:02}", f.hour),
        'k' => write!(out, "{:2}", f.hour),
        'I' => write!(out, "{hour12:02}"),
        'l' => write!(out, "{hour12:2}"),
        'M' => write!(out, "{:02}", f.minute),
        'S' => write!(out, "{:02}", f.second),
        'j' => write!(out, "{:03}", f.yearday),
        'a' => write!(out, "{}", DAYS[f.weekday as usize]),
        'A' => write!(out, "{}", LONG_DAYS[f.weekday as usize]),
        'b' | 'h' => write!(out, "{}", MONTHS[f.month as usize - 1]),
        'B' => write!(out, "{}", LONG_MONTHS[f.month as usize - 1]),
        'w' => write!(out, "{}", f.weekday),
        'u' => write!(out, "{}", if f.weekday == 0 { 7 } else { f.weekday }),
        'p' => write!(out, "{}", if f.hour < 12 { "AM" } else { "PM" }),
        'P' => write!(out, "{}", if f.hour < 12 { "am" } else { "pm" }),
        's' => write!(out, "{unix}"),
        'U' => write!(out, "{:02}", (f.yearday + 6 - f.weekday) / 7),
        'W' => write!(out, "{:02}", (f.yearday + 6 - (f.weekday + 6) % 7) / 7),
        'V' => write!(out, "{iso_week:02}"),
        'G' => write!(out, "{iso_year}"),
        'g' => write!(out, "{:02}", iso_year.rem_euclid(100)),
        'z' => {
            let sign = if offset < 0 { '-' } else { '+' };
            write!(out, "{sign}{:02}{:02}", offset.abs() / 3600, offset.abs() / 60 % 60)
        }
        'Z' if offset == 0 => write!(out, "UTC"),
        'Z' => return write_directive(out, 'z', unix, f),
        'n' => writeln!(out),
        't' => write!(out, "\t"),
        '%' => write!(out, "%"),
        'D' | 'x' => return composed(out, "%m/%d/%y", unix),
        'F' => return composed(out, "%Y-%m-%d", unix),
        'T' | 'X' => return composed(out, "%H:%M:%S", unix),
        'R' => return composed(out, "%H:%M", unix),
        'r' => return composed(out, "%I:%M:%S %p", unix),
        'c' => return composed(out, "%a %b %e %H:%M:%S %Y", unix),
        other => write!(out, "%{other}"),
    };
}

fn composed(out: &mut String, format: &str, unix: i64) {
    out.push_str(&strftime(format.as_bytes(), unix));
}

/// Year and week of ISO 8601.
fn iso_week(f: &Fields) -> (i64, u32) {
    let monday_based = (i64::from(f.weekday) + 6) % 7;
    // The week belongs to the year of its Thursday.
    let days = clock::days_of(f.year, f.month, f.day) - monday_based + 3;
    let thursday = clock::utc(days * 86_400);
    (thursday.year, (thursday.yearday - 1) / 7 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        // The test process keeps UTC as local time.
        for (format, want) in [
            ("%Y-%m-%d %H:%M:%S", "2008-07-21 17:41:03"),
            ("%a %b %e %I%p %j", "Mon Jul 21 05PM 203"),
            ("%A, %B", "Monday, July"),
            ("%c|%D|%F|%T|%R|%r", "Mon Jul 21 17:41:03 2008|07/21/08|2008-07-21|17:41:03|17:41|05:41:03 PM"),
            ("%s %u %w %y %C", "1216662063 1 1 08 20"),
            ("%U %W %V %G", "29 29 30 2008"),
            ("100%% %q %", "100% %q %"),
            ("%Ey", "08"),
        ] {
            assert_eq!(strftime(format.as_bytes(), 1_216_662_063), want, "{format}");
        }
        assert_eq!(strftime(b"%V %G", 1_104_537_600), "53 2004");
    }
}
