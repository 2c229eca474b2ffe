//! Module `sim`: a function and a variable that wait for something slow, as a database would, and functions and
//! hooks with a defect, which panic on purpose.

use crate::executor::Executor;
use host::var::{Answer, At, VarKind, WaitingVariable};
use host::{Call, Ctx, Finish, Format, Int, ModuleDef, Outcome, Registrar, Routes, Suspension, Value};
use script::Diagnostic;
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
    m.function("defect", Routes::ALL, defect);
    m.function("broken", Routes::ALL, broken);
    m.function("slow_defect", Routes::ALL, slow_defect);
    m.function("late_defect", Routes::ALL, late_defect);
    m.function("defect_at_start", Routes::ALL, defect_at_start);
    m.variable_class("later", |spec, loader, _| {
        let inner = spec.inner.clone().unwrap_or_default();
        let comma = inner.iter().position(|b| *b == b',');
        let ms = comma.and_then(|at| std::str::from_utf8(&inner[..at]).ok()?.parse().ok());
        let (Some(comma), Some(ms)) = (comma, ms) else {
            return Err(Diagnostic::error(spec.loc, "$later(milliseconds,text)"));
        };
        let text = Format::new(&inner.slice(comma + 1..), spec.loc, loader)?;
        Ok(VarKind::Waiting(Box::new(Late { ms, text })))
    });
}

/// The server's modules and this one.
pub fn all() -> &'static [ModuleDef] {
    static ALL: LazyLock<Vec<ModuleDef>> = LazyLock::new(|| {
        let own = ModuleDef { name: "sim", make: || host::registrar::module(register) };
        let watching =
            ModuleDef { name: "sim_watch", make: || host::registrar::module(crate::watch::register) };
        let defects = ModuleDef { name: "sim_defect", make: || host::registrar::module(register_defects) };
        let ends = ModuleDef { name: "sim_ua", make: || host::registrar::module(crate::ends::register) };
        catalog::all().iter().copied().chain([own, watching, defects, ends]).collect()
    });
    &ALL
}

/// What defects throw; says nothing on stderr.
struct OnPurpose;

fn throw() -> ! {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<OnPurpose>() {
                others(info);
            }
        }));
    });
    std::panic::panic_any(OnPurpose)
}

/// defect([one_of]): panics; with a number by the seed, once in so many calls.
fn defect(_: &mut Call<Sim>, one_of: Option<Int>) -> i32 {
    let clock = CLOCK.with(|clock| clock.borrow().clone());
    match one_of {
        Some(n) if draw(&clock, n.0.max(1) as u64) > 0 => 1,
        _ => throw(),
    }
}

/// broken(one_of): asks something that answers at once, and panics once in so many times.
fn broken(_: &mut Call<Sim>, one_of: Int) -> i32 {
    let clock = CLOCK.with(|clock| clock.borrow().clone());
    let live = || match clock.below(one_of.0.max(1) as u64) {
        0 => throw(),
        n => n,
    };
    host::tape::at_once("broken", || one_of.0.to_string(), live).map_or(-1, |_| 1)
}

/// slow_defect(ms): waits that long, and panics when it goes on.
fn slow_defect(_: &mut Call<Sim>, ms: Int) -> Outcome {
    let clock = CLOCK.with(|clock| clock.borrow().clone());
    Suspension::future("slow_defect", async move {
        pause(clock, ms.0.max(0) as u64).await;
        Box::new(|_: &mut Ctx| -> i32 { throw() }) as Finish
    })
}

/// late_defect(ms): what it waits for panics after that long.
fn late_defect(_: &mut Call<Sim>, ms: Int) -> Outcome {
    let clock = CLOCK.with(|clock| clock.borrow().clone());
    let ms = ms.0.max(0) as u64;
    // As a driver does it: a tape never hears of an answer.
    let broken = async move {
        clock.sleep(ms).await;
        throw()
    };
    Suspension::future("late_defect", async move {
        host::tape::awaited("late_defect", || ms.to_string(), broken, || ()).await;
        Box::new(|_: &mut Ctx| 1) as Finish
    })
}

