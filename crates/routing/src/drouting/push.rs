//! Destinations in the order in which they are tried: the first becomes the R-URI, the others wait in AVPs.

use super::Drouting;
use super::args::{OF_CARRIER, OF_GATEWAY, Outs};
use super::data::{Carrier, Ends, Gateway, Order};
use super::partition::{Avps, Partition};
use super::tree::Destination as Target;
use crate::qrouting::follow::{self, Plan};
use crate::qrouting::rated::{Rated, RatedTarget};
use crate::qrouting::{Measured, Qrouting};
use bytes::Bytes;
use host::Ctx;
use host::vars::socket::describe;
use host::vars::uri::set_request;
use script::Value;
use sip::Uri;
use std::sync::Arc;

/// Places of the targets, in the order in which they are tried now.
pub fn places(ctx: &mut Ctx, targets: &[Target], order: Order) -> Vec<usize> {
    let mut list = (0..targets.len()).collect::<Vec<usize>>();
    if order == Order::Weights {
        by_weight(&mut list, targets, |below| ctx.core.rng.below(below));
    }
    list
}

/// Draws one after the other, the heavier the likelier; those without weight come last, in any order.
fn by_weight(list: &mut [usize], targets: &[Target], mut below: impl FnMut(u64) -> u64) {
    for first in 0..list.len().saturating_sub(1) {
        let rest = &list[first..];
        let weight = |at: &usize| u64::from(targets[*at].weight);
        let sum: u64 = rest.iter().map(weight).sum();
        let drawn = match sum {
            0 => below(rest.len() as u64) as usize,
            _ => {
                let mut left = below(sum);
                let hit = rest.iter().position(|at| {
                    let weight = weight(at);
                    let hit = left < weight;
                    left = left.saturating_sub(weight);
                    hit
                });
                hit.unwrap_or(0)
            }
        };
        list.swap(first, first + drawn);
    }
}

/// The R-URI that leads a number to a gateway: what was before the host, without the stripped digits and with the
/// prefix, then the address of the gateway and the rest of the old URI.
pub fn uri_to(gateway: &Gateway, uri: &Uri) -> Bytes {
    let user = uri.user.as_deref().unwrap_or_default();
    let user = user.get(gateway.strip..).unwrap_or_default();
    let prefix = gateway.prefix.as_deref().unwrap_or_default();
    let mut text = Vec::with_capacity(uri.text.len() + gateway.address.len() + prefix.len() + 8);
    text.extend_from_slice(b"sip:");
    text.extend_from_slice(prefix);
    text.extend_from_slice(user);
    let password = uri.password.as_deref().filter(|password| !password.is_empty());
    if let Some(password) = password {
        text.push(b':');
        text.extend_from_slice(password);
    }
    if password.is_some() || !(prefix.is_empty() && user.is_empty()) {
        text.push(b'@');
    }
    text.extend_from_slice(&gateway.address);
    for (mark, part) in [(b';', &uri.params.text), (b'?', &uri.headers)] {
        if !part.is_empty() {
            text.push(mark);
            text.extend_from_slice(part);
        }
    }
    text.into()
}

/// Collects the destinations of one routing.
pub struct Push<'a> {
    module: &'a Drouting,
    avps: &'a Avps,
    uri: &'a Uri,
    count: usize,
    /// Attributes of the first: gateway, carrier.
    attrs: (Bytes, Bytes),
    /// Those whose quality is measured.
    plan: Plan,
}

/// A rule is ordered by quality.
#[derive(Clone, Copy)]
pub struct ByQuality<'a> {
    pub by: &'a Qrouting,
    pub partition: &'a Partition,
    pub rule: &'a Rated,
}

impl ByQuality<'_> {
    pub fn places(self, ctx: &mut Ctx) -> Vec<usize> {
        self.by.order(ctx, &self.partition.name, self.rule)
    }

    fn places_within(self, ctx: &mut Ctx, of: &RatedTarget) -> Vec<usize> {
        self.by.order_within(ctx, &self.partition.name, self.rule, of.gateways())
    }
}

