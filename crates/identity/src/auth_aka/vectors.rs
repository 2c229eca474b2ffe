//! Authentication vectors, by the identities of their user (3GPP TS 33.203).

use ahash::AHashMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use sip::digest::Algorithm;

/// Users with vectors; vectors of further ones are not taken.
const MAX_USERS: usize = 100_000;
/// Vectors of one user; the oldest makes room.
const MAX_VECTORS: usize = 32;

/// Public and private identity (IMPU, IMPI).
pub type User = (Bytes, Bytes);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    /// RAND and AUTN as the nonce of a challenge, in base64.
    pub nonce: String,
    /// What the user answers (XRES).
    pub expected: Vec<u8>,
    /// Keys for whoever protects the way to the user, in hexadecimal.
    pub ck: String,
    pub ik: String,
    /// `None`: for any algorithm.
    pub algorithm: Option<Algorithm>,
}

impl Vector {
    /// From texts in hexadecimal; `None` when they are not.
    pub fn read(authenticate: &[u8], authorize: &[u8], ck: &[u8], ik: &[u8]) -> Option<Vector> {
        let text = |key: &[u8]| hex::decode(key).ok().map(hex::encode);
        let nonce = STANDARD.encode(hex::decode(authenticate).ok()?);
        Some(Vector {
            nonce,
            expected: hex::decode(authorize).ok()?,
            ck: text(ck)?,
            ik: text(ik)?,
            algorithm: None,
        })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm)
    }
}

#[derive(Debug)]
struct Kept {
    vector: Vector,
    /// The algorithm of the challenge that it went out in.
    used: Option<Algorithm>,
    /// Unix seconds: when it came, or when it was used.
    since: u64,
}

#[derive(Default)]
pub struct Vectors(Mutex<AHashMap<User, Vec<Kept>>>);

impl Vectors {
    /// False: there is no room.
    pub fn add(&self, user: &User, vector: Vector, now: u64) -> bool {
        let mut users = self.0.lock();
        if users.len() >= MAX_USERS && !users.contains_key(user) {
            return false;
        }
        let list = users.entry(user.clone()).or_default();
        if list.len() >= MAX_VECTORS {
            list.remove(0);
        }
        list.push(Kept { vector, used: None, since: now });
        true
    }

    /// A vector for a challenge with this algorithm, which is in use from now on.
    pub fn take(&self, user: &User, algorithm: Algorithm, now: u64) -> Option<Vector> {
        let mut users = self.0.lock();
        let mut fresh = users.get_mut(user)?.iter_mut().filter(|kept| kept.used.is_none());
        let kept = fresh.find(|kept| kept.vector.fits(algorithm))?;
        (kept.used, kept.since) = (Some(algorithm), now);
        Some(kept.vector.clone())
    }

    /// The vector that this nonce challenged with.
    pub fn of_nonce(&self, user: &User, nonce: &[u8], algorithm: Algorithm) -> Option<Vector> {
        let users = self.0.lock();
        let mut all = users.get(user)?.iter();
        let kept = all.find(|kept| kept.used == Some(algorithm) && kept.vector.nonce.as_bytes() == nonce)?;
        Some(kept.vector.clone())
    }

    /// Forgets the vector of this nonce; false: there is none.
    pub fn forget(&self, user: &User, nonce: &[u8]) -> bool {
        let mut users = self.0.lock();
        let Some(list) = users.get_mut(user) else { return false };
        let before = list.len();
        list.retain(|kept| kept.vector.nonce.as_bytes() != nonce);
        let found = list.len() < before;
        if list.is_empty() {
            users.remove(user);
        }
        found
    }

    /// Forgets all vectors of a user, and says how many there were.
    pub fn forget_all(&self, user: &User) -> usize {
        self.0.lock().remove(user).map_or(0, |list| list.len())
    }

    /// Forgets what nobody used for so many seconds, and what was used and never answered.
    pub fn expire(&self, now: u64, unused: u64, pending: u64) {
        self.0.lock().retain(|_, list| {
            list.retain(|kept| {
                let limit = if kept.used.is_some() { pending } else { unused };
                now.saturating_sub(kept.since) < limit
            });
            !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_of_vectors() {
        let (all, user) = (Vectors::default(), (Bytes::from("sip:a@b"), Bytes::from("a@b")));
        let vector = Vector::read(b"00ff", b"0102", b"aB", b"cd").unwrap();
        assert_eq!((&*vector.nonce, &vector.expected[..], &*vector.ck), ("AP8=", &[1, 2][..], "ab"));
        assert!(Vector::read(b"0", b"", b"", b"").is_none());
        let only = Vector { algorithm: Some(Algorithm::Sha256), nonce: "x".into(), ..vector.clone() };
        assert!(all.add(&user, only, 10) && all.add(&user, vector.clone(), 10));
        assert_eq!(all.of_nonce(&user, b"AP8=", Algorithm::Md5), None);
        assert_eq!(all.take(&user, Algorithm::Md5, 20), Some(vector.clone()));
        assert_eq!(all.take(&user, Algorithm::Md5, 20), None);
        assert_eq!(all.of_nonce(&user, b"AP8=", Algorithm::Sha256), None);
        assert_eq!(all.of_nonce(&user, b"AP8=", Algorithm::Md5), Some(vector));
        all.expire(45, 40, 30);
        assert!(all.forget(&user, b"AP8=") && !all.forget(&user, b"AP8="));
        all.expire(50, 40, 30);
        assert_eq!(all.forget_all(&user), 0);
    }
}
