//! The order in which the destinations of a rule are tried.

use super::Qrouting;
use super::measure::Measured;
use super::profile::Profile;
use super::rated::{Rated, RatedTarget};
use host::Ctx;
use host::events::{EventParams, raise};
use script::Value;
use std::sync::Arc;

/// How scores become an order (`algorithm`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// By chance, the better the earlier.
    #[default]
    DynamicWeights,
    /// The best first; those that are as good as another in the order of the table.
    BestFirst,
}

/// Places of the destinations of a rule, in the order in which they are tried. Those that are disabled are missing.
pub fn of_rule(ctx: &mut Ctx, module: &Qrouting, partition: &str, rule: &Rated) -> Vec<usize> {
    let profile = module.profile(rule.profile);
    let mut scored = Vec::with_capacity(rule.targets.len());
    for (at, target) in rule.targets.iter().enumerate() {
        let score = match target {
            RatedTarget::Gateway(gateway) => score(ctx, module, partition, rule, profile.as_deref(), gateway),
            RatedTarget::Carrier(carrier) if carrier.is_off() => None,
            RatedTarget::Carrier(carrier) => {
                let scores = carrier.gateways.iter();
                let scores =
                    scores.filter_map(|g| score(ctx, module, partition, rule, profile.as_deref(), g));
                let scores: Vec<f64> = scores.collect();
                (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
            }
        };
        scored.extend(score.map(|score| (at, score)));
    }
    arranged(module.algorithm, scored, || ctx.core.rng.below(1 << 32) as f64 / (1u64 << 32) as f64)
}

/// The same for the gateways of one of its carriers.
pub fn of_carrier(
    ctx: &mut Ctx,
    module: &Qrouting,
    partition: &str,
    rule: &Rated,
    gateways: &[Arc<Measured>],
) -> Vec<usize> {
    let profile = module.profile(rule.profile);
    let scores = gateways.iter().enumerate();
    let scores =
        scores.filter_map(|(at, g)| Some((at, score(ctx, module, partition, rule, profile.as_deref(), g)?)));
    let scored = scores.collect();
    arranged(module.algorithm, scored, || ctx.core.rng.below(1 << 32) as f64 / (1u64 << 32) as f64)
}

/// `None`: it is disabled. A rule without a profile has only perfect gateways.
fn score(
    ctx: &mut Ctx,
    module: &Qrouting,
    partition: &str,
    rule: &Rated,
    profile: Option<&Profile>,
    gateway: &Measured,
) -> Option<f64> {
    let (score, new) = gateway.score(|sum| profile.map_or(1.0, |profile| module.rating.score(profile, sum)));
    if gateway.is_off() {
        return None;
    }
    if new && module.bad_below > 0.0 && score < module.bad_below {
        let params = [
            ("partition", Value::from(partition.to_owned())),
            ("rule_id", Value::Int(i64::from(rule.id))),
            ("dst_name", Value::Str(gateway.gateway.clone())),
        ];
        raise(ctx, super::BAD, params.into_iter().collect::<EventParams>());
    }
    Some(score)
}

fn arranged(
    algorithm: Algorithm,
    mut scored: Vec<(usize, f64)>,
    mut chance: impl FnMut() -> f64,
) -> Vec<usize> {
    match algorithm {
        Algorithm::BestFirst => scored.sort_by(|a, b| b.1.total_cmp(&a.1)),
        Algorithm::DynamicWeights => {
            for first in 0..scored.len().saturating_sub(1) {
                let rest = &scored[first..];
                let mut left = rest.iter().map(|(_, score)| score).sum::<f64>() * chance();
                let hit = rest.iter().position(|(_, score)| {
                    left -= score;
                    left < 0.0
                });
                scored.swap(first, first + hit.unwrap_or(0));
            }
        }
    }
    scored.into_iter().map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        let best = |scores: &[f64]| {
            let scored = scores.iter().copied().enumerate().collect();
            arranged(Algorithm::BestFirst, scored, || unreachable!())
        };
        assert_eq!(best(&[1.0, 1.0, 1.0]), [0, 1, 2]);
        assert_eq!(best(&[0.5, 1.0, 0.2, 1.0]), [1, 3, 0, 2]);
        for (scores, chances, expected) in [
            (&[1.0, 1.0][..], &[0.0][..], &[0, 1][..]),
            (&[1.0, 1.0], &[0.6], &[1, 0]),
            (&[0.0, 1.0], &[0.0], &[1, 0]),
            (&[0.0, 0.0], &[0.9], &[0, 1]),
            (&[1.0, 2.0, 1.0], &[0.9, 0.99], &[2, 0, 1]),
            (&[1.0], &[], &[0]),
        ] {
            let mut chances = chances.iter();
            let scored = scores.iter().copied().enumerate().collect();
            let order = arranged(Algorithm::DynamicWeights, scored, || *chances.next().expect("a draw"));
            assert_eq!(order, expected, "{scores:?}");
        }
    }
}
