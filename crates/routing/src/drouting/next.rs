//! What goes on after `do_routing`, and what goes without a rule: `use_next_gw`, `route_to_gw`, `route_to_carrier`,
//! `dr_match`, `dr_disable`.

use super::Drouting;
use super::args::{Attrs, Chosen, Group, OF_CARRIER, OF_GATEWAY, OF_RULE, Outs};
use super::data::Data;
use super::lists::items;
use super::partition::{Avps as Names, Partition};
use super::push::Push;
use super::route::{Flags, Search, clear};
use crate::destinations::State;
use bytes::Bytes;
use host::avp::{AvpName, Avps};
use host::vars::socket;
use host::vars::uri::set_request;
use host::{Call, Ctx, OutVar, Outcome, Text};
use script::Value;
use sip::Uri;
use std::sync::Arc;

/// use_next_gw([rule attributes], [gateway attributes], [carrier attributes], [partition])
pub fn use_next_gw(
    call: &mut Call<Drouting>,
    rule: Option<Attrs<OF_RULE>>,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
    chosen: Chosen,
) -> Outcome {
    next_gateway(call, Outs::new(rule, gateway, carrier), chosen)
}

/// Removes values that are no texts from the front, and gives the first that is one.
fn first_text(avps: &mut Avps, name: AvpName) -> Option<Bytes> {
    loop {
        match avps.first(name)? {
            Value::Int(_) => avps.remove(name, 0),
            value => return value.text(),
        };
    }
}

/// The same, and removes it.
fn pop_text(avps: &mut Avps, name: AvpName) -> Option<Bytes> {
    let text = first_text(avps, name)?;
    avps.remove(name, 0);
    Some(text)
}

/// What stands in the AVPs for one more destination.
struct Waiting {
    gateway: Bytes,
    ruri: Bytes,
    socket: Bytes,
}

/// Drops the destination in use and takes the next one; `Err`: there never was one; `None`: nothing is left.
fn take_next(avps: &mut Avps, names: &Names) -> Result<Option<Waiting>, ()> {
    for name in [names.gw_priprefix, names.carrier_id].into_iter().flatten() {
        pop_text(avps, name);
    }
    pop_text(avps, names.gw_id).ok_or(())?;
    let Some(gateway) = first_text(avps, names.gw_id) else { return Ok(None) };
    let Some(ruri) = pop_text(avps, names.ruri) else { return Ok(None) };
    let socket = pop_text(avps, names.gw_sock).unwrap_or_default();
    Ok(Some(Waiting { gateway, ruri, socket }))
}

/// The next destination that is not disabled meanwhile.
pub fn next_gateway(call: &mut Call<Drouting>, outs: Outs, chosen: Chosen) -> Outcome {
    let Some(partition) = chosen.one("use_next_gw") else { return (-1).into() };
    let (ctx, names) = (&mut *call.ctx, &partition.avps);
    loop {
        let (attrs, next) = {
            let mut avps = ctx.state.avps.borrow_mut();
            let rule = avps.first(names.rule_attrs).cloned();
            let mut behind = |out: &Option<OutVar>, name| {
                out.as_ref()?;
                pop_text(&mut avps, name);
                first_text(&mut avps, name).map(Value::Str)
            };
            let gateway = behind(&outs.gateway, names.gw_attrs);
            let carrier = behind(&outs.carrier, names.carrier_attrs);
            ((rule, gateway, carrier), take_next(&mut avps, names))
        };
        for (out, value) in [(&outs.rule, attrs.0), (&outs.gateway, attrs.1), (&outs.carrier, attrs.2)] {
            if let (Some(out), Some(value)) = (out, value) {
                out.set(ctx, value);
            }
        }
        let waiting = match next {
            Err(()) => {
                host::complain!(ctx, "drouting", "there is no gateway in use: do_routing() comes first");
                return (-1).into();
            }
            Ok(None) => return fall_back(ctx, call.module, &partition, outs),
            Ok(Some(waiting)) => waiting,
        };
        let data = partition.data();
        crate::qrouting::follow::next(ctx);
        let gateway = data.as_ref().and_then(|data| data.ends.gateway(&waiting.gateway));
        if gateway.is_some_and(|gateway| gateway.destination.is_active()) {
            if !set_request(ctx, waiting.ruri) {
                return (-1).into();
            }
            if let Some(socket) = socket::find(&ctx.core.shared.sockets, &waiting.socket) {
                ctx.state.socket = Some(socket);
            }
            return 1.into();
        }
    }
}

fn fall_back(ctx: &mut Ctx, module: &Arc<Drouting>, partition: &Arc<Partition>, outs: Outs) -> Outcome {
    let search = Search::resume(ctx, module, partition, outs);
    let outcome = search.map_or(Outcome::Done(-1), |search| search.run(ctx));
    if matches!(outcome, Outcome::Done(..=0)) {
        // Nothing is left: it is not tried again.
        ctx.state.avps.borrow_mut().remove(partition.avps.fallback.flags, 0);
    }
    outcome
}

fn current(ctx: &mut Ctx) -> Option<Uri> {
    let uri = host::context::uri::parse(&ctx.state.current_uri());
    if uri.is_none() {
        host::complain!(ctx, "drouting", "the R-URI cannot be read");
    }
    uri
}

/// route_to_carrier(carriers, [gateway attributes], [carrier attributes], [partition])
pub fn route_to_carrier(
    call: &mut Call<Drouting>,
    ids: Text,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
    chosen: Chosen,
) -> Outcome {
    let outs = Outs::new(None, gateway, carrier);
    to_carriers(call, ids.0, outs, chosen)
}

