//! One call finds its destination: the least loaded that has all resources.

use super::LoadBalancer;
use super::count::{Counts, counts};
use super::data::{Data, Dst};
use bytes::Bytes;
use host::avp::AvpName;
use host::vars::uri::set_destination;
use host::{Ctx, OutVar, Outcome, Value};
use modules::dialog::{Flags as DialogFlags, api};
use std::sync::Arc;

/// Generic failure; no capacity left; no destination; no such resource.
const FAILED: i32 = -1;
const NO_CAPACITY: i32 = -2;
const NO_DESTINATION: i32 = -3;
const NO_RESOURCE: i32 = -4;

/// How free capacity is reckoned; kept in an AVP as the reference numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub i64);

impl Flags {
    const RELATIVE: i64 = 1;
    const NEGATIVE: i64 = 2;
    const RANDOM: i64 = 4;

    /// `r`, `n`, `s`; other letters mean nothing.
    pub fn parse(text: &[u8]) -> Flags {
        let bit = |letter: &u8| match letter {
            b'r' => Flags::RELATIVE,
            b'n' => Flags::NEGATIVE,
            b's' => Flags::RANDOM,
            _ => 0,
        };
        Flags(text.iter().map(bit).fold(0, |all, bit| all | bit))
    }

    fn has(self, bit: i64) -> bool {
        self.0 & bit != 0
    }
}

/// What a session keeps between two attempts, in AVPs as the reference names them.
pub struct Names {
    group: AvpName,
    flags: AvpName,
    /// The destinations that were used.
    mask: AvpName,
    id: AvpName,
    resources: AvpName,
}

impl Default for Names {
    fn default() -> Names {
        let name = |name: &str| AvpName::new(name.as_bytes());
        Names {
            group: name("__lb_grp"),
            flags: name("__lb_flg"),
            mask: name("__lb_mask"),
            id: name("__lb_id"),
            resources: name("__lb_res"),
        }
    }
}

fn int(value: &Value) -> Option<i64> {
    if let Value::Int(n) = value { Some(*n) } else { None }
}

fn text(value: &Value) -> Option<Bytes> {
    if matches!(value, Value::Int(_)) { None } else { value.text() }
}

impl Names {
    fn int(&self, ctx: &Ctx, name: AvpName) -> Option<i64> {
        ctx.state.avps.borrow().first(name).and_then(int)
    }

    fn used(&self, ctx: &Ctx) -> Option<Vec<i64>> {
        let mask = ctx.state.avps.borrow().first(self.mask).and_then(text)?;
        let ids = mask.split(|b| *b == b',').filter_map(host::arg::parse_int);
        Some(ids.collect())
    }

    /// The resources of the session that the table still knows.
    fn resources(&self, ctx: &Ctx, data: &Data) -> Vec<usize> {
        let avps = ctx.state.avps.borrow();
        avps.values(self.resources).filter_map(text).filter_map(|name| data.resource(&name)).collect()
    }

    /// lb_is_started
    pub fn is_started(&self, ctx: &Ctx) -> bool {
        let avps = ctx.state.avps.borrow();
        avps.first(self.group).and_then(int).is_some()
            && avps.first(self.mask).and_then(text).is_some()
            && avps.first(self.resources).and_then(text).is_some()
    }

    /// The destination that was chosen last.
    pub fn last(&self, ctx: &Ctx) -> Option<i64> {
        self.int(ctx, self.id)
    }

    fn save(&self, ctx: &mut Ctx, data: &Data, state: &Session, chosen: Option<i64>) {
        let mut avps = ctx.state.avps.borrow_mut();
        let flags_known = avps.first(self.flags).is_some();
        for name in [self.group, self.mask, self.id] {
            avps.remove(name, 0);
        }
        avps.add(self.group, Value::Int(state.group));
        if flags_known || state.flags != Flags::default() {
            avps.remove(self.flags, 0);
            avps.add(self.flags, Value::Int(state.flags.0));
        }
        let used: Vec<String> = state.used.iter().map(i64::to_string).collect();
        avps.add(self.mask, Value::from(used.join(",")));
        if let Some(id) = chosen {
            avps.add(self.id, Value::Int(id));
        }
        avps.remove_all(self.resources);
        for resource in &state.resources {
            avps.add_last(self.resources, Value::Str(data.resources[*resource].name.clone()));
        }
    }

