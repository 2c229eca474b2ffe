//! Management: reload, states of gateways and carriers, where a number goes.

use super::Drouting;
use super::data::{Carrier, Gateway};
use super::load::{Failure, load};
use super::partition::Partition;
use super::rows::States;
use super::watch;
use crate::destinations::State;
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Ctx, Registrar};
use script::ast::Dialect;
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub fn register(m: &mut Registrar<Drouting>) {
    m.command_late("drouting:reload dr_reload", "loads the tables again", reload)
        .takes("[partition_name] [inherit_state]");
    m.command("drouting:gw_status dr_gw_status", "states of gateways, or sets one", gateway_status)
        .takes("[partition_name] [gw_id] [status]");
    m.command("drouting:carrier_status dr_carrier_status", "states of carriers, or sets one", carrier_status)
        .takes("[partition_name] [carrier_id] [status]");
    m.command("drouting:number_routing dr_number_routing", "where a number would go", number_routing)
        .takes("[partition_name] [group_id] number");
    m.command("drouting:reload_status dr_reload_status", "when the tables were loaded last", reload_status)
        .takes("[partition_name]");
    m.command(
        "drouting:enable_probing dr_enable_probing",
        "whether gateways are probed, or says so",
        enable_probing,
    )
    .takes("[status]");
}

const PARTITION: &str = "partition_name";

fn wrong(what: &str, data: &str) -> MiError {
    MiError { data: Some(data.to_owned()), ..MiError::new(400, what) }
}

/// The partition that is named, or the only one.
fn partition(call: &Call<Drouting>, name: Option<String>) -> Result<Arc<Partition>, MiError> {
    match (name, call.module.settings.use_partitions) {
        (Some(name), true) => {
            call.module.partition(&name).ok_or_else(|| MiError::new(404, "Partition not found"))
        }
        (None, true) => Err(wrong(
            "Missing parameter: 'partition_name'",
            "'partition_name' is required when 'use_partitions' is set",
        )),
        (Some(_), false) => Err(wrong(
            "Invalid parameter: 'partition_name'",
            "'partition_name' supported only when 'use_partitions' is set",
        )),
        (None, false) => call.module.first().ok_or_else(no_data),
    }
}

fn no_data() -> MiError {
    MiError::new(404, "No Data available yet")
}

/// Parameters of a command that takes them by name; 2.1 wrote them one after the other.
fn by_name(call: &Call<Drouting>, params: &MiParams, names: &[&str]) -> Result<MiParams, MiError> {
    if params.positional.is_empty() {
        return Ok(params.clone());
    }
    if call.shared().dialect != Dialect::V21 {
        return Err(MiError::params("Command only supports named parameters"));
    }
    let names = &names[usize::from(!call.module.settings.use_partitions)..];
    let named = names.iter().zip(&params.positional).map(|(name, value)| ((*name).to_owned(), value.clone()));
    Ok(MiParams { named: named.collect(), positional: Vec::new() })
}

/// "n" or 0: states are those of the tables.
fn states(text: Option<String>) -> States {
    match text.as_deref() {
        Some("0" | "n" | "N") => States::OfTable,
        _ => States::Inherited,
    }
}

fn reload(call: &mut Call<Drouting>, params: &MiParams, answer: MiAnswer) {
    if params.positional.len() == 1 && call.shared().dialect != Dialect::V21 {
        return answer.give(Err(MiError::params("Ambiguous call, use named parameters instead")));
    }
    let (name, states) = (params.text(PARTITION, 0), states(params.text("inherit_state", 1)));
    if name.is_none() {
        let partitions = call.module.partitions();
        return reload_next(call.ctx, call.module.clone(), partitions, states, answer, Ok(()));
    }
    match partition(call, name) {
        Err(error) => answer.give(Err(error)),
        Ok(partition) => load(call.ctx, call.module, &partition, states, move |_, result| {
            answer.give(match result {
                Ok(()) => Ok(json!("OK")),
                Err(Failure::NoTables) => Err(MiError::new(404, "No rules tables")),
                Err(Failure::Busy) => Err(MiError::new(500, "Reload in progress")),
                Err(Failure::Failed(_) | Failure::Later(_)) => Err(MiError::new(500, "Failed to reload")),
            });
        }),
    }
}

/// One after the other; those behind one that failed are loaded too.
fn reload_next(
    ctx: &mut Ctx,
    module: Arc<Drouting>,
    mut partitions: Vec<Arc<Partition>>,
    states: States,
    answer: MiAnswer,
    so_far: Result<(), MiError>,
) {
    if partitions.is_empty() {
        return answer.give(so_far.map(|()| json!("OK")));
    }
    let partition = partitions.remove(0);
    load(ctx, &module.clone(), &partition, states, move |ctx, result| {
        let result = match result {
            Ok(()) | Err(Failure::NoTables) => so_far,
            Err(_) => Err(MiError::new(500, "Failed to reload")),
        };
        reload_next(ctx, module, partitions, states, answer, result);
    });
}

fn text(bytes: &Bytes) -> Json {
    String::from_utf8_lossy(bytes).into_owned().into()
}

fn put_attrs(shown: &mut Map<String, Json>, attrs: &Bytes) {
    if !attrs.is_empty() {
        shown.insert("ATTRS".into(), text(attrs));
    }
}

fn state_shown(gateway: &Gateway) -> &'static str {
    match gateway.state_name() {
        "disabled MI" => "Disabled MI",
        "probing" => "Probing",
        "inactive" => "Inactive",
        _ => "Active",
    }
}

