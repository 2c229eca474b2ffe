//! Routing trees: carriers, their domains, and in each domain targets by prefix and message flags.

use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// A probability of 1, in the units of the dice.
const DICE: f64 = 1000.0;

/// One target of a prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Empty: calls go nowhere.
    pub host: Bytes,
    pub strip: i64,
    pub prefix: Bytes,
    pub suffix: Bytes,
    /// Share of the calls, as it was given.
    pub given: f64,
    /// The same, 0 while it is off and nothing stands in for it.
    pub prob: f64,
    /// From 1; 0: it gets the first free one.
    pub index: usize,
    pub on: bool,
    /// The index of the target that stands in while it is off.
    pub backup: Option<usize>,
    pub comment: Bytes,
    /// The dice below which it is chosen.
    pub(super) dice: i64,
}

/// Targets for messages with certain flags.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pub flags: u32,
    pub mask: u32,
    /// As in the reference: those without a share first, then by index, of equal ones the later first.
    pub rules: Vec<Rule>,
    /// How many there are to be; 0: as many as there are.
    pub max: usize,
    dice_max: i64,
    /// By index - 1.
    by_index: Vec<usize>,
}

impl Targets {
    pub fn add(&mut self, rule: Rule) {
        let zeros = self.rules.iter().take_while(|r| r.prob == 0.0).count();
        let before = self.rules[zeros..].iter().take_while(|r| r.index < rule.index).count();
        self.rules.insert(zeros + before, rule);
    }

    /// Fills what follows from the targets. The error is what a user should read.
    pub fn settle(&mut self) -> Result<(), String> {
        if self.max != 0 && self.max != self.rules.len() {
            return Err(format!("there are {} targets, and max_targets is {}", self.rules.len(), self.max));
        }
        (self.dice_max, self.by_index) = (0, vec![usize::MAX; self.rules.len()]);
        let mut sum = 0;
        for (at, rule) in self.rules.iter_mut().enumerate() {
            let share = (rule.prob * DICE) as i64;
            self.dice_max += share;
            sum += share;
            rule.dice = sum;
            if rule.index == 0 {
                continue;
            }
            let slot = self.by_index.get_mut(rule.index - 1);
            match slot.ok_or_else(|| format!("hash index {} is above the count of targets", rule.index))? {
                taken if *taken != usize::MAX => {
                    return Err(format!("hash index {} is there twice", rule.index));
                }
                slot => *slot = at,
            }
        }
        for at in 0..self.rules.len() {
            if self.rules[at].index == 0 {
                let free = self.by_index.iter().position(|slot| *slot == usize::MAX);
                let free = free.ok_or("there are more targets than hash indexes")?;
                (self.by_index[free], self.rules[at].index) = (at, free + 1);
            }
        }
        match self
            .rules
            .iter()
            .find(|rule| !rule.on && rule.backup.is_some() && self.stand_in(rule).is_none())
        {
            Some(rule) => Err(format!("the backup of {} is no target", String::from_utf8_lossy(&rule.host))),
            None => Ok(()),
        }
    }

    /// The target of an index.
    pub fn at_index(&self, index: usize) -> Option<&Rule> {
        self.by_index.get(index.checked_sub(1)?).map(|at| &self.rules[*at])
    }

    fn stand_in(&self, rule: &Rule) -> Option<&Rule> {
        self.at_index(rule.backup?)
    }

    /// The target itself, or while it is off what stands in for it.
    fn working<'a>(&'a self, rule: &'a Rule) -> Option<&'a Rule> {
        if rule.on { Some(rule) } else { self.stand_in(rule) }
    }

    /// By a hash (`cr_route`).
    pub fn by_dice(&self, hash: u32) -> Option<&Rule> {
        if self.dice_max == 0 {
            return None;
        }
        let thrown = i64::from(hash) % self.dice_max;
        let rule = self.rules.iter().find(|rule| rule.dice > thrown).or(self.rules.last())?;
        self.working(rule)
    }

    /// By a number of which the rest says the index (`cr_prime_route`).
    pub fn by_number(&self, number: u64) -> Option<&Rule> {
        let count = self.rules.len().max(1) as u64;
        self.at_index((number % PRIME % count) as usize + 1).and_then(|rule| self.working(rule))
    }

    /// The share of a target in percent.
    pub fn percent(&self, rule: &Rule) -> f64 {
        let share = if self.dice_max == 0 { rule.prob } else { rule.prob * DICE / self.dice_max as f64 };
        share * 100.0
    }
}

const PRIME: u64 = 51797;

