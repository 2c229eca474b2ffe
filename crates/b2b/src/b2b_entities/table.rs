//! The entities of a worker, and which worker a call belongs to.

use super::entity::{CALLER, Entity, Kind, State};
use ahash::AHashMap;
use bytes::Bytes;
use host::Ctx;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entities of one worker; further calls are refused.
const MAX_ENTITIES: usize = 1_000_000;

#[derive(Default)]
pub struct Table {
    by_key: AHashMap<Bytes, Entity>,
    /// Server entities by Call-ID and tag of the caller.
    by_caller: AHashMap<(Bytes, Bytes), Bytes>,
    /// Keys that have something to write.
    pub changed: Vec<Bytes>,
    pub writing: bool,
}

pub fn of(ctx: &mut Ctx) -> &mut Table {
    ctx.local::<Table>()
}

impl Table {
    pub fn get(&self, key: &[u8]) -> Option<&Entity> {
        self.by_key.get(key)
    }

    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entity> {
        self.by_key.get_mut(key)
    }

    /// False: there are too many.
    pub fn insert(&mut self, entity: Entity) -> bool {
        if self.by_key.len() >= MAX_ENTITIES {
            host::error!("b2b_entities", "a call was refused: there are {MAX_ENTITIES} entities");
            return false;
        }
        if entity.kind == Kind::Server {
            let caller = (entity.call_id.clone(), entity.tags[CALLER].clone());
            self.by_caller.insert(caller, entity.key.clone());
        }
        self.by_key.insert(entity.key.clone(), entity);
        true
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Entity> {
        let entity = self.by_key.remove(key)?;
        if entity.kind == Kind::Server {
            let caller = (entity.call_id.clone(), entity.tags[CALLER].clone());
            if self.by_caller.get(&caller).is_some_and(|own| *own == entity.key) {
                self.by_caller.remove(&caller);
            }
        }
        Some(entity)
    }

    pub fn all(&self) -> impl Iterator<Item = &Entity> {
        self.by_key.values()
    }

    /// The server entity that this caller began.
    pub fn of_caller(&self, call_id: &Bytes, tag: &Bytes) -> Option<&Entity> {
        self.by_key.get(self.by_caller.get(&(call_id.clone(), tag.clone()))?)
    }

    /// The entity of a dialog by what requests inside it carry: `to_tag` is this server's in them.
    pub fn of_dialog(&self, call_id: &[u8], from_tag: &[u8], to_tag: &[u8]) -> Option<&Entity> {
        let server = self.by_key.get(strip_leg(to_tag)).filter(|e| e.kind == Kind::Server);
        if let Some(entity) = server {
            return Some(entity).filter(|e| e.call_id == call_id && e.tags[CALLER] == from_tag);
        }
        let client = self.by_key.get(call_id).filter(|e| e.kind == Kind::Client)?;
        let is_leg = client.legs.iter().any(|leg| leg.tag == from_tag);
        let open = !client.state.is_answered() || client.state == State::Terminated;
        Some(client).filter(|e| e.tags[CALLER] == to_tag && (is_leg || open))
    }
}

/// A server's key without the number of a leg that may follow it (`pass-legs-upstream`).
pub fn strip_leg(key: &[u8]) -> &[u8] {
    match key.iter().enumerate().filter(|(_, b)| **b == b'.').nth(4) {
        Some((at, _)) => &key[..at],
        None => key,
    }
}

/// The number behind a server's key.
pub fn leg_number(key: &[u8]) -> Option<u32> {
    let rest = &key[strip_leg(key).len()..];
    std::str::from_utf8(rest.strip_prefix(b".")?).ok()?.parse().ok()
}

/// Calls whose Call-ID says another worker than the one they are led by: because they joined a call there, or because the
/// number of workers has changed.
#[derive(Default)]
pub struct Moved {
    count: AtomicUsize,
    /// Call-ID to one that is of the right worker.
    calls: RwLock<AHashMap<Bytes, Bytes>>,
}

impl Moved {
    pub fn find(&self, call_id: &[u8]) -> Option<Vec<u8>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.calls.read().get(call_id).map(|id| id.to_vec())
    }

    /// `call_id` is led by this worker from now on.
    pub fn here(&self, ctx: &mut Ctx, call_id: &Bytes) {
        let own = host::tm::own_call_id(ctx);
        let mut calls = self.calls.write();
        calls.insert(call_id.clone(), own);
        self.count.store(calls.len(), Ordering::Relaxed);
    }

    pub fn forget(&self, call_id: &[u8]) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut calls = self.calls.write();
        calls.remove(call_id);
        self.count.store(calls.len(), Ordering::Relaxed);
    }
}

/// Keys: `B2B.hash.number.seconds.random`.
#[derive(Clone, Debug)]
pub struct Keys {
    pub prefix: String,
    pub server_size: u32,
    pub client_size: u32,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys { prefix: "B2B".into(), server_size: 512, client_size: 512 }
    }
}

impl Keys {
    /// A new one; that of a client is a Call-ID of this worker.
    pub fn make(&self, ctx: &mut Ctx, kind: Kind) -> (Bytes, u32) {
        let (size, numbers) = match kind {
            Kind::Server => (self.server_size, u64::from(self.server_size)),
            Kind::Client => (self.client_size, 1 << 23),
        };
        loop {
            let hash = ctx.core.rng.below(u64::from(size));
            let number = ctx.core.rng.below(numbers);
            let random = ctx.core.rng.below(1 << 31);
            let seconds = ctx.core.wall_us / 1_000_000;
            let key = format!("{}.{hash}.{number}.{seconds}.{random}", self.prefix);
            let here = usize::from(ctx.core.worker);
            let fits =
                kind == Kind::Server || host::worker::owner(key.as_bytes(), ctx.core.workers.into()) == here;
            if fits && ctx.local::<Table>().get(key.as_bytes()).is_none() {
                return (key.into(), number as u32);
            }
        }
    }

    /// It has the form of our keys.
    pub fn is_key(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(self.prefix.as_bytes()).and_then(|r| r.strip_prefix(b".")) else {
            return false;
        };
        let mut parts = rest.split(|b| *b == b'.');
        let number = |part: Option<&[u8]>| {
            part.is_some_and(|p| !p.is_empty() && p.len() < 11 && p.iter().all(u8::is_ascii_digit))
        };
        number(parts.next()) && number(parts.next()) && parts.next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_form() {
        let keys = Keys::default();
        let check = |text: &str, expected: bool| assert_eq!(keys.is_key(text.as_bytes()), expected, "{text}");
        check("B2B.436.1925389.1649338095.12", true);
        check("B2B.436.1925389.1", true);
        check("B2B.436.1925389", false);
        check("B2B.436", false);
        check("B2B.x.1.1.1", false);
        check("B2C.436.1925389.1649338095.12", false);
        check("", false);
    }

    #[test]
    fn a_leg_may_follow_a_key() {
        assert_eq!(strip_leg(b"B2B.1.2.3.4"), b"B2B.1.2.3.4");
        assert_eq!(strip_leg(b"B2B.1.2.3.4.5"), b"B2B.1.2.3.4");
        assert_eq!(leg_number(b"B2B.1.2.3.4.5"), Some(5));
        assert_eq!(leg_number(b"B2B.1.2.3.4"), None);
    }
}
