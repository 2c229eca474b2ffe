//! fraud_detection: calls of each user to each prefix are counted, and whoever passes a threshold is told about.

use crate::drouting::tree::{Alphabet, Builder, NewRule, Rule, Tree};
use ahash::AHashMap;
use bytes::Bytes;
use host::Accepts;
use host::clock::{self, Fields};
use host::db::{Db, Name, Proof, Query, Row, Rows};
use host::events::{EventParams, raise};
use host::load::Loader;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::shared::Hooks;
use host::stats::Stats;
use host::{Call, Ctx, Int, Outcome, Registrar, Routes, Text};
use modules::cached::Cached;
use modules::dialog::api::{self, Event, Told};
use modules::dialog::{Flags, Key};
use parking_lot::Mutex;
use script::Value;
use serde_json::json;
use std::rc::Rc;
use std::sync::Arc;

const WARNING: &str = "E_FRD_WARNING";
const CRITICAL: &str = "E_FRD_CRITICAL";
/// Pairs of user and prefix that are counted; a call beyond them is not (-3).
const MAX_COUNTED: usize = 1_000_000;
/// Between two attempts to load, when the database is down.
const RETRY_MS: u64 = 5000;
/// Seconds of the window for calls per minute.
const WINDOW: usize = 60;

/// Columns with the parameters that rename them.
const COLUMNS: [(&str, &str); 16] = [
    ("rid_col", "ruleid"),
    ("pid_col", "profileid"),
    ("prefix_col", "prefix"),
    ("start_h_col", "start_hour"),
    ("end_h_col", "end_hour"),
    ("days_col", "daysoftheweek"),
    ("cpm_thresh_warn_col", "cpm_warning"),
    ("cpm_thresh_crit_col", "cpm_critical"),
    ("calldur_thresh_warn_col", "call_duration_warning"),
    ("calldur_thresh_crit_col", "call_duration_critical"),
    ("totalc_thresh_warn_col", "total_calls_warning"),
    ("totalc_thresh_crit_col", "total_calls_critical"),
    ("concalls_thresh_warn_col", "concurrent_calls_warning"),
    ("concalls_thresh_crit_col", "concurrent_calls_critical"),
    ("seqcalls_thresh_warn_col", "sequential_calls_warning"),
    ("seqcalls_thresh_crit_col", "sequential_calls_critical"),
];

pub struct FraudDetection {
    db_url: Option<String>,
    db: Option<Db>,
    table: Name,
    columns: [Name; COLUMNS.len()],
    utc: bool,
    rules: Cached<Rules>,
    counted: Mutex<AHashMap<(Bytes, Bytes), Counted>>,
}

impl Default for FraudDetection {
    fn default() -> FraudDetection {
        FraudDetection {
            db_url: None,
            db: None,
            table: "fraud_detection".into(),
            columns: COLUMNS.map(|(_, name)| name.into()),
            utc: false,
            rules: Cached::default(),
            counted: Mutex::default(),
        }
    }
}

macro_rules! columns {
    ($m:ident, $($at:literal)+) => {
        $($m.param_text(COLUMNS[$at].0, |s: &mut FraudDetection, v| Ok(s.columns[$at] = v.to_owned().into()));)+
    };
}

