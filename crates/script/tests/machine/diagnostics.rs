//! What the compiler refuses, with its hints.

use crate::mock::load;
use script::ast::Dialect;

/// Every problem as "line of what is underlined | message | hint".
fn check(text: &str, want: &[&str]) {
    let problems = match load(text, Dialect::V4) {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    };
    let got: Vec<String> = problems
        .iter()
        .map(|p| {
            let at = text.get(p.loc.start as usize..p.loc.end as usize).unwrap_or("?");
            let hint = p.hint.as_deref().map_or(String::new(), |h| format!(" | {h}"));
            format!("{at} | {}{hint}", p.message)
        })
        .collect();
    assert_eq!(got, want, "{text}");
}

#[test]
fn routes() {
    check(
        "route { route(relya); } route[relay] { }",
        &["relya | no route named `relya` | did you mean `relay`?"],
    );
    check(
        "route { async(wait(1), resum_it, 5); } route[resume_it] { }",
        &["resum_it | no route named `resum_it` | did you mean `resume_it`?"],
    );
    check(
        "route { launch(wait(1), f); } failure_route[f] { }",
        &["f | no route named `f` | failure_route[f] exists, but only a plain route[f] can be run here"],
    );
    check("route { route(zzz); route(yyy); }", &["zzz | no route named `zzz`", "yyy | no route named `yyy`"]);
    check("route { route(R); } route[r] { }", &["R | no route named `R` | did you mean `r`?"]);
}

#[test]
fn expressions() {
    check(
        "route { if ($rm =~ \"[a\") exit; }",
        &["\"[a\" | not a regular expression: unmatched [ in the pattern"],
    );
    check(
        "route { if ($rm =~ \"a(?=b)\") exit; }",
        &["\"a(?=b)\" | not a regular expression: nothing to repeat before ?"],
    );
    check("route { $rm = 1; $ru = 2; }", &["$rm | $rm cannot be assigned", "$ru | $ru cannot be assigned"]);
}

/// Long chains are no deep trees.
#[test]
fn long_chains() {
    let many = |what: &str, between: &str| vec![what; 400].join(between);
    check(&format!("route {{ if ({}) exit; }}", many("$rm == \"A\"", " || ")), &[]);
    check(&format!("route {{ $var(x) = {}; }}", many("1", " + ")), &[]);
    check(&format!("route {{ {} }}", many("if ($rm == \"A\") exit;", " else ")), &[]);
}
