//! The floors of this crate: a file imports only from its own floor and from those below it, and no large circle of
//! files import one another. Re-exports are followed, so a name cannot hide where it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the ground. Folders of the same floor do not know each other.
const FLOORS: [&[&str]; 7] =
    [&["context"], &["language"], &["services"], &["tm"], &["vars", "tran"], &["load"], &["worker"]];
/// Files of a circle.
const MAX_CIRCLE: usize = 19;

/// Files by module ("tm::reply"), without comments and tests.
type Files = BTreeMap<String, (String, String)>;
/// What a name in a module stands for: ("tm::Relay", "tm::relay::Relay").
type Uses = BTreeMap<String, String>;

fn read(folder: &Path, module: &str, files: &mut Files) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().expect("UTF-8"));
        let inner =
            |name: &str| if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        match name.strip_suffix(".rs") {
            None if path.is_dir() => read(&path, &inner(&name), files),
            None => {}
            Some(stem) => {
                let text = fs::read_to_string(&path).expect("a text");
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().lines();
                let code: Vec<&str> = code.map(|l| if l.trim().starts_with("//") { "" } else { l }).collect();
                let own = matches!(stem, "mod" | "lib");
                let module = if own { module.to_owned() } else { inner(stem) };
                files.insert(module, (path.display().to_string(), code.join("\n")));
            }
        }
    }
}

/// Spreads `a::{b, c::d}` behind `prefix`; each path ends at its last name.
fn spread(text: &str, at: &mut usize, prefix: &str, out: &mut Vec<String>) {
    let bytes = text.as_bytes();
    let start = *at;
    while bytes.get(*at).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')) {
        *at += 1;
    }
    let path = format!("{prefix}{}", &text[start..*at]);
    if bytes.get(*at) != Some(&b'{') {
        return out.push(path.trim_end_matches(':').to_owned());
    }
    while bytes.get(*at).is_some_and(|b| matches!(b, b'{' | b',')) {
        *at += 1;
        *at += text[*at..].len() - text[*at..].trim_start().len();
        if bytes.get(*at) != Some(&b'}') {
            spread(text, at, &path, out);
        }
        *at += text[*at..].find([',', '}']).unwrap_or_default();
    }
    *at += 1;
}

/// (offset, whole path from the root) of every path in a file that leads into this crate.
fn paths(module: &str, code: &str, files: &Files) -> Vec<(usize, String)> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':');
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = code[at..].find("::") {
        let end = at + step;
        let start = code[..end].bytes().rposition(|b| !word(b)).map_or(0, |i| i + 1);
        let first = &code[start..end];
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let base = match first {
            "crate" => Some(String::new()),
            "super" => Some(parent.to_owned()),
            "self" => Some(module.to_owned()),
            child if module.is_empty() => Some(child.to_owned()).filter(|m| files.contains_key(m)),
            child => Some(format!("{module}::{child}")).filter(|m| files.contains_key(m)),
        };
        at = end + 2;
        let Some(base) = base else { continue };
        let mut out = Vec::new();
        spread(code, &mut at, &format!("{base}::"), &mut out);
        found.extend(out.into_iter().map(|path| (start, path.trim_start_matches("::").to_owned())));
    }
    found
}

/// The module that a path leads to, through re-exports.
fn target(path: &str, files: &Files, uses: &Uses) -> String {
    let mut module = String::new();
    for (depth, name) in path.split("::").enumerate() {
        let next = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        if files.contains_key(&next) {
            module = next;
        } else if let Some(to) = uses.get(&next).filter(|to| **to != next) {
            let rest: Vec<&str> = path.split("::").skip(depth + 1).collect();
            return target(&format!("{to}::{}", rest.join("::")), files, uses);
        } else {
            break;
        }
    }
    module
}

fn floor(module: &str) -> Option<(usize, &str)> {
    let folder = module.split("::").next().unwrap_or_default();
    FLOORS.iter().position(|folders| folders.contains(&folder)).map(|at| (at, folder))
}

#[test]
fn nothing_imports_from_above() {
    let mut files = Files::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    let mut uses = Uses::new();
    for (module, (_, code)) in &files {
        for statement in code.split("use ").skip(1) {
            let statement = statement.split(';').next().unwrap_or_default();
            for (_, path) in paths(module, statement, &files) {
                let name = path.rsplit("::").next().unwrap_or_default();
                uses.insert(format!("{module}::{name}").trim_start_matches("::").to_owned(), path);
            }
        }
    }
    let (mut wrong, mut arrows) = (Vec::new(), BTreeMap::<&str, BTreeSet<String>>::new());
    for (module, (file, code)) in files.iter().filter(|(module, _)| floor(module).is_some()) {
        for (offset, path) in paths(module, code, &files) {
            let to = target(&path, &files, &uses);
            // Where it is written counts as well as where it ends.
            for place in [to.as_str(), &path] {
                let (Some(here), Some(there)) = (floor(module), floor(place)) else { continue };
                if there.0 > here.0 || (there.0 == here.0 && there.1 != here.1) {
                    let line = code[..offset].matches('\n').count() + 1;
                    wrong.push(format!(
                        "{file}:{line}: {} must not import {path}: {} is above",
                        here.1, there.1
                    ));
                }
            }
            // What a file of modules passes on is no import of its own.
            let statement = code[..offset].rsplit([';', '}']).next().unwrap_or_default().trim();
            if to != *module && !(statement.starts_with("pub") && statement.contains("use")) {
                arrows.entry(module).or_default().insert(to);
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(arrows.len() > 50, "only {} files import something: is this the crate?", arrows.len());
    let reach = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(next) = open.pop() {
            let new =
                arrows.get(next.as_str()).into_iter().flatten().filter(|to| !seen.contains(*to)).cloned();
            let new: Vec<String> = new.collect();
            seen.extend(new.iter().cloned());
            open.extend(new);
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = arrows.keys().map(|m| (*m, reach(m))).collect();
    let in_circle = |a: &str, b: &str| reached.get(b).is_some_and(|all| all.contains(a));
    let circle = |m: &str| reached[m].iter().filter(|to| in_circle(m, to)).cloned().collect::<Vec<_>>();
    let largest = arrows.keys().map(|m| circle(m)).max_by_key(Vec::len).unwrap_or_default();
    println!("largest circle: {} files: {}", largest.len(), largest.join(", "));
    assert!(
        largest.len() <= MAX_CIRCLE,
        "{} files import one another: {}",
        largest.len(),
        largest.join(", ")
    );
}
