//! What a transaction remembers of a selection: the destinations that are left, in AVPs.

use super::data::{Data, Entry};
use super::partition::Partition;
use super::select::{Ask, Chosen};
use bytes::Bytes;
use host::avp::AvpName;
use host::shared::socket_named;
use host::vars::uri::{edit_request, set_destination};
use host::{Ctx, Value};
use std::sync::atomic::Ordering;

/// What of a request a destination changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// `$du` (`ds_select_dst`, `ds_next_dst`)
    NextHop,
    /// Host and port of the Request-URI (`ds_select_domain`, `ds_next_domain`)
    Domain,
    /// Nothing: it is only kept for failover.
    None,
}

impl Target {
    /// False: the request takes no such destination.
    fn set(self, ctx: &mut Ctx, uri: &Bytes, socket: Option<u16>) -> bool {
        let done = match self {
            Target::NextHop => set_destination(&mut ctx.state, uri.clone()),
            Target::Domain => {
                let place = uri.iter().position(|b| *b == b':').map_or(&uri[..], |at| &uri[at + 1..]);
                edit_request(ctx, |uri| uri.with_hostport(place))
            }
            Target::None => true,
        };
        if done && socket.is_some() && self != Target::None {
            ctx.state.socket = socket;
        }
        done
    }
}

fn socket_text(ctx: &Ctx, socket: Option<u16>) -> Value {
    let socket = socket.and_then(|at| ctx.shared().sockets.get(usize::from(at)));
    let text = socket.map(|s| format!("{}:{}", s.transport.as_str(), s.addr)).unwrap_or_default();
    Value::from(text)
}

/// What was chosen takes effect: the request goes there, and with failover the others are kept. False: the request
/// cannot go there.
pub fn apply(
    ctx: &mut Ctx,
    partition: &Partition,
    data: &Data,
    ask: &Ask,
    chosen: &Chosen,
    target: Target,
) -> bool {
    let Some(set) = data.set(ask.set) else { return false };
    let entry = |at: usize| &set.entries[chosen.order[at]];
    let selected = entry(chosen.at);
    if !target.set(ctx, &selected.next_hop, selected.to.socket) {
        return false;
    }
    if target != Target::None {
        selected.to.hits.fetch_add(1, Ordering::Relaxed);
    }
    let (avps, count) = (&partition.avps, chosen.order.len());
    let mut kept = 0;
    if ask.flags.failover {
        if !ask.flags.append {
            forget(ctx, partition);
        }
        // The last pushed is the first to be tried.
        let last = count - 1;
        if ask.flags.default && chosen.at != last {
            push(ctx, partition, entry(last));
            kept += 1;
        }
        let is_default = |at: usize| ask.flags.default && at == last;
        let others: Vec<usize> = (1..count)
            .rev()
            .map(|step| (chosen.at + step) % count)
            .filter(|at| entry(*at).to.is_active() && !is_default(*at))
            .collect();
        let active = (0..count).filter(|at| entry(*at).to.is_active() || is_default(*at)).count() as i64;
        let too_many = active - i64::from(ask.flags.default) - ask.max_results;
        for at in others.into_iter().skip(usize::try_from(too_many).unwrap_or(0)) {
            push(ctx, partition, entry(at));
            kept += 1;
        }
        // As the table has it, user and all: `ds_mark_dst` finds it by that.
        add(ctx, avps.dst, Value::Str(selected.to.uri.clone()));
        kept += 1;
    }
    push_attrs(ctx, partition, selected);
    add(ctx, avps.grp, Value::Int(ask.set));
    add(ctx, avps.cnt, Value::Int(kept));
    true
}

fn add(ctx: &mut Ctx, name: AvpName, value: Value) {
    ctx.state.avps.borrow_mut().add(name, value);
}

fn push(ctx: &mut Ctx, partition: &Partition, entry: &Entry) {
    let socket = socket_text(ctx, entry.to.socket);
    add(ctx, partition.avps.sock, socket);
    add(ctx, partition.avps.dst, Value::Str(entry.next_hop.clone()));
    push_attrs(ctx, partition, entry);
}

/// The attributes of a destination, for the script.
pub fn push_attrs(ctx: &mut Ctx, partition: &Partition, entry: &Entry) {
    if let Some(name) = partition.avps.attrs {
        add(ctx, name, Value::Str(entry.attrs.clone()));
    }
    if let Some(name) = partition.avps.script_attrs {
        let attrs = entry.script_attrs.read().clone().unwrap_or_default();
        add(ctx, name, Value::Str(attrs));
    }
}

/// Nothing is kept any more.
fn forget(ctx: &mut Ctx, partition: &Partition) {
    let avps = &partition.avps;
    let mut all = ctx.state.avps.borrow_mut();
    let names =
        [Some(avps.dst), Some(avps.grp), Some(avps.cnt), Some(avps.sock), avps.attrs, avps.script_attrs];
    for name in names.into_iter().flatten() {
        all.remove_all(name);
    }
}

/// ds_next_dst, ds_next_domain: the next of those that are kept. False: there is none.
pub fn next(ctx: &mut Ctx, partition: &Partition, target: Target) -> bool {
    let avps = &partition.avps;
    let (found, socket) = {
        let mut all = ctx.state.avps.borrow_mut();
        if !all.remove(avps.dst, 0) {
            return false;
        }
        for name in [avps.attrs, avps.script_attrs].into_iter().flatten() {
            all.remove(name, 0);
        }
        let Some(found) = all.first(avps.dst).and_then(text_only) else { return false };
        let socket = all.first(avps.sock).map(Value::to_text);
        all.remove(avps.sock, 0);
        (found, socket)
    };
    let socket = socket.filter(|text| !text.is_empty());
    let socket = socket.and_then(|t| socket_named(&ctx.shared().sockets, &String::from_utf8_lossy(&t)));
    target.set(ctx, &found, socket)
}

/// The set and the destination that were selected last.
pub fn current(ctx: &Ctx, partition: &Partition) -> Option<(i64, Bytes)> {
    let all = ctx.state.avps.borrow();
    let Some(Value::Int(set)) = all.first(partition.avps.grp) else { return None };
    Some((*set, all.first(partition.avps.dst).and_then(text_only)?))
}

/// A text; a number is none.
fn text_only(value: &Value) -> Option<Bytes> {
    if matches!(value, Value::Int(_)) { None } else { value.text() }
}