pub fn register(m: &mut Registrar<FraudDetection>) {
    m.param_text("db_url", |s, v| Ok(s.db_url = Some(v.into())));
    m.param_int("use_utc_time", |s, v| Ok(s.utc = v != 0));
    m.param_text("table_name", |s, v| Ok(s.table = v.to_owned().into()));
    columns!(m, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    // As the manual names them.
    m.param_text("start_h", |s, v| Ok(s.columns[3] = v.to_owned().into()));
    m.param_text("end_h", |s, v| Ok(s.columns[4] = v.to_owned().into()));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.needs(&["drouting", "dialog"]);
    m.function("check_fraud", Routes::REQUEST.and(Routes::ON_REPLY), check_fraud);
    m.command("fraud_detection:show_stats show_fraud_stats", "calls of a user to a prefix", show)
        .takes("user prefix");
    m.command_late("fraud_detection:reload fraud_reload", "loads the rules again", reload).takes("");
    m.init(init);
    m.ready(ready);
    m.start(start);
    m.timer(RETRY_MS, |call| {
        if call.module.rules.get().is_none() {
            load(call, |_, _| ());
        }
    });
}

fn init(s: &mut FraudDetection, loader: &mut Loader) -> Result<(), String> {
    s.db = loader.db_or_default(s.db_url.as_deref())?;
    if s.db.is_none() { Err("db_url is not set".into()) } else { Ok(()) }
}

fn ready(module: &Arc<FraudDetection>, hooks: &mut Hooks, _: &Stats) {
    if let Some(db) = &module.db {
        hooks.proves(Proof::of_version("fraud_detection", db, &module.table, 1));
    }
    hooks.raises([WARNING, CRITICAL]);
}

fn start(call: &mut Call<FraudDetection>) {
    let module = call.module.clone();
    api::listen(call.ctx, Rc::new(move |ctx, told| follow(ctx, &module, told)));
    if call.core.worker == 0 {
        load(call, |_, _| ());
    }
}

fn load(
    call: &mut Call<FraudDetection>,
    done: impl FnOnce(&mut Ctx, Result<(), host::db::DbError>) + 'static,
) {
    let module = call.module.clone();
    let Some(db) = &module.db else { return };
    let query = Query::select(&module.table).columns(&module.columns);
    let table = module.table.clone();
    module.rules.load(call.ctx, "fraud_detection", db, query, move |rows| Rules::read(&table, rows), done);
}

/// A warning and a critical value; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Threshold {
    warning: u32,
    critical: u32,
}

/// When a rule counts: seconds of the day, and days of the week (Sunday is bit 0).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Hours {
    from: u32,
    to: u32,
    days: u8,
}

/// What a rule looks at, besides its prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limits {
    per_minute: Threshold,
    duration: Threshold,
    total: Threshold,
    concurrent: Threshold,
    sequential: Threshold,
    /// `None`: always.
    hours: Option<Hours>,
}

struct Rules {
    tree: Tree,
    /// By `Rule::traits`.
    limits: Vec<Limits>,
}

/// "HH:MM" in seconds.
fn hour(text: &str) -> Result<u32, String> {
    let parts =
        text.split_once(':').and_then(|(h, m)| Some((h.parse::<u32>().ok()?, m.parse::<u32>().ok()?)));
    let parts = parts.filter(|(hours, minutes)| *hours < 24 && *minutes < 60);
    parts.map(|(hours, minutes)| hours * 3600 + minutes * 60).ok_or_else(|| format!("`{text}` is no HH:MM"))
}

/// "Fri-Mon, Wed"
fn days(text: &str) -> Result<u8, String> {
    const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let day = |word: &str| {
        let found = NAMES.iter().position(|name| name.eq_ignore_ascii_case(word.trim()));
        found.ok_or_else(|| format!("`{}` is no day of the week", word.trim()))
    };
    let mut set = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        while at != last {
            set |= 1 << at;
            at = (at + 1) % 7;
        }
        set |= 1 << last;
    }
    Ok(set)
}

impl Hours {
    fn has(self, now: &Fields) -> bool {
        let second = now.hour * 3600 + now.minute * 60 + now.second;
        let is_day = |day: u32| self.days & (1 << (day % 7)) != 0;
        if self.from < self.to {
            return is_day(now.weekday) && (self.from..self.to).contains(&second);
        }
        // Over midnight: what follows it belongs to the day before.
        second >= self.from && is_day(now.weekday) || second < self.to && is_day(now.weekday + 6)
    }
}

impl Rules {
    fn read(table: &Name, rows: &Rows) -> Rules {
        // Prefixes have digits only; others match nothing in the reference either.
        let (mut builder, mut limits) = (Builder::new(Alphabet::new("")), Vec::new());
        for row in rows.iter() {
            let added = Self::limits(&row).and_then(|found| {
                let id = row.int(0).ok_or("ruleid is NULL or no number")?;
                let profile = row.int(1).ok_or("profileid is NULL or no number")?;
                let rule = NewRule {
                    id: id as i32,
                    groups: &[profile as u32],
                    prefix: &row.text(2).unwrap_or_default(),
                    priority: 0,
                    destinations: &[],
                    attrs: b"",
                    traits: limits.len() as u32,
                };
                builder.add(&rule).map_err(|_| "its prefix has more than digits")?;
                limits.push(found);
                Ok(())
            });
            if let Err(why) = added {
                let key = row.string(0);
                host::error!("fraud_detection", "table {table}, ruleid {key}: {why}: it is left out");
            }
        }
        Rules { tree: builder.build(), limits }
    }

