//! Management: reload, the list of routes, and changes of the file.

use super::trees::{Rule, Trees};
use super::{CarrierRoute, file, load};
use bytes::Bytes;
use host::mi::{MiAnswer, MiError, MiParams, MiResult};
use host::{Call, Ctx, Finish, Registrar};
use serde_json::{Map, Value as Json, json};
use std::path::Path;

/// How long a change of the file may take.
const CHANGE_MS: u64 = 60_000;

pub fn register(m: &mut Registrar<CarrierRoute>) {
    m.command_late(
        "carrierroute:reload_routes cr_reload_routes",
        "loads the routes again",
        |call, _, answer| {
            load::load(call, move |_, result| {
                let failed = |_| MiError::new(500, "failed to re-built tree, see log");
                answer.give(result.map(|()| json!("OK")).map_err(failed));
            });
        },
    )
    .takes("");
    m.command("carrierroute:dump_routes cr_dump_routes", "lists the routes", dump).takes("");
    m.command_late(
        "carrierroute:replace_host cr_replace_host",
        "replaces a host in the file",
        |call, params, answer| change(call, params, answer, &REPLACE),
    )
    .takes("options");
    m.command_late(
        "carrierroute:deactivate_host cr_deactivate_host",
        "switches a host in the file off",
        |call, params, answer| change(call, params, answer, &DEACTIVATE),
    )
    .takes("options");
    m.command_late(
        "carrierroute:activate_host cr_activate_host",
        "switches a host in the file on",
        |call, params, answer| change(call, params, answer, &ACTIVATE),
    )
    .takes("options");
    m.command_late("carrierroute:add_host cr_add_host", "adds a host to the file", |call, params, answer| {
        change(call, params, answer, &ADD)
    })
    .takes("options");
    m.command_late(
        "carrierroute:delete_host cr_delete_host",
        "removes a host from the file",
        |call, params, answer| change(call, params, answer, &DELETE),
    )
    .takes("options");
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All routes, a prefix behind the longer ones that begin with it.
fn dump(call: &mut Call<CarrierRoute>, _: &MiParams) -> MiResult {
    let Some(trees) = call.module.trees.get() else {
        return Err(MiError::new(500, "error during command processing"));
    };
    let carriers: Vec<Json> = trees
        .carriers
        .iter()
        .map(|carrier| {
            let domains = carrier.domains.iter().map(|(name, domain)| {
                let mut prefixes: Vec<_> = domain.routes.iter().collect();
                prefixes.sort_by(|(a, _), (b, _)| in_order(a, b));
                let rules = prefixes.into_iter().flat_map(|(prefix, list)| {
                    let prefix = if prefix.is_empty() { "NULL".to_owned() } else { text(prefix) };
                    list.iter().flat_map(move |t| {
                        let prefix = prefix.clone();
                        t.rules.iter().map(move |rule| shown(&prefix, t.percent(rule), rule, &t.rules))
                    })
                });
                json!({ "name": text(name), "Rules": rules.collect::<Vec<_>>() })
            });
            json!({ "name": text(&carrier.name), "id": carrier.id, "Domains": domains.collect::<Vec<_>>() })
        })
        .collect();
    Ok(json!({ "Carriers": carriers }))
}

/// By digits, and the longer first where one begins with the other.
fn in_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    match (a.starts_with(b), b.starts_with(a)) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

fn shown(prefix: &str, percent: f64, rule: &Rule, all: &[Rule]) -> Json {
    let state = if rule.on { "ON" } else { "OFF" };
    let [host, before, after, comment] = [&rule.host, &rule.prefix, &rule.suffix, &rule.comment].map(text);
    let line = format!(
        "{prefix:>10}: {percent:0.3} %, '{host}': {state}, '{}', '{before}', '{after}', '{comment}'\n",
        rule.strip
    );
    let mut shown = Map::new();
    shown.insert("rule".into(), line.into());
    let backup =
        rule.backup.filter(|_| !rule.on).and_then(|index| all.iter().find(|other| other.index == index));
    if let Some(backup) = backup {
        shown.insert("backed up by".into(), text(&backup.host).into());
    }
    let mine = all.iter().filter(|other| !other.on && other.backup == Some(rule.index));
    let mine: Vec<String> = mine.map(|other| text(&other.host)).collect();
    if !mine.is_empty() {
        shown.insert("backup for".into(), mine.into());
    }
    shown.into()
}

/// What a command does to the file, and which options it takes.
struct Task {
    needs: &'static str,
    refuses: &'static str,
    run: fn(&mut Trees, &Options) -> Result<bool, MiError>,
}

const REPLACE: Task = Task { needs: "ht", refuses: "PSi", run: |trees, o| each(trees, o, replace) };
const DEACTIVATE: Task = Task { needs: "hdp", refuses: "PSi", run: |trees, o| each(trees, o, deactivate) };
const ACTIVATE: Task = Task { needs: "hdp", refuses: "PSti", run: |trees, o| each(trees, o, activate) };
const ADD: Task = Task { needs: "pdhw", refuses: "t", run: add };
const DELETE: Task = Task { needs: "hdp", refuses: "PSti", run: |trees, o| each(trees, o, delete) };

/// Options of a command: `-d domain -p prefix -h host ...`.
#[derive(Debug, Default, PartialEq)]
struct Options {
    domain: String,
    prefix: String,
    host: String,
    new_host: String,
    prob: Option<f64>,
    rewrite_prefix: String,
    rewrite_suffix: String,
    index: usize,
    strip: i64,
}

const HELP: &str = "\t-h searched/new remote host\n\t-t replacement/backup host\n\t-d: searched/new domain\n\
                    \t-p: searched/new prefix\n\t-w: searched/new weight (0..1)\n\t-P: new rewrite prefix\n\
                    \t-S: new rewrite suffix\n\t-i: new hash index\n\t-s: new strip value\n\t-?: prints this help\n";

impl Options {
    /// `Ok(None)`: help is wanted.
    fn parse(text: &str, needs: &str, refuses: &str) -> Result<Option<Options>, MiError> {
        let bad = || MiError::new(400, "Bad option");
        let (mut options, mut given) = (Options::default(), String::new());
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let letter = word.strip_prefix('-').ok_or_else(|| MiError::new(400, "No option given"))?;
            let letter = letter.chars().next().ok_or_else(bad)?;
            if letter == '?' {
                return Ok(None);
            }
            if !"dphtwPSis".contains(letter) {
                return Err(bad());
            }
            given.push(letter);
            let value = words.next().ok_or_else(|| MiError::new(400, "Missing option"))?.to_owned();
            match letter {
                'd' => options.domain = value,
                'p' => {
                    options.prefix = if value.eq_ignore_ascii_case("null") { String::new() } else { value }
                }
                'h' => options.host = value,
                't' => options.new_host = value,
                'w' => options.prob = Some(value.parse().map_err(|_| bad())?),
                'P' => options.rewrite_prefix = value,
                'S' => options.rewrite_suffix = value,
                'i' => options.index = value.parse().map_err(|_| bad())?,
                _ => options.strip = value.parse().map_err(|_| bad())?,
            }
        }
        if refuses.chars().any(|letter| given.contains(letter)) {
            return Err(bad());
        }
        if needs.chars().any(|letter| !given.contains(letter)) {
            return Err(MiError::new(400, "Missing option"));
        }
        Ok(Some(options))
    }

    fn means(&self, domain: &[u8], prefix: &[u8], rule: &Rule) -> bool {
        let is = |wanted: &str, own: &[u8]| wanted == "*" || wanted.as_bytes() == own;
        (self.domain.is_empty() || is(&self.domain, domain))
            && is(&self.prefix, prefix)
            && is(&self.host, &rule.host)
            && self.prob.is_none_or(|prob| prob == rule.given)
    }
}

