//! What rtp_relay asks of rtpengine.

use super::ask::{Asking, Target};
use super::bencode::Dict;
use super::command::{Command, Op, address, prepare};
use super::flags::Flags;
use super::{Rtpengine, functions};
use crate::nodes::DEFAULT_SET;
use crate::rtp_relay::{Asked, Kind, Made, Order};
use bytes::Bytes;
use host::Ctx;
use std::net::{IpAddr, Ipv4Addr};

pub fn limit(module: &Rtpengine) -> u64 {
    functions::limit(module)
}

pub fn ask(ctx: &mut Ctx, order: Order) -> Option<Asked> {
    let module = ctx.shared().module::<Rtpengine>()?;
    let command = match order.kind {
        Kind::Delete => delete(&order).inspect_err(|why| host::error!("rtp_relay", "flags: {why}")).ok()?,
        Kind::Offer | Kind::Answer => {
            let op = if order.kind == Kind::Offer { Op::Offer } else { Op::Answer };
            let flags = flags(ctx, &order);
            prepare(ctx, &module, op, &flags, order.body.clone(), None)
                .inspect_err(|why| host::error!("rtp_relay", "{why}"))
                .ok()?
        }
    };
    let asking = Asking::new(ctx, &module);
    let number = order.set.unwrap_or(DEFAULT_SET);
    let mut ready = module.ready.subscribe();
    Some(Box::pin(async move {
        let _ = ready.wait_for(|ready| *ready).await;
        let sets = module.sets.get();
        let mut set = sets.get(number).cloned();
        if set.is_none() && number != DEFAULT_SET {
            host::warn!("rtp_relay", "rtpengine has no set {number}: set {DEFAULT_SET} is taken");
            set = sets.get(DEFAULT_SET).cloned();
        }
        let target = Target { set, forced: None, known: order.node.clone() };
        let answered = match asking.run(&command, target).await {
            Ok(answered) => answered,
            Err(why) => {
                host::error!("rtp_relay", "rtpengine: {why}");
                return None;
            }
        };
        let body = answered.dict.description().cloned();
        let done = order.kind == Kind::Delete || functions::is_ok(&answered.dict) && body.is_some();
        let node = Some(Bytes::from(answered.node.url.clone()));
        done.then_some(Made { body, node, set: Some(answered.node.set) })
    }))
}

/// All that is known, as flags of a script.
fn flags(ctx: &Ctx, order: &Order) -> Bytes {
    let msg = &ctx.state.msg;
    let mut out = Vec::new();
    let mut word = |key: &str, value: &[u8]| {
        if !value.is_empty() {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(value);
            out.push(b' ');
        }
    };
    word("call-id=", order.call_id.as_deref().unwrap_or_default());
    if let Some(from) = &order.from_tag {
        word("from-tag=", from);
    }
    // A later offer names both parties.
    let later = || msg.to_tag().filter(|_| msg.is_request() && order.kind == Kind::Offer);
    if let Some(to) = order.to_tag.clone().or_else(later) {
        word("to-tag=", &to);
    }
    if let (Some(incoming), Some(outgoing)) = (&order.in_iface, &order.out_iface) {
        word("in-iface=", incoming);
        word("out-iface=", outgoing);
    }
    if order.index >= 0 {
        word("via-branch-param=", format!("br{}", order.index).as_bytes());
    }
    if let Some(source) = order.source {
        word("received-from=", source.to_string().as_bytes());
    }
    for part in [&order.transport, &order.common, &order.flags, &order.peer].into_iter().flatten() {
        word("", part);
    }
    out.into()
}

fn delete(order: &Order) -> Result<Command, String> {
    let (mut dict, mut op) = (Dict::default(), Op::Delete);
    let said = order.delete.clone().unwrap_or_default();
    Flags::parse(&said, &mut op, &mut dict)?.add_lists(op, &mut dict);
    let call_id = order.call_id.clone().unwrap_or_default();
    dict.set_text("call-id", call_id.clone());
    match (&order.to_tag, &order.from_tag) {
        (Some(to), _) => dict.set_text("to-tag", to.clone()),
        (None, Some(from)) => dict.set_text("from-tag", from.clone()),
        (None, None) => {}
    }
    // Of a call that was established nothing is left.
    if order.index >= 0 && !order.established {
        dict.set_text("via-branch", format!("br{}", order.index));
    }
    dict.set("received-from", address(order.source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))));
    dict.set_text("command", Op::Delete.word());
    Ok(Command { op, call_id, dict })
}
