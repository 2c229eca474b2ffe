//! qrouting: what drouting's gateways are worth, by the calls that went over them: rules with `sort_alg` Q try the
//! better ones first.
//!
//! ```text
//!  follow.rs calls ──► measure.rs sums of the last minutes ──► profile.rs a score ──► order.rs which comes first
//!  rated.rs rules and their destinations (made by drouting's load) · manage.rs commands
//! ```

pub mod follow;
mod manage;
mod measure;
mod order;
mod profile;
pub mod rated;

pub use self::measure::Measured;

use self::measure::MAX_EXTRA;
use self::order::Algorithm;
use self::profile::{Profile, Profiles, Rating};
use self::rated::Rated;
use crate::drouting::Drouting;
use host::db::{Db, DbError, Name, Proof};
use host::load::Loader;
use host::shared::Hooks;
use host::stats::Stats;
use host::{Accepts, Call, Ctx, InParam, Int, LoadError, Registrar, Routes, Text};
use modules::cached::Cached;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BAD: &str = "E_QROUTING_BAD_DST";
/// Between two attempts to load, when the database is down.
const RETRY_MS: u64 = 5000;

/// A statistic of the script's own (`extra_stats`).
#[derive(Clone, PartialEq, Debug)]
pub struct Extra {
    pub name: String,
    /// A higher value is better.
    pub rises: bool,
    /// Fewer samples say nothing.
    pub least: u32,
}

pub struct Qrouting {
    db_url: Option<String>,
    db: Option<Db>,
    table: Name,
    algorithm: Algorithm,
    /// Minutes.
    history: u64,
    /// Seconds.
    interval: u64,
    rating: Rating,
    /// A score below it is told about; 0: none.
    bad_below: f64,
    /// Behind the point, in what management shows.
    digits: usize,
    profiles: Cached<Profiles>,
    drouting: Option<Arc<Drouting>>,
    /// Number of the last step of sampling.
    step: AtomicU64,
}

impl Default for Qrouting {
    fn default() -> Qrouting {
        Qrouting {
            db_url: None,
            db: None,
            table: "qr_profiles".into(),
            algorithm: Algorithm::default(),
            history: 30,
            interval: 5,
            rating: Rating::default(),
            bad_below: 0.0,
            digits: 2,
            profiles: Cached::default(),
            drouting: None,
            step: AtomicU64::new(0),
        }
    }
}

pub fn register(m: &mut Registrar<Qrouting>) {
    m.param_text("db_url", |s, v| Ok(s.db_url = Some(v.into())));
    m.param_text("table_name", |s, v| Ok(s.table = v.to_owned().into()));
    m.param_text("algorithm", |s, v| {
        s.algorithm = match v {
            "dynamic-weights" => Algorithm::DynamicWeights,
            "best-dest-first" => Algorithm::BestFirst,
            _ => return Err(format!("`{v}` is none of dynamic-weights, best-dest-first")),
        };
        Ok(())
    });
    m.param_int("history_span", |s, v| Ok(s.history = v.unsigned_abs()));
    m.param_int("sampling_interval", |s, v| Ok(s.interval = v.unsigned_abs()));
    m.param_text("extra_stats", |s, v| Ok(s.rating.extra = extra(v)?));
    m.param_int("min_samples_asr", |s, v| Ok(s.rating.least[0] = v as u32));
    m.param_int("min_samples_ccr", |s, v| Ok(s.rating.least[1] = v as u32));
    m.param_int("min_samples_pdd", |s, v| Ok(s.rating.least[2] = v as u32));
    m.param_int("min_samples_ast", |s, v| Ok(s.rating.least[3] = v as u32));
    m.param_int("min_samples_acd", |s, v| Ok(s.rating.least[4] = v as u32));
    m.param_text("event_bad_dst_threshold", |s, v| {
        let number = v.trim().parse().ok().filter(|number| (0.0..=1.0).contains(number));
        s.bad_below = number.ok_or_else(|| format!("`{v}` is no number from 0 to 1"))?;
        Ok(())
    });
    m.param_int("decimal_digits", |s, v| Ok(s.digits = v as usize));
    m.accepts(Accepts::DATABASE, &["db_url"]);
    m.accepts(Accepts::range(1, 43_200).unit("minutes"), &["history_span"]);
    m.accepts(Accepts::range(1, 86_400).unit("s"), &["sampling_interval"]);
    m.accepts(
        Accepts::range(0, i32::MAX as i64),
        &["min_samples_asr", "min_samples_ccr", "min_samples_pdd", "min_samples_ast", "min_samples_acd"],
    );
    m.accepts(Accepts::range(0, 15), &["decimal_digits"]);
    m.needs(&["tm", "dialog", "drouting"]);
    m.function("qr_set_xstat", Routes::ALL, qr_set_xstat);
    m.function("qr_disable_dst", Routes::ALL, qr_disable_dst);
    m.function("qr_enable_dst", Routes::ALL, qr_enable_dst);
    manage::register(m);
    m.init_or(init);
    m.ready(ready);
    m.start(|call| {
        follow::start(call.ctx);
        if call.core.worker == 0 {
            load(call, |_, _| ());
        }
    });
    m.timer(1000, step);
    m.timer(RETRY_MS, |call| {
        if call.module.profiles.get().is_none() {
            load(call, |_, _| ());
        }
    });
}

