//! cfgutils: pauses, random numbers, shared variables.

use host::{Call, Int, Outcome, Registrar, Routes, Suspension};

#[derive(Default)]
pub struct Cfgutils;

pub fn register(m: &mut Registrar<Cfgutils>) {
    m.function("sleep", Routes::ALL, sleep);
    m.function("usleep", Routes::ALL, usleep);
}

/// sleep(seconds): holds this script only.
fn sleep(_: &mut Call<Cfgutils>, seconds: Int) -> Outcome {
    Suspension::timer("sleep", seconds.0.max(0) as u64 * 1000, 1)
}

/// usleep(microseconds), rounded up to milliseconds.
fn usleep(_: &mut Call<Cfgutils>, us: Int) -> Outcome {
    Suspension::timer("usleep", (us.0.max(0) as u64).div_ceil(1000), 1)
}
