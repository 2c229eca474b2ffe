//! States of gateways and carriers: who hears of a change, probes, and how they get back into the tables.

use super::Drouting;
use super::data::{Carrier, Gateway};
use super::kept::write_states;
use super::partition::{GROUP, Partition};
use crate::destinations::{Destination, Heard, Member, Save, Standing, State, save};
use host::db::Query;
use host::events::{EventParams, raise};
use host::{Call, Ctx, Value};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub const STATUS: &str = "E_DROUTING_STATUS";
/// The state of a gateway has changed.
pub fn changed(ctx: &mut Ctx, partition: &Partition, gateway: &Gateway, reason: &'static str) {
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (id, address, state) = (text(&gateway.id), text(&gateway.address), gateway.state_name());
    let line = format!("GW <{id}>/{address} switched to [{state}] due to {reason}\n");
    report(ctx, partition, line);
    let params = [
        ("partition", Value::from(partition.name.clone())),
        ("gwid", Value::Str(gateway.id.clone())),
        ("address", Value::Str(gateway.address.clone())),
        ("status", Value::from(state)),
        ("reason", Value::from(reason)),
    ];
    raise(ctx, STATUS, params.into_iter().collect::<EventParams>());
}

/// A carrier was turned on or off.
pub fn carrier_changed(ctx: &mut Ctx, partition: &Partition, carrier: &Carrier, reason: &str) {
    let state = if carrier.is_off() { "disabled MI" } else { "active" };
    let id = String::from_utf8_lossy(&carrier.id);
    report(ctx, partition, format!("CARRIER <{id}> switched to [{state}] due to {reason}\n"));
}

fn report(ctx: &Ctx, partition: &Partition, line: String) {
    ctx.shared().status.report(GROUP, &partition.events, ctx.core.wall_us / 1_000_000, line);
}

/// Tells the other servers of the cluster of gateways and carriers whose states changed here, and hears of theirs.
fn share(ctx: &mut Ctx, module: &Drouting) {
    for partition in module.partitions() {
        let Some(data) = partition.data() else { continue };
        let gateways = data.ends.gateways.iter().map(|gateway| Member {
            name: gateway.id.clone(),
            standing: gateway.destination.standing.clone(),
            of: false,
        });
        let carriers = data.ends.carriers.iter().map(|carrier| Member {
            name: [b"#", &carrier.id[..]].concat().into(),
            standing: carrier.standing.clone(),
            of: true,
        });
        let members = gateways.chain(carriers).collect();
        let name = format!("dr_states_{}_{}", module.settings.cluster, partition.name);
        let hears = partition.clone();
        partition.states.exchange(ctx, "drouting", name, members, move |ctx, member, state| {
            let Some(data) = hears.data() else { return };
            // A reload may have put another in its place.
            let same = |standing: &Arc<Standing>| Arc::ptr_eq(standing, &member.standing);
            let why = "cluster replication";
            if member.of {
                let carrier = data.ends.carrier(&member.name[1..]);
                let carrier = carrier.filter(|c| same(&c.standing) && c.standing.set(state));
                carrier.into_iter().for_each(|carrier| carrier_changed(ctx, &hears, carrier, why));
                return;
            }
            let gateway = data.ends.gateway(&member.name);
            let gateway = gateway.filter(|g| same(&g.destination.standing) && g.destination.set_state(state));
            gateway.into_iter().for_each(|gateway| changed(ctx, &hears, gateway, why));
        });
    }
}

/// Each second on worker 0: probes are sent when it is time.
pub fn probe(call: &mut Call<Drouting>) {
    let module = call.module.clone();
    if module.settings.cluster > 0 {
        share(call.ctx, &module);
    }
    if !module.pace.due(call.ctx, module.settings.probing_interval) || !module.probes.load(Ordering::Relaxed)
    {
        return;
    }
    if let Some(tag) = module.probing_tag.as_ref().filter(|tag| !tag.is_empty())
        && !modules::clusterer::is_active_here(call.ctx, tag)
    {
        return;
    }
    let Some(probe) = &module.probe else { return };
    for partition in module.partitions() {
        let Some(data) = partition.data() else { continue };
        for gateway in data.ends.gateways.iter().filter(|gateway| gateway.wants_probe()) {
            let (hears, partition, id) = (module.clone(), partition.clone(), gateway.id.clone());
            probe.send(call.ctx, &gateway.destination, move |ctx, destination, heard| {
                probed(ctx, &hears, &partition, &id, destination, heard);
            });
        }
    }
}

fn probed(
    ctx: &mut Ctx,
    module: &Drouting,
    partition: &Partition,
    id: &[u8],
    destination: &Arc<Destination>,
    heard: Heard,
) {
    let Some(data) = partition.data() else { return };
    // A reload may have taken it away, or given its name to another.
    let gateway = data.ends.gateway(id).filter(|gateway| Arc::ptr_eq(&gateway.destination, destination));
    let Some(gateway) = gateway else { return };
    let status = heard.status;
    let good = status == 200 || module.good_codes.has(status);
    if good && destination.state() == State::Probing {
        destination.set_state(State::Active);
        changed(ctx, partition, gateway, "200 OK probing reply");
    } else if !good && status >= 400 && destination.is_active() {
        destination.set_state(State::Probing);
        let why = if heard.sent { "negative probing reply" } else { "failure to send probe" };
        changed(ctx, partition, gateway, why);
    }
}

/// Writes states that have changed since the last time.
pub fn flush(call: &mut Call<Drouting>) {
    let module = call.module.clone();
    if !module.settings.persistent_state {
        return;
    }
    for partition in module.partitions() {
        let Some(data) = partition.data() else { continue };
        let (gateways, carriers) = (data.ends.gateways.iter(), data.ends.carriers.iter());
        let gateways = gateways.filter(|gateway| gateway.destination.standing.take_unsaved());
        let carriers = carriers.filter(|carrier| carrier.standing.take_unsaved());
        let of_gateway = |gateway: &Gateway| Save {
            standing: gateway.destination.standing.clone(),
            query: Query::update(&partition.tables.gateways)
                .set("state", gateway.destination.state() as i64)
                .eq("gwid", gateway.id.clone()),
        };
        let of_carrier = |carrier: &Carrier| Save {
            standing: carrier.standing.clone(),
            query: Query::update(&partition.tables.carriers)
                .set("state", i64::from(carrier.is_off()))
                .eq("carrierid", carrier.id.clone()),
        };
        let list = gateways.map(of_gateway).chain(carriers.map(of_carrier)).collect();
        save(call.ctx, "drouting", &partition.db, list);
    }
}

/// The server ends.
pub fn stop(call: &mut Call<Drouting>) {
    flush(call);
    for partition in call.module.partitions() {
        if let (Some(path), Some(data)) = (&partition.kept, partition.data())
            && let Err(error) = write_states(path, &data)
        {
            host::error!("drouting", "states are not kept over a restart: {error}");
        }
    }
}