/// defect_at_start(): begins to wait, and panics before it does.
fn defect_at_start(_: &mut Call<Sim>) -> Outcome {
    let begin = Box::new(|_: &mut Ctx, _| throw());
    let (what, detail) = ("defect_at_start", Default::default());
    let wait = host::Wait::External(begin);
    Outcome::Suspend(Box::new(Suspension { what, detail, wait, limit_ms: 5000, on_deadline: -1 }))
}

/// Module `sim_defect`: the header `X-Defect` of a message names the moment at which its watcher panics.
fn register_defects(m: &mut Registrar<Defects>) {
    m.ready(|_, hooks, _| {
        use host::watch::{Moment, Told};
        fn broken(ctx: &Ctx, moment: &str) {
            let msg = &ctx.state.msg;
            let named = |h: &sip::Header| {
                msg.bytes(h.label()) == b"X-Defect" && msg.bytes(h.value()) == moment.as_bytes()
            };
            if msg.headers().iter().any(named) {
                throw();
            }
        }
        for moment in [
            Moment::RequestIn,
            Moment::RequestEnd,
            Moment::RequestOut,
            Moment::ReplyIn,
            Moment::ReplyOut,
            Moment::Failing,
            Moment::Cancelled,
        ] {
            hooks.watch.on(moment, move |ctx, _| broken(ctx, &format!("{moment:?}")));
        }
        for what in [Told::Created, Told::Replied, Told::Ended] {
            hooks.watch.told(what, move |ctx, _| broken(ctx, &format!("{what:?}")));
        }
    });
}

#[derive(Default)]
struct Defects;

/// `$later(ms,text)`: the text, after that long. At once with 0; NULL at its deadline, 5 s.
struct Late {
    ms: u64,
    text: Format,
}

impl WaitingVariable for Late {
    fn ask(&self, ctx: &mut Ctx, _: At) -> Answer {
        let (value, ms) = (Value::Str(self.text.text(ctx)), self.ms);
        if ms == 0 {
            return value.into();
        }
        let clock = clock();
        Answer::later("$later", "", 5000, async move {
            pause(clock, ms).await;
            value
        })
    }
}

/// slow([ms, rc]): waits that long and returns rc. Without a time by the seed: now, after up to four
/// seconds, or never; 1, or -1 (more rarely, and at its deadline, 5 s).
fn slow(_: &mut Call<Sim>, ms: Option<Int>, rc: Option<Int>) -> Outcome {
    waits(ms.map(|ms| ms.0.max(0) as u64), rc.map(|rc| rc.0 as i32))
}

/// The clock of the worker that runs now.
pub(crate) fn clock() -> Executor {
    CLOCK.with(|clock| clock.borrow().clone())
}

/// 0..n from the seed of the world: something outside of the worker.
fn draw(clock: &Executor, n: u64) -> u64 {
    host::tape::at_once("draw", || n.to_string(), || clock.below(n)).unwrap_or_default()
}

/// Whether the world has an outage now.
fn is_out(clock: &Executor) -> bool {
    host::tape::at_once("is_out", String::new, || u64::from(clock.is_out())).unwrap_or_default() != 0
}

/// Waits for the world's clock.
pub(crate) async fn pause(clock: Executor, ms: u64) {
    let live = async move { clock.sleep(ms).await };
    host::tape::awaited("pause", || ms.to_string(), live, || ()).await;
}

/// What `slow` does.
pub(crate) fn waits(ms: Option<u64>, rc: Option<i32>) -> Outcome {
    let clock = clock();
    let (ms, rc) = match ms {
        Some(ms) => (ms, rc.unwrap_or(1)),
        None => {
            let rc = rc.unwrap_or(if draw(&clock, 5) == 0 { -1 } else { 1 });
            let ms = match draw(&clock, 10) {
                // What is down hangs, or refuses at once.
                0..5 if is_out(&clock) => 1_000_000,
                _ if is_out(&clock) => return Outcome::Done(-1),
                0 => return Outcome::Done(rc),
                1 => 1_000_000,
                2..5 => draw(&clock, 4000),
                _ => draw(&clock, 300),
            };
            (ms, rc)
        }
    };
    Suspension::future("slow", async move {
        pause(clock, ms).await;
        Box::new(move |_: &mut host::Ctx| rc) as Finish
    })
    .limit(5000, -1)
}
