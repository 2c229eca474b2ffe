//! Management commands on engines.

use super::reporter::{Told, ticks};
use super::{NEVER, Sets};
use host::Ctx;
use host::mi::{MiError, MiParams, MiResult};
use serde_json::json;

/// `show`: all sets and their engines.
pub fn show(sets: &Sets) -> MiResult {
    let of = |node: &super::Node| {
        json!({
            "url": node.url, "index": node.index, "disabled": i32::from(node.is_disabled()),
            "weight": node.weight, "recheck_ticks": node.recheck(),
        })
    };
    let set = |set: &super::Set| json!({"Set": set.id, "Nodes": set.nodes.iter().map(|n| of(n)).collect::<Vec<_>>()});
    Ok(sets.list.iter().map(|s| set(s)).collect())
}

/// What an operator wants of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Off,
    On,
    /// Off until it answers again.
    Probe,
}

/// `enable url enable [setid]`: 0 off, 1 on, 2 off until it answers. `missing`: what is said when there is no such engine.
pub fn enable(
    ctx: &mut Ctx,
    sets: &Sets,
    params: &MiParams,
    told: Told,
    timeout: u32,
    missing: &str,
) -> MiResult {
    let absent = || Err(MiError::new(404, missing));
    if sets.list.is_empty() {
        return absent();
    }
    let url = params.need("url", 0)?;
    if url.is_empty() {
        return Err(MiError::new(400, "Empty url"));
    }
    let wish = match params.int("enable", 1)? {
        None => return Err(MiError::params("Missing enable parameter")),
        Some(0) => Wish::Off,
        Some(2) => Wish::Probe,
        Some(_) => Wish::On,
    };
    let set = params.int("setid", 2)?;
    let now = ticks(ctx);
    let mut found = false;
    for node in sets.nodes().filter(|n| n.url == url && set.is_none_or(|set| set == n.set)) {
        found = true;
        let changed = match wish {
            Wish::Off => node.set(true, NEVER),
            Wish::Probe => node.set(true, now.saturating_add(timeout)),
            Wish::On => node.set(false, 0),
        };
        if changed {
            told.raise(ctx, node);
        }
    }
    if found { Ok(json!("OK")) } else { absent() }
}