    fn limits(row: &Row<'_>) -> Result<Limits, String> {
        let pair = |at: usize| {
            let number = |at: usize| {
                let value = row.int(at).and_then(|n| u32::try_from(n).ok());
                value.ok_or_else(|| format!("{} is NULL or no number", COLUMNS[at].1))
            };
            Ok::<_, String>(Threshold { warning: number(at)?, critical: number(at + 1)? })
        };
        let (from, to, days_text) = (row.string(3), row.string(4), row.string(5));
        let always = (from.as_str(), to.as_str(), days_text.as_str()) == ("00:00", "23:59", "Mon-Sun");
        let hours = match always {
            true => None,
            false => {
                Some(Hours { from: hour(from.trim())?, to: hour(to.trim())?, days: days(days_text.trim())? })
            }
        };
        Ok(Limits {
            per_minute: pair(6)?,
            duration: pair(8)?,
            total: pair(10)?,
            concurrent: pair(12)?,
            sequential: pair(14)?,
            hours,
        })
    }

    /// The rule for a number, and how much of it is the prefix.
    fn find(&self, number: &[u8], profile: u32, now: &Fields) -> Option<(&Rule, usize)> {
        let open = |rule: &Rule| self.limits[rule.traits as usize].hours.is_none_or(|hours| hours.has(now));
        let found = self.tree.search(number, profile, 0, open);
        let found = found.or_else(|| self.tree.default_rule(profile, 0, open))?;
        Some((found.rule, found.length))
    }
}

/// Calls of one user to one prefix.
#[derive(Clone, Debug)]
struct Counted {
    per_minute: u32,
    total: u32,
    concurrent: u32,
    sequential: u32,
    last_number: Bytes,
    rule: i32,
    /// The beginning of the window, Unix seconds; 0: nothing was counted yet.
    window_from: i64,
    calls: [u16; WINDOW],
    /// Counts up when counting begins anew: calls of before do not end here.
    round: u32,
}

impl Default for Counted {
    fn default() -> Counted {
        Counted {
            per_minute: 0,
            total: 0,
            concurrent: 0,
            sequential: 0,
            last_number: Bytes::new(),
            rule: 0,
            window_from: 0,
            calls: [0; WINDOW],
            round: 0,
        }
    }
}

impl Counted {
    /// One call more. Another rule or another day begin anew.
    fn count(&mut self, rule: i32, number: &Bytes, now_s: i64, same_day: bool) {
        let anew = self.window_from == 0 || self.rule != rule || !same_day;
        if anew {
            (self.per_minute, self.total, self.concurrent, self.sequential) = (0, 0, 0, 0);
            self.round = self.round.wrapping_add(1);
        }
        if self.last_number == *number {
            self.sequential += 1;
        } else {
            (self.last_number, self.sequential) = (Bytes::copy_from_slice(number), 1);
        }
        self.rule = rule;
        self.total += 1;
        let window = WINDOW as i64;
        let age = now_s - self.window_from;
        if anew || age >= 2 * window {
            (self.per_minute, self.calls, self.window_from) = (0, [0; WINDOW], now_s);
        } else if age >= window {
            // What is older than a minute leaves the window.
            let from = now_s - window + 1;
            for second in self.window_from..from {
                let slot = &mut self.calls[second.rem_euclid(window) as usize];
                self.per_minute = self.per_minute.saturating_sub(u32::from(*slot));
                *slot = 0;
            }
            self.window_from = from;
        }
        self.per_minute += 1;
        let slot = &mut self.calls[now_s.rem_euclid(window) as usize];
        *slot = slot.saturating_add(1);
        self.concurrent += 1;
    }
}

/// What a dialog that is counted keeps.
#[derive(Clone, Debug, Default)]
struct Kept(Vec<Watched>);

#[derive(Clone, Debug)]
struct Watched {
    user: Bytes,
    prefix: Bytes,
    number: Bytes,
    rule: i32,
    profile: i64,
    duration: Threshold,
    round: u32,
}

/// One value that is above a threshold.
struct Alarm {
    event: &'static str,
    param: &'static str,
    value: u32,
    threshold: u32,
}

/// The first that is passed, critical ones before warnings.
fn alarm(counted: &Counted, limits: &Limits) -> Option<Alarm> {
    let watched = [
        ("calls-per-minute", counted.per_minute, limits.per_minute),
        ("total-calls", counted.total, limits.total),
        ("concurrent-calls", counted.concurrent, limits.concurrent),
        ("sequential-calls", counted.sequential, limits.sequential),
    ];
    let passed = |event: &'static str, of: fn(&Threshold) -> u32| {
        let found = watched.iter().find(|(_, value, limit)| of(limit) > 0 && *value >= of(limit));
        found.map(|(param, value, limit)| Alarm { event, param, value: *value, threshold: of(limit) })
    };
    passed(CRITICAL, |limit| limit.critical).or_else(|| passed(WARNING, |limit| limit.warning))
}

