//! Script functions.

use super::LoadBalancer;
use super::resources::names;
use super::route::{self, Flags, Start};
use crate::destinations::{Place, State};
use bytes::Bytes;
use host::load::Loader;
use host::registrar::Since;
use host::{Arg, Call, Format, Int, OutVar, Outcome, Registrar, Routes, Text};
use modules::dialog::{Flags as DialogFlags, api};
use script::{Diagnostic, Loc, ast};
use std::sync::Arc;

pub fn register(m: &mut Registrar<LoadBalancer>) {
    let usual = Routes::REQUEST.and(Routes::BRANCH).and(Routes::FAILURE);
    let listed = usual.and(Routes::ON_REPLY).and(Routes::LOCAL);
    m.function("lb_start", usual, start);
    for name in ["lb_start_or_next", "load_balance"] {
        m.function(name, usual, start_or_next);
    }
    m.function("lb_next", usual, |call: &mut Call<LoadBalancer>, attrs: Option<OutVar>| {
        route::route(call.ctx, call.module, None, attrs)
    });
    m.function("lb_reset", usual, |call: &mut Call<LoadBalancer>| route::reset(call.ctx, call.module));
    m.function("lb_is_started", Routes::ALL, |call: &mut Call<LoadBalancer>| {
        call.module.names.is_started(call.ctx)
    });
    for name in ["lb_disable_dst", "lb_disable"] {
        m.function(name, usual, disable_dst);
    }
    m.function_of(Since::V4, "lb_is_destination", listed, is_destination);
    m.function_of(Since::V21, "lb_is_destination", listed, is_destination_old);
    m.function_of(Since::V4, "lb_count_call", usual, count_call);
    m.function_of(Since::V21, "lb_count_call", usual, count_call_old);
}

/// Resources of a call, `pstn;vm`; constant ones are checked when the script is loaded.
pub struct Resources(Vec<Bytes>);

impl Arg<LoadBalancer> for Resources {
    type Prepared = Format;
    const WHAT: &'static str = "resources: name;name";

    fn prepare(
        arg: Option<&ast::Arg>,
        site: Loc,
        loader: &mut Loader,
        module: &Arc<LoadBalancer>,
    ) -> Result<Format, Diagnostic> {
        let format = <Text as Arg<LoadBalancer>>::prepare(arg, site, loader, module)?;
        match format.constant().map(|text| names(text)) {
            Some(Err(why)) => Err(Diagnostic::error(arg.map_or(site, |a| a.loc), why)),
            _ => Ok(format),
        }
    }

    fn eval(format: &Format, call: &mut Call<'_, LoadBalancer>) -> Result<Resources, i32> {
        let text = <Text as Arg<LoadBalancer>>::eval(format, call)?;
        names(&text).map(Resources).map_err(|why| {
            host::complain!(call.ctx, "load_balancer", "{why}");
            -1
        })
    }
}

/// lb_start(group, resources, [flags], [attributes])
fn start(
    call: &mut Call<LoadBalancer>,
    group: Int,
    resources: Resources,
    flags: Option<Text>,
    attrs: Option<OutVar>,
) -> Outcome {
    let flags = flags.map_or(Flags::default(), |flags| Flags::parse(&flags));
    let start = Start { group: group.0, resources: resources.0, flags };
    route::route(call.ctx, call.module, Some(start), attrs)
}

/// lb_start_or_next(group, resources, [flags], [attributes])
fn start_or_next(
    call: &mut Call<LoadBalancer>,
    group: Int,
    resources: Resources,
    flags: Option<Text>,
    attrs: Option<OutVar>,
) -> Outcome {
    if call.module.names.is_started(call.ctx) {
        return route::route(call.ctx, call.module, None, attrs);
    }
    start(call, group, resources, flags, attrs)
}

/// lb_disable_dst(): the destination that was chosen last is not used until a probe or command brings it back.
fn disable_dst(call: &mut Call<LoadBalancer>) -> bool {
    let module = call.module.clone();
    let Some(data) = module.data.get() else { return false };
    let Some(dst) = module.names.last(call.ctx).and_then(|id| data.by_id(id)) else { return false };
    if dst.to.is_active() {
        module.change(call.ctx, dst, State::Probing, "disabled by the script");
    }
    true
}

/// lb_is_destination(ip, port, [group], [active], [attributes])
fn is_destination(
    call: &mut Call<LoadBalancer>,
    ip: Text,
    port: Int,
    group: Option<Int>,
    active: Option<Int>,
    attrs: Option<OutVar>,
) -> bool {
    let place = u16::try_from(port.0).ok().and_then(|port| Place::parse(&ip, port));
    let (group, active) = (group.map_or(-1, |group| group.0), active.is_some_and(|n| n.0 != 0));
    let data = call.module.data.get();
    let found = place.and_then(|place| data.as_ref()?.at(&place, group, active));
    if let Some(var) = attrs {
        var.set(call.ctx, found.map(|dst| dst.attrs.clone()).unwrap_or_default());
    }
    found.is_some()
}

/// lb_is_destination("ip", "port", ["group"], ["active"])
fn is_destination_old(
    call: &mut Call<LoadBalancer>,
    ip: Text,
    port: Text,
    group: Option<Text>,
    active: Option<Text>,
) -> bool {
    let number = |text: &[u8]| host::arg::parse_int(text).map(Int);
    let port = if port.is_empty() { Some(Int(0)) } else { number(&port) };
    let Some(port) = port else { return false };
    let group = group.and_then(|group| number(&group));
    let active = active.and_then(|active| number(&active));
    is_destination(call, ip, port, group, active, None)
}

/// lb_count_call(ip, port, group, resources, [undo]): counts a call that was not routed here, or takes it back.
fn count_call(
    call: &mut Call<LoadBalancer>,
    ip: Text,
    port: Int,
    group: Int,
    resources: Resources,
    undo: Option<Int>,
) -> bool {
    let module = call.module.clone();
    let place = u16::try_from(port.0).ok().and_then(|port| Place::parse(&ip, port));
    // The reference reads the group as a signed byte.
    let group = i64::from(group.0 as i8);
    let Some(data) = module.data.get() else { return false };
    let Some(dst) = place.and_then(|place| data.at(&place, group, false)) else {
        host::complain!(call.ctx, "load_balancer", "lb_count_call: no destination of group {group} is there");
        return false;
    };
    let found: Vec<usize> = resources.0.iter().filter_map(|name| data.resource(name)).collect();
    if found.len() != resources.0.len() {
        host::complain!(call.ctx, "load_balancer", "lb_count_call: no destination has one of the resources");
        return false;
    }
    let Some(key) = api::create(call.ctx, DialogFlags::default()) else { return false };
    let undo = undo.is_some_and(|n| n.0 != 0);
    for resource in found {
        let profile = data.resources[resource].profile;
        match undo {
            false => api::join(call.ctx, key, profile, &dst.value),
            true => api::leave(call.ctx, key, profile, &dst.value),
        }
    }
    true
}

/// lb_count_call("ip", "port", "group", "resources", ["undo"])
fn count_call_old(
    call: &mut Call<LoadBalancer>,
    ip: Text,
    port: Text,
    group: Text,
    resources: Resources,
    undo: Option<Text>,
) -> bool {
    let number = |text: &[u8]| host::arg::parse_int(text).map(Int);
    let (Some(port), Some(group)) = (number(&port), number(&group)) else { return false };
    let undo = undo.and_then(|undo| number(&undo));
    count_call(call, ip, port, group, resources, undo)
}