    fn forget(&self, ctx: &mut Ctx) {
        let mut avps = ctx.state.avps.borrow_mut();
        for name in [self.group, self.flags, self.mask, self.id] {
            avps.remove(name, 0);
        }
        avps.remove_all(self.resources);
    }
}

/// A session as this attempt finds it.
#[derive(Clone)]
struct Session {
    group: i64,
    flags: Flags,
    resources: Vec<usize>,
    /// Ids of destinations that were used.
    used: Vec<i64>,
}

/// A new session for these resources, or (`None`) the next attempt of the one there is.
pub struct Start {
    pub group: i64,
    pub resources: Vec<Bytes>,
    pub flags: Flags,
}

/// lb_start, lb_next.
pub fn route(
    ctx: &mut Ctx,
    module: &Arc<LoadBalancer>,
    start: Option<Start>,
    attrs: Option<OutVar>,
) -> Outcome {
    let data = module.data.get();
    let session = match &data {
        Some(data) => session(ctx, module, data, start),
        None => Err(FAILED),
    };
    let (data, session) = match (data, session) {
        (Some(data), Ok(session)) => (data, session),
        (_, Err(code)) => return told(ctx, &attrs, Bytes::new(), code).into(),
        (None, Ok(_)) => return FAILED.into(),
    };
    let fits = |dst: &&Dst| session.may_use(dst);
    let asked: Vec<(usize, Box<[u8]>)> = data
        .dsts
        .iter()
        .filter(fits)
        .flat_map(|dst| session.resources.iter().map(|r| (*r, dst.value.clone())))
        .collect();
    let module = module.clone();
    let held = data.clone();
    counts(ctx, &data, asked, move |ctx, counts| choose(ctx, &module, &held, session, &counts, &attrs))
}

fn told(ctx: &mut Ctx, var: &Option<OutVar>, attrs: Bytes, code: i32) -> i32 {
    if let Some(var) = var
        && !var.set(ctx, attrs)
    {
        return FAILED;
    }
    code
}

/// What the attempt is for. Its dialog is there afterwards, and the destination of the attempt before is not counted
/// any more.
fn session(ctx: &mut Ctx, module: &LoadBalancer, data: &Data, start: Option<Start>) -> Result<Session, i32> {
    let names = &module.names;
    let before = names.resources(ctx, data);
    let session = match start {
        Some(start) => {
            let wanted: Vec<usize> = (0..data.resources.len())
                .filter(|at| start.resources.contains(&data.resources[*at].name))
                .collect();
            if wanted.len() != start.resources.len() {
                host::complain!(
                    ctx,
                    "load_balancer",
                    "no destination has one of the resources that are asked for"
                );
                return Err(NO_RESOURCE);
            }
            Session { group: start.group, flags: start.flags, resources: wanted, used: Vec::new() }
        }
        None => {
            let Some(group) = names.int(ctx, names.group).filter(|_| !before.is_empty()) else {
                host::complain!(ctx, "load_balancer", "lb_next needs a session that lb_start has begun");
                return Err(FAILED);
            };
            let flags = Flags(names.int(ctx, names.flags).unwrap_or(0));
            let used = names.used(ctx).unwrap_or_default();
            Session { group, flags, resources: before.clone(), used }
        }
    };
    let key = match api::current(ctx) {
        Some((key, _)) => key,
        None => api::create(ctx, DialogFlags::default()).ok_or(FAILED)?,
    };
    if let Some(last) = names.last(ctx).and_then(|id| data.by_id(id)) {
        for resource in before {
            api::leave(ctx, key, data.resources[resource].profile, &last.value);
        }
    }
    Ok(session)
}

