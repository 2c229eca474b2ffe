//! A network that loses, doubles, delays and so reorders datagrams, all by the seed.

use bytes::Bytes;
use host::ctx::Rng;
use std::collections::HashMap;
use std::net::SocketAddr;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Percent of datagrams that are lost, doubled.
    pub loss: u64,
    pub double: u64,
    /// Longest delay in milliseconds.
    pub delay: u64,
}

/// The same bytes between the same ends are lost at most so often: whoever repeats gets through.
const MAX_LOST: u8 = 2;

pub struct Network {
    quality: Quality,
    lost: HashMap<(SocketAddr, SocketAddr, Bytes), u8>,
}

impl Network {
    pub fn new(rng: &mut Rng) -> Network {
        let one = |rng: &mut Rng, list: &[u64]| list[rng.below(list.len() as u64) as usize];
        let quality = Quality {
            loss: one(rng, &[0, 0, 10, 30]),
            double: one(rng, &[0, 0, 10, 30]),
            delay: one(rng, &[1, 20, 300, 1500]),
        };
        Network::with(quality)
    }

    pub fn with(quality: Quality) -> Network {
        Network { quality, lost: HashMap::new() }
    }

    /// Delays of the copies that arrive: none, one or two.
    pub fn carry(&mut self, rng: &mut Rng, from: SocketAddr, to: SocketAddr, bytes: &Bytes) -> Vec<u64> {
        let Quality { loss, double, delay } = self.quality;
        if rng.below(100) < loss {
            let lost = self.lost.entry((from, to, bytes.clone())).or_default();
            if *lost < MAX_LOST {
                *lost += 1;
                return Vec::new();
            }
        }
        let copies = if rng.below(100) < double { 2 } else { 1 };
        (0..copies).map(|_| 1 + rng.below(delay)).collect()
    }
}
