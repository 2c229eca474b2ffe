//! The words fit what is registered, in both directions; `docs/MODULES.md` is what is printed.

use super::*;
use script::ast::Dialect;
use script::{Options, Sources};
use std::collections::BTreeSet;

/// Ignored parameters have their reason in the code, commands their help.
#[test]
fn what_is_registered_has_words_and_what_has_words_is_registered() {
    let mut wrong = Vec::new();
    let names: BTreeSet<&str> = catalog::all().iter().map(|def| def.name).collect();
    for (name, parsed) in words::files() {
        match parsed {
            Err(why) => wrong.push(format!("manual/{name}.txt: {why}")),
            Ok(_) if matches!(name, "variables" | "transformations") => {}
            Ok(_) if !names.contains(name) => wrong.push(format!("manual/{name}.txt: no such module")),
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (def, module) in built() {
        match words::of(def.name) {
            Some(words) => compare(def.name, &*module, words, &mut wrong),
            None => wrong.push(format!(
                "{0}: no words. cargo run -p server -- manual --skeleton {0} > crates/modules/manual/{0}.txt",
                def.name
            )),
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every variable and transformation of the core has words, and the words are about what there is.
#[test]
fn the_language_of_the_core_has_words() {
    let mut table = host::load::VarTable::new(|_| false);
    host::vars::register(&mut table);
    let registered: BTreeSet<&str> = table.names().collect();
    let told: BTreeSet<&str> = language::entries(About::Variable).map(|(name, _)| name).collect();
    let missing: Vec<_> = registered.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&registered).collect();
    assert_eq!((missing, unknown), (vec![], vec![]), "variables without words, and words without a variable");
    let unknown: Vec<_> = language::entries(About::Transformation)
        .map(|(name, _)| name)
        .filter(|name| !host::tran::is_known(name))
        .collect();
    assert_eq!(unknown, Vec::<&str>::new(), "words about transformations that are not there");
    for (name, want) in [
        ("$ru", "core variable\n- `$ru`: The Request-URI as it is now."),
        ("{s.substr}", "transformation\n- `{s.substr,offset,length}`: "),
        ("log_level", "core parameter\n- `log_level` ("),
    ] {
        let text = topic(name).expect(name);
        assert!(text.contains(want), "{name}: {text}");
    }
}

fn compare(name: &str, module: &dyn Module, words: &words::Words, wrong: &mut Vec<String>) {
    let mut registered: BTreeSet<(About, &str)> = BTreeSet::new();
    let params = module.params();
    let params = params.iter().filter(|(_, kind)| !matches!(kind, ParamKind::Ignored(_)));
    registered.extend(params.map(|(n, _)| (About::Param, *n)));
    registered.extend(module.functions().iter().map(|f| (About::Function, f.name)));
    registered.extend(variables(module).into_iter().map(|n| (About::Variable, n)));
    for (about, n) in &registered {
        if words::entry(name, *about, n).is_none() {
            wrong.push(format!("{name}: no words for {about:?} {n}"));
        }
    }
    let told = |about: &About| matches!(about, About::Param | About::Function | About::Variable);
    for (about, n) in words.entries.keys().filter(|(about, _)| told(about)) {
        if !registered.contains(&(*about, *n)) {
            wrong.push(format!("{name}: {about:?} {n} is not registered"));
        }
    }
    for entry in words.entries.iter().filter(|(_, entry)| entry.text.contains("TODO")) {
        wrong.push(format!("{name}: words are missing for {}", entry.0.1));
    }
    let mut functions = module.functions();
    functions.sort_by_key(|f| f.name);
    for forms in functions.chunk_by(|a, b| a.name == b.name) {
        let Some(entry) = words::entry(name, About::Function, forms[0].name) else { continue };
        let most = forms.iter().map(|f| f.arity.1).max().unwrap_or(0);
        if entry.args.len() != most {
            wrong.push(format!("{name}: {}() takes {most} arguments, not {:?}", forms[0].name, entry.args));
        }
        if entry.returns.is_empty() {
            wrong.push(format!("{name}: return codes of {}() are missing", forms[0].name));
        }
    }
}

/// What a module needs set before it loads, or uses before it shows its statistics.
const SETTINGS: &[(&str, &str)] = &[
    ("carrierroute", "modparam(\"carrierroute\", \"config_source\", \"db\")"),
    (
        "clusterer",
        "modparam(\"clusterer\", \"my_node_id\", 1)\nmodparam(\"clusterer\", \"db_mode\", 0)\nmodparam(\"clusterer\", \"my_node_info\", \"cluster_id=1, url=bin:127.0.0.1\")",
    ),
    ("db_mysql", "loadmodule \"sqlops.so\"\nmodparam(\"sqlops\", \"db_url\", \"mysql://a@127.0.0.1/b\")"),
    ("mi_datagram", "modparam(\"mi_datagram\", \"socket_name\", \"udp:127.0.0.1:8080\")"),
    (
        "pua_bla",
        "modparam(\"pua_bla\", \"server_address\", \"sip:bla@127.0.0.1\")\nmodparam(\"pua_bla\", \"header_name\", \"Sender\")",
    ),
    (
        "pua_reginfo",
        "modparam(\"pua_reginfo\", \"server_address\", \"sip:reg@127.0.0.1\")\nmodparam(\"pua_reginfo\", \"ul_domain\", \"location\")",
    ),
    ("presence_xml", "modparam(\"presence_xml\", \"force_active\", 1)"),
    ("rls", "modparam(\"xcap\", \"integrated_xcap_server\", 1)"),
    ("rtpproxy", "modparam(\"rtpproxy\", \"rtpproxy_sock\", \"udp:127.0.0.1:7890\")"),
    ("sst", "loadmodule \"dialog.so\"\nmodparam(\"sst\", \"sst_flag\", \"SST\")"),
    (
        "stun",
        "modparam(\"stun\", \"primary_ip\", \"127.0.0.1\")\nmodparam(\"stun\", \"alternate_ip\", \"127.0.0.2\")",
    ),
    ("uac", "loadmodule \"rr.so\""),
    ("usrloc", "loadmodule \"signaling.so\"\nloadmodule \"registrar.so\"\nroute[x] { save(\"location\"); }"),
];

/// Statistics that a worker or a pool makes when it starts, and where.
const MADE_LATER: &[(&str, &str)] = &[
    ("core", include_str!("../../../host/src/context/parked.rs")),
    ("db_mysql", include_str!("../../../drivers/src/sql/pool.rs")),
];

/// These read files when they load; they have no events and no statistics.
const NOT_LOADED: &[&str] = &["aka_av_diameter", "auth_aaa", "ldap", "mmgeoip"];

#[test]
fn events_and_statistics_have_words_and_what_has_words_exists() {
    let mut wrong = Vec::new();
    for (def, _) in built() {
        let Some(words) = words::of(def.name) else { continue };
        let of = |about: About| {
            words.entries.keys().filter(move |(a, _)| *a == about).map(|(_, n)| *n).collect::<BTreeSet<_>>()
        };
        if NOT_LOADED.contains(&def.name) {
            assert!(of(About::Event).is_empty() && of(About::Statistic).is_empty(), "{}", def.name);
            continue;
        }
        let shared = match loaded(def.name) {
            Ok(shared) => shared,
            Err(why) => {
                wrong.push(format!("{} does not load (add to SETTINGS): {why}", def.name));
                continue;
            }
        };
        let all: Vec<(String, String, i64)> = shared.stats.list(None);
        let own = all.iter().filter(|(group, ..)| group == def.name).map(|(_, n, _)| n.as_str());
        let told = of(About::Statistic);
        wrong.extend(
            own.filter(|n| !told.contains(n)).map(|n| format!("{}: no words for statistic {n}", def.name)),
        );
        let there: BTreeSet<&str> = all.iter().map(|(_, n, _)| n.as_str()).collect();
        let later = |n: &str| {
            let made = |text: &str| text.contains(&format!("\"{n}\""));
            MADE_LATER.iter().any(|(owner, text)| *owner == def.name && made(text))
        };
        wrong.extend(
            told.difference(&there)
                .filter(|n| !later(n))
                .map(|n| format!("{}: there is no statistic {n}", def.name)),
        );
        let names = shared.events().list();
        let names = names.iter().map(|n| String::from_utf8_lossy(n).into_owned());
        let names: BTreeSet<String> = names.collect();
        let told = of(About::Event);
        wrong.extend(
            told.iter()
                .filter(|n| !names.contains(**n))
                .map(|n| format!("{}: there is no event {n}", def.name)),
        );
        let everywhere: BTreeSet<&str> = every_event();
        wrong.extend(
            names
                .iter()
                .filter(|n| !everywhere.contains(n.as_str()))
                .map(|n| format!("{}: no words for event {n}", def.name)),
        );
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

fn every_event() -> BTreeSet<&'static str> {
    let all = words::files().flat_map(|(_, words)| words.unwrap().entries.into_keys());
    all.filter(|(about, _)| *about == About::Event).map(|(_, name)| name).collect()
}

/// A server with this module and those that it needs.
fn loaded(name: &str) -> Result<host::Shared, String> {
    let mut modules = Vec::new();
    needed(name, &mut modules);
    let folder = std::env::temp_dir();
    let mut text =
        format!("udp_workers=1\ndb_default_url=\"text://{}\"\nloadmodule \"db_text.so\"\n", folder.display());
    for module in modules.iter().filter(|m| !matches!(**m, "core" | "db_text")) {
        let _ = writeln!(text, "loadmodule \"{module}.so\"");
    }
    let own = SETTINGS.iter().filter(|(module, _)| modules.contains(module)).map(|(_, settings)| *settings);
    let (own, routes): (Vec<&str>, Vec<&str>) =
        own.flat_map(str::lines).partition(|line| !line.starts_with("route"));
    let _ = writeln!(text, "{}\nroute {{ }}\n{}", own.join("\n"), routes.join("\n"));
    let mut sources = Sources::default();
    let options = Options { dialect: Some(Dialect::V4) };
    let (parsed, problems) = script::parse_text("test.cfg", &text, &mut sources, options);
    if let Some(problem) = problems.iter().find(|d| d.is_error()) {
        return Err(problem.message.clone());
    }
    host::load(&parsed, sources, catalog::all(), 0, 1).map_err(|(_, list)| {
        list.iter().filter(|d| d.is_error()).map(|d| d.message.clone()).collect::<Vec<_>>().join("; ")
    })
}

fn needed(name: &str, list: &mut Vec<&'static str>) {
    let Some(def) = catalog::all().iter().find(|def| def.name == name) else { return };
    if !list.contains(&def.name) {
        for need in (def.make)().needs() {
            needed(need, list);
        }
        list.push(def.name);
    }
}

#[test]
fn the_printed_manual_is_the_one_in_docs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/MODULES.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    let line = there.lines().zip(page().lines().map(str::to_owned)).position(|(a, b)| a != b);
    assert!(
        there == page(),
        "docs/MODULES.md is old (line {:?}): tests/words writes it",
        line.map(|n| n + 1)
    );
}

#[test]
fn help_of_a_name_tells_types_routes_codes_and_waiting() {
    let help = topic("sql_query").unwrap();
    for word in
        ["module sqlops", "sql_query(query, [results], [db])", "**waits**", "-2: no rows", "any route"]
    {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    assert!(topic("tm:fr_timeout").unwrap().contains("a number from 2 to 4000000 (s), default 30 seconds"));
    assert!(topic("$acc_extra").unwrap().contains("`$acc_extra`"));
    assert!(topic("E_PIKE_BLOCKED").unwrap().contains("(ip)"));
    assert!(topic("ul_dump").unwrap().contains("usrloc:dump"));
    assert!(topic("rr").unwrap().contains("## rr"));
    assert_eq!(topic("t_rellay").unwrap_err(), "nothing is called t_rellay; did you mean t_relay?");
}
