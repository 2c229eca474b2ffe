//! Management commands: reload and show the addresses, test files.

use super::address::{Entry, Group};
use super::{Partition, Permissions};
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Value as Json, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn register(m: &mut Registrar<Permissions>) {
    m.command_late(
        "permissions:address_reload address_reload",
        "reads the addresses of a partition, or of all, from the database again",
        reload,
    )
    .takes("[partition]");
    m.command("permissions:address_dump address_dump", "the single addresses in memory", |call, params| {
        dump(call, params, Hosts::Only)
    })
    .takes("[partition]");
    m.command("permissions:subnet_dump subnet_dump", "the networks in memory", |call, params| {
        dump(call, params, Hosts::Not)
    })
    .takes("[partition]");
    m.command(
        "permissions:allow_uri allow_uri",
        "tests a pair of URIs against the files of a base name",
        allow_uri,
    )
    .takes("basename uri contact");
}

fn wanted(call: &Call<Permissions>, params: &MiParams) -> Result<Option<usize>, MiError> {
    let Some(name) = params.text("partition", 0) else { return Ok(None) };
    let at = call.module.partitions.iter().position(|p| p.name == name);
    at.map(Some).ok_or_else(|| MiError::new(404, "No such partition"))
}

fn reload(call: &mut Call<Permissions>, params: &MiParams, answer: MiAnswer) {
    let module = call.module.clone();
    let partitions: Vec<&Partition> = match wanted(call, params) {
        Ok(Some(at)) => vec![&module.partitions[at]],
        Ok(None) => module.partitions.iter().collect(),
        Err(error) => return answer.give(Err(error)),
    };
    if partitions.is_empty() {
        return answer.give(Ok(json!("OK")));
    }
    // The last partition that is done answers, the first failure is what it says.
    let open = Arc::new(AtomicUsize::new(partitions.len()));
    let state = Arc::new(parking_lot::Mutex::new((Some(answer), None)));
    for partition in partitions {
        let (open, state) = (open.clone(), state.clone());
        partition.load(call.ctx, &module, move |_, result| {
            let mut state = state.lock();
            if let Err(error) = result {
                state.1.get_or_insert(MiError::new(500, error.to_string()));
            }
            if open.fetch_sub(1, Ordering::Relaxed) == 1
                && let Some(answer) = state.0.take()
            {
                answer.give(state.1.take().map_or_else(|| Ok(json!("OK")), Err));
            }
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hosts {
    Only,
    Not,
}

fn dump(call: &mut Call<Permissions>, params: &MiParams, hosts: Hosts) -> MiResult {
    let partitions = &call.module.partitions;
    Ok(match wanted(call, params)? {
        Some(at) => {
            json!({"part": partitions[at].name, "Destinations": destinations(&partitions[at], hosts)})
        }
        None => {
            let list: Vec<Json> = partitions
                .iter()
                .map(|p| json!({"name": p.name, "Destinations": destinations(p, hosts)}))
                .collect();
            json!({ "Partitions": list })
        }
    })
}

fn destinations(partition: &Partition, hosts: Hosts) -> Vec<Json> {
    let Some(addresses) = partition.addresses.get() else { return Vec::new() };
    let shown = |group: &Group| {
        let id = group.id;
        let entries = group.entries().filter(move |e| e.is_host() == (hosts == Hosts::Only));
        entries.map(move |e| destination(id, e)).collect::<Vec<_>>()
    };
    addresses.groups.iter().flat_map(shown).collect()
}

fn destination(group: u32, entry: &Entry) -> Json {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "grp": group,
        "ip": entry.ip.to_string(),
        "mask": mask_text(entry),
        "port": entry.port,
        "proto": entry.proto.map_or("any", |p| p.as_str()),
        "pattern": entry.pattern.as_ref().map(|(t, _)| text(t)).unwrap_or_default(),
        "context_info": entry.info.as_deref().map(text).unwrap_or_default(),
    })
}

/// A host has the number of bits, a network its mask as an address.
fn mask_text(entry: &Entry) -> String {
    match entry.ip {
        IpAddr::V4(_) if entry.is_host() => "32".into(),
        IpAddr::V6(_) if entry.is_host() => "128".into(),
        IpAddr::V4(_) => {
            let bits = u32::MAX.checked_shl(32 - u32::from(entry.mask)).unwrap_or(0);
            Ipv4Addr::from_bits(bits).to_string()
        }
        IpAddr::V6(_) => {
            let bits = u128::MAX.checked_shl(128 - u32::from(entry.mask)).unwrap_or(0);
            Ipv6Addr::from_bits(bits).to_string()
        }
    }
}

fn allow_uri(call: &mut Call<Permissions>, params: &MiParams) -> MiResult {
    let base = params.need("basename", 0)?;
    let (uri, contact) = (params.need("uri", 1)?, params.need("contact", 2)?);
    let (allow, deny) =
        (format!("{base}{}", call.module.allow_suffix), format!("{base}{}", call.module.deny_suffix));
    let files = call.module.files.lock();
    // Files that no script uses are not read: that could block a worker.
    let Some((.., pair)) = files.iter().find(|(a, d, _)| *a == allow && *d == deny) else {
        return Err(MiError::new(404, "The files of this basename are not loaded"));
    };
    if pair.permits(uri.as_bytes(), contact.as_bytes()) {
        Ok(json!("OK"))
    } else {
        Err(MiError::new(403, "Forbidden"))
    }
}
