//! Status and reports: how ready each part of the server is, and what happened to it last (the reference's
//! "Status/Report" interface). A group is a module; each of its identifiers has a status and a few reports.

use parking_lot::RwLock;
use std::collections::VecDeque;

/// Reports that one identifier keeps; the oldest go first.
const MAX_REPORTS: usize = 200;
/// Identifiers of one group; further ones are not shown.
const MAX_IDENTIFIERS: usize = 10_000;
/// The identifier of a group that needs only one.
pub const MAIN: &str = "main";

/// Something that happened, and when (Unix seconds).
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub at: u64,
    pub text: String,
}

/// Negative: not ready; positive: ready. 0 is not used.
pub type Level = i32;

#[derive(Clone, Debug)]
pub struct Identifier {
    pub name: String,
    pub level: Level,
    pub details: Option<String>,
    pub reports: VecDeque<Report>,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub identifiers: Vec<Identifier>,
}

/// All groups, in the order in which they were first heard of. Shared by all workers.
#[derive(Default)]
pub struct Board(RwLock<Vec<Group>>);

impl Board {
    /// Makes a group known that has nothing to say yet.
    pub fn group(&self, name: &str) {
        self.with_group(name, |_| ());
    }

    /// Makes an identifier known that has nothing to say yet.
    pub fn identifier(&self, group: &str, identifier: &str) {
        self.with(group, identifier, |_| ());
    }

    pub fn set(&self, group: &str, identifier: &str, level: Level, details: &str) {
        self.with(group, identifier, |i| {
            i.level = level;
            i.details = Some(details.to_owned());
        });
    }

    pub fn report(&self, group: &str, identifier: &str, now_s: u64, text: impl Into<String>) {
        self.with(group, identifier, |i| {
            if i.reports.len() == MAX_REPORTS {
                i.reports.pop_front();
            }
            i.reports.push_back(Report { at: now_s, text: text.into() });
        });
    }

    pub fn forget(&self, group: &str, identifier: &str) {
        self.with_group(group, |g| g.identifiers.retain(|i| i.name != identifier));
    }

    /// A copy of everything, for management.
    pub fn groups(&self) -> Vec<Group> {
        self.0.read().clone()
    }

    /// The level of an identifier; without one that of `main`; of `all` the sum over the group: the lowest
    /// when one is not ready, else 1. `None`: there is no such thing.
    pub fn level(&self, group: &str, identifier: Option<&str>) -> Option<(Level, Option<String>)> {
        let groups = self.0.read();
        let group = groups.iter().find(|g| g.name == group)?;
        if identifier == Some("all") {
            let lowest = group.identifiers.iter().map(|i| i.level).min().unwrap_or(1);
            return Some((lowest.min(1), Some("aggregated".to_owned())));
        }
        let wanted = identifier.unwrap_or(MAIN);
        let found = group.identifiers.iter().find(|i| i.name == wanted)?;
        Some((found.level, found.details.clone()))
    }

    fn with_group(&self, name: &str, change: impl FnOnce(&mut Group)) {
        let mut groups = self.0.write();
        let at = groups.iter().position(|g| g.name == name).unwrap_or_else(|| {
            groups.push(Group { name: name.to_owned(), identifiers: Vec::new() });
            groups.len() - 1
        });
        change(&mut groups[at]);
    }

    fn with(&self, group: &str, identifier: &str, change: impl FnOnce(&mut Identifier)) {
        self.with_group(group, |group| {
            let list = &mut group.identifiers;
            let at = list.iter().position(|i| i.name == identifier);
            match at {
                Some(at) => change(&mut list[at]),
                None if list.len() >= MAX_IDENTIFIERS => {}
                None => {
                    let (name, reports) = (identifier.to_owned(), VecDeque::new());
                    list.push(Identifier { name, level: 1, details: None, reports });
                    change(list.last_mut().expect("just pushed"));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_reports() {
        let board = Board::default();
        assert_eq!(board.level("core", None), None);
        board.set("core", MAIN, 1, "running");
        assert_eq!(board.level("core", None), Some((1, Some("running".into()))));
        assert_eq!(board.level("core", Some("other")), None);
        board.set("dialplan", "a", 1, "data available");
        board.set("dialplan", "b", -1, "loading");
        assert_eq!(board.level("dialplan", Some("all")), Some((-1, Some("aggregated".into()))));
        for n in 0..MAX_REPORTS + 2 {
            board.report("core", MAIN, n as u64, "x");
        }
        let reports = &board.groups()[0].identifiers[0].reports;
        assert_eq!((reports.len(), reports[0].at), (MAX_REPORTS, 2));
        board.forget("dialplan", "b");
        assert_eq!(board.level("dialplan", Some("all")).map(|l| l.0), Some(1));
    }
}
