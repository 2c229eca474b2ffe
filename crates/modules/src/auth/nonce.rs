//! Nonces: made without state, checked without state, used once.
//!
//! `expiry(8 hex) offer(2 hex) random(16 hex) mac(32 hex)`: the MAC is keyed with the process-wide secret, so any
//! worker checks the nonce of any other. What was used is remembered until it expires. The offer says what
//! the challenge asked for, so that nothing weaker is an answer to it.

use ahash::AHashMap;
use parking_lot::Mutex;
use sip::digest::{Algorithm, Credentials, Qop, same_secret};

/// Before the MAC.
const HEAD: usize = 26;
const LENGTH: usize = HEAD + 32;
/// Used nonces that are remembered; beyond it the oldest half is forgotten early and counted.
const MAX_USED: usize = 1 << 20;

/// What a nonce is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Worth {
    Good,
    /// Ours but too old, or used before, or not ours: a new one is needed.
    Stale,
}

/// The algorithm and qualities of protection of one challenge, as a nonce carries them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer(u8);

const AUTH: u8 = 0x10;
const AUTH_INT: u8 = 0x20;

impl Offer {
    /// `algorithm`: `None` is MD5.
    pub fn new(algorithm: Option<Algorithm>, qop: &[Qop]) -> Offer {
        let qop = qop.iter().fold(0, |bits, qop| {
            bits | match qop {
                Qop::Auth => AUTH,
                Qop::AuthInt => AUTH_INT,
            }
        });
        Offer(qop | Offer::number(algorithm))
    }

    fn number(algorithm: Option<Algorithm>) -> u8 {
        match algorithm.unwrap_or(Algorithm::Md5) {
            Algorithm::Md5 => 0,
            Algorithm::Md5Sess => 1,
            Algorithm::Sha256 => 2,
            Algorithm::Sha256Sess => 3,
            Algorithm::Sha512_256 => 4,
            Algorithm::Sha512_256Sess => 5,
        }
    }

    /// Credentials that answer this offer. Without a qop they mean `auth` (RFC 8760 §2.6), when that was offered.
    fn takes(self, credentials: &Credentials) -> bool {
        let qop = match (credentials.qop, self.0 & (AUTH | AUTH_INT)) {
            (None, 0) => true,
            (None | Some(Qop::Auth), offered) => offered & AUTH != 0,
            (Some(Qop::AuthInt), offered) => offered & AUTH_INT != 0,
        };
        qop && self.0 & 0x0f == Offer::number(credentials.algorithm)
    }
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

    pub fn make(&self, now: u32, offer: Offer, random: u64) -> String {
        let expiry = now.saturating_add(self.lifetime);
        // Whoever sees a number of the generator could tell those before it.
        let random = self.mac(&format!("{random:016x}"));
        let head = format!("{expiry:08x}{:02x}{}", offer.0, &random[..16]);
        let mac = self.mac(&head);
        head + &mac
    }

    /// Checks a nonce and marks it as used. `count`: the client's nonce count (0 without qop); with
    /// one, the nonce is good again as long as the count rises. `request` tells requests apart: one that comes
    /// again, because its answer was lost, is answered as it was before (RFC 3261 §17.2.2).
    pub fn take(&self, nonce: &[u8], count: u32, request: u64, now: u32) -> Worth {
        let Some(Opened { expiry, random, .. }) = self.open(nonce) else { return Worth::Stale };
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
        self.open(nonce).is_some_and(|opened| opened.expiry >= now)
    }

    /// The challenge that this nonce was made for offered what the credentials use.
    pub fn was_offered(&self, credentials: &Credentials) -> bool {
        self.open(&credentials.nonce).is_some_and(|opened| opened.offer.takes(credentials))
    }

    fn open(&self, nonce: &[u8]) -> Option<Opened> {
        let text = std::str::from_utf8(nonce).ok().filter(|t| t.len() == LENGTH && t.is_ascii())?;
        if !same_secret(self.mac(&text[..HEAD]).as_bytes(), &nonce[HEAD..]) {
            return None;
        }
        Some(Opened {
            expiry: u32::from_str_radix(&text[..8], 16).ok()?,
            offer: Offer(u8::from_str_radix(&text[8..10], 16).ok()?),
            random: u64::from_str_radix(&text[10..HEAD], 16).ok()?,
        })
    }

