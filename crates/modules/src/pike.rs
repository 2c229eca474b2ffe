//! pike: finds addresses that send too many requests.
//!
//! Each address has a count for the sampling interval. The reference counts along a tree of address bytes, so
//! that the limit there is somewhere between one and three times `reqs_density_per_unit`; here it is that number.

use ahash::AHashMap;
use host::Accepts;
use host::call::DEFAULT_LIMIT_MS;
use host::context::full::Full;
use host::events::{EventParams, raise};
use host::load::{InParam, Loader};
use host::log::{self, Level};
use host::mi::{MiError, MiParams, MiResult};
use host::shared::Hooks;
use host::stats::Stats;
use host::status::MAIN;
use host::watch::Moment;
use host::{Call, Ctx, Outcome, Registrar, Routes, Value};
use parking_lot::Mutex;
use script::{End, RouteId};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;

const BLOCKED: &str = "E_PIKE_BLOCKED";
/// Addresses that are watched at once; further ones pass.
const MAX_ADDRESSES: usize = 200_000;

pub struct Pike {
    /// Seconds.
    unit: u64,
    density: u32,
    /// Seconds.
    latency: u64,
    log_level: Level,
    check_route: Option<String>,
    route: Option<RouteId>,
    seen: Mutex<AHashMap<IpAddr, Seen>>,
    full: Full,
}

struct Seen {
    /// Hits of this interval and of the one before.
    hits: u32,
    before: u32,
    blocked: bool,
    /// Unix seconds.
    last: u64,
}

impl Default for Pike {
    fn default() -> Pike {
        Pike {
            unit: 2,
            density: 30,
            latency: 120,
            log_level: Level::from_number(1),
            check_route: None,
            route: None,
            seen: Mutex::default(),
            full: Full::default(),
        }
    }
}

pub fn register(m: &mut Registrar<Pike>) {
    m.param_int("sampling_time_unit", |s, v| Ok(s.unit = v.max(1) as u64));
    m.param_int("reqs_density_per_unit", |s, v| Ok(s.density = v.max(1) as u32));
    m.param_int("remove_latency", |s, v| Ok(s.latency = v.max(1) as u64));
    m.param_int("pike_log_level", |s, v| Ok(s.log_level = Level::from_number(v)));
    m.param_text("check_route", |s, v| Ok(s.check_route = Some(v.into())));
    m.accepts(Accepts::seconds(1), &["remove_latency", "sampling_time_unit"]);
    m.accepts(Accepts::from(1), &["reqs_density_per_unit"]);
    m.accepts(Accepts::range(-10, 10), &["pike_log_level"]);
    m.accepts(Accepts::ROUTE, &["check_route"]);
    // 1, -2 when this request makes its source one that floods, -1 when it is one already.
    m.function("pike_check_req", Routes::REQUEST, |call: &mut Call<Pike>| {
        call.module.clone().check(call.ctx)
    });
    m.command("pike:list pike_list", "addresses that are watched", list).takes("");
    m.command("pike:rm pike_rm", "forgets an address", remove).takes("ip");
    m.start(|call| call.shared().status.set("pike", MAIN, 1, "running"));
    m.timer(1000, |call| {
        let now = now_s(call.ctx);
        if now.is_multiple_of(call.module.unit) {
            call.module.next_unit(now);
        }
    });
    m.init(init);
    m.ready(ready);
}

fn init(s: &mut Pike, loader: &mut Loader) -> Result<(), String> {
    s.latency = s.latency.max(s.unit + 1);
    let route = s.check_route.as_ref().map(|name| loader.route(name).in_param("check_route"));
    s.route = route.transpose()?;
    Ok(())
}

fn ready(module: &Arc<Pike>, hooks: &mut Hooks, stats: &Stats) {
    module.full.show(stats, "pike", "unwatched_requests");
    hooks.raises([BLOCKED]);
    if let Some(route) = module.route {
        let module = module.clone();
        hooks.watch.on(Moment::RequestIn, move |ctx, _| check_by_route(ctx, &module, route));
    }
}

