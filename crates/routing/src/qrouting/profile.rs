//! Profiles (table `qr_profiles`): from which value on a gateway is bad, and what that costs it.

use super::Extra;
use super::measure::{Quality, Sample};
use host::db::{Name, Query, Row, Rows};
use std::collections::HashMap;
use std::sync::Arc;

/// Both limits of one statistic, and the factor that each costs.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Limit {
    warning: f64,
    critical: f64,
    warning_factor: f64,
    critical_factor: f64,
}

impl Limit {
    /// What the score is multiplied by. -1: there are too few samples.
    fn factor(&self, value: f64, rises: bool) -> f64 {
        let worse = |limit: f64| if rises { value < limit } else { value > limit };
        match value {
            -1.0 => 1.0,
            _ if worse(self.critical) => self.critical_factor,
            _ if worse(self.warning) => self.warning_factor,
            _ => 1.0,
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    /// By `Quality`, then the custom ones.
    limits: Vec<Limit>,
}

/// By `sort_profile` of the table of rules.
pub type Profiles = HashMap<i64, Arc<Profile>>;

/// How many samples make a statistic worth something, and what custom ones there are.
#[derive(Clone, Debug)]
pub struct Rating {
    /// By `Quality`.
    pub least: [u32; Quality::ALL.len()],
    pub extra: Vec<Extra>,
}

impl Default for Rating {
    fn default() -> Rating {
        Rating { least: [30, 30, 10, 10, 20], extra: Vec::new() }
    }
}

impl Rating {
    /// Name, value (-1: too few samples), number of samples, whether higher is better.
    pub fn values<'a>(&'a self, sum: &'a Sample) -> impl Iterator<Item = (&'a str, f64, i64, bool)> {
        let own = Quality::ALL.iter().map(|of| {
            let (value, samples) = sum.mean(*of).value(self.least[*of as usize]);
            (of.name(), value, samples, of.rises())
        });
        let extra = self.extra.iter().enumerate().map(|(at, extra)| {
            let (value, samples) = sum.extra(at).value(extra.least);
            (extra.name.as_str(), value, samples, extra.rises)
        });
        own.chain(extra)
    }

    /// 1 for a gateway without a fault; each limit that it passes costs it a part.
    pub fn score(&self, profile: &Profile, sum: &Sample) -> f64 {
        let values = self.values(sum).zip(&profile.limits);
        values.map(|((_, value, _, rises), limit)| limit.factor(value, rises)).product()
    }

    /// Names of statistics, as columns have them.
    fn column_names(&self) -> impl Iterator<Item = String> {
        let own = Quality::ALL.iter().map(|of| of.name().to_ascii_lowercase());
        own.chain(self.extra.iter().map(|extra| extra.name.clone()))
    }

    pub fn query(&self, table: &Name) -> Query {
        let mut query = Query::select(table).column("id").column("profile_name");
        for name in self.column_names() {
            for column in ["warn_threshold", "crit_threshold", "warn_penalty", "crit_penalty"] {
                query = query.column(Name::from(format!("{column}_{name}")));
            }
        }
        query
    }

    /// The answer to `query`. A row that cannot be used is said; the others count.
    pub fn read(&self, table: &Name, rows: &Rows) -> Profiles {
        let mut profiles = Profiles::new();
        for row in rows.iter() {
            match self.profile(&row) {
                Ok((id, profile)) => drop(profiles.insert(id, Arc::new(profile))),
                Err(why) => {
                    let key = row.string(0);
                    host::error!("qrouting", "table {table}, id {key}: {why}: it is left out");
                }
            }
        }
        profiles
    }

    fn profile(&self, row: &Row<'_>) -> Result<(i64, Profile), String> {
        let id = row.int(0).ok_or("id is NULL or no number")?;
        let mut limits = Vec::new();
        for (at, name) in self.column_names().enumerate() {
            let number = |part: usize| {
                let text = row.string(2 + at * 4 + part);
                text.trim()
                    .parse::<f64>()
                    .map_err(|_| format!("a threshold or penalty of {name} is no number"))
            };
            limits.push(Limit {
                warning: number(0)?,
                critical: number(1)?,
                warning_factor: number(2)?,
                critical_factor: number(3)?,
            });
        }
        Ok((id, Profile { limits }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qrouting::measure::Measured;

    #[test]
    fn limits_cost() {
        let limit = Limit { warning: 0.5, critical: 0.2, warning_factor: 0.6, critical_factor: 0.1 };
        for (value, factor) in [(-1.0, 1.0), (0.9, 1.0), (0.5, 1.0), (0.4, 0.6), (0.2, 0.6), (0.1, 0.1)] {
            assert_eq!(limit.factor(value, true), factor, "{value}");
        }
        let limit = Limit { warning: 100.0, critical: 500.0, ..limit };
        for (value, factor) in [(100.0, 1.0), (101.0, 0.6), (501.0, 0.1)] {
            assert_eq!(limit.factor(value, false), factor, "{value}");
        }
    }

    #[test]
    fn every_fault_counts() {
        let rating = Rating {
            least: [1, 1, 1, 1, 1],
            extra: vec![Extra { name: "mos".into(), rises: true, least: 2 }],
        };
        let limit = Limit { warning: 0.5, critical: 0.1, warning_factor: 0.5, critical_factor: 0.0 };
        let profile = Profile { limits: vec![limit; 6] };
        let gateway = Measured::new("gw".into());
        gateway.ended(false, true);
        gateway.add_extra(0, 0.3, 1.0);
        gateway.step(1, 10);
        // No call was answered, all were completed; one sample of the custom statistic is not enough.
        assert_eq!(rating.score(&profile, &gateway.sum()), 0.0);
        gateway.ended(true, true);
        gateway.ended(false, true);
        gateway.step(2, 10);
        assert_eq!(rating.score(&profile, &gateway.sum()), 0.5);
        gateway.add_extra(0, 0.3, 1.0);
        gateway.step(3, 10);
        assert_eq!(rating.score(&profile, &gateway.sum()), 0.25);
    }
}
