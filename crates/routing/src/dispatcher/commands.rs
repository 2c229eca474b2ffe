//! Management commands.

use super::Dispatcher;
use super::data::{Entry, States};
use super::functions::push_to;
use super::partition::Partition;
use super::state::{Place, Wanted};
use crate::destinations::{Place as Address, State};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Registrar, Shared};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const UNKNOWN: &str = "ERROR Unknown partition";
/// One parameter by place could be either of two.
const AMBIGUOUS: &str = "Ambiguous call, use named parameters instead";

pub fn register(m: &mut Registrar<Dispatcher>) {
    m.command(
        "dispatcher:set_state ds_set_state",
        "makes a destination active (a), inactive (i) or probed (p)",
        set_state,
    )
    .takes("state group address");
    m.command("dispatcher:list ds_list", "sets, their destinations and states", list)
        .takes("[full] [partition]");
    m.command_late("dispatcher:reload ds_reload", "reads the sets of a partition or of all again", reload)
        .takes("[partition] [inherit_state]");
    m.command(
        "dispatcher:push_script_attrs ds_push_script_attrs",
        "gives the destinations at an address attributes",
        push_script_attrs,
    )
    .takes("attrs ip port set [partition]");
}

fn set_state(call: &mut Call<Dispatcher>, params: &MiParams) -> MiResult {
    let wanted = Wanted::parse(params.need("state", 0)?.as_bytes());
    let wanted = wanted.ok_or_else(|| MiError::new(500, "Bad state value"))?;
    let group = params.need("group", 1)?;
    let (name, set) = match group.split_once(':') {
        Some((name, set)) if !set.is_empty() => (name.trim(), set.trim_start()),
        _ => ("", &group[..]),
    };
    let module = call.module.clone();
    let partition = module.partition(name.as_bytes()).ok_or_else(|| MiError::new(404, UNKNOWN))?;
    let set = set.parse::<u32>().map_err(|_| MiError::new(500, "bad group value"))?;
    let address = Bytes::from(params.need("address", 2)?);
    let place = Place { partition, set: set.into(), address };
    match module.set_state(call.ctx, &place, wanted, "MI command") {
        true => Ok(json!("OK")),
        false => Err(MiError::new(404, "destination not found")),
    }
}

fn list(call: &mut Call<Dispatcher>, params: &MiParams) -> MiResult {
    if params.positional.len() == 1 {
        return Err(MiError::params(AMBIGUOUS));
    }
    let full = params.int("full", 0)?.is_some_and(|full| full != 0);
    let wanted = params.text("partition", 1);
    let shared = call.shared().clone();
    let shown = |partition: &Arc<Partition>| {
        let mut shown = json!({ "name": partition.name });
        let data = partition.data.get();
        if let Some(data) = data.filter(|data| !data.sets.is_empty()) {
            let set = |set: &super::data::Set| {
                let entries: Vec<Json> = set.entries.iter().map(|e| destination(&shared, e, full)).collect();
                json!({ "id": set.id, "Destinations": entries })
            };
            shown["SETS"] = data.sets.iter().map(set).collect();
        }
        shown
    };
    let partitions = match wanted {
        None => call.module.partitions.iter().map(shown).collect::<Vec<_>>(),
        Some(name) => {
            let found = call.module.partition(name.as_bytes());
            vec![shown(found.ok_or_else(|| MiError::new(500, UNKNOWN))?)]
        }
    };
    Ok(json!({ "PARTITIONS": partitions }))
}

fn destination(shared: &Shared, entry: &Entry, full: bool) -> Json {
    let text = |bytes: &Bytes| Json::from(String::from_utf8_lossy(bytes));
    let state = match entry.to.state() {
        State::Active => "Active",
        State::Inactive => "Inactive",
        State::Probing => "Probing",
    };
    let mut shown = json!({
        "URI": text(&entry.to.uri),
        "state": state,
        "first_hit_counter": entry.to.hits.load(Ordering::Relaxed),
    });
    if let Some(socket) = entry.to.socket.and_then(|at| shared.sockets.get(usize::from(at))) {
        shown["socket"] = format!("{}:{}", socket.transport.as_str(), socket.addr).into();
    }
    if !entry.attrs.is_empty() {
        shown["attr"] = text(&entry.attrs);
    }
    if let Some(attrs) = &*entry.script_attrs.read() {
        shown["script_attr"] = text(attrs);
    }
    if full {
        shown["weight"] = entry.weight.into();
        shown["priority"] = entry.priority.into();
        if !entry.description.is_empty() {
            shown["description"] = text(&entry.description);
        }
    }
    shown["resolved_addresses"] = entry.to.addresses().into();
    shown
}

fn reload(call: &mut Call<Dispatcher>, params: &MiParams, answer: MiAnswer) {
    if params.positional.len() == 1 {
        return answer.give(Err(MiError::params(AMBIGUOUS)));
    }
    let states = match params.text("inherit_state", 1).as_deref() {
        Some("0" | "n" | "N") => States::OfTable,
        _ => States::Kept,
    };
    let module = call.module.clone();
    let wanted = match params.text("partition", 0) {
        None => module.partitions.clone(),
        Some(name) => match module.partition(name.as_bytes()) {
            Some(partition) => vec![partition.clone()],
            None => return answer.give(Err(MiError::new(500, UNKNOWN))),
        },
    };
    module.load_each(call.ctx, wanted, states, move |_, done| {
        let result = if done { Ok(json!("OK")) } else { Err(MiError::new(500, "ERROR Reloading data")) };
        answer.give(result);
    });
}

fn push_script_attrs(call: &mut Call<Dispatcher>, params: &MiParams) -> MiResult {
    let attrs = Bytes::from(params.need("attrs", 0)?);
    let ip = params.need("ip", 1)?;
    let port = params.int_in("port", 2, 0..=65_535)?.unwrap_or(0);
    let set = params.int("set", 3)?.unwrap_or(-1);
    let name = params.text("partition", 4).unwrap_or_default();
    let partition = call.module.partition(name.as_bytes());
    let partition = partition.ok_or_else(|| MiError::new(404, UNKNOWN))?;
    let address = u16::try_from(port).ok().and_then(|port| Address::parse(ip.as_bytes(), port));
    let address = address.ok_or_else(|| MiError::new(404, "destination not found"))?;
    push_to(partition, &attrs, &address, set);
    Ok(json!("OK"))
}