fn tell(ctx: &mut Ctx, alarm: &Alarm, user: &Bytes, number: &Bytes, rule: i32, profile: i64) {
    let params = [
        ("param", Value::from(alarm.param)),
        ("value", Value::Int(i64::from(alarm.value))),
        ("threshold", Value::Int(i64::from(alarm.threshold))),
        ("user", Value::Str(user.clone())),
        ("called_number", Value::Str(number.clone())),
        ("rule_id", Value::Int(i64::from(rule))),
        ("profile_id", Value::Int(profile)),
    ];
    raise(ctx, alarm.event, params.into_iter().collect::<EventParams>());
}

const OK: i32 = 1;
const NO_RULE: i32 = 2;
const WARNED: i32 = -1;
const ALARMED: i32 = -2;
const FAILED: i32 = -3;

/// check_fraud(user, number, profile)
fn check_fraud(call: &mut Call<FraudDetection>, user: Text, number: Text, profile: Int) -> Outcome {
    let module = call.module.clone();
    module.rules.clone().with(call.ctx, "check_fraud", move |ctx, rules| {
        check(ctx, &module, rules, &user.0, &number.0, profile.0)
    })
}

fn check(
    ctx: &mut Ctx,
    module: &FraudDetection,
    rules: &Rules,
    user: &Bytes,
    number: &Bytes,
    profile: i64,
) -> i32 {
    let now_s = (ctx.core.wall_us / 1_000_000) as i64;
    let fields = |unix: i64| if module.utc { clock::utc(unix) } else { clock::local(unix) };
    let now = fields(now_s);
    let Some((rule, length)) = rules.find(number, profile as u32, &now) else { return NO_RULE };
    let limits = rules.limits[rule.traits as usize];
    let prefix = Bytes::copy_from_slice(&number[..length]);
    let key = (Bytes::copy_from_slice(user), prefix.clone());
    let (found, round) = {
        let mut all = module.counted.lock();
        if all.len() >= MAX_COUNTED && !all.contains_key(&key) {
            host::warn!(
                "fraud_detection",
                "{MAX_COUNTED} pairs of user and prefix are counted: {length} is not"
            );
            return FAILED;
        }
        let counted = all.entry(key).or_default();
        let then = fields(counted.window_from);
        let same_day = (then.year, then.month, then.day) == (now.year, now.month, now.day);
        counted.count(rule.id, number, now_s, same_day);
        (alarm(counted, &limits), counted.round)
    };
    let result = match &found {
        None => OK,
        Some(alarm) if alarm.event == CRITICAL => ALARMED,
        Some(_) => WARNED,
    };
    if let Some(alarm) = &found {
        tell(ctx, alarm, user, number, rule.id, profile);
    }
    let key = match api::current(ctx) {
        Some((key, _)) => Some(key),
        None => api::create(ctx, Flags::default()),
    };
    let Some(dialog) = key.and_then(|key| api::get(ctx, key)) else {
        host::complain!(ctx, "fraud_detection", "the call has no dialog, so its end is not seen");
        return FAILED;
    };
    let own = |text: &Bytes| Bytes::copy_from_slice(text);
    let watched = Watched {
        user: own(user),
        prefix,
        number: own(number),
        rule: rule.id,
        profile,
        duration: limits.duration,
        round,
    };
    dialog.ext.entry::<Kept>().0.push(watched);
    result
}

/// A call that is counted has ended.
fn follow(ctx: &mut Ctx, module: &FraudDetection, told: &Told) {
    if !matches!(told.event, Event::Failed | Event::Terminated | Event::Expired) {
        return;
    }
    let Some((kept, since)) = take(ctx, told.key) else { return };
    let duration = (ctx.core.wall_us / 1_000_000).saturating_sub(since) as u32;
    for watched in kept.0 {
        if let Some(counted) = module.counted.lock().get_mut(&(watched.user.clone(), watched.prefix.clone()))
            && counted.round == watched.round
        {
            counted.concurrent = counted.concurrent.saturating_sub(1);
        }
        // A call that nobody took has no length.
        if told.event == Event::Failed {
            continue;
        }
        let limit = watched.duration;
        let passed = [(CRITICAL, limit.critical), (WARNING, limit.warning)]
            .into_iter()
            .find(|(_, threshold)| *threshold > 0 && duration >= *threshold);
        if let Some((event, threshold)) = passed {
            let alarm = Alarm { event, param: "call-duration", value: duration, threshold };
            tell(ctx, &alarm, &watched.user, &watched.number, watched.rule, watched.profile);
        }
    }
}