/// Changes the file beside the calls, and loads it.
fn change(call: &mut Call<CarrierRoute>, params: &MiParams, answer: MiAnswer, task: &'static Task) {
    let Some(path) = call.module.file().cloned() else {
        let why = "Not running in config file mode, cannot modify route from command line";
        return answer.give(Err(MiError::new(400, why)));
    };
    let options = params.need("options", 0).and_then(|text| Options::parse(&text, task.needs, task.refuses));
    let options = match options {
        Ok(Some(options)) => options,
        Ok(None) => return answer.give(Ok(json!({ "carrierroute options usage:": HELP }))),
        Err(error) => return answer.give(Err(error)),
    };
    let module = call.module.clone();
    call.ctx.spawn("carrierroute change", CHANGE_MS, async move {
        let default = module.default_tree.clone();
        let changed = crate::aside(move || rewrite(&path, &default, task, &options)).await;
        Box::new(move |_: &mut Ctx| {
            let changed = changed.unwrap_or_else(|error| Err(MiError::internal(error)));
            answer.give(changed.map(|trees| {
                module.trees.set(trees);
                json!("OK")
            }));
            1
        }) as Finish
    });
}

fn rewrite(path: &Path, default_tree: &str, task: &Task, options: &Options) -> Result<Trees, MiError> {
    let loaded = load::read_file(path, default_tree);
    let mut trees = loaded.map_err(|why| {
        host::error!("carrierroute", "{why}");
        MiError::new(500, "Could not load config from file")
    })?;
    if !(task.run)(&mut trees, options)? {
        return Err(MiError::new(500, "No match for update found"));
    }
    let written = file::print(&trees);
    let again = file::parse(&written, default_tree).map_err(|why| {
        host::error!("carrierroute", "the routes would be damaged: {why}");
        MiError::new(500, "Could not fixup rules")
    })?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    std::fs::write(&fresh, written).and_then(|()| std::fs::rename(&fresh, path)).map_err(|error| {
        host::error!("carrierroute", "cannot write {}: {error}", path.display());
        MiError::new(500, "Could not save config")
    })?;
    Ok(again)
}

