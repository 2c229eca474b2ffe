//! Nonces: made without state, checked without state, used once.
//!
//! `expiry(8 hex) random(16 hex) mac(32 hex)`: the MAC is keyed with the process-wide secret, so any
//! worker checks the nonce of any other. What was used is remembered until it expires.

use ahash::AHashMap;
use parking_lot::Mutex;
use sip::digest::{Algorithm, same_secret};

const LENGTH: usize = 56;
/// Used nonces that are remembered; beyond it the oldest half is forgotten early and counted.
const MAX_USED: usize = 1 << 20;

/// What a nonce is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Worth {
    Good,
    /// Ours but too old, or used before, or not ours: a new one is needed.
    Stale,
}

pub struct Nonces {
    secret: String,
    /// Seconds.
    lifetime: u32,
    /// Random part → (expiry, highest nonce count seen, the request that it was in).
    used: Mutex<AHashMap<u64, (u32, u32, u64)>>,
    once: bool,
}

impl Nonces {
    pub fn new(secret: String, lifetime: u32, once: bool) -> Nonces {
        Nonces { secret, lifetime, used: Mutex::default(), once }
    }

    pub fn make(&self, now: u32, random: u64) -> String {
        let expiry = now.saturating_add(self.lifetime);
        let head = format!("{expiry:08x}{random:016x}");
        let mac = self.mac(&head);
        head + &mac
    }

    /// Checks a nonce and marks it as used. `count`: the client's nonce count (0 without qop); with
    /// one, the nonce is good again as long as the count rises. `request` tells requests apart: one that comes
    /// again, because its answer was lost, is answered as it was before (RFC 3261 §17.2.2).
    pub fn take(&self, nonce: &[u8], count: u32, request: u64, now: u32) -> Worth {
        let Some((expiry, random)) = self.open(nonce) else { return Worth::Stale };
        if expiry < now {
            return Worth::Stale;
        }
        if !self.once {
            return Worth::Good;
        }
        let mut used = self.used.lock();
        if used.len() >= MAX_USED {
            used.retain(|_, (expiry, ..)| *expiry >= now);
            if used.len() >= MAX_USED {
                host::warn!("auth", "{MAX_USED} nonces are in use: old ones are forgotten");
                let half = now.saturating_add(self.lifetime / 2);
                used.retain(|_, (expiry, ..)| *expiry >= half);
            }
        }
        match used.get_mut(&random) {
            None => {
                used.insert(random, (expiry, count, request));
                Worth::Good
            }
            Some((_, last, user)) if count > *last => {
                (*last, *user) = (count, request);
                Worth::Good
            }
            Some((_, last, user)) if count == *last && request == *user => Worth::Good,
            Some(_) => Worth::Stale,
        }
    }

    /// Ours and not expired, without using it up: the password may still be wrong.
    pub fn is_fresh(&self, nonce: &[u8], now: u32) -> bool {
        self.open(nonce).is_some_and(|(expiry, _)| expiry >= now)
    }

    fn open(&self, nonce: &[u8]) -> Option<(u32, u64)> {
        let text = std::str::from_utf8(nonce).ok().filter(|t| t.len() == LENGTH && t.is_ascii())?;
        if !same_secret(self.mac(&text[..24]).as_bytes(), &nonce[24..]) {
            return None;
        }
        Some((u32::from_str_radix(&text[..8], 16).ok()?, u64::from_str_radix(&text[8..24], 16).ok()?))
    }

    fn mac(&self, head: &str) -> String {
        // Hash of a hash: no length extension.
        let inner = Algorithm::Sha256.hash(&[self.secret.as_bytes(), head.as_bytes()]);
        let mut mac = Algorithm::Sha256.hash(&[self.secret.as_bytes(), inner.as_bytes()]);
        mac.truncate(32);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_not_for_long() {
        let nonces = Nonces::new("s".into(), 30, true);
        let nonce = nonces.make(100, 7);
        assert_eq!(nonces.take(nonce.as_bytes(), 0, 1, 120), Worth::Good);
        assert_eq!(nonces.take(nonce.as_bytes(), 0, 2, 120), Worth::Stale);
        let nonce = nonces.make(100, 8);
        assert_eq!(nonces.take(nonce.as_bytes(), 1, 3, 120), Worth::Good);
        assert_eq!(nonces.take(nonce.as_bytes(), 2, 4, 121), Worth::Good);
        assert_eq!(nonces.take(nonce.as_bytes(), 2, 5, 121), Worth::Stale);
        let nonce = nonces.make(100, 9);
        assert_eq!(nonces.take(nonce.as_bytes(), 0, 6, 131), Worth::Stale);
        assert_eq!(Nonces::new("other".into(), 30, true).take(nonce.as_bytes(), 0, 8, 101), Worth::Stale);
        let nonce = nonces.make(100, 10);
        let again = |count, request| nonces.take(nonce.as_bytes(), count, request, 120);
        assert_eq!([again(1, 90), again(1, 90), again(1, 91)], [Worth::Good, Worth::Good, Worth::Stale]);
        assert_eq!([again(2, 92), again(1, 90), again(2, 92)], [Worth::Good, Worth::Stale, Worth::Good]);
        assert_eq!(nonces.take(b"made up", 0, 7, 101), Worth::Stale);
    }
}
