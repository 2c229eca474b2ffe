//! How a transfer goes, for who asked for it (RFC 3515).

use super::session::{self, Initiator};
use super::{acts, session::EndId};
use crate::b2b_entities::send::{self, Inside};
use crate::b2b_entities::{table, worker_of_logic};
use bytes::Bytes;
use host::Ctx;
use sip::Message;

/// Tells of the reply of the new end; without one, that it is being called.
pub fn send(ctx: &mut Ctx, key: &Bytes, to: &Initiator, reply: Option<&Message>) {
    let refer_id = acts::read(ctx, key, |s| s.refer_id).unwrap_or(0);
    let (body, state) = match reply {
        None => ("SIP/2.0 100 Trying".to_string(), "active;expires=60"),
        Some(msg) => {
            let reason = String::from_utf8_lossy(&msg.reason()).into_owned();
            (format!("SIP/2.0 {} {reason}", msg.status()), "terminated;reason=noresource")
        }
    };
    let id = if refer_id > 0 { format!(";id={refer_id}") } else { String::new() };
    let headers =
        format!("Event: refer{id}\r\nContent-Type: message/sipfrag\r\nSubscription-State: {state}\r\n");
    let what =
        Inside { headers: headers.into(), body: Some(body.into()), quiet: true, ..Inside::new("NOTIFY") };
    match to {
        Initiator::End(id) => to_end(ctx, key, *id, what),
        Initiator::Elsewhere { session, entity } => {
            let workers = usize::from(ctx.core.workers);
            let worker = worker_of_logic(session, workers).unwrap_or(0);
            let entity = entity.clone();
            ctx.on_worker(worker, move |ctx| {
                let module = acts::entities(ctx);
                if table::of(ctx).get(&entity).is_some() {
                    send::inside(ctx, &module, &entity, what);
                }
            });
        }
    }
}

fn to_end(ctx: &mut Ctx, key: &Bytes, id: EndId, mut what: Inside) {
    let own = session::of(ctx, key).and_then(|s| s.end(id)).map(|end| end.headers.clone());
    what.own_headers = own.unwrap_or_default();
    acts::ask(ctx, key, id, what);
}
