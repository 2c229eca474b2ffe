//! What rtp_relay asks of rtpproxy.

use super::ask::Asking;
use super::commands::delete;
use super::describe::{At, Failed};
use super::functions::{self, Said, task};
use super::{Kind as Described, Rtpproxy};
use crate::rtp_relay::{Asked, Kind, Made, Order};
use bytes::Bytes;
use host::Ctx;

pub fn limit(module: &Rtpproxy) -> u64 {
    functions::limit(module)
}

pub fn ask(ctx: &mut Ctx, order: Order) -> Option<Asked> {
    let module = ctx.shared().module::<Rtpproxy>()?;
    let asking = Asking::new(ctx, &module);
    let number = order.set.unwrap_or(module.default_set);
    let kind = match order.kind {
        Kind::Delete => return Some(end(asking, order, number)),
        Kind::Offer => Described::Offer,
        Kind::Answer => Described::Answer,
    };
    let said = Said { flags: order.letters().into(), ip: order.ip.clone(), bind: None };
    let sdp = order.body.clone()?;
    let mut task = task(ctx, &module, kind, said, sdp)?;
    if let Some(call_id) = &order.call_id {
        task.call_id = call_id.clone();
    }
    if order.detached {
        // The tags are those of the party that speaks, as in a request; an answer is turned round there.
        task.is_request = kind == Described::Offer;
    }
    if let Some(from) = &order.from_tag {
        task.from_tag = from.clone();
    }
    if let Some(to) = &order.to_tag {
        task.to_tag = to.clone();
    }
    if let Some(source) = order.source {
        task.source = source;
    }
    task.call_id = branched(&task.call_id, order.index);
    let mut ready = module.ready.subscribe();
    Some(Box::pin(async move {
        let _ = ready.wait_for(|ready| *ready).await;
        let sets = module.sets.get();
        let mut set = sets.get(number).cloned();
        if set.is_none() && number != module.default_set {
            host::warn!("rtp_relay", "rtpproxy has no set {number}: set {} is taken", module.default_set);
            set = sets.get(module.default_set).cloned();
        }
        let number = set.as_ref().map_or(number, |set| set.id);
        let at = match (order.node, set) {
            (Some(node), set) => At::Node(node, set.filter(|_| kind == Described::Offer)),
            (None, Some(set)) => At::Set(set),
            (None, None) => {
                host::error!("rtp_relay", "rtpproxy has no set {number}");
                return None;
            }
        };
        let given = task.sdp.clone();
        match task.run(&asking, &at).await {
            Ok(made) => {
                let node = made.node.map(|node| Bytes::from(node.url.clone()));
                Some(Made { body: made.sdp.or(Some(given)), node, set: Some(number) })
            }
            Err(Failed(_)) => None,
        }
    }))
}

/// A branch that has a session of its own has a Call-ID of its own at the engine.
fn branched(call_id: &Bytes, index: i32) -> Bytes {
    if index < 0 { call_id.clone() } else { [&call_id[..], format!("-{index}").as_bytes()].concat().into() }
}

fn end(asking: Asking, order: Order, number: i64) -> Asked {
    let call_id = branched(&order.call_id.unwrap_or_default(), order.index);
    let (from, to) = (order.from_tag.unwrap_or_default(), order.to_tag.unwrap_or_default());
    Box::pin(async move {
        let node = match &order.node {
            Some(url) => asking.named(url).await,
            None => {
                let set = asking.module.sets.get().get(number).cloned()?;
                asking.choose(&set, &call_id, &[]).await
            }
        };
        asking.send(&node?, &delete(&call_id, &from, &to)).await.map(|_| Made::default())
    })
}
