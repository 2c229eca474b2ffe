//! Rules whose destinations are ordered by quality (`sort_alg` Q), with what is measured of each destination.

use super::measure::Measured;
use crate::drouting::data::{Data, Ends};
use crate::drouting::tree::Destination as Target;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A carrier under a rule.
pub struct RatedCarrier {
    pub id: Bytes,
    off: AtomicBool,
    /// In the order of the carrier.
    pub gateways: Vec<Arc<Measured>>,
}

impl RatedCarrier {
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }
}

pub enum RatedTarget {
    Gateway(Arc<Measured>),
    Carrier(RatedCarrier),
}

impl RatedTarget {
    pub fn id(&self) -> &Bytes {
        match self {
            RatedTarget::Gateway(gateway) => &gateway.gateway,
            RatedTarget::Carrier(carrier) => &carrier.id,
        }
    }

    pub fn set_off(&self, off: bool) {
        match self {
            RatedTarget::Gateway(gateway) => gateway.set_off(off),
            RatedTarget::Carrier(carrier) => carrier.off.store(off, Ordering::Relaxed),
        }
    }

    pub fn gateways(&self) -> &[Arc<Measured>] {
        match self {
            RatedTarget::Gateway(gateway) => std::slice::from_ref(gateway),
            RatedTarget::Carrier(carrier) => &carrier.gateways,
        }
    }
}

/// A rule as its table has it.
#[derive(Clone, Debug)]
pub struct Unrated {
    pub id: i32,
    pub profile: i64,
    pub targets: Vec<Target>,
}

pub struct Rated {
    pub id: i32,
    /// `sort_profile`
    pub profile: i64,
    /// In the order of the table.
    pub targets: Vec<RatedTarget>,
}

impl Rated {
    /// What was measured under the same rule before a reload goes on.
    pub fn new(rule: &Unrated, ends: &Ends, old: Option<&Data>) -> Rated {
        let old = old.and_then(|old| old.rated(rule.id));
        let measured = |which: u32, of: Option<&RatedTarget>| {
            let id = &ends.gateways[which as usize].id;
            let known = of.and_then(|old| old.gateways().iter().find(|g| g.gateway == *id));
            known.cloned().unwrap_or_else(|| Arc::new(Measured::new(id.clone())))
        };
        let targets = rule.targets.iter().map(|target| {
            if !target.is_carrier {
                let id = &ends.gateways[target.which as usize].id;
                let same = |t: &&RatedTarget| matches!(t, RatedTarget::Gateway(g) if g.gateway == *id);
                let of = old.and_then(|old| old.targets.iter().find(same));
                return RatedTarget::Gateway(measured(target.which, of));
            }
            let carrier = &ends.carriers[target.which as usize];
            let same = |t: &&RatedTarget| matches!(t, RatedTarget::Carrier(c) if c.id == carrier.id);
            let of = old.and_then(|old| old.targets.iter().find(same));
            let off = matches!(of, Some(RatedTarget::Carrier(carrier)) if carrier.is_off());
            let gateways = carrier.targets.iter().map(|target| measured(target.which, of)).collect();
            RatedTarget::Carrier(RatedCarrier { id: carrier.id.clone(), off: off.into(), gateways })
        });
        Rated { id: rule.id, profile: rule.profile, targets: targets.collect() }
    }

    pub fn target(&self, id: &[u8]) -> Option<&RatedTarget> {
        self.targets.iter().find(|target| target.id() == id)
    }

    /// The first gateway of this name, also one of a carrier.
    pub fn gateway(&self, id: &[u8]) -> Option<&Arc<Measured>> {
        self.measured().find(|gateway| gateway.gateway == id)
    }

    pub fn measured(&self) -> impl Iterator<Item = &Arc<Measured>> {
        self.targets.iter().flat_map(RatedTarget::gateways)
    }
}