pub fn to_carriers(call: &mut Call<Drouting>, ids: Bytes, outs: Outs, chosen: Chosen) -> Outcome {
    let Some(partition) = chosen.one("route_to_carrier") else { return (-1).into() };
    let module = call.module.clone();
    partition.clone().when_tried(call.ctx, "route_to_carrier", move |ctx| {
        let Some(data) = loaded(ctx, &partition) else { return -1 };
        clear(ctx, &partition);
        let Some(uri) = current(ctx) else { return -1 };
        let mut push = Push::new(&module, &partition, &uri);
        for id in items(&ids).filter(|id| !id.is_empty()) {
            match data.ends.carrier(&id) {
                Some(carrier) if !carrier.is_off() => push.carrier(ctx, &data.ends, carrier, None),
                Some(_) => {}
                None => {
                    host::complain!(ctx, "drouting", "there is no carrier {}", String::from_utf8_lossy(&id))
                }
            }
        }
        if push.done(ctx, &outs) > 0 { 1 } else { -1 }
    })
}

/// route_to_gw(gateways, [gateway attributes], [carrier attributes], [partition])
pub fn route_to_gw(
    call: &mut Call<Drouting>,
    ids: Text,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
    chosen: Chosen,
) -> Outcome {
    let outs = Outs::new(None, gateway, carrier);
    to_gateways(call, ids.0, outs, chosen)
}

/// AVPs of an earlier routing stay, and variables get the attributes of the last gateway, as in the reference.
pub fn to_gateways(call: &mut Call<Drouting>, ids: Bytes, outs: Outs, chosen: Chosen) -> Outcome {
    let Some(partition) = chosen.one("route_to_gw") else { return (-1).into() };
    let module = call.module.clone();
    partition.clone().when_tried(call.ctx, "route_to_gw", move |ctx| {
        let Some(data) = loaded(ctx, &partition) else { return -1 };
        let Some(uri) = current(ctx) else { return -1 };
        let mut push = Push::new(&module, &partition, &uri);
        // Nothing follows a comma at the very end.
        let whole =
            ids.strip_suffix(b",").map_or_else(|| ids.clone(), |ids_without| ids.slice_ref(ids_without));
        for id in items(&whole) {
            let name = String::from_utf8_lossy(&id);
            if id.is_empty() {
                host::complain!(ctx, "drouting", "route_to_gw: a gateway is missing between two commas");
                return -1;
            }
            let Some(gateway) = data.ends.gateway(&id) else {
                host::complain!(ctx, "drouting", "there is no gateway {name}");
                continue;
            };
            if !push.gateway(ctx, gateway, None, None) {
                continue;
            }
            if let Some(out) = &outs.gateway {
                out.set(ctx, Value::Str(gateway.attrs.clone()));
            }
            if let (Some(out), Some(carrier)) = (&outs.carrier, data.ends.carrier_of(gateway)) {
                out.set(ctx, Value::Str(carrier.attrs.clone()));
            }
        }
        if push.done(ctx, &Outs::default()) > 0 { 1 } else { -1 }
    })
}

/// dr_match(group, [flags], number, [rule attributes], [partition])
pub fn dr_match(
    call: &mut Call<Drouting>,
    group: Group,
    flags: Option<Text>,
    number: Text,
    attrs: Option<Attrs<OF_RULE>>,
    chosen: Chosen,
) -> Outcome {
    let Some(partition) = chosen.one("dr_match") else { return (-1).into() };
    let flags = flags.map_or(Flags(0), |flags| Flags::parse(&flags));
    partition.clone().when_tried(call.ctx, "dr_match", move |ctx| {
        let Some(data) = loaded(ctx, &partition) else { return -1 };
        let now_s = (ctx.core.wall_us / 1_000_000) as i64;
        let Some(found) = data.rule_for(&number, group.0 as u32, now_s) else { return -1 };
        if flags.has(Flags::STRICT) && found.length != number.len() {
            return -1;
        }
        if let Some(out) = &attrs {
            out.0.set(ctx, Value::Str(Bytes::copy_from_slice(data.tree.attrs(found.rule))));
        }
        if let Some(name) = partition.avps.rule_prefix {
            ctx.state.avps.borrow_mut().add(name, Value::Str(number.slice(..found.length)));
        }
        1
    })
}

/// What is in use of a partition; nothing before its tables were read for the first time.
fn loaded(ctx: &mut Ctx, partition: &Partition) -> Option<Arc<Data>> {
    let data = partition.data();
    if data.is_none() {
        host::complain!(ctx, "drouting", "partition {}: its tables have not been read yet", partition.name);
    }
    data
}

/// dr_disable([partition]): the gateway in use is not used again before a probe, a command or a reload says so.
pub fn dr_disable(call: &mut Call<Drouting>, chosen: Chosen) -> i32 {
    let Some(partition) = chosen.one("dr_disable") else { return -1 };
    let in_use = call.state.avps.borrow().first(partition.avps.gw_id).cloned();
    let Some(id) = in_use.filter(|value| !matches!(value, Value::Int(_))).and_then(|value| value.text())
    else {
        host::complain!(
            call.ctx,
            "drouting",
            "dr_disable: there is no gateway in use: do_routing() comes first"
        );
        return -1;
    };
    let Some(data) = loaded(call.ctx, &partition) else { return -1 };
    if let Some(gateway) = data.ends.gateway(&id)
        && gateway.destination.is_active()
    {
        gateway.destination.set_state(State::Probing);
        super::watch::changed(call.ctx, &partition, gateway, "script dr_disable");
    }
    1
}
