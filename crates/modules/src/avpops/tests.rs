use crate::testing::{Folder, Ran, refused, run};
use script::ast::Dialect;

const MODULES: &str = "loadmodule \"avpops.so\"\n";

fn script(body: &str) -> Ran {
    let before = "$avp(d) = \"one\"; $avp(d) = \"two\"; $avp(d) = \"three\"; $avp(n) = 5; $avp(n) = 7;";
    run(MODULES, &format!("{before}{body}"), Dialect::V21)
}

/// What `$avp(name)` holds afterwards, newest first.
fn check(body: &str, name: &str, expected: &[&str]) {
    assert_eq!(script(body).avps(name), expected, "{body}");
}

/// Whether a function is true.
fn holds(call: &str, expected: bool) {
    let ran = script(&format!("if ({call}) $avp(r) = \"true\"; else $avp(r) = \"false\";"));
    assert_eq!(ran.avps("r"), [if expected { "true" } else { "false" }], "{call}");
}

#[test]
fn comparisons() {
    for (call, expected) in [
        (r#"avp_check("$avp(d)", "eq/s:three")"#, true),
        (r#"avp_check("$avp(d)", "eq/one")"#, false),
        (r#"avp_check("$avp(d)", "eq/one/g")"#, true),
        (r#"avp_check("$avp(d)", "eq/THREE")"#, false),
        (r#"avp_check("$avp(d)", "eq/THREE/i")"#, true),
        (r#"avp_check("$avp(d)", "ne/three")"#, false),
        (r#"avp_check("$avp(d)", "lt/THREES")"#, true),
        (r#"avp_check("$avp(d)", "ge/three")"#, true),
        (r#"avp_check("$avp(d)", "re/^TH")"#, true),
        (r#"avp_check("$avp(d)", "fm/th*")"#, true),
        (r#"avp_check("$avp(n)", "gt/i:6")"#, true),
        (r#"avp_check("$avp(n)", "eq/i:0x7")"#, true),
        (r#"avp_check("$avp(n)", "lt/i:6")"#, false),
        (r#"avp_check("$avp(n)", "lt/i:6/g")"#, true),
        (r#"avp_check("$avp(n)", "eq/7")"#, false),
        (r#"avp_check("$avp(n)", "and/i:8")"#, false),
        (r#"avp_check("$avp(n)", "xor/i:7")"#, false),
        (r#"avp_check("$avp(n)", "or/i:0")"#, true),
        (r#"avp_check("$avp(n)", "gt/$avp(n)")"#, true),
        (r#"avp_check("$avp(zz)", "ne/x")"#, false),
        (r#"avp_check("$rm", "eq/options/I")"#, true),
        (r#"is_avp_set("$avp(d)/s")"#, true),
        (r#"is_avp_set("$avp(n)/s")"#, false),
        (r#"is_avp_set("$avp(n)/n")"#, true),
        (r#"is_avp_set("$(avp(d)[2])")"#, true),
        (r#"is_avp_set("$(avp(d)[3])")"#, false),
        (r#"is_avp_set("$avp(d)/e")"#, false),
        (r#"avp_delete("$avp(zz)")"#, false),
        (r#"avp_delete("s")"#, false),
        (r#"avp_delete("a3")"#, true),
        (r#"avp_subst("$avp(d)", "/x/y/")"#, false),
        (r#"avp_subst("$avp(n)", "/5/6/")"#, false),
        (r#"avp_op("$avp(d)", "add/i:1")"#, false),
        (r#"avp_copy("$avp(d)", "$avp(x)/n")"#, false),
    ] {
        holds(call, expected);
    }
}

#[test]
fn changes() {
    check(r#"avp_copy("$avp(d)", "$avp(e)/g");"#, "e", &["one", "two", "three"]);
    check(r#"avp_copy("$avp(d)", "$avp(e)");"#, "e", &["three"]);
    check(r#"avp_copy("$avp(d)", "$avp(e)/gd");"#, "d", &[]);
    check(r#"avp_copy("$avp(d)", "$avp(d)/gd");"#, "d", &["one", "two", "three"]);
    check(r#"avp_delete("$avp(d)");"#, "d", &["two", "one"]);
    check(r#"$var(x) = "d"; avp_delete("$avp($var(x))/g");"#, "d", &[]);
    check(r#"avp_insert("$avp(d)", "$avp(n)", "1");"#, "d", &["three", "7", "two", "one"]);
    check(r#"avp_insert("$avp(d)", "text", "9");"#, "d", &["three", "two", "one", "text"]);
    check(r#"avp_op("$avp(n)", "add/i:3");"#, "n", &["8", "10", "7", "5"]);
    check(r#"avp_op("$avp(n)", "mul/i:2/d");"#, "n", &["10", "14"]);
    check(r#"avp_op("$avp(n)/$avp(m)", "sub/$avp(n)");"#, "m", &["-7", "-2", "-5", "0"]);
    check(r#"avp_op("$avp(n)", "div/i:0/d");"#, "n", &["0", "0"]);
    check(r#"avp_op("$avp(d)/$avp(m)", "not/i:0");"#, "m", &["-1"]);
    check(r#"avp_subst("$avp(d)", "/e/E/g");"#, "d", &["thrEE", "two", "one"]);
    check(r#"avp_subst("$avp(d)/g", "/(.)$/<\1>/");"#, "d", &["on<e>", "tw<o>", "thre<e>"]);
    check(r#"avp_subst("$avp(d)/$avp(z)", "/(t)(h)/\2$avp(n)\1/");"#, "z", &["h7tree"]);
    check(r#"avp_subst("$avp(d)/$avp(z)/gd", "/o/0/");"#, "d", &["three"]);
    check(r#"avp_subst("$avp(d)/$avp(z)/gd", "/o/0/");"#, "z", &["0ne", "tw0"]);
    let mut shuffled = script(r#"avp_shuffle("$avp(d)");"#).avps("d");
    shuffled.sort();
    assert_eq!(shuffled, ["one", "three", "two"]);
}

#[test]
fn values_go_into_the_request() {
    let uri = |body: &str| String::from_utf8_lossy(&script(body).state.current_uri()).into_owned();
    assert_eq!(uri(r#"avp_pushto("$ru/username", "$avp(d)");"#), "sip:three@kamailio.invalid");
    assert_eq!(uri(r#"avp_pushto("$ru/domain", "$avp(d)");"#), "sip:you@three");
    let body = r#"$avp(u) = "sip:a@b"; $avp(u) = "sip:c@d"; avp_pushto("$ru", "$avp(u)/g"); avp_pushto("$br", "$avp(u)");
                  avp_pushto("$du", "$avp(u)");"#;
    let state = script(body).state;
    assert_eq!(&state.current_uri()[..], b"sip:a@b");
    assert_eq!(state.dst_uri.as_deref(), Some(&b"sip:c@d"[..]));
    let branches: Vec<_> = state.branches.iter().map(|b| b.uri.clone()).collect();
    assert_eq!(branches, ["sip:c@d", "sip:c@d"]);
    holds(r#"avp_pushto("$du", "$avp(n)")"#, false);
}

#[test]
fn databases() {
    let folder = Folder::new("avpops");
    let config = format!(
        "{MODULES}loadmodule \"db_sqlite.so\"\nmodparam(\"avpops\", \"db_url\", \"sqlite://{}\")\n\
         modparam(\"avpops\", \"avp_table\", \"usr_preferences\")\nmodparam(\"avpops\", \"use_domain\", 1)\n",
        folder.0.join("a.db").display()
    );
    let body = r#"avp_db_query("create table usr_preferences (uuid text, username text, domain text, attribute text, type int, value text)");
        $avp(a) = "x"; $avp(a) = "y"; $avp(b) = 3;
        avp_db_store("sip:bob@home/uri", "$avp(a)");
        avp_db_store("sip:bob@home/uri", "a");
        avp_delete("a");
        avp_db_load("sip:bob@home/uri", "a", "", "p_"); $avp(r) = $rc;
        avp_db_load("sip:bob@home/uri", "$avp(b)"); $avp(b) = $avp(b) + 1;
        avp_db_delete("sip:bob@home/username", "$avp(a)");
        avp_db_query("select uuid || username || domain || attribute || value || type, null from usr_preferences", "$avp(rows); $avp(nothing)");
        avp_db_query("select 1 where 0"); $avp(r) = $rc;
        avp_db_query("select", "$avp(x)", "0"); $avp(r) = $rc;"#;
    let ran = run(&config, body, Dialect::V21);
    assert_eq!(ran.avps("r"), ["-1", "-2", "1"]);
    assert_eq!(ran.avps("p_a"), ["x", "y"]);
    assert_eq!(ran.avps("b"), ["4", "3"]);
    assert_eq!(ran.avps("rows"), ["bobhomeb33"]);
    assert_eq!(ran.avps("nothing"), ["<null>"]);
}

#[test]
fn mistakes_are_found_when_the_script_is_loaded() {
    for (body, says) in [
        (r#"avp_op("$avp(n)", "add/3");"#, "must be a number"),
        (r#"avp_check("$avp(n)", "about/i:3");"#, "no operation"),
        (r#"avp_check("$avp(n)", "xx/i:3");"#, "no comparison"),
        (r#"avp_check("$avp(n)", "eq/x:3");"#, "unknown type"),
        (r#"avp_check("$avp(n)", "eq/3/x");"#, "unknown flag `x`"),
        (r#"avp_check("$avp(n)", "re/$avp(x)");"#, "must be a text"),
        (r#"avp_copy("$ru", "$avp(n)");"#, "must be an AVP"),
        (r#"avp_delete("nonsense");"#, "is no AVP"),
        (r#"avp_pushto("$hdr(X)", "$avp(n)");"#, "append_hf"),
        (r#"avp_subst("$avp(n)", "/a/b");"#, "third separator"),
        (r#"avp_insert("$avp(n)", "x", "y");"#, "the index must be a number"),
        (r#"is_avp_set("$avp(n)/sn");"#, "exclude each other"),
        (r#"avp_db_query("select 1");"#, "there is no database number 0"),
    ] {
        let error = refused(MODULES, body, Dialect::V21);
        assert!(error.contains(says), "{body}: {error}");
    }
}
