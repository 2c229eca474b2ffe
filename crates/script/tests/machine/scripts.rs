//! Made-up scripts: running them with one instruction at a time, and with every call suspending, gives
//! what running them at once gives.

use crate::mock::{Waiting, World, load};
use proptest::prelude::*;
use script::ast::{Dialect, RouteKind};
use script::{End, Value};
use std::collections::BTreeMap;

fn variable() -> impl Strategy<Value = String> {
    prop_oneof![(0..4).prop_map(|n| format!("$var(v{n})")), (0..2).prop_map(|n| format!("$avp(a{n})"))]
}

/// Return codes; 0 would end most scripts early.
fn nonzero() -> impl Strategy<Value = i32> {
    prop_oneof![20 => 1..5i32, 10 => -3..0i32, 1 => Just(0)]
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![(-3..8i32).prop_map(|n| n.to_string()), "[a-c5]{0,2}".prop_map(|t| format!("\"{t}\""))]
}

fn value() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        variable(),
        literal(),
        Just("$rc".to_string()),
        Just("$param(1)".to_string()),
        nonzero().prop_map(|n| format!("result({n})")),
        (1..4).prop_map(|n| format!("wait({n})")),
        (0..3).prop_map(|n| format!("route(r{n}, $var(v0))")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let op = prop::sample::select(vec!["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]);
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.prop_map(|a| format!("~({a})")),
        ]
    })
    .boxed()
}

fn condition() -> BoxedStrategy<String> {
    let cmp = prop::sample::select(vec!["==", "!=", "<", ">", "<=", ">="]);
    let leaf = prop_oneof![
        (variable(), cmp, prop_oneof![variable(), literal()]).prop_map(|(a, c, b)| format!("{a} {c} {b}")),
        variable(),
        (variable(), prop::sample::select(vec!["==", "!="])).prop_map(|(a, c)| format!("{a} {c} NULL")),
        (variable(), prop::sample::select(vec!["=~", "!~"]), "[a-c5]{0,2}[$]?")
            .prop_map(|(a, c, p)| format!("{a} {c} \"{p}\"")),
        value().prop_map(|v| format!("[ {v} ]")),
        nonzero().prop_map(|n| format!("wait({n})")),
        (0..3).prop_map(|n| format!("route(r{n})")),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} || {b}")),
            inner.clone().prop_map(|a| format!("!({a})")),
            inner.prop_map(|a| format!("({a})")),
        ]
    })
    .boxed()
}

fn statement(depth: u32) -> BoxedStrategy<String> {
    let op = prop::sample::select(vec!["=", "=", "=", ":=", "+=", "-=", "*=", "|="]);
    let leaf = prop_oneof![
        4 => (variable(), op, value()).prop_map(|(v, op, x)| format!("{v} {op} {x};")),
        2 => Just("xlog(\"$rc $var(v0) $var(v1) $avp(a0) $param(1) $return(0)\");".to_string()),
        2 => nonzero().prop_map(|n| format!("wait({n});")),
        1 => (0..4, value_arg()).prop_map(|(n, v)| format!("route(r{}, {v});", n % 3)),
        1 => Just("route($var(v3));".to_string()),
        1 => nonzero().prop_map(|n| format!("if ($param(1) == {n}) return({n});")),
        1 => variable().prop_map(|v| format!("if ($param(1)) return({v}, \"x\", {v});")),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        4 => leaf,
        2 => (condition(), block(depth - 1)).prop_map(|(c, b)| format!("if ({c}) {{ {b} }}")),
        2 => (condition(), block(depth - 1), block(depth - 1))
            .prop_map(|(c, a, b)| format!("if ({c}) {{ {a} }} else {{ {b} }}")),
        1 => (condition(), block(depth - 1)).prop_map(|(c, b)| format!("while ({c}) {{ {b} break; }}")),
        1 => (condition(), block(depth - 1)).prop_map(|(c, b)| format!("while ({c}) {{ {b} }}")),
        1 => block(depth - 1).prop_map(|b| format!("for ($var(v1) in $(avp(a0)[*])) {{ {b} }}")),
        1 => (variable(), block(depth - 1), block(depth - 1)).prop_map(|(v, a, b)| {
            format!("switch ({v}) {{ case 1: {a} break; case \"a\": case 5: {b} default: xlog(\"d\"); }}")
        }),
    ]
    .boxed()
}

