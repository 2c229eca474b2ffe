//! Checks a text as `fermata check` would, with open texts in place of files.

use super::text::Text;
use crate::cli::Run;
use crate::config::{self, Depth, Refused};
use script::{Diagnostic, Loc, RouteName, Severity, Sources};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What was found about one text and what it includes.
#[derive(Default)]
pub struct Checked {
    /// Diagnostics of the protocol, by URI; the text's own are there also when there are none.
    pub problems: BTreeMap<String, Vec<Json>>,
    pub routes: Vec<RouteName>,
    /// Where the bodies of routes begin, with their titles.
    pub bodies: Vec<(String, Loc)>,
    pub sources: Sources,
}

impl Checked {
    /// URI of the file that a place is in.
    pub fn uri(&self, loc: Loc) -> String {
        uri_of(self.sources.name(loc))
    }

    pub fn text(&self, loc: Loc) -> Text {
        let file = self.sources.files.get(usize::from(loc.file));
        Text::new(&file.map(|f| String::from_utf8_lossy(&f.text).into_owned()).unwrap_or_default())
    }

    pub fn range(&self, loc: Loc) -> Json {
        self.text(loc).range(loc.start as usize, loc.end as usize)
    }

    /// Names that a route has, each once.
    pub fn route_names(&self) -> Vec<String> {
        let names = self.routes.iter().filter(|r| r.is_definition);
        let mut names: Vec<_> = names.map(|r| String::from_utf8_lossy(&r.name).into_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The path of a `file:` URI; other URIs stand for themselves.
pub fn path_of(uri: &str) -> String {
    let Some(path) = uri.strip_prefix("file://") else { return uri.to_owned() };
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let coded = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match coded.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn uri_of(path: &str) -> String {
    if path.contains("://") || !path.starts_with('/') {
        return path.to_owned();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let coded: String =
        path.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect();
    format!("file://{coded}")
}

/// Checks the text of this URI. A defect of the check is a problem of the text's first line, not the editor's.
pub fn check(uri: &str, texts: &HashMap<String, Text>) -> Checked {
    let path = path_of(uri);
    let open: HashMap<String, &Text> = texts.iter().map(|(uri, text)| (path_of(uri), text)).collect();
    let mut sources = Sources::default();
    let mut loader = |file: &str| match open.get(file) {
        Some(text) => Ok(text.as_str().as_bytes().to_vec()),
        None => std::fs::read(file),
    };
    let (parsed, problems) = script::parse_file(&path, &mut loader, &mut sources, script::Options::default());
    let routes = script::route_names(&parsed, &sources);
    let graph = script::explain(&parsed, &|_| false);
    let bodies = graph.nodes.into_iter().map(|node| (node.title, node.loc)).collect();
    let run = Run::default();
    let known = sources.clone();
    let loaded =
        catch_unwind(AssertUnwindSafe(|| config::load_parsed(parsed, problems, sources, &run, Depth::Lint)));
    let (sources, diagnostics) = match loaded {
        Ok(Ok(shared)) => ((*shared.sources()).clone(), shared.warnings),
        Ok(Err(Refused { sources, diagnostics })) => (sources, diagnostics),
        Err(_) => (
            known,
            vec![Diagnostic::error(Loc::default(), "checking this script failed: a defect of fermata")],
        ),
    };
    let mut checked = Checked { routes, bodies, sources, ..Checked::default() };
    checked.problems.insert(uri_of(&path), Vec::new());
    for problem in &diagnostics {
        let file = match checked.sources.name(problem.loc) {
            "" => uri_of(&path),
            name => uri_of(name),
        };
        let shown = shown(&checked, problem);
        checked.problems.entry(file).or_default().push(shown);
    }
    // Editors know the text by the URI that they gave.
    if uri_of(&path) != uri
        && let Some(own) = checked.problems.remove(&uri_of(&path))
    {
        checked.problems.insert(uri.to_owned(), own);
    }
    checked
}

fn shown(checked: &Checked, problem: &Diagnostic) -> Json {
    // This machine may not be the one that the script runs on.
    let severity = match problem.severity {
        _ if problem.here => 3,
        Severity::Error => 1,
        Severity::Warning => 2,
        Severity::Note => 3,
    };
    let hint = problem.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    json!({
        "range": checked.range(problem.loc), "severity": severity, "source": "fermata",
        "message": format!("{}{hint}", problem.message),
    })
}

/// Two URIs name one file: editors code them in different ways.
pub fn is_same_file(a: &str, b: &str) -> bool {
    a == b || Path::new(&path_of(a)) == Path::new(&path_of(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_paths() {
        for (uri, path) in
            [("file:///a/b%20c.cfg", "/a/b c.cfg"), ("untitled:x", "untitled:x"), ("file:///%C3%A9", "/é")]
        {
            assert_eq!(path_of(uri), path);
            assert_eq!(uri_of(path), uri);
        }
    }

    #[test]
    fn problems_stand_at_their_places() {
        let text = "socket=udp:127.0.0.1:5060\nloadmodule \"tm.so\"\nroute {\n    t_rely();\n    route(nowhere);\n}\n";
        let uri = "file:///nowhere/é.cfg".to_owned();
        let texts = HashMap::from([(uri.clone(), Text::new(text))]);
        let checked = check(&uri, &texts);
        let own = &checked.problems[&uri];
        let lines: Vec<_> =
            own.iter().map(|p| (p["range"]["start"]["line"].as_u64(), p["severity"].as_u64())).collect();
        assert!(lines.contains(&(Some(3), Some(1))), "{own:?}");
        assert!(own.iter().any(|p| p["message"].as_str().unwrap_or_default().contains("t_relay")), "{own:?}");
        assert!(is_same_file(&uri, "file:///nowhere/%C3%A9.cfg"));
    }
}
