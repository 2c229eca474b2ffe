//! cfgutils: pauses, random numbers, shared variables, locks, times.

mod locks;
mod random;
mod shared;

use crate::timerec::Recurrence;
use bytes::Bytes;
use host::arg::{AnyVar, OutVar};
use host::clock;
use host::ctx::{Ctx, Output};
use host::var::{At, VarKind, Variable};
use host::vars::name::Name;
use host::{Call, Int, Outcome, Registrar, Routes, Suspension, Text, Value};
use std::sync::Arc;

/// Values of one variable that are counted.
const MAX_VALUES: i32 = 100_000;

#[derive(Default)]
pub struct Cfgutils {
    random: random::Probability,
    shared: shared::SharedVars,
    locks: Arc<locks::Locks>,
    hash_file: Option<String>,
    hash: Option<String>,
}

pub fn register(m: &mut Registrar<Cfgutils>) {
    m.ignored(&["lock_pool_size"], "each key has a lock of its own");
    m.ignored(&["shv_hash_size"], "the table grows as needed");
    m.param_text("hash_file", |s, v| Ok(s.hash_file = Some(v.to_string())));
    m.init(|s, loader| {
        if let Some(file) = &s.hash_file {
            s.hash = Some(hash_of(file)?);
        }
        shared::set_initial(s, loader);
        Ok(())
    });
    m.function("sleep", Routes::ALL, sleep);
    m.function("usleep", Routes::ALL, usleep);
    m.function("abort", Routes::ALL, abort);
    m.function("pkg_status", Routes::ALL, memory_status);
    m.function("shm_status", Routes::ALL, memory_status);
    m.function("set_count", Routes::ALL, set_count);
    m.function("set_select_weight", Routes::ALL, random::set_select_weight);
    m.function("ts_usec_delta", Routes::ALL, ts_usec_delta);
    m.function("get_accurate_time", Routes::ALL, get_accurate_time);
    m.function("check_time_rec", Routes::ALL, check_time_rec);
    m.function("shuffle_avps", Routes::ALL, random::shuffle_avps);
    m.function("get_static_lock", Routes::ALL, locks::get_static);
    m.function("release_static_lock", Routes::ALL, locks::release_static);
    m.function("get_dynamic_lock", Routes::ALL, locks::get_dynamic);
    m.function("release_dynamic_lock", Routes::ALL, locks::release_dynamic);
    m.function("strings_share_lock", Routes::ALL, locks::share);
    random::register(m);
    shared::register(m);
    m.variable_class("env", |spec, loader, _| {
        Ok(VarKind::Other(Box::new(Env(Name::new(spec, loader, "$env(NAME)")?))))
    });
    m.variable_class("ctime", |spec, loader, _| {
        Ok(VarKind::Other(Box::new(Ctime(Name::new(spec, loader, "$ctime(hour)")?))))
    });
    m.command(
        "cfgutils:get_config_hash get_config_hash",
        "the hash of hash_file when the server started",
        |call, _| match &call.module.hash {
            Some(hash) => Ok(hash.as_str().into()),
            None => Err(host::mi::MiError::new(404, "Functionality disabled")),
        },
    )
    .takes("");
    m.command(
        "cfgutils:check_config_hash check_config_hash",
        "whether hash_file has changed since the server started",
        |call, _| {
            let (Some(file), Some(old)) = (&call.module.hash_file, &call.module.hash) else {
                return Err(host::mi::MiError::new(404, "Functionality disabled"));
            };
            match hash_of(file) {
                Ok(new) if new == *old => {
                    Ok("The actual config file hash is identical to the stored one.".into())
                }
                Ok(_) => Err(host::mi::MiError::new(
                    400,
                    "The actual config file hash is not identical to the stored one",
                )),
                Err(error) => Err(host::mi::MiError::new(500, error)),
            }
        },
    )
    .takes("");
}

fn hash_of(file: &str) -> Result<String, String> {
    use md5::Digest;
    let text = std::fs::read(file).map_err(|e| format!("{file}: {e}"))?;
    Ok(hex::encode(md5::Md5::digest(text)))
}

/// sleep(seconds): holds this script only.
fn sleep(_: &mut Call<Cfgutils>, seconds: Int) -> Outcome {
    Suspension::timer("sleep", (seconds.0.max(0) as u64).saturating_mul(1000), 1)
}

/// usleep(microseconds), rounded up to milliseconds.
fn usleep(_: &mut Call<Cfgutils>, us: Int) -> Outcome {
    Suspension::timer("usleep", (us.0.max(0) as u64).div_ceil(1000), 1)
}

/// abort(): ends the server with the code of a program that was aborted.
fn abort(call: &mut Call<Cfgutils>) -> i32 {
    host::error!("cfgutils", "abort() in the script");
    call.core.outputs.push(Output::Shutdown { code: 134 });
    0
}

/// pkg_status(), shm_status(): the memory of the process, in the log.
fn memory_status(call: &mut Call<Cfgutils>) -> i32 {
    let stats = &call.shared().stats;
    let bytes = |name: &str| stats.value(name).unwrap_or(0);
    host::info!(
        "cfgutils",
        "memory: {} bytes used of {}",
        bytes("shmem:used_size"),
        bytes("shmem:total_size")
    );
    1
}

