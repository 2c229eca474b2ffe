//! Blacklists whose rules are the addresses of sets of destinations (`ds_define_blacklist`, `lb_define_blacklist`,
//! `define_blacklist`).

use super::Destination;
use host::Ctx;
use host::blacklist::Rule;
use host::load::Loader;
use std::sync::Arc;

/// One list: `name = 1, 4, 3`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlacklistedSets {
    name: String,
    pub sets: Vec<i64>,
    /// Among the lists of the server; set by `declare`.
    at: usize,
}

impl BlacklistedSets {
    pub fn parse(text: &str) -> Result<BlacklistedSets, String> {
        let (name, sets) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is written `name = 1, 2`"))?;
        let name = name.trim();
        if name.is_empty() {
            return Err(format!("`{text}` names no list"));
        }
        let set = |word: &str| {
            let number = word.trim().parse::<u32>().map(i64::from);
            number.map_err(|_| format!("blacklist {name}: `{}` is no number", word.trim()))
        };
        let sets = sets.split(',').map(set).collect::<Result<_, _>>()?;
        Ok(BlacklistedSets { name: name.to_owned(), sets, at: usize::MAX })
    }

    /// Makes the list known, in the `init` of its module.
    pub fn declare(&mut self, loader: &mut Loader, owner: &'static str) -> Result<(), String> {
        self.at = loader.add_blacklist(&self.name, owner)?;
        Ok(())
    }

    /// Fills it with the addresses of these destinations: port and protocol count.
    pub fn fill<'a>(&self, ctx: &Ctx, destinations: impl Iterator<Item = &'a Arc<Destination>>) {
        let hops = destinations.flat_map(|d| d.hops().to_vec());
        let rules = hops.map(|hop| Rule::of_address(Some(hop.transport), hop.addr)).collect();
        if let Some(list) = ctx.shared().policy().blacklists.get(self.at) {
            list.refill(rules);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions() {
        let list = BlacklistedSets::parse("gws = 1, 3").expect("a list");
        assert_eq!((list.name.as_str(), &list.sets[..]), ("gws", &[1, 3][..]));
        for wrong in ["gws", "= 1", "gws = ", "gws = one", "gws = 1,,2", "gws = -1"] {
            assert!(BlacklistedSets::parse(wrong).is_err(), "{wrong}");
        }
    }
}
