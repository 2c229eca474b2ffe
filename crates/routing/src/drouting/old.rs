//! The functions as 2.1 writes them: the partition stands before the group or the list (`"pstn:1"`), or is the first of
//! the parameters, when `use_partitions` is set; a type of 0 is any.

use super::Drouting;
use super::args::{Attrs, Chosen, OF_CARRIER, OF_GATEWAY, OF_RULE, Old, Outs, find};
use super::gate::{self, Question};
use super::next;
use super::route::{self, Flags};
use bytes::Bytes;
use host::arg::parse_int;
use host::{Call, OutVar, Outcome, Text};

/// `"[partition:]rest"`
fn split(call: &mut Call<Drouting>, text: Bytes) -> Result<(Chosen, Bytes), i32> {
    if !call.module.settings.use_partitions {
        return call.module.first().map(|partition| (Chosen::One(partition), text)).ok_or(-1);
    }
    let Some(colon) = text.iter().position(|byte| *byte == b':') else {
        host::complain!(call.ctx, "drouting", "use_partitions is set: a partition and a colon come first");
        return Err(-1);
    };
    let name = String::from_utf8_lossy(text[..colon].trim_ascii()).into_owned();
    Ok((find(call, &name)?, text.slice(colon + 1..)))
}

/// do_routing("[partition:][group]", "flags", "white list", "$rule", "$gateway", "$carrier")
pub fn do_routing(
    call: &mut Call<Drouting>,
    group: Option<Text>,
    flags: Option<Text>,
    whitelist: Option<Text>,
    rule: Option<Attrs<OF_RULE>>,
    gateway: Option<Attrs<OF_GATEWAY>>,
    carrier: Option<Attrs<OF_CARRIER>>,
) -> Outcome {
    let (chosen, group) = match split(call, group.map(|group| group.0).unwrap_or_default()) {
        Ok(split) => split,
        Err(rc) => return rc.into(),
    };
    let group = match group.trim_ascii() {
        b"" => None,
        text => match parse_int(text) {
            Some(group) => Some(group),
            None => {
                host::complain!(call.ctx, "drouting", "{} is no group", String::from_utf8_lossy(text));
                return (-1).into();
            }
        },
    };
    let letters = flags.map(|flags| flags.0).unwrap_or_default();
    let weights = letters.contains(&b'W');
    let flags = Flags::parse(&letters);
    let flags = if weights { flags.with(Flags::WEIGHTS) } else { flags };
    route::begin(call, group, flags, whitelist.map(|list| list.0), Outs::new(rule, gateway, carrier), chosen)
}

/// route_to_carrier("[partition:]carrier", "$gateway", "$carrier")
pub fn route_to_carrier(
    call: &mut Call<Drouting>,
    carrier: Text,
    gateway: Option<Attrs<OF_GATEWAY>>,
    attrs: Option<Attrs<OF_CARRIER>>,
) -> Outcome {
    match split(call, carrier.0) {
        Ok((chosen, ids)) => next::to_carriers(call, ids, Outs::new(None, gateway, attrs), chosen),
        Err(rc) => rc.into(),
    }
}

/// route_to_gw("[partition:]gateways", "$gateway")
pub fn route_to_gw(call: &mut Call<Drouting>, gateways: Text, gateway: Option<Attrs<OF_GATEWAY>>) -> Outcome {
    match split(call, gateways.0) {
        Ok((chosen, ids)) => next::to_gateways(call, ids, Outs::new(None, gateway, None), chosen),
        Err(rc) => rc.into(),
    }
}

/// The partition, when it comes first, and the parameters behind it.
fn with_partition<const N: usize>(
    call: &mut Call<Drouting>,
    args: [Old; N],
) -> Result<(Chosen, impl FnMut() -> Old + use<N>), i32> {
    let uses = call.module.settings.use_partitions;
    let mut args = args.into_iter();
    let chosen = match uses {
        false => Chosen::One(call.module.first().ok_or(-1)?),
        true => {
            let name = args.next().and_then(|arg| arg.text).map(|text| text.str().trim().to_owned());
            find(call, &name.ok_or(-1)?)?
        }
    };
    Ok((chosen, move || args.next().unwrap_or(Old { text: None, variable: None })))
}

/// use_next_gw([partition,] "$rule", "$gateway", "$carrier"), and next_routing
pub fn use_next_gw(call: &mut Call<Drouting>, a: Old, b: Old, c: Old, d: Old) -> Outcome {
    match with_partition(call, [a, b, c, d]) {
        Ok((chosen, mut next)) => {
            let outs = Outs { rule: next().variable, gateway: next().variable, carrier: next().variable };
            next::next_gateway(call, outs, chosen)
        }
        Err(rc) => rc.into(),
    }
}

/// type, flags, gateway attributes
fn question(kind: Old, flags: Old, gateway: Option<OutVar>) -> Question {
    let kind = kind.text.and_then(|text| parse_int(&text)).filter(|kind| *kind > 0);
    let flags = flags.text.map(|text| text.0);
    Question::new(kind, flags.as_deref(), gateway, None)
}

/// is_from_gw([partition,] "type", "flags", "$gateway")
pub fn is_from_gw(call: &mut Call<Drouting>, a: Old, b: Old, c: Old, d: Old) -> Outcome {
    match with_partition(call, [a, b, c, d]) {
        Ok((chosen, mut next)) => {
            let question = question(next(), next(), next().variable);
            gate::from(call, question, chosen)
        }
        Err(rc) => rc.into(),
    }
}

/// goes_to_gw([partition,] "type", "flags", "$gateway")
pub fn goes_to_gw(call: &mut Call<Drouting>, a: Old, b: Old, c: Old, d: Old) -> Outcome {
    match with_partition(call, [a, b, c, d]) {
        Ok((chosen, mut next)) => {
            let question = question(next(), next(), next().variable);
            gate::goes(call, question, chosen)
        }
        Err(rc) => rc.into(),
    }
}

/// dr_is_gw([partition,] "$avp(uri)", "type", "flags", "$gateway")
pub fn dr_is_gw(call: &mut Call<Drouting>, a: Old, b: Old, c: Old, d: Old, e: Old) -> Outcome {
    match with_partition(call, [a, b, c, d, e]) {
        Ok((chosen, mut next)) => {
            let Some(uri) = next().text else { return (-1).into() };
            let question = question(next(), next(), next().variable);
            gate::of_uri(call, uri.0, question, chosen)
        }
        Err(rc) => rc.into(),
    }
}

/// dr_disable(["partition"])
pub fn dr_disable(call: &mut Call<Drouting>, a: Old) -> i32 {
    match with_partition(call, [a]) {
        Ok((chosen, _)) => next::dr_disable(call, chosen),
        Err(rc) => rc,
    }
}