/// set_count(variable, result): how many values it has.
fn set_count(call: &mut Call<Cfgutils>, var: AnyVar, out: OutVar) -> bool {
    let values = (0..MAX_VALUES).take_while(|n| !var.0.get_at(call.ctx, *n).is_null()).count();
    out.set(call.ctx, values as i64)
}

/// ts_usec_delta(s, us, s, us, [text], [number]): microseconds between two moments.
fn ts_usec_delta(
    call: &mut Call<Cfgutils>,
    s1: Int,
    us1: Int,
    s2: Int,
    us2: Int,
    text: Option<OutVar>,
    number: Option<OutVar>,
) -> bool {
    let moment = |s: Int, us: Int| i128::from(s.0) * 1_000_000 + i128::from(us.0);
    let delta = (moment(s1, us1) - moment(s2, us2)).abs();
    let written = text.is_none_or(|out| out.set(call.ctx, delta.to_string()));
    match (number, i32::try_from(delta)) {
        (Some(out), Ok(delta)) => written && out.set(call.ctx, i64::from(delta)),
        (Some(_), Err(_)) => false,
        (None, _) => written,
    }
}

/// get_accurate_time(seconds, microseconds, [both as text])
fn get_accurate_time(call: &mut Call<Cfgutils>, seconds: OutVar, us: OutVar, text: Option<OutVar>) -> bool {
    let now = call.core.wall_us;
    let (s, rest) = (now / 1_000_000, now % 1_000_000);
    seconds.set(call.ctx, s as i64)
        && us.set(call.ctx, rest as i64)
        && text.is_none_or(|out| out.set(call.ctx, format!("{s}.{rest:06}")))
}

/// check_time_rec(recurrence, [Unix time]): 1 inside, -1 outside, -2 malformed.
fn check_time_rec(call: &mut Call<Cfgutils>, rule: Text, time: Option<Int>) -> i32 {
    let now = time.map_or((call.core.wall_us / 1_000_000) as i64, |t| t.0);
    match Recurrence::parse(&rule.str()) {
        Some(rule) if rule.matches(now) => 1,
        Some(_) => -1,
        None => -2,
    }
}

/// `$env(NAME)`
struct Env(Name);

impl Variable for Env {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let Some(name) =
            self.0.text(ctx).filter(|n| !n.is_empty() && !n.iter().any(|b| matches!(b, b'=' | 0)))
        else {
            return Value::Null;
        };
        let value = std::env::var_os(std::ffi::OsStr::from_bytes(&name));
        value.map_or(Value::Null, |value| Value::Str(Bytes::from(value.into_vec())))
    }
}

/// `$ctime(hour)`: a part of the local time.
struct Ctime(Name);

impl Variable for Ctime {
    fn get(&self, ctx: &mut Ctx, _: At) -> Value {
        let Some(name) = self.0.text(ctx) else { return Value::Null };
        let now = clock::local((ctx.core.wall_us / 1_000_000) as i64);
        Value::Int(match &name[..] {
            b"sec" => now.second.into(),
            b"min" => now.minute.into(),
            b"hour" => now.hour.into(),
            b"mday" => now.day.into(),
            b"mon" => now.month.into(),
            b"year" => now.year,
            b"wday" => i64::from(now.weekday) + 1,
            b"yday" => now.yearday.into(),
            b"isdst" => 0,
            _ => return Value::Null,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing;
    use script::ast::Dialect;

    #[test]
    fn script_functions() {
        let config = "loadmodule \"cfgutils.so\"
            modparam(\"cfgutils\", \"shvset\", \"debug=i:1\")
            modparam(\"cfgutils\", \"shvset\", \"gw=s:sip:10.0.0.1\")";
        let body = r#"
            $avp(debug) = $shv(debug); $avp(gw) = $shv(gw); $avp(none) = $shv(none);
            $shv(x) = "y"; $avp(x) = $shv(x);
            $avp(l) = 1; $avp(l) = 2; set_count($avp(l), $avp(count)); shuffle_avps($avp(l));
            set_count($avp(l), $avp(after));
            ts_usec_delta(10, 300, 12, 100, $avp(text), $avp(number));
            if (check_time_rec("20120101T000000|20130101T000000", 1340000000)) $avp(time) = "in";
            if (rand_event(100)) $avp(sure) = 1;
            if ($RANDOM >= 0 && $ctime(year) == 1970) $avp(year) = 1;
            if ($env(NO_SUCH_VARIABLE) == NULL && $env(PATH) != NULL) $avp(env) = 1;
            if (get_static_lock("a") && get_dynamic_lock($avp(gw)) && !get_static_lock("a")) $avp(locked) = 1;
            release_static_lock("a"); release_dynamic_lock($avp(gw));
            if (get_static_lock("a")) $avp(again) = 1;
        "#;
        let ran = testing::run(config, body, Dialect::V4);
        for (name, want) in [
            ("debug", "1"),
            ("gw", "sip:10.0.0.1"),
            ("none", "0"),
            ("x", "y"),
            ("count", "2"),
            ("after", "2"),
            ("text", "1999800"),
            ("number", "1999800"),
            ("time", "in"),
            ("sure", "1"),
            ("year", "1"),
            ("env", "1"),
            ("locked", "1"),
            ("again", "1"),
        ] {
            assert_eq!(ran.avps(name), [want], "{name}");
        }
    }
}
