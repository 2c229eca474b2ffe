//! event_routing: scripts that wait for an event, or run a route when it happens.

use crate::sipmsgops::headers::glob;
use bytes::Bytes;
use host::arg::{AnyVar, ROUTE, RouteArg};
use host::avp::AvpName;
use host::call::Finish;
use host::events::{Event, EventName, EventParams};
use host::shared::Shared;
use host::var::VarKind;
use host::{Call, Ctx, Int, Outcome, Registrar, Routes, Suspension, TaskId};
use script::Task;
use script::ast::RouteKind;
use std::sync::Arc;
use transaction::TxnId;

#[derive(Default)]
pub struct EventRouting;

/// The transaction of whoever subscribed, for functions that act on another transaction
/// (`t_inject_branches`).
#[derive(Clone, Copy, Default, Debug)]
pub struct SubscriberTxn(pub Option<TxnId>);

/// Return code of `wait_for_event` when nothing happened in time.
const NOTHING: i32 = -2;
/// Subscriptions of `notify_on_event` on one worker.
const MAX_SUBSCRIPTIONS: usize = 100_000;

pub fn register(m: &mut Registrar<EventRouting>) {
    m.function("wait_for_event", Routes::ALL, wait_for_event);
    m.function("notify_on_event", Routes::ALL, notify_on_event);
    m.worker_timer(1000, expire);
}

/// `key=pattern` of every value of the variable. `Err`: one that is none.
fn filters(call: &mut Call<EventRouting>, var: &AnyVar) -> Result<Vec<(Bytes, Bytes)>, ()> {
    let values: Vec<Bytes> = match var.0.kind {
        VarKind::Avp(name) => call.state.avps.borrow().values(name).map(|v| v.to_text()).collect(),
        _ => var.0.get(call.ctx).text().into_iter().collect(),
    };
    let pair = |text: Bytes| {
        let Some(at) = memchr::memchr(b'=', &text) else {
            host::error!("event_routing", "a filter is `key=value`, not {}", String::from_utf8_lossy(&text));
            return Err(());
        };
        Ok((text.slice(..at), text.slice(at + 1..)))
    };
    values.into_iter().map(pair).collect()
}

fn matches(filters: &[(Bytes, Bytes)], params: &EventParams) -> bool {
    filters.iter().all(|(key, pattern)| params.find(key).is_some_and(|value| glob(pattern, &value.to_text())))
}

/// The event's values become AVPs of the same names.
fn into_avps(ctx: &mut Ctx, params: &EventParams) {
    for (name, value) in params.0.iter().filter(|(name, _)| !name.is_empty()) {
        ctx.state.avps.borrow_mut().add(AvpName::new(name), value.clone());
    }
}

/// Ends a subscription when whoever has it goes.
struct Subscribed {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.shared.events().unlisten(self.id);
    }
}

/// wait_for_event(event, filter, seconds): 1 when it happened, its values in AVPs; -2 when it did not in
/// time, -1 on errors.
fn wait_for_event(call: &mut Call<EventRouting>, event: EventName, filter: AnyVar, seconds: Int) -> Outcome {
    let Ok(filters) = filters(call, &filter) else { return Outcome::Done(-1) };
    let detail = event.0.clone();
    let begin = move |ctx: &mut Ctx, task: TaskId| {
        let (shared, home) = (ctx.shared().clone(), usize::from(ctx.core.worker));
        let listener = move |ctx: &mut Ctx, event: &Event| {
            if matches(&filters, &event.params) {
                let params = event.params.clone();
                on_worker(ctx, home, move |ctx| {
                    // It may have ended meanwhile, or seen an earlier one: the task is stale then.
                    let finish = move |ctx: &mut Ctx| {
                        into_avps(ctx, &params);
                        1
                    };
                    ctx.resume(task, Box::new(finish) as Finish);
                });
            }
        };
        let id = shared.events().listen(event.0, Arc::new(listener));
        let subscribed = Box::new(Subscribed { shared, id });
        if let Some(slot) =
            ctx.core.tasks.get_mut(task.index as usize).filter(|t| t.generation == task.generation)
        {
            slot.guard = Some(subscribed);
        }
    };
    let limit_ms = u64::try_from(seconds.0).unwrap_or(0).saturating_mul(1000);
    Outcome::Suspend(Box::new(Suspension {
        what: "wait_for_event",
        detail,
        wait: host::Wait::External(Box::new(begin)),
        limit_ms,
        on_deadline: NOTHING,
    }))
}

/// Does something on the worker that owns it; at once when that is this one and nothing dispatches.
fn on_worker(ctx: &mut Ctx, worker: usize, job: impl FnOnce(&mut Ctx) + Send + 'static) {
    let shared = ctx.shared().clone();
    match shared.dispatch.get() {
        Some(dispatch) => drop(dispatch.run_on(worker, Box::new(job))),
        None => job(ctx),
    }
}

/// Subscriptions of `notify_on_event` on this worker, and when each ends (milliseconds of its clock).
#[derive(Default)]
struct Notified(Vec<(u64, Subscribed)>);

/// notify_on_event(event, filter, route, seconds): the route runs each time, over no message, with the
/// event's values in AVPs.
fn notify_on_event(
    call: &mut Call<EventRouting>,
    event: EventName,
    filter: AnyVar,
    route: RouteArg<ROUTE>,
    seconds: Int,
) -> i32 {
    let Ok(filters) = filters(call, &filter) else { return -1 };
    if call.local::<Notified>().0.len() >= MAX_SUBSCRIPTIONS {
        host::error!("event_routing", "{MAX_SUBSCRIPTIONS} routes wait for events already");
        return -1;
    }
    let (shared, home) = (call.shared().clone(), usize::from(call.core.worker));
    let (txn, route) = (SubscriberTxn(call.state.txn), route.0);
    let ends = call.core.now.0.saturating_add(u64::try_from(seconds.0).unwrap_or(0).saturating_mul(1000));
    let listener = move |ctx: &mut Ctx, event: &Event| {
        if ctx.core.now.0 < ends && matches(&filters, &event.params) {
            let params = event.params.clone();
            on_worker(ctx, home, move |ctx| run_route(ctx, route, txn, &params));
        }
    };
    let id = shared.events().listen(event.0, Arc::new(listener));
    call.local::<Notified>().0.push((ends, Subscribed { shared, id }));
    1
}

fn run_route(ctx: &mut Ctx, route: script::RouteId, txn: SubscriberTxn, params: &EventParams) {
    let mut state = host::worker::detached_state(ctx, route, RouteKind::Event);
    state.task = Task::new(ctx.shared().program(), route);
    state.ext.set(txn);
    state.ext.set(params.clone());
    for (name, value) in params.0.iter().filter(|(name, _)| !name.is_empty()) {
        state.avps.borrow_mut().add(AvpName::new(name), value.clone());
    }
    ctx.run(state);
}

fn expire(call: &mut Call<EventRouting>) {
    let now = call.core.now.0;
    call.local::<Notified>().0.retain(|(ends, _)| *ends > now);
}

#[cfg(test)]
mod tests;