fn value_arg() -> impl Strategy<Value = String> {
    prop_oneof![variable(), literal()]
}

fn block(depth: u32) -> BoxedStrategy<String> {
    prop::collection::vec(statement(depth), 0..4).prop_map(|s| s.join(" ")).boxed()
}

fn script() -> impl Strategy<Value = String> {
    (prop::collection::vec(statement(2), 3..10), block(1), block(1), block(1), any::<bool>()).prop_map(
        |(main, a, b, c, resumes)| {
            let asynchronous = if resumes { "async(wait(2), r2);" } else { "" };
            format!(
                "max_while_loops=4\nroute {{ {} }}\nroute[r0] {{ {a} }}\nroute[r1] {{ {b} {asynchronous} }}\nroute[r2] {{ {c} }}",
                main.join("\n")
            )
        },
    )
}

type Outcome = (End, Vec<String>, BTreeMap<Vec<u8>, Value>, i64);

/// Routes that call each other may take long; then there is nothing to compare.
const MOST: u32 = 20_000;

/// `None`: it takes more than `most` instructions.
fn outcome(text: &str, dialect: Dialect, waiting: Waiting, fuel: u32, most: u32) -> Option<Outcome> {
    let program = load(text, dialect).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    let main = program.route(RouteKind::Request, None).expect("main route");
    let mut world = World::new(&program, main, waiting);
    let mut used = 0;
    while used < most {
        match script::run(&mut world, fuel) {
            script::Step::Done(end) => {
                let locals = world.locals.iter().map(|(k, v)| (k.to_vec(), v.clone())).collect();
                return Some((end, world.log, locals, world.task.rc));
            }
            script::Step::Suspended(rc) => world.task.resume(rc),
            script::Step::OutOfFuel => used += fuel,
        }
    }
    None
}

fn config(cases: u32) -> ProptestConfig {
    let rng_seed = proptest::test_runner::RngSeed::Fixed(20_260_101);
    ProptestConfig { cases, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

/// Pieces that scripts are made of, to be put where they do not belong.
const PIECES: [&str; 18] = [
    "{",
    "}",
    "(",
    ")",
    ";",
    "break;",
    "continue;",
    "return(0, 1);",
    "route(r);",
    "async(wait(1), r);",
    "[*]",
    "NULL",
    "while (1)",
    "$param(99)",
    "else",
    "default:",
    "<<",
    "-2147483648",
];

/// A golden text with pieces put in and bytes taken out.
fn broken() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), prop::sample::select(PIECES.to_vec()), 0..6usize);
    (prop::sample::select(crate::golden::texts()), prop::collection::vec(edit, 1..5)).prop_map(
        |(text, edits)| {
            let mut text = text.into_bytes();
            for (at, piece, cut) in edits {
                let at = at.index(text.len() + 1);
                let end = (at + cut).min(text.len());
                text.splice(at..end, piece.bytes());
            }
            String::from_utf8_lossy(&text).into_owned()
        },
    )
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn broken_scripts_are_refused_or_run(text in broken(), old in any::<bool>()) {
        let dialect = if old { Dialect::V21 } else { Dialect::V4 };
        if let Ok(program) = load(&text, dialect) {
            for route in program.routes() {
                let mut world = World::new(&program, route, Waiting::Always);
                for _ in 0..1000 {
                    match script::run(&mut world, 20) {
                        script::Step::Done(_) => break,
                        script::Step::Suspended(rc) => world.task.resume(rc),
                        script::Step::OutOfFuel => {}
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn pauses_change_nothing(text in script(), old in any::<bool>()) {
        let dialect = if old { Dialect::V21 } else { Dialect::V4 };
        if let Some(at_once) = outcome(&text, dialect, Waiting::Never, MOST, MOST) {
            for (waiting, fuel) in [(Waiting::Never, 1), (Waiting::Always, MOST), (Waiting::Always, 3)] {
                let got = outcome(&text, dialect, waiting, fuel, MOST + 3);
                prop_assert_eq!(got.as_ref(), Some(&at_once), "{:?}, fuel {}\n{}", waiting, fuel, &text);
            }
        }
    }
}