/// Where a call goes on after a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Empty: any.
    pub host: Bytes,
    /// A dot is any digit; empty: any.
    pub code: Bytes,
    pub flags: u32,
    pub mask: u32,
    /// Empty: nowhere.
    pub next: Bytes,
}

impl Failure {
    /// Lower comes first: a host, fewer dots, more flags.
    fn rank(&self) -> (bool, usize, std::cmp::Reverse<u32>) {
        let dots = self.code.iter().filter(|byte| **byte == b'.').count();
        (self.host.is_empty(), dots, std::cmp::Reverse(self.mask))
    }

    fn fits(&self, host: &[u8], code: &[u8], flags: u32) -> bool {
        let code_fits = self.code.is_empty()
            || self.code.len() == code.len()
                && self.code.iter().zip(code).all(|(wanted, byte)| *wanted == b'.' || wanted == byte);
        self.mask & flags == self.flags && (self.host.is_empty() || self.host == host) && code_fits
    }
}

/// One routing domain.
#[derive(Clone, Debug, Default)]
pub struct Domain {
    /// By prefix; in one prefix those with the larger mask first.
    pub routes: BTreeMap<Bytes, Vec<Targets>>,
    failures: HashMap<Bytes, Vec<Failure>>,
}

/// The digits of a number: everything else in it is passed over.
fn digits(number: &[u8]) -> Vec<u8> {
    number.iter().copied().filter(u8::is_ascii_digit).collect()
}

impl Domain {
    /// Targets of a prefix for these flags, made when there are none.
    pub fn targets(&mut self, prefix: Bytes, flags: u32, mask: u32) -> &mut Targets {
        let list = self.routes.entry(prefix).or_default();
        let at = list.iter().position(|t| (t.flags, t.mask) == (flags, mask));
        let at = at.unwrap_or_else(|| {
            let before = list.iter().take_while(|t| t.mask >= mask).count();
            list.insert(before, Targets { flags, mask, ..Targets::default() });
            before
        });
        &mut list[at]
    }

    pub fn add_failure(&mut self, prefix: Bytes, failure: Failure) {
        let list = self.failures.entry(prefix).or_default();
        let before = list.iter().take_while(|other| other.rank() < failure.rank()).count();
        list.insert(before, failure);
    }

    /// What the longest prefix of a number leads to, if these flags fit there.
    pub fn find(&self, number: &[u8], flags: u32) -> Option<&Targets> {
        let digits = digits(number);
        let list = (0..=digits.len()).rev().find_map(|n| self.routes.get(&digits[..n]))?;
        list.iter().find(|targets| flags & targets.mask == targets.flags)
    }

    /// Where to go on after this failure.
    pub fn next(&self, number: &[u8], host: &[u8], code: &[u8], flags: u32) -> Option<&Failure> {
        let digits = digits(number);
        let list = (0..=digits.len()).rev().find_map(|n| self.failures.get(&digits[..n]))?;
        list.iter().find(|failure| failure.fits(host, code, flags))
    }
}

#[derive(Clone, Debug)]
pub struct Carrier {
    pub id: i64,
    pub name: Bytes,
    /// In the order in which they were named first.
    pub domains: Vec<(Bytes, Domain)>,
}

impl Carrier {
    pub fn domain(&self, name: &[u8]) -> Option<&Domain> {
        self.domains.iter().find(|(own, _)| own == name).map(|(_, domain)| domain)
    }

    /// Made when there is none.
    pub fn domain_mut(&mut self, name: &Bytes) -> &mut Domain {
        let at = self.domains.iter().position(|(own, _)| own == name).unwrap_or_else(|| {
            self.domains.push((name.clone(), Domain::default()));
            self.domains.len() - 1
        });
        &mut self.domains[at].1
    }
}

/// All routing data.
#[derive(Clone, Debug, Default)]
pub struct Trees {
    pub carriers: Vec<Carrier>,
}

impl Trees {
    pub fn named(&self, name: &[u8]) -> Option<&Carrier> {
        self.carriers.iter().find(|carrier| carrier.name == name)
    }

    pub fn numbered(&self, id: i64) -> Option<&Carrier> {
        self.carriers.iter().find(|carrier| carrier.id == id)
    }

    pub fn numbered_mut(&mut self, id: i64) -> Option<&mut Carrier> {
        self.carriers.iter_mut().find(|carrier| carrier.id == id)
    }

