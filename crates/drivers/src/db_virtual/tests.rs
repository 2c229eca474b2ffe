use crate::testing::{Folder, Ran, refused, run};
use script::ast::Dialect;

fn config(folder: &Folder, mode: &str) -> String {
    let path = |name: &str| folder.0.join(name).display().to_string();
    format!(
        "loadmodule \"sqlops.so\"\nloadmodule \"db_virtual.so\"\nloadmodule \"db_sqlite.so\"\n\
         modparam(\"db_virtual\", \"db_urls\", \"define one {mode}\")\n\
         modparam(\"db_virtual\", \"db_urls\", \"sqlite://{}\")\n\
         modparam(\"db_virtual\", \"db_urls\", \"sqlite://{}\")\n\
         modparam(\"sqlops\", \"db_url\", \"virtual://one\")\n\
         modparam(\"sqlops\", \"db_url\", \"1 sqlite://{0}\")\nmodparam(\"sqlops\", \"db_url\", \"2 sqlite://{1}\")\n",
        path("a.db"),
        path("b.db"),
    )
}

/// A file of the set cannot be opened: a folder is in its place.
fn block(folder: &Folder, name: &str) {
    std::fs::create_dir(folder.0.join(name)).expect("a folder");
}

fn ran(folder: &Folder, mode: &str, body: &str) -> Ran {
    run(&config(folder, mode), body, Dialect::V4)
}

#[test]
fn failover_goes_on_with_the_next() {
    let folder = Folder::new("virtual-failover");
    block(&folder, "a.db");
    let body = r#"sql_query("create table t (a int)"); $var(x) = sql_query("insert into t values (5)");
        $avp(r) = $var(x); sql_query("select a from t", "$avp(v)"); sql_query("select a from t", "$avp(v)", 2);
        $var(x) = sql_query("select nonsense"); $avp(r) = $var(x);"#;
    let ran = ran(&folder, "FAILOVER", body);
    assert_eq!(ran.avps("v"), ["5", "5"]);
    assert_eq!(ran.avps("r"), ["-1", "-2"]);
}

#[test]
fn parallel_writes_go_to_all() {
    let folder = Folder::new("virtual-parallel");
    let body = r#"sql_query("create table t (a int)"); sql_query("insert into t values (5)");
        sql_query("select a from t", "$avp(v)", 1); sql_query("select a from t", "$avp(v)", 2);
        sql_query("select a from t", "$avp(v)");"#;
    assert_eq!(ran(&folder, "PARALLEL", body).avps("v"), ["5", "5", "5"]);
    let folder = Folder::new("virtual-parallel-half");
    block(&folder, "b.db");
    assert_eq!(ran(&folder, "PARALLEL", body).avps("v"), ["5", "5"], "one of two is enough");
}

#[test]
fn round_takes_turns() {
    let folder = Folder::new("virtual-round");
    let body = r#"sql_query("create table t (a int)", , 1); sql_query("create table t (a int)", , 2);
        sql_query("insert into t values (1)"); sql_query("insert into t values (2)"); sql_query("insert into t values (3)");
        sql_query("select count(*) from t", "$avp(v)", 1); sql_query("select count(*) from t", "$avp(v)", 2);"#;
    assert_eq!(ran(&folder, "ROUND", body).avps("v"), ["1", "2"]);
}

#[test]
fn all_down_is_an_error() {
    let folder = Folder::new("virtual-down");
    block(&folder, "a.db");
    block(&folder, "b.db");
    for mode in ["FAILOVER", "PARALLEL", "ROUND"] {
        let ran =
            ran(&folder, mode, r#"$var(x) = sql_query("insert into t values (1)"); $avp(r) = $var(x);"#);
        assert_eq!(ran.avps("r"), ["-1"], "{mode}");
    }
}

#[test]
fn mistakes_are_found_when_the_script_is_loaded() {
    let folder = Folder::new("virtual-mistakes");
    let good = config(&folder, "FAILOVER");
    for (config, says) in [
        (config(&folder, "SOMETIMES"), "SOMETIMES is no mode"),
        (good.replace("virtual://one", "virtual://two"), "define two FAILOVER"),
        (good.replace("define one FAILOVER", "sqlite:///x"), "must be `define name MODE`"),
        (good.replace("\"db_urls\", \"sqlite", "\"db_urls\", \"nosql"), "db_nosql.so"),
    ] {
        let error = refused(&config, "", Dialect::V4);
        assert!(error.contains(says), "{says}: {error}");
    }
}
