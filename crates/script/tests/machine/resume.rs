//! Suspension: in the middle of whatever it stands in, and `async` and `launch`.

use crate::mock::{Mock, Waiting, World, load, loaded};
use script::ast::{Dialect, RouteKind};
use script::{End, Host, Program, RouteId, Step, Task, Value};
use std::sync::Arc;

fn start(text: &str) -> (Arc<Program<Mock>>, World) {
    let program = loaded(text);
    let main = program.route(RouteKind::Request, None).expect("main route");
    let world = World::new(&program, main, Waiting::Asked);
    (program, world)
}

/// Runs the text and compares its log and end; `wait(n)` suspends and returns n.
fn check(text: &str, want: &[&str], end: End) {
    let (_, mut world) = start(text);
    let (got, _) = world.finish(1_000_000);
    assert_eq!((world.log.as_slice(), got), (want.map(str::to_string).as_slice(), end), "{text}");
}

trait MapText {
    fn map<T>(&self, f: impl Fn(&str) -> T) -> Vec<T>;
}
impl MapText for &[&str] {
    fn map<T>(&self, f: impl Fn(&str) -> T) -> Vec<T> {
        self.iter().map(|t| f(t)).collect()
    }
}

#[test]
fn everything_is_kept() {
    check(r#"route { $var(a) = 1; wait(5); xlog("$var(a) $rc"); }"#, &["1 5"], End::Return(1));
    check(
        r#"route { if (!wait(-1) && (wait(2) || wait(3))) xlog("yes $rc"); else xlog("no"); }"#,
        &["yes 2"],
        End::Return(1),
    );
    check(r#"route { $var(x) = 10 + (2 * wait(4)) - 1; xlog("$var(x)"); }"#, &["17"], End::Return(1));
    check(
        r#"route { $var(i) = 0; while (wait(1) && $var(i) < 3) { $var(i) = $var(i) + 1; wait(7); xlog("$var(i) $rc"); } }"#,
        &["1 7", "2 7", "3 7"],
        End::Return(1),
    );
    check(
        r#"route { $avp(l) = 1; $avp(l) = 2; for ($var(x) in $(avp(l)[*])) { wait(1); xlog("$var(x)"); } }"#,
        &["2", "1"],
        End::Return(1),
    );
    check(
        r#"route { $var(r) = "b"; switch ($var(r)) { case "a": xlog("a"); break; case "b": wait(1); xlog("b"); default: xlog("d"); } xlog("end"); }"#,
        &["b", "d", "end"],
        End::Return(1),
    );
    check(
        r#"route { route(a, "p", 3); xlog("$rc $return(0)"); }
           route[a] { route(b, $param(2)); wait(1); xlog("$param(1)$param(2) $route"); return(9, "v"); }
           route[b] { wait(1); xlog("$param(1) $route"); }"#,
        &["3 route[b]", "p3 route[a]", "9 v"],
        End::Return(1),
    );
}

#[test]
fn a_result_of_zero_ends_the_script() {
    check(r#"route { wait(0); xlog("not reached"); }"#, &[], End::Exit);
    check(r#"route { if (wait(0)) xlog("a"); else xlog("b"); }"#, &[], End::Exit);
    check(r#"route { route(a); xlog("no"); } route[a] { wait(0); xlog("no"); }"#, &[], End::Exit);
    check(r#"route { result(0); xlog("no"); }"#, &[], End::Exit);
}

#[test]
fn async_goes_on_in_its_route() {
    check(
        r#"route { $var(a) = 1; async(wait(5), on); xlog("never"); }
           route[on] { xlog("$var(a) $rc $route"); }"#,
        &["1 5 route[on]"],
        End::Return(1),
    );
    // Finished at once.
    check(
        r#"route { async(result(-3), on); xlog("never"); } route[on] { xlog("$rc"); return(4); }"#,
        &["-3"],
        End::Return(4),
    );
    // In a nested route: the routes around it are gone.
    check(
        r#"route { route(a, 1); xlog("never"); } route[a] { route(b); xlog("never"); }
           route[b] { if (1) { async(wait(2), on); } xlog("never"); }
           route[on] { xlog("$rc <$param(1)>"); }"#,
        &["2 <<null>>"],
        End::Return(1),
    );
    // In a loop, in a condition, chained, and with a result of 0.
    check(
        r#"route { while (1) { async(wait(1), two); } } route[two] { xlog("two"); async(wait(0), three); }
           route[three] { xlog("three $rc"); exit; }"#,
        &["two", "three 0"],
        End::Exit,
    );
    check(
        r#"route { if (!async(wait(-1), on)) xlog("never"); } route[on] { xlog("$rc"); }"#,
        &["-1"],
        End::Return(1),
    );
}

#[test]
fn async_deadlines_are_milliseconds() {
    let (_, mut world) =
        start("route { async(wait(1), on, 5); } route[on] { async(wait(1), off); } route[off] { }");
    world.finish(1000);
    assert_eq!(world.limits, [5000]);
}

#[test]
fn launch_goes_on_beside() {
    let (program, mut world) = start(
        r#"route { $var(x) = "v"; launch(wait(1), report, "<$var(x)> $rm"); launch(wait(2)); xlog("on $rc"); }
           route[report] { xlog("$rc $param(1)"); }"#,
    );
    world.finish(1000);
    assert_eq!(world.log, ["on 1"]);
    let report = program.route(RouteKind::Request, Some(b"report"));
    let launched: Vec<_> = world.launched.iter().map(|(f, r, p)| (f.as_str(), *r, p.to_text())).collect();
    assert_eq!(launched, [("wait(1)", report, "<v> INVITE".into()), ("wait(2)", None, "<null>".into())]);

    let mut world = World::new(&program, report.expect("declared"), Waiting::Never);
    world.task = Task::with_params(program.clone(), report.expect("declared"), vec![Value::from("text")]);
    world.task.resume(-2);
    world.finish(1000);
    assert_eq!(world.log, ["-2 text"]);
}

#[test]
fn a_suspended_task_knows_where_it_stands() {
    let text = "route {\n  $var(x) = 1;\n  route(a);\n}\nroute[a] {\n  if (wait(1))\n    xlog(\"x\");\n}\n";
    let (program, mut world) = start(text);
    let Step::Suspended(rc) = script::run(&mut world, 1000) else { panic!("it waits") };
    let loc = world.task.loc();
    assert!(text[loc.start as usize..].starts_with("if (wait(1))"), "{loc:?}");
    let names: Vec<_> = world.task.routes().iter().map(|r| program.route_name(*r)).collect();
    assert_eq!(names, ["", "a"]);
    assert!(world.task.bytes() < 400, "{}", world.task.bytes());
    world.task().resume(rc);
    assert!(matches!(script::run(&mut world, 1000), Step::Done(End::Return(1))));
}

#[test]
fn the_program_outlives_a_reload() {
    let (program, mut world) = start(r#"route { wait(1); xlog("old"); }"#);
    assert!(matches!(script::run(&mut world, 1000), Step::Suspended(1)));
    drop(program);
    world.task.resume(1);
    world.finish(1000);
    assert_eq!(world.log, ["old"]);
}

#[test]
fn error_route_takes_over() {
    let text = |global: &str| {
        format!(
            "{global} route {{ assert($rm == \"BYE\", \"no BYE\"); xlog(\"on\"); }} error_route {{ xlog(\"error\"); }}"
        )
    };
    check(&text("enable_asserts=1\n"), &["error"], End::Return(1));
    check(&text(""), &["on"], End::Return(1));

    let (_, mut world) = start(r#"route { $var(x) = 1; xlog("on"); } error_route { xlog("error"); }"#);
    world.task.raise_error();
    world.finish(1000);
    assert_eq!(world.log, ["error"]);
    let (_, mut world) = start(r#"route { $var(x) = 1; xlog("on"); }"#);
    world.task.raise_error();
    world.finish(1000);
    assert_eq!(world.log, ["on"]);
}

/// In 2.1 a parameter that is a variable is read when it is used; `$param` itself is the caller's.
#[test]
fn late_parameters() {
    let text = r#"route { $var(x) = 1; route(a, $var(x), "t"); }
        route[a] { $var(x) = 2; route(b, $param(1)); xlog("$param(1)$param(2)"); }
        route[b] { $var(x) = 3; xlog("$param(1)"); }"#;
    for (dialect, want) in [(Dialect::V4, ["1", "1t"]), (Dialect::V21, ["2", "3t"])] {
        let program = load(text, dialect).expect("right");
        let mut world = World::new(&program, RouteId(0), Waiting::Always);
        world.finish(1000);
        assert_eq!(world.log, want, "{dialect:?}");
    }
}

/// What the machine says of `$rc` (the manual's and the golden cases' rules side by side).
#[test]
fn return_codes() {
    let rc = |body: &str, want: &str| {
        check(
            &format!("route {{ {body} xlog(\"$rc\"); }} route[r] {{ result(-4); }} route[e] {{ }}"),
            &[want],
            End::Return(1),
        );
    };
    rc("", "0");
    rc("$var(x) = 5;", "1");
    rc("$var(x) = 5 + \"n\";", "-1");
    rc("result(-7);", "-7");
    rc("result(3); if ($rm == \"BYE\") result(9);", "0");
    rc("if ($rm == \"BYE\") result(9); else if ($rm == \"ACK\") result(8);", "1");
    rc("if ($rm == \"INVITE\") result(9);", "9");
    rc("if ($rm == \"INVITE\") { if ($rm == \"BYE\") result(2); }", "1");
    rc("if ($rU == 5) result(2);", "-1");
    rc("if (1) { }", "1");
    rc("if (result(-2)) { }", "0");
    rc("route(r);", "-4");
    rc("route(e);", "1");
    rc("$var(n) = \"none\"; route($var(n));", "1");
    rc("while ($rm == \"BYE\") { result(5); }", "1");
    rc("switch ($rm) { case \"INVITE\": result(6); break; }", "-5");
    rc("switch ($rm) { case \"BYE\": result(6); break; }", "1");
}

/// A comparison that makes no sense is neither true nor false: `!` does not turn it round.
#[test]
fn neither_true_nor_false() {
    let test = |condition: &str, want: &str| {
        check(
            &format!("route {{ if ({condition}) xlog(\"yes\"); else xlog(\"no\"); }}"),
            &[want],
            End::Return(1),
        );
    };
    test("$rU == 5", "no");
    test("!($rU == 5)", "no");
    test("!($rU == 5) || $rm == \"INVITE\"", "yes");
    test("!($rU == \"x\")", "yes");
    test("[ 1 + \"x\" ]", "no");
    test("![ 1 + \"x\" ]", "yes");
    test("$rU =~ $var(none)", "no");
}

#[test]
fn limits() {
    let (_, mut world) = start(
        "max_while_loops=3\nroute { $var(i) = 0; while (1) { $var(i) = $var(i) + 1; } xlog(\"$var(i)\"); }",
    );
    world.finish(1_000_000);
    assert_eq!(world.log, ["3"]);
    assert_eq!(world.complaints.len(), 1);

    let (_, mut world) = start(
        "route { $var(n) = 0; route(a); xlog(\"$var(n) $rc\"); } route[a] { $var(n) = $var(n) + 1; route(a, 1, 2); }",
    );
    let (end, _) = world.finish(1_000_000);
    assert_eq!((world.log, end), (vec!["99 -1".to_string()], End::Return(1)));
}

/// Anything that is no route, and a program without any, ends at once.
#[test]
fn nothing_to_run() {
    let empty = Arc::new(Program::<Mock>::empty());
    for route in [RouteId(0), RouteId(u16::MAX)] {
        let mut world = World::new(&empty, route, Waiting::Never);
        assert_eq!(world.finish(10).0, End::Return(1));
    }
    assert_eq!(empty.route(RouteKind::Request, None), None);
    assert_eq!(empty.route_name(RouteId(3)), "");
}