    /// Settles all targets; the error names the place. With `drop` bad ones are told to it and left out.
    pub fn settle(&mut self, mut bad: impl FnMut(String) -> Result<(), String>) -> Result<(), String> {
        for carrier in &mut self.carriers {
            for (name, domain) in &mut carrier.domains {
                for (prefix, list) in &mut domain.routes {
                    let mut why = None;
                    list.retain_mut(|targets| {
                        let settled = targets.settle();
                        why = why.take().or(settled.as_ref().err().cloned());
                        settled.is_ok()
                    });
                    if let Some(why) = why {
                        let (name, prefix) = (String::from_utf8_lossy(name), String::from_utf8_lossy(prefix));
                        bad(format!("domain {name}, prefix `{prefix}`: {why}"))?;
                    }
                }
                domain.routes.retain(|_, list| !list.is_empty());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, prob: f64, index: usize) -> Rule {
        let host = Bytes::copy_from_slice(host.as_bytes());
        Rule { host, given: prob, prob, index, on: true, ..Rule::default() }
    }

    fn host(rule: Option<&Rule>) -> Option<&str> {
        rule.map(|rule| std::str::from_utf8(&rule.host).expect("text"))
    }

    #[test]
    fn shares_and_indexes() {
        let mut targets = Targets::default();
        for (name, prob, index) in [("a", 0.7, 1), ("b", 0.3, 2), ("c", 0.0, 3)] {
            targets.add(rule(name, prob, index));
        }
        targets.settle().expect("sound");
        assert_eq!(host(targets.by_dice(699)), Some("a"));
        assert_eq!(host(targets.by_dice(700)), Some("b"));
        assert_eq!(host(targets.by_dice(1000)), Some("a"));
        assert_eq!(host(targets.by_number(0)), Some("a"));
        assert_eq!(host(targets.by_number(2)), Some("c"));
        let shares: Vec<i64> = targets.rules.iter().map(|r| targets.percent(r).round() as i64).collect();
        assert_eq!(shares, [70, 30, 0]);
        // One that is off is replaced, or nobody answers for it.
        let at = targets.rules.iter().position(|r| r.host == "a").expect("it is there");
        targets.rules[at].on = false;
        assert_eq!(host(targets.by_dice(0)), None);
        targets.rules[at].backup = Some(2);
        assert_eq!(host(targets.by_dice(0)), Some("b"));
    }

    #[test]
    fn damaged_targets_are_said() {
        for (rules, max, why) in [
            (&[("a", 1)][..], 2, "max_targets"),
            (&[("a", 1), ("b", 1)], 2, "twice"),
            (&[("a", 3)], 1, "above"),
        ] {
            let mut targets = Targets { max, ..Targets::default() };
            rules.iter().for_each(|(name, index)| targets.add(rule(name, 1.0, *index)));
            assert!(targets.settle().is_err_and(|text| text.contains(why)), "{why}");
        }
    }

    #[test]
    fn prefixes_flags_and_failures() {
        let mut domain = Domain::default();
        for (prefix, flags, mask, name) in
            [("49", 0, 0, "de"), ("49", 16, 16, "flagged"), ("", 0, 0, "all"), ("7", 4, 4, "only")]
        {
            domain.targets(prefix.into(), flags, mask).add(rule(name, 1.0, 0));
        }
        let found = |number: &str, flags| {
            domain
                .find(number.as_bytes(), flags)
                .map(|t| std::str::from_utf8(&t.rules[0].host).expect("text"))
        };
        assert_eq!(found("49721", 0), Some("de"));
        assert_eq!(found("+49-721", 16), Some("flagged"));
        assert_eq!(found("33", 0), Some("all"));
        assert_eq!(found("abc", 0), Some("all"));
        // Flags that fit nothing under the longest prefix end the search.
        assert_eq!(found("71", 0), None);
        let failure = |host: &str, code: &str, mask, next: &str| Failure {
            host: Bytes::copy_from_slice(host.as_bytes()),
            code: Bytes::copy_from_slice(code.as_bytes()),
            flags: mask,
            mask,
            next: Bytes::copy_from_slice(next.as_bytes()),
        };
        for one in [
            failure("", "...", 0, "any"),
            failure("", "4..", 0, "4xx"),
            failure("gw", "...", 0, "gw"),
            failure("gw", "503", 0, "down"),
            failure("", "4..", 8, "marked"),
        ] {
            domain.add_failure("".into(), one);
        }
        let next = |host: &str, code: &str, flags| {
            let found = domain.next(b"123", host.as_bytes(), code.as_bytes(), flags);
            found.map(|f| std::str::from_utf8(&f.next).expect("text"))
        };
        assert_eq!(next("gw", "503", 0), Some("down"));
        assert_eq!(next("gw", "404", 0), Some("gw"));
        assert_eq!(next("x", "404", 0), Some("4xx"));
        assert_eq!(next("x", "404", 8), Some("marked"));
        assert_eq!(next("x", "503", 0), Some("any"));
    }
}