/// `+mos/60; -503_replies`: custom statistics.
fn extra(text: &str) -> Result<Vec<Extra>, String> {
    let mut list = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (rises, rest) = match part.strip_prefix('-') {
            Some(rest) => (false, rest),
            None => (true, part.strip_prefix('+').unwrap_or(part)),
        };
        let (name, least) = rest.split_once('/').map_or((rest, None), |(name, least)| (name, Some(least)));
        let least = match least {
            None => 30,
            Some(least) => {
                least.trim().parse().map_err(|_| format!("`{part}`: after / comes a number of samples"))?
            }
        };
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("`{part}`: its name becomes part of columns: letters, digits and _"));
        }
        list.push(Extra { name: name.to_owned(), rises, least });
    }
    if list.len() > MAX_EXTRA {
        return Err(format!("at most {MAX_EXTRA} statistics"));
    }
    Ok(list)
}

fn init(s: &mut Qrouting, loader: &mut Loader) -> Result<(), LoadError> {
    s.db = loader.db_or_default(s.db_url.as_deref()).in_param("db_url")?;
    if s.db.is_none() {
        return Err("db_url is not set".into());
    }
    if s.interval > s.history * 60 {
        return Err(LoadError::from("it is longer than history_span").in_param("sampling_interval"));
    }
    s.drouting = loader.module::<Drouting>();
    Ok(())
}

fn ready(module: &Arc<Qrouting>, hooks: &mut Hooks, _: &Stats) {
    if let Some(db) = &module.db {
        hooks.proves(Proof::of_version("qrouting", db, &module.table, 1));
    }
    if let Some(drouting) = &module.drouting {
        drouting.rate_by(module.clone());
    }
    hooks.raises([BAD]);
    follow::ready(hooks);
}

fn load(call: &mut Call<Qrouting>, done: impl FnOnce(&mut Ctx, Result<(), DbError>) + 'static) {
    let module = call.module.clone();
    let Some(db) = &module.db else { return };
    let query = module.rating.query(&module.table);
    let (of_rows, of_end) = (module.clone(), module.clone());
    let read = move |rows: &host::db::Rows| of_rows.rating.read(&of_rows.table, rows);
    module.profiles.load(call.ctx, "qrouting", db, query, read, move |ctx, result| {
        for (_, rules) in of_end.partitions() {
            rules.iter().flat_map(|rule| rule.measured()).for_each(|gateway| gateway.forget_score());
        }
        done(ctx, result);
    });
}

/// A second has passed.
fn step(call: &mut Call<Qrouting>) {
    let module = call.module;
    let number = call.core.wall_us / 1_000_000 / module.interval;
    if module.step.swap(number, Ordering::Relaxed) == number {
        return;
    }
    let span = module.history * 60 / module.interval;
    for (_, rules) in module.partitions() {
        rules.iter().flat_map(|rule| rule.measured()).for_each(|gateway| gateway.step(number, span));
    }
}

impl Qrouting {
    /// Names of partitions, and their rules with `sort_alg` Q, the last of the table first as the reference has them.
    fn partitions(&self) -> Vec<(String, Vec<Arc<Rated>>)> {
        let partitions = self.drouting.iter().flat_map(|drouting| drouting.partitions());
        let rules = |data: Arc<crate::drouting::data::Data>| data.rated.iter().rev().cloned().collect();
        partitions.map(|p| (p.name.clone(), p.data().map(rules).unwrap_or_default())).collect()
    }

    /// Of a partition, or of the first.
    fn rules_of(&self, name: Option<&str>) -> Option<Vec<Arc<Rated>>> {
        let mut all = self.partitions().into_iter();
        all.find(|(known, _)| name.is_none_or(|name| name == known)).map(|(_, rules)| rules)
    }

    fn profile(&self, id: i64) -> Option<Arc<Profile>> {
        self.profiles.get()?.get(&id).cloned()
    }

