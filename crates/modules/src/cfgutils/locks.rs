//! Locks of scripts. A script that has to wait is suspended; what it holds is released when its message ends.
//!
//! Each key has a lock of its own, so two keys never wait for each other.

use super::Cfgutils;
use bytes::Bytes;
use host::call::Finish;
use host::{Call, Outcome, Suspension, Text};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Scripts that wait for one lock.
const MAX_WAITERS: usize = 100_000;
/// Locks that are held at one time.
const MAX_LOCKS: usize = 1_000_000;

/// The locks that are held, with who waits for each.
#[derive(Default)]
pub struct Locks(Mutex<HashMap<Bytes, VecDeque<oneshot::Sender<Grant>>>>);

/// A lock that is on its way to its next holder; dropped on the way, it goes to the one after.
struct Grant {
    locks: Arc<Locks>,
    key: Option<Bytes>,
}

impl Grant {
    fn claim(mut self) -> Option<Bytes> {
        self.key.take()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            release(&self.locks, &key);
        }
    }
}

enum Taken {
    Now,
    Later(oneshot::Receiver<Grant>),
    Full,
}

fn take(locks: &Locks, key: &Bytes) -> Taken {
    let mut held = locks.0.lock();
    if let Some(waiters) = held.get_mut(key) {
        waiters.retain(|w| !w.is_closed());
        if waiters.len() >= MAX_WAITERS {
            return Taken::Full;
        }
        let (give, wait) = oneshot::channel();
        waiters.push_back(give);
        return Taken::Later(wait);
    }
    if held.len() >= MAX_LOCKS {
        return Taken::Full;
    }
    held.insert(key.clone(), VecDeque::new());
    Taken::Now
}

/// Hands the lock to who waits longest, or frees it.
fn release(locks: &Arc<Locks>, key: &Bytes) {
    loop {
        let next = {
            let mut held = locks.0.lock();
            let Some(waiters) = held.get_mut(key) else { return };
            match waiters.pop_front() {
                Some(next) => next,
                None => {
                    held.remove(key);
                    return;
                }
            }
        };
        match next.send(Grant { locks: locks.clone(), key: Some(key.clone()) }) {
            Ok(()) => return,
            // Gone: this one must not release the lock a second time.
            Err(grant) => drop(grant.claim()),
        }
    }
}

/// What the scripts of one message hold. Scripts over a copy of the message (branch routes) see the same locks, but
/// only the script that they were made for keeps them: with it they are gone, whatever else remembers its request.
#[derive(Default)]
struct Held {
    own: Option<Rc<HeldKeys>>,
    first: Weak<HeldKeys>,
}

impl Clone for Held {
    fn clone(&self) -> Held {
        Held { own: None, first: self.own.as_ref().map_or_else(|| self.first.clone(), Rc::downgrade) }
    }
}

impl Held {
    fn keys(&mut self) -> Rc<HeldKeys> {
        match self.first.upgrade() {
            Some(keys) => keys,
            None => self.own.get_or_insert_default().clone(),
        }
    }
}

#[derive(Default)]
struct HeldKeys(RefCell<Vec<(Arc<Locks>, Bytes)>>);

impl Drop for HeldKeys {
    fn drop(&mut self) {
        for (locks, key) in self.0.take() {
            release(&locks, &key);
        }
    }
}

fn acquire(call: &mut Call<Cfgutils>, what: &'static str, key: Bytes) -> Outcome {
    let held = call.state.ext.entry::<Held>().keys();
    if held.0.borrow().iter().any(|(_, k)| *k == key) {
        host::warn!("cfgutils", "{what}: this script holds {} already", String::from_utf8_lossy(&key));
        return Outcome::Done(-1);
    }
    let locks = call.module.locks.clone();
    match take(&locks, &key) {
        Taken::Now => {
            held.0.borrow_mut().push((locks, key));
            Outcome::Done(1)
        }
        Taken::Full => Outcome::Done(-1),
        Taken::Later(wait) => {
            let detail = key.clone();
            Suspension::future(what, async move {
                let grant = wait.await.ok();
                Box::new(move |ctx: &mut host::Ctx| {
                    match grant.and_then(|g| Some((g.locks.clone(), g.claim()?))) {
                        Some((locks, key)) => {
                            ctx.state.ext.entry::<Held>().keys().0.borrow_mut().push((locks, key));
                            1
                        }
                        None => -1,
                    }
                }) as Finish
            })
            .detail(detail)
        }
    }
}

fn give_back(call: &mut Call<Cfgutils>, key: &Bytes) -> i32 {
    let held = call.state.ext.entry::<Held>().keys();
    let at = held.0.borrow().iter().position(|(_, k)| k == key);
    if let Some(at) = at {
        let (locks, key) = held.0.borrow_mut().swap_remove(at);
        release(&locks, &key);
    }
    1
}

fn key(kind: &[u8], text: &[u8]) -> Bytes {
    [kind, text].concat().into()
}

/// get_static_lock("key")
pub fn get_static(call: &mut Call<Cfgutils>, name: Text) -> Outcome {
    acquire(call, "get_static_lock", key(b"static ", &name))
}

/// release_static_lock("key")
pub fn release_static(call: &mut Call<Cfgutils>, name: Text) -> i32 {
    give_back(call, &key(b"static ", &name))
}

/// get_dynamic_lock(key)
pub fn get_dynamic(call: &mut Call<Cfgutils>, name: Text) -> Outcome {
    acquire(call, "get_dynamic_lock", key(b"dynamic ", &name))
}

/// release_dynamic_lock(key)
pub fn release_dynamic(call: &mut Call<Cfgutils>, name: Text) -> i32 {
    give_back(call, &key(b"dynamic ", &name))
}

/// strings_share_lock(a, b): only equal ones do.
pub fn share(_: &mut Call<Cfgutils>, a: Text, b: Text) -> bool {
    a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_go_to_who_waits_longest() {
        let (locks, key) = (Arc::new(Locks::default()), Bytes::from_static(b"k"));
        assert!(matches!(take(&locks, &key), Taken::Now));
        let Taken::Later(gone) = take(&locks, &key) else { panic!("it is held") };
        let Taken::Later(mut second) = take(&locks, &key) else { panic!("it is held") };
        drop(gone);
        release(&locks, &key);
        let grant = second.try_recv().expect("the first is gone");
        assert!(matches!(take(&locks, &key), Taken::Later(_)));
        // A grant that nobody claims frees the lock; the waiter of the line above is gone.
        drop(grant);
        assert!(matches!(take(&locks, &key), Taken::Now));
        release(&locks, &key);
        assert!(locks.0.lock().is_empty());
    }
}
