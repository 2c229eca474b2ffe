//! What the manual says of what stands in a text, and what may stand there.

use super::text::Text;
use crate::manual::lists::{ALL, Named, core_parameters};
use serde_json::{Value as Json, json};

/// Names that one answer holds.
const MOST: usize = 1500;
/// Words of the language at the beginning of a statement.
const WORDS: [&str; 19] = [
    "async",
    "break",
    "case",
    "continue",
    "default",
    "drop",
    "else",
    "exit",
    "for",
    "if",
    "launch",
    "parallel",
    "return",
    "route",
    "switch",
    "while",
    "is_myself",
    "loadmodule",
    "modparam",
];

/// What is written at a place.
#[derive(Debug, PartialEq)]
enum Site<'a> {
    /// After `$` or `$(`.
    Variable,
    /// `modparam("M", "`
    Parameter(&'a str),
    /// `loadmodule "`, `modparam("`
    Module,
    /// `route(`, `t_on_failure("` and their like.
    Route,
    /// At the beginning of a line outside of routes.
    Setting,
    Statement,
}

/// Quoted texts of a line: those that ended, and whether one is open.
fn quoted(line: &str) -> (Vec<&str>, bool) {
    let mut parts: Vec<&str> = line.split('"').collect();
    let open = parts.len().is_multiple_of(2);
    if open {
        parts.pop();
    }
    (parts.into_iter().skip(1).step_by(2).collect(), open)
}

/// Before the word that is being written.
fn site<'a>(text: &'a Text, start: usize) -> Site<'a> {
    let line = text.before(start);
    let trimmed = line.trim_start();
    if line.ends_with('$') || line.ends_with("$(") {
        return Site::Variable;
    }
    let (ended, open) = quoted(line);
    if trimmed.starts_with("modparam") {
        return match (ended.as_slice(), open) {
            ([], _) => Site::Module,
            ([module], true) => Site::Parameter(module),
            _ => Site::Statement,
        };
    }
    if trimmed.starts_with("loadmodule") {
        return Site::Module;
    }
    let names_route = ["route(", "t_on_failure(", "t_on_branch(", "t_on_reply("];
    let bare = line.trim_end_matches(['"', ' ']);
    let opens_async = trimmed.contains("async(") || trimmed.contains("launch(");
    if names_route.iter().any(|head| bare.ends_with(head)) || (opens_async && bare.ends_with("),")) {
        return Site::Route;
    }
    if trimmed.is_empty() && depth(&text.as_str()[..start]) == 0 { Site::Setting } else { Site::Statement }
}

