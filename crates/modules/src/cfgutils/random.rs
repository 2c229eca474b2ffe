//! Chance: `rand_event`, `$RANDOM`, weighted choice, shuffling.

use super::Cfgutils;
use host::arg::AnyVar;
use host::mi::{MiError, MiParams, MiResult};
use host::var::VarKind;
use host::{Call, Int, Registrar, Routes, Value};
use serde_json::json;
use std::sync::atomic::{AtomicI64, Ordering};

/// Values that are chosen from or shuffled.
const MAX_VALUES: i32 = 100_000;

/// Percent.
pub struct Probability {
    initial: i64,
    now: AtomicI64,
}

impl Default for Probability {
    fn default() -> Probability {
        Probability { initial: 10, now: AtomicI64::new(10) }
    }
}

pub fn register(m: &mut Registrar<Cfgutils>) {
    m.param_int("initial_probability", |s, n| {
        if !(0..=100).contains(&n) {
            return Err("initial_probability is 0 to 100".to_string());
        }
        s.random = Probability { initial: n, now: AtomicI64::new(n) };
        Ok(())
    });
    m.function("rand_event", Routes::ALL, rand_event);
    m.function("rand_set_prob", Routes::ALL, rand_set_prob);
    m.function("rand_reset_prob", Routes::ALL, rand_reset_prob);
    m.function("rand_get_prob", Routes::ALL, rand_get_prob);
    m.variable("RANDOM", |call| Value::Int(call.core.rng.below(1 << 31) as i64));
    m.command("cfgutils:rand_set_prob rand_set_prob", "sets the probability, in percent", set_command)
        .takes("prob_proc");
    m.command("cfgutils:rand_reset_prob rand_reset_prob", "sets the probability back", |call, _| {
        rand_reset_prob(call);
        Ok(json!("OK"))
    })
    .takes("");
    m.command("cfgutils:rand_get_prob rand_get_prob", "reads the probability", |call, _| {
        let now = call.module.random.now.load(Ordering::Relaxed);
        Ok(json!({"actual probability percent": now}))
    })
    .takes("");
}

fn set(call: &mut Call<Cfgutils>, percent: i64) -> bool {
    let sound = (0..=100).contains(&percent);
    if sound {
        call.module.random.now.store(percent, Ordering::Relaxed);
    }
    sound
}

fn set_command(call: &mut Call<Cfgutils>, params: &MiParams) -> MiResult {
    let percent = params.int("prob_proc", 0)?.ok_or_else(|| MiError::params("prob_proc is missing"))?;
    if set(call, percent) { Ok(json!("OK")) } else { Err(MiError::params("a probability is 0 to 100")) }
}

/// rand_event([percent])
fn rand_event(call: &mut Call<Cfgutils>, percent: Option<Int>) -> bool {
    let percent = percent.map_or_else(|| call.module.random.now.load(Ordering::Relaxed), |p| p.0);
    let drawn = call.core.rng.below(100_000_000) as f64 / 1e6;
    drawn <= percent as f64
}

/// rand_set_prob(percent)
fn rand_set_prob(call: &mut Call<Cfgutils>, percent: Int) -> bool {
    set(call, percent.0)
}

/// rand_reset_prob()
fn rand_reset_prob(call: &mut Call<Cfgutils>) -> bool {
    let initial = call.module.random.initial;
    set(call, initial)
}

/// rand_get_prob(): the return code is the percentage; 0 ends the script, as in the reference.
fn rand_get_prob(call: &mut Call<Cfgutils>) -> i32 {
    call.module.random.now.load(Ordering::Relaxed) as i32
}

/// set_select_weight(variable): the return code is the index of a value, chosen by the weight it is.
pub fn set_select_weight(call: &mut Call<Cfgutils>, var: AnyVar) -> i32 {
    let mut weights = Vec::new();
    for n in 0..MAX_VALUES {
        match var.0.get_at(call.ctx, n) {
            Value::Null => break,
            value => weights.push(value.int().unwrap_or(0).max(0) as u64),
        }
    }
    let total: u64 = weights.iter().fold(0, |sum, w| sum.saturating_add(*w));
    if total == 0 {
        return -1;
    }
    let mut drawn = call.core.rng.below(total);
    for (n, weight) in weights.iter().enumerate() {
        if drawn < *weight {
            return n as i32;
        }
        drawn -= weight;
    }
    -1
}

/// shuffle_avps($avp(name))
pub fn shuffle_avps(call: &mut Call<Cfgutils>, var: AnyVar) -> i32 {
    let VarKind::Avp(name) = var.0.kind else { return -1 };
    let mut values: Vec<Value> = call.state.avps.borrow().values(name).cloned().collect();
    for last in (1..values.len()).rev() {
        let other = call.core.rng.below(last as u64 + 1) as usize;
        values.swap(last, other);
    }
    let mut avps = call.state.avps.borrow_mut();
    avps.remove_all(name);
    values.into_iter().for_each(|value| avps.add(name, value));
    1
}