impl Session {
    fn may_use(&self, dst: &Dst) -> bool {
        dst.group == self.group
            && dst.to.is_active()
            && !self.used.contains(&dst.id)
            && dst.has_all(&self.resources)
    }

    /// What a destination has left: the least over all resources.
    fn free(&self, dst: &Dst, counts: &Counts) -> Option<i64> {
        let one = |resource: &usize| {
            let max = dst.capacity(*resource)?.max();
            let load = counts.of(*resource, &dst.value) as u32;
            Some(match (self.flags.has(Flags::RELATIVE), max) {
                (true, 0) => 0,
                (true, max) => 100i32.wrapping_sub((100u32.wrapping_mul(load) / max) as i32).into(),
                (false, max) => i64::from(max.wrapping_sub(load) as i32),
            })
        };
        self.resources.iter().filter_map(one).min()
    }
}

/// The counts are there: the best destination gets the call.
fn choose(
    ctx: &mut Ctx,
    module: &LoadBalancer,
    data: &Data,
    mut session: Session,
    counts: &Counts,
    attrs: &Option<OutVar>,
) -> i32 {
    let (mut available, mut best): (usize, Vec<(&Dst, i64)>) = (0, Vec::new());
    for dst in data.dsts.iter().filter(|dst| session.may_use(dst)) {
        available += 1;
        let Some(free) = session.free(dst, counts) else { continue };
        if free <= 0 && !session.flags.has(Flags::NEGATIVE) {
            continue;
        }
        match best.first().map(|(_, most)| free.cmp(most)) {
            None => best.push((dst, free)),
            Some(std::cmp::Ordering::Greater) => best = vec![(dst, free)],
            Some(std::cmp::Ordering::Equal) => best.push((dst, free)),
            Some(std::cmp::Ordering::Less) => {}
        }
    }
    let at = match best.len() {
        0 | 1 => 0,
        n if session.flags.has(Flags::RANDOM) => ctx.core.rng.below(n as u64) as usize,
        _ => 0,
    };
    let chosen = best.get(at).map(|(dst, _)| *dst);
    if let Some(dst) = chosen {
        // The call may have ended while the counts were asked for.
        let Some((key, _)) = api::current(ctx) else { return told(ctx, attrs, Bytes::new(), FAILED) };
        for resource in &session.resources {
            api::join(ctx, key, data.resources[*resource].profile, &dst.value);
        }
        session.used.push(dst.id);
    }
    module.names.save(ctx, data, &session, chosen.map(|dst| dst.id));
    let Some(dst) = chosen else {
        let code = if available > 0 { NO_CAPACITY } else { NO_DESTINATION };
        return told(ctx, attrs, Bytes::new(), code);
    };
    if !set_destination(&mut ctx.state, dst.to.uri.clone()) {
        return told(ctx, attrs, Bytes::new(), FAILED);
    }
    dst.to.hits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    told(ctx, attrs, dst.attrs.clone(), 1)
}

/// lb_reset: the session is over, and its destination not counted any more.
pub fn reset(ctx: &mut Ctx, module: &LoadBalancer) -> bool {
    let Some((key, _)) = api::current(ctx) else {
        host::complain!(ctx, "load_balancer", "lb_reset: the call has no dialog, so no session was begun");
        return false;
    };
    if let Some(data) = module.data.get()
        && let Some(last) = module.names.last(ctx).and_then(|id| data.by_id(id))
    {
        for resource in module.names.resources(ctx, &data) {
            api::leave(ctx, key, data.resources[resource].profile, &last.value);
        }
    }
    module.names.forget(ctx);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters() {
        assert_eq!(Flags::parse(b"nrx").0, 3);
        assert_eq!(Flags::parse(b"s").0, 4);
    }
}
