//! States of gateways and carriers: who hears of a change, probes, and how they get back into the tables.

use super::Drouting;
use super::data::{Carrier, Gateway};
use super::kept::write_states;
use super::partition::{GROUP, Partition};
use crate::destinations::{Destination, Heard, Member, Save, State, save};
use host::db::Query;
use host::events::{EventParams, raise};
use host::{Call, Ctx, Finish, Value};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub const STATUS: &str = "E_DROUTING_STATUS";
/// How long a write of states may take.
const WRITE_MS: u64 = 30_000;

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

/// Tells the other servers of the cluster of gateways whose states changed here, and hears of theirs.
fn share(ctx: &mut Ctx, module: &Drouting) {
    for partition in module.partitions() {
        let Some(data) = partition.data() else { continue };
        let member =
            |gateway: &Gateway| Member { name: gateway.id.clone(), destination: gateway.destination.clone() };
        let members = data.ends.gateways.iter().map(member).collect();
        let name = format!("dr_states_{}_{}", module.settings.cluster, partition.name);
        let hears = partition.clone();
        partition.states.exchange(ctx, "drouting", name, members, move |ctx, member, state| {
            let Some(data) = hears.data() else { return };
            let same = |gateway: &&Gateway| Arc::ptr_eq(&gateway.destination, &member.destination);
            if let Some(gateway) = data.ends.gateway(&member.name).filter(|gateway| same(&&**gateway))
                && gateway.destination.set_state(state)
            {
                changed(ctx, &hears, gateway, "cluster replication");
            }
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
        let gateways = data.ends.gateways.iter().filter(|gateway| gateway.destination.take_unsaved());
        let of_gateway = |gateway: &Gateway| Save {
            destination: gateway.destination.clone(),
            query: Query::update(&partition.tables.gateways)
                .set("state", gateway.destination.state() as i64)
                .eq("gwid", gateway.id.clone()),
        };
        save(call.ctx, "drouting", &partition.db, gateways.map(of_gateway).collect());
        let unsaved = |carrier: &&Carrier| carrier.take_unsaved();
        let carriers: Vec<_> =
            data.ends.carriers.iter().filter(unsaved).map(|carrier| carrier.id.clone()).collect();
        if carriers.is_empty() {
            continue;
        }
        let of_carrier = |id: &bytes::Bytes| {
            let off = data.ends.carrier(id).is_some_and(Carrier::is_off);
            Query::update(&partition.tables.carriers).set("state", i64::from(off)).eq("carrierid", id.clone())
        };
        let queries = carriers.iter().map(of_carrier).collect();
        let (pool, data) = (partition.db.on(call.ctx), data.clone());
        call.ctx.spawn("states of carriers", WRITE_MS, async move {
            let written = pool.run_all(queries).await;
            Box::new(move |_: &mut Ctx| {
                if let Err(error) = written {
                    host::error!(
                        "drouting",
                        "states of carriers were not saved, they will be tried again: {error}"
                    );
                    carriers.iter().filter_map(|id| data.ends.carrier(id)).for_each(Carrier::note_unsaved);
                }
                1
            }) as Finish
        });
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