/// What the dialog keeps, and when it began (Unix seconds).
fn take(ctx: &mut Ctx, key: Key) -> Option<(Kept, u64)> {
    let dialog = api::get(ctx, key)?;
    let kept = dialog.ext.find::<Kept>().cloned()?;
    dialog.ext.remove::<Kept>();
    Some((kept, u64::from(dialog.started)))
}

fn show(call: &mut Call<FraudDetection>, params: &MiParams) -> MiResult {
    let (user, prefix) = (params.need("user", 0)?, params.need("prefix", 1)?);
    let counted = call.module.counted.lock();
    let found = counted.get(&(user.into(), prefix.into()));
    let found = found.ok_or_else(|| MiError::new(404, "No data for this user+number yet!"))?;
    Ok(json!({
        "cpm": found.per_minute,
        "total_calls": found.total,
        "concurrent_calls": found.concurrent,
        "seq_calls": found.sequential,
    }))
}

fn reload(call: &mut Call<FraudDetection>, _: &MiParams, answer: MiAnswer) {
    load(call, move |_, result| {
        answer.give(result.map(|()| json!("OK")).map_err(|_| MiError::new(500, "Internal error")));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_days() {
        assert_eq!(hour("23:59"), Ok(86_340));
        assert!(["24:00", "1", "12:60", ":", "a:b"].iter().all(|text| hour(text).is_err()));
        for (text, set) in [("Mon", 2), ("Fri-Mon, Wed", 0b110_1011), ("sat-sun", 0b100_0001)] {
            assert_eq!(days(text), Ok(set), "{text}");
        }
        assert!(["Mon,", "Monday", ""].iter().all(|text| days(text).is_err()));
        let monday = |from: u32, to: u32, weekday: u32, hour: u32| {
            let now = Fields { hour, weekday, ..clock::utc(0) };
            Hours { from: from * 3600, to: to * 3600, days: 2 }.has(&now)
        };
        assert!(monday(8, 18, 1, 8) && !monday(8, 18, 1, 18) && !monday(8, 18, 2, 9));
        assert!(monday(22, 6, 1, 23) && monday(22, 6, 2, 5) && !monday(22, 6, 1, 5) && !monday(22, 6, 2, 6));
        assert!(monday(0, 0, 1, 0) && !monday(0, 0, 2, 0));
    }

    #[test]
    fn calls_leave_the_window_after_a_minute() {
        let mut counted = Counted::default();
        let number = Bytes::from("123");
        for (second, expected) in
            [(1000, 1), (1000, 2), (1030, 3), (1059, 4), (1061, 3), (1089, 4), (1200, 1)]
        {
            counted.count(1, &number, second, true);
            assert_eq!(counted.per_minute, expected, "{second}");
        }
        assert_eq!((counted.total, counted.concurrent, counted.sequential), (7, 7, 7));
        counted.count(1, &"456".into(), 1201, true);
        assert_eq!((counted.total, counted.sequential), (8, 1));
        let round = counted.round;
        counted.count(2, &"456".into(), 1202, true);
        assert_eq!((counted.total, counted.sequential, counted.per_minute), (1, 1, 1));
        assert_eq!(counted.round, round + 1);
    }

    #[test]
    fn critical_values_come_first() {
        let limit = |warning, critical| Threshold { warning, critical };
        let limits = Limits {
            per_minute: limit(1, 0),
            sequential: limit(1, 3),
            total: limit(0, 0),
            ..Limits::default()
        };
        let mut counted = Counted { per_minute: 2, total: 9, sequential: 2, ..Counted::default() };
        let found =
            |counted: &Counted| alarm(counted, &limits).map(|a| (a.event, a.param, a.value, a.threshold));
        assert_eq!(found(&counted), Some((WARNING, "calls-per-minute", 2, 1)));
        counted.sequential = 3;
        assert_eq!(found(&counted), Some((CRITICAL, "sequential-calls", 3, 3)));
        assert_eq!(found(&Counted::default()), None);
    }
}
