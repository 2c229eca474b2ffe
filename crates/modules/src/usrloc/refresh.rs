//! Waking phones before their registration ends (RFC 8599 §5.3): a timer over the contacts that take
//! push notifications.

use super::contact::{Contact, bits};
use super::events;
use super::table::{Change, Table};
use super::{Usrloc, now_s};
use bytes::Bytes;
use host::Ctx;
use host::shared::Hooks;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often the timer looks.
const EVERY_MS: u64 = 1000;
/// Contacts that are woken in one go, so that a storm of them holds the worker only for a moment.
const AT_ONCE: usize = 500;

#[derive(Default)]
pub struct Refresh {
    /// `contact_refresh_timer`
    pub enabled: bool,
    /// Seconds before a contact expires (registrar's `pn_trigger_interval`).
    pub before: AtomicU32,
    due: Mutex<BinaryHeap<Reverse<Due>>>,
}

/// A contact to look at, at a Unix second; it may have registered again by then.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: u32,
    id: u64,
    expires: u32,
    table: String,
    aor: Bytes,
}

pub fn ready(module: &Arc<Usrloc>, hooks: &mut Hooks) {
    if !module.refresh.enabled {
        return;
    }
    let watching = module.clone();
    module.watch(Arc::new(move |_, table, aor, changes| {
        for change in changes {
            if let Change::Inserted(c) | Change::Updated(c) = change {
                watching.refresh.add(table, aor, c);
            }
        }
    }));
    let module = module.clone();
    hooks.timers.push((EVERY_MS, Arc::new(move |ctx| wake(&module, ctx))));
}

impl Refresh {
    fn add(&self, table: &Table, aor: &Bytes, contact: &Contact) {
        let before = self.before.load(Ordering::Relaxed);
        if contact.expires == 0 || !contact.has(bits::PUSH) || contact.expires - contact.modified <= before {
            return;
        }
        let (id, expires, table) = (contact.id, contact.expires, table.name.clone());
        self.due.lock().push(Reverse(Due { at: expires - before, id, expires, table, aor: aor.clone() }));
    }

    fn take(&self, now: u32) -> Vec<Due> {
        let mut due = self.due.lock();
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE && due.peek().is_some_and(|Reverse(first)| first.at <= now) {
            taken.extend(due.pop().map(|Reverse(first)| first));
        }
        taken
    }
}

fn wake(module: &Arc<Usrloc>, ctx: &mut Ctx) {
    let now = now_s(ctx);
    for due in module.refresh.take(now) {
        let Some(table) = module.find_table(&due.table) else { continue };
        let same = |c: &&Contact| c.id == due.id && c.expires == due.expires;
        let contact = table.read(&due.aor, |record| record.contacts.iter().find(same).cloned()).flatten();
        if let Some(contact) = contact {
            events::refresh(ctx, &table, &due.aor, &contact, "reg-refresh", b"");
        }
    }
}
