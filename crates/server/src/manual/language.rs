//! What the core itself has: its parameters, variables and transformations.

use super::words::{self, About, Entry};
use host::params::{DECLARED, Declared};

/// Chapters behind those of the modules, as `fermata manual NAME` calls them.
pub const CHAPTERS: [&str; 3] = ["core parameters", "core variables", "transformations"];

/// One of [`CHAPTERS`].
pub fn chapter(name: &str) -> String {
    let (intro, mut lines): (&str, Vec<String>) = match name {
        "core parameters" => (
            "Written `name = value` above the routes. Those that are accepted without effect are not listed.",
            DECLARED.iter().map(parameter).collect(),
        ),
        "core variables" => (intro("variables"), entries(About::Variable).map(variable).collect()),
        _ => (intro("transformations"), entries(About::Transformation).map(transformation).collect()),
    };
    lines.sort_by_key(|line| line.to_ascii_lowercase());
    format!("## {name}\n\n{intro}\n\n{}\n", lines.join("\n"))
}

/// What there is of that name: `$ru` or `ru`, `{s.len}` or `s.len`, `log_level`.
pub fn lines_of(name: &str) -> Vec<String> {
    let bare = name.trim_start_matches(['$', '{']).trim_end_matches('}');
    let of_core = |what: &str, line: String| format!("{what}\n{line}\n");
    let parameters = DECLARED.iter().filter(|one| one.name == bare);
    let mut lines: Vec<String> = parameters.map(|one| of_core("core parameter", parameter(one))).collect();
    let variables = entries(About::Variable).filter(|(n, _)| *n == bare);
    lines.extend(variables.map(|one| of_core("core variable", variable(one))));
    let transformations = entries(About::Transformation).filter(|(n, _)| *n == bare);
    lines.extend(transformations.map(|one| of_core("transformation", transformation(one))));
    lines
}

/// All names, for "did you mean".
pub fn names() -> impl Iterator<Item = String> {
    let parameters = DECLARED.iter().map(|one| one.name);
    let words = [About::Variable, About::Transformation].into_iter().flat_map(entries).map(|(name, _)| name);
    parameters.chain(words).map(str::to_owned)
}

/// Variables and what is said of them.
pub fn variables() -> impl Iterator<Item = (&'static str, String)> {
    entries(About::Variable).map(|one| (one.0, variable(one)))
}

/// Core parameters and what is said of them.
pub fn parameters() -> impl Iterator<Item = (&'static str, String)> {
    DECLARED.iter().map(|one| (one.name, parameter(one)))
}

fn parameter(one: &Declared) -> String {
    let default = if one.default.is_empty() { String::new() } else { format!(", default {}", one.default) };
    format!("- `{}` ({}{default}): {}", one.name, one.takes(), one.help.trim())
}

fn variable((name, entry): (&'static str, &'static Entry)) -> String {
    format!("- `${name}`: {}", entry.text)
}

fn transformation((name, entry): (&'static str, &'static Entry)) -> String {
    let args: String = entry.args.iter().map(|arg| format!(",{arg}")).collect();
    format!("- `{{{name}{args}}}`: {}", entry.text)
}

fn intro(file: &str) -> &'static str {
    words::of(file).map_or("", |words| &words.intro)
}

/// What is said of the core's own.
pub fn entries(about: About) -> impl Iterator<Item = (&'static str, &'static Entry)> {
    let file = if about == About::Variable { "variables" } else { "transformations" };
    let all = words::of(file).into_iter().flat_map(|words| &words.entries);
    all.filter(move |((of, _), _)| *of == about).map(|((_, name), entry)| (*name, entry))
}
