//! Reloads of routes in a recording: when they came, and which files they read.

use super::format::Recording;
use host::taped::Reloaded;
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// A reload of routes.
#[derive(Clone, PartialEq, Debug)]
pub struct Reload {
    /// Its place among the steps of all workers.
    pub order: u64,
    /// Files that were known before it, and then.
    pub before: usize,
    pub known: usize,
    with_routes: Vec<u64>,
}

/// As the head of a recording has them: each with its place among the steps.
pub(super) fn coded(reloads: &[(u64, Reloaded)]) -> Vec<Json> {
    let one = |(order, r): &(u64, Reloaded)| json!({"order": order, "before": r.before, "known": r.known, "files": r.files});
    reloads.iter().map(one).collect()
}

impl Recording {
    /// The files of the configuration as it was at first.
    pub fn first_files(&self) -> Vec<(String, String)> {
        let mut files = self.files();
        if let Some(first) = self.reloads().first() {
            files.truncate(first.before);
        }
        files
    }

    /// Reloads of routes, in their order.
    pub fn reloads(&self) -> Vec<Reload> {
        let number = |one: &Json, name: &str| one[name].as_u64().unwrap_or_default();
        let list = self.head["reloads"].as_array().into_iter().flatten().map(|one| Reload {
            order: number(one, "order"),
            before: number(one, "before") as usize,
            known: number(one, "known") as usize,
            with_routes: one["files"].as_array().into_iter().flatten().filter_map(Json::as_u64).collect(),
        });
        list.collect()
    }

    /// The files that a reload read, by name.
    pub fn files_of(&self, reload: &Reload) -> HashMap<String, String> {
        let mut found = HashMap::<String, (bool, String)>::new();
        for (at, (name, text)) in self.files().into_iter().enumerate().take(reload.known) {
            // One that came back has its old place; one without routes is the newest of its name.
            let sure = reload.with_routes.contains(&(at as u64));
            if sure || found.get(&name).is_none_or(|(sure, _)| !sure) {
                found.insert(name, (sure, text));
            }
        }
        found.into_iter().map(|(name, (_, text))| (name, text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::format::preamble;

    #[test]
    fn a_reload_finds_its_files() {
        let file = |name: &str, text: &str| json!({"name": name, "text": text});
        let files = [file("a", "1"), file("b", "1"), file("a", "2"), file("b", "2")];
        let reload =
            |order, before, known, files: &[u16]| (order, Reloaded { before, known, files: files.to_vec() });
        // The last one goes back to the first text.
        let reloads = coded(&[reload(5, 2, 3, &[1, 2]), reload(9, 3, 4, &[2, 3]), reload(12, 4, 4, &[0, 1])]);
        let head = json!({"files": files, "reloads": reloads});
        let recording = Recording::parse(&preamble(&head)).unwrap();
        assert_eq!(recording.first_files().len(), 2);
        assert!(!recording.is_of_several_scripts());
        let texts = |n: usize| {
            let found = recording.files_of(&recording.reloads()[n]);
            [found["a"].clone(), found["b"].clone()]
        };
        assert_eq!(
            (texts(0), texts(1), texts(2)),
            (["2", "1"].map(String::from), ["2", "2"].map(String::from), ["1", "1"].map(String::from))
        );
        assert_eq!(recording.reloads()[1].order, 9);
    }
}
