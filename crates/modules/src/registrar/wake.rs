//! Waking phones (RFC 8599): the event that asks for a push notification, and what waits until the
//! phone has registered.

use super::Registration;
use super::lookup::branch_of;
use super::push;
use crate::usrloc::TableArg;
use crate::usrloc::contact::Contact;
use crate::usrloc::events;
use crate::usrloc::table::{Change, Table};
use bytes::Bytes;
use host::call::{Suspension, Wait};
use host::ctx::TaskId;
use host::{Call, Ctx, Outcome};
use parking_lot::Mutex;
use sip::{HeaderName, NameAddr, Uri};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use transaction::TxnId;

/// Waiting requests; further ones are not held.
const MAX_WAITING: usize = 100_000;

/// What goes on when a phone has registered.
#[derive(Clone, Copy)]
enum For {
    /// A branch joins this transaction.
    Branch(TxnId),
    /// This script goes on.
    Script(TaskId),
}

struct Waiting {
    id: u64,
    /// Push parameters of the contact.
    values: Vec<(Bytes, Bytes)>,
    worker: usize,
    what: For,
}

/// Requests that wait for phones, of all workers.
#[derive(Default)]
pub struct Waiters {
    list: Mutex<Vec<Waiting>>,
    next: AtomicU64,
}

impl Waiters {
    fn add(&self, values: Vec<(Bytes, Bytes)>, worker: usize, what: For) -> Option<u64> {
        let mut list = self.list.lock();
        if list.len() >= MAX_WAITING {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        list.push(Waiting { id, values, worker, what });
        Some(id)
    }

    /// False: it went on already.
    fn remove(&self, id: u64) -> bool {
        let mut list = self.list.lock();
        let before = list.len();
        list.retain(|w| w.id != id);
        list.len() < before
    }

    fn take(&self, values: &[(Bytes, Bytes)]) -> Vec<Waiting> {
        self.list.lock().extract_if(.., |w| w.values == values).collect()
    }
}

/// Sees contacts register: whoever waits for them goes on, on the worker it waits on.
pub fn watch(module: &Arc<Registration>) {
    let waiting = module.clone();
    module.usrloc().watch(Arc::new(move |ctx, _, _, changes| {
        for change in changes {
            let (Change::Updated(contact) | Change::Inserted(contact)) = change else { continue };
            if waiting.waiters.list.lock().is_empty() {
                return;
            }
            let Some(values) = waiting.push.values(contact.uri()) else { continue };
            for found in waiting.waiters.take(&values) {
                go_on(ctx, &waiting, found, contact.clone());
            }
        }
    }));
}

fn go_on(ctx: &mut Ctx, module: &Arc<Registration>, waiting: Waiting, contact: Contact) {
    let Some(dispatch) = ctx.shared().dispatch.get().cloned() else { return };
    let module = module.clone();
    let job = move |ctx: &mut Ctx| match waiting.what {
        For::Script(task) => ctx.resume(task, Box::new(|_| 1)),
        For::Branch(txn) => join(ctx, &module, txn, &contact),
    };
    dispatch.run_on(waiting.worker, Box::new(job));
}

/// The contact becomes a branch of the transaction.
fn join(ctx: &mut Ctx, module: &Registration, txn: TxnId, contact: &Contact) {
    host::tm::inject_into(ctx, txn, [branch_of(module, contact)], false, false);
}

/// Asks for these phones to be woken; each joins the transaction of the request when it registers.
/// 1 or 2: done, without phones there is nothing to relay (2); 0: the script ends; -3 error.
pub fn wake(
    ctx: &mut Ctx,
    module: &Arc<Registration>,
    table: &Arc<Table>,
    mut asleep: Vec<(Bytes, Contact)>,
    limit: usize,
    ready: usize,
) -> i32 {
    asleep.truncate(limit.saturating_sub(ready));
    match host::tm::new_transaction(ctx) {
        1 => {}
        0 => return 0,
        _ => return -3,
    }
    let Some(txn) = ctx.state.txn else { return -3 };
    host::tm::trying_current(ctx, txn);
    host::tm::wait_for_branches(ctx, (ready + asleep.len()) as u16);
    let method = String::from_utf8_lossy(&ctx.state.msg.method_text()).into_owned();
    let call_id = ctx.state.msg.call_id().unwrap_or_default();
    let worker = usize::from(ctx.core.worker);
    for (aor, contact) in asleep {
        let Some(values) = module.push.values(contact.uri()) else { continue };
        let Some(id) = module.waiters.add(values, worker, For::Branch(txn)) else { continue };
        give_up_later(ctx, module, id, txn);
        events::refresh(ctx, table, &aor, &contact, &format!("ini-{method:.28}"), &call_id);
    }
    2
}

/// After `pn_refresh_timeout` the transaction waits no longer.
fn give_up_later(ctx: &mut Ctx, module: &Arc<Registration>, id: u64, txn: TxnId) {
    let ms = u64::from(module.push.refresh_s) * 1000;
    let module = module.clone();
    ctx.spawn("push notification", ms + 1000, async move {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        Box::new(move |ctx: &mut Ctx| {
            if module.waiters.remove(id) && ctx.txn(txn).data().is_some() {
                let verdict = ctx.txn_mut(txn).wait_no_more();
                host::tm::on_verdict(ctx, txn, verdict);
            }
            1
        }) as host::Finish
    });
}

/// pn_process_purr(domain): 1 the phone was woken and has registered, 2 there was no need, -1 error, or
/// it did not register in time.
pub fn process_purr(call: &mut Call<Registration>, table: TableArg) -> Outcome {
    let module = call.module.clone();
    if !call.ctx.state.msg.is_request() {
        return Outcome::Done(-1);
    }
    let Some(id) = purr_of(call.ctx).and_then(|purr| push::contact_of(&purr)) else {
        return Outcome::Done(2);
    };
    let Some((aor, contact)) = table.0.by_id(id) else { return Outcome::Done(2) };
    let Some(values) = module.push.values(contact.uri()) else { return Outcome::Done(-1) };
    let method = String::from_utf8_lossy(&call.ctx.state.msg.method_text()).into_owned();
    let call_id = call.ctx.state.msg.call_id().unwrap_or_default();
    let limit_ms = u64::from(module.push.refresh_s) * 1000;
    let begin = move |ctx: &mut Ctx, task: TaskId| {
        // Waits before it asks: the phone may be faster than this worker.
        module.waiters.add(values, usize::from(ctx.core.worker), For::Script(task));
        events::refresh(ctx, &table.0, &aor, &contact, &format!("mid-{method:.28}"), &call_id);
    };
    Outcome::Suspend(Box::new(Suspension {
        what: "pn_process_purr",
        detail: call.ctx.state.current_uri(),
        wait: Wait::External(Box::new(begin)),
        limit_ms,
        on_deadline: -1,
    }))
}

/// `pn-purr` of the R-URI, else of the topmost Route.
fn purr_of(ctx: &Ctx) -> Option<Bytes> {
    let of = |uri: &Bytes| Uri::parse(uri).ok()?.params.value(b"pn-purr");
    of(&ctx.state.current_uri()).or_else(|| {
        let msg = &ctx.state.msg;
        let route = msg.header(HeaderName::Route).map(|h| msg.text(h.value()))?;
        of(&NameAddr::parse_list(&route)?.into_iter().next()?.uri)
    })
}
