//! Where scripts spend their time: samples of where each worker is, taken by a thread of its own, and the waits that
//! ended. Nothing of it costs anything while it is off; while it is on, a function call costs a store more.
#![allow(clippy::disallowed_methods, reason = "the sampling thread reads the clock, outside the workers")]

use super::{Watching, trace};
use host::ctx::MsgState;
use host::mi::{MiError, MiParams, MiResult};
use host::observe::{Observer, Seen, Spot, Waiting, Way, place_of};
use host::worker::ops::Ended;
use host::{Call, Ctx};
use parking_lot::Mutex;
use script::Loc;
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use transaction::Path;

/// Between two samples.
const INTERVAL: Duration = Duration::from_millis(1);
/// Places that are told apart.
const MAX_PLACES: usize = 10_000;
/// It ends by itself after so long.
const LONGEST: Duration = Duration::from_secs(3600);

/// One measurement.
#[derive(Default)]
pub struct Profile {
    on: AtomicBool,
    seen: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    spots: Vec<Spot>,
    /// Samples in scripts, by place.
    samples: HashMap<u64, u64>,
    waits: HashMap<(u16, u32, &'static str), Waits>,
    taken: u64,
    seconds: f64,
    cpu_ms: u64,
}

#[derive(Clone, Copy, Default)]
struct Waits {
    count: u64,
    failed: u64,
    total_ms: u64,
    longest_ms: u64,
}

/// What a worker has of it.
#[derive(Default)]
struct Here(Option<Rc<dyn Observer>>);

struct WaitCounter(Arc<Profile>);

impl Observer for WaitCounter {
    fn wants(&self, _: &Ctx, _: &MsgState) -> bool {
        false
    }
    fn script(&self, _: &mut Ctx, _: Seen<'_>) {}
    fn waits(&self, _: &mut Ctx, _: Waiting<'_>) {}
    fn waited(&self, ctx: &mut Ctx, waiting: Waiting<'_>, how: Ended) {
        if waiting.loc == Loc::default() {
            return;
        }
        let took = ctx.core.now.0.saturating_sub(waiting.since.0);
        let mut seen = self.0.seen.lock();
        let key = (waiting.loc.file, waiting.loc.start, waiting.what);
        if seen.waits.len() >= MAX_PLACES && !seen.waits.contains_key(&key) {
            return;
        }
        let waits = seen.waits.entry(key).or_default();
        waits.count += 1;
        waits.failed += u64::from(!matches!(how, Ended::Done(rc) if rc > 0));
        waits.total_ms += took;
        waits.longest_ms = waits.longest_ms.max(took);
    }
    fn message(&self, _: &mut Ctx, _: Way, _: &Path, _: &bytes::Bytes) {}
}

/// fermata:profile_start: on every worker.
pub fn start(call: &mut Call<Watching>, _: &MiParams) -> MiResult {
    let profile = {
        let mut slot = call.module.profile.lock();
        match slot.as_ref().filter(|profile| profile.on.load(Ordering::Relaxed)) {
            Some(running) if call.local::<Here>().0.is_none() => running.clone(),
            Some(_) => return Err(MiError::new(400, "A profile runs already")),
            None => {
                let new = Arc::new(Profile { on: true.into(), ..Profile::default() });
                let sampled = new.clone();
                let started =
                    std::thread::Builder::new().name("profiler".to_string()).spawn(move || sample(&sampled));
                started.map_err(|e| MiError::internal(format!("cannot start the sampling thread: {e}")))?;
                *slot = Some(new.clone());
                new
            }
        }
    };
    leave(call.ctx);
    let spot = Spot::default();
    profile.seen.lock().spots.push(spot.clone());
    let counter: Rc<dyn Observer> = Rc::new(WaitCounter(profile));
    call.ctx.tell_spot(Some(spot));
    call.ctx.observe(counter.clone());
    call.local::<Here>().0 = Some(counter);
    Ok(json!("OK"))
}

fn leave(ctx: &mut Ctx) {
    if let Some(counter) = ctx.local::<Here>().0.take() {
        ctx.unobserve(&counter);
        ctx.tell_spot(None);
    }
}

/// fermata:profile_stop
pub fn stop(call: &mut Call<Watching>, _: &MiParams) -> MiResult {
    if let Some(profile) = &*call.module.profile.lock() {
        profile.on.store(false, Ordering::Relaxed);
    }
    leave(call.ctx);
    Ok(json!("OK"))
}

fn sample(profile: &Profile) {
    let (started, cpu) = (Instant::now(), cpu_ms());
    while profile.on.load(Ordering::Relaxed) && started.elapsed() < LONGEST {
        std::thread::sleep(INTERVAL);
        let mut guard = profile.seen.lock();
        let seen = &mut *guard;
        seen.taken += 1;
        seen.seconds = started.elapsed().as_secs_f64();
        if seen.taken.is_multiple_of(64) {
            seen.cpu_ms = cpu_ms().saturating_sub(cpu);
        }
        for spot in &seen.spots {
            let place = spot.load(Ordering::Relaxed);
            if place != 0 && (seen.samples.len() < MAX_PLACES || seen.samples.contains_key(&place)) {
                *seen.samples.entry(place).or_default() += 1;
            }
        }
    }
    profile.seen.lock().cpu_ms = cpu_ms().saturating_sub(cpu);
}

/// Processor time of this process; 0 where the system does not tell.
fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let number =
        |at: usize| fields.split_whitespace().nth(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    (number(11) + number(12)) * 10
}

/// Route, file, line, function and text of a place.
fn place(ctx: &Ctx, loc: Loc) -> Json {
    let (shared, program) = (ctx.shared(), ctx.shared().program());
    let sources = shared.sources();
    let before = program.routes().filter(|id| {
        let at = program.route_loc(*id);
        at.file == loc.file && at.start <= loc.start
    });
    let route = before.max_by_key(|id| program.route_loc(*id).start).map(|id| program.route_text(id));
    let (file, line) = (sources.name(loc).to_string(), sources.line_col(loc).0);
    let text = sources.files.get(usize::from(loc.file)).map(|file| file.text.clone()).unwrap_or_default();
    let rest = text.get(loc.start as usize..).unwrap_or_default();
    let word = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let is_call = rest[word..].trim_ascii_start().first() == Some(&b'(');
    let function = (word > 0 && is_call).then(|| String::from_utf8_lossy(&rest[..word]).into_owned());
    let source = trace::source(ctx, &file, line);
    json!({"route": route, "file": file, "line": line, "function": function, "source": source})
}

/// fermata:profile: what was measured until now.
pub fn read(call: &mut Call<Watching>, _: &MiParams) -> MiResult {
    let Some(profile) = call.module.profile.lock().clone() else {
        return Err(MiError::new(404, "Nothing was measured: fermata:profile_start"));
    };
    let seen = profile.seen.lock();
    let mut samples: Vec<Json> = Vec::new();
    for (spot, count) in &seen.samples {
        if let Some(loc) = place_of(*spot) {
            let mut shown = place(call.ctx, loc);
            shown["samples"] = (*count).into();
            samples.push(shown);
        }
    }
    samples.sort_by_key(|s| std::cmp::Reverse(s["samples"].as_u64()));
    let mut waits: Vec<Json> = Vec::new();
    for ((file, start, what), seen) in &seen.waits {
        let mut shown = place(call.ctx, Loc { file: *file, start: *start, end: *start });
        shown["what"] = (*what).into();
        shown["count"] = seen.count.into();
        shown["failed"] = seen.failed.into();
        shown["total_ms"] = seen.total_ms.into();
        shown["longest_ms"] = seen.longest_ms.into();
        waits.push(shown);
    }
    waits.sort_by_key(|w| std::cmp::Reverse(w["total_ms"].as_u64()));
    Ok(json!({
        "running": profile.on.load(Ordering::Relaxed),
        "seconds": seen.seconds,
        "taken": seen.taken,
        "cpu_ms": seen.cpu_ms,
        "samples": samples,
        "waits": waits,
    }))
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;

    #[test]
    fn waits_are_counted_by_line() {
        let mut server = Server::new(
            "loadmodule \"tm.so\"\nloadmodule \"cfgutils.so\"\nroute { route(more); }\nroute[more] {\n  sleep(2);\n}",
            script::ast::Dialect::V4,
        );
        assert!(server.manage("fermata:profile", serde_json::json!([])).is_err());
        server.manage("fermata:profile_start", serde_json::json!([])).unwrap();
        assert!(server.manage("fermata:profile_start", serde_json::json!([])).is_err(), "it runs already");
        server.receive(
            "10.0.0.2:5060",
            "OPTIONS sip:bob@x SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1\nFrom: <sip:a@x>;tag=1\n\
             To: sip:b@x\nCall-ID: one\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n",
        );
        server.advance(2100);
        server.manage("fermata:profile_stop", serde_json::json!([])).unwrap();
        assert!(!server.is_observed(), "nothing is left of it");
        let found = server.manage("fermata:profile", serde_json::json!([])).unwrap();
        let wait = &found["waits"][0];
        assert_eq!(
            (&wait["what"], &wait["route"], &wait["line"]),
            (&"sleep".into(), &"route[more]".into(), &5.into())
        );
        assert_eq!((&wait["count"], &wait["total_ms"]), (&1.into(), &2100.into()));
    }
}
