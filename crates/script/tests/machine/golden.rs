//! The language cases of `tests/golden` that need no SIP: every one is run at once, with one instruction
//! at a time, and with every function suspending.

use crate::mock::{UNSUPPORTED, Waiting, World, load};
use script::ast::{Dialect, RouteKind};
use serde_json::Value as Json;
use std::path::Path;

const AREAS: &[&str] = &[
    "op.int",
    "op.var",
    "op.assign",
    "cmp.one",
    "cmp.pairs",
    "cmp.re",
    "logic",
    "num.msg",
    "num.s_int",
    "num.cmp",
    "stm.if",
    "stm.while",
    "stm.switch",
    "stm.foreach",
    "route",
    "route.param",
    "route.return",
    "route.stack",
    "route.other",
    "avp",
    "syntax",
    "v21.test",
    "v21.route",
];

/// Cases of those areas that the mock can run; fewer would mean that something went missing.
const AT_LEAST: usize = 870;

/// Cases that test what the mock has otherwise or not at all.
const OTHERS: &[&str] = &[
    // Modules and parameters are the host's.
    "syntax.bad_global",
    "syntax.bad_module",
    "syntax.modparam_unloaded",
    "syntax.old_listen",
    "syntax.children",
    "syntax.debug_mode",
    // Transformations and AVPs of 2.1.
    "avp.del_last",
    "cmp.one.hdr_nope_s_len_null",
    "num.s_int.",
    // Startup routes, levels of xlog.
    "route.other.startup_var",
    "v21.route.xlog_level",
];

fn placeholders(text: &str) -> String {
    text.replace("{OK}", "ok();")
        .replace("{UAS}", "127.0.0.3:40000")
        .replace("{UAS_PORT}", "40000")
        .replace("{UAC_PORT}", "40001")
        .replace("{SRV_PORT}", "40002")
}

struct Case {
    id: String,
    text: String,
    dialect: Dialect,
    expect: Json,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/language.jsonl");
    let lines = std::fs::read_to_string(&path).expect("golden cases");
    let mut cases = Vec::new();
    for line in lines.lines() {
        let case: Json = serde_json::from_str(line).expect("JSON");
        let field = |name: &str| case[name].as_str().unwrap_or_default();
        // Other requests have other values.
        let plain = case["request"].is_null() || field("area") == "stm.foreach";
        if !AREAS.contains(&field("area")) || !plain {
            continue;
        }
        let other = OTHERS.iter().any(|o| field("id").starts_with(o));
        let text = placeholders(&format!(
            "{}\nroute {{ {} }}\n{}\n",
            field("globals"),
            field("body"),
            field("routes")
        ));
        let mut add = |dialect, expect: &Json| {
            let id = field("id").to_string();
            cases.push(Case { id, text: text.clone(), dialect, expect: expect.clone() });
        };
        if matches!(field("dialect"), "4.1" | "both") && (!other || !case["expect_2.1"].is_null()) {
            add(Dialect::V4, &case["expect"]);
        }
        if matches!(field("dialect"), "2.1" | "both") && !other {
            let other = &case["expect_2.1"];
            add(Dialect::V21, if other.is_null() { &case["expect"] } else { other });
        }
    }
    cases
}

/// All texts, for tests that break them.
pub fn texts() -> Vec<String> {
    cases().into_iter().map(|c| c.text).collect()
}

/// What a case shows: headers by name as the golden file has them, log, and whether it replied.
type Shown = (Vec<(String, Vec<String>)>, Vec<String>, bool);

fn outcome(world: &World) -> Shown {
    let mut headers: Vec<(String, Vec<String>)> = Vec::new();
    for line in world.headers.iter().filter(|_| world.replied) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim().to_string();
        match headers.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => values.push(value),
            None => headers.push((name.to_string(), vec![value])),
        }
    }
    headers.sort();
    let log = world.log.iter().filter_map(|l| l.strip_prefix("GOLD:")).map(str::to_string).collect();
    (headers, log, world.replied)
}

fn expected(expect: &Json) -> Shown {
    let strings = |list: &Json| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|s| Some(s.as_str()?.to_string())).collect()
    };
    let mut headers: Vec<(String, Vec<String>)> = Vec::new();
    if let Some(map) = expect["reply"]["headers"].as_object() {
        let ours = map.iter().filter(|(name, _)| name.starts_with("X-"));
        headers = ours.map(|(name, values)| (name.clone(), strings(values))).collect();
    }
    headers.sort();
    (headers, strings(&expect["log"]), !expect["reply"].is_null())
}

#[test]
fn language() {
    let (mut run, mut skipped, mut failed) = (0, Vec::new(), Vec::new());
    for case in cases() {
        let program = match load(&case.text, case.dialect) {
            Err(_) if case.expect["refused"] == true => {
                run += 1;
                continue;
            }
            Err(problems) if problems.iter().any(|p| p.message.starts_with(UNSUPPORTED)) => {
                skipped.push(case.id);
                continue;
            }
            Err(problems) => {
                failed.push(format!("{} {:?}: refused: {}", case.id, case.dialect, problems[0].message));
                continue;
            }
            Ok(_) if case.expect["refused"] == true => {
                failed.push(format!("{} {:?}: not refused", case.id, case.dialect));
                continue;
            }
            Ok(program) => program,
        };
        let Some(main) = program.route(RouteKind::Request, None) else {
            failed.push(format!("{}: no main route", case.id));
            continue;
        };
        run += 1;
        for (waiting, fuel) in
            [(Waiting::Never, 1_000_000), (Waiting::Always, 1_000_000), (Waiting::Never, 1)]
        {
            let mut world = World::new(&program, main, waiting);
            world.finish(fuel);
            let (got, want) = (outcome(&world), expected(&case.expect));
            if got != want {
                let id = &case.id;
                let dialect = case.dialect;
                failed.push(format!(
                    "{id} {dialect:?} {waiting:?} fuel {fuel}:\n  got  {got:?}\n  want {want:?}"
                ));
                break;
            }
        }
    }
    println!("{run} run, {} not supported by the mock: {}", skipped.len(), skipped.join(" "));
    assert!(failed.is_empty(), "{} of {run} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(run >= AT_LEAST, "only {run} cases were run");
}