fn now_s(ctx: &Ctx) -> u64 {
    ctx.core.wall_us / 1_000_000
}

impl Pike {
    fn check(&self, ctx: &mut Ctx) -> i32 {
        let (address, now) = (ctx.state.source.remote.ip(), now_s(ctx));
        let verdict = self.count(address, now);
        if verdict == -2 {
            self.report(&format!("{address} sends too many requests: blocked"));
            ctx.shared().status.report("pike", MAIN, now, format!("IP {address} detected as flooding"));
            let ip = Value::from(address.to_string());
            raise(ctx, BLOCKED, [("ip", ip)].into_iter().collect::<EventParams>());
        }
        verdict
    }

    fn count(&self, address: IpAddr, now: u64) -> i32 {
        let mut seen = self.seen.lock();
        if seen.len() >= MAX_ADDRESSES && !seen.contains_key(&address) {
            if self.full.refused() {
                host::warn!("pike", "{MAX_ADDRESSES} addresses are watched: further ones pass unwatched");
            }
            return 1;
        }
        let entry = seen.entry(address).or_insert(Seen { hits: 0, before: 0, blocked: false, last: now });
        entry.hits = entry.hits.saturating_add(1);
        entry.last = now;
        if entry.blocked {
            return -1;
        }
        entry.blocked = entry.hits > self.density;
        if entry.blocked { -2 } else { 1 }
    }

    /// The interval ends: who kept below the limit in all of it is free again.
    fn next_unit(&self, now: u64) {
        let mut freed = Vec::new();
        self.seen.lock().retain(|address, seen| {
            (seen.before, seen.hits) = (seen.hits, 0);
            if seen.blocked && seen.before <= self.density {
                seen.blocked = false;
                freed.push(*address);
            }
            seen.blocked || now.saturating_sub(seen.last) < self.latency
        });
        if self.seen.lock().len() < MAX_ADDRESSES {
            self.full.taken();
        }
        for address in freed {
            self.report(&format!("{address} is no longer blocked"));
        }
    }

    fn report(&self, text: &str) {
        if log::enabled(self.log_level) {
            log::emit(self.log_level, "pike", text);
        }
    }
}

/// `check_route`: every request, unless the route drops it. One that the route waits too long for passes.
fn check_by_route(ctx: &mut Ctx, module: &Arc<Pike>, route: RouteId) -> Outcome {
    let module = module.clone();
    ctx.call_route(route, "pike check_route", DEFAULT_LIMIT_MS, 1, move |ctx, end| match end {
        End::Drop => 1,
        _ => module.check(ctx),
    })
}

fn list(call: &mut Call<Pike>, _: &MiParams) -> MiResult {
    let seen = call.module.seen.lock();
    let state = |seen: &Seen| if seen.blocked { "RED" } else { "NODE" };
    let ips = seen.iter().map(|(address, seen)| {
        json!({"IP": address.to_string(), "hits": [seen.before, seen.hits], "status": state(seen)})
    });
    Ok(json!({"IPs": ips.collect::<Vec<_>>()}))
}

fn remove(call: &mut Call<Pike>, params: &MiParams) -> MiResult {
    let text = params.need("ip", 0)?;
    let address: IpAddr = text.parse().map_err(|_| MiError::new(500, "Bad IP"))?;
    match call.module.seen.lock().remove(&address) {
        Some(_) => Ok(json!("OK")),
        None => Err(MiError::new(404, "Match not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_blocked_until_they_end() {
        let pike = Pike { density: 3, ..Pike::default() };
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let other: IpAddr = "10.0.0.2".parse().unwrap();
        let verdicts: Vec<i32> = (0..5).map(|_| pike.count(address, 100)).collect();
        assert_eq!(verdicts, [1, 1, 1, -2, -1]);
        assert_eq!(pike.count(other, 100), 1);
        pike.next_unit(102);
        assert_eq!(pike.count(address, 103), -1);
        pike.next_unit(104);
        assert_eq!(pike.count(address, 105), 1);
        pike.next_unit(106);
        pike.next_unit(400);
        assert!(pike.seen.lock().is_empty());
    }
}
