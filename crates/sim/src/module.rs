//! Module `sim`: a function that waits for something slow, as a database would.

use crate::executor::Executor;
use host::{Call, Finish, Int, ModuleDef, Outcome, Registrar, Routes, Suspension};
use std::cell::RefCell;
use std::sync::LazyLock;

thread_local! {
    static CLOCK: RefCell<Executor> = RefCell::default();
}

/// Operations that start now wait on this executor.
pub fn use_clock(executor: &Executor) {
    CLOCK.with(|clock| *clock.borrow_mut() = executor.clone());
}

#[derive(Default)]
pub struct Sim;

fn register(m: &mut Registrar<Sim>) {
    m.function("slow", Routes::ALL, slow);
}

/// The server's modules and this one.
pub fn all() -> &'static [ModuleDef] {
    static ALL: LazyLock<Vec<ModuleDef>> = LazyLock::new(|| {
        let own = ModuleDef { name: "sim", make: || host::registrar::module(register) };
        modules::ALL.iter().copied().chain([own]).collect()
    });
    &ALL
}

/// slow([ms, rc]): waits that long and returns rc. Without a time by the seed: now, after up to four
/// seconds, or never; 1, or -1 (more rarely, and at its deadline, 5 s).
fn slow(_: &mut Call<Sim>, ms: Option<Int>, rc: Option<Int>) -> Outcome {
    let clock = CLOCK.with(|clock| clock.borrow().clone());
    let (ms, rc) = match ms {
        Some(ms) => (ms.0.max(0) as u64, rc.map_or(1, |rc| rc.0 as i32)),
        None => {
            let rc = if clock.below(5) == 0 { -1 } else { 1 };
            let ms = match clock.below(10) {
                0 => return Outcome::Done(rc),
                1 => 1_000_000,
                2..5 => clock.below(4000),
                _ => clock.below(300),
            };
            (ms, rc)
        }
    };
    Suspension::future("slow", async move {
        clock.sleep(ms).await;
        Box::new(move |_: &mut host::Ctx| rc) as Finish
    })
    .limit(5000, -1)
}