fn gateway_shown(gateway: &Gateway) -> Json {
    let mut shown = Map::new();
    shown.insert("ID".into(), text(&gateway.id));
    shown.insert("IP".into(), text(&gateway.address));
    put_attrs(&mut shown, &gateway.attrs);
    shown.insert("State".into(), state_shown(gateway).into());
    shown.into()
}

/// What a command about one gateway or carrier is about: its identifier, and the state that it gets.
fn subject(params: &MiParams, id: &str) -> Result<(Option<String>, Option<i64>), MiError> {
    let named = (params.text(id, 9), params.int("status", 9)?);
    match named {
        (None, Some(_)) => Err(MiError::params("Named parameters do not match")),
        other => Ok(other),
    }
}

fn gateway_status(call: &mut Call<Drouting>, params: &MiParams) -> MiResult {
    let params = by_name(call, params, &[PARTITION, "gw_id", "status"])?;
    let (id, status) = subject(&params, "gw_id")?;
    let partition = partition(call, params.text(PARTITION, 9))?;
    let data = partition.data().ok_or_else(no_data)?;
    let Some(id) = id else {
        return Ok(json!({ "Gateways": data.ends.gateways.iter().map(gateway_shown).collect::<Vec<_>>() }));
    };
    let gateway = data.ends.gateway(id.as_bytes()).ok_or_else(|| MiError::new(404, "GW ID not found"))?;
    let Some(status) = status else {
        let mut shown = Map::new();
        put_attrs(&mut shown, &gateway.attrs);
        shown.insert("State".into(), state_shown(gateway).into());
        return Ok(shown.into());
    };
    if gateway.destination.set_state(if status == 0 { State::Inactive } else { State::Active }) {
        watch::changed(call.ctx, &partition, gateway, "MI command");
    }
    Ok(json!("OK"))
}

fn carrier_status(call: &mut Call<Drouting>, params: &MiParams) -> MiResult {
    let params = by_name(call, params, &[PARTITION, "carrier_id", "status"])?;
    let (id, status) = subject(&params, "carrier_id")?;
    let partition = partition(call, params.text(PARTITION, 9))?;
    let data = partition.data().ok_or_else(no_data)?;
    let shown = |carrier: &Carrier, with_id: bool| {
        let mut shown = Map::new();
        if with_id {
            shown.insert("ID".into(), text(&carrier.id));
        }
        put_attrs(&mut shown, &carrier.attrs);
        // As the reference writes it, blank and all.
        shown.insert("Enabled".into(), if carrier.is_off() { "no " } else { "yes" }.into());
        Json::Object(shown)
    };
    let Some(id) = id else {
        let list: Vec<Json> = data.ends.carriers.iter().map(|carrier| shown(carrier, true)).collect();
        return Ok(json!({ "Carriers": list }));
    };
    let carrier =
        data.ends.carrier(id.as_bytes()).ok_or_else(|| MiError::new(404, "Carrier ID not found"))?;
    let Some(status) = status else { return Ok(shown(carrier, false)) };
    if carrier.set_off(status == 0) {
        watch::carrier_changed(call.ctx, &partition, carrier, "MI command");
    }
    Ok(json!("OK"))
}

fn number_routing(call: &mut Call<Drouting>, params: &MiParams) -> MiResult {
    let params = by_name(call, params, &[PARTITION, "group_id", "number"])?;
    let partition = partition(call, params.text(PARTITION, 9))?;
    let group = params.int("group_id", 9)?.unwrap_or(-1);
    let number = params.need("number", 9)?;
    let Some(data) = partition.data() else { return Ok(json!("OK")) };
    let now_s = (call.core.wall_us / 1_000_000) as i64;
    let Some(found) = data.rule_for(number.as_bytes(), group as u32, now_s) else {
        return Ok(json!("No match"));
    };
    let ends = &data.ends;
    let list = data.tree.destinations(found.rule).iter().map(|target| match target.is_carrier {
        true => json!({ "CARRIER": text(&ends.carriers[target.which as usize].id) }),
        false => json!({ "GATEWAY": text(&ends.gateways[target.which as usize].id) }),
    });
    let mut shown = Map::new();
    shown.insert("Matched Prefix".into(), number[..found.length].into());
    shown.insert("GW List".into(), list.collect());
    put_attrs(&mut shown, &Bytes::copy_from_slice(data.tree.attrs(found.rule)));
    Ok(shown.into())
}

fn loaded_shown(partition: &Partition, with_name: bool) -> Json {
    let mut shown = Map::new();
    if with_name {
        shown.insert("name".into(), partition.name.clone().into());
    }
    shown.insert("Date".into(), host::clock::ctime(partition.loaded_s() as i64).into());
    if let Some(checksum) = partition.data().and_then(|data| data.checksum.clone()) {
        shown.insert("Hash".into(), checksum.into());
    }
    shown.into()
}

fn reload_status(call: &mut Call<Drouting>, params: &MiParams) -> MiResult {
    match (params.text(PARTITION, 0), call.module.settings.use_partitions) {
        (None, true) => {
            let list: Vec<Json> = call.module.partitions().iter().map(|p| loaded_shown(p, true)).collect();
            Ok(json!({ "Partitions": list }))
        }
        (None, false) => Ok(loaded_shown(&*partition(call, None)?, false)),
        (name, _) => Ok(loaded_shown(&*partition(call, name)?, true)),
    }
}

fn enable_probing(call: &mut Call<Drouting>, params: &MiParams) -> MiResult {
    let Some(status) = params.int("status", 0)? else {
        return Ok(json!({ "Status": i64::from(call.module.probes.load(Ordering::Relaxed)) }));
    };
    call.module.probes.store(status != 0, Ordering::Relaxed);
    Ok(json!("OK"))
}
