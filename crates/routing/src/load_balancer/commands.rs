//! Management commands.

use super::LoadBalancer;
use super::count::{Counts, spawn_counts};
use super::data::{Data, Dst};
use crate::destinations::State;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Value as Json, json};
use std::sync::atomic::Ordering;

const UNKNOWN: &str = "Destination ID not found";

pub fn register(m: &mut Registrar<LoadBalancer>) {
    m.command_late("load_balancer:reload lb_reload", "reads the destinations again", reload).takes("");
    m.command("load_balancer:resize lb_resize", "changes a capacity until the next reload", resize)
        .takes("destination_id res_name new_capacity");
    m.command_late("load_balancer:list lb_list", "destinations, their capacities and loads", list).takes("");
    m.command("load_balancer:status lb_status", "tells whether a destination is enabled, or sets it", status)
        .takes("destination_id [new_status]");
}

fn reload(call: &mut Call<LoadBalancer>, _: &MiParams, answer: MiAnswer) {
    let module = call.module.clone();
    module.load(call.ctx, move |_, loaded| {
        answer.give(if loaded { Ok(json!("OK")) } else { Err(MiError::new(500, "Failed to reload")) });
    });
}

fn resize(call: &mut Call<LoadBalancer>, params: &MiParams) -> MiResult {
    let id = needed(params, "destination_id", 0)?;
    let name = params.need("res_name", 1)?;
    let size = needed(params, "new_capacity", 2)?;
    let data = call.module.data.get().unwrap_or_default();
    let dst = data.by_id(id).ok_or_else(|| MiError::new(404, UNKNOWN))?;
    let capacity = data.resource(name.as_bytes()).and_then(|resource| dst.capacity(resource));
    let capacity = capacity.ok_or_else(|| MiError::new(404, "Destination has no such resource"))?;
    capacity.max.store(size as u32, Ordering::Relaxed);
    Ok(json!("OK"))
}

fn needed(params: &MiParams, name: &str, at: usize) -> Result<i64, MiError> {
    params.int(name, at)?.ok_or_else(|| MiError::params("Too few or too many parameters"))
}

fn status(call: &mut Call<LoadBalancer>, params: &MiParams) -> MiResult {
    let id = needed(params, "destination_id", 0)?;
    let new = params.int("new_status", 1)?;
    let module = call.module.clone();
    let data = module.data.get().unwrap_or_default();
    let dst = data.by_id(id).ok_or_else(|| MiError::new(404, UNKNOWN))?;
    let Some(new) = new else {
        let mut shown = json!({ "enable": if dst.to.is_active() { "yes" } else { "no" } });
        if !dst.attrs.is_empty() {
            shown["attrs"] = String::from_utf8_lossy(&dst.attrs).into();
        }
        return Ok(shown);
    };
    match new {
        0 => module.change(call.ctx, dst, State::Inactive, "disabled by a command"),
        _ => module.change(call.ctx, dst, State::Active, "enabled by a command"),
    }
    Ok(json!("OK"))
}

fn list(call: &mut Call<LoadBalancer>, _: &MiParams, answer: MiAnswer) {
    let data = call.module.data.get().unwrap_or_default();
    let asked =
        data.dsts.iter().flat_map(|dst| dst.capacities.iter().map(|c| (c.resource, dst.value.clone())));
    let (asked, held) = (asked.collect(), data.clone());
    spawn_counts(call.ctx, &data, asked, move |_, counts| {
        let shown: Vec<Json> = held.dsts.iter().map(|dst| destination(&held, dst, &counts)).collect();
        answer.give(Ok(json!({ "Destinations": shown })));
    });
}

fn destination(data: &Data, dst: &Dst, counts: &Counts) -> Json {
    let resource = |capacity: &super::data::Capacity| {
        json!({
            "name": String::from_utf8_lossy(&data.resources[capacity.resource].name),
            "max": capacity.max(),
            "load": counts.of(capacity.resource, &dst.value),
        })
    };
    let mut shown = json!({
        "uri": String::from_utf8_lossy(&dst.to.uri),
        "id": dst.id,
        "group": dst.group,
        "enabled": if dst.to.is_active() { "yes" } else { "no" },
        "auto-reenable": if dst.to.state() == State::Inactive { "off" } else { "on" },
        "Resources": dst.capacities.iter().map(resource).collect::<Vec<_>>(),
    });
    if !dst.attrs.is_empty() {
        shown["attrs"] = String::from_utf8_lossy(&dst.attrs).into();
    }
    shown
}
