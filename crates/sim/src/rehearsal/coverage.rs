//! Which statements of a script the scenarios have run.

use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// By file and line: the route, and how often its statements ran.
    lines: BTreeMap<(String, u32), (String, u64)>,
}

impl Coverage {
    /// A statement that there is.
    pub fn statement(&mut self, file: &str, line: u32, route: &str) {
        self.lines.entry((file.to_string(), line)).or_insert_with(|| (route.to_string(), 0));
    }

    /// Statements of a line have run.
    pub fn ran(&mut self, file: &str, line: u32, times: u64) {
        if let Some((_, so_far)) = self.lines.get_mut(&(file.to_string(), line)) {
            *so_far += times;
        }
    }

    pub fn merge(&mut self, other: &Coverage) {
        for (at, (route, times)) in &other.lines {
            self.lines.entry(at.clone()).or_insert_with(|| (route.clone(), 0)).1 += times;
        }
    }

    /// (run, all)
    pub fn total(&self) -> (usize, usize) {
        (self.lines.values().filter(|(_, times)| *times > 0).count(), self.lines.len())
    }

    /// Routes with how much of them ran, and the lines that did not; `source` gives a line of a file.
    pub fn report(&self, source: impl Fn(&str, u32) -> String) -> String {
        let mut routes: Vec<(&str, &str, usize, usize)> = Vec::new();
        for ((file, _), (route, times)) in &self.lines {
            let ran = usize::from(*times > 0);
            match routes.iter_mut().find(|(f, r, ..)| f == file && r == route) {
                Some((.., done, all)) => {
                    *done += ran;
                    *all += 1;
                }
                None => routes.push((file, route, ran, 1)),
            }
        }
        let mut out = String::from("lines with statements that ran, by route:\n");
        for (_, route, done, all) in &routes {
            let _ = writeln!(out, "  {:>3} %  {done:>4} of {all:<4} {route}", done * 100 / all);
        }
        let (done, all) = self.total();
        let _ = writeln!(out, "  {:>3} %  {done:>4} of {all:<4} in all", done * 100 / all.max(1));
        let missing: Vec<_> = self.lines.iter().filter(|(_, (_, times))| *times == 0).collect();
        if !missing.is_empty() {
            out.push_str("lines that no scenario ran:\n");
        }
        for ((file, line), _) in missing {
            let name = file.rsplit('/').next().unwrap_or(file);
            let _ = writeln!(out, "  {name}:{line}: {}", source(file, *line).trim());
        }
        out
    }

    /// The format of lcov (`genhtml`, editors, CI).
    pub fn lcov(&self) -> String {
        let mut out = String::new();
        let mut open = None;
        for ((file, line), (_, times)) in &self.lines {
            if open != Some(file) {
                if open.is_some() {
                    out.push_str("end_of_record\n");
                }
                let _ = writeln!(out, "TN:\nSF:{file}");
                open = Some(file);
            }
            let _ = writeln!(out, "DA:{line},{times}");
        }
        if open.is_some() {
            out.push_str("end_of_record\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report() {
        let mut coverage = Coverage::default();
        for (line, route) in [(3, "route"), (4, "route"), (9, "route[x]")] {
            coverage.statement("a.cfg", line, route);
        }
        coverage.ran("a.cfg", 3, 2);
        coverage.ran("a.cfg", 100, 1);
        let mut all = coverage.clone();
        all.merge(&coverage);
        let report = all.report(|_, line| format!("  statement {line};"));
        for text in
            [" 50 %     1 of 2    route\n", "  0 %     0 of 1    route[x]", " 33 %", "a.cfg:4: statement 4;"]
        {
            assert!(report.contains(text), "{text}\n{report}");
        }
        assert_eq!(all.lcov(), "TN:\nSF:a.cfg\nDA:3,4\nDA:4,0\nDA:9,0\nend_of_record\n");
    }
}