/// Braces that are open; those in comments and texts do not count.
fn depth(text: &str) -> usize {
    let (mut depth, mut quote, mut at) = (0usize, false, text.bytes().peekable());
    while let Some(b) = at.next() {
        match b {
            b'\\' if quote => {
                at.next();
            }
            b'"' => quote = !quote,
            b'#' if !quote => {
                at.by_ref().find(|b| *b == b'\n');
            }
            b'{' if !quote => depth += 1,
            b'}' if !quote => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth
}

fn markdown(text: &str, range: Json) -> Json {
    json!({"contents": {"kind": "markdown", "value": text}, "range": range})
}

pub fn hover(text: &Text, offset: usize) -> Json {
    let (start, word) = text.word(offset);
    let word = word.trim_end_matches([':', '.']);
    if word.is_empty() {
        return Json::Null;
    }
    let range = text.range(start, start + word.len());
    let site = site(text, start);
    let words = match site {
        Site::Variable => words_of(&ALL.variables, |n| n.name == word),
        Site::Parameter(module) => words_of(&ALL.params, |n| n.name == word && n.module == module),
        Site::Module => crate::manual::topic(word.trim_end_matches(".so")).ok().map(|all| {
            // The first paragraph: the rest is a page.
            let mut parts = all.split("\n\n");
            [parts.next(), parts.next()].into_iter().flatten().collect::<Vec<_>>().join("\n\n")
        }),
        _ => {
            let called = words_of(&ALL.functions, |n| n.name == word);
            let core =
                || core_parameters().into_iter().find(|(name, _)| *name == word).map(|(_, words)| words);
            match site {
                Site::Setting => core().or(called),
                _ => called.or_else(core),
            }
        }
    };
    words.map_or(Json::Null, |words| markdown(&words, range))
}

fn words_of(list: &[Named], is_it: impl Fn(&Named) -> bool) -> Option<String> {
    let found: Vec<_> = list.iter().filter(|n| is_it(n)).collect();
    let each =
        found.iter().map(|n| format!("module **{}**\n\n{}", n.module, n.words.trim_start_matches("- ")));
    (!found.is_empty()).then(|| each.collect::<Vec<_>>().join("\n\n---\n\n"))
}

/// Kinds of the protocol's list.
#[derive(Clone, Copy)]
enum Kind {
    Function = 3,
    Variable = 6,
    Module = 9,
    Property = 10,
    Keyword = 14,
    Reference = 18,
}

fn item(label: &str, kind: Kind, detail: &str, words: &str) -> Json {
    let mut item = json!({"label": label, "kind": kind as u8, "detail": detail});
    if !words.is_empty() {
        item["documentation"] = json!({"kind": "markdown", "value": words.trim_start_matches("- ")});
    }
    item
}

/// `routes`: names of routes of the script.
pub fn complete(text: &Text, offset: usize, routes: &[String]) -> Json {
    let (start, _) = text.word(offset);
    let written = text.as_str().get(start..offset).unwrap_or_default();
    let fits = |name: &str| name.starts_with(written);
    let named = |list: &[Named], kind: Kind, wanted: &dyn Fn(&Named) -> bool| -> Vec<Json> {
        let list = list.iter().filter(|n| fits(n.name) && wanted(n));
        list.map(|n| item(n.name, kind, n.module, &n.words)).collect()
    };
    // Modules that the text loads come first, so that what needs no loadmodule stands on top.
    let source = text.as_str();
    let loads = |module: &str| {
        module == "core"
            || source.contains(&format!("\"{module}.so\""))
            || source.contains(&format!("/{module}.so\""))
    };
    let mut items = match site(text, start) {
        Site::Variable => named(&ALL.variables, Kind::Variable, &|_| true),
        Site::Parameter(module) => named(&ALL.params, Kind::Property, &|n| n.module == module),
        Site::Module => {
            let modules = ALL.modules.iter().filter(|m| fits(m) && **m != "core");
            let ending = if text.before(start).trim_start().starts_with("loadmodule") { ".so" } else { "" };
            modules.map(|m| item(&format!("{m}{ending}"), Kind::Module, "module", "")).collect()
        }
        Site::Route => {
            routes.iter().filter(|r| fits(r)).map(|r| item(r, Kind::Reference, "route", "")).collect()
        }
        Site::Setting => {
            let parameters = core_parameters().into_iter().filter(|(name, _)| fits(name));
            let words = [
                "route",
                "failure_route",
                "branch_route",
                "onreply_route",
                "local_route",
                "startup_route",
                "timer_route",
                "event_route",
                "error_route",
                "loadmodule",
                "modparam",
            ];
            let words = words.iter().filter(|w| fits(w)).map(|w| item(w, Kind::Keyword, "", ""));
            words
                .chain(parameters.map(|(name, words)| item(name, Kind::Property, "core parameter", &words)))
                .collect()
        }
        Site::Statement => {
            let mut functions = named(&ALL.functions, Kind::Function, &|n| loads(n.module));
            functions.extend(named(&ALL.functions, Kind::Function, &|n| !loads(n.module)).into_iter().map(
                |mut other| {
                    other["sortText"] = json!(format!("~{}", other["label"].as_str().unwrap_or_default()));
                    other
                },
            ));
            let words = WORDS.iter().filter(|w| fits(w)).map(|w| item(w, Kind::Keyword, "", ""));
            words.chain(functions).collect()
        }
    };
    let cut = items.len() > MOST;
    items.truncate(MOST);
    json!({"isIncomplete": cut, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "log_level=3\nloadmodule \"tm.so\"\nmodparam(\"tm\", \"fr_timeout\", 5)\nroute {\n    if ($rU == \"x\") t_relay();\n    route(away);\n}\nroute[away] { exit; }\n";

    fn hovered(at: &str) -> String {
        let text = Text::new(SCRIPT);
        hover(&text, SCRIPT.find(at).unwrap() + 1)["contents"]["value"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn the_manual_is_shown() {
        for (at, expected) in [
            ("log_level", "`log_level`"),
            ("tm.so", "## tm"),
            ("fr_timeout", "`fr_timeout`"),
            ("rU", "user of the Request-URI"),
            ("t_relay", "module **tm**"),
        ] {
            let found = hovered(at);
            assert!(found.contains(expected), "{at}: {found}");
        }
        assert_eq!(hovered("== "), "");
    }

    #[test]
    fn what_may_stand_there() {
        let check = |written: &str, expected: &[&str], not: &str| {
            let full = format!("{SCRIPT}{written}");
            let text = Text::new(&full);
            let found = complete(&text, full.len(), &["away".into()]);
            let labels: Vec<&str> =
                found["items"].as_array().unwrap().iter().filter_map(|i| i["label"].as_str()).collect();
            assert!(expected.iter().all(|e| labels.contains(e)), "{written}: {labels:?}");
            assert!(!labels.contains(&not), "{written}: {labels:?}");
        };
        check("loadmodule \"usr", &["usrloc.so"], "tm.so");
        check("modparam(\"us", &["usrloc"], "tm");
        check("modparam(\"tm\", \"fr_", &["fr_timeout", "fr_inv_timeout"], "db_url");
        check("log_", &["log_level"], "t_relay");
        check("route[x] {\n  t_re", &["t_relay", "t_reply"], "log_level");
        check("route[x] {\n  xlog(\"$r", &["rU", "ru", "rd"], "fu");
        check("route[x] {\n  route(", &["away"], "t_relay");
        check("route[x] {\n  t_on_failure(\"aw", &["away"], "t_relay");
        check("route[x] {\n  async(sleep(1), ", &["away"], "t_relay");
    }
}