/// What happens to a target: it stays, or is removed.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
}

/// Does something to each target that the options mean; false: there was none.
fn each(
    trees: &mut Trees,
    options: &Options,
    work: fn(&mut [Rule], usize, &Options) -> Result<Fate, MiError>,
) -> Result<bool, MiError> {
    let mut met = false;
    for (name, domain) in trees.carriers.iter_mut().flat_map(|carrier| &mut carrier.domains) {
        for (prefix, list) in &mut domain.routes {
            for targets in list {
                let mut at = 0;
                while at < targets.rules.len() {
                    if !options.means(name, prefix, &targets.rules[at]) {
                        at += 1;
                        continue;
                    }
                    met = true;
                    match work(&mut targets.rules, at, options)? {
                        Fate::Stays => at += 1,
                        Fate::Goes => {
                            let gone = targets.rules.remove(at).index;
                            targets.max = 0;
                            // Indexes are counted without a gap.
                            for rule in &mut targets.rules {
                                rule.index -= usize::from(rule.index > gone);
                                rule.backup = rule.backup.map(|index| index - usize::from(index > gone));
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(met)
}

fn is_backup(rules: &[Rule], at: usize) -> bool {
    rules.iter().any(|rule| rule.backup == Some(rules[at].index))
}

fn replace(rules: &mut [Rule], at: usize, options: &Options) -> Result<Fate, MiError> {
    rules[at].host = options.new_host.clone().into();
    (rules[at].on, rules[at].prob) = (true, rules[at].given);
    Ok(Fate::Stays)
}

fn activate(rules: &mut [Rule], at: usize, _: &Options) -> Result<Fate, MiError> {
    (rules[at].on, rules[at].backup, rules[at].prob) = (true, None, rules[at].given);
    Ok(Fate::Stays)
}

fn deactivate(rules: &mut [Rule], at: usize, options: &Options) -> Result<Fate, MiError> {
    let backup = match options.new_host.as_str() {
        "" if is_backup(rules, at) => {
            let why = "Could not delete or deactivate route, it is backup for other routes";
            return Err(MiError::new(400, why));
        }
        "" => None,
        // "a": any other that works.
        "a" => Some(
            rules
                .iter()
                .enumerate()
                .find(|(other, rule)| *other != at && rule.on)
                .map(|(_, rule)| rule.index),
        )
        .map(|found| found.ok_or_else(|| MiError::new(400, "No auto backup route found")))
        .transpose()?,
        host => {
            let found = rules.iter().enumerate().find(|(other, rule)| *other != at && rule.host == host);
            let found = found.map(|(_, rule)| rule.index);
            Some(found.ok_or_else(|| MiError::new(400, "No backup route for given host found"))?)
        }
    };
    let rule = &mut rules[at];
    (rule.on, rule.backup) = (false, backup);
    rule.prob = if backup.is_some() { rule.given } else { 0.0 };
    Ok(Fate::Stays)
}

fn delete(rules: &mut [Rule], at: usize, _: &Options) -> Result<Fate, MiError> {
    match is_backup(rules, at) {
        true => {
            let why = "Could not delete or deactivate route, it is backup for other routes";
            Err(MiError::new(400, why))
        }
        false => Ok(Fate::Goes),
    }
}

fn add(trees: &mut Trees, options: &Options) -> Result<bool, MiError> {
    if !options.prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MiError::new(400, "Bad option"));
    }
    let Some(carrier) = trees.carriers.first_mut() else { return Ok(false) };
    let domain = carrier.domain_mut(&options.domain.clone().into());
    let targets = domain.targets(options.prefix.clone().into(), 0, 0);
    targets.max = 0;
    let prob = options.prob.unwrap_or(0.0);
    targets.add(Rule {
        host: options.host.clone().into(),
        strip: options.strip,
        prefix: options.rewrite_prefix.clone().into(),
        suffix: options.rewrite_suffix.clone().into(),
        given: prob,
        prob,
        index: options.index,
        on: true,
        ..Rule::default()
    });
    targets.settle().map_err(|why| {
        host::error!("carrierroute", "{why}");
        MiError::new(500, "Could not fixup rules")
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "domain proxy { prefix 49 { max_targets = 2 target a { prob = 0.5 hash_index = 1 } \
                        target b { prob = 0.5 hash_index = 2 } } }";

    fn after(commands: &[(&'static Task, &str)]) -> Result<String, MiError> {
        let mut trees = file::parse(FILE, "default").expect("sound");
        for (task, text) in commands {
            let options = Options::parse(text, task.needs, task.refuses)?.expect("no help");
            if !(task.run)(&mut trees, &options)? {
                return Err(MiError::new(500, "none"));
            }
            trees = file::parse(&file::print(&trees), "default").expect("still sound");
        }
        let targets = trees.carriers[0].domain(b"proxy").and_then(|d| d.find(b"49", 0)).expect("targets");
        let shown = |rule: &Rule| {
            format!("{}{}:{:?}", text(&rule.host), if rule.on { "+" } else { "-" }, rule.backup)
        };
        Ok(targets.rules.iter().map(shown).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_file_is_changed() {
        for (commands, expected) in [
            (&[(&REPLACE, "-d proxy -p 49 -h a -t c")][..], Ok("c+:None b+:None")),
            (&[(&DEACTIVATE, "-d proxy -p 49 -h a")], Ok("a-:None b+:None")),
            (&[(&DEACTIVATE, "-d proxy -p 49 -h a -t b")], Ok("a-:Some(2) b+:None")),
            (
                &[(&DEACTIVATE, "-d * -p * -h a -t b"), (&ACTIVATE, "-d proxy -p 49 -h a")],
                Ok("a+:None b+:None"),
            ),
            (&[(&DEACTIVATE, "-d * -p * -h a -t b"), (&DELETE, "-d proxy -p 49 -h b")], Err(400)),
            (&[(&DEACTIVATE, "-d proxy -p 49 -h a -t z")], Err(400)),
            (&[(&DELETE, "-d proxy -p 49 -h a")], Ok("b+:None")),
            (&[(&ADD, "-d proxy -p 49 -h c -w 0.25 -s 1")], Ok("a+:None b+:None c+:None")),
            (&[(&DELETE, "-d proxy -p 49 -h z")], Err(500)),
            (&[(&DELETE, "-d proxy -h a")], Err(400)),
            (&[(&DELETE, "-d proxy -p 49 -h a -t b")], Err(400)),
            (&[(&DELETE, "-x proxy")], Err(400)),
        ] {
            let result = after(commands).map_err(|error| error.code);
            assert_eq!(result.as_deref(), expected.as_ref().map(|text| *text), "{:?}", commands[0].1);
        }
    }
}
