//! Which transaction a request belongs to (RFC 3261 §17.2.3).

use crate::config::Config;
use ahash::RandomState;
use bytes::Bytes;
use sip::{Message, Method};
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hash, Hasher};

/// How a request is related to a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The same request again.
    Retransmission,
    /// The hop-by-hop ACK of a negative reply to this INVITE.
    Ack,
    /// An ACK of a 2xx of this INVITE: a request of its own, on its way to the callee.
    AckOfSuccess,
    /// A CANCEL of this request.
    Cancel,
}

/// A request's key: 128 bits of a keyed hash, so that the texts need not be kept. Two different
/// requests share one with a probability of 2^-128, and nobody outside can make them.
pub(crate) type Key = u128;

pub(crate) struct Keys {
    seed: u64,
    first: RandomState,
    second: RandomState,
}

/// What all keys of a request have in common; the method is mixed in last.
pub(crate) struct Base {
    parts: u128,
}

impl Base {
    pub(crate) fn with(&self, method: Method, text: &[u8]) -> Key {
        let method = match method {
            Method::Other => {
                text.iter().fold(0x100, |h: u128, b| h.wrapping_mul(0x0100_0193) ^ u128::from(*b))
            }
            known => known as u128,
        };
        self.parts ^ method.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }
}

/// The cookie that says that a branch is unique (RFC 3261 §8.1.1.7).
pub(crate) const MAGIC: &[u8] = b"z9hG4bK";

impl Keys {
    pub(crate) fn new(seed: u64) -> Keys {
        let state = |n: u64| RandomState::with_seeds(seed ^ n, seed.rotate_left(23), !seed, n);
        Keys { seed, first: state(0x243f_6a88_85a3_08d3), second: state(0x1319_8a2e_0370_7344) }
    }

    fn hash(&self, parts: impl Hash) -> u128 {
        let of = |state: &RandomState| u128::from(state.hash_one(&parts));
        (of(&self.first) << 64) | of(&self.second)
    }

    /// Everything but the method. `None`: a header is missing, the request can belong to nothing.
    /// Call-ID and CSeq number are part of it, so that clients with a constant branch do no harm.
    pub(crate) fn base(&self, request: &Message, config: &Config) -> Option<Base> {
        let parts = request.remembered(self.seed, || self.parts(request, config))?;
        Some(Base { parts })
    }

    fn parts(&self, request: &Message, config: &Config) -> Option<u128> {
        let via = request.via()?;
        let call_id = request.call_id_slice()?;
        let (number, _) = request.cseq_slices()?;
        if let Some(branch) = via.branch_slice().filter(|b| b.starts_with(MAGIC) && b.len() > MAGIC.len()) {
            let mut host = SmallVec::<[u8; 64]>::from_slice(via.host());
            host.make_ascii_lowercase();
            return Some(self.hash((branch, &host[..], via.port, call_id, number)));
        }
        // RFC 2543: no unique branch. The To tag is compared by whoever looks an ACK up.
        let uri = config.match_uri.then(|| request.request_uri());
        let text = config.match_via.then(|| request.text(via.whole));
        let tag = request.from_tag();
        Some(self.hash((1u8, uri.as_deref(), text.as_deref(), tag.as_deref(), call_id, number)))
    }

    /// By Call-ID and CSeq number: ACKs of a 2xx, replies and CANCELs from management.
    pub(crate) fn call(&self, call_id: &[u8], number: &[u8]) -> Key {
        self.hash((2u8, call_id, number))
    }

    pub(crate) fn call_of(&self, request: &Message) -> Option<Key> {
        let (number, _) = request.cseq_slices()?;
        Some(self.call(request.call_id_slice()?, number))
    }
}

/// A request's own method and, for `Method::Other`, its text.
pub(crate) fn method_of(request: &Message) -> (Method, Bytes) {
    let method = request.method();
    (method, if method == Method::Other { request.method_text() } else { Bytes::new() })
}

/// The keys are hashes already.
#[derive(Clone, Copy, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64 ^ (key >> 64) as u64;
    }
}

impl BuildHasher for Identity {
    type Hasher = Identity;
    fn build_hasher(&self) -> Identity {
        Identity(0)
    }
}

pub(crate) type KeyMap = std::collections::HashMap<Key, u32, Identity>;

/// splitmix64's finisher.
pub(crate) fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
