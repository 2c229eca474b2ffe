//! statistics: counters of the script, beside those of the server.

mod series;

use host::arg::OutVar;
use host::ctx::Ctx;
use host::stats::Source;
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::{Call, Int, Registrar, Routes, Text, Value};
use parking_lot::Mutex;
use script::ast::AssignOp;
use series::Profile;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Group of statistics that name none.
const DYNAMIC: &str = "dynamic";
/// Group of declared ones (parameter `variable`) that name none.
const DECLARED: &str = "script";
/// Statistics of all modules and scripts; names are built at run time.
const MAX_STATISTICS: usize = 100_000;
/// Iterators, by name.
const MAX_ITERATORS: usize = 1000;

#[derive(Default)]
pub struct Statistics {
    groups: Vec<String>,
    /// `variable` parameters: (name, it may be reset).
    variables: Vec<(String, bool)>,
    profiles: BTreeMap<String, Arc<Profile>>,
    iterators: Mutex<BTreeMap<String, Iteration>>,
}

/// Where an iterator stands.
struct Iteration {
    group: String,
    next: usize,
}

pub fn register(m: &mut Registrar<Statistics>) {
    m.param_text("variable", |s, text| {
        let (name, flag) = text.split_once('/').unwrap_or((text, ""));
        if !matches!(flag, "" | "no_reset") {
            return Err(format!("unknown flag {flag}: there is no_reset"));
        }
        Ok(s.variables.push((name.trim().to_string(), flag.is_empty())))
    });
    m.param_text("stat_groups", |s, text| {
        Ok(s.groups.extend(text.split(',').map(|g| g.trim().to_string()).filter(|g| !g.is_empty())))
    });
    m.param_text("stat_series_profile", |s, text| {
        let (name, profile) = Profile::parse(text)?;
        Ok(s.profiles.insert(name, Arc::new(profile)).map_or((), drop))
    });
    m.init(|s, loader| {
        for (name, may_reset) in &s.variables {
            let (group, name) = match name.contains(':') {
                true => s.split(name).ok_or_else(|| format!("{name}: there is no such group"))?,
                false => (DECLARED, &name[..]),
            };
            loader.stats.counter(group, name);
            if !may_reset {
                loader.stats.keep(&format!("{group}:{name}"));
            }
        }
        Ok(())
    });
    m.function("update_stat", Routes::ALL, update_stat);
    m.function("reset_stat", Routes::ALL, reset_stat);
    m.function("stat_iter_init", Routes::ALL, stat_iter_init);
    m.function("stat_iter_next", Routes::ALL, stat_iter_next);
    m.function("update_stat_series", Routes::ALL, update_stat_series);
    m.variable_class("stat", |spec, loader, _| {
        let name = Name::new(spec, loader, "$stat(name)")?;
        Ok(VarKind::Other(Box::new(Stat { name })))
    });
    // The series forget with time.
    m.timer(1000, |call| {
        let now = call.core.wall_us / 1_000_000;
        call.module.profiles.values().for_each(|profile| profile.set_clock(now));
    });
}

impl Statistics {
    /// Group and name of "group:name"; `None`: the group is not declared.
    fn split<'a>(&'a self, name: &'a str) -> Option<(&'a str, &'a str)> {
        match name.split_once(':') {
            Some((group, name)) => {
                let known = [DYNAMIC, DECLARED].contains(&group) || self.groups.iter().any(|g| g == group);
                known.then_some((group, name))
            }
            None => Some((DYNAMIC, name)),
        }
    }
}

/// `$stat(name)`, `$stat(group:name)`; `= 0` resets.
struct Stat {
    name: Name,
}

impl Variable for Stat {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(name) = self.name.text(ctx) else { return Value::Null };
        ctx.shared().stats.value(&String::from_utf8_lossy(&name)).map_or(Value::Null, Value::Int)
    }

    fn set(&self, ctx: &mut Ctx, _: At, _: AssignOp, value: Value) -> bool {
        let Some(name) = self.name.text(ctx) else { return false };
        let zero = value.is_null() || value.int() == Some(0);
        zero && ctx.shared().stats.reset(&String::from_utf8_lossy(&name))
    }

    fn writable(&self) -> bool {
        true
    }
}

/// update_stat(name, value): adds; one that does not exist is made.
fn update_stat(call: &mut Call<Statistics>, name: Text, value: Int) -> bool {
    let name = name.str();
    let stats = &call.shared().stats;
    match stats.source(&name) {
        Some(Source::Counter(counter)) => counter.add(value.0),
        Some(Source::Computed(_)) => return false,
        None => match call.module.split(&name) {
            Some((group, name)) if stats.len() < MAX_STATISTICS => stats.counter(group, name).add(value.0),
            _ => return false,
        },
    }
    true
}

