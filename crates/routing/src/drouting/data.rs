//! What one partition routes by: gateways, carriers and rules, as they were loaded. A reload makes another one.

use super::lists::Known;
use super::tree::{Destination as Target, Found, Rule, Tree};
use crate::destinations::{Destination, Place, Standing, State};
use crate::qrouting::rated::Rated;
use bytes::Bytes;
use modules::timerec::Recurrence;
use std::sync::Arc;

/// When a gateway is probed (`probe_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probing {
    Never,
    WhileDisabled,
    Always,
}

/// The order in which the destinations of a rule or carrier are tried (`sort_alg`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Order {
    /// That of the table.
    #[default]
    Given,
    /// By chance, the heavier the earlier.
    Weights,
    /// By the quality of past calls, which module `qrouting` knows; as given where it does not.
    Quality,
}

impl Order {
    /// By the first letter; unknown ones are the order of the table.
    pub fn parse(text: &[u8]) -> Order {
        match text.first() {
            Some(b'W') => Order::Weights,
            Some(b'Q') => Order::Quality,
            _ => Order::Given,
        }
    }
}

pub struct Gateway {
    pub id: Bytes,
    /// `type`
    pub kind: i64,
    /// Host, port and parameters, as they stand in R-URIs.
    pub address: Bytes,
    /// Characters that are cut from the front of the number, and what takes their place.
    pub strip: usize,
    pub prefix: Option<Bytes>,
    pub attrs: Bytes,
    pub probing: Probing,
    pub destination: Arc<Destination>,
}

impl Gateway {
    /// As management and events name the state.
    pub fn state_name(&self) -> &'static str {
        match (self.destination.state(), self.probing) {
            (State::Active, _) => "active",
            (State::Inactive, _) => "disabled MI",
            (State::Probing, Probing::WhileDisabled) => "probing",
            (State::Probing, _) => "inactive",
        }
    }

    /// It is to be probed now.
    pub fn wants_probe(&self) -> bool {
        match (self.destination.state(), self.probing) {
            (State::Inactive, _) | (_, Probing::Never) => false,
            (_, Probing::Always) => true,
            (state, Probing::WhileDisabled) => state == State::Probing,
        }
    }
}

pub struct Carrier {
    pub id: Bytes,
    pub targets: Vec<Target>,
    /// Only the first of its gateways that is not disabled is used.
    pub first_only: bool,
    pub order: Order,
    pub attrs: Bytes,
    pub standing: Arc<Standing>,
}

impl Carrier {
    pub fn new(
        id: Bytes,
        targets: Vec<Target>,
        flags: i64,
        order: Order,
        attrs: Bytes,
        off: bool,
    ) -> Carrier {
        let state = if off { State::Inactive } else { State::Active };
        let standing = Arc::new(Standing::new(state));
        Carrier { id, targets, first_only: flags & 1 != 0, order, attrs, standing }
    }

    pub fn is_off(&self) -> bool {
        self.standing.state() != State::Active
    }

    /// False: it was that already.
    pub fn set_off(&self, off: bool) -> bool {
        self.standing.set(if off { State::Inactive } else { State::Active })
    }
}

/// What few rules have, many of them the same.
#[derive(Debug, Default)]
pub struct Traits {
    pub times: Option<Recurrence>,
    /// A route of the script that runs when the rule is chosen.
    pub route: Option<Bytes>,
    pub order: Order,
}

/// Gateways and carriers, each in the order of their identifiers, as the reference walks them.
#[derive(Default)]
pub struct Ends {
    pub gateways: Vec<Gateway>,
    pub carriers: Vec<Carrier>,
}

impl Ends {
    pub fn gateway(&self, id: &[u8]) -> Option<&Gateway> {
        self.number_of_gateway(id).map(|at| &self.gateways[at as usize])
    }

    pub fn carrier(&self, id: &[u8]) -> Option<&Carrier> {
        self.number_of_carrier(id).map(|at| &self.carriers[at as usize])
    }

    /// The first gateway of this type (`None`: any) at this place.
    pub fn gateway_at(&self, kind: Option<i64>, place: &Place) -> Option<&Gateway> {
        let fits = |gateway: &&Gateway| kind.is_none_or(|kind| kind == gateway.kind);
        self.gateways.iter().filter(fits).find(|gateway| gateway.destination.is_at(place))
    }

    /// The first carrier that has this gateway.
    pub fn carrier_of(&self, gateway: &Gateway) -> Option<&Carrier> {
        let at = self.number_of_gateway(&gateway.id)?;
        self.carriers.iter().find(|carrier| carrier.targets.iter().any(|target| target.which == at))
    }
}

impl Known for Ends {
    fn number_of_gateway(&self, id: &[u8]) -> Option<u32> {
        self.gateways.binary_search_by(|gateway| gateway.id[..].cmp(id)).ok().map(|at| at as u32)
    }

    fn number_of_carrier(&self, id: &[u8]) -> Option<u32> {
        self.carriers.binary_search_by(|carrier| carrier.id[..].cmp(id)).ok().map(|at| at as u32)
    }
}

pub struct Data {
    pub ends: Ends,
    pub tree: Tree,
    /// By `Rule::traits`.
    pub traits: Vec<Traits>,
    /// Rules with `Order::Quality`, in the order of their table.
    pub rated: Vec<Arc<Rated>>,
    /// Of what was loaded, when `generate_data_checksum` asks for it.
    pub checksum: Option<String>,
}

impl Data {
    pub fn traits(&self, rule: &Rule) -> &Traits {
        &self.traits[rule.traits as usize]
    }

    /// What is measured of the destinations of a rule whose order is that of quality.
    pub fn rated(&self, id: i32) -> Option<&Arc<Rated>> {
        self.rated.iter().rfind(|rule| rule.id == id)
    }

    fn is_open(&self, rule: &Rule, now_s: i64) -> bool {
        self.traits(rule).times.as_ref().is_none_or(|times| times.matches(now_s))
    }

    /// The rule with the longest prefix that is valid now; under each prefix `from` rules are passed over.
    pub fn by_prefix(&self, number: &[u8], group: u32, from: usize, now_s: i64) -> Option<Found<'_>> {
        self.tree.search(number, group, from, |rule| self.is_open(rule, now_s))
    }

    /// The same among rules without a prefix.
    pub fn by_default(&self, group: u32, from: usize, now_s: i64) -> Option<Found<'_>> {
        self.tree.default_rule(group, from, |rule| self.is_open(rule, now_s))
    }

    /// What a number is routed by.
    pub fn rule_for(&self, number: &[u8], group: u32, now_s: i64) -> Option<Found<'_>> {
        self.by_prefix(number, group, 0, now_s).or_else(|| self.by_default(group, 0, now_s))
    }
}