impl<'a> Push<'a> {
    pub fn new(module: &'a Drouting, partition: &'a Partition, uri: &'a Uri) -> Push<'a> {
        Push {
            module,
            avps: &partition.avps,
            uri,
            count: 0,
            attrs: Default::default(),
            plan: Plan::default(),
        }
    }

    /// A destination of a rule: a gateway, or a carrier that is not disabled. `rated`: how it is measured.
    pub fn target(
        &mut self,
        ctx: &mut Ctx,
        ends: &Ends,
        target: Target,
        rated: Option<(ByQuality, &RatedTarget)>,
    ) {
        if !target.is_carrier {
            let measured = rated.and_then(|(_, target)| target.gateways().first());
            self.gateway(ctx, &ends.gateways[target.which as usize], None, measured);
            return;
        }
        let carrier = &ends.carriers[target.which as usize];
        if !carrier.is_off() {
            self.carrier(ctx, ends, carrier, rated);
        }
    }

    /// Gateways of a carrier, in its own order.
    pub fn carrier(
        &mut self,
        ctx: &mut Ctx,
        ends: &Ends,
        carrier: &Carrier,
        rated: Option<(ByQuality, &RatedTarget)>,
    ) {
        let places = match rated {
            Some((quality, target)) if carrier.order == Order::Quality => quality.places_within(ctx, target),
            _ => places(ctx, &carrier.targets, carrier.order),
        };
        for at in places {
            let gateway = &ends.gateways[carrier.targets[at].which as usize];
            let measured = rated.and_then(|(_, target)| target.gateways().get(at));
            let pushed = self.gateway(ctx, gateway, Some(carrier), measured);
            if pushed && carrier.first_only {
                break;
            }
        }
    }

    /// One gateway more; false: it is disabled, or there is no such R-URI.
    pub fn gateway(
        &mut self,
        ctx: &mut Ctx,
        gateway: &Gateway,
        carrier: Option<&Carrier>,
        measured: Option<&Arc<Measured>>,
    ) -> bool {
        if !gateway.destination.is_active() {
            return false;
        }
        let uri = uri_to(gateway, self.uri);
        let attrs = carrier.map(|carrier| carrier.attrs.clone()).unwrap_or_default();
        if self.count == 0 {
            if !set_request(ctx, uri) {
                return false;
            }
            if gateway.destination.socket.is_some() {
                ctx.state.socket = gateway.destination.socket;
            }
            self.attrs = (gateway.attrs.clone(), attrs.clone());
        } else {
            let socket = gateway.destination.socket.and_then(|at| ctx.shared().sockets.get(usize::from(at)));
            let socket = socket.map(describe).unwrap_or_default();
            let mut avps = ctx.state.avps.borrow_mut();
            avps.add_last(self.avps.ruri, Value::Str(uri));
            avps.add_last(self.avps.gw_sock, Value::Str(socket));
        }
        self.count += 1;
        self.plan.0.extend(measured.cloned());
        let mut avps = ctx.state.avps.borrow_mut();
        avps.add_last(self.avps.gw_id, Value::Str(gateway.id.clone()));
        if self.module.wants_attrs(OF_GATEWAY) {
            avps.add_last(self.avps.gw_attrs, Value::Str(gateway.attrs.clone()));
        }
        if let Some(name) = self.avps.gw_priprefix {
            avps.add_last(name, Value::Str(gateway.prefix.clone().unwrap_or_default()));
        }
        if let Some(name) = self.avps.carrier_id {
            avps.add_last(name, Value::Str(carrier.map(|c| c.id.clone()).unwrap_or_default()));
        }
        if self.module.wants_attrs(OF_CARRIER) {
            avps.add_last(self.avps.carrier_attrs, Value::Str(attrs));
        }
        true
    }

    /// How many there are; the attributes of the first go where the script wants them.
    pub fn done(self, ctx: &mut Ctx, outs: &Outs) -> usize {
        if self.count > 0 {
            if let Some(out) = &outs.gateway {
                out.set(ctx, Value::Str(self.attrs.0));
            }
            if let Some(out) = &outs.carrier {
                out.set(ctx, Value::Str(self.attrs.1));
            }
        }
        follow::begin(ctx, self.plan);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(weights: &[u32]) -> Vec<Target> {
        (0..)
            .zip(weights)
            .map(|(which, weight)| Target { which, is_carrier: false, weight: *weight })
            .collect()
    }

    #[test]
    fn weights_decide_by_chance() {
        for (weights, draws, expected) in [
            (&[0, 100][..], &[99][..], &[1, 0][..]),
            (&[100, 0], &[0], &[0, 1]),
            (&[10, 20, 30], &[10, 39], &[1, 2, 0]),
            (&[10, 20, 30], &[59, 0], &[2, 1, 0]),
            (&[0, 0, 0], &[2, 1], &[2, 0, 1]),
            (&[5], &[], &[0]),
        ] {
            let targets = list(weights);
            let mut order: Vec<usize> = (0..targets.len()).collect();
            let mut draws = draws.iter();
            by_weight(&mut order, &targets, |_| *draws.next().expect("no more draws than needed"));
            assert_eq!(order, expected, "{weights:?}");
        }
    }
}