    fn mac(&self, head: &str) -> String {
        // Hash of a hash: no length extension.
        let inner = Algorithm::Sha256.hash(&[self.secret.as_bytes(), head.as_bytes()]);
        let mut mac = Algorithm::Sha256.hash(&[self.secret.as_bytes(), inner.as_bytes()]);
        mac.truncate(32);
        mac
    }
}

/// What a nonce of ours says.
struct Opened {
    /// Seconds since 1970.
    expiry: u32,
    offer: Offer,
    random: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_offered_is_an_answer() {
        let nonces = Nonces::new("s".into(), 30, true);
        let check = |algorithm, offered: &[Qop], used, qop: &str, good: bool| {
            let nonce = nonces.make(100, Offer::new(algorithm, offered), 7);
            let length = Algorithm::parse(used).expect("known").hex_len();
            let value = format!(
                "Digest username=\"a\", realm=\"h\", nonce=\"{nonce}\", uri=\"sip:h\", response=\"{}\", algorithm={}{qop}",
                "0".repeat(length),
                String::from_utf8_lossy(used)
            );
            let credentials = Credentials::parse(&value.into()).expect("credentials");
            assert_eq!(nonces.was_offered(&credentials), good, "{algorithm:?} {offered:?} {qop}");
        };
        let (auth, int) =
            (", qop=auth, nc=00000001, cnonce=\"c\"", ", qop=auth-int, nc=00000001, cnonce=\"c\"");
        let sha = Some(Algorithm::Sha256);
        check(sha, &[Qop::Auth], b"SHA-256", auth, true);
        check(sha, &[Qop::Auth], b"SHA-256-sess", auth, false);
        check(sha, &[Qop::Auth], b"MD5", auth, false);
        check(sha, &[Qop::Auth], b"MD5", "", false);
        check(Some(Algorithm::Md5Sess), &[Qop::Auth], b"MD5", auth, false);
        check(None, &[Qop::Auth], b"MD5", "", true);
        check(None, &[Qop::AuthInt], b"MD5", int, true);
        check(None, &[Qop::AuthInt], b"MD5", auth, false);
        check(None, &[Qop::AuthInt], b"MD5", "", false);
        check(None, &[Qop::AuthInt, Qop::Auth], b"MD5", int, true);
        check(None, &[Qop::AuthInt, Qop::Auth], b"MD5", "", true);
        check(None, &[], b"MD5", "", true);
        check(None, &[], b"MD5", auth, false);
    }

    #[test]
    fn a_nonce_is_good_once_and_not_for_long() {
        let nonces = Nonces::new("s".into(), 30, true);
        let nonce = nonces.make(100, Offer::new(None, &[]), 7);
        assert_eq!(nonces.take(nonce.as_bytes(), 0, 1, 120), Worth::Good);
        assert_eq!(nonces.take(nonce.as_bytes(), 0, 2, 120), Worth::Stale);
        let nonce = nonces.make(100, Offer::new(None, &[]), 8);
        assert_eq!(nonces.take(nonce.as_bytes(), 1, 3, 120), Worth::Good);
        assert_eq!(nonces.take(nonce.as_bytes(), 2, 4, 121), Worth::Good);
        assert_eq!(nonces.take(nonce.as_bytes(), 2, 5, 121), Worth::Stale);
        let nonce = nonces.make(100, Offer::new(None, &[]), 9);
        assert_eq!(nonces.take(nonce.as_bytes(), 0, 6, 131), Worth::Stale);
        assert_eq!(Nonces::new("other".into(), 30, true).take(nonce.as_bytes(), 0, 8, 101), Worth::Stale);
        let nonce = nonces.make(100, Offer::new(None, &[]), 10);
        let again = |count, request| nonces.take(nonce.as_bytes(), count, request, 120);
        assert_eq!([again(1, 90), again(1, 90), again(1, 91)], [Worth::Good, Worth::Good, Worth::Stale]);
        assert_eq!([again(2, 92), again(1, 90), again(2, 92)], [Worth::Good, Worth::Stale, Worth::Good]);
        assert_eq!(nonces.take(b"made up", 0, 7, 101), Worth::Stale);
    }
}