    /// Places of the destinations of a rule, as they are tried.
    pub fn order(&self, ctx: &mut Ctx, partition: &str, rule: &Rated) -> Vec<usize> {
        order::of_rule(ctx, self, partition, rule)
    }

    /// Places of the gateways of a carrier of this rule.
    pub fn order_within(
        &self,
        ctx: &mut Ctx,
        partition: &str,
        rule: &Rated,
        gateways: &[Arc<Measured>],
    ) -> Vec<usize> {
        order::of_carrier(ctx, self, partition, rule, gateways)
    }
}

/// The rule with this id; the error is what a function returns.
fn rule_of(
    call: &mut Call<Qrouting>,
    id: i64,
    partition: Option<Text>,
    what: &str,
) -> Result<Arc<Rated>, i32> {
    let name = partition.map(|name| String::from_utf8_lossy(&name).into_owned());
    let rules = call.module.rules_of(name.as_deref()).filter(|rules| name.is_none() || !rules.is_empty());
    let Some(rules) = rules else {
        let name = name.unwrap_or_default();
        host::complain!(call.ctx, "qrouting", "{what}: partition {name} has no rule with sort_alg Q");
        return Err(-2);
    };
    rules.into_iter().find(|rule| i64::from(rule.id) == id).ok_or_else(|| {
        host::complain!(call.ctx, "qrouting", "{what}: there is no rule {id} with sort_alg Q");
        -1
    })
}

/// qr_set_xstat(rule_id, gw_name, stat_name, inc_by, [part], [inc_total])
fn qr_set_xstat(
    call: &mut Call<Qrouting>,
    rule: Int,
    gateway: Text,
    name: Text,
    value: Text,
    partition: Option<Text>,
    count: Option<Int>,
) -> i32 {
    let shown = String::from_utf8_lossy(&name).into_owned();
    let extra = &call.module.rating.extra;
    let Some(at) = extra.iter().position(|extra| extra.name.as_bytes() == &name[..]) else {
        host::complain!(call.ctx, "qrouting", "qr_set_xstat: extra_stats has no {shown}");
        return -1;
    };
    let number = std::str::from_utf8(&value).ok().and_then(|text| text.trim().parse::<f64>().ok());
    let Some(number) = number.filter(|number| number.is_finite()) else {
        host::complain!(call.ctx, "qrouting", "qr_set_xstat: the value of {shown} is no number");
        return -1;
    };
    let rule = match rule_of(call, rule.0, partition, "qr_set_xstat") {
        Ok(rule) => rule,
        Err(rc) => return rc,
    };
    let Some(measured) = rule.gateway(&gateway) else {
        let gateway = String::from_utf8_lossy(&gateway);
        host::complain!(call.ctx, "qrouting", "qr_set_xstat: rule {} has no gateway {gateway}", rule.id);
        return -1;
    };
    measured.add_extra(at, number, count.map_or(1.0, |count| count.0 as f64));
    1
}

/// qr_disable_dst(rule_id, dst_name, [part])
fn qr_disable_dst(call: &mut Call<Qrouting>, rule: Int, name: Text, partition: Option<Text>) -> i32 {
    set_state(call, rule, name, partition, true)
}

/// qr_enable_dst(rule_id, dst_name, [part])
fn qr_enable_dst(call: &mut Call<Qrouting>, rule: Int, name: Text, partition: Option<Text>) -> i32 {
    set_state(call, rule, name, partition, false)
}

fn set_state(call: &mut Call<Qrouting>, rule: Int, name: Text, partition: Option<Text>, off: bool) -> i32 {
    let what = if off { "qr_disable_dst" } else { "qr_enable_dst" };
    let rule = match rule_of(call, rule.0, partition, what) {
        Ok(rule) => rule,
        Err(rc) => return rc,
    };
    let Some(target) = rule.target(&name) else {
        let name = String::from_utf8_lossy(&name);
        host::complain!(call.ctx, "qrouting", "{what}: rule {} has no destination {name}", rule.id);
        return -1;
    };
    target.set_off(off);
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_the_script() {
        let of = |name: &str, rises, least| Extra { name: name.into(), rises, least };
        assert_eq!(
            extra("+mos/60; r_factor ;-503_replies / 100;"),
            Ok(vec![of("mos", true, 60), of("r_factor", true, 30), of("503_replies", false, 100)])
        );
        for bad in ["+mos/x", "+/3", "a b", "a;b;c;d;e;f"] {
            assert!(extra(bad).is_err(), "{bad}");
        }
    }
}
