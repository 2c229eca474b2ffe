//! Management: what was measured, and destinations that are taken out.

use super::Qrouting;
use super::measure::Measured;
use super::rated::{Rated, RatedTarget};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Registrar};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

pub fn register(m: &mut Registrar<Qrouting>) {
    m.command("qrouting:status qr_status", "what was measured of gateways", status)
        .takes("[partition] [rule_id] [dst_name]");
    m.command_late("qrouting:reload qr_reload", "loads the profiles again", reload).takes("");
    m.command("qrouting:disable_dst qr_disable_dst", "takes a destination out of a rule", |call, params| {
        set_state(call, params, true)
    })
    .takes("[partition] rule_id dst_name");
    m.command("qrouting:enable_dst qr_enable_dst", "puts a destination back into a rule", |call, params| {
        set_state(call, params, false)
    })
    .takes("[partition] rule_id dst_name");
}

const PARTITION: &str = "partition";
const RULE: &str = "rule_id";
const DESTINATION: &str = "dst_name";

fn not_found(what: &str) -> MiError {
    MiError::new(404, format!("{what} Not Found"))
}

fn text(bytes: &Bytes) -> Json {
    String::from_utf8_lossy(bytes).into_owned().into()
}

fn gateway(module: &Qrouting, gateway: &Measured) -> Json {
    let sum = gateway.sum();
    let mut shown = Map::from_iter([("GWID".to_owned(), text(&gateway.gateway))]);
    for (name, value, samples, _) in module.rating.values(&sum) {
        shown.insert(name.to_owned(), format!("{value:.*}/{samples}", module.digits).into());
    }
    shown.into()
}

fn target(module: &Qrouting, target: &RatedTarget) -> Json {
    match target {
        RatedTarget::Gateway(measured) => json!({"Gateway": gateway(module, measured)}),
        RatedTarget::Carrier(carrier) => {
            let gateways: Vec<Json> = carrier.gateways.iter().map(|g| gateway(module, g)).collect();
            json!({"Carrier": {"CRID": text(&carrier.id), "Gateways": gateways}})
        }
    }
}

fn targets(module: &Qrouting, rule: &Rated) -> Json {
    rule.targets.iter().map(|t| target(module, t)).collect()
}

fn partition(module: &Qrouting, name: &str, rules: &[Arc<Rated>]) -> Json {
    let shown = |rule: &Arc<Rated>| json!({"Id": rule.id, "Destinations": targets(module, rule)});
    let rules: Vec<Json> = rules.iter().map(shown).collect();
    json!({"Name": name, "Rules": rules})
}

fn find_rule(rules: &[Arc<Rated>], id: Option<i64>) -> Result<&Arc<Rated>, MiError> {
    let found = rules.iter().find(|rule| Some(i64::from(rule.id)) == id);
    found.ok_or_else(|| not_found("Rule"))
}

fn status(call: &mut Call<Qrouting>, params: &MiParams) -> MiResult {
    let module = call.module;
    let (name, id) = (params.text(PARTITION, 0), params.int(RULE, 1)?);
    let destination = params.text(DESTINATION, 2);
    let partitions = module.partitions();
    let Some(name) = name else {
        if id.is_some() || destination.is_some() {
            return Err(MiError::params("Named parameters do not match"));
        }
        let all = partitions.iter().map(|(name, rules)| partition(module, name, rules));
        return Ok(json!({"Partitions": all.collect::<Vec<Json>>()}));
    };
    if destination.is_some() && id.is_none() {
        return Err(MiError::params("Named parameters do not match"));
    }
    // With one partition its name is not looked at, as in the reference.
    let found = match &partitions[..] {
        [only] => Some(only),
        several => several.iter().find(|(known, _)| *known == name),
    };
    let (name, rules) = found.filter(|(_, rules)| !rules.is_empty()).ok_or_else(|| not_found("Partition"))?;
    let Some(id) = id else { return Ok(partition(module, name, rules)) };
    let rule = find_rule(rules, Some(id))?;
    let Some(destination) = destination else { return Ok(json!({"Destinations": targets(module, rule)})) };
    let found = rule.target(destination.as_bytes()).ok_or_else(|| not_found("GW/Carrier"))?;
    Ok(target(module, found))
}

fn set_state(call: &mut Call<Qrouting>, params: &MiParams, off: bool) -> MiResult {
    if !params.positional.is_empty() {
        return Err(MiError::params("Command only supports named parameters"));
    }
    let (id, destination) = (params.int(RULE, 0)?, params.need(DESTINATION, 0)?);
    let name = params.text(PARTITION, 0);
    let rules = call.module.rules_of(name.as_deref());
    // Without a name the first partition is meant, which may have no rules.
    let rules = rules.filter(|rules| name.is_none() || !rules.is_empty());
    let rules = rules.ok_or_else(|| not_found("Partition"))?;
    let rule = find_rule(&rules, id)?;
    let target = rule.target(destination.as_bytes()).ok_or_else(|| not_found("GW/Carrier"))?;
    target.set_off(off);
    Ok(json!("OK"))
}

/// As in the reference the answer does not say whether it succeeded; the log does.
fn reload(call: &mut Call<Qrouting>, _: &MiParams, answer: MiAnswer) {
    super::load(call, move |_, _| answer.give(Ok(json!("OK"))));
}