/// reset_stat(name)
fn reset_stat(call: &mut Call<Statistics>, name: Text) -> bool {
    // One that is not there is made.
    call.shared().stats.source(&name.str()).is_some() && call.shared().stats.reset(&name.str())
        || call.shared().stats.source(&name.str()).is_none() && update_stat(call, name, Int(0))
}

/// stat_iter_init(group, iterator): it stands before the first statistic of the group.
fn stat_iter_init(call: &mut Call<Statistics>, group: Text, name: Text) -> bool {
    let (group, name) = (group.str().into_owned(), name.str().into_owned());
    let mut iterators = call.module.iterators.lock();
    if iterators.len() >= MAX_ITERATORS && !iterators.contains_key(&name) {
        return false;
    }
    iterators.insert(name, Iteration { group, next: 0 });
    true
}

/// stat_iter_next(name, value, iterator): false at the end.
fn stat_iter_next(call: &mut Call<Statistics>, name: OutVar, value: OutVar, iterator: Text) -> bool {
    let (group, at) = match call.module.iterators.lock().get_mut(&*iterator.str()) {
        Some(found) => {
            found.next += 1;
            (found.group.clone(), found.next - 1)
        }
        None => return false,
    };
    let Some((_, found, count)) = call.shared().stats.list(Some(&group)).into_iter().nth(at) else {
        return false;
    };
    name.set(call.ctx, found) && value.set(call.ctx, count)
}

/// update_stat_series(profile, name, value)
fn update_stat_series(call: &mut Call<Statistics>, profile: Text, name: Text, value: Int) -> bool {
    let now = call.core.wall_us / 1_000_000;
    let Some(found) = call.module.profiles.get(&*profile.str()).cloned() else {
        host::warn!("statistics", "there is no series profile {}", profile.str());
        return false;
    };
    let stats = call.shared().stats.clone();
    found.update(&stats, &profile.str(), &name.str(), now, value.0)
}

#[cfg(test)]
mod tests {
    use crate::testing;
    use script::ast::Dialect;

    #[test]
    fn counters_of_scripts() {
        let config = "loadmodule \"statistics.so\"
            modparam(\"statistics\", \"variable\", \"fixed/no_reset\")
            modparam(\"statistics\", \"stat_groups\", \"method, packet\")";
        let body = r#"
            $var(n) = "calls"; update_stat($var(n), 2); update_stat("calls", -1);
            update_stat("method:invite", 3); update_stat("packet:invite", 1);
            update_stat("fixed", 1); $stat(fixed) = 0; if (!reset_stat("fixed")) $avp(kept) = 1;
            if (!update_stat("other:x", 1)) $avp(refused) = 1;
            $avp(calls) = $stat(calls); $avp(invite) = $stat(method:invite); $avp(fixed) = $stat(fixed);
            $stat(calls) = 0; $avp(zero) = $stat(calls);
            stat_iter_init("method", "i");
            while (stat_iter_next($var(name), $var(value), "i")) $avp(list) = $var(name) + $var(value);
            if ($stat(none) == NULL) $avp(null) = 1;
        "#;
        let ran = testing::run(config, body, Dialect::V4);
        for (name, want) in [
            ("calls", "1"),
            ("invite", "3"),
            ("fixed", "1"),
            ("kept", "1"),
            ("refused", "1"),
            ("zero", "0"),
            ("list", "invite3"),
            ("null", "1"),
        ] {
            assert_eq!(ran.avps(name), [want], "{name}");
        }
    }

    #[test]
    fn series_of_scripts() {
        let config = "loadmodule \"statistics.so\"
            modparam(\"statistics\", \"stat_series_profile\", \"avg: algorithm=average window=10\")
            modparam(\"statistics\", \"stat_series_profile\", \"perc: algorithm=percentage group=calls\")";
        let body = r#"
            update_stat_series("avg", "PDD", 100); update_stat_series("avg", "PDD", 200);
            update_stat_series("perc", "ASR", 1); update_stat_series("perc", "ASR", 1);
            update_stat_series("perc", "ASR", 1); update_stat_series("perc", "ASR", -1);
            $avp(pdd) = $stat(PDD); $avp(asr) = $stat(calls:ASR);
        "#;
        let ran = testing::run(config, body, Dialect::V4);
        assert_eq!((ran.avps("pdd"), ran.avps("asr")), (vec!["150".to_string()], vec!["75".to_string()]));
    }
}
